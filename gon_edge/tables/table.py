"""The one reader of tables that people bring: rows with their times and numbers, and what was made of the file.

A table is looked through before it is read: how its numbers and times are written, in which order its rows stand and
at which interval, and what cannot be read.  All of that is said (:meth:`Table.said`), and a table of which too little
can be read is refused.  Rows come in order of time; a table that is newest first, or long, is held in memory for it.
"""

from __future__ import annotations

import math
from array import array
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from gon_edge.errors import InputError
from gon_edge.stream.interval import nice_interval
from gon_edge.tables import times
from gon_edge.tables.cells import Evidence, Numbers, decide, sentinel
from gon_edge.tables.csvfile import CsvFile
from gon_edge.tables.layout import Layout, TableOptions, layout_of

_SHUFFLED = 0.1
"""Share of steps backwards from which rows are put in order.  Fewer are the beginnings of further recordings, or the
end of summer time.  Not critical."""

_SHUFFLED_ROWS = 10  # not critical: fewer are too few to tell

_CODES = ("", "null", "nan", "infinite", "text")


class Record(NamedTuple):
    """One row of a file.

    Attributes
    ----------
    line : int
    at : float
        Unix seconds; NaN in a table without times.
    time : str
        As the file has it.
    stream : str
        The machine; empty where there is one.
    names : tuple of str
    values : sequence of float or str
        Or the reason of `gon_edge.events.MASK_REASONS` why there is none.
    cells : sequence of str
        What the values were read from.
    again : bool
        Whether the row before had the same time.
    """

    line: int
    at: float
    time: str
    stream: str
    names: tuple[str, ...]
    values: Sequence[float | str]
    cells: Sequence[str]
    again: bool = False


