"""SlimGAN: generator and discriminator that work at several widths with shared weights (Hou et al., AAAI 2021).

The paper makes images.  Here, as in the benchmark of the GON paper, the generator rebuilds a window it is given, and
the score is its error.  Every step trains all widths; a narrow generator also follows the next wider one (the paper's
stepwise in-place distillation).  It is the narrow half that scores: that is the point of a slimmable network.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import torch
from torch import nn

from gon_edge.research.peers.networks import start, tiny_is_zero
from gon_edge.research.peers.peer import Array, WindowPeer, minibatches


class SlimGAN(WindowPeer):
    """Mean squared error of the window rebuilt at ``width`` of the hidden units, inputs scaled to [0, 1]."""

    unit_range = True
    _WIDTHS = (0.25, 0.5, 0.75, 1.0)
    _BATCH = 128

    def __init__(
        self, *, window: int = 15, hidden: int = 64, width: float = 0.5, epochs: int = 20, random_state: int = 0
    ) -> None:
        super().__init__(window=window, random_state=random_state)
        self.hidden = hidden
        self.width = width
        self.epochs = epochs

    @property
    def n_parameters(self) -> int:  # noqa: D102
        units = round(self.width * self.hidden)  # only what scores has to be kept
        inputs = self.generator_.first.in_features
        return units * inputs + units + units * units + units + units * inputs + inputs

    @tiny_is_zero()
    def _train_windows(self, windows: Array) -> None:
        rng = start(self.random_state)
        x = torch.tensor(windows.reshape(len(windows), -1), dtype=torch.float32)
        self.generator_ = _Slimmable(x.shape[1], self.hidden, x.shape[1])
        self.discriminator_ = _Slimmable(x.shape[1], self.hidden, 1)
        generator = list(self.generator_.parameters())
        generator_steps = torch.optim.Adam(generator, lr=1e-3, foreach=True)
        discriminator_steps = torch.optim.Adam(self.discriminator_.parameters(), lr=1e-3, foreach=True)
        bce, mse = nn.functional.binary_cross_entropy, nn.functional.mse_loss
        for _ in range(self.epochs):
            for rows in minibatches(len(x), self._BATCH, rng):
                w = x[rows]
                rebuilt = [self.generator_(w, width) for width in self._WIDTHS]
                loss = torch.zeros(())
                for width, made in zip(self._WIDTHS, rebuilt, strict=True):
                    real = self.discriminator_(w, width)
                    fake = self.discriminator_(made.detach(), width)
                    loss = loss + bce(real, torch.ones_like(real)) + bce(fake, torch.zeros_like(fake))
                discriminator_steps.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                discriminator_steps.step()
                loss = torch.zeros(())
                for width, made in zip(self._WIDTHS, rebuilt, strict=True):
                    says = self.discriminator_(made, width)
                    loss = loss + 0.1 * bce(says, torch.ones_like(says)) + mse(made, w)
                loss = loss + sum(mse(narrow, wide.detach()) for narrow, wide in pairwise(rebuilt))
                generator_steps.zero_grad()
                loss.backward(inputs=generator)  # type: ignore[no-untyped-call]
                generator_steps.step()

    @torch.no_grad()
    def _score_windows(self, windows: Array) -> Array:
        x = torch.tensor(windows.reshape(len(windows), -1), dtype=torch.float32)
        return np.asarray(((self.generator_(x, self.width) - x) ** 2).mean(dim=1).numpy(), dtype=np.float64)


class _Slimmable(nn.Module):
    """Three dense layers of which the first share of the hidden units works alone."""

    def __init__(self, inputs: int, hidden: int, outputs: int) -> None:
        super().__init__()
        self.first = nn.Linear(inputs, hidden)
        self.second = nn.Linear(hidden, hidden)
        self.third = nn.Linear(hidden, outputs)

    def forward(self, x: torch.Tensor, width: float) -> torch.Tensor:
        units = round(width * self.first.out_features)
        linear, leaky = nn.functional.linear, nn.functional.leaky_relu
        h = leaky(linear(x, self.first.weight[:units], self.first.bias[:units]), 0.2)
        h = leaky(linear(h, self.second.weight[:units, :units], self.second.bias[:units]), 0.2)
        return torch.sigmoid(linear(h, self.third.weight[:, :units], self.third.bias))
