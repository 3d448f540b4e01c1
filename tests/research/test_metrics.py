"""Every measure against a slow loop; AP, ROC-AUC, NDCG and VUS against other people's code too."""

import itertools
import math

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, ndcg_score, roc_auc_score

from gon_edge.research import metrics


def a_case(seed, rows=240, ties=False):
    rng = np.random.default_rng(seed)
    labels = np.zeros(rows, dtype=bool)
    for start in rng.integers(0, rows, 4):
        labels[start : start + rng.integers(1, 25)] = True
    scores = rng.normal(size=rows) + labels
    return labels, np.round(scores) if ties else scores


CASES = [a_case(seed, ties=ties) for seed, ties in itertools.product(range(6), (False, True))]
cases = pytest.mark.parametrize(("labels", "scores"), CASES)


@cases
def test_average_precision_is_sklearns(labels, scores):
    assert metrics.average_precision(labels, scores) == pytest.approx(average_precision_score(labels, scores))


@cases
def test_roc_auc_is_sklearns_and_the_share_of_ordered_pairs(labels, scores):
    ordered = [1.0 if high > low else 0.5 if high == low else 0.0 for high in scores[labels] for low in scores[~labels]]
    assert metrics.roc_auc(labels, scores) == pytest.approx(roc_auc_score(labels, scores))
    assert metrics.roc_auc(labels, scores) == pytest.approx(np.mean(ordered))


@cases
@pytest.mark.parametrize("window", [0, 1, 7, 40])
def test_vus_is_the_one_of_the_vus_package(labels, scores, window):
    oracle = pytest.importorskip("vus.utils.metrics")
    *_, roc, pr = oracle.metricor().RangeAUC_volume_opt(labels.astype(int), scores, window, 50)
    assert metrics.vus(labels, scores, window=window, thresholds=50) == pytest.approx((pr, roc))


