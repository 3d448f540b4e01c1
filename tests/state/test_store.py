"""The store: what comes back after a restart, what a day costs, and what a bad disk may not do."""

import contextlib
import inspect
import os
import signal
import sqlite3
import subprocess
import sys
import textwrap
import time
import tracemalloc
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from gon_edge.config.schema import StoreConfig
from gon_edge.errors import StoreError
from gon_edge.events import Row
from gon_edge.state.chunk import RowChunk, decode, encode, outline, requarantine
from gon_edge.state.store import ALERTS_KEPT, BUFFER_BYTES, DATABASE, REFUSED_BYTES, RetrainRecord, Store

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


@pytest.fixture
def store(tmp_path):
    with Store.open(tmp_path) as opened:
        assert opened.persistent
        yield opened


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


# -- rows --------------------------------------------------------------------------------------------------------------


def test_rows_come_back_before_and_after_a_flush_and_a_restart(store, tmp_path):
    fill(store, 0, 10)
    expected = np.arange(10, dtype=np.float32)
    for opened in lives(store, tmp_path):
        timestamps, values, features, restart = opened.rows("pump")
        assert features == FEATURES
        np.testing.assert_array_equal(timestamps, 1000 + expected)
        np.testing.assert_array_equal(values, np.column_stack([expected, expected / 4]))
        assert restart.tolist() == [True] + [False] * 9
        assert (timestamps.dtype, values.dtype) == (np.float64, np.float32)


def test_a_flushed_row_and_a_row_in_memory_follow_each_other(store):
    fill(store, 0, 3)
    store.flush(0.0)
    fill(store, 3, 5)
    timestamps, _, _, restart = store.rows("pump")
    assert timestamps.tolist() == [1000, 1001, 1002, 1003, 1004]
    assert restart.tolist() == [True, False, False, False, False]


def test_a_limit_takes_the_newest_rows(store):
    for i in range(5):
        fill(store, 10 * i, 10 * i + 10)
        store.flush(float(i))
    timestamps, values, _, restart = store.rows("pump", limit=12)
    assert timestamps.tolist() == [1038 + i for i in range(12)]
    assert (len(values), restart.tolist()) == (12, [True] + [False] * 11)


def test_a_limited_reader_decodes_only_what_it_needs(store, monkeypatch):
    for i in range(5):
        fill(store, 10 * i, 10 * i + 10)
        store.flush(float(i))
    decoded = []
    monkeypatch.setattr("gon_edge.state.store.decode", lambda *given: decoded.append(1) or decode(*given))
    store.rows("pump", limit=12)
    assert len(decoded) == 2


def test_since_leaves_out_older_rows(store):
    fill(store, 0, 10)
    store.flush(0.0)
    fill(store, 10, 20)
    assert store.rows("pump", since=1008.0)[0].tolist() == [1008.0 + i for i in range(12)]


def test_rows_are_quarantined_and_released_wherever_they_are_and_their_values_stay(store, tmp_path):
    fill(store, 0, 20)
    for opened in lives(store, tmp_path):
        before = opened.rows("pump", include_quarantined=True)
        assert opened.quarantine("pump", 1005.0, 1008.5) == 4
        assert opened.quarantine("pump", 1005.0, 1008.5) == 0
        assert opened.quarantine("fan", 0.0, 2000.0) == 0
        timestamps, _, _, restart = opened.rows("pump")
        assert timestamps.tolist() == [1000.0 + i for i in range(20) if not 5 <= i <= 8]
        assert timestamps[restart].tolist() == [1000.0, 1009.0]
        assert opened.release("pump", 0.0, 1006.0) == 2
        assert opened.release("pump", 0.0, 2000.0) == 2
        for was, now in zip(before, opened.rows("pump"), strict=True):
            np.testing.assert_array_equal(was, now)


def test_what_was_quarantined_on_the_disk_is_after_a_restart(store, tmp_path):
    fill(store, 0, 2000)
    store.flush(0.0)
    assert store.quarantine("pump", 1500.0, 2599.0) == 1100  # in two chunks
    with reopened(store, tmp_path) as again:
        assert len(again.rows("pump")[0]) == 900
        assert again.release("pump", 1500.0, 2599.0) == 1100
    with Store.open(tmp_path, read_only=True) as reader:
        assert len(reader.rows("pump")[0]) == 2000
        with pytest.raises(StoreError, match="reading only"):
            reader.release("pump", 0.0, 1.0)


