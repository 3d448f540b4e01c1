"""What Prometheus is told: names, labels, zeros at the start, nothing left of a stream that is gone."""

from __future__ import annotations

import dataclasses
import math
import subprocess
import time
from pathlib import Path

import pytest
from e2e.servers import require
from prometheus_client import CollectorRegistry, generate_latest

from gon_edge import events
from gon_edge.events import TRAINING_WAITS, Alert, Cause, Verdict
from gon_edge.links.prometheus import MAX_CONTRIBUTIONS, TOP_FEATURES, Telemetry

PROMISED = [
    "build_info",
    "mqtt_connected",
    "mqtt_reconnects_total",
    "messages_total",
    "retrain_running",
    "retrain_waiting",
    "rows_total",
    "anomaly_score",
    "anomaly_threshold",
    "anomaly_contribution_ratio",
    "alert_active",
    "alerts_total",
    "last_row_timestamp_seconds",
    "scoring_duration_seconds",
    "ingest_to_verdict_seconds",
    "queue_length",
    "model_info",
    "model_trained_timestamp_seconds",
    "retrain_rounds_total",
    "retrain_duration_seconds",
    "retrain_peak_memory_bytes",
    "memory_budget_bytes",
    "disk_written_bytes_total",
]

RECORDED_IO = """\
rchar: 3980
wchar: 217088
syscr: 11
syscw: 4
read_bytes: 0
write_bytes: 212992
cancelled_write_bytes: 4096
"""


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


@pytest.fixture
def telemetry(registry: CollectorRegistry) -> Telemetry:
    return Telemetry(registry, version="0.1.0")


def verdict(stream: str = "pump") -> Verdict:
    return Verdict(stream, 1.7e9, 3.5, 2.0, True, (), (), "v1")


def causes(features: int, prefix: str = "f") -> tuple[Cause, ...]:
    return tuple(Cause(f"{prefix}{i}", 1.0, 2.0, 1 / features) for i in range(features))


def alert(stream: str, how: str, kind: str = "anomaly") -> Alert:
    return Alert("id", how, kind, stream, 1.7e9, 1.7e9, 3.5, 2.0, "warning", (), "v1")  # type: ignore[arg-type]


def populate(telemetry: Telemetry, stream: str) -> None:
    telemetry.stream_state(stream, "scoring")
    telemetry.row(stream, 1.7e9)
    telemetry.verdict(verdict(stream), scoring_s=0.0003, latency_s=0.004)
    telemetry.causes(stream, causes(3))
    telemetry.alert(alert(stream, "new"))
    telemetry.model(stream, "v1", 1.6e9)
    telemetry.retrain(stream, "promoted", duration_s=12.0, peak_bytes=50 << 20)


def test_trainings_are_counted_by_what_they_wait_for(registry: CollectorRegistry, telemetry: Telemetry) -> None:
    def shown() -> list[float | None]:
        waits = [registry.get_sample_value("gon_edge_retrain_waiting", {"wait": wait}) for wait in TRAINING_WAITS]
        return [registry.get_sample_value("gon_edge_retrain_running"), *waits]

    assert shown() == [0.0] * (1 + len(TRAINING_WAITS))
    telemetry.trainings(2, {"heat": 1, "place": 5})
    assert shown() == [2.0, 5.0, 1.0, 0.0, 0.0, 0.0]
    telemetry.trainings(0, {})
    assert shown() == [0.0] * (1 + len(TRAINING_WAITS))


def test_the_page_passes_promtool(registry: CollectorRegistry, telemetry: Telemetry) -> None:
    telemetry.watch(
        mqtt_connected=lambda: True,
        unacknowledged_s=lambda: 0.0,
        subscriptions_refused=lambda: 0,
        queue_length=lambda: 7,
    )
    telemetry.memory_budget(64 << 20)
    populate(telemetry, 'a "hostile"\\ stream\nname')
    page = generate_latest(registry)
    check = subprocess.run([require("promtool"), "check", "metrics"], input=page, capture_output=True)
    assert (check.returncode, check.stdout, check.stderr) == (0, b"", b"")


def test_every_promised_series_is_on_the_page(registry: CollectorRegistry, telemetry: Telemetry) -> None:
    populate(telemetry, "pump")
    page = generate_latest(registry).decode()
    missing = [name for name in PROMISED if f"\ngon_edge_{name}" not in page]
    assert missing == []
    assert "\nprocess_resident_memory_bytes " in page
    assert "_created" not in page


