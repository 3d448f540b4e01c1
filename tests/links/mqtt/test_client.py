"""The daemon's connection, against a real mosquitto; a raw socket plays the brokers that mosquitto cannot play."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from e2e.servers import Mosquitto, free_port, require, wait_until
from oldbroker import ACCEPT_THEN_TAKE_OVER, REFUSE_AS_3_1_1, REFUSE_AS_5, OldBroker, PathProxy

from gon_edge.config.schema import MqttConfig
from gon_edge.errors import ConfigError
from gon_edge.events import RECONNECT_REASONS
from gon_edge.links.mqtt import delivery
from gon_edge.links.mqtt.client import MqttClient, backoff_s
from gon_edge.links.mqtt.queue import Message

ROOT = Path(__file__).parents[3]


def settings(url: str, **changes: object) -> MqttConfig:
    fast: dict[str, object] = {"reconnect_min_s": 0.05, "reconnect_max_s": 0.2}
    return dataclasses.replace(MqttConfig(url=url), **(fast | changes))


@contextmanager
def client(
    url: str,
    *topics: str,
    on_reconnect: Callable[[str], None] | None = None,
    max_pending: int = 1000,
    max_payload: int = 2 << 20,
    state: dict[str, Any] | None = None,
    recalled: tuple[str, ...] = (),
    **changes: object,
) -> Iterator[MqttClient]:
    mqtt = MqttClient(
        settings(url, **changes),
        node="pi-1",
        subscriptions=topics,
        rng=random.Random(0),
        on_reconnect=on_reconnect,
        recalled=recalled,
        max_pending=max_pending,
        max_payload=max_payload,
    )
    mqtt.resume(state)
    mqtt.start()
    try:
        yield mqtt
    finally:
        mqtt.stop(timeout_s=2.0)


def connected(mqtt: MqttClient, times: int = 1) -> None:
    wait_until(lambda: mqtt.connected and mqtt.connects >= times, what=f"connection {times}")


def receive(mqtt: MqttClient, count: int, timeout_s: float = 10.0) -> list[Message]:
    messages: list[Message] = []
    deadline = time.monotonic() + timeout_s
    while len(messages) < count and time.monotonic() < deadline:
        messages += mqtt.queue.get_batch(1000, 0.2)
    return messages


# Reading


def test_a_message_arrives_with_topic_payload_and_time_of_receipt(mosquitto: Mosquitto) -> None:
    with client(mosquitto.url, "telemetry/+", "other/#") as mqtt:
        connected(mqtt)
        wait_until(lambda: "SUBACK" in mosquitto.log)
        before = time.clock_gettime(time.CLOCK_BOOTTIME)
        mosquitto.publish("telemetry/pump", b'{"flow": 1}\xff')
        mosquitto.publish("other/x/y", "")
        mosquitto.publish("elsewhere", "never")
        mosquitto.publish("telemetry/pump", "last")
        received = receive(mqtt, 3)
    assert [(m.topic, m.payload, m.retained) for m in received] == [
        ("telemetry/pump", b'{"flow": 1}\xff', False),
        ("other/x/y", b"", False),
        ("telemetry/pump", b"last", False),
    ]
    assert before <= received[0].received_at <= received[2].received_at <= time.clock_gettime(time.CLOCK_BOOTTIME)


@pytest.mark.parametrize("protocol", ["5", "3.1.1"])
def test_retained_telemetry_is_flagged_and_live_telemetry_is_not(mosquitto: Mosquitto, protocol: str) -> None:
    mosquitto.publish("telemetry/pump", "old", retain=True)
    with client(mosquitto.url, "telemetry/+", protocol=protocol) as mqtt:
        assert [(m.payload, m.retained) for m in receive(mqtt, 1)] == [(b"old", True)]
        mosquitto.publish("telemetry/pump", "new", retain=True)
        assert [(m.payload, m.retained) for m in receive(mqtt, 1)] == [(b"new", False)]


def test_a_large_message_arrives_whole(mosquitto: Mosquitto) -> None:
    with client(mosquitto.url, "t") as mqtt:
        connected(mqtt)
        wait_until(lambda: "SUBACK" in mosquitto.log)
        payload = os.urandom(1_000_000)
        mosquitto.publish("t", payload)
        assert receive(mqtt, 1)[0].payload == payload


def test_a_connection_without_tls_loads_no_openssl(mosquitto: Mosquitto) -> None:
    # paho asks of each exception of a socket whether it is one of OpenSSL's: what is not loaded raised none.
    program = (
        "import random, sys\n"
        "from gon_edge.process.memory import deferred\n"
        "with deferred():\n"
        "    from gon_edge.config.schema import MqttConfig\n"
        "    from gon_edge.links.mqtt.client import MqttClient\n"
        "m = MqttClient(MqttConfig(url=sys.argv[1]), node='n', subscriptions=('t',), rng=random.Random(0), "
        "max_payload=2 << 20)\n"
        "m.start()\n"
        "received = 0\n"
        "m.publish('t', bytes(1_000_000))\n"  # comes in many blocks, between which there is nothing to read
        "while not received:\n"
        "    received = len(m.queue.get_batch(10, 10.0))\n"
        "    m.publish('t', bytes(1_000_000))\n"
        "m.stop()\n"
        "print(sorted({'ssl', '_ssl'} & sys.modules.keys()))\n"
    )
    command = [sys.executable, "-c", program, mosquitto.url]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "[]\n"


@pytest.mark.slow  # 20,000 messages
def test_a_burst_of_20000_messages_beside_a_busy_thread_loses_none(mosquitto: Mosquitto) -> None:
    stop = threading.Event()

    def score() -> None:
        window, weights = np.ones((16, 38), np.float32), np.ones((38, 16), np.float32)
        while not stop.is_set():
            np.tanh(window @ weights).sum()
            sum(range(2000))

    with client(mosquitto.url, "telemetry/+") as mqtt:
        connected(mqtt)
        wait_until(lambda: "SUBACK" in mosquitto.log)
        busy = threading.Thread(target=score)
        busy.start()
        try:
            publisher = threading.Thread(
                target=mosquitto.publish_lines, args=("telemetry/pump", [f'{{"i": {i}}}' for i in range(20000)])
            )
            publisher.start()
            received = receive(mqtt, 20000, timeout_s=40)
            publisher.join()
        finally:
            stop.set()
            busy.join()
    assert [m.payload for m in received] == [f'{{"i": {i}}}'.encode() for i in range(20000)]
    assert mqtt.queue.dropped == 0


# Who we are


def test_a_refused_password_is_counted_and_a_corrected_one_is_read_without_a_restart(tmp_path: Path) -> None:
    passwords = tmp_path / "passwords"
    subprocess.run([require("mosquitto_passwd"), "-c", "-b", passwords, "gon", "secret"], check=True)
    passwords.chmod(0o600)
    broker = Mosquitto(tmp_path / "broker", settings=f"password_file {passwords}", allow_anonymous=False)
    secret = tmp_path / "secret"
    secret.write_text("wrong\n")
    seen: list[str] = []
    try:
        broker.start()
        with client(broker.url, on_reconnect=seen.append, username="gon", password_file=secret) as mqtt:
            wait_until(lambda: mqtt.reconnects["auth"] >= 2)
            assert not mqtt.connected
            assert "refuses us" in mqtt.last_error
            assert set(seen) == {"auth"}
            secret.write_text("secret\n")
            connected(mqtt)
            assert mqtt.last_error == ""
    finally:
        broker.kill()


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two authorities (``ca``, ``other-ca``); ``server`` for 127.0.0.1 and ``client``, both signed by ``ca``."""
    openssl = require("openssl")
    at = tmp_path_factory.mktemp("certificates")

    def run(*arguments: str) -> None:
        subprocess.run([openssl, *arguments], cwd=at, check=True, capture_output=True)

    new_key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    for ca in ("ca", "other-ca"):
        run("req", "-x509", *new_key, "-keyout", f"{ca}.key", "-out", f"{ca}.crt", "-days", "2", "-subj", f"/CN={ca}")
    (at / "san").write_text("subjectAltName=IP:127.0.0.1,DNS:localhost\n")
    for name in ("server", "client"):
        run("req", *new_key, "-keyout", f"{name}.key", "-out", f"{name}.csr", "-subj", f"/CN={name}")
        sign = ["-CA", "ca.crt", "-CAkey", "ca.key", "-CAcreateserial", "-days", "2", "-extfile", "san"]
        run("x509", "-req", "-in", f"{name}.csr", "-out", f"{name}.crt", *sign)
    return at


