"""The rows a job may learn from, in the daemon's store or in a CSV file: counted first, then read.

A chunk at a time and never all of them, so that memory is what was planned.  The store is opened for reading only.
Which rows are taken when there are too many is `rows.choose_blocks`; what is made of them is `fit`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator

import numpy as np
from numpy.typing import NDArray

from gon_edge.errors import InputError
from gon_edge.model.counters import rising
from gon_edge.model.daily import DAY_S, DAYS, LEAST_SPAN_S, MOST_FEATURES, SUFFIX, DayMemory, is_difference
from gon_edge.model.gon import Float
from gon_edge.state.chunk import RowChunk
from gon_edge.state.store import Store
from gon_edge.training.answers import Span
from gon_edge.training.job import Job
from gon_edge.training.rows import Stillness, choose_blocks, most_repeated, repeated

_CSV_CHUNK_ROWS = 1024
"""Not critical: a chunk of 500 features is 2 MiB."""

_NAMED_ROWS = 1000
"""Of a span that a person named, whose scores may move a threshold.  Not critical: an alert of longer is no matter of
a threshold, and its rows are learned."""


class Source:
    """The rows a job may learn from.

    Parameters
    ----------
    job : Job

    Attributes
    ----------
    stored : int
        Rows there are, up to the job's newest.
    quarantined : int
        Of them, rows that must not be learned.
    usable : int
        Rows that may be learned; they are numbered from 0, the oldest.
    oldest : float
        Unix seconds of that one; infinite where there is none.
    trusted : tuple of (int, int)
        Spans (start, stop) of usable rows that a person confirmed as normal.
    features : tuple of str
        The newest rows' features in their order, then those only older rows have.  Where the rows of the store reach
        over some days, a difference to other days follows for each of them (`gon_edge.model.daily`).

    Raises
    ------
    StoreError
        The store cannot be read.
    InputError
        ``rows_file`` cannot be read.
    """

    def __init__(self, job: Job) -> None:
        self._job = job
        self._file = _File(job) if job.rows_file else None
        stored = quarantined = usable = 0
        trusted: list[tuple[int, int]] = []
        sets: dict[tuple[str, ...], None] = {}
        self.oldest, newest = math.inf, -math.inf
        for chunk in self._outlines():
            known = chunk.timestamps <= job.until
            stored += int(known.sum())
            quarantined += int((known & chunk.quarantined).sum())
            chosen = known & ~within(job.faults, chunk.timestamps)
            if not job.include_quarantined:
                chosen &= ~chunk.quarantined
            if not chosen.any():
                continue
            self.oldest = min(self.oldest, float(chunk.timestamps[chosen][0]))
            newest = float(chunk.timestamps[chosen][-1])
            sets.pop(chunk.features, None)
            sets[chunk.features] = None
            edges = np.flatnonzero(np.diff(within(job.normal, chunk.timestamps[chosen]), prepend=False, append=False))
            for start, stop in edges.reshape(-1, 2) + usable:
                if trusted and trusted[-1][1] == start:
                    start = trusted.pop()[0]
                trusted.append((int(start), int(stop)))
            usable += int(chosen.sum())
        self.stored, self.quarantined, self.usable = stored, quarantined, usable
        self.trusted = tuple(trusted)
        names = tuple(dict.fromkeys(name for names in reversed(sets) for name in names))
        self._readings = tuple(name for name in names if not is_difference(name, names))
        days = not job.rows_file and newest - self.oldest >= LEAST_SPAN_S and len(self._readings) <= MOST_FEATURES
        self._differences = tuple(name + SUFFIX for name in self._readings) if days else ()
        self.features = self._readings + self._differences

    @property
    def interval_s(self) -> float:
        """Seconds from row to row: the file's own where rows come from one, else the job's."""
        found = self._file.interval_s if self._file is not None else None
        return found or self._job.interval_s

    def read(self, count: int) -> tuple[RowChunk, NDArray[np.int32], int]:
        """``count`` of the usable rows, and how long each feature may stand still.

        Fewer rows where the daemon has pruned old ones since they were counted.  A feature without a single value is
        left out.

        Returns
        -------
        rows : RowChunk
            Those that are learned twice, then all of them, oldest first; none counts as quarantined.
        longest_run : ndarray of int32, shape (F,)
            Of all the usable rows, which pass by for that.
        twice : int
            How many come first because a person confirmed them: see `rows.repeated`.
        """
        job, window = self._job, self._job.settings.window
        room = most_repeated(count, window) if self.trusted else 0
        blocks = choose_blocks(self.usable, self.trusted, count, np.random.default_rng((job.seed, 1)))
        column = {name: i for i, name in enumerate(self.features)}
        timestamps, restart = np.empty(room + count), np.zeros(room + count, np.bool_)
        values = np.empty((room + count, len(column)), np.float32)
        still = Stillness(len(column))
        index, at = 0, room
        for chunk in self._chunks():
            kept = chunk.timestamps <= job.until
            rows = np.full((int(kept.sum()), len(column)), np.nan, np.float32)
            for name, measured in zip(chunk.features, chunk.values.T, strict=True):
                if name in column:
                    rows[:, column[name]] = measured[kept]
            still.add(rows)
            for start, stop in blocks:
                first, last = max(start - index, 0), min(stop - index, len(rows))
                if first < last:
                    place = slice(at, at + last - first)
                    timestamps[place] = chunk.timestamps[kept][first:last]
                    values[place], restart[place] = rows[first:last], chunk.restart[kept][first:last]
                    restart[at] |= start >= index
                    at = place.stop
            index += len(rows)
        known: NDArray[np.bool_] = np.logical_not(np.logical_and.reduce(np.isnan(values[room:at]), axis=0))
        # A counter is never twice where it was: at no hour is its level usual.
        readings, kinds = self._readings, (job.settings.counter, job.settings.gauge)
        counters = rising(values[room:at, : len(readings)], restart[room:at], readings, *kinds)
        known[len(self._readings) :] &= ~counters[: len(self._differences)]
        if not known.all() and known.any():
            values = values[:, known]
        else:
            known[:] = True
        features = tuple(name for name, there in zip(self.features, known, strict=True) if there)
        twice = repeated(within(job.normal, timestamps[room:at]), window) if room else np.empty(0, np.intp)
        first = room - len(twice)
        for array in (timestamps, values, restart):
            array[first:room] = array[room:at][twice]
        restart[first:room][1:] |= np.diff(twice) > 1
        restart[first : first + 1] = restart[room : room + 1] = True
        taken = slice(first, at)
        read = RowChunk(features, timestamps[taken], values[taken], restart[taken], np.zeros(at - first, np.bool_))
        return read, still.longest_run()[known], len(twice)

    def withheld(self, since: float) -> float:
        """Which share of the rows after a time, Unix seconds, is quarantined."""
        count = quarantined = 0
        for chunk in self._outlines():
            newer = (chunk.timestamps > since) & (chunk.timestamps <= self._job.until)
            count += int(newer.sum())
            quarantined += int((newer & chunk.quarantined).sum())
        return quarantined / count if count else 0.0

    def named(self, span: Span) -> tuple[RowChunk, int] | None:
        """Rows of a span that a person named, whether they may be learned or not; the first of them if it is long.

        Returns
        -------
        rows : RowChunk
            With up to a window of rows before them.
        first : int
            Which of them is the first one of the span.  ``None`` where no row is stored there.
        """
        job, window = self._job, self._job.settings.window
        found: list[RowChunk] = []
        count, most = 0, window + _NAMED_ROWS
        with Store.open(job.state_dir, read_only=True) as store:
            begin = span[0] - window * job.interval_s
            chunks = store.chunks(job.stream, since=begin, include_quarantined=True)
            if self._differences:  # which take the days before
                memory = DayMemory()
                chunks = store.chunks(job.stream, since=begin - (DAYS + 1) * DAY_S, include_quarantined=True)
                wide = (self._widened(chunk, memory) for chunk in chunks)
                chunks = _kept(wide, lambda chunk: chunk.timestamps >= begin)
            for chunk in chunks:
                if (found and chunk.features != found[0].features) or chunk.timestamps[0] > span[1] or count >= most:
                    break
                found.append(chunk)
                count += len(chunk.timestamps)
        if not found:
            return None
        timestamps = np.concatenate([chunk.timestamps for chunk in found])[:most]
        first, stop = (int(place) for place in np.searchsorted(timestamps, span, "left"))
        stop += int(np.searchsorted(timestamps[stop:], span[1], "right"))
        values = np.concatenate([chunk.values for chunk in found])[:stop]
        restart = np.concatenate([chunk.restart for chunk in found])[:stop]
        rows = RowChunk(found[0].features, timestamps[:stop], values, restart, np.zeros(stop, np.bool_))
        return (rows, first) if first < stop else None

    def _outlines(self) -> Iterator[RowChunk]:
        """All rows from ``since`` on, quarantined ones too; values may be missing."""
        job = self._job
        if self._file is not None:
            yield from self._file.chunks()
            return
        with Store.open(job.state_dir, read_only=True) as store:
            yield from store.outline(job.stream, since=job.since)

    def _chunks(self) -> Iterator[RowChunk]:
        """Rows from ``since`` on that may be learned."""
        job = self._job
        if self._file is not None:
            yield from _kept(self._file.chunks(), lambda chunk: ~within(job.faults, chunk.timestamps))
            return
        with Store.open(job.state_dir, read_only=True) as store:
            yield from _kept(
                self._compared(store)
                if self._differences
                else store.chunks(job.stream, since=job.since, include_quarantined=job.include_quarantined),
                lambda chunk: ~within(job.faults, chunk.timestamps) & (job.include_quarantined | ~chunk.quarantined),
            )

    def _compared(self, store: Store) -> Iterator[RowChunk]:
        """All rows with their differences to other days, which rows that may not be learned are as well.

        The first rows are compared with the days after them, too.  A record of three days would else hold one day that
        is compared with nothing and one with a single other, and its model would take far more for normal.
        """
        job, width = self._job, len(self._readings)
        begin_s = self.oldest + DAYS * DAY_S
        first, memory = DayMemory(), DayMemory()
        for chunk in store.chunks(job.stream, since=job.since, include_quarantined=True):
            if chunk.timestamps[0] >= begin_s + DAY_S:
                break
            of_first = chunk.timestamps < begin_s + DAY_S
            first.add(chunk.timestamps[of_first], chunk.features, chunk.values[of_first])
        for chunk in store.chunks(job.stream, since=job.since, include_quarantined=True):
            wide = self._widened(chunk, memory)
            early = chunk.timestamps < begin_s
            measured = wide.values[early, :width]
            wide.values[early, width:] = _known(first.around(chunk.timestamps[early], self._readings, measured))
            yield wide

    def _widened(self, chunk: RowChunk, memory: DayMemory) -> RowChunk:
        """A chunk with the differences to the days before that the memory holds, which remembers it."""
        width = len(self._readings)
        rows = np.full((len(chunk.timestamps), 2 * width), np.nan, np.float32)
        place = {name: i for i, name in enumerate(chunk.features)}
        for f, name in enumerate(self._readings):
            if name in place:
                rows[:, f] = chunk.values[:, place[name]]
        rows[:, width:] = _known(memory.take(chunk.timestamps, self._readings, rows[:, :width]))
        return RowChunk(self.features, chunk.timestamps, rows, chunk.restart, chunk.quarantined)


def within(spans: Iterable[Span], timestamps: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Which rows, by their times (N,), lie in one of the spans."""
    found = np.zeros(len(timestamps), np.bool_)
    for since, until in spans:
        found |= (timestamps >= since) & (timestamps <= until)
    return found


