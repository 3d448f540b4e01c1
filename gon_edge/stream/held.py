"""An alert that is open, or has ended a short while ago: its last event as JSON and back, its causes beside others.

A fault that comes and goes stays one alert: it is open again when its causes come back soon after its end
(`JustEnded`), and takes longer to end each time.

The shape of `alert_json` is what subscribers parse; a change there is a change for them.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from gon_edge.events import Alert, Cause, Recurring, Severity, Together, Trend, Verdict
from gon_edge.stream.habits import Block, directions

TOP_FEATURES = 10
"""Features that go into an event: what a person reads, and a bound on the message's size."""

_SOON = 10
"""An alert that would begin within this many times ``clear_rows`` after another with mainly the same causes has ended
is that one again; and it ends after one more ``clear_rows`` each time, up to as many.  A judgement: rows and not
minutes, as a fault of a stream with a row a minute flaps over hours."""

_SOON_S = 21600.0
"""Later than this, it is another alert: 150 rows of a stream with one every quarter of an hour are a day and a half,
and what comes every day is no flapping."""

_FLAPPING = 4
"""Alerts that can flap in turn.  Not critical: each takes as much of the state as an open one."""

_MAINLY = 0.5
"""Two lists of causes are mainly the same when they have more than this share of the blame in common, and mainly those
of some features when these have more than it."""


def alert_json(alert: Alert) -> dict[str, Any]:
    """Return the event in plain types, NaN as `None`, with all its features; `event_json` is what goes out."""
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
                **({"per_row": True} if cause.per_row else {}),
                **({"trend": asdict(cause.trend)} if cause.trend is not None else {}),
            }
            for cause in alert.top_features
        ],
        "model_version": alert.model_version,
        "group": alert.group or alert.id,
        "recurring": None if alert.recurring is None else asdict(alert.recurring),
        "together": None if alert.together is None else _together_json(alert.together),
    }


def event_json(alert: Alert) -> dict[str, Any]:
    """Return the event as people and programs are told: as `alert_json`, and bounded.

    Of more features that are missing the first ten by name are in it, and `more_features` says how many there are
    beside them: a broker may take no large packet.
    """
    event = alert_json(replace(alert, top_features=alert.top_features[:TOP_FEATURES]))
    more = len(alert.top_features) - TOP_FEATURES
    return {**event, "more_features": more} if more > 0 else event


def _together_json(together: Together) -> dict[str, Any]:
    return {"count": together.count, "of": together.of, "streams": [*together.streams]}


def _number(value: float | None) -> float | None:
    return float(value) if value is not None and math.isfinite(value) else None


def alert_of(event: Mapping[str, Any]) -> Alert:
    """Inverse of `alert_json`."""
    score, threshold = (math.nan if event[key] is None else float(event[key]) for key in ("score", "threshold"))
    recurring = event.get("recurring")
    together = event.get("together")
    told = {
        "score": score,
        "threshold": threshold,
        "top_features": tuple(cause_of(cause) for cause in event["top_features"]),
        "recurring": None if recurring is None else Recurring(**recurring),
        "together": None if together is None else Together(**{**together, "streams": tuple(together["streams"])}),
    }
    return Alert(**{**event, **told})


def cause_of(cause: Mapping[str, Any]) -> Cause:
    """A cause of an event, from how `alert_json` says it."""
    trend = cause.get("trend")
    return Cause(**{**cause, "trend": None if trend is None else Trend(**trend)})


def as_of(event: Alert, verdict: Verdict) -> Alert:
    """The event, as of the row of a verdict."""
    return replace(
        event,
        timestamp=verdict.timestamp,
        score=verdict.score,
        threshold=verdict.threshold,
        model_version=verdict.model_version,
    )


