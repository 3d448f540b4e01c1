"""Symmetric int8 weights, one step size for each output channel.

``weight ≈ step[:, None] * values`` with values in [-127, 127].  Only storage is int8: numpy multiplies int8 by float
far slower than float32, so a layer is expanded once when a model is loaded.  Who holds the expanded layer need not hold
the int8 weights as well: they can be made of it again.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


class QuantizedLinear:
    """A linear layer's weights as int8.

    Parameters
    ----------
    values : ndarray of int8, shape (H, n)
    step : ndarray of float32, shape (H,)
        Weight units per int8 unit.
    """

    __slots__ = ("_basis", "_mix", "_values", "step")

    def __init__(self, values: NDArray[np.int8], step: NDArray[np.float32]) -> None:
        self.step = step
        self._values: NDArray[np.int8] | None = values
        self._mix = self._basis = step  # of no use while the values are there

    @property
    def values(self) -> NDArray[np.int8]:
        """The weights in steps, shape (H, n); a new array where they are `spanned_by` others."""
        if self._values is not None:
            return self._values
        mix = np.zeros((len(self.step), len(self.step)), np.float32)
        mix[np.tril_indices(len(mix))] = self._mix
        values: NDArray[np.int8] = np.rint(mix @ self._basis / self.step[:, None]).astype(np.int8)
        return values

    def spanned_by(self, basis: NDArray[np.float32]) -> QuantizedLinear:
        """The same weights, to the last bit, in less memory beside the orthonormal rows (H, n) made of them.

        What is kept is how much of each of these is in each row of the weights: nothing of those after it, as Gram and
        Schmidt take one row after the other.
        """
        other = QuantizedLinear(self.values, self.step)
        mix = self.dequantize() @ basis.T
        other._basis, other._mix, other._values = basis, mix[np.tril_indices(len(mix))], None
        return other if np.array_equal(other.values, self.values) else self

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


def orthonormal_rows(weight: NDArray[np.floating]) -> NDArray[np.float32]:
    """Rows (H, n) spanning the same space as ``weight``'s, orthonormal to float32 rounding.

    int8 rounding tilts the rows a little; orthonormal again, ``||x||² - ||R x||²`` is exactly what R does not see.

    Gram-Schmidt, twice over each row, which is as exact as ``numpy.linalg.qr``: the rows are nearly orthogonal, and
    the daemon needs nothing else of LAPACK, whose pages would cost it 1 MiB.
    """
    basis = np.zeros(weight.shape)
    for h, row in enumerate(weight.astype(np.float64)):
        for _ in range(2):
            row = row - (basis[:h] @ row) @ basis[:h]
        length = float(np.sqrt(row @ row))
        basis[h] = row / length if length > 0.0 else 0.0
    return basis.astype(np.float32)
