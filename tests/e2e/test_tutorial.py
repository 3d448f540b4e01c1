"""The tutorial keeps its promise: what it tells a newcomer to type raises the alert it shows."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from e2e.daemons import DaemonProcess, Subscriber
from e2e.servers import wait_until

pytestmark = pytest.mark.e2e

TUTORIAL = (Path(__file__).resolve().parents[2] / "docs" / "tutorial.md").read_text(encoding="utf-8")


def block(language: str) -> str:
    (found,) = re.findall(rf"^```{language}\n(.*?)^```$", TUTORIAL, re.MULTILINE | re.DOTALL)
    return found


def test_the_pump_of_the_tutorial_raises_one_anomaly_alert_that_blames_the_flow_and_ends(mosquitto, tmp_path):
    shown = yaml.safe_load(block("yaml"))
    written = subprocess.run([sys.executable, "-c", block("python")], capture_output=True, text=True, check=True)
    rows = tmp_path / "pump.csv"
    rows.write_text(written.stdout)
    line = next(line for line in TUTORIAL.splitlines() if line.startswith("gon-edge replay"))
    arguments = re.sub(r"--speed \d+", "--as-fast-as-possible", line).replace("pump.csv", str(rows)).split()[1:]
    # The page has the default warm-up, the tests' daemon a shorter one.
    settings = {"subscriptions": shown["subscriptions"], "node": shown["node"], "streams": {}}
    with DaemonProcess(tmp_path, mosquitto, **settings) as daemon:
        daemon.connected()
        alerts = Subscriber(mosquitto, f"gon-edge/{shown['node']}/alert", tmp_path)
        command = [sys.executable, "-m", "gon_edge", *arguments, "--broker", mosquitto.url]
        try:
            sent = subprocess.run(command, capture_output=True, text=True, timeout=120)
            assert sent.returncode == 0, sent.stderr
            wait_until(lambda: any(event["type"] == "end" for event in alerts.events()), 60, "the end of the alert")
            events = [event for event in alerts.events() if event["kind"] == "anomaly"]
        finally:
            alerts.stop()
    assert [event["type"] for event in events if event["type"] != "update"] == ["new", "end"]
    assert events[0]["top_features"][0]["feature"] == "flow"
    assert events[0]["timestamp"] - events[0]["since"] == 2.0, "the third row, as the page says"
