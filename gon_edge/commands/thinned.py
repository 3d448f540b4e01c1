"""Judged rows of one stream, kept as a few hundred columns of a picture.

A column stands for the rows that share a place in the picture.  It keeps the lowest and the highest of them, so nothing
that was high is lost, and memory does not grow with the length of a recording.  Knows nothing of drawing: ``plot``
lays the columns out, ``report`` fills them from stored rows.
"""

from __future__ import annotations

import math
from bisect import insort
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from gon_edge.events import Row, Verdict
from gon_edge.model.counters import rates
from gon_edge.model.detector import SMALLEST_SHARE, Detector
from gon_edge.model.gon import Float

MOST_COLUMNS = 300
"""Columns are joined by twos at twice as many: between them a picture 880 dots wide has one each 1.5 to 3 dots."""

_SILENCE = 60.0
"""Rows this many times further apart than usual do not share a column.  Not critical: a minute of silence
at a row a second is worth showing."""

_STEPS = 99
"""First steps from row to row that say what is usual.  Not critical."""

_LOUDER = 1.25
"""A row of a column is explained when its score is this many times that of the row explained before.  Explaining costs
several times as much as judging; with this factor a climb from 1 to 10 times the threshold is explained ten times."""

_MOST_SILENCES = 200
"""Silences that columns are kept apart for: fewer than `MOST_COLUMNS`, so joining always ends below that."""


@dataclass(slots=True)
class Column:
    """Consecutive rows that share a place in the picture.

    Attributes
    ----------
    first_at, last_at : float
        Unix seconds, or numbers of rows.
    low, high : float
        Of the score.
    threshold : float
    rows, anomalies : int
    missing : ndarray of int, shape (F,)
        Rows in which a feature had no value.
    lowest, highest : ndarray, shape (F,)
        Of the values, in engineering units; NaN where no row had one.
    explained : float
        Score of the row that these belong to:
    share, measured, expected : ndarray, shape (F,)
    """

    first_at: float
    last_at: float
    low: float
    high: float
    threshold: float
    rows: int
    anomalies: int
    missing: NDArray[np.int64]
    lowest: NDArray[np.float32]
    highest: NDArray[np.float32]
    explained: float
    share: NDArray[np.float32]
    measured: NDArray[np.float32]
    expected: NDArray[np.float32]

    def take_in(self, later: Column) -> None:
        """Add the rows of the next column."""
        if later.explained > self.explained:
            self.explained, self.share = later.explained, later.share
            self.measured, self.expected = later.measured, later.expected
        self.first_at, self.last_at = min(self.first_at, later.first_at), max(self.last_at, later.last_at)
        self.low, self.high = min(self.low, later.low), max(self.high, later.high)
        self.rows, self.anomalies = self.rows + later.rows, self.anomalies + later.anomalies
        self.missing += later.missing
        np.fmin(self.lowest, later.lowest, out=self.lowest)
        np.fmax(self.highest, later.highest, out=self.highest)


