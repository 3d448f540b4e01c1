"""Looking at a window and climbing from it, against plain loops in float64 and the slow climb of plain steps."""

from __future__ import annotations

import gc
import tracemalloc
from dataclasses import replace

import numpy as np
import oracle
import pytest

from gon_edge.model import explain
from gon_edge.model.explain import Explainer, explainer, forget
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


def normal(explains, look, typical, **options):
    """Where a climb from the last window leads."""
    return look.windows[-1] - explains.climb(look, typical, **options)


@shapes
def test_a_look_sees_the_abnormality_and_the_slope_of_a_plain_loop(shape):
    net, window = a_case(shape)
    look = Explainer(net).look(window)
    assert look.abnormality == [pytest.approx(net.bias - oracle.logit(net, window), rel=1e-4, abs=1e-5)]
    assert_close(-look.stiffness[:, :, None] * look.away, oracle.input_gradient(net, window[None]))


@shapes
def test_a_look_at_two_windows_is_a_look_at_each(shape):
    net, before = a_case(shape, seed=1)
    last = np.flip(before).copy()
    explains = Explainer(net)
    both, each = explains.look(np.concatenate([before, last])), [explains.look(before), explains.look(last)]
    assert both.abnormality == pytest.approx([look.abnormality[0] for look in each], rel=1e-4, abs=1e-5)
    for found in ("windows", "away", "stiffness"):
        assert_close(getattr(both, found), np.concatenate([getattr(look, found) for look in each]))
    assert_close(explains.climb(both, -np.inf), explains.climb(each[1], -np.inf), tolerance=1e-3)


def test_scales_may_have_units_and_prototypes_in_other_numbers():
    net, window = a_case((6, 3), seed=1)
    first = net.scales[0]
    fewer = replace(first, prototypes=first.prototypes[:1])
    net = Discriminator([fewer, *net.scales[1:]], 3, net.bias)
    assert {len(scale.gain) for scale in net.scales} == {3, 5}
    explains = Explainer(net)
    look = explains.look(np.concatenate([window, window]))
    assert look.abnormality == 2 * [pytest.approx(net.bias - oracle.logit(net, window), rel=1e-4)]
    assert_close(normal(explains, look, -np.inf, looks=1), slow(net, window, -np.inf, 1), tolerance=1e-3)


@shapes
@pytest.mark.parametrize("steps", [1, 2, 5])
def test_a_climb_that_looks_after_each_step_is_one_of_plain_steps(shape, steps, monkeypatch):
    monkeypatch.setattr(explain, "_STEPS_A_LOOK", 1)
    net, window = a_case(shape, seed=2, size=2.0)
    explains = Explainer(net)
    look = explains.look(window)
    expected = slow(net, window, -np.inf, steps)
    assert_close(normal(explains, look, -np.inf, looks=steps), expected, tolerance=1e-3)
    if steps == 1:
        assert_close(look.windows[0] - look.away[0], expected, tolerance=1e-3)


def a_long_climb(shape, seed):
    """A network of one mode that varies much, as real ones do: plain steps are a twentieth of the way and less."""
    net, window = a_case(shape, seed=seed, size=4.0)
    scales = [replace(scale, gain=0.2 * scale.gain, prototypes=scale.prototypes[:1]) for scale in net.scales]
    return Discriminator(scales, shape[1], net.bias), window


@pytest.mark.parametrize("shape", SHAPES[3:], ids=str)
def test_a_climb_ends_near_the_slow_climb_and_looks_a_third_as_often(shape, monkeypatch):
    plain, taken, apart = 20, [], []
    judge = Explainer._judge
    monkeypatch.setattr(Explainer, "_judge", lambda self, *where: taken.append(1) or judge(self, *where))
    for seed in range(4):
        net, window = a_long_climb(shape, seed)
        explains = Explainer(net)
        expected = slow(net, window, -np.inf, plain)
        typical = net.bias - oracle.logit_of(net, expected)  # so the slow climb stops there
        found = normal(explains, explains.look(window), typical)
        apart.append(np.linalg.norm(found - expected) / np.linalg.norm(expected - window))
    looked = len(apart)  # before the climb: the slow one looks there, too
    assert 3 * (len(taken) - looked) <= plain * len(apart)
    assert max(apart) < 0.1


