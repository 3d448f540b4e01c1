"""Measures of detection on scores, on alarms and on contributions per feature.

Scores are high for anomalies; labels are one flag a row.  A segment is a maximal run of labelled rows.  Everything is
plain numpy; the tests hold a slow loop for each measure, scikit-learn for AP, ROC-AUC and NDCG, and the ``vus``
package for VUS.

Nothing here knows a detector, a data set or a threshold rule.

Point-adjusted F1 is here for the record only: a uniform random score reaches 0.77 to 0.99 on the paper's sets, so it
must be printed beside a random score's and ranks nothing.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

Scores = NDArray[np.float64]
Flags = NDArray[np.bool_]

SECONDS_A_DAY = 86_400.0


def average_precision(labels: ArrayLike, scores: ArrayLike) -> float:
    """Return the area under the precision-recall steps, one step a distinct score; NaN without positives."""
    hits, alarms = _sweep(labels, scores)
    if hits[-1] == 0:
        return math.nan
    recall_steps = np.diff(hits, prepend=0) / hits[-1]
    return float(recall_steps @ (hits / alarms))


def roc_auc(labels: ArrayLike, scores: ArrayLike) -> float:
    """Return the area under the ROC curve, ties counted half; NaN with one class only."""
    hits, alarms = _sweep(labels, scores)
    misses = alarms - hits
    if hits[-1] == 0 or misses[-1] == 0:
        return math.nan
    return float(np.trapezoid(np.append(0, hits) / hits[-1], np.append(0, misses) / misses[-1]))


def vus(labels: ArrayLike, scores: ArrayLike, *, window: int = 100, thresholds: int = 250) -> tuple[float, float]:
    """Return VUS-PR and VUS-ROC: range-AUC averaged over buffer widths 0..`window` around the segments.

    For a width ``l`` a row at distance ``d <= l // 2`` from a segment has the label ``sqrt(1 - d / l)``; buffer labels
    count as positives only where they are predicted, and recall is multiplied by the share of (buffered) segments hit.
    This is the variant called ``opt`` by its authors, with their default of 250 thresholds.

    Parameters
    ----------
    labels : array-like, bool, (T,)
    scores : array-like, (T,)
    window : int
        Largest buffer, rows.
    thresholds : int
        Number of thresholds, at equal steps of rank.

    Returns
    -------
    vus_pr, vus_roc : float
        NaN without positives or without negatives.

    References
    ----------
    Paparrizos et al., Volume Under the Surface, PVLDB 15 (2022), sections 4.2 and 4.3.
    """
    flags, values = _checked(labels, scores)
    runs = segments(flags)
    if not runs or flags.all():
        return math.nan, math.nan
    rows, positives = len(values), float(flags.sum())
    order = np.argsort(-values, kind="stable")
    levels = values[order][np.linspace(0, rows - 1, thresholds).astype(int)]
    predicted = np.searchsorted(-values[order], -levels, side="right")  # rows at or above each level
    inside = np.append(0, np.cumsum(flags[order]))[predicted]
    pr_sum = roc_sum = 0.0
    for width in range(window + 1):
        soft = _buffered(flags, runs, width)
        hit_mass = np.append(0.0, np.cumsum(soft[order]))[predicted]
        # A buffer's weight joins the positives only where it was predicted; the segments themselves always do.
        effective = (positives + positives + hit_mass - inside) / 2
        peaks = np.array([values[start:stop].max() for start, stop in _zones(runs, width // 2, rows)])
        existence = (peaks[:, None] >= levels).mean(axis=0)
        recall = np.minimum(hit_mass / effective, 1.0) * existence
        fallout = (predicted - hit_mass) / (rows - effective)
        precision = hit_mass / predicted
        x, y = np.concatenate([[0.0], fallout, [1.0]]), np.concatenate([[0.0], recall, [1.0]])
        roc_sum += float(np.diff(x) @ (y[1:] + y[:-1]) / 2)
        pr_sum += float(np.diff(recall, prepend=0.0) @ precision)
    return pr_sum / (window + 1), roc_sum / (window + 1)


def best_f1(labels: ArrayLike, scores: ArrayLike) -> float:
    """Return the best F1 over all thresholds: an oracle's, not a detector's."""
    hits, alarms = _sweep(labels, scores)
    return float(np.max(2 * hits / (alarms + hits[-1]))) if hits[-1] else math.nan


def f1(labels: ArrayLike, alarms: ArrayLike) -> float:
    """Return the F1 of flags against flags, row by row; 0 when nothing is both labelled and alarmed."""
    truth, raised = np.asarray(labels, dtype=bool), np.asarray(alarms, dtype=bool)
    total = int(truth.sum() + raised.sum())
    return 2 * int((truth & raised).sum()) / total if total else 0.0


def adjusted_scores(labels: ArrayLike, scores: ArrayLike, *, percent: float = 0.0) -> Scores:
    """Return scores under PA%K: once `percent` of a segment is above a threshold, all of it is.

    ``percent=0`` is plain point adjustment (one row is enough), ``percent=100`` changes nothing.

    References
    ----------
    Kim et al., Towards a Rigorous Evaluation of Time-Series Anomaly Detection, AAAI 2022, section 4.
    """
    flags, values = _checked(labels, scores)
    adjusted = values.copy()
    for start, stop in segments(flags):
        needed = max(1, math.ceil(percent / 100 * (stop - start)))
        reached = np.partition(values[start:stop], stop - start - needed)[stop - start - needed]
        adjusted[start:stop] = np.maximum(values[start:stop], reached)
    return adjusted


def pa_k_f1(labels: ArrayLike, scores: ArrayLike, *, percent: float = 20.0) -> float:
    """Return the best F1 under PA%K."""
    return best_f1(labels, adjusted_scores(labels, scores, percent=percent))


def point_adjusted_f1(labels: ArrayLike, scores: ArrayLike) -> float:
    """Return the best F1 under point adjustment.  For the record: a random score does well by it."""
    return best_f1(labels, adjusted_scores(labels, scores, percent=0.0))


def point_adjust(labels: ArrayLike, alarms: ArrayLike) -> Flags:
    """Return alarms in which every segment with one alarm is alarmed as a whole."""
    return adjusted_scores(labels, np.asarray(alarms, dtype=np.float64)) > 0


def segments(labels: ArrayLike) -> list[tuple[int, int]]:
    """Return the runs of labelled rows as (start, stop), stop excluded."""
    flags = np.asarray(labels, dtype=bool).astype(np.int8)
    edges = np.flatnonzero(np.diff(flags, prepend=0, append=0))
    return [(int(start), int(stop)) for start, stop in edges.reshape(-1, 2)]


def false_alarm_events(labels: ArrayLike, alarms: ArrayLike, *, merge_rows: int = 15) -> int:
    """Return how often a person would have been called for nothing.

    Alarms less than `merge_rows` apart are one event; an event that touches a segment is no false one, however long
    it goes on after it.
    """
    truth, raised = np.asarray(labels, dtype=bool), np.flatnonzero(np.asarray(alarms, dtype=bool))
    if not len(raised):
        return 0
    events = np.split(raised, np.flatnonzero(np.diff(raised) >= merge_rows) + 1)
    return sum(not truth[event[0] : event[-1] + 1].any() for event in events)


def false_alarms_a_day(labels: ArrayLike, alarms: ArrayLike, *, interval_s: float = 1.0, merge_rows: int = 15) -> float:
    """Return false alarm events per day of normal rows, `interval_s` seconds each (1: the 1 Hz equivalent)."""
    normal_days = (~np.asarray(labels, dtype=bool)).sum() * interval_s / SECONDS_A_DAY
    events = false_alarm_events(labels, alarms, merge_rows=merge_rows)
    return float(events / normal_days) if normal_days else math.nan


def detection_delay(labels: ArrayLike, alarms: ArrayLike) -> tuple[float, float]:
    """Return the median delay in rows of the segments found, and the share of segments found.

    The delay is from a segment's first row to the first alarm in it; NaN when none is found.
    """
    raised = np.asarray(alarms, dtype=bool)
    runs = segments(labels)
    delays = [int(np.argmax(raised[start:stop])) for start, stop in runs if raised[start:stop].any()]
    return (float(np.median(delays)) if delays else math.nan, len(delays) / len(runs) if runs else math.nan)


def hit_rate(feature_labels: ArrayLike, feature_scores: ArrayLike, *, percent: float = 100.0) -> float:
    """Return Hit@`percent` %: the share of a row's anomalous features among its highest scored ones.

    Of a row with ``g`` labelled features the ``floor(percent / 100 * g)`` highest are looked at; the mean is over rows
    with labels.

    References
    ----------
    Su et al., Robust Anomaly Detection for Multivariate Time Series (OmniAnomaly), KDD 2019, section 5.5.
    """
    truth, ranked = _ranked(feature_labels, feature_scores)
    if not len(truth):
        return math.nan
    counts = truth.sum(axis=1)
    looked_at = np.arange(truth.shape[1]) < np.floor(percent / 100 * counts)[:, None]
    return float(((ranked & looked_at).sum(axis=1) / counts).mean())


def ndcg(feature_labels: ArrayLike, feature_scores: ArrayLike, *, percent: float = 100.0) -> float:
    """Return the normalised discounted cumulative gain of the features at a rank of `percent` % of a row's labels."""
    truth, ranked = _ranked(feature_labels, feature_scores)
    if not len(truth):
        return math.nan
    positions = np.arange(truth.shape[1])
    discount = 1 / np.log2(positions + 2.0)
    counts = truth.sum(axis=1)[:, None]
    looked_at = positions < np.floor(percent / 100 * counts)
    gain = (ranked & looked_at) @ discount
    ideal = ((positions < counts) & looked_at) @ discount
    return float((gain / ideal).mean())


