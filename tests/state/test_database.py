"""The file: damage, kill -9, two processes, and disks that refuse."""

import contextlib
import shutil
import signal
import sqlite3
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest
from mounts import mounted, remounted
from storing import event, fill, reopened, row

from gon_edge.errors import StoreError
from gon_edge.state.database import DATABASE
from gon_edge.state.history import RetrainRecord
from gon_edge.state.rows import REFUSED_BYTES
from gon_edge.state.store import Store

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
    (root,) = store._database.connection.execute("SELECT rootpage FROM sqlite_master WHERE name = 'chunk'").fetchone()
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
        # Of the whole process, and it cannot be taken back.
        store._database.connection.execute("PRAGMA hard_heap_limit=1")
    fill()
    assert store.quarantine("pump", 0.0, 1e9) in (3000, 6000)
    for k in range(4):
        assert not store.flush(30.0 * k)
        print(store.write_errors, store.recovered, "memory" in store.last_error, sum(store.streams().values()))
"""


def test_a_file_for_which_there_is_twice_no_memory_is_taken_for_damaged(tmp_path):
    # Found by fuzzing: a damaged table can also look like that, and the MemoryError ended the daemon.
    command = [sys.executable, "-c", textwrap.dedent(STARVED), str(tmp_path)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert ended.returncode == 0, ended.stderr
    first, second, *_ = ended.stdout.splitlines()
    assert first.startswith("1 True True")  # the quarantine was the first time, and closed the file
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


@pytest.mark.parametrize("mode", ["wal", "delete"])
@pytest.mark.parametrize("crashed", [False, True])
def test_a_newer_database_is_refused_and_not_touched(tmp_path, mode, crashed):
    # The journal mode had been set, and the log written back, before the version was looked at.
    program = f"""if True:
        import os, sqlite3
        from gon_edge.state.store import Store
        Store.open({str(tmp_path)!r}).close()
        db = sqlite3.connect({str(tmp_path / DATABASE)!r}, isolation_level=None)
        db.execute("PRAGMA journal_mode = {mode}")
        db.execute("PRAGMA user_version = 99")
        db.execute("PRAGMA application_id = {0x676F6E00 + 99}")
        os._exit(0) if {crashed} else db.close()
    """
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir() if not path.name.endswith("-shm")}
    for read_only in (False, True):
        with pytest.raises(StoreError, match="newer gon-edge"):
            Store.open(tmp_path, read_only=read_only)
    after = {path.name: path.read_bytes() for path in tmp_path.iterdir() if not path.name.endswith("-shm")}
    assert after == before


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


@pytest.mark.slow  # a process killed again and again
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


def test_a_look_by_this_process_leaves_the_writer_its_locks(store, tmp_path):
    # Without them another process takes itself for the last one, and deletes the log under the writer.
    fill(store, 0, 10)
    store.flush(0.0)
    Store.open(tmp_path, read_only=True).close()
    program = f"""if True:
        import sqlite3
        db = sqlite3.connect({str(tmp_path / DATABASE)!r})
        print(*db.execute("SELECT sum(rows) FROM chunk").fetchone())
        db.close()
    """
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout == "10\n"
    assert (tmp_path / f"{DATABASE}-wal").exists()
    fill(store, 10, 20)
    assert store.flush(1.0)
    assert store.replaced == 0


def test_a_reader_without_anything_to_read_is_told(tmp_path):
    with pytest.raises(StoreError, match="cannot be read"):
        Store.open(tmp_path / "nothing", read_only=True)


# -- disks that refuse -------------------------------------------------------------------------------------------------


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


@pytest.mark.slow  # 60,000 rows
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
        assert sum(len(chunk.payload) for chunk in store._rows._packed) <= REFUSED_BYTES
        assert store.rows_dropped > 0
        assert store.rows_dropped + store.streams()["pump"] == 60_000
        timestamps, _, _, restart = store.rows("pump")
        assert timestamps[-1] == 1000.0 + 59_999
        assert np.flatnonzero(restart).tolist() == [0]


def test_a_read_only_disk_is_still_read_and_forgets_no_alert_and_no_state(tmp_path):
    # A restart on a read-only card had forgotten open alerts and silences.
    directory = tmp_path / "small"
    with mounted(directory, "size=4m"):
        with Store.open(directory) as store:
            fill(store, 0, 10)
            store.add_alert(event(1))
            store.put_state("silences", ["pump"])
            store.flush(0.0)
        remounted(directory, "ro")
        with Store.open(directory) as store:
            assert (store.persistent, store.readable) == (False, True)
            assert "Read-only file system" in store.last_error
            assert [found["id"] for found in store.alerts(active=True)] == ["pump-1"]
            assert store.state("silences") == ["pump"]
            assert store.streams() == {"pump": 10}
            assert store.quarantine("pump", 0.0, 1e9) == 0
            fill(store, 10, 20)
            store.put_state("rows", 20)
            assert not store.flush(1.0)
            assert (len(store.rows("pump")[0]), store.state("rows")) == (20, 20)
            with Store.open(directory, read_only=True) as reader:
                assert len(reader.rows("pump")[0]) == 10
            remounted(directory, "rw")
            assert store.due(31.0)
            assert store.flush(31.0), store.last_error
            assert store.persistent
            assert len(store.rows("pump")[0]) == 20


def test_after_a_crash_a_card_that_turns_read_only_is_read_with_what_was_flushed_last(tmp_path):
    directory = tmp_path / "small"
    with mounted(directory, "size=4m"):
        program = f"""if True:
            import os
            from gon_edge.state.store import Store
            store = Store.open({str(directory)!r})
            store.put_state("silences", ["pump"])
            store.flush(0.0)
            os._exit(0)
        """
        subprocess.run([sys.executable, "-c", program], check=True, timeout=60)
        assert (directory / f"{DATABASE}-wal").stat().st_size > 0
        remounted(directory, "ro")
        with Store.open(directory) as store:
            assert store.state("silences") == ["pump"]


def test_a_disk_that_turns_read_only_while_running_is_read_on(tmp_path):
    directory = tmp_path / "small"
    with mounted(directory, "size=4m"), Store.open(directory) as store:
        fill(store, 0, 10)
        store.put_state("silences", ["pump"])
        store.flush(0.0)
        store._database.disconnect()  # an open file keeps the disk from turning read-only
        store._database._release_lock()
        remounted(directory, "ro")
        fill(store, 10, 20)
        assert not store.flush(1.0)
        assert (store.state("silences"), len(store.rows("pump")[0])) == (["pump"], 20)


# -- files that are deleted, replaced, or changed by a person ----------------------------------------------------------


def deleted(directory: Path) -> None:
    for path in directory.glob(f"{DATABASE}*"):
        path.unlink()


def moved(directory: Path) -> None:
    directory.rename(directory.with_name("moved"))


def made_anew(directory: Path) -> None:
    moved(directory)
    directory.mkdir()


def without_log(directory: Path) -> None:
    (directory / f"{DATABASE}-wal").unlink()


@pytest.mark.parametrize("befall", [deleted, moved, made_anew, without_log])
def test_a_file_that_goes_while_it_is_open_is_noticed_and_what_memory_holds_written_anew(tmp_path, befall):
    # All of it went to a file without a name, no error was counted, and everything was lost at the stop.
    directory = tmp_path / "state"
    with Store.open(directory) as store:
        fill(store, 0, 10)
        store.add_alert(event(1))
        store.put_state("silences", ["pump"])
        store.add_retrain(RetrainRecord("pump", "1", 60.0, 1.0, "promoted", 1, 40, ""))
        assert store.flush(0.0)
        befall(directory)
        fill(store, 10, 20)
        store.add_alert(event(2))
        assert store.flush(1.0), store.last_error
        assert (store.replaced, store.write_errors) == (1, 1)
        fill(store, 20, 30)
        assert store.flush(2.0)
        assert (store.replaced, store.write_errors) == (1, 1)
        with pytest.raises(StoreError, match="another gon-edge"):
            Store.open(directory)
    with Store.open(directory) as again:
        assert not again.recovered
        expected = range(0 if befall is without_log else 10, 30)
        assert again.rows("pump")[0].tolist() == [1000.0 + i for i in expected]
        assert [found["id"] for found in again.alerts()] == ["pump-2", "pump-1"]
        assert again.state("silences") == ["pump"]
        assert [record.version for record in again.retrains()] == ["1"]


def test_a_backup_put_in_place_while_running_is_used_with_its_log_and_goes_on(tmp_path):
    directory, backup = tmp_path / "state", tmp_path / "backup"
    with Store.open(directory) as store:
        fill(store, 0, 10)
        store.add_retrain(RetrainRecord("pump", "1", 60.0, 1.0, "promoted", 1, 40, ""))
        store.flush(0.0)
        shutil.copytree(directory, backup)
        assert (backup / f"{DATABASE}-wal").stat().st_size > 0
        fill(store, 10, 20)
        store.put_state("silences", ["pump"])
        store.flush(1.0)
        deleted(directory)
        for path in backup.iterdir():
            shutil.copy(path, directory)
        fill(store, 20, 30)
        assert store.flush(2.0), store.last_error
        assert store.replaced == 1
    with Store.open(directory) as again:
        assert not again.recovered
        assert again.rows("pump")[0].tolist() == [1000.0 + i for i in (*range(10), *range(20, 30))]
        assert again.state("silences") == ["pump"]
        assert len(again.retrains()) == 1


@pytest.mark.parametrize("sql", ["ANALYZE", "CREATE INDEX mine ON chunk (stream)", "CREATE TABLE notes (text)"])
def test_what_an_administrator_adds_to_the_file_is_no_damage(store, tmp_path, sql):
    fill(store, 0, 10)
    store.add_alert(event(1))
    store.flush(0.0)
    with contextlib.closing(sqlite3.connect(tmp_path / DATABASE)) as db:
        db.execute(sql)
    fill(store, 10, 20)
    assert store.flush(1.0), store.last_error
    with reopened(store, tmp_path) as again:
        assert not again.recovered, again.recovered_reason
        assert again.streams() == {"pump": 20}


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
