"""Streams that fall silent together are one alert: when a gateway dies, nobody wants thirty.

The stream that fell silent first tells it: its `missing` alert says how many there are (`Alert.together`).  The others
are not told themselves, as long as the first one is silent and a while longer.  Whoever is silent then still is told
after all.  Pure: time is an argument.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from gon_edge.events import Alert, Together
from gon_edge.stream.groups import reach_s
from gon_edge.stream.stream import Stream

FEWEST = 3
"""Streams that make one alert.  A judgement: two that fall silent in the same minute may be chance."""

_NAMED = 10  # streams of an event; a bound on its size, as many as features

_QUIET_ROWS = 3
"""Rows that a stream must be late to be counted among those that fall silent, before its own time is over."""

_RETURN_S = 60.0
"""When the first one is back, the others have as long to come back too.  Not critical: devices behind one gateway are
back within a minute, as `groups` takes them to fall silent."""


class CommonSilences:
    """Which silent streams are told by which."""

    def __init__(self) -> None:
        self._told_by: dict[str, tuple[str, float]] = {}  # by whom, and when the stream was heard last
        self._returned_at: dict[str, float] = {}  # streams that tell others and are back; monotonic seconds

    def state(self) -> dict[str, Any]:
        """Return what an owner elsewhere goes on from, fit for JSON; its monotonic clock must be this one."""
        return {"told_by": self._told_by, "returned_at": self._returned_at}

    def resume(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state` returned."""
        self._told_by = {name: (str(by), float(at)) for name, (by, at) in state.get("told_by", {}).items()}
        self._returned_at = {name: float(at) for name, at in state.get("returned_at", {}).items()}

    def stops(
        self, streams: Mapping[str, Stream], until: float, offset_s: float
    ) -> Iterator[tuple[Stream, tuple[Alert, ...]]]:
        """Find which streams have stopped; yield each with the news it makes.

        Parameters
        ----------
        streams : mapping of str to Stream
        until : float
            Monotonic seconds up to which silences count.
        offset_s : float
            Unix less monotonic seconds.
        """
        self._release(streams, until)
        stopped = [stream for stream in streams.values() if stream.has_stopped(until)]
        for stream in sorted(stopped, key=lambda stream: stream.heard_at):
            if stream.name in self._told_by:
                stream.stop_untold()
                yield stream, ()
                continue
            near = [other for other in streams.values() if _near(stream, other)] if _is_heard(stream) else []
            silent = [other for other in near if other.state == "stale"]
            falling = [other for other in near if other.state != "stale" and _falls(other, until)]
            if 1 + len(silent) + len(falling) < FEWEST:
                yield stream, stream.stop(until + offset_s)
                continue
            tell = [other for other in silent if other.name not in self._told_by]
            first = min(tell, key=lambda other: (other.policy.together is None, other.heard_at), default=stream)
            names = sorted({other.name for other in (stream, *silent, *falling)})
            of = sum(other.model is not None for other in streams.values())
            first.policy.together = Together(len(names), of, tuple(names[:_NAMED]))
            for other in (stream, *falling):
                if other is not first:
                    self._told_by[other.name] = first.name, other.heard_at
            if first is stream:
                yield stream, stream.stop(until + offset_s)
            else:
                stream.stop_untold()
                yield first, first.silent(until + offset_s)
                yield stream, ()

    @property
    def tells(self) -> bool:
        """Whether a stream is told by another one: only another look says until when."""
        return bool(self._told_by or self._returned_at)

    @property
    def due_at(self) -> float:
        """Monotonic seconds up to which time alone lets no stream be told that another one tells; may be infinite."""
        return min(self._returned_at.values(), default=math.inf) + _RETURN_S

    def _release(self, streams: Mapping[str, Stream], until: float) -> None:
        """Let streams be told themselves: those that are back, and those whose first one has been back for a while."""
        for name, (first, heard_at) in list(self._told_by.items()):
            stream, by = streams.get(name), streams.get(first)
            if stream is None or stream.heard_at != heard_at:
                del self._told_by[name]
            elif by is not None and by.state == "stale":
                self._returned_at.pop(first, None)
            elif until - self._returned_at.setdefault(first, until) > _RETURN_S:
                del self._told_by[name]
                stream.stop_again()
        self._returned_at = {first: at for first, at in self._returned_at.items() if self._tells(first)}

    def _tells(self, first: str) -> bool:
        return any(by == first for by, _ in self._told_by.values())


def _is_heard(stream: Stream) -> bool:
    """Whether somebody wants to hear of the stream."""
    return stream.model is not None and not stream.policy.is_silenced


def _near(stream: Stream, other: Stream) -> bool:
    """Whether the other stream was heard last about when this one was."""
    reach = max(reach_s(one.aligner.interval_s or 0.0) for one in (stream, other))
    return other is not stream and _is_heard(other) and abs(other.heard_at - stream.heard_at) <= reach


def _falls(stream: Stream, until: float) -> bool:
    """Whether a stream that has not stopped is silent for longer than it usually is."""
    return until - stream.heard_at > max(_QUIET_ROWS * (stream.aligner.interval_s or 0.0), stream.silent_after_s / 2)
