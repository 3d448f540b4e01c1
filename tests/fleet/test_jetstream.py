"""JetStream as a fleet uses it, on a real server."""

from __future__ import annotations

import asyncio
import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import pytest
from fleet.fleets import config, fleet_of, publish, run

from gon_edge.config.schema import Config
from gon_edge.errors import ConfigError
from gon_edge.fleet.jetstream import Fleet, Pulls
from gon_edge.fleet.names import GROUP
from gon_edge.process.clock import monotonic


def test_a_fleet_is_set_up_as_often_as_workers_start_and_follows_their_settings(nats_server, tmp_path):
    async def work() -> None:
        settings = config(tmp_path, nats_server.url)
        async with fleet_of(settings) as fleet:
            await publish(fleet, "pump", [b"1"])
            longer = dataclasses.replace(settings, fleet=dataclasses.replace(settings.fleet, retention_s=300.0))
            await Fleet(fleet.client, longer).create()
            info = await fleet.js.stream_info(fleet.names.telemetry)
            assert (info.config.max_age, info.state.messages) == (300.0, 1)
            assert (await fleet.js.stream_info(fleet.names.events)).config.duplicate_window == 300.0

    run(work())


def test_another_number_of_partitions_is_refused_and_changes_nothing(nats_server, tmp_path):
    async def work() -> None:
        settings = config(tmp_path, nats_server.url, fleet={"partitions": 3})
        async with fleet_of(settings) as fleet:
            other = dataclasses.replace(settings, fleet=dataclasses.replace(settings.fleet, partitions=4))
            with pytest.raises(ConfigError, match=r"has 3 partitions, .* write 3"):
                await Fleet(fleet.client, other).create()
            assert len((await fleet.js.stream_info(fleet.names.telemetry)).config.subjects) == 3

    run(work())


def test_a_stretch_of_a_stream_is_read_once_and_in_order_and_others_are_left_out(nats_server, tmp_path):
    async def work() -> None:
        settings = config(tmp_path, nats_server.url, fleet={"partitions": 2})
        async with fleet_of(settings) as fleet:
            for number in range(900):
                subject = f"{fleet.names.prefix}.{number % 2}.telemetry.pump"
                await fleet.client.publish(subject, b"%d" % number)
            while (await fleet.js.stream_info(fleet.names.telemetry)).state.last_seq < 900:
                await asyncio.sleep(0.02)

            async def read(first: int, last: int) -> list[int]:
                found = fleet.read(fleet.names.telemetry, fleet.names.partition(1), first, last)
                return [int(message.data) async for message in found]

            assert await read(1, 900) == list(range(1, 900, 2))
            assert await read(11, 20) == [11, 13, 15, 17, 19]
            assert await read(12, 11) == []
            assert await read(901, 2000) == []

    run(work())


class Leaving(Fleet):
    """A fleet whose first consumer for a read goes at once, as with a server that has just been killed."""

    def __init__(self, fleet: Fleet, settings: Config) -> None:
        super().__init__(fleet.client, settings)
        self.created = 0

    async def request(self, what: str, asked: Mapping[str, Any] | None = None) -> dict[str, Any]:
        answer = await super().request(what, asked)
        if what.startswith("CONSUMER.CREATE."):
            self.created += 1
            if self.created == 1:
                await super().request(what.replace("CREATE", "DELETE"))
        return answer


def test_a_read_goes_on_by_another_consumer_where_the_first_one_has_gone(nats_server, tmp_path):
    async def work() -> None:
        settings = config(tmp_path, nats_server.url)
        async with fleet_of(settings) as fleet:
            await publish(fleet, "pump", [b"%d" % number for number in range(5)])
            leaving = Leaving(fleet, settings)
            read = leaving.read(fleet.names.telemetry, fleet.names.partition(0), 2, math.inf)
            assert [message.data async for message in read] == [b"1", b"2", b"3", b"4"]
            assert leaving.created == 2

    run(work())


def test_a_consumer_that_no_server_has_is_asked_a_few_times_a_second_and_not_all_the_time(nats_server, tmp_path):
    async def work() -> None:
        async with fleet_of(config(tmp_path, nats_server.url)) as fleet:
            pulls = Pulls(fleet, fleet.names.telemetry, "none")
            await pulls.start()
            asked, began = fleet.client.stats["out_msgs"], monotonic()
            for _ in range(4):
                await pulls.keep(0.25)
                assert not await pulls.wait(0.25)
            assert fleet.client.stats["out_msgs"] - asked == 4
            assert monotonic() - began >= 1.0

    run(work())


def test_only_one_client_gets_messages_until_it_gives_the_consumer_back(nats_server, tmp_path):
    async def work() -> None:
        async with fleet_of(config(tmp_path, nats_server.url)) as fleet:
            names = fleet.names
            one, two = (Pulls(fleet, names.telemetry, names.consumer(0), GROUP) for _ in range(2))
            for pulls in (one, two):
                await pulls.start()
                await pulls.keep(0.5)
            await fleet.client.flush()
            await publish(fleet, "pump", [b"1", b"2"])
            assert await one.wait(5.0)
            assert not await two.wait(0.3)
            assert [message.data for message in one.waiting] == [b"1", b"2"]
            await one.stop()
            await one.give_back()
            await two.keep(0.5)
            await publish(fleet, "pump", [b"3"])
            while not await two.wait(0.5):
                await two.keep(0.5)
            assert [message.data for message in two.waiting] == [b"3"]
            assert two.pin
            assert not two.refused

    run(work())
