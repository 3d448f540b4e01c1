"""``gon-edge rehearse`` as a shell runs it, and the files it reads."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import time
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import psutil
import pytest
from program import GON_EDGE, gon_edge

from gon_edge.commands.rehearse import read_faults, read_orders, readings
from gon_edge.errors import InputError
from gon_edge.tables.table import Table

START = 1_700_000_000.0
CONFIG = """
mqtt: {url: "mqtt://nowhere.invalid"}
subscriptions: [{topic: "telemetry/{stream}", timestamp: time}]
streams: {defaults: {warmup_rows: 200, window: 15}}
"""


def iso(row: int) -> str:
    return datetime.fromtimestamp(START + 60.0 * row, UTC).isoformat()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pump a row a minute, faulty from row 300 to 320; what is known of it; and a configuration."""
    folder = tmp_path_factory.mktemp("rehearse")
    rng = np.random.default_rng(0)
    load = rng.normal(size=400)
    values = load[:, None] * [1.0, 0.3, 0.1] + 0.2 * rng.normal(size=(400, 3)) + [20.0, 3.0, 1.0]
    values[300:320, 0] += 8.0
    lines = [f"{iso(i)},{a:.4f},{b:.4f},{c:.4f}" for i, (a, b, c) in enumerate(values)]
    (folder / "pump.csv").write_text("\n".join(["time,flow,pressure,current", *lines]) + "\n")
    (folder / "faults.csv").write_text(f"start,end\n{iso(300)},{iso(320)}\n{iso(350)},{iso(360)}\n")
    (folder / "config.yaml").write_text(CONFIG)
    return folder


def test_a_csv_file_gives_alerts_trainings_and_what_they_add_up_to(folder: Path) -> None:
    answers = folder / "answers.jsonl"
    answers.write_text(json.dumps({"time": iso(390), "do": "accept", "stream": "other", "since": "2h"}) + "\n\n")
    files = ["--labels", folder / "faults.csv", "--answers", answers, "--alerts", folder / "alerts.jsonl"]
    files += ["--report", folder / "out.html"]
    done = gon_edge("rehearse", str(folder / "pump.csv"), "--config", str(folder / "config.yaml"), *map(str, files))
    assert done.returncode == 0, done.stderr
    shown = [re.sub(r"threshold +[0-9.]+", "threshold X", line) for line in done.stdout.splitlines()]
    assert shown[0] == "2023-11-15 01:32:20  pump: training, model 1 from 200 rows, threshold X"
    assert re.fullmatch(r"2023-11-15 03:1[3-8]:20  pump: alert, (critical|warning) anomaly, .*: flow .*", shown[1])
    assert shown[2] == "2023-11-15 04:43:20  asked, accept other: refused: no stream 'other'; there are: pump"
    assert shown[3:5] == ["", "pump: 400 rows, 200 of them judged"]
    assert shown[5] == "  alerts     1 (1 anomaly)"
    assert re.fullmatch(r"  faults     1 of 2 found, after \d min \(at most \d min\), 0 false alerts", shown[-1])
    events = [json.loads(line) for line in (folder / "alerts.jsonl").read_text().splitlines()]
    assert [events[0]["type"], events[-1]["type"]] == ["new", "end"]
    assert (folder / "out.html").read_text().startswith("<!doctype html>")
    assert not (folder / "state").exists()


def test_the_result_is_json_for_a_script(folder: Path) -> None:
    short = folder / "short.csv"
    short.write_text("".join((folder / "pump.csv").read_text().splitlines(keepends=True)[:50]))
    done = gon_edge("rehearse", str(short), "--config", str(folder / "config.yaml"), "--stream", "boiler", "--json")
    found = json.loads(done.stdout)
    assert found["streams"]["boiler"]["rows"] == 49
    assert found["streams"]["boiler"]["judged"] == 0
    assert (found["alerts"], found["trainings"], found["answers"]) == ([], [], [])


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_nothing_is_left_behind_when_it_is_ended(folder: Path, tmp_path: Path, number: signal.Signals) -> None:
    command = [*GON_EDGE, "rehearse", str(folder / "pump.csv"), "--config", str(folder / "config.yaml")]
    process = subprocess.Popen(command, env={**os.environ, "TMPDIR": str(tmp_path)}, stderr=subprocess.PIPE)
    deadline = time.monotonic() + 120.0
    while not any("gon_edge.training.child" in child.cmdline() for child in psutil.Process(process.pid).children()):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(number)
    assert process.wait(60) == 130
    assert process.stderr is not None
    assert b"Traceback" not in process.stderr.read()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        (["missing.csv"], 66, "missing.csv: cannot be read"),
        (["pump.csv", "--time-column", "when"], 66, "no column 'when' for --time-column"),
        (["capture.jsonl", "--stream", "pump"], 2, "leave --stream and --time-column out"),
        (["pump.csv", "--labels", "pump.csv"], 66, "no column 'start' for --labels"),
        (["pump.csv", "--answers", "missing.jsonl"], 66, "missing.jsonl: cannot be read"),
        (["pump.csv", "--alerts", "missing/alerts.jsonl"], 73, "missing/alerts.jsonl: cannot be written"),
    ],
)
def test_what_is_wrong_is_one_line_and_a_status(
    folder: Path, monkeypatch: pytest.MonkeyPatch, options: list[str], code: int, said: str
) -> None:
    monkeypatch.chdir(folder)
    (folder / "capture.jsonl").write_text('{"gon-edge capture":1,"topics":["#"],"received_at":1.0,"wall":1.7e9}\n')
    done = gon_edge("rehearse", *options, "--config", "config.yaml")
    assert done.returncode == code
    assert said in done.stderr
    assert done.stderr.startswith("gon-edge: ")


