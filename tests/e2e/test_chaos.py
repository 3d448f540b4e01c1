"""One minute of `make chaos`, by a seed that draws a lost model, a deleted database, a kill, a fault and a cut."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from e2e.servers import require

SOAK = Path(__file__).parents[2] / "tools" / "soak.py"


@pytest.mark.slow  # a minute of attacks
def test_under_random_attacks_every_row_and_every_alert_is_accounted_for(tmp_path: Path) -> None:
    require("mosquitto"), require("mosquitto_sub")
    report = tmp_path / "chaos.md"
    command = [sys.executable, str(SOAK), "--random", "--minutes", "1", "--seed", "40", "--report", str(report)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr[-3000:]}"
    assert "| ok | every row is accounted for |" in report.read_text()
