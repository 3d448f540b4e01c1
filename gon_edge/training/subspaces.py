"""What training starts from: on each scale, principal subspaces of the windows and prototypes among them.

That alone is a good detector.  Subspaces come from block power iteration, prototypes from k-means among the
projections.  Both go through the windows by batches, so memory is known from shapes: `plan` predicts it.  This module
does not know whether windows are held out or why, nor what happens to the network afterwards.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from gon_edge.model.gon import Discriminator, Float, Scale
from gon_edge.model.prediction import Prediction
from gon_edge.model.quantize import QuantizedLinear
from gon_edge.training.rows import TrainingRows
from gon_edge.training.settings import FitSettings

_OVERSAMPLE = 8
_POWER_PASSES = 4
"""Directions carried beside the H wanted, and passes over the windows: the leading variances are then within 1 %."""

_SMALLEST_VARIANCE = 1e-4
"""Least mean variance of an entry of a standardised window.  Rows that never moved at all have none to divide by.  Not
critical: the scaler gives every feature that moves a variance of 1."""

_PROTOTYPE_WINDOWS = 4096
"""Windows that k-means looks at.  Not critical: 1024 gave a mean average precision of 0.695, 4096 0.698 (seed 0)."""

_KMEANS_STARTS = 5
_FIRST_PASSES = 5
_LLOYD_PASSES = 25
"""From one start alone the average precision of smd_machine-3-10 went from 0.54 to 0.66 with the seed.  So the best of
five starts, after a few passes each, carries on until its centres stay, for 25 more at most."""

_RARE_PROTOTYPES = 2
"""Times the usual number, for windows that hold rare rows: a job that begins and ends inside of a window has as many
looks as the window has rows.  Not critical: three times were no better."""

_FEWEST_MEMBERS = 8
"""Points for each centre, on the mean; fewer points get fewer centres.  Not critical: it matters below 64 windows."""

_TAU_QUANTILE = 0.95
"""Energy from which a scale counts, as a quantile of normal ones.  Not critical: 0.8, 0.9, 0.95 and 0.99 gave mean
average precisions of 0.699, 0.698, 0.698 and 0.702, and F1 of 0.491, 0.487, 0.485 and 0.482 (seed 0)."""

_FLOOR = 1e-2
"""Mean square of an entry, in variances, below which no scale counts: a tenth of a deviation.  Not critical: it only
keeps rounding from being news in a record that hardly moves."""


_FORETOLD_SHARE = 0.5
"""Of the prediction, where each scale has 1: what it sees within two rows, the scale of five sees in part.  With 1, and
none for five rows, average precision was higher and F1 lower (docs/detection.md)."""

_RIDGE = 0.1
"""Of the prediction, in variances of a reading.  Not critical: 0.05, 0.1 and 0.2 gave mean average precisions of 0.731,
and F1 of 0.525, 0.532 and 0.528."""


def untrained(
    data: TrainingRows, ends: NDArray[np.intp], lengths: Sequence[int], settings: FitSettings, rng: np.random.Generator
) -> Discriminator:
    """A network on scales of ``lengths`` rows, from the windows that end at rows ``ends`` (N,).

    Windows that hold rare rows get prototypes of their own: among all the others, k-means would give a job of twenty
    minutes a day none, or one.
    """
    features = data.z.shape[1]
    scales = []
    for rows in lengths:
        weight, variance, total = _principal_rows(data, ends, rows, settings, rng)
        ridge = max(total / (rows * features), _SMALLEST_VARIANCE)  # mean variance of an entry: see docs/detection.md
        scale = Scale(
            rows=rows,
            weight=QuantizedLinear.from_float(weight),
            gain=(1.0 / np.sqrt(variance + ridge)).astype(np.float32),
            prototypes=np.zeros((1, len(weight)), np.float32),
            kappa=1.0 / ridge,
            tau=1.0,
            share=1.0,
        )
        scales.append(scale)
    net = Discriminator(scales, features, bias=0.0)
    sample = sampled(ends, _PROTOTYPE_WINDOWS, rng)
    hidden = [np.concatenate(u) for u in zip(*(net.hidden(data.windows(b)) for b in data.batches(sample)), strict=True)]
    prototypes = {f"prototypes{s}": _kmeans(u, settings.prototypes, rng) for s, u in enumerate(hidden)}
    net = net.with_parameters({**net.parameters(), **prototypes})
    net = net.with_levels(levels(data.energies(net, sample), net))
    return net if data.rare is None else _with_rare(net, data, ends, settings, rng)


def _with_rare(
    net: Discriminator, data: TrainingRows, ends: NDArray[np.intp], settings: FitSettings, rng: np.random.Generator
) -> Discriminator:
    """The network with prototypes of the windows that hold rare rows, and that it would call abnormal without."""
    ends = sampled(ends[data.near_rare(net.window)[ends]], _PROTOTYPE_WINDOWS, rng)
    energies, prototypes = data.energies(net, ends), {}
    for s, scale in enumerate(net.scales):
        odd = ends[energies[:, s] > scale.tau]
        if len(odd):
            u = np.concatenate([net.hidden(data.windows(batch))[s] for batch in data.batches(odd)])
            own = _kmeans(u, _RARE_PROTOTYPES * settings.prototypes, rng)
            prototypes[f"prototypes{s}"] = np.concatenate([scale.prototypes, own])
    return net.with_parameters({**net.parameters(), **prototypes})


def foretelling(net: Discriminator, data: TrainingRows, ends: NDArray[np.intp]) -> Discriminator:
    """The network with a prediction of each row from the one before, from the rows at ``ends`` (N,).

    Least squares with a ridge, in one pass.  A row that begins a piece has none before it.
    """
    if net.window == 1:
        return net
    basis = net.basis[0]
    moment, product, square = np.zeros((len(basis),) * 2), np.zeros((len(basis), net.features)), np.zeros(net.features)
    follow = ends[data.age[ends] > 1]
    for batch in data.batches(follow):
        p, z = (data.z[batch - 1] @ basis.T).astype(np.float64), data.z[batch].astype(np.float64)
        moment += p.T @ p
        product += p.T @ z
        square += np.einsum("nf,nf->f", z, z)
    rows = max(1, len(follow))
    ahead = np.linalg.solve(moment + _RIDGE * rows * np.eye(len(basis)), product)  # (H, F)
    missed = square + np.einsum("hf,hf->f", ahead, moment @ ahead - 2.0 * product)
    variance = np.maximum(missed, 0.0) / rows
    gain = 1.0 / (variance + max(float(variance.mean()), _SMALLEST_VARIANCE))
    weight = QuantizedLinear.from_float(ahead.T.astype(np.float32))
    usual = max(float(gain @ variance), floor(1, net.features))
    return net.with_prediction(Prediction(weight, gain.astype(np.float32), tau=usual, share=_FORETOLD_SHARE))


def sampled(ends: NDArray[np.intp], most: int, rng: np.random.Generator) -> NDArray[np.intp]:
    """``ends`` (N,), or ``most`` of them at random, in order."""
    return ends if len(ends) <= most else np.sort(rng.choice(ends, most, replace=False))


def levels(energies: Float, net: Discriminator) -> NDArray[np.float64]:
    """Levels tau (E,) from energies (N, E) of normal windows."""
    lowest = [floor(term.rows, net.features) for term in net.terms]
    return np.maximum(np.quantile(energies, _TAU_QUANTILE, axis=0), lowest)


def floor(rows: int, features: int) -> float:
    """Energy on a scale of that many rows below which nothing counts."""
    return _FLOOR * rows * features


def _principal_rows(
    data: TrainingRows, ends: NDArray[np.intp], rows: int, settings: FitSettings, rng: np.random.Generator
) -> tuple[Float, NDArray[np.float64], float]:
    """Leading directions (H, rows * F) of the windows' second moment, its eigenvalues (H,), and its trace.

    Block power iteration with a Rayleigh-Ritz step: the moment matrix (23 MB at W = 40, F = 38) is never built.
    """
    length = rows * data.z.shape[1]
    width = min(length, settings.hidden + _OVERSAMPLE)
    basis = np.linalg.qr(rng.standard_normal((length, width)))[0].astype(np.float32)
    total = 0.0
    for _ in range(_POWER_PASSES):
        image = np.zeros((length, width))
        total = 0.0
        for batch in data.batches(ends):
            x = data.windows(batch)[:, -rows:].reshape(len(batch), -1)
            image += x.T @ (x @ basis)
            total += float(np.einsum("nd,nd->", x, x, dtype=np.float64))
        ritz, rotation = np.linalg.eigh(basis.T @ image)  # ascending
        order = np.argsort(ritz)[::-1]
        variance = np.maximum(ritz[order], 0.0) / len(ends)
        leading = basis @ rotation[:, order]
        basis = np.linalg.qr(image)[0].astype(np.float32)
    units = min(settings.hidden, width)
    return leading[:, :units].T.astype(np.float32), variance[:units], total / len(ends)


def _kmeans(points: Float, clusters: int, rng: np.random.Generator) -> Float:
    """Centres (K, H) of points (N, H), the best of several starts; fewer than K when there are few points."""
    clusters = min(clusters, max(1, len(points) // _FEWEST_MEMBERS))
    starts = [_lloyd(points, _scattered(points, clusters, rng), _FIRST_PASSES) for _ in range(_KMEANS_STARTS)]
    spread = [_squared_distances(points, centres).min(axis=1).sum() for centres in starts]
    return _lloyd(points, starts[int(np.argmin(spread))], _LLOYD_PASSES)


def _scattered(points: Float, clusters: int, rng: np.random.Generator) -> Float:
    """Points drawn by k-means++: far from each other."""
    centres = points[[rng.integers(len(points))]]
    while len(centres) < clusters:
        nearest = _squared_distances(points, centres).min(axis=1)
        if not nearest.sum() > 0.0:
            break  # every point is a centre already
        centres = np.concatenate([centres, points[[rng.choice(len(points), p=nearest / nearest.sum())]]])
    return centres


def _lloyd(points: Float, centres: Float, passes: int) -> Float:
    """Centres (K, H) moved to the means of the points nearest to them, until they stay or ``passes`` are over."""
    for _ in range(passes):
        member = _squared_distances(points, centres).argmin(axis=1) == np.arange(len(centres))[:, None]  # (K, N)
        count = member.sum(axis=1)
        sums = member.astype(np.float32) @ points
        moved = np.where(count[:, None] > 0, sums / np.maximum(count, 1)[:, None], centres).astype(np.float32)
        if np.array_equal(moved, centres):
            break
        centres = moved
    return centres


def _squared_distances(points: Float, centres: Float) -> NDArray[np.float64]:
    """Shape (N, K)."""
    squared = (points**2).sum(axis=1)[:, None] - 2.0 * points @ centres.T + (centres**2).sum(axis=1)
    distances: NDArray[np.float64] = np.maximum(squared.astype(np.float64), 0.0)
    return distances
