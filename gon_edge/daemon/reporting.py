"""What comes out of the pipeline, told to everyone who hears of it: series, store, broker, log.

The last hop of a message.  Nothing is decided here: which rows are anomalous, what is news and what must not be learned
stands in the steps and outcomes of ``stream.pipeline``.  A field of the state message is a field of the reference
(``tools/make_reference.py``).
"""

from __future__ import annotations

import json
import logging
import math
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any, Protocol

from gon_edge.daemon.untold import Untold
from gon_edge.events import Alert, AnswerWord, AwayReason, Cause, Dropped, Verdict
from gon_edge.links.prometheus import Telemetry
from gon_edge.process.logs import Seldom
from gon_edge.state.store import Store
from gon_edge.stream import drift
from gon_edge.stream.habits import in_words
from gon_edge.stream.heard import Heard, Step
from gon_edge.stream.held import TOP_FEATURES, event_json
from gon_edge.stream.ledger import IN_WORDS
from gon_edge.stream.outcome import Outcome
from gon_edge.stream.stream import Stream

log = logging.getLogger(__name__)

STATE_EVERY_S = 1.0
"""Between two state messages of a stream, unless something happens: as often as the page looks."""

_STATES_A_SECOND = 100
"""Of all streams together, unless something happens: of a thousand, each tells its score every ten seconds.  Each state
costs as much as a row.  Not critical."""

ALERTS_SHOWN = 50  # on the page, as many as fit two screens; more where more are open
_ALL = 1 << 30  # alerts: those that are open are few
_KEYS_NAMED = 50  # in the log, of one subscription; not critical: the page and status name the newest
_SUBSCRIPTIONS_NAMED = 500  # not critical: more than anybody writes
_WAITS_S = 60.0  # not critical: eight readings of most devices
_CALM = frozenset({"null", "nan", "text", "behind", "unread", "excluded", "no_time"})  # what devices send every day
TOLD_AWAY_S = 3.0
"""A shorter absence is counted, and no news.  Not critical: a broker that restarts takes as long."""

_ANSWER = ("answer", "note")  # what the page and the store show of an alert beside its events

_LATENCIES = 128  # newest ones, of which the page shows quantiles; not critical


class Tally:
    """A count that is kept elsewhere, and told as it grows.

    Parameters
    ----------
    read : callable
        The count so far.
    tell : callable
        Hears by how much it has grown.
    """

    def __init__(self, read: Callable[[], int], tell: Callable[[int], None]) -> None:
        self._read, self._tell = read, tell
        self._told = 0

    def look(self) -> None:
        """Tell what has come since the last look."""
        count = self._read()
        if count > self._told:
            self._tell(count - self._told)
            self._told = count


class Broker(Protocol):
    """Who gets what is published: `MqttClient`, or a rehearsal that keeps the alerts.

    Attributes
    ----------
    client_id : str
        Under which nobody else publishes.
    confirms : bool
        Whether it says what became of each event (`Reporter.settle`).
    """

    client_id: str
    confirms: bool

    def topic(self, *levels: str) -> str:
        """The topic of the daemon's own with these levels."""

    def publish(self, topic: str, payload: str, *, retain: bool = False, shorter: str = "") -> None:
        """Send soon, or `shorter` where the broker takes no message of this size; never waits."""


