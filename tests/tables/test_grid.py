"""Rows of tables for a model: wide ones as they are, readings of long ones held until the next."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import pytest

from gon_edge.errors import InputError
from gon_edge.tables.grid import GridRow, grid
from gon_edge.tables.layout import TableOptions
from gon_edge.tables.table import Table


def rows(path: str, names: Sequence[str] | None = None, **options: object) -> list[GridRow]:
    with Table(path, TableOptions(**options)) as table:  # type: ignore[arg-type]
        return list(grid(table, names or table.features))


def test_rows_of_a_wide_table_stand_where_they_are_and_begin_anew_after_a_gap(csv: Callable[..., str]) -> None:
    times = [*range(0, 600, 60), *range(1200, 1500, 60)]
    found = rows(csv("time,b,a", *(f"{t},{t},{2 * t}" for t in times)), ["a", "b"])
    assert [row.at for row in found] == times
    assert [row.at for row in found if row.restart] == [0, 1200]
    assert found[3].values.tolist() == [360.0, 180.0]


def test_a_row_at_the_time_of_the_one_before_is_left_out_and_text_is_counted(csv: Callable[..., str]) -> None:
    found = rows(csv("time,a", "1,1", "2,x", "2,3", "3,4"))
    assert [(row.at, row.texts) for row in found] == [(1.0, 0), (2.0, 1), (3.0, 0)]


def test_rows_without_times_are_counted(csv: Callable[..., str]) -> None:
    assert [(row.at, row.restart) for row in rows(csv("a", "5", "6", "7"))] == [(0.0, True), (1.0, False), (2.0, False)]


def test_readings_of_a_long_table_hold_as_a_naive_reader_would_hold_them(csv: Callable[..., str]) -> None:
    rng = np.random.default_rng(0)
    readings = [(10.0 * i + float(rng.uniform(0, 3)), "fast", i) for i in range(40)]
    readings += [(35.0 * i + float(rng.uniform(0, 3)), "slow", 100 + i) for i in range(11)]
    lines = [f"{at:.3f},{name},{value}" for at, name, value in sorted(readings, key=lambda one: one[1])]
    found = rows(csv("time,sensor,value", *lines))
    assert np.diff([row.at for row in found]).tolist() == [10.0] * (len(found) - 1)
    for row in found:
        for column, name in enumerate(("fast", "slow")):
            before = [(at, value) for at, one, value in readings if one == name and round(at, 3) <= row.at]
            expected = max(before)[1] if before else math.nan
            assert row.values[column] == expected or (math.isnan(expected) and math.isnan(row.values[column]))
    assert [row.restart for row in found] == [True, *[False] * (len(found) - 1)]


def test_machines_of_a_long_table_have_rows_each(csv: Callable[..., str]) -> None:
    lines = [f"{t},{host},a,{t + shift}" for host, shift in (("x", 0), ("y", 100)) for t in range(0, 50, 10)]
    found = rows(csv("time,host,metric,value", *lines))
    for host, shift in (("x", 0), ("y", 100)):
        own = [row for row in found if row.stream == host]
        assert [row.values[0] for row in own] == [t + shift for t in range(0, 50, 10)]
        assert [row.restart for row in own] == [True, False, False, False, False]


def test_few_readings_over_years_are_no_table(csv: Callable[..., str]) -> None:
    lines = [*(f"{t},a,1" for t in range(10)), "1767607200,a,2"]
    with pytest.raises(InputError, match="too far apart for rows every 1 s"):
        rows(csv("time,metric,value", *lines))
