"""What a stream read at the same time of day on earlier days: stored rows, thinned to the points of a small chart."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from gon_edge.state.store import Store

MOST_DAYS = 7  # a week has each kind of day
DAY_S = 86_400.0  # 24 hours


def earlier_days(
    store: Store,
    stream: str,
    features: Sequence[str],
    begin: float,
    *,
    bucket_s: float,
    buckets: int,
    enough: Callable[[], bool] = lambda: False,
) -> dict[int, NDArray[np.float32]]:
    """Return how a span of time was on the days before.

    Only the chunks of those spans are read, a few a day, and one is held at a time.  Days are of 24 hours: across a
    change of the clocks the time of day is an hour off.

    Parameters
    ----------
    store : Store
    stream : str
    features : sequence of str
    begin : float
        Of the span, Unix seconds.
    bucket_s : float
    buckets : int
    enough : callable
        Asked before each chunk; once it says so, the days read so far are all there is.

    Returns
    -------
    dict
        By how many days ago, up to `MOST_DAYS`, the nearest first: the mean of each bucket and feature, (B, F), NaN for
        none.  Days without a reading are left out.
    """
    begins = [begin - DAY_S * ago for ago in range(1, MOST_DAYS + 1)]
    sums: dict[int, NDArray[np.float64]] = {}  # (2, B, F): total and count
    for which, chunk in store.within(stream, [(at, at + bucket_s * buckets) for at in begins]):
        if enough():
            break
        place = ((chunk.timestamps - begins[which]) // bucket_s).astype(np.int64)
        inside = (place >= 0) & (place < buckets)
        held = [(f, chunk.features.index(name)) for f, name in enumerate(features) if name in chunk.features]
        if not inside.any() or not held:
            continue
        total, count = sums.setdefault(1 + which, np.zeros((2, buckets, len(features))))
        for f, column in held:
            values = chunk.values[inside, column].astype(np.float64)
            known = np.isfinite(values)
            total[:, f] += np.bincount(place[inside][known], values[known], buckets)
            count[:, f] += np.bincount(place[inside][known], minlength=buckets)
    return {
        ago: np.where(count > 0.0, total / np.maximum(count, 1.0), np.nan).astype(np.float32)
        for ago, (total, count) in sums.items()
        if count.any()
    }
