"""int8 weights: how far they are from the float ones, and that no row can spoil another."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gon_edge.model.quantize import QuantizedLinear, orthonormal_rows


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


@settings(max_examples=60)
@given(seed=st.integers(0, 2**32 - 1), rows=st.integers(1, 17), columns=st.integers(1, 400), power=st.integers(-15, 15))
def test_weights_made_of_their_orthonormal_rows_are_the_same_to_the_last_bit(seed, rows, columns, power):
    rng = np.random.default_rng(seed)
    weight = (rng.normal(size=(rows, columns)) * 10.0 ** rng.uniform(-3, 3, (rows, 1)) * 10.0**power).astype(np.float32)
    quantized = QuantizedLinear.from_float(weight)
    spanned = quantized.spanned_by(orthonormal_rows(quantized.dequantize()))
    np.testing.assert_array_equal(spanned.values, quantized.values)
    np.testing.assert_array_equal(spanned.dequantize(), quantized.dequantize())


def test_weights_that_their_basis_does_not_give_are_kept_as_they_are():
    quantized = QuantizedLinear.from_float(np.float32([[1.0, -1.0], [0.5, 1.0]]))
    assert quantized.spanned_by(np.zeros((2, 2), np.float32)) is quantized
    assert quantized.spanned_by(orthonormal_rows(quantized.dequantize())) is not quantized
