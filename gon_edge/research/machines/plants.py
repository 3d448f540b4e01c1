"""Made machines that live by shifts, jobs and cycles: a bakery, a cold store, a server, a fridge, a pump.

Each takes its clock (with the faults in it) and randomness, and gives its readings by name, one array (T,) each.  Their
constants are of ordinary devices and nobody's measurements.
"""

from __future__ import annotations

import numpy as np

from gon_edge.research.machines.when import Array, When, rounded


def bakery(when: When, rng: np.random.Generator) -> dict[str, Array]:
    """An oven in a bakery: the night shift from Monday to Saturday, a shorter one on Saturday, batch after batch."""
    work = when.weekday < 6
    begin = 2.0 + when.each_day(rng, 0.15)
    end = np.where(when.weekday == 5, 8.0, 11.0) + when.each_day(rng, 0.25)
    shift = work & when.between(begin, end)
    hot = np.clip(shift + when.level("oven on after the shift"), 0.0, 1.0)
    baking = when.bursts(rng, 30.0 * (shift & when.between(begin + 0.9, end)), 18.0) & shift
    element = np.clip(1.0 - 0.5 * when.level("heating element weak"), 0.0, 1.0)
    loss = 1.0 + 1.5 * when.level("door does not close")
    step = when.interval_s / 3600.0
    oven, share, temperatures, shares = 40.0, 0.0, [], []
    for on, bread, part, leak in zip(*(x.tolist() for x in (hot, baking, element, loss)), strict=True):
        goal = min(1.0, max(0.0, (235.0 * on - oven) / 12.0 + 0.45 * on)) * part if on else 0.0
        share += min(1.0, step / 0.02) * (goal - share)
        oven += step * (620.0 * share - leak * 1.2 * (oven - 25.0) * (1.0 + 0.25 * bread))
        temperatures.append(oven)
        shares.append(share)
    oven_temp = np.array(temperatures)
    people = shift * np.clip(4.0 + when.each_day(rng, 0.7), 2.0, 6.0)
    hall = when.lag(19.0 + 0.02 * (oven_temp - 25.0) + 0.3 * people + when.wander(rng, 20.0, 1.0), 0.7)
    fan = np.clip(1.0 - when.level("exhaust fan dead"), 0.0, 1.0) * (0.15 + 0.7 * shift + 0.15 * baking)
    damp = when.lag(45.0 + 20.0 * baking + 25.0 * shift * (1.0 - fan), 0.25) + when.wander(rng, 10.0, 2.0)
    return {
        "oven_temp": rounded(oven_temp + when.noise(rng, 0.8), 0.5),
        "oven_power": rounded(28.0 * np.array(shares) + np.abs(when.noise(rng, 0.15)), 0.1),
        "hall_temp": rounded(hall + when.noise(rng, 0.06), 0.1),
        "humidity": rounded(damp + when.noise(rng, 0.3), 0.5),
        "exhaust": rounded(np.abs(100.0 * fan + when.noise(rng, 0.8)), 1.0),
    }


