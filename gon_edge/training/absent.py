"""What comes every day and has not come today: the nightly backup that did not run.

A habit that is learned raises no alert any more, so that nobody would miss it.  Once a day, when it should have begun,
its features are looked up in the stored rows around its hour: of today, and of each of the seven days before.  A job
shows by how its features jump at its beginning, or by where they are at its usual time, as other work may end there.
It is absent when a feature showed it on each of the days before and hardly shows it today.  So a job of working days is
missed on none of its weekends, and a habit that fades away is missed once.

Pure but for the store it reads: no clock, no alert.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from gon_edge.events import Cause
from gon_edge.state.store import Store
from gon_edge.stream.habits import CLOCK_CHANGE_S, CLOCK_TOLERANCE_S, PERIODS, same_time
from gon_edge.training.habits import Habit

_DAY_S = PERIODS["day"]
_DAYS = 7  # all of them, so that the same weekday is among them

_AROUND_S = CLOCK_CHANGE_S + CLOCK_TOLERANCE_S
"""A job may begin so much earlier or later than ever: by the clock change, if that was in between."""

LONGEST_JOB_S = 21600.0
"""What lasts for more than a quarter of a day is a state and no job: it comes and goes as the weather does."""

_BEGINNING, _LONGEST_BEGINNING_S = 0.25, 900.0
"""The first quarter of a job, and a quarter of an hour of it at most, is looked at.  Not critical: an alert lasts some
times as long as what raised it, so that its first quarter is of the job itself."""

_QUIET = 0.25
"""Quantile of the rows around its hour that a job is held against at its usual time.  Not critical: a job is shorter
than the rows around it, and longer work fills less than three quarters of them."""

_CAME, _ABSENT = 0.5, 0.5
"""A day on which a feature went half as far as usual has seen the job; it is absent when the feature went less than
half as far as on the least of those days.  Not critical: a job of the made server moved them by twenty deviations."""

_CLEAR = 5.0
"""On each of the days before it went so many times as far as features usually jump at that time of day: noise has a
largest jump every day, too, of three to four times that."""


@dataclass(frozen=True, slots=True)
class Absent:
    """A habit that did not come.

    Attributes
    ----------
    since : float
        Unix seconds at which it would have begun.
    first : float
        When it began on the first of the days that are compared.
    days : int
        On so many days it came.
    causes : tuple of Cause
        What moves in it: how far it went today, and how far it usually goes.
    """

    since: float
    first: float
    days: int
    causes: tuple[Cause, ...]


def due(habit: Habit, looked: float, now: float) -> float | None:
    """When the newest occasion of a habit should have begun, Unix seconds, where ``looked`` was too early to say.

    ``None`` where none is due between that and ``now``.
    """
    since, until = habit.spans[-1]
    if until - since > LONGEST_JOB_S:
        return None
    over = since + _AROUND_S + _beginning_s(habit)
    days = (now - over) // _DAY_S
    return since + days * _DAY_S if days >= 1 and looked < over + days * _DAY_S else None


def absent(store: Store, stream: str, habit: Habit, since: float) -> Absent | None:
    """Whether a habit that should have begun at ``since``, Unix seconds, did not come; its rows are stored.

    Parameters
    ----------
    store : Store
    stream : str
    habit : Habit
    since : float
        As `due` gives it.
    """
    days: dict[str, list[_Shown]] = {name: [] for name in habit.causes}  # today first
    for before in range(_DAYS + 1):
        found = _all_shown(store, stream, habit, since - before * _DAY_S)
        for name in [*days]:
            if name in found:
                days[name].append(found[name])
            else:
                del days[name]  # not all of these days are known
    causes = _missed(days)
    return Absent(since, since - _DAYS * _DAY_S, _DAYS, causes) if causes else None


class _Shown(NamedTuple):
    """How far a feature went on a day, where it was at the usual time, and by how much it usually jumps around it."""

    size: float
    level: float
    usual: float


def _beginning_s(habit: Habit) -> float:
    since, until = habit.spans[-1]
    return min(_BEGINNING * (until - since), _LONGEST_BEGINNING_S)


def _all_shown(store: Store, stream: str, habit: Habit, at: float) -> dict[str, _Shown]:
    """How the features of a habit show it around a time, Unix seconds; without those that nobody knows."""
    length = _beginning_s(habit)
    begin, end = at - _AROUND_S - length, at + _AROUND_S + length
    times: dict[str, list[NDArray[np.float64]]] = {name: [np.empty(0)] for name in habit.causes}
    values: dict[str, list[NDArray[np.float64]]] = {name: [np.empty(0)] for name in habit.causes}
    for chunk in store.chunks(stream, since=begin, include_quarantined=True):
        for name in habit.causes:
            if name in chunk.features:
                column = chunk.values[:, chunk.features.index(name)].astype(np.float64)
                known = np.isfinite(column) & (chunk.timestamps <= end)
                times[name].append(chunk.timestamps[known])
                values[name].append(column[known])
        if chunk.timestamps[-1] > end:  # the chunks after it hold nothing of the day
            break
    found = {}
    for name, way in habit.causes.items():
        shown = _shown(np.concatenate(times[name]), np.concatenate(values[name]), at, length, way)
        if shown is not None:
            found[name] = shown
    return found


def _shown(
    times: NDArray[np.float64], values: NDArray[np.float64], at: float, length: float, way: int
) -> _Shown | None:
    """How far values (N,) jump, from the ``length`` seconds before to those after, where a job may begin.

    Or how far they are from quiet ones at its usual time, where that is further.
    """
    first, begin, last = (np.searchsorted(times, times + shift) for shift in (-length, 0.0, length))
    total = np.concatenate([[0.0], np.cumsum(values)])
    off = np.abs(times - at)
    whole = (begin > first) & (off <= _AROUND_S)
    if not whole.any():
        return None
    first, begin, last, off = first[whole], begin[whole], last[whole], off[whole]
    level = (total[last] - total[begin]) / (last - begin)
    jump = level - (total[begin] - total[first]) / (begin - first)
    sizes = np.abs(jump) if way == 0 else way * jump
    allowed = np.array([same_time(apart, _DAY_S) for apart in off.tolist()], np.bool_)
    if not allowed.any():
        return None
    here = float(level[off.argmin()])
    away = way * (here - float(np.quantile(values, _QUIET if way > 0 else 1.0 - _QUIET)))
    size = max(float(sizes[allowed].max()), away)
    return _Shown(size, here, float(np.median(np.abs(jump))))


def _missed(days: Mapping[str, list[_Shown]]) -> tuple[Cause, ...]:
    """The features that showed it on every day but today, the first of the days."""
    shares, levels = {}, {}
    for name, (today, *others) in days.items():
        sizes = sorted(other.size for other in others)
        usually = sizes[len(sizes) // 2]
        is_clear = sizes[0] >= max(_CAME * usually, _CLEAR * max(other.usual for other in others))
        if is_clear and usually > 0.0 and today.size < _ABSENT * sizes[0]:
            shares[name] = (usually - today.size) / usually
            levels[name] = sorted(other.level for other in others)[len(others) // 2]
    total = sum(shares.values())
    return tuple(Cause(name, days[name][0].level, levels[name], share / total) for name, share in shares.items())
