"""A stream at one moment as text, and back: another worker goes on with it as if nothing had happened.

What a restart of a daemon remembers is less: windows begin anew.  Here it is everything that the next verdicts depend
on, down to the grid, the window and the running averages, so that they are the same to the last bit.  A `Stream` is
data through and through, so its attributes are written as they are, and read into a stream that was just made: what
belongs to the worker (settings, model, callables) stays that of the new one.

Only data is read: classes are those of the two pure rooms, and nothing of them is called.  Text of another version has
other attributes, and is refused; then `Stream.resume` does what a restart does.  Not kept are what only people look at
(`history`, `readings`, `ledger`).  The ranges of the days before (`DayMemory`), which would be most of it, are apart.
"""

from __future__ import annotations

import base64
import json
import math
import sys
import zlib
from array import array
from collections import deque
from collections.abc import Callable
from typing import Any

import numpy as np

from gon_edge import __version__
from gon_edge.stream.stream import Stream

_ROOMS = ("gon_edge.stream.", "gon_edge.model.", "gon_edge.events", "gon_edge.config.schema")
_WORKERS = frozenset(
    {"DayMemory", "Discriminator", "Ledger", "Model", "Past", "ReadingHistory", "Scaler", "ScoreHistory", "Selection"}
    | {"AlertsConfig", "StreamConfig"}
)
"""Classes whose objects are the worker's own: taken from the stream that was just made."""

_MARK = "~"  # key of what JSON has no form for
_OWN = {_MARK: "own"}


class FrozenError(ValueError):
    """The text is not of such a stream, or a stream cannot be written."""


def freeze(stream: Stream) -> str:
    """Everything the next verdicts of a stream depend on, as text.

    Raises
    ------
    FrozenError
        It holds what only this process has.
    """
    writer = _Writer()
    began = None
    if stream.starter is not None:  # whoever goes on with it has the starter, which began with a row of this stream
        if stream.began_at is None:
            raise FrozenError("nobody knows how its starter began")
        version, features, values = stream.began_at
        began = [version, list(features), [float(value) for value in values]]
    return _packed([began, writer.written(stream)], writer)


def thaw(text: str, stream: Stream) -> None:
    """Let a stream that was just made go on as the one that was frozen; its model must be the same.

    Raises
    ------
    FrozenError
        It was another version that froze it, or another model; the stream must not be used.
    """

    def into(written: Any, reader: _Reader) -> None:
        began, inner = written
        if began is not None:
            version, features, values = began
            try:
                stream.begin(version, tuple(features), np.array(values, np.float32))
            except StopIteration:
                raise FrozenError(f"the starter {version} is not one of its own") from None
        reader.into(stream, inner)

    _unpack(text, into)


def freeze_days(stream: Stream) -> str:
    """What the hours of the last week were like (`DayMemory`), as text: 40 kB for eight readings, slow to change."""
    writer = _Writer()
    while stream.past.recall():  # what its store has of them
        pass
    return _packed(writer.of_object(stream.days), writer)


def thaw_days(text: str, stream: Stream) -> None:
    """Let a stream know the last week; raises as `thaw`, and then the stream knows nothing of it."""
    _unpack(text, lambda written, reader: reader.into(stream.days, written))


def _packed(written: Any, writer: _Writer) -> str:
    head = json.dumps([__version__, written], separators=(",", ":")).encode()
    return base64.b64encode(zlib.compress(b"%d\n%b%b" % (len(head), head, bytes(writer.arrays)), 1)).decode()


def _unpack(text: str, into: Callable[[Any, _Reader], None]) -> None:
    try:
        size, _, content = zlib.decompress(base64.b64decode(text)).partition(b"\n")
        version, written = json.loads(content[: int(size)])
        if version != __version__:
            raise FrozenError(f"gon-edge {version} has written it")
        into(written, _Reader(content[int(size) :]))
    except FrozenError:
        raise
    except (ValueError, TypeError, KeyError, AttributeError, zlib.error) as error:
        raise FrozenError(f"it cannot be understood: {error}") from error


def _attributes(value: Any) -> list[str]:
    """Names of the attributes of an object, with slots or without."""
    slots = [name for cls in type(value).__mro__ for name in getattr(cls, "__slots__", ())]
    return sorted({*getattr(value, "__dict__", ()), *(name for name in slots if hasattr(value, name))})


def _is_data(cls: type) -> bool:
    return cls.__module__.startswith(_ROOMS) and cls.__name__ not in _WORKERS


