"""The columns of a stream's rows: what is held, how long, and how many there may be."""

from __future__ import annotations

import math

import numpy as np

from gon_edge.stream.columns import HOLD_CADENCES, Columns


def columns(max_features: int = 10, max_hold_s: float | None = None) -> Columns:
    made = Columns(max_features, max_hold_s)
    made.set_interval(1.0, 60.0)
    return made


def test_a_value_is_held_for_five_of_its_own_cadences():
    held = columns()
    place = held.new("slow")
    for t in range(5):
        held.update(place, 10.0 * t, float(t))
    last = 40.0
    assert held.at(last + HOLD_CADENCES * 10.0)[1].tolist() == [False]
    assert held.at(last + HOLD_CADENCES * 10.0 + 0.1)[1].tolist() == [True]


def test_an_older_value_does_not_replace_a_newer_one():
    held = columns()
    place = held.new("a")
    held.update(place, 10.0, 1.0)
    held.update(place, 9.0, 2.0)
    held.update(place, 10.0, 3.0)
    assert held.at(10.0)[0].tolist() == [1.0]


def test_a_feature_never_heard_is_nan_and_stale():
    held = columns()
    held.new("a")
    values, stale = held.at(0.0)
    assert math.isnan(values[0])
    assert stale.tolist() == [True]


def test_features_past_the_limit_are_counted_and_have_no_column():
    held = columns(max_features=1)
    held.hold_newer(1.0, {"a": 1.0, "b": 2.0, "c": 3.0})
    assert held.names == ("a",)
    assert held.ignored == 2


def test_names_are_the_same_object_until_there_is_a_new_one():
    held = columns()
    held.new("a")
    before = held.names
    assert held.names is before
    held.new("b")
    assert held.names == ("a", "b")


def test_only_columns_that_are_not_stale_are_awaited():
    held = columns(max_hold_s=2.0)
    for name in ("a", "b"):
        held.update(held.new(name), 10.0, 1.0)
    held.update(0, 12.0, 1.0)
    held.at(12.5)
    assert held.awaited == {0}
    held.hold_newer(12.4, {"b": 5.0})
    assert held.awaited == {0, 1}


def test_a_clock_that_is_set_moves_the_age_of_every_value_along():
    held = columns(max_hold_s=2.0)
    held.update(held.new("a"), 10.0, 1.0)
    held.shift(1000.0)
    assert not held.at(1011.0)[1].any()
    held.forget_times()
    values, stale = held.at(1011.0)
    assert stale.all()
    np.testing.assert_array_equal(values, [1.0])
