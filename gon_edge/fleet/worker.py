"""A worker of a fleet: takes partitions as the server gives them, and does with their messages what a daemon does.

One thread and one asyncio loop: judging a few messages takes milliseconds, and in between everybody has a turn; where
several partitions have more to do, they go on one after the other, and one that is being taken over beside them.  Each
partition has a task that pulls its messages: while another worker is pinned it gets none, and when that is silent it
gets the next one.  No worker keeps more than its share, so that one that comes later has something to do.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import logging
import math
import os
import random
import shutil
import signal
import socket
import time
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import IO, Any

from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.js.errors import KeyNotFoundError
from prometheus_client import CollectorRegistry

import gon_edge
from gon_edge.config.schema import Config
from gon_edge.errors import StoreError, UnreachableError
from gon_edge.fleet.connection import Errors, connect
from gon_edge.fleet.desk import Desk
from gon_edge.fleet.forward import Forwarder
from gon_edge.fleet.front import Front
from gon_edge.fleet.jetstream import Fleet, Pulls
from gon_edge.fleet.names import GROUP
from gon_edge.fleet.partition import Partition
from gon_edge.fleet.saved import OwnerError
from gon_edge.fleet.series import Series
from gon_edge.fleet.surroundings import Surroundings
from gon_edge.fleet.training import Workshop, model_bytes
from gon_edge.fleet.turns import Turns
from gon_edge.links.mqtt.client import MqttClient
from gon_edge.links.prometheus import Telemetry
from gon_edge.links.snapshot import Snapshot
from gon_edge.links.web.server import WebServer
from gon_edge.process.clock import monotonic
from gon_edge.process.files import make_folder
from gon_edge.process.memory import return_memory, rss_bytes
from gon_edge.process.systemd import Notifier
from gon_edge.state.catalog import check_starters
from gon_edge.state.database import check_state_dir
from gon_edge.training.capacity import capacity

log = logging.getLogger(__name__)

_BEAT_S = 1.0
_SET_UP_S = 30.0  # not critical: servers of a cluster have chosen one of them in seconds
_IDLE_S = 0.1  # not critical: rows that time completes are late by this much more
_GATHER_S = 0.02
"""What comes within this is judged together, which takes less time.  Not critical: it delays a verdict by as much."""

_TRIM_EVERY_S = 10.0  # as a daemon's
_FRESH_S = 2.5  # a sign of life, and one and a half more on a busy machine
_OTHERS = 5  # tasks of a worker that are no partition's
_SHARE_EVERY_S = 2.0  # not critical: a partition moves in seconds


class Worker:
    """A worker.

    Parameters
    ----------
    config : Config

    Raises
    ------
    ConfigError
        Options that contradict each other, or a secret that cannot be read.
    StoreError
        Another worker of this name uses its folder.
    GonEdgeError
        The HTTP address cannot be listened on.
    """

    def __init__(self, config: Config) -> None:
        check_starters(config)
        check_state_dir(config.state_dir)
        self._config = config
        self.name = config.fleet.name or f"{socket.gethostname().split('.')[0]}-{os.getpid()}"
        self._folder, self._lock = _own_folder(config.state_dir / "workers", self.name)
        self._registry = CollectorRegistry()
        self._telemetry = Telemetry(self._registry, version=gon_edge.__version__)
        self._telemetry.memory_budget(capacity(config.retrain).budget_bytes)
        self._telemetry.config_loaded(time.time())
        self._series = Series(self._registry, config.fleet.partitions)
        self._mqtt = self._broker()
        self._web: WebServer | None = None
        if config.http.enabled:
            self._web = WebServer(config.http, snapshot=self._snapshot, registry=self._registry)
        self._owned: dict[int, Partition] = {}
        self._beginning: set[int] = set()
        self._left_at: dict[int, float] = {}  # partitions that are, or shall be, somebody else's; monotonic seconds
        self._share = config.fleet.partitions
        self._streams_elsewhere = 0  # that other workers own
        self._stopping = asyncio.Event()
        self._turns = Turns()
        self._notifier = Notifier()
        self._started_at = time.time()
        self._beat_at = time.monotonic()
        self._inbox = ""

    def _broker(self) -> MqttClient:
        node = f"{self._config.fleet.prefix}-{self.name}"
        client = MqttClient(
            self._config.mqtt,
            node=node,
            subscriptions=(),
            rng=random.Random(),  # noqa: S311  jitter
            on_reconnect=self._telemetry.mqtt_reconnect,
        )
        self._telemetry.watch(
            mqtt_connected=lambda: client.connected,
            unacknowledged_s=lambda: client.delivery.waited_s,
            subscriptions_refused=lambda: 0,
            queue_length=lambda: sum(partition.lag for partition in list(self._owned.values())),
        )
        return client

    @property
    def _streams_here(self) -> int:
        return sum(partition.streams for partition in list(self._owned.values()))

    @property
    def url(self) -> str:
        """Address of the metrics; empty when HTTP is off."""
        return self._web.url if self._web else ""

    def run(self) -> None:
        """Work until SIGTERM or SIGINT.

        Raises
        ------
        UnreachableError
            There is no NATS, or no JetStream in it.
        """
        try:
            asyncio.run(self._run())
        finally:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._lock.close()

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stopping.set)
        stopped = asyncio.ensure_future(self._stopping.wait())
        connecting = asyncio.ensure_future(connect(self._config.fleet, self.name))
        await asyncio.wait([connecting, stopped], return_when=asyncio.FIRST_COMPLETED)
        if not connecting.done():  # NATS that is down is waited for
            connecting.cancel()
            return
        client = await connecting
        fleet = Fleet(client, self._config)
        await self._create(fleet)
        self._inbox = client.new_inbox()
        await client.subscribe(self._inbox, cb=partial(self._trained, fleet))
        self._mqtt.start()
        if self._web is not None:
            self._web.start()
            log.info("metrics at %smetrics", self._web.url)
        log.info("gon-edge %s, worker %s of the fleet %r", gon_edge.__version__, self.name, self._config.fleet.prefix)
        workshop = Workshop(fleet, self._config, self._series, self._folder / "training")
        desk = Desk(fleet, client, self._config.state_dir)
        self._front = Front(self._config, desk, self._telemetry)
        works: list[Awaitable[None]] = [
            self._beat(fleet, client, workshop),
            Forwarder(fleet, self._config, self._series).run(),
            workshop.run(),
            desk.run(),
            self._front.run(),
            *(self._hold(fleet, number) for number in range(self._config.fleet.partitions)),
        ]
        self._notifier.ready(f"worker {self.name}")
        tasks = [asyncio.ensure_future(work) for work in works]
        try:
            await asyncio.wait([stopped, *tasks], return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._notifier.stopping()
            failed = [task.exception() for task in tasks if task.done() and not task.cancelled()]
            self._stopping.set()
            others, holds = tasks[:_OTHERS], tasks[_OTHERS:]
            for task in (stopped, *others):
                task.cancel()
            await asyncio.gather(*holds, stopped, *others, return_exceptions=True)
            await self._say_goodbye(fleet)
            await asyncio.to_thread(self._mqtt.stop)
            if self._web is not None:
                self._web.stop()
            with contextlib.suppress(*Errors):
                await asyncio.wait_for(client.close(), 5.0)
            log.info("stopped")
        for error in failed:
            if error is not None:
                raise error

    async def _create(self, fleet: Fleet) -> None:
        """Set the fleet up; servers that have just started may still choose who of them leads."""
        until = monotonic() + _SET_UP_S
        while True:
            try:
                return await fleet.create()
            except UnreachableError as error:
                if monotonic() > until or self._stopping.is_set():
                    raise
                log.warning("%s; trying again", error)
                await asyncio.sleep(_BEAT_S)

    # -- partitions --------------------------------------------------------------------------------------------------

    async def _hold(self, fleet: Fleet, number: int) -> None:
        """Take one partition whenever the server gives it, and work on it while it is ours."""
        every_s = self._config.fleet.takeover_s / 4.0
        while not self._stopping.is_set():
            pulls = Pulls(fleet, fleet.names.telemetry, fleet.names.consumer(number), GROUP)
            try:
                await pulls.start()
                if not await self._wait_for(pulls, number, every_s):
                    continue
                await self._own(fleet, pulls, number, every_s)
            except Errors as error:
                log.warning("partition %d: %s; trying again", number, error or type(error).__name__)
                if pulls.pin and not pulls.refused:
                    await pulls.give_back()  # else nobody got it before `takeover` is over
                await asyncio.sleep(1.0)
            finally:
                await pulls.stop()

    async def _wait_for(self, pulls: Pulls, number: int, every_s: float) -> bool:
        """Wait until the server gives the partition to this worker, and it may have one more; whether that is so."""
        while not self._stopping.is_set() and not pulls.refused:
            cooling = monotonic() - self._left_at.get(number, -math.inf) < self._config.fleet.takeover_s
            if cooling or len(self._owned) + len(self._beginning) >= self._share:
                await asyncio.sleep(_IDLE_S)
                continue
            await pulls.keep(every_s)
            if await pulls.wait(every_s) and pulls.pin:
                if len(self._owned) + len(self._beginning) < self._share:
                    return True
                self._left_at[number] = monotonic()
                await pulls.give_back()
        return False

    async def _own(self, fleet: Fleet, pulls: Pulls, number: int, every_s: float) -> None:
        self._beginning.add(number)
        self._left_at.pop(number, None)  # it would be left again at once
        around = Surroundings(
            fleet,
            self._config,
            self._telemetry,
            self._series,
            self.name,
            self._inbox,
            publish=lambda topic, payload, shorter: self._mqtt.publish(topic, payload, retain=True, shorter=shorter),
            part=lambda streams: streams / max(streams, self._streams_elsewhere + self._streams_here),
            turns=self._turns,
        )
        partition = Partition(around, number, pulls, self._folder / str(number))
        alive = asyncio.create_task(pulls.keep_on(every_s))
        try:
            await partition.begin()
            self._owned[number] = partition
            self._beginning.discard(number)
            while not self._stopping.is_set() and number not in self._left_at:
                await pulls.keep(every_s)
                try:
                    more = await partition.work()
                except Errors as error:
                    log.warning("partition %d: %s; trying again", number, error or type(error).__name__)
                    await asyncio.sleep(_BEAT_S / 2.0)
                    continue
                if more:
                    await self._turns.wait()
                elif await pulls.wait(_IDLE_S):
                    await asyncio.sleep(_GATHER_S)
            await partition.leave()
            self._left_at[number] = monotonic()
            await pulls.give_back()
            log.info("partition %d is left: %d streams are saved", number, partition.streams)
        except OwnerError as error:
            self._series.lost.labels(number).inc()
            log.warning("%s; what was saved is the other's", error)
        finally:
            alive.cancel()
            self._owned.pop(number, None)
            self._beginning.discard(number)
            partition.drop()
            if not self._stopping.is_set():
                await asyncio.sleep(0)

    # -- once a second -----------------------------------------------------------------------------------------------

    async def _beat(self, fleet: Fleet, client: Client, workshop: Workshop) -> None:
        looked_at = trimmed_at = 0.0
        while True:
            now = time.monotonic()
            self._beat_at = now
            self._series.connected.set(client.is_connected)
            self._notifier.watchdog()
            try:
                await self._say_alive(fleet, workshop)
                await fleet.look_at_source()
                if now - looked_at >= _SHARE_EVERY_S:
                    looked_at = now
                    await self._look_at_share(fleet)
            except Errors as error:
                log.debug("no sign of life: %s", error)
            if now - trimmed_at >= _TRIM_EVERY_S:
                trimmed_at = now
                return_memory()
            await asyncio.sleep(_BEAT_S)

    async def _say_alive(self, fleet: Fleet, workshop: Workshop) -> None:
        told = {
            "worker": self.name,
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "version": gon_edge.__version__,
            "at": round(fleet.time.now(), 3),
            "url": self.url,
            "memory_bytes": rss_bytes(os.getpid()),
            "training": workshop.stream,
            "partitions": {
                str(number): {
                    "epoch": partition.epoch,
                    "streams": partition.streams,
                    "lag": partition.lag,
                    "rows": partition.rows,
                    "latency_p99_s": partition.latency_s,
                }
                for number, partition in self._owned.items()
            },
            "counts": self._series.counts(),
        }
        workers = await fleet.js.key_value(fleet.names.workers)
        await workers.put(self.name, json.dumps(told).encode())

    async def _say_goodbye(self, fleet: Fleet) -> None:
        with contextlib.suppress(*Errors):
            await (await fleet.js.key_value(fleet.names.workers)).purge(self.name)

    async def _look_at_share(self, fleet: Fleet) -> None:
        """Count the workers, and leave a partition where another one has room for it.

        One that was killed a moment ago is listed still: nobody makes room for it.
        """
        held = await self._held(fleet)
        self._share = math.ceil(self._config.fleet.partitions / (len(held) + 1))
        await self._front.hear(self.name == min({self.name, *held}))
        for number, left_at in list(self._left_at.items()):
            if number not in self._owned and monotonic() - left_at > self._config.fleet.takeover_s:
                del self._left_at[number]
        if len(self._owned) > self._share and any(count < self._share for count in held.values()):
            self._left_at[max(self._owned)] = monotonic()
        elif len(self._owned) + len(self._beginning) < self._share:
            await self._wake(fleet, set(held))

    async def _held(self, fleet: Fleet) -> dict[str, int]:
        """How many partitions each other worker has, of those that gave a sign of life just now."""
        bucket = await fleet.js.key_value(fleet.names.workers)
        subjects = {"subjects_filter": f"$KV.{fleet.names.workers}.>"}
        listed = await fleet.request(f"STREAM.INFO.KV_{fleet.names.workers}", subjects)
        held, streams = {}, 0
        for subject in listed["state"].get("subjects") or ():
            with contextlib.suppress(KeyNotFoundError):
                told = json.loads((await bucket.get(subject.rpartition(".")[2])).value or b"{}")
                if told["worker"] != self.name and fleet.time.now() - told["at"] < _FRESH_S:
                    held[told["worker"]] = len(told["partitions"])
                    streams += sum(each["streams"] for each in told["partitions"].values())
        self._streams_elsewhere = streams
        return held

    async def _wake(self, fleet: Fleet, alive: set[str]) -> None:
        """Have the server give away partitions whose owner is gone: it does so with the next message, which may be far.

        What had been sent to an owner that died waits to be read again, and somebody must notice devices that fall
        silent.
        """
        owners = await fleet.js.key_value(fleet.names.owners)
        for number in range(self._config.fleet.partitions):
            if number in self._owned or number in self._beginning:
                continue
            with contextlib.suppress(KeyNotFoundError):
                owner = json.loads((await owners.get(str(number))).value or b"{}")
                if owner["worker"] not in alive - {self.name}:  # which does not have it, whatever stands there
                    await fleet.client.publish(fleet.names.wake(number), b"")

    async def _trained(self, fleet: Fleet, message: Msg) -> None:
        """Hand what came of a training to the partition that has asked for it, where it is still ours."""
        answer = json.loads(message.data)
        for partition in list(self._owned.values()):
            if answer["id"] in partition.training.names:
                content = await model_bytes(fleet, answer["object"])
                partition.training.hear(answer["id"], answer["record"], answer["object"], content)

    def _snapshot(self) -> Snapshot:
        """What the HTTP port shows beside the series: of single streams the bucket of states has more."""
        return Snapshot(
            node=self.name,
            version=gon_edge.__version__,
            started_at=self._started_at,
            now=time.time(),
            mqtt_connected=self._mqtt.connected,
            mqtt_url=self._mqtt.url,
            mqtt_error=self._mqtt.last_error,
            queue_length=sum(partition.lag for partition in list(self._owned.values())),
            rss_bytes=rss_bytes(os.getpid()),
            heartbeat_at=self._beat_at,
            ready=True,
        )


def _own_folder(parent: Path, name: str) -> tuple[Path, IO[bytes]]:
    """The scratch folder of a worker, empty, and its lock; those of workers that are gone are removed."""
    try:
        make_folder(parent)
        for file in parent.glob("*.lock"):
            with file.open("ab") as lock, contextlib.suppress(OSError):
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(file.with_suffix(""), ignore_errors=True)
                file.unlink()
        own = (parent / f"{name}.lock").open("ab")
        fcntl.flock(own, fcntl.LOCK_EX | fcntl.LOCK_NB)
        make_folder(parent / name)
    except BlockingIOError:
        raise StoreError(f"another worker is called {name} and uses {parent / name}; set fleet.name") from None
    except OSError as error:
        raise StoreError(f"{parent} cannot be used: {error}; set state_dir") from None
    return parent / name, own


def run_worker(config: Config, ready: Callable[[str], Any] = lambda url: None) -> None:
    """Run a worker until SIGTERM or SIGINT; ``ready`` gets the address of its metrics.  Raises as `Worker` does."""
    worker = Worker(config)
    ready(worker.url)
    worker.run()
