"""One entry of `subscriptions`: where readings come from, and how they are written.

What an option means to a person is written in `configs/gon-edge.yaml`; what a payload becomes by it is the business of
`stream.payload`.
"""

# ruff: noqa: RUF009  option() only wraps dataclasses.field()

from __future__ import annotations

import sys
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Literal, get_args

from gon_edge.config import values
from gon_edge.config.option import option
from gon_edge.config.values import Place

Format = Literal["json", "value", "influx", "collectd", "cbor", "msgpack", "sparkplug"]

_NAMES_FEATURES = {"influx": "lines of influx name their own features", "sparkplug": "metrics have names of their own"}
"""Formats whose payloads say which feature a value is."""

_DOCUMENTS = ("json", "cbor", "msgpack")
"""Formats whose payloads have keys."""

_LIBRARIES = {"cbor": "cbor2", "msgpack": "msgpack"}
"""What reads a format, where that is not part of gon-edge: the module, which is the name of its package as well."""


@dataclass(frozen=True, slots=True)
class SubscriptionConfig:
    """Where readings come from and how they are written."""

    topic: str = option(values.topic_template)
    format: Format = option(values.one_of(*get_args(Format)), "json")
    timestamp: str | None = option(values.optional(values.text), None)
    retained: Literal["ignore", "seed"] = option(values.one_of("ignore", "seed"), "ignore")
    stream: str | None = option(values.optional(values.text), None)

    def check(self, at: Place) -> None:
        """Refuse a topic from which no stream, or more than one, would follow."""
        placed = "{stream}" in self.topic
        if not placed and self.stream is None and self.format != "influx":  # there the tag `host` may name it
            at.below("topic").fail("put {stream} into the topic, or name the one stream it feeds with stream:")
        if placed and self.stream is not None:
            at.below("stream").fail("remove it: the topic already says the stream by {stream}")
        if "{feature" in self.topic and self.format in _NAMES_FEATURES:
            at.below("topic").fail(f"write + or # instead of {{feature}}: {_NAMES_FEATURES[self.format]}")
        if self.timestamp is not None and self.format not in _DOCUMENTS:
            at.below("timestamp").fail(f"remove it: it names a key of a JSON payload, and the format is {self.format}")
        library = _LIBRARIES.get(self.format)
        if library is not None and find_spec(library) is None:
            in_venv = sys.prefix != sys.base_prefix
            install = f"{sys.prefix}/bin/pip install {library}" if in_venv else f"sudo apt install python3-{library}"
            at.below("format").fail(
                f"{self.format} is read by the package {library}, which is not here; type: {install}"
            )
