"""Adversarial training: the network learns to tell real windows from those it generates itself.

It moves the prototypes and the bias, gently.  Gains and shares stay, because moving them made detection of real faults
worse (docs/detection.md).  This module does not know where the network came from (`subspaces`), nor what becomes of its
scores (`fit`).  `plan` counts the windows of a step: a larger step costs memory there.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from gon_edge.model.gon import Discriminator, Float
from gon_edge.training.rows import TrainingRows

_STEPS = 60
_RATE = 0.01
_CLIMB_STEPS = 3
"""More steps, a higher rate or longer climbs told injected faults apart better and real ones worse."""

_BATCH = 64
"""Real windows in a step.  Not critical: 32, 64 and 128 gave mean average precisions of 0.694, 0.698 and 0.700."""

_DISTORTION = 0.5
"""Noise on distorted windows, in deviations.  Not critical: half a deviation on every feature at once is no normal
window, and near enough to one that the climb from there ends among them."""

_TELL_EVERY = 10
"""Steps between two words of progress.  Not critical: six a training."""

_NEARLY_ONE = 1.0 - 1e-12
_LARGEST_LOGIT = 60.0
"""Bounds that keep logarithms and exponentials finite; sigmoid(60) is 1 to the last bit of a float64."""


def train_adversarially(
    net: Discriminator,
    data: TrainingRows,
    ends: NDArray[np.intp],
    rng: np.random.Generator,
    tell: Callable[[float, float], None] = lambda done, loss: None,
) -> Discriminator:
    """Move prototypes and bias so that D tells windows from what D itself generates.

    Each step draws real windows, starts fakes from noise (half of them) and from distorted real windows (half), lets
    the network climb from there, and takes one Adam step on the cross entropy of real windows against starts and fakes.
    Both kinds of start are needed: from the data alone fakes are as good as real windows and nothing is learned, from
    noise alone the network learns the norm of its input.

    Parameters
    ----------
    net : Discriminator
    data : TrainingRows
    ends : ndarray of int, shape (N,)
        Rows at which windows may end that are taken as real.
    rng : numpy.random.Generator
    tell : callable
        Hears the share of the steps done, 0 to 1, and the loss.

    Returns
    -------
    Discriminator
        A new one; ``net`` stays as it is.
    """
    parameters = net.parameters()
    first = {key: np.zeros_like(value) for key, value in parameters.items()}
    second = {key: np.zeros_like(value) for key, value in parameters.items()}
    spread = data.z.std(axis=0)
    sample = data.windows(rng.choice(ends, _BATCH))
    real_level = float(np.median(net.abnormality(net.energies(sample))))
    fake_level = float(np.median(net.abnormality(net.energies(_distort(sample, spread, rng)))))
    parameters["bias"][0] = 0.5 * (real_level + fake_level)  # D = 0 half-way
    for step in range(1, _STEPS + 1):
        net = net.with_parameters(parameters)
        real = data.windows(rng.choice(ends, _BATCH))
        half = real[: _BATCH // 2]
        start = np.concatenate([rng.standard_normal(half.shape, np.float32) * spread, _distort(half, spread, rng)])
        fake = np.concatenate([start, net.generate(start, steps=_CLIMB_STEPS)])
        d_real = _sigmoid(net.forward(real)) - 1.0  # of -log sigmoid(D)
        d_fake = _sigmoid(net.forward(fake)) / 2.0  # of -log(1 - sigmoid(D)); twice as many of them
        if step % _TELL_EVERY == 0:  # a gradient of -log p is p - 1, of -log(1 - p) it is p
            loss = -np.log1p(np.maximum(d_real, -_NEARLY_ONE)).mean() - np.log1p(-_NEARLY_ONE * 2.0 * d_fake).mean()
            tell(step / _STEPS, float(loss))
        of_real, of_fake = net.weight_gradient(real, d_real), net.weight_gradient(fake, d_fake)
        for key in parameters:  # Adam with its usual constants: Kingma and Ba, ICLR 2015
            gradient = (of_real[key] + of_fake[key]) / _BATCH
            first[key] = 0.9 * first[key] + 0.1 * gradient
            second[key] = 0.999 * second[key] + 0.001 * gradient**2
            unbiased = first[key] / (1.0 - 0.9**step), second[key] / (1.0 - 0.999**step)
            parameters[key] = parameters[key] - _RATE * unbiased[0] / (np.sqrt(unbiased[1]) + 1e-8)
    return net.with_parameters(parameters)


def _distort(x: Float, spread: Float, rng: np.random.Generator) -> Float:
    """Windows (N, W, F) with noise on every feature."""
    return (x + _DISTORTION * spread * rng.standard_normal(x.shape, np.float32)).astype(np.float32)


def _sigmoid(logit: NDArray[np.float64]) -> NDArray[np.float64]:
    return 1.0 / (1.0 + np.exp(-np.clip(logit, -_LARGEST_LOGIT, _LARGEST_LOGIT)))
