"""Where people reach a fleet: each worker takes what commands ask on its machine to whoever owns the stream.

The control socket is that of a daemon, in the folder of the workers of a machine; one of them listens at a time.  A
request goes to the partition of its stream as a message (`requests`), or to all partitions where it names no stream,
and its answer comes back by NATS.  Nothing is carried out here.
"""

from __future__ import annotations

import asyncio
import fcntl
import json
import logging
import time
from collections.abc import Iterable, Mapping
from operator import itemgetter
from pathlib import Path
from typing import IO, Any

from nats.aio.client import Client as Nats
from nats.errors import TimeoutError as NoMessage

from gon_edge.errors import GonEdgeError, InputError, StoreError, UnreachableError
from gon_edge.fleet.connection import Errors
from gon_edge.fleet.jetstream import Fleet
from gon_edge.fleet.names import stream_of
from gon_edge.links.control import FLEET_LOCK, ControlServer
from gon_edge.process.logs import Seldom
from gon_edge.training.operations import unknown_stream
from gon_edge.training.site import Client

log = logging.getLogger(__name__)

_POLL_S = 0.1  # not critical: as a daemon looks between two rows
_TELL_EVERY_S = 5.0  # a command gives up on who says nothing for half a minute
_SILENCE_S = 60.0
"""An owner that works says how far it is each second.  Not critical: two takeovers, and some lag."""

_Addressed = tuple[int, Mapping[str, Any], str]
_OF_ALL = ("silences", "streams")


