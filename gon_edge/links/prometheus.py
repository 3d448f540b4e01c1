"""Every series gon-edge exports; their names are an interface, which the README and the rules use.

Counters with a closed set of labels exist at 0 from the start, so that ``rate()`` and ``absent()`` work.  Series of a
stream exist from its first row until :meth:`Telemetry.remove_stream`.  Label values come from the closed sets of
``events``, or are names of streams and features, whose number the configuration bounds.  Topics, payloads and error
texts never become labels.  Knows nothing of HTTP (``web`` serves the registry).
"""

from __future__ import annotations

import contextlib
import math
import platform
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TypeVar

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    Info,
    PlatformCollector,
    ProcessCollector,
    disable_created_metrics,
)
from prometheus_client.metrics_core import CounterMetricFamily
from prometheus_client.registry import Collector

from gon_edge.events import (
    AWAY_REASONS,
    IGNORED_REASONS,
    LOST_REASONS,
    MASK_REASONS,
    PUBLISH_LOSSES,
    REASONS,
    RECONNECT_REASONS,
    TRAINING_WAITS,
    UNSCORED_REASONS,
    Alert,
    AlertKind,
    AnswerWord,
    AwayReason,
    Cause,
    MessageResult,
    PublishLoss,
    StreamState,
    TrainingOutcome,
    TrainingWait,
    UnscoredReason,
    Verdict,
)
from gon_edge.links.series import Durations, Messages, StreamSeries

TOP_FEATURES = 5  # not critical: causes shown of one stream; the rest of the score is rarely worth a series
# Not critical: causes shown of all streams together.  A fault that hits them all at once must not flood Prometheus.
MAX_CONTRIBUTIONS = 200

# From one window scored alone on a fast machine (50 µs) to a queue that has fallen behind (10 s), three a decade.
_SECONDS = (50e-6, 1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 5e-3, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)
# From a training of a few hundred rows on a fast machine to the deadline of a slow one.
_TRAINING_SECONDS = (1.0, 3.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0)


_Collector = TypeVar("_Collector", bound=Collector)


