"""What a look shows of a fleet: pages for people, JSON for scripts, and events that become open alerts."""

from __future__ import annotations

import json
from dataclasses import replace

from gon_edge.fleet.look import Kept, Look, Owned, Told, Working, look_json, look_text, ranges

ALERT = {
    "id": "pump-1",
    "type": "new",
    "kind": "anomaly",
    "severity": "critical",
    "stream": "pump",
    "group": "pump-1",
    "since": 4.0,
    "timestamp": 5.0,
    "top_features": [{"feature": "flow", "value": 1.0, "expected": 2.0, "contribution": 0.9}],
}

LOOK = Look(
    at=100.0,
    workers=(Working("w1", "host", 7, "0.1.0", "http://127.0.0.1:1/", 98.0, 60 << 20, "pump", (0, 1)),),
    partitions=(
        Owned(0, "w1", 2, 50.0, streams=3, rows=9, lag=0, latency_p99_s=0.05),
        Owned(1, "w1", 1, 50.0, streams=2, rows=9, lag=4),
        Owned(2, "", 1, 50.0, lag=7, redelivered=1),
        Owned(3),
    ),
    kept=(Kept("fleet-telemetry", 100, 3 << 20, 1 << 30, 3, 1), Kept("fleet-events", 2, 500, -1, 3, 0)),
    alerts=(ALERT,),
    alerts_raised=4,
)


def test_the_page_shows_workers_partitions_streams_and_open_alerts() -> None:
    page = look_text(LOOK)
    assert page.startswith(
        "1 workers, 5 streams of readings, 11 messages wait, 1 alerts open\nnobody owns partition 2\n\n"
    )
    assert "w1      host  0-1         5        60 MiB  0.1.0" in page
    assert "trains pump" in page
    assert "\n2          nobody  0        7    1            1" in page
    assert "within 50 ms" in page
    assert "fleet-telemetry  100       3.0 MiB  1024 MiB  3, 1 behind" in page
    assert page.endswith("critical anomaly on pump: flow 1 (expected 2, 90 %) [pump-1]\n")


def test_the_page_shows_what_is_silenced_and_what_people_have_said() -> None:
    silence = {"stream": "fan", "feature": "", "since": 50.0, "until": 7200.0, "reason": "new \x1b[2Jbearing"}
    answer = {"id": "pump-1", "answer": "wrong", "by": "eva", "note": "filter", "at": 90.0}
    page = look_text(replace(LOOK, silences=(silence,), answers=(answer,)))
    assert "fan     (all)    1970-01-01 02:00:00 UTC  new " in page
    assert page.endswith("ANSWERED  IT WAS  BY   NOTE\npump-1    wrong   eva  filter\n")
    assert "\x1b" not in page


def test_an_alert_of_another_partition_that_began_with_one_is_shown_with_it() -> None:
    told = Told()
    other = {**ALERT, "id": "fan-1", "group": "fan-1", "stream": "fan", "since": 30.0}
    for event in (ALERT, other, {**ALERT, "id": "oven-1", "group": "oven-1", "since": 300.0}):
        told.take(event)
    assert [event["group"] for event in told.open.values()] == ["pump-1", "pump-1", "oven-1"]
    assert "[fan-1, with pump-1]" in look_text(replace(LOOK, alerts=tuple(told.open.values())))


def test_foreign_text_cannot_steer_the_terminal() -> None:
    evil = "\x1b[2J\nowned"
    working = replace(LOOK.workers[0], name=evil, host=evil, training=evil)
    page = look_text(replace(LOOK, workers=(working,), alerts=({**ALERT, "stream": evil},)))
    assert "\x1b" not in page
    assert "\nowned" not in page


def test_a_partition_is_nobodys_only_while_its_messages_wait() -> None:
    assert LOOK.orphans == (2,)
    assert "nobody owns" not in look_text(replace(LOOK, partitions=LOOK.partitions[:2]))


def test_scripts_get_everything() -> None:
    found = json.loads(json.dumps(look_json(LOOK)))
    assert (found["lag"], found["streams"], found["orphans"]) == (11, 5, [2])
    assert found["partitions"][0]["latency_p99_s"] == 0.05
    assert found["workers"][0]["partitions"] == [0, 1]


def test_runs_of_numbers_are_written_short() -> None:
    assert [ranges(each) for each in ((), (3,), (0, 1), (0, 2, 3, 4, 9))] == ["-", "3", "0-1", "0, 2-4, 9"]


def test_an_alert_is_open_from_its_first_event_to_its_end() -> None:
    told = Told()
    for kind, at in (("new", 1.0), ("update", 2.0)):
        told.take({**ALERT, "type": kind, "timestamp": at})
    assert list(told.open) == ["pump-1"]
    told.take({**ALERT, "type": "end", "timestamp": 3.0})
    assert (told.open, told.raised, told.repeated) == ({}, 1, 0)


def test_an_event_that_is_there_twice_is_seen_and_takeovers_are_no_alerts() -> None:
    told = Told()
    told.take(ALERT)
    told.take(ALERT)
    told.take({"type": "takeover", "partition": 1, "worker": "w", "epoch": 2, "timestamp": 1.0})
    assert (told.repeated, told.takeovers, len(told.open)) == (1, 1, 1)
