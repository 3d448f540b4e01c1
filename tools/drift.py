"""What the alert kind ``drift`` is worth on made machines: false drifts, drifts found, days until they are told.

    python tools/drift.py [--seeds 10] [--days 56]

Each machine of `gon_edge.research.machines` runs for eight weeks without a fault.  Then a pump wears from the end of
the fourth week on, one reading at a time moves by some part of its mean a day, or jumps within what it does on a day.
Rows go through `gon_edge.stream.drift.DriftWatch` as those of a stream do; no row is left out for an alert, since no
model judges them.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from gon_edge.events import Cause  # noqa: E402
from gon_edge.research.machines.buildings import greenhouse, house, office, solar  # noqa: E402
from gon_edge.research.machines.plants import bakery, cold_store, fridge, pump, server  # noqa: E402
from gon_edge.research.machines.when import DAY_S, Event, When, midnight, offset_s  # noqa: E402
from gon_edge.stream.drift import DriftWatch  # noqa: E402

MACHINES = {"house": house, "office": office, "greenhouse": greenhouse, "solar": solar, "bakery": bakery,
            "cold store": cold_store, "server": server, "fridge": fridge, "pump": pump}  # fmt: skip
FAST = {"bakery", "cold store", "fridge"}
"""A row a minute: their thermostats need it.  The others have one in five minutes."""

BEGIN = midnight(2026, 1, 5)
WEAR_DAY = 24
"""The day on which drifts and jumps begin, after the three weeks that the watch needs."""

RATES = (0.05, -0.02)
"""Of its mean, by which a reading moves each day."""

JUMPS = (0.5, 2.0)
"""In what a reading does on an ordinary day, by which it jumps."""


def days(name: str, seed: int, count: int, events: tuple[Event, ...] = ()) -> tuple[tuple[str, ...], np.ndarray]:
    """Rows of each day, shape (D, T, F), with the names of the readings."""
    when = When(BEGIN, count, 60.0 if name in FAST else 300.0, events)
    readings = MACHINES[name](when, np.random.default_rng(seed))
    rows = np.stack(list(readings.values()), axis=1).astype(np.float32)
    return tuple(readings), rows.reshape(count, -1, len(readings))


def told(names: tuple[str, ...], rows: np.ndarray) -> Iterator[tuple[int, tuple[Cause, ...]]]:
    """The days (numbers from 0) on which an alert would begin, and what it would say."""
    watch = DriftWatch(offset_s=lambda timestamp: float(offset_s(np.array([timestamp]))[0]))
    watch.follow(names, (), rows[:14].min(axis=(0, 1)), rows[:14].max(axis=(0, 1)))
    interval_s = DAY_S / rows.shape[1]
    is_open = False
    for t, row in enumerate(rows.reshape(-1, len(names))):
        drifts = watch.take(BEGIN + t * interval_s, row, counts=True)
        if drifts and not is_open:
            yield t // rows.shape[1] - 1, drifts
        is_open = is_open if drifts is None else bool(drifts)


def moved(rows: np.ndarray, reading: int, rate: float) -> np.ndarray:
    """The rows with one reading moving by a part of its mean each day from ``WEAR_DAY`` on."""
    rows = rows.copy()
    since = np.maximum(0.0, np.arange(rows[..., reading].size).reshape(rows.shape[:2]) / rows.shape[1] - WEAR_DAY)
    rows[..., reading] += (rate * rows[:WEAR_DAY, :, reading].mean() * since).astype(np.float32)
    return rows


def jumped(rows: np.ndarray, reading: int, size: float) -> np.ndarray:
    """The rows with one reading that jumps by a part of its daily range at ``WEAR_DAY``."""
    rows = rows.copy()
    day = rows[:WEAR_DAY, :, reading]
    rows[WEAR_DAY:, :, reading] += np.float32(size * np.median(day.max(axis=1) - day.min(axis=1)))
    return rows


def found(delays: list[int | None]) -> str:
    """How many were found, and after how many days: the median, and the latest."""
    late = sorted(delay for delay in delays if delay is not None)
    span = f", after {late[len(late) // 2]} days by the median, {late[-1]} at most" if late else ""
    return f"{len(late)} of {len(delays)}{span}"


def first(names: tuple[str, ...], rows: np.ndarray, reading: str | None) -> int | None:
    """Days from ``WEAR_DAY`` until a drift of a reading is told, of any where it is ``None``."""
    for day, causes in told(names, rows):
        if day >= WEAR_DAY and (reading is None or any(cause.feature == reading for cause in causes)):
            return day + 1 - WEAR_DAY
    return None


def main() -> int:
    """Run all of it and print what came out."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--days", type=int, default=56)
    args = parser.parse_args()
    calm = [(name, *days(name, seed, args.days)) for seed in range(args.seeds) for name in MACHINES]
    false = [(name, day, causes[0].feature) for name, names, rows in calm for day, causes in told(names, rows)]
    print(f"false drifts: {len(false)} in {len(calm) * args.days / 7:.0f} weeks of {len(calm)} machines {false or ''}")
    end = BEGIN + args.days * DAY_S
    for strength in (1.0, 0.5):
        wear = (Event(BEGIN + WEAR_DAY * DAY_S, end, "bearing wears", strength),)
        worn = [days("pump", seed, args.days, wear) for seed in range(args.seeds)]
        print(f"pumps that wear, strength {strength}: {found([first(*one, None) for one in worn])}")
    some = calm[: 3 * len(MACHINES)]
    for rate in RATES:
        delays = [
            first(names, moved(rows, f, rate)[:42], name) for _, names, rows in some for f, name in enumerate(names)
        ]
        print(f"{rate:+.0%} a day: {found(delays)}")
    for size in JUMPS:
        jumps = [first(names, jumped(rows, f, size)[:42], None) for _, names, rows in some for f in range(len(names))]
        print(f"a jump of {size} of what it does on a day, called a drift: {found(jumps)}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
