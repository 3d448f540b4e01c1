"""Sending to a real broker, and knowing what arrived."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
from e2e.servers import Mosquitto, free_port
from oldbroker import REFUSE_AS_3_1_1, OldBroker

from gon_edge.config.file import parse_config
from gon_edge.config.schema import MqttConfig
from gon_edge.errors import InputError, UnreachableError
from gon_edge.links.mqtt.outbox import Outgoing
from gon_edge.links.mqtt.queue import Message
from gon_edge.links.publisher import Publisher, publish_samples


def settings(url: str, **options: str) -> MqttConfig:
    return parse_config({"mqtt": {"url": url, **options}, "subscriptions": [{"topic": "{stream}"}]}).mqtt


def test_a_broker_that_stays_away_is_given_up(mosquitto: Mosquitto) -> None:
    publisher = Publisher(settings(mosquitto.url), patience_s=0.5)
    publisher.send("telemetry/pump", b"{}")
    assert publisher.drain()
    mosquitto.kill()
    with pytest.raises(UnreachableError, match=r"waited 0 s|waited 1 s"):
        publisher.wait_until(time.monotonic() + 20.0)


def test_no_broker_at_all_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(UnreachableError, match=r"no broker at mqtt://127\.0\.0\.1:\d+: Connection refused"):
        Publisher(settings(f"mqtt://127.0.0.1:{free_port()}"))


def test_a_broker_that_refuses_us_is_one_line_without_the_password(tmp_path: Path) -> None:
    broker = Mosquitto(tmp_path / "broker", allow_anonymous=False)
    secret = tmp_path / "secret"
    secret.write_text("hunter2\n")
    broker.start()
    try:
        with pytest.raises(UnreachableError, match=r"refuses us.*--username") as raised:
            Publisher(settings(broker.url, username="me", password_file=str(secret)))
        assert "hunter2" not in str(raised.value)
    finally:
        broker.kill()


def test_messages_the_broker_refuses_are_counted_with_the_reason(tmp_path: Path) -> None:
    acl = tmp_path / "acl"
    acl.write_text("topic write telemetry/good\n")
    acl.chmod(0o600)
    broker = Mosquitto(tmp_path / "broker", settings=f"acl_file {acl}")
    broker.start()
    try:
        with Publisher(settings(broker.url)) as publisher:
            publisher.send("telemetry/good", b"{}")
            publisher.send("telemetry/bad", b"{}")
            assert publisher.drain()
        assert (publisher.sent, publisher.acknowledged, publisher.refused) == (2, 1, 1)
        assert "authorized" in publisher.refusal.lower()
    finally:
        broker.kill()


def test_a_message_over_what_the_broker_takes_is_refused_and_ends_no_connection(tmp_path: Path) -> None:
    broker = Mosquitto(tmp_path / "broker")
    config = tmp_path / "broker" / "mosquitto.conf"
    config.write_text("max_packet_size 2000\n" + config.read_text())
    broker.start()
    try:
        with Publisher(settings(broker.url)) as publisher:
            publisher.send("t", bytes(5000))
            publisher.send("t", b"small")
            assert publisher.drain()
        assert (publisher.sent, publisher.acknowledged, publisher.refused) == (2, 1, 1)
        assert publisher.refusal == "the broker takes packets of at most 2000 bytes"
        assert broker.log.count("Sending CONNACK") == 1
    finally:
        broker.kill()


def test_samples_come_at_a_regular_pace(mosquitto: Mosquitto) -> None:
    count = iter(range(5))
    received: list[Message] = []
    with Publisher(settings(mosquitto.url)) as publisher:
        publisher.subscribe(("telemetry/host",), received.append)
        publish_samples(
            publisher,
            "telemetry/host",
            lambda: {"n": next(count)},
            0.1,
            stopped=lambda: publisher.sent >= 5,
        )
        deadline = time.monotonic() + 10.0
        while len(received) < 5 and time.monotonic() < deadline:
            publisher.wait_until(time.monotonic() + 0.1)
    assert [json.loads(message.payload)["n"] for message in received] == [0, 1, 2, 3, 4]
    assert received[-1].received_at - received[0].received_at >= 0.3


def test_what_a_broker_had_not_acknowledged_is_sent_again_in_its_order(mosquitto: Mosquitto) -> None:
    received: list[Message] = []
    with Publisher(settings(mosquitto.url)) as publisher:
        publisher.subscribe(("t",), received.append)
        for i in range(3):
            publisher._connection.send(Outgoing("t", str(i).encode()))  # on their way, and never out of the door
            publisher.sent += 1
        mosquitto.kill()
        mosquitto.start()
        publisher.send("t", b"3")
        assert publisher.drain()
        deadline = time.monotonic() + 10.0
        while len(received) < 4 and time.monotonic() < deadline:
            publisher.wait_until(time.monotonic() + 0.1)
    assert [message.payload for message in received] == [b"0", b"1", b"2", b"3"]  # and subscribed again
    assert (publisher.sent, publisher.acknowledged) == (4, 4)


def test_a_topic_the_broker_refuses_is_one_line() -> None:
    broker = OldBroker(REFUSE_AS_3_1_1)
    broker.start()
    with (
        Publisher(settings(f"mqtt://127.0.0.1:{broker.port}")) as publisher,
        pytest.raises(UnreachableError, match="refuses t: Unspecified error"),
    ):
        publisher.subscribe(("t",), print)


def test_a_certificate_that_cannot_be_read_is_a_missing_input(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=rf"^{tmp_path}/ca cannot be used for TLS"):
        Publisher(MqttConfig(url="mqtts://broker", ca_file=tmp_path / "ca"))
