"""Habits: what raised an alert and comes again, at the same hour of other days, at the same time of the week, or often.

A `Block` is one anomaly that has ended: when it was, how strong, and which features moved which way.  `look_back` says
which earlier blocks a new one repeats.  `Memory` keeps the blocks of one stream and bounds what a repetition may be:
one that is stronger or lasts longer than those before is no repetition.  A fault that lasts is one block, however long,
and never a habit.

Pure: times are Unix seconds of rows.  Only their differences count, so no time zone is needed; a clock change of an
hour between two blocks is allowed for.  Whether rows are learned is decided elsewhere (`training.habits`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from gon_edge.events import Cause, Recurring, RecurringEvery

FEWEST = 3
"""Occasions from which on something is a habit, the newest one included."""

PERIODS: Mapping[RecurringEvery, float] = {"day": 86400.0, "week": 7 * 86400.0}
"""Seconds from one occasion to the next."""

_OFTEN, _OFTEN_DAYS = 4, 7
"""Without a common hour there must be so many occasions, the newest included, on most of the last days.  One more than
with it, since an hour is evidence by itself."""

TOLERANCE_S = 1800.0
"""A block may begin so much earlier or later than the others: jobs wait for each other, and alerts come late."""

CLOCK_CHANGE_S, CLOCK_TOLERANCE_S = 3600.0, 600.0
"""By so much daylight saving time moves a job; blocks an hour apart must agree better, or an hour would always do."""

LONGEST_S = 64800.0
"""A block is no longer than three quarters of a day: what lasts longer has no hour.  The working day of an office, from
when its ventilation starts to when the last room is calm, has fourteen hours."""

_LENGTH_RATIO, _LENGTH_SLACK_S = 2.0, 600.0
"""A repetition lasts at most twice as long as what it repeats, and ten minutes: an alert ends some rows late."""

_STRENGTH_RATIO = 1.5
"""Largest score of a repetition, in largest scores of those before.  Scores are logarithms of energies: half as much
again is a fault several times as large."""

_MAIN_SHARE = 0.1
"""A feature is a cause of a block when it holds so much of the score.  Not critical: causes are compared by halves."""

_KEPT = 100
"""Blocks remembered, the newest.  Not critical: three weeks of five a day, in 15 kB of state."""


@dataclass(frozen=True, slots=True)
class Block:
    """An anomaly that has ended, or that lasts so far.

    Attributes
    ----------
    since, until : float
        Unix seconds.
    strength : float
        The largest score in it.
    causes : mapping of str to int
        The main features, each with 1 where it was above what was expected, -1 below, 0 where nobody can say.
    fault : bool
        Whether a person has said that it was one: nothing that is like it is a habit.
    """

    since: float
    until: float
    strength: float
    causes: Mapping[str, int]
    fault: bool = False

    @property
    def length_s(self) -> float:
        """Seconds from its first row to its last."""
        return self.until - self.since


@dataclass(frozen=True, slots=True)
class Recurrence:
    """What a block repeats.

    Attributes
    ----------
    every : {"day", "week", "any hour"}
    count : int
        Days or weeks on which it was seen, the newest included.
    blocks : tuple of Block
        The earlier ones, oldest first.
    """

    every: RecurringEvery
    count: int
    blocks: tuple[Block, ...]

    @property
    def told(self) -> Recurring:
        """As it stands in an event."""
        return Recurring(self.count, self.blocks[0].since, self.every)

    def holds(self, length_s: float, strength: float) -> bool:
        """Whether a block of that length and strength is within the bounds of those before."""
        lengths = sorted(block.length_s for block in self.blocks)
        strengths = sorted(block.strength for block in self.blocks)
        place = len(self.blocks) // 2 if self.every == "any hour" else -1  # the usual one, or the largest
        longest, strongest = lengths[place], strengths[place]
        return length_s <= _LENGTH_RATIO * longest + _LENGTH_SLACK_S and strength <= _STRENGTH_RATIO * strongest


def directions(causes: Iterable[Cause]) -> dict[str, int]:
    """The main features among the causes of an alert, and which way each has moved."""
    return {
        cause.feature: 0
        if cause.value is None or cause.expected is None
        else int(cause.value > cause.expected) - int(cause.value < cause.expected)
        for cause in causes
        if cause.contribution >= _MAIN_SHARE
    }


def in_words(recurring: Recurring) -> str:
    """How often something was seen, for a person.

    Examples
    --------
    >>> in_words(Recurring(4, 0.0, "day"))
    'seen on 4 days at this hour'
    """
    if recurring.every == "any hour":
        return f"seen on {recurring.count} days at any hour"
    at = "on {} days" if recurring.every == "day" else "in {} weeks"
    return f"seen {at.format(recurring.count)} at this hour"


def look_back(block: Block, earlier: Sequence[Block]) -> Recurrence | None:
    """What a block repeats: blocks at the same time of most days, or of most weeks, on three of them at least.

    Parameters
    ----------
    block : Block
    earlier : sequence of Block
        In any order; blocks that began later are left out.

    Examples
    --------
    >>> nightly = [Block(day * 86400.0 + 7200.0, day * 86400.0 + 8400.0, 9.0, {"io": 1}) for day in range(3)]
    >>> look_back(nightly[2], nightly[:2]).told
    Recurring(count=3, since=7200.0, every='day', learned=False)
    >>> look_back(nightly[1], nightly[:1]) is None
    True
    """
    alike = [other for other in earlier if are_alike(block, other)]
    for every, period_s in PERIODS.items():
        occasions: dict[int, list[Block]] = {}
        for other in alike:
            before = round((block.since - other.since) / period_s)
            if before >= 1 and same_time(block.since - other.since, period_s):
                if other.fault:
                    return None
                occasions.setdefault(before, []).append(other)
        found: tuple[int, int] | None = None
        for count, before in enumerate(sorted(occasions), start=2):
            if count >= FEWEST and 2 * count > before:  # of the last `before + 1` occasions, at least half
                found = count, before
        if found is not None:
            count, oldest = found
            blocks = [other for before, others in occasions.items() if before <= oldest for other in others]
            return Recurrence(every, count, tuple(sorted(blocks, key=lambda other: other.since)))
    return _at_any_hour(block, alike)


def _at_any_hour(block: Block, alike: Sequence[Block]) -> Recurrence | None:
    """What a block repeats at whatever hour: blocks with the same main cause, on most days since the first of them.

    No two of them count that have a common hour: a nightly job says nothing of other hours.
    """
    day_s = PERIODS["day"]
    lately = [
        other
        for other in alike
        if 0.0 < block.since - other.since < _OFTEN_DAYS * day_s and _main(other) == _main(block)
    ]
    days = {int((block.since - other.since) / day_s) for other in lately} | {0}
    hours: list[Block] = []
    for one in (block, *lately):
        if not any(same_time(one.since - other.since, day_s) for other in hours):
            hours.append(one)
    if any(other.fault for other in lately) or len(hours) < _OFTEN or len(days) < FEWEST:
        return None
    if 2 * len(days) <= max(days) + 1:
        return None
    return Recurrence("any hour", len(days), tuple(sorted(lately, key=lambda other: other.since)))


def _main(block: Block) -> tuple[str, int]:
    """The feature that holds most of a block's score, and which way it has moved."""
    return next(iter(block.causes.items()), ("", 0))


