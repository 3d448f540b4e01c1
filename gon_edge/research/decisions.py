"""What alerts are worth that a method's decisions make: every recorded run alone, by the daemon's own alert policy.

A score ranks rows; people see alerts.  Here the rows a method calls anomalous go through `AlertPolicy` with its default
settings, one run after the other, and the alerts are held against the labels.

``f1``
    Of rows, by the method's own decisions.
``found``
    Share of labelled faults that lie under an alert.  Labels that reach over a seam are one fault in each run.
``false_per_1000``
    Alerts that touch no label, for each thousand normal rows.
``in_alarm``
    Share of the normal rows under an alert.
``silent``, ``blind``
    1 where no fault was found, and where more than a fifth of the normal rows lie under an alert; else 0.

This module knows labels and nothing of how a decision is found.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from gon_edge.config.schema import AlertsConfig
from gon_edge.events import Verdict
from gon_edge.research import metrics
from gon_edge.research.datasets import Dataset
from gon_edge.stream.alerts import AlertPolicy

Array = NDArray[np.float64]
Flags = NDArray[np.bool_]

BLIND = 0.2
"""Share of normal rows under an alert from which on a person no longer looks."""


def alerts(scores: Array, decisions: Flags, thresholds: Array, restart: Flags) -> list[tuple[int, int]]:
    """Rows from the first to the one after the last, of each alert.

    Parameters
    ----------
    scores : ndarray, shape (T,)
    decisions : ndarray of bool, shape (T,)
        Rows that count towards an alert.
    thresholds : ndarray, shape (T,)
        An alert ends by scores that stay below a part of them.
    restart : ndarray of bool, shape (T,)
        True at the first row of each run; an alert ends with its run.
    """
    found = []
    starts = np.flatnonzero(restart)
    for begin, end in zip(starts, [*starts[1:], len(scores)], strict=True):
        policy = AlertPolicy("run", AlertsConfig())
        since: int | None = None
        for t in range(begin, end):
            verdict = Verdict("run", float(t), float(scores[t]), float(thresholds[t]), bool(decisions[t]), (), (), "")
            for event in policy.update(verdict):
                if event.type == "new":
                    since = int(event.since)
                elif event.type == "end" and since is not None:
                    found.append((since, t))
                    since = None
        if since is not None:
            found.append((since, int(end)))
    return found


def faults(labels: Flags, restart: Flags) -> list[tuple[int, int]]:
    """The labelled spans, first row and the one after the last, none across the seam of two runs."""
    starts = np.flatnonzero(restart)
    found = []
    for begin, end in zip(starts, [*starts[1:], len(labels)], strict=True):
        found += [(int(begin + first), int(begin + last)) for first, last in metrics.segments(labels[begin:end])]
    return found


def judge(dataset: Dataset, scores: Array, decisions: Flags, thresholds: Array) -> dict[str, float]:
    """The figures of this module's header for one method on one set."""
    labels, restart = dataset.labels, dataset.restart
    raised = alerts(scores, decisions, thresholds, restart)
    under = np.zeros(len(labels), np.bool_)
    for first, last in raised:
        under[first:last] = True
    normal = ~labels
    found = [bool(under[first:last].any()) for first, last in faults(labels, restart)]
    false = sum(not labels[first:last].any() for first, last in raised)
    in_alarm = float(under[normal].mean())
    return {
        "f1": metrics.f1(labels, decisions),
        "found": float(np.mean(found)),
        "false_per_1000": 1000.0 * false / float(normal.sum()),
        "in_alarm": in_alarm,
        "silent": float(not any(found)),
        "blind": float(in_alarm > BLIND),
    }
