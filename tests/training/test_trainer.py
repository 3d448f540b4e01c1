"""Training in a child process: what comes of it, and that nothing but a good model replaces a model."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from jobs import MIB, plain_job

from gon_edge.errors import RetrainBusy
from gon_edge.events import Row
from gon_edge.model.file import load_model
from gon_edge.state.folder import ModelFolder
from gon_edge.state.history import RetrainRecord
from gon_edge.state.store import Store
from gon_edge.training.job import Job, write_job
from gon_edge.training.plan import predicted_peak_bytes
from gon_edge.training.settings import FitSettings
from gon_edge.training.trainer import Trainer


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


_MADE: list[Trainer] = []


@pytest.fixture(autouse=True)
def _no_child_is_left() -> Iterator[None]:
    yield
    while _MADE:
        _MADE.pop().stop()


def trainer_for(state_dir: Path) -> Trainer:
    _MADE.append(Trainer(state_dir, ModelFolder(state_dir)))
    return _MADE[-1]


def ended(trainer: Trainer) -> RetrainRecord:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if (found := trainer.poll()) is not None:
            record, model = found
            assert record.version == (model.version if model is not None else "")
            return record
        time.sleep(0.02)
    pytest.fail("the training did not end")


def test_a_child_is_the_first_to_go_from_its_first_moment_on(state_dir: Path) -> None:
    # While it loaded numpy the kernel, short of memory, killed the daemon beside it, which is larger; and again after
    # each restart, because training began anew.
    trainer = trainer_for(state_dir)
    trainer.start(plain_job(state_dir))
    children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    assert "1000\n" in [Path(f"/proc/{pid}/oom_score_adj").read_text() for pid in children]
    trainer.stop()


def test_a_round_ends_with_a_model_in_place_and_its_lineage(state_dir: Path) -> None:
    trainer = trainer_for(state_dir)
    trainer.start(plain_job(state_dir))
    assert list(trainer.streams) == ["pump"]
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
    assert not trainer.streams
    assert not (state_dir / "candidate.npz").exists()


def test_the_same_job_gives_the_same_bytes_and_a_copy_is_kept(state_dir: Path) -> None:
    trainer = trainer_for(state_dir)
    file = ModelFolder(state_dir).file("pump")
    written = []
    for _ in range(2):
        trainer.start(plain_job(state_dir))
        assert ended(trainer).outcome == "promoted"
        written.append(file.read_bytes())
    assert written[0] == written[1]
    assert file.with_name("model-1.npz").read_bytes() == written[0]


def test_rows_after_until_are_not_learned(state_dir: Path) -> None:
    trainer = trainer_for(state_dir)
    trainer.start(plain_job(state_dir, until=1399.0))
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
    trainer.start(plain_job(state_dir, **changes))
    result = ended(trainer)
    assert (result.outcome, result.version) == (outcome, "")
    assert says in result.reason
    assert not ModelFolder(state_dir).file("pump").exists()


def test_a_child_past_its_deadline_is_ended_and_the_old_model_stays(state_dir: Path) -> None:
    trainer = trainer_for(state_dir)
    trainer.start(plain_job(state_dir))
    assert ended(trainer).outcome == "promoted"
    before = ModelFolder(state_dir).file("pump").read_bytes()
    hasty = trainer_for(state_dir)
    hasty.start(plain_job(state_dir, version="2", deadline_s=0.01))
    result = ended(hasty)
    assert result.outcome == "failed"
    assert "retrain.deadline" in result.reason
    assert ModelFolder(state_dir).file("pump").read_bytes() == before


def test_a_child_that_is_killed_is_a_failed_round(state_dir: Path) -> None:
    trainer = trainer_for(state_dir)
    trainer.start(plain_job(state_dir))
    pid = trainer.pid("pump")
    assert pid is not None
    os.kill(pid, 9)
    result = ended(trainer)
    assert (result.outcome, result.version) == ("failed", "")
    assert "-9" in result.reason


def test_a_child_does_not_outlive_the_daemon(state_dir: Path) -> None:
    file = state_dir / "job.json"
    write_job(plain_job(state_dir, max_rows=800, window=200), file)
    start = (
        "import json, subprocess as s, sys; p = s.Popen([sys.executable, '-m', 'gon_edge.training.child'], "
        "stdin=s.PIPE, stdout=s.PIPE, text=True); print(json.dumps(sys.argv[1]), file=p.stdin, flush=True); "
        "print(p.pid, p.stdout.readline(), flush=True); input()"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", start, str(file)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert parent.stdout is not None
    child = int(parent.stdout.readline().split()[0])
    assert Path(f"/proc/{child}").exists()
    parent.kill()
    parent.wait(10)
    deadline = time.monotonic() + 60
    while Path(f"/proc/{child}/cmdline").exists() and Path(f"/proc/{child}/cmdline").read_bytes():
        assert time.monotonic() < deadline, "the child goes on without its parent"
        time.sleep(0.01)
    assert not (state_dir / "candidate.npz").exists()


def test_only_one_round_at_a_time_across_trainers(state_dir: Path) -> None:
    one, other = trainer_for(state_dir), trainer_for(state_dir)
    one.start(plain_job(state_dir))
    for busy in (one, other):
        with pytest.raises(RetrainBusy):
            busy.start(plain_job(state_dir))
    one.stop()
    other.start(plain_job(state_dir))
    assert ended(other).outcome == "promoted"


def test_the_predicted_peak_bounds_the_measured_one(state_dir: Path) -> None:
    trainer = trainer_for(state_dir)
    trainer.start(plain_job(state_dir, window=40))
    result = ended(trainer)
    assert result.outcome == "promoted"
    predicted = predicted_peak_bytes(800, 3, FitSettings(window=40))
    assert 0.85 * predicted < result.peak_bytes <= predicted


# -- the gate's word ---------------------------------------------------------------------------------------------------


def promoted(state_dir: Path, trainer: Trainer, **changes: object) -> RetrainRecord:
    trainer.start(plain_job(state_dir, **changes))
    result = ended(trainer)
    assert result.outcome == "promoted", result.reason
    return result


def test_a_second_model_is_judged_beside_the_first_on_rows_neither_learned(state_dir: Path) -> None:
    trainer, models = trainer_for(state_dir), ModelFolder(state_dir)
    first = promoted(state_dir, trainer, until=1500.0)
    assert first.gate is not None
    assert first.gate["champion"] is None
    second = promoted(state_dir, trainer, version="2", parent="1", champion=str(models.file("pump")))
    assert second.gate is not None
    assert second.gate["champion"] is not None
    assert (second.rows, second.gate["held_out_rows"]) == (800, 100)
    gate = load_model(models.file("pump")).lineage["gate"]
    assert gate["champion"]["separation"].keys() == gate["challenger"]["separation"].keys() != set()
    assert gate["challenger"]["alarm_rate"] == second.gate["challenger"]["alarm_rate"]
    assert "latency_s" not in gate


def test_what_a_model_detects_is_written_into_it_and_into_the_history(state_dir: Path) -> None:
    trainer, models = trainer_for(state_dir), ModelFolder(state_dir)
    first = promoted(state_dir, trainer, until=1500.0)
    assert first.gate is not None
    told = load_model(models.file("pump")).lineage["detects"]
    assert told == first.gate["detects"]
    strength, size, rows = told["offset up"]["a"]
    assert strength > 0.0
    assert size > 0.0
    assert 1 <= rows <= 20
    second = promoted(state_dir, trainer, version="2", parent="1", champion=str(models.file("pump")))
    lineage = load_model(models.file("pump")).lineage
    assert second.gate is not None
    assert lineage["detects"] == second.gate["detects"] != {}
    assert "detects" not in lineage["gate"]


def test_only_rows_the_model_in_use_has_not_learned_judge_it(state_dir: Path) -> None:
    trainer, models = trainer_for(state_dir), ModelFolder(state_dir)
    promoted(state_dir, trainer, until=1749.0)
    second = promoted(state_dir, trainer, version="2", champion=str(models.file("pump")))
    assert second.gate is not None
    assert second.gate["held_out_rows"] == 50


def test_training_again_at_once_compares_two_models_that_know_all_rows(state_dir: Path) -> None:
    # The model in use had learned the rows it was judged on, the new one had not, and lost.
    trainer, models = trainer_for(state_dir), ModelFolder(state_dir)
    promoted(state_dir, trainer)
    again = promoted(state_dir, trainer, version="2", champion=str(models.file("pump")))
    assert again.gate is not None
    assert again.gate["held_out_rows"] == 0
    assert again.gate["champion"] is not None
    assert again.gate["champion"]["separation"] == again.gate["challenger"]["separation"]


def test_a_few_rows_that_a_person_accepted_are_enough(state_dir: Path) -> None:
    trainer, models = trainer_for(state_dir), ModelFolder(state_dir)
    promoted(state_dir, trainer, until=1500.0)
    changes = {"since": 1740.0, "accepted": ((1740.0, 1799.0),), "champion": str(models.file("pump"))}
    few = promoted(state_dir, trainer, version="2", **changes)
    assert few.gate is not None
    assert (few.rows, few.gate["held_out_rows"]) == (60, 0)
    assert few.gate["champion"] is not None


@pytest.mark.slow  # three trainings
def test_a_judged_job_gives_the_same_bytes_too(state_dir: Path) -> None:
    trainer, models = trainer_for(state_dir), ModelFolder(state_dir)
    promoted(state_dir, trainer, until=1500.0)
    champion = state_dir / "champion.npz"
    champion.write_bytes(models.file("pump").read_bytes())
    written = set()
    for _ in range(2):
        promoted(state_dir, trainer, version="2", champion=str(champion), max_rows=600)
        written.add(models.file("pump").read_bytes())
    assert len(written) == 1


@pytest.fixture
def worse(state_dir: Path) -> Path:
    """The state directory with a good model, and then a second half of rows that say nothing."""
    trainer = trainer_for(state_dir)
    rng = np.random.default_rng(1)
    features, fresh = ("a", "b", "c"), np.zeros(3, np.bool_)
    t = np.arange(2000.0)[:, None]
    calm = np.float32(np.sin(t / [5.0, 7.0, 9.0]) + 0.05 * rng.normal(size=(2000, 3)))
    with Store.open(state_dir) as store:
        for i, values in enumerate(calm):
            store.add_row(Row("fan", 1000.0 + i, features, values, fresh, i == 0), False, now=0.0)
        store.flush(0.0)
    promoted(state_dir, trainer, stream="fan")
    with Store.open(state_dir) as store:
        for i in range(6000):
            wild = np.float32(rng.normal(0.0, 30.0, 3)) if i < 5000 else calm[i - 5000]
            store.add_row(Row("fan", 4000.0 + i, features, wild, fresh, i == 0), False, now=0.0)
        store.flush(0.0)
    return state_dir


@pytest.mark.slow  # 8,000 rows and three trainings
def test_a_worse_model_is_rejected_with_reasons_unless_a_person_forces_it(worse: Path) -> None:
    trainer, models = trainer_for(worse), ModelFolder(worse)
    file = models.file("fan")
    before = file.read_bytes()
    bad = plain_job(worse, stream="fan", version="2", champion=str(file))
    trainer.start(bad)
    result = ended(trainer)
    assert (result.outcome, result.version) == ("rejected", "")
    assert result.gate is not None
    assert "injected faults" in result.reason
    assert result.reason == "; ".join(result.gate["reasons"])
    assert file.read_bytes() == before
    assert not Path(bad.candidate).exists()
    trainer.start(dataclasses.replace(bad, force=True))
    forced = ended(trainer)
    assert forced.outcome == "promoted"
    assert forced.reason.startswith("forced: ")
    assert load_model(file).lineage["gate"]["passed"] is False
    assert models.rollback("fan").version == "1"
    assert file.read_bytes() == before


@pytest.mark.slow  # 8,000 rows and two trainings
def test_what_cannot_be_accepted_without_losing_sight_says_what_a_person_can_do(worse: Path) -> None:
    trainer, file = trainer_for(worse), ModelFolder(worse).file("fan")
    spans = ((4000.0, 8999.0),)
    accepted = {"accepted": spans, "accepted_anew": spans}
    trainer.start(plain_job(worse, stream="fan", version="2", champion=str(file), **accepted))
    result = ended(trainer)
    assert result.outcome == "rejected"
    assert "accept a shorter time, or only the new state with --only" in result.reason
    assert result.reason.endswith("; if you want the new model all the same, type gon-edge retrain fan --force")


def test_rows_left_out_for_lack_of_room_are_logged(state_dir: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    result = promoted(state_dir, trainer_for(state_dir), max_rows=500)
    assert result.rows == 500
    assert "stream 'pump': learned from 500 of 800 rows, in blocks" in caplog.text


def test_progress_goes_from_reading_to_the_gate_with_memory_below_the_budget(state_dir: Path) -> None:
    trainer = trainer_for(state_dir)
    assert trainer.progress("pump") is None
    trainer.start(plain_job(state_dir, window=40))
    seen = []
    deadline = time.monotonic() + 60
    while trainer.poll() is None:
        assert time.monotonic() < deadline
        if trainer.progress("pump") is not None:
            seen.append(trainer.progress("pump"))
        time.sleep(0.005)
    assert trainer.progress("pump") is None
    shares = [progress["share"] for progress in seen]
    assert shares == sorted(shares)
    assert shares[-1] <= 1.0
    assert {"starting", "calibrate", "fit"} <= {progress["phase"] for progress in seen}
    assert any(progress["loss"] is not None for progress in seen)
    assert all(0 <= progress["rss_bytes"] < progress["budget_bytes"] for progress in seen)


def test_a_damaged_champion_is_none_to_compare_with(state_dir: Path) -> None:
    (state_dir / "broken.npz").write_bytes(b"broken")
    verdict = promoted(state_dir, trainer_for(state_dir), champion=str(state_dir / "broken.npz")).gate
    assert verdict is not None
    assert verdict["champion"] is None


def test_rows_of_a_file_are_learned_without_a_store(tmp_path: Path) -> None:
    rows = np.random.default_rng(0).normal(size=(500, 2))
    (tmp_path / "rows.csv").write_text("a,b\n" + "\n".join(f"{a},{b}" for a, b in rows))
    trainer = trainer_for(tmp_path)
    result = promoted(tmp_path, trainer, rows_file=str(tmp_path / "rows.csv"))
    assert result.rows == 500
    assert load_model(ModelFolder(tmp_path).file("pump")).features == ("a", "b")


def test_a_model_of_a_file_has_the_interval_of_the_file(tmp_path: Path) -> None:
    # Each row of a one-minute file once was a piece of its own, and the model one of a row a second.
    rows = np.random.default_rng(0).normal(size=(500, 2))
    lines = [f"{1.7e9 + 60 * i:.0f};{a};{b}".replace(".", ",") for i, (a, b) in enumerate(rows)]
    (tmp_path / "rows.csv").write_text("ts;a;b\n" + "\n".join(lines))
    result = promoted(tmp_path, trainer_for(tmp_path), rows_file=str(tmp_path / "rows.csv"), interval_s=0.0)
    model = load_model(ModelFolder(tmp_path).file("pump"))
    assert (model.interval_s, result.rows) == (60.0, 500)
    assert model.threshold > 1.0


# -- several children -------------------------------------------------------------------------------------------------


def two(state_dir: Path, **changes: object) -> list[Job]:
    """Jobs of two streams, from the same rows."""
    return [
        plain_job(state_dir, candidate=str(state_dir / name / "candidate.npz"), **{"stream": name, **changes})
        for name in ("pump", "fan")
    ]


def as_fan(state_dir: Path) -> Path:
    """The store with the pump's rows, and as many of a fan."""
    with Store.open(state_dir) as store:
        for chunk in list(store.chunks("pump")):
            for at, values in zip(chunk.timestamps.tolist(), chunk.values, strict=True):
                store.add_row(Row("fan", at, chunk.features, values, np.zeros(3, np.bool_), at == 1000.0), False, 0.0)
        store.flush(0.0)
    return state_dir


