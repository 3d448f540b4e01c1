"""The one reader: order, interval, machines, spans, and what is said of what cannot be read."""

from __future__ import annotations

import io
import os
import random
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gon_edge.errors import InputError
from gon_edge.tables.grid import grid
from gon_edge.tables.layout import TableOptions
from gon_edge.tables.table import Record, Table


def records(path: str, **options: object) -> list[Record]:
    with Table(path, TableOptions(**options)) as table:  # type: ignore[arg-type]
        return list(table.records(cells=True))


def said(path: str, **options: object) -> str:
    with Table(path, TableOptions(**options)) as table:  # type: ignore[arg-type]
        return "\n".join(table.said())


def minutes(count: int) -> list[str]:
    return [f"2026-01-05 {10 + i // 60}:{i % 60:02}:00,{i}" for i in range(count)]


def test_the_interval_is_the_median_step_whatever_one_step_is(csv: Callable[..., str]) -> None:
    rows = minutes(50)
    rows[20] = rows[20].replace(":20:00", ":19:01")
    with Table(csv("time,a", *rows[:30], *rows[40:])) as table:
        assert (table.interval_s, table.rows) == (60.0, 40)
    with Table(csv("a", "1", "2")) as table:
        assert (table.interval_s, table.has_times) == (None, False)


@pytest.mark.parametrize("order", ["newest first", "shuffled"])
def test_rows_come_in_order_of_time_with_what_stands_in_them(csv: Callable[..., str], order: str) -> None:
    rows = [f"{row},x{i},on" for i, row in enumerate(minutes(40))]
    straight = [(r.time, r.values, tuple(r.cells)) for r in records(csv("time,a,b,c", *rows, name="a.csv"))]
    if order == "newest first":
        rows.reverse()
    else:
        random.Random(0).shuffle(rows)
    path = csv("time,a,b,c", *rows)
    assert [(r.time, r.values, tuple(r.cells)) for r in records(path)] == straight
    assert ("newest first" if order == "newest first" else "put in order of time") in said(path)
    assert straight[3][1] == [3.0, "text", 1.0]


def test_a_time_that_goes_back_once_begins_another_recording(csv: Callable[..., str]) -> None:
    path = csv("time,a", *minutes(20), *minutes(10)[5:])
    assert [record.values[0] for record in records(path)] == [*range(20), *range(5, 10)]
    assert "time goes back 1 times; a new recording begins there" in said(path)


def test_rows_of_one_time_and_rows_without_are_counted(csv: Callable[..., str]) -> None:
    path = csv("time,a", "1,1", "2,2", "2,3", ",9", "3,4")
    assert [(r.at, r.again) for r in records(path)] == [(1.0, False), (2.0, False), (2.0, True), (3.0, False)]
    text = said(path)
    assert "1 rows without a time left out" in text
    assert "1 rows have the time of another one; the first of them counts" in text


def test_machines_that_nobody_named_are_not_one_recording(csv: Callable[..., str]) -> None:
    rows = [f"{t},{who},{t}" for t in range(20) for who in ("x", "y", "z")]
    with pytest.raises(InputError, match=r"40 of 60 rows have the time of another one; name .* --stream-column"):
        Table(csv("time,who,a", *rows))
    with Table(csv("time,who,a", *rows), TableOptions(stream_column="who")) as table:
        assert (table.streams, table.interval_s) == (("x", "y", "z"), 1.0)
    assert {r.stream for r in records(csv("time,who,a", *rows), stream_column="who", only="y")} == {"y"}
    with pytest.raises(InputError, match="no machine 'q'; there are: x, y, z"):
        Table(csv("time,who,a", *rows), TableOptions(stream_column="who", only="q"))


def test_machines_one_after_the_other_come_side_by_side(csv: Callable[..., str]) -> None:
    path = csv("time,machine,a", *(f"{t},{who},{t}" for who in ("x", "y") for t in range(5)))
    assert [(r.at, r.stream) for r in records(path)] == [(float(t), who) for t in range(5) for who in ("x", "y")]


def test_a_span_is_counted_from_the_newest_row_or_is_a_time(csv: Callable[..., str]) -> None:
    path = csv("time,a", *minutes(60))
    assert [r.values[0] for r in records(path, since={"ago_s": 120.0})] == [57.0, 58.0, 59.0]
    assert [r.values[0] for r in records(path, until={"at": 1767607200.0 + 60.0})] == [0.0, 1.0]
    assert "57 rows outside the span left out" in said(path, since={"ago_s": 120.0})
    with pytest.raises(InputError, match="a span needs times"):
        Table(csv("a", "1"), TableOptions(since={"ago_s": 1.0}))


def test_date_and_time_of_the_day_are_one_time_and_a_person_may_name_them(csv: Callable[..., str]) -> None:
    path = csv("Tag;Uhr;a", "05.01.2026;18.00.00;1,5", "05.01.2026;18.00.10;1,6")
    assert [r.at for r in records(path, time_columns=("Tag", "Uhr"))] == [1767636000.0, 1767636010.0]


@pytest.mark.parametrize(
    ("lines", "says"),
    [
        (["time,a", "1,x", "2,y"], r"its cells are no numbers, such as 'x' in line 2"),
        (["time,a", "1,"], "has no numbers"),
        (["time", "1"], "has no column of values"),
        (["time,power", "1,900 W", "2,1.2 kW"], r"power has several units \(W, kW\); export it in one"),
        (["time,a", "1,1", "soon,2"], r":3: 'soon' is no time; name the column"),
        (["time,a", "13/01/2026,1", "01/14/2026,2"], "column 'time': days and months change places"),
    ],
)
def test_a_table_of_which_too_little_can_be_read_is_refused(
    csv: Callable[..., str], lines: list[str], says: str
) -> None:
    with pytest.raises(InputError, match=says):
        Table(csv(*lines))


