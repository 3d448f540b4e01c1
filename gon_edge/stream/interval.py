"""The interval of a stream's grid, learned from its first readings: the median step of the fastest feature.

Not here: what becomes of those readings once it is known (``align``).
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable
from itertools import pairwise
from typing import NamedTuple

from gon_edge.events import Reading
from gon_edge.stream.columns import Held
from gon_edge.stream.ledger import date

LEARNING_TICKS = 8  # distinct timestamps of the fastest feature before an interval is believed
LEARNING_SPAN_S = 2.0  # ... and the least they span: a broker's backlog arrives within a second, whatever its interval
LEARNING_LIMIT = 64  # timestamps remembered; after half as many that disagree, the median step of all is taken

MIN_INTERVAL_S = 0.01  # 100 rows a second take 0.3 % of a core at 28 us each; faster is a wrong clock
# What people write into device settings, from 10 Hz to an hour.
NICE_INTERVALS_S = (0.1, 0.2, 0.25, 0.5, 1, 2, 5, 10, 15, 20, 30, 60, 120, 300, 600, 900, 1800, 3600)


class Received(NamedTuple):
    """A reading and its two times; the timestamp is the reading's, less what the clock was set by since."""

    timestamp: float
    received_at: float
    reading: Reading

    def shifted(self, delta_s: float) -> Received:
        """Return the reading by a clock that was set by ``delta_s``."""
        return self._replace(timestamp=self.timestamp + delta_s)


class Learning:
    """The first readings, until the interval can be told from them."""

    __slots__ = ("_disagreements", "_first", "_has_news", "_max_features", "_most", "_size", "_timestamps", "readings")

    def __init__(self, max_features: int) -> None:
        self.readings: deque[Received] = deque()
        self._max_features = max_features
        self._size = 0  # values in the readings
        self._first: float | None = None
        self._timestamps: dict[str, deque[float]] = {}  # the last ones of each feature
        self._most = 0  # timestamps of the fastest feature
        self._has_news = False  # it has one not looked at yet
        self._disagreements = 0

    def add(self, received: Received) -> list[Received]:
        """Keep a reading; returns the old ones that had to go."""
        timestamp, _, reading = received
        self.readings.append(received)
        self._size += _size(reading)
        if self._first is None:
            self._first = timestamp
        for name in (*reading.values, *reading.masked):
            known = self._timestamps.get(name)
            if known is None:
                if len(self._timestamps) >= self._max_features:
                    self._forget_one()
                self._timestamps[name] = deque((timestamp,), LEARNING_LIMIT)
            elif abs(timestamp - known[-1]) >= MIN_INTERVAL_S:
                known.append(timestamp)
                if len(known) == LEARNING_LIMIT or len(known) > self._most:
                    self._most = len(known)
                    self._has_news = self._most >= LEARNING_TICKS
        dropped = []
        while self._size > LEARNING_TICKS * self._max_features and len(self.readings) > LEARNING_LIMIT:
            dropped.append(self.readings.popleft())
            self._size -= _size(dropped[-1].reading)
        return dropped

    def _forget_one(self) -> None:
        """Make room for a new name: the one with the fewest timestamps goes, of several the oldest."""
        del self._timestamps[min(self._timestamps, key=lambda name: len(self._timestamps[name]))]

    @property
    def features(self) -> dict[str, Held]:
        """What each feature has said last, and how often it reports so far."""
        newest: dict[str, float] = {}
        for _, _, reading in self.readings:
            newest.update(reading.values)
            for name, reason in reading.masked.items():
                if reason != "text":  # a label, no sensor
                    newest.setdefault(name, math.nan)
        steps = {name: _steps(known) for name, known in self._timestamps.items()}
        return {name: Held(said, _median(gaps) if (gaps := steps.get(name)) else None) for name, said in newest.items()}

    @property
    def waits_for(self) -> str:
        """Why there is no interval yet, in words; empty before the first reading."""
        if not self.readings:
            return ""
        first, last = min(r.timestamp for r in self.readings), max(r.timestamp for r in self.readings)
        if self._most < 2 and len(self.readings) >= LEARNING_TICKS:
            if last - first < MIN_INTERVAL_S:
                return f"the timestamps stand still: {len(self.readings)} readings have the one of {date(last)}"
            return f"no name came twice at different times: {len(self._timestamps)} names so far"
        if self._most < LEARNING_TICKS:
            return f"{max(1, self._most)} of {LEARNING_TICKS} readings that tell how often rows come"
        if last - first < LEARNING_SPAN_S:
            return (
                f"{self._most} readings lie within {last - first:.3g} s, and {LEARNING_SPAN_S:g} s are needed: "
                f"are timestamps near {date(last)} what the device means?"
            )
        return "the steps between readings vary; set interval for this stream if this stays"

    def interval_s(self, *, at_end: bool = False) -> float | None:
        """The interval, once the steps of the fastest feature agree, too many have disagreed, or no more will come."""
        if self._most < 2 or not (self._has_news or at_end):
            return None
        self._has_news = False
        # Only features nearly as frequent count: two messages that happened to follow closely are no interval.
        steps = [_steps(known) for known in self._timestamps.values() if 2 * len(known) >= self._most]
        fastest = min((gaps[1 - LEARNING_TICKS :] for gaps in steps if gaps), key=_median)
        step_s = _median(fastest)
        if at_end:
            return nice_interval(step_s)
        if self._first is None or abs(self.readings[-1].timestamp - self._first) < LEARNING_SPAN_S:
            return None
        if 4 * sum(0.5 * step_s <= gap <= 1.5 * step_s for gap in fastest) >= 3 * len(fastest):
            return nice_interval(step_s)
        self._disagreements += 1
        if self._disagreements < LEARNING_LIMIT // 2:
            return None
        return nice_interval(min(_median(gaps) for gaps in steps if gaps))

    def shift(self, delta_s: float) -> None:
        """Follow the clock behind the timestamps when it is set."""
        self.readings = deque(received.shifted(delta_s) for received in self.readings)
        for name, known in self._timestamps.items():
            self._timestamps[name] = deque([timestamp + delta_s for timestamp in known], LEARNING_LIMIT)
        self._first = None if self._first is None else self._first + delta_s


