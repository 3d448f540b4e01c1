"""Rows of made-up plants, for tests of models."""

from __future__ import annotations

import numpy as np

F = 8
NAMES = tuple(f"x{i}" for i in range(F))
GAIN = np.linspace(1.0, 100.0, F)
OFFSET = np.linspace(-50.0, 1000.0, F)


def plant(rows, seed=0, features=F):
    """A plant of three oscillations; sensors of very different units each see a mixture, float32 as rows are."""
    rng = np.random.default_rng(seed)
    t = np.arange(rows)
    sources = np.stack([np.sin(t / 20.0), np.cos(t / 33.0), np.sin(t / 7.0)], axis=1)
    mixture = np.random.default_rng(1).normal(size=(3, features))
    readings = sources @ mixture + 0.1 * rng.normal(size=(rows, features))
    return (readings * np.resize(GAIN, features) + np.resize(OFFSET, features)).astype(np.float32)


def waves(rows=600, features=5, seed=0, noise=0.1):
    """Three oscillations seen by every sensor in its own mixture."""
    rng = np.random.default_rng(seed)
    t = np.arange(rows)
    sources = np.stack([np.sin(t / 20.0), np.cos(t / 33.0), np.sin(t / 7.0)], axis=1)
    mixture = np.random.default_rng(1).normal(size=(3, features))
    return sources @ mixture + noise * rng.normal(size=(rows, features))
