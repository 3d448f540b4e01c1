"""What a training round reads, how it plans, and that it keeps to its plan; rounds as a whole are in test_retrain."""

from __future__ import annotations

import dataclasses
import itertools
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jobs import MIB, plain_job

from gon_edge.errors import InputError
from gon_edge.events import Row
from gon_edge.state.store import Store
from gon_edge.training.child import (
    BLOCK_ROWS,
    _held_out_rows,
    _read,
    _Stillness,
    _survey,
    choose_blocks,
    plan,
    predicted_peak_bytes,
    rows_within,
    write_job,
)
from gon_edge.training.fit import FitSettings, longest_runs


def stored(folder: Path, rows: int, *, quarantined: range = range(0), features: tuple[str, ...] = ("a", "b")) -> Path:
    """Rows at 1 Hz from second 1000; feature a counts, the others are three times as large."""
    fresh = np.zeros(len(features), np.bool_)
    with Store.open(folder) as store:
        for i in range(rows):
            values = np.full(len(features), 3.0 * i, np.float32)
            values[0] = i
            store.add_row(Row("pump", 1000.0 + i, features, values, fresh, i == 0), i in quarantined, now=0.0)
        store.flush(0.0)
    return folder


# -- which rows --------------------------------------------------------------------------------------------------------


@given(
    usable=st.integers(0, 30_000),
    count=st.integers(1, 12_000),
    cuts=st.lists(st.floats(0.0, 1.0), max_size=6),
    seed=st.integers(0, 5),
)
def test_blocks_are_as_many_rows_as_asked_for_and_none_twice(usable, count, cuts, seed):
    edges = sorted({int(cut * usable) for cut in cuts})
    trusted = list(zip(edges[::2], edges[1::2], strict=False))
    blocks = choose_blocks(usable, trusted, count, np.random.default_rng(seed))
    assert sum(stop - start for start, stop in blocks) == min(usable, count)
    assert all(0 <= start < stop <= usable for start, stop in blocks)
    assert all(before[1] <= after[0] for before, after in itertools.pairwise(blocks))


