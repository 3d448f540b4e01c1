"""Up to when the broker was heard, and for how long it could not be: only a silence somebody listened to is one.

Pure: times are arguments, monotonic seconds that go on while the machine sleeps.  The network thread writes, others
read `Hearing.so_far`, which is replaced as a whole.
"""

from __future__ import annotations

import math
from typing import NamedTuple

STANDSTILL_S = 3.0
"""A round of the network thread that takes longer was none: it waits a second at most.  Stopped by a signal, suspended
with its machine, or starved.  Not critical: a shorter one is shorter than any silence that counts."""


ANSWER_S = 1.0
"""A broker that was asked and answers later was not there meanwhile.  Not critical: it answers within a round trip, and
too long an absence only makes silences count later."""


class Heard(NamedTuple):
    """What was heard of the broker so far.

    Attributes
    ----------
    until : float
        Monotonic seconds: what was published by then has come, or never will.  While nothing comes it stays behind:
        nobody knows yet whether the broker is still there.
    offline_s : float
        Seconds without a broker before that.
    asleep_s : float
        Seconds before that in which this process stood still.
    """

    until: float
    offline_s: float = 0.0
    asleep_s: float = 0.0

    @property
    def away_s(self) -> float:
        """Seconds in which nothing could be heard."""
        return self.offline_s + self.asleep_s


class Hearing:
    """Keeps account of when the broker was heard.

    Parameters
    ----------
    now : float
        Monotonic seconds: nothing is heard from here until `begin`.

    Examples
    --------
    >>> hearing = Hearing(0.0)
    >>> hearing.begin(1.0)  # a broker
    >>> hearing.sign(9.0)
    >>> hearing.begin(90.0)  # lost, and found again
    >>> hearing.so_far
    Heard(until=90.0, offline_s=82.0, asleep_s=0.0)
    """

    def __init__(self, now: float) -> None:
        self.so_far = Heard(now)
        self._turned_at = now

    def begin(self, now: float) -> None:
        """A broker has accepted us: since the last sign of the one before, nothing could be heard."""
        until, offline_s, asleep_s = self.so_far
        self.so_far = Heard(now, offline_s + max(0.0, now - until), asleep_s)
        self._turned_at = now

    def turn(self, now: float) -> None:
        """The thread comes round, while it is connected; call it before what was read is handed on."""
        stood_s = now - self._turned_at
        self._turned_at = now
        if stood_s > STANDSTILL_S:
            until, offline_s, asleep_s = self.so_far
            self.so_far = Heard(until + stood_s, offline_s, asleep_s + stood_s)

    def sign(self, at: float, asked_at: float = math.inf) -> None:
        """Bytes of the broker were read at ``at``; call it after what was read has been handed on.

        ``asked_at`` is when it was asked for a sign.  If that was long ago, nothing came through since the last one:
        the broker stood still, or the network did.
        """
        until, offline_s, asleep_s = self.so_far
        if at > until:
            deaf_s = at - until if at - asked_at > ANSWER_S else 0.0
            self.so_far = Heard(at, offline_s + deaf_s, asleep_s)