def test_counters_of_closed_sets_are_0_from_the_start(registry: CollectorRegistry, telemetry: Telemetry) -> None:
    for name, label, values in (
        ("messages_total", "result", events.MESSAGE_RESULTS),
        ("messages_rejected_total", "reason", events.REASONS),
        ("readings_masked_total", "reason", events.MASK_REASONS),
        ("mqtt_reconnects_total", "reason", events.RECONNECT_REASONS),
        ("rows_unscored_total", "reason", events.UNSCORED_REASONS),
    ):
        for value in values:
            assert registry.get_sample_value(f"gon_edge_{name}", {label: value}) == 0
    for name in ("store_write_errors_total", "clock_steps_total", "mqtt_events_dropped_total"):
        assert registry.get_sample_value(f"gon_edge_{name}") == 0
    telemetry.row("pump", 1.0)
    for outcome in events.TRAINING_OUTCOMES:
        labels = {"stream": "pump", "outcome": outcome}
        assert registry.get_sample_value("gon_edge_retrain_rounds_total", labels) == 0
    for kind in events.ALERT_KINDS:
        for name in ("alerts_total", "alert_active"):
            assert registry.get_sample_value(f"gon_edge_{name}", {"stream": "pump", "kind": kind}) == 0


def test_a_verdict_shows_score_threshold_and_durations(registry: CollectorRegistry, telemetry: Telemetry) -> None:
    telemetry.row("pump", 1.7e9)
    assert math.isnan(registry.get_sample_value("gon_edge_anomaly_score", {"stream": "pump"}) or 0.0)
    telemetry.verdict(verdict(), scoring_s=0.00015, latency_s=0.2)
    assert registry.get_sample_value("gon_edge_anomaly_score", {"stream": "pump"}) == 3.5
    assert registry.get_sample_value("gon_edge_anomaly_threshold", {"stream": "pump"}) == 2.0
    assert registry.get_sample_value("gon_edge_last_row_timestamp_seconds", {"stream": "pump"}) == 1.7e9
    assert registry.get_sample_value("gon_edge_missing_features", {"stream": "pump"}) == 0
    assert registry.get_sample_value("gon_edge_scoring_duration_seconds_bucket", {"le": "0.0001"}) == 0
    assert registry.get_sample_value("gon_edge_scoring_duration_seconds_bucket", {"le": "0.0002"}) == 1
    assert registry.get_sample_value("gon_edge_ingest_to_verdict_seconds_sum") == 0.2


def test_contributions_are_the_top_few_and_go_when_the_anomaly_goes(
    registry: CollectorRegistry, telemetry: Telemetry
) -> None:
    def shown() -> set[str]:
        return {
            sample.labels["feature"]
            for family in registry.collect()
            for sample in family.samples
            if sample.name == "gon_edge_anomaly_contribution_ratio"
        }

    telemetry.causes("pump", (Cause("dead", None, 61.3, 1.0),))
    labels = {"stream": "pump", "feature": "dead"}
    assert math.isnan(registry.get_sample_value("gon_edge_anomaly_value", labels) or 0.0)
    assert registry.get_sample_value("gon_edge_anomaly_expected_value", labels) == 61.3
    telemetry.causes("pump", causes(9))
    assert registry.get_sample_value("gon_edge_anomaly_expected_value", labels) is None
    assert registry.get_sample_value("gon_edge_anomaly_value", {"stream": "pump", "feature": "f0"}) == 1.0
    assert shown() == {f"f{i}" for i in range(TOP_FEATURES)}
    telemetry.causes("pump", causes(2, "other"))
    assert shown() == {"other0", "other1"}
    telemetry.causes("pump", ())
    assert shown() == set()

    for i in range(100):
        telemetry.causes(f"s{i}", causes(9))
    page = generate_latest(registry).decode()
    assert page.count("gon_edge_anomaly_contribution_ratio{") == MAX_CONTRIBUTIONS
    telemetry.remove_stream("s0")
    telemetry.causes("last", causes(3))
    assert generate_latest(registry).decode().count('contribution_ratio{feature="f0",stream="last"}') == 1


def test_one_state_a_stream_is_1(registry: CollectorRegistry, telemetry: Telemetry) -> None:
    for state in ("warming-up", "training", "scoring", "scoring"):
        telemetry.stream_state("pump", state)  # type: ignore[arg-type]
        values = {
            each: registry.get_sample_value("gon_edge_stream_state", {"stream": "pump", "state": each})
            for each in events.STREAM_STATES
        }
        assert values == {each: float(each == state) for each in events.STREAM_STATES}


