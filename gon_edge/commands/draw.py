"""What `top` and the demo draw with: a line of foreign text, a chart of scores, the same in one line.

Everything returns text of rich, and knows neither terminal nor daemon.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

from rich.text import Text

from gon_edge.commands.text import visible

_BLOCKS = " ▁▂▃▄▅▆▇█"


def line(*parts: tuple[str, str]) -> Text:
    """Return a line that is cut where the terminal ends, made of texts, which may be foreign, and their styles."""
    return Text.assemble(*((visible(text), style) for text, style in parts), no_wrap=True, overflow="ellipsis")


def chart(values: Sequence[float | None], threshold: float | None, *, width: int, height: int) -> Text:
    """Draw the newest values as columns, with the threshold as a dashed line.

    Parameters
    ----------
    values : sequence of float or None
        Oldest first.  The newest `width` are drawn, the newest on the right; a gap is drawn as 0.
    threshold : float or None
        Columns above it are red.
    width, height : int
        Characters.

    Returns
    -------
    Text
        `height` lines of `width` characters.  Zero is at the bottom.
    """
    shown = [value or 0.0 for value in values[-width:]]
    top = _top(shown, threshold)
    line_row = None if threshold is None else min(height - 1, int(threshold / top * height))
    lines = []
    for row in range(height - 1, -1, -1):
        empty = ("┄" if row == line_row else " ", "yellow")
        cells = [empty] * (width - len(shown))
        for value in shown:
            eighths = round(_share(value, top) * height * 8) - row * 8
            if eighths <= 0:
                cells.append(empty)
            elif row == line_row and eighths > 8:  # the threshold stays in sight across columns that are above it
                cells.append(("┄", "yellow on red"))
            else:
                cells.append((_BLOCKS[min(8, eighths)], _colour(value, threshold)))
        lines.append(_styled(cells))
    return Text("\n").join(lines)


def sparkline(values: Sequence[float | None], threshold: float | None, *, width: int) -> Text:
    """Return the newest values as one line of `width` characters, the newest on the right; those above it are red.

    Examples
    --------
    >>> str(sparkline([0.0, 1.0, 2.0, 9.0], 2.0, width=6))
    '  ▁▁▃█'
    """
    shown = [value for value in values[-width:] if value is not None] if width > 0 else []
    top = _top(shown, threshold)
    blocks = [(_BLOCKS[max(1, round(8 * _share(value, top)))], _colour(value, threshold)) for value in shown]
    return _styled([(" ", "")] * (width - len(shown)) + blocks)


def range_line(values: Sequence[float | None], *, width: int) -> Text:
    """Return values over time as one line of `width` characters, from their own lowest to their own highest.

    Neighbours that share a character are averaged; a gap is a space.

    Examples
    --------
    >>> str(range_line([5.0, 5.0, None, 7.0, 9.0, 9.0], width=6))
    '▁▁ ▅██'
    >>> str(range_line([1.0, 3.0, 5.0, 5.0], width=2))
    '▁█'
    """
    groups: list[list[float]] = [[] for _ in range(max(0, min(width, len(values))))]
    for i, value in enumerate(values if groups else ()):
        if value is not None:
            groups[i * len(groups) // len(values)].append(value)
    means = [sum(group) / len(group) if group else None for group in groups]
    known = [mean for mean in means if mean is not None]
    low, span = min(known, default=0.0), max(known, default=0.0) - min(known, default=0.0)

    def block(mean: float | None) -> tuple[str, str]:
        if mean is None:
            return " ", ""
        return _BLOCKS[1 + round(7 * (mean - low) / span) if span > 0.0 else 1], "cyan"

    return _styled([*((" ", "") for _ in range(width - len(groups))), *map(block, means)])


def _top(values: Sequence[float], threshold: float | None) -> float:
    """The value at the top: the largest, but 1.5 to 3 times the threshold, so that a fault flattens nothing normal."""
    top = max([*values, 1e-12])
    return top if threshold is None or threshold <= 0.0 else max(1.5 * threshold, min(top, 3.0 * threshold))


def _share(value: float, top: float) -> float:
    return max(0.0, min(1.0, value / top))


def _colour(value: float, threshold: float | None) -> str:
    return "red" if threshold is not None and value > threshold else "green"


def _styled(cells: Sequence[tuple[str, str]]) -> Text:
    """Cells of a character and its style as text; neighbours of one style share a span, which draws faster."""
    runs = [("".join(character for character, _ in run), style) for style, run in groupby(cells, lambda cell: cell[1])]
    return Text.assemble(*runs, no_wrap=True)
