"""What a daemon says during a demonstration, for the tests of the story and of its picture."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gon_edge.demo.picture import Seen
from gon_edge.demo.story import DemoSettings, Story

CAUSES = [
    {"feature": "cpu.total", "value": 99.8, "expected": 12.25, "contribution": 0.6},
    {"feature": "memory.used_percent", "value": 41.0, "expected": 30.0, "contribution": 0.4},
]


def stream(state: str, **fields: Any) -> dict[str, Any]:
    scoring = state == "scoring"
    return {
        "stream": "pi",
        "state": state,
        "rows": 130,
        "rows_needed": 60,
        "eta_s": None,
        "features": [{"name": f"f{i}", "value": 1.0, "cadence_s": 1.0, "kind": "gauge"} for i in range(13)],
        "dropped": [],
        "score": 0.5 if scoring else None,
        "threshold": 3.0 if scoring else None,
        "scores": [0.5] * 40 if scoring else [],
        "model_version": "1" if scoring else None,
        "starter": None,
        "waits": "",
        **fields,
    }


def alert(alert_id: str = "a", kind: str = "anomaly", **fields: Any) -> dict[str, Any]:
    return {
        "id": alert_id,
        "type": "new",
        "kind": kind,
        "stream": "pi",
        "since": 1e9,
        "timestamp": 1e9 + 5,
        "score": 9.0,
        "severity": "critical",
        "top_features": CAUSES,
        **fields,
    }


def story_in_the_fault(*before: Mapping[str, Any], busy_percent: float = 5.0) -> Story:
    story = Story(DemoSettings(fast=True), "pi", "2 busy processes")
    story.observe(0.0, [stream("scoring")], before)
    story.fault_began(100.0, busy_percent)
    return story


def seen(**fields: Any) -> Seen:
    status = {"rss_bytes": 46 << 20, "streams": [stream("scoring", **fields)], "alerts": []}
    return Seen(status, (0.0012, 0.0034), "http://127.0.0.1:54321", 83.0)
