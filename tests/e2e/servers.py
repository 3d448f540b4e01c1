"""Real servers for tests, each on a free loopback port and in a directory of its own.

A server that is not installed skips the test on a developer's machine and fails it in CI (``CI=true``): a suite that is
green because its servers were missing proves nothing.  Nothing here sleeps for a fixed time; all of it waits with a
deadline.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NoReturn, TypeVar

import pytest

T = TypeVar("T")


# The Debian package of a program that has another name.
_PACKAGES = {
    "amtool": "prometheus-alertmanager",
    "dh": "debhelper dh-python",
    "dpkg-deb": "dpkg",
    "mosquitto_passwd": "mosquitto",
    "mosquitto_pub": "mosquitto-clients",
    "mosquitto_sub": "mosquitto-clients",
    "promtool": "prometheus",
    "systemd-analyze": "systemd",
}

# What brings the sets of docs/detection.md.
FETCH = "export GON_EDGE_DATA=~/.cache/gon-edge/datasets; python tools/fetch_datasets.py"


def unmet(what: str, line: str) -> NoReturn:
    """Skip the test for want of `what`, which typing `line` brings; fail it where ``CI=true``.

    tests/conftest.py reads the line from the reason and shows it at the end of a run.
    """
    reason = f"{what}; type: {line}"
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)


def require(program: str) -> str:
    """Return the path of `program`; without it skip the test, or fail it where ``CI=true``."""
    for directory in (None, "/usr/sbin:/usr/local/sbin:/sbin"):  # Debian keeps mosquitto out of a user's PATH
        found = shutil.which(program, path=directory)
        if found:
            return found
    unmet(f"{program} is not installed", f"sudo apt install {_PACKAGES.get(program, program)}")


def booted(command: list[str], uptime_s: float) -> list[str]:
    """The command in a time namespace in which the machine started `uptime_s` ago.

    Skips the test where the kernel allows none: a container cannot grant itself that.
    """
    unshare = require("unshare")
    since_boot = time.clock_gettime(time.CLOCK_BOOTTIME), time.monotonic()
    boot, mono = (f"{uptime_s - clock:.0f}" for clock in since_boot)
    for rights in (["--time"], ["--time", "--map-root-user"]):
        inside = [unshare, *rights, f"--boottime={boot}", f"--monotonic={mono}"]
        if subprocess.run([*inside, "true"], capture_output=True, timeout=20).returncode == 0:
            return [*inside, *command]
    pytest.skip("time namespaces are not allowed here; type: sudo sysctl kernel.unprivileged_userns_clone=1")


def free_port() -> int:
    """Return a TCP port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def wait_until(condition: Callable[[], T], timeout_s: float = 10.0, what: str = "the condition") -> T:
    """Ask `condition` until it is true and return its value; fail the test after three times `timeout_s`.

    `timeout_s` is ample on a quiet machine; on a busy one it is no fault to need more.  The pauses grow from 10 to
    100 ms: whatever is waited for needs the processor that asking takes.
    """
    deadline, pause_s = time.monotonic() + 3.0 * timeout_s, 0.01
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            pytest.fail(f"{what} did not come true within {3.0 * timeout_s} s")
        time.sleep(pause_s)
        pause_s = min(1.3 * pause_s, 0.1)


