"""The network: one discriminator that is its own generator, by gradient steps on its input.

The network sees a window x (W, F) of standardised rows on several scales: the last 1, 5, 15, ... rows.  On scale s,
with ``x_s`` those rows flattened::

    p_s = R_s x_s                                        first layer, H units, orthonormal rows (int8 in the file)
    e_s = min_k ||g_s * p_s - c_sk||²                    prototypes c_s1 ... c_sK: where normal windows are
          + kappa_s (||x_s||² - ||p_s||²)                and what the first layer does not see
    D(x) = bias - sum_s v_s log(1 + e_s / tau_s)         the logit; sigmoid(D) is the probability of "normal"

Each scale is, up to constants, the negative log-likelihood of a mixture of Student-t distributions with a low-rank
covariance.  Its tails are heavy, so one wild sensor does not drown the scales that are calm.  Principal subspaces give
R, g and kappa, k-means gives c: that alone is a good detector.  Adversarial training moves c and the bias.  The gains g
and the shares v stay as they are, because moving them made detection of real faults worse (docs/detection.md).

A row's score also counts how far it lies from what the row before foretold (`prediction`); D does not.

``generate`` climbs D from given windows: the GON step.  The whole climb happens in the row space of the first layer
(ARCHITECTURE.md, D4).  The window stays ``beta_j x_j + sum_s R_sj' a_js`` on each block of rows j, so a step costs
(S H)² instead of W F H, and windows are only built again at the end.

This module does not know how parameters are found (``training.fit``), what a score is worth (``training.threshold``) or
what a file looks like (``model.file``).  A new parameter of a scale changes the file, too.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from gon_edge.model.prediction import Forecast, Prediction
from gon_edge.model.quantize import QuantizedLinear, orthonormal_rows

Float = NDArray[np.float32]
_Number = TypeVar("_Number", float, Float, NDArray[np.float64])


@dataclass(frozen=True, slots=True)
class Scale:
    """The discriminator's parameters on one scale.

    Attributes
    ----------
    rows : int
        How many of the newest rows it sees.
    weight : QuantizedLinear, (H, rows * F)
        First layer; its rows span the principal subspace.
    gain : ndarray of float32, shape (H,)
    prototypes : ndarray of float32, shape (K, H)
    kappa : float
        Weight of the residual.
    tau : float
        Energy at which the scale starts to count; a quantile of held-out training energies.
    share : float
        v, weight of the scale in the logit.
    """

    rows: int
    weight: QuantizedLinear
    gain: Float
    prototypes: Float
    kappa: float
    tau: float
    share: float


class Discriminator:
    """The network of the module header, ready to use.

    Parameters
    ----------
    scales : sequence of Scale
        Shortest first; the last one's ``rows`` is W.
    features : int
        F.
    bias : float
    prediction : Prediction, optional
        Counts in scores beside D.  The first scale has one row then, and the last one more.

    Attributes
    ----------
    window, features : int
    scales : tuple of Scale
    prediction : Prediction or None
    """

    def __init__(
        self, scales: Sequence[Scale], features: int, bias: float, prediction: Prediction | None = None
    ) -> None:
        self.scales = tuple(scales)
        self.features = features
        self.bias = bias
        self.window = self.scales[-1].rows
        self._basis = tuple(orthonormal_rows(scale.weight.dequantize()) for scale in self.scales)  # (H, rows*F) each
        self._shares = float(self._share.sum())
        self.prediction = prediction
        self._forecast = None if prediction is None else Forecast(prediction, self._basis[0])
        self._one: _OneWindow | None = None  # made with the first window: training makes many that never see one

    @property
    def basis(self) -> tuple[Float, ...]:
        """The first layers R_s, (H, rows * F) each, shortest scale first."""
        return self._basis

    @property
    def _tau(self) -> NDArray[np.float64]:
        return np.array([scale.tau for scale in self.scales])  # (S,)

    @property
    def _share(self) -> NDArray[np.float64]:
        return np.array([scale.share for scale in self.scales])  # (S,)

    def with_less_memory(self) -> Discriminator:
        """The same network, which makes its int8 weights of the first layer when somebody asks for them."""
        other = copy(self)
        other.scales = tuple(
            replace(scale, weight=scale.weight.spanned_by(basis))
            for scale, basis in zip(self.scales, self._basis, strict=True)
        )
        return other

    def with_parameters(self, parameters: dict[str, NDArray[np.floating]]) -> Discriminator:
        """A copy with other trained parameters, in the form of :meth:`parameters`; all else is shared."""
        other = copy(self)
        other._one = None
        other.scales = tuple(
            replace(scale, prototypes=parameters[f"prototypes{s}"].astype(np.float32))
            for s, scale in enumerate(self.scales)
        )
        other.bias = float(parameters["bias"][0])
        return other

    def with_levels(self, tau: NDArray[np.floating]) -> Discriminator:
        """A copy whose terms count from energies ``tau`` (E,) on."""
        other = copy(self)
        other._one = None
        count = len(self.scales)
        other.scales = tuple(replace(scale, tau=float(t)) for scale, t in zip(self.scales, tau[:count], strict=True))
        if self.prediction is not None:
            other.prediction = replace(self.prediction, tau=float(tau[count]))
        return other

    def with_prediction(self, prediction: Prediction) -> Discriminator:
        """A copy whose scores count how far rows are from what the ones before foretold."""
        other = copy(self)
        other._one = None
        other.prediction, other._forecast = prediction, Forecast(prediction, self._basis[0])
        return other

    @property
    def terms(self) -> tuple[Scale | Prediction, ...]:
        """What the E energies are of: the S scales, and the prediction where there is one."""
        return self.scales if self.prediction is None else (*self.scales, self.prediction)

    def parameters(self) -> dict[str, NDArray[np.floating]]:
        """What adversarial training moves: ``prototypes0`` (K, H), ``prototypes1``, ..., and ``bias`` (1,)."""
        prototypes = {f"prototypes{s}": scale.prototypes.astype(np.float64) for s, scale in enumerate(self.scales)}
        return {**prototypes, "bias": np.array([self.bias])}

    # -- forward and its gradients, in the same order and with the same names ------------------------------------------

    def hidden(self, x: Float) -> list[Float]:
        """``g_s * p_s`` of windows (N, W, F): one array (N, H) for each scale."""
        return [self._project(x, s)[1] * scale.gain for s, scale in enumerate(self.scales)]

    def energies(self, x: Float) -> Float:
        """e_s of each window, and what was not foretold of its last row.

        Parameters
        ----------
        x : ndarray, shape (N, W, F)

        Returns
        -------
        ndarray, shape (N, E)
        """
        energy = np.empty((len(x), len(self.terms)), np.float32)
        for s, scale in enumerate(self.scales):
            seen = self._see(x, s)
            energy[:, s] = _energy(seen.closest, scale.kappa, np.maximum(seen.unseen, 0.0))
        if self._forecast is not None:
            energy[:, -1] = self._forecast.energies(x)
        return energy

    def energies_one(self, view: Float) -> list[float]:
        """The E energies of a single window (W, F): what :meth:`energies` gives, in a third of the time.

        Its products are the only ones written out twice: those of BLAS for vectors, which do not take a batch.  What is
        left is done for all scales at once.
        """
        if self._one is None:
            self._one = _OneWindow(self.scales, self._basis, self._forecast)
            self.scales = self._one.scales  # the same parameters, and no second copy of them
        return self._one.energies(view.reshape(-1))

    def forward(self, x: Float) -> NDArray[np.float64]:
        """The logit D(x) of each window (N, W, F), shape (N,): high is normal."""
        return self.bias - self.abnormality(self.energies(x))

    def abnormality(self, energies: NDArray[np.floating]) -> NDArray[np.float64]:
        """``sum_s v_s log(1 + e_s / tau_s)`` for energies (..., E): ``bias - D``, which knows no prediction."""
        terms = self._share * np.log1p(energies[..., : len(self.scales)].astype(np.float64) / self._tau)
        abnormality: NDArray[np.float64] = terms @ np.ones(len(self.scales))
        return abnormality

    def abnormality_after_restart(
        self, energies: NDArray[np.floating], age: NDArray[np.integer], typical: float
    ) -> NDArray[np.float64]:
        """:meth:`abnormality_one` of N windows: energies (N, E), ages (N,); shape (N,), equal to the last bit."""
        ratios = energies.astype(np.float64) / np.array([term.tau for term in self.terms])
        # With AVX-512 NumPy's logarithm is another than math's, in the last bit.
        logs = np.fromiter(map(math.log1p, ratios.flat), np.float64, ratios.size).reshape(ratios.shape)
        share = np.array([term.share for term in self.terms])
        abnormality: NDArray[np.float64] = (share * logs).sum(axis=1)  # a product adds in another order
        for t in np.flatnonzero(age < self.window):
            abnormality[t] = self.abnormality_one(energies[t].tolist(), int(age[t]), typical)
        return abnormality

    def abnormality_one(self, energies: Sequence[float], age: int, typical: float) -> float:
        """The score before smoothing, by the energies (E,) of a window that ends at the ``age``-th row of a piece.

        A scale whose rows are not all there yet sees repetitions of the first row, as no normal window does.  Until
        they are there it counts as in a window of abnormality ``typical``.  Taken at its word, such a scale gave every
        calm stream false alarms after each restart, and the one at the start of the training rows set the threshold of
        a short record.
        """
        abnormality = 0.0
        for energy, term in zip(energies, self.terms, strict=True):
            if age >= term.rows:
                abnormality += term.share * math.log1p(energy / term.tau)  # NumPy takes ten times as long for one
            else:
                abnormality += typical * term.share / self._shares
        return abnormality

    def input_gradient(self, x: Float) -> Float:
        """dD/dx for windows (N, W, F), same shape."""
        gradient = np.zeros((len(x), self.window * self.features), np.float32)
        for s, (scale, basis) in enumerate(zip(self.scales, self._basis, strict=True)):
            seen = self._see(x, s)
            energy = _energy(seen.closest, scale.kappa, seen.unseen)  # (N,)
            d_energy = -scale.share / (scale.tau + energy)  # (N,)
            d_p = 2.0 * (scale.gain * seen.gap - scale.kappa * seen.p)  # (N, H)
            gradient[:, -seen.x.shape[1] :] += d_energy[:, None] * (d_p @ basis + 2.0 * scale.kappa * seen.x)
        return gradient.reshape(x.shape)

    def weight_gradient(self, x: Float, d_logit: NDArray[np.floating]) -> dict[str, NDArray[np.float64]]:
        """Gradient of ``sum_n d_logit_n D(x_n)`` with respect to :meth:`parameters`, same keys and shapes.

        Parameters
        ----------
        x : ndarray, shape (N, W, F)
        d_logit : ndarray, shape (N,)
        """
        gradient = {key: np.zeros_like(value) for key, value in self.parameters().items()}
        for s, scale in enumerate(self.scales):
            seen = self._see(x, s)
            energy = _energy(seen.closest, scale.kappa, seen.unseen)  # (N,)
            d_energy = d_logit * -scale.share / (scale.tau + energy)  # (N,)
            np.add.at(gradient[f"prototypes{s}"], seen.nearest, -2.0 * d_energy[:, None] * seen.gap)
        gradient["bias"][0] = d_logit.sum()
        return gradient

    def nearest_prototypes(self, x: Float) -> NDArray[np.intp]:
        """Which prototype of the longest scale each window (N, W, F) is nearest to, shape (N,)."""
        return self._see(x, len(self.scales) - 1).nearest

    def _project(self, x: Float, s: int) -> tuple[Float, Float]:
        """``x_s`` (N, rows * F) and ``p_s`` (N, H) of windows (N, W, F)."""
        x_s = x[:, self.window - self.scales[s].rows :].reshape(len(x), -1)
        return x_s, x_s @ self._basis[s].T

    def _see(self, x: Float, s: int) -> _Seen:
        """What scale ``s`` sees of windows (N, W, F): everything its energy and their gradients are made of."""
        scale = self.scales[s]
        x_s, p = self._project(x, s)
        u = p * scale.gain
        nearest = _nearest(u, scale.prototypes)
        gap = u - scale.prototypes[nearest]
        return _Seen(
            x=x_s,
            p=p,
            nearest=nearest,
            gap=gap,
            closest=np.einsum("nh,nh->n", gap, gap),
            unseen=np.einsum("nd,nd->n", x_s, x_s) - np.einsum("nh,nh->n", p, p),
        )

    # -- generation ----------------------------------------------------------------------------------------------------

    def generate(self, x: Float, *, steps: int) -> Float:
        """Climb D from each window, to one that looks more normal.

        Plain gradient ascent; the step of each window and row is the inverse of a bound on the curvature there, so D
        never falls and no rate has to be chosen.  Plain, because Adam moves every feature alike, and the moves are what
        is learned from.  ``explain`` climbs likewise from a window that people ask about, and stops.

        Parameters
        ----------
        x : ndarray, shape (N, W, F)
            Where to start: distorted windows, or noise.
        steps : int

        Returns
        -------
        ndarray, shape (N, W, F)
            A new array.
        """
        blocks = _blocks([scale.rows for scale in self.scales], self.window)
        space = _RowSpace(self._basis, blocks, self.features)
        tau, share = self._tau, self._share
        kappa = np.array([scale.kappa for scale in self.scales])
        gain = np.concatenate([scale.gain for scale in self.scales])
        sees = space.sees  # (J, S): block j lies inside scale s
        hidden = space.hidden  # lengths of the scales' slices of the S*H hidden units
        q, norm = space.project(x)  # (N, J, SH), (N, J)
        beta = np.ones(norm.shape)  # (N, J)
        a = np.zeros_like(q)  # (N, J, SH)
        for _ in range(steps):
            m = np.einsum("jhi,nji->njh", space.gram, a)  # R_j R_j' a_j  (N, J, SH)
            p = (beta[..., None] * q + m).sum(axis=1)  # (N, SH)
            length = beta**2 * norm + 2.0 * beta * (q * a).sum(axis=2) + (a * m).sum(axis=2)  # ||x_j||²  (N, J)
            gap = np.concatenate(
                [
                    _nearest_gap(p_s * scale.gain, scale.prototypes)
                    for p_s, scale in zip(np.split(p, hidden[1:-1], axis=1), self.scales, strict=True)
                ],
                axis=1,
            )  # (N, SH)
            starts = hidden[:-1]
            unseen = length @ sees - np.add.reduceat(p * p, starts, axis=1)  # (N, S)
            energy = _energy(np.add.reduceat(gap * gap, starts, axis=1), kappa, np.maximum(unseen, 0.0))
            d_energy = share / (tau + energy)  # (N, S)
            shrink = 2.0 * (d_energy * kappa) @ sees.T  # (N, J): curvature of the rows of block j
            rate = 1.0 / np.maximum(shrink, 1e-12)  # (N, J)
            d_p = (
                2.0
                * np.repeat(d_energy, np.diff(hidden), axis=1)
                * (gain * gap - np.repeat(kappa, np.diff(hidden)) * p)
            )
            keep = 1.0 - rate * shrink  # (N, J)
            beta = keep * beta
            a = keep[..., None] * a - rate[..., None] * d_p[:, None] * space.sees_hidden
        return space.rebuild(x, beta, a)

    def impute(self, row: Float, masked: NDArray[np.bool_], *, steps: int = 8) -> Float:
        """The row (F,) with its masked features generated from the others on the scale of one row; a new array."""
        scale, basis = self.scales[0], self._basis[0]
        row = np.where(masked, 0.0, row).astype(np.float32)
        for _ in range(steps):
            p = basis.dot(row)
            gap = _nearest_gap((p * scale.gain)[None], scale.prototypes)[0]
            half_gradient = (scale.gain * gap - scale.kappa * p) @ basis + scale.kappa * row
            row = np.where(masked, row - half_gradient / scale.kappa, row).astype(np.float32)
        return row


class _Seen(NamedTuple):
    """One scale of :class:`Discriminator` on N windows, up to the energy."""

    x: Float
    """``x_s``, (N, rows * F)."""
    p: Float
    """``p_s``, (N, H)."""
    nearest: NDArray[np.intp]
    """Index of the nearest prototype, (N,)."""
    gap: Float
    """``g_s * p_s`` less the nearest prototype, (N, H)."""
    closest: Float
    """``||gap||²``, (N,)."""
    unseen: Float
    """``||x_s||² - ||p_s||²``, (N,); rounding may leave it a little below 0."""


class _OneWindow:
    """What :class:`Discriminator` needs for one window: the scales' units side by side, filled up with zeros.

    A scale with fewer prototypes has its first one several times.

    Attributes
    ----------
    scales : tuple of Scale
        With gains and prototypes that are views of those here.
    """

    def __init__(self, scales: Sequence[Scale], basis: Sequence[Float], forecast: Forecast | None) -> None:
        units = max(len(each) for each in basis)
        most = max(len(scale.prototypes) for scale in scales)
        self._p = np.zeros((len(scales), 1, units), np.float32)
        self._gain = np.zeros_like(self._p)
        self._prototypes = np.zeros((len(scales), most, units), np.float32)
        self._products, own_scales = [], []
        for s, (scale, each) in enumerate(zip(scales, basis, strict=True)):
            own = slice(len(each))
            self._gain[s, 0, own] = scale.gain
            self._prototypes[s, :, own] = scale.prototypes[0]
            self._prototypes[s, : len(scale.prototypes), own] = scale.prototypes
            self._products.append((-each.shape[1], each.dot, self._p[s, 0, own], scale.kappa))
            prototypes = self._prototypes[s, : len(scale.prototypes), own]
            own_scales.append(replace(scale, gain=self._gain[s, 0, own], prototypes=prototypes))
        self.scales = tuple(own_scales)
        self._forecast = forecast

    def energies(self, flat: Float) -> list[float]:
        """Energies of the window at the end of rows (R * F,), one number for each term."""
        unseen = []
        for start, project, p, kappa in self._products:
            x_s = flat[start:]
            project(x_s, p)
            unseen.append(kappa * max(float(x_s.dot(x_s)) - float(p.dot(p)), 0.0))
        gap = self._p * self._gain - self._prototypes  # (S, K, H)
        distances = np.einsum("skh,skh->sk", gap, gap).tolist()
        energies = [min(near) + far for near, far in zip(distances, unseen, strict=True)]
        if self._forecast is not None:
            energies.append(self._forecast.energy_one(flat))
        return energies


def _energy(closest: _Number, kappa: Any, unseen: _Number) -> _Number:
    """e_s of the module header, from what :class:`_Seen` says: of a batch, of one window, and in the row space."""
    energy: _Number = closest + kappa * unseen
    return energy


def _nearest(u: NDArray[np.floating], prototypes: Float) -> NDArray[np.intp]:
    """Index of the prototype nearest to each u (N, H), shape (N,)."""
    gap = u[:, None] - prototypes  # (N, K, H)
    nearest: NDArray[np.intp] = np.einsum("nkh,nkh->nk", gap, gap).argmin(axis=1)
    return nearest


def _nearest_gap(u: NDArray[np.floating], prototypes: Float) -> NDArray[np.floating]:
    """``u - c`` for the nearest prototype c, shape (N, H)."""
    return u - prototypes[_nearest(u, prototypes)]


def _blocks(rows: Sequence[int], window: int) -> list[slice]:
    """Rows of a window between the scales' borders, newest block first: block j is seen by scales j, j+1, ..."""
    borders = [0, *rows]
    return [slice(window - borders[j + 1], window - borders[j]) for j in range(len(rows))]


