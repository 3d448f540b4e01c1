"""Which answers count, and which rows they make normal or a fault."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path

from gon_edge.state.store import Store
from gon_edge.training.answers import (
    ANSWERS_KEPT,
    Answer,
    answers,
    counting,
    fault_spans,
    normal_spans,
    overlap,
    remember,
)

WRONG = Answer("pump-1", "wrong", "pump", 10.0, 20.0, at=100.0, by="root", note="cleaned", version="3", threshold=2.5)


def test_answers_survive_a_restart_and_the_newest_about_one_thing_counts(tmp_path: Path) -> None:
    fault = Answer("pump-2", "missed", "pump", 30.0, 40.0, at=101.0)
    slip = replace(WRONG, answer="true", at=102.0)
    with Store.open(tmp_path) as store:
        for answer in (WRONG, fault, slip):
            remember(store, answer)
        store.flush(0.0)
    with Store.open(tmp_path, read_only=True) as store:
        assert answers(store, "pump") == [WRONG, fault, slip]
        assert counting(answers(store, "pump")) == [fault, slip]
        assert normal_spans(store, "pump") == ()
        assert fault_spans(store, "pump") == ((30.0, 40.0), (10.0, 20.0))
        assert answers(store, "boiler") == []


def test_what_was_called_normal_after_some_time_is_told_apart(tmp_path: Path) -> None:
    with Store.open(tmp_path) as store:
        store.put_state("accepted/pump", [[1.0, 2.0]])
        for number, word in enumerate(("wrong", "expected", "accepted", "true")):
            remember(store, Answer(f"a{number}", word, "pump", 10.0 * number, 10.0 * number + 5.0, at=float(number)))
        assert normal_spans(store, "pump") == ((1.0, 2.0), (0.0, 5.0), (10.0, 15.0), (20.0, 25.0))
        assert normal_spans(store, "pump", after=1.0) == ((20.0, 25.0),)


def test_the_log_is_bounded_and_what_damage_left_of_it_is_read(tmp_path: Path) -> None:
    with Store.open(tmp_path) as store:
        for number in range(ANSWERS_KEPT + 5):
            remember(store, replace(WRONG, id=f"pump-{number}"))
        kept = answers(store, "pump")
        assert (len(kept), kept[0].id) == (ANSWERS_KEPT, "pump-5")
        store.put_state("answers/pump", [asdict(WRONG), {"id": 7}, "text", None, {**asdict(WRONG), "colour": "red"}])
        assert answers(store, "pump") == [WRONG]
        store.put_state("answers/pump", "text")
        assert answers(store, "pump") == []


def test_spans_overlap_by_their_common_part() -> None:
    assert overlap((10.0, 20.0), []) == []
    assert overlap((10.0, 20.0), [(20.0, 30.0), (0.0, 9.0), (0.0, 99.0)]) == [(20.0, 20.0), (10.0, 20.0)]
