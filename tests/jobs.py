"""Small stores, and a training job of one: for tests of who orders a training, who watches it and who does it."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
from configurations import SMALLEST

from gon_edge.config.file import parse_config
from gon_edge.config.schema import Config
from gon_edge.events import Row
from gon_edge.state.store import Store
from gon_edge.training.job import Job
from gon_edge.training.settings import FitSettings

MIB = 1 << 20


def plain_job(
    state_dir: Path,
    *,
    window: int = 15,
    risk: float = 1e-4,
    counter: tuple[str, ...] = (),
    gauge: tuple[str, ...] = (),
    **changes: object,
) -> Job:
    """Return the first training of stream ``pump``, with other fields where named."""
    plain = Job(
        stream="pump",
        state_dir=str(state_dir),
        candidate=str(state_dir / "candidate.npz"),
        version="1",
        parent="",
        trained_at=5000.0,
        until=1e12,
        max_rows=20_000,
        interval_s=1.0,
        settings=FitSettings(window=window, risk=risk, counter=counter, gauge=gauge),
        budget_bytes=64 * MIB,
        nice=0,
        deadline_s=600.0,
    )
    return dataclasses.replace(plain, **changes)  # type: ignore[arg-type]


def stored(folder: Path, rows: int, *, quarantined: range = range(0), features: tuple[str, ...] = ("a", "b")) -> Path:
    """Rows at 1 Hz from second 1000; feature a counts, the others are three times as large."""
    fresh = np.zeros(len(features), np.bool_)
    with Store.open(folder) as store:
        for i in range(rows):
            values = np.full(len(features), 3.0 * i, np.float32)
            values[0] = i
            store.add_row(Row("pump", 1000.0 + i, features, values, fresh, i == 0), i in quarantined, now=0.0)
        store.flush(0.0)
    return folder


def two_streams(folder: Path, *, quarantined: range = range(0)) -> Config:
    """A daemon that does not run: 400 rows of pump and boiler from second 1000; some of the pump's are quarantined."""
    mapping = {
        **SMALLEST,
        "state_dir": str(folder / "state"),
        "streams": {"defaults": {"window": 15}},
        "retrain": {"nice": 0},  # at 19 a training would wait for ever beside other tests that are busy
    }
    config = parse_config(mapping)
    rng, fresh = np.random.default_rng(0), np.zeros(2, np.bool_)
    with Store.open(config.state_dir) as store:
        for name in ("pump", "boiler"):
            for t, values in enumerate(rng.normal(size=(400, 2)).astype(np.float32)):
                row = Row(name, 1000.0 + t, ("a", "b"), values, fresh, t == 0)
                store.add_row(row, name == "pump" and t in quarantined, now=float(t))
        store.flush(500.0)
    return config
