"""How far a reading is from other days at its hour: against plain loops, over clock changes, and in a detector."""

from __future__ import annotations

import datetime
from zoneinfo import ZoneInfo

import numpy as np
import pytest

from gon_edge.events import Row
from gon_edge.model import daily
from gon_edge.model.daily import DAY_S, DAYS, SUFFIX, DayMemory
from gon_edge.model.detector import Detector
from gon_edge.model.file import Model, dumps, loads
from gon_edge.model.window import Scaler
from gon_edge.training.fit import fit_model

MONDAY = 1_767_571_200.0  # 2026-01-05 00:00 UTC
NAMES = ("indoor", "power")


def utc(timestamp: float) -> float:
    return 0.0


def berlin(timestamp: float) -> float:
    offset = datetime.datetime.fromtimestamp(timestamp, ZoneInfo("Europe/Berlin")).utcoffset()
    assert offset is not None
    return offset.total_seconds()


def house(days: float, seed: int = 0, interval_s: float = 300.0) -> tuple[np.ndarray, np.ndarray]:
    """Times and rows: warm by day, cool by night, power by what is missing."""
    rng = np.random.default_rng(seed)
    timestamps = MONDAY + interval_s * np.arange(round(days * DAY_S / interval_s))
    hour = timestamps % DAY_S / 3600.0
    indoor = np.where((hour >= 6.0) & (hour < 22.0), 21.0, 18.0) + 0.1 * rng.normal(size=len(hour))
    power = 500.0 + 100.0 * (21.0 - indoor) + 10.0 * rng.normal(size=len(hour))
    return timestamps, np.stack([indoor, power], axis=1).astype(np.float32)


