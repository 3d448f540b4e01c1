"""PaAno: a small convolutional network places patches by what they look like, and a memory of normal ones judges them.

After Park and Kang, "PaAno: Patch-Based Representation Learning for Time-Series Anomaly Detection" (ICLR 2026, arXiv
2602.01359).  As there: every patch is normalised by itself; the triplet loss pulls a patch to one that begins a row or
two beside it and pushes it from the farthest in the batch, by cosine; for the first tenth of the steps a second loss,
fading, asks whether one patch follows right after another; the memory is k-means centres of a tenth of the embeddings.
Otherwise than there, so that it judges a stream and learns within a minute on one core: a row's score is that of the
patch that ends with it, not of all patches around it; patches have 32 rows, not 64 or 96; the network has about 35,000
weights, not 300,000; a batch has 64 patches, not 512; at most 5,000 patches, drawn at random, are embedded for the
memory.
"""

from __future__ import annotations

import copy
import math
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.cluster import MiniBatchKMeans  # type: ignore[import-untyped]
from torch import Tensor, nn
from torch.nn import functional

from gon_edge.research.peers.networks import start, tiny_is_zero
from gon_edge.research.peers.peer import Array, WindowPeer, subsample

Indices = NDArray[np.integer[Any]]


class PaAno(WindowPeer):
    """Mean cosine distance of the patch that ends with a row to its nearest three of the memory.

    Parameters
    ----------
    window : int
        Rows of a patch.
    steps : int
        Steps of training, each with a batch of `batch` patches, their neighbours and, at first, their predecessors.
    normalise : bool
        Whether each patch has its own mean and deviation taken out, column by column, as the paper does.
    """

    _MARGIN = 0.5
    _NEAREST = 3
    # Rows by which a positive's start may differ from its anchor's.
    _BESIDE = 2
    # Random pairs that do not follow each other, for each that does.
    _UNRELATED = 5
    # Share of the steps in which the second loss fades to nothing.
    _PRETEXT = 0.1
    # The paper's 1e-4 is for batches of 512; smaller ones of a narrower network take a larger step.
    _RATE = 1e-3
    # Embedded for the memory, at most; every tenth becomes a centre.
    _REMEMBERED = 5000
    # Added to a patch's variance before its root: columns that stand still become zeros, not noise.
    _STILL = 1e-5

    def __init__(
        self,
        *,
        window: int = 32,
        steps: int = 200,
        batch: int = 64,
        normalise: bool = True,
        random_state: int = 0,
    ) -> None:
        super().__init__(window=window, random_state=random_state)
        self.steps = steps
        self.batch = batch
        self.normalise = normalise

    @property
    def n_parameters(self) -> int:  # noqa: D102
        return sum(p.numel() for p in self.net_.parameters()) + int(self.memory_.numel())

    @tiny_is_zero()
    def _train_windows(self, windows: Array) -> None:
        rng = start(self.random_state)
        self.net_ = _Net(windows.shape[2])
        optimizer = torch.optim.AdamW(self.net_.parameters(), lr=self._RATE, weight_decay=1e-4)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, self.steps, self._RATE / 10)
        least, best = math.inf, self.net_.state_dict()
        for step in range(self.steps):
            fade = 1.0 - step / (self._PRETEXT * self.steps)
            loss = self._loss(
                windows, rng.choice(len(windows), min(self.batch, len(windows)), replace=False), fade, rng
            )
            if loss.item() < least:
                least, best = loss.item(), copy.deepcopy(self.net_.state_dict())
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
        self.net_.load_state_dict(best)
        self.net_.eval()
        self._remember(windows, rng)

    def _loss(self, windows: Array, rows: Indices, fade: float, rng: np.random.Generator) -> Tensor:
        """Return the triplet loss of a batch, and with `fade` above 0 the second loss, so weighted."""
        moved = rng.choice([*range(-self._BESIDE, 0), *range(1, self._BESIDE + 1)], len(rows))
        # At the ends a patch moves the other way.
        beside = np.where((rows + moved < 0) | (rows + moved >= len(windows)), rows - moved, rows + moved)
        anchor, positive = self.net_(self._patches(windows, np.concatenate([rows, beside]))).split(len(rows))
        alike = functional.normalize(self.net_.project(anchor)) @ functional.normalize(self.net_.project(positive)).T
        others = alike.masked_fill(torch.eye(len(rows), dtype=torch.bool), math.inf)
        # As cosine distances: that of the pair should be smaller than that of the farthest by the margin.
        loss = functional.relu(others.min(dim=1).values - alike.diagonal() + self._MARGIN).mean()
        has_one_before = rows >= self.window
        if fade <= 0 or not has_one_before.any():
            return torch.as_tensor(loss)
        before = self.net_(self._patches(windows, rows[has_one_before] - self.window))
        follows = self.net_.follows(before, anchor[torch.from_numpy(has_one_before)])
        unrelated = [anchor.roll(int(by), 0) for by in rng.integers(1, max(2, len(rows)), self._UNRELATED)]
        strange = self.net_.follows(torch.cat(unrelated), anchor.repeat(self._UNRELATED, 1))
        asked = functional.binary_cross_entropy_with_logits
        return torch.as_tensor(
            loss + fade * (asked(follows, torch.ones_like(follows)) + asked(strange, torch.zeros_like(strange)))
        )

    @torch.no_grad()
    def _remember(self, windows: Array, rng: np.random.Generator) -> None:
        kept = subsample(len(windows), self._REMEMBERED, rng)
        embedded = self._embed(windows[kept]).numpy()
        centres = max(self._NEAREST, len(kept) // 10)
        means = MiniBatchKMeans(min(centres, len(kept)), n_init=1, random_state=self.random_state).fit(embedded)
        self.memory_ = functional.normalize(torch.as_tensor(means.cluster_centers_, dtype=torch.float32))

    @torch.no_grad()
    def _score_windows(self, windows: Array) -> Array:
        alike = self._embed(windows) @ self.memory_.T
        nearest = alike.topk(min(self._NEAREST, alike.shape[1]), dim=1).values
        return np.asarray(1.0 - nearest.mean(dim=1).numpy(), dtype=np.float64)

    def _embed(self, windows: Array) -> Tensor:
        parts = range(0, len(windows), 512)  # bounds memory: a layer's output is 128 numbers a row of a patch
        made = [self.net_(self._patches(windows, np.arange(at, min(at + 512, len(windows))))) for at in parts]
        return functional.normalize(torch.cat(made))

    def _patches(self, windows: Array, rows: Indices) -> Tensor:
        """Return patches (B, F, W)."""
        patches = torch.tensor(windows[rows], dtype=torch.float32).transpose(1, 2)
        if not self.normalise:
            return patches
        centred = patches - patches.mean(dim=2, keepdim=True)
        return centred / (centred.square().mean(dim=2, keepdim=True) + self._STILL).sqrt()


class _Net(nn.Module):
    """Three convolutions over time and their mean: an embedding of 64 numbers, and the two losses' own layers."""

    def __init__(self, features: int) -> None:
        super().__init__()
        sizes = ((features, 32, 7), (32, 64, 5), (64, 64, 3))
        layers: list[nn.Module] = []
        for before, after, width in sizes:
            layers += [nn.Conv1d(before, after, width, padding="same"), nn.BatchNorm1d(after), nn.ReLU()]
        self.convolutions = nn.Sequential(*layers)
        self.project = nn.Linear(64, 64)
        self.pair = nn.Sequential(nn.Linear(128, 64), nn.ReLU(), nn.Linear(64, 1))

    def forward(self, patches: Tensor) -> Tensor:
        return torch.as_tensor(self.convolutions(patches).mean(dim=2))

    def follows(self, before: Tensor, after: Tensor) -> Tensor:
        """Return a logit a pair: does the second begin where the first ends?"""
        return torch.as_tensor(self.pair(torch.cat([before, after], dim=1))[:, 0])
