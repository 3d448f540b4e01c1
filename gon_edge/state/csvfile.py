"""A CSV file a row at a time: compressed or not, from a path or standard input, whatever its delimiter.

Where a file is wrong an :class:`~gon_edge.errors.InputError` names path and line.  What the columns mean is the
caller's: this module knows no time, no stream and no model.
"""

from __future__ import annotations

import contextlib
import csv
import gzip
import io
import math
import sys
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import IO, Self, cast

from gon_edge.errors import InputError

_DELIMITERS = ",;\t"
_LARGEST_CELL = 1 << 20  # not critical: a longer line is no table, and must not fill the memory


class CsvFile:
    """An open CSV file with a header line.

    Parameters
    ----------
    path : str
        ``-`` is standard input.  gzip is recognised by its first bytes, the delimiter (comma, semicolon or tab) by the
        header.

    Attributes
    ----------
    name : str
        For messages.
    columns : tuple of str
        From the header line; a column without a name is ``column N``, counted from 1.
    line : int
        Of the row read last, counted from 1.

    Raises
    ------
    InputError
        Missing, unreadable, damaged, not UTF-8, without a header, or with a name twice; while reading also for a row
        with more cells than columns.
    """

    def __init__(self, path: str) -> None:
        self.name = "standard input" if path == "-" else path
        self.line = 1
        self._size = 0
        try:
            self._raw = cast(IO[bytes], sys.stdin.buffer if path == "-" else Path(path).open("rb"))  # noqa: SIM115
            if path != "-":
                self._size = Path(path).stat().st_size
            zipped = cast(io.BufferedReader, self._raw).peek(2)[:2] == b"\x1f\x8b"
        except OSError as error:
            raise InputError(f"{self.name}: cannot be read: {error.strerror or error}") from None
        unzipped = cast(IO[bytes], gzip.GzipFile(fileobj=self._raw)) if zipped else self._raw
        self._text = io.TextIOWrapper(unzipped, encoding="utf-8-sig", newline="")
        csv.field_size_limit(_LARGEST_CELL)
        with self._errors():
            header = self._text.readline(_LARGEST_CELL)
        if not header.strip():
            raise InputError(f"{self.name}: is empty; its first line must name the columns")
        delimiter = max(_DELIMITERS, key=header.count)
        with self._errors():
            names = next(csv.reader([header], delimiter=delimiter))
        self.columns = tuple(name.strip() or f"column {i}" for i, name in enumerate(names, 1))
        twice = sorted({name for name in self.columns if self.columns.count(name) > 1})
        if twice:
            raise InputError(f"{self.name}: column {', '.join(map(repr, twice))} is there twice; rename one")
        self._seen = 0 if zipped else len(header)
        lines = self._text if zipped else self._counted(self._text)
        self._rows = csv.reader(lines, delimiter=delimiter)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._raw is not sys.stdin.buffer:
            self._raw.close()

    def __iter__(self) -> Iterator[list[str]]:
        """Rows as lists of cells, one a column; a row that ends early gets empty cells, blank lines are left out."""
        width = len(self.columns)
        while True:
            with self._errors():
                cells = next(self._rows, None)
            if cells is None:
                return
            self.line = self._rows.line_num + 1
            if not cells:
                continue
            if len(cells) > width:
                raise InputError(
                    f"{self.name}:{self.line}: {len(cells)} cells, and the header names {width} columns; "
                    "is the delimiter the same throughout?"
                )
            yield cells + [""] * (width - len(cells))

    def column(self, name: str, option: str) -> int:
        """Return the index of a column; `option` is what asked for it, for the error.

        Raises
        ------
        InputError
            When there is none, with the names there are.
        """
        if name not in self.columns:
            raise InputError(f"{self.name}: no column {name!r} for {option}; there are: {', '.join(self.columns)}")
        return self.columns.index(name)

    @property
    def fraction(self) -> float | None:
        """How much of the file has been read, 0 to 1; ``None`` where its size is not known."""
        with contextlib.suppress(OSError, ValueError):
            # Of a plain file by its lines: it is read in pieces, and a short one is two of them.
            return min(1.0, (self._seen or self._raw.tell()) / self._size) if self._size else None
        return None

    def _counted(self, lines: Iterable[str]) -> Iterator[str]:
        for line in lines:
            self._seen += len(line)
            yield line

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except UnicodeDecodeError:
            raise InputError(f"{self.name}: is not UTF-8 text (near line {self.line + 1})") from None
        except (EOFError, gzip.BadGzipFile, zlib.error):
            raise InputError(f"{self.name}: the compressed file is damaged or cut off after line {self.line}") from None
        except csv.Error as error:
            raise InputError(f"{self.name}: line {self.line + 1} is not CSV: {error}") from None
        except OSError as error:
            raise InputError(f"{self.name}: cannot be read: {error.strerror or error}") from None


def cell_number(cell: str) -> float | None:
    """Return the finite number a cell holds, or ``None``: empty, NaN, infinite, text.

    Examples
    --------
    >>> cell_number(" 1.5"), cell_number("nan"), cell_number("1_000")
    (1.5, None, None)
    """
    try:
        number = float(cell)
    except ValueError:
        return None
    return number if math.isfinite(number) and "_" not in cell else None
