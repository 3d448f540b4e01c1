"""Alerts: when a verdict becomes news, and when it does not."""

import json
import math
from dataclasses import replace

import pytest

from gon_edge.config.schema import AlertsConfig
from gon_edge.events import Alert, Cause, Recurring, Trend, Verdict
from gon_edge.stream.alerts import AlertPolicy
from gon_edge.stream.held import TOP_FEATURES, alert_json

SETTINGS = AlertsConfig(raise_rows=3, raise_of=5, clear_rows=4, clear_ratio=0.9, cooldown_s=20, update_every_s=10)
FLOW = Cause("flow", 9.0, 2.0, 0.8)
VALVE = Cause("valve", 1.0, 0.0, 0.9)
GATE = Cause("gate", 1.0, 0.0, 0.9)


def verdict(
    timestamp: float, score: float, missing: tuple[str, ...] = (), causes: tuple[Cause, ...] = (FLOW,)
) -> Verdict:
    """One row against a threshold of 1."""
    return Verdict("pump", timestamp, score, 1.0, score > 1, causes if score > 1 else (), missing, "v1")


def feed(policy: AlertPolicy, scores, start: float = 0.0) -> list[tuple[float, str]]:
    """One row a second; the events as (timestamp, type)."""
    return [
        (event.timestamp, event.type)
        for i, score in enumerate(scores)
        for event in policy.update(verdict(start + i, score))
    ]


@pytest.fixture
def policy() -> AlertPolicy:
    return AlertPolicy("pump", SETTINGS)


@pytest.fixture
def raised(policy) -> AlertPolicy:
    """An open anomaly alert since 0, raised at 2."""
    assert feed(policy, [1.5, 1.5, 1.5]) == [(2.0, "new")]
    return policy


# -- raising -----------------------------------------------------------------------------------------------------------


def test_three_anomalous_rows_of_five_raise_an_alert_since_the_first_of_them(policy):
    assert feed(policy, [0.1, 1.5, 0.1, 1.5]) == []
    (event,) = policy.update(verdict(4, 1.6))
    assert (event.type, event.kind, event.since, event.timestamp) == ("new", "anomaly", 1.0, 4.0)
    assert (event.score, event.threshold, event.severity, event.top_features) == (1.6, 1.0, "warning", (FLOW,))
    assert (event.stream, event.model_version) == ("pump", "v1")


def test_three_anomalous_rows_of_six_do_not_raise(policy):
    assert feed(policy, [1.5, 0.1, 0.1, 1.5, 0.1, 1.5]) == []


def test_an_alert_is_raised_by_an_anomalous_row_only():
    policy = AlertPolicy("pump", AlertsConfig(raise_rows=1, raise_of=1))
    assert feed(policy, [0.5, 0.5]) == []
    assert feed(policy, [1.5], 2.0) == [(2.0, "new")]


def test_an_unsettled_policy_waits_for_normal_rows(policy):
    policy.settle(10)
    assert feed(policy, [1.5] * 5 + [0.1] * SETTINGS.clear_rows) == []
    assert not policy.is_unsettled
    assert feed(policy, [1.5, 1.5, 1.5], 9.0) == [(11.0, "new")]


def test_what_goes_on_is_told_when_an_unsettled_policy_has_waited_long_enough(policy):
    policy.settle(10)
    assert feed(policy, [1.5] * 12) == [(9.0, "new")]
    assert policy.active[0].since == 5.0


def test_the_id_says_stream_kind_and_beginning(policy):
    start = 1583748873.0  # 2020-03-09 10:14:33 UTC
    (event,) = [event for i in range(3) for event in policy.update(verdict(start + i, 2))]
    assert event.id == "pump-anomaly-20200309T101433Z"


def test_parts_of_a_second_are_told_apart(policy):
    ids = [event.id for i in range(3) for event in policy.update(verdict(0.25 + i, 2))]
    assert ids == ["pump-anomaly-19700101T000000.25Z"]


def test_an_absurd_time_still_makes_an_id(policy):
    ids = [event.id for i in range(3) for event in policy.update(verdict(1e15 + i, 2))]
    assert ids == ["pump-anomaly-1000000000000000Z"]


# -- updates -----------------------------------------------------------------------------------------------------------


def test_a_fault_that_stays_as_it_is_makes_no_update(raised):
    assert feed(raised, [1.5, 1.9, 1.2] * 1000, 3.0) == []


