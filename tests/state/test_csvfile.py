"""A CSV file row by row, and what is said about one that is wrong."""

from __future__ import annotations

import gzip
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from gon_edge.errors import InputError
from gon_edge.state.csvfile import CsvFile


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
