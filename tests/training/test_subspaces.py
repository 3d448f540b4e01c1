"""What training starts from, against principal components and known modes."""

from __future__ import annotations

import numpy as np
import oracle
import pytest
from plants import waves

from gon_edge.training.fit import fit_discriminator, fit_model
from gon_edge.training.rows import TrainingRows
from gon_edge.training.settings import FitSettings

SMALL = FitSettings(window=10, hidden=6, prototypes=3)


def test_the_first_layer_sees_as_much_variance_as_the_principal_components():
    z = waves(800).astype(np.float32)
    data = TrainingRows(z, np.zeros(800, np.bool_), SMALL.window)
    net = fit_discriminator(data, np.arange(800), SMALL, np.random.default_rng(0))
    views = oracle.windows(z, SMALL.window)
    for scale, hidden in zip(net.scales, net.hidden(data.windows(np.arange(800))), strict=True):
        x = views[:, SMALL.window - scale.rows :].reshape(800, -1).astype(np.float64)
        possible = np.sort(np.linalg.eigvalsh(x.T @ x / 800))[::-1][: len(scale.gain)].sum()
        assert ((hidden / scale.gain) ** 2).sum(axis=1).mean() == pytest.approx(possible, rel=0.01)


def test_the_prediction_finds_how_a_row_follows_from_the_one_before():
    # x turns by a tenth of a circle a row, and y is noise that nothing foretells.
    rng = np.random.default_rng(3)
    turn = 2.0 * np.pi * np.arange(3000) / 10.0
    z = np.column_stack([np.cos(turn), np.sin(turn), rng.normal(size=3000)]) + 0.01 * rng.normal(size=(3000, 3))
    data = TrainingRows(z.astype(np.float32), np.zeros(3000, np.bool_), SMALL.window)
    net = fit_discriminator(data, np.arange(3000), SMALL, rng)
    ahead = net.prediction.weight.dequantize() @ net.basis[0]
    c, s = np.cos(0.2 * np.pi), np.sin(0.2 * np.pi)
    shrunk = 0.5 / (0.5 + 0.1)  # by the ridge, beside a variance of a half
    np.testing.assert_allclose(
        ahead, [[c * shrunk, -s * shrunk, 0.0], [s * shrunk, c * shrunk, 0.0], [0, 0, 0]], atol=0.05
    )
    gain = net.prediction.gain
    assert gain[:2].min() > 1.5 * gain[2]


def test_nothing_is_foretold_across_a_restart():
    # Within a piece rows stay where they are, and from one to the next they change sides.
    rng = np.random.default_rng(5)
    restart = np.arange(1000) % 20 == 0
    z = (np.where(np.cumsum(restart) % 2, 1.0, -1.0) + 0.01 * rng.normal(size=1000)).astype(np.float32)[:, None]
    held = fit_discriminator(TrainingRows(z, restart, SMALL.window), np.arange(1000), SMALL, np.random.default_rng(0))
    joined = TrainingRows(z, np.zeros(1000, np.bool_), SMALL.window)
    torn = fit_discriminator(joined, np.arange(1000), SMALL, np.random.default_rng(0))
    assert held.prediction.gain[0] > 2.0 * torn.prediction.gain[0]


def test_rows_that_all_begin_a_piece_foretell_nothing_and_do_no_harm():
    z = waves(60).astype(np.float32)
    net = fit_discriminator(TrainingRows(z, np.ones(60, np.bool_), 10), np.arange(60), SMALL, np.random.default_rng(0))
    assert not net.prediction.weight.values.any()
    assert np.isfinite(net.prediction.gain).all()
    assert net.prediction.tau > 0.0


def test_a_window_of_one_row_has_no_row_before_it():
    model = fit_model(waves(), settings=FitSettings(window=1), rng=np.random.default_rng(0))
    assert model.discriminator.prediction is None


def test_gains_keep_the_bound_that_climbs_rely_on():
    # generate() steps by 1 / kappa; with gain² above kappa a step could overshoot and D fall.
    model = fit_model(waves(), settings=SMALL, rng=np.random.default_rng(0))
    for scale in model.discriminator.scales:
        assert (scale.gain**2 <= scale.kappa * 1.0001).all()


def test_prototypes_lie_among_the_windows():
    rng = np.random.default_rng(4)
    modes = np.tile([[-5.0, 0.0], [5.0, 0.0], [0.0, 5.0]], (200, 1))
    model = fit_model(modes + 0.1 * rng.normal(size=modes.shape), settings=FitSettings(window=1, prototypes=3), rng=rng)
    net = model.discriminator
    z = model.scaler.transform(modes[:3])[:, None]
    between = model.scaler.transform(modes[:3].mean(axis=0))[None, None]
    assert net.forward(z).min() > net.forward(between)[0] + 0.5
