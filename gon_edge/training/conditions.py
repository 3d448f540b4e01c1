"""What the machine says about itself before and while it trains: heat, load and power.

Files of Linux's ``/sys`` and, on a Raspberry Pi whose kernel does not say it there, ``vcgencmd``.  What a machine does
not tell is taken as fine.  `rounds` decides what to do about it.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from pathlib import Path

_THROTTLED = 0x1 | 0x4 | 0x8
"""Bits of ``vcgencmd get_throttled`` (Raspberry Pi documentation): under-voltage now, throttled now, soft temperature
limit now.  Higher bits are about the past."""
_ANSWER_S = 0.5  # for vcgencmd, which takes milliseconds.  Not critical: without an answer nothing is wrong


class Conditions:
    """The machine's own readings.

    Parameters
    ----------
    root : Path
        Where ``/sys`` is; a recorded tree in tests.
    vcgencmd : str or None
        The program; default: looked for in PATH.
    """

    def __init__(self, root: Path = Path("/"), *, vcgencmd: str | None = None) -> None:
        self._sys = root / "sys"
        self._vcgencmd = vcgencmd or shutil.which("vcgencmd")

    def celsius(self) -> float | None:
        """Temperature of the hottest zone; ``None`` where there is none."""
        zones = [_number(zone / "temp") for zone in self._sys.glob("class/thermal/thermal_zone*")]
        # A zone that is switched off reads 0 or far below.
        found = [zone / 1000.0 for zone in zones if zone is not None and zone > 0]
        return max(found, default=None)

    def load_per_core(self) -> float:
        """Processes that ran or waited in the last minute, for each core."""
        return os.getloadavg()[0] / (os.cpu_count() or 1)

    def on_battery(self) -> bool:
        """Whether a battery is being discharged and no mains supply is online."""
        discharging = False
        for supply in self._sys.glob("class/power_supply/*"):
            kind = _text(supply / "type")
            if kind in ("Mains", "USB") and _text(supply / "online") == "1":
                return False
            discharging |= kind == "Battery" and _text(supply / "status") == "Discharging"
        return discharging

    def throttled(self) -> bool:
        """Whether the supply's voltage is too low now, or the processor is slowed down for heat or voltage."""
        for volt in self._sys.glob("class/hwmon/hwmon*"):
            if _text(volt / "name") == "rpi_volt" and _text(volt / "in0_lcrit_alarm") == "1":
                return True
        flags = _text(self._sys / "devices/platform/soc/soc:firmware/get_throttled")
        if not flags and self._vcgencmd is not None:
            with contextlib.suppress(OSError, subprocess.SubprocessError):
                answer = subprocess.run(
                    [self._vcgencmd, "get_throttled"], capture_output=True, text=True, timeout=_ANSWER_S
                )
                flags = answer.stdout.strip().removeprefix("throttled=")
        with contextlib.suppress(ValueError):
            return bool(int(flags, 16) & _THROTTLED)
        return False


def _text(path: Path) -> str:
    with contextlib.suppress(OSError):
        return path.read_text(errors="replace").strip()
    return ""


def _number(path: Path) -> float | None:
    with contextlib.suppress(ValueError):
        return float(_text(path))
    return None
