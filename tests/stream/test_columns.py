"""The columns of a stream's rows: what is held, how long, and how many there may be."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable

import numpy as np
import pytest

from gon_edge.config.schema import FeatureConfig
from gon_edge.events import Reading
from gon_edge.stream.columns import HOLD_CADENCES, Columns
from gon_edge.stream.ledger import NEW_NAMES, Ledger


def columns(max_features: int = 10, **rule: float) -> Columns:
    made = Columns(max_features, lambda name: FeatureConfig(**rule), Ledger())
    made.set_interval(1.0, 60.0)
    return made


def test_a_value_is_held_for_five_of_its_own_cadences():
    held = columns()
    place = held.new("slow", 0.0)
    for t in range(5):
        held.update({place: (10.0 * t, float(t))})
    last = 40.0
    assert held.at(last + HOLD_CADENCES * 10.0)[1].tolist() == [False]
    assert held.at(last + HOLD_CADENCES * 10.0 + 0.1)[1].tolist() == [True]


def test_an_older_value_does_not_replace_a_newer_one():
    held = columns()
    place = held.new("a", 0.0)
    held.update({place: (10.0, 1.0)})
    held.update({place: (9.0, 2.0)})
    held.update({place: (10.0, 3.0)})
    assert held.at(10.0)[0].tolist() == [1.0]


def test_a_feature_never_heard_is_nan_and_stale():
    held = columns()
    held.new("a", 0.0)
    values, stale, *_ = held.at(0.0)
    assert math.isnan(values[0])
    assert stale.tolist() == [True]


def test_features_past_the_limit_are_counted_and_have_no_column():
    ledger = Ledger()
    held = Columns(1, lambda name: FeatureConfig(), ledger)
    held.set_interval(1.0, 60.0)
    for second in range(3):
        held.hear({}, float(second), Reading("pump", float(second), {"a": 1.0, "b": 2.0, "c": 3.0}))
    assert held.names == ("a",)
    assert held.taken == 3
    assert ledger.totals == {"once": 2, "crowded": 4}
    assert {entry.key for entry in ledger.entries} == {NEW_NAMES, "b", "c"}


def test_names_that_come_once_leave_room_for_a_sensor_that_stays():
    """After as many one-off names as there may be features a new sensor was ignored for ever."""
    held = columns(max_features=500)
    for i in range(2000):
        held.hold_newer(float(i), {f"message-{i}": 1.0, "pressure": 2.0})
        if held.may_free(float(i)):
            held.free(float(i), set())
    held.hold_newer(2000.0, {"new": 3.0})
    held.hold_newer(2001.0, {"new": 3.0})
    assert "new" in held.places
    assert "pressure" in held.places


def test_columns_that_are_gone_give_their_place_away_and_the_others_keep_their_values():
    held = columns(max_features=4)
    for second in range(3):
        held.hold_newer(float(second), {"a": second, "b": 10.0 + second})
    for second in range(3, 100_000, 30):
        held.hold_newer(float(second), {"b": 10.0 + second})
        if second > 99_000:
            held.hold_newer(float(second), {"c": 20.0 + second})
    assert held.may_free(100_000.0)
    moved = held.free(100_000.0, set())
    assert moved == {1: 0, 2: 1}
    assert held.places == {"b": 0, "c": 1}
    values, *_ = held.at(100_000.0)
    np.testing.assert_array_equal(values, np.float32([10.0 + 99_993, 20.0 + 99_993]))
    assert held.names == ("b", "c")


def test_a_feature_that_only_says_null_keeps_its_place_for_a_day():
    held = columns(max_features=2)
    held.new("null", 0.0)
    held.new("x", 1.0)
    assert held.free(3600.0, set()) is None
    assert held.free(90_000.0, set()) == {}


def test_names_are_the_same_object_until_there_is_a_new_one():
    held = columns()
    held.new("a", 0.0)
    before = held.names
    assert held.names is before
    held.new("b", 0.0)
    assert held.names == ("a", "b")


def test_only_columns_that_are_not_stale_are_awaited():
    held = columns(max_hold_s=2.0)
    for name in ("a", "b"):
        held.update({held.new(name, 0.0): (10.0, 1.0)})
    held.update({0: (12.0, 1.0)})
    held.at(12.5)
    assert held.awaited == {0}
    held.hold_newer(12.4, {"b": 5.0})
    assert held.awaited == {0, 1}


def test_a_clock_that_is_set_moves_the_age_of_every_value_along():
    held = columns(max_hold_s=2.0)
    held.update({held.new("a", 0.0): (10.0, 1.0)})
    held.shift(1000.0)
    assert not held.at(1011.0)[1].any()
    held.forget_times()
    values, stale, *_ = held.at(1011.0)
    assert stale.all()
    np.testing.assert_array_equal(values, [1.0])


def fed(held: Columns, name: str, times: Iterable[float]) -> int:
    place = held.places.get(name)
    place = held.new(name, 0.0) if place is None else place
    for t in times:
        held.update({place: (t, t)})
    return place


def missing(held: Columns, timestamp: float) -> list[str]:
    """Features that are stale without an excuse."""
    _, stale, excused, _ = held.at(timestamp)
    excused = np.zeros_like(stale) if excused is None else excused
    return [name for name, gone in zip(held.names, stale & ~excused, strict=True) if gone]


def test_nothing_is_missing_before_its_cadence_is_known():
    held = columns()
    for t in range(4000):
        fed(held, "fast", [t])
        if t % 900 == 0:
            fed(held, "slow", [t])
        assert missing(held, t) == []


def test_once_a_slow_cadence_is_known_its_end_is_missed():
    held = columns()
    fed(held, "slow", range(0, 10 * 900, 900))
    last = 9 * 900
    assert missing(held, last + 5 * 900) == []
    assert missing(held, last + 5 * 900 + 1) == ["slow"]


def test_a_sensor_that_reports_on_change_is_held_for_ever_and_never_missing():
    held = columns()
    place = fed(held, "door", [0, 5, 8000, 8004, 30000, 30003])
    values, stale, excused, _ = held.at(30003 + 30 * 86400)
    assert (values[place], stale[place], excused[place]) == (30003, False, True)
    assert held.silence_limit_s == math.inf


def test_a_rule_for_a_feature_counts_more_than_what_was_learned():
    held = columns(missing_after_s=0.0)
    fed(held, "door", [0, 5, 8000, 8004, 30000, 30003])
    assert missing(held, 30003 + 30 * 86400) == ["door"]
    held = columns(missing_after_s=math.inf)
    fed(held, "flow", range(20))
    _, stale, excused, _ = held.at(1000.0)
    assert (stale[0], excused[0]) == (True, True)


def test_max_hold_counts_before_a_cadence_is_known():
    held = columns(max_hold_s=30.0)
    fed(held, "a", [0])
    assert missing(held, 30) == []
    assert missing(held, 31) == ["a"]


def test_a_silence_that_has_come_three_times_is_missed_after_twice_its_length_only():
    held = columns()
    t = 0
    for _ in range(3):
        fed(held, "sun", range(t, t + 1000, 10))
        t += 1000 + 5000
    fed(held, "sun", range(t, t + 1000, 10))
    last = t + 990
    assert missing(held, last + 10000) == []
    assert missing(held, last + 10100) == ["sun"]
    assert held.at(last + 100)[1][0]  # its value does not count for so long


def test_what_nobody_could_hear_is_no_silence_and_teaches_no_cadence():
    held = columns()
    fed(held, "flow", range(20))
    held.away(300.0)
    assert missing(held, 19 + 300 + 5) == []
    assert missing(held, 19 + 300 + 6) == ["flow"]
    before = held.cadence("flow").state()
    fed(held, "flow", [330])
    assert held.cadence("flow").state() == before


def test_after_a_restart_a_feature_has_its_usual_time_to_report_again():
    before = columns()
    fed(before, "fast", range(100))
    fed(before, "slow", range(0, 100, 10))
    after = columns()
    after.resume(json.loads(json.dumps(before.state())))
    assert after.names == ("fast", "slow")
    for t in range(5000, 5050):
        fed(after, "fast", [t])
        assert missing(after, t) == []
    fed(after, "fast", [5051])
    assert missing(after, 5051) == ["slow"]
    assert after.cadence("slow").state() == before.cadence("slow").state()


def test_a_short_stop_does_not_even_make_a_value_stale():
    before = columns()
    fed(before, "slow", range(0, 100, 10))
    after = columns()
    after.resume(before.state())
    values, stale, *_ = after.at(110.0)
    assert (values.tolist(), stale.tolist()) == ([90.0], [False])


def test_a_clock_that_was_ahead_before_the_restart_holds_nothing_up():
    before = columns()
    fed(before, "a", range(10**9, 10**9 + 100))
    after = columns()
    after.resume(before.state())
    assert after.at(1000.0)[1].tolist() == [True]
    fed(after, "a", [1001.0])
    values, stale, *_ = after.at(1001.0)
    assert (values.tolist(), stale.tolist()) == ([1001.0], [False])


def test_a_feature_the_model_knows_and_nobody_has_heard_is_missing_after_a_day():
    held = columns()
    held.expect(["a"])
    assert missing(held, 1000.0) == []
    assert missing(held, 1000.0 + 86400.0) == []
    assert missing(held, 1000.0 + 86401.0) == ["a"]


def test_the_silence_of_all_is_as_long_as_the_first_may_be_silent():
    held = columns()
    assert held.silence_limit_s == 0.0
    fed(held, "setpoint", [0])  # nobody knows
    fed(held, "hourly", range(0, 36000, 3600))
    assert held.silence_limit_s == pytest.approx(5 * 3600)
    fed(held, "door", [0, 5, 8000, 8004, 30000, 30003])
    assert held.silence_limit_s == pytest.approx(5 * 3600)


def test_a_report_without_a_value_takes_nothing_away():
    before = columns()
    fed(before, "door", [0, 5, 8000, 8004, 30000, 30003])
    after = columns()
    after.resume(before.state())
    after.update({0: (-math.inf, math.nan)})
    values, stale, *_ = after.at(40000.0)
    assert (values.tolist(), stale.tolist()) == ([30003.0], [False])


def test_what_reports_on_change_is_stale_all_the_same_where_nobody_knows_when_it_was_heard():
    held = columns()
    fed(held, "door", [0, 5, 8000, 8004, 30000, 30003])
    held.forget_times()
    assert held.at(40000.0)[1].tolist() == [True]


def test_a_seed_is_held_until_something_fresh_comes_and_then_counts_like_any_value():
    held = columns()
    held.seed({"setpoint": 21.0})
    values, stale, excused, _ = held.at(1e6)
    assert (values.tolist(), stale.tolist(), excused.tolist()) == ([21.0], [False], [True])
    held.set_interval(2.0, 60.0)
    assert held.at(2e6)[1].tolist() == [False]
    fed(held, "setpoint", [2e6 + 1])
    assert held.at(2e6 + 61)[1].tolist() == [False]
    assert held.at(2e6 + 62)[1].tolist() == [True]


def test_a_seed_takes_the_place_of_what_an_earlier_run_heard_and_not_of_what_this_one_has():
    before = columns()
    fed(before, "door", [0, 5, 8000, 8004, 30000, 30003])
    after = columns()
    after.resume(before.state())
    after.seed({"door": 1.0})
    assert after.at(40000.0)[0].tolist() == [1.0]
    fed(after, "door", [40001.0])
    after.seed({"door": 2.0})
    assert after.at(40002.0)[0].tolist() == [40001.0]


def test_a_value_that_is_taken_back_is_stale_at_once_and_its_silence_is_no_news():
    held = columns()
    place = fed(held, "power", range(100))
    heard: dict[int, tuple[float, float]] = {}
    held.hear(heard, 100.0, Reading("pump", 100.0, {}, {"power": "gone"}))
    held.update(heard)
    for t in (100.0, 1e6):
        _, stale, excused, _ = held.at(t)
        assert (stale[place], excused[place]) == (True, True)
    before = held.cadence("power").state()
    fed(held, "power", range(2_000_000, 2_000_020))
    assert held.at(2_000_020.0)[1].tolist() == [False]
    assert missing(held, 2_000_100.0) == ["power"]
    assert held.cadence("power").state() == before  # the night is no gap, and the cadence is as it was


def test_other_settings_of_a_feature_count_at_once():
    held = columns()
    fed(held, "a", range(20))
    assert missing(held, 30.0) == ["a"]
    held.configure(lambda name: FeatureConfig(max_hold_s=60.0))
    assert missing(held, 30.0) == []
    held.configure(lambda name: FeatureConfig(missing_after_s=math.inf))
    assert missing(held, 1e6) == []
    held.configure(lambda name: FeatureConfig())
    assert missing(held, 30.0) == ["a"]
