"""What is asked of the running daemon: by commands over the control socket, by Home Assistant, and by time itself.

The daemon as a `training.site.Site`: operations and rounds, which live in `training`, act here on streams that are
being scored.  Everything happens on the scoring thread, between two rows, and nothing in here waits.  No operation is
told here, and no row is judged here.
"""

from __future__ import annotations

import logging
import random
import time
from collections import deque
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from gon_edge.config.schema import Config, HomeAssistantConfig
from gon_edge.daemon.reporting import Reporter
from gon_edge.errors import GonEdgeError
from gon_edge.events import ALERT_KINDS, Alert, Recurring, Verdict
from gon_edge.links.control import ControlServer
from gon_edge.links.prometheus import Telemetry
from gon_edge.model.file import Model
from gon_edge.process.clock import Clock
from gon_edge.state.folder import ModelFolder
from gon_edge.state.history import RetrainRecord
from gon_edge.state.store import Store
from gon_edge.stream.habits import Block
from gon_edge.stream.pipeline import Pipeline
from gon_edge.stream.silences import Silences
from gon_edge.stream.stream import Stream
from gon_edge.training import usual
from gon_edge.training.absent import absent, due
from gon_edge.training.answers import Answer, Span, fault_spans, overlap
from gon_edge.training.conditions import Conditions
from gon_edge.training.habits import Habit, habits, learn
from gon_edge.training.job import Order
from gon_edge.training.operations import carry_out, keep_silences
from gon_edge.training.rounds import Rounds, Training
from gon_edge.training.schedule import ScoreDrift, StreamSchedule, is_quiet
from gon_edge.training.site import Client, newest_row
from gon_edge.training.trainer import Trainer

log = logging.getLogger(__name__)

_LOOK_FOR_HABITS_S = 600.0  # of rows.  Not critical: what is overdue has been so for an hour and a half
_RETRY_TRAINING_S = 60.0
"""From a first training that failed to the next.  Not critical: it takes some new rows to end differently."""

TRAININGS_SHOWN = 20  # on the status page.  Not critical: a page full


@dataclass(frozen=True, slots=True)
class Machine:
    """What a daemon asks of the machine it runs on; a rehearsal asks a recording instead.

    Attributes
    ----------
    clock : Clock
    rng : random.Random
        Of the jitter between two trainings.
    conditions : Conditions or None
        Heat and load; ``None`` where they say nothing about the time that is meant.
    trainer : callable
        Makes what runs trainings, from a state directory and its models: here, or on another machine.
    """

    clock: Clock = field(default_factory=Clock)
    rng: random.Random = field(default_factory=random.Random)  # importing numpy.random costs 7 MiB
    conditions: Conditions | None = field(default_factory=Conditions)
    trainer: Callable[[Path, ModelFolder], Training] = Trainer


