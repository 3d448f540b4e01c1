"""Readings that only rise, such as energy meters, uptimes and bytes sent: what is judged of them is their rate.

A counter is never twice where it was, so its level says nothing of what is normal.  Its rate, the difference to the row
before, does.  Training, `detector` and `estimator` take it from here, before anything is scaled; the unit is a row.
Which features are counters is found in the rows that are learned, unless a person has said so.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from fnmatch import fnmatchcase

import numpy as np
from numpy.typing import NDArray

Rows = NDArray[np.float32] | NDArray[np.float64]

_RESET = 0.1
"""A counter that falls to less than this part of where it was has begun anew: a reboot, a new day, an overflow.  Not
critical: it begins at 0, and has little time to rise until the next row."""

_FEWEST_RISES = 20
"""Rises that make a counter.  A judgement: a temperature in the morning may rise a few steps of its resolution in a
warm-up without a fall between; a meter counts this far in an hour or a day."""

_FEWEST_RISES_OF_A_METER = 2
"""Rises that make a counter of a feature whose name says it is one.  A judgement: a meter that counts hundredths of a
kilowatt-hour rises five times in ten minutes at 300 W; one rise may be a set point."""

_METER = re.compile(
    r"(?<![a-z])([ap]?energy|kwh|mwh|wh|total|today|rain|uptime|bytes|octets|packets|pulses|imported|exported|"
    r"consumed|delivered|returned)(?![a-z])"
)
"""Words of a meter's name, in lower case: of its last part, since Tasmota's voltage is ``ENERGY.Voltage``.  A name
alone makes no counter: it must never fall, either."""

_RISING_PARTS = 0.5
_PARTS = 10
"""Share of so many equal parts of the record in which a counter rises.  A judgement: what solar panels yield stands
still at night; a set point that is raised once does not rise for most of the record."""

_RISES_FOR_A_RESET = 50
"""Rises for each time a counter begins anew.  A judgement: a saw tooth is a cycle, and where the machine is in it is
worth knowing; a meter of the day rises at a hundred rows."""


def said(feature: str, counter: Sequence[str], gauge: Sequence[str]) -> bool | None:
    """Whether a person has called a feature a counter, or a gauge; ``None`` where neither.

    Parameters
    ----------
    feature : str
    counter, gauge : sequence of str
        Shell patterns; a gauge goes first.

    Examples
    --------
    >>> [said(name, ["*"], ["temp*"]) for name in ("energy", "temp")], said("flow", [], [])
    ([True, False], None)
    """
    if any(fnmatchcase(feature, pattern) for pattern in gauge):
        return False
    return True if any(fnmatchcase(feature, pattern) for pattern in counter) else None


def rising(
    rows: Rows,
    restart: NDArray[np.bool_],
    features: Sequence[str] = (),
    counter: Sequence[str] = (),
    gauge: Sequence[str] = (),
) -> NDArray[np.bool_]:
    """Which features (F,) of rows (T, F) are counters.

    They never fall, but to begin anew near 0, and they rise often and for most of the record; twice is enough for one
    whose name is a meter's.  NaN is unknown, and so is the step to a row at which ``restart`` (T,) is True.

    Parameters
    ----------
    rows : ndarray, shape (T, F)
    restart : ndarray of bool, shape (T,)
    features : sequence of str, optional
        Names of the F columns.
    counter, gauge : sequence of str, optional
        What a person has said, see `said`.
    """
    found = np.zeros(rows.shape[1], np.bool_)
    for f, column in enumerate(rows.T):
        name = features[f] if features else ""
        forced = said(name, counter, gauge)
        found[f] = _rises(column, restart, _is_meter(name)) if forced is None else forced
    return found


def _is_meter(name: str) -> bool:
    last = next((part for part in reversed(name.lower().split(".")) if not part.isdecimal()), "")
    return _METER.search(last) is not None


def _rises(column: Rows, restart: NDArray[np.bool_], is_meter: bool) -> bool:
    """Whether one feature (T,) does what a counter does."""
    with np.errstate(invalid="ignore"):
        step = np.diff(column)
    step[restart[1:] | ~np.isfinite(step)] = 0.0
    resets = _begins_anew(column[1:], column[:-1]) & (step < 0.0)
    if ((step < 0.0) & ~resets).any():
        return False
    rises = np.flatnonzero(step > 0.0)
    if len(rises) < _RISES_FOR_A_RESET * int(resets.sum()):
        return False
    if is_meter and len(rises) >= _FEWEST_RISES_OF_A_METER:
        return True
    return len(rises) >= _FEWEST_RISES and len(np.unique(rises * _PARTS // len(step))) >= _RISING_PARTS * _PARTS


def rates(now: Rows, before: Rows, is_counter: NDArray[np.bool_]) -> Rows:
    """The values ``now`` (..., F), counters as their difference to ``before`` (..., F).

    NaN where either is unknown, and where a counter fell: it began anew or wrapped, or its device went back to what it
    had saved; how far it had come by then, nobody knows.
    """
    if not is_counter.any():
        return now
    with np.errstate(invalid="ignore"):
        step = now - before
        found: Rows = np.where(is_counter, np.where(step < 0.0, now.dtype.type(np.nan), step), now)
    return found


class Judged:
    """Rows (T, F) with counters as their rates.

    Rates are found when rows are taken out: the rows of a training are in memory once as they came, and there is no
    room for them once more.

    Parameters
    ----------
    rows : ndarray, shape (T, F)
    restart : ndarray of bool, shape (T,)
        True where a row does not follow the one before it.
    is_counter : ndarray of bool, shape (F,)

    Examples
    --------
    >>> import numpy as np
    >>> rows = np.float32([[5.0, 100.0], [5.0, 103.0], [6.0, 1.0]])
    >>> Judged(rows, np.zeros(3, bool), np.array([False, True]))[:].tolist()
    [[5.0, nan], [5.0, 3.0], [6.0, nan]]
    """

    def __init__(self, rows: Rows, restart: NDArray[np.bool_], is_counter: NDArray[np.bool_]) -> None:
        self._rows = rows
        self._restart = restart
        self._is_counter = is_counter
        self.shape = rows.shape

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: NDArray[np.intp] | slice) -> Rows:
        """Those at indices (N,), or in a slice, shape (N, F)."""
        if not self._is_counter.any():
            return self._rows[index]
        chosen = np.arange(len(self._rows))[index]
        begins = (self._restart[chosen] | (chosen == 0))[:, None]
        return rates(self._rows[chosen], np.where(begins, np.float32(np.nan), self._rows[chosen - 1]), self._is_counter)


def _begins_anew(now: Rows, before: Rows) -> NDArray[np.bool_]:
    anew: NDArray[np.bool_] = (now >= 0.0) & (now < _RESET * before)
    return anew
