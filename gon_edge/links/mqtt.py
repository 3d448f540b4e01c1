"""The broker: one connection that is always being kept, a bounded queue in, a bounded outbox out.

Hides paho-mqtt, the protocol versions, TLS, reconnecting and what has to be said again after it.  Knows nothing of
payloads or streams: topics and bytes go in and out.  A thread named ``gon-edge mqtt`` owns the connection; everybody
else only touches :class:`MessageQueue` and the outbox.  A new reason in :data:`RECONNECT_REASONS` is a new label value
in ``prometheus``.

paho reads a packet by three small ``recv`` calls and acknowledges it by a ``send``.  Each gives up the interpreter
lock, and a busy scoring thread keeps it for a switch interval (5 ms) before it gives it back: 88 messages a second were
left of 19,000, and the broker dropped the rest.  So the socket is read and written in blocks (``_BlockSocket``), and
paho, driven by our own loop, takes its small pieces from memory: 13,000 a second beside the same busy thread.
"""

from __future__ import annotations

import contextlib
import logging
import os
import select
import socket
import struct
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, NamedTuple

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode
from paho.mqtt.subscribeoptions import SubscribeOptions

from gon_edge.errors import ConfigError
from gon_edge.events import RECONNECT_REASONS, ReconnectReason

if TYPE_CHECKING:
    import random
    import ssl

    from gon_edge.config.schema import MqttConfig

log = logging.getLogger(__name__)


_CONNECT_TIMEOUT_S = 10.0
_STABLE_S = 60.0  # a connection that lasted this long was a good one: the next backoff starts small again
_BLOCK_BYTES = 65536
_HEADER = struct.Struct("IId?")  # of a message in the queue: bytes of topic and payload, when received, retained
_PACKETS_A_ROUND = 250  # then keep-alive and outbox have their turn, however fast the broker sends
# Messages the broker may have on the way to us unacknowledged.  Brokers queue the rest, and drop beyond a bound
# (mosquitto: 20 on the way and 1000 queued by default); the largest value MQTT allows makes that bound 66 times wider.
_RECEIVE_MAXIMUM = 65535
_SEND_WINDOW = 20  # messages of ours on the way unacknowledged
_UNSUPPORTED_VERSION = 132
_REASON_OF_CODE: dict[int, ReconnectReason] = {  # MQTT 5, table 2-6
    129: "protocol",  # malformed packet
    130: "protocol",
    _UNSUPPORTED_VERSION: "protocol",
    134: "auth",  # bad user name or password
    135: "auth",  # not authorized
    138: "auth",  # banned
    140: "auth",  # bad authentication method
    141: "timeout",  # keep alive
    142: "taken_over",
}


class Message(NamedTuple):
    """One message from the broker.

    Attributes
    ----------
    topic : str
    payload : bytes
    received_at : float
        Seconds of ``CLOCK_BOOTTIME`` when its bytes were read from the socket.
    retained : bool
        It lay in the broker before we asked: not fresh.
    """

    topic: str
    payload: bytes
    received_at: float
    retained: bool


