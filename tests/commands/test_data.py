"""Publish, replay and score, as a user has them."""

from __future__ import annotations

import csv
import io
import json
import re
import signal
import subprocess
from pathlib import Path

import numpy as np
import pytest
from e2e.servers import Mosquitto, require, wait_until
from program import GON_EDGE, gon_edge

from gon_edge import GONDetector
from gon_edge.commands.main import main
from gon_edge.model.file import Model, save_model
from gon_edge.training.fit import fit_model

# -- publish and replay ------------------------------------------------------------------------------------------------


def test_publish_sends_this_machines_telemetry_until_ctrl_c(mosquitto: Mosquitto) -> None:
    process = subprocess.Popen(
        [*GON_EDGE, "publish", "--broker", mosquitto.url, "--stream", "me", "--interval", "100ms"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    command = [require("mosquitto_sub"), "-p", str(mosquitto.port), "-t", "telemetry/me", "-C", "3", "-W", "20"]
    payloads = [json.loads(line) for line in subprocess.check_output(command, text=True).splitlines()]
    process.send_signal(signal.SIGINT)
    output, errors = process.communicate(timeout=60)
    assert all(0.0 <= payload["memory.used_percent"] <= 100.0 for payload in payloads)
    assert "cpu.total" in payloads[-1]
    assert (process.returncode, output) == (130, "")
    assert errors == f"publishing to {mosquitto.url}, topic telemetry/me, every 0.1 s; Ctrl-C ends it\n"


def test_replay_says_on_stdout_what_it_sent(mosquitto: Mosquitto, tmp_path: Path) -> None:
    path = tmp_path / "pump.csv"
    path.write_text("t,x\n" + "".join(f"{t},{t}\n" for t in range(100)))
    common = ["replay", str(path), "--broker", mosquitto.url, "--stream", "pump", "--as-fast-as-possible"]
    result = gon_edge(*common)
    assert result.returncode == 0
    assert result.stderr == f"gon-edge: {path}: 100 rows, no column of times\n  200 cells read, 0 dropped\n"
    assert re.fullmatch(
        r"sent 100 rows to telemetry/pump: 100 acknowledged, [\d.]+ s, \d+ rows a second\n", result.stdout
    )
    report = json.loads(gon_edge(*common, "--json", "--limit", "10", "--topic", "a/{stream}/b").stdout)
    assert (report["sent"], report["acknowledged"], report["topic"]) == (10, 10, "a/pump/b")


def test_replay_reads_standard_input(mosquitto: Mosquitto) -> None:
    result = gon_edge(
        "replay", "-", "--broker", mosquitto.url, "--stream", "s", "--as-fast-as-possible", stdin="a;b\n1;2\n"
    )
    assert result.stdout.startswith("sent 1 rows")


def test_rows_the_broker_refuses_make_replay_fail(tmp_path: Path) -> None:
    acl = tmp_path / "acl"
    acl.write_text("topic read telemetry/#\n")
    acl.chmod(0o600)
    broker = Mosquitto(tmp_path / "broker", settings=f"acl_file {acl}")
    broker.start()
    try:
        result = gon_edge(
            "replay", "-", "--broker", broker.url, "--stream", "s", "--as-fast-as-possible", stdin="a\n1\n2\n"
        )
    finally:
        broker.kill()
    assert result.returncode == 1
    assert re.search(r"0 acknowledged, 2 refused \(Not authorized\)", result.stdout)
    assert result.stderr.endswith("\ngon-edge: 2 of 2 rows were not acknowledged\n")


def test_ctrl_c_in_a_replay_is_130_and_silent(mosquitto: Mosquitto) -> None:
    process = subprocess.Popen(
        [*GON_EDGE, "replay", "-", "--broker", mosquitto.url, "--stream", "s", "--time-column", "t"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None
    process.stdin.write("t,x\n0,1\n1000000,2\n")
    process.stdin.flush()
    wait_until(lambda: "Received PUBLISH" in mosquitto.log)
    process.send_signal(signal.SIGINT)
    output, errors = process.communicate(timeout=60)
    assert (process.returncode, output) == (130, "")
    assert errors == "gon-edge: standard input: time from t (Unix)\n"


# -- score -------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def model() -> Model:
    rng = np.random.default_rng(0)
    rows = rng.normal(20.0, 0.5, (400, 2))
    return fit_model(rows, features=["flow", "level"], rng=rng).with_lineage(version="7")


@pytest.fixture
def model_path(model: Model, tmp_path: Path) -> str:
    path = tmp_path / "model.npz"
    save_model(model, path)
    return str(path)


def table(rows: np.ndarray, header: str = "when,level,flow") -> str:
    lines = [f"2020-01-01 00:00:{t:02d},{level!r},{flow!r}" for t, (flow, level) in enumerate(rows.tolist())]
    return "\n".join([header, *lines]) + "\n"


def test_score_agrees_with_the_array_face_and_names_the_feature(model: Model, model_path: str) -> None:
    rows = np.random.default_rng(1).normal(20.0, 0.5, (50, 2))
    rows[40:, 1] = 90.0
    result = gon_edge("score", "--model", model_path, "-", "--time-column", "when", stdin=table(rows))
    assert result.returncode == 0, result.stderr
    scored = list(csv.DictReader(io.StringIO(result.stdout)))
    assert list(scored[0]) == ["when", "score", "threshold", "is_anomaly", "top_feature"]
    detector = GONDetector()
    detector.model_ = model
    expected = detector.decision_function(rows.astype(np.float32))
    np.testing.assert_allclose([float(row["score"]) for row in scored], expected, rtol=1e-4)
    assert [int(row["is_anomaly"]) for row in scored] == (expected > model.threshold).astype(int).tolist()
    assert scored[0]["top_feature"] == ""
    assert scored[-1]["top_feature"] == "level"
    assert scored[-1]["when"] == "2020-01-01 00:00:49"
    assert re.search(r"50 rows, \d+ of them anomalous\n$", result.stderr)


def test_score_numbers_rows_without_a_time_and_writes_to_a_file(model_path: str, tmp_path: Path) -> None:
    out = tmp_path / "scores.csv"
    stdin = "flow,level,site\n20,20,a\n,20,b\nbroken,20,c\n"
    result = gon_edge("score", "--model", model_path, "-", "-o", str(out), stdin=stdin)
    assert (result.returncode, result.stdout) == (0, "")
    assert [row["row"] for row in csv.DictReader(out.open())] == ["0", "1", "2"]
    assert "columns the model does not know were left out: site" in result.stderr
    assert "1 cells are no numbers" in result.stderr


def test_score_judges_each_machine_of_a_file_for_itself(model_path: str) -> None:
    rows = np.random.default_rng(1).normal(20.0, 0.5, (30, 2)).tolist()
    alone = "time,flow,level\n" + "".join(f"{t},{a},{b}\n" for t, (a, b) in enumerate(rows))
    both = "time;host;flow;level\n" + "".join(
        f"{t};{who};{a};{b}\n".replace(".", ",") for t, (a, b) in enumerate(rows) for who in ("x", "y")
    )
    plain = list(csv.DictReader(io.StringIO(gon_edge("score", "--model", model_path, "-", stdin=alone).stdout)))
    result = gon_edge("score", "--model", model_path, "-", stdin=both)
    assert "2 machines by host, cells cut by semicolons, decimal comma" in result.stderr
    scored = list(csv.DictReader(io.StringIO(result.stdout)))
    for who in ("x", "y"):
        assert [row["score"] for row in scored if row["stream"] == who] == [row["score"] for row in plain]


def test_score_says_what_it_read_and_what_not(model_path: str, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("time,flow,level\n" + "".join(f"{t},20,20\n" for t in range(9)) + "9,broken,20\n")
    result = gon_edge("score", "--model", model_path, str(tmp_path / "a.csv"))
    assert result.returncode == 0
    assert "19 cells read, 1 dropped (the first is 'broken' in line 11)" in result.stderr
    (tmp_path / "a.csv").write_text("time,flow,level\n0,x,20\n1,y,20\n")
    result = gon_edge("score", "--model", model_path, str(tmp_path / "a.csv"))
    assert (result.returncode, result.stdout) == (66, "")
    assert "the model needs flow, of which 0 of 2 cells are numbers: the first is 'x' in line 2" in result.stderr


def test_score_names_the_columns_that_are_missing(model_path: str) -> None:
    result = gon_edge("score", "--model", model_path, "-", stdin="flw,lvl\n1,2\n")
    assert (result.returncode, result.stdout) == (66, "")
    assert result.stderr == (
        "gon-edge: standard input: the model needs columns that are not there: flow, level; "
        "columns the model does not know: flw, lvl\n"
    )


def test_score_streams(model_path: str) -> None:
    process = subprocess.Popen(
        [*GON_EDGE, "score", "--model", model_path, "-"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write("flow,level\n20,20\n")
    process.stdin.flush()
    assert process.stdout.readline() == "row,score,threshold,is_anomaly,top_feature\n"
    assert process.stdout.readline().startswith("0,")  # before the input has ended
    process.communicate(timeout=60)


def test_a_place_that_cannot_be_written_is_73(model_path: str) -> None:
    result = gon_edge("score", "--model", model_path, "-", "-o", "/nonexistent/x.csv", stdin="flow,level\n1,2\n")
    assert result.returncode == 73
    assert result.stderr == "gon-edge: /nonexistent/x.csv: cannot be written: No such file or directory\n"


@pytest.mark.parametrize("command", ["score", "plot", "replay", "rehearse", "retrain"])
def test_what_cannot_be_read_is_66_and_one_line_of_every_command(
    command: str, model_path: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "config.yaml"
    config.write_text(
        f"state_dir: {tmp_path}/state\nmqtt: {{url: 'mqtt://localhost'}}\nsubscriptions: [{{topic: 't/{{stream}}'}}]\n"
    )
    options = {
        "score": ["--model", model_path],
        "plot": ["--model", model_path, "-o", str(tmp_path / "x.svg")],
        "replay": ["--stream", "s"],
        "rehearse": ["--config", str(config)],
        "retrain": ["s", "--config", str(config), "--from"],
    }[command]
    files = {
        "text.csv": (b"time,flow,level\n1,x,y\n", "its cells are no numbers, such as 'x' in line 2"),
        "empty.csv": (b"", "is empty"),
        "latin.csv": ("time;a\n1;2 °C\n".encode("latin-1"), ":2: is not UTF-8 text"),
        "sheet.xlsx": (b"PK\x03\x04", "save its sheet as CSV"),
    }
    for name, (content, said) in files.items():
        (tmp_path / name).write_bytes(content)
        assert main([command, *options, str(tmp_path / name)]) == 66
        output = capsys.readouterr()
        assert (output.out, output.err.count("\n")) == ("", 1)
        assert f"{name}" in output.err
        assert said in output.err