class Thinned:
    """Judged rows of one stream, as few columns: lowest and highest score, and what made the highest.

    Parameters
    ----------
    features : sequence of str
    rows_expected : int
        Fewer rows work too, and more: columns are joined by twos when there are too many.
    rising : collection of str
        Features that are counters: what is kept of them is their rate, as their model judges them.
    step : float, optional
        From row to row, usually; without, the median of the first steps.

    Attributes
    ----------
    columns : list of Column
        At most twice `MOST_COLUMNS`.
    rows, anomalies : int
    highest, highest_at : float
        The highest score, and where it was.
    """

    def __init__(
        self,
        features: Sequence[str],
        rows_expected: int = 0,
        rising: Collection[str] = (),
        step: float | None = None,
    ) -> None:
        self.features = tuple(features)
        self.columns: list[Column] = []
        self.rows = self.anomalies = 0
        self.highest, self.highest_at = -math.inf, math.nan
        self._step = math.inf if step is None else step
        self._steps: list[float] | None = [] if step is None else None
        self._per_column = max(1, math.ceil(rows_expected / MOST_COLUMNS))
        self._place = {name: f for f, name in enumerate(self.features)}
        self._is_counter = np.array([name in rising for name in self.features], np.bool_)
        self._before = np.full(len(self.features), np.nan, np.float32)
        self._selected: tuple[str, ...] | None = None
        self._select: NDArray[np.intp] | None = None

    def add(self, at: float, row: Row, verdict: Verdict, detector: Detector) -> None:
        """Take the row that `detector` has just judged; it is asked for an account of some.

        Parameters
        ----------
        at : float
            Unix seconds, or the number of the row.
        row : Row
            Its features may stand in any order.
        verdict : Verdict
        detector : Detector
        """
        self.rows += 1
        self.anomalies += verdict.is_anomaly
        if verdict.score > self.highest:
            self.highest, self.highest_at = verdict.score, at
        column = self.columns[-1] if self.columns else None
        if column is None or not self._continues(column, at, verdict):
            column = self._begin(at, verdict, detector)
        elif verdict.is_anomaly and verdict.score > _LOUDER * column.explained:
            column.share, column.measured, column.expected = _account(detector, verdict)
            column.explained = verdict.score
        column.last_at = at
        column.low, column.high = min(column.low, verdict.score), max(column.high, verdict.score)
        column.rows += 1
        column.anomalies += verdict.is_anomaly
        came = self._values(row)
        before = np.full_like(came, np.nan) if row.restart else self._before
        values, self._before = rates(came, before, self._is_counter), came
        np.fmin(column.lowest, values, out=column.lowest)
        np.fmax(column.highest, values, out=column.highest)
        for name in verdict.missing:
            column.missing[self._place[name]] += 1

    def _continues(self, column: Column, at: float, verdict: Verdict) -> bool:
        """Whether a row belongs to the newest column."""
        step = at - column.last_at
        if step > 0.0 and self._steps is not None and len(self._steps) < _STEPS:
            insort(self._steps, step)
            self._step = self._steps[len(self._steps) // 2]  # not the shortest: one odd row would make all others gaps
        full = column.rows >= self._per_column
        return not full and verdict.threshold == column.threshold and 0.0 <= step <= _SILENCE * self._step

    def _begin(self, at: float, verdict: Verdict, detector: Detector) -> Column:
        """Append a column without rows."""
        if len(self.columns) >= 2 * MOST_COLUMNS:
            self._join()
        score, width = verdict.score, len(self.features)
        share, measured, expected = _account(detector, verdict)
        column = Column(
            first_at=at,
            last_at=at,
            low=score,
            high=score,
            threshold=verdict.threshold,
            rows=0,
            anomalies=0,
            missing=np.zeros(width, np.int64),
            lowest=np.full(width, np.nan, np.float32),
            highest=np.full(width, np.nan, np.float32),
            explained=score,
            share=share,
            measured=measured,
            expected=expected,
        )
        self.columns.append(column)
        return column

    def _values(self, row: Row) -> NDArray[np.float32]:
        """Values (F,) of a row in the order of `features`, NaN for one the row lacks."""
        if row.features is not self._selected:  # the same tuple row after row, so this is looked up once
            place = {name: i for i, name in enumerate(row.features)}
            self._selected = row.features
            self._select = np.array([place.get(name, -1) for name in self.features], np.intp)
        assert self._select is not None
        return np.where(self._select < 0, np.float32(np.nan), row.values[self._select])

    def is_counter(self, name: str) -> bool:
        """Whether what is kept of a feature is its rate."""
        return bool(self._is_counter[self._place[name]])

    @property
    def missing(self) -> NDArray[np.int64]:
        """Rows in which each feature (F,) had no value."""
        total = np.zeros(len(self.features), np.int64)
        for column in self.columns:
            total += column.missing
        return total

    def blame(self) -> NDArray[np.float64]:
        """How much each feature (F,) made up of the scores above the threshold, or of all where none is; sums to 1."""
        for above in (True, False):
            total = np.zeros(len(self.features))
            for column in self.columns:
                total += column.share * max(0.0, column.explained - (column.threshold if above else 0.0))
            if (sum_ := float(total.sum())) > 0.0:
                total /= sum_
                break
        return total

    def runs(self) -> list[list[Column]]:
        """Columns that follow each other without a silence of more than a hundredth of all."""
        columns = self.columns
        longest = (columns[-1].last_at - columns[0].first_at) / 100
        steps = sorted(b.first_at - a.last_at for a, b in pairwise(columns))
        usual = steps[len(steps) // 2] if steps else 0.0
        runs = [[columns[0]]]
        for before, column in pairwise(columns):
            step = column.first_at - before.last_at
            if step < 0.0 or step > max(longest, 3.0 * usual):
                runs.append([])
            runs[-1].append(column)
        return runs

    def _join(self) -> None:
        """Halve the columns; those that a silence lies between stay apart, unless there are too many of them."""
        self._per_column *= 2
        span = self.columns[-1].last_at - self.columns[0].first_at
        longest = max(_SILENCE * self._step, span / _MOST_SILENCES)

        def fits(last: Column, column: Column) -> bool:
            joined = last.rows + column.rows <= self._per_column and column.threshold == last.threshold
            return joined and 0.0 <= column.first_at - last.last_at <= longest

        joined: list[Column] = []
        for column in self.columns:
            if joined and fits(joined[-1], column):
                joined[-1].take_in(column)
            else:
                joined.append(column)
        if len(joined) > MOST_COLUMNS + MOST_COLUMNS // 2:
            for last, column in zip(joined[::2], joined[1::2], strict=False):
                last.take_in(column)
            joined = joined[::2]
        self.columns = joined


def _account(detector: Detector, verdict: Verdict) -> tuple[Float, Float, Float]:
    """Shares, values and expected values (F,) of the last row; of one that is anomalous, expected of its causes only.

    The rest is moved, too, towards a window that would be normal as a whole: that is no expectation of it.
    """
    share, measured, expected = (part.astype(np.float32) for part in detector.account())
    if verdict.is_anomaly:
        expected[share <= SMALLEST_SHARE] = np.nan
    return share, measured, expected
