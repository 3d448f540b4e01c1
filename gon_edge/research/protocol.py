"""One cell of the benchmark: a method, a data set and a seed give one row of figures, under one of two protocols.

``corrected``
    Scores as the method gives them, the method's own threshold (fitted on train), no adjustment.  Average precision,
    ROC-AUC and VUS come first; point-adjusted F1 is there for the record and stands beside a random score's.
``decisions``
    The same figures of detection, and what alerts the method's own decisions make, every recorded run scored alone
    (:mod:`gon_edge.research.decisions`).  Peers get each of three risks, and the table takes the best of them.
``published``
    What the reference implementation of GON does, each step a switch of
    :class:`~gon_edge.research.reference_gon.Quirks`: scores one row late, a quantile of train scores times a factor
    that is chosen a data set, point adjustment.

Every recording of a test part is scored alone, by every method, and no window of a train part reaches over the seam of
two recordings.  Only the released GON, rebuilt with its quirks, knows of no seams.

A method is anything with ``fit``, ``decision_function`` and ``threshold_``.  :data:`METHODS` names the peers and the
product's own detector; the table's tool starts a process for each cell and calls :func:`measure` in it.
"""

from __future__ import annotations

import copy
import importlib
import math
import pickle
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gon_edge.estimator import GONDetector
from gon_edge.events import Row
from gon_edge.model.detector import Detector
from gon_edge.research import decisions, metrics, peers
from gon_edge.research.datasets import Dataset
from gon_edge.research.peers.peer import Peer
from gon_edge.research.reference_gon import AS_RELEASED, CORRECTED, Quirks, ReferenceGON
from gon_edge.training.threshold import fit_pot

Array = NDArray[np.float64]

PROTOCOLS: dict[str, Quirks] = {"corrected": CORRECTED, "decisions": CORRECTED, "published": AS_RELEASED}

RISKS = (1e-3, 1e-4, 1e-5)
"""What a peer's threshold is fitted for, each; the risk that suits it best on the mean is shown."""

# Quantile and factor of the release: (for GON, for its peers).  They look tuned by hand, a data set at a time.
_THRESHOLDS = {
    "FTSAD-1": ((0.9999, 1.01), (0.993, 1.0)),
    "FTSAD-25": ((0.98, 1.0), (0.98, 1.0)),
    "FTSAD-55": ((0.999, 1.04), (0.999, 1.0)),
    "SMD": ((0.99995, 1.06), (0.997, 1.0)),
    "MSDS": ((0.9, 1.04), (0.91, 1.0)),
}
# Epochs and learning rate of the released GON.
_TRAINING = {"SMD": (1, 1e-4), "MSDS": (1, 5e-4)}
_DEFAULT_TRAINING = (5, 5e-4)

METHODS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "gon-edge": ("gon_edge", "GONDetector", {}),
    "gon-reference": ("gon_edge.research.reference_gon", "ReferenceGON", {}),
    **{
        name: (f"gon_edge.research.peers.{module}", class_name, settings)
        for name, (module, class_name, settings) in peers.PEERS.items()
    },
}
"""Every method by name: module, class, settings."""

# Rows scored one at a time to learn what one costs.
_SINGLE_ROWS = 200


def make(name: str, *, random_state: int, dataset: str) -> Peer:
    """Return an unfitted method; only the released GON has settings that depend on the data set.

    Raises
    ------
    KeyError
        When there is no method of that name.
    """
    module, class_name, settings = METHODS[name]
    if name == "gon-reference":
        epochs, learning_rate = _TRAINING.get(dataset, _DEFAULT_TRAINING)
        settings = {**settings, "epochs": epochs, "learning_rate": learning_rate}
    made: Peer = getattr(importlib.import_module(module), class_name)(random_state=random_state, **settings)
    return made


