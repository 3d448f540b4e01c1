"""Where each reading is now, beside where it was in training: a machine that moved is judged from its new place.

A pump after a service runs half a bar higher.  That is told once (`stream.alerts`, kind ``changed``); a model that went
on measuring from the old place would call every later row abnormal and see nothing else.  So a reading that has left
its training range for long is judged by its distance from where it is now, until it comes home.  Nothing holds it where
it went, so its place follows it slowly: a well that was opened goes on drifting.  Readings that stay within their range
are never moved: an inconsistent machine is a fault, however long it lasts.

``detector`` and ``estimator`` both run this, a row at a time.  On the development sets it raised the mean average
precision from 0.711 to 0.728 and the ROC-AUC from 0.870 to 0.888; following raised the mean F1 from 0.453 to 0.492
(docs/detection.md).  This module does not know scores (``decision``) or names.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

MARGIN = 0.1
"""Of its training range, by which a reading must lie outside to have left it.  Not critical: sets that moved did by
several ranges, or stayed inside."""

_FAR = 0.5
"""Of the range, by which it must lie outside to have been elsewhere from the first rows of a recording on.  With 1.0
mean average precision was 0.724 instead of 0.726."""

_CONSTANT_WIDTH = 0.05
"""Range of a reading that never moved in training, in units of its scale, which is its magnitude: a judgement."""

_FIRST_ROWS = 50
"""Rows after a restart at which a reading that was far away in nearly all of them has moved.  A machine that begins
elsewhere was set up anew; a fault begins somewhere in the middle."""

_EVERY = 10
_SAMPLES = 100
"""Every so many rows one is kept, and so many make up the past: 1,000 rows.  With 700 rows, faults of 519 rows were
taken for a new place (mean average precision 0.716 instead of 0.724)."""

_NEARLY_ALL = 0.8
"""Share of them that must lie outside.  Not critical: those that moved stayed away."""

_MEMORY_ROWS = 500
"""Rows in which the place of a reading that is away follows it.  A row moves it by its training range at most over as
many rows, so that a fault far out is not followed.  Not critical: 200 to 700 rows, and half of the range, gave F1 of
0.512 to 0.515 (seed 0, 0.477 without)."""

_HOME_ROWS = 40
"""Rows in its training range after which a reading is home.  10 rows gave the same figures."""


class Moved(NamedTuple):
    """What a row did to the levels.

    Attributes
    ----------
    left : ndarray of bool, shape (F,), or None
        Features that are judged from a new place from this row on.
    begins : bool
        Some level has changed: what came before is on another level, so that windows begin anew at this row.
    """

    left: NDArray[np.bool_] | None
    begins: bool


_STAYED = Moved(None, False)


class Levels:
    """Follows the level of each feature of one stream.

    Parameters
    ----------
    lowest, highest : ndarray, shape (F,)
        Range in training, standardised.  NaN where unknown: such a feature never moves.

    Attributes
    ----------
    shift : ndarray of float64, shape (F,)
        How far each feature is from home, in standard deviations of training; 0 for one at home.

    Examples
    --------
    >>> import numpy as np
    >>> levels = Levels(np.array([-2.0]), np.array([2.0]))
    >>> for _ in range(_FIRST_ROWS):
    ...     moved = levels.take(np.array([9.0]), restart=False)
    >>> levels.shift.tolist(), moved.begins
    ([9.0], True)
    """

    def __init__(self, lowest: NDArray[np.floating], highest: NDArray[np.floating]) -> None:
        width = np.asarray(highest, np.float64) - lowest
        width = np.where(width > 0.0, width, _CONSTANT_WIDTH)
        near, far = MARGIN * width, _FAR * width
        self._bounds = np.array([lowest - near, highest + near, lowest - far, highest + far, width])  # in one piece
        features = len(width)
        self.shift = np.zeros(features)
        self._away = np.zeros(features, np.bool_)
        self._home_rows: NDArray[np.int32] | int = 0  # in a row, of each feature once one has been away
        self._age = 0
        self._kept = 0
        self._is_away = False  # any of them
        self._values = np.full((_SAMPLES, features), np.nan, np.float32)
        self._outside = np.zeros((_SAMPLES, (features + 7) // 8), np.uint8)  # a bit for each

    @property
    def away(self) -> bool:
        """Whether any feature is judged from another place than in training."""
        return self._is_away

    def never_left(self, z: NDArray[np.floating]) -> bool:
        """Whether rows (T, F) can't move any level: none is away, and none of them lies outside."""
        with np.errstate(invalid="ignore"):
            return not self.away and not bool(self.outside(z).any())

    def skip(self) -> bool:
        """Pass over one more row, no restart, if all are at home and it is none of those that are looked at."""
        age = self._age + 1
        if self._is_away or age <= _FIRST_ROWS or not age % _EVERY:
            return False
        self._age = age
        return True

    def take(self, z: NDArray[np.floating], *, restart: bool) -> Moved:
        """Take one more row (F,): standardised, neither shifted nor clipped, NaN where unknown.

        What to judge is ``z - shift``, afterwards.  A restart is the first row of a recording, or after a gap: what is
        away stays away, unless it begins at home.
        """
        came_home = self._come_home(z, restart=restart) if self._is_away else False
        if self._is_away:
            self._follow(z)
        if restart:
            self._age = self._kept = 0
        self._age += 1
        early = self._age <= _FIRST_ROWS
        if not early and self._age % _EVERY:
            return Moved(None, came_home)
        now = z - self.shift
        low, high = self._bounds[2:4] if early else self._bounds[:2]
        place = self._kept % _SAMPLES
        self._values[place] = z
        with np.errstate(invalid="ignore"):
            self._outside[place] = np.packbits((now < low) | (now > high))
        self._kept += 1
        if early and self._age < _FIRST_ROWS:
            return Moved(None, came_home)
        left = self._leave(_FIRST_ROWS) if early else self._leave(_SAMPLES)
        if early:
            self._kept = 0
        return Moved(left, came_home or left is not None)

    def outside(self, z: NDArray[np.floating]) -> NDArray[np.bool_]:
        """Which values (F,), standardised, lie outside the training range; NaN does not."""
        low, high = self._bounds[:2]
        found: NDArray[np.bool_] = (z < low) | (z > high)
        return found

    def state(self) -> dict[int, float]:
        """Where features are that are not at home, by their place: what outlives a restart of the program."""
        return {int(f): float(self.shift[f]) for f in np.flatnonzero(self._away)}

    def resume(self, state: dict[int, float]) -> None:
        """Go on from what :meth:`state` returned."""
        for f, shift in state.items():
            self.shift[f], self._away[f], self._is_away = shift, True, True

    def _come_home(self, z: NDArray[np.floating], *, restart: bool) -> bool:
        low, high = self._bounds[:2]
        inside = (z >= low) & (z <= high)
        self._home_rows = np.where(inside, self._home_rows + 1, 0).astype(np.int32)
        home = self._away & inside & (restart or self._home_rows >= _HOME_ROWS)
        if not home.any():
            return False
        self._away &= ~home
        self._is_away = bool(self._away.any())
        self.shift[home] = 0.0
        return True

    def _follow(self, z: NDArray[np.floating]) -> None:
        """Bring the places of what is away nearer to where it is."""
        width = self._bounds[4]
        step = np.clip(z - self.shift, -width, width) / _MEMORY_ROWS
        self.shift += np.where(self._away & np.isfinite(step), step, 0.0)

    def _leave(self, rows: int) -> NDArray[np.bool_] | None:
        """Move the features that were outside in nearly all of the newest ``rows`` samples."""
        if self._kept < rows:
            return None
        outside = np.unpackbits(self._outside[:rows], axis=1, count=len(self.shift))
        left: NDArray[np.bool_] = outside.sum(axis=0) >= _NEARLY_ALL * rows
        if not left.any():
            return None
        self.shift[left] = np.nanmedian(self._values[:rows][:, left], axis=0)
        self._away |= left
        self._is_away = True
        self._home_rows = np.where(left, 0, self._home_rows).astype(np.int32)
        self._outside &= ~np.packbits(left)
        return left