class Desk:
    """Takes requests to partitions, and answers back.

    Parameters
    ----------
    fleet : Fleet
    client : Client
        Connected to NATS.
    state_dir : Path
        Of the workers of this machine.
    """

    def __init__(self, fleet: Fleet, client: Nats, state_dir: Path) -> None:
        self._fleet, self._client, self._state_dir = fleet, client, state_dir
        self._tasks: set[asyncio.Task[None]] = set()
        self._seldom = Seldom(log)

    async def run(self) -> None:
        """Listen to commands for ever, when no other worker of this machine does."""
        with (self._state_dir / FLEET_LOCK).open("ab") as lock:
            while not _locked(lock):
                await asyncio.sleep(1.0)
            control: ControlServer | None = None
            try:
                while True:
                    if control is None or not control.path.exists():
                        control = self._listen(control)
                    while control is not None and control.requests:
                        request = control.requests.popleft()
                        self.ask(request.asked, request)
                    await asyncio.sleep(_POLL_S if control is not None else 1.0)
            finally:
                if control is not None:
                    control.stop()

    def _listen(self, before: ControlServer | None) -> ControlServer | None:
        if before is not None:
            before.stop()
        try:
            control = ControlServer(self._state_dir)
            control.start()
        except (StoreError, OSError) as error:
            self._seldom.say("control", logging.WARNING, f"commands cannot reach this worker: {error}")
            return None
        return control

    def ask(self, asked: Mapping[str, Any], client: Client) -> None:
        """Take a request to where it belongs; the client hears what comes of it."""
        task = asyncio.create_task(self._serve(asked, client))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, asked: Mapping[str, Any], client: Client) -> None:
        try:
            client.answer(**await self._ask_each(await self._addressed(asked, client), client))
        except GonEdgeError as error:
            client.refuse(error)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            client.refuse(f"not a request: {error!r}")
        except Errors as error:
            client.refuse(UnreachableError(f"NATS: {error}; see fleet.servers"))

    async def _ask_each(self, addressed: Iterable[_Addressed], client: Client) -> dict[str, Any]:
        each = [self._ask(number, what, stream, client) for number, what, stream in addressed]
        return _together(await asyncio.gather(*each))

    def _to_all(self, asked: Mapping[str, Any]) -> list[_Addressed]:
        return [(number, asked, "") for number in range(self._fleet.settings.partitions)]

    async def _addressed(self, asked: Mapping[str, Any], client: Client) -> list[_Addressed]:
        """Partitions with what is asked of each, and the stream that is meant there; empty for all of them."""
        if asked["do"] in _OF_ALL:
            return self._to_all(asked)
        streams = await self.streams()
        if asked["do"] == "retrain":
            wanted = list(dict.fromkeys(asked.get("streams") or ()))
            if not wanted:
                listed = await self._ask_each(self._to_all({"do": "streams"}), client)
                wanted = [one["stream"] for one in listed["streams"] if one["stream"] in streams]
            if asked.get("rows_file") or asked.get("dry_run"):
                raise InputError(
                    "a fleet learns from the rows it keeps, on any worker: --from and --dry-run need a daemon"
                )
            return [(_of(name, streams), {**asked, "streams": [name], "wait": True}, name) for name in wanted]
        name = asked["alert"] if asked["do"] == "feedback" else asked["stream"]
        if asked["do"] == "feedback" and name not in streams:
            name = max((each for each in streams if name.startswith(f"{each}-")), key=len, default=name)
        return [(_of(name, streams), asked, name)]

    async def streams(self) -> dict[str, int]:
        """The partition of each stream of which a state is, or was, saved: what is empty now has its name still."""
        bucket = f"KV_{self._fleet.names.states}"
        asked = {"subjects_filter": f"$KV.{self._fleet.names.states}.>"}
        found: dict[str, int] = {}
        while True:
            info = await self._fleet.request(f"STREAM.INFO.{bucket}", {**asked, "offset": len(found)})
            for subject in info["state"].get("subjects") or ():
                *_, number, key = subject.split(".")
                found[stream_of(key)] = int(number)
            if len(found) >= int(info.get("total", 0)):
                return found

    async def _ask(self, number: int, asked: Mapping[str, Any], stream: str, client: Client) -> dict[str, Any]:
        """Have the owner of a partition carry something out; its answer.

        Raises
        ------
        GonEdgeError
            It refuses, or nobody owns the partition.
        NatsError
        """
        inbox = self._client.new_inbox()
        replies = await self._client.subscribe(inbox)
        try:
            message = json.dumps({"asked": asked, "stream": stream, "reply": inbox}).encode()
            await self._fleet.js.publish(self._fleet.names.ask(number), message)
            heard_at = time.monotonic()
            while True:
                try:
                    told = json.loads((await replies.next_msg(timeout=_TELL_EVERY_S)).data)
                except NoMessage:
                    if time.monotonic() - heard_at > _SILENCE_S + self._fleet.settings.takeover_s:
                        raise UnreachableError(
                            f"partition {number} does not answer; what was asked is kept, and done when one of "
                            "its workers comes to it; see gon-edge fleet status"
                        ) from None
                    client.tell(queued=f"the worker of partition {number}")
                    continue
                heard_at = time.monotonic()
                if "progress" not in told:
                    return _result(told)
                if told["progress"]:
                    client.tell(**told["progress"])
        finally:
            await replies.unsubscribe()


def _result(told: dict[str, Any]) -> dict[str, Any]:
    if told.pop("ok"):
        return told
    refused = GonEdgeError(told["error"])
    refused.exit_code = int(told["exit_code"])
    raise refused


def _of(name: str, streams: Mapping[str, int]) -> int:
    if name not in streams:
        raise unknown_stream(name, streams)
    return streams[name]


def _together(answers: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Answers of partitions as one: lists behind each other, of everything else the first."""
    found: dict[str, Any] = {}
    for answer in answers:
        for key, value in answer.items():
            found[key] = [*found.get(key, ()), *value] if isinstance(value, list) else found.get(key, value)
    for key, order in (("silences", "until"), ("streams", "stream")):
        if isinstance(listed := found.get(key), list):
            listed.sort(key=itemgetter(order))
    return found


def _locked(lock: IO[bytes]) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
