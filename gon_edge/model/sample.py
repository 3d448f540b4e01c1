"""What a model thinks normal looks like: windows it makes itself beside windows it was trained on, as numbers or a PNG.

The discriminator makes them: from noise in the directions of its longest scale, around each of its prototypes in turn,
it climbs its own slope, and stops half-way back to the noise, where it finds the window as normal as a typical one.
The top of the slope itself would be the prototype, smoother than anything real.

Pure: model and rows in, arrays and bytes out.  The picture is drawn here, dot by dot, since the daemon has no library
for it.
"""

from __future__ import annotations

import csv
import struct
import zlib
from collections.abc import Sequence
from typing import IO

import numpy as np
from numpy.typing import NDArray

from gon_edge.errors import InputError
from gon_edge.model.file import Model
from gon_edge.model.gon import Discriminator, Float, orthonormal_rows
from gon_edge.model.smoothing import fill

_CLIMB_STEPS = 50
_HALVINGS = 20
_STARTS = 4
"""Starts for each window wanted."""
MOST_FEATURES = 16
"""Features a picture has room for: those that vary most, in the deviations the model knows them by."""

_REAL, _GENERATED, _GRID, _INK = (70, 70, 70), (20, 90, 190), (225, 225, 225), (0, 0, 0)
_PANEL_WIDTH, _PANEL_HEIGHT, _MARGIN, _HEAD = 64, 40, 232, 40

_CHARACTERS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ .,-+_/:%()[]=#"
_DOTS = (
    "7555726227717477171755711747177475771111757577571725755656563444365556"
    "7464774644345535575572227111525565544447577555777525552656442556365655"
    "3421672222555575555255775552555522271247000000000200024007000272000007"
    "112440202051245122214222432223622260707057575"
)
"""Five rows of three dots for each character, an octal digit a row."""
_UNKNOWN_GLYPH = "71202"


