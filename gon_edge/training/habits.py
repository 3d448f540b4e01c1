"""Habits as rows: which rows of alerts that come again are learned, and what screening must not drop.

`stream.habits` says which alerts repeat each other.  Here their rows are looked at, before they are released for the
next training: a fault that grows from day to day is no habit, and neither is what a person has called a fault.  Rows
of a warm-up have raised no alert yet, so `come_again` finds among the odd ones those that repeat each other.

A person's word stands above all of this: what was called a fault takes its whole habit out of the training rows.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from gon_edge.model.counters import Judged, Rows
from gon_edge.stream.habits import FEWEST, PERIODS, Block, Recurrence, are_alike, look_back, same_time
from gon_edge.training.answers import Span

if TYPE_CHECKING:
    from gon_edge.state.store import Store

_GROWS_AT_ONCE, _GROWS_STEADILY = 1.5, 1.25
"""A habit's newest block is no stronger than its strongest one before by the first; and where every block was stronger
than the one before it, the last is no stronger than the first by the second.  In deviations from the rows before."""

_BEFORE_S = 3600.0
"""Rows before a block that say what was usual: as long as the block, and an hour at most.  Not critical."""

_EXTREME = 0.1
"""A block's deviation is that of its most extreme tenth: an alert lasts longer than what raised it."""

_KEPT = 32
"""Habits kept of each stream, and spans of each, the newest.  Not critical: a stream has a few, and a month is long."""

_TOGETHER_S = 1800.0
_FEWEST_ROWS = 3
"""Odd rows not further apart are one block of a job: screening may find but its begin and its end.  A block of fewer
rows would raise no alert, and is left to screening."""

_THROUGHOUT = 5
"""Parts of the rows, each of which must have a block of the kind, where it comes at no hour.  A fridge drew thrice its
power for one row of each hour: as odd rows, these were left out of every training, and raised 40 alerts in two days.
A judgement: a fault that nobody saw is not there from first to last, again and again."""

_REACH = 5
"""Rows before an odd one that may be what it is called odd for: the longest scale of screening.  What comes throughout
may come every few minutes, and odd rows that are further apart are blocks of their own."""

_MOST_BLOCKS = 300
"""Blocks of odd rows that are compared, those of most rows.  Not critical: ten a day for a month."""

_CAUSE_SHARE = 0.5
"""A feature is a cause of a block of odd rows when it moved so much of what the one that moved most did."""


def learn(store: Store, stream: str, occasions: Sequence[Block], faults: Sequence[Span] = ()) -> str | None:
    """Release the rows of a habit for the next training, and remember it.

    Parameters
    ----------
    store : Store
    stream : str
    occasions : sequence of Block
        The habit's blocks, oldest first.
    faults : sequence of (float, float)
        Spans, Unix seconds, that a person has called a fault.

    Returns
    -------
    str or None
        What was seen, in words; `None` when nothing is learned of it: it grows, a person has called it a fault, or too
        few of its rows are stored.
    """
    spans = [(block.since, block.until) for block in occasions]
    if any(_meet(span, fault) for span in spans for fault in faults):
        return None
    causes = _common(occasions)
    deviations = [found for block in occasions if (found := _deviations(store, stream, block, causes)) is not None]
    if len(deviations) < FEWEST or any(_grows([found[name] for found in deviations]) for name in causes):
        return None
    for span in spans:
        store.release(stream, *span)
    if not _has_hour(occasions):  # nobody would miss it
        return in_words(occasions)
    learned = habits(store, stream)
    same = [habit for habit in learned if any(_meet(one, other) for one in habit.spans for other in spans)]
    whole = sorted({span for habit in same for span in habit.spans} | set(spans))[-_KEPT:]
    newest = Habit(tuple(whole), {name: occasions[-1].causes[name] for name in causes})
    kept = [*(habit for habit in learned if habit not in same), newest][-_KEPT:]
    store.put_state(f"habits/{stream}", [[habit.spans, habit.causes] for habit in kept])
    return in_words(occasions)


