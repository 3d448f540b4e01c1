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
    for weight, window in ((0.3, 40), (1.0, 15), (0.3, 2)):
        expected = oracle.smooth(scores, restart, weight, window)
        np.testing.assert_allclose(Smoother(weight, window).smooth(scores, restart), expected, rtol=1e-12)
    assert Smoother(0.3, 40).smooth(np.array([]), np.array([], np.bool_)).shape == (0,)


def test_a_fault_is_seen_at_once_and_outlasts_its_pauses():
    scores = np.array([1.0] * 100 + [8.0] * 40 + [1.0] * 5)
    smoothed = Smoother(0.3, 40).smooth(scores, np.zeros(145, np.bool_))
    assert smoothed[102] > 5.0
    assert smoothed[-1] > 4.0
