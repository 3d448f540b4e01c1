"""The gradient constraint (GradCon, ECCV 2020): an anomaly asks a model to change as training never did.

The gradient of a sample's loss in some weights is compared with a reference, the mean gradient of training samples, by
the cosine, a layer at a time.  In training, ``1 - cosine`` is a term of the loss (its own gradient is a second
derivative); in scoring, a cosine is computed for each sample.

Memory is what broke earlier implementations: a graph kept for every layer and every sample.  Here gradients of samples
are made a few at a time (``torch.func``), reduced at once to a cosine and a norm a layer and, where directions are to
be clustered, to a sketch of 64 numbers, and forgotten; references are sums.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Array = NDArray[np.float64]

_TINY = 1e-12


class Reference:
    """Running mean of gradients, a tensor a layer.

    Attributes
    ----------
    count : int
        Gradients seen.
    """

    def __init__(self) -> None:
        self.count = 0
        self._means: list[Tensor] = []

    @property
    def means(self) -> list[Tensor]:
        """The mean gradients; empty before the first."""
        return self._means

    def update(self, gradients: Sequence[Tensor], *, weight: int = 1) -> None:
        """Take gradients in, as the mean of ``weight`` of them; they are not kept."""
        self.count += weight
        if not self._means:
            self._means = [torch.zeros_like(gradient) for gradient in gradients]
        for mean, gradient in zip(self._means, gradients, strict=True):
            mean += (gradient.detach() - mean) * (weight / self.count)

    def cosine(self, gradients: Sequence[Tensor]) -> Tensor:
        """Mean over layers of the cosine with the reference; 0 before there is one.  Keeps the graph."""
        if not self._means:
            return torch.zeros((), device=gradients[0].device)
        cosines = [
            torch.nn.functional.cosine_similarity(gradient.flatten(), mean.flatten(), dim=0, eps=_TINY)
            for gradient, mean in zip(gradients, self._means, strict=True)
        ]
        return torch.stack(cosines).mean()


@dataclass(frozen=True, slots=True)
class GradientFeatures:
    """What is kept of the gradients of samples.

    Attributes
    ----------
    cosine : ndarray, (N, L)
        With the reference, a layer.
    log_norm : ndarray, (N, L)
    sketch : ndarray, (N, S)
        Random projection of all layers' gradients, each scaled to length 1; S = 0 when none was asked for.
    """

    cosine: Array
    log_norm: Array
    sketch: Array

    def stacked(self) -> Array:
        """Cosines and norms side by side, (N, 2L)."""
        return np.concatenate([self.cosine, self.log_norm], axis=1)


class Sketch:
    """A random projection that needs no matrix: every entry is added, with a random sign, to one of S numbers.

    Inner products are kept in the mean (count sketch); memory is one index an entry instead of S floats.

    Parameters
    ----------
    entries : int
        Length of what is projected.
    size : int
        S.
    seed : int
    """

    def __init__(self, entries: int, *, size: int = 64, seed: int = 0) -> None:
        draw = torch.Generator().manual_seed(seed)
        self._bucket = torch.randint(size, (entries,), generator=draw)
        self._sign = torch.randint(2, (entries,), generator=draw).float() * 2.0 - 1.0
        self._size = size

    def __call__(self, rows: Tensor) -> Tensor:
        """Project rows (B, entries) to (B, S)."""
        out = torch.zeros(len(rows), self._size)
        return out.index_add_(1, self._bucket, rows * self._sign)


def gradient_features(
    loss: Callable[[Mapping[str, Tensor], Tensor], Tensor],
    weights: Mapping[str, Tensor],
    samples: Tensor,
    reference: Reference,
    *,
    at_once: int = 32,
    sketch: Sketch | None = None,
) -> GradientFeatures:
    """Compare the gradient of every sample with a reference.

    Parameters
    ----------
    loss : callable
        Of the weights and one sample (without a batch axis), a scalar.
    weights : mapping
        Those whose gradients are looked at, by name.
    samples : Tensor, (N, ...)
    reference : Reference
        Its layers are those of ``weights``, in their order.
    at_once : int
        Samples whose gradients are in memory together: ``at_once`` times the size of ``weights``.
    sketch : Sketch, optional
        For ``weights`` laid end to end.
    """
    gradient_of_each = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0))
    means = [mean.flatten() / (mean.norm() + _TINY) for mean in reference.means]
    cosines, norms, sketches = [], [], []
    detached = {name: weight.detach() for name, weight in weights.items()}
    for start in range(0, len(samples), at_once):
        part = samples[start : start + at_once]
        gradients = [g.flatten(1) for g in gradient_of_each(detached, part).values()]
        length = torch.stack([g.norm(dim=1) for g in gradients], dim=1)  # (B, L)
        inner = torch.stack([g @ mean for g, mean in zip(gradients, means, strict=True)], dim=1)
        cosines.append((inner / (length + _TINY)).cpu().numpy())
        norms.append((length + _TINY).log().cpu().numpy())
        if sketch is not None:
            directions = [g / (g.norm(dim=1, keepdim=True) + _TINY) for g in gradients]
            sketches.append(sketch(torch.cat(directions, dim=1).cpu()).numpy())
    return GradientFeatures(
        cosine=np.concatenate(cosines).astype(np.float64),
        log_norm=np.concatenate(norms).astype(np.float64),
        sketch=np.concatenate(sketches).astype(np.float64) if sketches else np.zeros((len(samples), 0)),
    )


class Mahalanobis:
    """Squared distance of features from those of normal samples, in their covariance.

    Parameters
    ----------
    normal : ndarray, (N, D)
    """

    def __init__(self, normal: Array) -> None:
        self._mean = normal.mean(axis=0)
        covariance = np.cov(normal, rowvar=False).reshape(normal.shape[1], normal.shape[1])
        self._precision = np.linalg.inv(covariance + 1e-6 * np.eye(len(covariance)))

    def __call__(self, features: Array) -> Array:
        """Return (N,) of (N, D); high is abnormal."""
        gap = features - self._mean
        distances: Array = np.einsum("nd,de,ne->n", gap, self._precision, gap)
        return distances