def test_other_causes_make_an_update_no_more_often_than_they_should(raised):
    news = [
        (event.timestamp, event.top_features)
        for t in range(3, 60)
        for event in raised.update(verdict(t, 1.5, causes=(VALVE if t < 30 else FLOW,)))
    ]
    assert news == [(12.0, (VALVE,)), (32.0, (FLOW,))]


def test_causes_in_another_order_are_no_news(raised):
    shares = [(0.4, 0.35), (0.35, 0.4)]
    pairs = [(Cause("flow", 9.0, 2.0, flow), Cause("valve", 1.0, 0.0, valve)) for flow, valve in shares]
    rows = (verdict(t, 1.5, causes=pairs[t % 2]) for t in range(3, 400))
    assert [event.timestamp for row in rows for event in raised.update(row)] == []


def test_a_score_twice_as_high_as_was_ever_told_makes_an_update():
    policy = AlertPolicy("pump", AlertsConfig(raise_rows=1, update_every_s=10, critical_ratio=100))
    assert feed(policy, [1.5, *[2.9] * 20, *[3.1] * 40, *[5.9] * 20, *[1.1] * 20, *[3.1] * 20, *[6.2] * 10]) == [
        (0.0, "new"),
        (30.0, "update"),
        (130.0, "update"),
    ]


def test_causes_of_an_open_alert_are_asked_for_as_seldom_as_updates_may_come(raised):
    asked = []
    for t in range(3, 104):
        raised.update(verdict(t, 1.5, causes=()), lambda t=t: asked.append(t) or (FLOW,))
    assert asked == list(range(12, 104, 10))


def test_an_alert_that_becomes_critical_says_so_at_once(raised):
    (event,) = raised.update(verdict(3, 2.0))
    assert (event.type, event.severity, event.timestamp) == ("update", "critical", 3.0)


def test_critical_stays_critical_until_the_end(raised):
    raised.update(verdict(3, 5.0))
    events = [event for i in range(4, 40) for event in raised.update(verdict(i, 1.5 if i < 20 else 0.1))]
    assert {event.severity for event in events} == {"critical"}
    assert events[-1].type == "end"


def test_an_alert_may_begin_critical(policy):
    events = [event for i in range(3) for event in policy.update(verdict(i, 2.5))]
    assert [event.severity for event in events] == ["critical"]


def test_an_event_on_a_normal_row_names_the_causes_of_the_strongest_row(raised):
    valve = Cause("valve", 1.0, 0.0, 0.9)
    raised.update(verdict(3, 1.9, causes=(valve,)))
    raised.update(verdict(4, 1.2, causes=(FLOW,)))
    news = [event for t in range(5, 9) for event in raised.update(verdict(t, 0.5))]
    assert [(event.type, event.score, event.top_features) for event in news] == [("end", 0.5, (valve,))]


def test_a_wide_stream_names_its_largest_causes_only(policy):
    causes = tuple(Cause(f"f{i}", 1.0, 0.0, 1 / 50) for i in range(50))
    events = [event for i in range(3) for event in policy.update(verdict(i, 1.5, causes=causes))]
    assert events[0].top_features == causes[:TOP_FEATURES]


# -- ending ------------------------------------------------------------------------------------------------------------


def test_enough_normal_rows_end_an_alert(raised):
    assert feed(raised, [0.5, 0.5, 0.5], 3.0) == []
    (event,) = raised.update(verdict(6, 0.4))
    assert (event.type, event.since, event.score, event.top_features) == ("end", 0.0, 0.4, (FLOW,))
    assert raised.active == ()


def test_normal_rows_that_are_not_in_a_row_do_not_end_it(raised):
    assert feed(raised, [0.5, 0.5, 0.5, 1.5] * 2, 3.0) == []


def test_a_score_just_below_the_threshold_does_not_end_it(raised):
    assert feed(raised, [0.95] * 1000, 3.0) == []
    assert raised.is_open


def test_a_score_that_is_not_a_number_does_not_end_it(raised):
    assert "end" not in [kind for _, kind in feed(raised, [math.nan] * 1000, 3.0)]


def test_a_fault_that_lasts_stays_an_alert(raised):
    assert "end" not in [kind for _, kind in feed(raised, [1.01] * 100_000, 3.0)]
    assert raised.active[0].id == "pump-anomaly-19700101T000000Z"


def test_a_gap_in_the_rows_does_not_end_it(raised):
    (before,) = raised.active
    assert feed(raised, [1.5], 90_000.0) == []
    assert raised.active == (before,)


