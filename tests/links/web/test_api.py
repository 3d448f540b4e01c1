"""What the API says of a daemon, path by path."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from snapshots import ALERT, HOSTILE, SCORING, WARMING, plain_snapshot, readings

from gon_edge.links.snapshot import HistorySnapshot
from gon_edge.links.web import api
from gon_edge.stream.columns import Held
from gon_edge.stream.history import MOST_READINGS, READING_BUCKETS


def said(path: str, **changes: object) -> Any:
    """What is answered of a daemon with these fields."""
    status, body = api.answer(path, plain_snapshot(**changes))
    assert status == 200
    return plain(body)


def plain(body: bytes) -> Any:
    """It must be JSON, which has no NaN."""
    return json.loads(body, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))


def asked(path: str, query: str, days: api.Days = api.nothing_stored) -> tuple[int, Any]:
    """Status and answer of a daemon that has readings of `pump`."""
    low = [[math.nan, math.nan], [1.23456789, math.nan], [2.0, 5.0]]
    streams = {"pump": readings("pump", ("flow", "a b&"), low=low)}
    status, body = api.answer(path, plain_snapshot(readings=streams), query, days)
    return status, plain(body)


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


def test_a_stream_lists_its_features_and_what_became_no_value() -> None:
    (pump,) = said("/api/v1/streams", streams=(SCORING,))["streams"]
    assert pump["features"][2:4] == [
        {"name": "f2", "value": 2.5, "cadence_s": 1.0, "kind": "gauge"},
        {"name": "f3", "value": 3.5, "cadence_s": 1.0, "kind": "counter"},
    ]
    why = "text that is no number"
    assert pump["dropped"][0] == {"key": "state", "reason": "text", "count": 12, "example": "open", "why": why}
    assert [entry["key"] for entry in pump["dropped"]] == ["state", "slow"]
    held = {"level": Held(5.0, None, True), "gone": Held(float("nan"))}
    young = replace(WARMING, features=held, counters=frozenset({"level"}))
    (young,) = said("/api/v1/streams", streams=(young,))["streams"]
    assert [(f["value"], f["kind"]) for f in young["features"]] == [(5.0, "counter"), (None, "gauge")]


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
        "mqtt": {"connected": True, "url": "mqtt://localhost:1883", "error": "", "troubles": [], "away": None},
        "troubles": [],
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


def test_readings_start_with_the_first_and_are_beside_what_is_usual_and_expected() -> None:
    status, answer = asked("/api/v1/readings", "stream=pump")
    assert status == 200
    assert (answer["stream"], answer["end"], answer["bucket_s"]) == ("pump", 1.7e9, 30.0)
    flow, other = answer["features"]
    assert (flow["feature"], other["feature"]) == ("flow", "a b&")
    assert (flow["low"], flow["high"]) == ([1.23457, 2.0], [2.23457, 3.0])
    assert (other["low"], other["value"], flow["value"]) == ([None, 5.0], 6.0, 3.0)
    assert (flow["usual"], flow["expected"]) == ([0.0, 10.0], None)


@pytest.mark.parametrize("path", ["/api/v1/readings", "/api/v1/days"])
@pytest.mark.parametrize(
    ("query", "status"),
    [
        ("", 400),
        ("stream=pump&stream=fan", 400),
        ("stream=fan", 404),
        ("stream=" + "&feature=x" * 200, 400),
        ("stream=pump" + "&stream=" * 200, 400),
        ("stream=%00%ff", 404),
    ],
)
def test_a_query_that_names_no_stream_is_refused_in_words(path: str, query: str, status: int) -> None:
    found, answer = asked(path, query)
    assert found == status
    assert answer["error"]


def test_earlier_days_are_those_of_the_features_that_are_asked_for_nearest_first() -> None:
    wanted = []

    def days(stream: str, features: Sequence[str], end: float) -> Mapping[int, NDArray[np.float32]]:
        wanted.append((stream, list(features), end))
        return {2: np.float32([[1.0, 2.0], [np.nan, 4.0]]), 1: np.float32([[5.0, 6.0], [7.0, 8.0]])}

    status, answer = asked("/api/v1/days", "stream=pump&feature=a%20b%26&feature=gone&feature=gone", days)
    assert status == 200
    assert wanted == [("pump", ["a b&", "gone"], 1.7e9)]
    assert answer["features"][0] == {
        "feature": "a b&",
        "days": [{"ago": 1, "values": [5.0, 7.0]}, {"ago": 2, "values": [1.0, None]}],
    }
    assert answer["features"][1]["days"][1] == {"ago": 2, "values": [2.0, 4.0]}


def test_who_asks_for_days_while_too_many_others_do_is_told_to_come_back() -> None:
    status, answer = asked("/api/v1/days", "stream=pump&feature=flow", lambda stream, features, end: None)
    assert status == 503
    assert "again" in answer["error"]


def test_the_largest_answer_about_readings_stays_below_200_kib() -> None:
    rng = np.random.default_rng(0)
    names = [f"sensor-{i}" for i in range(MOST_READINGS)]
    low = rng.normal(0.0, 1e-3, (READING_BUCKETS, MOST_READINGS)).tolist()
    stream = readings("pump", names, low=low, expected=low)
    _, body = api.answer("/api/v1/readings", plain_snapshot(readings={"pump": stream}), "stream=pump")
    assert 100 << 10 < len(body) < 200 << 10
