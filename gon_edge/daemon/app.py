"""Composition: broker, streams, store, training, metrics and web page, put together and kept running.

One scoring thread (the caller of :meth:`Daemon.run`) owns every stream; the network thread only fills the queue, HTTP
threads only read the newest snapshot, and what commands ask for waits for the scoring thread.  No algorithm lives here,
and nothing here may end the loop: what can go wrong while running is counted and logged, what is wrong at the start is
an error with one line.
"""

from __future__ import annotations

import contextlib
import json
import logging
import random
import signal
import time
from collections import deque
from functools import partial
from typing import TYPE_CHECKING, Any

from prometheus_client import CollectorRegistry

import gon_edge
from gon_edge.config.file import load_config
from gon_edge.config.schema import Config
from gon_edge.daemon.clocktrust import ClockTrust
from gon_edge.daemon.offline import Offline
from gon_edge.daemon.orders import Machine
from gon_edge.daemon.reload import merged, waiting
from gon_edge.daemon.reporting import STATE_EVERY_S, Tally
from gon_edge.daemon.scoring import Scoring
from gon_edge.daemon.snapshot import EarlierDays, Viewer, exposure, status_line
from gon_edge.errors import ConfigError, StoreError
from gon_edge.events import MESSAGE_RESULTS, PUBLISH_LOSSES
from gon_edge.links.control import ControlServer
from gon_edge.links.mqtt.client import MqttClient, own_topic
from gon_edge.links.mqtt.queue import Message
from gon_edge.links.prometheus import Telemetry
from gon_edge.links.web.server import WebServer
from gon_edge.process.clock import Clock, monotonic
from gon_edge.process.memory import return_memory, tame_malloc
from gon_edge.process.systemd import Notifier
from gon_edge.process.threads import Watch
from gon_edge.state.catalog import check_starters
from gon_edge.state.database import check_state_dir
from gon_edge.stream.payload import decoders
from gon_edge.stream.pipeline import CLOCK_STEP_S, TICK_S
from gon_edge.stream.topics import outermost
from gon_edge.training.capacity import capacity

if TYPE_CHECKING:
    from gon_edge.links.feedback import Feedback
    from gon_edge.links.homeassistant import HomeAssistant

log = logging.getLogger(__name__)

_BATCH = 256  # messages between two looks at everything else; not critical: 40 ms at 6,000 a second (docs/cost.md)
_THICK_S, _GATHER_S = 0.02, 0.005
"""Where a message comes so soon after others, more are waited for: taken together each costs less.  Not critical: a row
is later by this, and at 1,000 messages a second five are taken at once."""

_BROKER_STATE = "broker"  # under which the store keeps what `MqttClient.state` says
_ASK_AGAIN_S = 60.0
"""Between two questions whether the broker takes the events now that it has refused: one event asks, and the others
follow when it is taken.  Not critical: rights are put right by hand."""
_TRIM_EVERY_S = 10.0  # not critical: giving memory back takes a few ms
_REST_S = 10.0  # not critical: well below `_STOP_S`, and a full queue takes 4 s (docs/cost.md)
_START_S, _STOP_S = 60.0, 30.0  # asked of the service manager: many models, or a slow disk


