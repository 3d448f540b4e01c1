"""The one path from message to alert, for every stream: decode, route, stamp, judge, and the pass of time.

The daemon feeds it from its queue, ``replay --alerts`` from a capture; both get the same alerts for the same messages.
What happened is in what it returns, and nobody has to look at counters before and after.  It decides which stream a
reading belongs to, opens streams and forgets them; it does not know where models come from (`open_stream` does) or who
hears of an alert.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Container, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from gon_edge.config.schema import Config
from gon_edge.config.subscription import SubscriptionConfig
from gon_edge.errors import PayloadError
from gon_edge.events import LOST_REASONS, Alert, Dropped, Reading
from gon_edge.model.file import Model
from gon_edge.stream.groups import Groups
from gon_edge.stream.ledger import date
from gon_edge.stream.outcome import Outcome
from gon_edge.stream.payload import Decoder, decoders
from gon_edge.stream.stream import Stream
from gon_edge.stream.together import CommonSilences
from gon_edge.stream.topics import Foreign

TICK_S = 0.1
"""Longest time between two looks at what is due by time alone, in seconds.  Rows that nothing else completes are late
by this at most; not critical, as a row stands for a tenth of a second or more."""

CLOCK_STEP_S = 0.5
"""A wall clock that moves by more than this, in seconds, against the monotonic one was set; less is how NTP slews."""

FUTURE_S = 366 * 86400.0
"""A timestamp this far ahead of the clock here is none: 20261130 read as seconds.  Not critical: device clocks that are
wrong lie hours or years back."""

_TOPICS = 1000  # whose subscriptions are remembered.  Not critical: 0.4 MiB, and looking anew costs 3 µs
_CLOCK_SET = 1_704_067_200.0  # 2024, before the first gon-edge: an earlier clock has not been set


@dataclass(frozen=True, slots=True)
class Step:
    """What one reading, or the pass of time, did to one stream.

    Attributes
    ----------
    stream : Stream
    outcomes : list of Outcome
        One for each row that came out, oldest first.
    silent : tuple of Alert
        News of the stream itself, after those of its rows: it has stopped.
    accepted, late : int
        Readings that became part of a row since the last step, and that came too late for theirs.
    clock_steps : int
        Times the device's clock was set since the last step.
    starter : Model or None
        The shipped model that scores the stream from this step on.
    stopped : bool
        The stream has just been found silent for too long.
    unwanted : int
        Readings since the last step of which ``include`` and ``exclude`` left nothing.
    lost : mapping of str to int
        Values since the last step that a message held and no row shows, by reason of `LOST_REASONS`.
    fresh : tuple of Dropped
        Keys that became no value, named for the first time.
    subscription : str
        Topic of the subscription that the reading came by; empty where time alone moved the stream on.
    """

    stream: Stream
    outcomes: list[Outcome]
    silent: tuple[Alert, ...] = ()
    accepted: int = 0
    late: int = 0
    clock_steps: int = 0
    starter: Model | None = None
    stopped: bool = False
    unwanted: int = 0
    lost: Mapping[str, int] = field(default_factory=dict)
    fresh: tuple[Dropped, ...] = ()
    subscription: str = ""

    @property
    def alerts(self) -> Iterator[Alert]:
        """Every event, in the order in which they are told."""
        for outcome in self.outcomes:
            yield from outcome.alerts
        yield from self.silent


@dataclass(slots=True)
class Heard:
    """What became of one message.

    Attributes
    ----------
    subscription : str
        Topic of the subscription that has read it, or has refused it; empty where none matches.
    ignored : dict of str to int
        The message, or readings of it, that count for nothing, by reason of `IGNORED_REASONS`.
    refused : PayloadError or None
        The message holds no reading; where several subscriptions match, the first one's reason.
    rejected, masked : mapping of str to int
        Parts of it without a reading, and features without a value, by reason, as `Decoded` has them.
    opened, forgotten : list of Stream
        Streams that begin with it, and those that had to go for them.
    crowded_out : list of str
        Streams for which there is no room.
    dropped : list of Dropped
        What became no value in readings that no stream got.
    readings : list of Reading
        What its streams got: those that are not ignored.
    steps : list of Step
        One for each reading that moved a stream on.
    """

    subscription: str = ""
    ignored: dict[str, int] = field(default_factory=dict)
    refused: PayloadError | None = None
    rejected: Mapping[str, int] = field(default_factory=dict)
    masked: Mapping[str, int] = field(default_factory=dict)
    opened: list[Stream] = field(default_factory=list)
    forgotten: list[Stream] = field(default_factory=list)
    crowded_out: list[str] = field(default_factory=list)
    dropped: list[Dropped] = field(default_factory=list)
    readings: list[Reading] = field(default_factory=list)
    steps: list[Step] = field(default_factory=list)

    def ignore(self, reason: str, count: int = 1) -> None:
        """Count readings that nobody looks at."""
        self.ignored[reason] = self.ignored.get(reason, 0) + count


class _Route(NamedTuple):
    """Who reads a message, the stream and feature its topic names, and what the subscription says."""

    decoder: Decoder
    names: tuple[str | None, str | None]
    subscription: SubscriptionConfig


class Pipeline:
    """Every stream of one daemon, or of one recording.

    Parameters
    ----------
    config : Config
        Subscriptions and limits.
    open_stream : callable
        Makes the stream of a name, with its model and what an earlier run knew; gets the name and monotonic seconds.
    offset_s : float
        Wall time of a monotonic one: Unix seconds less monotonic seconds.
    is_wanted : callable
        Whether a stream that fell silent before it had a model must stay all the same: it is to be trained.

    Attributes
    ----------
    streams : dict of str to Stream
        By name, in the order in which they began.
    groups : Groups
        Of the alerts of all streams.
    max_streams : int
    offset_s : float
    heard_until : float
        Monotonic seconds up to which silences count: what was published later may be on its way.

    Raises
    ------
    ConfigError
        Options of a subscription that contradict each other.
    """

    def __init__(
        self,
        config: Config,
        open_stream: Callable[[str, float], Stream],
        *,
        offset_s: float,
        is_wanted: Callable[[str], bool] = lambda name: False,
    ) -> None:
        self.streams: dict[str, Stream] = {}
        self.groups = Groups()
        self._silences = CommonSilences()
        self.max_streams = config.limits.streams
        self.offset_s = offset_s
        self.heard_until = math.inf
        self._routed: dict[str, list[_Route]] = {}  # by topic
        self._subscriptions = list(zip(decoders(config), config.subscriptions, strict=True))
        self._foreign = Foreign(config)
        self._open_stream = open_stream
        self._is_wanted = is_wanted

    @property
    def has_news_of_births(self) -> bool:
        """Whether a birth of Sparkplug has come, since the last `births`, that says something new."""
        return any(decoder.births.has_news for decoder, _ in self._subscriptions if decoder.births is not None)

    def births(self, now: float) -> dict[str, Any]:
        """Return what births of Sparkplug have said, fit for JSON; ``now`` is Unix seconds."""
        kept = ((each.topic, decoder.births) for decoder, each in self._subscriptions)
        return {topic: births.state(now) for topic, births in kept if births is not None}

    def resume_births(self, state: Mapping[str, Any], now: float) -> None:
        """Go on from what `births` returned in an earlier run; ``now`` is Unix seconds.

        Raises
        ------
        TypeError, ValueError, AttributeError
            The state cannot be understood.
        """
        for decoder, subscription in self._subscriptions:
            if decoder.births is not None:
                decoder.births.resume(state.get(subscription.topic, []), now)

    def open(self, name: str, now: float) -> Stream:
        """Begin a stream; ``now`` is monotonic seconds."""
        stream = self.streams[name] = self._open_stream(name, now)
        stream.join(self.groups)
        return stream

    @property
    def undecided(self) -> int:
        """Readings of which it is not known yet whether they are accepted or late."""
        return sum(stream.aligner.undecided for stream in self.streams.values())

    def take(
        self,
        topic: str,
        payload: bytes,
        received_at: float,
        *,
        retained: bool = False,
        known: Container[str] = (),
    ) -> Heard:
        """Take one message.

        Parameters
        ----------
        topic : str
        payload : bytes
        received_at : float
            Monotonic seconds; messages come in the order of these.
        retained : bool
            It lay in the broker: nobody knows how old it is.
        known : container of str
            Streams that had this message before: what it says of them is passed over.
        """
        heard = Heard()
        ignored = "no_subscription"
        for route in self._routes(topic):
            text = route.subscription.topic
            if reason := self._foreign.reason(topic, text):
                ignored, heard.subscription = reason, text
                break
            if retained and route.subscription.retained != "seed":
                ignored = "retained"
                continue
            ignored = ""
            try:
                decoded = route.decoder.read(topic, route.names, payload)
            except PayloadError as error:
                if heard.refused is None:
                    heard.refused, heard.subscription = error, text
                continue
            heard.refused, heard.subscription = None, text
            heard.rejected, heard.masked = decoded.rejected, decoded.masked
            for reading in decoded.readings:
                if reading.stream in known:
                    continue
                self._take(reading, received_at, heard, route.subscription, retained=retained)
            return heard
        if heard.refused is None:
            heard.ignored[ignored] = 1
        return heard

    def take_reading(self, reading: Reading, received_at: float) -> Heard:
        """Take what a message would have said; ``received_at`` is in monotonic seconds."""
        heard = Heard()
        self._take(reading, received_at, heard, None, retained=False)
        return heard

    def _take(
        self,
        reading: Reading,
        received_at: float,
        heard: Heard,
        subscription: SubscriptionConfig | None,
        *,
        retained: bool,
    ) -> None:
        stream = self.streams.get(reading.stream)
        if stream is None and reading.values:
            stream = self._admit(reading.stream, received_at, heard)
        if stream is None:
            heard.ignore("no_room" if reading.values else "no_value")
            heard.dropped += reading.dropped
            return
        for dropped in reading.dropped:
            stream.ledger.add(dropped.key, dropped.reason, dropped.example)
        if retained:
            heard.ignore("seed")
            stream.seed(reading)
            return
        if subscription is not None:
            reading = self._dated(reading, received_at, stream, subscription)
        heard.readings.append(reading)
        heard.steps.append(self._add(stream, reading, received_at, "" if subscription is None else subscription.topic))

    def _dated(self, reading: Reading, received_at: float, stream: Stream, subscription: SubscriptionConfig) -> Reading:
        """The reading, without a timestamp that cannot be; what is wrong with timestamps stands in the ledger."""
        timestamp, now = reading.timestamp, received_at + self.offset_s
        if timestamp is None:
            if subscription.timestamp is not None:
                stream.ledger.add(subscription.timestamp, "no_time")
        elif timestamp - now > FUTURE_S and now > _CLOCK_SET:
            stream.ledger.add(subscription.timestamp or "timestamp", "future", date(timestamp))
            return replace(reading, timestamp=None)
        return reading

    def due_at(self) -> float:
        """Monotonic seconds up to which `pass_time` changes nothing while no message comes; may be infinite."""
        return min(self._silences.due_at, *(stream.due_at for stream in self.streams.values()), math.inf)

    def pass_time(self, now: float) -> Iterator[Step]:
        """Let time pass; every message received by ``now`` (monotonic seconds) has been taken.

        Yields a step for each stream, also where nothing came of it: what its readings became is known by time too.
        """
        for stream in list(self.streams.values()):
            yield self._step(stream, stream.advance(now))
        yield from self.stopped(now)

    def stopped(self, now: float) -> Iterator[Step]:
        """Say which streams have stopped by ``now`` (monotonic seconds) without letting rows fall due."""
        for stream, alerts in self._silences.stops(self.streams, min(now, self.heard_until), self.offset_s):
            yield self._step(stream, [], alerts)

    def away(self, seconds: float) -> None:
        """Say that nobody listened for so long, some time before `heard_until`."""
        for stream in self.streams.values():
            stream.away(seconds, self.heard_until)

    def set_clock(self, offset_s: float) -> float:
        """Follow the wall clock: ``offset_s`` is Unix less monotonic seconds, now.

        Returns
        -------
        float
            By how many seconds it was set; 0.0 while it only drifts.
        """
        delta_s = offset_s - self.offset_s
        if abs(delta_s) <= CLOCK_STEP_S:
            return 0.0
        for stream in self.streams.values():
            stream.follow_clock(delta_s)
        self.offset_s = offset_s
        return delta_s

    def _routes(self, topic: str) -> list[_Route]:
        """The subscriptions whose topic matches, in their order: the first one that can read a message does."""
        found = self._routed.get(topic)
        if found is None:
            matches = [(decoder, decoder.template.match(topic), each) for decoder, each in self._subscriptions]
            found = [_Route(decoder, names, each) for decoder, names, each in matches if names is not None]
            if len(self._routed) >= _TOPICS:
                self._routed.clear()
            self._routed[topic] = found
        return found

    def _add(self, stream: Stream, reading: Reading, received_at: float, subscription: str) -> Step:
        stream.stamped_by_receipt = reading.timestamp is None
        if stream.stamped_by_receipt:
            stamp = received_at + self.offset_s + reading.offset_s
            # Not replace(), which takes three times as long: most messages have no time of their own.
            reading = Reading(reading.stream, stamp, reading.values, reading.masked, reading.dropped)
        return self._step(stream, stream.add(reading, received_at), subscription=subscription)

    def _step(
        self,
        stream: Stream,
        outcomes: list[Outcome],
        silent: tuple[Alert, ...] | None = None,
        subscription: str = "",
    ) -> Step:
        """What became of a stream; ``silent`` is the news of its having stopped, where it has."""
        accepted, late, clock_steps, unwanted, starter = stream.news()
        counts, fresh = stream.ledger.news()
        lost = {reason: counts[reason] for reason in LOST_REASONS if reason in counts} if counts else counts
        return Step(
            stream,
            outcomes,
            silent or (),
            accepted,
            late,
            clock_steps,
            starter,
            silent is not None,
            unwanted,
            lost,
            fresh,
            subscription,
        )

    def _admit(self, name: str, now: float, heard: Heard) -> Stream | None:
        """Begin a stream if there is room, or if one can be forgotten for it."""
        if len(self.streams) >= self.max_streams:
            forgotten = self._forget()
            if forgotten is None:
                heard.crowded_out.append(name)
                return None
            heard.forgotten.append(forgotten)
            if waiting := forgotten.aligner.undecided:  # readings of which no row can come any more
                heard.ignore("no_room", waiting)
        stream = self.open(name, now)
        heard.opened.append(stream)
        return stream

    def _forget(self) -> Stream | None:
        """Let go the stream that fell silent first before it had a model: a device that changes its name fills up."""
        silent = [s for s in self.streams.values() if s.model is None and s.state == "stale"]
        silent = [s for s in silent if not self._is_wanted(s.name)]
        if not silent:
            return None
        return self.streams.pop(min(silent, key=lambda s: s.heard_at).name)
