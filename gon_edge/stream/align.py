"""Asynchronous readings to rows on a regular time grid: hold, staleness, late data, gaps, clock steps.

Pure: there is no clock in here.  Two times come in as arguments and must not be mixed up: a reading's ``timestamp``
(Unix seconds, by the clock of whoever made it, which may be wrong, stand in 1970 or jump) and ``received_at``
(monotonic seconds of this machine, which never jumps).  Where the two run at the same pace the stream is *live*: only
then does the passing of monotonic time make rows (`Aligner.advance`), and only then can a clock that was set be told
from a silence.

A reading belongs to the nearest tick of the grid.  The tick is emitted as a `Row`

- as soon as every feature that is not stale was heard in it (only with ``lateness_s == 0``), or
- when a reading of a later tick is ``lateness_s`` past it, or
- when a live stream's time has passed it by ``lateness_s`` or half an interval, whichever is longer, if anything was
  heard in it.

A silence of the whole stream makes no rows: nothing is known of it yet, and if it was the network that failed, the
readings are kept by the broker and come in their order when it is back.  Once the stream goes on, the ticks between are
rows with held values, up to ``max_gap_s``.

A reading whose tick has been emitted is late: counted, and no row shows it, but where it is the newest of its feature
it becomes the held value.  A reading far off the time line (ahead of it without the time having passed, or behind it)
is set aside until the next ones say what happened: one wrong timestamp, a gap, or a clock that was set.

What else changes with this module: ``daemon`` (calls it), `gon_edge.events.Row` (what it promises).
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from gon_edge.events import Reading, Row

LEARNING_TICKS = 8  # distinct timestamps of the fastest feature before an interval is believed
LEARNING_SPAN_S = 2.0  # ... and the least they span: a broker's backlog arrives within a second, whatever its interval
LEARNING_LIMIT = 64  # timestamps remembered; after half as many that disagree, the median step of all is taken

MIN_INTERVAL_S = 0.01
NICE_INTERVALS_S = (0.1, 0.2, 0.25, 0.5, 1, 2, 5, 10, 15, 20, 30, 60, 120, 300, 600, 900, 1800, 3600)
HOLD_CADENCES = 5  # a feature is stale after this many of its own cadences, and never before as many intervals
MAX_FILLERS = 10_000  # held rows in one gap, and ticks that may wait for late readings: bounds memory
STEP_TICKS = 5  # timestamps this many intervals ahead of the time that passed did not get there by jitter
STEP_BACK_TICKS = (
    1.5  # span, in intervals, of the three or more readings behind the time line that prove a clock set back
)
REPLAY_BACK_TICKS = 15.0  # the same at any pace: sixteen ticks in a row behind are a replay started over
PHASE_GAIN = 1 / 16  # of the running mean of how far readings are from their ticks
PACE_SAMPLES = 16  # ticks over which liveness is judged

_MASKED = (-math.inf, math.nan)  # a feature heard in a tick, but without a value


class Aligner:
    """One stream's readings to rows on a regular grid.

    Every reading given to `add` ends up in exactly one of `accepted` and `late`; until that is decided (while the
    interval is learned, or while a reading off the time line is set aside) it is counted by `undecided`.

    Parameters
    ----------
    stream : str
    interval_s : float, optional
        Seconds between rows.  By default learned from the first readings: the median step of the fastest feature,
        rounded to a usual value within 10 %.  The readings seen meanwhile become rows too.
    max_hold_s : float, optional
        Age in seconds at which a value is stale.  By default five times the feature's own cadence and at least five
        intervals; a feature heard once only is held for ``max_gap_s``.
    lateness_s : float
        Seconds a row waits for readings that come out of order.
    max_gap_s : float, optional
        The longest silence, in seconds, bridged with held rows; after a longer one the first row has ``restart`` set.
        Default: 60 s or ten intervals, whichever is longer.  Never more than `MAX_FILLERS` intervals.
    max_features : int
        Features beyond are ignored, and counted in `ignored`.

    Attributes
    ----------
    interval_s : float or None
        ``None`` while it is learned.
    accepted, late : int
        Readings that rows show, and that came too late to be shown.
    clock_steps : int
        Times the clock behind the timestamps was set, and the grid followed.
    ignored : int
        Values, not readings, past ``max_features``.
    last_timestamp : float or None
        Newest timestamp of the time line, Unix seconds.

    Examples
    --------
    >>> aligner = Aligner("pump", interval_s=1.0)
    >>> rows = [row for t in range(3) for row in aligner.add(Reading("pump", 100.0 + t, {"flow": t}), received_at=t)]
    >>> [(row.timestamp, row.values.tolist(), row.restart) for row in rows]
    [(100.0, [0.0], True), (101.0, [1.0], False), (102.0, [2.0], False)]
    """

    def __init__(
        self,
        stream: str,
        *,
        interval_s: float | None = None,
        max_hold_s: float | None = None,
        lateness_s: float = 0.0,
        max_gap_s: float | None = None,
        max_features: int = 500,
    ) -> None:
        for name, seconds in (("interval_s", interval_s), ("max_hold_s", max_hold_s), ("max_gap_s", max_gap_s)):
            if seconds is not None and not 0 < seconds < math.inf:
                raise ValueError(f"{name} must be a positive number of seconds, not {seconds}")
        if not 0 <= lateness_s < math.inf:
            raise ValueError(f"lateness_s must be a number of seconds from 0, not {lateness_s}")
        self.stream = stream
        self.accepted = 0
        self.late = 0
        self.clock_steps = 0
        self.ignored = 0
        self.interval_s: float | None = None
        self.last_timestamp: float | None = None
        self._max_hold_s = max_hold_s
        self._lateness_s = lateness_s
        self._max_gap_s = max_gap_s
        self._max_features = max_features

        # Columns: parallel lists, because most updates touch a few of them and a row is built once.
        self._columns: dict[str, int] = {}
        self._features: tuple[str, ...] = ()
        self._values: list[float] = []
        self._seen: list[float] = []  # timestamp of the value, -inf when there is none
        self._cadence: list[float] = []
        self._gaps: list[int] = []  # how many steps the cadence rests on, up to 4
        self._hold: list[float] = []
        self._stale: list[bool] = []  # as of the last row
        self._awaited: set[int] = set()  # columns not stale: a tick is complete when all of them were heard

        # The grid: tick k is at origin + k * interval.  `_set_interval` and `_begin_segment` say what these mean.
        self._interval_s = self._gap_s = self._step_s = self._patience_s = math.nan
        self._origin = self._phase = 0.0
        self._next = 0
        self._is_first = True
        self._last_received_at = -math.inf

        self._learning: _Learning | None = _Learning(max_features)
        self._set_aside: list[_Received] = []
        self._ticks: dict[int, _Tick] = {}
        self._pace = _Pace()
        if interval_s is not None:
            self._set_interval(interval_s)

    # What a status page shows.

    @property
    def features(self) -> tuple[str, ...]:
        """Names of the columns; the same object as long as there is no new one."""
        if len(self._features) != len(self._columns):
            self._features = tuple(self._columns)
        return self._features

    @property
    def undecided(self) -> int:
        """Readings of which it is not known yet whether they are accepted or late."""
        return len(self._set_aside) + (len(self._learning.readings) if self._learning else 0)

    @property
    def is_live(self) -> bool:
        """Whether timestamps and time of receipt run at the same pace."""
        return self._pace.is_live

    # Readings and time in, rows out.

    def add(self, reading: Reading, received_at: float) -> list[Row]:
        """Take one reading.

        Parameters
        ----------
        reading : Reading
            With a timestamp: readings that carry none get the wall time of their receipt from the caller.
        received_at : float
            Monotonic seconds at which it arrived.

        Returns
        -------
        list of Row
            The rows it completed, oldest first; their arrays are the caller's to keep.
        """
        if reading.timestamp is None:
            raise ValueError("a reading needs a timestamp; use the wall time of its receipt where it carries none")
        received = _Received(reading.timestamp, received_at, reading)
        rows: list[Row] = []
        if self._learning is None:
            self._take(received, rows)
        else:
            self.late += self._learning.add(received)
            interval_s = self._learning.interval_s()
            if interval_s is not None:
                self._learned(interval_s, rows)
        return rows

    def advance(self, received_by: float) -> list[Row]:
        """Let time pass: every reading received by ``received_by`` (monotonic seconds) has been added.

        Emits the rows that are due in a live stream, up to the newest tick in which anything was heard.  A stream that
        is not live (a replay, a device that uploads in batches) gets rows from its readings alone.  Don't call it with
        readings still queued: they would be late.
        """
        rows: list[Row] = []
        if self._learning is not None or self.last_timestamp is None:
            return rows
        silence_s = received_by - self._last_received_at
        if self._set_aside and received_by - self._set_aside[-1].received_at > self._gap_s:
            self._judge_set_aside(rows)
        if not self._pace.is_live:
            if silence_s > self._gap_s:
                self._finish_segment(rows)
            return rows
        now = self._pace.slowest(received_by)
        # A reading set aside is explained by those that follow it within three intervals.
        patience_s = self._patience_s + (3 * self._interval_s if self._set_aside else 0.0)
        passed = math.floor((now - self._origin - patience_s) / self._interval_s - self._phase)
        last = min(passed, max(self._ticks, default=self._next - 1))
        while self._next <= last:
            rows.append(self._emit(received_by))
        return rows

    def shift(self, delta_s: float) -> None:
        """Follow the wall clock when it is set by ``delta_s``, for a stream stamped with the time of receipt."""
        self.clock_steps += 1
        if self._learning is not None:
            self._learning.shift(delta_s)
        self._set_aside = [received.shifted(delta_s) for received in self._set_aside]
        if self.last_timestamp is not None:
            self._shift(delta_s)

    def flush(self) -> list[Row]:
        """Emit what is left at the end of a recording, even a single reading, whose interval cannot be known."""
        rows: list[Row] = []
        if self._learning is not None and self._learning.readings:
            self._learned(self._learning.interval_s(at_end=True) or 1.0, rows)
        self._judge_set_aside(rows)
        self._finish_segment(rows)
        return rows

    # The interval.

    def _set_interval(self, interval_s: float) -> None:
        self.interval_s = self._interval_s = interval_s
        self._gap_s = min(self._max_gap_s or max(60.0, 10 * interval_s), MAX_FILLERS * interval_s)
        lateness_s = min(self._lateness_s, MAX_FILLERS * interval_s)
        self._step_s = min(STEP_TICKS * interval_s, self._gap_s) + lateness_s
        self._patience_s = max(lateness_s, interval_s / 2)
        self._learning = None

    def _learned(self, interval_s: float, rows: list[Row]) -> None:
        assert self._learning is not None
        readings = list(self._learning.readings)
        self._set_interval(interval_s)
        timestamps = [received.timestamp for received in readings]
        if max(timestamps) - min(timestamps) <= self._gap_s:
            # Nothing has been emitted, so order costs nothing.  (Over a longer span the clock may have been set
            # meanwhile; then the order of arrival is what tells.)
            readings.sort(key=lambda received: received.timestamp)
        self._take(readings[0], rows)
        self._phase = _mean_phase(timestamps, readings[0].timestamp, interval_s)
        for received in readings[1:]:
            self._take(received, rows)

    # The time line: does a reading continue it?

    def _take(self, received: _Received, rows: list[Row]) -> None:
        timestamp = received.timestamp
        if self.last_timestamp is None:
            self._begin_segment(timestamp)
            self._place(received, rows)
            return
        if self._set_aside and self._set_aside[0].timestamp > self.last_timestamp:
            # One reading waits that was far ahead.  A second one there proves it right, any other proves it wrong.
            if timestamp >= self._set_aside[0].timestamp - self._interval_s / 2:
                self._leap(rows)
            else:
                self._drop_set_aside()
        ahead_s = timestamp - self.last_timestamp
        if ahead_s > self._step_s:
            is_live = self._pace.is_live
            elapsed_s = received.received_at - self._last_received_at
            if ahead_s - elapsed_s > self._step_s if is_live else ahead_s > self._gap_s:
                self._drop_set_aside()
                self._set_aside.append(received)
                return
            if ahead_s > self._gap_s:  # as long as it was silent
                self._drop_set_aside()
                self._finish_segment(rows)
                self._begin_segment(timestamp)
        self._place(received, rows)

    def _look_behind(self, received: _Received, rows: list[Row]) -> None:
        """Set aside a reading at or before what has been emitted: late, or the first after a clock was set back."""
        assert self.last_timestamp is not None
        if self._set_aside:
            step_s = received.timestamp - self._set_aside[-1].timestamp
            if not -self._interval_s / 4 <= step_s <= 2 * self._interval_s:
                self._drop_set_aside()
        self._set_aside.append(received)
        first = self._set_aside[0]
        span_s = received.timestamp - first.timestamp
        if span_s > STEP_BACK_TICKS * self._interval_s:
            is_far = self.last_timestamp - received.timestamp > self._gap_s
            # Duplicates and backlogs come in a burst; a clock that was set back still ticks.
            if self._pace.is_live and 0.5 <= span_s / max(received.received_at - first.received_at, 1e-9) <= 2.0:
                self._leap(rows)
            elif is_far and (not self._pace.is_live or span_s > REPLAY_BACK_TICKS * self._interval_s):
                self._start_over(rows)
        if len(self._set_aside) > max(2 * LEARNING_LIMIT, 20 * len(self._columns)):
            self._drop_set_aside()

    def _leap(self, rows: list[Row]) -> None:
        """Follow the readings set aside, which have proved right, to where they are."""
        silence_s = self._set_aside[0].received_at - self._last_received_at
        if self._pace.is_live and silence_s <= self._gap_s:
            self._follow_clock(rows)
        else:
            self._start_over(rows)

    def _follow_clock(self, rows: list[Row]) -> None:
        """The clock was set: move the grid so that the next row continues it, without a gap or a row twice."""
        assert self.last_timestamp is not None
        readings, self._set_aside = self._set_aside, []
        # The first reading is due as long after the last one as it arrived.
        due_s = self.last_timestamp + readings[0].received_at - self._last_received_at
        k = max(self._next, round((due_s - self._origin) / self._interval_s - self._phase))
        self.clock_steps += 1
        self._shift(readings[0].timestamp - (self._origin + k * self._interval_s))
        self._phase = 0.0
        for received in readings:
            self._place(received, rows)

    def _start_over(self, rows: list[Row]) -> None:
        """There was a gap, or a recording began again: a new segment."""
        assert self.last_timestamp is not None
        readings, self._set_aside = self._set_aside, []
        self._finish_segment(rows)
        if readings[0].timestamp <= self.last_timestamp:
            # By a clock that no longer counts, what is held would be from the future.
            self._seen = [-math.inf] * len(self._seen)
        self._pace.clear()
        self._begin_segment(readings[0].timestamp)
        for received in readings:
            self._place(received, rows)

    def _drop_set_aside(self) -> None:
        """The readings set aside were late after all."""
        assert self.last_timestamp is not None
        for received in self._set_aside:
            self.late += 1
            if received.timestamp <= self.last_timestamp:  # a value from a wrong future would never turn stale
                self._hold_newer(received)
        self._set_aside.clear()

    def _judge_set_aside(self, rows: list[Row]) -> None:
        """Decide without further readings: what was ahead is a gap, what was behind is late."""
        if self._set_aside and self.last_timestamp is not None and self._set_aside[0].timestamp > self.last_timestamp:
            self._start_over(rows)
        elif self._set_aside:
            self._drop_set_aside()

    # The grid: which tick, and is it due?

    def _begin_segment(self, timestamp: float) -> None:
        """Start a grid whose tick 0 is ``timestamp``."""
        self._origin = timestamp
        self._phase = 0.0  # how far, in intervals, readings are from their ticks on the average
        self._next = 0  # the next tick to emit
        self._is_first = True  # ... is the first of its segment
        self._ticks.clear()
        self.last_timestamp = timestamp
        self._last_received_at = -math.inf

    def _finish_segment(self, rows: list[Row]) -> None:
        last = max(self._ticks, default=self._next - 1)
        while self._next <= last:
            rows.append(self._emit(self._last_received_at))

    def _shift(self, delta_s: float) -> None:
        assert self.last_timestamp is not None
        self._origin += delta_s
        self.last_timestamp += delta_s
        self._seen = [seen + delta_s for seen in self._seen]
        self._pace.shift(delta_s)
        for tick in self._ticks.values():
            tick.heard = {column: (at + delta_s, value) for column, (at, value) in tick.heard.items()}

    def _place(self, received: _Received, rows: list[Row]) -> None:
        """Put a reading of the time line into its tick, and emit what that makes due."""
        timestamp, received_at, reading = received
        assert self.last_timestamp is not None
        position = (timestamp - self._origin) / self._interval_s
        k = math.floor(position - self._phase + 0.5)
        newer_s = timestamp - self.last_timestamp
        if k < self._next:
            if newer_s > 0:  # held rows have overtaken it: late, but proof of where the stream's clock is
                self._drop_set_aside()
                self.late += 1
                self._hold_newer(received)
                self._move_on(timestamp, received_at)
                return
            if not self._is_first or -newer_s > self._patience_s + self._interval_s:
                self._look_behind(received, rows)
                return
            self._next = k
        self._drop_set_aside()
        self.accepted += 1
        if 0.5 < newer_s / self._interval_s < 1.5:
            # A device that sleeps between readings is a little slower than its nominal interval.  Without hysteresis
            # its readings, as they drift past the middle between two ticks, would fall into either at random.
            self._phase += (position - k - self._phase) * PHASE_GAIN
            if abs(self._phase) > 0.75:
                self._phase -= math.copysign(1.0, self._phase)
        tick = self._ticks.get(k)
        if tick is None:
            tick = self._ticks[k] = _Tick()
        self._hear(tick, timestamp, reading)
        tick.received_at = max(tick.received_at, received_at)
        if newer_s >= 0:
            self._move_on(timestamp, received_at)
            passed = math.floor((timestamp - self._origin - self._patience_s) / self._interval_s - self._phase)
            while self._next <= passed and self._next < k:
                rows.append(self._emit(received_at))
        # The first row of a segment has to wait for the second tick: nobody knows yet who is going to report.
        while self._lateness_s == 0 and not self._is_first and self._is_complete(self._ticks.get(self._next)):
            rows.append(self._emit(received_at))

    def _hear(self, tick: _Tick, timestamp: float, reading: Reading) -> None:
        heard = tick.heard
        columns = self._columns
        for name, value in reading.values.items():
            column = columns.get(name)
            if column is None and (column := self._new_column(name)) is None:
                continue
            known = heard.get(column)
            if known is None or timestamp >= known[0]:
                heard[column] = (timestamp, value)
        for name, reason in reading.masked.items():
            column = columns.get(name)
            # Text that never was a number is a label, not a sensor; as a column it would be missing for ever.
            if column is None and (reason == "text" or (column := self._new_column(name)) is None):
                continue
            heard.setdefault(column, _MASKED)

    def _move_on(self, timestamp: float, received_at: float) -> None:
        self.last_timestamp = timestamp
        self._last_received_at = max(self._last_received_at, received_at)
        self._pace.add(timestamp, received_at, self._interval_s / 2)

    def _is_complete(self, tick: _Tick | None) -> bool:
        return tick is not None and len(tick.heard) >= len(self._awaited) and self._awaited <= tick.heard.keys()

    def _emit(self, received_at: float) -> Row:
        """Make the row of the next tick; ``received_at`` stands in where nothing was heard in it."""
        timestamp = self._origin + self._next * self._interval_s
        tick = self._ticks.pop(self._next, None)
        if tick is not None:
            received_at = tick.received_at
            for column, (at, value) in tick.heard.items():
                if at > self._seen[column]:
                    self._update(column, at, value)
        stale = [not timestamp - seen <= hold for seen, hold in zip(self._seen, self._hold, strict=True)]
        if stale != self._stale:
            self._stale = stale
            self._awaited = {column for column, is_stale in enumerate(stale) if not is_stale}
        row = Row(
            self.stream,
            timestamp,
            self.features,
            np.array(self._values, np.float32),
            np.array(stale, np.bool_),
            self._is_first,
            received_at,
        )
        self._next += 1
        self._is_first = False
        return row

    # Columns.

    def _new_column(self, name: str) -> int | None:
        column = len(self._columns)
        if column >= self._max_features:
            self.ignored += 1
            return None
        self._columns[name] = column
        self._values.append(math.nan)
        self._seen.append(-math.inf)
        self._cadence.append(0.0)
        self._gaps.append(0)
        self._hold.append(self._max_hold_s or max(self._gap_s, HOLD_CADENCES * self._interval_s))
        return column

    def _update(self, column: int, timestamp: float, value: float) -> None:
        """Hold a newer value, and learn from the time since the last one how often this feature reports."""
        gap_s = timestamp - self._seen[column]
        self._values[column] = value
        self._seen[column] = timestamp
        if self._max_hold_s is not None or gap_s == math.inf:
            return
        cadence = self._cadence[column]
        # An outage is not a cadence: it counts for at most four steps.
        gap_s = min(gap_s, 4 * max(cadence, self._gap_s if cadence == 0.0 else self._interval_s))
        if self._gaps[column] < 4:
            self._gaps[column] += 1
            cadence = max(cadence, gap_s)
        else:
            cadence += (gap_s - cadence) / 8
        self._cadence[column] = cadence
        self._hold[column] = HOLD_CADENCES * max(cadence, self._interval_s)

    def _hold_newer(self, received: _Received) -> None:
        """Let a late reading be the held value of the features it is the newest of."""
        for name, value in received.reading.values.items():
            column = self._columns.get(name)
            if column is None and (column := self._new_column(name)) is None:
                continue
            if received.timestamp > self._seen[column]:
                self._update(column, received.timestamp, value)
                self._awaited.add(column)


class _Received(NamedTuple):
    """A reading and its two times; the timestamp is the reading's, less what the clock was set by since."""

    timestamp: float
    received_at: float
    reading: Reading

    def shifted(self, delta_s: float) -> _Received:
        return self._replace(timestamp=self.timestamp + delta_s)