def test_a_threshold_below_zero_still_ends_an_alert():
    policy = AlertPolicy("pump", SETTINGS)

    def row(timestamp: float, score: float) -> Verdict:
        return Verdict("pump", timestamp, score, -1.0, score > -1, (), (), "v1")

    types = [event.type for i in range(20) for event in policy.update(row(i, -0.5 if i < 10 else -2))]
    assert types == ["new", "end"]


# -- cool-down ---------------------------------------------------------------------------------------------------------


def test_a_fault_during_the_cool_down_is_raised_after_it(raised):
    assert feed(raised, [0.1] * 4, 3.0) == [(6.0, "end")]
    rows = (verdict(t, 1.5, causes=(VALVE,)) for t in range(7, 32))
    assert [(event.timestamp, event.type) for row in rows for event in raised.update(row)] == [(26.0, "new")]


def test_a_fault_that_is_over_before_the_cool_down_is_not_raised(raised):
    feed(raised, [0.1] * 4, 3.0)
    assert feed(raised, [1.5] * 10 + [0.1] * 100, 7.0) == []


def test_the_next_alert_begins_after_the_end_of_the_one_before():
    policy = AlertPolicy("pump", AlertsConfig(raise_rows=2, raise_of=10, clear_rows=1, cooldown_s=0))
    assert feed(policy, [1.5, 1.5, 0.1]) == [(1.0, "new"), (2.0, "end")]
    (event,) = [event for t in (3, 4) for event in policy.update(verdict(t, 1.5, causes=(VALVE,)))]
    assert (event.type, event.since) == ("new", 3.0)


# -- coming and going --------------------------------------------------------------------------------------------------


def test_a_fault_that_comes_and_goes_is_one_alert():
    policy = AlertPolicy("pump", AlertsConfig())
    flapping = ([1.5] * 20 + [0.1] * 100) * 75  # every two minutes for two hours and a half
    events = [event for t, score in enumerate(flapping) for event in policy.update(verdict(t, score))]
    assert {event.id for event in events} == {"pump-anomaly-19700101T000000Z"}
    assert [event.type for event in events].count("new") == 1
    assert len(events) <= 20  # it soon takes longer to end than it stays away


def test_a_fault_that_comes_and_goes_at_a_row_a_minute_is_one_alert():
    policy = AlertPolicy("pump", AlertsConfig())
    flapping = ([1.5] * 5 + [0.1] * 40) * 30
    events = [event for i, score in enumerate(flapping) for event in policy.update(verdict(60.0 * i, score))]
    assert len({event.id for event in events}) == 1


def test_a_fault_that_comes_back_long_after_is_an_alert_of_its_own(raised):
    ended = feed(raised, [0.1] * 4, 3.0)
    assert ended == [(6.0, "end")]
    assert feed(raised, [0.1] * 40 + [1.5] * 3, 7.0) == [(49.0, "new")]
    assert raised.active[0].since == 47.0


def test_a_fault_that_comes_back_keeps_its_beginning_and_its_severity(raised):
    raised.update(verdict(3, 2.0))
    assert feed(raised, [0.1] * 4, 4.0) == [(7.0, "end")]
    assert feed(raised, [0.1] * 30 + [1.5] * 2, 8.0) == []
    (event,) = raised.update(verdict(40, 1.5))
    assert (event.type, event.since, event.severity) == ("update", 0.0, "critical")
    assert raised.active == (event,)


def test_two_faults_that_come_and_go_in_turn_are_two_alerts():
    policy = AlertPolicy("pump", AlertsConfig(raise_rows=2, clear_rows=4, cooldown_s=0))
    rows = [(cause, score) for _ in range(9) for cause in (FLOW, VALVE) for score in [1.5] * 4 + [0.1] * 12]
    events = [e for t, (cause, score) in enumerate(rows) for e in policy.update(verdict(t, score, causes=(cause,)))]
    assert [event.type for event in events].count("new") == 2
    assert len({event.id for event in events}) == 2


def test_a_fault_that_comes_back_after_a_restart_is_the_same_alert(raised):
    feed(raised, [0.1] * 4, 3.0)
    again = restarted(raised)
    assert feed(again, [0.1] * 30 + [1.5] * 3, 7.0) == [(39.0, "update")]
    assert again.active[0].id == "pump-anomaly-19700101T000000Z"


# -- missing features --------------------------------------------------------------------------------------------------


