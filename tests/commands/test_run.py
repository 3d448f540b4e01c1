"""A configuration is checked, and the daemon runs until it is told to end."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
from e2e.servers import Mosquitto, free_port, wait_until
from program import GON_EDGE

from gon_edge.commands.main import main

CONFIG = "mqtt: {url: mqtt://localhost:1}\nsubscriptions: [{topic: 'telemetry/{stream}'}]\n"


def test_a_valid_configuration(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "gon-edge.yaml"
    path.write_text(CONFIG)
    assert main(["check-config", str(path)]) == 0
    assert "valid; node" in capsys.readouterr().out
    assert main(["check-config", str(path), "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["valid"] is True
    assert answer["options"]["streams.defaults.warmup_rows"] == 600


@pytest.mark.parametrize(
    ("text", "key", "line"),
    [
        (CONFIG + "strems: {}\n", "strems", 3),
        (CONFIG.replace("{stream}", "a{stream}"), "subscriptions[0].topic", 2),
        (CONFIG.replace("{stream}", "+"), "subscriptions[0].topic", 2),
    ],
)
def test_a_mistake_in_the_configuration_is_78_with_its_key(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, key: str, line: int
) -> None:
    path = tmp_path / "gon-edge.yaml"
    path.write_text(text)
    assert main(["check-config", str(path), "--json"]) == 78
    output = capsys.readouterr()
    answer = json.loads(output.out)
    assert (answer["valid"], answer["key"], answer["line"]) == (False, key, line)
    assert output.err == f"gon-edge: {answer['error']}\n"


def test_run_ends_on_sigterm_and_logs_to_stderr(mosquitto: Mosquitto, tmp_path: Path) -> None:
    path = tmp_path / "gon-edge.yaml"
    path.write_text(
        f"node: t\nstate_dir: {tmp_path}/state\nmqtt: {{url: '{mosquitto.url}'}}\n"
        f"subscriptions: [{{topic: 'telemetry/{{stream}}'}}]\nhttp: {{listen: '127.0.0.1:{free_port()}'}}\n"
    )
    process = subprocess.Popen(
        [*GON_EDGE, "run", "--config", str(path), "--log-level", "info"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        wait_until(lambda: mosquitto.retained("gon-edge/t/status", 1) == b"online", 30.0, "the daemon online")
        process.terminate()
        output, errors = process.communicate(timeout=60)
    finally:
        process.kill()
    assert (process.returncode, output) == (0, "")
    assert "info gon_edge.links.mqtt: connected to " in errors
    assert mosquitto.retained("gon-edge/t/status", 1) == b"offline"
