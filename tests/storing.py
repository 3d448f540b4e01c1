"""Rows, events and models to store, and a store in memory, on the disk, and opened again."""

from dataclasses import replace
from pathlib import Path

import numpy as np

from gon_edge.events import Row
from gon_edge.model.file import Model
from gon_edge.state.folder import ModelFolder
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


def state_with_models(state_dir: Path, model: Model) -> Path:
    """A state directory with two versions of "pump", and a stream that is named like a shipped model."""
    folder = ModelFolder(state_dir)
    folder.install("pump", model.with_lineage(version="1", rows=600, trained_at=1_700_000_000.0))
    folder.install("pump", replace(model, threshold=4.0).with_lineage(version="2", rows=900, parent="1"))
    folder.install("host", model.with_lineage(version="1"))
    return state_dir
