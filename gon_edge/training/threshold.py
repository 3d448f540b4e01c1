"""The score above which a row is abnormal, from scores of normal rows alone.

`fit_threshold` asks two questions.  Above which score would the training rows themselves have raised no more alerts
than allowed?  Nothing higher is supported by them, and so no model is silent.  And which score do normal rows exceed
with a given, small probability?  That is an upper bound: a record may hold a few odd rows.  On the development sets
both together found 0.87 of the faults, and the second alone 0.66 (docs/detection.md).

The second is peaks over threshold.  Siffer et al., "Anomaly Detection in Streams with Extreme Value Theory", KDD 2017:
the excesses over a high quantile follow a generalised Pareto distribution, whatever the scores' own.  Only scores of
training rows that the model had not seen go in; nothing here is moved by what is being judged, so a fault can't raise
its own threshold.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gon_edge.training.sensitivity import DEFAULT_RULE, AlertRule

_LEVEL = 0.9
"""Quantile above which a score is a peak.  The paper takes 0.98 of long records; a warm-up of 600 rows has 12 peaks
there, too few for a shape.  On the development sets 0.9 gave the best mean F1 at the threshold."""

_FEWEST_PEAKS = 10
"""With fewer, a shape cannot be estimated and the tail is taken as exponential; its width is believed as if there were
this many, or a record of two minutes would give a threshold that nothing passes."""

_APART = 15
"""Calm rows after which the daemon, by default, would raise another alert."""

_HELD_OUT_LEVEL = 0.98
"""Quantile of the held-out scores that a threshold is not below: a network with many features knows its training rows
by heart, and their scores say little.  With the 0.99 quantile or more one of nineteen development sets was silent, and
on the others nothing changed; with the 0.9 quantile a fifth more normal rows were in alarm."""

_SHORT, _LONG = 100, 3000
"""Rows.  A record of up to the first has seen nearly nothing of its machine, and its threshold is the upper bound; that
of the second or longer is its own rows' level; between them it goes by the logarithm.  Without it a model of 60 rows
was in alarm for two thirds of a calm record.  With 5,000 instead of 3,000 one more development set was silent."""

_SHAPE = (-0.5, 0.0)
"""Shapes believed.  Scores are logarithms of energies, and the logarithm of any power-law tail is exponential (shape
0): a heavier tail than that is a few odd rows among the training rows.  Below -1/2 the likelihood has no regular
maximum."""


def fit_threshold(
    held_out: NDArray[np.float64], known: NDArray[np.float64], risk: float, *, doubted: float, most_known: float
) -> float:
    """The threshold of a model.

    Parameters
    ----------
    held_out : ndarray, shape (N,)
        Scores of normal rows by a network that had not seen them.
    known : ndarray, shape (T,)
        Scores of all training rows by the model itself, oldest first.
    risk : float
        False alerts allowed for one normal row, 0 < risk < 1.
    doubted : float
        Share of ``held_out`` that may not be of normal rows, see `fit_pot`.
    most_known : float
        Largest share of ``known`` that may lie above the threshold.
    """
    bound = max(fit_pot(held_out, risk, doubted=doubted), float(np.quantile(known, 1.0 - most_known)))
    calm = max(alert_level(known, allowed=int(risk * len(known))), float(np.quantile(held_out, _HELD_OUT_LEVEL)))
    unseen = np.clip(math.log(_LONG / len(known)) / math.log(_LONG / _SHORT), 0.0, 1.0)
    return float(min(bound, calm + unseen * max(0.0, bound - calm)))


def alert_level(scores: NDArray[np.float64], *, allowed: int, rule: AlertRule = DEFAULT_RULE) -> float:
    """The lowest threshold at which scores (T,) of rows, oldest first, raise at most ``allowed`` alerts."""
    rows, of = rule.raise_rows, rule.raise_of
    if len(scores) < of:
        return float(scores.max())
    last = np.lib.stride_tricks.sliding_window_view(scores, of)
    enough = np.partition(last, of - rows, axis=1)[:, of - rows]  # what so many of the last rows reach
    levels = np.unique(enough)
    low, high = 0, len(levels) - 1  # at the highest of them nothing is above
    while low < high:
        middle = (low + high) // 2
        raised = np.flatnonzero(enough > levels[middle])
        alerts = int(raised.size > 0) + int((np.diff(raised) > _APART).sum())
        if alerts <= allowed:
            high = middle
        else:
            low = middle + 1
    return float(levels[low])


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
