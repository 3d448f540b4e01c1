"""GANomaly on windows: encoder, decoder, encoder again; a window is scored by how far its code moves (ACCV 2018).

Perceptrons in place of the paper's convolutions, the paper's three losses with its weights 1, 50, 1, and a
discriminator whose hidden layer is compared.  Three passes a window and no inner loop.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import torch
from torch import Tensor, nn

from gon_edge.research.peers.networks import start, tiny_is_zero
from gon_edge.research.peers.peer import Array, WindowPeer, minibatches


class GANomaly(WindowPeer):
    """Score ``mean (z - z')²`` of flattened windows scaled to [0, 1].

    Parameters
    ----------
    window : int
    latent : int
    epochs : int
    random_state : int
    """

    unit_range = True
    _BATCH = 128
    _ADVERSARIAL, _CONTEXTUAL, _ENCODER = 1.0, 50.0, 1.0  # the paper's weights

    def __init__(self, *, window: int = 15, latent: int = 8, epochs: int = 20, random_state: int = 0) -> None:
        super().__init__(window=window, random_state=random_state)
        self.latent = latent
        self.epochs = epochs

    @property
    def n_parameters(self) -> int:  # noqa: D102
        nets = (self.encoder_, self.decoder_, self.again_)
        return sum(p.numel() for net in nets for p in net.parameters())

    @tiny_is_zero()
    def _train_windows(self, windows: Array) -> None:
        rng = start(self.random_state)
        x = torch.tensor(windows.reshape(len(windows), -1), dtype=torch.float32)
        inputs = x.shape[1]
        self.encoder_ = _layers(inputs, 64, 32, self.latent)
        self.decoder_ = nn.Sequential(_layers(self.latent, 32, 64, inputs), nn.Sigmoid())
        self.again_ = _layers(inputs, 64, 32, self.latent)
        features, last = _layers(inputs, 64, 32), nn.Linear(32, 1)
        generator_steps = torch.optim.Adam(
            [*self.encoder_.parameters(), *self.decoder_.parameters(), *self.again_.parameters()],
            lr=1e-3,
            foreach=True,
        )
        discriminator_steps = torch.optim.Adam([*features.parameters(), *last.parameters()], lr=1e-3, foreach=True)
        bce, mse = nn.functional.binary_cross_entropy_with_logits, nn.functional.mse_loss
        for _ in range(self.epochs):
            for rows in minibatches(len(x), self._BATCH, rng):
                w = x[rows]
                code, made, again = self._forward(w)
                loss = (
                    self._ADVERSARIAL * mse(features(made), features(w).detach())
                    + self._CONTEXTUAL * (w - made).abs().mean()
                    + self._ENCODER * mse(again, code)
                )
                generator_steps.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                generator_steps.step()
                real, fake = last(features(w)), last(features(made.detach()))
                discriminator_steps.zero_grad()
                (bce(real, torch.ones_like(real)) + bce(fake, torch.zeros_like(fake))).backward()  # type: ignore[no-untyped-call]
                discriminator_steps.step()

    def _forward(self, w: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        code = self.encoder_(w)
        made = self.decoder_(code)
        return code, made, self.again_(made)

    @torch.no_grad()
    def _score_windows(self, windows: Array) -> Array:
        w = torch.tensor(windows.reshape(len(windows), -1), dtype=torch.float32)
        code, _, again = self._forward(w)
        return np.asarray(((code - again) ** 2).mean(dim=1).numpy(), dtype=np.float64)


def _layers(*sizes: int) -> nn.Sequential:
    steps: list[nn.Module] = []
    for before, after in pairwise(sizes):
        steps += [nn.Linear(before, after), nn.LeakyReLU(0.2)]
    return nn.Sequential(*steps[:-1])