class MessageQueue:
    """A first-in first-out queue between two threads that never grows beyond its bounds: when full the oldest goes.

    Messages lie one behind the other in blocks that the allocator maps by themselves, and that leave the process when
    they have been read.  As objects of their own they lay all over the heap: once the queue had been full, 14 MiB of it
    were never given back.

    Parameters
    ----------
    max_messages : int
    max_bytes : int
        Of topics and payloads together, bytes.

    Attributes
    ----------
    dropped : int
        Messages that had to go, since the start.
    """

    def __init__(self, max_messages: int, max_bytes: int) -> None:
        self.dropped = 0
        self._max_messages = max_messages
        self._max_bytes = max_bytes
        self._blocks: deque[bytearray] = deque()
        self._start = 0  # of the oldest message, in the first block
        self._count = self._bytes = 0
        self._arrived = threading.Condition(threading.Lock())

    def __len__(self) -> int:
        return self._count

    def put(self, message: Message) -> None:
        """Append one message; see :meth:`put_many`."""
        self.put_many((message,))

    def put_many(self, messages: Iterable[Message]) -> None:
        """Append `messages` in one lock round, wake a waiting :meth:`get_batch`, never block for room."""
        with self._arrived:
            for message in messages:
                if not self._blocks or len(self._blocks[-1]) >= _BLOCK_BYTES:
                    self._blocks.append(bytearray())
                block, topic = self._blocks[-1], message.topic.encode()
                block += _HEADER.pack(len(topic), len(message.payload), message.received_at, message.retained)
                block += topic
                block += message.payload
                self._count += 1
                self._bytes += len(topic) + len(message.payload)
                while self._count and (self._count > self._max_messages or self._bytes > self._max_bytes):
                    self._pop()
                    self.dropped += 1
            self._arrived.notify()

    def get_batch(self, max_n: int, timeout: float) -> list[Message]:
        """Return up to `max_n` messages, oldest first; an empty list when none came within `timeout` seconds."""
        with self._arrived:
            if not self._count:
                self._arrived.wait(timeout)
            return [self._pop() for _ in range(min(max_n, self._count))]

    def wake(self) -> None:
        """End a waiting :meth:`get_batch` early, with what there is."""
        with self._arrived:
            self._arrived.notify()

    def _pop(self) -> Message:
        block, at = self._blocks[0], self._start + _HEADER.size
        topic_bytes, payload_bytes, received_at, retained = _HEADER.unpack_from(block, self._start)
        self._start = at + topic_bytes + payload_bytes
        message = Message(
            block[at : at + topic_bytes].decode(), bytes(block[at + topic_bytes : self._start]), received_at, retained
        )
        if self._start == len(block):
            self._blocks.popleft()
            self._start = 0
        self._count -= 1
        self._bytes -= topic_bytes + payload_bytes
        return message


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
    max_pending : int
        Events kept while there is no connection.

    Attributes
    ----------
    queue : MessageQueue
        What arrived.
    connected : bool
        Between CONNACK and the end of the connection.
    connects : int
        CONNACKs that accepted us.
    reconnects : dict of str to int
        Failed connections and attempts by reason.
    events_dropped : int
        Events that went because `max_pending` later ones were waiting.
    publish_refused : int
        Our messages the broker refused by reason code.
    subscribe_refused : dict of str to str
        Topic filters the broker refuses at the moment, and its reason.
    last_error : str
        Why there is no connection; empty while there is one.
    url : str
        The broker without user name and password, for people.

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

    def __init__(
        self,
        settings: MqttConfig,
        *,
        node: str,
        subscriptions: tuple[str, ...],
        rng: random.Random,
        on_reconnect: Callable[[ReconnectReason], None] | None = None,
        max_pending: int = 1000,
    ) -> None:
        self._settings = settings
        self._node = node
        self._subscriptions = subscriptions
        self._rng = rng
        self._on_reconnect = on_reconnect
        settings.password()  # a secret or certificate that cannot be read is found at the start,
        self._tls()  # not by the first connection

        self.queue = MessageQueue(settings.queue_messages, settings.queue_bytes)
        self.connected = False
        self.connects = 0
        self.reconnects: dict[str, int] = dict.fromkeys(RECONNECT_REASONS, 0)
        self.events_dropped = 0
        self.publish_refused = 0
        self.subscribe_refused: dict[str, str] = {}
        self.last_error = "not connected yet"
        self.url = f"{settings.scheme}://{settings.host}:{settings.port}"

        self._use_5 = settings.protocol != "3.1.1"
        self._outbox = _Outbox(max_pending)
        self._wake_fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._stopping = threading.Event()
        self._stop_by = 0.0
        self._logged: set[str] = set()
        self._thread = threading.Thread(target=self._run, name="gon-edge mqtt", daemon=True)

    def topic(self, *levels: str) -> str:
        """Return ``<base_topic>/<node>/<levels...>``; what MQTT forbids in a level is percent-encoded."""
        return own_topic(self._settings, self._node, *levels)

    def start(self) -> None:
        """Start the network thread and return; a broker that is down is waited for."""
        self._thread.start()

    def publish(self, topic: str, payload: str | bytes, *, retain: bool = False) -> None:
        """Hand a message to the network thread, QoS 1; returns at once, from any thread.

        Parameters
        ----------
        topic : str
        payload : str or bytes
            Empty and retained removes the topic from the broker.
        retain : bool
            A state: only the latest of a topic counts, and it is said again after every reconnect.  Otherwise an event:
            each one counts, up to `max_pending` are kept while there is no connection.

        Raises
        ------
        ValueError
            When `topic` is empty or holds a wildcard.
        """
        if not topic or "+" in topic or "#" in topic or "\0" in topic:
            raise ValueError(f"{topic!r} is not a topic to publish to")
        message = _Outgoing(topic, payload.encode() if isinstance(payload, str) else payload, retain)
        idle = len(self._outbox) == 0  # otherwise the network thread has been told already
        if retain:
            self._outbox.put_state(message)
        else:
            self.events_dropped += self._outbox.put_event(message)
        if idle:
            os.eventfd_write(self._wake_fd, 1)

    def stop(self, timeout_s: float = 5.0) -> None:
        """Send what waits, say ``offline``, disconnect, end the thread: within `timeout_s` or without."""
        self._stop_by = time.monotonic() + timeout_s
        self._stopping.set()
        os.eventfd_write(self._wake_fd, 1)
        if self._thread.is_alive():
            self._thread.join(timeout_s + 0.5)

    # The network thread

    def _run(self) -> None:
        failures = 0
        while not self._stopping.is_set():
            began = time.monotonic()
            connection: _Connection | None = None
            try:
                connection = self._connection()
                self._serve(connection)
                return
            except _Lost as lost:
                failure = lost
            except ConfigError as error:  # a certificate or password file that went away meanwhile
                failure = _Lost("auth", str(error))
            except Exception as error:  # the daemon without its broker is useless: log and try again
                log.exception("unexpected error in the MQTT connection")
                failure = _Lost("protocol", repr(error))
            finally:
                self.connected = False
                if connection is not None:
                    connection.close()
                    self.events_dropped += self._outbox.put_back(connection.unacknowledged.values())
            if self._stopping.is_set():
                return
            failures = 1 if time.monotonic() - began > _STABLE_S else failures + 1
            self._report(failure)
            if failure.wrong_version and self._settings.protocol == "auto":
                self._use_5 = not self._use_5
                if not self._use_5:
                    continue  # the broker is there: no reason to wait
            least, most = self._settings.reconnect_min_s, self._settings.reconnect_max_s
            delay_s = backoff_s(failures, least, most, self._rng)
            if failure.reason == "taken_over":  # two daemons with one client id: each throws the other one out
                delay_s = most / 2 + backoff_s(1, most / 2, most, self._rng)
            self._stopping.wait(delay_s)

    def _report(self, failure: _Lost) -> None:
        self.reconnects[failure.reason] += 1
        if self._on_reconnect is not None:
            self._on_reconnect(failure.reason)
        self.last_error = failure.detail
        self._log_once(logging.WARNING, f"{self.url}: {failure.detail}; trying again")

    def _log_once(self, level: int, text: str) -> None:
        """Log `text` unless it was logged since the last good connection."""
        log.log(logging.DEBUG if text in self._logged else level, "%s", text)
        if len(self._logged) < 1000:
            self._logged.add(text)

    def _tls(self) -> ssl.SSLContext | None:
        """Return a fresh context: renewed certificates count from the next connection on, without a restart."""
        settings = self._settings
        if not settings.tls:
            return None
        import ssl  # 4 MiB, where it is used

        key = "mqtt.ca_file"
        try:
            context = ssl.create_default_context(cafile=settings.ca_file)
            if settings.cert_file is not None:
                key = "mqtt.cert_file"
                context.load_cert_chain(settings.cert_file, settings.key_file)
        except (OSError, ValueError) as error:
            raise ConfigError(f"cannot be used for TLS: {error}", key=key) from error
        return context

    def _connection(self) -> _Connection:
        """Open a socket, with TLS and WebSocket handshake as needed, and send CONNECT."""
        settings = self._settings
        client_id = settings.client_id or f"gon-edge-{self._node}"
        websocket_path = settings.websocket_path if settings.websockets else None
        connection = _Connection(
            client_id, self.queue, mqtt_5=self._use_5, tls=self._tls(), websocket_path=websocket_path
        )
        if settings.username is not None:
            connection.username_pw_set(settings.username, settings.password())
        connection.will_set(self.topic("status"), b"offline", qos=1, retain=True)
        connection.on_subscribe = self._subscribed
        connection.on_publish = self._published
        try:
            connection.open(settings.host, settings.port, int(settings.keepalive_s), int(settings.session_expiry_s))
        except _Lost:
            connection.close()
            raise
        return connection

    def _serve(self, connection: _Connection) -> None:
        """Move messages until the connection ends (:class:`_Lost`) or we are asked to stop (return)."""
        connack_by = time.monotonic() + _CONNECT_TIMEOUT_S
        while connection.accepted is None:
            if self._stopping.is_set():
                return
            connection.pump(self._wake_fd, min(1.0, connack_by - time.monotonic()))
            if time.monotonic() > connack_by:
                raise _Lost("timeout", f"no answer to CONNECT within {_CONNECT_TIMEOUT_S:.0f} s")
        self._greet(connection, connection.accepted)
        while not self._stopping.is_set():
            self._send_waiting(connection)
            connection.pump(self._wake_fd, 1.0)
        self._say_goodbye(connection)

    def _greet(self, connection: _Connection, session_present: bool) -> None:
        connection.send(_Outgoing(self.topic("status"), b"online", retain=True))
        connection.subscribe_all(self._subscriptions, send_retained=self.connects == 0)
        self._outbox.repeat_states()
        self.connects += 1
        self.connected = True
        self.last_error = ""
        self._logged.clear()
        log.info(
            "connected to %s, MQTT %s, %s session",
            self.url,
            "5" if self._use_5 else "3.1.1",
            "resumed" if session_present else "new",
        )

    def _send_waiting(self, connection: _Connection) -> None:
        while len(connection.unacknowledged) < connection.send_window:
            message = self._outbox.take()
            if message is None:
                break
            connection.send(message)

    def _say_goodbye(self, connection: _Connection) -> None:
        """Empty the outbox, say offline (a clean DISCONNECT suppresses the will), wait for the acknowledgements."""
        said = False
        with contextlib.suppress(_Lost):
            while (left := self._stop_by - time.monotonic()) > 0:
                self._send_waiting(connection)
                if not said and len(self._outbox) == 0:
                    connection.send(_Outgoing(self.topic("status"), b"offline", retain=True))
                    said = True
                elif said and not connection.unacknowledged:
                    break
                connection.pump(self._wake_fd, min(left, 0.2))
            connection.leave()

    # Callbacks of paho, on the network thread

    def _subscribed(
        self, _c: paho.Client, _u: object, _mid: int, codes: list[ReasonCode], _p: Properties | None
    ) -> None:
        self.subscribe_refused = {
            topic: str(code) for topic, code in zip(self._subscriptions, codes, strict=False) if code.is_failure
        }
        for topic, reason in self.subscribe_refused.items():
            self._log_once(logging.ERROR, f"{self.url} refuses the subscription to {topic!r}: {reason}")

    def _published(
        self, connection: paho.Client, _u: object, mid: int, code: ReasonCode, _p: Properties | None
    ) -> None:
        assert isinstance(connection, _Connection)
        message = connection.unacknowledged.pop(mid, None)
        if code.is_failure and message is not None:
            self.publish_refused += 1
            self._log_once(logging.ERROR, f"{self.url} refuses messages to {message.topic!r}: {code}")