def test_every_part_of_the_span_is_seen_at_no_fixed_distance():
    blocks = choose_blocks(600_000, (), 20_000, np.random.default_rng(0))
    assert len(blocks) == 20_000 // BLOCK_ROWS
    assert {int(start // 12_000) for start, _ in blocks} == set(range(50))
    assert len({b[0] - a[0] for a, b in itertools.pairwise(blocks)}) > 10


def test_rows_a_person_confirmed_get_a_quarter_of_the_places():
    confirmed = (595_000, 600_000)
    blocks = choose_blocks(600_000, [confirmed], 16_000, np.random.default_rng(0))
    assert sum(stop - start for start, stop in blocks if start >= confirmed[0]) == 4000
    few = choose_blocks(600_000, [(599_900, 600_000)], 16_000, np.random.default_rng(0))
    assert few[-1][1] - max(few[-1][0], 599_900) == 100


def test_all_usable_rows_are_read_in_order_with_restarts_where_some_are_left_out(tmp_path):
    asked = plain_job(stored(tmp_path, 3000, quarantined=range(1000, 1300)), until=3500.0, since=1100.0)
    survey = _survey(asked)
    rows = _read(asked, survey, survey.usable)
    expected = [i for i in range(100, 2501) if not 1000 <= i < 1300]
    assert (survey.stored, survey.quarantined, survey.usable) == (2401, 300, len(expected))
    assert rows.values[:, 0].tolist() == expected
    assert (rows.timestamps - 1000.0).tolist() == expected
    assert (rows.timestamps[rows.restart] - 1000.0).tolist() == [100, 1300]
    everything = dataclasses.replace(asked, include_quarantined=True)
    assert _survey(everything).usable == 2401


def test_a_sample_begins_a_piece_at_each_block_and_keeps_rows_together(tmp_path):
    asked = plain_job(stored(tmp_path, 9000))
    rows = _read(asked, _survey(asked), 3000)
    assert len(rows.values) == 3000
    steps = np.diff(rows.values[:, 0])
    assert ((steps == 1.0) | rows.restart[1:]).all()
    assert rows.restart.sum() <= 3000 // BLOCK_ROWS
    np.testing.assert_array_equal(rows.values[:, 1], 3.0 * rows.values[:, 0])


def test_how_long_a_feature_may_stand_still_is_taken_from_all_rows_not_from_the_sample(tmp_path):
    fresh = np.zeros(2, np.bool_)
    with Store.open(tmp_path) as store:
        for i in range(6000):
            values = np.float32([i // 2500, i])
            store.add_row(Row("pump", float(i), ("slow", "fast"), values, fresh, i == 0), False, now=0.0)
        store.flush(0.0)
    asked = plain_job(tmp_path)
    assert _read(asked, _survey(asked), 2000).longest_run.tolist() == [2500, 1]


def test_stillness_by_chunks_is_that_of_the_whole():
    rng = np.random.default_rng(0)
    rows = rng.integers(0, 2, (500, 4)).astype(np.float32)
    rows[:, 1] = 7.0
    rows[100:140, 2] = 1.0
    rows[rng.random(500) < 0.1, 3] = np.nan
    still = _Stillness(4)
    for part in np.split(rows, sorted(rng.integers(0, 500, 12))):
        still.add(part)
    assert still.longest_run().tolist() == longest_runs(rows).tolist()


def test_features_are_those_of_the_newest_rows_then_older_ones_and_none_without_a_value(tmp_path):
    fresh = {n: np.zeros(n, np.bool_) for n in (2, 3)}
    with Store.open(tmp_path) as store:
        for i in range(100):
            store.add_row(Row("pump", float(i), ("old", "a"), np.float32([1, i]), fresh[2], i == 0), False, now=0.0)
        for i in range(100, 200):
            values = np.float32([i, 2 * i, np.nan])
            store.add_row(Row("pump", float(i), ("b", "a", "dead"), values, fresh[3]), False, now=0.0)
        store.flush(0.0)
    asked = plain_job(tmp_path)
    survey = _survey(asked)
    assert survey.features == ("b", "a", "dead", "old")
    rows = _read(asked, survey, 200)
    assert rows.features == ("b", "a", "old")
    assert rows.values[150].tolist()[:2] == [150.0, 300.0]
    assert np.isnan(rows.values[150, 2])
    assert np.isnan(rows.values[50, 0])


def test_what_was_just_confirmed_is_mostly_learned_and_not_held_out():
    settings = FitSettings(window=40)
    assert _held_out_rows(8000, np.zeros(8000, np.bool_), settings) == 1000
    assert _held_out_rows(8000, np.arange(8000) >= 7200, settings) == 400
    assert _held_out_rows(8000, np.arange(8000) < 800, settings) == 1000
    assert _held_out_rows(400, np.zeros(400, np.bool_), settings) == 120
    assert _held_out_rows(199, np.zeros(199, np.bool_), settings) == 0


# -- from a file -------------------------------------------------------------------------------------------------------


def test_a_file_is_read_instead_of_the_store_with_its_times_and_gaps(tmp_path):
    lines = ["datetime;a;note;b", *(f"2026-01-01T00:{i // 60:02}:{i % 60:02}Z;{i};text;{i / 4}" for i in range(100))]
    del lines[41:61]
    (tmp_path / "rows.csv").write_text("\n".join(lines))
    asked = plain_job(tmp_path, rows_file=str(tmp_path / "rows.csv"))
    survey = _survey(asked)
    assert (survey.stored, survey.quarantined, survey.usable) == (80, 0, 80)
    rows = _read(asked, survey, 80)
    assert rows.features == ("a", "b")
    assert rows.values[:, 0].tolist() == [*range(40), *range(60, 100)]
    assert np.flatnonzero(rows.restart).tolist() == [0, 40]
    assert rows.timestamps[1] - rows.timestamps[0] == 1.0
    (tmp_path / "rows.csv").write_text("time,a\n0,1\n1,2\n")
    assert _read(asked, _survey(asked), 2).timestamps.tolist() == [0.0, 1.0]


def test_rows_of_a_file_without_times_are_counted(tmp_path):
    (tmp_path / "rows.csv").write_text("a\n" + "\n".join(map(str, range(3000))))
    asked = plain_job(tmp_path, rows_file=str(tmp_path / "rows.csv"), interval_s=2.0)
    rows = _read(asked, _survey(asked), 3000)
    assert rows.timestamps.tolist() == [2.0 * i for i in range(3000)]
    assert rows.restart.sum() == 1


@pytest.mark.parametrize(
    ("text", "says"),
    [("time,a\nyesterday,1\n", r"rows.csv:2: 'yesterday' is no time"), ("time\n1\n", "no column to learn from")],
)
def test_a_file_that_cannot_be_learned_from_says_where(tmp_path, text, says):
    (tmp_path / "rows.csv").write_text(text)
    with pytest.raises(InputError, match=says):
        plan(plain_job(tmp_path, rows_file=str(tmp_path / "rows.csv")))


# -- the plan ----------------------------------------------------------------------------------------------------------


def test_a_plan_says_what_would_be_used(tmp_path):
    planned = plan(plain_job(stored(tmp_path, 2500, quarantined=range(100)), window=40))
    assert (planned.stored_rows, planned.quarantined_rows, planned.usable_rows, planned.rows) == (2500, 100, 2400, 2400)
    assert (planned.features, planned.windows, planned.batch) == (2, 2400, 256)
    assert (planned.shrunk, planned.refused) == ("", "")
    assert planned.predicted_peak_bytes == predicted_peak_bytes(2400, 2, FitSettings(window=40))
    assert planned.predicted_peak_bytes < planned.budget_bytes


def test_a_plan_that_must_shrink_says_to_what_and_why(tmp_path):
    folder = stored(tmp_path, 5000)
    asked = plan(plain_job(folder, max_rows=1000))
    assert asked.rows == 1000
    assert asked.shrunk.startswith("1000 of 5000 rows, in blocks spread over their whole span: as many as")
    budget = predicted_peak_bytes(3000, 2, FitSettings(window=15))
    tight = plan(plain_job(folder, budget_bytes=budget))
    assert tight.rows == 3000
    assert tight.shrunk.endswith("more do not fit the memory budget")
    assert tight.predicted_peak_bytes <= budget


def test_a_plan_that_cannot_be_done_says_what_to_do(tmp_path):
    folder = stored(tmp_path, 100)
    assert plan(plain_job(folder)).refused == ""
    assert "100 normal rows are stored and 120 are needed; wait" in plan(plain_job(folder, window=60)).refused
    assert "0 normal rows" in plan(plain_job(folder, stream="fan")).refused
    assert "raise retrain.memory_budget" in plan(plain_job(folder, budget_bytes=20 * MIB)).refused


@given(features=st.integers(1, 500), window=st.integers(1, 200), budget=st.integers(0, 1 << 30))
def test_as_many_rows_as_are_said_to_fit_are_predicted_within_the_budget(features, window, budget):
    settings = FitSettings(window=window)
    rows = rows_within(budget, features, settings)
    assert rows == 0 or predicted_peak_bytes(rows, features, settings) <= budget
    assert predicted_peak_bytes(rows + 1, features, settings) > budget


def test_a_model_that_cannot_be_written_is_said_in_one_line_and_no_traceback(tmp_path):
    write_job(plain_job(stored(tmp_path, 120), candidate="/proc/nowhere/candidate.npz"), tmp_path / "job.json")
    command = [sys.executable, "-m", "gon_edge.training.child", str(tmp_path / "job.json")]
    child = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert child.returncode != 0
    assert child.stderr == ""
    said = json.loads(child.stdout.splitlines()[-1])
    assert (said["outcome"], said["error"]) == ("failed", "StoreError")
    assert "make room on the disk" in said["reason"]


def test_a_child_whose_daemon_was_killed_ends_without_a_traceback(tmp_path):
    write_job(plain_job(stored(tmp_path, 120)), tmp_path / "job.json")
    command = [sys.executable, "-m", "gon_edge.training.child", str(tmp_path / "job.json")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as child:
        child.stdout.close()  # nobody is left to be told
        assert child.stderr.read() == ""
        assert child.wait(60) == 1
