"""What is remembered of events that no broker has acknowledged."""

from __future__ import annotations

from typing import Any

import pytest

from gon_edge.daemon.untold import Untold


def event(alert: str, kind: str, timestamp: float, stream: str = "pump") -> dict[str, Any]:
    return {"id": alert, "type": kind, "stream": stream, "timestamp": timestamp}


def test_an_alert_is_untold_until_the_broker_has_its_newest_event() -> None:
    untold, new, end = Untold(), event("a", "new", 1.0), event("a", "end", 2.0)
    untold.sent(new)
    untold.sent(event("b", "new", 1.0, "fan"))
    untold.sent(end)
    assert not untold.settle(new, end, "")  # the end is still on its way
    assert (untold.of("pump"), untold.of("fan")) == (["a"], ["b"])
    assert untold.settle(end, end, "")
    assert (untold.of("pump"), "a" in untold, untold.again(anew=True)) == ([], False, [])


@pytest.mark.parametrize(
    ("why", "kept", "now", "anew"),
    [
        ("refused", ["a"], ["a"], ["a"]),
        ("dropped", ["a"], ["a"], ["a"]),
        ("too_large", ["a"], [], ["a"]),  # this connection takes no larger one, another may
        ("ends_connection", [], [], []),  # it would end the next one
    ],
)
def test_what_a_broker_did_not_take_is_said_again_where_that_may_help(
    why: str, kept: list[str], now: list[str], anew: list[str]
) -> None:
    untold, end = Untold(), event("a", "end", 2.0)
    untold.sent(end)
    assert untold.settle(end, end, why)
    assert (untold.of("pump"), untold.again(anew=False), untold.again(anew=True)) == (kept, now, anew)
    untold.sent(end)
    assert untold.of("pump") == ["a"]
    assert untold.again(anew=True) == []  # it is on its way


def test_the_loss_of_an_event_that_another_has_overtaken_is_none() -> None:
    untold, new, end = Untold(), event("a", "new", 1.0), event("a", "end", 1.0)
    untold.sent(end)
    assert not untold.settle(new, end, "refused")
    assert untold.settle(end, end, "")
    assert untold.again(anew=True) == []


def test_alerts_that_nobody_takes_for_a_year_hold_bounded_memory() -> None:
    untold = Untold()
    for number in range(3000):
        untold.lose(f"a{number}", "pump", "refused")
    assert len(untold.lost) == 1000
    assert "a2999" in untold
    assert "a0" not in untold
