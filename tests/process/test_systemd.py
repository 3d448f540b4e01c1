"""Notifications by systemd-python and without it, read from a real datagram socket."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
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


@pytest.fixture(params=["protocol", "library"])
def notifier_for(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Notifier]:
    """A notifier that talks to an address: by its own datagrams, or by systemd-python."""
    if request.param == "library":
        pytest.importorskip(
            "systemd.daemon",
            reason="systemd-python is missing, which libsystemd-dev builds; type: python -m pip install systemd-python",
        )
    else:
        monkeypatch.setitem(sys.modules, "systemd", None)  # as where it is not installed

    def make(address: str) -> Notifier:
        monkeypatch.setenv("NOTIFY_SOCKET", address)
        notifier = Notifier()
        assert (notifier._library is not None) == (request.param == "library")
        return notifier

    return make


def test_each_message_is_what_systemd_expects(
    manager: tuple[socket.socket, str], notifier_for: Callable[[str], Notifier]
) -> None:
    end, address = manager
    notifier = notifier_for(address)
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


def test_a_reload_carries_its_monotonic_time(
    manager: tuple[socket.socket, str], notifier_for: Callable[[str], Notifier]
) -> None:
    end, address = manager
    before = time.monotonic()
    notifier_for(address).reloading()
    first, second = end.recv(4096).decode().split("\n")
    assert first == "RELOADING=1"
    assert before - 0.001 <= int(second.removeprefix("MONOTONIC_USEC=")) / 1e6 <= time.monotonic()


def test_outside_systemd_nothing_happens() -> None:
    for environ in ({}, {"NOTIFY_SOCKET": ""}):
        Notifier(environ).ready("x")


def test_with_a_dead_manager_nothing_happens(tmp_path: Path, notifier_for: Callable[[str], Notifier]) -> None:
    for address in (str(tmp_path / "gone"), "x" * 200):
        notifier = notifier_for(address)
        notifier.ready("x")
        notifier.watchdog()
        notifier.stopping()


def test_a_manager_that_does_not_read_does_not_stop_the_caller(
    tmp_path: Path, notifier_for: Callable[[str], Notifier]
) -> None:
    # The notify of systemd-python alone never came back from a full queue.
    address = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as end:
        end.bind(address)
        notifier = notifier_for(address)
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as flood:
            flood.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                while True:
                    flood.sendto(b"x", address)
        began = time.monotonic()
        notifier.watchdog()
        assert time.monotonic() - began < 5
        assert end.recv(16) == b"x"
        notifier.stopping()
        end.setblocking(False)
        received = []
        with contextlib.suppress(BlockingIOError):
            while True:
                received.append(end.recv(64))
        assert received[-1] == b"STOPPING=1"


def test_the_library_is_not_loaded_outside_systemd() -> None:
    program = (
        "import os, sys; os.environ.pop('NOTIFY_SOCKET', None)\n"
        "from gon_edge.process.systemd import Notifier\nNotifier().ready()\nsys.exit('systemd' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True, cwd=Path(__file__).parents[2])


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
