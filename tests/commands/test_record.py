"""Captures: what a broker sent is in them as it came, what is damaged is said, and they are sent and judged again."""

from __future__ import annotations

import base64
import gzip
import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from e2e.daemons import FEATURES, rows
from e2e.servers import Mosquitto, free_port, wait_until
from hypothesis import given
from hypothesis import strategies as st

from gon_edge.commands.main import main
from gon_edge.commands.record import Capture, Captured, alert_line, alerts, is_capture
from gon_edge.config.file import parse_config
from gon_edge.config.schema import Config
from gon_edge.errors import InputError
from gon_edge.model.file import Model
from gon_edge.state.folder import ModelFolder
from gon_edge.training.fit import fit_model

WALL = 1_700_000_000.0
HEAD = {"gon-edge capture": 1, "topics": ["telemetry/#"], "received_at": 100.0, "wall": WALL}


def write(path: Path, messages: list[dict[str, Any]], ended_at: float | None = None, head: Any = HEAD) -> Path:
    lines = [head, *messages, *([{"ended_at": ended_at, "wall": WALL}] if ended_at is not None else [])]
    text = "".join(json.dumps(line) + "\n" for line in lines).encode()
    path.write_bytes(gzip.compress(text) if path.suffix == ".gz" else text)
    return path


def message(payload: str, after_s: float, topic: str = "telemetry/pump", **more: Any) -> dict[str, Any]:
    times = {"received_at": 100.0 + after_s, "wall": WALL + after_s}
    return {"topic": topic, "payload": payload, **times, "retained": False, "qos": 1, **more}


def read(path: Path) -> tuple[list[Captured], Capture]:
    with Capture(str(path)) as capture:
        return list(capture), capture


@given(st.binary(max_size=60), st.booleans(), st.integers(0, 2), st.floats(0, 1e9), st.text(max_size=20))
def test_any_message_comes_back_as_it_went_in(
    tmp_path_factory: pytest.TempPathFactory, payload: bytes, retained: bool, qos: int, at: float, topic: str
):
    from gon_edge.commands.record import _line

    taken = Captured(topic, payload, at, at + 1e9, retained, qos)
    path = write(tmp_path_factory.getbasetemp() / "any.jsonl", [_line(taken)], at)
    assert read(path)[0] == [taken]


def test_a_capture_without_an_end_is_read_up_to_where_it_breaks_off(tmp_path: Path):
    path = write(tmp_path / "c.jsonl.gz", [message(f"{i}", i) for i in range(1000)], 2000.0)
    assert not read(path)[1].cut_off
    path.write_bytes(path.read_bytes()[:-40])
    taken, capture = read(path)
    assert capture.cut_off
    assert capture.ended_at is None
    assert taken == [
        Captured("telemetry/pump", str(i).encode(), 100.0 + i, WALL + i, False, 1) for i in range(len(taken))
    ]


@pytest.mark.parametrize(
    ("head", "messages", "what"),
    [
        ({"x": 1}, [], "is not a capture"),
        ({**HEAD, "gon-edge capture": 2}, [], "format 2"),
        ({"gon-edge capture": 1}, [], ":1: is not the first line"),
        (HEAD, [message("1", 0.0), {"topic": "x"}], ":3: is not a message"),
        (HEAD, [message("1", 0.0, payload_base64="?")], ":2: is not a message"),
        (HEAD, [[1]], ":2: is not a message"),
        # Found by fuzzing:
        (HEAD, [{**message("1", 0.0), "received_at": float("nan")}], ":2: is not a message"),
        (HEAD, [{**message("1", 0.0), "qos": float("inf")}], ":2: is not a message"),
        (HEAD, [{**message("1", 0.0), "wall": 10**400}], ":2: is not a message"),
        (HEAD, [message("1", 0.0, topic="\ud800")], ":2: is not a message"),
        (HEAD, [{"ended_at": None}], ":2: is not a message"),
        ({**HEAD, "received_at": 10**400}, [], ":1: is not the first line"),
    ],
)
def test_what_is_no_capture_is_said_with_the_line(tmp_path: Path, head: Any, messages: list[Any], what: str):
    with pytest.raises(InputError, match=what):
        read(write(tmp_path / "c.jsonl", messages, 1.0, head))


def test_a_line_nested_deeper_than_python_can_go_is_no_message(tmp_path: Path):
    path = tmp_path / "c.jsonl"
    path.write_text(json.dumps(HEAD) + "\n" + "[" * 200_000 + "\n")
    with pytest.raises(InputError, match=":2: is not a message"):
        read(path)


