"""What the daemon tells its service manager: ready, status, alive, reloading, stopping.

Through systemd-python where it is installed, else by the datagrams it would send (sd_notify(3)).  Without
``NOTIFY_SOCKET``, that is outside systemd, nothing happens.  Never raises: a service manager that does not listen is no
reason to stop scoring.
"""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Mapping

try:
    from systemd import daemon as _systemd  # the Debian package python3-systemd, or the extra `systemd`
except ImportError:
    _systemd = None


class Notifier:
    """Messages to the service manager that started this process.

    Parameters
    ----------
    environ : mapping of str to str, optional
        Default: the environment of the process.

    Attributes
    ----------
    watchdog_interval_s : float or None
        ``WatchdogSec`` of the unit: :meth:`watchdog` must come more often, half of it is usual.  ``None`` when the
        service manager does not watch this process.

    Examples
    --------
    >>> notifier = Notifier({})
    >>> notifier.ready("scoring 3 streams")
    >>> notifier.watchdog_interval_s is None
    True
    """

    def __init__(self, environ: Mapping[str, str] | None = None) -> None:
        self._library = _systemd if environ is None else None
        environ = os.environ if environ is None else environ
        self._address = environ.get("NOTIFY_SOCKET", "")
        self.watchdog_interval_s = _watchdog_interval_s(environ)

    def ready(self, status: str = "") -> None:
        """Say that the service is up, or that a reload is done, with a status line."""
        self._notify("READY=1" + (f"\n{_status(status)}" if status else ""))

    def status(self, text: str) -> None:
        """Show `text` in ``systemctl status``."""
        self._notify(_status(text))

    def watchdog(self) -> None:
        """Say that the scoring loop is alive."""
        self._notify("WATCHDOG=1")

    def reloading(self) -> None:
        """Say that a reload has begun; :meth:`ready` ends it."""
        # systemd 253 and later ignore RELOADING without the time, earlier ones ignore the time.
        microseconds = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        self._notify(f"RELOADING=1\nMONOTONIC_USEC={microseconds}")

    def stopping(self) -> None:
        """Say that the service is going down on purpose."""
        self._notify("STOPPING=1")

    def extend_timeout(self, seconds: float) -> None:
        """Ask for `seconds` more from now on, for a start or stop that takes long."""
        self._notify(f"EXTEND_TIMEOUT_USEC={int(seconds * 1e6)}")

    def _notify(self, state: str) -> None:
        if not self._address:
            return
        with contextlib.suppress(OSError, ValueError):
            if self._library is not None:
                self._library.notify(state)
                return
            # A leading @ stands for the zero byte of Linux's abstract namespace.
            address = "\0" + self._address[1:] if self._address.startswith("@") else self._address
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as channel:
                channel.settimeout(1.0)  # a full queue of the manager must not stop the scoring loop
                channel.connect(address)
                channel.sendall(state.encode())


def _status(text: str) -> str:
    return "STATUS=" + " ".join(text.split())  # a line break would begin another assignment


def _watchdog_interval_s(environ: Mapping[str, str]) -> float | None:
    with contextlib.suppress(ValueError):
        microseconds = int(environ.get("WATCHDOG_USEC", "0"))
        if microseconds > 0 and int(environ.get("WATCHDOG_PID") or os.getpid()) == os.getpid():
            return microseconds / 1e6
    return None
