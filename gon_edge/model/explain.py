"""What makes one window abnormal: each feature's part in it, and the nearest window that looks normal.

The network of ``gon``, read for one window at a time by products of a matrix and a vector: for one or two windows BLAS
takes ten times as long over a product of matrices.  With ``D_s = kappa_s - g_s²`` and ``C_sk = g_s * c_sk`` a scale has
the energy ::

    e_s = kappa_s ||x_s||² - sum_h D_sh p_sh² + min_k (||c_sk||² - 2 C_sk p_s)

and a step of ``Discriminator.generate`` leads, wherever it begins, to ``r_j R_j' u`` on each block of rows j, with ::

    w_s = 2 v_s / (tau_s + e_s)       u_s = w_s (D_s * p_s + C_sk)       1 / r_j = sum of w_s kappa_s over s that see j

So a window on the way is S H numbers and one for each block, and the ``p`` of the next is ``sum_j r_j R_j R_j' u``.
Momentum brings a climb to nearly where plain steps lead in half as many of them (docs/detection.md).  Training keeps to
plain steps, in ``generate``: what it learns depends on where a few of them lead.

Sums are float32: windows are clipped, and a cause needs no more.  This module does not know rows of a stream, names or
units (``detector``).  Another form of the energy changes it as it changes ``gon``.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple, TypeVar
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from gon_edge.model.gon import Discriminator, Float

_Number = TypeVar("_Number", Float, NDArray[np.float64])

_CLIMB_STEPS = 12
"""They lead as far as some 40 plain steps.  On four sets with labels for each feature, climbs take 2 to 6 in the mean,
and with 8 the causes are as good (docs/detection.md)."""

_MOST_KEPT = 32
"""Explainers that are kept at a time, some 45 KiB each for any number of features.  Not critical: where more streams
are in alarm at once, one that was not kept is made anew, in less time than an explanation takes."""

_LEAST_EXCESS = 1e-9
"""Weight in the causes of a window that is as normal as a typical one: with two such, each counts half."""

_MOMENTUM_FROM = 2
"""The k-th step goes on by k / (k + 2) of the one before.  With 1 climbs are a tenth shorter and end twice as far from
where plain steps lead (docs/detection.md)."""

_TINY = float(np.finfo(np.float32).tiny)

_LEAST_SHARE = 1e-20
"""Of a scale without a share, so that rows that it alone sees have somewhere to go.  Not critical: nothing beside 1."""


@dataclass(slots=True, eq=False)
class Look:
    """What :meth:`Explainer.look` finds in a window.

    Attributes
    ----------
    window : ndarray, shape (W, F)
        The window itself: a view.
    abnormality : float
        ``bias - D``.
    slope : ndarray, shape (W, F)
        dD/dx.
    to_mean : ndarray, shape (F,)
        What D would gain, to first order, by moving each feature alone to its mean.
    step : _Step
        Where the first step of a climb leads.
    pace : ndarray, shape (W,)
        How far that goes along the slope of each row.
    """

    window: Float
    abnormality: float
    slope: Float
    to_mean: Float
    step: _Step
    pace: Float

    @property
    def first(self) -> Float:
        """The window (W, F) where the first step of a climb leads; a new array."""
        move = self.slope * self.pace[:, None]
        move += self.window
        return move

    @property
    def to_first(self) -> Float:
        """As ``to_mean``, but for moving each feature to where the first step leads."""
        gain: Float = self.pace.dot(self.slope * self.slope)
        return gain

    def excess(self, typical: float) -> float:
        """By how much the window is more abnormal than a typical one, above 0."""
        return max(self.abnormality - typical, _LEAST_EXCESS)


class _Step(NamedTuple):
    """A place in the row space, ``r_j R_j' u`` on each block of rows j."""

    u: Float
    """(S * H,)."""
    rate: Float
    """r, (S,)."""


