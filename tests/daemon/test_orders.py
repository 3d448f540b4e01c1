"""Operations on running streams: a real daemon without a broker, whose loop is the test's."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from configurations import SMALLEST
from jobs import two_streams
from nightly import NAMES, START, job_blocks, kept, server

from gon_edge.config.file import parse_config
from gon_edge.config.schema import Config
from gon_edge.daemon.app import Daemon
from gon_edge.daemon.orders import Orders
from gon_edge.errors import GonEdgeError
from gon_edge.events import Alert, Cause, Row, Verdict
from gon_edge.process.clock import monotonic
from gon_edge.state.folder import ModelFolder
from gon_edge.stream.stream import Stream
from gon_edge.training.answers import answers
from gon_edge.training.ask import ask
from gon_edge.training.fit import fit_model
from gon_edge.training.habits import learn
from gon_edge.training.operations import carry_out


class Caller:
    """A client that writes down what it is told."""

    gone = False

    def __init__(self) -> None:
        self.told: list[dict[str, Any]] = []
        self.answered: dict[str, Any] | None = None

    def tell(self, **progress: Any) -> None:
        self.told.append(progress)

    def answer(self, **result: Any) -> None:
        self.answered = result

    def refuse(self, error: GonEdgeError | str) -> None:
        self.answered = {"refused": str(error)}


def quiet(config: Config) -> Config:
    """A daemon without a page, that trains whatever the machine is doing."""
    retrain = dataclasses.replace(config.retrain, max_load=None, max_temperature=None)
    home = dataclasses.replace(config.homeassistant, silence_s=3600.0)
    http = dataclasses.replace(config.http, listen="off")
    return dataclasses.replace(config, http=http, retrain=retrain, homeassistant=home)


@pytest.fixture
def orders(tmp_path: Path) -> Iterator[Orders]:
    """The orders of a daemon with two streams of 400 rows each, 100 of the pump's quarantined."""
    daemon = Daemon(quiet(two_streams(tmp_path / "live", quarantined=range(200, 300))))
    for name in ("pump", "boiler"):
        daemon._orders.open(name)
    yield daemon._orders
    daemon._stop()


def asked(orders: Orders, **request: Any) -> dict[str, Any]:
    """Have it carried out, and its rounds run to their end."""
    caller = Caller()
    carry_out(orders, request, caller)
    deadline = time.monotonic() + 60.0
    while caller.answered is None:
        assert time.monotonic() < deadline, "no answer"
        orders.step(monotonic())
        time.sleep(0.02)
    return caller.answered


REQUESTS: list[dict[str, Any]] = [
    {"do": "silences"},
    {"do": "silence", "stream": "pump", "feature": "a", "for_s": 60.0, "reason": "new sensor"},
    {"do": "silence", "stream": "fan", "for_s": 60.0},
    {"do": "silence", "stream": "pump", "for_s": -1.0},
    {"do": "unsilence", "stream": "pump", "feature": "b"},
    {"do": "unsilence", "stream": "pump"},
    {"do": "retrain", "dry_run": True},
    {"do": "retrain", "streams": ["fan"]},
    {"do": "rollback", "stream": "pump"},
    {"do": "reload-model", "stream": "pump"},
    {"do": "accept", "stream": "pump", "since": {"at": 9000.0}},
    {"do": "accept", "stream": "pump", "since": {"ago_s": 199.0}},
    {"do": "feedback", "alert": "pump", "answer": "wrong"},
    {"do": "feedback", "alert": "x", "answer": "wrong"},
    {"do": "missed", "stream": "pump", "at": {"at": 1050.0}, "note": "a knock"},
    {"do": "feedback", "alert": "pump-missed-1050", "answer": "true"},
    {"do": "feedback", "alert": "pump-missed-1050", "answer": "true"},
    {"do": "feedback", "alert": "pump-missed-1050", "answer": "wrong", "note": "x" * 501},
    {"do": "retrain", "streams": ["pump"], "force": True},
    {"do": "rollback", "stream": "pump"},
    {"do": "reload-model", "stream": "pump"},
    {"do": "rollback", "stream": "pump", "version": "9"},
    {"do": "streams"},
    {"do": "remove", "stream": "fan"},
    {"do": "remove", "stream": "pump", "dry_run": True},
    {"do": "rename", "stream": "pump", "to": ""},
    {"do": "rename", "stream": "boiler", "to": "pump"},
    {"do": "rename", "stream": "pump", "to": "hall/pump"},
    {"do": "streams"},
    {"do": "remove", "stream": "hall/pump"},
    {"do": "remove", "stream": "hall/pump"},
    {"do": "rename", "stream": "boiler", "to": "kiln"},
    {"do": "streams"},
]

OWN = (
    *("scored", "newest", "since", "until", "live", "at", "trained_at", "duration_s", "peak_bytes", "latency_s"),
    *("state_dir", "candidate"),
)
"""What two machines, or two moments, say differently."""


