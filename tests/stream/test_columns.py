"""The columns of a stream's rows: what is held, how long, and how many there may be."""

from __future__ import annotations

import math

import numpy as np

from gon_edge.stream.columns import HOLD_CADENCES, Columns
from gon_edge.stream.ledger import NEW_NAMES, Ledger


def columns(max_features: int = 10, max_hold_s: float | None = None) -> Columns:
    made = Columns(max_features, max_hold_s, Ledger())
    made.set_interval(1.0, 60.0)
    return made


def test_a_value_is_held_for_five_of_its_own_cadences():
    held = columns()
    place = held.new("slow", 0.0)
    for t in range(5):
        held.update(place, 10.0 * t, float(t))
    last = 40.0
    assert held.at(last + HOLD_CADENCES * 10.0)[1].tolist() == [False]
    assert held.at(last + HOLD_CADENCES * 10.0 + 0.1)[1].tolist() == [True]


def test_an_older_value_does_not_replace_a_newer_one():
    held = columns()
    place = held.new("a", 0.0)
    held.update(place, 10.0, 1.0)
    held.update(place, 9.0, 2.0)
    held.update(place, 10.0, 3.0)
    assert held.at(10.0)[0].tolist() == [1.0]


def test_a_feature_never_heard_is_nan_and_stale():
    held = columns()
    held.new("a", 0.0)
    values, stale = held.at(0.0)
    assert math.isnan(values[0])
    assert stale.tolist() == [True]


def test_features_past_the_limit_are_counted_and_have_no_column():
    ledger = Ledger()
    held = Columns(1, None, ledger)
    held.set_interval(1.0, 60.0)
    for second in range(3):
        held.hold_newer(float(second), {"a": 1.0, "b": 2.0, "c": 3.0})
    assert held.names == ("a",)
    assert ledger.totals == {"once": 2, "crowded": 4}
    assert {entry.key for entry in ledger.entries} == {NEW_NAMES, "b", "c"}


def test_names_that_come_once_leave_room_for_a_sensor_that_stays():
    """After as many one-off names as there may be features a new sensor was ignored for ever."""
    held = columns(max_features=500)
    for i in range(2000):
        held.hold_newer(float(i), {f"message-{i}": 1.0, "pressure": 2.0})
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
    assert held.crowded
    moved = held.free(100_000.0, set())
    assert moved == {1: 0, 2: 1}
    assert held.places == {"b": 0, "c": 1}
    values, _ = held.at(100_000.0)
    np.testing.assert_array_equal(values, np.float32([10.0 + 99_993, 20.0 + 99_993]))
    assert held.names == ("b", "c")


def test_a_feature_that_only_says_null_keeps_its_place_for_a_day():
    held = columns(max_features=2)
    held.new("null", 0.0)
    held.new("x", 1.0)
    assert held.free(3600.0, set()) is None
    held.crowded = True
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
        held.update(held.new(name, 0.0), 10.0, 1.0)
    held.update(0, 12.0, 1.0)
    held.at(12.5)
    assert held.awaited == {0}
    held.hold_newer(12.4, {"b": 5.0})
    assert held.awaited == {0, 1}


def test_a_clock_that_is_set_moves_the_age_of_every_value_along():
    held = columns(max_hold_s=2.0)
    held.update(held.new("a", 0.0), 10.0, 1.0)
    held.shift(1000.0)
    assert not held.at(1011.0)[1].any()
    held.forget_times()
    values, stale = held.at(1011.0)
    assert stale.all()
    np.testing.assert_array_equal(values, [1.0])
