"""The features of a stream as columns of its rows: the value each holds, how often it reports, when it turns stale."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from gon_edge.events import Reading
from gon_edge.stream.ledger import NEW_NAMES, Ledger

HOLD_CADENCES = 5  # a feature is stale after this many of its own cadences, and never before as many intervals
_MOST_STEPS = 4
"""Steps after which a cadence is trusted; until then the longest counts, afterwards an average over eight or so.  An
outage counts for as many steps at most.  Not critical: a feature is stale only after `HOLD_CADENCES` cadences."""

_FEWEST_RISES = 20
"""Rises that make a counter for whoever looks; what is judged as one is decided in training (`model.counters`)."""

_MASKED = (-math.inf, math.nan)  # a feature heard in a tick, but without a value

_FELL = -(10**9)  # what no rises make up for

_GONE_S = 86400.0
"""A column without a value for so long gives its place to a new name, where places are short.  Not critical: a day."""


class Held(NamedTuple):
    """What one feature has said last.

    Attributes
    ----------
    value : float
        NaN for none.
    cadence_s : float or None
        Seconds between two values; ``None`` while unknown.
    rises : bool
        It has risen often and never fallen.
    """

    value: float
    cadence_s: float | None = None
    rises: bool = False


class Columns:
    """The columns of one stream, in parallel lists: most updates touch a few of them, and a row is built once.

    Parameters
    ----------
    max_features : int
        Columns at most; what further features say is lost, and stands in ``ledger``.  Once half of them are taken, a
        new name has to come twice: a device that makes up names must not take the places of those that stay.
    max_hold_s : float or None
        Age in seconds at which a value is stale; by default `HOLD_CADENCES` times the feature's own cadence.
    ledger : Ledger

    Attributes
    ----------
    places : dict of str to int
        Where each feature stands.  Features are appended; only `free` moves them.
    awaited : set of int
        Columns that were not stale in the newest row: a tick is complete when all of them were heard.
    crowded : bool
        A name had to wait, or found no place: `free` may help.
    """

    __slots__ = (
        "_born",
        "_cadence",
        "_free_from",
        "_gap_s",
        "_gaps",
        "_hold",
        "_interval_s",
        "_ledger",
        "_max_features",
        "_max_hold_s",
        "_names",
        "_rises",
        "_seen",
        "_stale",
        "_values",
        "_waiting",
        "awaited",
        "crowded",
        "places",
    )

    def __init__(self, max_features: int, max_hold_s: float | None, ledger: Ledger) -> None:
        self.places: dict[str, int] = {}
        self.awaited: set[int] = set()
        self.crowded = False
        self._max_features = max_features
        self._ledger = ledger
        self._waiting: dict[str, float] = {}  # names that came once while places were short, and when
        self._free_from = -math.inf  # the next time at which it is worth looking for columns that are gone
        self._max_hold_s = max_hold_s
        self._interval_s = self._gap_s = math.nan
        self._names: tuple[str, ...] = ()
        self._values: list[float] = []
        self._seen: list[float] = []  # timestamp of the value, -inf when there is none
        self._born: list[float] = []  # timestamp of what it began with
        self._rises: list[int] = []  # far below 0 once it has fallen
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

    @property
    def held(self) -> dict[str, Held]:
        """What each feature has said last, and how it reports."""
        told = zip(self.names, self._values, self._cadence, self._rises, strict=True)
        return {name: Held(value, step or None, rises >= _FEWEST_RISES) for name, value, step, rises in told}

    def set_interval(self, interval_s: float, gap_s: float) -> None:
        """Say how far apart rows are, and which silence, in seconds, ends a segment."""
        self._interval_s, self._gap_s = interval_s, gap_s

    def new(self, name: str, timestamp: float) -> int | None:
        """Append a column; ``None`` where there are as many as there may be, or where the name has to come again."""
        column = len(self.places)
        if column >= (self._max_features + 1) // 2:
            self.crowded = True
            if not self._is_proved(name, timestamp):
                self._ledger.add(NEW_NAMES, "once", name)
                return None
            if column >= self._max_features:
                self._ledger.add(name, "crowded")
                return None
            del self._waiting[name]
        self.places[name] = column
        self._values.append(math.nan)
        self._seen.append(-math.inf)
        self._born.append(timestamp)
        self._rises.append(0)
        self._cadence.append(0.0)
        self._gaps.append(0)
        self._hold.append(self._max_hold_s or max(self._gap_s, HOLD_CADENCES * self._interval_s))
        return column

    def _is_proved(self, name: str, timestamp: float) -> bool:
        """Whether a name has been there before, at another time."""
        first = self._waiting.setdefault(name, timestamp)
        if len(self._waiting) > 2 * self._max_features:
            del self._waiting[next(iter(self._waiting))]
        return timestamp != first

    def free(self, timestamp: float, kept: set[int]) -> dict[int, int] | None:
        """Remove the columns that are gone: heard once and not again, or not for a day.

        Parameters
        ----------
        timestamp : float
            Now, by the stream's clock, Unix seconds.
        kept : set of int
            Columns that stay in any case: something was heard of them that is no row yet.

        Returns
        -------
        dict of int to int or None
            Where each column that stays has been, and where it is; ``None`` where all stay.
        """
        self.crowded = False
        if timestamp < self._free_from:
            return None
        self._free_from = timestamp + self._gap_s
        stays = [column for column in range(len(self.places)) if column in kept or not self._is_gone(column, timestamp)]
        if len(stays) == len(self.places):
            return None
        moved = {column: place for place, column in enumerate(stays)}
        self.places = {name: moved[column] for name, column in self.places.items() if column in moved}
        self._names = tuple(self.places)
        self._values = [self._values[column] for column in stays]
        self._seen = [self._seen[column] for column in stays]
        self._born = [self._born[column] for column in stays]
        self._rises = [self._rises[column] for column in stays]
        self._cadence = [self._cadence[column] for column in stays]
        self._gaps = [self._gaps[column] for column in stays]
        self._hold = [self._hold[column] for column in stays]
        self._stale = []
        self.awaited = {moved[column] for column in self.awaited if column in moved}
        return moved

    def _is_gone(self, column: int, timestamp: float) -> bool:
        seen = self._seen[column]
        came_once = self._gaps[column] == 0 and seen > -math.inf  # one that only says null may be a sensor
        return timestamp - max(seen, self._born[column]) > (self._gap_s if came_once else _GONE_S)

    def update(self, column: int, timestamp: float, value: float) -> None:
        """Hold a value if it is newer, and learn from the time since the last one how often the feature reports."""
        gap_s = timestamp - self._seen[column]
        if not gap_s > 0.0:
            return
        before, self._values[column] = self._values[column], value
        if value > before:
            self._rises[column] += 1
        elif value < before:
            self._rises[column] = _FELL
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

    def hear(self, heard: dict[int, tuple[float, float]], timestamp: float, reading: Reading) -> None:
        """Take what a reading says of a tick into ``heard``: by column the newest ``(timestamp, value)`` in it."""
        places = self.places
        for name, value in reading.values.items():
            column = places.get(name)
            if column is None and (column := self.new(name, timestamp)) is None:
                continue
            known = heard.get(column)
            if known is None or timestamp >= known[0]:
                heard[column] = (timestamp, value)
        for name, reason in reading.masked.items():
            column = places.get(name)
            # Text that never was a number is a label, not a sensor; as a column it would be missing for ever, and so
            # would a value that is taken back before it came.
            if column is None and (reason in ("text", "gone") or (column := self.new(name, timestamp)) is None):
                continue
            heard.setdefault(column, _MASKED)

    def hold_newer(self, timestamp: float, values: Mapping[str, float]) -> None:
        """Let a late reading be the held value of the features it is the newest of."""
        for name, value in values.items():
            column = self.places.get(name)
            if column is None and (column := self.new(name, timestamp)) is None:
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
        self._born = [born + delta_s for born in self._born]
        self._free_from += delta_s

    def forget_times(self) -> None:
        """Take every held value for stale: nobody knows any more when it was heard."""
        self._seen = [-math.inf] * len(self._seen)
        self._free_from = -math.inf