def cold_store(when: When, rng: np.random.Generator) -> dict[str, Array]:
    """A cold store: a compressor by a thermostat, four defrosts a day, doors that open by day, deliveries."""
    busy = when.weekday < 6
    doors = when.bursts(rng, 60.0 * (busy & when.between(6.0, 18.0)), 3.0).astype(np.float64)
    delivery = 7.0 + when.each_day(rng, 0.8)
    doors = np.clip(doors + (busy & when.between(delivery, delivery + 0.5)) + when.level("door left open"), 0.0, 1.0)
    due = (when.hour + 0.5) % 6.0 < 0.4
    defrost = due & (when.level("defrost missed") == 0.0) | (when.level("defrost does not end") > 0.0)
    ice = np.clip(4.0 * when.since("defrost missed"), 0.0, 0.8)
    strength = np.clip(1.0 - 0.35 * when.level("gas lost"), 0.1, 1.0) * (1.0 - ice)
    ambient = 14.0 + 3.0 * np.cos((when.hour - 15.0) / 24.0 * 2.0 * np.pi) + when.wander(rng, 40.0, 2.0)
    step = when.interval_s / 3600.0
    room, coil, on, rooms, coils, runs = -20.0, -25.0, True, [], [], []
    for warm, door, ended, part in zip(*(x.tolist() for x in (ambient, doors, defrost, strength)), strict=True):
        if ended:
            on = False
        elif room > -19.0:
            on = True
        elif room < -21.0:
            on = False
        target = 6.0 if ended else (room - 9.0 * part if on else room - 0.5)
        coil += min(1.0, step / 0.12) * (target - coil)
        room += step * (
            0.04 * (warm - room) + 0.25 * door * (warm - room) + 0.9 * (coil - room) * (0.2 if ended else 1.0)
        )
        rooms.append(room)
        coils.append(coil)
        runs.append(on)
    running = np.array(runs, np.float64)
    power = running * (3.2 + 0.04 * (ambient - 14.0) + 0.02 * (np.array(rooms) + 20.0)) + 4.0 * defrost + 0.25
    return {
        "room_temp": rounded(when.lag(np.array(rooms), 0.03) + when.noise(rng, 0.05), 0.1),
        "coil_temp": rounded(np.array(coils) + when.noise(rng, 0.15), 0.1),
        "power": rounded(power + when.noise(rng, 0.04), 0.01),
        "ambient": rounded(ambient + 0.4 * running + when.noise(rng, 0.08), 0.1),
    }


def server(when: When, rng: np.random.Generator) -> dict[str, Array]:
    """A server: visitors by day, a backup every night at two, a check on Sundays, later a new job every morning."""
    visitors = np.exp(0.9 * np.cos((when.hour - 15.0) / 24.0 * 2.0 * np.pi) + when.each_day(rng, 0.12))
    visitors = visitors * np.where(when.weekday < 5, 1.0, 0.65) * np.exp(when.wander(rng, 1.0, 0.15))
    late = when.each_day(rng, 0.03)
    backup = when.between(2.0 + late, 2.5 + late + 0.05 * np.abs(when.each_day(rng, 1.0)))
    backup = (backup & (when.level("backup missing") == 0.0)).astype(np.float64)
    check = ((when.weekday == 6) & when.between(4.0 + late, 6.0 + late)).astype(np.float64)
    morning = (when.between(6.0, 6.35) & (when.level("job at six") > 0.0)).astype(np.float64)
    morning = morning * (when.level("job missing") == 0.0)
    runaway = 35.0 * when.level("runaway process")
    cpu = 9.0 * visitors + 22.0 * backup + 30.0 * check + 28.0 * morning + runaway + 2.0
    cpu = cpu + np.abs(when.noise(rng, 1.5)) + 25.0 * when.bursts(rng, 6.0, 1.5)
    slow = 1.0 + 2.0 * when.level("disk slow")
    io = 3.0 + 1.5 * visitors + 55.0 * backup + 35.0 * check + 20.0 * morning
    wait = (1.0 + 0.12 * io) * slow * np.exp(when.noise(rng, 0.12))
    net = 2.0 + 9.0 * visitors + 60.0 * backup + 15.0 * morning + 70.0 * when.level("large upload at night")
    leak = np.clip(60.0 * when.since("memory leak"), 0.0, 45.0)
    memory = 38.0 + 2.0 * visitors + 6.0 * check + when.wander(rng, 12.0, 1.2) + leak
    shown = np.clip(cpu, 0.0, 100.0)
    return {
        "cpu": rounded(shown, 0.1),
        "io": rounded(np.abs(io * np.exp(when.noise(rng, 0.1))), 0.1),
        "io_wait": rounded(wait, 0.1),
        "net": rounded(np.abs(net * np.exp(when.noise(rng, 0.12))), 0.1),
        "memory": rounded(np.clip(memory + when.noise(rng, 0.15), 0.0, 100.0), 0.1),
        "cpu_temp": rounded(when.lag(38.0 + 0.35 * shown, 0.05) + when.wander(rng, 8.0, 0.8), 0.5),
    }


