"""A whole daemon over a recording, in virtual time: the alerts and trainings there would have been, a week in seconds.

For ``gon-edge rehearse``, and for whoever wants to know what settings would have done::

    with Rehearsal(config) as rehearsal:
        for news in rehearsal.play(readings("pump", rows)):  # rows: (Unix seconds, {feature: value}), oldest first
            ...  # Told (an alert's event), Trained, Answered
    rehearsal.courses["pump"]  # every judged row: time, score, threshold, in alarm

It is the daemon's own code (`scoring`) with the recording's clocks: alignment, warm-up, the real training child and its
gate, quarantine, scheduled trainings, silence.  What differs from a live daemon: a training takes no virtual time, it
ends before the next row; heat, load and power of this machine hold nothing up; what is due once a second is looked at
once a second at most, and before each message and each row that time alone completes.  The jitter of trainings is
drawn from a fixed seed, so that the same recording gives the same alerts.  State lives in a folder that is removed.
"""

from __future__ import annotations

import json
import math
import random
import tempfile
from array import array
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple, Protocol, Self

from prometheus_client import CollectorRegistry

from gon_edge import __version__
from gon_edge.config.schema import Config
from gon_edge.daemon.orders import Machine
from gon_edge.daemon.reporting import STATE_EVERY_S
from gon_edge.daemon.scoring import Scoring
from gon_edge.errors import GonEdgeError
from gon_edge.events import Reading
from gon_edge.links.prometheus import Telemetry
from gon_edge.process.clock import Clock
from gon_edge.state.catalog import check_starters
from gon_edge.state.history import RetrainRecord
from gon_edge.stream.outcome import Outcome
from gon_edge.stream.pipeline import TICK_S
from gon_edge.stream.stream import Stream
from gon_edge.training.capacity import capacity
from gon_edge.training.operations import carry_out

_UPTIME_S = 3600.0
"""Monotonic seconds at the first message of rows without a monotonic time.  Not critical: above zero, as on a machine
that has started."""


class Arrival(Protocol):
    """A message as it came in: one of a capture."""

    @property
    def topic(self) -> str:
        """Where it was published."""

    @property
    def payload(self) -> bytes:
        """As it came."""

    @property
    def received_at(self) -> float:
        """Monotonic seconds of the machine that recorded."""

    @property
    def wall(self) -> float:
        """Unix seconds."""

    @property
    def retained(self) -> bool:
        """Whether it lay in the broker before."""


class Told(NamedTuple):
    """An event of an alert, as `stream.held.alert_json` makes it; ``at`` is Unix seconds."""

    at: float
    event: dict[str, Any]


class Trained(NamedTuple):
    """What came of a training; ``threshold`` is that of the new model, ``None`` where there is none."""

    at: float
    record: RetrainRecord
    threshold: float | None


class Answered(NamedTuple):
    """What came of an order; ``refused`` says why nothing did."""

    at: float
    asked: Mapping[str, Any]
    answer: dict[str, Any] | None
    refused: str


class Order(NamedTuple):
    """Something a person asks at a time (Unix seconds), as `training.operations.carry_out` takes it."""

    at: float
    asked: Mapping[str, Any]


News = Told | Trained | Answered


@dataclass(slots=True)
class Course:
    """What became of a stream's rows, one entry a judged row, oldest first.

    Attributes
    ----------
    rows : int
        Rows, those of the warm-up among them.
    timestamps, scores, thresholds : array of float
        Unix seconds, and the verdict.
    in_alarm : bytearray
        1 where an alert of any kind was open on the row, 0 where none was.
    open : set of str
        Ids of the alerts that are open now.
    """

    rows: int = 0
    timestamps: array[float] = field(default_factory=lambda: array("d"))
    scores: array[float] = field(default_factory=lambda: array("f"))
    thresholds: array[float] = field(default_factory=lambda: array("f"))
    in_alarm: bytearray = field(default_factory=bytearray)
    open: set[str] = field(default_factory=set)

    def hear(self, alert: str, event: str) -> None:
        """Take an event (``new``, ``update`` or ``end``) of an alert; hearing it again changes nothing."""
        if event == "end":
            self.open.discard(alert)
        else:
            self.open.add(alert)

    def judged(self, outcomes: Iterable[Outcome]) -> None:
        """Take rows as they were judged."""
        for outcome in outcomes:
            for alert in outcome.alerts:
                self.hear(alert.id, alert.type)
            if outcome.verdict is not None:
                self.timestamps.append(outcome.row.timestamp)
                self.scores.append(outcome.verdict.score)
                self.thresholds.append(outcome.verdict.threshold)
                self.in_alarm.append(bool(self.open))


