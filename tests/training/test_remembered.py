"""What a model remembers of states whose rows are gone: made by its own network, and learned again."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
from jobs import plain_job

from gon_edge.events import Row
from gon_edge.model.file import load_model
from gon_edge.state.chunk import RowChunk
from gon_edge.state.store import Store
from gon_edge.training.fit import fit_model
from gon_edge.training.gate import scored
from gon_edge.training.job import write_job
from gon_edge.training.plan import plan
from gon_edge.training.remembered import most_remembered, remembered, visits
from gon_edge.training.settings import FitSettings
from gon_edge.training.source import Source

FEATURES = ("flow", "power", "temperature")
SETTINGS = FitSettings(window=20)
OLD, NEW, BROKEN = (10.0, 2.0, 60.0), (25.0, 5.0, 61.0), (2.0, 5.0, 90.0)


def state(levels, count, seed):
    """Rows (T, F) around levels; flow and power go together."""
    rng = np.random.default_rng(seed)
    load = rng.normal(0.0, 1.0, (count, 1))
    return (np.array(levels) + load * (1.0, 0.2, 0.0) + rng.normal(0.0, 0.1, (count, 3))).astype(np.float32)


def chunk(*parts, since=1000.0):
    values = np.concatenate(parts)
    restart = np.zeros(len(values), np.bool_)
    restart[np.cumsum([0, *map(len, parts)])[:-1]] = True
    return RowChunk(FEATURES, since + np.arange(len(values)), values, restart, np.zeros(len(values), np.bool_))


@pytest.fixture(scope="module")
def model():
    rows = chunk(state(OLD, 700, 0), state(NEW, 1400, 1))
    return made_of(rows)


def made_of(rows):
    rng = np.random.default_rng(0)
    model = fit_model(rows.values, features=rows.features, restart=rows.restart, settings=SETTINGS, rng=rng)
    return model.with_lineage(visits=visits(model, rows, None, rng))


def asked(model, rows, *faults):
    return remembered(model, rows, faults, 1.0, np.random.default_rng(0))


def test_windows_of_a_state_that_the_rows_do_not_show_are_made_and_come_before_them(model):
    rows = chunk(state(NEW, 1000, 2), since=9000.0)
    made = asked(model, rows)
    assert len(made.values) == most_remembered(1000, 3, 20) == 240
    np.testing.assert_array_equal(np.flatnonzero(made.restart), np.arange(0, 240, 20))
    assert made.timestamps[-1] == 8999.0
    assert (np.abs(made.values - OLD).mean(axis=0) < np.abs(made.values - NEW).mean(axis=0)).all()
    load = made.values[:, :2] - made.values[:, :2].mean(axis=0)
    assert np.corrcoef(load.T)[0, 1] > 0.6  # what goes together still does


def test_nothing_is_remembered_that_the_rows_still_show(model):
    assert asked(model, chunk(state(OLD, 400, 3), state(NEW, 600, 4))) is None


def test_what_a_person_called_a_fault_after_it_was_learned_is_not_remembered(model):
    rows, fault = chunk(state(NEW, 1000, 2)), chunk(state(OLD, 200, 5))
    assert asked(model, rows, fault) is None
    assert asked(model, rows, chunk(state(BROKEN, 200, 5))) is not None  # this was never learned


def test_a_feature_that_the_model_does_not_know_is_unknown_in_what_it_remembers(model):
    rows = chunk(state(NEW, 1000, 2))
    wider = RowChunk(
        ("humidity", *FEATURES), rows.timestamps, np.insert(rows.values, 0, 40.0, axis=1), rows.restart, rows.restart
    )
    made = asked(model, wider)
    assert np.isnan(made.values[:, 0]).all()
    assert (np.abs(made.values[:, 1:] - OLD).mean(axis=0) < np.abs(made.values[:, 1:] - NEW).mean(axis=0)).all()


def test_a_counter_is_remembered_by_its_rate():
    rng = np.random.default_rng(0)
    rate = np.concatenate([rng.normal(3.0, 0.2, 700), rng.normal(9.0, 0.2, 1400)])
    values = np.column_stack([np.cumsum(np.maximum(rate, 0.1)), rate + rng.normal(0.0, 0.1, 2100)]).astype(np.float32)
    restart = np.arange(2100) % 700 == 0
    rows = RowChunk(("kwh", "kw"), 1000.0 + np.arange(2100.0), values, restart, np.zeros(2100, np.bool_))
    known = made_of(rows)
    assert known.rising == ("kwh",)
    made = asked(known, RowChunk(rows.features, *(part[800:] for part in (rows.timestamps, values, restart, restart))))
    rates = np.diff(made.values[:, 0].reshape(-1, 20), axis=1)
    assert rates.mean() == pytest.approx(3.0, abs=0.3)


def test_too_few_rows_get_nothing_beside_them(model):
    assert most_remembered(100, 3, 20) == 0
    assert asked(model, chunk(state(NEW, 100, 2))) is None
    assert most_remembered(100_000, 3, 20) == 64 * 20
    assert most_remembered(100_000, 500, 40) == 0


def trained(folder, version, **changes):
    """The model of a round on the stored rows, in the place of the one in use."""
    champion = folder / "model.npz"
    job = plain_job(
        folder,
        window=20,
        version=str(version),
        champion=str(champion) if champion.exists() else "",
        candidate=str(folder / "candidate.npz"),
        max_rows=20_000,
        force=True,
        **changes,
    )
    assert plan(job).predicted_peak_bytes >= plan(plain_job(folder, window=20, max_rows=20_000)).predicted_peak_bytes
    write_job(job, folder / "job.json")
    told = json.dumps(str(folder / "job.json")) + "\n"
    command = [sys.executable, "-m", "gon_edge.training.child"]
    done = subprocess.run(command, input=told, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout[-500:] + done.stderr
    (folder / "candidate.npz").replace(champion)
    return load_model(champion)


def add(store, rows, since):
    masked = np.zeros(3, np.bool_)
    for i, values in enumerate(rows):
        store.add_row(Row("pump", since + i, FEATURES, values, masked, i == 0), False, now=0.0)
    assert store.flush(0.0)


def share_in_alarm(model, rows):
    scores, whole = scored(model, rows, np.arange(len(rows)) == 0, FEATURES)
    return (scores[whole] > model.threshold).mean()


def test_a_state_outlives_its_rows_by_trainings_unless_a_person_wants_only_new_rows(tmp_path):
    with Store.open(tmp_path, rows_per_stream=2000) as store:
        add(store, np.concatenate([state(OLD, 600, 0), state(NEW, 1000, 1)]), 1000.0)
    first = trained(tmp_path, 1)
    assert (first.lineage["remembers"], first.lineage["remembered_rows"]) == (1000.0, 0)
    with Store.open(tmp_path, rows_per_stream=2000) as store:
        add(store, state(NEW, 3000, 2), 10_000.0)
    assert Source(plain_job(tmp_path)).oldest > 2600.0  # no row of the old state is left
    for version in (2, 3):
        model = trained(tmp_path, version)
        assert model.lineage["remembered_rows"] > 0
        assert model.lineage["remembers"] == 1000.0
        assert share_in_alarm(model, state(OLD, 300, 7)) < 0.02
        assert share_in_alarm(model, state(BROKEN, 300, 7)) == 1.0
    model = trained(tmp_path, 4, since=10_000.0)
    assert model.lineage["remembered_rows"] == 0
    assert share_in_alarm(model, state(OLD, 300, 7)) == 1.0
