"""What repeated training forgets, and what hidden faults among its rows do: average precision before and after.

On each development set a store is filled as a device fills it, every row judged by the model of its time and
quarantined when that calls it abnormal or an alert is open, and rounds are run as the daemon runs them: in a child,
with the gate.

once      one fit on all training rows
rounds    three rounds, after each third of the training rows; a person accepts what was alarmed in them, for they are
          normal, or nobody does
hidden    2 % of the training rows replaced by faults of the test part: one fit on all of them; and two rounds, after
          each half, with the faults in the second one
drift     two rounds; in the second half a quarter of the features drifts away, to five deviations at its end.  "Fault
          called abnormal" is the share of normal test rows, displaced as the drift ended, that are above the threshold
          of the model before and of the one after

    python tools/bench_retraining.py [--sets skab_valve nab_cpu_asg_misconfiguration] [--seed 0] [--json]
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from gon_edge.config.schema import AlertsConfig  # noqa: E402
from gon_edge.estimator import GONDetector  # noqa: E402
from gon_edge.events import Row  # noqa: E402
from gon_edge.model.detector import Detector  # noqa: E402
from gon_edge.model.file import Model, load_model  # noqa: E402
from gon_edge.research import datasets  # noqa: E402
from gon_edge.research.metrics import average_precision  # noqa: E402
from gon_edge.state.folder import ModelFolder  # noqa: E402
from gon_edge.state.store import Store  # noqa: E402
from gon_edge.stream.alerts import AlertPolicy  # noqa: E402
from gon_edge.training.job import Job  # noqa: E402
from gon_edge.training.settings import FitSettings  # noqa: E402
from gon_edge.training.trainer import Trainer  # noqa: E402

HIDDEN_SHARE = 0.02
DRIFT_DEVIATIONS = 5.0


def main() -> int:
    """Run every experiment and print a line for each set, and the means."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", nargs="+", default=list(datasets.DEVELOPMENT))
    parser.add_argument("--data", type=Path, help="folder of the sets")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true", help="print one JSON object a line")
    options = parser.parse_args()
    table = []
    for name in options.sets:
        found = measure(datasets.load(name, options.data), options.seed)
        table.append(found)
        if options.json:
            print(json.dumps({"set": name, **found}), flush=True)
            continue
        if len(table) == 1:
            print(f"| set | {' | '.join(found)} |\n|---{'|---' * len(found)}|")
        print(f"| {name} | {' | '.join(shown(value) for value in found.values())} |", flush=True)
    means = {key: [line[key] for line in table if isinstance(line[key], float)] for key in table[0]}
    if not options.json:
        print(
            f"| **mean** | {' | '.join(shown(float(np.mean(values))) if values else '' for values in means.values())} |"
        )
    return 0


def shown(value: float | str) -> str:
    """A cell of the table."""
    return value if isinstance(value, str) else f"{value:.3f}"


def measure(dataset: datasets.Dataset, seed: int) -> dict[str, float | str]:
    """Average precision of every experiment on one set."""
    rng = np.random.default_rng(seed)
    train = dataset.train.astype(np.float32)

    def precision(model: Model) -> float:
        detector = GONDetector()
        detector.model_ = model
        return float(average_precision(dataset.labels, detector.decision_function(dataset.test, dataset.restart)))

    once = GONDetector(random_state=seed).fit(train).model_
    thirds, ended = rounds(np.array_split(train, 3), seed, accepted=True)
    alone, alone_ended = rounds(np.array_split(train, 3), seed)
    faults = dataset.test[dataset.labels]
    poisoned = hide(train, faults, rng)
    hidden_once = GONDetector(random_state=seed).fit(poisoned).model_
    halves = np.array_split(train, 2)
    hidden_rounds, hidden_ended = rounds([halves[0], hide(halves[1], faults, rng)], seed)
    offset = drift(train, rng)
    ramp = np.linspace(0.0, 1.0, len(halves[1]), dtype=np.float32)[:, None]
    drifted, drift_ended = rounds([halves[0], halves[1] + ramp * offset], seed)
    fault = dataset.test[~dataset.labels] + offset
    return {
        "once": precision(once),
        "rounds 1": precision(thirds[0]),
        "2": precision(thirds[1]),
        "3": precision(thirds[2]),
        "outcomes": ended,
        "3, nobody accepts": precision(alone[-1]),
        "  outcomes": alone_ended,
        "hidden, once": precision(hidden_once),
        "hidden, before": precision(hidden_rounds[0]),
        "hidden, after": precision(hidden_rounds[-1]),
        "outcomes ": hidden_ended,
        "drift, before": precision(drifted[0]),
        "drift, after": precision(drifted[-1]),
        " outcomes": drift_ended,
        "fault called abnormal, before": abnormal(drifted[0], fault),
        "after": abnormal(drifted[-1], fault),
    }


