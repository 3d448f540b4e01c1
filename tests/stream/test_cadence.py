"""How often something reports: what is learned from the gaps, and from which on there is no cadence."""

from __future__ import annotations

import json
import math
import random

import pytest

from gon_edge.stream.cadence import HOLD_CADENCES, KNOWN_STEPS, Cadence


def learned(*gaps: float) -> Cadence:
    cadence = Cadence()
    for gap_s in gaps:
        cadence.add(gap_s)
    return cadence


def oracle(gaps: list[float]) -> tuple[float, float]:
    """Center and spread as the text says it: averages of the logarithm and of its deviation, step by step."""
    center = spread = 0.0
    for n, gap_s in enumerate(gaps):
        away = math.log(gap_s) - center
        if n:
            away = min(max(away, -math.log(100)), math.log(100))
            spread = spread + (abs(away) - spread) / min(n + 1, 16)
        center = center + away / min(n + 1, 16)
    return center, spread


def test_nothing_is_known_before_four_steps():
    assert not learned(*[900.0] * (KNOWN_STEPS - 1)).is_known
    assert learned(900.0, 900.0).hold_s == math.inf
    assert learned(*[900.0] * KNOWN_STEPS).is_known


def test_it_is_the_running_average_of_logarithms():
    rng = random.Random(1)
    gaps = [rng.uniform(0.5, 2000.0) for _ in range(60)]
    for n in range(4, 60):
        center, spread = oracle(gaps[:n])
        cadence = learned(*gaps[:n])
        assert cadence.hold_s == pytest.approx(HOLD_CADENCES * math.exp(center + 2 * spread))
        assert cadence.is_on_change == (spread > 0.8)


def test_a_clock_with_jitter_has_a_cadence_and_is_held_for_about_five_of_it():
    rng = random.Random(2)
    cadence = learned(*(rng.uniform(7.0, 13.0) for _ in range(100)))
    assert cadence.typical_s == pytest.approx(10.0, rel=0.2)
    assert 45.0 < cadence.hold_s < 90.0


@pytest.mark.parametrize(
    "gaps",
    [
        [5.0, 10800.0] * 4,  # a door: opened, shut, and hours later again
        [3.0, 40.0, 2.0, 7200.0, 5.0, 600.0, 4.0, 50400.0],
        [86400.0, 2.0, 43200.0, 2.0, 90000.0],  # a setpoint that is sent twice
    ],
)
def test_gaps_over_orders_of_magnitude_are_no_cadence(gaps):
    assert learned(*gaps).is_on_change
    assert learned(*gaps).typical_s is None


def test_a_few_outages_do_not_make_a_clock_report_on_change():
    cadence = learned(*[1.0] * 50, 3600.0, *[1.0] * 5, 86400.0, *[1.0] * 30)
    assert not cadence.is_on_change
    assert cadence.hold_s < 10.0


def test_a_device_set_to_another_cadence_is_followed():
    cadence = learned(*[1.0] * 50, *[60.0] * 80)
    assert cadence.typical_s == pytest.approx(60.0, rel=0.1)


def test_a_silence_that_came_three_times_is_usual():
    day, night = [10.0] * 100, 50000.0
    assert learned(*day, night, *day, night, *day).usual_silence_s == 0.0
    assert learned(*day, night, *day, night + 60, *day, night + 120, *day).usual_silence_s == night


def test_it_goes_on_from_its_state():
    gaps = [10.0] * 50 + [5000.0, 10.0] * 2
    before = learned(*gaps)
    after = Cadence(json.loads(json.dumps(before.state())))
    for cadence in (before, after):
        cadence.add(5000.0)
    assert after.state() == before.state()
    assert (after.hold_s, after.usual_silence_s) == (before.hold_s, before.usual_silence_s)
    assert after.usual_silence_s == 5000.0


@pytest.mark.parametrize("state", [[], [1.0], ["a", 0.0, 0.0], [None, 1.0, 1.0]])
def test_a_state_that_is_none_is_refused(state):
    with pytest.raises((TypeError, ValueError)):
        Cadence(state)


def test_a_steady_clock_teaches_nothing_more_and_another_cadence_does():
    cadence = learned(*[1.0] * 20)
    before = cadence.state()
    assert not cadence.add(1.2)
    assert cadence.state() == before
    assert cadence.add(1.3)
    assert cadence.state() != before
