"""Line protocol to readings: lines of one stream and one time become one."""

from __future__ import annotations

import re
from typing import Literal

from gon_edge.errors import PayloadError
from gon_edge.stream.features import Collected, Decoded, Features
from gon_edge.stream.lineprotocol import parse_line
from gon_edge.stream.scalars import Scalars
from gon_edge.stream.times import in_range
from gon_edge.stream.topics import is_stream

_BEGINNING = re.compile(r"(?:\s*#[^\n]*\n)*\s*(?:[^\s\\]|\\.)+ +(?:[^\s=\\]|\\.)+=[^\s=]")

Precision = Literal["auto", "s", "ms", "us", "ns"]
_PER_SECOND = {"s": 1e0, "ms": 1e3, "us": 1e6, "ns": 1e9}
_GUESSED = (1e0, 1e3, 1e6)
# The years 2017 to 2100: a time is taken for the unit that puts it there, else for nanoseconds, as the protocol says.
# Wider limits would take more of the first hours after 1970, where a device without a clock begins, for another unit.
_FROM_S, _TO_S = 1.48e9, 4.1e9


class Lines:
    """The lines of one subscription.

    Parameters
    ----------
    stream : str or None
        That of lines whose topic names none and that have no tag ``host``.
    scalars : Scalars
    precision : {"auto", "s", "ms", "us", "ns"}
        Unit of the timestamps.
    max_features : int
    """

    def __init__(self, stream: str | None, scalars: Scalars, precision: Precision, max_features: int) -> None:
        self._stream = stream
        self._scalars = scalars
        self._precision = precision
        self._max_features = max_features

    def read(self, topic: str, stream: str | None, feature: str | None, text: str) -> Decoded:
        """Read the lines of one message; ``stream`` and ``feature`` are what the topic names, if it does."""
        collected = Collected()
        for line in text.split("\n"):
            line = line.strip()
            if not line or line[0] == "#":
                continue
            try:
                collected.add(self._line(topic, stream, feature, line))
            except PayloadError as error:
                collected.reject(error)
        return collected.finish(topic, self._max_features, "no line with a field of a usable name")

    def _line(self, topic: str, stream: str | None, feature: str | None, text: str) -> Features:
        try:
            line = parse_line(text)
        except ValueError as error:
            raise PayloadError(topic, "bad_line", str(error)) from None
        name = stream or line.host or self._stream
        if name is None:
            raise PayloadError(topic, "no_stream", "no {stream} in the topic, no tag host, no option stream")
        if not is_stream(name):
            raise PayloadError(topic, "bad_stream", f"{name!r:.60} is no stream name")
        try:
            timestamp = None if line.clock is None else in_range(self._seconds(int(line.clock[:30])), line.clock)
        except ValueError as error:
            raise PayloadError(topic, "bad_timestamp", str(error)) from None
        features = Features(name, timestamp, self._scalars)
        features.collect(line.fields, f"{line.prefix}." if feature is None else f"{feature}.{line.prefix}.")
        return features

    def _seconds(self, clock: int) -> float:
        per_second = _PER_SECOND.get(self._precision)
        if per_second is None:
            is_nanoseconds = clock > _TO_S * 1e6  # nearly always, and too much for any other unit
            per_second = 1e9 if is_nanoseconds else next((n for n in _GUESSED if _FROM_S <= clock / n <= _TO_S), 1e9)
        return clock / per_second


def is_line(text: str) -> bool:
    """Whether text begins as line protocol does, comments aside: a measurement, a space, a field."""
    return _BEGINNING.match(text) is not None
