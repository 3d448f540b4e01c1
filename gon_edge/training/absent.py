"""What comes every day and has not come today: the nightly backup that did not run.

A habit that is learned raises no alert any more, so that nobody would miss it.  Once a day, when it is surely over, its
features are looked up in the stored rows around its hour: of today, and of each of the seven days before.  It is absent
when it came on all of those and its features have hardly moved today.  So a job of working days is missed on none of
its weekends, and a habit that fades away is missed once.

Pure but for the store it reads: no clock, no alert.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from gon_edge.events import Cause
from gon_edge.state.store import Store
from gon_edge.stream.habits import PERIODS, Block
from gon_edge.training.habits import EXTREME, Habit, extremes

_DAY_S = PERIODS["day"]
_DAYS = 7  # all of them, so that the same weekday is among them

_AROUND_S = 5400.0
"""Half an hour that a job may be early or late, and the hour by which daylight saving time moves it."""

_CAME, _ABSENT = 0.5, 0.5
"""A day on which its features went half as far as usual has seen the habit; one is absent when they went less than half
as far as on the least of those days.  Not critical: a job of the made server moved them by twenty deviations."""


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
    """When the newest occasion of a habit began that was over by ``now`` and not yet by ``looked``, Unix seconds."""
    since, until = habit.spans[-1]
    over = until + _AROUND_S
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
    begin, end = habit.spans[-1]
    days: list[dict[str, tuple[float, float]]] = []
    for before in range(_DAYS + 1):
        at = since - before * _DAY_S
        block = Block(at - _AROUND_S, at + end - begin + _AROUND_S, 0.0, habit.causes)
        part = EXTREME * (end - begin) / (end - begin + 2.0 * _AROUND_S)
        found = extremes(store, stream, block, habit.causes, part=part)
        if found is None:
            return None  # not all of these days are known
        days.append(dict(found))
    causes = _missed(days, habit.causes)
    return Absent(since, since - _DAYS * _DAY_S, _DAYS, causes) if causes else None


def _missed(days: Sequence[dict[str, tuple[float, float]]], directions: Mapping[str, int]) -> tuple[Cause, ...]:
    """The features that moved on every day but today, the first; empty unless that is so of all of them."""
    shares = {}
    for name in directions:
        today, *others = (abs(extreme - usual) for extreme, usual in (day[name] for day in days))
        usually = sorted(others)[len(others) // 2]
        if min(others) < _CAME * usually or today >= _ABSENT * min(others):
            return ()
        shares[name] = (usually - today) / usually if usually else 0.0
    total = sum(shares.values())
    if not total:
        return ()
    expected = {name: sorted(day[name][0] for day in days[1:])[_DAYS // 2] for name in shares}
    return tuple(Cause(name, days[0][name][0], expected[name], share / total) for name, share in shares.items())
