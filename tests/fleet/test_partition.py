"""A partition that changes hands: on a real server, beside a single daemon that reads the same messages."""

from __future__ import annotations

import asyncio
import itertools
import json
import math
import time
from typing import Any

import numpy as np
import pytest
from fleet.fleets import (
    MODEL,
    Owner,
    events_of,
    own_fleet,
    publish,
    rows,
    run,
    sequence_of,
    single_daemon,
    with_models,
)
from nats.errors import Error as NatsError

from gon_edge.fleet.connection import connect
from gon_edge.fleet.jetstream import Fleet
from gon_edge.fleet.saved import OwnerError

STREAMS = ("pump-0", "pump-1", "pump-2")
FAULT = range(110, 140)


async def publish_rows(fleet: Any, numbers: range) -> int:
    """One row after the other, of every stream in turn; the first one has a fault."""
    each = [rows(i, numbers, FAULT if i == 0 else ()) for i in range(len(STREAMS))]
    for row in zip(*each, strict=True):
        for stream, payload in zip(STREAMS, row, strict=True):
            await publish(fleet, stream, [payload])
    return await sequence_of(fleet)


def test_after_a_kill_in_a_window_verdicts_and_events_are_those_of_a_single_daemon(nats_server, tmp_path):
    async def work() -> None:
        async with own_fleet(nats_server, tmp_path, STREAMS) as fleet:
            last = await publish_rows(fleet, range(80))
            first = await fleet.owner()
            await first.work_to(last)
            await first.work(lambda: (first.sample("states_saved_total") or 0) >= len(STREAMS))
            first.partition._saved_at = math.inf
            last = await publish_rows(fleet, range(80, 123))  # the fault is told, and nothing of it is saved
            await first.work_to(last)
            told = await events_of(fleet)
            await first.pulls.stop()  # as if it were killed here

            await publish_rows(fleet, range(123, 200))
            second = await fleet.owner()
            await second.work_to(await sequence_of(fleet))

            verdicts, events = await single_daemon(fleet, fleet.config, tmp_path / "single", STREAMS)
            assert len(verdicts) == 200 * len(STREAMS)
            for owner in (first, second):
                for key, judged in owner.heard.verdicts.items():
                    assert [*map(repr, judged)] == [repr(verdicts[key])]
            assert first.heard.verdicts.keys() | second.heard.verdicts.keys() == verdicts.keys()
            assert first.heard.verdicts.keys() & second.heard.verdicts.keys()  # some were judged again
            assert [event["type"] for event in events] == ["new", "end"]
            assert (told, await events_of(fleet)) == (events[:1], events)
            assert second.sample("events_total", result="repeated") == 1.0

    run(work())


def test_one_that_leaves_in_order_has_its_successor_judge_nothing_again(nats_server, tmp_path):
    async def work() -> None:
        async with own_fleet(nats_server, tmp_path, STREAMS) as fleet:
            await publish_rows(fleet, range(125))
            first = await fleet.owner()
            await first.work_to(await sequence_of(fleet))
            await first.partition.leave()
            await first.pulls.give_back()

            await publish_rows(fleet, range(125, 200))
            second = await fleet.owner()
            await second.work_to(await sequence_of(fleet))
            verdicts, events = await single_daemon(fleet, fleet.config, tmp_path / "single", STREAMS)
            judged = {**first.heard.verdicts, **second.heard.verdicts}
            assert {key: repr(one) for key, (one,) in judged.items()} == {k: repr(v) for k, v in verdicts.items()}
            assert not first.heard.verdicts.keys() & second.heard.verdicts.keys()
            assert await events_of(fleet) == events
            assert second.sample("redelivered_total", partition="0") == 0.0

    run(work())


def test_what_a_worker_that_was_frozen_would_write_late_is_refused(nats_server, tmp_path):
    async def work() -> None:
        async with own_fleet(nats_server, tmp_path, STREAMS) as fleet:
            await publish_rows(fleet, range(60))
            frozen = await fleet.owner()
            await frozen.work_to(await sequence_of(fleet))

            await publish_rows(fleet, range(60, 123))
            other = await fleet.owner()
            await other.work_to(await sequence_of(fleet))
            events = await events_of(fleet)

            frozen.pulls.asked_at -= 60.0
            await frozen.pulls.keep(0.2)  # by then it has stood still for longer than the server waits for it
            with pytest.raises(OwnerError, match="another"):
                await frozen.partition.work()

            # It has looked just before it was frozen, and goes on with what it was about to write.
            async def has_looked() -> None: ...

            frozen.partition._look_at_lease = has_looked
            await publish_rows(fleet, range(123, 200))
            async for message in fleet.read(fleet.names.telemetry, fleet.names.partition(0), 181, 600):
                frozen.pulls.waiting.append(message)
            with pytest.raises(OwnerError, match="another"):
                await frozen.work(lambda: False)
            assert await events_of(fleet) == events
            with pytest.raises(OwnerError, match="another owner"):
                await frozen.partition.leave()
            assert frozen.sample("writes_refused_total") == 2.0
            await other.work_to(await sequence_of(fleet))
            assert await events_of(fleet) == (await single_daemon(fleet, fleet.config, tmp_path / "one", STREAMS))[1]

    run(work())


