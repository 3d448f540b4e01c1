"""Telemetry of machines that never were, to train a starter model on, and of this one, to check that model with.

    python tools/host_telemetry.py record host.csv --interval 1 --minutes 30   # what `gon-edge publish` would send
    python tools/host_telemetry.py check host.csv                              # alerts the shipped model would raise

`simulate` is what the shipped model ``host`` learns from (tools/train_models.py).  A recording of one machine would
hold its levels and its owner's habits, and nobody could make it again.

Two features, which every machine has and which mean the same on each: processor time, and memory in use *relative to
the first row*, whose level differs from machine to machine.  What goes to and from disk and network was tried and left
out: it spans five orders of magnitude, so that its normal bursts set the threshold and hid the processor.  Load,
frequency, temperature and single cores depend on the machine, and pressure on the kernel.
"""

from __future__ import annotations

import argparse
import csv
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import numpy as np  # noqa: E402
from numpy.typing import NDArray  # noqa: E402

FEATURES = ("cpu.total", "memory.used_percent")
"""What the model ``host`` watches, both in percent."""

WARMUP_ROWS = 600
"""Rows a starter model is in use for, in the default configuration."""

_CORES = (1, 2, 4, 8, 16)
_BEFORE_ROWS = 300
"""A stream may begin in the middle of a job: memory then falls below where it began."""

_LARGEST_PERCENT = 5.0
"""Most memory that one job of the ordinary kind takes.  With 2.5 and 4.0 a machine of 24 GiB on which several people
tested software raised several false alerts in half an hour, with 5.0 hardly any."""


def simulate(rng: np.random.Generator, rows: int) -> NDArray[np.float64]:
    """One machine in ordinary use: rest, bursts, jobs that take a part of it or all of it.

    Lengths are in rows: the same model is to serve intervals from half a second to ten.

    Parameters
    ----------
    rng : numpy.random.Generator
        Draws the machine, too: how many cores, how busy at rest, how much its memory flickers.
    rows : int

    Returns
    -------
    ndarray, shape (rows, 2)
        In the order of `FEATURES`; memory relative to the first row.
    """
    rows += _BEFORE_ROWS
    core = 100.0 / int(rng.choice(_CORES))
    cpu = np.exp(rng.normal(np.log(2.5), 0.8)) * np.exp(rng.normal(0.0, 0.4, rows))
    grain = rng.uniform(0.02, 0.15)
    memory = np.cumsum(rng.normal(0.0, grain / 20.0, rows)) + rng.normal(0.0, grain, rows)

    def work(once_in: int, length: tuple[int, int], share: tuple[float, float], spread: float, taken: float) -> None:
        for begin in np.flatnonzero(rng.random(rows) < 1.0 / once_in).tolist():
            part = slice(begin, begin + int(rng.integers(*length)))
            count = len(cpu[part])
            cpu[part] += rng.uniform(*share) * np.minimum(np.exp(rng.normal(0.0, spread, count)), 1.3)
            growth = np.minimum(1.0, np.arange(1, count + 1) / rng.integers(1, 12))
            memory[part] += taken * min(1.0, rng.exponential(0.3)) * growth

    work(60, (1, 5), (0.3 * core, 1.5 * core), 0.2, 0.3 * _LARGEST_PERCENT)  # something is started, or asked for
    work(600, (2, 13), (50.0, 110.0), 0.15, _LARGEST_PERCENT)  # every core, for a moment
    work(1500, (30, 240), (5.0, 60.0), 0.35, _LARGEST_PERCENT)  # a copy, a film
    work(4000, (30, 300), (80.0, 130.0), 0.15, _LARGEST_PERCENT)  # an upgrade, a backup, a compiler
    cpu, memory = cpu[_BEFORE_ROWS:], memory[_BEFORE_ROWS:]
    return np.column_stack([np.minimum(cpu, 100.0), memory - memory[0]])


