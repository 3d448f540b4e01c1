"""How often a feature reports, learned from the time between its reports: its cadence, if any, and its silences.

A sensor that reports when something changes has no cadence: its gaps vary over orders of magnitude, and a silence says
nothing.  One that is off every night has a cadence by day, and a silence that is usual.  Both are learned here.  What
follows for a stream's rows and alerts stands in ``columns``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

HOLD_CADENCES = 5
"""Reports that may stay out before what was said last no longer counts."""

KNOWN_STEPS = 4
"""Steps between reports after which a cadence is believed.  Before, nobody can say that a report is overdue."""

_STEPS = 16
"""Over so many steps, about, the cadence is averaged.  Not critical: a device set to another one is followed in a few
dozen reports."""

_MOST = math.log(100.0)
"""One step counts as this far from the usual at most, as a logarithm: an outage of a day is one step."""

_VARIED = 0.8
"""Mean deviation of the logarithm of the steps, from which on there is no cadence.  Events without any order (a Poisson
process) have 1.0, steps drawn evenly from 0 to twice the mean 0.74, a clock with jitter below 0.3."""

_CLOSE, _STEADY = 0.25, 0.1
"""A step this close to the cadence of one that deviates by no more teaches nothing: half the cost of a row of readings
was learning what is known.  Not critical: a feature is held for five cadences."""

_ROUNDING = 1.0 + 1e-9
"""So that a clock is held for five of its steps to the last one, whatever the logarithm rounds to."""

_SILENCES, _USUAL = 8, 3
"""Long silences that are remembered, and how many of them make one usual: what came three times is told as recurring by
alerts, too."""


class Cadence:
    """How often one feature reports.

    Parameters
    ----------
    state : sequence of float, optional
        What `state` returned in an earlier run.

    Examples
    --------
    >>> cadence = Cadence()
    >>> for gap_s in (10.0, 10.0, 10.0, 10.0):
    ...     taught = cadence.add(gap_s)
    >>> cadence.is_known, cadence.is_on_change, round(cadence.hold_s, 6)
    (True, False, 50.0)
    """

    __slots__ = ("_center", "_least_s", "_most_s", "_silences", "_spread", "hold_s", "steps")

    def __init__(self, state: Sequence[float] | None = None) -> None:
        self.steps = 0  # how many the average rests on, up to `_STEPS`
        self._center = 0.0  # mean logarithm of the steps
        self._spread = 0.0  # mean deviation of that logarithm
        self._silences: tuple[float, ...] = ()  # longer than `hold_s` was then, the newest last
        self.hold_s = math.inf
        self._least_s = self._most_s = 0.0  # steps between these teach nothing
        if state is not None:
            steps, self._center, self._spread, *silences = map(float, state)
            self.steps, self._silences = min(_STEPS, max(0, int(steps))), tuple(silences[-_SILENCES:])
            self._settle()

    def add(self, gap_s: float) -> bool:
        """Take the time from one report to the next, seconds above 0; whether it taught anything."""
        if self._least_s <= gap_s <= self._most_s:
            return False
        if gap_s > self.hold_s:
            self._silences = (*self._silences, gap_s)[-_SILENCES:]
        away = math.log(gap_s) - self._center
        if self.steps:
            away = max(-_MOST, min(_MOST, away))
            self._spread += (abs(away) - self._spread) / min(self.steps + 1, _STEPS)
        self.steps = min(self.steps + 1, _STEPS)
        self._center += away / self.steps
        self._settle()
        return True

    def _settle(self) -> None:
        # Twice the deviation: a sensor that reports by its own lights is given more time than a clock.
        hold_s = HOLD_CADENCES * _ROUNDING * math.exp(self._center + 2.0 * self._spread)
        self.hold_s = hold_s if self.is_known else math.inf
        is_steady = self.steps == _STEPS and self._spread <= _STEADY
        typical_s = math.exp(self._center)
        self._least_s, self._most_s = typical_s * (1 - _CLOSE), typical_s * (1 + _CLOSE) if is_steady else 0.0

    @property
    def is_known(self) -> bool:
        """Whether enough reports have come to say how often they do."""
        return self.steps >= KNOWN_STEPS

    @property
    def is_on_change(self) -> bool:
        """Whether the steps vary so much that there is no cadence: it reports when something changes."""
        return self.is_known and self._spread > _VARIED

    @property
    def typical_s(self) -> float | None:
        """Seconds from one report to the next; ``None`` while nobody knows, or where there is no cadence."""
        return math.exp(self._center) if self.is_known and not self.is_on_change else None

    @property
    def usual_silence_s(self) -> float:
        """The longest silence, in seconds, that has come often enough to be usual; 0.0 while there is none."""
        return sorted(self._silences)[-_USUAL] if len(self._silences) >= _USUAL else 0.0

    def state(self) -> list[float]:
        """Return what the next `Cadence` goes on from, fit for JSON."""
        return [self.steps, self._center, self._spread, *self._silences]
