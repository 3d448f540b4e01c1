"""What each column of a table is: times, the machine a row is of, and values, side by side or one below the other.

A wide table has a column for each feature.  A long one has a row for each reading: a column says which feature it is
of, another holds its value.  InfluxDB, Home Assistant, older Grafana, Prometheus and historians write long ones; they
are known by the names of their columns, any other by what a person says.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gon_edge.errors import InputError
from gon_edge.tables.csvfile import CsvFile
from gon_edge.tables.times import is_time_name, plain, time_columns

_LONG = (
    ("_field", "_value"),
    ("entity_id", "state"),
    ("series", "value"),
    ("metric", "value"),
    ("tag", "value"),
    ("tagname", "value"),
    ("pointname", "value"),
    ("sensor", "value"),
    ("sensor_id", "value"),
    ("variable", "value"),
    ("parameter", "value"),
    ("signal", "value"),
    ("channel", "value"),
    ("name", "value"),
)
"""Columns of feature and value of long tables: InfluxDB, Home Assistant, Grafana and Prometheus, PI, Wonderware."""

_MACHINES = (
    "stream machine machineid device deviceid devicename deviceeui host hostname instance sourcekey asset "
    "assetid station stationid plantid inverter turbineid equipment equipmentid motoid moteid nodeid robot "
    "unitid"
)
"""Names of columns that say which machine a row is of, letters and digits only; counts where it has several values."""

_INFLUX = ("result", "table", "_start", "_stop", "_time", "_value", "_field")
"""Columns of InfluxDB that are no tags."""

_MOST_MACHINES = 1000  # not critical: a column of more different texts is a remark, or a measurement


@dataclass(frozen=True, slots=True)
class TableOptions:
    """What a person says about a file; what is left out is found out.

    Attributes
    ----------
    time_columns : tuple of str
        One, or date and time of the day.
    stream_column, feature_column, value_column : str or None
    only : str or None
        The machine whose rows count, of several.
    encoding : str or None
    header : bool
    decimal : str or None
        ``.`` or ``,``.
    date_order : str or None
        A key of `times.ORDERS`.
    missing : tuple of float
        Numbers that stand for no value.
    since, until : mapping or None
        ``{"at": Unix seconds}``, or ``{"ago_s": seconds before the newest row}``.
    """

    time_columns: tuple[str, ...] = ()
    stream_column: str | None = None
    feature_column: str | None = None
    value_column: str | None = None
    only: str | None = None
    encoding: str | None = None
    header: bool = True
    decimal: str | None = None
    date_order: str | None = None
    missing: tuple[float, ...] = ()
    since: Mapping[str, float] | None = None
    until: Mapping[str, float] | None = None

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> TableOptions:
        """The options of which ``dataclasses.asdict`` gave these JSON values.

        Raises
        ------
        TypeError
            They are not of options.
        """
        lists = {name: tuple(values.get(name, ())) for name in ("time_columns", "missing")}
        return cls(**{**values, **lists})


@dataclass(frozen=True, slots=True)
class Layout:
    """Which column is what, by index.

    Attributes
    ----------
    times : tuple of int
        One column, a date and its time of the day, or none.
    stream : int or None
        Of the machine.
    features : tuple of int
        Columns that together name the feature of a long row; empty for a wide table.
    values : tuple of int
        Of a long table the one with values; of a wide one all that are none of the above.
    ignored : tuple of int
        Further columns of times.
    number : int or None
        A column that counts the rows.
    """

    times: tuple[int, ...]
    stream: int | None
    features: tuple[int, ...]
    values: tuple[int, ...]
    ignored: tuple[int, ...] = ()
    number: int | None = None

    @property
    def is_long(self) -> bool:
        """Whether a row is one reading."""
        return bool(self.features)


def layout_of(file: CsvFile, options: TableOptions, keep: Collection[str] = ()) -> Layout:
    """What each column of a file is.

    Parameters
    ----------
    file : CsvFile
    options : TableOptions
    keep : collection of str
        Columns that are features, whatever they are called.

    Raises
    ------
    InputError
        A column is named that there is not, or a long table needs another one.
    """
    if file.annotated:  # later tables may have further columns
        for _ in file:
            pass
    rows = [cells + [""] * (len(file.columns) - len(cells)) for _, cells in file.head]
    names = [name.lower() for name in file.columns]
    long = _long(file, options, names)
    if options.time_columns:
        times = tuple(file.column(name, "--time-column") for name in options.time_columns)
    else:
        hidden = {i for i, name in enumerate(file.columns) if name in keep} | set(long)
        shown = [i for i in range(len(names)) if i not in hidden]
        wanted = [name for name in ("_time", "last_changed") if long and name in names]
        found = time_columns([file.columns[i] for i in shown], [[row[i] for i in shown] for row in rows])
        times = (names.index(wanted[0]),) if wanted else tuple(shown[i] for i in found)
    taken = {*times, *long}
    stream = _stream(file, options, taken, keep)
    taken |= set() if stream is None else {stream}
    if not long:
        own = ("column 1", *_INFLUX) if file.annotated else ()
        rest = [i for i in range(len(names)) if i not in taken and names[i] not in own]
        further = [i for i in rest if times and is_time_name(file.columns[i]) and file.columns[i] not in keep]
        values = [i for i in rest if i not in further]
        may_count = len(values) > 1 and values[0] == 0 and file.columns[0] not in keep
        number = 0 if may_count and _counts_rows(file) else None
        return Layout(times, stream, (), tuple(values[number is not None :]), tuple(further), number)
    features: tuple[int, ...] = (long[0],)
    if names[long[0]] in ("_field", "name"):  # labels tell series of one name apart
        labels = [i for i, name in enumerate(file.columns) if name not in _INFLUX and i not in taken]
        features += tuple(i for i, found in _texts(file, labels).items() if len(found) > 1)
    return Layout(times, stream, features, (long[1],))


def _long(file: CsvFile, options: TableOptions, names: Sequence[str]) -> tuple[int, ...]:
    """The columns of feature and value, if the table is long."""
    feature, value = options.feature_column, options.value_column
    if feature is not None:
        index = file.column(feature, "--feature-column")
        if value is not None:
            return index, file.column(value, "--value-column")
        found = next((one for one in ("value", "_value", "state") if one in names), None)
        if found is None:
            raise InputError(
                f"{file.name}: name the column of the values with --value-column; there are: {', '.join(file.columns)}"
            )
        return index, names.index(found)
    if value is not None:
        raise InputError(f"{file.name}: --value-column needs --feature-column, which says what each value is of")
    for one, other in _LONG:
        if one in names and other in names:
            return names.index(one), names.index(other)
    return ()


def _stream(file: CsvFile, options: TableOptions, taken: Collection[int], keep: Collection[str]) -> int | None:
    if options.stream_column is not None:
        return file.column(options.stream_column, "--stream-column")
    names = [plain(name) for name in file.columns]
    candidates = [names.index(wanted) for wanted in _MACHINES.split() if wanted in names]
    candidates = [i for i in candidates if i not in taken and file.columns[i] not in keep]
    found = _texts(file, candidates)
    return next((i for i in candidates if 1 < len(found[i]) <= _MOST_MACHINES), None)


def _texts(file: CsvFile, columns: Sequence[int]) -> dict[int, set[str]]:
    """What stands in some columns, throughout the file: a database writes one machine after the other."""
    found: dict[int, set[str]] = {i: set() for i in columns}
    if columns:
        for cells in file.again():
            for i, texts in found.items():
                if len(texts) <= _MOST_MACHINES:
                    texts.add(cells[i])
    return found


def _counts_rows(file: CsvFile) -> bool:
    """Whether the first column is the number of the row, as pandas and spreadsheets write it."""
    name = plain(file.columns[0])
    if not file.header or name not in ("column1", "unnamed0", "index", "row", "rownumber", "no", "nr", "id", "sno"):
        return False
    before: int | None = None
    for cells in file.again():
        if not cells[0].strip().isdecimal() or (before is not None and int(cells[0]) != before + 1):
            return False
        before = int(cells[0])
    return before is not None