class Daemon:
    """The service.

    Parameters
    ----------
    config : Config

    Raises
    ------
    ConfigError
        Options that contradict each other, a secret that cannot be read, or a state directory that cannot be one.
    StoreError
        The state directory belongs to another gon-edge.
    GonEdgeError
        The HTTP address cannot be listened on.
    """

    def __init__(self, config: Config) -> None:
        tame_malloc()
        check_starters(config)
        check_state_dir(config.state_dir)
        self._config = config
        self._registry = CollectorRegistry()
        self._telemetry = Telemetry(self._registry, version=gon_edge.__version__)
        self._telemetry.memory_budget(capacity(config.retrain).budget_bytes)
        self._clock = Clock()
        self._home = self._home_assistant() if config.homeassistant.enabled else None
        self._feedback = self._answers() if config.mqtt.feedback else None
        self._client = self._broker()
        # The hops of a message after the broker, and what people ask for between two rows.
        self._scoring = Scoring(config, self._telemetry, self._client, Machine(self._clock))
        self._store, self._pipeline = self._scoring.store, self._scoring.pipeline
        self._reporter, self._orders = self._scoring.reporter, self._scoring.orders
        self._streams = self._pipeline.streams
        self._trust = ClockTrust(self._store, self._scoring.models, self._clock.wall(), self._clock.monotonic())
        self._control: ControlServer | None = None
        lost = self._client.delivery.lost
        self._sessions = Tally(lambda: self._client.sessions, lambda _: self._reporter.remind(self._streams.values()))
        self._connects = Tally(lambda: self._client.connects, lambda _: self._reporter.say_again(anew=True))
        self._tallies = [
            Tally(lambda: self._client.queue.dropped, self._reporter.dropped),
            Tally(lambda: self._client.delivery.events_dropped, self._telemetry.events_dropped),
            *(
                Tally(partial(lost.__getitem__, why), partial(self._telemetry.publication_lost, why))
                for why in PUBLISH_LOSSES
            ),
            Tally(lambda: self._store.write_errors, self._telemetry.store_write_errors),
            Tally(lambda: self._control.refused if self._control else 0, self._telemetry.control_refused),
        ]
        # What is seen of it.
        self._notifier = Notifier()
        troubles = self._scoring.troubles
        self._viewer = Viewer(config, self._pipeline, self._client, self._reporter, self._orders, troubles)
        self._web: WebServer | None = None
        if config.http.enabled:
            days = EarlierDays(config.state_dir)
            self._web = WebServer(config.http, snapshot=self._viewer.look, registry=self._registry, days=days)
        for option, certificate in config.certificates.items():
            self._telemetry.certificate(option, certificate)
        self._watch = Watch()
        self._heard = self._client.heard
        self._offline = Offline(
            config.node, self._reporter.tell_one, now=monotonic(), events=self._store.alerts(1, stream="")
        )
        self._reload_wanted = self._stopping = False
        self._trimmed_at = self._took_at = self._stepped_at = self._asked_again_at = 0.0

    def _home_assistant(self) -> HomeAssistant:
        from gon_edge.links.homeassistant import HomeAssistant  # 0.4 MiB, where it is used

        return HomeAssistant(
            self._config.homeassistant,
            node=self._config.node,
            version=gon_edge.__version__,
            topic=partial(own_topic, self._config.mqtt, self._config.node),
            publish=lambda topic, payload: self._client.publish(topic, payload, retain=True),
            act=lambda name, wanted: self._orders.act(name, wanted),
            now=monotonic(),
        )

    def _answers(self) -> Feedback:
        from gon_edge.links.feedback import Feedback  # where it is used

        return Feedback(
            topic=partial(own_topic, self._config.mqtt, self._config.node),
            publish=lambda topic, payload: self._client.publish(topic, payload),
            ask=lambda asked, client: self._orders.heed(asked, client),
            refused=self._telemetry.answer_refused,
        )

    def _broker(self) -> MqttClient:
        home = self._home.subscriptions if self._home is not None else ()
        answers = (self._feedback.topic,) if self._feedback is not None else ()
        client = MqttClient(
            self._config.mqtt,
            node=self._config.node,
            subscriptions=outermost(
                (*(decoder.template.subscription for decoder in decoders(self._config)), *home, *answers)
            ),
            rng=random.Random(),  # noqa: S311  jitter; importing numpy.random costs 7 MiB
            on_reconnect=self._telemetry.mqtt_reconnect,
            recalled=(own_topic(self._config.mqtt, self._config.node, "state") + "/+",),
            max_payload=self._config.limits.payload_bytes,
        )
        self._telemetry.watch(
            mqtt_connected=lambda: client.connected,
            unacknowledged_s=lambda: client.delivery.waited_s,
            subscriptions_refused=lambda: len(client.subscribe_refused),
            queue_length=lambda: len(client.queue),
        )
        return client

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
        """Score until :meth:`stop`, SIGTERM or SIGINT; SIGHUP reads the configuration again.

        Raises
        ------
        ThreadEnded
            One of the threads has ended, without which this would go on deaf or mute.
        """
        before = {number: signal.signal(number, self.stop) for number in (signal.SIGTERM, signal.SIGINT)}
        before[signal.SIGHUP] = signal.signal(signal.SIGHUP, self.reload)
        try:
            with self._watch:
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
            what = "what was written before counts" if self._store.readable else "running without history"
            log.warning("the state cannot be written, %s: %s", what, self._store.last_error)
        self._telemetry.store_recovered(self._store.recovered)
        self._telemetry.config_loaded(time.time())
        self._notifier.extend_timeout(_START_S)
        self._scoring.resume()
        if self._home is not None:
            self._home.start()
        for stream in self._streams.values():
            self._reporter.state(stream, force=True)  # the broker may still show how an earlier run left it
        kept = self._store.state(_BROKER_STATE)
        self._client.resume(kept)
        self._go_on_telling(kept)
        self._client.start()
        if self._web is not None:
            self._web.start()
            log.info("status page %s", self._web.url)
            if exposed := exposure(self._config.http):
                log.warning("http.listen %s shows your readings to the network: %s", self._config.http.listen, exposed)
        self._listen_to_commands()
        self._viewer.begin()
        return_memory()
        self._notifier.ready(status_line(self._streams.values(), self._client))

    def _go_on_telling(self, kept: Any) -> None:
        """Remember which events an earlier run has left on their way, and which the broker did not take."""
        untold = self._reporter.untold
        for kept_event in self._client.delivery.outbox.events():
            with contextlib.suppress(ValueError, KeyError, TypeError):  # of another topic
                untold.sent(json.loads(kept_event.payload))
        lost = kept.get("unheard") if isinstance(kept, dict) else None
        for alert in lost if isinstance(lost, list) else ():
            if (event := self._store.alert(str(alert))) is not None and event["id"] not in untold:
                untold.lose(event["id"], event["stream"])

    def _listen_to_commands(self) -> None:
        try:
            self._control = ControlServer(self._config.state_dir)
            self._control.start()
        except (StoreError, OSError) as error:
            self._control = None
            self._reporter.seldom.say("control", logging.WARNING, f"commands cannot reach this daemon: {error}")

    def _listen_to_commands_again(self) -> None:
        """Make the socket when the disk can be written again, or anew when somebody has deleted it.

        With the socket the state directory may be gone.
        """
        control = self._control
        if control is not None and control.path.exists():
            return
        if control is not None and self._store.last_error is None:  # else the store tries again by itself
            self._orders.keep()
        if self._store.persistent:
            if control is not None:
                control.stop()
            self._listen_to_commands()

    def _stop(self) -> None:
        self._notifier.stopping()
        self._notifier.extend_timeout(_STOP_S)
        self._hear_of_losses()  # what the states say leaves with the rest
        self._client.stop()
        if self._stopping:  # and not for an error, which the next message may raise again
            self._take_the_rest()
        self._scoring.stop()
        self._keep_broker_state()
        self._store.flush(monotonic())
        if self._control is not None:
            self._control.stop()
        if self._web is not None:
            self._web.stop()
        self._store.close()
        log.info("stopped; %s", self._account())

    def _keep_broker_state(self, *, urgent: bool = False) -> None:
        """Keep what the next run must know of the broker: what waits for it, and what it did not take."""
        waits = self._client.state()  # first: what leaves it meanwhile is settled then
        urgent |= self._hear_of_losses()
        self._store.put_state(_BROKER_STATE, {**waits, "unheard": [*self._reporter.untold.lost]}, urgent=urgent)

    def _account(self) -> str:
        """What became of the messages of this run, whose series end with it, for the log."""
        for tally in self._tallies:
            tally.look()
        counted = partial(self._registry.get_sample_value, "gon_edge_messages_total")
        told = ", ".join(f"{counted({'result': result}) or 0.0:.0f} {result}" for result in MESSAGE_RESULTS)
        return f"messages: {told}, {self._pipeline.undecided} undecided, {len(self._client.queue)} not judged"

    def _take_the_rest(self) -> None:
        """Judge what has come until now: it is acknowledged, so nobody sends it again."""
        until = monotonic() + _REST_S
        while len(self._client.queue) and monotonic() < until:
            self._take(self._client.queue.get_batch(_BATCH, 0.0))
        if left := len(self._client.queue):
            log.warning("%d messages had come and were not judged before the stop", left)

    # -- the loop ----------------------------------------------------------------------------------------------------

    def _round(self) -> None:
        if monotonic() - self._took_at < _THICK_S and len(self._client.queue) < _BATCH:
            time.sleep(_GATHER_S)
        messages = self._client.queue.get_batch(_BATCH, 0.0 if self._scoring.behind else TICK_S)
        self._listen()
        self._sessions.look()  # before its messages: what they raise is told once
        self._connects.look()
        self._take(messages)
        now = monotonic()
        if messages:
            self._took_at = now
        if not len(self._client.queue):
            self._pass_time(now)
            self._scoring.remember()
        deque(self._scoring.catch_up(), 0)
        if self._control is not None:
            self._orders.serve(self._control)
        if now - self._stepped_at >= TICK_S / 2:
            self._stepped_at = now
            self._orders.step(now)
        if self._viewer.wanted:
            self._viewer.show()
        if self._reload_wanted:
            self._reload()
        if self._store.due(now):
            self._keep_broker_state()
        self._scoring.keep(now)
        if time.monotonic() - self._viewer.heartbeat_at > STATE_EVERY_S:
            self._beat(now)

    def _listen(self) -> None:
        """Count silences only as far as the broker was heard, and say when it was not."""
        before, heard = self._heard, self._client.heard
        self._heard, self._pipeline.heard_until = heard, heard.until
        if heard.away_s > before.away_s:
            self._pipeline.away(heard.away_s - before.away_s)
            self._reporter.was_away("offline", heard.offline_s - before.offline_s, time.time())
            self._reporter.was_away("asleep", heard.asleep_s - before.asleep_s, time.time())

    def _take(self, messages: list[Message]) -> None:
        """Hops 2 to 8 of some messages; what people ask for goes before readings that came in the same moment."""
        readings: list[Message] = []
        for message in messages:
            if self._is_ours(message):
                self._telemetry.ignored("own")
            else:
                readings.append(message)
        self._scoring.take_many(readings)

    def _is_ours(self, message: Message) -> bool:
        """Whether a message is meant for the daemon itself; then it is heeded."""
        if self._home is not None and self._home.take(message.topic, message.payload, retained=message.retained):
            return True
        if self._feedback is not None and message.topic == self._feedback.topic:
            self._feedback.take(message.payload, retained=message.retained)
            return True
        if message.retained and message.topic.startswith(self._client.topic("state", "")):
            self._scoring.recall(message.payload)
            return True
        return False

    def _pass_time(self, now: float) -> None:
        """Rows that are due by time alone, streams that have stopped, and a wall clock that was set."""
        if delta_s := self._pipeline.set_clock(self._clock.offset_s):
            log.warning("the wall clock moved by %.1f s; streams stamped on receipt follow it", delta_s)
            self._telemetry.clock_step()
            self._trust.moved(delta_s, self._streams.values())
        deque(self._scoring.pass_time(now), 0)

    def _hear_of_losses(self) -> bool:
        """Hear what became of events at the broker, and let states say so; return whether any was lost."""
        lost = taken = False
        said = set()
        settled = self._client.delivery.settled
        while settled:
            payload, why = settled.popleft()
            if (name := self._reporter.settle(payload, why)) is not None:
                said.add(name)
                lost, taken = lost or bool(why), taken or not why
        if taken:
            self._reporter.say_again(anew=False)
        for name in said & self._streams.keys():
            self._reporter.state(self._streams[name], force=True)
        return lost

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
        self._scoring.configure(self._config)
        self._telemetry.memory_budget(capacity(new.retrain).budget_bytes)
        if new.log.level != old.log.level:
            logging.getLogger().setLevel(new.log.level.upper())
        log.info("the configuration was read again%s", f"; after a restart: {', '.join(later)}" if later else "")

    # -- what people see ---------------------------------------------------------------------------------------------

    def _beat(self, now: float) -> None:
        """Once a second: threads, counters kept elsewhere, the snapshot, the watchdog."""
        self._listen_to_commands_again()
        self._watch.look(*(part.thread for part in (self._client, self._web, self._control) if part is not None))
        for tally in self._tallies:
            tally.look()
        if self._hear_of_losses():
            self._keep_broker_state(urgent=True)
        if self._client.connected and now - self._asked_again_at > _ASK_AGAIN_S:
            self._asked_again_at = now
            self._reporter.say_again(anew=False, most=1)
        self._telemetry.undecided(self._pipeline.undecided)
        wall = time.time()
        if abs(self._clock.offset_s - self._pipeline.offset_s) <= CLOCK_STEP_S:  # else it has just been set
            self._trust.look(wall, monotonic())
        self._orders.beat(now, wall)
        self._telemetry.trainings(self._orders.rounds.going, self._orders.rounds.waiting)
        self._offline.look(self._client.connected, now, wall)
        if any(stream.has_stopped(now) for stream in self._streams.values()):
            self._client.ask_for_a_sign()  # is it the stream that is silent, or the broker?
        for stream in self._streams.values():
            self._telemetry.stream_state(stream.name, stream.state)
            self._telemetry.causes(stream.name, stream.causes())
            self._reporter.waits(stream, now)
            if self._home is not None:
                self._home.update(stream, now, silenced=self._orders.silenced(stream.name) is None)
        if self._home is not None:
            self._home.keep(self._streams.keys())
            self._home.step(now)
        self._telemetry.silences(len(self._orders.silences.active(wall)))
        self._viewer.heartbeat_at = time.monotonic()
        if now - self._trimmed_at > _TRIM_EVERY_S:
            self._trimmed_at = now
            return_memory()
        self._notifier.watchdog()
        self._notifier.status(status_line(self._streams.values(), self._client))
