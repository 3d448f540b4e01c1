"""One connection to a broker, from CONNECT to its end: the one way to connect.

The daemon (`client`), the commands (``links/publisher``) and the doctor use it.  It knows the address, user name and
password, the versions of the protocol and the will; `tls` and `lost` say in words what went wrong.  Whether and when to
try again is up to the others.  Only this module knows paho: paho opens the socket and speaks MQTT, and
:meth:`Connection.pump` drives it, in blocks of our own making (`blocks`).
"""

from __future__ import annotations

import contextlib
import os
import select
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode
from paho.mqtt.subscribeoptions import SubscribeOptions

from gon_edge.links.mqtt.blocks import BlockSocket, InBlocks
from gon_edge.links.mqtt.cut import Cut, Frames, Packets, most_packet_bytes
from gon_edge.links.mqtt.lost import UNSUPPORTED_VERSION, Lost, reason_of, words
from gon_edge.links.mqtt.outbox import Outgoing
from gon_edge.links.mqtt.queue import Message
from gon_edge.links.mqtt.tls import tls_context, tls_loss

if TYPE_CHECKING:
    from gon_edge.config.schema import MqttConfig

_CONNECT_TIMEOUT_S = 10.0  # not critical: for the socket, and again for CONNACK
_PACKETS_A_ROUND = 250  # not critical: however fast the broker sends, keep-alive and sending then have their turn
# Messages the broker may have on the way to us unacknowledged.  Brokers queue the rest, and drop beyond a bound
# (mosquitto: 20 on the way and 1000 queued by default); the largest value MQTT allows makes that bound 66 times wider.
_RECEIVE_MAXIMUM = 65535


class Session(NamedTuple):
    """What CONNECT says of us, beyond the configuration.

    Attributes
    ----------
    client_id : str
        Empty lets the broker choose one.
    expiry_s : int or None
        For how many seconds without us the broker keeps subscriptions and messages; ``None`` for no session at all.
    keepalive_s : int
        A silence of one and a half times this ends the connection.
    will : Outgoing or None
        What the broker says for us when we are gone without a word.
    window : int
        Messages of ours on the way unacknowledged; the broker may allow fewer.
    max_payload : int or None
        Bytes of a message that are taken; a larger one stays with the broker by MQTT 5, else it is cut (`cut`).
        ``None`` takes any.
    """

    client_id: str = ""
    expiry_s: int | None = None
    keepalive_s: int = 15  # not critical: a command notices within 23 s that the network is gone
    will: Outgoing | None = None
    window: int = 20  # mosquitto's default bound in the other direction; more gains nothing on a LAN
    max_payload: int | None = None


def broker_url(settings: MqttConfig) -> str:
    """Return the address of the broker without user name and password, for people."""
    return f"{settings.scheme}://{settings.host}:{settings.port}"


def versions(settings: MqttConfig) -> tuple[bool, ...]:
    """Return what to speak, in the order to try: true is MQTT 5, false 3.1.1."""
    return {"auto": (True, False), "5": (True,), "3.1.1": (False,)}[settings.protocol]


def connect(settings: MqttConfig, session: Session) -> Connection:
    """Connect and wait until the broker has accepted us: by MQTT 5, or 3.1.1 where it knows nothing newer.

    For commands, which wait; the daemon's thread goes through the same steps one by one.

    Raises
    ------
    Lost
        The broker cannot be reached or does not let us in.
    ConfigError
        A certificate, a key or the password cannot be read.
    """
    *earlier, last = versions(settings)
    for mqtt_5 in earlier:
        try:
            return _accepted(settings, session, mqtt_5=mqtt_5)
        except Lost as lost:
            if not lost.wrong_version:
                raise
    return _accepted(settings, session, mqtt_5=last)


def _accepted(settings: MqttConfig, session: Session, *, mqtt_5: bool) -> Connection:
    connection = Connection(settings, session, mqtt_5=mqtt_5)
    try:
        connection.open()
        connection.await_connack()
    except Lost:
        connection.close()
        raise
    return connection


