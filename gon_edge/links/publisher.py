"""Sends messages to a broker and knows which of them arrived.

It is the sending side of ``publish``, ``replay`` and ``demo``, and with :meth:`Publisher.subscribe` the receiving side
of ``record``.  There is one thread, the caller's: bytes move inside :meth:`Publisher.send`,
:meth:`Publisher.wait_until` and :meth:`Publisher.drain`.  ``mqtt.connection`` knows how to connect.  The daemon has
``mqtt.client`` instead, which may never block.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import logging
import math
import time
from collections import deque
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Self

from gon_edge.config.schema import MqttConfig
from gon_edge.errors import ConfigError, InputError, UnreachableError
from gon_edge.links.mqtt.connection import Connection, Session, broker_url, connect
from gon_edge.links.mqtt.lost import Lost
from gon_edge.links.mqtt.outbox import Outgoing
from gon_edge.links.mqtt.queue import Message

log = logging.getLogger(__name__)

_ANSWER_S = 10.0  # not critical: a broker that lives answers a SUBSCRIBE at once
_RETRY_S = (0.2, 5.0)  # not critical: first and longest wait between two attempts to reconnect
# Messages on the way without an acknowledgement.  More gains nothing on a LAN, and brokers drop what they cannot queue.
_WINDOW = 100
_ADVICE = {
    "address": "",
    "certificate": "; name the CA with --ca-file",
    "tls": "; see --ca-file, --cert-file and --key-file",
    "login": "; see --username and --password-file",
}
"""What to look at, by what :class:`Lost` concerns."""


class Publisher:
    """A connection to a broker, for messages with QoS 1.

    Parameters
    ----------
    settings : MqttConfig
        URL, credentials, certificates, protocol.
    patience_s : float
        How long a broker that went away is waited for; what it had not acknowledged is sent again.

    Attributes
    ----------
    sent, acknowledged, refused : int
        Messages handed over; of these, those the broker has; and those it did not want.
    refusal : str
        Why, the first time.
    url : str
        The broker, without user name and password.

    Raises
    ------
    UnreachableError
        When the broker does not answer or does not let us in; from the methods too.
    InputError
        When a certificate, a key or the password cannot be read.

    Examples
    --------
    >>> with Publisher(settings) as publisher:                       # doctest: +SKIP
    ...     publisher.send("telemetry/pump", b'{"flow": 1.5}')
    ...     publisher.drain()
    """

    def __init__(self, settings: MqttConfig, *, patience_s: float = 30.0) -> None:
        self.sent = self.acknowledged = self.refused = 0
        self.refusal = ""
        self.url = broker_url(settings)
        self._settings = settings
        self._patience_s = patience_s
        self._waiting: deque[Outgoing] = deque()  # for room on the way
        self._topics: tuple[str, ...] = ()
        self._take: Callable[[Message], None] = lambda message: None
        self._answers: list[dict[str, str]] = []  # to SUBSCRIBE: what was refused, and why
        self._connection = self._connect()
        # The broker has shown what it speaks: a later attempt need not find out again.
        self._settings = dataclasses.replace(settings, protocol="5" if self._connection.mqtt_5 else "3.1.1")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def send(self, topic: str, payload: bytes, *, retain: bool = False) -> None:
        """Send a message; waits while too many others are on their way."""
        self._waiting.append(Outgoing(topic, payload, retain))
        self.sent += 1
        self._send_waiting()
        while self._waiting:
            self._turn(1.0)

    def subscribe(self, topics: tuple[str, ...], take: Callable[[Message], None]) -> None:
        """Have the messages of some topic filters given to ``take``, with QoS 1, from within the other methods.

        Raises
        ------
        UnreachableError
            The broker refuses one of them.
        """
        self._topics, self._take = topics, take
        self._answers.clear()
        self._connection.subscribe(topics)
        deadline = time.monotonic() + _ANSWER_S
        while not self._answers:
            if time.monotonic() > deadline:
                raise UnreachableError(f"{self.url} does not answer to SUBSCRIBE")
            self._turn(0.2)
        if self._answers[0]:
            refused = ", ".join(f"{topic}: {reason}" for topic, reason in self._answers[0].items())
            raise UnreachableError(f"{self.url} refuses {refused}")

    def wait_until(self, deadline: float) -> None:
        """Keep the connection alive until ``time.monotonic()`` is `deadline`."""
        while (left := deadline - time.monotonic()) > 0.0:
            self._turn(min(left, 1.0))

    def drain(self, timeout_s: float = 30.0) -> bool:
        """Wait for the acknowledgement of everything sent; False when some did not come within `timeout_s`."""
        deadline = time.monotonic() + timeout_s
        while self.acknowledged + self.refused < self.sent:
            if time.monotonic() > deadline:
                return False
            self._turn(0.2)
        return True

    def close(self) -> None:
        """Disconnect."""
        with contextlib.suppress(Lost):
            self._connection.flush()
        self._connection.leave()

    def _connect(self) -> Connection:
        try:
            connection = connect(self._settings, Session(window=_WINDOW))
        except ConfigError as error:
            raise InputError(str(error).removeprefix(f"{error.key}: ")) from None
        except Lost as lost:
            problem = "no broker at " if lost.reason in ("refused", "timeout") and lost.concerns == "address" else ""
            raise UnreachableError(f"{problem}{self.url}: {lost.detail}{_ADVICE[lost.concerns]}") from None
        connection.on_messages = self._take_all
        connection.on_subscribed = self._answered
        connection.on_published = self._published
        return connection

    def _send_waiting(self) -> None:
        """Send what there is room for, at once."""
        connection = self._connection
        while self._waiting and len(connection.unacknowledged) < connection.send_window:
            message = self._waiting.popleft()
            if connection.takes(message):
                connection.send(message)
            else:  # it would end the connection, and every one after it
                self._published(message, f"the broker takes packets of at most {connection.most_packet} bytes")
        try:
            connection.flush()
        except Lost as lost:
            self._come_back(lost)

    def _turn(self, timeout_s: float) -> None:
        """Move bytes for up to `timeout_s`; return with a connection."""
        try:
            self._connection.pump(timeout_s)
        except Lost as lost:
            self._come_back(lost)
        if self._waiting:
            self._send_waiting()

    def _come_back(self, lost: Lost) -> None:
        """Connect again, and have everything without an acknowledgement wait for its turn again."""
        log.warning("%s: %s; trying again", self.url, lost.detail)
        self._waiting.extendleft(reversed(self._connection.unacknowledged.values()))
        self._connection.close()
        deadline = time.monotonic() + self._patience_s
        delay_s, longest_s = _RETRY_S
        while True:
            try:
                self._connection = self._connect()
                break
            except UnreachableError as error:
                if time.monotonic() + delay_s > deadline:
                    raise UnreachableError(f"{error} (waited {self._patience_s:.0f} s for it to come back)") from None
            time.sleep(delay_s)
            delay_s = min(2.0 * delay_s, longest_s)
        log.warning("connected to %s again", self.url)
        self._connection.subscribe(self._topics)  # a broker may forget

    # What the connection tells

    def _take_all(self, messages: list[Message]) -> None:
        for message in messages:
            self._take(message)

    def _answered(self, refused: dict[str, str]) -> None:
        self._answers.append(refused)

    def _published(self, _message: Outgoing, refusal: str) -> None:
        if not refusal:
            self.acknowledged += 1
            return
        self.refused += 1
        self.refusal = self.refusal or refusal


def publish_samples(
    publisher: Publisher,
    topic: str,
    sample: Callable[[], Mapping[str, float]],
    interval_s: float,
    *,
    stopped: Callable[[], bool] = lambda: False,
) -> None:
    """Send a JSON object of samples at a regular pace until `stopped` says so.

    Parameters
    ----------
    publisher : Publisher
    topic : str
    sample : callable
        Returns values by name; called once an interval, so that what it measures is fresh.
    interval_s : float
        Seconds between samples.  Those that fall into an outage of the broker are not made up for: they would arrive
        late and count as current.
    stopped : callable
    """
    due = time.monotonic()
    while not stopped():
        publisher.send(topic, json.dumps(dict(sample()), separators=(",", ":")).encode())
        behind = time.monotonic() - due
        due += interval_s * max(1, math.ceil(behind / interval_s))
        publisher.wait_until(due)
