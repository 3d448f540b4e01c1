"""Peaks over threshold: the score that normal rows exceed with a given, small probability.

Siffer et al., "Anomaly Detection in Streams with Extreme Value Theory", KDD 2017: the excesses over a high quantile
follow a generalised Pareto distribution, whatever the scores' own.  Only scores of training rows that the model had not
seen go in; nothing here is moved by what is being judged, so a fault can't raise its own threshold.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

_LEVEL = 0.9
"""Quantile above which a score is a peak.  The paper takes 0.98 of long records; a warm-up of 600 rows has 12 peaks
there, too few for a shape.  On the development sets 0.9 gave the best mean F1 at the threshold."""

_FEWEST_PEAKS = 10
"""With fewer, a shape cannot be estimated and the tail is taken as exponential; its width is believed as if there were
this many, or a record of two minutes would give a threshold that nothing passes."""

_SHAPE = (-0.5, 0.0)
"""Shapes believed.  Scores are logarithms of energies, and the logarithm of any power-law tail is exponential (shape
0): a heavier tail than that is a few odd rows among the training rows.  Below -1/2 the likelihood has no regular
maximum."""


def fit_pot(scores: ArrayLike, risk: float, *, doubted: float = 0.0) -> float:
    """The threshold z with P(score > z) = ``risk`` for normal rows.

    Parameters
    ----------
    scores : array-like, shape (N,)
        Scores of normal rows, not used to fit the model.
    risk : float
        Probability for one row, 0 < risk < 1.
    doubted : float
        Share of the scores that may not be of normal rows, less than a tenth.  The highest ones then count as high, but
        not by how much, and the tail is taken as exponential: the maximum likelihood of a censored sample.

    Returns
    -------
    float
        At least the ``_LEVEL`` quantile.  With one score, that score.
    """
    calm = np.asarray(scores, np.float64)
    calm = calm[np.isfinite(calm)]
    if not calm.size:
        return 0.0
    level = float(np.quantile(calm, _LEVEL))
    excess = calm[calm > level] - level
    if not excess.size:  # all scores alike: nothing is known of a tail, and any higher score is news
        return float(np.nextafter(level, np.inf))
    doubtful = round(doubted * calm.size)
    shape, width = fit_pareto(excess) if doubted == 0.0 else (0.0, _censored_width(excess, doubtful))
    exceedance = risk * calm.size / excess.size
    if exceedance >= 1.0:
        return level
    if abs(shape) < 1e-6:
        # The width is a mean of k peaks.  With its uncertainty (prior 1 / width), an excess is above z with probability
        # (1 + z / (k width))^-k and not exp(-z / width): for a risk of 1e-5, z is two fifths larger after 600 rows and
        # a fiftieth after a day.
        peaks = max(_FEWEST_PEAKS, excess.size - doubtful)
        return level + width * peaks * float(exceedance ** (-1.0 / peaks) - 1.0)
    return float(level + width / shape * (exceedance**-shape - 1.0))


def fit_pareto(excess: NDArray[np.float64]) -> tuple[float, float]:
    """Shape and width of the generalised Pareto distribution of positive excesses (N,), by maximum likelihood.

    Grimshaw's reduction to one variable x (Technometrics 1993): shape = mean log(1 + x Y), width = shape / x.  The
    profile likelihood is read off a grid instead of solving for its roots: it cannot miss one.
    """
    mean = float(excess.mean())
    if excess.size < _FEWEST_PEAKS or float(np.ptp(excess)) == 0.0:
        return 0.0, mean
    largest = float(excess.max())
    # x > -1/max keeps every log finite; far right of it the shape leaves the range that is believed.  How fine the grid
    # is does not matter: the most likely shape and width are flat maxima.
    grid = np.concatenate(
        [-(1.0 - np.geomspace(1e-3, 1.0, 60, endpoint=False)) / largest, np.geomspace(1e-4, 20.0, 80) / mean]
    )
    shape = np.log1p(grid[:, None] * excess).mean(axis=1)
    inside = (shape >= _SHAPE[0]) & (shape <= _SHAPE[1]) & (np.abs(shape) > 1e-9)
    if not inside.any():
        return 0.0, mean
    grid, shape = grid[inside], shape[inside]
    width = shape / grid
    likelihood = -excess.size * (np.log(width) + 1.0 + shape)  # sum of log densities at (shape, width)
    exponential = -excess.size * (np.log(mean) + 1.0)
    best = int(likelihood.argmax())
    if likelihood[best] <= exponential:
        return 0.0, mean
    return float(shape[best]), float(width[best])


def _censored_width(excess: NDArray[np.float64], doubted: int) -> float:
    """Mean of the exponential distribution of excesses (N,), whose ``doubted`` largest are only known as such."""
    ordered = np.sort(excess)
    seen = ordered[: max(1, ordered.size - doubted)]
    return float((seen.sum() + (ordered.size - seen.size) * seen[-1]) / seen.size)
