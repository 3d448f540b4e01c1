"""The scales of a model, from its window."""

from __future__ import annotations

import pytest

from gon_edge.training.settings import FitSettings


@pytest.mark.parametrize(
    ("window", "scales"), [(1, (1,)), (3, (1, 3)), (5, (1, 5)), (15, (1, 5, 15)), (40, (1, 5, 15, 40))]
)
def test_the_longest_scale_is_the_window_and_none_is_longer(window: int, scales: tuple[int, ...]) -> None:
    assert FitSettings(window=window).scales == scales
