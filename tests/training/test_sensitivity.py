"""How large a fault must be before a model raises an alert."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from gon_edge.config.schema import AlertsConfig
from gon_edge.events import Row
from gon_edge.model.detector import Detector
from gon_edge.stream.alerts import AlertPolicy
from gon_edge.training.fit import fit_model
from gon_edge.training.sensitivity import (
    FAULT_ROWS,
    GRADED,
    PLAIN,
    STRENGTHS,
    AlertRule,
    Stretches,
    Watch,
    compared,
    silent,
    smallest_told,
)
from gon_edge.training.settings import FitSettings

SMALL = FitSettings(window=10, hidden=4, prototypes=2)
NAMES = ("a", "b", "c")


def waves(rows: int, *, seed: int = 0) -> np.ndarray:
    """Two waves and their sum, in units a thousand apart."""
    rng = np.random.default_rng(seed)
    t = np.arange(rows) + 100.0 * seed
    x, y = np.sin(t / 5.0), np.sin(t / 7.0)
    table = np.stack([x, y, x + y], axis=1) + 0.05 * rng.normal(size=(rows, 3))
    return (table * [1.0, 1000.0, 1.0]).astype(np.float32)


def start(rows: int) -> np.ndarray:
    return np.arange(rows) == 0


@pytest.fixture(scope="module")
def model():
    return fit_model(waves(800), features=NAMES, settings=SMALL, rng=np.random.default_rng(0))


def alerts_by_the_daemon(model, stretch: np.ndarray, rule: AlertRule) -> int:
    """Rows of the fault until the daemon's own detector and policy raise an alert, from 1; 0 for never."""
    detector = Detector(model)
    policy = AlertPolicy("pump", AlertsConfig(raise_rows=rule.raise_rows, raise_of=rule.raise_of))
    fresh = np.zeros(stretch.shape[1], np.bool_)
    for t, values in enumerate(stretch):
        events = policy.update(detector.score(Row("pump", float(t), NAMES, values, fresh, restart=t == 0)))
        if any(event.kind == "anomaly" and event.type == "new" for event in events):
            return t - (len(stretch) - FAULT_ROWS) + 1
    return 0


@pytest.mark.parametrize("rule", [AlertRule(), AlertRule(5, 8), AlertRule(1, 1)])
@pytest.mark.parametrize("kind", [*GRADED, *PLAIN])
def test_a_fault_is_told_when_the_daemon_row_by_row_would_raise_its_alert(model, kind, rule):
    stretches = Stretches.of(waves(400, seed=3), start(400), NAMES, SMALL.window)
    watch = Watch(model, stretches, rule)
    columns, sizes = np.array([0, 1, 2]), np.array([0.5, 3.0, 8.0]) * stretches.spread
    copies = stretches.faulty(kind, columns, sizes)
    for e in range(len(stretches.rows)):
        alone = np.arange(len(stretches.rows)) == e
        expected = [alerts_by_the_daemon(model, copy[e], rule) for copy in copies]
        assert watch.rows_until(kind, columns, alone, sizes).tolist() == expected


def test_the_smallest_size_is_the_first_on_the_grid_that_is_told(model):
    stretches = Stretches.of(waves(400, seed=3), start(400), NAMES, SMALL.window)
    watch = Watch(model, stretches, AlertRule())
    columns = np.arange(3)
    for kind in GRADED:
        tried = [watch.rows_until(kind, columns, watch.calm, s * stretches.spread) for s in STRENGTHS]
        naive = [next((i for i, rows in enumerate(tried) if rows[f]), len(STRENGTHS)) for f in columns]
        assert watch.smallest(kind, columns, watch.calm)[:, 0].tolist() == naive


