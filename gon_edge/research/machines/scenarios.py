"""Which machine runs for how long, at what rate, and what goes wrong when: `record` makes one with a seed.

A fault without a strength of its own is weak, plain or strong by turns with the seed, so that a few seeds show every
grade of every kind.  A change is news but no fault: told once, or not at all, it is no false alert.  Faults lie after
the first two days.  A new machine gets a line in ``SCENARIOS`` and nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from gon_edge.research.machines import buildings, plants
from gon_edge.research.machines.when import DAY_S, Array, Event, When, midnight

Machine = Callable[[When, np.random.Generator], dict[str, Array]]

GRADES = {0.5: "weak", 1.0: "plain", 2.0: "strong"}
"""Strengths of a fault.  Plain is what a person would call one; the others are half and double."""

_JITTER_S = 900.0
"""Faults begin up to so much earlier or later, but for those that have a clock of their own.  Not critical."""

_MONDAY = midnight(2026, 1, 5)  # eight weeks on, the clocks have not changed
_BEFORE_SPRING = midnight(2026, 3, 16)  # a Monday; the clock goes forward on the Sunday of the second week
_BEFORE_WINTER = midnight(2026, 10, 12)  # a Monday; it goes back on the Sunday of the second week


class Plan(NamedTuple):
    """Something that will happen: ``day`` counts from the scenario's Monday, ``hour`` is on the wall clock."""

    kind: str
    day: int
    hour: float
    hours: float
    strength: float | None = None
    """``None``: by turns with the seed."""
    sharp: bool = False
    """Begins at the minute, as what has a clock does."""


@dataclass(frozen=True, slots=True)
class Scenario:
    """A machine for so many days, and what happens to it.

    Attributes
    ----------
    machine : callable
    days : int
    faults, changes : tuple of Plan
    interval_s : float
        Between rows.
    monday : float
        Unix seconds of the midnight from which plans count.
    first_day : int
        Days after that at which the recording begins.
    """

    machine: Machine
    days: int
    faults: tuple[Plan, ...]
    changes: tuple[Plan, ...] = ()
    interval_s: float = 60.0
    monday: float = _MONDAY
    first_day: int = 0


@dataclass(frozen=True, slots=True)
class Recording:
    """What a machine has done.

    Attributes
    ----------
    name : str
        Of the scenario.
    features : tuple of str
    interval_s : float
    timestamps : ndarray, shape (T,)
        Unix seconds.
    values : ndarray of float32, shape (T, F)
        Engineering units.
    faults : tuple of Event
        What should be told.
    changes : tuple of Event
        What may be told.
    """

    name: str
    features: tuple[str, ...]
    interval_s: float
    timestamps: Array
    values: NDArray[np.float32]
    faults: tuple[Event, ...]
    changes: tuple[Event, ...] = field(default=())

    def rows(self) -> Iterator[tuple[float, dict[str, float]]]:
        """Each row as (timestamp, values by name), oldest first: what a device would send."""
        for timestamp, row in zip(self.timestamps.tolist(), self.values.tolist(), strict=True):
            yield timestamp, dict(zip(self.features, row, strict=True))

    def during(self, events: tuple[Event, ...]) -> NDArray[np.bool_]:
        """Rows (T,) within one of these events."""
        inside = np.zeros(len(self.timestamps), np.bool_)
        for event in events:
            inside |= (self.timestamps >= event.start) & (self.timestamps < event.end)
        return inside