def test_a_worker_whose_pin_the_server_has_given_away_hears_of_it(nats_server, tmp_path):
    async def work() -> None:
        async with own_fleet(nats_server, tmp_path) as fleet:
            await publish(fleet, "pump-0", rows(0, range(3)))
            first = await fleet.owner()
            pin = first.pulls.pin
            await first.pulls.give_back()
            first.pulls.pin = pin
            await publish(fleet, "pump-0", rows(0, range(3, 6)))
            second = await fleet.owner()
            with pytest.raises(OwnerError, match="given to another worker"):
                await first.work(lambda: False)
            await second.work_to(6)

    run(work())


@pytest.mark.parametrize("later", [0, 20], ids=["and nothing follows", "and more follow"])
def test_messages_that_were_on_their_way_when_the_connection_broke_are_read_again(nats_server, tmp_path, later):
    async def work() -> None:
        async with own_fleet(nats_server, tmp_path, STREAMS, fleet={"takeover": "20s"}) as fleet:
            last = await publish_rows(fleet, range(60))
            client = await connect(fleet.config.fleet, "worker")
            owner = await Owner(Fleet(client, fleet.config), fleet.config, tmp_path).begin()
            await owner.work_to(last)
            await owner.pulls._pull(60.0)
            await client.flush()
            transport = client._transport._io_writer.transport
            transport.pause_reading()
            last = await publish_rows(fleet, range(60, 100))
            while (await fleet.js.consumer_info(fleet.names.telemetry, "partition-0")).delivered.stream_seq < last:
                await asyncio.sleep(0.02)
            transport.abort()  # what the server has sent is nowhere now
            if later:
                last = await publish_rows(fleet, range(100, 100 + later))
            await owner.work_to(last)
            await owner.partition.leave()
            await client.close()
            verdicts, events = await single_daemon(fleet, fleet.config, tmp_path / "single", STREAMS)
            assert len(verdicts) == (100 + later) * len(STREAMS)
            judged = {key: repr(one) for key, (one,) in owner.heard.verdicts.items()}
            assert judged == {key: repr(verdict) for key, verdict in verdicts.items()}
            assert (owner.sample("redelivered_total", partition="0") or 0) >= 40 * len(STREAMS)
            assert await events_of(fleet) == events

    run(work())


def test_rows_beside_a_request_that_fails_for_want_of_nats_are_judged_once_it_is_there(nats_server, tmp_path):
    async def work() -> None:
        async with own_fleet(nats_server, tmp_path, STREAMS) as fleet:
            await publish_rows(fleet, range(10))
            owner = await fleet.owner()
            await owner.work_to(await sequence_of(fleet))
            requests = owner.partition._requests
            take = requests.take

            async def away(*_: Any) -> str:
                requests.take = take
                raise NatsError("no answer")

            requests.take = away
            await fleet.js.publish(fleet.names.ask(0), b"{}")
            await publish_rows(fleet, range(10, 20))
            last = await sequence_of(fleet)
            while len(owner.pulls.waiting) < 31:
                await owner.pulls.keep(0.2)
                await owner.pulls.wait(0.2)
                await asyncio.sleep(0.01)
            with pytest.raises(NatsError):
                await owner.partition.work()
            await owner.work_to(last)
            assert len(owner.heard.verdicts) == 20 * len(STREAMS)
            assert {len(judged) for judged in owner.heard.verdicts.values()} == {1}

    run(work())


def test_an_owner_that_stood_still_goes_on_where_nobody_else_has_taken_its_partition(nats_server, tmp_path):
    async def work() -> None:
        async with own_fleet(nats_server, tmp_path, STREAMS) as fleet:
            await publish_rows(fleet, range(30))
            owner = await fleet.owner()
            await owner.work_to(await sequence_of(fleet))
            pin = owner.pulls.pin
            asked = f"CONSUMER.INFO.{fleet.names.telemetry}.{fleet.names.consumer(0)}"
            while "pinned_client_id" in (await fleet.request(asked))["priority_groups"][0]:
                await asyncio.sleep(0.1)  # for as long as it stands still
            await publish_rows(fleet, range(30, 60))
            await owner.work_to(await sequence_of(fleet))
            assert (owner.partition.epoch, owner.pulls.pin != pin) == (1, True)
            assert len(owner.heard.verdicts) == 60 * len(STREAMS)
            assert {len(judged) for judged in owner.heard.verdicts.values()} == {1}

    run(work())


def test_an_owner_goes_on_where_the_answers_to_what_it_has_written_did_not_come(nats_server, tmp_path):
    async def work() -> None:
        async with own_fleet(nats_server, tmp_path, STREAMS) as fleet:
            last = await publish_rows(fleet, range(30))
            owner = await fleet.owner()
            await owner.work_to(last)
            partition, saved = owner.partition, owner.partition._saved
            heard = saved._owner_revision, dict(saved._revisions)
            for _ in range(2):
                saved._owner_revision, saved._revisions = heard[0], dict(heard[1])
                await partition._keep()
                await saved.save(partition._scoring, [*STREAMS], last, {})
            assert owner.sample("states_saved_total") >= 2 * len(STREAMS)
            assert owner.sample("writes_refused_total") == 0.0

    run(work())


