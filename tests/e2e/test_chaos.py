"""Two minutes of `make chaos`, by a seed that draws denied alerts before a kill, small packets and a lost model."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from e2e.servers import require

SOAK = Path(__file__).parents[2] / "tools" / "soak.py"


@pytest.mark.slow  # two minutes of attacks
def test_under_random_attacks_every_row_and_every_alert_is_accounted_for(tmp_path: Path) -> None:
    require("mosquitto"), require("mosquitto_sub")
    report = tmp_path / "chaos.md"
    command = [sys.executable, str(SOAK), "--random", "--minutes", "2", "--seed", "935", "--report", str(report)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr[-3000:]}"
    done_to_it = report.read_text()
    assert "| ok | every row is accounted for |" in done_to_it
    assert "the broker denies alerts; kill -9; the broker takes small packets only" in done_to_it
