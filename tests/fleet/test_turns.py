"""Who has much to do goes on piece by piece, one at a time, and pieces are short."""

from __future__ import annotations

import asyncio

from gon_edge.fleet.turns import AT_ONCE, Turns

STEPS = 400


def test_most_steps_beside_many_who_have_more_to_do_wait_for_no_piece_and_all_of_them_go_on() -> None:
    pieces = [0] * 8

    async def busy(turns: Turns, number: int) -> None:
        while True:
            pieces[number] += 1
            await turns.wait()

    async def work() -> None:
        turns = Turns()
        others = [asyncio.create_task(busy(turns, number)) for number in range(len(pieces))]
        await asyncio.sleep(0)
        begun = sum(pieces)
        for _ in range(STEPS):
            await asyncio.sleep(0)
        assert 0 < sum(pieces) - begun <= STEPS / 10
        for other in others:
            other.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    asyncio.run(work())
    assert max(pieces) - min(pieces) <= 1


def test_a_piece_is_fewer_messages_where_each_takes_long_and_as_many_as_before_once_they_do_not() -> None:
    turns = Turns()
    sizes = []
    for messages, seconds in ((64, 0.64), (2, 0.02), (2, 5.0), (1, 0.0003)):
        turns.judged(messages, seconds)
        sizes.append(turns.size)
    assert sizes == [2, 2, 1, AT_ONCE]


def test_a_turn_is_over_once_the_processor_was_used_for_a_piece() -> None:
    async def work() -> None:
        turns = Turns()
        await turns.wait()
        assert not turns.is_over
        while not turns.is_over:
            pass
        await turns.wait()
        assert not turns.is_over

    asyncio.run(work())
