"""What makes a window abnormal: each feature's part in it, and how far it is from the nearest window that looks normal.

The network of ``gon``, read for a window or two at a time.  With ``D_s = kappa_s - g_s²`` and ``C_sk = g_s * c_sk`` a
scale has the energy ::

    e_s = kappa_s ||x_s||² - sum_h D_sh p_sh² + min_k (||c_sk||² - 2 C_sk p_s)

and a step of ``Discriminator.generate`` leads, wherever it begins, to ``r_j R_j' u`` on each block of rows j, with ::

    w_s = 2 v_s / (tau_s + e_s)       u_s = w_s (D_s * p_s + C_sk)       1 / r_j = sum of w_s kappa_s over s that see j

So a window on the way is ``r_j R_j' u`` on each block, its ``p`` is ``sum_j r_j R_j R_j' u``, and a step is a few
products of S H numbers.  While weights and prototypes are taken as they were, it is a single one, and still leads to
where the window looks more normal.  So a climb looks where it is after a few steps only (docs/detection.md).  Training
keeps to plain steps, in ``generate``: what it learns depends on where a few of them lead.

An explanation is some seventy calls of numpy on small arrays, and their number is what it takes.  So scales lie side by
side in one array, what is found of two windows is found at once, and arrays that meet have the same shape: to stretch
one to the size of the other takes as long again.

Sums are float32: windows are clipped, and a cause needs no more.  This module does not know rows of a stream, names or
units (``detector``).  Another form of the energy changes it as it changes ``gon``.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from gon_edge.model.gon import Discriminator, Float

_LOOKS, _STEPS_A_LOOK = 6, 5
"""How often a climb looks where it is, and how many steps lead from one look to the next.  On four sets with labels for
each feature, climbs take 3 to 5 looks in the mean; with more or fewer, causes are as good (docs/detection.md)."""

_MOST_KEPT = 16
"""Explainers that are kept at a time, some 90 KiB each for any number of features.  Not critical: where more streams
are in alarm at once, one that was not kept is made anew, in less time than an explanation takes."""

_LEAST_EXCESS = 1e-9
"""Weight in the causes of a window that is as normal as a typical one: with two such, each counts half."""

_LEAST_GAIN = 1e-30
"""A gain that is none: its inverse must be a float32, or 0 times infinity would be the part of a feature."""

_BY_CLIMB, _AT_SIGHT = (0.5, 0.5), (0.75, 0.25)
"""How much moving a feature to its mean says, and moving it to where the window would look normal: of the last window,
and of the one before, which is not climbed from.  There, with a half instead of a quarter, and with none, the features
named were less often the right ones (docs/detection.md)."""

_TINY = float(np.finfo(np.float32).tiny)

_NOTHING, _LEAST = np.zeros((), np.float32), np.ones((), np.float32)
"""Of gains and energies: what is below comes of rounding.  Arrays, which meet others in half the time of numbers."""

_LEAST_SHARE = 1e-20
"""Of a scale without a share, so that rows that it alone sees have somewhere to go.  Not critical: nothing beside 1."""


class _Step(NamedTuple):
    """Places in the row space, ``r_j R_j' u`` on each block of rows j: where the next step leads from N windows."""

    u: Float
    """(N, S * H)."""
    rate: Float
    """r, (N, J)."""


class _Found(NamedTuple):
    """What N windows are judged by, side by side in one array, and what of the network meets it, once for each."""

    squares: Float
    """p * p, (N, S * H)."""
    lengths: Float
    """||x_j||², (N, J)."""
    p: Float
    """(N, S * H)."""
    for_energies: Float
    """The first two and 1, (N, S * H + J + 1)."""
    for_distances: Float
    """1 and the last, (N, 1 + S * H)."""
    first: NDArray[np.intp]
    """Of the prototypes of each scale among all of N windows, (N, S)."""
    steepness: Float
    """2 v / tau, (N, S)."""
    damping: Float
    """D, (N, S * H)."""


