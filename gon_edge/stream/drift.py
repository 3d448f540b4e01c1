"""Which readings drift: slowly, over days, and away from what the other readings of those days say.

A daily mean is predicted from those of the other readings, by ridge regression on the two to three weeks before the
newest week: weather and work move several readings together, and wear moves one away from them.  `outlying` says how
far the newest days are from that, `is_drift` whether it is a drift.  A reading that jumped does not drift, and one that
has risen for weeks as it rises now is as ever.

`DriftWatch` keeps the days of one stream.  A reading that drifts is held against the days before it began, until it is
back or a person says that it is normal: else its own drift would become what is usual.  `alerts` makes news of it.
Pure: timestamps come with the rows, and the same rows give the same drifts.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gon_edge.events import Cause, Trend
from gon_edge.model.daily import DAY_S, local_offset_s
from gon_edge.model.levels import MARGIN
from gon_edge.stream.days import DayMeans, Table, packed, rearranged, unpacked

_WEEK = 7
"""Newest days, which are judged: so that each day of the week is among them."""

_LEAST, _MOST = 14, 21
"""Days to compare with: two weeks at least, or a weekend is news; the newest three at most, as seasons change."""

_NEWEST = 3
_FAR = 5.0
"""The median of the newest three days must lie so many usual errors out, and those of the week on one side.  Of 720
weeks of made machines none was called drifting (docs/detection.md, "Drift")."""

_GROWN = 1.5
"""So many times as far out as the first two of the week: what was as far a week ago does not drift, it has."""

_JUMP = 0.5
"""A day further from the day before than this part of how far the newest are out is a jump.  Without it, two of three
jumps within the range of a day were called drifts (docs/detection.md)."""

_BACK = 0.5
"""A drift is over when the newest days lie within this part of ``_FAR``.  Not critical: a repair brings them near 0."""

_STANDS_DAYS, _STEP = 14, 0.25
"""A drift is over, too, when for so many days it has not gone further by this part of ``_FAR``: a reading that stands
still on a new level does not drift, and nothing is learned of a stream whose drift is open.  A judgement: twice as long
as a week, for which whatever is wrong shall stay told."""

_RIDGE = 1.0
"""Weight of the ridge beside standardised readings.  0.3 and 3 gave the same within a day or two."""

_LEAST_ERROR = 1e-6
"""Smallest usual error believed, as a part of the reading: float32 has 6e-8."""

_SUSPECTS = 5
"""Readings, the furthest, of which each is tried as the one that drifts.  Not critical: two or three are far."""

_STILL = 0.01
"""Of its range in training, within which a reading that goes to the same on each day stands still there: a pump that is
off by night is at 0, and what it gives in a day may fall for ever without that.  Not critical."""

_TOP = 10  # readings in an alert, as many as causes.  Not critical


@dataclass(frozen=True, slots=True)
class Outlying:
    """How far the newest days of a reading are from what the others say.

    Attributes
    ----------
    far : ndarray, shape (7,)
        In usual errors, the oldest first.
    off : ndarray, shape (7,)
        In units of the reading.
    """

    far: NDArray[np.float64]
    off: NDArray[np.float64]

    @property
    def now(self) -> float:
        """How far the newest three days are out, by their median; below 0 where the reading is lower."""
        return float(np.median(self.far[-_NEWEST:]))


def outlying(before: NDArray[np.floating], newest: NDArray[np.floating], reading: int, others: list[int]) -> Outlying:
    """Hold the newest days of a reading against those before, as the other readings predict it.

    Ridge regression in its dual form: of the days and not of the readings, so that it is as quick for hundreds.  A
    usual error is the root mean square of what each day before is off when it is predicted from all the others but
    itself; a day that is unlike those before has a larger one (its leverage).

    Parameters
    ----------
    before : ndarray, shape (N, F)
        Daily means; NaN of another reading counts as its mean.
    newest : ndarray, shape (7, F)
    reading : int
        Its column, without a NaN.
    others : list of int
        Columns to predict from; in ``newest`` without a NaN.
    """
    usual = before[:, reading].astype(np.float64)
    mean = usual.mean()
    x, now = _standardised(before[:, others], newest[:, others])
    days = len(usual)
    gram = x @ x.T  # (N, N)
    inverse = _inverse(gram + _RIDGE * np.eye(days))
    hat = gram @ inverse + 1.0 / days
    weights = inverse @ (usual - mean)
    errors = (usual - mean - gram @ weights) / np.maximum(1.0 - np.diag(hat), 1.0 / days)  # each left out
    error = max(float(np.sqrt((errors**2).mean())), _LEAST_ERROR * abs(mean), float(np.finfo(np.float32).tiny))
    cross = now @ x.T  # (7, N)
    leverage = 1.0 / days + ((now**2).sum(axis=1) - (cross @ inverse * cross).sum(axis=1)) / _RIDGE
    off = newest[:, reading] - mean - cross @ weights
    return Outlying(off / (error * np.sqrt(1.0 + leverage)), off)


def is_drift(far: NDArray[np.float64]) -> bool:
    """Whether newest days so far out (7,), in usual errors, are a drift.

    Examples
    --------
    >>> is_drift(np.array([0.5, 1.0, 2.0, 3.0, 4.5, 6.0, 7.0]))
    True
    >>> is_drift(np.array([0.5, 0.5, 0.1, 0.5, 7.0, 7.0, 7.0]))  # it jumped
    False
    """
    if not ((far > 0.0).all() or (far < 0.0).all()):
        return False
    now = abs(float(np.median(far[-_NEWEST:])))
    first = abs(float(far[:2].mean()))
    return now > _FAR and now > _GROWN * first and float(np.abs(np.diff(far)).max()) <= _JUMP * now


def in_words(cause: Cause) -> str:
    """How a reading drifts, for a person.

    Examples
    --------
    >>> in_words(Cause("temp", 41.0, 38.0, 1.0, trend=Trend(0.5, 45.0, 8.0)))
    'temp 41 (expected 38), rises by 0.5 a day, reaches 45 in about 8 days'
    """
    trend = cause.trend
    assert trend is not None
    assert cause.value is not None
    unit = " a row" if cause.per_row else ""
    text = f"{cause.feature} {cause.value:.4g}{unit} (expected {cause.expected:.4g}), "
    text += f"{'rises' if trend.per_day > 0.0 else 'falls'} by {abs(trend.per_day):.3g} a day"
    if trend.reaches is None or trend.in_days is None:
        return text
    days = round(trend.in_days)
    if days < 1:
        return f"{text}, and is beyond {trend.reaches:.4g}"
    return f"{text}, reaches {trend.reaches:.4g} in about {days} day{'' if days == 1 else 's'}"


class DriftWatch:
    """The days of one stream, and which of its readings drift.

    It takes less than half a KiB for each reading.

    Parameters
    ----------
    offset_s : callable
        By how much the local clock is ahead of UTC at a time in Unix seconds.

    Attributes
    ----------
    since : float
        Unix seconds of the first row of the week in which the open drift was found.
    """

    def __init__(self, offset_s: Callable[[float], float] = local_offset_s) -> None:
        self._days = DayMeans(offset_s)
        self._lowest = self._highest = np.empty(0, np.float32)
        self._counters: frozenset[str] = frozenset()
        self._sides: dict[str, int] = {}  # of readings that drift: 1 above, -1 below
        self._furthest: dict[str, tuple[float, int]] = {}  # how far each has gone, and days since it went there
        self._before = np.empty((0, 0), np.float32)  # the days they are held against, of all readings
        self._is_news = False  # a drift has ended between two rows
        self.since = 0.0

    @property
    def drifting(self) -> frozenset[str]:
        """The readings that drift."""
        return frozenset(self._sides)

    def follow(self, names: tuple[str, ...], counters: Collection[str], lowest: Table, highest: Table) -> None:
        """Take rows of these readings from now on.

        Parameters
        ----------
        names : tuple of str
            Of the F readings.
        counters : collection of str
            Those whose rate is judged.  One that has become a counter, or is none any more, begins anew.
        lowest, highest : ndarray, shape (F,)
            What they went to in training; NaN where unknown.
        """
        self._lowest, self._highest = lowest, highest
        self.forget(self._counters ^ frozenset(counters))
        self._counters = frozenset(counters)
        if names != self._days.names:
            self._before = rearranged(self._before, self._days.names, names)
            self.forget(self._sides.keys() - set(names))
            self._days.follow(names)

    def take(self, timestamp: float, values: NDArray[np.floating], *, counts: bool) -> tuple[Cause, ...] | None:
        """Take one row, and say what drifts.

        Parameters
        ----------
        timestamp : float
            Unix seconds.
        values : ndarray, shape (F,)
            As the model judges them: counters as their rates, NaN where unknown.
        counts : bool
            Whether the row may count: no alert of an anomaly is open on it, for one.

        Returns
        -------
        tuple of Cause, or None
            What drifts, the furthest first, where that has just been found out: at the first row of a day, and where
            a drift was ended by `forget` or `accept`.  ``None`` at all other rows.
        """
        is_over = self._days.take(timestamp, values, counts=counts)
        is_news, self._is_news = self._is_news, False
        if is_over and self._days.known()[-1]:
            return self._judge()
        return () if is_news and not self._sides else None

    def accept(self, since: float, until: float) -> None:
        """Hear that what was between two moments, Unix seconds, is normal: a day of a drift that is open ends it."""
        if self._sides and until - max(since, self.since) >= DAY_S:
            self.forget(self.drifting)

    def forget(self, names: Collection[str]) -> None:
        """Begin anew with these readings: they can drift again when there are three weeks of them."""
        self._days.forget(names)
        self._is_news |= any(name in self._sides for name in names)
        self._end(names)

    def _end(self, names: Collection[str]) -> None:
        self._sides = {name: side for name, side in self._sides.items() if name not in names}
        self._furthest = {name: gone for name, gone in self._furthest.items() if name not in names}
        if not self._sides:
            self._before = np.empty((0, len(self._days.names)), np.float32)

    def _judge(self) -> tuple[Cause, ...] | None:
        """Look at all readings, once a day; ``None`` where nothing is known of those that drift."""
        found: dict[str, Outlying] = {}
        back = []
        for name, side in self._sides.items():
            out = self._hold(name, self.drifting, self._before)
            if out is not None and (side * out.now < _BACK * _FAR or self._stands(name, side * out.now)):
                back.append(name)
            elif out is not None:
                found[name] = out
        if back:
            self._days.forget(back)
            self._end(back)
        known = self._days.known()
        for name, out in self._search().items():
            if not self._sides:
                self._before = self._days.means[known][:-_WEEK][-_MOST:]
                self.since = float(self._days.begins[known][-_WEEK])
            found[name] = out
            self._sides[name] = 1 if out.now > 0.0 else -1
        return self._causes(found) if found or not self._sides else None

    def _stands(self, name: str, now: float) -> bool:
        """Take how far a reading that drifts is today, and say whether it has stood still for long."""
        furthest, days = self._furthest.get(name, (now, 0))
        self._furthest[name] = (now, 0) if now > furthest + _STEP * _FAR else (furthest, days + 1)
        return self._furthest[name][1] >= _STANDS_DAYS

    def _search(self) -> dict[str, Outlying]:
        """Readings that begin to drift.

        What drifts misleads the prediction of others, and they would be blamed with it or in its place.  So the one
        without which the others are least far out is taken, and then predicts nothing, until none of them drifts.
        """
        found: list[str] = []
        looked = self._look(found)
        while any(is_drift(out.far) for out in looked.values()):
            suspects = sorted(looked, key=lambda name: -abs(looked[name].now))[:_SUSPECTS]
            left = {name: self._look([*found, name]) for name in suspects}
            culprit = min(suspects, key=lambda name: sum(out.now**2 for out in left[name].values()))
            found.append(culprit)
            looked = left[culprit]
        held = {name: self._hold(name, {*found, *self._sides}) for name in found}
        return {name: out for name, out in held.items() if out is not None and is_drift(out.far)}

    def _look(self, without: Collection[str]) -> dict[str, Outlying]:
        """Readings that are not known to drift, predicted from such; some are left out."""
        gone = {*without, *self._sides}
        held = {name: self._hold(name, gone) for name in self._days.names if name not in gone}
        return {name: out for name, out in held.items() if out is not None}

    def _hold(self, name: str, without: Collection[str], before: Table | None = None) -> Outlying | None:
        """Hold a reading's newest days against those before; ``None`` where there are too few, or none of today."""
        days, column = self._days, self._days.names.index(name)
        means = days.means[days.known()]
        mine = means[np.isfinite(means[:, column])]
        if len(mine) < _WEEK or not np.isfinite(means[-1, column]):
            return None
        newest = mine[-_WEEK:]
        before = mine[:-_WEEK][-_MOST:] if before is None else before[np.isfinite(before[:, column])]
        if len(before) < _LEAST:
            return None
        usable = np.isfinite(newest).all(axis=0) & (np.isfinite(before).sum(axis=0) >= _LEAST)
        others = [f for f in np.flatnonzero(usable).tolist() if f != column and days.names[f] not in without]
        return outlying(before, newest, column, others)

    def _causes(self, found: Mapping[str, Outlying]) -> tuple[Cause, ...]:
        """What there is to say of readings that drift, the furthest first."""
        total = sum(abs(out.now) for out in found.values())
        furthest = sorted(found, key=lambda name: -abs(found[name].now))[:_TOP]
        return tuple(self._cause(name, found[name], abs(found[name].now) / total) for name in furthest)

    def _cause(self, name: str, out: Outlying, share: float) -> Cause:
        days, column = self._days, self._days.names.index(name)
        mine = np.flatnonzero(days.known() & np.isfinite(days.means[:, column]))[-_WEEK:]
        now = float(np.median(days.means[mine[-_NEWEST:], column]))
        per_day = _slope(days.numbers[mine], out.off)
        expected = now - float(np.median(out.off[-_NEWEST:]))
        trend = Trend(per_day, *self._limit(column, mine, self._sides[name], per_day))
        return Cause(name, now, expected, share, per_row=name in self._counters, trend=trend)

    def _limit(
        self, column: int, days: NDArray[np.intp], side: int, per_day: float
    ) -> tuple[float | None, float | None]:
        """The end of its range to which a reading drifts, and in how many days it is there; ``None`` where unknown.

        The range is that of training as `gon_edge.model.levels` takes it: a reading beyond it has left its place.  A
        pump that runs a quarter of the time has a mean that rises by a quarter of what its reading does, so the steeper
        counts of the mean and of what the reading goes to on a day.
        """
        width = float(self._highest[column] - self._lowest[column])
        extreme, edges = (self._highest, self._days.highs) if side > 0 else (self._lowest, self._days.lows)
        limit = float(extreme[column]) + side * MARGIN * width
        edge = edges[days, column].astype(np.float64)
        if not np.isfinite(limit) or np.ptp(edge) <= _STILL * width:
            return None, None
        ahead = side * (limit - float(np.median(edge[-_NEWEST:])))
        if ahead <= 0.0:
            return limit, 0.0
        rate = max(side * per_day, side * _slope(self._days.numbers[days], edge))
        return (limit, ahead / rate) if side * per_day > 0.0 else (None, None)

    def state(self) -> dict[str, Any]:
        """Return what the next `DriftWatch` goes on from, fit for JSON."""
        return {
            "days": self._days.state(),
            "counters": sorted(self._counters),
            "sides": dict(self._sides),
            "furthest": {name: list(gone) for name, gone in self._furthest.items()},
            "before": [len(self._before), packed(self._before)],
            "since": self.since,
            "is_news": self._is_news,
        }

    def resume(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state` returned, with the readings that are followed now.

        Raises
        ------
        KeyError, TypeError, ValueError, AttributeError
            It cannot be understood.
        """
        names, counters = self._days.names, self._counters
        days = DayMeans(self._days.offset_s)
        days.resume(state["days"])
        rows, table = state["before"]
        before = unpacked(table, len(days.names), int(rows))
        sides = {str(name): int(side) for name, side in state["sides"].items()}
        furthest = {str(name): (float(far), int(days)) for name, (far, days) in state.get("furthest", {}).items()}
        self._counters = frozenset(state["counters"])
        self.since, self._is_news = float(state["since"]), bool(state["is_news"])
        self._days, self._before, self._sides, self._furthest = days, before, sides, furthest
        self.follow(names, counters, self._lowest, self._highest)


def _standardised(
    before: NDArray[np.floating], newest: NDArray[np.floating]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Other readings (N, P) and (7, P), each by its mean and deviation before; NaN before is the mean."""
    known = np.isfinite(before)
    count = np.maximum(known.sum(axis=0), 1)
    mean = np.where(known, before, 0.0).sum(axis=0, dtype=np.float64) / count
    centred = np.where(known, before - mean, 0.0)
    deviation = np.sqrt((centred**2).sum(axis=0) / count)
    moves = deviation > _LEAST_ERROR * np.abs(mean)
    scale = np.where(moves, deviation, 1.0)
    return centred * moves / scale, (newest - mean) * moves / scale


def _inverse(matrix: NDArray[np.float64]) -> NDArray[np.float64]:
    """Inverse of a symmetric matrix (N, N) whose eigenvalues are 1 and more.

    Gauss-Jordan without pivots, which such a matrix does not need: the daemon has no LAPACK, whose pages cost 1 MiB.
    """
    days = len(matrix)
    both = np.hstack([matrix, np.eye(days)])
    for i in range(days):
        both[i] /= both[i, i]
        factors = both[:, i].copy()
        factors[i] = 0.0
        both -= factors[:, None] * both[i]
    return both[:, days:]


def _slope(days: NDArray[np.int64], off: NDArray[np.float64]) -> float:
    """By how much a day values (7,) rise: the median of the slopes between any two (Theil-Sen)."""
    i, j = np.triu_indices(len(off), 1)
    return float(np.median((off[j] - off[i]) / (days[j] - days[i])))
