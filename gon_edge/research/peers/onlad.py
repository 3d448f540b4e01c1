"""ONLAD: an autoencoder whose output layer is solved recursively, row by row (Tsukada et al., IEEE ToC 2020).

The input layer is random and stays; the output layer is recursive least squares (OS-ELM) with a forgetting factor.
numpy suffices: there is no gradient.
"""

from __future__ import annotations

import numpy as np

from gon_edge.research.peers.peer import Array, WindowPeer


class ONLAD(WindowPeer):
    """Mean squared error of reconstructing a window through ``hidden`` random sigmoid units.

    Parameters
    ----------
    forget : float
        Forgetting factor of the recursion; 1 forgets nothing.
    """

    _RIDGE = 1e-2  # start of the recursion: keeps the first solution finite

    def __init__(self, *, window: int = 5, hidden: int = 32, forget: float = 1.0, random_state: int = 0) -> None:
        super().__init__(window=window, random_state=random_state)
        self.hidden = hidden
        self.forget = forget

    @property
    def n_parameters(self) -> int:  # noqa: D102
        return int(self.alpha_.size + self.bias_.size + self.beta_.size + self.P_.size)

    def _train_windows(self, windows: Array) -> None:
        rng = np.random.default_rng(self.random_state)
        x = windows.reshape(len(windows), -1)
        # Uniform in [-1, 1] as in the paper, over the root of the inputs so that the sigmoid is not saturated.
        self.alpha_ = rng.uniform(-1, 1, (x.shape[1], self.hidden)) / np.sqrt(x.shape[1])
        self.bias_ = rng.uniform(-1, 1, self.hidden)
        self.P_ = np.eye(self.hidden) / self._RIDGE
        self.beta_ = np.zeros((self.hidden, x.shape[1]))
        for h, target in zip(self._hidden(x), x, strict=True):
            gain = self.P_ @ h / (self.forget + h @ self.P_ @ h)  # (H,)
            self.beta_ += np.outer(gain, target - h @ self.beta_)
            self.P_ = (self.P_ - np.outer(gain, h @ self.P_)) / self.forget

    def _score_windows(self, windows: Array) -> Array:
        x = windows.reshape(len(windows), -1)
        return np.asarray(((x - self._hidden(x) @ self.beta_) ** 2).mean(axis=1))

    def _hidden(self, x: Array) -> Array:
        return np.asarray(1 / (1 + np.exp(-np.clip(x @ self.alpha_ + self.bias_, -50, 50))))
