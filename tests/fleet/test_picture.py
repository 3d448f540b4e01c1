"""The picture of a fleet: what a person looks for is in it, and it fits a terminal."""

from __future__ import annotations

import io
from dataclasses import replace

from fleet.test_look import ALERT, LOOK
from rich.console import Console

from gon_edge.fleet.look import Owned
from gon_edge.fleet.picture import Moment, colour_of, picture, status_line

MOMENT = Moment(
    look=LOOK,
    way="200 devices, by NATS, to 2 workers",
    devices=200,
    sent=1000,
    acknowledged=990,
    rows_s=198.4,
    running_s=65.0,
    left_s=30.0,
    news=("12:00:00 w2 is killed",),
    dead=("w2",),
)


def drawn(moment: Moment) -> str:
    console = Console(file=io.StringIO(), width=80, height=24, force_terminal=False)
    console.print(picture(moment))
    return console.file.getvalue()


def test_before_the_workers_are_there_it_says_so() -> None:
    assert "servers and workers start" in drawn(replace(MOMENT, look=None))
    assert status_line(replace(MOMENT, look=None)) == "servers and workers start"


def test_workers_partitions_alerts_and_news_fit_80_by_24() -> None:
    page = drawn(MOMENT)
    assert len(page.splitlines()) <= 24
    assert max(map(len, page.splitlines())) <= 80
    for text in ("01:05, 30.0 s left", "rows a second 198", "wait 11", "alerts 1", "w2", "killed", "nobody", "flow 1"):
        assert text in page.replace("30 s", "30.0 s"), text


def test_a_dead_worker_keeps_its_colour_and_the_others_theirs() -> None:
    before = colour_of(replace(MOMENT, dead=()))
    assert {name: colour_of(MOMENT)[name] for name in before} == before
    assert "w2" in colour_of(MOMENT)


def test_of_many_partitions_and_alerts_the_first_are_shown_and_the_rest_counted() -> None:
    look = replace(LOOK, partitions=tuple(Owned(i, "w1", 1) for i in range(40)), alerts=(ALERT,) * 9)
    page = drawn(replace(MOMENT, look=look))
    assert "and 24 more" in page
    assert "and 4 more alerts" in page


def test_foreign_text_cannot_steer_the_terminal() -> None:
    look = replace(LOOK, alerts=({**ALERT, "stream": "\x1b[2J"},))
    assert "\x1b[2J" not in drawn(replace(MOMENT, look=look))


def test_one_line_says_who_has_what() -> None:
    assert status_line(MOMENT) == (
        "1000 rows sent, 198 a second scored, 11 wait, 1 alerts open, 99 % of verdicts within 50 ms; w1 has 0-1"
    )
