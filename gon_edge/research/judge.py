"""How good generated pictures are: a classifier that never saw them, its vote and a Fréchet distance in its features.

Neither figure is enough alone.  Pictures made by climbing a classifier please other classifiers too, so a vote of 1.0
may be noise; the Fréchet distance compares mean and covariance of the judge's last hidden layer with those of real
pictures nobody was trained on, and is 0 for the same distribution.  It depends on the judge, so figures compare only
with figures of the same judge; :meth:`Judge.real` and noise give the scale's two ends.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from gon_edge.research.images import Images, Labels, unit

_FEATURES = 32


@dataclass(frozen=True, slots=True)
class Merit:
    """What a judge says of pictures.

    Attributes
    ----------
    accuracy : float
        Share of pictures that are of the class they were made for.
    frechet : float
        Squared Fréchet distance of feature distributions; low is good.
    pairwise : float
        Mean distance between two pictures of a class, divided by that of real ones; near 0 when all are alike.
    """

    accuracy: float
    frechet: float
    pairwise: float


class Judge:
    """A small convolutional classifier, trained on one half of the test pictures and comparing with the other.

    Neither half is seen by what is judged.

    Parameters
    ----------
    images : Images
    steps : int
    seed : int
    """

    def __init__(self, images: Images, *, steps: int = 800, seed: int = 0) -> None:
        torch.manual_seed(seed)
        channels, side, _ = images.shape
        after = ((side + 1) // 2 + 1) // 2
        self.body = nn.Sequential(
            *(nn.Conv2d(channels, 16, 3, 2, 1), nn.ReLU(), nn.Conv2d(16, 32, 3, 2, 1), nn.ReLU(), nn.Flatten()),
            *(nn.Linear(32 * after**2, _FEATURES), nn.ReLU()),
        )
        self.head = nn.Linear(_FEATURES, images.classes)
        half = len(images.test) // 2
        test, labels = images.test, images.test_labels
        if set(labels[:half]) != set(labels[half:]):  # a file sorted by class: each half would lack some of them
            order = np.random.default_rng(seed).permutation(len(test))
            test, labels = test[order], labels[order]
        x = torch.from_numpy(unit(test[:half]))
        y = torch.from_numpy(labels[:half])
        adam = torch.optim.Adam([*self.body.parameters(), *self.head.parameters()], lr=2e-3)
        draw = torch.Generator().manual_seed(seed)
        for _ in range(steps):
            rows = torch.randint(half, (64,), generator=draw)
            adam.zero_grad()
            nn.functional.cross_entropy(self.head(self.body(x[rows])), y[rows]).backward()  # type: ignore[no-untyped-call]
            adam.step()
        self._real = unit(test[half:])
        self._real_labels = labels[half:]
        _, self._real_features = self._look(self._real)
        self._real_pairwise = _pairwise(self._real, self._real_labels)

    def real(self) -> Merit:
        """What it says of real pictures it was not trained on, one half of them compared with the other."""
        half = len(self._real) // 2
        vote, features = self._look(self._real[:half])
        return Merit(
            accuracy=float((vote == self._real_labels[:half]).mean()),
            frechet=frechet(features, self._real_features[half:]),
            pairwise=1.0,
        )

    def __call__(self, pictures: NDArray[np.float32], labels: Labels) -> Merit:
        """Judge pictures (N, C, P, P) in [-1, 1] made for classes ``labels`` (N,)."""
        vote, features = self._look(pictures)
        of_these = np.isin(self._real_labels, labels)
        return Merit(
            accuracy=float((vote == labels).mean()),
            frechet=frechet(features, self._real_features[of_these]),
            pairwise=_pairwise(pictures, labels) / self._real_pairwise,
        )

    @torch.no_grad()
    def _look(self, pictures: NDArray[np.float32]) -> tuple[Labels, NDArray[np.float64]]:
        parts = [self.body(torch.from_numpy(part)) for part in np.array_split(pictures, 1 + len(pictures) // 1000)]
        features = torch.cat(parts)
        return self.head(features).argmax(dim=1).numpy(), features.numpy().astype(np.float64)


def frechet(one: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    """Squared Fréchet distance between the normal distributions fitted to features (N, D) and (M, D).

    ``|m1 - m2|² + tr(C1 + C2 - 2 (C1 C2)^½)``; the trace of the root is the sum of roots of the eigenvalues of
    ``C1^½ C2 C1^½``, which is symmetric.
    """
    cov_one, cov_other = (np.cov(features, rowvar=False) for features in (one, other))
    values, vectors = np.linalg.eigh(cov_one)
    root = (vectors * np.sqrt(np.maximum(values, 0.0))) @ vectors.T
    cross = np.sqrt(np.maximum(np.linalg.eigvalsh(root @ cov_other @ root), 0.0)).sum()
    mean_gap = one.mean(axis=0) - other.mean(axis=0)
    return float(mean_gap @ mean_gap + np.trace(cov_one) + np.trace(cov_other) - 2.0 * cross)


def _pairwise(pictures: NDArray[np.float32], labels: Labels) -> float:
    """Mean over classes of the mean distance between two pictures of the class."""
    means = []
    for label in np.unique(labels):
        flat = pictures[labels == label][:100].reshape(-1, pictures[0].size).astype(np.float64)
        if len(flat) > 1:
            squared = ((flat[:, None] - flat) ** 2).sum(axis=2)
            means.append(np.sqrt(squared).sum() / (len(flat) * (len(flat) - 1)))
    return float(np.mean(means)) if means else float("nan")
