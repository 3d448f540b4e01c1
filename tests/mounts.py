"""Small file systems: disks that are full, and cards that turn read-only."""

import contextlib
import os
import subprocess
from pathlib import Path

import pytest


@contextlib.contextmanager
def mounted(directory: Path, options: str):
    """A small file system of its own; the test is skipped where this may not be had."""
    directory.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(directory)], capture_output=True, text=True, check=False
    )
    if done.returncode:
        unprivileged = (
            os.geteuid() != 0 or "permission" in done.stderr.lower() or "not permitted" in done.stderr.lower()
        )
        if os.environ.get("CI") == "true" and not unprivileged:
            pytest.fail(f"mount: {done.stderr}")
        pytest.skip("only root may mount" if os.geteuid() == 0 else "only root may mount; type: root")
    try:
        yield
    finally:
        subprocess.run(["umount", str(directory)], check=True)


def remounted(directory: Path, options: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{options}", str(directory)], check=True)
