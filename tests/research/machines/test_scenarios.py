"""Every scenario: the same seed, the same rows; faults where they are said to be, and seen in the readings."""

from __future__ import annotations

import numpy as np
import pytest

from gon_edge.research.machines.buildings import house
from gon_edge.research.machines.scenarios import GRADES, SCENARIOS, record
from gon_edge.research.machines.when import DAY_S, When


@pytest.mark.parametrize("name", SCENARIOS)
def test_rows_are_finite_regular_and_as_many_as_promised(name: str) -> None:
    scenario = SCENARIOS[name]
    made = record(name, 0, days=3)
    assert made.values.shape == (len(made.timestamps), len(made.features))
    assert len(made.timestamps) == min(3, scenario.days) * DAY_S / scenario.interval_s
    assert np.isfinite(made.values).all()
    assert (np.diff(made.timestamps) == scenario.interval_s).all()
    assert (np.ptp(made.values, axis=0) > 0.0).all()


@pytest.mark.parametrize("name", SCENARIOS)
def test_every_planned_fault_happens_and_none_in_the_first_two_days(name: str) -> None:
    scenario = SCENARIOS[name]
    made = record(name, 1)
    assert len(made.faults) == len(scenario.faults)
    assert len(made.changes) == len(scenario.changes)
    begin = made.timestamps[0]
    if scenario.days > 2:
        assert min(event.start for event in made.faults) >= begin + 2 * DAY_S
    assert {event.strength for event in made.faults} <= set(GRADES)


def test_the_same_seed_gives_the_same_rows_and_another_seed_others() -> None:
    first, again, other = record("house", 3, days=1), record("house", 3, days=1), record("house", 4, days=1)
    assert np.array_equal(first.values, again.values)
    assert not np.array_equal(first.values, other.values)


def test_no_two_days_are_alike() -> None:
    for name in ("house", "office from Monday", "server", "bakery", "greenhouse"):
        days = record(name, 0, days=5).values.reshape(5, 1440, -1)
        gaps = [np.abs(days[i] - days[j]).mean(axis=0).max() for i in range(5) for j in range(i)]
        assert np.min(gaps) > 0.0


def test_each_grade_of_a_kind_comes_with_some_seed() -> None:
    kinds = {
        event.strength for seed in range(3) for event in record("cold store", seed).faults if event.kind == "gas lost"
    }
    assert kinds == set(GRADES)


def test_a_fault_changes_the_readings_while_it_lasts_and_not_before() -> None:
    made = record("house", 0)
    scenario = SCENARIOS["house"]
    fault = made.faults[0]
    assert fault.kind == "day mode at night"
    rng = np.random.default_rng(0)
    rng.uniform(size=len(scenario.faults) - 1)  # the moments of the three that are not sharp
    calm = house(When(scenario.monday, scenario.days, scenario.interval_s), rng)["indoor"].astype(np.float32)
    indoor = made.values[:, made.features.index("indoor")]
    before = made.timestamps < fault.start
    assert np.array_equal(indoor[before], calm[before])
    night = made.during((fault,))
    assert indoor[night][-1] > calm[night][-1] + 0.5


def test_a_heat_pump_that_is_dead_takes_no_power_and_the_house_cools() -> None:
    made = record("house", 0)
    dead = made.during(tuple(event for event in made.faults if event.kind == "heat pump dead"))
    power, indoor = (made.values[dead, made.features.index(name)] for name in ("power", "indoor"))
    assert power.max() < 150.0
    assert indoor[-1] < indoor[0] - 1.0


def test_rows_are_told_one_by_one_as_a_device_sends_them() -> None:
    made = record("solar", 0, days=1)
    timestamp, values = next(made.rows())
    assert timestamp == made.timestamps[0]
    assert values == dict(zip(made.features, made.values[0].tolist(), strict=True))


def test_a_job_that_starts_later_is_a_change_and_no_fault() -> None:
    made = record("server, a job at six", 0)
    io = made.values[:, made.features.index("io")].reshape(14, 1440)
    at_six = io[:, 365:375].mean(axis=1)
    assert at_six[:2].max() < 12.0
    assert at_six[2:13].min() > 15.0
    assert at_six[13] < 12.0
    assert [event.kind for event in made.changes] == ["job at six"]
    assert "job missing" in {event.kind for event in made.faults}
