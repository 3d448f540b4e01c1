"""Counts that are kept elsewhere; what a step becomes for broker, store and series is in e2e/test_daemon."""

from __future__ import annotations

from gon_edge.daemon.reporting import Tally


def test_a_tally_tells_only_what_has_come_since():
    counts, told = iter([3, 3, 10]), []
    tally = Tally(lambda: next(counts), told.append)
    for _ in range(3):
        tally.look()
    assert told == [3, 7]