class _Tick:
    """What was heard in one tick: per column the newest ``(timestamp, value)``."""

    __slots__ = ("heard", "received_at")

    def __init__(self) -> None:
        self.heard: dict[int, tuple[float, float]] = {}
        self.received_at = -math.inf


class _Pace:
    """How a stream's timestamps run against the time of their receipt, one sample a tick."""

    __slots__ = ("_samples",)

    def __init__(self) -> None:
        self._samples: deque[tuple[float, float]] = deque(maxlen=PACE_SAMPLES)

    def add(self, timestamp: float, received_at: float, least_s: float) -> None:
        if not self._samples or timestamp - self._samples[-1][0] >= least_s:
            self._samples.append((timestamp, received_at))

    def shift(self, delta_s: float) -> None:
        self._samples = deque(((at + delta_s, received_at) for at, received_at in self._samples), PACE_SAMPLES)

    def clear(self) -> None:
        self._samples.clear()

    @property
    def is_live(self) -> bool:
        if len(self._samples) < 3:
            return False
        first, last = self._samples[0], self._samples[-1]
        passed_s = last[1] - first[1]
        # Narrower than jitter needs: at less than 2/3 of the pace held rows would overtake every reading.
        return passed_s > 0 and 0.75 <= (last[0] - first[0]) / passed_s <= 1.33

    def slowest(self, received_by: float) -> float:
        """The stream's own time, judged by the reading that took longest to arrive."""
        return received_by - max([received_at - timestamp for timestamp, received_at in self._samples])


