"""GANomaly with the gradient constraint: encoder, decoder, encoder again, on pictures; and GradCon's autoencoder alone.

A picture x becomes z = E(x), x' = G(z), z' = E'(x').  Trained on normal pictures by
``w_adv mean (f(x) - f(x'))² + w_con mean |x - x'| + w_enc mean (z - z')²`` with weights 1, 50, 1, in turn with a
discriminator whose features are f (Akcay et al., 2018).  An abnormal picture is encoded elsewhere the second time: the
score is ``mean (z - z')²``.

The gradient constraint adds ``-λ mean cosine`` of the gradient of the reconstruction error in the decoder's weights
with the mean of the earlier ones (see :mod:`gon_edge.research.gradcon`).  With adversarial and encoder weight 0 what is
left is GradCon's autoencoder.

Where the public implementations go wrong this one does not follow: losses are means, not sums that drown each other;
inputs are in the range the decoder can reach; the nets are in evaluation mode when they score; the constraint is part
of the graph; and the weights kept are those of the smallest validation loss, not of the best figure on the test set.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from gon_edge.research.gradcon import GradientFeatures, Mahalanobis, Reference, Sketch, gradient_features
from gon_edge.research.images import Pixels, unit

Array = NDArray[np.float64]

GRADIENT_WEIGHT = 0.03
"""λ in training, of the public GradCon."""
GRADIENT_SCORE_WEIGHT = 0.12
"""Weight of the cosine beside the squared error in GradCon's score."""

_SCORED_AT_ONCE = 256
_CALIBRATED = 500
_HELD_OUT = 1000


@dataclass(frozen=True, slots=True)
class GanomalySettings:
    """How a model is built and trained.

    Attributes
    ----------
    width : int
        Channels of the first convolution; doubled by each of the next.  Published: 64.
    latent : int
        Published: 100.
    steps : int
    batch : int
    rate : float
        Adam's.
    momentum : float
        Adam's first.
    adversarial, contextual, squared, encoder : float
        Weights of the losses; contextual and squared are absolute and squared error of the pictures.  With
        ``adversarial`` 0 there is no discriminator, with ``encoder`` 0 the second encoder is not trained.
    gradient : float
        λ; 0 leaves the constraint out of training.
    validate_every : int
        Steps; the weights with the smallest validation loss are kept.
    seed : int
    """

    width: int = 8
    latent: int = 32
    steps: int = 300
    batch: int = 64
    rate: float = 1e-3
    momentum: float = 0.5
    adversarial: float = 1.0
    contextual: float = 50.0
    squared: float = 0.0
    encoder: float = 1.0
    gradient: float = 0.0
    validate_every: int = 50
    seed: int = 0


GANOMALY = GanomalySettings()
COMBINED = GanomalySettings(gradient=GRADIENT_WEIGHT)
GRADCON = GanomalySettings(
    adversarial=0.0, contextual=0.0, squared=1.0, encoder=0.0, gradient=GRADIENT_WEIGHT, momentum=0.9
)
"""The autoencoder of GradCon: squared error and the constraint."""


def padded(pixels: Pixels) -> Tensor:
    """Pictures (N, C, P, P) as float32 in [-1, 1], with a black border up to the next power of two."""
    side = pixels.shape[-1]
    power = 1 << (side - 1).bit_length()
    before, after = (power - side) // 2, power - side - (power - side) // 2
    return functional.pad(torch.from_numpy(unit(pixels)), (before, after, before, after), value=-1.0)