@pytest.fixture
def tls_broker(tmp_path: Path, certificates: Path) -> Iterator[Mosquitto]:
    at = certificates
    lines = [f"cafile {at}/ca.crt", f"certfile {at}/server.crt", f"keyfile {at}/server.key", "require_certificate true"]
    broker = Mosquitto(tmp_path / "broker", settings="\n".join(lines))
    try:
        yield broker.start()
    finally:
        broker.kill()


def test_tls_with_an_own_ca_and_a_client_certificate(tls_broker: Mosquitto, certificates: Path) -> None:
    at = certificates
    with client(
        f"mqtts://localhost:{tls_broker.port}",
        "t",
        ca_file=at / "ca.crt",
        cert_file=at / "client.crt",
        key_file=at / "client.key",
    ) as mqtt:
        connected(mqtt)
        wait_until(lambda: "SUBACK" in tls_broker.log)
        for i in range(300):  # more than one TLS record, both ways
            mqtt.publish("t", f"{i} " + "x" * 200)
        assert [m.payload.split()[0] for m in receive(mqtt, 300)] == [str(i).encode() for i in range(300)]


def test_a_broker_with_a_certificate_of_another_authority_is_refused(tls_broker: Mosquitto, certificates: Path) -> None:
    at = certificates
    own = {"cert_file": at / "client.crt", "key_file": at / "client.key"}
    with client(f"mqtts://127.0.0.1:{tls_broker.port}", ca_file=at / "other-ca.crt", **own) as mqtt:
        wait_until(lambda: mqtt.reconnects["auth"])
        assert "certificate is not valid" in mqtt.last_error
        assert mqtt.connects == 0


