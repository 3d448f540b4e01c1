"""Training in a child process: what comes of it, and that nothing but a good model replaces a model."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from gon_edge.errors import RetrainBusy
from gon_edge.events import Row
from gon_edge.fit import FitSettings
from gon_edge.modelfile import load_model
from gon_edge.retrain import ModelFolder, Round, Trainer, resident_bytes
from gon_edge.store import Store
from gon_edge.train import Job, predicted_peak_bytes, write_job

MIB = 1 << 20


@pytest.fixture
def state_dir(tmp_path: Path) -> Path:
    """A store with 800 rows of three features."""
    rng = np.random.default_rng(0)
    features = ("a", "b", "c")
    with Store.open(tmp_path) as store:
        for t, values in enumerate(rng.normal(size=(800, 3)).astype(np.float32)):
            store.add_row(Row("pump", 1000.0 + t, features, values, np.zeros(3, np.bool_), t == 0), False, now=float(t))
        store.flush(900.0)
    return tmp_path


def job(state_dir: Path, trainer: Trainer, **changes: object) -> Job:
    plain = Job(
        stream="pump",
        state_dir=str(state_dir),
        candidate=str(trainer.candidate("pump")),
        version="1",
        parent="",
        trained_at=5000.0,
        until=1e12,
        max_rows=20_000,
        interval_s=1.0,
        window=15,
        risk=1e-4,
        seed=0,
        budget_bytes=64 * MIB,
        nice=0,
    )
    return dataclasses.replace(plain, **changes)  # type: ignore[arg-type]


def trainer_for(state_dir: Path) -> Trainer:
    return Trainer(state_dir, ModelFolder(state_dir))


def ended(trainer: Trainer) -> Round:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if (outcome := trainer.poll()) is not None:
            return outcome
        time.sleep(0.02)
    pytest.fail("the training did not end")


def test_a_round_ends_with_a_model_in_place_and_its_lineage(state_dir: Path) -> None:
    trainer = trainer_for(state_dir)
    trainer.start(job(state_dir, trainer))
    assert trainer.stream == "pump"
    result = ended(trainer)
    assert (result.outcome, result.reason, result.rows) == ("promoted", "", 800)
    assert result.peak_bytes < 64 * MIB
    model = load_model(ModelFolder(state_dir).file("pump"))
    assert model.features == ("a", "b", "c")
    assert model.interval_s == 1.0
    assert {k: model.lineage[k] for k in ("version", "rows", "since", "until", "trained_at", "seed")} == {
        "version": "1",
        "rows": 800,
        "since": 1000.0,
        "until": 1799.0,
        "trained_at": 5000.0,
        "seed": 0,
    }
    assert trainer.stream is None
    assert not trainer.candidate("pump").exists()


def test_the_same_job_gives_the_same_bytes_and_a_copy_is_kept(state_dir: Path) -> None:
    trainer = trainer_for(state_dir)
    file = ModelFolder(state_dir).file("pump")
    written = []
    for _ in range(2):
        trainer.start(job(state_dir, trainer))
        assert ended(trainer).outcome == "promoted"
        written.append(file.read_bytes())
    assert written[0] == written[1]
    assert file.with_name("model-1.npz").read_bytes() == written[0]


def test_rows_after_until_are_not_learned(state_dir: Path) -> None:
    trainer = trainer_for(state_dir)
    trainer.start(job(state_dir, trainer, until=1399.0))
    assert ended(trainer).rows == 400


@pytest.mark.parametrize(
    ("changes", "outcome", "says"),
    [
        ({"until": 1010.0}, "not_enough_data", "wait for more"),
        ({"stream": "unknown"}, "not_enough_data", "0 normal rows"),
        ({"budget_bytes": 30 * MIB}, "over_budget", "raise retrain.memory_budget"),
    ],
)
def test_a_round_that_cannot_work_says_why_and_leaves_no_model(
    state_dir: Path, changes: dict[str, object], outcome: str, says: str
) -> None:
    trainer = trainer_for(state_dir)
    trainer.start(job(state_dir, trainer, **changes))
    result = ended(trainer)
    assert (result.outcome, result.model) == (outcome, None)
    assert says in result.reason
    assert not ModelFolder(state_dir).file("pump").exists()


def test_a_child_past_its_deadline_is_ended_and_the_old_model_stays(state_dir: Path) -> None:
    trainer = trainer_for(state_dir)
    trainer.start(job(state_dir, trainer))
    assert ended(trainer).outcome == "promoted"
    before = ModelFolder(state_dir).file("pump").read_bytes()
    hasty = trainer_for(state_dir)
    hasty.start(job(state_dir, hasty, version="2", deadline_s=0.01))
    result = ended(hasty)
    assert result.outcome == "failed"
    assert "retrain.deadline" in result.reason
    assert ModelFolder(state_dir).file("pump").read_bytes() == before


def test_a_child_that_is_killed_is_a_failed_round(state_dir: Path) -> None:
    trainer = trainer_for(state_dir)
    trainer.start(job(state_dir, trainer))
    assert trainer._running is not None
    os.kill(trainer._running.process.pid, 9)
    result = ended(trainer)
    assert (result.outcome, result.model) == ("failed", None)
    assert "-9" in result.reason


def test_a_child_does_not_outlive_the_daemon(state_dir: Path) -> None:
    trainer = trainer_for(state_dir)
    file = state_dir / "job.json"
    write_job(job(state_dir, trainer, max_rows=800, window=200), file)
    trainer.candidate("pump").parent.mkdir(parents=True)
    start = (
        "import subprocess, sys; p = subprocess.Popen([sys.executable, '-m', 'gon_edge.train', sys.argv[1]], "
        "stdout=subprocess.PIPE, text=True); print(p.pid, p.stdout.readline(), flush=True); input()"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", start, str(file)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert parent.stdout is not None
    child = int(parent.stdout.readline().split()[0])
    assert Path(f"/proc/{child}").exists()
    parent.kill()
    parent.wait(10)
    deadline = time.monotonic() + 5
    while Path(f"/proc/{child}/cmdline").exists() and Path(f"/proc/{child}/cmdline").read_bytes():
        assert time.monotonic() < deadline, "the child goes on without its parent"
        time.sleep(0.01)
    assert not trainer.candidate("pump").exists()


def test_only_one_round_at_a_time_across_trainers(state_dir: Path) -> None:
    one, other = trainer_for(state_dir), trainer_for(state_dir)
    one.start(job(state_dir, one))
    for busy in (one, other):
        with pytest.raises(RetrainBusy):
            busy.start(job(state_dir, busy))
    one.stop()
    other.start(job(state_dir, other))
    assert ended(other).outcome == "promoted"


def test_the_predicted_peak_bounds_the_measured_one(state_dir: Path) -> None:
    trainer = trainer_for(state_dir)
    trainer.start(job(state_dir, trainer, window=40))
    result = ended(trainer)
    assert result.outcome == "promoted"
    assert result.peak_bytes <= predicted_peak_bytes(800, 3, FitSettings(window=40))


@pytest.mark.parametrize("stream", ["pump", "../../etc", ".hidden", "a/b", "über 1", "x" * 128, "..", "."])
def test_any_stream_name_is_one_folder_inside_the_models(tmp_path: Path, stream: str) -> None:
    folder = ModelFolder(tmp_path)
    file = folder.file(stream)
    assert file.parent.parent == folder.path
    assert file.resolve().is_relative_to(folder.path.resolve())
    file.parent.mkdir(parents=True)
    file.write_bytes(b"not a model")
    assert folder.streams() == [stream]


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


def test_the_memory_of_a_process_is_read_from_proc() -> None:
    assert 4 * MIB < resident_bytes(os.getpid()) < 4096 * MIB
    assert resident_bytes(2**22 + 1) == 0
