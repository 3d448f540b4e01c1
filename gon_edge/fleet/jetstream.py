"""NATS JetStream as a fleet uses it: what must be there, and pulls of a consumer by one owner.

``nats-py`` has no call for consumers that are pinned to one client (priority groups, ADR-42 of NATS), so these are the
raw requests.  The server gives an id with each message; who pulls with an id that is no longer the one gets 423.  A
pin ends when its owner has not pulled for ``fleet.takeover``; a pull that waits is no sign of life.

Messages are not acknowledged: how far a worker has come is in what it has saved (`partition`).
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
import time
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from datetime import datetime
from typing import Any, NamedTuple

from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import Error as NatsError
from nats.js.api import DiscardPolicy, KeyValueConfig, ObjectStoreConfig, RetentionPolicy, StreamConfig
from nats.js.errors import BadRequestError, BucketNotFoundError, NotFoundError

from gon_edge.config.schema import Config
from gon_edge.errors import ConfigError, UnreachableError
from gon_edge.fleet import ingest
from gon_edge.fleet.connection import Errors
from gon_edge.fleet.names import GROUP, Names
from gon_edge.fleet.servertime import ServerTime
from gon_edge.process.clock import monotonic

EVENTS_KEPT_S = 30 * 86400.0
"""Events of alerts are kept for a month.  Not critical: a few a day, half a kilobyte each."""

CHUNKS_KEPT = 2500
"""Chunks of rows kept of each stream of readings: eight days, as `training.absent` wants, of one every five minutes."""

TRAINING_S = 3600.0
"""A training that nobody has carried out after so long is asked for anew.  Not critical: they take seconds to minutes,
and one whose worker dies is given to another."""

ACK_S = 30.0
"""Who has a training, or an event for MQTT, and gives no sign for so long, is gone: it goes to another one."""

_MOST_WAITING = 1024  # messages taken from the server that wait to be judged
_REQUEST_S = 5.0  # not critical: a server that lives answers at once
_SILENT_S = 12.0  # not critical: two stretches of a read in which nothing comes
_ASK_AGAIN_S = 0.1  # not critical: other servers hear of a new consumer in milliseconds
_SOURCE_S = 2.5  # not critical: two heartbeats of `ingest` and a half
_RENEW_S = 1.0  # not critical: a pull that is to find out who is pinned


class Delivered(NamedTuple):
    """A message of a stream.

    Attributes
    ----------
    subject : str
    data : bytes
    sequence : int
        In the stream.
    number : int
        Of the messages its consumer has given out: one more than that of the message before, unless some did not come.
    at : float
        Unix seconds at which the server has stored it, by its clock.
    pending : int
        Messages behind it.
    reply : str
        Subject of its acknowledgement, where one is awaited.
    """

    subject: str
    data: bytes
    sequence: int
    number: int
    at: float
    pending: int
    reply: str


class Fleet:
    """What a fleet has in JetStream.

    Parameters
    ----------
    client : Client
    config : Config

    Attributes
    ----------
    settings : FleetConfig
    names : Names
    time : ServerTime
    is_fed : bool
        Whether messages of devices came into their stream a moment ago, or would have.
    """

    def __init__(self, client: Client, config: Config) -> None:
        self.client, self.settings = client, config.fleet
        self.names = Names(config.fleet.prefix)
        self._config = config
        self.time = ServerTime()
        self.is_fed = True
        self.js = client.jetstream(timeout=_REQUEST_S)

    async def create(self) -> None:
        """Make every stream, bucket and consumer that is not there yet, and give them the settings of now.

        Raises
        ------
        UnreachableError
            There is no JetStream, or it refuses: no space, fewer servers than ``replicas``, no right.
        ConfigError
            The fleet has another number of partitions.
        """
        settings, names = self.settings, self.names
        partitions = range(settings.partitions)
        streams = (
            StreamConfig(
                name=names.events,
                subjects=[names.events_of(number) for number in partitions],
                max_age=EVENTS_KEPT_S,
                # What a worker had not saved is judged again from what is kept of the telemetry.
                duplicate_window=settings.retention_s,
            ),
            StreamConfig(
                name=names.rows,
                subjects=[f"{names.prefix}.rows.>"],
                max_msgs_per_subject=CHUNKS_KEPT,
                max_bytes=settings.max_bytes // 2,
                discard=DiscardPolicy.OLD,
                allow_rollup_hdrs=True,
            ),
            StreamConfig(
                name=names.trainings,
                subjects=[names.training],
                retention=RetentionPolicy.WORK_QUEUE,
                max_age=TRAINING_S,
            ),
        )
        try:
            await self._create_telemetry()
            for config in streams:
                await self._stream(config.evolve(num_replicas=settings.replicas, allow_direct=True))
            for bucket in (names.states, names.days, names.owners):
                await self._bucket(bucket, None)
            await self._bucket(names.workers, self.away_s)
            with contextlib.suppress(BadRequestError):  # it is there
                await self.js.create_object_store(
                    names.models, config=ObjectStoreConfig(bucket=names.models, replicas=settings.replicas)
                )
            for number in partitions:
                taken = {"ack_policy": "none", "filter_subject": names.partition(number)}
                await self.consumer(names.telemetry, names.consumer(number), {**taken, **self._pinned})
            acknowledged = {"ack_policy": "explicit", "ack_wait": round(ACK_S * 1e9), "max_deliver": -1}
            await self.consumer(names.trainings, "workers", acknowledged)
            await self.consumer(names.events, "mqtt", {**acknowledged, "max_ack_pending": 20_000, **self._pinned})
        except Errors as error:
            raise UnreachableError(f"JetStream cannot be set up for the fleet {names.prefix!r}: {error}") from None

    async def _create_telemetry(self) -> None:
        """Make the stream of devices' messages, and what brings them there; `ingest` says why that way."""
        settings, name = self.settings, self.names.telemetry
        with contextlib.suppress(NatsError):  # the gateway, or another worker, was quicker
            await self.request(f"STREAM.CREATE.{ingest.MQTT_STREAM}", ingest.gateway_stream(settings.replicas))
        reader = ingest.consumer(self._config)
        asked = {"stream_name": ingest.MQTT_STREAM, "config": reader}
        await self.request(f"CONSUMER.DURABLE.CREATE.{ingest.MQTT_STREAM}.{reader['name']}", asked)
        stream = {
            "name": name,
            "subjects": [self.names.partition(number) for number in range(settings.partitions)],
            "sources": [ingest.source(self._config)],
            "max_age": round(settings.retention_s * 1e9),
            "max_bytes": settings.max_bytes,
            "discard": "old",
            "storage": "file",
            "num_replicas": settings.replicas,
            "allow_direct": True,
        }
        try:
            there = await self.request(f"STREAM.INFO.{name}")
        except NatsError:
            await self.request(f"STREAM.CREATE.{name}", stream)
            return
        if (partitions := len(there["config"]["subjects"])) != settings.partitions:
            raise ConfigError(
                f"the fleet {settings.prefix!r} has {partitions} partitions, which its streams of readings are spread "
                f"over: write {partitions}, or another fleet.prefix",
                key="fleet.partitions",
            )
        await self.request(f"STREAM.UPDATE.{name}", stream)

    @property
    def away_s(self) -> float:
        """After this silence, in seconds, a worker counts as gone."""
        return max(2.0, self.settings.takeover_s)

    async def _stream(self, config: StreamConfig) -> None:
        try:
            await self.js.add_stream(config)
        except BadRequestError:  # it is there with other settings
            await self.js.update_stream(config)

    async def _bucket(self, bucket: str, ttl_s: float | None) -> None:
        try:
            await self.js.key_value(bucket)
        except (BucketNotFoundError, NotFoundError):
            with contextlib.suppress(BadRequestError):  # another worker was quicker
                await self.js.create_key_value(
                    KeyValueConfig(bucket=bucket, ttl=ttl_s, replicas=self.settings.replicas, history=1)
                )

    @property
    def _pinned(self) -> dict[str, Any]:
        """What makes a consumer that of one client at a time."""
        return {
            "priority_groups": [GROUP],
            "priority_policy": "pinned_client",
            "priority_timeout": round(self.settings.takeover_s * 1e9),
        }

    async def consumer(self, stream: str, name: str, config: Mapping[str, Any]) -> None:
        """Make a consumer, or give it other settings."""
        asked = {"stream_name": stream, "config": {"durable_name": name, "name": name, **config}}
        await self.request(f"CONSUMER.DURABLE.CREATE.{stream}.{name}", asked)

    async def request(self, what: str, asked: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Ask JetStream's API.

        Raises
        ------
        NatsError
            It refuses, or does not answer.
        """
        body = json.dumps(asked).encode() if asked is not None else b""
        reply = await self.client.request(f"$JS.API.{what}", body, timeout=_REQUEST_S)
        answer: dict[str, Any] = json.loads(reply.data)
        if "error" in answer:
            raise NatsError(f"{what}: {answer['error'].get('description', answer['error'])}")
        if isinstance(answer.get("ts"), str):
            self.time.hear(datetime.fromisoformat(answer["ts"]).timestamp())
        return answer

    async def look_at_source(self) -> None:
        """Find out whether messages of devices come into their stream at all: no silence counts while they do not."""
        try:
            async with asyncio.timeout(_SOURCE_S):
                info = await self.request(f"STREAM.INFO.{self.names.telemetry}")
            self.is_fed = all(0 <= each["active"] <= _SOURCE_S * 1e9 for each in info["sources"])
        except Errors:
            self.is_fed = False
            raise

    async def read(self, stream: str, subject: str, first: int, last: float) -> AsyncIterator[Delivered]:
        """Every message of a stream from one sequence to another, both included, under a subject, in their order.

        What there is to read the leader of the stream says: another server may just have come back, and know less.  A
        stretch that ends too soon, because a server or the connection has gone, is followed by another.

        Raises
        ------
        NatsError
            Nothing more comes, or the leader does not answer.
        """
        silent_since = monotonic()
        while first <= (newest := min(last, await self._newest(stream, subject))):
            async with contextlib.aclosing(self._stretch(stream, subject, first)) as some:
                async for message in some:
                    if message.sequence <= newest:
                        yield message
                    first, silent_since = message.sequence + 1, monotonic()
                    if first > newest:
                        return
            if monotonic() - silent_since > _SILENT_S:
                raise NatsError(f"{stream} gives no more of {subject}")

    async def _stretch(self, stream: str, subject: str, first: int) -> AsyncGenerator[Delivered, None]:
        """Messages from a sequence on by a consumer of its own, until one is missing or none comes for a while."""
        name = f"read-{time.monotonic_ns()}"
        config = {
            "name": name,
            "ack_policy": "none",
            "filter_subject": subject,
            "deliver_policy": "by_start_sequence",
            "opt_start_seq": max(1, first),
            "inactive_threshold": round(30e9),
            "mem_storage": True,
            "num_replicas": 1,
        }
        await self.request(f"CONSUMER.CREATE.{stream}.{name}", {"stream_name": stream, "config": config})
        pulls, count, came_at = Pulls(self, stream, name), 0, monotonic()
        await pulls.start()
        try:
            while monotonic() - came_at < _REQUEST_S:
                await pulls.keep(_REQUEST_S)
                if not await pulls.wait(_ASK_AGAIN_S):
                    continue
                came_at = monotonic()
                while pulls.waiting:
                    message = pulls.waiting.popleft()
                    count += 1
                    if message.number != count:  # the connection was lost in between
                        return
                    yield message
        finally:
            await pulls.stop()
            with contextlib.suppress(*Errors):
                await self.request(f"CONSUMER.DELETE.{stream}.{name}")

    async def _newest(self, stream: str, subject: str) -> int:
        """Sequence of the newest message under a subject, 0 without one."""
        try:
            found = await self.request(f"STREAM.MSG.GET.{stream}", {"last_by_subj": subject})
        except NatsError as error:
            if "no message found" in str(error):
                return 0
            raise
        return int(found["message"]["seq"])


class Pulls:
    """Messages of one consumer, asked for a batch at a time.

    Parameters
    ----------
    fleet : Fleet
    stream, consumer : str
    group : str, optional
        Priority group of a pinned consumer.
    batch : int
        Messages asked for at once; not critical: 256 are a quarter of a second of scoring.

    Attributes
    ----------
    waiting : deque of Delivered
        Messages that have come, oldest first.
    pin : str
        The id by which this client is the one; empty while it is not.
    refused : bool
        The server may have pinned the consumer to another client: it says so, or nothing was asked for too long.
    asked_at : float
        Monotonic seconds of the newest pull, that go on while the machine sleeps.
    """

    def __init__(self, fleet: Fleet, stream: str, consumer: str, group: str = "", *, batch: int = 256) -> None:
        self.waiting: deque[Delivered] = deque()
        self.pin = ""
        self.refused = False
        self.asked_at = -math.inf
        self._fleet, self._stream, self._consumer = fleet, stream, consumer
        self._group, self._batch = group, batch
        self._left = 0  # of the pull that is under way
        self._came = asyncio.Event()
        self._subscription: Any = None
        self._inbox = ""

    async def start(self) -> None:
        """Get ready for messages."""
        self._inbox = self._fleet.client.new_inbox()
        self._subscription = await self._fleet.client.subscribe(
            self._inbox, cb=self._take, pending_msgs_limit=-1, pending_bytes_limit=-1
        )

    async def stop(self) -> None:
        """Take nothing more."""
        if self._subscription is not None:
            with contextlib.suppress(*Errors):
                await self._subscription.unsubscribe()
            self._subscription = None

    async def keep(self, every_s: float) -> None:
        """Have a pull under way, and a new one every so often, which is also the sign of life of a pinned client."""
        now = monotonic()
        if self.pin and now - self.asked_at > self._fleet.settings.takeover_s:
            self.refused = True
        if (self._left <= 0 or now - self.asked_at >= every_s) and self._fleet.client.is_connected:
            await self._pull(every_s)

    async def _pull(self, every_s: float) -> None:
        batch = max(1, min(self._batch, _MOST_WAITING - len(self.waiting)))
        asked: dict[str, Any] = {"batch": batch, "expires": round(every_s * 1e9)}
        if self._group:
            asked["group"] = self._group
        if self.pin:
            asked["id"] = self.pin
        self._left, self.asked_at = batch, monotonic()
        subject = f"$JS.API.CONSUMER.MSG.NEXT.{self._stream}.{self._consumer}"
        await self._fleet.client.publish(subject, json.dumps(asked).encode(), reply=self._inbox)

    async def keep_on(self, every_s: float) -> None:
        """Give signs of life for ever, whatever else this process waits for."""
        while True:
            with contextlib.suppress(*Errors):
                await self.keep(every_s)
            await asyncio.sleep(every_s / 2.0)

    async def renew(self) -> bool:
        """Ask whose the consumer is, and for its pin where it is nobody's; whether it is this client's."""
        info = await self._fleet.request(f"CONSUMER.INFO.{self._stream}.{self._consumer}")
        pinned = {group.get("pinned_client_id", "") for group in info.get("priority_groups") or ()} - {""}
        if pinned and pinned != {self.pin}:
            return False
        self.pin, self.refused = self.pin if pinned else "", False
        await self._pull(_RENEW_S)
        return True

    async def give_back(self) -> None:
        """Let the server pin the consumer to another client at once."""
        self.pin = ""
        self.waiting.clear()
        with contextlib.suppress(*Errors):
            await self._fleet.request(f"CONSUMER.UNPIN.{self._stream}.{self._consumer}", {"group": self._group})

    async def wait(self, timeout_s: float) -> bool:
        """Wait for messages; whether some have come."""
        self._came.clear()
        if not self.waiting:
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._came.wait(), timeout_s)
        return bool(self.waiting)

    async def _take(self, message: Msg) -> None:
        headers = message.headers or {}
        status = headers.get("Status")
        if status is not None and not message.reply:
            self._left = 0
            self.refused = self.refused or status == "423"
            if status != "503":  # no server has the consumer now: there is time until the next pull
                self._came.set()
            return
        delivered = _delivered(message)
        self._fleet.time.hear(delivered.at)
        self.pin = headers.get("Nats-Pin-Id", self.pin)
        self._left -= 1
        self.waiting.append(delivered)
        self._came.set()


def _delivered(message: Msg) -> Delivered:
    # $JS.ACK, domain and account if there are any, then STREAM.CONSUMER.DELIVERED.SEQUENCE.NUMBER.NANOSECONDS.PENDING
    parts = message.reply.split(".")
    sequence, number, at_ns, pending = map(int, parts[5:9] if len(parts) < 11 else parts[7:11])
    return Delivered(message.subject, message.data, sequence, number, at_ns / 1e9, pending, message.reply)
