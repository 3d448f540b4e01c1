"""What the training child is told: one `Job`, written as a file beside the model it is to replace.

The dataclasses of one training are four: `rounds.Order` (what somebody wants), `Job` (what the child is told),
`plan.Plan` (what it takes of the rows, in which memory) and `state.store.RetrainRecord` (what came of it).
Knows no rows and no fit: the daemon loads this module, the child does the work.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from gon_edge.training.settings import FitSettings


@dataclass(frozen=True, slots=True)
class Job:
    """What to train, from what, and where the result goes.

    Attributes
    ----------
    stream : str
    state_dir : str
        Where the store is.
    candidate : str
        File to write.
    version : str
        Name of the new version.
    parent : str
        Version in use, empty for none.
    trained_at : float
        Unix seconds, from the parent: the same job gives the same bytes.
    until : float
        Newest row to learn, Unix seconds.
    max_rows : int
    interval_s : float
    settings : FitSettings
    budget_bytes : int
    nice : int
    deadline_s : float
        A child that takes longer is ended.
    seed : int
    since : float or None
        Oldest row to learn, Unix seconds.
    include_quarantined : bool
        Learn also rows that were alarmed, silenced or stale.
    accepted : tuple of (float, float)
        Spans, Unix seconds, that a person confirmed as normal: their rows are not screened for odd ones.
    champion : str
        File of the model in use, which a better one replaces; empty for none.
    rows_file : str
        CSV to learn from instead of the store; empty for the store.
    force : bool
        Make a candidate of what the gate rejects, too, unless it holds values that are not finite.
    """

    stream: str
    state_dir: str
    candidate: str
    version: str
    parent: str
    trained_at: float
    until: float
    max_rows: int
    interval_s: float
    settings: FitSettings
    budget_bytes: int
    nice: int
    deadline_s: float
    seed: int = 0
    since: float | None = None
    include_quarantined: bool = False
    accepted: tuple[tuple[float, float], ...] = ()
    champion: str = ""
    rows_file: str = ""
    force: bool = False

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Job:
        """The job of which ``dataclasses.asdict`` gave these JSON values.

        Raises
        ------
        KeyError, TypeError
            They are not of a job.
        """
        accepted = tuple((since, until) for since, until in values["accepted"])
        return cls(**{**values, "accepted": accepted, "settings": FitSettings(**values["settings"])})


def write_job(job: Job, path: Path) -> None:
    """Write a job file."""
    path.write_text(json.dumps(asdict(job)), encoding="utf-8")


def read_job(path: Path) -> Job:
    """The job in a file that `write_job` has written."""
    return Job.from_json(json.loads(path.read_text(encoding="utf-8")))
