"""The read-only API: turns a snapshot of the daemon into JSON, one function a path.

Knows no socket and no header.  A new path is a function here and a line in :data:`ANSWERS`, or in :data:`QUESTIONS`
where the query says what is wanted; ``tools/make_reference`` then asks for its description.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from http import HTTPStatus
from typing import Any
from urllib.parse import parse_qs

import numpy as np
from numpy.typing import NDArray

from gon_edge.events import Cause
from gon_edge.links.snapshot import HistorySnapshot, ReadingsSnapshot, Snapshot, StreamSnapshot
from gon_edge.stream.history import unpacked
from gon_edge.stream.ledger import IN_WORDS

# Not critical: /healthz fails when the scoring loop has not come round for so long.  It beats once a second.
HEARTBEAT_LIMIT_S = 30.0
_GATE_BYTES = 4 << 10  # what the gate says of a model is under 1 KiB

MOST_ASKED = 8  # not critical: more features than an alert names causes

Query = Mapping[str, Sequence[str]]
Days = Callable[[str, Sequence[str], float], Mapping[int, NDArray[np.float32]] | None]
"""How the hour until a time was on earlier days: stream, features and Unix seconds in; by days ago the means of each
bucket and feature, (B, F), out; ``None`` while too many ask."""


def nothing_stored(stream: str, features: Sequence[str], end: float) -> Mapping[int, NDArray[np.float32]]:
    """No earlier days."""
    return {}


class Refused(Exception):
    """Why a query gets no answer: a status and a line for people."""

    def __init__(self, status: HTTPStatus, text: str) -> None:
        super().__init__(text)
        self.status, self.text = status, text


def _health(snapshot: Snapshot) -> tuple[HTTPStatus, object]:
    age_s = time.monotonic() - snapshot.heartbeat_at
    healthy = age_s < HEARTBEAT_LIMIT_S
    status = HTTPStatus.OK if healthy else HTTPStatus.SERVICE_UNAVAILABLE
    return status, {"healthy": healthy, "heartbeat_age_s": round(age_s, 3)}


def _readiness(snapshot: Snapshot) -> tuple[HTTPStatus, object]:
    status = HTTPStatus.OK if snapshot.ready else HTTPStatus.SERVICE_UNAVAILABLE
    return status, {"ready": snapshot.ready}


def _streams(snapshot: Snapshot) -> tuple[HTTPStatus, object]:
    return HTTPStatus.OK, {"streams": [_stream(stream) for stream in snapshot.streams]}


def _stream(stream: StreamSnapshot) -> dict[str, Any]:
    said = _plain(dataclasses.replace(stream, features={}, counters=frozenset(), dropped=()))
    del said["counters"]
    features = [
        {
            "name": name,
            "value": held.value,
            "cadence_s": None if held.cadence_s is None else float(f"{held.cadence_s:.4g}"),
            "kind": "counter" if name in stream.counters else "gauge",
        }
        for name, held in stream.features.items()
    ]
    dropped = [
        {
            "key": entry.key,
            "reason": entry.reason,
            "count": entry.count,
            "example": entry.example,
            "why": IN_WORDS.get(entry.reason, entry.reason),
        }
        for entry in stream.dropped
    ]
    return {"stream": said.pop("name"), **said, "features": features, "dropped": dropped}


def _alerts(snapshot: Snapshot) -> tuple[HTTPStatus, object]:
    return HTTPStatus.OK, {"alerts": snapshot.alerts}


def _silences(snapshot: Snapshot) -> tuple[HTTPStatus, object]:
    return HTTPStatus.OK, {"silences": snapshot.silences}


def _history(snapshot: Snapshot) -> tuple[HTTPStatus, object]:
    return HTTPStatus.OK, {
        "bucket_s": snapshot.bucket_s,
        "streams": [_thinned(history) for history in snapshot.history],
    }


def _thinned(history: HistorySnapshot) -> dict[str, Any]:
    """From its first score on, in four digits; of the thresholds only where they change, as ``[index, value]``."""
    first = next((i for i, score in enumerate(history.scores) if score == score), len(history.scores))
    changes: list[tuple[int, float]] = []
    for i, threshold in enumerate(history.thresholds[first:]):
        if threshold == threshold and (not changes or changes[-1][1] != threshold):
            changes.append((i, threshold))
    return {
        "stream": history.stream,
        "end": history.end,
        "scores": [float(f"{score:.4g}") for score in history.scores[first:]],
        "thresholds": [[i, float(f"{threshold:.4g}")] for i, threshold in changes],
    }


def _trainings(snapshot: Snapshot) -> tuple[HTTPStatus, object]:
    return HTTPStatus.OK, {"trainings": snapshot.trainings}


def _models(snapshot: Snapshot) -> tuple[HTTPStatus, object]:
    # Chosen keys, and a bound: a model from elsewhere may have more to say of itself.
    keys = ("version", "parent", "trained_at", "rows", "since", "until")
    models = [
        {"stream": name, **{key: lineage.get(key) for key in keys}, "gate": _bounded(lineage.get("gate"))}
        for name, lineage in snapshot.models.items()
    ]
    return HTTPStatus.OK, {"models": models}


def _bounded(gate: object) -> object:
    with contextlib.suppress(RecursionError):
        return gate if len(_json(gate)) <= _GATE_BYTES else None
    return None


def _latency(seconds: Sequence[float]) -> dict[str, float | None]:
    ordered = sorted(seconds)
    return {
        name: round(ordered[int(share * (len(ordered) - 1))], 6) if ordered else None
        for name, share in (("median_s", 0.5), ("p95_s", 0.95))
    }


def _status(snapshot: Snapshot) -> tuple[HTTPStatus, object]:
    return HTTPStatus.OK, {
        "node": snapshot.node,
        "version": snapshot.version,
        "now": snapshot.now,
        "started_at": snapshot.started_at,
        "uptime_s": snapshot.now - snapshot.started_at,
        "ready": snapshot.ready,
        "heartbeat_age_s": round(time.monotonic() - snapshot.heartbeat_at, 3),
        "mqtt": {
            "connected": snapshot.mqtt_connected,
            "url": snapshot.mqtt_url,
            "error": snapshot.mqtt_error,
            "troubles": snapshot.mqtt_troubles,
            "away": snapshot.away,
        },
        "troubles": snapshot.troubles,
        "queue_length": snapshot.queue_length,
        "rss_bytes": snapshot.rss_bytes,
        "latency": _latency(snapshot.latency_s),
    }


ANSWERS: Mapping[str, Callable[[Snapshot], tuple[HTTPStatus, object]]] = {
    "/healthz": _health,
    "/readyz": _readiness,
    "/api/v1/streams": _streams,
    "/api/v1/alerts": _alerts,
    "/api/v1/silences": _silences,
    "/api/v1/history": _history,
    "/api/v1/trainings": _trainings,
    "/api/v1/models": _models,
    "/api/v1/status": _status,
}
"""Every path that answers in JSON."""


# -- what a query asks for ---------------------------------------------------------------------------------------------


def _readings(snapshot: Snapshot, query: Query, _: Days) -> tuple[HTTPStatus, object]:
    stream = _asked(snapshot, query)
    low, high, expected = unpacked(stream.buckets, len(stream.features))
    some = np.flatnonzero(np.isfinite(low).any(axis=1))
    first = int(some[0]) if len(some) else len(low)
    place = {name: i for i, name in enumerate(stream.learned)}
    features = [
        {
            "feature": name,
            "value": value,
            "usual": _rounded(stream.usual[:, place[name]]) if name in place else None,
            "low": _rounded(low[first:, f]),
            "high": _rounded(high[first:, f]),
            "expected": _rounded(expected[first:, f]) if np.isfinite(expected[:, f]).any() else None,
        }
        for f, (name, value) in enumerate(zip(stream.features, _rounded(stream.values), strict=True))
    ]
    said = {"stream": stream.stream, "end": stream.end, "bucket_s": snapshot.reading_bucket_s, "features": features}
    return HTTPStatus.OK, said


def _days(snapshot: Snapshot, query: Query, days: Days) -> tuple[HTTPStatus, object]:
    stream = _asked(snapshot, query)
    features = list(dict.fromkeys(query.get("feature", ())))[:MOST_ASKED]
    found = days(stream.stream, features, stream.end)
    if found is None:
        raise Refused(HTTPStatus.SERVICE_UNAVAILABLE, "others are looking up earlier days; ask again soon")
    return HTTPStatus.OK, {
        "stream": stream.stream,
        "end": stream.end,
        "bucket_s": snapshot.reading_bucket_s,
        "features": [
            {
                "feature": name,
                "days": [{"ago": ago, "values": _rounded(values[:, f])} for ago, values in sorted(found.items())],
            }
            for f, name in enumerate(features)
        ],
    }


def _asked(snapshot: Snapshot, query: Query) -> ReadingsSnapshot:
    """The stream that a query names."""
    names = query.get("stream", ())
    if len(names) != 1:
        raise Refused(HTTPStatus.BAD_REQUEST, "name one stream: ?stream=NAME")
    if names[0] not in snapshot.readings:
        raise Refused(HTTPStatus.NOT_FOUND, "no such stream, or it has no row yet")
    return snapshot.readings[names[0]]


def _rounded(values: NDArray[np.floating]) -> list[float]:
    """In six digits, which is what readings have."""
    return [float(f"{value:.6g}") for value in values.tolist()]


QUESTIONS: Mapping[str, Callable[[Snapshot, Query, Days], tuple[HTTPStatus, object]]] = {
    "/api/v1/readings": _readings,
    "/api/v1/days": _days,
}
"""Every path that answers in JSON to what its query asks for."""


def answer(path: str, snapshot: Snapshot, query: str = "", days: Days = nothing_stored) -> tuple[HTTPStatus, bytes]:
    """Return status and JSON of a path of :data:`ANSWERS` or :data:`QUESTIONS`.

    Parameters
    ----------
    path : str
    snapshot : Snapshot
    query : str
        As it stands in the URL; read only where a path takes one.
    days : Days
    """
    if path in ANSWERS:
        status, value = ANSWERS[path](snapshot)
        return status, _json(value)
    try:
        status, value = QUESTIONS[path](snapshot, _parsed(query), days)
    except Refused as refused:
        status, value = refused.status, {"error": refused.text}
    return status, _json(value)


def _parsed(query: str) -> Query:
    try:
        return parse_qs(query, max_num_fields=1 + MOST_ASKED, keep_blank_values=True)
    except ValueError:
        raise Refused(HTTPStatus.BAD_REQUEST, f"name one stream, and {MOST_ASKED} features at most") from None


def _json(value: object) -> bytes:
    return json.dumps(_plain(value), separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def _plain(value: Any) -> Any:
    """Return `value` as JSON knows it: dataclasses as objects; NaN and infinities, which it does not have, as null."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, StreamSnapshot | Cause):
        said = {field.name: _plain(getattr(value, field.name)) for field in fields(value)}
        if isinstance(value, Cause):
            del said["trend"]  # of alerts of a drift only, and those are events
            if not value.per_row:
                del said["per_row"]  # as in events: of counters only
        return said
    return value