def test_a_certificate_for_another_name_is_refused_and_says_what_it_is_for(
    tls_broker: Mosquitto, certificates: Path
) -> None:
    at = certificates
    own = {"cert_file": at / "client.crt", "key_file": at / "client.key", "ca_file": at / "ca.crt"}
    with client(f"mqtts://localhost:{tls_broker.port}", server_name="broker.example", **own) as mqtt:
        wait_until(lambda: mqtt.reconnects["auth"])
        assert "certificate is not valid for 'broker.example'" in mqtt.last_error
        assert "it is for 127.0.0.1, localhost: write one of these as mqtt.server_name" in mqtt.last_error


def test_a_server_name_stands_in_for_the_host(tls_broker: Mosquitto, certificates: Path) -> None:
    at = certificates
    own = {"cert_file": at / "client.crt", "key_file": at / "client.key", "ca_file": at / "ca.crt"}
    url = f"mqtts://127.1:{tls_broker.port}"  # the same address, written as it is in no certificate
    with client(url, server_name="localhost", **own) as mqtt:
        connected(mqtt)


def test_a_missing_client_certificate_is_named_as_the_cause(tls_broker: Mosquitto, certificates: Path) -> None:
    with client(f"mqtts://127.0.0.1:{tls_broker.port}", ca_file=certificates / "ca.crt") as mqtt:
        # An attempt may find the connection closed before the broker's alert is read, and then says only that.
        wait_until(lambda: "refuses our certificate" in mqtt.last_error)
        assert mqtt.reconnects["auth"]


def test_tls_to_a_plain_port_is_a_protocol_error(mosquitto: Mosquitto) -> None:
    with client(mosquitto.url.replace("mqtt://", "mqtts://")) as mqtt:
        wait_until(lambda: mqtt.reconnects["protocol"] + mqtt.reconnects["refused"])
        assert mqtt.connects == 0


def test_websockets(tmp_path: Path) -> None:
    port = free_port()  # beside the plain listener: mosquitto 2.0 refuses to start with websockets alone
    lines = [f"listener {port} 127.0.0.1", "protocol websockets", "allow_anonymous true"]
    broker = Mosquitto(tmp_path / "broker", settings="\n".join(lines))
    try:
        broker.start()
        with client(f"ws://127.0.0.1:{port}/mqtt", "t") as mqtt:
            connected(mqtt)
            wait_until(lambda: "SUBACK" in broker.log)
            for i in range(300):
                mqtt.publish("t", str(i))
            assert [m.payload for m in receive(mqtt, 300)] == [str(i).encode() for i in range(300)]
    finally:
        broker.kill()


