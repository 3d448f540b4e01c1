"""What every made machine is made of: a clock, faults at known times, slow noise, and lags.

Times are Unix seconds; the machines live by the clock of central Europe, which goes forward on the last Sunday in March
and back on the last in October.  Randomness comes in as ``rng``.  This module knows no machine.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating]
Flags = NDArray[np.bool_]

DAY_S = 86_400.0

_SUMMER_TIME = (
    datetime(2026, 3, 29, 1, tzinfo=UTC).timestamp(),
    datetime(2026, 10, 25, 1, tzinfo=UTC).timestamp(),
)
_WINTER_OFFSET_S = 3600.0  # of central Europe, by law; an hour more in summer
_EPOCH_WEEKDAY = 3  # 1 January 1970 was a Thursday; Monday is 0


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened to a machine.

    Attributes
    ----------
    start, end : float
        Unix seconds.
    kind : str
        What it is, in words.
    strength : float
        0.5 is weak, 1 what a person would call a fault, 2 strong.
    """

    start: float
    end: float
    kind: str
    strength: float = 1.0


def offset_s(timestamps: Array) -> Array:
    """By how much the clock on the wall is ahead of UTC at each time (T,), in 2026."""
    summer = (timestamps >= _SUMMER_TIME[0]) & (timestamps < _SUMMER_TIME[1])
    return _WINTER_OFFSET_S + 3600.0 * summer


def midnight(year: int, month: int, day: int) -> float:
    """The first second of a day on the wall clock, as Unix seconds."""
    wall = datetime(year, month, day, tzinfo=UTC).timestamp()
    return wall - float(offset_s(np.array([wall]))[0])


class When:
    """The rows of a machine, and what the clock on the wall shows at each.

    Parameters
    ----------
    begin : float
        Unix seconds of the first row.
    days : float
        How long, in days.
    interval_s : float
        Between rows.
    events : sequence of Event
        What happens to the machine.

    Attributes
    ----------
    timestamps : ndarray, shape (T,)
        Unix seconds.
    hour : ndarray, shape (T,)
        On the wall clock, 0 to 24.
    day, weekday : ndarray of int, shape (T,)
        Of the wall clock: days since the first row's, and 0 for a Monday.
    """

    def __init__(self, begin: float, days: float, interval_s: float, events: Sequence[Event] = ()) -> None:
        self.interval_s = interval_s
        self.timestamps = begin + interval_s * np.arange(round(days * DAY_S / interval_s))
        wall = self.timestamps + offset_s(self.timestamps)
        dates = (wall // DAY_S).astype(np.int64)
        self.hour = wall % DAY_S / 3600.0
        self.day = dates - dates[0]
        self.weekday = (dates + _EPOCH_WEEKDAY) % 7
        self._events = tuple(events)

    def __len__(self) -> int:
        return len(self.timestamps)

    def level(self, kind: str) -> Array:
        """How strong this kind of event is at each row (T,), 0 while there is none."""
        level = np.zeros(len(self))
        for event in self._events:
            if event.kind == kind:
                level[(self.timestamps >= event.start) & (self.timestamps < event.end)] = event.strength
        return level

    def since(self, kind: str) -> Array:
        """Days since an event of this kind began, times its strength, shape (T,); 0 before and after."""
        days = np.zeros(len(self))
        for event in self._events:
            if event.kind == kind:
                on = (self.timestamps >= event.start) & (self.timestamps < event.end)
                days[on] = (self.timestamps[on] - event.start) / DAY_S * event.strength
        return days

    def between(self, start: Array | float, end: Array | float) -> Flags:
        """Whether the hour of each row lies in [start, end); an ``end`` past 24 is of the day after."""
        inside = (self.hour >= start) & (self.hour < end)
        return np.asarray(inside | (self.hour + 24.0 < end), np.bool_)

    def each_day(self, rng: np.random.Generator, spread: float) -> Array:
        """One normal draw of this spread for each day, at every row of it, shape (T,)."""
        drawn: Array = rng.normal(0.0, spread, int(self.day[-1]) + 1)[self.day]
        return drawn

    def noise(self, rng: np.random.Generator, spread: float) -> Array:
        """White noise, shape (T,)."""
        return rng.normal(0.0, spread, len(self))

    def wander(self, rng: np.random.Generator, hours: float, spread: float) -> Array:
        """Slow noise of this memory and spread (an Ornstein-Uhlenbeck process), shape (T,)."""
        keep = math.exp(-self.interval_s / 3600.0 / hours)
        steps = rng.normal(0.0, spread * math.sqrt(1.0 - keep * keep), len(self))
        steps[:1] = rng.normal(0.0, spread)
        out, value = [], 0.0
        for step in steps.tolist():
            value = keep * value + step
            out.append(value)
        return np.array(out)

    def lag(self, target: Array, hours: float) -> Array:
        """What follows ``target`` (T,) as a mass of this time constant does, shape (T,)."""
        weight = 1.0 - math.exp(-self.interval_s / 3600.0 / hours)
        out, value = [], float(target[0])
        for goal in target.tolist():
            value += weight * (goal - value)
            out.append(value)
        return np.array(out)

    def bursts(self, rng: np.random.Generator, per_day: Array | float, minutes: float) -> Flags:
        """Rows within short events that begin by chance, ``per_day`` times a day at each row, shape (T,)."""
        chance = np.broadcast_to(np.asarray(per_day, np.float64), (len(self),)) * self.interval_s / DAY_S
        busy = np.zeros(len(self), np.bool_)
        for first in np.flatnonzero(rng.random(len(self)) < chance):
            length = rng.gamma(4.0, minutes / 4.0) * 60.0 / self.interval_s
            busy[first : first + max(1, round(length))] = True
        return busy


def weather(when: When, rng: np.random.Generator, mean: float = 4.0) -> tuple[Array, Array]:
    """Outdoor temperature in deg C and sunshine from 0 to 1, each (T,): days differ, and so do hours."""
    noon = 13.0  # of the sun, a little after that of the clock
    clouds = np.clip(0.5 + when.each_day(rng, 0.25) + when.wander(rng, 1.0, 0.15), 0.05, 1.0)
    height = np.maximum(0.0, np.cos((when.hour - noon) / 24.0 * 2.0 * np.pi) - 0.15) / 0.85
    sun = height * clouds
    swing = 3.5 * np.cos((when.hour - 15.0) / 24.0 * 2.0 * np.pi) * (0.5 + clouds)
    outdoor = mean + when.wander(rng, 60.0, 3.0) + when.lag(swing, 0.5) + when.wander(rng, 3.0, 0.4)
    return outdoor, sun


def rounded(values: Array, step: float) -> Array:
    """As a sensor of this resolution tells values (T,)."""
    told: Array = np.round(values / step) * step
    return told
