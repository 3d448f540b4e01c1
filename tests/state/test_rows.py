"""Rows: what comes back, what is left out, and what goes first."""

import sqlite3

import numpy as np
import pytest
from storing import FEATURES, fill, lives, reopened, row

from gon_edge.errors import StoreError
from gon_edge.state.chunk import decode
from gon_edge.state.database import DATABASE
from gon_edge.state.store import Store


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
    monkeypatch.setattr("gon_edge.state.rows.decode", lambda *given: decoded.append(1) or decode(*given))
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


def test_rows_are_restamped_wherever_they_are_but_not_those_of_an_earlier_boot(store, tmp_path):
    fill(store, 0, 20)
    store.flush(0.0)
    before = store.newest_chunk()
    assert store.restamp("pump", 5000.0, before) == 0
    fill(store, 20, 40)  # on the disk, packed and in memory
    store.flush(1.0)
    fill(store, 40, 60)
    assert store.restamp("pump", 5000.5, before) == 40
    assert store.restamp("fan", 5000.5, before) == 0
    expected = [1000.0 + i + (5000.5 if i >= 20 else 0.0) for i in range(60)]
    for opened in lives(store, tmp_path):
        assert opened.rows("pump")[0].tolist() == expected
        assert len(opened.rows("pump", since=3000.0)[0]) == 40


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
