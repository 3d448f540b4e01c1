"""Finds a model for the rows of one stream: numpy only, in a few passes, in little memory.

It happens in this order.  *Screening*: rows that look absurd to a model of the others are left out.  *Calibration*: a
network of the older rows scores the newer ones.  *Fit*: a network of all rows.  *Threshold*: the held-out scores say
where energies start to count, what is typical, and above which score a row is abnormal.  `subspaces` and `adversarial`
make each network, `threshold` fits the tail.

Rows are held once as they came and once standardised.  Everything else goes by batches and columns, so memory is known
from shapes: `plan` predicts it, and must follow a change here.  Pure: rows in, model out, randomness through ``rng``.
This module does not know processes, budgets or files (`child` does), nor the seconds between rows.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gon_edge.errors import NotEnoughData
from gon_edge.model.counters import Judged, Rows, rising
from gon_edge.model.daily import scaled
from gon_edge.model.file import Model
from gon_edge.model.gon import Discriminator, Float
from gon_edge.model.smoothing import Smoother
from gon_edge.model.window import Scaler
from gon_edge.training.adversarial import train_adversarially
from gon_edge.training.habits import come_again
from gon_edge.training.rows import TrainingRows, extremes, longest_runs, standardise
from gon_edge.training.settings import FitSettings
from gon_edge.training.subspaces import floor, foretelling, levels, sampled, untrained
from gon_edge.training.threshold import fit_threshold

Progress = Callable[[str, float, float | None], None]

_ODD_SHARE = 0.03
_ODD_RATIO = 4.0
"""At most this share of the training rows is left out: those whose energy is more than four times the largest of the
others, twice as far from normal.  Ratios of 8 and 16 left more hidden faults in (docs/detection.md)."""

_SCREENING_SCALES = (1, 5)
"""Short, so that a row is blamed for itself and not for its neighbours."""

_SCREENING_WINDOWS = 3000
_SCREENING_PARTS = 3
"""Windows that each screening network learns from, and parts of the rows that are judged in turn.  Not critical:
with 1000 windows the mean average precision was 0.707 instead of 0.698 (seed 0), and three parts keep a mode that comes
in two of them."""

_SCREENING_TIME = 0.15
"""Share of a fit's time.  Not critical: progress bars move by it."""

_HELD_OUT = 1 / 3
"""Share of the rows, the newest, that calibrates.  A stream is judged by what came before it, so this is the one
held-out part that resembles use.  With the first and the middle third held out in turn as well, a state that only they
hold raised the threshold for good (mean F1 0.36, against 0.50; shares from 0.3 to 0.5 gave 0.48 to 0.50)."""

_FOREIGN = 20.0
"""The newest third is of another state than all rows before it, as the first working day after a weekend is, where
energies start to count so many times higher (the geometric mean of scales) than those of known rows do.  Such a scale
of scores is deaf.  It was 6 at most on nineteen recordings, 12 in an office a day later, 400 on that first day."""

_BLOCK_WINDOWS = 3
"""Windows in a block; every third one is held out then.  Not critical: most of it is a window from what is known."""

_KNOWN_ALARMS = 0.015
"""Largest share of training rows that may lie above the threshold.  It is below what the gate of a training allows: the
first model of a record whose newest part is calm would never pass it."""

_RARE_SHARE = 0.1
"""Confirmed rows and habits are rare when they are no more than this share of the rows: then prototypes of their own
show them to the network.  More of them need no help."""

_RARE_MARGIN, _RARE_RAISE = 1.2, 2.0
"""The threshold lies above what the network says of rare rows that it knows, by a fifth, but for their sake it is twice
as high at most: a habit that the network cannot learn must not make it blind to everything else.  With 1.75 a job of
six made servers was told on 4 of 18 nights after it was learned, and with 2 on one."""


class Fitted(NamedTuple):
    """What `fit` returns.

    Attributes
    ----------
    model : Model
    learned : ndarray of bool, shape (T,)
        False for rows that were left out as odd.
    """

    model: Model
    learned: NDArray[np.bool_]


def fit_model(rows: ArrayLike, **known: Any) -> Model:
    """Fit a model on normal rows, where nobody asks which of them were left out; `fit` says what the arguments are.

    Examples
    --------
    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> model = fit_model(rng.normal(20.0, 0.5, (500, 2)), features=["flow", "level"], rng=rng)
    >>> model.features
    ('flow', 'level')
    """
    return fit(rows, **known).model