def _checked(labels: ArrayLike, scores: ArrayLike) -> tuple[Flags, Scores]:
    flags, values = np.asarray(labels, dtype=bool), np.asarray(scores, dtype=np.float64)
    if flags.ndim != 1 or flags.shape != values.shape:
        raise ValueError(f"one label and one score a row: got {flags.shape} and {values.shape}")
    if not np.isfinite(values).all():
        raise ValueError("scores must be finite")
    return flags, values


def _sweep(labels: ArrayLike, scores: ArrayLike) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return, for every distinct score from high to low, the labelled rows and all rows at or above it."""
    flags, values = _checked(labels, scores)
    order = np.argsort(-values, kind="stable")
    last = np.append(np.flatnonzero(np.diff(values[order])), len(values) - 1)  # the last row of every tie
    return np.cumsum(flags[order])[last], last + 1


def _buffered(flags: Flags, runs: list[tuple[int, int]], width: int) -> Scores:
    """Return labels with slopes of ``width // 2`` rows on both sides of every run; slopes that meet add up to 1."""
    soft = flags.astype(np.float64)
    if width < 2:
        return soft
    distance = np.arange(1, width // 2 + 1)
    slope = np.sqrt(1 - distance / width)
    for start, stop in runs:
        after = distance[stop - 1 + distance < len(soft)]
        soft[stop - 1 + after] += slope[: len(after)]
        before = distance[start - distance >= 0]
        soft[start - before] += slope[: len(before)]
    return np.minimum(soft, 1.0)


def _zones(runs: list[tuple[int, int]], margin: int, rows: int) -> list[tuple[int, int]]:
    """Return the runs widened by a margin on both sides; those that meet are one."""
    zones: list[tuple[int, int]] = []
    for start, stop in runs:
        if zones and zones[-1][1] > start - margin:
            zones[-1] = (zones[-1][0], min(stop + margin, rows))
        else:
            zones.append((max(start - margin, 0), min(stop + margin, rows)))
    return zones


def _ranked(feature_labels: ArrayLike, feature_scores: ArrayLike) -> tuple[Flags, Flags]:
    """Return the rows with labels, and their labels in the order of falling scores."""
    truth, scores = np.asarray(feature_labels, dtype=bool), np.asarray(feature_scores, dtype=np.float64)
    if truth.shape != scores.shape:
        raise ValueError(f"labels {truth.shape} and scores {scores.shape} differ in shape")
    labelled = truth.any(axis=1)
    truth, scores = truth[labelled], scores[labelled]
    return truth, np.take_along_axis(truth, np.argsort(-scores, axis=1, kind="stable"), axis=1)
