"""Thresholds from one training to the next: carried over, and moved by evidence.

A threshold rests on the highest few of the rows that calibrate, so the next training may put it half as high or twice,
for no reason on the machine.  Scores of two models are on two scales, so that their thresholds cannot be compared; but
both know the older rows, and how high a threshold lies above a model's own scores there can.  Most jumps of the number
are jumps of the scale: in two weeks of a made house it went from 4.9 to 8.5 and back to 5.7, and of 26 trainings of
that house and a bakery one moved by more than the factor (6.6, and 4.7 as carried over; no false alert either way).

Rows that neither has learned decide.  A threshold that jumped up is carried over where they raise no alert with that,
too.  And a model scores rows that it has learned lower than others, so that its own threshold is too low by some
factor: the one that those rows need, the largest of a week, as one quiet day is no week without an alert.  Pure.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from gon_edge.model.file import Model
from gon_edge.model.gon import Float
from gon_edge.training.evidence import MOST_RAISED
from gon_edge.training.gate import scored
from gon_edge.training.sensitivity import AlertRule
from gon_edge.training.threshold import alert_level

MOST = 1.25
"""Times as high, or as low, as the one before a threshold may lie without evidence.  A judgement: a quarter of the size
of a score is less than a fault of twice the size changes."""

_ABOVE = 1.0 + 1e-9
"""Times what rows reach: rounding must not leave a threshold below it."""

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
    """The threshold of a round's models: its twin shows what the newest rows need, and the model in use does as it did.

    Parameters
    ----------
    champion : Model
    known : Part
        Rows that the champion and the twin have learned.
    held_out : Part
        Normal rows that neither has learned.
    rule : AlertRule
    risk : float
        False alerts allowed for one normal row.
    before : float
        What `unseen` was at most in the rounds of the last week.

    Attributes
    ----------
    unseen : float
        Times as high as by itself the twin's threshold must be for the held-out rows; 1 to ``MOST_RAISED``.
    why : str
        What was done with the newest model's own threshold, for a person; empty where it is used.
    """

    def __init__(
        self, champion: Model, known: Part, held_out: Part, rule: AlertRule, risk: float, before: float = 1.0
    ) -> None:
        self.why = ""
        self.unseen = 1.0
        self._champion, self._known, self._held_out, self._rule, self._risk = champion, known, held_out, rule, risk
        self._before = before
        self._carries: bool | None = None

    def __call__(self, model: Model) -> Model:
        """The model with the threshold that it shall have; the first model that comes is the twin."""
        own, self.why = model.threshold, ""
        moved = min(own, carried(model, self._champion, self._known))
        if self._carries is None:
            quiet_at = self._quiet_at(model)
            self._carries = quiet_at <= moved
            if own > 0.0:
                self.unseen = min(MOST_RAISED, max(1.0, _ABOVE * quiet_at / own))
        factor = max(self.unseen, self._before) if own > 0.0 else 1.0
        threshold = factor * (moved if self._carries else own)
        if threshold > own:
            self.why = f"raised for rows that were not learned; by itself it would be {own:.4g}"
        elif threshold < own:
            self.why = f"carried over from the model before; by itself it would be {own:.4g}"
        return replace(model, threshold=threshold)

    def _quiet_at(self, model: Model) -> float:
        """The lowest threshold at which the held-out rows raise no more alerts than allowed; of whole windows only."""
        rows = self._held_out
        scores, whole = scored(model, rows.values, rows.restart, rows.features)
        calm = scores[whole]
        return alert_level(calm, allowed=int(self._risk * len(calm)), rule=self._rule) if len(calm) else -math.inf


def _spread(model: Model, known: Part) -> tuple[float, float]:
    if not len(known.values):
        return 0.0, 0.0
    scores, whole = scored(model, known.values, known.restart, known.features)
    if not whole.any():
        return 0.0, 0.0
    low, high = np.quantile(scores[whole], (0.5, _HIGH))
    return float(low), float(high)
