"""A terminal: colour, keys, bars, and that it is given back as it was."""

from __future__ import annotations

import contextlib
import io
import os
import pty
import re
import select
import signal
import subprocess
import sys
from typing import Any

import pytest

from gon_edge.commands.terminal import Progress, RoundProgress, ends_on_signals, wants_colour

MIB = 1 << 20


def test_colour_only_on_a_terminal_that_nobody_has_asked_to_be_plain() -> None:
    leader, follower = pty.openpty()
    with os.fdopen(follower, "w") as terminal:
        assert wants_colour(terminal, {"TERM": "xterm"})
        assert not wants_colour(terminal, {"TERM": "xterm", "NO_COLOR": "1"})
        assert not wants_colour(terminal, {"TERM": "dumb"})
        assert not wants_colour(terminal, {})
    os.close(leader)
    assert not wants_colour(io.StringIO(), {"TERM": "xterm"})


def test_progress_without_a_terminal_is_a_line_every_few_seconds() -> None:
    out, now = io.StringIO(), 0.0
    with Progress("rows", out, clock=lambda: now) as progress:
        for second in range(12):
            now = float(second)
            progress(second * 100, second / 20)
    assert out.getvalue().splitlines() == [
        " 25 %  500 rows, 100 a second, 15 s left",
        " 50 %  1000 rows, 100 a second, 10 s left",
    ]


def told(**changes: Any) -> dict[str, Any]:
    plain = {
        "stream": "pump",
        "phase": "fit",
        "share": 0.45,
        "loss": 0.1234567,
        "rss_bytes": 38 * MIB,
        "budget_bytes": 64 * MIB,
        "elapsed_s": 12.0,
        "held": "",
    }
    return {**plain, **changes}


def test_elsewhere_than_on_a_terminal_a_phase_is_a_line() -> None:
    out, now = io.StringIO(), [0.0]
    progress = RoundProgress(out, clock=lambda: now[0])
    progress({"released": 600})
    progress({"stream": "pump", "waiting": "boiler"})
    progress({"stream": "pump", "waiting": "boiler"})
    progress(told())
    progress(told(share=0.5))
    now[0] = 6.0
    progress(told(share=0.55))
    progress(told(phase="gate", share=0.9, loss=None, held="the machine is hot"))
    assert out.getvalue().splitlines() == [
        "600 rows are accepted as normal",
        "pump: waiting for the training of boiler to end",
        "pump: 45 %, fit, loss 0.1235, 38 of 64 MiB, 12 s",
        "pump: 55 %, fit, loss 0.1235, 38 of 64 MiB, 12 s",
        "pump: 90 %, gate, 38 of 64 MiB, 12 s, on hold: the machine is hot",
    ]


class Watched:
    """What a program writes to a pseudo-terminal."""

    def __init__(self, program: str) -> None:
        self.ours, theirs = pty.openpty()
        environ = {**os.environ, "TERM": "xterm", "COLUMNS": "100"}
        environ.pop("NO_COLOR", None)
        self.process = subprocess.Popen(
            [sys.executable, "-c", program], stdin=theirs, stdout=theirs, stderr=theirs, env=environ
        )
        os.close(theirs)
        self.text = ""

    def read_until(self, part: str) -> None:
        while part not in self.text:
            assert select.select([self.ours], [], [], 20)[0], self.text
            self.text += os.read(self.ours, 65536).decode()

    def end(self) -> int:
        with contextlib.suppress(OSError):  # the other side is closed
            while select.select([self.ours], [], [], 20)[0]:
                self.text += os.read(self.ours, 65536).decode()
        os.close(self.ours)
        return self.process.wait(20)

    def is_as_before(self) -> bool:
        return self.text.rfind("\x1b[?25h") > self.text.rfind("\x1b[?25l") and self.text.endswith("\x1b[1A\x1b[2K")


BAR = """
import time
from gon_edge.commands.terminal import Progress
now = 0.0
with Progress("[red]x[/red]", clock=lambda: now) as progress:
    now = 1.0
    progress(50, 0.5)
    time.sleep({seconds})
"""


