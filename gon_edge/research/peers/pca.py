"""Principal components: the squared residual of a window outside the subspace that holds most of the variance."""

from __future__ import annotations

import numpy as np
from sklearn import decomposition  # type: ignore[import-untyped]

from gon_edge.research.peers.peer import CLIP, Array, WindowPeer, causal_windows


class PCA(WindowPeer):
    """Squared distance to the principal subspace of flattened windows.

    Parameters
    ----------
    variance : float
        Share of the train variance the subspace holds.
    clip_train : bool
        Clip train as test is clipped; otherwise one far train row turns a component towards itself.
    """

    def __init__(
        self, *, window: int = 15, variance: float = 0.8, clip_train: bool = False, random_state: int = 0
    ) -> None:
        super().__init__(window=window, random_state=random_state)
        self.variance = variance
        self.clip_train = clip_train

    @property
    def n_parameters(self) -> int:  # noqa: D102
        return int(self.model_.components_.size + self.model_.mean_.size)

    def feature_scores(self, X: Array) -> Array:
        """Return (T, F): each feature's part of the residual, summed over the window."""
        Z = self.scaler_(np.asarray(X, dtype=np.float64), clip=CLIP)
        windows = causal_windows(Z, self.window)
        parts = [
            self._residual(np.ascontiguousarray(windows[at : at + 4096])).sum(axis=1)
            for at in range(0, len(windows), 4096)
        ]
        return np.concatenate(parts)

    def _train_windows(self, windows: Array) -> None:
        self.model_ = decomposition.PCA(self.variance, svd_solver="full").fit(windows.reshape(len(windows), -1))

    def _score_windows(self, windows: Array) -> Array:
        return np.asarray(self._residual(windows).sum(axis=(1, 2)))

    def _residual(self, windows: Array) -> Array:
        flat = windows.reshape(len(windows), -1)
        residual = flat - self.model_.inverse_transform(self.model_.transform(flat))
        return np.asarray((residual**2).reshape(windows.shape))
