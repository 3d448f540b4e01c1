"""Whole streams in the database: deleted, or given another name, in every table, inside a transaction of the caller.

Nothing of the stream waits in memory meanwhile: that is the store's to see to.  What `database` adds as a table with
streams in it, and whoever keeps a state under ``KIND/STREAM``, is told here.
"""

from __future__ import annotations

import contextlib
import json
import sqlite3
from collections.abc import Callable
from typing import Any

from gon_edge.state.database import RENAMED_VERSION, stamp

_NAMES = "names"  # kind of the state that holds the names that a stream had before


def remove(db: sqlite3.Connection, stream: str) -> None:
    """Delete all there is of a stream: rows, alerts, training rounds and states."""
    remove_rows(db, stream)
    db.execute("DELETE FROM alert WHERE stream = ?", (stream,))
    db.execute("DELETE FROM retrain WHERE stream = ?", (stream,))
    db.executemany("DELETE FROM state WHERE key = ?", [(key,) for key in _keys(db, stream)])


def remove_rows(db: sqlite3.Connection, stream: str) -> None:
    """Delete the rows of a stream."""
    db.execute("DELETE FROM chunk WHERE stream IN (SELECT id FROM stream WHERE name = ?)", (stream,))
    db.execute("DELETE FROM stream WHERE name = ?", (stream,))


def rename(db: sqlite3.Connection, old: str, new: str) -> None:
    """Give all there is of a stream to another one, which may have rows and alerts of its own.

    Alerts keep their ids, which people and programs know.  A chunk that cannot be read stays one.
    """
    _rename_rows(db, old, new)
    stamp(db, RENAMED_VERSION)
    events = db.execute("SELECT id, event FROM alert WHERE stream = ?", (old,)).fetchall()
    db.executemany(
        "UPDATE alert SET stream = ?, event = ? WHERE id = ?",
        [(new, _renamed(text, old, new), name) for name, text in events],
    )
    records = db.execute("SELECT seq, record FROM retrain WHERE stream = ?", (old,)).fetchall()
    db.executemany(
        "UPDATE retrain SET stream = ?, record = ? WHERE seq = ?",
        [(new, _renamed(text, old, new), number) for number, text in records],
    )
    for key in _keys(db, old):
        (text,) = db.execute("SELECT value FROM state WHERE key = ?", (key,)).fetchone()
        kind = key.partition("/")[0]
        db.execute("INSERT OR REPLACE INTO state VALUES (?, ?)", (f"{kind}/{new}", _renamed(text, old, new)))
        db.execute("DELETE FROM state WHERE key = ?", (key,))


def names_of(query: Callable[..., list[Any]], stream: str) -> tuple[str, ...]:
    """The name of a stream, and those it had before: its chunks say under which they were written.

    Parameters
    ----------
    query : callable
        Gets SQL and its arguments, and returns rows.
    stream : str
    """
    names = [stream]
    for (text,) in query("SELECT value FROM state WHERE key = ?", f"{_NAMES}/{stream}"):
        with contextlib.suppress(ValueError, TypeError, RecursionError):
            names += [name for name in json.loads(text) if isinstance(name, str)]
    return tuple(dict.fromkeys(names))


def _rename_rows(db: sqlite3.Connection, old: str, new: str) -> None:
    """Only the stream is written, not its chunks: of a stream with a week of rows that took minutes."""
    found = db.execute("SELECT id FROM stream WHERE name = ?", (old,)).fetchone()
    if found is None:
        return

    def query(sql: str, *arguments: Any) -> list[Any]:
        return db.execute(sql, arguments).fetchall()

    names = json.dumps([*names_of(query, new)[1:], *names_of(query, old)])
    db.execute("DELETE FROM state WHERE key = ?", (f"{_NAMES}/{old}",))
    db.execute("INSERT OR REPLACE INTO state VALUES (?, ?)", (f"{_NAMES}/{new}", names))
    there = db.execute("SELECT id FROM stream WHERE name = ?", (new,)).fetchone()
    if there is None:
        db.execute("UPDATE stream SET name = ? WHERE id = ?", (new, *found))
    else:
        db.execute("UPDATE chunk SET stream = ? WHERE stream = ?", (*there, *found))
        db.execute("DELETE FROM stream WHERE id = ?", found)


def _keys(db: sqlite3.Connection, stream: str) -> list[str]:
    """Keys of the states of a stream, ``KIND/STREAM``; the name of a stream may have slashes, too."""
    return [key for (key,) in db.execute("SELECT key FROM state") if str(key).partition("/")[2] == stream]


def _renamed(text: str, old: str, new: str) -> str:
    """JSON in which a stream has another name wherever one is named; what is none stays as it is."""

    def rename(value: Any) -> Any:
        if isinstance(value, list):
            return [rename(item) for item in value]
        if not isinstance(value, dict):
            return value
        renamed = {key: rename(item) for key, item in value.items()}
        if renamed.get("stream") == old:
            renamed["stream"] = new
        if isinstance(among := renamed.get("streams"), list):
            renamed["streams"] = [new if item == old else item for item in among]
        return renamed

    with contextlib.suppress(ValueError, TypeError, RecursionError):
        return json.dumps(rename(json.loads(text)), separators=(",", ":"))
    return text
