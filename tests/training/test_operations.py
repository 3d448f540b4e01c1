"""What is asked of streams, checked and carried out; with a daemon and without one it is the same function."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gon_edge.config.file import parse_config
from gon_edge.config.schema import Config
from gon_edge.errors import GonEdgeError, InputError, NotEnoughData, StoreError
from gon_edge.events import Row
from gon_edge.state.store import Store
from gon_edge.training.ask import ask
from gon_edge.training.job import accepted_spans, moment
from gon_edge.training.operations import OPERATIONS, carry_out, orders
from gon_edge.training.site import newest_row

KNOWN = {"pump", "boiler"}


@pytest.fixture
def config(tmp_path: Path) -> Config:
    """A daemon that does not run, with 400 rows of two streams, 100 of them left out."""
    plain = {"mqtt": {"url": "mqtt://localhost"}, "subscriptions": [{"topic": "{stream}"}]}
    config = parse_config({**plain, "state_dir": str(tmp_path / "state"), "streams": {"defaults": {"window": 15}}})
    rng = np.random.default_rng(0)
    with Store.open(config.state_dir) as store:
        for name in sorted(KNOWN):
            for t, values in enumerate(rng.normal(size=(400, 2)).astype(np.float32)):
                row = Row(name, 1000.0 + t, ("a", "b"), values, np.zeros(2, np.bool_), t == 0)
                store.add_row(row, name == "pump" and 200 <= t < 300, now=float(t))
        store.flush(500.0)
    return config


def test_orders_are_checked() -> None:
    assert [o.stream for o in orders({}, KNOWN)] == ["boiler", "pump"]
    (order,) = orders({"streams": ["pump", "pump"], "since": {"ago_s": 60}, "budget_bytes": 5e7, "force": 1}, KNOWN)
    assert (order.why, order.since, order.budget_bytes, order.force) == ("asked", {"ago_s": 60.0}, 50_000_000, True)
    assert orders({"streams": ["new"], "rows_file": "/tmp/x.csv"}, KNOWN)[0].stream == "new"
    for wrong in ({"streams": ["x"]}, {"streams": 7}, {"since": 5}, {"since": {"at": "x"}}, {"budget_bytes": "much"}):
        with pytest.raises(InputError):
            orders(wrong, KNOWN)
    with pytest.raises(InputError, match="no stream yet"):
        orders({}, set())


def test_a_moment_is_a_time_or_counted_from_the_newest_row() -> None:
    with pytest.raises(InputError):
        moment({"when": 1.0}, 5.0)


def test_the_newest_row_and_the_interval_are_those_of_the_store(config: Config) -> None:
    with Store.open(config.state_dir, read_only=True) as store:
        assert newest_row(store, "pump") == (1399.0, 1.0)
        assert newest_row(store, "nobody") == (None, None)


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
    plain = {"mqtt": {"url": "mqtt://localhost"}, "subscriptions": [{"topic": "{stream}"}]}
    config = parse_config({**plain, "state_dir": str(tmp_path / "state")})
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


class _Site:
    """A place where nothing can be written."""

    live = True

    def knows(self, stream: str) -> bool:
        raise OSError(28, "No space left on device")


class _Client:
    gone = False

    def __init__(self) -> None:
        self.refused: list[GonEdgeError | str] = []

    def refuse(self, error: GonEdgeError | str) -> None:
        self.refused.append(error)


@pytest.mark.parametrize("do", sorted(OPERATIONS))
@pytest.mark.parametrize("rest", [{}, {"stream": 7}, {"stream": "pump", "since": 5}, {"streams": 5}])
def test_whatever_is_wrong_with_a_request_is_an_answer_and_ends_nobody(do: str, rest: dict[str, Any]) -> None:
    client = _Client()
    carry_out(_Site(), {"do": do, **rest}, client)  # type: ignore[arg-type]
    assert len(client.refused) == 1


def test_what_cannot_be_written_and_what_is_not_known_say_so() -> None:
    client = _Client()
    carry_out(_Site(), {"do": "silence", "stream": "pump"}, client)  # type: ignore[arg-type]
    carry_out(_Site(), {"do": "dance"}, client)  # type: ignore[arg-type]
    full, unknown = client.refused
    assert isinstance(full, StoreError)
    assert str(full) == "the state directory cannot be written: No space left on device"
    assert "does not know that request" in str(unknown)
