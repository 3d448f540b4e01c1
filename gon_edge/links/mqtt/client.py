"""The daemon's connection to its broker, which is always kept.

Decides when to try again, and says again what a broker may have forgotten.  `connection` knows how to connect.  Topics
and bytes go in and out; payloads and streams are unknown here.  A thread named ``gon-edge mqtt`` owns the connection.
Other threads only touch the :class:`~gon_edge.links.mqtt.queue.MessageQueue` and the outbox.
"""

from __future__ import annotations

import contextlib
import logging
import math
import os
import threading
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from gon_edge.config.schema import LimitsConfig
from gon_edge.errors import ConfigError
from gon_edge.events import RECONNECT_REASONS, ReconnectReason
from gon_edge.links.mqtt.connection import Connection, Session, broker_url, matches, versions
from gon_edge.links.mqtt.cut import Cut
from gon_edge.links.mqtt.delivery import Delivery
from gon_edge.links.mqtt.hearing import Heard, Hearing
from gon_edge.links.mqtt.lost import Lost
from gon_edge.links.mqtt.outbox import Outgoing
from gon_edge.links.mqtt.queue import Message, MessageQueue
from gon_edge.links.mqtt.tls import tls_context
from gon_edge.links.mqtt.version import Version
from gon_edge.process.clock import monotonic
from gon_edge.process.identity import machine_code

if TYPE_CHECKING:
    import random

    from gon_edge.config.schema import MqttConfig

log = logging.getLogger(__package__)

_STABLE_S = 60.0  # a connection that lasted this long was a good one: the next backoff starts small again
_QUICK_S = 10.0  # not critical: a broker that closes so soon after it has accepted us does so on purpose
_QUICK_LOSSES = 3  # in a row; one or two are a broker that restarts
_SUBACK_S = 5.0  # not critical: a broker that lives answers at once
_RECALLS = 2  # a broker may end the connection for a subscription that it denies
_MOST_LOGGED = 1000  # not critical: different texts remembered as said, each below 1 KiB


def backoff_s(failures: int, least_s: float, most_s: float, rng: random.Random) -> float:
    """Return the seconds to wait after so many failures in a row: full jitter, so that no fleet returns in a wave.

    Uniform between 0 and a bound that starts at `least_s` and doubles up to `most_s`.
    """
    return float(rng.uniform(0.0, min(most_s, least_s * 2.0 ** min(failures - 1, 30))))


