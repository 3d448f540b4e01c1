"""Rows of a table for a model: a value for each of its features, on the grid of the file.

Rows of a wide table stand where they are.  A reading of a long one holds until the next of its feature, as in the
daemon, and rows stand at the interval of the fastest feature.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from gon_edge.errors import InputError
from gon_edge.tables.table import Table

_GAP = 3.0
"""Intervals without a row that windows must not reach over.  Not critical: a row or two that are lost are filled."""

_MOST_ROWS = 20
"""Rows for each reading of a long table, at most: few readings over years are no table.  Not critical."""


class GridRow(NamedTuple):
    """One row for a model.

    Attributes
    ----------
    at : float
        Unix seconds, or the number of the row, from 0, in a table without times.
    time : str
        As the file has it; of a long table ISO 8601.
    stream : str
        The machine.
    values : ndarray of float32, shape (F,)
    texts : int
        Cells that held text where a number was expected.
    restart : bool
        Whether windows must not reach back over the step before the row.
    """

    at: float
    time: str
    stream: str
    values: NDArray[np.float32]
    texts: int
    restart: bool


def grid(table: Table, names: Sequence[str], *, texts: bool = True) -> Iterator[GridRow]:
    """Rows of all machines, each in order of time; those with the time of the row before are left out.

    Parameters
    ----------
    table : Table
    names : sequence of str
        Features, which `Table.require` has found.
    texts : bool
        Whether `GridRow.time` is wanted; a table that must be held in memory takes half of it without.
    """
    return _of_long(table, names) if table.is_long else _of_wide(table, names, texts)


def _of_wide(table: Table, names: Sequence[str], texts: bool) -> Iterator[GridRow]:
    columns = [table.values.index(name) for name in names]
    before: dict[str, float] = {}
    for number, record in enumerate(table.records(texts=texts)):
        if record.again:
            continue
        at = record.at if table.has_times else float(number)
        found = [record.values[i] for i in columns]
        values = np.array([math.nan if isinstance(value, str) else value for value in found], np.float32)
        odd = sum(value == "text" for value in found)
        restart = not table.has_times and number == 0
        if table.has_times:
            step = at - before.get(record.stream, math.inf)
            limit = _GAP * table.interval_s if table.interval_s else math.inf
            restart = not 0.0 < step <= limit
        before[record.stream] = at
        yield GridRow(at, record.time, record.stream, values, odd, restart)


def _of_long(table: Table, names: Sequence[str]) -> Iterator[GridRow]:
    step = table.interval_s or 1.0
    place = {name: i for i, name in enumerate(names)}
    held: dict[str, NDArray[np.float32]] = {}
    due: dict[str, float] = {}
    begun: set[str] = set()
    made = 0

    def row(stream: str) -> GridRow:
        at = due[stream]
        time = datetime.fromtimestamp(at, UTC).isoformat().replace("+00:00", "Z")
        restart = stream not in begun
        begun.add(stream)
        return GridRow(at, time, stream, held[stream].copy(), 0, restart)

    for record in table.records(texts=False):
        stream, (name,) = record.stream, record.names
        if name not in place:
            continue
        if stream not in held:
            held[stream] = np.full(len(names), np.nan, np.float32)
            due[stream] = math.ceil(record.at / step) * step
        while due[stream] < record.at:
            yield row(stream)
            due[stream] += step
            made += 1
            if made > _MOST_ROWS * max(table.rows, 1000):
                raise InputError(f"{table.name}: its readings lie too far apart for rows every {step:g} s")
        (value,) = record.values
        held[stream][place[name]] = math.nan if isinstance(value, str) else value
    for stream in due:
        yield row(stream)