def readings(stream: str, rows: Iterable[tuple[float, Mapping[str, float]]]) -> Iterator[Reading]:
    """Rows of one stream as a recording; a value that is not there is left out of its row.

    Parameters
    ----------
    stream : str
    rows : iterable of (float, mapping of str to float)
        Unix seconds, and finite values by feature; oldest first.
    """
    for timestamp, values in rows:
        yield Reading(stream, timestamp, values)


class Rehearsal:
    """A daemon whose clock is a recording's; a context manager, which removes what the daemon has written.

    Parameters
    ----------
    config : Config
        Its broker, page and state directory are left alone.

    Attributes
    ----------
    courses : dict of str to Course
        By stream.
    unheard : Counter of str
        Messages, and parts of them, that hold no reading, by reason; ``ignored`` are those of other topics.

    Raises
    ------
    ConfigError
        Options that contradict each other.
    """

    def __init__(self, config: Config) -> None:
        check_starters(config)
        self.courses: dict[str, Course] = {}
        self.unheard: Counter[str] = Counter()
        self._folder = tempfile.TemporaryDirectory(prefix="gon-edge-rehearsal-")
        self._monotonic = self._offset_s = 0.0
        self._looked_at = -math.inf
        self._begun = False
        self._news: list[News] = []
        machine = Machine(
            clock=Clock(monotonic=lambda: self._monotonic, wall=lambda: self._wall),
            rng=random.Random(0),  # noqa: S311  jitter
            conditions=None,
        )
        config = replace(
            config,
            state_dir=Path(self._folder.name),
            # Nobody's rows wait meanwhile: the child neither gives way nor rests.  One at a time, so that the same
            # recording has the same course, each with the memory it has where several run.
            retrain=replace(
                config.retrain,
                nice=0,
                cpu_share=1.0,
                on_battery=True,
                processes=1,
                memory_budget_bytes=capacity(config.retrain).budget_bytes,
            ),
        )
        self._scoring = Scoring(config, Telemetry(CollectorRegistry(), version=__version__), self, machine)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._scoring.orders.rounds.stop()
        self._scoring.store.close()
        self._folder.cleanup()

    @property
    def _wall(self) -> float:
        return self._monotonic + self._offset_s

    def play(
        self,
        recording: Iterable[Reading | Arrival],
        orders: Iterable[Order] = (),
        *,
        end: Callable[[], float | None] = lambda: None,
    ) -> Iterator[News]:
        """Let a recording arrive, and yield what comes of it, as it comes; another one goes on where it ended.

        Parameters
        ----------
        recording : iterable of Reading or Arrival
            A reading arrives at its own timestamp, or at once where that is past; a message when it was received.
        orders : iterable of Order
            What a person does meanwhile.  An order later than the recording is refused.
        end : callable
            Asked after the last message: Unix seconds to which time goes on; ``None``, the default, is until no row
            waits.

        Raises
        ------
        GonEdgeError
            The recording cannot be read, or the temporary folder not written.
        """
        waiting = deque(sorted(orders, key=lambda order: order.at))
        for arrived in recording:
            if not self._begun:
                self._begin(arrived)
            at, offset_s = self._arrival(arrived)
            while waiting and waiting[0].at <= at + offset_s:
                order = waiting.popleft()
                yield from self._pass_time(max(self._monotonic, order.at - self._offset_s))
                yield self._carry_out(order)
                yield from self._drain()
            yield from self._pass_time(at)
            self._offset_s = offset_s
            self._scoring.pipeline.set_clock(offset_s)
            self._take(arrived)
            yield from self._drain()
        if (until := end()) is not None:
            yield from self._pass_time(max(self._monotonic, until - self._offset_s))
        else:
            yield from self._finish_rows()
        for order in waiting:
            yield Answered(order.at, order.asked, None, "the recording had ended")

    # -- the broker --------------------------------------------------------------------------------------------------

    client_id = ""
    confirms = False

    def topic(self, *levels: str) -> str:
        """The topic as the daemon's own; see `reporting.Broker`."""
        return "/".join(levels)

    def publish(self, topic: str, payload: str, *, retain: bool = False, shorter: str = "") -> None:
        """Keep an alert's event; states are of no interest."""
        if topic == "alert":
            event = json.loads(payload)
            self._news.append(Told(event["timestamp"], event))

    # -- time --------------------------------------------------------------------------------------------------------

    def _begin(self, first: Reading | Arrival) -> None:
        """The daemon has started a moment before the first message."""
        self._begun = True
        if isinstance(first, Reading):
            self._monotonic = _UPTIME_S
            self._offset_s = (first.timestamp or 0.0) - _UPTIME_S
        else:
            self._monotonic, self._offset_s = first.received_at, first.wall - first.received_at
        self._scoring.pipeline.offset_s = self._offset_s

    def _arrival(self, arrived: Reading | Arrival) -> tuple[float, float]:
        """Monotonic seconds of an arrival, and Unix less monotonic seconds there."""
        if not isinstance(arrived, Reading):
            return max(self._monotonic, arrived.received_at), arrived.wall - arrived.received_at
        at = self._wall if arrived.timestamp is None else arrived.timestamp
        return max(self._monotonic, at - self._offset_s), self._offset_s

    def _pass_time(self, until: float) -> Iterator[News]:
        """Let time pass to ``until`` (monotonic seconds); what is due on the way happens when the daemon would look."""
        pipeline = self._scoring.pipeline
        while (at := max(pipeline.due_at(), self._monotonic) + TICK_S) <= until:
            self._look(at)
            for step in self._scoring.pass_time(at):
                self._judged(step.stream, step.outcomes)
            self._settle()
            yield from self._drain()
        self._look(until)
        for step in pipeline.stopped(until):
            self._scoring.reporter.step(step)
        yield from self._drain()

    def _finish_rows(self) -> Iterator[News]:
        """Let time pass until every row of a stream that reports at its usual pace is judged."""
        streams = self._scoring.pipeline.streams.values()
        while (at := min((s.aligner.due_at for s in streams if s.aligner.is_live), default=math.inf)) < math.inf:
            yield from self._pass_time(max(at, self._monotonic) + TICK_S)

    def _look(self, at: float) -> None:
        """Do what the daemon does once a second."""
        self._monotonic = at
        if at - self._looked_at >= STATE_EVERY_S:
            self._looked_at = at
            self._scoring.orders.beat(at, self._wall)
            self._settle()

    def _settle(self) -> None:
        """Let trainings that are wanted run to their end, and judge the rows that waited for them."""
        scoring, now = self._scoring, self._monotonic
        rounds = scoring.orders.rounds
        while True:
            while scoring.behind:
                for stream, outcomes in scoring.catch_up():
                    self._judged(stream, outcomes)
            scoring.orders.step(now)
            if (record := rounds.finish(scoring.orders)) is None:
                break
            model = scoring.orders.model(record.stream) if record.outcome == "promoted" else None
            self._news.append(Trained(self._wall, record, model.threshold if model is not None else None))
        scoring.keep(now)

    # -- what arrives ------------------------------------------------------------------------------------------------

    def _take(self, arrived: Reading | Arrival) -> None:
        scoring, now = self._scoring, self._monotonic
        if isinstance(arrived, Reading):
            heard = scoring.tell(scoring.pipeline.take_reading(arrived, now))
        else:
            heard = scoring.take(arrived.topic, arrived.payload, now, retained=arrived.retained)
        if heard.refused is not None:
            self.unheard[heard.refused.reason] += 1
        if heard.ignored:
            self.unheard["ignored"] += sum(heard.ignored.values())
        self.unheard.update(heard.rejected)
        for step in heard.steps:
            self._judged(step.stream, step.outcomes)
        self._settle()

    def _judged(self, stream: Stream, outcomes: list[Outcome]) -> None:
        if outcomes:
            course = self.courses.setdefault(stream.name, Course())
            course.rows = stream.rows
            course.judged(outcomes)

    def _carry_out(self, order: Order) -> Answered:
        client = _Person()
        carry_out(self._scoring.orders, order.asked, client)
        self._settle()
        return Answered(order.at, order.asked, client.answered, client.refused)

    def _drain(self) -> Iterator[News]:
        """What has come since the last time."""
        news, self._news = self._news, []
        for one in news:
            if isinstance(one, Told):
                self.courses.setdefault(one.event["stream"], Course()).hear(one.event["id"], one.event["type"])
            yield one


class _Person:
    """Who asks for something; a `site.Client`."""

    gone = False

    def __init__(self) -> None:
        self.answered: dict[str, Any] | None = None
        self.refused = ""

    def tell(self, **progress: Any) -> None:
        """Nothing happens on the way: what is asked for is done at once."""

    def answer(self, **result: Any) -> None:
        self.answered = result

    def refuse(self, error: GonEdgeError | str) -> None:
        self.refused = str(error)
