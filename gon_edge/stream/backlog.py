"""Rows kept in arrays: those that wait for a first model, and the newest window.

Single `Row` objects that live on here and there in the heap keep memory from going back to the system.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from gon_edge.events import Row

BACKLOG_BYTES = 2 << 20
"""Memory for rows that wait while the first model is being trained, 36,000 of them at 8 features; beyond it the oldest
go without a score.  Only a replay at full speed comes near it."""

_BLOCK_ROWS = 256  # not critical: a block of 8 features has 15 kB, and one at most is half empty


class _Block:
    """Up to ``_BLOCK_ROWS`` rows of the same features, in arrays: an eighth of what as many `Row` objects take."""

    def __init__(self, features: tuple[str, ...]) -> None:
        self.features = features
        self.begin = self.end = 0
        self._times = np.empty((_BLOCK_ROWS, 2))  # timestamp, received_at
        self._values = np.empty((_BLOCK_ROWS, len(features)), np.float32)
        self._flags = np.empty((_BLOCK_ROWS, 2 * len(features) + 1), np.bool_)  # restart, stale, excused
        self.size_bytes = self._times.nbytes + self._values.nbytes + self._flags.nbytes

    def push(self, row: Row) -> None:
        self._times[self.end] = row.timestamp, row.received_at
        self._values[self.end] = row.values
        self._flags[self.end, 0] = row.restart
        flags, width = self._flags[self.end], len(self.features)
        flags[1 : 1 + width] = row.stale
        flags[1 + width :] = False if row.excused is None else row.excused
        self.end += 1

    def pop(self, stream: str) -> Row:
        i = self.begin
        self.begin += 1
        timestamp, received_at = self._times[i].tolist()
        flags = self._flags[i]
        width = len(self.features)
        stale, excused = flags[1 : 1 + width], flags[1 + width :]
        return Row(stream, timestamp, self.features, self._values[i], stale, bool(flags[0]), received_at, excused)


class Backlog:
    """Rows that wait for a model, oldest first, in bounded memory."""

    def __init__(self, stream: str) -> None:
        self._stream = stream
        self._blocks: list[_Block] = []  # few: BACKLOG_BYTES
        self._bytes = 0
        self._rows = 0

    def __len__(self) -> int:
        return self._rows

    def push(self, row: Row) -> list[Row]:
        """Keep a row; returns the oldest ones where there is no room for them any more."""
        last = self._blocks[-1] if self._blocks else None
        if last is None or last.end == _BLOCK_ROWS or last.features != row.features:
            last = _Block(row.features)
            self._blocks.append(last)
            self._bytes += last.size_bytes
        last.push(row)
        self._rows += 1
        lost = []
        while self._bytes > BACKLOG_BYTES and len(self._blocks) > 1:
            first = len(self._blocks)
            while len(self._blocks) == first:
                lost.append(self.pop())
        return lost

    def pop(self) -> Row:
        """Take the oldest row out."""
        first = self._blocks[0]
        row = first.pop(self._stream)
        self._rows -= 1
        if first.begin == first.end:
            del self._blocks[0]
            self._bytes -= first.size_bytes
        return row


class Newest:
    """The newest rows, as many as a window holds, in arrays of their own: single rows that live on here and there in
    the heap keep a megabyte from going back to the system.
    """

    def __init__(self, length: int) -> None:
        self._length = length
        self._features: tuple[str, ...] | None = None
        self._pushed = 0

    def push(self, row: Row) -> None:
        """Take a copy of a row in; the oldest goes when there are as many as a window holds."""
        if row.features is not self._features:  # older rows are forgotten: it happens once or twice in a stream's life
            self._features = row.features
            self._pushed = 0
            self._timestamps = array("d", bytes(8 * self._length))
            self._values = np.empty((self._length, len(row.features)), np.float32)
            self._stale: dict[int, NDArray[np.bool_]] = {}  # of the few rows that are not whole, by their place
            self._flags = bytearray(self._length)  # 1 for a restart, 2 for a row that is whole
        at = self._pushed % self._length
        self._timestamps[at] = row.timestamp
        self._values[at] = row.values
        self._flags[at] = row.restart + 2 * row.is_whole
        self._stale.pop(at, None)
        if not row.is_whole:
            self._stale[at] = row.stale.copy()
        self._pushed += 1

    def rows(self, stream: str) -> Iterator[Row]:
        """Oldest first."""
        for i in range(max(0, self._pushed - self._length), self._pushed):
            at = i % self._length
            assert self._features is not None
            is_restart, is_whole = bool(self._flags[at] & 1), bool(self._flags[at] & 2)
            stale = np.zeros(len(self._features), np.bool_) if is_whole else self._stale[at].copy()
            yield Row(
                stream,
                self._timestamps[at],
                self._features,
                self._values[at].copy(),
                stale,
                is_restart,
                is_whole=is_whole,
            )