def test_a_child_that_has_done_its_job_takes_the_next_one_and_ends_when_there_is_none(state_dir: Path) -> None:
    trainer = trainer_for(as_fan(state_dir))
    pump, fan = two(state_dir)
    trainer.start(pump)
    pid = trainer.pid("pump")
    assert ended(trainer).outcome == "promoted"
    trainer.start(fan)
    assert trainer.pid("fan") == pid
    trainer.rest()  # it has something to do
    assert ended(trainer).outcome == "promoted"
    trainer.rest()
    trainer.stop()
    assert not Path(f"/proc/{pid}").exists()


def test_two_children_train_at_once_and_the_end_of_one_costs_the_other_nothing(state_dir: Path) -> None:
    trainer = trainer_for(as_fan(state_dir))
    for job in two(state_dir):
        trainer.start(job)
    assert set(trainer.streams) == {"pump", "fan"}
    victim, other = trainer.pid("fan"), trainer.pid("pump")
    assert victim is not None
    assert victim != other
    os.kill(victim, 9)
    results = {result.stream: result.outcome for result in (ended(trainer), ended(trainer))}
    assert results == {"fan": "failed", "pump": "promoted"}
    trainer.stop()


def test_a_child_that_outgrows_its_budget_is_ended_alone(state_dir: Path) -> None:
    trainer = trainer_for(as_fan(state_dir))
    pump, fan = two(state_dir)
    trainer.start(pump)
    trainer.start(dataclasses.replace(fan, budget_bytes=30 * MIB))
    results = {result.stream: result.outcome for result in (ended(trainer), ended(trainer))}
    assert results == {"fan": "over_budget", "pump": "promoted"}
    trainer.stop()


def test_a_stream_is_trained_by_one_child_at_a_time(state_dir: Path) -> None:
    trainer = trainer_for(state_dir)
    trainer.start(plain_job(state_dir))
    with pytest.raises(RetrainBusy, match="'pump' is being trained"):
        trainer.start(plain_job(state_dir))
    trainer.stop("fan")  # which is not being trained
    assert list(trainer.streams) == ["pump"]
    trainer.stop("pump")
    assert not trainer.streams


def test_a_child_that_was_killed_between_two_jobs_is_replaced(state_dir: Path) -> None:
    trainer = trainer_for(state_dir)
    trainer.start(plain_job(state_dir))
    pid = trainer.pid("pump")
    assert ended(trainer).outcome == "promoted"
    assert pid is not None
    os.kill(pid, 9)
    while Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z":
        time.sleep(0.005)
    trainer.start(plain_job(state_dir, version="2"))
    assert trainer.pid("pump") != pid
    assert ended(trainer).version == "2"
    trainer.stop()