def naive(timestamps: np.ndarray, values: np.ndarray) -> np.ndarray:
    """For each row and reading: every quarter of an hour of each earlier day, one by one."""
    quarters = (timestamps // 900.0).astype(int)
    told = np.full(values.shape, np.inf)
    for t, quarter in enumerate(quarters):
        for f in range(values.shape[1]):
            for day in range(1, DAYS + 1):
                near = values[np.abs(quarters - (quarter - 96 * day)) <= 1, f]
                near = near[np.isfinite(near)]
                if len(near):
                    gap = values[t, f] - np.clip(values[t, f], near.min(), near.max())
                    told[t, f] = gap if abs(gap) < abs(told[t, f]) else told[t, f]
    return told


def test_differences_are_those_of_a_plain_loop_over_the_earlier_days() -> None:
    timestamps, values = house(9.5, interval_s=1200.0)
    values[100:130, 0] = np.nan
    told = DayMemory(utc).take(timestamps, NAMES, values)
    expected = naive(timestamps, values)
    known = np.isfinite(values)
    np.testing.assert_allclose(told[known], expected[known], atol=1e-3)
    assert np.isnan(told[~known]).all()


def test_a_row_is_told_the_same_as_in_an_array_whether_it_was_added_before_or_not() -> None:
    timestamps, values = house(4.0)
    expected = DayMemory(utc).take(timestamps, NAMES, values)
    memory = DayMemory(utc)
    for t in range(len(timestamps)):
        before = memory.of_row(timestamps[t], NAMES, values[t])
        memory.add_row(timestamps[t], NAMES, values[t])
        after = memory.of_row(timestamps[t], NAMES, values[t])
        np.testing.assert_array_equal(before, expected[t])
        np.testing.assert_array_equal(after, expected[t])


def test_nothing_is_known_on_the_first_day_and_older_days_than_a_week_are_forgotten() -> None:
    memory = DayMemory(utc)
    timestamps, values = house(1.0)
    told = memory.take(timestamps, NAMES, values)
    assert np.isinf(told[:-3]).all()  # a quarter to midnight is near to the midnight a day before
    noon = MONDAY + DAY_S / 2
    row = np.float32([21.0, 500.0])
    assert np.isfinite(memory.of_row(noon + DAYS * DAY_S, NAMES, row)).all()
    assert np.isinf(memory.of_row(noon + (DAYS + 1) * DAY_S, NAMES, row)).all()


def test_the_first_days_of_a_record_can_be_compared_with_the_days_after_them() -> None:
    timestamps, values = house(3.0)
    memory = DayMemory(utc)
    memory.add(timestamps, NAMES, values)
    around = memory.around(timestamps, NAMES, values)
    assert np.isfinite(around).all()
    warm = values[:288].copy()
    warm[36:48, 0] = 21.0  # from 03:00
    assert (memory.around(timestamps[:288], NAMES, warm)[36:48, 0] > 2.0).all()


def test_day_mode_at_night_is_a_difference_though_the_day_was_as_warm() -> None:
    memory = DayMemory(utc)
    timestamps, values = house(3.0)
    memory.add(timestamps, NAMES, values)
    at_three = memory.of_row(MONDAY + 3 * DAY_S + 3 * 3600.0, NAMES, np.float32([21.0, 500.0]))
    at_noon = memory.of_row(MONDAY + 3 * DAY_S + 12 * 3600.0, NAMES, np.float32([21.0, 500.0]))
    assert at_three[0] == pytest.approx(2.8, abs=0.3)
    assert at_noon.tolist() == [0.0, 0.0]


@pytest.mark.parametrize("change", ["2026-03-29", "2026-10-25"])
def test_what_goes_by_the_clock_on_the_wall_is_usual_after_the_clock_has_changed(change: str) -> None:
    begin = datetime.datetime.fromisoformat(change).replace(tzinfo=ZoneInfo("Europe/Berlin")).timestamp() - 4 * DAY_S
    timestamps = begin + 300.0 * np.arange(7 * 288)
    hour = (timestamps + np.array([berlin(t) for t in timestamps])) % DAY_S / 3600.0
    values = np.where((hour >= 6.0) & (hour < 22.0), 21.0, 18.0).astype(np.float32)[:, None]
    by_the_wall = DayMemory(berlin).take(timestamps, ("indoor",), values)[288:]
    by_utc = DayMemory(utc).take(timestamps, ("indoor",), values)[288:]
    assert (by_the_wall == 0.0).all()
    assert np.abs(by_utc).max() == 3.0


def test_the_local_clock_is_the_one_of_the_system() -> None:
    for timestamp in (MONDAY, MONDAY + 180 * DAY_S):
        local = datetime.datetime.fromtimestamp(timestamp)  # noqa: DTZ006  local is what is asked for
        utc_ = datetime.datetime.fromtimestamp(timestamp, datetime.UTC).replace(tzinfo=None)
        assert daily.local_offset_s(timestamp) == (local - utc_).total_seconds()


def test_a_new_reading_gets_a_place_and_those_known_keep_theirs() -> None:
    timestamps, values = house(2.0)
    memory = DayMemory(utc)
    memory.add(timestamps, NAMES, values)
    at = MONDAY + 2 * DAY_S
    told = memory.of_row(at, ("pressure", "power"), np.float32([1.0, 500.0]))
    assert np.isinf(told[0])
    assert np.isfinite(told[1])


def test_differences_are_found_by_name_and_a_lone_name_is_a_reading() -> None:
    features = ("indoor", "power", "indoor" + SUFFIX, "fan" + SUFFIX)
    differences, readings = daily.columns(features)
    assert (differences.tolist(), readings.tolist()) == ([2], [0])
    assert [name for name in features if daily.is_difference(name, features)] == ["indoor" + SUFFIX]


def test_a_difference_that_never_moved_counts_by_its_readings_deviation() -> None:
    scaler = daily.scaled(Scaler(np.array([5.0, 1.0]), np.array([2.0, 1e-3])), ("a", "a" + SUFFIX))
    assert scaler.mean.tolist() == [5.0, 0.0]
    assert scaler.scale.tolist() == [2.0, 0.2]
    plain = Scaler(np.zeros(1), np.ones(1))
    assert daily.scaled(plain, ("a",)) is plain


def test_a_difference_follows_a_fault_that_is_put_into_its_reading() -> None:
    before = np.float32([[1.0, 2.0, 0.0]])
    rows = np.float32([[4.0, 2.0, 0.0]])
    daily.follow(rows, before, ("a", "b", "a" + SUFFIX))
    assert rows.tolist() == [[4.0, 2.0, 3.0]]


@pytest.fixture(scope="module")
def model() -> Model:
    timestamps, values = house(6.0)
    memory = DayMemory(utc)
    memory.add(timestamps, NAMES, values)
    rows = np.hstack([values, memory.around(timestamps, NAMES, values)])
    return fit_model(rows, features=(*NAMES, *(name + SUFFIX for name in NAMES)), rng=np.random.default_rng(0))


def nights(model: Model, warm: bool) -> tuple[Detector, list[float]]:
    """The scores of the seventh day's night, with the heating at day mode from 03:00 or not."""
    timestamps, values = house(6.0)
    memory = DayMemory(utc)
    memory.add(timestamps, NAMES, values)
    detector = Detector(model, days=memory)
    later, night = house(6.3, seed=1)
    scores = []
    for timestamp, row in zip(later[6 * 288 :][:60], night[6 * 288 :][:60], strict=True):
        if warm and timestamp % DAY_S >= 3 * 3600.0:
            row = np.float32([21.0, 500.0])
        scores.append(detector.score(Row("house", timestamp, NAMES, row, np.zeros(2, np.bool_))).score)
    return detector, scores


def test_a_detector_finds_what_is_odd_at_this_hour_and_names_the_usual_value(model: Model) -> None:
    assert model.readings == NAMES
    detector, scores = nights(model, warm=True)
    _, calm = nights(model, warm=False)
    assert max(scores[36:]) > 1.5 * max(calm)
    cause = detector.causes()[0]
    assert cause.feature in NAMES
    indoor = next(cause for cause in detector.causes() if cause.feature == "indoor")
    assert indoor.value == pytest.approx(21.0)
    assert indoor.expected == pytest.approx(18.2, abs=0.4)
    assert sum(cause.contribution for cause in detector.causes()) == pytest.approx(1.0, abs=0.1)


def test_an_account_tells_a_difference_of_its_reading_as_the_causes_do(model: Model) -> None:
    detector, _ = nights(model, warm=True)
    share, measured, expected = detector.account()
    at = {name: f for f, name in enumerate(model.features)}
    assert [share[at[name + SUFFIX]] for name in NAMES] == [0.0, 0.0]
    assert share.sum() == pytest.approx(1.0)
    indoor = next(cause for cause in detector.causes() if cause.feature == "indoor")
    assert share[at["indoor"]] == pytest.approx(indoor.contribution)
    assert (measured[at["indoor"]], expected[at["indoor"]]) == pytest.approx((indoor.value, indoor.expected), abs=0.5)


def test_a_difference_is_never_missing_and_an_unknown_one_is_made_up_from_the_rest(model: Model) -> None:
    detector = Detector(model)
    verdict = detector.score(Row("house", MONDAY, NAMES, np.float32([18.0, 800.0]), np.zeros(2, np.bool_)))
    assert verdict.missing == ()
    assert np.isfinite(verdict.score)
    gone = Row("house", MONDAY + 300.0, NAMES, np.float32([18.0, 800.0]), np.array([True, False]))
    assert detector.score(gone).missing == ("indoor",)


def test_a_model_with_differences_is_the_same_from_its_file(model: Model, tmp_path) -> None:
    again = loads(dumps(model), tmp_path)
    assert again.features == model.features
    assert again.readings == NAMES
    assert dumps(again) == dumps(model)


def test_memory_is_taken_as_days_come_and_goes_with_the_oldest() -> None:
    memory = DayMemory(utc)
    timestamps, values = house(12.0, interval_s=900.0)
    held = []
    for day in range(12):
        memory.add(timestamps[96 * day :][:96], NAMES, values[96 * day :][:96])
        held.append(sum(part.nbytes for part in memory._parts.values()))
    assert held[0] == 96 * 2 * 2 * 4
    assert held[-1] == held[-2] <= 9 * held[0]
