"""One entry of `subscriptions`: where readings come from, and how they are written.

What an option means to a person is written in `configs/gon-edge.yaml`; what a payload becomes by it is the business of
`stream.payload`.
"""

# ruff: noqa: RUF009  option() only wraps dataclasses.field()

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Any, Literal, get_args

from gon_edge.config import values
from gon_edge.config.option import option
from gon_edge.config.values import Place

Format = Literal["auto", "json", "senml", "value", "influx", "collectd", "cbor", "msgpack", "sparkplug"]

_NAMES_FEATURES = {"influx": "lines of influx name their own features", "sparkplug": "metrics have names of their own"}
"""Formats whose payloads say which feature a value is."""

_DOCUMENTS = ("auto", "json", "cbor", "msgpack")
"""Formats whose payloads have keys."""

BASE_NAME = ("bn",)
"""The one key of SenML that can name a stream."""

_LIBRARIES = {"cbor": "cbor2", "msgpack": "msgpack"}
"""What reads a format, where that is not part of gon-edge: the module, which is the name of its package as well."""


def _paths(value: Any, at: Place) -> tuple[str, ...]:
    """Keys of a payload: one dotted path, or a list of them."""
    paths = values.globs(value, at)
    if not paths:
        at.fail("write a key of the payload, such as id, or a list of them")
    return paths


def _stream(value: Any, at: Place) -> str | StreamKey | None:
    """A name, or `{key: id}`: the name stands in the payload."""
    if not isinstance(value, Mapping):
        return values.optional(values.text)(value, at)  # type: ignore[no-any-return]
    if list(value) != ["key"]:
        at.fail(f"write the name of a stream, or {{key: KEY}} where KEY is that of its name, not {values.shown(value)}")
    return StreamKey(_paths(value["key"], at.below("key")))


def _words(value: Any, at: Place) -> Mapping[str, Mapping[str, float]]:
    """Words and their numbers, for all features or by pattern of the feature."""
    if value in (None, ""):
        return {}
    if not isinstance(value, Mapping):
        at.fail(f"write words and their numbers, such as {{heat: 1, idle: 0}}, not {values.shown(value)}")
    number = values.real(-1e30)
    plain = {str(word): number(raw, at.below(str(word))) for word, raw in value.items() if not isinstance(raw, Mapping)}
    found: dict[str, Mapping[str, float]] = {
        str(pattern): {str(word): number(raw, at.below(str(pattern)).below(str(word))) for word, raw in words.items()}
        for pattern, words in value.items()
        if isinstance(words, Mapping)
    }
    return {**found, "*": {**plain, **found.get("*", {})}} if plain else found


def _zone(value: Any, at: Place) -> str:
    """A time zone that this machine knows."""
    import zoneinfo  # 0.3 MiB; for those who ask for it

    written = values.text(value, at)
    if written == "UTC":  # known without a database of zones
        return written
    try:
        zoneinfo.ZoneInfo(written)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
        known = zoneinfo.available_timezones()
        hint = values.nearest(written, known) if known else "; install tzdata: this machine knows no time zones"
        at.fail(f"write a time zone such as Europe/Berlin, not {values.shown(written)}{hint}")
    return written


@dataclass(frozen=True, slots=True)
class StreamKey:
    """Where in a payload the name of its stream stands: paths whose texts are joined by ``-``."""

    key: tuple[str, ...] = option(_paths)


@dataclass(frozen=True, slots=True)
class SubscriptionConfig:
    """Where readings come from and how they are written."""

    topic: str = option(values.topic_template)
    format: Format = option(values.one_of(*get_args(Format)), "auto")
    timestamp: str | None = option(values.optional(values.text), None)
    timezone: str = option(_zone, "UTC")
    precision: Literal["auto", "s", "ms", "us", "ns"] = option(values.one_of("auto", "s", "ms", "us", "ns"), "auto")
    retained: Literal["ignore", "seed"] = option(values.one_of("ignore", "seed"), "ignore")
    stream: str | StreamKey | None = option(_stream, None)
    items: str | None = option(values.optional(values.text), None)
    name_key: tuple[str, ...] = option(values.globs, ())
    value_key: str | None = option(values.optional(values.text), None)
    decimal: Literal["auto", "point", "comma"] = option(values.one_of("auto", "point", "comma"), "auto")
    words: Mapping[str, Mapping[str, float]] = field(default_factory=dict, metadata={"parse": _words, "key": "map"})

    @property
    def names_streams(self) -> bool:
        """Whether the topic or the place of the items says the stream."""
        return "{stream" in self.topic or (self.items is not None and "{stream}" in self.items.split("."))

    def check(self, at: Place) -> None:
        """Refuse a topic from which no stream, or more than one, would follow, and keys where there are none."""
        if not self.names_streams and self.stream is None and self.format != "influx":  # there `host` may name it
            at.below("topic").fail("put {stream} into the topic, or name the one stream it feeds with stream:")
        if self.names_streams and self.stream is not None:
            where = "topic" if "{stream" in self.topic else "place of the items"
            at.below("stream").fail(f"remove it: the {where} already says the stream by {{stream}}")
        if "{stream" in self.topic and self.items is not None and "{stream}" in self.items.split("."):
            at.below("items").fail("write {stream} in topic or in items, not in both")
        if isinstance(self.stream, str) and re.search(r"[{}+#/]", self.stream):
            at.below("stream").fail(
                f"{values.shown(self.stream)} would be the name itself; write a plain name, {{stream}} in the topic, "
                "or {key: KEY} where KEY is the key of the payload that holds it"
            )
        if self.topic.startswith("$share/") and self.retained == "seed":
            at.below("retained").fail("remove it: a broker sends no retained messages to a shared subscription")
        if "{feature" in self.topic and self.format in _NAMES_FEATURES:
            at.below("topic").fail(f"write + or # instead of {{feature}}: {_NAMES_FEATURES[self.format]}")
        if isinstance(self.stream, StreamKey) and self.format not in (*_DOCUMENTS, "senml"):
            at.below("stream").fail(f"write a name: {{key: KEY}} is for JSON payloads, and the format is {self.format}")
        if self.format == "senml" and isinstance(self.stream, StreamKey) and self.stream.key != BASE_NAME:
            at.below("stream").fail("write {key: bn}: only the base name of SenML can name a stream")
        for key in ("timestamp", "items", "name_key", "value_key"):
            if getattr(self, key) and self.format not in _DOCUMENTS:
                at.below(key).fail(f"remove it: it names a key of a JSON payload, and the format is {self.format}")
        if self.precision != "auto" and self.format not in ("auto", "influx"):
            at.below("precision").fail(f"remove it: it is that of line protocol, and the format is {self.format}")
        library = _LIBRARIES.get(self.format)
        if library is not None and find_spec(library) is None:
            in_venv = sys.prefix != sys.base_prefix
            install = f"{sys.prefix}/bin/pip install {library}" if in_venv else f"sudo apt install python3-{library}"
            at.below("format").fail(
                f"{self.format} is read by the package {library}, which is not here; type: {install}"
            )
