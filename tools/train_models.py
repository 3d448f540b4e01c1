"""Train the models that are shipped: models/*.npz, a card for each, and models/index.json.

    python tools/train_models.py              # all of them, a minute or two
    python tools/train_models.py host motes   # these

The same rows, seed, code and machine give the same bytes.  ``host`` needs nothing but this repository; the others need
the public sets of tools/fetch_datasets.py (GON_EDGE_DATA, or ../shared/datasets), and only those whose licence lets
what is derived from them be passed on under terms like ours.  The SKAB test bed (GPL-3.0) is not among them.
"""

from __future__ import annotations

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # sums in one order

import argparse
import hashlib
import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tools")]

import numpy as np  # noqa: E402
from host_telemetry import FEATURES, WARMUP_ROWS, simulate  # noqa: E402
from numpy.typing import NDArray  # noqa: E402

from gon_edge.errors import GonEdgeError  # noqa: E402
from gon_edge.estimator import GONDetector  # noqa: E402
from gon_edge.model.file import Model, dumps  # noqa: E402
from gon_edge.research import datasets, metrics  # noqa: E402
from gon_edge.state.catalog import INDEX_FORMAT  # noqa: E402
from gon_edge.training.fit import fit_model  # noqa: E402
from gon_edge.training.settings import FitSettings  # noqa: E402

Rows = NDArray[np.float64]

SEED = 0
_STILL = np.iinfo(np.int32).max


@dataclass(frozen=True, slots=True)
class Material:
    """What a model is made of.

    Attributes
    ----------
    features : tuple of str
    rows : ndarray, shape (T, F)
        Engineering units.
    restart : ndarray of bool, shape (T,), or None
    scores : callable
        From the model to what the card says of it: (measure, value) pairs.
    """

    features: tuple[str, ...]
    rows: Rows
    restart: NDArray[np.bool_] | None
    scores: Callable[[Model], list[tuple[str, str]]]


@dataclass(frozen=True, slots=True)
class Recipe:
    """One shipped model.

    Attributes
    ----------
    name, title : str
    watches, data, licence, not_for : str
        Paragraphs of the card.
    material : callable
    interval_s : float
        0 where the model serves several.
    starter : bool
    relative : tuple of str
        Features known as changes since the first row.
    settings : FitSettings
    """

    name: str
    title: str
    watches: str
    data: str
    licence: str
    not_for: str
    material: Callable[[], Material]
    interval_s: float
    starter: bool = False
    relative: tuple[str, ...] = ()
    settings: FitSettings = field(default_factory=FitSettings)


# -- what they are made of ---------------------------------------------------------------------------------------------

_MACHINES = 60


def _host() -> Material:
    rng = np.random.default_rng(SEED)
    rows = np.concatenate([simulate(rng, WARMUP_ROWS) for _ in range(_MACHINES)])
    restart = np.arange(len(rows)) % WARMUP_ROWS == 0
    return Material(FEATURES, rows, restart, _host_scores)


def _host_scores(model: Model) -> list[tuple[str, str]]:
    rng = np.random.default_rng(SEED + 1)
    machines = [simulate(rng, WARMUP_ROWS) for _ in range(200)]
    alerts = sum(len(_alerts(model, rows)) for rows in machines)
    hours = len(machines) * WARMUP_ROWS / 3600.0
    lines = [("alerts on other simulated machines", f"{alerts} in {hours:.0f} hours of rows, one a second")]
    begin, length = 200, 60
    for taken in (4.0, 8.0, 15.0):
        delays = []
        for _ in range(50):
            rows = simulate(rng, begin + length)
            rows[begin:, 0] = 100.0 - np.abs(rng.normal(0.0, 0.5, length))
            rows[begin:, 1] += taken
            after = [t - begin for t in _alerts(model, rows) if t >= begin]
            delays += after[:1]
        late = f", after {np.median(delays):.0f} rows (median)" if delays else ""
        lines.append(
            (f"every core busy and {taken:g} % of memory taken at once", f"alert in {len(delays)} of 50 trials{late}")
        )
    return lines


def _alerts(model: Model, rows: Rows) -> list[int]:
    """Rows at which 3 of the last 5 rows come to be anomalous: where the default policy raises an alert."""
    detector = GONDetector()
    detector.model_ = model
    alarms = detector.predict(rows)
    raised = np.convolve(alarms, np.ones(5))[: len(rows)] >= 3
    return [int(t) for t in np.flatnonzero(raised & ~np.concatenate([[False], raised[:-1]]))]