def test_a_path_of_a_websocket_is_asked_for_and_a_wrong_one_is_named(tmp_path: Path) -> None:
    # mosquitto takes any path: in front of it stands what people have there, a proxy with one path for MQTT.
    port = free_port()
    lines = [f"listener {port} 127.0.0.1", "protocol websockets", "allow_anonymous true"]
    broker = Mosquitto(tmp_path / "broker", settings="\n".join(lines)).start()
    try:
        with PathProxy("/home/mqtt", port) as proxy:
            with client(f"ws://127.0.0.1:{proxy.port}/home/mqtt", "t") as mqtt:
                connected(mqtt)
                mqtt.publish("t", "there and back")
                assert [m.payload for m in receive(mqtt, 1)] == [b"there and back"]
            with client(f"ws://127.0.0.1:{proxy.port}/wrong", "t") as mqtt:
                wait_until(lambda: mqtt.reconnects["protocol"])
                assert "no WebSocket at the path /wrong" in mqtt.last_error
                assert "mqtt.url" in mqtt.last_error
    finally:
        broker.kill()


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"url": "mqtt://broker", "username": "u", "password_file": Path("/does/not/exist")}, "mqtt.password_file"),
        ({"url": "mqtts://broker", "ca_file": Path("/does/not/exist")}, "mqtt.ca_file"),
        ({"url": "mqtts://broker", "cert_file": Path("/does/not/exist")}, "mqtt.cert_file"),
    ],
)
def test_settings_that_can_never_connect_are_refused_at_the_start(changes: dict[str, object], key: str) -> None:
    with pytest.raises(ConfigError) as caught:
        MqttClient(settings(**changes), node="n", subscriptions=(), rng=random.Random(0))  # type: ignore[arg-type]
    assert caught.value.key == key


# Staying connected


def test_a_broker_that_is_down_at_the_start_is_waited_for(tmp_path: Path) -> None:
    broker = Mosquitto(tmp_path / "broker")
    try:
        with client(broker.url) as mqtt:
            wait_until(lambda: mqtt.reconnects["refused"] >= 2)
            broker.start()
            connected(mqtt)
    finally:
        broker.kill()


def test_after_a_broker_crash_it_reconnects_resubscribes_and_says_everything_again(mosquitto: Mosquitto) -> None:
    with client(mosquitto.url, "telemetry/+") as mqtt:
        mqtt.publish(mqtt.topic("state", "pump"), "warming-up", retain=True)
        mqtt.publish(mqtt.topic("state", "gone"), "scoring", retain=True)
        mqtt.publish(mqtt.topic("state", "gone"), "", retain=True)
        wait_until(lambda: mosquitto.retained("gon-edge/pi-1/state/pump", 1) == b"warming-up")
        assert mosquitto.retained("gon-edge/pi-1/status") == b"online"

        mosquitto.kill()  # it kept nothing on disk: sessions, subscriptions and retained messages are gone
        wait_until(lambda: not mqtt.connected)
        mqtt.publish(mqtt.topic("state", "pump"), "training", retain=True)
        mqtt.publish(mqtt.topic("state", "pump"), "scoring", retain=True)
        mosquitto.start()
        connected(mqtt, times=2)

        wait_until(lambda: mosquitto.retained("gon-edge/pi-1/state/pump", 1) == b"scoring")
        assert mosquitto.retained("gon-edge/pi-1/status") == b"online"
        assert mosquitto.retained("gon-edge/pi-1/state/gone", 1) is None
        assert mqtt.reconnects["lost"] == 1
        wait_until(lambda: "telemetry/+ (QoS 1)" in mosquitto.log.rsplit("mosquitto version", 1)[-1])
        mosquitto.publish("telemetry/pump", "again")
        assert [m.payload for m in receive(mqtt, 1)] == [b"again"]


def test_events_of_a_time_without_a_broker_are_sent_later_and_the_oldest_go_first(mosquitto: Mosquitto) -> None:
    with client(mosquitto.url, "gon-edge/pi-1/alert", max_pending=5, protocol="5") as mqtt:
        connected(mqtt)
        mosquitto.kill()
        wait_until(lambda: not mqtt.connected)
        for i in range(8):
            mqtt.publish(mqtt.topic("alert"), str(i))
        mosquitto.start()
        assert [m.payload for m in receive(mqtt, 5)] == [b"3", b"4", b"5", b"6", b"7"]
        assert mqtt.delivery.events_dropped == 3


