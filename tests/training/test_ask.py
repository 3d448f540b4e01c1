"""What commands ask for while no daemon runs: carried out right here, and found by the next daemon."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from configurations import SMALLEST
from jobs import two_streams

from gon_edge.config.file import parse_config
from gon_edge.config.schema import Config
from gon_edge.errors import InputError, NotEnoughData
from gon_edge.state.database import DATABASE
from gon_edge.state.store import Store
from gon_edge.training.answers import answers, fault_spans, normal_spans
from gon_edge.training.ask import ask


@pytest.fixture
def config(tmp_path: Path) -> Config:
    """A daemon that does not run, with 400 rows of two streams; 100 of the pump's are left out."""
    return two_streams(tmp_path, quarantined=range(200, 300))


def test_accepted_rows_are_released_remembered_and_learned(config: Config) -> None:
    told: list[Any] = []
    (result,) = ask(config, {"do": "accept", "stream": "pump", "since": {"at": 1200.0}}, told.append)["rounds"]
    assert told[0] == {"released": 100}
    assert (result["outcome"], result["rows"], result["exit_code"]) == ("promoted", 400, 0)
    with Store.open(config.state_dir, read_only=True) as store:
        assert normal_spans(store, "pump") == ((1200.0, 1399.0),)
        assert normal_spans(store, "boiler") == ()
        (record,) = store.retrains()
    assert (record.stream, record.outcome, record.version) == ("pump", "promoted", "1")


def test_however_few_rows_are_accepted_they_lead_to_a_model(config: Config) -> None:
    ask(config, {"do": "retrain", "streams": ["pump"]})
    asked = {"do": "accept", "stream": "pump", "since": {"at": 1200.0}, "until": {"at": 1209.0}, "by": "root"}
    (result,) = ask(config, asked)["rounds"]
    assert (result["outcome"], result["version"], result["rows"]) == ("promoted", "2", 310)
    with pytest.raises(NotEnoughData, match="no row is stored of that time; name a time that has some"):
        ask(config, {**asked, "since": {"at": 2000.0}, "until": {"at": 3000.0}})
    with Store.open(config.state_dir, read_only=True) as store:
        (answer,) = answers(store, "pump")
        assert store.rows("pump")[0].size == 310
    assert (answer.answer, answer.span, answer.by, answer.version) == ("accepted", (1200.0, 1209.0), "root", "1")


def alert(config: Config, since: float, until: float, *, kind: str = "anomaly") -> str:
    """An alert that has ended, in the store of a daemon that does not run; its name."""
    name = f"pump-{kind}-{since:.0f}"
    event = {"id": name, "type": "end", "kind": kind, "stream": "pump", "since": since, "timestamp": until}
    causes = [{"feature": "a", "value": 9.0, "expected": 0.5, "contribution": 1.0}]
    shown = {"score": 5.0, "threshold": 3.0, "severity": "warning", "top_features": causes, "model_version": "1"}
    with Store.open(config.state_dir) as store:
        store.add_alert({**event, **shown})
        store.flush(0.0)
    return name


def test_a_wrong_alert_is_learned_at_once_and_its_answer_shown_beside_it(config: Config) -> None:
    ask(config, {"do": "retrain", "streams": ["pump"]})
    name, told = alert(config, 1200.0, 1239.0), list[Any]()
    asked = {"do": "feedback", "alert": name, "answer": "wrong", "note": "cleaned", "by": "root"}
    (result,) = ask(config, asked, told.append)["rounds"]
    assert told[0]["rows"] == 40
    assert (result["outcome"], result["rows"]) == ("promoted", 340)
    assert result["threshold"]["before"] != result["threshold"]["after"]
    with Store.open(config.state_dir, read_only=True) as store:
        shown = store.alert(name)
        (answer,) = answers(store, "pump")
        assert store.retrains(1)[0].threshold == result["threshold"]
        assert store.rows("pump")[0].size == 340
    assert shown is not None
    assert (shown["answer"], shown["note"]) == ("wrong", "cleaned")
    assert answer.threshold == pytest.approx(result["threshold"]["before"])
    again = ask(config, asked)
    assert (again["rounds"], again["again"]) == ([], True)


def test_a_stream_stands_for_its_newest_alert_that_is_an_anomaly(config: Config) -> None:
    alert(config, 1200.0, 1210.0)
    newest = alert(config, 1250.0, 1260.0)
    alert(config, 1270.0, 1280.0, kind="missing")
    answer = ask(config, {"do": "feedback", "alert": "pump", "answer": "true"})["answer"]
    assert (answer["id"], answer["since"], answer["until"]) == (newest, 1250.0, 1260.0)
    with pytest.raises(InputError, match="stream 'boiler' has had no alert yet"):
        ask(config, {"do": "feedback", "alert": "boiler", "answer": "true"})
    with pytest.raises(InputError, match="no alert 'x'; gon-edge alerts lists them"):
        ask(config, {"do": "feedback", "alert": "x", "answer": "true"})
    with pytest.raises(InputError, match="true, expected or wrong"):
        ask(config, {"do": "feedback", "alert": newest, "answer": "maybe"})
    with pytest.raises(InputError, match="the note has 501 characters"):
        ask(config, {"do": "feedback", "alert": newest, "answer": "true", "note": "x" * 501})


