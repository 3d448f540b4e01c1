"""Child processes that never outlive the process that started them, however it ends.

Linux only, like everything that runs here.  This module knows nothing of what the children do; the demo uses it.  The
kernel sends its signal when the *thread* that started a child ends, so start children from the main thread.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

_PR_SET_PDEATHSIG = 1  # linux/prctl.h
_PATIENCE_S = 10.0  # not critical: mosquitto ends in milliseconds
_LIBC = ctypes.CDLL(None)  # here and not after fork, where only async-signal-safe work is allowed


def python(*arguments: str) -> list[str]:
    """The command that runs this Python with other arguments, and imports from where this process does.

    By itself ``python -m`` and ``python -c`` look into the working directory first, and would run another user's
    ``numpy.py`` that lies there.
    """
    own = sys.path[0] if sys.path else ""
    safe = [] if own in ("", str(Path.cwd())) else ["-P"]  # else this process was started from a source tree, by -m
    return [sys.executable, *safe, *arguments]


def start_child(command: Sequence[str], **options: Any) -> subprocess.Popen[bytes]:
    """Start a process that is killed when this one ends, even by SIGKILL.

    It gets a session of its own: Ctrl-C in the terminal reaches the parent alone, which ends its children in order.

    Parameters
    ----------
    command : sequence of str
    **options
        As for :class:`subprocess.Popen`.

    Raises
    ------
    OSError
        When the program cannot be started.
    """
    parent = os.getpid()

    def die_with_parent() -> None:
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it ended before prctl was reached
            os._exit(1)

    return subprocess.Popen(command, preexec_fn=die_with_parent, start_new_session=True, **options)


def end_child(process: subprocess.Popen[bytes], timeout_s: float = _PATIENCE_S) -> None:
    """End a child with SIGTERM, after `timeout_s` with SIGKILL, and wait for it; fine when it has ended already."""
    process.terminate()
    try:
        process.wait(timeout_s)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    finally:
        for pipe in (process.stdin, process.stdout, process.stderr):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()
