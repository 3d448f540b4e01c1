"""What time it is at the NATS server, from the times that its messages tell."""

from __future__ import annotations

import time


class ServerTime:
    """What time it is at the server: never later than it is, so that nothing is due before its messages have come.

    Each message says when the server had it, and was here later than that; the quickest one counts.
    """

    _KEEP_S = 60.0  # not critical: a clock that was set back is followed within two minutes

    def __init__(self) -> None:
        self._offsets = [-float("inf"), -float("inf")]  # of this minute, and of the one before
        self._since = time.monotonic()

    def hear(self, at: float) -> None:
        """Take a time of the server, Unix seconds, that has just arrived."""
        now = time.monotonic()
        if now - self._since > self._KEEP_S:
            self._offsets = [-float("inf"), self._offsets[0]]
            self._since = now
        self._offsets[0] = max(self._offsets[0], at - now)

    def now(self) -> float:
        """Unix seconds; the clock of this machine until the server has said something."""
        offset = max(self._offsets)
        return time.monotonic() + offset if offset > -float("inf") else time.time()
