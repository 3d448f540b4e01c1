"""What tests of a fleet share: messages of devices, a fleet on a real server, and a single daemon beside it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from pathlib import Path
from typing import Any

import nats
import numpy as np
from nats.aio.client import Client
from prometheus_client import CollectorRegistry
from states import Sent

from gon_edge.config.file import parse_config
from gon_edge.config.schema import Config
from gon_edge.daemon.orders import Machine
from gon_edge.daemon.scoring import Scoring
from gon_edge.events import Verdict
from gon_edge.fleet.connection import Errors
from gon_edge.fleet.jetstream import Fleet, Pulls
from gon_edge.fleet.names import GROUP, key_of, topic_of
from gon_edge.fleet.partition import Partition
from gon_edge.fleet.series import Series
from gon_edge.fleet.servers import NatsServer
from gon_edge.fleet.surroundings import Surroundings
from gon_edge.links.prometheus import Telemetry
from gon_edge.model.file import load_model
from gon_edge.process.clock import Clock
from gon_edge.state.folder import ModelFolder

PUMP = Path(__file__).parents[1] / "golden" / "pump.npz"
MODEL = load_model(PUMP)
BEGAN = 1.77e9


def config(folder: Path, url: str, **options: Any) -> Config:
    """A configuration of a fleet that no other test shares."""
    fleet = {
        "servers": url,
        "prefix": f"t{uuid.uuid4().hex[:8]}",
        "partitions": 1,
        "takeover": "1s",
        "save_every": "1s",
    }
    return parse_config(
        {
            "mqtt": {"url": "mqtt://127.0.0.1:1"},
            "subscriptions": [{"topic": "telemetry/{stream}", "timestamp": "at"}],
            "state_dir": str(folder / "state"),
            "http": {"listen": "off"},
            **options,
            "fleet": {**fleet, "retention": "1m", "max_size": "16MiB", **options.get("fleet", {})},
        }
    )


def rows(device: int, numbers: Iterable[int], faulty: Iterable[int] = ()) -> list[bytes]:
    """Payloads of one device: its rows of these numbers, a second apart; the faulty ones are far from normal."""
    faulty = set(faulty)
    found = []
    for number in numbers:
        values = np.random.default_rng((device, number)).normal(MODEL.scaler.mean, 0.3 * MODEL.scaler.scale)
        values += 8.0 * MODEL.scaler.scale * (number in faulty)
        named = dict(zip(MODEL.features, values.round(4).tolist(), strict=True))
        found.append(json.dumps({"at": BEGAN + number, **named}).encode())
    return found


@contextlib.asynccontextmanager
async def fleet_of(settings: Config) -> AsyncIterator[Fleet]:
    """The fleet of a configuration, set up and empty."""
    client = await nats.connect([*settings.fleet.servers])
    try:
        fleet = Fleet(client, settings)
        await fleet.create()
        yield fleet
    finally:
        await client.close()


class OwnFleet(Fleet):
    """The fleet of one test, whose owners are in this process.

    Attributes
    ----------
    config : Config
    """

    def __init__(self, client: Client, settings: Config, folder: Path) -> None:
        super().__init__(client, settings)
        self.config, self._folder = settings, folder

    async def owner(self) -> Owner:
        """The next owner of the first partition, which it has taken."""
        return await Owner(self, self.config, self._folder).begin()


@contextlib.asynccontextmanager
async def own_fleet(
    server: NatsServer, folder: Path, streams: Iterable[str] = (), /, **options: Any
) -> AsyncIterator[OwnFleet]:
    """A fleet that no other test shares, and whose streams have a model."""
    async with fleet_of(config(folder, server.url, **options)) as fleet:
        own = OwnFleet(fleet.client, fleet._config, folder)
        await with_models(own, streams)
        yield own


async def with_models(fleet: Fleet, streams: Iterable[str], partition: int = 0) -> None:
    """Give streams a model, as if they had been trained before."""
    store = await fleet.js.object_store(fleet.names.models)
    states = await fleet.js.key_value(fleet.names.states)
    for stream in streams:
        name = f"{key_of(stream)}.{MODEL.version}.test"
        await store.put(name, PUMP.read_bytes())
        state = {
            "stream": stream,
            "sequence": 0,
            "model": name,
            "models": [name],
            "model_version": MODEL.version,
            "alerts": [],
        }
        more = {"state": None, "rows": 0, "memory": None, "columns": None, "drift": None, "frozen": ""}
        await states.put(fleet.names.state(partition, stream), json.dumps({**state, **more}).encode())


async def publish(fleet: Fleet, stream: str, payloads: Iterable[bytes], partition: int = 0) -> None:
    for payload in payloads:
        await fleet.js.publish(f"{fleet.names.prefix}.{partition}.telemetry.{stream}", payload)


async def ask(fleet: Fleet, stream: str, asked: dict[str, Any]) -> None:
    """Ask something of a stream in partition 0; what comes of it is told under ``answers``."""
    message = {"asked": asked, "stream": stream, "reply": "answers"}
    await fleet.js.publish(fleet.names.ask(0), json.dumps(message).encode())


def missed(stream: str, at: float) -> dict[str, Any]:
    """To be asked: there was a fault, so many seconds after the first row."""
    return {"do": "missed", "stream": stream, "at": {"at": BEGAN + at}, "note": "", "by": "me"}


class Heard(Telemetry):
    """Series that remember every verdict."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        super().__init__(self.registry, version="0")
        self.verdicts: dict[tuple[str, float], list[Verdict]] = {}

    def verdict(self, verdict: Verdict, **more: Any) -> None:
        self.verdicts.setdefault((verdict.stream, verdict.timestamp), []).append(verdict)
        super().verdict(verdict, **more)


