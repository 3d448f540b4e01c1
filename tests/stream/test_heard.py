"""What is kept of a message while others are read: no more than what it says."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest

from gon_edge.config.file import parse_config
from gon_edge.stream.pipeline import Pipeline
from gon_edge.stream.stream import Stream

CONFIG = {
    "node": "pi",
    "mqtt": {"url": "mqtt://localhost"},
    "subscriptions": [
        {"topic": "telemetry/{stream}", "timestamp": "time"},
        {"topic": "items/{stream}", "timestamp": "time", "name_key": "n", "value_key": "v"},
        {"topic": "cbor/{stream}", "format": "cbor"},
    ],
}


@pytest.fixture
def uncollected() -> Iterator[None]:
    """Nothing is collected meanwhile: what is not held goes only by its references."""
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures("uncollected")
@pytest.mark.parametrize(
    ("topic", "payload"),
    [
        ("telemetry/pump", b'{"a": 1}'),
        ("telemetry/pump", b"{"),
        ("telemetry/pump", b"{}"),
        ("telemetry/pump", b"[]"),
        ("telemetry/pump", b"[" * 5000),
        ("telemetry/pump", b"\xff\xfe\x00"),
        ("telemetry/pump", b"x\x9c123"),
        ("telemetry/pump", b'[{"time": "x"}]'),
        ("telemetry/pump", b'[{"time": "x"}, {"a": 1}]'),
        ("telemetry/pump", b"cpu usage=1\ncpu usage="),
        ("telemetry/pump", b'[{"n": "a", "v": 1, "t": "x"}]'),
        ("telemetry/p+", b'{"a": 1}'),
        ("items/pump", b'[{"n": "a", "v": 1}, {"n": "b", "v": 2, "time": "x"}]'),
        ("cbor/pump", b"\xa1a"),
    ],
)
def test_a_message_whole_or_broken_is_let_go_without_the_garbage_collector(topic: str, payload: bytes):
    """An error that was kept with its traceback held the frame that held the error, for 64 messages at once."""
    config = parse_config(CONFIG)
    it = Pipeline(
        config, lambda name, now: Stream(name, config.stream(name), max_features=10, opened_at=now), offset_s=1.7e9
    )
    it.hear(topic, payload, 0.0)  # what reads such a message is loaded with the first
    gc.collect()
    it.hear(topic, payload, 1.0)
    assert gc.collect() == 0
