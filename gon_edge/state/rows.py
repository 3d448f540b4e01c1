"""The rows of all streams: taken one by one, packed by the thousand, written and read by the chunk.

A row waits in a buffer of its stream.  Full buffers, and all of them at a flush, become chunks (`chunk`), which wait in
memory until a flush writes them.  While the disk refuses, a bounded amount waits; then the oldest chunks are given up,
and the rows around the hole are never joined.  On the disk the oldest chunks go when a stream has enough rows or the
file is large enough.

This module knows no clock and does not decide when to write: `store` does.  What a chunk looks like is `chunk`'s, where
the file is `database`'s.
"""

from __future__ import annotations

import json
import sqlite3
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gon_edge.events import Row
from gon_edge.state.buffer import RowBuffer
from gon_edge.state.chunk import Names, RowChunk, decode, encode, outline, requarantine, restamp
from gon_edge.state.database import DATABASE_ERRORS, PAGE_BYTES, DamageError, Database
from gon_edge.state.streams import names_of

REFUSED_BYTES = 4 << 20
"""Rows, packed, that are kept in memory while the disk refuses them; then the oldest are given up."""


@dataclass(slots=True)
class _Packed:
    """A chunk on its way to the disk."""

    stream: str
    features: tuple[str, ...]
    newest: float
    rows: int
    gap: bool
    payload: bytes


@dataclass(slots=True)
class _Stored:
    """What memory knows of a chunk on the disk."""

    id: int
    newest: float
    rows: int
    size_bytes: int


