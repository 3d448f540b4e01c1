"""Scores over rows, and values over gaps: what training and judging do alike, so that both see the same numbers.

This module does not know what a score is (``gon``), or where it becomes an alarm (``training.threshold``).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from gon_edge.model.gon import Float

_SLOW_LESS = 0.5
"""By how much the slow average of scores counts less than the quick one.  With 0, a machine that drifts was in alarm
half of the time instead of a fifth (mean F1 0.457, against 0.480); average precision gained 0.008."""


class Smoother:
    """Scores over rows: the larger of a quick exponential average and a slow one, which counts a little less.

    The quick one sees a fault at once.  The slow one, whose memory is a window, holds on while a fault comes and goes.
    It counts ``_SLOW_LESS`` less, so that rows which are a little odd for long raise no alarm by it.

    Parameters
    ----------
    weight : float
        Of the newest row in the quick average, 0 < weight <= 1.
    window : int
        W, rows.
    """

    __slots__ = ("_quick", "_slow", "_slow_weight", "_weight")

    def __init__(self, weight: float, window: int) -> None:
        self._weight, self._slow_weight = weight, min(weight, 1.0 / window)
        self._quick = self._slow = 0.0

    def add(self, score: float, *, restart: bool) -> float:
        """Take the score of one more row; return the smoothed one.  A restart forgets the rows before."""
        if restart:
            self._quick = self._slow = score
        else:
            self._quick += self._weight * (score - self._quick)
            self._slow += self._slow_weight * (score - self._slow)
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
