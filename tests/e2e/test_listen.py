"""``gon-edge listen`` beside a real broker: what it shows, and that Ctrl-C ends it with its table."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from e2e.servers import Mosquitto, wait_until
from gon_edge.config.file import parse_config
from gon_edge.links.publisher import Publisher

pytestmark = pytest.mark.e2e


def test_what_a_broker_has_is_shown_when_ctrl_c_ends_it(mosquitto: Mosquitto, tmp_path: Path) -> None:
    config = tmp_path / "gon-edge.yaml"
    config.write_text(f'mqtt: {{url: "{mosquitto.url}"}}\nsubscriptions: [{{topic: "telemetry/{{stream}}"}}]\n')
    mqtt = parse_config({"mqtt": {"url": mosquitto.url}, "subscriptions": [{"topic": "{stream}"}]}).mqtt
    command = [sys.executable, "-m", "gon_edge", "listen", "--config", str(config), "--for", "1h"]
    processes = [
        subprocess.Popen([*command, *more], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for more in ([], ["--json"])
    ]
    wait_until(lambda: mosquitto.log_path.read_text(errors="replace").count("# (QoS 1)") >= 2, 20, "both to listen")
    with Publisher(mqtt) as publisher:
        for i in range(5):
            publisher.send("telemetry/pump", json.dumps({"flow": i, "mode": "auto"}).encode())
            publisher.send("tele/plug/SENSOR", b'{"Time": "2026-01-05T10:00:00", "power": 3}')
        publisher.drain()
    text, told = (_ended(process) for process in processes)
    assert "pump" in text
    assert "text that is no number" in text
    assert '- {topic: "tele/{stream}/SENSOR", timestamp: "Time"}' in text
    found = json.loads(told)
    assert found["messages"] == 10
    assert [(one["stream"], one["readings"]) for one in found["streams"]] == [("pump", 5)]


def _ended(process: subprocess.Popen[str]) -> str:
    time.sleep(0.5)  # what is on its way arrives
    process.send_signal(signal.SIGINT)
    text, said = process.communicate(timeout=30)
    assert process.returncode == 0, said
    assert "Traceback" not in said
    return text
