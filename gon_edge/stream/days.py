"""What each reading was like on the days before: its mean, and how far it went up and down.

`DayMeans` takes the rows of one stream and keeps the newest four weeks, a number a day and reading.  Rows that must not
count (an alert is open, the stream is silenced) are handed in as such: a day that lacks too many has no mean.  Days are
those of the local clock.  What is made of them is `drift`.  Pure: timestamps come with the rows.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Collection, Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gon_edge.model.daily import DAY_S, local_offset_s

Table = NDArray[np.float32]

KEPT = 28
"""Days that are kept: 21 to compare with, and the newest week."""

_OLDEST_DAYS = 42
"""Older days are of another time of the year.  A judgement: four weeks of days with rows, and two without."""

_KNOWN_SHARE = 0.75
"""A day has a mean when so much of it is known.  A judgement: half a day of a reading that follows the sun is not like
a whole one, and an alert of some hours must not cost a day."""

_BLOCK_ROWS = 16
"""Rows that are added up at once.  Not critical: one by one they took 3 us each, so they take 0.5."""

_QUARTER_S = 900.0  # offsets of all time zones are whole ones of it


_NO_DAYS, _NO_TIMES = np.empty(0, np.int64), np.empty(0)  # of every stream that has no day yet


class Day(NamedTuple):
    """Numbers of all readings (F,) on one day; NaN where too little is known."""

    mean: Table
    low: Table
    high: Table


class DayMeans:
    """The newest days of one stream.

    Parameters
    ----------
    offset_s : callable
        By how much the local clock is ahead of UTC at a time in Unix seconds.

    Attributes
    ----------
    offset_s : callable
    names : tuple of str
        Of the F readings.
    numbers : ndarray of int64, shape (D,)
        Days since 1970, the oldest first.
    begins : ndarray, shape (D,)
        Unix seconds of the first row of each.
    means, lows, highs : ndarray of float32, shape (D, F)
        NaN where too little of the day is known.

    Examples
    --------
    >>> days = DayMeans(offset_s=lambda timestamp: 0.0)
    >>> days.follow(("flow",))
    >>> hourly = [days.take(3600.0 * hour, np.float32([hour // 24]), counts=True) for hour in range(72)]
    >>> sum(hourly), days.means.ravel().tolist()
    (2, [0.0, 1.0])
    """

    def __init__(self, offset_s: Callable[[float], float] = local_offset_s) -> None:
        self.offset_s = offset_s
        self._quarter = -1, 0  # of UTC, and the day that it belongs to
        self.names: tuple[str, ...] = ()
        self._clear()

    def _clear(self) -> None:
        width = len(self.names)
        self.numbers = self._rows = _NO_DAYS  # rows that each day had, known or not
        self.begins = _NO_TIMES
        self.means = self.lows = self.highs = np.empty((0, width), np.float32)
        self._begin(-1, 0.0)

    def _begin(self, day: int, timestamp: float) -> None:
        """Begin with a day, at its first row."""
        width = len(self.names)
        self._day, self._began, self._seen = day, timestamp, 0
        self._sum, self._count = np.zeros(width), np.zeros(width, np.int64)
        self._low, self._high = np.full(width, np.inf, np.float32), np.full(width, -np.inf, np.float32)
        self._block, self._waiting = np.zeros((_BLOCK_ROWS, width), np.float32), 0

    def follow(self, names: tuple[str, ...]) -> None:
        """Take rows of these readings from now on; days of those that are not among them are forgotten."""
        if names == self.names:
            return
        before, self.names = self.names, names
        if len(self.numbers):
            self.means, self.lows, self.highs = (
                rearranged(table, before, names) for table in (self.means, self.lows, self.highs)
            )
        else:
            self.means = self.lows = self.highs = np.empty((0, len(names)), np.float32)
        self._begin(self._day, self._began)  # a day of two models is half a day for most

    def take(self, timestamp: float, values: NDArray[np.floating], *, counts: bool) -> bool:
        """Take one row.

        Parameters
        ----------
        timestamp : float
            Unix seconds.
        values : ndarray, shape (F,)
            NaN where unknown.
        counts : bool
            Whether the row may count.

        Returns
        -------
        bool
            Whether a day is over, and now the newest of those that are kept.
        """
        quarter = int(timestamp // _QUARTER_S)
        if quarter != self._quarter[0]:
            self._quarter = quarter, int((timestamp + self.offset_s(timestamp)) // DAY_S)
        day = self._quarter[1]
        is_over = False
        if day != self._day:
            is_over = 0 <= self._day < day and self._end()
            if day < self._day:  # the clock was set back: what it said before is no day of the past
                self._keep(self.numbers < day)
            self._begin(day, timestamp)
        self._seen += 1
        if counts:
            self._block[self._waiting] = values
            self._waiting += 1
            if self._waiting == _BLOCK_ROWS:
                self._add_up()
        return is_over

    def _add_up(self) -> None:
        """Let the rows that wait count for their day."""
        rows, self._waiting = self._block[: self._waiting], 0
        known = np.isfinite(rows)
        self._count += known.sum(axis=0)
        self._sum += np.where(known, rows, 0.0).sum(axis=0, dtype=np.float64)
        self._low = np.fmin(self._low, np.fmin.reduce(rows, axis=0, initial=np.inf))
        self._high = np.fmax(self._high, np.fmax.reduce(rows, axis=0, initial=-np.inf))

    def known(self) -> NDArray[np.bool_]:
        """Which days (D,) had rows for most of their time: the first day of a stream begins in its middle."""
        fullest = int(self._rows.max(initial=0))
        found: NDArray[np.bool_] = self._rows >= _KNOWN_SHARE * fullest
        return found

    def forget(self, names: Collection[str]) -> None:
        """Begin anew with these readings."""
        self._add_up()
        gone = np.array([name in names for name in self.names], np.bool_)
        for table in (self.means, self.lows, self.highs):
            table[:, gone] = np.nan
        self._count[gone] = 0

    def _end(self) -> bool:
        """Keep the day that is over, unless nothing of it is known."""
        self._add_up()
        known = self._count >= max(1.0, _KNOWN_SHARE * self._seen)
        if not known.any():
            return False
        unknown = np.float32(np.nan)
        mean = np.where(known, self._sum / np.maximum(self._count, 1), np.nan).astype(np.float32)
        day = Day(mean, np.where(known, self._low, unknown), np.where(known, self._high, unknown))
        self.means, self.lows, self.highs = (
            np.concatenate([table, row[None]])
            for table, row in zip((self.means, self.lows, self.highs), day, strict=True)
        )
        self.numbers = np.append(self.numbers, self._day)
        self.begins = np.append(self.begins, self._began)
        self._rows = np.append(self._rows, self._seen)
        self._keep(self.numbers > self._day - _OLDEST_DAYS)
        return True

    def _keep(self, wanted: NDArray[np.bool_]) -> None:
        """Keep the newest of these days (D,)."""
        kept = np.flatnonzero(wanted)[-KEPT:]
        self.numbers, self.begins, self._rows = self.numbers[kept], self.begins[kept], self._rows[kept]
        self.means, self.lows, self.highs = self.means[kept], self.lows[kept], self.highs[kept]

    def state(self) -> dict[str, Any]:
        """Return what the next `DayMeans` goes on from, fit for JSON."""
        self._add_up()
        return {
            "names": list(self.names),
            "numbers": self.numbers.tolist(),
            "begins": self.begins.tolist(),
            "rows": self._rows.tolist(),
            "means": packed(self.means),
            "lows": packed(self.lows),
            "highs": packed(self.highs),
            "day": [self._day, self._began, self._seen],
            "sum": self._sum.tolist(),
            "count": self._count.tolist(),
            "low": packed(self._low),
            "high": packed(self._high),
        }

    def resume(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state` returned.

        Raises
        ------
        KeyError, TypeError, ValueError
            It cannot be understood.
        """
        self.names = tuple(str(name) for name in state["names"])
        width, days = len(self.names), len(state["numbers"])
        self._clear()
        self.numbers, self._rows = np.array(state["numbers"], np.int64), np.array(state["rows"], np.int64)
        self.begins = np.array(state["begins"], np.float64)
        self.means, self.lows, self.highs = (unpacked(state[key], width, days) for key in ("means", "lows", "highs"))
        day, began, seen = state["day"]
        self._begin(int(day), float(began))
        self._seen = int(seen)
        self._sum[:], self._count[:] = state["sum"], state["count"]
        self._low, self._high = (unpacked(state[key], width, 1)[0] for key in ("low", "high"))


def packed(table: Table) -> str:
    """Float32 as text, a third of what JSON takes."""
    return base64.b64encode(np.ascontiguousarray(table, "<f4").tobytes()).decode()


def unpacked(text: str, width: int, rows: int) -> Table:
    """Inverse of `packed`, shape (rows, width)."""
    return np.frombuffer(base64.b64decode(text), "<f4").reshape(rows, width).astype(np.float32)


def rearranged(table: Table, names: tuple[str, ...], wanted: tuple[str, ...]) -> Table:
    """Columns of ``names`` as ``wanted`` has them; NaN for what is not among them."""
    place = {name: i for i, name in enumerate(names)}
    return np.pad(table, ((0, 0), (0, 1)), constant_values=np.nan)[:, [place.get(name, -1) for name in wanted]]
