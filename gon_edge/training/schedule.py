"""When a stream's model should be trained again: by time, because its scores have moved, because it has a new feature.

Pure: times are arguments (monotonic seconds unless said otherwise), jitter is a number from 0 to 1 that the caller
draws.  `daemon.orders` owns one `StreamSchedule` for each stream, feeds it every judged row, and asks it once a second.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from gon_edge.events import TrainingReason

JITTER = 0.1
"""Share of ``every`` by which a round comes earlier or later: devices that were switched on together spread out.  Not
critical: a tenth of a day is hours, and a round takes seconds."""

SAMPLE = 200
"""Scores in each of the two samples that are compared: 2.2 hours each at one row a second and windows of 40 rows.  A
judgement: twice as many would see smaller moves and need a working day for both samples."""

DISTANCE = 1.358 * 2.0 * math.sqrt(2.0 / SAMPLE)
"""Kolmogorov-Smirnov distance that counts as moved, 0.27.  1.358 is the 5 % point of Kolmogorov's distribution; twice
that has a chance of one in a million for two samples of 200 independent scores.  Smaller moves can be significant and
still mean nothing for a threshold far out in the tail."""

AFTER_START_S = 300.0
"""No scheduled round sooner after the start, when the machine is busy and its clock may not be set.  Not critical."""

RETRY_S = 3600.0
"""Between two rounds for drift, or for a new feature.  Not critical: long beside a round, short beside a day."""


class ScoreDrift:
    """Whether the scores of normal rows have moved since the model came into use.

    The test is the two-sample Kolmogorov-Smirnov test: it looks at the whole distribution, assumes no shape, and costs
    one sort of 200 numbers for each 200 windows.  Scores of neighbouring rows share most of their window, so only one
    score for each ``window`` rows is used; those are nearly independent, which the test asks for.  The reference is the
    first sample after the model came into use: a model file keeps no scores, and no time is nearer to its training.
    Two samples in a row must be far from it, so that a night or a start-up alone starts no round; a round too many
    costs its own time, and the gate judges it.

    Alarmed rows never come in: what a fault does to the scores is an alert, not a drift.

    Parameters
    ----------
    window : int
        W, rows between two scores that are used.
    reference : sequence of float, optional
        `reference` of an earlier run with the same model.

    Attributes
    ----------
    reference : ndarray of float32, shape (SAMPLE,), or None
        Sorted; None until it is complete.

    Examples
    --------
    >>> drift = ScoreDrift(window=1)
    >>> calm = [drift.add(0.01 * (i % 100)) for i in range(4 * SAMPLE)]
    >>> moved = [drift.add(0.5 + 0.01 * (i % 100)) for i in range(2 * SAMPLE)]
    >>> any(calm), any(moved)
    (False, True)
    """

    def __init__(self, window: int, reference: Sequence[float] | None = None) -> None:
        self._window = window
        self._rows = 0
        self._far = 0  # samples in a row that are far from the reference
        self._sample = array("f")
        self.reference: NDArray[np.float32] | None = None
        if reference is not None and len(reference) == SAMPLE:
            self.reference = np.sort(np.asarray(reference, np.float32))

    def add(self, score: float) -> bool:
        """Take the score of a normal row; return whether it completes the evidence that scores have moved."""
        self._rows += 1
        if self._rows % self._window or not math.isfinite(score):
            return False
        self._sample.append(score)
        if len(self._sample) < SAMPLE:
            return False
        sample = np.sort(np.frombuffer(self._sample, np.float32))
        self._sample = array("f")
        if self.reference is None:
            self.reference = sample
            return False
        self._far = self._far + 1 if distance(self.reference, sample) > DISTANCE else 0
        if self._far < 2:
            return False
        self._far = 0
        return True


def distance(a: NDArray[np.floating], b: NDArray[np.floating]) -> float:
    """Kolmogorov-Smirnov distance of two samples: the largest difference of their distribution functions.

    Parameters
    ----------
    a, b : ndarray, shape (N,) and (M,)
        Sorted.

    Examples
    --------
    >>> distance(np.array([1.0, 2.0]), np.array([2.0, 3.0]))
    0.5
    """
    values = np.concatenate((a, b))
    below_a = np.searchsorted(a, values, "right") / len(a)
    below_b = np.searchsorted(b, values, "right") / len(b)
    return float(np.abs(below_a - below_b).max())


class StreamSchedule:
    """When one stream's next round is due.

    Parameters
    ----------
    drift : ScoreDrift
    now : float
    every_s : float or None
        Between two rounds; ``None`` for never.
    since_round_s : float
        How long ago the last one was, by the wall clock; what cannot be (negative) counts as 0.
    jitter : float
        From 0 to 1.
    """

    def __init__(
        self, drift: ScoreDrift, *, now: float, every_s: float | None, since_round_s: float, jitter: float
    ) -> None:
        self.drift = drift
        self._every_s = every_s
        self._jitter = jitter
        self._last_at = now - max(0.0, since_round_s)
        self._not_before = now + AFTER_START_S
        self._normal_rows = 0
        self._unknown_rows = 0
        self._moved = False

    def row(self, score: float, *, normal: bool, new_feature: bool) -> None:
        """Take a judged row: its score, whether it may be learned, whether it holds a feature the model lacks."""
        if not normal:
            return
        self._normal_rows += 1
        self._unknown_rows = self._unknown_rows + 1 if new_feature else 0
        self._moved |= self.drift.add(score)

    def due(self, now: float, *, rows: int, known_s: float, on_drift: bool, on_features: bool) -> TrainingReason | None:
        """Why a round is due, if one is.

        Parameters
        ----------
        now : float
        rows : int
            Normal rows that must have come since the last round, and for as many a new feature must have been there:
            ``warmup_rows``.
        known_s : float
            Over how long a time the model in use has learned: until a day is known, each round doubles it.
        on_drift, on_features : bool
            Whether these count.
        """
        is_new = self._every_s is not None and known_s < self._every_s
        if now < self._not_before or self._normal_rows < (rows // 2 if is_new else rows):
            return None
        if on_features and self._unknown_rows >= rows:
            return "new feature"
        if on_drift and self._moved:
            return "drift"
        if self._every_s is None:
            return None
        spread = 1.0 + JITTER * (2.0 * self._jitter - 1.0)
        return "time" if now - self._last_at >= spread * min(self._every_s, known_s) else None

    def every(self, every_s: float | None) -> None:
        """Take another interval."""
        self._every_s = every_s

    def began(self, now: float, jitter: float) -> None:
        """Say that a round has been started, for whatever reason; the next one is counted from here."""
        self._last_at, self._jitter = now, jitter
        self._not_before = now + RETRY_S
        self._normal_rows = self._unknown_rows = 0
        self._moved = False

    def new_model(self, drift: ScoreDrift) -> None:
        """Say that another model is in use: scores are compared with its own from now on."""
        self.drift = drift
        self._moved = False
        self._unknown_rows = 0


def is_quiet(minute: int, hours: tuple[int, int] | None) -> bool:
    """Whether a minute of the day lies in quiet hours.

    Parameters
    ----------
    minute : int
        Since midnight, local time.
    hours : (int, int) or None
        First minute, and the first one after; the second may be the smaller one, over midnight.

    Examples
    --------
    >>> is_quiet(23 * 60, (22 * 60, 6 * 60)), is_quiet(6 * 60, (22 * 60, 6 * 60)), is_quiet(0, None)
    (True, False, False)
    """
    if hours is None:
        return False
    begin, end = hours
    return begin <= minute < end if begin <= end else minute >= begin or minute < end
