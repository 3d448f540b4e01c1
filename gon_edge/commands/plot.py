"""Scores as a picture: score and threshold, what the score is made of, and expected against actual.

Draws what `Thinned` holds, for ``plot`` as a file and for ``report`` as part of a page.  How a figure becomes a file,
and its colours, are in ``figure``.  Feature names are foreign text: each goes through `figure.short`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from itertools import groupby
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from gon_edge.commands import figure as fig
from gon_edge.commands.scorefile import at_level_of, table_rows
from gon_edge.commands.text import visible
from gon_edge.commands.thinned import Column, Thinned
from gon_edge.errors import InputError
from gon_edge.model.detector import Detector
from gon_edge.model.file import Model
from gon_edge.tables.table import Table

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST_FEATURES = 6
"""Features shown one by one, and colours that are told apart in a stack."""

# Dots; not critical: what looked well at 960 dots across.
_LEFT, _RIGHT, _TOP, _HEAD, _LINE, _FOOT = 64, 16, 36, 28, 17, 40
_SCORE_HEIGHT, _SHARE_HEIGHT, _FEATURE_HEIGHT, _GAP, _TICKS = 170, 120, 84, 12, 18
_ACROSS = fig.WIDTH - _LEFT - _RIGHT
_NAME_WIDTH = 190
"""Dots that the heading beside a legend takes."""

Line = tuple[NDArray[Any], NDArray[Any]]
"""Times and values, (B,) each."""

_HIGHEST = 5.0
"""Times the threshold up to which the scale of scores goes: one wild fault must not flatten the rest."""


def judge_csv(
    model: Model,
    table: Table,
    *,
    progress: Callable[[int, float | None], None] = lambda rows, fraction: None,
) -> Thinned:
    """Judge the rows of a table as `gon_edge.commands.scorefile.score_csv` does, for a picture.

    Raises
    ------
    InputError
        As there; also for a table without rows, or with several machines.
    """
    if len(table.streams) > 1:
        raise InputError(
            f"{table.name}: a picture is of one machine; name it with --only: {', '.join(sorted(table.streams))}"
        )
    detector: Detector | None = None
    thinned = Thinned(model.features, rising=model.rising, step=table.interval_s)
    for found, row in table_rows(model, table):
        if detector is None:
            detector = Detector(at_level_of(model, row.values, table.name))
        thinned.add(found.at, row, detector.score(row), detector)
        progress(thinned.rows, table.fraction if thinned.rows % 100 == 0 else None)
    if not thinned.rows:
        raise InputError(f"{table.name}: has no rows")
    return thinned


def picture(thinned: Thinned, path: str, *, title: str, is_time: bool, theme: str = "auto") -> bytes:
    """Return the picture as the file that a name asks for.

    Parameters
    ----------
    thinned : Thinned
        With at least one column.
    path : str
    title : str
    is_time : bool
        Whether columns stand at Unix seconds or at numbers of rows.
    theme : str
        ``light``, ``dark``, or ``auto``: an SVG is what its viewer prefers, a PNG is light.

    Raises
    ------
    InputError
        The name ends neither in ``.svg`` nor in ``.png``.
    """
    ending = path.lower()[-4:]
    if ending not in (".svg", ".png"):
        raise InputError(f"{path}: pictures are .svg or .png; give it one of these endings")
    colours = fig.DARK if theme == "dark" else fig.LIGHT
    with fig.canvas(colours) as figure:
        _draw(figure, thinned, title, is_time, None, colours)
        if ending == ".png":
            return fig.png(figure)
        return fig.svg(figure, title, css=fig.DARK_STYLE if theme == "auto" else "").encode()


def element(thinned: Thinned, *, title: str, alerts: Iterable[tuple[float, float]]) -> str:
    """Return the picture as an SVG element for a page with `figure.DARK_STYLE`; columns stand at Unix seconds.

    Parameters
    ----------
    thinned : Thinned
        With at least one column.
    title : str
    alerts : iterable of (float, float)
        From when to when each was open; shaded behind everything.
    """
    with fig.canvas(fig.LIGHT) as figure:
        _draw(figure, thinned, title, True, alerts, fig.LIGHT)
        return fig.svg(figure, title, css=None)


def causes_element(
    thinned: Thinned,
    names: Sequence[str],
    *,
    title: str,
    alert: tuple[float, float],
    days: Mapping[str, Sequence[Line]],
) -> str:
    """Return the readings of an alert's causes as an SVG element for a page with `figure.DARK_STYLE`.

    Parameters
    ----------
    thinned : Thinned
        Before and during the alert, with at least one column.
    names : sequence of str
        Features, at least one.
    title : str
        Said in place of the picture to those who cannot see it.
    alert : (float, float)
        From when to when it was open.
    days : mapping
        By feature, how the same time was on other days: times moved to this day (B,), and values (B,).
    """
    with fig.canvas(fig.LIGHT) as figure:
        fig.resize(figure, fig.WIDTH, _TOP + len(names) * (_HEAD + _FEATURE_HEIGHT + _GAP) - _GAP - _TOP // 2 + _FOOT)
        sheet = _Sheet(figure, thinned, True, [alert], fig.LIGHT)
        top = _TOP // 2
        for number, name in enumerate(names):
            top += _HEAD
            f = thinned.features.index(name)
            is_last = number == len(names) - 1
            sheet.feature(top, f, fig.short(name), is_first=number == 0, is_last=is_last, days=days.get(name, ()))
            top += _FEATURE_HEIGHT + _GAP
        return fig.svg(figure, title, css=None)


def _draw(
    figure: Figure,
    thinned: Thinned,
    title: str,
    is_time: bool,
    alerts: Iterable[tuple[float, float]] | None,
    colours: Mapping[str, str],
) -> None:
    """Lay the panels out; without alerts rows above the threshold are shaded."""
    order = np.argsort(-thinned.blame(), kind="stable")[:MOST_FEATURES]
    names = [fig.short(thinned.features[f]) for f in order]
    parts = [*names, "others"] if len(order) < len(thinned.features) else names
    widths = [fig.text_width(figure, part) + 34 for part in parts]  # with its key and the space between
    beside = sum(widths) <= _ACROSS - _NAME_WIDTH
    across = len(parts) if beside else max(1, int(_ACROSS // max(widths)))
    share_head = _HEAD + (0 if beside else _LINE * math.ceil(len(parts) / across))
    tall = _TOP + _HEAD + _SCORE_HEIGHT + _TICKS + _GAP + share_head + _SHARE_HEIGHT
    fig.resize(figure, fig.WIDTH, tall + len(order) * (_GAP + _HEAD + _FEATURE_HEIGHT) + _FOOT)

    sheet = _Sheet(figure, thinned, is_time, alerts, colours)
    sheet.title(title)
    sheet.score(_TOP + _HEAD)
    top = _TOP + _HEAD + _SCORE_HEIGHT + _TICKS + _GAP + share_head
    sheet.shares(top, order, parts, across)
    top += _SHARE_HEIGHT
    for number, (f, name) in enumerate(zip(order, names, strict=True)):
        top += _GAP + _HEAD
        sheet.feature(top, int(f), name, is_first=number == 0, is_last=number == len(order) - 1)
        top += _FEATURE_HEIGHT


class _Sheet:
    """The panels of a picture, which share columns, scale of time and shades.

    Parameters
    ----------
    figure : Figure
        Of its final size.
    thinned, is_time, alerts, colours
        As `_draw` has them.
    """

    def __init__(
        self,
        figure: Figure,
        thinned: Thinned,
        is_time: bool,
        alerts: Iterable[tuple[float, float]] | None,
        colours: Mapping[str, str],
    ) -> None:
        self._figure, self._thinned, self._is_time, self._colours = figure, thinned, is_time, colours
        columns = thinned.columns
        begin, end = min(c.first_at for c in columns), max(c.last_at for c in columns)
        # A single row has no span; the second is before it, since after the year 9999 there is no time.
        self._begin, self._end = self._place(min(begin, end - 1.0)), self._place(end)
        self._dot = (self._end - self._begin) / _ACROSS
        self._runs = thinned.runs()
        self._x, self._columns = self._lanes()
        self._shade_name = "above the threshold" if alerts is None else "alert"
        self._shades = self._spans(lambda c: c.anomalies > 0) if alerts is None else list(alerts)
        threshold = columns[-1].threshold
        ceiling = max(1.5 * threshold, min(1.1 * thinned.highest, _HIGHEST * threshold))
        self._ceiling = max(ceiling if threshold > 0.0 else thinned.highest, 1e-12)

    def title(self, text: str) -> None:
        """Write a line above everything."""
        tall = float(self._figure.get_size_inches()[1]) * fig.DOT
        self._figure.text(_LEFT / fig.WIDTH, 1.0 - 22.0 / tall, visible(text), fontsize=14)

    def score(self, top: float) -> None:
        """Draw lowest to highest score of each column, and the threshold."""
        axes, colours = self._panel(top, _SCORE_HEIGHT, "score"), self._colours
        low, high = self._values(lambda c: c.low), self._values(lambda c: c.high)
        threshold = self._values(lambda c: c.threshold)
        spread = axes.fill_between(self._x, low, high, color=colours["range"], linewidth=0)
        (line,) = axes.plot(self._x, high, color=colours["score"])
        (limit,) = axes.plot(self._x, threshold, color=colours["threshold"], linestyle=(0, (5, 3)))
        axes.set_ylim(0.0, self._ceiling)
        highest = self._thinned.highest
        beyond = ", beyond the scale" if highest > self._ceiling else ""
        note = f"highest {highest:.4g} at {self._label(self._thinned.highest_at)}{beyond}"
        after = fig.text_width(self._figure, "score") + 24.0
        axes.annotate(
            note, (0.0, 1.0), (after, 7), xycoords="axes fraction", textcoords="offset points", color=colours["soft"]
        )
        keys: list[tuple[str, Any]] = [("highest", line), ("lowest to highest", spread), ("threshold", limit)]
        if self._shades:
            keys.append((self._shade_name, fig.swatch(colours["alert"])))
        self._legend(axes, keys, len(keys))
        self._ticks(axes)

    def shares(self, top: float, order: NDArray[np.intp], names: Sequence[str], across: int) -> None:
        """Draw the score as a stack of what each feature adds."""
        axes = self._panel(top, _SHARE_HEIGHT, "what the score is made of")
        nowhere = np.full(len(self._thinned.features), np.nan)
        shares = np.array([nowhere if c is None else c.share * c.explained for c in self._columns]).T  # (F, M)
        edges = np.concatenate([np.cumsum(shares[order], axis=0), shares.sum(axis=0)[None]])
        colours = [*(self._colours[f"part{i}"] for i in range(len(order))), self._colours["other"]]
        # From the outermost in, each down to zero: side by side they would leave hair lines between them.
        parts = [
            axes.fill_between(self._x, 0.0, edges[i], color=colours[i], linewidth=0)
            for i in reversed(range(len(names)))
        ]
        axes.set_ylim(0.0, self._ceiling)
        self._legend(axes, list(zip(names, reversed(parts), strict=True)), across)

    def feature(
        self,
        top: float,
        f: int,
        name: str,
        *,
        is_first: bool,
        is_last: bool,
        days: Sequence[Line] = (),
    ) -> None:
        """Draw one feature as it was, as the model would have it, and as it was on other days."""
        heading = f"{name}, a row" if self._thinned.is_counter(self._thinned.features[f]) else name
        axes, colours = self._panel(top, _FEATURE_HEIGHT, heading), self._colours
        for since, until in self._spans(lambda c: bool(c.missing[f])):
            self._shade(axes, since, until, "gone")
        lowest, highest = self._values(lambda c: c.lowest[f]), self._values(lambda c: c.highest[f])
        measured, expected = self._values(lambda c: c.measured[f]), self._values(lambda c: c.expected[f])
        faint = [
            axes.plot([self._place(at) for at in times], values, color=colours["other"], linewidth=0.8)[0]
            for times, values in days
        ]
        spread = axes.fill_between(self._x, lowest, highest, color=colours["spread"], linewidth=0)
        (dashes,) = axes.plot(self._x, expected, color=colours["expected"], linestyle=(0, (4, 2)), linewidth=1.7)
        (line,) = axes.plot(self._x, measured, color=colours["actual"])
        known = np.concatenate([lowest, highest, measured, expected, *(values for _, values in days)])
        known = known[np.isfinite(known)]
        low, high = (float(known.min()), float(known.max())) if len(known) else (0.0, 1.0)
        margin = 0.08 * (high - low) or 0.5
        axes.set_ylim(low - margin, high + margin)
        if is_first:
            keys: list[tuple[str, Any]] = [("actual", line), ("lowest to highest", spread), ("expected", dashes)]
            keys += [("earlier days", faint[0])] if faint else []
            if self._thinned.missing.any():
                keys.append(("no value", fig.swatch(colours["gone"])))
            self._legend(axes, keys, len(keys))
        if is_last:
            self._ticks(axes)

    def _panel(self, top: float, height: float, heading: str) -> Axes:
        """Add an empty panel, shaded where the others are."""
        axes = fig.panel(self._figure, _LEFT, top, _ACROSS, height)
        fig.across(axes, self._begin, self._end, is_time=self._is_time)
        axes.tick_params(labelbottom=False)
        axes.set_title(heading, pad=7)
        for since, until in self._shades:
            self._shade(axes, since, until, "alert")
        return axes

    def _ticks(self, axes: Axes) -> None:
        """Say below a panel where it is."""
        axes.tick_params(labelbottom=True)
        if not self._is_time:
            axes.set_xlabel("row", loc="right")

    def _shade(self, axes: Axes, since: float, until: float, colour: str) -> None:
        left, right = self._place(since), self._place(until)
        axes.axvspan(left, max(right, left + 2.0 * self._dot), color=self._colours[colour], linewidth=0, zorder=0)

    def _legend(self, axes: Axes, keys: Sequence[tuple[str, Any]], across: int) -> None:
        # A label that begins with "_" is left out, so names are written after the fact.
        legend = axes.legend(
            [handle for _, handle in keys],
            [str(number) for number in range(len(keys))],
            ncols=across,
            loc="lower right" if across >= len(keys) else "lower left",
            bbox_to_anchor=(0.0, 1.0 + 5.0 / (axes.bbox.height), 1.0, 0.0),
        )
        for shown, (name, _) in zip(legend.get_texts(), keys, strict=True):
            shown.set_text(name)

    def _lanes(self) -> tuple[NDArray[np.float64], list[Column | None]]:
        """Where columns are (M,), and which; between runs there is none, where lines and areas break."""
        x: list[float] = []
        lanes: list[Column | None] = []
        for run in self._runs:
            middle = [self._place((c.first_at + c.last_at) / 2) for c in run]
            if len(run) == 1:  # a line needs two points
                run, middle = run * 2, [middle[0] - self._dot, middle[0] + self._dot]
            x += [*middle, middle[-1]]
            lanes += [*run, None]
        return np.array(x), lanes

    def _values(self, of: Callable[[Column], float]) -> NDArray[np.float64]:
        """What each column (M,) has, NaN where there is none."""
        return np.array([np.nan if column is None else of(column) for column in self._columns], float)

    def _spans(self, marked: Callable[[Column], bool]) -> list[tuple[float, float]]:
        """From when to when columns that follow each other are marked."""
        found = []
        for run in self._runs:
            for is_marked, group in groupby(run, marked):
                if is_marked:
                    columns = list(group)
                    found.append((columns[0].first_at, columns[-1].last_at))
        return found

    def _place(self, at: float) -> float:
        return fig.place(at, is_time=self._is_time)

    def _label(self, at: float) -> str:
        if not self._is_time:
            return f"row {at:.0f}"
        return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
