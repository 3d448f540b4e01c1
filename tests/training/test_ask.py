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
from gon_edge.training.ask import ask
from gon_edge.training.job import accepted_spans


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
        assert accepted_spans(store, "pump") == ((1200.0, 1399.0),)
        assert accepted_spans(store, "boiler") == ()
        (record,) = store.retrains()
    assert (record.stream, record.outcome, record.version) == ("pump", "promoted", "1")


def test_too_few_rows_to_accept_are_released_all_the_same_and_the_newest_spans_kept(config: Config) -> None:
    asked = {"do": "accept", "stream": "pump", "until": {"at": 1209.0}}
    with pytest.raises(NotEnoughData, match="10 rows that were left out"):
        ask(config, {**asked, "since": {"at": 1200.0}})
    for i in range(40):
        with pytest.raises(NotEnoughData, match="0 rows that were left out"):
            ask(config, {**asked, "since": {"at": 1100.0 + i}})
    with Store.open(config.state_dir, read_only=True) as store:
        spans = accepted_spans(store, "pump")
        assert store.rows("pump")[0].size == 310
    assert (len(spans), spans[-1]) == (32, (1139.0, 1209.0))


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
