"""Which alerts repeat each other: by hour, by causes, within bounds of length and strength."""

from __future__ import annotations

import json

import pytest

from gon_edge.events import Cause, Recurring
from gon_edge.stream.habits import Block, Memory, directions, look_back

DAY = 86400.0
HOUR = 3600.0
JOB = {"io": 1, "net": 1}


def block(day: float, hour: float = 6.0, minutes: float = 20.0, strength: float = 9.0, **causes: int) -> Block:
    since = day * DAY + hour * HOUR
    return Block(since, since + 60.0 * minutes, strength, causes or JOB)


def told(blocks: list[Block]) -> Recurring | None:
    """What the newest of some blocks is said to be."""
    found = look_back(blocks[-1], blocks[:-1])
    return None if found is None else found.told


def test_the_third_day_at_the_same_hour_is_a_habit_and_the_second_is_not() -> None:
    assert told([block(0), block(1)]) is None
    assert told([block(0), block(1), block(2)]) == Recurring(3, 6 * HOUR, "day")
    assert told([block(0), block(1), block(2, hour=6.3), block(3, hour=5.9)]) == Recurring(4, 6 * HOUR, "day")
    assert told([block(0), block(1), block(2, hour=8.0)]) is None


def test_several_alerts_of_one_day_are_one_occasion() -> None:
    assert told([block(0, hour=5.8), block(0, hour=6.1), block(1, hour=5.9), block(1, hour=6.2)]) is None


def test_a_job_that_begins_around_midnight_has_one_hour() -> None:
    assert told([block(0, hour=23.9), block(2, hour=0.1), block(2, hour=23.9)]) == Recurring(3, 23.9 * HOUR, "day")


def test_a_clock_change_of_an_hour_does_not_begin_a_habit_anew() -> None:
    assert told([block(0), block(1), block(2, hour=7.05)]) == Recurring(3, 6 * HOUR, "day")
    assert told([block(0), block(1), block(2, hour=7.25)]) is None


def test_a_job_of_working_days_survives_the_weekend_and_one_of_a_weekday_needs_three_weeks() -> None:
    working = [block(day) for day in (0, 1, 2, 3, 4, 7)]
    assert told(working) == Recurring(6, 6 * HOUR, "day")
    weekly = [block(day) for day in (0, 7, 14)]
    assert told(weekly) == Recurring(3, 6 * HOUR, "week")
    assert told(weekly[:2]) is None
    assert told([block(0), block(30), block(65)]) is None  # the same hour by chance


@pytest.mark.parametrize(
    "last",
    [
        block(2, io=-1, net=-1),
        block(2, temp=1),
        block(2, io=1, temp=1, mem=1, conn=1, fan=1),
        block(2, minutes=19 * 60),
    ],
    ids=["the other way", "another feature", "mainly others", "no hour"],
)
def test_other_causes_and_blocks_without_an_hour_are_no_repetition(last: Block) -> None:
    assert told([block(0), block(1), last]) is None


def test_a_cause_that_nobody_can_say_the_direction_of_speaks_against_nothing() -> None:
    causes = directions(
        [Cause("io", 9.0, 2.0, 0.6), Cause("net", None, None, 0.3), Cause("cpu", 1.0, 2.0, 0.05)],
    )
    assert causes == {"io": 1, "net": 0}
    assert told([block(0), block(1), block(2, **causes)]) is not None


def test_a_fault_that_lasts_for_days_is_one_block_and_no_habit() -> None:
    memory = Memory()
    memory.add(block(0, minutes=4 * 24 * 60))
    assert memory.look(block(5)) is None
    assert memory.occasions(6 * HOUR) == ()


def test_a_repetition_is_neither_much_stronger_nor_much_longer_than_those_before() -> None:
    memory = Memory()
    memory.add(block(0))
    memory.add(block(1))
    assert memory.look(block(2, strength=12.0)) is not None
    assert memory.look(block(2, strength=14.0)) is None
    assert memory.look(block(2, minutes=49.0)) is not None
    assert memory.look(block(2, minutes=51.0)) is None
    assert memory.look(block(2, minutes=5.0)) is not None


