"""A CSV file row by row, and what is said about one that is wrong."""

from __future__ import annotations

import gzip
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from gon_edge.errors import InputError
from gon_edge.tables.csvfile import CsvFile


@pytest.mark.parametrize(
    ("lines", "says"),
    [
        (["a,a", "1,2"], "column 'a' is there twice"),
        (["a,b", "1,2,3"], ":2: 3 cells, and the header names 2 columns"),
        ([""], "is empty"),
    ],
)
def test_a_file_that_is_no_table_is_refused_by_line(csv: Callable[..., str], lines: Sequence[str], says: str) -> None:
    with pytest.raises(InputError, match=says), CsvFile(csv(*lines)) as table:
        list(table)


def test_a_row_cut_short_gets_empty_cells_and_blank_lines_are_left_out(csv: Callable[..., str]) -> None:
    with CsvFile(csv("a,b", "1,2", "", "3")) as table:
        assert list(table) == [["1", "2"], ["3", ""]]


def test_the_share_that_was_read_grows_row_by_row_also_of_a_short_file(csv: Callable[..., str]) -> None:
    with CsvFile(csv("a,b", *(f"{i:04d},1" for i in range(999)))) as table:
        shares = [table.fraction for _ in table]
    assert shares == pytest.approx([(i + 1) / 1000 for i in range(1, 1000)], abs=1e-3)


def test_a_gzip_file_cut_off_is_an_error_after_its_good_rows(tmp_path: Path) -> None:
    path = tmp_path / "cut.csv.gz"
    whole = gzip.compress("\n".join(["a", *map(str, range(100_000))]).encode())
    path.write_bytes(whole[: len(whole) // 2])
    rows = []
    with pytest.raises(InputError, match="damaged or cut off after line"), CsvFile(str(path)) as table:
        rows.extend(table)
    assert rows


@pytest.mark.parametrize(("content", "says"), [(None, "No such file"), (b"a\n\xff\xfe\n", "not UTF-8")])
def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, content: bytes | None, says: str) -> None:
    path = tmp_path / "x.csv"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match=says) as raised, CsvFile(str(path)) as table:
        list(table)
    assert str(path) in str(raised.value)


def test_what_is_no_utf_8_is_named_by_its_line_with_the_encodings_it_may_be(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    rows = ["time,Temp °C", *(f"{t},{t}" for t in range(9000))]
    path.write_bytes("\n".join(rows).encode("latin-1"))
    with pytest.raises(InputError, match=r"x.csv:1: is not UTF-8 .* --encoding latin-1$"):
        CsvFile(str(path))
    with CsvFile(str(path), encoding="latin-1") as table:
        assert table.columns == ("time", "Temp °C")
    rows[0], rows[8000] = "time,a", "8000,温度"
    path.write_bytes("\n".join(rows).encode("gbk"))
    with pytest.raises(InputError, match=r"x.csv:8001: .* --encoding gbk or latin-1$"), CsvFile(str(path)) as table:
        list(table)
    with CsvFile(str(path), encoding="gbk") as table:
        assert list(table)[7999] == ["8000", "温度"]


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"])
def test_text_is_read_in_what_its_first_bytes_say(tmp_path: Path, encoding: str) -> None:
    path = tmp_path / "x.csv"
    path.write_bytes("zeit;Ü\n1;2\n".encode(encoding))
    for file in (path, tmp_path / "x.csv.gz"):
        file.write_bytes(path.read_bytes() if file == path else gzip.compress(path.read_bytes()))
        with CsvFile(str(file)) as table:
            assert (table.columns, list(table), list(table)) == (("zeit", "Ü"), [["1", "2"]], [["1", "2"]])


@pytest.mark.parametrize(
    ("text", "delimiter", "columns"),
    [
        ("a,b\n1,2\n", ",", ("a", "b")),
        ("a;b\n1,5;2,5\n", ";", ("a", "b")),
        ("a, in s;b, in m\n1;2\n", ";", ("a, in s", "b, in m")),
        ("a\tb\n1,5\t2\n", "\t", ("a", "b")),
        ("a|b\n1|2\n", "|", ("a", "b")),
        ("sep=|\na|b;c\n1|2\n", "|", ("a", "b;c")),
        ("a\n1\n2\n", ",", ("a",)),
        ("Report of 5.1.2026\n\na;b;c\n1;2;3\n4;5;6\n", ";", ("a", "b", "c")),
        ("# by a logger\na,b\n1,2\n", ",", ("a", "b")),
    ],
)
def test_delimiter_and_header_are_found(tmp_path: Path, text: str, delimiter: str, columns: tuple[str, ...]) -> None:
    path = tmp_path / "x.csv"
    path.write_text(text)
    with CsvFile(str(path)) as table:
        assert (table.delimiter, table.columns) == (delimiter, columns)
        assert all(cell[0] in "123456" for row in table for cell in row)


def test_a_first_line_of_numbers_and_times_is_a_row(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    path.write_text("2026-01-05 10:00:00;21,5;3\n2026-01-05 10:00:01;21,6;4\n")
    with CsvFile(str(path)) as table:
        assert (table.header, table.columns) == (False, ("column 1", "column 2", "column 3"))
        assert [row[1] for row in table] == ["21,5", "21,6"]
        assert table.line == 2
    path.write_text("on,off\n1,2\n")
    with CsvFile(str(path), header=False) as table:
        assert list(table) == [["on", "off"], ["1", "2"]]


@pytest.mark.parametrize(
    ("head", "says"),
    [
        (b"PK\x03\x04rest", "Excel workbook; unpack it, or save its sheet as CSV"),
        (b"PAR1\x15", "Parquet"),
        (b"a\0b\x01\x02\x03\n" * 9, "is no text file"),
        (b'{"a": 1}\n', "is JSON"),
    ],
)
def test_files_that_are_something_else_are_called_by_their_name(tmp_path: Path, head: bytes, says: str) -> None:
    (tmp_path / "x.csv").write_bytes(head)
    with pytest.raises(InputError, match=says):
        CsvFile(str(tmp_path / "x.csv"))


def test_a_database_that_wrote_an_error_is_no_table(tmp_path: Path) -> None:
    text = "#datatype,string,long\n#group,true,false\n#default,,\n,result,table\n,,0\n\n#datatype,string,string\n"
    (tmp_path / "x.csv").write_text(text + "#group,true,true\n#default,,\n,error,reference\n,out of memory,5\n")
    with (
        pytest.raises(InputError, match=r"x.csv:10: the database has written an error"),
        CsvFile(str(tmp_path / "x.csv")) as table,
    ):
        list(table)
