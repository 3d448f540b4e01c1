"""The scores of the last hour, for the status page: a peak for each quarter of a minute, in fixed memory."""

from __future__ import annotations

import math
from array import array

HISTORY_BUCKET_S, HISTORY_BUCKETS = 15, 240  # an hour


class ScoreHistory:
    """The highest score of each quarter of a minute in the last hour, and the threshold it stood against.

    By the rows' own time, in two arrays of fixed size: 2 kB a stream, where as many Python floats take 15.

    Examples
    --------
    >>> history = ScoreHistory()
    >>> for second in range(40):
    ...     history.add(1_000_000_000.0 + second, score=float(second % 20), threshold=6.0)
    >>> end, scores, thresholds = history.copy()
    >>> end, scores[-3:].tolist(), thresholds[-1]
    (1000000050.0, [19.0, 14.0, 19.0], 6.0)
    """

    def __init__(self) -> None:
        self._scores = array("f", [math.nan]) * HISTORY_BUCKETS
        self._thresholds = array("f", [math.nan]) * HISTORY_BUCKETS
        self._bucket: int | None = None  # the newest, counted from 1970
        self._copy: tuple[float, array[float], array[float]] | None = None

    def add(self, timestamp: float, score: float, threshold: float) -> None:
        """Take the score of one row; ``timestamp`` in Unix seconds."""
        if not math.isfinite(score):
            return
        bucket = int(timestamp // HISTORY_BUCKET_S)
        at = bucket % HISTORY_BUCKETS
        if bucket != self._bucket:
            self._forget(bucket)
        if self._scores[at] >= score:  # not so when there is none
            return
        self._scores[at] = score
        self._thresholds[at] = threshold
        self._copy = None

    def copy(self) -> tuple[float, array[float], array[float]]:
        """Return the end of the newest bucket in Unix seconds, scores and thresholds, oldest first, NaN for none.

        The same arrays as before when nothing has changed; they are not written to afterwards.
        """
        if self._copy is None:
            bucket = self._bucket or 0
            at = (bucket + 1) % HISTORY_BUCKETS
            self._copy = (
                float((bucket + 1) * HISTORY_BUCKET_S),
                self._scores[at:] + self._scores[:at],
                self._thresholds[at:] + self._thresholds[:at],
            )
        return self._copy

    def _forget(self, bucket: int) -> None:
        """Empty what lies between the newest bucket and this one; a clock that is set back takes the future along."""
        newest, self._bucket = self._bucket, bucket
        if newest is None or abs(bucket - newest) >= HISTORY_BUCKETS:
            stale = range(bucket - HISTORY_BUCKETS + 1, bucket + 1)
        else:
            stale = range(newest + 1, bucket + 1) if bucket > newest else range(bucket + 1, newest + 1)
        for other in stale:
            self._scores[other % HISTORY_BUCKETS] = self._thresholds[other % HISTORY_BUCKETS] = math.nan
