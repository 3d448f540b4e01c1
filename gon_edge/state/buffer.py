"""The newest rows of one stream, taken one by one, until they are packed.

Knows no file; how rows are packed is `chunk`'s.
"""

from __future__ import annotations

import numpy as np

from gon_edge.events import Row
from gon_edge.state.chunk import RowChunk

_CHUNK_ROWS = 1024  # not critical: more rows pack hardly better, and a reader holds one chunk at a time
_CHUNK_BYTES = 256 << 10  # packing needs some ten times this for a moment
_FIRST_ROWS = 64  # not critical: a buffer grows by doubling


class RowBuffer:
    """The newest rows of one stream with the same features; arrays grow by doubling, and are used again once emptied.

    Parameters
    ----------
    features : tuple of str

    Attributes
    ----------
    length : int
        Rows held; set to 0 by whoever has packed them.
    row_bytes : int
        Memory of one.
    limit : int
        Rows of a chunk: `add` takes no more.
    timestamps : ndarray of float64, shape (capacity,)
    values : ndarray of float32, shape (capacity, F)
    flags : ndarray of bool, shape (capacity, 2)
        Restart, quarantined.
    """

    def __init__(self, features: tuple[str, ...]) -> None:
        self.features = features
        self.length = 0
        self.row_bytes = 8 + 4 * len(features) + 2  # a timestamp, the values, two flags
        self.limit = max(1, min(_CHUNK_ROWS, _CHUNK_BYTES // self.row_bytes))
        self._allocate(min(_FIRST_ROWS, self.limit))

    def _allocate(self, capacity: int) -> None:
        self.timestamps = np.empty(capacity, np.float64)
        self.values = np.empty((capacity, len(self.features)), np.float32)
        self.flags = np.empty((capacity, 2), np.bool_)  # restart, quarantined

    def add(self, row: Row, quarantined: bool) -> None:
        """Take a row behind the others."""
        at = self.length
        if at == len(self.timestamps):
            old = self.timestamps, self.values, self.flags
            self._allocate(min(2 * at, self.limit))
            self.timestamps[:at], self.values[:at], self.flags[:at] = old
        self.timestamps[at] = row.timestamp
        values = self.values[at]
        values[:] = row.values
        if not row.is_whole:
            values[row.stale] = np.nan  # held over from long ago: not what the sensor said
        self.flags[at, 0], self.flags[at, 1] = row.restart, quarantined
        self.length = at + 1

    def rows(self) -> RowChunk:
        """Copies of what is held."""
        n = self.length
        flags = self.flags[:n].copy()
        return RowChunk(self.features, self.timestamps[:n].copy(), self.values[:n].copy(), flags[:, 0], flags[:, 1])
