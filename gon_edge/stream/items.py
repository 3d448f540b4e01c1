"""Documents whose items say themselves what they are: the stream, the name of a feature, its value, under keys.

The options of a subscription name these keys.  Two messages of the same meaning, and the options that read them::

    {"values": [{"id": "temp", "v": 21}, {"id": "flow", "v": 3}]}      items: values, name_key: id, value_key: v
    {"pump": [{"ts": 1, "values": {"temp": 21, "flow": 3}}]}           items: "{stream}", value_key: values

A stream or name is looked for in the item first, then in the whole message.  What is read as one is no feature.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from gon_edge.config.subscription import StreamKey, SubscriptionConfig
from gon_edge.errors import PayloadError
from gon_edge.stream.features import MAX_DEPTH
from gon_edge.stream.paths import ABSENT, Path
from gon_edge.stream.topics import is_stream, joined

_STREAM = "{stream}"
_Found = Iterator[tuple[str | None, object]]


class Items:
    """The items of one subscription's documents.

    Parameters
    ----------
    subscription : SubscriptionConfig
    """

    def __init__(self, subscription: SubscriptionConfig) -> None:
        self._place = subscription.items.split(".") if subscription.items is not None else []
        stream = subscription.stream
        self._stream_paths = [Path(text) for text in stream.key] if isinstance(stream, StreamKey) else []
        self._name_paths = [Path(text) for text in subscription.name_key]
        self._value_path = Path(subscription.value_key) if subscription.value_key is not None else None

    @property
    def where(self) -> str:
        """Where items are looked for, for a person."""
        return f"at {'.'.join(self._place)!r}" if self._place else "in the list"

    def found(self, document: object) -> _Found:
        """Each item, with the stream where ``{stream}`` stands for it.

        Raises
        ------
        RecursionError
            Lists within lists beyond measure.
        """
        return self._found(document, 0, None, 0)

    def _found(
        self, document: object, level: int, stream: str | None, depth: int
    ) -> Iterator[tuple[str | None, object]]:
        if depth > MAX_DEPTH:
            raise RecursionError
        if type(document) is list:
            for item in document:
                yield from self._found(item, level, stream, depth + 1)
        elif level == len(self._place):
            yield stream, document
        elif type(document) is dict:
            key = self._place[level]
            if key == _STREAM:
                for name, below in document.items():
                    yield from self._found(below, level + 1, name, depth + 1)
            elif key in document:
                yield from self._found(document[key], level + 1, stream, depth + 1)

    def stream(self, topic: str, stream: str | None, item: object, whole: object) -> str:
        """The stream an item belongs to: that of its keys, else ``stream``, which the topic or the place names."""
        if self._stream_paths:
            stream = _text(self._stream_paths, "-", item, whole)
            if stream is None:
                raise PayloadError(topic, "no_stream", f"no key {_or(self._stream_paths)}")
        if stream is None:
            raise PayloadError(topic, "no_stream", "no {stream} in topic or items, and no option stream")
        name = joined(stream.split("/")) if "/" in stream else stream
        if not is_stream(name):
            raise PayloadError(topic, "bad_stream", f"{name!r:.60} is empty, unprintable, too long, or has + or #")
        return name

    def record(self, topic: str, item: object, whole: object) -> dict[str, Any]:
        """The features of an item, which has its timestamp and stream no more, as an object without keys has them."""
        if type(item) is not dict:
            if self._place[-1:] == [_STREAM]:
                return {"value": item}
            raise PayloadError(topic, "not_an_object", f"an item {self.where} is {item!r:.40}")
        name = None
        if self._name_paths:
            name = _text(self._name_paths, ".", item, whole)
            if not name:
                raise PayloadError(topic, "bad_feature", f"no key {_or(self._name_paths)}")
        value: object = item
        if self._value_path is not None:
            value = self._value_path.get(item)
            if value is ABSENT:
                raise PayloadError(topic, "empty", f"no key {self._value_path.text!r}")
        if name is not None:
            return {name: value}
        return value if type(value) is dict else {self._value_path.text: value}  # type: ignore[union-attr]

    def left(self, item: object) -> list[tuple[str, object]]:
        """What nobody reads of an item that has given its record: what stands beside its value."""
        if self._value_path is None or type(item) is not dict:
            return []
        key = self._value_path.text if self._value_path.text in item else self._value_path.text.split(".")[0]
        return [(name, raw) for name, raw in item.items() if name != key and raw != {}]

    def beside(self, whole: object, timestamp: Path | None) -> list[tuple[str, object]]:
        """What nobody reads of a whole message: what stands beside its items, names and time."""
        if not self._place or self._place[0] == _STREAM or type(whole) is not dict:
            return []
        paths = [*self._stream_paths, *self._name_paths, *([timestamp] if timestamp is not None else [])]
        read = {self._place[0], *(path.text for path in paths), *(path.text.split(".")[0] for path in paths)}
        return [(key, raw) for key, raw in whole.items() if key not in read]


def _or(paths: Iterable[Path]) -> str:
    return " or ".join(repr(path.text) for path in paths)


def _text(paths: Iterable[Path], separator: str, item: object, whole: object) -> str | None:
    """The texts at some paths, joined; those that are absent are left out; ``None`` where all are."""
    parts: list[str] = []
    for path in paths:
        raw = path.take(item)
        if raw is ABSENT:
            raw = path.get(whole)
        if type(raw) is dict:  # such as the tags of Telegraf
            parts += [_word(value) for _, value in sorted(raw.items())]
        elif raw is not ABSENT and raw is not None:
            parts.append(_word(raw))
    return separator.join(parts) if parts else None


def _word(raw: object) -> str:
    """A scalar as it was written: numbers of a document are floats, and a name may be one."""
    return f"{raw:.0f}" if isinstance(raw, float) and raw.is_integer() else str(raw).strip()
