"""A state directory that an earlier version has left: this one goes on where that ended."""

from __future__ import annotations

import tarfile
from pathlib import Path

import pytest
import states
from states import GOLDEN, NOW, ROWS

from gon_edge.training.answers import answers

KEPT = sorted(GOLDEN.glob("state-*.tar.gz"))


def test_there_is_a_state_of_the_first_version():
    assert GOLDEN / "state-0.1.0.tar.gz" in KEPT


@pytest.mark.parametrize("left", [*KEPT, None], ids=[*(file.name for file in KEPT), "just now"])
def test_everything_that_an_earlier_version_has_left_goes_on(tmp_path: Path, left: Path | None):
    if left is None:  # so that the program that makes them is known to work on the day of a release
        states.leave(tmp_path)
    else:
        with tarfile.open(left) as archive:
            safely = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}  # not before Python 3.11.4
            archive.extractall(tmp_path, **safely)
    scoring, sent = states.begun(tmp_path)
    store = scoring.store
    try:
        assert (store.persistent, store.recovered, store.last_error) == (True, False, None)
        assert store.streams() == {"fan": ROWS, "pump": ROWS}
        timestamps, values, features, restart = store.rows("pump", include_quarantined=True)
        assert (timestamps[0], timestamps[-1]) == (NOW - ROWS, NOW - 1.0)
        assert features == ("flow", "pressure", "current")
        assert values[:3].tolist() == [[20.0, 3.0, 4.0], [21.0, 3.5, 4.0], [22.0, 3.0, 4.0]]
        assert restart.tolist() == [True] + [False] * (ROWS - 1)
        assert store.damaged_chunks == 0

        pump = scoring.pipeline.streams["pump"]
        assert pump.model.version == "2"
        assert [found.version for found in scoring.models.versions("pump")] == ["2", "1"]
        assert scoring.models.rollback("pump").version == "1"
        open_ids = {alert.id for alert in pump.policy.active}
        assert open_ids == {"pump-anomaly-20260202T023900Z", "pump-missing-20260202T023959Z"}
        assert {found["id"] for found in store.alerts(active=True)} == open_ids
        assert sent.events == []  # nothing is ended, and nothing raised again

        assert scoring.orders.silenced("fan") == {"flow"}
        assert [(one.answer, one.note, one.by) for one in answers(store, "pump")] == [("missed", "a knock", "anna")]
        assert [(record.version, record.outcome) for record in store.retrains()] == [("2", "promoted")]
        store.put_state("written", True)
        assert store.flush(0.0), store.last_error
    finally:
        store.close()
