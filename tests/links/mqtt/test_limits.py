"""What is too large, in both directions, on a real mosquitto."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from e2e.servers import Mosquitto, free_port, require, wait_until
from links.mqtt.test_client import client, connected, receive

ROOT = Path(__file__).parents[3]
LIMIT = 1000
LARGE = 70_000  # by WebSocket mosquitto takes 4 s for 200,000

MEMORY = """
import random, sys
from gon_edge.process.memory import deferred
with deferred():
    from gon_edge.config.schema import MqttConfig
    from gon_edge.links.mqtt.client import MqttClient

def peak():
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM"))

settings = MqttConfig(url=sys.argv[1], protocol=sys.argv[2])
m = MqttClient(settings, node="n", subscriptions=("t",), rng=random.Random(0))
m.start()
assert m.queue.get_batch(1, 30.0)[0].payload == b"ready"
before = peak()
print(flush=True)
cut = 0
while (message := m.queue.get_batch(1, 30.0)[0]).payload != b"after":
    assert len(message.payload) == (256 << 10) + 1
    cut += 1
m.stop()
print(cut, (peak() - before) // 1024)
"""


@pytest.fixture
def websockets(tmp_path: Path) -> Iterator[tuple[Mosquitto, str]]:
    """A mosquitto, and the URL of its listener for WebSockets."""
    port = free_port()
    lines = [f"listener {port} 127.0.0.1", "protocol websockets", "allow_anonymous true"]
    broker = Mosquitto(tmp_path / "broker", settings="\n".join(lines))
    yield broker.start(), f"ws://127.0.0.1:{port}"
    broker.kill()


@pytest.mark.parametrize("protocol", ["5", "3.1.1"])
def test_a_message_of_40_mb_costs_no_memory_and_does_not_come_again(
    mosquitto: Mosquitto, tmp_path: Path, protocol: str
) -> None:
    # paho took all of it several times over; the kernel killed the process, and the broker sent the message again.
    (tmp_path / "large").write_bytes(bytes(40_000_000))
    command = [sys.executable, "-c", MEMORY, mosquitto.url, protocol]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        wait_until(lambda: "Sending SUBACK" in mosquitto.log)
        mosquitto.publish("t", "ready")
        process.stdout.readline()
        large = ["-p", str(mosquitto.port), "-q", "1", "-t", "t", "-f", str(tmp_path / "large")]
        subprocess.run([require("mosquitto_pub"), *large], check=True)
        mosquitto.publish("t", "after")
        cut, grown_mib = map(int, process.stdout.read().split())
    assert process.returncode == 0
    assert cut == (0 if protocol == "5" else 1)
    assert grown_mib < 8
    assert mosquitto.log.count("Sending CONNACK to gon-edge-n") == 1


@pytest.mark.parametrize("over", ["mqtt", "ws"])
def test_a_message_that_is_too_large_arrives_too_large_by_one_and_is_named(
    websockets: tuple[Mosquitto, str], over: str, caplog: pytest.LogCaptureFixture
) -> None:
    broker, url = websockets
    with client(url if over == "ws" else broker.url, "t", protocol="3.1.1", max_payload=LIMIT) as mqtt:
        connected(mqtt)
        wait_until(lambda: "SUBACK" in broker.log)
        for payload in (b"before", bytes(LARGE), bytes(LIMIT + 1), b"after"):
            broker.publish("t", payload)
        received = receive(mqtt, 4)
    assert [len(message.payload) for message in received] == [6, LIMIT + 1, LIMIT + 1, 5]
    assert received[3].payload == b"after"
    assert f"a message of {LARGE} bytes to 't' is too large to be kept; limits.payload is {LIMIT} bytes" in caplog.text


def test_by_mqtt_5_a_message_that_is_too_large_stays_with_the_broker(mosquitto: Mosquitto) -> None:
    with client(mosquitto.url, "t", protocol="5", max_payload=LIMIT) as mqtt:
        connected(mqtt)
        wait_until(lambda: "SUBACK" in mosquitto.log)
        mosquitto.publish("t", bytes(LARGE))
        mosquitto.publish("t", b"after")
        assert [message.payload for message in receive(mqtt, 1)] == [b"after"]
        assert mqtt.connects == 1


@pytest.fixture
def narrow(tmp_path: Path) -> Iterator[Mosquitto]:
    """A mosquitto that takes no packet over 2000 bytes: by MQTT 5 it says so, by 3.1.1 it closes the connection."""
    broker = Mosquitto(tmp_path / "broker")
    config = tmp_path / "broker" / "mosquitto.conf"
    config.write_text("max_packet_size 2000\n" + config.read_text())
    yield broker.start()
    broker.kill()


@pytest.mark.parametrize(("protocol", "why"), [("5", "too_large"), ("3.1.1", "ends_connection")])
def test_an_event_over_the_limit_of_the_broker_is_put_aside_and_stops_no_other(
    narrow: Mosquitto, protocol: str, why: str
) -> None:
    # It made an endless loop of reconnects, in which neither telemetry nor any other alert got through.
    with client(narrow.url, "gon-edge/pi-1/#", protocol=protocol) as mqtt:
        connected(mqtt)
        wait_until(lambda: "SUBACK" in narrow.log)
        mqtt.publish(mqtt.topic("alert"), "x" * 5000)
        for i in range(5):
            mqtt.publish(mqtt.topic("alert"), f"{i}")
        seen: set[bytes] = set()
        wait_until(lambda: seen.update(m.payload for m in mqtt.queue.get_batch(100, 0.1)) or {b"0", b"4"} <= seen)
        assert mqtt.delivery.lost[why] == 1
        (trouble,) = mqtt.troubles()
        assert "1 message to 'gon-edge/pi-1/alert' lost, the newest of 5000 bytes" in trouble
        ended = mqtt.connects
        mqtt.publish(mqtt.topic("alert"), "y" * 6000)  # what is as large as that is not tried again
        mqtt.publish(mqtt.topic("alert"), "last")
        wait_until(lambda: any(m.payload == b"last" for m in mqtt.queue.get_batch(100, 0.1)))
        assert mqtt.delivery.lost[why] == 2
        assert mqtt.connects == ended <= 4


def test_a_state_over_the_limit_of_the_broker_is_put_aside_and_a_smaller_one_clears_it(narrow: Mosquitto) -> None:
    with client(narrow.url, protocol="3.1.1") as mqtt:
        connected(mqtt)
        mqtt.publish(mqtt.topic("state", "pump"), "x" * 5000, retain=True)
        mqtt.publish(mqtt.topic("state", "fan"), "scoring", retain=True)
        wait_until(lambda: narrow.retained("gon-edge/pi-1/state/fan", 1) == b"scoring")
        wait_until(lambda: mqtt.delivery.lost["ends_connection"] and mqtt.connected)
        assert len(mqtt.troubles()) == 1
        mqtt.publish(mqtt.topic("state", "pump"), "scoring", retain=True)
        wait_until(lambda: not mqtt.troubles())
        assert narrow.retained("gon-edge/pi-1/state/pump", 1) == b"scoring"


@pytest.mark.parametrize("protocol", ["5", "3.1.1"])
def test_what_can_be_said_shorter_gets_through(narrow: Mosquitto, protocol: str) -> None:
    with client(narrow.url, "gon-edge/pi-1/#", protocol=protocol) as mqtt:
        connected(mqtt)
        wait_until(lambda: "SUBACK" in narrow.log)
        mqtt.publish(mqtt.topic("alert"), "x" * 5000, shorter="short event")
        mqtt.publish(mqtt.topic("state", "pump"), "x" * 5000, retain=True, shorter="short state")
        seen: set[bytes] = set()
        wanted = {b"short event", b"short state"}
        wait_until(lambda: seen.update(m.payload for m in mqtt.queue.get_batch(100, 0.1)) or wanted <= seen)
        assert sum(mqtt.delivery.lost.values()) == 0
        assert mqtt.troubles() == ()
