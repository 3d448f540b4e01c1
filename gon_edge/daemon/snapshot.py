"""What people see of a running daemon: the snapshot that HTTP threads read, and the line for the service manager."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection

from gon_edge.links.mqtt.client import MqttClient
from gon_edge.links.snapshot import HistorySnapshot, StreamSnapshot
from gon_edge.stream.stream import Stream


def stream_snapshot(stream: Stream, training: str) -> StreamSnapshot:
    """A stream as it is now; ``training`` is how far its training is, in words."""
    verdict, model, interval = stream.verdict, stream.model, stream.aligner.interval_s
    needed = stream.settings.warmup_rows
    return StreamSnapshot(
        name=stream.name,
        state=stream.state,
        rows=stream.rows,
        rows_needed=needed,
        eta_s=max(0, needed - stream.rows) * interval if model is None and interval is not None else None,
        interval_s=interval,
        score=verdict.score if verdict else None,
        threshold=stream.scored_by.threshold if stream.scored_by else None,
        scores=tuple(stream.scores),
        model_version=model.version if model else None,
        starter=stream.starter.version if stream.starter else None,
        model_trained_at=float(model.lineage.get("trained_at", 0.0)) if model else None,
        last_timestamp=stream.last_row.timestamp if stream.last_row else None,
        features=len(model.features) if model else len(stream.aligner.features),
        missing=verdict.missing if verdict else (),
        causes=stream.causes(),
        training=training,
    )


def history_snapshots(streams: Collection[Stream]) -> tuple[HistorySnapshot, ...]:
    """The last hour of every stream that has been scored, by name."""
    return tuple(
        HistorySnapshot(stream.name, *stream.history.copy())
        for stream in sorted(streams, key=lambda stream: stream.name)
        if stream.verdict is not None
    )


def status_line(streams: Collection[Stream], client: MqttClient) -> str:
    """One line: how many streams are in which state, open alerts, and the broker."""
    states = Counter(stream.state for stream in streams)
    alerts = sum(len(stream.policy.active) for stream in streams)
    found = ", ".join(f"{count} {state}" for state, count in sorted(states.items())) or "no stream yet"
    broker = "connected" if client.connected else f"broker: {client.last_error}"
    return f"{found}; {alerts} alert{'' if alerts == 1 else 's'}; {broker}"