def test_messages_of_a_time_without_us_arrive_through_the_persistent_session(mosquitto: Mosquitto) -> None:
    with client(mosquitto.url, "telemetry/+") as mqtt:
        connected(mqtt)
        wait_until(lambda: "SUBACK" in mosquitto.log)
    for i in range(10):
        mosquitto.publish("telemetry/pump", str(i))
    with client(mosquitto.url, "telemetry/+") as mqtt:
        assert [m.payload for m in receive(mqtt, 10)] == [str(i).encode() for i in range(10)]


def test_what_an_earlier_run_subscribed_to_is_unsubscribed_from_a_kept_session(mosquitto: Mosquitto) -> None:
    # A session that had once asked for # went on to send everything, for ever.
    with client(mosquitto.url, "#", "telemetry/+") as mqtt:
        connected(mqtt)
        wait_until(lambda: "SUBACK" in mosquitto.log)
        state = mqtt.state()
    with client(mosquitto.url, "telemetry/+", state=state) as mqtt:
        connected(mqtt)
        wait_until(lambda: mqtt.subscribed == {"telemetry/+"})
        mosquitto.publish("elsewhere", "never")
        mosquitto.publish("telemetry/pump", "wanted")
        assert b"never" not in {m.payload for m in receive(mqtt, 1, timeout_s=1.0)}
    assert "Received UNSUBSCRIBE" in mosquitto.log


@pytest.mark.parametrize("protocol", ["5", "3.1.1"])
def test_a_session_that_brings_what_nobody_remembers_asking_for_is_begun_anew(
    mosquitto: Mosquitto, protocol: str
) -> None:
    # The state directory was lost, and the broker had kept the session.
    with client(mosquitto.url, "#", protocol=protocol) as mqtt:
        connected(mqtt)
        wait_until(lambda: "SUBACK" in mosquitto.log)
    with client(mosquitto.url, "telemetry/+", protocol=protocol) as mqtt:
        connected(mqtt, times=2)  # our own "online" came back by the old subscription
        wait_until(lambda: mosquitto.log.count("SUBACK") == 3)
        mosquitto.publish("elsewhere", "never")
        mosquitto.publish("telemetry/pump", "again")
        seen: set[bytes] = set()
        wait_until(lambda: seen.update(m.payload for m in mqtt.queue.get_batch(100, 0.1)) or b"again" in seen)
        assert b"never" not in seen
        assert mqtt.connects == 2


@pytest.mark.parametrize("protocol", ["5", "3.1.1"])
def test_what_an_earlier_run_has_published_is_recalled_once_and_before_it_is_said_anew(
    mosquitto: Mosquitto, protocol: str
) -> None:
    for name in ("pump", "fan"):
        mosquitto.publish(f"s/{name}", "before", retain=True)
    with client(mosquitto.url, "telemetry/+", recalled=("s/+",), protocol=protocol, client_id="us") as mqtt:
        mqtt.publish("s/pump", "now", retain=True)
        assert {(m.topic, m.payload) for m in receive(mqtt, 2)} == {("s/pump", b"before"), ("s/fan", b"before")}
        wait_until(lambda: mosquitto.retained("s/pump") == b"now")
        assert mqtt.subscribed == {"telemetry/+"}
        mosquitto.kill()
        mosquitto.start()
        connected(mqtt, 2)
        wait_until(lambda: mosquitto.retained("s/pump") == b"now")
        mosquitto.publish("telemetry/pump", "last")
        assert [m.payload for m in receive(mqtt, 1)] == [b"last"]
    assert mosquitto.log.count("Received UNSUBSCRIBE from us") == 1


def test_a_broker_that_does_not_let_us_read_what_we_published_is_no_trouble() -> None:
    broker = OldBroker(REFUSE_AS_3_1_1)  # it refuses each topic of a SUBSCRIBE
    broker.start()
    with client(f"mqtt://127.0.0.1:{broker.port}", recalled=("s/+",), protocol="3.1.1") as mqtt:
        wait_until(lambda: mqtt.connects == 1)
        assert not mqtt.subscribe_refused
        assert mqtt.troubles() == ()


