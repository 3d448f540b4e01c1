"""What a model makes itself, and the recorded windows it is held against."""

from __future__ import annotations

import numpy as np
import oracle
import pytest

from gon_edge.errors import InputError
from gon_edge.model import sample
from gon_edge.training.fit import fit_model
from gon_edge.training.settings import FitSettings

FEATURES = ("celsius", "level")


def a_stream(rows=600):
    """Two modes, 20 and 60 degrees, and a level that is always twice the temperature."""
    rng = np.random.default_rng(1)
    celsius = np.where(np.arange(rows) // 150 % 2, 60.0, 20.0) + rng.normal(0, 0.5, rows)
    return np.column_stack([celsius, 2.0 * celsius + rng.normal(0, 0.5, rows)])


@pytest.fixture(scope="module")
def model():
    return fit_model(a_stream(), features=FEATURES, settings=FitSettings(window=15), rng=np.random.default_rng(0))


def test_generated_windows_look_as_normal_as_a_typical_one_and_are_not_all_alike(model):
    made = sample.generated_windows(model, 8, np.random.default_rng(0))
    net = model.discriminator
    abnormality = net.abnormality(net.energies(model.scaler.transform(made)))
    np.testing.assert_allclose(abnormality, model.typical, rtol=0.02)
    assert made[:, :, 0].mean(axis=1).std() > 5.0


def test_generated_windows_know_how_features_go_together(model):
    made = sample.generated_windows(model, 16, np.random.default_rng(0)).mean(axis=1)
    np.testing.assert_allclose(made[:, 1], 2.0 * made[:, 0], rtol=0.1)


def test_the_same_seed_gives_the_same_windows(model):
    first, second, other = (sample.generated_windows(model, 3, np.random.default_rng(seed)) for seed in (4, 4, 5))
    np.testing.assert_array_equal(first, second)
    assert not np.array_equal(first, other)


def test_real_windows_are_recorded_ones_and_none_reaches_across_a_restart(model):
    rows = a_stream(100)
    restart = np.zeros(100, np.bool_)
    restart[50] = True
    taken = sample.real_windows(model, rows, FEATURES, restart, 200, np.random.default_rng(0))
    recorded = oracle.windows(np.float32(rows), 15)
    whole = np.r_[14:50, 64:100]
    np.testing.assert_allclose(taken, recorded[whole], rtol=1e-4)


def test_real_windows_follow_the_models_order_of_features(model):
    rows = a_stream(40)
    swapped = sample.real_windows(
        model, rows[:, ::-1], FEATURES[::-1], np.zeros(40, np.bool_), 1, np.random.default_rng(0)
    )
    straight = sample.real_windows(model, rows, FEATURES, np.zeros(40, np.bool_), 1, np.random.default_rng(0))
    np.testing.assert_array_equal(swapped, straight)


@pytest.mark.parametrize(("rows", "features", "says"), [(10, FEATURES, "wait"), (40, ("celsius", "other"), "level")])
def test_too_few_rows_and_missing_features_are_said(model, rows, features, says):
    with pytest.raises(InputError, match=says):
        sample.real_windows(model, a_stream(rows), features, np.zeros(rows, np.bool_), 2, np.random.default_rng(0))