def fridge(when: When, rng: np.random.Generator) -> dict[str, Array]:
    """A fridge: a cycle of some forty minutes, a door that opens at meals, a kitchen that warms and cools."""
    kitchen = 20.0 + 1.5 * np.cos((when.hour - 18.0) / 24.0 * 2.0 * np.pi) + when.wander(rng, 10.0, 0.6)
    meals = when.between(6.5, 9.0) | when.between(11.5, 13.5) | when.between(17.5, 20.5)
    doors = when.bursts(rng, np.where(meals, 90.0, 8.0 * when.between(6.5, 23.0)), 0.7).astype(np.float64)
    doors = np.clip(doors + when.level("door left open"), 0.0, 1.0)
    strength = np.clip(1.0 - 0.4 * when.level("compressor weak"), 0.1, 1.0)
    stuck, dead = when.level("compressor runs on"), when.level("no power")
    step = when.interval_s / 3600.0
    inside, on, insides, runs = 5.0, False, [], []
    for warm, door, part, forced, off in zip(
        *(x.tolist() for x in (kitchen, doors, strength, stuck, dead)), strict=True
    ):
        on = (inside > 6.0 or (on and inside > 4.0) or forced > 0.0) and off == 0.0
        inside += step * (0.22 * (warm - inside) + 3.0 * door * (warm - inside) / 6.0 - 8.0 * part * on)
        insides.append(inside)
        runs.append(on)
    running = np.array(runs, np.float64)
    power = 72.0 * running + 180.0 * (np.diff(running, prepend=running[0]) > 0) * (when.interval_s <= 10.0)
    power = power + 12.0 * doors + 1.5
    return {
        "temperature": rounded(when.lag(np.array(insides), 0.05) + when.noise(rng, 0.03), 0.1),
        "power": rounded(np.abs(power * (dead == 0.0) + when.noise(rng, 0.6)), 0.1),
        "kitchen": rounded(kitchen + when.noise(rng, 0.04), 0.1),
    }


def pump(when: When, rng: np.random.Generator) -> dict[str, Array]:
    """A pump of a water tank: runs when the tank is low, faster by day; its bearing may wear over weeks."""
    use = 0.6 + 0.5 * np.exp(-(((when.hour - 7.5) / 1.5) ** 2)) + 0.4 * np.exp(-(((when.hour - 19.0) / 2.0) ** 2))
    use = use * np.exp(when.each_day(rng, 0.08) + when.wander(rng, 0.5, 0.1)) - 0.35 * when.between(0.0, 5.0)
    wear = when.since("bearing wears")  # days
    blocked = np.clip(1.0 - 0.4 * when.level("inlet blocked"), 0.05, 1.0)
    step = when.interval_s / 3600.0
    tank, on, runs = 2.0, False, []
    for drawn, part in zip(use.tolist(), blocked.tolist(), strict=True):
        on = tank < 1.0 or (on and tank < 3.0)
        tank += step * (2.4 * part * on - drawn)
        runs.append(on)
    running = np.array(runs, np.float64)
    ambient = 15.0 + 3.0 * np.cos((when.hour - 15.0) / 24.0 * 2.0 * np.pi) + when.wander(rng, 50.0, 2.0)
    heat = 22.0 + 0.5 * wear + 12.0 * when.level("bearing runs dry")
    vibration = running * (2.1 + 0.05 * wear + 2.0 * when.level("bearing runs dry") + 1.2 * when.level("impeller hit"))
    flow = running * 2.4 * blocked
    return {
        "vibration": rounded(np.abs((0.15 + vibration) * np.exp(when.noise(rng, 0.06))), 0.01),
        "bearing_temp": rounded(when.lag(ambient + heat * running, 0.35) + when.noise(rng, 0.1), 0.1),
        "flow": rounded(np.abs(when.lag(flow, 0.005) + when.noise(rng, 0.03)), 0.01),
        "current": rounded(np.abs(running * (6.5 + 0.8 * (1.0 - blocked) + 0.02 * wear) + when.noise(rng, 0.06)), 0.01),
        "ambient": rounded(ambient + when.noise(rng, 0.08), 0.1),
    }
