"""What a configuration that is read again changes, and what waits for the next start."""

from __future__ import annotations

from typing import Any

from gon_edge.config.file import parse_config
from gon_edge.config.schema import Config
from gon_edge.daemon.reload import merged, waiting
from gon_edge.stream.stream import Stream


def config(**changes: Any) -> Config:
    plain: dict[str, Any] = {
        "mqtt": {"url": "mqtt://broker"},
        "subscriptions": [{"topic": "telemetry/{stream}"}],
        "streams": {"defaults": {"interval": "1s"}},
    }
    return parse_config({**plain, **changes})


def test_options_of_streams_training_and_the_log_level_count_at_once():
    new = config(
        streams={"defaults": {"interval": "1s", "alerts": {"raise_rows": 2}}},
        retrain={"max_rows": 5000},
        alerts={"total_budget": "4/week"},
        log={"level": "debug"},
        limits={"streams": 7},
    )
    used = merged(config(), new)
    assert used.streams.defaults.alerts.raise_rows == 2
    assert used.retrain.max_rows == 5000
    assert used.alerts.total_budget == 4 / 7
    assert (used.log.level, used.limits.streams) == ("debug", 7)
    assert waiting(config(), new, ()) == []


def test_what_needs_a_new_connection_or_file_waits_and_is_named():
    new = config(
        mqtt={"url": "mqtt://other"},
        subscriptions=[{"topic": "other/{stream}"}],
        http={"listen": "127.0.0.1:9999"},
        node="other",
    )
    used = merged(config(), new)
    assert (used.mqtt, used.subscriptions, used.http, used.node) == (
        config().mqtt,
        config().subscriptions,
        config().http,
        config().node,
    )
    assert {key.split(".")[0] for key in waiting(config(), new, ())} == {"mqtt", "subscriptions", "http", "node"}


def test_the_grid_of_a_stream_that_runs_waits():
    stream = Stream("pump", config().stream("pump"), max_features=5)
    new = config(streams={"defaults": {"interval": "2s"}})
    assert waiting(config(), new, [stream]) == ["interval_s of stream 'pump'"]
