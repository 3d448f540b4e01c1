"""Matrix profile from stumpy: the distance of a subsequence to its nearest neighbour in train.

The usual matrix profile joins the test series with itself, so that a row's score depends on later rows.  Here test
is joined with train (an AB-join), and a row has the distance of the subsequence that ends at it: causal.
"""

from __future__ import annotations

import numpy as np
import stumpy  # type: ignore[import-untyped]

from gon_edge.research.peers.peer import Array, RowPeer


class MatrixProfile(RowPeer):
    """Mean over features of the distance to the nearest train subsequence of the same feature.

    Parameters
    ----------
    window : int
        Rows of a subsequence, W.
    normalise : bool
        Compare shapes (each subsequence standardised on its own, the usual matrix profile) rather than values.  Values
        did better: a level that was never seen is no shape.
    """

    def __init__(self, *, window: int = 15, normalise: bool = False, random_state: int = 0) -> None:
        super().__init__(random_state=random_state)
        self.window = window
        self.normalise = normalise

    @property
    def n_parameters(self) -> int:  # noqa: D102
        return int(self.train_.size)

    def _train(self, Z: Array) -> None:
        self.train_ = Z

    def _score(self, Z: Array) -> Array:
        window = min(self.window, len(self.train_))
        padded = np.concatenate([np.repeat(Z[:1], window - 1, axis=0), Z])
        profiles = [
            stumpy.stump(padded[:, f], window, self.train_[:, f], ignore_trivial=False, normalize=self.normalise)[
                :, 0
            ].astype(np.float64)
            for f in range(Z.shape[1])
        ]
        return np.asarray(np.nan_to_num(np.mean(profiles, axis=0), posinf=np.sqrt(2 * window)))
