"""Answering from the command line: what is refused, and what people read."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from jobs import two_streams
from shell import run

from gon_edge.config.schema import Config
from gon_edge.state.store import Store


@pytest.fixture
def config(tmp_path: Path) -> str:
    """The file of a daemon that does not run, with 400 rows of two streams; an alert was open on 40 of the pump's."""
    made: Config = two_streams(tmp_path, quarantined=range(200, 240))
    event = {"id": "pump-anomaly-1", "type": "end", "kind": "anomaly", "stream": "pump", "since": 1200.0}
    causes = [{"feature": "a", "value": 9.0, "expected": 0.5, "contribution": 1.0}]
    shown = {"score": 5.0, "threshold": 3.0, "severity": "warning", "top_features": causes, "model_version": "1"}
    with Store.open(made.state_dir) as store:
        store.add_alert({**event, **shown, "timestamp": 1239.0})
        store.flush(0.0)
    mapping = {"mqtt": {"url": "mqtt://localhost"}, "subscriptions": [{"topic": "{stream}"}]}
    file = tmp_path / "config.yaml"
    file.write_text(json.dumps({**mapping, "state_dir": str(made.state_dir), "streams": {"defaults": {"window": 15}}}))
    return str(file)


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (["feedback", "pump-anomaly-1"], 2, "ANSWER"),
        (["feedback", "pump-anomaly-1", "maybe"], 2, "invalid choice"),
        (["feedback", "nobody", "true"], 66, "no alert 'nobody'; gon-edge alerts lists them with their names"),
        (["feedback", "boiler", "true"], 66, "stream 'boiler' has had no alert yet"),
        (["missed", "pump"], 2, "--at"),
        (["missed", "pump", "--at", "tomorrow"], 2, "write a duration such as 2h or 7d, or a time"),
        (["missed", "fan", "--at", "1h"], 66, "no stream 'fan'; there are: boiler, pump"),
        (["missed", "pump", "--at", "2026-01-05"], 4, "no row is stored of that time; name another one by --at"),
        (["accept", "pump"], 2, "--since"),
        (["accept", "fan", "--since", "2h"], 66, "no stream 'fan'"),
    ],
)
def test_what_cannot_be_done_is_one_line_with_its_exit_code(
    capsys: pytest.CaptureFixture[str], config: str, arguments: list[str], status: int, said: str
) -> None:
    got, out, err = run(capsys, *arguments, "--config", config)
    assert (got, out) == (status, "")
    assert said in err
    if status != 2:
        assert err.count("\n") == 1


def test_an_alert_is_answered_and_people_see_both_thresholds(
    capsys: pytest.CaptureFixture[str], config: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SUDO_USER", "ada")
    where = ("--config", config)
    assert run(capsys, "retrain", "pump", *where)[0] == 0
    status, out, err = run(capsys, "feedback", "pump", "wrong", "--note", "cleaned", *where)
    assert (status, err.splitlines()[0]) == (
        0,
        "pump-anomaly-1: wrong; 40 rows that were left out are learned as normal",
    )
    assert out.startswith("pump: model 2 is in use, from 400 rows in ")
    assert "\n  threshold " in out
    assert " (before: " in out
    status, out, _ = run(capsys, "feedback", "pump", "wrong", "--note", "cleaned", *where)
    assert status == 0
    assert out.startswith("pump: that was answered before; the threshold stays ")
    status, out, _ = run(capsys, "alerts", *where)
    assert status == 0
    head, alert = out.splitlines()
    assert head.split() == ["ALERT", "SINCE", "(UTC)", "LASTED", "SEVERITY", "ANSWER", "CAUSES"]
    assert alert.startswith("pump-anomaly-1 ")
    assert "  39 s    warning   wrong: cleaned  a 9 (expected 0.5, 100 %)" in alert
    (given,) = json.loads(run(capsys, "alerts", "pump", "--json", *where)[1])["answers"]
    assert (given["by"], given["answer"], given["version"]) == ("ada", "wrong", "1")


def test_a_true_alert_needs_no_training_and_a_missed_fault_is_listed(
    capsys: pytest.CaptureFixture[str], config: str
) -> None:
    where = ("--config", config)
    status, out, _ = run(capsys, "feedback", "pump-anomaly-1", "true", *where)
    assert (status, out) == (0, "pump: its rows were never learned, and it was told: the threshold stays -\n")
    status, out, err = run(capsys, "missed", "boiler", "--at", "1100s", "--note", "a knock", *where)
    assert status == 4, out
    assert "no row is stored" in err
    status, out, err = run(capsys, "missed", "boiler", "--at", "300s", "--note", "a knock", *where)
    assert status == 0, out + err
    assert err.splitlines()[0] == "boiler-missed-1099: missed; 15 more rows are left out"
    listed = run(capsys, "alerts", *where)[1].splitlines()
    assert listed[2:4] == ["", "ANSWER ABOUT        GIVEN (UTC)       BY    ROWS SINCE (UTC)  UNTIL (UTC)       ANSWER"]
    assert listed[4].startswith("boiler-missed-1099  ")
    assert listed[4].endswith("  missed: a knock")
    assert run(capsys, "alerts", "fan", *where)[1] == "no alert yet\n"


def test_the_parser_offers_the_answers_there_are() -> None:
    from gon_edge.commands.answers import _ANSWERS
    from gon_edge.events import ALERT_ANSWERS

    assert _ANSWERS == ALERT_ANSWERS
