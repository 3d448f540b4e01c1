"""Documents to readings: objects of numbers, nested or not, and lists of them, as JSON has them.

What reads another notation of such documents gives them to `Documents.read`.  Where the options of a subscription name
keys of the payload, `items` says what they mean; SenML has keys of its own and is read by `senml`.
"""

from __future__ import annotations

import json
import re
from datetime import tzinfo
from functools import cached_property
from typing import TYPE_CHECKING

from gon_edge.config.subscription import BASE_NAME, StreamKey, SubscriptionConfig
from gon_edge.errors import PayloadError
from gon_edge.events import Dropped
from gon_edge.stream.features import MAX_DEPTH, Collected, Decoded, Features, decoded, shown
from gon_edge.stream.paths import ABSENT, Path
from gon_edge.stream.scalars import Scalars
from gon_edge.stream.times import unix_seconds

if TYPE_CHECKING:
    from gon_edge.stream.items import Items
    from gon_edge.stream.senml import Senml

# What printf makes of floats that are none, beside the text in which it is only text.
_NO_NUMBER = re.compile(r'("(?:[^"\\]|\\.)*")|(?<![\w.])([+-]?)(nan|inf(?:inity)?)(?![\w.])', re.DOTALL | re.IGNORECASE)


class Documents:
    """The documents of one subscription.

    Parameters
    ----------
    subscription : SubscriptionConfig
    scalars : Scalars
    zone : tzinfo
        Of timestamps that name none.
    max_features : int
    """

    def __init__(self, subscription: SubscriptionConfig, scalars: Scalars, zone: tzinfo, max_features: int) -> None:
        self._stream = None if isinstance(subscription.stream, StreamKey) else subscription.stream
        self._scalars = scalars
        self._zone = zone
        self._timestamp = Path(subscription.timestamp) if subscription.timestamp is not None else None
        self._max_features = max_features
        has_keys = subscription.items is not None or subscription.name_key or subscription.value_key is not None
        self._items = None
        if has_keys or isinstance(subscription.stream, StreamKey):
            from gon_edge.stream.items import Items  # for those who ask for it

            self._items = Items(subscription)
        self._subscription = subscription
        self._is_senml = subscription.format == "senml"
        by_key = isinstance(subscription.stream, StreamKey) and subscription.stream.key != BASE_NAME
        self._finds_senml = subscription.format in ("auto", "cbor") and not has_keys and not by_key
        self._is_one = self._items is None and not self._is_senml
        self._loads_binary = None
        if subscription.format in ("cbor", "msgpack"):
            from gon_edge.stream.binary import reader  # 0.1 MiB; for those who ask for it

            self._loads_binary = reader(subscription.format)
        # parse_int=float: one type of number to look at, and no limit on the digits of an integer.
        self._loads = json.JSONDecoder(parse_int=float).decode

    def read_json(self, topic: str, stream: str | None, feature: str | None, text: str) -> Decoded:
        """Read the text of one message."""
        try:
            document = self._loads(text.removeprefix("\ufeff"))
        except RecursionError:
            raise PayloadError(topic, "too_deep", f"nested deeper than {MAX_DEPTH}") from None
        except ValueError as error:
            document = self._repaired(topic, text, error)
        return self.read(topic, stream, feature, document)

    def _repaired(self, topic: str, text: str, error: ValueError) -> object:
        """Read text again in which bare ``nan`` and ``inf`` are written as JSON's readers know them."""
        repaired = _NO_NUMBER.sub(_as_json, text.removeprefix("\ufeff"))
        try:
            if repaired != text:
                return self._loads(repaired)
        except RecursionError:
            raise PayloadError(topic, "too_deep", f"nested deeper than {MAX_DEPTH}") from None
        except ValueError as still:
            error = still
        raise PayloadError(topic, "bad_json", str(error)) from None

    def read_binary(self, topic: str, stream: str | None, feature: str | None, payload: bytes) -> Decoded:
        """Read one message of CBOR or MessagePack."""
        assert self._loads_binary is not None
        try:
            document = self._loads_binary(payload)
        except RecursionError:
            raise PayloadError(topic, "too_deep", f"nested deeper than {MAX_DEPTH}") from None
        except ValueError as error:
            raise PayloadError(topic, "bad_binary", str(error)) from None
        return self.read(topic, stream, feature, document)

    def read(self, topic: str, stream: str | None, feature: str | None, document: object) -> Decoded:
        """Read one message: dicts with text as keys, lists, floats, text, truth values and None."""
        stream = stream or self._stream
        if self._is_one and type(document) is dict:  # nearly every message
            return decoded((self._object(topic, stream, feature, document),), {}, self._max_features)
        collected = Collected()
        if self._is_senml or (self._finds_senml and type(document) is list and self._is_found(document)):
            self._senml.read(topic, stream, feature, document, collected)
        elif self._items is not None:
            self._read_items(self._items, topic, stream, feature, document, collected)
        elif type(document) is list and (feature is None or any(type(item) is dict for item in document)):
            for item in document:
                try:
                    collected.add(self._object(topic, stream, feature, item))
                except PayloadError as error:
                    collected.reject(error)
            from gon_edge.stream.shapes import device_of  # with the first list

            # What items of one time repeat has been named.  Those of several times may be history, or several devices.
            if collected.readings > 1 and (device := device_of(document)) is not None:
                collected.tell(device, "mixed", document[0][device])
        else:
            collected.add(self._object(topic, stream, feature, document))
        return collected.finish(topic, self._max_features, "an array without items")

    @cached_property
    def _senml(self) -> Senml:
        from gon_edge.stream.senml import Senml  # with the first document that may be one

        return Senml(self._subscription.stream, self._scalars)

    @staticmethod
    def _is_found(document: object) -> bool:
        from gon_edge.stream.senml import is_senml

        return is_senml(document)

    def _read_items(
        self, items: Items, topic: str, stream: str | None, feature: str | None, document: object, collected: Collected
    ) -> None:
        found = False
        told: set[str] = set()
        unread = items.beside(document, self._timestamp)
        try:
            for named, item in items.found(document):
                found = True
                try:
                    timestamp = self._moment(topic, item, document)
                    name = items.stream(topic, named or stream, item, document)
                    record = items.record(topic, item, document)
                    features = self._features(topic, name, feature, timestamp, record)
                    unread += [(key, raw) for key, raw in items.left(item) if key not in told]
                    told.update(key for key, _ in unread)
                    features.dropped += [Dropped(key, "unread", shown(raw)) for key, raw in unread]
                    unread = []
                    collected.add(features)
                except PayloadError as error:
                    collected.reject(error)
        except RecursionError:
            collected.reject(PayloadError(topic, "too_deep", f"nested deeper than {MAX_DEPTH}"))
        if not found:
            collected.reject(PayloadError(topic, "empty", f"no item {items.where}"))

    def _object(self, topic: str, stream: str | None, feature: str | None, document: object) -> Features:
        timestamp = None
        if type(document) is dict:
            if self._timestamp is not None:
                timestamp = self._moment(topic, document, None)
        elif feature is None:
            raise PayloadError(topic, "not_an_object", "a JSON object of metrics is expected")
        if stream is None:
            raise PayloadError(topic, "no_stream", "no {stream} in the topic, and no option stream")
        return self._features(topic, stream, feature, timestamp, document)

    def _features(
        self, topic: str, stream: str, feature: str | None, timestamp: float | None, document: object
    ) -> Features:
        features = Features(stream, timestamp, self._scalars)
        try:
            if feature is not None and type(document) is dict and "value" in document:
                features.collect({feature: document.pop("value")})
            features.collect(document if feature is None else {feature: document})  # type: ignore[arg-type]
        except RecursionError:
            raise PayloadError(topic, "too_deep", f"nested deeper than {MAX_DEPTH}") from None
        if not features.values and not features.masked:
            raise PayloadError(topic, "empty", "no feature with a usable name")
        return features

    def _moment(self, topic: str, item: object, whole: object) -> float | None:
        """Take the timestamp out of an item, or read that of the whole message."""
        if self._timestamp is None:
            return None
        raw = self._timestamp.take(item)
        if type(raw) is float:
            return self._seconds(topic, raw)
        if raw is ABSENT and whole is not None:
            raw = self._timestamp.get(whole)
        if raw is ABSENT or raw is None or (type(raw) is str and not raw.strip()):
            return None
        return self._seconds(topic, raw)

    def _seconds(self, topic: str, raw: object) -> float:
        try:
            return unix_seconds(raw, self._zone)
        except (ValueError, OverflowError) as error:
            raise PayloadError(topic, "bad_timestamp", f"{self._timestamp}: {error}") from None


def _as_json(match: re.Match[str]) -> str:
    if match[1] is not None:
        return match[1]
    return "NaN" if match[3][0] in "nN" else "-Infinity" if match[2] == "-" else "Infinity"
