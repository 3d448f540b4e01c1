"""Local outlier factor on windows, fitted once: how much sparser a window's surroundings are than its neighbours'."""

from __future__ import annotations

import numpy as np
from sklearn.neighbors import LocalOutlierFactor  # type: ignore[import-untyped]

from gon_edge.research.peers.peer import Array, WindowPeer, subsample


class LOF(WindowPeer):
    """Local outlier factor against at most `sample` train windows (Breunig et al., SIGMOD 2000)."""

    def __init__(self, *, window: int = 15, k: int = 20, sample: int = 4000, random_state: int = 0) -> None:
        super().__init__(window=window, random_state=random_state)
        self.k = k
        self.sample = sample

    @property
    def n_parameters(self) -> int:  # noqa: D102
        return int(self.model_._fit_X.size + 2 * len(self.model_._fit_X))

    def _train_windows(self, windows: Array) -> None:
        kept = windows[subsample(len(windows), self.sample, np.random.default_rng(self.random_state))]
        neighbours = max(1, min(self.k, len(kept) - 1))
        self.model_ = LocalOutlierFactor(neighbours, novelty=True).fit(kept.reshape(len(kept), -1))

    def _score_windows(self, windows: Array) -> Array:
        return np.asarray(-self.model_.score_samples(windows.reshape(len(windows), -1)))
