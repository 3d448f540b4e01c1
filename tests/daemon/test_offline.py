"""The alert that there is no broker: when it begins, grows and ends, and that it outlives a restart."""

from __future__ import annotations

import json

from gon_edge.daemon.offline import CRITICAL_S, WARNING_S, Offline
from gon_edge.events import Alert
from gon_edge.stream.held import event_json

WALL = 1_700_000_000.0


def told(offline: Offline, news: list[Alert], *looks: tuple[bool, float]) -> list[tuple[str, str, float]]:
    news.clear()
    for connected, now in looks:
        offline.look(connected, now, WALL + now)
    return [(alert.type, alert.severity, alert.since - WALL) for alert in news]


def test_a_broker_that_is_soon_back_is_no_news():
    news: list[Alert] = []
    offline = Offline("pi", news.append, now=0.0)
    assert told(offline, news, (True, 1.0), (False, 2.0), (False, WARNING_S), (True, 61.0), (False, 120.0)) == []


def test_one_that_stays_away_is_a_warning_then_critical_and_ends_when_it_is_back():
    news: list[Alert] = []
    offline = Offline("pi", news.append, now=0.0)
    looks = [(True, 10.0), *((False, 10.0 + i) for i in range(1, 1000)), (True, 1010.0), (True, 1011.0)]
    assert told(offline, news, *looks) == [
        ("new", "warning", 10.0),
        ("update", "critical", 10.0),
        ("end", "critical", 10.0),
    ]
    assert [alert.timestamp - WALL for alert in news] == [11.0 + WARNING_S, 11.0 + CRITICAL_S, 1010.0]
    assert {(alert.kind, alert.stream, alert.id) for alert in news} == {("offline", "", "pi-offline-20231114T221330Z")}


def test_an_alert_that_is_open_at_a_restart_goes_on_and_ends():
    news: list[Alert] = []
    told(Offline("pi", news.append, now=0.0), news, (False, 100.0))
    event = json.loads(json.dumps({**event_json(news[0]), "answer": None}))
    offline = Offline("pi", news.append, now=200.0, events=[{"kind": "anomaly", "type": "new"}, event])
    assert told(offline, news, (False, 300.0), (True, 310.0)) == [("end", "warning", 0.0)]
    assert told(Offline("pi", news.append, now=0.0, events=[{**event, "type": "end"}]), news, (True, 1.0)) == []
