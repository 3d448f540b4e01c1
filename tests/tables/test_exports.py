"""Files in the form in which programs export them are read as they are: names, machines, times, interval and values.

The files in ``exports/`` are made: their form follows each program's documentation, their values are invented.
"""

from __future__ import annotations

import csv
import dataclasses
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from gon_edge.commands.main import main
from gon_edge.model.file import Model, save_model
from gon_edge.tables.grid import grid
from gon_edge.tables.layout import TableOptions
from gon_edge.tables.table import Table
from gon_edge.training.fit import fit_model

FOLDER = Path(__file__).parent / "exports"
JANUARY = datetime(2026, 1, 5, 10, tzinfo=UTC)
NAN = float("nan")


class Export(NamedTuple):
    """What one file holds: by machine its first and last row."""

    features: tuple[str, ...]
    begin: datetime
    interval_s: float
    rows: int
    ends: dict[str, tuple[list[float], list[float]]]
    said: str


EXPORTS = {
    "influxdb_annotated.csv": Export(
        ("usage_user", "n_users"),
        JANUARY,
        10.0,
        12,
        {"edge-1": ([12.5, 3.0], [15.25, 14.0]), "edge-2": ([62.5, 53.0], [65.25, 64.0])},
        "2 machines by host, readings by _field",
    ),
    "grafana_joined.csv": Export(
        ('{__name__="node_load1", instance="edge-1:9100"}', "humidity bath"),
        JANUARY,
        15.0,
        20,
        {"": ([0.5, 55.0], [0.69, 56.9])},
        "units: humidity bath in %",
    ),
    "grafana_series.csv": Export(
        ("cpu", "memory"), JANUARY, 30.0, 15, {"": ([20.0, 60.0], [23.5, 63.5])}, "readings by Series"
    ),
    "home_assistant_history.csv": Export(
        ("sensor.bath_temperature", "sensor.bath_humidity", "binary_sensor.bath_window"),
        JANUARY,
        60.0,
        26,
        {"": ([21.0, 55.0, 0.0], [23.4, 31.0, 0.0])},
        "no numbers in sun.sun",
    ),
    "excel_german.csv": Export(
        ("Vorlauf (°C)", "Leistung", "Zähler"),
        JANUARY,
        300.0,
        20,
        {"": ([60.0, 1100.5, 12000.0], [64.75, 20119.5, 12019.0])},
        "time from Zeitstempel (day first), cells cut by semicolons, decimal comma",
    ),
    "prometheus_query.csv": Export(
        ("node_cpu.user", "node_cpu.idle"),
        JANUARY,
        60.0,
        15,
        {"": ([10.0, 80.0], [11.75, 81.75])},
        "time from timestamp (Unix), readings by name, mode",
    ),
    "uci_air_quality.csv": Export(
        ("CO(GT)", "PT08.S1(CO)", "T"),
        datetime(2004, 3, 10, 18, tzinfo=UTC),
        3600.0,
        20,
        {"": ([2.0, 1360.0, 13.6], [3.9, 1303.0, 11.7])},
        "5 rows without a time left out",
    ),
    "kaggle_solar.csv": Export(
        ("PLANT_ID", "DC_POWER", "DAILY_YIELD"),
        datetime(2020, 5, 15, tzinfo=UTC),
        900.0,
        15,
        {
            "1BY6WEcLGh8j5v7": ([4135001.0, 100.0, 0.0], [4135001.0, 121.0, 140.0]),
            "1IF53ai7Xc0U56Y": ([4135001.0, 300.0, 0.0], [4135001.0, 321.0, 140.0]),
        },
        "time from DATE_TIME (day first), 2 machines by SOURCE_KEY",
    ),
    "mrtg.log": Export(
        ("column 2", "column 3", "column 4", "column 5"),
        JANUARY,
        300.0,
        20,
        {"": ([1000.0, 500.0, 1500.0, 900.0], [1019.0, 538.0, 1519.0, 938.0])},
        "cells cut by spaces, no header, newest first",
    ),
    "scada_trend.csv": Export(
        ("TI-101.PV", "PI-102.PV"),
        datetime(2026, 1, 11, 11, 30, tzinfo=UTC),
        600.0,
        20,
        {"": ([71.0, 1200.0], [74.8, 1228.5])},
        "2 lines before the table left out",
    ),
    "node_red.csv": Export(
        ("column 2", "column 3"),
        JANUARY,
        2.0,
        20,
        {"": ([20.0, 0.0], [21.9, 1.0])},
        "time from column 1 (Unix), no header",
    ),
    "prtg_historic.csv": Export(
        ("Ping Time", "Ping Time(RAW)", "Downtime"),
        datetime(2026, 1, 15, 18, 15, tzinfo=UTC),
        300.0,
        22,
        {"": ([33.0, 33.5, 0.0], [12.0, 12.5, 0.0])},
        "units: Ping Time in msec, Downtime in %",
    ),
}


