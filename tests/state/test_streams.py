"""Whole streams on the disk: deleted, or under another name, in every table."""

from __future__ import annotations

import contextlib
import sqlite3
import time
from pathlib import Path

import numpy as np
import pytest
from storing import event, fill, lives, reopened

from gon_edge.errors import StoreError
from gon_edge.state.database import DATABASE
from gon_edge.state.history import RetrainRecord
from gon_edge.state.store import Store

NAMES = ("pump", "hall/pump")  # the second ends like the first, and as a key of a state has a slash more


def everything(store: Store, stream: str, *, first: int = 0) -> None:
    """Something in every table, on the disk and in memory."""
    fill(store, first, first + 1100, stream=stream)
    store.add_alert({**event(1, stream=stream), "together": {"streams": [stream, "fan"]}})
    store.put_state(f"alerts/{stream}", {"stream": stream, "others": [{"stream": stream}]})
    store.put_state(f"habits/{stream}", [[1.0]])
    store.add_retrain(RetrainRecord(stream, "1", 60.0, 1.0, "promoted", 1, 40, ""))
    store.flush(0.0)
    fill(store, first + 1100, first + 1110, stream=stream)
    store.put_state(f"columns/{stream}", {"flow": 1})


def held(store: Store, stream: str) -> tuple[int, int, int, list[object]]:
    states = [store.state(f"{kind}/{stream}") for kind in ("alerts", "habits", "columns")]
    return store.streams().get(stream, 0), len(store.alerts(stream=stream)), len(store.retrains(stream=stream)), states


def test_of_a_stream_that_is_removed_nothing_is_left_and_of_others_everything(store, tmp_path):
    for name in NAMES:
        everything(store, name)
    before = held(store, "hall/pump")
    store.remove_stream("pump", 1.0)
    assert held(store, "pump") == (0, 0, 0, [None] * 3)
    with reopened(store, tmp_path) as again:
        assert held(again, "pump") == (0, 0, 0, [None] * 3)
        assert held(again, "hall/pump") == before
        assert len(again.rows("pump")[0]) == 0
        assert len(again.rows("hall/pump")[0]) == 1110
    with contextlib.closing(sqlite3.connect(tmp_path / DATABASE)) as db:
        assert db.execute("SELECT name FROM stream").fetchall() == [("hall/pump",)]


def test_a_stream_of_another_name_has_its_rows_alerts_states_and_rounds(store, tmp_path):
    everything(store, "pump")
    rows = store.rows("pump")
    store.rename_stream("pump", "hall/pump 2", 1.0)
    store = reopened(store, tmp_path)
    with store:
        assert held(store, "pump") == (0, 0, 0, [None] * 3)
        states = [{"stream": "hall/pump 2", "others": [{"stream": "hall/pump 2"}]}, [[1.0]], {"flow": 1}]
        assert held(store, "hall/pump 2") == (1110, 1, 1, states)
        (alert,) = store.alerts()
        assert (alert["id"], alert["stream"]) == ("pump-1", "hall/pump 2")
        assert alert["together"]["streams"] == ["hall/pump 2", "fan"]
        assert store.retrains()[0].stream == "hall/pump 2"
        for before, after in zip(rows, store.rows("hall/pump 2"), strict=True):
            np.testing.assert_array_equal(before, after)
        assert store.damaged_chunks == 0
        fill(store, 1110, 1120, stream="hall/pump 2")
        assert store.flush(2.0)
        assert store.quarantine("hall/pump 2", 0.0, 1e9) == 1120


def test_a_version_that_knows_no_former_names_refuses_a_database_that_has_some(store, tmp_path):
    # It called the rows damaged, and went on without them.
    def version() -> tuple[int, int]:
        with contextlib.closing(sqlite3.connect(tmp_path / DATABASE)) as db:
            return db.execute("PRAGMA user_version").fetchone()[0], db.execute("PRAGMA application_id").fetchone()[0]

    everything(store, "pump")
    store.flush(0.5)
    assert version() == (1, 0x676F6E01)
    store.rename_stream("pump", "fan", 1.0)
    with reopened(store, tmp_path):
        assert version() == (2, 0x676F6E02)  # as a newer one is known by: see test_database
    with Store.open(tmp_path, read_only=True) as reader:
        assert reader.streams() == {"fan": 1110}


