"""The gate: what it lets through and what it stops."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

import gon_edge.training.gate
from gon_edge.training.fit import fit_model
from gon_edge.training.gate import (
    COARSER,
    FAULTS,
    GateReport,
    GateScores,
    _blurred,
    _percent,
    _worse,
    judge,
    roc_auc,
    scored,
)
from gon_edge.training.settings import FitSettings

SMALL = FitSettings(window=10, hidden=4, prototypes=2)
NAMES = ("a", "b", "c")


def waves(rows: int, *, seed: int = 0, features: int = 3) -> np.ndarray:
    rng = np.random.default_rng(seed)
    t = np.arange(rows)[:, None] + 100.0 * seed
    return (np.sin(t / (5.0 + np.arange(features))) + 0.1 * rng.normal(size=(rows, features))).astype(np.float32)


def fitted(rows: np.ndarray, *, seed: int = 0, names=NAMES):
    return fit_model(rows, features=names, settings=SMALL, rng=np.random.default_rng(seed))


@pytest.fixture(scope="module")
def good():
    return fitted(waves(800))


@pytest.fixture(scope="module")
def again():
    return fitted(waves(800), seed=1)


def judged(challenger, champion, rows=None, **changes) -> GateReport:
    rows = waves(400, seed=3) if rows is None else rows
    restart = np.arange(len(rows)) == 0
    asked = {"risk": 1e-4, "seed": 0, "features": NAMES, **changes}
    return judge(challenger, champion, rows, restart, **asked)


def test_a_model_as_good_as_the_one_in_use_passes_and_both_are_written_down(good, again):
    report = judged(again, good)
    assert report.passed
    assert report.reasons == ()
    assert report.held_out_rows == 400
    assert report.champion is not None
    for scores in (report.challenger, report.champion):
        assert tuple(scores.separation) == FAULTS
        assert scores.alarm_rate < 0.02
        assert scores.mean_separation > 0.7
    assert 0.0 < report.quantization_error < 0.05
    assert report.model_bytes > 1000
    assert 0.0 < report.latency_s < 0.5


def test_the_same_models_and_rows_give_the_same_report(good, again):
    reports = [dataclasses.replace(judged(again, good), latency_s=0.0) for _ in range(2)]
    assert reports[0] == reports[1]


def test_a_model_that_learned_noise_is_stopped_for_telling_faults_worse(good):
    noise = fitted(np.random.default_rng(5).normal(0.0, 3.0, (800, 3)).astype(np.float32))
    report = judged(noise, good)
    assert not report.passed
    assert any("tells injected faults from clean rows" in reason for reason in report.reasons)
    assert report.challenger.mean_separation < report.champion.mean_separation


def test_a_model_in_alarm_on_clean_rows_is_stopped(good):
    elsewhere = fitted(waves(800) + np.float32(5.0))
    report = judged(elsewhere, good)
    assert not report.passed
    assert "of the held-out normal rows abnormal, the model in use" in report.reasons[0]


def test_a_model_of_the_new_normal_replaces_one_in_alarm_there(good):
    moved = waves(800) + np.float32(5.0)
    report = judged(fitted(moved), good, waves(400, seed=3) + np.float32(5.0))
    assert report.champion.alarm_rate > 0.9
    assert report.passed


def test_a_new_machines_model_may_be_in_alarm_as_long_as_the_one_in_use_had_alerts_which_are_not_among_the_rows(
    good, again
):
    rows = waves(400, seed=3)
    scores, whole = scored(again, rows, np.arange(400) == 0, NAMES)
    eager = dataclasses.replace(again, threshold=float(np.quantile(scores[whole], 0.9)))
    strict = judged(eager, good, rows, widened=True)
    assert "abnormal, the model in use" in strict.reasons[0]
    fair = judged(eager, good, rows, widened=True, withheld=0.2)
    assert fair.reasons == ()
    assert fair.champion.alarm_rate == 0.2
    assert judged(eager, good, rows, widened=True, withheld=0.05).reasons != ()


def test_where_a_person_called_more_rows_normal_half_of_what_was_told_apart_must_be_left():
    def scores(separation: float, alarms: float = 0.0) -> GateScores:
        return GateScores(alarms, dict.fromkeys(FAULTS, separation))

    before = scores(0.9)
    assert _blurred(scores(0.71), before, 1e-4, 1000) == []
    assert _worse(scores(0.71), before, 1e-4, 1000) != []
    (reason,) = _blurred(scores(0.69), before, 1e-4, 1000)
    assert "at least 0.700 is needed, so accept a shorter time" in reason
    assert "of the held-out normal rows abnormal" in _blurred(scores(0.9, alarms=0.2), before, 1e-4, 1000)[0]
    nothing = GateScores(0.0, {})  # no stretch of rows is long enough for a fault
    assert _blurred(nothing, nothing, 1e-4, 1000) == []


@pytest.mark.parametrize(
    ("new", "old", "stopped"),
    [
        (0.004, 0.0, False),
        (0.011, 0.0, True),
        (0.015, 0.01, False),
        (0.021, 0.015, True),
        (0.3, 0.7, False),
        (0.4, 0.7, True),
    ],
)
def test_alarms_may_exceed_the_budget_only_where_they_halve(new, old, stopped):
    separation = {"spike": 0.9}
    assert bool(_worse(GateScores(new, separation), GateScores(old, separation), 1e-4, 10_000)) == stopped


def test_three_rows_are_no_reason_however_few_there_are():
    separation = {"spike": 0.9}
    assert _worse(GateScores(3 / 100, separation), GateScores(0.0, separation), 1e-4, 100) == []
    assert _worse(GateScores(4 / 100, separation), GateScores(0.0, separation), 1e-4, 100)


def test_one_kind_of_fault_lost_stops_a_model_and_chance_is_as_good_as_below_it():
    old = GateScores(0.0, {"spike": 0.9, "offset": 0.9, "drift": 0.9, "frozen": 0.6})
    lost = GateScores(0.0, {"spike": 0.99, "offset": 0.99, "drift": 0.7, "frozen": 0.6})
    blind = GateScores(0.0, {"spike": 0.9, "offset": 0.9, "drift": 0.9, "frozen": 0.1})
    assert ["kind drift" in reason for reason in _worse(lost, old, 1e-4, 400)] == [True]
    assert _worse(blind, old, 1e-4, 400) == []


def test_a_value_that_is_not_finite_is_never_passed(good):
    broken = dataclasses.replace(good, threshold=float("nan"))
    assert not broken.finite
    for champion in (None, good):
        report = judged(broken, champion)
        assert (report.passed, report.finite) == (False, False)
        assert "not finite" in report.reasons[0]


def test_a_first_model_is_judged_on_the_rows_it_learned_and_by_nothing_else(good):
    report = judged(good, None, waves(800))
    assert report.passed
    assert (report.champion, report.held_out_rows, report.challenger.separation) == (None, 0, {})
    assert judged(good, None, waves(5)).passed  # shorter than a window
    wild = dataclasses.replace(good, threshold=0.0)
    assert "of the rows it learned abnormal" in judged(wild, None, waves(800)).reasons[0]


def test_a_first_model_says_the_smallest_fault_that_raises_an_alert_and_a_silent_one_is_stopped(good):
    report = judged(good, None, waves(800))
    assert set(report.detects) >= {"offset up", "offset down", "spike", "drift"}
    assert set(report.detects["offset up"]) == set(NAMES)
    strength, size, rows = report.detects["offset up"]["a"]
    assert 0.5 <= strength <= 8.0
    assert size == pytest.approx(strength * waves(800)[:, 0].std(), rel=1e-3)
    assert 1 <= rows <= 20
    silent = judged(dataclasses.replace(good, threshold=1e3), None, waves(800))
    assert not silent.passed
    assert "it would be silent: not even all features 64 standard deviations off" in silent.reasons[0]
    still = judged(good, None, np.full((800, 3), waves(1)[0]))
    assert not any("silent" in reason for reason in still.reasons)  # nothing moves: there is nothing to say


def test_a_model_that_needs_faults_several_times_as_large_is_stopped_with_what_to_do(good, again):
    report = judged(again, good)
    assert 1.0 / COARSER < report.coarser < COARSER
    assert report.detects == {}  # said of the model that is put in use, which is another fit
    dull = judged(dataclasses.replace(again, threshold=4.0 * again.threshold), good)
    assert dull.coarser > COARSER
    assert any("times as large before it raises an alert" in r and "--since" in r for r in dull.reasons)
    alarmed = dataclasses.replace(good, threshold=0.0)
    assert judged(again, alarmed).coarser is None  # who is in alarm anyway tells everything


def test_models_of_other_features_are_compared_on_the_same_rows(good):
    more = fitted(waves(800, features=4), names=("c", "d", "a", "b"))
    rows = waves(400, seed=3, features=4)
    report = judged(more, good, rows, features=("c", "d", "a", "b"))
    assert set(report.challenger.separation) == set(report.champion.separation) == set(FAULTS)


def test_a_single_feature_has_neither_swaps_nor_stillness_and_constants_have_no_faults():
    one = fitted(waves(800, features=1), names=("a",))
    report = judged(one, one, waves(400, seed=3, features=1), features=("a",))
    assert set(report.challenger.separation) == {"spike", "offset", "drift", "noise"}
    assert report.passed
    still = np.full((400, 1), 3.0, np.float32)
    assert judged(one, one, still, features=("a",)).challenger.separation == {}


def test_no_fault_is_added_to_the_level_of_a_counter(good, again):
    rows = waves(400, seed=3)
    metered = judged(again, dataclasses.replace(good, rising=NAMES[:1]), rows)
    assert set(metered.challenger.separation) == set(FAULTS)
    assert metered.challenger.separation != judged(again, good, rows).challenger.separation
    counters = dataclasses.replace(good, rising=NAMES)
    assert judged(again, counters, rows).challenger.separation == {}


def test_missing_values_and_gaps_are_borne(good, again):
    rows = waves(400, seed=3)
    rows[50:90, 1] = np.nan
    restart = np.arange(400) % 100 == 0
    report = judge(again, good, rows, restart, NAMES, risk=1e-4, seed=0)
    assert np.isfinite(list(report.challenger.separation.values())).all()


@pytest.mark.parametrize(
    ("limit", "value", "says"),
    [("MODEL_BYTES", 10, "its file has"), ("QUANTIZATION_ERROR", 1e-9, "int8 rounding")],
)
def test_bytes_and_rounding_have_bounds(good, again, monkeypatch, limit, value, says):
    monkeypatch.setattr(gon_edge.training.gate, limit, value)
    assert says in judged(again, good).reasons[0]


def test_a_score_slower_than_rows_come_and_than_before_is_stopped(good, again, monkeypatch):
    took = iter([0.02, 0.001, 0.02, 0.015])
    monkeypatch.setattr(gon_edge.training.gate, "_latency_s", lambda *_: next(took))
    quick = dataclasses.replace(again, interval_s=0.01)
    assert "a score takes 20.0 ms; at most 5.0 ms" in judged(quick, good).reasons[0]
    assert judged(quick, good).passed


def test_roc_auc_is_the_share_of_ordered_pairs():
    rng = np.random.default_rng(0)
    high, low = rng.integers(0, 6, 40).astype(float), rng.integers(0, 5, 30).astype(float)
    naive = np.mean([(h > lo) + 0.5 * (h == lo) for h in high for lo in low])
    assert roc_auc(high, low) == pytest.approx(naive)


@pytest.mark.parametrize(
    ("share", "text"), [(1.0, "100 %"), (0.5, "50 %"), (0.0123, "1.2 %"), (0.0004, "0.04 %"), (0.0, "0 %")]
)
def test_a_share_is_written_as_a_person_writes_it(share: float, text: str):
    """All rows in alarm were "1e+02 %"."""
    assert _percent(share) == text
