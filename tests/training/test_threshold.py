"""Peaks over threshold where the answer is known, against brute force, and on scores that leave nothing to fit."""

from __future__ import annotations

import math

import numpy as np
import oracle
import pytest
from scipy.stats import genpareto

from gon_edge.training.threshold import alert_level, fit_pareto, fit_pot


@pytest.mark.parametrize("risk", [1e-2, 1e-3, 1e-4])
@pytest.mark.parametrize("seed", range(3))
def test_an_exponential_tail_gives_minus_the_logarithm_of_the_risk(seed, risk):
    scores = np.random.default_rng(seed).exponential(size=20_000)
    assert fit_pot(scores, risk) == pytest.approx(-math.log(risk), rel=0.1)


@pytest.mark.parametrize("seed", range(3))
def test_a_bounded_tail_gives_a_threshold_inside_its_bound(seed):
    # shape -0.3: the quantiles end at width / 0.3
    scores = genpareto.rvs(-0.3, scale=1.0, size=20_000, random_state=seed)
    assert fit_pot(scores, 1e-4) == pytest.approx(genpareto.ppf(1.0 - 1e-4, -0.3), rel=0.1)


@pytest.mark.parametrize(("scale", "shift"), [(1e-6, 0.0), (1e6, 0.0), (2.0, -40.0)])
def test_the_threshold_moves_with_the_scores(scale, shift):
    scores = np.random.default_rng(1).gamma(3.0, size=2000)
    assert fit_pot(scale * scores + shift, 1e-4) == pytest.approx(scale * fit_pot(scores, 1e-4) + shift, rel=1e-9)


def test_a_smaller_risk_gives_a_higher_threshold():
    scores = np.random.default_rng(2).gamma(3.0, size=600)
    thresholds = [fit_pot(scores, risk) for risk in (0.5, 0.1, 1e-2, 1e-3, 1e-5, 1e-9)]
    assert thresholds == sorted(thresholds)
    assert thresholds[0] == np.quantile(scores, 0.9)  # never below the level the tail begins at
    assert thresholds[2] < thresholds[-1]


@pytest.mark.parametrize("shape", [-0.4, -0.2, -0.05])
def test_shape_and_width_are_those_of_brute_force(shape):
    excess = genpareto.rvs(shape, scale=2.0, size=400, random_state=3)
    expected_shape, expected_width = oracle.pareto(excess, np.linspace(-0.5, 0.0, 26))
    found_shape, found_width = fit_pareto(excess)
    assert found_shape == pytest.approx(expected_shape, abs=0.03)
    assert found_width == pytest.approx(expected_width, rel=0.04)


def test_a_heavier_tail_than_exponential_is_taken_as_exponential():
    excess = genpareto.rvs(0.5, size=1000, random_state=4)
    assert fit_pareto(excess) == (0.0, excess.mean())


@pytest.mark.parametrize("count", range(1, 10))
def test_with_few_peaks_the_tail_is_taken_as_exponential(count):
    excess = np.arange(1.0, count + 1.0)
    assert fit_pareto(excess) == (0.0, excess.mean())


def test_with_equal_peaks_the_tail_is_taken_as_exponential():
    assert fit_pareto(np.full(50, 2.0)) == (0.0, 2.0)


@pytest.mark.parametrize("count", [1, 2, 5, 600])
def test_equal_scores_give_a_threshold_just_above_them(count):
    threshold = fit_pot(np.full(count, 3.0), 1e-4)
    assert 3.0 < threshold < 3.0 + 1e-9


def test_no_score_at_all_gives_zero():
    assert fit_pot([], 1e-4) == 0.0
    assert fit_pot([np.nan, np.inf], 1e-4) == 0.0


def test_scores_that_are_no_number_are_left_out():
    scores = np.random.default_rng(5).exponential(size=500)
    assert fit_pot([*scores, np.nan, np.inf, -np.inf], 1e-3) == fit_pot(scores, 1e-3)


def test_the_order_of_the_scores_does_not_matter():
    scores = np.random.default_rng(6).exponential(size=500)
    assert fit_pot(scores[::-1], 1e-3) == pytest.approx(fit_pot(scores, 1e-3), rel=1e-12)


@pytest.mark.parametrize("count", [2, 3, 11, 40, 200])
def test_a_short_record_gives_a_finite_threshold_above_nine_tenths_of_it(count):
    scores = np.random.default_rng(count).normal(size=count)
    threshold = fit_pot(scores, 1e-4)
    assert math.isfinite(threshold)
    assert (scores <= threshold).mean() >= 0.9


def test_how_high_the_doubted_scores_are_does_not_move_the_threshold():
    scores = np.random.default_rng(8).exponential(size=3000)
    thresholds = []
    for size in (10.0, 1e6):
        scores[:60] = size * np.linspace(1.0, 2.0, 60)
        thresholds.append(fit_pot(scores, 1e-4, doubted=0.03))
        assert fit_pot(scores, 1e-4) > 1.5 * thresholds[-1]
    assert thresholds[0] == thresholds[1]
    assert thresholds[0] < 1.5 * -math.log(1e-4)


def test_short_records_keep_the_risk_on_the_mean():
    # With the width taken for true, records of 200 scores let twice as many pass as asked for.
    rng = np.random.default_rng(10)
    passed = [math.exp(-fit_pot(rng.exponential(size=200), 1e-4, doubted=0.03)) for _ in range(4000)]
    assert np.mean(passed) == pytest.approx(1e-4, rel=0.3)


@pytest.mark.parametrize("doubted", [0.01, 0.03, 0.08])
def test_a_censored_exponential_tail_gives_minus_the_logarithm_of_the_risk(doubted):
    scores = np.random.default_rng(9).exponential(size=20_000)
    assert fit_pot(scores, 1e-4, doubted=doubted) == pytest.approx(-math.log(1e-4), rel=0.1)


@pytest.mark.parametrize("count", [1, 2, 5, 11, 40])
def test_a_short_record_of_doubted_scores_gives_a_finite_threshold(count):
    threshold = fit_pot(np.random.default_rng(count).normal(size=count), 1e-4, doubted=0.03)
    assert math.isfinite(threshold)


@pytest.mark.parametrize("allowed", [0, 1, 3])
def test_the_alert_level_is_the_lowest_at_which_rows_raise_no_more_alerts_than_allowed(allowed: int) -> None:
    scores = np.random.default_rng(allowed).gumbel(size=600)

    def alerts(level: float) -> int:
        """A row at a time: three of five above; another one after more than fifteen rows without."""
        count, last = 0, -100
        for t in range(4, len(scores)):
            if sum(scores[t - 4 : t + 1] > level) >= 3:
                count += t - last > 15
                last = t
        return count

    level = alert_level(scores, allowed=allowed)
    assert alerts(level) <= allowed < alerts(np.nextafter(level, -np.inf))
