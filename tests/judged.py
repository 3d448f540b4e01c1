"""Judged rows for the tests of pictures: four features of a pump, with a fault where a test wants one."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from e2e.daemons import FEATURES, rows

from gon_edge.commands.thinned import Thinned
from gon_edge.events import Row
from gon_edge.model.detector import Detector
from gon_edge.model.file import Model
from gon_edge.training.fit import fit_model

__all__ = ["CURRENT", "FEATURES", "START", "judge", "model_of", "table"]

START = 1_700_000_000.0
CURRENT = np.zeros(4, np.bool_)


def table(count: int, seed: int, fault: float = 0.0) -> np.ndarray:
    """Rows (T, 4) as the end-to-end tests send them."""
    return np.array([[json.loads(row)[name] for name in FEATURES] for row in rows(count, seed=seed, fault=fault)])


def model_of(features: Sequence[str], learned: int = 500) -> Model:
    """A model of such rows, under these names."""
    return replace(fit_model(table(learned, 9), features=features, rng=np.random.default_rng(0)), interval_s=1.0)


def judge(model: Model, values: np.ndarray, *, silent_from: int | None = None, lacks: slice | None = None) -> Thinned:
    """Judge rows (T, 4), a second apart; two hours are missing before one of them, the second feature in some."""
    detector, thinned = Detector(model), Thinned(model.features)
    for t, row in enumerate(values.astype(np.float32)):
        stale = CURRENT.copy()
        stale[1] = lacks is not None and t in range(*lacks.indices(len(values)))
        row = np.where(stale, np.float32(np.nan), row)
        at = START + t + (7200.0 if silent_from is not None and t > silent_from else 0.0)
        judged = Row("pump", at, model.features, row, stale)
        thinned.add(at, judged, detector.score(judged), detector)
    return thinned