def test_an_outline_has_everything_but_values(store, tmp_path):
    for i in range(1500):
        store.add_row(row(i), quarantined=i in (4, 1100), now=0.0)
    store.flush(0.0)
    with reopened(store, tmp_path) as again:
        outlines = list(again.outline("pump", since=1003.0))
        whole = list(again.chunks("pump", since=1003.0, include_quarantined=True))
    assert len(outlines) == 2
    for light, heavy in zip(outlines, whole, strict=True):
        assert light.values.shape == (len(heavy.values), 0)
        assert light.features == heavy.features
        for name in ("timestamps", "restart", "quarantined"):
            np.testing.assert_array_equal(getattr(light, name), getattr(heavy, name))


def test_requarantined_rows_wait_for_a_disk_that_is_full_and_say_so(store, tmp_path):
    fill(store, 0, 100)
    assert store.flush(0.0)
    other = sqlite3.connect(tmp_path / DATABASE)
    other.execute("BEGIN EXCLUSIVE")
    assert store.quarantine("pump", 0.0, 2000.0) == 0
    assert "locked" in (store.last_error or "")
    other.rollback()
    other.close()
    assert store.quarantine("pump", 0.0, 2000.0) == 100


def test_quarantined_rows_are_left_out_and_not_joined_over(store):
    for i in range(10):
        store.add_row(row(i), quarantined=i in (4, 5), now=0.0)
        if i == 4:
            store.flush(0.0)  # the left-out rows lie across two chunks
    timestamps, _, _, restart = store.rows("pump")
    assert timestamps.tolist() == [1000, 1001, 1002, 1003, 1006, 1007, 1008, 1009]
    assert timestamps[restart].tolist() == [1000, 1006]
    assert len(store.rows("pump", include_quarantined=True)[0]) == 10


def test_a_restart_of_the_stream_is_kept(store):
    fill(store, 0, 3)
    store.add_row(row(100, restart=True), False, 0.0)
    store.flush(0.0)
    assert store.rows("pump")[3].tolist() == [True, False, False, True]


def test_a_stale_value_is_unknown(store):
    store.add_row(row(0, 1.0, 2.0, stale=("amps",)), False, 0.0)
    store.flush(0.0)
    np.testing.assert_array_equal(store.rows("pump")[1], np.float32([[1.0, np.nan]]))


def test_features_that_come_later_are_unknown_before(store):
    fill(store, 0, 2)
    store.flush(0.0)
    wide = ("flow", "heat", "amps")
    store.add_row(row(2, 2.0, 50.0, 0.5, features=wide), False, 0.0)
    store.add_row(row(3, 3.0, 51.0, 0.75, features=wide), False, 0.0)
    _, values, features, _ = store.rows("pump")
    assert features == wide
    nan = np.nan
    np.testing.assert_array_equal(values, np.float32([[0, nan, 0], [1, nan, 0.25], [2, 50, 0.5], [3, 51, 0.75]]))
    assert [chunk.features for chunk in store.chunks("pump")] == [FEATURES, wide]


def test_streams_are_apart(store):
    fill(store, 0, 3)
    fill(store, 0, 4, stream="valve")
    store.flush(0.0)
    fill(store, 4, 6, stream="valve")
    assert store.streams() == {"pump": 3, "valve": 6}
    assert len(store.rows("valve")[0]) == 6
    assert len(store.rows("nothing")[0]) == 0


def test_an_unknown_stream_has_no_rows(store):
    timestamps, values, features, restart = store.rows("pump", limit=5)
    assert (timestamps.shape, values.shape, features, restart.shape) == ((0,), (0, 0), (), (0,))


