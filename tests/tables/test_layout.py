"""What each column of a table is: found by names and cells, or said by a person."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict

import pytest

from gon_edge.errors import InputError
from gon_edge.tables.csvfile import CsvFile
from gon_edge.tables.layout import Layout, TableOptions, layout_of


def layout(path: str, keep: tuple[str, ...] = (), **options: object) -> Layout:
    with CsvFile(path) as file:
        return layout_of(file, TableOptions(**options), keep)  # type: ignore[arg-type]


def test_a_wide_table_has_a_column_for_each_feature(csv: Callable[..., str]) -> None:
    assert layout(csv("time,a,b", "0,1,2")) == Layout((0,), None, (), (1, 2))


@pytest.mark.parametrize(
    ("header", "row", "feature", "value"),
    [
        ("entity_id,state,last_changed", "sensor.a,1,2026-01-05T10:00:00Z", 0, 1),
        ("Series,Time,Value", "a,2026-01-05 10:00,1", 0, 2),
        ("Tag,Timestamp,Value,Questionable", "a,05-Jan-26 10:00:00,1,False", 0, 2),
        ("metric,ts,value", "a,1767607200,1", 0, 2),
    ],
)
def test_a_long_table_is_known_by_its_header(
    csv: Callable[..., str], header: str, row: str, feature: int, value: int
) -> None:
    found = layout(csv(header, row))
    assert (found.features, found.values, len(found.times)) == ((feature,), (value,), 1)


def test_a_long_table_with_other_names_is_said(csv: Callable[..., str]) -> None:
    path = csv("when,what,how much", "2026-01-05 10:00,a,1")
    assert layout(path, feature_column="what", value_column="how much") == Layout((0,), None, (1,), (2,))
    with pytest.raises(InputError, match="name the column of the values with --value-column"):
        layout(path, feature_column="what")
    with pytest.raises(InputError, match="--value-column needs --feature-column"):
        layout(path, value_column="how much")
    with pytest.raises(InputError, match="no column 'x' for --feature-column"):
        layout(path, feature_column="x", value_column="how much")


def test_a_column_of_machines_counts_where_there_are_several_wherever_the_second_begins(
    csv: Callable[..., str],
) -> None:
    one = [f"{t},7,{t}" for t in range(2000)]
    assert layout(csv("time,device_id,a", *one)).stream is None
    assert layout(csv("time,device_id,a", *one, *(f"{t},8,{t}" for t in range(2000)))).stream == 1
    assert layout(csv("time,who,a", "0,x,1", "0,y,1"), stream_column="who") == Layout((0,), 1, (), (2,))


def test_a_feature_of_the_model_is_one_whatever_its_name(csv: Callable[..., str]) -> None:
    path = csv("timestamp,time,station", "0,1,1", "1,2,2")
    assert layout(path) == Layout((0,), 2, (), (), (1,))
    assert layout(path, keep=("time", "station")) == Layout((0,), None, (), (1, 2))


def test_a_later_table_of_a_database_may_have_further_columns(csv: Callable[..., str]) -> None:
    head = ["#datatype,string,long,dateTime:RFC3339,double,string", "#group,,,,,", "#default,,,,,"]
    one = [*head, ",result,table,_time,_value,_field", ",,0,2026-01-05T10:00:00Z,1,a", ""]
    more = [*head, ",result,table,_time,_value,_field,host"]
    more += [f",,{i},2026-01-05T10:00:00Z,2,a,{host}" for i, host in enumerate(("x", "y"), 1)]
    found = layout(csv(*one, *more))
    assert (found.stream, found.features, found.times) == (6, (5,), (3,))


def test_fields_that_a_database_has_put_side_by_side_are_features_and_its_own_columns_are_none(
    csv: Callable[..., str],
) -> None:
    head = ["#datatype,string,long,dateTime:RFC3339,dateTime:RFC3339,double,double", "#group,,,,,,", "#default,,,,,,"]
    found = layout(
        csv(*head, ",result,table,_start,_time,flow,heat", ",,0,2026-01-05T09:00:00Z,2026-01-05T10:00:00Z,1,2")
    )
    assert (found.times, found.features, found.values) == ((4,), (), (5, 6))


def test_options_come_back_from_json() -> None:
    options = TableOptions(("Date", "Time"), only="a", missing=(-200.0,), since={"ago_s": 60.0})
    values = asdict(options)
    assert TableOptions.from_json({**values, "time_columns": list(values["time_columns"])}) == options
    assert TableOptions.from_json({}) == TableOptions()


def test_a_column_that_counts_the_rows_is_no_feature(csv: Callable[..., str]) -> None:
    rows = [f"{i},{60 * i},{i}" for i in range(20)]
    assert layout(csv(",time,a", *rows)) == Layout((1,), None, (), (2,), (), 0)
    assert layout(csv("Unnamed: 0,time,a", *rows)).number == 0
    assert layout(csv(",time,a", *rows[:10], *rows[12:])).number is None
    assert layout(csv("flow,time,a", *rows)).number is None
    assert layout(csv("id,time,a", *rows), keep=("id",)).number is None
