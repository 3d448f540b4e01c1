"""Scores over rows and values over gaps, against loops."""

from __future__ import annotations

import numpy as np
import oracle

from gon_edge.model.smoothing import Smoother, fill


def test_a_missing_value_is_filled_with_the_one_before():
    z = np.random.default_rng(1).normal(size=(60, 4)).astype(np.float32)
    z[np.random.default_rng(2).random(z.shape) < 0.4] = np.nan
    np.testing.assert_array_equal(fill(z), oracle.forward_fill(z))


def test_smoothing_is_the_larger_of_two_averages_begun_anew_at_a_restart():
    rng = np.random.default_rng(3)
    scores, restart = np.cumsum(rng.normal(size=200)), rng.random(200) < 0.03
    for weight, window, threshold in ((0.3, 40, -np.inf), (0.3, 40, 2.0), (1.0, 15, 0.0), (0.3, 2, 1.0)):
        expected = oracle.smooth(scores, restart, weight, window, threshold)
        smoothed = Smoother(weight, window, threshold).smooth(scores, restart)
        np.testing.assert_allclose(smoothed, expected, rtol=1e-12)
    assert Smoother(0.3, 40).smooth(np.array([]), np.array([], np.bool_)).shape == (0,)


def test_a_fault_is_seen_at_once_and_outlasts_its_pauses():
    scores = np.array([1.0] * 100 + [8.0] * 40 + [1.0] * 5)
    smoothed = Smoother(0.3, 40).smooth(scores, np.zeros(145, np.bool_))
    assert smoothed[102] > 5.0
    assert smoothed[-1] > 3.0


def test_a_fault_whose_rows_have_been_calm_for_long_is_over_at_once():
    scores = np.array([1.0] * 100 + [8.0] * 40 + [1.0] * 20)
    calm = np.zeros(160, np.bool_)
    assert (Smoother(0.3, 40).smooth(scores, calm)[140:] > 2.5).all()
    over = Smoother(0.3, 40, 2.5).smooth(scores, calm)
    assert (over[140:147] > 2.5).all()
    assert (over[155:] < 1.2).all()