def test_old_rows_go_by_whole_chunks(store, tmp_path):
    store = reopened(store, tmp_path, rows_per_stream=25)
    for i in range(10):
        fill(store, 10 * i, 10 * i + 10)
        store.flush(float(i))
        assert store.streams()["pump"] <= 30
    assert store.rows("pump")[0].tolist() == [1070.0 + i for i in range(30)]
    again = reopened(store, tmp_path)
    assert again.streams() == {"pump": 30}
    again.close()


def test_the_database_keeps_to_its_size(store, tmp_path):
    size = 1 << 20
    store = reopened(store, tmp_path, max_bytes=size)
    rng = np.random.default_rng(0)
    names = tuple(f"f{i}" for i in range(50))
    for i in range(60):
        for j in range(600):
            store.add_row(row(600 * i + j, *rng.normal(size=50), features=names, stream="large"), False, 0.0)
        store.add_row(row(i, stream="small"), False, 0.0)
        assert store.flush(float(i))
    assert (tmp_path / DATABASE).stat().st_size <= 1.1 * size
    assert store.streams()["small"] == 60  # the oldest rows of the largest stream went
    newest = store.rows("large", limit=1)[0][0]
    assert newest == 1000.0 + 600 * 60 - 1
    store.close()


# -- alerts, states, training rounds -----------------------------------------------------------------------------------


def test_the_history_holds_the_last_event_of_each_alert(store, tmp_path):
    store.add_alert(event(1))
    store.add_alert(event(2, stream="valve"))
    store.flush(0.0)
    store.add_alert(event(1, "end"))
    for opened in lives(store, tmp_path):
        assert [found["id"] for found in opened.alerts()] == ["valve-2", "pump-1"]
        assert [found["id"] for found in opened.alerts(active=True)] == ["valve-2"]
        assert [found["id"] for found in opened.alerts(active=False)] == ["pump-1"]
        assert [found["type"] for found in opened.alerts(stream="pump")] == ["end"]
        assert len(opened.alerts(limit=1)) == 1


def test_the_history_is_bounded_but_keeps_open_alerts(store):
    store.add_alert(event(0))
    for start in range(1, ALERTS_KEPT + 500, 500):
        for number in range(start, start + 500):
            store.add_alert(event(number, "end"))
        store.flush(float(start))
    found = store.alerts(limit=10_000)
    assert len(found) <= ALERTS_KEPT + 1
    assert found[-1]["id"] == "pump-0"


def test_states_come_back(store, tmp_path):
    assert store.state("policy/pump") is None
    store.put_state("policy/pump", {"open": [1.5, None]})
    assert store.state("policy/pump") == {"open": [1.5, None]}
    store.flush(0.0)
    store = reopened(store, tmp_path)
    assert store.state("policy/pump") == {"open": [1.5, None]}
    store.close()


def test_a_state_that_did_not_change_is_not_written_again(store):
    store.put_state("counters", {"rows": 1})
    store.flush(0.0)
    store.put_state("counters", {"rows": 1})
    assert not store.due(1e9)
    store.put_state("counters", {"rows": 2})
    assert not store.due(1e9)
    assert store.due(2e9)


def test_training_rounds_come_back(store, tmp_path):
    rounds = [RetrainRecord("pump", f"v{i}", 1e9 + i, 12.5, "accepted", 40 << 20, 20000, "") for i in range(3)]
    rounds[1] = replace(rounds[1], gate={"passed": True, "challenger": {"alarm_rate": 0.01}})
    for record in rounds[:2]:
        store.add_retrain(record)
    store.flush(0.0)
    store.add_retrain(rounds[2])
    assert store.retrains() == rounds[::-1]
    store.flush(1.0)
    store = reopened(store, tmp_path)
    assert store.retrains(limit=2, stream="pump") == [rounds[2], rounds[1]]
    assert store.retrains(stream="valve") == []
    store.close()


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


# -- packing -----------------------------------------------------------------------------------------------------------


def packed(values: np.ndarray) -> tuple[np.ndarray, int]:
    """Values after packing, and the bytes it took."""
    values = np.asarray(values, np.float32)
    N, F = values.shape
    flags = np.zeros(N, np.bool_)
    names = tuple(f"f{i}" for i in range(F))
    payload = encode("s", RowChunk(names, 1e9 + np.arange(N), values, flags, flags))
    return decode("s", names, payload).values, len(payload)