class Table:
    """A file, looked through.

    Parameters
    ----------
    path : str
        ``-`` is standard input.
    options : TableOptions
    keep : collection of str
        Columns that are features, whatever they are called: those a model knows.
    follow : bool
        Read standard input as it comes, judged by its first rows.

    Attributes
    ----------
    name : str
    columns : tuple of str
        Of the file.
    features : tuple of str
        What there are numbers of.
    streams : tuple of str
        The machines; one without a name where the file has one.
    time_name : str
        The column of the times, or both; empty for none.
    rows : int
        Rows of the file that count.
    interval_s : float or None
        The median step, rounded as for a stream; ``None`` for less than two times.
    read, dropped : int
        Cells that are numbers, and cells with text among them.

    Raises
    ------
    InputError
        The file cannot be read, a time is none, or too few cells are numbers.
    """

    def __init__(
        self, path: str, options: TableOptions | None = None, *, keep: Collection[str] = (), follow: bool = False
    ) -> None:
        self._options = options = options or TableOptions()
        self._file = CsvFile(path, encoding=options.encoding, header=options.header, follow=follow)
        self.name = self._file.name
        self.layout: Layout = layout_of(self._file, options, keep)
        if self._file.once and self.layout.is_long:  # its readings must be put in order
            self._file.keep()
            self.layout = layout_of(self._file, options, keep)
        self.columns = self._file.columns
        self.time_name = " ".join(self.columns[i] for i in self.layout.times)
        self._look()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._file.__exit__(None, None, None)

    @property
    def has_times(self) -> bool:
        """Whether rows have times."""
        return bool(self.layout.times)

    @property
    def is_long(self) -> bool:
        """Whether a row of the file is one reading."""
        return self.layout.is_long

    @property
    def values(self) -> tuple[str, ...]:
        """Columns of a wide table that are neither time nor machine, in the order of `Record.values`."""
        return tuple(self.columns[i] for i in self.layout.values)

    @property
    def filled(self) -> tuple[str, ...]:
        """Features and columns of text: all in which something is written."""
        return tuple(name for name, numbers in self._numbers.items() if numbers.read or numbers.dropped)

    @property
    def follows(self) -> bool:
        """Whether rows are read as they come, and only the first ones have been looked at."""
        return self._file.once

    @property
    def fraction(self) -> float | None:
        """How much of the file has been read, 0 to 1; ``None`` where its size is not known."""
        return self._file.fraction

    # -- looking through -----------------------------------------------------------------------------------------------

    def _look(self) -> None:
        """Find out how the cells of the table are written, and what its times are."""
        layout, file = self.layout, self._file
        evidence: dict[str, Evidence] = {} if layout.is_long else {file.columns[i]: Evidence() for i in layout.values}
        looked, places = times.Times(), array("i")
        series: dict[tuple[str, str], int] = {}
        for cells in file.again():
            stream = self._stream_of(cells)
            if self._options.only not in (None, stream):
                series.setdefault((stream, ""), len(series))
                continue
            name = self._feature_of(cells)
            for i in layout.values:
                found = evidence.setdefault(name or file.columns[i], Evidence())
                found.add(cells[i], file.line)
            looked.add(self._time_of(cells), file.line)
            places.append(series.setdefault((stream, name), len(series)))
        self.streams = tuple(dict.fromkeys(stream for stream, _ in series))
        if self._options.only is not None:
            if self._options.only not in self.streams or self.layout.stream is None:
                known = ", ".join(self.streams) if self.layout.stream is not None else "it has no column of machines"
                raise InputError(f"{self.name}: no machine {self._options.only!r}; there are: {known}")
            self.streams = (self._options.only,)
        self._evidence = evidence
        read = decide(evidence.values(), file.delimiter, self._options.decimal, self._options.missing, live=file.once)
        self._numbers: dict[str, Numbers] = dict(zip(evidence, read, strict=True))
        self.features = tuple(name for name, numbers in self._numbers.items() if numbers.numeric)
        self.read = sum(self._numbers[name].read for name in self.features)
        self.dropped = sum(self._numbers[name].dropped for name in self.features)
        self._look_at_times(looked, np.array(places, np.intp), list(series))
        if not self.features and len(places):
            raise InputError(f"{self.name}: {self._no_numbers()}")

    def _look_at_times(
        self,
        looked: times.Times,
        places: NDArray[np.intp],
        series: Sequence[tuple[str, str]],
    ) -> None:
        """Find interval, order, duplicates and the span that is asked for."""
        self.rows = len(places)
        self.interval_s: float | None = None
        self._kind, self._doubt = "iso", ""
        self._footer = math.inf
        self._empty = self._again = self._outside = self._back = 0
        self._in_order = not self.layout.is_long
        self._newest_first = False
        self._span = -math.inf, math.inf
        if not self.has_times:
            if self.is_long:
                raise InputError(f"{self.name}: a reading a row needs times; name their column with --time-column")
            if self._options.since or self._options.until:
                raise InputError(f"{self.name}: a span needs times; name their column with --time-column")
            return
        try:
            self._kind, at, self._doubt = looked.decide(self._options.date_order)
        except ValueError as error:
            if len(error.args) == 2:
                line, cell = error.args
                raise InputError(
                    f"{self.name}:{line}: {cell!r} is no time; name the column of the times with --time-column"
                ) from None
            raise InputError(f"{self.name}: column {self.time_name!r}: {error}") from None
        known = np.isfinite(at)
        self._empty, self._footer = looked.empty, math.inf if looked.footer is None else looked.footer
        if known.any():
            newest = float(at[known].max())
            self._span = self._bound("since", newest, -math.inf), self._bound("until", newest, math.inf)
        inside = known & (at >= self._span[0]) & (at <= self._span[1])
        self._outside = int((known & ~inside).sum())
        at, places = at[inside], places[inside]
        self.rows = len(at)
        if not self.is_long:  # machines have a clock each, the features of a row have one
            known_streams = {stream: i for i, stream in enumerate(dict.fromkeys(key[0] for key in series))}
            machine = np.array([known_streams[key[0]] for key in series], np.intp)
            places = machine[places] if len(places) else places
        self._order_of(at, places)
        self._interval_of(at, places)

    def _bound(self, which: str, newest: float, unlimited: float) -> float:
        asked = getattr(self._options, which)
        if asked is None:
            return unlimited
        return float(asked["at"]) if "at" in asked else newest - float(asked["ago_s"])

    def _order_of(self, at: NDArray[np.float64], places: NDArray[np.intp]) -> None:
        order = np.argsort(places, kind="stable")
        steps = np.diff(at[order])[np.diff(places[order]) == 0]
        forth, back = int((steps > 0).sum()), int((steps < 0).sum())
        if not self.is_long and len(self.streams) > 1 and (np.diff(at) < 0).any():
            self._in_order = False  # one machine after the other
        self._newest_first = bool(back and not forth)
        shuffled = back > _SHUFFLED * len(steps) and len(at) >= _SHUFFLED_ROWS
        self._in_order &= not (self._newest_first or shuffled)
        self._back = back if self._in_order else 0
        if self._in_order:
            self._again = int((steps == 0).sum())
        else:
            order = np.lexsort((at, places))
            self._again = int(((np.diff(at[order]) == 0) & (np.diff(places[order]) == 0)).sum())
        if not self.is_long and self._again > len(at) / 2:
            raise InputError(
                f"{self.name}: {self._again} of {len(at)} rows have the time of another one; name the column that says "
                "which machine a row is of with --stream-column, or which reading with --feature-column"
            )

    def _interval_of(self, at: NDArray[np.float64], places: NDArray[np.intp]) -> None:
        """The median step of the series that has most rows, or nearly as many, and is the fastest."""
        counts = np.bincount(places) if len(places) else np.zeros(0, np.intp)
        found = []
        for place in np.flatnonzero(2 * counts >= counts.max(initial=0)):
            steps = np.diff(np.unique(at[places == place]))
            if len(steps):
                found.append(float(np.median(steps)))
        if found:
            self.interval_s = nice_interval(min(found))

    def _stream_of(self, cells: Sequence[str]) -> str:
        return "" if self.layout.stream is None else " ".join(cells[self.layout.stream].split())

    def _feature_of(self, cells: Sequence[str]) -> str:
        return ".".join(filter(None, (" ".join(cells[i].split()) for i in self.layout.features)))

    def _time_of(self, cells: Sequence[str]) -> str:
        return " ".join(cells[i].strip() for i in self.layout.times).strip()

    # -- what is said --------------------------------------------------------------------------------------------------

    def said(self, wanted: Collection[str] | None = None) -> Iterator[str]:
        """What was made of the file, a line each: how it is read, and what of it is not.

        Parameters
        ----------
        wanted : collection of str, optional
            Only these features matter.
        """
        file, features = self._file, [name for name in self.features if wanted is None or name in wanted]
        written = {self._numbers[name].decimal for name in features}
        how = [
            f"{self.rows} rows",
            _every(self.interval_s) if self.interval_s else "",
            f"time from {self.time_name} ({self._time_words()})" if self.has_times else "no column of times",
            f"{len(self.streams)} machines by {self._column(self.layout.stream)}" if len(self.streams) > 1 else "",
            f"readings by {', '.join(self.columns[i] for i in self.layout.features)}" if self.is_long else "",
            "" if file.encoding == "utf-8-sig" else file.encoding.upper(),
            "" if file.delimiter == "," else f"cells cut by {_mark_word(file.delimiter)}",
            "decimal comma" if "," in written else "",
            "" if file.header else "no header",
            "newest first" if self._newest_first else "put in order of time" if self._sorted_rows else "",
        ]
        if file.once:  # what was looked at are its first rows
            del how[:2]
        yield f"{self.name}: {', '.join(filter(None, how))}"
        if file.once:
            yield from filter(None, [self._doubt])
            return
        read = sum(self._numbers[name].read for name in features)
        dropped = sum(self._numbers[name].dropped for name in features)
        whole = " of the whole file" if self._outside else ""
        yield f"{read} cells read{whole}, {dropped} dropped{self._first_text(features) if dropped else ''}"
        yield from self._said_of_rows()
        yield from self._said_of_columns(features, wanted)

    @property
    def _sorted_rows(self) -> bool:
        return not self._in_order and not self._newest_first and not self.is_long

    def _column(self, index: int | None) -> str:
        return "" if index is None else self.columns[index]

    def _time_words(self) -> str:
        words = {"unix": "Unix", "iso": "ISO 8601", "compact": "digits", "named": "month by name"}
        return words.get(self._kind) or times.ORDERS[self._kind]

    def _first_text(self, features: Sequence[str]) -> str:
        texts = [one.example for name in features if (one := self._evidence[name]).example is not None]
        return f" (the first is {min(texts)[1]!r:.40} in line {min(texts)[0]})" if texts else ""

    def _said_of_rows(self) -> Iterator[str]:
        if self._file.titles:
            yield f"{self._file.titles} lines before the table left out"
        if self._doubt:
            yield self._doubt
        if self._empty:
            yield f"{self._empty} rows without a time left out"
        if self.layout.ignored:
            yield f"left out as further times: {', '.join(self.columns[i] for i in self.layout.ignored)}"
        if self.layout.number is not None:
            yield f"left out as the number of the row: {self.columns[self.layout.number]}"
        if self._outside:
            yield f"{self._outside} rows outside the span left out"
        if self._again:
            yield f"{self._again} rows have the time of another one; the first of them counts"
        if self._back:
            yield f"time goes back {self._back} times; a new recording begins there"

    def _said_of_columns(self, features: Sequence[str], wanted: Collection[str] | None) -> Iterator[str]:
        units = [f"{name} in {self._numbers[name].unit}" for name in features if self._numbers[name].unit]
        if units:
            yield f"units: {', '.join(units)}"
        doubtful = [name for name in features if self._numbers[name].doubtful]
        if doubtful:
            mark = "comma" if self._numbers[doubtful[0]].decimal == "," else "point"
            yield f"{', '.join(doubtful)}: read with a decimal {mark}; if three digits are thousands, write --decimal"
        for name, numbers in self._numbers.items():
            if numbers.units and (wanted is None or name in wanted):
                yield f"{name} left out: it has several units ({', '.join(numbers.units)}); export it in one"
            elif numbers.read and not numbers.numeric and (wanted is None or name in wanted):
                yield f"{name} left out: only {numbers.read} of {numbers.read + numbers.dropped} cells are numbers"
        texts = [name for name, numbers in self._numbers.items() if not numbers.read and numbers.dropped]
        if texts and wanted is None:
            yield f"no numbers in {', '.join(texts)}"
        found = Counter(sentinel(self._evidence[name]) for name in features)
        found.pop(None, None)
        for number, columns in found.items():
            if number not in self._options.missing:
                yield f"{number:g} comes often in {columns} columns; if it means no value, write --missing {number:g}"

    def _no_numbers(self) -> str:
        """Why a table is refused."""
        if not self._numbers:
            return "has no column of values"
        several = [name for name, numbers in self._numbers.items() if numbers.units]
        if several:
            return f"{several[0]} has several units ({', '.join(self._numbers[several[0]].units)}); export it in one"
        texts = [one.example for one in self._evidence.values() if one.example is not None]
        hint = f", such as {min(texts)[1]!r:.40} in line {min(texts)[0]}" if texts else ""
        if not hint:
            return "has no numbers"
        return f"its cells are no numbers{hint}; is the delimiter, the decimal mark or the encoding another one?"

    def require(self, names: Collection[str], what: str) -> None:
        """Check that there are numbers of each of these features; `what` needs them, for the error.

        Raises
        ------
        InputError
            A column is missing, or is none of numbers.
        """
        missing = [name for name in names if name not in self._numbers]
        if missing:
            unknown = [name for name in self.features if name not in names]
            hint = f"; columns {what} does not know: {', '.join(unknown)}" if unknown else ""
            raise InputError(f"{self.name}: {what} needs columns that are not there: {', '.join(missing)}{hint}")
        for name in names:
            numbers = self._numbers[name]
            if not numbers.numeric and (numbers.read or numbers.dropped):
                why = f"units {', '.join(numbers.units)}" if numbers.units else self._first_text([name]).strip(" ()")
                raise InputError(
                    f"{self.name}: {what} needs {name}, of which {numbers.read} of {numbers.read + numbers.dropped} "
                    f"cells are numbers: {why}"
                )

    # -- reading -------------------------------------------------------------------------------------------------------

    def records(self, *, cells: bool = False, texts: bool = True) -> Iterator[Record]:
        """Rows of the file in order of time; of a long table a row is one reading.

        Parameters
        ----------
        cells : bool
            Whether `Record.cells` are wanted of rows that are held in memory, too.
        texts : bool
            Whether `Record.time` is; without, values of such rows are float32.
        """
        rows = self._wide() if not self.is_long else self._long()
        before: dict[str, float] = {}
        for record in rows if self._in_order else self._held(rows, cells, texts):
            again = self.has_times and before.get(record.stream) == record.at
            before[record.stream] = record.at
            yield record._replace(again=True) if again and not self.is_long else record

    def _wide(self) -> Iterator[Record]:
        columns = [(i, self._numbers[self.columns[i]]) for i in self.layout.values]
        names = self.values
        for cells in self._file:
            stream, at = self._stream_of(cells), self._at(cells)
            if at is not None and self._options.only in (None, stream):
                values = [
                    numbers.value(cells[i]) if numbers.numeric else "text" if cells[i].strip() else "null"
                    for i, numbers in columns
                ]
                texts = [cells[i] for i, _ in columns]
                yield Record(self._file.line, at, self._time_of(cells), stream, names, values, texts)

    def _long(self) -> Iterator[Record]:
        (value,) = self.layout.values
        numeric = set(self.features)
        for cells in self._file:
            stream, name, at = self._stream_of(cells), self._feature_of(cells), self._at(cells)
            if at is not None and name in numeric and self._options.only in (None, stream):
                read, time = self._numbers[name].value(cells[value]), self._time_of(cells)
                yield Record(self._file.line, at, time, stream, (name,), (read,), (cells[value],))

    def _at(self, cells: Sequence[str]) -> float | None:
        """The time of a row, NaN in a table without; ``None`` where the row does not count."""
        if not self.has_times:
            return math.nan
        if self._file.line >= self._footer:
            return None
        text = self._time_of(cells)
        try:
            at = times.read(text, self._kind)
        except ValueError:
            raise InputError(f"{self.name}:{self._file.line}: {text!r} is no time") from None
        return at if at is not None and self._span[0] <= at <= self._span[1] else None

    def _held(self, rows: Iterator[Record], with_cells: bool, with_texts: bool) -> Iterator[Record]:
        """Rows in order of time, from memory: some ten bytes a value, or half of it without texts."""
        names: dict[tuple[str, ...], int] = {}
        at, which, line = array("d"), array("i"), array("q")
        streams, texts, cells = [], [], []
        numbers, codes = array("d" if with_texts else "f"), bytearray()
        begins = array("q")
        for record in rows:
            at.append(record.at)
            which.append(names.setdefault(record.names, len(names)))
            line.append(record.line)
            streams.append(record.stream)
            if with_texts:
                texts.append(record.time)
            begins.append(len(numbers))
            for value in record.values:
                numbers.append(math.nan if isinstance(value, str) else value)
                codes.append(_CODES.index(value) if isinstance(value, str) else 0)
            if with_cells:
                cells.append(record.cells)
        known = list(names)
        order = np.argsort(np.frombuffer(at), kind="stable") if len(at) else ()
        if self._newest_first:  # rows of one moment keep their order, too
            order = np.argsort(np.frombuffer(at)[::-1], kind="stable")
            order = (len(at) - 1) - order
        for i in order:
            features, begin = known[which[i]], begins[i]
            end = begin + len(features)
            values = [_CODES[codes[k]] if codes[k] else numbers[k] for k in range(begin, end)]
            time = texts[i] if with_texts else ""
            yield Record(line[i], at[i], time, streams[i], features, values, cells[i] if with_cells else ())


def _every(seconds: float) -> str:
    return f"every {seconds:g} s" if seconds < 1e5 else f"every {seconds / 86400.0:.3g} days"


def _mark_word(delimiter: str) -> str:
    return {"\t": "tabs", " ": "spaces", ";": "semicolons", "|": "bars"}.get(delimiter, repr(delimiter))
