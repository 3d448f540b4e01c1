"""The broker: connect, subscribe, and messages there and back, also on the topics of alerts and states."""

from __future__ import annotations

import contextlib
import json
import math
import os
import time
from collections.abc import Iterator
from typing import NamedTuple

from gon_edge.commands.doctor.finding import Finding, certificate, one_line
from gon_edge.config.schema import Config
from gon_edge.errors import ConfigError
from gon_edge.events import Alert
from gon_edge.links.mqtt.client import own_client_id, own_topic
from gon_edge.links.mqtt.connection import Connection, Session, broker_url, connect
from gon_edge.links.mqtt.lost import Lost
from gon_edge.links.mqtt.outbox import Outgoing
from gon_edge.links.mqtt.queue import Message
from gon_edge.stream.held import event_json

_ANSWER_S = 10.0  # not critical: a broker that lives answers at once
_BACK_S = 5.0  # not critical: a message takes milliseconds

_ADVICE = {
    "address": "is the broker running, and are host and port of mqtt.url right?",
    "certificate": "mqtt.ca_file must name the authority that signed it; mqtt.url or mqtt.server_name a name in it",
    "tls": "check mqtt.ca_file, cert_file and key_file, and that the port is the one for TLS",
    "login": "check mqtt.username and the password; with TLS use mqtts://",
}
"""What to look at, by what `Lost` concerns."""


def check_broker(config: Config, filters: tuple[str, ...]) -> Iterator[Finding]:
    """Whether we get in, may read our topics, and are heard.

    Parameters
    ----------
    config : Config
    filters : tuple of str
        Topic filters of the subscriptions.
    """
    url = broker_url(config.mqtt)
    # Another client identifier than the daemon's, whose session would end otherwise; and no session of its own.
    client_id = f"{own_client_id(config.mqtt, config.node)}-doctor"
    try:
        connection = connect(config.mqtt, Session(client_id, max_payload=config.limits.payload_bytes))
    except ConfigError as error:
        advice = _ADVICE["tls"] if config.mqtt.tls else _ADVICE["login"]
        yield Finding("broker", "fault", f"{url}: {one_line(error)}", advice)
        return
    except Lost as lost:
        yield Finding("broker", "fault", f"{url}: {lost}", _ADVICE[lost.concerns])
        return
    try:
        yield Finding("broker", "ok", f"{url}: connected{', with TLS' if config.mqtt.tls else ''}")
        expiry = connection.certificate_expiry()
        if expiry is not None:
            yield certificate("the broker's certificate", expiry)
        probe = _Probe(connection)
        for topic in filters:
            refusal = probe.subscribe(topic)
            if refusal:
                advice = "let this user read it: see the access rights (acl_file) of the broker"
                yield Finding("broker", "fault", f"the subscription to {topic!r} is refused: {refusal}", advice)
            else:
                yield Finding("broker", "ok", f"subscribed to {topic!r}")
        trip = _round_trip(config, probe)
        yield trip
        if trip.state == "ok":
            yield _real_topics(config, probe)
    except Lost as lost:
        yield Finding("broker", "fault", f"{url}: {lost}", "see the broker's log")
    finally:
        connection.leave()


def _round_trip(config: Config, probe: _Probe) -> Finding:
    """Send a message to a topic of our own and see it come back.

    A denied message is acknowledged as if it had been sent, by MQTT 3.1.1 always and by 5 on some brokers: only what
    comes back proves anything.
    """
    topic = own_topic(config.mqtt, config.node, "doctor")
    began = time.monotonic()
    sent = probe.send(topic, os.urandom(8).hex().encode())  # not critical: nobody else sends the same
    advice = f"let this user write {own_topic(config.mqtt, config.node)}/#, and read and write {topic}"
    if sent.refusal:
        return Finding("broker", "fault", f"messages to {topic!r} are refused: {sent.refusal}", advice)
    if not sent.readable:
        text = f"{topic!r} was written and cannot be read back, so whether alerts get through is not known"
        return Finding("broker", "warning", text, advice)
    if not sent.came_back:
        text = f"a message to {topic!r} was acknowledged and did not come back: the broker drops what we send"
        return Finding("broker", "fault", text, advice)
    return Finding("broker", "ok", f"a message to {topic!r} came back after {1000 * (time.monotonic() - began):.1f} ms")


def _real_topics(config: Config, probe: _Probe) -> Finding:
    """Send to the topics that matter what changes nothing there: the end of no alert, and no state of no stream."""
    name = f"doctor-{os.urandom(4).hex()}"
    now = time.time()
    end = Alert(name, "end", "missing", name, now, now, math.nan, math.nan, "warning", (), "", name)
    topics = {
        own_topic(config.mqtt, config.node, "alert"): json.dumps(event_json(end)).encode(),
        own_topic(config.mqtt, config.node, "state", name): b"",
    }
    unknown = ""
    for topic, payload in topics.items():
        sent = probe.send(topic, payload, retain=not payload)
        shown = topic.replace(name, "#")
        advice = f"let this user read and write {shown}: see the access rights (acl_file) of the broker"
        if sent.refusal:
            return Finding("broker", "fault", f"messages to {shown!r} are refused: {sent.refusal}", advice)
        if not sent.came_back and not probe.tells_refusals:
            text = f"a message to {shown!r} was acknowledged and did not come back: denied, or we may not read it"
            return Finding("broker", "fault", text, advice)
        unknown = unknown or ("" if sent.came_back else shown)
    if unknown:
        text = f"messages to {unknown!r} are accepted and cannot be read back, so whether they get through is not known"
        advice = f"let this user read {unknown} too, so that this can be tested"
        return Finding("broker", "warning", text, advice)
    return Finding("broker", "ok", f"alerts and states get through: {', '.join(t.replace(name, '#') for t in topics)}")


class _Sent(NamedTuple):
    """What became of a message: why it was refused (empty where it was not), and what of it can be read back."""

    refusal: str
    readable: bool
    came_back: bool


class _Probe:
    """Asks the broker one thing at a time, and waits for the answer; each raises `Lost` without one."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._refusals: list[str] = []  # answers; an empty one is a yes
        self._expected = ("", b"")
        self._arrived = False
        self.tells_refusals = connection.mqtt_5
        connection.on_subscribed = lambda refused: self._refusals.append(next(iter(refused.values()), ""))
        connection.on_published = lambda message, refusal: self._refusals.append(refusal)
        connection.on_messages = self._take

    def subscribe(self, topic: str) -> str:
        """Subscribe, and return why that is refused; empty when it is granted."""
        self._connection.subscribe((topic,))
        return self._answer(f"the subscription to {topic!r}")

    def send(self, topic: str, payload: bytes, *, retain: bool = False) -> _Sent:
        """Publish with QoS 1, and see whether it comes back."""
        readable = not self.subscribe(topic)
        self._expected, self._arrived = (topic, payload), False
        self._connection.send(Outgoing(topic, payload, retain))
        refusal = self._answer(f"the message to {topic!r}")
        return _Sent(refusal, readable, readable and not refusal and self._comes_back())

    def _comes_back(self) -> bool:
        with contextlib.suppress(Lost):
            return self._connection.wait(lambda: self._arrived, _BACK_S)
        return False

    def _answer(self, what: str) -> str:
        if not self._connection.wait(lambda: bool(self._refusals), _ANSWER_S):
            raise Lost("timeout", f"no answer to {what} within {_ANSWER_S:g} s")
        return self._refusals.pop()

    def _take(self, messages: list[Message]) -> None:
        # What devices send meanwhile arrives here too.
        self._arrived |= any((message.topic, message.payload) == self._expected for message in messages)
