"""A recorded CSV file to a broker, one JSON object a row, with its own timestamps and at its own pace or faster."""

from __future__ import annotations

import contextlib
import json
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

from gon_edge.errors import InputError
from gon_edge.links.publisher import Publisher
from gon_edge.stream.times import unix_seconds
from gon_edge.tables.table import Record, Table

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
    table: Table,
    publisher: Publisher,
    topic: str,
    *,
    speed: float | None,
    limit: int | None = None,
    progress: Callable[[int, float | None], None] = lambda rows, fraction: None,
) -> ReplayReport:
    """Send the rows of a table.

    A row is ``{"column": value, ...}`` in the order of the columns: numbers as numbers with the digits they are written
    with, empty cells as null, other text as text.  A row of a long table is a reading, of the feature it names.  The
    time comes first, two columns of it as ``time``.  It stays the text it is where a daemon reads that, and is ISO 8601
    in UTC else.

    Parameters
    ----------
    table : Table
    publisher : Publisher
    topic : str
        ``{stream}`` stands for the machine of a row, without what a topic's level cannot hold.
    speed : float or None
        How many times faster than recorded; ``None`` is as fast as the broker acknowledges.
    limit : int, optional
        Rows at most.
    progress : callable
        Called now and then with rows sent and the fraction of the file read.

    Raises
    ------
    InputError
        Rows have no times while the pace depends on them, or a damaged file.
    UnreachableError
        The broker went away and did not come back.
    """
    if speed is not None and not table.has_times:
        raise InputError(
            f"{table.name}: the pace needs a time: name its column with --time-column (there are: "
            f"{', '.join(table.columns)}), or replay --as-fast-as-possible"
        )
    time_key = "time" if len(table.layout.times) > 1 else table.time_name
    first_sent = publisher.sent, publisher.acknowledged, publisher.refused
    began = time.monotonic()
    first_time: float | None = None
    for rows, record in enumerate(table.records(cells=True)):
        if rows == limit:
            break
        if speed is not None:
            first_time = record.at if first_time is None else first_time
            publisher.wait_until(began + (record.at - first_time) / speed)
        where = topic.replace("{stream}", re.sub(r"[/+#\s\0]", "-", record.stream) or "none")
        publisher.send(where, _row_json(time_key, record))
        progress(rows + 1, table.fraction if rows % 100 == 0 else None)
    publisher.drain()
    sent, acknowledged, refused = (
        now - before
        for now, before in zip((publisher.sent, publisher.acknowledged, publisher.refused), first_sent, strict=True)
    )
    return ReplayReport(sent, acknowledged, refused, publisher.refusal, time.monotonic() - began)


def _row_json(time_key: str, record: Record) -> bytes:
    pairs = [f"{json.dumps(time_key)}:{json.dumps(_time_text(record))}"] if time_key else []
    for name, value, cell in zip(record.names, record.values, record.cells, strict=True):
        pairs.append(f"{json.dumps(name)}:{_value_json(value, cell.strip())}")
    return ("{" + ",".join(pairs) + "}").encode()


def _time_text(record: Record) -> str:
    """The time as it is, where a daemon reads the same of it."""
    with contextlib.suppress(ValueError):
        if unix_seconds(record.time) == record.at:
            return record.time
    return datetime.fromtimestamp(record.at, UTC).isoformat().replace("+00:00", "Z")


def _value_json(value: float | str, cell: str) -> str:
    if not cell:
        return "null"
    if isinstance(value, str) or not any(map(str.isdigit, cell)):
        return json.dumps(cell)
    return cell if _JSON_NUMBER.fullmatch(cell) and float(cell) == value else repr(value)
