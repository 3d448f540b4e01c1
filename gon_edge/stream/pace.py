"""How a stream's own time runs against the time of receipt: whether it is live, and what time it is there."""

from __future__ import annotations

from array import array
from operator import sub

PACE_SAMPLES = 16  # ticks over which liveness is judged


class Pace:
    """How a stream's timestamps run against the time of their receipt, one sample a tick."""

    __slots__ = ("_received_at", "_timestamps")

    def __init__(self) -> None:
        self._timestamps, self._received_at = array("d"), array("d")  # of the samples, the newest last

    def add(self, timestamp: float, received_at: float, least_s: float) -> None:
        """Take a sample: Unix and monotonic seconds; one that is less than ``least_s`` after the last is left out."""
        if not self._timestamps or timestamp - self._timestamps[-1] >= least_s:
            for samples, newest in ((self._timestamps, timestamp), (self._received_at, received_at)):
                del samples[: 1 - PACE_SAMPLES]
                samples.append(newest)

    def shift(self, delta_s: float) -> None:
        """Follow the clock behind the timestamps when it is set."""
        self._timestamps = array("d", [at + delta_s for at in self._timestamps])

    def clear(self) -> None:
        """Forget all samples."""
        del self._timestamps[:], self._received_at[:]

    @property
    def is_live(self) -> bool:
        """Whether timestamps run at about the pace of time, by the newest samples."""
        if len(self._timestamps) < 3:
            return False
        passed_s = self._received_at[-1] - self._received_at[0]
        # Narrower than jitter needs: at less than 2/3 of the pace held rows would overtake every reading.
        return passed_s > 0 and 0.75 <= (self._timestamps[-1] - self._timestamps[0]) / passed_s <= 1.33

    def slowest(self, received_by: float) -> float:
        """The stream's own time, judged by the reading that took longest to arrive."""
        longest_s: float = max(map(sub, self._received_at, self._timestamps))
        return received_by - longest_s