# Many parameters: rows, and what is known of each of them.
def fit(
    rows: ArrayLike,
    *,
    features: Sequence[str] | None = None,
    restart: NDArray[np.bool_] | None = None,
    trusted: NDArray[np.bool_] | None = None,
    times: NDArray[np.float64] | None = None,
    settings: FitSettings | None = None,
    rng: np.random.Generator,
    progress: Progress = lambda phase, share, loss: None,
) -> Fitted:
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
    trusted : ndarray of bool, shape (T,), optional
        Rows that a person has confirmed as normal, or that are a habit: none of them is left out as odd.
    times : ndarray of float64, shape (T,), optional
        Unix seconds: what comes again at the same hour of three days is not left out either.
    settings : FitSettings, optional
    rng : numpy.random.Generator
        Same rows, same generator state: same model, byte for byte.
    progress : callable
        Called with the phase (``screen``, ``calibrate``, ``fit``, ``done``), the share done, 0 to 1, and the loss of
        the adversarial step where one runs.

    Returns
    -------
    Fitted
        The model is of unknown interval; ``dataclasses.replace`` adds what only the caller knows.

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
    pieces = np.zeros(len(raw), np.bool_) if restart is None else restart.astype(np.bool_)
    names = tuple(features) if features is not None else tuple(f"x{i}" for i in range(raw.shape[1]))
    is_counter = rising(raw, pieces, names, settings.counter, settings.gauge)
    judged = Judged(raw, pieces, is_counter)
    progress("screen", 0.0, None)
    odd = odd_rows(judged, pieces, settings, rng, names)
    known = np.zeros(len(raw), np.bool_) if trusted is None else trusted.astype(np.bool_)
    if times is not None:
        known |= come_again(judged, odd, times)
    kept = np.flatnonzero(~odd | known)
    scaler = scaled(Scaler.fit(judged, kept), names)
    z = standardise(judged, scaler, np.empty((len(kept), raw.shape[1]), np.float32), kept)
    rare = known[kept] if 0.0 < known[kept].mean() <= _RARE_SHARE else None
    data = TrainingRows(z, _pieces_of(pieces, kept), settings.window, rare)
    net, typical, threshold = _calibrated(data, settings, rng, progress)
    lowest, highest = extremes(judged, kept)
    progress("done", 1.0, None)
    model = Model(
        features=names,
        scaler=scaler,
        discriminator=net,
        smoothing=settings.smoothing,
        threshold=threshold,
        typical=typical,
        longest_run=longest_runs(raw),
        rising=tuple(name for name, counts in zip(names, is_counter, strict=True) if counts),
        lowest=lowest,
        highest=highest,
    )
    return Fitted(model, ~odd | known)


