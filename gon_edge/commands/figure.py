"""Figures as files: matplotlib, set up to draw the same bytes everywhere, without a display and without a word.

What it takes care of, so that ``plot``, ``report`` and ``sample`` only draw: colours for light and for dark, text that
is nothing but text (names are foreign: no formula, no markup), SVG that a strict page may hold, a home directory that
cannot be written.  The settings of the user's matplotlib do not count.

matplotlib is not a dependency of gon-edge: importing this module without it raises `MissingLibrary`.
"""

from __future__ import annotations

import gc
import io
import logging
import os
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any
from xml.etree import ElementTree as ET  # of what matplotlib has just written, never of a foreign file

from gon_edge.commands.text import visible
from gon_edge.errors import MissingLibrary


def _prepare() -> None:
    """Set what matplotlib reads when it is imported."""
    # It would tell of a home that cannot be written and of its font cache.  Where it cannot write it takes a folder
    # for temporary files, but it fails where there is no home at all.
    logging.getLogger("matplotlib").setLevel(logging.ERROR)
    os.environ["MPLBACKEND"] = "agg"
    try:
        Path.home()
    except RuntimeError:
        os.environ.setdefault("XDG_CONFIG_HOME", os.devnull)
        os.environ.setdefault("XDG_CACHE_HOME", os.devnull)


_prepare()
try:
    import matplotlib as mpl
    from matplotlib.axes import Axes
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.dates import AutoDateLocator, ConciseDateFormatter, num2date
    from matplotlib.figure import Figure
    from matplotlib.font_manager import FontProperties
    from matplotlib.patches import Patch
    from matplotlib.ticker import FuncFormatter, MaxNLocator
except ImportError as error:
    raise MissingLibrary("matplotlib", "a picture", error) from None

WIDTH = 960
"""Dots of an SVG from left to right: half a screen, and a page of A4 at 116 dots an inch."""

DOT = 72
"""Dots an inch of an SVG, so that a dot of the picture is a point of matplotlib."""

_SHARPNESS = 2
"""Dots of a PNG for one of an SVG: it stays sharp on a screen of double resolution."""

# Okabe and Ito's colours, which colour-blind people tell apart; light first, then dark.  One light colour has one dark.
_COLOURS = {
    "ground": ("#ffffff", "#1a201e"),
    "grid": ("#e1e4e0", "#2b3330"),
    "ink": ("#1c2321", "#e6ebe9"),
    "soft": ("#5a6562", "#9aa6a2"),
    "alert": ("#fbe3e1", "#552623"),
    "gone": ("#e7eae6", "#363f3c"),
    "score": ("#1f7a6d", "#5cc2b0"),
    "range": ("#a9cfc8", "#2c5750"),
    "threshold": ("#b3261e", "#ff9a91"),
    "actual": ("#1c2321", "#e6ebe9"),
    "spread": ("#c9cecb", "#4a5552"),
    "expected": ("#0072b2", "#56b4e9"),
    "part0": ("#d55e00", "#e8833a"),
    "part1": ("#0072b2", "#56b4e9"),
    "part2": ("#e69f00", "#f0b93a"),
    "part3": ("#009e73", "#2fbf94"),
    "part4": ("#cc79a7", "#dd9abf"),
    "part5": ("#56b4e9", "#a5d8f5"),
    "other": ("#b9c0bd", "#66716d"),
}
LIGHT: Mapping[str, str] = MappingProxyType({name: pair[0] for name, pair in _COLOURS.items()})
DARK: Mapping[str, str] = MappingProxyType({name: pair[1] for name, pair in _COLOURS.items()})

DARK_STYLE = "@media (prefers-color-scheme: dark) {{{}}}\n".format(
    "".join(
        f'.gon-edge [{kind}="{light}"]{{{kind}:{dark}}}'
        for light, dark in dict.fromkeys(_COLOURS.values())
        for kind in ("fill", "stroke")
    )
)
"""Style that turns an SVG drawn with `LIGHT` into a dark one, where its viewer prefers that."""

