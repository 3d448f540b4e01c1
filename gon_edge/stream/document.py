"""Documents to readings: objects of numbers, nested or not, and lists of them, as JSON has them.

What reads another notation of such documents gives them to `Documents.read`.
"""

from __future__ import annotations

import json

from gon_edge.config.subscription import SubscriptionConfig
from gon_edge.errors import PayloadError
from gon_edge.stream.binary import reader
from gon_edge.stream.features import MAX_DEPTH, Decoded, Features, decoded
from gon_edge.stream.scalars import unix_seconds

_ABSENT = object()


class Documents:
    """The documents of one subscription.

    Parameters
    ----------
    subscription : SubscriptionConfig
    max_features : int
    """

    def __init__(self, subscription: SubscriptionConfig, max_features: int) -> None:
        self._timestamp = subscription.timestamp
        self._path = subscription.timestamp.split(".") if subscription.timestamp is not None else []
        self._max_features = max_features
        self._loads_binary = reader(subscription.format) if subscription.format in ("cbor", "msgpack") else None
        # parse_int=float: one type of number to look at, and no limit on the digits of an integer.
        self._loads = json.JSONDecoder(parse_int=float).decode

    def read_json(self, topic: str, stream: str | None, feature: str | None, text: str) -> Decoded:
        """Read the text of one message."""
        try:
            document = self._loads(text.removeprefix("\ufeff"))
        except RecursionError:
            raise PayloadError(topic, "too_deep", f"nested deeper than {MAX_DEPTH}") from None
        except ValueError as error:
            raise PayloadError(topic, "bad_json", str(error)) from None
        return self.read(topic, stream, feature, document)

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
        assert stream is not None  # the configuration refuses a subscription without one
        if type(document) is not list or (feature is not None and not any(type(item) is dict for item in document)):
            return decoded([self._object(topic, stream, feature, document)], {}, self._max_features)
        collected: list[Features] = []
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
        return decoded(collected, rejected, self._max_features)

    def _object(self, topic: str, stream: str, feature: str | None, document: object) -> Features:
        timestamp = None
        if type(document) is dict:
            if self._timestamp is not None:
                timestamp = self._take_timestamp(topic, document)
        elif feature is None:
            raise PayloadError(topic, "not_an_object", "a JSON object of metrics is expected")
        features = Features(stream, timestamp)
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