_HOUSE = (
    Plan("day mode at night", 9, 3.0, 2.0, 1.0, sharp=True),
    Plan("heat pump dead", 11, 14.0, 4.0, 1.0),
    Plan("indoor reads high", 12, 2.0, 2.0),
    Plan("window left open", 13, 9.0, 2.0),
)
_OFFICE = (
    Plan("ventilation dead", 10, 9.0, 6.0),
    Plan("lights left on", 11, 22.0, 6.0),
    Plan("window left open", 14, 1.0, 5.0),
    Plan("heating dead", 16, 7.0, 6.0),
    Plan("lights left on", 19, 11.0, 4.0),
)
_BAKERY = (
    Plan("oven on after the shift", 8, 14.0, 3.0, 1.0),
    Plan("heating element weak", 10, 4.0, 4.0),
    Plan("oven on after the shift", 13, 4.0, 4.0, 1.0),
    Plan("door does not close", 15, 5.0, 4.0),
    Plan("exhaust fan dead", 17, 4.5, 4.0),
)
_COLD = (
    Plan("door left open", 5, 22.0, 1.5),
    Plan("defrost missed", 8, 0.0, 18.0, 1.0),
    Plan("gas lost", 11, 10.0, 8.0),
    Plan("defrost does not end", 13, 5.5, 2.0, 1.0),
)
_SERVER = (
    Plan("runaway process", 5, 3.5, 3.0),
    Plan("backup missing", 8, 1.0, 3.0, 1.0),
    Plan("memory leak", 10, 13.0, 8.0),
    Plan("large upload at night", 12, 0.5, 0.8),
    Plan("disk slow", 13, 15.0, 3.0),
)
_GREENHOUSE = (
    Plan("lamps on at night", 6, 23.0, 3.0, 1.0),
    Plan("vent stuck closed", 9, 11.0, 4.0),
    Plan("watering missed", 11, 7.0, 12.0, 1.0),
    Plan("heating dead", 12, 1.0, 5.0),
)
_SOLAR = (
    Plan("inverter off", 7, 11.0, 2.0, 1.0),
    Plan("string dead", 9, 10.0, 4.0),
    Plan("fan dead", 12, 10.5, 4.0),
)
_FRIDGE = (
    Plan("door left open", 3, 14.0, 0.5),
    Plan("compressor runs on", 4, 2.0, 1.5, 1.0),
    Plan("compressor weak", 5, 10.0, 6.0),
    Plan("no power", 6, 3.0, 3.0, 1.0),
)
_PUMP = (
    Plan("inlet blocked", 12, 6.0, 5.0),
    Plan("bearing runs dry", 16, 10.0, 8.0),
    Plan("impeller hit", 19, 17.0, 6.0),
)
_JOB = Plan("job at six", 2, 0.0, 24.0 * 60.0, 1.0, sharp=True)
"""Begins on the third day and stays."""


def _weeks_of_an_office(first_day: int) -> Scenario:
    return Scenario(buildings.office, 21 - first_day, _OFFICE, first_day=first_day)


