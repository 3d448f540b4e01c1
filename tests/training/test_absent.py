"""A job of every day that does not come: on made rows of a server in a real store."""

from __future__ import annotations

from pathlib import Path

import pytest
from nightly import DAY, START, job_blocks, kept, server

from gon_edge.training.absent import absent, due
from gon_edge.training.habits import Habit, habits, learn

DAY_S = 86400.0


def at(day: int) -> float:
    return START + 60.0 * (day * DAY + 360)


@pytest.mark.parametrize(
    ("came", "missed"),
    [
        ([*range(8)], True),
        ([*range(9)], False),
        ([*range(5), 6, 7], False),
    ],
    ids=["not today", "as always", "nor on another day of the week"],
)
def test_a_job_of_every_day_is_missed_on_the_day_it_does_not_come(
    tmp_path: Path, came: list[int], missed: bool
) -> None:
    rows = server(9, came)
    with kept(tmp_path, rows, []) as store:
        learn(store, "s", job_blocks(range(3)))
        (habit,) = habits(store, "s")
        found = absent(store, "s", habit, at(8))
    assert (found is not None) == missed
    if found is not None:
        assert (found.since, found.first, found.days) == (at(8), at(1), 7)
        io, net = found.causes
        assert (io.feature, net.feature) == ("io", "net")
        assert io.expected == pytest.approx(50.0, abs=8.0)
        assert io.value == pytest.approx(8.0, abs=4.0)


def test_other_work_at_its_hour_does_not_hide_that_a_job_has_not_come(tmp_path: Path) -> None:
    rows = server(9, range(8))
    begin = 8 * DAY + 280
    rows[begin : begin + 120, 1:3] += [40.0, 25.0]  # moves the same as the job
    with kept(tmp_path, rows, []) as store:
        learn(store, "s", job_blocks(range(3)))
        found = absent(store, "s", habits(store, "s")[0], at(8))
    assert found is not None
    assert [cause.feature for cause in found.causes] == ["io", "net"]


def test_what_lasts_for_hours_is_a_state_and_not_looked_for() -> None:
    for hours, is_due in ((6.0, True), (6.1, False)):
        habit = Habit(((0.0, 3600.0 * hours),), {"io": 1})
        assert (due(habit, 0.5 * DAY_S, 1.9 * DAY_S) is not None) == is_due


def test_nothing_is_missed_before_a_week_of_it_is_stored(tmp_path: Path) -> None:
    with kept(tmp_path, server(7, range(6)), []) as store:
        learn(store, "s", job_blocks(range(3)))
        assert absent(store, "s", habits(store, "s")[0], at(6)) is None


def test_a_clock_change_of_an_hour_is_no_absence(tmp_path: Path) -> None:
    rows = server(9, range(8))
    moved = server(9, range(8, 9), seed=1)
    begin = 8 * DAY + 420
    rows[begin : begin + 30] = moved[begin - 60 : begin - 30]
    with kept(tmp_path, rows, []) as store:
        learn(store, "s", job_blocks(range(3)))
        assert absent(store, "s", habits(store, "s")[0], at(8)) is None


def test_a_habit_is_looked_for_once_a_day_when_it_is_surely_over(tmp_path: Path) -> None:
    with kept(tmp_path, server(3, range(3)), []) as store:
        learn(store, "s", job_blocks(range(3)))
        (habit,) = habits(store, "s")
    over = habit.spans[-1][0] + 4200.0 + 900.0
    assert due(habit, over - 9.0, over + 9.0) is None  # it came then: that is how it was learned
    assert due(habit, over, over + DAY_S - 1.0) is None
    assert due(habit, over + DAY_S - 1.0, over + DAY_S + 1.0) == pytest.approx(at(3), abs=1.0)
    assert due(habit, over + DAY_S + 1.0, over + DAY_S + 2.0) is None
    assert due(habit, over, over + 5.5 * DAY_S) == pytest.approx(at(7), abs=1.0)
