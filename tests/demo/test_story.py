"""The story of the demonstration, without processes; tests/e2e/test_demo.py has them."""

from __future__ import annotations

import re

import pytest
from demo.looks import CAUSES, alert, story_in_the_fault, stream

from gon_edge.demo.story import DemoSettings, Story


def test_a_shipped_model_that_scores_meanwhile_is_told_once_and_gives_way() -> None:
    story = Story(DemoSettings(fast=True), "pi", "2 busy processes")
    begun = {"starter": "shipped:host", "score": 0.4, "threshold": 7.0}
    looks = [stream("warming-up"), stream("warming-up", **begun), stream("training", **begun), stream("scoring")]
    told = [line for now, look in enumerate(looks) for line in story.observe(float(now), [look], [])]
    assert [line.split(":")[0] for line in told] == [
        "the daemon has its first readings",
        "the model shipped",
        "the warm-up is over",
        "model 1 of 13 features takes over",
    ]


def test_the_phases_are_told_once_each_in_order() -> None:
    story = Story(DemoSettings(fast=True), "pi", "2 busy processes")
    told = []
    for now, state in enumerate([None, "warming-up", "warming-up", "training", "training", "scoring", "scoring"]):
        told += story.observe(float(now), [] if state is None else [stream(state)], [])
    assert [re.sub(r":.*", "", line) for line in told] == [
        "the daemon has its first readings",
        "the warm-up is over",
        "model 1 of 13 features is in use",
    ]


def test_a_first_model_that_is_kept_out_is_told_with_the_reason_and_tried_again() -> None:
    story = Story(DemoSettings(fast=True), "pi", "2 busy processes")
    for now, state in enumerate(["warming-up", "training"]):
        story.observe(float(now), [stream(state)], [])
    trainings = [{"stream": "pi", "reason": "it calls 20 % of the rows it learned abnormal"}]
    waits = "no model yet: it calls 20 % of the rows it learned abnormal; another training begins in 59 s"
    assert story.observe(2.0, [stream("warming-up", waits=waits)], [], trainings) == [waits]
    assert "20 %" in story.now_and_next()[0]
    assert story.observe(3.0, [stream("warming-up")], []) == []
    told = [story.observe(float(now), [stream(state)], []) for now, state in ((60, "training"), (61, "scoring"))]
    assert ["is in use" in " ".join(lines) for lines in told] == [False, True]


def test_the_fault_comes_after_some_calm() -> None:
    story = Story(DemoSettings(fast=True), "pi", "2 busy processes")
    due = []
    for now in range(14):
        story.observe(float(now), [stream("scoring")], [])
        due.append(story.fault_due)
    assert due == [False] * 10 + [True] * 4


def test_an_open_alert_holds_the_fault_back_but_not_for_ever() -> None:
    story = Story(DemoSettings(fast=True), "pi", "2 busy processes")
    for now in range(60):
        story.observe(float(now), [stream("scoring")], [alert()])
        assert not story.fault_due, now
    story.observe(60.0, [stream("scoring")], [alert()])
    assert story.fault_due


def test_what_keeps_an_alert_open_before_the_fault_is_accepted_twice_and_then_the_fault_comes_anyway() -> None:
    story = Story(DemoSettings(fast=True), "pi", "2 busy processes")
    accepted = []
    for now in range(120):
        story.observe(float(now), [stream("scoring")], [alert()])
        if story.acceptance_due is not None:
            accepted.append((now, story.acceptance_due))
            (told,) = story.acceptance_began("gon-edge accept pi --since 25s")
            assert told.endswith(": gon-edge accept pi --since 25s")
        if story.fault_due:
            break
    assert accepted == [(25, 25.0), (51, 25.0)]
    assert now == 51 + 60


