"""Workers as processes, on a real NATS server and a real broker: killed, frozen, and in order."""

from __future__ import annotations

import asyncio
import itertools
import json
import signal
import subprocess
from typing import Any

import pytest
from e2e.servers import Mosquitto, wait_until
from fleet.fleets import config, events_of, fleet_of, publish, rows, run, with_models
from fleet.programs import Program, owners, until_owned

from gon_edge.fleet.connection import Errors
from gon_edge.fleet.jetstream import Fleet
from gon_edge.fleet.servers import NatsServer

pytestmark = pytest.mark.e2e

STREAMS = [f"pump-{number}" for number in range(4)]
FAULT = range(100, 130)


class Publishing:
    """Rows of every stream, one after the other, while whatever happens happens; what was acknowledged is counted."""

    def __init__(self, fleet: Fleet) -> None:
        self.number = 0
        self._fleet = fleet
        self._task = asyncio.create_task(self._publish())

    async def _publish(self) -> None:
        for number in itertools.count():
            for i, stream in enumerate(STREAMS):
                payload = rows(i, [number], FAULT if i == 0 else ())
                while True:
                    try:
                        await publish(self._fleet, stream, payload, partition=i)
                        break
                    except Errors:  # what it may have stored all the same is a row twice, and late
                        await asyncio.sleep(0.2)
            self.number = number + 1
            await asyncio.sleep(0.03)

    async def to(self, number: int) -> None:
        async with asyncio.timeout(60):
            while self.number < number:
                await asyncio.sleep(0.02)

    def stop(self) -> None:
        self._task.cancel()


async def until_judged(fleet: Fleet, rows_of_each: int) -> None:
    bucket = await fleet.js.key_value(fleet.names.states)
    async with asyncio.timeout(40):
        for number, stream in enumerate(STREAMS):
            key = fleet.names.state(number, stream)
            while json.loads((await bucket.get(key)).value)["rows"] < rows_of_each:
                await asyncio.sleep(0.1)
            assert json.loads((await bucket.get(key)).value)["rows"] == rows_of_each


def test_workers_are_killed_frozen_and_stopped_and_no_row_or_alert_is_lost_or_told_twice(
    tmp_path, mosquitto: Mosquitto
):
    async def work() -> None:
        server = NatsServer(tmp_path)
        server.start()
        running: list[Program] = []
        try:
            settings = config(tmp_path, server.url, mqtt={"url": mosquitto.url}, fleet={"partitions": len(STREAMS)})
            async with fleet_of(settings) as fleet:
                for number, stream in enumerate(STREAMS):
                    await with_models(fleet, [stream], number)
                running += [Program(tmp_path, name, settings) for name in ("a", "b")]
                publishing = Publishing(fleet)
                await until_owned(fleet, len(STREAMS), "a", "b")
                await publishing.to(60)
                running[0].signal(signal.SIGKILL)
                await until_owned(fleet, len(STREAMS), "b")
                running.append(Program(tmp_path, "c", settings))
                await until_owned(fleet, len(STREAMS), "b", "c")
                await publishing.to(110)  # in the middle of the fault
                running[2].signal(signal.SIGSTOP)
                await until_owned(fleet, len(STREAMS), "b")
                running[2].signal(signal.SIGCONT)
                await asyncio.to_thread(wait_until, lambda: "what was saved is the other's" in running[2].log, 20)
                server.kill()
                server.start()
                await publishing.to(max(180, publishing.number + 20))
                publishing.stop()
                await asyncio.sleep(0.2)
                await until_judged(fleet, publishing.number)
                told = [(event["stream"], event["kind"], event["type"]) for event in await events_of(fleet)]
                assert told == [("pump-0", "anomaly", "new"), ("pump-0", "anomaly", "end")]
                running[1].signal(signal.SIGKILL)
                await until_owned(fleet, len(STREAMS), "c")  # though no device says anything any more
                assert running[2].end() == 0
                assert await owners(fleet, len(STREAMS)) == {""}
                assert mosquitto.retained(f"gon-edge/{settings.fleet.prefix}/state/pump-1") is not None
        finally:
            for program in running:
                if program.process.poll() is None:
                    program.process.kill()
            server.stop()

    run(work())


def test_alerts_go_out_as_those_of_a_daemon_do_and_once(tmp_path, mosquitto: Mosquitto):
    heard: list[dict[str, Any]] = []

    async def work() -> None:
        server = NatsServer(tmp_path)
        server.start()
        settings = config(tmp_path, server.url, mqtt={"url": mosquitto.url})
        watch = subprocess.Popen(
            ["mosquitto_sub", "-p", str(mosquitto.port), "-q", "1", "-t", f"gon-edge/{settings.fleet.prefix}/alert"],
            stdout=(tmp_path / "heard").open("wb"),
        )
        try:
            async with fleet_of(settings) as fleet:
                await with_models(fleet, STREAMS[:1])
                program = Program(tmp_path, "a", settings)
                await publish(fleet, STREAMS[0], rows(0, range(200), FAULT))
                await asyncio.to_thread(
                    wait_until, lambda: (tmp_path / "heard").read_bytes().count(b"\n") == 2, 30, "two events"
                )
                heard.extend(map(json.loads, (tmp_path / "heard").read_text().splitlines()))
                assert heard == await events_of(fleet)
                assert program.end() == 0
        finally:
            watch.kill()
            program.process.kill()
            server.stop()

    run(work())


def test_nats_that_is_down_is_waited_for_and_that_is_said(tmp_path):
    program = Program(tmp_path, "a", config(tmp_path, "nats://127.0.0.1:1"))
    wait_until(lambda: "warning gon_edge.fleet.connection: NATS: " in program.log, 30, "a line of the log")
    assert program.end() == 0