@dataclass(slots=True)
class Held:
    """An anomaly that is open, or that has ended a short while ago.

    Attributes
    ----------
    event : Alert
        The last one sent.
    strongest_score, strongest_causes : float, tuple of Cause
        Of its strongest row, for events on rows that have no causes.
    told_score : float
        The highest score an event of it has told.
    looked_at : float
        Unix seconds of the row whose causes were last compared with those told.
    returns : int
        Times it came back soon after it had ended.
    rows_since_end : int
    peak : float
        Score of its strongest row, with causes or without.
    """

    event: Alert
    strongest_score: float
    strongest_causes: tuple[Cause, ...]
    told_score: float
    looked_at: float
    returns: int = 0
    rows_since_end: int = 0
    peak: float = 0.0

    def see(self, verdict: Verdict) -> None:
        """Remember the causes of a row that is the strongest so far."""
        self.peak = max(self.peak, verdict.score)  # a score of NaN is not the larger one
        if verdict.causes and verdict.score > self.strongest_score:
            self.strongest_score, self.strongest_causes = verdict.score, verdict.causes[:TOP_FEATURES]

    def ends_after(self, clear_rows: int) -> int:
        """Normal rows in a row that end it."""
        return clear_rows * min(1 + self.returns, _SOON)

    def block(self, until: float) -> Block:
        """What it has been so far, to be compared with what was earlier."""
        return Block(self.event.since, until, self.peak, directions(self.strongest_causes))

    def state(self) -> dict[str, Any]:
        """Return it fit for JSON."""
        strongest = replace(self.event, score=self.strongest_score, top_features=self.strongest_causes)
        return {
            "event": alert_json(self.event),
            "strongest": alert_json(strongest),
            "told_score": _number(self.told_score),
            "looked_at": self.looked_at,
            "returns": self.returns,
            "rows_since_end": self.rows_since_end,
            "peak": self.peak,
        }

    @classmethod
    def of(cls, state: Mapping[str, Any]) -> Held:
        """Inverse of `state`."""
        event, strongest = alert_of(state["event"]), alert_of(state["strongest"])
        told = state.get("told_score", event.score)
        return cls(
            event,
            strongest.score,
            strongest.top_features,
            math.nan if told is None else float(told),
            float(state.get("looked_at", event.timestamp)),
            int(state.get("returns", 0)),
            int(state.get("rows_since_end", 0)),
            float(state.get("peak", 0.0)),
        )


class JustEnded:
    """Anomalies that ended a short while ago, each of which may come back.

    Parameters
    ----------
    alerts : iterable of Held
        The first to end first.
    at : float, optional
        Unix seconds at which the last one ended.

    Attributes
    ----------
    alerts, at
        As given, and brought up to date.
    """

    def __init__(self, alerts: Iterable[Held] = (), at: float | None = None) -> None:
        self.alerts = [*alerts][-_FLAPPING:]
        self.at = at

    def add(self, held: Held, at: float) -> None:
        """Take one that ends now, Unix seconds."""
        held.rows_since_end = 0
        self.alerts = [*self.alerts, held][-_FLAPPING:]
        self.at = at

    def row(self, clear_rows: int) -> None:
        """Count a row, and let go of what ended too many of them ago."""
        for held in self.alerts:
            held.rows_since_end += 1
        while self.alerts and self.alerts[0].rows_since_end > _SOON * clear_rows:
            del self.alerts[0]

    def cools_down(self, at: float, cooldown_s: float) -> bool:
        """Whether less than this has passed since the last one ended; a clock that was set back ends the wait."""
        return self.at is not None and 0 <= at - self.at < cooldown_s

    def take(self, causes: Sequence[Cause], begins: float) -> Held | None:
        """The one that comes back with what begins now, by its causes; it is no longer among those that have ended."""
        if self.at is None or begins - self.at > _SOON_S:
            return None
        held = next((ended for ended in self.alerts if mainly_same(ended.strongest_causes, causes)), None)
        if held is not None:
            self.alerts.remove(held)
            held.returns += 1
        return held


def mainly_same(some: Sequence[Cause], others: Sequence[Cause]) -> bool:
    """Whether two lists of causes blame mainly the same features; two empty ones say nothing, and are not the same."""
    share = {cause.feature: cause.contribution for cause in some}
    common = sum(min(cause.contribution, share.get(cause.feature, 0.0)) for cause in others)
    return common > _MAINLY * min(sum(share.values()), sum(cause.contribution for cause in others))


def is_normal(verdict: Verdict, clear_ratio: float) -> bool:
    """Whether a row lies below so much of the threshold that it helps to end an alert.

    A NaN score compares false: a row that could not be judged does not help.  A threshold of 0 or less has no
    meaningful fraction, so there the threshold itself decides.
    """
    limit = clear_ratio * verdict.threshold if verdict.threshold > 0 else verdict.threshold
    return verdict.score < limit and not verdict.is_anomaly


def are_mainly(causes: Sequence[Cause], features: Collection[str]) -> bool:
    """Whether these features hold more than half of the score."""
    return sum(cause.contribution for cause in causes if cause.feature in features) > _MAINLY


def severity(verdict: Verdict, critical_ratio: float, held: Held | None = None) -> Severity:
    """How bad a row is; an alert that has been critical stays so."""
    if held is not None and held.event.severity == "critical":
        return "critical"
    critical = verdict.threshold > 0 and verdict.score >= critical_ratio * verdict.threshold
    return "critical" if verdict.is_anomaly and critical else "warning"
