"""What leaves, and what becomes of it: from the outbox to a connection, to an acknowledgement, or to a count.

A message may never get through: the broker denies its topic, takes no packet of its size, or ends the connection for
it.  Such a message must not stop all others, nor go in silence: it is put aside, counted by reason, logged, and named
by :meth:`Delivery.troubles`.  Knows no thread but the lock of the outbox.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from gon_edge.events import PUBLISH_LOSSES, PublishLoss
from gon_edge.links.mqtt.connection import Connection
from gon_edge.links.mqtt.lost import Lost
from gon_edge.links.mqtt.outbox import Outbox, Outgoing
from gon_edge.process.logs import Seldom

log = logging.getLogger(__package__)

_SOON_S = 10.0  # not critical: a broker that ends a connection for a message does it at once
_CONNECTIONS_ENDED = 3  # the first may have had another cause, and the second by chance
_SLOW_S = 10.0  # not critical: a broker that lives answers within a second
_UNANSWERED_S = 60.0  # not critical: paho waits for ever, and keep-alive does not see a path that swallows answers
_KEPT_BYTES = 256 << 10  # not critical: some 250 events of the usual size; each flush may write them all
_NAMED = 20  # not critical: topics remembered as trouble
_SETTLED = 10_000  # not critical: events between two looks of the daemon, which looks once a second


class Delivery:
    """Hands messages to one connection after the other.

    Parameters
    ----------
    max_events : int
        Events kept while there is no connection.

    Attributes
    ----------
    outbox : Outbox
    events_dropped : int
        Events that went because `max_events` later ones were waiting.
    lost : dict of str to int
        Messages that the broker did not take, by reason.
    settled : deque of (bytes, str)
        Payloads of the newest events of which is known what became of them, each with why it was lost: one of
        :data:`PUBLISH_LOSSES`, ``dropped``, or nothing where the broker has it.  Whoever knows what they mean takes
        them out, and says again what still counts.
    """

    def __init__(self, max_events: int) -> None:
        self.outbox = Outbox(max_events)
        self.events_dropped = 0
        self.lost: dict[str, int] = dict.fromkeys(PUBLISH_LOSSES, 0)
        self.settled: deque[tuple[bytes, str]] = deque(maxlen=_SETTLED)
        self._troubles: dict[tuple[str, PublishLoss], tuple[int, str]] = {}  # by topic and reason: how many, and what
        # What was on its way when a connection ended, and how often: an event by itself, a state by its topic.
        self._suspects: dict[Outgoing | str, int] = {}
        self._ending_bytes: dict[str, int] = {}  # of payload by topic, from which connections ended
        self._seldom = Seldom(log)
        self._waited_s: Callable[[], float] = lambda: 0.0
        self._on_the_way: Callable[[], list[Outgoing]] = list

    def put(self, message: Outgoing) -> bool:
        """Take a message, from any thread; return whether none waited before."""
        idle = len(self.outbox) == 0
        if message.retain:
            self.outbox.put_state(message)
        else:
            self._drop(self.outbox.put_event(message))
        return idle

    def state(self) -> dict[str, Any]:
        """Return the newest events without an acknowledgement, fit for JSON, and how many there was no room for."""
        waiting = [*self._on_the_way(), *self.outbox.events()]
        kept: list[list[str]] = []
        room = _KEPT_BYTES
        for message in reversed(waiting):
            room -= len(message.topic) + len(message.payload)
            if room < 0:
                break
            kept.append([message.topic, message.payload.decode(errors="replace")])
        return {"events": kept[::-1], "left_out": len(waiting) - len(kept)}

    def resume(self, state: Mapping[str, Any], below: str) -> None:
        """Take up the events of an earlier run, of topics `below`; others nobody expects any more.

        Raises
        ------
        KeyError, TypeError, ValueError
            The state cannot be understood.
        """
        events = [Outgoing(str(topic), str(payload).encode()) for topic, payload in state["events"]]
        self.events_dropped += int(state["left_out"])
        self._drop(self.outbox.put_back(e for e in events if e.topic.startswith(f"{below}/")))
        if events:
            log.info("%d events of an earlier run wait for the broker", len(events))

    def begin(self, connection: Connection) -> None:
        """Go on with a connection that has been accepted."""
        connection.on_published = self._published
        self._waited_s = lambda: connection.waited_s
        self._on_the_way = lambda: [m for m in list(connection.unacknowledged.values()) if not m.retain]
        self.outbox.repeat_states()

    def send(self, connection: Connection) -> None:
        """Send what there is room for: one at a time while it is not known which of them ended a connection.

        Raises
        ------
        Lost
            The broker does not answer.
        """
        if connection.waited_s > _UNANSWERED_S:
            raise Lost("timeout", f"no acknowledgement of a message within {_UNANSWERED_S:.0f} s")
        if not connection.unacknowledged and not len(self.outbox):
            self._suspects.clear()
        while len(connection.unacknowledged) < (1 if self._suspects else connection.send_window):
            message = self.outbox.take()
            if message is None:
                break
            if message.shorter and not (connection.takes(message) and self._spared(message)):
                self._seldom.say(
                    message.topic, logging.WARNING, f"shortened for the broker: what goes to {message.topic!r}"
                )
                message = message._replace(payload=message.shorter, shorter=b"")
            if not connection.takes(message):
                detail = f"the broker takes packets of at most {connection.most_packet} bytes"
                self._lose(message, "too_large", detail)
            elif not self._spared(message):
                self._lose(message, "ends_connection", "messages of this size there have ended connections")
            else:
                connection.send(message)

    def end(self, connection: Connection) -> bool:
        """Take back what was on its way; return whether one of these may be why the connection has ended."""
        left, soon = list(connection.unacknowledged.values()), 0.0 < connection.waited_s < _SOON_S
        self._waited_s, self._on_the_way = lambda: 0.0, list
        again: list[Outgoing] = []
        for message in left:
            suspect = _suspect(message)
            count = self._suspects.get(suspect, 0) + soon
            if count < _CONNECTIONS_ENDED:
                again.append(message)
                self._suspects.update({suspect: count} if count else {})
                continue
            del self._suspects[suspect]
            size = len(message.payload)
            self._ending_bytes[message.topic] = min(size, self._ending_bytes.get(message.topic, size))
            if message.shorter:
                again.append(message)
                continue
            self._lose(message, "ends_connection", f"the broker has ended {count} connections for it")
        self._drop(self.outbox.put_back(again))
        return bool(left) and soon

    @property
    def waited_s(self) -> float:
        """How long the oldest message on its way has waited for its acknowledgement; 0 when none does."""
        return self._waited_s()

    def troubles(self) -> Iterable[str]:
        """What people should know of, a line each; from any thread."""
        if (waited_s := self.waited_s) > _SLOW_S:
            yield f"the broker has not acknowledged a message for {waited_s:.0f} s"
        yield from (text for _, text in list(self._troubles.values()))

    def _spared(self, message: Outgoing) -> bool:
        """Whether no message of this size has ended connections."""
        return len(message.payload) < self._ending_bytes.get(message.topic, len(message.payload) + 1)

    def _published(self, message: Outgoing, refusal: str) -> None:
        self._suspects.pop(_suspect(message), None)
        if refusal:
            self._lose(message, "refused", f"the broker refuses them: {refusal}")
            return
        self._troubles.pop((message.topic, "refused"), None)
        if not message.retain:
            self.settled.append((message.payload, ""))
        else:  # of an event that was put aside nobody is told by a later one
            for why in PUBLISH_LOSSES:
                self._troubles.pop((message.topic, why), None)

    def _drop(self, events: list[Outgoing]) -> None:
        self.events_dropped += len(events)
        self.settled.extend((event.payload, "dropped") for event in events)

    def _lose(self, message: Outgoing, why: PublishLoss, detail: str) -> None:
        self.lost[why] += 1
        if not message.retain:
            self.settled.append((message.payload, why))
        key = (message.topic, why)
        count = self._troubles.get(key, (0, ""))[0] + 1
        what = "1 message" if count == 1 else f"{count} messages"
        text = f"{what} to {message.topic!r} lost, the newest of {len(message.payload)} bytes: {detail}"
        if key in self._troubles or len(self._troubles) < _NAMED:
            self._troubles[key] = count, text
        log.log(logging.DEBUG if count & (count - 1) else logging.ERROR, "%s", text)  # the 1st, 2nd, 4th ... time


def _suspect(message: Outgoing) -> Outgoing | str:
    return message.topic if message.retain else message
