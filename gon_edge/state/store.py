"""What survives a restart: recent rows, alert history, policy states, training history, in one SQLite file.

Everything is first held in memory and reaches the disk in few large writes.  SQLite runs in WAL mode: `kill -9` costs
what was not flushed yet, a power cut perhaps the last half minute more, neither what is older.  Nothing here raises
into the scoring loop: a full or read-only disk leaves the rows in memory, bounded, and `flush` tries again later; a
damaged file is set aside and a fresh one begun.

What a write costs, and why the defaults are what they are: each flush rewrites about 25 kB of pages that hold no new
data (the ends of the WAL, SQLite's index of it, the file's first page), and each new page is written twice, into the
WAL and into the file.  So flushes are rare and rows are packed (`chunk`); pages are small, because a flush touches few.
The first flushes after a start come sooner, so that a device that is still being set up keeps its warm-up.

This module knows no clock and no thread: the caller passes monotonic seconds, and one thread uses one `Store`.  Only
one writing process may hold a state directory (`lock`); readers (`read_only=True`) may come and go.  A change of the
tables needs a new `SCHEMA_VERSION`.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import sqlite3
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from gon_edge.errors import StoreError
from gon_edge.events import Row
from gon_edge.state.chunk import RowChunk, decode, encode, outline, requarantine

SCHEMA_VERSION = 1
DATABASE = "state.db"
LOCK = "lock"
DAMAGED_KEPT = 2
"""Damaged files kept for inspection; older ones are removed."""

ALERTS_KEPT = 1000
RETRAINS_KEPT = 1000

BUFFER_BYTES = 256 << 10
"""Rows in memory that make a flush due ahead of its time."""

REFUSED_BYTES = 4 << 20
"""Rows, packed, that are kept in memory while the disk refuses them; then the oldest are given up."""

_CHUNK_ROWS = 1024
_CHUNK_BYTES = 256 << 10  # packing needs some ten times this for a moment
_FIRST_FLUSH_S = 60.0  # after a start; then twice as long each time, up to flush_every_s
_URGENT_EVERY_S = 60.0  # a new or ended alert is written at once, but not more often than this
_RETRY_MIN_S, _RETRY_MAX_S = 30.0, 3600.0
_BUSY_S = 1.0
_PAGE_BYTES = 1024

_APPLICATION_ID = 0x676F6E00  # "gon", plus the version

_DAMAGE_CODES = {
    sqlite3.SQLITE_ERROR,  # a table is gone
    sqlite3.SQLITE_CORRUPT,
    sqlite3.SQLITE_NOTADB,
    sqlite3.SQLITE_FORMAT,
    sqlite3.SQLITE_MISMATCH,
    sqlite3.SQLITE_TOOBIG,
    sqlite3.SQLITE_CONSTRAINT,
}

# No index beside a table: each is one more page to write, and a damaged one gives wrong answers in silence.
_SCHEMA = """
CREATE TABLE stream (id INTEGER PRIMARY KEY, name TEXT NOT NULL);
CREATE TABLE feature_set (id INTEGER PRIMARY KEY, names TEXT NOT NULL);
CREATE TABLE chunk (
    id INTEGER PRIMARY KEY,
    stream INTEGER NOT NULL,
    feature_set INTEGER NOT NULL,
    newest REAL NOT NULL,
    rows INTEGER NOT NULL,
    gap INTEGER NOT NULL,
    payload BLOB NOT NULL
);
CREATE TABLE alert (
    id TEXT PRIMARY KEY,
    stream TEXT NOT NULL,
    active INTEGER NOT NULL,
    since REAL NOT NULL,
    event TEXT NOT NULL
) WITHOUT ROWID;
CREATE TABLE state (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE retrain (seq INTEGER PRIMARY KEY, stream TEXT NOT NULL, record TEXT NOT NULL);
"""


@dataclass(frozen=True, slots=True)
class RetrainRecord:
    """One training round.

    Attributes
    ----------
    stream : str
    version : str
        Of the model; empty when none came of it.
    started : float
        Unix seconds.
    duration_s : float
    outcome : str
        One word, as in the series `gon_edge_retrain_rounds_total`.
    peak_bytes : int
        Largest resident memory of the child.
    rows : int
        Rows it was trained from.
    reason : str
        One line for a person; empty when it went well.
    gate : mapping or None
        What the gate measured, a `gate.GateReport`; `None` where it had nothing to judge.
    """

    stream: str
    version: str
    started: float
    duration_s: float
    outcome: str
    peak_bytes: int
    rows: int
    reason: str
    gate: Mapping[str, Any] | None = None


@dataclass(slots=True)
class _Packed:
    """A chunk on its way to the disk."""

    stream: str
    features: tuple[str, ...]
    newest: float
    rows: int
    gap: bool
    payload: bytes


@dataclass(frozen=True, slots=True)
class _Stored:
    """What memory knows of a chunk on the disk."""

    id: int
    rows: int
    size_bytes: int


class _DamageError(Exception):
    """The file opens but is not what was written."""


# The second is raised by Python's own module, for text in the file or for a message of SQLite that quotes it; the last
# for SQLITE_NOMEM, which some damaged tables look like as well.
_DATABASE_ERRORS = (sqlite3.Error, UnicodeDecodeError, _DamageError, MemoryError)


class _Buffer:
    """The newest rows of one stream; arrays grow by doubling and are used again after `take`."""

    def __init__(self, features: tuple[str, ...]) -> None:
        self.features = features
        self.length = 0
        self.row_bytes = 10 + 4 * len(features)
        self.limit = max(1, min(_CHUNK_ROWS, _CHUNK_BYTES // self.row_bytes))
        self._allocate(min(64, self.limit))

    def _allocate(self, capacity: int) -> None:
        self.timestamps = np.empty(capacity, np.float64)
        self.values = np.empty((capacity, len(self.features)), np.float32)
        self.flags = np.empty((capacity, 2), np.bool_)  # restart, quarantined

    def add(self, row: Row, quarantined: bool) -> None:
        at = self.length
        if at == len(self.timestamps):
            old = self.timestamps, self.values, self.flags
            self._allocate(min(2 * at, self.limit))
            self.timestamps[:at], self.values[:at], self.flags[:at] = old
        self.timestamps[at] = row.timestamp
        values = self.values[at]
        values[:] = row.values
        values[row.stale] = np.nan  # held over from long ago: not what the sensor said
        self.flags[at] = row.restart, quarantined
        self.length = at + 1

    def rows(self) -> RowChunk:
        n = self.length
        flags = self.flags[:n].copy()
        return RowChunk(self.features, self.timestamps[:n].copy(), self.values[:n].copy(), flags[:, 0], flags[:, 1])


class Store:
    """The state directory's database; made by `Store.open`.

    Attributes
    ----------
    persistent : bool
        False while nothing reaches the disk (read-only, full at start, not writable); the rest works from memory.
    recovered : bool
        True when a damaged file was set aside since `open`; `recovered_reason` says why.
    last_error : str or None
        What the last attempt to read or write failed with; `None` after a success.
    write_errors : int
        Flushes that failed.
    rows_dropped : int
        Rows given up because the disk refused them for too long.
    damaged_chunks : int
        Chunks that could not be read back, and were left out.

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
        self.last_error: str | None = None
        self.write_errors = 0
        self.rows_dropped = 0
        self.damaged_chunks = 0
        self._path = state_dir / DATABASE
        self._max_bytes = max_bytes
        self._rows_per_stream = rows_per_stream
        self._flush_every_s = flush_every_s
        self._wait_s = min(_FIRST_FLUSH_S, flush_every_s)
        self._read_only = read_only
        self._lock: IO[bytes] | None = None
        self._db: sqlite3.Connection | None = None
        self._damage: str | None = None  # found by a reader; the next flush acts on it
        self._stored: dict[str, deque[_Stored]] = {}

        self._buffers: dict[str, _Buffer] = {}
        self._buffered_bytes = 0
        self._packed: deque[_Packed] = deque()
        self._packed_bytes = 0
        self._gap_before_next: set[str] = set()
        self._alerts: dict[str, Mapping[str, Any]] = {}
        self._states: dict[str, str] = {}
        self._states_written: dict[str, int] = {}
        self._retrains: list[RetrainRecord] = []

        self._urgent = False
        self._last_flush: float | None = None
        self._next_flush: float | None = None
        self._retry_s = 0.0
        self._out_of_memory = False  # the last flush failed for it

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
            try:
                store._connect_read_only()
            except (*_DATABASE_ERRORS, OSError) as error:
                raise StoreError(f"{store._path} cannot be read: {str(error) or 'it is damaged'}") from None
            return store
        try:
            store._connect()
        except (*_DATABASE_ERRORS, OSError) as error:
            store.last_error = f"{store._path}: {_said(error)}"
        except StoreError:
            store.close()
            raise
        return store

    def _acquire_lock(self) -> None:
        if self._lock is not None:
            return
        self._path.parent.mkdir(parents=True, exist_ok=True)
        lock = (self._path.parent / LOCK).open("ab")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.close()
            raise StoreError(
                f"another gon-edge runs with the state directory {self._path.parent}; stop it, or set state_dir"
            ) from None
        except OSError:
            lock.close()
            raise
        self._lock = lock

    def _connect(self) -> None:
        """Open for writing; a damaged file is set aside first.  Raises what the disk raises."""
        self._acquire_lock()
        try:
            try:
                self._open_database()
            except _DATABASE_ERRORS as error:
                if not isinstance(error, MemoryError) and not _is_damage(error):
                    raise
                self._set_aside(str(error) or "its tables cannot be read")
                self._open_database()
        except Exception:
            self._disconnect()
            raise

    def _open_database(self) -> None:
        db = self._db = sqlite3.connect(self._path, timeout=_BUSY_S, isolation_level=None, cached_statements=32)
        db.execute(f"PRAGMA page_size={_PAGE_BYTES}")
        db.execute("PRAGMA cache_size=-256")
        db.execute("PRAGMA mmap_size=0")
        db.execute("PRAGMA temp_store=MEMORY")
        db.execute("PRAGMA secure_delete=OFF")  # Debian builds SQLite with it on: every pruned page would be written
        db.execute("PRAGMA journal_mode=WAL")
        db.execute("PRAGMA synchronous=NORMAL")
        tables = {sql for (sql,) in db.execute("SELECT sql FROM sqlite_master")}
        version = self._version(db)
        if version == 0 and not tables:
            db.executescript(
                f"BEGIN IMMEDIATE; {_SCHEMA} PRAGMA user_version={SCHEMA_VERSION}; "
                f"PRAGMA application_id={_APPLICATION_ID + SCHEMA_VERSION}; COMMIT;"
            )
        elif version != SCHEMA_VERSION or tables != {sql.strip() for sql in _SCHEMA.split(";") if sql.strip()}:
            raise _DamageError("not a database of gon-edge")
        self._check_length()
        self._read_index()

    def _version(self, db: sqlite3.Connection) -> int:
        """Version of the tables; 0 in an empty file.  It stands there twice: damage must not look like a newer one."""
        (version,) = db.execute("PRAGMA user_version").fetchone()
        (application_id,) = db.execute("PRAGMA application_id").fetchone()
        if version > SCHEMA_VERSION and application_id == _APPLICATION_ID + version:
            raise StoreError(f"{self._path} was written by a newer gon-edge; upgrade, or move the file away")
        return int(version) if application_id in (0, _APPLICATION_ID + version) else -1

    def _check_length(self) -> None:
        """With the WAL written back, the file must be as long as its header says."""
        assert self._db is not None
        (busy, _, _) = self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        (pages,) = self._db.execute("PRAGMA page_count").fetchone()
        (page_bytes,) = self._db.execute("PRAGMA page_size").fetchone()
        if not busy and self._path.stat().st_size < pages * page_bytes:
            raise _DamageError(f"truncated: {self._path.stat().st_size} of {pages * page_bytes} bytes")

    def _read_index(self) -> None:
        """Learn which chunks there are; walks every table, which also finds most damage."""
        assert self._db is not None
        names = dict(self._db.execute("SELECT id, name FROM stream"))
        feature_sets = {number for (number,) in self._db.execute("SELECT id FROM feature_set")}
        stored: dict[str, deque[_Stored]] = {}
        query = "SELECT id, stream, feature_set, newest, rows, length(payload) FROM chunk ORDER BY id"
        for number, stream, feature_set, newest, rows, size_bytes in self._db.execute(query):
            known = stream in names and feature_set in feature_sets
            if not (known and isinstance(rows, int) and isinstance(size_bytes, int) and isinstance(newest, float)):
                raise _DamageError(f"chunk {number} is not what was written")
            stored.setdefault(names[stream], deque()).append(_Stored(number, rows, size_bytes))
        for table in ("alert", "state", "retrain"):
            for _ in self._db.execute(f"SELECT * FROM {table}"):  # noqa: S608  a fixed name
                pass
        self._stored = stored
        self._states_written = {}
        self._damage = None

    def _connect_read_only(self) -> None:
        self._db = sqlite3.connect(
            f"{self._path.resolve().as_uri()}?mode=ro", uri=True, timeout=10, isolation_level=None
        )
        self._db.execute("PRAGMA cache_size=-256")
        if self._version(self._db) != SCHEMA_VERSION:
            raise StoreError(f"{self._path} is not a database of this gon-edge; start the daemon once to set it right")

    def _disconnect(self) -> None:
        db, self._db = self._db, None
        if db is not None:
            # Closing writes the WAL back, and the disk may refuse that too.
            with contextlib.suppress(sqlite3.Error, MemoryError):
                db.close()

    def _set_aside(self, reason: str) -> None:
        """Rename the damaged file, with its WAL, which must never be applied to the fresh one."""
        self._disconnect()
        directory = self._path.parent
        numbers = sorted(
            int(found.name.rpartition("-")[2])
            for found in directory.glob(f"{DATABASE}.damaged-*")
            if found.name.rpartition("-")[2].isdigit()
        )
        aside = f"{DATABASE}.damaged-{numbers[-1] + 1 if numbers else 1}"
        for suffix in ("-wal", ""):
            file = directory / (DATABASE + suffix)
            if file.exists():
                file.rename(directory / (aside + suffix))
        (directory / f"{DATABASE}-shm").unlink(missing_ok=True)
        for number in numbers[: len(numbers) - DAMAGED_KEPT + 1]:
            for suffix in ("-wal", ""):
                (directory / f"{DATABASE}.damaged-{number}{suffix}").unlink(missing_ok=True)
        self.recovered = True
        self.recovered_reason = f"{reason}; the damaged file is {aside}"
        self._stored = {}
        self._states_written = {}

    def close(self) -> None:
        """Release file and lock.  What was not flushed is lost: call `flush` first."""
        self._disconnect()
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def persistent(self) -> bool:
        """Whether a file is open that flushes go to."""
        return self._db is not None

    # -- taking ------------------------------------------------------------------------------------------------------

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
        buffer = self._buffers.get(row.stream)
        if buffer is None or (buffer.features is not row.features and buffer.features != row.features):
            if buffer is not None:
                self._pack(row.stream, buffer)
            buffer = self._buffers[row.stream] = _Buffer(row.features)
        buffer.add(row, quarantined)
        self._buffered_bytes += buffer.row_bytes
        if buffer.length == buffer.limit:
            self._pack(row.stream, buffer)
        if self._next_flush is None:
            self._next_flush = now + self._wait_s

    def add_alert(self, event: Mapping[str, Any]) -> None:
        """Keep an event as `alerts.alert_json` makes it; the newest event of an alert replaces the one before."""
        self._alerts.pop(event["id"], None)
        self._alerts[event["id"]] = dict(event)
        if len(self._alerts) > ALERTS_KEPT:
            del self._alerts[next(iter(self._alerts))]
        self._urgent |= event["type"] != "update"

    def quarantine(self, stream: str, since: float, until: float) -> int:
        """Mark the rows from `since` to `until` (Unix seconds, both included) as not to be learned; count them."""
        return self._requarantine(stream, since, until, True)

    def release(self, stream: str, since: float, until: float) -> int:
        """Let the quarantined rows from `since` to `until` be learned after all; count them.

        Rows on the disk are changed at once, in one transaction; a chunk that cannot be read is left as it is.  A disk
        that refuses changes none of its rows: `last_error` says why.
        """
        return self._requarantine(stream, since, until, False)

    def _requarantine(self, stream: str, since: float, until: float, quarantined: bool) -> int:
        if self._read_only:
            raise StoreError(f"{self._path} is open for reading only")
        count = 0
        buffer = self._buffers.get(stream)
        if buffer is not None:
            times, flags = buffer.timestamps[: buffer.length], buffer.flags[: buffer.length, 1]
            chosen = (times >= since) & (times <= until) & (flags != quarantined)
            flags[chosen] = quarantined
            count += int(chosen.sum())
        for packed in self._packed:
            if packed.stream == stream and packed.newest >= since:
                packed.payload, changed = requarantine(
                    stream, packed.features, packed.payload, since, until, quarantined
                )
                count += changed
        self._packed_bytes = sum(len(packed.payload) for packed in self._packed)
        return count + self._requarantine_stored(stream, since, until, quarantined)

    def _requarantine_stored(self, stream: str, since: float, until: float, quarantined: bool) -> int:
        listed = self._query(
            "SELECT chunk.id FROM chunk JOIN stream ON stream.id = chunk.stream "
            "WHERE stream.name = ? AND chunk.newest >= ? ORDER BY chunk.id",
            stream,
            since,
        )
        db = self._db
        if db is None or not listed:
            return 0
        count = 0
        try:
            db.execute("BEGIN IMMEDIATE")
            for (number,) in listed:
                found = db.execute(
                    "SELECT names, payload FROM chunk JOIN feature_set AS f ON f.id = feature_set WHERE chunk.id = ?",
                    (number,),
                ).fetchone()
                try:
                    names, payload = found  # a damaged table lists rows that are not there
                    features = tuple(json.loads(names))
                    payload, changed = requarantine(stream, features, payload, since, until, quarantined)
                except (ValueError, TypeError, RecursionError):
                    self.damaged_chunks += 1
                    continue
                if changed:
                    db.execute("UPDATE chunk SET payload = ? WHERE id = ?", (payload, number))
                    count += changed
            db.execute("COMMIT")
        except (*_DATABASE_ERRORS, OSError) as error:
            self.last_error = f"{self._path}: {_said(error)}"
            self._roll_back()
            if _is_damage(error):
                self._damage = str(error)
            return 0
        return count

    def put_state(self, key: str, value: Any) -> None:
        """Keep a JSON value under a key.  Writing what is already there costs nothing."""
        text = json.dumps(value, separators=(",", ":"))
        if self._states_written.get(key) == hash(text):
            self._states.pop(key, None)
        else:
            self._states[key] = text

    def add_retrain(self, record: RetrainRecord) -> None:
        """Keep the record of one training round."""
        self._retrains.append(record)
        del self._retrains[:-RETRAINS_KEPT]

    def _pack(self, stream: str, buffer: _Buffer) -> None:
        if buffer.length == 0:
            return
        rows = buffer.rows()
        gap = stream in self._gap_before_next
        self._gap_before_next.discard(stream)
        payload = encode(stream, rows)
        newest = float(rows.timestamps.max())
        self._packed.append(_Packed(stream, buffer.features, newest, buffer.length, gap, payload))
        self._packed_bytes += len(payload)
        self._buffered_bytes -= buffer.length * buffer.row_bytes
        buffer.length = 0
        while self._packed_bytes > REFUSED_BYTES:
            self._give_up(self._packed.popleft())

    def _give_up(self, lost: _Packed) -> None:
        self._packed_bytes -= len(lost.payload)
        self.rows_dropped += lost.rows
        later = next((packed for packed in self._packed if packed.stream == lost.stream), None)
        if later is None:
            self._gap_before_next.add(lost.stream)
        else:
            later.gap = True

    # -- writing -------------------------------------------------------------------------------------------------------

    def due(self, now: float) -> bool:
        """Say whether `flush` should be called now (monotonic seconds)."""
        if self._retry_s == 0.0:
            if self._urgent and (self._last_flush is None or now - self._last_flush >= _URGENT_EVERY_S):
                return True
            if self._buffered_bytes + self._packed_bytes > BUFFER_BYTES:
                return True
            if self._next_flush is None and (self._alerts or self._states or self._retrains):
                self._next_flush = now + self._wait_s
        return self._next_flush is not None and now >= self._next_flush

    def flush(self, now: float) -> bool:
        """Write everything held in memory; tell whether it is on the disk.

        A failure is not raised: `last_error` has it, the rows stay, and `due` says when to try again.
        """
        if self._read_only:
            raise StoreError(f"{self._path} is open for reading only")
        for stream, buffer in self._buffers.items():
            self._pack(stream, buffer)
        self._last_flush = now
        try:
            if self._db is None:
                self._connect()
            if self._damage is not None:
                raise _DamageError(self._damage)
            self._write()
        except (*_DATABASE_ERRORS, OSError, StoreError) as error:
            self._failed(error, now)
            return False
        self.last_error = None
        self._urgent = False
        self._retry_s = 0.0
        self._out_of_memory = False
        self._next_flush = None
        self._wait_s = min(2 * self._wait_s, self._flush_every_s)
        return True

    def _failed(self, error: Exception, now: float) -> None:
        self.write_errors += 1
        # Twice in a row it is the file: between the two it is closed, which gives back what SQLite held.
        damaged = _is_damage(error) or (self._out_of_memory and isinstance(error, MemoryError))
        self._out_of_memory = isinstance(error, MemoryError)
        self.last_error = f"{self._path}: {_said(error)}"
        self._retry_s = min(max(2 * self._retry_s, _RETRY_MIN_S), _RETRY_MAX_S)
        self._next_flush = now + self._retry_s
        self._roll_back()
        if damaged:
            try:
                self._set_aside(_said(error))
            except OSError as refused:
                self.last_error = f"{self._path}: {refused}"
        elif getattr(error, "sqlite_errorcode", 0) & 0xFF not in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_BUSY):
            self._disconnect()  # and open again next time: the disk may have been replaced or mounted again

    def _roll_back(self) -> None:
        try:
            if self._db is not None and self._db.in_transaction:
                self._db.execute("ROLLBACK")
        except (sqlite3.Error, MemoryError):
            self._disconnect()

    def _write(self) -> None:
        db = self._db
        assert db is not None
        db.execute("BEGIN IMMEDIATE")
        removed = self._prune(db)
        added = [(packed.stream, self._insert(db, packed)) for packed in self._packed]
        for event in self._alerts.values():
            db.execute(
                "INSERT OR REPLACE INTO alert VALUES (?, ?, ?, ?, ?)",
                (
                    event["id"],
                    event["stream"],
                    event["type"] != "end",
                    event["since"],
                    json.dumps(event, separators=(",", ":")),
                ),
            )
        if self._alerts:
            db.execute(
                "DELETE FROM alert WHERE NOT active AND id NOT IN (SELECT id FROM alert ORDER BY since DESC LIMIT ?)",
                (ALERTS_KEPT,),
            )
        db.executemany("INSERT OR REPLACE INTO state VALUES (?, ?)", self._states.items())
        for record in self._retrains:
            db.execute(
                "INSERT INTO retrain (stream, record) VALUES (?, ?)",
                (record.stream, json.dumps(asdict(record), separators=(",", ":"))),
            )
        if self._retrains:
            db.execute("DELETE FROM retrain WHERE seq <= (SELECT max(seq) FROM retrain) - ?", (RETRAINS_KEPT,))
        db.execute("COMMIT")

        for stream, count in removed.items():
            for _ in range(count):
                self._stored[stream].popleft()
        for stream, stored in added:
            self._stored.setdefault(stream, deque()).append(stored)
        self._states_written.update((key, hash(text)) for key, text in self._states.items())
        self._packed.clear()
        self._packed_bytes = 0
        self._alerts.clear()
        self._states.clear()
        self._retrains.clear()

    def _insert(self, db: sqlite3.Connection, packed: _Packed) -> _Stored:
        stream = _interned(db, "stream", "name", packed.stream)
        feature_set = _interned(db, "feature_set", "names", json.dumps(packed.features))
        number = db.execute(
            "INSERT INTO chunk (stream, feature_set, newest, rows, gap, payload) VALUES (?, ?, ?, ?, ?, ?)",
            (stream, feature_set, packed.newest, packed.rows, packed.gap, packed.payload),
        ).lastrowid
        return _Stored(number or 0, packed.rows, len(packed.payload))

    def _prune(self, db: sqlite3.Connection) -> dict[str, int]:
        """Delete whole chunks, oldest first, until the pending ones fit; return how many of each stream."""
        kept = {stream: list(stored) for stream, stored in self._stored.items()}
        removed = dict.fromkeys(kept, 0)

        def remove_oldest(stream: str) -> None:
            db.execute("DELETE FROM chunk WHERE id = ?", (kept[stream].pop(0).id,))
            removed[stream] += 1

        coming: dict[str, int] = {}
        for packed in self._packed:
            coming[packed.stream] = coming.get(packed.stream, 0) + packed.rows
        for stream in kept:
            rows = sum(stored.rows for stored in kept[stream]) + coming.get(stream, 0)
            while kept[stream] and rows - kept[stream][0].rows >= self._rows_per_stream:
                rows -= kept[stream][0].rows
                remove_oldest(stream)

        incoming_bytes = sum(len(packed.payload) + _PAGE_BYTES for packed in self._packed)
        while any(kept.values()) and _live_bytes(db) + incoming_bytes > self._max_bytes:
            remove_oldest(max(kept, key=lambda stream: sum(stored.size_bytes for stored in kept[stream])))
        return removed

    # -- reading -------------------------------------------------------------------------------------------------------

    def _query(self, sql: str, *arguments: Any) -> list[Any]:
        """Rows of a query; none where the file cannot be read, which the daemon survives and a reader is told."""
        if self._db is None:
            return []
        try:
            return self._db.execute(sql, arguments).fetchall()
        except _DATABASE_ERRORS as error:
            if self._read_only:
                if isinstance(error, MemoryError):  # a training child may really have none left
                    raise
                raise StoreError(f"{self._path} cannot be read: {error}") from None
            self.last_error = f"{self._path}: {_said(error)}"
            if _is_damage(error):
                self._damage = str(error)
            return []

    def streams(self) -> dict[str, int]:
        """Rows held of each stream, on the disk and in memory, quarantined ones included."""
        if self._read_only:
            query = "SELECT stream.name, sum(chunk.rows) FROM chunk JOIN stream ON stream.id = chunk.stream GROUP BY 1"
            return dict(self._query(query))
        counts = {stream: sum(chunk.rows for chunk in stored) for stream, stored in self._stored.items() if stored}
        for packed in self._packed:
            counts[packed.stream] = counts.get(packed.stream, 0) + packed.rows
        for stream, buffer in self._buffers.items():
            if buffer.length:
                counts[stream] = counts.get(stream, 0) + buffer.length
        return counts

    def _raw(
        self, stream: str, since: float | None, newest_first: bool, with_values: bool = True
    ) -> Iterator[RowChunk | None]:
        """Every chunk as it was taken; `None` where one is missing, so that rows around it are not joined."""
        order = "DESC" if newest_first else "ASC"
        listed = self._query(
            "SELECT chunk.id FROM chunk JOIN stream ON stream.id = chunk.stream "  # noqa: S608  order is one of two words
            f"WHERE stream.name = ? AND chunk.newest >= ? ORDER BY chunk.id {order}",
            stream,
            -np.inf if since is None else since,
        )
        held = [
            packed for packed in self._packed if packed.stream == stream and (since is None or packed.newest >= since)
        ]
        buffer = self._buffers.get(stream)
        newest = [buffer.rows()] if buffer is not None and buffer.length else []
        if newest_first:
            yield from newest
            if stream in self._gap_before_next:
                yield None
            for packed in reversed(held):
                yield from reversed(
                    list(self._unpack(packed.features, packed.gap, packed.payload, stream, with_values))
                )
        # One statement a chunk: a reader in the middle of a long read would keep the WAL from being written back.
        for (number,) in listed:
            found = self._query(
                "SELECT names, gap, payload FROM chunk JOIN feature_set AS f ON f.id = feature_set WHERE chunk.id = ?",
                number,
            )
            unpacked: list[RowChunk | None] = [None]  # pruned since, or unreadable
            for names, gap, payload in found:
                unpacked = list(self._unpack(names, gap, payload, stream, with_values))
            yield from reversed(unpacked) if newest_first else unpacked
        if not newest_first:
            for packed in held:
                yield from self._unpack(packed.features, packed.gap, packed.payload, stream, with_values)
            if stream in self._gap_before_next:
                yield None
            yield from newest

    def _unpack(
        self,
        features: tuple[str, ...] | str,
        gap: bool,
        payload: bytes,
        stream: str,
        with_values: bool,
    ) -> Iterator[RowChunk | None]:
        if gap:
            yield None
        try:
            names = tuple(json.loads(features)) if isinstance(features, str) else features
            yield (decode if with_values else outline)(stream, names, payload)
        except (ValueError, TypeError, RecursionError):
            self.damaged_chunks += 1
            yield None

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
        return _selected(self._raw(stream, since, newest_first=False), since, include_quarantined)

    def outline(self, stream: str, *, since: float | None = None) -> Iterator[RowChunk]:
        """Yield as `chunks` does, quarantined rows among them, but without values, for a tenth of the work.

        Values have shape (N, 0).  For rows still in memory, which have been given to no disk yet, the values are there.
        """
        return _selected(
            self._raw(stream, since, newest_first=False, with_values=False), since, include_quarantined=True
        )

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
        raw: list[RowChunk | None] = []
        count = 0
        for chunk in self._raw(stream, since, newest_first=True):
            raw.append(chunk)
            if chunk is not None:
                count += int(_keep(chunk, since, include_quarantined).sum())
            if limit is not None and count >= limit:
                break
        chunks = list(_selected(reversed(raw), since, include_quarantined))
        features = tuple(dict.fromkeys(name for chunk in reversed(chunks) for name in chunk.features))
        column = {name: i for i, name in enumerate(features)}
        timestamps = np.empty(count, np.float64)
        values = np.full((count, len(features)), np.nan, np.float32)
        restart = np.empty(count, np.bool_)
        at = 0
        for chunk in chunks:
            rows = slice(at, at + len(chunk.timestamps))
            timestamps[rows] = chunk.timestamps
            values[rows, [column[name] for name in chunk.features]] = chunk.values
            restart[rows] = chunk.restart
            at = rows.stop
        first = 0 if limit is None else max(0, count - limit)
        restart[first : first + 1] = True
        return timestamps[first:], values[first:], features, restart[first:]

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

        def wanted(event: Mapping[str, Any]) -> bool:
            return stream in (None, event["stream"]) and active in (None, event["type"] != "end")

        found = [dict(event) for event in self._alerts.values() if wanted(event)]
        stored = self._query(
            "SELECT event FROM alert WHERE (?1 IS NULL OR stream = ?1) AND (?2 IS NULL OR active = ?2) "
            "ORDER BY since DESC LIMIT ?3",
            stream,
            active,
            limit + len(self._alerts),
        )
        events = (_event(text) for (text,) in stored)
        found += [event for event in events if event is not None and event["id"] not in self._alerts]
        return sorted(found, key=lambda event: event["since"], reverse=True)[:limit]

    def state(self, key: str) -> Any:
        """Return the JSON value kept under a key, or `None`."""
        if key in self._states:
            return json.loads(self._states[key])
        found = self._query("SELECT value FROM state WHERE key = ?", key)
        return _json(found[0][0]) if found else None

    def retrains(self, limit: int = 100, stream: str | None = None) -> list[RetrainRecord]:
        """Return training rounds, the newest first."""
        stored = self._query(
            "SELECT record FROM retrain WHERE ?1 IS NULL OR stream = ?1 ORDER BY seq DESC LIMIT ?2", stream, limit
        )
        records = [record for record in reversed(self._retrains) if stream in (None, record.stream)]
        for (text,) in stored:
            with contextlib.suppress(TypeError):  # damaged
                records.append(RetrainRecord(**_json(text)))
        return records[:limit]


