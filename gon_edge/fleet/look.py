"""What a fleet is doing, read from JetStream: who works, who owns which partition, how far each is, what is in alarm.

Workers say every second what they do; beside that stands what only the server knows: messages nobody has taken yet, and
how full the streams are.  Nothing here changes anything, and it needs no more rights than to read (`deploy/fleet`).
"""

from __future__ import annotations

import json
import math
from collections import deque
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from nats.js.errors import BucketNotFoundError, NotFoundError

from gon_edge.commands.text import cause_text, duration_text, silences_text, table, visible
from gon_edge.errors import UnreachableError
from gon_edge.fleet.connection import Errors
from gon_edge.fleet.grouping import Grouping
from gon_edge.fleet.jetstream import Fleet
from gon_edge.stream.silences import Silence

_MIB = 1 << 20
_PAGE = 256  # consumers in one answer of JetStream's API
_ANSWERS = 10  # shown to a person; not critical
_EVENTS = 10_000  # kept of events.  Not critical: 5 MB, and more than a day's


@dataclass(frozen=True, slots=True)
class Owned:
    """A partition.

    Attributes
    ----------
    number : int
    worker : str
        Who owns it and has given a sign of life; empty where nobody does.
    epoch : int
        Takeovers ever.
    since : float or None
        Unix seconds of the newest one.
    streams, rows : int
        Streams of readings, and rows judged since the takeover; 0 without an owner.
    lag : int
        Messages that nobody has judged yet; without an owner it may be more.
    redelivered : int
        Messages that the server has delivered again.
    latency_p99_s : float or None
        From the server's receipt of a message to its verdict, of the newest rows.
    """

    number: int
    worker: str = ""
    epoch: int = 0
    since: float | None = None
    streams: int = 0
    rows: int = 0
    lag: int = 0
    redelivered: int = 0
    latency_p99_s: float | None = None


@dataclass(frozen=True, slots=True)
class Working:
    """A worker.

    Attributes
    ----------
    name, host, version, url : str
    pid, memory_bytes : int
    at : float
        Unix seconds of its newest sign of life, by the server's clock.
    training : str
        Stream that it trains a model for; empty while it does not.
    partitions : tuple of int
    """

    name: str
    host: str
    pid: int
    version: str
    url: str
    at: float
    memory_bytes: int
    training: str
    partitions: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Kept:
    """A stream of JetStream: messages and bytes it holds, and servers that keep it, of which some may be behind."""

    name: str
    messages: int
    bytes: int
    most_bytes: int
    replicas: int
    behind: int


@dataclass(frozen=True, slots=True)
class Look:
    """A fleet at one moment.

    Attributes
    ----------
    at : float
        Unix seconds, by the server's clock.
    workers : tuple of Working
    partitions : tuple of Owned
    kept : tuple of Kept
    alerts : tuple of mapping
        The newest event of each alert that is open.
    alerts_raised : int
        Alerts that have begun, of those JetStream still knows.
    silences : tuple of mapping
        What nobody wants to hear of now, the first to end first.
    answers : tuple of mapping
        What people have said of alerts and rows, the newest first.
    """

    at: float
    workers: tuple[Working, ...]
    partitions: tuple[Owned, ...]
    kept: tuple[Kept, ...]
    alerts: tuple[Mapping[str, Any], ...] = ()
    alerts_raised: int = 0
    silences: tuple[Mapping[str, Any], ...] = ()
    answers: tuple[Mapping[str, Any], ...] = ()

    @property
    def lag(self) -> int:
        """Messages that nobody has judged yet."""
        return sum(each.lag for each in self.partitions)

    @property
    def streams(self) -> int:
        """Streams of readings that somebody watches."""
        return sum(each.streams for each in self.partitions)

    @property
    def orphans(self) -> tuple[int, ...]:
        """Partitions whose messages wait for an owner: the server gives a partition away with its next message."""
        return tuple(each.number for each in self.partitions if not each.worker and each.lag)

    @property
    def latency_p99_s(self) -> float | None:
        """Of the slowest partition."""
        return max((each.latency_p99_s for each in self.partitions if each.latency_p99_s is not None), default=None)


