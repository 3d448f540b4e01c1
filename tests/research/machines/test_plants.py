"""Machines that live by shifts, jobs and cycles do what such machines do."""

from __future__ import annotations

import numpy as np

from gon_edge.research.machines import record
from gon_edge.research.machines.plants import fridge, pump
from gon_edge.research.machines.when import Event, When, midnight

MONDAY = midnight(2026, 1, 5)


def test_a_bakery_bakes_at_night_and_rests_on_sundays() -> None:
    made = record("bakery", 0, days=7)
    oven = made.values[:, made.features.index("oven_temp")].reshape(7, 1440)
    assert (oven[:6, 300] > 200.0).all()
    assert oven[6, 300] < 60.0


def test_a_cold_store_defrosts_four_times_a_day_and_stays_cold() -> None:
    made = record("cold store", 0, days=3)
    coil, room = (made.values[:, made.features.index(name)] for name in ("coil_temp", "room_temp"))
    warm = coil > 0.0
    assert np.count_nonzero(warm[1:] & ~warm[:-1]) == 12
    assert room.max() < -8.0


def test_a_server_backs_up_every_night_and_checks_on_sundays() -> None:
    made = record("server", 0, days=5)
    io = made.values[:, made.features.index("io")].reshape(5, 1440)
    assert (io[:, 125:145].mean(axis=1) > 40.0).all()
    week = record("server", 0, days=8).values[:, made.features.index("io")].reshape(8, 1440)
    assert week[6, 300] > 25.0 > week[:6, 300].max()


def test_a_fridge_cycles_and_a_compressor_that_runs_on_makes_it_colder() -> None:
    begin = MONDAY + 50_000.0
    events = [Event(begin, begin + 6000.0, "compressor runs on", 1.0)]
    free, stuck = (fridge(When(MONDAY, 1.0, 10.0, e), np.random.default_rng(2)) for e in ([], events))
    running = free["power"] > 50.0
    assert 15 < np.count_nonzero(running[1:] & ~running[:-1]) < 80
    assert stuck["temperature"].min() < free["temperature"].min() - 1.0


def test_a_bearing_that_wears_shakes_more_from_week_to_week() -> None:
    events = [Event(MONDAY + 7 * 86_400.0, MONDAY + 21 * 86_400.0, "bearing wears", 1.0)]
    told = pump(When(MONDAY, 21.0, 300.0, events), np.random.default_rng(0))
    on = told["current"] > 3.0
    shaking = [np.median(week[run]) for week, run in zip(np.split(told["vibration"], 3), np.split(on, 3), strict=True)]
    assert shaking[0] < shaking[1] < shaking[2]
