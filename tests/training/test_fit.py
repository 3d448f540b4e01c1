"""Fitting a model: each step against an oracle or against what it is for, and the rows nobody promised to be nice."""

from __future__ import annotations

import numpy as np
import oracle
import pytest
from plants import waves

import gon_edge.training.fit
from gon_edge import GONDetector
from gon_edge.errors import NotEnoughData
from gon_edge.model.file import dumps
from gon_edge.model.smoothing import Smoother
from gon_edge.training.fit import fit_discriminator, fit_model, odd_rows
from gon_edge.training.rows import TrainingRows
from gon_edge.training.settings import FitSettings

SMALL = FitSettings(window=10, hidden=6, prototypes=3)


@pytest.mark.parametrize("rows", [7, 40, 45, 100])
def test_the_newest_rows_are_judged_by_a_model_of_those_before_them(rows, monkeypatch):
    trained, judged = [], []

    def watched(data, ends, settings, rng, tell, fit=gon_edge.training.fit.fit_discriminator):
        trained.append(ends.tolist())
        return fit(data, ends, settings, rng)

    def watched_energies(data, net, ends, energies=TrainingRows.energies):
        judged.append(ends.tolist())
        return energies(data, net, ends)

    monkeypatch.setattr(gon_edge.training.fit, "fit_discriminator", watched)
    monkeypatch.setattr(gon_edge.training.fit, "odd_rows", lambda raw, *_: np.zeros(len(raw), np.bool_))
    monkeypatch.setattr(TrainingRows, "energies", watched_energies)
    fit_model(waves(rows), settings=SMALL, rng=np.random.default_rng(0))
    expected_judged, expected_trained = oracle.held_out(rows, SMALL.window)
    assert trained == [expected_trained, list(range(rows))]
    assert expected_judged in judged


@pytest.mark.parametrize("window", [1, 2, 5, 40])
@pytest.mark.parametrize("rows", [1, 2, 3, 8, 17, 18, 41])
def test_records_of_any_length_can_be_learned(rows, window):
    X = np.random.default_rng(rows).normal(size=(rows, 2))
    detector = GONDetector(window=window).fit(X)
    assert np.isfinite(detector.decision_function(X)).all()
    assert np.isfinite(detector.threshold_)


@pytest.mark.parametrize("seed", range(3))
def test_a_state_that_only_the_newest_rows_hold_makes_no_deaf_model(seed):
    rng = np.random.default_rng(seed)
    home, work = np.zeros(3), np.array([300.0, 200.0, 400.0])
    rows = rng.normal(size=(1500, 3)) + np.where(np.arange(1500)[:, None] < 1200, home, work)
    detector = GONDetector().fit(rows)
    later = rng.normal(size=(300, 3)) + work
    later[200:, 0] += 50.0
    alarms = detector.predict(later).astype(bool)
    assert not alarms[:200].any()
    assert alarms[220:].mean() > 0.9


@pytest.mark.parametrize("seed", range(4))
def test_half_a_minute_to_learn_from_is_no_permanent_alarm(seed):
    rng = np.random.default_rng(seed)
    detector = GONDetector(random_state=seed).fit(rng.normal(size=(60, 10)))
    assert detector.predict(rng.normal(size=(1000, 10))).mean() < 0.1


def test_the_same_seed_gives_the_same_bytes_and_another_one_does_not():
    rows = waves(300)
    models = [dumps(fit_model(rows, settings=SMALL, rng=np.random.default_rng(seed))) for seed in (0, 0, 1)]
    assert models[0] == models[1] != models[2]


def test_the_threshold_lies_above_nearly_all_training_scores():
    model = fit_model(waves(1200), settings=SMALL, rng=np.random.default_rng(0))
    net = model.discriminator
    views = oracle.windows(model.scaler.transform(waves(1200)), SMALL.window)
    scores = net.abnormality(net.energies(views))
    scores = Smoother(model.smoothing, SMALL.window).smooth(scores, np.zeros(1200, np.bool_))
    assert (scores > model.threshold).mean() < 0.01
    assert scores.min() < model.typical < model.threshold


