"""``gon-edge try``: what would be made of a message, by the daemon's own path."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from gon_edge.commands.main import main

CONFIG = """
mqtt: {url: "mqtt://localhost"}
subscriptions:
  - {topic: "telemetry/{stream}", timestamp: time}
  - {topic: "home/{stream}/{feature}", format: value}
streams: {overrides: {pump: {exclude: ["debug*"]}}}
"""


@pytest.fixture
def config(tmp_path: Path) -> str:
    path = tmp_path / "gon-edge.yaml"
    path.write_text(CONFIG)
    return str(path)


def tried(capsys: pytest.CaptureFixture[str], *words: str) -> dict:
    assert main(["try", *words, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_readings_and_what_is_dropped_are_said(config: str, capsys: pytest.CaptureFixture[str]):
    payload = '{"time": 1767607200, "flow": 3.5, "mode": "auto", "debug.x": 1, "gone": null}'
    said = tried(capsys, "telemetry/pump", payload, "--config", config)
    assert said["subscription"] == "telemetry/{stream}"
    assert said["readings"] == [{"stream": "pump", "timestamp": 1767607200.0, "values": {"flow": 3.5}}]
    assert {(entry["key"], entry["reason"]) for entry in said["dropped"]} == {
        ("mode", "text"),
        ("debug.x", "excluded"),
        ("gone", "null"),
    }
    assert all(entry["why"] for entry in said["dropped"])
    assert said["suggestion"] is None


def test_a_timestamp_that_is_not_there_is_said_and_the_time_of_receipt_counts(config, capsys):
    said = tried(capsys, "telemetry/pump", '{"flow": 3.5}', "--config", config)
    assert said["readings"] == [{"stream": "pump", "timestamp": None, "values": {"flow": 3.5}}]
    assert [(entry["key"], entry["reason"]) for entry in said["dropped"]] == [("time", "no_time")]


def test_a_message_that_nothing_reads_gets_the_subscription_that_would(config, capsys):
    said = tried(capsys, "shed/lamp/power", "12.5", "--config", config)
    assert (said["subscription"], said["readings"]) == (None, [])
    assert [entry["reason"] for entry in said["dropped"]] == ["no_subscription"]
    assert said["suggestion"] == {"topic": "shed/{stream}/{feature}"}


def test_a_payload_of_another_format_is_refused_with_its_reason(config, capsys):
    said = tried(capsys, "telemetry/pump", "{oops", "--config", config)
    assert [(entry["key"], entry["reason"]) for entry in said["dropped"]] == [("(message)", "bad_json")]
    assert said["dropped"][0]["help"]


def test_without_a_configuration_what_would_fit_is_tried(capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("GON_EDGE_CONFIG", str(tmp_path / "none.yaml"))
    said = tried(capsys, "zigbee2mqtt/kitchen", '{"temperature": 21.5}')
    assert said["readings"][0] == {"stream": "kitchen", "timestamp": None, "values": {"temperature": 21.5}}
    assert said["suggestion"] == {"topic": "zigbee2mqtt/{stream}"}
    assert tried(capsys, "a/b", "hello")["dropped"][0]["reason"] == "text"


def test_a_payload_comes_from_a_file_too(config, capsys, tmp_path):
    (tmp_path / "payload").write_bytes(b"21.5")
    said = tried(capsys, "home/hall/temp", f"@{tmp_path}/payload", "--config", config)
    assert said["readings"][0]["values"] == {"temp": 21.5}
    assert main(["try", "home/hall/temp", f"@{tmp_path}/none", "--config", config]) == 66


def test_a_person_reads_all_of_it_in_words(config, capsys):
    assert (
        main(["try", "telemetry/pump", '{"time": 1767607200, "flow": 3.5, "m\\u001b": "x"}', "--config", config]) == 0
    )
    text = capsys.readouterr().out
    assert text.startswith("telemetry/pump: read by subscription telemetry/{stream}\n")
    assert "stream pump, 2026-01-05 10:00:00 UTC, from the message" in text
    assert "\x1b" not in text
    assert main(["try", "x/y/z", "1", "--config", config]) == 0
    assert '- {topic: "x/{stream}/{feature}"}' in capsys.readouterr().out


def test_a_message_of_labels_alone_begins_no_stream_and_each_is_named(config, capsys):
    said = tried(capsys, "telemetry/door", '{"time": 1767607200, "label": "north", "kind": "oak"}', "--config", config)
    assert said["readings"] == []
    assert {(entry["key"], entry["reason"]) for entry in said["dropped"]} == {("label", "text"), ("kind", "text")}


def test_no_subscription_is_suggested_for_own_topics_and_for_what_nothing_reads(config, capsys, monkeypatch, tmp_path):
    Path(config).write_text('mqtt: {url: "mqtt://localhost"}\nsubscriptions: [{topic: "#", stream: x}]\n')
    said = tried(capsys, "gon-edge/pi/state/pump", '{"score": 1}', "--config", config)
    assert ([entry["reason"] for entry in said["dropped"]], said["suggestion"]) == (["own"], None)
    monkeypatch.setenv("GON_EDGE_CONFIG", str(tmp_path / "none.yaml"))
    for payload, reason in (("hello there", "text"), ("", "empty")):
        said = tried(capsys, "a/b/c", payload)
        assert ([entry["reason"] for entry in said["dropped"]], said["suggestion"]) == ([reason], None)
