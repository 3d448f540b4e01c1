"""The network against plain loops, torch's autograd and central differences, all in float64."""

from __future__ import annotations

import tracemalloc

import numpy as np
import oracle
import pytest

from gon_edge.model.quantize import orthonormal_rows

# (N, W, F): a single row of a single sensor, a long window of one sensor, one row of many, the sizes of the daemon.
SHAPES = [(1, 1, 1), (3, 1, 4), (4, 7, 1), (5, 6, 3), (2, 15, 8), (2, 40, 38)]
shapes = pytest.mark.parametrize("shape", SHAPES, ids=str)


def a_case(shape, seed=0):
    rng = np.random.default_rng(seed)
    net = oracle.a_discriminator(rng, window=shape[1], features=shape[2])
    return net, rng.normal(size=shape).astype(np.float32), rng


def assert_close(actual, expected, tolerance=2e-4):
    """Within ``tolerance`` of the largest expected magnitude: float32 sums of W * F terms against float64."""
    largest = max(np.abs(expected).max(), 1e-6)
    np.testing.assert_allclose(actual, expected, rtol=tolerance, atol=tolerance * largest)


@shapes
def test_the_logit_is_that_of_a_plain_loop(shape):
    net, x, _ = a_case(shape)
    assert_close(net.forward(x), [oracle.logit(net, window) for window in x])


@shapes
def test_the_logit_is_torchs(shape):
    net, x, _ = a_case(shape, seed=1)
    with oracle.torch.no_grad():
        expected = oracle.torch_logit(net, oracle.torch.tensor(x, dtype=oracle.torch.float64)).numpy()
    assert_close(net.forward(x), expected)


@shapes
def test_one_window_has_the_energies_it_has_in_a_batch(shape):
    net, x, _ = a_case(shape, seed=2)
    for window, expected in zip(x, net.energies(x), strict=True):
        assert_close(net.energies_one(window), expected, tolerance=1e-5)


@shapes
def test_a_scale_counts_as_typical_until_its_rows_are_there(shape):
    net, x, _ = a_case(shape, seed=20)
    energies = net.energies(x)
    for age in (1, 2, shape[1] - 1, shape[1], 100):
        expected = [oracle.abnormality_after_restart(net, e, age, 1.7) for e in energies]
        assert_close(net.abnormality_after_restart(energies, np.full(len(x), age), 1.7), expected)
    whole = np.full(len(x), shape[1])
    beside = 0.0 if net.prediction is None else 0.5 * np.log1p(energies[:, -1] / net.prediction.tau)
    assert_close(net.abnormality_after_restart(energies, whole, 1.7), net.abnormality(energies) + beside)


@shapes
def test_one_window_is_as_abnormal_as_in_a_batch_to_the_last_bit(shape):
    # Thresholds come from batches, the scores held against them from single windows.
    net, _, rng = a_case(shape, seed=21)
    energies = rng.gamma(1.0, 5.0, (200, len(net.terms))).astype(np.float32)
    age = rng.integers(1, 2 * shape[1] + 1, 200)
    one = [net.abnormality_one(e.tolist(), int(n), 1.7) for e, n in zip(energies, age, strict=True)]
    np.testing.assert_array_equal(net.abnormality_after_restart(energies, age, 1.7), one)


@shapes
def test_the_input_gradient_is_autograds(shape):
    net, x, _ = a_case(shape, seed=3)
    gradient = net.input_gradient(x)
    assert gradient.shape == x.shape
    assert_close(gradient, oracle.input_gradient(net, x))


@shapes
def test_the_input_gradient_is_the_slope_of_a_plain_loop(shape):
    net, x, rng = a_case(shape, seed=4)
    gradient = net.input_gradient(x)
    for _ in range(5):
        direction = rng.normal(size=shape[1:])
        slopes = [oracle.slope(lambda at: oracle.logit_of(net, at), w.astype(np.float64), direction) for w in x]
        assert_close((gradient * direction).sum(axis=(1, 2)), slopes, tolerance=1e-3)


@shapes
def test_the_weight_gradient_is_autograds(shape):
    net, x, rng = a_case(shape, seed=5)
    d_logit = rng.normal(size=shape[0])
    gradient = net.weight_gradient(x, d_logit)
    expected = oracle.weight_gradient(net, x, d_logit)
    assert gradient.keys() == expected.keys() == net.parameters().keys()
    for key, value in expected.items():
        assert gradient[key].shape == value.shape
        assert_close(gradient[key], value)


@shapes
def test_the_weight_gradient_is_the_slope_of_a_plain_loop(shape):
    net, x, rng = a_case(shape, seed=6)
    d_logit = rng.normal(size=shape[0])
    gradient = net.weight_gradient(x, d_logit)
    for key, value in net.parameters().items():
        direction = rng.normal(size=value.shape)

        def objective(at, key=key):
            moved = net.with_parameters({**net.parameters(), key: at})
            return sum(d * oracle.logit_of(moved, window) for d, window in zip(d_logit, x, strict=True))

        # 1e-3: with_parameters rounds to float32, which a smaller step would not survive.
        expected = oracle.slope(objective, value, direction, step=1e-3)
        assert_close((gradient[key] * direction).sum(), expected, tolerance=5e-3)