def test_cells_are_what_replay_would_send_and_the_daemon_hear(tmp_path: Path) -> None:
    file = tmp_path / "x.csv"
    file.write_text(f"timestamp,a,b,c,d\n{START:.0f},1.5,,idle,on\n{START + 1:.0f},nan,2,3,off\n")
    with Table(str(file)) as table:
        first, second = readings(table, "x")
    assert (first.stream, first.timestamp) == ("x", START)
    assert (first.values, first.masked) == ({"a": 1.5, "d": 1.0}, {"b": "null", "c": "text"})
    assert (second.values, second.masked) == ({"b": 2.0, "c": 3.0, "d": 0.0}, {"a": "nan"})


@pytest.mark.parametrize(
    ("text", "said"),
    [("a,b\n1,2\n", r"name the column of the time with --time-column \(a, b\)"), ("time,a\nsoon,1\n", ":2: 'soon' is")],
)
def test_rows_need_a_time(tmp_path: Path, text: str, said: str) -> None:
    file = tmp_path / "x.csv"
    file.write_text(text)
    with pytest.raises(InputError, match=said), Table(str(file)) as table:
        list(readings(table, "x"))


def test_each_machine_of_a_file_is_a_stream_in_order_of_time(tmp_path: Path) -> None:
    file = tmp_path / "x.csv"
    file.write_text("time;machine;a\n" + "".join(f"{t};{who};{t},5\n" for who in ("x/1", "y") for t in range(3)))
    with Table(str(file)) as table:
        heard = [(reading.timestamp, reading.stream, reading.values) for reading in readings(table, None)]
    assert heard == [(float(t), who, {"a": t + 0.5}) for t in range(3) for who in ("x-1", "y")]


def test_answers_are_written_as_on_the_command_line_or_as_commands_send_them(tmp_path: Path) -> None:
    file = tmp_path / "answers.jsonl"
    lines = [
        {"time": START, "do": "silence", "stream": "pump", "for": "2h", "reason": "work"},
        {"time": "2023-11-15T10:00", "do": "accept", "stream": "pump", "since": "2h", "until": "2023-11-15T09:00"},
        {"time": START, "do": "accept", "stream": "pump", "since": {"ago_s": 60.0}},
        {"time": START, "do": "missed", "stream": "pump", "at": "5m"},
    ]
    file.write_text("\n".join(map(json.dumps, lines)))
    silence, accept, sent, missed = read_orders(str(file))
    assert silence == (START, {"do": "silence", "stream": "pump", "for_s": 7200.0, "reason": "work"})
    assert accept.at == 1_700_042_400.0
    assert accept.asked["since"] == {"ago_s": 7200.0}
    assert accept.asked["until"] == {"at": 1_700_038_800.0}
    assert sent.asked["since"] == {"ago_s": 60.0}
    assert missed == (START, {"do": "missed", "stream": "pump", "at": {"ago_s": 300.0}})


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("{", "is no order"),
        ("[1]", "is no order"),
        ('{"do": "accept"}', "'time' is missing"),
        ('{"time": 1700000000}', "'do' is missing"),
        ('{"time": "soon", "do": "accept"}', "is no order"),
        ('{"time": 1700000000, "do": 5}', "do is no text"),
        ('{"time": 1700000000, "do": "accept", "since": "yore"}', "write a duration"),
        ('{"time": 1700000000, "do": "silence", "for": "yore"}', "write a duration"),
    ],
)
def test_a_line_that_is_no_order_is_named(tmp_path: Path, line: str, said: str) -> None:
    file = tmp_path / "answers.jsonl"
    file.write_text(f"\n{line}\n")
    with pytest.raises(InputError, match=f"answers.jsonl:2: .*{said}"):
        read_orders(str(file))


def test_known_faults_come_in_order_and_wrong_ones_are_named(tmp_path: Path) -> None:
    file = tmp_path / "faults.csv"
    file.write_text("stream,start,end,what\npump,200,300,x\n ,100,100,y\n")
    assert read_faults(str(file)) == [(100.0, 100.0, ""), (200.0, 300.0, "pump")]
    for wrong in ("200,100", "soon,100"):
        file.write_text(f"start,end\n{wrong}\n")
        with pytest.raises(InputError, match=r"faults.csv:2: "):
            read_faults(str(file))
