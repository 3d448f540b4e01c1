"""The picture of the demonstration and its plain lines."""

from __future__ import annotations

import re

import pytest
from demo.looks import CAUSES, alert, seen, story_in_the_fault, stream
from drawn import drawn

from gon_edge.demo.picture import Seen, picture, status_line
from gon_edge.demo.story import DemoSettings, Story

HOSTILE = {"feature": "[red]y[/red]\x1b]0;\x07", "value": 1.0, "expected": 2.0, "contribution": 0.5}


def shown(story: Story, look: Seen, width: int = 80, height: int = 23) -> str:
    return drawn(picture(story, look, "pi", width=width, height=height), width)


def test_the_warm_up_shows_the_scores_of_the_shipped_model() -> None:
    story = Story(DemoSettings(fast=True), "pi", "2 busy processes")
    begun = stream("warming-up", starter="shipped:host", score=0.4, threshold=7.0, scores=[0.4] * 20)
    story.observe(0.0, [begun], [])
    look = Seen({"rss_bytes": 46 << 20, "streams": [begun], "alerts": []}, (None, None), "http://h", 9.0)
    text = shown(story, look)
    assert all(part in text for part in ("shipped:host", "score 0.4", "threshold 7", "60 of 60 rows"))
    assert "score 0.4 of 7 by shipped:host" in status_line(look, "pi")


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
    lines = shown(story, look).splitlines()
    assert len(lines) <= 23
    assert max(map(len, lines)) <= 80
    assert any("/metrics" in line for line in lines)
    assert any("01:23" in line for line in lines)


def test_a_low_terminal_loses_the_chart_first() -> None:
    story = story_in_the_fault()
    story.observe(103.0, [stream("scoring")], [alert()])
    lines = shown(story, seen(), height=20).splitlines()
    assert len(lines) <= 20
    assert any("/metrics" in line for line in lines)


def test_the_picture_shows_the_causes_with_value_expectation_and_share() -> None:
    story = story_in_the_fault()
    story.observe(103.0, [stream("scoring")], [alert()])
    text = shown(story, seen())
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
    text = shown(story, look)
    assert "15 of 60 rows, 22 s left" in text
    assert 0.2 < text.count("━") / (80 - len("  15 of 60 rows, 22 s left")) < 0.3
    assert "\x1b" not in text
    assert status_line(look, "pi") == "pi: warming-up, 15 of 60 rows, 22 s left, 1.0 MiB"


def test_names_from_elsewhere_are_no_markup_and_cannot_steer_the_terminal() -> None:
    story = story_in_the_fault()
    story.observe(103.0, [stream("scoring")], [alert(severity="[red]x[/red]", top_features=[HOSTILE])])
    text = shown(story, seen(starter="\x1b[2J", model_version="[b]1[/b]"))
    assert all(part in text for part in ("[red]x[/red]", "[red]y[/red]", "\\x1b]0;", "[b]1[/b]"))
    assert all(c.isprintable() or c == "\n" for c in text)
