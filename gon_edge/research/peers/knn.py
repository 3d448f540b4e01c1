"""k nearest neighbours: the mean distance of a window to the five nearest of a sample of train windows."""

from __future__ import annotations

import numpy as np
from sklearn.neighbors import NearestNeighbors  # type: ignore[import-untyped]

from gon_edge.research.peers.peer import Array, WindowPeer, subsample


class KNN(WindowPeer):
    """Mean distance to the `k` nearest of at most `sample` train windows."""

    def __init__(self, *, window: int = 15, k: int = 5, sample: int = 4000, random_state: int = 0) -> None:
        super().__init__(window=window, random_state=random_state)
        self.k = k
        self.sample = sample

    @property
    def n_parameters(self) -> int:  # noqa: D102
        return int(self.model_._fit_X.size)

    def _train_windows(self, windows: Array) -> None:
        kept = windows[subsample(len(windows), self.sample, np.random.default_rng(self.random_state))]
        self.model_ = NearestNeighbors(n_neighbors=min(self.k, len(kept))).fit(kept.reshape(len(kept), -1))

    def _score_windows(self, windows: Array) -> Array:
        return np.asarray(self.model_.kneighbors(windows.reshape(len(windows), -1))[0].mean(axis=1))