def test_what_is_like_a_fault_is_no_habit_until_the_person_says_otherwise() -> None:
    memory = Memory()
    for day in range(3):
        memory.add(block(day))
    since = DAY + 6 * HOUR
    memory.answered(since, since + 60.0, fault=True)
    assert memory.look(block(3)) is None
    assert Memory(json.loads(json.dumps(memory.state()))).look(block(3)) is None
    assert memory.occasions(2 * DAY + 6 * HOUR) == ()
    assert memory.look(block(3, hour=12.0)) is None
    memory.answered(since, since + 60.0, fault=False)
    assert memory.look(block(3)) is not None


def test_a_memory_survives_a_restart_and_is_bounded() -> None:
    memory = Memory()
    for day in range(3):
        memory.add(block(day))
    again = Memory(json.loads(json.dumps(memory.state())))
    assert again.occasions(2 * DAY + 6 * HOUR) == (block(0), block(1), block(2))
    assert again.look(block(3)) == memory.look(block(3))
    for day in range(1000):
        again.add(block(day, hour=1.0))
    assert len(json.dumps(again.state())) < 20_000


def test_a_block_that_ended_and_went_on_counts_once() -> None:
    memory = Memory()
    for minutes in (10.0, 25.0):
        memory.add(block(0, minutes=minutes))
    memory.add(block(1))
    memory.add(block(2))
    assert [found.length_s for found in memory.occasions(2 * DAY + 6 * HOUR)] == [1500.0, 1200.0, 1200.0]


def test_what_comes_on_most_days_at_any_hour_is_told_from_the_fourth_time_on() -> None:
    bursts = [block(0, hour=9.0), block(1, hour=23.0), block(1, hour=4.0), block(2, hour=14.0)]
    assert told(bursts[:3]) is None
    assert told(bursts) == Recurring(3, 9 * HOUR, "any hour")
    assert told([block(0, hour=9.0), block(5, hour=23.0), block(5, hour=4.0), block(6, hour=14.0)]) is None  # seldom
    assert told([block(0, hour=9.0), block(0, hour=12.0), block(1, hour=4.0), block(1, hour=14.0)]) is None  # two days
    assert told([*bursts[:3], block(2, hour=14.0, io=1)]) is not None
    assert told([*bursts[:3], block(2, hour=14.0, net=1, io=1)]) is None  # mainly for another reason


def test_a_nightly_job_says_nothing_of_other_hours() -> None:
    assert told([*(block(day) for day in range(5)), block(5, hour=12.0)]) is None


def test_at_any_hour_a_repetition_is_measured_by_the_usual_one_and_not_by_the_strongest() -> None:
    memory = Memory()
    for day, hour, strength in ((0, 9.0, 30.0), (1, 23.0, 9.0), (1, 4.0, 9.0), (2, 1.0, 9.0)):
        memory.add(block(day, hour=hour, strength=strength))
    assert memory.look(block(2, hour=14.0, strength=13.0)) is not None
    assert memory.look(block(2, hour=14.0, strength=14.0)) is None


def test_what_was_lately_is_ordered_by_strength_and_leaves_out_what_was_called_a_fault() -> None:
    memory = Memory()
    for day, strength in enumerate((9.0, 5.0, 7.0, 20.0, 6.0)):
        memory.add(block(day, hour=3.0 * day, strength=strength))
    assert [found.strength for found in memory.lately(-1.0)] == [20.0, 9.0, 7.0, 6.0, 5.0]
    assert [found.strength for found in memory.lately(1.5 * DAY)] == [20.0, 7.0, 6.0]
    since = 3 * DAY + 9 * HOUR
    memory.answered(since, since + 60.0, fault=True)
    assert [found.strength for found in memory.lately(1.5 * DAY)] == [7.0, 6.0]
