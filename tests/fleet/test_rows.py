"""Rows that an owner before has kept: what trainings, people and habits need of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from fleet.fleets import (
    ask,
    events_of,
    missed,
    own_fleet,
    publish,
    rows,
    run,
)
from nightly import DAY, NAMES, START, job_blocks, server

from gon_edge.events import Row
from gon_edge.fleet.rows import fetch
from gon_edge.state.store import Store
from gon_edge.training.habits import learn
from gon_edge.training.settings import FitSettings

PUMP = "pump-0"


def test_rows_that_a_person_calls_a_fault_are_marked_for_every_worker_that_trains(nats_server, tmp_path: Path) -> None:
    async def work() -> None:
        async with own_fleet(nats_server, tmp_path, [PUMP]) as fleet:
            await publish(fleet, PUMP, rows(0, range(100)))
            first = await fleet.owner()
            await first.work_to(100)
            await first.partition.leave()
            await first.pulls.give_back()
            await publish(fleet, PUMP, rows(0, range(100, 150)))
            second = await fleet.owner()
            await ask(fleet, PUMP, missed(PUMP, 60.0))  # of the first owner's time
            await second.work(lambda: second.partition.training.names)
            with Store.open(tmp_path / "elsewhere") as store:
                await fetch(fleet, 0, PUMP, store)
                kept = [(len(chunk.timestamps), int(chunk.quarantined.sum())) for chunk in store.outline(PUMP)]
                times = [at for chunk in store.outline(PUMP) for at in chunk.timestamps.tolist()]
            assert times == sorted({*times})
            assert (sum(count for count, _ in kept), sum(marked for _, marked in kept)) == (
                150,
                FitSettings().window + 1,
            )

    run(work())


def test_a_job_of_each_day_that_does_not_come_is_told_by_an_owner_who_never_saw_it(nats_server, tmp_path: Path) -> None:
    values = server(9, range(8))  # on the last day it does not come

    def row(minute: int) -> Row:
        return Row(PUMP, START + 60.0 * minute, NAMES, values[minute], np.zeros(len(NAMES), np.bool_))

    def hour(day: int, o_clock: int) -> int:
        return DAY * day + 60 * o_clock

    async def work() -> None:
        async with own_fleet(nats_server, tmp_path, [PUMP]) as fleet:
            await fleet.client.publish(fleet.names.wake(0), b"")
            first = await fleet.owner()
            store = first.partition._scoring.store
            for minute in range(hour(8, 7)):
                store.add_row(row(minute), False, 0.0)
            learn(store, PUMP, job_blocks(range(3)))
            stream = first.partition._streams[PUMP]
            stream.last_row = row(hour(8, 6) + 50)
            await first.work(lambda: PUMP in first.partition._scoring.orders._looked_at)
            assert not [event for event in await events_of(fleet) if event["kind"] == "overdue"]
            first.partition._judging.news(PUMP, 1, 0)
            await first.partition.leave()
            await first.pulls.give_back()

            await fleet.client.publish(fleet.names.wake(0), b"")
            second = await fleet.owner()
            for minute in range(hour(8, 7), hour(8, 9)):
                second.partition._scoring.store.add_row(row(minute), False, 0.0)
            second.partition._streams[PUMP].last_row = row(hour(8, 9))
            await second.work(lambda: second.sample("events_total", result="stored"))
            (event,) = [event for event in await events_of(fleet) if event["kind"] == "overdue"]
            assert (event["type"], event["recurring"]["count"]) == ("new", 7)
            assert {cause["feature"] for cause in event["top_features"]} == {"io", "net"}

    run(work())