def _keep(chunk: RowChunk, since: float | None, include_quarantined: bool) -> NDArray[np.bool_]:
    keep = np.ones(len(chunk.timestamps), np.bool_) if include_quarantined else ~chunk.quarantined
    return keep if since is None else keep & (chunk.timestamps >= since)


def _selected(raw: Iterable[RowChunk | None], since: float | None, include_quarantined: bool) -> Iterator[RowChunk]:
    """Leave out rows, and mark the row after every place where some were left out."""
    joined = False  # whether the row before this chunk is the last one yielded
    for chunk in raw:
        if chunk is None:
            joined = False
            continue
        keep = _keep(chunk, since, include_quarantined)
        follows = np.concatenate(([joined], keep[:-1]))
        joined = bool(keep[-1])
        if keep.any():
            yield RowChunk(
                chunk.features,
                chunk.timestamps[keep],
                chunk.values[keep],
                (chunk.restart | ~follows)[keep],
                chunk.quarantined[keep],
            )


def _json(text: object) -> Any:
    """Decoded JSON, or `None` where damage made it something else."""
    try:
        return json.loads(text) if isinstance(text, str) else None
    except (ValueError, RecursionError):
        return None


def _event(text: object) -> dict[str, Any] | None:
    """An alert event as it was taken, or `None` where damage made it something else."""
    event = _json(text)
    if not isinstance(event, dict) or not {"id", "type", "stream", "since"} <= event.keys():
        return None
    return event if isinstance(event["since"], (int, float)) and isinstance(event["id"], str) else None


def _said(error: Exception) -> str:
    return str(error) or "out of memory"  # a MemoryError says nothing


def _is_damage(error: Exception) -> bool:
    code = getattr(error, "sqlite_errorcode", None)
    if code is None:  # raised by Python itself
        return isinstance(error, (sqlite3.OperationalError, UnicodeDecodeError, _DamageError))
    return code & 0xFF in _DAMAGE_CODES or code == sqlite3.SQLITE_IOERR_SHORT_READ


def _live_bytes(db: sqlite3.Connection) -> int:
    """Bytes of the file that hold something; a freed page is used again before the file grows."""
    (pages,) = db.execute("PRAGMA page_count").fetchone()
    (free,) = db.execute("PRAGMA freelist_count").fetchone()
    (page_bytes,) = db.execute("PRAGMA page_size").fetchone()
    return int((pages - free) * page_bytes)


def _interned(db: sqlite3.Connection, table: str, column: str, text: str) -> int:
    found = db.execute(f"SELECT id FROM {table} WHERE {column} = ?", (text,)).fetchone()  # noqa: S608  fixed names
    if found is None:
        return db.execute(f"INSERT INTO {table} ({column}) VALUES (?)", (text,)).lastrowid or 0  # noqa: S608
    return int(found[0])
