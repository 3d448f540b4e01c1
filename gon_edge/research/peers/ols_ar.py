"""Linear autoregression: how far the next row lies from what least squares predicts of the rows before it.

After Yugay et al., "Strong Linear Baselines Strike Back" (arXiv 2602.00672, 2026): all features' last rows predict each
feature's next value, in closed form, and a small ridge keeps collinear columns finite.  The score is the squared
residual in units of its training variance, the exponent of a Gaussian conditional density with independent features.
"""

from __future__ import annotations

import numpy as np

from gon_edge.research.peers.peer import CLIP, Array, WindowPeer, causal_windows


class OLSAutoregression(WindowPeer):
    """Mean over features of the last row's squared, standardised prediction residual.

    Parameters
    ----------
    window : int
        The predicted row and the W - 1 rows that predict it.
    ridge : float
        Added to the mean square of every predictor; predictors are standardised, so 1 is as much as a column has.
    floor : float
        Least variance of a residual, in training variances of its feature: a column that is predicted exactly, or never
        moves, would otherwise decide every score.
    """

    def __init__(self, *, window: int = 15, ridge: float = 1e-3, floor: float = 1e-4, random_state: int = 0) -> None:
        super().__init__(window=window, random_state=random_state)
        self.ridge = ridge
        self.floor = floor

    @property
    def n_parameters(self) -> int:  # noqa: D102
        return int(self.weights_.size + self.variance_.size)

    def feature_scores(self, X: Array) -> Array:
        """Return (T, F): each feature's own squared, standardised residual."""
        Z = self.scaler_(np.asarray(X, dtype=np.float64), clip=CLIP)
        return self._squares(np.ascontiguousarray(causal_windows(Z, self.window)))

    def _train_windows(self, windows: Array) -> None:
        past, row = self._split(windows)
        gram = past.T @ past / len(past)
        # The constant's own ridge is left out: a mean is not to be pulled to zero.
        gram[np.diag_indices(len(gram) - 1)] += self.ridge
        self.weights_ = np.linalg.solve(gram, past.T @ row / len(past))
        self.variance_ = np.maximum(np.mean((row - past @ self.weights_) ** 2, axis=0), self.floor)

    def _score_windows(self, windows: Array) -> Array:
        return np.asarray(self._squares(windows).mean(axis=1))

    def _squares(self, windows: Array) -> Array:
        past, row = self._split(windows)
        return np.asarray((row - past @ self.weights_) ** 2 / self.variance_)

    @staticmethod
    def _split(windows: Array) -> tuple[Array, Array]:
        """Return the predictors (N, (W - 1) F + 1), a constant last, and the row to predict (N, F)."""
        past = windows[:, :-1].reshape(len(windows), -1)
        return np.column_stack([past, np.ones(len(past))]), windows[:, -1]