class Explainer:
    """Looks at windows of one network, and climbs from them.

    Parameters
    ----------
    net : Discriminator
        What it holds of it are its arrays: an explainer does not keep a network alive.
    """

    def __init__(self, net: Discriminator) -> None:
        scales, self._basis = net.scales, net.basis
        count, self._features, self._window = len(scales), net.features, net.window
        hidden = max(len(scale.gain) for scale in scales)
        most = max(len(scale.prototypes) for scale in scales)
        self._by_scale = (count, hidden)
        self._by_prototype = (count, most)
        # Scales with fewer units or prototypes than others are filled up with such as are never near.
        damping = np.zeros((count, hidden), np.float32)
        centres = np.zeros((count, most, hidden), np.float32)
        lengths = np.full((count, most), np.inf, np.float32)
        for s, scale in enumerate(scales):
            units, prototypes = len(scale.gain), len(scale.prototypes)
            damping[s, :units] = scale.kappa - scale.gain.astype(np.float64) ** 2
            centres[s, :prototypes, :units] = scale.gain * scale.prototypes
            lengths[s, :prototypes] = np.einsum("kh,kh->k", scale.prototypes, scale.prototypes)
        self._damping = damping.ravel()
        self._centres = centres.reshape(-1, hidden)  # (SK, H)
        self._of_p = -2.0 * _diagonal(centres)  # (SK, SH)
        self._of_squares = _diagonal(damping[:, None])  # (S, SH)
        self._lengths = lengths.ravel()
        self._first_of = np.arange(count) * most
        kappa = np.array([scale.kappa for scale in scales], np.float32)
        self._tau = np.array([scale.tau for scale in scales], np.float32)
        self._share = np.array([scale.share for scale in scales], np.float32)
        self._steepness = np.maximum(2.0 * self._share, _LEAST_SHARE)
        sees = np.triu(np.ones((count, count), np.float32))  # (J, S): block j lies inside scale s
        self._curvature = sees * kappa  # (J, S)
        self._within = self._curvature.T.copy()  # (S, J)
        borders = np.array([0, *(scale.rows for scale in scales)])
        self._block_of = np.repeat(np.arange(count)[::-1], np.diff(borders)[::-1])  # (W,)
        edges = ((net.window - borders) * net.features).tolist()
        self._begins = edges[1:]  # of what each scale sees, and of each block
        self._units = [slice(s * hidden, s * hidden + len(scale.gain)) for s, scale in enumerate(scales)]
        self._ones = np.ones(net.window, np.float32)
        self._p = np.zeros(count * hidden, np.float32)  # of the newest look
        self._parts = [self._p[units] for units in self._units]
        self._moved = np.zeros((count, count * hidden), np.float32)  # R_j R_j' u, of the newest step: (J, SH)
        self._seen = [self._moved[j, j * hidden :] for j in range(count)]
        self._gram = [self._inner_products(j, begin, end) for j, (end, begin) in enumerate(pairwise(edges))]

    def _inner_products(self, j: int, begin: int, end: int) -> Float:
        """``R_j R_j'`` of the units of the scales that see block j, which lies there in a window."""
        count, hidden = self._by_scale
        rows = np.zeros((count - j, hidden, end - begin), np.float32)
        for s in range(j, count):
            basis = self._basis[s]
            rows[s - j, : len(basis)] = basis[:, begin - self._begins[s] : end - self._begins[s]]
        flat = rows.reshape(-1, end - begin)
        return flat @ flat.T

    def look(self, window: Float) -> Look:
        """Look at a window (W, F), contiguous and standardised."""
        flat = window.ravel()
        for part, basis, begin in zip(self._parts, self._basis, self._begins, strict=True):
            basis.dot(flat[begin:], out=part)
        lengths = np.add.reduceat(flat * flat, self._begins[::-1])[::-1]  # ||x_j||²
        abnormality, step = self._step(self._p, lengths)
        slope = self._rebuilt(step.u)
        pace = step.rate.take(self._block_of)
        slope -= window / pace[:, None]
        to_mean = -self._ones.dot(window * slope)
        return Look(window, abnormality, slope, to_mean, step, pace)

    def climb(self, look: Look, typical: float, *, steps: int = _CLIMB_STEPS) -> Float:
        """The nearest window that looks normal: as far up the slope as it takes to be no more abnormal than typical.

        Parameters
        ----------
        look : Look
        typical : float
        steps : int
            At most this many.

        Returns
        -------
        ndarray, shape (W, F)
            A new array; the window itself where that is typical.
        """
        if look.abnormality <= typical or steps < 1:
            return look.window
        step, abnormality = look.step, look.abnormality
        before: tuple[_Step, Float, Float] | None = None
        since = 0  # steps since momentum began
        for _ in range(steps - 1):
            p, lengths = self._reach(step)
            ahead, far = p, lengths
            if before is not None and since:
                ahead, far = self._go_on(step, p, lengths, before, since / (since + _MOMENTUM_FROM))
            last, (abnormality, following) = abnormality, self._step(ahead, far)
            if abnormality <= typical:
                break
            since = 0 if abnormality > last else since + 1  # it went too far
            before, step = (step, p, lengths), following
        normal = self._rebuilt(step.u)
        normal *= step.rate.take(self._block_of)[:, None]
        return normal

    def _step(self, p: Float, lengths: Float) -> tuple[float, _Step]:
        """The abnormality of a window by its ``p`` (SH,) and its ``||x_j||²`` (J,), and where the next step leads."""
        near = self._of_p.dot(p)
        near += self._lengths
        nearest = near.reshape(self._by_prototype).argmin(axis=1) + self._first_of
        energy = self._within.dot(lengths)
        energy -= self._of_squares.dot(p * p)
        energy += near.take(nearest)
        energy += self._tau
        np.maximum(energy, self._tau, out=energy)  # rounding
        weight = self._steepness / energy
        u = self._damping * p
        u += self._centres.take(nearest, axis=0).ravel()
        by_scale = u.reshape(self._by_scale)
        by_scale *= weight[:, None]
        energy /= self._tau
        return float(np.log(energy).dot(self._share)), _Step(u, 1.0 / self._curvature.dot(weight))

    def _reach(self, step: _Step) -> tuple[Float, Float]:
        """``p`` (SH,) and ``||x_j||²`` (J,) of where a step leads."""
        hidden = self._by_scale[1]
        for j, (gram, seen) in enumerate(zip(self._gram, self._seen, strict=True)):
            gram.dot(step.u[j * hidden :], out=seen)
        lengths = self._moved.dot(step.u)
        lengths *= step.rate
        lengths *= step.rate
        return step.rate.dot(self._moved), lengths

    def _go_on(
        self, step: _Step, p: Float, lengths: Float, before: tuple[_Step, Float, Float], by: float
    ) -> tuple[Float, Float]:
        """``p`` and ``||x_j||²`` past where `step` leads by a part of the way there from where the one before led.

        It is what :meth:`_reach` has just found.
        """
        earlier, p_before, lengths_before = before
        both = self._moved.dot(earlier.u)
        both *= step.rate
        both *= earlier.rate
        past = 1.0 + by
        return past * p - by * p_before, past * past * lengths - 2.0 * by * past * both + by * by * lengths_before

    def _rebuilt(self, u: Float) -> Float:
        """``R' u`` (W, F)."""
        flat = np.empty(self._window * self._features, np.float32)
        u[self._units[-1]].dot(self._basis[-1], out=flat)  # the longest scale sees all of it
        for units, basis, begin in zip(self._units[:-1], self._basis, self._begins, strict=False):
            flat[begin:] += u[units].dot(basis)
        return flat.reshape(self._window, self._features)


