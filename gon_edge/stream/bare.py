"""Payloads that are values and nothing else: one bare value, or the time and numbers of collectd."""

from __future__ import annotations

import re
from collections.abc import Mapping

from gon_edge.errors import PayloadError
from gon_edge.stream.features import Decoded, Features, decoded
from gon_edge.stream.scalars import Scalars
from gon_edge.stream.times import in_range

_COLLECTD = re.compile(r"[0-9]{9,11}(?:\.[0-9]+)?(?::[^\s:]+)+")


class BareValues:
    """The bare values of one subscription.

    Parameters
    ----------
    stream : str or None
        Where the topic names none.
    scalars : Scalars
    max_features : int
    """

    def __init__(self, stream: str | None, scalars: Scalars, max_features: int) -> None:
        self._stream = stream
        self._scalars = scalars
        self._max_features = max_features

    def read(self, topic: str, stream: str | None, feature: str | None, text: str) -> Decoded:
        """Read one value; text that is none masks the feature."""
        text = text.strip()
        if text[:1] in ("{", "["):
            raise PayloadError(topic, "bad_number", f"looks like JSON, which format: auto reads: {text!r:.40}")
        if len(text) > 1 and text[0] == text[-1] == '"':
            text = text[1:-1]
        return self._decoded(topic, stream, None, {feature or "value": None if text.lower() == "null" else text})

    def read_collectd(self, topic: str, stream: str | None, feature: str | None, text: str) -> Decoded:
        """Read ``<seconds>:<number>`` and further numbers."""
        clock, *values = text.strip().split(":")
        if not values or not all(values):
            raise PayloadError(topic, "bad_number", f"not TIME:NUMBER: {text!r:.40}")
        try:
            timestamp = in_range(float(clock), clock)
        except ValueError as error:
            raise PayloadError(topic, "bad_timestamp", f"{error}") from None
        name = feature or "value"
        several = {f"{name}.{i}": value for i, value in enumerate(values)}
        return self._decoded(topic, stream, timestamp, several if len(values) > 1 else {name: values[0]})

    def _decoded(
        self, topic: str, stream: str | None, timestamp: float | None, record: Mapping[str, str | None]
    ) -> Decoded:
        stream = stream or self._stream
        if stream is None:
            raise PayloadError(topic, "no_stream", "a bare value names no stream, and neither does its topic")
        features = Features(stream, timestamp, self._scalars)
        features.collect(dict(record))
        return decoded([features], {}, self._max_features)


def is_collectd(text: str) -> bool:
    """Whether text looks like a time and numbers as collectd writes them."""
    return _COLLECTD.fullmatch(text.strip()) is not None
