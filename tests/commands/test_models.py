"""`gon-edge models`: what is listed, shown, verified and compared."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from storing import state_with_models

from gon_edge.commands.main import main
from gon_edge.model.file import Model, load_model, save_model
from gon_edge.state import catalog
from gon_edge.state.catalog import find, shipped_models

GOLDEN = Path(__file__).parents[1] / "golden" / "pump.npz"


@pytest.fixture(scope="module")
def model() -> Model:
    return load_model(GOLDEN)


@pytest.fixture
def state(tmp_path: Path, model: Model) -> Path:
    return state_with_models(tmp_path / "state", model)


@pytest.fixture
def no_cache() -> Iterator[None]:
    catalog.starters.cache_clear()
    yield
    catalog.starters.cache_clear()


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    status = main(["models", *map(str, arguments)])
    return status, *capsys.readouterr()


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


def test_one_model_of_the_year_10000_costs_the_list_that_model_and_no_other(
    state: Path, model: Model, capsys: pytest.CaptureFixture[str]
) -> None:
    # Its date ended models list for every stream, with a traceback.
    odd = state / "models" / "odd" / "model.npz"
    save_model(model.with_lineage(version="1", trained_at=1e300), odd)
    status, out, _ = run(capsys, "list", "--state-dir", state)
    assert (status, "pump" in out, "odd" in out) == (0, True, False)
    status, _, said = run(capsys, "show", odd)
    assert status == 78
    assert "lineage.trained_at is 1e+300, not a time" in said
    assert said.count("\n") == 1


def test_show_prints_the_smallest_fault_that_raises_an_alert(
    tmp_path: Path, model: Model, capsys: pytest.CaptureFixture[str]
) -> None:
    detects = {
        "offset up": {"flow": [1.0, 2.1, 5], "pressure": [2.0, 0.31, 3]},
        "offset down": {"flow": [2.0, 4.2, 6], "pressure": None},
        "frozen": {"flow": None, "pressure": [None, None, 12]},
    }
    state = state_with_models(tmp_path / "state", model.with_lineage(detects=detects))
    status, out, _ = run(capsys, "show", "pump@1", "--state-dir", state)
    table = [" ".join(line.split()) for line in out.splitlines()[-3:]]
    assert status == 0
    assert table == [
        "FEATURE OFFSET UP OFFSET DOWN FROZEN",
        "flow +2.1 in 5 -4.2 in 6 no",
        "pressure +0.31 in 3 no in 12",
    ]
    strange = state_with_models(tmp_path / "strange", model.with_lineage(detects={"offset up": 7}))
    status, out, _ = run(capsys, "show", "pump@1", "--state-dir", strange)
    assert (status, "smallest fault" in out) == (0, False)


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
