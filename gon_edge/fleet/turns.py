"""Turns on one thread: whoever has much to do goes on piece by piece, with everybody else in between."""

from __future__ import annotations

import asyncio
import time

AT_ONCE = 64
"""Messages that are judged together at most.  Not critical: 20 ms."""

_PIECE_S = 0.02
"""Seconds of the processor.  Not critical: who asks NATS for something waits for a few pieces, which fit into
`fleet.takeover` also where ten others want the processor."""

_PASSES = 16
"""Passes of the loop between two pieces, of some 20 microseconds where nothing happens.  An answer of NATS takes four,
and each pass reads 32 KiB of what NATS sends: the states of a partition are a mebibyte or more."""


class Turns:
    """A turn for everybody between two pieces of anybody's work.

    A piece that ends with ``asyncio.sleep(0)`` lets others go on for one step, and so does each of the others: with
    eight partitions behind, somebody who asks NATS for something waits for eight pieces at each step, signs of life
    come too late, and a takeover reads 32 KiB between eight pieces.  Here one of those with more to do goes on at a
    time, and there are several steps in between.

    Attributes
    ----------
    size : int
        Messages that are a piece now.  The first one of a stream takes as long as a hundred later ones.
    """

    def __init__(self) -> None:
        self.size = AT_ONCE
        self._next = asyncio.Lock()
        self._began_s = time.thread_time()

    @property
    def is_over(self) -> bool:
        """Whether a piece was done since the last turn."""
        return time.thread_time() - self._began_s >= _PIECE_S

    async def wait(self) -> None:
        """Wait until all others have had a turn, and those that wait here have gone on before."""
        async with self._next:
            for _ in range(_PASSES):
                await asyncio.sleep(0)
        self._began_s = time.thread_time()

    def judged(self, messages: int, seconds: float) -> None:
        """Say how long so many messages took, in seconds of the processor."""
        self.size = max(1, min(AT_ONCE, int(messages * _PIECE_S / max(seconds, 1e-6))))
