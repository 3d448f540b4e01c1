"""What a rehearsal adds up to: faults found and missed, false alerts, and what a person reads of it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from gon_edge.commands.rehearsed import (
    Alerted,
    Fault,
    Rehearsed,
    answer_text,
    faults_text,
    in_columns,
    training_text,
)
from gon_edge.daemon.rehearsal import Answered, Course, Told, Trained
from gon_edge.state.history import RetrainRecord

DAY = 86400.0


class Played:
    """What a rehearsal leaves behind."""

    def __init__(self, **courses: Course) -> None:
        self.courses = courses
        self.unheard = {"bad_json": 2}


def event(what: str, alert: str, at: float, *, since: float = 0.0, score: float | None = 5.0, **rest: Any) -> Told:
    cause = {"feature": "flow", "value": score, "expected": 1.0, "contribution": 0.9}
    plain = {"id": alert, "type": what, "kind": "anomaly", "stream": "pump", "since": since, "timestamp": at}
    return Told(at, {**plain, "score": score, "severity": "warning", "top_features": [cause], **rest})


def alert(since: float, told_at: float, ended_at: float | None, stream: str = "pump") -> Alerted:
    return Alerted("a", stream, "anomaly", "warning", since, told_at, ended_at, [], 1)


def course(days: int, in_alarm: int) -> Course:
    """A row an hour, of which some are in alarm."""
    found = Course(rows=24 * days + 100)
    for hour in range(24 * days + 1):
        found.timestamps.append(3600.0 * hour)
        found.scores.append(float(hour % 7))
        found.thresholds.append(4.0 if hour < 50 else 5.0)
        found.in_alarm.append(hour < in_alarm)
    return found


@pytest.mark.parametrize(
    ("it", "touches", "finds"),
    [
        (alert(100.0, 103.0, 150.0), True, True),
        (alert(199.0, 205.0, 300.0), True, True),  # told after the end of a fault that it saw
        (alert(50.0, 60.0, 150.0), True, False),  # open before: nothing new
        (alert(50.0, 101.0, None), True, True),
        (alert(50.0, 60.0, 90.0), False, False),
        (alert(201.0, 203.0, None), False, False),
        (alert(100.0, 103.0, 150.0, "fan"), False, False),
    ],
)
def test_an_alert_finds_the_fault_that_it_is_news_of(it: Alerted, touches: bool, finds: bool) -> None:
    fault = Fault(100.0, 200.0, "pump")
    assert (it.touches(fault), it.finds(fault)) == (touches, finds)


def test_faults_found_and_false_alerts_are_counted_from_the_end_of_the_warm_up_on() -> None:
    faults = [Fault(-900.0, -800.0, ""), Fault(7200.0, 9000.0, ""), Fault(DAY, DAY, "pump"), Fault(DAY, DAY, "fan")]
    result = Rehearsed(faults)
    for news in (
        event("new", "one", 7500.0, since=7400.0),
        event("end", "one", 8000.0, since=7400.0),
        event("new", "two", 20000.0, since=19000.0),
        event("end", "two", 21000.0, since=19000.0),
    ):
        result.add(news)
    found = result.summary(Played(pump=course(14, 0)))["streams"]["pump"]["faults"]  # type: ignore[arg-type]
    assert found == {
        "known": 2,
        "in_warm_up": 1,
        "found": 1,
        "false_alerts": 1,
        "delay_s": {"median": 300.0, "most": 300.0},
    }
    assert faults_text(found) == "1 of 2 found, after 5 min (at most 5 min), 1 false alert; 1 more in the warm-up"


def test_alerts_a_week_and_the_share_in_alarm_are_of_the_judged_time() -> None:
    result = Rehearsed()
    for number in range(3):
        result.add(event("new", f"{number}", 10.0 * number))
    long = result.summary(Played(pump=course(14, 48)))["streams"]["pump"]  # type: ignore[arg-type]
    assert (long["alerts"], long["alerts_a_week"]) == ({"anomaly": 3}, 1.5)
    assert long["in_alarm"] == 48 / 337
    short = result.summary(Played(pump=course(0, 0)))["streams"]["pump"]  # type: ignore[arg-type]
    assert short["alerts_a_week"] is None


def test_an_alert_that_is_back_is_open_again_and_news_of_the_fault_that_brought_it_back() -> None:
    result = Rehearsed()
    for news in (event("new", "a", 10.0), event("end", "a", 30.0), event("update", "a", 110.0)):
        result.add(news)
    (it,) = result.alerts.values()
    assert (it.ended_at, it.back_at) == (None, [110.0])
    assert it.told_of(Fault(100.0, 200.0, "pump")) == 110.0
    assert it.told_of(Fault(50.0, 60.0, "pump")) is None  # it was over then


def test_an_alert_keeps_its_worst_moment() -> None:
    result = Rehearsed()
    result.add(event("new", "a", 10.0, since=5.0, score=5.0))
    result.add(event("update", "a", 20.0, since=5.0, score=9.0, severity="critical"))
    result.add(event("end", "a", 30.0, since=5.0, score=3.0))
    (it,) = result.alerts.values()
    assert (it.since, it.told_at, it.ended_at, it.severity, it.events) == (5.0, 10.0, 30.0, "critical", 3)
    assert it.causes[0]["value"] == 9.0


def test_a_drift_is_told_as_it_was_last() -> None:
    result = Rehearsed()
    for at, score in ((10.0, 5.0), (20.0, 3.0)):
        result.add(event("new" if at == 10.0 else "update", "a", at, score=score, kind="drift"))
    (it,) = result.alerts.values()
    assert it.causes[0]["value"] == 3.0


def test_people_read_what_happened_in_order_and_then_the_totals() -> None:
    record = RetrainRecord("pump", "1", 0.0, 2.0, "promoted", 1, 600, "")
    refused = RetrainRecord("pump", "", 0.0, 2.0, "rejected", 1, 900, "it is worse")
    result = Rehearsed([])
    result.add(event("new", "a", 5000.0, since=4000.0))
    result.add(Trained(0.0, record, 4.0))
    result.add(Trained(DAY, refused, None))
    result.add(Answered(DAY + 1.0, {"do": "silence", "stream": "fan"}, None, "no stream 'fan'"))
    played = Played(pump=course(14, 34))
    assert result.text(result.summary(played)).splitlines() == [  # type: ignore[arg-type]
        "1970-01-01 00:00:00  pump: training, model 1 from 600 rows, threshold 4",
        "1970-01-01 01:23:20  pump: alert, warning anomaly, open to the end: flow 5 (expected 1, 90 %)",
        "1970-01-02 00:00:00  pump: training, no new model (rejected): it is worse",
        "1970-01-02 00:00:01  asked, silence fan: refused: no stream 'fan'",
        "",
        "pump: 436 rows, 337 of them judged",
        "  alerts     1 (1 anomaly), 0.5 a week",
        "  in alarm   10.1 % of the judged rows",
        "  trainings  2 (1 promoted, 1 rejected)",
        "  threshold  4 at the end",
        "  faults     0 of 0 found, 1 false alert",
        "",
        "without a reading: bad_json 2",
    ]


def test_a_recording_that_is_over_before_the_warm_up_says_so() -> None:
    result = Rehearsed()
    text = result.text(result.summary(Played(pump=Course(rows=5))))  # type: ignore[arg-type]
    assert "it never had a model" in text
    assert "no row" in result.text(result.summary(Played()))  # type: ignore[arg-type]


def test_what_came_of_an_answer_and_of_a_forced_training_is_said() -> None:
    rounds = [{"outcome": "rejected", "reason": "it is worse"}]
    asked = {"do": "accept", "stream": "pump"}
    assert answer_text(Answered(0.0, asked, {"rounds": rounds}, "")) == "asked, accept pump: rejected: it is worse"
    assert answer_text(Answered(0.0, asked, {}, "")) == "asked, accept pump: done"
    forced = RetrainRecord("pump", "2", 0.0, 2.0, "promoted", 1, 600, "forced: it is worse")
    assert training_text(Trained(0.0, forced, 4.0)).endswith("threshold 4 (forced: it is worse)")
    moved = replace(forced, reason="", threshold={"before": 4.0, "after": 4.5, "why": "an answer moved it"})
    assert training_text(Trained(0.0, moved, 4.5)).endswith("threshold 4.5 (an answer moved it)")


@pytest.mark.parametrize("columns", [1, 7, 100, 337, 1000])
def test_a_picture_has_few_columns_and_loses_no_peak(columns: int) -> None:
    whole = course(14, 0)
    whole.scores[200] = 99.0
    times, scores, thresholds = in_columns(whole, columns)
    assert len(times) == len(scores) == len(thresholds) == min(columns, 337)
    assert scores.max() == 99.0
    assert thresholds[-1] == 5.0
    assert times[0] == 0.0
    assert np.all(np.diff(times) > 0)
