"""Discovery messages as Home Assistant documents them, and what is heeded of what it says."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import partial
from typing import Any

import jinja2
import pytest

from gon_edge.config.schema import HomeAssistantConfig, MqttConfig, StreamConfig
from gon_edge.events import Cause, Trend, Verdict
from gon_edge.links.homeassistant import ORPHANS_AFTER_S, RESEND_EVERY_S, HomeAssistant
from gon_edge.links.mqtt.client import own_topic
from gon_edge.stream.stream import Stream

# What the documentation of Home Assistant's MQTT integration (device discovery, sensor, binary sensor, switch) allows.
OF_DEVICE_MESSAGE = {
    "device",
    "origin",
    "components",
    "availability",
    "state_topic",
    "command_topic",
    "qos",
    "encoding",
}
REQUIRED = {"device", "origin", "components"}
OF_DEVICE = {
    "identifiers", "connections", "manufacturer", "model", "model_id", "name", "hw_version", "serial_number",
    "sw_version", "via_device", "suggested_area", "configuration_url",
}  # fmt: skip
OF_ORIGIN = {"name", "sw_version", "support_url"}
OF_ENTITY = {
    "platform", "unique_id", "name", "icon", "entity_category", "enabled_by_default", "value_template", "state_topic",
    "json_attributes_topic", "json_attributes_template", "device_class", "qos",
}  # fmt: skip
OF_PLATFORM = {
    "sensor": {"unit_of_measurement", "state_class", "suggested_display_precision", "options", "expire_after"},
    "binary_sensor": {"payload_on", "payload_off", "off_delay", "expire_after"},
    "switch": {"command_topic", "payload_on", "payload_off", "state_on", "state_off", "retain", "optimistic"},
    "button": {"command_topic", "payload_press", "retain"},
}
DEVICE_CLASSES = {
    "sensor": {"enum", "timestamp"},
    "binary_sensor": {"problem", "connectivity"},
    "switch": set(),
    "button": set(),
}


class Home:
    """A `HomeAssistant` whose messages end in a dictionary, as a broker keeps them."""

    def __init__(self, node: str = "pi-1", **settings: Any) -> None:
        self.sent: list[tuple[str, str]] = []
        self.acts: list[tuple[str, str]] = []
        self.it = HomeAssistant(
            HomeAssistantConfig(enabled=True, **settings),
            node=node,
            version="0.1.0",
            topic=partial(own_topic, MqttConfig("mqtt://localhost"), node),
            publish=lambda topic, payload: self.sent.append((topic, payload)),
            act=lambda name, wanted: self.acts.append((name, wanted)),
            now=0.0,
        )
        self.it.start()

    @property
    def kept(self) -> dict[str, Any]:
        return {topic: json.loads(payload) for topic, payload in dict(self.sent).items() if payload}

    def show(self, name: str, now: float = 0.0, *, silenced: bool = False) -> None:
        self.it.update(Stream(name, StreamConfig(), max_features=10), now, silenced=silenced)


def configs(home: Home) -> Iterator[tuple[str, dict[str, Any]]]:
    for topic, message in home.kept.items():
        if topic.endswith("/config"):
            yield topic, message


def test_topics_are_those_of_device_discovery() -> None:
    home = Home()
    home.show("pump")
    assert list(home.kept) == [
        "homeassistant/device/gon-edge_pi-1/gon-edge/config",
        "homeassistant/device/gon-edge_pi-1/pump/config",
        "gon-edge/pi-1/homeassistant/pump",
    ]
    assert home.it.subscriptions == ("homeassistant/status", "homeassistant/device/gon-edge_pi-1/+/config")


@pytest.mark.parametrize(("silence_s", "feedback"), [(None, False), (3600.0, True)])
def test_messages_hold_documented_keys_and_all_that_are_required(silence_s: float | None, feedback: bool) -> None:
    home = Home(silence_s=silence_s, feedback=feedback)
    home.show("pump")
    seen = set()
    for _, message in configs(home):
        assert set(message) >= REQUIRED
        assert set(message) <= OF_DEVICE_MESSAGE
        assert set(message["device"]) <= OF_DEVICE
        assert message["device"]["identifiers"]
        assert set(message["origin"]) <= OF_ORIGIN
        assert message["origin"]["name"]
        for entity in message["components"].values():
            platform = entity["platform"]
            assert set(entity) <= OF_ENTITY | OF_PLATFORM[platform]
            assert entity.get("device_class") in DEVICE_CLASSES[platform] | {None}
            assert entity.get("entity_category") in ("diagnostic", None)
            assert entity.get("state_topic") or message["state_topic"]
            assert ("command_topic" in entity) == (platform in ("switch", "button"))
            seen.add(entity["unique_id"])
    assert len(seen) == sum(len(message["components"]) for _, message in configs(home))


def test_each_template_finds_its_value_in_the_state_message() -> None:
    home = Home(silence_s=3600.0)
    home.show("pump", silenced=True)
    state = home.kept["gon-edge/pi-1/homeassistant/pump"]
    environment = jinja2.Environment(undefined=jinja2.StrictUndefined)
    message = home.kept["homeassistant/device/gon-edge_pi-1/pump/config"]
    shown = {
        key: environment.from_string(entity["value_template"]).render(value_json=state)
        for key, entity in message["components"].items()
    }
    # "None" is what Home Assistant takes for "unknown".
    assert shown == {
        "alert": "OFF",
        "changed": "OFF",
        "drift": "OFF",
        "overdue": "OFF",
        "missing": "OFF",
        "level": "None",
        "score": "None",
        "threshold": "None",
        "state": "warming-up",
        "model_trained_at": "None",
        "silenced": "ON",
    }
    assert message["components"]["state"]["options"] == ["warming-up", "training", "scoring", "stale"]
    attributes = {
        key: json.loads(environment.from_string(entity["json_attributes_template"]).render(value_json=state))
        for key, entity in message["components"].items()
        if "json_attributes_template" in entity
    }
    assert attributes == {
        "alert": {"causes": [], "severity": None, "group": None},
        "changed": {"moved": []},
        "drift": {"readings": []},
        "overdue": {"causes": []},
        "missing": {"sensors": []},
    }


def test_a_drift_is_on_with_each_reading_in_words() -> None:
    home, stream = Home(), Stream("pump", StreamConfig(), max_features=10)
    drifts = (Cause("temp", 42.3, 39.8, 1.0, trend=Trend(0.42, 51.5, 9.2)),)
    stream.policy.follow_drift(drifts, 0.0, Verdict("pump", 1.0, 0.2, 1.0, False, (), (), "1"))
    home.it.update(stream, 0.0, silenced=False)
    state = home.kept["gon-edge/pi-1/homeassistant/pump"]
    assert (state["drift"], state["alert"]) == ("ON", "OFF")
    assert state["drifting"] == ["temp 42.3 (expected 39.8), rises by 0.42 a day, reaches 51.5 in about 9 days"]


def test_streams_are_reached_by_way_of_the_device_of_gon_edge_and_are_available_with_it() -> None:
    home = Home()
    home.show("pump")
    (_, gateway), (_, stream) = configs(home)
    assert stream["device"]["via_device"] in gateway["device"]["identifiers"]
    assert stream["availability"] == [{"topic": "gon-edge/pi-1/status"}]  # "online" and "offline" are its defaults
    connected = gateway["components"]["connected"]
    assert connected["state_topic"] == "gon-edge/pi-1/status"
    assert (connected["payload_on"], connected["payload_off"]) == ("online", "offline")


def test_names_that_topics_do_not_allow_get_identifiers_that_stay_different() -> None:
    home = Home(node="küche/1")
    names = ["pump 1", "pump_1", "pump.1", "Wärme", "gon-edge", "x" * 100 + " "]
    for name in names:
        home.show(name)
    found = list(configs(home))
    assert len(found) == 1 + len(names)
    for topic, message in found:
        prefix, kind, node, name, last = topic.split("/")
        assert (prefix, kind, last) == ("homeassistant", "device", "config")
        assert all(c.isascii() and (c.isalnum() or c in "_-") for c in node + name)
        assert message["device"]["name"] in (*names, "gon-edge küche/1")


def test_a_score_is_sent_now_and_then_and_a_change_at_once() -> None:
    home = Home(update_every_s=30.0)
    for now, silenced in ((0.0, False), (1.0, False), (29.0, False), (30.0, False), (31.0, True), (32.0, True)):
        home.show("pump", now, silenced=silenced)
    states = [payload for topic, payload in home.sent if topic == "gon-edge/pi-1/homeassistant/pump"]
    assert len(states) == 3
    assert json.loads(states[-1])["silenced"] == "ON"


def test_everything_is_said_again_when_home_assistant_starts_but_not_to_a_flood_of_births() -> None:
    home = Home()
    home.show("pump")
    before = list(configs(home))
    home.sent.clear()
    assert home.it.take("homeassistant/status", b"offline", retained=False)
    home.it.step(1.0)
    assert home.sent == []
    for _ in range(100):
        home.it.take("homeassistant/status", b"online", retained=False)
        home.it.step(2.0)
    assert list(configs(home)) == before
    assert len(home.sent) == len(before)
    home.it.step(2.0 + RESEND_EVERY_S)
    assert len(home.sent) == 2 * len(before)


def test_the_device_of_a_stream_goes_with_the_stream() -> None:
    home = Home()
    home.show("pump")
    home.it.keep(())
    home.it.keep(())
    assert list(home.kept) == ["homeassistant/device/gon-edge_pi-1/gon-edge/config"]
    home.show("pump")
    assert "gon-edge/pi-1/homeassistant/pump" in home.kept


def test_what_an_earlier_run_left_behind_goes_unless_it_comes_back_in_time() -> None:
    home = Home()
    for name in ("gon-edge", "pump", "gone"):
        assert home.it.take(f"homeassistant/device/gon-edge_pi-1/{name}/config", b"{}", retained=True)
    home.it.step(ORPHANS_AFTER_S - 1)
    home.show("pump", ORPHANS_AFTER_S - 1)
    home.sent.clear()
    home.it.step(ORPHANS_AFTER_S)
    assert home.sent == [
        ("homeassistant/device/gon-edge_pi-1/gone/config", ""),
        ("gon-edge/pi-1/homeassistant/gone", ""),
    ]
    home.sent.clear()
    home.it.step(ORPHANS_AFTER_S + 1)
    assert home.sent == []


def test_the_switch_exists_only_where_it_is_configured() -> None:
    without, having = Home(), Home(silence_s=7200.0)
    command = "gon-edge/pi-1/homeassistant/silence/pump"
    for home in (without, having):
        home.show("pump")
        home.it.take(command, b"ON", retained=False)
        home.it.take(command, b"OFF", retained=False)
        home.it.take(command, b"ON", retained=True)  # lay in the broker
        home.it.take(command, b"on please", retained=False)
        home.it.take("gon-edge/pi-1/homeassistant/silence/unknown", b"ON", retained=False)
    assert without.acts == []
    assert not without.it.take(command, b"ON", retained=False)
    assert having.acts == [("pump", "silence"), ("pump", "unsilence")]
    message = having.kept["homeassistant/device/gon-edge_pi-1/pump/config"]
    assert message["components"]["silenced"]["command_topic"] == command
    assert "gon-edge/pi-1/homeassistant/silence/+" in having.it.subscriptions


def test_the_buttons_exist_only_where_they_are_configured_and_each_says_its_answer() -> None:
    without, having = Home(), Home(feedback=True)
    topic = "gon-edge/pi-1/homeassistant/answer/pump"
    for home in (without, having):
        home.show("pump")
        for payload in (b"true", b"expected", b"wrong", b"missed", b"PRESS", b"\xff"):
            home.it.take(topic, payload, retained=False)
        home.it.take(topic, b"wrong", retained=True)  # lay in the broker
        home.it.take("gon-edge/pi-1/homeassistant/answer/unknown", b"wrong", retained=False)
    assert without.acts == []
    assert not without.it.take(topic, b"wrong", retained=False)
    assert having.acts == [("pump", "true"), ("pump", "expected"), ("pump", "wrong")]
    components = having.kept["homeassistant/device/gon-edge_pi-1/pump/config"]["components"]
    buttons = {key: entity for key, entity in components.items() if entity["platform"] == "button"}
    assert {entity["command_topic"] for entity in buttons.values()} == {topic}
    assert [entity["payload_press"] for entity in buttons.values()] == ["true", "expected", "wrong"]
    assert "gon-edge/pi-1/homeassistant/answer/+" in having.it.subscriptions


def test_other_messages_are_left_to_others() -> None:
    home = Home()
    for topic in ("telemetry/pump", "homeassistant/device/other/pump/config", "homeassistant/sensor/x/config"):
        assert not home.it.take(topic, b"{}", retained=False)
