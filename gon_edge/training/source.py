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

_TIME_COLUMNS = ("timestamp", "datetime", "time", "date", "ts")
"""Names, in lower case, that a column of times mostly has.  Not critical: rows of other files are counted."""

_CSV_CHUNK_ROWS = 1024
"""Not critical: a chunk of 500 features is 2 MiB."""

_NAMED_ROWS = 1000
"""Of a span that a person named, whose scores may move a threshold.  Not critical: an alert of longer is no matter of
a threshold, and its rows are learned."""

_CSV_GAP = 3.0
"""Intervals without a row that windows must not reach over.  Not critical: a row or two that are lost are filled."""


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
        stored = quarantined = usable = 0
        trusted: list[tuple[int, int]] = []
        sets: dict[tuple[str, ...], None] = {}
        self._since, newest = math.inf, -math.inf
        for chunk in self._outlines():
            known = chunk.timestamps <= job.until
            stored += int(known.sum())
            quarantined += int((known & chunk.quarantined).sum())
            chosen = known & ~within(job.faults, chunk.timestamps)
            if not job.include_quarantined:
                chosen &= ~chunk.quarantined
            if not chosen.any():
                continue
            self._since = min(self._since, float(chunk.timestamps[chosen][0]))
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
        days = not job.rows_file and newest - self._since >= LEAST_SPAN_S and len(self._readings) <= MOST_FEATURES
        self._differences = tuple(name + SUFFIX for name in self._readings) if days else ()
        self.features = self._readings + self._differences

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
        if job.rows_file:
            yield from _csv_chunks(job)
            return
        with Store.open(job.state_dir, read_only=True) as store:
            yield from store.outline(job.stream, since=job.since)

    def _chunks(self) -> Iterator[RowChunk]:
        """Rows from ``since`` on that may be learned."""
        job = self._job
        if job.rows_file:
            yield from _kept(_csv_chunks(job), lambda chunk: ~within(job.faults, chunk.timestamps))
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
        begin_s = self._since + DAYS * DAY_S
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


def _csv_chunks(job: Job) -> Iterator[RowChunk]:
    """Rows of ``rows_file``; times are those of the first column that is named like one, else counted from 0."""
    # 1 MiB that neither a round from the store nor the daemon needs.
    from gon_edge.state.csvfile import CsvFile, cell_number
    from gon_edge.stream.times import unix_seconds

    with CsvFile(job.rows_file) as table:
        names = [name.lower() for name in table.columns]
        clock = next((names.index(name) for name in _TIME_COLUMNS if name in names), None)
        columns = [i for i in range(len(names)) if i != clock]
        features = tuple(table.columns[i] for i in columns)
        if not features:
            raise InputError(f"{table.name}: has no column to learn from")
        timestamps = np.empty(_CSV_CHUNK_ROWS)
        values = np.empty((_CSV_CHUNK_ROWS, len(columns)), np.float32)
        count = line = 0
        before = -math.inf
        for cells in table:
            moment = float(line) * (job.interval_s or 1.0)
            if clock is not None:
                try:
                    number = cell_number(cells[clock])
                    moment = unix_seconds(cells[clock] if number is None else number)
                except ValueError as error:
                    raise InputError(f"{table.name}:{table.line}: {cells[clock]!r} is no time: {error}") from None
            line += 1
            if job.since is not None and moment < job.since:
                continue
            measured = (cell_number(cells[i]) for i in columns)
            timestamps[count] = moment
            values[count] = [math.nan if value is None else value for value in measured]
            count += 1
            if count == _CSV_CHUNK_ROWS:
                yield _csv_chunk(job, features, timestamps, values, before)
                before, count = float(timestamps[-1]), 0
        if count:
            yield _csv_chunk(job, features, timestamps[:count], values[:count], before)


def _csv_chunk(
    job: Job, features: tuple[str, ...], timestamps: NDArray[np.float64], values: Float, before: float
) -> RowChunk:
    steps = np.diff(timestamps, prepend=before)
    restart = ~((steps > 0.0) & (steps <= _CSV_GAP * job.interval_s)) if job.interval_s else ~(steps > 0.0)
    restart[0] |= before == -math.inf
    return RowChunk(features, timestamps, values, restart, np.zeros(len(timestamps), np.bool_))
