"""A control group with the memory limits of a unit: what the service lives in, where no service manager runs.

Control groups of version 2 have both limits.  Version 1 knows no ``MemoryHigh``, above which the kernel takes memory
back before it must; there only ``MemoryMax`` holds, and the report says so.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Sequence
from pathlib import Path

UNIT = Path(__file__).resolve().parents[1] / "deploy" / "systemd" / "gon-edge.service"
_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}  # as systemd.resource-control(5) has them


def limits(unit: Path = UNIT) -> tuple[int, int]:
    """Bytes of ``MemoryHigh`` and ``MemoryMax``."""
    found = dict(re.findall(r"^(Memory(?:High|Max))=(\w+)$", unit.read_text(), re.MULTILINE))
    high, most = (found[key] for key in ("MemoryHigh", "MemoryMax"))
    return _bytes(high), _bytes(most)


def _bytes(text: str) -> int:
    number, unit = re.fullmatch(r"(\d+)([KMG]?)", text).groups()  # type: ignore[union-attr]
    return int(number) * _UNITS[unit]


class Confinement:
    """One control group, made and removed by whoever uses it.

    Parameters
    ----------
    name : str
    root : Path
        Where control groups are mounted.

    Attributes
    ----------
    high, most : int
        Bytes of the unit's limits.
    version : int
        Of the control groups.

    Raises
    ------
    OSError
        There are none with a memory controller, or we may not make one.
    """

    def __init__(self, name: str, root: Path = Path("/sys/fs/cgroup")) -> None:
        self.high, self.most = limits()
        self.version = 2 if (root / "cgroup.controllers").exists() else 1
        self.folder = root / name if self.version == 2 else root / "memory" / name
        self.folder.mkdir()
        try:
            if self.version == 2:
                self._write("memory.high", self.high)
                self._write("memory.max", self.most)
            else:
                self._write("memory.limit_in_bytes", self.most)
        except OSError:
            self.remove()
            raise

    def within(self, command: Sequence[str]) -> list[str]:
        """The command, which enters the group before it begins."""
        return ["sh", "-c", 'echo $$ > "$0" && exec "$@"', str(self.folder / "cgroup.procs"), *command]

    @property
    def peak(self) -> int:
        """The most bytes that were charged at a time, files and sockets among them; 0 where the kernel does not say."""
        with contextlib.suppress(FileNotFoundError):  # memory.peak is of Linux 5.19
            return self._read("memory.peak" if self.version == 2 else "memory.max_usage_in_bytes")
        return 0

    @property
    def kills(self) -> int:
        """Processes that the kernel ended for want of memory."""
        text = (self.folder / ("memory.events" if self.version == 2 else "memory.oom_control")).read_text()
        return int(re.search(r"^oom_kill (\d+)$", text, re.MULTILINE)[1])  # type: ignore[index]

    @property
    def held_back(self) -> int:
        """Times that a limit was met and memory taken back."""
        if self.version == 1:
            return self._read("memory.failcnt")
        text = (self.folder / "memory.events").read_text()
        return sum(int(count) for count in re.findall(r"^(?:high|max) (\d+)$", text, re.MULTILINE))

    def remove(self) -> None:
        """Remove it, once its processes have ended."""
        with contextlib.suppress(OSError):
            self.folder.rmdir()

    def _read(self, name: str) -> int:
        return int((self.folder / name).read_text())

    def _write(self, name: str, value: int) -> None:
        (self.folder / name).write_text(str(value))