def are_alike(block: Block, other: Block) -> bool:
    """Whether two blocks are of one kind, apart from when they were."""
    if max(block.length_s, other.length_s) > LONGEST_S:
        return False
    agree = [block.causes[name] * other.causes[name] >= 0 for name in block.causes.keys() & other.causes.keys()]
    return sum(agree) > len(agree) / 2 and 2 * sum(agree) >= max(len(block.causes), len(other.causes))


def same_time(apart_s: float, period_s: float) -> bool:
    """Whether two moments so far apart are at the same time of a period."""
    off = abs(apart_s - period_s * round(apart_s / period_s))
    return off <= TOLERANCE_S or abs(off - CLOCK_CHANGE_S) <= CLOCK_TOLERANCE_S


class Memory:
    """The blocks of one stream.

    Parameters
    ----------
    state : sequence, optional
        What `state` gave before a restart.

    Raises
    ------
    TypeError, ValueError
        It is something else.
    """

    def __init__(self, state: Iterable[Any] = ()) -> None:
        self._blocks: list[Block] = []
        for since, until, strength, causes, fault in state:
            signs = {str(name): int(sign) for name, sign in causes.items()}
            self._blocks.append(Block(float(since), float(until), float(strength), signs, bool(fault)))

    def look(self, block: Block) -> Recurrence | None:
        """What a block repeats, if it is about as strong and as long as those before at most."""
        if any(other.fault and other.since == block.since for other in self._blocks):
            return None
        found = look_back(block, self._blocks)
        return found if found is not None and found.holds(block.length_s, block.strength) else None

    def add(self, block: Block) -> None:
        """Remember a block that has ended; one that had ended before and went on takes the place of that."""
        same = [other for other in self._blocks if other.since == block.since]
        others = [other for other in self._blocks if other.since != block.since]
        self._blocks = [*others, replace(block, fault=any(other.fault for other in same))][-_KEPT:]

    def lasted(self, block: Block) -> None:
        """Remember what has ended as a change: a block that began it went on until then."""
        begun = next((other for other in self._blocks if other.since == block.since), block)
        self.add(replace(begun, until=block.until))

    def answered(self, since: float, until: float, *, fault: bool) -> None:
        """Hear whether what was between two moments, Unix seconds, was a fault."""
        self._blocks = [
            replace(block, fault=fault) if block.since <= until and since <= block.until else block
            for block in self._blocks
        ]

    def lately(self, since: float) -> tuple[Block, ...]:
        """The blocks that began after a moment, Unix seconds, the strongest first, without confirmed faults."""
        lately = (block for block in self._blocks if block.since > since and not block.fault)
        return tuple(sorted(lately, key=lambda block: -block.strength))

    def occasions(self, since: float) -> tuple[Block, ...]:
        """The block that began then and those it repeats, oldest first; empty when it repeats none."""
        for block in reversed(self._blocks):
            if block.since == since:
                found = self.look(block)
                return () if found is None else (*found.blocks, block)
        return ()

    def state(self) -> list[list[Any]]:
        """Everything it remembers, fit for JSON."""
        return [[b.since, b.until, b.strength, dict(b.causes), b.fault] for b in self._blocks]
