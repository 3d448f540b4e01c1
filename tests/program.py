"""gon-edge as a process of its own."""

from __future__ import annotations

import subprocess
import sys

GON_EDGE = [sys.executable, "-m", "gon_edge"]


def gon_edge(*arguments: str, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*GON_EDGE, *arguments], input=stdin, capture_output=True, text=True, timeout=120)
