"""What a method of the benchmark is, and what the methods written here share: scaling, windows, the threshold rule.

A new method is a file of its own in this folder, a line in ``PEERS`` (``peers/__init__.py``), and nothing else: the
tests and the table find it there.
"""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from typing import Protocol, Self, runtime_checkable

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import ArrayLike, NDArray

from gon_edge.training.threshold import fit_pot

Array = NDArray[np.float64]

CLIP = 20.0
"""Deviations at which scaled test values are cut: a column constant in train may jump by any amount."""

HELD_OUT = 0.3
"""Share of train, at its end, whose scores give the threshold; the model that scores it has not seen it."""

RISK = 1e-3
"""Share of normal rows that may lie above the threshold: of 1e-3, 1e-4 and 1e-5 the best for most peers here."""

# Scored at once; bounds memory at chunk x W x F numbers.
_CHUNK_ROWS = 4096


@runtime_checkable
class Peer(Protocol):
    """A detector as the benchmark sees it; :class:`gon_edge.GONDetector` is one."""

    threshold_: float

    def fit(self, X: ArrayLike, /) -> Self:
        """Learn from normal rows (T, F)."""

    def decision_function(self, X: ArrayLike, /) -> Array:
        """Return one score a row, high for anomalies; row t is judged by rows up to and including t."""


class Scaler:
    """Standardise columns by train mean and deviation; constant columns are centred and otherwise left as they are.

    Parameters
    ----------
    unit : bool
        Map the standardised train range to [0, 1] afterwards, for networks that end in a sigmoid.
    """

    def __init__(self, *, unit: bool = False) -> None:
        self.unit = unit

    def fit(self, X: Array) -> Self:
        """Learn mean, deviation and range, (F,) each.  NaN is ignored."""
        with np.errstate(all="ignore"):
            self.mean_ = np.nan_to_num(np.nanmean(X, axis=0))
            deviation = np.nan_to_num(np.nanstd(X, axis=0))
        # Below 1e-8 of its own size a deviation is rounding, not movement.
        constant = deviation <= 1e-8 * np.maximum(1.0, np.abs(self.mean_))
        self.deviation_ = np.where(constant, 1.0, deviation)
        standardised = np.nan_to_num((X - self.mean_) / self.deviation_)
        self.low_ = standardised.min(axis=0)
        spread = standardised.max(axis=0) - self.low_
        self.spread_ = np.where(spread > 0, spread, 1.0)
        return self

    def __call__(self, X: Array, *, clip: float = np.inf) -> Array:
        """Return scaled rows; NaN becomes the train mean."""
        scaled = np.clip(np.nan_to_num((X - self.mean_) / self.deviation_, posinf=CLIP, neginf=-CLIP), -clip, clip)
        return np.asarray((scaled - self.low_) / self.spread_ if self.unit else scaled)