class Reporter:
    """Hop 8.

    Parameters
    ----------
    telemetry : Telemetry
    client : Broker
    store : Store
    monotonic : callable
        Seconds that go on while the machine sleeps.
    on_row : callable
        Hears of each row that a stream's own model has scored: stream, verdict, and whether the row may be learned.
    on_alert : callable
        Hears of each stream on which an alert begins.
    on_end : callable
        Hears of each alert that ends; says whether it has come again and its rows are learned from now on for that.

    Attributes
    ----------
    alerts : dict of str to dict
        The newest event of each of the newest alerts, and of all that are open, by id, the oldest first.
    latencies : deque of float
        Seconds from receipt to verdict of the newest rows.
    away : dict or None
        The newest time in which the broker could not be heard: ``seconds``, ``until`` (Unix seconds), ``reason``.
    seldom : Seldom
        Complaints that repeat.
    untold : Untold
        Alerts of which the broker does not have the newest event.
    """

    def __init__(
        self,
        telemetry: Telemetry,
        client: Broker,
        store: Store,
        *,
        monotonic: Callable[[], float],
        on_row: Callable[[Stream, Verdict, bool], None],
        on_alert: Callable[[Stream], None],
        on_end: Callable[[Stream, Alert], bool],
    ) -> None:
        newest = sorted((*store.alerts(ALERTS_SHOWN), *store.alerts(_ALL, active=True)), key=lambda each: each["since"])
        self.alerts: dict[str, dict[str, object]] = {event["id"]: event for event in newest}
        self._make_room()
        self.latencies: deque[float] = deque(maxlen=_LATENCIES)
        self.away: dict[str, object] | None = None
        self.seldom = Seldom(log)
        self.untold = Untold()
        self._telemetry = telemetry
        self._client = client
        self._store = store
        self._monotonic = monotonic
        self._on_row = on_row
        self._on_alert = on_alert
        self._on_end = on_end
        self._published_at: dict[str, float] = {}
        self._waits_since: dict[
            str, float
        ] = {}  # when a stream without rows was seen first; infinite once that is said
        self._named: dict[str, set[str]] = {}  # keys that the log has named, by subscription

    def message(self, heard: Heard) -> None:
        """Count what became of a message, apart from its steps."""
        telemetry = self._telemetry
        if (error := heard.refused) is not None:
            telemetry.message("invalid")
            telemetry.rejected(error.reason)
            kind = f"{heard.subscription} {error.reason}"
            self.seldom.say(kind, logging.WARNING, f"message refused: {error}")
            return
        for reason, count in heard.ignored.items():
            telemetry.ignored(reason, count)
            self._say_ignored(heard.subscription, reason)
        for reason, count in heard.rejected.items():
            telemetry.message("invalid", count)
            telemetry.rejected(reason, count)
        for reason, count in heard.masked.items():
            telemetry.masked(reason, count)
        for dropped in heard.dropped:
            self._say_dropped(heard.subscription, "", dropped)
        for name in heard.crowded_out:
            self.seldom.say("streams", logging.WARNING, f"stream {name!r} refused: limits.streams is reached")

    def step(self, step: Step) -> None:
        """Tell what a reading, or the pass of time, did to a stream."""
        stream, telemetry = step.stream, self._telemetry
        if step.starter is not None:
            log.info("stream %r: scored by %s until it has a model of its own", stream.name, step.starter.version)
        telemetry.message("accepted", step.accepted)
        telemetry.message("late", step.late)
        if step.unwanted:
            telemetry.ignored("excluded", step.unwanted)
        for reason, count in step.lost.items():
            telemetry.masked(reason, count)
        for dropped in step.fresh:
            self._say_dropped(step.subscription, stream.name, dropped)
        if step.clock_steps:
            telemetry.clock_step()
            log.warning("stream %r: its clock was set; the grid follows", stream.name)
        self.rows(stream, step.outcomes)
        if step.stopped:
            log.warning("stream %r: no new reading for %.0f s", stream.name, self._monotonic() - stream.heard_at)
            self.tell(stream, step.silent)

    def waits(self, stream: Stream, now: float) -> None:
        """Say once why a stream still has no row, a while after its first reading; ``now`` is monotonic seconds."""
        why = stream.aligner.waits_for
        if not why:
            self._waits_since.pop(stream.name, None)
        elif now - self._waits_since.setdefault(stream.name, now) > _WAITS_S:
            self._waits_since[stream.name] = math.inf
            log.warning("stream %r makes no row yet: %s", stream.name, why)

    def _say_dropped(self, subscription: str, stream: str, dropped: Dropped) -> None:
        """Name a key that became no value, once for each subscription."""
        if dropped.reason == "once":  # it is no news yet
            return
        of = f"stream {stream!r}" if stream else ""
        where = f"subscription {subscription!r}" if subscription else of
        if self._is_news(where, dropped.key):
            example = f" ({dropped.example})" if dropped.example else ""
            log.log(
                logging.INFO if dropped.reason in _CALM else logging.WARNING,
                "%s: %r is not used: %s%s",
                f"{where}, {of}" if of and of != where else where,
                dropped.key,
                IN_WORDS.get(dropped.reason, dropped.reason),
                example,
            )

    def _say_ignored(self, subscription: str, reason: str) -> None:
        """Say once why messages of a subscription's topics are not looked at."""
        if reason in ("own", "discovery", "excluded", "no_value") and self._is_news(subscription, f"({reason})"):
            level = logging.INFO if reason == "no_value" else logging.WARNING
            log.log(level, "subscription %r: some messages are left out: %s", subscription, IN_WORDS[reason])

    def _is_news(self, where: str, key: str) -> bool:
        """Whether a key has not been named yet; of a device that makes up names only the first are."""
        named = self._named.get(where)
        if named is None:
            if len(self._named) >= _SUBSCRIPTIONS_NAMED:
                return False
            named = self._named[where] = set()
        if key in named or len(named) > _KEYS_NAMED:
            return False
        named.add(key)
        if len(named) > _KEYS_NAMED:
            log.warning("%s: more keys are not used; the page and gon-edge status --json name the newest", where)
            return False
        return True

    def rows(self, stream: Stream, outcomes: list[Outcome]) -> None:
        """Count, store and tell rows with their verdicts."""
        telemetry = self._telemetry
        for outcome in outcomes:
            row, verdict = outcome.row, outcome.verdict
            withheld = outcome.withheld is not None
            now = self._monotonic()
            self._store.add_row(row, withheld, now)
            if verdict is None:
                telemetry.row(row.stream, row.timestamp, "training" if outcome.waited else "warming_up")
                continue
            telemetry.row(row.stream, row.timestamp)
            latency = None if outcome.waited else now - row.received_at
            if latency is not None:
                self.latencies.append(latency)
            telemetry.verdict(verdict, scoring_s=outcome.scoring_s, latency_s=latency)
            if stream.model is not None:
                self._on_row(stream, verdict, not withheld)
            self.tell(stream, outcome.alerts)
        if outcomes:
            self.state(stream)

    def tell(self, stream: Stream, alerts: tuple[Alert, ...]) -> None:
        """Tell events of a stream: log, series, broker, store."""
        if any(alert.type == "new" for alert in alerts):
            # First: a kill between the two must leave no event behind that the next run cannot find (`Scoring.recall`).
            self.state(stream, force=True)
        for alert in alerts:
            if alert.type == "end" and self._on_end(stream, alert) and alert.recurring is not None:
                alert = replace(alert, recurring=replace(alert.recurring, learned=True))
            self._telemetry.alert(alert)
            self.tell_one(alert)
            if alert.type == "new" and alert.kind != "overdue":  # its rows are normal, only too few
                self._on_alert(stream)
        if alerts:
            self._store.put_state(f"alerts/{stream.name}", stream.memory())
            self.state(stream, force=True)

    def tell_one(self, alert: Alert) -> None:
        """Tell an event of a stream, or of the daemon itself: log, broker, store, page."""
        log.log(logging.WARNING if alert.type == "new" else logging.INFO, "%s", _line(alert))
        self._tell_event(event_json(alert))

    def _tell_event(self, event: dict[str, Any]) -> None:
        self._publish(event)
        before = self.alerts.pop(event["id"], {})
        event |= {key: before[key] for key in _ANSWER if key in before}
        self._store.add_alert(event)
        self.alerts[event["id"]] = event
        self._make_room()

    def _make_room(self) -> None:
        """Let the oldest alerts go that are over; what is open stays on the page however old it is."""
        while len(self.alerts) > ALERTS_SHOWN:
            oldest = next((name for name, event in self.alerts.items() if event["type"] == "end"), None)
            if oldest is None:
                break
            del self.alerts[oldest]

    def end_orphan(self, event: Mapping[str, Any], wall: float) -> None:
        """End an alert of an earlier run that no stream knows any more; ``wall`` is when, Unix seconds."""
        log.warning("alert end: no stream knows of %s any more, which an earlier run has left open", event["id"])
        self.alerts.setdefault(event["id"], dict(event))
        self._tell_event({**{k: v for k, v in event.items() if k not in _ANSWER}, "type": "end", "timestamp": wall})

    def take_state_away(self, name: str) -> None:
        """Take the retained state of a stream away, which is no longer watched."""
        self._client.publish(self._client.topic("state", name), "", retain=True)

    def remind(self, streams: Iterable[Stream]) -> None:
        """Publish the open alerts again, as updates: to whom the broker did not keep what was said of them."""
        for stream in streams:
            for alert in stream.policy.audible:
                event = event_json(replace(alert, type="update"))
                self._publish(event)
            self.state(stream, force=True)

    def settle(self, payload: bytes, why: str) -> str | None:
        """Hear what became of an event at the broker, and why it was lost, if it was.

        Returns the stream whose state says something else now.
        """
        try:
            event = json.loads(payload)
            newest = self._newest(event["id"])
        except (ValueError, KeyError, TypeError):  # an event of another topic
            return None
        changed = newest is not None and self.untold.settle(event, newest, why)
        return str(event["stream"]) if changed else None

    def say_again(self, *, anew: bool, most: int | None = None) -> None:
        """Tell how alerts are now of which the broker did not take an event: it may take it by now.

        Parameters
        ----------
        anew : bool
            By a new connection.
        most : int, optional
            The oldest so many of them only.
        """
        for alert in self.untold.again(anew=anew)[:most]:
            if (event := self._newest(alert)) is None:
                del self.untold.lost[alert]
            else:
                self._publish({key: value for key, value in event.items() if key not in _ANSWER})

    def _newest(self, alert: str) -> Mapping[str, Any] | None:
        """The newest event of an alert, also of one that is not shown any more."""
        return self.alerts.get(alert) or self._store.alert(alert)

    def answered(self, alert: str, answer: AnswerWord, note: str) -> None:
        """Show what a person has said of an alert, as long as it is shown."""
        if alert in self.alerts:
            self.alerts[alert] = {**self.alerts[alert], "answer": answer, "note": note}  # others read the old one

    def state(self, stream: Stream, *, force: bool = False) -> None:
        """Publish a stream's state, retained, unless that was just done or ``force`` is set."""
        now = self._monotonic()
        self._telemetry.stream_state(stream.name, stream.state)
        every_s = max(STATE_EVERY_S, len(self._published_at) / _STATES_A_SECOND)
        if not force and now - self._published_at.get(stream.name, -math.inf) < every_s:
            return
        self._published_at[stream.name] = now
        verdict = stream.verdict
        missing = verdict.missing if verdict else ()
        state = {
            "stream": stream.name,
            "state": stream.state,
            "timestamp": stream.last_row.timestamp if stream.last_row else None,
            "score": round(verdict.score, 6) if verdict else None,
            "threshold": round(verdict.threshold, 6) if verdict else None,
            "is_anomaly": verdict.is_anomaly if verdict else False,
            "alerts": [alert.id for alert in stream.policy.audible],
            "untold": self.untold.of(stream.name),
            "missing": list(missing[:TOP_FEATURES]),
            "missing_count": len(missing),
            "model_version": stream.scored_by.version if stream.scored_by else None,
            "client_id": self._client.client_id,
        }
        short = json.dumps(dict(state, missing=[])) if missing else ""
        self._client.publish(self._client.topic("state", stream.name), json.dumps(state), retain=True, shorter=short)

    def _publish(self, event: Mapping[str, Any]) -> None:
        """Publish an event; a broker that takes no more gets it without its causes."""
        causes = len(event.get("top_features", ()))
        short = {**event, "top_features": [], "more_features": causes + event.get("more_features", 0)}
        if self._client.confirms:
            self.untold.sent(event)
        self._client.publish(
            self._client.topic("alert"), json.dumps(event), shorter=json.dumps(short) if causes else ""
        )

    def was_away(self, reason: AwayReason, seconds: float, wall: float) -> None:
        """Say that the broker could not be heard for so long, up to ``wall`` (Unix seconds)."""
        if seconds <= 0.0:
            return
        self._telemetry.away(reason, seconds)
        if seconds >= TOLD_AWAY_S:
            why = "there was no broker" if reason == "offline" else "this process stood still"
            log.warning("I was away for %.0f s: %s; silences of this time do not count", seconds, why)
            self.away = {"seconds": round(seconds, 3), "until": wall, "reason": reason}

    def dropped(self, count: int) -> None:
        """Count messages that the queue had no room for."""
        self.seldom.say("queue", logging.WARNING, "messages arrive faster than they are scored; the oldest go")
        self._telemetry.message("dropped", count)

    def forget(self, stream: Stream) -> None:
        """Take a stream's series away, and its retained state; an alert that a starter has raised ends with it."""
        log.info("stream %r is forgotten: silent, without a model, and limits.streams is reached", stream.name)
        for alert in stream.policy.active:
            self.tell_one(replace(alert, type="end"))
        self._let_go(stream.name)

    def close(self, name: str) -> None:
        """Take all away that is shown of a stream, its alerts too."""
        self._let_go(name)
        self.alerts = {key: event for key, event in self.alerts.items() if event["stream"] != name}

    def _let_go(self, name: str) -> None:
        self._telemetry.remove_stream(name)
        self.take_state_away(name)
        self._published_at.pop(name, None)
        self._waits_since.pop(name, None)


def _line(alert: Alert) -> str:
    """One line for the log."""
    causes = "; ".join(_cause(cause) for cause in alert.top_features[:3])
    if (together := alert.together) is not None:
        names = ", ".join(map(repr, together.streams[:3]))
        causes = f"{together.count} of {together.of} streams fell silent together: {names}"
    again = f", {in_words(alert.recurring)}" if alert.recurring is not None else ""
    if alert.kind == "offline":
        return f"alert {alert.type} offline {alert.severity}: there is no broker [{alert.id}]"
    what = f"alert {alert.type} {alert.kind} {alert.severity} on {alert.stream!r}{again}"
    return f"{what}: {causes or 'cause unknown'} [{alert.id}]"


def _cause(cause: Cause) -> str:
    if cause.trend is not None:
        return drift.in_words(cause)
    if cause.value is None or cause.expected is None:
        return cause.feature
    unit = " a row" if cause.per_row else ""
    return f"{cause.feature} {cause.value:.4g}{unit} (expected {cause.expected:.4g}, {100 * cause.contribution:.0f} %)"
