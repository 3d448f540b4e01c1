"""A CSV file in, a CSV file with scores out: a model without a broker.

Rows are judged by the daemon's own code once they are aligned (`Stream.judge`), one after the other, none by later
ones.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import IO

import numpy as np
from numpy.typing import NDArray

from gon_edge.config.schema import StreamConfig
from gon_edge.errors import InputError
from gon_edge.events import Row
from gon_edge.model.file import Model
from gon_edge.stream.stream import Stream
from gon_edge.tables.grid import GridRow, grid
from gon_edge.tables.table import Table


@dataclass(frozen=True, slots=True)
class ScoreReport:
    """What was scored.

    Attributes
    ----------
    rows, anomalies : int
    read : int
        Cells that are numbers, of the model's features.
    texts : int
        Cells that held text where a number was expected; they counted as missing.
    unknown : tuple of str
        Features the model does not know; they were left out.
    """

    rows: int
    anomalies: int
    read: int
    texts: int
    unknown: tuple[str, ...]


def score_csv(
    model: Model,
    table: Table,
    out: IO[str],
    *,
    progress: Callable[[int, float | None], None] = lambda rows, fraction: None,
) -> ScoreReport:
    """Write one line for each row: its time or number, ``score``, ``threshold``, ``is_anomaly``, ``top_feature``.

    Parameters
    ----------
    model : Model
    table : Table
        Must have every feature of the model, in any order.  Its times are copied to the output as they are; without
        times rows are numbered from 0 in a column ``row``.  Several machines are judged each for itself, and a column
        ``stream`` says which one a row is of.
    out : text file
    progress : callable
        Called with rows done and the fraction of the file read.

    Raises
    ------
    InputError
        Features without a column, by name; a damaged file; a first row without a value of a feature that the model
        knows as changes since that row.
    """
    unknown = tuple(name for name in table.filled if name not in model.readings)
    judged = table_rows(model, table)
    streams: dict[str, Stream] = {}
    writer = csv.writer(out, lineterminator="\n")
    several = ["stream"] if len(table.streams) > 1 else []
    writer.writerow([table.time_name or "row", *several, "score", "threshold", "is_anomaly", "top_feature"])
    rows = anomalies = read = texts = 0
    for rows, (found, row) in enumerate(judged, 1):
        stream = streams.get(found.stream)
        if stream is None:
            own = at_level_of(model, row.values, table.name)
            stream = Stream("", StreamConfig(), max_features=len(model.readings), model=own)
            streams[found.stream] = stream
        (outcome,) = stream.judge([row])
        verdict, causes = outcome.verdict, stream.causes()
        assert verdict is not None  # the stream has a model
        anomalies += verdict.is_anomaly
        texts += found.texts
        read += int(np.isfinite(found.values).sum())
        writer.writerow(
            [
                found.time if table.has_times else rows - 1,
                *([found.stream] if several else []),
                f"{verdict.score:.9g}",
                f"{verdict.threshold:.9g}",
                int(verdict.is_anomaly),
                causes[0].feature if causes else "",
            ]
        )
        progress(rows, table.fraction if rows % 100 == 0 else None)
    return ScoreReport(rows, anomalies, read, texts, unknown)


def table_rows(model: Model, table: Table) -> Iterator[tuple[GridRow, Row]]:
    """Return an iterator over a table: its rows, and each as a model sees it.

    Rows are numbered from 1 in place of a timestamp where there is none.

    Raises
    ------
    InputError
        Features without a column, by name; a damaged file.
    """
    table.require(model.readings, "the model")
    return _rows(model, table)


def _rows(model: Model, table: Table) -> Iterator[tuple[GridRow, Row]]:
    features = model.readings
    current = np.zeros(len(features), np.bool_)  # every value belongs to its row: nothing is stale
    for found in grid(table, features):
        at = found.at if table.has_times else found.at + 1.0
        yield found, Row("", at, features, found.values, current, found.restart)


def at_level_of(model: Model, values: NDArray[np.float32], name: str) -> Model:
    """The model for rows that begin with these values: it may know some features only as changes since the first row.

    Raises
    ------
    InputError
        The first row, of the file `name`, has no value of such a feature.
    """
    unknown = [feature for feature in model.relative if not np.isfinite(values[model.readings.index(feature)])]
    if unknown:
        raise InputError(
            f"{name}: the first row has no value of {', '.join(unknown)}, which the model knows only as changes since "
            "that row; begin with a row that has one"
        )
    return model.at_level_of(model.readings, values)