def rounds(parts: list[NDArray[np.float32]], seed: int, *, accepted: bool = False) -> tuple[list[Model], str]:
    """The model in use after each part of the rows, and how each round ended; ``accepted``: nothing is quarantined."""
    features = tuple(f"x{i}" for i in range(parts[0].shape[1]))
    fresh = np.zeros(len(features), np.bool_)
    used: list[Model] = []
    outcomes = []
    t = 0
    with tempfile.TemporaryDirectory(prefix="gon-edge-bench-") as name:
        folder = Path(name)
        models = ModelFolder(folder)
        trainer = Trainer(folder, models)
        with Store.open(folder) as store:
            for part in parts:
                detector = Detector(used[-1]) if used and not accepted else None
                policy = AlertPolicy("bench", AlertsConfig())
                for values in part:
                    row = Row("bench", float(t), features, values, fresh, t == 0)
                    abnormal_row = False
                    if detector is not None:
                        verdict = detector.score(row)
                        policy.update(verdict)
                        abnormal_row = verdict.is_anomaly or bool(policy.active)
                    store.add_row(row, abnormal_row, now=0.0)
                    t += 1
                store.flush(0.0)
                trainer.start(job(folder, models, version=len(outcomes) + 1, champion=bool(used), seed=seed))
                while (ended := trainer.poll()) is None:
                    time.sleep(0.02)
                outcomes.append(ended[0].outcome)
                if models.file("bench").exists():
                    used.append(load_model(models.file("bench")))
        trainer.stop()
    return used, ", ".join(outcomes)


def job(folder: Path, models: ModelFolder, *, version: int, champion: bool, seed: int) -> Job:
    """A round with every default, and memory for all rows."""
    file = models.file("bench")
    return Job(
        stream="bench",
        state_dir=str(folder),
        candidate=str(file.with_name("candidate.npz")),
        version=str(version),
        parent=str(version - 1) if champion else "",
        trained_at=0.0,
        until=1e12,
        max_rows=30_000,
        interval_s=1.0,
        settings=FitSettings(window=40, risk=1e-4),
        seed=seed,
        budget_bytes=256 << 20,
        nice=0,
        deadline_s=600.0,
        champion=str(file) if champion else "",
    )


def hide(train: NDArray[np.float32], faults: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.float32]:
    """Training rows, 2 % of them replaced by faulty rows as they follow each other, in four places."""
    poisoned = train.copy()
    length = max(1, round(HIDDEN_SHARE * len(train) / 4))
    for place in range(4):
        quarter = len(train) // 4
        at = place * quarter + int(rng.integers(quarter - length))
        start = int(rng.integers(max(1, len(faults) - length)))
        taken = faults[start : start + length]
        poisoned[at : at + len(taken)] = taken
    return poisoned


def drift(train: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
    """Where a slow drift ends (F,): a quarter of the features that move, by five deviations."""
    spread = train.std(axis=0)
    moving = np.flatnonzero(spread > 0.0)
    offset = np.zeros(train.shape[1], np.float32)
    hit = rng.permutation(moving)[: -(-len(moving) // 4)]
    offset[hit] = DRIFT_DEVIATIONS * spread[hit]
    return offset


def abnormal(model: Model, rows: NDArray[np.float64]) -> float:
    """Share of rows above the model's threshold."""
    detector = GONDetector()
    detector.model_ = model
    return float(detector.predict(rows).mean())


if __name__ == "__main__":
    sys.exit(main())
