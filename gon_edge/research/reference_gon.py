"""The released GON, quirk by quirk, in numpy float64 with gradients written out: to reproduce its figures, not to use.

It follows the released procedure update by update, from the same initial weights (the random stream of its framework
is the Mersenne Twister, which numpy has too), and is some 35 times faster than it.  Each thing the release does that
its paper does not say, or that breaks detection, is a switch of :class:`Quirks`; with all of them off it is a plain
GON of the same size.

The working detector is :class:`gon_edge.GONDetector` and shares nothing with this module.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gon_edge.research.peers.peer import RISK, causal_windows
from gon_edge.training.threshold import fit_pot

Array = NDArray[np.float64]

# Smoothed labels, rounded to float32 as the release stores them.
_REAL, _FAKE = float(np.float32(0.9)), float(np.float32(0.1))
_STEPS, _ASCENT_RATE, _COSINE_PERIOD, _PATIENCE = 100, 0.01, 10, 10
_TRAIN_TOLERANCE, _TEST_TOLERANCE = 1e-3, 1e-4
_BETA_1, _BETA_2, _EPSILON, _WEIGHT_DECAY = 0.9, 0.999, 1e-8, 1e-5


@dataclass(frozen=True, slots=True)
class Quirks:
    """What the released code and evaluation do.  True is as released; False is the correction.

    Attributes
    ----------
    identity_activation : bool
        The leaky ReLU has slope 1 below zero, so the network is a logistic regression.  False: slope 0.2.
    fakes_from_data : bool
        A fake starts at the real window, so that the loss stays at ln 2.  False: in training it starts at uniform
        noise.
    stop_on_small_decrease : bool
        Generation stops after eleven steps in a row whose loss fell by less than a tolerance: after 23 steps on every
        window, which makes the score one fixed displacement.  False: only when the input no longer moves.
    clamp : bool
        Generation cuts its result to [0, 1].  On test values outside it this alone is most of the detection.
    late_windows : bool
        The window of row t ends at row t - 1, while the labels are not shifted.
    last_row_score : bool
        Only the last row of the window enters the score.  False: the mean over the window.
    quantile_threshold : bool
        The threshold is a quantile of train scores times a factor, both chosen a data set.  False: peaks over
        threshold.
    point_adjustment : bool
        One alarm in a segment counts for all of it.
    """

    identity_activation: bool = True
    fakes_from_data: bool = True
    stop_on_small_decrease: bool = True
    clamp: bool = True
    late_windows: bool = True
    last_row_score: bool = True
    quantile_threshold: bool = True
    point_adjustment: bool = True


AS_RELEASED = Quirks()
CORRECTED = Quirks(*[False] * 8)


class ReferenceGON:
    """Discriminator W F -> 16 -> 16 -> 1; the score is the squared distance that generation moves a window.

    Parameters
    ----------
    window, hidden : int
        W and the width of both layers; the release has 15 and 16.
    epochs : int
    learning_rate : float
        The release has 5 and 5e-4; 1 epoch on SMD and MSDS, 1e-4 on SMD.
    quirks : Quirks
    random_state : int
        0 gives the weights of the release, which seeds with 1.
    """

    def __init__(
        self,
        *,
        window: int = 15,
        hidden: int = 16,
        epochs: int = 5,
        learning_rate: float = 5e-4,
        quirks: Quirks = AS_RELEASED,
        random_state: int = 0,
    ) -> None:
        self.window = window
        self.hidden = hidden
        self.epochs = epochs
        self.learning_rate = learning_rate
        self.quirks = quirks
        self.random_state = random_state
        self.slope = 1.0 if quirks.identity_activation else 0.2

    @property
    def n_parameters(self) -> int:  # noqa: D102
        return self.theta_.size

    def fit(self, X: ArrayLike, /) -> Self:
        """Train on rows (T, F), one window a step, in order.  Nothing is scaled, as in the release."""
        rows = np.nan_to_num(np.asarray(X, dtype=np.float64))
        windows = self._windows(rows)
        self.shapes_ = [(self.hidden, windows.shape[1]), (self.hidden, self.hidden), (1, self.hidden)]
        self.theta_ = initial_weights(self.shapes_, seed=self.random_state + 1)
        rng = np.random.default_rng(self.random_state)
        first, second = np.zeros_like(self.theta_), np.zeros_like(self.theta_)  # Adam's moments
        losses = []
        step = 0
        for _ in range(self.epochs):
            for x in windows:
                start = x if self.quirks.fakes_from_data else rng.random(x.shape)
                fake = self._generate(start[None], tolerance=_TRAIN_TOLERANCE)[0]
                loss, gradient = self._discriminator_loss(np.stack([x, fake]))
                gradient += _WEIGHT_DECAY * self.theta_
                step += 1
                first += (1 - _BETA_1) * (gradient - first)
                second += (1 - _BETA_2) * (gradient**2 - second)
                scale = np.sqrt(second) / np.sqrt(1 - _BETA_2**step) + _EPSILON
                self.theta_ -= self.learning_rate / (1 - _BETA_1**step) * first / scale
                losses.append(loss)
        self.losses_ = np.array(losses)
        self.threshold_ = fit_pot(self.decision_function(rows), RISK)
        return self

    def decision_function(self, X: ArrayLike, /) -> Array:
        """Return (T,): the mean over features of :meth:`feature_scores`."""
        return np.asarray(self.feature_scores(X).mean(axis=1))

    def feature_scores(self, X: ArrayLike, /) -> Array:
        """Return (T, F): the squared distance generation moves each feature."""
        rows = np.nan_to_num(np.asarray(X, dtype=np.float64))
        windows = self._windows(rows)
        moved = np.concatenate(
            [
                (self._generate(windows[at : at + 1024], tolerance=_TEST_TOLERANCE) - windows[at : at + 1024]) ** 2
                for at in range(0, len(windows), 1024)
            ]
        ).reshape(len(rows), self.window, -1)
        return moved[:, -1] if self.quirks.last_row_score else np.asarray(moved.mean(axis=1))

    def _windows(self, rows: Array) -> Array:
        if self.quirks.late_windows:
            rows = np.concatenate([rows[:1], rows[:-1]])
        return np.ascontiguousarray(causal_windows(rows, self.window)).reshape(len(rows), -1)

    def _layers(self) -> list[tuple[Array, Array]]:
        """Return views of (weight, bias) into the flat parameters."""
        layers, at = [], 0
        for shape in self.shapes_:
            weight = self.theta_[at : at + shape[0] * shape[1]].reshape(shape)
            at += weight.size
            layers.append((weight, self.theta_[at : at + shape[0]]))
            at += shape[0]
        return layers

    def _forward(self, x: Array) -> tuple[Array, list[Array], list[Array]]:
        """Return probabilities (B,), the inputs of the layers, and the slopes after the hidden ones."""
        inputs, slopes = [x], []
        *hidden, (weight, bias) = self._layers()
        for w, b in hidden:
            before = inputs[-1] @ w.T + b  # (B, H)
            slope = np.where(before > 0, 1.0, self.slope)
            inputs.append(before * slope)
            slopes.append(slope)
        logit = (inputs[-1] @ weight.T + bias)[:, 0]
        return 1 / (1 + np.exp(-logit)), inputs, slopes

    def _input_gradient(self, x: Array, target: float) -> tuple[Array, Array]:
        """Return the loss (B,) of cross entropy against `target`, and its gradient (B, n) in x."""
        p, _, slopes = self._forward(x)
        (w1, _), (w2, _), (w3, _) = self._layers()
        delta = (p - target)[:, None] * w3  # (B, H)
        delta = (delta * slopes[1]) @ w2  # (B, H)
        return _cross_entropy(p, target), (delta * slopes[0]) @ w1  # (B, n)

    def _discriminator_loss(self, pair: Array) -> tuple[float, Array]:
        """Return the loss on one real and one fake window, and its gradient in the flat parameters."""
        p, inputs, slopes = self._forward(pair)
        targets = np.array([_REAL, _FAKE])
        (_, _), (w2, _), (w3, _) = self._layers()
        delta_3 = ((p - targets) / 2)[:, None]  # (2, 1); the mean of the two losses
        delta_2 = (delta_3 @ w3) * slopes[1]  # (2, H)
        delta_1 = (delta_2 @ w2) * slopes[0]  # (2, H)
        gradients = [
            part
            for delta, layer_input in zip((delta_1, delta_2, delta_3), inputs, strict=True)
            for part in ((delta.T @ layer_input).ravel(), delta.sum(axis=0))
        ]
        return float(_cross_entropy(p, targets).mean()), np.concatenate(gradients)

    def _generate(self, start: Array, *, tolerance: float) -> Array:
        """Return inputs (B, n) optimised towards "real" from `start`; every row stops on its own."""
        z = start.copy()
        alive = np.arange(len(z))
        first, second = np.zeros_like(z), np.zeros_like(z)
        last_loss = np.full(len(z), 10.0)
        calm = np.zeros(len(z), dtype=int)
        for step in range(_STEPS):
            before = z[alive]
            loss, gradient = self._input_gradient(before, _REAL)
            first[alive] += (1 - _BETA_1) * (gradient - first[alive])
            second[alive] += (1 - _BETA_2) * (gradient**2 - second[alive])
            # A cosine of period 2 x 10 within 100 steps: the rate goes to 0 and back every 20 steps.
            rate = _ASCENT_RATE * (1 + np.cos(np.pi * step / _COSINE_PERIOD)) / 2
            scale = np.sqrt(second[alive]) / np.sqrt(1 - _BETA_2 ** (step + 1)) + _EPSILON
            after = before - rate / (1 - _BETA_1 ** (step + 1)) * first[alive] / scale
            if self.quirks.clamp:
                after = np.clip(after, 0.0, 1.0)
            z[alive] = after
            small = (np.abs(after - before) < tolerance).all(axis=1)
            if self.quirks.stop_on_small_decrease:
                decrease = last_loss[alive] - loss
                small |= (decrease > 0) & (decrease < tolerance)
            last_loss[alive] = loss
            calm[alive] = np.where(small, calm[alive] + 1, 0)
            alive = alive[calm[alive] <= _PATIENCE]
            if not len(alive):
                break
        return z


def initial_weights(shapes: list[tuple[int, int]], *, seed: int) -> Array:
    """Return the flat weights and biases the release starts from: uniform in ±1/sqrt(inputs), float32 draws.

    Its framework draws 24 bits of the Mersenne Twister a number; before the model is made, the two data loaders have
    taken a 64-bit number each.
    """
    count = sum(rows * columns + rows for rows, columns in shapes)
    words = np.random.RandomState(seed).randint(0, 2**32, 4 + count, dtype=np.uint32)[4:]
    uniform = (words & 0xFFFFFF).astype(np.float32) * np.float32(2.0**-24)
    bounds = np.concatenate(
        [np.full(rows * columns + rows, 1 / np.sqrt(columns), dtype=np.float32) for rows, columns in shapes]
    )
    return np.asarray(uniform * (bounds + bounds) - bounds, dtype=np.float64)


def _cross_entropy(p: Array, target: Array | float) -> Array:
    # The framework's loss cuts logarithms at -100.
    with np.errstate(divide="ignore"):
        real, fake = np.maximum(np.log(p), -100.0), np.maximum(np.log1p(-p), -100.0)
    return np.asarray(-(target * real + (1 - target) * fake))
