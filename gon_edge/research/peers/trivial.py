"""Four scores that need no model.  A method that does not pass them has learned nothing."""

from __future__ import annotations

import numpy as np

from gon_edge.research.peers.peer import Array, RowPeer


class _Trivial(RowPeer):
    n_parameters = 0

    def _train(self, Z: Array) -> None:
        """Learn nothing: the scaler has the mean and the deviation."""


class Random(_Trivial):
    """A uniform random score: what a measure gives for nothing."""

    def _score(self, Z: Array) -> Array:
        return np.random.default_rng(self.random_state).random(len(Z))


class DistanceFromMean(_Trivial):
    """The mean absolute deviation of a row from the train mean, in train deviations."""

    def _score(self, Z: Array) -> Array:
        return np.asarray(np.abs(Z).mean(axis=1))


class LargestZ(_Trivial):
    """The largest absolute deviation of a row, in train deviations."""

    def _score(self, Z: Array) -> Array:
        return np.asarray(np.abs(Z).max(axis=1))


class LastDifference(_Trivial):
    """The mean absolute change since the row before."""

    def _score(self, Z: Array) -> Array:
        return np.asarray(np.abs(np.diff(Z, axis=0, prepend=Z[:1])).mean(axis=1))