def test_values_with_few_decimals_come_back_exactly():
    values = np.round(20 + 0.5 * np.random.default_rng(0).normal(size=(900, 4)), 2).astype(np.float32)
    np.testing.assert_array_equal(packed(values)[0], values)


def test_noise_comes_back_to_a_thirtysecond_of_its_change():
    values = np.random.default_rng(0).normal(size=(900, 16)).astype(np.float32)
    change = np.median(np.abs(np.diff(values, axis=0)), axis=0)
    back, size_bytes = packed(values)
    assert (np.abs(back - values).max(axis=0) <= 1.001 * change / 32).all()
    assert size_bytes * 8 / values.size < 6.6


def test_a_spike_does_not_blur_the_rest():
    values = np.random.default_rng(0).normal(size=(900, 1)).astype(np.float32)
    values[450] = 1e4
    back, _ = packed(values)
    assert np.abs(back - values).max() <= 1.001 * 1e4 / 65534 / 2 + 1e4 * 2**-24


def test_constant_and_empty_features_cost_next_to_nothing():
    values = np.full((900, 16), 230.5, np.float32)
    values[:, 8:] = np.nan
    back, size_bytes = packed(values)
    np.testing.assert_array_equal(back, values)
    assert size_bytes < 200


def unpacked_chunk() -> bytes:
    rows = RowChunk(("a",), np.arange(3.0), np.float32([[1], [2], [4]]), np.zeros(3, np.bool_), np.zeros(3, np.bool_))
    return zlib.decompress(encode("s", rows))


def test_a_chunk_that_says_it_has_no_rows_is_refused():
    # Found by fuzzing: numpy takes a count of -1 for "all that is left".
    content = unpacked_chunk()
    assert len(decode("s", ("a",), zlib.compress(content)).timestamps) == 3
    empty = zlib.compress(content[:5] + bytes(4) + content[9:])
    for read in (decode, outline, lambda *chunk: requarantine(*chunk, 0.0, 9.0, True)):
        with pytest.raises(ValueError, match="another version, stream or feature set"):
            read("s", ("a",), empty)


def test_a_chunk_that_unpacks_to_gigabytes_is_refused_before_it_has():
    bomb = zlib.compress(unpacked_chunk() + bytes(64 << 20))
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match="larger than any chunk"):
            decode("s", ("a",), bomb)
        assert tracemalloc.get_traced_memory()[1] < 40 << 20
    finally:
        tracemalloc.stop()


def test_a_chunk_of_another_stream_is_refused():
    flags = np.zeros(3, np.bool_)
    payload = encode("a", RowChunk(("x",), np.arange(3.0), np.ones((3, 1), np.float32), flags, flags))
    with pytest.raises(ValueError, match="another"):
        decode("b", ("x",), payload)
    with pytest.raises(ValueError, match="another"):
        decode("a", ("y",), payload)


# -- damage ------------------------------------------------------------------------------------------------------------


def damaged_names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.glob(f"{DATABASE}.damaged-*"))


def test_a_file_that_is_no_database_is_set_aside(tmp_path):
    (tmp_path / DATABASE).write_bytes(b"not a database at all" * 1000)
    with Store.open(tmp_path) as store:
        assert (store.recovered, store.persistent) == (True, True)
        assert "damaged-1" in store.recovered_reason
        fill(store, 0, 3)
        assert store.flush(0.0)
        assert store.streams() == {"pump": 3}
    assert damaged_names(tmp_path) == [f"{DATABASE}.damaged-1"]


def test_only_two_damaged_files_are_kept(tmp_path):
    for content in (b"first", b"second", b"third", b"fourth"):
        (tmp_path / DATABASE).write_bytes(content * 1000)
        Store.open(tmp_path).close()
    assert damaged_names(tmp_path) == [f"{DATABASE}.damaged-3", f"{DATABASE}.damaged-4"]
    assert (tmp_path / f"{DATABASE}.damaged-4").read_bytes().startswith(b"fourth")


