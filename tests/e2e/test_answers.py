"""Answers of a person: a real daemon, broker and training, and every way by which an answer comes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from e2e.daemons import DaemonProcess, Subscriber, rows
from e2e.servers import Mosquitto, wait_until

pytestmark = pytest.mark.e2e

START = 1_700_000_000.0
CALM = {"every": "off", "on_drift": False, "max_load": "off", "max_temperature": "off", "nice": 0}
ROWS = 'gon_edge_rows_total{stream="pump"}'


def gon_edge(daemon: DaemonProcess, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "gon_edge", *arguments, "--config", str(daemon.config)]
    return subprocess.run(command, capture_output=True, text=True, timeout=100)


def publish(broker: Mosquitto, daemon: DaemonProcess, count: int, begin: int, **options: Any) -> None:
    before = daemon.metrics().get(ROWS, 0.0)
    broker.publish_lines("telemetry/pump", rows(count, start=START + begin, **options))
    wait_until(lambda: daemon.metrics().get(ROWS, 0.0) >= before + count, 60, "every row")


def version(daemon: DaemonProcess) -> Any:
    return daemon.stream("pump").get("model_version")


def answered(daemon: DaemonProcess, word: str) -> float | None:
    return daemon.metric(f'gon_edge_feedback_total{{answer="{word}",stream="pump"}}')


def test_a_wrong_alert_is_learned_within_one_round_and_does_not_come_again(
    mosquitto: Mosquitto, subscriber: Subscriber, tmp_path: Path
) -> None:
    with DaemonProcess(tmp_path, mosquitto, retrain=CALM).connected() as daemon:
        mosquitto.publish_lines("telemetry/pump", rows(320))
        daemon.wait_for_state("pump", "scoring")
        publish(mosquitto, daemon, 300, 320, seed=1)
        publish(mosquitto, daemon, 30, 620, seed=2, fault=8.0)  # a job of half a minute: shorter than a window
        publish(mosquitto, daemon, 60, 650, seed=3)
        ended = wait_until(lambda: [e for e in subscriber.events() if e["type"] == "end"], 20, "the end of the alert")
        name = ended[-1]["id"]
        done = gon_edge(daemon, "feedback", name, "wrong", "--note", "the filter is cleaned", "--json")
        assert done.returncode == 0, done.stdout + done.stderr
        (result,) = json.loads(done.stdout)
        assert (result["outcome"], result["version"]) == ("promoted", "2")
        wait_until(lambda: version(daemon) == "2", 5, "the new model")
        assert answered(daemon, "wrong") == 1.0
        raised = len([e for e in subscriber.events() if e["type"] == "new"])
        publish(mosquitto, daemon, 30, 800, seed=4, fault=8.0)  # the job again
        publish(mosquitto, daemon, 60, 830, seed=5)
        # What the newest row was held against: before a row came, that was the threshold of the model before.
        after = pytest.approx(result["threshold"]["after"], rel=1e-4)
        wait_until(lambda: daemon.stream("pump")["threshold"] == after, 10, "the new threshold")
        assert len([e for e in subscriber.events() if e["type"] == "new"]) == raised
        daemon.kill()
        daemon.connected()  # and it is remembered
        shown = [a for a in json.loads(daemon.get("/api/v1/alerts")[1])["alerts"] if a["id"] == name]
        assert [(a["answer"], a["note"]) for a in shown] == [("wrong", "the filter is cleaned")]
        listed = gon_edge(daemon, "alerts", "pump").stdout
        assert "wrong: the filter is cleaned" in listed


def test_answers_come_by_mqtt_where_the_configuration_wants_them(mosquitto: Mosquitto, tmp_path: Path) -> None:
    results = Subscriber(mosquitto, "gon-edge/pi-1/feedback/result", tmp_path)
    mqtt = {"url": mosquitto.url, "reconnect_max": "1s", "feedback": True}
    mosquitto.publish("gon-edge/pi-1/feedback", json.dumps({"missed": "pump", "at": START}), retain=True)
    try:
        with DaemonProcess(tmp_path, mosquitto, retrain=CALM, mqtt=mqtt).connected() as daemon:
            mosquitto.publish_lines("telemetry/pump", rows(320))
            daemon.wait_for_state("pump", "scoring")
            publish(mosquitto, daemon, 100, 320, seed=1)
            mosquitto.publish("gon-edge/pi-1/feedback", b"wrong!")
            mosquitto.publish("gon-edge/pi-1/feedback", json.dumps({"alert": "pump", "answer": "wrong"}))
            asked = {"missed": "pump", "at": START + 200, "note": "a knock"}
            mosquitto.publish("gon-edge/pi-1/feedback", json.dumps(asked))
            told = wait_until(lambda: len(results.events()) == 4 and results.events(), 60, "four results")
            assert [one["ok"] for one in told] == [False, False, False, True]
            assert "retained" in told[0]["error"]
            assert told[1]["error"] == "an answer is a JSON object"
            assert told[2]["error"] == "stream 'pump' has had no alert yet"
            assert told[3]["training"]["outcome"] == "promoted"
            wait_until(lambda: version(daemon) == "2", 5, "the new model")
            assert daemon.metric("gon_edge_feedback_refused_total") == 3.0
            assert answered(daemon, "missed") == 1.0
            (given,) = json.loads(gon_edge(daemon, "alerts", "--json").stdout)["answers"]
            assert (given["by"], given["note"]) == ("MQTT", "a knock")
    finally:
        results.stop()
        mosquitto.publish("gon-edge/pi-1/feedback", b"", retain=True)


def test_without_the_option_nobody_answers_by_mqtt(mosquitto: Mosquitto, tmp_path: Path) -> None:
    with DaemonProcess(tmp_path, mosquitto, retrain=CALM).connected() as daemon:
        mosquitto.publish_lines("telemetry/pump", rows(320))
        daemon.wait_for_state("pump", "scoring")
        mosquitto.publish("gon-edge/pi-1/feedback", json.dumps({"missed": "pump", "at": START + 200}))
        publish(mosquitto, daemon, 20, 320, seed=1)
        assert answered(daemon, "missed") == 0.0
        assert version(daemon) == "1"
