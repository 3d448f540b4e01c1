"""Alerts of several partitions as one group, whoever puts them together."""

from __future__ import annotations

from typing import Any

from gon_edge.fleet.grouping import Grouping


def event(name: str, since: float, *, group: str = "", kind: str = "new") -> dict[str, Any]:
    return {"id": name, "type": kind, "since": since, "group": group or name}


def test_what_begins_within_a_minute_in_two_partitions_is_one_group_and_what_each_says_stays() -> None:
    grouping = Grouping()
    told = [
        grouping.take(each)
        for each in (
            event("a-1", 1000.0),
            event("b-1", 1030.0),
            event("c-1", 1075.0, group="b-1"),  # its own partition has put it there
            event("d-1", 1100.0),
            event("b-1", 1030.0, kind="end"),
        )
    ]
    assert [each["group"] for each in told] == ["a-1", "a-1", "a-1", "d-1", "a-1"]
    assert [each["id"] for each in told] == ["a-1", "b-1", "c-1", "d-1", "b-1"]


def test_who_reads_the_same_events_later_finds_the_same_groups() -> None:
    events = [event(f"{name}-{at}", 50.0 * at) for at in range(40) for name in "ab"]
    first, later = Grouping(), Grouping()
    told = [first.take(each) for each in events]
    for each in events[:37]:
        later.take(each)
    assert [later.take(each) for each in events[37:]] == told[37:]


def test_the_mark_of_a_takeover_has_no_group() -> None:
    mark = {"type": "takeover", "partition": 1}
    assert Grouping().take(mark) == mark