class Owner:
    """A worker that has one partition, in this process."""

    def __init__(self, fleet: Fleet, settings: Config, folder: Path, number: int = 0) -> None:
        self.fleet, self.heard = fleet, Heard()
        self.retained: dict[str, str] = {}
        self.series = Series(self.heard.registry, settings.fleet.partitions)
        self.pulls = Pulls(fleet, fleet.names.telemetry, fleet.names.consumer(number), GROUP)
        self.inbox = "nobody"
        self.folder = folder / uuid.uuid4().hex
        self._settings, self._number = settings, number
        self.partition: Partition

    async def begin(self) -> Owner:
        """Wait until the server gives the partition, and take it."""
        await self.pulls.start()
        waited = 0
        while not self.pulls.pin:
            if (waited := waited + 1) == 7:  # what there was had been sent to an owner that is gone
                await self.fleet.client.publish(self.fleet.names.wake(0), b"")
            await self.pulls.keep(0.2)
            await self.pulls.wait(0.2)
        keep = lambda topic, payload, _: self.retained.update({topic: payload})  # noqa: E731
        around = Surroundings(
            self.fleet,
            self._settings,
            self.heard,
            self.series,
            self.folder.name,
            self.inbox,
            publish=keep,
            part=lambda streams: 1.0,
        )
        self.partition = Partition(around, self._number, self.pulls, self.folder)
        await self.partition.begin()
        return self

    async def work(self, until: Callable[[], Any]) -> None:
        """Work until something is so."""
        async with asyncio.timeout(60):
            while not until():
                await self.pulls.keep(0.2)
                with contextlib.suppress(*Errors):  # a worker tries again as well
                    await self.partition.work()
                await self.pulls.wait(0.02)

    async def work_to(self, sequence: int) -> None:
        await self.work(lambda: self.partition.sequence >= sequence)

    def sample(self, name: str, **labels: str) -> float | None:
        return self.heard.registry.get_sample_value(f"gon_edge_fleet_{name}", labels)


async def sequence_of(fleet: Fleet) -> int:
    """Of the newest message of the telemetry."""
    return int((await fleet.js.stream_info(fleet.names.telemetry)).state.last_seq)


async def events_of(fleet: Fleet) -> list[dict[str, Any]]:
    """Every event of an alert that JetStream has."""
    names = fleet.names
    last = (await fleet.js.stream_info(names.events)).state.last_seq
    found = [json.loads(m.data) async for m in fleet.read(names.events, f"{names.prefix}.events.*", 1, last)]
    return [event for event in found if event["type"] != "takeover"]


async def single_daemon(
    fleet: Fleet, settings: Config, folder: Path, streams: Iterable[str]
) -> tuple[dict[tuple[str, float], Verdict], list[dict[str, Any]]]:
    """What one daemon makes of all messages of partition 0: its verdicts, and its events."""
    for stream in streams:
        ModelFolder(folder).install(stream, MODEL)
    heard, sent, now = Heard(), Sent(), [0.0]
    clock = Clock(monotonic=lambda: now[0], wall=lambda: now[0])
    options = {"state_dir": str(folder), "node": settings.fleet.prefix}
    again = parse_config(
        {
            "mqtt": {"url": "mqtt://127.0.0.1:1"},
            "subscriptions": [{"topic": "telemetry/{stream}", "timestamp": "at"}],
            **options,
        }
    )
    scoring = Scoring(again, heard, sent, Machine(clock))
    try:
        last = await sequence_of(fleet)
        async for message in fleet.read(fleet.names.telemetry, fleet.names.partition(0), 1, last):
            if not now[0]:
                now[0] = message.at
                scoring.pipeline.offset_s = 0.0
                scoring.resume()
            now[0] = message.at
            scoring.take(topic_of(message.subject.split(".", 2)[2]), message.data, message.at)
    finally:
        scoring.store.close()
    return {key: only for key, (only,) in heard.verdicts.items()}, sent.events


def run(work: Awaitable[None], limit_s: float = 120.0) -> None:
    async def within() -> None:
        async with asyncio.timeout(limit_s):
            await work

    asyncio.run(within())
