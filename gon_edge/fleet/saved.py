"""What is known of each stream of one partition, in JetStream: written by compare-and-set, read by the next owner.

A stream is written again some time after something has come of it.  A write that finds another revision than it left is
refused, and so shows that the partition has another owner.  An owner writes its own entry before any state: whoever has
lost the partition is refused there.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import math
from collections.abc import Iterable, Mapping
from typing import Any

from nats.js.errors import KeyNotFoundError, KeyWrongLastSequenceError
from nats.js.kv import KeyValue

from gon_edge.daemon.scoring import Scoring
from gon_edge.fleet.connection import Errors
from gon_edge.fleet.frozen import FrozenError, freeze, freeze_days, thaw, thaw_days
from gon_edge.fleet.jetstream import Fleet
from gon_edge.fleet.names import stream_of
from gon_edge.fleet.series import Series
from gon_edge.model.daily import columns
from gon_edge.state.folder import VERSIONS_KEPT
from gon_edge.stream.held import alert_json
from gon_edge.stream.stream import Stream

_AT_ONCE = 64  # writes under way; not critical
_MOST_BYTES = 900 << 10
"""Of a state; NATS takes messages of a mebibyte.  A larger one goes without what `frozen` has: windows begin anew."""


log = logging.getLogger(__name__)

KEPT = {
    "memory": "alerts",
    "columns": "columns",
    "drift": "drift",
    "answers": "answers",
    "habits": "habits",
    "looked": "looked",
}
"""Under which name a state has what the store of its owner keeps of a stream, and of what kind that is there."""


class OwnerError(Exception):
    """The partition has another owner."""


class Known:
    """Streams that have a message already, for `Pipeline.take`."""

    def __init__(self, until: dict[str, int]) -> None:
        self.until = until
        self.sequence = 0

    def __contains__(self, stream: object) -> bool:
        return self.until.get(str(stream), 0) >= self.sequence


class Saved:
    """The states of one partition.

    Parameters
    ----------
    fleet : Fleet
    number : int
        The partition.
    worker : str
        Who owns it now.
    series : Series

    Attributes
    ----------
    epoch : int
        Takeovers so far, this one included.
    models : dict of str to list of str
        Objects of the model each stream is scored by, and of those before it.
    dropped : list of str
        Objects of models that are no longer wanted.
    """

    def __init__(self, fleet: Fleet, number: int, worker: str, series: Series) -> None:
        self.epoch = 0
        self.models: dict[str, list[str]] = {}
        self.dropped: list[str] = []
        self.owner: dict[str, Any] = {
            "sequence": 0,
            "at": None,
            "alive": None,
            "leaders": [],
            "births": {},
            "together": {},
            "silences": [],
            "answers": [],
            "asked": [],
        }
        self._fleet, self._number, self._worker, self._series = fleet, number, worker, series
        self._states: KeyValue | None = None
        self._owners: KeyValue | None = None
        self._revisions: dict[str, int] = {}
        self._owner_revision = 0

    async def take(self, since: float) -> dict[str, dict[str, Any]]:
        """Become the owner, and read the states: the owner before is refused from here on.

        Raises
        ------
        OwnerError
            Another worker was quicker.
        NatsError
        """
        names = self._fleet.names
        self._states = await self._fleet.js.key_value(names.states)
        self._owners = await self._fleet.js.key_value(names.owners)
        with contextlib.suppress(KeyNotFoundError):
            entry = await self._owners.get(str(self._number))
            self.owner.update(json.loads(entry.value or b"{}"))
            self._owner_revision = entry.revision or 0
        self.epoch = int(self.owner.get("epoch", 0)) + 1
        self.owner = {**self.owner, "worker": self._worker, "epoch": self.epoch, "since": since}
        await self._write_owner()
        found: dict[str, dict[str, Any]] = {}
        kept = self._fleet.read(f"KV_{names.states}", f"$KV.{names.states}.{self._number}.>", 1, math.inf)
        async for state in kept:
            self._revisions[stream_of(state.subject.split(".", 3)[3])] = state.sequence
            if state.data:
                self._series.read_bytes.inc(len(state.data))
                value = json.loads(state.data)
                found[value["stream"]] = value
        self.models = {name: value["models"] for name, value in found.items() if value["models"]}
        return found

    def installed(self, stream: str, name: str) -> None:
        """Take the object of a stream's new model; some of those before it are kept, as on a device."""
        every = [name, *self.models.get(stream, ())]
        self.models[stream] = every[:VERSIONS_KEPT]
        self.dropped += every[VERSIONS_KEPT:]

    def use(self, stream: str, version: str) -> None:
        """Take a version of a stream's models as the one in use."""
        self.models[stream] = sorted(self.models.get(stream, []), key=lambda name: version_of(name) != version)

    async def keep(self, sequence: int, at: float | None, scoring: Scoring, more: Mapping[str, Any]) -> None:
        """Say from where a successor has to read, and what is of no single stream; raises as `take` does."""
        pipeline, wall = scoring.pipeline, self._fleet.time.now()
        self.owner.update(
            sequence=sequence, at=at, alive=wall, leaders=pipeline.groups.leaders, births=pipeline.births(wall),
            together=pipeline.silences.state(), **more,
        )  # fmt: skip
        await self._write_owner()

    async def leave(self) -> None:
        """Say that nobody owns the partition; raises as `take` does."""
        self.owner["worker"] = ""
        await self._write_owner()

    async def _write_owner(self) -> None:
        assert self._owners is not None
        try:
            self._owner_revision = await self._update(
                self._owners, str(self._number), json.dumps(self.owner).encode(), self._owner_revision
            )
        except KeyWrongLastSequenceError as error:
            self._series.refused.inc()
            raise OwnerError(f"partition {self._number} has another owner") from error

    async def _update(self, bucket: KeyValue, key: str, content: bytes, revision: int) -> int:
        """Write in place of a revision; return the new one.

        What is there instead may be this owner's own, of a write whose answer did not come.
        """
        try:
            return await bucket.update(key, content, last=revision)
        except KeyWrongLastSequenceError:
            there = await bucket.get(key)
            told = json.loads(there.value or b"{}")
            if (told.get("owner", told.get("worker")), told.get("epoch")) != (self._worker, self.epoch):
                raise
            return await bucket.update(key, content, last=there.revision)

    async def save(self, scoring: Scoring, names: list[str], sequence: int, states: dict[str, dict[str, Any]]) -> None:
        """Write what is known of some streams after a message; raises as `take` does."""
        scoring.orders.store_state(names)
        await self._write({name: self._state(scoring, name, sequence, states.get(name)) for name in names})
        if self.dropped:
            objects = await self._fleet.js.object_store(self._fleet.names.models)
            while self.dropped:
                name = self.dropped.pop()
                try:
                    await objects.delete(name)
                except Errors as error:  # it only takes some room
                    log.warning("the old model %s cannot be deleted: %s", name, error)

    async def forget(self, names: Iterable[str]) -> None:
        """Let go of streams that are no more; raises as `take` does."""
        for name in names:
            if name in self._revisions:
                await self._write({name: None})

    async def save_days(self, streams: Iterable[Stream]) -> None:
        """Write what the last week was like, of streams whose models look at that."""
        days = await self._fleet.js.key_value(self._fleet.names.days)
        for stream in streams:
            if stream.model is not None and columns(stream.model.features)[0].size:
                await days.put(self._fleet.names.state(self._number, stream.name), freeze_days(stream).encode())

    async def take_days(self, stream: Stream) -> None:
        """Let a stream know what its last week was like, where its model looks at that."""
        if stream.model is None or not columns(stream.model.features)[0].size:
            return
        days = await self._fleet.js.key_value(self._fleet.names.days)
        with contextlib.suppress(KeyNotFoundError, FrozenError):
            entry = await days.get(self._fleet.names.state(self._number, stream.name))
            thaw_days((entry.value or b"").decode(), stream)

    def _state(self, scoring: Scoring, name: str, sequence: int, told: dict[str, Any] | None) -> dict[str, Any]:
        stream = scoring.pipeline.streams[name]
        models = self.models.get(name, []) if stream.model is not None else []
        value = {
            "stream": name,
            "sequence": sequence,
            "owner": self._worker,
            "epoch": self.epoch,
            "model_version": stream.model.version if stream.model is not None else None,
            "model": models[0] if models else "",
            "models": models,
            "alerts": [alert_json(alert) for alert in stream.policy.active],
            "state": told,
            "rows": stream.rows,
            **{key: scoring.store.state(f"{kind}/{name}") for key, kind in KEPT.items()},
            "frozen": "",
        }
        with contextlib.suppress(FrozenError):
            value["frozen"] = freeze(stream)
        return value

    async def _write(self, values: Mapping[str, dict[str, Any] | None]) -> None:
        waiting = list(values.items())
        while waiting:
            some, waiting = waiting[:_AT_ONCE], waiting[_AT_ONCE:]
            done = await asyncio.gather(*(self._put(name, value) for name, value in some), return_exceptions=True)
            for failed in done:
                if isinstance(failed, KeyWrongLastSequenceError):
                    self._series.refused.inc()
                    raise OwnerError(f"partition {self._number} has another owner") from failed
                if isinstance(failed, BaseException):
                    raise failed

    async def _put(self, name: str, value: dict[str, Any] | None) -> None:
        """Write a state, an empty one for a stream that is no more: who deletes a key does not hear its revision."""
        assert self._states is not None
        content = b"" if value is None else json.dumps(value, separators=(",", ":")).encode()
        if value is not None and len(content) > _MOST_BYTES:
            content = json.dumps({**value, "frozen": ""}, separators=(",", ":")).encode()
        key = self._fleet.names.state(self._number, name)
        self._revisions[name] = await self._update(self._states, key, content, self._revisions.get(name, 0))
        self._series.saved.inc()
        self._series.saved_bytes.inc(len(content))


def version_of(name: str) -> str:
    """The version of the model in an object, `names`.

    Examples
    --------
    >>> version_of("pump=201.7.3-1-1")
    '7'
    """
    return name.partition(".")[2].rpartition(".")[0]


def go_on(stream: Stream, value: dict[str, Any]) -> None:
    """Let a stream that was just opened go on from its state, as if it had never been elsewhere.

    Raises
    ------
    FrozenError
        Another version has saved it: open it anew, and it goes on as after a restart.
    """
    if not value["frozen"]:
        stream.rows = int(value["rows"])
        return
    thaw(value["frozen"], stream)
    if stream.state == "training":
        stream.train_anew()
