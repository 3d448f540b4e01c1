"""OMASGAN: make anomalies on the border of what is normal, and train a discriminator with them.

Four trainings, one after the other.  *Task 1*: a GAN of the normal data (G, D), by an f-divergence.  *Task 2*: a second
generator B, begun as G, is pushed to the border: away from where D says "normal", not far from the data, and not all in
one place.  *Task 3*: a GAN once more (G', D'), this time told that B's samples are not normal.  *Task 3 J*: a
discriminator J alone, of B's samples against data and G'; J(x) is the anomaly score, high is abnormal.

The public code shares one module between G, B and G' and freezes it, so that its Task 3 trains nothing; here each is a
module of its own.  What its Task 2 calls a decreasing function of the divergence pushes B out without an end in sight,
held back only by the distance to the nearest sample; beside it (``border="published"``) stands a well (``"well"``):
``exp(-d/τ) + d/τ·exp(-d*/τ)``, which has its one minimum at distance d = d* from the data, and D *climbed* on it, so
that samples are the most normal-looking ones at that distance, as the name of the method (minimum anomaly score) has
it.  Distances of pictures are then between pixels.  Four more borders are the same well elsewhere.  ``"features"``
takes distances between what D's last layer is given, and ``"encoder"`` between features of a network of its own, which
learns from normal pictures which way up they are.  ``"latent"`` leaves G as it is and moves its noise only, so that
every sample is one that G can draw.  ``"climbed"`` has no generator: real samples climb to the border, each by itself.

Data are tensors (N, ...) on the CPU; networks are on the device of the settings.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from gon_edge.research.divergences import DIVERGENCES
from gon_edge.research.omasgan_networks import MovedNoise, MovedSamples, WhichTurn

Array = NDArray[np.float64]
Border = Literal["well", "features", "encoder", "latent", "climbed", "published"]

_SCORED_AT_ONCE = 512


@dataclass(frozen=True, slots=True)
class OmasganSettings:
    """How the four trainings go.

    Attributes
    ----------
    divergence : str
        A key of ``DIVERGENCES``.
    border : str
        ``well``, ``features``, ``encoder`` (of pictures), ``latent``, ``climbed`` or ``published``.
    steps : int
        Of each task.
    batch : int
    rate : float
        Adam's.
    penalty : float
        γ of the slope of T at real samples.
    pull, spread : float
        μ and ν: weights of the distance to the nearest sample and of the dispersion.
    distance : float
        d* of the well, in 99 % quantiles of the distance between neighbouring samples.
    climb : float
        Weight of D in the well.
    generated, borders, first, data : float
        Weights of G', B, G and x in Task 3: β, γ, δ, α.
    both : float
        ζ: share of the data among what J calls normal.
    reservoir : int
        Samples that distances are taken to.
    average : float
        What stays, at each step, of the exponential average of weights that a task ends with; 0 is none.
    seed : int
    device : str
    """

    divergence: str = "pearson"
    border: Border = "well"
    steps: int = 1000
    batch: int = 64
    rate: float = 1e-3
    penalty: float = 10.0
    pull: float = 0.2
    spread: float = 0.3
    distance: float = 4.0
    climb: float = 0.3
    generated: float = 1.0
    borders: float = 0.7
    first: float = 0.4
    data: float = 0.3
    both: float = 0.5
    reservoir: int = 512
    average: float = 0.0
    seed: int = 0
    device: str = "cpu"


class Omasgan:
    """The four tasks on one set of normal samples.

    Parameters
    ----------
    generator : Module
        With an attribute ``latent``; noise is uniform in [0, 1].
    discriminator : Module
        Samples to (B, 1).
    samples : Tensor, (N, ...)
        Normal ones.
    settings : OmasganSettings

    Attributes
    ----------
    generator, discriminator : Module
        G and D of Task 1.
    border, generator_3, discriminator_3, detector : Module
        B, G', D' and J, each a copy of its own.
    history : dict
        Losses of each task, a list of its steps.
    reach : float
        d*: distance from the data at which the well has its minimum.

    Examples
    --------
    >>> points = torch.randn(200, 2)
    >>> model = Omasgan(PointGenerator(8), perceptron(2, 8, 1), points, OmasganSettings(steps=2)).fit()
    >>> model.score(points[:3]).shape
    (3,)
    """

    def __init__(self, generator: nn.Module, discriminator: nn.Module, samples: Tensor, settings: OmasganSettings):
        self.settings = settings
        self.divergence = DIVERGENCES[settings.divergence]
        self.generator = generator.to(settings.device)
        self.discriminator = discriminator.to(settings.device)
        self._latent = int(generator.latent)  # type: ignore[arg-type]
        self._samples = samples
        self._draw = torch.Generator().manual_seed(settings.seed)
        self._chosen = torch.randperm(len(samples), generator=self._draw)[: settings.reservoir]
        self._measure_by(nn.Flatten())
        self.history: dict[str, list[float]] = {}
        self._judges: dict[str, nn.Module] = {}

    def _measure_by(self, features: nn.Module) -> None:
        """Take distances between features of samples, from now on."""
        self._features = features
        with torch.no_grad():
            self.reservoir = features(self._samples[self._chosen].to(self.settings.device))
        nearest = torch.cdist(self.reservoir, self.reservoir).topk(2, largest=False).values[:, 1]
        # By the square root of the dimension: a distance is then that of a typical coordinate.
        self._per = math.sqrt(self.reservoir.shape[1])
        self.reach = self.settings.distance * float(nearest.quantile(0.99)) / self._per

    def fit(self, *, progress: Callable[[str, int], None] = lambda task, step: None) -> Omasgan:
        """Do all four tasks; ``progress`` is called with a task's name and its step."""
        self.task_1(progress=progress)
        self.task_2(progress=progress)
        self.task_3(progress=progress)
        self.task_3_j(progress=progress)
        return self

    def task_1(self, *, progress: Callable[[str, int], None] = lambda task, step: None) -> None:
        """Train G and D."""
        adams = [self._adam(self.generator), self._adam(self.discriminator)]

        def step() -> float:
            x, fake = self._real(), self.generator(self._noise())
            loss = self.divergence.generated(self._says(fake.detach())) + self._on_real(self.discriminator, x)
            _take(adams[1], loss)
            _take(adams[0], self.divergence.generator(self._says(fake)))
            return loss.item()

        self._repeat("task 1", step, progress, self.generator, self.discriminator)

    def task_2(self, *, progress: Callable[[str, int], None] = lambda task, step: None) -> None:
        """Train B; with the published border D goes on learning against it, with the well D stays."""
        if self.settings.border == "features":
            self._measure_by(copy.deepcopy(self.discriminator[:-1]).eval().requires_grad_(False))  # type: ignore[index]
        elif self.settings.border == "encoder":
            self._measure_by(self._encoder())
        self.border = copy.deepcopy(self.generator)
        if self.settings.border == "latent":
            self.border = MovedNoise(self.border, self._latent).train().to(self.settings.device)
        elif self.settings.border == "climbed":
            self.border = MovedSamples(self._real(self.settings.reservoir)).to(self.settings.device)
        # Normalising over B's own batch, as it did over G's in training: by what it remembers of those it calls speckle
        # normal.
        judge = copy.deepcopy(self.discriminator).train()
        adams = [self._adam(self.border), self._adam(judge)]
        settings = self.settings

        def step() -> float:
            z = self._noise()
            made = self.border(z)
            distance = self.distance(made)
            if settings.border == "published":
                with torch.no_grad():
                    fake = self.border(self._noise())
                x = self._real()
                _take(adams[1], self.divergence.generated(judge(fake).flatten()) + self._on_real(judge, x))
                says = judge(made).flatten()
                push = self.divergence.generated(says.clamp(min=self.divergence.lowest))
                apart = torch.cdist(z, z) / (
                    1e-17 + torch.cdist(made.flatten(1), made.flatten(1)) + torch.eye(len(z)).to(z)
                )
                loss = push + settings.pull * distance.mean() * self._per + settings.spread * apart.mean()
            else:
                loss = self._well(distance).mean() + settings.climb * functional.softplus(-judge(made)).mean()
                between = (torch.cdist(*[self._features(made)] * 2) / self._per) ** 2
                close = torch.exp(-between / (0.5 * self.reach**2)) - torch.eye(len(z)).to(z)
                loss = loss + settings.spread * close.sum() / len(z)
            _take(adams[0], loss)
            return loss.item()

        self._repeat("task 2", step, progress, self.border)
        self.border.requires_grad_(False)

    def task_3(self, *, progress: Callable[[str, int], None] = lambda task, step: None) -> None:
        """Train G' and D' with B's samples as negatives."""
        self.generator_3 = copy.deepcopy(self.generator)
        self.discriminator_3 = copy.deepcopy(self.discriminator)
        adams = [self._adam(self.generator_3), self._adam(self.discriminator_3)]
        settings, terms = self.settings, self.divergence

        def step() -> float:
            x = self._real()
            fake = self.generator_3(self._noise())
            with torch.no_grad():
                first = self.generator(self._noise())
            net = self.discriminator_3
            loss = (
                settings.generated * terms.generated(net(fake.detach()).flatten())
                + settings.borders * terms.generated(net(self.border_samples(settings.batch)).flatten())
                + settings.first * terms.real(net(first).flatten())
                + self._on_real(net, x, weight=settings.data)
            )
            _take(adams[1], loss)
            _take(adams[0], settings.generated * terms.generator(net(fake).flatten()))
            return loss.item()

        self._repeat("task 3", step, progress, self.generator_3, self.discriminator_3)

    def task_3_j(self, *, progress: Callable[[str, int], None] = lambda task, step: None) -> None:
        """Train J: B's samples against data and G', both normal."""
        self.detector = copy.deepcopy(self.discriminator)
        adam = self._adam(self.detector)
        settings, terms = self.settings, self.divergence

        def step() -> float:
            with torch.no_grad():
                fake = self.generator_3(self._noise())
            border = self.border_samples(settings.batch).requires_grad_(True)
            # In one batch, so that the statistics it normalises by do not give away what a sample is.
            says = self.detector(torch.cat([fake, self._real(), border])).flatten()
            of_fake, of_real, of_border = says.chunk(3)
            loss = (
                (1.0 - settings.both) * terms.generated(of_fake)
                + settings.both * terms.generated(of_real)
                + terms.real(of_border)
                + self._steepness(of_border, border)
            )
            _take(adam, loss)
            return loss.item()

        self._repeat("task 3 J", step, progress, self.detector)

    def _encoder(self) -> nn.Module:
        """Features of normal pictures, learned by a network like D in as many steps as a task has."""
        last: nn.Linear = self.discriminator[-1]  # type: ignore[index,assignment]
        learner = WhichTurn(copy.deepcopy(self.discriminator[:-1]), last.in_features).to(self.settings.device)  # type: ignore[index]
        adam = self._adam(learner)
        for _ in range(self.settings.steps):
            _take(adam, learner.loss(self._real()))
        return learner.body.eval().requires_grad_(False)

    def _well(self, distance: Tensor) -> Tensor:
        """Falls and rises again with the distance; least at ``reach``."""
        tau = self.reach * 2.0 / 3.0
        return torch.exp(-distance / tau) + distance * (math.exp(-self.reach / tau) / tau)

    @torch.no_grad()
    def border_samples(self, count: int) -> Tensor:
        """Samples of B; with the well, only those near the border (½ d* to 2 d* from the data), the others drawn anew.

        Where four attempts do not give enough, those there are are repeated; where they give none, all are taken.
        """
        if self.settings.border == "published":
            return torch.as_tensor(self.border(self._noise(count)))
        made, kept, found = torch.empty(0), [], 0
        for _ in range(4):
            made = self.border(self._noise(count))
            distance = self.distance(made)
            kept.append(made[(distance >= 0.5 * self.reach) & (distance <= 2.0 * self.reach)])
            found += len(kept[-1])
            if found >= count:
                break
        if not found:
            return made
        near = torch.cat(kept)
        return near[torch.arange(count, device=near.device) % found]

    def distance(self, x: Tensor) -> Tensor:
        """Distance (B,) to the nearest sample of the reservoir, by the square root of the dimension."""
        return torch.cdist(self._features(x), self.reservoir).min(dim=1).values / self._per

    @torch.no_grad()
    def score(self, x: Tensor, task: str = "task 3 J") -> Array:
        """Anomaly scores (N,), high is abnormal.

        Parameters
        ----------
        x : Tensor, (N, ...)
        task : {"task 1", "task 3", "task 3 J"}
            Minus the output of D or of D', or the output of J; of the task that is being trained, as it is now.
        """
        net = self._judges[task]
        was = net.training
        scores = self._in_parts(net.eval(), x) * (1.0 if task == "task 3 J" else -1.0)
        net.train(was)
        return scores

    @torch.no_grad()
    def nearest(self, x: Tensor) -> Array:
        """Distances (N,) of samples (N, ...) to the reservoir: what any score has to beat."""
        return self._in_parts(self.distance, x)

    def _in_parts(self, judge: Callable[[Tensor], Tensor], x: Tensor) -> Array:
        parts = [x[at : at + _SCORED_AT_ONCE].to(self.settings.device) for at in range(0, len(x), _SCORED_AT_ONCE)]
        return np.concatenate([judge(part).flatten().cpu().numpy().astype(np.float64) for part in parts])

    def _on_real(self, net: nn.Module, x: Tensor, *, weight: float = 1.0) -> Tensor:
        """The term of what a discriminator shall call real, and the penalty on its slope there."""
        x = x.detach().requires_grad_(True)
        says = net(x).flatten()
        return weight * self.divergence.real(says) + self._steepness(says, x)

    def _steepness(self, says: Tensor, x: Tensor) -> Tensor:
        (slope,) = torch.autograd.grad(self.divergence.output(says).sum(), x, create_graph=True)
        return 0.5 * self.settings.penalty * slope.flatten(1).square().sum(dim=1).mean()

    def _says(self, x: Tensor) -> Tensor:
        return torch.as_tensor(self.discriminator(x).flatten())

    def _real(self, count: int | None = None) -> Tensor:
        rows = torch.randint(len(self._samples), (count or self.settings.batch,), generator=self._draw)
        return self._samples[rows].to(self.settings.device)

    def _noise(self, count: int | None = None) -> Tensor:
        return torch.rand(count or self.settings.batch, self._latent, generator=self._draw).to(self.settings.device)

    def _adam(self, net: nn.Module) -> torch.optim.Adam:
        moved = [weights for weights in net.parameters() if weights.requires_grad]
        return torch.optim.Adam(moved, lr=self.settings.rate, betas=(0.5, 0.999), fused=True)

    def _repeat(
        self, task: str, step: Callable[[], float], progress: Callable[[str, int], None], *nets: nn.Module
    ) -> None:
        """Take the steps of a task, which moves ``nets``; its score is of the last of them."""
        losses = self.history.setdefault(task, [])
        averages = []
        if self.settings.average:
            rule = get_ema_multi_avg_fn(self.settings.average)  # type: ignore[no-untyped-call]
            averages = [AveragedModel(net, multi_avg_fn=rule, use_buffers=True) for net in nets]
        self._judges[task] = averages[-1].module if averages else nets[-1]
        for number in range(1, self.settings.steps + 1):
            losses.append(step())
            for average, net in zip(averages, nets, strict=False):
                average.update_parameters(net)
            progress(task, number)
        for average, net in zip(averages, nets, strict=False):
            net.load_state_dict(average.module.state_dict())


