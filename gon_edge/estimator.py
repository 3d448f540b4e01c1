"""The array face: the detector behind the verbs of scikit-learn and PyOD, a matrix at a time.

Model, scores and thresholds are those of ``model.detector``, which takes a row at a time; property tests hold the two
against each other.  This module does not know time or names: rows are equally spaced, and ``restart`` says where they
are not.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gon_edge.model.decision import TOLD_ROWS, Decision
from gon_edge.model.explain import Explainer, normalised
from gon_edge.model.file import load_model, save_model
from gon_edge.model.window import clipped
from gon_edge.training.fit import fit_model
from gon_edge.training.rows import TrainingRows
from gon_edge.training.settings import FitSettings

_BATCH = 256
"""Windows judged at once.  Not critical, but another number rounds the last bits of scores differently."""


class Decisions(NamedTuple):
    """What is decided of rows.

    Attributes
    ----------
    scores : ndarray of float64, shape (T,)
    thresholds : ndarray of float64, shape (T,)
        What each score is held against: the model's threshold, or that of the state the machine is in by then.
    changed : ndarray of bool, shape (T,)
        The machine is in another state than in training.
    """

    scores: NDArray[np.float64]
    thresholds: NDArray[np.float64]
    changed: NDArray[np.bool_]

    @property
    def alarms(self) -> NDArray[np.bool_]:
        """Rows that count towards an alert, shape (T,): see `GONDetector.predict`."""
        rows = np.arange(len(self.scores))
        began = self.changed & ~np.append(False, self.changed[:-1])
        latest: NDArray[np.intp] = np.maximum.accumulate(np.where(began, rows, -TOLD_ROWS))
        alarms: NDArray[np.bool_] = (self.scores > self.thresholds) | (self.changed & (rows - latest < TOLD_ROWS))
        return alarms


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

    Notes
    -----
    Rows are in order and equally spaced.  Where they come from several recordings, ``restart`` says which rows begin
    one: no window reaches across, averages begin anew, and a scale counts once its rows are there.  Without it a seam
    looks like a sudden change, and windows across seams are learned as normal.

    Examples
    --------
    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> normal = rng.normal(size=(500, 3))
    >>> detector = GONDetector().fit(normal)
    >>> int(detector.predict(np.full((1, 3), 9.0))[0])
    1

    Two recordings in one array:

    >>> restart = np.zeros(500, dtype=bool)
    >>> restart[[0, 300]] = True
    >>> detector = GONDetector().fit(normal, restart=restart)
    >>> detector.decision_function(normal, restart=restart).shape
    (500,)
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

    def fit(self, X: ArrayLike, y: Any = None, *, restart: ArrayLike | None = None) -> GONDetector:
        """Learn what is normal.

        Parameters
        ----------
        X : array-like, shape (T, F)
            The normal past, oldest row first, in any unit.  NaN and infinities count as missing.
        y : object
            Ignored; scikit-learn passes it.
        restart : array-like of bool, shape (T,), optional
            True where a new recording begins at this row.

        Returns
        -------
        GONDetector
            This detector.

        Raises
        ------
        ValueError
            ``X`` is not a table, or ``restart`` has another length.
        NotEnoughData
            There is no row or no feature.
        """
        settings = FitSettings(
            window=self.window,
            hidden=self.hidden,
            prototypes=self.prototypes,
            smoothing=self.smoothing,
            risk=self.risk,
        )
        rows = _rows(X)
        rng = np.random.default_rng(self.random_state)
        self.model_ = fit_model(rows, restart=_restart(restart, len(rows)), settings=settings, rng=rng)
        return self

    @property
    def threshold_(self) -> float:
        """Scores above are anomalous."""
        return self.model_.threshold

    def decision_function(self, X: ArrayLike, restart: ArrayLike | None = None) -> NDArray[np.float64]:
        """Score rows; a row is judged by itself and those before it.

        Parameters
        ----------
        X : array-like, shape (T, F)
            Oldest row first; NaN and infinities count as missing.
        restart : array-like of bool, shape (T,), optional
            True where a new recording begins at this row.

        Returns
        -------
        ndarray, shape (T,)
            High is anomalous.

        Raises
        ------
        ValueError
            ``X`` does not have the model's F features, or ``restart`` has another length.
        """
        return self._scores(self._standardised(X, restart).data)

    def _scores(self, data: TrainingRows) -> NDArray[np.float64]:
        net, model = self.model_.discriminator, self.model_
        energies = np.empty((len(data), len(net.terms)), np.float32)
        for batch in _batches(len(data)):
            energies[batch] = net.energies(data.windows(batch))
        raw = net.abnormality_after_restart(energies, data.age, model.typical)
        return model.smoother().smooth(raw, data.age == 1)

    def feature_scores(self, X: ArrayLike, restart: ArrayLike | None = None) -> NDArray[np.float64]:
        """How much each feature contributed to each row's score; arguments as for :meth:`decision_function`.

        Returns
        -------
        ndarray, shape (T, F)
            A row sums to its score, or to 0 where no feature is to blame.
        """
        data = self._standardised(X, restart).data
        explains, typical = Explainer(self.model_.discriminator), self.model_.typical
        window = self.model_.discriminator.window
        shares = np.empty(data.z.shape)
        for batch in _batches(len(data)):
            for t, view in zip(batch, data.windows(batch), strict=True):
                both = data.age[t] >= 2 * window  # the window before counts, as in Detector.causes
                rows = data.z[t + 1 - 2 * window : t + 1] if both else view
                shares[t] = normalised(explains.explain(rows, typical)[1])
        return shares * self._scores(data)[:, None]

    def predict(self, X: ArrayLike, restart: ArrayLike | None = None) -> NDArray[np.intp]:
        """Decide on rows as the daemon does, a row by itself and those before it; arguments as for `decision_function`.

        Returns
        -------
        ndarray of int, shape (T,)
            1 for a row that is anomalous, and for the first 50 rows after the machine is found in another state.
        """
        return self.decide(X, restart).alarms.astype(np.intp)

    def decide(self, X: ArrayLike, restart: ArrayLike | None = None) -> Decisions:
        """Score rows and say what each is held against; arguments as for :meth:`decision_function`."""
        rows = self._standardised(X, restart)
        scores = self._scores(rows.data)
        decision = Decision(self.model_.threshold)
        steps = zip(scores.tolist(), rows.left.tolist(), rows.away.tolist(), strict=True)
        decided = [decision.take(score, left=left, away=away) for score, left, away in steps]
        return Decisions(
            scores,
            np.array([one.threshold for one in decided], np.float64),
            np.array([one.changed for one in decided], np.bool_),
        )

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

    def _standardised(self, X: ArrayLike, restart: ArrayLike | None) -> _Placed:
        """Standardised rows, features at the level they have by then; what is missing is generated from the others."""
        rows = _rows(X)
        model = self.model_
        if rows.shape[1] == len(model.readings) < len(model.features):  # rows have no times: nothing of other days
            rows = np.hstack([rows, np.full((len(rows), len(model.features) - rows.shape[1]), np.nan)])
        if rows.shape[1] != len(model.features):
            raise ValueError(f"the model has {len(model.features)} features, the rows have {rows.shape[1]}")
        pieces = _restart(restart, len(rows))
        place = model.scaler.standardise(model.judged(rows, pieces)[:])
        left, away = np.zeros((2, len(rows)), np.bool_)
        levels = model.levels()
        if not levels.never_left(place):
            begins = pieces.copy()
            for t, z in enumerate(place):
                moved = levels.take(z, restart=bool(pieces[t]) or t == 0)
                left[t], away[t] = moved.left is not None, levels.away
                begins[t] |= moved.begins
                z -= levels.shift
            pieces = begins
        z = clipped(place)
        gaps = np.isnan(z)
        for row in np.flatnonzero(gaps.any(axis=1)):
            z[row] = model.discriminator.impute(z[row], gaps[row])
        return _Placed(TrainingRows(z, pieces, model.discriminator.window), left, away)


class _Placed(NamedTuple):
    """Rows as a network sees them; (T,) where features moved to a new place, and where any is away from home."""

    data: TrainingRows
    left: NDArray[np.bool_]
    away: NDArray[np.bool_]


def _batches(rows: int) -> list[NDArray[np.intp]]:
    return [np.arange(i, min(i + _BATCH, rows)) for i in range(0, rows, _BATCH)]


def _rows(X: ArrayLike) -> NDArray[np.float64]:
    rows = np.asarray(X, np.float64)
    if rows.ndim != 2:
        raise ValueError(f"rows of shape (T, F) are needed, not {rows.shape}; a single feature is X[:, None]")
    return np.where(np.isfinite(rows), rows, np.nan)  # an infinity is a reading that failed, as in the daemon


def _restart(restart: ArrayLike | None, rows: int) -> NDArray[np.bool_]:
    """Where recordings begin among that many rows, shape (T,)."""
    if restart is None:
        return np.zeros(rows, np.bool_)
    flags = np.asarray(restart)
    if flags.shape != (rows,):
        raise ValueError(f"restart says True or False for each of the {rows} rows, but has shape {flags.shape}")
    return flags.astype(np.bool_)
