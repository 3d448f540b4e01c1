"""docs/devices.md, as its reader uses it: each configuration with each message below it gives the readings shown."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterable
from fnmatch import fnmatchcase
from pathlib import Path
from typing import NamedTuple

import pytest
import yaml
from sparkplugs import BOOLEAN, payload

from gon_edge.config.file import parse_config
from gon_edge.config.schema import Config
from gon_edge.config.subscription import SubscriptionConfig
from gon_edge.errors import PayloadError
from gon_edge.events import Reading
from gon_edge.stream.payload import Decoder, decoders
from gon_edge.stream.sparkplug import Metric, read_payload

PAGE = (Path(__file__).resolve().parents[1] / "docs" / "devices.md").read_text(encoding="utf-8")
EXPECTED = {
    "Telegraf",
    "zigbee2mqtt",
    "Tasmota",
    "ESPHome",
    "Shelly",
    "The first generation",
    "rtl_433",
    "OpenMQTTGateway",
    "The Things Network",
    "ChirpStack",
    "ThingsBoard",
    "P1 smart meters (DSMR)",
    "evcc",
    "EMS-ESP",
    "HeishaMon",
    "collectd",
    "Node-RED",
    "Victron",
}

UNSEEN = {
    "bridge.*",
    "temperature",
    "site.homePower",
    "short_power_*",
    "pres",
    "humidity:*.rh",
    "site.gridPower",
    "Cool_Energy_*",
    "DHW_Energy_*",
}
"""Patterns of a configuration that none of its messages shows."""


class Example(NamedTuple):
    section: str
    config: dict
    topic: str
    message: str
    readings: list[dict]


def sections() -> list[tuple[str, dict | None, list[Example]]]:
    """A section is a configuration, then messages: the topic in backquotes, the text, and its reading or readings."""
    found = []
    for section in re.split(r"^##+ ", PAGE, flags=re.MULTILINE)[1:]:
        title = section.partition("\n")[0]
        written = re.search(r"^```yaml\n(.*?)^```$", section, re.MULTILINE | re.DOTALL)
        messages = re.findall(
            r"`([^`\n]+)`:\n\n```text\n(.*?)^```\n\n```json\n(.*?)^```$", section, re.MULTILINE | re.DOTALL
        )
        assert not messages or written, title
        config = yaml.safe_load(written[1]) if written else None
        examples = [
            Example(title, config, topic, message.rstrip("\n"), shown if isinstance(shown, list) else [shown])
            for topic, message, text in messages
            for shown in [json.loads(text)]
        ]
        found.append((title, config, examples))
    return found


SECTIONS = sections()
EXAMPLES = [example for _, _, examples in SECTIONS for example in examples]


def test_every_device_of_the_page_has_an_example() -> None:
    assert {example.section for example in EXAMPLES} == EXPECTED


def config_of(written: dict) -> Config:
    return parse_config({"mqtt": {"url": "mqtt://localhost"}, **written})


def readings_of(example: Example) -> tuple[Reading, ...]:
    """What the first subscription that finds a reading finds."""
    config = config_of(example.config)
    refused: list[PayloadError] = []
    for subscription, decoder in zip(config.subscriptions, decoders(config), strict=True):
        # What collectd sends ends with the NUL of its string.
        payload = example.message.encode() + (b"\0" if subscription.format == "collectd" else b"")
        try:
            decoded = decoder.decode(example.topic, payload)
        except PayloadError as error:
            refused.append(error)
            continue
        assert not decoded.rejected
        return decoded.readings
    raise AssertionError(refused)


def kept(config: Config, reading: Reading, names: Iterable[str]) -> list[str]:
    settings = config.stream(reading.stream)
    return [
        name
        for name in names
        if (not settings.include or any(fnmatchcase(name, glob) for glob in settings.include))
        and not any(fnmatchcase(name, glob) for glob in settings.exclude)
    ]


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: f"{example.topic} {example.message[:30]}")
def test_the_message_gives_the_reading_the_page_shows(example: Example) -> None:
    readings = readings_of(example)
    for reading, shown in zip(readings, example.readings, strict=True):
        masked = shown.get("masked")
        found = {"stream": reading.stream, "timestamp": reading.timestamp, "values": dict(reading.values)}
        assert found == {key: value for key, value in shown.items() if key != "masked"}
        # What is not shown is text, or left out: a feature that is null from the start would be missing for ever.
        assert set(reading.masked.values()) <= {"text", "null", "gone"}
        config = config_of(example.config)
        empty = [name for name, why in reading.masked.items() if why != "text"]
        assert {name: reading.masked[name] for name in kept(config, reading, empty)} == (masked or {})
        assert kept(config, reading, reading.values) or masked, "the configuration leaves nothing of its own example"


@pytest.mark.parametrize("section", [section for section in SECTIONS if section[2]], ids=lambda section: section[0])
def test_every_pattern_of_a_configuration_matches_what_its_device_sends(section: tuple) -> None:
    _, written, examples = section
    streams = config_of(written).streams
    names = [name for example in examples for reading in readings_of(example) for name in reading.values]
    for settings in (streams.defaults, *streams.overrides.values()):
        for glob in {*settings.include, *settings.exclude, *settings.counter, *settings.gauge} - UNSEEN:
            assert any(fnmatchcase(name, glob) for name in names), f"{glob} matches nothing"


def test_a_sparkplug_node_and_its_devices_give_the_features_the_page_names() -> None:
    (written,) = (config for title, config, _ in SECTIONS if title == "Sparkplug B")
    (decoder,) = decoders(config_of(written))
    inlet = {"name": "temp/inlet", "alias": 4, "double_value": 47.5}
    decoder.decode("spBv1.0/plant/NBIRTH/press", payload({"name": "force", "alias": 3, "int_value": 812}))
    decoder.decode("spBv1.0/plant/DBIRTH/press/oil", payload(inlet))
    (reading,) = decoder.decode(
        "spBv1.0/plant/DDATA/press/oil", payload({"alias": 4, "double_value": 48.0}, at=5.0)
    ).readings
    assert (reading.stream, reading.timestamp, reading.values) == ("press", 5.0, {"oil.temp.inlet": 48.0})
    (devices,) = decoders(
        config_of({"subscriptions": [{"topic": "spBv1.0/plant/+/{stream...}", "format": "sparkplug"}]})
    )
    (reading,) = devices.decode("spBv1.0/plant/DBIRTH/press/oil", payload(inlet)).readings
    assert (reading.stream, dict(reading.values)) == ("press.oil", {"temp.inlet": 47.5})


def test_the_command_that_asks_a_sparkplug_node_for_a_birth_is_one() -> None:
    (written,) = re.findall(r"^printf '([^']+)' \| mosquitto_pub", PAGE, re.MULTILINE)
    command = subprocess.run(["printf", written], capture_output=True, check=True).stdout
    assert read_payload(command, 100)[1] == [Metric("Node Control/Rebirth", datatype=BOOLEAN, value=True)]


def test_what_the_page_says_in_passing_is_so() -> None:
    power = Decoder(SubscriptionConfig("stat/{stream}/{feature}", "value"))
    (reading,) = power.decode("stat/washer/POWER", b"ON").readings
    assert (reading.stream, reading.values) == ("washer", {"POWER": 1.0})
    friendly = Decoder(SubscriptionConfig("zigbee2mqtt/{feature...}", stream="house"))
    (reading,) = friendly.decode("zigbee2mqtt/cellar/pump", b'{"power": 12.5}').readings
    assert reading.values == {"cellar.pump.power": 12.5}
    offset = Decoder(SubscriptionConfig("tele/{stream}/SENSOR", timestamp="Time"))
    (reading,) = offset.decode("tele/w/SENSOR", b'{"Time": "2026-01-05T11:14:33+01:00", "A": 1}').readings
    assert reading.timestamp == 1767608073.0
    victron = Decoder(SubscriptionConfig("N/{stream}/{feature...}"))
    (reading,) = victron.decode("N/c0/battery/1/Soc", b'{"value": null}').readings
    assert reading.masked == {"battery.1.Soc": "null"}
    esphome = Decoder(SubscriptionConfig("g/sensor/{feature}/state", "value", stream="g"))
    assert esphome.decode("g/sensor/t/state", b"nan").readings[0].masked == {"t": "nan"}
