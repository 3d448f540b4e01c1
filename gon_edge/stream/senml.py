"""SenML, Sensor Measurement Lists (RFC 8428): records with names, times and values that add to a base.

A record's base fields count for it and those that follow.  A time below 2**28 is relative to now, which is the time of
receipt.  Units (``u``, ``bu``) are not looked at: a sensor keeps its own.
"""

from __future__ import annotations

from dataclasses import dataclass

from gon_edge.config.subscription import StreamKey
from gon_edge.errors import PayloadError
from gon_edge.stream.features import MAX_DEPTH, Collected, Features
from gon_edge.stream.scalars import Scalars
from gon_edge.stream.times import in_range
from gon_edge.stream.topics import is_stream, joined

_ABSOLUTE = float(1 << 28)  # RFC 8428, section 4.5.3
_VERSION = 10.0  # section 4.4: the version of the RFC
_VALUES = ("v", "vs", "vb", "vd")
_LABELS = frozenset(("bn", "bt", "bu", "bv", "bs", "bver", "n", "u", "s", "t", "ut", *_VALUES))


@dataclass(slots=True)
class _Base:
    """What the records so far have said for those that follow."""

    name: str = ""
    time: float = 0.0
    value: float = 0.0
    sum: float = 0.0
    version: float = _VERSION


class Senml:
    """The SenML of one subscription.

    Parameters
    ----------
    stream : str, StreamKey or None
        Where the topic names none; the key ``bn`` stands for the base name.
    scalars : Scalars
    """

    def __init__(self, stream: str | StreamKey | None, scalars: Scalars) -> None:
        self._by_base = isinstance(stream, StreamKey)
        self._scalars = scalars

    def read(self, topic: str, stream: str | None, feature: str | None, document: object, collected: Collected) -> None:
        """Collect the records of one document."""
        base = _Base()
        for record in document if type(document) is list else [document]:
            try:
                if type(record) is not dict:
                    raise PayloadError(topic, "not_an_object", f"a record of SenML is {record!r:.40}")
                _rebase(topic, base, record)
                if "n" in record or not record.keys().isdisjoint((*_VALUES, "s")):
                    collected.add(self._record(topic, stream, feature, record, base))
            except PayloadError as error:
                collected.reject(error)
            except RecursionError:
                collected.reject(PayloadError(topic, "too_deep", f"nested deeper than {MAX_DEPTH}"))

    def _record(
        self, topic: str, stream: str | None, feature: str | None, record: dict[str, object], base: _Base
    ) -> Features:
        if base.version > _VERSION or any(key[-1:] == "_" and key not in _LABELS for key in record):
            raise PayloadError(topic, "not_an_object", "a record of SenML that asks for more than RFC 8428")
        own = str(record.get("n", ""))
        name = own if self._by_base else base.name + own
        if self._by_base:
            stream = base.name.strip(":/-_.")
            stream = joined(stream.split("/")) if "/" in stream else stream
        if stream is None or not is_stream(stream):
            raise PayloadError(topic, "no_stream" if not stream else "bad_stream", f"base name {base.name!r:.60}")
        name = name.strip("/:") or "value"
        name = name if feature is None else f"{feature}.{name}"
        at = base.time + _number(topic, record, "t")
        timestamp = None
        if not -_ABSOLUTE <= at < _ABSOLUTE:
            try:
                timestamp = in_range(at, record.get("t", at))
            except ValueError as error:
                raise PayloadError(topic, "bad_timestamp", str(error)) from None
        features = Features(stream, timestamp, self._scalars, offset_s=at if timestamp is None else 0.0)
        features.collect(_values(topic, name, record, base))
        if not features.values and not features.masked:
            raise PayloadError(topic, "empty", "a record of SenML without a value or with an unusable name")
        return features


def _rebase(topic: str, base: _Base, record: dict[str, object]) -> None:
    if "bn" in record:
        base.name = str(record["bn"])
    base.time = _number(topic, record, "bt", base.time)
    base.value = _number(topic, record, "bv", base.value)
    base.sum = _number(topic, record, "bs", base.sum)
    base.version = _number(topic, record, "bver", base.version)


def _number(topic: str, record: dict[str, object], key: str, absent: float = 0.0) -> float:
    raw = record.get(key, absent)
    if type(raw) is not float or raw != raw:
        raise PayloadError(topic, "bad_number", f"{key} of SenML is {raw!r:.40}")
    return raw


def _values(topic: str, name: str, record: dict[str, object], base: _Base) -> dict[str, object]:
    found: dict[str, object] = {}
    raw = next((record[key] for key in _VALUES if key in record), None)
    if type(raw) is float:
        found[name] = raw + base.value
    elif raw is not None or "s" not in record:
        found[name] = raw
    if "s" in record:
        found[f"{name}.sum"] = _number(topic, record, "s") + base.sum
    return found


def is_senml(document: object) -> bool:
    """Whether a document can only be SenML: a list of records with its labels and no others, with names and values."""
    if type(document) is not list or not document:
        return False
    keys: set[str] = set()
    for record in document:
        if type(record) is not dict or not _LABELS.issuperset(record):
            return False
        keys.update(record)
    return not keys.isdisjoint(("n", "bn")) and not keys.isdisjoint((*_VALUES, "s"))
