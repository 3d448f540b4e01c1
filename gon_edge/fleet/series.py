"""Series of a worker that a daemon does not have: partitions, their lag, and what came of takeovers.

Beside them a worker has every series of `links.prometheus`, for the streams that it owns now.
"""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge

RESULTS = ("stored", "repeated")
"""What JetStream makes of an event."""


class Series:
    """What a worker tells Prometheus of its partitions.

    Parameters
    ----------
    registry : CollectorRegistry
    partitions : int

    Attributes
    ----------
    owned, streams, lag, epoch : Gauge
        By partition; those of other workers' partitions are 0.
    redelivered, takeovers, lost : Counter
        By partition.
    connected : Gauge
    """

    def __init__(self, registry: CollectorRegistry, partitions: int) -> None:
        self._counters: list[Counter] = []

        def gauge(name: str, text: str, *labels: str) -> Gauge:
            return Gauge(f"gon_edge_fleet_{name}", text, labels, registry=registry)

        def counter(name: str, text: str, *labels: str) -> Counter:
            made = Counter(f"gon_edge_fleet_{name}", text, labels, registry=registry)
            self._counters.append(made)
            return made

        self.owned = gauge("partition_owned", "1 while this worker owns the partition.", "partition")
        self.streams = gauge("partition_streams", "Streams of readings of a partition owned here.", "partition")
        self.lag = gauge("partition_lag_messages", "Messages of a partition owned here, not judged yet.", "partition")
        self.epoch = gauge("partition_epoch", "Takeovers of a partition owned here, ever.", "partition")
        self.messages = counter("messages_total", "Messages taken from a partition.", "partition")
        self.redelivered = counter(
            "redelivered_total",
            "Messages read again from the stream: a worker had them before, or a connection that broke had taken them.",
            "partition",
        )
        self.takeovers = counter("takeovers_total", "Times this worker has taken a partition.", "partition")
        self.lost = counter(
            "lost_total",
            "Times a partition was lost to another worker, or to silence, before it was left.",
            "partition",
        )
        self.gone = counter(
            "gone_total", "Messages of a partition that were gone before they could be read.", "partition"
        )
        self.failed = counter(
            "failed_total", "Messages left out because judging them failed; see the log.", "partition"
        )
        self.refused = counter("writes_refused_total", "Writes refused because another worker owns the partition now.")
        self.saved = counter("states_saved_total", "States of streams written to JetStream.")
        self.saved_bytes = counter("states_saved_bytes_total", "Bytes of these states.")
        self.read_bytes = counter("states_read_bytes_total", "Bytes of states read at takeovers.")
        self.published = counter("events_total", "Events of alerts by what JetStream made of them.", "result")
        self.forwarded = counter("events_forwarded_total", "Events of alerts the broker has acknowledged.")
        self.trained = counter("trainings_total", "Trainings carried out for the fleet.")
        self.connected = gauge("nats_connected", "1 while there is a connection to NATS.")
        self.takeover_seconds = gauge("takeover_seconds", "Time the newest takeover took, up to its first new row.")
        for number in range(partitions):
            for labelled in (self.owned, self.streams, self.lag, self.epoch):
                labelled.labels(number).set(0)
            for counted in (self.messages, self.redelivered, self.takeovers, self.lost, self.gone, self.failed):
                counted.labels(number)
        for result in RESULTS:
            self.published.labels(result)

    def counts(self) -> dict[str, float]:
        """Every counter as it stands, those of all partitions and results added up, by name without what all share."""
        return {
            family.name.removeprefix("gon_edge_fleet_"): sum(sample.value for sample in family.samples)
            for counter in self._counters
            for family in counter.collect()
        }
