"""Pictures of results: contact sheets by Pillow, which comes with matplotlib, and charts by matplotlib.

Small files, since they live in a repository: few colours, 80 dots an inch.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gon_edge.errors import GonEdgeError


def sheet(rows: Sequence[NDArray[np.float32]], path: Path, *, zoom: int = 2) -> None:
    """Write rows of pictures as a PNG.

    Parameters
    ----------
    rows : sequence of ndarray, (N, C, P, P)
        In [-1, 1]; each is a row of the sheet, and may have its own N.
    path : Path
    zoom : int
        Dots a pixel.
    """
    _, channels, side, _ = rows[0].shape
    widest = max(len(row) for row in rows)
    paper = np.full((len(rows) * (side + 1) + 1, widest * (side + 1) + 1, channels), 128, np.uint8)
    for i, row in enumerate(rows):
        for j, picture in enumerate(row):
            top, left = i * (side + 1) + 1, j * (side + 1) + 1
            paper[top : top + side, left : left + side] = np.rint((picture.clip(-1, 1) + 1) * 127.5).transpose(1, 2, 0)
    grown = paper.repeat(zoom, axis=0).repeat(zoom, axis=1)
    from PIL import Image

    Image.fromarray(grown if channels == 3 else grown[..., 0]).save(path, optimize=True)


@contextmanager
def chart(path: Path, *, size: tuple[float, float] = (5.0, 3.2), grid: tuple[int, int] = (1, 1)) -> Iterator[Any]:
    """Give axes (or an array of them) to draw on; the file is written at the end.

    Parameters
    ----------
    path : Path
    size : tuple of float
        Inches, of the whole.
    grid : tuple of int
        Rows and columns of axes.

    Raises
    ------
    GonEdgeError
        Without matplotlib.
    """
    try:
        import matplotlib as mpl
    except ImportError:
        raise GonEdgeError(
            f"{path}: drawing it needs matplotlib; install it with: pip install 'gon-edge[research]'"
        ) from None
    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(*grid, figsize=size, squeeze=False, layout="constrained")
    try:
        yield axes[0, 0] if grid == (1, 1) else axes
        figure.savefig(path, dpi=80)
    finally:
        plt.close(figure)


def histogram(axes: Any, scores: Mapping[str, NDArray[np.floating]], *, bins: int = 60) -> None:
    """Draw the distributions of some scores over common bins; the highest 1 % are drawn in the last."""
    everything = np.concatenate(list(scores.values()))
    edges = np.linspace(everything.min(), np.quantile(everything, 0.99), bins + 1)
    for name, values in scores.items():
        axes.hist(np.minimum(values, edges[-1]), edges, density=True, alpha=0.55, label=name)
    axes.set_yticks([])
