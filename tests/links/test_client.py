"""What a command makes of the answers of a daemon, and of those of anything else that listens there."""

from __future__ import annotations

import math
from collections.abc import Iterator

import pytest
from e2e.servers import free_port
from prometheus_client import CollectorRegistry, Histogram
from snapshots import ALERT, SCORING, plain_snapshot

from gon_edge.config.schema import HttpConfig
from gon_edge.errors import UnreachableError
from gon_edge.links.client import DaemonApi, histogram_buckets, histogram_quantile
from gon_edge.links.web.server import WebServer


@pytest.fixture(scope="module")
def server() -> Iterator[WebServer]:
    registry = CollectorRegistry()
    latency = Histogram("latency_seconds", "An example.", buckets=(1.0, 3.0), registry=registry)
    for seconds in (*[0.5] * 90, *[2.0] * 10):
        latency.observe(seconds)
    training = {"stream": "pump", "outcome": "promoted"}
    snapshot = plain_snapshot(streams=(SCORING,), alerts=(ALERT,), trainings=(training,))
    running = WebServer(HttpConfig("127.0.0.1:0"), snapshot=lambda: snapshot, registry=registry)
    running.start()
    yield running
    running.stop()


def test_a_status_comes_with_streams_alerts_and_silences(server: WebServer) -> None:
    api = DaemonApi(server.url)
    status = api.status()
    assert (status["node"], status["alerts"], status["silences"]) == ("pi-1", [ALERT], [])
    assert [stream["stream"] for stream in status["streams"]] == ["pump"]
    assert api.trainings() == [{"stream": "pump", "outcome": "promoted"}]


def test_a_histogram_of_the_page_is_read_and_its_quantile_is_prometheus_own(server: WebServer) -> None:
    page = DaemonApi(server.url).metrics()
    buckets = histogram_buckets(page, "latency_seconds")
    assert buckets == {1.0: 90.0, 3.0: 100.0, math.inf: 100.0}
    assert histogram_quantile(buckets, 0.95) == 2.0
    assert histogram_buckets(page, "other_seconds") == {}
    assert histogram_quantile({}, 0.5) is None
    assert histogram_quantile({1.0: 0.0, math.inf: 10.0}, 0.5) == 1.0  # beyond the last bound nothing is known


def test_what_is_no_daemon_is_one_line_that_says_what_to_do(server: WebServer) -> None:
    with pytest.raises(UnreachableError, match="Connection refused; is it running"):
        DaemonApi(f"http://127.0.0.1:{free_port()}").status()
    with pytest.raises(UnreachableError, match="answers 404; name the port of"):
        DaemonApi(f"{server.url}elsewhere").status()
