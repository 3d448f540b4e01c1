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
from collections.abc import Callable

from gon_edge.config.schema import FeatureConfig
from gon_edge.events import Reading, Row
from gon_edge.stream.columns import Columns, Held
from gon_edge.stream.interval import LEARNING_LIMIT, Learning, Received, mean_phase
from gon_edge.stream.ledger import Ledger
from gon_edge.stream.pace import Pace

MAX_FILLERS = 10_000  # held rows in one gap, and ticks that may wait for late readings: bounds memory
STEP_TICKS = 5  # timestamps this many intervals ahead of the time that passed did not get there by jitter
STEP_BACK_TICKS = (
    1.5  # span, in intervals, of the three or more readings behind the time line that prove a clock set back
)
REPLAY_BACK_TICKS = 15.0  # the same at any pace: sixteen ticks in a row behind are a replay started over
PHASE_GAIN = 1 / 16  # of the running mean of how far readings are from their ticks


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
    lateness_s : float
        Seconds a row waits for readings that come out of order.
    max_gap_s : float, optional
        The longest silence, in seconds, bridged with held rows; after a longer one the first row has ``restart`` set.
        Default: 60 s or ten intervals, whichever is longer.  Never more than `MAX_FILLERS` intervals.
    max_features : int
        What features beyond say is lost; see `Columns`.
    ledger : Ledger, optional
        Takes every value that no row will show.
    rule : callable, optional
        What a person has set for a feature, by its name; by default its cadence is learned (`Columns`).

    Attributes
    ----------
    interval_s : float or None
        ``None`` while it is learned.
    accepted, late : int
        Readings that rows show, and that came too late to be shown.
    clock_steps : int
        Times the clock behind the timestamps was set, and the grid followed.
    last_timestamp : float or None
        Newest timestamp of the time line, Unix seconds.
    columns : Columns
        The features: what they hold, how often they report.

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
        lateness_s: float = 0.0,
        max_gap_s: float | None = None,
        max_features: int = 500,
        ledger: Ledger | None = None,
        rule: Callable[[str], FeatureConfig] | None = None,
    ) -> None:
        for name, seconds in (("interval_s", interval_s), ("max_gap_s", max_gap_s)):
            if seconds is not None and not 0 < seconds < math.inf:
                raise ValueError(f"{name} must be a positive number of seconds, not {seconds}")
        if not 0 <= lateness_s < math.inf:
            raise ValueError(f"lateness_s must be a number of seconds from 0, not {lateness_s}")
        self.stream = stream
        self.accepted = 0
        self.late = 0
        self.clock_steps = 0
        self.interval_s: float | None = None
        self.last_timestamp: float | None = None
        self._lateness_s = lateness_s
        self._max_gap_s = max_gap_s

        self._ledger = Ledger() if ledger is None else ledger
        self.columns = Columns(max_features, rule or (lambda name: FeatureConfig()), self._ledger)

        # The grid: tick k is at origin + k * interval.  `_set_interval` and `_begin_segment` say what these mean.
        self._interval_s = self._gap_s = self._step_s = self._patience_s = math.nan
        self._origin = self._phase = 0.0
        self._next = 0
        self._is_first = True
        self._last_received_at = -math.inf

        self._learning: Learning | None = Learning(max_features)
        self._set_aside: list[Received] = []
        self._ticks: dict[int, _Tick] = {}
        self._pace = Pace()
        if interval_s is not None:
            self._set_interval(interval_s)

    # What a status page shows.

    @property
    def features(self) -> tuple[str, ...]:
        """Names of the columns; the same object as long as there is no new one."""
        return self.columns.names

    @property
    def held(self) -> dict[str, Held]:
        """What each feature has said last, and how it reports."""
        return self.columns.held if self._learning is None else self._learning.features

    @property
    def waits_for(self) -> str:
        """Why no row can be made yet, in words; empty where rows are made."""
        return "" if self._learning is None else self._learning.waits_for

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
        received = Received(reading.timestamp, received_at, reading)
        rows: list[Row] = []
        if self._learning is None:
            self._take(received, rows)
        else:
            for lost in self._learning.add(received):
                self.late += 1
                self._ledger.add_late(lost.reading.values, "no_interval", lost.timestamp, 0.0)
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

    @property
    def due_at(self) -> float:
        """Monotonic seconds up to which `advance` does nothing while no reading comes; infinite while nothing waits."""
        if self._learning is not None or self.last_timestamp is None:
            return math.inf
        judged_at = self._set_aside[-1].received_at + self._gap_s if self._set_aside else math.inf
        last = max(self._ticks, default=self._next - 1)
        if last < self._next:
            return judged_at
        if not self._pace.is_live:
            return min(judged_at, self._last_received_at + self._gap_s)
        patience_s = self._patience_s + (3 * self._interval_s if self._set_aside else 0.0)
        passed_at = self._origin + (self._next + self._phase) * self._interval_s + patience_s
        # `slowest` is time less the longest delay.
        return min(judged_at, passed_at - self._pace.slowest(0.0))

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
        self.columns.set_interval(interval_s, self._gap_s)
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
        self._phase = mean_phase(timestamps, readings[0].timestamp, interval_s)
        for received in readings[1:]:
            self._take(received, rows)

    # The time line: does a reading continue it?

    def _take(self, received: Received, rows: list[Row]) -> None:
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

    def _look_behind(self, received: Received, rows: list[Row]) -> None:
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
        if len(self._set_aside) > max(2 * LEARNING_LIMIT, 20 * len(self.columns.places)):
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
            self.columns.forget_times()
        self._pace.clear()
        self._begin_segment(readings[0].timestamp)
        for received in readings:
            self._place(received, rows)

    def _drop_set_aside(self) -> None:
        """The readings set aside were late after all."""
        assert self.last_timestamp is not None
        for received in self._set_aside:
            # A value from a wrong future would never turn stale.
            held = received.reading.values if received.timestamp <= self.last_timestamp else {}
            self._be_late(received, self.columns.hold_newer(received.timestamp, held))
        self._set_aside.clear()

    def _be_late(self, received: Received, refused: set[str]) -> None:
        """Count a reading whose row has been made, or that its neighbours have proved wrong.

        Names that were ``refused`` a place are in the ledger already.
        """
        assert self.last_timestamp is not None
        offset_s = received.timestamp - self.last_timestamp
        reason = "still" if offset_s == 0.0 else "ahead" if offset_s > self._step_s else "behind"
        names = received.reading.values.keys() - refused if refused else received.reading.values.keys()
        self.late += 1
        self._ledger.add_late(names, reason, received.timestamp, offset_s)

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
        self.columns.shift(delta_s)
        self._pace.shift(delta_s)
        for tick in self._ticks.values():
            tick.heard = {column: (at + delta_s, value) for column, (at, value) in tick.heard.items()}

    def _place(self, received: Received, rows: list[Row]) -> None:
        """Put a reading of the time line into its tick, and emit what that makes due."""
        timestamp, received_at, reading = received
        assert self.last_timestamp is not None
        position = (timestamp - self._origin) / self._interval_s
        k = math.floor(position - self._phase + 0.5)
        newer_s = timestamp - self.last_timestamp
        if k < self._next:
            if newer_s > 0:  # held rows have overtaken it: late, but proof of where the stream's clock is
                self._drop_set_aside()
                self._be_late(received, self.columns.hold_newer(timestamp, reading.values))
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
        self.columns.hear(tick.heard, timestamp, reading)
        if self.columns.crowded and self.columns.may_free(timestamp):
            self._free(timestamp)
        tick.received_at = max(tick.received_at, received_at)
        if newer_s >= 0:
            self._move_on(timestamp, received_at)
            passed = math.floor((timestamp - self._origin - self._patience_s) / self._interval_s - self._phase)
            while self._next <= passed and self._next < k:
                rows.append(self._emit(received_at))
        # The first row of a segment has to wait for the second tick: nobody knows yet who is going to report.
        while self._lateness_s == 0 and not self._is_first and self._is_complete(self._ticks.get(self._next)):
            rows.append(self._emit(received_at))

    def _free(self, timestamp: float) -> None:
        """Let features that are gone give their place to new ones."""
        kept = {column for tick in self._ticks.values() for column in tick.heard}
        moved = self.columns.free(timestamp, kept)
        if moved is not None:
            for tick in self._ticks.values():
                tick.heard = {moved[column]: told for column, told in tick.heard.items()}

    def _move_on(self, timestamp: float, received_at: float) -> None:
        self.last_timestamp = timestamp
        self._last_received_at = max(self._last_received_at, received_at)
        self._pace.add(timestamp, received_at, self._interval_s / 2)

    def _is_complete(self, tick: _Tick | None) -> bool:
        awaited = self.columns.awaited
        return tick is not None and len(tick.heard) >= len(awaited) and awaited <= tick.heard.keys()

    def _emit(self, received_at: float) -> Row:
        """Make the row of the next tick; ``received_at`` stands in where nothing was heard in it."""
        timestamp = self._origin + self._next * self._interval_s
        tick = self._ticks.pop(self._next, None)
        if tick is not None:
            received_at = tick.received_at
            self.columns.update(tick.heard)
        values, stale, excused, is_whole = self.columns.at(timestamp)
        row = Row(self.stream, timestamp, self.features, values, stale, self._is_first, received_at, excused, is_whole)
        self._next += 1
        self._is_first = False
        return row


class _Tick:
    """What was heard in one tick: per column the newest ``(timestamp, value)``."""

    __slots__ = ("heard", "received_at")

    def __init__(self) -> None:
        self.heard: dict[int, tuple[float, float]] = {}
        self.received_at = -math.inf