def nice_interval(seconds: float) -> float:
    """Round to a usual interval where one is within 10 %, else to three significant digits; at least 0.01 s.

    Examples
    --------
    >>> nice_interval(0.98), nice_interval(7.0312)
    (1.0, 7.03)
    """
    nearest = min(NICE_INTERVALS_S, key=lambda nice: abs(math.log(nice / max(seconds, MIN_INTERVAL_S))))
    if abs(seconds - nearest) <= 0.1 * nearest:
        return float(nearest)
    return max(MIN_INTERVAL_S, float(f"{seconds:.3g}"))


def _steps(timestamps: Iterable[float]) -> list[float]:
    """From each timestamp to the next, in order of time."""
    return [later - earlier for earlier, later in pairwise(sorted(set(timestamps)))]


def mean_phase(timestamps: Iterable[float], origin: float, interval_s: float) -> float:
    """Circular mean of the distance from the ticks, in intervals, -0.5 to 0.5: the first reading may be an odd one."""
    angles = [2 * math.pi * math.remainder((t - origin) / interval_s, 1.0) for t in timestamps]
    phase = math.atan2(sum(map(math.sin, angles)), sum(map(math.cos, angles))) / (2 * math.pi)
    return phase if abs(phase) > 0.01 else 0.0


def _size(reading: Reading) -> int:
    return max(1, len(reading.values) + len(reading.masked))


def _median(gaps: Iterable[float]) -> float:
    # `statistics` would import half a megabyte of decimals, and `numpy.median` page in two megabytes of kernels.
    ordered = sorted(gaps)
    half = len(ordered) // 2
    return 0.5 * (ordered[half] + ordered[~half])
