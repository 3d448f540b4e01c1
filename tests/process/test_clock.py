"""Where the time comes from, and whether the wall clock is believed."""

from __future__ import annotations

import time

from gon_edge.process.clock import Clock, clock_is_set, is_synchronised, monotonic


def test_a_clock_before_2024_is_not_set_and_a_plausible_one_is_after_a_while() -> None:
    assert not clock_is_set(1_600_000_000.0, 1e6)
    assert clock_is_set(time.time(), 1e6)
    assert isinstance(clock_is_set(time.time(), 1.0), bool)


def test_the_kernel_says_whether_its_clock_is_synchronised_or_nothing() -> None:
    assert is_synchronised() in (True, False, None)


def test_a_clock_is_this_machines_unless_it_is_told_otherwise() -> None:
    assert abs(Clock().offset_s - (time.time() - monotonic())) < 1.0
    recorded = Clock(monotonic=lambda: 60.0, wall=lambda: 1_700_000_060.0)
    assert (recorded.monotonic(), recorded.wall(), recorded.offset_s) == (60.0, 1_700_000_060.0, 1_700_000_000.0)