def test_a_missing_feature_is_an_alert_of_its_own(policy):
    (event,) = policy.update(verdict(5, 0.1, missing=("flow",)))
    assert (event.type, event.kind, event.since, event.severity) == ("new", "missing", 5.0, "warning")
    assert event.top_features == (Cause("flow", None, None, 1.0),)
    assert math.isnan(event.score)
    assert math.isnan(event.threshold)
    assert policy.update(verdict(6, 0.1, missing=("flow",))) == []


def test_another_missing_feature_updates_the_alert(policy):
    policy.update(verdict(0, 0.1, missing=("flow",)))
    (event,) = policy.update(verdict(1, 0.1, missing=("flow", "amps")))
    assert (event.type, event.since) == ("update", 0.0)
    assert event.top_features == (Cause("amps", None, None, 0.5), Cause("flow", None, None, 0.5))


def test_it_ends_when_every_feature_has_been_back_for_long_enough(policy):
    policy.update(verdict(0, 0.1, missing=("flow",)))
    assert feed(policy, [0.1] * 3, 1.0) == []
    (event,) = policy.update(verdict(4, 0.1))
    assert (event.type, event.kind, event.top_features) == ("end", "missing", (Cause("flow", None, None, 1.0),))


def test_a_feature_that_comes_and_goes_makes_one_alert(policy):
    events = [e for i in range(100) for e in policy.update(verdict(i, 0.1, missing=("flow",) if i % 3 == 0 else ()))]
    assert [event.type for event in events] == ["new"]


def test_a_feature_may_be_given_longer():
    policy = AlertPolicy("pump", AlertsConfig(missing_after_s=10))
    events = [event for i in range(15) for event in policy.update(verdict(i, 0.1, missing=("flow",)))]
    assert [(event.type, event.timestamp, event.since) for event in events] == [("new", 10.0, 0.0)]


def test_a_feature_that_is_back_in_time_is_no_news():
    policy = AlertPolicy("pump", AlertsConfig(missing_after_s=10))
    rows = [verdict(i, 0.1, missing=("flow",) if i % 8 else ()) for i in range(100)]
    assert [event for row in rows for event in policy.update(row)] == []


def test_both_kinds_may_be_open_at_once(raised):
    (event,) = raised.update(verdict(3, 1.5, missing=("flow",)))
    assert event.kind == "missing"
    assert [alert.kind for alert in raised.active] == ["anomaly", "missing"]


def test_one_row_may_make_news_of_both_kinds(policy):
    feed(policy, [1.5, 1.5])
    assert [event.kind for event in policy.update(verdict(2, 1.5, missing=("flow",)))] == ["anomaly", "missing"]


# -- a silent stream ---------------------------------------------------------------------------------------------------


def test_a_silent_stream_is_missing_as_a_whole_since_its_last_row(policy):
    policy.update(verdict(7, 0.1))
    (event,) = policy.stream_silent(100.0, ("flow", "amps"))
    assert (event.type, event.kind, event.since, event.timestamp) == ("new", "missing", 7.0, 100.0)
    assert (event.severity, [cause.feature for cause in event.top_features]) == ("critical", ["amps", "flow"])
    assert policy.stream_silent(101.0, ("flow", "amps")) == []


def test_the_next_good_rows_end_the_silence(policy):
    policy.stream_silent(100.0, ("flow",))
    assert feed(policy, [0.1] * 5, 200.0) == [(203.0, "end")]


def test_silence_without_known_features_is_still_an_alert(policy):
    (event,) = policy.stream_silent(100.0)
    assert event.top_features == ()
    assert feed(policy, [0.1] * 5, 200.0) == [(203.0, "end")]


def test_silence_widens_the_alert_of_a_missing_feature(policy):
    policy.update(verdict(0, 0.1, missing=("flow",)))
    (event,) = policy.stream_silent(50.0, ("flow", "amps"))
    assert (event.type, event.severity, event.since) == ("update", "critical", 0.0)


def test_after_silence_the_feature_that_stays_away_keeps_the_alert(policy):
    policy.stream_silent(100.0, ("flow", "amps"))
    rows = [verdict(200 + i, 0.1, missing=("flow",)) for i in range(50)]
    (event,) = [event for row in rows for event in policy.update(row)]
    assert (event.type, event.top_features) == ("update", (Cause("flow", None, None, 1.0),))


# -- clock steps -------------------------------------------------------------------------------------------------------


