"""How many trainings run at once: by the configuration, else by what the machine and the control group have."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from configurations import SMALLEST

from gon_edge.config.file import parse_config
from gon_edge.config.schema import RetrainConfig
from gon_edge.errors import ConfigError
from gon_edge.process.memory import allowed_bytes, installed_bytes
from gon_edge.training.capacity import EACH_BYTES, MOST, Capacity, capacity, fitting

MIB, GIB = 1 << 20, 1 << 30


@pytest.mark.parametrize(
    ("cores", "installed", "allowed", "places"),
    [
        (4, 427 * MIB, None, 1),  # Pi Zero 2 W
        (4, 905 * MIB, None, 1),  # Pi 3B+
        (4, 1847 * MIB, None, 1),  # Pi 4, 2 GB
        (4, 3792 * MIB, None, 3),  # Pi 4, 4 GB
        (4, 7811 * MIB, 192 * MIB, 2),  # Pi 5, 8 GB, under the packaged unit's MemoryHigh
        (1, 64 * GIB, None, 1),
        (64, 256 * GIB, None, MOST),
        (4, 8 * GIB, 100 * MIB, 1),  # a tight container trains all the same
        (4, 0, None, 1),  # a machine that does not say how much memory it has
    ],
)
def test_small_machines_train_one_stream_at_a_time(
    cores: int, installed: int, allowed: int | None, places: int
) -> None:
    assert fitting(cores, installed, allowed) == places


@pytest.mark.parametrize(
    ("settings", "places"),
    [
        (RetrainConfig(memory_budget_bytes=512 * MIB), Capacity(1, 512 * MIB)),  # as it was before there were several
        (RetrainConfig(cpu_share=0.5), Capacity(1, EACH_BYTES)),
        (RetrainConfig(processes=3), Capacity(3, EACH_BYTES)),
        (RetrainConfig(processes=3, memory_budget_bytes=150 * MIB), Capacity(3, 50 * MIB)),
        (RetrainConfig(processes=2, cpu_share=0.5), Capacity(2, EACH_BYTES)),
    ],
)
def test_what_somebody_has_set_counts(settings: RetrainConfig, places: Capacity) -> None:
    assert capacity(settings) == places


def test_by_default_there_are_as_many_places_as_this_machine_has_room_for() -> None:
    found = capacity(RetrainConfig())
    assert found == Capacity(fitting(len(os.sched_getaffinity(0)), installed_bytes(), allowed_bytes()), EACH_BYTES)
    assert found.total_bytes == found.processes * EACH_BYTES


def test_a_budget_too_small_for_all_processes_is_refused_with_what_to_write() -> None:
    retrain = {"processes": 2, "memory_budget": "64MiB"}
    with pytest.raises(ConfigError, match=r"retrain\.memory_budget: write at least 96MiB: all 2 processes share it"):
        parse_config({**SMALLEST, "retrain": retrain})
    parse_config({**SMALLEST, "retrain": {**retrain, "processes": 1}})


def test_the_limit_of_a_control_group_is_the_least_of_those_around_it(tmp_path: Path) -> None:
    proc, groups = tmp_path / "proc", tmp_path / "cgroup"
    (proc / "self").mkdir(parents=True)
    group = groups / "system.slice" / "gon-edge.service"
    group.mkdir(parents=True)
    (proc / "meminfo").write_text("MemTotal:         438176 kB\nMemFree:  1 kB\n")
    (proc / "self" / "cgroup").write_text("0::/system.slice/gon-edge.service\n")
    assert installed_bytes(proc=proc) == 438176 * 1024
    assert allowed_bytes(proc=proc, groups=groups) is None
    (group / "memory.max").write_text("max\n")
    (group / "memory.high").write_text(f"{192 * MIB}\n")
    (groups / "system.slice" / "memory.max").write_text(f"{GIB}\n")
    assert allowed_bytes(proc=proc, groups=groups) == 192 * MIB
    (groups / "memory.max").write_text(f"{100 * MIB}\n")  # a container's own group is its root
    assert allowed_bytes(proc=proc, groups=groups) == 100 * MIB
    assert allowed_bytes(proc=tmp_path, groups=groups) is None
    assert installed_bytes(proc=tmp_path) == 0
