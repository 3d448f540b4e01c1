"""Machines that live by sun, weather and people do what such machines do."""

from __future__ import annotations

import numpy as np

from gon_edge.research.machines import record
from gon_edge.research.machines.buildings import greenhouse, solar
from gon_edge.research.machines.when import Event, When, midnight

MONDAY = midnight(2026, 1, 5)


def test_a_house_is_cooler_at_night_and_makes_hot_water_in_the_evening() -> None:
    made = record("house", 0, days=4)
    indoor, supply = (made.values[:, made.features.index(name)].reshape(4, 1440) for name in ("indoor", "supply"))
    assert (indoor[1:, 300:350].mean(axis=1) < indoor[1:, 900:1000].mean(axis=1) - 1.0).all()
    assert (supply[:, 960:1260].max(axis=1) > 44.0).all()


def test_an_office_is_empty_at_weekends_and_on_a_holiday() -> None:
    made = record("office, a holiday", 0)
    co2 = made.values[:, made.features.index("co2")].reshape(28, 1440).max(axis=1)
    empty = np.isin(np.arange(28) % 7, (5, 6)) | (np.arange(28) == 22)
    assert co2[empty].max() < 500.0 < co2[~empty].min()


def test_a_solar_system_stands_at_exact_zero_by_night() -> None:
    made = record("solar", 0, days=3)
    power = made.values[:, made.features.index("power")].reshape(3, 1440)
    assert not power[:, :240].any()
    assert (power[:, 720] > 0.0).all()


def test_a_dead_string_gives_half_of_the_other() -> None:
    when = When(MONDAY, 1.0, 60.0, [Event(MONDAY + 36_000.0, MONDAY + 50_000.0, "string dead", 1.0)])
    told = solar(when, np.random.default_rng(0))
    sunny = (when.level("string dead") > 0.0) & (told["string_2"] > 1.0)
    assert (told["string_1"][sunny] < 0.7 * told["string_2"][sunny]).all()


def test_a_vent_that_is_stuck_stays_closed_in_the_sun() -> None:
    events = [Event(MONDAY, MONDAY + 86_400.0, "vent stuck closed", 1.0)]
    free, stuck = (greenhouse(When(MONDAY, 1.0, 60.0, e), np.random.default_rng(2)) for e in ([], events))
    assert not stuck["vent"].any()
    assert stuck["temperature"].max() >= free["temperature"].max()
