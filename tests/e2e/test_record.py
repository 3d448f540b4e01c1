"""A recording judged again gives the alerts the daemon published while it was made, byte for byte."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from e2e.daemons import FEATURES, DaemonProcess, Subscriber, rows
from e2e.servers import Mosquitto, wait_until
from gon_edge.commands.record import Capture
from gon_edge.model.file import Model
from gon_edge.state.folder import ModelFolder
from gon_edge.training.fit import fit_model

pytestmark = pytest.mark.e2e

START = 1_700_000_000.0


def model(interval_s: float) -> Model:
    learned = np.array([[json.loads(row)[name] for name in FEATURES] for row in rows(600, seed=9)])
    fitted = fit_model(learned, features=FEATURES, rng=np.random.default_rng(0))
    fitted = replace(fitted, interval_s=interval_s)
    return fitted.with_lineage(version="1")


def messages(count: int, start: float, seed: int, fault: float = 0.0, without: str = "") -> list[str]:
    lines = [json.loads(row) for row in rows(count, start=start, seed=seed, fault=fault)]
    return [json.dumps({name: value for name, value in line.items() if name != without}) for line in lines]


class Recording:
    """``gon-edge record`` in a process of its own."""

    def __init__(self, broker: Mosquitto, file: Path) -> None:
        self.file = file
        command = [sys.executable, "-m", "gon_edge", "record", "--broker", broker.url, "--topic", "telemetry/#"]
        self._process = subprocess.Popen([*command, "-o", str(file)], stderr=subprocess.DEVNULL)
        broker_log = broker.log_path
        wait_until(lambda: "telemetry/# (QoS 1)" in broker_log.read_text(errors="replace"), 20, "the subscription")

    def stop(self, how: signal.Signals = signal.SIGTERM) -> int:
        self._process.send_signal(how)
        return self._process.wait(60)


def judged(config: Path, capture: Path) -> list[str]:
    command = [sys.executable, "-m", "gon_edge", "replay", str(capture), "--alerts", "--config", str(config)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True, env={**os.environ})
    assert "no end" not in done.stderr
    return done.stdout.splitlines()


def published(subscriber: Subscriber) -> list[str]:
    lines = subscriber._path.read_text().splitlines()
    return [line.partition(" ")[2] for line in lines if not line.startswith("probe")]


def test_a_capture_judged_again_gives_the_alerts_that_were_published_byte_for_byte(
    mosquitto: Mosquitto, tmp_path: Path
) -> None:
    subscriber = Subscriber(mosquitto, "gon-edge/pi-1/alert", tmp_path)
    settings = {"streams": {"defaults": {"warmup_rows": 300, "model": "none", "alerts": {"missing_after": "20s"}}}}
    daemon = DaemonProcess(tmp_path, mosquitto, **settings)
    ModelFolder(daemon.state_dir).install("pump", model(1.0))
    with daemon.connected():
        recording = Recording(mosquitto, tmp_path / "capture.jsonl.gz")
        send = mosquitto.publish_lines
        send("telemetry/pump", messages(150, START, 1))
        mosquitto.publish("telemetry/pump", b"\xff\xfe not a row")
        send("telemetry/pump", messages(60, START + 150, 2, fault=6.0))
        send("telemetry/pump", messages(150, START + 210, 3))
        send("telemetry/pump", messages(80, START + 360, 4, without="pressure"))
        send("telemetry/pump", messages(150, START + 440, 5))
        wait_until(lambda: daemon.messages("accepted") >= 590, 30, "all rows")
        ended = {(e["kind"], e["type"]) for e in subscriber.events()}
        wait_until(lambda: {("anomaly", "end"), ("missing", "end")} <= ended, 5, "both alerts")
        wait_until(
            lambda: len(list(Capture(str(recording.file)))) == 591, 20, "all in the capture, which has no end yet"
        )
        assert recording.stop() == 0
    live = published(subscriber)
    subscriber.stop()
    assert judged(daemon.config, recording.file) == live
    with Capture(str(recording.file)) as capture:
        taken = list(capture)
    assert len(taken) == 591
    assert [m.payload for m in taken if b"\xff" in m.payload] == [b"\xff\xfe not a row"]
    assert capture.ended_at is not None


def test_a_stream_that_stops_gives_the_same_alert_live_and_judged_again(mosquitto: Mosquitto, tmp_path: Path) -> None:
    subscriber = Subscriber(mosquitto, "gon-edge/pi-1/alert", tmp_path)
    settings = {"streams": {"defaults": {"max_gap": "2s", "model": "none"}}}
    daemon = DaemonProcess(tmp_path, mosquitto, **settings)
    ModelFolder(daemon.state_dir).install("pump", model(0.1))
    with daemon.connected():
        recording = Recording(mosquitto, tmp_path / "capture.jsonl")
        lines = [json.loads(row) for row in rows(30)]
        mosquitto.publish_lines(
            "telemetry/pump", (json.dumps({**line, "time": START + i / 10}) for i, line in enumerate(lines))
        )
        wait_until(lambda: subscriber.events(), 20, "the alert")
        mosquitto.publish_lines("telemetry/pump", [json.dumps({**lines[0], "time": START + 60})])
        wait_until(lambda: daemon.messages("accepted") == 31, 10, "a row after it")
        assert recording.stop() == 0
    live = published(subscriber)
    subscriber.stop()
    assert [json.loads(line)["kind"] for line in live] == ["missing"]
    assert judged(daemon.config, recording.file) == live