def _answers(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False


class Mosquitto:
    """A mosquitto of this test's own.

    Parameters
    ----------
    directory : Path
        For its configuration, log and, with `persistence`, database.
    settings : str
        More lines of mosquitto.conf, after the listener; they apply to that listener.
    persistence : bool
        Keep sessions and retained messages over :meth:`restart`.
    allow_anonymous : bool

    Examples
    --------
    >>> broker = Mosquitto(tmp_path)                        # doctest: +SKIP
    >>> broker.start()                                      # doctest: +SKIP
    >>> broker.publish("telemetry/pump", '{"flow": 1}')     # doctest: +SKIP
    >>> broker.kill(); broker.start()                       # doctest: +SKIP
    """

    def __init__(
        self, directory: Path, *, settings: str = "", persistence: bool = False, allow_anonymous: bool = True
    ) -> None:
        self.directory = directory
        self.port = free_port()
        self.log_path = directory / "mosquitto.log"
        self._program = require("mosquitto")
        self._process: subprocess.Popen[bytes] | None = None
        directory.mkdir(parents=True, exist_ok=True)
        lines = [
            # As root mosquitto changes to a user that cannot read pytest's private directories.
            "user root" if os.geteuid() == 0 else "",
            f"persistence {'true' if persistence else 'false'}",
            f"persistence_location {directory}/" if persistence else "",
            "log_dest stderr",
            f"listener {self.port} 127.0.0.1",
            f"allow_anonymous {'true' if allow_anonymous else 'false'}",
            settings,
        ]
        self._config = directory / "mosquitto.conf"
        self._config.write_text("\n".join(lines) + "\n")

    @property
    def url(self) -> str:
        """``mqtt://`` URL of the listener."""
        return f"mqtt://127.0.0.1:{self.port}"

    @property
    def log(self) -> str:
        """What mosquitto has said so far."""
        return self.log_path.read_text(errors="replace")

    def start(self) -> Mosquitto:
        """Start, on the same port every time, and wait until it answers."""
        deadline = time.monotonic() + 30
        while True:
            with self.log_path.open("ab") as log:
                self._process = subprocess.Popen(
                    [self._program, "-c", str(self._config), "-v"], stdout=log, stderr=log, stdin=subprocess.DEVNULL
                )
            while self._process.poll() is None and not _answers(self.port):
                if time.monotonic() > deadline:
                    pytest.fail(f"mosquitto does not answer on port {self.port}:\n{self.log}")
                time.sleep(0.01)
            if self._process.poll() is None:
                return self
            if "Address already in use" not in self.log or time.monotonic() > deadline:
                pytest.fail(f"mosquitto did not start:\n{self.log}")
            time.sleep(0.05)

    def stop(self) -> None:
        """Stop with SIGTERM, as a service manager does; nothing happens when it is not running."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """Kill with SIGKILL: no disconnect packets, no saved database."""
        self._end(signal.SIGKILL)

    def stand_still(self, seconds: float) -> None:
        """Answer nothing for so long, with every connection open: a network that swallows packets looks the same."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)
        time.sleep(seconds)
        self._process.send_signal(signal.SIGCONT)

    def restart(self) -> None:
        """Stop and start again."""
        self.stop()
        self.start()

    def reload(self) -> None:
        """Have it read its rights anew; nobody's connection ends."""
        assert self._process is not None
        said = "Reloading config."
        before = self.log.count(said)
        self._process.send_signal(signal.SIGHUP)
        wait_until(lambda: self.log.count(said) > before, 10, "its reading of the rights")

    def publish(self, topic: str, payload: str | bytes, *, retain: bool = False, qos: int = 1) -> None:
        """Publish one message with mosquitto_pub and wait for its acknowledgement."""
        message = payload.encode() if isinstance(payload, str) else payload
        arguments = ["-q", str(qos), "-t", topic, "-s" if message else "-n", *(["-r"] if retain else [])]
        self._client("mosquitto_pub", arguments, message)

    def publish_lines(self, topic: str, lines: Iterable[str], *, qos: int = 1) -> None:
        """Publish each of `lines` as a message, as fast as one connection goes."""
        self._client("mosquitto_pub", ["-q", str(qos), "-t", topic, "-l"], "".join(f"{x}\n" for x in lines).encode())

    def publish_each(self, every_s: float, topic: str, lines: Iterable[str]) -> None:
        """Publish each of `lines` as a message over one connection, at the pace of a device."""
        command = [require("mosquitto_pub"), "-p", str(self.port), "-q", "1", "-t", topic, "-l"]
        with subprocess.Popen(command, stdin=subprocess.PIPE, bufsize=0) as client:
            assert client.stdin is not None
            begin = time.monotonic()
            for k, line in enumerate(lines):
                time.sleep(max(0.0, begin + every_s * k - time.monotonic()))
                client.stdin.write(f"{line}\n".encode())
        assert client.returncode == 0

    def retained(self, topic: str, timeout_s: int = 2) -> bytes | None:
        """Return the retained message of `topic`, or ``None`` when there is none after `timeout_s`."""
        program = require("mosquitto_sub")
        result = subprocess.run(
            [program, "-p", str(self.port), "-t", topic, "-C", "1", "-N", "-W", str(timeout_s), "--retained-only"],
            capture_output=True,
            timeout=timeout_s + 10,
        )
        return result.stdout if result.returncode == 0 else None

    def _client(self, program: str, arguments: list[str], message: bytes) -> None:
        command = [require(program), "-p", str(self.port), *arguments]
        subprocess.run(command, input=message, check=True, timeout=60)

    def _end(self, how: signal.Signals) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(how)
            self._wait(how)
        self._process = None

    def _wait(self, number: signal.Signals) -> None:
        """Wait for the end; mosquitto forgets a SIGTERM that comes between its first listening and its main loop."""
        assert self._process is not None
        for _ in range(20):
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(3)
                return
            self._process.send_signal(number)
        self._process.wait(3)