def test_a_clock_set_back_does_not_silence_an_open_alert(policy):
    feed(policy, [1.5] * 3, 2e9)
    (event,) = policy.update(verdict(1e9, 1.5, causes=(VALVE,)))
    assert (event.type, event.timestamp) == ("update", 1e9)


def test_a_clock_set_back_does_not_lengthen_the_cool_down(policy):
    feed(policy, [1.5] * 3 + [0.1] * 4, 2e9)
    assert feed(policy, [1.5] * 3, 1e9) == [(1e9 + 2, "update")]


def test_the_same_second_seen_twice_makes_two_ids():
    policy = AlertPolicy("pump", AlertsConfig(raise_rows=1, raise_of=1, clear_rows=1, cooldown_s=0))
    rows = [verdict(t, 1.5 if t == 5 else 0.1, causes=(cause,)) for cause in (FLOW, VALVE, GATE) for t in (5, 6)]
    ids = [event.id for row in rows for event in policy.update(row)]
    assert ids[0::2] == ids[1::2]
    assert len(set(ids)) == 3


# -- memory ------------------------------------------------------------------------------------------------------------


def restarted(policy: AlertPolicy, settings: AlertsConfig = SETTINGS) -> AlertPolicy:
    return AlertPolicy("pump", settings, json.loads(json.dumps(policy.state(), allow_nan=False)))


def test_an_open_alert_survives_a_restart_with_its_id(raised):
    again = restarted(raised)
    assert [alert_json(alert) for alert in again.active] == [alert_json(alert) for alert in raised.active]
    (event,) = again.update(verdict(50, 1.5, causes=(VALVE,)))
    assert (event.type, event.id, event.since, event.top_features) == ("update", raised.active[0].id, 0.0, (VALVE,))


def test_the_state_of_a_version_that_knew_no_returns_keeps_an_open_alert(raised):
    state = raised.state()
    del state["ended"]
    for key in ("told_score", "looked_at", "returns", "rows_since_end"):
        del state["anomaly"][key]
    again = AlertPolicy("pump", SETTINGS, json.loads(json.dumps(state, allow_nan=False)))
    assert again.active == raised.active
    assert feed(again, [0.1] * 4, 3.0) == [(6.0, "end")]


def test_the_cool_down_survives_a_restart(raised):
    feed(raised, [0.1] * 4, 3.0)
    assert feed(restarted(raised), [1.5] * 25, 7.0) == [(26.0, "update")]


def test_a_shorter_memory_after_a_restart_keeps_the_newest_rows(policy):
    feed(policy, [1.5, 1.5, 0.1, 0.1])
    assert feed(restarted(policy, AlertsConfig(raise_rows=2, raise_of=2)), [1.5], 4.0) == []


@pytest.mark.parametrize(
    "state", [{}, {"version": 99, "stream": "pump"}, {"version": 1, "stream": "pump", "recent": 3}, [1], "x"]
)
def test_a_state_that_cannot_be_understood_is_ignored(state):
    policy = AlertPolicy("pump", SETTINGS, state)
    assert feed(policy, [1.5] * 3) == [(2.0, "new")]


def test_the_state_of_another_stream_is_ignored(raised):
    assert AlertPolicy("valve", SETTINGS, raised.state()).active == ()


# -- the message -------------------------------------------------------------------------------------------------------


def test_the_message_has_exactly_these_keys(policy):
    (event,) = policy.update(verdict(5, 0.1, missing=("flow",)))
    assert alert_json(event) == {
        "id": "pump-missing-19700101T000005Z",
        "type": "new",
        "kind": "missing",
        "stream": "pump",
        "since": 5.0,
        "timestamp": 5.0,
        "score": None,
        "threshold": None,
        "severity": "warning",
        "top_features": [{"feature": "flow", "value": None, "expected": None, "contribution": 1.0}],
        "model_version": "v1",
        "group": "pump-missing-19700101T000005Z",
        "recurring": None,
        "together": None,
    }
    json.dumps(alert_json(event), allow_nan=False)


# -- what comes again --------------------------------------------------------------------------------------------------

JOB = [0.1] * 5 + [3.0] * 20 + [0.1] * 10


def day(policy: AlertPolicy, number: int, scores=JOB, hour: float = 6.0) -> list[Alert]:
    """A row a minute from that hour of a day on; the events."""
    begin = number * 86400.0 + hour * 3600.0
    return [event for i, score in enumerate(scores) for event in policy.update(verdict(begin + 60.0 * i, score))]


