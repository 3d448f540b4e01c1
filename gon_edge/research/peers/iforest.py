"""Isolation Forest: how few random cuts separate a window from the rest (Liu et al., ICDM 2008)."""

from __future__ import annotations

import numpy as np
from sklearn.ensemble import IsolationForest  # type: ignore[import-untyped]

from gon_edge.research.peers.peer import Array, WindowPeer


class IForest(WindowPeer):
    """Isolation Forest with `trees` trees on flattened windows."""

    def __init__(self, *, window: int = 15, trees: int = 100, random_state: int = 0) -> None:
        super().__init__(window=window, random_state=random_state)
        self.trees = trees

    @property
    def n_parameters(self) -> int:  # noqa: D102
        # A node keeps a feature, a cut and two children.
        return 4 * int(sum(tree.tree_.node_count for tree in self.model_.estimators_))

    def _train_windows(self, windows: Array) -> None:
        self.model_ = IsolationForest(n_estimators=self.trees, random_state=self.random_state).fit(
            windows.reshape(len(windows), -1)
        )

    def _score_windows(self, windows: Array) -> Array:
        return np.asarray(-self.model_.score_samples(windows.reshape(len(windows), -1)))
