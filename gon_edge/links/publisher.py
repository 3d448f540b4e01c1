"""Sends messages to a broker and knows which of them arrived: the sending side of ``publish``, ``replay`` and ``demo``,
and with :meth:`Publisher.subscribe` the receiving side of ``record``.

One thread, the caller's: paho's loop turns inside :meth:`Publisher.send`, :meth:`Publisher.wait_until` and
:meth:`Publisher.drain`.  The daemon's connection is ``mqtt``: it subscribes, states its own presence and may never
block, none of which fits here.
"""

from __future__ import annotations

import contextlib
import json
import logging
import math
import ssl
import time
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Self

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from gon_edge.config.schema import MqttConfig
from gon_edge.errors import ConfigError, InputError, UnreachableError

log = logging.getLogger(__name__)

_CONNECT_S = 10.0
_KEEPALIVE_S = 15
_RETRY_S = (0.2, 5.0)  # first and longest wait between two attempts to reconnect
# Messages on the way without an acknowledgement.  More gains nothing on a LAN, and brokers drop what they cannot queue.
_WINDOW = 100
_UNSUPPORTED_VERSION = 132  # as MQTT 5 has it; paho translates the 1 of MQTT 3


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

    Raises
    ------
    UnreachableError
        When the broker does not answer or does not let us in; from the methods too.

    Examples
    --------
    >>> with Publisher(settings) as publisher:                       # doctest: +SKIP
    ...     publisher.send("telemetry/pump", b'{"flow": 1.5}')
    ...     publisher.drain()
    """

    def __init__(self, settings: MqttConfig, *, patience_s: float = 30.0) -> None:
        self.sent = self.acknowledged = self.refused = 0
        self.refusal = ""
        self._settings = settings
        self._url = f"{settings.scheme}://{settings.host}:{settings.port}"
        self._patience_s = patience_s
        self._window = _WINDOW
        self._connack: ReasonCode | None = None
        self._lost = False
        self._topics: tuple[str, ...] = ()
        self._subscribed = False
        self._client = self._first_connection()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def url(self) -> str:
        """The broker, without user name and password."""
        return self._url

    def send(self, topic: str, payload: bytes) -> None:
        """Send a message; waits while too many others are on their way."""
        while self.sent - self.acknowledged - self.refused >= self._window:
            self._turn(1.0)
        self._client.publish(topic, payload, qos=1)
        self.sent += 1

    def subscribe(self, topics: tuple[str, ...], take: Callable[[paho.MQTTMessage], None]) -> None:
        """Have the messages of some topic filters given to ``take``, with QoS 1, from within the other methods.

        Raises
        ------
        UnreachableError
            The broker refuses one of them.
        """
        refused: list[str] = []

        def answered(_c: paho.Client, _u: object, _mid: int, codes: list[ReasonCode], _p: Properties | None) -> None:
            self._subscribed = True
            refused.extend(f"{t}: {code}" for t, code in zip(topics, codes, strict=False) if code.is_failure)

        self._topics, self._subscribed = topics, False
        self._client.on_message = lambda _c, _u, message: take(message)
        self._client.on_subscribe = answered
        self._client.subscribe([(topic, 1) for topic in topics])
        deadline = time.monotonic() + _CONNECT_S
        while not self._subscribed:
            if time.monotonic() > deadline:
                raise UnreachableError(f"{self._url} does not answer to SUBSCRIBE")
            self._turn(0.2)
        if refused:
            raise UnreachableError(f"{self._url} refuses {', '.join(refused)}")

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
        with contextlib.suppress(OSError, ValueError):
            self._client.disconnect()
            self._client.loop(0.1)

    def _first_connection(self) -> paho.Client:
        host, port = self._settings.host, self._settings.port
        client = self._new_client(mqtt_5=self._settings.protocol != "3.1.1")
        try:
            self._open(client, client.connect, host, port, _KEEPALIVE_S)
        except _OtherVersion as failure:
            if self._settings.protocol != "auto":
                raise UnreachableError(str(failure)) from None
            client = self._new_client(mqtt_5=False)
            try:
                self._open(client, client.connect, host, port, _KEEPALIVE_S)
            except _OtherVersion as again:
                raise UnreachableError(str(again)) from None
        return client

    def _new_client(self, *, mqtt_5: bool) -> paho.Client:
        settings = self._settings
        client = paho.Client(
            CallbackAPIVersion.VERSION2,
            protocol=paho.MQTTv5 if mqtt_5 else paho.MQTTv311,
            transport="websockets" if settings.websockets else "tcp",
            reconnect_on_failure=False,
        )
        client.connect_timeout = _CONNECT_S
        client.max_inflight_messages_set(_WINDOW)
        if settings.websockets:
            client.ws_set_options(path=settings.websocket_path)
        if settings.tls:
            try:
                context = ssl.create_default_context(cafile=settings.ca_file)
            except (OSError, ValueError) as error:
                raise InputError(f"{settings.ca_file}: cannot be used as a certificate authority: {error}") from None
            if settings.cert_file is not None:
                try:
                    context.load_cert_chain(settings.cert_file, settings.key_file)
                except (OSError, ValueError) as error:
                    raise InputError(f"{settings.cert_file}: cannot be used as a certificate: {error}") from None
            client.tls_set_context(context)
        if settings.username is not None:
            try:
                client.username_pw_set(settings.username, settings.password())
            except ConfigError as error:
                raise InputError(str(error)) from None
        client.on_connect = self._on_connect
        client.on_disconnect = self._on_disconnect
        client.on_publish = self._on_publish
        return client

    def _open(self, client: paho.Client, connect: Callable[..., object], *arguments: object) -> None:
        """Open a socket and wait for CONNACK."""
        self._connack = None
        self._lost = False
        try:
            connect(*arguments)
            connack = self._wait_for_connack(client)
        except ssl.SSLCertVerificationError as error:
            raise UnreachableError(
                f"{self._url}: its certificate is not valid ({error.verify_message}); name the CA with --ca-file"
            ) from None
        except ssl.SSLError as error:
            raise UnreachableError(f"{self._url}: TLS failed: {error.reason or error}") from None
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
            raise UnreachableError(f"no broker at {self._url}: {reason}") from None
        if connack is None:
            problem = f"{self._url} closed the connection without an answer" if self._lost else "no answer to CONNECT"
            raise _OtherVersion(f"no MQTT broker at {self._url}: {problem}")
        if connack.value == _UNSUPPORTED_VERSION:
            raise _OtherVersion(f"{self._url} refuses us: {connack}")
        if connack.is_failure:
            raise UnreachableError(f"{self._url} refuses us: {connack}; see --username and --password-file")

    def _wait_for_connack(self, client: paho.Client) -> ReasonCode | None:
        deadline = time.monotonic() + _CONNECT_S
        while self._connack is None and not self._lost and time.monotonic() < deadline:
            client.loop(0.2)
        return self._connack

    def _turn(self, timeout_s: float) -> None:
        """Move bytes for up to `timeout_s`; come back with a connection."""
        if self._client.loop(timeout_s) == paho.MQTT_ERR_SUCCESS and not self._lost:
            return
        log.warning("connection to %s lost; trying again", self._url)
        deadline = time.monotonic() + self._patience_s
        delay_s, longest_s = _RETRY_S
        while True:
            try:
                self._open(self._client, self._client.reconnect)  # paho sends again what has no acknowledgement
                log.warning("connected to %s again", self._url)
                return
            except (UnreachableError, _OtherVersion) as error:
                if time.monotonic() + delay_s > deadline:
                    raise UnreachableError(f"{error} (waited {self._patience_s:.0f} s for it to come back)") from None
            time.sleep(delay_s)
            delay_s = min(2.0 * delay_s, longest_s)

    def _on_connect(
        self, _c: paho.Client, _u: object, _f: paho.ConnectFlags, code: ReasonCode, properties: Properties | None
    ) -> None:
        self._connack = code
        self._window = min(_WINDOW, getattr(properties, "ReceiveMaximum", _WINDOW))
        if self._topics and not code.is_failure:  # again: a broker may forget
            self._client.subscribe([(topic, 1) for topic in self._topics])

    def _on_disconnect(
        self, _c: paho.Client, _u: object, _f: paho.DisconnectFlags, _r: ReasonCode, _p: Properties | None
    ) -> None:
        self._lost = True

    def _on_publish(self, _c: paho.Client, _u: object, _mid: int, code: ReasonCode, _p: Properties | None) -> None:
        if not code.is_failure:
            self.acknowledged += 1
            return
        self.refused += 1
        self.refusal = self.refusal or str(code)


class _OtherVersion(Exception):
    """No answer, or not in this version of MQTT: another version may fare better."""


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
