"""The array face: the detector behind the verbs of scikit-learn and PyOD, a matrix at a time.

The same model, scores and thresholds as ``model.detector`` a row at a time; property tests hold the two against each
other.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gon_edge.model.detector import _normalised, explain
from gon_edge.model.file import Model, load_model, save_model
from gon_edge.model.gon import Float
from gon_edge.model.smoothing import Smoother, fill
from gon_edge.model.window import windows
from gon_edge.training.fit import fit_model
from gon_edge.training.settings import FitSettings

_BATCH = 256


class GONDetector:
    """The detector behind scikit-learn's and PyOD's verbs.

    Parameters
    ----------
    window : int
        W, rows a decision looks back.
    hidden : int
        Units of the first layer, on each scale.
    prototypes : int
        Prototypes, on each scale.
    smoothing : float
        Weight of the newest row in the quicker of two averages, the larger of which is the score, 0 < smoothing <= 1.
    risk : float
        Probability that a normal row lies above ``threshold_``.
    random_state : int

    Attributes
    ----------
    model_ : Model
    threshold_ : float
        From scores of training rows that were held out; nothing else.

    Examples
    --------
    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> detector = GONDetector().fit(rng.normal(size=(500, 3)))
    >>> int(detector.predict(np.full((1, 3), 9.0))[0])
    1
    """

    def __init__(
        self,
        window: int = 40,
        *,
        hidden: int = 16,
        prototypes: int = 8,
        smoothing: float = 0.3,
        risk: float = 1e-5,
        random_state: int = 0,
    ) -> None:
        self.window = window
        self.hidden = hidden
        self.prototypes = prototypes
        self.smoothing = smoothing
        self.risk = risk
        self.random_state = random_state

    def fit(self, X: ArrayLike, y: Any = None) -> GONDetector:
        """Learn what is normal from rows (T, F) of the normal past: any scale, constant columns and NaN allowed.

        ``y`` is ignored, as in scikit-learn.  Returns ``self``.
        """
        settings = FitSettings(
            window=self.window,
            hidden=self.hidden,
            prototypes=self.prototypes,
            smoothing=self.smoothing,
            risk=self.risk,
        )
        self.model_ = fit_model(_rows(X), settings=settings, rng=np.random.default_rng(self.random_state))
        return self

    @property
    def threshold_(self) -> float:
        """Scores above are anomalous."""
        return self.model_.threshold

    def decision_function(self, X: ArrayLike) -> NDArray[np.float64]:
        """One score a row, shape (T,), high is anomalous; row t is judged by rows up to and including t."""
        z = self._standardise(X)
        net = self.model_.discriminator
        views = windows(z, net.window)
        energies = [net.energies(views[i : i + _BATCH]) for i in range(0, len(z), _BATCH)]
        age = np.arange(1, len(z) + 1)
        raw = net.abnormality_after_restart(np.concatenate(energies), age, self.model_.typical)
        return Smoother(self.model_.smoothing, net.window).smooth(raw, np.zeros(len(raw), np.bool_))

    def feature_scores(self, X: ArrayLike) -> NDArray[np.float64]:
        """How much each feature contributed to each row's score, shape (T, F); a row sums to its score."""
        z = self._standardise(X)
        views = windows(z, self.model_.discriminator.window)
        parts = [explain(self.model_, views[i : i + _BATCH])[1:] for i in range(0, len(z), _BATCH)]
        share, excess = (np.concatenate(part) for part in zip(*parts, strict=True))
        blame = share * excess[:, None]
        length = views.shape[1]
        whole = blame[length - 1 : len(blame) - length]  # of windows without padding, which have one after them
        total = blame.copy()
        total[2 * length - 1 :] += whole
        return _normalised(total) * self.decision_function(X)[:, None]

    def predict(self, X: ArrayLike) -> NDArray[np.intp]:
        """1 for an anomalous row, 0 for a normal one, shape (T,)."""
        return (self.decision_function(X) > self.threshold_).astype(np.intp)

    def save(self, path: Path | str) -> None:
        """Write the int8 model file."""
        save_model(self.model_, Path(path))

    @classmethod
    def load(cls, path: Path | str) -> GONDetector:
        """Read a model file; scores are those of the detector that was saved."""
        model = load_model(path)
        scales = model.discriminator.scales
        detector = cls(
            model.discriminator.window,
            hidden=len(scales[-1].gain),
            prototypes=len(scales[-1].prototypes),
            smoothing=model.smoothing,
        )
        detector.model_ = model
        return detector

    def _standardise(self, X: ArrayLike) -> Float:
        rows = _rows(X)
        if rows.shape[1] != len(self.model_.features):
            raise ValueError(f"the model has {len(self.model_.features)} features, the rows have {rows.shape[1]}")
        return _masked(self.model_, self.model_.scaler.transform(rows))


def _rows(X: ArrayLike) -> NDArray[np.float64]:
    rows = np.asarray(X, np.float64)
    if rows.ndim != 2:
        raise ValueError(f"rows of shape (T, F) are needed, not {rows.shape}; a single feature is X[:, None]")
    return np.where(np.isfinite(rows), rows, np.nan)  # an infinity is a reading that failed, as in the daemon


def _masked(model: Model, z: Float) -> Float:
    """Standardised rows (T, F) with NaN generated from the other features of the row, as the daemon does."""
    gaps = np.isnan(z)
    if not gaps.any():
        return z
    z = fill(z)
    for t in np.flatnonzero(gaps.any(axis=1)):
        z[t] = model.discriminator.impute(z[t], gaps[t])
    return z
