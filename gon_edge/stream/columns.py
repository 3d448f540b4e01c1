"""The features of a stream as columns of its rows: the value each holds, how often it reports, when it turns stale."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

HOLD_CADENCES = 5  # a feature is stale after this many of its own cadences, and never before as many intervals
_MOST_STEPS = 4
"""Steps after which a cadence is trusted; until then the longest counts, afterwards an average over eight or so.  An
outage counts for as many steps at most.  Not critical: a feature is stale only after `HOLD_CADENCES` cadences."""


class Columns:
    """The columns of one stream, in parallel lists: most updates touch a few of them, and a row is built once.

    Parameters
    ----------
    max_features : int
        Columns at most; values of further features are ignored, and counted in `ignored`.
    max_hold_s : float or None
        Age in seconds at which a value is stale; by default `HOLD_CADENCES` times the feature's own cadence.

    Attributes
    ----------
    places : dict of str to int
        Where each feature stands.  Features are appended; none is ever removed or moved.
    awaited : set of int
        Columns that were not stale in the newest row: a tick is complete when all of them were heard.
    ignored : int
    """

    __slots__ = (
        "_cadence",
        "_gap_s",
        "_gaps",
        "_hold",
        "_interval_s",
        "_max_features",
        "_max_hold_s",
        "_names",
        "_seen",
        "_stale",
        "_values",
        "awaited",
        "ignored",
        "places",
    )

    def __init__(self, max_features: int, max_hold_s: float | None) -> None:
        self.places: dict[str, int] = {}
        self.awaited: set[int] = set()
        self.ignored = 0
        self._max_features = max_features
        self._max_hold_s = max_hold_s
        self._interval_s = self._gap_s = math.nan
        self._names: tuple[str, ...] = ()
        self._values: list[float] = []
        self._seen: list[float] = []  # timestamp of the value, -inf when there is none
        self._cadence: list[float] = []
        self._gaps: list[int] = []  # how many steps the cadence rests on, up to `_MOST_STEPS`
        self._hold: list[float] = []
        self._stale: list[bool] = []  # as of the newest row

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the columns; the same object as long as there is no new one."""
        if len(self._names) != len(self.places):
            self._names = tuple(self.places)
        return self._names

    def set_interval(self, interval_s: float, gap_s: float) -> None:
        """Say how far apart rows are, and which silence, in seconds, ends a segment."""
        self._interval_s, self._gap_s = interval_s, gap_s

    def new(self, name: str) -> int | None:
        """Append a column; ``None`` where there are as many as there may be."""
        column = len(self.places)
        if column >= self._max_features:
            self.ignored += 1
            return None
        self.places[name] = column
        self._values.append(math.nan)
        self._seen.append(-math.inf)
        self._cadence.append(0.0)
        self._gaps.append(0)
        self._hold.append(self._max_hold_s or max(self._gap_s, HOLD_CADENCES * self._interval_s))
        return column

    def update(self, column: int, timestamp: float, value: float) -> None:
        """Hold a value if it is newer, and learn from the time since the last one how often the feature reports."""
        gap_s = timestamp - self._seen[column]
        if not gap_s > 0.0:
            return
        self._values[column] = value
        self._seen[column] = timestamp
        if self._max_hold_s is not None or gap_s == math.inf:
            return
        cadence = self._cadence[column]
        gap_s = min(gap_s, _MOST_STEPS * max(cadence, self._gap_s if cadence == 0.0 else self._interval_s))
        if self._gaps[column] < _MOST_STEPS:
            self._gaps[column] += 1
            cadence = max(cadence, gap_s)
        else:
            cadence += (gap_s - cadence) / 8
        self._cadence[column] = cadence
        self._hold[column] = HOLD_CADENCES * max(cadence, self._interval_s)

    def hold_newer(self, timestamp: float, values: Mapping[str, float]) -> None:
        """Let a late reading be the held value of the features it is the newest of."""
        for name, value in values.items():
            column = self.places.get(name)
            if column is None and (column := self.new(name)) is None:
                continue
            if timestamp > self._seen[column]:
                self.update(column, timestamp, value)
                self.awaited.add(column)

    def at(self, timestamp: float) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """Values (F,) as they are held at a tick, and which of them are stale (F,); new arrays."""
        stale = [not timestamp - seen <= hold for seen, hold in zip(self._seen, self._hold, strict=True)]
        if stale != self._stale:
            self._stale = stale
            self.awaited = {column for column, is_stale in enumerate(stale) if not is_stale}
        return np.array(self._values, np.float32), np.array(stale, np.bool_)

    def shift(self, delta_s: float) -> None:
        """Follow the clock behind the timestamps when it is set."""
        self._seen = [seen + delta_s for seen in self._seen]

    def forget_times(self) -> None:
        """Take every held value for stale: nobody knows any more when it was heard."""
        self._seen = [-math.inf] * len(self._seen)
