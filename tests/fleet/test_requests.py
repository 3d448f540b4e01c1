"""What was asked of a partition whose owner dies before it is done, or before anybody has heard of it."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

from fleet.fleets import (
    Owner,
    ask,
    missed,
    own_fleet,
    publish,
    rows,
    run,
    sequence_of,
)

from gon_edge.fleet.jetstream import Fleet
from gon_edge.fleet.look import entries
from gon_edge.fleet.training import Workshop, model_bytes

PUMP = "pump-0"


async def answer_to(replies: Any) -> dict[str, Any]:
    while "ok" not in (told := json.loads((await replies.next_msg(timeout=30)).data)):
        pass
    return told


async def owner_of(fleet: Fleet) -> dict[str, Any]:
    return (await entries(fleet, fleet.names.owners))["0"]


def test_a_training_that_a_person_waits_for_goes_on_with_the_next_owner(nats_server, tmp_path: Path) -> None:
    async def work() -> None:
        async with own_fleet(nats_server, tmp_path, [PUMP]) as fleet:
            await publish(fleet, PUMP, rows(0, range(150)))
            replies = await fleet.client.subscribe("answers")
            first = await fleet.owner()
            await first.work_to(150)
            await ask(fleet, PUMP, missed(PUMP, 100.0))
            await first.work(lambda: first.partition.training.names)  # somebody was asked for it, and nobody works
            sequence = await sequence_of(fleet)
            async with asyncio.timeout(60):
                while (await entries(fleet, fleet.names.states))[fleet.names.state(0, PUMP)]["sequence"] < sequence:
                    await first.pulls.keep(0.2)
                    await first.partition.work()
            assert [len(asked["orders"]) for asked in (await owner_of(fleet))["asked"]] == [1]
            await first.pulls.stop()  # as if it were killed here

            await publish(fleet, PUMP, rows(0, [150]))
            second = Owner(fleet, fleet.config, tmp_path)
            second.inbox = "trained"
            trained = await fleet.client.subscribe("trained")
            await second.begin()
            workshop = asyncio.create_task(Workshop(fleet, fleet.config, second.series, tmp_path / "training").run())
            done = asyncio.create_task(trained.next_msg(timeout=60))
            await second.work(done.done)
            result = json.loads(done.result().data)
            content = await model_bytes(fleet, result["object"])
            second.partition.training.hear(result["id"], result["record"], result["object"], content)
            answered = asyncio.create_task(answer_to(replies))
            await second.work(answered.done)
            workshop.cancel()
            assert answered.result()["rounds"][0]["outcome"] == "promoted"
            owner = await owner_of(fleet)
            assert [(one["answer"], one["by"]) for one in owner["answers"]] == [("missed", "me")]
            await second.work(lambda: not second.partition._requests.news)
            assert (await owner_of(fleet))["asked"] == []

    run(work(), 300.0)


def test_a_request_is_carried_out_again_where_its_effect_was_not_saved_and_else_not(
    nats_server, tmp_path: Path
) -> None:
    async def work() -> None:
        async with own_fleet(nats_server, tmp_path, [PUMP]) as fleet:
            await publish(fleet, PUMP, rows(0, range(60)))
            first = await fleet.owner()
            await first.work_to(60)
            await ask(fleet, PUMP, {"do": "silence", "stream": PUMP, "for_s": 3600.0, "reason": "repair"})
            first.partition._looked_at = float("inf")  # it is killed before it saves anything
            await first.work_to(await sequence_of(fleet))
            assert first.partition._streams[PUMP].policy._silenced is None
            assert (await owner_of(fleet))["silences"] == []
            await first.pulls.stop()

            await publish(fleet, PUMP, rows(0, [60]))
            second = await fleet.owner()
            replies = await fleet.client.subscribe("answers")
            answered = asyncio.create_task(answer_to(replies))
            await second.work(answered.done)
            assert answered.result()["silence"]["reason"] == "repair"
            await second.partition.leave()
            await second.pulls.give_back()

            await publish(fleet, PUMP, rows(0, [61]))
            third = await fleet.owner()
            assert third.partition._streams[PUMP].policy._silenced is None
            until = third.partition._requests.state()["silences"][0]["until"]
            assert until == answered.result()["silence"]["until"]

    run(work())


def test_a_request_that_cannot_be_carried_out_is_refused_with_the_reason(nats_server, tmp_path: Path) -> None:
    async def work() -> None:
        async with own_fleet(nats_server, tmp_path, [PUMP]) as fleet:
            replies = await fleet.client.subscribe("answers")
            await fleet.js.publish(fleet.names.ask(0), b"[1]")  # who may do that may do worse
            for asked in ({"do": "rename", "stream": PUMP, "to": "fan"}, {"do": "dance"}, {}, missed(PUMP, 9e9)):
                await ask(fleet, PUMP, asked)
            owner = await fleet.owner()
            told = []
            for _ in range(4):
                answered = asyncio.create_task(answer_to(replies))
                await owner.work(answered.done)
                told.append(answered.result())
            assert not any(one["ok"] for one in told)
            assert [one["error"].partition(";")[0] for one in told] == [
                "a fleet cannot rename",
                "this gon-edge does not know that request",
                "not a request: KeyError('do')",
                f"stream {PUMP!r} has no rows yet",
            ]

    run(work())
