"""What would be made of one message: ``gon-edge try``.

It runs the daemon's own path from message to reading (`stream.pipeline`) on streams that know nothing yet, so that what
it says is what the daemon does.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from gon_edge.commands.text import number_text, table, visible
from gon_edge.config.file import parse_config
from gon_edge.config.schema import Config
from gon_edge.events import Reading
from gon_edge.stream.families import family, suggestion
from gon_edge.stream.heard import Heard
from gon_edge.stream.ledger import HELP, IN_WORDS, date
from gon_edge.stream.pipeline import Pipeline
from gon_edge.stream.stream import Stream

_MESSAGE = "(message)"  # in place of a key, where the whole message is refused
_ITEM = "(item)"
_NOTHING = {"text": "text", "binary": "not_utf8", "empty": "empty"}  # reasons why no subscription would help
_SHOWN = 60  # characters of a payload


def fresh_pipeline(config: Config, offset_s: float) -> Pipeline:
    """The daemon's path from message to reading, with streams that have neither a model nor a past."""

    def open_stream(name: str, now: float) -> Stream:
        return Stream(name, config.stream(name), max_features=config.limits.features, opened_at=now)

    return Pipeline(config, open_stream, offset_s=offset_s)


def suggested_config(entry: Mapping[str, str]) -> Config:
    """A configuration of nothing but one subscription."""
    return parse_config({"mqtt": {"url": "mqtt://localhost"}, "subscriptions": [dict(entry)]})


def entry_text(entry: Mapping[str, Any]) -> str:
    """An entry of `subscriptions` as it stands in the file."""
    return "- {" + ", ".join(f"{key}: {json.dumps(value, ensure_ascii=False)}" for key, value in entry.items()) + "}"


def trial(config: Config | None, topic: str, payload: bytes, *, retained: bool, wall: float) -> dict[str, Any]:
    """Say what would be made of a message.

    Parameters
    ----------
    config : Config or None
        ``None`` tries the subscription that would fit.
    topic : str
    payload : bytes
    retained : bool
        It lies in the broker.
    wall : float
        Unix seconds, now.

    Returns
    -------
    dict
        ``topic``; ``subscription``, as written, null where none reads it; ``readings``, each with ``stream``,
        ``timestamp`` (Unix seconds, null where the time of receipt counts) and ``values``; ``dropped``, each with
        ``key``, ``reason``, ``example``, ``why`` and ``help``; ``suggestion``, an entry of `subscriptions` that would
        read it, or null.
    """
    kind = family(topic, payload).kind
    entry = suggestion(kind, {topic: payload})
    given = config is not None
    if config is None and entry is not None:
        config = suggested_config(entry)
    if config is None:
        heard, dropped = Heard(), [_told(_MESSAGE, _NOTHING.get(kind, "no_subscription"), _excerpt(payload))]
    else:
        pipeline = fresh_pipeline(config, offset_s=wall)
        heard = pipeline.take(topic, payload, 0.0, retained=retained)
        dropped = _dropped(pipeline, heard, payload)
    readings = [_reading(reading, config) for reading in heard.readings if config is not None]
    is_read = any(reading["values"] for reading in readings)
    if not set(heard.ignored).isdisjoint(("own", "discovery")):
        entry = None
    return {
        "topic": topic,
        "subscription": heard.subscription or None,
        "readings": readings,
        "dropped": dropped,
        "suggestion": None if is_read and given else entry,
    }


def _reading(reading: Reading, config: Config) -> dict[str, Any]:
    settings = config.stream(reading.stream)
    values = {name: value for name, value in reading.values.items() if settings.wants(name)}
    return {"stream": reading.stream, "timestamp": reading.timestamp, "values": values}


def _dropped(pipeline: Pipeline, heard: Heard, payload: bytes) -> list[dict[str, str]]:
    found = []
    if heard.refused is not None:
        detail = str(heard.refused).partition(f"{heard.refused.reason}: ")[2]
        found.append(_told(_MESSAGE, heard.refused.reason, detail or _excerpt(payload)))
    if heard.dropped:
        heard.ignored.pop("no_value", None)  # each key says why
    ignored = [reason for reason in heard.ignored if reason != "excluded"]
    found += [_told(_MESSAGE, reason, _excerpt(payload)) for reason in ignored]
    found += [_told(_ITEM, reason, f"{count} of them") for reason, count in heard.rejected.items()]
    found += [_told(told.key, told.reason, told.example) for told in heard.dropped]
    for stream in pipeline.streams.values():
        found += [_told(entry.key, entry.reason, entry.example) for entry in reversed(stream.ledger.entries)]
    return found


def _told(key: str, reason: str, example: str) -> dict[str, str]:
    why = IN_WORDS.get(reason, reason)
    return {"key": key, "reason": reason, "example": example, "why": why, "help": HELP.get(reason, "")}


def _excerpt(payload: bytes) -> str:
    text = payload[: 2 * _SHOWN].decode(errors="replace")
    return text if len(text) <= _SHOWN else text[: _SHOWN - 1] + "…"


def trial_text(tried: Mapping[str, Any]) -> str:
    """`trial` for a person."""
    lines = [f"{tried['topic']}: {_read_by(tried)}"]
    for reading in tried["readings"]:
        stamp = reading["timestamp"]
        when = "time of its receipt" if stamp is None else f"{date(stamp)} UTC, from the message"
        lines += ["", f"stream {reading['stream']}, {when}"]
        rows = [["  FEATURE", "VALUE"]]
        rows += [[f"  {name}", number_text(value)] for name, value in reading["values"].items()]
        lines += table(rows) if reading["values"] else ["  no value"]
    if tried["dropped"]:
        rows = [["  KEY", "WHY", "EXAMPLE"], *([f"  {d['key']}", d["why"], d["example"]] for d in tried["dropped"])]
        lines += ["", "not used:", *table(rows)]
        lines += [f"  what helps: {text}" for text in dict.fromkeys(d["help"] for d in tried["dropped"]) if text]
    if tried["suggestion"] is not None:
        would = "this subscription, which would fit" if tried["readings"] else "a subscription that would read it"
        lines += ["", f"{would}:", f"  {entry_text(tried['suggestion'])}"]
    return "".join(f"{visible(line)}\n" for line in lines)


def _read_by(tried: Mapping[str, Any]) -> str:
    if not tried["readings"]:
        return f"nothing comes of it; subscription {tried['subscription'] or 'none'}"
    return f"read by subscription {tried['subscription']}"
