"""What a model thinks normal looks like: windows it makes itself, and recorded windows to hold beside them.

The discriminator makes them: from noise in the directions of its longest scale, around each of its prototypes in turn,
it climbs its own slope, and stops half-way back to the noise, where it finds the window as normal as a typical one.
The top of the slope itself would be the prototype, smoother than anything real.

Pure: model and rows in, arrays out.  ``commands/sample`` writes them as a table, as CSV and as a picture, and
``training/memory`` has models learn what they make of states that no row shows any more.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from gon_edge.errors import InputError
from gon_edge.model.file import Model
from gon_edge.model.gon import Discriminator, Float
from gon_edge.model.quantize import orthonormal_rows
from gon_edge.model.smoothing import fill

_CLIMB_STEPS = 50
_HALVINGS = 20
_STARTS = 4
"""Starts for each window wanted."""


def generated_windows(
    model: Model, count: int, rng: np.random.Generator, around: NDArray[np.intp] | None = None
) -> NDArray[np.float64]:
    """Make windows that the model finds as normal as a typical one.

    Parameters
    ----------
    model : Model
    count : int
        N.
    rng : numpy.random.Generator
    around : ndarray of int, optional
        Prototypes of the longest scale to begin from; all of them without.

    Returns
    -------
    ndarray, shape (N, W, F)
        In engineering units.
    """
    net = model.discriminator
    prototypes = np.arange(len(net.scales[-1].prototypes)) if around is None else around
    start = _noise(net, rng.permutation(np.resize(prototypes, _STARTS * count)), rng)
    top = net.generate(start, steps=_CLIMB_STEPS)
    left = np.maximum(net.abnormality(net.energies(top)) - model.typical, 0.0)
    kept = np.argsort(left, kind="stable")[:count]  # some tops lie between two modes and are none
    start, top = start[kept], top[kept]
    low, high = np.zeros((count, 1, 1), np.float32), np.ones((count, 1, 1), np.float32)
    for _ in range(_HALVINGS):
        middle = (low + high) / 2.0
        normal = net.abnormality(net.energies(top + middle * (start - top))) <= model.typical
        low = np.where(normal[:, None, None], middle, low)
        high = np.where(normal[:, None, None], high, middle)
    return model.scaler.inverse(top + low * (start - top))


def _noise(net: Discriminator, prototypes: NDArray[np.intp], rng: np.random.Generator) -> Float:
    """Windows (N, W, F) of noise as the longest scale knows it: each around one of its prototypes (N,), and what it
    does not see.
    """
    scale = net.scales[-1]
    basis = orthonormal_rows(scale.weight.dequantize())  # (H, W*F)
    centre = scale.prototypes[prototypes]  # (N, H)
    p = (centre + rng.standard_normal(centre.shape)) / scale.gain
    unseen = rng.standard_normal((len(centre), basis.shape[1])) / np.sqrt(scale.kappa)
    unseen -= unseen @ basis.T @ basis
    noise: Float = (p @ basis + unseen).astype(np.float32).reshape(-1, net.window, net.features)
    return noise


def real_windows(
    model: Model,
    values: NDArray[np.floating],
    features: Sequence[str],
    restart: NDArray[np.bool_],
    count: int,
    rng: np.random.Generator,
) -> NDArray[np.float64]:
    """Draw whole windows of recorded rows.

    Parameters
    ----------
    model : Model
    values : ndarray, shape (T, F')
        In engineering units, oldest row first; NaN where a reading is missing.
    features : sequence of str
        Names of the F' columns, in any order.
    restart : ndarray of bool, shape (T,)
        True where a row does not follow the one before it; no window reaches across.
    count : int
    rng : numpy.random.Generator

    Returns
    -------
    ndarray, shape (N, W, F)
        In the model's order of features, counters as their rates; a missing reading is the one before it.  Fewer than
        ``count`` where there are not so many windows that do not overlap at their ends.

    Raises
    ------
    InputError
        When there is no whole window, or when a feature of the model has no column.
    """
    missing = [name for name in model.readings if name not in features]
    if missing:
        raise InputError(f"the recorded rows lack features of the model: {', '.join(missing)}")
    place = {name: i for i, name in enumerate(features)}
    known = np.full(
        (len(values), len(model.features)), np.nan, values.dtype
    )  # differences stay unknown: 0 to the model
    for column, name in enumerate(model.features):
        if name in place:
            known[:, column] = values[:, place[name]]
    length = model.discriminator.window
    z = fill(model.scaler.transform(model.judged(known, restart)[:]))
    first = np.maximum.accumulate(np.where(restart, np.arange(len(z)), 0))
    ends = np.flatnonzero(np.arange(len(z)) - first >= length - 1)
    if not ends.size:
        raise InputError(f"no {length} recorded rows in a row yet, which is a window; wait for more")
    chosen = np.sort(rng.choice(ends, min(count, ends.size), replace=False))
    return model.scaler.inverse(np.stack([z[end - length + 1 : end + 1] for end in chosen]))
