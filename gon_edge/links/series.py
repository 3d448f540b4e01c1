"""Series that rows touch, as plain numbers until somebody scrapes them: those of each stream, and durations.

The objects of prometheus_client have a lock for each number and check each call.  A row touched eight of them, which
took a tenth of its time, and the thirty of a stream held 25 KiB.  One thread writes here; what a scrape on another one
reads may be a row apart.  What the series mean stands in `prometheus`.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Iterator, Sequence

from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from gon_edge.events import ALERT_KINDS, ANSWERS, MESSAGE_RESULTS, STREAM_STATES, TRAINING_OUTCOMES, StreamState


class OfStream:
    """The numbers of one stream; what it does not have yet is 0 or NaN."""

    __slots__ = (
        "alerts",
        "answers",
        "features",
        "last_row",
        "missing",
        "model_version",
        "open",
        "rounds",
        "rows",
        "score",
        "state",
        "threshold",
        "trained_at",
    )

    def __init__(self) -> None:
        self.rows = 0
        self.last_row = 0.0
        self.score = self.threshold = math.nan
        self.missing = 0
        self.state: StreamState | None = None
        self.model_version: str | None = None
        self.trained_at = 0.0
        self.features: tuple[str, ...] = ()  # that have a contribution, a value and an expected value
        self.open: frozenset[str] = frozenset()  # kinds of alerts
        self.alerts: dict[str, int] = {}  # by kind
        self.answers: dict[str, int] = {}
        self.rounds: dict[str, int] = {}  # by outcome


class StreamSeries(Collector):
    """The series of all streams, by name."""

    def __init__(self) -> None:
        self.streams: dict[str, OfStream] = {}

    def of(self, name: str) -> OfStream:
        """The numbers of a stream, which begin with the first question."""
        series = self.streams.get(name)
        if series is None:
            series = self.streams[name] = OfStream()
        return series

    def collect(self) -> Iterator[Metric]:
        """Each family with its samples as they are now."""
        streams = list(self.streams.items())
        rows = CounterMetricFamily("gon_edge_rows", "Rows of the regular grid.", labels=["stream"])
        for name, series in streams:
            rows.add_metric([name], series.rows)
        yield rows
        for family, text, value in (  # one after the other: of a thousand streams each is some hundred KiB
            ("last_row_timestamp_seconds", "Unix time of the newest row.", "last_row"),
            ("anomaly_score", "Newest score; high is anomalous.", "score"),
            ("anomaly_threshold", "Threshold of the score.", "threshold"),
            ("missing_features", "Features silent for longer than is usual for them, or frozen.", "missing"),
        ):
            gauge = _gauge(family, text, "stream")
            for name, series in streams:
                gauge.add_metric([name], getattr(series, value))
            yield gauge
        state = _gauge("stream_state", "1 for the state a stream is in.", "stream", "state")
        for name, series in streams:
            for each in STREAM_STATES:
                state.add_metric([name, each], series.state == each)
        yield state
        active = _gauge("alert_active", "1 while an alert is open.", "stream", "kind")
        for name, series in streams:
            for kind in ALERT_KINDS:
                active.add_metric([name, kind], kind in series.open)
        yield active
        model = _gauge("model_info", "1 for the model in use.", "stream", "version")
        trained = _gauge("model_trained_timestamp_seconds", "Unix time of the model's training.", "stream")
        for name, series in streams:
            if series.model_version is not None:
                model.add_metric([name, series.model_version], 1)
                trained.add_metric([name], series.trained_at)
        yield from (model, trained)
        for family, text, label, values, counts in (
            ("alerts", "Alerts opened.", "kind", ALERT_KINDS, "alerts"),
            ("feedback", "What people have said of alerts.", "answer", ANSWERS, "answers"),
            ("retrain_rounds", "Trainings by outcome.", "outcome", TRAINING_OUTCOMES, "rounds"),
        ):
            counter = CounterMetricFamily(f"gon_edge_{family}", text, labels=["stream", label])
            for name, series in streams:
                for value in values:
                    counter.add_metric([name, value], getattr(series, counts).get(value, 0))
            yield counter


class Messages(Collector):
    """How many messages became what."""

    def __init__(self) -> None:
        self.counts: dict[str, int] = dict.fromkeys(MESSAGE_RESULTS, 0)

    def collect(self) -> Iterator[Metric]:
        """The family with its samples as they are now."""
        text = "Messages from the broker by what became of them."
        family = CounterMetricFamily("gon_edge_messages", text, labels=["result"])
        for result, count in self.counts.items():
            family.add_metric([result], count)
        yield family


class Durations(Collector):
    """How long something took, by buckets.

    Parameters
    ----------
    name, text : str
    edges : sequence of float
        Seconds; upper edges of the buckets, rising, but for the last one, which has none.
    """

    def __init__(self, name: str, text: str, edges: Sequence[float]) -> None:
        self._name, self._text = f"gon_edge_{name}", text
        self._edges = edges
        self._counts = [0] * (len(edges) + 1)
        self.sum_s = 0.0

    @property
    def count(self) -> int:
        """How many there were."""
        return sum(self._counts)

    def observe(self, seconds: float) -> None:
        """Take one."""
        self._counts[bisect_left(self._edges, seconds)] += 1
        self.sum_s += seconds

    def collect(self) -> Iterator[Metric]:
        """The family with its samples as they are now."""
        buckets, total = [], 0
        for edge, count in zip((*self._edges, math.inf), self._counts.copy(), strict=True):
            total += count
            buckets.append(("+Inf" if math.isinf(edge) else repr(edge), float(total)))
        family = HistogramMetricFamily(self._name, self._text)
        family.add_metric([], buckets, self.sum_s)
        yield family


def _gauge(name: str, text: str, *labels: str) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"gon_edge_{name}", text, labels=labels)
