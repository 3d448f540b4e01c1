"""Made machines that live by sun, weather and people: a house, an office, a greenhouse, a solar inverter.

Each takes its clock (with the faults in it) and randomness, and gives its readings by name, one array (T,) each.  Their
constants are of ordinary devices and nobody's measurements.
"""

from __future__ import annotations

import numpy as np

from gon_edge.research.machines.when import Array, When, rounded, weather


def house(when: When, rng: np.random.Generator) -> dict[str, Array]:
    """A house with a heat pump: set back at night, hot water once a day, weather, and people who air the rooms."""
    outdoor, sun = weather(when, rng)
    set_point = np.where(when.between(6.0, 22.0), 21.0, 18.0)
    set_point = set_point + 3.0 * when.level("day mode at night") - 4.0 * when.level("away")
    alive = np.clip(1.0 - when.level("heat pump dead"), 0.0, 1.0)
    bath = 18.0 + when.each_day(rng, 0.7)
    water = when.between(bath, bath + 0.6) & (when.level("away") == 0.0)
    home = when.level("away") == 0.0
    gains = 0.25 * sun + 0.12 * home * when.bursts(rng, 4.0 * when.between(7.0, 22.0), 60.0)
    airing = when.bursts(rng, 2.0 * home * when.between(7.0, 21.0), 12.0)
    loss = 1.0 / 30.0 + 0.05 * airing + 0.12 * when.level("window left open")
    step = when.interval_s / 3600.0
    indoor, supply, inside, water_in, shares = 20.0, 30.0, [], [], []
    for goal, out, part, gain, leak, hot in zip(
        *(x.tolist() for x in (set_point, outdoor, alive, gains, loss, water)), strict=True
    ):
        demand = min(1.0, max(0.0, (goal - out) / 57.0 + 0.8 * (goal - indoor)))
        demand = part * (1.0 if hot else demand)
        supply += min(1.0, step / 0.4) * (indoor + (30.0 if hot else 27.0) * demand - supply)
        emitted = 0.0 if hot else 0.07 * (supply - indoor)
        indoor += step * (emitted - leak * (indoor - out) + gain)
        inside.append(indoor)
        water_in.append(supply)
        shares.append(demand)
    power = 2200.0 * np.array(shares) * (1.25 - 0.02 * outdoor) + 60.0 + when.noise(rng, 12.0)
    told = np.array(inside) + 5.0 * when.level("indoor reads high")
    return {
        "indoor": rounded(told + when.noise(rng, 0.03), 0.1),
        "outdoor": rounded(outdoor + when.noise(rng, 0.05), 0.1),
        "power": rounded(power, 1.0),
        "supply": rounded(np.array(water_in) + when.noise(rng, 0.1), 0.1),
    }


def office(when: When, rng: np.random.Generator) -> dict[str, Array]:
    """A floor of an office: people from Monday to Friday, air and heating by the clock, calm at weekends."""
    outdoor, sun = weather(when, rng)
    working = (when.weekday < 5) & (when.level("public holiday") == 0.0)
    came = 8.2 + when.each_day(rng, 0.25)
    left = 17.3 + when.each_day(rng, 0.4)
    many = np.clip(22.0 + when.each_day(rng, 3.0), 8.0, 30.0)
    lunch = 1.0 - 0.5 * np.exp(-(((when.hour - 12.5) / 0.5) ** 2))
    there = 1.0 / (1.0 + np.exp(-(when.hour - came) * 3.0)) / (1.0 + np.exp((when.hour - left) * 2.5))
    people = np.clip(many * there * lunch * working + when.wander(rng, 0.5, 1.0) * working * (there > 0.3), 0.0, None)
    airing = np.where(working & when.between(6.0, 19.5), 1.0, 0.15)
    airing = airing * np.clip(1.0 - 0.8 * when.level("ventilation dead"), 0.0, 1.0)
    heated = np.where(working & when.between(5.0, 18.0), 21.5, 18.5) - 3.0 * when.level("heating dead")
    step = when.interval_s / 3600.0
    co2, levels = 430.0, []
    for count, air in zip(people.tolist(), airing.tolist(), strict=True):
        co2 += step * (320.0 * count / 5.0 - (0.2 + 2.2 * air) * (co2 - 420.0))
        levels.append(co2)
    warm = when.lag(heated + 0.05 * people + 1.5 * sun + 0.05 * (outdoor - 4.0), 2.0)
    warm = warm - 4.0 * when.lag(when.level("window left open"), 0.5)
    lights = np.clip(people / 12.0 + when.level("lights left on"), 0.0, 1.0)
    power = 900.0 + 95.0 * people + 1400.0 * lights + 600.0 * airing + when.wander(rng, 0.3, 40.0)
    traffic = 4.0 + 2.2 * people * (1.0 + 0.3 * np.tanh(when.wander(rng, 0.1, 1.0))) + np.abs(when.noise(rng, 1.0))
    return {
        "co2": rounded(np.array(levels) + when.noise(rng, 6.0), 1.0),
        "temperature": rounded(warm + when.wander(rng, 2.0, 0.12) + when.noise(rng, 0.03), 0.1),
        "power": rounded(power + when.noise(rng, 15.0), 1.0),
        "light": rounded(20.0 + 400.0 * lights + 250.0 * sun + np.abs(when.noise(rng, 3.0)), 1.0),
        "traffic": rounded(traffic, 0.1),
    }


