"""Times as programs write them: which column they are, and what a whole column says about day and month."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from gon_edge.tables.times import Times, read, readings, time_columns


def at(*moment: int) -> float:
    return datetime(*moment, tzinfo=UTC).timestamp()  # type: ignore[misc]  # a year, a month, a day and so on


def decided(cells: list[str], order: str | None = None) -> tuple[str, list[float], str]:
    times = Times()
    for line, cell in enumerate(cells, 2):
        times.add(cell, line)
    kind, found, doubt = times.decide(order)
    return kind, found.tolist(), doubt


@pytest.mark.parametrize(
    ("cell", "kind", "moment"),
    [
        ("2026-01-05T10:00:00.000Z", "iso", at(2026, 1, 5, 10)),
        ("2026-01-05 11:00:00+01:00", "iso", at(2026, 1, 5, 10)),
        ("1767607200", "unix", at(2026, 1, 5, 10)),
        ("1767607200000", "unix", at(2026, 1, 5, 10)),
        ("20260105100000", "compact", at(2026, 1, 5, 10)),
        ("20260105", "compact", at(2026, 1, 5)),
        ("2026/01/05 10:00", "ymd", at(2026, 1, 5, 10)),
        ("2026-01-05 10:00:00 UTC", "ymd", at(2026, 1, 5, 10)),
        ("2026-01-05 24:00", "ymd", at(2026, 1, 6)),
        ("31.01.2026 18.00.00", "dmy", at(2026, 1, 31, 18)),
        ("31/01/26 18:00", "dmy", at(2026, 1, 31, 18)),
        ("01/31/2026 6:00:00 PM", "mdy", at(2026, 1, 31, 18)),
        ("01/31/2026 12:00 AM", "mdy", at(2026, 1, 31)),
        ("05-Jan-26 10:00:00", "named", at(2026, 1, 5, 10)),
        ("5. März 2026 10:00", "named", at(2026, 3, 5, 10)),
        ("Jan 5, 2026 10:00", "named", at(2026, 1, 5, 10)),
        ("1977-Jan", "named", at(1977, 1, 1)),
        ("Mai 2026", "named", at(2026, 5, 1)),
        ("2026-05", "named", at(2026, 5, 1)),
        ("260105110000W", "iso", at(2026, 1, 5, 10)),
        ("30.11.2026, 18:00:05,500", "dmy", at(2026, 11, 30, 18) + 5.5),
    ],
)
def test_a_time_is_read_as_it_is_written(cell: str, kind: str, moment: float) -> None:
    assert readings(cell)[kind] == moment


@pytest.mark.parametrize("cell", ["soon", "18.00.00", "12", "", "1-2-3", "32/01/2026x", "2026-13-01", "25/25/2026"])
def test_what_is_no_date_has_no_reading_or_is_a_number(cell: str) -> None:
    assert set(readings(cell)) <= {"unix"}


def test_one_day_that_cannot_be_a_month_decides_the_whole_column() -> None:
    kind, found, doubt = decided(["05/01/2026 10:00", "06/01/2026 10:00", "13/01/2026 10:00"])
    assert (kind, found[0], doubt) == ("dmy", at(2026, 1, 5, 10), "")
    kind, found, doubt = decided(["05/01/2026", "05/13/2026", "06/01/2026"])
    assert (kind, found[0], doubt) == ("mdy", at(2026, 5, 1), "")


def test_where_both_can_be_rows_that_follow_each_other_evenly_decide() -> None:
    days = [f"{day:02}/01/2026 {hour:02}:00" for day in (5, 6, 7) for hour in range(24)]
    kind, _, doubt = decided(days)
    assert (kind, doubt) == ("dmy", "")
    months = [f"01/{day:02}/2026 {hour:02}:00" for day in (5, 6, 7) for hour in range(24)]
    assert decided(months)[0] == "mdy"


def test_a_single_day_is_in_doubt_and_a_person_can_say() -> None:
    cells = [f"05/01/2026 {hour:02}:00" for hour in range(5)]
    kind, _, doubt = decided(cells)
    assert (kind, "--date-order" in doubt) == ("dmy", True)
    assert decided(cells, "mdy")[:2] == ("mdy", [at(2026, 5, 1, hour) for hour in range(5)])
    assert decided([f"1/5/2026 {hour}:00 AM" for hour in range(1, 5)])[0] == "mdy"
    assert decided(["05.01.2026 10:00"] * 3)[::2] == ("dmy", "")  # with points the day comes first everywhere
    assert decided(["05.01.2026 10:00"] * 3, "mdy")[1][0] == at(2026, 5, 1, 10)
    assert decided(["05.13.2026", "05.14.2026"])[0] == "mdy"


def test_a_column_in_which_days_and_months_change_places_is_refused() -> None:
    with pytest.raises(ValueError, match="days and months change places"):
        decided(["13/01/2026", "01/14/2026", "02/03/2026"])


def test_digits_are_a_date_only_where_all_of_the_column_are() -> None:
    assert decided(["20260105100000", "20260105100001"])[0] == "compact"
    assert decided(["20260105", "20269999"])[0] == "unix"


def test_empty_cells_are_counted_and_sums_at_the_end_are_no_rows() -> None:
    times = Times()
    for line, cell in enumerate([*(f"{t}" for t in range(1000, 1020)), "", "Sum", "Mean"], 2):
        times.add(cell, line)
    _, found, _ = times.decide()
    assert (times.empty, times.footer, len(found)) == (3, 23, 23)


def test_text_among_times_is_named_with_its_line() -> None:
    with pytest.raises(ValueError, match="soon") as raised:
        decided(["1000", "soon", *["1001"] * 30])
    assert raised.value.args == (3, "soon")


def test_a_cell_is_read_as_its_column_was_decided() -> None:
    assert read("05/01/2026", "mdy") == at(2026, 5, 1)
    assert read(" ", "mdy") is None
    with pytest.raises(ValueError, match="soon"):
        read("soon", "iso")


@pytest.mark.parametrize(
    ("columns", "row", "found"),
    [
        (["a", "DATE_TIME"], ["1", "15-05-2020 00:00"], (1,)),
        (["_time", "a"], ["2026-01-05T10:00:00Z", "1"], (0,)),
        (["ds", "y"], ["2026-01-05", "1"], (0,)),
        (["last_changed", "state"], ["2026-01-05T10:00:00Z", "1"], (0,)),
        (["Time (UTC)", "a"], ["2026-01-05 10:00", "1"], (0,)),
        (["Datum", "Uhrzeit", "a"], ["05.01.2026", "10:00", "1"], (0, 1)),
        (["Time", "Date", "a"], ["18.00.00", "10/03/2004", "1"], (1, 0)),
        (["date", "time", "a"], ["2026-01-05 10:00", "1767607200", "1"], (1,)),
        (["时间", "温度"], ["2026-01-05 10:00", "1"], (0,)),
        (["column 1", "a"], ["2026-01-05 10:00:00", "1"], (0,)),  # by its cells
        (["flow", "runtime"], ["1", "2"], ()),
        (["time", "a"], ["0", "1"], (0,)),
    ],
)
def test_the_columns_of_the_time_are_found(columns: list[str], row: list[str], found: tuple[int, ...]) -> None:
    assert time_columns(columns, [row]) == found
