"""What became of one row of a stream: its verdict, the news it made, and whether it may be learned."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from gon_edge.events import Alert, Row, Verdict, Withheld, record


@record
class Outcome:
    """What became of one row.  Every row has exactly one, those kept during a training when it is over.

    Attributes
    ----------
    row : Row
        Features that the detector calls frozen are marked as stale: nobody is to learn them.
    verdict : Verdict or None
        ``None`` for a row of the warm-up that no starter scores, and for one that could not be kept.
    alerts : tuple of Alert
    scoring_s : float
        Time the detector took.
    waited : bool
        The row was kept while the first model was trained: its verdict is late for that reason alone.
    withheld : {"alert", "silenced", "stale"} or None
        Why the row must not be learned: it is anomalous, or an alert of an anomaly is open on it; somebody silenced the
        stream or a feature; no feature has a fresh value.  Where a few features are missing, the others are learned.
    """

    row: Row
    verdict: Verdict | None = None
    alerts: tuple[Alert, ...] = ()
    scoring_s: float = 0.0
    waited: bool = False
    withheld: Withheld | None = None


def as_judged(row: Row, verdict: Verdict) -> Row:
    """The row, with the features that are missing or frozen as stale; the same object where all of them are already."""
    if not verdict.missing:
        return row
    gone = np.array([name in verdict.missing for name in row.features])
    return row if not (gone & ~row.stale).any() else replace(row, stale=row.stale | gone)
