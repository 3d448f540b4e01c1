"""A folder that goes with its process, however that ends, and signals that end a process in order."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import pytest
from e2e.servers import wait_until

from gon_edge.process.child import python
from gon_edge.process.scratch import interrupt_by, own_directory


def test_the_folder_is_there_inside_the_block_and_gone_after_it() -> None:
    with own_directory("gon-edge-test-") as folder:
        (folder / "file").write_text("x")
        assert folder.name.startswith("gon-edge-test-")
    assert not folder.exists()


def test_the_folder_goes_when_the_process_is_killed() -> None:
    code = (
        "import sys, time\nfrom gon_edge.process.scratch import own_directory\n"
        "with own_directory('gon-edge-test-') as folder:\n    print(folder, flush=True)\n    time.sleep(60)\n"
    )
    process = subprocess.Popen(python("-c", code), stdout=subprocess.PIPE)
    assert process.stdout is not None
    folder = Path(process.stdout.readline().decode().strip())
    assert folder.is_dir()
    process.kill()
    process.wait()
    process.stdout.close()
    wait_until(lambda: not folder.exists())


def test_a_signal_does_what_ctrl_c_does_until_it_is_told_to_do_nothing() -> None:
    before = signal.getsignal(signal.SIGHUP)
    with interrupt_by(signal.SIGHUP) as ignore:
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGHUP)
        ignore()
        os.kill(os.getpid(), signal.SIGHUP)
    assert signal.getsignal(signal.SIGHUP) == before
