"""The SQLite file of a state directory: its lock, its tables, and what happens when it is damaged.

SQLite runs in WAL mode: `kill -9` costs what was not flushed yet, a power cut perhaps the last half minute more,
neither what is older.  A damaged file is set aside, under a name that says so, and a fresh one begun.
A file that cannot be written is still read; one that was deleted or replaced while it was open is left for the one that
has its name now.

What a write costs: each transaction rewrites about 25 kB of pages that hold no new data (the ends of the WAL, SQLite's
index of it, the file's first page), and each new page is written twice, into the WAL and into the file.  Pages are
small, because a transaction touches few.

This module knows what the tables are called, not what stands in them: `rows` and `history` do.  A change of the tables
needs a new `SCHEMA_VERSION`.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from gon_edge.errors import ConfigError, StoreError
from gon_edge.process.files import make_file, make_folder

SCHEMA_VERSION = 1  # of the tables below
RENAMED_VERSION = 2
"""Of the same tables once a stream has had another name (`streams.rename`): a gon-edge that does not know of former
names would take its rows for damaged ones."""
DATABASE = "state.db"
LOCK = "lock"
DAMAGED_KEPT = 2
"""Damaged files kept for inspection; older ones are removed."""

PAGE_BYTES = 1024
"""A flush touches few pages and writes each twice: with SQLite's own 4096 bytes it would cost four times as much."""

_VERSIONS = (SCHEMA_VERSION, RENAMED_VERSION)
_BUSY_S = 1.0  # a reader holds its lock for milliseconds
_READER_BUSY_S = 10.0  # not critical: a person waits, the scoring loop does not
_CACHE_KIB = 256  # a flush touches fewer pages; SQLite's own is 2 MB
_STATEMENTS = 32  # there are fewer than this

_APPLICATION_ID = 0x676F6E00  # "gon", plus the version
_PRIMARY = 0xFF  # the primary result code in an extended one (sqlite.org/rescode.html)

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


_TABLES = {sql.strip() for sql in _SCHEMA.split(";") if sql.strip()}

_File = tuple[int, int] | None
"""What tells a file from others, whatever they are called: its device and inode; ``None`` where there is none."""


def check_state_dir(path: Path) -> None:
    """Refuse what can never be a state directory; a disk that is full or cannot be written may become one that can.

    Raises
    ------
    ConfigError
        It, or what it should be made in, is a file.
    """
    folder = next(found for found in (path, *path.absolute().parents) if os.path.lexists(found))
    if not folder.is_dir():
        raise ConfigError(f"{folder} is not a directory; name a directory, or one that can be made", key="state_dir")


class DamageError(Exception):
    """The file opens but is not what was written."""


DATABASE_ERRORS = (sqlite3.Error, UnicodeDecodeError, DamageError, MemoryError)
"""What a file can fail with.  ``UnicodeDecodeError`` is raised by Python's own module, for text in the file or for a
message of SQLite that quotes it; ``MemoryError`` for SQLITE_NOMEM, which some damaged tables look like as well."""


