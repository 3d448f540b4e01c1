"""Weeks of made machines through the whole daemon in virtual time: false alerts a week, faults found, time in alarm.

    python tools/weeks.py [--quick] [--scenarios house server] [--seeds 5] [--jobs 2] [--out build/weeks]

Every scenario of `gon_edge.research.machines` runs with default settings and a seed each; `gon_edge.research.weeks`
says what is counted.  Two tables go to the terminal and to OUT.md, every figure to OUT.csv.  ``--quick`` takes one seed
and the first two weeks of each.
"""

from __future__ import annotations

import argparse
import csv
import logging
import os
import sys
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from gon_edge.config.file import parse_config  # noqa: E402
from gon_edge.research import weeks  # noqa: E402
from gon_edge.research.machines import GRADES, SCENARIOS, record  # noqa: E402

QUICK_DAYS = 14.0
COLUMNS = ("scenario", "seed", "weeks", "false", "early", "in_alarm", "promoted", "refused", "kind", "strength",
           "found", "delay_min")  # fmt: skip

CONFIG = {"node": "weeks", "state_dir": "/nowhere", "mqtt": {"url": "mqtt://localhost"},
          "subscriptions": [{"topic": "machines/{stream}", "format": "json"}]}  # fmt: skip
"""All else has its default.  A rehearsal has no broker and a folder of its own."""


def main() -> int:
    """Run what is asked for and write the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenarios", nargs="+", default=list(SCENARIOS), help="names, or how they begin")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="one seed, two weeks")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "weeks")
    options = parser.parse_args()
    names = [name for name in SCENARIOS if any(name.startswith(wanted) for wanted in options.scenarios)]
    wanted = [(name, seed) for seed in range(1 if options.quick else options.seeds) for name in names]
    days = QUICK_DAYS if options.quick else None
    courses = []
    with ProcessPoolExecutor(options.jobs) as pool:
        running = [pool.submit(one, name, seed, days) for name, seed in wanted]
        for done, future in enumerate(as_completed(running), 1):
            course = future.result()
            courses.append(course)
            found = sum(fault.delay_s is not None for fault in course.faults)
            print(f"{done}/{len(wanted)}  {course.name}, seed {course.seed}: {course.false} false alerts in "
                  f"{course.weeks:.1f} weeks, {found} of {len(course.faults)} faults", file=sys.stderr)  # fmt: skip
    courses.sort(key=lambda course: (names.index(course.name), course.seed))
    text = "\n\n".join(
        [
            weeks.markdown(weeks.COLUMNS, weeks.by_scenario(courses)),
            weeks.markdown(["Fault", *GRADES.values()], weeks.by_kind(courses)),
        ]
    )
    print(text)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.with_suffix(".md").write_text(text + "\n")
    with options.out.with_suffix(".csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(line for course in courses for line in weeks.record_of(course))
    return 0


def one(name: str, seed: int, days: float | None) -> weeks.Course:
    """One recording, in a process of its own."""
    logging.disable()  # what a daemon says of every alert and training
    return weeks.play(record(name, seed, days=days), seed, parse_config(CONFIG))


if __name__ == "__main__":
    sys.exit(main())
