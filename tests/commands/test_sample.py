"""What ``gon-edge sample`` shows: a table, CSV and a picture of recorded windows and windows of the model."""

from __future__ import annotations

import csv
import io
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from gon_edge.commands import figure
from gon_edge.commands import main as cli
from gon_edge.commands.sample import MOST_FEATURES, picture
from gon_edge.events import Row
from gon_edge.model.file import Model, save_model
from gon_edge.state.folder import ModelFolder
from gon_edge.state.store import Store
from gon_edge.training.fit import fit_model
from gon_edge.training.settings import FitSettings

Image = pytest.importorskip("PIL.Image")

FEATURES = ("celsius", "level")


def a_stream(rows: int = 600) -> np.ndarray:
    """Two modes, 20 and 60 degrees, and a level that is always twice the temperature."""
    rng = np.random.default_rng(1)
    celsius = np.where(np.arange(rows) // 150 % 2, 60.0, 20.0) + rng.normal(0, 0.5, rows)
    return np.column_stack([celsius, 2.0 * celsius + rng.normal(0, 0.5, rows)])


@pytest.fixture(scope="module")
def model() -> Model:
    return fit_model(a_stream(), features=FEATURES, settings=FitSettings(window=15), rng=np.random.default_rng(0))


@pytest.fixture
def config(tmp_path: Path, model: Model) -> str:
    """A state directory as the daemon leaves it, and the configuration that names it."""
    with Store.open(tmp_path / "state") as store:
        for t, values in enumerate(a_stream()):
            store.add_row(Row("pump", float(t), FEATURES, np.float32(values), np.zeros(2, np.bool_)), False, float(t))
        store.flush(1000.0)
    save_model(model.with_lineage(version="3"), ModelFolder(tmp_path / "state").file("pump"))
    file = tmp_path / "gon-edge.yaml"
    file.write_text(
        f"state_dir: {tmp_path / 'state'}\nmqtt: {{url: mqtt://x}}\nsubscriptions: [{{topic: 't/{{stream}}'}}]\n"
    )
    return str(file)


def pixels(png: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB")).astype(int)


def where(shown: np.ndarray, colour: str) -> np.ndarray:
    """Columns of pixels that hold a colour, most of it not softened at an edge."""
    wanted = [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
    return np.flatnonzero((abs(shown - wanted) <= 2).all(axis=2).any(axis=0))


def test_a_picture_has_recorded_windows_on_the_left_and_the_models_on_the_right(model: Model):
    real = np.zeros((2, 15, 2)) + np.arange(15)[:, None]
    shown = pixels(picture(model, real, real[:1], title="stream pump"))[150:]  # below the headings
    middle = shown.shape[1] // 2
    assert where(shown, figure.LIGHT["expected"]).min() > middle
    assert where(shown, figure.LIGHT["soft"])[-1] > 0.4 * middle
    lines = where(shown[:, :middle], figure.LIGHT["soft"])
    assert len(lines) > 50


def test_a_picture_of_many_features_and_windows_shows_those_that_move_most_and_stays_small():
    names = tuple(f"f{i}" for i in range(40))
    rows = np.random.default_rng(0).normal(size=(200, 40))
    model = fit_model(rows, features=names, settings=FitSettings(window=5), rng=np.random.default_rng(0))
    real = np.zeros((60, 5, 40))
    real[:, 2, 7] = 50.0
    tall, wide, _ = pixels(picture(model, real, real)).shape
    assert tall < 2 * (100 + 60 * MOST_FEATURES)
    assert wide < 5000


def test_the_command_writes_a_picture_and_a_table_of_both_kinds(config: str, tmp_path: Path, capsys):
    png, table = tmp_path / "pump.png", tmp_path / "pump.csv"
    assert cli.main(["sample", "pump", "--config", config, "--n", "3", "--png", str(png), "--csv", str(table)]) == 0
    assert pixels(png.read_bytes()).size
    lines = list(csv.DictReader(io.StringIO(table.read_text())))
    assert [(line["kind"], line["window"]) for line in lines[::15]] == [
        (kind, str(i)) for kind in ("real", "generated") for i in range(3)
    ]
    assert all(float(line["celsius"]) for line in lines)
    assert capsys.readouterr().out == ""


def test_without_a_file_the_command_prints_what_both_kinds_are_like(config: str, capsys):
    assert cli.main(["sample", "pump", "--config", config]) == 0
    out = capsys.readouterr().out.splitlines()
    assert out[0].startswith("FEATURE")
    assert [line.split()[0] for line in out[1:]] == list(FEATURES)


def test_a_stream_without_a_model_is_named_with_those_that_have_one(config: str, capsys):
    assert cli.main(["sample", "pmup", "--config", config]) == 66
    assert "there are: pump" in capsys.readouterr().err


def test_a_place_that_cannot_be_written_is_said(config: str, capsys):
    assert cli.main(["sample", "pump", "--config", config, "--png", "/nonexistent/x.png"]) == 73
    assert "cannot be written" in capsys.readouterr().err


WITHOUT_MATPLOTLIB = """
import sys
sys.modules["matplotlib"] = sys.modules["jinja2"] = None  # an import of None fails
from gon_edge.commands.main import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.parametrize(("more", "status"), [([], 0), (["--csv", "-"], 0), (["--png", "x.png", "--csv", "x.csv"], 69)])
def test_only_the_picture_needs_matplotlib(config: str, tmp_path: Path, more: list[str], status: int):
    command = [sys.executable, "-c", WITHOUT_MATPLOTLIB, "sample", "pump", "--config", config, *more]
    run = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=60, check=False)
    assert run.returncode == status, run.stderr
    assert len(run.stderr.splitlines()) == (status > 0)
    assert not (tmp_path / "x.csv").exists()
