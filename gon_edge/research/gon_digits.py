"""GON on pictures: one discriminator with two outputs a class, (real, generated), and no generator.

A picture of class c is made by gradient steps on noise that raise the discriminator's probability of "real c"; it then
becomes a training picture of "generated c".  The steps are taken for a whole batch at once: the objective is a sum over
pictures and Adam is element-wise, so a batch is the same as one picture at a time.

After the public MNIST example of GON, with its known traps left out: logits with one softmax instead of two, a leaky
ReLU whose slope below zero is 0.2 and not 1, a cosine as long as the climb.  Its three claims (cross-entropy beats
squared error, random negatives help, tanh beats ReLU and PReLU) are settings here, so that they can be tested.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from gon_edge.errors import InputError
from gon_edge.research.images import Images, Labels, Pixels, unit

Activation = Literal["leaky", "tanh", "relu", "prelu", "identity"]
Loss = Literal["cross-entropy", "squared"]

ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "leaky": lambda: nn.LeakyReLU(0.2),
    "tanh": nn.Tanh,
    "relu": nn.ReLU,
    "prelu": nn.PReLU,
    "identity": nn.Identity,
}
"""``identity`` is what the public example's convolutional nets have: a leaky ReLU with slope 1."""

_FORMAT = 1
_MEASURES = ("loss", "accuracy", "fooled")


@dataclass(frozen=True, slots=True)
class DigitSettings:
    """How a picture GON is trained.

    Attributes
    ----------
    hidden : tuple of int
    activation : str
        A key of ``ACTIVATIONS``.
    loss : str
        ``cross-entropy`` of the logits, or the ``squared`` error of the probabilities.
    negatives : bool
        Whether random noise is shown as "generated".
    rate : float
        Adam's, for the weights.
    batch : int
        Real pictures a step.
    fresh : int
        Pictures generated a step.
    pool : int
        Newest generated pictures kept; each step shows ``batch`` of them.
    climb_steps : int
    climb_rate : float
        Adam's, for the picture, falling to 0 as a cosine.
    smoothness : float
        Weight of the total variation in the climb: keeps single pixels from flickering.
    seed : int
    """

    hidden: tuple[int, ...] = (256, 128, 64)
    activation: Activation = "leaky"
    loss: Loss = "cross-entropy"
    negatives: bool = True
    rate: float = 1e-3
    batch: int = 64
    fresh: int = 32
    pool: int = 512
    climb_steps: int = 30
    climb_rate: float = 0.2
    smoothness: float = 2e-3
    seed: int = 0


