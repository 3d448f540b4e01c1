"""When a verdict becomes news: `AlertPolicy`, one for each stream.

Two kinds of alert, at most one of each open at a time.  `anomaly`: raised by n of the last m rows, ended by hysteresis,
followed by a cool-down.  `missing`: features without fresh values, or a stream without rows.  Each goes through `new`,
any number of `update`, `end`, all with one id.

A fault that lasts stays an alert: only rows clearly below the threshold end it, and neither time, nor a gap in the
rows, nor a restart does.  Pure: timestamps come with the rows, nothing is published or stored here.  The shape of
`alert_json` is what subscribers parse; a change there is a change for them.

A silenced stream is frozen here: its rows neither raise nor end anything until somebody wants to hear of it again.  Of
a stream with silenced features, alerts are held back whose causes are mainly those features.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from gon_edge.config.schema import AlertsConfig
from gon_edge.events import Alert, AlertKind, AlertType, Cause, Severity, Verdict

TOP_FEATURES = 10
"""Causes that go into an anomaly event: what a person reads, and a bound on the message's size."""

_MAINLY = 0.5
"""An alert is one of silenced features when they hold more than this share of its score."""

_STATE_VERSION = 1


def alert_json(alert: Alert) -> dict[str, Any]:
    """Return the event as it goes out by MQTT and into the history: plain types, NaN as `None`."""
    return {
        "id": alert.id,
        "type": alert.type,
        "kind": alert.kind,
        "stream": alert.stream,
        "since": alert.since,
        "timestamp": alert.timestamp,
        "score": _number(alert.score),
        "threshold": _number(alert.threshold),
        "severity": alert.severity,
        "top_features": [
            {
                "feature": cause.feature,
                "value": _number(cause.value),
                "expected": _number(cause.expected),
                "contribution": _number(cause.contribution),
            }
            for cause in alert.top_features
        ],
        "model_version": alert.model_version,
    }


def _number(value: float | None) -> float | None:
    return float(value) if value is not None and math.isfinite(value) else None


def _alert(event: Mapping[str, Any]) -> Alert:
    """Inverse of `alert_json`."""
    score, threshold = (math.nan if event[key] is None else float(event[key]) for key in ("score", "threshold"))
    causes = tuple(Cause(**cause) for cause in event["top_features"])
    return Alert(**{**event, "score": score, "threshold": threshold, "top_features": causes})


@dataclass(slots=True)
class _Held:
    """An open anomaly: the last event sent, and the causes of its strongest row, for events on rows that have none."""

    event: Alert
    strongest_score: float
    strongest_causes: tuple[Cause, ...]


@dataclass(slots=True)
class _Absence:
    """A feature without fresh values: since when, how many rows it has been back for, whether the alert names it."""

    since: float
    rows_back: int
    reported: bool