def test_an_alert_is_counted_once_and_active_until_it_ends(registry: CollectorRegistry, telemetry: Telemetry) -> None:
    labels = {"stream": "pump", "kind": "anomaly"}
    for how, active in (("new", 1), ("update", 1), ("end", 0)):
        telemetry.alert(alert("pump", how))
        assert registry.get_sample_value("gon_edge_alert_active", labels) == active
        assert registry.get_sample_value("gon_edge_alerts_total", labels) == 1
    assert registry.get_sample_value("gon_edge_alert_active", {"stream": "pump", "kind": "missing"}) == 0


def test_a_new_alert_is_never_seen_without_its_causes(registry: CollectorRegistry, telemetry: Telemetry) -> None:
    telemetry.alert(dataclasses.replace(alert("pump", "new"), top_features=causes(2)))
    labels = {"stream": "pump", "feature": "f0"}
    assert registry.get_sample_value("gon_edge_anomaly_contribution_ratio", labels) == 0.5
    telemetry.alert(dataclasses.replace(alert("pump", "new", "missing"), top_features=()))
    assert registry.get_sample_value("gon_edge_anomaly_contribution_ratio", labels) == 0.5


def test_a_new_model_replaces_the_old_ones_series(registry: CollectorRegistry, telemetry: Telemetry) -> None:
    telemetry.model("pump", "v1", 100.0)
    telemetry.model("pump", "v2", 200.0)
    assert registry.get_sample_value("gon_edge_model_info", {"stream": "pump", "version": "v1"}) is None
    assert registry.get_sample_value("gon_edge_model_info", {"stream": "pump", "version": "v2"}) == 1
    assert registry.get_sample_value("gon_edge_model_trained_timestamp_seconds", {"stream": "pump"}) == 200.0


def test_nothing_is_left_of_a_removed_stream(registry: CollectorRegistry, telemetry: Telemetry) -> None:
    populate(telemetry, "stays")
    before = generate_latest(registry).decode()
    for _ in range(2):
        populate(telemetry, "goes")
        telemetry.remove_stream("goes")
        telemetry.remove_stream("goes")
    page = generate_latest(registry).decode()
    assert '"goes"' not in page
    assert page.count('"stays"') == before.count('"stays"')
    telemetry.row("without-model", 1.0)
    telemetry.remove_stream("without-model")
    assert "without-model" not in generate_latest(registry).decode()


def test_disk_writes_come_from_procfs(tmp_path: Path) -> None:
    (tmp_path / "self").mkdir()
    (tmp_path / "self" / "io").write_text(RECORDED_IO)
    registry = CollectorRegistry()
    Telemetry(registry, version="0", proc=tmp_path)
    assert registry.get_sample_value("gon_edge_disk_written_bytes_total") == 212992.0


def test_without_procfs_the_page_is_served_without_those_series(tmp_path: Path) -> None:
    registry = CollectorRegistry()
    Telemetry(registry, version="0", proc=tmp_path)
    assert registry.get_sample_value("gon_edge_disk_written_bytes_total") is None
    assert b"gon_edge_build_info" in generate_latest(registry)


def test_the_gauges_of_a_scrape_are_read_at_the_scrape(registry: CollectorRegistry, telemetry: Telemetry) -> None:
    queue: list[int] = []
    telemetry.watch(
        mqtt_connected=lambda: bool(queue),
        unacknowledged_s=lambda: 12.5,
        subscriptions_refused=lambda: 2,
        queue_length=lambda: len(queue),
    )
    assert registry.get_sample_value("gon_edge_mqtt_connected") == 0
    queue.append(1)
    assert registry.get_sample_value("gon_edge_mqtt_connected") == 1
    assert registry.get_sample_value("gon_edge_queue_length") == 1
    assert registry.get_sample_value("gon_edge_mqtt_subscriptions_refused") == 2
    assert registry.get_sample_value("gon_edge_mqtt_unacknowledged_seconds") == 12.5


def test_a_row_costs_far_less_than_scoring_it(telemetry: Telemetry) -> None:
    calm = verdict()
    telemetry.verdict(calm, scoring_s=0.001, latency_s=0.001)

    def once() -> float:
        began = time.process_time()
        for _ in range(1000):
            telemetry.message("accepted")
            telemetry.stream_state("pump", "scoring")
            telemetry.row("pump", 1.7e9)
            telemetry.verdict(calm, scoring_s=0.001, latency_s=0.001)
        return (time.process_time() - began) / 1000

    assert min(once() for _ in range(5)) < 50e-6  # 7 µs where this was written