@dataclass(slots=True, eq=False)
class Look:
    """What :meth:`Explainer.look` finds in N windows.

    Attributes
    ----------
    windows : ndarray, shape (N, W, F)
        The windows themselves: a view.
    abnormality : list of N floats
        ``bias - D``.
    step : _Step
        Where the first step of a climb leads.
    away : ndarray, shape (N, W, F)
        How far the values are from there.
    stiffness : ndarray, shape (N, W)
        1 / r of each row: dD/dx is ``-stiffness * away``.
    """

    windows: Float
    abnormality: list[float]
    step: _Step
    away: Float
    stiffness: Float


class Explainer:
    """Looks at windows of one network, climbs from them, and says which features make them abnormal.

    Parameters
    ----------
    net : Discriminator
        What it holds of it are its arrays: an explainer does not keep a network alive.

    Notes
    -----
    For one thread at a time: what it finds of windows is written where it found that of the windows before.
    """

    def __init__(self, net: Discriminator) -> None:
        scales, features, window = net.scales, net.features, net.window
        count = len(scales)
        hidden = max(len(scale.gain) for scale in scales)
        most = max(len(scale.prototypes) for scale in scales)
        units = count * hidden
        self._shape = (-1, window, features)
        self._by_prototype = (-1, count, most)
        # Scales with fewer units or prototypes than others are filled up with such as are never near.
        damping = np.zeros((count, hidden), np.float32)
        centres = np.zeros((count, most, hidden), np.float32)
        lengths = np.full((count, most), np.inf, np.float32)
        for s, scale in enumerate(scales):
            size, prototypes = len(scale.gain), len(scale.prototypes)
            damping[s, :size] = scale.kappa - scale.gain.astype(np.float64) ** 2
            centres[s, :prototypes, :size] = scale.gain * scale.prototypes
            lengths[s, :prototypes] = np.einsum("kh,kh->k", scale.prototypes, scale.prototypes)
        kappa, tau, self._share = np.array([(scale.kappa, scale.tau, scale.share) for scale in scales], np.float32).T
        sees = np.triu(np.ones((count, count), np.float32))[::-1]  # (J, S), oldest block first: it lies inside scale s
        # A scale's energy is in units of its tau, and 1 more.
        self._energies = np.vstack([-_diagonal(damping[:, None]), sees * kappa, tau]) / tau
        self._distances = np.vstack([lengths.reshape(1, -1), -2.0 * _diagonal(centres)]) / np.repeat(tau, most)
        self._centres = centres.reshape(-1, hidden)  # (SK, H)
        self._curvature = (sees * kappa).T.copy()  # (S, J)
        self._of_scale = np.repeat(np.eye(count, dtype=np.float32), hidden, axis=1)  # (S, SH)
        steepness = np.maximum(2.0 * self._share, _LEAST_SHARE) / tau
        self._found = {windows: _found(windows, damping.ravel(), steepness, most) for windows in (1, 2)}
        rows = np.array([*(window - scale.rows for scale in scales[::-1]), window])
        self._block_of = np.repeat(np.arange(count), np.diff(rows))  # (W,)
        self._in_block = np.eye(count, dtype=np.float32)[self._block_of]  # (W, J)
        self._of_features = np.ones(features, np.float32)
        edges = (rows * features).tolist()
        own = [slice(s * hidden, s * hidden + len(scale.gain)) for s, scale in enumerate(scales)]
        self._layers = list(zip(own, net.basis, edges[-2::-1], strict=True))  # shortest scale first
        gram = np.stack([self._inner_products(units, *block) for block in pairwise(edges)])
        self._gram, self._gram_of_block = gram.reshape(-1, units), gram.reshape(count, -1)  # (J SH, SH), (J, SH SH)

    def _inner_products(self, units: int, begin: int, end: int) -> Float:
        """``R_j R_j'`` (SH, SH) of a block of rows, by where its values lie in a window."""
        rows = np.zeros((units, end - begin), np.float32)
        for own, basis, seen in self._layers:
            if seen <= begin:
                rows[own] = basis[:, begin - seen : end - seen]
        return rows @ rows.T

    def explain(self, rows: Float, typical: float) -> tuple[Float, Float]:
        """What makes a window abnormal, and the window before it.

        Parameters
        ----------
        rows : ndarray, shape (N * W, F)
            Contiguous and standardised; N is 2, or 1 where nothing is known of the window before.
        typical : float
            Abnormality of a normal window.

        Returns
        -------
        away : ndarray, shape (N, W, F)
            How far the values of the last window are from the nearest window that looks normal, and those of the window
            before from where the first step of a climb leads.
        parts : ndarray, shape (F,)
            Of each feature; they sum to what the windows have above a typical one, or to 0 where nothing would help.

        Notes
        -----
        A feature's part is, half by half, what moving it alone to its values in the nearest window would gain, and what
        moving it to its mean.  The generated window meets an abnormal one part of the way and moves calm features
        towards wild ones; the mean does neither, but knows nothing of modes.  Each was better at some faults, both
        together never far from the better one (docs/detection.md).
        """
        look = self.look(rows)
        away = look.away.copy()
        away[-1] = self.climb(look, typical)
        gains = np.empty((len(away), 2, self._shape[2]), np.float32)
        stiffness = look.stiffness[:, None]
        np.matmul(stiffness, look.windows * look.away, out=gains[:, :1])  # to the mean
        np.matmul(stiffness, away * look.away, out=gains[:, 1:])  # to where it looks normal
        np.maximum(gains, _NOTHING, out=gains)  # a feature that loses counts as 0
        weights: list[float] = []
        says = (_AT_SIGHT, _BY_CLIMB)[-len(away) :]
        for said, found, abnormality in zip(says, np.add.reduce(gains, axis=2).tolist(), look.abnormality, strict=True):
            (by_mean, by_normal), (to_mean, to_normal) = said, found
            if to_mean < _LEAST_GAIN:
                by_mean, to_mean = 0.0, 1.0
            if to_normal < _LEAST_GAIN:
                by_normal, to_normal = 0.0, 1.0
            excess = max(abnormality - typical, _LEAST_EXCESS) / (by_mean + by_normal or 1.0)
            weights += excess * by_mean / to_mean, excess * by_normal / to_normal
        parts: Float = np.array(weights, np.float32).dot(gains.reshape(len(weights), -1))
        return away, parts

    def look(self, rows: Float) -> Look:
        """Look at one window or two, rows (N * W, F), contiguous and standardised."""
        windows = rows.reshape(self._shape)
        count = len(windows)
        flat = rows.reshape(count, -1)
        found = self._found[count]
        p = found.p
        for units, basis, begin in self._layers:
            p[:, units] = flat[:, begin:].dot(basis.T)
        of_rows = (rows * rows).dot(self._of_features).reshape(count, -1)
        found.lengths[:] = of_rows.dot(self._in_block)  # ||x_j||²
        abnormality, energy, nearest = self._judge(found)
        pull, towards, rate = self._slope(found, energy, nearest)
        pull *= p
        pull += towards
        step = _Step(pull, rate)
        by_row = rate.take(self._block_of, axis=1)
        return Look(windows, abnormality, step, self._away(windows, step.u, by_row), np.reciprocal(by_row))

    def climb(self, look: Look, typical: float, *, looks: int = _LOOKS) -> Float:
        """How far the last window is from the nearest one that looks normal.

        That is as far up the slope as it takes to be no more abnormal than typical, in so many looks at most.

        Parameters
        ----------
        look : Look
            The first look, from which one step leads.
        typical : float
        looks : int

        Returns
        -------
        ndarray, shape (W, F)
            0 for a window that is typical.
        """
        if look.abnormality[-1] <= typical:
            return np.zeros(self._shape[1:], np.float32)
        before, u, rate = look.abnormality[-1], look.step.u[-1], look.step.rate[-1]
        one: Float | None = None  # where one step led, of those since the last look
        found = self._found[1]
        p, lengths = found.p[0], found.lengths[0]
        for _ in range(looks - 1):
            seen = self._gram.dot(u).reshape(len(rate), -1)  # R_j R_j' u (J, SH)
            rate.dot(seen, out=p)
            np.multiply(rate * rate, seen.dot(u), out=lengths)
            (abnormality,), energy, nearest = self._judge(found)
            if abnormality <= typical:
                if one is not None:  # it went too far: the steps since the last look are of one line, nearly
                    u = one + (before - typical) / (before - abnormality) * (u - one)
                break
            before = abnormality
            pull, towards, rate = (each[0] for each in self._slope(found, energy, nearest))
            seen = rate.dot(self._gram_of_block).reshape(len(u), -1)  # of all blocks (SH, SH)
            u = one = pull * p + towards
            for _ in range(_STEPS_A_LOOK - 1):
                u = pull * seen.dot(u) + towards
        away: Float = look.away[-1]
        if one is not None:
            away = self._away(look.windows[-1:], u[None], rate.take(self._block_of)[None])[0]
        return away

    def _judge(self, found: _Found) -> tuple[list[float], Float, NDArray[np.intp]]:
        """Abnormality, ``1 + e / tau`` (N, S) and prototypes (N, S), by what is found of N windows."""
        np.multiply(found.p, found.p, out=found.squares)
        near = found.for_distances.dot(self._distances)
        nearest = near.reshape(self._by_prototype).argmin(axis=2)
        nearest += found.first
        energy = found.for_energies.dot(self._energies)
        energy += near.take(nearest)
        np.maximum(energy, _LEAST, out=energy)  # rounding
        return np.log(energy).dot(self._share).tolist(), energy, nearest

    def _slope(self, found: _Found, energy: Float, nearest: NDArray[np.intp]) -> tuple[Float, Float, Float]:
        """Where steps lead from windows that were just judged: ``u = pull * p + towards``, and the rate."""
        weight = found.steepness / energy
        pull = weight.dot(self._of_scale)
        towards = self._centres.take(nearest, axis=0, mode="wrap").reshape(len(energy), -1)
        towards *= pull
        pull *= found.damping
        return pull, towards, np.reciprocal(weight.dot(self._curvature))

    def _away(self, windows: Float, u: Float, rate: Float) -> Float:
        """How far windows (N, W, F) are from ``r R' u``, by the rate of each row (N, W)."""
        flat = np.empty((len(u), windows[0].size), np.float32)
        for units, basis, begin in self._layers[::-1]:
            if begin:
                seen = flat[:, begin:]
                seen += u[:, units].dot(basis)
            else:
                u[:, units].dot(basis, out=flat)
        there = flat.reshape(windows.shape)
        there *= rate[:, :, None]
        return np.subtract(windows, there, out=there)


