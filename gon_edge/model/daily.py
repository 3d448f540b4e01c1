"""What this hour was like on the days before: beside each reading, its difference to the most similar of them.

Forty rows know no time of day.  A heating at day mode at 03:00 lies inside the day's range, and only earlier nights say
that it is odd.  `DayMemory` keeps the range of each reading in every quarter of an hour of the last week.  The
difference is 0 while a reading lies within what one of the last seven days showed at this time of day, a quarter of an
hour to either side; else it is how far the nearest day is.

Time of day is the local one, so that a change of the clocks does no harm.  Only other days are looked at, never the day
itself: it does not matter whether a row was added before or after it is judged.  Pure: what the memory holds follows
from the rows alone, so training, the daemon and a replay see the same differences.

A difference is a feature of the model, named after its reading with ``SUFFIX``.  Rows of a device do not have it:
`training.source` adds it to those that are learned, `detector` to those that are judged.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator, Sequence
from datetime import UTC, datetime

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gon_edge.model.window import Scaler

Columns = NDArray[np.intp] | slice

SUFFIX = " at this hour"
"""What the name of a difference has after that of its reading.  A reading of a device by such a name, beside the other,
is not looked at."""

_SLOT_S = 900.0
"""The range of a quarter of an hour, with both neighbours.  What happens every day happens up to some minutes earlier
or later (docs/detection.md, "Time of day")."""

_DAY_SLOTS = 96
DAYS = 7  # so that the same weekday is among them
_KEPT_SLOTS = (DAYS + 1) * _DAY_SLOTS
"""Slots that count: a day more than are looked at, for the one that is being filled."""

_PART_SLOTS = 24
"""Slots whose memory is taken together.  Not critical: a quarter of a day of 8 readings has 1.5 KiB, where a whole week
at once took 48 from the first minute on."""

_PARTS = _KEPT_SLOTS // _PART_SLOTS + 1  # the oldest goes for the newest

_BEFORE = -np.arange(1, DAYS + 1)
_AROUND = np.concatenate([_BEFORE, -_BEFORE])

LEAST_SCALE = 0.1
"""Smallest deviation of a difference, as a part of its reading's: most differences are 0, and one that hardly ever
moved must not make its first small move a wonder.  0, 0.1 and 0.3 found 38, 39 and 34 of 52 faults, at 1.1, 1.1 and 1.2
false alerts a week (docs/detection.md)."""

DAY_S = 86_400.0  # a day

LEAST_SPAN_S = 6.5 * DAY_S
"""Seconds that stored rows must span before a model is given differences: until it has seen a week, each first weekend
is unlike all other days.  A little less than a week, which is all that a store holds of a row a second."""

_NOTHING = np.empty((2, DAYS, 0), np.float32)

_BLOCK_ROWS = 8  # remembered at once.  Not critical: one by one they took 4 us each, so they take 1

MOST_FEATURES = 32
"""With more readings none is given a difference: they double what a model weighs, and a row of many readings says much
of the hour by itself.  A judgement."""


def columns(features: Sequence[str]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Where the D differences stand among these features, and where the reading of each does, both (D,)."""
    place = {name: i for i, name in enumerate(features)}
    found = [(i, place[name.removesuffix(SUFFIX)]) for name, i in place.items() if is_difference(name, place)]
    differences, readings = np.array(found, np.intp).reshape(-1, 2).T
    return differences, readings


def sliced(columns: NDArray[np.intp]) -> Columns:
    """The same columns as a slice where they stand in a row: a view, and not a copy at every row."""
    if not len(columns):
        return slice(0, 0)
    if (np.diff(columns) == 1).all():
        return slice(int(columns[0]), int(columns[-1]) + 1)
    return columns


def is_difference(name: str, features: Container[str]) -> bool:
    """Whether a feature among ``features`` is the difference of another."""
    return name.endswith(SUFFIX) and name.removesuffix(SUFFIX) in features


def scaled(scaler: Scaler, features: Sequence[str]) -> Scaler:
    """The scaler with 0 as the mean of each difference, and a deviation that is a part of its reading's at least."""
    differences, readings = columns(features)
    if not len(differences):
        return scaler
    mean, scale = scaler.mean.copy(), scaler.scale.copy()
    mean[differences] = 0.0
    scale[differences] = np.maximum(scale[differences], LEAST_SCALE * scale[readings])
    return Scaler(mean, scale)


def follow(rows: NDArray[np.float32], before: NDArray[np.float32], features: Sequence[str]) -> None:
    """Let the differences in ``rows`` (..., F) move as their readings did since ``before`` (..., F), in place."""
    differences, readings = columns(features)
    rows[..., differences] += rows[..., readings] - before[..., readings]


