"""Connecting: versions of MQTT, TLS and passwords in words, and what paho must go on doing for us."""

from __future__ import annotations

import ast
import contextlib
import inspect
import socket
import threading
import time
from importlib.metadata import version
from pathlib import Path

import paho.mqtt.client as paho
import pytest
from e2e.servers import Mosquitto, free_port, wait_until
from oldbroker import REFUSE_AS_3_1_1, REFUSE_AS_5, OldBroker

from gon_edge.config.schema import MqttConfig
from gon_edge.errors import ConfigError
from gon_edge.links.mqtt import blocks, connection
from gon_edge.links.mqtt.blocks import BlockSocket
from gon_edge.links.mqtt.connection import Connection, Session, broker_url, connect
from gon_edge.links.mqtt.lost import Lost
from gon_edge.links.mqtt.outbox import Outgoing
from gon_edge.links.mqtt.queue import Message


def local(port: int, **changes: object) -> MqttConfig:
    return MqttConfig(url=f"mqtt://127.0.0.1:{port}", **changes)  # type: ignore[arg-type]


def listens(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=10):
        return True
    return False


# Versions


@pytest.mark.parametrize("answer", [REFUSE_AS_3_1_1, REFUSE_AS_5, b"", None])
def test_a_broker_that_knows_no_mqtt_5_gets_3_1_1(answer: bytes | None, monkeypatch: pytest.MonkeyPatch) -> None:
    if answer is None:
        monkeypatch.setattr(connection, "_CONNECT_TIMEOUT_S", 0.5)
    broker = OldBroker(answer)
    broker.start()
    connected = connect(local(broker.port), Session())
    connected.leave()
    assert (broker.versions, connected.mqtt_5) == ([5, 4], False)


def test_where_the_version_is_given_no_other_is_tried() -> None:
    broker = OldBroker(REFUSE_AS_5)
    broker.start()
    with pytest.raises(Lost, match="the broker refuses us: Unsupported protocol version") as caught:
        connect(local(broker.port, protocol="5"), Session())
    assert caught.value.reason == "protocol"
    connect(local(broker.port, protocol="3.1.1"), Session()).leave()
    assert broker.versions == [5, 4]


# In words


def test_no_broker_is_a_matter_of_its_address() -> None:
    with pytest.raises(Lost, match="Connection refused") as caught:
        connect(local(free_port()), Session())
    assert (caught.value.reason, caught.value.concerns) == ("refused", "address")


def test_a_name_that_can_be_none_is_a_matter_of_the_address() -> None:
    with pytest.raises(Lost) as caught:
        connect(MqttConfig(url=f"mqtt://{'x' * 64}.example"), Session())
    assert caught.value.concerns == "address"


def test_a_broker_that_wants_a_password_is_a_matter_of_the_login(tmp_path: Path) -> None:
    broker = Mosquitto(tmp_path / "broker", allow_anonymous=False)
    broker.start()
    try:
        with pytest.raises(Lost, match="the broker refuses us: Not authorized") as caught:
            connect(local(broker.port), Session())
    finally:
        broker.kill()
    assert (caught.value.reason, caught.value.concerns) == ("auth", "login")


def test_a_file_that_cannot_be_used_is_named_with_its_option(tmp_path: Path) -> None:
    for changes, key in (
        ({"url": "mqtts://broker", "ca_file": tmp_path / "missing"}, "mqtt.ca_file"),
        ({"url": "mqtts://broker", "cert_file": tmp_path / "missing"}, "mqtt.cert_file"),
    ):
        with pytest.raises(ConfigError, match=f"{key}: {tmp_path}/missing cannot be used for TLS") as caught:
            connect(MqttConfig(**changes), Session())  # type: ignore[arg-type]
        assert caught.value.key == key


def test_the_address_for_people_holds_no_password() -> None:
    assert broker_url(MqttConfig(url="mqtts://me:secret@broker")) == "mqtts://broker:8883"


def test_a_websocket_is_asked_for_with_the_scheme_there_is() -> None:
    # paho believes in TLS, which is how sockets come into blocks: left to itself it would say https.
    for url, host, origin in (
        ("ws://broker", "broker", "http://broker"),
        ("ws://broker:9001", "broker:9001", "http://broker:9001"),
        ("wss://broker", "broker", "https://broker"),
        ("ws://[::1]:443", "[::1]:443", "http://[::1]:443"),
    ):
        assert connection._websocket_headers(MqttConfig(url=url)) == {"Host": host, "Origin": origin}


