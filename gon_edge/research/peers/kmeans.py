"""k-means on windows: the distance to the nearest of k centres, and Netdata's variant with two centres a feature."""

from __future__ import annotations

import numpy as np
from sklearn.cluster import KMeans as SklearnKMeans  # type: ignore[import-untyped]

from gon_edge.research.peers.peer import Array, RowPeer, WindowPeer, causal_windows


class KMeans(WindowPeer):
    """Euclidean distance of a flattened window to the nearest of `k` centres."""

    def __init__(self, *, window: int = 15, k: int = 10, random_state: int = 0) -> None:
        super().__init__(window=window, random_state=random_state)
        self.k = k

    @property
    def n_parameters(self) -> int:  # noqa: D102
        return int(self.model_.cluster_centers_.size)

    def _train_windows(self, windows: Array) -> None:
        flat = windows.reshape(len(windows), -1)
        self.model_ = SklearnKMeans(min(self.k, len(flat)), n_init=3, random_state=self.random_state).fit(flat)

    def _score_windows(self, windows: Array) -> Array:
        return np.asarray(self.model_.transform(windows.reshape(len(windows), -1)).min(axis=1))


class NetdataKMeans(RowPeer):
    """Two centres a feature over the last differences, smoothed and lagged; the row's score is the mean over features.

    Netdata differences by one step, smooths over three and takes lags 0..5 of it.  A feature's score is its mean
    distance to the two centres, mapped so that the train range is [0, 1].  Netdata then counts the features above
    0.99; the mean is the same statement without the step.
    """

    _SMOOTH = 3
    _LAGS = 6

    @property
    def n_parameters(self) -> int:  # noqa: D102
        return int(self.centres_.size + 2 * self.low_.size)

    def _train(self, Z: Array) -> None:
        vectors = self._vectors(Z)
        self.centres_ = np.stack(
            [
                SklearnKMeans(min(2, len(Z)), n_init=3, random_state=self.random_state)
                .fit(vectors[:, f])
                .cluster_centers_
                for f in range(Z.shape[1])
            ]
        )  # (F, 2, lags)
        distances = self._distances(vectors)
        self.low_ = distances.min(axis=0)
        self.spread_ = np.maximum(distances.max(axis=0) - self.low_, 1e-9)

    def _score(self, Z: Array) -> Array:
        return np.asarray(np.clip((self._distances(self._vectors(Z)) - self.low_) / self.spread_, 0, 10).mean(axis=1))

    def _vectors(self, Z: Array) -> Array:
        differences = np.diff(Z, axis=0, prepend=Z[:1])
        smooth = causal_windows(differences, self._SMOOTH).mean(axis=1)
        return np.ascontiguousarray(causal_windows(smooth, self._LAGS).transpose(0, 2, 1))  # (T, F, lags)

    def _distances(self, vectors: Array) -> Array:
        return np.asarray(
            np.mean(
                [np.linalg.norm(vectors - self.centres_[:, k], axis=2) for k in range(self.centres_.shape[1])], axis=0
            )
        )