class Database:
    """The file and its lock; opened, set aside and opened again by the store.

    Attributes
    ----------
    path : Path
    read_only : bool
    connection : sqlite3.Connection or None
        ``None`` while no file is open: nothing reaches the disk.
    reading : sqlite3.Connection or None
        What is read instead while the file cannot be written.
    last_error : str or None
        What the last attempt to read or write failed with.
    damage : str or None
        Damage that a reader found; the next flush acts on it.
    """

    def __init__(self, directory: Path, *, read_only: bool) -> None:
        self.path = directory / DATABASE
        self.read_only = read_only
        self.connection: sqlite3.Connection | None = None
        self.reading: sqlite3.Connection | None = None
        self.last_error: str | None = None
        self.damage: str | None = None
        self._lock: IO[bytes] | None = None
        self._files: tuple[_File, _File] = (None, None)  # the ones that are open: database and WAL

    def require_writable(self) -> None:
        """Raise `StoreError` where the file was opened for reading only."""
        if self.read_only:
            raise StoreError(f"{self.path} is open for reading only")

    def lock(self) -> None:
        """Hold the state directory; made when missing.

        Raises
        ------
        StoreError
            Another gon-edge holds it.
        OSError
            The disk refuses.
        """
        if self._lock is not None:
            return
        make_folder(self.path.parent)
        make_file(self.path.parent / LOCK)
        lock = (self.path.parent / LOCK).open("ab")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.close()
            raise StoreError(
                f"another gon-edge runs with the state directory {self.path.parent}; stop it, or set state_dir"
            ) from None
        except OSError:
            lock.close()
            raise
        self._lock = lock

    def connect(self) -> sqlite3.Connection:
        """Open for writing; the tables are made where the file is new.  Raises what the disk and SQLite raise.

        Raises
        ------
        DamageError
            These are not the tables, or the file is shorter than it says.
        StoreError
            A newer gon-edge wrote it.
        """
        self._refuse_newer()
        make_file(self.path)  # SQLite gives its WAL to the owner of this one
        db = self.connection = sqlite3.connect(
            self.path, timeout=_BUSY_S, isolation_level=None, cached_statements=_STATEMENTS
        )
        db.execute(f"PRAGMA page_size={PAGE_BYTES}")
        db.execute(f"PRAGMA cache_size=-{_CACHE_KIB}")
        db.execute("PRAGMA mmap_size=0")
        db.execute("PRAGMA temp_store=MEMORY")
        db.execute("PRAGMA secure_delete=OFF")  # Debian builds SQLite with it on: every pruned page would be written
        db.execute("PRAGMA journal_mode=WAL")
        db.execute("PRAGMA synchronous=NORMAL")
        tables = {sql for (sql,) in db.execute("SELECT sql FROM sqlite_master")}
        version = self._version(db)
        if version == 0 and not tables:
            db.executescript(f"BEGIN IMMEDIATE; {_SCHEMA} {';'.join(_stamps(SCHEMA_VERSION))}; COMMIT;")
        elif version not in _VERSIONS or not tables.issuperset(_TABLES):  # what an administrator has added may stay
            raise DamageError("not a database of gon-edge")
        self._check_length(db)
        self._files = self._named()
        self.stop_reading()
        return db

    def _refuse_newer(self) -> None:
        """Look at the version before anything is written, were it an empty WAL; where the file is old, at its WAL.

        By SQLite: a file that is opened and closed past it loses the locks of every connection of this process
        (sqlite.org/howtocorrupt.html, 2.2).
        """
        for how in ("mode=ro&immutable=1", "mode=ro"):
            with contextlib.suppress(*DATABASE_ERRORS, OSError), contextlib.closing(self._for_reading(how)) as db:
                self._version(db)

    def _version(self, db: sqlite3.Connection) -> int:
        """Version of the tables; 0 in an empty file.  It stands there twice: damage must not look like a newer one."""
        (version,) = db.execute("PRAGMA user_version").fetchone()
        (application_id,) = db.execute("PRAGMA application_id").fetchone()
        if version > max(_VERSIONS) and application_id == _APPLICATION_ID + version:
            raise StoreError(f"{self.path} was written by a newer gon-edge; upgrade, or move the file away")
        return int(version) if application_id in (0, _APPLICATION_ID + version) else -1

    def _check_length(self, db: sqlite3.Connection) -> None:
        """With the WAL written back, the file must be as long as its header says."""
        (busy, _, _) = db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        (pages,) = db.execute("PRAGMA page_count").fetchone()
        (page_bytes,) = db.execute("PRAGMA page_size").fetchone()
        if not busy and self.path.stat().st_size < pages * page_bytes:
            raise DamageError(f"truncated: {self.path.stat().st_size} of {pages * page_bytes} bytes")

    def connect_read_only(self) -> None:
        """Open for reading, without a lock.

        Raises
        ------
        StoreError
            It cannot be read, or is not a database of this gon-edge.
        """
        self._refuse_newer()
        try:
            self.connection, version = self._open_for_reading(_READER_BUSY_S)
        except (*DATABASE_ERRORS, OSError) as error:
            raise StoreError(f"{self.path} cannot be read: {str(error) or 'it is damaged'}") from None
        if version not in _VERSIONS:
            raise StoreError(f"{self.path} is not a database of this gon-edge; start the daemon once to set it right")

    def read_only_for_now(self) -> sqlite3.Connection | None:
        """Open for reading because it cannot be written, until `connect` succeeds; ``None`` where that fails, too."""
        self.stop_reading()
        with contextlib.suppress(*DATABASE_ERRORS, OSError, StoreError):
            db, version = self._open_for_reading(_BUSY_S)
            if version in _VERSIONS:
                self.reading = db
            else:
                db.close()
        return self.reading

    def stop_reading(self) -> None:
        """Close what `read_only_for_now` has opened."""
        db, self.reading = self.reading, None
        if db is not None:
            db.close()

    def _for_reading(self, how: str, busy_s: float = _BUSY_S) -> sqlite3.Connection:
        return sqlite3.connect(f"{self.path.resolve().as_uri()}?{how}", uri=True, timeout=busy_s, isolation_level=None)

    def _open_for_reading(self, busy_s: float) -> tuple[sqlite3.Connection, int]:
        """A connection that only reads, and the version of the tables; raises what SQLite raises.

        In a directory that cannot be written SQLite reads nothing, since it finds no place for its index of the WAL,
        unless it is told that nobody writes; then it leaves out what stands in the WAL alone.
        """
        refused: sqlite3.OperationalError | None = None
        for how in ("mode=ro", "mode=ro&immutable=1"):
            db = self._for_reading(how, busy_s)
            try:
                db.execute(f"PRAGMA cache_size=-{_CACHE_KIB}")
                return db, self._version(db)
            except sqlite3.OperationalError as error:
                db.close()
                refused = refused or error
                if error.sqlite_errorcode & _PRIMARY not in (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY):
                    break
            except BaseException:
                db.close()
                raise
        assert refused is not None
        raise refused

    def disconnect(self) -> None:
        """Close the file and keep the lock; it may be opened again."""
        db, self.connection = self.connection, None
        if db is not None:
            # Closing writes the WAL back, and the disk may refuse that too.
            with contextlib.suppress(sqlite3.Error, MemoryError):
                db.close()

    def _named(self) -> tuple[_File, _File]:
        """Which files have the names of the database and of its WAL now."""
        return _file(self.path), _file(self.path.with_name(f"{DATABASE}-wal"))

    def is_lost(self) -> bool:
        """Whether the open file no longer has its name, or its WAL: what is written to it nobody will find."""
        return self.connection is not None and self._named() != self._files

    def leave_lost(self) -> None:
        """Close a file that `is_lost`, and release the lock, which may lie in a lost directory, too.

        SQLite deletes the WAL by its name when it closes.  One that belongs to the file of this name is none of its.
        """
        wal = self.path.with_name(f"{DATABASE}-wal")
        kept = wal.with_name(f"{wal.name}.kept")
        is_another = _file(wal) not in (None, self._files[1])
        if is_another:
            wal.rename(kept)
        self.disconnect()
        if is_another:
            kept.rename(wal)
        self._release_lock()

    def close(self) -> None:
        """Release file and lock."""
        self.disconnect()
        self.stop_reading()
        self._release_lock()

    def _release_lock(self) -> None:
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def set_aside(self) -> str:
        """Rename the damaged file, with its WAL, which must never be applied to the fresh one; return its new name.

        Raises
        ------
        OSError
            The disk refuses.
        """
        self.disconnect()
        directory = self.path.parent
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
        return aside

    @contextlib.contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """All of what the block writes, or nothing of it.  What it raises is raised, after the way back."""
        assert self.connection is not None
        try:
            self.connection.execute("BEGIN IMMEDIATE")
            yield self.connection
            self.connection.execute("COMMIT")
        except BaseException:
            self._roll_back()
            raise

    def _roll_back(self) -> None:
        try:
            if self.connection is not None and self.connection.in_transaction:
                self.connection.execute("ROLLBACK")
        except (sqlite3.Error, MemoryError):
            self.disconnect()

    def query(self, sql: str, *arguments: Any) -> list[Any]:
        """Rows of a query; none where the file cannot be read, which the daemon survives and a reader is told.

        Raises
        ------
        StoreError
            It cannot be read, and was opened for reading only.
        """
        db = self.connection or self.reading
        if db is None:
            return []
        try:
            return db.execute(sql, arguments).fetchall()
        except DATABASE_ERRORS as error:
            if self.read_only:
                if isinstance(error, MemoryError):  # a training child may really have none left
                    raise
                raise StoreError(f"{self.path} cannot be read: {error}") from None
            self.failed(error)
            return []

    def failed(self, error: Exception) -> None:
        """Remember what an attempt to read or write failed with."""
        self.last_error = f"{self.path}: {said(error)}"
        if is_damage(error):
            self.damage = str(error)


def _file(path: Path) -> _File:
    try:
        found = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    return found.st_dev, found.st_ino


def stamp(db: sqlite3.Connection, version: int) -> None:
    """Write the version of the tables to a file, inside a transaction of the caller."""
    for pragma in _stamps(version):
        db.execute(pragma)


def _stamps(version: int) -> tuple[str, str]:
    return f"PRAGMA user_version={version}", f"PRAGMA application_id={_APPLICATION_ID + version}"


def said(error: Exception) -> str:
    """What an error says of itself."""
    return str(error) or "out of memory"  # a MemoryError says nothing


def is_damage(error: Exception) -> bool:
    """Whether the file is at fault, and not the disk or another process."""
    code = getattr(error, "sqlite_errorcode", None)
    if code is None:  # raised by Python itself
        return isinstance(error, (sqlite3.OperationalError, UnicodeDecodeError, DamageError))
    return code & _PRIMARY in _DAMAGE_CODES or code == sqlite3.SQLITE_IOERR_SHORT_READ


def is_full_or_busy(error: Exception) -> bool:
    """Whether a write may succeed later through the same connection."""
    code: int = getattr(error, "sqlite_errorcode", 0)
    return code & _PRIMARY in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_BUSY)