def encoder(channels: int, side: int, width: int, latent: int) -> nn.Sequential:
    """Convolutions 4/2/1 down to 4x4, then one over all of it: (B, C, P, P) to (B, latent, 1, 1)."""
    layers: list[nn.Module] = [nn.Conv2d(channels, width, 4, 2, 1, bias=False), nn.LeakyReLU(0.2)]
    while side > 8:
        layers += [nn.Conv2d(width, 2 * width, 4, 2, 1, bias=False), nn.BatchNorm2d(2 * width), nn.LeakyReLU(0.2)]
        side, width = side // 2, 2 * width
    return nn.Sequential(*layers, nn.Conv2d(width, latent, side // 2, 1, 0, bias=False))


def decoder(channels: int, side: int, width: int, latent: int) -> nn.Sequential:
    """The encoder backwards, ending in a tanh."""
    widths = [width]
    while side > 8:
        side, widths = side // 2, [*widths, 2 * widths[-1]]
    layers: list[nn.Module] = [nn.ConvTranspose2d(latent, widths[-1], side // 2, 1, 0, bias=False)]
    for before, after in zip(widths[::-1], widths[-2::-1], strict=False):
        layers += [nn.BatchNorm2d(before), nn.ReLU(), nn.ConvTranspose2d(before, after, 4, 2, 1, bias=False)]
    last = [nn.BatchNorm2d(widths[0]), nn.ReLU(), nn.ConvTranspose2d(widths[0], channels, 4, 2, 1, bias=False)]
    return nn.Sequential(*layers, *last, nn.Tanh())


@dataclass(frozen=True, slots=True)
class _Passed:
    """A batch on its way: pictures, their codes, pictures made of those, their codes, features of both pictures."""

    x: Tensor
    z: Tensor
    made: Tensor
    again: Tensor | None
    seen: tuple[Tensor, Tensor] | None

    def gaps(self) -> dict[str, Tensor]:
        """What the losses are means of, (B, ...); squared in pixels from 0 to 1, as GradCon's weights want it."""
        gap = self.x - self.made
        gaps = {"contextual": gap.abs(), "squared": (gap / 2) ** 2}
        if self.again is not None:
            gaps["encoder"] = (self.z - self.again) ** 2
        if self.seen is not None:
            gaps["adversarial"] = (self.seen[0] - self.seen[1]) ** 2
        return gaps


class Ganomaly:
    """One model of normal pictures.

    Parameters
    ----------
    channels : int
    side : int
        P of padded pictures, a power of two from 8.
    settings : GanomalySettings
    device : str

    Attributes
    ----------
    history : list of dict
        Mean losses since the entry before, and the validation loss.

    Examples
    --------
    >>> from gon_edge.research.images import load_images
    >>> digits = load_images("digits8")
    >>> model = Ganomaly(1, 8, GanomalySettings(steps=2)).fit(digits.train[:200])
    >>> sorted(model.score(digits.test[:5]))
    ['adversarial', 'contextual', 'encoder', 'fused', 'gradcon', 'gradient', 'mahalanobis', 'total']
    """

    def __init__(self, channels: int, side: int, settings: GanomalySettings, device: str = "cpu") -> None:
        torch.manual_seed(settings.seed)
        self.settings = settings
        self.device = device
        sizes = (channels, side, settings.width, settings.latent)
        self.net = nn.ModuleDict({"encoder": encoder(*sizes), "decoder": decoder(*sizes), "again": encoder(*sizes)})
        self.discriminator = encoder(channels, side, settings.width, 1)
        for net in (self.net, self.discriminator):
            net.apply(_initialise)
            net.to(device)
        self.history: list[dict[str, float]] = []
        self.running = Reference()
        """Mean gradient over training, as published."""
        self.final = Reference()
        """Mean gradient of training pictures at the final weights."""

    @property
    def parameters(self) -> int:
        """Number of weights that training moves."""
        nets = [self.net["encoder"], self.net["decoder"]]
        nets += [self.net["again"]] if self.settings.encoder else []
        nets += [self.discriminator] if self.settings.adversarial else []
        return sum(p.numel() for net in nets for p in net.parameters())

    def fit(self, normal: Pixels, *, progress: Callable[[int], None] = lambda step: None) -> Ganomaly:
        """Train on normal pictures (N, C, P, P); a tenth of them, 1000 at most, only validates."""
        settings = self.settings
        rng = np.random.default_rng(settings.seed)
        order = rng.permutation(len(normal))
        apart = min(_HELD_OUT, max(1, len(normal) // 10))
        held_out, train = normal[order[:apart]], normal[order[apart:]]
        adams = [
            torch.optim.Adam(net.parameters(), lr=settings.rate, betas=(settings.momentum, 0.999), fused=True)
            for net in (self.net, self.discriminator)
        ]
        best = (np.inf, copy.deepcopy(self.net.state_dict()), copy.deepcopy(self.discriminator.state_dict()))
        sums: dict[str, float] = {}
        for step in range(1, settings.steps + 1):
            x = padded(train[rng.integers(0, len(train), settings.batch)]).to(self.device)
            for name, value in self._train_step(x, adams).items():
                sums[name] = sums.get(name, 0.0) + value
            if step % settings.validate_every == 0 or step == settings.steps:
                count = (step - 1) % settings.validate_every + 1
                loss = self._validation_loss(held_out)
                self.history.append({"step": step, "validation": loss, **{k: v / count for k, v in sums.items()}})
                sums.clear()
                if loss < best[0]:
                    best = (
                        loss,
                        copy.deepcopy(self.net.state_dict()),
                        copy.deepcopy(self.discriminator.state_dict()),
                    )
            progress(step)
        self.net.load_state_dict(best[1])
        self.discriminator.load_state_dict(best[2])
        self._calibrate(train[:_CALIBRATED])
        return self

    def _train_step(self, x: Tensor, adams: list[torch.optim.Adam]) -> dict[str, float]:
        settings = self.settings
        self.net.train()
        self.discriminator.train()
        passed = self._pass(x)
        losses = {name: gap.mean() for name, gap in passed.gaps().items()}
        loss = self._weighted(losses)
        if settings.gradient:
            error = functional.mse_loss(passed.made, x)
            gradients = torch.autograd.grad(error, list(self._decoder_weights().values()), create_graph=True)
            losses["gradient"] = -self.running.cosine(gradients)
            loss = loss + settings.gradient * losses["gradient"]
            self.running.update(gradients)
        # Each is moved by its own loss alone, so what the discriminator saw serves both; both graphs are walked before
        # any weight moves.
        _differentiate(loss, self.net, keep_graph=passed.seen is not None)
        if passed.seen is not None:
            logits = [self.discriminator[-1](seen).flatten() for seen in passed.seen]
            losses["discriminator"] = (functional.softplus(-logits[0]) + functional.softplus(logits[1])).mean() / 2
            _differentiate(losses["discriminator"], self.discriminator)
            adams[1].step()
        adams[0].step()
        return {name: value.item() for name, value in losses.items()}

    def _pass(self, x: Tensor, *, whole: bool = False) -> _Passed:
        """Send pictures through the nets, those without weight in the loss only when the ``whole`` is wanted."""
        z = self.net["encoder"](x)
        made = self.net["decoder"](z)
        again = self.net["again"](made) if whole or self.settings.encoder else None
        trunk = self.discriminator[:-1]
        return _Passed(x, z, made, again, (trunk(x), trunk(made)) if whole or self.settings.adversarial else None)

    def _weighted(self, losses: Mapping[str, Tensor]) -> Tensor:
        return torch.stack([getattr(self.settings, name) * loss for name, loss in losses.items()]).sum()

    def _decoder_weights(self) -> dict[str, Tensor]:
        """Weights of the decoder's convolutions, by name; normalisation has none that say a direction."""
        return {name: p for name, p in self.net["decoder"].named_parameters() if p.ndim == 4}

    @torch.no_grad()
    def _validation_loss(self, pixels: Pixels) -> float:
        self.net.eval()
        self.discriminator.eval()
        total = 0.0
        for part in np.array_split(pixels, 1 + len(pixels) // _SCORED_AT_ONCE):
            gaps = self._pass(padded(part).to(self.device)).gaps()
            total += self._weighted({name: gap.mean() for name, gap in gaps.items()}).item() * len(part)
        return total / len(pixels)

    def _calibrate(self, normal: Pixels) -> None:
        """Find the reference at the final weights, and what is usual for normal pictures."""
        self.net.eval()
        self.discriminator.eval()
        weights = list(self._decoder_weights().values())
        for part in np.array_split(normal, 1 + len(normal) // 64):
            x = padded(part).to(self.device)
            error = functional.mse_loss(self.net["decoder"](self.net["encoder"](x)), x)
            self.final.update(torch.autograd.grad(error, weights), weight=len(part))
        features = self.gradients(normal)
        self._mahalanobis = Mahalanobis(features.stacked())
        terms = self._terms(normal)
        self._usual = {
            "encoder": (float(terms["encoder"].mean()), float(terms["encoder"].std()) or 1.0),
            "mahalanobis": _moments(self._mahalanobis(features.stacked())),
        }

    def gradients(
        self, pixels: Pixels, *, reference: Reference | None = None, sketch: Sketch | None = None
    ) -> GradientFeatures:
        """Compare each picture's gradient with a reference (default: at the final weights).

        Parameters
        ----------
        pixels : ndarray of uint8, (N, C, P, P)
        reference : Reference, optional
        sketch : Sketch, optional
        """
        self.net.eval()
        net = self.net["decoder"]
        frozen = {name: value.detach() for name, value in (*net.named_parameters(), *net.named_buffers())}

        def loss(weights: Mapping[str, Tensor], code_and_picture: Tensor) -> Tensor:
            code, picture = code_and_picture[:latent], code_and_picture[latent:]
            made = torch.func.functional_call(net, {**frozen, **weights}, (code[None, :, None, None],))
            return torch.as_tensor(functional.mse_loss(made.flatten(), picture))

        latent = self.settings.latent
        parts = []
        for part in np.array_split(pixels, 1 + len(pixels) // _SCORED_AT_ONCE):
            x = padded(part).to(self.device)
            with torch.no_grad():
                code = self.net["encoder"](x).flatten(1)
            # One tensor a sample, since the loss takes one: the code, which these weights do not move, and the picture.
            samples = torch.cat([code, x.flatten(1)], dim=1)
            parts.append(
                gradient_features(loss, self._decoder_weights(), samples, reference or self.final, sketch=sketch)
            )
        return GradientFeatures(
            *(np.concatenate([getattr(part, name) for part in parts]) for name in ("cosine", "log_norm", "sketch"))
        )

    def sketch(self, *, size: int = 64) -> Sketch:
        """A projection for this model's gradients."""
        return Sketch(sum(weight.numel() for weight in self._decoder_weights().values()), size=size)

    @torch.no_grad()
    def codes(self, pixels: Pixels) -> Array:
        """The latent vectors (N, latent)."""
        self.net.eval()
        parts = np.array_split(pixels, 1 + len(pixels) // _SCORED_AT_ONCE)
        codes = [self.net["encoder"](padded(part).to(self.device)).flatten(1).cpu().numpy() for part in parts]
        return np.concatenate(codes).astype(np.float64)

    @torch.no_grad()
    def _terms(self, pixels: Pixels) -> dict[str, Array]:
        """Every loss of each picture (N,); those a model was not trained for are there too, and mean nothing."""
        self.net.eval()
        self.discriminator.eval()
        found: dict[str, list[Array]] = {}
        for part in np.array_split(pixels, 1 + len(pixels) // _SCORED_AT_ONCE):
            for name, gap in self._pass(padded(part).to(self.device), whole=True).gaps().items():
                found.setdefault(name, []).append(gap.flatten(1).mean(dim=1).cpu().numpy().astype(np.float64))
        return {name: np.concatenate(values) for name, values in found.items()}

    def score(self, pixels: Pixels) -> dict[str, Array]:
        """Every score of each picture, (N,), high is abnormal.

        Returns
        -------
        dict
            ``adversarial``, ``contextual``, ``encoder`` (GANomaly's score): the losses; ``gradient``: minus the mean
            cosine; ``gradcon``: the published mixture of squared error and cosine; ``mahalanobis``: distance of
            cosines and norms from normal ones; ``total``: the weighted sum that training minimises; ``fused``: encoder
            and mahalanobis, each standardised on normal pictures, added.
        """
        terms = self._terms(pixels)
        features = self.gradients(pixels)
        scores = {name: terms[name] for name in ("adversarial", "contextual", "encoder")}
        scores["gradient"] = -features.cosine.mean(axis=1)
        scores["gradcon"] = terms["squared"] + GRADIENT_SCORE_WEIGHT * scores["gradient"]
        scores["mahalanobis"] = self._mahalanobis(features.stacked())
        settings = self.settings
        scores["total"] = (
            settings.adversarial * terms["adversarial"]
            + settings.contextual * terms["contextual"]
            + settings.encoder * terms["encoder"]
            + GRADIENT_WEIGHT * scores["gradient"]
        )
        scores["fused"] = np.zeros(len(pixels))
        for name, (mean, deviation) in self._usual.items():
            scores["fused"] += (scores[name] - mean) / deviation
        return scores


def _differentiate(loss: Tensor, net: nn.Module, *, keep_graph: bool = False) -> None:
    """Leave the loss's gradients in this net's weights and in no other's."""
    net.zero_grad()
    loss.backward(inputs=list(net.parameters()), retain_graph=keep_graph)  # type: ignore[no-untyped-call]


def _moments(values: Array) -> tuple[float, float]:
    return float(values.mean()), float(values.std()) or 1.0


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
        nn.init.normal_(module.weight, 0.0, 0.02)
    elif isinstance(module, nn.BatchNorm2d):
        nn.init.normal_(module.weight, 1.0, 0.02)
