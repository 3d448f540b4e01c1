"""A job of every day that does not come: on made rows of a server in a real store."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from nightly import DAY, START, job_blocks, kept, server

from gon_edge.events import Row
from gon_edge.research.machines import record
from gon_edge.state.store import Store
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


@pytest.mark.parametrize("on_days", [[8], [1, 8]], ids=["never before", "a week ago as well"])
def test_other_work_before_its_hour_does_not_hide_that_a_job_has_not_come(tmp_path: Path, on_days: list[int]) -> None:
    rows = server(9, range(8))
    for day in on_days:
        begin = day * DAY + 240
        rows[begin : begin + 120, 1:3] += [40.0, 25.0]  # moves the same as the job, and ends where that begins
    with kept(tmp_path, rows, []) as store:
        learn(store, "s", job_blocks(range(3)))
        found = absent(store, "s", habits(store, "s")[0], at(8))
        came = absent(store, "s", habits(store, "s")[0], at(7))
    assert found is not None
    assert [cause.feature for cause in found.causes] == ["io", "net"]
    assert came is None


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


def test_the_made_server_misses_its_jobs_on_their_days_and_nothing_at_other_hours(tmp_path: Path) -> None:
    made = record("server, a job at six", 2)
    fresh = np.zeros(len(made.features), np.bool_)
    missing = {fault.kind: fault.start for fault in made.faults}
    rng = np.random.default_rng(0)
    with Store.open(tmp_path) as store:
        for timestamp, values in zip(made.timestamps.tolist(), made.values, strict=True):
            store.add_row(Row("s", timestamp, made.features, values, fresh), False, 0.0)
        store.flush(0.0)

        def missed(hour: float, minutes: float, causes: dict[str, int]) -> list[int]:
            at = made.timestamps[0] + 3600.0 * hour
            spans = [(at + day * DAY_S, at + day * DAY_S + 60.0 * minutes) for day in range(14)]
            return [day for day in range(8, 14) if absent(store, "s", Habit((spans[day],), causes), spans[day][0])]

        work = {"io": 1, "io_wait": 1, "cpu": 1}
        for kind, hour in (("backup missing", 2.03), ("job missing", 6.05)):
            day = int((missing[kind] - made.timestamps[0]) // DAY_S)
            assert missed(hour, 60.0, work) == [day]
        for _ in range(8):
            causes = {name: int(rng.choice([-1, 1])) for name in rng.choice(made.features, 2, replace=False)}
            assert missed(rng.uniform(9.0, 22.0), rng.uniform(15.0, 360.0), causes) == []
