"""The sliding window against a list, and the scaler on what sensors really send."""

from __future__ import annotations

import numpy as np
import pytest

from gon_edge.model.window import CLIP, Scaler, SlidingWindow


@pytest.mark.parametrize("length", [1, 2, 7])
def test_the_view_is_the_last_rows_of_a_list(length):
    rng = np.random.default_rng(0)
    window = SlidingWindow(rows=length, features=3)
    rows = rng.normal(size=(40, 3)).astype(np.float32)
    kept = []
    for t, row in enumerate(rows):
        if t % 17 == 0:
            window.restart(row)
            kept = [row] * length
        else:
            window.push(row)
            kept = [*kept[1:], row]
        np.testing.assert_array_equal(window.view(), kept)


def test_the_view_is_contiguous_and_no_copy():
    window = SlidingWindow(rows=5, features=2)
    for t in range(12):
        window.push(np.full(2, t, np.float32))
        assert window.view().flags.c_contiguous
        assert np.shares_memory(window.view(), window.view())


def test_scaled_rows_have_mean_0_and_deviation_1():
    rows = np.random.default_rng(2).normal([5.0, -300.0], [0.01, 40.0], (2000, 2))
    z = Scaler.fit(rows).transform(rows)
    np.testing.assert_allclose(z.mean(axis=0), 0.0, atol=1e-5)
    np.testing.assert_allclose(z.std(axis=0), 1.0, rtol=1e-5)
    assert z.dtype == np.float32


def test_scaling_back_gives_engineering_units():
    rows = np.random.default_rng(3).normal([5.0, -300.0], [0.01, 40.0], (50, 2))
    scaler = Scaler.fit(rows)
    np.testing.assert_allclose(scaler.inverse(scaler.transform(rows)), rows, rtol=1e-6)


def test_a_constant_column_is_judged_by_its_magnitude():
    scaler = Scaler.fit(np.full((100, 3), [50.0, 0.0, -4.0]))
    np.testing.assert_array_equal(scaler.transform([[50.0, 0.0, -4.0]]), 0.0)
    np.testing.assert_allclose(scaler.transform([[100.0, 1.0, -5.0]]), [[1.0, 1.0, -0.25]])


def test_rounding_noise_on_a_large_constant_is_a_constant():
    # The deviation of 1e9 ± 0.01 is below float32's resolution there; dividing by it made noise look like faults.
    rows = 1e9 + 0.01 * np.random.default_rng(4).normal(size=(100, 1))
    assert np.abs(Scaler.fit(rows).transform(rows + 1.0)).max() < 1e-6


def test_nan_and_infinities_are_left_out_of_the_fit():
    rows = np.array([[1.0], [np.nan], [3.0], [np.inf], [-np.inf]])
    scaler = Scaler.fit(rows)
    assert scaler.mean[0] == 2.0
    assert scaler.scale[0] == 1.0
    np.testing.assert_array_equal(scaler.transform(rows).ravel(), np.float32([-1.0, np.nan, 1.0, CLIP, -CLIP]))


def test_a_column_without_a_single_value_stays_harmless():
    scaler = Scaler.fit(np.full((10, 1), np.nan))
    assert (scaler.mean[0], scaler.scale[0]) == (0.0, 1.0)


def test_one_row_can_be_fitted():
    scaler = Scaler.fit([[3.0, 0.0]])
    np.testing.assert_array_equal(scaler.transform([[3.0, 0.0]]), 0.0)


def test_an_outlier_is_clipped_and_keeps_its_sign():
    scaler = Scaler.fit(np.random.default_rng(5).normal(size=(100, 1)))
    np.testing.assert_array_equal(scaler.transform([[1e30], [-1e30]]).ravel(), [CLIP, -CLIP])


@pytest.mark.filterwarnings("error")
def test_a_reading_at_the_end_of_its_type_lies_far_out_but_at_a_finite_place():
    # An infinity minus the infinity it moved to is NaN: a reading stuck there counted as missing.
    scaler = Scaler(np.zeros(1), np.full(1, 1e-3))
    most = np.finfo(np.float64).max
    z = scaler.standardise([[most], [-most], [np.inf], [1e35], [np.nan], [1e20]])
    assert np.isfinite(z.astype(np.float32)[[0, 1, 2, 3, 5]]).all()
    assert (z[:4] * [[1.0], [-1.0], [1.0], [1.0]] >= 1e30).all()
    assert np.isnan(z[4, 0])
    assert z[5, 0] == 1e23
    np.testing.assert_array_equal(scaler.transform([[most], [-most]]).ravel(), [CLIP, -CLIP])


def test_a_small_signal_on_a_large_offset_survives_float32():
    # 1.7e9 + sin is lost in float32: the subtraction has to happen in float64.
    wave = np.sin(np.arange(400) / 9.0)[:, None]
    z = Scaler.fit(1e4 + wave).transform(1e4 + wave)
    np.testing.assert_allclose(z, (wave - wave.mean()) / wave.std(), atol=1e-5)
