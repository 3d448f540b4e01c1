"""The one path from message to alert, for every stream: decode, route, stamp, judge, and the pass of time.

The daemon feeds it from its queue, ``replay --alerts`` from a capture; both get the same alerts for the same messages.
What happened is in what it returns, and nobody has to look at counters before and after.  It decides which stream a
reading belongs to, opens streams and forgets them; it does not know where models come from (`open_stream` does) or who
hears of an alert.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Container, Iterator, Mapping
from dataclasses import replace
from typing import Any, NamedTuple

from gon_edge.config.schema import Config
from gon_edge.config.subscription import SubscriptionConfig
from gon_edge.errors import PayloadError
from gon_edge.events import Reading, Row
from gon_edge.stream.dues import Dues
from gon_edge.stream.groups import Groups
from gon_edge.stream.heard import Heard, Moved, Step, moved, step_of
from gon_edge.stream.ledger import date
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


class _Route(NamedTuple):
    """Who reads a message, the stream and feature its topic names, and what the subscription says."""

    decoder: Decoder
    names: tuple[str | None, str | None]
    subscription: SubscriptionConfig
    foreign: str  # why it holds no readings, else empty


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
    silences : CommonSilences
        Which silent streams are told by which.
    behind : dict of str to Stream
        Those that have, or had, rows that wait for their score; whoever scores them takes out what has none.
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
        self.silences = CommonSilences()
        self._dues = Dues()
        self.behind: dict[str, Stream] = {}
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
        if (before := self.streams.get(name)) is not None:  # it begins anew, and keeps its place
            self._dues.drop(before)
        stream = self.streams[name] = self._open_stream(name, now)
        stream.join(self.groups)
        self._dues.touch(stream)
        return stream

    def close(self, name: str) -> Stream | None:
        """Let go of a stream."""
        stream = self.streams.pop(name, None)
        if stream is not None:
            self._dues.drop(stream)
            self.behind.pop(name, None)
        return stream

    def resumed(self, stream: Stream) -> None:
        """Say that a stream has just got everything that one elsewhere had known."""
        self._dues.touch(stream)
        if stream.behind:
            self.behind[stream.name] = stream

    def touch(self, stream: Stream) -> None:
        """Say that a stream was changed by another hand: it may be due at another time now."""
        self._dues.touch(stream)

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
        """Take one message: `hear` it, then `judge` what came of it."""
        heard = self.hear(topic, payload, received_at, retained=retained, known=known)
        self.judge(heard)
        return heard

    def hear(
        self,
        topic: str,
        payload: bytes,
        received_at: float,
        *,
        retained: bool = False,
        known: Container[str] = (),
    ) -> Heard:
        """Read one message and put it in its place in time.

        A processor does the same work for several messages faster than different work for each: whoever has several
        may hear all of them, before they are judged in their order.

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
            if route.foreign:
                ignored, heard.subscription = route.foreign, text
                break
            if retained and route.subscription.retained != "seed":
                ignored = "retained"
                continue
            ignored = ""
            try:
                decoded = route.decoder.read(topic, route.names, payload)
            except PayloadError as error:
                if heard.refused is None:
                    heard.refused, heard.subscription = error.alone(), text
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
        self.judge(heard)
        return heard

    def judge(self, heard: Heard) -> None:
        """Judge the rows that a message has brought."""
        for each in heard.moved:
            heard.steps.append(self._judge(each))
        heard.moved.clear()

    def _judge(self, moved_on: Moved) -> Step:
        stream = moved_on.stream
        outcomes = stream.judge(moved_on.rows)
        if stream.behind:
            self.behind[stream.name] = stream
        return step_of(moved_on, outcomes)

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
            self._dues.touch(stream)
            return
        if subscription is not None:
            reading = self._dated(reading, received_at, stream, subscription)
        heard.readings.append(reading)
        rows = self._add(stream, reading, received_at)
        self._dues.touch(stream)
        heard.moved.append(moved(stream, rows, "" if subscription is None else subscription.topic))

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
        return min(self.silences.due_at, self._dues.next_at)

    def pass_time(self, now: float) -> Iterator[Step]:
        """Let time pass; every message received by ``now`` (monotonic seconds) has been taken.

        Yields a step for each stream that was due, also where nothing came of it: what its readings became is known by
        time too.
        """
        has_stopped = False
        for stream in self._dues.take(now):
            has_stopped |= stream.has_stopped(now)
            yield self._judge(moved(stream, stream.advance(now)))
            if self.streams.get(stream.name) is stream:
                self._dues.touch(stream)
        if has_stopped or self.silences.tells:
            yield from self.stopped(now)

    def stopped(self, now: float) -> Iterator[Step]:
        """Say which streams have stopped by ``now`` (monotonic seconds) without letting rows fall due."""
        for stream, alerts in self.silences.stops(self.streams, min(now, self.heard_until), self.offset_s):
            yield step_of(moved(stream, []), [], alerts)

    def away(self, seconds: float) -> None:
        """Say that nobody listened for so long, some time before `heard_until`."""
        for stream in self.streams.values():
            stream.away(seconds, self.heard_until)
            self._dues.touch(stream)

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
            self._dues.touch(stream)
        self.offset_s = offset_s
        return delta_s

    def _routes(self, topic: str) -> list[_Route]:
        """The subscriptions whose topic matches, in their order: the first one that can read a message does."""
        found = self._routed.get(topic)
        if found is None:
            matches = [(decoder, decoder.template.match(topic), each) for decoder, each in self._subscriptions]
            found = [
                _Route(decoder, names, each, self._foreign.reason(topic, each.topic))
                for decoder, names, each in matches
                if names is not None
            ]
            if len(self._routed) >= _TOPICS:
                self._routed.clear()
            self._routed[topic] = found
        return found

    def _add(self, stream: Stream, reading: Reading, received_at: float) -> list[Row]:
        stream.stamped_by_receipt = reading.timestamp is None
        if stream.stamped_by_receipt:
            stamp = received_at + self.offset_s + reading.offset_s
            # Not replace(), which takes three times as long: most messages have no time of their own.
            reading = Reading(reading.stream, stamp, reading.values, reading.masked, reading.dropped)
        return stream.hear(reading, received_at)

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
        return self.close(min(silent, key=lambda s: s.heard_at).name)