def test_a_log_left_by_a_damaged_file_is_not_applied_to_the_fresh_one(store, tmp_path):
    fill(store, 0, 500)
    store.flush(0.0)
    copy = tmp_path / "copy"
    copy.mkdir()
    (copy / f"{DATABASE}-wal").write_bytes((tmp_path / f"{DATABASE}-wal").read_bytes())
    (copy / DATABASE).write_bytes(b"garbage!" * 4096)
    with Store.open(copy) as other:
        assert other.recovered
        assert other.streams() == {}


def wear_out(path: Path) -> None:
    """Overwrite all of a database while it is open."""
    with path.open("r+b") as file:
        file.write(b"\xff" * path.stat().st_size)


def test_damage_found_while_running_is_set_aside_and_the_rows_in_memory_stay(store, tmp_path):
    rng = np.random.default_rng(0)
    names = tuple(f"f{i}" for i in range(16))
    for i in range(30_000):  # more than SQLite holds in memory
        store.add_row(row(i, *rng.normal(size=16), features=names), False, 0.0)
        if i % 500 == 499:
            store.flush(float(i))
    store = reopened(store, tmp_path, rows_per_stream=1000)
    wear_out(tmp_path / DATABASE)
    fill(store, 50_000, 50_010)
    assert not store.flush(0.0)
    assert (store.write_errors, store.recovered) == (1, True)
    assert "damaged-1" in store.recovered_reason
    assert store.flush(30.0)
    assert store.last_error is None
    assert store.rows("pump")[0].tolist() == [51_000.0 + i for i in range(10)]
    store.close()


def test_damage_found_by_a_reader_is_set_aside_at_the_next_flush(store, tmp_path):
    fill(store, 0, 10)
    store.flush(0.0)
    store.close()
    with Store.open(tmp_path) as store:
        with contextlib.closing(sqlite3.connect(tmp_path / DATABASE)) as db, db:
            db.execute("DROP TABLE retrain")
        assert store.retrains() == []
        assert "no such table" in store.last_error
        fill(store, 10, 20)
        assert not store.flush(1.0)
        assert store.recovered
        assert store.flush(31.0)
        assert store.streams() == {"pump": 10}


