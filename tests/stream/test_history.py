"""The scores of the last hour: peaks by quarter minutes, gaps, and clocks that are set."""

from __future__ import annotations

from gon_edge.stream.history import HISTORY_BUCKET_S, HISTORY_BUCKETS, ScoreHistory


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
