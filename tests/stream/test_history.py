"""The last hour: scores by quarter minutes, readings by half minutes, gaps, clocks that are set, and what it holds."""

from __future__ import annotations

import sys

import numpy as np
from numpy.typing import NDArray

from gon_edge.events import Row
from gon_edge.stream.history import (
    HISTORY_BUCKET_S,
    HISTORY_BUCKETS,
    MOST_READINGS,
    READING_BUCKET_S,
    READING_BUCKETS,
    ReadingHistory,
    ScoreHistory,
    unpacked,
)

BEGIN = 1_500_000_000.0


def test_the_history_keeps_the_highest_score_of_a_bucket_and_its_threshold() -> None:
    history = ScoreHistory()
    for second, score in enumerate((1.0, 5.0, 2.0)):
        history.add(1_500_000_000.0 + second, score, 4.0)
    end, scores, thresholds = history.copy()
    assert end == 1_500_000_015.0
    assert (scores[-1], thresholds[-1], len(scores)) == (5.0, 4.0, HISTORY_BUCKETS)
    assert all(score != score for score in scores[:-1])


def test_the_history_forgets_what_is_older_than_its_span_and_what_a_gap_skipped() -> None:
    history = ScoreHistory()
    for bucket in (0, 1, 3, HISTORY_BUCKETS):
        history.add(1_500_000_000.0 + HISTORY_BUCKET_S * bucket, float(bucket), 4.0)
    scores = history.copy()[1].tolist()
    assert [score for score in scores if score == score] == [1.0, 3.0, float(HISTORY_BUCKETS)]
    history.add(1_500_000_000.0 + HISTORY_BUCKET_S * 3 * HISTORY_BUCKETS, 7.0, 4.0)
    assert [score for score in history.copy()[1] if score == score] == [7.0]


def test_each_score_keeps_its_threshold_when_that_moves_and_comes_back() -> None:
    history = ScoreHistory()
    for bucket, threshold in enumerate((4.0, 4.0, 5.0, 4.0)):
        history.add(BEGIN + HISTORY_BUCKET_S * bucket, 1.0 + bucket, threshold)
    history.add(BEGIN + HISTORY_BUCKET_S * 5, 1.0, 4.0)  # nothing came in the bucket before
    _, scores, thresholds = history.copy()
    assert str(scores[-6:].tolist()) == "[1.0, 2.0, 3.0, 4.0, nan, 1.0]"
    assert str(thresholds[-6:].tolist()) == "[4.0, 4.0, 5.0, 4.0, nan, 4.0]"


def test_a_clock_that_is_set_back_takes_the_history_after_it_along() -> None:
    history = ScoreHistory()
    for bucket in (5, 6, 7, 5):
        history.add(1_500_000_000.0 + HISTORY_BUCKET_S * bucket, float(bucket), 4.0)
    assert [score for score in history.copy()[1] if score == score] == [5.0]


def test_the_history_is_copied_again_only_when_it_has_changed() -> None:
    history = ScoreHistory()
    history.add(1_500_000_000.0, 2.0, 4.1)
    before = history.copy()
    history.add(1_500_000_001.0, 1.0, 4.1)
    assert history.copy() is before
    history.add(1_500_000_002.0, 3.0, 4.1)
    assert history.copy()[1][-1] == 3.0
    assert before[1][-1] == 2.0


def row(at: float, *values: float, features: tuple[str, ...] = ("flow",), stale: bool = False) -> Row:
    return Row("pump", at, features, np.float32(values), np.full(len(values), stale))


def held(history: ReadingHistory) -> NDArray[np.float32]:
    """Lowest, highest and expected (3, B, F)."""
    return unpacked(history.copy()[1], len(history.features))


