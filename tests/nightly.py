"""A made server with a job at six in the morning, in a store: for tests of what comes again and what stays away."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gon_edge.events import Row
from gon_edge.state.store import Store
from gon_edge.stream.habits import Block

NAMES = ("cpu", "io", "net", "temp")
DAY = 1440
START = 1_700_006_400.0  # midnight, UTC


def server(
    days: int, job_days: Iterable[int], *, seed: int = 0, sizes: dict[int, float] | None = None
) -> NDArray[np.float32]:
    """A row a minute of a server with a daily load; from six o'clock on, twenty minutes of a job on some days."""
    rng = np.random.default_rng(seed)
    t = np.arange(days * DAY)
    load = 20.0 + 8.0 * np.sin(2.0 * np.pi * t / DAY) + rng.normal(size=len(t))
    rows = np.stack([load, 5.0 + 0.1 * load, 10.0 + 0.2 * load, 40.0 + 0.3 * load], axis=1)
    rows += rng.normal(size=rows.shape) * [1.5, 0.5, 1.0, 0.3]
    for day in job_days:
        size = (sizes or {}).get(day, 1.0)
        begin = day * DAY + 360 + int(rng.integers(4))
        rows[begin : begin + 20, 1:3] += size * rng.normal([40.0, 25.0], [3.0, 2.0], (20, 2))
    return rows.astype(np.float32)


def times(rows: NDArray[np.float32]) -> NDArray[np.float64]:
    return START + 60.0 * np.arange(len(rows))


def kept(folder: Path, rows: NDArray[np.float32], blocks: list[Block]) -> Store:
    """A store of rows, those of the blocks quarantined."""
    store = Store.open(folder)
    fresh = np.zeros(len(NAMES), np.bool_)
    for at, values in zip(times(rows).tolist(), rows, strict=True):
        store.add_row(Row("s", at, NAMES, values, fresh), any(b.since <= at <= b.until for b in blocks), 0.0)
    store.flush(0.0)
    return store


def job_blocks(days: range) -> list[Block]:
    return [
        Block(START + 60.0 * (day * DAY + 360), START + 60.0 * (day * DAY + 420), 9.0, {"io": 1, "net": 1})
        for day in days
    ]
