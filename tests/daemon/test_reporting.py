"""Counts that are kept elsewhere; what a step becomes for broker, store and series is in e2e/test_daemon."""

from __future__ import annotations

import contextlib
import json
import logging
import random
from collections.abc import Iterator
from dataclasses import replace

from configurations import SMALLEST
from prometheus_client import CollectorRegistry

from gon_edge.config.file import parse_config
from gon_edge.config.schema import Config
from gon_edge.daemon.orders import Machine
from gon_edge.daemon.reporting import ALERTS_SHOWN, Tally
from gon_edge.daemon.scoring import Scoring
from gon_edge.events import LOST_REASONS, Alert
from gon_edge.links.prometheus import Telemetry
from gon_edge.process.clock import Clock
from gon_edge.stream.held import event_json


def test_a_tally_tells_only_what_has_come_since():
    counts, told = iter([3, 3, 10]), []
    tally = Tally(lambda: next(counts), told.append)
    for _ in range(3):
        tally.look()
    assert told == [3, 7]


class Nobody:
    """A broker that keeps nothing."""

    client_id = ""
    confirms = False

    def topic(self, *levels: str) -> str:
        return "/".join(levels)

    def publish(self, topic: str, payload: str, *, retain: bool = False, shorter: str = "") -> None:
        pass


@contextlib.contextmanager
def scored(config: Config, registry: CollectorRegistry | None = None) -> Iterator[Scoring]:
    telemetry = Telemetry(registry or CollectorRegistry(), version="0")
    clock = Clock(monotonic=lambda: 1.0, wall=lambda: 1.77e9)
    scoring = Scoring(config, telemetry, Nobody(), Machine(clock))
    try:
        yield scoring
    finally:
        scoring.stop()
        scoring.store.close()


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
    with scored(config) as scoring:
        for _ in range(3):
            for topic in ("a/pump", "a/press", "b/pump"):
                payload = {"flow": 1.0, "mode": "auto", "valve": "ajar", **{f"one-off {i}": "x" for i in range(100)}}
                scoring.take(topic, json.dumps(payload).encode(), 1.0)
    named = [record.getMessage() for record in caplog.records if "'mode' is not used" in record.getMessage()]
    assert [line.split(":")[0] for line in named] == [
        "subscription 'a/{stream}', stream 'pump'",
        "subscription 'b/{stream}', stream 'pump'",
    ]
    assert sum("'valve' is not used" in record.getMessage() for record in caplog.records) == 2
    assert sum("more keys are not used" in record.getMessage() for record in caplog.records) == 2
    assert len(caplog.records) < 150


def test_why_a_stream_has_no_row_is_said_once_after_a_while(tmp_path, caplog):
    """0 of 600 rows for ever, and no word why."""
    mapping = {"mqtt": {"url": "mqtt://localhost"}, "state_dir": str(tmp_path)}
    config = parse_config({**mapping, "subscriptions": [{"topic": "a/{stream}", "timestamp": "t"}]})
    with scored(config) as scoring:
        for second in range(300):
            scoring.take("a/still", b'{"t": 1700000000, "flow": 1.5}', float(second))
            scoring.take("a/pump", b'{"t": %d, "flow": 1.5}' % (1_700_000_000 + second), float(second))
            for stream in scoring.pipeline.streams.values():
                scoring.reporter.waits(stream, float(second))
    said = [record.getMessage() for record in caplog.records if "makes no row yet" in record.getMessage()]
    assert said == [
        "stream 'still' makes no row yet: the timestamps stand still: 62 readings have the one of 2023-11-14 22:13:20"
    ]