def test_a_chunk_with_a_flipped_bit_is_left_out_and_not_joined_over(store, tmp_path):
    for i in range(3):
        fill(store, 10 * i, 10 * i + 10)
        store.flush(float(i))
    store.close()
    with contextlib.closing(sqlite3.connect(tmp_path / DATABASE)) as db, db:
        (payload,) = db.execute("SELECT payload FROM chunk WHERE id = 2").fetchone()
        flipped = bytearray(payload)
        flipped[len(payload) // 2] ^= 4
        db.execute("UPDATE chunk SET payload = ? WHERE id = 2", (bytes(flipped),))
    with Store.open(tmp_path) as store:
        timestamps, _, _, restart = store.rows("pump")
        assert len(timestamps) == 20
        assert timestamps[restart].tolist() == [1000.0, 1020.0]
        assert store.damaged_chunks == 1


def test_a_row_that_is_listed_and_cannot_be_found_is_left_out(store, tmp_path):
    # Found by fuzzing: in a damaged table a walk meets keys that a search does not, and quarantining ended the daemon.
    for i in range(3):
        fill(store, 10 * i, 10 * i + 10)
        store.flush(float(i))
    (root,) = store._db.execute("SELECT rootpage FROM sqlite_master WHERE name = 'chunk'").fetchone()
    store.close()
    content = bytearray((tmp_path / DATABASE).read_bytes())
    page = (root - 1) * 1024
    key = page + int.from_bytes(content[page + 8 : page + 10])  # the first cell: its length, then its key
    while content[key] & 0x80:
        key += 1
    assert content[key + 1] == 1
    content[key + 1] = 80
    (tmp_path / DATABASE).write_bytes(content)
    with Store.open(tmp_path) as again:
        assert again.quarantine("pump", 0.0, 1e9) == 20
        assert again.damaged_chunks == 1


def test_a_length_that_makes_sqlite_run_out_of_memory_is_damage(store, tmp_path):
    # Found by fuzzing: SQLite says SQLITE_NOMEM, Python raises MemoryError, and the daemon did not start.
    store.close()
    content = bytearray((tmp_path / DATABASE).read_bytes())
    last = int.from_bytes(content[103:105]) - 1  # of the cells of the first page, which hold the tables' definitions
    cell = int.from_bytes(content[108 + 2 * last : 110 + 2 * last])
    content[cell : cell + 8] = b"\xff" * 6 + b"\x1b\x00"
    (tmp_path / DATABASE).write_bytes(content)
    with pytest.raises(StoreError, match="cannot be read"):
        Store.open(tmp_path, read_only=True)
    with Store.open(tmp_path) as again:
        assert again.recovered
        assert again.persistent


STARVED = """
    import contextlib
    import sys
    import numpy as np
    from gon_edge.events import Row
    from gon_edge.state.store import Store
    store = Store.open(sys.argv[1])
    def fill():
        for i in range(3000):
            store.add_row(Row("pump", float(i), ("a",), np.float32([i * i % 997]), np.zeros(1, np.bool_)), False, 0.0)
    fill()
    assert store.flush(0.0)
    with contextlib.suppress(MemoryError):
        store._db.execute("PRAGMA hard_heap_limit=1")  # of the whole process, and it cannot be taken back
    fill()
    assert store.quarantine("pump", 0.0, 1e9) in (3000, 6000)
    for k in range(4):
        assert not store.flush(30.0 * k)
        print(store.write_errors, store.recovered, "memory" in store.last_error, sum(store.streams().values()))
"""


def test_a_flush_that_finds_no_memory_is_tried_again_and_then_taken_for_damage(tmp_path):
    # Found by fuzzing: a damaged table can also look like that, and the MemoryError ended the daemon.
    command = [sys.executable, "-c", textwrap.dedent(STARVED), str(tmp_path)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert ended.returncode == 0, ended.stderr
    first, second, *_ = ended.stdout.splitlines()
    assert first.startswith("1 False True")
    assert second.startswith("2 True True")
    assert len(damaged_names(tmp_path)) <= 2


def test_text_nested_deeper_than_python_can_go_is_left_out(store, tmp_path):
    fill(store, 0, 3)
    store.add_alert(event(1))
    store.put_state("alerts/pump", {"a": 1})
    store.add_retrain(RetrainRecord("pump", "1", 60.0, 1.0, "promoted", 1, 40, ""))
    store.flush(1.0)
    store.close()
    with sqlite3.connect(tmp_path / DATABASE) as db:
        for table, column in (("feature_set", "names"), ("alert", "event"), ("state", "value"), ("retrain", "record")):
            db.execute(f"UPDATE {table} SET {column} = ?", ("[" * 200_000,))
    db.close()
    with Store.open(tmp_path) as again:
        assert len(again.rows("pump")[0]) == 0
        assert again.alerts() == again.retrains() == []
        assert again.state("alerts/pump") is None
        assert again.quarantine("pump", 0.0, 1e9) == 0


def test_a_newer_database_is_refused_and_left_alone(store, tmp_path):
    fill(store, 0, 3)
    store.flush(0.0)
    store.close()
    with contextlib.closing(sqlite3.connect(tmp_path / DATABASE)) as db:
        db.execute("PRAGMA user_version = 99")
        db.execute(f"PRAGMA application_id = {0x676F6E00 + 99}")
    for read_only in (False, True):
        with pytest.raises(StoreError, match="newer gon-edge"):
            Store.open(tmp_path, read_only=read_only)
    assert damaged_names(tmp_path) == []


# -- kill -9 -----------------------------------------------------------------------------------------------------------

WRITER = """
    import sys
    import numpy as np
    from gon_edge.events import Row
    from gon_edge.state.store import Store
    store = Store.open(sys.argv[1], rows_per_stream=4000)
    print("ready", flush=True)
    rng = np.random.default_rng(0)
    names = tuple("abcdefgh")
    stale = np.zeros(8, np.bool_)
    i = 0
    while True:
        for _ in range(200):
            store.add_row(Row("pump", float(i), names, np.float32([i, *rng.normal(size=7)]), stale), False, 0.0)
            i += 1
        store.put_state("rows", i)
        assert store.flush(0.0)
        print(i, flush=True)
"""


def test_kill_9_in_the_middle_of_writes_loses_nothing_that_was_flushed(tmp_path):
    pauses_s = np.random.default_rng(0).uniform(0.0, 0.2, 6)
    for pause_s in pauses_s:
        child = subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(WRITER), str(tmp_path)], stdout=subprocess.PIPE, text=True
        )
        try:
            assert child.stdout.readline() == "ready\n"
            assert child.stdout.readline() == "200\n"
            time.sleep(pause_s)  # the moment of the kill is what varies
        finally:
            child.send_signal(signal.SIGKILL)
            said, _ = child.communicate(timeout=30)
        flushed = int(said.split()[-1]) if said.split() else 200
        with Store.open(tmp_path, rows_per_stream=4000) as store:
            assert not store.recovered, store.recovered_reason
            assert store.state("rows") >= flushed
            timestamps, values, _, _ = store.rows("pump", limit=200)
            last = store.state("rows")
            np.testing.assert_array_equal(timestamps, np.arange(last - 200, last, dtype=float))
            np.testing.assert_array_equal(values[:, 0], timestamps.astype(np.float32))
    with contextlib.closing(sqlite3.connect(tmp_path / DATABASE)) as db:
        assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


