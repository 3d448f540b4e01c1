"""USAD: two autoencoders on one encoder, the second trained against the first (Audibert et al., KDD 2020).

As the paper has it: two optimisers, ``E + D1`` and ``E + D2``, one after the other on every batch.  With one optimiser
on the sum, as some published copies have it, the adversarial terms cancel.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import torch
from torch import nn

from gon_edge.research.peers.networks import start, tiny_is_zero
from gon_edge.research.peers.peer import Array, WindowPeer, minibatches


class USAD(WindowPeer):
    """Score ``0.5 |w - AE1(w)|^2 + 0.5 |w - AE2(AE1(w))|^2`` of flattened windows scaled to [0, 1]."""

    unit_range = True
    _BATCH = 256
    # Ten epochs gave the mean AP of seventy (0.367 both) at a quarter of the time.
    _ALPHA = 0.5  # the paper's α = β = 0.5

    def __init__(self, *, window: int = 12, latent: int = 40, epochs: int = 10, random_state: int = 0) -> None:
        super().__init__(window=window, random_state=random_state)
        self.latent = latent
        self.epochs = epochs

    @property
    def n_parameters(self) -> int:  # noqa: D102
        return sum(p.numel() for net in (self.encoder_, self.first_, self.second_) for p in net.parameters())

    @tiny_is_zero()
    def _train_windows(self, windows: Array) -> None:
        rng = start(self.random_state)
        x = torch.tensor(windows.reshape(len(windows), -1), dtype=torch.float32)
        sizes = [x.shape[1], max(2, x.shape[1] // 2), max(2, x.shape[1] // 4), min(self.latent, x.shape[1])]
        self.encoder_ = _layers(sizes, nn.ReLU())
        self.first_ = _layers(sizes[::-1], nn.Sigmoid())
        self.second_ = _layers(sizes[::-1], nn.Sigmoid())
        trained = [[*self.encoder_.parameters(), *second.parameters()] for second in (self.first_, self.second_)]
        optimizer_1, optimizer_2 = (torch.optim.Adam(parameters, foreach=True) for parameters in trained)
        mse = nn.functional.mse_loss
        for epoch in range(1, self.epochs + 1):
            for rows in minibatches(len(x), self._BATCH, rng):
                w = x[rows]
                _, w1, w3 = self._forward(w)
                optimizer_1.zero_grad()
                loss = mse(w1, w) / epoch + (1 - 1 / epoch) * mse(w3, w)
                loss.backward(inputs=trained[0])  # type: ignore[no-untyped-call]
                optimizer_1.step()
                code, _, w3 = self._forward(w)
                optimizer_2.zero_grad()
                loss = mse(self.second_(code), w) / epoch - (1 - 1 / epoch) * mse(w3, w)
                loss.backward(inputs=trained[1])  # type: ignore[no-untyped-call]
                optimizer_2.step()

    def _forward(self, w: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        code = self.encoder_(w)
        w1 = self.first_(code)
        return code, w1, self.second_(self.encoder_(w1))

    @torch.no_grad()
    def _score_windows(self, windows: Array) -> Array:
        w = torch.tensor(windows.reshape(len(windows), -1), dtype=torch.float32)
        _, w1, w3 = self._forward(w)
        return np.asarray(
            (self._ALPHA * (w - w1) ** 2 + (1 - self._ALPHA) * (w - w3) ** 2).mean(dim=1).numpy(), dtype=np.float64
        )


def _layers(sizes: list[int], last: nn.Module) -> nn.Sequential:
    steps: list[nn.Module] = []
    for before, after in pairwise(sizes):
        steps += [nn.Linear(before, after), nn.ReLU()]
    return nn.Sequential(*steps[:-1], last)