def same(answer: Any, state_dir: Path) -> Any:
    """An answer without what is the machine's or the moment's own."""
    if isinstance(answer, dict):
        return {key: same(value, state_dir) for key, value in answer.items() if key not in OWN}
    if isinstance(answer, list | tuple):
        return [same(value, state_dir) for value in answer]
    return answer.replace(str(state_dir), "") if isinstance(answer, str) else answer


def test_whoever_asks_gets_the_same_answer_of_a_running_daemon_and_of_its_files(orders: Orders, tmp_path: Path) -> None:
    # Each operation stood twice, and the two had begun to differ.
    files = quiet(two_streams(tmp_path / "files", quarantined=range(200, 300)))
    for request in REQUESTS:
        try:
            there = ask(files, request)
        except GonEdgeError as error:
            there = {"refused": str(error)}
        here = asked(orders, **request)
        here, there = json.loads(json.dumps([here, there]))
        assert same(here, orders.config.state_dir) == same(there, files.state_dir), request


def test_a_new_model_is_used_shown_and_remembered(orders: Orders) -> None:
    (result,) = asked(orders, do="retrain", streams=["boiler"])["rounds"]
    model = orders.model("boiler")
    assert model is not None
    assert (result["outcome"], result["version"], model.version) == ("promoted", "1", "1")
    assert orders.trainings[0]["outcome"] == "promoted"
    assert orders.store.retrains(1)[0].version == "1"
    assert orders.training_of("boiler") == ""


@pytest.mark.parametrize("all_rows", [False, True])
def test_only_a_training_on_rows_under_alerts_too_knows_what_drifts(orders: Orders, all_rows: bool) -> None:
    assert orders.knows("pump")
    stream, heard = orders._pipeline.streams["pump"], []
    stream.learned = lambda: heard.append("pump")  # type: ignore[method-assign]
    order = {"streams": ["pump"], "include_quarantined": all_rows, "force": True}
    assert asked(orders, do="retrain", wait=True, **order)["rounds"][0]["outcome"] == "promoted"
    assert heard == ["pump"] * all_rows


def test_a_running_training_is_shown_in_words_and_ends_with_an_alert_unless_a_person_asked(orders: Orders) -> None:
    caller = Caller()
    carry_out(orders, {"do": "retrain", "streams": ["boiler"]}, caller)
    orders.step(monotonic())
    assert orders.training_of("boiler") == "starting, 0 %"
    assert orders.training_of("pump") == ""
    orders.alerted(orders._pipeline.streams["boiler"])
    assert [order.stream for order in orders.rounds.running] == ["boiler"]
    orders.rounds.cancel("boiler")
    assert caller.answered is not None
    assert caller.answered["rounds"][0]["reason"] == "cancelled"


def test_a_silence_reaches_the_stream_and_the_switch_is_the_same_one(orders: Orders) -> None:
    asked(orders, do="silence", stream="pump", feature="a", for_s=60.0)
    assert orders.silenced("pump") == frozenset({"a"})
    orders.act("pump", "silence")
    assert orders.silenced("pump") is None
    assert orders.silenced("boiler") == frozenset()
    orders.act("pump", "unsilence")
    assert orders.silenced("pump") == frozenset({"a"})
    orders.act("fan", "silence")  # a stream that is gone
    assert [one.stream for one in orders.silences.active(time.time())] == ["pump"]


def test_an_answer_is_shown_counted_and_kept_also_when_the_alert_goes_on(orders: Orders) -> None:
    asked(orders, do="retrain", streams=["pump"])
    stream = orders._pipeline.streams["pump"]
    causes = (Cause("a", 9.0, 0.5, 1.0),)
    alert = Alert("pump-anomaly-1", "new", "anomaly", "pump", 1200.0, 1210.0, 5.0, 3.0, "warning", causes, "1")
    orders._reporter.tell(stream, (alert,))
    orders.act("pump", "wrong")
    deadline = time.monotonic() + 60.0
    while orders.rounds.wants("pump"):
        assert time.monotonic() < deadline, "no end of the training"
        orders.step(monotonic())
        time.sleep(0.02)
    model = orders.model("pump")
    assert model is not None
    assert model.version == "2"
    assert orders._reporter.alerts[alert.id]["answer"] == "wrong"
    orders._reporter.tell(stream, (dataclasses.replace(alert, type="end", timestamp=1220.0),))
    kept = orders.store.alert(alert.id)
    assert kept is not None
    assert (kept["type"], kept["answer"]) == ("end", "wrong")
    (answer,) = answers(orders.store, "pump")
    assert (answer.by, answer.answer, answer.version) == ("Home Assistant", "wrong", "1")
    assert orders._telemetry._streams.of("pump").answers == {"wrong": 1}


def test_a_silence_that_is_over_is_over_for_the_stream_and_on_the_disk(orders: Orders) -> None:
    asked(orders, do="silence", stream="pump", for_s=3600.0)
    orders.beat(monotonic(), time.time() + 3601.0)
    assert orders.silenced("pump") == frozenset()
    assert orders.store.state("silences") == []


