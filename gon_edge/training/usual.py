"""Alerts that nobody has called a fault, and which of their rows are learned all the same.

Rows under an alert are kept from training, so that no fault becomes normal.  That alone makes two mistakes.  What a
short warm-up has not seen raises alerts and is never learned, so that it raises them for ever.  And a threshold that is
fitted on rows below the one before sinks from training to training: in two weeks of a made server it went from 5.7 to
3.1, and 32 alerts were false (docs/detection.md).  So an alert that has ended by itself is learned in a machine's first
week; later where it hardly passed the threshold, and where a week has more of them than the budget allows, the mildest
first.

`habits` learns what comes again.  A person's word stands above both.  Pure.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from gon_edge.events import Alert
from gon_edge.model.file import Model
from gon_edge.stream.habits import LONGEST_S, PERIODS, Block, Memory, same_time
from gon_edge.training.answers import Span
from gon_edge.training.habits import Habit

WEEK_S = PERIODS["week"]
"""A machine is new until each weekday has been there.  With three days, its first weekend is never learned."""

_NEAR = 1.25
"""Times the threshold: an alert that is no stronger says as much of the threshold as of the machine, and is learned.  A
judgement, and as much as a threshold may rise in a training (`carry`)."""

_FAULTS = 2
"""Alerts of a week, the strongest, that are taken for faults, beside those that the budget allows.  A
judgement: with none, a fault that a week has beside one false alert could be learned."""


_JOBS = (
    5  # of the first week, that are looked for.  Not critical: each costs the reading of eight days' rows, once a day
)


def is_new(model: Model, at: float) -> bool:
    """Whether a machine was hardly known yet at a time in Unix seconds, by the lineage of its model."""
    return at - _time(model, "met", -math.inf) < WEEK_S


def known_s(model: Model) -> float:
    """Over how many seconds a model has learned; infinite where nobody knows."""
    return _time(model, "until", math.inf) - _time(model, "since", -math.inf)


def met_at(champion: Model | None, first: float) -> float:
    """When a machine was met, Unix seconds: the oldest row that its first model has learned.

    Parameters
    ----------
    champion : Model or None
        The model in use.  One of a gon-edge that did not say when goes by its own oldest row.
    first : float
        The oldest row that is learned now.
    """
    return first if champion is None else _time(champion, "met", _time(champion, "since", 0.0))


def spans(alert: Alert, model: Model, budget: float, past: Memory) -> tuple[Span, ...]:
    """Which rows to learn, as spans in Unix seconds, when an alert has ended.

    Parameters
    ----------
    alert : Alert
        Its last event.
    model : Model
        In use.
    budget : float
        False alerts that are accepted, for a day.
    past : Memory
        The anomalies that have ended, this one among them.
    """
    if alert.kind not in ("anomaly", "changed"):
        return ()
    if is_new(model, alert.since):
        found = [(alert.since, alert.timestamp)]
    else:
        lately = past.lately(alert.timestamp - WEEK_S)
        most = math.ceil(budget * WEEK_S / PERIODS["day"]) + _FAULTS
        found = [
            (block.since, block.until)
            for place, block in enumerate(lately)
            if place >= most or (block.since == alert.since and block.strength <= _NEAR * alert.threshold)
        ]
    return tuple(span for span in found if span[1] - span[0] <= LONGEST_S)


def jobs(model: Model, past: Memory, known: Sequence[Habit]) -> tuple[Habit, ...]:
    """What came in a machine's first week, an hour each, the newest: it may be a job of each day.

    A job that was learned at once raises too few alerts for a habit (`habits`), and its absence would be no news.
    Whether it comes every day, `absent` finds in the rows.  Its causes are those that all its alerts agree on.

    Parameters
    ----------
    model : Model
        In use.
    past : Memory
        The anomalies that have ended.
    known : sequence of Habit
        What has an hour of its own already.
    """
    hours: list[list[Block]] = []
    for block in sorted(past.lately(-math.inf), key=lambda block: -block.since):
        if not is_new(model, block.since) or block.length_s > LONGEST_S or _at_hour_of(block.since, known):
            continue
        for hour in hours:
            if same_time(block.since - hour[0].since, PERIODS["day"]):
                hour.append(block)
                break
        else:
            hours.append([block])
    found = []
    for newest, *others in hours:
        causes = {name: way for name, way in newest.causes.items() if all(o.causes.get(name) == way for o in others)}
        if causes:
            found.append(Habit(((newest.since, newest.until),), causes))
    return tuple(found[:_JOBS])


def _at_hour_of(since: float, known: Sequence[Habit]) -> bool:
    return any(same_time(since - habit.spans[-1][0], PERIODS["day"]) for habit in known)


def _time(model: Model, key: str, otherwise: float) -> float:
    return float(model.lineage.get(key, otherwise))
