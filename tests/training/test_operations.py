"""Train, accept, silence from the command line: what is refused, and what people read."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest

from gon_edge.commands import main as cli
from gon_edge.commands.terminal import RoundProgress
from gon_edge.commands.text import plan_exit_code, plan_text, result_text, silences_text
from gon_edge.training.plan import Plan

MIB = 1 << 20
CONFIG = {"mqtt": {"url": "mqtt://localhost"}, "subscriptions": [{"topic": "{stream}"}]}


@pytest.fixture
def config(tmp_path: Path) -> str:
    file = tmp_path / "config.yaml"
    file.write_text(json.dumps({**CONFIG, "state_dir": str(tmp_path / "state")}))
    return str(file)


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    try:
        status = cli.main(list(arguments))
    except SystemExit as error:
        status = int(error.code or 0)
    said = capsys.readouterr()
    return status, said.out, said.err


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


def told(**changes: Any) -> dict[str, Any]:
    plain = {
        "stream": "pump",
        "phase": "fit",
        "share": 0.45,
        "loss": 0.1234567,
        "rss_bytes": 38 * MIB,
        "budget_bytes": 64 * MIB,
        "elapsed_s": 12.0,
        "held": "",
    }
    return {**plain, **changes}


def test_elsewhere_than_on_a_terminal_a_phase_is_a_line() -> None:
    out, now = io.StringIO(), [0.0]
    progress = RoundProgress(out, clock=lambda: now[0])
    progress({"released": 600})
    progress({"stream": "pump", "waiting": "boiler"})
    progress({"stream": "pump", "waiting": "boiler"})
    progress(told())
    progress(told(share=0.5))
    now[0] = 6.0
    progress(told(share=0.55))
    progress(told(phase="gate", share=0.9, loss=None, held="the machine is hot"))
    assert out.getvalue().splitlines() == [
        "600 rows are accepted as normal",
        "pump: waiting for the training of boiler to end",
        "pump: 45 %, fit, loss 0.1235, 38 of 64 MiB, 12 s",
        "pump: 55 %, fit, loss 0.1235, 38 of 64 MiB, 12 s",
        "pump: 90 %, gate, 38 of 64 MiB, 12 s, on hold: the machine is hot",
    ]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_on_a_terminal_a_bar_is_redrawn_and_gone_at_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "100")
    out = Terminal()
    with RoundProgress(out) as progress:
        progress(told())
        progress(told(share=0.5))
    shown = out.getvalue()
    assert "\n" not in shown
    assert "pump ███████████░░░░░░░░░░░░░  45 %  fit, loss 0.1235, 38 of 64 MiB, 12 s" in shown
    assert shown.endswith("\r\x1b[K")


def result(**changes: Any) -> dict[str, Any]:
    gate = {
        "held_out_rows": 900,
        "challenger": {"alarm_rate": 0.001, "separation": {"spike": 0.9, "drift": 0.8}},
        "champion": {"alarm_rate": 0.02, "separation": {"spike": 0.8, "drift": 0.8}},
    }
    plain = {
        "stream": "pump",
        "outcome": "promoted",
        "reason": "",
        "exit_code": 0,
        "version": "3",
        "rows": 20000,
        "duration_s": 12.3,
        "peak_bytes": 47 * MIB,
        "budget_bytes": 64 * MIB,
        "gate": gate,
    }
    return {**plain, **changes}


def test_a_result_says_what_was_compared() -> None:
    assert result_text(result()) == (
        "pump: model 3 is in use, from 20000 rows in 12 s, 47 of 64 MiB\n"
        "  on 900 rows it had not seen: 0.10 % above the threshold (the model before it 2.00 %), injected faults told "
        "apart with ROC-AUC 0.850 (0.800)\n"
    )
    rejected = result(outcome="rejected", reason="it alarms too often", gate=None)
    assert result_text(rejected) == "pump: rejected by the gate: it alarms too often\n"
    assert result_text(result(outcome="failed", reason="power", gate=None)) == "pump: failed: power\n"


def plan(**changes: Any) -> Plan:
    plain: dict[str, Any] = {
        "stored_rows": 90000,
        "quarantined_rows": 120,
        "usable_rows": 89880,
        "rows": 20000,
        "windows": 20000,
        "batch": 512,
        "features": 8,
        "predicted_peak_bytes": 50 * MIB,
        "budget_bytes": 64 * MIB,
        "shrunk": "",
        "refused": "",
    }
    return Plan(**{**plain, **changes})


def test_a_plan_says_what_would_be_learned_and_its_exit_code_what_would_come_of_it() -> None:
    text = plan_text("pump", plan(shrunk="20000 of 89880 rows"))
    assert "20000 of 89880 rows that may be learned, 8 features" in text
    assert "120 of them are left out" in text
    assert "predicted peak 50 MiB, budget 64 MiB" in text
    assert "made smaller: 20000 of 89880 rows" in text
    assert plan_exit_code(plan()) == 0
    assert plan_exit_code(plan(refused="too few")) == 4
    assert plan_exit_code(plan(refused="too much", predicted_peak_bytes=65 * MIB)) == 5
    assert "refused: too few" in plan_text("pump", plan(refused="too few"))


def test_silences_are_a_table() -> None:
    one = {"stream": "pump", "feature": "", "since": 0.0, "until": 1767607473.0, "reason": "new bearing"}
    assert silences_text([one]).splitlines() == [
        "STREAM  FEATURE  UNTIL                    REASON",
        "pump    (all)    2026-01-05 10:04:33 UTC  new bearing",
    ]
