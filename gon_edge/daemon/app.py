"""Composition: broker, streams, store, training, metrics and web page, put together and kept running.

One scoring thread (the caller of :meth:`Daemon.run`) owns every stream; the network thread only fills the queue, HTTP
threads only read the newest snapshot, and what commands ask for waits for the scoring thread.  No algorithm lives here,
and nothing here may end the loop: what can go wrong while running is counted and logged, what is wrong at the start is
an error with one line.
"""

from __future__ import annotations

import dataclasses
import logging
import random
import signal
import time
from collections import deque
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry

import gon_edge
from gon_edge.config.file import load_config
from gon_edge.config.schema import Config
from gon_edge.daemon.reload import merged, waiting
from gon_edge.daemon.reporting import STATE_EVERY_S, Reporter
from gon_edge.daemon.snapshot import history_snapshots, status_line, stream_snapshot
from gon_edge.errors import ConfigError, GonEdgeError, InputError, StoreError
from gon_edge.events import ALERT_KINDS, Verdict
from gon_edge.links.control import ControlServer, Request
from gon_edge.links.mqtt.client import MqttClient, own_topic
from gon_edge.links.mqtt.queue import Message
from gon_edge.links.prometheus import Telemetry
from gon_edge.links.snapshot import Snapshot
from gon_edge.links.web.server import WebServer
from gon_edge.model.file import Model
from gon_edge.process.memory import return_memory, rss_bytes, tame_malloc
from gon_edge.process.systemd import Notifier
from gon_edge.state.catalog import check_starters, starters
from gon_edge.state.folder import ModelFolder
from gon_edge.state.store import Store
from gon_edge.stream.history import HISTORY_BUCKET_S
from gon_edge.stream.pipeline import TICK_S, Pipeline
from gon_edge.stream.silences import Silence, Silences
from gon_edge.stream.stream import Stream
from gon_edge.training.conditions import Conditions, clock_is_set
from gon_edge.training.job import Job
from gon_edge.training.rounds import (
    Ended,
    Order,
    Rounds,
    accept,
    accepted_spans,
    make_job,
    moment,
    newest_row,
    orders,
    record,
    rows_to_accept,
    unknown_stream,
)
from gon_edge.training.schedule import ScoreDrift, StreamSchedule, is_quiet
from gon_edge.training.trainer import Trainer

if TYPE_CHECKING:
    from gon_edge.links.homeassistant import HomeAssistant

log = logging.getLogger(__name__)

_BATCH = 256
_CATCH_UP_ROWS = 64
_TRIM_EVERY_S = 10.0
_RETRY_TRAINING_S = 60.0
_START_S, _STOP_S = 60.0, 30.0  # asked of the service manager: many models, or a slow disk
TRAININGS_SHOWN = 20


