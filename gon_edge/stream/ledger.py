"""What of a stream's messages became no value: each key with its reason, how often, and an example, in bounded memory.

Decoding, the grid and the stream itself write into it; the page, `status` and the log read it.  Nothing is decided
here.  A reason is one of `events.MASK_REASONS` or `events.LOST_REASONS`; `IN_WORDS` says it to a person.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from gon_edge.events import Dropped

MOST_KEYS = 64
"""Keys named at once, those heard last; what came before is counted by reason.  Not critical: 15 kB a stream."""

OTHERS = "(other keys)"
"""What stands for the keys that are not named any more."""

NEW_NAMES = "(new names)"
"""What stands for the names that have come once while places were short, the newest as the example."""

IN_WORDS: Mapping[str, str] = {
    # of a value, while it is decoded
    "null": "null: the device has no value",
    "nan": "NaN: the device has no value",
    "infinite": "larger than a float32 holds",
    "text": "text that is no number",
    "ambiguous": "a comma that may be a decimal sign or group thousands: write decimal: point or comma",
    "gone": "the device says that the value no longer counts",
    "name": "a name that is empty, unprintable or longer than 128 characters",
    "limit": "more keys in one message than limits.features allows",
    "repeated": "items of one list have the same key, and the last one counts: name what tells them apart by name_key,"
    " or by stream: {key: KEY}",
    "mixed": "items of one list are of several devices, and share their features: tell them apart by name_key, or by"
    " stream: {key: KEY}",
    "unread": "beside what items or value_key name",
    # of a value, after that
    "excluded": "left out by include or exclude of this stream",
    "crowded": "the stream has as many features as limits.features allows",
    "once": "a new name in a stream with many features: it counts from its second value on",
    "behind": "its timestamp lies behind the stream: the row it belongs to has been judged",
    "ahead": "its timestamp lies far ahead of the stream's other readings",
    "still": "its timestamp has been there before: a clock that stands still, or a message that came twice",
    "no_interval": "no interval is known yet, and too many readings wait for one",
    # of a timestamp
    "no_time": "the message has no such key: the time of its receipt counts",
    "future": "a timestamp more than a year ahead of this machine's clock: the time of receipt counts",
    # of a message
    "too_large": "larger than limits.payload_bytes",
    "not_utf8": "not UTF-8 text",
    "bad_compression": "damaged gzip or zlib data",
    "bad_binary": "not the CBOR, MessagePack or Sparkplug B it should be",
    "no_birth": "Sparkplug B: a metric whose name no birth has said",
    "no_readings": "Sparkplug B: a command, or the death of an earlier session",
    "empty": "no value in it",
    "bad_json": "not JSON, which the subscription's format asks for",
    "too_deep": "nested too deeply",
    "not_an_object": "not a JSON object, and the topic names no {feature}",
    "bad_timestamp": "a timestamp that cannot be read",
    "bad_number": "not a number or a time and numbers, which the subscription's format asks for",
    "bad_line": "not line protocol, which the subscription's format asks for",
    "no_stream": "nothing names the stream: no {stream} in the topic, no tag host, no key, no option stream",
    "bad_stream": "a stream's name that is empty, unprintable or too long",
    "bad_feature": "a feature's name that is empty, unprintable or too long, or an item without its name_key",
    "other_topic": "another subscription's topic",
    # of a message that nobody reads
    "no_subscription": "no subscription matches its topic",
    "retained": "it lay in the broker, and nobody knows how old it is; retained: seed takes it as a first value",
    "seed": "it lay in the broker: held until the first fresh value",
    "no_value": "no value in it that would begin a stream",
    "no_room": "there are as many streams as limits.streams allows",
    "own": "a topic of gon-edge's own, which would feed back",
    "discovery": "Home Assistant's discovery: a description, no reading",
}
"""Every reason, as a person reads it.  A new one in `gon_edge.events` needs its words here; a test says so."""


HELP: Mapping[str, str] = {
    "text": "map: a number for each word, such as {heat: 1, idle: 0}, where it is a state",
    "ambiguous": "decimal: point or comma",
    "mixed": "stream: {key: KEY} or name_key: the key that tells the devices apart",
    "repeated": "stream: {key: KEY} or name_key: the key that tells the items apart",
    "bad_timestamp": "timestamp: the key of a time that gon-edge reads (docs/payloads.md), or leave timestamp out",
    "limit": "limits.features: a larger number",
    "crowded": "limits.features: a larger number, or exclude: [PATTERN] for what is no sensor",
    "excluded": "include and exclude of streams.defaults, or of this stream below streams.overrides",
    "no_time": "timestamp: the key that holds the time, or leave timestamp out",
    "too_large": "limits.payload_bytes: a larger size",
    "bad_json": "format: what the payload is",
    "bad_number": "format: what the payload is",
    "bad_line": "format: what the payload is",
    "not_an_object": "{feature} in the topic, which names what a bare value is",
    "no_stream": "stream: a name, or {stream} in the topic",
    "retained": "retained: seed",
    "no_room": "limits.streams: a larger number",
    "future": "a clock or a way to write times that the device gets right; leave timestamp out to use that of receipt",
    "ahead": "a stream of its own for what another clock stamps, or no timestamp: the time of receipt is one for all",
}
"""Which key of the configuration helps, by reason; nothing where none does."""


def date(timestamp: float) -> str:
    """Unix seconds as a date and time of day, UTC."""
    return datetime.fromtimestamp(timestamp, UTC).strftime("%Y-%m-%d %H:%M:%S")


_NOTHING: tuple[Mapping[str, int], tuple[Dropped, ...]] = ({}, ())


@dataclass(frozen=True, slots=True)
class Entry:
    """A key that became no value.

    Attributes
    ----------
    key : str
        As the message has it, dotted where it is nested; `OTHERS` for those not named any more.
    reason : str
    count : int
        How often, since the stream began.
    example : str
        What stood there last; of a timestamp how far off it was.
    """

    key: str
    reason: str
    count: int
    example: str


class Ledger:
    """The keys of one stream that became no value.

    Attributes
    ----------
    totals : Counter of str
        How often since the start, by reason.

    Examples
    --------
    >>> ledger = Ledger()
    >>> for text in ("open", "closed"):
    ...     ledger.add("door", "text", text)
    >>> ledger.entries
    (Entry(key='door', reason='text', count=2, example='closed'),)
    >>> ledger.news()
    ({'text': 2}, (Dropped(key='door', reason='text', example='open'),))
    """

    __slots__ = ("_entries", "_fresh", "_others", "_shown", "_since", "totals")

    def __init__(self) -> None:
        self.totals: Counter[str] = Counter()
        self._since: dict[str, int] = {}  # as totals, since the last news
        self._fresh: list[Dropped] = []
        self._entries: dict[tuple[str, str], tuple[int, str]] = {}  # the one heard last stands last
        self._others: Counter[str] = Counter()
        self._shown: tuple[Entry, ...] | None = ()

    def add(self, key: str, reason: str, example: str = "") -> None:
        """Count one value that was none."""
        self.totals[reason] += 1
        self._since[reason] = self._since.get(reason, 0) + 1
        self._shown = None
        known = self._entries.pop((key, reason), None)
        self._entries[key, reason] = (1 if known is None else known[0] + 1, example)
        if known is not None:
            return
        if len(self._fresh) < MOST_KEYS:
            self._fresh.append(Dropped(key, reason, example))
        if len(self._entries) > MOST_KEYS:
            first = next(iter(self._entries))
            self._others[first[1]] += self._entries.pop(first)[0]

    def add_late(self, keys: Iterable[str], reason: str, timestamp: float, offset_s: float) -> None:
        """Count the values of a reading that is ``offset_s`` seconds off the stream's time."""
        example = (
            f"{offset_s:+.0f} s" if abs(offset_s) >= 1.0 else f"{offset_s:+.3f} s" if offset_s else date(timestamp)
        )
        for key in keys:
            self.add(key, reason, example)

    def news(self) -> tuple[Mapping[str, int], tuple[Dropped, ...]]:
        """What has come since this was asked last.

        Returns
        -------
        counts : mapping of str to int
            By reason.
        fresh : tuple of Dropped
            Keys named for the first time, `MOST_KEYS` at most.
        """
        if not self._since:
            return _NOTHING
        told = self._since, tuple(self._fresh)
        self._since, self._fresh = {}, []
        return told

    @property
    def entries(self) -> tuple[Entry, ...]:
        """Every key with its reason, the one heard last first; the same object until something is added."""
        if self._shown is None:
            named = [Entry(key, reason, *told) for (key, reason), told in reversed(self._entries.items())]
            others = [Entry(OTHERS, reason, count, "") for reason, count in self._others.items()]
            self._shown = (*named, *others)
        return self._shown
