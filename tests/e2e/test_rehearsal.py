"""A rehearsal is the daemon: the same messages give the same models and the same alerts, byte for byte."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from e2e.daemons import DaemonProcess, Subscriber
from e2e.servers import Mosquitto, wait_until
from e2e.test_record import START, Recording, messages, published
from gon_edge.commands.record import Capture

pytestmark = pytest.mark.e2e


def rehearsed(daemon: DaemonProcess, capture: Path, folder: Path, answers: list[dict[str, Any]]) -> dict[str, Any]:
    (folder / "answers.jsonl").write_text("".join(json.dumps(answer) + "\n" for answer in answers))
    options = ["--answers", str(folder / "answers.jsonl"), "--alerts", str(folder / "alerts.jsonl"), "--json"]
    command = [sys.executable, "-m", "gon_edge", "rehearse", str(capture), "--config", str(daemon.config), *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=True)
    return dict(json.loads(done.stdout))


def test_warm_up_trainings_and_alerts_are_those_of_the_running_daemon(mosquitto: Mosquitto, tmp_path: Path) -> None:
    subscriber = Subscriber(mosquitto, "gon-edge/pi-1/alert", tmp_path)
    settings = {"streams": {"defaults": {"warmup_rows": 300, "model": "none", "alerts": {"missing_after": "20s"}}}}
    daemon = DaemonProcess(tmp_path, mosquitto, **settings)
    with daemon.connected():
        recording = Recording(mosquitto, tmp_path / "capture.jsonl.gz")
        send = mosquitto.publish_lines
        send("telemetry/pump", messages(400, START, 1))
        send("telemetry/pump", messages(60, START + 400, 2, fault=6.0))
        send("telemetry/pump", messages(400, START + 460, 3))
        # Rows that come during the first training wait for it, and are judged by its model.
        wait_until(lambda: daemon.stream("pump").get("last_timestamp") == START + 859, 60, "all rows")
        wait_until(lambda: "end" in {event["type"] for event in subscriber.events()}, 60, "the end of the alert")
        asked_at = time.time()
        retrain = [sys.executable, "-m", "gon_edge", "retrain", "pump", "--config", str(daemon.config), "--force"]
        subprocess.run(retrain, check=True, timeout=120, capture_output=True)
        send("telemetry/pump", messages(100, START + 860, 4, without="pressure"))
        send("telemetry/pump", messages(100, START + 960, 5))
        wait_until(lambda: daemon.messages("accepted") == 1060, 30, "the rest")
        wait_until(lambda: ("missing", "end") in {(e["kind"], e["type"]) for e in subscriber.events()}, 30, "its end")
        wait_until(lambda: len(list(Capture(str(recording.file)))) == 1060, 20, "all in the capture")
        assert recording.stop() == 0

        def shown() -> list[dict[str, Any]]:
            found: list[dict[str, Any]] = json.loads(daemon.get("/api/v1/trainings")[1])["trainings"]
            return found

        wait_until(lambda: len(shown()) == 2, 20, "both trainings")  # what is shown is some seconds old
        trainings = shown()
    live = published(subscriber)
    subscriber.stop()
    order = {"time": asked_at, "do": "retrain", "streams": ["pump"], "force": True}
    found = rehearsed(daemon, recording.file, tmp_path, [order])

    assert (tmp_path / "alerts.jsonl").read_text().splitlines() == live
    kinds = [(event["kind"], event["type"], event["model_version"]) for event in map(json.loads, live)]
    assert ("anomaly", "new", "1") in kinds
    assert ("missing", "new", "2") in kinds

    same = ("stream", "version", "outcome", "rows", "reason")
    assert [{key: one[key] for key in same} for one in found["trainings"]] == [
        {key: one[key] for key in same} for one in reversed(trainings)
    ]
    told = [{**one["gate"], "latency_s": None} for one in found["trainings"]]
    assert told == [{**one["gate"], "latency_s": None} for one in reversed(trainings)]
    alarmed = [event["threshold"] for event in map(json.loads, live) if event["threshold"] is not None]
    assert alarmed[0] == found["trainings"][0]["model_threshold"]
    assert set(alarmed) <= {one["model_threshold"] for one in found["trainings"]}
