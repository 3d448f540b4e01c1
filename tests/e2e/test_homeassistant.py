"""Home Assistant's side of a real broker: what lies there, what changes with a fault, and what the switch does."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from e2e.daemons import DaemonProcess, rows
from e2e.servers import Mosquitto, wait_until

pytestmark = pytest.mark.e2e

START = 1_700_000_000.0
CONFIG = "homeassistant/device/gon-edge_pi-1/{}/config"
STATE = "gon-edge/pi-1/homeassistant/pump"
SWITCH = "gon-edge/pi-1/homeassistant/silence/pump"
BUTTONS = "gon-edge/pi-1/homeassistant/answer/pump"


def kept(broker: Mosquitto, topic: str) -> dict[str, Any]:
    payload = broker.retained(topic, 1)
    return json.loads(payload) if payload else {}


def test_a_stream_appears_shows_its_fault_can_be_silenced_and_is_there_after_a_restart(
    mosquitto: Mosquitto, tmp_path: Path
) -> None:
    mosquitto.publish(SWITCH, "ON", retain=True)  # meant for another time
    settings = {"homeassistant": {"enabled": True, "update_every": "1s", "silence": "1h", "feedback": True}}
    with DaemonProcess(tmp_path, mosquitto, **settings).connected() as daemon:
        mosquitto.publish_lines("telemetry/pump", rows(320))
        daemon.wait_for_state("pump", "scoring")
        message = wait_until(lambda: kept(mosquitto, CONFIG.format("pump")), 10, "the stream's device")
        assert message["state_topic"] == STATE
        assert message["components"]["silenced"]["command_topic"] == SWITCH
        assert kept(mosquitto, CONFIG.format("gon-edge"))["components"]["connected"]
        assert mosquitto.retained(message["availability"][0]["topic"], 1) == b"online"
        calm = wait_until(lambda: (s := kept(mosquitto, STATE)).get("score") is not None and s, 10, "a score")
        assert (calm["alert"], calm["silenced"], calm["state"]) == ("OFF", "OFF", "scoring")
        assert calm["model_trained_at"].endswith("+00:00")

        mosquitto.publish_lines("telemetry/pump", rows(40, start=START + 320, seed=2, fault=6.0))
        alarm = wait_until(lambda: (s := kept(mosquitto, STATE)).get("alert") == "ON" and s, 10, "the alert")
        assert alarm["causes"][0].startswith("flow ")
        assert alarm["level"] > 100

        mosquitto.publish(SWITCH, "ON")
        silenced = wait_until(lambda: (s := kept(mosquitto, STATE)).get("silenced") == "ON" and s, 10, "the silence")
        assert silenced["alert"] == "OFF"
        assert daemon.metric("gon_edge_silences") == 1.0
        mosquitto.publish(SWITCH, "OFF")
        wait_until(lambda: kept(mosquitto, STATE).get("silenced") == "OFF", 10, "the end of the silence")

        assert alarm["threshold"] > 0
        mosquitto.publish(BUTTONS, message["components"]["answer_true"]["payload_press"])
        count = 'gon_edge_feedback_total{answer="true",stream="pump"}'
        wait_until(lambda: daemon.metric(count) == 1.0, 10, "the answer")

        # Home Assistant was away, its broker lost everything, and it is born again.
        mosquitto.publish(CONFIG.format("pump"), "", retain=True)
        assert kept(mosquitto, CONFIG.format("pump")) == {}
        mosquitto.publish("homeassistant/status", "online")
        assert wait_until(lambda: kept(mosquitto, CONFIG.format("pump")), 15, "discovery again") == message

        assert daemon.stop() == 0
        assert mosquitto.retained(message["availability"][0]["topic"], 1) == b"offline"
        daemon.connected()
        assert wait_until(lambda: kept(mosquitto, STATE), 10, "its state again")["silenced"] == "OFF"


def test_the_access_rights_of_the_document_are_enough_and_keep_others_from_the_switch(
    tmp_path: Path,
) -> None:
    """As docs/homeassistant.md shows them, with a client that is neither gon-edge nor Home Assistant beside them."""
    page = (Path(__file__).resolve().parents[2] / "docs" / "homeassistant.md").read_text()
    rights = page.split("```text\n# mosquitto")[1].split("```")[0].partition("\n")[2]
    broker_dir = tmp_path / "broker"
    broker_dir.mkdir()
    (broker_dir / "acl").write_text(rights)
    broker = Mosquitto(broker_dir, settings=f"acl_file {broker_dir}/acl")
    settings = {"homeassistant": {"enabled": True, "silence": "1h", "feedback": True}}
    try:
        broker.start()
        daemon = DaemonProcess(tmp_path, broker, **settings)
        mqtt = {"url": broker.url, "reconnect_max": "1s", "username": "gon-edge", "password_env": "HOME"}
        config = json.loads(daemon.config.read_text()) | {"mqtt": mqtt}
        daemon.config.write_text(json.dumps(config))
        with daemon.connected():
            assert daemon.metric("gon_edge_mqtt_subscriptions_refused") == 0.0

            def publish(user: str, topic: str, payload: str) -> None:
                broker._client("mosquitto_pub", ["-q", "1", "-u", user, "-P", "x", "-t", topic, "-s"], payload.encode())

            publish("devices", "telemetry/pump", next(rows(1)))
            wait_until(lambda: daemon.stream("pump"), 10, "the stream")
            publish("devices", SWITCH, "ON")
            publish("homeassistant", SWITCH, "ON")
            wait_until(lambda: daemon.metric("gon_edge_silences") == 1.0, 10, "the silence")
            assert daemon.log.count("silenced for 3600 s: 'Home Assistant'") == 1
            said = "has no effect: stream 'pump' has had no alert yet"
            publish("devices", BUTTONS, "wrong")
            publish("homeassistant", BUTTONS, "wrong")
            wait_until(lambda: said in daemon.log, 10, "the button")
            assert daemon.log.count(said) == 1
    finally:
        broker.kill()