@shapes
@pytest.mark.parametrize("steps", [1, 12])
def test_generation_is_gradient_ascent_in_the_space_of_the_window(shape, steps):
    net, x, _ = a_case(shape, seed=7)
    x = 2.0 * x
    assert_close(net.generate(x, steps=steps), oracle.generate(net, x, steps), tolerance=1e-3)


@shapes
@pytest.mark.parametrize("size", [0.3, 3.0, 20.0])
def test_no_step_of_a_climb_makes_a_window_less_normal(shape, size):
    net, x, _ = a_case(shape, seed=8)
    levels = [[oracle.logit_of(net, window) for window in net.generate(size * x, steps=steps)] for steps in range(12)]
    assert (np.diff(levels, axis=0) >= -1e-4).all()


def test_a_climb_from_noise_ends_near_a_prototype():
    net, x, _ = a_case((6, 6, 3), seed=9)
    before, after = net.energies(5.0 * x), net.energies(net.generate(5.0 * x, steps=300))
    assert (after.mean(axis=0) < 0.1 * before.mean(axis=0)).all()


def test_a_climb_keeps_nothing():
    # It was 64 KiB for each stream that ever raised an alert: the daemon grew for as long as another one did.
    net, x, _ = a_case((2, 40, 38))
    net.generate(x, steps=2)
    tracemalloc.start()
    try:
        net.generate(x, steps=2)
        fresh, _, _ = a_case((2, 40, 38))
        before, _ = tracemalloc.get_traced_memory()
        fresh.generate(x, steps=2)
        assert tracemalloc.get_traced_memory()[0] - before < 4096
    finally:
        tracemalloc.stop()


def test_generation_does_not_write_into_its_input():
    net, x, _ = a_case((5, 6, 3), seed=12)
    before = x.copy()
    net.generate(x, steps=5)
    np.testing.assert_array_equal(x, before)


def test_a_window_climbs_alike_alone_and_in_a_batch():
    net, x, _ = a_case((5, 6, 3), seed=13)
    alone = np.concatenate([net.generate(window[None], steps=20) for window in x])
    assert_close(net.generate(x, steps=20), alone, tolerance=1e-4)


@pytest.mark.parametrize("features", [1, 4, 38])
def test_imputing_moves_masked_features_only(features):
    net, x, rng = a_case((1, 6, features), seed=14)
    row = x[0, -1]
    for _ in range(5):
        masked = rng.random(features) < 0.4
        filled = net.impute(row, masked)
        np.testing.assert_array_equal(filled[~masked], row[~masked])
        assert np.isfinite(filled).all()


def test_imputing_looks_at_the_other_features_and_never_at_the_masked_value():
    net, x, _ = a_case((1, 6, 4), seed=15)
    masked = np.array([False, True, False, False])
    row, other = x[0, -1].copy(), x[0, -1].copy()
    other[1] = np.nan
    np.testing.assert_array_equal(net.impute(row, masked), net.impute(other, masked))


def test_an_imputed_row_is_more_normal_than_one_filled_with_the_mean():
    net, x, _ = a_case((40, 1, 6), seed=16)
    masked = np.array([True, False, False, True, False, False])
    at_mean = np.where(masked, 0.0, x[:, -1]).astype(np.float32)
    imputed = np.stack([net.impute(row, masked) for row in x[:, -1]])
    first = net.energies(imputed[:, None])[:, 0]
    assert (first <= net.energies(at_mean[:, None])[:, 0] + 1e-5).all()


def test_int8_rows_are_orthonormal_again():
    weight = np.random.default_rng(17).normal(size=(16, 200))
    rows = orthonormal_rows(weight)
    np.testing.assert_allclose(rows @ rows.T, np.eye(16), atol=1e-6)
    # the same space, and the same sense: each row leans towards the one it came from
    np.testing.assert_allclose((weight @ rows.T) @ rows, weight, atol=1e-4)
    assert (np.einsum("hn,hn->h", rows, weight) > 0.0).all()


def test_a_far_window_has_finite_gradients_and_a_finite_climb():
    net, x, _ = a_case((3, 40, 38), seed=18)
    far = 1e6 * x
    assert np.isfinite(net.forward(far)).all()
    assert np.isfinite(net.input_gradient(far)).all()
    assert np.isfinite(net.generate(far, steps=50)).all()


def test_copies_with_other_levels_leave_the_network_alone():
    net, x, _ = a_case((3, 6, 3), seed=19)
    before = net.forward(x)
    net.with_levels(np.full(len(net.terms), 9.0))
    other = net.with_parameters({key: value + 1.0 for key, value in net.parameters().items()})
    assert not np.array_equal(other.forward(x), before)
    np.testing.assert_array_equal(net.forward(x), before)
