"""A bounded outbox of what waits for the broker: the latest state of each topic, and the newest events.

Decides what is kept and in which order it leaves.  Any thread may use it.  Knows no broker.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterable
from typing import NamedTuple


class Outgoing(NamedTuple):
    """One message to the broker.

    Attributes
    ----------
    topic : str
    payload : bytes
        Empty and retained removes the topic from the broker.
    retain : bool
        It is a state: only the latest of a topic counts.  Otherwise it is an event: each one counts.
    shorter : bytes
        Payload for a broker that takes no message of this size; empty where there is no shorter way to say it.
    """

    topic: str
    payload: bytes
    retain: bool = False
    shorter: bytes = b""


class Outbox:
    """States by topic, the latest of each only, and events in order, the newest `max_events`.

    Parameters
    ----------
    max_events : int
    """

    def __init__(self, max_events: int) -> None:
        self._lock = threading.Lock()
        self._states: dict[str, Outgoing] = {}
        self._unsent: dict[str, None] = {}  # topics of states, in the order in which they changed
        self._events: deque[Outgoing] = deque(maxlen=max_events)

    def __len__(self) -> int:
        return len(self._unsent) + len(self._events)

    def put_state(self, message: Outgoing) -> None:
        """Keep `message` as the state of its topic."""
        with self._lock:
            self._states[message.topic] = message
            self._unsent[message.topic] = None

    def put_event(self, message: Outgoing) -> list[Outgoing]:
        """Append `message`; return the older events that had to go."""
        with self._lock:
            gone = [self._events[0]] if len(self._events) == self._events.maxlen else []
            self._events.append(message)
            return gone

    def events(self) -> list[Outgoing]:
        """Return the events that wait, oldest first."""
        with self._lock:
            return list(self._events)

    def repeat_states(self) -> None:
        """Let every state leave again: a broker may have forgotten them."""
        with self._lock:
            self._unsent = dict.fromkeys(self._states)

    def take(self) -> Outgoing | None:
        """Return what is to leave next, events before states; ``None`` when nothing waits."""
        with self._lock:
            if self._events:
                return self._events.popleft()
            if not self._unsent:
                return None
            topic = next(iter(self._unsent))
            del self._unsent[topic]
            message = self._states[topic]
            if not message.payload:
                del self._states[topic]  # removed from the broker: nothing to repeat
            return message

    def put_back(self, messages: Iterable[Outgoing]) -> list[Outgoing]:
        """Return to the front what was sent and never acknowledged; return the events that found no room."""
        with self._lock:
            events = []
            for message in messages:
                if not message.retain:
                    events.append(message)
                elif not message.payload:  # a removal; other states repeat themselves after the next CONNACK
                    self._states.setdefault(message.topic, message)
            room = (self._events.maxlen or 0) - len(self._events)
            gone = events[: max(0, len(events) - room)]
            self._events.extendleft(reversed(events[len(gone) :]))
            return gone
