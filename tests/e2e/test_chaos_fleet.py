"""A fleet that breaks, by `make chaos-fleet` with a dozen devices: every row and alert, each failure for real."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from e2e.servers import require

TOOL = Path(__file__).parents[2] / "tools" / "chaos_fleet.py"


@pytest.mark.slow  # half a minute each, most of it waiting
@pytest.mark.parametrize("scenario", ["kill", "freeze", "nats", "one-of-three", "bridge", "disk"])
def test_every_row_and_alert_is_that_of_a_single_daemon_after(scenario: str) -> None:
    require("mosquitto")
    if scenario == "disk" and os.geteuid() != 0:
        pytest.skip("a small file system to fill takes root")
    command = [sys.executable, str(TOOL), "--scenarios", scenario, "--devices", "12", "--quick", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=280)
    assert done.stdout, done.stderr[-3000:]
    (found,) = json.loads(done.stdout).values()
    assert found["failed"] == []
    assert (done.returncode, found["lost"], found["doubled"], found["alerts_repeated"]) == (0, 0, 0, 0)
    assert found["sent"] == found["scored"] + found["late"]
    assert found["alerts"] >= 1
