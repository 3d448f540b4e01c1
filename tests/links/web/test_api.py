"""What the API says of a daemon, path by path."""

from __future__ import annotations

import json
import math
import time
from typing import Any

import pytest
from snapshots import ALERT, HOSTILE, SCORING, WARMING, plain_snapshot

from gon_edge.links.snapshot import HistorySnapshot
from gon_edge.links.web import api


def said(path: str, **changes: object) -> Any:
    """What is answered of a daemon with these fields; it must be JSON, which has no NaN."""
    status, body = api.answer(path, plain_snapshot(**changes))
    assert status == 200
    return json.loads(body, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))


def test_what_a_model_from_elsewhere_says_of_its_gate_is_bounded() -> None:
    deep: Any = []
    for _ in range(900):
        deep = [deep]
    lineage = {"plain": {"passed": True}, "long": {"passed": "x" * 9000}, "deep": deep}
    models = {name: {"version": "1", "gate": gate, "else": "?"} for name, gate in lineage.items()}
    answer = said("/api/v1/models", models=models)["models"]
    assert {model["stream"]: model["gate"] for model in answer} == {
        "plain": lineage["plain"],
        "long": None,
        "deep": None,
    }
    assert "else" not in answer[0]


def test_streams_are_listed_with_null_for_what_is_not_a_number() -> None:
    first, second = said("/api/v1/streams", streams=(SCORING, WARMING))["streams"]
    assert first["stream"] == "pump"
    assert (first["state"], first["rows"], first["rows_needed"]) == ("scoring", 5000, 600)
    assert (first["score"], first["threshold"], first["model_version"]) == (0.5, 2.0, "v3")
    assert first["scores"] == [0.4, None, 0.5]
    assert first["causes"] == [{"feature": "cpu.total", "value": 97.0, "expected": None, "contribution": 0.62}]
    assert (second["stream"], second["score"], second["eta_s"]) == (HOSTILE, None, 450.0)


def test_alerts_are_listed_as_they_go_out_by_mqtt() -> None:
    missing = {**ALERT, "id": "a2", "kind": "missing", "score": math.inf}
    assert said("/api/v1/alerts", alerts=(ALERT, missing)) == {"alerts": [ALERT, {**missing, "score": None}]}


def test_status_says_how_the_daemon_is() -> None:
    status = said("/api/v1/status", latency_s=(*[0.001] * 9, *[0.002] * 9, 0.03, 0.5))
    assert 0 <= status.pop("heartbeat_age_s") < 5
    assert status == {
        "node": "pi-1",
        "version": "0.1.0",
        "now": 1.7e9,
        "started_at": 1.7e9 - 60,
        "uptime_s": 60.0,
        "ready": True,
        "mqtt": {"connected": True, "url": "mqtt://localhost:1883", "error": ""},
        "queue_length": 3,
        "rss_bytes": 40 << 20,
        "latency": {"median_s": 0.002, "p95_s": 0.03},
    }


def test_history_is_thinned_and_of_the_thresholds_only_changes_are_said() -> None:
    nan = math.nan
    history = HistorySnapshot("pump", 1.7e9, (nan, 1.23456, nan, 3.0, 4.0), (nan, 6.0, nan, 6.0, 7.5))
    assert said("/api/v1/history", history=(history,)) == {
        "bucket_s": 15.0,
        "streams": [
            {"stream": "pump", "end": 1.7e9, "scores": [1.235, None, 3.0, 4.0], "thresholds": [[0, 6.0], [3, 7.5]]}
        ],
    }


def test_trainings_are_listed_with_the_gates_reason() -> None:
    training = {"stream": "pump", "version": "", "outcome": "rejected", "reason": "it sees fewer faults"}
    assert said("/api/v1/trainings", trainings=(training,)) == {"trainings": [training]}


def test_health_fails_when_the_scoring_loop_stands_still() -> None:
    for age_s, expected in ((0.0, 200), (api.HEARTBEAT_LIMIT_S - 5, 200), (api.HEARTBEAT_LIMIT_S + 1, 503)):
        snapshot = plain_snapshot(heartbeat_at=time.monotonic() - age_s)
        assert api.answer("/healthz", snapshot)[0] == expected


def test_readiness_does_not_depend_on_the_broker() -> None:
    assert api.answer("/readyz", plain_snapshot(mqtt_connected=False))[0] == 200
    assert api.answer("/readyz", plain_snapshot(ready=False))[0] == 503
