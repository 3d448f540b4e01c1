"""Rows as columns of a picture: nothing high is lost, and their number is bounded."""

from __future__ import annotations

import tracemalloc
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from judged import CURRENT, FEATURES, START, judge, model_of, table

from gon_edge.commands.thinned import MOST_COLUMNS, Thinned
from gon_edge.events import Row, Verdict
from gon_edge.model.detector import Detector
from gon_edge.model.file import Model


@pytest.fixture(scope="module")
def model() -> Model:
    return model_of(FEATURES)


@pytest.fixture(scope="module")
def values() -> np.ndarray:
    return np.concatenate([table(900, 1), table(30, 2, fault=6.0), table(400, 3)]).astype(np.float32)


@pytest.fixture(scope="module")
def judged(model: Model, values: np.ndarray) -> Thinned:
    return judge(model, values, silent_from=1100)


class Explains:
    """A detector that explains every row alike: fitting one is not what is tested."""

    def account(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        return np.ones(1), np.ones(1, np.float32), np.ones(1)


def add(thinned: Thinned, at: float, score: float, value: float) -> None:
    verdict = Verdict("pump", at, score, 2.0, score > 2.0, (), (), "1")
    row = Row("pump", at, ("b", "a"), np.array([np.nan, value], np.float32), np.zeros(2, np.bool_))
    thinned.add(at, row, verdict, Explains())  # type: ignore[arg-type]


def test_thinning_keeps_the_number_of_rows_the_highest_score_and_its_cause(model, values, judged):
    detector = Detector(model)
    verdicts = [detector.score(Row("pump", float(t), model.features, row, CURRENT)) for t, row in enumerate(values)]
    scores = [verdict.score for verdict in verdicts]
    assert judged.rows == sum(column.rows for column in judged.columns) == 1330
    assert judged.anomalies == sum(column.anomalies for column in judged.columns) == sum(v.is_anomaly for v in verdicts)
    assert judged.highest == max(column.high for column in judged.columns) == max(scores)
    assert judged.highest_at == START + int(np.argmax(scores))
    assert min(column.low for column in judged.columns) == min(scores)
    assert model.features[int(np.argmax(judged.blame()))] == "flow"


def test_columns_hold_the_lowest_and_the_highest_value_of_their_rows(values, judged):
    begin = 0
    for column in judged.columns:
        rows = values[begin : begin + column.rows]
        np.testing.assert_array_equal(column.lowest, rows.min(axis=0))
        np.testing.assert_array_equal(column.highest, rows.max(axis=0))
        begin += column.rows
    assert begin == len(values)


def test_columns_are_bounded_and_none_bridges_a_silence(judged):
    assert len(judged.columns) <= 2 * MOST_COLUMNS
    assert max(column.last_at - column.first_at for column in judged.columns) < 60.0
    first, second = judged.runs()
    assert second[0].first_at - first[-1].last_at > 7000.0


@settings(max_examples=40)
@given(st.lists(st.sampled_from([1.0, 1.0, 1.0, 100.0, -50.0]), min_size=1, max_size=2500))
def test_whatever_the_times_columns_are_bounded_and_in_order(steps: list[float]):
    thinned = Thinned(("a",))
    at = START
    for step in steps:
        at += step
        add(thinned, at, 1.0, at)
    assert sum(column.rows for column in thinned.columns) == len(steps)
    assert len(thinned.columns) <= 2 * MOST_COLUMNS + 1
    assert sum(len(run) for run in thinned.runs()) == len(thinned.columns)
    for run in thinned.runs():
        assert all(after.first_at >= before.last_at for before, after in pairwise(run))


@pytest.mark.parametrize("step", [None, 60.0])
def test_one_odd_step_does_not_make_gaps_of_all_the_others(step: float | None):
    # The shortest step once said what a gap is: with a row a millisecond after another, every minute was one.
    thinned = Thinned(("a",), step=step)
    times = sorted([*(60.0 * t for t in range(3000)), 600.001])
    for t, at in enumerate(times):
        add(thinned, START + at, 1.0, t)
    assert len(thinned.runs()) == 1
    assert len(thinned.columns) <= 2 * MOST_COLUMNS
    assert max(column.rows for column in thinned.columns) > 1


def test_memory_does_not_grow_with_the_rows():
    peaks = []
    for rows in (2_000, 12_000):
        tracemalloc.start()
        thinned = Thinned(("a",))
        for t in range(rows):
            add(thinned, START + t, t % 7, t)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.2 * peaks[0]


def test_a_feature_that_a_row_lacks_has_no_extremes():
    thinned = Thinned(("a", "c"))
    thinned.add(
        START,
        Row("pump", START, ("a",), np.ones(1, np.float32), np.zeros(1, np.bool_)),
        Verdict("pump", START, 1.0, 2.0, False, (), ("c",), "1"),
        Explains(),  # type: ignore[arg-type]
    )
    (column,) = thinned.columns
    np.testing.assert_array_equal(column.lowest, [1.0, np.nan])
    np.testing.assert_array_equal(thinned.missing, [0, 1])


def test_of_a_counter_the_rate_is_kept_as_its_model_judges_it():
    thinned = Thinned(("flow", "meter"), rows_expected=400, rising=("meter",))
    for t, meter in enumerate((100.0, 103.0, 110.0, 2.0, 4.0)):
        row = Row("pump", START + t, ("meter", "flow"), np.float32([meter, 7.0]), np.zeros(2, np.bool_), restart=t == 4)
        verdict = Verdict("pump", START + t, 1.0, 2.0, False, (), (), "1")
        thinned.add(START + t, row, verdict, Explains())  # type: ignore[arg-type]
    lowest = np.fmin.reduce([column.lowest for column in thinned.columns])
    highest = np.fmax.reduce([column.highest for column in thinned.columns])
    assert (lowest.tolist(), highest.tolist()) == ([7.0, 3.0], [7.0, 7.0])
    assert (thinned.is_counter("flow"), thinned.is_counter("meter")) == (False, True)


def test_an_account_agrees_with_the_causes(model):
    detector = Detector(model)
    for t, row in enumerate(np.concatenate([table(100, 1), table(20, 2, fault=6.0)]).astype(np.float32)):
        detector.score(Row("pump", float(t), model.features, row, CURRENT))
    share, measured, expected = detector.account()
    first = detector.causes()[0]
    f = model.features.index(first.feature)
    assert share[f] == pytest.approx(first.contribution)
    assert share.sum() == pytest.approx(1.0)
    assert measured[f] == pytest.approx(first.value, abs=1e-5)
    assert expected[f] == pytest.approx(first.expected, rel=0.2)
