"""Finds a model for the rows of one stream: numpy only, in a few passes, in little memory.

Four steps.  *Screening*: rows that look absurd to a model of the others are left out.  *Subspaces*: on every scale the
leading directions of the windows by block power iteration, and prototypes among their projections by k-means; that
alone is a good detector.  *Adversarial training* moves the prototypes and the bias so that the discriminator tells real
windows from those it generates itself, starting from noise and from distorted data; gains and shares stay, because
moving them made detection of real faults worse (docs/detection.md).  *Calibration*: the same on the older rows alone,
to score the newer ones; threshold and energy levels come from these held-out scores.

Rows are held once as they came and once standardised; all else goes by batches and columns, so that memory is known
from shapes (``train`` predicts it).  Pure: rows in, model out, randomness through ``rng``.  Knows no process, budget or
file (``train`` does).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gon_edge.errors import NotEnoughData
from gon_edge.model.file import Model
from gon_edge.model.gon import Discriminator, Float, Scale
from gon_edge.model.quantize import QuantizedLinear
from gon_edge.model.smoothing import Smoother
from gon_edge.model.window import Scaler
from gon_edge.training.rows import Rows, TrainingRows, longest_runs, standardise
from gon_edge.training.settings import FitSettings
from gon_edge.training.threshold import fit_pot

Progress = Callable[[str, float, float | None], None]

_OVERSAMPLE = 8
_POWER_PASSES = 4
"""Directions carried beside the H wanted, and passes over the windows: the leading variances are then within 1 %."""

_LLOYD_PASSES = 25
_KMEANS_STARTS = 5
_FIRST_PASSES = 5
"""From one start alone the average precision of smd_machine-3-10 went from 0.54 to 0.66 with the seed; of five, the
best after a few passes carries on."""

_PROTOTYPE_WINDOWS = 4096

_ODD_SHARE = 0.03
_ODD_RATIO = 4.0
"""At most this share of the training rows is left out, those whose energy is more than this many times the largest of
the remaining rows: twice as far from normal.  Ratios of 8 and 16 left more hidden faults in (docs/detection.md)."""
_SCREENING_SCALES = (1, 5)
"""Short, so that a row is blamed for itself and not for its neighbours."""
_SCREENING_WINDOWS = 3000
_SCREENING_PARTS = 3

_HELD_OUT = 1 / 3
"""Share of the rows, the newest, that calibrates.  A stream is judged by what came before it, so this is the one
held-out part that resembles use: with the first and the middle third held out in turn as well, a state that only they
hold raised the threshold for good (mean F1 0.36, against 0.50; shares from 0.3 to 0.5 gave 0.48 to 0.50)."""

_KNOWN_ALARMS = 0.015
"""Most training rows, as a share, that may lie above the threshold.  Below what the gate of a training allows: a first
model of a record whose newest part is calm would never pass it."""

_ADVERSARIAL_STEPS = 60
_BATCH = 64
_RATE = 0.01
_CLIMB_STEPS = 3
_TELL_EVERY = 10
_NEARLY_ONE = 1.0 - 1e-12
_SCREENING_SHARE = 0.15  # of the time of a whole fit
"""More steps, a higher rate or longer climbs separated injected faults better and real ones worse."""

_TAU_QUANTILE = 0.95
_SMALLEST_VARIANCE = 1e-4
"""Of a standardised window: rows that never moved at all have no variance to divide by."""


def fit_model(
    rows: ArrayLike,
    *,
    features: Sequence[str] | None = None,
    restart: NDArray[np.bool_] | None = None,
    settings: FitSettings | None = None,
    rng: np.random.Generator,
    interval_s: float = 0.0,
    trusted: NDArray[np.bool_] | None = None,
    longest_run: NDArray[np.int32] | None = None,
    progress: Progress = lambda phase, share, loss: None,
) -> Model:
    """Fit a model on normal rows.

    Parameters
    ----------
    rows : array-like, shape (T, F)
        Engineering units, oldest first; NaN where a value is missing.  float32 is used as it is, anything else as
        float64.
    features : sequence of str, optional
        Names of the F columns; ``x0``, ``x1``, ... without.
    restart : ndarray of bool, shape (T,), optional
        True where a row does not follow the one before it.
    settings : FitSettings, optional
    rng : numpy.random.Generator
        Same rows, same generator state: same model, byte for byte.
    interval_s : float
        Seconds between rows, kept in the model; 0 when unknown.
    trusted : ndarray of bool, shape (T,), optional
        Rows a person has confirmed as normal: none of them is left out as odd.
    longest_run : ndarray of int32, shape (F,), optional
        Most rows in a row without a change (:func:`longest_runs`), where more rows than these are known.
    progress : callable
        Called with the phase (``screen``, ``calibrate``, ``fit``, ``done``), the share done, 0 to 1, and the loss of
        the adversarial step where one runs.

    Returns
    -------
    Model

    Raises
    ------
    NotEnoughData
        With no row at all.
    """
    settings = settings or FitSettings()
    raw: Rows = np.asarray(rows)
    if raw.dtype != np.float32:
        raw = raw.astype(np.float64, copy=False)
    if raw.ndim != 2 or not raw.size:
        raise NotEnoughData("", f"rows of shape (T, F) with T and F at least 1 are needed, not {raw.shape}")
    names = tuple(features) if features is not None else tuple(f"x{i}" for i in range(raw.shape[1]))
    pieces = np.zeros(len(raw), np.bool_) if restart is None else restart.astype(np.bool_)
    progress("screen", 0.0, None)
    odd = odd_rows(raw, pieces, settings, rng)
    kept = np.flatnonzero(~odd if trusted is None else ~odd | trusted)
    piece = np.cumsum(pieces)[kept]
    pieces = np.diff(kept, prepend=-1) > 1  # where a row was left out a new piece begins
    pieces[1:] |= np.diff(piece) > 0
    scaler = Scaler.fit(raw, kept)
    z = standardise(raw, scaler, np.empty((len(kept), raw.shape[1]), np.float32), kept)
    data = TrainingRows(z, pieces, settings.window)

    everything = np.arange(len(data))
    later = _held_out(len(data), settings.window)
    past = everything[: -len(later)] if len(later) < len(data) else everything
    share = (1.0 - _SCREENING_SHARE) / 2.0  # of the whole, for one fit

    def tell(phase: str, fits: int) -> Callable[[float, float], None]:
        return lambda done, loss: progress(phase, _SCREENING_SHARE + (fits + done) * share, loss)

    progress("calibrate", _SCREENING_SHARE, None)
    net = fit_discriminator(data, past, settings, rng, tell("calibrate", 0))
    energies = window_energies(net, data, later)
    progress("fit", 1.0 - share, None)
    net = fit_discriminator(data, everything, settings, rng, tell("fit", 1))
    age = data.age[later]
    whole = age >= settings.window
    if not whole.any():
        whole[:] = True  # too few rows for a window: padded ones are all there is
    net = net.with_levels(_levels(energies[whole], net))
    typical = float(np.median(net.abnormality(energies[whole])))
    smoother = Smoother(settings.smoothing, settings.window)
    scores = smoother.smooth(net.abnormality_after_restart(energies, age, typical), pieces[later])
    threshold = fit_pot(scores, settings.risk, doubted=_ODD_SHARE)
    # What the older rows did was normal too, even where the newest third was calmer.
    known = net.abnormality_after_restart(window_energies(net, data, everything), data.age, typical)
    threshold = max(threshold, float(np.quantile(smoother.smooth(known, pieces), 1.0 - _KNOWN_ALARMS)))
    progress("done", 1.0, None)
    return Model(
        features=names,
        scaler=scaler,
        discriminator=net,
        smoothing=settings.smoothing,
        threshold=threshold,
        typical=typical,
        longest_run=longest_runs(raw) if longest_run is None else longest_run,
        interval_s=interval_s,
    )


def odd_rows(
    raw: Rows, restart: NDArray[np.bool_], settings: FitSettings, rng: np.random.Generator
) -> NDArray[np.bool_]:
    """Which rows (T,) look absurd to a model of the others: a fault that nobody took out of the training rows.

    At most ``_ODD_SHARE`` of the rows, and only those that lie far outside the rest: a mode of the machine that it
    took more often, or in more than one part of the rows, stays.  Left in, such rows stretch the scaler, get a
    prototype of their own and set the threshold.
    """
    parts = np.array_split(np.arange(len(raw)), min(_SCREENING_PARTS, max(1, len(raw) // settings.window)))
    energies = np.zeros((len(raw), len(_SCREENING_SCALES)), np.float32)
    reach = _SCREENING_SCALES[-1]
    if len(parts) == 1 or len(raw) < len(parts) * (reach + 1):  # nothing would be left to judge a part by
        return np.zeros(len(raw), np.bool_)
    z = np.empty(raw.shape, np.float32)
    for part in parts:
        ends = np.concatenate([np.arange(part[0]), np.arange(part[-1] + reach, len(raw))])
        others = np.concatenate([np.arange(part[0]), np.arange(part[-1] + 1, len(raw))])
        scaler = Scaler.fit(raw, others)  # not stretched by what is in question
        data = TrainingRows(standardise(raw, scaler, z), restart, reach)
        net = _start(data, _sampled(ends, _SCREENING_WINDOWS, rng), _SCREENING_SCALES, settings, rng)
        energies[part] = window_energies(net, data, part)
    floor = [1e-2 * rows * raw.shape[1] for rows in _SCREENING_SCALES]
    usual = np.maximum(np.quantile(energies, 1.0 - _ODD_SHARE, axis=0), floor)
    ratio = (energies / usual).max(axis=1)
    odd: NDArray[np.bool_] = ratio > max(_ODD_RATIO, float(np.quantile(ratio, 1.0 - _ODD_SHARE)))
    return odd


def fit_discriminator(
    data: TrainingRows,
    ends: NDArray[np.intp],
    settings: FitSettings,
    rng: np.random.Generator,
    tell: Callable[[float, float], None] = lambda done, loss: None,
) -> Discriminator:
    """A trained network from the windows that end at rows ``ends`` (N,); ``tell`` hears the share done and the loss."""
    ends = _sampled(ends, settings.max_windows, rng)
    return train_adversarially(_start(data, ends, settings.scales, settings, rng), data, ends, rng, tell)


def _start(
    data: TrainingRows, ends: NDArray[np.intp], lengths: Sequence[int], settings: FitSettings, rng: np.random.Generator
) -> Discriminator:
    """Subspaces and prototypes on scales of ``lengths`` rows: what training starts from."""
    features = data.z.shape[1]
    scales = []
    for rows in lengths:
        weight, variance, total = _principal_rows(data, ends, rows, settings, rng)
        ridge = max(
            total / (rows * features), _SMALLEST_VARIANCE
        )  # the mean variance of an entry: see docs/detection.md
        quantized = QuantizedLinear.from_float(weight)
        scale = Scale(
            rows=rows,
            weight=quantized,
            gain=(1.0 / np.sqrt(variance + ridge)).astype(np.float32),
            prototypes=np.zeros((1, len(weight)), np.float32),
            kappa=1.0 / ridge,
            tau=1.0,
            share=1.0,
        )
        scales.append(scale)
    net = Discriminator(scales, features, bias=0.0)
    sample = _sampled(ends, _PROTOTYPE_WINDOWS, rng)
    hidden = [np.concatenate(u) for u in zip(*(net.hidden(data.windows(b)) for b in data.batches(sample)), strict=True)]
    prototypes = {f"prototypes{s}": _kmeans(u, settings.prototypes, rng) for s, u in enumerate(hidden)}
    net = net.with_parameters({**net.parameters(), **prototypes})
    return net.with_levels(_levels(window_energies(net, data, sample), net))


def _sampled(ends: NDArray[np.intp], most: int, rng: np.random.Generator) -> NDArray[np.intp]:
    return ends if len(ends) <= most else np.sort(rng.choice(ends, most, replace=False))


def _held_out(rows: int, window: int) -> NDArray[np.intp]:
    """The newest rows, to be scored by a model of those before them; all rows where those are less than a window.

    Their windows reach back, so there may be fewer of them than a window has rows: calibrated on what it had learned, a
    model of 60 rows was in alarm from its first row on.
    """
    first = rows - int(_HELD_OUT * rows)
    return np.arange(first if window <= first < rows else 0, rows)


def _levels(energies: Float, net: Discriminator) -> NDArray[np.float64]:
    """Levels tau (S,) from energies (N, S) of normal windows; never so small that rounding counts as news."""
    floor = [1e-2 * scale.rows * net.features for scale in net.scales]
    return np.maximum(np.quantile(energies, _TAU_QUANTILE, axis=0), floor)


def train_adversarially(
    net: Discriminator,
    data: TrainingRows,
    ends: NDArray[np.intp],
    rng: np.random.Generator,
    tell: Callable[[float, float], None] = lambda done, loss: None,
) -> Discriminator:
    """Move prototypes and bias so that D tells windows from what D itself generates.

    Each step draws real windows, starts fakes from noise (half) and from distorted real windows (half), lets the
    network climb from there, and takes one Adam step on the cross entropy of real against starts and fakes. Both kinds
    of start are needed: from the data alone fakes are as good as real and nothing is learned, from noise alone the
    network learns the norm of its input.
    """
    parameters = net.parameters()
    first = {key: np.zeros_like(value) for key, value in parameters.items()}
    second = {key: np.zeros_like(value) for key, value in parameters.items()}
    spread = data.z.std(axis=0)
    sample = data.windows(rng.choice(ends, _BATCH))
    real_level = float(np.median(net.abnormality(net.energies(sample))))
    fake_level = float(np.median(net.abnormality(net.energies(_distort(sample, spread, rng)))))
    parameters["bias"][0] = 0.5 * (real_level + fake_level)  # D = 0 half-way
    for step in range(1, _ADVERSARIAL_STEPS + 1):
        net = net.with_parameters(parameters)
        real = data.windows(rng.choice(ends, _BATCH))
        half = real[: _BATCH // 2]
        start = np.concatenate([rng.standard_normal(half.shape, np.float32) * spread, _distort(half, spread, rng)])
        fake = np.concatenate([start, net.generate(start, steps=_CLIMB_STEPS)])
        d_real = _sigmoid(net.forward(real)) - 1.0  # of -log sigmoid(D)
        d_fake = _sigmoid(net.forward(fake)) / 2.0  # of -log(1 - sigmoid(D)); twice as many of them
        if step % _TELL_EVERY == 0:  # a gradient of -log p is p - 1, of -log(1 - p) it is p
            loss = -np.log1p(np.maximum(d_real, -_NEARLY_ONE)).mean() - np.log1p(-_NEARLY_ONE * 2.0 * d_fake).mean()
            tell(step / _ADVERSARIAL_STEPS, float(loss))
        of_real, of_fake = net.weight_gradient(real, d_real), net.weight_gradient(fake, d_fake)
        for key in parameters:
            gradient = (of_real[key] + of_fake[key]) / _BATCH
            first[key] = 0.9 * first[key] + 0.1 * gradient
            second[key] = 0.999 * second[key] + 0.001 * gradient**2
            unbiased = first[key] / (1.0 - 0.9**step), second[key] / (1.0 - 0.999**step)
            parameters[key] = parameters[key] - _RATE * unbiased[0] / (np.sqrt(unbiased[1]) + 1e-8)
    return net.with_parameters(parameters)


def _distort(x: Float, spread: Float, rng: np.random.Generator) -> Float:
    """Windows with noise of half a deviation on every feature."""
    return (x + 0.5 * spread * rng.standard_normal(x.shape, np.float32)).astype(np.float32)


def _sigmoid(logit: NDArray[np.float64]) -> NDArray[np.float64]:
    return 1.0 / (1.0 + np.exp(-np.clip(logit, -60.0, 60.0)))


def window_energies(net: Discriminator, data: TrainingRows, ends: NDArray[np.intp]) -> Float:
    """e_s of the windows that end at rows ``ends`` (N,), shape (N, S)."""
    energies = np.empty((len(ends), len(net.scales)), np.float32)
    at = 0
    for batch in data.batches(ends):
        energies[at : at + len(batch)] = net.energies(data.windows(batch))
        at += len(batch)
    return energies


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
    clusters = min(clusters, max(1, len(points) // 8))
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
