"""The fault that the demonstration makes; tests/e2e/test_demo.py runs the whole of it."""

from __future__ import annotations

import contextlib
import io
import os
import re
import signal
import subprocess
import sys

import psutil
import pytest
from demo.looks import seen, story_in_the_fault
from e2e.servers import wait_until

from gon_edge.demo.run import Load, _line_shower, _picture_shower


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_terminal_that_changes_its_size_is_drawn_anew_and_gets_its_cursor_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("COLUMNS", raising=False)
    monkeypatch.delenv("LINES", raising=False)
    size = [80, 24]
    monkeypatch.setattr(os, "get_terminal_size", lambda *_: os.terminal_size(size))
    out, story, look = Terminal(), story_in_the_fault(), seen()
    with contextlib.ExitStack() as stack:
        show = _picture_shower(stack, out, "pi")
        show(story, None, [])
        show(story, look, [])
        assert "\x1b[2J" not in out.getvalue()
        size[0] = 50
        show(story, look, [])
        again = out.getvalue().rpartition("\x1b[2J")[2]
        show(story, look, [])
    lines = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", again).split("\n")
    assert max(map(len, lines)) == 50
    assert out.getvalue().count("\x1b[2J") == 1
    assert out.getvalue().endswith("\n\x1b[?25h")


def test_a_log_gets_a_line_when_something_happens_and_foreign_text_stays_text() -> None:
    out = io.StringIO()
    show = _line_shower(out, "pi")
    show(story_in_the_fault(), seen(), ["ALERT [red]x[/red] \x1b[2J"])
    first, told, now = (line[10:] for line in out.getvalue().splitlines())
    assert first == "status page http://127.0.0.1:54321/, metrics http://127.0.0.1:54321/metrics"
    assert told == "ALERT [red]x[/red] \\x1b[2J"
    assert now.startswith("pi: scoring, row 130, score 0.5 of 3")


def children() -> list[psutil.Process]:
    return [child for child in psutil.Process().children() if child.status() != psutil.STATUS_ZOMBIE]


def test_the_load_keeps_cores_busy_and_holds_memory_and_ends_when_told() -> None:
    load = Load(busy=1, memory_bytes=64 << 20, seconds=60.0)
    before = set(children())
    load.begin()
    try:
        busy, hog = wait_until(
            lambda: mine if len(mine := sorted(set(children()) - before, key=lambda p: p.pid)) == 2 else None
        )
        wait_until(lambda: busy.cpu_times().user > 0.2, what="a busy process")
        wait_until(lambda: hog.memory_info().rss > 64 << 20, what="64 MiB held")
    finally:
        load.end()
    assert not set(children()) - before


def test_the_load_ends_by_itself() -> None:
    load = Load(busy=1, memory_bytes=1 << 20, seconds=-0.5)
    before = set(children())
    load.begin()
    try:
        wait_until(lambda: not set(children()) - before, 20.0, "the end of the load")
    finally:
        load.end()


def test_the_load_dies_with_a_demo_that_is_killed() -> None:
    code = (
        "import time\nfrom gon_edge.demo.run import Load\nload = Load(1, 1 << 20, 600.0)\nload.begin()\n"
        "print(*(process.pid for process in load._processes), flush=True)\ntime.sleep(600)\n"
    )
    owner = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert owner.stdout is not None
    processes = [psutil.Process(int(text)) for text in owner.stdout.readline().split()]
    os.kill(owner.pid, signal.SIGKILL)
    owner.wait()
    owner.stdout.close()
    wait_until(
        lambda: not any(p.is_running() and p.status() != psutil.STATUS_ZOMBIE for p in processes),
        what="the end of the load",
    )


def test_the_load_of_this_machine_leaves_three_quarters_of_the_free_memory() -> None:
    load = Load.for_this_machine(1.0)
    assert load._memory_bytes <= min(4 << 30, psutil.virtual_memory().available // 3)
    assert re.fullmatch(r"\d+ busy process(es)? and [\d.]+ [GM]iB of memory", load.text)
