"""Weeks of made machines through the whole daemon in virtual time: which faults are told, and what else is.

Default settings, real trainings, the daemon's own alerts.  Of a recording:

``false``
    Alerts that begin after the first two days, and neither with a fault nor with a change.  A fault excuses alerts
    until ``AFTER_S`` after its end.  A change (a new job, a holiday, a replaced sensor) excuses two, within two days of
    its beginning or of its end.
``found``
    A fault is found when an alert of any kind is told between its beginning and ``LATE_ROWS`` rows after its end.  One
    that was open before does not count: nobody would look again.
``delay``
    Minutes from the beginning of a fault to its alert.
``in_alarm``
    Share of the calm rows after the first two days that lie under an alert.
``silent``
    No fault that is plain or strong was found.

This module knows the daemon from outside: rows in, events out.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from gon_edge.config.schema import Config
from gon_edge.daemon.rehearsal import Rehearsal, Told, Trained, readings
from gon_edge.research.machines import GRADES, Event, Recording
from gon_edge.research.machines.when import DAY_S

FIRST_DAYS = 2
"""Days that are not counted: the machine is being learned."""

AFTER_S = 3.0 * 3600.0
"""A machine that was broken takes some time until it is as it was: a house is cold.  A judgement."""

LATE_ROWS = 40
"""A window: until then rows of the fault are looked at."""

_EXCUSED = 2
"""Alerts that a change is worth.  A nightly job is news at most twice."""


@dataclass(frozen=True, slots=True)
class Found:
    """A fault and what became of it; ``delay_s`` is ``None`` where it was not told."""

    fault: Event
    delay_s: float | None


@dataclass(frozen=True, slots=True)
class Course:
    """What the daemon made of one recording.

    Attributes
    ----------
    name : str
        Of the scenario.
    seed : int
    weeks : float
        Counted, after the first two days.
    false : int
        Alerts nobody would want.
    early : int
        Alerts of the first two days.
    faults : tuple of Found
    in_alarm : float
        Share of the calm rows.
    promoted, refused : int
        Trainings that gave a new model, and that did not.
    """

    name: str
    seed: int
    weeks: float
    false: int
    early: int
    faults: tuple[Found, ...]
    in_alarm: float
    promoted: int
    refused: int

    @property
    def silent(self) -> bool:
        """Whether no fault of the size a person would call one was told."""
        due = [one for one in self.faults if one.fault.strength >= 1.0]
        return bool(due) and all(one.delay_s is None for one in due)


def play(recording: Recording, seed: int, config: Config) -> Course:
    """Let a daemon of this configuration live through a recording.

    Parameters
    ----------
    recording : Recording
    seed : int
        Of the recording, for the record.
    config : Config
        Its state directory is left alone.
    """
    spans: dict[str, list[float]] = {}  # of each alert: told, since, end
    told_at: list[float] = []  # also of alerts that are back after their end
    is_open: set[str] = set()
    promoted = refused = 0
    until = float(recording.timestamps[-1])
    with Rehearsal(config) as rehearsal:
        for news in rehearsal.play(readings("machine", recording.rows())):
            if isinstance(news, Told):
                alert, is_over = news.event["id"], news.event["type"] == "end"
                if is_over:
                    is_open.discard(alert)
                elif alert not in is_open:
                    is_open.add(alert)
                    told_at.append(news.at)
                span = spans.setdefault(alert, [news.at, float(news.event["since"]), until])
                span[2] = news.at if is_over else until
            elif isinstance(news, Trained):
                promoted += news.record.outcome == "promoted"
                refused += news.record.outcome != "promoted"
        course = rehearsal.courses["machine"]
    begin = float(recording.timestamps[0]) + FIRST_DAYS * DAY_S
    alerts = [(told, since, end) for told, since, end in spans.values()]
    timestamps = np.array(course.timestamps)
    calm = (timestamps >= begin) & ~_within(timestamps, recording.faults) & ~_within(timestamps, recording.changes)
    in_alarm = np.frombuffer(bytes(course.in_alarm), np.uint8)[calm]
    return Course(
        name=recording.name,
        seed=seed,
        weeks=max(0.0, until - begin) / (7.0 * DAY_S),
        false=count_false([alert for alert in alerts if alert[0] >= begin], recording),
        early=sum(told < begin for told, _, _ in alerts),
        faults=tuple(Found(fault, _delay_s(fault, told_at, recording.interval_s)) for fault in recording.faults),
        in_alarm=float(in_alarm.mean()) if len(in_alarm) else 0.0,
        promoted=promoted,
        refused=refused,
    )


def count_false(alerts: Iterable[tuple[float, float, float]], recording: Recording) -> int:
    """How many of the alerts, each as (told, since, end), belong to no fault and to no change."""
    left = dict.fromkeys(recording.changes, _EXCUSED)
    false = 0
    for told, since, end in sorted(alerts):
        if any(since < fault.end + AFTER_S and end >= fault.start for fault in recording.faults):
            continue
        near = (
            change
            for change in recording.changes
            if left[change] and any(0.0 <= told - at < 2.0 * DAY_S for at in (change.start, change.end))
        )
        change = next(near, None)
        if change is None:
            false += 1
        else:
            left[change] -= 1
    return false


def _delay_s(fault: Event, told_at: Iterable[float], interval_s: float) -> float | None:
    last = fault.end + LATE_ROWS * interval_s
    told = [at for at in told_at if fault.start <= at <= last]
    return min(told) - fault.start if told else None


def _within(timestamps: NDArray[np.float64], events: Iterable[Event]) -> NDArray[np.bool_]:
    inside = np.zeros(len(timestamps), np.bool_)
    for event in events:
        inside |= (timestamps >= event.start) & (timestamps < event.end + AFTER_S)
    return inside


# -- tables ------------------------------------------------------------------------------------------------------------

COLUMNS = (
    "Scenario",
    "false alerts a week",
    "found, plain and strong",
    "found, weak",
    "delay, min",
    "in alarm",
    "silent seeds",
    "in the first two days",
    "trainings",
    "refused",
)


def by_scenario(courses: Iterable[Course]) -> list[list[str]]:
    """A row for each scenario, over its seeds, and one for all; as ``COLUMNS`` says."""
    groups: dict[str, list[Course]] = {}
    for course in courses:
        groups.setdefault(course.name, []).append(course)
    rows = [_row(name, group) for name, group in groups.items()]
    return [*rows, _row("all", [course for group in groups.values() for course in group])] if rows else []


def _row(name: str, courses: list[Course]) -> list[str]:
    weeks = sum(course.weeks for course in courses)
    faults = [one for course in courses for one in course.faults]
    delays = [one.delay_s / 60.0 for one in faults if one.delay_s is not None]
    false = sum(course.false for course in courses)
    return [
        name,
        f"{false / weeks:.2f}" if weeks else "-",
        _share([one for one in faults if one.fault.strength >= 1.0]),
        _share([one for one in faults if one.fault.strength < 1.0]),
        f"{statistics.median(delays):.0f}" if delays else "-",
        f"{statistics.mean(course.in_alarm for course in courses):.3f}",
        f"{sum(course.silent for course in courses)} of {len(courses)}",
        f"{statistics.mean(course.early for course in courses):.1f}",
        str(sum(course.promoted + course.refused for course in courses)),
        str(sum(course.refused for course in courses)),
    ]


def by_kind(courses: Iterable[Course]) -> list[list[str]]:
    """A row for each kind of fault: its name, and how many were found of each grade."""
    kinds: dict[str, list[Found]] = {}
    for course in courses:
        for one in course.faults:
            kinds.setdefault(f"{course.name.split(',')[0].split(' from ')[0]}: {one.fault.kind}", []).append(one)
    return [
        [kind, *(_share([one for one in group if one.fault.strength == grade]) for grade in GRADES)]
        for kind, group in sorted(kinds.items())
    ]


def _share(faults: list[Found]) -> str:
    return f"{sum(one.delay_s is not None for one in faults)} of {len(faults)}" if faults else "-"


def markdown(header: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """A table as Markdown."""
    head = list(header)
    lines = [head, ["---"] * len(head), *(list(row) for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


# -- as lines of a file ------------------------------------------------------------------------------------------------

_WHOLE = ("weeks", "false", "early", "in_alarm", "promoted", "refused")
FIELDS = ("scenario", "seed", *_WHOLE, "kind", "strength", "start", "end", "delay_s")


def record_of(course: Course) -> list[dict[str, object]]:
    """A line for the recording, and one for each fault with its ``kind``: what a spreadsheet takes."""
    common: dict[str, object] = {"scenario": course.name, "seed": course.seed}
    whole = {name: getattr(course, name) for name in _WHOLE}
    faults = [
        {
            "kind": one.fault.kind,
            "strength": one.fault.strength,
            "start": round(one.fault.start),
            "end": round(one.fault.end),
            "delay_s": None if one.delay_s is None else round(one.delay_s),
        }
        for one in course.faults
    ]
    whole |= {"weeks": round(course.weeks, 3), "in_alarm": round(course.in_alarm, 4)}
    return [common | whole, *(common | fault for fault in faults)]


def courses_of(lines: Iterable[Mapping[str, str]]) -> list[Course]:
    """The courses whose `record_of` a file holds, in its order."""
    courses: dict[tuple[str, int], Course] = {}
    for line in lines:
        name = line["scenario"], int(line["seed"])
        if line["kind"]:
            fault = Event(float(line["start"]), float(line["end"]), line["kind"], float(line["strength"]))
            found = Found(fault, float(line["delay_s"]) if line["delay_s"] else None)
            courses[name] = replace(courses[name], faults=(*courses[name].faults, found))
        else:
            courses[name] = Course(
                *name,
                weeks=float(line["weeks"]),
                false=int(line["false"]),
                early=int(line["early"]),
                faults=(),
                in_alarm=float(line["in_alarm"]),
                promoted=int(line["promoted"]),
                refused=int(line["refused"]),
            )
    return list(courses.values())
