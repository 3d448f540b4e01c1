"""The same hour on earlier days: from the rows of those hours alone, whatever the features were then."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from gon_edge.events import Row
from gon_edge.state import rows as stored_rows
from gon_edge.state.days import DAY_S, MOST_DAYS, earlier_days
from gon_edge.state.store import Store

BEGIN = 1_500_000_000.0
GRID = {"bucket_s": 60.0, "buckets": 10}


def write(folder: Path, rows: list[Row]) -> None:
    with Store.open(folder) as store:
        for row in rows:
            store.add_row(row, True, now=0.0)
        assert store.flush(1.0)


def row(at: float, **values: float) -> Row:
    return Row("pump", at, tuple(values), np.float32(list(values.values())), np.zeros(len(values), np.bool_))


def test_each_earlier_day_gives_the_mean_of_each_minute(tmp_path: Path) -> None:
    days = [
        row(BEGIN - DAY_S * ago + at, flow=float(value), power=1.0)
        for ago in (9, 3, 1)
        for at, value in ((-1.0, 99.0), (0.0, ago), (30.0, ago + 1), (119.0, 7.0), (600.0, 99.0))
    ]
    write(tmp_path, [*days, row(BEGIN, flow=50.0, power=2.0)])
    with Store.open(tmp_path, read_only=True) as store:
        found = earlier_days(store, "pump", ("power", "flow", "unknown"), BEGIN, **GRID)
    assert list(found) == [1, 3]
    np.testing.assert_equal(found[3][:3], [[1.0, 3.5, np.nan], [1.0, 7.0, np.nan], [np.nan] * 3])
    assert np.isnan(found[1][2:]).all()


def test_a_feature_is_found_where_the_row_had_others(tmp_path: Path) -> None:
    write(tmp_path, [row(BEGIN - 2 * DAY_S, flow=1.0), row(BEGIN - DAY_S, power=3.0, flow=2.0)])
    with Store.open(tmp_path, read_only=True) as store:
        found = earlier_days(store, "pump", ("flow",), BEGIN, **GRID)
        nobody = earlier_days(store, "fan", ("flow",), BEGIN, **GRID)
    assert {ago: values[0, 0] for ago, values in found.items()} == {1: 2.0, 2: 1.0}
    assert nobody == {}


def test_of_a_long_history_only_the_hours_that_are_asked_for_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, [row(BEGIN - 60.0 * minute, flow=1.0) for minute in range(30 * 24 * 60, 0, -1)])
    read = []
    decode = stored_rows.decode
    monkeypatch.setattr(stored_rows, "decode", lambda *chunk: read.append(1) or decode(*chunk))
    with Store.open(tmp_path, read_only=True) as store:
        found = earlier_days(store, "pump", ("flow",), BEGIN, **GRID)
    assert list(found) == list(range(1, MOST_DAYS + 1))
    assert len(read) <= 2 * MOST_DAYS  # of 43 chunks


def test_a_look_that_has_taken_enough_gives_the_nearest_days(tmp_path: Path) -> None:
    for ago in (3, 2, 1):
        write(tmp_path, [row(BEGIN - DAY_S * ago, flow=float(ago))])
    looks = iter((False, False, True))
    with Store.open(tmp_path, read_only=True) as store:
        found = earlier_days(store, "pump", ("flow",), BEGIN, enough=lambda: next(looks), **GRID)
    assert list(found) == [1, 2]
