"""gon-edge: streaming anomaly detection on the edge with a small Generative Optimization Network.

>>> import numpy as np
>>> from gon_edge import GONDetector
>>> normal = np.random.default_rng(0).normal(size=(500, 3))
>>> GONDetector().fit(normal).decision_function(normal).shape
(500,)
"""

from gon_edge.detector import Detector, GONDetector
from gon_edge.errors import (
    CandidateRejected,
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
from gon_edge.events import Alert, Cause, Reading, Row, Verdict
from gon_edge.fit import FitSettings, fit_model
from gon_edge.modelfile import Model, load_model, save_model

__version__ = "0.1.0"

__all__ = [
    "Alert",
    "CandidateRejected",
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
