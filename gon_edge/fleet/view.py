"""`gon-edge fleet view`: what thousands of daemons say of themselves, read from a broker, and scored by nobody again.

Each daemon keeps a retained status and a retained state of each stream with its broker; where brokers of sites are
bridged into one, that one has the states of all.  `View` is pure: messages in, which daemons are well out.  `gather`
asks a broker, `view_text` and `view_json` show it.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal
from urllib.parse import unquote

from gon_edge.commands.text import cause_text, duration_text, number_text, table
from gon_edge.config.schema import MqttConfig
from gon_edge.links.mqtt.queue import Message
from gon_edge.links.publisher import Publisher

Standing = Literal["alarm", "offline", "silent", "ok"]
"""How a daemon is: an alert is open; it said goodbye or its broker lost it; a stream has stopped; nothing of these."""

STANDINGS: tuple[Standing, ...] = ("alarm", "offline", "silent", "ok")

_QUIET_S = 0.5
"""Without another retained message they have all come.  Not critical: a broker sends them in one go."""

_MOST_S = 60.0
"""A broker that goes on sending is believed to be done.  Not critical: 100,000 states take some ten seconds."""

_SHOWN = 40
"""Daemons in the table.  Not critical: what fits on a screen; `--all` and `--json` have every one."""


@dataclass(slots=True)
class Daemon:
    """What one daemon has said.

    Attributes
    ----------
    node : str
    status : str
        ``online`` or ``offline``; empty where it has said neither.
    states : dict of str to dict
        The state of each stream.
    alerts : dict of str to dict
        The newest event of each alert that was told since we listen.
    """

    node: str
    status: str = ""
    states: dict[str, dict[str, Any]] = field(default_factory=dict)
    alerts: dict[str, dict[str, Any]] = field(default_factory=dict)

    @property
    def in_alarm(self) -> list[dict[str, Any]]:
        """States of the streams with an open alert."""
        return [state for state in self.states.values() if state.get("alerts")]

    @property
    def stale(self) -> list[str]:
        """Streams that have stopped."""
        return [name for name, state in self.states.items() if state.get("state") == "stale"]

    @property
    def newest(self) -> float | None:
        """Unix seconds of the newest row of any of its streams."""
        times = [
            state["timestamp"] for state in self.states.values() if isinstance(state.get("timestamp"), int | float)
        ]
        return max(times, default=None)

    @property
    def standing(self) -> Standing:
        """How it is; one that is offline cannot know whether its alert is over."""
        if self.status == "offline":
            return "offline"
        if self.in_alarm:
            return "alarm"
        return "silent" if self.stale else "ok"


class View:
    """Every daemon of a broker.

    Parameters
    ----------
    base_topic : str
        ``mqtt.base_topic`` of the daemons.

    Attributes
    ----------
    daemons : dict of str to Daemon
        By node.
    unread : int
        Messages on topics of daemons that nobody could make sense of.
    """

    def __init__(self, base_topic: str = "gon-edge") -> None:
        self.daemons: dict[str, Daemon] = {}
        self.unread = 0
        self._base = base_topic.split("/")

    @property
    def topics(self) -> tuple[str, ...]:
        """What to subscribe to."""
        base = "/".join(self._base)
        return f"{base}/+/status", f"{base}/+/state/+", f"{base}/+/alert"

    def take(self, topic: str, payload: bytes) -> None:
        """Take a message of a daemon; an empty one takes away what it had said."""
        levels = topic.split("/")[len(self._base) :]
        match levels:
            case [node, "status"]:
                self._daemon(node).status = payload.decode(errors="replace")
            case [node, "state", stream]:
                states = self._daemon(node).states
                if not payload:
                    states.pop(unquote(stream), None)
                elif (state := self._object(payload)) is not None:
                    states[unquote(stream)] = state
            case [node, "alert"]:
                event = self._object(payload)
                if event is not None and isinstance(event.get("id"), str):
                    self._daemon(node).alerts[event["id"]] = event
            case _:
                self.unread += 1

    def _daemon(self, node: str) -> Daemon:
        name = unquote(node)
        return self.daemons.setdefault(name, Daemon(name))

    def _object(self, payload: bytes) -> dict[str, Any] | None:
        try:
            found = json.loads(payload)
        except ValueError:
            found = None
        if not isinstance(found, dict):
            self.unread += 1
            return None
        return found

    def counts(self) -> dict[Standing, int]:
        """Return how many daemons there are of each standing."""
        found = Counter(daemon.standing for daemon in self.daemons.values())
        return {standing: found[standing] for standing in STANDINGS}

    def worst_first(self) -> list[Daemon]:
        """Return the daemons, those that need a person first, then by name."""
        return sorted(self.daemons.values(), key=lambda daemon: (STANDINGS.index(daemon.standing), daemon.node))


def gather(broker: MqttConfig, view: View, seconds: float | None = None) -> None:
    """Ask a broker for what daemons keep there.

    Parameters
    ----------
    broker : MqttConfig
    view : View
    seconds : float, optional
        How long to listen.  Default: until what is retained has come.

    Raises
    ------
    UnreachableError
        No broker, or it refuses one of the topics.
    """
    began = heard = time.monotonic()

    def take(message: Message) -> None:
        nonlocal heard
        if message.retained:
            heard = time.monotonic()
        view.take(message.topic, message.payload)

    with Publisher(broker) as listener:
        listener.subscribe(view.topics, take)
        until = began + (seconds if seconds is not None else _MOST_S)
        while (now := time.monotonic()) < until and (seconds is not None or now < heard + _QUIET_S):
            listener.wait_until(now + 0.1)


def view_json(view: View, broker: str) -> dict[str, Any]:
    """Return everything for a script."""
    return {
        "broker": broker,
        "counts": {**view.counts(), "daemons": len(view.daemons), "streams": _streams(view)},
        "unread": view.unread,
        "daemons": [
            {
                "node": daemon.node,
                "standing": daemon.standing,
                "status": daemon.status,
                "newest": daemon.newest,
                "streams": len(daemon.states),
                "stale": daemon.stale,
                "alarms": [{**state, "events": list(_events(daemon, state))} for state in daemon.in_alarm],
            }
            for daemon in view.worst_first()
        ],
    }


def view_text(view: View, now: float, *, whole: bool = False) -> str:
    """Return a page for a person.

    Parameters
    ----------
    view : View
    now : float
        Unix seconds.
    whole : bool
        Show every daemon, those that are well too.
    """
    if not view.daemons:
        return "no daemon has said anything here; see mqtt.base_topic, which --base-topic must be\n"
    counts = view.counts()
    words = {"alarm": "in alarm", "offline": "offline", "silent": "with a silent stream", "ok": "ok"}
    told = ", ".join(f"{count} {words[standing]}" for standing, count in counts.items() if count)
    lines = [f"{len(view.daemons)} daemons, {_streams(view)} streams: {told}", ""]
    daemons = view.worst_first()
    shown = daemons if whole else [daemon for daemon in daemons if daemon.standing != "ok"][:_SHOWN]
    if shown:
        rows = [["DAEMON", "IS", "STREAMS", "NEWEST ROW", "WHAT"]]
        for daemon in shown:
            age = "-" if daemon.newest is None else f"{duration_text(max(0.0, now - daemon.newest))} ago"
            rows.append([daemon.node, daemon.standing, str(len(daemon.states)), age, "; ".join(_what(daemon))])
        lines += table(rows)
    if left := len(daemons) - len(shown):
        lines.append(f"and {left} more{'' if whole else ', of which --all shows each'}")
    if view.unread:
        lines.append(f"{view.unread} messages could not be read")
    return "\n".join(lines) + "\n"


def _streams(view: View) -> int:
    return sum(len(daemon.states) for daemon in view.daemons.values())


def _events(daemon: Daemon, state: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for each in state["alerts"]:
        if each in daemon.alerts:
            yield daemon.alerts[each]


def _what(daemon: Daemon) -> Iterator[str]:
    for state in daemon.in_alarm[:3]:
        score = f"{number_text(state.get('score'))} of {number_text(state.get('threshold'))}"
        causes = [cause_text(cause) for event in _events(daemon, state) for cause in event.get("top_features", ())[:2]]
        yield f"{state.get('stream')}: score {score}" + (f", {', '.join(causes)}" if causes else "")
    if len(daemon.in_alarm) > 3:
        yield f"{len(daemon.in_alarm) - 3} more streams in alarm"
    if daemon.stale:
        yield f"silent: {', '.join(daemon.stale[:3])}{', ...' if len(daemon.stale) > 3 else ''}"
    if daemon.status == "offline" and not daemon.in_alarm:
        yield "its last will"
