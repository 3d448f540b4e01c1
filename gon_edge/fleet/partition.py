"""One partition of the devices, for as long as this worker owns it: messages in, events and states out.

An owner that is gone leaves what it had saved of each stream, and the sequence up to which that counts.  The next one
goes on from there: it reads what came since once more, passes over what a stream knows, and tells what it finds;
JetStream takes each event once.  A partition is left when the server has pinned it to another worker, or when a write
is refused.  Messages that were on their way while the connection to NATS broke are read again from the stream.
"""

from __future__ import annotations

import asyncio
import json
import logging
import math
import shutil
import time
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from nats.js.errors import APIError

from gon_edge.daemon.orders import Machine
from gon_edge.daemon.scoring import Scoring
from gon_edge.fleet import training
from gon_edge.fleet.connection import Errors
from gon_edge.fleet.front import home_of
from gon_edge.fleet.frozen import FrozenError
from gon_edge.fleet.jetstream import Delivered, Pulls
from gon_edge.fleet.judging import TICK_S, Judging
from gon_edge.fleet.outlet import Outlet
from gon_edge.fleet.requests import Requests
from gon_edge.fleet.rows import KeptRows
from gon_edge.fleet.saved import KEPT, OwnerError, Saved, go_on
from gon_edge.fleet.surroundings import Surroundings
from gon_edge.fleet.turns import AT_ONCE
from gon_edge.process.clock import Clock, monotonic
from gon_edge.stream.silences import Silences

log = logging.getLogger(__name__)

_SETTLE_S = 0.25
"""So long after a moment every message of it has come from the server.  Not critical: one that has not is in its row
all the same, unless time alone had completed that."""

_AGAIN_S = 2.0
"""After NATS has been away, messages that waited for it come first.  Not critical: they come at once."""

_SAVES = 8  # writes of where a successor would have to begin, for each `save_every`; not critical
_DAYS_EVERY_S = 1800.0
"""What an owner that is killed had seen since then of the hours of the day is missing in what the next week is held
against.  Not critical: two of its quarters of an hour."""

_LOOK_EVERY_S = 1.0  # as a daemon's beat
_WRONG_SEQUENCE = 10071  # of JetStream's API: somebody else has published in between