def generated_windows(model: Model, count: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """Make windows that the model finds as normal as a typical one.

    Parameters
    ----------
    model : Model
    count : int
        N.
    rng : numpy.random.Generator

    Returns
    -------
    ndarray, shape (N, W, F)
        In engineering units.
    """
    net = model.discriminator
    start = _noise(net, _STARTS * count, rng)
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


def _noise(net: Discriminator, count: int, rng: np.random.Generator) -> Float:
    """Windows (N, W, F) of noise as the longest scale knows it: around its prototypes, and what it does not see."""
    scale = net.scales[-1]
    basis = orthonormal_rows(scale.weight.dequantize())  # (H, W*F)
    centre = scale.prototypes[rng.permutation(np.arange(count) % len(scale.prototypes))]  # (N, H)
    p = (centre + rng.standard_normal(centre.shape)) / scale.gain
    unseen = rng.standard_normal((count, basis.shape[1])) / np.sqrt(scale.kappa)
    unseen -= unseen @ basis.T @ basis
    noise: Float = (p @ basis + unseen).astype(np.float32).reshape(count, net.window, net.features)
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
        In the model's order of features; a missing reading is the one before it.  Fewer than ``count`` where there are
        not so many windows that do not overlap at their ends.

    Raises
    ------
    InputError
        When there is no whole window, or when a feature of the model has no column.
    """
    missing = [name for name in model.features if name not in features]
    if missing:
        raise InputError(f"the recorded rows lack features of the model: {', '.join(missing)}")
    columns = [list(features).index(name) for name in model.features]
    length = model.discriminator.window
    z = fill(model.scaler.transform(values[:, columns]))
    first = np.maximum.accumulate(np.where(restart, np.arange(len(z)), 0))
    ends = np.flatnonzero(np.arange(len(z)) - first >= length - 1)
    if not ends.size:
        raise InputError(f"no {length} recorded rows in a row yet, which is a window; wait for more")
    chosen = np.sort(rng.choice(ends, min(count, ends.size), replace=False))
    return model.scaler.inverse(np.stack([z[end - length + 1 : end + 1] for end in chosen]))


def write_csv(out: IO[str], model: Model, real: NDArray[np.float64], generated: NDArray[np.float64]) -> None:
    """Write one line a row of each window: ``kind`` (real or generated), ``window``, ``row``, and the features."""
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["kind", "window", "row", *model.features])
    for kind, windows in (("real", real), ("generated", generated)):
        for number, window in enumerate(windows):
            for row, values in enumerate(window):
                writer.writerow([kind, number, row, *(f"{value:.6g}" for value in values)])


def summary(model: Model, real: NDArray[np.float64], generated: NDArray[np.float64]) -> list[list[str]]:
    """Cells of a table: each feature's mean, deviation and typical step from row to row, real and generated."""
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
    """A PNG: a line of panels for each feature, real windows on the left and generated ones on the right.

    Parameters
    ----------
    model : Model
    real, generated : ndarray, shape (N, W, F)
        In engineering units.  Panels of a feature have one scale, whose ends are written beside them.
    title : str
    """
    both = np.concatenate([real, generated])
    moves = (both.std(axis=(0, 1)) / model.scaler.scale).argsort(kind="stable")[::-1][:MOST_FEATURES]
    shown = np.sort(moves)
    gap = 14
    width = _MARGIN + (len(both) + 1) * _PANEL_WIDTH + gap
    paper = np.full((_HEAD + len(shown) * (_PANEL_HEIGHT + 6) + 6, width, 3), 255, np.uint8)
    half = _MARGIN + len(real) * _PANEL_WIDTH + gap
    left_out = f", {len(shown)} of {len(model.features)} features" if len(shown) < len(model.features) else ""
    write_text(paper, title + left_out, 4, 6, _INK)
    write_text(paper, "real", _MARGIN, 24, _REAL)
    write_text(paper, "generated", half, 24, _GENERATED)
    for line, f in enumerate(shown):
        top = _HEAD + line * (_PANEL_HEIGHT + 6)
        low, high = both[..., f].min(), both[..., f].max()
        write_text(paper, model.features[f][-27:], 4, top + 7, _INK)
        write_text(paper, f"{low:.4g} to {high:.4g}", 4, top + 22, _REAL)
        span = (high - low) or 1.0
        for number, window in enumerate(both):
            is_real = number < len(real)
            left = _MARGIN + number * _PANEL_WIDTH if is_real else half + (number - len(real)) * _PANEL_WIDTH
            panel = paper[top : top + _PANEL_HEIGHT, left : left + _PANEL_WIDTH - 5]
            panel[[0, -1]] = panel[:, [0, -1]] = _GRID
            _line(panel, 1.0 - (window[:, f] - low) / span, _REAL if is_real else _GENERATED)
    return png_bytes(paper)


def _line(panel: NDArray[np.uint8], heights: NDArray[np.float64], colour: tuple[int, int, int]) -> None:
    """Draw heights (W,), 0 at the top and 1 at the bottom, across a panel."""
    rows, columns = panel.shape[0] - 4, panel.shape[1] - 4
    at = np.interp(np.linspace(0.0, len(heights) - 1.0, columns), np.arange(len(heights)), heights)
    dots = np.rint(at * (rows - 1)).astype(int) + 2
    for column, (before, here) in enumerate(zip(np.concatenate([dots[:1], dots[:-1]]), dots, strict=True)):
        panel[min(before, here) : max(before, here) + 1, column + 2] = colour


def write_text(paper: NDArray[np.uint8], text: str, left: int, top: int, colour: tuple[int, int, int]) -> None:
    """Write text on pixels (P, Q, 3) in capitals, a dot of a glyph two by two of them; what does not fit is cut off."""
    for i, character in enumerate(text.upper()):
        at = 5 * _CHARACTERS.find(character)
        for row, dots in enumerate(_DOTS[at : at + 5] if at >= 0 else _UNKNOWN_GLYPH):
            for column in range(3):
                if int(dots, 8) >> (2 - column) & 1:
                    y, x = top + 2 * row, left + 2 * (4 * i + column)
                    paper[y : y + 2, x : x + 2] = colour


def png_bytes(pixels: NDArray[np.uint8]) -> bytes:
    """A PNG file of grey (P, Q) or red-green-blue (P, Q, 3) pixels."""
    rows = np.ascontiguousarray(pixels).reshape(len(pixels), -1)
    unfiltered = np.concatenate([np.zeros((len(rows), 1), np.uint8), rows], axis=1)
    header = struct.pack(">IIBBBBB", pixels.shape[1], pixels.shape[0], 8, 0 if pixels.ndim == 2 else 2, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(unfiltered.tobytes(), 9)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body)) for name, body in chunks
    )