def odd_rows(
    raw: Rows | Judged,
    restart: NDArray[np.bool_],
    settings: FitSettings,
    rng: np.random.Generator,
    features: Sequence[str] = (),
) -> NDArray[np.bool_]:
    """Which rows (T,) look absurd to a model of the others: a fault that nobody took out of the training rows.

    At most ``_ODD_SHARE`` of the rows, shape (T, F), and only those that lie far outside the rest.  A mode that the
    machine took more often, or in more than one part of the rows, stays.  Left in, odd rows stretch the scaler, get a
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
        scaler = scaled(Scaler.fit(raw, others), features)  # not stretched by what is in question
        data = TrainingRows(standardise(raw, scaler, z), restart, reach)
        net = untrained(data, sampled(ends, _SCREENING_WINDOWS, rng), _SCREENING_SCALES, settings, rng)
        energies[part] = data.energies(net, part)
    lowest = [floor(rows, raw.shape[1]) for rows in _SCREENING_SCALES]
    usual = np.maximum(np.quantile(energies, 1.0 - _ODD_SHARE, axis=0), lowest)
    ratio = (energies / usual).max(axis=1)
    odd: NDArray[np.bool_] = ratio > max(_ODD_RATIO, float(np.quantile(ratio, 1.0 - _ODD_SHARE)))
    return odd


def _pieces_of(restart: NDArray[np.bool_], kept: NDArray[np.intp]) -> NDArray[np.bool_]:
    """Where unbroken pieces begin among the rows at indices ``kept`` (N,): a row left out breaks a piece in two."""
    pieces = np.diff(kept, prepend=-1) > 1
    pieces[1:] |= np.diff(np.cumsum(restart)[kept]) > 0
    return pieces


def _calibrated(
    data: TrainingRows, settings: FitSettings, rng: np.random.Generator, progress: Progress
) -> tuple[Discriminator, float, float]:
    """A network of all rows, the typical abnormality and the threshold; both from scores of rows held out.

    Of rare rows the threshold only hears by what the network that knows them says: held out, a job that comes
    once in the rows before would count as the tail of everything else.
    """
    net, known, later, energies = _fitted(data, settings, rng, progress)
    age = data.age[later]
    whole = age >= settings.window
    if not whole.any():
        whole[:] = True  # too few rows for a window: padded ones are all there is
    net = net.with_levels(levels(energies[whole], net))
    typical = float(np.median(net.abnormality(energies[whole])))
    smoother = Smoother(settings.smoothing, settings.window)
    scores = smoother.smooth(net.abnormality_after_restart(energies, age, typical), age == 1)
    usual = ~data.near_rare(2 * settings.window)
    if not usual[later].any():
        usual[:] = True  # too few rows to set any apart
    # What the older rows did was normal too, even where the newest third was calmer.
    all_scores = smoother.smooth(net.abnormality_after_restart(known, data.age, typical), data.age == 1)
    threshold = fit_threshold(
        scores[usual[later]], all_scores[usual], settings.risk, doubted=_ODD_SHARE, most_known=_KNOWN_ALARMS
    )
    highest = float(all_scores[~usual].max(initial=0.0))
    return net, typical, max(threshold, min(_RARE_MARGIN * highest, _RARE_RAISE * threshold))


def _fitted(
    data: TrainingRows, settings: FitSettings, rng: np.random.Generator, progress: Progress
) -> tuple[Discriminator, Float, NDArray[np.intp], Float]:
    """A network of all rows and the energies (T, S) it gives them; rows (N,), and those that one without them gives."""
    everything = np.arange(len(data))
    later = _held_out(len(data), settings.window)
    past = everything[: -len(later)] if len(later) < len(data) else everything
    share = (1.0 - _SCREENING_TIME) / 2.0  # of the whole time, for one of two networks

    def tell(phase: str, fits: int) -> Callable[[float, float], None]:
        return lambda done, loss: progress(phase, _SCREENING_TIME + (fits + done) * share, loss)

    progress("calibrate", _SCREENING_TIME, None)
    energies = data.energies(fit_discriminator(data, past, settings, rng, tell("calibrate", 0)), later)
    progress("fit", 1.0 - share, None)
    net = fit_discriminator(data, everything, settings, rng, tell("fit", 1))
    known = data.energies(net, everything)
    blocks = everything // (_BLOCK_WINDOWS * settings.window)
    if blocks[-1] >= 2 and _is_foreign(net, energies, known):
        later, past = np.flatnonzero(blocks % 3 == 2), np.flatnonzero(blocks % 3 < 2)
        energies = data.energies(fit_discriminator(data, past, settings, rng), later)
    return net, known, later, energies


def _is_foreign(net: Discriminator, energies: Float, known: Float) -> bool:
    """Whether rows held out, by their energies (N, S), have little in common with those that are known, (T, S)."""
    return float(np.log(levels(energies, net) / levels(known, net)).mean()) > math.log(_FOREIGN)


def fit_discriminator(
    data: TrainingRows,
    ends: NDArray[np.intp],
    settings: FitSettings,
    rng: np.random.Generator,
    tell: Callable[[float, float], None] = lambda done, loss: None,
) -> Discriminator:
    """A trained network from the windows that end at rows ``ends`` (N,); ``tell`` hears the share done and the loss."""
    ends = sampled(ends, settings.max_windows, rng)
    net = train_adversarially(untrained(data, ends, settings.scales, settings, rng), data, ends, rng, tell)
    return foretelling(net, data, ends)


def _held_out(rows: int, window: int) -> NDArray[np.intp]:
    """The newest rows, to be scored by a model of those before them; all rows where those are less than a window.

    Their windows reach back, so there may be fewer of them than a window has rows: calibrated on what it had learned, a
    model of 60 rows was in alarm from its first row on.
    """
    first = rows - int(_HELD_OUT * rows)
    return np.arange(first if window <= first < rows else 0, rows)