def greenhouse(when: When, rng: np.random.Generator) -> dict[str, Array]:
    """A greenhouse: sun, lamps before dawn, a vent that opens with heat, watering twice a day."""
    outdoor, sun = weather(when, rng, mean=9.0)
    lamps = when.between(4.0, 8.0) * (sun < 0.3) + 1.0 * when.level("lamps on at night")
    lamps = np.clip(lamps, 0.0, 1.0)
    wet_at = 9.0 + when.each_day(rng, 0.1)
    watering = when.between(wet_at, wet_at + 0.4) | when.between(wet_at + 6.0, wet_at + 6.3)
    watering = watering & (when.level("watering missed") == 0.0)
    stuck = np.clip(when.level("vent stuck closed"), 0.0, 1.0)
    heat = np.clip(1.0 - when.level("heating dead"), 0.0, 1.0)
    step = when.interval_s / 3600.0
    inside, air, wet, vent = 17.0, [], [], 0.0
    damp, vents = 70.0, []
    for out, shine, lamp, water, shut, heater in zip(
        *(x.tolist() for x in (outdoor, sun, lamps, watering, stuck, heat)), strict=True
    ):
        vent += min(1.0, step / 0.2) * (min(1.0, max(0.0, (inside - 23.0) / 5.0)) * (1.0 - shut) - vent)
        heating = heater * max(0.0, 17.0 - inside) * 3.0
        inside += step * (14.0 * shine + 2.5 * lamp + heating - (0.45 + 2.0 * vent) * (inside - out))
        damp += step * (60.0 * water + 0.4 * (78.0 - damp) - (0.5 + 2.0 * vent) * (damp - 62.0) - 6.0 * shine)
        damp = min(99.0, max(25.0, damp))
        air.append(inside)
        wet.append(damp)
        vents.append(vent)
    told = np.array(air) + 3.0 * when.level("sensor replaced")
    return {
        "temperature": rounded(told + when.noise(rng, 0.08), 0.1),
        "humidity": rounded(np.array(wet) + when.wander(rng, 0.5, 0.8) + when.noise(rng, 0.3), 0.1),
        "light": rounded(600.0 * sun + 180.0 * lamps + np.abs(when.noise(rng, 3.0)), 1.0),
        "vent": rounded(100.0 * np.array(vents), 1.0),
        "outdoor": rounded(outdoor + when.noise(rng, 0.05), 0.1),
    }


def solar(when: When, rng: np.random.Generator) -> dict[str, Array]:
    """A photovoltaic system: two strings, an inverter, and exact zeros all night."""
    outdoor, sun = weather(when, rng)
    passing = np.clip(1.0 - 0.6 * when.bursts(rng, 30.0, 4.0), 0.1, 1.0)
    shine = when.lag(sun * passing, 0.01)
    up = shine > 0.01
    alive = np.clip(1.0 - when.level("inverter off"), 0.0, 1.0)
    first = shine * 3000.0 * np.clip(1.0 - 0.5 * when.level("string dead"), 0.0, 1.0)
    second = shine * 2900.0 * (1.0 - 0.3 * when.level("leaves on the panel"))
    volts = np.where(up, 380.0 + 25.0 * np.tanh(shine * 3.0) - 0.8 * (outdoor + 20.0 * shine), 0.0)
    power = (first + second) * 0.96 * alive
    warm = when.lag(outdoor + 4.0 + power / 350.0 + 6.0 * when.level("fan dead") * (power > 200.0), 0.4)
    jitter = 1.0 + when.noise(rng, 0.01)
    return {
        "power": rounded(np.where(up, power * jitter, 0.0), 1.0),
        "string_1": rounded(np.where(up, first * alive / np.maximum(volts, 1.0), 0.0) * jitter, 0.01),
        "string_2": rounded(np.where(up, second * alive / np.maximum(volts, 1.0), 0.0) * jitter, 0.01),
        "voltage": rounded(np.where(up, volts + when.noise(rng, 1.5), 0.0), 0.1),
        "inverter_temp": rounded(warm + when.noise(rng, 0.1), 0.1),
    }