# Messages


def test_what_is_sent_is_acknowledged_and_comes_back(mosquitto: Mosquitto) -> None:
    ours = connect(local(mosquitto.port), Session())
    received: list[Message] = []
    answers: list[dict[str, str]] = []
    published: list[tuple[Outgoing, str]] = []
    ours.on_messages = received.extend
    ours.on_subscribed = answers.append
    ours.on_published = lambda message, refusal: published.append((message, refusal))
    ours.subscribe(("t",))
    assert ours.wait(lambda: answers == [{}], 10.0)
    message = Outgoing("t", b"hello")
    ours.send(message)
    assert list(ours.unacknowledged.values()) == [message]
    assert ours.wait(lambda: bool(received and published), 10.0)
    assert [(m.topic, m.payload, m.retained, m.qos) for m in received] == [("t", b"hello", False, 1)]
    assert (published, ours.unacknowledged) == ([(message, "")], {})
    assert ours.certificate_expiry() is None
    ours.leave()


def test_a_broker_that_goes_away_is_lost_and_waiting_for_nothing_ends_in_time(mosquitto: Mosquitto) -> None:
    ours = connect(local(mosquitto.port), Session())
    began = time.monotonic()
    assert not ours.wait(lambda: False, 0.2)
    assert 0.2 <= time.monotonic() - began < 5.0
    mosquitto.kill()
    with pytest.raises(Lost) as caught:
        ours.wait(lambda: False, 10.0)
    assert caught.value.reason == "lost"
    ours.close()


# What paho must go on doing

_LOOK_AT = (
    "links/mqtt/connection.py drives paho by hand.  Before a new release is allowed in setup.cfg, look at "
    "Client._create_socket (it must wrap each socket by tls_set_context's context, with wrap_socket, settimeout and "
    "do_handshake alone), Client.loop_read (one packet a call), Client.loop_write, Client.loop_misc, and _packet_queue "
    "(it must write nothing while on_socket_register_write is set); then run this file and tools/bench_daemon.py."
)


def test_only_releases_of_paho_that_were_looked_at_are_used() -> None:
    major, minor = map(int, version("paho-mqtt").split(".")[:2])
    assert (2, 1) <= (major, minor) < (2, 3), f"paho-mqtt {version('paho-mqtt')} is new here.  {_LOOK_AT}"


def test_no_private_name_of_paho_is_used() -> None:
    private = {name for name in dir(paho.Client) if name.startswith("_") and not name.startswith("__")}
    private |= {name for name in vars(paho.Client(paho.CallbackAPIVersion.VERSION2)) if name.startswith("_")}
    for module in (connection, blocks):
        for node in ast.walk(ast.parse(inspect.getsource(module))):
            if isinstance(node, ast.Attribute) and node.attr in private:
                assert ast.unparse(node.value) == "self", f"{module.__name__}: {ast.unparse(node)}"
    assert not issubclass(Connection, paho.Client), "a name of ours could hide one of paho's"


@pytest.mark.parametrize("websockets", [False, True])
def test_paho_reads_and_writes_in_the_blocks_it_was_given(
    websockets: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    port = free_port()
    lines = [f"listener {port} 127.0.0.1", "protocol websockets", "allow_anonymous true"]
    broker = Mosquitto(tmp_path / "broker", settings="\n".join(lines))
    flushed: list[int] = []
    flush = BlockSocket.flush

    def counted(self: BlockSocket) -> None:
        if threading.current_thread() is threading.main_thread():  # a client of another test may still be leaving
            flushed.append(len(self._unsent))
        flush(self)

    monkeypatch.setattr(BlockSocket, "flush", counted)
    try:
        broker.start()
        wait_until(lambda: listens(port))
        url = f"ws://127.0.0.1:{port}/mqtt" if websockets else broker.url
        ours = connect(MqttConfig(url=url), Session(window=1000))
        del flushed[:]
        for _ in range(500):
            ours.send(Outgoing("t", b"x" * 50))
        assert not flushed, f"publish() wrote by itself.  {_LOOK_AT}"
        assert ours.wait(lambda: not ours.unacknowledged, 20.0)
        assert max(flushed) > 500 * 50, f"paho wrote elsewhere than into our blocks.  {_LOOK_AT}"
        ours.leave()
    finally:
        broker.kill()
