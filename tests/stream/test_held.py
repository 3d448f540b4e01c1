"""An alert as JSON and back, and when two lists of causes are of one fault."""

import json
import math

import pytest

from gon_edge.events import Alert, Cause, Trend
from gon_edge.stream.held import Held, alert_json, alert_of, event_json, mainly_same
from gon_edge.stream.topics import MAX_NAME

FLOW, HEAT = Cause("flow", 9.0, 2.0, 0.7), Cause("heat", None, None, 0.3)


def alert(score: float = 2.0, causes: tuple[Cause, ...] = (FLOW, HEAT)) -> Alert:
    return Alert(
        "pump-anomaly-1", "new", "anomaly", "pump", 1.0, 2.0, score, 1.0, "warning", causes, "v1", "fan-anomaly-1"
    )


def test_an_event_of_a_version_without_groups_comes_back_in_one_of_its_own():
    event = alert_json(alert())
    del event["group"]
    assert alert_json(alert_of(event))["group"] == event["id"]


def test_an_event_comes_back_from_its_json():
    assert alert_of(json.loads(json.dumps(alert_json(alert())))) == alert()


def test_where_a_reading_drifts_to_is_in_the_event_and_comes_back():
    drifts = alert(causes=(Cause("heat", 41.0, 38.0, 1.0, trend=Trend(0.5, 45.0, 8.0)),))
    event = json.loads(json.dumps(alert_json(drifts)))
    assert event["top_features"][0]["trend"] == {"per_day": 0.5, "reaches": 45.0, "in_days": 8.0}
    assert alert_of(event) == drifts
    assert "trend" not in alert_json(alert())["top_features"][0]


def test_a_score_that_is_no_number_is_null_in_json():
    event = alert_json(alert(math.nan))
    assert event["score"] is None
    assert math.isnan(alert_of(event).score)


def test_an_event_names_ten_features_and_how_many_more_there_are():
    # Forty that fell silent together made a packet of 5 kB, which not every broker takes.
    missing = tuple(Cause(f"{i:02}", None, None, 1 / 40) for i in range(40))
    event = event_json(alert(causes=missing))
    assert [cause["feature"] for cause in event["top_features"]] == [f"{i:02}" for i in range(10)]
    assert event["more_features"] == 30
    assert event_json(alert()) == alert_json(alert())


def test_the_largest_event_there_can_be_is_bounded():
    names = tuple(Cause("ü" * (MAX_NAME - 2) + f"{i:02}", -1e-300, 1 / 3, 1 / 3) for i in range(50))
    assert len(json.dumps(event_json(alert(causes=names)))) < 12_000


@pytest.mark.parametrize("told", [2.5, math.nan])
def test_an_anomaly_comes_back_from_its_state(told):
    held = Held(alert(), 3.0, (HEAT,), told_score=told, looked_at=7.0, returns=2, rows_since_end=5)
    again = Held.of(json.loads(json.dumps(held.state(), allow_nan=False)))
    assert repr(again) == repr(held)


def test_causes_are_the_same_when_they_share_most_of_the_blame():
    assert mainly_same([FLOW, HEAT], [Cause("heat", 1.0, 0.0, 0.45), Cause("flow", 1.0, 0.0, 0.55)])
    assert not mainly_same([FLOW, HEAT], [Cause("heat", 1.0, 0.0, 1.0)])
    assert not mainly_same([FLOW], [HEAT])


def test_causes_of_a_fault_of_many_features_are_the_same_though_only_some_are_named():
    one = [Cause(f"x{i}", 1.0, 0.0, 0.05) for i in range(5)]
    other = [Cause(f"x{i}", 1.0, 0.0, 0.05) for i in range(2, 7)]
    assert mainly_same(one, other)


def test_unknown_causes_are_those_of_no_other_alert():
    assert not mainly_same([], [])
    assert not mainly_same([FLOW], [])
