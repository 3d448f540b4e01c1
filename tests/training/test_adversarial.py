"""What adversarial training is for, and what it leaves alone."""

from __future__ import annotations

import numpy as np
import oracle
import pytest
from plants import waves

from gon_edge.training.adversarial import train_adversarially
from gon_edge.training.fit import fit_discriminator, fit_model
from gon_edge.training.rows import TrainingRows
from gon_edge.training.settings import FitSettings

SMALL = FitSettings(window=10, hidden=6, prototypes=3)


@pytest.mark.parametrize("seed", range(3))
def test_adversarial_training_tells_windows_from_noise(seed):
    # Fakes started at the data leave the loss at ln 2 and D at 0.5 on everything, real windows and noise alike.
    rng = np.random.default_rng(seed)
    model = fit_model(waves(seed=seed), settings=SMALL, rng=rng)
    z = model.scaler.transform(waves(400, seed=10 + seed))
    real = oracle.windows(z, SMALL.window)[SMALL.window :]
    noise = rng.standard_normal(real.shape).astype(np.float32)
    real_level, noise_level = ((1.0 / (1.0 + np.exp(-model.discriminator.forward(x)))).mean() for x in (real, noise))
    assert real_level - noise_level > 0.2


def test_adversarial_training_moves_prototypes_and_bias_and_nothing_else():
    rng = np.random.default_rng(5)
    data = TrainingRows(waves().astype(np.float32), np.zeros(600, np.bool_), SMALL.window)
    before = fit_discriminator(data, np.arange(600), SMALL, rng)
    after = train_adversarially(before, data, np.arange(600), rng)
    moved = {key for key, value in after.parameters().items() if not np.array_equal(value, before.parameters()[key])}
    assert moved == {"bias", *(f"prototypes{s}" for s in range(len(before.scales)))}
