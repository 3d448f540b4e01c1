"""When a verdict becomes news: `AlertPolicy`, one for each stream.

Five kinds of alert, at most one of each open at a time.  `anomaly`: raised by n of the last m rows, ended by
hysteresis, followed by a cool-down.  `changed`: the machine is in another state than in training, as the detector
found; open until it is back, or a model knows the new state.  `drift`: readings go away slowly, as `drift` found; told
anew once a day.  `overdue`: what comes every day has not come.  `missing`: features without fresh values, or a stream
without rows.  Each goes through `new`, any number of `update`, `end`, all with one id.

A fault that lasts stays an alert: only rows clearly below the threshold end it, and neither time, nor a gap in the
rows, nor a restart does.  One that comes and goes stays one alert (`held`).  What comes again at the same hour is said
as `recurring` from the third time on (`habits`).  Pure: timestamps come with the rows, nothing is published or stored.

A first model takes over in the middle of what its own training did to the machine.  Rows that came meanwhile count as
the end of the warm-up: nothing is raised until the rows have been normal once, or a window of them and as many as end
an alert have come (`settle`).

A silenced stream is frozen here: its rows neither raise nor end anything until somebody wants to hear of it again.  Of
a stream with silenced features, alerts are held back whose causes are mainly those features.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from gon_edge.config.schema import AlertsConfig
from gon_edge.events import ALERT_KINDS, Alert, AlertKind, AlertType, Cause, Recurring, Severity, Together, Verdict
from gon_edge.stream.absence import Absences
from gon_edge.stream.habits import PERIODS, Block, Memory, directions, same_time
from gon_edge.stream.held import (
    TOP_FEATURES,
    Held,
    JustEnded,
    alert_json,
    alert_of,
    are_mainly,
    as_of,
    is_normal,
    mainly_same,
)
from gon_edge.stream.held import severity as severity_of
from gon_edge.stream.ids import Ids

_GROWN = 2.0
"""A score this many times the highest told is news.  A judgement: it is what makes an alert critical by default."""

_STATE_VERSION = 1


class AlertPolicy:
    """Turns the verdicts of one stream into alerts.

    Parameters
    ----------
    stream : str
        Name that goes into every event.
    settings : AlertsConfig
        When to raise, clear, update.
    state : mapping, optional
        What `state()` returned before a restart.  One that cannot be understood (another version, damaged) is ignored:
        starting without the memory of an alert is better than not starting.

    Attributes
    ----------
    group : callable
        Gives the group of an alert that begins, by its id and since when; by itself each is its own.
    past : Memory
        The anomalies that have ended.
    patience_s : callable
        Gives the seconds that a feature may be missing for, by its name; ``None`` is what the settings say.
    together : Together or None
        The streams a silence of this one stands for; goes into its `missing` alert.

    Notes
    -----
    Timestamps may step backwards (a clock set at boot).  A waiting time whose start lies in the future counts as over,
    so a step can end a cool-down early but can never hold an alert back.

    Examples
    --------
    >>> policy = AlertPolicy("pump", AlertsConfig(raise_rows=2, raise_of=3))
    >>> def row(t): return Verdict("pump", t, 5.0, 1.0, True, (Cause("flow", 9.0, 2.0, 1.0),), (), "v1")
    >>> policy.update(row(0.0))
    []
    >>> [(alert.type, alert.id) for alert in policy.update(row(1.0))]
    [('new', 'pump-anomaly-19700101T000000Z')]
    """

    def __init__(self, stream: str, settings: AlertsConfig, state: Mapping[str, Any] | None = None) -> None:
        self._stream = stream
        self._settings = settings
        self.group: Callable[[str, float], str] = lambda alert, since: alert
        self.patience_s: Callable[[str], float | None] = lambda feature: None
        self._silenced: frozenset[str] | None = frozenset()
        self._ask_again_in = 0  # rows for which causes are not asked for: they were silenced ones just now
        self._reset()
        if state is not None:
            try:
                self._restore(state)
            except (KeyError, TypeError, ValueError, AttributeError):
                self._reset()

    def _reset(self) -> None:
        self._recent: list[tuple[float, bool]] = []  # rows in which one may be raised: time, is it anomalous
        self._normal_rows = 0
        self._unsettled_rows = 0  # that may still come until an alert is raised
        self._anomaly: Held | None = None
        self._ended = JustEnded()
        self.past = Memory()
        self._others: dict[AlertKind, Alert] = {}  # newest events of the open alerts that are of no anomaly
        self._moved: tuple[Cause, ...] = ()  # what the newest change was found by
        self._absences = Absences()
        self.together: Together | None = None
        self._last_row_at: float | None = None
        self._model_version = ""
        self._ids = Ids(self._stream)

    @property
    def active(self) -> tuple[Alert, ...]:
        """The last event of each open alert."""
        anomaly = () if self._anomaly is None else (self._anomaly.event,)
        return (*anomaly, *(self._others[kind] for kind in ALERT_KINDS if kind in self._others))

    @property
    def is_open(self) -> bool:
        """Whether an alert is open."""
        return self.is_anomalous or self.is_drifting or "missing" in self._others

    @property
    def is_anomalous(self) -> bool:
        """Whether an alert is open that says of rows as a whole that they are not normal."""
        return self._anomaly is not None or "changed" in self._others

    @property
    def is_drifting(self) -> bool:
        """Whether the alert is open that a reading drifts."""
        return "drift" in self._others

    @property
    def is_unsettled(self) -> bool:
        """Whether what is odd still counts as the end of the warm-up."""
        return self._unsettled_rows > 0

    @property
    def is_silenced(self) -> bool:
        """Whether the stream, or a feature of it, is silenced."""
        return self._silenced is None or bool(self._silenced)

    @property
    def audible(self) -> tuple[Alert, ...]:
        """The open alerts that no silence holds back."""
        return tuple(event for event in self.active if not self._is_silenced(event.top_features))

    def settle(self, rows: int) -> None:
        """Raise no anomaly until rows have been normal once, or so many have come."""
        self._unsettled_rows = rows

    def answered(self, since: float, until: float, *, fault: bool) -> None:
        """Hear of a person whether what was between two moments, Unix seconds, was a fault: then it is no habit."""
        if self._anomaly is not None and self._last_row_at is not None:
            self.past.add(self._anomaly.block(self._last_row_at))  # it has not ended, and will be known by its begin
        self.past.answered(since, until, fault=fault)

    def silence(self, features: frozenset[str] | None) -> bool:
        """Hold back alerts of these features from now on; ``None`` is the whole stream, the empty set is no silence.

        Says whether something was silenced and no longer is.
        """
        before = self._silenced
        if features == before:
            return False
        is_over = features is not None and (before is None or not before <= features)
        if features is None or is_over:
            self._recent.clear()  # what is raised after the silence begins after it
            self._normal_rows = 0
        self._silenced = features
        self._ask_again_in = 0
        return is_over

    def configure(self, settings: AlertsConfig) -> None:
        """Go on with other settings; what is open stays open."""
        self._settings = settings
        del self._recent[: -settings.raise_of]

    def _is_silenced(self, causes: Sequence[Cause]) -> bool:
        return self._silenced is None or are_mainly(causes, self._silenced)

    def update(self, verdict: Verdict, explain: Callable[[], tuple[Cause, ...]] | None = None) -> list[Alert]:
        """Take one scored row; return the news it makes, one event of each kind at most.

        Parameters
        ----------
        verdict : Verdict
        explain : callable, optional
            Gives the causes of an anomalous row whose verdict carries none.  Called for rows that make an event only:
            finding causes costs several scores.
        """
        self._last_row_at = verdict.timestamp
        self._model_version = verdict.model_version
        self._moved = verdict.moved[:TOP_FEATURES] or self._moved
        if self._silenced is None:
            return []
        if not (verdict.is_anomaly or verdict.missing or verdict.changed) and self._is_calm:  # nearly every row
            self._count(verdict)
            return []
        if self._silenced and verdict.missing:
            heard = tuple(feature for feature in verdict.missing if feature not in self._silenced)
            verdict = replace(verdict, missing=heard)
        self._absences.take(verdict.missing, verdict.timestamp, self._settings, self.patience_s)
        since = verdict.timestamp if self._anomaly is None else self._anomaly.event.since
        news = (
            self._update_anomaly(verdict, explain),
            self._update_changed(verdict, since),
            self._report_missing(verdict.timestamp),
        )
        return [event for event in news if event is not None]

    def stream_silent(self, timestamp: float, features: Sequence[str] = ()) -> list[Alert]:
        """Say that the whole stream has stopped: its `missing` alert opens, or grows to all its features.

        Calling it again while nothing has changed gives no event.  The next rows that hold the features end the alert.
        ``timestamp`` is now, Unix seconds; without its features the alert names none.
        """
        if self._silenced is None:
            return []
        since = timestamp if self._last_row_at is None else min(self._last_row_at, timestamp)
        self._absences.take_silence(since, features)
        event = self._report_missing(timestamp)
        return [] if event is None else [event]

    # -- anomaly -------------------------------------------------------------------------------------------------------

    @property
    def _is_calm(self) -> bool:
        """Whether nothing is open, has just ended or is absent: a normal row changes none of it."""
        told = self._anomaly or self._ended.alerts or self._others or self._moved or self.together
        return not (told or self._absences.any)

    def _count(self, verdict: Verdict) -> None:
        self._recent.append((verdict.timestamp, verdict.is_anomaly))
        del self._recent[: -self._settings.raise_of]
        self._normal_rows = self._normal_rows + 1 if is_normal(verdict, self._settings.clear_ratio) else 0
        if self._unsettled_rows:
            has_settled = self._normal_rows >= self._settings.clear_rows
            self._unsettled_rows = 0 if has_settled else self._unsettled_rows - 1

    def _update_anomaly(self, verdict: Verdict, explain: Callable[[], tuple[Cause, ...]] | None) -> Alert | None:
        settings = self._settings
        self._count(verdict)
        self._ended.row(settings.clear_rows)
        held = self._anomaly
        if held is None:
            return self._raise_anomaly(verdict, explain)
        held.see(verdict)
        if verdict.changed and "changed" not in self._others:  # told as a change from here on
            self._anomaly = None
            self._recent.clear()
            self.past.add(held.block(verdict.timestamp))
            return self._follow(held, "end", verdict, held.event.severity)
        if self._normal_rows >= held.ends_after(settings.clear_rows):
            self._anomaly = None
            self._recent.clear()  # the next alert begins after this one
            self._ended.add(held, verdict.timestamp)
            block = held.block(verdict.timestamp)
            again = self.past.look(block)
            self.past.add(block)
            event = self._follow(held, "end", verdict, held.event.severity)
            return replace(event, recurring=None if again is None else again.told)
        return self._update_open(held, verdict, explain)

    def _update_open(
        self, held: Held, verdict: Verdict, explain: Callable[[], tuple[Cause, ...]] | None
    ) -> Alert | None:
        """An update where something has changed.  Causes cost several scores: they are looked at now and then."""
        settings = self._settings
        recurring = held.event.recurring
        if recurring is not None and self.past.look(held.block(verdict.timestamp)) is None:
            recurring = None  # it is stronger than on the other days, or lasts longer
        severity = "warning" if recurring is not None else severity_of(verdict, settings.critical_ratio, held)
        is_worse = severity != held.event.severity or recurring != held.event.recurring
        looked_lately = 0 <= verdict.timestamp - held.looked_at < settings.update_every_s
        if not is_worse and (looked_lately or not verdict.is_anomaly):
            return None
        if self._ask_again_in > 0:
            self._ask_again_in -= 1
            return None
        held.looked_at = verdict.timestamp
        if explain and not verdict.causes:
            verdict = replace(verdict, causes=explain())
            held.see(verdict)
        has_grown = verdict.score >= _GROWN * held.told_score > 0.0
        has_moved = bool(verdict.causes) and not mainly_same(held.event.top_features, verdict.causes)
        if not (is_worse or has_grown or has_moved):
            return None
        event = replace(self._follow(held, "update", verdict, severity), recurring=recurring)
        if self._silenced and self._is_silenced(event.top_features):
            self._ask_again_in = settings.clear_rows
            return None
        held.event, held.told_score = event, max(held.told_score, verdict.score)
        return event

    def _raise_anomaly(self, verdict: Verdict, explain: Callable[[], tuple[Cause, ...]] | None) -> Alert | None:
        settings = self._settings
        anomalous = [timestamp for timestamp, is_anomaly in self._recent if is_anomaly]
        if not verdict.is_anomaly or len(anomalous) < settings.raise_rows or self.is_unsettled:
            return None
        if self._ended.cools_down(verdict.timestamp, settings.cooldown_s):
            return None  # every anomalous row asks again, so a fault that lasts is late by the cool-down at most
        if self._ask_again_in > 0:
            self._ask_again_in -= 1
            return None
        causes = (verdict.causes or (explain() if explain else ()))[:TOP_FEATURES]
        if self._silenced and self._is_silenced(causes):
            # Causes cost several scores, and a silenced fault lasts: another one is late by these rows at most.
            self._ask_again_in = settings.clear_rows
            return None
        held = self._ended.take(causes, anomalous[0])
        if held is not None:
            return self._return(held, replace(verdict, causes=causes))
        block = Block(anomalous[0], verdict.timestamp, verdict.score, directions(causes))
        again = self.past.look(block)
        severity = "warning" if again is not None else severity_of(verdict, settings.critical_ratio)
        event = self._begin("anomaly", anomalous[0], replace(verdict, causes=causes), severity)
        event = replace(event, recurring=None if again is None else again.told)
        self._anomaly = Held(event, verdict.score, causes, told_score=verdict.score, looked_at=verdict.timestamp)
        self._anomaly.see(verdict)
        return event

    def _return(self, held: Held, verdict: Verdict) -> Alert:
        """Open an alert again that ended a short while ago: each time it takes longer to end."""
        held.see(verdict)
        critical = self._settings.critical_ratio
        severity = "warning" if held.event.recurring is not None else severity_of(verdict, critical, held)
        held.event = self._follow(held, "update", verdict, severity)
        held.told_score, held.looked_at = max(held.told_score, verdict.score), verdict.timestamp
        self._anomaly = held
        return held.event

    @classmethod
    def _follow(cls, held: Held, event_type: AlertType, verdict: Verdict, severity: Severity) -> Alert:
        causes = verdict.causes[:TOP_FEATURES] or held.strongest_causes
        return as_of(replace(held.event, type=event_type, severity=severity, top_features=causes), verdict)

    # -- changed -------------------------------------------------------------------------------------------------------

    def _update_changed(self, verdict: Verdict, since: float) -> Alert | None:
        """Open, follow and end the alert that the machine is in another state, one that began at ``since``."""
        held = self._others.get("changed")
        if not verdict.changed:
            self._moved = ()
            if held is None:
                return None
            self.past.lasted(Block(held.since, verdict.timestamp, held.score, directions(held.top_features)))
            return self._kept(as_of(replace(held, type="end"), verdict))
        if held is None:
            if self._silenced and self._is_silenced(self._moved):
                return None
            return self._kept(self._begin("changed", since, replace(verdict, causes=self._moved)))
        if {cause.feature for cause in self._moved} == {cause.feature for cause in held.top_features}:
            return None
        return self._kept(as_of(replace(held, type="update", top_features=self._moved), verdict))

    # -- drift ---------------------------------------------------------------------------------------------------------

    def follow_drift(self, drifts: tuple[Cause, ...], since: float, verdict: Verdict) -> Alert | None:
        """Take what drifts as of today: open the alert, bring it up to date, end it.

        Parameters
        ----------
        drifts : tuple of Cause
            The furthest first; empty when nothing does.
        since : float
            Unix seconds at which it began, where it is news.
        verdict : Verdict
            Of the row at which it was found.
        """
        if self._silenced is None or (drifts and self._silenced and self._is_silenced(drifts)):
            return None
        held = self._others.get("drift")
        if not drifts:
            return None if held is None else self._kept(as_of(replace(held, type="end"), verdict))
        verdict = replace(verdict, causes=drifts)
        if held is None:
            return self._kept(self._begin("drift", since, verdict))
        return self._kept(as_of(replace(held, type="update", top_features=drifts), verdict))

    # -- overdue -------------------------------------------------------------------------------------------------------

    def habit_looked_for(
        self, since: float, timestamp: float, missed: Recurring | None, causes: tuple[Cause, ...]
    ) -> Alert | None:
        """Take whether what comes every day has come today: open an alert, or end the one of this habit.

        Parameters
        ----------
        since : float
            Unix seconds at which it should have begun.
        timestamp : float
            Of the newest row.
        missed : Recurring or None
            On which days it came before today; ``None`` where it has come, or does not come every day any more.
        causes : tuple of Cause
            What moves in it.
        """
        held = self._others.get("overdue")
        if missed is None:
            is_its_own = held is not None and same_time(since - held.since, PERIODS["day"])
            return self._kept(replace(held, type="end", timestamp=timestamp)) if held and is_its_own else None
        if held is not None or self._silenced is None or self._is_silenced(causes):
            return None
        return self._kept(replace(self._begin("overdue", since, self._unjudged(timestamp, causes)), recurring=missed))

    # -- missing -------------------------------------------------------------------------------------------------------

    def _report_missing(self, timestamp: float) -> Alert | None:
        """Compare what is absent now with the last event; return the event that closes the difference."""
        lack, held = self._absences.lack(), self._others.get("missing")
        if lack is None:
            self.together = None
            return None if held is None else self._kept(replace(held, type="end", timestamp=timestamp))
        unjudged = self._unjudged(timestamp, lack.causes)
        if held is None:
            begun = self._begin("missing", lack.since, unjudged, lack.severity)
            return self._kept(replace(begun, together=self.together))
        severity = "critical" if held.severity == "critical" else lack.severity
        if (held.top_features, held.severity, held.together) == (lack.causes, severity, self.together):
            return None
        grown = replace(held, type="update", severity=severity, top_features=lack.causes, together=self.together)
        return self._kept(as_of(grown, unjudged))

    def _unjudged(self, timestamp: float, causes: tuple[Cause, ...]) -> Verdict:
        """What stands for a verdict where no row was judged."""
        return Verdict(self._stream, timestamp, math.nan, math.nan, False, causes, (), self._model_version)

    # -- memory --------------------------------------------------------------------------------------------------------

    def _begin(self, kind: AlertKind, since: float, verdict: Verdict, severity: Severity = "warning") -> Alert:
        """The first event of an alert, with the causes of a verdict."""
        alert_id = self._ids.new(kind, since)
        return Alert(
            id=alert_id,
            type="new",
            kind=kind,
            stream=self._stream,
            since=since,
            timestamp=verdict.timestamp,
            score=verdict.score,
            threshold=verdict.threshold,
            severity=severity,
            top_features=verdict.causes,
            model_version=verdict.model_version,
            group=self.group(alert_id, since),
        )

    def _kept(self, event: Alert) -> Alert:
        """Remember the newest event of an alert that is of no anomaly."""
        if event.type == "end":
            self._others.pop(event.kind, None)
        else:
            self._others[event.kind] = event
        return event

    def state(self) -> dict[str, Any]:
        """Return everything the next events depend on, fit for JSON; give it to the next `AlertPolicy`."""
        return {
            "version": _STATE_VERSION,
            "stream": self._stream,
            "recent": [list(row) for row in self._recent],
            "normal_rows": self._normal_rows,
            "ended_at": self._ended.at,
            "anomaly": self._anomaly and self._anomaly.state(),
            "ended": [held.state() for held in self._ended.alerts],
            "habits": self.past.state(),
            "others": [alert_json(event) for event in self._others.values()],
            "absent": self._absences.state(),
            "last_row_at": self._last_row_at,
            "model_version": self._model_version,
            "newest_id": self._ids.state(),
        }

    def _restore(self, state: Mapping[str, Any]) -> None:
        if state["version"] != _STATE_VERSION or state["stream"] != self._stream:
            raise ValueError("the state of another stream or version")
        self._recent = [(float(t), bool(anomalous)) for t, anomalous in state["recent"]][-self._settings.raise_of :]
        self._normal_rows = int(state["normal_rows"])
        if state["anomaly"] is not None:
            self._anomaly = Held.of(state["anomaly"])
        self._ended = JustEnded(map(Held.of, state.get("ended", ())), state["ended_at"])
        self.past = Memory(state.get("habits", ()))
        for event in map(alert_of, state["others"]):
            self._others[event.kind] = event
            self.together = event.together or self.together
        if "changed" in self._others:
            self._moved = self._others["changed"].top_features
        self._absences = Absences(state["absent"])
        self._last_row_at = state["last_row_at"]
        self._model_version = str(state["model_version"])
        self._ids = Ids(self._stream, state["newest_id"])