class Rows:
    """The rows of all streams, in memory and on the disk.

    Parameters
    ----------
    database : Database
    max_bytes : int
        Size of the whole file; the oldest rows of the stream that holds most go first.
    rows_per_stream : int
        Older rows go, a chunk at a time.

    Attributes
    ----------
    dropped : int
        Rows given up because the disk refused them for too long.
    damaged_chunks : int
        Chunks that could not be read back, and were left out.
    """

    def __init__(self, database: Database, *, max_bytes: int, rows_per_stream: int) -> None:
        self.dropped = 0
        self.damaged_chunks = 0
        self._database = database
        self._max_bytes = max_bytes
        self._rows_per_stream = rows_per_stream
        self._stored: dict[str, deque[_Stored]] = {}
        self._after_commit: dict[str, deque[_Stored]] = {}
        self._buffers: dict[str, RowBuffer] = {}
        self._buffered_bytes = 0
        self._packed: deque[_Packed] = deque()
        self._packed_bytes = 0
        self._gap_before_next: set[str] = set()

    def are_many(self, at_most: int, of_each: int) -> bool:
        """Whether rows that are not on the disk yet take more bytes: in all, and for each stream."""
        return self._buffered_bytes + self._packed_bytes > max(at_most, of_each * len(self._buffers))

    # -- taking --------------------------------------------------------------------------------------------------------

    def add(self, row: Row, quarantined: bool) -> None:
        """Keep one row, in memory for now."""
        buffer = self._buffers.get(row.stream)
        if buffer is None or (buffer.features is not row.features and buffer.features != row.features):
            if buffer is not None:
                self._pack(row.stream, buffer)
            buffer = self._buffers[row.stream] = RowBuffer(row.features)
        buffer.add(row, quarantined)
        self._buffered_bytes += buffer.row_bytes
        if buffer.length == buffer.limit:
            self._pack(row.stream, buffer)

    def pack(self, stream: str | None = None) -> None:
        """Make chunks of everything that was taken, or of what was taken of one stream."""
        for name, buffer in self._buffers.items():
            if stream in (None, name):
                self._pack(name, buffer)

    def _pack(self, stream: str, buffer: RowBuffer) -> None:
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
        self.dropped += lost.rows
        later = next((packed for packed in self._packed if packed.stream == lost.stream), None)
        if later is None:
            self._gap_before_next.add(lost.stream)
        else:
            later.gap = True

    def requarantine(self, stream: str, since: float, until: float, quarantined: bool) -> int:
        """Mark rows from `since` to `until` (Unix seconds) as not to be learned, or release them; count the changed.

        Rows on the disk are changed at once, in one transaction; a chunk that cannot be read is left as it is.
        """
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
                    (stream,), packed.features, packed.payload, since, until, quarantined
                )
                count += changed
        self._packed_bytes = sum(len(packed.payload) for packed in self._packed)

        names = self._names_of(stream)

        def change(db: sqlite3.Connection, number: int, features: tuple[str, ...], payload: bytes) -> int:
            payload, changed = requarantine(names, features, payload, since, until, quarantined)
            if changed:
                db.execute("UPDATE chunk SET payload = ? WHERE id = ?", (payload, number))
            return changed

        return count + self._rewrite(self._numbers(stream, since), change)

    def restamp(self, stream: str, delta_s: float, after: int) -> int:
        """Move the rows in memory, and those of chunks with numbers above ``after``, by `delta_s`; count them."""
        count = 0
        buffer = self._buffers.get(stream)
        if buffer is not None:
            buffer.timestamps[: buffer.length] += delta_s
            count += buffer.length
        for packed in self._packed:
            if packed.stream == stream:
                packed.payload = restamp((stream,), packed.features, packed.payload, delta_s)
                packed.newest += delta_s
                count += packed.rows
        self._packed_bytes = sum(len(packed.payload) for packed in self._packed)

        names = self._names_of(stream)

        def change(db: sqlite3.Connection, number: int, features: tuple[str, ...], payload: bytes) -> int:
            payload = restamp(names, features, payload, delta_s)
            db.execute("UPDATE chunk SET payload = ?, newest = newest + ? WHERE id = ?", (payload, delta_s, number))
            return int(db.execute("SELECT rows FROM chunk WHERE id = ?", (number,)).fetchone()[0])

        moved = [number for number in self._numbers(stream) if number > after]
        if written := self._rewrite(moved, change):
            for chunk in self._stored[stream]:
                chunk.newest += delta_s if chunk.id > after else 0.0
        return count + written

    def forget(self, stream: str) -> None:
        """Let go of a stream, of which nothing is on the disk any more."""
        self._buffers.pop(stream, None)
        self._gap_before_next.discard(stream)
        self._stored.pop(stream, None)

    def rename(self, old: str, new: str) -> None:
        """Take the chunks of a stream, which are on the disk already, for those of another one."""
        chunks = sorted((*self._stored.get(old, ()), *self._stored.get(new, ())), key=lambda chunk: chunk.id)
        self.forget(old)
        self.forget(new)
        self._stored[new] = deque(chunks)

    def newest_chunk(self) -> int:
        """Number of the newest chunk on the disk; 0 without one."""
        return max((chunks[-1].id for chunks in self._stored.values() if chunks), default=0)

    def packed(self, after: int) -> list[tuple[int, str, str, bytes]]:
        """Chunks on the disk above a number: each as number, stream, features as JSON, and payload."""
        return self._database.query(
            "SELECT chunk.id, stream.name, f.names, payload FROM chunk JOIN stream ON stream.id = chunk.stream "
            "JOIN feature_set AS f ON f.id = feature_set WHERE chunk.id > ? ORDER BY chunk.id",
            after,
        )

    def _rewrite(
        self, listed: Sequence[int], change: Callable[[sqlite3.Connection, int, tuple[str, ...], bytes], int]
    ) -> int:
        """Change these chunks on the disk in one transaction; add up what ``change`` says of each.

        One that cannot be read is left as it is.
        """
        if not listed or self._database.connection is None:  # it can be read, and not written
            return 0
        count = 0
        try:
            with self._database.transaction() as db:
                for number in listed:
                    found = db.execute(
                        "SELECT names, payload FROM chunk JOIN feature_set AS f ON f.id = feature_set "
                        "WHERE chunk.id = ?",
                        (number,),
                    ).fetchone()
                    try:
                        names, payload = found  # a damaged table lists rows that are not there
                        count += change(db, number, tuple(json.loads(names)), payload)
                    except (ValueError, TypeError, RecursionError):
                        self.damaged_chunks += 1
        except (*DATABASE_ERRORS, OSError) as error:
            self._database.failed(error)
            return 0
        return count

    # -- writing -------------------------------------------------------------------------------------------------------

    def read_index(self, db: sqlite3.Connection) -> None:
        """Learn which chunks there are; walks every table of rows, which also finds most damage.

        Raises
        ------
        DamageError
        """
        names = dict(db.execute("SELECT id, name FROM stream"))
        feature_sets = {number for (number,) in db.execute("SELECT id FROM feature_set")}
        stored: dict[str, deque[_Stored]] = {}
        query = "SELECT id, stream, feature_set, newest, rows, length(payload) FROM chunk ORDER BY id"
        for number, stream, feature_set, newest, rows, size_bytes in db.execute(query):
            known = stream in names and feature_set in feature_sets
            if not (known and isinstance(rows, int) and isinstance(size_bytes, int) and isinstance(newest, float)):
                raise DamageError(f"chunk {number} is not what was written")
            stored.setdefault(names[stream], deque()).append(_Stored(number, newest, rows, size_bytes))
        self._stored = stored

    def file_is_gone(self) -> None:
        """Forget what was on the disk; what is in memory stays."""
        self._stored = {}

    def write(self, db: sqlite3.Connection) -> None:
        """Write what `pack` made, inside a transaction, and make room for it; `committed` ends it."""
        kept = self._prune(db)
        for packed in self._packed:
            kept.setdefault(packed.stream, deque()).append(self._insert(db, packed))
        self._after_commit = kept

    def committed(self) -> None:
        """Let go of what `write` has brought to the disk."""
        self._stored = self._after_commit
        self._packed.clear()
        self._packed_bytes = 0

    def _insert(self, db: sqlite3.Connection, packed: _Packed) -> _Stored:
        stream = _interned(db, "stream", "name", packed.stream)
        feature_set = _interned(db, "feature_set", "names", json.dumps(packed.features))
        number = db.execute(
            "INSERT INTO chunk (stream, feature_set, newest, rows, gap, payload) VALUES (?, ?, ?, ?, ?, ?)",
            (stream, feature_set, packed.newest, packed.rows, packed.gap, packed.payload),
        ).lastrowid
        return _Stored(number or 0, packed.newest, packed.rows, len(packed.payload))

    def _prune(self, db: sqlite3.Connection) -> dict[str, deque[_Stored]]:
        """Delete whole chunks, oldest first, until the pending ones fit; return what is left of each stream."""
        kept = {stream: stored.copy() for stream, stored in self._stored.items()}

        def remove_oldest(stream: str) -> None:
            db.execute("DELETE FROM chunk WHERE id = ?", (kept[stream].popleft().id,))

        coming: dict[str, int] = {}
        for packed in self._packed:
            coming[packed.stream] = coming.get(packed.stream, 0) + packed.rows
        for stream in kept:
            rows = sum(stored.rows for stored in kept[stream]) + coming.get(stream, 0)
            while kept[stream] and rows - kept[stream][0].rows >= self._rows_per_stream:
                rows -= kept[stream][0].rows
                remove_oldest(stream)

        incoming_bytes = sum(len(packed.payload) + PAGE_BYTES for packed in self._packed)
        while any(kept.values()) and _live_bytes(db) + incoming_bytes > self._max_bytes:
            remove_oldest(max(kept, key=lambda stream: sum(stored.size_bytes for stored in kept[stream])))
        return kept

    # -- reading -------------------------------------------------------------------------------------------------------

    def streams(self) -> dict[str, int]:
        """Rows held of each stream, on the disk and in memory, quarantined ones included."""
        if self._database.read_only:
            query = "SELECT stream.name, sum(chunk.rows) FROM chunk JOIN stream ON stream.id = chunk.stream GROUP BY 1"
            return dict(self._database.query(query))
        names = {*self._stored, *(packed.stream for packed in self._packed), *self._buffers}
        counts = {stream: self.count(stream) for stream in sorted(names)}
        return {stream: rows for stream, rows in counts.items() if rows}

    def count(self, stream: str) -> int:
        """Rows held of one stream, on the disk and in memory; not where the file was opened for reading only."""
        buffer = self._buffers.get(stream)
        waiting = sum(packed.rows for packed in self._packed if packed.stream == stream)
        stored = sum(chunk.rows for chunk in self._stored.get(stream, ()))
        return stored + waiting + (buffer.length if buffer is not None else 0)

    def _names_of(self, stream: str) -> Names:
        """The name of a stream and those before it, by which its chunks are known."""
        return names_of(self._database.query, stream)

    def _numbers(self, stream: str, since: float | None = None) -> list[int]:
        """Chunks of a stream on the disk that reach past a time, the oldest first.

        There is no index in the file: a query reads the first page of every chunk of every stream.
        """
        oldest = -np.inf if since is None else since
        if not self._database.read_only:
            return [chunk.id for chunk in self._stored.get(stream, ()) if chunk.newest >= oldest]
        query = (
            "SELECT chunk.id FROM chunk JOIN stream ON stream.id = chunk.stream "
            "WHERE stream.name = ? AND chunk.newest >= ? ORDER BY chunk.id"
        )
        return [number for (number,) in self._database.query(query, stream, oldest)]

    def _raw(
        self, stream: str, since: float | None, newest_first: bool, with_values: bool = True
    ) -> Iterator[RowChunk | None]:
        """Every chunk as it was taken; `None` where one is missing, so that rows around it are not joined."""
        listed, names = self._numbers(stream, since), self._names_of(stream)
        held = [one for one in self._packed if one.stream == stream and (since is None or one.newest >= since)]
        buffer = self._buffers.get(stream)
        newest = [buffer.rows()] if buffer is not None and buffer.length else []
        if newest_first:
            yield from newest
            if stream in self._gap_before_next:
                yield None
            for packed in reversed(held):
                yield from reversed(
                    list(self._unpack(packed.features, packed.gap, packed.payload, (stream,), with_values))
                )
        # One statement a chunk: a reader in the middle of a long read would keep the WAL from being written back.
        for number in reversed(listed) if newest_first else listed:
            unpacked = self._stored_chunk(number, names, with_values)
            yield from reversed(unpacked) if newest_first else unpacked
        if not newest_first:
            for packed in held:
                yield from self._unpack(packed.features, packed.gap, packed.payload, (stream,), with_values)
            if stream in self._gap_before_next:
                yield None
            yield from newest

    def _stored_chunk(self, number: int, streams: Names, with_values: bool = True) -> list[RowChunk | None]:
        """A chunk on the disk; `None` before it where rows are missing, or in its place where it cannot be read."""
        found = self._database.query(
            "SELECT names, gap, payload FROM chunk JOIN feature_set AS f ON f.id = feature_set WHERE chunk.id = ?",
            number,
        )
        unpacked: list[RowChunk | None] = [None]  # pruned since, or unreadable
        for names, gap, payload in found:
            unpacked = list(self._unpack(names, gap, payload, streams, with_values))
        return unpacked

    def _unpack(
        self,
        features: tuple[str, ...] | str,
        gap: bool,
        payload: bytes,
        streams: Names,
        with_values: bool,
    ) -> Iterator[RowChunk | None]:
        if gap:
            yield None
        try:
            names = tuple(json.loads(features)) if isinstance(features, str) else features
            yield (decode if with_values else outline)(streams, names, payload)
        except (ValueError, TypeError, RecursionError):
            self.damaged_chunks += 1
            yield None

    def chunks(self, stream: str, *, since: float | None, include_quarantined: bool) -> Iterator[RowChunk]:
        """Yield a stream's rows a chunk at a time, as :meth:`Store.chunks` says."""
        return _selected(self._raw(stream, since, newest_first=False), since, include_quarantined)

    def within(self, stream: str, spans: Sequence[tuple[float, float]]) -> Iterator[tuple[int, RowChunk]]:
        """Yield the chunks on the disk that reach into spans of time, as :meth:`Store.within` says."""
        listed = self._database.query(
            "SELECT chunk.id, chunk.newest FROM chunk JOIN stream ON stream.id = chunk.stream "
            "WHERE stream.name = ? AND chunk.newest >= ? ORDER BY chunk.id",
            stream,
            min((begin for begin, _ in spans), default=np.inf),
        )
        names = self._names_of(stream)
        older = [-np.inf, *(newest for _, newest in listed)]  # a chunk begins where the one before it ends
        for which, (begin, end) in enumerate(spans):
            for (number, newest), before in zip(listed, older, strict=False):
                if before < end and newest >= begin:
                    yield from ((which, chunk) for chunk in self._stored_chunk(number, names) if chunk is not None)

    def outline(self, stream: str, *, since: float | None) -> Iterator[RowChunk]:
        """Yield rows without values, as :meth:`Store.outline` says."""
        raw = self._raw(stream, since, newest_first=False, with_values=False)
        return _selected(raw, since, include_quarantined=True)

    def newest(
        self, stream: str, *, limit: int | None, since: float | None, include_quarantined: bool
    ) -> tuple[NDArray[np.float64], NDArray[np.float32], tuple[str, ...], NDArray[np.bool_]]:
        """Return a stream's newest rows as arrays, as :meth:`Store.rows` says."""
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
