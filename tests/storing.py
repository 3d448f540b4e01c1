"""Rows and events to store, and a store in memory, on the disk, and opened again."""

from pathlib import Path

import numpy as np

from gon_edge.events import Row
from gon_edge.state.store import Store

FEATURES = ("flow", "amps")


def row(i: int, *values: float, features=FEATURES, stream="pump", restart=False, stale=()) -> Row:
    """Row number `i` of a stream at 1 Hz; its values are `i` and `i / 4` unless given."""
    values = np.float32(values or (i, i / 4))
    return Row(stream, 1000.0 + i, features, values, np.isin(features, stale), restart)


def fill(store: Store, first: int, last: int, now: float = 0.0, **keywords) -> None:
    for i in range(first, last):
        store.add_row(row(i, **keywords), False, now)


def event(number: int, kind: str = "new", stream: str = "pump") -> dict:
    return {"id": f"{stream}-{number}", "type": kind, "stream": stream, "since": float(number)}


def reopened(store: Store, tmp_path: Path, **options) -> Store:
    store.close()
    return Store.open(tmp_path, **options)


def lives(store: Store, tmp_path: Path):
    """The same content in memory, on the disk, and after a restart."""
    yield store
    assert store.flush(1.0)
    yield store
    with reopened(store, tmp_path) as again:
        yield again
