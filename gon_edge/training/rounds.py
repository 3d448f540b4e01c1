"""Training rounds in their order: whose turn it is, when a round may run, who is told what came of it.

One runs at a time.  A person's come before first models of streams, and those before what starts by itself: where heat,
load or power keep a renewal from going on, it makes room.  Who asks while one runs is told so, or waits.  A client that
hangs up takes its rounds with it.  The running child is held (SIGSTOP) while the machine is hot, and when nobody asked
for the round also while it is loaded or on battery; ``retrain.cpu_share`` is kept the same way.

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
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

from gon_edge.config.schema import RetrainConfig
from gon_edge.errors import GonEdgeError, NotEnoughData, OverBudget, RetrainBusy, RetrainError
from gon_edge.events import TrainingOutcome
from gon_edge.state.history import RetrainRecord
from gon_edge.training.conditions import Conditions
from gon_edge.training.job import Order, make_job
from gon_edge.training.site import Client, Site
from gon_edge.training.trainer import Trainer

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


class Rounds:
    """The rounds of a state directory.

    Parameters
    ----------
    trainer : Trainer
    settings : RetrainConfig
    conditions : Conditions or None
        ``None`` where the machine's heat and load are not asked: in virtual time they are of another time.

    Attributes
    ----------
    settings : RetrainConfig
        May be replaced at any time.
    held : str
        Why the running round stands still, or the next one does not start; empty when nothing holds it.
    """

    def __init__(self, trainer: Trainer, settings: RetrainConfig, conditions: Conditions | None) -> None:
        self.settings = settings
        self.held = ""
        self._trainer = trainer
        self._conditions = conditions
        self._waiting: deque[tuple[Order, _Batch | None]] = deque()
        self._running: tuple[Order, _Batch | None] | None = None
        self._budget_bytes = 0  # of the running round
        self._obstacles: tuple[str, str] = ("", "")  # for every round, for those nobody asked for
        self._looked_at = self._told_at = self._polled_at = float("-inf")
        self._not_before = float("-inf")
        self._stopped = False
        self._begun = False  # the running child has said something
        self._said = ""

    @property
    def running(self) -> Order | None:
        """The order that is being carried out."""
        return self._running[0] if self._running else None

    @property
    def progress(self) -> dict[str, Any] | None:
        """How far the running round is, as `Trainer.progress` says."""
        return self._trainer.progress

    def wants(self, stream: str) -> bool:
        """Whether a round of this stream runs or waits."""
        found = any(order.stream == stream for order, _ in self._waiting)
        return found or (self._running is not None and self._running[0].stream == stream)

    def ask(self, orders: Sequence[Order], client: Client | None = None, *, wait: bool = False) -> None:
        """Take orders; the client gets one answer when all of them are done.

        Raises
        ------
        RetrainBusy
            A client does not want to wait, and a round runs or waits.
        """
        if client is None:
            for order in orders:
                self._insert(order, None)
            return
        ahead = self._running or next((entry for entry in self._waiting if entry[1] is not None), None)
        if ahead is not None and not wait:
            raise RetrainBusy(
                orders[0].stream, f"stream {ahead[0].stream!r} is being trained; try again later, or add --wait"
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
        if not any(order.stream == stream for order, _ in self._waiting):
            return ""
        if self._running is not None:
            return f"a training waits until {self._running[0].stream!r} is trained"
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
        if self._running is not None:
            if now - self._polled_at < _POLL_EVERY_S:
                return
            self._polled_at = now
            if self._ended(site) is not None:
                return
        elif self._waiting and now >= self._not_before:
            self._start(now, site)
        if self._running or self._waiting:
            self._look(now)
            self._hold(now)
            self._make_room()
            self._tell(now)

    def finish(self, site: Site) -> RetrainRecord | None:
        """Wait until the running round has ended, and return what came of it; ``None`` at once when none runs.

        For `daemon.rehearsal`, where no row comes meanwhile.  The child is not held.
        """
        while self._running is not None:
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
        if self._running is not None and self._running[0].stream == stream:
            found = True
            order, batch = self._running
            self._stop()
            if batch is not None:
                batch.add(_no_result(order, "cancelled"))
        return found

    def freeze(self, stream: str) -> bool:
        """End or forget rounds of a stream that started by themselves; whether there was one."""
        waiting = [entry for entry in self._waiting if entry[0].stream == stream and entry[0].scheduled]
        for entry in waiting:
            self._waiting.remove(entry)
        running = self._running[0] if self._running else None
        if running is None or running.stream != stream or not running.scheduled:
            return bool(waiting)
        self._stop()
        return True

    def stop(self) -> None:
        """End the running round and forget the rest; who waits is told."""
        for order, batch in self._waiting:
            if batch is not None:
                batch.add(_no_result(order, "gon-edge is being stopped"))
        self._waiting.clear()
        if self._running is not None:
            order, batch = self._running
            self._stop()
            if batch is not None:
                batch.add(_no_result(order, "gon-edge is being stopped"))

    # -- the running child -------------------------------------------------------------------------------------------

    def _start(self, now: float, site: Site) -> None:
        self._look(now)
        order, batch = self._waiting[0]
        if order.scheduled and any(self._obstacles):
            self._not_before = now + _LOOK_EVERY_S
            return
        try:
            job = make_job(order, site)
            self._trainer.start(job)
        except RetrainBusy as error:  # another process, such as a command without a daemon
            if batch is None or batch.wait:
                self._not_before = now + (_RETRY_S if batch is None else _RETRY_ASKED_S)
                return
            self._waiting.popleft()
            batch.add(_no_result(order, str(error), error.exit_code))
            return
        except (GonEdgeError, OSError) as error:
            self._waiting.popleft()
            if batch is not None:
                code = error.exit_code if isinstance(error, GonEdgeError) else 1
                batch.add(_no_result(order, str(error), code))
                return
            self._not_before = now + _RETRY_S
            if str(error) != self._said:
                self._said = str(error)
                log.warning("stream %r: training cannot start: %s", order.stream, error)
            return
        self._waiting.popleft()
        self._running, self._begun, self._budget_bytes = (order, batch), False, job.budget_bytes
        site.began(order)

    def _ended(self, site: Site) -> RetrainRecord | None:
        """What came of the running round, once it has ended; who waits for it is told."""
        assert self._running is not None
        if (ended := self._trainer.poll()) is None:
            return None
        order, batch = self._running
        self._running, self._stopped = None, False
        site.ended(order, *ended)
        record, _ = ended
        if batch is not None:
            batch.add(_result(record, self._budget_bytes))
        return record

    def _stop(self) -> None:
        self._signal(signal.SIGCONT)  # a process that stands still does not hear SIGTERM
        self._trainer.stop()
        self._running, self._stopped = None, False

    def _look(self, now: float) -> None:
        """Ask the machine how it is, now and then."""
        settings, conditions = self.settings, self._conditions
        if conditions is None or now - self._looked_at < _LOOK_EVERY_S:
            return
        self._looked_at = now
        celsius = conditions.celsius() if settings.max_temperature is not None else None
        hard = soft = ""
        if celsius is not None and settings.max_temperature is not None and celsius >= settings.max_temperature:
            hard = f"the machine is hot: {celsius:.0f} °C, retrain.max_temperature is {settings.max_temperature:g}"
        elif conditions.throttled():
            hard = "the processor is slowed down, for heat or because the supply's voltage is too low"
        if settings.max_load is not None:
            own = 1.0 / (os.cpu_count() or 1) if self._running is not None and not self._stopped else 0.0
            load = conditions.load_per_core() - own
            if load >= settings.max_load:
                soft = f"the load is {load:.1f} a core, retrain.max_load is {settings.max_load:g}"
        if not settings.on_battery and not soft and conditions.on_battery():
            soft = "the machine runs on battery; see retrain.on_battery"
        self._obstacles = hard, soft

    def _hold(self, now: float) -> None:
        """Stop or continue the child, as machine and ``cpu_share`` want it."""
        hard, soft = self._obstacles
        order = self._running[0] if self._running else self._waiting[0][0] if self._waiting else None
        self.held = "" if order is None else hard or (soft if order.scheduled else "")
        resting = self.settings.cpu_share < 1.0 and now % 1.0 >= self.settings.cpu_share
        stop = bool(self.held) or resting
        if stop == self._stopped:
            return
        if stop and not self._begun:
            progress = self.progress
            self._begun = progress is not None and progress["phase"] != "starting"
            if not self._begun:
                return  # it has not yet asked the kernel to end it with us, and would stand still for ever
        self._stopped = stop
        self._signal(signal.SIGSTOP if stop else signal.SIGCONT)

    def _make_room(self) -> None:
        """Put a renewal that is held back into the queue when something waits that may start."""
        if self._running is None or not self.held or not self._running[0].scheduled:
            return
        if self._waiting and not self._waiting[0][0].scheduled:
            order, batch = self._running
            self._stop()
            self._insert(order, batch)

    def _signal(self, number: signal.Signals) -> None:
        if (pid := self._trainer.pid) is not None:
            with contextlib.suppress(OSError):  # it has just ended
                os.kill(pid, number)

    # -- whoever asked -----------------------------------------------------------------------------------------------

    def _leave_out_gone(self) -> None:
        if self._running is not None and self._running[1] is not None and self._running[1].client.gone:
            self._stop()
        if any(batch is not None and batch.client.gone for _, batch in self._waiting):
            left = [entry for entry in self._waiting if entry[1] is None or not entry[1].client.gone]
            self._waiting = deque(left)

    def _tell(self, now: float) -> None:
        if now - self._told_at < _TELL_EVERY_S:
            return
        self._told_at = now
        told: list[_Batch] = []
        order, batch = self._running or (None, None)
        if order is not None and batch is not None:
            told.append(batch)
            if (progress := self.progress) is not None:
                batch.client.tell(stream=order.stream, **progress, held=self.held)
        running = order.stream if order is not None else ""
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
