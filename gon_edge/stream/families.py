"""Topic families: topics that belong together, and the subscription that would read their messages.

For people who ask what their broker has for them.  A suggestion is a guess from topics and newest payloads; what it
makes of a message, `gon-edge try` shows.  It decides nothing in the daemon.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

from gon_edge.config.subscription import SubscriptionConfig
from gon_edge.stream.births import parse_topic
from gon_edge.stream.encoding import binary_format, inflated, text_of
from gon_edge.stream.items import Items
from gon_edge.stream.lineprotocol import parse_line
from gon_edge.stream.scalars import number_of
from gon_edge.stream.shapes import keys_of
from gon_edge.stream.times import unix_seconds

Kind = Literal["object", "value", "lines", "collectd", "cbor", "msgpack", "sparkplug", "text", "binary", "empty"]

TIME_KEYS = ("time", "timestamp", "ts", "Time", "Timestamp", "datetime", "DateTime", "date", "_time", "t")
"""Keys under which devices write when they measured, the most usual first."""

_YEARS_S = (978_307_200.0, 4_102_444_800.0)  # 2001 to 2100: another number under such a key is no time
_MOST_BYTES = 64 << 10  # of a payload that is looked into; not critical


class Family(NamedTuple):
    """What topics must share to be read by one subscription: the first level, the kind of payload, and for objects how
    many levels there are.
    """

    first: str
    kind: Kind
    levels: int


def family(topic: str, payload: bytes) -> Family:
    """The family of a message."""
    kind = "sparkplug" if parse_topic(topic) is not None else payload_kind(payload)
    levels = topic.split("/")
    return Family(levels[0], kind, len(levels) if kind in ("object", "cbor", "msgpack") else 0)


def payload_kind(payload: bytes) -> Kind:
    """What a payload looks like.

    Examples
    --------
    >>> [payload_kind(p) for p in (b'{"a": 1}', b"21.5", b"ON", b"cpu,host=pi usage=1 1583748873000000000", b"hello")]
    ['object', 'value', 'value', 'lines', 'text']
    """
    try:
        content = inflated(payload, _MOST_BYTES)[:_MOST_BYTES]
        text = text_of(content).strip("\0 \r\n\t")
    except OverflowError:
        return "binary"
    except ValueError:
        return binary_format(content) or "binary"
    if not text:
        return "empty"
    if text[0] in "{[":
        return "object"
    if number_of(text) != "text":
        return "value"
    clock, _, rest = text.partition(":")
    if rest and all(number_of(part) != "text" for part in (clock, *rest.split(":"))):
        return "collectd"
    try:
        parse_line(text.split("\n", 1)[0])
    except ValueError:
        return "text"
    return "lines"


def suggestion(kind: Kind, newest: Mapping[str, bytes]) -> dict[str, Any] | None:
    """The entry of `subscriptions` that would read these topics.

    Parameters
    ----------
    kind : str
        Of their payloads.
    newest : mapping of str to bytes
        The newest payload of each topic, at least one.

    Returns
    -------
    dict or None
        Keys as in the configuration; ``None`` where the payloads hold nothing to measure.

    Examples
    --------
    >>> suggestion("object", {"zigbee2mqtt/kitchen": b'{"temperature": 21}', "zigbee2mqtt/hall": b"{}"})
    {'topic': 'zigbee2mqtt/{stream}'}
    >>> suggestion("value", {"home/kitchen/temp": b"21", "home/hall/temp": b"20"})
    {'topic': 'home/{stream}/{feature}'}
    """
    topics = [topic.split("/") for topic in newest]
    if kind == "object":
        return _of_objects(topics, newest)
    if kind == "value":
        return _placed(topics, named=False)
    if kind in ("cbor", "msgpack"):
        return {**_placed(topics, named=True), "format": kind}
    if kind == "sparkplug":
        groups = {topic[1] for topic in topics}
        return {"topic": f"spBv1.0/{groups.pop() if len(groups) == 1 else '+'}/+/{{stream}}/#", "format": kind}
    if kind == "collectd":
        return {**_placed(topics, named=False), "format": "collectd"}
    if kind == "lines":
        named = all(b"host=" in payload for payload in newest.values())
        first = topics[0][0]
        return {"topic": f"{first}/#" if any(len(topic) > 1 for topic in topics) else first, "format": "influx"} | (
            {} if named else {"stream": _plain(first)}
        )
    return None


def _of_objects(topics: Sequence[Sequence[str]], newest: Mapping[str, bytes]) -> dict[str, Any]:
    documents = [_document(payload) for payload in newest.values()]
    keys = keys_of(documents[0])
    if any(keys_of(document) != keys for document in documents[1:]):
        keys = {}
    entry: dict[str, Any] = {**_placed(topics, named=True)}
    if "stream" in keys or "{stream}" in keys.get("items", ""):  # the payload names it
        entry = {"topic": entry["topic"].replace("{stream}", "+").replace("{feature...}", "#")}
    where = Items(SubscriptionConfig(entry["topic"], items=keys.get("items")))
    try:
        items = [item for document in documents for _, item in where.found(document) if isinstance(item, dict)]
    except RecursionError:  # lists within lists beyond measure
        items = []
    key = _time_key(items)
    return {**entry, **keys, **({} if key is None else {"timestamp": key})}


def _placed(topics: Sequence[Sequence[str]], *, named: bool) -> dict[str, str]:
    """Where the stream stands in topics, and the feature where payloads do not name it (``named`` is False)."""
    shortest = min(len(topic) for topic in topics)
    one = topics[0]
    if shortest == 1 or (shortest == 2 and not named):  # too few levels for both
        if shortest == 1:
            return {"topic": one[0] if len(topics) == 1 else "+", "stream": _plain(one[0])}
        return {
            "topic": f"{one[0]}/{'{feature}' if _same_length(topics) else '{feature...}'}",
            "stream": _plain(one[0]),
        }
    last = shortest - 1 if named else shortest - 2  # the last level that may be the stream
    varying = [i for i in range(1, last + 1) if len({topic[i] for topic in topics}) > 1]
    at = varying[0] if varying else 1
    head = [*one[:at], "{stream}"]
    if not _same_length(topics):
        return {"topic": "/".join([*head, "{feature...}"])}
    rest = range(at + 1, len(one))
    if not named:
        return {"topic": "/".join([*head, "{feature}" if len(rest) == 1 else "{feature...}"])}
    same = all(len({topic[i] for topic in topics}) == 1 for i in rest)
    return {"topic": "/".join([*head, *(one[i] for i in rest)] if same else [*head, "{feature...}"])}


def _same_length(topics: Iterable[Sequence[str]]) -> bool:
    return len({len(topic) for topic in topics}) == 1


def _plain(level: str) -> str:
    return level.strip() or "default"


def _document(payload: bytes) -> object:
    """The document of a payload, None where it cannot be read."""
    try:
        return json.loads(payload[:_MOST_BYTES])
    except (ValueError, RecursionError):
        return None


def _time_key(documents: Sequence[Mapping[str, Any]]) -> str | None:
    """The key under which objects write their time, if it does in most of them."""
    for key in TIME_KEYS:
        if 2 * sum(_is_time(document.get(key)) for document in documents) > len(documents):
            return key
    return None


def _is_time(raw: object) -> bool:
    try:
        return _YEARS_S[0] <= unix_seconds(raw) < _YEARS_S[1]
    except (ValueError, OverflowError):
        return False