def test_of_each_half_minute_the_lowest_and_highest_reading_are_kept() -> None:
    history = ReadingHistory()
    for second, value in enumerate((3.0, 9.0, -1.0)):
        history.add(row(BEGIN + second, value))
    history.add(row(BEGIN + READING_BUCKET_S, 4.0))
    end, _ = history.copy()
    low, high, expected = held(history)
    assert end == BEGIN + 2 * READING_BUCKET_S
    assert (low[:, 0].tolist(), high[:, 0].tolist()) == ([-1.0, 4.0], [9.0, 4.0])
    assert np.isnan(expected).all()


def test_a_stale_reading_and_a_gap_leave_nothing() -> None:
    history = ReadingHistory()
    history.add(row(BEGIN, 1.0))
    history.add(row(BEGIN + READING_BUCKET_S, 1.0, stale=True))
    history.add(row(BEGIN + 4 * READING_BUCKET_S, 2.0))
    assert np.isnan(held(history)[0, :, 0]).tolist() == [False, True, True, True, False]


def test_readings_older_than_an_hour_are_forgotten() -> None:
    history = ReadingHistory()
    for bucket in range(READING_BUCKETS + 5):
        history.add(row(BEGIN + READING_BUCKET_S * bucket, float(bucket)))
    low = held(history)[0, :, 0]
    assert (len(low), low[0], low[-1]) == (READING_BUCKETS, 5.0, READING_BUCKETS + 4.0)
    history.add(row(BEGIN + 1e6, 7.0))
    assert held(history)[0, :, 0].tolist() == [7.0]


def test_a_clock_that_is_set_back_takes_the_readings_after_it_along() -> None:
    history = ReadingHistory()
    for bucket in (0, 1, 2, 3, 1):
        history.add(row(BEGIN + READING_BUCKET_S * bucket, float(bucket)))
    assert held(history)[0, :, 0].tolist() == [0.0, 1.0]
    history.add(row(BEGIN - 1e6, 7.0))
    assert held(history)[0, :, 0].tolist() == [7.0]


def test_a_feature_that_comes_later_stands_beside_those_before_it() -> None:
    history = ReadingHistory()
    history.add(row(BEGIN, 1.0))
    history.add(row(BEGIN + READING_BUCKET_S, 2.0))
    history.add(row(BEGIN + READING_BUCKET_S, 3.0, 8.0, features=("flow", "power")))
    low, high, _ = held(history)
    assert history.features == ("flow", "power")
    np.testing.assert_equal(low, [[1.0, np.nan], [2.0, 8.0]])
    np.testing.assert_equal(high, [[1.0, np.nan], [3.0, 8.0]])
    assert history.values.tolist() == [3.0, 8.0]


def test_what_was_expected_is_wanted_once_a_half_minute() -> None:
    history = ReadingHistory()
    history.add(row(BEGIN, 1.0, 2.0, features=("flow", "power")))
    assert history.wants_expected
    history.expect(("power", "unknown"), (5.0, 6.0))
    assert not history.wants_expected
    np.testing.assert_equal(held(history)[2], [[np.nan, 5.0]])
    history.add(row(BEGIN + READING_BUCKET_S, 1.0, 2.0, features=history.features))
    assert history.wants_expected


def test_what_was_seen_of_the_history_stays_as_it_was() -> None:
    history = ReadingHistory()
    history.add(row(BEGIN, 1.0))
    _, before = history.copy()
    assert history.copy()[1] is before
    history.add(row(BEGIN + 1.0, 9.0))
    assert unpacked(before, 1)[1].tolist() == [[1.0]]
    assert unpacked(history.copy()[1], 1)[1].tolist() == [[9.0]]


def test_an_hour_of_eight_features_is_held_in_20_kb_and_of_a_thousand_in_80() -> None:
    for width, most_bytes in ((8, 20_000), (1000, 80_000)):
        history = ReadingHistory()
        names = tuple(f"f{i}" for i in range(width))
        for bucket in range(2 * READING_BUCKETS):
            history.add(row(BEGIN + READING_BUCKET_S * bucket, *range(width), features=names))
        assert len(history.features) == min(width, MOST_READINGS)
        _, buckets = history.copy()
        assert sum(map(sys.getsizeof, buckets)) + sys.getsizeof(buckets) < most_bytes