def nightly() -> AlertPolicy:
    """Two days on which the same happened."""
    policy = AlertPolicy("pump", SETTINGS)
    for number in range(2):
        assert {(event.severity, event.recurring) for event in day(policy, number)} == {("critical", None)}
    return policy


def test_the_third_day_is_said_as_recurring_at_low_severity():
    policy = nightly()
    told = day(policy, 2)
    assert [event.type for event in told] == ["new", "end"]
    assert {(event.severity, event.recurring) for event in told} == {("warning", Recurring(3, 21900.0, "day"))}
    assert [block.since for block in policy.past.occasions(told[0].since)] == [21900.0, 108300.0, 194700.0]
    assert day(policy, 3)[0].recurring == Recurring(4, 21900.0, "day")


def test_another_hour_is_news():
    assert {event.severity for event in day(nightly(), 2, hour=9.0)} == {"critical"}


def test_what_grows_beyond_the_other_days_is_told_as_a_full_alert_at_once():
    told = day(nightly(), 2, JOB[:15] + [6.0] * 10 + [0.1] * 10)
    assert [(event.type, event.severity, event.recurring is None) for event in told] == [
        ("new", "warning", False),
        ("update", "critical", True),
        ("end", "critical", True),
    ]


def test_what_lasts_longer_than_on_the_other_days_is_told_as_a_full_alert():
    told = day(nightly(), 2, JOB[:25] + [3.0] * 100)
    assert [(event.type, event.severity) for event in told] == [("new", "warning"), ("update", "critical")]
    assert told[1].timestamp - told[0].since == 3420.0  # the first row past twice as long, and ten minutes


def test_a_stream_with_few_rows_a_day_has_an_alert_a_day_and_not_one_that_flaps():
    policy = AlertPolicy("pump", SETTINGS)
    begun = [event for number in range(3) for event in day(policy, number, [3.0] * 5 + [0.1] * 10)]
    assert [event.type for event in begun] == ["new", "end"] * 3


def test_what_a_person_calls_a_fault_stays_a_full_alert_whether_it_has_ended_or_not():
    policy = nightly()
    told = day(policy, 2, JOB[:20])  # still open
    policy.answered(told[0].since, 194700.0 + 600.0, fault=True)
    (update,) = day(policy, 2, [3.0], hour=6.4)
    assert (update.type, update.severity, update.recurring) == ("update", "critical", None)
    (end,) = day(policy, 2, [0.1] * 10, hour=6.5)
    assert (end.type, end.recurring) == ("end", None)
    assert {(event.severity, event.recurring) for event in day(policy, 3)} == {("critical", None)}


def test_a_restart_forgets_no_day():
    policy = nightly()
    again = AlertPolicy("pump", SETTINGS, json.loads(json.dumps(policy.state())))
    assert day(again, 2) == day(policy, 2)
    assert again.state() == policy.state()


# -- silences ----------------------------------------------------------------------------------------------------------


def scored(t: float, score: float = 5.0, causes: tuple[Cause, ...] = (), missing: tuple[str, ...] = ()) -> Verdict:
    return Verdict("pump", t, score, 1.0, score > 1.0, causes, missing, "v1")


MOSTLY_FLOW = (Cause("flow", 9.0, 2.0, 0.7), Cause("current", 1.0, 2.0, 0.3))
MOSTLY_CURRENT = (Cause("current", 9.0, 2.0, 0.8), Cause("flow", 1.0, 2.0, 0.2))


def test_a_silenced_stream_raises_nothing_and_is_heard_when_the_silence_is_over() -> None:
    policy = AlertPolicy("pump", AlertsConfig(raise_rows=2, raise_of=3))
    policy.silence(None)
    assert [policy.update(scored(float(t), causes=MOSTLY_FLOW, missing=("current",))) for t in range(50)] == [[]] * 50
    assert policy.stream_silent(50.0, ["flow"]) == []
    policy.silence(frozenset())
    assert policy.update(scored(51.0, causes=MOSTLY_FLOW)) == []
    (event,) = policy.update(scored(52.0, causes=MOSTLY_FLOW))
    assert (event.type, event.since) == ("new", 51.0)


