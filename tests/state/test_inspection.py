"""Models checked, compared and put in place."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from gon_edge.commands.main import main
from gon_edge.errors import InputError, ModelFileError
from gon_edge.model.daily import SUFFIX
from gon_edge.model.file import Model, dumps, load_model, save_model
from gon_edge.model.quantize import QuantizedLinear
from gon_edge.state.catalog import find, shipped_models
from gon_edge.state.inspection import differences, import_model, verify
from gon_edge.training.fit import fit_model

GOLDEN = Path(__file__).parents[1] / "golden" / "pump.npz"


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    status = main(["models", *map(str, arguments)])
    return status, *capsys.readouterr()


# -- whether it works --------------------------------------------------------------------------------------------------


def failing(path: Path) -> set[str]:
    return {check.name for check in verify(path) if not check.passed}


def test_a_good_model_passes(tmp_path: Path, model: Model) -> None:
    save_model(model, tmp_path / "m.npz")
    assert failing(tmp_path / "m.npz") == set()


def test_each_kind_of_damage_fails_its_check(tmp_path: Path, model: Model) -> None:
    net, file = model.discriminator, tmp_path / "m.npz"
    small = [QuantizedLinear((s.weight.values // 4).astype(np.int8), s.weight.step) for s in net.scales]
    weak = [replace(scale, weight=weight) for scale, weight in zip(net.scales, small, strict=True)]
    lost = [replace(scale, gain=np.full_like(scale.gain, np.nan)) for scale in net.scales]
    wrong = [
        ("format", replace(model, threshold=float("nan"))),
        ("format", replace(model, discriminator=type(net)(lost, net.features, net.bias))),
        ("int8", replace(model, discriminator=type(net)(weak, net.features, net.bias))),
        ("scores", replace(model, threshold=1e9)),
    ]
    for check, broken in wrong:
        save_model(broken, file)
        assert check in failing(file)
    blob = bytearray(dumps(model))
    blob[len(blob) // 2] ^= 1
    file.write_bytes(blob)
    assert failing(file) == {"format"}


def test_another_file_in_the_place_of_a_shipped_one_is_noticed(tmp_path: Path, model: Model) -> None:
    (shipped, *_) = shipped_models()
    file = tmp_path / "m.npz"
    save_model(model, file)
    checks = {check.name: check.passed for check in verify(file, shipped)}
    assert (checks["sha256"], checks["format"]) == (False, True)
    with pytest.raises(ModelFileError, match="SHA-256"):
        replace(shipped, path=file).load()


def test_differences_are_by_feature_and_in_deviations(model: Model) -> None:
    rng = np.random.default_rng(0)
    rows = rng.normal([20.0, 3.0], [1.0, 0.1], (400, 2))
    a = fit_model(rows, features=["flow", "pressure"], rng=np.random.default_rng(0))
    b = fit_model(rows + [2.0, 0.0], features=["flow", "pressure"], rng=np.random.default_rng(0))  # noqa: RUF005
    found = differences(a, b)
    assert (found["features"][0]["feature"], found["equal"]) == ("flow", False)
    assert found["features"][0]["moved_deviations"] == pytest.approx(2.0, abs=0.2)
    assert abs(found["features"][1]["moved_deviations"]) < 0.05
    assert differences(a, a)["equal"]
    other = differences(a, model)
    assert (other["features_added"], other["features_removed"]) == (["current"], [])
    json.dumps(other)


# -- putting one in place ----------------------------------------------------------------------------------------------


def test_an_import_is_the_newest_version_and_a_rollback_undoes_it(
    state: Path, tmp_path: Path, model: Model, capsys: pytest.CaptureFixture[str]
) -> None:
    save_model(replace(model, threshold=9.0).with_lineage(version="41"), tmp_path / "other.npz")
    status, out, _ = run(capsys, "import", "pump", tmp_path / "other.npz", "--state-dir", state)
    assert (status, "version 3" in out, "none runs here" in out) == (0, True, True)
    current = find("pump", state).model
    assert (current.threshold, current.version, current.lineage["parent"]) == (9.0, "3", "2")
    assert current.lineage["imported_version"] == "41"
    status, out, _ = run(capsys, "rollback", "pump", "--state-dir", state)
    assert (status, find("pump", state).model.threshold) == (0, 4.0)
    status, out, _ = run(capsys, "rollback", "pump", "1", "--state-dir", state)
    assert (status, find("pump", state).model.version) == (0, "1")


def test_an_import_with_other_features_needs_force(state: Path, tmp_path: Path) -> None:
    rows = np.random.default_rng(0).normal(size=(300, 2))
    other = fit_model(rows, features=["flow", "colour"], rng=np.random.default_rng(0))
    save_model(other, tmp_path / "other.npz")
    found = find(str(tmp_path / "other.npz"))
    with pytest.raises(InputError, match="other features than version 2 of stream 'pump': colour, current, pressure"):
        import_model(found, "pump", state)
    assert find("pump", state).model.version == "2"
    assert import_model(found, "pump", state, force=True).version == "3"


def test_an_import_that_compares_the_same_readings_with_other_days_needs_no_force(state: Path, tmp_path: Path) -> None:
    readings = find("pump", state).model.features
    names = [*readings, *(name + SUFFIX for name in readings)]
    rows = np.random.default_rng(0).normal(size=(300, len(names)))
    save_model(fit_model(rows, features=names, rng=np.random.default_rng(0)), tmp_path / "daily.npz")
    assert import_model(find(str(tmp_path / "daily.npz")), "pump", state).readings == readings


def test_a_damaged_model_and_one_of_changes_only_are_not_imported(state: Path, tmp_path: Path, model: Model) -> None:
    save_model(replace(model, threshold=1e9), tmp_path / "deaf.npz")
    with pytest.raises(ModelFileError, match="scores: mean rows score"):
        import_model(find(str(tmp_path / "deaf.npz")), "pump", state)
    with pytest.raises(InputError, match=r"write it as streams\.overrides\.pump\.model"):
        import_model(find("shipped:host"), "pump", state)
    assert find("pump", state).model.version == "2"


def test_an_export_is_the_same_model_and_replaces_what_is_there(
    state: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out.npz"
    out.write_text("old")
    status, _, words = run(capsys, "export", "pump@1", out, "--state-dir", state)
    assert (status, "stream:pump@1" in words) == (0, True)
    assert dumps(load_model(out)) == dumps(find("pump@1", state).model)
    assert [file.name for file in tmp_path.iterdir() if file.is_file()] == ["out.npz"]
    status, _, words = run(capsys, "export", "pump", tmp_path / "none" / "out.npz", "--state-dir", state)
    assert (status, "cannot be written: No such file" in words) == (73, True)