def own_topic(settings: MqttConfig, node: str, *levels: str) -> str:
    """Return ``<base_topic>/<node>/<levels...>``; what MQTT forbids in a level is percent-encoded."""
    return "/".join((settings.base_topic, *(_level(level) for level in (node, *levels))))


def _level(text: str) -> str:
    for character in "%/+#\0":
        text = text.replace(character, f"%{ord(character):02X}")
    return text


class _Outgoing(NamedTuple):
    topic: str
    payload: bytes
    retain: bool


class _Outbox:
    """What waits to be sent: states by topic, the latest only, and events in order, the newest `max_events`."""

    def __init__(self, max_events: int) -> None:
        self._lock = threading.Lock()
        self._states: dict[str, _Outgoing] = {}
        self._unsent: dict[str, None] = {}  # topics of states, in the order in which they changed
        self._events: deque[_Outgoing] = deque(maxlen=max_events)

    def __len__(self) -> int:
        return len(self._unsent) + len(self._events)

    def put_state(self, message: _Outgoing) -> None:
        with self._lock:
            self._states[message.topic] = message
            self._unsent[message.topic] = None

    def put_event(self, message: _Outgoing) -> int:
        """Append; return how many older events had to go."""
        with self._lock:
            full = len(self._events) == self._events.maxlen
            self._events.append(message)
            return int(full)

    def repeat_states(self) -> None:
        with self._lock:
            self._unsent = dict.fromkeys(self._states)

    def take(self) -> _Outgoing | None:
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

    def put_back(self, messages: Iterable[_Outgoing]) -> int:
        """Return to the front what was sent and never acknowledged; say how many events found no room."""
        with self._lock:
            events = []
            for message in messages:
                if not message.retain:
                    events.append(message)
                elif not message.payload:  # a removal; other states repeat themselves after the next CONNACK
                    self._states.setdefault(message.topic, message)
            room = (self._events.maxlen or 0) - len(self._events)
            kept = events[-room:] if room else []
            self._events.extendleft(reversed(kept))
            return len(events) - len(kept)


