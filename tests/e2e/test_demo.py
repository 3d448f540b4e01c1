"""The demonstration for real: processes, a broker, a model, a fault and its alert, and nothing left afterwards."""

from __future__ import annotations

import contextlib
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from e2e.servers import Mosquitto, booted, require, wait_until

pytestmark = pytest.mark.e2e

DEMO = [sys.executable, "-m", "gon_edge", "demo"]


@pytest.fixture
def clean(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], None]]:
    """An own directory for temporary files, and a check that no process and no file of a demonstration is left."""
    require("mosquitto")
    monkeypatch.setenv("TMPDIR", str(tmp_path))  # in the environment of everything the demo starts: marks its processes

    def check() -> None:
        def mine() -> list[str]:
            found = []
            for process in psutil.process_iter():
                with contextlib.suppress(psutil.Error):
                    if process.pid != os.getpid() and process.environ().get("TMPDIR") == str(tmp_path):
                        found.append(" ".join(process.cmdline()))
            return found

        wait_until(lambda: not mine(), 20.0, "the end of every process of the demo")
        wait_until(lambda: not list(tmp_path.glob("gon-edge-demo-*")), 20.0, "the removal of its directory")

    yield check
    check()


def tell_until(demo: subprocess.Popen[str], text: str) -> list[str]:
    """Read lines of a demo up to the one with `text`; the demo's own --duration is the deadline."""
    assert demo.stdout is not None
    lines = []
    for line in demo.stdout:
        lines.append(line.rstrip("\n"))
        if text in line:
            return lines
    pytest.fail(f"the demo ended without saying {text!r}:\n" + "\n".join(lines))


@pytest.mark.alone  # a busy machine has nothing to tell by getting busy
@pytest.mark.slow  # a minute of readings at their pace
def test_on_a_machine_that_has_just_started_the_fault_raises_an_alert_that_names_its_causes(
    clean: Callable[[], None],
) -> None:
    command = [*DEMO, "--fast", "--duration", "210"]
    with contextlib.suppress(pytest.skip.Exception):  # on one that has run for longer, where the kernel allows no other
        command = booted(command, 30.0)
    demo = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    lines = tell_until(demo, "the fault is over")
    demo.send_signal(signal.SIGINT)
    rest, errors = demo.communicate(timeout=60)
    output = "\n".join([*lines, rest])
    steps = (
        "status page http://127.0.0.1:",
        "60 rows make the warm-up",
        "a child process trains the first model",
        "every row is scored",
        "making a fault: ",
        "the fault is over: the alert ",
    )
    if re.search(r"this machine was \d+ % busy", rest) and os.environ.get("CI") != "true":
        pytest.skip(rest.splitlines()[-1])
    places = [next((i for i, line in enumerate(lines) if step in line), -1) for step in steps]
    assert -1 not in places, output
    assert places == sorted(places)
    said = r"the alert (?:came|that was open rose) ([\d.]+) s after the fault began: (.*)"
    found = re.fullmatch(said, rest.splitlines()[-1])
    assert found, output
    assert float(found[1]) < 25.0
    assert re.search(r"cpu\.|memory\.|load\.", found[2]), found[2]
    assert "\x1b" not in output  # no terminal, no escape sequences
    assert (demo.returncode, errors) == (0, "")


def test_ctrl_c_ends_everything_quietly(clean: Callable[[], None]) -> None:
    demo = subprocess.Popen([*DEMO, "--no-fault"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    tell_until(demo, "first readings")
    demo.send_signal(signal.SIGINT)
    _, errors = demo.communicate(timeout=60)
    assert demo.returncode == 0
    assert errors == ""
    clean()


def test_a_demo_that_is_killed_takes_everything_with_it(clean: Callable[[], None]) -> None:
    demo = subprocess.Popen([*DEMO, "--fast"], stdout=subprocess.PIPE, text=True)
    tell_until(demo, "first readings")
    demo.kill()
    demo.communicate()
    clean()


def test_too_short_for_the_fault_is_a_failure_that_says_so(clean: Callable[[], None]) -> None:
    demo = subprocess.run([*DEMO, "--duration", "3"], capture_output=True, text=True, timeout=120)
    assert demo.returncode == 1
    assert demo.stdout.splitlines()[-1] == "it ended before the fault began"


def test_a_broker_that_runs_already_is_used(mosquitto: Mosquitto, clean: Callable[[], None]) -> None:
    command = [*DEMO, "--no-fault", "--broker", mosquitto.url]
    demo = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    tell_until(demo, "first readings")
    demo.send_signal(signal.SIGINT)
    _, errors = demo.communicate(timeout=60)
    assert (demo.returncode, errors) == (0, "")
    assert "gon-edge-demo" in mosquitto.log


def test_in_a_terminal_a_picture_is_redrawn_in_place_and_the_cursor_comes_back(clean: Callable[[], None]) -> None:
    leader, follower = pty.openpty()
    environ = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "80", "LINES": "24"}
    environ.pop("NO_COLOR", None)
    demo = subprocess.Popen([*DEMO, "--no-fault"], stdin=follower, stdout=follower, stderr=follower, env=environ)
    os.close(follower)
    shown = b""
    deadline = time.monotonic() + 60.0

    def read(until: bytes) -> None:
        nonlocal shown
        while until not in shown:
            assert time.monotonic() < deadline, shown.decode(errors="replace")
            if select.select([leader], [], [], 0.5)[0]:
                shown += os.read(leader, 65536)

    read(b"of 120 rows")
    demo.send_signal(signal.SIGINT)
    read(b"\x1b[?25h")
    while demo.poll() is None:  # a terminal that is not read blocks whoever writes to it
        if select.select([leader], [], [], 0.1)[0]:
            with contextlib.suppress(OSError):
                shown += os.read(leader, 65536)
    os.close(leader)
    assert demo.returncode == 0
    text = shown.decode()
    assert text.index("\x1b[?25l") < text.index("\x1b[?25h")
    assert "\x1b[1A\x1b[2K" in text  # up again, to draw over the picture before
    assert "\x1b[?1049h" not in text  # no second screen that would take the last picture away
    assert "http://127.0.0.1:" in text
