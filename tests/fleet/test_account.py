"""The account of every row: what is lost, doubled, repeated or late, each told from the others."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from gon_edge.fleet.account import Account, Stored, Unscored, account
from gon_edge.fleet.look import Look, Owned


def test_a_row_with_one_verdict_each_is_all_there_is() -> None:
    assert account([3, 2], 5, [Stored(3, 3), Stored(2, 2)], [3, 2]) == Account(5, 5, 0, 5, 0, 0, 0, 0)


def test_a_row_lost_on_one_device_is_not_made_up_for_by_one_doubled_on_another() -> None:
    counted = account([3, 3], 6, [Stored(3, 3), Stored(3, 3)], [2, 4])
    assert (counted.lost, counted.doubled) == (1, 1)


def test_a_row_that_never_came_is_lost_though_the_one_before_was_held_in_its_place() -> None:
    assert account([3], 3, [Stored(2, 2)], [3]).lost == 1


def test_a_message_sent_twice_is_repeated_and_not_doubled() -> None:
    counted = account([3], 3, [Stored(4, 3)], [3])
    assert (counted.repeated, counted.doubled, counted.lost) == (1, 0, 0)


def test_what_the_broker_has_not_acknowledged_may_be_missing() -> None:
    assert account([3], 2, [Stored(2, 2)], [2]).lost == 0
    assert account([3], 3, [Stored(2, 2)], [2]).lost == 1


def test_a_late_row_is_counted_once_and_as_late() -> None:
    counted = account([3], 3, [Stored(3, 3)], [2], late=1)
    assert (counted.late, counted.lost) == (1, 0)
    assert account([3], 3, [Stored(3, 3)], [3], late=1).late == 0


def test_a_row_that_nobody_has_come_to_yet_waits_and_is_not_lost() -> None:
    counted = account([3], 3, [Stored(3, 3)], [1], waiting=2)
    assert (counted.waiting, counted.lost) == (2, 0)
    assert account([3], 3, [Stored(3, 3)], [1], waiting=1).lost == 1


@given(
    st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9), st.integers(0, 9), st.integers(0, 3)), max_size=6),
    st.integers(0, 5),
    st.integers(0, 5),
)
def test_every_row_acknowledged_is_scored_late_waiting_or_lost(
    devices: list[tuple[int, int, int, int]], late: int, waiting: int
) -> None:
    rows = [sent for sent, *_ in devices]
    stored = [Stored(min(there, sent) + more, min(there, sent)) for sent, there, _, more in devices]
    judged = [min(seen, there.rows) for (_, _, seen, _), there in zip(devices, stored, strict=True)]
    counted = account(rows, sum(rows), stored, judged, late=late, waiting=waiting)
    assert counted.scored + counted.late + counted.waiting + counted.lost == counted.sent
    assert counted.doubled == 0


def look(at: float, *rows: int, epoch: int = 1, worker: str = "w") -> Look:
    return Look(at, (), tuple(Owned(i, worker, epoch, rows=n) for i, n in enumerate(rows)), ())


def test_the_longest_time_unscored_is_that_of_the_partition_that_stood_still() -> None:
    unscored = Unscored()
    for at, one, other in ((0.0, 1, 1), (1.0, 2, 2), (2.0, 3, 2), (6.0, 4, 2), (7.0, 5, 3)):
        unscored.see(look(at, one, other))
    assert unscored.longest_s == 6.0


def test_a_partition_that_nobody_owns_stands_still_until_its_next_owner_has_judged_something() -> None:
    unscored = Unscored()
    unscored.see(look(0.0, 9))
    unscored.see(look(5.0, 0, worker=""))
    unscored.see(look(8.0, 0, epoch=2))
    unscored.see(look(9.0, 1, epoch=2))
    unscored.see(look(9.5, 2, epoch=2))
    assert unscored.longest_s == 9.0


def test_a_partition_that_has_not_begun_is_not_waited_for() -> None:
    unscored = Unscored()
    for at in (0.0, 50.0):
        unscored.see(look(at, 0, worker="", epoch=0))
    unscored.see(look(51.0, 5))
    assert unscored.longest_s == 0.0
