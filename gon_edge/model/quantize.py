"""Symmetric int8 weights, one step size for each output channel.

``weight ≈ step[:, None] * values`` with values in [-127, 127].  Only storage is int8: numpy multiplies int8 by float
far slower than float32, so a layer is expanded once when a model is loaded.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class QuantizedLinear:
    """A linear layer's weights as int8.

    Attributes
    ----------
    values : ndarray of int8, shape (H, n)
    step : ndarray of float32, shape (H,)
        Weight units per int8 unit.
    """

    values: NDArray[np.int8]
    step: NDArray[np.float32]

    @classmethod
    def from_float(cls, weight: NDArray[np.floating]) -> QuantizedLinear:
        """Quantize ``weight`` (H, n), each row by its own largest magnitude; a row of zeros stays zero."""
        largest = np.abs(weight).max(axis=1)
        step = np.where(largest > 0.0, largest / 127.0, 1.0).astype(np.float32)
        return cls(np.rint(weight / step[:, None]).astype(np.int8), step)

    def dequantize(self) -> NDArray[np.float32]:
        """The weights as float32, shape (H, n): a new array."""
        return self.values.astype(np.float32) * self.step[:, None]

    def largest_error(self, weight: NDArray[np.floating]) -> float:
        """Largest absolute difference from ``weight``; at most half a step."""
        return float(np.abs(self.dequantize() - weight).max(initial=0.0))
