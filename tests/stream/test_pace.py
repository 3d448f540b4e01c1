"""A stream's own time against the time of receipt."""

from __future__ import annotations

import pytest

from gon_edge.stream.pace import PACE_SAMPLES, Pace


def pace(*, speed: float, delay_s: tuple[float, ...] = (0.0,)) -> Pace:
    made = Pace()
    for t in range(PACE_SAMPLES):
        made.add(1000.0 + t, t / speed + delay_s[t % len(delay_s)], 0.5)
    return made


@pytest.mark.parametrize(("speed", "live"), [(1.0, True), (0.8, True), (1.3, True), (0.5, False), (10.0, False)])
def test_a_stream_is_live_when_its_timestamps_run_at_the_pace_of_time(speed: float, live: bool):
    assert pace(speed=speed).is_live is live


def test_two_samples_say_nothing():
    made = Pace()
    made.add(0.0, 0.0, 0.5)
    made.add(1.0, 1.0, 0.5)
    assert not made.is_live


def test_the_slowest_reading_tells_the_time_of_the_stream():
    assert pace(speed=1.0, delay_s=(0.0, 0.2, 0.4)).slowest(100.0) == pytest.approx(1099.6)


def test_a_clock_that_is_set_is_followed_and_readings_of_one_tick_count_once():
    made = pace(speed=1.0)
    made.shift(50.0)
    assert made.slowest(100.0) == pytest.approx(1150.0)
    made.add(1065.1, 1e9, 0.5)
    assert made.is_live
    made.clear()
    assert not made.is_live
