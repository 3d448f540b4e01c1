"""What a look leaves behind: nothing.  A folder that goes when we do, and signals that end us in order.

The demonstrations use it: they start servers and daemons of their own, and Ctrl-C ends all of them.
"""

from __future__ import annotations

import contextlib
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from gon_edge.process.child import end_child


@contextlib.contextmanager
def own_directory(prefix: str) -> Iterator[Path]:
    """Yield a temporary directory that goes even when we are killed; ``prefix`` begins its name."""
    path = tempfile.mkdtemp(prefix=prefix)
    # Its standard input ends when we do, in whatever way.
    remover = subprocess.Popen(
        ["/bin/sh", "-c", 'read -r _; sleep 1; rm -rf -- "$1"', prefix.rstrip("-"), path],
        stdin=subprocess.PIPE,
        start_new_session=True,
    )
    try:
        yield Path(path)
    finally:
        shutil.rmtree(path, ignore_errors=True)
        end_child(remover)


@contextlib.contextmanager
def interrupt_by(*numbers: signal.Signals) -> Iterator[Callable[[], None]]:
    """Let these signals do what Ctrl-C does; the function yielded makes them do nothing until the block ends."""
    before = {number: signal.signal(number, signal.default_int_handler) for number in numbers}

    def ignore() -> None:
        for number in numbers:
            signal.signal(number, signal.SIG_IGN)

    try:
        yield ignore
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