def habit_spans(store: Store, stream: str, faults: Sequence[Span] = ()) -> tuple[tuple[Span, ...], tuple[Span, ...]]:
    """Spans, Unix seconds, of a stream's habits: those that are normal, and those of a habit that is none."""
    known = habits(store, stream)
    refused = [habit for habit in known if habit.meets(faults)]
    normal = tuple(span for habit in known if habit not in refused for span in habit.spans)
    return normal, tuple(span for habit in refused for span in habit.spans)


def in_words(occasions: Sequence[Block]) -> str:
    """A habit for a person, in local time.

    Examples
    --------
    >>> nightly = [Block(day * 86400.0, day * 86400.0 + 1200.0, 9.0, {"io": 1, "net": 1}) for day in range(3)]
    >>> in_words(nightly).partition(" at ")[0], in_words(nightly)[-24:]
    ('3 times', ', 20 minutes: io and net')
    """
    newest = occasions[-1]
    names = _common(occasions) or sorted(newest.causes)
    listed = f"{', '.join(names[:-1])} and {names[-1]}" if len(names) > 1 else "".join(names)
    lengths = sorted(block.length_s for block in occasions)
    minutes = max(1, round(lengths[len(lengths) // 2] / 60.0))
    hour = time.strftime("%H:%M", time.localtime(newest.since)) if _has_hour(occasions) else "any hour"
    return f"{len(occasions)} times at {hour}, {minutes} minute{'s' if minutes > 1 else ''}: {listed}"


def _has_hour(occasions: Sequence[Block]) -> bool:
    """Whether all of these blocks began at the same time of the day."""
    return all(same_time(occasions[-1].since - block.since, PERIODS["day"]) for block in occasions)


@dataclass(frozen=True, slots=True)
class Habit:
    """A habit whose rows are learned.

    Attributes
    ----------
    spans : tuple of (float, float)
        Of its occasions until it was learned, Unix seconds, oldest first.
    causes : mapping of str to int
        Features that move in all of them, with 1 for up, -1 for down, 0 where nobody can say.
    """

    spans: tuple[Span, ...]
    causes: Mapping[str, int]

    def meets(self, faults: Sequence[Span]) -> bool:
        """Whether a person has called one of its occasions a fault: then all of it is one."""
        return any(_meet(span, fault) for span in self.spans for fault in faults)


def habits(store: Store, stream: str) -> list[Habit]:
    """The habits of a stream, the newest last."""
    kept = store.state(f"habits/{stream}") or ()
    return [Habit(tuple((float(since), float(until)) for since, until in spans), causes) for spans, causes in kept]


def _meet(one: Sequence[float], other: Sequence[float]) -> bool:
    return one[0] <= other[1] and other[0] <= one[1]


def _common(occasions: Sequence[Block]) -> list[str]:
    """The causes that all blocks have in common."""
    names = set.intersection(*(set(block.causes) for block in occasions))
    return sorted(names)


def _deviations(store: Store, stream: str, block: Block, causes: Sequence[str]) -> Mapping[str, float] | None:
    """How far each cause went from where it was before the block; `None` where the rows are not stored any more."""
    before: dict[str, list[float]] = {name: [] for name in causes}
    within: dict[str, list[float]] = {name: [] for name in causes}
    begin = block.since - min(max(block.length_s, 1.0), _BEFORE_S)
    for chunk in store.chunks(stream, since=begin, include_quarantined=True):
        for name in causes:
            if name in chunk.features:
                column = chunk.values[:, chunk.features.index(name)]
                known = np.isfinite(column) & (chunk.timestamps <= block.until)
                inside = chunk.timestamps >= block.since
                before[name] += column[known & ~inside].tolist()
                within[name] += column[known & inside].tolist()
        if chunk.timestamps[-1] > block.until:  # the chunks after it hold nothing of the block
            break
    if not all(within.values()):
        return None
    found = {}
    for name, values in within.items():
        usual = sorted(before[name] or values)
        values.sort(reverse=block.causes[name] > 0)
        extreme = values[: max(1, int(_EXTREME * len(values)))]
        found[name] = abs(sum(extreme) / len(extreme) - usual[len(usual) // 2])
    return found


def _grows(sizes: Sequence[float]) -> bool:
    """Whether the newest of some deviations is out of bounds of the others."""
    steadily = all(b > a for a, b in itertools.pairwise(sizes))
    return sizes[-1] > _GROWS_AT_ONCE * max(sizes[:-1]) or (steadily and sizes[-1] > _GROWS_STEADILY * sizes[0])


# -- rows that have raised no alert ----------------------------------------------------------------------------------


def come_again(rows: Judged, odd: NDArray[np.bool_], times: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Which rows belong to a block of odd ones that comes again, shape (T,).

    It comes on three days or weeks at least, or throughout the rows: such is the start of a motor that runs every hour.

    Parameters
    ----------
    rows : Judged, shape (T, F)
        Oldest first; NaN where a value is missing.
    odd : ndarray of bool, shape (T,)
    times : ndarray of float64, shape (T,)
        Unix seconds.
    """
    found = np.zeros(len(rows), np.bool_)
    at = np.flatnonzero(odd)
    if len(at) < FEWEST * _FEWEST_ROWS:
        return found
    usual = rows[np.flatnonzero(~odd)]
    centre = np.array([_mean(column) for column in usual.T])
    spread = np.array([float(np.nanstd(column, dtype=np.float64)) or 1.0 for column in usual.T])
    edges = np.linspace(times.min(), times.max(), _THROUGHOUT + 1)[1:-1]

    def throughout(block: Block, blocks: Sequence[Block]) -> Recurrence | None:
        alike = tuple(other for other in blocks if are_alike(block, other))
        parts = set(np.searchsorted(edges, [other.since for other in alike]).tolist())
        return Recurrence("any hour", len(alike), alike) if len(parts) == _THROUGHOUT else None

    apart = np.abs(np.diff(times[at])) > _TOGETHER_S, np.diff(at) > _REACH
    for is_apart, repeats in zip(apart, (look_back, throughout), strict=True):
        parts = np.split(at, np.flatnonzero(is_apart) + 1)
        parts = sorted((part for part in parts if len(part) >= _FEWEST_ROWS), key=len)[-_MOST_BLOCKS:]
        spans = [slice(max(0, int(part[0]) - _REACH), int(part[-1]) + 1) for part in parts]
        blocks = [_odd_block(rows[span], times[span], centre, spread) for span in spans]
        for block in blocks:
            again = repeats(block, blocks)
            if again is None or not again.holds(block.length_s, block.strength):
                continue
            kind = {id(one) for one in (block, *again.blocks)}  # blocks by the hundred: comparing them takes seconds
            for other, span in zip(blocks, spans, strict=True):
                if id(other) in kind:
                    found[span] = True
    return found


def _odd_block(
    rows: Rows,
    times: NDArray[np.float64],
    centre: NDArray[np.float64],
    spread: NDArray[np.float64],
) -> Block:
    moved = np.array([_mean(column) for column in rows.T]) - centre
    moved = np.nan_to_num(moved / spread)
    largest = float(np.abs(moved).max())
    order = np.argsort(-np.abs(moved), kind="stable")
    causes = {str(f): int(np.sign(moved[f])) for f in order if abs(moved[f]) >= _CAUSE_SHARE * largest}
    return Block(float(times[0]), float(times[-1]), largest, causes)


def _mean(column: NDArray[np.float32] | NDArray[np.float64]) -> float:
    known = column[np.isfinite(column)]
    return float(known.mean(dtype=np.float64)) if known.size else 0.0