class RowPeer(ABC):
    """A method that scores a scaled series.

    Parameters
    ----------
    random_state : int
        Seed of everything random in the method.

    Attributes
    ----------
    threshold_ : float
        Peaks-over-threshold level of the scores of the last 30 % of train under a model that was fitted to the rest;
        the model is then fitted to all of train.  The same rule, with the same risk, for every method.
    calibration_ : ndarray, shape (C,)
        Those scores, for other risks.
    """

    unit_range = False
    clip_train = False
    threshold_: float
    calibration_: Array

    def __init__(self, *, random_state: int = 0) -> None:
        self.random_state = random_state

    def fit(self, X: ArrayLike, /, *, restart: ArrayLike | None = None) -> Self:
        """Learn from normal rows (T, F).

        Parameters
        ----------
        X : array_like, shape (T, F)
        restart : array_like of bool, shape (T,), optional
            True where a recording begins: no window reaches over its seam.
        """
        rows = _rows(X)
        starts = np.zeros(len(rows), np.bool_) if restart is None else np.asarray(restart, np.bool_)
        held_out = int(HELD_OUT * len(rows))
        if held_out >= 10:
            earlier = copy.deepcopy(self)._fit(rows[:-held_out], starts[:-held_out])
            # The rows before the held-out ones fill the first windows.
            context = min(getattr(self, "window", 1) - 1, len(rows) - held_out)
            late = slice(len(rows) - held_out - context, None)
            calibration = earlier._score_runs(rows[late], starts[late])[context:]
            self._fit(rows, starts)
        else:
            calibration = self._fit(rows, starts)._score_runs(rows, starts)
        self.calibration_ = calibration
        self.threshold_ = fit_pot(calibration, RISK)
        return self

    def decision_function(self, X: ArrayLike, /) -> Array:
        """Return one score a row, high for anomalies, causal."""
        return self._score(self.scaler_(_rows(X), clip=CLIP))

    @property
    @abstractmethod
    def n_parameters(self) -> int:
        """Numbers the fitted model keeps, its scaler left out."""

    @abstractmethod
    def _train(self, Z: Array) -> None:
        """Learn from scaled rows (T, F)."""

    @abstractmethod
    def _score(self, Z: Array) -> Array:
        """Return the scores (T,) of scaled rows (T, F)."""

    def _train_runs(self, runs: list[Array]) -> None:
        """Learn from the scaled rows of each recording; without windows of its own a method takes them as one."""
        self._train(np.concatenate(runs))

    def _score_runs(self, rows: Array, starts: NDArray[np.bool_]) -> Array:
        return np.concatenate([self.decision_function(run) for run in _runs(rows, starts)])

    def _fit(self, rows: Array, starts: NDArray[np.bool_] | None = None) -> Self:
        self.scaler_ = Scaler(unit=self.unit_range).fit(rows)
        # The published figures of the peers were measured with train not clipped; some do better with it clipped.
        scaled = self.scaler_(rows, clip=CLIP if self.clip_train else np.inf)
        self._train_runs([scaled] if starts is None else _runs(scaled, starts))
        return self


class WindowPeer(RowPeer):
    """A method that scores windows independently of each other.

    Parameters
    ----------
    window : int
        Rows of a window, W.
    """

    def __init__(self, *, window: int = 15, random_state: int = 0) -> None:
        super().__init__(random_state=random_state)
        self.window = window

    @abstractmethod
    def _train_windows(self, windows: Array) -> None:
        """Learn from (N, W, F)."""

    @abstractmethod
    def _score_windows(self, windows: Array) -> Array:
        """Return (N,) of (N, W, F)."""

    def _train(self, Z: Array) -> None:
        self._train_runs([Z])

    def _train_runs(self, runs: list[Array]) -> None:
        self._train_windows(np.concatenate([causal_windows(run, self.window) for run in runs]))

    def _score(self, Z: Array) -> Array:
        windows = causal_windows(Z, self.window)
        chunks = range(0, len(windows), _CHUNK_ROWS)
        return np.concatenate(
            [self._score_windows(np.ascontiguousarray(windows[at : at + _CHUNK_ROWS])) for at in chunks]
        )

    def score_window(self, window: ArrayLike, /) -> float:
        """Return the score of the last row of one window (W, F), as a stream would ask for it."""
        return float(self._score_windows(self.scaler_(_rows(window), clip=CLIP)[None])[0])


def causal_windows(Z: Array, window: int) -> Array:
    """Return (T, W, F): at t the rows t-W+1..t; before the start the first row is repeated.  A view of a copy."""
    padded = np.concatenate([np.repeat(Z[:1], window - 1, axis=0), Z])
    return sliding_window_view(padded, window, axis=0).transpose(0, 2, 1)


def _runs(rows: Array, starts: NDArray[np.bool_]) -> list[Array]:
    """Return the rows of each recording; the first begins with the first row."""
    return np.split(rows, np.flatnonzero(starts[1:]) + 1)


def subsample(count: int, limit: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Return at most `limit` of `count` indices, sorted, without repeats."""
    return np.arange(count) if count <= limit else np.sort(rng.choice(count, limit, replace=False))


def minibatches(count: int, size: int, rng: np.random.Generator) -> list[NDArray[np.int64]]:
    """Return the indices 0..count-1 in random order, cut into batches of about `size`."""
    return np.array_split(rng.permutation(count), max(1, round(count / size)))


def _rows(X: ArrayLike) -> Array:
    rows = np.asarray(X, dtype=np.float64)
    if rows.ndim != 2 or not len(rows):
        raise ValueError(f"expected rows (T, F) with T >= 1, got {rows.shape}")
    return rows
