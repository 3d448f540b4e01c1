"""The store: when it writes, and what a day costs."""

import inspect
import os
import sys
from pathlib import Path

import numpy as np
import pytest
from storing import event, fill, row

from gon_edge.config.schema import StoreConfig
from gon_edge.events import Row
from gon_edge.state.database import DATABASE
from gon_edge.state.store import BUFFER_BYTES, Store

# -- when to write -----------------------------------------------------------------------------------------------------


def test_nothing_is_due_while_nothing_was_added(store):
    assert not store.due(0.0)
    assert not store.due(1e9)


def test_flushes_are_soon_after_a_start_and_rare_later(tmp_path):
    with Store.open(tmp_path, flush_every_s=1800) as store:
        flushed = []
        for i in range(7200):
            store.add_row(row(i), False, float(i))
            if store.due(float(i)):
                assert store.flush(float(i))
                flushed.append(i)
    assert np.diff([0, *flushed]).tolist() == [60, 121, 241, 481, 961, 1801, 1801]


def test_a_new_alert_is_due_at_once_but_not_a_storm_of_them(store):
    store.add_alert(event(1))
    assert store.due(100.0)
    store.flush(100.0)
    store.add_alert(event(1, "update"))
    assert not store.due(159.0)
    store.add_alert(event(1, "end"))
    assert not store.due(159.0)
    assert store.due(160.0)


def test_many_rows_are_due_before_their_time(store):
    names = tuple(f"f{i}" for i in range(500))
    values = np.random.default_rng(0).normal(size=500)
    for ticks in range(100):
        if store.due(0.0):
            break
        for stream in range(20):
            store.add_row(row(ticks, *values, features=names, stream=str(stream)), False, 0.0)
    assert ticks == pytest.approx(BUFFER_BYTES / (20 * 500 * 4), rel=0.1)
    assert store.flush(0.0)
    assert not store.due(0.0)


def test_a_wide_fast_stream_loses_no_row_while_the_disk_is_well(store):
    names = tuple(f"f{i}" for i in range(500))
    noise = np.random.default_rng(0).normal(size=(130, 500)).astype(np.float32)
    for i in range(10_000):
        store.add_row(Row("wide", float(i), names, noise[i % 130], np.zeros(500, np.bool_)), False, 0.0)
        if store.due(0.0):
            assert store.flush(0.0)
    assert store.rows_dropped == 0
    assert store.streams() == {"wide": 10_000}


def test_the_defaults_are_the_configurations_defaults():
    defaults = {name: p.default for name, p in inspect.signature(Store.open).parameters.items()}
    config = StoreConfig()
    assert (defaults["max_bytes"], defaults["rows_per_stream"], defaults["flush_every_s"]) == (
        config.max_bytes,
        config.rows,
        config.flush_every_s,
    )


# -- what a day costs --------------------------------------------------------------------------------------------------


def written_bytes() -> int:
    """Bytes this process has caused to be written to disks."""
    lines = Path("/proc/self/io").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("write_bytes"))


def to_disk(directory: Path) -> None:
    """What the kernel does by itself within half a minute: without it a day replayed in a second is written once."""
    for path in directory.iterdir():
        with path.open("rb") as file:
            os.fsync(file.fileno())


def telemetry(kind: str, rng: np.random.Generator) -> np.ndarray:
    """A day at 1 Hz, 16 features."""
    t = np.arange(86400)[:, None]
    daily = 5 * np.sin(2 * np.pi * t / 86400 + np.arange(16))
    if kind == "noise":
        return rng.normal(size=(86400, 16)).astype(np.float32)
    values = daily + 0.1 * rng.normal(size=(86400, 16))
    values[:, :8] = np.round(values[:, :8], 2)  # as most sensors write
    values[:, 8:10] = np.round(values[:, 8:10], 1)
    values[:, 10] = 230.0
    values[:, 11] = values[:, 11] > 0
    values[:, 12] = np.cumsum(rng.random(86400) < 0.1)
    return values.astype(np.float32)


@pytest.mark.parametrize("kind", ["sensors", "noise"])
def test_a_day_is_written_in_less_than_5_megabytes(tmp_path, kind):
    values = telemetry(kind, np.random.default_rng(0))
    names = tuple(f"feature-{i}" for i in range(16))
    stale = np.zeros(16, np.bool_)
    probe = written_bytes()
    (tmp_path / "probe").write_bytes(bytes(1 << 20))
    if written_bytes() - probe < 1 << 20:
        pytest.skip("temporary files are kept in memory here: nothing is written that could be measured")
    (tmp_path / "probe").unlink()

    before = written_bytes()
    state_dir = tmp_path / "state"
    with Store.open(state_dir) as store:
        for i in range(86400):
            store.add_row(Row("pump", 1.7e9 + i, names, values[i], stale, i == 0), False, float(i))
            if i % 14400 == 14399:  # six alerts a day
                store.add_alert({**event(i // 14400), "top_features": [{"feature": name} for name in names]})
            if store.due(float(i)):
                store.put_state("policy/pump", {"recent": [[1.7e9 + i - k, False] for k in range(5)], "ended_at": None})
                store.put_state("counters", {"rows": i, "messages": 2 * i, "interval_s": 1.0})
                assert store.flush(float(i))
                to_disk(state_dir)
        store.flush(86400.0)
    to_disk(state_dir)
    day_bytes = written_bytes() - before
    sys.stdout.write(
        f"{kind}: {day_bytes / 1e6:.2f} MB written, {(state_dir / DATABASE).stat().st_size / 1e6:.2f} MB kept\n"
    )
    assert 0.5e6 < day_bytes < 5e6


def test_rows_that_somebody_needs_on_the_disk_go_there_without_those_of_other_streams(store, tmp_path):
    # Fifty streams that warmed up together wrote a chunk of a row or two each, fifty times, for the trainings to find
    # their rows; each of these chunks takes as long to be read as a full one.
    for stream in ("pump", "fan"):
        fill(store, 0, 30, stream=stream)
    assert store.flush(1.0, "pump")
    with Store.open(tmp_path, read_only=True) as reader:
        assert reader.streams() == {"pump": 30}
    assert store.streams() == {"pump": 30, "fan": 30}
    assert not store.due(59.0)
    assert store.due(60.0)  # the other's own time has not moved
    assert store.flush(60.0)
    with Store.open(tmp_path, read_only=True) as reader:
        assert reader.streams() == {"pump": 30, "fan": 30}
        assert len(list(reader.chunks("fan"))) == 1