class _Learning:
    """The first readings, until the interval can be told from them."""

    __slots__ = ("_disagreements", "_first", "_has_news", "_max_features", "_most", "_size", "_timestamps", "readings")

    def __init__(self, max_features: int) -> None:
        self.readings: deque[_Received] = deque()
        self._max_features = max_features
        self._size = 0  # values in the readings
        self._first: float | None = None
        self._timestamps: dict[str, deque[float]] = {}  # the last ones of each feature
        self._most = 0  # timestamps of the fastest feature
        self._has_news = False  # it has one not looked at yet
        self._disagreements = 0

    def add(self, received: _Received) -> int:
        """Keep a reading; returns how many old ones had to go."""
        timestamp, _, reading = received
        self.readings.append(received)
        self._size += _size(reading)
        if self._first is None:
            self._first = timestamp
        for name in (*reading.values, *reading.masked):
            known = self._timestamps.get(name)
            if known is None:
                if len(self._timestamps) < self._max_features:
                    self._timestamps[name] = deque((timestamp,), LEARNING_LIMIT)
            elif abs(timestamp - known[-1]) >= MIN_INTERVAL_S:
                known.append(timestamp)
                if len(known) == LEARNING_LIMIT or len(known) > self._most:
                    self._most = len(known)
                    self._has_news = self._most >= LEARNING_TICKS
        dropped = 0
        while self._size > LEARNING_TICKS * self._max_features and len(self.readings) > LEARNING_LIMIT:
            self._size -= _size(self.readings.popleft().reading)
            dropped += 1
        return dropped

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


def _mean_phase(timestamps: Iterable[float], origin: float, interval_s: float) -> float:
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
