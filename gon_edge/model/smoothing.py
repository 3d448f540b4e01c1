"""Scores over rows, and values over gaps: what training and judging do alike, so that both see the same numbers.

This module does not know what a score is (``gon``), or where it becomes an alarm (``training.threshold``).
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from gon_edge.model.gon import Float

_SLOW_LESS = 0.3
"""By how much the slow average of scores counts less than the quick one, so that rows which are a little odd for long
raise no alarm.  Not critical: 0 to 0.5 gave a mean average precision of 0.719 to 0.716, and F1 within 0.004."""

_SLOW_WINDOWS = 2
"""Memory of the slow average, in windows.  1, 2, 3, 5 and 10 gave mean average precisions of 0.714, 0.717, 0.717, 0.714
and 0.710 (docs/detection.md)."""

_CALM_ROWS = 5
"""Rows for which the quick average has been calm after which the slow one forgets the fault.  Not critical: 5 to 20
rows gave the same average precision, and F1 of 0.497 to 0.494, against 0.492 without (docs/detection.md)."""


class Smoother:
    """Scores over rows: the larger of a quick exponential average and a slow one, which counts a little less.

    The quick one sees a fault at once.  The slow one, whose memory is ``_SLOW_WINDOWS``, holds on while a fault comes
    and goes.  Where it alone would call a row abnormal, and the quick one has been calm for ``_CALM_ROWS``, the fault
    is over, and it falls.

    Parameters
    ----------
    weight : float
        Of the newest row in the quick average, 0 < weight <= 1.
    window : int
        W, rows.
    threshold : float, optional
        Scores up to it are calm.  Without one nothing is known to be, and the slow average falls by itself.
    """

    __slots__ = ("_calm_rows", "_quick", "_slow", "_slow_weight", "_threshold", "_weight")

    def __init__(self, weight: float, window: int, threshold: float = -math.inf) -> None:
        self._weight, self._slow_weight = weight, min(weight, 1.0 / (_SLOW_WINDOWS * window))
        self._threshold = threshold
        self._quick = self._slow = 0.0
        self._calm_rows = 0

    def add(self, score: float, *, restart: bool) -> float:
        """Take the score of one more row; return the smoothed one.  A restart forgets the rows before."""
        if restart:
            self._quick = self._slow = score
            self._calm_rows = 0
        else:
            self._quick += self._weight * (score - self._quick)
            self._slow += self._slow_weight * (score - self._slow)
        self._calm_rows = self._calm_rows + 1 if self._quick <= self._threshold else 0
        if self._calm_rows >= _CALM_ROWS and self._slow - _SLOW_LESS > self._threshold:
            self._slow = self._quick
        return max(self._quick, self._slow - _SLOW_LESS)

    def smooth(self, scores: NDArray[np.float64], restart: NDArray[np.bool_]) -> NDArray[np.float64]:
        """Smooth scores (T,) that begin anew at the first row and at every restart; shape (T,)."""
        add = self.add
        pairs = zip(scores.tolist(), restart.tolist(), strict=True)
        return np.array([add(score, restart=not t or new) for t, (score, new) in enumerate(pairs)])


def fill(z: Float) -> Float:
    """Replace each NaN in rows (T, F) by the value before it, or 0 (the mean) where there is none; ``z`` itself."""
    for column in z.T:  # a column at a time: an index of every value would take twice the memory of the values
        gaps = np.isnan(column)
        if gaps.any():
            column[:] = column[np.maximum.accumulate(np.where(gaps, 0, np.arange(len(z))))]
            column[np.isnan(column)] = 0.0
    return z
