"""How long one window takes: ours, ours with its causes, and the procedure of the reference implementation.

    python tools/bench_scoring.py [--windows 15 40] [--features 38] [--rounds 30] [--json]

Every window is judged by itself, as a stream delivers them, on one thread.  The ways take turns in short blocks of one
run, so that they meet the same noise of the machine; ratios are taken block by block.  Time is that of the processor:
by the clock on the wall, a busy machine interrupts a window of the reference many times and one of ours never.  Two
sensors are four deviations off, so that causes are those of rows in alarm: others every 500 rows, since those that
stay away are soon judged from there.

The reference procedure is rebuilt in torch: float64, a discriminator of W F -> 16 -> 16 -> 1, one window, gradient
steps on the window by a fresh Adam (rate 0.01, cosine of period 10), cut to [0, 1] after each, at most 100 of them,
fewer when eleven in a row changed little.  Its weights are trained as published, which matters: an untrained network
takes all 100 steps, a trained one, whose output is 0.5 everywhere, stops after 23.  Both are measured.  Its score is
how far it moved the window; ours needs no climb, and its causes one.  Without torch only ours is measured.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

os.environ["OPENBLAS_NUM_THREADS"] = os.environ["OMP_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = "1"
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np

try:
    import torch
except ImportError:  # a board of 512 MB has no room for it
    torch = None

from gon_edge import Detector, FitSettings, Row, fit_model
from gon_edge.research.reference_gon import ReferenceGON

OURS_A_BLOCK, REFERENCE_A_BLOCK = 50, 4
TOLERANCE, PATIENCE, STEPS = 1e-4, 10, 100
QUANTILES = {"p25": 0.25, "median": 0.5, "p75": 0.75, "p99": 0.99}
WAYS = ("score", "score and causes", "reference", "reference, 100 steps")
OFF_SENSORS, OFF_BY, OFF_ROWS = 2, 4.0, 500
RATIOS = [(theirs, ours) for theirs in WAYS[2:] for ours in WAYS[:2]]


class Reference:
    """The reference's way to score one window."""

    def __init__(self, trained: ReferenceGON, *, stops_early: bool) -> None:
        length = trained.shapes_[0][1]
        self.net = torch.nn.Sequential(
            torch.nn.Linear(length, 16), torch.nn.LeakyReLU(1.0),
            torch.nn.Linear(16, 16), torch.nn.LeakyReLU(1.0),
            torch.nn.Linear(16, 1), torch.nn.Sigmoid(),
        ).double()  # fmt: skip
        self.net.requires_grad_(False)
        torch.nn.utils.vector_to_parameters(torch.tensor(trained.theta_), self.net.parameters())
        self.patience = PATIENCE if stops_early else STEPS
        self.loss = torch.nn.BCELoss()
        self.target = torch.full((1,), 0.9, dtype=torch.float64)
        self.steps: list[int] = []

    def score(self, window: np.ndarray) -> float:
        """The squared distance generation moves the last row of a window (W, F) in [0, 1]."""
        start = torch.tensor(window)
        z = start.clone().requires_grad_(True)
        adam = torch.optim.Adam([z], lr=0.01)
        cosine = torch.optim.lr_scheduler.CosineAnnealingLR(adam, T_max=10)
        last, calm, steps = 10.0, 0, 0
        while steps < STEPS and calm <= self.patience:
            steps += 1
            before = z.detach().clone()
            loss = self.loss(self.net(z.flatten()), self.target)
            adam.zero_grad()
            loss.backward()
            adam.step()
            cosine.step()
            with torch.no_grad():
                z.clamp_(0.0, 1.0)
            moved = float((z.detach() - before).abs().max())
            small = moved < TOLERANCE or 0.0 < last - loss.item() < TOLERANCE
            calm = calm + 1 if small else 0
            last = loss.item()
        self.steps.append(steps)
        return float(((z.detach() - start)[-1] ** 2).mean())


def rows(count: int, features: int) -> np.ndarray:
    """A made-up plant: five slow oscillations, every sensor in its own mixture, and noise."""
    rng = np.random.default_rng(0)
    t = np.arange(count)[:, None]
    sources = np.sin(t / rng.uniform(5.0, 60.0, 5) + rng.uniform(0.0, 6.0, 5))
    return sources @ rng.normal(size=(5, features)) + 0.2 * rng.normal(size=(count, features))


def timed(work: Callable[[int], object], turns: Iterator[int], count: int) -> list[float]:
    """Processor seconds of each of ``count`` calls."""
    took = []
    for _ in range(count):
        turn = next(turns)
        began = time.thread_time()
        work(turn)
        took.append(time.thread_time() - began)
    return took


def cycle(count: int) -> Iterator[int]:
    """0, 1, ..., count - 1, 0, 1, ..."""
    while True:
        yield from range(count)


