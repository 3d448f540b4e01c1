"""Notifications, read from a real datagram socket."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from gon_edge.process.systemd import Notifier


@pytest.fixture(params=["file", "abstract"])
def manager(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[socket.socket, str]]:
    """The service manager's end, and what it puts into NOTIFY_SOCKET."""
    address = str(tmp_path / "notify") if request.param == "file" else f"@gon-edge-test-{os.getpid()}-{tmp_path.name}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as end:
        end.bind("\0" + address[1:] if address.startswith("@") else address)
        end.settimeout(5)
        yield end, address


def test_each_message_is_what_systemd_expects(manager: tuple[socket.socket, str]) -> None:
    end, address = manager
    notifier = Notifier({"NOTIFY_SOCKET": address})
    for say, expected in (
        (lambda: notifier.ready("scoring 3 streams"), b"READY=1\nSTATUS=scoring 3 streams"),
        (lambda: notifier.ready(), b"READY=1"),
        (lambda: notifier.status("ünicode\nREADY=1"), "STATUS=ünicode READY=1".encode()),
        (notifier.watchdog, b"WATCHDOG=1"),
        (notifier.stopping, b"STOPPING=1"),
        (lambda: notifier.extend_timeout(2.5), b"EXTEND_TIMEOUT_USEC=2500000"),
    ):
        say()
        assert end.recv(4096) == expected


def test_a_reload_carries_its_monotonic_time(manager: tuple[socket.socket, str]) -> None:
    end, address = manager
    before = time.monotonic()
    Notifier({"NOTIFY_SOCKET": address}).reloading()
    first, second = end.recv(4096).decode().split("\n")
    assert first == "RELOADING=1"
    assert before - 0.001 <= int(second.removeprefix("MONOTONIC_USEC=")) / 1e6 <= time.monotonic()


def test_outside_systemd_and_with_a_dead_manager_nothing_happens(tmp_path: Path) -> None:
    for environ in ({}, {"NOTIFY_SOCKET": ""}, {"NOTIFY_SOCKET": str(tmp_path / "gone")}, {"NOTIFY_SOCKET": "x" * 200}):
        notifier = Notifier(environ)
        notifier.ready("x")
        notifier.watchdog()
        notifier.stopping()


def test_a_manager_that_does_not_read_does_not_stop_the_caller(tmp_path: Path) -> None:
    address = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as end:
        end.bind(address)
        notifier = Notifier({"NOTIFY_SOCKET": address})
        end.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
        limit = int(Path("/proc/sys/net/unix/max_dgram_qlen").read_text())
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as flood:
            flood.setblocking(False)
            for _ in range(limit + 10):
                try:
                    flood.sendto(b"x", address)
                except BlockingIOError:
                    break
        began = time.monotonic()
        notifier.watchdog()
        assert time.monotonic() - began < 5


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({}, None),
        ({"WATCHDOG_USEC": "60000000"}, 60.0),
        ({"WATCHDOG_USEC": "60000000", "WATCHDOG_PID": str(os.getpid())}, 60.0),
        ({"WATCHDOG_USEC": "60000000", "WATCHDOG_PID": "1"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
    ],
)
def test_the_watchdog_interval_is_for_this_process_only(environ: dict[str, str], expected: float | None) -> None:
    assert Notifier(environ).watchdog_interval_s == expected


def test_the_environment_of_the_process_is_the_default(manager: tuple[socket.socket, str]) -> None:
    end, address = manager
    program = "from gon_edge.process.systemd import Notifier; Notifier().ready('up')"
    environ = os.environ | {"NOTIFY_SOCKET": address}
    subprocess.run([sys.executable, "-c", program], env=environ, check=True, cwd=Path(__file__).parents[2])
    assert end.recv(4096) == b"READY=1\nSTATUS=up"
