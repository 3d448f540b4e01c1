"""The networks of OMASGAN: generators, discriminators, an encoder, and two ways to move what is there to a border."""

from __future__ import annotations

import math
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

_MOVES = 30.0
"""Of a sample's own move, in that of a weight.  Adam moves both by its rate in a step, and a weight of a generator
moves all samples, in every step.  With 30, two hundred steps lead anywhere, and one is a small part of the way."""


class PointGenerator(nn.Module):
    """Noise (B, 2) to points (B, 2): a perceptron added to the noise."""

    latent = 2

    def __init__(self, hidden: int = 64) -> None:
        super().__init__()
        self.layers = perceptron(2, *[hidden] * 3, 2)

    def forward(self, z: Tensor) -> Tensor:
        """Return points."""
        return torch.as_tensor(z + self.layers(z))


class PictureGenerator(nn.Module):
    """Noise (B, 100) to pictures (B, C, P, P) in [-1, 1]: transposed convolutions from 4x4 on.

    Parameters
    ----------
    channels : int
    side : int
        P, a power of two from 8.
    width : int
        Channels at the largest size but one; doubled towards 4x4.  The public code's is 64.
    """

    latent = 100

    def __init__(self, channels: int, side: int, width: int) -> None:
        super().__init__()
        self.widest = width * side // 8
        self.first = nn.Linear(self.latent, self.widest * 16)
        layers: list[nn.Module] = []
        before = self.widest
        while before > width:
            layers += [nn.BatchNorm2d(before), nn.ReLU(), nn.ConvTranspose2d(before, before // 2, 4, 2, 1)]
            before //= 2
        last = [nn.BatchNorm2d(before), nn.ReLU(), nn.ConvTranspose2d(before, channels, 4, 2, 1)]
        self.layers = nn.Sequential(*layers, *last, nn.Tanh())

    def forward(self, z: Tensor) -> Tensor:
        """Return pictures."""
        # Of mean 0 and variance 1: else what all noise has in common is three quarters of what the first layer gives,
        # and all pictures look alike.
        centred = (z - 0.5) * math.sqrt(12.0)
        return torch.as_tensor(self.layers(self.first(centred).reshape(len(z), self.widest, 4, 4)))


def perceptron(*sizes: int) -> nn.Sequential:
    """Linear layers with ReLU between."""
    layers: list[nn.Module] = []
    for before, after in pairwise(sizes):
        layers += [nn.Linear(before, after), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


class MovedNoise(nn.Module):
    """A generator that stays as it is, and a perceptron that moves its noise (B, L) first."""

    def __init__(self, generator: nn.Module, latent: int) -> None:
        super().__init__()
        self.generator = generator.requires_grad_(False)
        self.move = perceptron(latent, 128, latent)

    def train(self, mode: bool = True) -> MovedNoise:
        """Keep the generator in evaluation, so that it undoes no move by normalising over a batch."""
        super().train(mode)
        self.generator.eval()
        return self

    def forward(self, z: Tensor) -> Tensor:
        """Return samples."""
        return torch.as_tensor(self.generator(z + self.move(z)))


class MovedSamples(nn.Module):
    """Real samples (M, ...), each with a move of its own; the noise (B, L) only says which of them are given.

    Parameters
    ----------
    samples : Tensor, (M, ...)
    """

    def __init__(self, samples: Tensor) -> None:
        super().__init__()
        self.register_buffer("samples", samples)
        self.move = nn.Parameter(torch.zeros_like(samples))

    def forward(self, z: Tensor) -> Tensor:
        """Return samples."""
        which = (z[:, 0] * len(self.samples)).long().clamp(max=len(self.samples) - 1)  # type: ignore[arg-type]
        return torch.as_tensor(self.samples[which] + _MOVES * self.move[which])  # type: ignore[index]


class WhichTurn(nn.Module):
    """An encoder that no label teaches: it learns which of four quarter turns a picture was given (RotNet).

    Its features are what its last layer is given.

    Parameters
    ----------
    body : Module
        Pictures (B, C, P, P) to features (B, D); its weights are drawn anew.
    features : int
        D.
    """

    def __init__(self, body: nn.Module, features: int) -> None:
        super().__init__()
        self.body = body
        for layer in body.modules():
            if isinstance(layer, nn.Conv2d | nn.Linear | nn.BatchNorm2d):
                layer.reset_parameters()
        self.turn = nn.Linear(features, 4)

    def loss(self, x: Tensor) -> Tensor:
        """Cross entropy of the turns of pictures (B, C, P, P), each shown in all four."""
        turned = torch.cat([torch.rot90(x, quarter, (2, 3)) for quarter in range(4)])
        quarters = torch.arange(4, device=x.device).repeat_interleave(len(x))
        return nn.functional.cross_entropy(self.turn(self.body(turned)), quarters)


def picture_discriminator(channels: int, side: int, width: int, *, spectral: bool = False) -> nn.Sequential:
    """Pictures (B, C, P, P) to outputs (B, 1).

    In training it normalises over the batch, since without it the generator ends in a single picture; in evaluation by
    what it saw in training, so that a score does not depend on its neighbours.  ``spectral`` divides the weights of
    each layer by their largest singular value instead.
    """
    layers: list[nn.Module] = [nn.Conv2d(channels, width, 4, 2, 1), nn.ELU()]
    while side > 8:
        normalise = [] if spectral else [nn.BatchNorm2d(2 * width)]
        layers += [nn.Conv2d(width, 2 * width, 4, 2, 1), *normalise, nn.ELU()]
        side, width = side // 2, 2 * width
    layers += [nn.Flatten(), nn.Linear(width * 16, 64), nn.ELU(), nn.Linear(64, 1)]
    return nn.Sequential(
        *(spectral_norm(layer) if spectral and hasattr(layer, "weight") else layer for layer in layers)
    )