def test_rows_that_the_new_name_has_already_come_after(store, tmp_path):
    everything(store, "pump")
    store.flush(0.5)
    fill(store, 2000, 2010, stream="new")
    store.put_state("columns/new", {"flow": 2})
    store.rename_stream("pump", "new", 1.0)
    for opened in lives(store, tmp_path):
        assert opened.rows("new")[0].tolist() == [1000.0 + i for i in (*range(1110), *range(2000, 2010))]
        assert opened.state("columns/new") == {"flow": 1}


def test_a_stream_keeps_its_rows_over_many_names_and_each_can_be_had_again(store, tmp_path):
    fill(store, 0, 10, stream="a")
    store.rename_stream("a", "b", 1.0)
    fill(store, 100, 110, stream="a")  # another device has the name now
    fill(store, 10, 20, stream="b")
    store.rename_stream("b", "c", 2.0)
    store.rename_stream("a", "b", 3.0)
    for opened in lives(store, tmp_path):
        assert opened.rows("c")[0].tolist() == [1000.0 + i for i in range(20)]
        assert opened.rows("b")[0].tolist() == [1100.0 + i for i in range(10)]
        assert opened.streams() == {"b": 10, "c": 20}
        assert opened.damaged_chunks == 0
    with Store.open(tmp_path) as again:
        again.rename_stream("b", "c", 4.0)  # whose rows come before
        assert len(again.rows("c")[0]) == 30
        assert again.restamp("c", 5.0, 0) == 30
        assert again.quarantine("c", 0.0, 1e9) == 30
        assert again.rows("c", include_quarantined=True)[0].max() == 1114.0
        again.remove_stream("c", 5.0)
        fill(again, 0, 5, stream="c")
        assert again.flush(6.0)
    with contextlib.closing(sqlite3.connect(tmp_path / DATABASE)) as db:
        assert db.execute("SELECT key FROM state").fetchall() == []  # nothing tells of names that nobody has


def test_a_stream_with_a_year_of_rows_has_another_name_at_once(store, tmp_path):
    # Each of its chunks was unpacked and packed again between two rows of the daemon: seconds for 20,000 rows.
    fill(store, 0, 1100)
    store.flush(0.0)
    store.close()
    with contextlib.closing(sqlite3.connect(tmp_path / DATABASE)) as db, db:
        for _ in range(10):  # to 1000 chunks, all alike
            db.execute(
                "INSERT INTO chunk (stream, feature_set, newest, rows, gap, payload) "
                "SELECT stream, feature_set, newest, rows, gap, payload FROM chunk LIMIT 1000"
            )
    with Store.open(tmp_path, rows_per_stream=10_000_000) as again:
        rows = again.streams()["pump"]
        assert rows > 500_000
        began = time.process_time()
        again.rename_stream("pump", "fan", 1.0)
        assert time.process_time() - began < 0.2  # 0.01 s; it was 7 s
        assert again.streams() == {"fan": rows}
        again.rename_stream("fan", "pump", 2.0)
        assert len(next(again.chunks("pump")).timestamps) == 1024


def test_a_disk_that_refuses_changes_nothing(store, tmp_path):
    everything(store, "pump")
    store.flush(0.5)
    before = held(store, "pump")
    with sqlite3.connect(tmp_path / DATABASE) as other:
        other.execute("BEGIN IMMEDIATE")
        for change in (lambda: store.remove_stream("pump", 1.0), lambda: store.rename_stream("pump", "fan", 1.0)):
            with pytest.raises(StoreError, match="locked"):
                change()
        other.rollback()
    other.close()
    assert held(store, "pump") == before
    store.remove_stream("pump", 100.0)
    assert store.streams() == {}


def test_a_chunk_that_cannot_be_read_goes_along_and_stays_one(store, tmp_path: Path):
    everything(store, "pump")
    store.flush(0.5)
    with sqlite3.connect(tmp_path / DATABASE) as db:
        db.execute("UPDATE chunk SET payload = x'00' WHERE id = 1")
    db.close()
    store.rename_stream("pump", "fan", 1.0)
    assert len(store.rows("fan")[0]) < 1110
    assert store.damaged_chunks == 1