def test_a_stream_of_which_only_the_model_is_there_is_opened_when_it_is_asked_for(orders: Orders) -> None:
    asked(orders, do="retrain", streams=["boiler"])
    model = orders.model("boiler")
    assert model is not None
    orders.models.install("fan", model)
    assert "fan" not in orders.streams()
    assert asked(orders, do="reload-model", stream="fan")["version"] == model.version
    assert "fan" in orders.streams()


def test_a_job_of_every_day_that_does_not_come_is_told_once_and_nothing_is_told_where_it_comes(tmp_path: Path) -> None:
    rows = server(10, [*range(8), 9])  # it stays away on the ninth day, and comes on the tenth
    with kept(tmp_path / "state", rows, []) as store:
        learn(store, "s", job_blocks(range(3)))
        store.flush(0.0)
    model = fit_model(rows[:600], features=NAMES, rng=np.random.default_rng(0))
    ModelFolder(tmp_path / "state").install("s", model.with_lineage(version="1"))
    daemon = Daemon(quiet(parse_config({**SMALLEST, "state_dir": str(tmp_path / "state")})))
    orders = daemon._orders
    try:
        orders.open("s")
        stream = daemon._streams["s"]
        overdue = []
        for hour in range(7 * 24, 10 * 24):
            at = 60 * hour
            stream.last_row = Row("s", START + 60.0 * at, NAMES, rows[at], np.zeros(4, np.bool_))
            orders.beat(monotonic(), time.time())
            if any(alert.kind == "overdue" for alert in stream.policy.active):
                overdue.append(hour - 8 * 24)
        assert overdue == list(range(8, 24 + 8))  # at six it should begin, at half past seven it surely has
        (event,) = (alert for alert in orders.store.alerts() if alert["kind"] == "overdue")
        assert (event["type"], event["recurring"]["count"]) == ("end", 7)
        assert {cause["feature"] for cause in event["top_features"]} == {"io", "net"}
    finally:
        daemon._stop()


def hours_old(orders: Orders) -> Stream:
    """The pump with a model, hours after it was met: its first one is over."""
    asked(orders, do="retrain", streams=["pump"])
    model = orders.model("pump")
    assert model is not None
    orders.use("pump", model.with_lineage(met=1000.0 - 2 * 3600.0))
    return orders._pipeline.streams["pump"]


@pytest.mark.parametrize("is_fault", [False, True])
def test_what_ended_by_itself_on_the_first_day_is_learned_unless_a_person_called_it_a_fault(
    orders: Orders, is_fault: bool
) -> None:
    stream = hours_old(orders)
    causes = (Cause("a", 9.0, 0.5, 1.0),)
    alert = Alert("pump-anomaly-1", "new", "anomaly", "pump", 1210.0, 1215.0, 5.0, 3.0, "warning", causes, "1")
    orders._reporter.tell(stream, (alert,))
    if is_fault:
        orders.act("pump", "true")
    orders._reporter.tell(stream, (dataclasses.replace(alert, type="end", timestamp=1250.0),))
    left = [at for chunk in orders.store.outline("pump") for at in chunk.timestamps[chunk.quarantined].tolist()]
    released = set(range(1210, 1251)) - set(map(int, left))
    assert released == (set() if is_fault else set(range(1210, 1251)))


def test_what_goes_on_as_a_change_is_learned_when_that_has_ended(orders: Orders) -> None:
    stream = hours_old(orders)
    left = []
    for at in range(1210, 1251):
        is_odd = at < 1220
        causes = (Cause("a", 9.0, 0.5, 1.0),) if is_odd else ()
        row = Verdict("pump", at, 5.0 if is_odd else 0.1, 3.0, is_odd, causes, (), "1", changed=1220 <= at < 1250)
        orders._reporter.tell(stream, tuple(stream.policy.update(row)))
        if at in (1240, 1250):
            left.append(sum(int(chunk.quarantined.sum()) for chunk in orders.store.outline("pump")))
    kinds = [(alert["kind"], alert["type"]) for alert in orders.store.alerts()]
    assert sorted(kinds) == [("anomaly", "end"), ("changed", "end")]
    assert left[0] >= 41
    assert left[0] - left[1] == 41


@pytest.mark.parametrize("is_fault", [False, True])
def test_a_state_that_lasts_since_the_first_week_is_learned_unless_a_person_called_it_a_fault(
    orders: Orders, is_fault: bool
) -> None:
    stream, day = hours_old(orders), 86400
    released = []
    for at in (1210, 1211, 1212 + day):
        row = Verdict("pump", at, 0.1, 3.0, False, (), (), "1", changed=True)
        orders._reporter.tell(stream, tuple(stream.policy.update(row)))
        if is_fault:
            orders.act("pump", "true")
        stream.last_row = Row("pump", float(at), ("a", "b"), np.float32([1.0, 1.0]), np.zeros(2, np.bool_))
        for _ in range(1000):
            orders.judged(stream, row, normal=False)
        orders._train_again(monotonic() + 2 * day)
        left = [time for chunk in orders.store.outline("pump") for time in chunk.timestamps[chunk.quarantined].tolist()]
        released.append(1250.0 not in left)
    assert released == [False, False, not is_fault]
    assert orders.rounds.wants("pump")  # an answer has a model made, too
