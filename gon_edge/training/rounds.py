"""Training rounds in their order: who asked for one, when it may run, what it is told to do, what came of it.

One runs at a time.  A person's come before those that start by themselves; who asks while one runs is told so, or
waits.  A client that hangs up takes its rounds with it.  The running child is held (SIGSTOP) while the machine is hot,
and when nobody asked for the round also while it is loaded or on battery; ``retrain.cpu_share`` is kept the same way.

`Rounds.step` never blocks, so that the scoring thread of ``daemon`` can call it between rows; without a daemon ``cli``
calls it in a loop.  Knows nothing of streams that run, of sockets and of series.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
from collections import deque
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from gon_edge.config.schema import Config, RetrainConfig
from gon_edge.errors import GonEdgeError, InputError, NotEnoughData, RetrainBusy
from gon_edge.events import TrainingReason
from gon_edge.model.file import Model
from gon_edge.state.folder import ModelFolder
from gon_edge.state.history import RetrainRecord
from gon_edge.state.store import Store
from gon_edge.training.conditions import Conditions
from gon_edge.training.job import Job
from gon_edge.training.settings import FitSettings
from gon_edge.training.trainer import Progress, Round, Trainer

log = logging.getLogger(__name__)

_POLL_EVERY_S = 0.05
"""The child is looked at so often: its share of memory takes the kernel a millisecond to add up, too long for a row."""
_TELL_EVERY_S = 0.5
_LOOK_EVERY_S = 5.0  # at the machine's conditions
_RETRY_S = 60.0  # what started by itself, when another process trains
_RETRY_ASKED_S = 1.0
_ACCEPTED_KEPT = 32

EXIT_CODES: Mapping[str, int] = {"promoted": 0, "failed": 1, "rejected": 3, "not_enough_data": 4, "over_budget": 5}


class Client(Protocol):
    """Who asked for rounds: a `control.Request`, or a command that runs them itself."""

    @property
    def gone(self) -> bool:
        """Whether nobody waits any more."""

    def tell(self, **progress: Any) -> None:
        """Take what happens on the way."""

    def answer(self, **result: Any) -> None:
        """Take the result."""

    def refuse(self, error: GonEdgeError | str) -> None:
        """Take an error."""


@dataclass(frozen=True, slots=True)
class Order:
    """One round that somebody, or something, wants.

    Attributes
    ----------
    stream : str
    why : str
        ``first`` for a stream's first model, ``time``, ``drift`` or ``new feature`` for one that starts by itself,
        ``asked`` and ``accepted`` for a person's.
    budget_bytes : int or None
        In place of ``retrain.memory_budget``.
    since : mapping or None
        Oldest row to learn: ``{"at": Unix seconds}`` or ``{"ago_s": seconds before the newest row}``.
    include_quarantined : bool
    rows_file : str
        CSV to learn from; empty for the store.
    force : bool
        Promote what the gate rejects.
    """

    stream: str
    why: Literal["first", "asked", "accepted"] | TrainingReason
    budget_bytes: int | None = None
    since: Mapping[str, float] | None = None
    include_quarantined: bool = False
    rows_file: str = ""
    force: bool = False

    @property
    def scheduled(self) -> bool:
        """Whether it started by itself, for a stream that has a model."""
        return self.why in ("time", "drift", "new feature")


@dataclass(slots=True)
class _Batch:
    """Rounds that one client asked for together, and what came of them so far."""

    client: Client
    wait: bool
    left: int
    results: list[dict[str, Any]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Ended:
    """A round that has ended.

    Attributes
    ----------
    order : Order
    round : Round
    """

    order: Order
    round: Round
    _batch: _Batch | None


class Rounds:
    """The rounds of a state directory.

    Parameters
    ----------
    trainer : Trainer
    settings : RetrainConfig
    conditions : Conditions

    Attributes
    ----------
    settings : RetrainConfig
        May be replaced at any time.
    held : str
        Why the running round stands still, or the next one does not start; empty when nothing holds it.
    """

    def __init__(self, trainer: Trainer, settings: RetrainConfig, conditions: Conditions) -> None:
        self.settings = settings
        self.held = ""
        self._trainer = trainer
        self._conditions = conditions
        self._waiting: deque[tuple[Order, _Batch | None]] = deque()
        self._running: tuple[Order, _Batch | None] | None = None
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
    def progress(self) -> Progress | None:
        """How far the running round is."""
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
            self._waiting.extend((order, None) for order in orders)
            return
        ahead = self._running or next((entry for entry in self._waiting if entry[1] is not None), None)
        if ahead is not None and not wait:
            raise RetrainBusy(
                orders[0].stream, f"stream {ahead[0].stream!r} is being trained; try again later, or add --wait"
            )
        batch = _Batch(client, wait, len(orders))
        self._not_before = float("-inf")
        behind = next((i for i, (_, other) in enumerate(self._waiting) if other is None), len(self._waiting))
        for order in reversed(orders):
            self._waiting.insert(behind, (order, batch))

    def step(
        self, now: float, job_for: Callable[[Order], Job], started: Callable[[Order], None] | None = None
    ) -> Ended | None:
        """Let the rounds go on; never blocks.

        Parameters
        ----------
        now : float
            Monotonic seconds.
        job_for : callable
            Makes the job of an order, when its turn has come; may raise `GonEdgeError`.
        started : callable, optional
            Called when a child has been started.

        Returns
        -------
        Ended or None
            A round that has just ended: act on it, then hand it to `report`.
        """
        self._leave_out_gone()
        if self._running is not None:
            if now - self._polled_at < _POLL_EVERY_S:
                return None
            self._polled_at = now
            if (ended := self._trainer.poll()) is not None:
                order, batch = self._running
                self._running, self._stopped = None, False
                return Ended(order, ended, batch)
        elif self._waiting and now >= self._not_before:
            self._start(now, job_for, started)
        if self._running or self._waiting:
            self._look(now)
            self._hold(now)
            self._tell(now)
        return None

    def report(self, ended: Ended) -> None:
        """Say what came of a round to whoever asked for it."""
        self._result(ended._batch, result_json(ended.round))

    def cancel(self, stream: str) -> bool:
        """End the running round of a stream, and forget those that wait; whether there was one."""
        found = False
        for order, batch in list(self._waiting):
            if order.stream == stream:
                found = True
                self._waiting.remove((order, batch))
                self._result(batch, _no_result(order, "cancelled"))
        if self._running is not None and self._running[0].stream == stream:
            found = True
            order, batch = self._running
            self._stop()
            self._result(batch, _no_result(order, "cancelled"))
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
            self._result(batch, _no_result(order, "gon-edge is being stopped"))
        self._waiting.clear()
        if self._running is not None:
            order, batch = self._running
            self._stop()
            self._result(batch, _no_result(order, "gon-edge is being stopped"))

    # -- the running child -------------------------------------------------------------------------------------------

    def _start(self, now: float, job_for: Callable[[Order], Job], started: Callable[[Order], None] | None) -> None:
        self._look(now)
        order, batch = self._waiting[0]
        if order.scheduled and any(self._obstacles):
            self._not_before = now + _LOOK_EVERY_S
            return
        try:
            job = job_for(order)
            self._trainer.start(job, force=order.force)
        except RetrainBusy as error:  # another process, such as a command without a daemon
            if batch is None or batch.wait:
                self._not_before = now + (_RETRY_S if batch is None else _RETRY_ASKED_S)
                return
            self._waiting.popleft()
            self._result(batch, _no_result(order, str(error), error.exit_code))
            return
        except (GonEdgeError, OSError) as error:
            self._waiting.popleft()
            code = error.exit_code if isinstance(error, GonEdgeError) else 1
            self._result(batch, _no_result(order, str(error), code))
            if batch is None:
                self._not_before = now + _RETRY_S
                if str(error) != self._said:
                    self._said = str(error)
                    log.warning("stream %r: training cannot start: %s", order.stream, error)
            return
        self._waiting.popleft()
        self._running, self._begun = (order, batch), False
        if started is not None:
            started(order)

    def _stop(self) -> None:
        self._signal(signal.SIGCONT)  # a process that stands still does not hear SIGTERM
        self._trainer.stop()
        self._running, self._stopped = None, False

    def _look(self, now: float) -> None:
        """Ask the machine how it is, now and then."""
        if now - self._looked_at < _LOOK_EVERY_S:
            return
        self._looked_at = now
        settings, conditions = self.settings, self._conditions
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
            self._begun = progress is not None and progress.phase != "starting"
            if not self._begun:
                return  # it has not yet asked the kernel to end it with us, and would stand still for ever
        self._stopped = stop
        self._signal(signal.SIGSTOP if stop else signal.SIGCONT)

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
                batch.client.tell(
                    stream=order.stream,
                    phase=progress.phase,
                    share=progress.share,
                    loss=progress.loss,
                    rss_bytes=progress.rss_bytes,
                    budget_bytes=progress.budget_bytes,
                    elapsed_s=round(progress.elapsed_s, 3),
                    held=self.held,
                )
        running = order.stream if order is not None else ""
        for order, waiting in self._waiting:
            if waiting is not None and waiting not in told:
                told.append(waiting)
                waiting.client.tell(stream=order.stream, waiting=running)

    @staticmethod
    def _result(batch: _Batch | None, result: dict[str, Any]) -> None:
        if batch is None:
            return
        batch.results.append(result)
        if len(batch.results) == batch.left and not batch.client.gone:
            batch.client.answer(rounds=batch.results)


def _no_result(order: Order, reason: str, exit_code: int = 1) -> dict[str, Any]:
    outcome = {75: "busy", 4: "not_enough_data", 5: "over_budget"}.get(exit_code, "failed")
    return {
        "stream": order.stream,
        "outcome": outcome,
        "reason": reason,
        "exit_code": exit_code,
        "version": "",
        "rows": 0,
        "duration_s": 0.0,
        "peak_bytes": 0,
        "budget_bytes": 0,
        "gate": None,
    }


def result_json(ended: Round) -> dict[str, Any]:
    """What came of a round, for a program."""
    return {
        "stream": ended.job.stream,
        "outcome": ended.outcome,
        "reason": ended.reason,
        "exit_code": EXIT_CODES[ended.outcome],
        "version": ended.model.version if ended.model else "",
        "rows": ended.rows,
        "duration_s": round(ended.duration_s, 3),
        "peak_bytes": ended.peak_bytes,
        "budget_bytes": ended.job.budget_bytes,
        "gate": ended.verdict.as_json() if ended.verdict else None,
    }


def record(ended: Round) -> RetrainRecord:
    """What the store keeps of a round."""
    return RetrainRecord(
        stream=ended.job.stream,
        version=ended.model.version if ended.model else "",
        started=ended.job.trained_at,
        duration_s=ended.duration_s,
        outcome=ended.outcome,
        peak_bytes=ended.peak_bytes,
        rows=ended.rows,
        reason=ended.reason,
        gate=ended.verdict.as_json() if ended.verdict else None,
    )


# -- orders and jobs ---------------------------------------------------------------------------------------------------


def orders(asked: Mapping[str, Any], known: Collection[str]) -> list[Order]:
    """The orders in a request ``{"do": "retrain", ...}``.

    Parameters
    ----------
    asked : mapping
        ``streams`` (list of names, empty for all), and what `Order` takes; checked here.
    known : collection of str
        Streams there are.

    Raises
    ------
    InputError
        A stream is not known, or a value is none.
    """
    try:
        names = [str(name) for name in asked.get("streams") or sorted(known)]
        budget, since = asked.get("budget_bytes"), asked.get("since")
        common = {
            "budget_bytes": None if budget is None else int(budget),
            "since": None if since is None else {str(key): float(value) for key, value in since.items()},
            "include_quarantined": bool(asked.get("include_quarantined", False)),
            "rows_file": str(asked.get("rows_file", "")),
            "force": bool(asked.get("force", False)),
        }
    except (TypeError, ValueError, AttributeError) as error:
        raise InputError(f"not a request for training: {error}") from None
    for name in names:
        if name not in known and not common["rows_file"]:
            raise unknown_stream(name, known)
    if not names:
        raise InputError("there is no stream yet: no message has arrived on a subscribed topic")
    return [Order(name, "asked", **common) for name in dict.fromkeys(names)]  # type: ignore[arg-type]


def unknown_stream(name: str, known: Collection[str]) -> InputError:
    """The error that says which streams there are."""
    shown = ", ".join(sorted(known)[:10]) or "none yet"
    return InputError(f"no stream {name!r}; there are: {shown}{', ...' if len(known) > 10 else ''}")


def moment(since: Mapping[str, float], newest: float) -> float:
    """Unix seconds of ``{"at": ...}``, or of ``{"ago_s": ...}`` before the stream's newest row.

    Raises
    ------
    InputError
        It is neither.

    Examples
    --------
    >>> moment({"ago_s": 60.0}, newest=1000.0), moment({"at": 30.0}, newest=1000.0)
    (940.0, 30.0)
    """
    if "at" in since:
        return since["at"]
    if "ago_s" in since:
        return newest - since["ago_s"]
    raise InputError("write since when as a duration or as a time")


def make_job(
    order: Order,
    config: Config,
    models: ModelFolder,
    *,
    model: Model | None,
    interval_s: float | None,
    newest: float | None,
    accepted: tuple[tuple[float, float], ...],
    wall: float,
) -> Job:
    """What the training child is told.

    Parameters
    ----------
    order : Order
    config : Config
    models : ModelFolder
    model : Model or None
        The one in use.
    interval_s : float or None
        Seconds between two rows, where it is known.
    newest : float or None
        Unix seconds of the stream's newest row.
    accepted : tuple of (float, float)
        As `accepted_spans` gives them.
    wall : float
        Unix seconds, now.
    """
    settings, retrain = config.stream(order.stream), config.retrain
    interval_s = interval_s or (model.interval_s if model is not None else 0.0) or 1.0
    budget = settings.alerts.budget
    plain = FitSettings()
    file = models.file(order.stream)
    return Job(
        stream=order.stream,
        state_dir=str(config.state_dir.absolute()),
        candidate=str(file.with_name("candidate.npz")),
        version=next_version(models, order.stream),
        parent=model.version if model is not None else "",
        trained_at=round(wall, 3),
        until=newest if newest is not None else float("inf"),
        max_rows=retrain.max_rows,
        interval_s=interval_s,
        settings=FitSettings(
            window=settings.window or plain.window,
            risk=plain.risk if budget is None else min(0.1, max(1e-6, budget * interval_s / 86400.0)),
        ),
        budget_bytes=order.budget_bytes or retrain.memory_budget_bytes,
        nice=retrain.nice,
        deadline_s=retrain.deadline_s,
        since=None if order.since is None or newest is None else moment(order.since, newest),
        include_quarantined=order.include_quarantined,
        accepted=accepted,
        champion=str(file) if model is not None and file.exists() else "",
        rows_file=order.rows_file,
    )


def next_version(models: ModelFolder, stream: str) -> str:
    """The name of a stream's next model: numbers go up, also past versions that were rolled back."""
    numbers = [int(found.version) for found in models.versions(stream) if found.version.isdecimal()]
    return str(max(numbers, default=0) + 1)


