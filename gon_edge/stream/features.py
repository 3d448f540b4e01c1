"""The features of one reading while they are collected: names from nesting, values, and what became none.

Every format ends here, so that a name, a limit and a masked value mean the same whatever a payload is written in.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import field
from typing import Any

from gon_edge.errors import PayloadError
from gon_edge.events import Dropped, Reading, record
from gon_edge.stream.scalars import LARGEST, PLAIN, Scalars
from gon_edge.stream.topics import MAX_NAME

MAX_DEPTH = 8  # nesting of a document; the deepest device payload met in the field has 4
_UNMASKED = ("name", "repeated", "mixed", "unread")  # reasons of keys that are no masked feature
_SHOWN = 60  # characters of a value or key that a person is shown


@record
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


class Features:
    """The features of one reading while they are collected.

    Parameters
    ----------
    stream : str
    timestamp : float or None
        Unix seconds; ``None`` for the time of receipt.
    scalars : Scalars, optional
        How values are written.
    offset_s : float
        Seconds from the receipt to the measurement where there is no timestamp.
    """

    __slots__ = ("dropped", "masked", "offset_s", "scalars", "stream", "timestamp", "values")

    def __init__(
        self, stream: str, timestamp: float | None, scalars: Scalars = PLAIN, *, offset_s: float = 0.0
    ) -> None:
        self.stream = stream
        self.timestamp = timestamp
        self.scalars = scalars
        self.offset_s = offset_s
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
            elif isinstance(value := self.scalars.number(name, raw), float):
                values[name] = value
            else:
                self.mask(name, value, raw)

    def mask(self, name: str, reason: str, raw: object) -> None:
        """Say that a feature has no value, and what stood there."""
        self.masked[name] = reason
        self.dropped.append(Dropped(name, reason, shown(raw)))

    def take_back(self, names: Iterable[str]) -> None:
        """Mask features of which the device says that they have no value any more."""
        for name in names:
            self.mask(name, "gone", "")

    def merge(self, other: Features) -> None:
        """Add what another item says of the same moment: its values count, and those it replaces are named."""
        values = self.values
        for name in other.values:
            if name in values:
                self.dropped.append(Dropped(name, "repeated", shown(values[name])))
        values.update(other.values)
        self.masked.update(other.masked)
        self.dropped += other.dropped

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
        if self.dropped or masked:
            reasons = [part.reason for part in self.dropped if part.reason in _UNMASKED]
            for reason in [*reasons, *masked.values()]:
                counts[reason] = counts.get(reason, 0) + 1
        return Reading(self.stream, self.timestamp, values, masked, tuple(self.dropped), self.offset_s)


class Collected:
    """The readings of one message while they are collected: items of one stream and one time become one reading."""

    __slots__ = ("_features", "_first", "rejected")

    def __init__(self) -> None:
        self._features: dict[tuple[str, float | None, float], Features] = {}
        self._first: PayloadError | None = None
        self.rejected: dict[str, int] = {}

    def add(self, features: Features) -> None:
        """Take what one item or line holds."""
        moment = features.stream, features.timestamp, features.offset_s
        known = self._features.setdefault(moment, features)
        if known is not features:
            known.merge(features)

    def tell(self, key: str, reason: str, raw: object) -> None:
        """Name a key before anything that the first reading has dropped: the log names each key once."""
        next(iter(self._features.values())).dropped.insert(0, Dropped(key, reason, shown(raw)))

    @property
    def readings(self) -> int:
        """How many there are so far."""
        return len(self._features)

    def reject(self, error: PayloadError) -> None:
        """Count an item or line that holds none."""
        self._first = self._first or error.alone()
        self.rejected[error.reason] = self.rejected.get(error.reason, 0) + 1

    def finish(self, topic: str, max_features: int, nothing: str) -> Decoded:
        """What the message held.

        Parameters
        ----------
        topic : str
        max_features : int
            Of each reading.
        nothing : str
            What to say where there was neither an item nor a bad one.

        Raises
        ------
        PayloadError
            It held no reading; the first bad item's reason is given.
        """
        usable = [features for features in self._features.values() if features.values or features.masked]
        if not usable:
            raise self._first or PayloadError(topic, "empty", nothing)
        return decoded(usable, self.rejected, max_features)


def decoded(collected: Iterable[Features], rejected: dict[str, int], max_features: int) -> Decoded:
    """What a message held, from the features of its readings and its bad lines or items by reason."""
    masked: dict[str, int] = {}
    readings = tuple([features.reading(max_features, masked) for features in collected])
    return Decoded(readings, rejected, masked)


def shown(raw: object) -> str:
    """What a person is shown of a value: at most 60 characters."""
    text = "{…}" if isinstance(raw, dict) else raw if isinstance(raw, str) else "null" if raw is None else repr(raw)
    return text if len(text) <= _SHOWN else text[: _SHOWN - 1] + "…"
