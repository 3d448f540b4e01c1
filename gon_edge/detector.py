"""One stream's detector: rows in, verdicts out; no I/O, no clock.

``Detector`` is what the daemon runs, a row at a time.  ``GONDetector`` is the same model behind the array interface
that scikit-learn and PyOD users know; both give the same scores.
"""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gon_edge.events import Cause, Row, Verdict
from gon_edge.fit import FitSettings, Smoother, fill, fit_model
from gon_edge.gon import Float
from gon_edge.modelfile import Model, load_model, save_model
from gon_edge.window import SlidingWindow, windows

_CLIMB_STEPS = 50
_BATCH = 256
_SMALLEST_SHARE = 0.05
"""A smaller one is not worth a line: such features mostly moved to meet the others."""
_FROZEN = 10
"""A feature is frozen after this many times its longest still run in training ..."""
_FROZEN_ROWS = 300
"""... and at least this many rows (five minutes at 1 Hz): slow sensors repeat values."""

_LEAST_EXCESS = 1e-9
"""Weight in the causes of a window that is as normal as a typical one: with two such, each counts half."""


class Detector:
    """Scores the rows of one stream.

    Parameters
    ----------
    model : Model
    top : int
        Most causes named in a verdict.

    Examples
    --------
    >>> import numpy as np
    >>> from gon_edge.events import Row
    >>> from gon_edge.fit import fit_model
    >>> rng = np.random.default_rng(0)
    >>> detector = Detector(fit_model(rng.normal(20.0, 0.5, (500, 1)), features=["celsius"], rng=rng))
    >>> row = Row("room", 0.0, ("celsius",), np.float32([35.0]), np.array([False]))
    >>> verdict = detector.update(row)
    >>> verdict.is_anomaly, verdict.causes[0].feature
    (True, 'celsius')
    """

    def __init__(self, model: Model, *, top: int = 5) -> None:
        self.model = model
        self._top = top
        self._net = model.discriminator
        self._window = SlidingWindow(2 * self._net.window, len(model.features))  # two: causes look back one more
        shares = sum(scale.share for scale in self._net.scales)
        self._scales = [(s.rows, s.tau, s.share, model.typical * s.share / shares) for s in self._net.scales]
        self._age = 0  # rows since the last restart
        self._smoother = Smoother(model.smoothing, self._net.window)
        self._columns: NDArray[np.intp] | None = None
        self._seen_features: tuple[str, ...] | None = None
        self._still = np.zeros(len(model.features), np.int64)
        self._last = np.full(len(model.features), np.nan, np.float32)
        self._masked = np.zeros(len(model.features), np.bool_)
        self._patience = np.maximum(_FROZEN * model.longest_run.astype(np.int64), _FROZEN_ROWS)

    def update(self, row: Row) -> Verdict:
        """Judge a row by itself and the rows before it, and say what makes it anomalous if it is."""
        verdict = self.score(row)
        return replace(verdict, causes=self.causes()) if verdict.is_anomaly else verdict

    def score(self, row: Row) -> Verdict:
        """Judge a row as :meth:`update` does, but without causes: a tenth of the time on anomalous rows.

        Features the model does not know are ignored; features it misses in the row, or that are stale or frozen, are
        masked: generated from the others, so that they neither raise nor hide a score.
        """
        model = self.model
        values, masked = self._select(row)
        self._masked = masked
        z = model.scaler.transform(values)
        if masked.any():
            z = self._net.impute(z, masked)
        if row.restart or not self._age:
            self._window.restart(z)
            self._age = 1
        else:
            self._window.push(z)
            self._age += 1
        raw = 0.0  # Discriminator.abnormality_after_restart of one window
        for energy, (rows, tau, share, neutral) in zip(
            self._net.energies_one(self._window.view()), self._scales, strict=True
        ):
            raw += share * math.log1p(energy / tau) if self._age >= rows else neutral
        score = self._smoother.add(raw, restart=self._age == 1)
        return Verdict(
            stream=row.stream,
            timestamp=row.timestamp,
            score=score,
            threshold=model.threshold,
            is_anomaly=score > model.threshold,
            causes=(),
            missing=tuple(name for name, gone in zip(model.features, masked, strict=True) if gone),
            model_version=model.version,
        )

    def causes(self) -> tuple[Cause, ...]:
        """What makes the last window abnormal, and the one before it if that was too, largest first.

        A fault is the same fault for longer than a window: with the window before, each weighted by how abnormal it is,
        the causes named are more often the right ones (docs/detection.md).
        """
        rows, nearest, share = self._explained()
        # A feature is shown as it is now, unless it was much further from normal earlier.
        move = np.abs(nearest - rows)
        worst = np.where(2.0 * move[-1] >= move.max(axis=0), len(move) - 1, move.argmax(axis=0))  # (F,)
        measured, expected = self.model.scaler.inverse(rows), self.model.scaler.inverse(nearest)
        measured[-1] = self._last  # as it came, not clipped
        largest = np.argsort(-share, kind="stable")[: self._top]
        return tuple(
            Cause(self.model.features[f], float(measured[worst[f], f]), float(expected[worst[f], f]), float(share[f]))
            for i, f in enumerate(largest)
            if share[f] > (_SMALLEST_SHARE if i else 0.0)
        )

    def account(self) -> tuple[NDArray[np.float64], NDArray[np.float32], NDArray[np.float64]]:
        """Of the last row each feature's share in the score (F,), its value as it came (F,), and the expected one (F,).

        Shares are those of :meth:`causes`, also of a row that is not anomalous.  Values are in engineering units.
        """
        _, nearest, share = self._explained()
        return share, self._last.copy(), self.model.scaler.inverse(nearest[-1])

    def _explained(self) -> tuple[Float, Float, NDArray[np.float64]]:
        """The last two windows (R, F), one after a restart; the nearest normal ones (R, F); shares (F,)."""
        rows = self._window.view()
        views = rows.reshape(2, self._net.window, -1)  # the window before, and the one that is judged
        if self._age < len(rows):
            rows, views = views[1], views[1:]  # before a restart nothing is known
        normal, share, excess = explain(self.model, views)
        share = _normalised(np.where(self._masked, 0.0, excess @ share)[None])[0]
        return rows, normal.reshape(rows.shape), share

    def _select(self, row: Row) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """Values (F,) in the model's order, and which of them can't be used."""
        if row.features is not self._seen_features:
            place = {name: i for i, name in enumerate(row.features)}
            self._columns = np.array([place.get(name, -1) for name in self.model.features], np.intp)
            self._seen_features = row.features
        assert self._columns is not None
        absent = self._columns < 0
        values = np.where(absent, np.float32(np.nan), row.values[self._columns])
        self._still = np.where(values == self._last, self._still + 1, 0)
        self._last = values
        return values, absent | row.stale[self._columns] | ~np.isfinite(values) | (self._still > self._patience)


