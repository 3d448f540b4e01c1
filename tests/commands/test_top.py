"""The terminal's view of a daemon: what it shows in the room it has, and the terminal it gives back."""

from __future__ import annotations

import fcntl
import io
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path
from typing import Any

import pytest
from drawn import drawn
from e2e.daemons import DaemonProcess, rows
from e2e.servers import Mosquitto, free_port, wait_until
from e2e.test_record import START, messages, model
from rich.cells import cell_len
from rich.screen import Screen

from gon_edge.commands.terminal import console
from gon_edge.commands.top import Look, picture
from gon_edge.state.folder import ModelFolder

COMMAND = [sys.executable, "-m", "gon_edge", "top"]


def status(streams: int = 2, alerts: int = 0, name: str = "s{:02}", **more: Any) -> dict[str, Any]:
    """What a daemon says, as far as the view knows it."""
    cause = {"feature": "flow", "value": 26.0, "expected": 20.0, "contribution": 0.7}
    return {
        "node": "pi-1",
        "version": "1",
        "uptime_s": 70.0,
        "now": 100.0,
        "rss_bytes": 40 << 20,
        "queue_length": 0,
        "mqtt": {"url": "mqtt://broker:1883", "connected": True, "error": ""},
        "silences": [],
        "streams": [
            {
                "stream": name.format(i),
                "state": "scoring",
                "rows": 400,
                "rows_needed": 300,
                "eta_s": None,
                "score": 0.5,
                "threshold": 2.0,
                "scores": [0.5] * 120,
                "model_version": "1",
                "starter": None,
                "last_timestamp": 100.0,
                "features": [{"name": name} for name in "abc"],
                "training": "",
            }
            for i in range(streams)
        ],
        "alerts": [
            {
                "type": "new",
                "kind": "anomaly",
                "stream": name.format(streams - 1 - i),
                "since": 40.0,
                "timestamp": 40.0,
                "severity": "critical",
                "top_features": [cause] * 5,
            }
            for i in range(alerts)
        ],
        **more,
    }


def shown(look: Look, width: int = 80, height: int | None = 24, first: int = 0) -> list[str]:
    return drawn(picture(look, width=width, height=height, first=first), width).split("\n")[:-1]


def test_a_stream_in_trouble_stands_first_with_its_causes_below():
    lines = shown(Look(status(3, 1)))
    assert len(lines) == 24
    assert lines[4].startswith("s02     critical")
    assert any("critical anomaly on s02 for 1 min" in line and "flow 26 (expected 20, 70 %)" in line for line in lines)


@pytest.mark.parametrize(("width", "height"), [(80, 24), (40, 10), (20, 4), (200, 60)])
@pytest.mark.parametrize(("streams", "alerts"), [(0, 0), (1, 1), (50, 0), (50, 30)])
def test_the_picture_never_exceeds_the_terminal(width: int, height: int, streams: int, alerts: int):
    terminal = console(io.StringIO(), width)
    terminal.height = height
    screen = Screen(picture(Look(status(streams, alerts)), width=width, height=height))  # what watch shows
    lines = ["".join(part.text for part in line) for line in terminal.render_lines(screen)]
    assert len(lines) == height
    assert max(map(cell_len, lines)) == width
    if streams and height >= 10:
        assert sum(line.startswith("s") and "0.5" in line for line in lines) >= 1
    if alerts and height >= 10:
        assert any("critical anomaly on" in line for line in lines)


def test_the_list_moves_and_says_what_is_out_of_sight():
    lines = shown(Look(status(50)), first=3)
    assert lines[4].startswith("s03")
    assert re.match(r"3 streams above, \d\d streams below", lines[-1])


def hour(stream: str, *names: str) -> dict[str, Any]:
    """Readings that rise, of two minutes, with a gap."""
    low = [1.0, 2.0, None, 4.0]
    high = [1.0, 2.0, None, 6.0]
    features = [{"feature": name, "value": 6.0, "low": low, "high": high} for name in names]
    return {"stream": stream, "bucket_s": 30, "features": features}


def test_readings_are_drawn_where_there_is_room_those_to_blame_first():
    readings = {name: hour(name, "power", "flow", "temp") for name in ("s00", "s01")}
    lines = [line.rstrip() for line in shown(Look(status(2, 1), readings=readings), height=30)]
    at = lines.index("readings of s01, the last 2 min")
    assert lines[at + 1 : at + 4] == [f"{name:<6}          6  ▁▃ █" for name in ("flow", "power", "temp")]
    assert lines.index("readings of s00, the last 2 min") > at
    lines = [line.rstrip() for line in shown(Look(status(2, 1), readings=readings), height=14)]
    assert [line for line in lines if line.startswith("readings")] == ["readings of s01, the last 2 min, 2 of 3"]
    assert sum("▁▃ █" in line for line in lines) == 2
    assert not any("readings of" in line for line in shown(Look(status(2, 1), readings=readings), height=11))


def test_a_page_for_no_terminal_has_a_bounded_number_of_readings():
    readings = {f"s{i:02}": hour(f"s{i:02}", *(f"sensor-{j}" for j in range(9))) for i in range(3)}
    lines = shown(Look(status(3), readings=readings), height=None)
    assert sum(line.startswith("sensor-") for line in lines) == 16


def test_names_and_errors_cannot_steer_the_terminal():
    hostile = "\x1b[2J\x07\r\u202e{:02}"
    said = status(2, 2, hostile, node="\x1b]0;x\x07", silences=[])
    said["mqtt"] = {"url": "mqtt://x", "connected": False, "error": "\x1b[31mno"}
    stream = hostile.format(1)
    look = Look(said, error="\x9b2J", readings={stream: hour(stream, "\x1b[2J", "\u202e" * 200)})
    text = "\n".join(shown(look, width=100, height=30))
    assert "readings of \\x1b[2J" in text
    assert all(c.isprintable() or c == "\n" for c in text)
    assert "\\x1b[2J\\x07\\r\\u202e" in text