def _take(adam: torch.optim.Adam, loss: Tensor) -> None:
    adam.zero_grad()
    # Naming them spares the gradients of the other network's weights.
    loss.backward(inputs=[p for group in adam.param_groups for p in group["params"]])  # type: ignore[no-untyped-call]
    adam.step()


def two_modes(count: int, draw: np.random.Generator) -> NDArray[np.float32]:
    """Points (N, 2) of two clusters far apart, Student's t with 40 degrees of freedom round (1.5, 1.5) and (4, 4)."""
    centres = np.array([[1.5, 1.5], [4.0, 4.0]])[draw.integers(0, 2, count)]
    points: NDArray[np.float32] = (centres + 0.2 * draw.standard_t(40, (count, 2))).astype(np.float32)
    return points


def anomalies(kind: str, count: int, draw: np.random.Generator) -> NDArray[np.float32]:
    """Points (N, 2) outside :func:`two_modes`.

    Parameters
    ----------
    kind : {"ring", "between", "far"}
        Round a cluster at radius 1 to 1.5; on the line between the clusters; anywhere in a square at least 1.5 from
        both.
    count : int
    draw : numpy.random.Generator
    """
    centres = np.array([[1.5, 1.5], [4.0, 4.0]])
    if kind == "ring":
        angle, radius = draw.uniform(0, 2 * np.pi, count), draw.uniform(1.0, 1.5, count)
        around = np.stack([np.cos(angle), np.sin(angle)], axis=1) * radius[:, None]
        points = centres[draw.integers(0, 2, count)] + around
    elif kind == "between":
        points = np.array([2.75, 2.75]) + draw.uniform(-0.4, 0.4, (count, 2))
    else:
        points = draw.uniform(-4.0, 9.5, (20 * count, 2))
        away = np.linalg.norm(points[:, None] - centres, axis=2).min(axis=1) > 1.5
        points = points[away][:count]
    return points.astype(np.float32)
