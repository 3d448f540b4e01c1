"""How large a fault must be before a model raises an alert: the smallest one of each kind on each feature.

Faults of graded size are put into stretches of calm rows, the model scores them, and the rule of alerts (n of m rows
above the threshold) says which are told.  That is what a person gets from a model.  A ROC-AUC knows no threshold, and a
threshold that nothing reaches passes every count of false alarms.

Pure numpy.  `gate` decides what is too blind; this module only measures.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gon_edge.model.daily import follow
from gon_edge.model.file import Model
from gon_edge.model.gon import Float
from gon_edge.training.rows import TrainingRows, standardise

FAULT_ROWS = 20
"""How long a fault lasts: it must be told within these rows.  Not critical: the quick average of scores has all but
reached a step after ten."""

STRENGTHS = (0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0)
"""Sizes tried, in standard deviations of the feature; a reading counts up to 20 deviations from its mean."""

_EPISODES = 4
"""Stretches of calm rows, evenly spread; a fault is told when half of them tell it.  A bound on time: with four a
first training takes 3 to 10 % longer (600 to 20,000 rows, 4 to 38 features)."""

_FEATURES, _COMPARED = 16, 8
"""Features looked at of one model, and of two that are compared: those that change most often, where there are more.  A
bound on time, and on what is stored."""

_CHUNK_BYTES = 256 << 10
"""Rows with faults that are held at once.  Not critical: a quarter of a batch of windows, so it never sets the peak."""

_CONSTANT = 1e-5
"""A feature whose deviation is less than this part of its mean does not move: what `window.Scaler` believes."""

OFFSETS = ("offset up", "offset down")
GRADED = (*OFFSETS, "spike", "drift")
"""Kinds of faults that have a size.  An offset is there from one row to the next and stays, a spike lasts one row, a
drift reaches its size in the last row.  Spikes and drifts go up in every other stretch, down in the rest."""

PLAIN = ("frozen", "decoupled")
"""Kinds without one, for two features that move: a value that stands still, and the values of another stretch."""

Told = tuple[float | None, float | None, int]
"""Standard deviations, size in engineering units (None for a kind without a size), rows until the alert."""


@dataclass(frozen=True, slots=True)
class AlertRule:
    """``raise_rows`` of the last ``raise_of`` rows above the threshold raise an alert, as in `stream.alerts`."""

    raise_rows: int = 3
    raise_of: int = 5

    def raised(self, anomalous: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Rows (..., T) on which an alert is raised, or would be if none were open."""
        count = np.cumsum(anomalous, axis=-1, dtype=np.int32)
        before = np.zeros_like(count)
        before[..., self.raise_of :] = count[..., : -self.raise_of]
        raised: NDArray[np.bool_] = anomalous & (count - before >= self.raise_rows)
        return raised


DEFAULT_RULE = AlertRule()


@dataclass(frozen=True, slots=True)
class Stretches:
    """Stretches of normal rows that get faults in their last rows.

    Attributes
    ----------
    rows : ndarray of float32, shape (E, W + FAULT_ROWS, F)
        In engineering units.
    features : tuple of str
        Names of the F columns.
    spread : ndarray of float64, shape (F,)
        Standard deviation of each feature over all the rows; 0 for one that does not move.
    changes : ndarray of int, shape (F,)
        Rows in which each feature is another than before.
    """

    rows: Float
    features: tuple[str, ...]
    spread: NDArray[np.float64]
    changes: NDArray[np.intp]

    @classmethod
    def of(cls, rows: Float, restart: NDArray[np.bool_], features: Sequence[str], window: int) -> Stretches | None:
        """Evenly spread over normal rows (T, F); None where no unbroken piece is long enough."""
        length = window + FAULT_ROWS
        ends = np.flatnonzero(TrainingRows(rows, restart, window).age >= length)
        if not len(ends):
            return None
        ends = ends[np.unique(np.linspace(0, len(ends) - 1, _EPISODES).astype(np.intp))]
        spread, changes = np.zeros(rows.shape[1]), np.zeros(rows.shape[1], np.intp)
        for f, column in enumerate(rows.T):
            known = column[np.isfinite(column)].astype(np.float64)
            if known.size and known.std() > _CONSTANT * abs(known.mean()):
                spread[f], changes[f] = known.std(), np.count_nonzero(np.diff(known))
        return cls(rows[ends[:, None] + np.arange(1 - length, 1)], tuple(features), spread, changes)

    def movers(self, most: int, *models: Model) -> NDArray[np.intp]:
        """The features that every one of the models knows and that move; the ``most`` restless where they are more.

        Counters are left out: a fault added to their level is one odd rate, and then none.  So are differences to other
        days, which follow their readings.
        """
        known = np.array(
            [all(name in model.readings and name not in model.rising for model in models) for name in self.features]
        )
        moving = np.flatnonzero(known & (self.spread > 0.0))
        return np.sort(moving[np.argsort(-self.changes[moving], kind="stable")[:most]])

    def faulty(self, kind: str, columns: NDArray[np.intp], sizes: NDArray[np.float64]) -> Float:
        """The stretches with one fault in each copy, shape (N, E, W + FAULT_ROWS, F).

        Parameters
        ----------
        kind : str
            One of `GRADED` or `PLAIN`.
        columns : ndarray of int, shape (N,)
            The feature that has the fault.
        sizes : ndarray of float64, shape (N,)
            In engineering units; a kind without a size does not look at them.
        """
        stretch = self.rows[:, -FAULT_ROWS:]
        sign = np.where(np.arange(len(stretch)) % 2, -1.0, 1.0)[:, None]  # (E, 1)
        shape = {
            "offset up": np.ones(FAULT_ROWS),
            "offset down": -np.ones(FAULT_ROWS),
            "spike": sign * (np.arange(FAULT_ROWS) == 0),
            "drift": sign * np.linspace(1.0 / FAULT_ROWS, 1.0, FAULT_ROWS),
        }
        copies = np.repeat(self.rows[None], len(columns), axis=0)
        for copy, f, size in zip(copies, columns, sizes, strict=True):
            part = copy[:, -FAULT_ROWS:, f]
            if kind in shape:
                part += (size * shape[kind]).astype(np.float32)
            elif kind == "frozen":
                part[:] = copy[:, -FAULT_ROWS - 1, f, None]
            else:
                part[:] = np.roll(stretch[:, :, f], 1, axis=0)
        follow(copies, self.rows, self.features)
        return copies


