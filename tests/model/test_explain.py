"""Looking at a window and climbing from it, against plain loops in float64 and the slow climb of plain steps."""

from __future__ import annotations

import gc
import tracemalloc
from dataclasses import replace

import numpy as np
import oracle
import pytest

from gon_edge.model import explain
from gon_edge.model.explain import Explainer, explainer, forget, share, share_at_sight
from gon_edge.model.gon import Discriminator

# (W, F): a single value, a single row, one sensor, the sizes of the daemon.
SHAPES = [(1, 1), (1, 4), (7, 1), (6, 3), (15, 8), (40, 38)]
shapes = pytest.mark.parametrize("shape", SHAPES, ids=str)


def a_case(shape, seed=0, size=1.0):
    rng = np.random.default_rng(seed)
    net = oracle.a_discriminator(rng, window=shape[0], features=shape[1])
    return net, (size * rng.normal(size=shape)).astype(np.float32)


def assert_close(actual, expected, tolerance=2e-4):
    """Within ``tolerance`` of the largest expected magnitude: float32 sums of W * F terms against float64."""
    largest = max(np.abs(expected).max(), 1e-6)
    np.testing.assert_allclose(actual, expected, rtol=tolerance, atol=tolerance * largest)


def slow(net, window, typical, steps):
    """Where plain steps lead, one after the other in the space of the window."""
    return oracle.generate(net, window[None], steps, net.bias - typical)[0]


@shapes
def test_a_look_sees_the_abnormality_and_the_slope_of_a_plain_loop(shape):
    net, window = a_case(shape)
    look = Explainer(net).look(window)
    assert look.abnormality == pytest.approx(net.bias - oracle.logit(net, window), rel=1e-4, abs=1e-5)
    assert_close(look.slope, oracle.input_gradient(net, window[None])[0])
    assert_close(look.to_mean, -(window * oracle.input_gradient(net, window[None])[0]).sum(axis=0))


def test_scales_may_have_units_and_prototypes_in_other_numbers():
    net, window = a_case((6, 3), seed=1)
    first = net.scales[0]
    fewer = replace(first, prototypes=first.prototypes[:1])
    net = Discriminator([fewer, *net.scales[1:]], 3, net.bias)
    assert {len(scale.gain) for scale in net.scales} == {3, 5}
    look = Explainer(net).look(window)
    assert look.abnormality == pytest.approx(net.bias - oracle.logit(net, window), rel=1e-4)
    assert_close(Explainer(net).climb(look, -np.inf, steps=1), slow(net, window, -np.inf, 1), tolerance=1e-3)


@shapes
@pytest.mark.parametrize("steps", [1, 2])
def test_a_climb_begins_with_the_plain_steps(shape, steps):
    net, window = a_case(shape, seed=2, size=2.0)
    explains = Explainer(net)
    look = explains.look(window)
    expected = slow(net, window, -np.inf, steps)
    assert_close(explains.climb(look, -np.inf, steps=steps), expected, tolerance=1e-3)
    if steps == 1:
        assert_close(look.first, expected, tolerance=1e-3)


def a_long_climb(shape, seed):
    """A network of one mode that varies much, as real ones do: plain steps are a twentieth of the way and less."""
    net, window = a_case(shape, seed=seed, size=4.0)
    scales = [replace(scale, gain=0.2 * scale.gain, prototypes=scale.prototypes[:1]) for scale in net.scales]
    return Discriminator(scales, shape[1], net.bias), window


@pytest.mark.parametrize("shape", SHAPES[3:], ids=str)
def test_a_climb_ends_near_the_slow_climb_in_half_the_steps(shape, monkeypatch):
    plain, taken, apart = 20, [], []
    step = Explainer._step
    monkeypatch.setattr(Explainer, "_step", lambda self, *where: taken.append(1) or step(self, *where))
    for seed in range(4):
        net, window = a_long_climb(shape, seed)
        explains = Explainer(net)
        expected = slow(net, window, -np.inf, plain)
        typical = net.bias - oracle.logit_of(net, expected)  # so the slow climb stops there
        found = explains.climb(explains.look(window), typical)
        apart.append(np.linalg.norm(found - expected) / np.linalg.norm(expected - window))
    looked = len(apart)  # each look is a step that is known before the climb
    assert len(taken) - looked <= 0.5 * plain * len(apart)
    assert max(apart) < 0.2


