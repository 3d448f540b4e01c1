"""Which readings drift: the rule against a naive one, and made machines that wear beside twins that do not."""

from __future__ import annotations

import json

import numpy as np
import pytest

from gon_edge.events import Cause, Trend
from gon_edge.research.machines.plants import pump
from gon_edge.research.machines.when import DAY_S, Event, When, midnight
from gon_edge.stream.drift import DriftWatch, in_words, is_drift, outlying

BEGIN, ROWS = midnight(2026, 1, 5), 48
NAMES = ("load", "temp", "flow")


def watching(names=NAMES, lowest=None, highest=None, counters=()) -> DriftWatch:
    watch = DriftWatch(offset_s=lambda timestamp: 3600.0)
    unknown = np.full(len(names), np.nan, np.float32)
    watch.follow(names, counters, unknown if lowest is None else lowest, unknown if highest is None else highest)
    return watch


def feed(
    watch: DriftWatch, rows: np.ndarray, *, first_day: int = 0, counts=None
) -> list[tuple[int, tuple[Cause, ...]]]:
    """Days of rows (D, T, F); what was found out, with the number of the day that was over."""
    found = []
    for day, table in enumerate(rows, first_day):
        for t, row in enumerate(table):
            at = BEGIN + day * DAY_S + t * DAY_S / len(table)
            drifts = watch.take(at, row.astype(np.float32), counts=counts is None or counts(day, t))
            if drifts is not None:
                found.append((day - 1, drifts))
    return found


def machine(days: int, seed: int = 0, rise: float = 0.0, begin: int = 24) -> np.ndarray:
    """Rows (D, T, 3) of a machine whose load differs from day to day; its temperature may rise from a day on."""
    rng = np.random.default_rng(seed)
    load = 10.0 + rng.normal(0.0, 2.0, (days, 1)) + rng.normal(0.0, 1.0, (days, ROWS))
    since = np.maximum(0.0, np.arange(days * ROWS).reshape(days, ROWS) / ROWS - begin)
    temp = 20.0 + 2.0 * load + rise * since + rng.normal(0.0, 0.5, load.shape)
    flow = 3.0 * load + rng.normal(0.0, 0.5, load.shape)
    return np.stack([load, temp, flow], axis=-1)


# -- the rule ----------------------------------------------------------------------------------------------------------


def naive(before: np.ndarray, newest: np.ndarray, reading: int, others: list[int]) -> tuple[np.ndarray, np.ndarray]:
    """Ridge with a free intercept by `numpy.linalg.lstsq`, each day before left out in its turn."""
    mean, scale = before[:, others].mean(axis=0), before[:, others].std(axis=0)
    x, now = (before[:, others] - mean) / scale, (newest[:, others] - mean) / scale
    y, count = before[:, reading], len(others)

    def fit(x, y):
        rows = np.vstack([np.hstack([np.ones((len(x), 1)), x]), np.hstack([np.zeros((count, 1)), np.eye(count)])])
        return np.linalg.lstsq(rows, np.concatenate([y, np.zeros(count)]), rcond=None)[0]

    def predict(weights, x):
        return weights[0] + x @ weights[1:]

    errors = []
    for i in range(len(y)):
        rest = np.arange(len(y)) != i
        errors.append(y[i] - predict(fit(x[rest], y[rest]), x[i]))
    off = newest[:, reading] - predict(fit(x, y), now)
    design = np.hstack([np.ones((len(x), 1)), x])
    penalty = np.diag([0.0, *np.ones(count)])
    ahead = np.hstack([np.ones((len(now), 1)), now])
    leverage = np.einsum("ij,jk,ik->i", ahead, np.linalg.inv(design.T @ design + penalty), ahead)
    return off / np.sqrt(np.mean(np.square(errors)) * (1.0 + leverage)), off


@pytest.mark.parametrize("features", [2, 5, 40])
@pytest.mark.parametrize("days", [14, 21])
def test_newest_days_are_as_far_out_as_naive_ridge_says(days, features):
    rng = np.random.default_rng(features)
    table = rng.normal(50.0, 3.0, (days + 7, 2)) @ rng.normal(0.0, 1.0, (2, features))
    table += rng.normal(0.0, 0.3, table.shape)
    others = [f for f in range(features) if f != 1]
    found = outlying(table[:days], table[days:], 1, others)
    far, off = naive(table[:days], table[days:], 1, others)
    np.testing.assert_allclose(found.off, off, rtol=1e-8)
    np.testing.assert_allclose(found.far, far, rtol=1e-8)
    assert found.now == pytest.approx(np.median(far[-3:]))


def test_a_reading_alone_is_held_against_its_mean():
    table = np.random.default_rng(3).normal(5.0, 1.0, (28, 1))
    found = outlying(table[:21], table[21:], 0, [])
    np.testing.assert_allclose(found.off, table[21:, 0] - table[:21, 0].mean())
    left_out = [table[i, 0] - np.delete(table[:21, 0], i).mean() for i in range(21)]
    error = np.sqrt(np.mean(np.square(left_out)) * (1.0 + 1.0 / 21.0))
    np.testing.assert_allclose(found.far, found.off / error)


