"""What a generator and a discriminator of OMASGAN are trained by: f-divergences, and a hinge that is one."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional


@dataclass(frozen=True, slots=True)
class Divergence:
    """What a pair of networks is trained by; v is the discriminator's output, high for real.

    Attributes
    ----------
    generated, real : callable
        Terms the discriminator minimises, of outputs (B,) for samples of each kind: ``f*(T(v))`` and ``-T(v)`` of an
        f-divergence.
    generator : callable
        What the generator minimises, of outputs for its samples: ``-T(v)``.  The published ``-f*(T(v))`` turns round
        where Pearson's f* does, below v = -2, and from there on drives samples to ever lower outputs.
    output : callable
        T(v), whose slope is penalised.
    lowest : float
        Outputs below are taken as this when they are pushed down: Pearson's term rises again below -2.
    """

    generated: Callable[[Tensor], Tensor]
    real: Callable[[Tensor], Tensor]
    generator: Callable[[Tensor], Tensor]
    output: Callable[[Tensor], Tensor]
    lowest: float = -math.inf


def _f_divergence(
    output: Callable[[Tensor], Tensor], conjugate: Callable[[Tensor], Tensor], lowest: float = -math.inf
) -> Divergence:
    return Divergence(
        generated=lambda v: conjugate(v).mean(),
        real=lambda v: -output(v).mean(),
        generator=lambda v: -output(v).mean(),
        output=output,
        lowest=lowest,
    )


def _importance(v: Tensor) -> Tensor:
    """Weights of samples by how real they look, of mean 1: what makes the hinge a KL divergence."""
    weight = (v / 5.0).clamp(-10.0, 10.0).exp().detach()
    return weight / weight.mean()


DIVERGENCES: dict[str, Divergence] = {
    "pearson": _f_divergence(lambda v: v, lambda v: v**2 / 4.0 + v, lowest=-2.0),
    # exp explodes; beyond 5 it is continued as a line.
    "kl": _f_divergence(
        lambda v: v, lambda v: (v.clamp(max=5.0) - 1.0).exp() + math.exp(4.0) * (v - 5.0).clamp(min=0.0)
    ),
    "js": _f_divergence(
        lambda v: math.log(2.0) - functional.softplus(-v), lambda v: functional.softplus(v) - math.log(2.0)
    ),
    "kl-wgan": Divergence(
        generated=lambda v: functional.relu(1.0 + _importance(v) * v).mean(),
        real=lambda v: functional.relu(1.0 - v).mean(),
        generator=lambda v: -(_importance(v) * v).mean(),
        output=lambda v: v,
    ),
}
"""Pearson's chi-squared is the public code's default; ``kl-wgan`` is its choice for CIFAR-10."""
