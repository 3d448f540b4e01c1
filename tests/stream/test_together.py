"""Streams that fall silent together: one alert, who is in it, and who is told after all."""

from __future__ import annotations

import json
from pathlib import Path

from gon_edge.config.schema import StreamConfig
from gon_edge.events import Alert, Reading
from gon_edge.model.file import load_model
from gon_edge.stream.held import alert_json, alert_of
from gon_edge.stream.stream import Stream
from gon_edge.stream.together import CommonSilences

MODEL = load_model(Path(__file__).parents[1] / "golden" / "pump.npz")
WALL = 1_700_000_000.0


class Fleet:
    """Streams of a model; each is heard once a second, as long as it lives."""

    def __init__(self, count: int, interval_s: float = 1.0) -> None:
        settings = StreamConfig(interval_s=interval_s)
        self.streams = {
            f"pump{i:02}": Stream(f"pump{i:02}", settings, max_features=10, model=MODEL, opened_at=0.0)
            for i in range(count)
        }
        self.dead: set[str] = set()
        self.now = 0
        self.silences = CommonSilences()

    def run(self, seconds: int, dead: set[str] | None = None) -> list[Alert]:
        """Let time pass; the news of what is missing."""
        self.dead = self.dead if dead is None else dead
        news: list[Alert] = []
        for _ in range(seconds):
            self.now += 1
            for name, stream in self.streams.items():
                if name not in self.dead:
                    some = 0.01 * (self.now % 7)  # what stands still is missing, too
                    values = {"flow": 19.8 + some, "pressure": 2.96 + some, "current": 1.19 + some}
                    for outcome in stream.add(Reading(name, WALL + self.now, values), float(self.now)):
                        news += outcome.alerts
            for _, alerts in self.silences.stops(self.streams, float(self.now), WALL):
                news += alerts
        return [alert for alert in news if alert.kind == "missing"]


def said(news: list[Alert]) -> list[tuple[str, str, int]]:
    return [(alert.type, alert.stream, alert.together.count if alert.together else 1) for alert in news]


def test_many_that_fall_silent_together_are_one_alert_that_counts_them():
    fleet = Fleet(15)
    fleet.run(20)
    news = fleet.run(120, dead=set(fleet.streams) - {"pump07"})
    assert said(news) == [("new", "pump00", 14)]
    (alert,) = news
    assert alert.severity == "critical"
    assert alert.together.of == 15
    assert len(alert.together.streams) == 10
    assert {name for name, stream in fleet.streams.items() if stream.state == "stale"} == fleet.dead
    assert alert_of(json.loads(json.dumps(alert_json(alert)))) == alert


def test_it_ends_when_they_are_back_and_none_of_them_is_told():
    fleet = Fleet(5)
    fleet.run(20)
    assert said(fleet.run(100, dead=set(fleet.streams))) == [("new", "pump00", 5)]
    assert said(fleet.run(300, dead=set())) == [("end", "pump00", 5)]
    assert said(fleet.run(100, dead={"pump03"})) == [("new", "pump03", 1)]


def test_one_that_does_not_come_back_with_the_others_is_told_after_all():
    fleet = Fleet(5)
    fleet.run(20)
    fleet.run(100, dead=set(fleet.streams))
    assert said(fleet.run(50, dead={"pump03"})) == [("end", "pump00", 5)]
    assert said(fleet.run(100)) == [("new", "pump03", 1)]


def test_when_only_the_one_that_tells_is_back_the_others_are_told_by_another_one():
    fleet = Fleet(5)
    fleet.run(20)
    fleet.run(100, dead=set(fleet.streams))
    rest = set(fleet.streams) - {"pump00"}
    assert said(fleet.run(200, dead=rest)) == [("end", "pump00", 5), ("new", "pump01", 4)]


def test_two_are_two_alerts_and_the_third_joins_the_first():
    fleet = Fleet(5)
    fleet.run(20)
    fleet.run(1, dead={"pump00"})
    fleet.run(1, dead={"pump00", "pump01"})
    fleet.run(35)  # a later one, and not yet known to be silent when the first two are told
    assert said(fleet.run(200, dead={"pump00", "pump01", "pump02"})) == [
        ("new", "pump00", 1),
        ("new", "pump01", 1),
        ("update", "pump00", 3),
    ]


def test_streams_that_fall_silent_at_other_times_are_told_by_themselves():
    fleet = Fleet(5)
    fleet.run(20)
    dead: set[str] = set()
    news = []
    for name in fleet.streams:
        dead = {*dead, name}
        news += fleet.run(300, dead=dead)
    assert said(news) == [("new", name, 1) for name in fleet.streams]


def test_a_silenced_stream_neither_tells_nor_is_told():
    fleet = Fleet(4)
    fleet.streams["pump00"].policy.silence(None)
    fleet.run(20)
    assert said(fleet.run(100, dead=set(fleet.streams))) == [("new", "pump01", 3)]


def test_after_a_restart_the_alert_goes_on_and_no_other_begins():
    fleet = Fleet(5)
    fleet.run(20)
    fleet.run(100, dead=set(fleet.streams))
    again = Fleet(5)
    again.now = 1000
    for name, stream in again.streams.items():
        before = fleet.streams[name]
        stream.resume(before.rows, json.loads(json.dumps(before.memory())), before.aligner.columns.state())
        stream.heard_at = 1000.0
    assert said(again.run(200, dead=set(again.streams))) == []
    assert said(again.run(100, dead=set())) == [("end", "pump00", 5)]


def test_who_goes_on_elsewhere_tells_after_all_who_does_not_come_back():
    fleet = Fleet(6)
    fleet.run(20)
    fleet.run(120, dead=set(fleet.streams))
    state = json.loads(json.dumps(fleet.silences.state()))
    fleet.silences = CommonSilences()
    fleet.silences.resume(state)
    news = fleet.run(100, dead={"pump04"})
    assert ("new", "pump04", 1) in said(news)
