"""What the training child holds out, and how it ends; whole rounds are in test_trainer."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
from jobs import MIB, plain_job, stored

from gon_edge.errors import OverBudget
from gon_edge.events import Row
from gon_edge.state.store import Store
from gon_edge.training.child import _held_out_rows
from gon_edge.training.job import write_job
from gon_edge.training.settings import FitSettings

CHILD = [sys.executable, "-m", "gon_edge.training.child"]


def trained(*files):
    """A child that was given these jobs, when it has ended."""
    asked = "".join(f"{json.dumps(str(file))}\n" for file in files)
    return subprocess.run(CHILD, input=asked, capture_output=True, text=True, timeout=60)


def test_what_was_just_confirmed_is_mostly_learned_and_not_held_out():
    settings = FitSettings(window=40)
    assert _held_out_rows(8000, np.zeros(8000, np.bool_), settings) == 1000
    assert _held_out_rows(8000, np.arange(8000) >= 7200, settings) == 400
    assert _held_out_rows(8000, np.arange(8000) < 800, settings) == 1000
    assert _held_out_rows(400, np.zeros(400, np.bool_), settings) == 120
    assert _held_out_rows(199, np.zeros(199, np.bool_), settings) == 0


def test_a_model_that_cannot_be_written_is_said_in_one_line_and_no_traceback(tmp_path):
    write_job(plain_job(stored(tmp_path, 120), candidate="/proc/nowhere/candidate.npz"), tmp_path / "job.json")
    child = trained(tmp_path / "job.json")
    assert child.returncode != 0
    assert child.stderr == ""
    said = json.loads(child.stdout.splitlines()[-1])
    assert (said["outcome"], said["error"]) == ("failed", "StoreError")
    assert "make room on the disk" in said["reason"]


def test_a_child_whose_daemon_was_killed_ends_without_a_traceback(tmp_path):
    write_job(plain_job(stored(tmp_path, 120)), tmp_path / "job.json")
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    with subprocess.Popen(CHILD, **pipes, text=True) as child:
        child.stdout.close()  # nobody is left to be told
        child.stdin.write(json.dumps(str(tmp_path / "job.json")) + "\n")
        child.stdin.close()
        assert child.stderr.read() == ""
        assert child.wait(60) == 1


def test_a_child_whose_job_went_with_who_asked_for_it_ends_without_a_traceback(tmp_path):
    # A rehearsal that was ended just as a training began took its folder along.
    child = trained(tmp_path / "job.json")
    assert (child.returncode, child.stdout, child.stderr) == (1, "", "")


def test_one_odd_row_of_a_short_warm_up_does_not_keep_the_first_model_out(tmp_path):
    # The fit leaves the row out; the gate counted every window with it in as a row that the model had learned.
    rng, fresh = np.random.default_rng(0), np.zeros(2, np.bool_)
    with Store.open(tmp_path) as store:
        for i, values in enumerate(rng.normal(50.0, 1.0, (80, 2)).astype(np.float32)):
            values[0] += 500.0 if i == 45 else 0.0
            store.add_row(Row("pump", 1000.0 + i, ("a", "b"), values, fresh, i == 0), False, now=0.0)
        store.flush(0.0)
    write_job(plain_job(tmp_path, window=20), tmp_path / "job.json")
    child = trained(tmp_path / "job.json")
    gate = next(said["gate"] for said in map(json.loads, child.stdout.splitlines()) if "gate" in said)
    assert (gate["passed"], gate["reasons"]) == (True, [])
    assert gate["challenger"]["alarm_rate"] < 0.05


def test_a_child_does_one_job_after_the_other_each_as_a_child_of_its_own_would(tmp_path):
    large, small = stored(tmp_path / "large", 4000), stored(tmp_path / "small", 120)
    files = []
    for name, folder, rows in (("first", small, 120), ("wide", large, 4000), ("again", small, 120)):
        files.append(tmp_path / f"{name}.json")
        write_job(plain_job(folder, candidate=str(tmp_path / f"{name}.npz"), max_rows=rows), files[-1])
    child = trained(*files)
    ends = [said for said in map(json.loads, child.stdout.splitlines()) if "outcome" in said]
    assert (child.returncode, child.stderr, [end["rows"] for end in ends]) == (0, "", [120, 4000, 120])
    assert (tmp_path / "first.npz").read_bytes() == (tmp_path / "again.npz").read_bytes()
    assert ends[2]["peak_bytes"] < ends[1]["peak_bytes"]  # its own, not that of the job before it


def test_a_child_ends_with_the_first_job_that_fails(tmp_path):
    # One that has run out of memory has mapped all it may: the next job in it would fail as well.
    folder = stored(tmp_path, 120)
    write_job(plain_job(folder, budget_bytes=20 * MIB), tmp_path / "tight.json")
    write_job(plain_job(folder), tmp_path / "job.json")
    child = trained(tmp_path / "tight.json", tmp_path / "job.json")
    ends = [said for said in map(json.loads, child.stdout.splitlines()) if "outcome" in said]
    assert (child.returncode, [end["error"] for end in ends]) == (OverBudget.exit_code, ["OverBudget"])
