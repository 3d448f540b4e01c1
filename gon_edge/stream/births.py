"""Sparkplug B: births name what a device sends, data may then be bare numbers, and a death takes all of it back.

Source: Eclipse Sparkplug specification 3.0, sections 4 and 6.  Topics are ``spBv1.0/GROUP/TYPE/NODE`` and
``spBv1.0/GROUP/TYPE/NODE/DEVICE``.  A birth (NBIRTH, DBIRTH) lists every metric with its name, its type and mostly
an alias; data (NDATA, DDATA) may use the alias alone; a death (NDEATH, DDEATH) says that no value counts any more.  So
a reader has to remember births, over restarts too, and this is the one format whose decoder has a memory.  It asks
nobody for a birth: gon-edge publishes no commands.

A node may have been born again while nobody listened, with other aliases.  So what an earlier run has left counts until
data contradict it: by an alias it does not have, or by another type.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from gon_edge.errors import PayloadError
from gon_edge.events import Dropped
from gon_edge.stream.features import Decoded, Features, decoded, shown
from gon_edge.stream.scalars import Scalars
from gon_edge.stream.sparkplug import Metric, read_payload
from gon_edge.stream.times import in_range
from gon_edge.stream.topics import is_name

_BIRTHS, _DATA, _DEATHS = ("NBIRTH", "DBIRTH"), ("NDATA", "DDATA"), ("NDEATH", "DDEATH")

_MOST_METRICS = 20_000
"""Metrics whose names are remembered, of all births together.  Not critical: 2 to 4 MiB; the oldest births go first."""

_KEPT_DAYS = 7
"""Days after which what was kept of a birth expires, where nothing of its device has come meanwhile.  Not critical: a
plant that stands still over a holiday; the longer, the likelier is it that its nodes have been set up anew."""

_KEPT_CHARACTERS = 256 << 10
"""Of names that are kept over a restart.  Not critical: some 5,000 metrics; each new birth may write them all."""

_DAY_S = 86400.0
_SESSIONS = 256  # ``bdSeq`` counts from 0 to 255 and begins again

_SIGNED_BITS = {1: 8, 2: 16, 3: 32, 4: 64}  # Int8 to Int64 come in unsigned fields, as two's complement
_DATETIME = 13
_OWN = ("Node Control/", "Device Control/")
"""Metrics of the protocol itself, beside ``bdSeq``: commands that a host may send, which measure nothing."""


class Topic(NamedTuple):
    """What the levels of a topic say; ``device`` is None for the node's own."""

    group: str
    kind: str
    node: str
    device: str | None

    @property
    def source(self) -> str:
        """The node, or the device below it, for a person."""
        return self.node if self.device is None else f"{self.node}/{self.device}"

    def prefix(self, stream: str) -> str:
        """What goes before the names of features: the node and the device, where the stream's name does not say them.

        Examples
        --------
        >>> topic = Topic("plant", "DDATA", "press", "oil")
        >>> topic.prefix("press"), topic.prefix("oil"), topic.prefix("press.oil"), topic.prefix("hall")
        ('oil.', '', '', 'press.oil.')
        """
        levels = [self.node] if self.device is None else [self.node, self.device]
        if stream == self.node:
            return "".join(f"{level}." for level in levels[1:])
        return "" if stream in (levels[-1], ".".join(levels)) else "".join(f"{level}." for level in levels)


@dataclass(slots=True)
class Birth:
    """What a birth has said.

    Attributes
    ----------
    stream : str
        That its values belong to.
    session : int or None
        ``bdSeq`` of a node's birth, which its death repeats.
    datatypes : dict of str to int
        By name of the metric.
    aliases : dict of int to str
        Name of each metric that has an alias.
    features : set of str
        That have had a value since.
    kept : bool
        It is of an earlier run, and no birth has come since.
    day : int or None
        Days since 1970 when the device was heard last, as of the last `Births.state`; ``None`` when it was heard since.
    """

    stream: str
    session: int | None = None
    datatypes: dict[str, int] = field(default_factory=dict)
    aliases: dict[int, str] = field(default_factory=dict)
    features: set[str] = field(default_factory=set)
    kept: bool = False
    day: int | None = None

    def contradicts(self, metrics: list[Metric]) -> bool:
        """Whether data cannot be of a device that was born like this."""
        for metric in metrics:
            name = metric.name or self.aliases.get(metric.alias if metric.alias is not None else -1)
            if name is None and metric.alias is not None:
                return True
            known = self.datatypes.get(name or "", 0)
            if known and metric.datatype and known != metric.datatype:
                return True
        return False

    def says_as_much(self, other: Birth | None) -> bool:
        """Whether names, types and aliases are those of another one."""
        return other is not None and (self.datatypes, self.aliases) == (other.datatypes, other.aliases)


