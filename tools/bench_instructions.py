"""How many instructions a row takes: a figure that no other load on the machine, no clock rate and no heat changes.

    python tools/bench_instructions.py [--rows 1000] [--valgrind] [--json]

Each way runs twice in a process of its own, over some rows and over three times as many, and the difference is what
the rows took: start, import and model cancel out.  ``perf`` counts where the processor lets it; this says why where it
does not.  ``--valgrind`` counts by simulation, which works anywhere and takes minutes.

Time is instructions / (instructions a cycle * cycles a second), and a processor's own: compare instructions of commits
on one machine, and instructions a cycle, which ``perf`` gives too, of machines.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

os.environ["OPENBLAS_NUM_THREADS"] = os.environ["OMP_NUM_THREADS"] = "1"
os.environ["PYTHONHASHSEED"] = "0"  # of the processes that are counted: another order of a set is another million
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np

from gon_edge import Detector, Row, fit_model
from gon_edge.commands.trial import suggested_config
from gon_edge.model.file import Model, load_model, save_model
from gon_edge.stream.pipeline import Pipeline
from gon_edge.stream.stream import Stream

TRAINING_ROWS, WALL = 600, 1.77e9
EVENTS = ("instructions:u", "cycles:u")
PARANOID = Path("/proc/sys/kernel/perf_event_paranoid")


class CannotCount(Exception):
    """Why nothing can be counted here, and what would help."""


def plant(count: int, features: int) -> np.ndarray:
    """A made-up plant: five slow oscillations, every sensor in its own mixture, and noise."""
    rng = np.random.default_rng(0)
    t = np.arange(count)[:, None]
    sources = np.sin(t / rng.uniform(5.0, 60.0, 5) + rng.uniform(0.0, 6.0, 5))
    return sources @ rng.normal(size=(5, features)) + 0.2 * rng.normal(size=(count, features))


def stream_rows(model: Model, count: int, *, faulty: bool = False) -> list[Row]:
    """Rows after those of the training; faulty ones have two sensors four deviations off."""
    values = plant(TRAINING_ROWS + count, len(model.features))[TRAINING_ROWS:].astype(np.float32)
    if faulty:
        values[:, :2] += 4.0 * model.scaler.scale[:2].astype(np.float32)
    stale = np.zeros(len(model.features), np.bool_)
    return [Row("bench", WALL + t, model.features, row, stale, is_whole=True) for t, row in enumerate(values)]


def score(model: Model, count: int) -> None:
    """Score rows."""
    detector = Detector(model)
    for row in stream_rows(model, count):
        detector.score(row)


def explain(model: Model, count: int) -> None:
    """Score rows in alarm, with the causes of each."""
    detector = Detector(model)
    for row in stream_rows(model, count, faulty=True):
        detector.score(row)
        detector.causes()


def messages(model: Model, count: int) -> None:
    """Take messages of JSON: decode, align, score, decide on alerts."""
    config = suggested_config({"topic": "bench/{stream}", "format": "json"})
    stream = Stream("a", config.stream("a"), model=model, max_features=config.limits.features)
    pipeline = Pipeline(config, lambda name, now: stream, offset_s=WALL)
    for t, row in enumerate(stream_rows(model, count)):
        payload = json.dumps(dict(zip(row.features, row.values.tolist(), strict=True))).encode()
        pipeline.take("bench/a", payload, float(t))
        pipeline.pass_time(float(t))


WAYS: dict[str, tuple[Callable[[Model, int], None], int]] = {
    "a message of 8 values, from JSON to the decision on alerts": (messages, 8),
    "a score, 8 features": (score, 8),
    "a score, 38 features": (score, 38),
    "a score with causes, in alarm, 8 features": (explain, 8),
    "a score with causes, in alarm, 38 features": (explain, 38),
}


def perf(command: list[str]) -> dict[str, int]:
    """Instructions and cycles of a command, by perf.

    Raises
    ------
    CannotCount
    """
    if shutil.which("perf") is None:
        raise CannotCount("perf is not installed: sudo apt install linux-perf")
    counted = ["perf", "stat", "--field-separator", ",", "--event", ",".join(EVENTS), "--", *command]
    done = subprocess.run(counted, capture_output=True, text=True, env={**os.environ, "LC_ALL": "C"})
    if done.returncode:
        allowed = PARANOID.read_text().strip() if PARANOID.exists() else "?"
        said = done.stderr.strip().splitlines()
        raise CannotCount(
            f"perf fails: {said[-1] if said else 'without a word'} (kernel.perf_event_paranoid is {allowed}; up to 2,"
            " sudo sysctl kernel.perf_event_paranoid=2, programs of one's own may be counted)"
        )
    return read_perf(done.stderr)


def read_perf(text: str) -> dict[str, int]:
    """What ``perf stat -x,`` has written, by event.

    Raises
    ------
    CannotCount
    """
    found = {}
    for line in text.splitlines():
        value, _, event = [*line.split(","), "", ""][:3]
        for wanted in EVENTS:
            if event.startswith(wanted.partition(":")[0]) and value.isdigit():
                found[wanted.partition(":")[0]] = int(value)
    if "instructions" not in found:
        raise CannotCount("the processor does not let perf count: most virtual machines have none of its counters")
    return found


def valgrind(command: list[str]) -> dict[str, int]:
    """Instructions of a command, by simulation.

    Raises
    ------
    CannotCount
    """
    if shutil.which("valgrind") is None:
        raise CannotCount("valgrind is not installed: sudo apt install valgrind")
    with tempfile.TemporaryDirectory() as folder:
        tool = ["valgrind", "--tool=cachegrind", "--cache-sim=no", f"--cachegrind-out-file={folder}/out"]
        done = subprocess.run([*tool, *command], capture_output=True, text=True)
    counts = [line.rpartition(":")[2] for line in done.stderr.splitlines() if "I   refs:" in line or "I refs:" in line]
    if done.returncode or not counts:
        raise CannotCount(f"valgrind fails: {done.stderr.strip()[-300:]}")
    return {"instructions": int(counts[-1].replace(",", ""))}


def a_row(way: str, model: Path, rows: int, count: Callable[[list[str]], dict[str, int]]) -> dict[str, float]:
    """What each row of a way takes, by event."""
    few, many = (count([sys.executable, __file__, "--child", way, str(model), str(times * rows)]) for times in (1, 3))
    return {event: (many[event] - few[event]) / (2 * rows) for event in few}


def main() -> int:
    """Count and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1000, help="rows of the shorter run; default: 1000")
    parser.add_argument("--valgrind", action="store_true", help="count by simulation, where perf cannot; minutes")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of text")
    parser.add_argument("--child", nargs=3, metavar=("WAY", "MODEL", "ROWS"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        way, path, rows = options.child
        WAYS[way][0](load_model(path), int(rows))
        return 0
    try:
        found = count_all(options.rows, valgrind if options.valgrind else perf)
    except CannotCount as reason:
        print(
            json.dumps({"not_counted": str(reason)}) if options.json else f"instructions a row: not counted. {reason}"
        )
        return 0  # so that `make bench` goes on to what can be measured
    if options.json:
        print(json.dumps({"machine": platform.machine(), "a_row": found}))
        return 0
    print(f"instructions a row, user space, {platform.machine()}, by {'valgrind' if options.valgrind else 'perf'}")
    for way, events in found.items():
        cycles = events.get("cycles", 0.0)
        pace = f", {events['instructions'] / cycles:.2f} a cycle" if cycles > 0.0 else ""
        print(f"{events['instructions'] / 1000.0:>10,.0f} thousand  {way}{pace}")
    return 0


def count_all(rows: int, count: Callable[[list[str]], dict[str, int]]) -> dict[str, dict[str, float]]:
    """Every way by what it takes a row."""
    count(["true"])  # says at once that nothing can be counted
    with tempfile.TemporaryDirectory(prefix="gon-edge-bench-") as folder:
        models = {}
        for features in {size for _, size in WAYS.values()}:
            models[features] = Path(folder, f"{features}.npz")
            model = fit_model(plant(TRAINING_ROWS, features), rng=np.random.default_rng(0))
            save_model(model, models[features])
        return {way: a_row(way, models[features], rows, count) for way, (_, features) in WAYS.items()}


if __name__ == "__main__":
    sys.exit(main())
