"""The machine: disk and its wear, memory, clock."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from gon_edge.commands.doctor.finding import DAY_S, MIB, Finding, files_below
from gon_edge.commands.doctor.service import UNIT
from gon_edge.config.schema import Config
from gon_edge.links.client import daemon_api
from gon_edge.process.clock import is_synchronised
from gon_edge.training.capacity import capacity

_DAEMON_BYTES = 64 * MIB  # with ten streams of 8 features it holds 55 MiB after an overload
_MARGIN_BYTES = 64 * MIB  # not critical: room in MemoryMax beside daemon and training
_LEAST_FREE_BYTES = 16 * MIB  # not critical: a model and a flush need less than 2
_SPARE_BYTES = 32 * MIB  # not critical: for models, the WAL and one candidate
_KNOWN_AFTER_S = 3600.0  # two flushes with the default store.flush_every
_REWRITES_A_YEAR = 1.0  # of the whole medium; cheap cards bear some hundreds in all
_BUILT_AFTER = datetime(2026, 1, 1, tzinfo=UTC).timestamp()  # no earlier time can be right: there was no gon-edge


def check_disk(config: Config, daemon: Mapping[str, Any]) -> Iterator[Finding]:
    """Whether there is room, on a disk that lasts."""
    folder = next(p for p in (config.state_dir, *config.state_dir.parents) if p.is_dir())
    disk = os.statvfs(folder)
    if disk.f_flag & os.ST_RDONLY:
        yield Finding("disk", "fault", f"{folder} is on a read-only file system", "mount it for writing; see dmesg")
        return
    kind = _file_system(folder)
    if kind in ("tmpfs", "ramfs", "overlay"):
        text = f"{folder} is on {kind}: models and history may be gone after a restart"
        yield Finding("disk", "warning", text, "name a state_dir on a disk")
    total, free = disk.f_blocks * disk.f_frsize, disk.f_bavail * disk.f_frsize
    used = sum(path.stat().st_size for path in files_below(config.state_dir)) if config.state_dir.is_dir() else 0
    needed = max(0, config.store.max_bytes - used) + _SPARE_BYTES
    text = f"{folder}: {free / MIB:.0f} MiB free, {used / MIB:.0f} MiB used of store.max_size and models"
    if free < _LEAST_FREE_BYTES:
        yield Finding("disk", "fault", text, "make room: rows and models cannot be written")
    elif free < needed:
        advice = f"make room for {(needed - free) / MIB:.0f} MiB more, or lower store.max_size"
        yield Finding("disk", "warning", text, advice)
    else:
        yield Finding("disk", "ok", text)
    yield from _wear(config, daemon, total)


def _wear(config: Config, daemon: Mapping[str, Any], total_bytes: int) -> Iterator[Finding]:
    """How often a year the daemon writes as much as the medium holds."""
    if not daemon or daemon["uptime_s"] < _KNOWN_AFTER_S or not config.http.enabled:
        yield Finding("disk", "ok", "what is written in a day is known once the daemon has run for an hour")
        return
    metrics = daemon_api(config).metrics()
    lines = [line for line in metrics.splitlines() if line.startswith("gon_edge_disk_written_bytes_total ")]
    if not lines:
        return
    a_day = float(lines[0].split()[1]) / daemon["uptime_s"] * DAY_S
    a_year = a_day * 365.0 / total_bytes
    text = f"{a_day / 1e6:.1f} MB written in a day: the whole medium {a_year:.2g} times a year"
    if a_year > _REWRITES_A_YEAR:
        yield Finding("disk", "warning", text, "raise store.flush_every, or use a larger card")
    else:
        yield Finding("disk", "ok", text)


def _file_system(folder: Path) -> str:
    """Kind of the file system `folder` is on; empty when the kernel does not say."""
    best, kind = "", ""
    with contextlib.suppress(OSError, IndexError, ValueError):
        for line in Path("/proc/self/mountinfo").read_text().splitlines():
            fields = line.split()
            mounted = fields[4].replace("\\040", " ")
            inside = f"{folder.resolve()}/".startswith(mounted.rstrip("/") + "/")
            if inside and len(mounted) >= len(best):
                best, kind = mounted, fields[fields.index("-") + 1]
    return kind


def check_memory(config: Config, unit: Mapping[str, str]) -> Iterator[Finding]:
    """Whether a training finds the memory it plans with, and the kernel holds us to our limit."""
    lines = Path("/proc/meminfo").read_text().splitlines()
    meminfo = {line.split(":")[0]: int(line.split()[1]) * 1024 for line in lines}
    places = capacity(config.retrain)  # of this process; the daemon's own, unless it is told, keeps to its limit
    trainings = places.budget_bytes if config.retrain.processes is None else places.total_bytes
    needed = trainings + _DAEMON_BYTES
    text = f"{meminfo['MemAvailable'] / MIB:.0f} MiB of {meminfo['MemTotal'] / MIB:.0f} MiB available"
    if meminfo["MemAvailable"] < trainings:
        advice = (
            "end other programs, or lower retrain.memory_budget or retrain.processes: trainings may not find the "
            "memory they plan with"
        )
        yield Finding("memory", "warning", text, advice)
    else:
        yield Finding("memory", "ok", text)
    limit = unit.get("MemoryMax", "infinity")
    if limit.isdigit() and int(limit) < needed:
        enough = (needed + _MARGIN_BYTES) // MIB
        advice = f"systemctl edit gon-edge, MemoryMax={enough}M, or lower retrain.memory_budget or retrain.processes"
        text = f"MemoryMax of {UNIT} is {int(limit) // MIB} MiB: too little for a training beside the daemon"
        yield Finding("memory", "warning", text, advice)
    if unit.get("ActiveState") == "active" and limit.isdigit():
        enforced = _enforced_bytes(unit.get("ControlGroup", ""))
        if enforced is not None and enforced <= int(limit):
            yield Finding("memory", "ok", f"the kernel holds {UNIT} to {enforced // MIB} MiB")
        else:
            advice = (
                "on a Raspberry Pi add cgroup_enable=memory to /boot/firmware/cmdline.txt and restart; "
                "in a container or virtual machine ask who runs it"
            )
            text = f"the kernel does not hold {UNIT} to its {int(limit) // MIB} MiB of MemoryMax"
            yield Finding("memory", "warning", text, advice)


def _enforced_bytes(group: str) -> int | None:
    """Limit of memory the kernel knows for a control group, version 2 or 1; ``None`` where there is none."""
    root = Path("/sys/fs/cgroup")
    for file in (
        root / group.lstrip("/") / "memory.max",
        root / "memory" / group.lstrip("/") / "memory.limit_in_bytes",
    ):
        with contextlib.suppress(OSError, ValueError):  # "max"
            return int(file.read_text())
    return None


def check_clock() -> Iterator[Finding]:
    """Whether the time is right."""
    now = time.time()
    if now < _BUILT_AFTER:
        shown = datetime.fromtimestamp(now, UTC).date().isoformat()
        yield Finding("clock", "fault", f"the clock says {shown}", "set it, or wait for the time server")
        return
    synchronised = is_synchronised()
    if synchronised is None:
        yield Finding("clock", "ok", "whether the clock is synchronised is not known here")
    elif synchronised:
        yield Finding("clock", "ok", "synchronised")
    else:
        advice = "timedatectl set-ntp true; readings stamped on receipt move when the clock is set"
        yield Finding("clock", "warning", "the clock is not synchronised with a time server", advice)