def _set(name: str, rename: Callable[[str], str], *, scaled_by_publisher: bool = False) -> Callable[[], Material]:
    """A development set in the units of its publisher."""

    def material() -> Material:
        dataset = datasets.load(name)
        low, span = np.zeros(dataset.train.shape[1]), np.ones(dataset.train.shape[1])
        with np.load(datasets.data_folder() / f"{name}.npz") as arrays:
            if "scale_min" in arrays and not scaled_by_publisher:
                low, span = arrays["scale_min"].astype(float), arrays["scale_range"].astype(float)

        def scores(model: Model) -> list[tuple[str, str]]:
            detector = GONDetector()
            detector.model_ = model
            found = detector.decision_function(dataset.test * span + low, dataset.restart)
            alarms = found > model.threshold
            delay, share = metrics.detection_delay(dataset.labels, alarms)
            runs = len(metrics.segments(dataset.labels))
            false = metrics.false_alarm_events(dataset.labels, alarms)
            return [
                ("test rows, anomalous ones", f"{len(found)}, {int(dataset.labels.sum())}"),
                ("average precision", f"{metrics.average_precision(dataset.labels, found):.3f}"),
                ("of random scores", f"{dataset.labels.mean():.3f}"),
                ("ROC-AUC", f"{metrics.roc_auc(dataset.labels, found):.3f}"),
                ("F1 at its own threshold, no adjustment", f"{metrics.f1(dataset.labels, alarms):.3f}"),
                ("anomalies found at its own threshold", f"{round(share * runs)} of {runs}"
                 + (f", {delay:.0f} rows late (median)" if delay == delay else "")),
                ("false alarms", f"{false} in {int((~dataset.labels).sum())} normal rows"),
            ]  # fmt: skip

        names = tuple(rename(feature) for feature in dataset.feature_names)
        return Material(names, dataset.train * span + low, dataset.train_restart, scores)

    return material


RECIPES = (
    Recipe(
        name="host",
        title="a computer: processor time and memory",
        watches="`cpu.total` (percent of all cores) and `memory.used_percent`, as `gon-edge publish` sends them, at "
        "intervals from half a second to ten. Memory is judged relative to the stream's first row, so that a machine's "
        "level does not matter. It is a starter: a new stream with these two features is scored by it until it has "
        "a model of its own; what else the stream holds is left to that one.",
        data=f"`simulate` of `tools/host_telemetry.py`: {_MACHINES} made-up machines of 1 to 16 cores in ordinary use, "
        f"{WARMUP_ROWS} rows each, with bursts, jobs, and minutes of full load. No machine was recorded for it.",
        licence="made by this project, BSD-3-Clause.",
        not_for="Load alone: a machine that is fully busy for minutes is normal to it. Memory taken in small steps, or "
        "less than 8 % of it at once. On a machine of 512 MiB and less an ordinary program may take more than that and "
        "raise an alert. More than a warm-up: it knows nothing of this machine's habits, and over hours memory drifts "
        "away from where it began.",
        material=_host,
        interval_s=0.0,
        starter=True,
        relative=("memory.used_percent",),
        settings=FitSettings(risk=1e-5),
    ),
    Recipe(
        name="motes",
        title="four wireless sensor motes: humidity and temperature, two outdoors and two indoors",
        watches="humidity (percent) and temperature (°C) of four TelosB motes, a row every 5 seconds.",
        data="the multi-hop set of Suthaharan et al. 2010 (wsn_multihop), rows 0 to 1999; tested on rows 2000 to 4689, "
        "in which hot water was held to two motes once.",
        licence="contents CC-BY-4.0 and database ODC-By-1.0, S. Suthaharan, M. Alzahrani, S. Rajasegarar, C. Leckie, "
        "M. Palaniswami, *Labelled data collection for anomaly detection in wireless sensor networks*, ISSNIP 2010; "
        "packaged by stdlib-js (Apache-2.0). The model holds means, deviations and principal directions of these rows.",
        not_for="Other rooms: its normal is three hours of one place. One event in its test says little; outdoors "
        "drifts away from the training rows all the time.",
        material=_set("wsn_multihop", lambda name: name.replace("_", ".")),
        interval_s=5.0,
    ),
    Recipe(
        name="server",
        title="an internet company's server: 38 resource and network metrics",
        watches="38 metrics of one server, `metric_1` to `metric_38`, a row a minute, scaled to 0..1 by the "
        "publisher, who does not name them.",
        data="Server Machine Dataset, machine-3-10, its whole train part (23,692 rows, sixteen days); tested on the "
        "first 20,000 rows of its test part.",
        licence="MIT (NetManAIOps, OmniAnomaly), Y. Su et al., *Robust anomaly detection for multivariate time series "
        "through stochastic recurrent neural network*, KDD 2019.",
        not_for="Any other machine: without the publisher's scaling its inputs cannot be made. It is here to be looked "
        "at, as a model of real width.",
        material=_set("smd_machine-3-10", str, scaled_by_publisher=True),
        interval_s=60.0,
    ),
    Recipe(
        name="cloud-cpu",
        title="processor time of a group of cloud servers",
        watches="one feature, `cpu.utilization_percent`, every 5 minutes.",
        data="cpu_utilization_asg_misconfiguration of the Numenta Anomaly Benchmark, rows 0 to 2706 (nine days); "
        "tested on the following 53 days, which hold one misconfiguration.",
        licence="MIT (Numenta Anomaly Benchmark).",
        not_for="Groups of another size or with another daily rhythm.",
        material=_set("nab_cpu_asg_misconfiguration", lambda name: "cpu.utilization_percent"),
        interval_s=300.0,
    ),
)