def test_a_capture_is_told_from_a_csv_file(tmp_path: Path):
    assert is_capture(str(write(tmp_path / "c.jsonl.gz", [])))
    assert is_capture(str(write(tmp_path / "c.jsonl", [])))
    (tmp_path / "a.csv").write_text("time,flow\n1,2\n")
    (tmp_path / "b.csv.gz").write_bytes(gzip.compress(b"time\n1\n")[:12])
    for name in ("a.csv", "b.csv.gz", "nothing", "."):
        assert not is_capture(str(tmp_path / name))


def test_wrong_usage_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    (tmp_path / "a.csv").write_text("flow\n1\n")
    assert main(["replay", str(tmp_path / "a.csv")]) == 2
    assert "name the stream" in capsys.readouterr().err
    assert main(["replay", str(tmp_path / "a.csv"), "--alerts", "--stream", "x"]) == 2
    assert "needs a capture" in capsys.readouterr().err
    assert main(["record", "-o", str(tmp_path / "c.jsonl")]) == 2
    assert "--topic" in capsys.readouterr().err
    assert (
        main(["record", "--broker", f"mqtt://127.0.0.1:{free_port()}", "--topic", "x", "-o", str(tmp_path / "c")]) == 69
    )
    assert not (tmp_path / "c").exists()


# -- judged again ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def model() -> Model:
    learned = np.array([[json.loads(row)[name] for name in FEATURES] for row in rows(500, seed=9)])
    fitted = replace(fit_model(learned, features=FEATURES, rng=np.random.default_rng(0)), interval_s=1.0)
    return fitted.with_lineage(version="1")


def config(tmp_path: Path, **settings: Any) -> Config:
    subscription = {"topic": "telemetry/{stream}", "timestamp": "time", **settings.pop("subscription", {})}
    shown = {"mqtt": {"url": "mqtt://x"}, "subscriptions": [subscription], "state_dir": str(tmp_path)}
    return parse_config({**shown, "streams": {"defaults": {"model": "none"}}, **settings})


def story(*, stamped: bool) -> Iterator[dict[str, Any]]:
    """Two minutes calm and half a minute of a fault, one row a second, in real time."""
    lines = [*rows(120, seed=1), *rows(30, start=WALL + 120, seed=2, fault=6.0)]
    for i, line in enumerate(lines):
        row = json.loads(line)
        if not stamped:
            row.pop("time")
        yield message(json.dumps(row), float(i) + 0.01 * (i % 3))


def judged(path: Path, settings: Config, model: Model) -> list[dict[str, Any]]:
    with Capture(str(path)) as capture:
        return [json.loads(alert_line(alert)) for alert in alerts(capture, settings, model)]


@pytest.mark.parametrize("stamped", [True, False])
def test_a_fault_and_the_silence_after_it_are_found_at_their_times(tmp_path: Path, model: Model, stamped: bool):
    path = write(tmp_path / "c.jsonl.gz", list(story(stamped=stamped)), 100.0 + 149 + 120)
    found = judged(path, config(tmp_path), model)
    assert [(alert["kind"], alert["type"]) for alert in found if alert["type"] == "new"] == [
        ("anomaly", "new"),
        ("missing", "new"),
    ]
    first = next(alert for alert in found if alert["kind"] == "anomaly")
    assert 0.0 <= first["since"] - (WALL + 120.0) <= 5.0
    assert first["top_features"][0]["feature"] == "flow"
    silent = found[-1]
    assert silent["severity"] == "critical"
    assert silent["since"] == pytest.approx(WALL + 149.0, abs=61.0)  # rows are held for a minute
    assert found == judged(path, config(tmp_path), model)


def test_retained_messages_broken_ones_and_other_topics_are_taken_as_the_daemon_takes_them(
    tmp_path: Path, model: Model
):
    plain = list(story(stamped=True))
    noise = [
        message('{"flow": 99}', 0.5, retained=True),
        message("{", 0.6),
        message("1", 0.7, topic="other"),
        message("", 0.8, payload_base64=base64.b64encode(b"\xff").decode()),
    ]
    settings = config(tmp_path, subscription={"retained": "ignore"})
    calm = judged(write(tmp_path / "a.jsonl", plain, 300.0), settings, model)
    assert judged(write(tmp_path / "b.jsonl", [plain[0], *noise, *plain[1:]], 300.0), settings, model) == calm
    assert calm