class _RowSpace:
    """What a climb needs of the first layer: its rows, cut into blocks of window rows, and their inner products.

    Hidden units of all scales are laid side by side (SH of them); a unit of scale s is zero on blocks s does not see.
    """

    def __init__(self, basis: tuple[Float, ...], blocks: list[slice], features: int) -> None:
        self.hidden = np.cumsum([0, *(len(b) for b in basis)])
        scales = len(basis)
        self.sees = np.array([[float(s >= j) for s in range(scales)] for j in range(scales)])
        self.sees_hidden = np.repeat(self.sees, np.diff(self.hidden), axis=1)[None]  # (1, J, SH)
        self.blocks = blocks
        window = blocks[0].stop
        # For each block, the scales that see it: where their units stand among all, and their weights there.  Views of
        # the first layer: a copy would double the model.
        self.parts: list[list[tuple[slice, Float]]] = []
        for block in blocks:
            seen = []
            for s, b in enumerate(basis):
                before = window - b.shape[1] // features  # window rows this scale does not see
                if block.start >= before:
                    columns = slice((block.start - before) * features, (block.stop - before) * features)
                    seen.append((slice(self.hidden[s], self.hidden[s + 1]), b[:, columns]))
            self.parts.append(seen)
        self.gram = np.zeros((len(blocks), self.hidden[-1], self.hidden[-1]), np.float32)  # (J, SH, SH)
        for gram, seen in zip(self.gram, self.parts, strict=True):
            for units, weight in seen:
                for other_units, other in seen:
                    gram[units, other_units] = weight @ other.T

    def project(self, x: Float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """``R_j x_j`` (N, J, SH) and ``||x_j||²`` (N, J)."""
        flat = [x[:, block].reshape(len(x), -1) for block in self.blocks]
        q = np.zeros((len(x), len(flat), self.hidden[-1]))
        for j, (x_j, seen) in enumerate(zip(flat, self.parts, strict=True)):
            for units, weight in seen:
                q[:, j, units] = x_j @ weight.T
        norm = np.stack([np.einsum("nd,nd->n", x_j, x_j) for x_j in flat], axis=1)
        return q, norm.astype(np.float64)

    def rebuild(self, x: Float, beta: NDArray[np.float64], a: NDArray[np.float64]) -> Float:
        """The windows ``beta_j x_j + R_j' a_j``, shape (N, W, F)."""
        out = np.empty_like(x, dtype=np.float32)
        a = a.astype(np.float32)
        for j, (block, seen) in enumerate(zip(self.blocks, self.parts, strict=True)):
            moved = sum(a[:, j, units] @ weight for units, weight in seen)
            out[:, block] = beta[:, j, None, None] * x[:, block] + np.reshape(moved, x[:, block].shape)
        return out