_WHOLE_STREAM = "\0stream"
"""Stands among the absent features while the stream as a whole is silent; no payload can hold this name."""


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
        self._silenced: frozenset[str] | None = frozenset()
        self._ask_again_in = 0  # rows for which causes are not asked for: they were silenced ones just now
        self._reset()
        if state is not None:
            try:
                self._restore(state)
            except (KeyError, TypeError, ValueError, AttributeError):
                self._reset()

    def _reset(self) -> None:
        self._recent: deque[tuple[float, bool]] = deque(maxlen=self._settings.raise_of)
        self._normal_rows = 0
        self._ended_at: float | None = None
        self._anomaly: _Held | None = None
        self._missing: Alert | None = None
        self._absent: dict[str, _Absence] = {}
        self._last_row_at: float | None = None
        self._model_version = ""
        self._newest_id: dict[AlertKind, tuple[int, int]] = {}  # (epoch, since in microseconds), see _new_id

    @property
    def active(self) -> tuple[Alert, ...]:
        """The last event of each open alert."""
        events = (self._anomaly.event if self._anomaly else None, self._missing)
        return tuple(event for event in events if event is not None)

    @property
    def is_open(self) -> bool:
        """Whether an alert is open."""
        return self._anomaly is not None or self._missing is not None

    @property
    def is_silenced(self) -> bool:
        """Whether the stream, or a feature of it, is silenced."""
        return self._silenced is None or bool(self._silenced)

    @property
    def audible(self) -> tuple[Alert, ...]:
        """The open alerts that no silence holds back."""
        return tuple(event for event in self.active if not self._is_silenced(event.top_features))

    def silence(self, features: frozenset[str] | None) -> None:
        """Hold back alerts of these features from now on; ``None`` is the whole stream, the empty set is no silence."""
        if features is None:
            self._recent.clear()  # what is raised after the silence begins after it
            self._normal_rows = 0
        self._silenced = features
        self._ask_again_in = 0

    def configure(self, settings: AlertsConfig) -> None:
        """Go on with other settings; what is open stays open."""
        self._settings = settings
        self._recent = deque(self._recent, maxlen=settings.raise_of)

    def _is_silenced(self, causes: Sequence[Cause]) -> bool:
        if self._silenced is None:
            return True
        return sum(cause.contribution for cause in causes if cause.feature in self._silenced) > _MAINLY

    def update(self, verdict: Verdict, explain: Callable[[], tuple[Cause, ...]] | None = None) -> list[Alert]:
        """Take one scored row; return the news it makes, one event of each kind at most.

        Parameters
        ----------
        verdict : Verdict
        explain : callable, optional
            Gives the causes of an anomalous row whose verdict carries none.  Called for rows that make an event only:
            finding causes costs ten times a score.
        """
        self._last_row_at = verdict.timestamp
        self._model_version = verdict.model_version
        if self._silenced is None:
            return []
        if self._silenced and verdict.missing:
            heard = tuple(feature for feature in verdict.missing if feature not in self._silenced)
            verdict = replace(verdict, missing=heard)
        news = (self._update_anomaly(verdict, explain), self._update_missing(verdict))
        return [event for event in news if event is not None]

    def stream_silent(self, timestamp: float, features: Sequence[str] = ()) -> list[Alert]:
        """Say that the whole stream has stopped: its `missing` alert opens, or grows to all its features.

        Calling it again while nothing has changed gives no event.  The next rows that hold the features end the alert.

        Parameters
        ----------
        timestamp : float
            Unix seconds, now.
        features : sequence of str
            Every feature of the stream; without them the alert names none.
        """
        if self._silenced is None:
            return []
        since = timestamp if self._last_row_at is None else min(self._last_row_at, timestamp)
        for feature in (_WHOLE_STREAM, *features):
            absence = self._absent.setdefault(feature, _Absence(since, 0, reported=True))
            absence.reported, absence.rows_back = True, 0
        event = self._report_missing(timestamp)
        return [] if event is None else [event]

    # -- anomaly -------------------------------------------------------------------------------------------------------

    def _update_anomaly(self, verdict: Verdict, explain: Callable[[], tuple[Cause, ...]] | None) -> Alert | None:
        settings = self._settings
        self._recent.append((verdict.timestamp, verdict.is_anomaly))
        # A NaN score compares false: a row that could not be judged does not help to end an alert.  A threshold of 0 or
        # less has no meaningful fraction, so there the threshold itself decides.
        below = verdict.score < (
            settings.clear_ratio * verdict.threshold if verdict.threshold > 0 else verdict.threshold
        )
        self._normal_rows = self._normal_rows + 1 if below and not verdict.is_anomaly else 0

        held = self._anomaly
        if held is None:
            return self._raise_anomaly(verdict, explain)
        if verdict.causes and verdict.score > held.strongest_score:
            held.strongest_score, held.strongest_causes = verdict.score, verdict.causes[:TOP_FEATURES]
        if self._normal_rows >= settings.clear_rows:
            self._anomaly = None
            self._ended_at = verdict.timestamp
            self._recent.clear()  # the next alert begins after this one
            return self._follow(held, "end", verdict, held.event.severity)
        severity = "critical" if held.event.severity == "critical" else self._severity(verdict)
        since_event_s = verdict.timestamp - held.event.timestamp
        if severity == held.event.severity and 0 <= since_event_s < settings.update_every_s:
            return None
        if self._ask_again_in > 0:
            self._ask_again_in -= 1
            return None
        if explain and verdict.is_anomaly and not verdict.causes:
            verdict = replace(verdict, causes=explain())
            if verdict.score > held.strongest_score:
                held.strongest_score, held.strongest_causes = verdict.score, verdict.causes[:TOP_FEATURES]
        event = self._follow(held, "update", verdict, severity)
        if self._silenced and self._is_silenced(event.top_features):
            self._ask_again_in = settings.clear_rows
            return None
        held.event = event
        return event

    def _raise_anomaly(self, verdict: Verdict, explain: Callable[[], tuple[Cause, ...]] | None) -> Alert | None:
        settings = self._settings
        anomalous = [timestamp for timestamp, is_anomaly in self._recent if is_anomaly]
        if not verdict.is_anomaly or len(anomalous) < settings.raise_rows:
            return None
        if self._ended_at is not None and 0 <= verdict.timestamp - self._ended_at < settings.cooldown_s:
            return None  # every anomalous row asks again, so a fault that lasts is late by the cool-down at most
        if self._ask_again_in > 0:
            self._ask_again_in -= 1
            return None
        causes = (verdict.causes or (explain() if explain else ()))[:TOP_FEATURES]
        if self._silenced and self._is_silenced(causes):
            # Causes cost ten times a score, and a silenced fault lasts: another one is late by these rows at most.
            self._ask_again_in = settings.clear_rows
            return None
        event = Alert(
            id=self._new_id("anomaly", anomalous[0]),
            type="new",
            kind="anomaly",
            stream=self._stream,
            since=anomalous[0],
            timestamp=verdict.timestamp,
            score=verdict.score,
            threshold=verdict.threshold,
            severity=self._severity(verdict),
            top_features=causes,
            model_version=verdict.model_version,
        )
        self._anomaly = _Held(event, verdict.score, causes)
        return event

    def _severity(self, verdict: Verdict) -> Severity:
        critical = verdict.threshold > 0 and verdict.score >= self._settings.critical_ratio * verdict.threshold
        return "critical" if verdict.is_anomaly and critical else "warning"

    @staticmethod
    def _follow(held: _Held, event_type: AlertType, verdict: Verdict, severity: Severity) -> Alert:
        return replace(
            held.event,
            type=event_type,
            timestamp=verdict.timestamp,
            score=verdict.score,
            threshold=verdict.threshold,
            severity=severity,
            top_features=verdict.causes[:TOP_FEATURES] or held.strongest_causes,
            model_version=verdict.model_version,
        )

    # -- missing -------------------------------------------------------------------------------------------------------

    def _update_missing(self, verdict: Verdict) -> Alert | None:
        after_s = self._settings.missing_after_s or 0.0
        for feature in verdict.missing:
            absence = self._absent.setdefault(feature, _Absence(verdict.timestamp, 0, reported=False))
            absence.rows_back = 0
            absence.reported |= not 0 <= verdict.timestamp - absence.since < after_s
        for feature in self._absent.keys() - set(verdict.missing):
            absence = self._absent[feature]
            absence.rows_back += 1
            if not absence.reported or absence.rows_back >= self._settings.clear_rows:
                del self._absent[feature]
        return self._report_missing(verdict.timestamp)

    def _report_missing(self, timestamp: float) -> Alert | None:
        """Compare what is absent now with the last event; return the event that closes the difference."""
        reported = {feature: absence for feature, absence in self._absent.items() if absence.reported}
        held = self._missing
        if not reported:
            self._missing = None
            return None if held is None else replace(held, type="end", timestamp=timestamp)
        names = sorted(reported.keys() - {_WHOLE_STREAM})
        causes = tuple(Cause(name, None, None, 1 / len(names)) for name in names)
        severity: Severity = "critical" if _WHOLE_STREAM in reported else "warning"
        if held is None:
            since = min(absence.since for absence in reported.values())
            self._missing = Alert(
                id=self._new_id("missing", since),
                type="new",
                kind="missing",
                stream=self._stream,
                since=since,
                timestamp=timestamp,
                score=math.nan,
                threshold=math.nan,
                severity=severity,
                top_features=causes,
                model_version=self._model_version,
            )
            return self._missing
        severity = "critical" if held.severity == "critical" else severity
        if held.top_features == causes and held.severity == severity:
            return None
        self._missing = replace(
            held,
            type="update",
            timestamp=timestamp,
            severity=severity,
            top_features=causes,
            model_version=self._model_version,
        )
        return self._missing

    # -- identity and memory -------------------------------------------------------------------------------------------

    def _new_id(self, kind: AlertKind, since: float) -> str:
        """`<stream>-<kind>-<since>`; where the clock went back past the newest id, `-<n>` keeps it unique."""
        since_us = round(since * 1e6)
        epoch, newest_us = self._newest_id.get(kind, (0, since_us - 1))
        if since_us <= newest_us:
            epoch += 1
        self._newest_id[kind] = (epoch, since_us)
        seconds, fraction_us = divmod(since_us, 1_000_000)
        try:
            instant = datetime.fromtimestamp(seconds, UTC).strftime("%Y%m%dT%H%M%S")
        except (OverflowError, ValueError, OSError):  # beyond year 9999
            instant = str(seconds)
        fraction = f".{fraction_us:06d}".rstrip("0") if fraction_us else ""
        return f"{self._stream}-{kind}-{instant}{fraction}Z" + (f"-{epoch}" if epoch else "")

    def state(self) -> dict[str, Any]:
        """Return everything the next events depend on, fit for JSON; give it to the next `AlertPolicy`."""
        held = self._anomaly
        return {
            "version": _STATE_VERSION,
            "stream": self._stream,
            "recent": [list(row) for row in self._recent],
            "normal_rows": self._normal_rows,
            "ended_at": self._ended_at,
            "anomaly": held
            and {
                "event": alert_json(held.event),
                "strongest": alert_json(
                    replace(held.event, score=held.strongest_score, top_features=held.strongest_causes)
                ),
            },
            "missing": self._missing and alert_json(self._missing),
            "absent": {name: [a.since, a.rows_back, a.reported] for name, a in self._absent.items()},
            "last_row_at": self._last_row_at,
            "model_version": self._model_version,
            "newest_id": {kind: list(newest) for kind, newest in self._newest_id.items()},
        }

    def _restore(self, state: Mapping[str, Any]) -> None:
        if state["version"] != _STATE_VERSION or state["stream"] != self._stream:
            raise ValueError("the state of another stream or version")
        self._recent.extend((float(timestamp), bool(anomalous)) for timestamp, anomalous in state["recent"])
        self._normal_rows = int(state["normal_rows"])
        self._ended_at = state["ended_at"]
        if (held := state["anomaly"]) is not None:
            strongest = _alert(held["strongest"])
            self._anomaly = _Held(_alert(held["event"]), strongest.score, strongest.top_features)
        if state["missing"] is not None:
            self._missing = _alert(state["missing"])
        self._absent = {name: _Absence(float(s), int(back), bool(r)) for name, (s, back, r) in state["absent"].items()}
        self._last_row_at = state["last_row_at"]
        self._model_version = str(state["model_version"])
        self._newest_id = {kind: (int(epoch), int(us)) for kind, (epoch, us) in state["newest_id"].items()}
