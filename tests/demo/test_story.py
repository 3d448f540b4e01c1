"""The story of the demonstration and its picture, without processes; tests/e2e/test_demo.py has them."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Mapping
from typing import Any

import psutil
import pytest
from e2e.servers import wait_until

from gon_edge.commands.terminal import Paint
from gon_edge.demo.story import DemoSettings, Load, Seen, Story, picture, status_line

CAUSES = [
    {"feature": "cpu.total", "value": 99.8, "expected": 12.25, "contribution": 0.6},
    {"feature": "memory.used_percent", "value": 41.0, "expected": 30.0, "contribution": 0.4},
]


def stream(state: str, **fields: Any) -> dict[str, Any]:
    scoring = state == "scoring"
    return {
        "stream": "pi",
        "state": state,
        "rows": 130,
        "rows_needed": 60,
        "eta_s": None,
        "features": 13,
        "score": 0.5 if scoring else None,
        "threshold": 3.0 if scoring else None,
        "scores": [0.5] * 40 if scoring else [],
        "model_version": "1" if scoring else None,
        "starter": None,
        **fields,
    }


def alert(alert_id: str = "a", kind: str = "anomaly", **fields: Any) -> dict[str, Any]:
    return {
        "id": alert_id,
        "type": "new",
        "kind": kind,
        "stream": "pi",
        "since": 1e9,
        "timestamp": 1e9 + 5,
        "score": 9.0,
        "severity": "critical",
        "top_features": CAUSES,
        **fields,
    }


def story_in_the_fault(*before: Mapping[str, Any], busy_percent: float = 5.0) -> Story:
    story = Story(DemoSettings(fast=True), "pi", "2 busy processes")
    story.observe(0.0, [stream("scoring")], before)
    story.fault_began(100.0, busy_percent)
    return story


def seen(**fields: Any) -> Seen:
    status = {"rss_bytes": 46 << 20, "streams": [stream("scoring", **fields)], "alerts": []}
    return Seen(status, (0.0012, 0.0034), "http://127.0.0.1:54321", 83.0)


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


def test_the_warm_up_shows_the_scores_of_the_shipped_model() -> None:
    story = Story(DemoSettings(fast=True), "pi", "2 busy processes")
    begun = stream("warming-up", starter="shipped:host", score=0.4, threshold=7.0, scores=[0.4] * 20)
    story.observe(0.0, [begun], [])
    look = Seen({"rss_bytes": 46 << 20, "streams": [begun], "alerts": []}, (None, None), "http://h", 9.0)
    text = "\n".join(picture(story, look, "pi", width=80, height=23, paint=Paint(False)))
    assert all(part in text for part in ("shipped:host", "score 0.4", "threshold 7", "60 of 60 rows"))
    assert "score 0.4 of 7 by shipped:host" in status_line(look, "pi")


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
    (line,) = story.observe(2.0, [stream("warming-up")], [], trainings)
    assert line.startswith("no model yet: it calls 20 % of the rows it learned abnormal; the next training")
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


def test_an_alert_from_before_the_fault_is_not_its_own() -> None:
    story = story_in_the_fault(alert("old"))
    story.observe(101.0, [stream("scoring")], [alert("old", type="update", score=0.7)])
    assert not story.succeeded
    assert "open before" in story.outcome


def test_an_alert_from_before_the_fault_counts_when_its_score_doubles() -> None:
    story = story_in_the_fault(alert("old"))  # at a score of 0.5
    story.observe(102.0, [stream("scoring")], [alert("old", type="update", score=0.9)])
    assert not story.succeeded
    story.observe(105.0, [stream("scoring")], [alert("old", type="update", score=1.1)])
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


# -- the picture -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", ["warming-up", "training", "scoring"])
@pytest.mark.parametrize("alarmed", [False, True])
def test_everything_fits_80_by_24(state: str, alarmed: bool) -> None:
    story = story_in_the_fault()
    alerts = [alert(top_features=CAUSES * 3)] if alarmed else []
    story.observe(103.0, [stream(state, eta_s=12.0)], alerts)
    look = Seen(
        {"rss_bytes": 46 << 20, "streams": [stream(state, eta_s=12.0, scores=[9.0] * 120)], "alerts": alerts},
        (0.0012, 0.0034),
        "http://127.0.0.1:54321",
        83.0,
    )
    lines = picture(story, look, "pi", width=80, height=23, paint=Paint(False))
    assert len(lines) <= 23
    assert max(map(len, lines)) <= 80
    assert any("/metrics" in line for line in lines)
    assert any("01:23" in line for line in lines)


def test_a_low_terminal_loses_the_chart_first() -> None:
    story = story_in_the_fault()
    story.observe(103.0, [stream("scoring")], [alert()])
    lines = picture(story, seen(), "pi", width=80, height=20, paint=Paint(False))
    assert len(lines) <= 20
    assert any("/metrics" in line for line in lines)


def test_the_picture_shows_the_causes_with_value_expectation_and_share() -> None:
    story = story_in_the_fault()
    story.observe(103.0, [stream("scoring")], [alert()])
    text = "\n".join(picture(story, seen(), "pi", width=80, height=23, paint=Paint(False)))
    assert re.search(r"cpu\.total +99\.8 +12\.25 +60 %", text)
    assert "ALERT  critical anomaly since" in text
    assert "3.0 s after the fault began" in text
    assert "score 0.5   ┄┄ threshold 3" in text
    assert "46.0 MiB   reading to verdict: median 1.2 ms, 99 % within 3.4 ms" in text


def test_the_picture_of_the_warm_up_shows_how_far_it_is() -> None:
    story = Story(DemoSettings(fast=True), "pi", "2 busy processes")
    warming = stream("warming-up", rows=15, eta_s=22.5)
    story.observe(0.0, [warming], [])
    look = Seen({"rss_bytes": 1 << 20, "streams": [warming], "alerts": []}, (None, None), "http://h", 1.0)
    text = "\n".join(picture(story, look, "pi", width=80, height=23, paint=Paint(False)))
    assert "15 of 60 rows, 22 s left" in text
    assert 0.2 < text.count("█") / text.count("░") < 0.4
    assert status_line(look, "pi") == "pi: warming-up, 15 of 60 rows, 22 s left, 1.0 MiB"


# -- the fault ---------------------------------------------------------------------------------------------------------


def children() -> list[psutil.Process]:
    return [child for child in psutil.Process().children() if child.status() != psutil.STATUS_ZOMBIE]


def test_the_load_keeps_cores_busy_and_holds_memory_and_ends_when_told() -> None:
    load = Load(busy=1, memory_bytes=64 << 20, seconds=60.0)
    before = set(children())
    load.begin()
    try:
        busy, hog = wait_until(
            lambda: mine if len(mine := sorted(set(children()) - before, key=lambda p: p.pid)) == 2 else None
        )
        wait_until(lambda: busy.cpu_times().user > 0.2, what="a busy process")
        wait_until(lambda: hog.memory_info().rss > 64 << 20, what="64 MiB held")
    finally:
        load.end()
    assert not set(children()) - before


def test_the_load_ends_by_itself() -> None:
    load = Load(busy=1, memory_bytes=1 << 20, seconds=-0.5)
    before = set(children())
    load.begin()
    try:
        wait_until(lambda: not set(children()) - before, 20.0, "the end of the load")
    finally:
        load.end()


def test_the_load_dies_with_a_demo_that_is_killed() -> None:
    code = (
        "import time\nfrom gon_edge.demo.story import Load\nload = Load(1, 1 << 20, 600.0)\nload.begin()\n"
        "print(*(process.pid for process in load._processes), flush=True)\ntime.sleep(600)\n"
    )
    owner = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert owner.stdout is not None
    processes = [psutil.Process(int(text)) for text in owner.stdout.readline().split()]
    os.kill(owner.pid, signal.SIGKILL)
    owner.wait()
    owner.stdout.close()
    wait_until(
        lambda: not any(p.is_running() and p.status() != psutil.STATUS_ZOMBIE for p in processes),
        what="the end of the load",
    )


def test_the_load_of_this_machine_leaves_three_quarters_of_the_free_memory() -> None:
    load = Load.for_this_machine(1.0)
    assert load._memory_bytes <= min(4 << 30, psutil.virtual_memory().available // 3)
    assert re.fullmatch(r"\d+ busy process(es)? and [\d.]+ [GM]iB of memory", load.text)
