"""Messages of a partition judged: the same in any number at once, whatever is wrong with one of them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from fleet.fleets import BEGAN, MODEL, Heard, config, rows
from states import Sent

from gon_edge.daemon.orders import Machine
from gon_edge.daemon.scoring import Scoring
from gon_edge.fleet.jetstream import Delivered
from gon_edge.fleet.judging import Judging
from gon_edge.fleet.series import Series
from gon_edge.process.clock import Clock
from gon_edge.state.folder import ModelFolder

STREAMS = ("fan", "pump")


class Judged:
    """Streams with a model, and what is judged of them."""

    def __init__(self, folder: Path) -> None:
        for stream in STREAMS:
            ModelFolder(folder / "state").install(stream, MODEL)
        self.heard, self.sent = Heard(), Sent()
        clock = Clock(monotonic=lambda: BEGAN, wall=lambda: BEGAN)
        self.scoring = Scoring(config(folder, "nats://127.0.0.1:1"), self.heard, self.sent, Machine(clock))
        self.judging = Judging(self.scoring, Series(self.heard.registry, 1), 0)

    @property
    def left_out(self) -> float | None:
        return self.heard.registry.get_sample_value("gon_edge_fleet_failed_total", {"partition": "0"})


@pytest.fixture
def judged(tmp_path: Path) -> Iterator[Judged]:
    made = Judged(tmp_path / "one")
    yield made
    made.scoring.store.close()


def messages(count: int) -> list[Delivered]:
    each = [rows(i, range(count), range(100, 130) if i == 0 else ()) for i in range(len(STREAMS))]
    found = []
    for number, payloads in enumerate(zip(*each, strict=True)):
        for stream, payload in zip(STREAMS, payloads, strict=True):
            sequence = len(found) + 1
            at = BEGAN + number + 0.05 * len(found)  # some come in one tick, some do not
            found.append(Delivered(f"fleet.0.telemetry.{stream}", payload, sequence, sequence, at, 0, ""))
    return found


def test_many_at_once_give_the_verdicts_and_events_of_one_at_a_time(judged: Judged, tmp_path: Path) -> None:
    single = Judged(tmp_path / "other")
    for message in messages(220):
        single.judging.take([message])
    judged.judging.take(messages(220))
    assert len(single.heard.verdicts) == 440
    assert {key: repr(found) for key, found in judged.heard.verdicts.items()} == {
        key: repr(found) for key, found in single.heard.verdicts.items()
    }
    assert [event["type"] for event in judged.sent.events] == ["new", "end"]
    assert judged.sent.events == single.sent.events
    assert judged.judging.dirty == single.judging.dirty == {"fan": (1, BEGAN), "pump": (2, BEGAN)}
    assert (judged.judging.sequence, judged.judging.rows, judged.left_out) == (440, 440, 0.0)
    single.scoring.store.close()


def test_a_message_whose_judging_fails_is_left_out_and_counted_and_the_others_are_judged(judged: Judged) -> None:
    judge = judged.scoring.pipeline.judge
    count = iter(range(1000))

    def fails_once(heard: object) -> None:
        if next(count) == 7:
            raise ZeroDivisionError
        judge(heard)  # type: ignore[arg-type]

    judged.scoring.pipeline.judge = fails_once  # type: ignore[method-assign]
    judged.judging.take(messages(30))
    assert (judged.left_out, judged.judging.sequence) == (1.0, 60)
    assert len(judged.heard.verdicts) == 59


def test_what_a_stream_knows_already_is_passed_over(judged: Judged) -> None:
    judged.judging.resume({"sequence": 0, "at": None, "alive": None}, {"fan": 20, "pump": 0})
    judged.judging.take(messages(30))
    assert {stream: sum(key[0] == stream for key in judged.heard.verdicts) for stream in STREAMS} == {
        "fan": 20,
        "pump": 30,
    }