def local_offset_s(timestamp: float) -> float:
    """By how much the local clock is ahead of UTC at a time in Unix seconds; ``TZ`` or the system says where."""
    offset = datetime.fromtimestamp(timestamp, UTC).astimezone().utcoffset()
    return 0.0 if offset is None else offset.total_seconds()


class DayMemory:
    """The last week of one stream: the lowest and highest value of each reading in every quarter of an hour.

    It takes 6 KiB for each reading once it has seen a week, whatever the interval between rows, and less before.

    Parameters
    ----------
    offset_s : callable
        By how much the local clock is ahead of UTC at a time in Unix seconds.

    Examples
    --------
    >>> import numpy as np
    >>> memory = DayMemory(offset_s=lambda timestamp: 0.0)
    >>> hours = 3600.0 * np.arange(24.0)
    >>> memory.add(hours, ("indoor",), np.where(hours < 6 * 3600.0, 18.0, 21.0)[:, None])
    >>> memory.of_row(86_400.0 + 3 * 3600.0, ("indoor",), np.float32([21.0])).tolist()
    [3.0]
    """

    def __init__(self, offset_s: Callable[[float], float] = local_offset_s) -> None:
        self._offset_s = offset_s
        self._place: dict[str, int] = {}
        self._parts: dict[int, NDArray[np.float32]] = {}  # ranges (2, _PART_SLOTS, F), infinite where nothing was
        self._newest = 0  # slot, a quarter of an hour since 1970
        self._columns: dict[tuple[str, ...], Columns] = {}
        self._quarter = (-1, 0)  # of UTC, and the same on the local clock
        self._looked_at: tuple[int, tuple[str, ...]] | None = None
        self._waiting: tuple[int, tuple[str, ...]] = (-1, ())  # the quarter and the readings of rows that wait
        self._block, self._rows = np.zeros((_BLOCK_ROWS, 0), np.float32), 0
        self._earlier = _NOTHING

    def add(self, timestamps: ArrayLike, names: tuple[str, ...], values: ArrayLike) -> None:
        """Remember rows.

        Parameters
        ----------
        timestamps : array-like, shape (N,)
            Unix seconds, in any order.
        names : tuple of str
            Of the F readings.
        values : array-like, shape (N, F)
            What is not finite is passed over.
        """
        self._remember()
        table = np.asarray(values, np.float32)
        columns = self._columns_of(names)
        for slot, rows in self._quarters(timestamps):
            self._widen(slot, columns, table[rows])

    def add_past(self, timestamps: ArrayLike, names: tuple[str, ...], values: ArrayLike) -> None:
        """As `add`, of rows that may be older than those that were added before them; what these have told stays."""
        self._remember()
        table = np.asarray(values, np.float32)
        columns = self._columns_of(names)
        newest = self._newest
        for slot, rows in self._quarters(timestamps):
            if slot > newest - _KEPT_SLOTS:
                self._widen(slot, columns, table[rows])
                self._newest = newest = max(slot, newest)

    def add_row(self, timestamp: float, names: tuple[str, ...], values: NDArray[np.float32]) -> None:
        """Remember one row (F,), as `add` does."""
        slot = self._local_quarter(timestamp)
        if slot != self._waiting[0] or names is not self._waiting[1]:
            self._remember()
            self._waiting = slot, names
            if self._block.shape[1] != len(names):
                self._block = np.zeros((_BLOCK_ROWS, len(names)), np.float32)
        self._block[self._rows] = values
        self._rows += 1
        if self._rows == _BLOCK_ROWS:
            self._remember()

    def _remember(self) -> None:
        """Remember the rows that wait: nobody looks at the day they are of."""
        rows, self._rows = self._block[: self._rows], 0
        if len(rows):
            slot, names = self._waiting
            self._widen(slot, self._columns_of(names), rows)

    def take(self, timestamps: ArrayLike, names: tuple[str, ...], values: ArrayLike) -> NDArray[np.float32]:
        """Remember rows as `add` does, and say what `of_row` says of each, shape (N, F)."""
        self._remember()
        table = np.asarray(values, np.float32)
        columns = self._columns_of(names)
        told = np.empty_like(table)
        for slot, rows in self._quarters(timestamps):
            told[rows] = _difference(table[rows, None], *self._ranges(slot, columns, _BEFORE))
            self._widen(slot, columns, table[rows])
        return told

    def around(self, timestamps: ArrayLike, names: tuple[str, ...], values: ArrayLike) -> NDArray[np.float32]:
        """As `of_row` for each row, shape (N, F), but with the days after as well: for the first days of a record."""
        self._remember()
        table = np.asarray(values, np.float32)
        columns = self._columns_of(names)
        told = np.empty_like(table)
        for slot, rows in self._quarters(timestamps):
            told[rows] = _difference(table[rows, None], *self._ranges(slot, columns, _AROUND))
        return told

    def of_row(self, timestamp: float, names: tuple[str, ...], values: NDArray[np.float32]) -> NDArray[np.float32]:
        """How far each reading (F,) is from the most similar of the days before at this time of day, shape (F,).

        0 within the range of one of them; infinite where none has a value, and NaN for NaN.
        """
        slot = self._local_quarter(timestamp)
        if self._looked_at != (slot, names):
            self._remember()  # a clock that was set back makes them another day's
            self._earlier = np.stack(self._ranges(slot, self._columns_of(names), _BEFORE))
            self._looked_at = slot, names
        low, high = self._earlier
        gap = values - np.minimum(np.maximum(values, low), high)  # (D, F)
        if not gap[0].any():  # as yesterday: most rows are, and the rest is a third of the time
            told: NDArray[np.float32] = gap[0]
        else:
            told = gap[np.abs(gap).argmin(axis=0), np.arange(len(values))]
        return told

    def _quarters(self, timestamps: ArrayLike) -> Iterator[tuple[int, slice]]:
        """Local quarters of an hour, and the rows (N,) in each, in their order."""
        quarters = np.floor(np.asarray(timestamps, np.float64) / _SLOT_S)
        edges = np.flatnonzero(np.diff(quarters, prepend=np.nan, append=np.nan) != 0.0)
        for first, last in zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True):
            yield self._local_quarter(float(quarters[first]) * _SLOT_S), slice(first, last)

    def _local_quarter(self, timestamp: float) -> int:
        """Quarters of an hour since 1970 on the local clock; the offsets of all time zones are whole ones."""
        quarter = int(timestamp // _SLOT_S)
        if quarter != self._quarter[0]:
            self._quarter = quarter, quarter + round(self._offset_s(quarter * _SLOT_S) / _SLOT_S)
        return self._quarter[1]

    def _columns_of(self, names: tuple[str, ...]) -> Columns:
        """Where these readings stand; a new one gets a place."""
        columns = self._columns.get(names)
        if columns is None:
            fresh = [name for name in names if name not in self._place]
            self._place.update({name: len(self._place) + i for i, name in enumerate(fresh)})
            if fresh:
                empty = _empty(len(fresh))
                self._parts = {number: np.concatenate([part, empty], axis=2) for number, part in self._parts.items()}
            self._looked_at = None
            columns = sliced(np.array([self._place[name] for name in names], np.intp))
            self._columns[names] = columns
        return columns

    def _widen(self, slot: int, columns: Columns, values: NDArray[np.float32]) -> None:
        """Let the ranges of a quarter of an hour hold these values (N, F)."""
        if slot != self._newest:
            self._newest = slot
            self._looked_at = None
        low, high = self._part(slot // _PART_SLOTS)[:, slot % _PART_SLOTS]
        known = np.isfinite(values)
        low[columns] = np.minimum(low[columns], np.where(known, values, np.inf).min(axis=0))
        high[columns] = np.maximum(high[columns], np.where(known, values, -np.inf).max(axis=0))

    def _part(self, number: int) -> NDArray[np.float32]:
        """The ranges of some quarters of an hour; the first time, those that are too old go for them."""
        part = self._parts.get(number)
        if part is None:
            self._parts = {other: kept for other, kept in self._parts.items() if (other - number) % _PARTS}
            part = self._parts[number] = _empty(len(self._place))
        return part

    def _ranges(
        self, slot: int, columns: Columns, days: NDArray[np.int64]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Lowest and highest values (D, F) of days, by their distance (D,), around this time; empty where unknown."""
        ranges = np.empty((2, len(days), 3, len(self._place)), np.float32)
        ranges[0], ranges[1] = np.inf, -np.inf
        for d, day in enumerate((slot + _DAY_SLOTS * days).tolist()):
            for near in range(3):
                at = day + near - 1
                part = self._parts.get(at // _PART_SLOTS)
                if part is not None and at > self._newest - _KEPT_SLOTS:
                    ranges[:, d, near] = part[:, at % _PART_SLOTS]
        low, high = ranges[..., columns]
        return low.min(axis=1), high.max(axis=1)


def _empty(readings: int) -> NDArray[np.float32]:
    """Ranges of a part in which nothing was yet."""
    part = np.empty((2, _PART_SLOTS, readings), np.float32)
    part[0], part[1] = np.inf, -np.inf
    return part


def _difference(
    values: NDArray[np.float32], low: NDArray[np.float32], high: NDArray[np.float32]
) -> NDArray[np.float32]:
    """How far values (..., 1, F) lie outside the nearest of the ranges (D, F), shape (..., F); infinite without any."""
    gap = values - np.minimum(np.maximum(values, low), high)  # of an empty range infinite
    nearest = np.abs(gap).argmin(axis=-2, keepdims=True)
    told: NDArray[np.float32] = np.take_along_axis(gap, nearest, axis=-2)[..., 0, :]
    return told