def test_an_alert_that_is_open_when_a_silence_begins_waits_with_it() -> None:
    policy = AlertPolicy("pump", AlertsConfig(raise_rows=1, clear_rows=3))
    (event,) = policy.update(scored(0.0, causes=MOSTLY_FLOW))
    policy.silence(None)
    assert policy.active == (event,)
    assert policy.audible == ()
    assert [policy.update(scored(float(t), 0.1)) for t in range(1, 20)] == [[]] * 19
    policy.silence(frozenset())
    assert policy.audible == (event,)
    news = [alert for t in range(20, 23) for alert in policy.update(scored(float(t), 0.1))]
    assert [(alert.type, alert.id) for alert in news] == [("end", event.id)]


def test_a_silenced_feature_holds_back_alerts_that_are_mainly_about_it_and_no_others() -> None:
    policy = AlertPolicy("pump", AlertsConfig(raise_rows=1, clear_rows=3, cooldown_s=0.0))
    policy.silence(frozenset({"flow"}))
    assert [policy.update(scored(float(t)), lambda: MOSTLY_FLOW) for t in range(20)] == [[]] * 20
    news = [alert for t in range(20, 30) for alert in policy.update(scored(float(t)), lambda: MOSTLY_CURRENT)]
    assert news[0].type == "new"
    assert news[0].timestamp <= 20.0 + 3  # late by clear_rows at most


def test_causes_are_not_asked_for_with_every_row_of_a_silenced_fault() -> None:
    policy = AlertPolicy("pump", AlertsConfig(raise_rows=1, clear_rows=9))
    policy.silence(frozenset({"flow"}))
    asked = 0

    def explain() -> tuple[Cause, ...]:
        nonlocal asked
        asked += 1
        return MOSTLY_FLOW

    for t in range(1000):
        policy.update(scored(float(t)), explain)
    assert asked == 100


def test_an_open_alert_of_a_silenced_feature_is_not_updated_and_still_ends() -> None:
    policy = AlertPolicy("pump", AlertsConfig(raise_rows=1, clear_rows=3, update_every_s=0.0))
    (event,) = policy.update(scored(0.0), lambda: MOSTLY_FLOW)
    policy.silence(frozenset({"flow"}))
    assert policy.audible == ()
    assert [policy.update(scored(float(t)), lambda: MOSTLY_FLOW) for t in range(1, 20)] == [[]] * 19
    news = [alert for t in range(20, 23) for alert in policy.update(scored(float(t), 0.1))]
    assert [(alert.type, alert.id) for alert in news] == [("end", event.id)]


def test_a_silenced_feature_may_be_missing() -> None:
    policy = AlertPolicy("pump", AlertsConfig())
    policy.silence(frozenset({"flow"}))
    assert policy.update(scored(0.0, 0.1, missing=("flow",))) == []
    (event,) = policy.update(scored(1.0, 0.1, missing=("flow", "current")))
    assert [cause.feature for cause in event.top_features] == ["current"]
    policy.silence(frozenset())
    (event,) = policy.update(scored(2.0, 0.1, missing=("flow", "current")))
    assert [cause.feature for cause in event.top_features] == ["current", "flow"]


def test_other_settings_count_from_the_next_row_and_leave_open_what_is_open() -> None:
    policy = AlertPolicy("pump", AlertsConfig(raise_rows=3, raise_of=5, clear_rows=3))
    assert policy.update(scored(0.0, causes=MOSTLY_FLOW)) == []
    policy.configure(AlertsConfig(raise_rows=2, raise_of=2, clear_rows=1))
    (event,) = policy.update(scored(1.0, causes=MOSTLY_FLOW))
    policy.configure(AlertsConfig(raise_rows=5, raise_of=5, clear_rows=2))
    assert policy.active == (event,)
    assert policy.update(scored(2.0, 0.1)) == []
    assert [alert.type for alert in policy.update(scored(3.0, 0.1))] == ["end"]


# -- an anomaly that goes on as a change -------------------------------------------------------------------------------


def a_state(policy: AlertPolicy, day: int, hours: int = 14) -> list[Alert]:
    """A state of some hours from six o'clock on, told as a change for the last of them; a row an hour."""
    events = []
    for hour in range(6, 12 + hours):
        there = hour < 6 + hours
        row = verdict(86400.0 * day + 3600.0 * hour, 5.0 if there else 0.1)
        events += policy.update(replace(row, changed=there and hour >= 4 + hours))
    return events