_STYLE: dict[Any, Any] = {
    "axes.axisbelow": True,
    "axes.facecolor": "none",
    "axes.grid": True,
    "axes.linewidth": 0.8,
    "axes.spines.left": False,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlelocation": "left",
    "axes.titlesize": 12,
    "axes.unicode_minus": False,
    "figure.dpi": DOT,
    "font.size": 11,
    "legend.borderaxespad": 0,
    "legend.borderpad": 0,
    "legend.columnspacing": 1.5,
    "legend.frameon": False,
    "legend.handlelength": 1.3,
    "legend.handletextpad": 0.5,
    "lines.linewidth": 1.3,
    "path.simplify": True,
    "svg.fonttype": "none",  # text stays text: it can be searched, read out and copied
    "svg.hashsalt": "gon-edge",  # or ids are drawn by lot
    "text.parse_math": False,
    "xtick.bottom": False,
    "ytick.left": False,
}
_SOFT: tuple[Any, ...] = ("axes.labelcolor", "legend.labelcolor", "xtick.color", "ytick.color")
_NO_DATE = {"Creator": None, "Date": None, "Format": None, "Type": None}
_SVG = "{http://www.w3.org/2000/svg}"
_DAY = re.compile(r"\d\d-\d\d")
_LONG_NUMBER = re.compile(r"-?\d+\.\d{3,}")
_ROUNDED = ("d", "points", "transform", "x", "y", "width", "height")
_FONT = re.compile(r"(?:(?P<weight>\d+) )?(?P<size>[\d.]+px) .*", re.DOTALL)


@contextmanager
def canvas(colours: Mapping[str, str]) -> Iterator[Figure]:
    """Give an empty figure; it must be drawn, and saved by `png` or `svg`, before this ends.

    Parameters
    ----------
    colours : mapping
        `LIGHT` or `DARK`.
    """
    gc.collect()  # the figure before is a ring of references: a page of many would hold them all
    with mpl.rc_context(), warnings.catch_warnings():
        # Of a character that is in no font, of which the picture shows a box.
        warnings.simplefilter("ignore", UserWarning)
        mpl.rcdefaults()
        ink, soft, grid = colours["ink"], colours["soft"], colours["grid"]
        mpl.rcParams.update(_STYLE | {"text.color": ink, "axes.edgecolor": grid, "grid.color": grid})
        mpl.rcParams.update(dict.fromkeys(_SOFT, soft))
        figure = Figure(facecolor=colours["ground"])
        FigureCanvasAgg(figure)
        yield figure


def resize(figure: Figure, width: float, height: float) -> None:
    """Give a figure its size in dots, before the first panel."""
    figure.set_size_inches(width / DOT, height / DOT)


def panel(figure: Figure, left: float, top: float, width: float, height: float) -> Axes:
    """Add a panel; places are in dots from the upper left."""
    across, down = figure.get_size_inches() * DOT
    axes = figure.add_axes((left / across, 1.0 - (top + height) / down, width / across, height / down))
    axes.yaxis.set_major_locator(MaxNLocator(3, steps=[1, 2, 2.5, 5, 10]))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.6g}"))
    return axes


def across(axes: Axes, begin: float, end: float, *, is_time: bool) -> None:
    """Let a panel reach from one moment to another, or from one row to another.

    Parameters
    ----------
    axes : Axes
    begin, end : float
        As `place` gives them.
    is_time : bool
        Whether they are moments; these are written in UTC.
    """
    axes.set_xlim(begin, end)
    if not is_time:
        axes.xaxis.set_major_locator(MaxNLocator(8, integer=True))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.0f}"))
        return
    locator = AutoDateLocator(minticks=4, maxticks=9)
    whole = ["UTC", "UTC", "%Y UTC", *["%Y-%m-%d UTC"] * 3]  # beside ticks that are years, months, days, hours, ...
    ticks = ["%Y", "%Y-%m", "%m-%d", "%H:%M", "%H:%M", "%H:%M:%S.%f"]
    first = ["", "%Y-%m", "%m-%d", "%m-%d", "%H:%M", "%H:%M:%S"]  # January, the first of the month, midnight, ...
    axes.xaxis.set_major_locator(locator)
    formatter = _DatesWithYears(locator, formats=ticks, zero_formats=first, offset_formats=whole)  # type: ignore[no-untyped-call]
    axes.xaxis.set_major_formatter(formatter)


