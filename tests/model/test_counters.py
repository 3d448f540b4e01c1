"""Counters: which readings are some, what their rate is, and that everybody takes the same one."""

from __future__ import annotations

import numpy as np
import pytest

from gon_edge import Detector, GONDetector, Row
from gon_edge.model.counters import Judged, rates, rising
from gon_edge.training.fit import fit_model
from gon_edge.training.settings import FitSettings

DAY = 1440  # rows, one a minute
RNG = np.random.default_rng


def one(column, restart=(), name="", **patterns) -> bool:
    """Whether a single column is a counter."""
    rows = np.asarray(column, np.float32)[:, None]
    return bool(rising(rows, np.isin(np.arange(len(rows)), restart), [name], **patterns)[0])


def meter(rows: int, seed: int = 0, begin: float = 5000.0) -> np.ndarray:
    return begin + np.cumsum(RNG(seed).uniform(0.2, 0.6, rows))


def sun(days: float) -> np.ndarray:
    """Watts, zero at night, from noon on."""
    minute = np.arange(int(days * DAY)) + DAY // 2
    return 4000.0 * np.maximum(0.0, np.sin((minute % DAY / DAY - 0.25) * 2.0 * np.pi)) ** 1.5


@pytest.mark.parametrize(
    "column",
    [
        meter(600),
        np.arange(600.0),  # uptime
        np.floor(meter(600)),  # in whole units, still now and then
        np.r_[meter(600), meter(600, 1, begin=0.0)],  # a reboot
        np.where(np.arange(600) % 7 == 3, np.nan, meter(600)),  # with gaps
        9e5 + np.cumsum(sun(7.0)) / 6e4,  # still every night
        np.concatenate([np.cumsum(sun(1.0)[DAY // 2 :]) / 6e4, *[np.cumsum(np.roll(sun(1.0), DAY // 2)) / 6e4] * 4]),
    ],
    ids=["meter", "uptime", "whole units", "reboot", "gaps", "solar total", "solar yield of the day"],
)
def test_what_only_rises_is_a_counter(column):
    assert one(column)


@pytest.mark.parametrize(
    "column",
    [
        RNG(0).normal(size=600),
        np.full(600, 3.0),
        np.full(600, np.nan),
        np.repeat([20.0, 21.0], 300),  # a set point
        np.r_[np.full(500, 20.0), 20.0 + np.arange(100) / 10],  # rises at the end only
        np.sort(RNG(0).normal(size=600)) + 0.01 * RNG(1).normal(size=600),  # a ramp with noise
        np.arange(600) % 20,  # a cycle
        meter(600)[::-1],
        20.0 + np.arange(600) // 60,  # nine steps of a thermometer in the morning
        np.r_[meter(300), meter(300) - 50.0],  # falls, and not to 0
    ],
    ids=["noise", "constant", "nothing", "set point", "late", "ramp", "cycle", "falling", "few steps", "fall"],
)
def test_what_does_not_only_rise_is_none(column):
    assert not one(column)


HUNDREDTHS = np.floor(meter(600, begin=0.0) / 50.0) / 100.0  # of a kWh: a few rises in the warm-up


@pytest.mark.parametrize(
    "name",
    [
        "energy",
        "kitchen.energy",
        "ENERGY.Total",
        "switch:0.aenergy.total",
        "em.total_act_energy",
        "import_kwh",
        "rain_mm",
    ],
)
def test_a_slow_meter_is_a_counter_where_its_name_says_so(name):
    assert 2 <= (np.diff(HUNDREDTHS) > 0).sum() < 20
    assert one(HUNDREDTHS, name=name)
    assert not one(HUNDREDTHS, name="setpoint")


@pytest.mark.parametrize(
    "column",
    [RNG(0).normal(size=600), np.full(600, 3.0), np.repeat([20.0, 21.0], 300), np.repeat([1.0, 2.0, 1.5], 200)],
    ids=["noise", "constant", "one step", "fall"],
)
def test_a_name_alone_makes_no_counter(column):
    assert not one(column, name="energy")


@pytest.mark.parametrize("name", ["ENERGY.Power", "ENERGY.TotalPower", "rainbow", "energy.status.0", "0"])
def test_only_whole_words_of_a_names_last_part_count(name):
    assert not one(HUNDREDTHS, name=name)


def test_what_a_person_says_goes_before_what_the_rows_show():
    assert one(np.zeros(600), name="rain", counter=["ra*"])
    assert not one(meter(600), name="level", gauge=["lev*"])
    assert not one(meter(600), name="level", counter=["*"], gauge=["lev*"])
    assert one(meter(600), name="other", counter=[], gauge=["lev*"])


def test_a_recording_that_begins_lower_than_the_one_before_it_ended_is_no_fall():
    column = np.r_[meter(300), meter(300) - 50.0]
    assert one(column, restart=[300])


def test_a_rate_is_unknown_where_a_reading_is_missing_and_where_the_counter_fell():
    # 1 after 90 is a reboot, 80 after 90 a device that went back to what it had saved, 30000 after 65000 a wrap.
    now = np.float32([7.0, np.nan, 7.0, 1.0, 80.0, 30000.0])
    before = np.float32([5.0, 5.0, np.nan, 90.0, 90.0, 65000.0])
    is_counter = np.ones(6, np.bool_)
    np.testing.assert_array_equal(rates(now, before, is_counter), np.float32([2.0] + [np.nan] * 5))
    np.testing.assert_array_equal(rates(now, before, ~is_counter), now)


def test_rows_taken_out_in_any_order_have_the_rates_of_the_whole():
    rows = np.float32(np.column_stack([meter(50), RNG(1).normal(size=50)]))
    restart = np.isin(np.arange(50), [0, 20])
    judged = Judged(rows, restart, np.array([True, False]))
    whole = judged[:]
    assert np.flatnonzero(np.isnan(whole[:, 0])).tolist() == [0, 20]
    np.testing.assert_allclose(whole[1:20, 0], np.diff(rows[:20, 0]))
    np.testing.assert_array_equal(whole[:, 1], rows[:, 1])
    order = RNG(2).permutation(50)
    np.testing.assert_array_equal(judged[order], whole[order])
    np.testing.assert_array_equal(judged[17:23], whole[17:23])
    assert (len(judged), judged.shape) == (50, (50, 2))


# -- a model with one --------------------------------------------------------------------------------------------------


def machine(rows: int, seed: int) -> np.ndarray:
    """Power, temperature, and a meter of the power."""
    rng = RNG(seed)
    load = np.zeros(rows)
    for t in range(1, rows):
        load[t] = 0.95 * load[t - 1] + rng.normal()
    power = 300.0 + 20.0 * load
    return np.float32(np.column_stack([power, 40.0 + load + 0.2 * rng.normal(size=rows), np.cumsum(power) / 600.0]))


@pytest.fixture(scope="module")
def fitted() -> GONDetector:
    return GONDetector().fit(machine(1200, 0))


def stream(rows, restart=()):
    fresh = np.zeros(rows.shape[1], np.bool_)
    names = ("x0", "x1", "x2")
    return (Row("m", float(t), names, np.float32(row), fresh, restart=t in restart) for t, row in enumerate(rows))


def test_training_finds_the_counter(fitted):
    assert fitted.model_.rising == ("x2",)
    assert fitted.model_.scaler.mean[2] == pytest.approx(0.5, rel=0.1)


def test_a_counter_that_goes_on_rising_is_normal_for_ever(fitted):
    later = machine(6000, 1)
    later[:, 2] += 2e4
    assert fitted.predict(later).mean() < 0.01


def test_a_device_that_restarts_from_what_it_had_saved_and_one_that_wraps_are_normal(fitted):
    rows = machine(1500, 8)
    for at, back in ((400, 3.0), (800, 150.0), (1200, rows[1200, 2] - 1.0)):
        rows[at:, 2] -= back
    assert fitted.predict(rows).mean() < 0.01


def test_a_meter_that_stands_still_and_one_that_runs_too_fast_are_abnormal(fitted):
    for factor in (0.0, 2.0):
        rows = machine(400, 2)
        rows[300:, 2] = rows[299, 2] + factor * (rows[300:, 2] - rows[299, 2])
        assert fitted.predict(rows)[320:].mean() > 0.9


def test_a_row_at_a_time_gets_the_scores_of_the_array(fitted):
    rows = machine(600, 3)
    rows[RNG(4).random(rows.shape) < 0.02] = np.nan
    rows[300:, 2] -= rows[299, 2] if np.isfinite(rows[299, 2]) else rows[298, 2]  # a reboot
    restart = np.isin(np.arange(600), [0, 450])
    detector = Detector(fitted.model_)
    scores = [detector.score(row).score for row in stream(rows, restart={450})]
    np.testing.assert_allclose(scores, fitted.decision_function(rows, restart), rtol=2e-4)


def test_a_counter_without_a_rate_yet_is_not_missing(fitted):
    detector = Detector(fitted.model_)
    rows = machine(100, 5)
    rows[50:, 2] -= rows[49, 2]
    assert {detector.score(row).missing for row in stream(rows, restart={30})} == {()}


def test_a_counter_that_stands_still_is_not_frozen_but_abnormal(fitted):
    rows = machine(1500, 6)
    rows[100:, 2] = rows[100, 2]
    verdicts = [Detector.score(detector, row) for detector in [Detector(fitted.model_)] for row in stream(rows)]
    assert {verdict.missing for verdict in verdicts} == {()}
    assert all(verdict.is_anomaly for verdict in verdicts[200:900])
    assert verdicts[-1].changed  # it stands still for good: told as another state


def test_a_cause_that_is_a_counter_tells_rates(fitted):
    rows = machine(400, 7)
    rows[300:, 2] += 5.0 * np.arange(1, 101)
    detector = Detector(fitted.model_)
    *_, verdict = (detector.update(row) for row in stream(rows))
    (cause,) = (cause for cause in verdict.causes if cause.feature == "x2")
    assert cause.per_row
    assert cause.value == pytest.approx(5.5, abs=0.5)
    assert cause.expected == pytest.approx(0.5, abs=0.5)
    assert not any(cause.per_row for cause in verdict.causes if cause.feature != "x2")


# -- meters that hardly move while a model is learned -----------------------------------------------------------------


def judged(rows, names, **said) -> np.ndarray:
    """Which of the rows after the first 600 are abnormal to a model of these."""
    model = fit_model(rows[:600], features=names, settings=FitSettings(**said), rng=RNG(0))
    detector = Detector(model)
    fresh = np.zeros(rows.shape[1], np.bool_)
    verdicts = [detector.score(Row("m", float(t), names, row, fresh, restart=t == 0)) for t, row in enumerate(rows)]
    return np.array([verdict.is_anomaly for verdict in verdicts[600:]])


def test_a_meter_of_hundredths_of_a_kilowatt_hour_is_normal_for_ever():
    # It rose five times while the model learned: as a level it was critical ever after.
    rows = machine(2400, 10)
    rows[:, 2] = 1234.5 + np.floor(np.cumsum(rows[:, 0]) / 36000.0) / 100.0
    assert 2 <= (np.diff(rows[:600, 2]) > 0).sum() < 20
    assert judged(rows, ("power", "celsius", "energy")).mean() < 0.01


def test_rain_after_a_dry_warm_up_is_normal_where_a_person_calls_it_a_counter():
    rows = machine(2400, 12)
    rows[:, 2] = 0.2 * np.clip((np.arange(2400) - 1500) // 30, 0, 20)
    names = ("power", "celsius", "rain_mm")
    assert judged(rows, names).mean() > 0.1
    assert judged(rows, names, counter=("rain*",)).mean() < 0.01
