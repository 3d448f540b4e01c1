"""Thresholds from one training to the next: carried over, and moved by evidence.

A threshold rests on the highest few of the rows that calibrate, so the next training may put it half as high or twice,
for no reason on the machine.  Scores of two models are on two scales, so that their thresholds cannot be compared; but
both know the older rows, and how high a threshold lies above a model's own scores there can.  Most jumps of the number
are jumps of the scale: in two weeks of a made house it went from 4.9 to 8.5 and back to 5.7, and of 26 trainings of
that house and a bakery one moved by more than the factor (6.6, and 4.7 as carried over; no false alert either way).

Rows that neither has learned decide: the lower of the two thresholds, the model's own and the carried one, is used
where no alert is raised on them with it, and else the higher one.  Pure.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from gon_edge.model.file import Model
from gon_edge.model.gon import Float
from gon_edge.training.gate import scored
from gon_edge.training.sensitivity import AlertRule

MOST = 1.25
"""Times as high, or as low, as the one before a threshold may lie without evidence.  A judgement: a quarter of the size
of a score is less than a fault of twice the size changes."""

_HIGH = 0.99
"""The height of a threshold is counted in distances from the median to this quantile of the scores.  Not critical: high
enough to tell how far calm scores reach, low enough to rest on more than a few rows."""


@dataclass(frozen=True, slots=True)
class Part:
    """Consecutive rows of a stream.

    Attributes
    ----------
    values : ndarray of float32, shape (T, F)
        Engineering units, oldest first.
    restart : ndarray of bool, shape (T,)
    features : sequence of str
        Names of the F columns.
    """

    values: Float
    restart: NDArray[np.bool_]
    features: Sequence[str]


def carried(model: Model, champion: Model, known: Part) -> float:
    """The threshold of a model, moved so that its height is within ``MOST`` of the champion's.

    Its own where a height cannot be told: no window is whole, or scores do not differ.
    """
    (low, high), (low_before, high_before) = (_spread(m, known) for m in (model, champion))
    if not (high > low and high_before > low_before and champion.threshold > low_before):
        return model.threshold
    before = (champion.threshold - low_before) / (high_before - low_before)
    own = (model.threshold - low) / (high - low)
    return float(low + min(max(own, before / MOST), before * MOST) * (high - low))


class Carry:
    """Whether a round carries the threshold over: its twin decides, and the model that is put in use follows.

    Parameters
    ----------
    champion : Model
    known : Part
        Rows that the champion and the twin have learned.
    held_out : Part
        Rows that neither has learned.
    rule : AlertRule

    Attributes
    ----------
    why : str
        What was done with the newest model's own threshold, for a person; empty where it is used.
    """

    def __init__(self, champion: Model, known: Part, held_out: Part, rule: AlertRule) -> None:
        self.why = ""
        self._champion, self._known, self._held_out, self._rule = champion, known, held_out, rule
        self._carries: bool | None = None

    def __call__(self, model: Model) -> Model:
        """The model with its own or the carried threshold; the first model that comes is the twin."""
        moved = carried(model, self._champion, self._known)
        if self._carries is None:
            is_quiet = self._is_quiet(model, min(moved, model.threshold))
            self._carries = is_quiet == (moved < model.threshold)
        if not self._carries or moved == model.threshold:
            self.why = ""
            return model
        self.why = f"carried over from the model before; by itself it would be {model.threshold:.4g}"
        return replace(model, threshold=moved)

    def _is_quiet(self, model: Model, threshold: float) -> bool:
        """Whether no alert is raised on the held-out rows; windows that are not whole do not count."""
        rows = self._held_out
        scores, whole = scored(model, rows.values, rows.restart, rows.features)
        return not self._rule.raised((scores > threshold) & whole).any()


def _spread(model: Model, known: Part) -> tuple[float, float]:
    if not len(known.values):
        return 0.0, 0.0
    scores, whole = scored(model, known.values, known.restart, known.features)
    if not whole.any():
        return 0.0, 0.0
    low, high = np.quantile(scores[whole], (0.5, _HIGH))
    return float(low), float(high)
