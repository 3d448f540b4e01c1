"""The daemon without the world around it: streams, store, training and reports, moved on by whoever owns the clock.

`app` moves it on by the clocks of this machine, between a broker and a page; `rehearsal` by those of a recording.  Both
get the same alerts for the same messages, because what happens between two rows stands here once.  One thread owns it.
It knows no socket and never waits.
"""

from __future__ import annotations

import json
import logging
import math
import time
from collections.abc import Container, Iterator, Sequence
from typing import Any

from gon_edge.config.schema import Config
from gon_edge.daemon.orders import Machine, Orders
from gon_edge.daemon.reporting import Broker, Reporter
from gon_edge.events import Alert
from gon_edge.links.mqtt.queue import Message
from gon_edge.links.prometheus import Telemetry
from gon_edge.model.daily import DAY_S, DAYS
from gon_edge.model.file import Model
from gon_edge.state.catalog import starters
from gon_edge.state.folder import ModelFolder
from gon_edge.state.store import Store
from gon_edge.stream.groups import LEADERS
from gon_edge.stream.heard import Heard, Step
from gon_edge.stream.held import event_json
from gon_edge.stream.ids import said_by
from gon_edge.stream.outcome import Outcome
from gon_edge.stream.pipeline import Pipeline
from gon_edge.stream.stream import Stream

log = logging.getLogger(__name__)

_BIRTHS = "births"  # under which the store keeps what `Pipeline.births` says
_ALL = 1 << 30  # alerts: those that are open are few
_NAMED = 10  # streams in a line of the log; not critical
_RECALLED = 100  # not critical: alerts of a stream that are open at a time are few
_AT_ONCE = 64  # messages.  Not critical: 16 and 256 take as long for each
_CATCH_UP_ROWS = 64  # of a stream, between two looks at the queue; not critical: a few ms


