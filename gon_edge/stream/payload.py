"""Bytes of one message to readings: JSON, a bare number, InfluxDB line protocol, or collectd's own.

What a topic means is a template, ``telemetry/{stream}/{feature}``; what a payload means is one of four formats.
Nothing here knows a socket, a clock or a log, and no input is fatal: a value that is not a finite number is masked with
its reason, a message that holds no reading at all raises `PayloadError` with a reason of `REASONS`.

A new reason here is a new label value of a series: `REASONS` and `MASK_REASONS` are what ``prometheus`` counts by.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from gon_edge.config.schema import Config
from gon_edge.errors import ConfigError, PayloadError
from gon_edge.events import Dropped, Reading
from gon_edge.stream.lineprotocol import parse_line
from gon_edge.stream.scalars import LARGEST, in_range, number_of, unix_seconds
from gon_edge.stream.topics import MAX_NAME, TopicTemplate, is_name, is_stream

Format = Literal["json", "value", "influx", "collectd"]

MAX_DEPTH = 8  # nesting of JSON; the deepest device payload met in the field has 4
_ABSENT = object()
_SHOWN = 60  # characters of a value or key that a person is shown


@dataclass(frozen=True, slots=True)
class Decoded:
    """What one message held.

    Attributes
    ----------
    readings : tuple of Reading
        At least one.
    rejected : mapping of str to int
        Lines, or items of a batch, that held none, by reason of `REASONS`.
    masked : mapping of str to int
        Features without a value over all readings, by reason of `MASK_REASONS`.
    """

    readings: tuple[Reading, ...]
    rejected: Mapping[str, int] = field(default_factory=dict)
    masked: Mapping[str, int] = field(default_factory=dict)


class Decoder:
    """The payloads of one subscription.

    Parameters
    ----------
    template : TopicTemplate
    format : {"json", "value", "influx", "collectd"}
        ``json``: an object of numbers, nested ones by dotted path, arrays as ``name.0``; a top-level array of objects
        is a batch.  With ``{feature}`` in the template a scalar is that feature and an object's features are prefixed
        by it, but for its key ``value``, which is the feature itself.
        ``value``: one bare number a message, feature ``value`` where the template has none.
        ``influx``: line protocol as Telegraf writes it, timestamps in nanoseconds.  A feature is
        ``<measurement>.<tag values, in order of their keys, without host>.<field>``: ``cpu.cpu0.usage_idle``.
        Lines of one stream and timestamp become one reading.
        ``collectd``: as its plugin mqtt writes: ``<seconds>:<number>``; several numbers are ``<feature>.0`` and so on.
    timestamp : str, optional
        ``json`` only: key, or dotted path, of the timestamp (see `unix_seconds`).  It is never a feature.  Where it is
        absent or null, the reading's timestamp is ``None``: the time of receipt counts.
    stream : str, optional
        Name of the stream where the template has no ``{stream}``.  For ``influx`` the tag ``host`` goes before it.
    max_payload_bytes, max_features : int
        Limits of one message; features past theirs are dropped and counted as masked by ``limit``.

    Raises
    ------
    ValueError
        Options that contradict each other.

    Examples
    --------
    >>> decoder = Decoder(TopicTemplate.parse("telemetry/{stream}"), timestamp="time")
    >>> decoder.decode("telemetry/pump", b'{"time": 1583748873, "motor": {"current": 1.3}, "valve": "ON"}').readings[0]
    Reading(stream='pump', timestamp=1583748873.0, values={'motor.current': 1.3, 'valve': 1.0}, masked={})
    """

    def __init__(
        self,
        template: TopicTemplate,
        format: Format = "json",  # noqa: A002 - the name of the option a user writes
        *,
        timestamp: str | None = None,
        stream: str | None = None,
        max_payload_bytes: int = 256 * 1024,
        max_features: int = 500,
    ) -> None:
        self.template = template
        if timestamp is not None and format != "json":
            raise ValueError(f"timestamp names a key of a json payload; {format} payloads have no keys")
        if format == "influx" and template.has_feature:
            raise ValueError("influx payloads name their own features; write + instead of {feature} in the topic")
        if format != "influx" and stream is None and not template.has_stream:
            raise ValueError(
                f"{template.text!r} names no stream; put {{stream}} into the topic or set the option stream"
            )
        if stream is not None and not is_stream(stream):
            raise ValueError(
                f"not a stream name: {stream!r:.60}; printable, without + # /, at most {MAX_NAME} characters"
            )
        self._stream = stream
        self._timestamp = timestamp
        self._path = timestamp.split(".") if timestamp is not None else []
        self._max_payload_bytes = max_payload_bytes
        self._max_features = max_features
        self._format: Callable[[str, str | None, str | None, str], Decoded] = {
            "json": self._json,
            "value": self._value,
            "influx": self._influx,
            "collectd": self._collectd,
        }[format]
        # parse_int=float: one type of number to look at, and no limit on the digits of an integer.
        self._loads = json.JSONDecoder(parse_int=float).decode

    def decode(self, topic: str, payload: bytes) -> Decoded:
        """Match a topic, and read its message as `read` does.

        Raises
        ------
        PayloadError
            Also where the topic is another subscription's.
        """
        names = self.template.match(topic)
        if names is None:
            raise PayloadError(topic, "other_topic", f"does not match {self.template.text!r}")
        return self.read(topic, names, payload)

    def read(self, topic: str, names: tuple[str | None, str | None], payload: bytes) -> Decoded:
        """Read one message whose topic has been matched.

        Parameters
        ----------
        topic : str
            For what is said of a message that is refused.
        names : (str or None, str or None)
            Stream and feature, as `TopicTemplate.match` gives them.
        payload : bytes

        Raises
        ------
        PayloadError
            It holds no reading.  Where several lines or items were bad the first one's reason is given.
        """
        stream, feature = names
        if stream is None:
            stream = self._stream
        elif not is_stream(stream):
            raise PayloadError(topic, "bad_stream", f"{stream!r:.60} is empty, unprintable or too long")
        if feature is not None and not is_name(feature):
            raise PayloadError(
                topic, "bad_feature", f"{feature!r:.60} is empty, unprintable or over {MAX_NAME} characters"
            )
        if len(payload) > self._max_payload_bytes:
            raise PayloadError(topic, "too_large", f"{len(payload)} bytes, the limit is {self._max_payload_bytes}")
        try:
            text = payload.decode()
        except UnicodeDecodeError as error:
            raise PayloadError(topic, "not_utf8", f"byte {error.start}") from None
        if not text or text.isspace():
            raise PayloadError(topic, "empty", "no bytes but white space")
        return self._format(topic, stream, feature, text)

    def _json(self, topic: str, stream: str | None, feature: str | None, text: str) -> Decoded:
        assert stream is not None  # __init__ refused a json subscription without one
        try:
            document = self._loads(text.removeprefix("\ufeff"))
        except RecursionError:
            raise PayloadError(topic, "too_deep", f"nested deeper than {MAX_DEPTH}") from None
        except ValueError as error:
            raise PayloadError(topic, "bad_json", str(error)) from None
        if type(document) is not list or (feature is not None and not any(type(item) is dict for item in document)):
            return self._decoded([self._object(topic, stream, feature, document)], {})
        collected: list[_Features] = []
        rejected: dict[str, int] = {}
        first: PayloadError | None = None
        for item in document:
            try:
                collected.append(self._object(topic, stream, feature, item))
            except PayloadError as error:
                first = first or error
                rejected[error.reason] = rejected.get(error.reason, 0) + 1
        if not collected:
            raise first or PayloadError(topic, "empty", "an array without items")
        return self._decoded(collected, rejected)

    def _object(self, topic: str, stream: str, feature: str | None, document: object) -> _Features:
        timestamp = None
        if type(document) is dict:
            if self._timestamp is not None:
                timestamp = self._take_timestamp(topic, document)
        elif feature is None:
            raise PayloadError(topic, "not_an_object", "a JSON object of metrics is expected")
        features = _Features(stream, timestamp)
        try:
            if feature is not None and type(document) is dict and "value" in document:
                features.collect({feature: document.pop("value")})
            features.collect(document if feature is None else {feature: document})  # type: ignore[arg-type]
        except RecursionError:
            raise PayloadError(topic, "too_deep", f"nested deeper than {MAX_DEPTH}") from None
        if not features.values and not features.masked:
            raise PayloadError(topic, "empty", "no feature with a usable name")
        return features

    def _take_timestamp(self, topic: str, document: dict[str, object]) -> float | None:
        raw = document.pop(self._path[0] if len(self._path) == 1 else self._timestamp, _ABSENT)  # type: ignore[arg-type]
        if raw is _ABSENT and len(self._path) > 1:
            parent: object = document
            for key in self._path[:-1]:
                parent = parent.get(key) if type(parent) is dict else None
            raw = parent.pop(self._path[-1], _ABSENT) if type(parent) is dict else _ABSENT
        if raw is _ABSENT or raw is None:
            return None
        try:
            return unix_seconds(raw)
        except (ValueError, OverflowError) as error:
            raise PayloadError(topic, "bad_timestamp", f"{self._timestamp}: {error}") from None

    def _value(self, topic: str, stream: str | None, feature: str | None, text: str) -> Decoded:
        assert stream is not None  # __init__ refused a value subscription without one
        text = text.strip()
        value = None if text.lower() == "null" else text
        if number_of(value) == "text":
            raise PayloadError(topic, "bad_number", f"{text!r:.40}")
        features = _Features(stream, None)
        features.collect({feature or "value": value})
        return self._decoded([features], {})

    def _collectd(self, topic: str, stream: str | None, feature: str | None, text: str) -> Decoded:
        assert stream is not None  # __init__ refused a collectd subscription without one
        clock, *values = text.rstrip("\0 \n").split(":")  # it sends the NUL that ends its string, too
        if not values or any(number_of(value) == "text" for value in values):
            raise PayloadError(topic, "bad_number", f"not TIME:NUMBER: {text!r:.40}")
        try:
            timestamp = in_range(float(clock), clock)
        except ValueError as error:
            raise PayloadError(topic, "bad_timestamp", f"{error}") from None
        features = _Features(stream, timestamp)
        name = feature or "value"
        features.collect({name: values[0]} if len(values) == 1 else {f"{name}.{i}": v for i, v in enumerate(values)})
        return self._decoded([features], {})

    def _influx(self, topic: str, stream: str | None, feature: str | None, text: str) -> Decoded:
        merged: dict[tuple[str, float | None], _Features] = {}
        rejected: dict[str, int] = {}
        first: PayloadError | None = None
        for line in text.split("\n"):
            line = line.strip()
            if not line or line[0] == "#":
                continue
            try:
                self._line(topic, stream if self.template.has_stream else None, line, merged)
            except PayloadError as error:
                first = first or error
                rejected[error.reason] = rejected.get(error.reason, 0) + 1
        collected = [features for features in merged.values() if features.values or features.masked]
        if not collected:
            raise first or PayloadError(topic, "empty", "no line with a field of a usable name")
        return self._decoded(collected, rejected)

    def _line(
        self, topic: str, stream: str | None, text: str, merged: dict[tuple[str, float | None], _Features]
    ) -> None:
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
            # The protocol says nanoseconds: guessing a unit would take the first seconds after 1970 for another.
            timestamp = None if line.clock is None else in_range(int(line.clock[:30]) / 1e9, line.clock)
        except ValueError as error:
            raise PayloadError(topic, "bad_timestamp", str(error)) from None
        features = merged.get((name, timestamp))
        if features is None:
            features = merged[name, timestamp] = _Features(name, timestamp)
        features.collect(line.fields, line.prefix + ".")

    def _decoded(self, collected: Iterable[_Features], rejected: dict[str, int]) -> Decoded:
        masked: dict[str, int] = {}
        readings = tuple([features.reading(self._max_features, masked) for features in collected])
        return Decoded(readings, rejected, masked)


class _Features:
    """The features of one reading while they are collected."""

    __slots__ = ("dropped", "masked", "stream", "timestamp", "values")

    def __init__(self, stream: str, timestamp: float | None) -> None:
        self.stream = stream
        self.timestamp = timestamp
        self.values: dict[str, float] = {}
        self.masked: dict[str, str] = {}
        self.dropped: list[Dropped] = []

    def collect(self, record: dict[str, Any], prefix: str = "", depth: int = 1) -> None:
        """Flatten ``record`` under dotted names; of two equal names the last value counts."""
        if depth > MAX_DEPTH:
            raise RecursionError
        values = self.values
        for key, raw in record.items():
            name = prefix + key
            # Checked before descending: a long key would otherwise be copied into the name of each of its children.
            if not 0 < len(name) <= MAX_NAME or not name.isprintable():
                self.dropped.append(Dropped(shown(name), "name", shown(raw)))
                continue
            kind = type(raw)
            if kind is float and -LARGEST <= raw <= LARGEST:
                values[name] = raw
            elif kind is dict:
                self.collect(raw, name + ".", depth + 1)
            elif kind is list:
                self.collect({str(i): item for i, item in enumerate(raw)}, name + ".", depth + 1)
            elif isinstance(value := number_of(raw), float):
                values[name] = value
            else:
                self.masked[name] = value
                self.dropped.append(Dropped(name, value, shown(raw)))

    def reading(self, max_features: int, counts: dict[str, int]) -> Reading:
        """Finish: keep the first ``max_features``, add up the reasons in ``counts``."""
        values, masked = self.values, self.masked
        if masked:
            for name in values.keys() & masked.keys():  # a.b and {a: {b}}: the usable one counts
                del masked[name]
        excess = len(values) + len(masked) - max_features
        if excess > 0:
            counts["limit"] = counts.get("limit", 0) + excess
            for name in [*values, *masked][max_features:]:
                if masked.pop(name, None) is None:  # else it is named already
                    self.dropped.append(Dropped(name, "limit", shown(values.pop(name))))
        for reason in ["name"] * sum(part.reason == "name" for part in self.dropped) + [*masked.values()]:
            counts[reason] = counts.get(reason, 0) + 1
        return Reading(self.stream, self.timestamp, values, masked, tuple(self.dropped))


def shown(raw: object) -> str:
    """What a person is shown of a value: at most 60 characters."""
    text = "{…}" if isinstance(raw, dict) else raw if isinstance(raw, str) else repr(raw)
    return text if len(text) <= _SHOWN else text[: _SHOWN - 1] + "…"


def decoders(config: Config) -> tuple[Decoder, ...]:
    """The decoders of a configuration's subscriptions, in their order: the first whose topic matches reads a message.

    Raises
    ------
    ConfigError
        Options of a subscription that contradict each other.
    """
    found = []
    for i, subscription in enumerate(config.subscriptions):
        try:
            decoder = Decoder(
                TopicTemplate.parse(subscription.topic),
                subscription.format,
                timestamp=subscription.timestamp,
                stream=subscription.stream,
                max_payload_bytes=config.limits.payload_bytes,
                max_features=config.limits.features,
            )
        except ValueError as error:
            raise ConfigError(str(error), path=config.path, key=f"subscriptions[{i}]") from error
        found.append(decoder)
    return tuple(found)
