"""What ``gon-edge sample`` shows: windows a model made beside recorded ones, as a table, as CSV, and as a picture.

The windows come from ``gon_edge.model.sample``.  Only the picture needs matplotlib.
"""

from __future__ import annotations

import csv
from typing import IO, TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from gon_edge.commands.text import visible
from gon_edge.model.file import Model

if TYPE_CHECKING:
    from collections.abc import Mapping

    from matplotlib.figure import Figure

MOST_FEATURES = 16
"""Features a picture has room for: those that vary most, in the deviations the model knows them by."""

# Dots; not critical: what looked well with 8 windows of 40 rows.
_AXIS, _BETWEEN, _RIGHT = 70, 70, 16
_TOP, _PANEL, _GAP, _FOOT = 64, 44, 12, 24
_WINDOW = 62
_WIDEST = 1000
"""A half of the picture is no wider, so with many windows each is narrower."""

_APART = 0.12
"""Between two windows, as a share of one."""


def write_csv(out: IO[str], model: Model, real: NDArray[np.float64], generated: NDArray[np.float64]) -> None:
    """Write one line a row of each window: ``kind`` (real or generated), ``window``, ``row``, and the features.

    Parameters
    ----------
    out : text file
    model : Model
    real, generated : ndarray, shape (N, W, F)
        In engineering units.
    """
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["kind", "window", "row", *model.features])
    for kind, windows in (("real", real), ("generated", generated)):
        for number, window in enumerate(windows):
            for row, values in enumerate(window):
                writer.writerow([kind, number, row, *(f"{value:.6g}" for value in values)])


def summary(model: Model, real: NDArray[np.float64], generated: NDArray[np.float64]) -> list[list[str]]:
    """Cells of a table: each feature's mean, deviation and typical step from row to row, real and generated.

    Parameters are those of `write_csv`.
    """
    cells = [["FEATURE", "REAL MEAN", "DEVIATION", "STEP", "GENERATED MEAN", "DEVIATION", "STEP"]]
    for f, name in enumerate(model.features):
        figures = [
            figure
            for windows in (real[..., f], generated[..., f])
            for figure in (
                windows.mean(),
                windows.std(),
                np.abs(np.diff(windows, axis=1)).sum() / max(1, windows[:, 1:].size),
            )
        ]
        cells.append([name, *(f"{figure:.4g}" for figure in figures)])
    return cells


def picture(model: Model, real: NDArray[np.float64], generated: NDArray[np.float64], *, title: str = "") -> bytes:
    """Return a PNG: a line for each feature, recorded windows on the left and windows of the model on the right.

    Parameters
    ----------
    model : Model
    real, generated : ndarray, shape (N, W, F)
        In engineering units.  Both halves of a line have one scale.
    title : str

    Raises
    ------
    MissingLibrary
        Without matplotlib.
    """
    from gon_edge.commands import figure as fig

    with fig.canvas(fig.LIGHT) as figure:
        _draw(figure, model, real, generated, title, fig.LIGHT)
        return fig.png(figure)


def _draw(
    figure: Figure,
    model: Model,
    real: NDArray[np.float64],
    generated: NDArray[np.float64],
    title: str,
    colours: Mapping[str, str],
) -> None:
    from gon_edge.commands import figure as fig

    both = np.concatenate([real, generated])
    moves = (both.std(axis=(0, 1)) / model.scaler.scale).argsort(kind="stable")[::-1][:MOST_FEATURES]
    shown = np.sort(moves)
    wide = min(_WIDEST, _WINDOW * max(len(real), len(generated)))
    names = {f: fig.short(model.features[f]) for f in shown}
    left = _RIGHT + max(fig.text_width(figure, name) for name in names.values()) + _AXIS
    width, height = left + wide + _BETWEEN + wide + _RIGHT, _TOP + len(shown) * (_PANEL + _GAP) + _FOOT
    fig.resize(figure, width, height)

    def write(x: float, y: float, text: str, colour: str, size: float = 11) -> None:
        figure.text(x / width, 1.0 - y / height, text, color=colours[colour], fontsize=size, va="baseline")

    left_out = f", {len(shown)} of {len(model.features)} features" if len(shown) < len(model.features) else ""
    write(_RIGHT, 24, visible(title) + left_out, "ink", 14)
    halves = (("real", real, left, "soft"), ("generated", generated, left + wide + _BETWEEN, "expected"))
    for kind, windows, at, colour in halves:
        rows = windows.shape[1]
        write(at, _TOP - 12, f"{kind}: {len(windows)} windows of {rows} rows", colour, 12)
        step = rows * (1.0 + _APART)
        places = np.arange(len(windows))[:, None] * step + np.arange(rows)  # (N, W)
        for line, f in enumerate(shown):
            top = _TOP + line * (_PANEL + _GAP)
            axes = fig.panel(figure, at, top, wide, _PANEL)
            low, high = float(both[..., f].min()), float(both[..., f].max())
            margin = 0.08 * (high - low) or 0.5
            edge = 0.5 * _APART * rows
            axes.set(xlim=(-edge, len(windows) * step - edge), ylim=(low - margin, high + margin))
            axes.set_xticks(places[1:, 0] - edge, [""] * (len(windows) - 1))
            for place, window in zip(places, windows[..., f], strict=True):
                axes.plot(place, window, color=colours[colour], linewidth=1.1)
            if kind == "real":
                write(_RIGHT, top + _PANEL / 2 + 4, names[f], "ink")
