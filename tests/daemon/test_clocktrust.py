"""Rows and models of a machine whose clock is not set yet: a real store and a real model folder."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from configurations import SMALLEST

from gon_edge.config.file import parse_config
from gon_edge.config.schema import StreamConfig
from gon_edge.daemon.app import Daemon
from gon_edge.daemon.clocktrust import ClockTrust
from gon_edge.events import Reading
from gon_edge.process.clock import Clock
from gon_edge.state.folder import ModelFolder
from gon_edge.state.store import Store
from gon_edge.stream.stream import Stream
from gon_edge.training.fit import fit_model

IN_1970, REAL = 100.0, 1_800_000_000.0


def stream_of(name: str, store: Store, first: int, last: int, *, own_time: bool = False) -> Stream:
    """A stream whose rows are stored; this machine stamps them unless they have a time of their own."""
    stream = Stream(name, StreamConfig(interval_s=1.0), max_features=9)
    stream.stamped_by_receipt = not own_time
    for i in range(first, last):
        for outcome in stream.add(Reading(name, IN_1970 + i, {"a": float(i)}), float(i)):
            store.add_row(outcome.row, False, now=float(i))
    return stream


def test_rows_stamped_before_the_clock_is_set_get_their_time_and_others_keep_theirs(tmp_path: Path) -> None:
    with Store.open(tmp_path) as store:
        stream_of("pump", store, 0, 10)
        store.flush(0.0)  # of an earlier boot
        trust = ClockTrust(store, ModelFolder(tmp_path), IN_1970, 30.0)
        assert not trust.believed
        streams = [stream_of("pump", store, 20, 30), stream_of("meter", store, 20, 30, own_time=True)]
        trust.moved(REAL - IN_1970, streams)
        trust.look(REAL + 40.0, 1000.0)
        assert trust.believed
        trust.moved(60.0, streams)  # somebody's wish
        times = store.rows("pump")[0]
        assert times.tolist() == [*(IN_1970 + np.arange(10.0)), *(REAL + 20.0 + np.arange(10.0))]
        assert store.rows("meter")[0][0] == IN_1970 + 20.0


def test_a_daemon_that_starts_again_in_the_same_boot_knows_which_rows_to_move(tmp_path: Path) -> None:
    with Store.open(tmp_path) as store:
        ClockTrust(store, ModelFolder(tmp_path), IN_1970, 30.0)
        stream_of("pump", store, 0, 10)
        store.flush(0.0)
    with Store.open(tmp_path) as store:
        trust = ClockTrust(store, ModelFolder(tmp_path), IN_1970 + 15.0, 45.0)
        trust.moved(REAL - IN_1970, [stream_of("pump", store, 20, 30)])
        assert store.rows("pump")[0].tolist() == (REAL + np.array([*range(10), *range(20, 30)])).tolist()


def test_a_model_trained_before_the_clock_is_set_gets_its_dates(tmp_path: Path) -> None:
    models = ModelFolder(tmp_path)
    model = fit_model(np.random.default_rng(0).normal(size=(60, 1)), features=["a"], rng=np.random.default_rng(0))
    models.install("pump", model.with_lineage(version="1", trained_at=IN_1970 + 60.0, until=IN_1970 + 59.0))
    models.install("fan", model.with_lineage(version="1", trained_at=IN_1970 - 60.0))  # of an earlier boot
    with Store.open(tmp_path) as store:
        trust = ClockTrust(store, models, IN_1970, 30.0)
        streams = [stream_of(name, store, 0, 5) for name in ("pump", "fan")]
        for stream in streams:
            stream.use(models.load(stream.name)[0])
        trust.moved(REAL - IN_1970, streams)
    lineage = models.load("pump")[0].lineage
    assert (lineage["trained_at"], lineage["until"]) == (REAL + 60.0, REAL + 59.0)
    assert streams[0].model.lineage == lineage
    assert models.load("fan")[0].lineage["trained_at"] == IN_1970 - 60.0


def test_a_daemon_whose_clock_is_set_stores_neither_a_gap_nor_a_row_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    offset_s, now = IN_1970 - 50.0, 50.0
    clock = Clock(monotonic=lambda: now, wall=lambda: now + offset_s)
    monkeypatch.setattr("gon_edge.daemon.app.Clock", lambda: clock)
    streams = {"defaults": {"interval": 1.0}}
    mapping = {**SMALLEST, "state_dir": str(tmp_path), "streams": streams, "http": {"listen": "off"}}
    daemon = Daemon(parse_config(mapping))
    try:
        for second in range(60):
            now = 50.0 + second
            if second == 30:
                offset_s = REAL
            daemon._pass_time(now)
            daemon._scoring.take("telemetry/pump", b'{"a": %d}' % second, now)
        timestamps, values, _, restart = daemon._store.rows("pump")
        assert np.diff(timestamps).tolist() == [1.0] * (len(timestamps) - 1)
        assert np.diff(values[:, 0]).tolist() == [1.0] * (len(timestamps) - 1)
        assert len(timestamps) >= 59
        assert timestamps[0] > REAL
        assert restart.sum() == 1
    finally:
        daemon._stop()
