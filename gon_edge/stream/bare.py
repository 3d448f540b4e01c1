"""Payloads that are values and nothing else: one bare number, or the time and numbers of collectd."""

from __future__ import annotations

from gon_edge.errors import PayloadError
from gon_edge.stream.features import Decoded, Features, decoded
from gon_edge.stream.scalars import in_range, number_of


class BareValues:
    """The bare values of one subscription.

    Parameters
    ----------
    max_features : int
    """

    def __init__(self, max_features: int) -> None:
        self._max_features = max_features

    def read(self, topic: str, stream: str | None, feature: str | None, text: str) -> Decoded:
        """Read one value."""
        assert stream is not None  # the configuration refuses a subscription without one
        text = text.strip()
        value = None if text.lower() == "null" else text
        if number_of(value) == "text":
            raise PayloadError(topic, "bad_number", f"{text!r:.40}")
        features = Features(stream, None)
        features.collect({feature or "value": value})
        return decoded([features], {}, self._max_features)

    def read_collectd(self, topic: str, stream: str | None, feature: str | None, text: str) -> Decoded:
        """Read ``<seconds>:<number>`` and further numbers."""
        assert stream is not None  # the configuration refuses a subscription without one
        clock, *values = text.rstrip("\0 \n").split(":")  # it sends the NUL that ends its string, too
        if not values or any(number_of(value) == "text" for value in values):
            raise PayloadError(topic, "bad_number", f"not TIME:NUMBER: {text!r:.40}")
        try:
            timestamp = in_range(float(clock), clock)
        except ValueError as error:
            raise PayloadError(topic, "bad_timestamp", f"{error}") from None
        features = Features(stream, timestamp)
        name = feature or "value"
        features.collect({name: values[0]} if len(values) == 1 else {f"{name}.{i}": v for i, v in enumerate(values)})
        return decoded([features], {}, self._max_features)
