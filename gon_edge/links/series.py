"""Series that rows touch, as plain numbers until somebody scrapes them: those of each stream, and durations.

The objects of prometheus_client have a lock for each number and check each call.  A row touched eight of them, which
took a tenth of its time, and the thirty of a stream held 25 KiB.  One thread writes here; what a scrape on another one
reads may be a row apart.  What the series mean stands in `prometheus`.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Sequence

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector
from prometheus_client.samples import Sample

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
        """Each family, whose samples are made while somebody goes through them."""
        for kind, family, text, label, values in _FAMILIES:
            metric = kind(f"gon_edge_{family}", text, labels=["stream", label] if label else ["stream"])
            name = f"{metric.name}_total" if metric.type == "counter" else metric.name
            metric.samples = _Samples(self.streams, name, label, values)  # type: ignore[assignment]
            yield metric


_Values = Callable[["OfStream"], Iterable[tuple[str, float]]]
"""What a family says of a stream, and for which value of its second label; that is empty where it has none."""


class _Samples:
    """Samples of one family: of a thousand streams they would take megabytes at once."""

    def __init__(self, streams: dict[str, OfStream], name: str, label: str, values: _Values) -> None:
        self._streams, self._name, self._label, self._values = streams, name, label, values

    def __iter__(self) -> Iterator[Sample]:
        for stream, series in list(self._streams.items()):
            for value, number in self._values(series):
                labels = {"stream": stream, self._label: value} if self._label else {"stream": stream}
                yield Sample(self._name, labels, number)


_Family = type[CounterMetricFamily] | type[GaugeMetricFamily]
_FAMILIES: tuple[tuple[_Family, str, str, str, _Values], ...] = (
    (CounterMetricFamily, "rows", "Rows of the regular grid.", "", lambda s: [("", s.rows)]),
    (GaugeMetricFamily, "last_row_timestamp_seconds", "Unix time of the newest row.", "", lambda s: [("", s.last_row)]),
    (GaugeMetricFamily, "anomaly_score", "Newest score; high is anomalous.", "", lambda s: [("", s.score)]),
    (GaugeMetricFamily, "anomaly_threshold", "Threshold of the score.", "", lambda s: [("", s.threshold)]),
    (
        GaugeMetricFamily,
        "missing_features",
        "Features silent for longer than is usual for them, or frozen.",
        "",
        lambda s: [("", s.missing)],
    ),
    (
        GaugeMetricFamily,
        "stream_state",
        "1 for the state a stream is in.",
        "state",
        lambda s: [(state, s.state == state) for state in STREAM_STATES],
    ),
    (
        GaugeMetricFamily,
        "alert_active",
        "1 while an alert is open.",
        "kind",
        lambda s: [(kind, kind in s.open) for kind in ALERT_KINDS],
    ),
    (GaugeMetricFamily, "model_info", "1 for the model in use.", "version", lambda s: _of_model(s.model_version, s, 1)),
    (
        GaugeMetricFamily,
        "model_trained_timestamp_seconds",
        "Unix time of the model's training.",
        "",
        lambda s: _of_model("", s, s.trained_at),
    ),
    (
        CounterMetricFamily,
        "alerts",
        "Alerts opened.",
        "kind",
        lambda s: [(kind, s.alerts.get(kind, 0)) for kind in ALERT_KINDS],
    ),
    (
        CounterMetricFamily,
        "feedback",
        "What people have said of alerts.",
        "answer",
        lambda s: [(said, s.answers.get(said, 0)) for said in ANSWERS],
    ),
    (
        CounterMetricFamily,
        "retrain_rounds",
        "Trainings by outcome.",
        "outcome",
        lambda s: [(how, s.rounds.get(how, 0)) for how in TRAINING_OUTCOMES],
    ),
)


def _of_model(label: str | None, series: OfStream, number: float) -> list[tuple[str, float]]:
    """What is said of a model, of a stream that has one."""
    return [] if series.model_version is None else [(label or "", number)]


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


def page(registry: CollectorRegistry) -> bytes:
    """What a scrape gets, as `generate_latest` writes it, but family by family: a thousand streams would take 18 MB."""
    return b"".join(generate_latest(_Alone(family)) for family in registry.collect())


class _Alone(Collector):
    """One family, for who writes collectors."""

    def __init__(self, family: Metric) -> None:
        self._family = family

    def collect(self) -> Iterator[Metric]:
        yield self._family
