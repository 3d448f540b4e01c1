"""Events of alerts from JetStream to the broker of ``mqtt.url``: one worker at a time, in their order, none left out.

An event is acknowledged in JetStream once the broker has acknowledged it.  Where that cannot be told, because worker or
broker ended in between, it is sent again: who listens tells it by ``id``, ``type`` and ``timestamp``.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from typing import Any

from gon_edge.config.schema import Config
from gon_edge.errors import GonEdgeError
from gon_edge.fleet.connection import Errors
from gon_edge.fleet.grouping import Grouping
from gon_edge.fleet.jetstream import Fleet, Pulls
from gon_edge.fleet.names import GROUP
from gon_edge.fleet.series import Series
from gon_edge.links.mqtt.client import own_topic
from gon_edge.links.publisher import Publisher
from gon_edge.process.logs import Seldom

log = logging.getLogger(__name__)

_PATIENCE_S = 2.0  # for a broker that went away, before the next look; not critical
_AT_ONCE = 64  # events on their way; not critical


class Forwarder:
    """Sends events on.

    Parameters
    ----------
    fleet : Fleet
    config : Config
    series : Series
    """

    def __init__(self, fleet: Fleet, config: Config, series: Series) -> None:
        self._fleet, self._settings, self._series = fleet, config.mqtt, series
        self._topic = own_topic(config.mqtt, config.fleet.prefix, "alert")
        self._publisher: Publisher | None = None
        self._grouping: Grouping | None = None  # of the events until the newest one sent
        self._seldom = Seldom(log)

    async def run(self) -> None:
        """Send for ever, while the server has no other worker for it."""
        pulls = Pulls(self._fleet, self._fleet.names.events, "mqtt", GROUP)
        await pulls.start()
        every_s, last = self._fleet.settings.takeover_s / 4.0, 0
        while True:
            try:
                await pulls.keep(every_s)
                if pulls.refused:  # by now another worker sends them
                    pulls.refused, pulls.pin = False, ""
                    pulls.waiting.clear()
                    self._grouping = None
                if not await pulls.wait(every_s):
                    await self._rest()
                    continue
                some = [pulls.waiting.popleft() for _ in range(min(_AT_ONCE, len(pulls.waiting)))]
                if self._grouping is None:
                    self._grouping = await self._read_groups(some[0].sequence - 1)
                fresh = [self._grouped(message.data) for message in some if message.sequence > last]
                while not await asyncio.to_thread(self._send, fresh):
                    await pulls.keep(every_s)
                    await asyncio.sleep(1.0)
                last = max(last, some[-1].sequence)
                for message in some:
                    await self._fleet.client.publish(message.reply, b"+ACK")
            except Errors as error:
                self._seldom.say("nats", logging.WARNING, f"events cannot be sent on: {error}")
                await asyncio.sleep(1.0)

    async def _read_groups(self, last: int) -> Grouping:
        """The groups of what was told before."""
        grouping, names = Grouping(), self._fleet.names
        async for message in self._fleet.read(names.events, f"{names.prefix}.events.>", 1, last):
            grouping.take(json.loads(message.data))
        return grouping

    def _grouped(self, event: bytes) -> bytes:
        assert self._grouping is not None
        return json.dumps(self._grouping.take(json.loads(event)), ensure_ascii=False).encode()

    async def _rest(self) -> None:
        """Let the connection go while there is nothing to send: a broker ends one that says nothing."""
        if self._publisher is not None:
            await asyncio.to_thread(self._close)

    def _send(self, events: list[bytes]) -> bool:
        """Send events; whether the broker has all of them."""
        alerts = [event for event in events if _is_alert(json.loads(event))]
        if not alerts:
            return True
        try:
            if self._publisher is None:
                self._publisher = Publisher(self._settings, patience_s=_PATIENCE_S)
            for event in alerts:
                self._publisher.send(self._topic, event)
            if self._publisher.drain():
                self._series.forwarded.inc(len(alerts))
                return True
            self._seldom.say("slow", logging.WARNING, "the broker does not acknowledge events; trying again")
        except GonEdgeError as error:
            self._seldom.say("broker", logging.WARNING, f"events cannot be sent on, and wait in JetStream: {error}")
        self._close()
        return False

    def _close(self) -> None:
        if self._publisher is not None:
            with contextlib.suppress(GonEdgeError, OSError):
                self._publisher.close()
            self._publisher = None


def _is_alert(event: dict[str, Any]) -> bool:
    return bool(event["type"] != "takeover")