def test_a_stream_without_a_model_gives_nothing_and_says_so(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    path = write(tmp_path / "c.jsonl", list(story(stamped=True)), 300.0)
    with Capture(str(path)) as capture:
        assert list(alerts(capture, config(tmp_path))) == []
    assert [record.getMessage() for record in caplog.records] == [
        f"stream 'pump' has no model in {tmp_path}: its rows give no alerts"
    ]


def test_streams_beyond_the_limit_are_left_out(tmp_path: Path, model: Model):
    plain = list(story(stamped=True))
    both = [line for m in plain for line in (m, {**m, "topic": "telemetry/fan"})]
    settings = config(tmp_path, limits={"streams": 1})
    alone = judged(write(tmp_path / "a.jsonl", plain, 300.0), settings, model)
    assert judged(write(tmp_path / "b.jsonl", both, 300.0), settings, model) == alone
    assert {alert["stream"] for alert in alone} == {"pump"}


# -- with a broker -----------------------------------------------------------------------------------------------------


@pytest.mark.e2e
def test_what_was_recorded_is_sent_again_as_it_was_without_what_was_retained(mosquitto: Mosquitto, tmp_path: Path):
    mosquitto.publish("telemetry/old", "1", retain=True)
    path = tmp_path / "c.jsonl.gz"
    command = [sys.executable, "-m", "gon_edge", "record", "--broker", mosquitto.url, "--topic", "telemetry/#"]
    process = subprocess.Popen([*command, "-o", str(path), "--json"], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    wait_until(lambda: is_capture(str(path)) and len(read(path)[0]) == 1, 20, "the retained message")
    for payload in (b'{"a": 1}', b"\x00\xff", "ü".encode(), b"x" * 5000):
        mosquitto.publish("telemetry/pump", payload)
    wait_until(lambda: len(read(path)[0]) == 5, 20, "all messages")
    process.send_signal(signal.SIGTERM)
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    assert json.loads(said)["messages"] == 5
    assert json.loads(said)["retained"] == 1
    taken, capture = read(path)
    assert [m.payload for m in taken] == [b"1", b'{"a": 1}', b"\x00\xff", "ü".encode(), b"x" * 5000]
    assert [m.retained for m in taken] == [True, False, False, False, False]
    assert all(capture.began_at <= m.received_at <= (capture.ended_at or 0.0) for m in taken)

    again = tmp_path / "again.jsonl"
    process = subprocess.Popen([*command, "-o", str(again), "--for", "60s"], stderr=subprocess.DEVNULL)
    wait_until(lambda: is_capture(str(again)) and len(read(again)[0]) == 1, 20, "the second recording")
    began = time.monotonic()
    assert main(["replay", str(path), "--broker", mosquitto.url, "--speed", "0.5"]) == 0
    pace_s = 2.0 * (taken[-1].received_at - taken[1].received_at)
    assert pace_s <= time.monotonic() - began < pace_s + 60.0
    wait_until(lambda: len(read(again)[0]) == 5, 20, "what was sent again")
    process.kill()  # no end is written, and nothing is lost
    process.wait(60)
    assert [(m.topic, m.payload) for m in read(again)[0]] == [(m.topic, m.payload) for m in taken]
    assert read(again)[1].cut_off


@pytest.mark.e2e
def test_a_full_disk_ends_the_recording_with_a_line(mosquitto: Mosquitto, capsys: pytest.CaptureFixture[str]):
    assert main(["record", "--broker", mosquitto.url, "--topic", "x", "--for", "1s", "-o", "/dev/full"]) == 73
    assert "/dev/full: cannot be written" in capsys.readouterr().err


@pytest.mark.e2e
def test_a_recording_goes_on_after_the_broker_was_away(mosquitto: Mosquitto, tmp_path: Path):
    path = tmp_path / "c.jsonl"
    command = [sys.executable, "-m", "gon_edge", "record", "--broker", mosquitto.url, "--topic", "t/#"]
    process = subprocess.Popen([*command, "-o", str(path)], stderr=subprocess.DEVNULL)
    try:
        wait_until(lambda: "t/# (QoS 1)" in mosquitto.log, 20, "the subscription")
        mosquitto.publish("t/a", "1")
        wait_until(lambda: len(read(path)[0]) == 1, 20, "the first message")
        mosquitto.restart()
        wait_until(lambda: mosquitto.log.count("t/# (QoS 1)") == 2, 30, "the subscription after the restart")
        mosquitto.publish("t/a", "2")
        wait_until(lambda: len(read(path)[0]) == 2, 20, "the second message")
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
    finally:
        process.kill()
    assert not read(path)[1].cut_off


def test_a_new_stream_takes_the_place_of_one_that_fell_silent_as_in_the_daemon(model: Model, tmp_path: Path):
    """The path of replay was a copy of the daemon's, and lacked this: the stream that fails had no place."""
    ModelFolder(tmp_path).install("pump", model)
    ghost = message('{"flow": 1.0}', 0.0, topic="telemetry/ghost", received_at=-100.0, wall=WALL - 200.0)
    path = write(tmp_path / "c.jsonl", [ghost, *story(stamped=True)], 260.0, {**HEAD, "received_at": -100.0})
    with Capture(str(path)) as capture:
        judged = list(alerts(capture, config(tmp_path, limits={"streams": 1})))
    assert {(alert.stream, alert.type) for alert in judged} >= {("pump", "new")}
