"""What a partition has to tell: events of alerts go to JetStream first, each once, and states to the broker.

A `daemon.reporting.Broker`: the `Reporter` publishes here as it does to a daemon's own broker, in the same topics and
the same form.  Sending waits until the messages that made the events are judged (`Partition`), so nothing here waits.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, NamedTuple

from gon_edge.config.schema import MqttConfig
from gon_edge.links.mqtt.client import own_topic

STATE_EVERY_S = 10.0
"""Between two states of a stream of which nothing but score and time is new.  A daemon sends one a second; those of
thousands of streams would be more messages than come in."""

_TELLS = ("state", "is_anomaly", "alerts", "model_version", "missing_count")
"""Fields of a state whose change is told at once."""


class Event(NamedTuple):
    """An event that waits for JetStream.

    Attributes
    ----------
    name : str
        The same for the same event, whoever has judged its row: JetStream takes it once.
    payload : bytes
    """

    name: str
    payload: bytes


class Outlet:
    """What waits to be told of one partition.

    Parameters
    ----------
    settings : MqttConfig
    node : str
        Second level of the topics: the fleet's name.
    publish : callable
        Sends a retained message to the broker: topic, payload, and a shorter one where that is too large.
    now : callable
        Seconds.

    Attributes
    ----------
    client_id : str
        The fleet's name as well: a state is the fleet's, whichever worker has sent it.
    events : list of Event
        The oldest first.
    states : dict of str to dict
        The newest state message of each stream.
    quiet : bool
        States are not sent: their rows are judged again, and newer ones are known.
    """

    def __init__(
        self, settings: MqttConfig, node: str, publish: Callable[[str, str, str], None], now: Callable[[], float]
    ) -> None:
        self.events: list[Event] = []
        self.states: dict[str, dict[str, Any]] = {}
        self.quiet = False
        self.client_id = node
        self._settings, self._node, self._publish, self._now = settings, node, publish, now
        self._sent: dict[str, tuple[float, tuple[Any, ...]]] = {}

    confirms = False
    """JetStream keeps an event until the broker has it."""

    def topic(self, *levels: str) -> str:
        """The topic of the fleet's own with these levels."""
        return own_topic(self._settings, self._node, *levels)

    def publish(self, topic: str, payload: str, *, retain: bool = False, shorter: str = "") -> None:
        """Keep an event for JetStream; send a state, where it is news."""
        if not retain:
            event = json.loads(payload)
            self.events.append(Event(f"{event['id']}/{event['type']}/{event['timestamp']}", payload.encode()))
            return
        if not payload:
            if self._sent.pop(topic, None) is not None:
                self._publish(topic, "", "")
            return
        state = json.loads(payload)
        self.states[state["stream"]] = state
        tells, now = tuple(state[name] for name in _TELLS), self._now()
        sent_at, told = self._sent.get(topic, (-STATE_EVERY_S, ()))
        if not self.quiet and (tells != told or now - sent_at >= STATE_EVERY_S):
            self._sent[topic] = now, tells
            self._publish(topic, payload, shorter)

    def forget(self) -> None:
        """Know nothing more: another worker tells from here on."""
        self.events.clear()
        self.states.clear()
        self._sent.clear()