def test_every_file_is_looked_at() -> None:
    assert {path.name for path in FOLDER.iterdir()} == set(EXPORTS)


@pytest.mark.parametrize("name", EXPORTS)
def test_an_export_is_read_as_it_is(name: str) -> None:
    expected = EXPORTS[name]
    with Table(str(FOLDER / name)) as table:
        rows = list(grid(table, table.features))
        assert (table.features, table.interval_s, set(table.streams)) == (
            expected.features,
            expected.interval_s,
            set(expected.ends),
        )
        said = "\n".join(table.said())
    assert expected.said in said
    assert ", 0 dropped" in said
    for machine, (first, last) in expected.ends.items():
        own = [row for row in rows if row.stream == machine]
        steps = expected.begin.timestamp() + expected.interval_s * np.arange(expected.rows)
        assert [row.at for row in own] == steps.tolist()
        np.testing.assert_allclose([own[0].values, own[-1].values], [first, last], rtol=1e-6)
        assert [row.restart for row in own] == [True] + [False] * (expected.rows - 1)


def test_values_that_are_missing_are_missing() -> None:
    def column(name: str, feature: str, **options: object) -> list[float]:
        with Table(str(FOLDER / name), TableOptions(**options)) as table:  # type: ignore[arg-type]
            return [float(row.values[0]) for row in grid(table, [feature])]

    assert np.flatnonzero(np.isnan(column("scada_trend.csv", "TI-101.PV"))).tolist() == [3]
    assert np.flatnonzero(np.isnan(column("home_assistant_history.csv", "sensor.bath_temperature"))).tolist() == [8]
    carbon = column("uci_air_quality.csv", "CO(GT)", missing=(-200.0,))
    assert np.flatnonzero(np.isnan(carbon)).tolist() == [4, 5, 9]


@pytest.fixture(scope="module")
def model() -> Model:
    """A model of two features, which each file lends its names."""
    rng = np.random.default_rng(0)
    return fit_model(rng.normal(20.0, 0.5, (200, 2)), features=["a", "b"], rng=rng)


@pytest.mark.parametrize("name", EXPORTS)
def test_an_export_is_scored_as_it_is(
    name: str, model: Model, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    expected = EXPORTS[name]
    save_model(dataclasses.replace(model, features=expected.features[:2]), tmp_path / "m.npz")
    arguments = ["score", str(FOLDER / name), "--model", str(tmp_path / "m.npz"), "-o", str(tmp_path / "scores.csv")]
    assert main(arguments) == 0
    with (tmp_path / "scores.csv").open(newline="") as file:
        scored = list(csv.DictReader(file))
    assert len(scored) == expected.rows * len(expected.ends)
    assert {row.get("stream", "") for row in scored} == set(expected.ends)
    assert all(float(row["score"]) >= 0.0 for row in scored)
    assert "cells read, 0 dropped" in capsys.readouterr().err
