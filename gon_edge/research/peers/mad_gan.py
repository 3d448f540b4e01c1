"""MAD-GAN: LSTM generator and discriminator; a window is scored by inverting the generator (Li et al., ICANN 2019).

The DR score mixes the residual of the best found inversion with what the discriminator says.  Two things differ from
the paper and are forced by the benchmark: the paper averages a row's scores over all windows that hold it, later ones
included, which is not causal, so a row here has the score of the last row of the newest inverted window; and hidden
sizes are smaller, since inversion back-propagates through the LSTM at every step of every window.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from gon_edge.research.peers.networks import start, tiny_is_zero
from gon_edge.research.peers.peer import Array, WindowPeer, causal_windows, minibatches


class MADGAN(WindowPeer):
    """Score ``(1 - λ) R + λ (1 - D)`` at the last row of a window scaled to [0, 1].

    Parameters
    ----------
    stride : int
        Rows between inverted windows; a row in between keeps the newest score.  The paper's step is 10.
    inversion_steps : int
        Adam steps on the latent series of a window.
    """

    unit_range = True
    _LATENT = 15  # the paper's
    _LAMBDA = 0.8  # the paper's weight of the discriminator
    _GENERATOR_ROUNDS = 3  # the paper's rounds of G for one of D
    _BATCH = 128

    def __init__(
        self,
        *,
        window: int = 30,
        hidden: int = 32,
        epochs: int = 10,
        stride: int = 5,
        inversion_steps: int = 30,
        random_state: int = 0,
    ) -> None:
        super().__init__(window=window, random_state=random_state)
        self.hidden = hidden
        self.epochs = epochs
        self.stride = stride
        self.inversion_steps = inversion_steps

    @property
    def n_parameters(self) -> int:  # noqa: D102
        return sum(p.numel() for net in (self.generator_, self.discriminator_) for p in net.parameters())

    @tiny_is_zero()
    def _train_windows(self, windows: Array) -> None:
        rng = start(self.random_state)
        windows = windows[:: self.stride]
        self.generator_ = _LSTM(self._LATENT, self.hidden, windows.shape[2])
        self.discriminator_ = _LSTM(windows.shape[2], self.hidden, 1)
        generator_steps = torch.optim.Adam(self.generator_.parameters(), lr=1e-3, foreach=True)
        discriminator_steps = torch.optim.SGD(self.discriminator_.parameters(), lr=0.1)
        bce = nn.functional.binary_cross_entropy
        for _ in range(self.epochs):
            for rows in minibatches(len(windows), self._BATCH, rng):
                x = torch.tensor(windows[rows], dtype=torch.float32)
                fake = self.generator_(torch.randn(len(x), self.window, self._LATENT)).detach()
                real_says, fake_says = self.discriminator_(x), self.discriminator_(fake)
                discriminator_steps.zero_grad()
                (bce(real_says, torch.ones_like(real_says)) + bce(fake_says, torch.zeros_like(fake_says))).backward()  # type: ignore[no-untyped-call]
                discriminator_steps.step()
                for _ in range(self._GENERATOR_ROUNDS):
                    says = self.discriminator_(self.generator_(torch.randn(len(x), self.window, self._LATENT)))
                    generator_steps.zero_grad()
                    bce(says, torch.ones_like(says)).backward()  # type: ignore[no-untyped-call]
                    generator_steps.step()

    def _score(self, Z: Array) -> Array:
        windows = causal_windows(Z, self.window)[:: self.stride]
        newest = np.concatenate(
            [self._score_windows(np.ascontiguousarray(windows[at : at + 512])) for at in range(0, len(windows), 512)]
        )
        return newest[np.arange(len(Z)) // self.stride]

    def _score_windows(self, windows: Array) -> Array:
        x = torch.tensor(windows, dtype=torch.float32)
        latent = torch.zeros(len(x), self.window, self._LATENT, requires_grad=True)
        # The element-wise optimiser and the sum over windows make a batch the same as one window at a time.
        steps = torch.optim.Adam([latent], lr=0.1)
        for _ in range(self.inversion_steps):
            steps.zero_grad()
            ((self.generator_(latent) - x) ** 2).mean(dim=(1, 2)).sum().backward()
            steps.step()
        with torch.no_grad():
            residual = (self.generator_(latent) - x)[:, -1].abs().mean(dim=1)
            doubt = 1 - self.discriminator_(x)[:, -1, 0]
            return np.asarray(((1 - self._LAMBDA) * residual + self._LAMBDA * doubt).numpy(), dtype=np.float64)


class _LSTM(nn.Module):
    """Series in, series in [0, 1] out, one step for one."""

    def __init__(self, inputs: int, hidden: int, outputs: int) -> None:
        super().__init__()
        self.lstm = nn.LSTM(inputs, hidden, batch_first=True)
        self.output = nn.Sequential(nn.Linear(hidden, outputs), nn.Sigmoid())

    def forward(self, series: torch.Tensor) -> torch.Tensor:
        return torch.as_tensor(self.output(self.lstm(series)[0]))