def test_a_broker_without_our_session_has_nothing_to_unsubscribe(mosquitto: Mosquitto) -> None:
    with client(mosquitto.url, "#") as mqtt:
        state = mqtt.state()
        connected(mqtt)
    mosquitto.kill()
    mosquitto.start()
    with client(mosquitto.url, "telemetry/+", state=state) as mqtt:
        connected(mqtt)
        wait_until(lambda: mqtt.subscribed == {"telemetry/+"})
    assert "UNSUBSCRIBE" not in mosquitto.log


def test_events_that_wait_for_a_broker_outlive_us_and_are_bounded(tmp_path: Path) -> None:
    broker = Mosquitto(tmp_path / "broker")
    try:
        with client(broker.url) as mqtt:
            mqtt.publish(mqtt.topic("state", "pump"), "stale", retain=True)  # the next run says it by itself
            for i in range(3):
                mqtt.publish(mqtt.topic("alert"), f"{i}" + " " * 100_000)
            wait_until(lambda: mqtt.reconnects["refused"])
            state = json.loads(json.dumps(mqtt.state()))
        assert len(json.dumps(state)) < 300_000
        state["events"].insert(0, ["gon-edge/another-name/alert", "x"])  # before `node` was changed
        broker.start()
        with client(broker.url, "gon-edge/+/alert", state=state) as mqtt:
            mqtt.publish(mqtt.topic("alert"), "new")
            assert [m.payload.strip() for m in receive(mqtt, 3)] == [b"1", b"2", b"new"]
            assert mqtt.delivery.events_dropped == 1
            wait_until(lambda: mqtt.state()["events"] == [])
    finally:
        broker.kill()


@pytest.mark.parametrize("state", [None, {}, {"events": 1}, {"events": [["a"]], "left_out": 0}, {"events": [1]}])
def test_a_state_that_cannot_be_understood_is_left(state: dict[str, Any] | None) -> None:
    mqtt = MqttClient(settings("mqtt://x"), node="n", subscriptions=("t",), rng=random.Random(0))
    mqtt.resume(state)
    assert mqtt.state()["subscribed"] == ["t"]


def test_sessions_count_the_first_connection_and_those_to_a_broker_that_remembers_nothing(mosquitto: Mosquitto) -> None:
    with client(mosquitto.url, "t") as mqtt:
        connected(mqtt)
        assert mqtt.sessions == 1
        mosquitto.kill()
        mosquitto.start()
        connected(mqtt, times=2)
        assert mqtt.sessions == 2


def test_a_clean_stop_sends_what_waits_and_says_offline(mosquitto: Mosquitto) -> None:
    with client(mosquitto.url) as mqtt:
        connected(mqtt)
        wait_until(lambda: mosquitto.retained("gon-edge/pi-1/status", 1) == b"online")
        for i in range(100):
            mqtt.publish(mqtt.topic("state", str(i)), "last words", retain=True)
    assert mosquitto.retained("gon-edge/pi-1/status") == b"offline"
    assert mosquitto.retained("gon-edge/pi-1/state/99") == b"last words"
    wait_until(lambda: "Received DISCONNECT from gon-edge-pi-1" in mosquitto.log)


def test_kill_9_leaves_offline_by_the_last_will(mosquitto: Mosquitto) -> None:
    program = (
        "import random, sys, time\n"
        "from gon_edge.config.schema import MqttConfig\n"
        "from gon_edge.links.mqtt.client import MqttClient\n"
        "m = MqttClient(MqttConfig(url=sys.argv[1]), node='pi-1', subscriptions=(), rng=random.Random(0))\n"
        "m.start(); time.sleep(60)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", program, mosquitto.url], cwd=ROOT)
    try:
        wait_until(lambda: mosquitto.retained("gon-edge/pi-1/status", 1) == b"online")
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    wait_until(lambda: mosquitto.retained("gon-edge/pi-1/status", 1) == b"offline")


def test_stop_ends_in_time_without_a_broker() -> None:
    began = time.monotonic()
    with client(f"mqtt://127.0.0.1:{free_port()}", reconnect_min_s=60.0, reconnect_max_s=60.0) as mqtt:
        wait_until(lambda: mqtt.reconnects["refused"])
    assert time.monotonic() - began < 5


