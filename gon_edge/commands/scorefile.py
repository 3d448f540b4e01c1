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
from gon_edge.state.csvfile import CsvFile, cell_number
from gon_edge.stream.stream import Stream


@dataclass(frozen=True, slots=True)
class ScoreReport:
    """What was scored.

    Attributes
    ----------
    rows, anomalies : int
    unreadable : int
        Cells that held text where a number was expected; they counted as missing.
    unknown : tuple of str
        Columns the model does not know; they were left out.
    """

    rows: int
    anomalies: int
    unreadable: int
    unknown: tuple[str, ...]


def score_csv(
    model: Model,
    table: CsvFile,
    out: IO[str],
    *,
    time_column: str | None = None,
    progress: Callable[[int, float | None], None] = lambda rows, fraction: None,
) -> ScoreReport:
    """Write one line for each row: its time or number, ``score``, ``threshold``, ``is_anomaly``, ``top_feature``.

    Parameters
    ----------
    model : Model
    table : CsvFile
        Must have every feature of the model as a column, in any order.
    out : text file
    time_column : str, optional
        Copied to the output as it is; without it rows are numbered from 0 in a column ``row``.
    progress : callable
        Called with rows done and the fraction of the file read.

    Raises
    ------
    InputError
        Features without a column, by name; no such time column; a damaged file; a first row without a value of a
        feature that the model knows as changes since that row.
    """
    time_index = None if time_column is None else table.column(time_column, "--time-column")
    unknown = tuple(name for name in table.columns if name not in model.readings and name != time_column)
    judged = csv_rows(model, table, time_column)
    stream: Stream | None = None
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow([time_column or "row", "score", "threshold", "is_anomaly", "top_feature"])
    rows = anomalies = unreadable = 0
    for rows, (cells, row, texts) in enumerate(judged, 1):
        unreadable += texts
        if stream is None:
            own = at_level_of(model, row.values, table.name)
            stream = Stream("", StreamConfig(), max_features=len(model.readings), model=own)
        (outcome,) = stream.judge([row])
        verdict, causes = outcome.verdict, stream.causes()
        assert verdict is not None  # the stream has a model
        anomalies += verdict.is_anomaly
        writer.writerow(
            [
                rows - 1 if time_index is None else cells[time_index],
                f"{verdict.score:.9g}",
                f"{verdict.threshold:.9g}",
                int(verdict.is_anomaly),
                causes[0].feature if causes else "",
            ]
        )
        progress(rows, table.fraction if rows % 100 == 0 else None)
    return ScoreReport(rows, anomalies, unreadable, unknown)


def csv_rows(model: Model, table: CsvFile, time_column: str | None) -> Iterator[tuple[list[str], Row, int]]:
    """Return an iterator over a table: the cells, the row as a model sees it, and how many cells are text, no number.

    Rows are numbered from 1 in place of a timestamp.

    Raises
    ------
    InputError
        Features without a column, by name; a damaged file.
    """
    missing = [name for name in model.readings if name not in table.columns]
    if missing:
        unknown = [name for name in table.columns if name not in model.readings and name != time_column]
        hint = f"; columns the model does not know: {', '.join(unknown)}" if unknown else ""
        raise InputError(f"{table.name}: the model needs columns that are not there: {', '.join(missing)}{hint}")
    return _rows(model, table)


def _rows(model: Model, table: CsvFile) -> Iterator[tuple[list[str], Row, int]]:
    features = model.readings
    columns = [table.columns.index(name) for name in features]
    current = np.zeros(len(columns), np.bool_)  # every value belongs to its row: nothing is stale
    for number, cells in enumerate(table, 1):
        numbers = [cell_number(cells[i]) for i in columns]
        texts = sum(
            number is None and cells[i].strip().lower() not in ("", "nan", "null", "none")
            for number, i in zip(numbers, columns, strict=True)
        )
        values = np.array([np.nan if number is None else number for number in numbers], np.float32)
        yield cells, Row("", float(number), features, values, current), texts


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