def test_the_series_count_every_message_reading_and_value(tmp_path):
    rng = random.Random(5)
    subscriptions = [{"topic": "t/{stream}", "timestamp": "t"}, {"topic": "#", "stream": "rest"}]
    mapping = {"mqtt": {"url": "mqtt://localhost"}, "state_dir": str(tmp_path), "limits": {"streams": 3, "features": 4}}
    streams = {"defaults": {"exclude": ["skip*"]}}
    registry = CollectorRegistry()
    published = readings = values = 0
    with scored(parse_config({**mapping, "subscriptions": subscriptions, "streams": streams}), registry) as scoring:
        for i in range(1500):
            names = [rng.choice(["flow", "skip", f"one-off {i}", "door", "temp", "level"]) for _ in range(3)]
            document = {name: rng.choice([1.5 * i, None, "north"]) for name in names}
            document["t"] = rng.choice([1.77e9 + i, 1.77e9 + i, 1.77e9 + i + 3600, None, "noon"])
            payload = rng.choice([json.dumps(document), json.dumps([document] * 2), "{", "hello"]).encode()
            topic = rng.choice(["t/a", "t/b", "t/c", "t/d", "elsewhere", "gon-edge/x/alert"])
            heard = scoring.take(topic, payload, float(i), retained=rng.random() < 0.05)
            published += 1
            readings += (heard.refused is not None) + sum(heard.ignored.values()) + sum(heard.rejected.values())
            readings += len(heard.readings)
            values += sum(heard.masked.values())
        values += sum(
            count
            for stream in scoring.pipeline.streams.values()
            for reason, count in stream.ledger.totals.items()
            if reason in LOST_REASONS
        )
        readings -= sum(stream.aligner.undecided for stream in scoring.pipeline.streams.values())

    def counted(name: str) -> float:
        return sum(sample.value for family in registry.collect() for sample in family.samples if sample.name == name)

    assert readings >= published
    assert counted("gon_edge_messages_total") == readings
    assert counted("gon_edge_readings_masked_total") == values
    ignored = registry.get_sample_value("gon_edge_messages_total", {"result": "ignored"})
    assert counted("gon_edge_messages_ignored_total") == ignored
    assert counted("gon_edge_messages_rejected_total") == registry.get_sample_value(
        "gon_edge_messages_total", {"result": "invalid"}
    )


def test_an_open_alert_stays_on_the_page_however_many_come_after_it(tmp_path):
    # The fifty-first one pushed it out, while states and database still had it.
    def told(number: int, kind: str) -> Alert:
        return Alert(f"pump-{number}", kind, "anomaly", "pump", number, number, 3.0, 1.0, "warning", (), "1")

    config = parse_config({**SMALLEST, "state_dir": str(tmp_path)})
    with scored(config) as scoring:
        for number in range(ALERTS_SHOWN + 10):
            scoring.reporter.tell_one(told(number, "new"))
            if number:
                scoring.reporter.tell_one(told(number, "end"))
        shown = scoring.reporter.alerts
        assert len(shown) == ALERTS_SHOWN
        assert shown["pump-0"]["type"] == "new"
        assert f"pump-{ALERTS_SHOWN + 9}" in shown
    with scored(config) as again:  # a restart shows it, too
        assert again.reporter.alerts.keys() == shown.keys()


def test_an_alert_whose_event_the_broker_did_not_take_is_told_as_it_is_now_and_once(tmp_path, monkeypatch):
    # A subscriber believed in it for ever, although the rights were soon put right.
    alert = Alert("pump-1", "new", "anomaly", "pump", 1.0, 1.0, 3.0, 1.0, "warning", (), "1")
    ended = replace(alert, type="end", timestamp=2.0)
    with scored(parse_config({**SMALLEST, "state_dir": str(tmp_path)})) as scoring:
        reporter, sent = scoring.reporter, []
        reporter.tell_one(alert)
        reporter.answered("pump-1", "wrong", "no")
        assert reporter.settle(json.dumps(event_json(alert)).encode(), "refused") == "pump"
        for other in (b'{"ok": true}', b'{"id": "fan-1"}', b'{"id": []}', b"[1]", b"", b'"x"'):
            assert reporter.settle(other, "refused") is None
        reporter.tell_one(ended)
        reporter.settle(json.dumps(event_json(ended)).encode(), "too_large")
        for number in range(2 * ALERTS_SHOWN):  # many come after it, and it is shown no more
            reporter.tell_one(replace(alert, id=f"fan-{number}", type="end"))
        assert "pump-1" not in reporter.alerts
        monkeypatch.setattr(Nobody, "confirms", True)
        monkeypatch.setattr(Nobody, "publish", lambda _, topic, payload, **__: sent.append(json.loads(payload)))
        reporter.say_again(anew=False)
        assert sent == []  # too large for this connection, as it knows
        reporter.say_again(anew=True)
        reporter.say_again(anew=True)
    assert sent == [event_json(ended)]