class Scoring:
    """The streams of a daemon, and all that is known of them.

    Parameters
    ----------
    config : Config
    telemetry : Telemetry
    broker : Broker
        Gets alerts and states.
    machine : Machine

    Attributes
    ----------
    config : Config
    store : Store
    models : ModelFolder
    pipeline : Pipeline
    reporter : Reporter
    orders : Orders

    Raises
    ------
    ConfigError
        Options of a subscription that contradict each other.
    StoreError
        The state directory belongs to another gon-edge, or cannot be one.
    """

    def __init__(self, config: Config, telemetry: Telemetry, broker: Broker, machine: Machine) -> None:
        self.config = config
        self._clock = machine.clock
        self._client_id = broker.client_id
        self.store = Store.open(
            config.state_dir,
            max_bytes=config.store.max_bytes,
            rows_per_stream=config.store.rows,
            flush_every_s=config.store.flush_every_s,
        )
        self.models = ModelFolder(config.state_dir)
        self.pipeline = Pipeline(
            config,
            self._make_stream,
            offset_s=self._clock.offset_s,
            is_wanted=lambda name: self.orders.rounds.wants(name),
        )
        self.pipeline.groups.resume(reversed(self.store.alerts(LEADERS)))
        try:
            self.pipeline.resume_births(self.store.state(_BIRTHS) or {}, self._clock.wall())
        except (TypeError, ValueError, AttributeError) as error:
            log.warning("what was kept of births of Sparkplug cannot be read: %r", error)
        self.reporter = Reporter(
            telemetry,
            broker,
            self.store,
            monotonic=self._clock.monotonic,
            on_row=lambda *row: self.orders.judged(*row),
            on_alert=lambda stream: self.orders.alerted(stream),
            on_end=lambda stream, alert: self.orders.alert_ended(stream, alert),
        )
        self.orders = Orders(config, self.store, self.models, telemetry, self.pipeline, self.reporter, machine)
        self._forgetful: dict[str, Stream] = {}  # streams that may not have read yet what they have stored
        self._closed: list[str] = []  # streams with a model for which there was no room
        self._replaced = 0  # what `store.replaced` said when it was looked at last

    def _make_stream(self, name: str, now: float) -> Stream:
        """A stream with its model, and with what an earlier run knew of it."""
        model, wrong = self.models.load(name)
        if wrong:
            log.error("stream %r: %s; %s", name, wrong, "using the one before" if model else "training a new one")
        settings = self.config.stream(name)
        stream = Stream(
            name,
            settings,
            max_features=self.config.limits.features,
            model=model,
            starters=starters(settings.model) if model is None else (),
            opened_at=now,
            timer=time.perf_counter,
        )
        memory, columns = self.store.state(f"alerts/{name}"), self.store.state(f"columns/{name}")
        stream.resume(self._stored_rows(name, model), memory, columns)
        days = self.store.chunks(name, since=self._clock.wall() - (DAYS + 1) * DAY_S, include_quarantined=True)
        stream.past.give((chunk.timestamps, chunk.features, chunk.values) for chunk in days)
        self._forgetful[name] = stream
        stream.policy.silence(self.orders.silences.features(name, self._clock.wall()))
        return stream

    def _stored_rows(self, name: str, model: Model | None) -> int:
        """How many rows an earlier run has left of a stream; without a model only those that can be learned."""
        if model is not None:
            return self.store.count(name)
        return sum(int((~chunk.quarantined).sum()) for chunk in self.store.outline(name))

    def resume(self) -> None:
        """Open the streams of an earlier run, and end alerts of it that none of them holds open."""
        trained = sorted(self.models.streams())  # before names that a flood of devices has left in the database
        for name in (*trained, *sorted(self.store.streams().keys() - trained)):
            if len(self.pipeline.streams) < self.config.limits.streams:
                self.orders.open(name)
        self._closed = [name for name in trained if name not in self.pipeline.streams]
        if no_room := self._no_room():
            log.warning("%s", no_room)
        self._end_orphans()

    def troubles(self) -> tuple[str, ...]:
        """What people should know of the state directory, and of streams that are not scored, a line each."""
        found = []
        if self.store.last_error is not None:
            found.append(f"the state cannot be written or read: {self.store.last_error}")
        if self.store.replaced:
            found.append(f"{self.store.path} was deleted or replaced while it was in use, and its rows with it")
        return (*found, no_room) if (no_room := self._no_room()) else tuple(found)

    def _no_room(self) -> str:
        """Which trained streams are not scored, and what to do; empty where there is room for all."""
        closed = [name for name in self._closed if name not in self.pipeline.streams]
        closed = [name for name in closed if self.models.file(name).parent.exists()]  # else it was removed
        if not closed:
            return ""
        names = ", ".join(map(repr, closed[:_NAMED])) + (", ..." if len(closed) > _NAMED else "")
        return (
            f"streams with a model that limits.streams leaves no room for are not scored: {names}; set limits.streams "
            f"to {self.pipeline.max_streams + len(closed)} or more, or let go of some: gon-edge streams remove"
        )

    def _end_orphans(self) -> None:
        """End what nobody would ever end: the state that said so was lost, or the stream is gone."""
        held = {alert.id for stream in self.pipeline.streams.values() for alert in stream.policy.active}
        held |= {event["id"] for event in self.store.alerts(1, stream="")}  # the daemon's own, which `Offline` holds
        for event in self.store.alerts(_ALL, active=True):
            if event["id"] not in held:
                self.reporter.end_orphan(event, self._clock.wall())
                if event["stream"] not in self.pipeline.streams:
                    self.reporter.take_state_away(event["stream"])

    def recall(self, payload: bytes) -> None:
        """Take a state of a stream that the broker has kept of an earlier run, and end what no stream knows of it.

        A kill, or a lost database, takes alerts along that subscribers have been told.
        """
        try:
            said = json.loads(payload)
            name, names = str(said["stream"]), [str(alert) for alert in said["alerts"][:_RECALLED]]
            untold = [str(alert) for alert in said.get("untold", [])[:_RECALLED]]
            is_ours = said["client_id"] == self._client_id
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
            return
        if not is_ours:  # of an earlier version, or of another gon-edge with the name of this node
            return
        held: set[str] = set()
        if names or untold:  # hardly ever, and every stream has such a state
            held = {alert.id for stream in self.pipeline.streams.values() for alert in stream.policy.active}
        for alert in dict.fromkeys((*names, *untold)):
            if alert in self.reporter.untold:  # it is on its way
                continue
            if alert in held and alert in untold:
                self.reporter.untold.lose(alert, name)
            elif alert not in held:
                event = self.store.alert(alert) or self._made_up(alert, name)
                over = event["type"] == "end"  # the event that said so may not have come through
                self.reporter.end_orphan(event, event["timestamp"] if over else self._clock.wall())
        self.reporter.say_again(anew=True)
        if name not in self.pipeline.streams:
            self.reporter.take_state_away(name)

    def _made_up(self, alert: str, stream: str) -> dict[str, Any]:
        """An event of an alert of which only the name is left."""
        kind, since = said_by(alert) or ("anomaly", self._clock.wall())
        return event_json(Alert(alert, "update", kind, stream, since, since, math.nan, math.nan, "warning", (), ""))

    @property
    def behind(self) -> bool:
        """Whether rows wait that can be scored."""
        return any(stream.behind and stream.model for stream in self.pipeline.behind.values())

    def take(
        self, topic: str, payload: bytes, received_at: float, *, retained: bool = False, known: Container[str] = ()
    ) -> Heard:
        """Take one message through hops 2 to 8; `Pipeline.take` says what the arguments are."""
        return self.tell(self.pipeline.take(topic, payload, received_at, retained=retained, known=known))

    def take_many(self, messages: Sequence[Message]) -> None:
        """Take messages as `take` does, each step for some of them at once: half a message's time is changing steps."""
        for first in range(0, len(messages), _AT_ONCE):
            some = messages[first : first + _AT_ONCE]
            heard = [self.pipeline.hear(m.topic, m.payload, m.received_at, retained=m.retained) for m in some]
            for each in heard:
                self.pipeline.judge(each)
            for each in heard:
                self.tell(each)

    def tell(self, heard: Heard) -> Heard:
        """Tell what became of a message."""
        self.reporter.message(heard)
        for stream in heard.forgotten:
            self.reporter.forget(stream)
            self.orders.forget(stream.name)
        for stream in heard.opened:
            self.orders.opened(stream)
            if stream.model is None:
                log.info("new stream %r: warming up", stream.name)
        for step in heard.steps:
            self.reporter.step(step)
        return heard

    def pass_time(self, now: float) -> Iterator[Step]:
        """Judge rows that are due by time alone, and say which streams have stopped."""
        for step in self.pipeline.pass_time(now):
            self.reporter.step(step)
            yield step

    def catch_up(self) -> Iterator[tuple[Stream, list[Outcome]]]:
        """Judge some of the rows that were kept while a first model was trained."""
        for name, stream in list(self.pipeline.behind.items()):
            if stream.behind:
                outcomes = stream.catch_up(_CATCH_UP_ROWS)
                self.reporter.rows(stream, outcomes)
                yield stream, outcomes
            else:
                del self.pipeline.behind[name]

    def remember(self) -> None:
        """Let one stream read a chunk of what each hour of the last days was like, for a model that will ask for it.

        A stream whose model asks now has read all of it with its first row.
        """
        for name, stream in self._forgetful.items():
            if self.pipeline.streams.get(name) is not stream or not stream.past.recall():
                del self._forgetful[name]
            return

    def keep(self, now: float) -> None:
        """Write to the disk what is due."""
        if self.pipeline.has_news_of_births:
            self._store_births(urgent=True)
        if self.store.due(now):
            self._store_state()
            if not self.store.flush(now):
                self.reporter.seldom.say(
                    "store", logging.WARNING, f"cannot write state: {self.store.last_error}; trying again"
                )
        self._look_for_files()

    def _store_state(self) -> None:
        """Give the store what a restart must not forget."""
        self.orders.store_state()
        self._store_births()

    def _store_births(self, *, urgent: bool = False) -> None:
        if births := self.pipeline.births(self._clock.wall()):
            self.store.put_state(_BIRTHS, births, urgent=urgent)

    def _look_for_files(self) -> None:
        """Say that files went while they were in use, and write again the models that went with them."""
        if self.store.replaced == self._replaced:
            return
        self._replaced = self.store.replaced
        log.error(
            "%s was deleted or replaced while it was in use, and its rows with it; models, alerts, silences and what "
            "waits in memory are written anew; stop gon-edge before you touch its state directory",
            self.store.path,
        )
        for name, stream in self.pipeline.streams.items():
            if stream.model is not None and not self.models.file(name).exists():
                try:
                    self.models.install(name, stream.model)
                except OSError as error:
                    log.error("stream %r: its model cannot be written anew: %s", name, error)

    def stop(self) -> None:
        """End a training, and write everything to the disk, rows that wait for a model among them."""
        self.orders.rounds.stop()
        for stream in self.pipeline.streams.values():
            self.reporter.rows(stream, stream.give_up_training())
        self._store_state()
        self.store.flush(self._clock.monotonic())
        self._look_for_files()

    def configure(self, new: Config) -> None:
        """Go on with another configuration, as far as that is possible while running."""
        self.config = new
        self.pipeline.max_streams = new.limits.streams
        for name, stream in self.pipeline.streams.items():
            stream.configure(new.stream(name))
            self.pipeline.touch(stream)
        self.orders.configure(new)