@dataclass(slots=True)
class Told:
    """Events of alerts, and what stands open after them.

    Attributes
    ----------
    open : dict of str to dict
        The newest event of each open alert, by its ``id``.
    raised, takeovers, repeated : int
        Alerts that began; takeovers; events that are there twice.
    sequence : int
        Of the newest one that was read.
    events : deque of dict
        The newest ones, oldest first.
    """

    open: dict[str, dict[str, Any]] = field(default_factory=dict)
    raised: int = 0
    takeovers: int = 0
    repeated: int = 0
    sequence: int = 0
    events: deque[dict[str, Any]] = field(default_factory=lambda: deque(maxlen=_EVENTS))
    _seen: set[tuple[str, str, float]] = field(default_factory=set)
    _grouping: Grouping = field(default_factory=Grouping)

    def take(self, event: dict[str, Any]) -> None:
        """Take an event, oldest first."""
        if event["type"] == "takeover":
            self.takeovers += 1
            return
        event = self._grouping.take(event)
        key = (event["id"], event["type"], event["timestamp"])
        self.repeated += key in self._seen
        self._seen.add(key)
        self.events.append(event)
        self.raised += event["type"] == "new"
        if event["type"] == "end":
            self.open.pop(event["id"], None)
        else:
            self.open[event["id"]] = event


class Eye:
    """Looks at a fleet, again and again.

    Parameters
    ----------
    fleet : Fleet
        Connected.
    """

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self.told = Told()

    async def look(self) -> Look:
        """Return the fleet as it is now.

        Raises
        ------
        UnreachableError
            There is no such fleet, or NATS is away.
        """
        names = self._fleet.names
        try:
            info = await self._fleet.request(f"STREAM.INFO.{names.telemetry}")
            said = await entries(self._fleet, names.workers)
            workers = [_working(each) for each in said.values()]
            owners = await entries(self._fleet, names.owners)
            partitions = await self._partitions(owners, said)
            await self._read_events()
            kept = [_kept(info)]
            for name in (names.events, names.rows, names.trainings):
                kept.append(_kept(await self._fleet.request(f"STREAM.INFO.{name}")))
            for bucket in (f"KV_{names.states}", f"OBJ_{names.models}"):
                kept.append(_kept(await self._fleet.request(f"STREAM.INFO.{bucket}")))
        except (BucketNotFoundError, NotFoundError) as error:
            raise UnreachableError(
                f"no fleet {names.prefix!r} here: {error}; start a worker, or see fleet.prefix"
            ) from None
        except Errors as error:
            raise UnreachableError(f"the fleet {names.prefix!r} cannot be seen: {error}; see fleet.servers") from None
        at = self._fleet.time.now()
        silences = [Silence(**one) for owner in owners.values() for one in owner.get("silences", ())]
        answers = [one for owner in owners.values() for one in owner.get("answers", ())]
        return Look(
            at=at,
            workers=tuple(sorted(workers, key=lambda each: each.name)),
            partitions=tuple(partitions),
            kept=tuple(kept),
            alerts=tuple(self.told.open.values()),
            alerts_raised=self.told.raised,
            silences=tuple(asdict(one) for one in sorted(silences, key=lambda one: one.until) if one.active(at)),
            answers=tuple(sorted(answers, key=lambda one: -one["at"])),
        )

    async def _partitions(
        self, owners: Mapping[str, Mapping[str, Any]], workers: Mapping[str, Mapping[str, Any]]
    ) -> list[Owned]:
        waiting = await self._waiting()
        partitions = []
        for number in range(self._fleet.settings.partitions):
            owner = owners.get(str(number), {})
            worker = str(owner.get("worker", ""))
            said = workers.get(worker, {}).get("partitions", {}).get(str(number))
            left, again, delivered = waiting.get(number, (0, 0, 0))
            if said is None:  # who left, or died, may have had messages that were not judged: at least one
                left += delivered > int(owner.get("sequence", delivered))
            partitions.append(
                Owned(
                    number=number,
                    worker=worker if said is not None else "",
                    epoch=int(owner.get("epoch", 0)),
                    since=owner.get("since"),
                    streams=said["streams"] if said else 0,
                    rows=said["rows"] if said else 0,
                    lag=max(left, said["lag"] if said else 0),
                    redelivered=again,
                    latency_p99_s=said["latency_p99_s"] if said else None,
                )
            )
        return partitions

    async def _waiting(self) -> dict[int, tuple[int, int, int]]:
        """Messages that were given to nobody yet, that were given again, and the newest one given, by partition."""
        names, found, offset = self._fleet.names, {}, 0
        numbers = {names.consumer(number): number for number in range(self._fleet.settings.partitions)}
        while True:
            page = await self._fleet.request(f"CONSUMER.LIST.{names.telemetry}", {"offset": offset})
            for each in page["consumers"] or ():
                if (number := numbers.get(each["name"])) is not None:
                    given = int(each["delivered"]["stream_seq"])
                    found[number] = (int(each["num_pending"]), int(each["num_redelivered"]), given)
            offset += _PAGE
            if offset >= page["total"]:
                return found

    async def _read_events(self) -> None:
        names, told = self._fleet.names, self.told
        info = await self._fleet.request(f"STREAM.INFO.{names.events}")
        last = int(info["state"]["last_seq"])
        async for message in self._fleet.read(names.events, f"{names.prefix}.events.>", told.sequence + 1, last):
            told.take(json.loads(message.data))
        told.sequence = last


