"""The models of streams on the disk: versions, rollbacks, damage and power cuts."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from gon_edge.errors import ModelFileError
from gon_edge.model.file import Model, dumps, load_model
from gon_edge.state.folder import VERSIONS_KEPT, ModelFolder
from gon_edge.training.fit import fit_model
from gon_edge.training.settings import FitSettings


@pytest.fixture(scope="module")
def model() -> Model:
    rng = np.random.default_rng(0)
    settings = FitSettings(window=5, hidden=2, prototypes=1)
    return fit_model(rng.normal(size=(100, 2)), settings=settings, rng=rng)


def of(model: Model, version: int, parent: int | None = None) -> Model:
    parent = version - 1 if parent is None else parent
    return model.with_lineage(version=str(version), parent=str(parent) if parent else "", trained_at=100.0 * version)


def named(models: ModelFolder) -> list[str]:
    return [f"{found.version}{'*' if found.current else ''}" for found in models.versions("pump")]


def test_the_last_versions_are_kept_with_their_lineage(tmp_path: Path, model: Model) -> None:
    models = ModelFolder(tmp_path)
    assert models.versions("pump") == ()
    for version in range(1, 13):
        models.install("pump", of(model, version))
    assert named(models) == ["12*", "11", "10", "9", "8"]
    assert len(models.versions("pump")) == VERSIONS_KEPT
    newest = models.versions("pump")[0]
    assert newest.lineage["trained_at"] == 1200.0
    assert newest.bytes == newest.path.stat().st_size > 1000
    assert models.load("pump", "9")[0].version == "9"  # type: ignore[union-attr]
    assert models.load("pump", "3") == (None, "")
    assert models.streams() == ["pump"]


def test_a_rollback_goes_to_the_model_that_was_replaced(tmp_path: Path, model: Model) -> None:
    models = ModelFolder(tmp_path)
    for version in (1, 2, 3):
        models.install("pump", of(model, version))
    assert models.rollback("pump").version == "2"
    assert named(models) == ["3", "2*", "1"]
    models.install("pump", of(model, 4, parent=2))
    assert models.rollback("pump").version == "2"
    assert models.rollback("pump").version == "1"
    assert models.rollback("pump", "3").version == "3"
    assert models.load("pump")[0].version == "3"  # type: ignore[union-attr]
    assert named(models) == ["4", "3*", "2", "1"]


def test_a_rollback_to_nowhere_names_what_there_is(tmp_path: Path, model: Model) -> None:
    models = ModelFolder(tmp_path)
    with pytest.raises(ModelFileError, match="there are: none"):
        models.rollback("pump")
    models.install("pump", of(model, 1))
    with pytest.raises(ModelFileError, match="no version before the one in use; there are: 1"):
        models.rollback("pump")
    with pytest.raises(ModelFileError, match="no version 7; there are: 1"):
        models.rollback("pump", "7")


def test_the_version_in_use_is_never_the_one_that_is_dropped(tmp_path: Path, model: Model) -> None:
    models = ModelFolder(tmp_path)
    for version in range(1, 6):
        models.install("pump", of(model, version))
    models.rollback("pump", "1")
    models.install("pump", of(model, 6, parent=1))
    assert named(models) == ["6*", "5", "4", "3", "2"]
    models.rollback("pump", "2")
    models.install("pump", of(model, 1))
    assert "1*" in named(models)


def test_a_damaged_model_in_use_is_replaced_by_its_own_copy_then_by_the_newest(tmp_path: Path, model: Model) -> None:
    models = ModelFolder(tmp_path)
    for version in (1, 2, 3):
        models.install("pump", of(model, version))
    models.rollback("pump", "2")
    models.file("pump").write_bytes(b"damaged")
    found, wrong = models.load("pump")
    assert found is not None
    assert found.version == "2"
    assert "kept as model.npz.damaged" in wrong
    models.file("pump").with_name("model-2.npz").write_bytes(b"damaged")
    found, _ = models.load("pump")
    assert found is not None
    assert found.version == "3"
    assert named(models) == ["3", "1"]


@pytest.mark.parametrize("what", ["install", "rollback"])
def test_a_power_cut_at_any_write_leaves_the_old_model_in_use_or_the_new_one(
    tmp_path: Path, model: Model, what: str
) -> None:
    (tmp_path / "new.npz").write_bytes(dumps(of(model, 8)))
    script = """
        import sys
        from pathlib import Path

        from gon_edge.model.file import load_model
        from gon_edge.state.folder import ModelFolder
        import powercut

        models, new = ModelFolder(Path(sys.argv[1])), load_model(sys.argv[2])
        for last in range(200):
            pid = powercut.os.fork()
            if pid == 0:
                powercut.after(last)
                if sys.argv[3] == "install":
                    models.install("pump", new)
                else:
                    models.rollback("pump")
                powercut.os._exit(0)
            code = powercut.os.waitstatus_to_exitcode(powercut.os.waitpid(pid, 0)[1])
            found, wrong = models.load("pump")
            versions = [found.version for found in models.versions("pump")]
            print(code, found.version, wrong or "-", ",".join(versions), flush=True)
            if code == 0:
                break
            if found.version != "7":  # back to where it began, for the next cut
                models.rollback("pump", "7")
    """
    models = ModelFolder(tmp_path)
    for version in range(3, 8):
        models.install("pump", of(model, version))
    outcome = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script), tmp_path, tmp_path / "new.npz", what],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[1]), *sys.path])},
        capture_output=True,
        text=True,
        check=True,
        timeout=100,
    )
    after = "8" if what == "install" else "6"
    lines = [line.split() for line in outcome.stdout.splitlines()]
    assert len(lines) > 12
    assert lines[-1][:2] == ["0", after]
    assert {code for code, *_ in lines[:-1]} == {"9"}
    in_use = [version for _, version, *_ in lines]
    assert set(in_use) == {"7", after}
    assert {wrong for _, _, wrong, _ in lines} == {"-"}  # nothing was ever found damaged
    assert all({"7", "6", "5"} <= set(versions.split(",")) for *_, versions in lines)
    assert not list(tmp_path.glob("models/pump/.*.tmp"))


def test_a_full_disk_at_any_write_leaves_the_model_in_use(
    tmp_path: Path, model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    models = ModelFolder(tmp_path)
    for version in (1, 2):
        models.install("pump", of(model, version))
    write = os.write
    failed = 0
    for refused in range(50):
        writes = iter(range(1000))

        def full(file: int, content: bytes, writes: Iterator[int] = writes, refused: int = refused) -> int:
            if next(writes) == refused:
                raise OSError(errno.ENOSPC, "No space left on device")
            return write(file, content)

        monkeypatch.setattr(os, "write", full)
        try:
            models.install("pump", of(model, 3))
        except OSError:
            failed += 1
            found, wrong = models.load("pump")
            assert found is not None
            assert (found.version in ("2", "3"), wrong) == (True, "")
            assert models.load("pump", "2")[0] is not None
        else:
            break
    assert failed == 3  # the copy, the model, its name
    assert named(models) == ["3*", "2", "1"]
    assert not list(tmp_path.glob("models/pump/.*.tmp"))


def test_a_damaged_model_is_set_aside_and_named(tmp_path: Path) -> None:
    folder = ModelFolder(tmp_path)
    file = folder.file("pump")
    file.parent.mkdir(parents=True)
    file.write_bytes(b"not a model")
    model, wrong = folder.load("pump")
    assert model is None
    assert "damaged" in wrong
    assert file.with_name("model.npz.damaged").read_bytes() == b"not a model"
    assert folder.load("pump") == (None, "")


@pytest.mark.parametrize("stream", ["pump", "../../etc", ".hidden", "a/b", "über 1", "x" * 128, "..", "."])
def test_any_stream_name_is_one_folder_inside_the_models(tmp_path: Path, stream: str) -> None:
    folder = ModelFolder(tmp_path)
    file = folder.file(stream)
    assert file.parent.parent == folder.path
    assert file.resolve().is_relative_to(folder.path.resolve())
    file.parent.mkdir(parents=True)
    file.write_bytes(b"not a model")
    assert folder.streams() == [stream]


def test_the_copies_of_a_model_are_read_only_where_it_is_damaged(tmp_path, model, monkeypatch):
    # A start with 500 streams read six files of each.
    folder = ModelFolder(tmp_path)
    for version in ("1", "2", "3"):
        folder.install("pump", model.with_lineage(version=version))
    read = []
    monkeypatch.setattr("gon_edge.state.folder.load_model", lambda path: read.append(path.name) or load_model(path))
    assert folder.load("pump")[0].version == "3"
    assert read == ["model.npz"]
    folder.file("pump").write_bytes(b"damaged")
    assert folder.load("pump")[0].version == "3"
    assert len(read) > 2