SCENARIOS: dict[str, Scenario] = {
    "house": Scenario(buildings.house, 14, _HOUSE),
    "house, eight weeks": Scenario(
        buildings.house, 56, tuple(plan._replace(day=plan.day + 35) for plan in _HOUSE), interval_s=300.0
    ),
    "house, away for a week": Scenario(
        buildings.house, 28, tuple(p._replace(day=p.day + 14) for p in _HOUSE), (Plan("away", 14, 9.0, 168.0, 1.0),)
    ),
    "house, summer time begins": Scenario(
        buildings.house, 21, tuple(p._replace(day=p.day + 6) for p in _HOUSE), monday=_BEFORE_SPRING
    ),
    "house, summer time ends": Scenario(
        buildings.house, 21, tuple(p._replace(day=p.day + 6) for p in _HOUSE), monday=_BEFORE_WINTER
    ),
    "office from Monday": _weeks_of_an_office(0),
    "office from Tuesday": _weeks_of_an_office(1),
    "office from Wednesday": _weeks_of_an_office(2),
    "office from Thursday": _weeks_of_an_office(3),
    "office from Friday": _weeks_of_an_office(4),
    "office from Saturday": _weeks_of_an_office(5),
    "office from Sunday": _weeks_of_an_office(6),
    "office, a holiday": Scenario(
        buildings.office,
        28,
        (*_OFFICE, Plan("ventilation dead", 25, 9.0, 6.0)),
        (Plan("public holiday", 22, 0.0, 24.0, 1.0, True),),
    ),
    "bakery": Scenario(plants.bakery, 21, _BAKERY),
    "cold store": Scenario(plants.cold_store, 14, _COLD),
    "cold store, every 10 s": Scenario(plants.cold_store, 7, (_COLD[0], _COLD[2]._replace(day=6)), interval_s=10.0),
    "server": Scenario(plants.server, 28, (*_SERVER, Plan("runaway process", 24, 23.0, 3.0))),
    "server, a job at six": Scenario(
        plants.server, 14, (*_SERVER[:-1], Plan("job missing", 13, 5.0, 3.0, 1.0)), (_JOB,)
    ),
    "greenhouse": Scenario(buildings.greenhouse, 14, _GREENHOUSE),
    "greenhouse, a new sensor": Scenario(
        buildings.greenhouse,
        21,
        tuple(p._replace(day=p.day + 7) for p in _GREENHOUSE),
        (Plan("sensor replaced", 8, 10.0, 24.0 * 60.0, 1.0),),
    ),
    "fridge": Scenario(plants.fridge, 7, _FRIDGE, interval_s=10.0),
    "fridge, every second": Scenario(
        plants.fridge, 2, (Plan("compressor runs on", 1, 20.0, 1.5, 1.0),), interval_s=1.0
    ),
    "pump": Scenario(plants.pump, 21, _PUMP),
    "pump that wears, eight weeks": Scenario(
        plants.pump, 56, (_PUMP[0], _PUMP[1], Plan("bearing wears", 24, 0.0, 24.0 * 32.0, 1.0)), interval_s=300.0
    ),
    "solar": Scenario(buildings.solar, 14, _SOLAR),
    "server, two days": Scenario(plants.server, 2, (Plan("runaway process", 1, 22.0, 1.0, 1.0),)),
}
"""What `make weeks` runs.  Ten machines, 2 to 56 days, a row a second to one in five minutes."""


def record(name: str, seed: int, *, days: float | None = None) -> Recording:
    """Let a machine run.

    Parameters
    ----------
    name : str
        One of ``SCENARIOS``.
    seed : int
        Same seed, same rows.
    days : float, optional
        Only the first so many days of it.
    """
    scenario = SCENARIOS[name]
    rng = np.random.default_rng(seed)
    begin = scenario.monday + scenario.first_day * DAY_S
    end = begin + scenario.days * DAY_S  # where the clock changes, an hour before or after midnight
    faults = _events(scenario, scenario.faults, seed, (begin, end), rng)
    changes = _events(scenario, scenario.changes, seed, (begin, end), rng)
    when = When(begin, scenario.days, scenario.interval_s, (*faults, *changes))
    readings = scenario.machine(when, rng)
    last = end if days is None else min(end, begin + days * DAY_S)
    rows = round((last - begin) / scenario.interval_s)
    return Recording(
        name,
        tuple(readings),
        scenario.interval_s,
        when.timestamps[:rows],
        np.stack([reading[:rows] for reading in readings.values()], axis=1).astype(np.float32),
        tuple(event for event in faults if event.start < last),
        tuple(event for event in changes if event.start < last),
    )


def _events(
    scenario: Scenario, plans: tuple[Plan, ...], seed: int, span: tuple[float, float], rng: np.random.Generator
) -> tuple[Event, ...]:
    """The plans that begin within this span of time, with this seed's strengths and moments."""
    begin, end = span
    grades = tuple(GRADES)
    events = []
    for i, plan in enumerate(plans):
        moved = 0.0 if plan.sharp else float(rng.uniform(-_JITTER_S, _JITTER_S))
        start = scenario.monday + plan.day * DAY_S + plan.hour * 3600.0 + moved
        strength = grades[(seed + i) % len(grades)] if plan.strength is None else plan.strength
        if begin <= start < end:
            events.append(Event(start, min(start + plan.hours * 3600.0, end), plan.kind, strength))
    return tuple(sorted(events, key=lambda event: event.start))
