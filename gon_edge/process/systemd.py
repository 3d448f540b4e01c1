"""What the daemon tells its service manager: ready, status, alive, reloading, stopping.

systemd-python sends it where that is installed (the Debian package python3-systemd, or the extra ``systemd``);
elsewhere the same datagram goes out from here (sd_notify(3)).  The library costs 1.1 MiB of resident memory in the
daemon, 0.3 MiB of it not shared with other programs (x86-64, Debian 12), and is loaded only under a service manager.
Without ``NOTIFY_SOCKET``, that is outside systemd, nothing happens.  Nothing here raises or waits for long: a service
manager that does not listen is no reason to stop scoring.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import time
from collections.abc import Callable, Mapping

_PATIENCE_S = 1.0  # not critical: far below any WatchdogSec


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
        own = environ is None  # the library knows no other environment
        environ = os.environ if environ is None else environ
        self._address = environ.get("NOTIFY_SOCKET", "")
        self._library = _library() if own and self._address else None
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
        # A leading @ stands for the zero byte of Linux's abstract namespace.
        address = "\0" + self._address[1:] if self._address.startswith("@") else self._address
        with (
            contextlib.suppress(OSError, ValueError),
            socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as channel,
        ):
            channel.settimeout(_PATIENCE_S)
            channel.connect(address)
            if self._library is None:
                channel.sendall(state.encode())
            elif _takes_more(channel):  # the library waits for ever for a manager whose queue is full
                self._library(state)


def _library() -> Callable[[str], object] | None:
    """What systemd-python sends messages by; ``None`` where it is not installed."""
    try:
        from systemd import daemon
    except ImportError:
        return None
    notify: Callable[[str], object] = daemon.notify
    return notify


def _takes_more(channel: socket.socket) -> bool:
    poll = select.poll()
    poll.register(channel, select.POLLOUT)
    return bool(poll.poll(1000.0 * _PATIENCE_S))


def _status(text: str) -> str:
    return "STATUS=" + " ".join(text.split())  # a line break would begin another assignment


def _watchdog_interval_s(environ: Mapping[str, str]) -> float | None:
    with contextlib.suppress(ValueError):
        microseconds = int(environ.get("WATCHDOG_USEC", "0"))
        if microseconds > 0 and int(environ.get("WATCHDOG_PID") or os.getpid()) == os.getpid():
            return microseconds / 1e6
    return None