def test_a_reading_that_never_moved_has_an_error_all_the_same():
    found = outlying(np.full((21, 1), 7.0), np.full((7, 1), 7.0), 0, [])
    assert found.far.tolist() == [0.0] * 7


def test_a_predictor_without_a_value_on_some_day_before_counts_as_its_mean_there():
    table = np.random.default_rng(4).normal(0.0, 1.0, (28, 2))
    lacking, filled = table.copy(), table.copy()
    lacking[3, 1] = np.nan
    filled[3, 1] = np.nanmean(lacking[:21, 1])
    assert outlying(lacking[:21], lacking[21:], 0, [1]).now == pytest.approx(
        outlying(filled[:21], filled[21:], 0, [1]).now, rel=0.1
    )


@pytest.mark.parametrize(
    ("far", "drifts"),
    [
        ([1, 2, 3, 4, 5, 6, 7], True),
        ([-1, -2, -3, -4, -5, -6, -7], True),
        ([-1, 2, 3, 4, 5, 6, 7], False),  # a day on the other side
        ([1, 1, 2, 3, 3, 4, 4.9], False),  # not far enough
        ([5, 5, 5, 6, 6, 7, 7], False),  # as far a week ago
        ([1, 1, 1, 7, 7, 7, 7], False),  # it jumped
    ],
)
def test_a_drift_goes_one_way_far_and_on_and_on(far, drifts):
    assert is_drift(np.array(far, float)) is drifts


# -- days of a stream --------------------------------------------------------------------------------------------------


def test_a_reading_that_rises_slowly_is_found_with_its_rate_and_what_it_reaches():
    rows = machine(36, rise=0.5)
    calm = rows[:14].reshape(-1, 3)
    lowest, highest = calm.min(axis=0), calm.max(axis=0)
    lowest[1], highest[1] = 20.0, 70.0
    found = [(day, drifts) for day, drifts in feed(watching(NAMES, lowest, highest), rows) if drifts]
    day, (cause,) = found[0]
    assert 26 <= day <= 30
    assert cause.feature == "temp"
    assert cause.contribution == 1.0
    _, (cause,) = found[-1]
    rose = rows[-4:-1, :, 1].mean() - (20.0 + 2.0 * rows[-4:-1, :, 0].mean())
    assert cause.value - cause.expected == pytest.approx(rose, abs=0.4)
    assert cause.trend.per_day == pytest.approx(0.5, abs=0.1)
    assert cause.trend.reaches == pytest.approx(75.0)  # a tenth of the range beyond
    high = np.median(rows[-4:-1, :, 1].max(axis=1))
    assert 0.0 < cause.trend.in_days <= (75.0 - high) / cause.trend.per_day + 1e-3


def test_its_twin_that_does_not_rise_is_not_found_however_the_load_moves():
    rows = machine(36)
    assert all(drifts == () for _, drifts in feed(watching(), rows))


def test_nothing_is_found_in_the_first_three_weeks():
    found = [day for day, drifts in feed(watching(), machine(40, rise=0.5, begin=0)) if drifts]
    assert not found or min(found) >= 20


@pytest.mark.parametrize("strength", [0.5, 1.0])
def test_a_pump_that_wears_is_told_once_by_its_vibration_and_its_twin_is_not(strength):
    """The slow wear of `gon_edge.research.machines`, from the 25th day on.

    Its flow and current are predicted from the vibration, and were blamed while the furthest reading was taken.
    """

    def days(*events: Event) -> tuple[tuple[str, ...], np.ndarray]:
        when = When(BEGIN, 42.0, 300.0, events)
        readings = pump(when, np.random.default_rng(0))
        return tuple(readings), np.stack(list(readings.values()), axis=1).reshape(42, -1, len(readings))

    names, rows = days(Event(BEGIN + 24 * DAY_S, BEGIN + 42 * DAY_S, "bearing wears", strength))
    told = [(day, drifts) for day, drifts in feed(watching(names), rows) if drifts]
    assert 26 <= told[0][0] <= 34
    assert [day for day, _ in told] == list(range(told[0][0], 41))  # until the end, and once a day
    assert [cause.feature for cause in told[0][1]] == ["vibration"]
    assert all("vibration" in {cause.feature for cause in drifts} for _, drifts in told)
    names, rows = days()
    assert not any(drifts for _, drifts in feed(watching(names), rows))


def test_a_drift_is_held_against_the_days_before_it_and_ends_when_the_reading_is_back():
    rows = machine(70, rise=0.5)
    rows[60:, :, 1] = machine(70)[60:, :, 1]  # repaired
    told = dict(feed(watching(), rows))
    first = min(day for day, drifts in told.items() if drifts)
    assert all(told[day] for day in range(first, 60))  # five weeks, longer than days are kept
    assert told[64] == ()


