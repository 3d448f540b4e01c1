"""Cells to numbers as programs and spreadsheets write them: decimal commas, thousands, units, words.

``1.234`` is a number in one country and another number in the next.  So all cells of a column are looked at before one
is read (:class:`Evidence`), and what cannot be told from a column is told from the others of its file.

=====================================  ==============================================================
``21.5``, ``1,234.5``, ``1'234.5``     with a decimal point
``21,5``, ``1.234,5``, ``1 234,5``     with a decimal comma
``21.5 °C``, ``55%``, ``3 m3/h``       with a unit, the same throughout the column
``on``, ``FALSE``                      1 or 0, as ``stream.scalars`` reads them
empty, ``NA``, ``-``, ``unavailable``  no value: masked ``null``
``nan``, ``inf``                       masked ``nan`` and ``infinite``
=====================================  ==============================================================
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field, replace

from gon_edge.stream.scalars import number_of

_NONE = {"", "null", "none", "na", "n/a", "#n/a", "-", "--", "---", "?", "unknown", "unavailable", "no data", "bad"}
"""What programs write where there is no value, in lower case: pandas, Excel, Home Assistant, PI."""

_UNIT = r"(?![xX][0-9a-fA-F])(?:[^\W\d_]|[%°‰Ω])[^\d;:,]{0,11}(?:[23](?:/[a-zA-Z]+)?)?"
_SEPARATORS = " \u00a0\u202f'’"  # of thousands, beside the mark that is not the decimal one

SENTINELS = (-200.0, -999.0, -9999.0, -99999.0, 9999.0, 99999.0)
"""Numbers that stand for "no value" in public recordings, such as -200 in the air quality of UCI."""

_MOST_UNITS = 8  # not critical: of a column whose units are counted


def _pattern(decimal: str, thousands: str) -> re.Pattern[str]:
    grouped = rf"[1-9]\d{{0,2}}(?:[{thousands}{_SEPARATORS}]\d{{3}})+"
    number = rf"(?:{grouped}|\d+)(?:{decimal}\d*)?|{decimal}\d+"
    return re.compile(rf"([-+−]?)({number})([eE][-+]?\d+)?\s*({_UNIT})?")


_BY_MARK = {".": _pattern(r"\.", ","), ",": _pattern(",", r"\.")}


@dataclass(slots=True)
class Evidence:
    """What the cells of one column are.

    Attributes
    ----------
    either, point, comma : int
        Cells that are numbers with any decimal mark, only with a point, only with a comma.
    dots, commas : int
        Of the first, such as ``1.234`` and ``1,234``.
    words : int
        Such as ``on``.
    empty : int
        Cells without a value.
    text : int
        Cells that are nothing of this.
    units : Counter
        How many cells have which unit.
    example : (int, str) or None
        Line and cell of the first text.
    lowest, highest : (float, int)
        The extreme numbers, and how often they come.
    """

    either: int = 0
    point: int = 0
    comma: int = 0
    dots: int = 0
    commas: int = 0
    words: int = 0
    empty: int = 0
    text: int = 0
    units: Counter[str] = field(default_factory=Counter)
    example: tuple[int, str] | None = None
    lowest: tuple[float, int] = (math.inf, 0)
    highest: tuple[float, int] = (-math.inf, 0)

    def add(self, cell: str, line: int) -> None:
        """Look at one more cell."""
        try:
            number = float(cell)
        except ValueError:
            self._add_other(cell.strip(), line)
            return
        if not math.isfinite(number):
            self.empty += 1
        elif "_" in cell:
            self._add_text(cell, line)
        else:
            # Three digits after a point may be thousands.
            if "." not in cell:
                self.either += 1
            elif cell[-4:-3] == "." and _BY_MARK[","].fullmatch(cell.strip()):
                self.either += 1
                self.dots += 1
            else:
                self.point += 1
            if number <= self.lowest[0]:
                self.lowest = number, self.lowest[1] + 1 if number == self.lowest[0] else 1
            if number >= self.highest[0]:
                self.highest = number, self.highest[1] + 1 if number == self.highest[0] else 1

    def _add_other(self, cell: str, line: int) -> None:
        if cell.lower() in _NONE:
            self.empty += 1
            return
        fits = {mark: pattern.fullmatch(cell) for mark, pattern in _BY_MARK.items()}
        found = fits["."] or fits[","]
        if found is None:
            if isinstance(number_of(cell), float) and not any(map(str.isdigit, cell)):
                self.words += 1
            else:
                self._add_text(cell, line)
            return
        if all(fits.values()):
            self.either += 1
            self.dots += "." in cell
            self.commas += "," in cell
        self.point += fits[","] is None
        self.comma += fits["."] is None
        if found[4] and (found[4] in self.units or len(self.units) <= _MOST_UNITS):
            self.units[found[4].strip()] += 1

    def _add_text(self, cell: str, line: int) -> None:
        self.text += 1
        self.example = self.example or (line, cell)


@dataclass(frozen=True, slots=True)
class Numbers:
    """How the cells of one column are read.

    Attributes
    ----------
    decimal : str
        ``.`` or ``,``.
    unit : str
        Empty for none.
    units : tuple of str
        Where cells have several, which are no one quantity: none is a number then.
    read, dropped, empty : int
        How many cells are numbers, are text, and hold no value.
    doubtful : bool
        Whether the decimal mark is a guess.
    missing : frozenset of float
        Numbers that stand for no value.
    live : bool
        Whether only the first cells are known, so that what comes may be numbers.
    """

    decimal: str
    unit: str
    units: tuple[str, ...]
    read: int
    dropped: int
    empty: int
    doubtful: bool = False
    missing: frozenset[float] = frozenset()
    live: bool = False

    @property
    def numeric(self) -> bool:
        """Whether the column is one of numbers: at least half of what is written in it."""
        return self.live or (self.read > 0 and self.read >= self.dropped and not self.units)

    def value(self, cell: str) -> float | str:
        """The number of a cell, or the reason of `gon_edge.events.MASK_REASONS` why it has none."""
        number: float | str | None = None
        if "_" not in cell and (self.decimal == "." or "." not in cell):
            try:
                number = float(cell if self.decimal == "." else cell.replace(",", ".", 1))
            except ValueError:
                number = None
        if number is None:
            number = self._other(cell.strip())
        if isinstance(number, float):
            if number in self.missing:
                return "null"
            return number_of(number)
        return number

    def _other(self, cell: str) -> float | str:
        if cell.lower() in _NONE:
            return "null"
        found = _BY_MARK[self.decimal].fullmatch(cell)
        if found is None:
            return "text" if any(map(str.isdigit, cell)) else number_of(cell)
        sign, digits, exponent, _ = found.groups()
        for separator in (*_SEPARATORS, "," if self.decimal == "." else "."):
            digits = digits.replace(separator, "")
        number = float(digits.replace(",", ".") + (exponent or ""))
        return -number if sign in ("-", "−") else number


def decide(
    columns: Iterable[Evidence],
    delimiter: str,
    decimal: str | None = None,
    missing: Collection[float] = (),
    *,
    live: bool = False,
) -> list[Numbers]:
    """How each column of a file is read.

    Parameters
    ----------
    columns : iterable of Evidence
    delimiter : str
        A file cut by commas has none in its numbers, unless they are quoted.
    decimal : str, optional
        The decimal mark where a person says it.
    missing : collection of float
        Numbers that stand for no value.
    live : bool
        Whether only the first cells are known.
    """
    columns = list(columns)
    point, comma = sum(one.point for one in columns), sum(one.comma for one in columns)
    usual = None if point == comma else "." if point > comma else ","
    read = [_numbers(one, decimal, usual, delimiter, frozenset(missing)) for one in columns]
    return [replace(one, live=live) for one in read]


def _numbers(
    column: Evidence, decimal: str | None, usual: str | None, delimiter: str, missing: frozenset[float]
) -> Numbers:
    """How a column is read: as its own cells say, else as the file's do, else as is usual."""
    own = None if column.point == column.comma else "." if column.point > column.comma else ","
    mark = decimal or own or usual or ("," if column.commas and delimiter != "," else ".")
    units = tuple(unit for unit, _ in column.units.most_common())
    other = column.comma if mark == "." else column.point
    return Numbers(
        mark,
        units[0] if len(units) == 1 else "",
        units if len(units) > 1 else (),
        column.either + column.words + (column.point + column.comma - other),
        column.text + other,
        column.empty,
        doubtful=not (decimal or own or usual) and column.dots + column.commas > 0,
        missing=missing,
    )


def sentinel(column: Evidence) -> float | None:
    """A number of a column that stands for "no value" in other recordings, lies at its edge, and comes again."""
    for number, times in (column.lowest, column.highest):
        if number in SENTINELS and 1 < times < column.either + column.point + column.comma:
            return number
    return None
