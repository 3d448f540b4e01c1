"""Durations by buckets, as prometheus_client counts them; the rest is in test_prometheus.py."""

from __future__ import annotations

import tracemalloc

import numpy as np
from prometheus_client import CollectorRegistry, Histogram, generate_latest

from gon_edge.links.series import Durations, StreamSeries, page

EDGES = (0.001, 0.01, 0.25, 2.5)


def test_durations_are_counted_as_the_library_counts_them() -> None:
    ours, theirs = CollectorRegistry(), CollectorRegistry()
    durations = Durations("wait_seconds", "Waited.", EDGES)
    ours.register(durations)
    histogram = Histogram("gon_edge_wait_seconds", "Waited.", buckets=EDGES, registry=theirs)
    for seconds in (*np.random.default_rng(0).exponential(0.1, 500).tolist(), *EDGES, 0.0, 99.0):
        durations.observe(seconds)
        histogram.observe(seconds)
    page = [line for line in generate_latest(theirs).decode().splitlines() if "_created" not in line]
    assert generate_latest(ours).decode().splitlines() == page
    assert durations.count == 506


def test_the_series_of_a_stream_are_there_from_its_first_question_on() -> None:
    registry, series = CollectorRegistry(), StreamSeries()
    registry.register(series)
    assert b'stream="' not in generate_latest(registry)
    series.of("pump").rows += 1
    assert registry.get_sample_value("gon_edge_rows_total", {"stream": "pump"}) == 1.0
    assert registry.get_sample_value("gon_edge_model_info", {"stream": "pump", "version": "1"}) is None
    assert registry.get_sample_value("gon_edge_alerts_total", {"stream": "pump", "kind": "drift"}) == 0.0


def test_a_scrape_gets_what_the_library_writes_in_a_fraction_of_its_memory() -> None:
    registry, series = CollectorRegistry(), StreamSeries()
    registry.register(series)
    for name in ('a "pump"', "line\nbreak", *(f"s{number}" for number in range(300))):
        series.of(name).rows += 1
    series.of("s0").model_version = "1"
    sizes = {}
    for write in (generate_latest, page):
        tracemalloc.start()
        written = write(registry)
        sizes[write] = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert written == generate_latest(registry)
    assert sizes[page] < 0.5 * sizes[generate_latest]
