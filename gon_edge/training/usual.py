"""Alerts that nobody has called a fault, and which of their rows are learned all the same.

Rows under an alert are kept from training, so that no fault becomes normal.  That alone makes two mistakes.  What a
short warm-up has not seen raises alerts and is never learned, so that it raises them for ever.  And a threshold that is
fitted on rows below the one before sinks from training to training: in two weeks of a made server it went from 5.7 to
3.1, and 32 alerts were false (docs/detection.md).  So in a machine's first week an alert that has ended by itself is
learned on the first two days of their kind, working days and weekends, and on the others when it comes a second time or
was mild.  The first hour is left out: somebody tries what an alert looks like, and tries it once more.  Another state
that lasts longer than what is known of the machine is learned as well, or nothing would be: on a recorded server that
was met in a quiet night, one alert was open from the second day to the end of four weeks.  Later an alert is learned
where it hardly passed the threshold, and where a week has more of them than the budget allows, the mildest first.

`habits` learns what comes again.  A person's word stands above both.  Pure.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from gon_edge.events import Alert
from gon_edge.model.daily import local_offset_s
from gon_edge.model.file import Model
from gon_edge.stream.habits import LONGEST_S, PERIODS, Block, Memory, are_alike, same_time
from gon_edge.training.absent import LONGEST_JOB_S
from gon_edge.training.answers import Span
from gon_edge.training.habits import Habit

WEEK_S = PERIODS["week"]
"""A machine is new until each weekday has been there.  With three days, its first weekend is never learned."""

_DAY_S = PERIODS["day"]
_FIRST_DAYS = 2
"""Of each kind, working days and weekends, on which anything may be new.  On the very first day there is no model for
hours: with a day alone, a job of each night was news on three of them."""

_TRIAL_S = 3600.0
"""Rows a second are a first model after ten minutes and the next one ten minutes later: a fault that a person made on
purpose, to see an alert, was normal by then.  A judgement."""

_THURSDAY, _SATURDAY = 3, 5  # the first of January 1970 was one; weekdays count from Monday, 0

_NEAR = 1.25
"""Times the threshold: an alert that is no stronger says as much of the threshold as of the machine, and is learned.  A
judgement, and as much as a threshold may rise in a training (`carry`)."""

_NEAR_AT_FIRST = 2.0
"""The same in the first week, when thresholds rest on a few days: as much as makes an alert critical by default."""

_FAULTS = 2
"""Alerts of a week, the strongest, that are taken for faults, beside those that the budget allows.  A
judgement: with none, a fault that a week has beside one false alert could be learned."""

_JOBS = 5  # of the first week, that are looked for.  Not critical: each costs the reading of eight days, once a day


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
    lately = past.lately(alert.timestamp - WEEK_S)
    if is_new(model, alert.since) and _is_of_new_kind(model, alert.since):
        found = [Block(alert.since, alert.timestamp, alert.score, {})]
    else:
        near = _NEAR_AT_FIRST if is_new(model, alert.since) else _NEAR
        most = math.ceil(budget * WEEK_S / _DAY_S) + _FAULTS
        found = [
            block
            for place, block in enumerate(lately)
            if place >= most or (block.since == alert.since and block.strength <= near * alert.threshold)
        ]
        if is_new(model, alert.since):
            found += _twice(alert.since, lately)
    return tuple((block.since, block.until) for block in found if block.length_s <= LONGEST_S)


def lasting_state(alerts: Iterable[Alert], model: Model, at: float) -> Span | None:
    """Rows, as a span in Unix seconds, of another state that lasts since a machine's first week.

    It has lasted for as long as the model in use has learned, an hour at least and a day at most: ten minutes of a
    fridge hold no run of its compressor, and two nights of an office no work.

    Parameters
    ----------
    alerts : iterable of Alert
        Those that are open.
    model : Model
        In use.
    at : float
        Of the newest row, Unix seconds.
    """
    long_s = max(_TRIAL_S, min(_DAY_S, known_s(model)))
    for alert in alerts:
        if alert.kind == "changed" and is_new(model, alert.since) and at - alert.since >= long_s:
            return alert.since, at
    return None


def _is_of_new_kind(model: Model, at: float) -> bool:
    """Whether a day is one of the first of its kind since a machine was met, an hour ago at least; Unix seconds."""
    if at - _time(model, "met", -math.inf) < _TRIAL_S:
        return False
    first, day = _local_day(_time(model, "met", -math.inf)), _local_day(at)
    return sum(_is_weekend(before) == _is_weekend(day) for before in range(first, day)) < _FIRST_DAYS


def _local_day(at: float) -> int:
    return int((at + local_offset_s(at)) // _DAY_S)


def _is_weekend(day: int) -> bool:
    return (day + _THURSDAY) % 7 >= _SATURDAY


def _twice(since: float, lately: Sequence[Block]) -> list[Block]:
    """The block that began then, and those like it at the same hour of other days; none where there are none."""
    blocks = [block for block in lately if same_time(since - block.since, _DAY_S)]
    this = next((block for block in blocks if block.since == since), None)
    others = [block for block in blocks if since - block.since > _DAY_S / 2.0 and this and are_alike(this, block)]
    return [this, *others] if this and others else []


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
        if not is_new(model, block.since) or block.length_s > LONGEST_JOB_S or _at_hour_of(block.since, known):
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