def test_a_refused_publication_is_counted(tmp_path: Path) -> None:
    rules = tmp_path / "acl"
    rules.write_text("topic write gon-edge/pi-1/status\ntopic readwrite allowed\n")
    rules.chmod(0o600)
    broker = Mosquitto(tmp_path / "broker", settings=f"acl_file {rules}")
    try:
        broker.start()
        with client(broker.url) as mqtt:
            connected(mqtt)
            mqtt.publish("forbidden", "x")
            wait_until(lambda: mqtt.delivery.lost["refused"] == 1)
            assert list(mqtt.delivery.settled) == [(b"x", "refused")]
            assert mqtt.connected
            (trouble,) = mqtt.troubles()
            assert "1 message to 'forbidden' lost" in trouble
            assert "Not authorized" in trouble
    finally:
        broker.kill()


# Brokers mosquitto cannot play


def test_a_broker_that_knows_no_mqtt_5_gets_3_1_1_and_refused_topics_are_named() -> None:
    broker = OldBroker(REFUSE_AS_3_1_1)
    broker.start()
    with client(f"mqtt://127.0.0.1:{broker.port}", "t") as mqtt:
        connected(mqtt)
        assert broker.versions == [5, 4]
        wait_until(lambda: mqtt.subscribe_refused)
        assert list(mqtt.subscribe_refused) == ["t"]


def closing_once(port: int) -> None:
    """What is there for one connection, as a broker that starts or hangs: it takes it and says nothing."""
    with socket.create_server(("127.0.0.1", port)) as listener:
        listener.settimeout(30)
        connection, _ = listener.accept()
        with connection:
            connection.recv(4096)


@pytest.mark.parametrize("restarted", [False, True])
def test_a_broker_that_was_not_well_for_a_moment_is_spoken_to_by_mqtt_5_again(
    mosquitto: Mosquitto, restarted: bool
) -> None:
    # It was spoken to by 3.1.1 until the next restart, and by that it says nothing of what it denies.
    with contextlib.ExitStack() as stack:
        mqtt = stack.enter_context(client(mosquitto.url))
        connected(mqtt)
        state = mqtt.state()
        if restarted:
            mqtt.stop(2.0)
        mosquitto.kill()
        if restarted:
            mqtt = stack.enter_context(client(mosquitto.url, state=state))
        closing_once(mosquitto.port)
        before = mqtt.connects
        mosquitto.start()
        connected(mqtt, before + 1)
    assert " as gon-edge" in mosquitto.log
    assert "(p2, " not in mosquitto.log  # 3.1.1


def test_a_broker_that_was_replaced_by_an_old_one_that_says_nothing_is_spoken_to_by_3_1_1_soon() -> None:
    broker = OldBroker(b"")  # it closes the connection, without a word
    broker.start()
    url = f"mqtt://127.0.0.1:{broker.port}"
    with client(url) as mqtt:
        connected(mqtt)
        state = {**mqtt.state(), "mqtt_5": True}
    broker.versions.clear()
    with client(url, state=state, reconnect_min_s=0.01, reconnect_max_s=0.02) as mqtt:
        connected(mqtt)
        assert broker.versions == [5, 5, 5, 5, 5, 4]


def test_protocol_5_means_5_and_nothing_else() -> None:
    broker = OldBroker(REFUSE_AS_5)
    broker.start()
    with client(f"mqtt://127.0.0.1:{broker.port}", protocol="5") as mqtt:
        wait_until(lambda: mqtt.reconnects["protocol"] >= 3)
    assert set(broker.versions) == {5}


def test_a_second_client_with_our_id_is_named_and_does_not_start_a_fight() -> None:
    broker = OldBroker(ACCEPT_THEN_TAKE_OVER)
    broker.start()
    began = time.monotonic()
    with client(f"mqtt://127.0.0.1:{broker.port}", reconnect_min_s=0.01, reconnect_max_s=1.0) as mqtt:
        wait_until(lambda: mqtt.reconnects["taken_over"] == 2)
        assert time.monotonic() - began >= 0.5  # at least half the longest wait, not a fraction of the shortest
        assert "taken over" in mqtt.last_error.lower()
        assert not mqtt.connected


@pytest.mark.parametrize("protocol", ["5", "3.1.1"])
def test_two_daemons_with_one_client_id_are_told_so_by_a_broker_that_only_closes(
    mosquitto: Mosquitto, protocol: str
) -> None:
    changes = {"protocol": protocol, "client_id": "twin", "reconnect_min_s": 0.1, "reconnect_max_s": 0.5}
    with client(mosquitto.url, **changes) as one, client(mosquitto.url, **changes) as other:
        wait_until(lambda: one.reconnects["taken_over"] or other.reconnects["taken_over"])
        told = one if one.reconnects["taken_over"] else other
        assert "another client uses the id 'twin'" in told.troubles()[0]  # connected or not
    assert "give each client a mqtt.client_id of its own" in told.troubles()[0]