class Connection:
    """One connection, from CONNECT to its end; a reconnect is a new one, so nothing of the old one can linger.

    One thread at a time: everything happens within :meth:`pump`, callbacks as well.

    Parameters
    ----------
    settings : MqttConfig
    session : Session
    mqtt_5 : bool
        The version to speak; else 3.1.1.

    Attributes
    ----------
    accepted : bool or None
        After CONNACK: whether the broker remembered our session.
    unacknowledged : dict of int to Outgoing
        What was sent and the broker may not have yet, by packet identifier, oldest first.
    send_window : int
        How many of these there may be.
    most_packet : int or None
        Bytes of the largest packet the broker takes, where it says so.
    on_messages : callable
        Takes the messages of one round, before they are acknowledged.
    on_cut : callable
        Takes the messages of a round that were too large and were cut.
    on_subscribed : callable
        Takes the topic filters of a SUBSCRIBE that the broker refused, each with its reason.
    on_unsubscribed : callable
        Takes the topic filters of an UNSUBSCRIBE that the broker has heeded.
    on_published : callable
        Takes a message of ours that was answered, and the reason why the broker refused it; empty when it has it.

    Raises
    ------
    ConfigError
        A certificate, a key or the password cannot be read.
    """

    def __init__(self, settings: MqttConfig, session: Session, *, mqtt_5: bool) -> None:
        self.mqtt_5 = mqtt_5
        self.accepted: bool | None = None
        self.unacknowledged: dict[int, Outgoing] = {}
        self.send_window = session.window
        self.most_packet: int | None = None
        self.on_messages: Callable[[list[Message]], None] = _nothing
        self.on_cut: Callable[[list[Cut]], None] = _nothing
        self.on_subscribed: Callable[[dict[str, str]], None] = _nothing
        self.on_unsubscribed: Callable[[tuple[str, ...]], None] = _nothing
        self.on_published: Callable[[Outgoing, str], None] = _nothing
        self._settings = settings
        self._session = session
        self._asked: dict[int, tuple[str, ...]] = {}  # topic filters by packet identifier
        self._sent_at: dict[int, float] = {}  # of what is unacknowledged, by time.monotonic
        self._received: list[Message] = []
        self._poll = select.poll()
        self._ended: Lost | None = None
        self._packets = Packets(session.max_payload, mqtt_5=mqtt_5) if session.max_payload is not None else None
        feed = None
        if self._packets is not None:
            feed = Frames(self._packets).feed if settings.websockets else self._packets.feed
        self._sockets = InBlocks(tls_context(settings), feed, server_name=settings.server_name)
        self._client = self._new_client()

    def _new_client(self) -> paho.Client:
        settings, session = self._settings, self._session
        clean = session.expiry_s is None
        client = paho.Client(
            CallbackAPIVersion.VERSION2,
            client_id=session.client_id,
            clean_session=None if self.mqtt_5 else clean,
            protocol=paho.MQTTv5 if self.mqtt_5 else paho.MQTTv311,
            transport="websockets" if settings.websockets else "tcp",
            reconnect_on_failure=False,
        )
        client.connect_timeout = _CONNECT_TIMEOUT_S
        client.max_inflight_messages_set(session.window)
        client.tls_set_context(self._sockets)  # type: ignore[arg-type]
        if settings.websockets:
            client.ws_set_options(path=settings.websocket_path, headers=_websocket_headers(settings))
        if settings.username is not None:
            client.username_pw_set(settings.username, settings.password())
        if session.will is not None:
            client.will_set(session.will.topic, session.will.payload, qos=1, retain=session.will.retain)
        client.on_connect = self._connack
        client.on_disconnect = self._disconnected
        client.on_message = self._message
        client.on_subscribe = self._suback
        client.on_unsubscribe = self._unsuback
        client.on_publish = self._puback
        # With this set paho leaves writing to the owner of the loop instead of doing it inside publish().
        client.on_socket_register_write = lambda *_: None
        return client

    def open(self) -> None:
        """Open the socket, with TLS and WebSocket handshake as configured, and send CONNECT."""
        host, port, session = self._settings.host, self._settings.port, self._session
        properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
        if session.max_payload is not None:
            properties.MaximumPacketSize = most_packet_bytes(session.max_payload)
        if self.mqtt_5:
            properties.ReceiveMaximum = _RECEIVE_MAXIMUM
        if self.mqtt_5 and session.expiry_s is not None:
            properties.SessionExpiryInterval = session.expiry_s
            self._client.connect_async(host, port, session.keepalive_s, clean_start=False, properties=properties)
        elif self.mqtt_5:
            self._client.connect_async(host, port, session.keepalive_s, properties=properties)
        else:
            self._client.connect_async(host, port, session.keepalive_s)
        try:
            self._client.reconnect()
        except paho.WebsocketConnectionError as error:
            path = self._settings.websocket_path
            text = f"no WebSocket at the path {path}: {error}; see the path and the port of mqtt.url"
            raise Lost("protocol", text) from error
        except TimeoutError as error:
            raise Lost("timeout", f"no connection within {_CONNECT_TIMEOUT_S:.0f} s") from error
        except (OSError, ValueError) as error:  # ValueError: what can be no name of a host
            raise tls_loss(error, self._settings) or Lost("refused", words(error)) from error

    def await_connack(self, stopped: Callable[[], bool] = lambda: False, wake_fd: int | None = None) -> None:
        """Wait until the broker has accepted us, or `stopped`."""
        if not self.wait(lambda: self.accepted is not None or stopped(), _CONNECT_TIMEOUT_S, wake_fd):
            # amqtt, which knows MQTT 3.1.1, waits for more bytes when it is greeted by MQTT 5.
            raise Lost("timeout", f"no answer to CONNECT within {_CONNECT_TIMEOUT_S:.0f} s", wrong_version=True)

    def wait(self, reached: Callable[[], bool], timeout_s: float, wake_fd: int | None = None) -> bool:
        """Pump until `reached` says so; return False when it did not within `timeout_s`."""
        deadline = time.monotonic() + timeout_s
        while not reached():
            left_s = deadline - time.monotonic()
            if left_s <= 0.0:
                return False
            self.pump(min(left_s, 1.0), wake_fd)
        return True

    def pump(self, timeout_s: float, wake_fd: int | None = None) -> None:
        """Wait up to `timeout_s` for something to do, and do it.

        Parameters
        ----------
        timeout_s : float
            At most a second, or keep-alive suffers.
        wake_fd : int, optional
            An eventfd that ends the waiting.

        Raises
        ------
        Lost
            The connection has ended.
        """
        self.flush()
        blocks = self._sockets.newest
        if blocks is not None and self._client.socket() is not None:
            if wake_fd is not None:
                self._poll.register(wake_fd, select.POLLIN)
            self._poll.register(blocks.fileno(), select.POLLIN | (select.POLLOUT if blocks.unsent else 0))
            ready = dict(self._poll.poll(0 if blocks.pending() else max(0.0, timeout_s) * 1000))
            if wake_fd is not None and wake_fd in ready:
                os.eventfd_read(wake_fd)
            if blocks.pending() or ready.get(blocks.fileno(), 0) & ~select.POLLOUT:
                self._read(blocks)
            self.flush()
            self._client.loop_misc()
        if self._ended is not None:
            raise self._ended

    def send(self, message: Outgoing) -> None:
        """Publish with QoS 1, with the next :meth:`flush` or :meth:`pump`; never waits."""
        sent = self._client.publish(message.topic, message.payload, qos=1, retain=message.retain)
        self.unacknowledged[sent.mid] = message
        self._sent_at[sent.mid] = time.monotonic()

    @property
    def waited_s(self) -> float:
        """How long the oldest message of ours has waited for its acknowledgement; 0 when none waits."""
        return time.monotonic() - next(iter(self._sent_at.values())) if self._sent_at else 0.0

    @property
    def unanswered(self) -> tuple[str, ...]:
        """Topic filters of a SUBSCRIBE or UNSUBSCRIBE that has no answer yet."""
        return tuple(topic for topics in self._asked.values() for topic in topics)

    def takes(self, message: Outgoing) -> bool:
        """Whether a message is within what the broker takes, as far as it says."""
        body = 2 + len(message.topic.encode()) + 2 + 1 + len(message.payload)  # identifier, and no properties
        return self.most_packet is None or body + 5 <= self.most_packet  # a header of five bytes at most

    def flush(self) -> None:
        """Hand what was sent to the kernel, as far as it takes it; :class:`Lost` when the connection is gone."""
        blocks = self._sockets.newest
        if blocks is None or self._client.socket() is None:
            return
        self._client.loop_write()
        try:
            blocks.flush()
        except OSError as error:
            raise self._ended or Lost("lost", words(error)) from error

    def subscribe(self, topics: tuple[str, ...], *, send_retained: bool = True) -> None:
        """Subscribe with QoS 1; with MQTT 5 retained messages come only when asked for or new."""
        if not topics:
            return
        filters: list[tuple[str, SubscribeOptions | int]] = [(topic, 1) for topic in topics]
        if self.mqtt_5:
            retained = (
                SubscribeOptions.RETAIN_SEND_ON_SUBSCRIBE if send_retained else SubscribeOptions.RETAIN_SEND_IF_NEW_SUB
            )
            filters = [(topic, SubscribeOptions(qos=1, retainHandling=retained)) for topic in topics]
        _, mid = self._client.subscribe(filters)  # type: ignore[arg-type]
        if mid is not None:
            self._asked[mid] = topics

    def recall(self, topics: tuple[str, ...]) -> None:
        """Have the retained messages of some topic filters sent once, and nothing that is published there later."""
        self.subscribe(topics)
        self.unsubscribe(topics)

    def unsubscribe(self, topics: tuple[str, ...]) -> None:
        """Tell the broker that these topic filters are not wanted any more."""
        if topics:
            _, mid = self._client.unsubscribe(list(topics))
            if mid is not None:
                self._asked[mid] = topics

    @property
    def read_at(self) -> float:
        """Monotonic seconds at which bytes of the broker were read last."""
        return self._sockets.newest.read_at if self._sockets.newest is not None else 0.0

    def certificate_expiry(self) -> float | None:
        """Return the Unix time at which the broker's certificate ends; ``None`` without TLS."""
        certificate = self._sockets.newest.peer_certificate() if self._sockets.newest is not None else None
        if not certificate:
            return None
        import ssl

        return ssl.cert_time_to_seconds(str(certificate["notAfter"]))

    def leave(self) -> None:
        """Send DISCONNECT and close."""
        self._client.disconnect()
        self._client.loop_write()
        self.close()

    def close(self) -> None:
        """Close the socket, if there is one."""
        if self._sockets.newest is not None:
            self._sockets.newest.close()

    def _read(self, blocks: BlockSocket) -> None:
        for _ in range(_PACKETS_A_ROUND):  # of one packet each, and of more while some of ours are on their way
            success = self._client.loop_read() == paho.MQTT_ERR_SUCCESS
            if not success or self._client.socket() is None or not blocks.pending():
                break
            if len(self._received) >= _PACKETS_A_ROUND:
                break
        if self._packets is not None and self._packets.cut:
            self.on_cut(self._packets.cut)
            self._packets.cut = []
        if self._received:  # before their acknowledgements leave
            self.on_messages(self._received)
            self._received = []

    # Callbacks of paho, within pump

    def _message(self, _c: paho.Client, _u: object, message: paho.MQTTMessage) -> None:
        assert self._sockets.newest is not None
        read_at = self._sockets.newest.read_at
        with contextlib.suppress(UnicodeDecodeError):  # a topic that is no UTF-8: only a broken broker sends it
            self._received.append(Message(message.topic, bytes(message.payload), read_at, message.retain, message.qos))

    def _suback(self, _c: paho.Client, _u: object, mid: int, codes: list[ReasonCode], _p: Properties | None) -> None:
        topics = self._asked.pop(mid, ())
        refused = {topic: str(code) for topic, code in zip(topics, codes, strict=False) if code.is_failure}
        self.on_subscribed(refused)

    def _unsuback(self, _c: paho.Client, _u: object, mid: int, codes: list[ReasonCode], _p: Properties | None) -> None:
        topics = self._asked.pop(mid, ())
        if not any(code.is_failure for code in codes):  # by MQTT 3.1.1 there are none
            self.on_unsubscribed(topics)

    def _puback(self, _c: paho.Client, _u: object, mid: int, code: ReasonCode, _p: Properties | None) -> None:
        message = self.unacknowledged.pop(mid, None)
        self._sent_at.pop(mid, None)
        if message is not None:
            self.on_published(message, str(code) if code.is_failure else "")

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
            self.send_window = min(self.send_window, getattr(properties, "ReceiveMaximum", self.send_window))
            self.most_packet = getattr(properties, "MaximumPacketSize", None)
            return
        reason = reason_of(code.value, otherwise="refused")
        wrong = code.value == UNSUPPORTED_VERSION
        text = f"the broker refuses us: {code}"
        self._ended = Lost(reason, text, concerns="login", wrong_version=wrong, is_said=wrong)

    def _disconnected(
        self,
        _c: paho.Client,
        _u: object,
        flags: paho.DisconnectFlags,
        code: ReasonCode,
        _p: Properties | None,
    ) -> None:
        error = self._sockets.newest.error if self._sockets.newest is not None else None
        of_tls = tls_loss(error, self._settings)
        if self._ended is not None:
            return
        if flags.is_disconnect_packet_from_server:
            self._ended = Lost(reason_of(code.value, otherwise="lost"), f"the broker ended the connection: {code}")
        elif of_tls is not None:
            self._ended = of_tls
        elif self.accepted is None:
            reason, text = (
                reason_of(code.value, otherwise="refused"),
                "the broker closed the connection without an answer",
            )
            self._ended = Lost(reason, f"{text} to CONNECT", concerns="login", wrong_version=True)
        else:
            text = words(error) if error is not None else str(code)
            self._ended = Lost(reason_of(code.value, otherwise="lost"), f"connection lost: {text}")


def matches(topic_filter: str, topic: str) -> bool:
    """Whether a broker sends a topic for this filter.

    Examples
    --------
    >>> matches("telemetry/+", "telemetry/pump"), matches("$share/edge/telemetry/#", "elsewhere")
    (True, False)
    """
    if topic_filter.startswith("$share/"):
        topic_filter = topic_filter.split("/", 2)[-1]
    return bool(paho.topic_matches_sub(topic_filter, topic))


def _nothing(*_: object) -> None:
    """What nobody listens to."""


def _websocket_headers(settings: MqttConfig) -> dict[str, str]:
    """What paho would send, were it told whether there is TLS (`blocks.InBlocks`)."""
    scheme, default_port = ("https", 443) if settings.tls else ("http", 80)
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    address = host if settings.port == default_port else f"{host}:{settings.port}"
    return {"Host": address, "Origin": f"{scheme}://{address}"}
