"""A recorded CSV file to a broker, one JSON object a row, with its own timestamps and at its own pace or faster."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from dataclasses import dataclass

from gon_edge.errors import InputError
from gon_edge.links.publisher import Publisher
from gon_edge.state.csvfile import CsvFile, cell_number
from gon_edge.stream.times import unix_seconds

_JSON_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?")  # RFC 8259: no +1, .5, 1. or 007


@dataclass(frozen=True, slots=True)
class ReplayReport:
    """What a replay did.

    Attributes
    ----------
    sent, acknowledged, refused : int
        Rows handed to the broker, those it has, and those it refused.
    refusal : str
        Why it refused the first one.
    duration_s : float
    """

    sent: int
    acknowledged: int
    refused: int
    refusal: str
    duration_s: float

    @property
    def complete(self) -> bool:
        """Whether every row arrived."""
        return self.acknowledged == self.sent

    @property
    def rows_per_s(self) -> float:
        """Rows the broker acknowledged, a second."""
        return self.acknowledged / max(self.duration_s, 1e-9)


def replay(
    table: CsvFile,
    publisher: Publisher,
    topic: str,
    *,
    time_column: str | None,
    speed: float | None,
    limit: int | None = None,
    progress: Callable[[int, float | None], None] = lambda rows, fraction: None,
) -> ReplayReport:
    """Send the rows of a table.

    A row is ``{"column": value, ...}`` in the order of the columns: numbers as numbers with the digits they are written
    with, empty cells as null, other text as text.  The cell of the time column stays the text it is.

    Parameters
    ----------
    table : CsvFile
    publisher : Publisher
    topic : str
    time_column : str or None
        Column with the row's time, in any form of :func:`gon_edge.stream.times.unix_seconds`.
    speed : float or None
        How many times faster than recorded; ``None`` is as fast as the broker acknowledges.
    limit : int, optional
        Rows at most.
    progress : callable
        Called now and then with rows sent and the fraction of the file read.

    Raises
    ------
    InputError
        No such column, a row without a readable time while the pace depends on it, or a damaged file.
    UnreachableError
        The broker went away and did not come back.
    """
    time_index = None if time_column is None else table.column(time_column, "--time-column")
    if speed is not None and time_index is None:
        raise InputError(
            f"{table.name}: the pace needs a time: name its column with --time-column (there are: "
            f"{', '.join(table.columns)}), or replay --as-fast-as-possible"
        )
    keys = [json.dumps(name) for name in table.columns]
    first_sent = publisher.sent, publisher.acknowledged, publisher.refused
    began = time.monotonic()
    first_time: float | None = None
    for rows, cells in enumerate(table):
        if rows == limit:
            break
        if speed is not None and time_index is not None:
            moment = _moment(table, cells[time_index])
            first_time = moment if first_time is None else first_time
            publisher.wait_until(began + (moment - first_time) / speed)
        publisher.send(topic, _row_json(keys, cells, time_index))
        progress(rows + 1, table.fraction if rows % 100 == 0 else None)
    publisher.drain()
    sent, acknowledged, refused = (
        now - before
        for now, before in zip((publisher.sent, publisher.acknowledged, publisher.refused), first_sent, strict=True)
    )
    return ReplayReport(sent, acknowledged, refused, publisher.refusal, time.monotonic() - began)


def _row_json(keys: list[str], cells: list[str], time_index: int | None) -> bytes:
    pairs = [
        f"{key}:{json.dumps(cell) if i == time_index and cell else _value_json(cell)}"
        for i, (key, cell) in enumerate(zip(keys, cells, strict=True))
    ]
    return ("{" + ",".join(pairs) + "}").encode()


def _value_json(cell: str) -> str:
    text = cell.strip()
    if not text:
        return "null"
    number = cell_number(text)
    if number is None:
        return json.dumps(text)
    return text if _JSON_NUMBER.fullmatch(text) else repr(number)


def _moment(table: CsvFile, cell: str) -> float:
    try:
        return unix_seconds(cell)
    except ValueError as error:
        raise InputError(f"{table.name}:{table.line}: {cell!r} is no time: {error}") from None
