"""DILOF: incremental local outlier factor over a bounded memory that is summarised by density (Na et al., KDD 2018).

When the memory is full, the older half is thinned to half its points so that its density is kept (NDS); a point that
continues a run of outliers is not remembered, so that a long fault does not become dense and hence normal (the
skipping scheme).  Plain LOF, fitted once, is in ``lof.py``.
"""

from __future__ import annotations

import copy

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.distance import cdist  # type: ignore[import-untyped]

from gon_edge.research.peers.peer import Array, RowPeer

# Distances below this (train deviations) are the same place: repeated rows would have infinite density.
_SAME_PLACE = 1e-3
# NDS: the authors' numbers of gradient steps, rate, decay and weight of the size constraint.
_STEPS, _RATE, _DECAY, _SIZE_WEIGHT = 20, 0.3, 0.95, 0.001


class DILOF(RowPeer):
    """Local outlier factor of a row among the remembered rows, as the stream goes on.

    Parameters
    ----------
    memory : int
        Rows remembered at most.
    k : int
        Neighbours.
    outlier : float
        LOF above which a row starts, or continues, a run of outliers.
    """

    row_by_row = True

    def __init__(self, *, memory: int = 1000, k: int = 20, outlier: float = 2.0, random_state: int = 0) -> None:
        super().__init__(random_state=random_state)
        self.memory = memory
        self.k = k
        self.outlier = outlier

    @property
    def n_parameters(self) -> int:  # noqa: D102
        return int(self.memory_.points.size + 2 * self.memory_.points.shape[0] * self.k)

    def _train(self, Z: Array) -> None:
        self.memory_ = _Memory(self.memory, self.k, self.outlier)
        for row in Z:
            self.memory_.update(row)

    def _score(self, Z: Array) -> Array:
        memory = copy.deepcopy(self.memory_)
        return np.array([memory.update(row) for row in Z])


class _Memory:
    """The remembered rows, and for each its k nearest others by index and distance, nearest first."""

    def __init__(self, size: int, k: int, outlier: float) -> None:
        self.size = size
        self.k = k
        self.outlier = outlier
        self.last_outlier: Array | None = None
        self.points = np.empty((0, 0))
        self.near = np.empty((0, k), dtype=np.int64)
        self.distance = np.empty((0, k))

    def update(self, row: Array) -> float:
        """Return a row's LOF, and remember the row unless it continues a run of outliers."""
        if len(self.points) <= self.k:
            self.points = row[None] if not len(self.points) else np.concatenate([self.points, row[None]])
            if len(self.points) == self.k + 1:
                self._find_neighbours()
            return 1.0
        away = np.maximum(np.linalg.norm(self.points - row, axis=1), _SAME_PLACE)
        before = self.near, self.distance
        self._insert(away)
        score = float(self._lof(np.array([len(self.near) - 1]))[0])
        if self._continues_a_run(row, score):
            self.near, self.distance = before
        else:
            self.points = np.concatenate([self.points, row[None]])
            if len(self.points) >= self.size:
                self._summarise()
        if score > self.outlier:
            self.last_outlier = row
        return score

    def _continues_a_run(self, row: Array, score: float) -> bool:
        if score <= self.outlier or self.last_outlier is None:
            return False
        return bool(np.linalg.norm(row - self.last_outlier) < self.distance[:, 0].mean() + _SAME_PLACE)

    def _insert(self, away: Array) -> None:
        """Make the new row a neighbour of those it is near to, and give it neighbours of its own."""
        new = len(away)
        mine = np.argpartition(away, self.k - 1)[: self.k]
        mine = mine[np.argsort(away[mine], kind="stable")]
        near = np.concatenate([self.near, mine[None]])
        distance = np.concatenate([self.distance, away[mine][None]])
        closer = np.flatnonzero(away < self.distance[:, -1])
        if len(closer):
            wider = np.column_stack([self.distance[closer], away[closer]])
            who = np.column_stack([self.near[closer], np.full(len(closer), new)])
            order = np.argsort(wider, axis=1, kind="stable")[:, : self.k]
            distance[closer] = np.take_along_axis(wider, order, axis=1)
            near[closer] = np.take_along_axis(who, order, axis=1)
        self.near, self.distance = near, distance

    def _lof(self, which: NDArray[np.int64]) -> Array:
        """Return LOF = mean density of a row's neighbours over its own density, (len(which),)."""
        neighbours = self.near[which]  # (n, k)
        return np.asarray(self._density(neighbours).mean(axis=-1) / self._density(which))

    def _density(self, which: NDArray[np.int64]) -> Array:
        """Return local reachability densities, shaped as `which`."""
        reach = np.maximum(self.distance[self.near[which], -1], self.distance[which])
        return np.asarray(1 / reach.mean(axis=-1))

    def _find_neighbours(self) -> Array:
        """Rebuild the neighbour lists and return all distances; a row is at infinite distance from itself."""
        apart = np.maximum(cdist(self.points, self.points), _SAME_PLACE)
        np.fill_diagonal(apart, np.inf)
        nearest = np.argpartition(apart, self.k - 1, axis=1)[:, : self.k]
        reach = np.take_along_axis(apart, nearest, axis=1)
        order = np.argsort(reach, axis=1, kind="stable")
        self.near = np.take_along_axis(nearest, order, axis=1)
        self.distance = np.take_along_axis(reach, order, axis=1)
        return np.asarray(apart)

    def _summarise(self) -> None:
        """Thin the older half to half its points: gradient descent on y in [0, 1], then keep the largest y (NDS)."""
        apart = self._find_neighbours()
        old = len(self.points) // 2
        kept = old // 2
        lof = np.minimum(self._lof(np.arange(old)), 10.0)  # e^LOF must stay finite
        weight = np.exp(1 / (1 + np.exp(-lof)))
        among_old = self.near[:old] < old
        mass = np.where(among_old, weight[np.minimum(self.near[:old], old - 1)], 0.0).sum(axis=1)
        farthest = np.where(np.isfinite(apart[:old, :old]), apart[:old, :old], 0.0).max(axis=1)
        radius = self.distance[:old, -1]
        rho = 1 + mass / weight.sum() * (farthest / radius - 1)  # expected growth of the k-distance
        kth = self.near[:old, -1]
        counted = kth < old
        stretch = apart[np.arange(old), kth] / radius
        y = np.full(old, 0.5)
        rate = _RATE
        for _ in range(_STEPS):
            rate *= _DECAY
            pulled = np.bincount(kth[counted], weights=(y * stretch)[counted], minlength=old)
            outside = 2 * np.maximum(y - 1, 0) + 2 * np.minimum(y, 0)
            y = y - rate * (pulled + rho - np.exp(lof) + _SIZE_WEIGHT * (y.sum() - kept) + outside)
        keep = np.sort(np.argsort(-y, kind="stable")[:kept])
        self.points = np.concatenate([self.points[keep], self.points[old:]])
        self._find_neighbours()
