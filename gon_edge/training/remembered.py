"""What was normal once and no stored row shows any more: windows that the model in use makes of it, to learn again.

The store keeps so many rows.  A machine that makes another product for weeks outlives them, and a model of what is
left calls the first product a fault.  But the model in use still knows it, and its network is a generator.  Prototypes
of its longest scale that hardly any row's window is nearest to stand for states whose rows are gone; windows made
around these join the rows of the training.  Only these: of windows made around all prototypes, fewer were of the old
state with each training, and after three it was forgotten (docs/research/daemon.md).

Pure: model and rows in, rows out.  `child` asks when rows have gone, and `plan` counts what may come.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from gon_edge.model.file import Model
from gon_edge.model.gon import Discriminator, Float
from gon_edge.model.sample import generated_windows
from gon_edge.state.chunk import RowChunk
from gon_edge.training.rows import BATCH_BYTES, TrainingRows, in_order, standardise

_VALUES = 32768
"""Of the windows, at most: 64 KiB as float16.  With as many values of stored windows models were no better."""

_WINDOWS = 64  # at most.  Not critical: a prototype is eight of them, and a climb of more takes memory
_ROUNDS = 4  # of making windows, each as many as are wanted.  Not critical: half of them end elsewhere at most
_FEWEST = 4  # windows that are worth it.  Not critical
_SHARE = 0.25  # of the rows, at most: what the machine does now stays most of what is learned

_LEAST_SHARE, _DROP = 0.005, 0.1
"""A prototype that at least the first share of the windows was nearest to, when the model was made, and now less than a
tenth of that, stands for what the rows do not show any more.  Not critical; a prototype of fewer was one of odd windows
from the beginning."""

_LOOKED_AT = 2000  # windows of the rows, at most a batch of them.  Not critical: a share of 0.005 is ten of them


def most_remembered(rows: int, features: int, window: int) -> int:
    """Most rows that may join ``rows`` x ``features``: whole windows, or none."""
    windows = min(_WINDOWS, _VALUES // (window * features), int(_SHARE * rows) // window)
    return windows * window if windows >= _FEWEST else 0


def remembered(
    model: Model, rows: RowChunk, faults: Sequence[RowChunk], interval_s: float, rng: np.random.Generator
) -> RowChunk | None:
    """Windows of what ``model`` knows and the rows do not show, one after the other, from before the rows' time.

    Parameters
    ----------
    model : Model
    rows : RowChunk
        What there is to learn, T rows of F features.
    faults : sequence of RowChunk
        What a person called a fault after the model may have learned it: what it knows of that is not remembered.
    interval_s : float
    rng : numpy.random.Generator

    Returns
    -------
    RowChunk or None
        With the features of ``rows``; a feature that the model does not know is NaN.  None where all that the model
        knows is still there.
    """
    net = model.discriminator
    count = most_remembered(len(rows.timestamps), len(rows.features), net.window) // net.window
    before = np.array(model.lineage.get("visits", ()))
    if before.shape != (len(net.scales[-1].prototypes),):  # made by a gon-edge that did not count them
        return None
    now = _shares(net, _windows(model, rows, rng))
    seen = (before < _LEAST_SHARE) | (now >= _DROP * before)
    for fault in faults:
        windows = _windows(model, fault, rng)
        windows = windows[net.abnormality(net.energies(windows)) <= model.threshold]
        seen |= _shares(net, windows) > 0.0
    if not count or seen.all():
        return None
    made = _made(model, count, np.flatnonzero(~seen), rng)
    if len(made) < _FEWEST:
        return None
    made[..., model.is_counter] = np.cumsum(made[..., model.is_counter], axis=1)  # rates, and rows hold readings
    values = in_order(rows.features, made.reshape(-1, net.features), model.features)
    at = np.arange(len(values))
    return RowChunk(
        features=rows.features,
        timestamps=rows.timestamps[0] - interval_s * (len(values) - at),
        values=values,
        restart=at % net.window == 0,
        quarantined=np.zeros(len(values), np.bool_),
    )


def visits(model: Model, rows: RowChunk, gone: RowChunk | None, rng: np.random.Generator) -> list[float]:
    """Which share of the windows is nearest to each of the K prototypes of the longest scale, to four places.

    The larger one of two shares: of the rows' whole windows, and of all windows of what is remembered, ``gone``.  That
    is few beside all rows, and training sees its windows padded.  The lineage of a model has it as ``visits``.
    """
    shares = _shares(model.discriminator, _windows(model, rows, rng))
    if gone is not None:
        shares = np.maximum(shares, _shares(model.discriminator, _windows(model, gone, rng, age=1)))
    return [round(share, 4) for share in shares.tolist()]


def as_long(longest_run: NDArray[np.int32], features: tuple[str, ...], champion: Model) -> NDArray[np.int32]:
    """How long each feature (F,) may stand still: as long as the champion allows, too."""
    allowed = dict(zip(champion.features, champion.longest_run.tolist(), strict=True))
    return np.maximum(longest_run, np.array([allowed.get(name, 0) for name in features], np.int32))


def joined(first: RowChunk, then: RowChunk) -> RowChunk:
    """Rows of the same features, one after the other."""
    return RowChunk(
        then.features,
        np.concatenate([first.timestamps, then.timestamps]),
        np.concatenate([first.values, then.values]),
        np.concatenate([first.restart, then.restart]),
        np.concatenate([first.quarantined, then.quarantined]),
    )


def _made(model: Model, count: int, prototypes: NDArray[np.intp], rng: np.random.Generator) -> NDArray[np.float64]:
    """At most ``count`` windows (N, W, F) that the model makes around prototypes, and that end near one of them.

    A prototype of a few odd windows is none to end at: the climb from it leads to the state the machine is in.
    """
    net, found = model.discriminator, []
    for _ in range(_ROUNDS):
        made = generated_windows(model, count, rng, prototypes)
        z = model.scaler.transform(made.reshape(-1, net.features)).reshape(made.shape).astype(np.float32)
        found.append(made[np.isin(net.nearest_prototypes(z), prototypes)])
        if sum(map(len, found)) >= count:
            break
    return np.concatenate(found)[:count]


def _shares(net: Discriminator, windows: Float) -> NDArray[np.float64]:
    nearest = net.nearest_prototypes(windows) if len(windows) else np.empty(0, np.intp)
    return np.bincount(nearest, minlength=len(net.scales[-1].prototypes)) / max(1, len(windows))


def _windows(model: Model, rows: RowChunk, rng: np.random.Generator, age: int | None = None) -> Float:
    """Some windows (N, W, F) of the rows as training sees them: whole ones, or those of at least ``age`` rows."""
    shown = in_order(model.features, rows.values, rows.features)
    window = model.discriminator.window
    data = TrainingRows(standardise(model.judged(shown, rows.restart), model.scaler, shown), rows.restart, window)
    ends = np.flatnonzero(data.age >= (age or window))
    most = min(_LOOKED_AT, BATCH_BYTES // (4 * window * len(model.features)))
    return data.windows(rng.choice(ends, most, replace=False) if len(ends) > most else ends)
