"""Decision: what a score is held against, and when the machine is in another state."""

from __future__ import annotations

import json

import numpy as np
import pytest

from gon_edge.model.decision import Decided, Decision


def take(
    decision: Decision, scores: np.ndarray | list[float], *, left: bool = False, away: bool = False
) -> list[Decided]:
    return [decision.take(float(s), left=left and t == 0, away=away) for t, s in enumerate(scores)]


def test_a_calm_machine_is_held_against_the_model_s_threshold() -> None:
    assert set(take(Decision(3.0), [1.0] * 3000)) == {Decided(3.0, changed=False)}


def test_a_fault_of_half_a_thousand_rows_stays_anomalous_to_its_last_row() -> None:
    decision = Decision(3.0)
    take(decision, [1.0] * 1000)
    assert {d.threshold for d in take(decision, [6.0] * 500)} == {3.0}


def test_a_thousand_rows_above_the_threshold_are_another_state_in_which_a_second_fault_is_seen() -> None:
    decision = Decision(3.0)
    take(decision, [1.0] * 1000)
    last = take(decision, [6.0] * 1001)[-1]
    assert last == Decided(6.0, changed=True)
    assert all(d.threshold < 9.0 for d in take(decision, [9.0] * 20))


def test_the_threshold_falls_back_when_the_machine_is_back_for_two_hundred_rows() -> None:
    decision = Decision(3.0)
    take(decision, [6.0] * 1001)
    decided = take(decision, [1.0] * 300)
    assert decided[100].changed
    assert decided[-1] == Decided(3.0, changed=False)


def test_rows_after_readings_moved_are_a_probation_in_which_nothing_is_anomalous() -> None:
    decision = Decision(3.0)
    scores = np.random.default_rng(0).uniform(1.0, 5.0, 100)
    decided = take(decision, scores, left=True, away=True)
    assert all(d.changed for d in decided)
    assert all(score <= d.threshold for score, d in zip(scores, decided, strict=True))
    assert decision.take(1.0, left=False, away=True).threshold == pytest.approx(scores.max() + 2.0)


def test_a_new_place_in_which_scores_are_calm_keeps_the_model_s_threshold_and_a_margin() -> None:
    decision = Decision(3.0)
    take(decision, [2.0] * 100, left=True, away=True)
    assert decision.take(2.0, left=False, away=True) == Decided(3.5, changed=True)


def test_the_state_ends_with_the_row_at_which_every_reading_is_home() -> None:
    decision = Decision(3.0)
    take(decision, [5.0] * 150, left=True, away=True)
    assert decision.take(2.0, left=False, away=False) == Decided(3.0, changed=False)


def test_a_state_outlives_a_restart_of_the_program_and_is_plain_json() -> None:
    decision, again = Decision(3.0), Decision(3.0)
    take(decision, [6.0] * 1001)
    again.resume(json.loads(json.dumps(decision.state())))
    assert again.take(5.0, left=False, away=False) == Decided(6.0, changed=True)
