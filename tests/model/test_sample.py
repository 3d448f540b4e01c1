"""What a model makes itself, and the command that shows it."""

from __future__ import annotations

import csv
import io
import struct
import zlib

import numpy as np
import pytest

from gon_edge.commands import main as cli
from gon_edge.errors import InputError
from gon_edge.events import Row
from gon_edge.model import sample
from gon_edge.model.file import save_model
from gon_edge.model.window import windows
from gon_edge.state.folder import ModelFolder
from gon_edge.state.store import Store
from gon_edge.training.fit import fit_model
from gon_edge.training.settings import FitSettings

FEATURES = ("celsius", "level")


def a_stream(rows=600):
    """Two modes, 20 and 60 degrees, and a level that is always twice the temperature."""
    rng = np.random.default_rng(1)
    celsius = np.where(np.arange(rows) // 150 % 2, 60.0, 20.0) + rng.normal(0, 0.5, rows)
    return np.column_stack([celsius, 2.0 * celsius + rng.normal(0, 0.5, rows)])


@pytest.fixture(scope="module")
def model():
    return fit_model(a_stream(), features=FEATURES, settings=FitSettings(window=15), rng=np.random.default_rng(0))


@pytest.fixture
def config(tmp_path, model):
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


def png_pixels(blob):
    """Pixels (P, Q, C) of a PNG as `png_bytes` writes them, read by the standard's rules."""
    assert blob[:8] == b"\x89PNG\r\n\x1a\n"
    at, body, header = 8, b"", None
    while at < len(blob):
        length, name = struct.unpack_from(">I4s", blob, at)
        content = blob[at + 8 : at + 8 + length]
        assert struct.unpack_from(">I", blob, at + 8 + length)[0] == zlib.crc32(name + content)
        header = struct.unpack(">IIBBBBB", content) if name == b"IHDR" else header
        body += content if name == b"IDAT" else b""
        at += 12 + length
    width, height, _, colour, *_ = header
    channels = {0: 1, 2: 3}[colour]
    rows = np.frombuffer(zlib.decompress(body), np.uint8).reshape(height, 1 + width * channels)
    assert not rows[:, 0].any()
    return rows[:, 1:].reshape(height, width, channels)


def test_generated_windows_look_as_normal_as_a_typical_one_and_are_not_all_alike(model):
    made = sample.generated_windows(model, 8, np.random.default_rng(0))
    net = model.discriminator
    abnormality = net.abnormality(net.energies(model.scaler.transform(made)))
    np.testing.assert_allclose(abnormality, model.typical, rtol=0.02)
    assert made[:, :, 0].mean(axis=1).std() > 5.0


def test_generated_windows_know_how_features_go_together(model):
    made = sample.generated_windows(model, 16, np.random.default_rng(0)).mean(axis=1)
    np.testing.assert_allclose(made[:, 1], 2.0 * made[:, 0], rtol=0.1)


def test_the_same_seed_gives_the_same_windows(model):
    first, second, other = (sample.generated_windows(model, 3, np.random.default_rng(seed)) for seed in (4, 4, 5))
    np.testing.assert_array_equal(first, second)
    assert not np.array_equal(first, other)


def test_real_windows_are_recorded_ones_and_none_reaches_across_a_restart(model):
    rows = a_stream(100)
    restart = np.zeros(100, np.bool_)
    restart[50] = True
    taken = sample.real_windows(model, rows, FEATURES, restart, 200, np.random.default_rng(0))
    recorded = windows(np.float32(rows), 15)
    whole = np.r_[14:50, 64:100]
    np.testing.assert_allclose(taken, recorded[whole], rtol=1e-4)


def test_real_windows_follow_the_models_order_of_features(model):
    rows = a_stream(40)
    swapped = sample.real_windows(
        model, rows[:, ::-1], FEATURES[::-1], np.zeros(40, np.bool_), 1, np.random.default_rng(0)
    )
    straight = sample.real_windows(model, rows, FEATURES, np.zeros(40, np.bool_), 1, np.random.default_rng(0))
    np.testing.assert_array_equal(swapped, straight)


@pytest.mark.parametrize(("rows", "features", "says"), [(10, FEATURES, "wait"), (40, ("celsius", "other"), "level")])
def test_too_few_rows_and_missing_features_are_said(model, rows, features, says):
    with pytest.raises(InputError, match=says):
        sample.real_windows(model, a_stream(rows), features, np.zeros(rows, np.bool_), 2, np.random.default_rng(0))


@pytest.mark.parametrize("shape", [(5, 7), (4, 3, 3)])
def test_a_png_holds_the_pixels_it_was_given(shape):
    pixels = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    np.testing.assert_array_equal(png_pixels(sample.png_bytes(pixels)), pixels.reshape(*shape[:2], -1))


def test_a_picture_has_a_real_and_a_generated_line_for_each_feature(model):
    real = np.zeros((2, 15, 2)) + np.arange(15)[:, None]
    pixels = png_pixels(sample.picture(model, real, real[:1], title="stream pump")).astype(int)
    is_blue = (pixels[..., 2] > 150) & (pixels[..., 0] < 60)
    is_grey = (pixels == 70).all(axis=2)
    assert is_blue.any()
    assert is_grey.any()
    assert np.flatnonzero(is_blue.any(axis=0)).min() > np.flatnonzero(is_grey.any(axis=0)).max()


def test_a_picture_of_many_features_shows_those_that_move_most():
    names = tuple(f"f{i}" for i in range(40))
    rows = np.random.default_rng(0).normal(size=(200, 40))
    model = fit_model(rows, features=names, settings=FitSettings(window=5), rng=np.random.default_rng(0))
    real = np.zeros((1, 5, 40))
    real[:, 2, 7] = 50.0
    assert png_pixels(sample.picture(model, real, real)).shape[0] < sample.MOST_FEATURES * 60


def test_the_command_writes_a_picture_and_a_table_of_both_kinds(config, tmp_path, capsys):
    png, table = tmp_path / "pump.png", tmp_path / "pump.csv"
    assert cli.main(["sample", "pump", "--config", config, "--n", "3", "--png", str(png), "--csv", str(table)]) == 0
    assert png_pixels(png.read_bytes()).size
    lines = list(csv.DictReader(io.StringIO(table.read_text())))
    assert [(line["kind"], line["window"]) for line in lines[::15]] == [
        (kind, str(i)) for kind in ("real", "generated") for i in range(3)
    ]
    assert all(float(line["celsius"]) for line in lines)
    assert capsys.readouterr().out == ""


def test_without_a_file_the_command_prints_what_both_kinds_are_like(config, capsys):
    assert cli.main(["sample", "pump", "--config", config]) == 0
    out = capsys.readouterr().out.splitlines()
    assert out[0].startswith("FEATURE")
    assert [line.split()[0] for line in out[1:]] == list(FEATURES)


def test_a_stream_without_a_model_is_named_with_those_that_have_one(config, capsys):
    assert cli.main(["sample", "pmup", "--config", config]) == 66
    assert "there are: pump" in capsys.readouterr().err


def test_a_place_that_cannot_be_written_is_said(config, capsys):
    assert cli.main(["sample", "pump", "--config", config, "--png", "/nonexistent/x.png"]) == 73
    assert "cannot be written" in capsys.readouterr().err