class Births:
    """Reads the messages of one subscription, in the order in which they come.

    Parameters
    ----------
    stream : str or None
        Where the topic names none.
    scalars : Scalars
    max_features : int
        Of a reading, and of what a death takes back.
    max_bytes : int
        Of the content of a compressed payload.

    Attributes
    ----------
    has_news : bool
        Whether a birth has come, since the last `state`, that says something else than the one before.
    """

    def __init__(self, stream: str | None, scalars: Scalars, max_features: int, max_bytes: int) -> None:
        self.has_news = False
        self._stream = stream
        self._scalars = scalars
        self._max_features = max_features
        self._max_bytes = max_bytes
        self._births: dict[tuple[str, str, str | None], Birth] = {}

    def read(self, topic: str, stream: str | None, feature: str | None, payload: bytes) -> Decoded:
        """Read one message."""
        stream = stream or self._stream
        assert stream is not None  # the configuration refuses a subscription without one
        said = parse_topic(topic)
        if said is None:
            raise PayloadError(topic, "no_readings", "births, data and deaths of spBv1.0 carry readings, others do not")
        try:
            at, metrics = read_payload(payload, self._max_bytes)
        except OverflowError as error:
            raise PayloadError(topic, "too_large", str(error)) from None
        except ValueError as error:
            raise PayloadError(topic, "bad_binary", f"no payload of Sparkplug B: {error}") from None
        if said.kind in _DEATHS:
            return self._death(topic, said, at, metrics)
        key = said.group, said.node, said.device
        if said.kind in _BIRTHS:
            before, birth = self._births.pop(key, None), _birth(stream, metrics)
            if said.device is None:  # a node that begins again has no devices until each says so
                self._forget(said)
            self._births[key] = birth
            self.has_news |= not birth.says_as_much(before)
            self._make_room()
        birth = self._births.get(key) or Birth(stream)
        birth.day = None
        if birth.kept:
            birth.stream = stream  # the configuration may have changed
            if birth.contradicts(metrics):  # the node has been born again while nobody listened
                self._forget(said._replace(device=None), only_kept=True)
                birth = Birth(stream)
        return self._values(topic, said, birth, at, metrics)

    def state(self, now: float) -> list[Any]:
        """Return the births, fit for JSON, the newest of them where they are many; ``now`` is Unix seconds."""
        self.has_news = False
        kept: list[Any] = []
        room = _KEPT_CHARACTERS
        for (group, node, device), birth in reversed(self._births.items()):
            room -= sum(map(len, birth.datatypes)) + sum(map(len, birth.features))
            if room < 0:
                break
            if birth.day is None:
                birth.day = int(now // _DAY_S)
            aliases = {name: alias for alias, name in birth.aliases.items()}
            metrics = [[name, datatype, aliases.get(name)] for name, datatype in birth.datatypes.items()]
            said = [birth.stream, birth.session, birth.day, metrics, sorted(birth.features)]
            kept.append([group, node, device, *said])
        return kept[::-1]

    def resume(self, state: list[Any], now: float) -> None:
        """Go on from what `state` returned in an earlier run; ``now`` is Unix seconds.

        Raises
        ------
        TypeError, ValueError
            The state cannot be understood.
        """
        for group, node, device, stream, session, day, metrics, features in state:
            if now // _DAY_S - day > _KEPT_DAYS:
                continue
            birth = Birth(str(stream), None if session is None else int(session), kept=True, day=int(day))
            birth.datatypes = {str(name): int(datatype) for name, datatype, _ in metrics}
            birth.aliases = {int(alias): str(name) for name, _, alias in metrics if alias is not None}
            birth.features = {str(feature) for feature in features}
            self._births[str(group), str(node), None if device is None else str(device)] = birth
        self._make_room()

    def _values(self, topic: str, said: Topic, birth: Birth, at: float | None, metrics: list[Metric]) -> Decoded:
        """The readings of a birth or of data: one for each time that metrics have."""
        moments: dict[float | None, Features] = {}
        unnamed: dict[str, str] = {}
        prefix = said.prefix(birth.stream)
        for metric in metrics:
            name = metric.name or birth.aliases.get(metric.alias if metric.alias is not None else -1)
            if name is None:
                unnamed[f"alias {metric.alias}"] = shown(metric.value)
            elif not _is_own(name):
                when = metric.at if metric.at is not None else at
                features = moments.get(when)
                if features is None:
                    features = moments[when] = Features(birth.stream, when, self._scalars)
                scalars = dict(_scalars(prefix + _dotted(name), metric, birth.datatypes.get(name, 0)))
                if metric.is_good:
                    features.collect(scalars)
                else:
                    features.take_back(filter(is_name, scalars))
        rejected: dict[str, int] = {}
        for when in [when for when in moments if not _is_time(when)]:
            del moments[when]
            rejected["bad_timestamp"] = rejected.get("bad_timestamp", 0) + 1
        # In the order of their times: what comes late would not count.
        collected = [moments[when] for when in sorted(moments, key=lambda when: when or 0.0)]
        collected = [features for features in collected if features.values or features.masked]
        if not collected:
            raise self._nothing(topic, said, unnamed, rejected)
        for features in collected:
            birth.features.update(list(features.values)[: self._max_features - len(birth.features)])
        collected[0].dropped.extend(Dropped(key, "no_birth", value) for key, value in unnamed.items())
        found = decoded(collected, rejected, self._max_features)
        return Decoded(found.readings, rejected, {**found.masked, "no_birth": len(unnamed)}) if unnamed else found

    def _nothing(
        self, topic: str, said: Topic, unnamed: Mapping[str, str], rejected: Mapping[str, int]
    ) -> PayloadError:
        """Why a message holds no reading."""
        if unnamed:
            missing = f"{next(iter(unnamed))} is not in the birth of {said.source}"
            if (said.group, said.node, said.device) not in self._births:
                missing = f"no birth of {said.source} has come, so {next(iter(unnamed))} has no name"
            return PayloadError(topic, "no_birth", f"{missing}; send the node Node Control/Rebirth, or restart it")
        if rejected:
            return PayloadError(topic, "bad_timestamp", "not between the years 1970 and 9999")
        return PayloadError(topic, "empty", "no metric with a usable name")

    def _death(self, topic: str, said: Topic, at: float | None, metrics: list[Metric]) -> Decoded:
        """What a device's end takes back, or a node's, which is that of its devices too: a reading for each stream."""
        node = self._births.get((said.group, said.node, None))
        if said.device is None and node is not None and _is_earlier(_session(metrics), node):
            # The broker may send the will of an earlier connection once the node is back.
            raise PayloadError(topic, "no_readings", f"the death of an earlier session of {said.source}")
        gone: dict[str, Features] = {}
        for birth in self._forget(said):
            # A will was written when the node connected: its time is that of the birth, and receipt is nearer.
            when = None if said.device is None or not _is_time(at) else at
            gone.setdefault(birth.stream, Features(birth.stream, when)).take_back(sorted(birth.features))
        collected = [features for features in gone.values() if features.masked]
        if not collected:
            raise PayloadError(topic, "no_birth", f"no birth of {said.source} has come: its death takes nothing back")
        return decoded(collected, {}, self._max_features)

    def _forget(self, said: Topic, *, only_kept: bool = False) -> list[Birth]:
        """Drop the birth of a device, or of a node with all its devices; or of these what an earlier run has left."""
        keys = [
            key
            for key, birth in self._births.items()
            if key[:2] == (said.group, said.node)
            and (said.device is None or key[2] == said.device)
            and (birth.kept or not only_kept)
        ]
        return [self._births.pop(key) for key in keys]

    def _make_room(self) -> None:
        births = self._births
        while len(births) > 1 and sum(1 + len(birth.datatypes) for birth in births.values()) > _MOST_METRICS:
            del births[next(iter(births))]


def parse_topic(topic: str) -> Topic | None:
    """What a topic says; ``None`` where it carries no readings: commands, the state of a host, another namespace."""
    namespace, *rest = topic.split("/")
    if namespace != "spBv1.0" or len(rest) not in (3, 4) or rest[1] not in (*_BIRTHS, *_DATA, *_DEATHS):
        return None
    of_device = len(rest) == 4
    if (rest[1][0] == "D") != of_device:
        return None
    return Topic(rest[0], rest[1], rest[2], rest[3] if of_device else None)


def _is_time(when: float | None) -> bool:
    """Whether a timestamp is one, or none at all."""
    try:
        in_range(when or 0.0, when)
    except ValueError:
        return False
    return True


def _dotted(name: str) -> str:
    """The name of a metric, its folders joined by dots as levels of a topic are."""
    return name.replace("/", ".")


def _birth(stream: str, metrics: list[Metric]) -> Birth:
    birth = Birth(stream, _session(metrics))
    for metric in metrics:
        if not metric.name or _is_own(metric.name):
            continue
        birth.datatypes[metric.name] = metric.datatype
        if metric.alias is not None:
            birth.aliases[metric.alias] = metric.name
    return birth


def _session(metrics: list[Metric]) -> int | None:
    return next((m.value for m in metrics if m.name == "bdSeq" and isinstance(m.value, int)), None)


def _is_earlier(session: int | None, birth: Birth) -> bool:
    """Whether a node's death is that of a session before its birth."""
    if session is None or birth.session is None or session == birth.session:
        return False
    # A birth between the two may have been missed, where the one that is known is of an earlier run.
    return not birth.kept or (birth.session - session) % _SESSIONS < _SESSIONS // 2


def _is_own(name: str) -> bool:
    return name == "bdSeq" or name.startswith(_OWN)


def _scalars(name: str, metric: Metric, datatype: int) -> Iterator[tuple[str, object]]:
    """A metric by name; a template as its members."""
    if isinstance(metric.value, list):
        for member in metric.value:
            if member.name:
                yield from _scalars(f"{name}.{_dotted(member.name)}", member, 0)
        return
    value, datatype = metric.value, metric.datatype or datatype
    if isinstance(value, int) and not isinstance(value, bool):
        if datatype == _DATETIME:
            yield name, f"{value} ms after 1970"  # text: a moment is no measurement
            return
        bits = _SIGNED_BITS.get(datatype)
        if bits is not None:
            value &= (1 << bits) - 1
            value -= (value >> bits - 1) << bits
        value = float(value)
    yield name, value
