"""The clocks of this machine: one that never jumps, the one on the wall, and whether that can be believed."""

from __future__ import annotations

import contextlib
import ctypes
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

_TIME_ERROR = 5  # of adjtimex(2): the clock is not synchronised
_TIMEX_BYTES = 512  # struct timex has 208 on 64-bit Linux
_PLAUSIBLE = 1_704_067_200.0  # 2024, before the first gon-edge
_BOOT_S = 600.0  # not critical: a machine with a network has reached a time server by then


def monotonic() -> float:
    """Seconds that no clock step touches and that go on while the machine sleeps."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


@dataclass(frozen=True, slots=True)
class Clock:
    """Where the time comes from: this machine's two clocks, or those of a recording (`daemon.rehearsal`).

    Attributes
    ----------
    monotonic : callable
        Seconds that no clock step touches.
    wall : callable
        Unix seconds.

    Examples
    --------
    >>> Clock(monotonic=lambda: 60.0, wall=lambda: 1_700_000_060.0).offset_s
    1700000000.0
    """

    monotonic: Callable[[], float] = monotonic
    wall: Callable[[], float] = time.time

    @property
    def offset_s(self) -> float:
        """Unix seconds less monotonic seconds, now."""
        return self.wall() - self.monotonic()


def clock_is_set(wall: float, uptime_s: float) -> bool:
    """Whether the wall clock can be believed.

    A clock before 2024 is that of a machine without one that has not reached a time server.  One that is plausible but
    not synchronised may be an old one restored at boot, so for the first ten minutes the kernel's word counts; after
    that it is taken as one that nobody synchronises.

    Parameters
    ----------
    wall : float
        Unix seconds.
    uptime_s : float
    """
    if wall < _PLAUSIBLE:
        return False
    if uptime_s > _BOOT_S:
        return True
    return is_synchronised() is not False


def is_synchronised() -> bool | None:
    """Whether the kernel takes its clock for synchronised with a time server; ``None`` where it does not say."""
    with contextlib.suppress(OSError, AttributeError):  # a libc without it
        state = ctypes.CDLL(None).adjtimex(ctypes.create_string_buffer(_TIMEX_BYTES))  # modes = 0: nothing is set
        return None if state < 0 else bool(state != _TIME_ERROR)
    return None


def boot_id() -> str:
    """What the kernel calls the time since this machine started; empty where it does not say."""
    with contextlib.suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return ""
