"""Weeks of machines through the whole daemon in virtual time: false alerts a week, faults found, time in alarm.

    python tools/weeks.py [--quick] [--scenarios house server] [--seeds 0 1 2] [--jobs 2] [--out build/weeks.csv]
    python tools/weeks.py --out docs/weeks.csv && python tools/results.py    # the tables of docs/detection.md

Every scenario of `gon_edge.research.machines` runs with default settings and a seed each, and every public recording of
`gon_edge.research.recordings` that is there; `gon_edge.research.weeks` says what is counted.  Two tables go to the
terminal, every figure to OUT, as soon as it is known: a line of the file stands until its recording runs again.
``--quick`` takes one seed and the first two weeks of each.
"""

from __future__ import annotations

import argparse
import csv
import logging
import os
import sys
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from gon_edge.config.file import parse_config  # noqa: E402
from gon_edge.research import weeks  # noqa: E402
from gon_edge.research.datasets import available  # noqa: E402
from gon_edge.research.machines import GRADES, SCENARIOS, Recording, record  # noqa: E402
from gon_edge.research.recordings import PUBLIC, recorded  # noqa: E402

QUICK_DAYS = 14.0

CONFIG = {"node": "weeks", "state_dir": "/nowhere", "mqtt": {"url": "mqtt://localhost"},
          "subscriptions": [{"topic": "machines/{stream}", "format": "json"}]}  # fmt: skip
"""All else has its default.  A rehearsal has no broker and a folder of its own."""


def main() -> int:
    """Run what is asked for, write the file and show the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenarios", nargs="+", default=[""], help="names, or how they begin; 'recorded' for those")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--quick", action="store_true", help="seed 0, two weeks")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "weeks.csv")
    options = parser.parse_args()
    public = [name for name, one in PUBLIC.items() if one.dataset in available()]
    names = [name for name in (*SCENARIOS, *public) if any(name.startswith(begin) for begin in options.scenarios)]
    seeds = [0] if options.quick else options.seeds
    days = QUICK_DAYS if options.quick else None
    wanted = [(name, seed) for seed in seeds for name in names if name in SCENARIOS or seed == seeds[0]]
    known = read(options.out)
    with ProcessPoolExecutor(options.jobs) as pool:
        running = [pool.submit(one, name, seed, days) for name, seed in wanted]
        for done, future in enumerate(as_completed(running), 1):
            course, took_s = future.result()
            known[course.name, course.seed] = course
            write(options.out, known)
            found = sum(fault.delay_s is not None for fault in course.faults)
            print(f"{done}/{len(wanted)}  {course.name}, seed {course.seed}: {course.false} false alerts in "
                  f"{course.weeks:.1f} weeks, {found} of {len(course.faults)} faults, {took_s:.0f} s",
                  file=sys.stderr)  # fmt: skip
    courses = [known[key] for key in sorted(wanted, key=_place)]
    print(weeks.markdown(weeks.COLUMNS, weeks.by_scenario(courses)))
    print()
    print(weeks.markdown(["Fault", *GRADES.values()], weeks.by_kind(courses)))
    return 0


def one(name: str, seed: int, days: float | None) -> tuple[weeks.Course, float]:
    """One recording, in a process of its own; and the seconds it took."""
    logging.disable()  # what a daemon says of every alert and training
    os.environ["TZ"] = "Europe/Berlin"  # the machines live by its clock, and so does a daemon beside them
    time.tzset()
    began = time.monotonic()
    recording: Recording = record(name, seed, days=days) if name in SCENARIOS else recorded(name)
    return weeks.play(recording, seed, parse_config(CONFIG)), time.monotonic() - began


Courses = dict[tuple[str, int], weeks.Course]


def read(path: Path) -> Courses:
    """The courses of a file; none where there is no file."""
    if not path.exists():
        return {}
    with path.open(encoding="utf-8", newline="") as file:
        return {(course.name, course.seed): course for course in weeks.courses_of(csv.DictReader(file))}


def write(path: Path, courses: Courses) -> None:
    """Write all courses, in the order of their scenarios."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, weeks.FIELDS, lineterminator="\n")
        writer.writeheader()
        for key in sorted(courses, key=_place):
            writer.writerows(weeks.record_of(courses[key]))


def _place(key: tuple[str, int]) -> tuple[int, int]:
    return [*SCENARIOS, *PUBLIC].index(key[0]), key[1]


if __name__ == "__main__":
    sys.exit(main())
