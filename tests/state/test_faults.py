"""Each system call that writes fails once, with each error a disk has: nothing ends, nothing lies, nothing is lost."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from faults import fail_at
from storing import event, fill

from gon_edge.model.file import Model
from gon_edge.state.folder import ModelFolder
from gon_edge.state.store import Store

ERRORS = [errno.ENOSPC, errno.EIO, errno.EROFS, errno.EDQUOT]
errors = pytest.mark.parametrize("error", ERRORS, ids=[errno.errorcode[error] for error in ERRORS])


def each_call_fails(error: int, work: Callable[[], None], before: Callable[[], None], after: Callable[[], None]) -> int:
    """Do it again and again, each time with a later call that fails; return how many there are."""
    for nth in range(1, 500):
        before()
        calls, trace = fail_at(nth, error, work)
        assert trace == "", f"call {nth}: {trace}"
        if calls < nth:
            return calls
        after()
    raise AssertionError("it never ended without a fault")


@errors
def test_a_store_whose_disk_refuses_any_one_call_says_so_and_loses_nothing(tmp_path: Path, error: int) -> None:
    kept, used = tmp_path / "kept", tmp_path / "used"
    with Store.open(kept) as store:
        fill(store, 0, 10)
        assert store.flush(0.0)

    def before() -> None:
        shutil.rmtree(used, ignore_errors=True)
        shutil.copytree(kept, used)

    def work() -> None:
        with Store.open(used) as store:
            assert not store.recovered, "an error of the disk is no damage"
            fill(store, 10, 20)
            store.add_alert(event(1))
            store.put_state("key", "value")
            if not store.flush(10.0):
                assert store.last_error
                assert store.write_errors == 1
                assert store.due(40.0)
                assert store.flush(40.0), store.last_error
            assert not store.recovered
            assert store.rows("pump")[0].tolist() == [1000.0 + i for i in range(20)]

    def after() -> None:
        with Store.open(used) as store:
            assert not store.recovered, store.recovered_reason
            assert store.rows("pump")[0].tolist() == [1000.0 + i for i in range(20)]
            assert [alert["id"] for alert in store.alerts()] == ["pump-1"]
            assert store.state("key") == "value"
        assert not list(used.glob("*.damaged*"))

    assert each_call_fails(error, work, before, after) > 15


@errors
def test_a_model_folder_whose_disk_refuses_any_one_call_has_the_old_model_or_the_new_one(
    tmp_path: Path, model: Model, error: int
) -> None:
    kept, used = tmp_path / "kept", tmp_path / "used"
    ModelFolder(kept).install("pump", model.with_lineage(version="1"))

    def before() -> None:
        shutil.rmtree(used, ignore_errors=True)
        shutil.copytree(kept, used)

    def work() -> None:
        models = ModelFolder(used)
        try:
            models.install("pump", model.with_lineage(version="2", parent="1"))
        except OSError:
            found, wrong = models.load("pump")
            assert found is not None
            assert (found.version in ("1", "2"), wrong) == (True, "")
            models.install("pump", model.with_lineage(version="2", parent="1"))

    def after() -> None:
        found, wrong = ModelFolder(used).load("pump")
        assert found is not None
        assert (found.version, wrong) == ("2", "")
        assert ModelFolder(used).load("pump", "1")[0] is not None
        assert not list(used.glob("models/pump/*.damaged"))

    assert each_call_fails(error, work, before, after) > 12
