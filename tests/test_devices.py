"""docs/devices.md, as its reader uses it: each configuration with each message below it gives the readings shown."""

from __future__ import annotations

import json
import re
from fnmatch import fnmatchcase
from pathlib import Path
from typing import NamedTuple

import pytest
import yaml

from gon_edge.config.file import parse_config
from gon_edge.config.subscription import SubscriptionConfig
from gon_edge.stream.payload import Decoder
from gon_edge.stream.topics import TopicTemplate

PAGE = (Path(__file__).resolve().parents[1] / "docs" / "devices.md").read_text(encoding="utf-8")
EXPECTED = {
    "Telegraf",
    "zigbee2mqtt",
    "Tasmota",
    "ESPHome",
    "Shelly",
    "The first generation",
    "collectd",
    "Node-RED",
    "Victron",
}


class Example(NamedTuple):
    section: str
    config: dict
    topic: str
    message: str
    reading: dict


def examples() -> list[Example]:
    """A section is a configuration, then messages: the topic in backquotes, the text, the reading."""
    found = []
    for section in re.split(r"^##+ ", PAGE, flags=re.MULTILINE)[1:]:
        title = section.partition("\n")[0]
        config = re.search(r"^```yaml\n(.*?)^```$", section, re.MULTILINE | re.DOTALL)
        messages = re.findall(
            r"`([^`\n]+)`:\n\n```text\n(.*?)^```\n\n```json\n(.*?)^```$", section, re.MULTILINE | re.DOTALL
        )
        assert not messages or config, title
        for topic, message, reading in messages:
            found.append(Example(title, yaml.safe_load(config[1]), topic, message.rstrip("\n"), json.loads(reading)))
    return found


EXAMPLES = examples()


def test_every_device_of_the_page_has_an_example() -> None:
    assert {example.section for example in EXAMPLES} == EXPECTED


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.topic)
def test_the_message_gives_the_reading_the_page_shows(example: Example) -> None:
    config = parse_config({"mqtt": {"url": "mqtt://localhost"}, **example.config})
    matching = [s for s in config.subscriptions if TopicTemplate.parse(s.topic).match(example.topic) is not None]
    assert len(matching) == 1
    (subscription,) = matching
    decoder = Decoder(subscription)
    # What collectd sends ends with the NUL of its string.
    payload = example.message.encode() + (b"\0" if subscription.format == "collectd" else b"")
    decoded = decoder.decode(example.topic, payload)
    (reading,) = decoded.readings
    shown = {"stream": reading.stream, "timestamp": reading.timestamp, "values": dict(reading.values)}
    assert shown == example.reading
    assert set(reading.masked.values()) <= {"text"}
    assert not decoded.rejected

    settings = config.stream(reading.stream)
    kept = [
        name
        for name in reading.values
        if (not settings.include or any(fnmatchcase(name, glob) for glob in settings.include))
        and not any(fnmatchcase(name, glob) for glob in settings.exclude)
    ]
    assert kept, "the configuration leaves nothing of its own example"
    for glob in (g for g in settings.exclude if not g.startswith(("bridge", "*.update", "*.voltage"))):
        assert any(fnmatchcase(name, glob) for name in reading.values), f"{glob} excludes nothing of the example"


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
