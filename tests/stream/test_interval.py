"""The interval of a grid from its first readings; what a stream makes of them is in test_align."""

import pytest

from gon_edge.events import Reading
from gon_edge.stream.interval import LEARNING_TICKS, Learning, Received, nice_interval


@pytest.mark.parametrize(
    ("seconds", "nice"),
    [
        (1.0, 1.0),
        (0.98, 1.0),
        (1.09, 1.0),
        (59.0, 60.0),
        (0.0999, 0.1),
        (7.03123, 7.03),
        (0.033333, 0.0333),
        (0.0001, 0.01),
        (86400.0, 86400.0),
        (3500, 3600.0),
        (13, 13.0),
    ],
)
def test_an_interval_is_rounded_to_a_usual_one(seconds, nice):
    assert nice_interval(seconds) == nice


def learned(step_s: float, count: int, *, slow_every: int = 5) -> tuple[float | None, int]:
    """The interval learned from a fast and a slow feature, and after how many readings."""
    learning = Learning(max_features=10)
    for i in range(count):
        values = {"fast": 1.0, **({"slow": 2.0} if i % slow_every == 0 else {})}
        learning.add(Received(100.0 + step_s * i, 0.0, Reading("pump", 100.0 + step_s * i, values)))
        if (found := learning.interval_s()) is not None:
            return found, i + 1
    return None, count


def test_the_fastest_feature_sets_the_interval():
    assert learned(2.0, 20) == (2.0, LEARNING_TICKS)


def test_a_burst_shorter_than_two_seconds_is_not_believed():
    assert learned(0.1, 19) == (None, 19)
    assert learned(0.1, 60)[0] == pytest.approx(0.1)


def test_what_is_kept_while_learning_is_bounded():
    learning = Learning(max_features=3)
    dropped = sum(
        learning.add(Received(100.0, float(i), Reading("pump", 100.0, dict.fromkeys("abc", 1.0)))) for i in range(500)
    )
    assert dropped + len(learning.readings) == 500
    assert len(learning.readings) == 64
