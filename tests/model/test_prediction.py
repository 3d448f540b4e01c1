"""What a row is expected to be after the one before: against a plain loop, and what it brings to a score."""

from __future__ import annotations

import numpy as np
import oracle
import pytest

from gon_edge.estimator import GONDetector


@pytest.mark.parametrize("shape", [(3, 2, 1), (4, 6, 3), (2, 40, 38)], ids=str)
def test_the_energy_is_that_of_a_plain_loop_in_a_batch_and_alone(shape):
    rng = np.random.default_rng(1)
    net = oracle.a_discriminator(rng, window=shape[1], features=shape[2])
    x = rng.normal(size=shape).astype(np.float32)
    assert net.prediction.rows == 2
    expected = [oracle.energies(net, window)[-1] for window in x]
    np.testing.assert_allclose(net.energies(x)[:, -1], expected, rtol=1e-4)
    np.testing.assert_allclose([net.energies_one(window)[-1] for window in x], expected, rtol=1e-4)


def test_only_the_newest_two_rows_count():
    rng = np.random.default_rng(2)
    net = oracle.a_discriminator(rng, window=6, features=3)
    x = rng.normal(size=(1, 6, 3)).astype(np.float32)
    before = net.energies(x)[0, -1]
    x[:, :-2] += 5.0
    assert net.energies(x)[0, -1] == before
    x[:, -2] += 5.0
    assert net.energies(x)[0, -1] != before


def test_the_logit_knows_no_prediction():
    rng = np.random.default_rng(3)
    net = oracle.a_discriminator(rng, window=6, features=3)
    x = rng.normal(size=(5, 6, 3)).astype(np.float32)
    without = type(net)(net.scales, net.features, net.bias)
    np.testing.assert_array_equal(net.forward(x), without.forward(x))
    assert without.energies(x).shape[1] == net.energies(x).shape[1] - 1


def test_a_step_that_stays_within_the_range_is_seen():
    # A slow wave takes every value between -1 and 1, and never a step from one to the other.
    rng = np.random.default_rng(4)
    slow = np.sin(2.0 * np.pi * np.arange(4000) / 400.0)
    normal = np.column_stack([slow, -slow]) + 0.02 * rng.normal(size=(4000, 2))
    model = GONDetector().fit(normal).model_
    on_the_crest = normal[61:101]
    jumped = np.concatenate([on_the_crest[:-1], normal[300:301]])
    calm, step = model.discriminator.energies(model.scaler.transform(np.stack([on_the_crest, jumped])))[:, -1]
    assert step > 50.0 * calm