# -- two processes -----------------------------------------------------------------------------------------------------


def test_a_second_daemon_is_refused(store, tmp_path):
    with pytest.raises(StoreError, match="another gon-edge"):
        Store.open(tmp_path)
    store.close()
    Store.open(tmp_path).close()


READER = """
    import sys
    from gon_edge.state.store import Store
    with Store.open(sys.argv[1], read_only=True) as store:
        last = -1
        while True:
            done = store.state("done")  # before the rows: what is written between the two looks is seen by the next
            rows = sum(len(chunk.timestamps) for chunk in store.chunks("pump"))
            assert rows >= last, (rows, last)
            last = rows
            if done:
                print(rows)
                break
"""


def test_another_process_reads_while_the_daemon_writes(store, tmp_path):
    fill(store, 0, 10)
    store.flush(0.0)
    child = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(READER), str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    for i in range(1, 200):
        fill(store, 10 * i, 10 * i + 10)
        assert store.flush(float(i)), store.last_error
    store.put_state("done", True)
    assert store.flush(1e6)
    said, _ = child.communicate(timeout=60)
    assert (said, child.returncode) == ("2000\n", 0)


def test_a_reader_sees_a_stopped_daemons_rows_and_takes_no_lock(store, tmp_path):
    fill(store, 0, 10)
    store.flush(0.0)
    store.close()
    with Store.open(tmp_path, read_only=True) as reader, Store.open(tmp_path):
        assert reader.streams() == {"pump": 10}
        with pytest.raises(StoreError, match="reading only"):
            reader.flush(0.0)


def test_a_reader_without_anything_to_read_is_told(tmp_path):
    with pytest.raises(StoreError, match="cannot be read"):
        Store.open(tmp_path / "nothing", read_only=True)


# -- disks that refuse -------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def mounted(directory: Path, options: str):
    """A small file system of its own; the test is skipped where this may not be had."""
    directory.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(directory)], capture_output=True, text=True, check=False
    )
    if done.returncode:
        unprivileged = (
            os.geteuid() != 0 or "permission" in done.stderr.lower() or "not permitted" in done.stderr.lower()
        )
        if os.environ.get("CI") == "true" and not unprivileged:
            pytest.fail(f"mount: {done.stderr}")
        pytest.skip("only root may mount" if os.geteuid() == 0 else "only root may mount; type: root")
    try:
        yield
    finally:
        subprocess.run(["umount", str(directory)], check=True)