def _known(differences: Float) -> Float:
    """Differences with NaN where there is no other day."""
    return np.where(np.isinf(differences), np.float32(np.nan), differences)


def _kept(chunks: Iterable[RowChunk], wanted: Callable[[RowChunk], NDArray[np.bool_]]) -> Iterator[RowChunk]:
    """Chunks with the rows (N,) that are wanted; the row after a place where some are not begins a new piece."""
    cut = False
    for chunk in chunks:
        kept = wanted(chunk)
        restart = chunk.restart | np.concatenate([[cut], ~kept[:-1]])
        cut = not kept[-1]
        if kept.any():
            yield RowChunk(
                chunk.features, chunk.timestamps[kept], chunk.values[kept], restart[kept], chunk.quarantined[kept]
            )


class _File:
    """Rows of ``rows_file``, which the reader of tables has looked through once.

    Attributes
    ----------
    interval_s : float or None
        The file's, if its rows have times.
    """

    def __init__(self, job: Job) -> None:
        # 2 MiB that neither a round from the store nor the daemon needs.
        from gon_edge.tables.layout import TableOptions
        from gon_edge.tables.table import Table

        self._step_s = job.interval_s or 1.0
        try:
            reading = TableOptions.from_json(job.rows_options)
        except TypeError:
            raise InputError(
                f"{job.rows_file}: how to read it is not understood; is the command a newer one?"
            ) from None
        self._table = Table(job.rows_file, reading)
        self.interval_s = self._table.interval_s if self._table.has_times else None

    def chunks(self) -> Iterator[RowChunk]:
        """The rows; without times they are counted from 0, an interval each."""
        from gon_edge.tables.grid import grid

        table = self._table
        timestamps = np.empty(_CSV_CHUNK_ROWS)
        values = np.empty((_CSV_CHUNK_ROWS, len(table.features)), np.float32)
        restart = np.empty(_CSV_CHUNK_ROWS, np.bool_)
        count = 0
        for row in grid(table, table.features, texts=False):
            timestamps[count] = row.at if table.has_times else row.at * self._step_s
            values[count], restart[count] = row.values, row.restart
            count += 1
            if count == _CSV_CHUNK_ROWS:
                yield _chunk(table.features, timestamps, values, restart)
                count = 0
        if count:
            yield _chunk(table.features, timestamps[:count], values[:count], restart[:count])


def _chunk(
    features: tuple[str, ...], timestamps: NDArray[np.float64], values: Float, restart: NDArray[np.bool_]
) -> RowChunk:
    return RowChunk(features, timestamps, values, restart, np.zeros(len(timestamps), np.bool_))
