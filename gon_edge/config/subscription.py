"""One entry of `subscriptions`: where readings come from, and how they are written.

What an option means to a person is written in `configs/gon-edge.yaml`; what a payload becomes by it is the business of
`stream.payload`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from gon_edge.config import values
from gon_edge.config.option import option
from gon_edge.config.values import Place


@dataclass(frozen=True, slots=True)
class SubscriptionConfig:
    """Where readings come from and how they are written."""

    topic: str = option(values.topic_template)
    format: Literal["json", "value", "influx", "collectd"] = option(
        values.one_of("json", "value", "influx", "collectd"), "json"
    )
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
        if "{feature" in self.topic and self.format == "influx":
            at.below("topic").fail("write + instead of {feature}: lines of influx name their own features")
        if self.timestamp is not None and self.format != "json":
            at.below("timestamp").fail(f"remove it: it names a key of a JSON payload, and the format is {self.format}")
