"""One stream from readings to alerts: its aligner, detector and alert policy, and what state it is in.

Pure: no clock, no socket, no file.  Readings and times come in, outcomes go out; the same readings give the same
alerts, live or recorded.  ``daemon`` owns one for each stream, on the scoring thread, so there is no lock.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

import numpy as np

from gon_edge.config.schema import StreamConfig
from gon_edge.events import Alert, Cause, Reading, Row, StreamState, Verdict, Withheld
from gon_edge.model.daily import MOST_FEATURES, Columns, DayMemory, sliced
from gon_edge.model.detector import SMALLEST_SHARE, Detector
from gon_edge.model.file import Model
from gon_edge.stream.alerts import AlertPolicy
from gon_edge.stream.align import Aligner
from gon_edge.stream.backlog import Backlog, Newest
from gon_edge.stream.drift import DriftWatch
from gon_edge.stream.groups import Groups
from gon_edge.stream.history import ReadingHistory, ScoreHistory
from gon_edge.stream.ledger import Ledger
from gon_edge.stream.outcome import Outcome, as_judged
from gon_edge.stream.past import Past
from gon_edge.stream.selection import Selection

RECENT_SCORES = 120  # a line of a terminal or of the page has no more places

_SILENT_S = 60.0  # the default of max_gap: what would begin a new window is a silence


class Stream:
    """One stream.

    Parameters
    ----------
    name : str
    settings : StreamConfig
    max_features : int
    model : Model, optional
        Without one the stream warms up.
    starters : sequence of Model
        Models of other streams like this one; the first whose features are all there scores it until it has its own.
    opened_at : float
        Monotonic seconds, now: a silence counts from here until a reading comes.
    timer : callable
        Seconds, for measuring how long scoring takes; by default nothing is measured.

    Attributes
    ----------
    rows : int
        Rows emitted since the start, or since the warm-up began in an earlier run.  Without a model: those that can be
        learned.
    unusable : dict of str to int
        Rows of the warm-up that cannot be learned, by the reason.
    model : Model or None
        Its own.
    starter : Model or None
        The one that scores while there is none of its own.
    verdict : Verdict or None
        The newest.
    scores : array of float
        Recent scores, oldest first.
    history : ScoreHistory
        Of the last hour.
    readings : ReadingHistory
        Of the last hour, with what was expected while something was wrong.
    past : Past
        What an earlier run has stored of it.
    heard_at : float
        When a reading moved the stream on last, monotonic seconds.
    stamped_by_receipt : bool
        The newest reading carried no timestamp of its own.
    ledger : Ledger
        What of its messages became no value.
    days : DayMemory
        What the hours of the last week were like.
    unwanted : int
        Readings of which ``include`` and ``exclude`` leave nothing.
    """

    def __init__(
        self,
        name: str,
        settings: StreamConfig,
        *,
        max_features: int,
        model: Model | None = None,
        starters: Sequence[Model] = (),
        opened_at: float = 0.0,
        timer: Callable[[], float] = lambda: 0.0,
    ) -> None:
        self.name = name
        self.settings = settings
        self.rows = 0
        self.unusable: dict[Withheld, int] = {}
        self.heard_at = opened_at
        self.model: Model | None = None
        self.starter: Model | None = None
        self.began_at: tuple[str, tuple[str, ...], Any] | None = None  # what `begin` was told
        self.verdict: Verdict | None = None
        self.scores = array("d")
        self.history = ScoreHistory()
        self.readings = ReadingHistory()
        self.stamped_by_receipt = False
        self.ledger = Ledger()
        self.unwanted = 0
        self.last_row: Row | None = None
        interval_s = settings.interval_s or (model.interval_s if model is not None and model.interval_s > 0.0 else None)
        self.aligner = Aligner(
            name,
            interval_s=interval_s,
            lateness_s=settings.lateness_s,
            max_gap_s=settings.max_gap_s,
            max_features=max_features,
            ledger=self.ledger,
            rule=settings.feature,
        )
        self.policy = AlertPolicy(name, settings.alerts)
        self.policy.patience_s = self._patience_s
        self._timer = timer
        self._detector: Detector | None = None
        self._training_at: int | None = None  # `rows` as the training of its first model began
        self._silent = False
        self.days = DayMemory()
        self.past = Past(self.days)
        self._drift = DriftWatch()
        self._readings: Columns = slice(0)  # where they stand among the model's features
        self._afresh = False  # the next row is judged as if none had come before it
        self._backlog = Backlog(name)
        self._newest: Newest | None = None  # of the model in use, to hand it on to the next one
        self._compared: tuple[str, ...] | None = None  # features of a row, with those of the model
        self._new_feature = False
        self._starters = tuple(starters)
        self._unfit: tuple[str, ...] | None = None  # features of a row that no starter can do with
        self._selection = Selection(settings, self.ledger)
        self._told = 0, 0, 0, 0  # accepted, late and clock_steps of the aligner, and unwanted, as of the last `news`
        self._began_with: Model | None = None  # a starter nobody has been told of yet
        if model is not None:
            self.use(model)

    def resume(self, rows: int, memory: Mapping[str, Any] | None, columns: Mapping[str, Any] | None = None) -> None:
        """Go on where an earlier run ended.

        Parameters
        ----------
        rows : int
            Rows of the warm-up that it has stored and that can be learned.
        memory : mapping or None
            What `memory` returned in that run.  One that cannot be understood is ignored.
        columns : mapping, optional
            What `aligner.columns.state` returned in that run; ignored likewise.
        """
        self.rows = rows
        group = self.policy.group
        self.policy = AlertPolicy(self.name, self.settings.alerts, memory)
        self.policy.group = group
        self.policy.patience_s = self._patience_s
        with suppress(TypeError, ValueError, AttributeError):
            self.aligner.columns.resume(columns or {})
        if memory is not None and self._detector is not None:
            with suppress(KeyError, TypeError, ValueError, AttributeError):
                self._detector.resume(memory["detector"])
            with suppress(KeyError, TypeError, ValueError, AttributeError):
                self._drift.resume(memory["days"])

    def memory(self) -> dict[str, Any]:
        """Everything the next rows' alerts depend on beside the rows themselves, fit for JSON."""
        detector = self._detector and self._detector.state()
        return {**self.policy.state(), "detector": detector, "days": self._drift.state()}

    def join(self, groups: Groups) -> None:
        """Let alerts that begin together with those of other streams be of one group."""
        self.policy.group = lambda alert, since: groups.join(alert, since, interval_s=self.aligner.interval_s or 0.0)

    def news(self) -> tuple[int, int, int, int]:
        """What has happened since this was asked last.

        Returns
        -------
        accepted, late : int
            Readings that became part of a row, and that came too late for theirs.
        clock_steps : int
            Times the device's clock was set.
        unwanted : int
            Readings of which nothing was wanted.
        """
        before, aligner = self._told, self.aligner
        self._told = now = aligner.accepted, aligner.late, aligner.clock_steps, self.unwanted
        return now[0] - before[0], now[1] - before[1], now[2] - before[2], now[3] - before[3]

    def news_of_starter(self) -> Model | None:
        """The shipped model that has begun to score the stream since this was asked last."""
        starter, self._began_with = self._began_with, None
        return starter

    def follow_clock(self, delta_s: float) -> None:
        """Follow the wall clock when it is set by ``delta_s``, if it stamps the stream's readings."""
        if self.stamped_by_receipt:
            self.aligner.shift(delta_s)
            accepted, late, steps, unwanted = self._told
            self._told = accepted, late, steps + 1, unwanted  # no news of the device: the clock is this machine's

    @property
    def state(self) -> StreamState:
        """What the stream is doing."""
        if self._silent:
            return "stale"
        if self.model is not None:
            return "scoring"
        return "training" if self._training_at is not None else "warming-up"

    @property
    def scored_by(self) -> Model | None:
        """The stream's own model, else the starter, else ``None``."""
        return self.model or self.starter

    @property
    def warmed_up(self) -> bool:
        """Whether a first model is due: enough rows, none in use, none being trained."""
        return self.model is None and self._training_at is None and self.rows >= self.settings.warmup_rows

    @property
    def silent_after_s(self) -> float:
        """Seconds without a reading after which the stream has stopped; infinite where all report on change."""
        gap_s = max(self.settings.max_gap_s or _SILENT_S, 10.0 * (self.aligner.interval_s or 0.0))
        return max(gap_s, self.aligner.columns.silence_limit_s)

    def _patience_s(self, feature: str) -> float | None:
        return self.settings.feature(feature).missing_after_s

    def away(self, seconds: float, until: float) -> None:
        """Say that nobody listened for so long, up to ``until`` (monotonic seconds): no silence of this time counts."""
        self.heard_at = max(self.heard_at, min(self.heard_at + seconds, until))
        self.aligner.columns.away(seconds)

    @property
    def due_at(self) -> float:
        """Monotonic seconds up to which time alone changes nothing: no row falls due, and no silence is too long."""
        silent_at = math.inf if self._silent else self.heard_at + self.silent_after_s
        return min(self.aligner.due_at, silent_at)

    @property
    def behind(self) -> int:
        """Rows that wait for their score."""
        return len(self._backlog)

    def seed(self, reading: Reading) -> None:
        """Hold values that lay in the broker, each until something fresh comes of it; they make no row."""
        self.aligner.columns.seed(self._selection.of(reading.values))

    def add(self, reading: Reading, received_at: float) -> list[Outcome]:
        """Take a reading with a timestamp; ``received_at`` is in monotonic seconds."""
        return self.judge(self.hear(reading, received_at))

    def hear(self, reading: Reading, received_at: float) -> list[Row]:
        """Take a reading as `add` does, and leave the rows that it completes to be judged."""
        values = self._selection.used(reading.values)
        masked = self._selection.of(reading.masked)
        if values is not reading.values or masked is not reading.masked:
            if not values and not masked:
                self.unwanted += 1
                return []
            reading = Reading(reading.stream, reading.timestamp, values, masked)
        accepted = self.aligner.accepted
        rows = self.aligner.add(reading, received_at)
        if self.aligner.accepted > accepted or self.aligner.interval_s is None:
            # Readings of a clock that stands still are late for ever: a stream that only sends such has stopped.
            self._silent = False
            self.heard_at = received_at
        return rows

    def advance(self, received_by: float) -> list[Row]:
        """Let time pass, in monotonic seconds, and return the rows that are due, to be judged.

        Every reading received by then has been added.
        """
        return self.aligner.advance(received_by)

    def flush(self) -> list[Outcome]:
        """Judge what is left at the end of a recording."""
        return self.judge(self.aligner.flush())

    def has_stopped(self, now: float) -> bool:
        """Whether the stream has fallen silent for longer than `silent_after_s`, and nobody said so yet."""
        return not self._silent and now - self.heard_at > self.silent_after_s

    def stop(self, wall: float) -> tuple[Alert, ...]:
        """Say that the stream `has_stopped`; ``wall`` is now, in Unix seconds.

        The alert is of the moment the silence was too long, not of this look: the same messages give the same alerts.
        """
        last = self.aligner.last_timestamp
        return self.silent(wall if last is None else last + self.silent_after_s)

    def stop_untold(self) -> None:
        """The stream `has_stopped`, and somebody else tells it."""
        self._silent = True

    def stop_again(self) -> None:
        """Say that a stop nobody was told of is to be told, if it lasts."""
        self._silent = False

    def silent(self, timestamp: float) -> tuple[Alert, ...]:
        """Say that the stream has stopped; no alert during the warm-up.  ``timestamp`` is Unix seconds."""
        self._silent = True
        if self.model is None:
            return ()
        patient = set(self.aligner.columns.patient)
        return tuple(self.policy.stream_silent(timestamp, [f for f in self.model.readings if f not in patient]))

    def train(self) -> None:
        """Say that the first model is being trained."""
        self._training_at = self.rows

    def train_anew(self) -> None:
        """Say that whoever was training the first model is gone: it is due again, and the rows kept for it wait."""
        self._training_at = None

    def give_up_training(self) -> list[Outcome]:
        """No model came: the rows kept for it go without a score, and the warm-up goes on."""
        self._training_at = None
        return [self._unscored(self._backlog.pop(), waited=True) for _ in range(len(self._backlog))]

    def use(self, model: Model) -> None:
        """Score by this model from the next row on.

        The rows of the newest window are shown to it first: a detector that begins with an empty window sees a sudden
        change at once and a slow one only after a whole window, and would end alerts by that.
        """
        self.model = model
        before = self._detector if self.starter is None else None
        if self.starter is not None:
            self.starter = None
            del self.scores[:]  # they were on another scale
        self._compared = None
        self.past.recall_for(model.features)
        self._detector = Detector(model, days=self.days)
        self.aligner.columns.expect(model.readings)
        if before is not None:
            self._detector.follow(before)
        if self._training_at is not None and self.rows > self._training_at:
            self.policy.settle(len(self._backlog) + model.discriminator.window + self.settings.alerts.clear_rows)
        self._training_at = None
        self._readings = sliced(np.array([model.features.index(name) for name in model.readings], np.intp))
        lowest, highest = (extreme[self._readings] for extreme in model.extremes)
        self._drift.follow(model.readings, model.rising, lowest, highest)
        newest, self._newest = self._newest, Newest(model.discriminator.window)
        for row in newest.rows(self.name) if newest is not None else ():
            self._detector.score(row)
            self._newest.push(row)

    def answered(self, since: float, until: float, *, fault: bool) -> None:
        """Hear of a person whether what was between two moments, Unix seconds, was a fault, or is normal."""
        self.policy.answered(since, until, fault=fault)
        if not fault:
            self._drift.accept(since, until)

    def learned(self) -> None:
        """Hear that a person had a model trained on all rows, those under alerts too: what drifts is known to it."""
        self._drift.forget(self._drift.drifting)

    def silence(self, features: frozenset[str] | None) -> None:
        """Hold back alerts of these features from now on, as `AlertPolicy.silence` does.

        When a silence is over, windows and averages begin anew: what went on under it must not raise an alert.
        """
        self._afresh |= self.policy.silence(features)

    def configure(self, settings: StreamConfig) -> None:
        """Go on with other settings; those of the grid stay as they were."""
        self.settings = settings
        self._selection = Selection(settings, self.ledger)
        self.policy.configure(settings.alerts)
        self.aligner.columns.configure(settings.feature)

    @property
    def new_feature(self) -> bool:
        """Whether the newest row holds a feature that the model does not know."""
        row = self.last_row
        if row is None or self.model is None:
            return False
        if row.features is not self._compared:
            self._compared = row.features
            self._new_feature = not set(row.features) <= set(self.model.features)
        return self._new_feature

    def catch_up(self, limit: int) -> list[Outcome]:
        """Judge up to ``limit`` rows that were kept while the first model was trained."""
        rows = min(limit, len(self._backlog)) if self._detector is not None else 0
        return [replace(self._score(self._backlog.pop()), waited=True) for _ in range(rows)]

    def judge(self, rows: list[Row]) -> list[Outcome]:
        """Judge rows that are on the grid already, oldest first."""
        outcomes = []
        if self.past.waits and (model := self.scored_by) is not None:
            self.past.recall_for(model.features)
        for row in rows:
            self.last_row = row
            self.readings.add(row)
            if len(row.features) <= MOST_FEATURES:
                fresh = row.values if row.is_whole else np.where(row.stale, np.float32(np.nan), row.values)
                self.days.add_row(row.timestamp, row.features, fresh)
            if self._detector is None and self._starters:
                self._begin(row)
            if self._detector is not None and not self._backlog:
                outcomes.append(self._score(row))
                self._count(outcomes[-1].withheld)
            elif self.rows >= self.settings.warmup_rows or self._backlog:  # the warm-up is over: a model will come
                outcomes += [self._unscored(lost, waited=True) for lost in self._backlog.push(row)]
                self._count(None)
            else:
                outcomes.append(self._unscored(row))
                self._count(outcomes[-1].withheld)
        return outcomes

    def _count(self, withheld: Withheld | None) -> None:
        """Count one more row; during the warm-up only one that can be learned brings it on."""
        if self.model is None and withheld is not None:
            self.unusable[withheld] = self.unusable.get(withheld, 0) + 1
        else:
            self.rows += 1

    def _unscored(self, row: Row, *, waited: bool = False) -> Outcome:
        return Outcome(row, waited=waited, withheld=self._withheld(row, None))

    def _withheld(self, row: Row, verdict: Verdict | None) -> Withheld | None:
        """Why a row must not be learned, once the policy has seen it."""
        known = self.starter is None and not self.policy.is_unsettled  # a starter knows other machines and not this one
        told = self.policy.is_anomalous or self.policy.is_drifting
        if verdict is not None and known and (verdict.is_anomaly or told):
            return "alert"
        if self.policy.is_silenced:
            return "silenced"
        return "stale" if not row.is_whole and row.stale.all() else None

    def _begin(self, row: Row) -> None:
        """Let a starter score this row and those after it, if one fits: its features are all there and have values."""
        if row.features is self._unfit:
            return
        fit = [starter for starter in self._starters if set(starter.features) <= set(row.features)]
        if not fit:
            self._unfit = row.features
            return
        usable = np.isfinite(row.values) & ~row.stale
        if all(usable[row.features.index(name)] for name in fit[0].features):
            self.begin(fit[0].version, row.features, row.values)
            self._began_with = self.starter

    def begin(self, version: str, features: tuple[str, ...], values: Any) -> None:
        """Let the starter of a version score rows from one with these values on; `StopIteration` without such a one."""
        found = next(starter for starter in self._starters if starter.version == version)
        self.began_at, self.starter = (version, features, values), found.at_level_of(features, values)
        self._detector = Detector(self.starter, days=self.days)
        self._newest = Newest(self.starter.discriminator.window)

    def _score(self, row: Row) -> Outcome:
        assert self._detector is not None
        assert self._newest is not None
        judged = row
        if self._afresh:
            self._afresh, judged = False, replace(row, restart=True)
        began = self._timer()
        verdict = self._detector.score(judged)
        took = self._timer() - began
        self.verdict = verdict
        self.scores.append(verdict.score)
        del self.scores[:-RECENT_SCORES]
        self.history.add(verdict.timestamp, verdict.score, verdict.threshold)
        self._newest.push(judged)
        alerts = (*self.policy.update(verdict, self._detector.causes), *self._follow_drift(verdict))
        if (verdict.is_anomaly or self.policy.is_open) and row is self.last_row and self.readings.wants_expected:
            by = self._detector.model
            share, _, expected = self._detector.account()
            told = np.where((share > SMALLEST_SHARE) & ~by.is_counter, expected, np.nan)  # the rest meets the others
            self.readings.expect(by.features, told)
        return Outcome(as_judged(row, verdict), verdict, alerts, took, withheld=self._withheld(row, verdict))

    def _follow_drift(self, verdict: Verdict) -> list[Alert]:
        """Let the row that was just judged count for its day, and say what drifts where a day is over."""
        if self.starter is not None or self._detector is None:
            return []
        policy = self.policy
        counts = not (verdict.is_anomaly or policy.is_anomalous or policy.is_silenced)
        drifts = self._drift.take(verdict.timestamp, self._detector.measured[self._readings], counts=counts)
        event = None if drifts is None else policy.follow_drift(drifts, self._drift.since, verdict)
        return [] if event is None else [event]

    def causes(self) -> tuple[Cause, ...]:
        """What makes the newest row anomalous, largest first; empty while it is not."""
        if self._detector is None or self.verdict is None or not self.verdict.is_anomaly:
            return ()
        return self._detector.causes()
