"""What people ask of streams of one partition: answers to alerts, silences, trainings, other models.

A request is a message of the partition.  So it waits for its owner, whoever that is, and comes in its order between the
rows; what its effects had reached when an owner died counts, and else its successor carries it out again.  It is
carried out by the code of a daemon (`training.operations`), and answered once what it has changed is saved.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from gon_edge.daemon.scoring import Scoring
from gon_edge.errors import GonEdgeError, InputError, UnreachableError
from gon_edge.fleet.connection import Errors
from gon_edge.fleet.jetstream import Delivered, Fleet
from gon_edge.fleet.rows import KeptRows
from gon_edge.fleet.saved import Known, OwnerError, Saved, version_of
from gon_edge.fleet.training import model_bytes
from gon_edge.training.answers import answers
from gon_edge.training.job import Order
from gon_edge.training.operations import carry_out

log = logging.getLogger(__name__)

_ANSWERS_SHOWN = 20  # of a partition, by `gon-edge fleet status`.  Not critical: a page full
_LOOK_BACK = ("feedback", "missed", "accept")  # these are about rows, which may be older than the takeover
NOT_HERE = ("reload-model", "rename")  # a name chooses the partition, and no folder of models is anybody's


class Reply:
    """Who has asked, as the client of an operation: a `training.site.Client`.

    Parameters
    ----------
    to : str
        Subject that hears what comes of it, as JSON that a `links.control.Request` would send.
    sequence : int
        Of the request's message.
    stream : str
        That it is about; empty for all.
    result : dict, optional
        The answer, once there is one.
    """

    gone = False

    def __init__(self, to: str, sequence: int, stream: str, result: dict[str, Any] | None = None) -> None:
        self.to, self.sequence, self.stream = to, sequence, stream
        self.result = result
        self._progress: list[dict[str, Any]] = []

    def tell(self, **progress: Any) -> None:
        """Take what happens on the way; of words of the same kind the newest counts."""
        self._progress = [told for told in self._progress if told.keys() != progress.keys()] + [progress]

    def answer(self, **result: Any) -> None:
        """Take the result."""
        self.result = {"ok": True, **result}

    def refuse(self, error: GonEdgeError | str) -> None:
        """Take an error."""
        code = error.exit_code if isinstance(error, GonEdgeError) else 1
        self.result = {"ok": False, "error": str(error), "exit_code": code}

    def told(self) -> list[bytes]:
        """Return what to send now; an empty progress is a sign of life."""
        told, self._progress = [{"progress": each} for each in self._progress], []
        end = [self.result] if self.result is not None else [] if told else [{"progress": {}}]
        return [json.dumps(each, default=str).encode() for each in (*told, *end)]


class Requests:
    """The requests of one partition, for its owner.

    Parameters
    ----------
    fleet : Fleet
    number : int
        The partition.
    scoring : Scoring
        Its streams.
    rows : KeptRows
    saved : Saved

    Attributes
    ----------
    news : bool
        Whether something has changed that belongs to no single stream, and is not saved.
    """

    def __init__(self, fleet: Fleet, number: int, scoring: Scoring, rows: KeptRows, saved: Saved) -> None:
        self.news = False
        self._fleet, self._number, self._scoring, self._rows, self._saved = fleet, number, scoring, rows, saved
        self._open: list[Reply] = []
        self._answers: list[dict[str, Any]] = []
        self._has_alerts = False

    def resume(self, known: Mapping[str, int]) -> None:
        """Go on with what the owner before had kept; ``known`` has the sequence of each stream's state.

        What is not in the state of its stream yet comes again as a message.
        """
        owner, orders = self._saved.owner, self._scoring.orders
        self._answers = owner["answers"]
        for asked in owner["asked"]:
            if asked["stream"] and known.get(asked["stream"], 0) < asked["sequence"]:
                continue
            reply = Reply(asked["to"], asked["sequence"], asked["stream"], asked["result"])
            if asked["result"] is None:
                orders.rounds.ask([Order(**order) for order in asked["orders"]], reply, wait=True)
            self._open.append(reply)

    def state(self) -> dict[str, Any]:
        """Return what a successor must know, fit for JSON."""
        orders = self._scoring.orders
        asked = [
            {
                "to": reply.to,
                "sequence": reply.sequence,
                "stream": reply.stream,
                "result": reply.result,
                "orders": [asdict(order) for order in orders.rounds.asked_by(reply)],
            }
            for reply in self._open
        ]
        return {"silences": orders.silences.state(), "answers": self._answers, "asked": asked}

    async def take(self, message: Delivered, known: Known) -> str:
        """Carry out a request; the stream that it may have changed is returned, empty for none.

        One that the state of its stream knows was carried out by an owner before.
        """
        try:
            told = json.loads(message.data)
            asked, stream, to = dict(told["asked"]), str(told["stream"]), str(told["reply"])
        except (ValueError, KeyError, TypeError) as error:
            log.warning("partition %d: message %d is no request: %r", self._number, message.sequence, error)
            return ""
        if stream and stream in known:
            return ""
        reply = Reply(to, message.sequence, stream)
        self._open.append(reply)
        self.news = True
        try:
            return await self._carry_out(asked, reply)
        except OwnerError:
            raise
        except Errors as error:
            reply.refuse(UnreachableError(f"NATS: {error}; try again"))
        except Exception as error:  # else every worker in turn would end by it
            log.exception("partition %d: request %d is left out", self._number, message.sequence)
            reply.refuse(f"the worker failed: {error!r}; see its log")
        return ""

    async def _carry_out(self, asked: Mapping[str, Any], reply: Reply) -> str:
        do, stream, streams = asked.get("do"), reply.stream, self._scoring.pipeline.streams
        if do in NOT_HERE:
            reply.refuse(InputError(f"a fleet cannot {do}; see docs/fleet.md"))
            return ""
        await self._look_back(do, stream)
        there, before = dict(streams), streams.get(stream)
        carry_out(self._scoring.orders, asked, reply)
        for held in _held(reply.result or {}):  # the store here knows what came since the takeover
            held["models"] = [version_of(name) for name in self._saved.models.get(held["stream"], ())]
            held["rows"] = there[held["stream"]].rows
        if before is None:
            return ""
        log.info("stream %r: %s was asked for", stream, do)
        if stream not in streams:
            await self._remove(stream)
        elif before.model is not None:
            self._saved.use(stream, before.model.version)
        newest = [asdict(one) for one in answers(self._scoring.store, stream)[-1:]]
        if newest and newest[0] not in self._answers:
            self._answers = [*self._answers, *newest][-_ANSWERS_SHOWN:]
        return stream

    async def send(self) -> None:
        """Answer what is done, and say how far the rest is; raises `NatsError`."""
        for reply in list(self._open):
            for told in reply.told():
                await self._fleet.client.publish(reply.to, told)
            if reply.result is not None:
                self._open.remove(reply)
                self.news = True

    async def _look_back(self, do: Any, stream: str) -> None:
        """Bring here what the operation looks at and what an owner before has left in JetStream."""
        fleet, names = self._fleet, self._fleet.names
        if not self._has_alerts:
            self._has_alerts = True
            last = (await fleet.js.stream_info(names.events)).state.last_seq
            store, told = self._scoring.store, dict[str, Mapping[str, Any]]()
            async for message in fleet.read(names.events, names.events_of(self._number), 1, last):
                event = json.loads(message.data)
                if event["type"] != "takeover" and (event["id"] in told or store.alert(event["id"]) is None):
                    told[event["id"]] = event
            for event in told.values():
                store.add_alert(event)
        if do in _LOOK_BACK:
            await self._rows.recall([stream])
        if do == "rollback":
            for name in self._saved.models.get(stream, ())[1:]:
                copy = self._scoring.models.copy(stream, version_of(name))
                copy.write_bytes(await model_bytes(fleet, name))

    async def _remove(self, stream: str) -> None:
        """Delete what JetStream has of a stream that is removed, but for its state."""
        try:
            await self._rows.forget(stream)
            days = await self._fleet.js.key_value(self._fleet.names.days)
            await days.delete(self._fleet.names.state(self._number, stream))
        except Errors as error:
            log.warning("stream %r is removed, and some of its rows stay in JetStream: %s", stream, error)
        self._saved.dropped += self._saved.models.pop(stream, [])


def _held(result: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What an answer says that there is of streams."""
    return [*result.get("streams", ()), *([result["removed"]] if isinstance(result.get("removed"), dict) else ())]
