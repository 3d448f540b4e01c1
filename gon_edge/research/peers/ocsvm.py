"""One-class support vector machine with a radial kernel: the signed distance outside the learned support."""

from __future__ import annotations

import numpy as np
from sklearn.svm import OneClassSVM  # type: ignore[import-untyped]

from gon_edge.research.peers.peer import Array, WindowPeer, subsample


class OCSVM(WindowPeer):
    """One-class SVM on at most `sample` train windows (Schölkopf et al., 2001)."""

    def __init__(self, *, window: int = 15, nu: float = 0.5, sample: int = 3000, random_state: int = 0) -> None:
        super().__init__(window=window, random_state=random_state)
        self.nu = nu
        self.sample = sample

    @property
    def n_parameters(self) -> int:  # noqa: D102
        return int(self.model_.support_vectors_.size + self.model_.dual_coef_.size + 1)

    def _train_windows(self, windows: Array) -> None:
        kept = windows[subsample(len(windows), self.sample, np.random.default_rng(self.random_state))]
        self.model_ = OneClassSVM(gamma="scale", nu=self.nu).fit(kept.reshape(len(kept), -1))

    def _score_windows(self, windows: Array) -> Array:
        return np.asarray(-self.model_.score_samples(windows.reshape(len(windows), -1)))
