"""Public recordings of weeks, as `machines` makes them: what was recorded, and when something was wrong by its labels.

The data sets are those of `datasets`; the rows of training come first, as they were recorded.  Where the publisher does
not say when a set begins, a Monday is assumed: only the time from row to row is known.  Nothing here knows a detector.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np

from gon_edge.research.datasets import load
from gon_edge.research.machines import Event, Recording

_MONDAY = 1_767_567_600.0  # 5 January 2026, midnight in central Europe: that of the made machines

LABELLED = "labelled"
"""What a fault is called of which the publisher says no more."""


class Public(NamedTuple):
    """A data set, when its first row was recorded in Unix seconds, and the seconds from row to row."""

    dataset: str
    begin: float = _MONDAY
    interval_s: float = 60.0


PUBLIC = {
    "recorded: processor load of a cloud service": Public(
        "nab_cpu_asg_misconfiguration", begin=1_400_030_040.0, interval_s=300.0
    ),
    "recorded: server": Public("smd_machine-3-10"),
}
"""Those of the data sets that reach over weeks without a break: nine of five minutes, and four of minutes."""


def recorded(name: str, root: Path | None = None) -> Recording:
    """Read a public recording.

    Parameters
    ----------
    name : str
        One of ``PUBLIC``.
    root : path, optional
        The folder of the data sets; see `datasets.data_folder`.

    Raises
    ------
    InputError
        The set is not there.
    """
    public = PUBLIC[name]
    data = load(public.dataset, root)
    values = np.concatenate([data.train, data.test])
    timestamps = public.begin + public.interval_s * np.arange(len(values))
    labelled = np.concatenate([np.zeros(len(data.train), np.bool_), data.labels])
    edges = np.flatnonzero(np.diff(labelled, prepend=False, append=False)).reshape(-1, 2)
    faults = tuple(
        Event(float(timestamps[first]), float(timestamps[last - 1] + public.interval_s), LABELLED)
        for first, last in edges
    )
    names = data.feature_names
    return Recording(name, names, public.interval_s, timestamps, values.astype(np.float32), faults)