def test_a_gap_in_training_is_no_jump():
    # Pieces at different levels: without the restarts the steps between them would be learned as normal.
    level = 30.0 * (np.arange(600) // 50 % 2)
    rows = waves(600) + level[:, None]
    restart = np.arange(600) % 50 == 0
    across = rows[245:255]
    levels = []
    for pieces in (None, restart):
        model = fit_model(rows, restart=pieces, settings=SMALL, rng=np.random.default_rng(0))
        levels.append(model.discriminator.forward(model.scaler.transform(across)[None])[0])
    assert levels[1] < levels[0]


@pytest.mark.parametrize("at", [0, 150, 299, 588])
def test_a_hidden_fault_is_left_out_of_the_training_rows(at):
    # Two hundredths of the rows: in the model they stretched the scaler by 10 and set a threshold nothing reached.
    rows = waves(600)
    rows[at : at + 12, 1:3] += 50.0
    model = fit_model(rows, settings=SMALL, rng=np.random.default_rng(0))
    clean = fit_model(waves(600), settings=SMALL, rng=np.random.default_rng(0))
    np.testing.assert_allclose(model.scaler.scale, clean.scaler.scale, rtol=0.1)
    assert model.threshold < 1.5 * clean.threshold


def test_no_more_than_a_bounded_share_of_rows_is_left_out():
    rng = np.random.default_rng(7)
    for share in (0.01, 0.02, 0.05, 0.2):
        rows = waves(600)
        rows[200 : 200 + int(600 * share)] += 100.0
        odd = odd_rows(rows, np.zeros(600, np.bool_), SMALL, rng)
        assert odd.mean() <= 0.03
        assert not odd[:190].any()


def test_a_rare_mode_that_comes_back_is_kept():
    rows = waves(900)
    for start in (100, 400, 700):
        rows[start : start + 8] += 20.0
    assert not odd_rows(rows, np.zeros(900, np.bool_), SMALL, np.random.default_rng(0)).any()


def test_rows_without_anything_odd_are_all_kept():
    for seed in range(3):
        rows = np.column_stack([waves(600, seed=seed), np.full(600, 3.0), np.full(600, np.nan)])
        assert not odd_rows(rows, np.zeros(600, np.bool_), SMALL, np.random.default_rng(seed)).any()


def test_longest_runs_are_those_of_a_loop():
    rows = np.random.default_rng(6).integers(0, 2, (80, 5)).astype(float)
    model = fit_model(rows, settings=SMALL, rng=np.random.default_rng(0))
    assert model.longest_run.tolist() == oracle.longest_runs(rows)


def test_a_feature_that_never_changed_is_never_called_frozen():
    # It was reported missing after ten times the training rows.
    rows = np.column_stack([waves(100, 1), np.full(100, 3.0), np.full(100, np.nan)])
    model = fit_model(rows, settings=SMALL, rng=np.random.default_rng(0))
    assert model.longest_run.tolist() == [1, np.iinfo(np.int32).max, np.iinfo(np.int32).max]


@pytest.mark.parametrize(("rows", "features"), [(1, 1), (2, 3), (9, 1), (41, 2)])
def test_very_few_rows_still_give_a_usable_model(rows, features):
    model = fit_model(waves(rows, features), rng=np.random.default_rng(0))
    net = model.discriminator
    assert np.isfinite(net.forward(np.zeros((1, net.window, features), np.float32))).all()
    assert np.isfinite([model.threshold, model.typical]).all()


@pytest.mark.parametrize("rows", [np.empty((0, 3)), np.empty((3, 0)), np.zeros(5), np.zeros((2, 2, 2))], ids=np.shape)
def test_no_rows_are_refused_with_the_shape(rows):
    with pytest.raises(NotEnoughData, match="shape"):
        fit_model(rows, rng=np.random.default_rng(0))


def test_constant_and_missing_columns_are_fitted():
    rows = np.column_stack([waves(200, 2), np.zeros(200), np.full(200, 7.0), np.full(200, np.nan)])
    rows[::9, 0] = np.nan
    model = fit_model(rows, settings=SMALL, rng=np.random.default_rng(0))
    assert all(np.isfinite(value).all() for value in model.discriminator.parameters().values())
    assert np.isfinite(model.threshold)


def test_names_are_kept_in_order():
    model = fit_model(waves(60, 2), features=["hum", "temp"], settings=SMALL, rng=np.random.default_rng(0))
    assert model.features == ("hum", "temp")
    assert fit_model(waves(60, 2), settings=SMALL, rng=np.random.default_rng(0)).features == ("x0", "x1")


def test_progress_runs_through_the_phases_to_the_end():
    told = []
    fit_model(waves(60), settings=SMALL, rng=np.random.default_rng(0), progress=lambda *step: told.append(step))
    phases, shares, losses = zip(*told, strict=True)
    assert list(dict.fromkeys(phases)) == ["screen", "calibrate", "fit", "done"]
    assert told[-1] == ("done", 1.0, None)
    assert shares[0] == 0.0
    assert list(shares) == sorted(shares)
    assert all(loss is None or 0.0 < loss < 100.0 for loss in losses)
    assert sum(loss is not None for loss in losses) == 2 * 6  # the older rows and the whole, every tenth step


def test_no_more_windows_than_asked_for_are_looked_at():
    settings = FitSettings(window=5, hidden=4, prototypes=2, max_windows=50)
    rng = np.random.default_rng(0)
    data = TrainingRows(waves(2000).astype(np.float32), np.zeros(2000, np.bool_), 5)
    looked_at = set()
    windows = TrainingRows.windows

    class Watched(TrainingRows):
        def windows(self, ends):
            looked_at.update(ends.tolist())
            return windows(self, ends)

    fit_discriminator(Watched(data.z, np.zeros(2000, np.bool_), 5), np.arange(2000), settings, rng)
    assert len(looked_at) <= 50