def test_sizes_are_in_the_units_of_the_feature_and_faults_that_break_a_relation_are_told(model):
    rows = waves(400, seed=3)
    found = smallest_told(model, rows, start(400), NAMES, AlertRule())
    assert list(found) == [*GRADED, *PLAIN]
    up = found["offset up"]
    for f, name in enumerate(NAMES):
        strength, size, until = up[name]
        assert size == pytest.approx(strength * rows[:, f].std(), rel=1e-3)
        assert 1 <= until <= FAULT_ROWS
    assert up["b"][1] > 100.0 > up["a"][1]
    assert found["decoupled"]["c"] is not None
    assert found["decoupled"]["c"][:2] == (None, None)


def test_a_higher_threshold_needs_larger_faults_and_one_out_of_reach_is_never_told(model):
    rows = waves(400, seed=3)
    dull = dataclasses.replace(model, threshold=2.0 * model.threshold)
    sizes = [smallest_told(m, rows, start(400), NAMES, AlertRule())["offset up"]["a"][0] for m in (model, dull)]
    assert sizes[1] > sizes[0]
    mute = dataclasses.replace(model, threshold=1e9)
    found = smallest_told(mute, rows, start(400), NAMES, AlertRule())
    assert {told for kind in found.values() for told in kind.values()} == {None}
    assert silent(mute, rows, start(400), NAMES, AlertRule())
    assert not silent(dull, rows, start(400), NAMES, AlertRule())


def test_two_models_are_compared_on_rows_that_neither_calls_abnormal(model):
    rows = waves(400, seed=3)
    same = compared(model, model, rows, start(400), NAMES, AlertRule())
    assert same.ratio == 1.0
    assert same.size == same.size_before
    dull = dataclasses.replace(model, threshold=1e9)
    coarser = compared(dull, model, rows, start(400), NAMES, AlertRule())
    assert coarser.ratio > 4.0
    assert coarser.size is None
    assert coarser.size_before is not None
    alarmed = dataclasses.replace(model, threshold=-1.0)
    assert compared(model, alarmed, rows, start(400), NAMES, AlertRule()) is None


def test_nothing_is_said_where_nothing_can_be_known(model):
    rule = AlertRule()
    rows = waves(400, seed=3)
    alarmed = dataclasses.replace(model, threshold=-1.0)
    assert smallest_told(alarmed, rows, start(400), NAMES, rule) == {}
    assert smallest_told(model, rows, np.arange(400) % 20 == 0, NAMES, rule) == {}
    assert smallest_told(model, np.full((400, 3), 3.0, np.float32), start(400), NAMES, rule) == {}
    assert smallest_told(model, rows, start(400), ("x", "y", "z"), rule) == {}


def test_of_many_features_the_most_restless_are_looked_at_and_missing_ones_are_borne():
    rng = np.random.default_rng(0)
    names = tuple(f"f{i}" for i in range(20))
    rows = rng.normal(size=(400, 20)).astype(np.float32)
    rows[:, :4] = np.round(rows[:, :4])  # repeat their values
    rows[50:60, 7] = np.nan
    wide = fit_model(rows, features=names, settings=SMALL, rng=rng)
    found = smallest_told(wide, rows, start(400), names, AlertRule())
    assert set(found["spike"]) == set(names[4:])
    fewer = smallest_told(wide, rows[:, 4:12], start(400), names[4:12], AlertRule())
    assert set(fewer["spike"]) == set(names[4:12])


def test_a_counter_is_judged_by_its_rate_and_gets_no_fault():
    def metered(rows: int, seed: int) -> np.ndarray:
        table = waves(rows, seed=seed)
        table[:, 2] = np.cumsum(np.random.default_rng(seed).uniform(0.5, 1.5, rows))
        return table

    model = fit_model(metered(800, 0), features=NAMES, settings=SMALL, rng=np.random.default_rng(0))
    assert model.rising == ("c",)
    later = metered(400, 3) + np.float32([0.0, 0.0, 5000.0])
    told = smallest_told(model, later, start(400), NAMES, AlertRule())
    assert set(told["offset up"]) == {"a", "b"}
    assert told["offset up"]["a"] is not None
