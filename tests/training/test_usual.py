"""Which alerts nobody has called a fault, and what is learned of them."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from gon_edge.events import Alert, AlertKind
from gon_edge.model.file import Model
from gon_edge.stream.habits import Block, Memory
from gon_edge.training.fit import fit_model
from gon_edge.training.habits import Habit
from gon_edge.training.usual import is_new, jobs, known_s, lasting_state, met_at, spans

DAY, WEEK = 86400.0, 7 * 86400.0
BUDGET = 1.0 / 7.0


@pytest.fixture(scope="module")
def model() -> Model:
    fitted = fit_model(np.random.default_rng(0).normal(size=(100, 2)), rng=np.random.default_rng(0))
    return fitted.with_lineage(met=1000.0, since=2000.0, until=2000.0 + 5 * DAY)


def alert(since: float, hours: float = 1.0, kind: AlertKind = "anomaly") -> Alert:
    end = since + 3600.0 * hours
    return Alert("a", "end", kind, "s", since, end, 5.0, 4.0, "warning", (), "1", "a")


def memory(*strengths: float) -> Memory:
    """A block at noon of each day, the last of them today."""
    blocks = Memory()
    for day, strength in enumerate(strengths):
        blocks.add(Block((day + 0.5) * DAY, (day + 0.5) * DAY + 600.0, strength, {"io": 1}))
    return blocks


@pytest.mark.parametrize(
    ("met_on", "learned_on"),
    [(0, "Thu Fri Sat Sun"), (2, "Sat Sun Mon Tue"), (4, "Mon Tue Sat Sun"), (1, "Fri Sat Sun Mon")],
)
def test_the_first_two_working_days_and_the_first_weekend_are_learned(
    model: Model, met_on: int, learned_on: str
) -> None:
    lived = model.with_lineage(met=met_on * DAY)  # the first of January 1970 was a Thursday
    names = ("Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed")
    days = range(met_on, met_on + 8)
    learned = [names[day % 7] for day in days if spans(alert((day + 0.5) * DAY), lived, BUDGET, memory())]
    assert learned == learned_on.split()


def test_a_fault_that_a_person_makes_in_the_first_hour_is_not_learned(model: Model) -> None:
    assert spans(alert(1000.0 + 3500.0, hours=0.1), model, BUDGET, memory()) == ()
    assert spans(alert(1000.0 + 3700.0, hours=0.1), model, BUDGET, memory()) == ((4700.0, 5060.0),)


def noons(model: Model, *days: int, **last: float) -> tuple[tuple[float, float], ...]:
    """What is learned when the last of some alerts at noon, six hours each, has ended, in days."""
    past = Memory()
    for day in days:
        past.add(Block((day + 0.5) * DAY, (day + 0.75) * DAY, 9.0, {"io": 1}))
    if last:
        past.add(Block((days[-1] + 0.5) * DAY, (days[-1] + 0.75) * DAY, 9.0, {"fan": 1}))
    learned = spans(alert((days[-1] + 0.5) * DAY, hours=6.0), model.with_lineage(met=-2.0 * DAY), BUDGET, past)
    return tuple(sorted((since / DAY, until / DAY) for since, until in learned))


def test_in_the_first_week_what_comes_on_a_second_day_is_learned_with_the_first(model: Model) -> None:
    assert noons(model, 0) == ()
    assert noons(model, 0, 1) == ((0.5, 0.75), (1.5, 1.75))
    assert noons(model, 0, 4) == ((0.5, 0.75), (4.5, 4.75))
    assert noons(model, 0, 1, fan=1) == ()  # is another thing
    assert noons(model, 12, 13) == ()  # is habits' from the second week on


@pytest.mark.parametrize(("strength", "is_learned"), [(8.0, True), (8.1, False)])
def test_in_the_first_week_what_was_no_critical_alert_is_learned(
    model: Model, strength: float, is_learned: bool
) -> None:
    ended, past = alert(5.5 * DAY), Memory()  # the third working day after a Wednesday, against a threshold of 4
    past.add(Block(ended.since, ended.timestamp, strength, {"io": 1}))
    lived = model.with_lineage(met=-0.5 * DAY)
    assert (spans(ended, lived, BUDGET, past) != ()) == is_learned


def test_what_has_lasted_for_more_than_three_quarters_of_a_day_is_not_learned(model: Model) -> None:
    assert spans(alert(5000.0, hours=17.9), model, BUDGET, memory()) != ()
    assert spans(alert(5000.0, hours=18.1), model, BUDGET, memory()) == ()


@pytest.mark.parametrize(("known", "long"), [(600.0, 3600.0), (2 * 3600.0, 2 * 3600.0), (5 * DAY, DAY)])
def test_another_state_of_the_first_week_is_learned_when_it_has_lasted_as_long_as_what_is_known(
    model: Model, known: float, long: float
) -> None:
    lived = model.with_lineage(since=2000.0, until=2000.0 + known)
    early, late = alert(5000.0, kind="changed"), alert(1000.0 + WEEK, kind="changed")
    assert lasting_state([alert(4000.0), early], lived, 5000.0 + long) == (5000.0, 5000.0 + long)
    assert lasting_state([early], lived, 5000.0 + long - 1.0) is None
    assert lasting_state([late, alert(4000.0)], lived, 1000.0 + 3 * WEEK) is None


def test_later_the_mildest_of_a_week_are_learned_as_far_as_there_are_more_than_the_budget_allows(model: Model) -> None:
    now = alert(20.0 * DAY)
    seen = memory(*[1.0] * 13, 4.0, 5.0, 8.0, 20.0, 6.0, 7.0)  # the last six of them in the week before
    learned = spans(now, model, BUDGET, seen)
    assert {since / DAY - 0.5 for since, _ in learned} == {13.0, 14.0, 17.0}  # three are left: one, and two for faults
    assert spans(now, model, 5.0 / 7.0, seen) == ()


def test_later_what_hardly_passed_the_threshold_is_learned(model: Model) -> None:
    ended = alert(20.5 * DAY)
    for strength, is_learned in ((5.0, True), (5.1, False)):
        past = Memory()
        past.add(Block(20.5 * DAY, 20.5 * DAY + 600.0, strength, {"io": 1}))
        assert spans(ended, model, BUDGET, past) == (((20.5 * DAY, 20.5 * DAY + 600.0),) if is_learned else ())


def test_a_machine_is_known_from_the_first_row_of_its_first_model_on(model: Model) -> None:
    assert is_new(model, 1000.0 + WEEK - 1.0)
    assert not is_new(model, 1000.0 + WEEK)
    assert not is_new(replace(model, lineage={}), 5.0)  # nobody knows
    assert met_at(None, 7.0) == 7.0
    assert met_at(model, 7.0) == 1000.0
    assert met_at(replace(model, lineage={"since": 2000.0}), 7.0) == 2000.0
    assert known_s(model) == 5 * DAY
    assert known_s(replace(model, lineage={})) == math.inf


def test_what_came_in_the_first_week_may_be_a_job_of_each_day(model: Model) -> None:
    seen = Memory()
    for since, causes in (
        (1.25 * DAY, {"io": 1, "cpu": 1}),
        (2.25 * DAY, {"io": 1, "cpu": -1}),  # what the alerts of one hour do not agree on is no cause
        (3.5 * DAY, {"net": 1}),
        (9.0 * DAY, {"fan": 1}),  # not in the first week
    ):
        seen.add(Block(since, since + 1200.0, 5.0, causes))
    seen.add(Block(4.0 * DAY, 4.7 * DAY, 5.0, {"power": 1}))  # longer than anything that has an hour
    found = jobs(model, seen, ())
    assert [(job.spans[0][0] / DAY, job.causes) for job in found] == [(3.5, {"net": 1}), (2.25, {"io": 1})]
    habit = Habit(((5.5 * DAY, 5.6 * DAY),), {"net": 1})
    assert [job.causes for job in jobs(model, seen, [habit])] == [{"io": 1}]  # its hour is known
    seen.answered(3.5 * DAY, 3.5 * DAY + 60.0, fault=True)
    assert [job.causes for job in jobs(model, seen, ())] == [{"io": 1}]