def test_a_drift_that_stands_still_for_two_weeks_is_over_and_one_that_goes_on_is_not():
    rows = machine(64, rise=0.6)
    stands = rows.copy()
    stands[34:, :, 1] = machine(64)[34:, :, 1] + 6.0  # it rose for ten days
    told = {name: feed(watching(), days) for name, days in (("goes on", rows), ("stands", stands))}
    assert told["goes on"][-1][1]
    begun = next(day for day, drifts in told["stands"] if drifts)
    over = next(day for day, drifts in told["stands"] if day > begun and not drifts)
    assert 34 + 13 <= over <= 34 + 17
    assert all(not drifts for day, drifts in told["stands"] if day > over)


def test_a_reading_that_jumped_does_not_drift():
    rows = machine(45)
    rows[24:, :, 1] += 5.0
    assert not any(drifts for _, drifts in feed(watching(), rows))


def test_one_that_has_always_risen_as_it_does_now_does_not_drift():
    assert not any(drifts for _, drifts in feed(watching(), machine(56, rise=0.5, begin=0)))


def test_rows_that_do_not_count_leave_a_day_with_a_fault_out():
    rows = machine(36, rise=0.5)
    rows[12, :, 1] += 500.0
    assert not any(drifts for _, drifts in feed(watching(), rows))
    assert any(drifts for _, drifts in feed(watching(), rows, counts=lambda day, t: day != 12))


def test_a_person_who_says_that_a_day_of_it_is_normal_ends_it_and_the_reading_begins_anew():
    rows = machine(80, rise=0.5)
    watch = watching()
    told = feed(watch, rows[:34])
    assert told[-1][1]
    assert watch.drifting == {"temp"}
    watch.accept(BEGIN + 33.9 * DAY_S, BEGIN + 34 * DAY_S)
    assert watch.drifting  # two hours say nothing of days
    watch.accept(BEGIN + 32 * DAY_S, BEGIN + 34 * DAY_S)
    assert watch.drifting == frozenset()
    later = feed(watch, rows[34:56], first_day=34)
    assert later[0] == (33, ())
    assert not any(drifts for _, drifts in later)


def test_a_day_without_rows_of_what_drifts_does_not_end_it():
    rows = machine(40, rise=0.5)
    rows[36:, :, 1] = np.nan
    told = feed(watching(), rows)
    assert [day for day, drifts in told if day >= 30] == [30, 31, 32, 33, 34, 35]
    assert all(drifts for day, drifts in told if day >= 30)


def test_a_counter_drifts_by_its_rate_and_one_that_becomes_one_begins_anew():
    rows = machine(34, rise=0.5)
    watch = watching(counters=("temp",))
    (*_, (_, (cause,))) = feed(watch, rows)
    assert cause.per_row
    unknown = np.full(3, np.nan, np.float32)
    watch.follow(NAMES, (), unknown, unknown)
    assert watch.drifting == frozenset()


def test_what_has_left_its_range_is_beyond_it():
    rows = machine(36, rise=0.5)
    told = [drifts for _, drifts in feed(watching(NAMES, np.zeros(3), np.full(3, 30.0)), rows) if drifts]
    assert told[-1][0].trend.reaches == 33.0
    assert told[-1][0].trend.in_days == 0.0


def test_an_end_at_which_a_reading_stands_still_is_not_reached():
    """A pump that is off by night is at 0 each day: a flow that falls does not reach that."""
    rows = machine(36, rise=-0.5)
    rows[:, ::6, 1] = 0.0
    calm = rows[:14].reshape(-1, 3)
    told = [drifts for _, drifts in feed(watching(NAMES, calm.min(axis=0), calm.max(axis=0)), rows) if drifts]
    assert told
    assert told[-1][0].trend.per_day < 0.0
    assert told[-1][0].trend.reaches is None


@pytest.mark.parametrize("cut", [20, 30, 33])
def test_a_restart_changes_nothing(cut):
    rows = machine(36, rise=0.5)
    whole, first = watching(), watching()
    told = feed(whole, rows)
    head = feed(first, rows[:cut])
    second = watching()
    second.resume(json.loads(json.dumps(first.state())))
    assert head + feed(second, rows[cut:], first_day=cut) == told
    assert second.state() == whole.state()


def test_a_reading_more_in_the_model_costs_no_day_of_the_others():
    rows = machine(36, rise=0.5)
    watch = watching()
    feed(watch, rows[:26])
    unknown = np.full(4, np.nan, np.float32)
    watch.follow((*NAMES, "new"), (), unknown, unknown)
    wide = np.concatenate([rows[26:], np.ones((10, ROWS, 1))], axis=-1)
    assert any(drifts for _, drifts in feed(watch, wide, first_day=26))


# -- words -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("trend", "words"),
    [
        (Trend(0.5, 45.0, 8.0), "temp 41 (expected 38), rises by 0.5 a day, reaches 45 in about 8 days"),
        (Trend(-0.5, 30.0, 1.2), "temp 41 (expected 38), falls by 0.5 a day, reaches 30 in about 1 day"),
        (Trend(0.5, 40.0, 0.0), "temp 41 (expected 38), rises by 0.5 a day, and is beyond 40"),
        (Trend(0.5), "temp 41 (expected 38), rises by 0.5 a day"),
    ],
)
def test_a_drift_is_said_in_words(trend, words):
    assert in_words(Cause("temp", 41.0, 38.0, 1.0, trend=trend)) == words