class MqttClient:
    """Keeps one MQTT connection alive, and says again after each reconnect what a broker may have forgotten.

    Parameters
    ----------
    settings : MqttConfig
    node : str
        Name of this machine; ``<base_topic>/<node>/status`` says ``online`` or ``offline``, retained.
    subscriptions : tuple of str
        Topic filters, subscribed with QoS 1 after every CONNACK.
    rng : random.Random
        For the jitter of the backoff.
    on_reconnect : callable, optional
        Called on the network thread with one of :data:`RECONNECT_REASONS` whenever a connection, or an attempt, failed.
    recalled : tuple of str
        Topic filters of our own whose retained messages are wanted once, before anything of ours is sent: what an
        earlier run has said last.
    max_pending : int
        Events kept while there is no connection.
    max_payload : int
        Bytes of a message that are taken (`limits.payload`).  By MQTT 5 the broker keeps larger ones; otherwise they
        arrive too large by a byte, and whoever decodes them counts them.

    Attributes
    ----------
    queue : MessageQueue
        What arrived.
    delivery : Delivery
        What leaves, and what became of it.
    client_id : str
        Under which the broker knows us.
    subscribed : frozenset of str
        Topic filters that the broker may hold for us.
    connected : bool
        Between CONNACK and the end of the connection.
    connects : int
        CONNACKs that accepted us.
    sessions : int
        Of these the first, and those of a broker that remembered nothing: whoever relied on it has missed something.
    reconnects : dict of str to int
        Failed connections and attempts by reason.
    subscribe_refused : dict of str to str
        Topic filters the broker refuses at the moment, and its reason.
    last_error : str
        Why there is no connection; empty while there is one.
    url : str
        The broker without user name and password, for people.
    thread : threading.Thread
        The network thread, from :meth:`start` to :meth:`stop`.

    Raises
    ------
    ConfigError
        When a certificate, a key or the password cannot be read.

    Examples
    --------
    >>> client = MqttClient(config.mqtt, node="pi-1", subscriptions=("telemetry/+",), rng=rng)   # doctest: +SKIP
    >>> client.start()                                                                           # doctest: +SKIP
    >>> for message in client.queue.get_batch(256, timeout=1.0): ...                             # doctest: +SKIP
    >>> client.publish(client.topic("alert"), "{}")                                              # doctest: +SKIP
    >>> client.stop()                                                                            # doctest: +SKIP
    """

    # Many parameters: who we are, what we want to hear, and what is kept of either.
    def __init__(
        self,
        settings: MqttConfig,
        *,
        node: str,
        subscriptions: tuple[str, ...],
        rng: random.Random,
        on_reconnect: Callable[[ReconnectReason], None] | None = None,
        recalled: tuple[str, ...] = (),
        max_pending: int = 1000,
        max_payload: int = LimitsConfig().payload_bytes,
    ) -> None:
        self._settings = settings
        self._node = node
        self._subscriptions = subscriptions
        self._rng = rng
        self._on_reconnect = on_reconnect
        self._recalled = recalled
        self._recalls_left = _RECALLS
        settings.password()  # a secret or certificate that cannot be read is found at the start,
        tls_context(settings)  # not by the first connection

        self.queue = MessageQueue(settings.queue_messages, settings.queue_bytes)
        self.delivery = Delivery(max_pending)
        self.client_id = own_client_id(settings, node)
        self.subscribed = frozenset(subscriptions)
        self.connected = False
        self.connects = self.sessions = 0
        self.reconnects: dict[str, int] = dict.fromkeys(RECONNECT_REASONS, 0)
        self.subscribe_refused: dict[str, str] = {}
        self.last_error = "not connected yet"
        self.url = broker_url(settings)

        self._version = Version(versions(settings))
        self._max_payload = max_payload
        self._accepted_at: float | None = None  # the newest connection, by time.monotonic
        self._accused = False  # one of our messages may have ended it
        self._unanswered: tuple[str, ...] = ()  # topic filters that it has not answered
        self._quick_losses = 0
        self._remembers = False  # what an earlier run subscribed to, or that there was none
        self._stray = ""  # a topic that only a subscription we know nothing of can have brought
        self._hearing = Hearing(monotonic())
        self._hears = False  # the connection there is
        self._asked_at = math.inf
        self._wake_fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._stopping = threading.Event()
        self._stop_by = 0.0
        self._logged: set[str] = set()
        self.thread = threading.Thread(target=self._run, name="gon-edge mqtt", daemon=True)

    confirms = True
    """`delivery.settled` says what became of each event."""

    def topic(self, *levels: str) -> str:
        """Return ``<base_topic>/<node>/<levels...>``; what MQTT forbids in a level is percent-encoded."""
        return own_topic(self._settings, self._node, *levels)

    def state(self) -> dict[str, Any]:
        """Return what the next run goes on from, fit for JSON: what the broker holds for us, and events that wait."""
        broker = [self.url, self.client_id]
        kept = {"broker": broker, "mqtt_5": self._version.spoke_5, "subscribed": sorted(self.subscribed)}
        return {**kept, **self.delivery.state()}

    def resume(self, state: Mapping[str, Any] | None) -> None:
        """Go on from what `state` returned in an earlier run; before :meth:`start`.

        Topic filters of that run that are not wanted any more are unsubscribed where the broker has kept them.  What
        cannot be understood is left.
        """
        try:
            if state is not None:
                self.delivery.resume(state, self.topic())
                if state["broker"] == [self.url, self.client_id]:
                    self._remembers = True
                    self._version.spoke_5 = bool(state.get("mqtt_5"))
                    self.subscribed |= {str(topic) for topic in state["subscribed"]}
        except (KeyError, TypeError, ValueError) as error:
            log.warning("what waited for the broker cannot be read: %r", error)

    def start(self) -> None:
        """Start the network thread and return; a broker that is down is waited for."""
        self.thread.start()

    def publish(self, topic: str, payload: str | bytes, *, retain: bool = False, shorter: str = "") -> None:
        """Hand a message to the network thread, QoS 1; returns at once, from any thread.

        Parameters
        ----------
        topic : str
        payload : str or bytes
            Empty and retained removes the topic from the broker.
        retain : bool
            A state: only the latest of a topic counts, and it is said again after every reconnect.  Otherwise an event:
            each one counts, up to `max_pending` are kept while there is no connection.
        shorter : str
            Said instead where the broker takes no message of this size.

        Raises
        ------
        ValueError
            When `topic` is empty or holds a wildcard.
        """
        if not topic or "+" in topic or "#" in topic or "\0" in topic:
            raise ValueError(f"{topic!r} is not a topic to publish to")
        written = payload.encode() if isinstance(payload, str) else payload
        if self.delivery.put(Outgoing(topic, written, retain, shorter.encode())):
            os.eventfd_write(self._wake_fd, 1)  # otherwise the network thread has been told already

    def troubles(self) -> tuple[str, ...]:
        """What people should know of, a line each, beside `last_error`; from any thread."""
        found = []
        if self._fights:
            found.append(self._other_client())
        found += [f"the broker refuses {topic!r}: {reason}" for topic, reason in self.subscribe_refused.items()]
        return (*found, *self.delivery.troubles())

    @property
    def heard(self) -> Heard:
        """Up to when the broker was heard, and for how long it could not be; from any thread."""
        return self._hearing.so_far

    def ask_for_a_sign(self) -> None:
        """Have the broker answer something, once for each of its silences: whether it is still there."""
        if self.connected and self._asked_at == math.inf:
            self._asked_at = monotonic()
            self.publish(self.topic("status"), b"online", retain=True)

    def stop(self, timeout_s: float = 5.0) -> None:
        """Send what waits, say ``offline``, disconnect, end the thread: within `timeout_s` or without."""
        self._stop_by = time.monotonic() + timeout_s
        self._stopping.set()
        os.eventfd_write(self._wake_fd, 1)
        if self.thread.is_alive():
            self.thread.join(timeout_s + 0.5)

    # The network thread

    def _run(self) -> None:
        failures = 0
        while not self._stopping.is_set():
            began = time.monotonic()
            failure = self._one_connection()
            if failure is None or self._stopping.is_set():
                return
            failure = self._named(failure)
            failures = 1 if time.monotonic() - began > _STABLE_S else failures + 1
            self._report(failure)
            if self._version.failed(failure, failures):
                continue  # the broker is there: no reason to wait
            self._stopping.wait(self._delay_s(failure, failures))

    def _one_connection(self) -> Lost | None:
        """Connect and serve; return why that ended, ``None`` when it was to end."""
        connection: Connection | None = None
        self._accepted_at, self._accused, self._unanswered = None, False, ()
        try:
            if self._stray:
                self._end_session()
            connection = self._connection()
            connection.open()
            self._serve(connection)
            return None
        except Lost as lost:
            return lost
        except ConfigError as error:  # a certificate or password file that went away meanwhile
            return Lost("auth", str(error))
        except Exception as error:  # the daemon without its broker is useless: log and try again
            log.exception("unexpected error in the MQTT connection")
            return Lost("protocol", repr(error))
        finally:
            self.connected = False
            if connection is not None:
                connection.close()
                self._accused = self.delivery.end(connection)
                self._unanswered = connection.unanswered

    def _named(self, failure: Lost) -> Lost:
        """The loss, or what it and those before it add up to: another client with our identifier.

        Most brokers only close the older of two connections.  A connection that one of our own messages may have ended
        says nothing, and neither does an attempt that was not accepted.
        """
        if failure.reason == "taken_over":
            self._quick_losses = _QUICK_LOSSES
            return Lost("taken_over", f"{failure.detail}: {self._other_client()}")
        if self._accepted_at is None or self._accused:
            return failure
        lived_s = time.monotonic() - self._accepted_at
        if self._unanswered and lived_s < _QUICK_S:
            asked = ", ".join(map(repr, self._unanswered))
            return Lost(
                failure.reason, f"{failure.detail}, with no answer to the subscription of {asked}: denied, it seems"
            )
        quick = lived_s < (self._truce_s if self._fights else _QUICK_S)
        self._quick_losses = self._quick_losses + 1 if quick and failure.reason == "lost" else 0
        return Lost("taken_over", self._other_client()) if self._fights else failure

    @property
    def _fights(self) -> bool:
        """Whether another client seems to use our identifier; a connection that has lasted ends that."""
        if self._quick_losses < _QUICK_LOSSES:
            return False
        return not self.connected or time.monotonic() - (self._accepted_at or 0.0) < self._truce_s

    @property
    def _truce_s(self) -> float:
        return 2.0 * self._settings.reconnect_max_s + _QUICK_S  # the other one waits as long as we do

    def _other_client(self) -> str:
        return (
            f"another client uses the id {self.client_id!r}, it seems: the broker closes each connection soon after it "
            "has accepted us; give each client a mqtt.client_id of its own"
        )

    def _delay_s(self, failure: Lost, failures: int) -> float:
        least, most = self._settings.reconnect_min_s, self._settings.reconnect_max_s
        if failure.reason == "taken_over":  # two daemons with one client id: each throws the other one out
            return most / 2 + backoff_s(1, most / 2, most, self._rng)
        return backoff_s(failures, least, most, self._rng)

    def _report(self, failure: Lost) -> None:
        self.reconnects[failure.reason] += 1
        if self._on_reconnect is not None:
            self._on_reconnect(failure.reason)
        self.last_error = failure.detail
        self._log_once(logging.WARNING, f"{self.url}: {failure.detail}; trying again")

    def _log_once(self, level: int, text: str) -> None:
        """Log `text` unless it was logged since the last good connection."""
        log.log(logging.DEBUG if text in self._logged else level, "%s", text)
        if len(self._logged) < _MOST_LOGGED:
            self._logged.add(text)

    def _connection(self) -> Connection:
        settings = self._settings
        session = Session(
            client_id=self.client_id,
            expiry_s=int(settings.session_expiry_s),
            keepalive_s=int(settings.keepalive_s),
            will=Outgoing(self.topic("status"), b"offline", retain=True),
            max_payload=self._max_payload,
        )
        connection = Connection(settings, session, mqtt_5=self._version.is_5)
        self._hears = False
        connection.on_messages = self._take
        connection.on_cut = self._cut
        connection.on_subscribed = self._subscribed
        connection.on_unsubscribed = self._unsubscribed
        return connection

    def _serve(self, connection: Connection) -> None:
        """Move messages until the connection ends (:class:`Lost`) or we are asked to stop (return)."""
        connection.await_connack(self._stopping.is_set, self._wake_fd)
        if connection.accepted is None:
            return
        self._begin_to_hear()
        self._greet(connection, connection.accepted)
        while not self._stopping.is_set():
            self._hearing.turn(monotonic())
            # Subscriptions first and alone: what a broker closes for is either one of them or one of our messages.
            if not connection.unanswered or time.monotonic() - (self._accepted_at or 0.0) > _SUBACK_S:
                self.delivery.send(connection)
            connection.pump(1.0, self._wake_fd)
            if self._stray:
                detail = (
                    f"{self._stray!r} came by a subscription of an earlier run that nobody remembers; its session ends"
                )
                raise Lost("lost", detail)
            if connection.read_at > self._hearing.so_far.until:
                self._hearing.sign(connection.read_at, self._asked_at)
                self._asked_at = math.inf
        self._say_goodbye(connection)

    def _greet(self, connection: Connection, session_present: bool) -> None:
        self.delivery.put(Outgoing(self.topic("status"), b"online", retain=True))
        self.delivery.begin(connection)
        if self._recalls_left:  # ahead of the others, whose answer is the one that is looked at
            self._recalls_left -= 1
            connection.recall(self._recalled)
        if session_present:
            connection.unsubscribe(tuple(sorted(self.subscribed - set(self._subscriptions))))
        else:
            self.subscribed, self._remembers = frozenset(self._subscriptions), True
        connection.subscribe(self._subscriptions, send_retained=self.connects == 0)
        self._accepted_at = time.monotonic()
        self._version.accepted()
        self.sessions += self.connects == 0 or not session_present
        self.connects += 1
        self.connected = True
        self.last_error = ""
        self._logged.clear()
        log.info(
            "connected to %s, MQTT %s, %s session",
            self.url,
            self._version,
            "resumed" if session_present else "new",
        )

    def _end_session(self) -> None:
        """Have the broker forget our session, and what it would send for it."""
        connection = Connection(self._settings, Session(client_id=self.client_id), mqtt_5=self._version.is_5)
        try:
            connection.open()
            connection.await_connack(self._stopping.is_set, self._wake_fd)
            connection.leave()
            self._stray, self._remembers = "", True
        finally:
            connection.close()

    def _say_goodbye(self, connection: Connection) -> None:
        """Empty the outbox, say offline (a clean DISCONNECT suppresses the will), wait for the acknowledgements."""
        said = False
        with contextlib.suppress(Lost):
            while (left := self._stop_by - time.monotonic()) > 0:
                self.delivery.send(connection)
                if not said and len(self.delivery.outbox) == 0:
                    self.delivery.put(Outgoing(self.topic("status"), b"offline", retain=True))
                    said = True
                    continue
                if said and not connection.unacknowledged:
                    break
                connection.pump(min(left, 0.2), self._wake_fd)
            connection.leave()

    # What the connection tells, on the network thread

    def _begin_to_hear(self) -> None:
        if not self._hears:
            self._hears, self._asked_at = True, math.inf
            self._hearing.begin(monotonic())

    def _take(self, messages: list[Message]) -> None:
        self._begin_to_hear()  # what was kept for us comes right behind CONNACK
        self._hearing.turn(monotonic())  # before: whoever takes them out knows already that we were away
        if not self._remembers:
            topics = {message.topic for message in messages}
            wanted = (*self._subscriptions, *self._recalled)
            self._stray = next((t for t in topics if not any(matches(f, t) for f in wanted)), "")
        self.queue.put_many(messages)

    def _subscribed(self, refused: dict[str, str]) -> None:
        if any(refused.pop(topic, None) for topic in self._recalled):
            log.info("%s does not let us read what we have published", self.url)
        self.subscribe_refused = refused
        for topic, reason in refused.items():
            self._log_once(logging.ERROR, f"{self.url} refuses the subscription to {topic!r}: {reason}")

    def _unsubscribed(self, topics: tuple[str, ...]) -> None:
        self.subscribed -= set(topics)
        if topics == self._recalled:
            self._recalls_left = 0
            return
        log.info("%s sends %s no more", self.url, ", ".join(map(repr, topics)))

    def _cut(self, messages: list[Cut]) -> None:
        for message in messages:
            text = f"a message of {message.bytes} bytes to {message.topic!r} is too large to be kept"
            self._log_once(logging.WARNING, f"{text}; limits.payload is {self._max_payload} bytes")


def own_client_id(settings: MqttConfig, node: str) -> str:
    """Return the client identifier: the one of the configuration, or one that no other machine has by chance."""
    code = machine_code()
    return settings.client_id or f"gon-edge-{node}" + (f"-{code}" if code else "")


def own_topic(settings: MqttConfig, node: str, *levels: str) -> str:
    """Return ``<base_topic>/<node>/<levels...>``; what MQTT forbids in a level is percent-encoded."""
    return "/".join((settings.base_topic, *(_level(level) for level in (node, *levels))))


def _level(text: str) -> str:
    for character in "%/+#\0":
        text = text.replace(character, f"%{ord(character):02X}")
    return text
