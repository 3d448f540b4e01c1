"""How subjects of devices become those of partitions: what the server is told, and what a real one makes of it."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import nats
import pytest
from e2e.servers import wait_until

from gon_edge.config.file import parse_config
from gon_edge.config.schema import Config
from gon_edge.fleet.ingest import MQTT_STREAM, consumer, gateway_stream, source, transforms
from gon_edge.fleet.servers import NatsServer
from gon_edge.links.publisher import Publisher


def config(*subscriptions: dict, **fleet: object) -> Config:
    return parse_config(
        {"mqtt": {"url": "mqtt://127.0.0.1"}, "subscriptions": [*subscriptions], "fleet": fleet or {"partitions": 8}}
    )


def the_only(*subscriptions: dict) -> tuple[str, str]:
    (found,) = transforms(config(*subscriptions))
    return found["src"], found["dest"]


def test_the_level_that_names_the_stream_chooses_the_partition() -> None:
    assert the_only({"topic": "plant/+/{stream}/{feature}"}) == (
        "$MQTT.msgs.plant.*.*.*",
        "fleet.{{partition(8,2)}}.plant.{{wildcard(1)}}.{{wildcard(2)}}.{{wildcard(3)}}",
    )


def test_levels_below_are_kept() -> None:
    expected = ("$MQTT.msgs.plant.*.>", "fleet.{{partition(8,1)}}.plant.{{wildcard(1)}}.>")
    assert the_only({"topic": "plant/{stream}/#"}) == expected


def test_where_the_payload_names_the_stream_the_topic_chooses_the_partition() -> None:
    assert the_only({"topic": "gateways/+/up", "stream": {"key": "id"}}) == (
        "$MQTT.msgs.gateways.*.up",
        "fleet.{{partition(8,1)}}.gateways.{{wildcard(1)}}.up",
    )


def test_topics_that_feed_one_stream_share_a_partition() -> None:
    both = transforms(config({"topic": "plant/a", "stream": "line"}, {"topic": "hall/+/b", "stream": "line"}))
    assert len({each["dest"].split(".")[1] for each in both}) == 1
    assert "{" not in both[0]["dest"]


def test_names_of_several_levels_share_a_partition_since_the_server_hashes_single_levels() -> None:
    src, dest = the_only({"topic": "home/{stream...}/{feature}"})
    assert (src, dest.split(".", 2)[2]) == ("$MQTT.msgs.home.>", "home.>")
    assert 0 <= int(dest.split(".")[1]) < 8


def test_a_dot_in_a_topic_is_written_as_the_gateway_writes_it() -> None:
    assert the_only({"topic": "plant/v1.2/{stream}"})[0] == "$MQTT.msgs.plant.v1//2.*"


def test_a_group_of_a_shared_subscription_is_no_level() -> None:
    assert the_only({"topic": "$share/edge/plant/{stream}"})[1] == "fleet.{{partition(8,1)}}.plant.{{wildcard(1)}}"


def test_a_filter_that_another_takes_in_is_left_to_it() -> None:
    assert the_only({"topic": "plant/one/{stream}"}, {"topic": "plant/+/{stream}"})[0] == "$MQTT.msgs.plant.*.*"


@pytest.mark.e2e
def test_what_the_gateway_acknowledges_is_in_the_telemetry_stream_once_and_in_order(tmp_path: Path) -> None:
    server = NatsServer(tmp_path)
    server.start()
    try:
        got = asyncio.run(_through(server, config({"topic": "telemetry/{stream}"}, partitions=4)))
    finally:
        server.stop()
    assert {device: [row for _, row in rows] for device, rows in got.items()} == {
        f"d{device}": list(range(20)) for device in range(6)
    }
    assert all(len({partition for partition, _ in rows}) == 1 for rows in got.values())
    assert len({rows[0][0] for rows in got.values()}) > 1


async def _through(server: NatsServer, settings: Config) -> dict[str, list[tuple[str, int]]]:
    """Publish 20 rows of 6 devices by MQTT, the second half after a restart that kills the server."""
    client = await nats.connect(server.url)

    async def ask(what: str, body: dict) -> None:
        answer = json.loads((await client.request(f"$JS.API.{what}", json.dumps(body).encode(), timeout=10)).data)
        assert "error" not in answer, answer

    reader = consumer(settings)
    await ask(f"STREAM.CREATE.{MQTT_STREAM}", gateway_stream(1))
    await ask(f"CONSUMER.DURABLE.CREATE.{MQTT_STREAM}.{reader['name']}", {"stream_name": MQTT_STREAM, "config": reader})
    subjects = [f"fleet.{number}.>" for number in range(4)]
    await ask("STREAM.CREATE.t", {"name": "t", "subjects": subjects, "sources": [source(settings)]})

    def publish(rows: range) -> None:
        broker = parse_config({"mqtt": {"url": server.mqtt_url}, "subscriptions": [{"topic": "{stream}"}]}).mqtt
        with Publisher(broker) as publisher:
            for row in rows:
                for device in range(6):
                    publisher.send(f"telemetry/d{device}", str(row).encode())
            assert publisher.drain()

    await asyncio.to_thread(publish, range(10))
    server.kill()
    server.start()
    await asyncio.to_thread(publish, range(10, 20))
    await asyncio.to_thread(wait_until, lambda: client.is_connected)
    got: dict[str, list[tuple[str, int]]] = {}
    subscription = await client.jetstream().subscribe("fleet.>", stream="t", ordered_consumer=True)
    for _ in range(120):
        message = await subscription.next_msg(timeout=20)
        _, partition, _, device = message.subject.split(".")
        got.setdefault(device, []).append((partition, int(message.data)))
    await client.close()
    return got
