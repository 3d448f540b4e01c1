"""A GAN and a VAE with the same face as :class:`gon_edge.research.gon_digits.DigitGon`, to set beside it.

Both are conditional (the class goes in as a one-hot vector), of the same layer sizes and trained on the same pictures.
The GAN needs a second network of the discriminator's size to generate, the VAE an encoder that generation then leaves
unused; a GON needs neither.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from gon_edge.research.images import Images, Labels, unit

_LATENT = 32


class DigitGan:
    """Conditional GAN: generator and discriminator perceptrons, binary cross-entropy, real labels smoothed to 0.9.

    The discriminator drops 30 % of its units and the generator normalises batches: without, the discriminator was sure
    of everything within 1000 steps and the generator made one picture.

    Parameters
    ----------
    shape : tuple of int
        (C, P, P).
    classes : int
    hidden : tuple of int
        Of the discriminator; the generator has them backwards.
    rate : float
        Adam's, both networks.
    batch : int
    seed : int
    """

    def __init__(
        self,
        shape: tuple[int, int, int],
        classes: int,
        *,
        hidden: tuple[int, ...],
        rate: float = 1e-3,
        batch: int = 64,
        seed: int = 0,
    ) -> None:
        torch.manual_seed(seed)
        self.shape, self.classes, self.batch = shape, classes, batch
        inputs = int(np.prod(shape))
        self.discriminator = _perceptron((inputs + classes, *hidden, 1), drop=0.3)
        self.generator = nn.Sequential(
            _perceptron((_LATENT + classes, *hidden[::-1], inputs), normalise=True), nn.Tanh()
        )
        self._draw = torch.Generator().manual_seed(seed)
        self._adams = [
            torch.optim.Adam(net.parameters(), lr=rate, betas=(0.5, 0.999), fused=True)
            for net in (self.discriminator, self.generator)
        ]

    @property
    def parameters(self) -> int:
        """Number of weights of both networks."""
        return _count(self.discriminator) + _count(self.generator)

    def train(self, images: Images, steps: int, *, progress: Callable[[int], None] = lambda step: None) -> None:
        """Take training steps."""
        self.generator.train()
        for step in range(steps):
            real, label = _batch(images, self.classes, self.batch, self._draw)
            fake = self.generator(torch.cat([self._noise(self.batch, self._draw), label], dim=1))
            says_real = self.discriminator(torch.cat([real, label], dim=1))
            says_fake = self.discriminator(torch.cat([fake.detach(), label], dim=1))
            _take(self._adams[0], _bce(says_real, 0.9) + _bce(says_fake, 0.0))
            _take(self._adams[1], _bce(self.discriminator(torch.cat([fake, label], dim=1)), 1.0))
            progress(step + 1)

    @torch.no_grad()
    def generate(self, labels: Labels, *, seed: int = 0) -> NDArray[np.float32]:
        """Make pictures (N, C, P, P) in [-1, 1] of classes ``labels`` (N,)."""
        self.generator.eval()
        label = functional.one_hot(torch.from_numpy(labels), self.classes).float()
        noise = self._noise(len(labels), torch.Generator().manual_seed(seed))
        return np.asarray(self.generator(torch.cat([noise, label], dim=1)).numpy().reshape(-1, *self.shape))

    def _noise(self, count: int, draw: torch.Generator) -> Tensor:
        return torch.randn(count, _LATENT, generator=draw)


class DigitVae:
    """Conditional VAE: encoder and decoder perceptrons, squared error plus the Kullback-Leibler term.

    Parameters
    ----------
    shape : tuple of int
        (C, P, P).
    classes : int
    hidden : tuple of int
        Of the encoder; the decoder has them backwards.
    rate : float
    batch : int
    noise : float
        Standard deviation of a pixel given its code: the squared error is divided by twice its square.  At 0.3 the code
        held everything, its class too, and samples were of any class.
    seed : int
    """

    def __init__(
        self,
        shape: tuple[int, int, int],
        classes: int,
        *,
        hidden: tuple[int, ...],
        rate: float = 1e-3,
        batch: int = 64,
        noise: float = 1.0,
        seed: int = 0,
    ) -> None:
        torch.manual_seed(seed)
        self.shape, self.classes, self.batch, self.noise = shape, classes, batch, noise
        inputs = int(np.prod(shape))
        self.encoder = _perceptron((inputs + classes, *hidden, 2 * _LATENT))
        self.decoder = nn.Sequential(_perceptron((_LATENT + classes, *hidden[::-1], inputs)), nn.Tanh())
        self._draw = torch.Generator().manual_seed(seed)
        self._adam = torch.optim.Adam([*self.encoder.parameters(), *self.decoder.parameters()], lr=rate, fused=True)

    @property
    def parameters(self) -> int:
        """Number of weights of both networks."""
        return _count(self.encoder) + _count(self.decoder)

    def train(self, images: Images, steps: int, *, progress: Callable[[int], None] = lambda step: None) -> None:
        """Take training steps."""
        for step in range(steps):
            real, label = _batch(images, self.classes, self.batch, self._draw)
            mean, log_variance = self.encoder(torch.cat([real, label], dim=1)).chunk(2, dim=1)
            code = mean + (0.5 * log_variance).exp() * torch.randn(mean.shape, generator=self._draw)
            made = self.decoder(torch.cat([code, label], dim=1))
            divergence = 0.5 * (mean**2 + log_variance.exp() - 1.0 - log_variance).sum(dim=1).mean()
            _take(self._adam, ((made - real) ** 2).sum(dim=1).mean() / (2.0 * self.noise**2) + divergence)
            progress(step + 1)

    @torch.no_grad()
    def generate(self, labels: Labels, *, seed: int = 0) -> NDArray[np.float32]:
        """Make pictures (N, C, P, P) in [-1, 1] of classes ``labels`` (N,)."""
        label = functional.one_hot(torch.from_numpy(labels), self.classes).float()
        code = torch.randn(len(labels), _LATENT, generator=torch.Generator().manual_seed(seed))
        return np.asarray(self.decoder(torch.cat([code, label], dim=1)).numpy().reshape(-1, *self.shape))


def _perceptron(sizes: tuple[int, ...], *, drop: float = 0.0, normalise: bool = False) -> nn.Sequential:
    layers: list[nn.Module] = []
    for before, after in pairwise(sizes[:-1]):
        layers.append(nn.Linear(before, after))
        layers += [nn.BatchNorm1d(after)] if normalise else []
        layers += [nn.LeakyReLU(0.2), nn.Dropout(drop)]
    return nn.Sequential(*layers, nn.Linear(sizes[-2], sizes[-1]))


def _batch(images: Images, classes: int, size: int, draw: torch.Generator) -> tuple[Tensor, Tensor]:
    """Training pictures (B, n) and one-hot labels (B, K)."""
    rows = torch.randint(len(images.train), (size,), generator=draw).numpy()
    x = torch.from_numpy(unit(images.train[rows])).flatten(1)
    return x, functional.one_hot(torch.from_numpy(images.train_labels[rows]), classes).float()


def _bce(logit: Tensor, target: float) -> Tensor:
    return functional.binary_cross_entropy_with_logits(logit, torch.full_like(logit, target))


def _take(adam: torch.optim.Adam, loss: Tensor) -> None:
    adam.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    adam.step()


def _count(net: nn.Module) -> int:
    return sum(p.numel() for p in net.parameters())