class PictureDiscriminator(nn.Module):
    """Flattened pictures (B, C, P, P) to logits (B, 2K): K of "real", then K of "generated"."""

    def __init__(self, inputs: int, classes: int, settings: DigitSettings) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Flatten()]
        for before, after in pairwise((inputs, *settings.hidden)):
            layers += [nn.Linear(before, after), ACTIVATIONS[settings.activation]()]
        self.layers = nn.Sequential(*layers, nn.Linear(settings.hidden[-1], 2 * classes))
        self.classes = classes

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits."""
        return torch.as_tensor(self.layers(x))


def climb(net: nn.Module, start: Tensor, labels: Tensor, *, steps: int, rate: float, smoothness: float) -> Tensor:
    """Move pictures towards "real" of their class.

    Parameters
    ----------
    net : Module
        Pictures (B, C, P, P) to logits.
    start : Tensor, (B, C, P, P)
        In [-1, 1]; left as it is.
    labels : Tensor of int, (B,)
        Outputs whose probability is raised.
    steps : int
    rate : float
        Adam's first rate; falls to 0 as half a cosine.
    smoothness : float
        Weight of the total variation.

    Returns
    -------
    Tensor, (B, C, P, P)
        In [-1, 1]; no gradient.
    """
    z = start.clone()
    first, second = torch.zeros_like(z), torch.zeros_like(z)
    for step in range(steps):
        z.requires_grad_(True)
        loss = functional.cross_entropy(net(z), labels, reduction="sum")
        if smoothness:
            loss = loss + smoothness * (
                (z[..., 1:, :] - z[..., :-1, :]).abs().sum() + (z[..., 1:] - z[..., :-1]).abs().sum()
            )
        (gradient,) = torch.autograd.grad(loss, z)
        with torch.no_grad():
            first.lerp_(gradient, 0.1)
            second.lerp_(gradient**2, 0.001)
            unbiased = first / (1 - 0.9 ** (step + 1)), second / (1 - 0.999 ** (step + 1))
            falling = 0.5 * rate * (1 + np.cos(np.pi * step / steps))
            z = (z - falling * unbiased[0] / (unbiased[1].sqrt() + 1e-8)).clamp(-1.0, 1.0)
    return z.detach()


class DigitGon:
    """A picture GON in training or trained.

    Parameters
    ----------
    shape : tuple of int
        (C, P, P) of a picture.
    classes : int
        K.
    settings : DigitSettings
    device : str

    Attributes
    ----------
    net : PictureDiscriminator
    step : int
        Training steps taken.
    history : list of dict
        ``step``, ``loss``, ``accuracy`` (of real pictures among the 2K outputs) and ``fooled`` (mean probability of
        "real" that fresh pictures reached), averages since the entry before.

    Examples
    --------
    >>> from gon_edge.research.images import load_images
    >>> gon = DigitGon((1, 8, 8), 10, DigitSettings(hidden=(32,)))
    >>> gon.train(load_images("digits8"), steps=2)
    >>> gon.generate(np.array([3, 3])).shape
    (2, 1, 8, 8)
    """

    def __init__(self, shape: tuple[int, int, int], classes: int, settings: DigitSettings, device: str = "cpu") -> None:
        torch.manual_seed(settings.seed)
        self.shape = shape
        self.settings = settings
        self.device = device
        self.net = PictureDiscriminator(int(np.prod(shape)), classes, settings).to(device)
        self.step = 0
        self.history: list[dict[str, float]] = []
        self._since: list[tuple[float, float, float]] = []  # measures of the steps since the last entry
        self._adam = torch.optim.Adam(self.net.parameters(), lr=settings.rate, betas=(0.5, 0.999), fused=True)
        self._draw = torch.Generator().manual_seed(settings.seed)
        self._pool = torch.zeros(0, *shape)
        self._pool_labels = torch.zeros(0, dtype=torch.int64)

    @property
    def parameters(self) -> int:
        """Number of weights."""
        return sum(p.numel() for p in self.net.parameters())

    def train(
        self,
        images: Images,
        steps: int,
        *,
        log_every: int = 50,
        progress: Callable[[int], None] = lambda step: None,
    ) -> None:
        """Take training steps.

        Parameters
        ----------
        images : Images
            Of this shape; only the training part is used.
        steps : int
        log_every : int
            Steps between entries of ``history``.
        progress : callable
            Called with the number of steps taken in all, after each.
        """
        if images.shape != self.shape:
            raise InputError(f"{images.name}: pictures are {images.shape}, this network's are {self.shape}")
        x = images.train  # stays as bytes: as numbers it would outweigh the network
        y = torch.from_numpy(images.train_labels)
        present = torch.unique(y)
        for _ in range(steps):
            self._since.append(self._train_step(x, y, present))
            self.step += 1
            if self.step % log_every == 0:
                means = np.mean(self._since, axis=0).tolist()
                self.history.append({"step": self.step, **dict(zip(_MEASURES, means, strict=True))})
                self._since.clear()
            progress(self.step)

    def _train_step(self, x: Pixels, y: Tensor, present: Tensor) -> tuple[float, float, float]:
        settings, classes = self.settings, self.net.classes
        wanted = present[torch.randint(len(present), (settings.fresh,), generator=self._draw)]
        fresh, fooled = self._fresh(wanted)
        self._pool = torch.cat([self._pool, fresh])[-settings.pool :]
        self._pool_labels = torch.cat([self._pool_labels, wanted])[-settings.pool :]
        real = torch.randint(len(x), (settings.batch,), generator=self._draw)
        # Fresh ones always, so that what the network likes now is what it learns against; the rest from the pool.
        rest = max(0, settings.batch - settings.fresh)
        old = torch.randint(len(self._pool), (rest,), generator=self._draw)
        pictures = [torch.from_numpy(unit(x[real.numpy()])), fresh, self._pool[old]]
        labels = [y[real], wanted + classes, self._pool_labels[old] + classes]
        if settings.negatives:
            pictures.append(self._noise(settings.fresh))
            labels.append(present[torch.randint(len(present), (settings.fresh,), generator=self._draw)] + classes)
        shown, target = torch.cat(pictures).to(self.device), torch.cat(labels).to(self.device)
        logits = self.net(shown)
        if settings.loss == "cross-entropy":
            loss = functional.cross_entropy(logits, target)
        else:
            loss = ((logits.softmax(dim=1) - functional.one_hot(target, 2 * classes)) ** 2).sum(dim=1).mean()
        self._adam.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        self._adam.step()
        right = (logits[: len(real)].argmax(dim=1).cpu() == y[real]).float().mean()
        return loss.item(), right.item(), fooled

    def _fresh(self, labels: Tensor) -> tuple[Tensor, float]:
        """Pictures (B, C, P, P) climbed from noise, and the mean probability of "real" they reach."""
        settings = self.settings
        pictures = climb(
            self.net,
            self._noise(len(labels)).to(self.device),
            labels.to(self.device),
            steps=settings.climb_steps,
            rate=settings.climb_rate,
            smoothness=settings.smoothness,
        )
        with torch.no_grad():
            reached = self.net(pictures).softmax(dim=1).gather(1, labels.to(self.device)[:, None]).mean().item()
        return pictures.cpu(), reached

    def _noise(self, count: int) -> Tensor:
        return 2.0 * torch.rand(count, *self.shape, generator=self._draw) - 1.0

    def generate(self, labels: Labels, *, seed: int = 0, longer: int = 1, at_once: int = 256) -> NDArray[np.float32]:
        """Make pictures of classes ``labels`` (N,) from noise.

        Parameters
        ----------
        labels : ndarray of int, (N,)
        seed : int
            Of the noise; does not touch training.
        longer : int
            How many times as many steps to climb as in training: a long climb clears the noise and keeps fewer details.
        at_once : int
            Pictures climbed together: bounds memory, changes nothing else.

        Returns
        -------
        ndarray of float32, (N, C, P, P)
            In [-1, 1].
        """
        draw = torch.Generator().manual_seed(seed)
        settings = self.settings
        parts = []
        for part in torch.from_numpy(labels).split(at_once):  # type: ignore[no-untyped-call]
            start = 2.0 * torch.rand(len(part), *self.shape, generator=draw) - 1.0
            made = climb(
                self.net,
                start.to(self.device),
                part.to(self.device),
                steps=longer * settings.climb_steps,
                rate=settings.climb_rate,
                smoothness=settings.smoothness,
            )
            parts.append(made.cpu().numpy())
        return np.concatenate(parts)

    def save(self, path: Path) -> None:
        """Write everything that :meth:`load` needs to go on as if never interrupted."""
        state = {
            "format": _FORMAT,
            "shape": list(self.shape),
            "classes": self.net.classes,
            "settings": {**asdict(self.settings), "hidden": list(self.settings.hidden)},
            "step": self.step,
            "history": self.history,
            "since": [list(measures) for measures in self._since],
            "net": self.net.state_dict(),
            "adam": self._adam.state_dict(),
            "draw": self._draw.get_state(),
            "pool": self._pool,
            "pool_labels": self._pool_labels,
        }
        fresh = path.with_name(f".{path.name}.tmp")
        torch.save(state, fresh)
        fresh.replace(path)

    @classmethod
    def load(cls, path: Path, device: str = "cpu") -> DigitGon:
        """Read a checkpoint.

        Raises
        ------
        InputError
            When it is missing or no checkpoint of this program.
        """
        try:
            state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
            settings = DigitSettings(**{**state["settings"], "hidden": tuple(state["settings"]["hidden"])})
            channels, height, width = state["shape"]
            gon = cls((channels, height, width), state["classes"], settings, device)
            gon.net.load_state_dict(state["net"])
            gon._adam.load_state_dict(state["adam"])
            gon._draw.set_state(state["draw"])
            gon.step, gon.history = state["step"], state["history"]
            gon._since = [(loss, accuracy, fooled) for loss, accuracy, fooled in state["since"]]
            gon._pool, gon._pool_labels = state["pool"], state["pool_labels"]
        except Exception as error:  # zipfile, pickle and torch each raise their own
            raise InputError(f"{path}: no checkpoint of tools/digits.py ({type(error).__name__}: {error})") from error
        return gon
