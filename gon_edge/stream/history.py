"""The last hour of a stream, for people: scores by quarter minutes, readings by half minutes, in bounded memory."""

from __future__ import annotations

import math
from array import array
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from gon_edge.events import Row

HISTORY_BUCKET_S, HISTORY_BUCKETS = 15, 240  # an hour
READING_BUCKET_S, READING_BUCKETS = 30, 120  # an hour, and as many points as a small chart has room for

MOST_READINGS = 40
"""Features kept, the first of a stream: 18 kB for 8 features, 64 kB for 40, whatever comes beyond.  Not critical."""

_LOW, _HIGH, _EXPECTED = range(3)

_BLOCK_ROWS = 8  # looked at together.  Not critical: one by one they took 5 us each, so they take 1


class ScoreHistory:
    """The highest score of each quarter of a minute in the last hour, and the threshold it stood against.

    By the rows' own time, in arrays of fixed size: 1 kB a stream, and 2 once its threshold has moved, where as many
    Python floats take 15.

    Examples
    --------
    >>> history = ScoreHistory()
    >>> for second in range(40):
    ...     history.add(1_000_000_000.0 + second, score=float(second % 20), threshold=6.0)
    >>> end, scores, thresholds = history.copy()
    >>> end, scores[-3:].tolist(), thresholds[-1]
    (1000000050.0, [19.0, 14.0, 19.0], 6.0)
    """

    def __init__(self) -> None:
        self._scores = array("f", [math.nan]) * HISTORY_BUCKETS
        self._threshold = math.nan
        self._thresholds: array[float] | None = None  # where it has not been the same in all of them
        self._bucket: int | None = None  # the newest, counted from 1970
        self._copy: tuple[float, array[float], array[float]] | None = None

    def add(self, timestamp: float, score: float, threshold: float) -> None:
        """Take the score of one row; ``timestamp`` in Unix seconds."""
        if not math.isfinite(score):
            return
        bucket = int(timestamp // HISTORY_BUCKET_S)
        at = bucket % HISTORY_BUCKETS
        if bucket != self._bucket:
            self._forget(bucket)
        if self._scores[at] >= score:  # not so when there is none
            return
        if threshold != self._threshold:
            self._thresholds = None if math.isnan(self._threshold) else self._all_thresholds()
            self._threshold = threshold
        self._scores[at] = score
        if self._thresholds is not None:
            self._thresholds[at] = threshold
        self._copy = None

    def _all_thresholds(self) -> array[float]:
        """The threshold of each bucket, NaN for none."""
        if self._thresholds is not None:
            return self._thresholds
        return array("f", [self._threshold if score == score else math.nan for score in self._scores])

    def copy(self) -> tuple[float, array[float], array[float]]:
        """Return the end of the newest bucket in Unix seconds, scores and thresholds, oldest first, NaN for none.

        The same arrays as before when nothing has changed; they are not written to afterwards.
        """
        if self._copy is None:
            bucket = self._bucket or 0
            at = (bucket + 1) % HISTORY_BUCKETS
            thresholds = self._all_thresholds()
            self._copy = (
                float((bucket + 1) * HISTORY_BUCKET_S),
                self._scores[at:] + self._scores[:at],
                thresholds[at:] + thresholds[:at],
            )
        return self._copy

    def _forget(self, bucket: int) -> None:
        """Empty what lies between the newest bucket and this one; a clock that is set back takes the future along."""
        newest, self._bucket = self._bucket, bucket
        if newest is None or abs(bucket - newest) >= HISTORY_BUCKETS:
            stale = range(bucket - HISTORY_BUCKETS + 1, bucket + 1)
        else:
            stale = range(newest + 1, bucket + 1) if bucket > newest else range(bucket + 1, newest + 1)
        for other in stale:
            self._scores[other % HISTORY_BUCKETS] = math.nan
            if self._thresholds is not None:
                self._thresholds[other % HISTORY_BUCKETS] = math.nan


class ReadingHistory:
    """What the features of a stream read in the last hour: lowest and highest of each half minute, and the expected.

    By the rows' own time.  A half minute that is over is kept as bytes that are never written to again, so whoever
    looks shares them.

    Attributes
    ----------
    features : tuple of str
        At most `MOST_READINGS`, the first of the stream.

    Examples
    --------
    >>> history = ReadingHistory()
    >>> for second in range(40):
    ...     row = Row("pump", 1_200.0 + second, ("flow",), np.float32([second]), np.array([False]))
    ...     history.add(row)
    >>> end, buckets = history.copy()
    >>> low, high, expected = unpacked(buckets, len(history.features))
    >>> end, low[:, 0].tolist(), high[:, 0].tolist()
    (1260.0, [0.0, 30.0], [29.0, 39.0])
    """

    def __init__(self) -> None:
        self.features: tuple[str, ...] = ()
        self._block, self._waiting, self._last = np.empty((_BLOCK_ROWS, 0), np.float32), 0, 0
        self._seen: tuple[str, ...] = ()  # features of the newest row, all of them
        self._bucket: int | None = None  # the newest, counted from 1970
        self._expected_in: int | None = None
        self._newest = _empty(0)
        self._past: list[bytes] = []  # the buckets before it, b"" where no row was
        self._copy: tuple[float, tuple[bytes, ...]] | None = None

    def add(self, row: Row) -> None:
        """Take the readings of one row; stale ones are none."""
        if row.features is not self._seen:
            self._widen(row.features)
        bucket = int(row.timestamp // READING_BUCKET_S)
        if bucket != self._bucket:
            self._turn_to(bucket)
        width, self._last = len(self.features), self._waiting
        values = self._block[self._last]
        values[:] = row.values[:width]
        if not row.is_whole:
            values[row.stale[:width]] = np.nan
        self._waiting += 1
        if self._waiting == _BLOCK_ROWS:
            self._look()
        self._copy = None

    def _look(self) -> None:
        """Let the rows that wait count for their half minute."""
        rows, self._waiting = self._block[: self._waiting], 0
        if len(rows):
            low, high = self._newest[_LOW], self._newest[_HIGH]
            np.fmin(low, np.fmin.reduce(rows, axis=0), out=low)
            np.fmax(high, np.fmax.reduce(rows, axis=0), out=high)

    @property
    def values(self) -> NDArray[np.float32]:
        """The newest (F,), NaN for none; a new array."""
        newest: NDArray[np.float32] = self._block[self._last].copy()
        return newest

    @property
    def wants_expected(self) -> bool:
        """Whether nobody has said yet what was expected in the newest half minute: asking a model is dear."""
        return self._expected_in != self._bucket

    def expect(self, features: Sequence[str], expected: Sequence[float] | NDArray[np.float64]) -> None:
        """Take what a model would have for its features in the newest row."""
        place = {name: i for i, name in enumerate(self.features)}
        for name, value in zip(features, expected, strict=True):
            if name in place:
                self._newest[_EXPECTED, place[name]] = value
        self._expected_in = self._bucket
        self._copy = None

    def copy(self) -> tuple[float, tuple[bytes, ...]]:
        """Return the end of the newest half minute in Unix seconds, and all of them for `unpacked`, oldest first."""
        if self._copy is None:
            self._look()
            end = float(((self._bucket or 0) + 1) * READING_BUCKET_S)
            self._copy = end, (*self._past, self._newest.tobytes())
        return self._copy

    def _widen(self, features: tuple[str, ...]) -> None:
        """Make room for features that have come; the others stay where they are, as in a row."""
        self._look()
        if features[: len(self._seen)] != self._seen:  # another row altogether
            self._past.clear()
            self._newest = _empty(0)
        self._seen, self.features = features, features[:MOST_READINGS]
        self._newest = unpacked((self._newest.tobytes(),), len(self.features))[:, 0]
        self._block, self._last = np.full((_BLOCK_ROWS, len(self.features)), np.nan, np.float32), 0

    def _turn_to(self, bucket: int) -> None:
        """Begin another half minute; a clock that is set back takes the future along."""
        self._look()
        steps = bucket - self._bucket if self._bucket is not None else READING_BUCKETS
        if 0 < steps < READING_BUCKETS:
            self._past += [self._newest.tobytes(), *[b""] * (steps - 1)]
            del self._past[: 1 - READING_BUCKETS]
        elif -len(self._past) < steps < 0:
            for _ in range(-steps):
                self._past.pop()
        else:
            self._past.clear()
        self._bucket, self._newest = bucket, _empty(len(self.features))


def unpacked(buckets: Sequence[bytes], width: int) -> NDArray[np.float32]:
    """Return lowest, highest and expected (3, B, F) of buckets that `ReadingHistory.copy` gave; NaN for none.

    Parameters
    ----------
    buckets : sequence of bytes
    width : int
        Features there are now; older buckets may have fewer.
    """
    table = np.full((3, len(buckets), width), np.nan, np.float32)
    for i, bucket in enumerate(buckets):
        held = np.frombuffer(bucket, np.float32).reshape(3, -1)[:, :width]
        table[:, i, : held.shape[1]] = held
    return table


def _empty(width: int) -> NDArray[np.float32]:
    return np.full((3, width), np.nan, np.float32)
