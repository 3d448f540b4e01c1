"""States of streams in JetStream: written by their owner alone."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from fleet.fleets import Owner, config, fleet_of, publish, rows, run, sequence_of, with_models
from prometheus_client import CollectorRegistry

from gon_edge.fleet.saved import OwnerError, Saved
from gon_edge.fleet.series import Series


def saved(fleet: Any, worker: str) -> Saved:
    return Saved(fleet, 0, worker, Series(CollectorRegistry(), 1))


def test_a_late_write_is_refused_from_the_moment_on_that_another_worker_is_the_owner(nats_server, tmp_path):
    async def work() -> None:
        async with fleet_of(config(tmp_path, nats_server.url)) as fleet:
            await with_models(fleet, ["pump", "fan"])
            first, second = saved(fleet, "first"), saved(fleet, "second")
            states = await first.take(1.0)
            assert (states.keys(), first.epoch) == ({"pump", "fan"}, 1)
            await first._write({"pump": {**states["pump"], "rows": 7}})
            assert {name: value["rows"] for name, value in (await second.take(2.0)).items()} == {"pump": 7, "fan": 0}
            assert second.epoch == 2
            with pytest.raises(OwnerError):
                await first.leave()
            await second._write({"pump": {**states["pump"], "rows": 9}})
            with pytest.raises(OwnerError):
                await first._write({"pump": states["pump"]})
            await second.leave()
            assert (await saved(fleet, "third").take(3.0))["pump"]["rows"] == 9

    run(work())


def test_a_stream_that_was_forgotten_is_unknown_to_the_next_owner_and_may_come_again(nats_server, tmp_path):
    async def work() -> None:
        async with fleet_of(config(tmp_path, nats_server.url)) as fleet:
            await with_models(fleet, ["pump", "fan"])
            first = saved(fleet, "first")
            states = await first.take(1.0)
            await first.forget(["fan", "nobody"])
            second = saved(fleet, "second")
            assert (await second.take(2.0)).keys() == {"pump"}
            await second._write({"fan": states["fan"]})
            assert (await saved(fleet, "third").take(3.0)).keys() == {"pump", "fan"}

    run(work())


def test_a_state_of_another_version_goes_on_as_after_a_restart_and_ends_its_alert(nats_server, tmp_path):
    async def work() -> None:
        settings = config(tmp_path, nats_server.url)
        async with fleet_of(settings) as fleet:
            await with_models(fleet, ["pump"])
            await publish(fleet, "pump", rows(0, range(60), range(50, 80)))
            first = await Owner(fleet, settings, tmp_path).begin()
            await first.work_to(await sequence_of(fleet))
            await first.partition.leave()
            await first.pulls.give_back()
            bucket = await fleet.js.key_value(fleet.names.states)
            entry = await bucket.get("0.pump")
            value = json.loads(entry.value)
            (alert,) = value["alerts"]
            assert (alert["type"], value["rows"], value["owner"]) == ("new", 60, first.folder.name)
            await bucket.put("0.pump", json.dumps({**value, "frozen": "of another version"}).encode())
            await publish(fleet, "pump", rows(0, range(60, 140), range(50, 80)))
            second = await Owner(fleet, settings, tmp_path).begin()
            await second.work_to(await sequence_of(fleet))
            assert json.loads(second.retained[f"gon-edge/{settings.fleet.prefix}/state/pump"])["alerts"] == []
            assert second.partition._streams["pump"].rows == 140

    run(work())


def test_as_many_models_are_kept_as_on_a_device_and_older_ones_are_deleted(nats_server, tmp_path):
    async def work() -> None:
        settings = config(tmp_path, nats_server.url)
        async with fleet_of(settings) as fleet:
            await with_models(fleet, ["pump"])
            await publish(fleet, "pump", rows(0, range(3)))
            owner = await Owner(fleet, settings, tmp_path).begin()
            await owner.work_to(3)
            objects = await fleet.js.object_store(fleet.names.models)
            for version in range(8, 14):
                await objects.put(f"pump.{version}", b"a model")
                owner.partition._installed("pump", f"pump.{version}")
            bucket = await fleet.js.key_value(fleet.names.states)
            async with asyncio.timeout(20):
                while len(kept := json.loads((await bucket.get("0.pump")).value)["models"]) == 1:
                    await owner.work(iter([False, True]).__next__)
            assert kept == [f"pump.{version}" for version in range(13, 8, -1)]
            while len(found := {info.name for info in await objects.list() if not info.deleted}) > len(kept):
                await owner.work(iter([False, True]).__next__)
            assert found == {*kept}

    run(work())
