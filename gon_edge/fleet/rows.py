"""Rows to learn from: kept in JetStream as their owner packs and marks them, and read back whole.

The store of a partition is scratch that begins empty with each takeover.  What it writes goes to the stream of rows, a
chunk a message; where rows are marked later, a mark follows, and whoever reads them obeys it.  So any worker can train,
and an owner that has to look at older rows, for a person or for a habit, brings those of one stream here.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Awaitable, Callable, Collection

from gon_edge.events import Row
from gon_edge.fleet.jetstream import Fleet
from gon_edge.state.chunk import decode
from gon_edge.state.store import Store

Alive = Callable[[], Awaitable[None]]

log = logging.getLogger(__name__)

_MARK = b"mark"  # first line of a message that marks rows; that of a chunk is a list
_ROLLUP = {"Nats-Rollup": "sub"}  # a message in place of all before it under its subject


class KeptRows:
    """The rows of one partition, here and in JetStream.

    Parameters
    ----------
    fleet : Fleet
    partition : int
    store : Store
        Of its owner, empty.
    alive : callable
        Called now and then while many rows are read.
    """

    def __init__(self, fleet: Fleet, partition: int, store: Store, alive: Alive) -> None:
        self._fleet, self._partition, self._store, self._alive = fleet, partition, store, alive
        self._chunk = 0  # the newest one that JetStream has
        self._marks: list[tuple[str, float, float, bool]] = []
        self._whole: set[str] = set()  # streams whose older rows are here as well
        store.marked = lambda *mark: self._marks.append(mark)

    async def send(self) -> None:
        """Send what the store has written, and what was marked, since the last time; raises `NatsError`."""
        names = self._fleet.names
        for number, stream, features, payload in self._store.packed(self._chunk):
            message = features.encode() + b"\n" + payload
            await self._fleet.js.publish(names.rows_of(self._partition, stream), message)
            self._chunk = number
        while self._marks:
            stream, *mark = self._marks[0]
            message = _MARK + b"\n" + json.dumps(mark).encode()
            await self._fleet.js.publish(names.rows_of(self._partition, stream), message)
            del self._marks[0]

    async def recall(self, streams: Collection[str]) -> None:
        """Bring the older rows of streams here that were kept before the takeover; raises `NatsError`."""
        wanted = [stream for stream in streams if stream not in self._whole]
        if not wanted:
            return
        now = self._fleet.time.now()
        self._store.flush(now)
        await self.send()
        for stream in wanted:
            self._store.remove_rows(stream, now)  # JetStream has them, and they are read in their order
            await fetch(self._fleet, self._partition, stream, self._store, self._alive)
            self._whole.add(stream)
        self._marks.clear()  # they were read
        self._chunk = self._store.newest_chunk()

    async def forget(self, stream: str) -> None:
        """Delete the rows of a stream that is no more; raises `NatsError`."""
        self._whole.discard(stream)
        subject = self._fleet.names.rows_of(self._partition, stream)
        await self._fleet.js.publish(subject, _MARK + b"\n[0, 0, false]", headers=_ROLLUP)


async def _patient() -> None:
    """Nobody waits for a sign of life."""


async def fetch(fleet: Fleet, partition: int, stream: str, store: Store, alive: Alive = _patient) -> None:
    """Put every row of a stream that JetStream has into a store, and write it; raises `NatsError`."""
    names = fleet.names
    last = (await fleet.js.stream_info(names.rows)).state.last_seq
    async for message in fleet.read(names.rows, names.rows_of(partition, stream), 1, last):
        await alive()
        head, _, payload = message.data.partition(b"\n")
        try:
            if head == _MARK:
                since, until, quarantined = json.loads(payload)
                (store.quarantine if quarantined else store.release)(stream, since, until)
                continue
            features = tuple(json.loads(head))
            chunk = decode((stream,), features, payload)
        except (ValueError, TypeError) as error:
            log.warning("stream %r: a chunk of its rows cannot be read: %s", stream, error)
            continue
        for i, timestamp in enumerate(chunk.timestamps.tolist()):
            values = chunk.values[i]
            row = Row(stream, timestamp, features, values, values != values, bool(chunk.restart[i]))
            store.add_row(row, bool(chunk.quarantined[i]), 0.0)
    store.flush(0.0)