class Partition:
    """One partition, owned.

    Parameters
    ----------
    around : Surroundings
    number : int
    pulls : Pulls
        Its messages.
    folder : Path
        Scratch, of this partition alone.

    Attributes
    ----------
    lag : int
        Messages that wait behind the newest one.
    """

    def __init__(self, around: Surroundings, number: int, pulls: Pulls, folder: Path) -> None:
        fleet, config = around.fleet, around.own_config(folder)
        self.number, self._around = number, around
        self.lag = 0
        self._fleet, self._pulls, self._telemetry, self._series = fleet, pulls, around.telemetry, around.series
        self._worker, self._folder, self._inbox, self._turns = around.worker, folder, around.inbox, around.turns
        self._saved = Saved(fleet, number, around.worker, around.series)
        self._urgent: set[str] = set()  # streams that must not wait to be saved
        self._outlet = Outlet(config.mqtt, config.fleet.prefix, around.publish, monotonic)
        self._counted = 0  # of the newest message, as the consumer counts them
        self._connections = fleet.client.stats["reconnects"]  # when what was on its way was looked for last
        self._deaf_until = math.inf  # monotonic seconds
        self._event_sequence = 0
        self._looked_at = self._saved_at = self._kept_at = self._days_at = 0.0
        self._saved_tick = -math.inf
        self._trainings = 0
        shutil.rmtree(folder, ignore_errors=True)
        clock = Clock(monotonic=fleet.time.now, wall=fleet.time.now)
        machine = Machine(clock, conditions=None, trainer=lambda _, models: self._elsewhere(models))
        self._scoring = Scoring(config, around.telemetry, self._outlet, machine)
        self._judging = Judging(self._scoring, around.series, number)
        self._streams = self._scoring.pipeline.streams
        self._rows = KeptRows(fleet, number, self._scoring.store, self._alive)
        self._home = home_of(config, lambda topic, payload: around.publish(topic, payload, ""))
        self._requests = Requests(fleet, number, self._scoring, self._rows, self._saved)

    def _elsewhere(self, models: Any) -> training.Elsewhere:
        self._training = training.Elsewhere(models, self._installed)
        return self._training

    @property
    def epoch(self) -> int:
        """Takeovers of the partition so far."""
        return self._saved.epoch

    @property
    def sequence(self) -> int:
        """Of the newest message that was judged."""
        return self._judging.sequence

    @property
    def rows(self) -> int:
        """Judged since the takeover."""
        return self._judging.rows

    @property
    def streams(self) -> int:
        """How many streams of readings it has."""
        return len(self._streams)

    @property
    def latency_s(self) -> float | None:
        """Seconds from the server's receipt to the verdict that 99 of 100 newest rows stay below; None without any."""
        ordered = sorted(self._scoring.reporter.latencies)
        return round(ordered[len(ordered) * 99 // 100], 4) if ordered else None

    @property
    def training(self) -> training.Elsewhere:
        """The trainings of its streams."""
        return self._training

    # -- takeover and end --------------------------------------------------------------------------------------------

    async def begin(self) -> None:
        """Go on where the owner before has come to; the first message that is nobody's yet is here already.

        Raises
        ------
        OwnerError
            Another worker was quicker.
        NatsError
        """
        fleet, began = self._fleet, monotonic()
        states = await self._saved.take(fleet.time.now())
        marked = {"type": "takeover", "partition": self.number, "worker": self._worker, "epoch": self.epoch}
        mark = json.dumps({**marked, "timestamp": fleet.time.now()}).encode()
        # What the owner before publishes from here on is refused: it expects another message to be the last.
        self._event_sequence = (await fleet.js.publish(fleet.names.events_of(self.number), mark)).seq
        owner = self._saved.owner
        pipeline = self._scoring.pipeline
        pipeline.groups.resume({"id": name, "group": name, "since": at} for name, at in owner["leaders"])
        pipeline.resume_births(owner["births"], fleet.time.now())
        pipeline.silences.resume(owner["together"])
        self._scoring.orders.silences = Silences(owner["silences"])
        await self._open_all(list(states.values()))
        known = {name: int(value["sequence"]) for name, value in states.items()}
        self._judging.resume(owner, known)
        self._requests.resume(known)
        first, self._counted = self._pulls.waiting[0].sequence, self._pulls.waiting[0].number - 1
        await self._warn_of_gap(first)
        self._outlet.quiet = True
        again = await self._read_to(first)
        self._outlet.quiet = False
        self._saved_at = self._kept_at = self._days_at = monotonic()
        took_s = monotonic() - began
        self._series.takeover_seconds.set(took_s)
        self._series.takeovers.labels(self.number).inc()
        self._series.epoch.labels(self.number).set(self.epoch)
        self._series.owned.labels(self.number).set(1)
        log.info(
            "partition %d is ours (takeover %d): %d streams, %d messages judged again, %.1f s",
            self.number, self.epoch, len(self._streams), again, took_s,
        )  # fmt: skip

    async def _open_all(self, values: list[dict[str, Any]]) -> None:
        """Open streams as they were left; their models come several at a time."""
        while values:
            some, values = values[:AT_ONCE], values[AT_ONCE:]
            wanted = (training.model_bytes(self._fleet, value["model"]) for value in some)
            for value, content in zip(some, await asyncio.gather(*wanted), strict=True):
                self._open(value, content)
                await self._saved.take_days(self._streams[value["stream"]])
                await self._alive()

    def _open(self, value: dict[str, Any], content: bytes) -> None:
        """Open a stream as it was left."""
        name, orders, store = value["stream"], self._scoring.orders, self._scoring.store
        if content:
            file = self._scoring.models.file(name)
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(content)
        for key, kind in KEPT.items():
            store.put_state(f"{kind}/{name}", value.get(key))
        orders.open(name)
        try:
            go_on(self._streams[name], value)
        except FrozenError as error:
            log.warning("stream %r: its windows begin anew: %s", name, error)
            orders.open(name)  # one that has taken a part of it is of no use
            go_on(self._streams[name], {**value, "frozen": ""})
        self._streams[name].silence(orders.silences.features(name, self._fleet.time.now()))
        self._scoring.pipeline.resumed(self._streams[name])
        if value["state"] is not None:
            self._outlet.states[name] = value["state"]

    async def _warn_of_gap(self, first: int) -> None:
        """Say that messages were kept for too short a time."""
        info = (await self._fleet.request(f"STREAM.INFO.{self._fleet.names.telemetry}"))["state"]
        gone = min(first, int(info["first_seq"])) - 1 - self.sequence
        # All that is gone may have been others' messages.
        is_known = self._judging.tick >= datetime.fromisoformat(info["first_ts"]).timestamp()
        if self.sequence and gone > 0 and not is_known:
            self._series.gone.labels(self.number).inc(gone)
            log.error(
                "partition %d: up to %d messages (of all partitions) were gone before they were judged; "
                "raise fleet.retention or fleet.max_size", self.number, gone,
            )  # fmt: skip

    async def _read_to(self, first: int) -> int:
        """Read what lies between the newest message that was judged and another one; how many there were.

        An owner before has judged them, or they were on their way here when the connection broke.
        """
        again, names, some = 0, self._fleet.names, list[Delivered]()
        read = self._fleet.read(names.telemetry, names.partition(self.number), self.sequence + 1, first - 1)
        async for message in read:
            some.append(message)
            if len(some) >= self._turns.size:
                await self._judge(some)
                some.clear()
                await self._alive()
            again += 1
        await self._judge(some)
        self._series.redelivered.labels(self.number).inc(again)
        return again

    async def _alive(self) -> None:
        """Let others have a turn while there is much to do; raises `OwnerError` where the partition is lost."""
        if self._turns.is_over:
            await self._turns.wait()
            await self._look_at_lease()

    async def _look_at_lease(self) -> None:
        """Raise `OwnerError` where the partition is another worker's: nothing must be told or written then."""
        pulls = self._pulls
        if pulls.pin and not pulls.refused:
            return
        if not await pulls.renew():
            raise OwnerError(f"partition {self.number} was given to another worker")
        if not pulls.pin:  # the server pins whoever gets the next message
            await self._wake()

    async def _wake(self) -> None:
        """Have a message come."""
        await self._fleet.js.publish(self._fleet.names.wake(self.number), b"")

    async def leave(self) -> None:
        """Save everything and let another worker take it.

        Raises
        ------
        OwnerError, NatsError
            It cannot be saved; the next owner reads more again.
        """
        await self._tell()
        await self._keep()
        await self._saved.save(self._scoring, [*self._judging.dirty], self.sequence, self._outlet.states)
        self._judging.dirty.clear()
        self._scoring.store.flush(self._fleet.time.now())
        await self._rows.send()
        await self._saved.save_days(self._streams.values())
        await self._keep()
        await self._saved.leave()

    def drop(self) -> None:
        """Let go of everything; what was saved is the next owner's."""
        for name in self._streams:
            self._telemetry.remove_stream(name)
        self._outlet.forget()
        self._scoring.store.close()
        shutil.rmtree(self._folder, ignore_errors=True)
        for gauge in (self._series.owned, self._series.streams, self._series.lag, self._series.epoch):
            gauge.labels(self.number).set(0)

    # -- messages ----------------------------------------------------------------------------------------------------

    async def work(self) -> bool:
        """Judge some messages, let time pass, tell and save what is due; whether there may be more at once.

        Raises
        ------
        OwnerError
            The partition is no more this worker's.
        NatsError
            Nothing is lost by it: try again.
        """
        await self._look_at_lease()
        waiting = self._pulls.waiting
        if waiting and waiting[0].number != self._counted + 1:
            await self._read_to(waiting[0].sequence)
        some = self._next()
        try:
            await self._judge(some)
        except Errors:
            self._counted, self._connections = 0, -1  # what was taken from those that wait is read again
            raise
        self._series.messages.labels(self.number).inc(len(some))
        await self._look_at_connection()
        if not waiting and (not self._judging.deaf or monotonic() > self._deaf_until):
            self.lag = 0
            self._judging.let_pass(self._fleet.time.now() - _SETTLE_S)
        await self._tell()
        now = monotonic()
        if now - self._looked_at >= TICK_S:
            self._looked_at = now
            await self._look()
        return bool(waiting)

    def _next(self) -> list[Delivered]:
        """Take some messages that wait, up to the first that is missing; those that were judged are left out."""
        some: list[Delivered] = []
        waiting, newest = self._pulls.waiting, self.sequence
        for at in range(min(self._turns.size, len(waiting))):
            if at and waiting[0].number != self._counted + 1:
                break
            message = waiting.popleft()
            self._counted = message.number
            if message.sequence <= newest:
                self._series.redelivered.labels(self.number).inc()
                continue
            newest = message.sequence
            some.append(message)
            self.lag = message.pending + len(waiting)
        return some

    async def _judge(self, some: Sequence[Delivered]) -> None:
        """Judge messages, and carry out what people ask between them."""
        readings, began_s = list[Delivered](), time.thread_time()
        for message in some:
            if message.subject != self._fleet.names.ask(self.number):
                readings.append(message)
                continue
            self._judging.take(readings)
            readings.clear()
            self._judging.reach(message)
            stream = await self._requests.take(message, self._judging.known)
            if stream in self._streams:
                self._judging.news(stream, message.sequence, 0)
                self._urgent.add(stream)
            elif stream:
                self._judging.forget(stream)
        self._judging.take(readings)
        if some:
            self._turns.judged(len(some), time.thread_time() - began_s)

    async def _look_at_connection(self) -> None:
        """Look for what may have been lost with a connection: a message of our own comes behind it, and shows it."""
        client = self._fleet.client
        lost = client.stats["reconnects"]
        if client.is_connected and self._fleet.is_fed and lost == self._connections:
            return
        self._judging.go_deaf()
        self._deaf_until = monotonic() + _AGAIN_S
        if client.is_connected and lost != self._connections:
            await self._wake()
            self._connections = lost

    # -- what leaves -------------------------------------------------------------------------------------------------

    async def _tell(self) -> None:
        """Bring every event to JetStream; one that is there already is not told again."""
        events = self._outlet.events
        while events:
            await self._look_at_lease()
            expected = {"Nats-Expected-Last-Subject-Sequence": str(self._event_sequence)}
            subject, event = self._fleet.names.events_of(self.number), events[0]
            try:
                told = await self._fleet.js.publish(
                    subject, event.payload, headers={"Nats-Msg-Id": f"{self.number}/{event.name}", **expected}
                )
            except APIError as error:
                if error.err_code != _WRONG_SEQUENCE:
                    raise
                self._series.refused.inc()
                raise OwnerError(f"partition {self.number}: another worker tells its events") from error
            self._series.published.labels("repeated" if told.duplicate else "stored").inc()
            self._event_sequence = max(self._event_sequence, told.seq)
            events.pop(0)

    async def _look(self) -> None:
        """What is due now and then: trainings, rows that waited for them, and what has to be saved."""
        scoring, now = self._scoring, self._fleet.time.now()
        for stream, outcomes in scoring.catch_up():
            if outcomes:
                self._judging.news(stream.name, self.sequence + 1, len(outcomes))
        scoring.orders.config = self._around.budgeted(scoring.config, len(self._streams))
        scoring.orders.step(now)
        if monotonic() - self._saved_at >= _LOOK_EVERY_S:
            await self._rows.recall([*scoring.orders.overdue(), *self._recurring()])  # these look back at older rows
            scoring.orders.beat(now, now)
            self._flush(now)
            self._show()
            passed_s, self._saved_at = monotonic() - self._saved_at, monotonic()
            judged_s, self._saved_tick = self._judging.tick - self._saved_tick, self._judging.tick
            # Where a worker is behind, states saved by the clock would leave it no time for the rows.
            await self._save(min(passed_s, judged_s) if self.lag else passed_s)
        for wanted in self._training.wanted:
            self._trainings += 1
            name = f"{self.number}-{self.epoch}-{self._trainings}"
            await self._rows.send()
            champion = next(iter(self._saved.models.get(wanted.stream, ())), "")
            await training.ask(self._fleet, self.number, wanted, champion, name, self._inbox)
            self._training.asked_for(wanted.stream, name)

    def _recurring(self) -> list[str]:
        """Streams with an open alert that has come before: at its end it may be learned as a habit."""
        return [
            name
            for name, stream in self._streams.items()
            if any(alert.recurring is not None for alert in stream.policy.active)
        ]

    def _flush(self, now: float) -> None:
        """Pack rows when it is time to: the store is scratch, and everything else in it is in the states."""
        store = self._scoring.store
        if store.due(now) and not store.flush(now):
            log.warning("partition %d: rows to learn from cannot be kept: %s", self.number, store.last_error)

    def _show(self) -> None:
        self._series.streams.labels(self.number).set(len(self._streams))
        self._series.lag.labels(self.number).set(self.lag)
        for stream in self._streams.values():
            self._telemetry.stream_state(stream.name, stream.state)
            self._telemetry.causes(stream.name, stream.causes())
            if self._home is not None:
                silenced = self._scoring.orders.silenced(stream.name) is None
                self._home.update(stream, monotonic(), silenced=silenced)
        if self._home is not None:
            self._home.keep(self._streams.keys())

    def _installed(self, stream: str, name: str) -> None:
        """A new model is in use: that is saved before anything else of the stream."""
        self._saved.installed(stream, name)
        self._judging.news(stream, self.sequence + 1, 0)
        self._urgent.add(stream)

    async def _save(self, elapsed_s: float) -> None:
        """Save those streams that wait longest, so many that each has its turn once in ``save_every``."""
        settings = self._fleet.settings
        count = math.ceil(len(self._streams) * elapsed_s / settings.save_every_s)
        waiting = sorted(self._judging.dirty, key=self._judging.dirty.__getitem__)
        waiting.sort(key=lambda name: name not in self._urgent)
        names = waiting[: max(count, len(self._urgent))]
        is_time = monotonic() - self._kept_at >= settings.save_every_s / _SAVES
        if names or self._judging.forgotten or self._requests.news or is_time:
            await self._keep()  # refused where the partition has another owner: no state is written then either
        forgotten, self._judging.forgotten = self._judging.forgotten, []
        await self._saved.forget(name for name in forgotten if name not in self._streams)
        if names:
            sequence = self.sequence
            await self._saved.save(self._scoring, names, sequence, self._outlet.states)
            for name in names:
                del self._judging.dirty[name]
        self._urgent.difference_update(names)
        await self._requests.send()
        if is_time:
            self._kept_at = monotonic()
            await self._rows.send()
        if monotonic() - self._days_at >= _DAYS_EVERY_S:
            self._days_at = monotonic()
            await self._saved.save_days(self._streams.values())

    async def _keep(self) -> None:
        """Write from where a successor has to read."""
        first, at = min(self._judging.dirty.values(), default=(self.sequence + 1, self._judging.tick))
        more, self._requests.news = self._requests.state(), False
        await self._saved.keep(first - 1, at if math.isfinite(at) else None, self._scoring, more)