def measure(name: str, dataset: Dataset, *, random_state: int, protocol: str = "corrected") -> dict[str, Any]:
    """Fit, score and judge one method in this process.

    Returns
    -------
    dict
        Figures by name; see :func:`detection`, :func:`decided` and :func:`published`.  ``model_bytes`` is the saved
        model file where a method has one, else its pickle.  With decisions there is no more; otherwise ``train_s`` is
        the whole of ``fit``, its threshold included; ``row_us`` and ``row_batch_us`` are microseconds to judge a row,
        one at a time and all at once, all of them of the processor, so that other work on the machine counts little;
        ``peak_rss_bytes`` is this process's, so start a fresh one for each method.
    """
    method = make(name, random_state=random_state, dataset=dataset.name)
    started = time.process_time()
    _fit(method, dataset)
    train_s = time.process_time() - started
    started = time.process_time()
    scores, alarms, thresholds = _judged(method, dataset)
    batch_us = (time.process_time() - started) / len(scores) * 1e6
    peak_rss_bytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    figures: dict[str, Any] = dict(_size(method))
    if protocol != "decisions":
        figures |= {
            "train_s": train_s,
            "row_batch_us": batch_us,
            # A method that goes row by row anyway has one cost; a call of its own would time the copy of its state.
            "row_us": batch_us if getattr(method, "row_by_row", False) else _single_row_us(method, dataset.test),
            "peak_rss_bytes": peak_rss_bytes,
        }
    if protocol == "published":
        figures |= published(method, dataset, scores, quirks=PROTOCOLS[protocol])
    else:
        figures |= detection(dataset, scores, alarms)
    if protocol == "decisions":
        figures |= decided(method, dataset, scores, alarms, thresholds)
    if dataset.feature_labels is not None and hasattr(method, "feature_scores"):
        figures |= diagnosis(dataset.feature_labels, _alone(method.feature_scores, dataset.test, dataset.restart))
    return figures


def _judged(method: Any, dataset: Dataset) -> tuple[Array, NDArray[np.bool_], Array]:
    """Scores of the test rows (T,), which of them the method itself calls anomalous, and what each is held against.

    Each recording is judged by itself; what gon-edge knows of the machine outlives a seam.
    """
    if isinstance(method, GONDetector):
        found = method.decide(dataset.test, restart=dataset.restart)
        return found.scores, found.alarms, found.thresholds
    scores = _alone(method.decision_function, dataset.test, dataset.restart)
    return scores, scores > method.threshold_, np.full(len(scores), method.threshold_)


def detection(dataset: Dataset, scores: Array, alarms: NDArray[np.bool_]) -> dict[str, float]:
    """Return the measures of the corrected protocol; a NaN means that the set cannot tell."""
    labels = dataset.labels
    vus_pr, vus_roc = metrics.vus(labels, scores)
    delay, found = metrics.detection_delay(labels, alarms)
    return {
        "ap": metrics.average_precision(labels, scores),
        "roc_auc": metrics.roc_auc(labels, scores),
        "vus_pr": vus_pr,
        "vus_roc": vus_roc,
        "best_f1": metrics.best_f1(labels, scores),
        "f1": metrics.f1(labels, alarms),
        "pa20_f1": metrics.pa_k_f1(labels, scores, percent=20.0),
        "pa_f1": metrics.point_adjusted_f1(labels, scores),
        "pa_f1_random": metrics.point_adjusted_f1(labels, np.random.default_rng(0).random(len(scores))),
        "false_alarms": float(metrics.false_alarm_events(labels, alarms)),
        "normal_rows": float((~labels).sum()),
        "false_alarms_a_day_1hz": metrics.false_alarms_a_day(labels, alarms),
        "delay_rows": delay,
        "segments_found": found,
        "alarm_rate": float(alarms.mean()),
    }


def decided(
    method: Any, dataset: Dataset, scores: Array, alarms: NDArray[np.bool_], thresholds: Array
) -> dict[str, float]:
    """Return what :func:`decisions.judge` finds, by the method's own decisions and for peers at each of `RISKS`."""
    calibration = getattr(method, "calibration_", None)
    levels = {f"@{risk:g}": fit_pot(calibration, risk) for risk in RISKS} if calibration is not None else {}
    calls = {risk: (scores > level, np.full(len(scores), level)) for risk, level in levels.items()}
    figures: dict[str, float] = {"threshold": method.threshold_}
    for risk, (called, held_against) in {"": (alarms, thresholds), **calls}.items():
        found = decisions.judge(dataset, scores, called, held_against)
        figures |= {f"{key}{risk}": value for key, value in found.items()}
    return figures


def diagnosis(feature_labels: NDArray[np.bool_], contributions: Array) -> dict[str, float]:
    """Return how well contributions name the anomalous features, on rows that have labels."""
    return {
        "hit_100": metrics.hit_rate(feature_labels, contributions, percent=100.0),
        "hit_150": metrics.hit_rate(feature_labels, contributions, percent=150.0),
        "ndcg_100": metrics.ndcg(feature_labels, contributions, percent=100.0),
        "ndcg_150": metrics.ndcg(feature_labels, contributions, percent=150.0),
    }


