"""The clock of the made machines, and what their readings are made of."""

from __future__ import annotations

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import numpy as np
import pytest

from gon_edge.research.machines.when import Event, When, midnight, offset_s, rounded, weather


def test_the_wall_clock_is_that_of_central_europe_all_year() -> None:
    berlin = ZoneInfo("Europe/Berlin")
    times = midnight(2026, 1, 1) + 1800.0 * np.arange(365 * 48)
    expected = [datetime.fromtimestamp(t, UTC).astimezone(berlin).utcoffset().total_seconds() for t in times]  # type: ignore[union-attr]
    assert offset_s(times).tolist() == expected


def test_hours_and_weekdays_follow_the_clock_when_it_goes_forward() -> None:
    when = When(midnight(2026, 3, 28), 2.0, 3600.0)
    assert when.weekday[0] == 5
    assert when.hour[:24].tolist() == list(range(24))
    assert when.hour[24:28].tolist() == [0, 1, 3, 4]
    assert when.day[-1] == 2  # the second day lost an hour, so the last row is of the third


def test_an_event_has_its_strength_while_it_lasts_and_no_other_kind() -> None:
    begin = midnight(2026, 1, 5)
    when = When(begin, 1.0, 3600.0, [Event(begin + 7200.0, begin + 10_800.0, "dead", 2.0)])
    assert when.level("dead")[:4].tolist() == [0.0, 0.0, 2.0, 0.0]
    assert not when.level("alive").any()
    assert when.since("dead").max() == 0.0  # it has only begun
    assert When(begin, 1.0, 1800.0, [Event(begin, begin + 3600.0, "wear", 2.0)]).since("wear")[1] == pytest.approx(
        2 / 48
    )


def test_a_span_over_midnight_holds_the_first_hours_of_each_day() -> None:
    when = When(midnight(2026, 1, 5), 1.0, 3600.0)
    assert np.flatnonzero(when.between(23.0, 25.0)).tolist() == [0, 23]


def test_slow_noise_has_the_spread_and_the_memory_it_is_asked_for() -> None:
    when = When(midnight(2026, 1, 5), 50.0, 300.0)
    drift = when.wander(np.random.default_rng(0), 2.0, 3.0)
    assert drift.std() == pytest.approx(3.0, rel=0.1)
    assert np.corrcoef(drift[:-24], drift[24:])[0, 1] == pytest.approx(np.exp(-1.0), abs=0.08)  # 24 rows are 2 hours


def test_what_lags_reaches_two_thirds_of_a_step_after_its_time_constant() -> None:
    when = When(midnight(2026, 1, 5), 1.0, 60.0)
    step = when.lag(np.where(np.arange(len(when)) > 0, 1.0, 0.0), 2.0)
    assert step[120] == pytest.approx(1.0 - np.exp(-1.0), abs=0.01)


def test_bursts_come_as_often_as_asked_and_none_where_none_may() -> None:
    when = When(midnight(2026, 1, 5), 100.0, 60.0)
    busy = when.bursts(np.random.default_rng(1), 6.0 * when.between(6.0, 12.0), 10.0)
    begins = np.flatnonzero(np.diff(busy.astype(int), prepend=0) == 1)
    assert 90 < len(begins) < 200  # 150 expected, and some run into each other
    assert not busy[when.between(14.0, 24.0)].any()


def test_the_sun_shines_by_day_and_afternoons_are_warmer_than_nights() -> None:
    when = When(midnight(2026, 1, 5), 30.0, 300.0)
    outdoor, sun = weather(when, np.random.default_rng(2))
    assert not sun[when.between(22.0, 28.0)].any()
    assert sun[when.between(12.0, 14.0)].min() > 0.0
    assert outdoor[when.between(14.0, 16.0)].mean() > outdoor[when.between(2.0, 4.0)].mean() + 3.0


def test_a_sensor_tells_whole_steps() -> None:
    assert rounded(np.array([20.26, -0.04]), 0.1).tolist() == pytest.approx([20.3, 0.0])
