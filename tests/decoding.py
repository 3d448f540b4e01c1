"""Messages through a decoder: what tests of payloads share."""

from __future__ import annotations

import json
from typing import Any

import pytest

from gon_edge.config.file import parse_config
from gon_edge.errors import PayloadError
from gon_edge.events import REASONS, Reading
from gon_edge.stream.payload import Decoder, decoders


def decoder(
    topic: str = "telemetry/{stream}",
    written: str = "auto",
    payload: int = 256 << 10,
    features: int = 500,
    **options: Any,
) -> Decoder:
    """The decoder of a configuration with one subscription, as its file has it."""
    subscription = {"topic": topic, "format": written, **options}
    limits = {"payload": payload, "features": features}
    (found,) = decoders(
        parse_config({"mqtt": {"url": "mqtt://h"}, "subscriptions": [subscription], "limits": limits}, environ={})
    )
    return found


def readings(message: object, sent_to: str = "telemetry/pump", **options: Any) -> tuple[Reading, ...]:
    """The readings of a message: bytes, or what is sent as JSON."""
    text = message if isinstance(message, bytes) else json.dumps(message).encode()
    return decoder(**options).decode(sent_to, text).readings


def read(message: object, sent_to: str = "telemetry/pump", **options: Any) -> Reading:
    """The one reading of a message."""
    (reading,) = readings(message, sent_to, **options)
    return reading


def reason(decode: Decoder, topic: str, payload: bytes) -> str:
    """Why a message holds no reading."""
    with pytest.raises(PayloadError) as caught:
        decode.decode(topic, payload)
    assert caught.value.reason in REASONS
    assert caught.value.topic == topic
    assert "\n" not in str(caught.value)
    return caught.value.reason
