"""Rows to learn from, as arrays: which of too many are taken, their windows, and how still each feature stands.

Pure: no file, no store, no process.  Where the rows come from is `source`'s business; what is learned from them is
`fit`'s.  `plan` predicts memory from the sizes of batches here, so a batch that grows changes that prediction.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from gon_edge.model.counters import Judged, Rows
from gon_edge.model.gon import Discriminator, Float
from gon_edge.model.smoothing import fill
from gon_edge.model.window import Scaler

BATCH_BYTES = 1 << 20
"""Windows held at once, beside the rows.  Larger batches were not faster, and a small budget has no room for them."""

_MOST_WINDOWS, _FEWEST_WINDOWS = 256, 16
"""Windows in a batch.  Not critical: enough for one matrix product to be worth its call, and small for few features."""

_CHUNK_BYTES = 256 << 10
"""Standardised at once, in float64 beside the rows.  Not critical: a quarter of a batch, so it never sets the peak."""

BLOCK_ROWS = 400
"""Consecutive rows in a sample.  Of a quarter of the training rows of five development sets, blocks of 100, 200, 400
and 1000 rows gave mean average precisions of 0.70, 0.69, 0.76 and 0.57, and the newest rows 0.68: shorter ones have too
few whole windows, longer ones are too few."""

_TRUSTED_SHARE = 0.25
"""Places that rows a person confirmed get at least.  A judgement: enough for a new state to be learned, while what was
normal before keeps three quarters."""


_REPEATED_SHARE = 0.05
"""Of all rows, at most so many are learned twice because a person confirmed them, two windows at least.  Not critical:
thresholds were the same with twice as many."""


class TrainingRows:
    """Standardised rows with the windows that end at them, none reaching across a gap.

    Parameters
    ----------
    z : ndarray of float32, shape (T, F)
        Without NaN.
    restart : ndarray of bool, shape (T,)
        True where a new unbroken piece begins.
    window : int
    rare : ndarray of bool, shape (T,), optional
        Rows that are normal, though there are only few of their kind.

    Attributes
    ----------
    rare : ndarray of bool or None
    age : ndarray of int, shape (T,)
        Which row of its piece each row is, from 1.
    """

    def __init__(
        self, z: Float, restart: NDArray[np.bool_], window: int, rare: NDArray[np.bool_] | None = None
    ) -> None:
        self.z = z
        self.rare = rare
        rows = np.arange(len(z))
        self._first = np.maximum.accumulate(np.where(restart, rows, 0))
        self.age = rows - self._first + 1
        self._back = np.arange(1 - window, 1)

    def __len__(self) -> int:
        return len(self.z)

    def batches(self, ends: NDArray[np.intp]) -> list[NDArray[np.intp]]:
        """``ends`` (N,) in parts whose windows are held at once."""
        size = batch_windows(len(self._back), self.z.shape[1])
        return [ends[i : i + size] for i in range(0, len(ends), size)]

    def near_rare(self, rows: int) -> NDArray[np.bool_]:
        """Whether each row (T,), or one of the ``rows - 1`` before it in its piece, is rare."""
        if self.rare is None:
            return np.zeros(len(self.z), np.bool_)
        at = np.arange(len(self.z))
        last = np.maximum.accumulate(np.where(self.rare, at, -1))
        near: NDArray[np.bool_] = last >= np.maximum(at - rows + 1, self._first)
        return near

    def windows(self, ends: NDArray[np.intp]) -> Float:
        """Windows (N, W, F) that end at rows ``ends`` (N,); before a piece begins its first row is repeated."""
        views: Float = self.z[np.maximum(ends[:, None] + self._back, self._first[ends, None])]
        return views

    def energies(self, net: Discriminator, ends: NDArray[np.intp]) -> Float:
        """Energies of the windows that end at rows ``ends`` (N,) by each term of ``net``, shape (N, E)."""
        energies = np.empty((len(ends), len(net.terms)), np.float32)
        at = 0
        for batch in self.batches(ends):
            energies[at : at + len(batch)] = net.energies(self.windows(batch))
            at += len(batch)
        return energies


def in_order(names: Sequence[str], values: NDArray[np.floating], features: Sequence[str]) -> Float:
    """Rows (T, F) of ``features`` as columns ``names``, a new array; NaN where a name is none of the features."""
    place = {name: i for i, name in enumerate(features)}
    ordered = np.full((len(values), len(names)), np.nan, np.float32)
    for column, name in enumerate(names):
        if name in place:
            ordered[:, column] = values[:, place[name]]
    return ordered


def batch_windows(window: int, features: int) -> int:
    """Most windows of that shape that are held at once."""
    return max(_FEWEST_WINDOWS, min(_MOST_WINDOWS, BATCH_BYTES // (4 * window * features)))


def standardise(rows: Rows | Judged, scaler: Scaler, out: Float, chosen: NDArray[np.intp] | None = None) -> Float:
    """Standardised rows (T, F), or those at indices ``chosen``, without NaN, in ``out``; by chunks.

    ``out`` may be the rows themselves: the newest chunk is the first, and the rate of a counter looks back.
    """
    count = len(rows) if chosen is None else len(chosen)
    size = max(1, _CHUNK_BYTES // (8 * rows.shape[1]))
    for i in reversed(range(0, count, size)):
        out[i : i + size] = scaler.transform(rows[i : i + size] if chosen is None else rows[chosen[i : i + size]])
    return fill(out)


# -- which rows --------------------------------------------------------------------------------------------------------


def choose_blocks(
    usable: int, trusted: Sequence[tuple[int, int]], count: int, rng: np.random.Generator
) -> list[tuple[int, int]]:
    """Which ``count`` of ``usable`` rows to use, as (start, stop), oldest first.

    All of them when they are no more.  Otherwise blocks of ``BLOCK_ROWS``, one at a random place in each of equal
    parts of the span: a fixed distance would see a daily cycle at the same hours only.  Trusted rows are sampled apart,
    and get at least ``_TRUSTED_SHARE`` of the places, as far as there are so many.
    """
    if usable <= count:
        return [(0, usable)] if usable else []
    edges = [0, *(edge for span in trusted for edge in span), usable]
    plain = [(start, stop) for start, stop in zip(edges[::2], edges[1::2], strict=True) if start < stop]
    confirmed = sum(stop - start for start, stop in trusted)
    places = min(confirmed, max(round(count * confirmed / usable), int(count * _TRUSTED_SHARE)))
    places = max(places, count - (usable - confirmed))
    return sorted(_blocks_of(plain, count - places, rng) + _blocks_of(trusted, places, rng))


def _blocks_of(spans: Sequence[tuple[int, int]], count: int, rng: np.random.Generator) -> list[tuple[int, int]]:
    """``count`` rows of those in ``spans``, in blocks, one in each of equal parts of all of them together.

    Parts and blocks are rounded to whole rows, each by itself.  Where nearly all rows are wanted, a block may thus be
    one row longer than its part; the part then gives all it has, and the next ones give what is still wanted.  At the
    end nothing is missing, because there are at least ``count`` rows.
    """
    if count == 0:
        return []
    begins = np.concatenate([[0], np.cumsum([stop - start for start, stop in spans])])  # in rows of the spans alone
    parts = max(1, count // BLOCK_ROWS)
    found = []
    taken = 0
    for part in range(parts):
        low, high = part * begins[-1] // parts, (part + 1) * begins[-1] // parts
        length = min((part + 1) * count // parts - taken, int(high - low))
        taken += length
        at = int(low) + int(rng.integers(high - low - length + 1))
        for (start, _), begin, end in zip(spans, begins[:-1], begins[1:], strict=True):
            first, last = max(at, int(begin)), min(at + length, int(end))
            if first < last:
                found.append((start + first - int(begin), start + last - int(begin)))
    return found


def repeated(trusted: NDArray[np.bool_], window: int) -> NDArray[np.intp]:
    """Which rows, of those of which ``trusted`` (T,) says what a person confirmed, are learned among the oldest too.

    The confirmed ones with the window before each, the newest if there are many.  What calibrates a model is held out
    from the newest rows.  A state that only they hold, confirmed a moment ago, is unknown to what scores them: the
    threshold of a server whose nightly job was accepted was 64 without this, and 11 with it, where calm rows reach 5.
    """
    near = np.zeros(len(trusted), np.bool_)
    for edge in np.flatnonzero(np.diff(trusted, prepend=False)):  # where confirmed rows begin or end
        near[max(0, edge - window + 1) : edge] |= trusted[edge]
    return np.flatnonzero(near | trusted)[-most_repeated(len(trusted), window) :]


def most_repeated(rows: int, window: int) -> int:
    """How many of so many rows are learned twice at most."""
    return max(2 * window, int(_REPEATED_SHARE * rows))


# -- how still a feature stands ----------------------------------------------------------------------------------------


class Stillness:
    """What `longest_runs` finds, from rows that pass by a chunk at a time.

    Parameters
    ----------
    features : int
        F, columns of the rows.
    """

    def __init__(self, features: int) -> None:
        self._last = np.full(features, np.nan, np.float32)
        self._first = np.full(features, np.nan, np.float32)
        self._run = np.zeros(features, np.int32)
        self._longest = np.zeros(features, np.int32)
        self._moved = np.zeros(features, np.bool_)

    def add(self, rows: Float) -> None:
        """Take the next rows (N, F)."""
        if not len(rows):
            return
        row = np.arange(len(rows), dtype=np.int32)[:, None]
        same = rows == np.concatenate([self._last[None], rows[:-1]])
        begin = np.maximum.accumulate(np.where(same, -self._run, row), axis=0)  # of the run each row is in
        length = row + 1 - begin
        self._longest = np.maximum(self._longest, length.max(axis=0))
        self._run = length[-1]
        unknown = np.isnan(self._first)
        if unknown.any():
            first = np.argmax(~np.isnan(rows), axis=0)
            self._first = np.where(unknown, rows[first, np.arange(rows.shape[1])], self._first)
        self._moved |= ((rows != self._first) & ~np.isnan(rows)).any(axis=0)
        self._last = rows[-1]

    def longest_run(self) -> NDArray[np.int32]:
        """Most rows in a row without a change so far, shape (F,)."""
        longest = np.maximum(self._longest, self._run)
        return np.where(self._moved, longest, np.iinfo(np.int32).max).astype(np.int32)


def longest_runs(rows: Rows) -> NDArray[np.int32]:
    """Most rows in a row without a change, for each feature (F,); the largest int32 for one that never changed."""
    longest = np.empty(rows.shape[1], np.int32)
    for f, column in enumerate(rows.T):
        known = column[~np.isnan(column)]
        moved = known.size > 0 and bool((known != known[0]).any())
        starts = np.flatnonzero(np.concatenate([[True], column[1:] != column[:-1], [True]]))
        longest[f] = np.diff(starts).max() if moved else np.iinfo(np.int32).max
    return longest


def extremes(rows: Judged, chosen: NDArray[np.intp]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Lowest and highest value of each feature, both (F,), in rows at indices ``chosen``; NaN where it has none."""
    least = np.full(rows.shape[1], np.nan, np.float32)
    most = least.copy()
    size = max(1, _CHUNK_BYTES // (8 * rows.shape[1]))
    for i in range(0, len(chosen), size):
        chunk = rows[chosen[i : i + size]]
        least = np.fmin(least, np.fmin.reduce(chunk, axis=0)).astype(np.float32)
        most = np.fmax(most, np.fmax.reduce(chunk, axis=0)).astype(np.float32)
    return least, most
