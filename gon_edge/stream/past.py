"""What an earlier run has stored of a stream's last days, read when it is needed and not before.

A thousand streams with a week of rows each take minutes to be read, and most models do not ask for it: only those that
compare a row with the same hour of other days do (`model.daily`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from gon_edge.model.daily import MOST_FEATURES, DayMemory, is_difference

Part = tuple[NDArray[np.float64], tuple[str, ...], NDArray[np.float32]]
"""Unix seconds (N,), names of the F columns, and values (N, F), NaN where unknown."""


class Past:
    """Fills the memory of a stream's days.

    Parameters
    ----------
    days : DayMemory

    Examples
    --------
    >>> past = Past(DayMemory())
    >>> past.give([(np.array([0.0]), ("flow",), np.float32([[1.0]]))])
    >>> past.recall(), past.recall(), past.waits
    (True, False, False)
    """

    def __init__(self, days: DayMemory) -> None:
        self._days = days
        self._parts: Iterator[Part] | None = None

    @property
    def waits(self) -> bool:
        """Whether there may be more to read."""
        return self._parts is not None

    def give(self, parts: Iterable[Part]) -> None:
        """Take what there is, oldest first; a part is read when it is asked for."""
        self._parts = iter(parts)

    def recall(self) -> bool:
        """Read one part; whether there was one."""
        part = next(self._parts, None) if self._parts is not None else None
        if part is None:
            self._parts = None
            return False
        timestamps, names, values = part
        if len(names) <= MOST_FEATURES:
            self._days.add_past(timestamps, names, values)
        return True

    def recall_for(self, features: Sequence[str]) -> None:
        """Read all that is left, where a model of these features compares rows with those of other days."""
        if self.waits and any(is_difference(name, features) for name in features):
            while self.recall():
                pass