def _diagonal(parts: Float) -> Float:
    """(S * N, S * H) with each of the parts (S, N, H) where its scale meets itself, 0 elsewhere."""
    scales, rows, columns = parts.shape
    whole = np.zeros((scales, rows, scales, columns), np.float32)
    whole[np.arange(scales), :, np.arange(scales)] = parts
    return whole.reshape(scales * rows, scales * columns)


def share(look: Look, normal: Float) -> Float:
    """Each feature's share (F,) in what makes a window abnormal; sums to 1, or to 0 where nothing would help.

    Half by what moving the feature alone to its values in ``normal`` (W, F) would gain, half by moving it to its mean.
    The generated window meets an abnormal one part of the way and moves calm features towards wild ones; the mean does
    neither, but knows nothing of modes.  Each was better at some faults, both together never far from the better one
    (docs/detection.md).
    """
    gain = normal - look.window
    gain *= look.slope
    return normalised(_of(look.to_mean) + _of(np.add.reduce(gain)))


def share_at_sight(look: Look) -> Float:
    """The same without a climb: a quarter by moving to where its first step leads, the rest by moving to the mean.

    For the window before the last: with half instead of a quarter, and with none, the features named were less often
    the right ones (docs/detection.md).
    """
    return normalised(3.0 * _of(look.to_mean) + _of(look.to_first))


def _of(gain: Float) -> Float:
    """Shares (F,) in gains (F,); a feature that loses counts as 0."""
    return normalised(np.maximum(gain, 0.0))


def normalised(share: _Number) -> _Number:
    """Shares (F,) as parts of 1, or of 0 where all are 0."""
    parts: _Number = share / max(float(np.add.reduce(share)), _TINY)
    return parts


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
