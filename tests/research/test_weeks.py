"""Weeks of made machines through the daemon, and what of its alerts counts as what."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from configurations import SMALLEST

from gon_edge.config.file import parse_config
from gon_edge.research import weeks
from gon_edge.research.machines import Event, Recording, record
from gon_edge.research.machines.when import DAY_S

BEGIN = 1_767_600_000.0


def recording(faults: tuple[Event, ...] = (), changes: tuple[Event, ...] = ()) -> Recording:
    timestamps = BEGIN + 3600.0 * np.arange(24.0 * 14)
    return Recording("made", ("x",), 3600.0, timestamps, np.zeros((len(timestamps), 1), np.float32), faults, changes)


def at(day: float, hours: float = 1.0) -> tuple[float, float, float]:
    start = BEGIN + day * DAY_S
    return start, start, start + 3600.0 * hours


def event(day: float, hours: float) -> Event:
    return Event(BEGIN + day * DAY_S, BEGIN + day * DAY_S + 3600.0 * hours, "broken")


def test_an_alert_apart_from_every_fault_is_false_and_one_with_a_fault_is_not() -> None:
    made = recording(faults=(event(5, 2),))
    assert weeks.count_false([at(5.02)], made) == 0
    assert weeks.count_false([at(5.15)], made) == 0  # the house is still cold
    assert weeks.count_false([at(5.5), at(4.8)], made) == 2
    assert weeks.count_false([at(4.8, hours=8.0)], made) == 0  # open when the fault began


def test_a_change_excuses_two_alerts_when_it_begins_and_when_it_ends_and_none_between() -> None:
    made = recording(changes=(event(4, 24 * 6),))
    assert weeks.count_false([at(4.1), at(5.1)], made) == 0
    assert weeks.count_false([at(4.1), at(4.6), at(5.1)], made) == 1
    assert weeks.count_false([at(7.0)], made) == 1
    assert weeks.count_false([at(10.1)], made) == 0


def course(*delays: float | None, name: str = "made", false: int = 0) -> weeks.Course:
    faults = tuple(weeks.Found(replace(event(i + 3, 1), strength=(1.0, 0.5)[i % 2]), d) for i, d in enumerate(delays))
    return weeks.Course(name, 0, 2.0, false, 1, faults, 0.01, 3, 1)


def test_a_course_without_an_alert_for_a_plain_fault_is_silent() -> None:
    assert course(None, 60.0).silent
    assert not course(60.0, None).silent
    assert not course().silent


def test_tables_add_up_over_seeds_and_tell_weak_faults_from_plain_ones() -> None:
    rows = weeks.by_scenario([course(600.0, None, false=1), course(1200.0, 60.0, false=2), course(None, name="other")])
    cells = dict(zip(weeks.COLUMNS, rows[0], strict=True))
    assert cells["false alerts a week"] == "0.75"
    assert (cells["found, plain and strong"], cells["found, weak"]) == ("2 of 2", "1 of 2")
    assert (cells["delay, min"], cells["silent seeds"]) == ("10", "0 of 2")
    assert [row[0] for row in rows] == ["made", "other", "all"]
    assert weeks.by_kind([course(600.0, None)]) == [["made: broken", "0 of 1", "1 of 1", "-"]]
    assert weeks.markdown(["a", "b"], [["1", "2"]]) == "| a | b |\n| --- | --- |\n| 1 | 2 |"


def test_what_a_file_holds_are_the_courses_again() -> None:
    lived = [course(600.0, None, false=2), course(name="other"), course(30.0, name="third")]
    lines = [line for one in lived for line in weeks.record_of(one)]
    assert {key for line in lines for key in line} == {*weeks.FIELDS}
    texts = [{key: "" if line.get(key) is None else str(line[key]) for key in weeks.FIELDS} for line in lines]
    assert weeks.courses_of(texts) == lived


@pytest.mark.slow
def test_a_made_machine_lives_through_the_daemon_and_its_strong_fault_is_told() -> None:
    made = record("server, two days", 0)
    begins = made.faults[0].start
    shifted = replace(made, faults=(replace(made.faults[0]),))
    lived = weeks.play(shifted, 0, parse_config({**SMALLEST, "streams": {"defaults": {"interval": "1m"}}}))
    assert lived.promoted >= 1
    assert lived.weeks == 0.0
    assert [one.fault.start for one in lived.faults] == [begins]