class _Lost(Exception):
    """The connection, or the attempt at one, has ended; `wrong_version` when another MQTT version may fare better."""

    def __init__(self, reason: ReconnectReason, detail: str, *, wrong_version: bool = False) -> None:
        super().__init__(detail)
        self.reason: ReconnectReason = reason
        self.detail = detail
        self.wrong_version = wrong_version


def _tls_loss(error: OSError | None) -> _Lost | None:
    """What an error of TLS says; ``None`` for any other."""
    import ssl

    if not isinstance(error, ssl.SSLError):
        return None
    if isinstance(error, ssl.SSLCertVerificationError):
        return _Lost("auth", f"the broker's certificate is not valid: {error.verify_message}")
    reason = error.reason or str(error)
    if "CERTIFICATE" in reason or "UNKNOWN_CA" in reason:  # alerts of the broker about ours
        return _Lost("auth", f"the broker refuses our certificate: {reason}")
    return _Lost("protocol", f"TLS failed: {reason}")


class _BlockSocket:
    """A socket that reads and writes in blocks of up to 64 KiB, with the face paho expects of one.

    Until ``setblocking(False)`` it is transparent, so that handshakes work; from then on :meth:`send` collects and
    :meth:`flush` sends.
    """

    def __init__(self, sock: socket.socket, *, tls: bool) -> None:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # acknowledgements leave in blocks of our own making
        self.error: OSError | None = None
        self.read_at = 0.0
        self._sock = sock
        self._block = bytearray(_BLOCK_BYTES)
        self._view = memoryview(self._block)
        self._start = self._end = 0
        self._unsent = bytearray()
        self._collecting = False
        self._tls = tls
        self._not_now: tuple[type[OSError], ...] = (BlockingIOError,)
        if tls:
            import ssl

            self._not_now += (ssl.SSLWantReadError, ssl.SSLWantWriteError)

    def recv(self, size: int) -> bytes:
        if self._start == self._end:
            try:
                self._end = (
                    self._sock.recv_into(self._view) if self._collecting else self._sock.recv_into(self._view, 1)
                )
            except self._not_now:
                raise BlockingIOError from None
            except OSError as error:
                self.error = error
                raise
            self._start = 0
            self.read_at = time.clock_gettime(time.CLOCK_BOOTTIME)
        start = self._start
        self._start = min(start + size, self._end)
        return bytes(self._view[start : self._start])

    def send(self, data: bytes | bytearray) -> int:
        if not self._collecting:
            return self._sock.send(data)
        if len(self._unsent) > 4 * _BLOCK_BYTES:  # the broker does not read: let paho keep it
            raise BlockingIOError
        self._unsent += data
        return len(data)

    def flush(self) -> None:
        """Send what was collected, as far as the kernel takes it."""
        with contextlib.suppress(*self._not_now):
            while self._unsent:
                del self._unsent[: self._sock.send(self._unsent)]

    def pending(self) -> int:
        """Return the bytes that can be had without asking the kernel."""
        in_tls = self._sock.pending() if self._tls else 0  # type: ignore[attr-defined]
        return self._end - self._start + int(in_tls)

    @property
    def unsent(self) -> bool:
        return bool(self._unsent)

    def setblocking(self, flag: bool) -> None:
        self._collecting = not flag
        self._sock.setblocking(flag)

    def settimeout(self, timeout_s: float | None) -> None:
        self._sock.settimeout(timeout_s)

    def fileno(self) -> int:
        return self._sock.fileno()

    def close(self) -> None:
        with contextlib.suppress(OSError):  # paho closes as soon as it has handed DISCONNECT to us
            self.flush()
        self._sock.close()