class _Writer:
    """Objects as JSON, arrays as bytes beside it; the same object a second time is a reference to the first."""

    def __init__(self) -> None:
        self.arrays = bytearray()
        self._numbers: dict[int, int] = {}
        self._alive: list[Any] = []  # an id is only an object's own while that lives

    def written(self, value: Any) -> Any:
        if value is None or type(value) in (bool, int, float, str):
            return value
        if isinstance(value, np.ndarray):
            at = len(self.arrays)
            self.arrays += np.ascontiguousarray(value).tobytes()
            return {_MARK: "array", "of": value.dtype.str, "shape": value.shape, "at": at}
        if isinstance(value, np.generic):
            return {_MARK: "scalar", "of": value.dtype.str, "value": value.item()}
        if isinstance(value, array):
            return {_MARK: "numbers", "of": value.typecode, "values": self.written(np.asarray(memoryview(value)))}
        if isinstance(value, bytearray):
            return {_MARK: "bytes", "values": self.written(np.asarray(memoryview(value)))}
        if isinstance(value, slice):
            return {_MARK: "slice", "items": [value.start, value.stop, value.step]}
        if type(value) in (list, tuple, set, frozenset, deque, dict):
            return self._container(value)
        return self.of_object(value) if _is_data(type(value)) else _OWN

    def _container(self, value: Any) -> Any:
        """Items one by one; where one of them is the worker's own, all are, such as models that starters are."""
        if type(value) is dict:
            items = [self.written(item) for pair in value.items() for item in pair]
            found: Any = {_MARK: "dict", "items": items}
        else:
            items = [self.written(item) for item in value]
            found = {_MARK: type(value).__name__, "items": items}
        if type(value) is deque:
            found["most"] = value.maxlen
        return _OWN if _OWN in items else found

    def of_object(self, value: Any) -> Any:
        cls = f"{type(value).__module__}:{type(value).__name__}"
        if isinstance(value, tuple):
            return {_MARK: "named", "of": cls, "items": [self.written(item) for item in value]}
        if id(value) in self._numbers:
            return {_MARK: "same", "as": self._numbers[id(value)]}
        self._numbers[id(value)] = len(self._numbers)
        self._alive.append(value)
        inner = {name: self.written(getattr(value, name)) for name in _attributes(value)}
        return {_MARK: "object", "of": cls, "has": inner}


class _Reader:
    """The way back, into objects that are there already where there are some."""

    def __init__(self, arrays: bytes) -> None:
        self._arrays = arrays
        self._objects: list[Any] = []
        self._names: dict[tuple[Any, ...], tuple[Any, ...]] = {}

    def into(self, value: Any, written: Any) -> None:
        """Give an object the attributes that were written; those that are the worker's own stay."""
        if written.get(_MARK) != "object" or _class(written["of"]) is not type(value):
            raise FrozenError(f"{type(value).__name__} is not {written.get('of')}")
        if lacking := set(_attributes(value)) - written["has"].keys():  # some are only there once they are needed
            raise FrozenError(f"{type(value).__name__} has other attributes: {', '.join(sorted(lacking))}")
        self._objects.append(value)
        for name, inner in written["has"].items():
            if inner == _OWN:
                continue
            before = getattr(value, name, None)
            if _goes_on(before, inner):
                self.into(before, inner)
            else:
                object.__setattr__(value, name, self.read(inner))

    def read(self, written: Any) -> Any:
        if not isinstance(written, dict):
            return written
        match written[_MARK]:
            case "array":
                count = math.prod(written["shape"])
                data = np.frombuffer(self._arrays, np.dtype(written["of"]), count, written["at"])
                return data.reshape(written["shape"]).copy()
            case "scalar":
                return np.dtype(written["of"]).type(written["value"])
            case "numbers":
                return array(written["of"], self.read(written["values"]).tobytes())
            case "bytes":
                return bytearray(self.read(written["values"]).tobytes())
            case "slice":
                return slice(*written["items"])
            case "list":
                return [self.read(item) for item in written["items"]]
            case "tuple":
                items = tuple(self.read(item) for item in written["items"])
                # Names of features are compared by identity first: the same ones are one object again.
                return self._names.setdefault(items, items) if all(type(item) is str for item in items) else items
            case "set":
                return {self.read(item) for item in written["items"]}
            case "frozenset":
                return frozenset(self.read(item) for item in written["items"])
            case "deque":
                return deque((self.read(item) for item in written["items"]), written["most"])
            case "dict":
                pairs = iter([self.read(item) for item in written["items"]])
                return dict(zip(pairs, pairs, strict=True))
            case "named":
                return _class(written["of"])._make(self.read(item) for item in written["items"])
            case "same":
                return self._objects[written["as"]]
            case "object":
                return self._made(written)
        raise FrozenError(f"{written[_MARK]} has no place here")

    def _made(self, written: Any) -> Any:
        cls = _class(written["of"])
        value = cls.__new__(cls)
        self._objects.append(value)
        slots = {name for each in cls.__mro__ for name in getattr(each, "__slots__", ())}
        if slots and slots != set(written["has"]):
            raise FrozenError(f"{cls.__name__} has other attributes")
        for name, inner in written["has"].items():
            object.__setattr__(value, name, self.read(inner))
        return value


def _is_frozen(value: Any) -> bool:
    params = getattr(type(value), "__dataclass_params__", None)
    return params is not None and params.frozen


def _goes_on(before: Any, written: Any) -> bool:
    """Whether what was written is of an object that is there already, and may hold what is the worker's own."""
    is_object = isinstance(written, dict) and written[_MARK] == "object"
    return is_object and _class(written["of"]) is type(before) and not _is_frozen(before)


def _class(name: str) -> Any:
    """A class by its name: one of data, whose module is loaded."""
    module, _, cls = name.partition(":")
    found = getattr(sys.modules.get(module), cls, None)
    if not isinstance(found, type) or not _is_data(found):
        raise FrozenError(f"{name} is no class of data")
    return found