def naive_vus(labels, scores, window, thresholds):
    rows = len(labels)
    runs = metrics.segments(labels)
    levels = np.sort(scores)[::-1][np.linspace(0, rows - 1, thresholds).astype(int)]
    pr_areas, roc_areas = [], []
    for width in range(window + 1):
        soft = [float(label) for label in labels]
        covered = [-1] * rows  # which (merged) zone a row belongs to
        for start, stop in runs:
            for row in range(rows):
                distance = start - row if row < start else row - stop + 1 if row >= stop else 0
                if 0 < distance <= width // 2:
                    soft[row] = min(1.0, soft[row] + math.sqrt(1 - distance / width))
                if distance <= width // 2:
                    covered[row] = 0
        zone = -1
        for row in range(rows):
            if covered[row] == 0:
                if row == 0 or covered[row - 1] == -1 or _a_new_zone_starts(row, runs, width // 2):
                    zone += 1
                covered[row] = zone
        points = [(0.0, 0.0)]
        pr = 0.0
        for level in levels:
            predicted = [score >= level for score in scores]
            mass = sum(s for s, p in zip(soft, predicted, strict=True) if p)
            positives = sum(s for s, p, label in zip(soft, predicted, labels, strict=True) if p or label)
            effective = (sum(labels) + positives) / 2
            found = len({z for z, p in zip(covered, predicted, strict=True) if p and z >= 0}) / (zone + 1)
            recall = min(mass / effective, 1) * found
            pr += (recall - points[-1][1]) * mass / sum(predicted)
            points.append(((sum(predicted) - mass) / (rows - effective), recall))
        points.append((1.0, 1.0))
        pr_areas.append(pr)
        roc_areas.append(sum((b[0] - a[0]) * (a[1] + b[1]) / 2 for a, b in itertools.pairwise(points)))
    return np.mean(pr_areas), np.mean(roc_areas)


def _a_new_zone_starts(row, runs, margin):
    return any(
        row == start - margin and previous + margin == row for (_, previous), (start, _) in itertools.pairwise(runs)
    )


@pytest.mark.parametrize("seed", range(4))
def test_vus_is_its_definition_in_loops(seed):
    labels, scores = a_case(seed, rows=90, ties=seed % 2 == 1)
    assert metrics.vus(labels, scores, window=12, thresholds=20) == pytest.approx(naive_vus(labels, scores, 12, 20))


def naive_f1(labels, alarms):
    true = sum(a and b for a, b in zip(labels, alarms, strict=True))
    precision, recall = true / max(sum(alarms), 1), true / max(sum(labels), 1)
    return 2 * precision * recall / (precision + recall) if true else 0.0


@cases
def test_best_f1_is_the_best_over_every_threshold(labels, scores):
    slow = max(naive_f1(labels, scores >= threshold) for threshold in scores)
    assert metrics.best_f1(labels, scores) == pytest.approx(slow)


@cases
@pytest.mark.parametrize("percent", [0, 20, 50, 100])
def test_pa_k_adjusts_a_segment_once_its_share_is_above_the_threshold(labels, scores, percent):
    def adjusted(threshold):
        alarms = scores >= threshold
        for start, stop in metrics.segments(labels):
            if alarms[start:stop].sum() >= max(1, percent / 100 * (stop - start)):
                alarms[start:stop] = True
        return alarms

    slow = max(naive_f1(labels, adjusted(threshold)) for threshold in scores)
    assert metrics.pa_k_f1(labels, scores, percent=percent) == pytest.approx(slow)


@cases
def test_point_adjustment_never_lowers_recall_and_100_percent_changes_nothing(labels, scores):
    alarms = scores > np.quantile(scores, 0.9)
    adjusted = metrics.point_adjust(labels, alarms)
    assert (adjusted | alarms == adjusted).all()
    assert not (adjusted & ~alarms & ~labels).any()
    np.testing.assert_array_equal(metrics.adjusted_scores(labels, scores, percent=100), scores)


def test_a_random_score_looks_good_point_adjusted_and_only_there():
    labels = np.zeros(4000, dtype=bool)
    labels[1000:1400] = True
    scores = np.random.default_rng(0).random(4000)
    assert metrics.point_adjusted_f1(labels, scores) > 0.95
    assert metrics.average_precision(labels, scores) < 0.15


@cases
def test_f1_is_precision_and_recall_in_one(labels, scores):
    assert metrics.f1(labels, scores > 1) == pytest.approx(naive_f1(labels, scores > 1))


def test_segments_reach_both_ends():
    assert metrics.segments([1, 1, 0, 1, 0, 0, 1]) == [(0, 2), (3, 4), (6, 7)]
    assert metrics.segments([0, 0]) == []


def test_alarms_that_touch_a_segment_are_not_false_and_near_ones_are_one_event():
    labels = np.zeros(200, dtype=bool)
    labels[50:60] = True
    alarms = np.zeros(200, dtype=bool)
    alarms[55:75] = True  # goes on after the segment: the windows still hold it
    alarms[[100, 110, 150]] = True  # 100 and 110 are one event
    assert metrics.false_alarm_events(labels, alarms) == 2
    assert metrics.false_alarms_a_day(labels, alarms) == pytest.approx(2 / (190 / 86_400))
    assert metrics.false_alarms_a_day(labels, alarms, interval_s=60) == pytest.approx(2 / (190 * 60 / 86_400))
    assert metrics.false_alarm_events(labels, np.zeros(200, dtype=bool)) == 0


def test_delay_counts_from_the_first_labelled_row_and_misses_are_reported():
    labels = np.zeros(100, dtype=bool)
    labels[10:20] = labels[40:50] = labels[80:90] = True
    alarms = np.zeros(100, dtype=bool)
    alarms[[9, 12, 47]] = True  # row 9 is before the segment and helps nobody
    assert metrics.detection_delay(labels, alarms) == (4.5, pytest.approx(2 / 3))
    assert math.isnan(metrics.detection_delay(labels, np.zeros(100, dtype=bool))[0])


def feature_case(seed):
    rng = np.random.default_rng(seed)
    return rng.random((60, 9)) < 0.25, rng.normal(size=(60, 9))


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("percent", [100, 150])
def test_hit_rate_is_its_definition(seed, percent):
    truth, scores = feature_case(seed)
    shares = []
    for flags, row in zip(truth, scores, strict=True):
        if flags.any():
            wanted = set(np.flatnonzero(flags))
            top = sorted(range(len(row)), key=lambda feature: -row[feature])[: int(percent / 100 * len(wanted))]
            shares.append(len(wanted & set(top)) / len(wanted))
    assert metrics.hit_rate(truth, scores, percent=percent) == pytest.approx(np.mean(shares))


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("percent", [100, 150])
def test_ndcg_is_sklearns_at_each_rows_own_rank(seed, percent):
    truth, scores = feature_case(seed)
    each = [
        ndcg_score([flags], [row], k=int(percent / 100 * flags.sum()))
        for flags, row in zip(truth, scores, strict=True)
        if flags.any()
    ]
    assert metrics.ndcg(truth, scores, percent=percent) == pytest.approx(np.mean(each))


def test_no_positives_gives_nan_and_not_a_crash():
    labels, scores = np.zeros(30, dtype=bool), np.arange(30.0)
    assert all(math.isnan(m(labels, scores)) for m in (metrics.average_precision, metrics.roc_auc, metrics.best_f1))
    assert all(math.isnan(value) for value in metrics.vus(labels, scores))
    assert all(math.isnan(m(labels[:, None], scores[:, None])) for m in (metrics.hit_rate, metrics.ndcg))


def test_a_score_that_is_not_finite_is_refused():
    with pytest.raises(ValueError, match="finite"):
        metrics.average_precision([0, 1], [np.nan, 1.0])
    with pytest.raises(ValueError, match="one score a row"):
        metrics.average_precision([0, 1], [1.0])
