"""A daemon at one moment: the one fixture for tests of whatever shows it."""

from __future__ import annotations

import dataclasses
import time

from gon_edge.links.snapshot import Snapshot


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
