"""Child processes end when they are told to, and with their parent."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

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
