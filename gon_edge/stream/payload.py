"""Bytes of one message to readings: JSON, a bare number, InfluxDB line protocol, or collectd's own.

What a topic means is a template, ``telemetry/{stream}/{feature}``; what a payload means is one of four formats.
Nothing here knows a socket, a clock or a log, and no input is fatal: a value that is not a finite number is masked with
its reason, a message that holds no reading at all raises `PayloadError` with a reason of `REASONS`.

How values are read, in every format:

=====================================  =====================================================
``21.5``, ``"21.5"``                   a number; what float32 cannot hold is masked ``infinite``
``true``, ``"ON"``, ``"false"``        1.0 or 0.0, letter case ignored (switches and relays send these)
``null``                               masked ``null``
``NaN``, ``"nan"``                     masked ``nan``
``Infinity``, ``1e999``                masked ``infinite``
any other text                         masked ``text``
=====================================  =====================================================

A new reason here is a new label value of a series: `REASONS` and `MASK_REASONS` are what ``prometheus`` counts by.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal, Self
from urllib.parse import quote

from gon_edge.config.file import Config
from gon_edge.errors import ConfigError, PayloadError
from gon_edge.events import Reading

Format = Literal["json", "value", "influx", "collectd"]

MAX_NAME = 128  # characters of a stream or a feature; a label of this size is still readable on the status page
_MAX_FOLDER = 240  # of the 255 bytes that file systems allow
MAX_DEPTH = 8  # nesting of JSON; the deepest device payload met in the field has 4
LARGEST = 3.4028234663852886e38  # the largest float32: rows are float32, beyond it a value would become infinite there

# A bare number is seconds, milliseconds, microseconds or nanoseconds by its size: each covers the years 1973 to 5138.
_UNITS = ((1e11, 1.0), (1e14, 1e3), (1e17, 1e6), (math.inf, 1e9))
_YEAR_10000 = 253402300800.0
_SWITCH = {"true": 1.0, "on": 1.0, "false": 0.0, "off": 0.0}
_REST = "{feature...}"
_ABSENT = object()


def unix_seconds(raw: object) -> float:
    """Read a timestamp as devices write it.

    Parameters
    ----------
    raw : float or str
        A number, or text that is one: seconds below 1e11, milliseconds below 1e14, microseconds below 1e17, else
        nanoseconds.  Other text: ISO 8601, with ``T`` or a space; without a zone it is taken as UTC.

    Returns
    -------
    float
        Unix seconds, from 0 (1970) to the end of the year 9999.

    Raises
    ------
    ValueError
        Anything else.

    Examples
    --------
    >>> unix_seconds(1583748873000.0)
    1583748873.0
    >>> unix_seconds("2020-03-09 10:14:33")
    1583748873.0
    """
    if (
        isinstance(raw, bool)
        or not isinstance(raw, (int, float, str))
        or (isinstance(raw, str) and len(raw) > MAX_NAME)
    ):
        raise ValueError(f"neither a number nor a date: {raw!r:.60}")
    number = _float(raw) if isinstance(raw, str) else float(raw)
    if number is None:
        moment = datetime.fromisoformat(raw.strip().upper())  # type: ignore[union-attr]  # only text is no number
        return _in_range((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp(), raw)
    if math.isfinite(number):
        number /= next(divisor for limit, divisor in _UNITS if number < limit)
    return _in_range(number, raw)


class TopicTemplate:
    """A subscription that names the levels of a topic: ``telemetry/{stream}/{feature}``.

    Build with `parse`.  A placeholder, like ``+``, is one whole level; ``#`` may stand last, and so may
    ``{feature...}``, which is that level and all below it, joined by dots.

    Attributes
    ----------
    text : str
        As written.
    subscription : str
        The MQTT topic filter.
    has_stream, has_feature : bool

    Examples
    --------
    >>> template = TopicTemplate.parse("telemetry/{stream}/{feature}")
    >>> template.subscription
    'telemetry/+/+'
    >>> template.match("telemetry/pump/flow")
    ('pump', 'flow')
    >>> TopicTemplate.parse("N/{stream}/{feature...}").match("N/c0619ab/battery/256/Soc")
    ('c0619ab', 'battery.256.Soc')
    """

    __slots__ = (
        "_feature",
        "_fixed",
        "_levels",
        "_open_ended",
        "_rest",
        "_stream",
        "has_feature",
        "has_stream",
        "subscription",
        "text",
    )

    def __init__(self, text: str, levels: list[str]) -> None:
        self.text = text
        self._rest = levels[-1] == _REST
        self._open_ended = self._rest or levels[-1] == "#"
        self._levels = len(levels) - self._open_ended
        self._stream = levels.index("{stream}") if "{stream}" in levels else None
        self._feature = levels.index("{feature}") if "{feature}" in levels else None
        self._fixed = [(i, level) for i, level in enumerate(levels) if level[:1] not in ("+", "#", "{")]
        self.has_stream = self._stream is not None
        self.has_feature = self._rest or self._feature is not None
        self.subscription = "/".join("#" if level == _REST else "+" if level[:1] == "{" else level for level in levels)

    @classmethod
    def parse(cls, text: str) -> Self:
        """Check and take apart a template.

        Raises
        ------
        ValueError
            The text says which level is wrong and what is allowed.
        """
        levels = text.split("/")
        if not text or "\0" in text:
            raise ValueError("a topic must not be empty and must not contain NUL")
        for i, level in enumerate(levels):
            if level in ("+", "{stream}", "{feature}"):
                if level != "+" and levels.index(level) != i:
                    raise ValueError(f"{text!r}: {level} stands twice; each placeholder may stand once")
            elif level in ("#", _REST):
                if i != len(levels) - 1:
                    raise ValueError(f"{text!r}: {level} is only allowed as the last level")
                if level == _REST and "{feature}" in levels:
                    raise ValueError(f"{text!r}: the feature stands twice; write {{feature}} or {_REST}")
            elif any(character in level for character in "+#{}"):
                raise ValueError(
                    f"{text!r}: level {level!r}: {{stream}}, {{feature}}, + and # must be a whole level between "
                    "slashes, and there are no other placeholders"
                )
        return cls(text, levels)

    def match(self, topic: str) -> tuple[str | None, str | None] | None:
        """Names of the stream and the feature in a topic; ``None`` when the topic is another's.

        A name is ``None`` where the template has no such placeholder.
        """
        levels = topic.split("/")
        if len(levels) != self._levels and not (self._open_ended and len(levels) > self._levels):
            return None
        for i, level in self._fixed:
            if levels[i] != level:
                return None
        if topic[:1] == "$" and self.subscription[:1] in ("+", "#"):  # wildcards leave out the broker's own $SYS topics
            return None
        stream = None if self._stream is None else levels[self._stream]
        if self._rest:
            return (stream, ".".join(levels[self._levels :])) if len(levels) > self._levels else None
        return stream, None if self._feature is None else levels[self._feature]


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
        if stream is not None and not _is_stream(stream):
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
        """Read one message.

        Raises
        ------
        PayloadError
            It holds no reading.  Where several lines or items were bad the first one's reason is given.
        """
        names = self.template.match(topic)
        if names is None:
            raise PayloadError(topic, "other_topic", f"does not match {self.template.text!r}")
        stream, feature = names
        if stream is None:
            stream = self._stream
        elif not _is_stream(stream):
            raise PayloadError(topic, "bad_stream", f"{stream!r:.60} is empty, unprintable or too long")
        if feature is not None and not _is_name(feature):
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
        if _number(value) == "text":
            raise PayloadError(topic, "bad_number", f"{text!r:.40}")
        features = _Features(stream, None)
        features.collect({feature or "value": value})
        return self._decoded([features], {})

    def _collectd(self, topic: str, stream: str | None, feature: str | None, text: str) -> Decoded:
        assert stream is not None  # __init__ refused a collectd subscription without one
        clock, *values = text.rstrip("\0 \n").split(":")  # it sends the NUL that ends its string, too
        if not values or any(_number(value) == "text" for value in values):
            raise PayloadError(topic, "bad_number", f"not TIME:NUMBER: {text!r:.40}")
        try:
            timestamp = _in_range(float(clock), clock)
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
        self, topic: str, stream: str | None, line: str, merged: dict[tuple[str, float | None], _Features]
    ) -> None:
        match = _LINE.fullmatch(line)
        if match is None:
            raise PayloadError(topic, "bad_line", f"not line protocol: {line!r:.60}")
        head, body, clock = match.groups()
        measurement, *pairs = _split(head, ",", _COMMA)
        tags = sorted([_unescape(part) for part in _split(pair, "=", _EQUALS)] for pair in pairs)
        if not measurement or any(len(tag) != 2 for tag in tags):
            raise PayloadError(topic, "bad_line", f"a tag is not key=value: {line!r:.60}")
        host = next((tag[1] for tag in tags if tag[0] == "host"), None)
        prefix = ".".join([_unescape(measurement), *(tag[1] for tag in tags if tag[0] != "host")])
        name = stream or host or self._stream
        if name is None:
            raise PayloadError(topic, "no_stream", "no {stream} in the topic, no tag host, no option stream")
        if not _is_stream(name):
            raise PayloadError(topic, "bad_stream", f"{name!r:.60} is no stream name")
        record: dict[str, object] = {}
        at = 0
        while at < len(body):
            pair = _FIELD.match(body, at)
            raw = _field_value(pair[2]) if pair else _ABSENT
            if pair is None or raw is _ABSENT:
                raise PayloadError(topic, "bad_line", f"a field is not key=value: {line!r:.60}")
            record[_unescape(pair[1])] = raw
            at = pair.end()
        try:
            # The protocol says nanoseconds: guessing a unit would take the first seconds after 1970 for another.
            timestamp = None if clock is None else _in_range(int(clock[:30]) / 1e9, clock)
        except ValueError as error:
            raise PayloadError(topic, "bad_timestamp", str(error)) from None
        features = merged.get((name, timestamp))
        if features is None:
            features = merged[name, timestamp] = _Features(name, timestamp)
        features.collect(record, prefix + ".")

    def _decoded(self, collected: Iterable[_Features], rejected: dict[str, int]) -> Decoded:
        masked: dict[str, int] = {}
        readings = tuple([features.reading(self._max_features, masked) for features in collected])
        return Decoded(readings, rejected, masked)


class _Features:
    """The features of one reading while they are collected."""

    __slots__ = ("bad_names", "masked", "stream", "timestamp", "values")

    def __init__(self, stream: str, timestamp: float | None) -> None:
        self.stream = stream
        self.timestamp = timestamp
        self.values: dict[str, float] = {}
        self.masked: dict[str, str] = {}
        self.bad_names = 0

    def collect(self, record: dict[str, Any], prefix: str = "", depth: int = 1) -> None:
        """Flatten ``record`` under dotted names; of two equal names the last value counts."""
        if depth > MAX_DEPTH:
            raise RecursionError
        values = self.values
        for key, raw in record.items():
            name = prefix + key
            # Checked before descending: a long key would otherwise be copied into the name of each of its children.
            if not 0 < len(name) <= MAX_NAME or not name.isprintable():
                self.bad_names += 1
                continue
            kind = type(raw)
            if kind is float and -LARGEST <= raw <= LARGEST:
                values[name] = raw
            elif kind is dict:
                self.collect(raw, name + ".", depth + 1)
            elif kind is list:
                self.collect({str(i): item for i, item in enumerate(raw)}, name + ".", depth + 1)
            elif isinstance(value := _number(raw), float):
                values[name] = value
            else:
                self.masked[name] = value

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
                values.pop(name, None)
                masked.pop(name, None)
        if self.bad_names:
            counts["name"] = counts.get("name", 0) + self.bad_names
        for reason in masked.values():
            counts[reason] = counts.get(reason, 0) + 1
        return Reading(self.stream, self.timestamp, values, masked)


def _number(raw: object) -> float | str:
    """Value of a scalar, or the reason of `MASK_REASONS` why it has none."""
    if raw is None:
        return "null"
    if isinstance(raw, bool):
        return float(raw)
    if isinstance(raw, str):
        if len(raw) > MAX_NAME:
            return "text"
        number = _SWITCH.get(raw.strip().lower())
        if number is None:
            number = _float(raw)
        if number is None:
            return "text"
    else:
        assert isinstance(raw, float)
        number = raw
    if number != number:
        return "nan"
    return number if -LARGEST <= number <= LARGEST else "infinite"


def _float(text: str) -> float | None:
    """Like ``float``, but ``1_000`` is no number: no device writes one so, and an identifier may look like it."""
    try:
        return None if "_" in text else float(text)
    except ValueError:
        return None


def _in_range(seconds: float, raw: object) -> float:
    if not 0.0 <= seconds < _YEAR_10000:
        raise ValueError(f"not between the years 1970 and 9999: {raw!r:.60}")
    return seconds


def _is_name(text: str) -> bool:
    return 0 < len(text) <= MAX_NAME and text.isprintable()


def _is_stream(text: str) -> bool:
    # A stream's name becomes a level of the topics gon-edge publishes, where these three mean something else, and,
    # percent-encoded, a folder: 128 quotation marks are 384 characters there, more than any file system takes.
    if not _is_name(text) or any(character in text for character in "+#/"):
        return False
    return 3 * len(text.encode()) <= _MAX_FOLDER or len(quote(text)) <= _MAX_FOLDER


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


# Line protocol, after "Line protocol reference" of InfluxDB 2: a backslash escapes comma, equals sign and space outside
# quotes, and quote and backslash inside them.  The alternatives of each repetition start with different characters, so
# a match takes linear time whatever the input.
_LINE = re.compile(r'((?:[^ \\]|\\.)+) +((?:"(?:[^"\\]|\\.)*"|[^ "\\]|\\.)+)(?: +(-?[0-9]+))?', re.DOTALL)
_FIELD = re.compile(r'((?:[^,=\\]|\\.)+)=("(?:[^"\\]|\\.)*"|[^,"]+)(?:,(?=.)|$)', re.DOTALL)
_COMMA = re.compile(r"(?<!\\),")
_EQUALS = re.compile(r"(?<!\\)=")
_ESCAPE = re.compile(r"\\([,= ])")
_INTEGER = re.compile(r"[+-]?[0-9]+[iu]")
_BOOLEAN = {
    **dict.fromkeys(("t", "T", "true", "True", "TRUE"), 1.0),
    **dict.fromkeys(("f", "F", "false", "False", "FALSE"), 0.0),
}


def _split(text: str, separator: str, unescaped: re.Pattern[str]) -> list[str]:
    return text.split(separator) if "\\" not in text else unescaped.split(text)


def _unescape(text: str) -> str:
    return _ESCAPE.sub(r"\1", text) if "\\" in text else text


def _field_value(raw: str) -> object:
    """A scalar for `_number`; ``_ABSENT`` when it is no field value of the protocol."""
    if raw[0] == '"':
        return raw  # stays quoted, so it is text even where it looks like a number
    boolean = _BOOLEAN.get(raw)
    if boolean is not None:
        return boolean
    number = _float(raw[:-1] if _INTEGER.fullmatch(raw) else raw)
    return _ABSENT if number is None else number
