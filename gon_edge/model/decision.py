"""From score to decision: the score above which a row is anomalous now, and whether the machine is in another state.

The model's threshold is for the state it was trained in.  Two things say that the machine is in another: readings that
moved to a new place (`levels`), and scores above the threshold for a thousand rows.  Either is told once, as
``changed``.  Meanwhile rows are held against what the new state itself does, so that a second fault in it is an alert
of its own.  The provisional threshold only lives here: no model learns it, and it falls back when the machine does.

Pure arithmetic on scores.  ``detector`` and ``estimator`` both run this, a row at a time.
"""

from __future__ import annotations

from array import array
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

_ROWS = 1000
_SHARE = 0.8
"""A state is another one when so large a share of so many rows was anomalous.  The longest fault within one run of the
development sets has 1,499 rows; after 500 rows F1 was 0.02 lower, as more of them were taken for states."""

_USUAL = 0.99
"""Quantile of those rows' scores that the state is held against.  Not critical: from 0.9 to 1.0 F1 was 0.46 to 0.48."""

_PROBATION_ROWS = 100
"""Rows after readings moved whose scores show what the new state does.  50 and 150 gave the same F1 within 0.005."""

_MARGIN = 2.0
"""Above the largest score of the probation; scores are logarithms, so this is a factor of seven in energy.  With 1 a
machine that had moved was in alarm for more of its normal rows (0.15 instead of 0.14), with 3 fewer faults were found
in it; F1 was the same within 0.005."""

_AWAY_MARGIN = 0.5
"""Above the model's threshold while readings are away: what they do there, no training row has shown.  On the
development sets it took 0.15 off 1.11 false alerts in 1000 rows, at the same F1; 0.25 to 1 gave 1.02 to 0.97."""

_BACK_ROWS = 200
"""Rows below the model's threshold after which a state that only scores told has ended, and one that readings told is
held against the model's threshold again: a probation may have begun in a fault.  Not critical."""

TOLD_ROWS = 50
"""Rows for which a change counts as an alarm: then it has been told."""


class Decided(NamedTuple):
    """What is decided of one row.

    Attributes
    ----------
    threshold : float
        Scores above are anomalous: the model's, or the one of the new state.
    changed : bool
        The machine is in another state than in training.
    """

    threshold: float
    changed: bool


class Decision:
    """Decides on the scores of one stream.

    Parameters
    ----------
    threshold : float
        The model's.

    Examples
    --------
    >>> decision = Decision(3.0)
    >>> decision.take(2.0, left=False, away=False)
    Decided(threshold=3.0, changed=False)
    >>> for _ in range(_ROWS + 1):
    ...     decided = decision.take(5.0, left=False, away=False)
    >>> decided
    Decided(threshold=5.0, changed=True)
    """

    def __init__(self, threshold: float) -> None:
        self._threshold = threshold
        self._provisional = threshold
        self._changed = False
        self._by_levels = False  # readings moved; else only scores say so
        self._probation = 0
        self._largest = -np.inf
        self._rows_below = 0
        self._rows = 0
        self._scores = array("f")  # of the newest rows, while one of them was anomalous; else none is kept
        self._above = bytearray()
        self._count = 0

    def take(self, score: float, *, left: bool, away: bool) -> Decided:
        """Take the score of one more row.

        Parameters
        ----------
        score : float
        left : bool
            Readings have moved to a new place at this row.
        away : bool
            Some reading is not where it was in training.
        """
        self._rows_below = self._rows_below + 1 if score <= self._threshold else 0
        if left:
            self._changed = self._by_levels = True
            self._probation, self._largest = _PROBATION_ROWS, -np.inf
        elif self._by_levels and not away:
            self._end()
        if self._probation:
            return self._try(score)
        threshold = max(self._provisional, self._threshold + _AWAY_MARGIN) if away else self._provisional
        self._remember(score, above=score > threshold)
        if self._changed and self._rows_below >= _BACK_ROWS:
            self._calm_down(away=away)
        elif self._count >= _SHARE * _ROWS and self._rows >= _ROWS:
            self._changed = True
            self._provisional = max(self._threshold, float(np.quantile(self._scores, _USUAL)))
            self._forget()
        return Decided(threshold, self._changed)

    def state(self) -> dict[str, Any]:
        """What outlives a restart of the program, as JSON values."""
        return {"provisional": self._provisional, "changed": self._changed, "by_levels": self._by_levels}

    def resume(self, state: Mapping[str, Any]) -> None:
        """Go on from what :meth:`state` returned."""
        self._changed, self._by_levels = bool(state["changed"]), bool(state["by_levels"])
        self._provisional = max(self._threshold, float(state["provisional"])) if self._changed else self._threshold

    def _try(self, score: float) -> Decided:
        """A row of the probation: nothing is anomalous, the new state shows what it does."""
        self._probation -= 1
        self._largest = max(self._largest, score)
        above = self._largest > self._threshold
        self._provisional = self._largest + _MARGIN if above else self._threshold
        self._forget()
        return Decided(self._provisional, changed=True)

    def _calm_down(self, *, away: bool) -> None:
        """The scores are those of training again: the state has ended, or is judged as finely as training was."""
        if away:
            self._provisional = self._threshold
        else:
            self._end()

    def _end(self) -> None:
        self._changed = self._by_levels = False
        self._probation = 0
        self._provisional = self._threshold

    def _remember(self, score: float, *, above: bool) -> None:
        place = self._rows % _ROWS
        self._rows += 1
        if not self._above:
            if not above:
                return
            # Rows before are taken for 0: of a state, at most a fifth is not anomalous, and those are not its highest.
            self._scores, self._above = array("f", bytes(4 * _ROWS)), bytearray(_ROWS)
        self._count += above - self._above[place]
        self._above[place], self._scores[place] = above, score
        if not self._count:
            self._scores, self._above = array("f"), bytearray()

    def _forget(self) -> None:
        if self._rows:
            self._rows = self._count = 0
            self._scores, self._above = array("f"), bytearray()
