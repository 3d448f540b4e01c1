"""Bytes of one message to readings: compressed or not, text or binary, in one of the formats.

What a topic means is a template, ``telemetry/{stream}/{feature}``; what a payload means is a format, each with a module
of its own: `document` (with `items`, `senml` and `binary`), `bare`, `lines`, `births`.  Nothing here knows a socket, a
clock or a log, and no input is fatal: a value that is not a finite number is masked with its reason, a message that
holds no reading at all raises `PayloadError` with a reason of `REASONS`.

A new reason here is a new label value of a series: `REASONS` and `MASK_REASONS` are what ``prometheus`` counts by.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, tzinfo
from functools import partial
from typing import TYPE_CHECKING

from gon_edge.config.schema import Config, LimitsConfig
from gon_edge.config.subscription import SubscriptionConfig
from gon_edge.errors import ConfigError, PayloadError
from gon_edge.stream.document import Documents
from gon_edge.stream.encoding import hint_of, inflated, text_of
from gon_edge.stream.features import Decoded, Features, decoded
from gon_edge.stream.scalars import Scalars
from gon_edge.stream.topics import MAX_NAME, TopicTemplate, is_name, is_stream

if TYPE_CHECKING:
    from gon_edge.stream.births import Births

_PLAIN = frozenset(bytes([c]) for c in range(0x20, 0x7F) if c != 0x78)  # neither compressed nor a byte order mark
_OfText = Callable[[str, str | None, str | None, str], Decoded]
_OfBytes = Callable[[str, str | None, str | None, bytes], Decoded]


class Decoder:
    """The payloads of one subscription.

    Parameters
    ----------
    subscription : SubscriptionConfig
        Its ``format`` says what a payload is.
        ``auto``: any of the next five, told apart for each message.
        ``json``: an object of numbers, nested ones by dotted path, arrays as ``name.0``; a top-level array of objects
        is a batch.  With ``{feature}`` in the template a scalar is that feature and an object's features are prefixed
        by it, but for its key ``value``, which is the feature itself.
        ``senml``: RFC 8428, see `senml`.
        ``value``: one bare value a message, feature ``value`` where the template has none.
        ``influx``: line protocol as Telegraf writes it, timestamps by ``precision``.  A feature is
        ``<measurement>.<tag values, in order of their keys, without host>.<field>``: ``cpu.cpu0.usage_idle``.
        Lines of one stream and timestamp become one reading.
        ``collectd``: as its plugin mqtt writes: ``<seconds>:<number>``; several numbers are ``<feature>.0`` and so on.
        ``cbor``, ``msgpack``: documents as for ``json``, in those notations.
        ``sparkplug``: Sparkplug B, see `births`.
        Any of them may be compressed by gzip or zlib; text may be UTF-16 with a byte order mark.
        No byte at all, on the topic of one feature: it has no value any more, masked ``gone``.
        A ``timestamp`` is never a feature.  Where it is absent or null, the reading's timestamp is ``None``: the time
        of receipt counts.
    limits : LimitsConfig, optional
        Features of a message past theirs are dropped and counted as masked by ``limit``.

    Attributes
    ----------
    births : Births or None
        What the format remembers, where it is ``sparkplug``.

    Raises
    ------
    ValueError
        A topic or stream that cannot be one.

    Examples
    --------
    >>> decoder = Decoder(SubscriptionConfig("telemetry/{stream}", timestamp="time"))
    >>> message = b'{"time": 1583748873, "motor": {"current": 1.3}, "valve": "ON"}'
    >>> reading = decoder.decode("telemetry/pump", message).readings[0]
    >>> reading.stream, reading.timestamp, reading.values
    ('pump', 1583748873.0, {'motor.current': 1.3, 'valve': 1.0})
    """

    def __init__(self, subscription: SubscriptionConfig, limits: LimitsConfig | None = None) -> None:
        limits = limits or LimitsConfig()
        self.births: Births | None = None
        self.template = TopicTemplate.parse(subscription.topic)
        stream = subscription.stream
        if isinstance(stream, str) and not is_stream(stream):
            raise ValueError(
                f"not a stream name: {stream!r:.60}; printable, without + # /, at most {MAX_NAME} characters"
            )
        self._max_payload_bytes, self._max_features = limits.payload_bytes, limits.features
        self._read_binary: _OfBytes | None = None
        self._read_text: _OfText
        scalars = Scalars(subscription.decimal, subscription.words)
        fallback = self._fallback = stream if isinstance(stream, str) else None
        documents = Documents(subscription, scalars, _zone(subscription.timezone), limits.features)
        match subscription.format:
            case "json" | "senml":
                self._read_text = documents.read_json
            case "auto":
                plain = partial(_plain, subscription, fallback, scalars, limits.features)
                self._read_text = _told_apart(documents, plain)
            case "value" | "collectd" | "influx":
                self._read_text = _plain(subscription, fallback, scalars, limits.features)
            case "cbor" | "msgpack":
                self._read_binary = documents.read_binary
            case "sparkplug":
                from gon_edge.stream.births import Births  # 0.1 MiB; for those who ask for it

                self.births = Births(fallback, scalars, limits.features, limits.payload_bytes)
                self._read_binary = self.births.read

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
        if stream is not None and not is_stream(stream):
            raise PayloadError(topic, "bad_stream", f"{stream!r:.60} is empty, unprintable or too long")
        if feature is not None and not is_name(feature):
            raise PayloadError(
                topic, "bad_feature", f"{feature!r:.60} is empty, unprintable or over {MAX_NAME} characters"
            )
        # So MQTT takes a retained value back, and so devices of Victron take leave.
        if not payload and feature is not None and (name := stream or self._fallback) is not None:
            features = Features(name, None)
            features.take_back([feature])
            return decoded([features], {}, self._max_features)
        if len(payload) > self._max_payload_bytes:
            raise PayloadError(topic, "too_large", f"more than {self._max_payload_bytes} bytes (limits.payload)")
        if self._read_binary is not None:
            return self._read_binary(topic, stream, feature, self._inflated(topic, payload))
        try:
            # Nearly every message: it begins as only plain text can.
            text = payload.decode() if payload[:1] in _PLAIN else text_of(self._inflated(topic, payload))
        except UnicodeDecodeError as error:
            raise PayloadError(topic, "not_utf8", hint_of(payload, error)) from None
        except ValueError as error:
            raise PayloadError(topic, "not_utf8", str(error)) from None
        if text[-1:] == "\0":  # C programs send the end of a string, too
            text = text.rstrip("\0")
        if not text or text.isspace():
            raise PayloadError(topic, "empty", "no bytes but white space")
        return self._read_text(topic, stream, feature, text)

    def _inflated(self, topic: str, payload: bytes) -> bytes:
        try:
            return inflated(payload, self._max_payload_bytes)
        except OverflowError as error:
            raise PayloadError(topic, "too_large", str(error)) from None
        except ValueError as error:
            raise PayloadError(topic, "bad_compression", str(error)) from None


def _told_apart(documents: Documents, plain: Callable[[], _OfText]) -> _OfText:
    """What reads a text in whichever format it is; ``plain`` gives what reads those that are no document."""
    others: list[_OfText] = []

    def read(topic: str, stream: str | None, feature: str | None, text: str) -> Decoded:
        if text[0] in "{[" or text.lstrip()[:1] in ("{", "["):
            return documents.read_json(topic, stream, feature, text)
        if not others:  # 0.1 MiB; with the first such message
            others.append(plain())
        return others[0](topic, stream, feature, text)

    return read


def _plain(subscription: SubscriptionConfig, fallback: str | None, scalars: Scalars, max_features: int) -> _OfText:
    """What reads text that is no document: in the format of the subscription, or in whichever it is."""
    from gon_edge.stream.bare import BareValues, is_collectd  # for those who have such text
    from gon_edge.stream.lines import Lines, is_line

    bare = BareValues(fallback, scalars, max_features)
    if subscription.format == "value":
        return bare.read
    if subscription.format == "collectd":
        return bare.read_collectd
    lines = Lines(fallback, scalars, subscription.precision, max_features)
    if subscription.format == "influx":
        return lines.read

    def read(topic: str, stream: str | None, feature: str | None, text: str) -> Decoded:
        if is_line(text):
            return lines.read(topic, stream, feature, text)
        if is_collectd(text):
            return bare.read_collectd(topic, stream, feature, text)
        return bare.read(topic, stream, feature, text)

    return read


def _zone(name: str) -> tzinfo:
    if name == "UTC":
        return UTC
    from zoneinfo import ZoneInfo  # 0.3 MiB; for those who ask for it

    return ZoneInfo(name)


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
            found.append(Decoder(subscription, config.limits))
        except ValueError as error:
            raise ConfigError(str(error), path=config.path, key=f"subscriptions[{i}]") from error
    return tuple(found)
