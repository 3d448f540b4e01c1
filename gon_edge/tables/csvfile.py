"""A CSV file a row at a time: compressed or not, from a path or standard input, whatever its encoding and delimiter.

Where a file is wrong an :class:`~gon_edge.errors.InputError` names path and line.  What the columns mean is
``layout``'s: this module knows no time, no stream and no number beyond telling a header from a row of values.
"""

from __future__ import annotations

import codecs
import contextlib
import csv
import gzip
import io
import os
import re
import shutil
import sys
import tempfile
import zlib
from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import IO, Any, Self, cast

from gon_edge.errors import InputError
from gon_edge.process.files import open_regular

_DELIMITERS = "\t;|,"  # where two would do, the first: a comma is a decimal mark as well, the others are nothing else
_LARGEST_CELL = 1 << 20  # not critical: a longer line is no table, and must not fill the memory
_HEAD_BYTES = 1 << 16  # not critical: what delimiter and header are told from; some hundred rows
_HEAD_ROWS = 200  # not critical: of them
_IN_MEMORY_BYTES = 1 << 24  # not critical: of standard input; what is longer goes to a temporary file

_OTHER_FILES = {
    b"PK\x03\x04": "is a zip file or an Excel workbook; unpack it, or save its sheet as CSV",
    b"\xd0\xcf\x11\xe0": "is an old Excel workbook; save its sheet as CSV",
    b"PAR1": "is a Parquet file; write it as CSV",
    b"\x28\xb5\x2f\xfd": "is compressed by zstd; unpack it, or compress it by gzip",
    b"BZh": "is compressed by bzip2; unpack it, or compress it by gzip",
    b"\xfd7zXZ": "is compressed by xz; unpack it, or compress it by gzip",
    b"{": "is JSON and no CSV file",
    b"<": "is XML or HTML and no CSV file",
}
_BOMS = ((codecs.BOM_UTF8, "utf-8-sig"), (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"))
_TOLD = re.compile(r'"?sep=(.)"?\s*')  # how Excel says which delimiter it used
_VALUE = re.compile(r"[-+]?[\d.,]*\d[\d.,]*(?:[eE][-+]?\d+)?|\d[\d:./T Z+-]{5,}")  # a number or a time, and no name


class _Ahead(io.RawIOBase):
    """A pipe of which the first bytes have been read already."""

    def __init__(self, head: bytes, rest: io.BufferedReader) -> None:
        self._head, self._rest = head, rest

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        room = len(buffer)
        found, self._head = (self._head[:room], self._head[room:]) if self._head else (self._rest.read1(room), b"")
        buffer[: len(found)] = found
        return len(found)


def _kept(pipe: IO[bytes]) -> io.BufferedReader:
    """What comes of a pipe until its end, in memory or in a temporary file."""
    kept = tempfile.SpooledTemporaryFile(_IN_MEMORY_BYTES)  # noqa: SIM115  it lives as long as the reader
    shutil.copyfileobj(pipe, kept)
    kept.seek(0)
    return io.BufferedReader(cast(io.RawIOBase, kept))


class CsvFile:
    """An open CSV file.

    Parameters
    ----------
    path : str
        ``-`` is standard input.  gzip is recognised by its first bytes; UTF-8 and UTF-16 by their marks or zeros.
    encoding : str, optional
        What the text is written in, where it is neither.
    header : bool
        Whether a line names the columns.  Where its cells are all numbers and times, there is none in any case.
    follow : bool
        Read standard input as it comes, where it is a pipe: it can be read once, and is judged by its first lines.
        Else it is kept until its end, so that it can be read again.

    Attributes
    ----------
    name : str
        For messages.
    columns : tuple of str
        From the header line; a column without a name is ``column N``, counted from 1.
    encoding : str
    delimiter : str
    header : bool
    annotated : bool
        Whether it is InfluxDB's annotated CSV: tables one below the other, each with its own header.
    once : bool
        Whether it can be read only once.
    skipped : int
        Lines before the table.
    titles : int
        Of them, lines that say neither the delimiter nor anything else that is used.
    head : list of (int, list of str)
        The first rows with their lines; they are read again by `__iter__`.
    line : int
        Of the row read last, counted from 1.

    Raises
    ------
    InputError
        Missing, unreadable, damaged, no text in this encoding, empty, or with a name twice; while reading also for a
        row with more cells than columns.
    """

    def __init__(self, path: str, *, encoding: str | None = None, header: bool = True, follow: bool = False) -> None:
        self.name = "standard input" if path == "-" else path
        self.line = 0
        self._size = self._seen = 0
        csv.field_size_limit(_LARGEST_CELL)
        try:
            self._raw = self._opened(path, follow)
            first = self._raw.peek(4)[:4]
        except OSError as error:
            raise InputError(f"{self.name}: cannot be read: {error.strerror or error}") from None
        self._zipped = first[:2] == b"\x1f\x8b"
        self._bytes = cast(IO[bytes], gzip.GzipFile(fileobj=self._raw)) if self._zipped else self._raw
        self.once = follow and not self._raw.seekable()
        with self._errors():
            head = self._first_bytes() if self.once else self._bytes.read(_HEAD_BYTES)
        self.encoding = encoding or _encoding_of(head)
        self._refuse_other_files(head)
        self._text = self._begun()
        lines = self._first_lines(head)
        self.annotated = lines[0].startswith("#") and lines[0].split(",", 1)[0] in ("#group", "#datatype", "#default")
        self.delimiter, body = _delimiter_of(lines)
        self.skipped = len(lines) - len(body)
        self.titles = self.skipped - (self.skipped > 0 and _TOLD.fullmatch(lines[0]) is not None)
        with self._errors():
            rows = list(csv.reader(body[:_HEAD_ROWS], delimiter=self.delimiter))
        named = next((row for row in rows if row and not self._is_note(row)), None)
        if named is None:
            raise InputError(f"{self.name}: is empty; its first line must name the columns")
        self.header = header and not all(_VALUE.fullmatch(cell.strip()) for cell in named if cell.strip())
        if self.header:
            self.columns = _names(named)
            twice = sorted({name for name in self.columns if self.columns.count(name) > 1})
            if twice:
                raise InputError(f"{self.name}: column {', '.join(map(repr, twice))} is there twice; rename one")
        else:
            self.columns = tuple(f"column {i}" for i in range(1, max(map(len, rows)) + 1))
            ends_early = len(named) < len(self.columns)  # MRTG begins with its counters of now
            self.skipped, self.titles = self.skipped + ends_early, self.titles + ends_early
        self.head = self._head_rows()

    def _opened(self, path: str, follow: bool) -> io.BufferedReader:
        if path != "-":
            file = open_regular(path)
            self._size = os.fstat(file.fileno()).st_size
            return file
        stdin = sys.stdin.buffer
        if follow or stdin.seekable():
            return cast(io.BufferedReader, stdin)
        return _kept(stdin)

    def _first_bytes(self) -> bytes:
        """The first lines of a pipe, as soon as there are two; they are read again with the rest."""
        pipe, head = cast(io.BufferedReader, self._bytes), b""
        while head.count(b"\n") < 2 + head.startswith((b"sep=", b'"sep=')) and (more := pipe.read1(_HEAD_BYTES)):
            head += more
        self._bytes = io.BufferedReader(_Ahead(head, pipe))
        self._head = head
        return head

    def keep(self) -> None:
        """Read a pipe to its end and keep what came, so that it can be read again."""
        self._raw = _kept(cast(IO[bytes], self._text.detach()))
        self._bytes, self._zipped, self.once = self._raw, False, False
        self._text = self._begun()
        self.head = self._head_rows()

    def _refuse_other_files(self, head: bytes) -> None:
        for magic, what in _OTHER_FILES.items():
            if head.startswith(magic):
                raise InputError(f"{self.name}: {what}")
        if b"\0" in head and not self.encoding.lower().replace("_", "-").startswith(("utf-16", "utf-32")):
            raise InputError(f"{self.name}: is no text file; write the table as CSV")

    def _begun(self) -> io.TextIOWrapper:
        """The text, from its first character on."""
        if not self.once:
            self._bytes.seek(0)
        return io.TextIOWrapper(self._bytes, encoding=self.encoding, newline="")

    def _first_lines(self, head: bytes) -> list[str]:
        """The lines that delimiter and header are told from, without those before the table."""
        decoder = codecs.getincrementaldecoder(self.encoding)("replace")
        text = decoder.decode(head)
        lines = io.StringIO(text, newline="").readlines()
        if len(lines) > 1 and not text.endswith(("\n", "\r")) and len(head) >= _HEAD_BYTES:
            lines.pop()  # cut off
        if not any(line.strip() for line in lines):
            raise InputError(f"{self.name}: is empty; its first line must name the columns")
        return lines

    def _is_note(self, row: list[str]) -> bool:
        """Whether a row says something about the table, and is none of its rows."""
        # A line of names may begin with "#"; a comment is mostly one cell.
        return not any(map(str.strip, row)) or (row[0].startswith("#") and (self.annotated or len(row) == 1))

    def _head_rows(self) -> list[tuple[int, list[str]]]:
        rows = []
        if self.once:  # what is there is looked at, and not taken
            text = codecs.getincrementaldecoder(self.encoding)("replace").decode(self._head)
            whole = text[: text.rfind("\n") + 1]
            found = self._cells(io.StringIO(whole, newline=""))
        else:
            found = iter(self)
        with contextlib.suppress(StopIteration):
            for _ in range(_HEAD_ROWS):
                cells = next(found)
                rows.append((self.line, cells))
        return rows

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._raw is sys.stdin.buffer:
            self._text.detach()
        else:
            self._raw.close()

    def __iter__(self) -> Iterator[list[str]]:
        """Rows from the first on, as lists of cells, one a column; a row that ends early gets empty cells.

        Blank lines are left out.
        """
        if not self.once:
            self._text.detach()  # or it would close the file when it goes
            self._text = self._begun()
        self._seen = 0
        return self._cells(self._text if self._zipped else self._counted(self._text))

    def again(self) -> Iterator[list[str]]:
        """Rows as `__iter__` gives them, to look at: of a file that can be read only once the first ones."""
        return (cells for _, cells in self.head) if self.once else iter(self)

    def _cells(self, lines: Iterable[str]) -> Iterator[list[str]]:
        rest = iter(lines)
        with self._errors():
            for _ in range(self.skipped):
                next(rest, None)
        self.line = self.skipped
        reader = csv.reader(rest, delimiter=self.delimiter)
        place: list[int] | None = None
        ahead = self.header
        while True:
            with self._errors():
                cells = next(reader, None)
            if cells is None:
                return
            self.line = self.skipped + reader.line_num
            if not cells or ((self.annotated or ahead) and self._is_note(cells)):
                ahead |= self.annotated  # what follows names its columns again
                continue
            if ahead:
                ahead, place = False, self._places(cells)
                continue
            yield self._fitted(cells, place)

    def _places(self, header: list[str]) -> list[int] | None:
        """Where the columns of a later table of the same file are; ``None`` where they are as in the first."""
        names = _names(header)
        if names == self.columns[: len(names)]:
            return None
        if names[1:2] == ("error",):
            raise InputError(f"{self.name}:{self.line}: the database has written an error instead of rows")
        self.columns += tuple(name for name in names if name not in self.columns)
        return [self.columns.index(name) for name in names]

    def _fitted(self, cells: list[str], place: list[int] | None) -> list[str]:
        width = len(self.columns) if place is None else len(place)
        if len(cells) > width and any(map(str.strip, cells[width:])):
            hint = "the header names" if self.header else "the first rows have"
            raise InputError(
                f"{self.name}:{self.line}: {len(cells)} cells, and {hint} {width} columns; "
                "is the delimiter the same throughout?"
            )
        if place is not None:
            moved = [""] * len(self.columns)
            for to, cell in zip(place, cells, strict=False):
                moved[to] = cell
            return moved
        return cells[:width] + [""] * (width - len(cells))

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
        wide = 2 if self.encoding.lower().startswith("utf-16") else 1
        for line in lines:
            self._seen += wide * len(line)
            yield line

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except UnicodeError:
            raise InputError(self._not_this_encoding()) from None
        except (EOFError, gzip.BadGzipFile, zlib.error):
            raise InputError(f"{self.name}: the compressed file is damaged or cut off after line {self.line}") from None
        except csv.Error as error:
            raise InputError(f"{self.name}: line {self.line + 1} is not CSV: {error}") from None
        except OSError as error:
            raise InputError(f"{self.name}: cannot be read: {error.strerror or error}") from None

    def _not_this_encoding(self) -> str:
        """What is wrong with the text: its line, and the encodings it may be."""
        name = {"utf-8-sig": "UTF-8"}.get(self.encoding, self.encoding)
        if self.once or name.lower().startswith(("utf-16", "utf-32")):
            return f"{self.name}: is not {name} text after line {self.line}; write what it is with --encoding"
        self._text.detach()
        self._text = self._begun()
        for number, line in enumerate(self._bytes, 1):
            try:
                line.decode(name)
            except UnicodeDecodeError as error:
                shown = line[max(0, error.start - 12) : error.start + 12]
                likely = " or ".join(_likely(line))
                return (
                    f"{self.name}:{number}: is not {name} text ({shown!r}); name its encoding, probably "
                    f"--encoding {likely}"
                )
        return f"{self.name}: is not {name} text; write what it is with --encoding"


def _encoding_of(head: bytes) -> str:
    """What text begins with these bytes: by its mark, by the zeros of UTF-16 without one, else UTF-8."""
    for mark, name in _BOMS:
        if head.startswith(mark):
            return name
    even, odd = head[0:400:2], head[1:400:2]
    if len(odd) >= 2 and odd.count(0) > 0.7 * len(odd) and not even.count(0):
        return "utf-16-le"
    if len(even) >= 2 and even.count(0) > 0.7 * len(even) and not odd.count(0):
        return "utf-16-be"
    return "utf-8-sig"


def _likely(line: bytes) -> list[str]:
    """Encodings a line may be in that is no UTF-8: bytes beyond ASCII come in pairs in Chinese text."""
    runs = re.findall(rb"[\x80-\xff]+", line)
    with contextlib.suppress(UnicodeDecodeError):
        line.decode("gbk")
        if all(len(run) % 2 == 0 for run in runs):
            return ["gbk", "latin-1"]
    return ["latin-1"]


def _names(header: list[str]) -> tuple[str, ...]:
    return tuple(" ".join(name.split()) or f"column {i}" for i, name in enumerate(header, 1))


def _delimiter_of(lines: list[str]) -> tuple[str, list[str]]:
    """The delimiter, and the lines from the table's first one on.

    Excel says the delimiter in a line of its own.  Else it is one that cuts all lines into equally many cells, else the
    most frequent one of the header.  Lines of one cell before the table are a title.
    """
    if (told := _TOLD.fullmatch(lines[0])) is not None:
        return told[1], lines[1:]
    if lines[0].startswith("#"):
        return (",", lines) if "," in lines[0] else _delimiter_of_table(lines)
    return _delimiter_of_table(lines)


def _delimiter_of_table(lines: list[str]) -> tuple[str, list[str]]:
    sample = [line for line in lines[:60] if line.strip() and not line.startswith("#")][:40]
    if not sample:
        return ",", lines
    widths = {mark: [len(row) for row in csv.reader(sample, delimiter=mark)] for mark in _DELIMITERS}
    even = [mark for mark in _DELIMITERS if widths[mark][0] > 1 and len(set(widths[mark])) == 1]
    if even:
        return even[0], lines
    # Below a title most rows are equally wide.
    for mark, counts in widths.items():
        most = max(set(counts), key=counts.count)
        if counts[0] == 1 and most > 1 and 2 * counts.count(most) > len(counts):
            title = next(i for i, line in enumerate(lines) if len(next(csv.reader([line], delimiter=mark), [])) == most)
            return mark, lines[title:]
    header = sample[0]
    mark = max(reversed(_DELIMITERS), key=lambda one: (widths[one][0], header.count(one)))
    if widths[mark][0] == 1 and " " in header.strip() and len({len(line.split()) for line in sample[1:]}) == 1:
        return " ", lines
    return mark, lines
