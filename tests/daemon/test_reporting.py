"""Counts that are kept elsewhere; what a step becomes for broker, store and series is in e2e/test_daemon."""

from __future__ import annotations

import json
import logging

from prometheus_client import CollectorRegistry

from gon_edge.config.file import parse_config
from gon_edge.daemon.orders import Machine
from gon_edge.daemon.reporting import Tally
from gon_edge.daemon.scoring import Scoring
from gon_edge.links.prometheus import Telemetry
from gon_edge.process.clock import Clock


def test_a_tally_tells_only_what_has_come_since():
    counts, told = iter([3, 3, 10]), []
    tally = Tally(lambda: next(counts), told.append)
    for _ in range(3):
        tally.look()
    assert told == [3, 7]


def test_the_log_names_each_key_once_for_each_subscription(tmp_path, caplog):
    """Once a reason was not enough: the second label of a device was never heard of."""
    caplog.set_level(logging.INFO)
    config = parse_config(
        {
            "mqtt": {"url": "mqtt://localhost"},
            "state_dir": str(tmp_path),
            "subscriptions": [{"topic": "a/{stream}"}, {"topic": "b/{stream}"}],
        }
    )
    telemetry = Telemetry(CollectorRegistry(), version="0")
    sent: list[str] = []

    class Nobody:
        def topic(self, *levels: str) -> str:
            return "/".join(levels)

        def publish(self, topic: str, payload: str, *, retain: bool = False, shorter: str = "") -> None:
            sent.append(topic)

    clock = Clock(monotonic=lambda: 1.0, wall=lambda: 1.77e9)
    scoring = Scoring(config, telemetry, Nobody(), Machine(clock))
    try:
        for _ in range(3):
            for topic in ("a/pump", "a/press", "b/pump"):
                payload = {"flow": 1.0, "mode": "auto", "valve": "ajar", **{f"one-off {i}": "x" for i in range(100)}}
                scoring.take(topic, json.dumps(payload).encode(), 1.0)
    finally:
        scoring.stop()
        scoring.store.close()
    named = [record.getMessage() for record in caplog.records if "'mode' is not used" in record.getMessage()]
    assert [line.split(":")[0] for line in named] == [
        "subscription 'a/{stream}', stream 'pump'",
        "subscription 'b/{stream}', stream 'pump'",
    ]
    assert sum("'valve' is not used" in record.getMessage() for record in caplog.records) == 2
    assert sum("more keys are not used" in record.getMessage() for record in caplog.records) == 2
    assert len(caplog.records) < 150
