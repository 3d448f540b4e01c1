"""Every name a fleet has in JetStream: subjects, streams, buckets, consumers, keys, and what is kept under each.

All of them begin with ``fleet.prefix``, so that several fleets can share a server.  With the prefix ``fleet``:

- Stream ``fleet-telemetry``, subjects ``fleet.0.>`` to ``fleet.7.>``: messages of devices, each for ``retention``.  The
  levels after the partition are those of the topic, as NATS' MQTT gateway writes them (`topic_of`).  Its consumers
  ``partition-0`` to ``partition-7`` are pinned to one worker each; their pending messages are the lag.
  What people ask for is a message of its partition like any other, under ``fleet.PARTITION.$ask`` (`requests`).
- Stream ``fleet-events``, subjects ``fleet.events.PARTITION``: events of alerts as JSON, as they go out by MQTT, each
  once, and ``{"type": "takeover", "partition", "worker", "epoch", "timestamp"}`` where a partition has changed hands.
  Its consumer ``mqtt`` sends the former on to the broker of ``mqtt.url``.
- Stream ``fleet-rows``, subjects ``fleet.rows.PARTITION.KEY``: rows to learn from, a chunk a message, the newest of
  each stream of readings, and marks of rows that must not, or may, be learned after all (`rows`).
- Stream ``fleet-trainings``, subject ``fleet.trainings``: trainings that wait, for whoever has free memory; its
  consumer is ``workers``.  What came of one goes to the worker that asked.
- Bucket ``fleet-states``, key ``PARTITION.KEY``: what is known of one stream of readings, JSON: ``{"stream",
  "sequence", "owner", "epoch", "model_version", "model", "models": [it, and those before it], "alerts": [open events],
  "state": {the retained state message}, "rows", "memory", "columns", "drift", "answers", "habits", "looked",
  "frozen"}``.  ``sequence`` is that of the newest message that counts in it.  Empty for a stream that is no more.
- Bucket ``fleet-owners``, key ``PARTITION``: ``{"worker", "epoch", "since", "sequence", "at", "alive", "leaders",
  "births", "together": {which silent stream is told by which}, "silences", "answers": [the newest], "asked": [requests
  that are not answered yet]}``, Unix seconds; the epoch rises with each takeover, and ``worker`` is empty once one has
  left.  A successor reads the telemetry again from behind ``sequence``.
- Bucket ``fleet-workers``, key NAME: a sign of life every second or so, gone a while after a worker has ended:
  ``{"worker", "host", "pid", "version", "at", "url", "memory_bytes", "training", "partitions": {"3": {"epoch",
  "streams", "lag", "rows", "latency_p99_s"}}, "counts": {name of a series of `series`: total since its start}}``.
- Bucket ``fleet-days``, key ``PARTITION.KEY``: what the hours of the last week were like, where a model looks at that.
- Object store ``fleet-models``, object ``KEY.VERSION.N``: a model file; ``model`` of the state says which is in use.

KEY is the name of a stream of readings, as `key_of` writes it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

WAKE = "$wake"
"""Level of a message that only wakes a partition; no topic of a device begins so."""

ASK = "$ask"
"""Level of a message that asks for something: an answer to an alert, a silence, a training."""

GROUP = "workers"
"""The one priority group of each consumer of a partition."""


@dataclass(frozen=True, slots=True)
class Names:
    """The names of one fleet.

    Parameters
    ----------
    prefix : str
        ``fleet.prefix``.

    Examples
    --------
    >>> names = Names("fleet")
    >>> names.telemetry, names.partition(3), names.state(3, "pump 1")
    ('fleet-telemetry', 'fleet.3.>', '3.pump=201')
    """

    prefix: str

    @property
    def telemetry(self) -> str:
        """The stream of devices' messages."""
        return f"{self.prefix}-telemetry"

    @property
    def events(self) -> str:
        """The stream of alerts' events."""
        return f"{self.prefix}-events"

    @property
    def rows(self) -> str:
        """The stream of rows to learn from."""
        return f"{self.prefix}-rows"

    @property
    def trainings(self) -> str:
        """The work queue of trainings."""
        return f"{self.prefix}-trainings"

    @property
    def states(self) -> str:
        """The bucket of what is known of each stream of readings."""
        return f"{self.prefix}-states"

    @property
    def days(self) -> str:
        """The bucket of what the last week of each stream of readings was like."""
        return f"{self.prefix}-days"

    @property
    def owners(self) -> str:
        """The bucket of who owns each partition."""
        return f"{self.prefix}-owners"

    @property
    def workers(self) -> str:
        """The bucket of the workers' signs of life."""
        return f"{self.prefix}-workers"

    @property
    def models(self) -> str:
        """The object store of models."""
        return f"{self.prefix}-models"

    def partition(self, number: int) -> str:
        """Subjects of the messages of a partition."""
        return f"{self.prefix}.{number}.>"

    def wake(self, number: int) -> str:
        """Subject of a message that says nothing: with it the server gives a partition that nobody owns to somebody."""
        return f"{self.prefix}.{number}.{WAKE}"

    def ask(self, number: int) -> str:
        """Subject of what people ask of the streams of a partition."""
        return f"{self.prefix}.{number}.{ASK}"

    def events_of(self, partition: int) -> str:
        """Subject of the events of a partition."""
        return f"{self.prefix}.events.{partition}"

    def rows_of(self, partition: int, stream: str) -> str:
        """Subject of the rows of a stream of readings."""
        return f"{self.prefix}.rows.{partition}.{key_of(stream)}"

    @property
    def training(self) -> str:
        """Subject of trainings that wait."""
        return f"{self.prefix}.trainings"

    @staticmethod
    def consumer(partition: int) -> str:
        """The consumer of a partition."""
        return f"partition-{partition}"

    @staticmethod
    def state(partition: int, stream: str) -> str:
        """Key of what is known of a stream of readings."""
        return f"{partition}.{key_of(stream)}"


def key_of(stream: str) -> str:
    """The name of a stream of readings as one token of a subject or key: what is special is ``=`` and its bytes.

    Examples
    --------
    >>> key_of("hall.pump 1"), stream_of("hall=2epump=201")
    ('hall=2epump=201', 'hall.pump 1')
    """
    return re.sub(r"[^A-Za-z0-9_-]", lambda found: "".join(f"={byte:02x}" for byte in found[0].encode("utf-8")), stream)


def stream_of(key: str) -> str:
    """Inverse of `key_of`."""
    return re.sub(r"((?:=[0-9a-f]{2})+)", lambda found: bytes.fromhex(found[0].replace("=", "")).decode("utf-8"), key)


def topic_of(levels: str) -> str:
    """The MQTT topic of a subject's levels, as NATS' gateway makes subjects of topics.

    Examples
    --------
    >>> topic_of("telemetry.pump-1"), topic_of("plant.v1//2.flow"), topic_of("/.plant")
    ('telemetry/pump-1', 'plant/v1.2/flow', '/plant')
    """
    return "/".join("" if level == "/" else level.replace("//", ".") for level in levels.split("."))


def levels_of(topic: str) -> str:
    """Inverse of `topic_of`."""
    return ".".join("/" if not level else level.replace(".", "//") for level in topic.split("/"))
