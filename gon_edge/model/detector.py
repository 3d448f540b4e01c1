"""One stream's detector: rows in, verdicts out, and what makes a row abnormal.

The daemon runs ``Detector``, a row at a time.  ``estimator`` has the same model behind an array interface; both give
the same scores, and a change here is a change there.  This module does not know when a run of abnormal rows becomes an
alert (``stream.alerts``), nor how a model is found.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gon_edge.events import Cause, Row, Verdict
from gon_edge.model import daily
from gon_edge.model.counters import rates
from gon_edge.model.daily import Columns, DayMemory
from gon_edge.model.decision import Decision
from gon_edge.model.explain import explainer, forget, normalised
from gon_edge.model.file import Model
from gon_edge.model.gon import Float
from gon_edge.model.window import CLIP, SlidingWindow, clipped

SMALLEST_SHARE = 0.05
"""Causes with a smaller share are not worth a line: such features mostly moved to meet the others."""

_FROZEN = 10
_FROZEN_ROWS = 300
"""A feature is frozen after ten times its longest still run in training, and at least five minutes at 1 Hz.  Not
critical: slow sensors repeat values, and a sensor that died stays still for hours.  A feature at 0, or at its lowest in
training, is off and not frozen, for as long as it likes: solar panels at night.  Whether that is normal now, the score
says."""

_NOTHING = 1e-4
"""Standard deviations from zero that are rounding.  Not critical: -1e-6 is what a person was told to expect of a
network card at rest."""


class _Met(NamedTuple):
    """Where the model's features stand in rows of some features."""

    names: tuple[str, ...]
    columns: NDArray[np.intp]
    """Of each, -1 for one that is not there."""
    chosen: Columns
    """The same of those that are there."""
    present: Columns
    """Those that are."""
    has_all: bool
    """The readings, which are all but differences."""


@cache
def _of_each(
    features: int,
) -> tuple[NDArray[np.bool_], tuple[NDArray[np.float64], NDArray[np.float64]], NDArray[np.intp]]:
    """What detectors of as many features share: none of them, how far each may lie out, lowest and highest, and all."""
    none, most, columns = np.zeros(features, np.bool_), np.full(features, CLIP), np.arange(features)
    none.flags.writeable = columns.flags.writeable = False
    return none, (-most, most), columns