def test_a_broker_that_closes_for_a_subscription_it_denies_is_no_other_client() -> None:
    broker = OldBroker(REFUSE_AS_3_1_1, to_subscribe=None)
    broker.start()
    with client(f"mqtt://127.0.0.1:{broker.port}", "denied", protocol="3.1.1") as mqtt:
        wait_until(lambda: mqtt.reconnects["lost"] > 4)
        assert "with no answer to the subscription of 'denied'" in mqtt.last_error or mqtt.connected
        assert mqtt.reconnects["taken_over"] == 0
        assert sum(mqtt.delivery.lost.values()) == 0


def test_a_broker_that_closes_for_what_is_only_recalled_is_not_asked_for_ever() -> None:
    broker = OldBroker(REFUSE_AS_3_1_1, closes_for=b"s/+")
    broker.start()
    with client(f"mqtt://127.0.0.1:{broker.port}", "t", recalled=("s/+",), protocol="3.1.1") as mqtt:
        wait_until(lambda: mqtt.subscribe_refused)  # the answer to "t"
        assert mqtt.connects == 3
        assert mqtt.connected


def test_a_broker_that_restarts_again_and_again_is_no_other_client(mosquitto: Mosquitto) -> None:
    with client(mosquitto.url) as mqtt:
        for times in (1, 2):
            connected(mqtt, times)
            mosquitto.kill()
            mosquitto.start()
        connected(mqtt, 3)
        assert mqtt.troubles() == ()
        assert mqtt.reconnects["taken_over"] == 0


def test_a_path_that_swallows_acknowledgements_is_named_and_left(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(delivery, "_SLOW_S", 0.2)
    monkeypatch.setattr(delivery, "_UNANSWERED_S", 1.0)
    broker = OldBroker(REFUSE_AS_3_1_1)
    broker.start()
    with client(f"mqtt://127.0.0.1:{broker.port}") as mqtt:
        connected(mqtt)
        mqtt.publish(mqtt.topic("alert"), "x")
        wait_until(lambda: any("has not acknowledged a message" in trouble for trouble in mqtt.troubles()))
        assert mqtt.delivery.waited_s > 0.2
        wait_until(lambda: "no acknowledgement of a message within 1 s" in caplog.text)  # last_error goes with the next
        assert mqtt.reconnects["timeout"] == 1
        assert sum(mqtt.delivery.lost.values()) == 0  # it is sent again


def test_a_broker_that_sends_rubbish_is_left_and_tried_again() -> None:
    broker = OldBroker(b"HTTP/1.1 400 Bad Request\r\n\r\n")
    broker.start()
    with client(f"mqtt://127.0.0.1:{broker.port}", protocol="5") as mqtt:
        wait_until(lambda: sum(mqtt.reconnects.values()) >= 2)
        assert not mqtt.connected


# Small things


def test_backoff_is_full_jitter_between_zero_and_a_doubling_bound() -> None:
    rng = random.Random(0)
    for failures, bound in [(1, 1.0), (2, 2.0), (5, 16.0), (8, 120.0), (10_000, 120.0)]:
        delays = [backoff_s(failures, 1.0, 120.0, rng) for _ in range(500)]
        assert 0.0 <= min(delays) < 0.1 * bound
        assert 0.9 * bound < max(delays) <= bound


def test_names_in_topics_cannot_break_out_of_their_level() -> None:
    mqtt = MqttClient(settings("mqtt://x"), node="a/b", subscriptions=(), rng=random.Random(0))
    assert mqtt.topic("state", "pump +1/#2 50%") == "gon-edge/a%2Fb/state/pump %2B1%2F%232 50%25"
    for topic in ("", "a/+", "a/#", "a\0"):
        with pytest.raises(ValueError):
            mqtt.publish(topic, "x")


def test_reconnect_reasons_are_all_counted_from_the_start() -> None:
    mqtt = MqttClient(settings("mqtt://x"), node="n", subscriptions=(), rng=random.Random(0))
    assert mqtt.reconnects == dict.fromkeys(RECONNECT_REASONS, 0)
