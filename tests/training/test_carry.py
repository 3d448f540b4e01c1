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


def test_on_rows_that_stay_calm_the_lower_threshold_is_used(model, champion):
    known, held_out, rule = part(800, seed=0), part(300, seed=3), AlertRule()
    high = at_height(model, 4.0, known)
    carry = Carry(champion, known, held_out, rule)
    assert carry(high).threshold == carried(high, champion, known) < high.threshold
    assert carry.why == f"carried over from the model before; by itself it would be {high.threshold:.4g}"
    low = at_height(model, 0.3, known)
    assert Carry(champion, known, held_out, rule)(low).threshold == carried(low, champion, known)  # alerts at its own


def test_rows_on_which_the_lower_threshold_would_raise_alerts_keep_the_higher_one(model, champion):
    known, calm, rule = part(800, seed=0), part(300, seed=3), AlertRule()
    values = calm.values.copy()
    values[100:140] += 3.0
    rough = dataclasses.replace(calm, values=values)
    high = at_height(model, 4.0, known)
    carry = Carry(champion, known, rough, rule)
    assert carry(high).threshold == high.threshold > carried(high, champion, known)
    assert carry.why == ""


def test_the_model_that_is_put_in_use_does_as_its_twin_did(model, champion):
    known, held_out, rule = part(800, seed=0), part(300, seed=3), AlertRule()
    other = fitted(2)
    carries = Carry(champion, known, held_out, rule)
    carries(at_height(model, 4.0, known))
    assert carries(at_height(other, 4.0, known)).threshold == carried(at_height(other, 4.0, known), champion, known)
    values = held_out.values.copy()
    values[100:140] += 3.0
    keeps = Carry(champion, known, dataclasses.replace(held_out, values=values), rule)
    keeps(at_height(model, 4.0, known))
    assert keeps(at_height(other, 4.0, known)).threshold == at_height(other, 4.0, known).threshold


def test_without_rows_that_both_know_a_model_keeps_its_own(model, champion):
    nothing = Part(np.zeros((0, 2), np.float32), np.zeros(0, np.bool_), NAMES)
    short = part(5, seed=0)
    assert [carried(model, champion, known) for known in (nothing, short)] == [model.threshold] * 2
