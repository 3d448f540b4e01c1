"""Levels: what left its training range for long is judged from where it is now."""

from __future__ import annotations

import numpy as np
import pytest

from gon_edge.model.levels import Levels

LOW, HIGH = np.array([-2.0, -2.0]), np.array([2.0, 2.0])


def run(levels: Levels, rows: np.ndarray, *, restart: bool = False) -> list[int]:
    """Rows at which windows begin anew."""
    moves = [levels.take(z, restart=restart and t == 0) for t, z in enumerate(rows)]
    return [t for t, moved in enumerate(moves) if moved.begins]


def noise(rows: int, *, at: float = 0.0) -> np.ndarray:
    z = np.random.default_rng(0).normal(0.0, 0.3, (rows, 2))
    z[:, 0] += at
    return z


def test_readings_within_their_range_are_never_moved() -> None:
    levels = Levels(LOW, HIGH)
    rows = np.random.default_rng(1).uniform(-2.0, 2.0, (5000, 2))
    assert run(levels, rows, restart=True) == []
    assert levels.never_left(rows)
    assert not levels.away


def test_a_reading_that_is_far_away_from_the_first_row_moves_after_fifty_rows_and_the_others_stay() -> None:
    levels = Levels(LOW, HIGH)
    assert run(levels, noise(60, at=9.0), restart=True) == [49]
    assert levels.shift[0] == pytest.approx(9.0, abs=0.2)
    assert levels.shift[1] == 0.0


def test_a_reading_that_leaves_in_the_middle_moves_after_a_thousand_rows() -> None:
    levels = Levels(LOW, HIGH)
    run(levels, noise(1200), restart=True)
    began = run(levels, noise(1200, at=5.0))
    assert len(began) == 1
    assert 750 <= began[0] <= 1000
    assert levels.away


def test_a_fault_of_half_a_thousand_rows_moves_nothing() -> None:
    levels = Levels(LOW, HIGH)
    run(levels, noise(1200), restart=True)
    assert run(levels, np.concatenate([noise(500, at=5.0), noise(500)])) == []


def test_a_reading_that_comes_home_is_judged_from_home_again_after_forty_rows() -> None:
    levels = Levels(LOW, HIGH)
    run(levels, noise(60, at=9.0), restart=True)
    assert run(levels, noise(60)) == [39]
    assert not levels.away


def test_the_place_of_a_reading_that_is_away_follows_it_and_the_others_stay() -> None:
    levels = Levels(LOW, HIGH)
    run(levels, noise(60, at=9.0), restart=True)
    drift = noise(3000, at=9.0)
    drift[:, 0] += np.linspace(0.0, 12.0, 3000)
    assert run(levels, drift) == []
    assert levels.shift[0] == pytest.approx(drift[-1, 0], abs=3.0)
    assert levels.shift[1] == 0.0


def test_a_fault_far_from_the_place_of_a_reading_that_is_away_is_hardly_followed() -> None:
    levels = Levels(LOW, HIGH)
    run(levels, noise(60, at=9.0), restart=True)
    run(levels, noise(250, at=500.0))
    assert levels.shift[0] == pytest.approx(9.0 + 250 * 4.0 / 500.0, abs=0.3)


def test_a_place_stays_while_nothing_is_known_of_its_reading() -> None:
    levels = Levels(LOW, HIGH)
    run(levels, noise(60, at=9.0), restart=True)
    before = levels.shift.copy()
    run(levels, np.full((100, 2), np.nan))
    assert levels.shift.tolist() == before.tolist()


def test_after_a_gap_a_reading_that_is_at_home_is_judged_from_there_at_once() -> None:
    levels = Levels(LOW, HIGH)
    run(levels, noise(60, at=9.0), restart=True)
    assert run(levels, noise(10), restart=True) == [0]


def test_after_a_gap_a_reading_that_is_away_stays_away() -> None:
    levels = Levels(LOW, HIGH)
    run(levels, noise(60, at=9.0), restart=True)
    assert run(levels, noise(200, at=9.0), restart=True) == []
    assert levels.shift[0] == pytest.approx(9.0, abs=0.2)


def test_nan_neither_moves_a_reading_nor_brings_it_home() -> None:
    levels = Levels(LOW, HIGH)
    gone = noise(60, at=9.0)
    gone[::3, 0] = np.nan
    assert run(levels, gone, restart=True) == []
    silent = np.full((2000, 2), np.nan)
    assert run(levels, silent) == []


def test_a_reading_without_a_known_range_never_moves() -> None:
    unknown = np.full(2, np.nan)
    levels = Levels(unknown, unknown)
    assert run(levels, noise(3000, at=1e6), restart=True) == []


def test_a_reading_that_never_moved_in_training_moves_when_it_takes_another_value() -> None:
    levels = Levels(np.zeros(1), np.zeros(1))
    assert run(levels, np.full((60, 1), 1.0), restart=True) == [49]


def test_what_is_away_outlives_a_restart_of_the_program() -> None:
    levels, again = Levels(LOW, HIGH), Levels(LOW, HIGH)
    run(levels, noise(60, at=9.0), restart=True)
    again.resume(levels.state())
    assert again.shift.tolist() == levels.shift.tolist()
    assert again.away
