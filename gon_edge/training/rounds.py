"""Training rounds in their order: whose turn it is, when a round may run, who is told what came of it.

As many run at once as `capacity` has places for, each of another stream.  A person's come before first models of
streams, and those before what starts by itself: where heat, load or power keep a renewal from going on, it makes room.
Who asks while no place is free is told so, or waits.  A client that hangs up takes its rounds with it.  The running
children are held (SIGSTOP) while the machine is hot, and those that nobody asked for also while it is loaded or on
battery; ``retrain.cpu_share`` is kept the same way.

`Rounds.step` never blocks, so that the daemon's scoring thread can call it between rows; without a daemon `ask` calls
it in a loop, and in virtual time `Rounds.finish` waits.  Knows nothing of sockets and of series, and of streams only
what `site.Site` says.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import time
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from gon_edge.config.schema import RetrainConfig
from gon_edge.errors import GonEdgeError, NotEnoughData, OverBudget, RetrainBusy, RetrainError
from gon_edge.events import TrainingOutcome, TrainingWait
from gon_edge.model.file import Model
from gon_edge.state.history import RetrainRecord
from gon_edge.training.capacity import capacity
from gon_edge.training.conditions import Conditions
from gon_edge.training.job import Job, Order, make_job
from gon_edge.training.site import Client, Site

log = logging.getLogger(__name__)

_POLL_EVERY_S = 0.05
"""The child is looked at so often: its share of memory takes the kernel a millisecond to add up, too long for a row."""
_TELL_EVERY_S = 0.5  # a person sees it move.  Not critical
_LOOK_EVERY_S = 5.0  # at the machine's conditions.  Not critical: heat and load move in minutes
_RETRY_S = 60.0  # what started by itself, when another process trains.  Not critical: a round takes seconds to minutes
_RETRY_ASKED_S = 1.0  # a person waits for it

EXIT_CODES: Mapping[TrainingOutcome, int] = {
    "promoted": 0,
    "failed": RetrainError.exit_code,
    "rejected": 3,
    "not_enough_data": NotEnoughData.exit_code,
    "over_budget": OverBudget.exit_code,
}
"""Of the command that asked for a round, by its outcome."""
_NEVER_BEGAN = {
    RetrainBusy.exit_code: "busy",
    NotEnoughData.exit_code: "not_enough_data",
    OverBudget.exit_code: "over_budget",
}


class Training(Protocol):
    """What carries out jobs: `trainer.Trainer` by children of this process, others elsewhere."""

    def pid(self, stream: str) -> int | None:
        """The process that trains a stream; ``None`` where none does here."""

    def progress(self, stream: str) -> dict[str, Any] | None:
        """How far the training of a stream is, as `Trainer.progress` says."""

    def start(self, job: Job) -> None:
        """Begin with a job; raises as `Trainer.start` does."""

    def poll(self) -> tuple[RetrainRecord, Model | None] | None:
        """What came of a job that has ended; never blocks."""

    def rest(self) -> None:
        """Let go of what is there for jobs that do not come."""

    def stop(self, stream: str | None = None) -> None:
        """End the training of a stream, by default of all; nothing comes of it."""


class _Obstacle(NamedTuple):
    """What keeps rounds from going on: in a word, and for people."""

    wait: TrainingWait
    said: str


class _Batch:
    """Rounds that one client asked for together, and what came of them so far."""

    def __init__(self, client: Client, count: int, *, wait: bool) -> None:
        self.client = client
        self.wait = wait
        self._left = count
        self._results: list[dict[str, Any]] = []

    def add(self, result: dict[str, Any]) -> None:
        """Take the result of one round; the last one is followed by the answer."""
        self._results.append(result)
        if len(self._results) == self._left and not self.client.gone:
            self.client.answer(rounds=self._results)


@dataclass(slots=True)
class _Run:
    """A round that runs.

    Attributes
    ----------
    order : Order
    batch : _Batch or None
        Who waits for it.
    budget_bytes : int
    began : bool
        Whether its child has said something.
    stopped : bool
        Whether its child stands still.
    held : str
        Why, unless it only rests.
    """

    order: Order
    batch: _Batch | None
    budget_bytes: int
    began: bool = False
    stopped: bool = False
    held: str = ""


class Rounds:
    """The rounds of a state directory.

    Parameters
    ----------
    trainer : Training
    settings : RetrainConfig
    conditions : Conditions or None
        ``None`` where the machine's heat and load are not asked: in virtual time they are of another time.

    Attributes
    ----------
    settings : RetrainConfig
        May be replaced at any time.
    held : str
        Why a running round stands still, or the next one does not start; empty when nothing holds one.
    """

    def __init__(self, trainer: Training, settings: RetrainConfig, conditions: Conditions | None) -> None:
        self.settings = settings
        self.held = ""
        self._trainer = trainer
        self._conditions = conditions
        self._waiting: deque[tuple[Order, _Batch | None]] = deque()
        self._runs: dict[str, _Run] = {}  # by stream
        self._hard: _Obstacle | None = None  # for every round
        self._soft: _Obstacle | None = None  # for those nobody asked for
        self._looked_at = self._told_at = self._polled_at = float("-inf")
        self._not_before = float("-inf")
        self._said = ""

    @property
    def running(self) -> tuple[Order, ...]:
        """The orders that are being carried out."""
        return tuple(run.order for run in self._runs.values())

    @property
    def going(self) -> int:
        """How many rounds run, and are not held."""
        return sum(not run.held for run in self._runs.values())

    @property
    def waiting(self) -> Counter[TrainingWait]:
        """How many rounds wait for what; one that stands still for the machine waits, too."""
        waits: Counter[TrainingWait] = Counter()
        for run in self._runs.values():
            if run.held and (obstacle := self._obstacle(run.order)) is not None:
                waits[obstacle.wait] += 1
        for order, _ in self._waiting:
            obstacle = self._obstacle(order)
            if obstacle is not None:
                waits[obstacle.wait] += 1
            else:
                waits["retry" if self._has_place(order) else "place"] += 1
        return waits

    def training_of(self, stream: str) -> str:
        """How far the running round of a stream is, or why it stands still, for people; empty when none runs."""
        progress = self._trainer.progress(stream)
        if stream not in self._runs or progress is None:
            return ""
        return self._runs[stream].held or f"{progress['phase']}, {100 * progress['share']:.0f} %"

    def wants(self, stream: str) -> bool:
        """Whether a round of this stream runs or waits."""
        return stream in self._runs or any(order.stream == stream for order, _ in self._waiting)

    def asked_by(self, client: Client) -> list[Order]:
        """The orders of a client that run or wait."""
        every = [*((run.order, run.batch) for run in self._runs.values()), *self._waiting]
        return [order for order, batch in every if batch is not None and batch.client is client]

    def ask(self, orders: Sequence[Order], client: Client | None = None, *, wait: bool = False) -> None:
        """Take orders; the client gets one answer when all of them are done.

        Raises
        ------
        RetrainBusy
            A client does not want to wait, and there is no place for its first order, or another client waits.
        """
        if client is None:
            for order in orders:
                self._insert(order, None)
            return
        if not wait and not self._has_place(orders[0]):
            busy = ", ".join(map(repr, self._runs))
            raise RetrainBusy(orders[0].stream, f"stream {busy} is being trained; try again later, or add --wait")
        if not wait and (ahead := next((entry for entry in self._waiting if entry[1] is not None), None)) is not None:
            raise RetrainBusy(
                orders[0].stream, f"stream {ahead[0].stream!r} is to be trained first; try again later, or add --wait"
            )
        batch = _Batch(client, len(orders), wait=wait)
        self._not_before = float("-inf")
        for order in orders:
            self._insert(order, batch)

    def _insert(self, order: Order, batch: _Batch | None) -> None:
        """Let an order wait behind those that are as urgent."""
        place = next((i for i, entry in enumerate(self._waiting) if _patience(*entry) > _patience(order, batch)), None)
        self._waiting.insert(len(self._waiting) if place is None else place, (order, batch))

    def waits_for(self, stream: str) -> str:
        """What keeps a waiting round of a stream from starting, for people; empty where none waits."""
        before = next((place for place, (order, _) in enumerate(self._waiting) if order.stream == stream), None)
        if before is None:
            return ""
        if self._runs:
            more = f", and {before} more before it" if before else ""
            return f"a training waits until {' or '.join(map(repr, self._runs))} is trained{more}"
        return f"a training waits: {self.held}" if self.held else "a training is about to begin"

    def step(self, now: float, site: Site) -> None:
        """Let the rounds go on; never blocks.

        Parameters
        ----------
        now : float
            Monotonic seconds.
        site : Site
            Hears of rounds that begin and end; the jobs are made of what it knows when their turn has come.
        """
        self._leave_out_gone()
        if now - self._polled_at >= _POLL_EVERY_S:
            self._polled_at = now
            while self._ended(site) is not None:
                pass
        self._begin(now, site)
        self._trainer.rest()
        if self._runs or self._waiting:
            self._look(now)
            self._hold(now)
            self._make_room()
            self._tell(now)

    def finish(self, site: Site) -> RetrainRecord | None:
        """Wait until a running round has ended, and return what came of it; ``None`` at once when none runs.

        For `daemon.rehearsal`, where no row comes meanwhile.  The child is not held.
        """
        while self._runs:
            if (record := self._ended(site)) is not None:
                return record
            time.sleep(_POLL_EVERY_S / 10.0)
        return None

    def cancel(self, stream: str) -> bool:
        """End the running round of a stream, and forget those that wait; whether there was one."""
        found = False
        for order, batch in list(self._waiting):
            if order.stream == stream:
                found = True
                self._waiting.remove((order, batch))
                if batch is not None:
                    batch.add(_no_result(order, "cancelled"))
        if (run := self._stop(stream)) is not None:
            found = True
            if run.batch is not None:
                run.batch.add(_no_result(run.order, "cancelled"))
        return found

    def freeze(self, stream: str) -> bool:
        """End or forget rounds of a stream that started by themselves; whether there was one."""
        waiting = [entry for entry in self._waiting if entry[0].stream == stream and entry[0].scheduled]
        for entry in waiting:
            self._waiting.remove(entry)
        run = self._runs.get(stream)
        if run is None or not run.order.scheduled:
            return bool(waiting)
        self._stop(stream)
        return True

    def stop(self) -> None:
        """End the running rounds and forget the rest; who waits is told."""
        left = [*self._waiting, *((run.order, run.batch) for run in self._runs.values())]
        self._waiting.clear()
        self._runs.clear()
        self._trainer.stop()
        for order, batch in left:
            if batch is not None:
                batch.add(_no_result(order, "gon-edge is being stopped"))

    # -- the running children ----------------------------------------------------------------------------------------

    def _begin(self, now: float, site: Site) -> None:
        """Start rounds as long as there are places."""
        while self._waiting and now >= self._not_before:
            entry = next((entry for entry in self._waiting if entry[0].stream not in self._runs), None)
            if entry is None or not self._has_place(entry[0]) or not self._start(*entry, now, site):
                return

    def _has_place(self, order: Order) -> bool:
        """Whether there is a place, and memory for it, beside the rounds that run."""
        places = capacity(self.settings)
        taken = sum(run.budget_bytes for run in self._runs.values())
        wanted = order.budget_bytes or places.budget_bytes
        free = len(self._runs) < places.processes and taken + wanted <= places.total_bytes
        return order.stream not in self._runs and (free or not self._runs)

    def _start(self, order: Order, batch: _Batch | None, now: float, site: Site) -> bool:
        """Start a round; false where nothing can start for now."""
        self._look(now)
        if order.scheduled and (self._hard or self._soft):
            self._not_before = now + _LOOK_EVERY_S
            return False
        try:
            job = make_job(order, site)
            self._trainer.start(job)
        except RetrainBusy as error:  # another process, such as a command without a daemon
            if batch is None or batch.wait:
                self._not_before = now + (_RETRY_S if batch is None else _RETRY_ASKED_S)
                return False
            self._waiting.remove((order, batch))
            batch.add(_no_result(order, str(error), error.exit_code))
            return True
        except (GonEdgeError, OSError) as error:
            self._waiting.remove((order, batch))
            if batch is not None:
                code = error.exit_code if isinstance(error, GonEdgeError) else 1
                batch.add(_no_result(order, str(error), code))
                return True
            self._not_before = now + _RETRY_S
            if str(error) != self._said:
                self._said = str(error)
                log.warning("stream %r: training cannot start: %s", order.stream, error)
            return False
        self._waiting.remove((order, batch))
        self._runs[order.stream] = _Run(order, batch, job.budget_bytes)
        site.began(order)
        return True

    def _ended(self, site: Site) -> RetrainRecord | None:
        """What came of a running round that has ended; who waits for it is told."""
        if (ended := self._trainer.poll()) is None:
            return None
        record, _ = ended
        run = self._runs.pop(record.stream)
        site.ended(run.order, *ended)
        if run.batch is not None:
            run.batch.add(_result(record, run.budget_bytes))
        return record

    def _stop(self, stream: str) -> _Run | None:
        """End the round of a stream; it is returned, where one ran."""
        if (run := self._runs.pop(stream, None)) is not None:
            self._trainer.stop(stream)
        return run

    def _look(self, now: float) -> None:
        """Ask the machine how it is, now and then."""
        settings, conditions = self.settings, self._conditions
        if conditions is None or now - self._looked_at < _LOOK_EVERY_S:
            return
        self._looked_at = now
        celsius = conditions.celsius() if settings.max_temperature is not None else None
        self._hard = self._soft = None
        if celsius is not None and settings.max_temperature is not None and celsius >= settings.max_temperature:
            said = f"the machine is hot: {celsius:.0f} °C, retrain.max_temperature is {settings.max_temperature:g}"
            self._hard = _Obstacle("heat", said)
        elif conditions.throttled():
            said = "the processor is slowed down, for heat or because the supply's voltage is too low"
            self._hard = _Obstacle("heat", said)
        if settings.max_load is not None:
            own = sum(not run.stopped for run in self._runs.values()) / (os.cpu_count() or 1)
            load = conditions.load_per_core() - own
            if load >= settings.max_load:
                said = f"the load is {load:.1f} a core, retrain.max_load is {settings.max_load:g}"
                self._soft = _Obstacle("load", said)
        if not settings.on_battery and not self._soft and conditions.on_battery():
            self._soft = _Obstacle("battery", "the machine runs on battery; see retrain.on_battery")

    def _hold(self, now: float) -> None:
        """Stop or continue the children, as machine and ``cpu_share`` want it."""
        resting = self.settings.cpu_share < 1.0 and now % 1.0 >= self.settings.cpu_share
        for stream, run in self._runs.items():
            run.held = self._reason(run.order)
            stop = bool(run.held) or resting
            if stop == run.stopped:
                continue
            if stop and not run.began:
                progress = self._trainer.progress(stream)
                run.began = progress is not None and progress["phase"] != "starting"
                if not run.began:
                    continue  # it has not yet asked the kernel to end it with us, and would stand still for ever
            run.stopped = stop
            if (pid := self._trainer.pid(stream)) is not None:
                with contextlib.suppress(OSError):  # it has just ended
                    os.kill(pid, signal.SIGSTOP if stop else signal.SIGCONT)
        orders = self.running or [order for order, _ in self._waiting][:1]
        self.held = next(filter(None, map(self._reason, orders)), "")

    def _obstacle(self, order: Order) -> _Obstacle | None:
        """What keeps an order from being carried out now."""
        return self._hard or (self._soft if order.scheduled else None)

    def _reason(self, order: Order) -> str:
        """The same, for people."""
        obstacle = self._obstacle(order)
        return "" if obstacle is None else obstacle.said

    def _make_room(self) -> None:
        """Put renewals that are held back into the queue while something waits that may start in their place."""
        for stream, run in list(self._runs.items()):
            if not self._waiting or not run.held or not run.order.scheduled:
                continue
            wanted, _ = self._waiting[0]
            elsewhere = wanted.stream != stream and (wanted.stream in self._runs or self._has_place(wanted))
            if not wanted.scheduled and not elsewhere:
                self._stop(stream)
                self._insert(run.order, run.batch)

    # -- whoever asked -----------------------------------------------------------------------------------------------

    def _leave_out_gone(self) -> None:
        for stream, run in list(self._runs.items()):
            if run.batch is not None and run.batch.client.gone:
                self._stop(stream)
        if any(batch is not None and batch.client.gone for _, batch in self._waiting):
            left = [entry for entry in self._waiting if entry[1] is None or not entry[1].client.gone]
            self._waiting = deque(left)

    def _tell(self, now: float) -> None:
        if now - self._told_at < _TELL_EVERY_S:
            return
        self._told_at = now
        told: list[_Batch] = []
        for stream, run in self._runs.items():
            if run.batch is not None:
                told.append(run.batch)
                if (progress := self._trainer.progress(stream)) is not None:
                    run.batch.client.tell(stream=stream, **progress, held=run.held)
        running = ", ".join(self._runs)
        for order, waiting in self._waiting:
            if waiting is not None and waiting not in told:
                told.append(waiting)
                waiting.client.tell(stream=order.stream, waiting=running)


def _patience(order: Order, batch: _Batch | None) -> int:
    """How long an order can wait: a person's least, then first models, renewals most."""
    return 0 if batch is not None else 2 if order.scheduled else 1


def _result(record: RetrainRecord, budget_bytes: int) -> dict[str, Any]:
    """What came of a round, for whoever asked."""
    return {
        "stream": record.stream,
        "outcome": record.outcome,
        "reason": record.reason,
        "exit_code": EXIT_CODES[record.outcome],
        "version": record.version,
        "rows": record.rows,
        "duration_s": round(record.duration_s, 3),
        "peak_bytes": record.peak_bytes,
        "budget_bytes": budget_bytes,
        "gate": record.gate,
        "threshold": record.threshold,
    }


def _no_result(order: Order, reason: str, exit_code: int = 1) -> dict[str, Any]:
    """What whoever asked is told of a round that never began, or was ended before its time."""
    plain = _result(RetrainRecord(order.stream, "", 0.0, 0.0, "failed", 0, 0, reason), 0)
    return {**plain, "outcome": _NEVER_BEGAN.get(exit_code, "failed"), "exit_code": exit_code}