def test_what_was_read_and_dropped_is_said(csv: Callable[..., str]) -> None:
    path = csv("time,a,b,note", "1,1,2 °C,x", "2,broken,3 °C,y", "3,3,,z", "4,4,x,1")
    text = said(path)
    assert "4 rows, every 1 s, time from time (Unix)" in text
    assert "5 cells read, 2 dropped (the first is 'broken' in line 3)" in text
    assert "units: b in °C" in text
    assert "note left out: only 1 of 4 cells are numbers" in text


def test_what_a_model_needs_must_be_numbers(csv: Callable[..., str]) -> None:
    with Table(csv("a,b,c", "1,x,", "2,y,")) as table:
        table.require(["a", "c"], "the model")  # an empty column is a sensor that is gone
        with pytest.raises(InputError, match="needs columns that are not there: d; columns the model does not know: a"):
            table.require(["d"], "the model")
        with pytest.raises(InputError, match="needs b, of which 0 of 2 cells are numbers: the first is 'x' in line 2"):
            table.require(["b"], "the model")


def test_a_number_that_may_mean_no_value_is_named_until_a_person_says(csv: Callable[..., str]) -> None:
    path = csv("time,a", *(f"{t},{-200 if t % 3 else t}" for t in range(9)))
    assert "-200 comes often in 1 columns; if it means no value, write --missing -200" in said(path)
    assert "comes often" not in said(path, missing=(-200.0,))
    assert [r.values[0] for r in records(path, missing=(-200.0,))][:3] == [0.0, "null", "null"]


CELLS = (
    *(
        "time",
        "date",
        "value",
        "name",
        "host",
        "state",
        "entity_id",
        "_field",
        "_value",
        "a",
        "1",
        "2.5",
        "2,5",
        "-200",
    ),
    *(
        "1,234",
        "21 °C",
        "05/01/2026",
        "13/01/2026 12:00 AM",
        "2026-01-05",
        "18.00.00",
        "20260105100000",
        "on",
        "NA",
        "",
    ),
    *(
        "#datatype",
        "sep=;\n",
        "\n",
        "\r\n",
        "\0",
        '"',
        "..",
        "0001-01-01",
        "9999-12-31 23:59:59",
        "1e999",
        "24:00",
        "é",
    ),
)


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rows=st.lists(st.lists(st.sampled_from(CELLS), min_size=1, max_size=4), max_size=20),
    delimiter=st.sampled_from(",;\t"),
    encoding=st.sampled_from(["utf-8", "utf-16", "latin-1"]),
)
def test_whatever_a_file_holds_it_is_read_or_refused_in_a_line(
    tmp_path: Path, rows: list[list[str]], delimiter: str, encoding: str
) -> None:
    path = tmp_path / "x.csv"
    path.write_bytes("\n".join(map(delimiter.join, rows)).encode(encoding))
    try:
        with Table(str(path)) as table:
            assert list(table.said())
            known = [record.at for record in table.records(cells=True)]
            assert len(known) == table.rows or not table.has_times or table.is_long
            for row in grid(table, table.features):
                assert len(row.values) == len(table.features)
    except InputError as error:
        said = str(error)
    else:
        return
    assert said.startswith(str(path))


class Pipe(io.BytesIO):
    """Standard input that can be read once."""

    def seekable(self) -> bool:
        return False


@pytest.mark.parametrize("follow", [True, False])
def test_standard_input_is_read_as_it_comes_or_kept(
    csv: Callable[..., str], monkeypatch: pytest.MonkeyPatch, follow: bool
) -> None:
    text = "zeit;a\n" + "".join(f"{t};{t},5\n" for t in range(3000))
    pipe = Pipe(text.encode())
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BufferedReader(pipe)))  # type: ignore[arg-type]
    with Table("-", follow=follow) as table:
        assert (pipe.tell() < len(text)) == follow
        assert [record.values[0] for record in table.records()] == [t + 0.5 for t in range(3000)]


def test_a_pipe_is_judged_by_its_first_two_lines_and_what_comes_may_be_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    reader, writer = os.pipe()
    with os.fdopen(reader, "rb") as stdin, os.fdopen(writer, "wb", buffering=0) as out:
        monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=stdin))
        out.write(b"time;a;b\n")
        out.write(b"1;;2,5\n")
        with Table("-", follow=True) as table:
            assert table.follows
            rows = table.records()
            assert next(rows).values == ["null", 2.5]
            out.write(b"2;3,5;x\n")
            assert next(rows).values == [3.5, "text"]


def test_readings_of_a_pipe_are_put_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = ["time,metric,value", *(f"{t},{name},{t}" for name in ("a", "b") for t in range(5))]
    stdin = io.BufferedReader(Pipe("\n".join(lines).encode()))  # type: ignore[arg-type]
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=stdin))
    with Table("-", follow=True) as table:
        assert (table.features, table.follows) == (("a", "b"), False)
        assert [record.at for record in table.records()] == [float(t) for t in range(5) for _ in "ab"]


def test_names_in_cells_are_one_line_as_names_of_columns_are(csv: Callable[..., str]) -> None:
    # What was said of such a table had more lines than it told.
    rows = [f'"oil\n temp ",{i},2026-01-05 10:{i:02}:00' for i in range(30)]
    with Table(csv("entity_id,state,last_changed", *rows, '"no\nnumber",calm,2026-01-05 11:00:00')) as table:
        assert table.features == ("oil temp",)
        assert [line for line in table.said() if "\n" in line] == []
        assert "no number" in "\n".join(table.said())