def test_a_true_alert_costs_no_training_and_stays_out_whatever_longer_span_is_accepted(config: Config) -> None:
    name = alert(config, 1220.0, 1229.0)
    answered = ask(config, {"do": "feedback", "alert": name, "answer": "true"})
    assert (answered["rounds"], answered["again"]) == ([], False)
    told: list[Any] = []
    (result,) = ask(config, {"do": "accept", "stream": "pump", "since": {"at": 1200.0}}, told.append)["rounds"]
    assert (told[0], result["rows"]) == ({"released": 90}, 390)
    (result,) = ask(config, {"do": "retrain", "streams": ["pump"], "include_quarantined": True})["rounds"]
    assert result["rows"] == 390
    # It was a slip: the newest answer counts.
    (result,) = ask(config, {"do": "feedback", "alert": name, "answer": "expected"})["rounds"]
    assert (result["outcome"], result["rows"]) == ("promoted", 400)
    with Store.open(config.state_dir, read_only=True) as store:
        assert fault_spans(store, "pump") == ()
        assert [one.answer for one in answers(store, "pump")] == ["true", "accepted", "expected"]


def test_a_missed_fault_leaves_the_training_rows_and_can_be_taken_back(config: Config) -> None:
    (result,) = ask(config, {"do": "missed", "stream": "pump", "at": {"at": 1100.0}, "note": "heard it"})["rounds"]
    assert (result["outcome"], result["rows"]) == ("promoted", 285)  # 15 rows are a window here
    with Store.open(config.state_dir, read_only=True) as store:
        (answer,) = answers(store, "pump")
        assert fault_spans(store, "pump") == ((1092.5, 1107.5),)
    assert (answer.answer, answer.note) == ("missed", "heard it")
    (result,) = ask(config, {"do": "feedback", "alert": answer.id, "answer": "wrong"})["rounds"]
    assert result["rows"] == 300
    with pytest.raises(NotEnoughData, match="no row is stored of that time"):
        ask(config, {"do": "missed", "stream": "pump", "at": {"at": 500.0}})


def test_a_silence_is_kept_shown_and_ended(config: Config) -> None:
    asked = {"do": "silence", "stream": "pump", "feature": "a", "for_s": 3600.0, "reason": "new sensor"}
    added = ask(config, asked)["silence"]
    assert (added["stream"], added["feature"], added["until"] - added["since"]) == ("pump", "a", 3600.0)
    whole = ask(config, {"do": "silence", "stream": "pump", "for_s": 60.0})["silence"]
    assert (whole["feature"], whole["reason"]) == ("", "")
    assert [one["feature"] for one in ask(config, {"do": "silences"})["silences"]] == ["", "a"]
    assert ask(config, {"do": "unsilence", "stream": "pump", "feature": ""})["removed"] == [whole]
    assert ask(config, {"do": "unsilence", "stream": "pump"})["removed"] == [added]
    assert ask(config, {"do": "unsilence", "stream": "pump"})["removed"] == []


def test_nothing_is_written_by_those_who_only_look(tmp_path: Path) -> None:
    config = parse_config({**SMALLEST, "state_dir": str(tmp_path / "state")})
    assert ask(config, {"do": "silences"}) == {"silences": []}
    for asked in ({"do": "retrain", "dry_run": True}, {"do": "rollback", "stream": "pump"}):
        with pytest.raises(InputError):
            ask(config, asked)
    assert not config.state_dir.exists()


def test_a_dry_run_answers_jobs_and_trains_nothing(config: Config) -> None:
    jobs = ask(config, {"do": "retrain", "streams": ["pump"], "dry_run": True, "force": True})["jobs"]
    assert [(job["stream"], job["until"], job["version"], job["force"]) for job in jobs] == [
        ("pump", 1399.0, "1", True)
    ]
    assert not (config.state_dir / "models").exists()


def test_a_model_is_rolled_back_and_loaded_again(config: Config) -> None:
    for _ in range(2):
        (result,) = ask(config, {"do": "retrain", "streams": ["boiler"], "force": True})["rounds"]
        assert result["outcome"] == "promoted"
    back = ask(config, {"do": "rollback", "stream": "boiler"})
    assert (back["stream"], back["version"], back["live"]) == ("boiler", "1", False)
    assert ask(config, {"do": "reload-model", "stream": "boiler"})["version"] == "1"
    with pytest.raises(InputError, match="has no model: train one"):
        ask(config, {"do": "reload-model", "stream": "pump"})
    (config.state_dir / DATABASE).write_bytes(b"damaged")
    assert ask(config, {"do": "rollback", "stream": "boiler", "version": "2"})["version"] == "2"