# -- making them -------------------------------------------------------------------------------------------------------


def train(recipe: Recipe, material: Material) -> Model:
    """Return the model of a recipe; the same material gives the same model, byte for byte."""
    model = fit_model(
        material.rows,
        features=material.features,
        restart=material.restart,
        settings=recipe.settings,
        rng=np.random.default_rng(SEED),
    )
    model = replace(model, interval_s=recipe.interval_s)
    if recipe.starter:
        # A machine at rest may repeat a reading for hours: that is no frozen sensor.
        model = replace(model, longest_run=np.full(len(model.features), _STILL, np.int32))
    return model.with_lineage(
        name=recipe.name,
        title=recipe.title,
        version="1",
        seed=SEED,
        rows=len(material.rows),
        data=recipe.data,
        licence=recipe.licence,
        starter=recipe.starter,
        relative=list(recipe.relative),
    )


def card(recipe: Recipe, model: Model, blob: bytes, scores: list[tuple[str, str]]) -> str:
    """Return the card's Markdown."""
    threshold = f"{model.threshold:.3f}, fitted for {recipe.settings.risk:g} false alarms a normal row"
    facts = [
        ("features", ", ".join(f"`{name}`" for name in model.features) if len(model.features) < 10 else
         f"{len(model.features)}, `{model.features[0]}` to `{model.features[-1]}`"),
        ("rows, seed", f"{model.lineage['rows']}, {SEED}"),
        ("interval", f"{model.interval_s:g} s" if model.interval_s else "0.5 s to 10 s"),
        ("window, parameters", f"{model.discriminator.window} rows, {model.parameters} (first layer int8)"),
        ("threshold", threshold),
        ("file", f"`{recipe.name}.npz`, {len(blob)} bytes"),
        ("SHA-256", f"`{hashlib.sha256(blob).hexdigest()}`"),
    ]  # fmt: skip
    return "\n".join(
        [
            f"# {recipe.name}: {recipe.title}",
            "",
            "Written by `tools/train_models.py`; change it there.",
            "",
            f"**Watches** {recipe.watches}",
            "",
            f"**Learned from** {recipe.data}",
            "",
            f"**Licence of the data** {recipe.licence}",
            "",
            f"**Not good for** {recipe.not_for}",
            "",
            "| | |",
            "|---|---|",
            *(f"| {name} | {value} |" for name, value in facts),
            "",
            "Scores, on rows it has not seen:",
            "",
            "| | |",
            "|---|---|",
            *(f"| {name} | {value} |" for name, value in scores),
            "",
        ]
    )


def write(recipe: Recipe, folder: Path) -> dict[str, object]:
    """Train one model, write it and its card; returns its entry of the index."""
    material = recipe.material()
    model = train(recipe, material)
    blob = dumps(model)
    (folder / f"{recipe.name}.npz").write_bytes(blob)
    text = card(recipe, model, blob, material.scores(model))
    (folder / f"{recipe.name}.md").write_text(text, encoding="utf-8")
    return {
        "name": recipe.name,
        "title": recipe.title,
        "file": f"{recipe.name}.npz",
        "card": f"{recipe.name}.md",
        "sha256": hashlib.sha256(blob).hexdigest(),
        "bytes": len(blob),
        "starter": recipe.starter,
    }


def main() -> int:
    """Train what was asked for; returns the exit status."""
    names = [recipe.name for recipe in RECIPES]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", metavar="MODEL", help=f"of {', '.join(names)} (default: all)")
    parser.add_argument("--out", type=Path, default=ROOT / "models", help="folder (default: models/)")
    options = parser.parse_args()
    if unknown := [name for name in options.models if name not in names]:
        parser.error(f"no recipe for {', '.join(unknown)}; there are: {', '.join(names)}")
    options.out.mkdir(parents=True, exist_ok=True)
    index = options.out / "index.json"
    entries = {}
    if options.models and index.exists():
        entries = {entry["name"]: entry for entry in json.loads(index.read_text(encoding="utf-8"))["models"]}
    for recipe in RECIPES:
        if not options.models or recipe.name in options.models:
            began = time.monotonic()
            entries[recipe.name] = write(recipe, options.out)
            print(f"{recipe.name}: {entries[recipe.name]['bytes']} bytes, {time.monotonic() - began:.1f} s", flush=True)
    listed = [entries[name] for name in sorted(entries)]
    index.write_text(json.dumps({"format": INDEX_FORMAT, "models": listed}, indent=2) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except GonEdgeError as error:
        sys.exit(f"train_models: {error}")
