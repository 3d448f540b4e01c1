"""When models are trained again: by time, by drift, by a new feature, never in quiet hours."""

from __future__ import annotations

import numpy as np
import pytest

from gon_edge.training.schedule import (
    AFTER_START_S,
    DISTANCE,
    JITTER,
    RETRY_S,
    SAMPLE,
    ScoreDrift,
    StreamSchedule,
    distance,
    is_quiet,
)

DAY_S = 86400.0


def schedule(*, every_s: float | None = DAY_S, since_round_s: float = 0.0, jitter: float = 0.5) -> StreamSchedule:
    return StreamSchedule(ScoreDrift(1), now=0.0, every_s=every_s, since_round_s=since_round_s, jitter=jitter)


def feed(stream: StreamSchedule, count: int, *, level: float = 0.0, normal: bool = True, new: bool = False) -> None:
    for i in range(count):
        stream.row(level + 0.01 * (i % 97), normal=normal, new_feature=new)


def due(stream: StreamSchedule, now: float, rows: int = 10, known_s: float = np.inf) -> str | None:
    return stream.due(now, rows=rows, known_s=known_s, on_drift=True, on_features=True)


def test_a_round_is_due_after_its_time_with_jitter_and_not_before() -> None:
    for jitter, at in ((0.0, (1.0 - JITTER) * DAY_S), (1.0, (1.0 + JITTER) * DAY_S)):
        stream = schedule(jitter=jitter)
        feed(stream, 10)
        assert due(stream, at - 1.0) is None
        assert due(stream, at) == "time"


def test_what_a_model_knows_doubles_with_each_round_until_a_day_is_known() -> None:
    stream = schedule()
    feed(stream, 5)
    assert due(stream, 7199.0, known_s=7200.0) is None
    assert due(stream, 7200.0, known_s=7200.0) == "time"
    assert due(schedule(every_s=None), DAY_S, known_s=7200.0) is None
    assert due(stream, DAY_S, known_s=2 * DAY_S) is None  # with half of the rows


def test_without_enough_new_rows_nothing_is_due() -> None:
    stream = schedule(since_round_s=2 * DAY_S)
    feed(stream, 9)
    feed(stream, 100, normal=False)
    assert due(stream, AFTER_START_S) is None
    feed(stream, 1)
    assert due(stream, AFTER_START_S) == "time"


def test_nothing_is_due_right_after_the_start_and_right_after_a_round() -> None:
    stream = schedule(since_round_s=2 * DAY_S)
    feed(stream, 10, new=True)
    assert due(stream, AFTER_START_S - 1.0) is None
    assert due(stream, AFTER_START_S) == "new feature"
    stream.began(AFTER_START_S, 0.5)
    feed(stream, 10, new=True)
    assert due(stream, AFTER_START_S + RETRY_S - 1.0) is None
    assert due(stream, AFTER_START_S + RETRY_S) == "new feature"


def test_a_round_in_the_future_by_a_wrong_clock_counts_as_now() -> None:
    stream = schedule(since_round_s=-1e9)
    feed(stream, 10)
    assert due(stream, 2 * DAY_S) == "time"


def test_a_new_feature_must_stay_for_as_many_rows() -> None:
    stream = schedule(every_s=None)
    feed(stream, 9, new=True)
    feed(stream, 1)
    feed(stream, 9, new=True)
    assert due(stream, DAY_S) is None
    feed(stream, 1, new=True)
    assert due(stream, DAY_S) == "new feature"
    assert stream.due(DAY_S, rows=10, known_s=np.inf, on_drift=True, on_features=False) is None


def test_scores_that_move_make_a_round_due_and_a_single_odd_sample_does_not() -> None:
    stream = schedule(every_s=None)
    feed(stream, 2 * SAMPLE)
    feed(stream, SAMPLE, level=5.0)
    feed(stream, SAMPLE)
    assert due(stream, DAY_S) is None
    feed(stream, 2 * SAMPLE, level=5.0)
    assert due(stream, DAY_S) == "drift"
    assert stream.due(DAY_S, rows=10, known_s=np.inf, on_drift=False, on_features=True) is None


def test_alarmed_scores_are_no_drift() -> None:
    stream = schedule(every_s=None)
    feed(stream, 2 * SAMPLE)
    feed(stream, 5 * SAMPLE, level=5.0, normal=False)
    assert due(stream, DAY_S) is None


def test_another_model_has_scores_of_its_own() -> None:
    stream = schedule(every_s=None)
    feed(stream, SAMPLE)
    stream.new_model(ScoreDrift(1))
    feed(stream, 5 * SAMPLE, level=5.0)
    assert due(stream, DAY_S) is None


def test_scores_that_depend_on_each_other_and_do_not_move_are_no_drift() -> None:
    """Smoothed as the detector smooths them, windows of 40 rows; two weeks at one row a second."""
    rng = np.random.default_rng(0)
    drift = ScoreDrift(40)
    noise, level, found = rng.normal(size=1_000_000), 0.0, 0
    for value in noise:
        level += 0.05 * (value - level)
        found += drift.add(level)
    assert found == 0


def test_a_small_move_that_lasts_is_found_within_a_day() -> None:
    rng = np.random.default_rng(1)
    drift = ScoreDrift(40)
    assert not any(drift.add(score) for score in rng.normal(size=40 * SAMPLE * 3))
    assert any(drift.add(score) for score in rng.normal(0.8, 1.0, size=86400))


def test_the_reference_of_an_earlier_run_goes_on() -> None:
    first = ScoreDrift(1)
    for i in range(SAMPLE):
        first.add(0.01 * (i % 97))
    assert first.reference is not None
    again = ScoreDrift(1, first.reference.tolist())
    assert any(again.add(5.0 + 0.01 * (i % 97)) for i in range(2 * SAMPLE))
    assert ScoreDrift(1, [1.0, 2.0]).reference is None  # of another length: not ours


def test_what_is_no_number_is_left_out() -> None:
    drift = ScoreDrift(1)
    for _ in range(10 * SAMPLE):
        assert not drift.add(float("nan"))
    assert drift.reference is None


def test_the_distance_is_that_of_a_plain_loop() -> None:
    rng = np.random.default_rng(2)
    a, b = np.sort(rng.normal(size=57)), np.sort(rng.normal(0.3, 2.0, size=91))
    plain = max(abs((a <= x).mean() - (b <= x).mean()) for x in [*a, *b])
    assert distance(a, b) == pytest.approx(plain)
    assert 0.25 < DISTANCE < 0.3


@pytest.mark.parametrize(
    ("clock", "quiet"), [("21:59", False), ("22:00", True), ("23:59", True), ("00:00", True), ("06:00", False)]
)
def test_quiet_hours_go_over_midnight(clock: str, quiet: bool) -> None:
    minute = 60 * int(clock[:2]) + int(clock[3:])
    assert is_quiet(minute, (22 * 60, 6 * 60)) is quiet
