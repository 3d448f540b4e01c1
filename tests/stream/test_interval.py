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
        len(learning.add(Received(100.0, float(i), Reading("pump", 100.0, dict.fromkeys("abc", 1.0)))))
        for i in range(500)
    )
    assert dropped + len(learning.readings) == 500
    assert len(learning.readings) == 64


def waiting_for(*readings: tuple[float, str]) -> str:
    learning = Learning(max_features=10)
    for i, (timestamp, name) in enumerate(readings):
        learning.add(Received(timestamp, float(i), Reading("pump", timestamp, {name: 1.0})))
        assert learning.interval_s() is None
    return learning.waits_for


def test_why_no_interval_is_known_is_said():
    assert waiting_for() == ""
    assert waiting_for(*[(100.0, "a")] * 20).startswith(
        "the timestamps stand still: 20 readings have the one of 1970-01-01 00:01:40"
    )
    assert waiting_for(*[(100.0 + i, f"a{i}") for i in range(20)]).startswith("no name came twice")
    assert waiting_for((1.0, "a"), (2.0, "a"), (3.0, "a")) == "3 of 8 readings that tell how often rows come"
    assert "lie within 0.19 s" in waiting_for(*[(100.0 + i / 100, "a") for i in range(20)])
    assert waiting_for(*[(100.0 + 3.0**i, "a") for i in range(12)]).startswith("the steps between readings vary")


def test_names_that_come_once_at_the_start_do_not_keep_the_interval_from_being_learned():
    learning = Learning(max_features=5)
    interval_s = None
    for i in range(40):
        learning.add(Received(float(i), float(i), Reading("pump", float(i), {f"message-{i}": 1.0})))
        learning.add(Received(float(i), float(i), Reading("pump", float(i), {"flow": 1.0})))
        interval_s = interval_s or learning.interval_s()
    assert interval_s == 1.0