def remounted(directory: Path, options: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{options}", str(directory)], check=True)


def test_a_full_disk_keeps_the_rows_in_memory_and_writes_them_later(tmp_path):
    directory = tmp_path / "small"
    with mounted(directory, "size=1m"), Store.open(directory) as store:
        fill(store, 0, 1000)
        assert store.flush(0.0)
        ballast = directory / "ballast"
        with contextlib.suppress(OSError), ballast.open("wb", buffering=0) as file:
            while True:
                file.write(bytes(4096))
        rng = np.random.default_rng(0)
        for i in range(1000, 4000):
            store.add_row(row(i, i, rng.normal()), False, 10.0)
        store.add_alert(event(1))
        assert not store.flush(10.0)
        assert "full" in store.last_error
        assert store.write_errors == 1
        assert (store.due(39.0), store.due(40.0)) == (False, True)
        assert not store.flush(40.0)
        assert (store.due(99.0), store.due(100.0)) == (False, True)  # waits longer each time
        assert len(store.rows("pump")[0]) == 4000
        assert [found["id"] for found in store.alerts()] == ["pump-1"]
        ballast.unlink()
        assert store.flush(100.0), store.last_error
        assert store.last_error is None
        store.close()
        with Store.open(directory) as again:
            assert again.rows("pump")[0].tolist() == [1000.0 + i for i in range(4000)]
            assert [found["id"] for found in again.alerts()] == ["pump-1"]


def test_a_disk_that_is_full_at_the_start_does_not_stop_it(tmp_path):
    directory = tmp_path / "small"
    with mounted(directory, "size=256k"):
        with contextlib.suppress(OSError), (directory / "ballast").open("wb", buffering=0) as file:
            while True:
                file.write(bytes(4096))
        with Store.open(directory) as store:
            assert not store.persistent
            assert store.last_error
            fill(store, 0, 10)
            assert not store.flush(0.0)
            (directory / "ballast").unlink()
            assert store.flush(30.0), store.last_error
            assert store.persistent
            assert len(store.rows("pump")[0]) == 10


def test_a_disk_that_stays_full_costs_bounded_memory(tmp_path):
    directory = tmp_path / "small"
    names = tuple(f"f{i}" for i in range(100))
    rng = np.random.default_rng(0)
    with mounted(directory, "size=128k"), Store.open(directory) as store:
        (directory / "ballast").touch()
        with contextlib.suppress(OSError), (directory / "ballast").open("wb", buffering=0) as file:
            while True:
                file.write(bytes(4096))
        for i in range(60):
            block = rng.normal(size=(1000, 100)).astype(np.float32)
            for j in range(1000):
                store.add_row(row(1000 * i + j, *block[j], features=names), False, float(i))
            assert not store.flush(float(i))
        assert sum(len(chunk.payload) for chunk in store._packed) <= REFUSED_BYTES
        assert store.rows_dropped > 0
        assert store.rows_dropped + store.streams()["pump"] == 60_000
        timestamps, _, _, restart = store.rows("pump")
        assert timestamps[-1] == 1000.0 + 59_999
        assert np.flatnonzero(restart).tolist() == [0]


def test_a_read_only_disk_means_running_without_history(tmp_path):
    directory = tmp_path / "small"
    with mounted(directory, "size=4m"):
        with Store.open(directory) as store:
            fill(store, 0, 10)
            store.flush(0.0)
        remounted(directory, "ro")
        with Store.open(directory) as store:
            assert not store.persistent
            assert "Read-only file system" in store.last_error
            fill(store, 10, 20)
            store.put_state("rows", 20)
            assert not store.flush(1.0)
            assert (len(store.rows("pump")[0]), store.state("rows")) == (10, 20)
            remounted(directory, "rw")
            assert store.due(31.0)
            assert store.flush(31.0), store.last_error
            assert store.persistent
            assert len(store.rows("pump")[0]) == 20


def test_a_directory_that_cannot_be_made_means_running_without_history(tmp_path):
    directory = tmp_path / "small"
    with mounted(directory, "size=1m,ro"), Store.open(directory / "state") as store:
        assert not store.persistent
        fill(store, 0, 3)
        assert not store.flush(0.0)
        assert len(store.rows("pump")[0]) == 3


def test_a_state_directory_that_is_a_file_is_refused(tmp_path):
    (tmp_path / "state").touch()
    with pytest.raises(StoreError, match="is not a directory"):
        Store.open(tmp_path / "state")