class _Connection(paho.Client):
    """One connection, from CONNECT to its end; a reconnect is a new one, so nothing of the old one can linger."""

    def __init__(
        self,
        client_id: str,
        queue: MessageQueue,
        *,
        mqtt_5: bool,
        tls: ssl.SSLContext | None,
        websocket_path: str | None,
    ) -> None:
        super().__init__(
            CallbackAPIVersion.VERSION2,
            client_id=client_id,
            clean_session=None if mqtt_5 else False,
            protocol=paho.MQTTv5 if mqtt_5 else paho.MQTTv311,
            transport="tcp" if websocket_path is None else "websockets",
            reconnect_on_failure=False,
        )
        self.accepted: bool | None = None  # after CONNACK: whether the broker remembered our session
        self.unacknowledged: dict[int, _Outgoing] = {}
        self.send_window = _SEND_WINDOW
        self._queue = queue
        self._received: list[Message] = []
        self._mqtt_5 = mqtt_5
        self._has_tls = tls is not None
        self._blocks: _BlockSocket | None = None
        self._poll = select.poll()
        self._ended: _Lost | None = None
        if tls is not None:
            self.tls_set_context(tls)
        if websocket_path is not None:
            self.ws_set_options(path=websocket_path)
        self.connect_timeout = _CONNECT_TIMEOUT_S
        self.on_connect = self._connack
        self.on_disconnect = self._disconnected
        self.on_message = self._message
        # With this set paho leaves writing to the owner of the loop instead of doing it inside publish().
        self.on_socket_register_write = lambda *_: None

    def open(self, host: str, port: int, keepalive_s: int, session_expiry_s: int) -> None:
        """Open the socket, with TLS and WebSocket handshake as configured, and send CONNECT."""
        if self._mqtt_5:
            properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
            properties.SessionExpiryInterval = session_expiry_s
            properties.ReceiveMaximum = _RECEIVE_MAXIMUM
            self.connect_async(host, port, keepalive_s, clean_start=False, properties=properties)
        else:
            self.connect_async(host, port, keepalive_s)
        try:
            self.reconnect()
        except paho.WebsocketConnectionError as error:
            raise _Lost("protocol", str(error)) from error
        except TimeoutError as error:
            raise _Lost("timeout", f"no connection within {_CONNECT_TIMEOUT_S:.0f} s") from error
        except OSError as error:
            of_tls = _tls_loss(error) if self._has_tls else None
            raise of_tls or _Lost("refused", error.strerror or str(error)) from error

    def pump(self, wake_fd: int, timeout_s: float) -> None:
        """Wait up to `timeout_s` for something to do, and do it; :class:`_Lost` when the connection has ended."""
        blocks = self._blocks
        assert blocks is not None
        self._write(blocks)
        if self.socket() is not None:
            self._poll.register(wake_fd, select.POLLIN)
            self._poll.register(blocks.fileno(), select.POLLIN | (select.POLLOUT if blocks.unsent else 0))
            ready = dict(self._poll.poll(0 if blocks.pending() else max(0.0, timeout_s) * 1000))
            if wake_fd in ready:
                os.eventfd_read(wake_fd)
            if blocks.pending() or ready.get(blocks.fileno(), 0) & ~select.POLLOUT:
                self._read(blocks)
            self._write(blocks)
            self.loop_misc()
        if self._ended is not None:
            raise self._ended

    def send(self, message: _Outgoing) -> None:
        """Publish with QoS 1; it stays in `unacknowledged` until the broker has it."""
        sent = self.publish(message.topic, message.payload, qos=1, retain=message.retain)
        self.unacknowledged[sent.mid] = message

    def subscribe_all(self, topics: tuple[str, ...], *, send_retained: bool) -> None:
        """Subscribe with QoS 1; with MQTT 5 retained messages come only when asked for or new."""
        if not topics:
            return
        if self._mqtt_5:
            retained = (
                SubscribeOptions.RETAIN_SEND_ON_SUBSCRIBE if send_retained else SubscribeOptions.RETAIN_SEND_IF_NEW_SUB
            )
            self.subscribe([(topic, SubscribeOptions(qos=1, retainHandling=retained)) for topic in topics])
        else:
            self.subscribe([(topic, 1) for topic in topics])

    def leave(self) -> None:
        """Send DISCONNECT and close."""
        self.disconnect()
        self.loop_write()

    def close(self) -> None:
        """Close the socket, if there is one."""
        if self._blocks is not None:
            self._blocks.close()

    def _read(self, blocks: _BlockSocket) -> None:
        for _ in range(_PACKETS_A_ROUND):  # of one packet each, and of more while some of ours are on their way
            if self.loop_read() != paho.MQTT_ERR_SUCCESS or self.socket() is None or not blocks.pending():
                break
            if len(self._received) >= _PACKETS_A_ROUND:
                break
        if self._received:  # before their acknowledgements leave
            self._queue.put_many(self._received)
            self._received.clear()

    def _write(self, blocks: _BlockSocket) -> None:
        if self.socket() is None:
            return
        self.loop_write()
        try:
            blocks.flush()
        except OSError as error:
            raise self._ended or _Lost("lost", error.strerror or str(error)) from error

    # Hooks of paho: what it makes of a new socket, and its callbacks

    def _create_socket_connection(self) -> socket.socket:
        sock = super()._create_socket_connection()
        return sock if self._has_tls else self._in_blocks(sock, tls=False)

    def _ssl_wrap_socket(self, tcp_sock: socket.socket) -> ssl.SSLSocket:
        return self._in_blocks(super()._ssl_wrap_socket(tcp_sock), tls=True)  # type: ignore[return-value]

    def _in_blocks(self, sock: socket.socket, *, tls: bool) -> socket.socket:
        self._blocks = _BlockSocket(sock, tls=tls)
        return self._blocks  # type: ignore[return-value]

    # paho's own ask of each exception whether it is one of OpenSSL's, and would load that for the answer.

    def _sock_recv(self, bufsize: int) -> bytes:
        if self._sock is None:
            raise ConnectionError("closed")
        return bytes(self._sock.recv(bufsize))

    def _sock_send(self, buf: bytes | bytearray) -> int:
        if self._sock is None:
            raise ConnectionError("closed")
        return int(self._sock.send(buf))

    def _message(self, _c: paho.Client, _u: object, message: paho.MQTTMessage) -> None:
        assert self._blocks is not None
        with contextlib.suppress(UnicodeDecodeError):  # a topic that is no UTF-8: only a broken broker sends it
            self._received.append(Message(message.topic, bytes(message.payload), self._blocks.read_at, message.retain))

    def _connack(
        self,
        _c: paho.Client,
        _u: object,
        flags: paho.ConnectFlags,
        code: ReasonCode,
        properties: Properties | None,
    ) -> None:
        if not code.is_failure:
            self.accepted = flags.session_present
            self.send_window = min(_SEND_WINDOW, getattr(properties, "ReceiveMaximum", _SEND_WINDOW))
            return
        reason = _reason(code.value, otherwise="refused")
        self._ended = _Lost(reason, f"the broker refuses us: {code}", wrong_version=code.value == _UNSUPPORTED_VERSION)

    def _disconnected(
        self,
        _c: paho.Client,
        _u: object,
        flags: paho.DisconnectFlags,
        code: ReasonCode,
        _p: Properties | None,
    ) -> None:
        error = self._blocks.error if self._blocks is not None else None
        of_tls = _tls_loss(error) if self._has_tls else None
        if self._ended is not None:
            return
        if flags.is_disconnect_packet_from_server:
            self._ended = _Lost(_reason(code.value, otherwise="lost"), f"the broker ended the connection: {code}")
        elif of_tls is not None:
            self._ended = of_tls
        elif self.accepted is None:
            text = "the broker closed the connection without an answer to CONNECT"
            self._ended = _Lost(_reason(code.value, otherwise="refused"), text, wrong_version=True)
        else:
            text = (error.strerror or str(error)) if error is not None else str(code)
            self._ended = _Lost(_reason(code.value, otherwise="lost"), f"connection lost: {text}")


def _reason(code: int, *, otherwise: ReconnectReason) -> ReconnectReason:
    return _REASON_OF_CODE.get(code, otherwise)
