"""Telemetry of the machine this runs on, by psutil: a stream that every machine has.

People read the names in alerts, so each says what is measured and in which unit.  A value that the machine does not
have (frequency and temperature in a virtual machine, a swap that is off) is absent, never NaN or an invented 0.
Sending the values is ``links.publisher``'s work.  The shipped model ``host`` knows these names: changing one means
training it again.
"""

from __future__ import annotations

import contextlib
import math
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import psutil

_PRESSURE = Path("/proc/pressure/cpu")
_LEAST_S = 0.05  # a rate over less than this is the rounding of the kernel's counters
_DECIMALS = 3  # not critical: finer than any of these is measured


class HostTelemetry:
    """Readings of this machine.

    Rates and CPU shares are means since the sample before; the first sample, taken at once, has none of them.

    Parameters
    ----------
    clock : callable
        Monotonic seconds.

    Examples
    --------
    >>> values = HostTelemetry().sample()
    >>> 0.0 < values["memory.used_percent"] <= 100.0
    True
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._before = _read_counters(clock())

    def sample(self) -> dict[str, float]:
        """Return what can be measured now, finite values by name.

        Returns
        -------
        dict of str to float
            ``cpu.total`` and ``cpu.core0`` ... busy share in percent; ``cpu.pressure_percent``, the share of time in
            which something waited for a core (it tells a busy machine from an overloaded one); ``load.1m``;
            ``cpu.freq_mhz``;
            ``temperature.<sensor>`` in degrees Celsius; ``memory.used_percent``, ``memory.available_mib``,
            ``swap.used_percent``; ``disk.read_mib_s``, ``disk.write_mib_s`` over all disks, ``disk.used_percent`` of
            ``/``; ``net.rx_kib_s``, ``net.tx_kib_s`` over all interfaces but loopback.
        """
        counters = _read_counters(self._clock())
        values: dict[str, float] = {}
        if counters.at - self._before.at >= _LEAST_S:
            values.update(_rates(self._before, counters))
            self._before = counters
        values.update(_gauges())
        return {name: round(value, _DECIMALS) for name, value in values.items() if math.isfinite(value)}


class _Counters(NamedTuple):
    at: float  # monotonic seconds
    cores: list[tuple[float, float]]  # busy and total seconds of each
    waited_s: float | None  # some task for a core
    disk: tuple[int, int] | None  # bytes read, written
    net: tuple[int, int] | None  # bytes received, sent


def _read_counters(at: float) -> _Counters:
    # psutil.cpu_percent would do, but it remembers the call before by thread, and a sampler may move between threads.
    cores = [_busy_and_total(core) for core in psutil.cpu_times(percpu=True)]
    disk = net = None
    with contextlib.suppress(OSError, RuntimeError):  # containers may hide these
        if (disks := psutil.disk_io_counters()) is not None:
            disk = (disks.read_bytes, disks.write_bytes)
    with contextlib.suppress(OSError, RuntimeError):
        cards = [card for name, card in psutil.net_io_counters(pernic=True).items() if name != "lo"]
        if cards:
            net = (sum(card.bytes_recv for card in cards), sum(card.bytes_sent for card in cards))
    return _Counters(at, cores, _waited_s(), disk, net)


def _waited_s() -> float | None:
    # Pressure stall information; Raspberry Pi OS has it when the kernel is started with psi=1.
    with contextlib.suppress(OSError, ValueError, IndexError):
        return int(_PRESSURE.read_text().split("total=", 1)[1].split()[0]) / 1e6
    return None


def _busy_and_total(core: Any) -> tuple[float, float]:
    total = sum(core) - getattr(core, "guest", 0.0) - getattr(core, "guest_nice", 0.0)  # Linux counts guests twice
    return total - core.idle - getattr(core, "iowait", 0.0), total


def _rates(before: _Counters, now: _Counters) -> dict[str, float]:
    values: dict[str, float] = {}
    if len(before.cores) == len(now.cores):  # a core may be switched off
        shares = []
        for (busy_0, total_0), (busy, total) in zip(before.cores, now.cores, strict=True):
            passed = total - total_0
            # The kernel's iowait runs backwards at times.
            shares.append(min(100.0, max(0.0, 100.0 * (busy - busy_0) / passed)) if passed > 0.0 else 0.0)
        values["cpu.total"] = sum(shares) / len(shares)
        values.update({f"cpu.core{i}": share for i, share in enumerate(shares)})
    seconds = now.at - before.at
    if before.waited_s is not None and now.waited_s is not None:
        values["cpu.pressure_percent"] = min(100.0, 100.0 * (now.waited_s - before.waited_s) / seconds)
    for names, unit, old, new in (
        (("disk.read_mib_s", "disk.write_mib_s"), 1 << 20, before.disk, now.disk),
        (("net.rx_kib_s", "net.tx_kib_s"), 1 << 10, before.net, now.net),
    ):
        for name, a, b in zip(names, old or (), new or (), strict=False):
            if b >= a:  # an interface that went away takes its bytes with it
                values[name] = (b - a) / unit / seconds
    return values


def _gauges() -> dict[str, float]:
    """What the machine says of itself now; psutil raises where it has no such thing, and that reading is left out."""
    values: dict[str, float] = {}
    memory = psutil.virtual_memory()
    values["memory.used_percent"] = memory.percent
    values["memory.available_mib"] = memory.available / (1 << 20)
    with contextlib.suppress(OSError, RuntimeError):
        if (swap := psutil.swap_memory()).total > 0:
            values["swap.used_percent"] = swap.percent
    with contextlib.suppress(OSError):
        values["load.1m"] = psutil.getloadavg()[0]
    with contextlib.suppress(OSError):
        values["disk.used_percent"] = psutil.disk_usage("/").percent
    with contextlib.suppress(OSError, RuntimeError, NotImplementedError):
        if (frequency := psutil.cpu_freq()) is not None and frequency.current > 0.0:
            values["cpu.freq_mhz"] = frequency.current
    with contextlib.suppress(OSError, RuntimeError, AttributeError):
        values.update(_temperatures())
    return values


def _temperatures() -> dict[str, float]:
    values: dict[str, float] = {}
    for chip, sensors in psutil.sensors_temperatures().items():
        for sensor in sensors:
            name = f"temperature.{_word(chip)}" + (f".{_word(sensor.label)}" if sensor.label else "")
            values.setdefault(name, sensor.current)  # the first of several without a label
    return values


def _word(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "_", text.lower()).strip("_")
