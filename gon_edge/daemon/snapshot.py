"""What people see of a running daemon: the snapshot that HTTP threads read, and the line for the service manager."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gon_edge import __version__
from gon_edge.config.schema import Config, HttpConfig
from gon_edge.daemon.orders import Orders
from gon_edge.daemon.reporting import STATE_EVERY_S, Reporter
from gon_edge.errors import StoreError
from gon_edge.links.mqtt.client import MqttClient
from gon_edge.links.snapshot import HistorySnapshot, ReadingsSnapshot, Snapshot, StreamSnapshot
from gon_edge.model.counters import said
from gon_edge.process.clock import monotonic
from gon_edge.process.memory import rss_bytes
from gon_edge.state.days import earlier_days
from gon_edge.state.store import Store
from gon_edge.stream.history import HISTORY_BUCKET_S, READING_BUCKET_S, READING_BUCKETS
from gon_edge.stream.pipeline import Pipeline
from gon_edge.stream.stream import Stream

log = logging.getLogger(__name__)

_USUAL = 2.0  # deviations: where 95 % of the rows of a bell curve are.  Not critical: it is a shade behind a line
_WAIT_S = 1.0  # for a scoring loop that hangs; not critical: it takes a tenth of this to come round
_LOOK_S = 2.0  # a page waits 5 s for an answer: for its turn and for the look it may take as long as this each


class Viewer:
    """Takes snapshots of the running daemon.

    Parameters
    ----------
    config : Config
    pipeline : Pipeline
    client : MqttClient
    reporter : Reporter
    orders : Orders
    troubles : callable
        What people should know beside what they see, a line each.

    Attributes
    ----------
    heartbeat_at : float
        When the scoring loop came round last, by ``time.monotonic``; by it HTTP threads see a loop that hangs.
    """

    def __init__(
        self,
        config: Config,
        pipeline: Pipeline,
        client: MqttClient,
        reporter: Reporter,
        orders: Orders,
        troubles: Callable[[], tuple[str, ...]],
    ) -> None:
        self._troubles = troubles
        self.heartbeat_at = time.monotonic()
        self._config = config
        self._pipeline, self._client, self._reporter, self._orders = pipeline, client, reporter, orders
        self._started_at = time.time()
        self._new = threading.Condition()
        self._wanted = False
        self._ready = False
        self._newest = self.take()
        self._taken_at = -math.inf  # by `time.monotonic`

    @property
    def wanted(self) -> bool:
        """Whether somebody waits for a new snapshot."""
        return self._wanted

    def look(self) -> Snapshot:
        """The newest snapshot, for the threads of HTTP; where it is old they wait until the scoring loop takes another.

        Nobody looks for most of the time, and of a thousand streams a snapshot takes a tenth of a second.
        """
        with self._new:
            if time.monotonic() - self._taken_at > STATE_EVERY_S:
                self._wanted = True
                self._new.wait(_WAIT_S)
            return replace(self._newest, heartbeat_at=self.heartbeat_at)

    def begin(self) -> None:
        """Say that configuration and models are loaded."""
        self.heartbeat_at, self._ready = time.monotonic(), True
        with self._new:
            self._newest = replace(self._newest, ready=True)

    def show(self) -> None:
        """Take a snapshot for those who `look`; called on the scoring thread."""
        newest = self.take()
        with self._new:
            self._newest, self._taken_at, self._wanted = newest, time.monotonic(), False
            self._new.notify_all()

    def take(self) -> Snapshot:
        """What there is to see now; called on the scoring thread."""
        streams = sorted(self._pipeline.streams.items())
        return Snapshot(
            node=self._config.node,
            version=__version__,
            started_at=self._started_at,
            now=monotonic() + self._pipeline.offset_s,
            mqtt_connected=self._client.connected,
            mqtt_url=self._client.url,
            mqtt_error=self._client.last_error,
            mqtt_troubles=self._client.troubles(),
            troubles=self._troubles(),
            away=self._reporter.away,
            queue_length=len(self._client.queue),
            rss_bytes=rss_bytes(),
            heartbeat_at=self.heartbeat_at,
            ready=self._ready,
            streams=tuple(
                stream_snapshot(stream, self._orders.training_of(name), self._orders.waits(name))
                for name, stream in streams
            ),
            alerts=tuple(reversed(self._reporter.alerts.values())),
            silences=tuple(asdict(silence) for silence in self._orders.silences.active(time.time())),
            bucket_s=HISTORY_BUCKET_S,
            history=tuple(
                HistorySnapshot(name, *stream.history.copy()) for name, stream in streams if stream.verdict is not None
            ),
            reading_bucket_s=READING_BUCKET_S,
            readings={name: readings_snapshot(stream) for name, stream in streams if stream.last_row is not None},
            trainings=tuple(self._orders.trainings),
            models={name: stream.model.lineage for name, stream in streams if stream.model is not None},
            latency_s=tuple(self._reporter.latencies),
        )


def stream_snapshot(stream: Stream, training: str, waits: str) -> StreamSnapshot:
    """A stream as it is now; in words, how far its training is, and why it still has no model."""
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
        threshold=verdict.threshold if verdict else stream.scored_by.threshold if stream.scored_by else None,
        scores=tuple(stream.scores),
        model_version=model.version if model else None,
        starter=stream.starter.version if stream.starter else None,
        model_trained_at=float(model.lineage.get("trained_at", 0.0)) if model else None,
        last_timestamp=stream.last_row.timestamp if stream.last_row else None,
        features=stream.aligner.held,
        counters=counters_of(stream),
        dropped=stream.ledger.entries,
        missing=verdict.missing if verdict else (),
        causes=stream.causes(),
        training=training,
        unusable={str(why): rows for why, rows in stream.unusable.items()} if model is None else {},
        waits=waits or stream.aligner.waits_for,
    )


def counters_of(stream: Stream) -> frozenset[str]:
    """Features that are judged by how much they rise, not by their level.

    That is what the model in use found.  Of what no model knows the configuration says it, which counts from the next
    training on, or else what has come so far.
    """
    model, settings = stream.scored_by, stream.settings
    found = []
    for name, held in stream.aligner.held.items():
        if model is not None and name in model.features:
            rises = name in model.rising
        else:
            forced = said(name, settings.counter, settings.gauge)
            rises = held.rises if forced is None else forced
        if rises:
            found.append(name)
    return frozenset(found)


def readings_snapshot(stream: Stream) -> ReadingsSnapshot:
    """What a stream has read in the last hour, beside what its model has mostly seen: the mean, two deviations around.

    A feature that never moved in training has no deviation; its scale is its size (`Scaler`).  Of a counter only the
    rate is learned.
    """
    end, buckets = stream.readings.copy()
    learned: tuple[str, ...] = ()
    usual = np.empty((2, 0))
    if (model := stream.scored_by) is not None:
        levels = np.flatnonzero(~model.is_counter)
        learned, mean, scale = (
            tuple(model.features[f] for f in levels),
            model.scaler.mean[levels],
            model.scaler.scale[levels],
        )
        width = np.where(scale == np.where(mean == 0.0, 1.0, np.abs(mean)), 0.0, _USUAL * scale)
        usual = np.array([mean - width, mean + width])
    readings = stream.readings
    return ReadingsSnapshot(stream.name, readings.features, readings.values, end, buckets, learned, usual)


class EarlierDays:
    """Looks up in the store what a stream read on earlier days, on the threads that ask.

    Each look has a connection of its own, for reading: it holds no lock that the scoring loop waits for.  One look at a
    time, and not for long: it shares processor and memory with the scoring loop.

    Parameters
    ----------
    state_dir : Path
    """

    def __init__(self, state_dir: Path) -> None:
        self._state_dir = state_dir
        self._one = threading.Lock()

    def __call__(self, stream: str, features: Sequence[str], end: float) -> Mapping[int, NDArray[np.float32]] | None:
        """Return the hour until `end` as it was on other days, as `earlier_days` does; ``None`` while others look.

        Parameters
        ----------
        stream : str
        features : sequence of str
        end : float
            Unix seconds.
        """
        if not self._one.acquire(timeout=_LOOK_S):
            return None
        try:
            stop_at = time.monotonic() + _LOOK_S
            with Store.open(self._state_dir, read_only=True) as store:
                return earlier_days(
                    store,
                    stream,
                    features,
                    end - READING_BUCKET_S * READING_BUCKETS,
                    bucket_s=READING_BUCKET_S,
                    buckets=READING_BUCKETS,
                    enough=lambda: time.monotonic() > stop_at,
                )
        except StoreError as error:
            log.debug("no earlier days: %s", error)
            return {}
        finally:
            self._one.release()


def status_line(streams: Collection[Stream], client: MqttClient) -> str:
    """One line: how many streams are in which state, open alerts, and the broker."""
    states = Counter(stream.state for stream in streams)
    alerts = sum(len(stream.policy.active) for stream in streams)
    found = ", ".join(f"{count} {state}" for state, count in sorted(states.items())) or "no stream yet"
    broker = "; ".join(
        (*(("connected",) if client.connected else (f"broker: {client.last_error}",)), *client.troubles())
    )
    return f"{found}; {alerts} alert{'' if alerts == 1 else 's'}; {broker}"


def exposure(http: HttpConfig) -> str:
    """What is missing where the HTTP port can be reached from the network; empty where nothing is."""
    if http.loopback:
        return ""
    found = []
    if not http.guarded:
        found.append("no password is asked for (http.token_file, or http.username)")
    if not http.tls:
        found.append("nothing is encrypted (http.cert_file)")
    return "; ".join(found)