class Watch:
    """One model that watches stretches, with and without faults.

    Parameters
    ----------
    model : Model
    stretches : Stretches
    rule : AlertRule

    Attributes
    ----------
    calm : ndarray of bool, shape (E,)
        Stretches on which the model raises no alert by itself.  The others say nothing of a fault.
    """

    def __init__(self, model: Model, stretches: Stretches, rule: AlertRule) -> None:
        self._model, self._stretches, self._rule = model, stretches, rule
        place = {name: i for i, name in enumerate(stretches.features)}
        self._columns = np.array([place.get(name, -1) for name in model.features], np.intp)
        raw = self._raw(stretches.rows, stretches.rows.shape[1])
        self._before = raw[:, :-FAULT_ROWS]
        self.calm = np.logical_not(self._raised(raw).any(axis=1))

    def smallest(self, kind: str, columns: NDArray[np.intp], usable: NDArray[np.bool_]) -> NDArray[np.intp]:
        """What it takes on each of N features, shape (N, 2): index in `STRENGTHS`, and rows until the alert.

        The index is ``len(STRENGTHS)`` where no size is told.  Found by halving: a larger fault is taken to be told
        where a smaller one is.  Only ``usable`` stretches (E,) count.
        """
        low, high = np.zeros(len(columns), np.intp), np.full(len(columns), len(STRENGTHS), np.intp)
        until = np.zeros(len(columns), np.intp)
        while len(open_ := np.flatnonzero(low < high)):
            middle = (low[open_] + high[open_]) // 2
            sizes = np.array(STRENGTHS)[middle] * self._stretches.spread[columns[open_]]
            rows = self.rows_until(kind, columns[open_], usable, sizes)
            told: NDArray[np.bool_] = rows > 0
            high[open_[told]], until[open_[told]] = middle[told], rows[told]
            low[open_[~told]] = middle[~told] + 1
        return np.stack([high, until], axis=1)

    def rows_until(
        self,
        kind: str,
        columns: NDArray[np.intp],
        usable: NDArray[np.bool_],
        sizes: NDArray[np.float64],
    ) -> NDArray[np.intp]:
        """Rows until half of the usable stretches have told a fault, from 1, for each of N features; 0 for never."""
        found = np.zeros(len(columns), np.intp)
        chunk = max(1, _CHUNK_BYTES // self._stretches.rows.nbytes)
        for i in range(0, len(columns), chunk):
            copies = self._stretches.faulty(kind, columns[i : i + chunk], sizes[i : i + chunk])
            count, episodes, length, width = copies.shape
            raw = self._raw(copies.reshape(-1, length, width), FAULT_ROWS)
            raised = self._raised(np.concatenate([np.tile(self._before, (count, 1)), raw], axis=1))[:, -FAULT_ROWS:]
            told = np.maximum.accumulate(raised, axis=1).reshape(count, episodes, FAULT_ROWS)[:, usable]
            half = 2 * told.sum(axis=1) >= told.shape[1]  # (count, FAULT_ROWS)
            found[i : i + chunk] = np.where(half.any(axis=1), half.argmax(axis=1) + 1, 0)
        return found

    @property
    def silent(self) -> bool:
        """Whether no stretch raises an alert even when all features jump up by the largest size at once."""
        faulty = self._stretches.rows.copy()
        faulty[:, -FAULT_ROWS:] += (STRENGTHS[-1] * self._stretches.spread).astype(np.float32)
        raw = np.concatenate([self._before, self._raw(faulty, FAULT_ROWS)], axis=1)
        return not self._raised(raw)[:, -FAULT_ROWS:].any()

    def _raw(self, stretches: Float, last: int) -> NDArray[np.float64]:
        """Abnormality of the windows that end at the ``last`` rows of each stretch (N, L, F), begun anew: (N, last).

        With `_raised` the one place that knows how a model judges rows.
        """
        model, net = self._model, self._model.discriminator
        count, length, _ = stretches.shape
        known = np.where(self._columns >= 0, stretches[:, :, self._columns], np.float32(np.nan))
        rows = known.reshape(count * length, -1)
        restart = np.arange(len(rows)) % length == 0
        data = TrainingRows(standardise(model.judged(rows, restart), model.scaler, rows), restart, net.window)
        ends = (np.arange(1, count + 1)[:, None] * length + np.arange(-last, 0)).ravel()
        raw = net.abnormality_after_restart(data.energies(net, ends), data.age[ends], model.typical)
        return raw.reshape(count, last)

    def _raised(self, raw: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Where alerts would be raised, from the abnormality of whole stretches (N, L); same shape."""
        restart = np.arange(raw.size) % raw.shape[1] == 0
        scores = self._model.smoother().smooth(raw.ravel(), restart).reshape(raw.shape)
        return self._rule.raised(scores > self._model.threshold)


def smallest_told(
    model: Model, rows: Float, restart: NDArray[np.bool_], features: Sequence[str], rule: AlertRule
) -> dict[str, dict[str, Told | None]]:
    """The smallest fault of each kind on each feature that raises an alert.

    Parameters
    ----------
    model : Model
    rows : ndarray of float32, shape (T, F)
        Normal rows in engineering units, oldest first; NaN where a value is missing.
    restart : ndarray of bool, shape (T,)
        True where a row does not follow the one before it.
    features : sequence of str
        Names of the F columns.
    rule : AlertRule

    Returns
    -------
    dict
        By kind and feature, what was `Told`; None where no size raises an alert.  Empty where nothing can be said: no
        stretch is long enough, no feature moves, or the model is in alarm on more than half of the stretches.
    """
    stretches = Stretches.of(rows, restart, features, model.discriminator.window)
    if stretches is None or not len(movers := stretches.movers(_FEATURES, model)):
        return {}
    watch = Watch(model, stretches, rule)
    if 2 * np.count_nonzero(watch.calm) < len(watch.calm):
        return {}
    found: dict[str, dict[str, Told | None]] = {}
    for kind in GRADED:
        found[kind] = {}
        for f, (index, until) in zip(movers, watch.smallest(kind, movers, watch.calm), strict=True):
            told = int(index) < len(STRENGTHS)
            size = float(f"{STRENGTHS[index] * stretches.spread[f]:.4g}") if told else None
            found[kind][features[f]] = (STRENGTHS[index], size, int(until)) if told else None
    for kind in PLAIN if len(movers) > 1 else ():
        until = watch.rows_until(kind, movers, watch.calm, np.zeros(len(movers)))
        found[kind] = {features[f]: (None, None, int(n)) if n else None for f, n in zip(movers, until, strict=True)}
    return found


def silent(model: Model, rows: Float, restart: NDArray[np.bool_], features: Sequence[str], rule: AlertRule) -> bool:
    """Whether nothing raises an alert, not even all features far off at once; arguments of `smallest_told`."""
    stretches = Stretches.of(rows, restart, features, model.discriminator.window)
    return stretches is not None and len(stretches.movers(1, model)) > 0 and Watch(model, stretches, rule).silent


@dataclass(frozen=True, slots=True)
class Coarser:
    """By how much larger offsets must be for one model than for another.

    Attributes
    ----------
    ratio : float
        Geometric mean over features, up and down.  A size that is never told counts as the next one after the largest.
    feature : str
        Where they differ most.
    size, size_before : float or None
        What each needs there, signed, in engineering units; None for never.
    """

    ratio: float
    feature: str
    size: float | None
    size_before: float | None


def compared(
    new: Model, old: Model, rows: Float, restart: NDArray[np.bool_], features: Sequence[str], rule: AlertRule
) -> Coarser | None:
    """How much larger offsets must be for ``new``, on rows that neither calls abnormal; arguments of `smallest_told`.

    None where nothing can be said.
    """
    stretches = Stretches.of(rows, restart, features, max(new.discriminator.window, old.discriminator.window))
    if stretches is None or not len(movers := stretches.movers(_COMPARED, new, old)):
        return None
    watches = [Watch(model, stretches, rule) for model in (new, old)]
    usable = watches[0].calm & watches[1].calm
    if 2 * np.count_nonzero(usable) < len(usable):
        return None
    indices = [[watch.smallest(kind, movers, usable)[:, 0] for kind in OFFSETS] for watch in watches]  # (2, 2, N)
    coarser = np.array(indices[0]) - np.array(indices[1])
    kind, worst = np.unravel_index(int(coarser.argmax()), coarser.shape)
    sign = (1.0, -1.0)[kind]
    largest = np.append(STRENGTHS, np.nan)
    sizes = [sign * largest[index[kind][worst]] * stretches.spread[movers[worst]] for index in indices]
    after, before = (None if np.isnan(size) else float(f"{size:.4g}") for size in sizes)
    return Coarser(round(float(2.0 ** coarser.mean()), 3), features[movers[worst]], after, before)
