"""A training whose disk refuses one call, the daemon's or the child's: it fails or goes on, and the next works."""

from __future__ import annotations

import errno
import shutil
import time
from pathlib import Path

import numpy as np
import pytest
from faults import fail_at
from jobs import plain_job

from gon_edge.events import Row
from gon_edge.state.folder import ModelFolder
from gon_edge.state.store import Store
from gon_edge.training.trainer import Trainer

STEP = 7  # all calls with 1, which takes three minutes; 7 and 4 errors have no common factor
ERRORS = (errno.ENOSPC, errno.EIO, errno.EROFS, errno.EDQUOT)


def outcome(used: Path) -> str:
    """Of one training; that of the disk where it could not begin."""
    trainer = Trainer(used, ModelFolder(used))
    try:
        trainer.start(plain_job(used))
        deadline = time.monotonic() + 60.0
        while (found := trainer.poll()) is None:
            assert time.monotonic() < deadline
            time.sleep(0.02)
    except OSError as refused:
        assert refused.errno in ERRORS  # noqa: PT017  what `start` says it raises
        return "refused"
    finally:
        trainer.stop()
    record, model = found
    assert (record.outcome == "promoted") == (model is not None)
    assert record.outcome == "promoted" or record.reason
    return record.outcome


@pytest.mark.slow  # two trainings for each call
def test_a_training_whose_disk_refuses_one_call_says_so_and_the_next_one_works(tmp_path: Path) -> None:
    kept, used = tmp_path / "kept", tmp_path / "used"
    rng = np.random.default_rng(0)
    with Store.open(kept) as store:
        for t, values in enumerate(rng.normal(size=(400, 2)).astype(np.float32)):
            store.add_row(
                Row("pump", 1000.0 + t, ("a", "b"), values, np.zeros(2, np.bool_), t == 0), False, now=float(t)
            )
        assert store.flush(900.0)

    def work() -> None:
        if outcome(used) != "promoted":
            assert outcome(used) == "promoted"

    seen = 0
    for nth in range(1, 500, STEP):
        shutil.rmtree(used, ignore_errors=True)
        shutil.copytree(kept, used)
        seen, trace = fail_at(nth, ERRORS[nth % len(ERRORS)], work)
        assert trace == "", f"call {nth}: {trace}"
        found, wrong = ModelFolder(used).load("pump")
        assert found is not None
        assert wrong == ""
        if seen < nth:
            break
    assert 10 < seen < nth
