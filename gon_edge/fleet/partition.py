"""One partition of the devices, for as long as this worker owns it: messages in, events and states out.

It is a daemon without the world around it (`daemon.scoring`), whose clock is that of the NATS server: a message was
received when the server had stored it, whoever reads it and whenever.  So another worker that reads the same messages
judges the same rows at the same times, and gives events the same names.  Time passes in whole ticks, for the same
reason.

An owner that is gone leaves what it had saved of each stream, and the sequence up to which that counts.  The next one
goes on from there: it reads what came since once more, passes over what a stream knows, and tells what it finds;
JetStream takes each event once.  A partition is left when the server has pinned it to another worker, when a write is
refused, or when this process stood still for so long that it may have been.
"""

from __future__ import annotations

import asyncio
import json
import logging
import math
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from nats.js.errors import APIError

from gon_edge.config.schema import Config
from gon_edge.daemon.orders import Machine
from gon_edge.daemon.scoring import Scoring
from gon_edge.fleet import training
from gon_edge.fleet.frozen import FrozenError
from gon_edge.fleet.jetstream import Delivered, Fleet, Pulls
from gon_edge.fleet.names import WAKE, topic_of
from gon_edge.fleet.outlet import Outlet
from gon_edge.fleet.saved import Known, OwnerError, Saved, go_on
from gon_edge.fleet.series import Series
from gon_edge.links.prometheus import Telemetry
from gon_edge.process.clock import Clock, monotonic
from gon_edge.stream.heard import Heard

log = logging.getLogger(__name__)

TICK_S = 0.25
"""Time passes in such steps: rows that only time completes are late by this at most.  Not critical, as in
`stream.pipeline`; a quarter of a second there is an eighth of the work."""

_SETTLE_S = 0.25
"""So long after a moment every message of it has come from the server.  Not critical: one that has not is in its row
all the same, unless time alone had completed that."""

_GAP_S = 10.0
"""Without a message of the whole partition for so long, it was the way that failed and not the devices, where nobody
has watched: at a takeover, and after NATS was away.  A judgement: shorter than any silence that is news."""

_AT_ONCE = 16  # messages between two looks at everything else; not critical: 16 ms
_AGAIN_S = 2.0
"""After NATS has been away, messages that waited for it come first.  Not critical: they come at once."""

_SAVES = 8  # writes of where a successor would have to begin, for each `save_every`; not critical
_DAYS_EVERY_S = 1800.0
"""What an owner that is killed had seen since then of the hours of the day is missing in what the next week is held
against.  Not critical: two of its quarters of an hour."""

