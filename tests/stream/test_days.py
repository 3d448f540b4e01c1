"""Daily means of a stream: which days there are, and which rows count."""

from __future__ import annotations

import json

import numpy as np
import pytest

from gon_edge.stream.days import KEPT, DayMeans, packed, rearranged, unpacked

HOUR_S, DAY_S = 3600.0, 86_400.0


def followed(*names: str, offset_s: float = 0.0) -> DayMeans:
    days = DayMeans(offset_s=lambda timestamp: offset_s)
    days.follow(names)
    return days


def feed(days: DayMeans, rows: np.ndarray, *, start: float = 0.0, step_s: float = HOUR_S, counts=None) -> list[int]:
    """Rows (T, F), an hour apart by default; which of them ended a day."""
    return [
        t
        for t, row in enumerate(rows.astype(np.float32))
        if days.take(start + t * step_s, row, counts=counts is None or bool(counts[t]))
    ]


def test_a_day_has_the_mean_and_the_extremes_of_its_rows():
    rows = np.random.default_rng(0).normal(20.0, 5.0, (73, 2))
    days = followed("a", "b")
    assert feed(days, rows) == [24, 48, 72]
    by_day = rows[:72].astype(np.float32).reshape(3, 24, 2)
    np.testing.assert_allclose(days.means, by_day.mean(axis=1), rtol=1e-6)
    np.testing.assert_array_equal(days.lows, by_day.min(axis=1))
    np.testing.assert_array_equal(days.highs, by_day.max(axis=1))
    assert days.numbers.tolist() == [0, 1, 2]
    assert days.begins.tolist() == [0.0, DAY_S, 2 * DAY_S]


@pytest.mark.parametrize("rows", [23, 24, 100])
def test_a_day_has_the_mean_and_the_extremes_whatever_number_of_rows_is_added_up_at_once(rows):
    rng = np.random.default_rng(rows)
    table = rng.normal(1e3, 1.0, (2 * rows, 3)).astype(np.float32)
    table[rng.random(table.shape) < 0.05] = np.nan
    counts = rng.random(2 * rows) > 0.05
    days = followed("a", "b", "c")
    feed(days, np.vstack([table, table[:1]]), step_s=DAY_S / rows, counts=[*counts, False])
    for day in (0, 1):
        of_day = table[rows * day : rows * (day + 1)][counts[rows * day : rows * (day + 1)]].astype(np.float64)
        np.testing.assert_allclose(days.means[day], np.nanmean(of_day, axis=0), rtol=1e-6)
        np.testing.assert_array_equal(days.lows[day], np.nanmin(of_day, axis=0).astype(np.float32))
        np.testing.assert_array_equal(days.highs[day], np.nanmax(of_day, axis=0).astype(np.float32))


def test_days_begin_at_local_midnight():
    days = followed("a", offset_s=2 * HOUR_S)
    assert feed(days, np.zeros((50, 1))) == [22, 46]


def test_rows_that_do_not_count_are_left_out_of_the_mean():
    rows, counts = np.ones((25, 1)), np.ones(25, bool)
    rows[3:7], counts[3:7] = 100.0, False
    days = followed("a")
    feed(days, rows, counts=counts)
    assert days.means.tolist() == [[1.0]]
    assert days.highs.tolist() == [[1.0]]


def test_a_day_of_which_a_third_does_not_count_is_no_day():
    counts = np.ones(25, bool)
    counts[:8] = False
    days = followed("a")
    assert feed(days, np.ones((25, 1)), counts=counts) == []
    assert len(days.numbers) == 0


def test_a_reading_that_is_unknown_for_a_third_of_a_day_has_no_mean_of_it():
    rows = np.ones((25, 2))
    rows[:8, 1] = np.nan
    days = followed("a", "b")
    feed(days, rows)
    np.testing.assert_array_equal(days.means, np.float32([[1.0, np.nan]]))


def test_the_first_day_that_began_in_its_middle_is_not_known():
    days = followed("a")
    feed(days, np.ones((12 + 48 + 1, 1)), start=12 * HOUR_S)
    assert days.known().tolist() == [False, True, True]


def test_four_weeks_are_kept_and_none_older_than_six():
    days = followed("a")
    feed(days, np.arange(24.0 * 60)[:, None] // 24)
    assert days.means[:, 0].tolist() == list(range(59 - KEPT, 59))
    feed(days, np.zeros((25, 1)), start=101 * DAY_S)
    assert days.numbers.tolist() == [101]


def test_a_clock_that_is_set_back_makes_days_of_the_future_forgotten():
    days = followed("a")
    feed(days, np.ones((72, 1)), start=100 * DAY_S)
    assert days.numbers.tolist() == [100, 101]
    assert feed(days, np.ones((30, 1)), start=3 * DAY_S) == [24]
    assert days.numbers.tolist() == [3]


def test_a_reading_that_is_new_has_no_past_and_one_that_is_gone_none_either():
    days = followed("a", "b")
    feed(days, np.tile([1.0, 2.0], (49, 1)))
    days.follow(("b", "c"))
    np.testing.assert_array_equal(days.means, np.float32([[2.0, np.nan], [2.0, np.nan]]))


def test_what_is_forgotten_begins_anew():
    days = followed("a", "b")
    feed(days, np.tile([1.0, 2.0], (40, 1)))
    days.forget({"b"})
    np.testing.assert_array_equal(days.means, np.float32([[1.0, np.nan]]))
    feed(days, np.tile([1.0, 2.0], (9, 1)), start=40 * HOUR_S)  # the day in which it was forgotten is none of it
    np.testing.assert_array_equal(days.means[1], np.float32([1.0, np.nan]))


@pytest.mark.parametrize("cut", [5, 24, 60])
def test_a_restart_changes_nothing(cut):
    rows = np.random.default_rng(1).normal(0.0, 1.0, (100, 2))
    whole, first = followed("a", "b"), followed("a", "b")
    feed(whole, rows)
    feed(first, rows[:cut])
    second = DayMeans(offset_s=lambda timestamp: 0.0)
    second.resume(json.loads(json.dumps(first.state())))
    second.follow(("a", "b"))
    feed(second, rows[cut:], start=cut * HOUR_S)
    assert json.dumps(second.state()) == json.dumps(whole.state())


def test_tables_are_packed_as_they_are():
    table = np.float32([[1.5, np.nan], [np.inf, -2.0]])
    np.testing.assert_array_equal(unpacked(packed(table), 2, 2), table)
    with pytest.raises(ValueError, match="reshape"):
        unpacked(packed(table), 3, 2)


def test_columns_are_rearranged_by_name():
    table = rearranged(np.float32([[1.0, 2.0]]), ("a", "b"), ("b", "c", "a"))
    np.testing.assert_array_equal(table, np.float32([[2.0, np.nan, 1.0]]))