def test_a_state_of_each_day_is_one_block_a_day_and_recurring_on_the_third(policy):
    told = [a_state(policy, day) for day in range(3)]
    for events in told:
        assert [(event.kind, event.type) for event in events if event.type != "update"] == [
            ("anomaly", "new"),
            ("anomaly", "end"),
            ("changed", "new"),
            ("changed", "end"),
        ]
        assert len({event.since for event in events}) == 1
    assert [events[0].recurring and events[0].recurring.count for events in told] == [None, None, 3]
    last = told[2][-1]
    assert [block.until for block in policy.past.occasions(last.since)] == [events[-1].timestamp for events in told]


# -- drift -------------------------------------------------------------------------------------------------------------

RISES = Cause("heat", 41.0, 38.0, 1.0, trend=Trend(0.5, 45.0, 8.0))
RISES_ON = Cause("heat", 42.0, 38.5, 1.0, trend=Trend(0.5, 45.0, 6.0))


def test_a_drift_is_one_alert_told_anew_each_day_until_it_ends(policy):
    found = [(500.0, (RISES,)), (600.0, (RISES_ON,)), (700.0, ()), (800.0, ())]
    events = [policy.follow_drift(drifts, 100.0, verdict(at, 0.2)) for at, drifts in found]
    assert [event and (event.type, event.kind, event.since, event.timestamp, event.severity) for event in events] == [
        ("new", "drift", 100.0, 500.0, "warning"),
        ("update", "drift", 100.0, 600.0, "warning"),
        ("end", "drift", 100.0, 700.0, "warning"),
        None,
    ]
    assert len({event.id for event in events if event}) == 1
    assert [event.top_features for event in events if event] == [(RISES,), (RISES_ON,), (RISES_ON,)]
    assert not policy.active


def test_an_open_drift_is_no_anomaly_and_another_alert_may_open_beside_it(policy):
    policy.follow_drift((RISES,), 0.0, verdict(0, 0.2))
    assert policy.is_drifting
    assert not policy.is_anomalous
    assert feed(policy, [1.5, 1.5, 1.5], start=1.0) == [(3.0, "new")]
    assert [event.kind for event in policy.active] == ["anomaly", "drift"]


def test_a_drift_of_a_silenced_feature_is_held_back_and_told_after_the_silence(policy):
    policy.silence(frozenset({"heat"}))
    assert policy.follow_drift((RISES,), 0.0, verdict(0, 0.2)) is None
    policy.silence(frozenset())
    assert policy.follow_drift((RISES_ON,), 0.0, verdict(1, 0.2)).type == "new"


def test_a_drift_of_a_silenced_stream_stays_as_it_is(policy):
    policy.follow_drift((RISES,), 0.0, verdict(0, 0.2))
    policy.silence(None)
    assert policy.follow_drift((), 0.0, verdict(1, 0.2)) is None
    assert policy.is_drifting


def test_a_drift_stays_open_over_a_restart(policy):
    event = policy.follow_drift((RISES,), 0.0, verdict(0, 0.2))
    after = AlertPolicy("pump", SETTINGS, json.loads(json.dumps(policy.state())))
    assert after.active == (event,)
    assert after.follow_drift((), 0.0, verdict(1, 0.2)).id == event.id


DAILY = Recurring(7, 0.0, "day")
IO = Cause("io", 8.0, 49.0, 1.0)


def test_what_comes_every_day_is_overdue_until_it_is_looked_for_again_and_has_come(policy):
    opened = policy.habit_looked_for(600_000.0, 605_400.0, DAILY, (IO,))
    assert (opened.type, opened.kind, opened.since, opened.recurring) == ("new", "overdue", 600_000.0, DAILY)
    assert policy.habit_looked_for(600_000.0 + 20_000.0, 630_000.0, None, ()) is None  # another habit, that came
    after = AlertPolicy("pump", SETTINGS, json.loads(json.dumps(policy.state())))
    assert after.active == (opened,)
    ended = after.habit_looked_for(600_000.0 + 86_400.0, 691_800.0, None, ())
    assert (ended.type, ended.id, ended.timestamp) == ("end", opened.id, 691_800.0)
    assert not after.active


def test_what_is_overdue_makes_no_row_abnormal(policy):
    policy.habit_looked_for(600_000.0, 605_400.0, DAILY, (IO,))
    assert not policy.is_anomalous
    assert not policy.is_drifting


def test_nobody_is_told_what_is_overdue_on_a_silenced_stream(policy):
    policy.silence(frozenset({"io"}))
    assert policy.habit_looked_for(600_000.0, 605_400.0, DAILY, (IO,)) is None
