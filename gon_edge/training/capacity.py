"""How many trainings run at once, and how much memory each may use: as configuration and machine allow.

``retrain.processes`` says how many, ``retrain.memory_budget`` how much for all of them together.  Where neither is
said, one runs for each core, as far as there is a GiB of memory for each, and each may use 64 MiB.  A Raspberry Pi Zero
2 W and a Pi 3 therefore train one stream at a time, and a Pi 4 with 4 GB three.  Knows nothing of what is trained.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

from gon_edge.config.schema import RetrainConfig
from gon_edge.process.memory import allowed_bytes, installed_bytes

EACH_BYTES = 64 << 20
"""Memory of one training by default: 38 features peak at 56 MiB (docs/retraining.md)."""

MOST = 4
"""Trainings at once by default.  More cores and memory belong to what else runs on a machine of that size."""

_MEMORY_FOR_EACH = 1 << 30
"""Installed memory for each training.  A judgement: at most a sixteenth of the memory is used, and a machine with less
than 2 GiB, where other programs are short of it already, trains one stream at a time."""

_BESIDE_BYTES = 64 << 20
"""Of a control group that is left to the daemon, which holds some 45 MiB for ten streams (docs/cost.md)."""


@dataclass(frozen=True, slots=True)
class Capacity:
    """What trainings may use.

    Attributes
    ----------
    processes : int
        Trainings at once.
    budget_bytes : int
        Memory of each.
    """

    processes: int
    budget_bytes: int

    @property
    def total_bytes(self) -> int:
        """Memory of all of them together."""
        return self.processes * self.budget_bytes


def capacity(settings: RetrainConfig) -> Capacity:
    """What trainings may use on this machine.

    A budget that somebody has set without saying for how many is that of one training.  So it is where a training shall
    have less than a whole core.

    Examples
    --------
    >>> capacity(RetrainConfig(processes=2, memory_budget_bytes=128 << 20))
    Capacity(processes=2, budget_bytes=67108864)
    """
    processes, budget = settings.processes, settings.memory_budget_bytes
    if processes is None:
        is_one = budget is not None or settings.cpu_share < 1.0
        processes = 1 if is_one else fitting(len(os.sched_getaffinity(0)), installed_bytes(), allowed_bytes())
    return Capacity(processes, EACH_BYTES if budget is None else budget // processes)


def fitting(cores: int, installed: int, allowed: int | None) -> int:
    """How many trainings a machine has room for, at least one.

    Parameters
    ----------
    cores : int
    installed : int
        Memory of the machine, bytes; 0 where it is not known.
    allowed : int or None
        What the control group may use of it, daemon and trainings together; ``None`` for all.

    Examples
    --------
    >>> fitting(4, 512 << 20, None), fitting(4, 4000 << 20, None), fitting(2, 8 << 30, None)
    (1, 3, 2)
    """
    room = MOST if allowed is None else (allowed - _BESIDE_BYTES) // EACH_BYTES
    return max(1, min(cores, installed // _MEMORY_FOR_EACH, room, MOST))