def test_an_owner_that_is_behind_saves_by_the_time_of_its_messages_and_not_by_the_clock(nats_server, tmp_path):
    async def work() -> None:
        async with own_fleet(nats_server, tmp_path, STREAMS, fleet={"save_every": "20s"}) as fleet:
            last = await publish_rows(fleet, range(60))
            owner = await fleet.owner()
            while len(owner.pulls.waiting) < last:
                await owner.pulls.keep(0.2)
                await owner.pulls.wait(0.2)

            async def saved_after_an_hour() -> float:
                before = owner.sample("states_saved_total")
                owner.partition._looked_at, owner.partition._saved_at = 0.0, owner.partition._saved_at - 3600.0
                await owner.partition.work()
                return owner.sample("states_saved_total") - before

            await saved_after_an_hour()  # the time of the messages is known from here on
            assert await saved_after_an_hour() <= 1.0
            assert owner.partition.lag
            await owner.work_to(last)
            assert await saved_after_an_hour() == len(STREAMS)

    run(work())


def test_time_in_which_nobody_watched_is_no_silence_of_the_devices(nats_server, tmp_path):
    async def work() -> None:
        async with own_fleet(nats_server, tmp_path, STREAMS[:1]) as fleet:
            await publish(fleet, STREAMS[0], rows(0, range(60)))
            owner = await fleet.owner()
            await owner.work_to(60)
            stream = owner.partition._streams[STREAMS[0]]
            await asyncio.sleep(0.6)
            judging, owner.partition._deaf_until = owner.partition._judging, 0.0
            judging.tick -= 3600.0
            judging.go_deaf()
            stream.heard_at -= 3600.0
            await owner.work(lambda: not judging.deaf)
            assert stream.state == "scoring"
            judging.tick, stream.heard_at = judging.tick - 3600.0, stream.heard_at - 3600.0
            await owner.work(lambda: stream.state == "stale")  # somebody has watched: it is silent
            assert [event["kind"] for event in await events_of(fleet)] == ["missing"]

    run(work())


class Sensors:
    """Each reading in a message of its own, at the pace of the clock; some don't come, so that time completes rows."""

    def __init__(self, fleet: Any) -> None:
        self._task = asyncio.create_task(self._publish(fleet))

    async def _publish(self, fleet: Any) -> None:
        rng, began = np.random.default_rng(1), time.time()
        for number in itertools.count(1):
            for stream in STREAMS:
                named = zip(MODEL.features, MODEL.scaler.mean, MODEL.scaler.scale, rng.random(3), strict=True)
                for name, mean, scale, chance in named:
                    payload = json.dumps({"at": time.time(), "value": rng.normal(mean, 0.3 * scale)}).encode()
                    if chance > 0.15:
                        await fleet.client.publish(f"{fleet.names.prefix}.0.telemetry.{stream}.{name}", payload)
            await asyncio.sleep(max(0.0, began + 0.2 * number - time.time()))

    def stop(self) -> None:
        self._task.cancel()


@pytest.mark.slow
def test_rows_that_only_time_completes_are_the_same_for_every_worker_that_reads_the_messages(nats_server, tmp_path):
    async def for_a_while(owner: Owner, seconds: float) -> None:
        until = time.monotonic() + seconds
        await owner.work(lambda: time.monotonic() > until)

    async def work() -> None:
        by_feature = [{"topic": "telemetry/{stream}/{feature}", "timestamp": "at"}]
        at_5_hz = {"defaults": {"interval": "200ms"}}
        async with own_fleet(nats_server, tmp_path, STREAMS, subscriptions=by_feature, streams=at_5_hz) as fleet:
            sensors = Sensors(fleet)
            first = await fleet.owner()
            await for_a_while(first, 4.5)
            await first.pulls.stop()
            second = await fleet.owner()
            await for_a_while(second, 3.0)
            sensors.stop()
            last = await sequence_of(fleet)
            await for_a_while(second, 1.0)
            await second.partition.leave()
            await second.pulls.give_back()

            owners = await fleet.js.key_value(fleet.names.owners)
            owner = json.loads((await owners.get("0")).value)
            await owners.put("0", json.dumps({**owner, "sequence": 0, "at": None}).encode())
            await with_models(fleet, STREAMS)
            await fleet.client.publish(fleet.names.wake(0), b"")
            again = await fleet.owner()
            await again.work_to(last)
            await for_a_while(again, 1.0)
            read = {key: repr(verdicts[0]) for key, verdicts in again.heard.verdicts.items()}
            assert len(read) > 50
            for owner in (first, second):
                assert {key: {*map(repr, judged)} for key, judged in owner.heard.verdicts.items()} == {
                    key: {read[key]} for key in owner.heard.verdicts
                }
            assert first.heard.verdicts.keys() | second.heard.verdicts.keys() == read.keys()

    run(work())
