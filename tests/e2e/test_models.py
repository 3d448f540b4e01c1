"""Models in a running daemon: a shipped one until there is one of its own, and versions put in place by command."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from e2e.daemons import DaemonProcess, rows
from e2e.servers import Mosquitto, wait_until

pytestmark = pytest.mark.e2e

START = 1_700_000_000.0


def telemetry(count: int, start: float, *, memory: float = 40.0) -> Iterator[str]:
    """What a machine at rest publishes, a row a second; ``load.1m`` jumps about, which the starter does not know."""
    rng = np.random.default_rng(3)
    for i in range(count):
        values = {"cpu.total": 3.0 + rng.exponential(), "memory.used_percent": memory + 0.1 * rng.normal()}
        yield json.dumps({"time": start + i, "load.1m": 50.0 * float(rng.random()), **values})


def command(*arguments: object) -> subprocess.CompletedProcess[str]:
    words = [sys.executable, "-m", "gon_edge", "models", *map(str, arguments)]
    return subprocess.run(words, capture_output=True, text=True, timeout=120, check=False)


def test_a_new_stream_is_scored_by_a_shipped_model_until_it_has_its_own(mosquitto: Mosquitto, tmp_path: Path) -> None:
    with DaemonProcess(tmp_path, mosquitto).connected() as daemon:
        mosquitto.publish_lines("telemetry/pi", telemetry(100, START))
        seen = wait_until(lambda: daemon.stream("pi").get("rows", 0) >= 99 and daemon.stream("pi"), 20, "its rows")
        assert (seen["state"], seen["model_version"], seen["starter"]) == ("warming-up", None, "shipped:host")
        assert 0.0 < seen["score"] < seen["threshold"]
        assert len(seen["scores"]) == seen["rows"]
        state = json.loads(mosquitto.retained("gon-edge/pi-1/state/pi") or b"{}")
        assert (state["state"], state["model_version"], state["alerts"]) == ("warming-up", "shipped:host", [])
        mosquitto.publish_lines("telemetry/pi", telemetry(15, START + 100, memory=60.0))
        wait_until(lambda: "alert new anomaly" in daemon.log, 20, "the alert of the shipped model")
        mosquitto.publish_lines("telemetry/pi", telemetry(215, START + 115))
        daemon.wait_for_state("pi", "scoring")
        own = daemon.stream("pi")
        assert (own["model_version"], own["starter"]) == ("1", None)
        assert "stream 'pi': scored by shipped:host until it has a model of its own" in daemon.log
        assert "stream 'pi': its own model takes over from shipped:host" in daemon.log


def test_import_and_rollback_take_effect_in_the_running_daemon(mosquitto: Mosquitto, tmp_path: Path) -> None:
    with DaemonProcess(tmp_path, mosquitto).connected() as daemon:
        mosquitto.publish_lines("telemetry/pump", rows(320))
        daemon.wait_for_state("pump", "scoring")
        where = ("--config", daemon.config)
        copy = tmp_path / "copy.npz"
        assert command("export", "pump", copy, *where).returncode == 0
        imported = command("import", "pump", copy, *where)
        assert imported.returncode == 0, imported.stderr
        assert imported.stdout == "stream 'pump' is scored by version 2, from the next row on\n"
        assert daemon.stream("pump")["model_version"] in ("1", "2")
        wait_until(lambda: daemon.stream("pump")["model_version"] == "2", 10, "the imported model")
        back = command("rollback", "pump", *where)
        assert back.stdout == "stream 'pump' is scored by version 1, from the next row on\n", back.stderr
        wait_until(lambda: daemon.stream("pump")["model_version"] == "1", 10, "the model before it")
        assert "no version 9; there are: " in command("rollback", "pump", "9", *where).stderr
        listed = json.loads(command("list", "--json", *where).stdout)["streams"]["pump"]
        assert [(v["version"], v["current"]) for v in listed] == [("2", False), ("1", True)]
        wrong = command("import", "pump", "motes", *where)
        assert (wrong.returncode, "other features than version 1" in wrong.stderr) == (66, True)
        assert daemon.stop() == 0  # what the store holds in memory is on the disk then
        shown = json.loads(command("show", "pump@1", "--json", *where).stdout)
        assert shown["training"]["outcome"] == "promoted"
        assert 10 << 20 < shown["training"]["peak_bytes"] < 64 << 20
        assert shown["lineage"]["gate"]["passed"]
        text = command("show", "pump@1", *where).stdout
        assert "gate.challenger.alarm_rate" in text
        assert "training" in text
