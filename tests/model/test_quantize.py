"""int8 weights: how far they are from the float ones, and that no row can spoil another."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gon_edge.model.quantize import QuantizedLinear


@settings(max_examples=60)
@given(seed=st.integers(0, 2**32 - 1), rows=st.integers(1, 9), columns=st.integers(1, 50), power=st.integers(-20, 20))
def test_no_weight_is_further_off_than_half_a_step(seed, rows, columns, power):
    weight = (np.random.default_rng(seed).normal(size=(rows, columns)) * 10.0**power).astype(np.float32)
    quantized = QuantizedLinear.from_float(weight)
    error = np.abs(quantized.dequantize() - weight)
    assert (error <= 0.5001 * quantized.step[:, None]).all()
    assert quantized.largest_error(weight) == error.max()


@pytest.mark.parametrize("row", [0, 1, 2])
def test_each_row_has_its_own_step(row):
    weight = np.float32([[1e-3, -5e-4], [1.0, 0.5], [200.0, -400.0]])
    quantized = QuantizedLinear.from_float(weight)
    assert abs(quantized.values[row]).max() == 127
    np.testing.assert_allclose(quantized.dequantize()[row], weight[row], rtol=1e-2)


def test_a_row_of_zeros_stays_zero():
    quantized = QuantizedLinear.from_float(np.float32([[0.0, 0.0], [1.0, -1.0]]))
    np.testing.assert_array_equal(quantized.dequantize()[0], 0.0)


def test_minus_128_is_never_used():
    weight = np.random.default_rng(0).normal(size=(50, 50)).astype(np.float32)
    assert QuantizedLinear.from_float(weight).values.min() >= -127


def test_quantizing_the_quantized_changes_nothing():
    weight = np.random.default_rng(1).normal(size=(4, 30)).astype(np.float32)
    once = QuantizedLinear.from_float(weight)
    np.testing.assert_array_equal(QuantizedLinear.from_float(once.dequantize()).values, once.values)
