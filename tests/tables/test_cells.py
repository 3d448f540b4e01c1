"""Cells to numbers: what all cells of a column decide, and what cannot be read."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gon_edge.tables.cells import Evidence, Numbers, decide, sentinel


def read(*columns: list[str], delimiter: str = ";", decimal: str | None = None, missing: tuple[float, ...] = ()):
    """How columns are read, and their values."""
    evidence = [Evidence() for _ in columns]
    for one, cells in zip(evidence, columns, strict=True):
        for line, cell in enumerate(cells, 2):
            one.add(cell, line)
    numbers = decide(evidence, delimiter, decimal, missing)
    return numbers, [[how.value(cell) for cell in cells] for how, cells in zip(numbers, columns, strict=True)]


@pytest.mark.parametrize(
    ("cells", "values"),
    [
        (["21.5", "1e3", "-3"], [21.5, 1000.0, -3.0]),
        (["21,5", "-0,25", "3", "1,5e3"], [21.5, -0.25, 3.0, 1500.0]),
        (["1.234,5", "999,5", "1.234.567"], [1234.5, 999.5, 1234567.0]),
        (["1,234.5", "999.5", "1,234,567"], [1234.5, 999.5, 1234567.0]),
        (["1 234,5", "12 345", "1\u00a0234\u00a0567,0"], [1234.5, 12345.0, 1234567.0]),
        (["1'234.5", "0.5"], [1234.5, 0.5]),
        (["21.5 °C", "22°C", "−3 °C"], [21.5, 22.0, -3.0]),
        (["55%", "56 %"], [55.0, 56.0]),
        (["3,5 m3/h", "4 m3/h"], [3.5, 4.0]),
        (["12 µg/m³", "1.5 µg/m³"], [12.0, 1.5]),
        (["on", "OFF", "true"], [1.0, 0.0, 1.0]),
        (["1", "", "NA", "unavailable", "nan", "-", "inf"], [1.0, "null", "null", "null", "nan", "null", "infinite"]),
        (["1", "2", "3", "0xbe", "1_0"], [1.0, 2.0, 3.0, "text", "text"]),
        ([",5", "1,25"], [0.5, 1.25]),
    ],
)
def test_cells_are_read_as_programs_write_them(cells: list[str], values: list[float | str]) -> None:
    assert read(cells)[1] == [values]


def test_three_digits_after_a_mark_mean_what_the_other_columns_say() -> None:
    doubtful = ["1.234", "2.345"]
    assert read(doubtful, ["0,5", "1,5"])[1][0] == [1234.0, 2345.0]
    assert read(doubtful, ["0.5", "1.5"])[1][0] == [1.234, 2.345]
    (alone,), values = read(doubtful)
    assert (alone.doubtful, values) == (True, [[1.234, 2.345]])
    assert read(["1,234", "2,345"], delimiter=";")[1] == [[1.234, 2.345]]
    assert read(["1,234", "2,345"], delimiter=",")[1] == [[1234.0, 2345.0]]  # it was quoted
    assert read(doubtful, decimal=",")[1] == [[1234.0, 2345.0]]


def test_cells_that_do_not_fit_the_others_of_their_column_are_counted() -> None:
    (numbers,), ((*_, odd),) = read(["21,5", "22,5", "23.5"])
    assert (numbers.decimal, numbers.read, numbers.dropped, odd) == (",", 2, 1, "text")


def test_a_column_of_several_units_is_none_of_numbers() -> None:
    (numbers,), _ = read(["900 W", "1.2 kW"])
    assert (numbers.numeric, numbers.units) == (False, ("W", "kW"))


def test_a_column_counts_where_half_of_what_is_written_in_it_are_numbers() -> None:
    assert [read(cells)[0][0].numeric for cells in (["1", "x"], ["1", "x", "y"], ["", ""], ["x"])] == [
        True,
        False,
        False,
        False,
    ]


def test_a_number_that_stands_for_no_value_is_noticed_and_masked_when_a_person_says_so() -> None:
    evidence = Evidence()
    for cell in ("2,6", "2", "-200", "-200", "1,9"):
        evidence.add(cell, 2)
    assert sentinel(evidence) == -200.0
    assert read(["2,6", "-200", "-200,0"], missing=(-200.0,))[1] == [[2.6, "null", "null"]]
    calm = Evidence()
    for cell in ("-200", "-200"):
        calm.add(cell, 2)
    assert sentinel(calm) is None


@given(
    st.lists(st.floats(-1e6, 1e6, allow_nan=False).map(lambda x: round(x, 2)), min_size=2),
    st.sampled_from([",", "."]),
    st.booleans(),
)
def test_whatever_a_spreadsheet_writes_comes_back(values: list[float], mark: str, grouped: bool) -> None:
    other = "." if mark == "," else ","
    swap = {".": mark, ",": other}
    cells = ["".join(swap.get(c, c) for c in format(value, ",.2f" if grouped else ".2f")) for value in values]
    (numbers,), (found,) = read(cells)
    assert found == pytest.approx(values, abs=1e-9)
    assert isinstance(numbers, Numbers)