def _record(options: argparse.Namespace) -> int:
    from gon_edge.process.host import HostTelemetry

    host = HostTelemetry()
    due = time.monotonic()
    with options.file.open("w", newline="", buffering=1) as file:
        writer = csv.writer(file)
        columns: list[str] = []
        for _ in range(round(60.0 * options.minutes / options.interval)):
            due = max(due + options.interval, time.monotonic())  # what was missed is not made up for
            time.sleep(max(0.0, due - time.monotonic()))
            values = host.sample()
            if not columns:
                columns = list(values)
                writer.writerow(["time", *columns])
            writer.writerow([f"{time.time():.3f}", *(values.get(name, "") for name in columns)])
    return 0


def read_recording(file: Path) -> NDArray[np.float64]:
    """The model's features of a recording, shape (T, 2), in the order of `FEATURES`; levels as they were."""
    with file.open(newline="") as lines:
        table = list(csv.DictReader(lines))
    return np.array([[float(row[name] or "nan") for name in FEATURES] for row in table])


def _check(options: argparse.Namespace) -> int:
    from gon_edge.config.schema import AlertsConfig
    from gon_edge.events import Row
    from gon_edge.model.detector import Detector
    from gon_edge.state.catalog import shipped_model
    from gon_edge.stream.alerts import AlertPolicy

    model = shipped_model("host").load()
    rng = np.random.default_rng(1)
    simulated = np.concatenate([simulate(rng, WARMUP_ROWS) for _ in range(100)])
    print("feature              rows of            5 %     50 %     95 %      max")
    for i, name in enumerate(FEATURES):
        recorded = np.concatenate([read_recording(file)[:, i] for file in options.files])
        recorded = recorded - recorded[0] if i else recorded
        for what, column in (("recording", recorded), ("simulation", simulated[:, i])):
            print(f"{name:<20} {what:<12}", *(f"{np.nanquantile(column, q):8.2f}" for q in (0.05, 0.5, 0.95, 1.0)))
    for file in options.files:
        rows = read_recording(file)
        rows = rows[~np.isnan(rows).any(axis=1)]
        alerts = scored = above = 0
        for begin in range(0, len(rows) - 60, WARMUP_ROWS):  # a fresh daemon every 600 rows
            piece = rows[begin : begin + WARMUP_ROWS].astype(np.float32)
            detector = Detector(model.at_level_of(FEATURES, piece[0]))
            policy = AlertPolicy("host", AlertsConfig())
            for t, values in enumerate(piece):
                verdict = detector.score(Row("host", float(t), FEATURES, values, np.zeros(2, np.bool_)))
                for alert in policy.update(verdict, detector.causes):
                    if alert.type == "new":
                        alerts += 1
                        causes = ", ".join(f"{cause.feature} {cause.value}" for cause in alert.top_features)
                        print(f"{file.name}: row {begin + t}, {alert.kind}: {causes}")
                above += verdict.is_anomaly
            scored += len(piece)
        busy = float(np.mean(rows[:, 0] > 90.0))
        print(f"{file.name}: {scored} rows, processors above 90 % in {100 * busy:.0f} % of them; "
              f"{above} rows above the threshold, {alerts} alerts")  # fmt: skip
    return 0


def main() -> int:
    """Record or check; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    record = commands.add_parser("record", help="write this machine's telemetry to a CSV file")
    record.add_argument("file", type=Path)
    record.add_argument("--interval", type=float, default=0.5, help="seconds (default: 0.5, as publish)")
    record.add_argument("--minutes", type=float, default=10.0, help="how long (default: 10)")
    record.set_defaults(command=_record)
    check = commands.add_parser("check", help="compare recordings with the simulation, and count alerts")
    check.add_argument("files", type=Path, nargs="+")
    check.set_defaults(command=_check)
    options = parser.parse_args()
    return int(options.command(options))


if __name__ == "__main__":
    sys.exit(main())
