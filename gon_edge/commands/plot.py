"""Scores as a picture: score and threshold, what contributed, and expected against actual; SVG or PNG, drawn by hand.

`Thinned` takes any number of judged rows and keeps a few hundred columns, of which nothing that was high is lost;
`draw` lays them out on a canvas, of which there are two.  An SVG without a style of its own takes that of the page it
stands in (``report``).  Feature names are foreign text and reach the SVG escaped.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from html import escape
from itertools import groupby, pairwise
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from gon_edge.commands.scorefile import at_level_of, csv_rows
from gon_edge.commands.text import visible
from gon_edge.errors import InputError
from gon_edge.events import Verdict
from gon_edge.model.detector import Detector
from gon_edge.model.file import Model
from gon_edge.model.sample import png_bytes, write_text
from gon_edge.state.csvfile import CsvFile
from gon_edge.stream.scalars import unix_seconds

MOST_COLUMNS = 300
MOST_FEATURES = 6
WIDTH = 960

_SILENCE = 60.0
"""Rows this many times further apart than the closest ones do not share a column."""

_LOUDER = 1.25
"""A row of a column is explained when its score is this many times that of the row explained before."""

_LEFT, _RIGHT, _TOP, _HEAD, _FOOT = 64, 16, 34, 24, 22
_SCORE_HEIGHT, _SHARE_HEIGHT, _FEATURE_HEIGHT, _GAP = 170, 120, 84, 16
_HIGHEST = 5.0
"""Times the threshold up to which the scale of scores goes: one wild fault must not flatten the rest."""

_STEPS_S = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10800, 21600, 43200, 86400, 172800, 604800)
_DAY_S = 86400.0

# Okabe and Ito's colours, which colour-blind people tell apart; light first, dark where it differs.
_COLOURS = {
    "ground": ("#ffffff", "#1a201e"),
    "grid": ("#e1e4e0", "#2b3330"),
    "ink": ("#1c2321", "#e6ebe9"),
    "soft": ("#5a6562", "#9aa6a2"),
    "alert": ("#fbe3e1", "#43211f"),
    "gone": ("#ebedea", "#252c2a"),
    "range": ("#a9cfc8", "#2c5750"),
    "score": ("#1f7a6d", "#5cc2b0"),
    "threshold": ("#b3261e", "#ff9a91"),
    "actual": ("#1c2321", "#e6ebe9"),
    "expected": ("#0072b2", "#56b4e9"),
    "part0": ("#d55e00", "#d55e00"),
    "part1": ("#0072b2", "#3d9ad6"),
    "part2": ("#e69f00", "#e69f00"),
    "part3": ("#009e73", "#009e73"),
    "part4": ("#cc79a7", "#cc79a7"),
    "part5": ("#56b4e9", "#9ad2f2"),
    "other": ("#b9c0bd", "#5a6562"),
}
_LINES = ("score", "threshold", "actual", "expected", "grid")


def _rules(which: int) -> str:
    rules = []
    for name, pair in _COLOURS.items():
        kind = "stroke" if name in _LINES else "fill"
        rules.append(
            f".g-{name}{{{kind}:{pair[which]}}}" + (f".k-{name}{{fill:{pair[which]}}}" if name in _LINES else "")
        )
    return "".join(rules)


STYLE = (
    ".g text{font:12px system-ui,sans-serif}.g polyline,.g line{fill:none;stroke-width:1.5}.g .g-grid{stroke-width:1}"
    ".g .dashed{stroke-dasharray:5 4}" + _rules(0) + "@media (prefers-color-scheme:dark){" + _rules(1) + "}"
)
"""CSS of the pictures, light and dark."""


@dataclass(slots=True)
class Column:
    """Consecutive rows that share a place in the picture.

    Attributes
    ----------
    first_at, last_at : float
        Unix seconds, or numbers of rows.
    low, high : float
        Of the score.
    threshold : float
    rows, anomalies : int
    missing : ndarray of int, shape (F,)
        Rows in which a feature had no value.
    explained : float
        Score of the row that these belong to:
    share, measured, expected : ndarray, shape (F,)
    """

    first_at: float
    last_at: float
    low: float
    high: float
    threshold: float
    rows: int
    anomalies: int
    missing: NDArray[np.int64]
    explained: float
    share: NDArray[np.float32]
    measured: NDArray[np.float32]
    expected: NDArray[np.float32]


class Thinned:
    """Judged rows of one stream, as few columns: lowest and highest score, and what made the highest.

    Parameters
    ----------
    features : sequence of str
    rows_expected : int
        Fewer work too, and more: columns are joined by twos when there are too many.

    Attributes
    ----------
    columns : list of Column
    rows, anomalies : int
    highest, highest_at : float
    """

    def __init__(self, features: Sequence[str], rows_expected: int = 0) -> None:
        self.features = tuple(features)
        self.columns: list[Column] = []
        self.rows = self.anomalies = 0
        self.highest, self.highest_at = -math.inf, math.nan
        self._step = math.inf
        self._per_column = max(1, math.ceil(rows_expected / MOST_COLUMNS))
        self._place = {name: f for f, name in enumerate(self.features)}

    def add(self, at: float, verdict: Verdict, detector: Detector) -> None:
        """Take the row that `detector` has just judged; it is asked for an account of some."""
        self.rows += 1
        self.anomalies += verdict.is_anomaly
        if verdict.score > self.highest:
            self.highest, self.highest_at = verdict.score, at
        column = self.columns[-1] if self.columns else None
        step = at - column.last_at if column is not None else 0.0
        if step > 0.0:
            self._step = min(self._step, step)
        if (
            column is None
            or column.rows >= self._per_column
            or verdict.threshold != column.threshold
            or not 0.0 <= step <= _SILENCE * self._step
        ):
            if len(self.columns) >= 2 * MOST_COLUMNS:
                self._join()
            none = np.zeros(len(self.features), np.int64)
            share, measured, expected = (part.astype(np.float32) for part in detector.account())
            score = verdict.score
            parts = (none, score, share, measured, expected)
            column = Column(at, at, score, score, verdict.threshold, 0, 0, *parts)
            self.columns.append(column)
        elif verdict.is_anomaly and verdict.score > _LOUDER * column.explained:
            column.share, column.measured, column.expected = (part.astype(np.float32) for part in detector.account())
            column.explained = verdict.score
        column.last_at = at
        column.low, column.high = min(column.low, verdict.score), max(column.high, verdict.score)
        column.rows += 1
        column.anomalies += verdict.is_anomaly
        for name in verdict.missing:
            column.missing[self._place[name]] += 1

    @property
    def missing(self) -> NDArray[np.int64]:
        """Rows in which each feature (F,) had no value."""
        total = np.zeros(len(self.features), np.int64)
        for column in self.columns:
            total += column.missing
        return total

    def blame(self) -> NDArray[np.float64]:
        """How much each feature (F,) made up of the scores above the threshold, or of all where none is; sums to 1."""
        for above in (True, False):
            total = np.zeros(len(self.features))
            for column in self.columns:
                total += column.share * max(0.0, column.explained - (column.threshold if above else 0.0))
            if (sum_ := float(total.sum())) > 0.0:
                total /= sum_
                break
        return total

    def _join(self) -> None:
        """Halve the columns; those that a silence lies between stay apart, unless there are too many of them."""
        self._per_column *= 2
        # No more than two hundred silences count.
        longest = max(_SILENCE * self._step, (self.columns[-1].last_at - self.columns[0].first_at) / 200)

        def fits(last: Column, column: Column) -> bool:
            joined = last.rows + column.rows <= self._per_column and column.threshold == last.threshold
            return joined and 0.0 <= column.first_at - last.last_at <= longest

        joined: list[Column] = []
        for column in self.columns:
            if joined and fits(joined[-1], column):
                _take_in(joined[-1], column)
            else:
                joined.append(column)
        if len(joined) > MOST_COLUMNS + MOST_COLUMNS // 2:
            pairs = zip(joined[::2], joined[1::2], strict=False)
            for last, column in pairs:
                _take_in(last, column)
            joined = joined[::2]
        self.columns = joined


def _take_in(column: Column, later: Column) -> None:
    if later.explained > column.explained:
        column.explained, column.share = later.explained, later.share
        column.measured, column.expected = later.measured, later.expected
    column.first_at, column.last_at = min(column.first_at, later.first_at), max(column.last_at, later.last_at)
    column.low, column.high = min(column.low, later.low), max(column.high, later.high)
    column.rows, column.anomalies = column.rows + later.rows, column.anomalies + later.anomalies
    column.missing += later.missing


def judge_csv(
    model: Model,
    table: CsvFile,
    *,
    time_column: str | None = None,
    progress: Callable[[int, float | None], None] = lambda rows, fraction: None,
) -> Thinned:
    """Judge the rows of a table as `gon_edge.commands.scorefile.score_csv` does, for a picture.

    Raises
    ------
    InputError
        As there; also for a table without rows, and a time that cannot be read.
    """
    time_index = None if time_column is None else table.column(time_column, "--time-column")
    detector: Detector | None = None
    thinned = Thinned(model.features)
    for cells, row, _ in csv_rows(model, table, time_column):
        if detector is None:
            detector = Detector(at_level_of(model, row.values, table.name))
        try:
            at = row.timestamp - 1.0 if time_index is None else unix_seconds(cells[time_index])
        except ValueError as error:
            raise InputError(f"{table.name}:{table.line}: no time: {error}") from None
        thinned.add(at, detector.score(row), detector)
        progress(thinned.rows, table.fraction if thinned.rows % 100 == 0 else None)
    if not thinned.rows:
        raise InputError(f"{table.name}: has no rows")
    return thinned


# -- the picture -------------------------------------------------------------------------------------------------------


class Canvas(Protocol):
    """What can be drawn on; places are in pixels from the upper left, colours are names."""

    def box(self, left: float, top: float, width: float, height: float, colour: str) -> None:
        """Fill a rectangle."""

    def line(self, points: Sequence[tuple[float, float]], colour: str, *, dashed: bool = False) -> None:
        """Draw a line through points."""

    def band(self, xs: Sequence[float], tops: Sequence[float], bottoms: Sequence[float], colour: str) -> None:
        """Fill what lies between two lines."""

    def text(self, left: float, baseline: float, text: str, colour: str, *, right: bool = False) -> None:
        """Write a line, to the right of a place or to its left."""


def height(thinned: Thinned) -> int:
    """Pixels that `draw` needs from top to bottom."""
    features = min(MOST_FEATURES, len(thinned.features))
    panels = [_SCORE_HEIGHT, _SHARE_HEIGHT, *[_FEATURE_HEIGHT] * features]
    return _TOP + sum(_HEAD + panel + _GAP for panel in panels) + _FOOT


def draw(
    canvas: Canvas,
    thinned: Thinned,
    *,
    title: str,
    is_time: bool,
    alerts: Iterable[tuple[float, float]] = (),
) -> None:
    """Lay a picture out on a canvas, `WIDTH` pixels wide.

    Parameters
    ----------
    canvas : Canvas
    thinned : Thinned
        With at least one column.
    title : str
    is_time : bool
        Whether columns stand at Unix seconds or at numbers of rows.
    alerts : iterable of (float, float)
        From when to when each was open; shaded behind the score.
    """
    columns = thinned.columns
    begin, end = min(c.first_at for c in columns), max(c.last_at for c in columns)
    axis = _Axis(begin, max(end, begin + 1.0), is_time)
    canvas.text(_LEFT, 20, title, "ink")
    runs = _runs(columns)
    top = _TOP
    order = np.argsort(-thinned.blame(), kind="stable")[:MOST_FEATURES]

    threshold = columns[-1].threshold
    ceiling = (
        max(1.5 * threshold, min(1.1 * thinned.highest, _HIGHEST * threshold)) if threshold > 0 else thinned.highest
    )
    panel = _Panel(canvas, axis, top, _SCORE_HEIGHT, 0.0, max(ceiling, 1e-12))
    cut = ", beyond the scale" if thinned.highest > ceiling else ""
    panel.head(
        "score",
        f"highest {thinned.highest:.4g} at {axis.label(thinned.highest_at)}{cut}",
        (("threshold", "threshold"),),
    )
    for since, until in alerts:
        panel.shade(since, until, "alert")
    panel.grid()
    for run in runs:
        panel.band(run, [c.low for c in run], [c.high for c in run], "range")
        panel.line(run, [c.high for c in run], "score")
        panel.line(run, [c.threshold for c in run], "threshold", dashed=True)
    top += _HEAD + _SCORE_HEIGHT + _GAP

    panel = _Panel(canvas, axis, top, _SHARE_HEIGHT, 0.0, max(ceiling, 1e-12))
    names = [(f"part{i}", _short(thinned.features[f])) for i, f in enumerate(order)]
    if len(order) < len(thinned.features):
        names.append(("other", "others"))
    panel.head("what the score is made of", "", names)
    panel.grid()
    for run in runs:
        whole = np.array([c.share * c.explained for c in run])  # (N, F)
        shown = whole[:, order]
        edges = np.concatenate([np.zeros((len(run), 1)), np.cumsum(shown, axis=1), whole.sum(axis=1)[:, None]], axis=1)
        for i, (colour, _) in enumerate(names):
            panel.band(run, edges[:, i], edges[:, i + 1], colour)
    top += _HEAD + _SHARE_HEIGHT + _GAP

    for f in order:
        measured = np.array([c.measured[f] for c in columns])
        expected = np.array([c.expected[f] for c in columns])
        known = np.concatenate([measured, expected])
        known = known[np.isfinite(known)]
        low, high = (float(known.min()), float(known.max())) if len(known) else (0.0, 1.0)
        margin = 0.08 * (high - low) or 0.5
        panel = _Panel(canvas, axis, top, _FEATURE_HEIGHT, low - margin, high + margin)
        panel.head(_short(thinned.features[f]), "", (("actual", "actual"), ("expected", "expected")))
        for run in runs:
            for gone, group in groupby(run, lambda column: bool(column.missing[f])):  # noqa: B023  used at once
                if gone:
                    spans = list(group)
                    panel.shade(spans[0].first_at, spans[-1].last_at, "gone")
        panel.grid()
        for run in runs:
            panel.line(run, [float(c.expected[f]) for c in run], "expected", dashed=True)
            panel.line(run, [float(c.measured[f]) for c in run], "actual")
        top += _HEAD + _FEATURE_HEIGHT + _GAP
    for at, text in axis.ticks():
        canvas.text(min(axis.place(at), WIDTH - _RIGHT - 34.0), top + 2, text, "soft")


def _short(name: str) -> str:
    text = visible(name)
    return text if len(text) <= 28 else f"{text[:27]}…"


def _runs(columns: Sequence[Column]) -> list[list[Column]]:
    """Columns that follow each other without a silence of more than a hundredth of all."""
    longest = (columns[-1].last_at - columns[0].first_at) / 100
    steps = sorted(b.first_at - a.last_at for a, b in pairwise(columns))
    usual = steps[len(steps) // 2] if steps else 0.0
    runs = [[columns[0]]]
    for before, column in pairwise(columns):
        step = column.first_at - before.last_at
        if step < 0.0 or step > max(longest, 3.0 * usual):
            runs.append([])
        runs[-1].append(column)
    return runs


class _Axis:
    """Where a moment, or the number of a row, is from left to right, and how it is written."""

    def __init__(self, begin: float, end: float, is_time: bool) -> None:
        self._begin, self._end, self._is_time = begin, end, is_time

    def place(self, at: float) -> float:
        share = (at - self._begin) / (self._end - self._begin)
        return _LEFT + min(1.0, max(0.0, share)) * (WIDTH - _LEFT - _RIGHT)

    def ticks(self) -> list[tuple[float, str]]:
        span = self._end - self._begin
        if self._is_time:
            step: float = next((s for s in _STEPS_S if span / s <= 9), span / 6)
        else:
            scale = 10.0 ** math.floor(math.log10(max(span / 8, 1.0)))
            step = next(scale * nice for nice in (1, 2, 5, 10) if span / (scale * nice) <= 9)
        first = math.ceil(self._begin / step)
        return [(k * step, self._written(k * step, step)) for k in range(first, math.floor(self._end / step) + 1)]

    def label(self, at: float) -> str:
        """One place in full."""
        if not self._is_time:
            return f"row {at:.0f}"
        return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")

    def _written(self, at: float, step: float) -> str:
        if not self._is_time:
            return f"{at:.0f}"
        form = "%m-%d" if step >= _DAY_S or at % _DAY_S == 0.0 else "%H:%M" if step >= 60 else "%H:%M:%S"
        return datetime.fromtimestamp(at, UTC).strftime(form)


class _Panel:
    """One chart of the picture: values from `low` at the bottom to `high` at the top."""

    def __init__(self, canvas: Canvas, axis: _Axis, top: int, height: int, low: float, high: float) -> None:
        self._canvas, self._axis = canvas, axis
        self._head, self._top, self._height = top, top + _HEAD, height
        self._low, self._high = low, high

    def head(self, title: str, note: str, legend: Iterable[tuple[str, str]]) -> None:
        left, baseline = float(_LEFT), self._head + 15.0
        self._canvas.text(left, baseline, title, "ink")
        left += 8.0 * len(title) + 18.0
        if note:
            self._canvas.text(left, baseline, note, "soft")
            left += 8.0 * len(note) + 18.0
        for colour, name in legend:
            self._canvas.box(left, baseline - 8.0, 14.0, 7.0, f"key {colour}" if colour in _LINES else colour)
            self._canvas.text(left + 19.0, baseline, name, "soft")
            left += 8.0 * len(name) + 38.0

    def grid(self) -> None:
        right, bottom = WIDTH - _RIGHT, self._top + self._height
        for at, _ in self._axis.ticks():
            x = self._axis.place(at)
            self._canvas.line([(x, self._top), (x, bottom)], "grid")
        for value in (self._low, (self._low + self._high) / 2, self._high):
            y = self._y(value)
            self._canvas.line([(_LEFT, y), (right, y)], "grid")
            self._canvas.text(_LEFT - 6.0, y + 4.0, f"{value:.4g}", "soft", right=True)

    def shade(self, since: float, until: float, colour: str) -> None:
        left = self._axis.place(since)
        self._canvas.box(left, self._top, max(2.0, self._axis.place(until) - left), self._height, colour)

    def line(self, run: Sequence[Column], values: Sequence[float], colour: str, *, dashed: bool = False) -> None:
        """Draw values, one a column; where one is missing the line stops."""
        points: list[tuple[float, float]] = []
        for column, value in zip(run, values, strict=True):
            if math.isfinite(value):
                points.append((self._x(column), self._y(value)))
                continue
            self._canvas.line(points, colour, dashed=dashed)
            points = []
        if len(run) == 1 and points:
            points.append((points[0][0] + 2.0, points[0][1]))
        self._canvas.line(points, colour, dashed=dashed)

    def band(self, run: Sequence[Column], lows: Iterable[float], highs: Iterable[float], colour: str) -> None:
        xs = [self._x(column) for column in run]
        self._canvas.band(xs, [self._y(value) for value in highs], [self._y(value) for value in lows], colour)

    def _x(self, column: Column) -> float:
        return self._axis.place((column.first_at + column.last_at) / 2)

    def _y(self, value: float) -> float:
        share = (value - self._low) / (self._high - self._low)
        return self._top + self._height * (1.0 - min(1.0, max(0.0, share)))


# -- on what it is drawn -----------------------------------------------------------------------------------------------


class SvgCanvas:
    """A picture as text: `svg` gives it."""

    def __init__(self, width: int, height: int) -> None:
        self._size = width, height
        self._parts: list[str] = []

    def box(self, left: float, top: float, width: float, height: float, colour: str) -> None:
        """Fill a rectangle; ``key NAME`` is the colour of a line as that of an area."""
        key, _, name = colour.rpartition(" ")
        place = f'x="{left:.1f}" y="{top:.1f}" width="{width:.1f}" height="{height:.1f}"'
        self._parts.append(f'<rect class="{"k" if key else "g"}-{name}" {place}/>')

    def line(self, points: Sequence[tuple[float, float]], colour: str, *, dashed: bool = False) -> None:
        """Draw a line through points."""
        if len(points) > 1:
            place = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
            self._parts.append(f'<polyline class="g-{colour}{" dashed" if dashed else ""}" points="{place}"/>')

    def band(self, xs: Sequence[float], tops: Sequence[float], bottoms: Sequence[float], colour: str) -> None:
        """Fill what lies between two lines."""
        edge = [*zip(xs, tops, strict=True), *zip(reversed(xs), reversed(bottoms), strict=True)]
        self._parts.append(f'<polygon class="g-{colour}" points="{" ".join(f"{x:.1f},{y:.1f}" for x, y in edge)}"/>')

    def text(self, left: float, baseline: float, text: str, colour: str, *, right: bool = False) -> None:
        """Write a line."""
        anchor = ' text-anchor="end"' if right else ""
        place = f'x="{left:.1f}" y="{baseline:.1f}"'
        self._parts.append(f'<text class="g-{colour}" {place}{anchor}>{escape(visible(text))}</text>')

    def svg(self, label: str, *, whole: bool) -> str:
        """Return the picture; `whole` as a file of its own, else as part of a page that has `STYLE`."""
        width, height = self._size
        own = f' width="{width}" height="{height}"' if whole else ""
        style = f'<style>{STYLE}</style><rect class="g-ground" width="{width}" height="{height}"/>' if whole else ""
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" class="g" role="img" viewBox="0 0 {width} {height}"{own} '
            f'aria-label="{escape(visible(label))}">{style}{"".join(self._parts)}</svg>'
        )


class PngCanvas:
    """A picture as pixels: `png` gives it."""

    def __init__(self, width: int, height: int) -> None:
        self._paper = np.full((height, width, 3), 255, np.uint8)

    def box(self, left: float, top: float, width: float, height: float, colour: str) -> None:
        """Fill a rectangle."""
        x, y = round(left), round(top)
        self._paper[y : round(top + height), x : max(x + 1, round(left + width))] = _rgb(colour.rpartition(" ")[2])

    def line(self, points: Sequence[tuple[float, float]], colour: str, *, dashed: bool = False) -> None:
        """Draw a line through points."""
        drawn = 0
        for (x0, y0), (x1, y1) in pairwise(points):
            steps = max(1, round(max(abs(x1 - x0), abs(y1 - y0))))
            for i in range(steps + 1):
                drawn += 1
                if not dashed or drawn % 9 < 5:
                    x, y = round(x0 + (x1 - x0) * i / steps), round(y0 + (y1 - y0) * i / steps)
                    self._paper[y : y + (1 if colour == "grid" else 2), x] = _rgb(colour)

    def band(self, xs: Sequence[float], tops: Sequence[float], bottoms: Sequence[float], colour: str) -> None:
        """Fill what lies between two lines."""
        for x in range(round(xs[0]), round(xs[-1]) + 1):
            y = round(float(np.interp(x, xs, tops)))
            self._paper[y : round(float(np.interp(x, xs, bottoms))), x] = _rgb(colour)

    def text(self, left: float, baseline: float, text: str, colour: str, *, right: bool = False) -> None:
        """Write a line."""
        at = round(left - 8 * len(text) if right else left)
        room = max(0, (self._paper.shape[1] - at) // 8)
        write_text(self._paper, visible(text)[:room], max(0, at), round(baseline) - 9, _rgb(colour))

    def png(self) -> bytes:
        """Return the picture."""
        return png_bytes(self._paper)


def _rgb(colour: str) -> tuple[int, int, int]:
    text = _COLOURS[colour][0]
    return int(text[1:3], 16), int(text[3:5], 16), int(text[5:7], 16)


def picture(thinned: Thinned, path: str, *, title: str, is_time: bool) -> bytes:
    """Return the picture as the file that a name asks for.

    Raises
    ------
    InputError
        The name ends neither in ``.svg`` nor in ``.png``.
    """
    size = WIDTH, height(thinned)
    if path.lower().endswith(".svg"):
        svg = SvgCanvas(*size)
        draw(svg, thinned, title=title, is_time=is_time)
        return svg.svg(title, whole=True).encode()
    if path.lower().endswith(".png"):
        png = PngCanvas(*size)
        draw(png, thinned, title=title, is_time=is_time)
        return png.png()
    raise InputError(f"{path}: pictures are .svg or .png; give it one of these endings")
