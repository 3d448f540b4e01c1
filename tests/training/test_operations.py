"""Requests, checked before they are carried out; what they do is in test_ask and tests/daemon."""

from __future__ import annotations

from typing import Any

import pytest

from gon_edge.errors import GonEdgeError, InputError, StoreError
from gon_edge.training.operations import OPERATIONS, carry_out, orders

KNOWN = {"pump", "boiler"}


def test_orders_are_checked() -> None:
    assert [o.stream for o in orders({}, KNOWN)] == ["boiler", "pump"]
    (order,) = orders({"streams": ["pump", "pump"], "since": {"ago_s": 60}, "budget_bytes": 5e7, "force": 1}, KNOWN)
    assert (order.why, order.since, order.budget_bytes, order.force) == ("asked", {"ago_s": 60.0}, 50_000_000, True)
    assert orders({"streams": ["new"], "rows_file": "/tmp/x.csv"}, KNOWN)[0].stream == "new"
    asked = {"streams": ["new"], "rows_file": "x.csv", "rows_options": {"decimal": ","}, "until": {"at": 5}}
    (filed,) = orders(asked, KNOWN)
    assert (filed.rows_options, filed.until) == ({"decimal": ","}, {"at": 5.0})
    for wrong in (
        {"rows_options": 5},
        {"streams": ["x"]},
        {"streams": 7},
        {"since": 5},
        {"since": {"at": "x"}},
        {"budget_bytes": "much"},
    ):
        with pytest.raises(InputError):
            orders(wrong, KNOWN)
    with pytest.raises(InputError, match="no stream yet"):
        orders({}, set())


class _Site:
    """A place where nothing can be written."""

    live = True

    def knows(self, stream: str) -> bool:
        raise OSError(28, "No space left on device")


class _Client:
    gone = False

    def __init__(self) -> None:
        self.refused: list[GonEdgeError | str] = []

    def refuse(self, error: GonEdgeError | str) -> None:
        self.refused.append(error)


@pytest.mark.parametrize("do", sorted(OPERATIONS))
@pytest.mark.parametrize("rest", [{}, {"stream": 7}, {"stream": "pump", "since": 5}, {"streams": 5}])
def test_whatever_is_wrong_with_a_request_is_an_answer_and_ends_nobody(do: str, rest: dict[str, Any]) -> None:
    client = _Client()
    carry_out(_Site(), {"do": do, **rest}, client)  # type: ignore[arg-type]
    assert len(client.refused) == 1


def test_what_cannot_be_written_and_what_is_not_known_say_so() -> None:
    client = _Client()
    carry_out(_Site(), {"do": "silence", "stream": "pump"}, client)  # type: ignore[arg-type]
    carry_out(_Site(), {"do": "dance"}, client)  # type: ignore[arg-type]
    full, unknown = client.refused
    assert isinstance(full, StoreError)
    assert str(full) == "the state directory cannot be written: No space left on device"
    assert "does not know that request" in str(unknown)