def _found(windows: int, damping: Float, steepness: Float, prototypes: int) -> _Found:
    """Room for what is found of so many windows."""
    units, scales = len(damping), len(steepness)
    found = np.ones((windows, 2 * units + scales + 1), np.float32)
    return _Found(
        squares=found[:, :units],
        lengths=found[:, units : units + scales],
        p=found[:, -units:],
        for_energies=found[:, :-units],
        for_distances=found[:, -units - 1 :],
        first=np.arange(windows * scales).reshape(windows, scales) * prototypes,
        steepness=np.stack([steepness] * windows),
        damping=np.stack([damping] * windows),
    )


def _diagonal(parts: Float) -> Float:
    """(S * H, S * N) with the transpose of each of the parts (S, N, H) where its scale meets itself, 0 elsewhere."""
    scales, rows, columns = parts.shape
    whole = np.zeros((scales, columns, scales, rows), np.float32)
    for s, part in enumerate(parts):
        whole[s, :, s] = part.T
    return whole.reshape(scales * columns, scales * rows)


def normalised(parts: Float) -> NDArray[np.float64]:
    """Parts (F,) of 1, or of 0 where all are 0."""
    exact = parts.astype(np.float64)
    exact /= max(sum(exact.tolist()), _TINY)
    return exact


_kept: WeakKeyDictionary[Discriminator, Explainer] = WeakKeyDictionary()


def explainer(net: Discriminator) -> Explainer:
    """The explainer of a network: one that is kept, or a new one, which is kept until :func:`forget`."""
    found = _kept.get(net)
    if found is None:
        if len(_kept) >= _MOST_KEPT:
            del _kept[next(iter(_kept.keys()))]
        found = _kept[net] = Explainer(net)
    return found


def forget(net: Discriminator) -> None:
    """Give back what is kept for a network, until its next explanation."""
    _kept.pop(net, None)
