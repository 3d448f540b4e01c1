"""What `bench_fleet.py` and `chaos_fleet.py` share: a fleet that runs for a while, and what became of every row."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from gon_edge.errors import UnreachableError
from gon_edge.fleet.account import Unscored, account, judged_rows, settle, waiting_rows
from gon_edge.fleet.connection import Errors
from gon_edge.fleet.jetstream import Fleet
from gon_edge.fleet.look import Eye, Look
from gon_edge.fleet.servers import Mosquitto
from gon_edge.fleet.site import Devices, Site, SiteSettings
from gon_edge.links.client import histogram_buckets, histogram_quantile

LOOK_EVERY_S = 0.5
LATENCY = "gon_edge_ingest_to_verdict_seconds"


class Run:
    """A fleet, connected to.

    Parameters
    ----------
    site : Site
        Started.
    fleet : Fleet
    relay : Relay
        To the first NATS server, where mosquitto's bridge goes by it.

    Attributes
    ----------
    started : dict of float to float
        The histogram of latencies when the start was over, if that is known: `account` tells them with and without it.
    """

    def __init__(self, site: Site, fleet: Fleet, relay: Relay) -> None:
        self.site, self.fleet, self.relay = site, fleet, relay
        self.eye = Eye(fleet)
        self.unscored = Unscored()
        self.looks: list[Look] = []
        self.started: dict[float, float] = {}

    async def workers(self, count: int) -> None:
        """Start so many workers, and wait until each has said something."""
        for _ in range(count):
            self.site.add_worker()
        await self.until(lambda look: len(look.workers) >= count, 120.0, "the workers")

    async def look(self) -> Look | None:
        """Look once; ``None`` while NATS is away."""
        try:
            look = await asyncio.wait_for(self.eye.look(), 20.0)
        except (UnreachableError, TimeoutError, *Errors):
            return None
        self.unscored.see(look)
        self.looks.append(look)
        return look

    async def watch(self, seconds: float) -> None:
        """Look for so long."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            await self.look()
            await asyncio.sleep(LOOK_EVERY_S)

    async def until(self, reached: Callable[[Look], bool], timeout_s: float, what: str) -> Look:
        """Look until something is so."""
        end = time.monotonic() + timeout_s
        while time.monotonic() < end:
            look = await self.look()
            if look is not None and reached(look):
                return look
            await asyncio.sleep(LOOK_EVERY_S)
        raise SystemExit(f"{what} did not come within {timeout_s:.0f} s")

    async def account(self, devices: Devices) -> dict[str, Any]:
        """Have the devices end, every row judged and everything saved; return what became of each row."""
        rows = await asyncio.to_thread(devices.finish)
        stored = await settle(self.fleet, rows, self.look)
        latency, late = self.latency(), self.series('gon_edge_messages_total{result="late"}')
        await asyncio.to_thread(self.site.stop_workers)
        look = await self.until(lambda look: True, 60.0, "NATS")
        judged, waiting = await judged_rows(self.fleet, len(rows)), await waiting_rows(self.fleet)
        counted = account(rows, devices.said["acknowledged"], stored, judged, late=round(late), waiting=waiting)
        return {
            **asdict(counted),
            "alerts": look.alerts_raised,
            "alerts_repeated": self.eye.told.repeated,
            "takeovers": sum(max(0, each.epoch - 1) for each in look.partitions),
            "longest_unscored_s": round(self.unscored.longest_s, 1),
            **quantiles(latency),
            **(quantiles(since(latency, self.started), "_after_the_start") if self.started else {}),
        }

    def latency(self) -> dict[float, float]:
        """Return the histogram of all living workers together."""
        found: dict[float, float] = {}
        for page in self.pages():
            for bound, count in histogram_buckets(page, LATENCY).items():
                found[bound] = found.get(bound, 0.0) + count
        return found

    def pages(self) -> list[str]:
        """Return the metrics of each living worker."""
        found = []
        for worker in self.site.workers.values():
            with contextlib.suppress(UnreachableError):
                found.append(worker.api.metrics())
        return found

    def series(self, name: str) -> float:
        """Return the sum of a series over all living workers and labels."""
        begins = f"{name} ", f"{name}{{"
        lines = [line for page in self.pages() for line in page.splitlines() if line.startswith(begins)]
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines)


def since(now: dict[float, float], before: dict[float, float]) -> dict[float, float]:
    """What a histogram has counted since it was read before."""
    return {bound: count - before.get(bound, 0.0) for bound, count in now.items()}


def quantiles(histogram: dict[float, float], of: str = "") -> dict[str, float | None]:
    """Seconds within which half and 99 % of verdicts came."""
    found = {percent: histogram_quantile(histogram, percent / 100) for percent in (50, 99)}
    return {f"p{percent}_s{of}": None if each is None else round(each, 4) for percent, each in found.items()}


class Relay:
    """A way to a port of this machine that can be cut: both ends see their connections end."""

    def __init__(self, port: int) -> None:
        self.port = 0
        self._to = port
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.StreamWriter] = set()

    async def start(self) -> None:
        """Take connections, on the port of before where there was one."""
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    def cut(self) -> None:
        """End every connection at once, with what is on its way, and take no more."""
        if self._server is not None:
            self._server.close()
        for writer in self._open:
            writer.transport.abort()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            there, back = await asyncio.open_connection("127.0.0.1", self._to)
            ends = {writer, back}
            self._open |= ends
            await asyncio.gather(self._pass(reader, back), self._pass(there, writer))
            self._open -= ends

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while some := await reader.read(1 << 16):
                writer.write(some)
                await writer.drain()
        writer.close()


@contextlib.asynccontextmanager
async def running(folder: Path, settings: SiteSettings, *, by_relay: bool = False) -> AsyncIterator[Run]:
    """Run servers while the block lasts; workers and devices are the block's."""
    folder.mkdir(parents=True)
    site = Site(folder, settings)
    relay = Relay(site.nats[0].ports.mqtt)
    if by_relay:
        await relay.start()
        site.mosquitto = Mosquitto(folder, [replace(site.nats[0].ports, mqtt=relay.port)], ["telemetry/#"])
    await asyncio.to_thread(site.start)
    fleet = await site.connect()
    try:
        yield Run(site, fleet, relay)
    finally:
        relay.cut()
        with contextlib.suppress(*Errors):
            await asyncio.wait_for(fleet.client.close(), 5.0)
        await asyncio.to_thread(site.stop)


async def in_order(fleet: Fleet, devices: int) -> tuple[int, int]:
    """Return how many messages of devices are older than one before them of the same device, and how many there are."""
    info = await fleet.request(f"STREAM.INFO.{fleet.names.telemetry}")
    newest: dict[str, float] = {}
    wrong = count = 0
    async for message in fleet.read(
        fleet.names.telemetry, f"{fleet.names.prefix}.*.telemetry.>", 1, info["state"]["last_seq"]
    ):
        at = json.loads(message.data)["time"]
        wrong += at < newest.get(message.subject, 0.0)
        newest[message.subject] = max(at, newest.get(message.subject, 0.0))
        count += 1
    assert len(newest) <= devices
    return wrong, count


def sync(work: Awaitable[Any]) -> Any:
    """Run a coroutine to its end."""

    async def whole() -> Any:
        return await work

    return asyncio.run(whole())
