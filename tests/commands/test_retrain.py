"""Train, accept, silence from the command line: what is refused, and what people read."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from shell import run

from gon_edge.commands import main as cli

MIB = 1 << 20
CONFIG = {"mqtt": {"url": "mqtt://localhost"}, "subscriptions": [{"topic": "{stream}"}], "retrain": {"nice": 0}}


@pytest.fixture
def config(tmp_path: Path) -> str:
    file = tmp_path / "config.yaml"
    file.write_text(json.dumps({**CONFIG, "state_dir": str(tmp_path / "state")}))
    return str(file)


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (["retrain"], 2, "name the streams to train, or write --all"),
        (["retrain", "pump", "--all"], 2, "name the streams to train, or write --all"),
        (["retrain", "a", "b", "--from", "x.csv"], 2, "--from is for one stream"),
        (["retrain", "a", "--from", "/nonexistent.csv"], 66, "/nonexistent.csv: no such file"),
        (["retrain", "a", "--since", "tomorrow"], 2, "write a duration such as 2h or 7d, or a time"),
        (["retrain", "a", "--memory-budget", "lots"], 2, "write a size such as 64MiB"),
        (["retrain", "--all"], 66, "there is no stream yet"),
        (["retrain", "pump"], 66, "no stream 'pump'; there are: none yet"),
        (["accept", "pump"], 2, "--since"),
        (["accept", "pump", "--since", "2h"], 66, "no stream 'pump'"),
        (["silence", "add", "pump"], 2, "--for"),
        (["silence", "add", "pump", "--for", "0s"], 2, "write more than 0 and at most 366d"),
        (["silence", "add", "pump", "--for", "400d"], 2, "write more than 0 and at most 366d"),
        (["silence", "add", "pump", "--for", "1h"], 66, "no stream 'pump'"),
        (["silence", "rm", "pump"], 66, "pump is not silenced"),
        (["silence"], 2, "COMMAND"),
    ],
)
def test_what_cannot_be_done_is_one_line_with_its_exit_code(
    capsys: pytest.CaptureFixture[str], config: str, arguments: list[str], status: int, said: str
) -> None:
    where = ["--config", config] if arguments != ["silence"] else []
    got, out, err = run(capsys, *arguments, *where)
    assert (got, out) == (status, "")
    assert said in err
    if status != 2:
        assert err.count("\n") == 1


def minutes(path: Path) -> None:
    """Rows a minute apart, with decimal commas."""
    rng = np.random.default_rng(0)
    rows = rng.normal(20.0, 1.0, (200, 2))
    begin = datetime(2026, 1, 13, tzinfo=UTC)
    lines = ["Zeit;a;b"]
    lines += [
        f"{begin + timedelta(minutes=i):%d.%m.%Y %H:%M};" + f"{a:.2f};{b:.2f} °C".replace(".", ",")
        for i, (a, b) in enumerate(rows)
    ]
    path.write_text("\n".join(lines), encoding="utf-8")


def test_a_plan_from_a_file_says_how_it_was_read(
    capsys: pytest.CaptureFixture[str], config: str, tmp_path: Path
) -> None:
    minutes(tmp_path / "a.csv")
    status, out, err = run(
        capsys, "retrain", "pump", "--from", str(tmp_path / "a.csv"), "--since", "2h", "--dry-run", "--config", config
    )
    assert status == 0, err
    assert "121 rows, every 60 s, time from Zeit (day first), cells cut by semicolons, decimal comma" in err
    assert "79 rows outside the span left out" in err
    assert "121" in out


@pytest.mark.parametrize(
    ("text", "options", "status", "said"),
    [
        ("time,a\n1,x\n2,y\n", [], 66, "its cells are no numbers, such as 'x' in line 2"),
        ("time,host,a\n1,x,1\n1,y,1\n2,x,1\n2,y,1\n", [], 66, "learn from one machine; name it with --only: x, y"),
        ("a\n1\n", ["--encoding", "klingon"], 2, "write an encoding such as latin-1"),
    ],
)
def test_a_file_that_cannot_be_learned_from_trains_nothing(
    capsys: pytest.CaptureFixture[str],
    config: str,
    tmp_path: Path,
    text: str,
    options: list[str],
    status: int,
    said: str,
) -> None:
    (tmp_path / "a.csv").write_text(text)
    got, out, err = run(capsys, "retrain", "pump", "--from", str(tmp_path / "a.csv"), *options, "--config", config)
    assert (got, out) == (status, "")
    assert said in err


def test_how_a_file_is_read_is_nothing_for_the_store(capsys: pytest.CaptureFixture[str], config: str) -> None:
    status, _, err = run(capsys, "retrain", "pump", "--decimal", ",", "--config", config)
    assert (status, "how a file is read goes with --from" in err) == (2, True)


def test_without_a_configuration_the_usual_places_are_looked_at(
    capsys: pytest.CaptureFixture[str], config: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GON_EDGE_CONFIG", "/nonexistent.yaml")
    status, _, err = run(capsys, "silence", "list")
    assert (status, err) == (
        78,
        "gon-edge: /nonexistent.yaml: no such file; name the configuration with --config FILE\n",
    )
    monkeypatch.setenv("GON_EDGE_CONFIG", config)
    assert run(capsys, "silence", "list")[:2] == (0, "nothing is silenced\n")
    assert run(capsys, "silence", "list", "--json")[:2] == (0, "[]\n")


def test_a_first_model_can_come_from_a_file(capsys: pytest.CaptureFixture[str], config: str, tmp_path: Path) -> None:
    lines = ["time,flow,current", *(f"{t},{20 + t % 7},{1 + t % 5}" for t in range(400))]
    (tmp_path / "rows.csv").write_text("\n".join(lines))
    arguments = ["retrain", "pump", "--from", str(tmp_path / "rows.csv"), "--json", "--config", config]
    status, out, err = run(capsys, *arguments)
    assert status == 0, err
    (result,) = json.loads(out)
    assert (result["stream"], result["outcome"], result["version"], result["rows"]) == ("pump", "promoted", "1", 400)
    assert (tmp_path / "state" / "models" / "pump" / "model.npz").exists()


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2h", {"ago_s": 7200.0}),
        ("90", {"ago_s": 90.0}),
        ("1h30m", {"ago_s": 5400.0}),
        ("1767607473", {"at": 1767607473.0}),
        ("2026-01-05T10:04:33", {"at": 1767607473.0}),
        ("2026-01-05T11:04:33+01:00", {"at": 1767607473.0}),
        ("2026-01-05", {"at": 1767571200.0}),
    ],
)
def test_times_are_durations_dates_or_unix_seconds(text: str, moment: dict[str, float]) -> None:
    assert cli.build_parser().parse_args(["accept", "pump", "--since", text]).since == moment