def explain(model: Model, view: Float) -> tuple[Float, NDArray[np.float64], NDArray[np.float64]]:
    """The nearest normal window, each feature's share in the distance, and how far that is.

    Parameters
    ----------
    model : Model
    view : ndarray, shape (N, W, F)
        Standardised windows.

    Returns
    -------
    normal : ndarray, shape (N, W, F)
        Generated: the window moved up the discriminator's slope until it is as normal as a typical one.
    share : ndarray, shape (N, F)
        What D would gain, to first order, by moving the feature alone: half of it by the move to its values in
        ``normal``, half by the move to its mean.  The generated window meets an abnormal one part of the way and
        moves calm features towards wild ones; the mean does neither, but knows nothing of modes.  Each was better at
        some faults, both together never far from the better one (docs/detection.md).  Sums to 1, or to 0 where
        nothing moved.
    excess : ndarray, shape (N,)
        By how much the window is more abnormal than a typical one, above 0.
    """
    net = model.discriminator
    normal = net.generate(view, steps=_CLIMB_STEPS, accept=net.bias - model.typical)
    slope = net.input_gradient(view)
    share = _shares((normal - view) * slope) + _shares(-view * slope)
    excess = np.maximum(net.abnormality(net.energies(view)) - model.typical, _LEAST_EXCESS)
    return normal, _normalised(share), excess


def _shares(gain: Float) -> NDArray[np.float64]:
    """Each feature's share (N, F) in a gain (N, W, F); a feature whose gain is negative counts as 0."""
    return _normalised(np.maximum(gain.sum(axis=1, dtype=np.float64), 0.0))


def _normalised(share: NDArray[np.float64]) -> NDArray[np.float64]:
    """Shares (N, F) that sum to 1 a row, or to 0 where all are 0."""
    normalised: NDArray[np.float64] = share / np.maximum(share.sum(axis=1, keepdims=True), np.finfo(float).tiny)
    return normalised


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
