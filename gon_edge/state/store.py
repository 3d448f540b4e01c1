"""What survives a restart, behind one door: rows, alerts, states and training rounds, in one SQLite file.

Everything is first held in memory and reaches the disk in few large writes, because each costs the same 25 kB or so
however little it holds (`database`).  So flushes are rare and rows are packed; the first flushes after a start come
sooner, so that a device that is still being set up keeps its warm-up.  Nothing here raises into the scoring loop: a
full or read-only disk leaves the rows in memory, bounded, and `flush` tries again later, while what was written before
can be read; a damaged file is set aside and a fresh one begun.  A file that somebody deletes or replaces while it is
open is noticed at the next flush, which writes what memory holds to the file of that name.

`Store` decides when to write and what to do when that fails.  What is written is told by subject in `rows` and
`history`, the file in `database`.  It knows no clock and no thread: the caller passes monotonic seconds, and one thread
uses one `Store`.  Only one writing process may hold a state directory; readers (`read_only=True`) may come and go.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gon_edge.errors import StoreError
from gon_edge.events import Row
from gon_edge.state import streams
from gon_edge.state.chunk import RowChunk
from gon_edge.state.database import DATABASE_ERRORS, DamageError, Database, is_damage, is_full_or_busy, said
from gon_edge.state.history import History, RetrainRecord
from gon_edge.state.rows import Rows

BUFFER_BYTES, STREAM_BUFFER_BYTES = 256 << 10, 4 << 10
"""Rows in memory that make a flush due ahead of its time: in all, or for each of many streams."""

_FIRST_FLUSH_S = 60.0  # after a start; then twice as long each time, up to flush_every_s
_URGENT_EVERY_S = 60.0  # what is urgent, as a new or ended alert, is written at once, but not more often than this
_RETRY_MIN_S, _RETRY_MAX_S = 30.0, 3600.0  # not critical: soon enough after a short trouble, rare in a long one


class Store:
    """The state directory's database; made by `Store.open`.

    Attributes
    ----------
    recovered : bool
        True when a damaged file was set aside since `open`; `recovered_reason` says why.
    write_errors : int
        Flushes that failed, or found that those before them went to a file nobody can find.
    replaced : int
        Times the file had been deleted or replaced while it was open.
    marked : callable
        Gets what `quarantine` (True) and `release` (False) get, for who keeps rows elsewhere as well.

    Examples
    --------
    >>> import tempfile
    >>> from gon_edge.events import Row
    >>> directory = Path(tempfile.mkdtemp())
    >>> with Store.open(directory) as store:
    ...     row = Row("pump", 60.0, ("flow",), np.float32([2.5]), np.array([False]))
    ...     store.add_row(row, False, now=0.0)
    ...     store.flush(now=1.0)
    ...     store.rows("pump")[1]
    True
    array([[2.5]], dtype=float32)
    """

    def __init__(
        self, state_dir: Path, max_bytes: int, rows_per_stream: int, flush_every_s: float, read_only: bool
    ) -> None:
        self.recovered = False
        self.recovered_reason: str | None = None
        self.write_errors = self.replaced = 0
        self.marked: Callable[[str, float, float, bool], None] = lambda stream, since, until, quarantined: None
        self._database = Database(state_dir, read_only=read_only)
        self._rows = Rows(self._database, max_bytes=max_bytes, rows_per_stream=rows_per_stream)
        self._history = History(self._database)

        self._flush_every_s = flush_every_s
        self._wait_s = min(_FIRST_FLUSH_S, flush_every_s)
        self._last_flush: float | None = None
        self._next_flush: float | None = None
        self._retry_s = 0.0
        self._out_of_memory = False  # the last flush failed for it

    @property
    def persistent(self) -> bool:
        """Whether a file is open that flushes go to; without one, as on a full disk, the rest works from memory."""
        return self._database.connection is not None

    @property
    def path(self) -> Path:
        """The file."""
        return self._database.path

    @property
    def readable(self) -> bool:
        """Whether what was written before can be read."""
        return self._database.connection is not None or self._database.reading is not None

    @property
    def last_error(self) -> str | None:
        """What the last attempt to read or write failed with; `None` after a success."""
        return self._database.last_error

    @property
    def rows_dropped(self) -> int:
        """Rows given up because the disk refused them for too long."""
        return self._rows.dropped

    @property
    def damaged_chunks(self) -> int:
        """Chunks that could not be read back."""
        return self._rows.damaged_chunks

    # -- opening and closing -------------------------------------------------------------------------------------------

    @classmethod
    def open(
        cls,
        state_dir: str | Path,
        *,
        max_bytes: int = 256 << 20,
        rows_per_stream: int = 604800,
        flush_every_s: float = 1800.0,
        read_only: bool = False,
    ) -> Store:
        """Open or create the database.

        Parameters
        ----------
        state_dir : str or Path
            Made when missing.
        max_bytes : int
            Size of the whole database; the oldest rows of the stream that holds most go first.
        rows_per_stream : int
            Older rows go, a chunk at a time, so a few more than this may be there.
        flush_every_s : float
            Longest time a row stays in memory alone; shorter in the first minutes after a start.
        read_only : bool
            For another process than the daemon: takes no lock, writes nothing, sees what has been flushed.

        Raises
        ------
        StoreError
            If another gon-edge holds the directory, if the path is not a directory, if the file was written by a newer
            gon-edge, or, read-only, if there is nothing to read.  Not for a disk that is full, read-only or damaged.
        """
        state_dir = Path(state_dir)
        store = cls(state_dir, max_bytes, rows_per_stream, flush_every_s, read_only)
        if state_dir.exists() and not state_dir.is_dir():
            raise StoreError(f"{state_dir} is not a directory; set state_dir to one")
        if read_only:
            store._database.connect_read_only()
            return store
        try:
            store._connect()
        except (*DATABASE_ERRORS, OSError) as error:
            store._database.failed(error)
            store._read_only_for_now()
        except StoreError:
            store.close()
            raise
        return store

    def _connect(self) -> None:
        """Open for writing; a damaged file is set aside first.  Raises what the disk raises."""
        self._database.lock()
        try:
            try:
                self._open()
            except DATABASE_ERRORS as error:
                if not isinstance(error, MemoryError) and not is_damage(error):
                    raise
                self._set_aside(str(error) or "its tables cannot be read")
                self._open()
        except Exception:
            self._database.disconnect()
            raise

    def _open(self) -> None:
        db = self._database.connect()
        self._rows.read_index(db)
        self._history.walk(db)
        self._database.damage = None

    def _read_only_for_now(self) -> None:
        """Let what was written before be read, although nothing can be written."""
        db = self._database.read_only_for_now()
        try:
            if db is not None:
                self._rows.read_index(db)
        except DATABASE_ERRORS:
            self._database.stop_reading()

    def _begin_anew(self) -> None:
        """Leave a file that was deleted or replaced; what memory holds is for the one that has its name now.

        Open alerts, silences and what streams remember can still be read through the lost file, and go along.  The
        rows in it do not: there may be 256 MB of them, and a person may have meant to delete them.
        """
        self.replaced += 1
        self.write_errors += 1
        if self._database.connection is not None:
            with contextlib.suppress(*DATABASE_ERRORS, OSError):
                self._history.take_back(self._database.connection)
        self._database.leave_lost()
        self._rows.file_is_gone()
        self._history.file_is_gone()

    def _set_aside(self, reason: str) -> None:
        aside = self._database.set_aside()
        self.recovered = True
        self.recovered_reason = f"{reason}; the damaged file is {aside}"
        self._rows.file_is_gone()
        self._history.file_is_gone()

    def close(self) -> None:
        """Release file and lock.  What was not flushed is lost: call `flush` first."""
        self._database.close()

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # -- taking --------------------------------------------------------------------------------------------------------

    def add_row(self, row: Row, quarantined: bool, now: float) -> None:
        """Keep one row, in memory for now.

        Parameters
        ----------
        row : Row
            Stale values are kept as NaN.
        quarantined : bool
            True for a row that must not be learned, such as one inside an alert.
        now : float
            Monotonic seconds.
        """
        self._rows.add(row, quarantined)
        if self._next_flush is None:
            self._next_flush = now + self._wait_s

    def add_alert(self, event: Mapping[str, Any]) -> None:
        """Keep an event as `held.alert_json` makes it; the newest event of an alert replaces the one before."""
        self._history.add_alert(event)

    def quarantine(self, stream: str, since: float, until: float) -> int:
        """Mark the rows from `since` to `until` (Unix seconds, both included) as not to be learned; count them."""
        self._database.require_writable()
        self.marked(stream, since, until, True)
        return self._rows.requarantine(stream, since, until, True)

    def release(self, stream: str, since: float, until: float) -> int:
        """Let the quarantined rows from `since` to `until` be learned after all; count them.

        Rows on the disk are changed at once, in one transaction; a chunk that cannot be read is left as it is.  A disk
        that refuses changes none of its rows: `last_error` says why.
        """
        self._database.require_writable()
        self.marked(stream, since, until, False)
        return self._rows.requarantine(stream, since, until, False)

    def newest_chunk(self) -> int:
        """Number of the newest chunk of rows on the disk, of whatever stream; 0 without one."""
        return self._rows.newest_chunk()

    def packed(self, after: int) -> list[tuple[int, str, str, bytes]]:
        """Chunks above a number, each as number, stream, features as JSON, payload; for who keeps them elsewhere."""
        return self._rows.packed(after)

    def restamp(self, stream: str, delta_s: float, after: int) -> int:
        """Move the timestamps of a stream's newest rows, as when the clock that gave them is set; count them.

        ``delta_s`` is positive for later; ``after`` is what `newest_chunk` said before the first of these rows came.
        """
        self._database.require_writable()
        return self._rows.restamp(stream, delta_s, after)

    def put_state(self, key: str, value: Any, *, urgent: bool = False) -> None:
        """Keep a JSON value under a key, on the disk as soon as an alert is where it is `urgent`.

        Writing what is already there costs nothing.
        """
        self._history.put_state(key, value, urgent=urgent)

    def add_retrain(self, record: RetrainRecord) -> None:
        """Keep the record of one training round."""
        self._history.add_retrain(record)

    def remove_stream(self, stream: str, now: float) -> None:
        """Delete all there is of a stream; raises `StoreError` where the disk refuses, and nothing has changed."""
        with self._at_once(now, stream) as db:
            streams.remove(db, stream)
        self._rows.forget(stream)

    def remove_rows(self, stream: str, now: float) -> None:
        """Delete the rows of a stream and nothing else of it; raises as `remove_stream` does."""
        with self._at_once(now, stream) as db:
            streams.remove_rows(db, stream)
        self._rows.forget(stream)

    def rename_stream(self, old: str, new: str, now: float) -> None:
        """Give all there is of a stream to another one; raises as `remove_stream` does."""
        with self._at_once(now, old, new) as db:
            streams.rename(db, old, new)
        self._rows.rename(old, new)

    @contextlib.contextmanager
    def _at_once(self, now: float, *names: str) -> Iterator[sqlite3.Connection]:
        """A transaction that somebody waits for; after it memory knows no more of some streams than the disk."""
        if not self.flush(now):
            raise StoreError(f"{self.last_error}")
        try:
            with self._database.transaction() as db:
                yield db
            for stream in names:
                self._history.forget(stream)
        except (*DATABASE_ERRORS, OSError) as error:
            self._database.failed(error)
            raise StoreError(f"{self.last_error}") from None

    # -- writing -------------------------------------------------------------------------------------------------------

    def due(self, now: float) -> bool:
        """Say whether `flush` should be called now (monotonic seconds)."""
        if self._retry_s == 0.0:
            recently = self._last_flush is not None and now - self._last_flush < _URGENT_EVERY_S
            if self._history.urgent and not recently:
                return True
            if self._rows.are_many(BUFFER_BYTES, STREAM_BUFFER_BYTES):
                return True
            if self._next_flush is None and self._history.waiting:
                self._next_flush = now + self._wait_s
        return self._next_flush is not None and now >= self._next_flush

    def flush(self, now: float, stream: str | None = None) -> bool:
        """Write everything held in memory; tell whether it is on the disk.

        A failure is not raised: `last_error` has it, the rows stay, and `due` says when to try again.

        Parameters
        ----------
        now : float
            Monotonic seconds.
        stream : str, optional
            Of all rows write only its own.  A few rows in a chunk take as long to be read as a full one.
        """
        self._database.require_writable()
        self._rows.pack(stream)
        self._last_flush = now
        try:
            if self._database.is_lost():
                self._begin_anew()
            if not self.persistent:
                self._connect()
            if self._database.damage is not None:
                raise DamageError(self._database.damage)
            with self._database.transaction() as db:
                self._rows.write(db)
                self._history.write(db)
        except (*DATABASE_ERRORS, OSError, StoreError) as error:
            self._failed(error, now)
            return False
        self._rows.committed()
        self._history.committed()
        self._database.last_error = None
        self._retry_s = 0.0
        self._out_of_memory = False
        if stream is None:
            self._next_flush = None
            self._wait_s = min(2 * self._wait_s, self._flush_every_s)
        return True

    def _failed(self, error: Exception, now: float) -> None:
        self.write_errors += 1
        # Twice in a row it is the file: between the two it is closed, which gives back what SQLite held.
        damaged = is_damage(error) or (self._out_of_memory and isinstance(error, MemoryError))
        self._out_of_memory = isinstance(error, MemoryError)
        self._database.failed(error)
        self._retry_s = min(max(2 * self._retry_s, _RETRY_MIN_S), _RETRY_MAX_S)
        self._next_flush = now + self._retry_s
        if damaged:
            try:
                self._set_aside(said(error))
            except OSError as refused:
                self._database.failed(refused)
        elif not is_full_or_busy(error):
            self._database.disconnect()  # and open again next time: the disk may have been replaced or mounted again
            if self._database.reading is None:
                self._read_only_for_now()

    # -- reading -------------------------------------------------------------------------------------------------------

    def streams(self) -> dict[str, int]:
        """Rows held of each stream, on the disk and in memory, quarantined ones included."""
        return self._rows.streams()

    def count(self, stream: str) -> int:
        """Rows held of one stream, as `streams` counts them; only where the store was opened for writing."""
        return self._rows.count(stream)

    def chunks(
        self, stream: str, *, since: float | None = None, include_quarantined: bool = False
    ) -> Iterator[RowChunk]:
        """Yield a stream's rows a chunk at a time, oldest first, so that a reader never holds them all.

        Parameters
        ----------
        stream : str
        since : float, optional
            Unix seconds; older rows are left out.
        include_quarantined : bool
            Whether rows that must not be learned are among them.

        Yields
        ------
        RowChunk
            `restart` is also True where rows were left out before a row: a window over it would join what was apart.
            Each chunk has the features the stream had then.
        """
        return self._rows.chunks(stream, since=since, include_quarantined=include_quarantined)

    def within(self, stream: str, spans: Sequence[tuple[float, float]]) -> Iterator[tuple[int, RowChunk]]:
        """Yield what is on the disk of some spans of time, a chunk at a time; no other chunk is read.

        Parameters
        ----------
        stream : str
        spans : sequence of (float, float)
            From when until when, Unix seconds, in the order in which they are wanted.

        Yields
        ------
        int, RowChunk
            The number of the span, and a chunk with rows of it, quarantined ones included; it may have others, too.
        """
        return self._rows.within(stream, spans)

    def outline(self, stream: str, *, since: float | None = None) -> Iterator[RowChunk]:
        """Yield as `chunks` does, quarantined rows among them, but without values, for a tenth of the work.

        Values have shape (N, 0).  For rows still in memory, which have been given to no disk yet, the values are there.
        """
        return self._rows.outline(stream, since=since)

    def rows(
        self, stream: str, *, limit: int | None = None, since: float | None = None, include_quarantined: bool = False
    ) -> tuple[NDArray[np.float64], NDArray[np.float32], tuple[str, ...], NDArray[np.bool_]]:
        """Return a stream's newest rows as arrays, oldest first.

        Parameters
        ----------
        stream : str
        limit : int, optional
            At most this many, the newest; no more chunks are read than they need.
        since, include_quarantined
            As in `chunks`.

        Returns
        -------
        timestamps : ndarray of float64, shape (N,)
            Unix seconds.
        values : ndarray of float32, shape (N, F)
            NaN where unknown, stale, or before a feature first came.
        features : tuple of str
            The newest chunk's in its order, then those only older chunks have.
        restart : ndarray of bool, shape (N,)
            True where windows must start anew; always in the first row.
        """
        return self._rows.newest(stream, limit=limit, since=since, include_quarantined=include_quarantined)

    def alerts(self, limit: int = 100, stream: str | None = None, active: bool | None = None) -> list[dict[str, Any]]:
        """Return the last event of each alert, the newest alert first, as `add_alert` took it.

        Parameters
        ----------
        limit : int
        stream : str, optional
            Only this stream's.
        active : bool, optional
            Only those that have not ended, or only those that have.
        """
        return self._history.alerts(limit, stream, active)

    def alert(self, name: str) -> dict[str, Any] | None:
        """Return the last event of the alert with this id, as `add_alert` took it, or `None`."""
        return self._history.alert(name)

    def state(self, key: str) -> Any:
        """Return the JSON value kept under a key, or `None`."""
        return self._history.state(key)

    def retrains(self, limit: int = 100, stream: str | None = None) -> list[RetrainRecord]:
        """Return training rounds, the newest first."""
        return self._history.retrains(limit, stream)