class Orders:
    """Trainings, silences and other models of the running streams, as they are asked for.

    Parameters
    ----------
    config : Config
    store : Store
    models : ModelFolder
    telemetry : Telemetry
    pipeline : Pipeline
        Whose streams are meant.
    reporter : Reporter
        Hears what becomes of streams.
    machine : Machine

    Attributes
    ----------
    clock : Clock
    silences : Silences
    rounds : Rounds
    trainings : deque of dict
        The newest rounds that have ended, the newest first.
    """

    live = True

    def __init__(
        self,
        config: Config,
        store: Store,
        models: ModelFolder,
        telemetry: Telemetry,
        pipeline: Pipeline,
        reporter: Reporter,
        machine: Machine,
    ) -> None:
        self.config, self.store, self.models = config, store, models
        self.clock = machine.clock
        self.silences = Silences(store.state("silences"))
        self.rounds = Rounds(machine.trainer(config.state_dir, models), config.retrain, machine.conditions)
        self.trainings: deque[dict[str, Any]] = deque(map(asdict, store.retrains(TRAININGS_SHOWN)), TRAININGS_SHOWN)
        self._telemetry, self._pipeline, self._reporter = telemetry, pipeline, reporter
        self._rng = machine.rng
        self._schedules: dict[str, StreamSchedule] = {}
        self._silenced: dict[str, frozenset[str] | None] = {}  # features, or None for all, of streams that have any
        self._retry_at: dict[str, float] = {}
        self._looked_at: dict[str, float] = {}  # for habits, by the time of the stream's rows

    # -- between two rows --------------------------------------------------------------------------------------------

    def serve(self, control: ControlServer) -> None:
        """Carry out what commands have asked for."""
        while control.requests:
            request = control.requests.popleft()
            carry_out(self, request.asked, request)

    def step(self, now: float) -> None:
        """Let trainings go on, the first one of a stream that has warmed up among them."""
        for stream in self._pipeline.streams.values():
            if stream.warmed_up and now >= self._retry_at.get(stream.name, 0.0) and not self.rounds.wants(stream.name):
                self.rounds.ask([Order(stream.name, "first")])
        self.rounds.step(now, self)

    def beat(self, now: float, wall: float) -> None:
        """Once a second: let silences end, and have models trained that are due."""
        if self.silences.expire(wall):
            keep_silences(self)
        for stream in self._pipeline.streams.values():
            self._apply_silences(stream)
            self._look_for_habits(stream)
        self._train_again(now)

    def act(self, name: str, wanted: str) -> None:
        """Do with a stream what Home Assistant's switch and buttons say."""
        self.heed(wished(name, wanted, self.config.homeassistant), HomeAssistantsClient())

    def heed(self, asked: Mapping[str, Any], client: Client) -> None:
        """Carry out what came by the broker."""
        carry_out(self, asked, client)

    # -- streams -----------------------------------------------------------------------------------------------------

    def open(self, name: str) -> None:
        """Begin with a stream, by the model that is in its folder."""
        self.opened(self._pipeline.open(name, self.clock.monotonic()))

    def opened(self, stream: Stream) -> None:
        """Take a stream that has begun into schedules, series and silences."""
        name, model = stream.name, stream.model
        self._schedules[name] = self._schedule(stream)
        if model is not None:
            self._telemetry.model(name, model.version, float(model.lineage.get("trained_at", 0.0)))
        for alert in stream.policy.active:
            self._telemetry.alert(replace(alert, type="update"))  # an earlier run has counted it
        self._telemetry.stream_state(name, stream.state)
        self._apply_silences(stream)

    def _schedule(self, stream: Stream) -> StreamSchedule:
        last = [record.started for record in self.store.retrains(1, stream.name)]
        if stream.model is not None:
            last.append(float(stream.model.lineage.get("trained_at", 0.0)))
        return StreamSchedule(
            self._drift(stream),
            now=self.clock.monotonic(),
            every_s=self.config.retrain.every_s,
            since_round_s=self.clock.wall() - max(last, default=self.clock.wall()),
            jitter=self._rng.random(),
        )

    def forget(self, name: str) -> None:
        """Let go of a stream that is no more."""
        for kept in (self._schedules, self._silenced, self._retry_at, self._looked_at):
            kept.pop(name, None)

    def judged(self, stream: Stream, verdict: Verdict, normal: bool) -> None:
        """Take a row that the stream's own model has scored: a training may be due for it."""
        counts = normal or self._lasting_state(stream) is not None
        self._schedules[stream.name].row(verdict.score, normal=counts, new_feature=stream.new_feature)

    def alerted(self, stream: Stream) -> None:
        """End what learns by itself: an alert has begun, and what raised it must not be learned."""
        if self.rounds.freeze(stream.name):
            log.info("stream %r: the training is ended; nothing is learned while an alert is open", stream.name)

    def alert_ended(self, stream: Stream, alert: Alert) -> bool:
        """Have rows of it learned where they are usual; whether that is because it comes again."""
        if stream.model is None or alert.kind not in ("anomaly", "changed"):
            return False
        if any(other.since == alert.since for other in stream.policy.active):
            return False  # it goes on as a change
        past, faults = stream.policy.past, fault_spans(self.store, stream.name)
        if occasions := past.occasions(alert.since):
            return self._recurred(stream, alert, occasions, faults)
        for span in usual.spans(alert, stream.model, stream.settings.alerts.budget, past):
            if not overlap(span, faults) and self.store.release(stream.name, *span):
                at = time.strftime("%Y-%m-%d %H:%M", time.localtime(span[0]))
                log.info("stream %r: the alert of %s is learned, as nobody has called it a fault", stream.name, at)
        return False

    def _recurred(self, stream: Stream, alert: Alert, occasions: Sequence[Block], faults: Sequence[Span]) -> bool:
        """Have the rows of what comes again learned by the next training; whether they are."""
        seen = learn(self.store, stream.name, occasions, faults)
        if seen is None:
            return False
        text = (
            "stream %r: seen %s; taken as normal from the next training on; if it is a fault: gon-edge feedback %s true"
        )
        log.info(text, stream.name, seen, alert.id)
        return True

    def silenced(self, name: str) -> frozenset[str] | None:
        """Silenced features of a stream; ``None`` when the whole stream is silenced."""
        return self._silenced.get(name, frozenset())

    def configure(self, config: Config) -> None:
        """Heed the configuration that has been read again."""
        self.config = config
        self.rounds.settings = config.retrain
        for schedule in self._schedules.values():
            schedule.every(config.retrain.every_s)

    def store_state(self, names: Iterable[str] | None = None) -> None:
        """Give the store what a restart must not forget, of these streams or of all."""
        for name in self._pipeline.streams if names is None else names:
            stream = self._pipeline.streams[name]
            self.store.put_state(f"alerts/{name}", stream.memory())
            self.store.put_state(f"columns/{name}", stream.aligner.columns.state())
            if name in self._looked_at:
                self.store.put_state(f"looked/{name}", self._looked_at[name])
            scores = self._schedules[name].drift.reference
            if stream.model is not None and scores is not None:
                kept = {"version": stream.model.version, "scores": [round(float(score), 4) for score in scores]}
                self.store.put_state(f"drift/{name}", kept)

    def training_of(self, name: str) -> str:
        """How far a stream's training is, for people; empty when it has none."""
        return self.rounds.training_of(name)

    def waits(self, name: str) -> str:
        """What keeps a training of a stream: one before it that gave no model, another stream, or the machine."""
        stream = self._pipeline.streams[name]
        if name not in self._retry_at or not stream.warmed_up or self.rounds.wants(name):
            return self.rounds.waits_for(name)
        ended = next((each for each in self.trainings if each["stream"] == name), {"reason": ""})
        wait_s = self._retry_at[name] - self.clock.monotonic()
        again = f"another training begins in {wait_s:.0f} s" if wait_s >= 1.0 else "another training begins soon"
        return f"no model yet: {ended['reason']}; {again}, with more rows"

    # -- the site of an operation ------------------------------------------------------------------------------------

    def streams(self) -> Collection[str]:
        """The streams that are scored, or collect rows."""
        return self._pipeline.streams.keys()

    def knows(self, stream: str) -> bool:
        """Whether there is such a stream; one of which only the model is there is opened."""
        if stream not in self._pipeline.streams and stream in self.models.streams():
            self.open(stream)
        return stream in self._pipeline.streams

    def model(self, stream: str) -> Model | None:
        """The model of its own that scores a stream."""
        found = self._pipeline.streams.get(stream)
        return found.model if found is not None else None

    def newest_row(self, stream: str) -> tuple[float | None, float | None]:
        """Of the live stream, else of the store."""
        found = self._pipeline.streams.get(stream)
        if found is None or found.last_row is None:
            at, interval_s = newest_row(self.store, stream)
            return at, (found.aligner.interval_s if found is not None else None) or interval_s
        return found.last_row.timestamp, found.aligner.interval_s

    def keep(self, stream: str | None = None) -> None:
        """Write to the disk; a store that cannot says so by itself, and tries again."""
        self.store.flush(self.clock.monotonic(), stream)

    def use(self, stream: str, model: Model) -> None:
        """Score by another model from the next row on; the next training is counted from here."""
        self._schedules[stream].began(self.clock.monotonic(), self._rng.random())
        self._use(self._pipeline.streams[stream], model)

    def close(self, stream: str, *, ends: bool) -> None:
        """Let go of a live stream, its series and its retained state; the device of Home Assistant goes with it."""
        self.store_state()
        found = self._pipeline.close(stream)
        if found is not None:
            self._reporter.rows(found, found.give_up_training())
            if ends:
                for alert in found.policy.active:
                    self._reporter.tell_one(replace(alert, type="end", timestamp=self.clock.wall()))
        self._reporter.close(stream)
        self.forget(stream)
        kept = [training for training in self.trainings if training["stream"] != stream]
        self.trainings = deque(kept, TRAININGS_SHOWN)

    def reopen(self, stream: str) -> None:
        """Begin with a stream as after a restart, and say again what is open of it."""
        self.open(stream)
        self._reporter.remind([self._pipeline.streams[stream]])

    def silences_changed(self) -> None:
        """Tell every stream's policy."""
        for stream in self._pipeline.streams.values():
            self._apply_silences(stream)

    def answered(self, answer: Answer) -> None:
        """Count an answer, show it beside its alert, and heed it where its like comes again."""
        if answer.stream in self._pipeline.streams:
            stream = self._pipeline.streams[answer.stream]
            stream.answered(answer.since, answer.until, fault=not answer.normal)
        self._telemetry.answer(answer.stream, answer.answer)
        self._reporter.answered(answer.id, answer.answer, answer.note)

    def began(self, order: Order) -> None:
        """Count the next training from here, and show the stream as being trained."""
        stream = self._pipeline.streams.get(order.stream)
        if stream is None:
            log.info("stream %r: training, from %s", order.stream, order.rows_file)
            return
        self._schedules[stream.name].began(self.clock.monotonic(), self._rng.random())
        if order.why == "first":
            stream.train()
            log.info("stream %r: %d rows collected, training its first model", stream.name, stream.rows)
        else:
            log.info("stream %r: training again (%s)", stream.name, order.why)
        self._reporter.state(stream, force=True)

    def ended(self, order: Order, record: RetrainRecord, model: Model | None) -> None:
        """Use the new model, or say why there is none; remember the round."""
        name = order.stream
        stream = self._pipeline.streams.get(name)
        self._telemetry.retrain(name, record.outcome, duration_s=record.duration_s, peak_bytes=record.peak_bytes)
        self.store.add_retrain(record)
        self.trainings.appendleft(asdict(record))
        if model is None:
            level = logging.INFO if record.outcome == "rejected" else logging.ERROR
            old = "the model in use stays" if stream is not None and stream.model else "there is no model yet"
            log.log(level, "stream %r: no new model (%s): %s; %s", name, record.outcome, record.reason, old)
            if stream is not None and order.why == "first":
                self._reporter.rows(stream, stream.give_up_training())
                self._retry_at[name] = self.clock.monotonic() + _RETRY_TRAINING_S
        else:
            mib = record.peak_bytes / (1 << 20)
            text = "stream %r: model %s from %d rows in %.1f s, %.0f MiB"
            log.info(text, name, model.version, record.rows, record.duration_s, mib)
            if stream is not None:
                self._use(stream, model)
                if order.include_quarantined:
                    stream.learned()
            elif len(self._pipeline.streams) < self.config.limits.streams:
                self.open(name)
        if stream is not None:
            self._reporter.state(stream, force=True)

    # -- inside ------------------------------------------------------------------------------------------------------

    def _use(self, stream: Stream, model: Model) -> None:
        if stream.starter is not None:
            log.info("stream %r: its own model takes over from %s", stream.name, stream.starter.version)
        stream.use(model)
        self._pipeline.touch(stream)
        self._telemetry.model(stream.name, model.version, float(model.lineage.get("trained_at", 0.0)))
        self._schedules[stream.name].new_model(self._drift(stream))
        self._reporter.state(stream, force=True)

    def _train_again(self, now: float) -> None:
        """Have models trained that are due; nothing is learned while an alert is open that says something is wrong."""
        retrain, local = self.config.retrain, time.localtime(self.clock.wall())
        if is_quiet(60 * local.tm_hour + local.tm_min, retrain.quiet_hours):
            return
        for name, stream in self._pipeline.streams.items():
            lasting = self._lasting_state(stream)
            harmless = ("overdue",) if lasting is None else ("overdue", "changed")
            is_calm = all(alert.kind in harmless for alert in stream.policy.active)
            if stream.model is None or not is_calm or self.rounds.wants(name):
                continue
            why = self._schedules[name].due(
                now,
                rows=stream.settings.warmup_rows,
                known_s=usual.known_s(stream.model),
                on_drift=retrain.on_drift,
                on_features=retrain.on_features,
            )
            if why is not None:
                log.info("stream %r: another training is due (%s)", name, why)
                if lasting is not None and self.store.release(name, *lasting):
                    hours = (lasting[1] - lasting[0]) / 3600.0
                    log.info("stream %r is new: the state it has been in for %.0f hours is learned", name, hours)
                self.rounds.ask([Order(name, why)])

    def _lasting_state(self, stream: Stream) -> Span | None:
        """Rows of another state to be learned though its alert is open, unless a person has called it a fault."""
        if stream.model is None or stream.last_row is None or not stream.policy.is_anomalous:
            return None
        span = usual.lasting_state(stream.policy.active, stream.model, stream.last_row.timestamp)
        return None if span is None or overlap(span, fault_spans(self.store, stream.name)) else span

    def overdue(self) -> list[str]:
        """Streams of which the next `beat` looks in the stored rows for a habit that may not have come."""
        return [name for name, stream in self._pipeline.streams.items() if self._due_habits(stream)]

    def _due_habits(self, stream: Stream) -> list[tuple[Habit, float]]:
        """Habits that should have come since the last look, and when, by the time of the stream's rows."""
        row, name = stream.last_row, stream.name
        if row is None or stream.model is None:
            return []
        if name not in self._looked_at:
            kept = self.store.state(f"looked/{name}")
            self._looked_at[name] = float(kept) if isinstance(kept, int | float) else row.timestamp
        looked = self._looked_at[name]
        if 0.0 <= row.timestamp - looked < _LOOK_FOR_HABITS_S:
            return []
        known = habits(self.store, name)
        known += usual.jobs(stream.model, stream.policy.past, known)
        faults = fault_spans(self.store, name) if known else ()
        times = ((habit, due(habit, looked, row.timestamp)) for habit in known if not habit.meets(faults))
        return [(habit, since) for habit, since in times if since is not None]

    def _look_for_habits(self, stream: Stream) -> None:
        """Say what comes every day and has not come today."""
        wanted, row, name = self._due_habits(stream), stream.last_row, stream.name
        if row is None or 0.0 <= row.timestamp - self._looked_at.get(name, row.timestamp) < _LOOK_FOR_HABITS_S:
            return
        self._looked_at[name] = row.timestamp
        for habit, since in wanted:
            missed = absent(self.store, name, habit, since)
            came = Recurring(missed.days, missed.first, "day") if missed is not None else None
            causes = missed.causes if missed is not None else ()
            event = stream.policy.habit_looked_for(since, row.timestamp, came, causes)
            self._reporter.tell(stream, () if event is None else (event,))

    def _drift(self, stream: Stream) -> ScoreDrift:
        """Memory of the scores of the model in use, which may be that of an earlier run."""
        version = stream.model.version if stream.model else ""
        kept = self.store.state(f"drift/{stream.name}")
        known = isinstance(kept, dict) and kept.get("version") == version
        window = stream.model.discriminator.window if stream.model else 1
        return ScoreDrift(window, kept["scores"] if known else None)

    def _apply_silences(self, stream: Stream) -> None:
        """Tell a stream's policy what nobody wants to hear of, when that has changed."""
        name = stream.name
        features = self.silences.features(name, self.clock.wall())
        if features == self._silenced.get(name, frozenset()):
            return
        if features is not None and not features:
            del self._silenced[name]
        else:
            self._silenced[name] = features
        stream.silence(features)
        audible = {alert.kind for alert in stream.policy.audible}
        for kind in ALERT_KINDS:
            self._telemetry.alert_audible(name, kind, kind in audible)
        if stream.state == "stale":
            self._reporter.tell(stream, stream.silent(self.clock.monotonic() + self._pipeline.offset_s))
        self._reporter.state(stream, force=True)


def wished(name: str, wanted: str, settings: HomeAssistantConfig) -> dict[str, Any]:
    """What Home Assistant's switch and buttons of a stream ask for, as an operation (`operations`)."""
    by = "Home Assistant"
    if wanted == "silence":
        return {"do": "silence", "stream": name, "for_s": settings.silence_s, "reason": by}
    if wanted == "unsilence":
        return {"do": "unsilence", "stream": name, "feature": ""}
    return {"do": "feedback", "alert": name, "answer": wanted, "by": by}


class HomeAssistantsClient:
    """Home Assistant's switch and buttons as a client: it hears of what they do by the state that is shown."""

    gone = False

    def tell(self, **progress: Any) -> None:
        """Nothing happens on the way."""

    def answer(self, **result: Any) -> None:
        """Nothing is to be said."""

    def refuse(self, error: GonEdgeError | str) -> None:
        """Say it in the log."""
        log.warning("Home Assistant's switch or button has no effect: %s", error)
