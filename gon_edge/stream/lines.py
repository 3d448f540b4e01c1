"""Line protocol to readings: lines of one stream and one time become one."""

from __future__ import annotations

from gon_edge.errors import PayloadError
from gon_edge.stream.features import Decoded, Features, decoded
from gon_edge.stream.lineprotocol import parse_line
from gon_edge.stream.scalars import in_range
from gon_edge.stream.topics import is_stream

_Merged = dict[tuple[str, float | None], Features]


class Lines:
    """The lines of one subscription.

    Parameters
    ----------
    fallback : str or None
        The stream of lines whose topic names none and that have no tag ``host``.
    max_features : int
    """

    def __init__(self, fallback: str | None, max_features: int) -> None:
        self._fallback = fallback
        self._max_features = max_features

    def read(self, topic: str, stream: str | None, feature: str | None, text: str) -> Decoded:
        """Read the lines of one message; ``stream`` is what the topic names, if it does."""
        merged: _Merged = {}
        rejected: dict[str, int] = {}
        first: PayloadError | None = None
        for line in text.split("\n"):
            line = line.strip()
            if not line or line[0] == "#":
                continue
            try:
                self._line(topic, stream, line, merged)
            except PayloadError as error:
                first = first or error
                rejected[error.reason] = rejected.get(error.reason, 0) + 1
        collected = [features for features in merged.values() if features.values or features.masked]
        if not collected:
            raise first or PayloadError(topic, "empty", "no line with a field of a usable name")
        return decoded(collected, rejected, self._max_features)

    def _line(self, topic: str, stream: str | None, text: str, merged: _Merged) -> None:
        try:
            line = parse_line(text)
        except ValueError as error:
            raise PayloadError(topic, "bad_line", str(error)) from None
        name = stream or line.host or self._fallback
        if name is None:
            raise PayloadError(topic, "no_stream", "no {stream} in the topic, no tag host, no option stream")
        if not is_stream(name):
            raise PayloadError(topic, "bad_stream", f"{name!r:.60} is no stream name")
        try:
            # The protocol says nanoseconds: guessing a unit would take the first seconds after 1970 for another.
            timestamp = None if line.clock is None else in_range(int(line.clock[:30]) / 1e9, line.clock)
        except ValueError as error:
            raise PayloadError(topic, "bad_timestamp", str(error)) from None
        features = merged.get((name, timestamp))
        if features is None:
            features = merged[name, timestamp] = Features(name, timestamp)
        features.collect(line.fields, line.prefix + ".")