async def entries(fleet: Fleet, bucket: str) -> dict[str, dict[str, Any]]:
    """Return everything a bucket holds, by key.

    Raises
    ------
    NatsError
    """
    kept = fleet.read(f"KV_{bucket}", f"$KV.{bucket}.>", 1, math.inf)
    found = {entry.subject.split(".", 2)[2]: entry.data async for entry in kept}
    return {key: json.loads(value) for key, value in found.items() if value}


def _working(said: Mapping[str, Any]) -> Working:
    return Working(
        name=said["worker"],
        host=said["host"],
        pid=said["pid"],
        version=said["version"],
        url=said["url"],
        at=said["at"],
        memory_bytes=said["memory_bytes"],
        training=said["training"],
        partitions=tuple(sorted(map(int, said["partitions"]))),
    )


def _kept(info: Mapping[str, Any]) -> Kept:
    state, config, cluster = info["state"], info["config"], info.get("cluster") or {}
    behind = sum(not replica.get("current", False) for replica in cluster.get("replicas") or ())
    return Kept(config["name"], state["messages"], state["bytes"], config["max_bytes"], config["num_replicas"], behind)


def look_json(look: Look) -> dict[str, Any]:
    """Return everything for a script."""
    return {**asdict(look), "lag": look.lag, "streams": look.streams, "orphans": look.orphans}


def look_text(look: Look) -> str:
    """Return a page for a person."""
    workers = [["WORKER", "HOST", "PARTITIONS", "STREAMS", "MEMORY", "VERSION", "SEEN", ""]]
    streams = {each.number: each.streams for each in look.partitions}
    for each in look.workers:
        workers.append(
            [
                each.name,
                each.host,
                ranges(each.partitions),
                str(sum(streams.get(number, 0) for number in each.partitions)),
                f"{each.memory_bytes / _MIB:.0f} MiB",
                each.version,
                f"{duration_text(max(0.0, look.at - each.at))} ago",
                f"trains {each.training}" if each.training else "",
            ]
        )
    partitions = [["PARTITION", "OWNER", "STREAMS", "LAG", "REDELIVERED", "TAKEOVERS", "99 % OF VERDICTS"]]
    for owned in look.partitions:
        latency = "-" if owned.latency_p99_s is None else f"within {1000.0 * owned.latency_p99_s:.0f} ms"
        partitions.append(
            [
                str(owned.number),
                owned.worker or "nobody",
                str(owned.streams),
                str(owned.lag),
                str(owned.redelivered),
                str(owned.epoch),
                latency,
            ]
        )
    kept = [["KEPT IN", "MESSAGES", "SIZE", "OF", "SERVERS"]]
    for stream in look.kept:
        behind = f", {stream.behind} behind" if stream.behind else ""
        kept.append(
            [
                stream.name,
                str(stream.messages),
                f"{stream.bytes / _MIB:.1f} MiB",
                f"{stream.most_bytes / _MIB:.0f} MiB" if stream.most_bytes > 0 else "-",
                f"{stream.replicas}{behind}",
            ]
        )
    alerts = [_alert_line(event) for event in sorted(look.alerts, key=lambda event: (event["group"], event["since"]))]
    head = f"{len(look.workers)} workers, {look.streams} streams of readings, {look.lag} messages wait, "
    head += f"{len(alerts)} alerts open"
    nobody = [f"nobody owns partition {ranges(look.orphans)}"] if look.orphans else []
    silences = silences_text([dict(one) for one in look.silences]).splitlines() if look.silences else []
    answers = [["ANSWERED", "IT WAS", "BY", "NOTE"]]
    answers += [[one["id"], one["answer"], one["by"], one["note"]] for one in look.answers[:_ANSWERS]]
    said = table(answers) if look.answers else []
    pages = [[head, *nobody], table(workers), table(partitions), table(kept), alerts, silences, said]
    return "\n\n".join("\n".join(page) for page in pages if page) + "\n"


def _alert_line(event: Mapping[str, Any]) -> str:
    causes = ", ".join(cause_text(cause) for cause in event["top_features"][:3]) or "cause unknown"
    joined = "" if event["group"] == event["id"] else f", with {event['group']}"
    return visible(f"{event['severity']} {event['kind']} on {event['stream']}: {causes} [{event['id']}{joined}]")


def ranges(numbers: tuple[int, ...]) -> str:
    """Return numbers in as few words as possible.

    Examples
    --------
    >>> ranges((0, 1, 2, 5, 7, 8))
    '0-2, 5, 7-8'
    >>> ranges(())
    '-'
    """
    runs: list[list[int]] = []
    for number in numbers:
        if runs and runs[-1][-1] == number - 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return ", ".join(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs) or "-"
