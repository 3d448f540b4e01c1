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
