"""All checks together, and what one of them cannot keep the others from."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from e2e.daemons import DaemonProcess, rows
from e2e.servers import Mosquitto, wait_until

from gon_edge.commands.doctor import examine


def test_a_wrong_configuration_is_a_fault_and_the_clock_is_still_looked_at(look, settings):
    findings = look({**settings, "mqtt_url": "x"}, "configuration", "clock", "broker")
    assert [finding.check for finding in findings] == ["configuration", "clock"]
    assert (findings[0].state, "mqtt_url" in findings[0].text) == ("fault", True)


def test_a_check_that_breaks_is_a_fault_and_the_others_go_on(look, settings, monkeypatch):
    def broken(*_: object):
        raise RuntimeError("surprise")

    monkeypatch.setattr(examine, "check_disk", broken)
    findings = look(settings, "disk", "memory")
    assert (findings[0].state, "surprise" in findings[0].text) == ("fault", True)
    assert findings[1].check == "memory"


@pytest.mark.e2e
def test_a_running_daemon_with_its_broker_has_no_fault(tmp_path):
    broker = Mosquitto(tmp_path / "broker").start()
    try:
        with DaemonProcess(tmp_path, broker) as daemon:
            daemon.connected()
            broker.publish_lines("telemetry/pump", rows(310))
            daemon.wait_for_state("pump", "scoring")
            command = [sys.executable, "-m", "gon_edge", "doctor", "--config", str(daemon.config)]
            shown = subprocess.run(command, capture_output=True, text=True, timeout=60)
            assert shown.returncode == 0, shown.stdout + shown.stderr
            assert "came back after" in shown.stdout
            assert "streams: 1" in shown.stdout
            assert "faults: 0" in shown.stdout
            broker.stop()
            wait_until(lambda: daemon.metric("gon_edge_mqtt_connected") == 0.0, 10, "the loss of the broker")
            shown = subprocess.run([*command, "--json"], capture_output=True, text=True, timeout=60)
            assert (shown.returncode, json.loads(shown.stdout)["healthy"]) == (1, False)
    finally:
        broker.stop()