def test_an_acceptance_that_ends_the_alert_is_followed_by_calm_and_the_fault() -> None:
    story = Story(DemoSettings(fast=True), "pi", "2 busy processes")
    for now in range(26):
        story.observe(float(now), [stream("scoring")], [alert()])
    story.acceptance_began("gon-edge accept pi --since 25s")
    for now in range(26, 38):
        story.observe(float(now), [stream("scoring")], [alert(type="end")])
    assert story.fault_due
    story.fault_began(38.0, 5.0)
    story.observe(40.0, [stream("scoring")], [alert("b")])
    assert story.outcome.startswith("the alert came 2.0 s after")


def test_without_a_fault_none_comes_and_all_is_well() -> None:
    story = Story(DemoSettings(fault=False), "pi", "2 busy processes")
    for now in range(200):
        story.observe(float(now), [stream("scoring")], [])
    assert not story.fault_due
    assert story.succeeded


def test_the_alert_of_the_fault_is_timed() -> None:
    story = story_in_the_fault()
    story.observe(102.0, [stream("scoring")], [])
    assert not story.succeeded
    told = story.observe(104.0, [stream("scoring")], [alert()])
    assert told == [
        "ALERT critical, anomaly: cpu.total 99.8 (expected 12.25, 60 %), memory.used_percent 41 (expected 30, 40 %)"
    ]
    assert (story.succeeded, story.detected_after_s) == (True, 4.0)
    assert story.outcome.startswith("the alert came 4.0 s after the fault began: cpu.total 99.8")


def test_an_alert_that_had_ended_and_is_back_in_the_fault_is_that_of_the_fault() -> None:
    story = story_in_the_fault(alert("old"), alert("older", type="end"))
    told = story.observe(103.0, [stream("scoring")], [alert("old"), alert("older", type="update")])
    assert told[0].startswith("the alert is back: cpu.total")
    assert story.detected_after_s == 3.0


def test_an_alert_from_before_the_fault_is_not_its_own() -> None:
    story = story_in_the_fault(alert("old"))
    story.observe(101.0, [stream("scoring")], [alert("old", type="update", score=0.7)])
    assert not story.succeeded
    assert "open before" in story.outcome


def test_an_alert_from_before_the_fault_counts_when_the_score_rises_by_two() -> None:
    story = story_in_the_fault(alert("old"))  # at a score of 0.5
    story.observe(102.0, [stream("scoring", score=2.4)], [alert("old")])
    assert not story.succeeded
    story.observe(105.0, [stream("scoring", score=2.6)], [alert("old")])
    assert story.outcome.startswith("the alert that was open rose 5.0 s after the fault began: cpu.total")


@pytest.mark.parametrize(
    ("after_s", "kind", "counts"), [(24.0, "anomaly", True), (26.0, "anomaly", False), (5.0, "missing", False)]
)
def test_only_an_anomaly_during_the_fault_or_just_after_counts(after_s: float, kind: str, counts: bool) -> None:
    story = story_in_the_fault()
    story.observe(100.0 + after_s, [stream("scoring")], [alert(kind=kind)])
    assert story.succeeded is counts


def test_an_alert_that_has_ended_still_shows_its_causes_at_its_worst() -> None:
    story = story_in_the_fault()
    story.observe(103.0, [stream("scoring")], [alert()])
    told = story.observe(140.0, [stream("scoring")], [alert(type="end", score=0.1, top_features=[])])
    assert "the alert has ended: the readings are normal again" in told
    assert story.alert is not None
    assert story.alert["top_features"] == CAUSES
    assert story.succeeded


def test_the_fault_ends_by_the_clock() -> None:
    story = story_in_the_fault()
    assert story.observe(114.9, [stream("scoring")], []) == []
    assert story.observe(115.0, [stream("scoring")], []) == ["the fault is over: the fault raised no alert"]
    assert story.phase == "after"


def test_a_machine_that_was_busy_anyway_is_said_to_be_the_reason() -> None:
    assert story_in_the_fault().outcome == "the fault raised no alert"
    assert "this machine was 97 % busy before it" in story_in_the_fault(busy_percent=97.0).outcome