def published(method: Peer, dataset: Dataset, scores: Array, *, quirks: Quirks) -> dict[str, float]:
    """Return the released evaluation's F1, and beside it a random score's under the same threshold rule.

    The released GON shifts its windows itself; other methods' scores are made as late as its are.
    """
    train_scores = _alone(method.decision_function, dataset.train, dataset.train_restart)
    is_gon = isinstance(method, ReferenceGON)
    if quirks.late_windows and not is_gon:
        scores, train_scores = (np.concatenate([s[:1], s[:-1]]) for s in (scores, train_scores))
    if quirks.quantile_threshold:
        threshold = quantile_threshold(train_scores, *_THRESHOLDS.get(dataset.name, ((0.99, 1.0),) * 2)[not is_gon])
    else:
        threshold = method.threshold_
    alarms = scores > threshold
    rate = float(alarms.mean())
    random = np.random.default_rng(0).random(len(scores))
    random_alarms = random > np.quantile(random, 1 - rate) if rate else np.zeros(len(scores), dtype=bool)
    judged = [
        metrics.point_adjust(dataset.labels, a) if quirks.point_adjustment else a for a in (alarms, random_alarms)
    ]
    return {
        "f1": metrics.f1(dataset.labels, judged[0]),
        "f1_random_same_rate": metrics.f1(dataset.labels, judged[1]),
        "f1_unadjusted": metrics.f1(dataset.labels, alarms),
        "alarm_rate": rate,
        "ap": metrics.average_precision(dataset.labels, scores),
        "roc_auc": metrics.roc_auc(dataset.labels, scores),
    }


def quantile_threshold(train_scores: Array, quantile: float, factor: float) -> float:
    """Return the released "POT": the sorted train score at ``quantile * N`` times a factor; no tail is fitted."""
    ordered = np.sort(train_scores)
    return float(ordered[min(int(quantile * len(ordered)), len(ordered) - 1)] * factor)


def _fit(method: Any, dataset: Dataset) -> None:
    """Fit a method, which hears where recordings begin; the released GON knows of none."""
    if isinstance(method, ReferenceGON):
        method.fit(dataset.train)
    else:
        method.fit(dataset.train, restart=dataset.train_restart)


def _alone(judge: Callable[[Array], Any], rows: Array, restart: NDArray[np.bool_]) -> Array:
    """Return what ``judge`` says of rows (T, F), each recording judged as if it were alone; shape (T, ...)."""
    runs = np.split(rows, np.flatnonzero(restart)[1:])
    return np.concatenate([np.asarray(judge(run), dtype=np.float64) for run in runs])


def _single_row_us(method: Any, rows: Array) -> float:
    """Return the median microseconds to score one more row, given the rows before it."""
    if isinstance(method, GONDetector):
        # The product scores a stream by Detector.update, which keeps the window itself.
        detector, features = Detector(method.model_), tuple(method.model_.features)
        fresh = np.zeros(len(features), dtype=bool)
        stream = [Row("bench", float(t), features, row.astype(np.float32), fresh) for t, row in enumerate(rows)]
        calls: list[Callable[[], Any]] = [partial(detector.update, row) for row in stream[: 2 * _SINGLE_ROWS]]
    else:
        window = int(getattr(method, "window", 1))
        score = getattr(method, "score_window", method.decision_function)
        calls = [partial(score, rows[at : at + window]) for at in range(min(_SINGLE_ROWS, len(rows) - window + 1))]
    took = []
    for call in calls:
        started = time.process_time()
        call()
        took.append(time.process_time() - started)
    # The first half warms caches, and fills the window of a stream.
    return float(np.median(took[len(took) // 2 :]) * 1e6) if took else math.nan


def _size(method: Any) -> dict[str, int]:
    """Return the numbers a fitted method keeps, and the bytes of its model file; without one, of its pickle."""
    if not hasattr(method, "save"):
        model = copy.copy(method)
        vars(model).pop("calibration_", None)  # kept for the thresholds of other risks, which no one who scores needs
        return {"parameters": method.n_parameters, "model_bytes": len(pickle.dumps(model))}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.npz"
        method.save(path)
        with np.load(path, allow_pickle=False) as file:
            numbers = [file[name] for name in file.files]
        # The header is JSON in an array of bytes or text, the rest is the model.
        kept = sum(
            array.size for array in numbers if array.ndim and array.dtype.kind in "fiu" and array.dtype != np.uint8
        )
        return {"parameters": int(kept), "model_bytes": path.stat().st_size}