_URGENT = (0, -math.inf)  # since when a stream waits to be saved that must not wait
_LOOK_EVERY_S = 1.0  # as a daemon's beat
_ROWS_EVERY_PARTS = 3.0  # rows are kept elsewhere so often in a retention
_WRONG_SEQUENCE = 10071  # of JetStream's API: somebody else has published in between


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What all partitions of one worker share.

    Attributes
    ----------
    fleet : Fleet
    config : Config
    telemetry : Telemetry
    series : Series
    worker : str
    inbox : str
        Where answers to trainings go.
    publish : callable
        Sends a retained message to the broker, see `Outlet`.
    """

    fleet: Fleet
    config: Config
    telemetry: Telemetry
    series: Series
    worker: str
    inbox: str
    publish: Callable[[str, str, str], None]


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
    sequence : int
        Of the newest message that was judged.
    lag : int
        Messages behind it.
    rows : int
        Judged since the takeover.
    """

    def __init__(self, around: Surroundings, number: int, pulls: Pulls, folder: Path) -> None:
        fleet, config = around.fleet, around.config
        self.number = number
        self.sequence = self.lag = self.rows = 0
        self._fleet, self._pulls, self._telemetry, self._series = fleet, pulls, around.telemetry, around.series
        self._worker, self._folder, self._inbox = around.worker, folder, around.inbox
        self._saved = Saved(fleet, number, around.worker, around.series)
        self._outlet = Outlet(config.mqtt, config.fleet.prefix, around.publish, monotonic)
        self._known = Known({})
        self._dirty: dict[
            str, tuple[int, float]
        ] = {}  # streams with news that are not saved: since which message, and when
        self._forgotten: list[str] = []
        self._tick = -math.inf  # up to when time has passed
        self._deaf, self._deaf_until, self._watched_until = True, math.inf, -math.inf  # nobody has watched since then
        self._event_sequence = 0
        self._chunk = 0
        self._looked_at = self._saved_at = self._kept_at = self._days_at = 0.0
        self._trainings = 0
        shutil.rmtree(folder, ignore_errors=True)
        clock = Clock(monotonic=fleet.time.now, wall=fleet.time.now)
        machine = Machine(clock, conditions=None, trainer=lambda _, models: self._elsewhere(models))
        self._scoring = Scoring(self._own(config, folder), around.telemetry, self._outlet, machine)
        self._streams = self._scoring.pipeline.streams

    @staticmethod
    def _own(config: Config, folder: Path) -> Config:
        """The configuration of a daemon that has this partition alone."""
        fleet, total = config.fleet, config.alerts.total_budget
        share = None if total is None else total / fleet.partitions
        every_s = min(config.store.flush_every_s, fleet.retention_s / _ROWS_EVERY_PARTS)
        return replace(
            config,
            state_dir=folder,
            node=fleet.prefix,
            alerts=replace(config.alerts, total_budget=share),
            store=replace(config.store, flush_every_s=every_s),
        )

    def _elsewhere(self, models: Any) -> training.Elsewhere:
        self._training = training.Elsewhere(models, self._installed)
        return self._training

    @property
    def epoch(self) -> int:
        """Takeovers of the partition so far."""
        return self._saved.epoch

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
        await self._open_all(list(states.values()))
        self._known.until = {name: int(value["sequence"]) for name, value in states.items()}
        self.sequence, self._tick = int(owner["sequence"]), -math.inf if owner["at"] is None else float(owner["at"])
        self._watched_until = -math.inf if owner["alive"] is None else float(owner["alive"])
        first = self._pulls.waiting[0].sequence if self._pulls.waiting else self.sequence + 1
        await self._warn_of_gap(first)
        again, self._outlet.quiet = 0, True
        async for message in fleet.read(
            fleet.names.telemetry, fleet.names.partition(self.number), self.sequence + 1, first - 1
        ):
            self._take(message)
            again += 1
            if again % _AT_ONCE == 0:
                await self._alive()
        self._outlet.quiet = False
        self._series.redelivered.labels(self.number).inc(again)
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
            some, values = values[:_AT_ONCE], values[_AT_ONCE:]
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
        for key in ("memory", "columns", "drift"):
            store.put_state(f"{'alerts' if key == 'memory' else key}/{name}", value[key])
        orders.open(name)
        try:
            go_on(self._streams[name], value)
        except FrozenError as error:
            log.warning("stream %r: its windows begin anew: %s", name, error)
            orders.open(name)  # one that has taken a part of it is of no use
            go_on(self._streams[name], {**value, "frozen": ""})
        self._scoring.pipeline.resumed(self._streams[name])
        if value["state"] is not None:
            self._outlet.states[name] = value["state"]

    async def _warn_of_gap(self, first: int) -> None:
        """Say that messages were kept for too short a time."""
        info = (await self._fleet.request(f"STREAM.INFO.{self._fleet.names.telemetry}"))["state"]
        gone = min(first, int(info["first_seq"])) - 1 - self.sequence
        is_known = self._tick >= datetime.fromisoformat(info["first_ts"]).timestamp()  # others' messages came since
        if self.sequence and gone > 0 and not is_known:
            self._series.gone.labels(self.number).inc(gone)
            log.error(
                "partition %d: up to %d messages (of all partitions) were gone before they were judged; "
                "raise fleet.retention or fleet.max_size", self.number, gone,
            )  # fmt: skip

    async def _alive(self) -> None:
        """Keep the pin while there is much to do; raises `OwnerError` where it is lost."""
        await self._pulls.keep(self._fleet.settings.takeover_s / 4.0)
        await asyncio.sleep(0)
        self._look_at_lease()

    def _look_at_lease(self) -> None:
        """Raise `OwnerError` where the partition may be another worker's: nothing must be told or written then."""
        if self._pulls.refused:
            raise OwnerError(f"partition {self.number} was given to another worker")
        if monotonic() - self._pulls.asked_at > self._fleet.settings.takeover_s:
            raise OwnerError(f"partition {self.number} may be another worker's: this one stood still")

    async def leave(self) -> None:
        """Save everything and let another worker take it.

        Raises
        ------
        OwnerError, NatsError
            It cannot be saved; the next owner reads more again.
        """
        self._scoring.orders.rounds.stop()
        await self._tell()
        await self._saved.save(self._scoring, [*self._dirty], self.sequence, self._outlet.states)
        self._dirty.clear()
        self._scoring.store.flush(self._fleet.time.now())
        await self._send_rows()
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
        self._look_at_lease()
        waiting = self._pulls.waiting
        for _ in range(min(_AT_ONCE, len(waiting))):
            message = waiting.popleft()
            if message.sequence <= self.sequence:
                self._series.redelivered.labels(self.number).inc()
                continue
            self._series.messages.labels(self.number).inc()
            self._take(message)
            self.lag = message.pending + len(waiting)
        if not self._fleet.client.is_connected:
            self._deaf, self._deaf_until, self._watched_until = True, monotonic() + _AGAIN_S, self._tick
        elif not waiting and (not self._deaf or monotonic() > self._deaf_until):
            self.lag = 0
            self._let_pass(self._fleet.time.now() - _SETTLE_S)
        await self._tell()
        now = monotonic()
        if now - self._looked_at >= TICK_S:
            self._looked_at = now
            await self._look()
        return bool(waiting)

    def _take(self, message: Delivered) -> None:
        self._let_pass(message.at)
        self.sequence = self._known.sequence = message.sequence
        levels = message.subject.split(".", 2)[2]
        if levels == WAKE:
            return
        try:
            heard = self._scoring.take(topic_of(levels), message.data, message.at, known=self._known)
        except Exception:  # else every worker in turn would end by it
            self._series.failed.labels(self.number).inc()
            log.exception("partition %d: message %d, %r, is left out", self.number, message.sequence, message.subject)
            return
        self._judged(heard)

    def _judged(self, heard: Heard) -> None:
        for stream in heard.forgotten:
            self._dirty.pop(stream.name, None)
            self._forgotten.append(stream.name)
        for step in heard.steps:
            self._dirty.setdefault(step.stream.name, (self.sequence, self._tick))
            self.rows += len(step.outcomes)

    def _let_pass(self, at: float) -> None:
        """Let time pass to a moment, Unix seconds; what passed while nobody watched is no silence."""
        if self._deaf and at > self._watched_until:
            self._until(self._watched_until)
            if at - self._tick > _GAP_S:
                self._away(at)
            self._deaf = False
        self._until(at)

    def _until(self, at: float) -> None:
        """Let time pass to the newest tick at or before a moment."""
        last = math.floor(at / TICK_S) * TICK_S if math.isfinite(at) else at
        if math.isinf(self._tick):
            self._tick = last
        pipeline = self._scoring.pipeline
        while self._tick < last:
            due = pipeline.due_at()
            self._tick = max(self._tick + TICK_S, last if math.isinf(due) else (math.floor(due / TICK_S) + 1) * TICK_S)
            if self._tick > last:
                self._tick = last
                return
            for step in self._scoring.pass_time(self._tick):
                if step.outcomes or step.stopped:
                    self._dirty.setdefault(step.stream.name, (self.sequence + 1, self._tick - TICK_S))
                    self.rows += len(step.outcomes)

    def _away(self, at: float) -> None:
        """Nobody could be heard up to a moment: no silence of this time counts."""
        pipeline, seconds = self._scoring.pipeline, at - self._tick
        if math.isfinite(seconds):
            pipeline.heard_until = at
            pipeline.away(seconds)
            self._scoring.reporter.was_away("offline", seconds, at)
        pipeline.heard_until = math.inf
        self._tick = math.floor(at / TICK_S) * TICK_S

    # -- what leaves -------------------------------------------------------------------------------------------------

    async def _tell(self) -> None:
        """Bring every event to JetStream; one that is there already is not told again."""
        events = self._outlet.events
        while events:
            self._look_at_lease()
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
                self._dirty.setdefault(stream.name, (self.sequence + 1, self._tick))
                self.rows += len(outcomes)
        scoring.orders.step(now)
        if monotonic() - self._saved_at >= _LOOK_EVERY_S:
            scoring.orders.beat(now, now)
            self._flush(now)
            self._show()
            await self._save(monotonic() - self._saved_at)
            self._saved_at = monotonic()
        for wanted in self._training.wanted:
            self._trainings += 1
            name = f"{self.number}-{self.epoch}-{self._trainings}"
            await self._send_rows()
            champion = next(iter(self._saved.models.get(wanted.stream, ())), "")
            await training.ask(self._fleet, self.number, wanted, champion, name, self._inbox)
            self._training.asked_for(wanted.stream, name)

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

    def _installed(self, stream: str, name: str) -> None:
        """A new model is in use: that is saved before anything else of the stream."""
        self._saved.installed(stream, name)
        self._dirty[stream] = _URGENT

    async def _save(self, elapsed_s: float) -> None:
        """Save those streams that wait longest, so many that each has its turn once in ``save_every``."""
        settings = self._fleet.settings
        count = math.ceil(len(self._streams) * elapsed_s / settings.save_every_s)
        waiting = sorted(self._dirty, key=self._dirty.__getitem__)
        names = waiting[: max(count, sum(since == _URGENT for since in self._dirty.values()))]
        forgotten, self._forgotten = self._forgotten, []
        await self._saved.forget(name for name in forgotten if name not in self._streams)
        if names:
            sequence = self.sequence
            await self._saved.save(self._scoring, names, sequence, self._outlet.states)
            for name in names:
                del self._dirty[name]
        if monotonic() - self._kept_at >= settings.save_every_s / _SAVES:
            await self._keep()
            await self._send_rows()
        if monotonic() - self._days_at >= _DAYS_EVERY_S:
            self._days_at = monotonic()
            await self._saved.save_days(self._streams.values())

    async def _keep(self) -> None:
        """Write from where a successor has to read."""
        self._kept_at = monotonic()
        first, at = min(self._dirty.values(), default=(self.sequence + 1, self._tick))
        await self._saved.keep(first - 1, at if math.isfinite(at) else None, self._scoring)

    async def _send_rows(self) -> None:
        """Keep what the store has written since the last time where every worker finds it."""
        names = self._fleet.names
        for number, stream, features, payload in self._scoring.store.packed(self._chunk):
            await self._fleet.js.publish(names.rows_of(self.number, stream), training.chunk_message(features, payload))
            self._chunk = number
