"""How far answers move a threshold, and what they leave alone."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gon_edge.training.evidence import MOST_RAISED, highest, move_threshold, reaches

SCORES = st.floats(0.0, 100.0)


def test_without_answers_a_threshold_stays() -> None:
    moved = move_threshold(3.0, 2.0, [], [])
    assert (moved.fitted, moved.threshold, moved.why) == (3.0, 3.0, "")


def test_a_wrong_alert_raises_it_to_just_above_its_highest_score() -> None:
    moved = move_threshold(3.0, 2.0, [2.5, 3.4, 1.0], [])
    assert 3.4 < moved.threshold < 3.5
    assert moved.why == "raised from 3, just above rows that were called normal"


def test_a_wrong_alert_beyond_the_bound_raises_nothing_and_says_so() -> None:
    moved = move_threshold(3.0, 2.0, [9.0], [])
    assert moved.threshold == 3.0
    assert moved.why.startswith("rows that were called normal still score 9: too high for a threshold")
    both = move_threshold(3.0, 2.0, [9.0, 3.4], [])
    assert 3.4 < both.threshold < 3.5


def test_a_missed_fault_lowers_it_to_just_below_its_score() -> None:
    moved = move_threshold(3.0, 2.0, [], [2.6, 5.0])
    assert 2.5 < moved.threshold < 2.6
    assert moved.why == "lowered from 3, just below rows that were called a fault"


def test_a_fault_no_higher_than_calm_rows_lowers_nothing_and_says_so() -> None:
    moved = move_threshold(3.0, 2.0, [], [1.9])
    assert moved.threshold == 3.0
    assert "score 1.9, no higher than normal ones (2)" in moved.why


def test_a_fault_does_not_bring_back_what_was_called_wrong() -> None:
    assert move_threshold(3.0, 2.0, [2.8], [2.6]).threshold == 3.0
    # What no threshold can quiet does not stand in the way.
    assert move_threshold(3.0, 2.0, [9.0], [2.6]).threshold < 2.6


def test_a_threshold_of_zero_or_less_has_no_multiples_and_stays() -> None:
    assert move_threshold(-1.0, -2.0, [0.5], [0.2]).threshold == -1.0


@given(
    fitted=st.floats(0.01, 100.0),
    calm=SCORES,
    normal=st.lists(SCORES, max_size=5),
    faults=st.lists(SCORES, max_size=5),
)
def test_a_threshold_never_leaves_its_bounds(
    fitted: float, calm: float, normal: list[float], faults: list[float]
) -> None:
    moved = move_threshold(fitted, calm, normal, faults).threshold
    assert moved <= MOST_RAISED * fitted
    assert moved >= min(calm, fitted)
    if moved < fitted:
        assert any(moved < fault for fault in faults)
        assert all(score < moved or score > fitted for score in normal)
    if not faults:
        assert moved >= fitted


@pytest.mark.parametrize(
    ("scores", "reached"), [([1.0, 5.0, 4.0, 3.0], 3.0), ([5.0, 4.0], 4.0), ([], 0.0), ([np.nan, 2.0], 2.0)]
)
def test_a_fault_reaches_what_as_many_rows_do_as_raise_an_alert(scores: list[float], reached: float) -> None:
    assert reaches(np.array(scores), 3) == reached


def test_the_highest_score_may_be_that_of_rows_below_a_threshold() -> None:
    scores = np.array([1.0, np.nan, 3.0, 9.0])
    assert (highest(scores), highest(scores, below=5.0), highest(scores[:0])) == (9.0, 3.0, 0.0)
