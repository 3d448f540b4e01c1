"""Which models there are, which one is meant, and what is wrong with one: on real files."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from gon_edge.commands.main import main
from gon_edge.config.file import parse_config
from gon_edge.errors import ConfigError, InputError, ModelFileError
from gon_edge.model.file import Model, dumps, load_model, save_model
from gon_edge.model.quantize import QuantizedLinear
from gon_edge.state import catalog
from gon_edge.state.catalog import differences, find, import_model, shipped_folder, shipped_models, verify
from gon_edge.state.folder import ModelFolder
from gon_edge.training.fit import fit_model

GOLDEN = Path(__file__).parents[1] / "golden" / "pump.npz"


@pytest.fixture(scope="module")
def model() -> Model:
    return load_model(GOLDEN)


@pytest.fixture
def state(tmp_path: Path, model: Model) -> Path:
    """A state directory with two versions of "pump", and a stream that is named like a shipped model."""
    folder = ModelFolder(tmp_path / "state")
    folder.install("pump", model.with_lineage(version="1", rows=600, trained_at=1_700_000_000.0))
    folder.install("pump", replace(model, threshold=4.0).with_lineage(version="2", rows=900, parent="1"))
    folder.install("host", model.with_lineage(version="1"))
    return tmp_path / "state"


@pytest.fixture
def no_cache() -> Iterator[None]:
    catalog.starters.cache_clear()
    yield
    catalog.starters.cache_clear()


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    status = main(["models", *map(str, arguments)])
    return status, *capsys.readouterr()


# -- which one is meant ------------------------------------------------------------------------------------------------


def test_a_name_a_version_and_a_file_are_found(state: Path) -> None:
    assert find("motes").label == "shipped:motes"
    assert find("pump", state).label == "stream:pump@2"
    assert find("pump@1", state).model.threshold != find("pump@2", state).model.threshold == 4.0
    assert find("stream:host", state).label == "stream:host@1"
    assert find("shipped:host", state).label == "shipped:host"
    assert find(str(GOLDEN)).model.features == ("flow", "pressure", "current")


@pytest.mark.parametrize(
    ("reference", "words"),
    [
        ("host", "write shipped:host or stream:host"),
        ("pomp", "no model 'pomp'; shipped ones: cloud-cpu, host, motes, server; streams in "),
        ("pump@7", "has no version 7; there are: 2, 1"),
        ("stream:pomp", "no stream 'pomp' has a model"),
        ("shipped:pump", "no shipped model 'pump'; there are: cloud-cpu"),
    ],
)
def test_what_cannot_be_found_is_said_with_what_there_is(state: Path, reference: str, words: str) -> None:
    with pytest.raises(InputError, match=re.escape(words)):
        find(reference, state)


def test_a_stream_name_may_hold_an_at_sign(state: Path, model: Model) -> None:
    ModelFolder(state).install("pump@1", model.with_lineage(version="5"))
    assert find("pump@1", state).label == "stream:pump@1@5"
    assert find("stream:pump@1@5", state).label == "stream:pump@1@5"


def test_a_stream_needs_a_state_directory() -> None:
    with pytest.raises(InputError, match="--config FILE or --state-dir DIR"):
        find("stream:pump")


def test_a_damaged_index_is_named(tmp_path: Path) -> None:
    (tmp_path / "index.json").write_text("{}")
    with pytest.raises(ModelFileError, match=r"index\.json: is not the list of shipped models"):
        shipped_models(tmp_path)


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


# -- the command -------------------------------------------------------------------------------------------------------


def test_the_list_marks_the_version_in_use(state: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = run(capsys, "list", "--state-dir", state)
    lines = {tuple(line.split()[:3]) for line in out.splitlines()}
    assert status == 0
    assert ("pump", "2", "in") in lines
    assert not {("pump", "1", "in")} & lines
    assert "host     yes" in out.replace("host       yes", "host     yes")
    status, out, _ = run(capsys, "list", "--state-dir", state, "--json")
    listed = json.loads(out)
    assert [v["current"] for v in listed["streams"]["pump"]] == [True, False]
    assert {m["name"] for m in listed["shipped"]} == {m.name for m in shipped_models()}


def test_show_prints_the_lineage(state: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = run(capsys, "show", "pump@1", "--state-dir", state)
    shown = dict(line.split(None, 1) for line in out.splitlines())
    assert (status, shown["rows"], shown["version"]) == (0, "600", "1")
    assert shown["trained_at"] == "2023-11-14 22:13 UTC"
    status, out, _ = run(capsys, "show", "motes", "--json")
    model = json.loads(out)
    assert len(model["features"]) == 8
    assert model["lineage"]["licence"]


def test_verify_fails_for_one_bad_model_among_good_ones(
    state: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(capsys, "verify")[0] == 0
    files = list((state / "models").glob("*/model*.npz"))
    assert len(files) >= 3
    assert run(capsys, "verify", "--state-dir", state)[1].count("ok ") == len(shipped_models()) + len(files)
    files[0].write_bytes(files[0].read_bytes()[:-100])
    status, out, _ = run(capsys, "verify", "--state-dir", state)
    assert (status, out.count("BAD ")) == (1, 1)
    bad = tmp_path / "bad.npz"
    bad.write_bytes(b"PK")
    status, out, _ = run(capsys, "verify", "motes", bad)
    assert (status, out.splitlines()[0][:3], out.splitlines()[1][:3]) == (1, "ok ", "BAD")
    status, out, _ = run(capsys, "verify", bad, "--json")
    assert (status, json.loads(out)[0]["checks"][0]["passed"]) == (1, False)


def test_diff_of_two_versions_says_what_changed(state: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = run(capsys, "diff", "pump@1", "pump", "--state-dir", state)
    assert status == 0
    assert [line.split() for line in out.splitlines() if line.startswith("rows")] == [["rows", "600", "900"]]
    assert (
        run(capsys, "diff", "pump", "pump@2", "--state-dir", state)[1] == "stream:pump@2 and stream:pump@2 are equal\n"
    )


def test_score_takes_the_name_of_a_shipped_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    features = find("motes").model.features
    means = find("motes").model.scaler.mean
    lines = [",".join(features), *[",".join(f"{m:.3f}" for m in means)] * 50]
    (tmp_path / "motes.csv").write_text("\n".join(lines))
    assert main(["score", "--model", "motes", str(tmp_path / "motes.csv")]) == 0
    out, words = capsys.readouterr()
    assert len(out.splitlines()) == 51
    assert "50 rows, 0 of them anomalous" in words


@pytest.mark.parametrize("level", [4.0, 80.0])
def test_score_judges_relative_features_from_the_first_row_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], level: float
) -> None:
    lines = ["cpu.total,memory.used_percent", *[f"3.0,{level}"] * 40, *[f"100.0,{level + 15}"] * 5]
    (tmp_path / "host.csv").write_text("\n".join(lines))
    assert main(["score", "--model", "host", str(tmp_path / "host.csv")]) == 0
    found = "".join(line.split(",")[3] for line in capsys.readouterr().out.splitlines()[1:])
    assert found[:40] == 40 * "0"
    assert found[-3:] == "111"
    (tmp_path / "host.csv").write_text("cpu.total,memory.used_percent\n3.0,\n")
    assert main(["score", "--model", "host", str(tmp_path / "host.csv")]) == 66
    assert "the first row has no value of memory.used_percent" in capsys.readouterr().err


# -- starters ----------------------------------------------------------------------------------------------------------


def test_a_configuration_that_names_no_model_there_is_is_an_error_with_its_key(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], no_cache: None
) -> None:
    config = tmp_path / "c.yaml"
    text = "mqtt: {url: mqtt://localhost:1}\nsubscriptions: [{topic: 'telemetry/{stream}'}]\n"
    config.write_text(text + "streams: {overrides: {pump: {model: pomp}}}\n")
    assert main(["check-config", str(config)]) == 78
    words = capsys.readouterr().err
    assert "c.yaml: streams.overrides.pump.model: no model 'pomp'; shipped ones: cloud-cpu" in words
    config.write_text(text + f"streams: {{overrides: {{pump: {{model: {GOLDEN}}}}}, defaults: {{model: none}}}}\n")
    assert main(["check-config", str(config)]) == 0


def test_a_damaged_starter_nobody_named_does_not_keep_the_daemon_from_starting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_cache: None
) -> None:
    folder = shipped_folder()
    assert folder is not None
    for file in folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes() if file.suffix != ".npz" else b"damaged")
    monkeypatch.setattr(catalog, "shipped_folder", lambda: tmp_path)
    assert catalog.starters(None) == ()
    with pytest.raises(ModelFileError):
        catalog.starters("host")
    mqtt = {"mqtt": {"url": "mqtt://h"}, "subscriptions": [{"topic": "t/{stream}"}]}
    config = parse_config({**mqtt, "streams": {"defaults": {"model": "host"}}})
    with pytest.raises(ConfigError, match=r"streams\.defaults\.model"):
        catalog.check_starters(config)


def test_the_daemon_does_not_load_what_only_commands_need() -> None:
    code = (
        "import sys, gon_edge.daemon.app; "
        "sys.exit(bool({'gon_edge.commands.text', 'gon_edge.links.client'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=60).returncode == 0
