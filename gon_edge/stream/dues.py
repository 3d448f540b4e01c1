"""Which streams time alone moves on, and when: a round looks at what is due, not at all there is.

A stream's own `due_at` changes with nearly every reading, mostly to a later time.  So the heap holds times that may be
too early, and a stream is looked at again when its time comes.  Whoever may have made it earlier says so by `touch`.
"""

from __future__ import annotations

import math
from heapq import heappop, heappush

from gon_edge.stream.stream import Stream


class Dues:
    """The times at which streams are due, in monotonic seconds."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Stream]] = []
        self._times: dict[Stream, list[float]] = {}  # that are in the heap: one or two
        self._touched: dict[Stream, None] = {}
        self._numbers: dict[Stream, int] = {}  # in the order in which they began
        self._began = 0

    def touch(self, stream: Stream) -> None:
        """Say that a stream has begun, or may be due at another time now."""
        self._touched[stream] = None

    def drop(self, stream: Stream) -> None:
        """Let go of a stream."""
        for kept in (self._times, self._touched, self._numbers):
            kept.pop(stream, None)

    def take(self, now: float) -> list[Stream]:
        """Streams that are due by ``now``, in the order in which they began; each is to be touched again."""
        self._list_touched()
        due = set()
        while self._heap and self._heap[0][0] <= now:
            stream = self._pop()
            if stream is not None and stream.due_at <= now:
                due.add(stream)
            elif stream is not None:
                self._list(stream)
        return sorted(due, key=self._numbers.__getitem__)

    @property
    def next_at(self) -> float:
        """When the first of them is due; infinite where none is."""
        self._list_touched()
        while self._heap:
            at, _, stream = self._heap[0]
            if stream in self._times and stream.due_at <= at:
                return at
            if self._pop() is not None:
                self._list(stream)
        return math.inf

    def _pop(self) -> Stream | None:
        """The stream that comes first, unless it was let go."""
        at, _, stream = heappop(self._heap)
        times = self._times.get(stream)
        if times is None:
            return None
        times.remove(at)
        return stream

    def _list_touched(self) -> None:
        for stream in self._touched:
            if stream not in self._times:
                self._times[stream] = []
                self._numbers[stream], self._began = self._began, self._began + 1
            self._list(stream)
        self._touched.clear()

    def _list(self, stream: Stream) -> None:
        at, times = stream.due_at, self._times[stream]
        if at < min(times, default=math.inf):
            times.append(at)
            heappush(self._heap, (at, self._numbers[stream], stream))
