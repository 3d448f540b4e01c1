"""How much memory a training round takes, how long it lasts, and whether it keeps to its budget; torch beside it.

Fills a store with rows at 1 Hz for each number of features and rows, plans and runs one round on it as the daemon does
(a first model, then one judged against it), and prints the predicted and the measured peak of resident memory, the
budget and the duration.  Beside it, in a process of its own, a round of adversarial training of a plain GON of the
published size in torch: as many rows, windows of 15 rows, five epochs as published, but in batches of 64 with twenty
steps of generation each; the published procedure, a window at a time, takes far longer.

    python tools/bench_memory.py [--features 8 38 128] [--rows 10000 600000] [--no-torch] [--json]
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from gon_edge.events import Row
from gon_edge.state.folder import ModelFolder
from gon_edge.state.history import RetrainRecord
from gon_edge.state.store import Store
from gon_edge.training.job import Job
from gon_edge.training.plan import plan
from gon_edge.training.settings import FitSettings
from gon_edge.training.trainer import Trainer

MIB = 1 << 20
BUDGETS = {8: 48 * MIB, 38: 64 * MIB, 128: 64 * MIB}
DEADLINE_S = 1800.0


def main() -> int:
    """Run the benchmark and print it; 1 when a round outgrew its budget."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--features", type=int, nargs="+", default=[8, 38, 128], help="(default: 8 38 128)")
    parser.add_argument("--rows", type=int, nargs="+", default=[10_000, 600_000], help="(default: 10000 600000)")
    parser.add_argument("--no-torch", action="store_true", help="leave the round in torch out")
    parser.add_argument("--json", action="store_true", help="print one JSON object a line")
    parser.add_argument("--torch-round", nargs=2, type=int, metavar=("FEATURES", "ROWS"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.torch_round:
        torch_round(*options.torch_round)
        return 0
    if not options.json:
        print(
            f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, numpy {np.__version__}"
        )
        names = "F, rows stored, rows used, predicted, measured, budget, s, CPU s, torch: peak, s, CPU s, ratio"
        print(f"| {names.replace(', ', ' | ')} |")
        print("|---|---|---|---|---|---|---|---|---|---|---|---|")
    kept = True
    for features in options.features:
        for rows in options.rows:
            result = measure(features, rows, with_torch=not options.no_torch)
            kept &= result["peak_bytes"] <= result["budget_bytes"]
            print(json.dumps(result) if options.json else line(result), flush=True)
    return 0 if kept else 1


def measure(features: int, rows: int, *, with_torch: bool) -> dict:
    """One line of the table: a round that is judged against a first model."""
    with tempfile.TemporaryDirectory(prefix="gon-edge-bench-") as folder:
        fill(Path(folder), features, rows)
        models = ModelFolder(Path(folder))
        trainer = Trainer(Path(folder), models)
        first = finished(trainer, job(Path(folder), models, features, version="1"))
        if first.outcome != "promoted":
            raise SystemExit(f"F = {features}: the first round ended as {first.outcome}: {first.reason}")
        second = job(Path(folder), models, features, version="2", champion=str(models.file("bench")))
        planned = plan(second)
        spent = children_s()
        ended = finished(trainer, second)
        spent = children_s() - spent
        if ended.gate is None:
            raise SystemExit(f"F = {features}: the round ended as {ended.outcome}: {ended.reason}")
    result = {
        "features": features,
        "rows_stored": rows,
        "rows_used": planned.rows,
        "predicted_bytes": planned.predicted_peak_bytes,
        "peak_bytes": max(first.peak_bytes, ended.peak_bytes),
        "budget_bytes": second.budget_bytes,
        "duration_s": ended.duration_s,
        "cpu_s": spent,
        "outcome": ended.outcome,
    }
    return {**result, **(in_torch(features, planned.rows) if with_torch else {})}


def fill(folder: Path, features: int, rows: int) -> None:
    """A store of correlated waves with noise, at 1 Hz, a daily cycle in them."""
    rng = np.random.default_rng(0)
    names = tuple(f"sensor{f}" for f in range(features))
    period, phase = rng.uniform(30.0, 3600.0, features), rng.uniform(0.0, 6.0, features)
    fresh = np.zeros(features, np.bool_)
    with Store.open(folder, rows_per_stream=2 * rows, max_bytes=2048 * MIB) as store:
        for begin in range(0, rows, 1000):
            t = np.arange(begin, min(rows, begin + 1000))
            day = np.sin(2 * np.pi * t / 86400.0)
            values = np.sin(2 * np.pi * t[:, None] / period + phase) + 0.5 * day[:, None]
            values = (20.0 + values + rng.normal(0.0, 0.1, values.shape)).round(3).astype(np.float32)
            for moment, row in zip(t.tolist(), values, strict=True):
                store.add_row(Row("bench", float(moment), names, row, fresh, moment == 0), False, now=0.0)
            store.flush(0.0)


def job(folder: Path, models: ModelFolder, features: int, *, version: str, champion: str = "") -> Job:
    """A round as the daemon starts it, with every default but the budget."""
    return Job(
        stream="bench",
        state_dir=str(folder),
        candidate=str(models.file("bench").with_name("candidate.npz")),
        version=version,
        parent="",
        trained_at=0.0,
        until=1e12,
        max_rows=20_000,
        interval_s=1.0,
        settings=FitSettings(window=40, risk=1e-4),
        budget_bytes=BUDGETS.get(features, 64 * MIB),
        nice=0,
        deadline_s=DEADLINE_S,
        champion=champion,
    )


def finished(trainer: Trainer, asked: Job) -> RetrainRecord:
    """The round, run to its end."""
    trainer.start(asked)
    while (ended := trainer.poll()) is None:
        time.sleep(0.05)
    trainer.stop()  # its child would take another job
    return ended[0]


def children_s() -> float:
    """Processor seconds of the child processes that have ended: on a busy machine the clock says little."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def in_torch(features: int, rows: int) -> dict:
    """Peak and duration of :func:`torch_round` in a process of its own."""
    spent = children_s()
    told = subprocess.run(
        [sys.executable, __file__, "--torch-round", str(features), str(rows)],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"},
        timeout=DEADLINE_S,
    ).stdout
    return {**json.loads(told.splitlines()[-1]), "torch_cpu_s": children_s() - spent}


def torch_round(features: int, rows: int) -> None:
    """Train a plain GON in torch and print what it took."""
    began = time.monotonic()
    import torch

    torch.manual_seed(0)
    torch.set_num_threads(1)
    window, hidden = 15, 16
    data = torch.randn(rows, features)
    ends = torch.arange(window, rows)
    net = torch.nn.Sequential(
        torch.nn.Linear(window * features, hidden),
        torch.nn.LeakyReLU(0.2),
        torch.nn.Linear(hidden, hidden),
        torch.nn.LeakyReLU(0.2),
        torch.nn.Linear(hidden, 1),
    )
    optimizer = torch.optim.Adam(net.parameters(), lr=5e-4, weight_decay=1e-5)
    loss = torch.nn.BCEWithLogitsLoss()
    for batch in [batch for _ in range(5) for batch in ends[torch.randperm(len(ends))].split(64)]:
        real = torch.stack([data[end - window : end].flatten() for end in batch.tolist()])
        fake = torch.rand_like(real).requires_grad_()
        climb = torch.optim.Adam([fake], lr=0.01)
        for _ in range(20):
            climb.zero_grad()
            loss(net(fake), torch.ones(len(batch), 1)).backward()
            climb.step()
        optimizer.zero_grad()
        told = loss(net(real), torch.ones(len(batch), 1)) + loss(net(fake.detach()), torch.zeros(len(batch), 1))
        told.backward()
        optimizer.step()
    peak = next(
        int(text.split()[1]) * 1024 for text in Path("/proc/self/status").read_text().splitlines() if "VmHWM" in text
    )
    print(json.dumps({"torch_peak_bytes": peak, "torch_duration_s": time.monotonic() - began}))


def line(result: dict) -> str:
    """A line of the table, in MiB and seconds."""
    cells = [
        str(result["features"]),
        f"{result['rows_stored']:,}",
        f"{result['rows_used']:,}",
        f"{result['predicted_bytes'] / MIB:.1f}",
        f"{result['peak_bytes'] / MIB:.1f}",
        f"{result['budget_bytes'] / MIB:.0f}",
        f"{result['duration_s']:.1f}",
        f"{result['cpu_s']:.1f}",
    ]
    if "torch_peak_bytes" in result:
        ratio = result["torch_peak_bytes"] / result["peak_bytes"]
        cells += [f"{result['torch_peak_bytes'] / MIB:.0f}", f"{result['torch_duration_s']:.1f}"]
        cells += [f"{result['torch_cpu_s']:.1f}", f"1/{ratio:.1f}"]
    else:
        cells += ["", "", "", ""]
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    sys.exit(main())