class _DatesWithYears(ConciseDateFormatter):
    """Dates as short as can be, days with their year where it changes: beside the axis stands only the last one."""

    def format_ticks(self, values: Sequence[float]) -> list[str]:
        labels: list[str] = super().format_ticks(values)  # type: ignore[no-untyped-call]
        years = [num2date(value).year for value in values]
        if len(set(years)) == 1:
            return labels
        return [
            f"{year}-{label}" if _DAY.fullmatch(label) and year != before else label
            for label, year, before in zip(labels, years, [0, *years], strict=False)
        ]


def place(at: float, *, is_time: bool) -> float:
    """Where a moment in Unix seconds, or the number of a row, is on an axis."""
    return at / 86400.0 if is_time else at  # matplotlib counts days since 1970


def text_width(figure: Figure, text: str) -> float:
    """Dots that a text takes in the size of a legend."""
    assert isinstance(figure.canvas, FigureCanvasAgg)
    font = FontProperties(size=mpl.rcParams["font.size"])
    width, _, _ = figure.canvas.get_renderer().get_text_width_height_descent(text, font, False)
    return float(width)


def swatch(colour: str) -> Patch:
    """Return something in a colour, for a legend."""
    return Patch(color=colour, linewidth=0)


def short(name: str, width: int = 28) -> str:
    """Return a foreign name as one line of harmless text, cut to `width` characters."""
    text = visible(name)
    return text if len(text) <= width else f"{text[: width - 1]}…"


def png(figure: Figure) -> bytes:
    """Return the figure as a PNG file."""
    out = io.BytesIO()
    figure.savefig(
        out, format="png", dpi=_SHARPNESS * DOT, facecolor=figure.get_facecolor(), metadata={"Software": None}
    )
    return out.getvalue()


def svg(figure: Figure, label: str, *, css: str | None) -> str:
    """Return the figure as SVG.

    Parameters
    ----------
    figure : Figure
    label : str
        Said in place of the picture to those who cannot see it.
    css : str or None
        Style of a file of its own.  ``None`` gives an element for an HTML page, which has the style: nothing in it
        needs a namespace, and no rule of the page against inline style touches it.
    """
    out = io.BytesIO()
    figure.savefig(out, format="svg", facecolor=figure.get_facecolor(), metadata=_NO_DATE)
    root = ET.fromstring(out.getvalue())  # noqa: S314  written by the line above
    for parent in list(root.iter()):
        for child in [child for child in parent if child.tag in (f"{_SVG}metadata", f"{_SVG}style")]:
            parent.remove(child)
    for element in root.iter():
        _plain(element)
    width, height = (f"{round(float(root.attrib.pop(side).removesuffix('pt')))}" for side in ("width", "height"))
    root.attrib.pop("version", None)
    root.attrib |= {
        "class": "gon-edge",
        "role": "img",
        "aria-label": visible(label),
        "viewBox": f"0 0 {width} {height}",
    }
    root.attrib |= {"font-family": "system-ui, 'DejaVu Sans', sans-serif", "stroke-linejoin": "round"}
    if css is None:
        for element in root.iter():
            element.tag = element.tag.removeprefix(_SVG)
        return ET.tostring(root, encoding="unicode")
    root.attrib |= {"width": width, "height": height}
    style = ET.Element(f"{_SVG}style")
    style.text = css
    root.insert(0, style)
    ET.register_namespace("", _SVG[1:-1])
    return ET.tostring(root, encoding="unicode", xml_declaration=True)


def _plain(element: ET.Element) -> None:
    """Write inline style as attributes, which style sheets outrank, and numbers to a hundredth of a dot."""
    for rule in element.attrib.pop("style", "").split(";"):
        name, _, value = (part.strip() for part in rule.partition(":"))
        if name == "font" and (font := _FONT.fullmatch(value)):  # matplotlib before 3.8
            element.attrib |= {f"font-{what}": text for what, text in font.groupdict().items() if text}
        elif name and name != "font-family":
            element.set(name, value)
    for name in _ROUNDED:
        if (text := element.get(name)) is not None:
            element.set(name, _LONG_NUMBER.sub(lambda number: f"{float(number[0]):.2f}", text))
    # A link within the file needs no second namespace.
    if (link := element.attrib.pop("{http://www.w3.org/1999/xlink}href", None)) is not None:
        element.set("href", link)
