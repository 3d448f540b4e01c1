"""What makes a window abnormal: each feature's part in it, and how far it is from the nearest window that looks normal.

The network of ``gon``, read for a window or two at a time.  With ``D_s = kappa_s - g_s²`` and ``C_sk = g_s * c_sk`` a
scale has the energy ::

    e_s = kappa_s ||x_s||² - sum_h D_sh p_sh² + min_k (||c_sk||² - 2 C_sk p_s)

and a step of ``Discriminator.generate`` leads, wherever it begins, to ``r_j R_j' u`` on each block of rows j, with ::

    w_s = 2 v_s / (tau_s + e_s)       u_s = w_s (D_s * p_s + C_sk)       1 / r_j = sum of w_s kappa_s over s that see j

So a window on the way is ``R_j' a_j`` on each block, its ``p`` is ``sum_j R_j R_j' a_j``, and a step is a few products
of S H numbers.  Momentum brings a climb to nearly where plain steps lead in half as many of them (docs/detection.md).
Training keeps to plain steps, in ``generate``: what it learns depends on where a few of them lead.

An explanation is some eighty calls of numpy on small arrays, and their number is what it takes.  So scales lie side by
side in one array, and what is found of two windows is found at once.

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

_CLIMB_STEPS = 12
"""They lead as far as some 40 plain steps.  On four sets with labels for each feature, climbs take 2 to 6 in the mean,
and with 8 the causes are as good (docs/detection.md)."""

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

_MOMENTUM_FROM = 2
"""The k-th step goes on by k / (k + 2) of the one before.  With 1 climbs are a tenth shorter and end twice as far from
where plain steps lead (docs/detection.md)."""

_TINY = float(np.finfo(np.float32).tiny)

_LEAST_SHARE = 1e-20
"""Of a scale without a share, so that rows that it alone sees have somewhere to go.  Not critical: nothing beside 1."""


class _Step(NamedTuple):
    """Places in the row space, ``r_j R_j' u`` on each block of rows j: where the next step leads from N windows."""

    u: Float
    """(N, S * H)."""
    rate: Float
    """r, (N, J)."""


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
    """

    def __init__(self, net: Discriminator) -> None:
        scales, features, window = net.scales, net.features, net.window
        count = len(scales)
        hidden = max(len(scale.gain) for scale in scales)
        most = max(len(scale.prototypes) for scale in scales)
        self._shape = (-1, window, features)
        self._by_scale = (-1, count, hidden)
        self._by_prototype = (-1, count, most)
        # Scales with fewer units or prototypes than others are filled up with such as are never near.
        damping = np.zeros((count, hidden), np.float32)
        centres = np.zeros((count, most, hidden), np.float32)
        lengths = np.full((count, most), np.inf, np.float32)
        for s, scale in enumerate(scales):
            units, prototypes = len(scale.gain), len(scale.prototypes)
            damping[s, :units] = scale.kappa - scale.gain.astype(np.float64) ** 2
            centres[s, :prototypes, :units] = scale.gain * scale.prototypes
            lengths[s, :prototypes] = np.einsum("kh,kh->k", scale.prototypes, scale.prototypes)
        self._centres = centres.reshape(-1, hidden)  # (SK, H)
        self._of_p = -2.0 * _diagonal(centres)  # (SH, SK)
        self._of_squares = -_diagonal(damping[:, None])  # (SH, S)
        tau = np.array([scale.tau for scale in scales], np.float32)
        self._share = np.array([scale.share for scale in scales], np.float32)
        steepness = np.maximum(2.0 * self._share, _LEAST_SHARE)
        # As often as there may be windows: to stretch one to the size of the other takes as long as their sum.
        self._lengths, self._tau, self._steepness, self._damping = (
            np.stack([each, each]) for each in (lengths.ravel(), tau, steepness, damping.ravel())
        )
        self._first_of = np.arange(2 * count).reshape(2, count) * most  # of the prototypes of both
        sees = np.triu(np.ones((count, count), np.float32))[::-1]  # (J, S), oldest block first: it lies inside scale s
        self._of_lengths = sees * np.array([scale.kappa for scale in scales], np.float32)  # (J, S)
        self._curvature = self._of_lengths.T.copy()  # (S, J)
        rows = np.array([*(window - scale.rows for scale in scales[::-1]), window])
        self._block_of = np.repeat(np.arange(count), np.diff(rows))  # (W,)
        edges = (rows * features).tolist()
        self._first = np.concatenate([edges[:-1], np.add(edges[:-1], edges[-1])])  # values of the blocks, two windows
        own = [slice(s * hidden, s * hidden + len(scale.gain)) for s, scale in enumerate(scales)]
        self._layers = list(zip(own, net.basis, edges[-2::-1], strict=True))  # shortest scale first
        self._gram = np.stack([self._inner_products(*block) for block in pairwise(edges)])  # (J, SH, SH)
        self._all_blocks = np.ones((1, count), np.float32)

    def _inner_products(self, begin: int, end: int) -> Float:
        """``R_j R_j'`` (SH, SH) of a block of rows, by where its values lie in a window."""
        rows = np.zeros((len(self._of_p), end - begin), np.float32)
        for units, basis, seen in self._layers:
            if seen <= begin:
                rows[units] = basis[:, begin - seen : end - seen]
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
        stiffness = look.stiffness[:, None]
        gains = np.empty((len(away), 2, self._shape[2]), np.float32)
        np.matmul(stiffness, look.windows * look.away, out=gains[:, :1])
        np.matmul(stiffness, away * look.away, out=gains[:, 1:])
        np.maximum(gains, 0.0, out=gains)  # a feature that loses counts as 0
        weights = []
        says = (_AT_SIGHT, _BY_CLIMB)[-len(away) :]
        for said, found, abnormality in zip(says, np.add.reduce(gains, axis=2).tolist(), look.abnormality, strict=True):
            heard = sum(one for one, gain in zip(said, found, strict=True) if gain > _LEAST_GAIN) or 1.0
            excess = max(abnormality - typical, _LEAST_EXCESS) / heard
            weights += [
                excess * one / gain if gain > _LEAST_GAIN else 0.0 for one, gain in zip(said, found, strict=True)
            ]
        parts: Float = np.array(weights, np.float32).dot(gains.reshape(len(weights), -1))
        return away, parts

    def look(self, rows: Float) -> Look:
        """Look at one window or two, rows (N * W, F), contiguous and standardised."""
        windows = rows.reshape(self._shape)
        count = len(windows)
        flat = rows.reshape(count, -1)
        p = np.zeros((count, len(self._of_p)), np.float32)
        for units, basis, begin in self._layers:
            p[:, units] = flat[:, begin:].dot(basis.T)
        first = self._first[: count * len(self._share)]
        lengths = np.add.reduceat((rows * rows).reshape(-1), first).reshape(count, -1)  # ||x_j||²
        abnormality, energy, nearest = self._judge(p, lengths)
        step = self._next(p, energy, nearest)
        rate = step.rate.take(self._block_of, axis=1)
        return Look(windows, abnormality, step, self._away(windows, step.u, rate), 1.0 / rate)

    def climb(self, look: Look, typical: float, *, steps: int = _CLIMB_STEPS) -> Float:
        """How far the last window is from the nearest one that looks normal.

        That is as far up the slope as it takes to be no more abnormal than typical, in so many steps at most.

        Parameters
        ----------
        look : Look
        typical : float
        steps : int

        Returns
        -------
        ndarray, shape (W, F)
            0 for a window that is typical.
        """
        if look.abnormality[-1] <= typical or steps < 1:
            return np.zeros(self._shape[1:], np.float32)
        step = first = _Step(look.step.u[-1:], look.step.rate[-1:])
        last = look.abnormality[-1]
        before: Float | None = None
        since = 0  # steps since momentum began
        for _ in range(steps - 1):
            place: Float = step.rate.T * step.u  # a_j (J, SH)
            ahead = place
            if before is not None and since:
                ahead = place + since / (since + _MOMENTUM_FROM) * (place - before)
            moved = np.matmul(self._gram, ahead[:, :, None])[:, :, 0]  # R_j R_j' a_j (J, SH)
            p, lengths = self._all_blocks.dot(moved), np.add.reduce(ahead * moved, axis=1)[None]
            (abnormality,), energy, nearest = self._judge(p, lengths)
            if abnormality <= typical:
                break
            since = 0 if abnormality > last else since + 1  # it went too far
            last, before, step = abnormality, place, self._next(p, energy, nearest)
        away: Float = look.away[-1]
        if step is not first:
            away = self._away(look.windows[-1:], step.u, step.rate.take(self._block_of, axis=1))[0]
        return away

    def _judge(self, p: Float, lengths: Float) -> tuple[list[float], Float, NDArray[np.intp]]:
        """Abnormality, ``tau + e`` (N, S) and prototypes (N, S), by ``p`` (N, SH) and ``||x_j||²`` (N, J)."""
        count = len(p)
        tau = self._tau[:count]
        near = p.dot(self._of_p)
        near += self._lengths[:count]
        nearest = near.reshape(self._by_prototype).argmin(axis=2)
        nearest += self._first_of[:count]
        energy = lengths.dot(self._of_lengths)
        energy += (p * p).dot(self._of_squares)
        energy += near.take(nearest)
        energy += tau
        np.maximum(energy, tau, out=energy)  # rounding
        return np.log(energy / tau).dot(self._share).tolist(), energy, nearest

    def _next(self, p: Float, energy: Float, nearest: NDArray[np.intp]) -> _Step:
        """Where the next step leads from windows of which :meth:`_judge` found this."""
        count = len(p)
        weight = self._steepness[:count] / energy
        u = self._damping[:count] * p
        by_scale = u.reshape(self._by_scale)
        by_scale += self._centres.take(nearest, axis=0, mode="wrap")
        by_scale *= weight[:, :, None]
        return _Step(u, 1.0 / weight.dot(self._curvature))

    def _away(self, windows: Float, u: Float, rate: Float) -> Float:
        """How far windows (N, W, F) are from ``r R' u``, by the rate of each row (N, W)."""
        flat = np.empty((len(u), windows[0].size), np.float32)
        for units, basis, begin in self._layers[::-1]:
            if begin:
                flat[:, begin:] += u[:, units].dot(basis)
            else:
                u[:, units].dot(basis, out=flat)
        there = flat.reshape(windows.shape)
        there *= rate[:, :, None]
        return np.subtract(windows, there, out=there)


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
    shares: NDArray[np.float64] = exact / max(float(np.add.reduce(exact)), _TINY)
    return shares


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