@pytest.mark.parametrize("shape", SHAPES[3:], ids=str)
def test_each_look_of_a_climb_finds_the_window_more_normal(shape):
    for seed in range(3):
        net, window = a_long_climb(shape, seed)
        explains = Explainer(net)
        look = explains.look(window)
        heights = [oracle.logit_of(net, normal(explains, look, -np.inf, looks=n)) for n in range(1, 8)]
        plain = [oracle.logit_of(net, slow(net, window, -np.inf, n)) for n in range(1, 8)]
        assert (np.diff([oracle.logit(net, window), *heights]) > 0.0).all()
        assert (np.array(heights)[1:] > plain[1:]).all()


@pytest.mark.parametrize("shape", SHAPES[3:], ids=str)
def test_a_climb_goes_no_further_than_it_takes(shape):
    # Typical is a little less than where the second look leads: from there a climb goes back, but not to the first.
    net, window = a_long_climb(shape, seed=0)
    explains = Explainer(net)
    look = explains.look(window)
    first, second = (oracle.logit_of(net, normal(explains, look, -np.inf, looks=n)) for n in (1, 2))
    for part in (0.3, 0.9):
        reached = oracle.logit_of(net, normal(explains, look, net.bias - (first + part * (second - first))))
        assert first < reached < second


def test_from_a_window_that_is_typical_nothing_is_away_and_only_the_mean_has_a_say():
    net, window = a_case((6, 3), seed=4)
    explains = Explainer(net)
    look = explains.look(window)
    away, parts = explains.explain(window, look.abnormality[0])
    assert not away.any()
    gain = np.maximum(-(window * oracle.input_gradient(net, window[None])[0]).sum(axis=0), 0.0)
    assert_close(parts / parts.sum(), gain / gain.sum())
    assert 0.0 < parts.sum() < 1e-6


def gains(net, window, move):
    """Part of each feature in what moving features alone would gain, to first order."""
    gain = np.maximum((move * oracle.input_gradient(net, window[None])[0]).sum(axis=0), 0.0)
    return gain / gain.sum()


@shapes
def test_parts_are_what_moving_a_feature_alone_would_gain(shape):
    net, window = a_case(shape, seed=5, size=3.0)
    explains = Explainer(net)
    abnormality = net.bias - oracle.logit(net, window)
    away, parts = explains.explain(window, 0.5 * abnormality)
    expected = [gains(net, window, move) for move in (-away[0], -window)]
    assert_close(parts / parts.sum(), sum(expected) / 2.0, tolerance=1e-3)
    assert parts.sum() == pytest.approx(0.5 * abnormality, rel=1e-3)


@shapes
def test_the_window_before_has_a_say_at_sight_by_how_abnormal_it_is(shape):
    net, last = a_case(shape, seed=5, size=3.0)
    before = np.float32(0.8) * np.flip(last)
    explains = Explainer(net)
    typical = 0.5 * (net.bias - oracle.logit(net, before))
    away, parts = explains.explain(np.concatenate([before, last]), typical)
    assert_close(before - away[0], slow(net, before, -np.inf, 1), tolerance=1e-3)
    alone_away, alone = explains.explain(last, typical)
    assert_close(away[1], alone_away[0], tolerance=1e-3)
    expected = 0.75 * gains(net, before, -before) + 0.25 * gains(net, before, -away[0])
    assert_close(parts - alone, typical * expected, tolerance=2e-3)


def test_a_window_that_no_move_helps_has_no_causes():
    net, window = a_case((7, 3))
    net = net.with_parameters({key: np.zeros_like(value) for key, value in net.parameters().items()})
    parts = Explainer(net).explain(np.zeros_like(window), -100.0)[1]
    np.testing.assert_array_equal(parts, 0.0)


def test_explaining_writes_into_no_window():
    net, window = a_case((6, 3), seed=6, size=3.0)
    rows = np.concatenate([window, window])
    before = rows.copy()
    away, _ = Explainer(net).explain(rows, 0.0)
    np.testing.assert_array_equal(rows, before)
    assert not np.shares_memory(away, rows)


def test_a_window_far_out_has_finite_causes():
    net, window = a_case((40, 38), seed=7, size=1e6)
    away, parts = Explainer(net).explain(window, 0.0)
    assert np.isfinite(away).all()
    assert np.isfinite(parts).all()
    assert parts.sum() > 0.0


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
