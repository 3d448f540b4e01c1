"""How far a threshold may move from one training to the next."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from gon_edge.training.carry import MOST, Carry, Part, carried
from gon_edge.training.fit import fit_model
from gon_edge.training.gate import scored
from gon_edge.training.sensitivity import AlertRule
from gon_edge.training.settings import FitSettings

SMALL = FitSettings(window=10, hidden=4, prototypes=2)
NAMES = ("a", "b")


def part(rows: int, *, seed: int) -> Part:
    rng = np.random.default_rng(seed)
    t = np.arange(rows)[:, None] + 100.0 * seed
    values = (np.sin(t / (5.0 + np.arange(2))) + 0.1 * rng.normal(size=(rows, 2))).astype(np.float32)
    return Part(values, np.arange(rows) == 0, NAMES)


def fitted(seed: int):
    return fit_model(part(800, seed=0).values, features=NAMES, settings=SMALL, rng=np.random.default_rng(seed))


@pytest.fixture(scope="module")
def champion():
    return fitted(0)


@pytest.fixture(scope="module")
def model():
    return fitted(1)


def height(model, rows: Part) -> float:
    """How high the threshold lies above the model's own scores, in distances from the median to the 99 % quantile."""
    scores, whole = scored(model, rows.values, rows.restart, rows.features)
    low, high = np.quantile(scores[whole], (0.5, 0.99))
    return (model.threshold - low) / (high - low)


def at_height(model, times: float, rows: Part):
    scores, whole = scored(model, rows.values, rows.restart, rows.features)
    low = float(np.median(scores[whole]))
    return dataclasses.replace(model, threshold=low + times * (model.threshold - low))


@pytest.mark.parametrize(("times", "moved"), [(0.3, 1.0 / MOST), (3.0, MOST)])
def test_a_threshold_is_carried_to_within_a_factor_of_the_height_of_the_one_before(model, champion, times, moved):
    known = part(800, seed=0)
    even = dataclasses.replace(model, threshold=carried(at_height(model, times, known), champion, known))
    assert height(even, known) == pytest.approx(moved * height(champion, known))


def test_a_threshold_that_hardly_moved_is_left_alone(model, champion):
    known = part(800, seed=0)
    wanted = height(champion, known) / height(model, known)
    near = at_height(model, 1.1 * wanted, known)
    assert carried(near, champion, known) == pytest.approx(near.threshold)


RISK = 1e-4  # of 300 rows: no alert


def test_on_rows_that_stay_calm_a_threshold_that_jumped_up_is_carried_over_and_one_that_fell_is_not(model, champion):
    known, held_out = part(800, seed=0), part(300, seed=3)
    high = at_height(model, 20.0, known)
    carry = Carry(champion, known, held_out, AlertRule(), RISK)
    assert carry(high).threshold == carried(high, champion, known) < high.threshold
    assert carry.why == f"carried over from the model before; by itself it would be {high.threshold:.4g}"
    raised = dataclasses.replace(champion, threshold=9.0 * champion.threshold)
    carry = Carry(raised, known, held_out, AlertRule(), RISK)
    own = at_height(model, 3.0, known)
    assert (carry(own).threshold, carry.why, carry.unseen) == (own.threshold, "", 1.0)


def rough(height: float) -> Part:
    calm = part(300, seed=3)
    values = calm.values.copy()
    values[100:140] += height
    return dataclasses.replace(calm, values=values)


def test_rows_that_neither_has_learned_raise_a_threshold_until_they_raise_no_alert(model, champion):
    known, rule, held_out = part(800, seed=0), AlertRule(), rough(0.3)
    carry = Carry(champion, known, held_out, rule, RISK)
    quiet = carry(model)
    scores, whole = scored(quiet, held_out.values, held_out.restart, NAMES)
    assert rule.raised((scores > model.threshold) & whole).any()
    assert not rule.raised((scores > quiet.threshold) & whole).any()
    assert carry.unseen == pytest.approx(quiet.threshold / model.threshold)
    assert carry.why == f"raised for rows that were not learned; by itself it would be {model.threshold:.4g}"


def test_rows_that_are_nothing_like_the_others_raise_it_by_a_half_at_most(model, champion):
    carry = Carry(champion, part(800, seed=0), rough(30.0), AlertRule(), RISK)
    assert carry(model).threshold == pytest.approx(1.5 * model.threshold)


def test_what_the_rounds_of_the_last_week_needed_is_kept(model, champion):
    calm = Carry(champion, part(800, seed=0), part(300, seed=3), AlertRule(), RISK, before=1.3)
    assert calm(model).threshold == pytest.approx(1.3 * model.threshold)
    assert calm.unseen == 1.0


def test_the_model_that_is_put_in_use_does_as_its_twin_did(model, champion):
    known, other = part(800, seed=0), fitted(2)
    for held_out in (part(300, seed=3), rough(0.3)):
        carry = Carry(champion, known, held_out, AlertRule(), RISK)
        twin, used = carry(model), carry(other)
        assert used.threshold / other.threshold == pytest.approx(twin.threshold / model.threshold)
    carry = Carry(champion, known, part(300, seed=3), AlertRule(), RISK)
    carry(at_height(model, 20.0, known))
    high = at_height(other, 20.0, known)
    assert carry(high).threshold == carried(high, champion, known)


def test_without_rows_that_both_know_a_model_keeps_its_own(model, champion):
    nothing = Part(np.zeros((0, 2), np.float32), np.zeros(0, np.bool_), NAMES)
    short = part(5, seed=0)
    assert [carried(model, champion, known) for known in (nothing, short)] == [model.threshold] * 2
