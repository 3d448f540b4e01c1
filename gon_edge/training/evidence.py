"""How answers of people move the threshold of a new model: by what its own scores say, and within bounds.

A threshold is moved only where that changes what a person hears.  Pure: scores in, a threshold and the reason out.
Which rows people have named is told in `answers`, their scores come from `child`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

MOST_RAISED = 1.5
"""Times the fitted threshold, at most, whatever was called normal.  A judgement: a score grows with the logarithm of a
deviation, so half as much again already hides deviations several times as large."""

_APART = 1.02  # between a threshold and the score it shall pass.  Not critical: more than rounding


@dataclass(frozen=True, slots=True)
class Moved:
    """A threshold that answers were heeded in.

    Attributes
    ----------
    fitted : float
        As it was fitted.
    threshold : float
        As it is used.
    why : str
        A sentence for a person.
    """

    fitted: float
    threshold: float
    why: str


def move_threshold(fitted: float, calm: float, normal: Sequence[float], faults: Sequence[float]) -> Moved:
    """Move a threshold by what people have said.

    Rows that were called normal raise it to just above their highest score, if that is at most ``MOST_RAISED`` times
    what was fitted.  Rows that were called a fault lower it to just below theirs, if that is above every score of calm
    rows and of rows that were called normal.  What would have to pass a bound moves nothing: the alert would come, or
    stay away, all the same.

    Parameters
    ----------
    fitted : float
    calm : float
        Highest score of the calm rows, of those below ``fitted``.
    normal : sequence of float
        Highest score of each span that was called normal.
    faults : sequence of float
        The score that each span which was called a fault `reaches`.

    Examples
    --------
    >>> move_threshold(3.0, 2.0, [3.5], []).threshold
    3.57
    >>> move_threshold(3.0, 2.0, [9.0], []).threshold, move_threshold(3.0, 2.0, [], [1.5]).threshold
    (3.0, 3.0)
    >>> move_threshold(3.0, 2.0, [], [2.55]).threshold
    2.5
    """
    if fitted <= 0.0:  # such a threshold has no meaningful multiple
        return Moved(fitted, fitted, "")
    quiet = max((score for score in normal if _APART * score <= MOST_RAISED * fitted), default=0.0)
    loud = max(normal, default=0.0)
    raised = max(fitted, _APART * quiet)
    floor = max(calm, quiet)
    heard = [score / _APART for score in faults if score / _APART > floor]
    threshold = min([raised, *heard])
    said = []
    if threshold > fitted:
        said.append(f"raised from {fitted:.3g}, just above rows that were called normal")
    elif threshold < fitted:
        said.append(f"lowered from {fitted:.3g}, just below rows that were called a fault")
    if loud > quiet and loud > threshold:
        said.append(
            f"rows that were called normal still score {loud:.3g}: too high for a threshold; more of them, by accept, "
            "teach the model"
        )
    if len(heard) < len(faults):
        lost = min(faults)
        said.append(f"rows that were called a fault score {lost:.3g}, no higher than normal ones ({floor:.3g})")
    return Moved(fitted, threshold, "; ".join(said))


def reaches(scores: NDArray[np.float64], rows: int) -> float:
    """The score at or above which so many rows of a fault (N,) lie as an alert needs; of fewer rows, their lowest."""
    known = np.sort(scores[np.isfinite(scores)])
    return float(known[-min(rows, known.size)]) if known.size else 0.0


def highest(scores: NDArray[np.float64], below: float = np.inf) -> float:
    """The highest of scores (N,) that are at most ``below``; 0 without any."""
    known = scores[np.isfinite(scores) & (scores <= below)]
    return float(known.max()) if known.size else 0.0
