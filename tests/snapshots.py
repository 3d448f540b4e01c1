"""A daemon at one moment: the one fixture for tests of whoever shows it."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from gon_edge.events import Cause
from gon_edge.links.snapshot import ReadingsSnapshot, Snapshot, StreamSnapshot
from gon_edge.stream.columns import Held
from gon_edge.stream.ledger import Entry

HOSTILE = "<img src=x onerror=document.title='owned'>"

SCORING = StreamSnapshot(
    name="pump",
    state="scoring",
    rows=5000,
    rows_needed=600,
    interval_s=1.0,
    score=0.5,
    threshold=2.0,
    scores=(0.4, float("nan"), 0.5),
    model_version="v3",
    model_trained_at=1.7e9 - 7200,
    last_timestamp=1.7e9,
    features={f"f{i}": Held(i + 0.5, 1.0) for i in range(16)},
    counters=frozenset({"f3"}),
    dropped=(Entry("state", "text", 12, "open"), Entry("slow", "ahead", 3, "+3600 s")),
    missing=("flow",),
    causes=(Cause("cpu.total", 97.0, None, 0.62),),
)
WARMING = StreamSnapshot(
    name=HOSTILE, state="warming-up", rows=150, rows_needed=600, eta_s=450.0, features=dict.fromkeys("abc", Held(1.0))
)
ALERT: dict[str, Any] = {
    "id": "a1",
    "type": "update",
    "kind": "anomaly",
    "stream": "pump",
    "since": 1.7e9 - 240,
    "timestamp": 1.7e9,
    "score": 6.0,
    "threshold": 2.0,
    "severity": "critical",
    "top_features": [{"feature": "cpu.total", "value": 97.0, "expected": 4.0, "contribution": 0.62}],
    "model_version": "v3",
}


def plain_snapshot(**changes: object) -> Snapshot:
    """Return a daemon that is well and has no stream, with other fields where named."""
    plain = Snapshot(
        node="pi-1",
        version="0.1.0",
        started_at=1.7e9 - 60,
        now=1.7e9,
        mqtt_connected=True,
        mqtt_url="mqtt://localhost:1883",
        mqtt_error="",
        queue_length=3,
        rss_bytes=40 << 20,
        heartbeat_at=time.monotonic(),
        ready=True,
    )
    return dataclasses.replace(plain, **changes)  # type: ignore[arg-type]


def readings(
    stream: str,
    features: Sequence[str],
    *,
    low: Sequence[Sequence[float]],
    expected: Sequence[Sequence[float]] | None = None,
    end: float = 1.7e9,
) -> ReadingsSnapshot:
    """Return an hour of readings: each half minute from `low` to one more, and for each feature usually 0 to 10."""
    table = np.float32(low)
    wanted = np.full_like(table, np.nan) if expected is None else np.float32(expected)
    buckets = tuple(np.stack([at, at + 1, want]).tobytes() for at, want in zip(table, wanted, strict=True))
    usual = np.tile([[0.0], [10.0]], len(features))
    return ReadingsSnapshot(stream, tuple(features), table[-1] + 1, end, buckets, tuple(features), usual)
