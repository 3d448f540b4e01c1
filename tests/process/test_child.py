"""Child processes end when they are told to, and with their parent."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from configurations import SMALLEST
from jobs import stored

from gon_edge.process.child import end_child, start_child


def test_a_child_that_ignores_sigterm_is_killed() -> None:
    code = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(flush=True); time.sleep(600)"
    child = start_child([sys.executable, "-c", code], stdout=subprocess.PIPE)
    assert child.stdout is not None
    child.stdout.readline()
    end_child(child, timeout_s=0.2)
    assert child.returncode == -signal.SIGKILL


def test_ctrl_c_in_the_terminal_does_not_reach_a_child_directly() -> None:
    child = start_child(["sleep", "600"])
    try:
        assert os.getpgid(child.pid) != os.getpgid(0)
    finally:
        end_child(child)


@pytest.mark.parametrize("by", ["script", "module"])
def test_a_child_imports_nothing_from_a_working_directory_that_its_parent_does_not_trust(
    tmp_path: Path, by: str
) -> None:
    (tmp_path / "stranger.py").write_text("print('run')")
    script = tmp_path / "bin" / "program.py"
    script.parent.mkdir()
    asks = "import subprocess; from gon_edge.process.child import python; "
    script.write_text(asks + "subprocess.run(python('-c', 'import stranger'), stderr=subprocess.DEVNULL)")
    shutil.copy(script, tmp_path / "program.py")
    command = [sys.executable, str(script)] if by == "script" else [sys.executable, "-m", "program"]
    said = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60).stdout
    assert said.strip() == ("" if by == "script" else "run")  # who starts a source tree by -m means what lies in it


def test_a_training_by_the_installed_program_runs_no_code_of_the_working_directory(tmp_path: Path) -> None:
    state, here = tmp_path / "state", tmp_path / "here"
    here.mkdir()
    stored(state, 300)
    config = tmp_path / "config.yaml"
    config.write_text(json.dumps({**SMALLEST, "state_dir": str(state)}))
    (here / "numpy.py").write_text(f"open({str(tmp_path / 'foreign')!r}, 'w')")
    program = Path(sys.executable).with_name("gon-edge")
    command = [str(program), "retrain", "pump", "--config", str(config)]
    done = subprocess.run(command, cwd=here, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert not (tmp_path / "foreign").exists()