def accepted_spans(store: Store, stream: str) -> tuple[tuple[float, float], ...]:
    """Spans of a stream, Unix seconds, that a person has said are normal."""
    spans = store.state(f"accepted/{stream}")
    return tuple((float(since), float(until)) for since, until in spans) if isinstance(spans, list) else ()


def accept(store: Store, stream: str, since: float, until: float, *, needed: int) -> int:
    """Say that a stream's rows from ``since`` to ``until`` (Unix seconds) are normal; return how many are released.

    Raises
    ------
    NotEnoughData
        Fewer than ``needed`` rows were quarantined there.  They are released all the same.
    """
    released = store.release(stream, since, until)
    spans = [span for span in accepted_spans(store, stream) if span != (since, until)]
    store.put_state(f"accepted/{stream}", [*spans, (since, until)][-_ACCEPTED_KEPT:])
    if released < needed:
        raise NotEnoughData(
            stream,
            f"{released} rows that were left out lie in that time, and a model needs {needed} to learn what is new; "
            "accept it again when there are more, or from an earlier time on",
        )
    return released


def rows_to_accept(config: Config, stream: str) -> int:
    """Rows that make an acceptance worth a training: two windows."""
    return 2 * (config.stream(stream).window or FitSettings().window)


def newest_row(store: Store, stream: str) -> tuple[float | None, float | None]:
    """Unix seconds of a stream's newest stored row, and the interval of the newest ones; ``None`` where unknown."""
    timestamps, _, _, _ = store.rows(stream, limit=100, include_quarantined=True)
    if not len(timestamps):
        return None, None
    steps = sorted(float(step) for step in timestamps[1:] - timestamps[:-1] if step > 0.0)
    return float(timestamps[-1]), steps[len(steps) // 2] if steps else None


def known_streams(models: ModelFolder, store: Store | None) -> set[str]:
    """Streams that have, or had, a model or rows."""
    return {*models.streams(), *(store.streams() if store is not None else ())}
