"""The features of a stream as columns of its rows: the value each holds, how long it counts, when it is missing.

A value that is too old is *stale*: nobody judges by it.  That alone is no news.  A feature is *missing* once its
silence is longer than it should be.  A silence counts only while somebody listened: neither before the start of the
daemon nor while it was away.  Until then a stale feature is *excused*.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from gon_edge.config.schema import FeatureConfig
from gon_edge.events import Reading
from gon_edge.stream.cadence import HOLD_CADENCES, Cadence
from gon_edge.stream.ledger import NEW_NAMES, Ledger

_USUAL_TIMES = 2.0
"""A feature is missing after this many of its usual silences: nights grow longer towards winter."""

_NEVER_HEARD_S = 86400.0
"""A feature that the model knows, and that has never come by what is remembered, is missing after a day: of one that
reports less often no model is made."""

_FEWEST_RISES = 20
"""Rises that make a counter for whoever looks; what is judged as one is decided in training (`model.counters`)."""

_GONE = math.inf  # from when on the silence counts of a feature that was taken back: not before it comes again

_MASKED = (-math.inf, math.nan)  # a feature heard in a tick, but without a value

_FELL = -(10**9)  # what no rises make up for

_GONE_S = 86400.0
"""A column without a value for so long gives its place to a new name, where places are short.  Not critical: a day."""

_FOR_EVER_S = 1e300  # finite: what was never heard is older
_SEEDED_S = math.inf  # held until something fresh comes, though nobody knows how old it is

_NOT_YET = -math.inf  # nothing was heard, or no row has come since the silence began to count


_LISTS = ("_values", "_seen", "_quiet", "_born", "_rises", "_cadences", "_rules", "_hold", "_patient", "_known")


class Held(NamedTuple):
    """What one feature has said last.

    Attributes
    ----------
    value : float
        NaN for none.
    cadence_s : float or None
        Seconds between two values; ``None`` while unknown, and where it reports on change.
    rises : bool
        It has risen often and never fallen.
    """

    value: float
    cadence_s: float | None = None
    rises: bool = False


class Columns:
    """The columns of one stream, in parallel lists: most updates touch a few of them, and a row is built once.

    Parameters
    ----------
    max_features : int
        Columns at most; what further features say is lost, and stands in ``ledger``.  Once half of them are taken, a
        new name has to come twice: a device that makes up names must not take the places of those that stay.
    rule : callable
        What a person has set for a feature, by its name.
    ledger : Ledger

    Attributes
    ----------
    places : dict of str to int
        Where each feature stands.  Features are appended; only `free` moves them.
    awaited : set of int
        Columns that were not stale in the newest row: a tick is complete when all of them were heard.
    taken : int
        Values that became part of a tick.
    crowded : bool
        A name had to wait, or found no place: `free` may help.
    """

    __slots__ = (
        "_born",
        "_cadences",
        "_free_from",
        "_gap_s",
        "_hold",
        "_interval_s",
        "_known",
        "_ledger",
        "_max_features",
        "_names",
        "_none_stale",
        "_patient",
        "_quiet",
        "_refused",
        "_rises",
        "_rule",
        "_rules",
        "_seen",
        "_silence_limit_s",
        "_stale",
        "_values",
        "_waiting",
        "awaited",
        "crowded",
        "places",
        "taken",
    )

    def __init__(self, max_features: int, rule: Callable[[str], FeatureConfig], ledger: Ledger) -> None:
        self.places: dict[str, int] = {}
        self.awaited: set[int] = set()
        self.taken = 0
        self.crowded = False
        self._refused = "", "", ""  # what the ledger is told of the name that has just found no place
        self._max_features = max_features
        self._rule = rule
        self._ledger = ledger
        self._waiting: dict[str, float] = {}  # names that came once while places were short, and when
        self._free_from = -math.inf  # the next time at which it is worth looking for columns that are gone
        self._interval_s = self._gap_s = math.nan
        self._names: tuple[str, ...] = ()
        self._values: list[float] = []
        self._seen: list[float] = []  # timestamp of the value, -inf when there is none
        self._quiet: list[float] = []  # from when on its silence counts: like `_seen`, but for the time nobody listened
        self._born: list[float] = []  # timestamp of what it began with
        self._rises: list[int] = []  # far below 0 once it has fallen
        self._cadences: list[Cadence] = []
        self._rules: list[FeatureConfig] = []
        self._hold: list[float] = []
        self._patient: list[bool] = []  # its silence and its standing still are no news, however long
        self._stale: list[bool] = []  # as of the newest row
        self._none_stale = np.empty(0, np.bool_)  # what most rows have
        self._known: list[bool] = []  # its cadence is
        self._silence_limit_s: float | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the columns; the same object as long as there is no new one."""
        if len(self._names) != len(self.places):
            self._names = tuple(self.places)
        return self._names

    @property
    def held(self) -> dict[str, Held]:
        """What each feature has said last, and how it reports."""
        told = zip(self.names, self._values, self._cadences, self._rises, strict=True)
        return {name: Held(value, cadence.typical_s, rises >= _FEWEST_RISES) for name, value, cadence, rises in told}

    def set_interval(self, interval_s: float, gap_s: float) -> None:
        """Say how far apart rows are, and which silence, in seconds, ends a segment."""
        self._interval_s, self._gap_s = interval_s, gap_s
        for column in range(len(self._hold)):
            self._settle(column)

    def configure(self, rule: Callable[[str], FeatureConfig]) -> None:
        """Go on with other settings of the features."""
        self._rule = rule
        for name, column in self.places.items():
            self._rules[column] = rule(name)
            self._settle(column)

    def new(self, name: str, timestamp: float) -> int | None:
        """Append a column; ``None`` where there are as many as there may be, or where the name has to come again."""
        column = len(self.places)
        if column >= (self._max_features + 1) // 2:
            self.crowded = True
            self._refused = NEW_NAMES, "once", name
            if not self._is_proved(name, timestamp):
                return None
            self._refused = name, "crowded", ""
            if column >= self._max_features:
                return None
            self._waiting.pop(name, None)
        return self._append(name, timestamp)

    def _append(self, name: str, born: float) -> int:
        column = self.places[name] = len(self.places)
        self._values.append(math.nan)
        self._seen.append(-math.inf)
        self._born.append(born)
        self._rises.append(0)
        self._quiet.append(_NOT_YET)
        self._cadences.append(Cadence())
        self._rules.append(self._rule(name))
        self._hold.append(math.nan)
        self._patient.append(False)
        self._known.append(False)
        self._settle(column)
        return column

    def _is_proved(self, name: str, timestamp: float) -> bool:
        """Whether a name has been there before, at another time."""
        first = self._waiting.setdefault(name, timestamp)
        if len(self._waiting) > 2 * self._max_features:
            del self._waiting[next(iter(self._waiting))]
        return timestamp != first

    def may_free(self, timestamp: float) -> bool:
        """Whether places are short, and it is time to look for columns that are gone."""
        is_due = self.crowded and timestamp >= self._free_from
        self.crowded = False
        return is_due

    def free(self, timestamp: float, kept: set[int]) -> dict[int, int] | None:
        """Remove the columns that are gone: heard once and not again, or not for a day.

        Parameters
        ----------
        timestamp : float
            Now, by the stream's clock, Unix seconds.
        kept : set of int
            Columns that stay in any case: something was heard of them that is no row yet.

        Returns
        -------
        dict of int to int or None
            Where each column that stays has been, and where it is; ``None`` where all stay.
        """
        self._free_from = timestamp + self._gap_s
        stays = [column for column in range(len(self.places)) if column in kept or not self._is_gone(column, timestamp)]
        if len(stays) == len(self.places):
            return None
        moved = {column: place for place, column in enumerate(stays)}
        self.places = {name: moved[column] for name, column in self.places.items() if column in moved}
        self._names = tuple(self.places)
        for attribute in _LISTS:
            told = getattr(self, attribute)
            setattr(self, attribute, [told[column] for column in stays])
        self._stale = []
        self._silence_limit_s = None
        self.awaited = {moved[column] for column in self.awaited if column in moved}
        return moved

    def _is_gone(self, column: int, timestamp: float) -> bool:
        seen = self._seen[column]
        came_once = self._cadences[column].steps == 0 and seen > -math.inf  # one that only says null may be a sensor
        return timestamp - max(seen, self._born[column]) > (self._gap_s if came_once else _GONE_S)

    def _settle(self, column: int) -> None:
        """Work out what follows from the cadence of a feature and from what a person has set."""
        if self._hold[column] == _SEEDED_S:
            return
        rule, cadence = self._rules[column], self._cadences[column]
        on_change = cadence.is_on_change and rule.max_hold_s is None and rule.missing_after_s in (None, math.inf)
        self._known[column] = cadence.is_known
        self._patient[column] = on_change or rule.missing_after_s == math.inf
        if rule.max_hold_s is not None:
            self._hold[column] = rule.max_hold_s
        elif on_change:
            self._hold[column] = _FOR_EVER_S
        elif cadence.is_known:
            self._hold[column] = max(HOLD_CADENCES * self._interval_s, cadence.hold_s)
        else:
            self._hold[column] = max(self._gap_s, HOLD_CADENCES * self._interval_s)
        self._silence_limit_s = None

    def update(self, heard: Mapping[int, tuple[float, float]]) -> None:
        """Hold each value, ``(timestamp, value)`` by column, that is newer than the one held.

        The time since the last one teaches how often the feature reports.
        """
        values, all_seen, all_quiet, rises = self._values, self._seen, self._quiet, self._rises
        for column, (timestamp, value) in heard.items():
            seen, quiet = all_seen[column], all_quiet[column]
            gap_s = timestamp - seen
            is_first = quiet == _NOT_YET and timestamp > -math.inf  # of this run: the clock may have been another one
            if not gap_s > 0.0 and not is_first:
                continue
            if self._hold[column] == _SEEDED_S:
                self._hold[column] = math.nan
                self._settle(column)
            if value != value:  # NaN
                self._take_back(column)
                continue
            before, values[column] = values[column], value
            if value > before:
                rises[column] += 1
            elif value < before:
                rises[column] = _FELL
            all_seen[column] = timestamp
            if quiet == _GONE or timestamp > quiet:
                all_quiet[column] = timestamp
            nobody_was_away = quiet == seen and gap_s < math.inf
            if nobody_was_away and self._cadences[column].add(gap_s):
                self._settle(column)

    def _take_back(self, column: int) -> None:
        """The device itself says that a feature has no value any more: that it is silent from now on is no news."""
        self._values[column], self._seen[column], self._quiet[column] = math.nan, -math.inf, _GONE

    def seed(self, values: Mapping[str, float]) -> None:
        """Hold values that lay in the broker, each until something fresh comes; what was heard already counts more."""
        self.expect([*values])
        for name, value in values.items():
            column = self.places.get(name)
            if column is not None and (self._quiet[column] != self._seen[column] or self._seen[column] == -math.inf):
                self._values[column] = value
                self._seen[column], self._hold[column], self._patient[column] = -math.inf, _SEEDED_S, True

    def hear(self, heard: dict[int, tuple[float, float]], timestamp: float, reading: Reading) -> None:
        """Take what a reading says of a tick into ``heard``: by column the newest ``(timestamp, value)`` in it."""
        places = self.places
        for name, value in reading.values.items():
            column = places.get(name)
            if column is None and (column := self.new(name, timestamp)) is None:
                self._ledger.add(*self._refused)
                continue
            self.taken += 1
            known = heard.get(column)
            if known is None or timestamp >= known[0]:
                heard[column] = (timestamp, value)
        for name, reason in reading.masked.items():
            column = places.get(name)
            # Text that never was a number is a label, not a sensor; as a column it would be missing for ever, and so
            # would a value that is taken back before it came.
            if column is None and (reason in ("text", "gone") or (column := self.new(name, timestamp)) is None):
                continue
            if reason == "gone" and timestamp >= heard.get(column, _MASKED)[0]:
                heard[column] = (timestamp, math.nan)
            heard.setdefault(column, _MASKED)

    def hold_newer(self, timestamp: float, values: Mapping[str, float]) -> set[str]:
        """Let a late reading be the held value of the features it is the newest of; returns names without a place."""
        refused: set[str] = set()
        for name, value in values.items():
            column = self.places.get(name)
            if column is None and (column := self.new(name, timestamp)) is None:
                self._ledger.add(*self._refused)
                refused.add(name)
                continue
            if timestamp > self._seen[column]:
                self.update({column: (timestamp, value)})
                self.awaited.add(column)
        return refused

    def at(self, timestamp: float) -> tuple[NDArray[np.float32], NDArray[np.bool_], NDArray[np.bool_] | None, bool]:
        """What is held at a tick.

        Returns
        -------
        values : ndarray of float32, shape (F,)
        stale : ndarray of bool, shape (F,)
            Too old to be judged by.
        excused : ndarray of bool, shape (F,), or None
        is_whole : bool
            As in `Row`.
        """
        stale = [not timestamp - seen <= hold for seen, hold in zip(self._seen, self._hold, strict=True)]
        if _NOT_YET in self._quiet:
            self._begin(timestamp, stale)
        if stale != self._stale:
            self._stale = stale
            self.awaited = {column for column, is_stale in enumerate(stale) if not is_stale}
        excused = None
        if True in stale or True in self._patient or False in self._known:
            excused = np.array(self._patient)
            for column, is_stale in enumerate(stale):
                if not excused[column] and (is_stale or not self._known[column]):
                    excused[column] = timestamp - self._quiet[column] <= self._limit_s(column)
        values = np.array(self._values, np.float32)
        if True in stale or not math.isfinite(sum(self._values)):
            return values, np.array(stale, np.bool_), excused, False
        if len(self._none_stale) != len(stale):
            self._none_stale = np.zeros(len(stale), np.bool_)
            self._none_stale.flags.writeable = False  # rows share it
        return values, self._none_stale, excused, True

    def _begin(self, timestamp: float, stale: list[bool]) -> None:
        """The silence of features that have not been heard in this run counts from this row on."""
        for column, quiet in enumerate(self._quiet):
            if quiet == _NOT_YET:
                self._quiet[column] = timestamp
                self._born[column] = max(timestamp, self._born[column])
                if self._seen[column] > timestamp:  # by a clock that no longer counts
                    self._seen[column], stale[column] = -math.inf, True

    def _limit_s(self, column: int) -> float:
        """Seconds of silence after which a feature is missing."""
        rule, cadence = self._rules[column], self._cadences[column]
        if self._patient[column]:
            return math.inf
        if rule.max_hold_s is not None:
            return self._hold[column]
        if not cadence.is_known:
            return math.inf if self._seen[column] > -math.inf else _NEVER_HEARD_S
        usual_s = 0.0 if rule.missing_after_s is not None else _USUAL_TIMES * cadence.usual_silence_s
        return max(self._hold[column], usual_s)

    @property
    def silence_limit_s(self) -> float:
        """Seconds of silence after which the first feature is missing; 0.0 while no cadence is known."""
        if self._silence_limit_s is None:
            known = [
                self._limit_s(column)
                for column, cadence in enumerate(self._cadences)
                if cadence.is_known or self._patient[column] or self._rules[column].max_hold_s is not None
            ]
            self._silence_limit_s = min(known, default=0.0)
        return self._silence_limit_s

    @property
    def patient(self) -> tuple[str, ...]:
        """Features whose silence is no news, however long it is."""
        return tuple(name for name, column in self.places.items() if self._patient[column])

    def cadence(self, name: str) -> Cadence:
        """How often a feature reports."""
        return self._cadences[self.places[name]]

    def away(self, seconds: float) -> None:
        """Say that nobody listened for so long: the silences of this time do not count, and no cadence is learned."""
        self._quiet = [quiet + seconds for quiet in self._quiet]

    def shift(self, delta_s: float) -> None:
        """Follow the clock behind the timestamps when it is set."""
        self._seen = [seen + delta_s for seen in self._seen]
        self._quiet = [quiet + delta_s for quiet in self._quiet]
        self._born = [born + delta_s for born in self._born]
        self._free_from += delta_s

    def forget_times(self) -> None:
        """Take every held value for stale: nobody knows any more when it was heard."""
        self._seen = [-math.inf] * len(self._seen)
        self._quiet = [_NOT_YET] * len(self._quiet)
        self._free_from = -math.inf

    def expect(self, names: Sequence[str]) -> None:
        """Have columns for features that a model knows, though they have not been heard yet."""
        for name in names:
            if name not in self.places and len(self.places) < self._max_features:
                self._append(name, -math.inf)

    def state(self) -> dict[str, list[float | None]]:
        """What the next run goes on from, fit for JSON: of each feature its value, when it was heard, its cadence."""
        return {
            name: [
                self._values[column] if math.isfinite(self._values[column]) else None,
                self._seen[column] if math.isfinite(self._seen[column]) else None,
                *self._cadences[column].state(),
            ]
            for name, column in self.places.items()
        }

    def resume(self, state: Mapping[str, Sequence[float | None]]) -> None:
        """Go on from what `state` returned in an earlier run; silences count from the next row on.

        Raises
        ------
        TypeError, ValueError, AttributeError
            It is not such a state.
        """
        for name, (value, seen, *cadence) in state.items():
            learned = Cadence(cadence)  # type: ignore[arg-type]
            self.expect([name])
            column = self.places.get(name)
            if column is None:
                continue
            self._values[column] = math.nan if value is None else float(value)
            self._seen[column] = -math.inf if seen is None else float(seen)
            self._cadences[column] = learned
            self._settle(column)
