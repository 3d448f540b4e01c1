"""What became of every row that simulated devices published: counted where it lies, not where somebody says it went.

Three places know of a row, each by itself: the devices know what they published and the broker acknowledged; JetStream
knows what is in the telemetry stream, by its subject; and the state a worker has saved of a device says how many rows
it has judged.  All counts are by device, so that a row lost here cannot hide one doubled there.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

from gon_edge.errors import GonEdgeError
from gon_edge.fleet.connection import Errors
from gon_edge.fleet.devices import device_name
from gon_edge.fleet.jetstream import Fleet
from gon_edge.fleet.look import Look, entries
from gon_edge.fleet.names import stream_of

_PAGE = 100_000  # subjects in one answer of JetStream's API
_PATIENCE_S = 60.0  # not critical: longer than a takeover on a busy machine
_SETTLED_S = 2.5  # not critical: two signs of life and a little
_LOOK_EVERY_S = 0.5  # not critical


@dataclass(frozen=True, slots=True)
class Account:
    """Rows of all devices, from sending to verdict.

    Attributes
    ----------
    sent, acknowledged : int
        Published by the devices; of these, the broker has acknowledged so many.
    repeated : int
        Messages that are in the telemetry stream twice, as QoS 1 allows: a bridge had no answer and sent them again.
    scored : int
        Rows with a verdict.
    late : int
        Rows whose message came after their tick was over: they are in the stream, and have no verdict of their own.
    waiting : int
        Rows in the telemetry stream that nobody has judged yet: whoever owns their partition next will.
    lost : int
        Rows acknowledged that have no verdict and will have none, and which were not late.
    doubled : int
        Verdicts beyond one a row.
    """

    sent: int
    acknowledged: int
    repeated: int
    scored: int
    late: int
    waiting: int
    lost: int
    doubled: int


def account(
    rows: Sequence[int],
    acknowledged: int,
    stored: Sequence[Stored],
    judged: Sequence[int],
    *,
    late: int = 0,
    waiting: int = 0,
) -> Account:
    """Compare what three places know.

    Parameters
    ----------
    rows : sequence of int
        Rows each device has published.
    acknowledged : int
        Rows of all devices that the broker has acknowledged.
    stored : sequence of Stored
        Of each device in the telemetry stream.
    judged : sequence of int
        Rows of each device with a verdict.
    late : int
        Rows that the workers have found too late for their tick.
    waiting : int
        Messages that no worker has come to yet.

    Examples
    --------
    >>> account(rows=[3, 3], acknowledged=6, stored=[Stored(3, 3), Stored(4, 3)], judged=[2, 4])
    Account(sent=6, acknowledged=6, repeated=1, scored=6, late=0, waiting=0, lost=1, doubled=1)
    """
    sent = sum(rows)
    # A row that never came may have a verdict all the same: the one before is held in its place.
    missing = sum(
        max(0, count - there.rows) + max(0, there.rows - seen)
        for count, there, seen in zip(rows, stored, judged, strict=True)
    )
    # What the broker has not acknowledged may be lost, by what QoS 1 says.
    excused = min(missing, sent - acknowledged)
    waiting = min(waiting, missing - excused)
    late = min(late, missing - excused - waiting)
    return Account(
        sent=sent,
        acknowledged=acknowledged,
        repeated=sum(there.messages - there.rows for there in stored),
        scored=sum(judged),
        late=late,
        waiting=waiting,
        lost=missing - excused - waiting - late,
        doubled=sum(max(0, seen - count) for count, seen in zip(rows, judged, strict=True)),
    )


class Stored(NamedTuple):
    """What the telemetry stream has of a device: messages, and rows among them, each once."""

    messages: int
    rows: int


async def _messages(fleet: Fleet) -> dict[str, tuple[str, int]]:
    """Subject of each device, and how many messages of it the telemetry stream has."""
    found: dict[str, tuple[str, int]] = {}
    offset, total = 0, 1
    while offset < total:
        asked = {"subjects_filter": ">", "offset": offset}
        answer = await fleet.request(f"STREAM.INFO.{fleet.names.telemetry}", asked)
        subjects = answer["state"].get("subjects") or {}
        found.update({each.rsplit(".", 1)[1]: (each, count) for each, count in subjects.items()})
        offset, total = offset + _PAGE, answer.get("total", 0)
    return found


async def stored_rows(fleet: Fleet, rows: Sequence[int]) -> list[Stored]:
    """Return what the telemetry stream holds of each device.

    Parameters
    ----------
    fleet : Fleet
    rows : sequence of int
        Rows each device has published: where the server counts another number of messages, they are read one by one.

    Raises
    ------
    NatsError
    """
    last = int((await fleet.request(f"STREAM.INFO.{fleet.names.telemetry}"))["state"]["last_seq"])
    found, stored = await _messages(fleet), []
    for number, count in enumerate(rows):
        subject, messages = found.get(device_name(number), ("", 0))
        distinct = messages
        if messages not in (0, count):
            read = fleet.read(fleet.names.telemetry, subject, 1, last)
            distinct = len({json.loads(message.data)["time"] async for message in read})
        stored.append(Stored(messages, distinct))
    return stored


async def judged_rows(fleet: Fleet, devices: int) -> list[int]:
    """Return how many rows of each device have a verdict, as the workers have saved it; 0 where they have not.

    Raises
    ------
    NatsError
    """
    found = dict.fromkeys((device_name(number) for number in range(devices)), 0)
    for key, state in (await entries(fleet, fleet.names.states)).items():
        device = stream_of(key.split(".", 1)[1])
        if device in found:
            found[device] = int(state["rows"])
    return list(found.values())


async def waiting_rows(fleet: Fleet) -> int:
    """Return how many messages the next owner of each partition would read, once all workers have ended.

    Raises
    ------
    NatsError
    """
    owners, names = await entries(fleet, fleet.names.owners), fleet.names
    waiting = 0
    for number in range(fleet.settings.partitions):
        first = int(owners.get(str(number), {}).get("sequence", 0)) + 1
        read = fleet.read(names.telemetry, names.partition(number), first, math.inf)
        waiting += len([message.sequence async for message in read])
    return waiting


async def settle(fleet: Fleet, rows: Sequence[int], look: Callable[[], Awaitable[Look | None]]) -> list[Stored]:
    """Wait until all rows are stored and judged, or for a minute nothing has come of it; return what is stored.

    Workers say once a second how far they are, so a moment in which nothing waits is not enough.

    Parameters
    ----------
    fleet : Fleet
    rows : sequence of int
        Rows each device has published.
    look : callable
        Looks at the fleet; ``None`` while NATS is away.

    Raises
    ------
    GonEdgeError
        NATS was away all the time.
    """
    least, moved_at, since = math.inf, time.monotonic(), math.inf
    stored: list[Stored] | None = None
    while time.monotonic() - moved_at < _PATIENCE_S:
        with contextlib.suppress(*Errors):
            there = await _messages(fleet)
            coming = sum(max(0, count - there.get(device_name(i), ("", 0))[1]) for i, count in enumerate(rows))
            seen = await look()
            left = math.inf if seen is None else coming + seen.lag
            if left < least:
                least, moved_at = left, time.monotonic()
            since = min(since, time.monotonic()) if left == 0 else math.inf
            if time.monotonic() - since >= _SETTLED_S:
                stored = await stored_rows(fleet, rows)
                if sum(each.rows for each in stored) == sum(rows):
                    return stored
        await asyncio.sleep(_LOOK_EVERY_S)
    if stored is None:
        with contextlib.suppress(*Errors):
            stored = await stored_rows(fleet, rows)
    if stored is None:
        raise GonEdgeError("the rows cannot be counted: NATS is away")
    return stored


class Unscored:
    """How long any partition went without a verdict while its devices published.

    Seen from outside, by what workers say once a second, so it is longer than the truth by up to two seconds.

    Attributes
    ----------
    longest_s : float
    """

    def __init__(self) -> None:
        self.longest_s = 0.0
        self._since: dict[int, tuple[tuple[int, int], float]] = {}

    def see(self, look: Look) -> None:
        """Take a look at the fleet."""
        for partition in look.partitions:
            come = (partition.epoch, partition.rows)
            before, since = self._since.get(partition.number, ((0, 0), look.at))
            if partition.worker and partition.rows and come != before:
                self.longest_s = max(self.longest_s, look.at - since)
                self._since[partition.number] = (come, look.at)
            elif partition.number in self._since:
                self.longest_s = max(self.longest_s, look.at - since)


def result(counted: Account, look: Look, takeovers: int, longest_unscored_s: float) -> dict[str, Any]:
    """Return what a run comes to, for a script."""
    found: Mapping[str, Any] = asdict(counted)
    return {
        **found,
        "alerts": look.alerts_raised,
        "takeovers": takeovers,
        "longest_unscored_s": round(longest_unscored_s, 1),
    }