class Daemon:
    """The service.

    Parameters
    ----------
    config : Config

    Raises
    ------
    ConfigError
        Options that contradict each other, or a secret that cannot be read.
    StoreError
        The state directory belongs to another gon-edge, or cannot be one.
    GonEdgeError
        The HTTP address cannot be listened on.
    """

    def __init__(self, config: Config) -> None:
        tame_malloc()
        self._config = config
        check_starters(config)
        self._registry = CollectorRegistry()
        self._telemetry = Telemetry(self._registry, version=gon_edge.__version__)
        self._telemetry.memory_budget(config.retrain.memory_budget_bytes)
        self._store = Store.open(
            config.state_dir,
            max_bytes=config.store.max_bytes,
            rows_per_stream=config.store.rows,
            flush_every_s=config.store.flush_every_s,
        )
        self._models = ModelFolder(config.state_dir)
        self._pipeline = Pipeline(
            config,
            self._make_stream,
            offset_s=time.time() - _monotonic(),
            is_wanted=lambda name: self._rounds.wants(name),
        )
        self._streams = self._pipeline.streams
        self._trainer = Trainer(config.state_dir, self._models)
        self._home: HomeAssistant | None = None
        if config.homeassistant.enabled:
            from gon_edge.links.homeassistant import HomeAssistant  # 0.4 MiB, where it is used

            self._home = HomeAssistant(
                config.homeassistant,
                node=config.node,
                version=gon_edge.__version__,
                topic=partial(own_topic, config.mqtt, config.node),
                publish=lambda topic, payload: self._client.publish(topic, payload, retain=True),
                silence=self._silence_from_home,
                now=_monotonic(),
            )
        self._client = MqttClient(
            config.mqtt,
            node=config.node,
            subscriptions=(
                *self._pipeline.subscriptions,
                *(self._home.subscriptions if self._home is not None else ()),
            ),
            rng=random.Random(),  # noqa: S311  jitter; importing numpy.random costs 7 MiB
            on_reconnect=self._telemetry.mqtt_reconnect,
        )
        self._telemetry.watch(
            mqtt_connected=lambda: self._client.connected,
            subscriptions_refused=lambda: len(self._client.subscribe_refused),
            queue_length=lambda: len(self._client.queue),
        )
        self._reporter = Reporter(
            self._telemetry,
            self._client,
            self._store,
            monotonic=_monotonic,
            on_row=self._note_row,
            on_alert=self._freeze_training,
        )
        self._notifier = Notifier()
        self._rng = random.Random()  # noqa: S311  jitter
        self._rounds = Rounds(self._trainer, config.retrain, Conditions())
        self._schedules: dict[str, StreamSchedule] = {}
        self._silences = Silences(self._store.state("silences"))
        self._silenced: dict[str, frozenset[str] | None] = {}  # features, or None for all, of streams that have any
        self._control: ControlServer | None = None
        self._refused = 0
        self._reload_wanted = False
        self._trainings = deque(map(dataclasses.asdict, self._store.retrains(TRAININGS_SHOWN)), TRAININGS_SHOWN)
        self._retry_at: dict[str, float] = {}
        self._dropped = self._lost_events = self._store_errors = 0
        self._stopping = False
        self._began = _monotonic()
        self._started_at = time.time()
        self._heartbeat = 0.0
        self._trimmed_at = 0.0
        self._snapshot = self._take_snapshot(ready=False)
        self._web: WebServer | None = None
        if config.http.enabled:
            self._web = WebServer(config.http, snapshot=lambda: self._snapshot, registry=self._registry)
        for option, certificate in (
            ("mqtt.ca_file", config.mqtt.ca_file),
            ("mqtt.cert_file", config.mqtt.cert_file),
            ("http.cert_file", config.http.cert_file),
        ):
            if certificate is not None:
                self._telemetry.certificate(option, certificate)

    @property
    def url(self) -> str:
        """Address of the status page; empty when HTTP is off."""
        return self._web.url if self._web else ""

    def stop(self, *_: object) -> None:
        """End :meth:`run` soon; fit for a signal handler."""
        self._stopping = True

    def reload(self, *_: object) -> None:
        """Read the configuration again soon; fit for a signal handler."""
        self._reload_wanted = True

    def run(self) -> None:
        """Score until :meth:`stop`, SIGTERM or SIGINT; SIGHUP reads the configuration again."""
        before = {number: signal.signal(number, self.stop) for number in (signal.SIGTERM, signal.SIGINT)}
        before[signal.SIGHUP] = signal.signal(signal.SIGHUP, self.reload)
        try:
            self._start()
            while not self._stopping:
                self._round()
        finally:
            self._stop()
            for number, handler in before.items():
                signal.signal(number, handler)

    # -- start and stop ----------------------------------------------------------------------------------------------

    def _start(self) -> None:
        log.info("gon-edge %s, node %s", gon_edge.__version__, self._config.node)
        if self._store.recovered:
            log.warning("the state database was damaged: %s", self._store.recovered_reason)
        if not self._store.persistent:
            log.warning("running without history: %s", self._store.last_error)
        self._telemetry.store_recovered(self._store.recovered)
        self._telemetry.config_loaded(time.time())
        self._notifier.extend_timeout(_START_S)
        trained = sorted(self._models.streams())  # before names that a flood of devices has left in the database
        for name in (*trained, *sorted(self._store.streams().keys() - trained)):
            if len(self._streams) < self._config.limits.streams:
                self._open_stream(name)
        if self._home is not None:
            self._home.start()
        self._client.start()
        if self._web is not None:
            self._web.start()
            log.info("status page %s", self._web.url)
            if not (http := self._config.http).loopback and not (http.tls and http.guarded):
                missing = [
                    text
                    for there, text in (
                        (http.guarded, "no password is asked for (http.token_file, or http.username)"),
                        (http.tls, "nothing is encrypted (http.cert_file)"),
                    )
                    if not there
                ]
                log.warning("http.listen %s shows your readings to the network: %s", http.listen, "; ".join(missing))
        try:
            self._control = ControlServer(self._config.state_dir)
            self._control.start()
        except (StoreError, OSError) as error:
            log.warning("commands cannot reach this daemon: %s", error)
        self._snapshot = self._take_snapshot()
        return_memory()
        self._notifier.ready(status_line(self._streams.values(), self._client))

    def _stop(self) -> None:
        self._notifier.stopping()
        self._notifier.extend_timeout(_STOP_S)
        self._rounds.stop()
        self._store_state()
        self._store.flush(_monotonic())
        self._client.stop()
        if self._control is not None:
            self._control.stop()
        if self._web is not None:
            self._web.stop()
        self._store.close()
        log.info("stopped")

    def _make_stream(self, name: str, now: float) -> Stream:
        """A stream with its model, and with what an earlier run knew of it."""
        model, wrong = self._models.load(name)
        if wrong:
            log.error("stream %r: %s; %s", name, wrong, "using the one before" if model else "training a new one")
        settings = self._config.stream(name)
        stream = Stream(
            name,
            settings,
            max_features=self._config.limits.features,
            model=model,
            starters=starters(settings.model) if model is None else (),
            opened_at=now,
            timer=time.perf_counter,
        )
        stream.resume(self._store.streams().get(name, 0), self._store.state(f"alerts/{name}"))
        stream.policy.silence(self._silences.features(name, time.time()))
        return stream

    def _open_stream(self, name: str) -> Stream:
        return self._begin(self._pipeline.open(name, _monotonic()))

    def _begin(self, stream: Stream) -> Stream:
        """Take a stream that has begun into schedules, series and silences."""
        name, model = stream.name, stream.model
        self._schedules[name] = self._schedule(stream)
        if model is not None:
            self._telemetry.model(name, model.version, float(model.lineage.get("trained_at", 0.0)))
        for alert in stream.policy.active:
            self._telemetry.alert(alert)
        self._telemetry.stream_state(name, stream.state)
        self._apply_silences(stream)
        return stream

    # -- the loop ----------------------------------------------------------------------------------------------------

    def _round(self) -> None:
        behind = any(stream.behind and stream.model for stream in self._streams.values())
        for message in self._client.queue.get_batch(_BATCH, 0.0 if behind else TICK_S):
            self._take(message)
        now = _monotonic()
        if not len(self._client.queue):
            self._pass_time(now)
        for stream in self._streams.values():
            if stream.behind:
                self._reporter.rows(stream, stream.catch_up(_CATCH_UP_ROWS))
            if stream.warmed_up:
                self._train(stream, now)
        if self._control is not None:
            self._serve(self._control)
        if (ended := self._rounds.step(now, self._job, self._began_round)) is not None:
            self._end_round(ended)
        if self._reload_wanted:
            self._reload()
        if self._store.due(now):
            self._store_state()
            if not self._store.flush(now):
                self._reporter.seldom.say(
                    "store", logging.WARNING, f"cannot write state: {self._store.last_error}; trying again"
                )
        if time.monotonic() - self._heartbeat > STATE_EVERY_S:
            self._beat(now)

    def _take(self, message: Message) -> None:
        """Hops 2 to 8 of one message."""
        if self._home is not None and self._home.take(message.topic, message.payload, retained=message.retained):
            return
        heard = self._pipeline.take(message.topic, message.payload, message.received_at, retained=message.retained)
        self._reporter.message(heard)
        for stream in heard.forgotten:
            self._forget(stream)
        for stream in heard.opened:
            self._begin(stream)
            if stream.model is None:
                log.info("new stream %r: warming up", stream.name)
        for step in heard.steps:
            self._reporter.step(step)

    def _forget(self, stream: Stream) -> None:
        """Let go everything that is kept of a stream the pipeline has made room of."""
        self._reporter.forget(stream)
        if self._home is not None:
            self._home.remove(stream.name)
        for kept in (self._schedules, self._silenced):
            kept.pop(stream.name, None)
        self._retry_at.pop(stream.name, None)

    def _pass_time(self, now: float) -> None:
        """Rows that are due by time alone, streams that have stopped, and a wall clock that was set."""
        if delta_s := self._pipeline.set_clock(time.time() - _monotonic()):
            log.warning("the wall clock moved by %.1f s; streams stamped on receipt follow it", delta_s)
            self._telemetry.clock_step()
        for step in self._pipeline.pass_time(now):
            self._reporter.step(step)

    # -- what comes out ----------------------------------------------------------------------------------------------

    def _note_row(self, stream: Stream, verdict: Verdict, normal: bool) -> None:
        self._schedules[stream.name].row(verdict.score, normal=normal, new_feature=stream.new_feature)

    def _freeze_training(self, stream: Stream) -> None:
        if self._rounds.freeze(stream.name):
            log.info("stream %r: the training is ended; nothing is learned while an alert is open", stream.name)

    def _store_state(self) -> None:
        for name, stream in self._streams.items():
            self._store.put_state(f"alerts/{name}", stream.policy.state())
            scores = self._schedules[name].drift.reference
            if stream.model is not None and scores is not None:
                kept = {"version": stream.model.version, "scores": scores.round(4).tolist()}
                self._store.put_state(f"drift/{name}", kept)

    # -- training ----------------------------------------------------------------------------------------------------

    def _train(self, stream: Stream, now: float) -> None:
        """Have the first model of a stream trained that has warmed up."""
        if not self._rounds.wants(stream.name) and now >= self._retry_at.get(stream.name, 0.0):
            self._rounds.ask([Order(stream.name, "first")])

    def _train_again(self, now: float) -> None:
        """Have models trained that are due; nothing is learned while an alert is open."""
        retrain, local = self._config.retrain, time.localtime()
        if is_quiet(60 * local.tm_hour + local.tm_min, retrain.quiet_hours):
            return
        for name, stream in self._streams.items():
            if stream.model is None or stream.policy.active or self._rounds.wants(name):
                continue
            why = self._schedules[name].due(
                now,
                rows=stream.settings.warmup_rows,
                on_drift=retrain.on_drift,
                on_features=retrain.on_features,
            )
            if why is not None:
                log.info("stream %r: another training is due (%s)", name, why)
                self._rounds.ask([Order(name, why)])

    def _schedule(self, stream: Stream) -> StreamSchedule:
        last = [rounds.started for rounds in self._store.retrains(1, stream.name)]
        if stream.model is not None:
            last.append(float(stream.model.lineage.get("trained_at", 0.0)))
        return StreamSchedule(
            self._drift(stream),
            now=_monotonic(),
            every_s=self._config.retrain.every_s,
            since_round_s=time.time() - max(last, default=time.time()),
            jitter=self._rng.random(),
        )

    def _drift(self, stream: Stream) -> ScoreDrift:
        """Memory of the scores of the model in use, which may be that of an earlier run."""
        version = stream.model.version if stream.model else ""
        kept = self._store.state(f"drift/{stream.name}")
        known = isinstance(kept, dict) and kept.get("version") == version
        window = stream.model.discriminator.window if stream.model else 1
        return ScoreDrift(window, kept["scores"] if known else None)

    def _job(self, order: Order) -> Job:
        """What the child is told; every row so far is on the disk then."""
        self._store.flush(_monotonic())
        stream = self._streams.get(order.stream)
        newest = stream.last_row.timestamp if stream is not None and stream.last_row is not None else None
        return make_job(
            order,
            self._config,
            self._models,
            model=stream.model if stream is not None else None,
            interval_s=stream.aligner.interval_s if stream is not None else None,
            newest=newest if newest is not None else newest_row(self._store, order.stream)[0],
            accepted=accepted_spans(self._store, order.stream),
            wall=time.time(),
        )

    def _began_round(self, order: Order) -> None:
        stream = self._streams.get(order.stream)
        if stream is None:
            log.info("stream %r: training, from %s", order.stream, order.rows_file)
            return
        self._schedules[stream.name].began(_monotonic(), self._rng.random())
        if order.why == "first":
            stream.train()
            log.info("stream %r: %d rows collected, training its first model", stream.name, stream.rows)
        else:
            log.info("stream %r: training again (%s)", stream.name, order.why)
        self._reporter.state(stream, force=True)

    def _end_round(self, ended: Ended) -> None:
        order, result = ended.order, ended.round
        name = order.stream
        stream = self._streams.get(name)
        self._telemetry.retrain(name, result.outcome, duration_s=result.duration_s, peak_bytes=result.peak_bytes)
        self._store.add_retrain(record(result))
        self._trainings.appendleft(dataclasses.asdict(record(result)))
        if result.model is None:
            level = logging.INFO if result.outcome == "rejected" else logging.ERROR
            old = "the model in use stays" if stream is not None and stream.model else "there is no model yet"
            log.log(level, "stream %r: no new model (%s): %s; %s", name, result.outcome, result.reason, old)
            if stream is not None and order.why == "first":
                self._reporter.rows(stream, stream.give_up_training())
                self._retry_at[name] = _monotonic() + _RETRY_TRAINING_S
        else:
            mib = result.peak_bytes / (1 << 20)
            log.info(
                "stream %r: model %s from %d rows in %.1f s, %.0f MiB",
                name,
                result.model.version,
                result.rows,
                result.duration_s,
                mib,
            )
            if stream is not None:
                self._use(stream, result.model)
            elif len(self._streams) < self._config.limits.streams:
                self._open_stream(name)
        if stream is not None:
            self._reporter.state(stream, force=True)
        self._rounds.report(ended)

    def _use(self, stream: Stream, model: Model) -> None:
        """Score a stream by another model from the next row on."""
        if stream.starter is not None:
            log.info("stream %r: its own model takes over from %s", stream.name, stream.starter.version)
        stream.use(model)
        self._telemetry.model(stream.name, model.version, float(model.lineage.get("trained_at", 0.0)))
        self._schedules[stream.name].new_model(self._drift(stream))
        self._reporter.state(stream, force=True)

    # -- what commands ask for ---------------------------------------------------------------------------------------

    def _serve(self, control: ControlServer) -> None:
        while control.requests:
            request = control.requests.popleft()
            try:
                answer = self._answers.get(request.asked["do"])
                if answer is None:
                    raise InputError("this gon-edge does not know that request; is the command a newer one?")
                answer(self, request)
            except GonEdgeError as error:
                request.refuse(error)
            except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
                log.debug("not a request: %s", request.asked, exc_info=True)
                request.refuse(f"not a request: {error!r}")
            except OSError as error:
                request.refuse(f"the state directory cannot be written: {error.strerror or error}")

    def _known(self, name: object) -> str:
        """The name of a stream there is; one that has a model and no row yet is opened."""
        if isinstance(name, str) and name not in self._streams and name in self._models.streams():
            self._open_stream(name)
        if not isinstance(name, str) or name not in self._streams:
            raise unknown_stream(str(name), self._streams)
        return name

    def _asked_retrain(self, request: Request) -> None:
        asked = request.asked
        wanted = orders(asked, self._streams)
        if asked.get("dry_run"):
            jobs = [dataclasses.asdict(self._job(order)) for order in wanted]
            request.answer(jobs=jobs)
            return
        self._rounds.ask(wanted, request, wait=bool(asked.get("wait")))

    def _asked_accept(self, request: Request) -> None:
        asked = request.asked
        stream = self._streams[self._known(asked["stream"])]
        newest = stream.last_row.timestamp if stream.last_row else newest_row(self._store, stream.name)[0]
        if newest is None:
            raise InputError(f"stream {stream.name!r} has no rows yet")
        since, until = moment(asked["since"], newest), moment(asked.get("until") or {"at": newest}, newest)
        order = Order(stream.name, "accepted", since={"at": since} if asked.get("only") else None)
        released = accept(self._store, stream.name, since, until, needed=rows_to_accept(self._config, stream.name))
        log.info("stream %r: %d rows are accepted as normal", stream.name, released)
        self._store.flush(_monotonic())
        self._rounds.cancel(stream.name)  # it began without these rows
        request.tell(released=released)
        self._rounds.ask([order], request, wait=True)

    def _asked_rollback(self, request: Request) -> None:
        name, version = self._known(request.asked["stream"]), request.asked.get("version")
        model = self._models.rollback(name, None if version is None else str(version))
        self._rounds.cancel(name)
        self._schedules[name].began(_monotonic(), self._rng.random())
        self._use(self._streams[name], model)
        log.info("stream %r: back to model %s", name, model.version)
        request.answer(stream=name, version=model.version)

    def _asked_reload_model(self, request: Request) -> None:
        name = self._known(request.asked["stream"])
        model, wrong = self._models.load(name)
        if model is None:
            raise InputError(f"stream {name!r} has no model: {wrong or 'train one'}")
        self._rounds.cancel(name)
        self._schedules[name].began(_monotonic(), self._rng.random())
        self._use(self._streams[name], model)
        log.info("stream %r: model %s is in use", name, model.version)
        request.answer(stream=name, version=model.version, wrong=wrong)

    def _asked_silence(self, request: Request) -> None:
        asked, now = request.asked, time.time()
        name = self._known(asked["stream"])
        silence = Silence(name, str(asked.get("feature", "")), now, now + float(asked["for_s"]), str(asked["reason"]))
        try:
            self._silences.add(silence)
        except ValueError as error:
            raise InputError(str(error)) from None
        self._changed_silences()
        what = f"feature {silence.feature!r} of stream {name!r}" if silence.feature else f"stream {name!r}"
        log.info("%s is silenced for %.0f s: %r", what, silence.until - now, silence.reason)
        request.answer(silence=dataclasses.asdict(silence))

    def _asked_unsilence(self, request: Request) -> None:
        feature = request.asked.get("feature")
        removed = self._silences.remove(str(request.asked["stream"]), None if feature is None else str(feature))
        self._changed_silences()
        request.answer(removed=[dataclasses.asdict(silence) for silence in removed])

    def _asked_silences(self, request: Request) -> None:
        request.answer(silences=[dataclasses.asdict(silence) for silence in self._silences.active(time.time())])

    _answers: Mapping[str, Callable[[Daemon, Request], None]] = {
        "retrain": _asked_retrain,
        "accept": _asked_accept,
        "rollback": _asked_rollback,
        "reload-model": _asked_reload_model,
        "silence": _asked_silence,
        "unsilence": _asked_unsilence,
        "silences": _asked_silences,
    }

    # -- silences ----------------------------------------------------------------------------------------------------

    def _changed_silences(self) -> None:
        self._store.put_state("silences", self._silences.state())
        self._store.flush(_monotonic())
        for stream in self._streams.values():
            self._apply_silences(stream)

    def _apply_silences(self, stream: Stream) -> None:
        """Tell a stream's policy what nobody wants to hear of, when that has changed."""
        name = stream.name
        features = self._silences.features(name, time.time())
        if features == self._silenced.get(name, frozenset()):
            return
        if features is not None and not features:
            del self._silenced[name]
        else:
            self._silenced[name] = features
        stream.policy.silence(features)
        audible = {alert.kind for alert in stream.policy.audible}
        for kind in ALERT_KINDS:
            self._telemetry.alert_audible(name, kind, kind in audible)
        if stream.state == "stale":
            self._reporter.tell(stream, stream.silent(_monotonic() + self._pipeline.offset_s))
        self._reporter.state(stream, force=True)

    def _silence_from_home(self, name: str, wanted: bool) -> None:
        """Home Assistant's switch: a silence of the whole stream, or its end."""
        now, for_s = time.time(), self._config.homeassistant.silence_s
        try:
            if wanted and for_s is not None:
                self._silences.add(Silence(name, "", now, now + for_s, "Home Assistant"))
            elif not self._silences.remove(name, ""):
                return
        except ValueError as error:
            log.warning("stream %r cannot be silenced: %s", name, error)
            return
        log.info("stream %r is %s by Home Assistant", name, "silenced" if wanted else "no longer silenced")
        self._changed_silences()

    # -- configuration -----------------------------------------------------------------------------------------------

    def _reload(self) -> None:
        self._reload_wanted = False
        if self._config.path is None:
            return
        self._notifier.reloading()
        try:
            new = load_config(self._config.path)
            check_starters(new)
        except ConfigError as error:
            log.error("the configuration stays as it was: %s", error)
            self._telemetry.config_refused()
        else:
            self._configure(new)
            self._telemetry.config_loaded(time.time())
        self._notifier.ready(status_line(self._streams.values(), self._client))

    def _configure(self, new: Config) -> None:
        """Go on with what can be changed while running, and say what cannot."""
        old = self._config
        later = waiting(old, new, self._streams.values())
        self._config = merged(old, new)
        self._pipeline.max_streams = new.limits.streams
        for name, stream in self._streams.items():
            stream.configure(new.stream(name))
            self._schedules[name].every(new.retrain.every_s)
        self._rounds.settings = new.retrain
        self._telemetry.memory_budget(new.retrain.memory_budget_bytes)
        if new.log.level != old.log.level:
            logging.getLogger().setLevel(new.log.level.upper())
        log.info("the configuration was read again%s", f"; after a restart: {', '.join(later)}" if later else "")

    # -- what people see ---------------------------------------------------------------------------------------------

    def _beat(self, now: float) -> None:
        """Once a second: counters kept elsewhere, the snapshot, the watchdog."""
        queue, client, store = self._client.queue, self._client, self._store
        if queue.dropped > self._dropped:
            self._reporter.seldom.say(
                "queue", logging.WARNING, "messages arrive faster than they are scored; the oldest go"
            )
            self._telemetry.message("dropped", queue.dropped - self._dropped)
            self._dropped = queue.dropped
        if client.events_dropped > self._lost_events:
            self._telemetry.events_dropped(client.events_dropped - self._lost_events)
            self._lost_events = client.events_dropped
        for _ in range(self._store_errors, store.write_errors):
            self._telemetry.store_write_error()
        self._store_errors = store.write_errors
        wall = time.time()
        if not self._reporter.clock_set:
            self._reporter.clock_set = clock_is_set(wall, _monotonic())
        if self._silences.expire(wall):
            self._changed_silences()
        for stream in self._streams.values():
            self._telemetry.stream_state(stream.name, stream.state)
            self._telemetry.causes(stream.name, stream.causes())
            self._apply_silences(stream)
            if self._home is not None:
                self._home.update(stream, now, silenced=self._silenced.get(stream.name, frozenset()) is None)
        if self._home is not None:
            self._home.step(now)
        self._telemetry.silences(len(self._silences.active(wall)))
        if self._control is not None and self._control.refused > self._refused:
            self._telemetry.control_refused(self._control.refused - self._refused)
            self._refused = self._control.refused
        self._train_again(now)
        self._heartbeat = time.monotonic()
        self._snapshot = self._take_snapshot()
        if now - self._trimmed_at > _TRIM_EVERY_S:
            self._trimmed_at = now
            return_memory()
        self._notifier.watchdog()
        self._notifier.status(status_line(self._streams.values(), self._client))

    def _take_snapshot(self, *, ready: bool = True) -> Snapshot:
        return Snapshot(
            node=self._config.node,
            version=gon_edge.__version__,
            started_at=self._started_at,
            now=_monotonic() + self._pipeline.offset_s,
            mqtt_connected=self._client.connected,
            mqtt_url=self._client.url,
            mqtt_error=self._client.last_error,
            queue_length=len(self._client.queue),
            rss_bytes=rss_bytes(),
            heartbeat_at=self._heartbeat or time.monotonic(),
            ready=ready,
            streams=tuple(
                stream_snapshot(stream, self._training_of(stream.name)) for _, stream in sorted(self._streams.items())
            ),
            alerts=tuple(reversed(self._reporter.alerts.values())),
            silences=tuple(dataclasses.asdict(silence) for silence in self._silences.active(time.time())),
            bucket_s=HISTORY_BUCKET_S,
            history=history_snapshots(self._streams.values()),
            trainings=tuple(self._trainings),
            models={name: s.model.lineage for name, s in sorted(self._streams.items()) if s.model is not None},
            latency_s=tuple(self._reporter.latencies),
        )

    def _training_of(self, name: str) -> str:
        """How far a stream's training is, for people; empty when it has none."""
        running, progress = self._rounds.running, self._rounds.progress
        if running is None or running.stream != name or progress is None:
            return ""
        return self._rounds.held or f"{progress.phase}, {100 * progress.share:.0f} %"


def _monotonic() -> float:
    """Seconds that no clock step touches and that go on while the machine sleeps."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)