def test_square_brackets_in_names_are_no_markup():
    said = status(2, 1, "[red]x[/red]{}", node="[bold]pi[/bold]")
    said["silences"] = [{"stream": "[dim]y[/dim]", "feature": "", "until": 200.0}]
    text = "\n".join(shown(Look(said, error="[link=http://x]gone[/link]"), width=100, height=30))
    assert all(part in text for part in ("[red]x[/red]1", "[bold]pi[/bold]", "[dim]y[/dim]", "[link=http://x]gone"))


def test_a_daemon_that_is_not_there_is_one_line():
    port = free_port()
    done = subprocess.run(
        [*COMMAND, "--url", f"http://127.0.0.1:{port}"], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 69
    assert done.stderr.count("\n") == 1
    assert f"no gon-edge at http://127.0.0.1:{port}" in done.stderr


class Terminal:
    """``gon-edge top`` in a pseudo-terminal."""

    def __init__(self, url: str, columns: int = 80, lines: int = 24) -> None:
        self.ours, theirs = pty.openpty()
        self.resize(columns, lines)
        self.settings = termios.tcgetattr(theirs)
        self.text = ""
        environ = {k: v for k, v in os.environ.items() if k not in ("COLUMNS", "LINES", "NO_COLOR")} | {"TERM": "xterm"}
        self.process = subprocess.Popen(
            [*COMMAND, "--url", url, "--every", "0.1"],
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            env=environ,
            start_new_session=True,
        )
        self._theirs = theirs

    def resize(self, columns: int, lines: int) -> None:
        fcntl.ioctl(self.ours, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))

    def read(self) -> str:
        while select.select([self.ours], [], [], 0.05)[0]:
            self.text += os.read(self.ours, 65536).decode(errors="replace")
        return self.text

    def screen(self) -> list[str]:
        """Lines of the newest whole picture, without colours."""
        height = struct.unpack("HHHH", fcntl.ioctl(self.ours, termios.TIOCGWINSZ, bytes(8)))[0]
        pictures = [re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", p).split("\r\n") for p in self.read().split("\x1b[H")]
        return next(([line.rstrip() for line in p] for p in reversed(pictures) if len(p) == height), [])

    def end(self) -> int:
        code = self.process.wait(60)
        self.read()
        return code

    def is_as_before(self) -> bool:
        back = termios.tcgetattr(self._theirs) == self.settings
        return (
            back
            and self.text.rfind("\x1b[?1049l") > self.text.rfind("\x1b[H")
            and self.text.rfind("\x1b[?25h") > self.text.rfind("\x1b[?25l")
            and self.text.count("\x1b[?1049h") == 1
        )

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait(60)
        os.close(self.ours)
        os.close(self._theirs)


@pytest.mark.e2e
def test_a_running_daemon_is_watched_resized_and_left(mosquitto: Mosquitto, tmp_path: Path):
    daemon = DaemonProcess(tmp_path, mosquitto, streams={"defaults": {"model": "none"}})
    ModelFolder(daemon.state_dir).install("pump", model(1.0))
    with daemon.connected():
        url = f"http://127.0.0.1:{daemon.port}"
        mosquitto.publish_lines("telemetry/<b>泵 $(x)", rows(20))
        mosquitto.publish_lines("telemetry/pump", messages(100, START, 1))
        mosquitto.publish_lines("telemetry/pump", messages(40, START + 100, 2, fault=6.0))
        terminal = Terminal(url)
        try:
            wait_until(lambda: any("anomaly on pump" in line for line in terminal.screen()), 30, "the alert")
            screen = terminal.screen()
            assert len(screen) == 24
            assert max(map(len, screen)) <= 80
            assert any(line.startswith("<b>泵 $(x)  warming-up") for line in screen)
            assert "connected" in screen[1]
            assert "flow 2" in "\n".join(screen)
            wait_until(lambda: any(re.match(r"flow +2\d.* +[▁▂▃▄▅▆▇█]", s) for s in terminal.screen()), 10, "readings")
            assert "\x1b[1;31m" in terminal.text
            terminal.resize(50, 12)
            wait_until(lambda: len(terminal.screen()) == 12, 10, "the new size")
            assert max(map(len, terminal.screen())) <= 50
            daemon.kill()
            wait_until(lambda: "no gon-edge at" in terminal.screen()[-1], 10, "the loss")
            os.write(terminal.ours, b"q")
            assert terminal.end() == 0
            assert terminal.is_as_before()
        finally:
            terminal.close()


@pytest.mark.e2e
@pytest.mark.parametrize(("how", "code"), [(signal.SIGINT, 0), (signal.SIGTERM, 128 + 15), (signal.SIGHUP, 128 + 1)])
def test_signals_leave_the_terminal_as_it_was(mosquitto: Mosquitto, tmp_path: Path, how: signal.Signals, code: int):
    with DaemonProcess(tmp_path, mosquitto) as daemon:
        terminal = Terminal(f"http://127.0.0.1:{daemon.port}")
        try:
            wait_until(lambda: terminal.screen(), 20, "a picture")
            began = time.monotonic()
            terminal.process.send_signal(how)
            assert terminal.end() == code
            assert time.monotonic() - began < 30.0
            assert terminal.is_as_before()
        finally:
            terminal.close()
        plain = subprocess.run(
            [*COMMAND, "--config", str(daemon.config)], capture_output=True, text=True, timeout=120, check=True
        )
        assert "\x1b" not in plain.stdout
        assert "no stream yet" in plain.stdout
        assert " \n" not in plain.stdout