def test_a_bar_on_a_terminal_goes_away_and_takes_no_markup() -> None:
    watched = Watched(BAR.format(seconds=0))
    assert watched.end() == 0
    assert "50 %  50 [red]x[/red], 50 a second, 1 s left" in watched.text
    assert "━" * 12 in watched.text
    assert watched.is_as_before()


@pytest.mark.parametrize(("how", "code"), [(signal.SIGINT, -2), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_a_signal_during_a_bar_leaves_the_terminal_as_it_was(how: signal.Signals, code: int) -> None:
    watched = Watched(BAR.format(seconds=60))
    watched.read_until("50 %")
    watched.process.send_signal(how)
    assert watched.end() == code
    assert watched.text.rfind("\x1b[?25h") > watched.text.rfind("\x1b[?25l")


def test_what_goes_to_no_terminal_or_is_over_at_once_loads_no_rich() -> None:
    quick = "from gon_edge.commands.terminal import Progress, RoundProgress\nimport sys\n"
    quick += 'with Progress("rows") as progress:\n    progress(1, 1.0)\n'
    slow = quick + 'now = 0.0\nprogress = Progress("rows", clock=lambda: now)\nnow = 9.0\nprogress(1, 0.5)\n'
    for program in (quick, slow):
        done = subprocess.run(
            [sys.executable, "-c", program + "sys.exit('rich' in sys.modules)"], stderr=subprocess.DEVNULL
        )
        assert done.returncode == 0


def test_the_bar_of_a_training_shows_foreign_names_as_they_are() -> None:
    program = """
from gon_edge.commands.terminal import RoundProgress
told = {"stream": "[b]p\\x1b[2J", "phase": "fit", "share": 0.45, "loss": 0.1234567, "rss_bytes": 38 << 20,
        "budget_bytes": 64 << 20, "elapsed_s": 12.0, "held": ""}
with RoundProgress() as progress:
    progress(told)
    progress({**told, "phase": "gate", "share": 0.5})
    progress({"released": 600})
    progress({"stream": "pump", "waiting": "boiler"})
"""
    watched = Watched(program)
    assert watched.end() == 0
    assert "[b]p\\x1b[2J: 45 %, fit, loss 0.1235, 38 of 64 MiB, 12 s" in watched.text
    assert "600 rows are accepted as normal\r\n" in watched.text
    assert "pump: waiting for the training of boiler to end" in watched.text
    assert watched.is_as_before()


def test_a_narrow_terminal_cuts_the_words_beside_the_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    watched = Watched("import os; os.environ['COLUMNS'] = '40'\n" + BAR.format(seconds=0))
    assert watched.end() == 0
    words = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", watched.text).replace("\r", "\n")
    assert max(map(len, words.split("\n"))) <= 40
    assert "…" in words


@pytest.mark.parametrize(
    ("environ", "has"), [({}, "\x1b[31m"), ({"NO_COLOR": "1"}, ""), ({"TERM": "dumb"}, ""), ({"FORCE_COLOR": "1"}, "")]
)
def test_the_console_shows_colour_where_it_is_wanted(environ: dict[str, str], has: str) -> None:
    program = f"""
import os, sys
os.environ.update({environ!r})
out = open(os.devnull, "w") if {bool(environ.get("FORCE_COLOR"))} else sys.stdout
from gon_edge.commands.terminal import console
from rich.text import Text
terminal = console(out)
sys.exit(int(terminal._color_system is not None))
"""
    watched = Watched(program)
    assert watched.end() == bool(has)


def test_signals_that_something_handles_already_are_left_to_it() -> None:
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    before_hup = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    try:
        with ends_on_signals():
            assert signal.getsignal(signal.SIGTERM) is signal.default_int_handler
            assert signal.getsignal(signal.SIGHUP) not in (signal.SIG_DFL, signal.default_int_handler)
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_DFL
    finally:
        signal.signal(signal.SIGTERM, before)
        signal.signal(signal.SIGHUP, before_hup)
