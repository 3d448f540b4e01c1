"""What a snapshot says of readings, earlier days, and an exposed port; the rest is in links/web and e2e/test_page."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from gon_edge.config.schema import HttpConfig, StreamConfig
from gon_edge.daemon.snapshot import EarlierDays, exposure, readings_snapshot, stream_snapshot
from gon_edge.events import Reading, Row
from gon_edge.model.window import Scaler
from gon_edge.state import days as stored_days
from gon_edge.state.store import Store
from gon_edge.stream.stream import Stream
from gon_edge.training.fit import fit_model

BEGIN = 1_699_999_200.0  # a whole hour


def test_a_reading_is_usually_within_two_deviations_of_what_was_learned_and_one_that_never_moved_is_still() -> None:
    rng = np.random.default_rng(0)
    rows = np.column_stack([rng.normal(20.0, 0.5, 500), np.full(500, 7.0), np.zeros(500)])
    model = fit_model(rows, features=("flow", "still", "zero"), rng=rng)
    model = replace(model, scaler=Scaler.fit(rows))
    stream = Stream("pump", StreamConfig(interval_s=1.0), max_features=10, model=model)
    stream.judge([Row("pump", BEGIN, ("other", "flow"), np.float32([1.0, 21.0]), np.zeros(2, np.bool_))])
    snapshot = readings_snapshot(stream)
    assert (snapshot.features, snapshot.values.tolist()) == (("other", "flow"), [1.0, 21.0])
    usual = dict(zip(snapshot.learned, snapshot.usual.T.tolist(), strict=True))
    assert usual["flow"] == pytest.approx([19.0, 21.0], abs=0.2)
    assert (usual["still"], usual["zero"]) == ([7.0, 7.0], [0.0, 0.0])
    stream.use(replace(model, rising=("still",)))
    counted = readings_snapshot(stream)
    assert counted.learned == ("flow", "zero")
    assert counted.usual.T.tolist() == [usual["flow"], usual["zero"]]


def test_counters_are_those_the_model_found_else_what_the_configuration_says_else_what_has_only_risen() -> None:
    settings = StreamConfig(interval_s=1.0, counter=("rain*", "level"), gauge=("*.level",))
    stream = Stream("pump", settings, max_features=10)
    for i in range(60):
        values = {"energy": float(i), "tank.level": float(i), "rain_mm": 0.0, "level": float(i % 3)}
        stream.add(Reading("pump", BEGIN + i, values), float(i))
    assert stream_snapshot(stream, "", "").counters == {"energy", "rain_mm", "level"}
    rng = np.random.default_rng(0)
    model = fit_model(rng.normal(size=(200, 2)), features=("level", "energy"), rng=rng)
    stream.use(replace(model, rising=("energy",)))
    assert stream_snapshot(stream, "", "").counters == {"energy", "rain_mm"}


def test_the_threshold_that_is_shown_is_the_one_the_newest_row_was_held_against() -> None:
    # A machine in another state is held against that state's; the page said by how much a row passed the model's.
    rng = np.random.default_rng(0)
    model = fit_model(rng.normal(20.0, 0.5, (500, 1)), features=("flow",), rng=rng)
    stream = Stream("pump", StreamConfig(interval_s=1.0), max_features=10, model=model)
    assert stream_snapshot(stream, "", "").threshold == model.threshold
    fresh = np.zeros(1, np.bool_)
    for t, value in enumerate(np.concatenate([rng.normal(20.0, 0.5, 60), rng.normal(90.0, 5.0, 1400)])):
        stream.judge([Row("pump", BEGIN + t, ("flow",), np.float32([value]), fresh, t == 0)])
    assert stream.verdict is not None
    assert stream.verdict.threshold > model.threshold
    assert stream_snapshot(stream, "", "").threshold == stream.verdict.threshold


def test_earlier_days_come_from_the_store_while_the_daemon_holds_it(tmp_path: Path) -> None:
    with Store.open(tmp_path) as store:
        for at in (BEGIN - 86_400.0 - 1.0, BEGIN - 86_400.0 - 3600.0, BEGIN - 86_400.0):
            store.add_row(Row("pump", at, ("flow",), np.float32([3.0]), np.array([False])), False, now=0.0)
        assert store.flush(1.0)
        found = EarlierDays(tmp_path)("pump", ("flow",), BEGIN)
        assert store.flush(2.0)
    assert found is not None
    assert np.flatnonzero(np.isfinite(found[1][:, 0])).tolist() == [0, 119]


def test_where_nothing_is_stored_there_are_no_earlier_days(tmp_path: Path) -> None:
    assert EarlierDays(tmp_path / "nowhere")("pump", ("flow",), BEGIN) == {}


def test_one_look_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Store.open(tmp_path).close()
    looking, go_on = threading.Event(), threading.Event()

    def slow(*_: object, **__: object) -> dict[int, object]:
        looking.set()
        assert go_on.wait(30.0)
        return {}

    monkeypatch.setattr("gon_edge.daemon.snapshot.earlier_days", slow)
    monkeypatch.setattr("gon_edge.daemon.snapshot._LOOK_S", 0.05)
    look = EarlierDays(tmp_path)
    first = threading.Thread(target=look, args=("pump", ("flow",), BEGIN))
    first.start()
    try:
        assert looking.wait(30.0)
        assert look("pump", ("flow",), BEGIN) is None
    finally:
        go_on.set()
        first.join()
    monkeypatch.setattr("gon_edge.daemon.snapshot.earlier_days", stored_days.earlier_days)
    assert look("pump", ("flow",), BEGIN) == {}


@pytest.mark.parametrize(
    ("listen", "missing"),
    [
        ("127.0.0.1:9109", ()),
        ("0.0.0.0:9109", ("no password", "nothing is encrypted")),
    ],
)
def test_a_port_that_the_network_reaches_without_password_and_tls_says_what_is_missing(
    listen: str, missing: tuple[str, ...]
):
    said = exposure(HttpConfig(listen))
    assert bool(said) == bool(missing)
    assert all(text in said for text in missing)
