"""Alerts, for any run of verdicts: one alert of a kind at a time, in order, and never absorbed."""

import json

from hypothesis import given
from hypothesis import strategies as st

from gon_edge.config.schema import AlertsConfig
from gon_edge.events import Cause, Verdict
from gon_edge.stream.alerts import AlertPolicy
from gon_edge.stream.held import alert_json

FEATURES = ("flow", "amps", "heat")


@st.composite
def alert_settings(draw) -> AlertsConfig:
    raise_of = draw(st.integers(1, 6))
    return AlertsConfig(
        raise_rows=draw(st.integers(1, raise_of)),
        raise_of=raise_of,
        clear_rows=draw(st.integers(1, 5)),
        clear_ratio=draw(st.sampled_from([0.5, 0.9, 1.0])),
        cooldown_s=draw(st.sampled_from([0.0, 3.0, 10.0])),
        update_every_s=draw(st.sampled_from([0.0, 2.0, 60.0])),
        missing_after_s=draw(st.sampled_from([None, 0.0, 4.0])),
    )


@st.composite
def happenings(draw, clock_steps: bool = False) -> list[tuple]:
    """Rows and silences of one stream, against a threshold of 1: ("row", Verdict) or ("silent", timestamp)."""
    timestamp = draw(st.sampled_from([0.0, 1.7e9, 1583748873.25]))
    steps = st.sampled_from([0.5, 1.0, 1.0, 1.0, 30.0, *([-7.0, -1e9] if clock_steps else [])])
    scores = st.sampled_from([0.1, 0.5, 0.95, 1.0, 1.01, 1.5, 2.0, 9.0, float("nan")])
    happened = []
    for score in draw(st.lists(scores, max_size=60)):
        timestamp += draw(steps)
        if draw(st.integers(0, 15)) == 0:
            happened.append(("silent", timestamp))
            continue
        missing = tuple(name for name in FEATURES if draw(st.integers(0, 9)) == 0)
        causes = (Cause("flow", score, 0.0, 1.0),) if score > 1 else ()
        happened.append(("row", Verdict("pump", timestamp, score, 1.0, score > 1, causes, missing, "v1")))
    return happened


def events_of(policy: AlertPolicy, happened) -> list[dict]:
    return [
        alert_json(event)
        for kind, what in happened
        for event in (policy.update(what) if kind == "row" else policy.stream_silent(what, FEATURES))
    ]


@given(alert_settings(), happenings(clock_steps=True))
def test_each_kind_has_one_alert_at_a_time_and_its_events_are_in_order(settings, happened):
    open_ids, ended = {}, set()
    for event in events_of(AlertPolicy("pump", settings), happened):
        kind = event["kind"]
        if event["type"] == "new":
            assert kind not in open_ids
            assert event["id"] not in ended
            open_ids[kind] = event["id"]
        elif event["type"] == "update" and event["id"] in ended:  # it is back
            assert kind == "anomaly"
            assert kind not in open_ids
            ended.remove(event["id"])
            open_ids[kind] = event["id"]
        else:
            assert open_ids[kind] == event["id"]
        if event["type"] == "end":
            ended.add(open_ids.pop(kind))


@given(alert_settings(), happenings())
def test_one_happening_makes_one_event_of_a_kind_at_most_and_active_agrees(settings, happened):
    policy = AlertPolicy("pump", settings)
    open_alerts = {}
    for kind, what in happened:
        events = policy.update(what) if kind == "row" else policy.stream_silent(what, FEATURES)
        assert len({event.kind for event in events}) == len(events)
        for event in events:
            open_alerts[event.kind] = event
            if event.type == "end":
                del open_alerts[event.kind]
        assert {alert.kind: alert for alert in policy.active} == open_alerts


@given(alert_settings(), happenings(), st.floats(1.001, 100))
def test_a_constant_anomalous_score_is_raised_and_never_ends(settings, happened, score):
    policy = AlertPolicy("pump", settings)
    events_of(policy, happened)
    last = max([0.0, *(what if kind == "silent" else what.timestamp for kind, what in happened)])
    rows = [Verdict("pump", last + i, score, 1.0, True, (), (), "v1") for i in range(1, 60)]
    events = [event for row in rows for event in policy.update(row) if event.kind == "anomaly"]
    assert [event for event in events if event.type == "end"] == []
    assert "anomaly" in {alert.kind for alert in policy.active}


@given(alert_settings(), happenings())
def test_a_stream_that_is_well_again_has_no_alert_left(settings, happened):
    policy = AlertPolicy("pump", settings)
    events_of(policy, happened)
    last = max([0.0, *(what if kind == "silent" else what.timestamp for kind, what in happened)])
    for i in range(1, 10 * settings.clear_rows + 1):  # ten times as many, where it had come and gone
        policy.update(Verdict("pump", last + i, 0.1, 1.0, False, (), (), "v1"))
    assert policy.active == ()


@given(alert_settings(), happenings(clock_steps=True), st.data())
def test_a_restart_at_any_point_changes_no_event(settings, happened, data):
    cut = data.draw(st.integers(0, len(happened)))
    straight = AlertPolicy("pump", settings)
    before = events_of(straight, happened[:cut])
    again = AlertPolicy("pump", settings, json.loads(json.dumps(straight.state(), allow_nan=False)))
    assert events_of(again, happened[cut:]) == events_of(straight, happened[cut:])
    assert len(before) <= 2 * cut


@given(alert_settings(), happenings())
def test_severity_never_falls_within_an_alert(settings, happened):
    critical = set()
    for event in events_of(AlertPolicy("pump", settings), happened):
        assert event["id"] not in critical or event["severity"] == "critical"
        if event["severity"] == "critical":
            critical.add(event["id"])


@given(alert_settings(), happenings())
def test_an_anomaly_alert_begins_with_an_anomalous_row_and_ends_with_enough_normal_ones(settings, happened):
    rows = [what for kind, what in happened if kind == "row"]
    at = {row.timestamp: i for i, row in enumerate(rows)}
    for event in events_of(AlertPolicy("pump", settings), happened):
        if event["kind"] != "anomaly":
            continue
        here = at[event["timestamp"]]
        assert rows[at[event["since"]]].is_anomaly
        if event["type"] == "new":
            recent = rows[max(0, here - settings.raise_of + 1) : here + 1]
            assert sum(row.is_anomaly for row in recent) >= settings.raise_rows
        if event["type"] == "end":
            assert all(row.score < settings.clear_ratio for row in rows[here - settings.clear_rows + 1 : here + 1])