@pytest.mark.parametrize("shape", SHAPES[3:], ids=str)
def test_a_climb_leads_higher_than_as_many_plain_steps(shape):
    for seed in range(3):
        net, window = a_long_climb(shape, seed)
        explains = Explainer(net)
        heights = [oracle.logit_of(net, explains.climb(explains.look(window), -np.inf, steps=n)) for n in (4, 8, 12)]
        plain = [oracle.logit_of(net, slow(net, window, -np.inf, n)) for n in (4, 8, 12)]
        assert (np.array(heights) > plain).all()


def test_a_window_that_is_typical_stays_as_it_is_and_only_the_mean_has_a_say():
    net, window = a_case((6, 3), seed=4)
    explains = Explainer(net)
    look = explains.look(window)
    normal = explains.climb(look, look.abnormality)
    np.testing.assert_array_equal(normal, window)
    gain = np.maximum(look.to_mean, 0.0)
    assert_close(share(look, normal), gain / gain.sum())
    assert 0.0 < look.excess(look.abnormality) < 1e-6


@shapes
def test_shares_are_what_moving_a_feature_alone_would_gain(shape):
    net, window = a_case(shape, seed=5, size=3.0)
    explains = Explainer(net)
    look = explains.look(window)
    normal = explains.climb(look, 0.5 * look.abnormality)
    slope = oracle.input_gradient(net, window[None])[0]
    gains = [np.maximum((move * slope).sum(axis=0), 0.0) for move in (normal - window, -window)]
    halves = [gain / gain.sum() for gain in gains if gain.sum() > 0.0]
    assert_close(share(look, normal), sum(halves) / len(halves), tolerance=1e-3)
    assert share(look, normal).sum() == pytest.approx(1.0, abs=1e-5)
    first = ((look.first - window) * slope).sum(axis=0)  # no feature loses by it
    assert_close(share_at_sight(look), 0.75 * gains[1] / gains[1].sum() + 0.25 * first / first.sum(), tolerance=1e-3)


def test_explaining_writes_into_no_window():
    net, window = a_case((6, 3), seed=6, size=3.0)
    before = window.copy()
    explains = Explainer(net)
    look = explains.look(window)
    normal = explains.climb(look, -np.inf)
    share(look, normal)
    share_at_sight(look)
    np.testing.assert_array_equal(window, before)
    assert not np.shares_memory(normal, window)


def test_a_window_far_out_has_finite_causes():
    net, window = a_case((40, 38), seed=7, size=1e6)
    explains = Explainer(net)
    look = explains.look(window)
    normal = explains.climb(look, 0.0)
    assert np.isfinite(look.abnormality)
    assert np.isfinite(normal).all()
    assert share(look, normal).sum() == pytest.approx(1.0, abs=1e-5)


def test_an_explainer_is_kept_until_it_is_given_back():
    net, _ = a_case((6, 3))
    assert explainer(net) is explainer(net)
    first = explainer(net)
    forget(net)
    assert explainer(net) is not first
    forget(net)
    forget(net)  # of what is not kept there is nothing to give back


def test_no_more_explainers_are_kept_than_so_many_for_any_number_of_networks():
    nets = [a_case((40, 38), seed=seed)[0] for seed in range(explain._MOST_KEPT + 8)]
    explainer(nets[0])  # what numpy takes for good is there before it is measured
    forget(nets[0])
    gc.collect()
    tracemalloc.start()
    try:
        for net in nets:
            explainer(net)
        kept, _ = tracemalloc.get_traced_memory()
        assert len(explain._kept) == explain._MOST_KEPT
        assert explainer(nets[-1]) is explain._kept[nets[-1]]
        assert kept < explain._MOST_KEPT * 48 * 1024
        del nets, net
        gc.collect()  # streams that are gone
        assert tracemalloc.get_traced_memory()[0] < 0.1 * kept
        assert not explain._kept
    finally:
        tracemalloc.stop()