def measure(window: int, features: int, rounds: int) -> dict[str, object]:
    """All three on the same rows."""
    raw = rows(2600, features)
    for fault, begin in enumerate(range(600, len(raw), OFF_ROWS)):
        off = [(fault * OFF_SENSORS + sensor) % features for sensor in range(OFF_SENSORS)]
        raw[begin : begin + OFF_ROWS, off] += OFF_BY * raw[:600, off].std(axis=0)
    settings = FitSettings(window=window)
    detector = Detector(fit_model(raw[:600], settings=settings, rng=np.random.default_rng(0)))
    names, stale = detector.model.features, np.zeros(features, np.bool_)
    stream = [
        Row("bench", float(t), names, values.astype(np.float32), stale, is_whole=True)  # as of a stream
        for t, values in enumerate(raw[600:])
    ]
    low, high = raw[:600].min(axis=0), raw[:600].max(axis=0)
    unit = np.clip((raw - low) / (high - low), 0.0, 1.0)
    trained = ReferenceGON(window=window).fit(unit[:600])
    unit = unit[600:]

    both = Detector(detector.model)

    def explained(turn: int) -> None:
        both.score(stream[turn])
        both.causes()

    ways: dict[str, tuple[Callable[[int], object], int]] = {
        "score": (lambda turn: detector.score(stream[turn]), OURS_A_BLOCK),
        "score and causes": (explained, OURS_A_BLOCK),
    }
    if torch is not None:
        reference, patient = Reference(trained, stops_early=True), Reference(trained, stops_early=False)
        ways["reference"] = (lambda turn: reference.score(unit[turn : turn + window]), REFERENCE_A_BLOCK)
        ways["reference, 100 steps"] = (lambda turn: patient.score(unit[turn : turn + window]), REFERENCE_A_BLOCK)
    turns = {way: cycle(len(unit) - window) for way in ways}
    blocks: dict[str, list[list[float]]] = {way: [] for way in ways}
    for _ in range(rounds + 1):
        for way, (work, count) in ways.items():
            blocks[way].append(timed(work, turns[way], count))
    found: dict[str, object] = {"window": window, "features": features, "parameters": detector.model.parameters}
    for way in ways:
        took = np.concatenate(blocks[way][1:])  # the first block warms caches and allocators
        found[way] = {
            "windows": len(took),
            **{f"{name}_us": float(np.quantile(took, q) * 1e6) for name, q in QUANTILES.items()},
        }
    medians = {way: np.array([np.median(block) for block in blocks[way][1:]]) for way in ways}
    for theirs, ours in RATIOS if torch is not None else ():
        ratio = medians[theirs] / medians[ours]
        found[f"{theirs} / {ours}"] = {
            "median": float(np.median(ratio)), "lowest": float(ratio.min()), "highest": float(ratio.max()),
        }  # fmt: skip
    causes = medians["score and causes"] / medians["score"] - 1.0
    found["causes / score"] = {
        "median": float(np.median(causes)), "lowest": float(causes.min()), "highest": float(causes.max()),
    }  # fmt: skip
    if torch is None:
        return found
    steps = reference.steps
    found["reference steps"] = {"median": float(np.median(steps)), "fewest": min(steps), "most": max(steps)}
    return found


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--windows", type=int, nargs="+", default=[15, 40], metavar="W", help="default: 15 40")
    parser.add_argument("--features", type=int, default=38, metavar="F", help="default: 38")
    parser.add_argument("--rounds", type=int, default=30, help="blocks of each way; default: 30")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of text")
    options = parser.parse_args()
    if torch is not None:
        torch.set_num_threads(1)
    machine = {
        "machine": platform.machine(),
        "processor": processor(),
        "python": platform.python_version(),
        "numpy": np.__version__,
        "torch": torch.__version__ if torch is not None else "none",
        "threads": 1,
        "load_average": round(os.getloadavg()[0], 2),
    }
    results = [measure(window, options.features, options.rounds) for window in options.windows]
    if options.json:
        print(json.dumps({**machine, "results": results}, indent=2))
        return
    print("  ".join(f"{key} {value}" for key, value in machine.items()))
    for result in results:
        report(result, options.rounds)


def report(result: dict, rounds: int) -> None:
    """One table."""
    print(f"\nW={result['window']} F={result['features']} ({result['parameters']} weights), {rounds} blocks in turn")
    print(f"{'':24}{'windows':>9}" + "".join(f"{name + ' µs':>12}" for name in QUANTILES))
    for way in (way for way in WAYS if way in result):
        row = result[way]
        print(f"{way:24}{row['windows']:>9}" + "".join(f"{row[f'{name}_us']:>12.1f}" for name in QUANTILES))
    causes = result["causes / score"]
    print(
        f"causes take {causes['median']:.1f} scores (block medians {causes['lowest']:.1f} to {causes['highest']:.1f})"
    )
    if torch is None:
        print("the reference is not measured: torch is not installed")
        return
    steps = result["reference steps"]
    print(f"steps of the reference: median {steps['median']:.0f}, {steps['fewest']} to {steps['most']}")
    for theirs, ours in RATIOS:
        ratio = result[f"{theirs} / {ours}"]
        print(
            f"{theirs} takes {ratio['median']:.0f} times as long as {ours}"
            f" (block medians {ratio['lowest']:.0f} to {ratio['highest']:.0f})"
        )


def processor() -> str:
    """The processor's name as Linux has it."""
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith(("model name", "Model")):
            return line.partition(":")[2].strip()
    return platform.processor() or "unknown"


if __name__ == "__main__":
    main()
