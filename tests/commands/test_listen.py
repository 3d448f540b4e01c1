"""``gon-edge listen``: what is shown of the messages of a broker; with a real one in e2e/test_listen."""

from __future__ import annotations

import io
import json

import yaml

from gon_edge.commands.listen import Listening, _cut, _draw
from gon_edge.config.file import parse_config
from gon_edge.links.mqtt.queue import Message

CONFIG = """
mqtt: {url: "mqtt://localhost"}
subscriptions: [{topic: "$share/edge/telemetry/{stream}", timestamp: time}, {topic: "telemetry/pump/+", stream: x}]
"""


def listening(*, configured: bool = True) -> Listening:
    return Listening(parse_config(yaml.safe_load(CONFIG)) if configured else None, offset_s=1.7675e9)


def say(found: Listening, topic: str, payload: object, at: float = 0.0, *, retained: bool = False) -> None:
    text = payload if isinstance(payload, str) else json.dumps(payload)
    found.take(Message(topic, text.encode(), at, retained))


def test_streams_are_listed_with_features_values_and_rates():
    found = listening()
    for at in range(20):
        say(found, "telemetry/pump", {"time": 1.7675e9 + at, "flow": at, "mode": "auto"}, float(at))
    (stream,) = found.told()["streams"]
    assert (stream["stream"], stream["readings"]) == ("pump", 20)
    assert stream["features"] == [{"name": "flow", "value": 19.0, "cadence_s": 1.0}]
    assert [(entry["key"], entry["reason"], entry["count"]) for entry in stream["dropped"]] == [("mode", "text", 20)]
    assert "flow" in found.text()


def test_topics_that_nothing_reads_come_by_families_with_a_subscription():
    found = listening()
    for room in ("hall", "bath"):
        for at in range(3):
            say(found, f"home/{room}/temp", 21 + at)
    say(found, "telemetry/pump", "{oops")
    say(found, "chat/room", "hello")
    by = {one["family"]: one for one in found.told()["families"]}
    assert (by["home/…"]["topics"], by["home/…"]["messages"]) == (2, 6)
    assert by["home/…"]["suggestion"] == {"topic": "home/{stream}/{feature}"}
    assert by["telemetry/…"]["why"] == ["not JSON, which the subscription's format asks for"]
    assert by["chat/…"]["suggestion"] is None
    assert '- {topic: "home/{stream}/{feature}"}' in found.text()


def test_own_topics_and_discovery_are_no_families():
    for configured in (True, False):
        found = listening(configured=configured)
        say(found, "gon-edge/pi/state/pump", {"score": 1})
        say(found, "homeassistant/sensor/x/config", {"min": 1})
        assert found.told()["families"] == []
        assert sum(found.told()["left_out"].values()) == 2


def test_a_shared_subscription_is_not_joined():
    """It would take its messages away from the daemon."""
    assert listening().filters == ("telemetry/+", "telemetry/pump/+")


def test_what_is_kept_is_bounded():
    found = listening(configured=False)
    for i in range(3000):
        say(found, f"first{i}/x", 1)
        say(found, f"home/room{i}/temp", 1)
    told = found.told()
    assert len(told["families"]) == 200
    assert max(one["topics"] for one in told["families"]) == 200
    assert sum(told["left_out"].values()) + sum(one["messages"] for one in told["families"]) == told["messages"] == 6000


def test_silence_is_said():
    assert "nothing arrives" in listening().text()


def test_a_picture_fits_its_terminal(monkeypatch):
    monkeypatch.setenv("COLUMNS", "20")
    monkeypatch.setenv("LINES", "5")
    out = io.StringIO()
    _draw(out, "\n".join("線" * 30 for _ in range(30)))
    lines = out.getvalue().removeprefix("\x1b[H").removesuffix("\x1b[J").split("\n")
    assert len(lines) == 5
    assert _cut("線" * 30, 20) == "線" * 10
