"""Which keys of documents name their streams, features and values: a guess, for suggestions and warnings only.

A shape is known by what all its items share: `items` reads documents by the options that come of it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from gon_edge.stream.senml import is_senml

Keys = Mapping[str, Any]

_NAMES = ("name", "n", "tagname", "tag", "metric", "sensor", "key", "id", "channel", "label")
"""Keys under which records write the name of their value, the most usual first."""

_VALUES = ("value", "v", "val")
_DEVICES = ("id", "device", "device_id", "deviceId", "dev", "mac", "node", "station", "sensor", "address", "name")
"""Keys under which objects write the device they are of, the surest first."""


def keys_of(document: object) -> Keys:
    """Options of a subscription that read a document; empty where it needs none, or where nothing is known of it.

    Examples
    --------
    >>> keys_of({"values": [{"id": "temp", "v": 21.5}, {"id": "flow", "v": 3}]})
    {'items': 'values', 'name_key': 'id', 'value_key': 'v'}
    >>> keys_of([{"id": "north", "wind": 3.5}, {"id": "south", "wind": 7.5}])
    {'stream': {'key': 'id'}}
    """
    if is_senml(document):
        return {}
    if isinstance(document, list):
        return _of_items(document)
    if not isinstance(document, dict):
        return {}
    if by_device := _by_device(document):
        return by_device
    lists = [key for key, value in document.items() if isinstance(value, list) and _objects(value)]
    if len(lists) == 1 and (found := _of_items(document[lists[0]])):
        return {"items": lists[0], **found}
    if metric := _of_telegraf([document]):
        return metric
    if isinstance(document.get("model"), str) and _is_name(document.get("id")):  # as rtl_433 writes
        return {"stream": {"key": ["model", "id"]}}
    return {}


def _of_items(items: Sequence[Any]) -> Keys:
    """What reads the items of one list."""
    if not _objects(items):
        return {}
    if metrics := _of_telegraf(items):
        return metrics
    value = next((key for key in _VALUES if all(_is_scalar(item.get(key)) for item in items)), None)
    if value is not None:
        name = next((key for key in _NAMES if _tells_apart(items, key)), None)
        return {} if name is None else {"name_key": name, "value_key": value}
    if len(items) > 1 and (device := next((key for key in _DEVICES if _tells_apart(items, key)), None)) is not None:
        return {"stream": {"key": device}}
    return {}


def device_of(items: Sequence[Any]) -> str | None:
    """The key whose text tells the devices of a list apart: each item has another one, and all have the same keys."""
    if len(items) < 2 or not _objects(items) or any(item.keys() != items[0].keys() for item in items):
        return None
    return next((key for key in _DEVICES if _tells_apart(items, key) and isinstance(items[0][key], str)), None)


def _of_telegraf(items: Sequence[Mapping[str, Any]]) -> Keys:
    """Metrics of Telegraf: a name, tags and fields."""
    whole = {"name": str, "tags": dict, "fields": dict}
    if not all(isinstance(item.get(key), kind) for item in items for key, kind in whole.items()):
        return {}
    keys: dict[str, Any] = {"name_key": ["name", "tags"], "value_key": "fields"}
    return {**keys, "stream": {"key": "tags.host"}} if all("host" in item["tags"] for item in items) else keys


def _by_device(document: Mapping[str, Any]) -> Keys:
    """Lists of times and values below each device, as gateways of ThingsBoard write."""
    items = [item for value in document.values() if isinstance(value, list) for item in value]
    if not items or not all(isinstance(value, list) and _objects(value) for value in document.values()):
        return {}
    return {"items": "{stream}", "value_key": "values"} if all(_has_values(item) for item in items) else {}


def _has_values(item: Mapping[str, Any]) -> bool:
    return isinstance(item.get("values"), dict) and item.keys() <= {"ts", "values"}


def _objects(items: Sequence[Any]) -> bool:
    return len(items) > 0 and all(isinstance(item, dict) for item in items)


def _tells_apart(items: Sequence[Mapping[str, Any]], key: str) -> bool:
    names = [item.get(key) for item in items]
    return all(_is_name(name) for name in names) and len(set(names)) == len(names)


def _is_name(raw: object) -> bool:
    return (isinstance(raw, str) and raw != "") or (isinstance(raw, int) and not isinstance(raw, bool))


def _is_scalar(raw: object) -> bool:
    return isinstance(raw, (int, float, str))