class Detector:
    """Scores the rows of one stream.

    Parameters
    ----------
    model : Model
    top : int
        Most causes named in a verdict.
    days : DayMemory, optional
        What the hours of the days before were like, for a model that looks at that.  Who hands it in adds the rows;
        without one, the detector remembers those that it scores.

    Examples
    --------
    >>> import numpy as np
    >>> from gon_edge.events import Row
    >>> from gon_edge.training.fit import fit_model
    >>> rng = np.random.default_rng(0)
    >>> detector = Detector(fit_model(rng.normal(20.0, 0.5, (500, 1)), features=["celsius"], rng=rng))
    >>> row = Row("room", 0.0, ("celsius",), np.float32([35.0]), np.array([False]))
    >>> verdict = detector.update(row)
    >>> verdict.is_anomaly, verdict.causes[0].feature
    (True, 'celsius')
    """

    def __init__(self, model: Model, *, top: int = 5, days: DayMemory | None = None) -> None:
        self.model = model
        self._top = top
        self._days = days or DayMemory()
        self._remembers = days is None
        differences, readings = daily.columns(model.features)
        self._compared = tuple(model.features[f] for f in readings)  # readings that have a difference
        self._differences, self._of = daily.sliced(differences), daily.sliced(readings)
        self._net = model.discriminator
        rows = 2 * self._net.window  # two windows: causes look back one more
        self._window = SlidingWindow(rows, len(model.features))
        self._measured = SlidingWindow(rows, len(model.features))  # as they came, neither clipped nor generated
        self._age = 0  # rows since the last restart
        self._asked = 0  # rows for which what explanations keep is kept yet
        self._smoother = model.smoother()
        self._levels = model.levels()
        self._extremes = model.extremes
        self._decision = Decision(model.threshold)
        self._changed = False
        self._met: _Met | None = None  # the features of the newest row
        self._rows = 0
        self._moved_at = np.zeros(len(model.features), np.int64)  # row at which each was another than in the one before
        self._frozen_from = 0  # no row before it has a frozen feature
        self._last = np.full(len(model.features), np.nan, np.float32)  # as it came, stale or not
        self._known = self._last  # of it what was usable
        self._none, self._clip, self._columns = _of_each(len(model.features))
        self._masked = self._none
        self._is_counter = model.is_counter if model.rising else self._none
        self._is_whole = not (model.rising or self._compared)  # where each reading has a value, each feature has

    def update(self, row: Row) -> Verdict:
        """Judge a row by itself and the rows before it, and say what makes it anomalous if it is."""
        verdict = self.score(row)
        return replace(verdict, causes=self.causes()) if verdict.is_anomaly else verdict

    def score(self, row: Row) -> Verdict:
        """Judge a row as :meth:`update` does, but without causes: a fraction of the time on anomalous rows.

        Features the model does not know are ignored; features it misses in the row, or that are stale or frozen, are
        masked: generated from the others, so that they neither raise nor hide a score.
        """
        model = self.model
        restart = row.restart or not self._age
        values, unusable, missing = self._select(row, restart)
        left = None
        z: NDArray[np.floating]
        if unusable is self._none and self._is_whole and not restart and self._levels.skip():  # nearly every row
            self._masked = unusable
            place = (values - model.scaler.mean) / model.scaler.scale
            low, high = self._clip
            z = np.maximum(np.minimum(place, high), low)  # the window makes it float32
        else:
            place = model.scaler.standardise(values)
            left, begins = self._levels.take(place, restart=restart)
            restart |= begins
            z = clipped(place - self._levels.shift)
            self._masked = unusable | np.isnan(z)  # a counter is no news at a row by itself: it has no rate yet
            if self._masked.any():
                z = self._net.impute(z, self._masked)
        if restart:
            self._window.restart(z)
            self._measured.restart(values)
            self._age = 1
        else:
            self._window.push(z)
            self._measured.push(values)
            self._age += 1
        energies = self._net.energies_one(self._window.view())
        raw = self._net.abnormality_one(energies, self._age, model.typical)
        score = self._smoother.add(raw, restart=self._age == 1)
        threshold, changed = self._decision.take(score, left=left is not None, away=self._levels.away)
        if self._asked:
            self._asked -= 1
            if not self._asked:
                forget(self._net)
        is_news = left is not None or (changed and not self._changed)
        self._changed = changed
        return Verdict(
            stream=row.stream,
            timestamp=row.timestamp,
            score=score,
            threshold=threshold,
            is_anomaly=score > threshold,
            causes=(),
            missing=() if missing is self._none else self._named(missing),
            model_version=model.version,
            changed=changed,
            moved=self._moved() if is_news else (),
        )

    def _named(self, chosen: NDArray[np.bool_]) -> tuple[str, ...]:
        return tuple(name for name, is_chosen in zip(self.model.features, chosen, strict=True) if is_chosen)

    @property
    def measured(self) -> NDArray[np.float32]:
        """The last row (F,) in engineering units: counters as their rates, NaN where missing or frozen.  A view."""
        row: NDArray[np.float32] = self._measured.view()[-1]
        return row

    def causes(self) -> tuple[Cause, ...]:
        """What makes the last window abnormal, and the one before it if that was too, largest first.

        A fault is the same fault for longer than a window: with the window before, each weighted by how abnormal it is,
        the causes named are more often the right ones (docs/detection.md).
        """
        away, shares = self._explained()
        shares, columns = self._by_reading(shares)
        parts = shares.tolist()
        told = [f for f, part in enumerate(parts) if part > SMALLEST_SHARE]
        told.sort(key=parts.__getitem__, reverse=True)
        if not told:
            if not any(parts):
                return ()
            told = [parts.index(max(parts))]
        del told[self._top :]
        return tuple(self._shown(away, {f: parts[f] for f in told}, columns.take(told)))

    def _shown(self, away: Float, told: Mapping[int, float], columns: NDArray[np.intp]) -> list[Cause]:
        """N features with their shares as causes, in engineering units, by the columns (N,) that say it of each.

        A feature is shown as it is now, unless it was much further from normal earlier in the window, or much further
        yet in the one before, of which the first step of a climb says enough: what it lacks is a quarter of the way at
        most in nine of ten.  Where the difference to other days is most of it, expected is what is usual at this hour:
        the nearest of what they had.
        """
        windows, rows, features = away.shape
        away = away.reshape(-1, features)
        now = len(away) - 1
        z, measured = self._window.view()[-len(away) :], self._measured.view()[-len(away) :]
        far = np.abs(away.take(columns, axis=1))
        far *= np.isfinite(measured.take(columns, axis=1))
        furthest = far.reshape(windows, rows, -1).argmax(axis=1).tolist()
        causes = []
        for i, ((f, share), column) in enumerate(zip(told.items(), columns.tolist(), strict=True)):
            before, last = furthest[0][i], now + 1 - rows + furthest[-1][i]
            peak = far.item(last, i)
            row = now if 2.0 * far.item(now, i) >= peak else last
            if far.item(before, i) > 2.0 * peak:
                row = before
            value = measured.item(row, f)
            if column == f:
                expected = self._expected(f, z.item(row, f) - away.item(row, f))
            else:
                expected = value - measured.item(row, column)
            causes.append(Cause(self.model.features[f], value, expected, share, self._is_counter.item(f)))
        return causes

    def _by_reading(self, share: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.intp]]:
        """Shares (F,), those of differences told of their readings; the column that most of each comes from (F,)."""
        columns = self._columns
        if self._compared:
            columns = columns.copy()
            differences, of = self._columns[self._differences], self._columns[self._of]
            mostly = share[differences] > share[of]
            columns[of[mostly]] = differences[mostly]
            share = share.copy()
            share[of] += share[differences]
            share[differences] = 0.0
        return share, columns

    def account(self) -> tuple[NDArray[np.float64], Float, NDArray[np.float64]]:
        """Of the last row each feature's share in the score (F,), its value as it came (F,), and the expected one (F,).

        Shares are those of :meth:`causes`, also of a row that is not anomalous.  Values are in engineering units, of a
        counter they are rates.
        """
        away, shares = self._explained()
        shares, columns = self._by_reading(shares)
        measured, features = self.measured.copy(), np.arange(len(shares))
        usual = measured - measured[columns]
        nearest = self._window.view()[-1] - away[-1, -1]
        expected = np.array([self._expected(f, z) for f, z in enumerate(nearest.tolist())])
        return shares, measured, np.where((columns == features) | ~np.isfinite(usual), expected, usual)

    def state(self) -> dict[str, Any]:
        """Where the machine is beside where it was in training, as JSON values: what outlives a restart."""
        shift = {self.model.features[f]: z * self.model.scaler.scale[f] for f, z in self._levels.state().items()}
        return {"model": self.model.version, "shift": shift, "decision": self._decision.state()}

    def resume(self, state: Mapping[str, Any]) -> None:
        """Go on from what :meth:`state` returned; a state of another model is ignored.

        Raises
        ------
        ValueError, KeyError, TypeError
            It is not such a state.
        """
        if state["model"] != self.model.version:
            return
        place = {name: f for f, name in enumerate(self.model.features)}
        scale = self.model.scaler.scale
        shift = {place[name]: float(by) / scale[place[name]] for name, by in state["shift"].items()}
        self._decision.resume(state["decision"])
        self._levels.resume(shift)
        self._changed = bool(state["decision"]["changed"])

    def follow(self, before: Detector) -> None:
        """Take over where the machine is from the detector of the model before, or its change would be news again.

        What the new model knows is home: it was trained on the new state, after somebody accepted it.
        """
        knew = before.state()
        old = before.model
        place = np.full(len(self.model.features), np.nan)
        for f, name in enumerate(self.model.features):
            if name in knew["shift"]:
                place[f] = old.scaler.mean[old.features.index(name)] + knew["shift"][name]
        z = self.model.scaler.standardise(place)
        shift = {int(f): float(z[f]) for f in np.flatnonzero(self._levels.outside(z))}
        decision = knew["decision"]
        self._levels.resume(shift)
        self._decision.resume(
            {
                "provisional": self.model.threshold + decision["provisional"] - old.threshold,
                "changed": bool(shift) or (decision["changed"] and not decision["by_levels"]),
                "by_levels": bool(shift),
            }
        )
        self._changed = self._decision.state()["changed"]

    def _moved(self) -> tuple[Cause, ...]:
        """Where the readings are that are not at home, the furthest first; where none is, what makes the rows odd."""
        shift, scaler = self._levels.shift, self.model.scaler
        away = np.flatnonzero(shift)
        if not away.size:
            return self.causes()
        share = np.abs(shift) / np.abs(shift).sum()
        furthest = away[np.argsort(-share[away], kind="stable")][: self._top]
        now = scaler.inverse(shift)
        return tuple(
            Cause(
                feature=self.model.features[f],
                value=float(now[f]),
                expected=float(scaler.mean[f]),
                contribution=float(share[f]),
                per_row=bool(self._is_counter[f]),
            )
            for f in furthest
        )

    def _expected(self, f: int, nearest: float) -> float:
        """A generated value in engineering units, at the level its feature has by now.

        The network may place a feature beyond all it ever read, 167 % of a load for one.  Nobody expects that, so the
        lowest and the highest reading of the training bound what is told.
        """
        scaler, (lowest, highest) = self.model.scaler, self._extremes
        scale: float = scaler.scale.item(f)
        expected: float = nearest * scale + scaler.mean.item(f)
        if expected < lowest.item(f):  # NaN bounds nothing
            expected = lowest.item(f)
        elif expected > highest.item(f):
            expected = highest.item(f)
        expected += self._levels.shift.item(f) * scale
        return 0.0 if abs(expected) < _NOTHING * scale else expected

    def _explained(self) -> tuple[Float, NDArray[np.float64]]:
        """How far the last window and, but soon after a restart, the one before are from normal (N, W, F); shares (F,).

        The window before counts by what is seen at sight: that asks for no climb, and names causes as well.
        """
        self._asked = window = self._net.window
        rows = self._window.view()
        known = rows if self._age >= len(rows) else rows[window:]  # before a restart nothing is known
        away, parts = explainer(self._net).explain(known, self.model.typical)
        parts[self._masked] = 0.0
        return away, normalised(parts)

    def _select(self, row: Row, restart: bool) -> tuple[Float, NDArray[np.bool_], NDArray[np.bool_]]:
        """Values (F,) in the model's order, counters as their rates, NaN where unknown; what cannot be used; what of it
        is missing or frozen without an excuse.

        A difference to other days is never missing: its reading is.
        """
        met = self._met
        if met is None or row.features is not met.names:
            met = self._met = self._meet(row.features)
        self._rows += 1
        if row.is_whole and met.has_all and self._rows < self._frozen_from:
            values, unusable, missing = self._whole(row, met, restart), self._none, self._none
        else:
            values, unusable, missing = self._partial(row, met, restart)
        if self._compared:
            readings = self._known[self._of]
            difference = self._days.of_row(row.timestamp, self._compared, readings)
            if self._remembers:
                self._days.add_row(row.timestamp, self._compared, readings)
            difference[unusable[self._of] | np.isinf(difference)] = np.nan
            values[self._differences] = difference
            if unusable is not self._none:
                unusable[self._differences] = missing[self._differences] = False
        return values, unusable, missing

    def _meet(self, features: tuple[str, ...]) -> _Met:
        """Look where the model's features stand in rows of these."""
        place = {name: i for i, name in enumerate(features)}
        columns = np.array([place.get(name, -1) for name in self.model.features], np.intp)
        present = columns >= 0
        absent = np.flatnonzero(~present)
        has_all = bool(np.isin(absent, np.arange(len(present))[self._differences]).all())
        return _Met(
            features, columns, daily.sliced(columns[present]), daily.sliced(np.flatnonzero(present)), has_all=has_all
        )

    def _whole(self, row: Row, met: _Met, restart: bool) -> Float:
        """What `_select` gives where each reading has a fresh value and none is frozen: nearly every row."""
        if self._compared:
            came = np.full(len(met.columns), np.nan, np.float32)
            came[met.present] = row.values[met.chosen]
        else:
            came = row.values[met.chosen]
        self._note(came)
        return self._rated(came, restart)

    def _partial(self, row: Row, met: _Met, restart: bool) -> tuple[Float, NDArray[np.bool_], NDArray[np.bool_]]:
        """What `_select` gives of any row, but for differences."""
        columns = met.columns
        absent = columns < 0
        came = np.where(absent, np.float32(np.nan), row.values[columns])
        self._note(came)
        unusable = absent | row.stale[columns] | ~np.isfinite(came)
        values = self._rated(np.where(unusable, np.float32(np.nan), came), restart)
        patience = np.maximum(_FROZEN * self.model.longest_run.astype(np.int64), _FROZEN_ROWS)
        frozen = self._rows - self._moved_at > patience
        self._frozen_from = int((self._moved_at + patience).min()) + 1
        if frozen.any():
            frozen &= (values != 0.0) & (values != self._extremes[0])
        missing = unusable | frozen
        if row.excused is None:
            return values, missing, missing
        excused = row.excused[columns] & ~absent
        return values, unusable | (frozen & ~excused), missing & ~excused

    def _note(self, came: Float) -> None:
        """Remember which readings moved."""
        self._moved_at[came != self._last] = self._rows
        self._last = came

    def _rated(self, known: Float, restart: bool) -> Float:
        """Known values (F,) with counters as their rates."""
        before, self._known = self._known, known
        if not self.model.rising:
            return known
        if restart:
            before = np.full_like(known, np.nan)
        return rates(known, before, self._is_counter).astype(np.float32, copy=False)