class _Declare:
    """Makes series of a registry, all with the prefix ``gon_edge_``."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry

    def counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(f"gon_edge_{name}", text, labels, registry=self._registry)

    def gauge(self, name: str, text: str, *labels: str) -> Gauge:
        return Gauge(f"gon_edge_{name}", text, labels, registry=self._registry)

    def collector(self, collector: _Collector) -> _Collector:
        self._registry.register(collector)
        return collector

    def histogram(self, name: str, text: str, buckets: tuple[float, ...]) -> Histogram:
        return Histogram(f"gon_edge_{name}", text, buckets=buckets, registry=self._registry)


class Telemetry:
    """What the daemon tells Prometheus about itself.

    Methods cost a few microseconds and may be called from any thread; those of one stream from one thread at a time.

    Parameters
    ----------
    registry : prometheus_client.CollectorRegistry
        Process and platform collectors are added to it as well.
    version : str
        Of gon-edge.
    proc : Path
        Where procfs is; a recorded copy in tests.

    Examples
    --------
    >>> from prometheus_client import CollectorRegistry
    >>> registry = CollectorRegistry()
    >>> telemetry = Telemetry(registry, version="0.1.0")
    >>> telemetry.message("accepted", 3)
    >>> registry.get_sample_value("gon_edge_messages_total", {"result": "accepted"})
    3.0
    """

    def __init__(self, registry: CollectorRegistry, *, version: str, proc: Path = Path("/proc")) -> None:
        # A second series for every counter, which nothing here needs.
        disable_created_metrics()  # type: ignore[no-untyped-call]
        build = Info("gon_edge_build", "Version of gon-edge and what it runs on.", registry=registry)
        build.info({"version": version, "python": platform.python_version(), "arch": platform.machine()})
        declare = _Declare(registry)
        self._declare_ingest(declare)
        self._declare_streams(declare)
        self._declare_training(declare)
        self._declare_daemon(declare)
        self._start_counters_at_0()
        self._contributions = 0
        registry.register(_DiskWrites(proc))
        ProcessCollector(proc=str(proc), registry=registry)
        PlatformCollector(registry=registry)

    def _declare_ingest(self, declare: _Declare) -> None:
        self._mqtt_connected = declare.gauge("mqtt_connected", "1 while the broker accepts us.")
        self._mqtt_refused = declare.gauge("mqtt_subscriptions_refused", "Topic filters the broker refuses to send us.")
        self._mqtt_reconnects = declare.counter(
            "mqtt_reconnects_total", "Connections and attempts that failed.", "reason"
        )
        self._events_dropped = declare.counter(
            "mqtt_events_dropped_total", "Alert events that went because too many waited for a broker."
        )
        self._publications_lost = declare.counter(
            "mqtt_publications_lost_total", "Messages of ours that the broker did not take, by reason.", "reason"
        )
        self._unacknowledged = declare.gauge(
            "mqtt_unacknowledged_seconds", "How long the oldest message of ours has waited for the broker's answer."
        )
        self._messages = declare.collector(Messages())
        self._rejected = declare.counter(
            "messages_rejected_total", "Invalid messages, or lines of them, by reason.", "reason"
        )
        self._ignored = declare.counter(
            "messages_ignored_total", "Messages, or readings of them, that nobody looks at, by reason.", "reason"
        )
        self._masked = declare.counter("readings_masked_total", "Values that could not be used, by reason.", "reason")
        self._away = declare.counter(
            "away_seconds_total", "Seconds in which the broker could not be heard, by reason.", "reason"
        )
        self._queue_length = declare.gauge("queue_length", "Messages received and not yet scored.")
        self._undecided = declare.gauge("messages_undecided", "Readings that a later one makes accepted or late.")

    def _declare_streams(self, declare: _Declare) -> None:
        self._unscored = declare.counter("rows_unscored_total", "Rows without a score, by reason.", "reason")
        self._streams = declare.collector(StreamSeries())
        self._contribution = declare.gauge(
            "anomaly_contribution_ratio",
            f"Share of the score of an anomalous row, the {TOP_FEATURES} largest of a stream.",
            "stream",
            "feature",
        )
        self._value = declare.gauge("anomaly_value", "What a feature that contributes read.", "stream", "feature")
        self._expected = declare.gauge("anomaly_expected_value", "What it should have read.", "stream", "feature")
        self._scoring = declare.collector(
            Durations("scoring_duration_seconds", "Time one row took to score.", _SECONDS)
        )
        self._latency = declare.collector(
            Durations(
                "ingest_to_verdict_seconds",
                "From the newest message of a row being received to its verdict.",
                _SECONDS,
            )
        )
        self._answers_refused = declare.counter(
            "feedback_refused_total", "Answers by MQTT that were none, or could not be heeded."
        )

    def _declare_training(self, declare: _Declare) -> None:
        self._retrain_duration = declare.histogram(
            "retrain_duration_seconds", "Time one training took.", _TRAINING_SECONDS
        )
        self._retrain_peak = declare.gauge("retrain_peak_memory_bytes", "Peak resident memory of the last training.")
        self._budget = declare.gauge("memory_budget_bytes", "Memory one training may use.")
        self._trainings = declare.gauge("retrain_running", "Trainings that go on now.")
        self._trainings_waiting = declare.gauge(
            "retrain_waiting", "Trainings that wait, by what they wait for.", "wait"
        )
        self.trainings(0, {})

    def _declare_daemon(self, declare: _Declare) -> None:
        self._store_errors = declare.counter(
            "store_write_errors_total", "Writes of the state database that failed, or went to a file that is gone."
        )
        self._store_recovered = declare.gauge(
            "store_recovered", "1 when a damaged database was set aside at the start."
        )
        self._certificates = declare.gauge(
            "certificate_expiry_timestamp_seconds",
            "Unix time at which the first certificate of a file ends; NaN when it cannot be read.",
            "file",
        )
        self._clock_steps = declare.counter("clock_steps_total", "Steps of the wall clock.")
        self._silences = declare.gauge("silences", "Silences that count now.")
        self._control_refused = declare.counter(
            "control_refused_total", "Requests on the control socket that were none."
        )
        self._config_ok = declare.gauge(
            "config_last_reload_successful", "1 unless the last configuration read was refused."
        )
        self._config_at = declare.gauge(
            "config_last_reload_success_timestamp_seconds", "Unix time at which the configuration in use was read."
        )

    def _start_counters_at_0(self) -> None:
        for family, label_values in (
            (self._mqtt_reconnects, RECONNECT_REASONS),
            (self._publications_lost, PUBLISH_LOSSES),
            (self._away, AWAY_REASONS),
            (self._rejected, REASONS),
            (self._ignored, IGNORED_REASONS),
            (self._masked, (*MASK_REASONS, *LOST_REASONS)),
            (self._unscored, UNSCORED_REASONS),
        ):
            for value in label_values:
                family.labels(value)

    # Ingest

    def watch(
        self,
        *,
        mqtt_connected: Callable[[], bool],
        unacknowledged_s: Callable[[], float],
        subscriptions_refused: Callable[[], int],
        queue_length: Callable[[], int],
    ) -> None:
        """Read these at every scrape, on the thread of the scrape."""
        self._mqtt_connected.set_function(mqtt_connected)
        self._unacknowledged.set_function(unacknowledged_s)
        self._mqtt_refused.set_function(subscriptions_refused)
        self._queue_length.set_function(queue_length)

    def mqtt_reconnect(self, reason: str) -> None:
        """Count a connection or attempt that failed; `reason` is one of :data:`RECONNECT_REASONS`."""
        self._mqtt_reconnects.labels(reason).inc()

    def away(self, reason: AwayReason, seconds: float) -> None:
        """Count time in which the broker could not be heard."""
        self._away.labels(reason).inc(seconds)

    def events_dropped(self, count: int) -> None:
        """Count events that were never sent."""
        self._events_dropped.inc(count)

    def publication_lost(self, why: PublishLoss, count: int) -> None:
        """Count messages of ours that the broker did not take."""
        self._publications_lost.labels(why).inc(count)

    def message(self, result: MessageResult, count: int = 1) -> None:
        """Count messages by what became of them."""
        self._messages.counts[result] += count

    def undecided(self, count: int) -> None:
        """Show how many readings have no result yet."""
        self._undecided.set(count)

    def rejected(self, reason: str, count: int = 1) -> None:
        """Count invalid messages or lines; `reason` is one of :data:`gon_edge.events.REASONS`."""
        self._rejected.labels(reason).inc(count)

    def ignored(self, reason: str, count: int = 1) -> None:
        """Count messages nobody looks at; `reason` is one of :data:`gon_edge.events.IGNORED_REASONS`."""
        self._messages.counts["ignored"] += count
        self._ignored.labels(reason).inc(count)

    def masked(self, reason: str, count: int = 1) -> None:
        """Count unusable values; `reason` is one of :data:`gon_edge.events.MASK_REASONS` or `LOST_REASONS`."""
        self._masked.labels(reason).inc(count)

    def clock_step(self) -> None:
        """Count a step of the wall clock."""
        self._clock_steps.inc()

    # Streams

    def row(self, stream: str, timestamp: float, unscored: UnscoredReason | None = None) -> None:
        """Count a row of `stream` with its Unix `timestamp`, and why it gets no score if it gets none."""
        series = self._streams.of(stream)
        series.rows += 1
        series.last_row = timestamp
        if unscored is not None:
            self._unscored.labels(unscored).inc()

    def verdict(self, verdict: Verdict, *, scoring_s: float, latency_s: float | None) -> None:
        """Show a verdict: score, threshold, and both durations; no latency for a row that waited for its model."""
        series = self._streams.of(verdict.stream)
        series.score, series.threshold, series.missing = verdict.score, verdict.threshold, len(verdict.missing)
        self._scoring.observe(scoring_s)
        if latency_s is not None:
            self._latency.observe(latency_s)

    def causes(self, stream: str, causes: tuple[Cause, ...]) -> None:
        """Show the features behind the newest score of `stream`; none while it is not anomalous."""
        series = self._streams.of(stream)
        if not causes and not series.features:
            return
        shown = {cause.feature: cause for cause in causes[:TOP_FEATURES]}
        kept = []
        for feature in series.features:
            if feature in shown:
                kept.append(feature)
            else:
                self._remove_cause(stream, feature)
        for feature, cause in shown.items():
            if feature not in series.features:
                if self._contributions >= MAX_CONTRIBUTIONS:
                    continue
                kept.append(feature)
                self._contributions += 1
            self._contribution.labels(stream, feature).set(cause.contribution)
            for family, value in ((self._value, cause.value), (self._expected, cause.expected)):
                family.labels(stream, feature).set(math.nan if value is None else value)
        series.features = tuple(kept)

    def _remove_cause(self, stream: str, feature: str) -> None:
        for family in (self._contribution, self._value, self._expected):
            family.remove(stream, feature)
        self._contributions -= 1

    def stream_state(self, stream: str, state: StreamState) -> None:
        """Show the state `stream` is in; the other states fall to 0."""
        self._streams.of(stream).state = state

    def alert(self, alert: Alert) -> None:
        """Count a new alert and show whether one is open; an open one with its causes, so that no scrape finds none."""
        series = self._streams.of(alert.stream)
        if alert.type != "end" and alert.kind == "anomaly" and alert.top_features:
            self.causes(alert.stream, alert.top_features)
        if alert.type == "new":
            series.alerts[alert.kind] = series.alerts.get(alert.kind, 0) + 1
        self.alert_audible(alert.stream, alert.kind, alert.type != "end")

    def answer(self, stream: str, answer: AnswerWord) -> None:
        """Count what a person has said of an alert, or of rows."""
        answers = self._streams.of(stream).answers
        answers[answer] = answers.get(answer, 0) + 1

    def answer_refused(self) -> None:
        """Count an answer by MQTT that was none, or could not be heeded."""
        self._answers_refused.inc()

    def model(self, stream: str, version: str, trained_at: float) -> None:
        """Show the model `stream` is scored by from now on; `trained_at` is Unix seconds."""
        series = self._streams.of(stream)
        series.model_version, series.trained_at = version, trained_at

    def remove_stream(self, stream: str) -> None:
        """Remove every series of `stream`, so that its last values are not shown for ever."""
        series = self._streams.streams.pop(stream, None)
        for feature in series.features if series is not None else ():
            self._remove_cause(stream, feature)

    # Training, state, configuration

    def trainings(self, running: int, waiting: Mapping[TrainingWait, int]) -> None:
        """Show how many trainings go on, and how many wait for what."""
        self._trainings.set(running)
        for wait in TRAINING_WAITS:
            self._trainings_waiting.labels(wait).set(waiting.get(wait, 0))

    def retrain(self, stream: str, outcome: TrainingOutcome, *, duration_s: float, peak_bytes: int) -> None:
        """Count a training of `stream` that has ended."""
        rounds = self._streams.of(stream).rounds
        rounds[outcome] = rounds.get(outcome, 0) + 1
        self._retrain_duration.observe(duration_s)
        self._retrain_peak.set(peak_bytes)

    def memory_budget(self, budget_bytes: int) -> None:
        """Show how much memory one training may use."""
        self._budget.set(budget_bytes)

    def silences(self, count: int) -> None:
        """Show how many silences count now."""
        self._silences.set(count)

    def alert_audible(self, stream: str, kind: AlertKind, open_: bool) -> None:
        """Show whether an alert is open that no silence holds back."""
        series = self._streams.of(stream)
        series.open = series.open | {kind} if open_ else series.open - {kind}

    def control_refused(self, count: int) -> None:
        """Count requests on the control socket that were none."""
        self._control_refused.inc(count)

    def config_loaded(self, timestamp: float) -> None:
        """Show that a configuration has come into use at `timestamp`, Unix seconds."""
        self._config_ok.set(1)
        self._config_at.set(timestamp)

    def config_refused(self) -> None:
        """Show that a configuration was wrong, and the one before stays in use."""
        self._config_ok.set(0)

    def certificate(self, option: str, path: Path) -> None:
        """Show when the certificate in `path` ends, read at every scrape; `option` is the option that names it."""
        self._certificates.labels(option).set_function(lambda: _expiry(path))

    def store_write_errors(self, count: int) -> None:
        """Count writes of the state database that failed."""
        self._store_errors.inc(count)

    def store_recovered(self, recovered: bool) -> None:
        """Show whether a damaged database was set aside at the start."""
        self._store_recovered.set(recovered)


def _expiry(path: Path) -> float:
    from gon_edge.process.certificate import certificate_expiry  # with TLS only

    try:
        return certificate_expiry(path)
    except (OSError, ValueError):
        return math.nan


class _DiskWrites(Collector):
    """Bytes this process had written to storage, from ``/proc/self/io``; nothing where the kernel does not say."""

    def __init__(self, proc: Path) -> None:
        self._path = proc / "self" / "io"

    def collect(self) -> Iterator[CounterMetricFamily]:
        family = CounterMetricFamily(
            "gon_edge_disk_written_bytes", "Bytes this process had written to storage (SD cards wear by them)."
        )
        with contextlib.suppress(OSError):
            for line in self._path.read_text().splitlines():
                key, _, value = line.partition(":")
                if key == "write_bytes":
                    family.add_metric([], int(value))
        yield family
