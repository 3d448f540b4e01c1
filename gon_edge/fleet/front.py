"""What people say by MQTT to a fleet: answers to alerts, and Home Assistant's switches and buttons.

One worker hears it, under the fleet's own name with the broker: the first by name of those that give a sign of life.
The session is kept by the broker, so that what is said while that one dies is heard by the next; where two take each
other's place for a moment, only one has the session.  Everything goes to the `Desk`, like what a command asks.
"""

from __future__ import annotations

import asyncio
import random
from dataclasses import replace
from functools import partial
from typing import Any

import gon_edge
from gon_edge.config.schema import Config
from gon_edge.daemon.orders import HomeAssistantsClient, wished
from gon_edge.fleet.desk import Desk
from gon_edge.links.feedback import Feedback
from gon_edge.links.homeassistant import HomeAssistant
from gon_edge.links.mqtt.client import MqttClient, own_topic
from gon_edge.links.mqtt.queue import Message
from gon_edge.links.prometheus import Telemetry
from gon_edge.process.clock import monotonic

_POLL_S = 0.1  # not critical: a person waits for it
_BATCH = 64  # messages taken at once; not critical


def home_of(config: Config, publish: Any, act: Any = None) -> HomeAssistant | None:
    """Home Assistant's picture of a fleet's streams; ``None`` where nobody wants one."""
    if not config.homeassistant.enabled:
        return None
    return HomeAssistant(
        config.homeassistant,
        node=config.fleet.prefix,
        version=gon_edge.__version__,
        topic=partial(own_topic, config.mqtt, config.fleet.prefix),
        publish=publish,
        act=act or (lambda name, wanted: None),
        now=monotonic(),
    )


class Front:
    """Hears what people say by MQTT, while this worker is the one.

    Parameters
    ----------
    config : Config
    desk : Desk
    telemetry : Telemetry
    """

    def __init__(self, config: Config, desk: Desk, telemetry: Telemetry) -> None:
        self._config, self._desk = config, desk
        self._client: MqttClient | None = None
        self._home = home_of(config, self._publish_kept, self._act)
        self._feedback: Feedback | None = None
        if config.mqtt.feedback:
            self._feedback = Feedback(
                topic=partial(own_topic, config.mqtt, config.fleet.prefix),
                publish=lambda topic, payload: self._client.publish(topic, payload) if self._client else None,
                ask=desk.ask,
                refused=telemetry.answer_refused,
            )

    async def run(self) -> None:
        """Heed what is heard, for ever."""
        try:
            while True:
                if self._client is not None:
                    for message in self._client.queue.get_batch(_BATCH, 0.0):
                        await self._take(message)
                await asyncio.sleep(_POLL_S)
        finally:
            await self.hear(False)

    async def hear(self, is_first: bool) -> None:
        """Begin to hear what is said, or leave it to another worker."""
        if self._home is None and self._feedback is None:
            return
        if not is_first and self._client is not None:
            client, self._client = self._client, None
            await asyncio.to_thread(client.stop)
        elif is_first and self._client is None:
            self._client = self._connect()
            self._client.start()
            if self._home is not None:
                self._home.start()

    def _connect(self) -> MqttClient:
        config, name = self._config, self._config.fleet.prefix
        wanted = [*(self._home.commands if self._home is not None else ())]
        wanted += [self._feedback.topic] if self._feedback is not None else []
        settings = replace(config.mqtt, client_id=f"{config.mqtt.client_id or 'gon-edge'}-{name}")
        return MqttClient(settings, node=name, subscriptions=tuple(wanted), rng=random.Random())  # noqa: S311  jitter

    async def _take(self, message: Message) -> None:
        if self._feedback is not None and message.topic == self._feedback.topic:
            self._feedback.take(message.payload, retained=message.retained)
        elif self._home is not None:
            self._home.know(await self._desk.streams())
            self._home.take(message.topic, message.payload, retained=message.retained)

    def _publish_kept(self, topic: str, payload: str) -> None:
        if self._client is not None:
            self._client.publish(topic, payload, retain=True)

    def _act(self, name: str, wanted: str) -> None:
        self._desk.ask(wished(name, wanted, self._config.homeassistant), HomeAssistantsClient())
