"""gon-edge: streaming anomaly detection on the edge with a small Generative Optimization Network.

A public name is imported when it is first asked for, so that ``gon-edge version`` does not wait for numpy.

>>> import numpy as np
>>> from gon_edge import GONDetector
>>> normal = np.random.default_rng(0).normal(size=(500, 3))
>>> GONDetector().fit(normal).decision_function(normal).shape
(500,)
"""

from __future__ import annotations

from importlib import import_module

TYPE_CHECKING = False  # typing itself is a tenth of what `version` takes
if TYPE_CHECKING:
    from typing import Any

    from gon_edge.errors import (
        ConfigError,
        GonEdgeError,
        InputError,
        ModelFileError,
        NotEnoughData,
        OverBudget,
        PayloadError,
        RetrainBusy,
        RetrainError,
        StoreError,
        UnreachableError,
    )
    from gon_edge.estimator import GONDetector
    from gon_edge.events import Alert, Cause, Reading, Row, Verdict
    from gon_edge.model.detector import Detector
    from gon_edge.model.file import Model, load_model, save_model
    from gon_edge.training.fit import fit_model
    from gon_edge.training.settings import FitSettings

__version__ = "0.1.0"

__all__ = [
    "Alert",
    "Cause",
    "ConfigError",
    "Detector",
    "FitSettings",
    "GONDetector",
    "GonEdgeError",
    "InputError",
    "Model",
    "ModelFileError",
    "NotEnoughData",
    "OverBudget",
    "PayloadError",
    "Reading",
    "RetrainBusy",
    "RetrainError",
    "Row",
    "StoreError",
    "UnreachableError",
    "Verdict",
    "fit_model",
    "load_model",
    "save_model",
]

_HOMES = ("errors", "events", "model.file", "model.detector", "training.settings", "training.fit", "estimator")
"""Where public names live, those that import least first."""


def __getattr__(name: str) -> Any:
    if name in __all__:
        for home in _HOMES:
            module = import_module(f"gon_edge.{home}")
            if hasattr(module, name):
                globals()[name] = value = getattr(module, name)
                return value
    raise AttributeError(f"module 'gon_edge' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
