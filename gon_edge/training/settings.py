"""How a model is fitted: the choices that a job carries and `fit` obeys.

A module of its own, so that the daemon and the commands can order a training without loading what does it.
"""

from __future__ import annotations

from dataclasses import dataclass

SCALES = (1, 5, 15)
"""Scales below the whole window, in rows.  Any three or four between 1 and 40 gave a mean average precision within 0.02
of each other on the development sets; fewer than three lost more."""


@dataclass(frozen=True, slots=True)
class FitSettings:
    """How a model is fitted.

    Attributes
    ----------
    window : int
        W, rows; the longest scale.
    hidden : int
        H, units of the first layer on each scale.
    prototypes : int
        K on each scale.
    smoothing : float
        Weight of the newest row in the quick average of scores, 0 < smoothing <= 1; see `Smoother`.
    risk : float
        False alerts allowed for one normal row.  1e-5 is one a day at 1 Hz.
    max_windows : int
        Windows sampled for one fit.
    counter, gauge : tuple of str
        Shell patterns of features that are counters, or are none, whatever their rows look like.
    """

    window: int = 40
    hidden: int = 16
    prototypes: int = 8
    smoothing: float = 0.3
    risk: float = 1e-5
    max_windows: int = 20_000
    counter: tuple[str, ...] = ()
    gauge: tuple[str, ...] = ()

    @property
    def scales(self) -> tuple[int, ...]:
        """Rows of each scale, shortest first."""
        return (*(rows for rows in SCALES if rows < self.window), self.window)
