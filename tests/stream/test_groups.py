"""Which alerts of several streams are one group."""

from __future__ import annotations

from gon_edge.stream.groups import LEADERS, TOGETHER_S, Groups


def joined(groups: Groups, *alerts: tuple[str, float], interval_s: float = 1.0) -> list[str]:
    return [groups.join(alert, since, interval_s=interval_s) for alert, since in alerts]


def test_alerts_that_begin_within_a_minute_name_the_first_of_them():
    assert joined(Groups(), *((f"s{i}", 1000.0 + i) for i in range(30))) == ["s0"] * 30


def test_who_comes_later_leads_anew_and_a_chain_is_no_group():
    alerts = [(f"s{i}", 40.0 * i) for i in range(5)]
    assert joined(Groups(), *alerts) == ["s0", "s0", "s2", "s2", "s4"]


def test_an_alert_told_late_that_began_before_the_leader_belongs_to_it():
    assert joined(Groups(), ("quick", 1000.0), ("slow", 1000.0 - TOGETHER_S)) == ["quick", "quick"]


def test_a_stream_with_long_rows_joins_within_three_of_them():
    groups = Groups()
    joined(groups, ("pump", 1000.0))
    assert groups.join("meter", 1000.0 + 3 * 600.0, interval_s=600.0) == "pump"
    assert groups.join("other", 1001.0 + 3 * 600.0, interval_s=600.0) == "other"


def test_of_two_groups_the_nearer_one_is_joined():
    groups = Groups()
    joined(groups, ("a", 0.0), ("b", 100.0))
    assert groups.join("slow", 70.0, interval_s=60.0) == "b"


def test_leaders_outlive_a_restart_in_the_events_of_the_store():
    before = Groups()
    events = [
        {"id": alert, "since": since, "group": before.join(alert, since, interval_s=1.0)}
        for alert, since in (("a", 0.0), ("b", 10.0), ("c", 500.0))
    ]
    old = {"id": "z", "since": 5000.0}  # of a version that knew no groups
    after = Groups()
    after.resume([*events, old])
    assert joined(after, ("d", 520.0), ("e", 20.0), ("f", 5001.0)) == ["c", "a", "f"]


def test_what_is_remembered_is_bounded():
    groups = Groups()
    joined(groups, *((f"s{i}", 1000.0 * i) for i in range(LEADERS + 1)))
    assert groups.join("again", 0.0, interval_s=1.0) == "again"
