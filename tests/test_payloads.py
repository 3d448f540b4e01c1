"""docs/payloads.md, as its reader uses it: each message with the options beside it gives the features shown."""

from __future__ import annotations

import json
import re
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
import yaml
from decoding import decoder

PAGE = (Path(__file__).resolve().parents[1] / "docs" / "payloads.md").read_text(encoding="utf-8")


def rows(first: str) -> list[tuple[str, dict[str, Any], list[str]]]:
    """Message, options and result of each row of the tables whose first column has this title."""
    found = []
    for table in re.findall(rf"^\| {first} \|.*\n\|[-|]+\|\n((?:\|.*\n)+)", PAGE, re.MULTILINE):
        for row in table.splitlines():
            message, options, result = (re.findall("`([^`]+)`", cell) for cell in row[1:-1].split("|"))
            found.append((message[0], yaml.safe_load("\n".join(options)) or {}, result))
    return found


MESSAGES, TIMES = rows("Message"), rows("Timestamp")


def test_the_page_has_tables() -> None:
    assert len(MESSAGES) > 25
    assert len(TIMES) > 8


def features(result: str) -> tuple[str, dict[str, Any]]:
    """``name: {…}`` or ``{…}``, which is the stream of the topic."""
    stream, _, shown = result.rpartition(": {") if not result.startswith("{") else ("pump", "", result[1:])
    return stream, json.loads("{" + shown)


@pytest.mark.parametrize(("message", "options", "result"), MESSAGES, ids=[message[:40] for message, _, _ in MESSAGES])
def test_a_message_gives_the_features_the_page_shows(message: str, options: dict[str, Any], result: list[str]) -> None:
    in_payload = "stream" in options or "{stream}" in str(options.get("items"))
    options = {"topic": "t/+" if in_payload else "t/{stream}", "format": "auto", **options}
    topic = "t/pump/relay" if "{feature}" in options["topic"] else "t/pump"
    decoded = decoder(written=options.pop("format"), **options).decode(topic, message.encode())
    assert not decoded.rejected
    assert [(reading.stream, {**reading.values, **reading.masked}) for reading in decoded.readings] == [
        features(shown) for shown in result
    ]


@pytest.mark.parametrize(("raw", "options", "result"), TIMES, ids=[raw for raw, _, _ in TIMES])
def test_a_timestamp_is_the_time_the_page_shows(raw: str, options: dict[str, Any], result: list[str]) -> None:
    message = f'{{"t": {raw}, "a": 1}}'.encode()
    (reading,) = decoder(timestamp="t", **options).decode("telemetry/pump", message).readings
    assert reading.timestamp == pytest.approx(datetime.fromisoformat(result[0]).timestamp(), abs=1e-6)
