"""How a stream's own time runs against the time of receipt: whether it is live, and what time it is there."""

from __future__ import annotations

from collections import deque

PACE_SAMPLES = 16  # ticks over which liveness is judged


class Pace:
    """How a stream's timestamps run against the time of their receipt, one sample a tick."""

    __slots__ = ("_samples",)

    def __init__(self) -> None:
        self._samples: deque[tuple[float, float]] = deque(maxlen=PACE_SAMPLES)

    def add(self, timestamp: float, received_at: float, least_s: float) -> None:
        """Take a sample: Unix and monotonic seconds; one that is less than ``least_s`` after the last is left out."""
        if not self._samples or timestamp - self._samples[-1][0] >= least_s:
            self._samples.append((timestamp, received_at))

    def shift(self, delta_s: float) -> None:
        """Follow the clock behind the timestamps when it is set."""
        self._samples = deque(((at + delta_s, received_at) for at, received_at in self._samples), PACE_SAMPLES)

    def clear(self) -> None:
        """Forget all samples."""
        self._samples.clear()

    @property
    def is_live(self) -> bool:
        """Whether timestamps run at about the pace of time, by the newest samples."""
        if len(self._samples) < 3:
            return False
        first, last = self._samples[0], self._samples[-1]
        passed_s = last[1] - first[1]
        # Narrower than jitter needs: at less than 2/3 of the pace held rows would overtake every reading.
        return passed_s > 0 and 0.75 <= (last[0] - first[0]) / passed_s <= 1.33

    def slowest(self, received_by: float) -> float:
        """The stream's own time, judged by the reading that took longest to arrive."""
        return received_by - max([received_at - timestamp for timestamp, received_at in self._samples])
