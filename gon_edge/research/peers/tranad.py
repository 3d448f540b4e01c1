"""TranAD: a transformer that rebuilds the last row, then again with its own error as focus (Tuli et al., VLDB 2022).

One encoder and two decoders; phase 1 has no focus, phase 2 gets the squared error of phase 1 beside the window.  The
self-conditioning is the paper's; the layers are torch's, with layer normalisation as the paper draws them.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import nn

from gon_edge.research.peers.networks import start, tiny_is_zero
from gon_edge.research.peers.peer import Array, WindowPeer, minibatches


class TranAD(WindowPeer):
    """Score the squared error of phase 2 at the window's last row, mean over features; inputs scaled to [0, 1]."""

    unit_range = True
    _BATCH = 128

    def __init__(self, *, window: int = 10, epochs: int = 5, random_state: int = 0) -> None:
        super().__init__(window=window, random_state=random_state)
        self.epochs = epochs

    @property
    def n_parameters(self) -> int:  # noqa: D102
        return sum(p.numel() for p in self.net_.parameters())

    @tiny_is_zero()
    def _train_windows(self, windows: Array) -> None:
        rng = start(self.random_state)
        self.net_ = _Net(windows.shape[2], self.window)
        optimizer = torch.optim.AdamW(self.net_.parameters(), lr=1e-3, foreach=True, weight_decay=1e-5)
        schedule = torch.optim.lr_scheduler.StepLR(optimizer, step_size=5, gamma=0.9)
        for epoch in range(1, self.epochs + 1):
            for rows in minibatches(len(windows), self._BATCH, rng):
                x = torch.tensor(windows[rows], dtype=torch.float32)
                x1, x2 = self.net_(x)
                loss = ((x1 - x[:, -1]) ** 2).mean() / epoch + (1 - 1 / epoch) * ((x2 - x[:, -1]) ** 2).mean()
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
            schedule.step()
        self.net_.eval()

    @torch.no_grad()
    def _score_windows(self, windows: Array) -> Array:
        x = torch.tensor(windows, dtype=torch.float32)
        _, x2 = self.net_(x)
        return np.asarray(((x2 - x[:, -1]) ** 2).mean(dim=1).numpy(), dtype=np.float64)


class _Net(nn.Module):
    position: torch.Tensor

    def __init__(self, features: int, window: int) -> None:
        super().__init__()
        width = 2 * features
        settings: dict[str, Any] = {"d_model": width, "nhead": features, "dim_feedforward": 16, "batch_first": True}
        self.features = features
        self.encoder = nn.TransformerEncoderLayer(**settings, dropout=0.1)
        self.decoders = nn.ModuleList([nn.TransformerDecoderLayer(**settings, dropout=0.1) for _ in range(2)])
        self.output = nn.Sequential(nn.Linear(width, features), nn.Sigmoid())
        time = torch.arange(window)[:, None]
        rate = torch.exp(torch.arange(0, width, 2) * (-math.log(10_000.0) / width))
        position = torch.zeros(window, width)
        position[:, 0::2], position[:, 1::2] = torch.sin(time * rate), torch.cos(time * rate)
        self.register_buffer("position", position)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        x1 = self._phase(x, torch.zeros_like(x), self.decoders[0])
        focus = (x1[:, None] - x) ** 2
        return x1, self._phase(x, focus, self.decoders[1])

    def _phase(self, x: torch.Tensor, focus: torch.Tensor, decoder: nn.Module) -> torch.Tensor:
        memory = self.encoder(torch.cat([x, focus], dim=2) * math.sqrt(self.features) + self.position)
        target = x[:, -1:].repeat(1, 1, 2)  # (B, 1, 2F)
        return torch.as_tensor(self.output(decoder(target, memory))[:, 0])
