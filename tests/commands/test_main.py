"""The command line as a user has it: real processes, exit statuses, what goes to stdout and what to stderr."""

from __future__ import annotations

import csv
import io
import json
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
from e2e.servers import Mosquitto, free_port, require, wait_until
from prometheus_client import CollectorRegistry
from snapshots import plain_snapshot

from gon_edge import GONDetector, __version__
from gon_edge.commands import main as cli
from gon_edge.commands.main import build_parser, main
from gon_edge.config.schema import HttpConfig
from gon_edge.links.snapshot import StreamSnapshot
from gon_edge.links.web.server import WebServer
from gon_edge.model.file import Model, save_model
from gon_edge.training.fit import fit_model

GON_EDGE = [sys.executable, "-m", "gon_edge"]
COMMANDS = [
    *("run", "demo", "check-config", "config", "doctor", "status", "top", "publish", "record", "replay"),
    *("score", "plot", "report", "sample", "models"),
    *("retrain", "accept", "silence", "version", "completion"),
]
CONFIG = "mqtt: {url: mqtt://localhost:1}\nsubscriptions: [{topic: 'telemetry/{stream}'}]\n"


def gon_edge(*arguments: str, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*GON_EDGE, *arguments], input=stdin, capture_output=True, text=True, timeout=120)


# -- every command -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", COMMANDS)
def test_help_has_a_description_an_example_and_every_option_explained(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main([command, "--help"])
    assert ended.value.code == 0
    text = capsys.readouterr().out
    assert re.search(r"\n\nexample:\n  (sudo |source <\()?gon-edge " + command, text)
    parser = next(a for a in build_parser()._actions if a.dest == "==SUPPRESS==" or a.choices).choices[command]  # type: ignore[index,union-attr]
    for action in parser._actions:
        assert action.help, f"{command} {action.option_strings or action.dest} has no help"
        takes_value = action.option_strings and action.nargs != 0 and not action.required
        assert not takes_value or "default" in action.help, f"{command} {action.option_strings}: what is its default?"


def test_the_commands_are_all_here() -> None:
    assert list(next(a.choices for a in build_parser()._actions if a.choices)) == COMMANDS  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["frobnicate"],
        ["replay", "x.csv"],
        ["replay", "x.csv", "--stream", "a/b"],
        ["replay", "x.csv", "--stream", "a", "--speed", "0"],
        ["replay", "x.csv", "--stream", "a", "--speed", "2", "--as-fast-as-possible"],
        ["replay", "x.csv", "--stream", "a", "--broker", "http://x"],
        ["replay", "x.csv", "--stream", "a", "--broker", "mqtt://me:secret@x"],
        ["publish", "--interval", "0"],
        ["publish", "--topic", "telemetry/#"],
        ["demo", "--duration", "soon"],
        ["completion", "tcsh"],
    ],
)
def test_wrong_usage_is_2_and_says_so_on_stderr(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    try:
        status = main(arguments)
    except SystemExit as ended:
        status = int(ended.code or 0)
    output = capsys.readouterr()
    assert (status, output.out) == (2, "")
    assert "gon-edge" in output.err
    assert "secret" not in output.err


@pytest.mark.parametrize(
    ("arguments", "status", "says"),
    [
        (["run", "--config", "/nonexistent.yaml"], 78, "/nonexistent.yaml: cannot be read"),
        (["check-config", "/nonexistent.yaml"], 78, "/nonexistent.yaml: cannot be read"),
        (["status", "--url", "http://127.0.0.1:1"], 69, "no gon-edge at http://127.0.0.1:1: Connection refused"),
        (["replay", "/nonexistent.csv", "--stream", "s"], 66, "/nonexistent.csv: cannot be read"),
        (["publish", "--broker", "mqtt://127.0.0.1:1"], 69, "no broker at mqtt://127.0.0.1:1: Connection refused"),
        (["publish", "--username", "u", "--password-file", "/nonexistent"], 66, "/nonexistent: no such file"),
        (["publish", "--password-file", "/dev/null"], 66, "/dev/null"),
        (["publish", "--broker", "mqtts://127.0.0.1:1", "--ca-file", "/nonexistent"], 66, "/nonexistent: no such file"),
        (["score", "--model", "/nonexistent.npz", "x.csv"], 78, "/nonexistent.npz: cannot be read"),
    ],
)
def test_an_error_is_one_line_and_the_status_of_its_kind(arguments: list[str], status: int, says: str) -> None:
    result = gon_edge(*arguments)
    assert (result.returncode, result.stdout) == (status, "")
    assert result.stderr.startswith(f"gon-edge: {says}")
    assert result.stderr.count("\n") == 1


def test_a_reader_that_goes_away_is_no_error() -> None:
    script = f"{sys.executable} -m gon_edge completion bash | true; echo ${{PIPESTATUS[0]}}"
    result = subprocess.run(["bash", "-c", script], capture_output=True, text=True, timeout=120)
    assert result.stderr == ""
    assert result.stdout in ("0\n", "141\n")  # 0 when the pipe took it all before its reader ended


# -- version, check-config, status -------------------------------------------------------------------------------------


def test_version_in_text_and_json() -> None:
    assert gon_edge("version").stdout == f"gon-edge {__version__}\n"
    version = json.loads(gon_edge("version", "--json").stdout)
    assert version["version"] == __version__
    assert version["libraries"]["numpy"]


def test_a_command_loads_the_module_it_is_in_and_no_other() -> None:
    code = (
        "import sys\nfrom gon_edge.commands.main import main\n"
        "try: main(sys.argv[1:])\nexcept SystemExit: pass\n"
        "rooms = ('main', 'run', 'data', 'look', 'models')\n"
        "print(*(name for name in rooms if f'gon_edge.commands.{name}' in sys.modules), file=sys.stderr)"
    )

    def loaded(*arguments: str) -> str:
        command = [sys.executable, "-c", code, *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=120).stderr.splitlines()[-1]

    assert loaded("version") == "main"
    assert loaded("run", "--help") == "main run"
    assert loaded("run", "--config", "/nonexistent.yaml") == "main run"
    assert loaded("silence", "list", "--config", "/nonexistent.yaml") == "main models"


def test_every_command_of_a_module_is_in_the_table() -> None:
    package = Path(cli.__file__).parents[1]
    modules = [f"{room}.{path.stem}" for room in ("commands", "demo") for path in (package / room).glob("[!_]*.py")]
    declared = {
        name: module for module in modules for name in getattr(import_module(f"gon_edge.{module}"), "COMMANDS", ())
    }
    assert declared == cli._MODULES


@pytest.mark.parametrize("command", [["version"], ["check-config", "FILE"], ["completion", "bash"], ["--help"]])
def test_small_commands_load_no_mqtt_and_no_daemon(command: list[str], tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text(CONFIG)
    code = (
        "import sys\nfrom gon_edge.commands.main import main\n"
        "try: main(sys.argv[1:])\nexcept SystemExit: pass\n"
        "heavy = {'paho', 'prometheus_client', 'psutil'} & sys.modules.keys()\n"
        "print(*sorted(heavy), file=sys.stderr)"
    )
    arguments = [str(tmp_path / "c.yaml") if word == "FILE" else word for word in command]
    result = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, timeout=120)
    assert result.stderr == "\n"


@pytest.mark.parametrize(
    "command",
    [
        ["version"],
        ["check-config", "FILE"],
        ["config", "show", "--config", "FILE"],
        ["status", "--url", "URL"],
        ["models", "list"],
        ["top", "--help"],
        ["demo", "--help"],
    ],
)
def test_what_prints_plain_text_loads_nothing_that_draws(command: list[str], tmp_path: Path, served: str) -> None:
    (tmp_path / "c.yaml").write_text(CONFIG)
    places = {"FILE": str(tmp_path / "c.yaml"), "URL": served}
    code = (
        "import sys\nfrom gon_edge.commands.main import main\n"
        "try: status = main(sys.argv[1:])\nexcept SystemExit as ended: status = ended.code\n"
        "print(status, 'rich' in sys.modules, file=sys.stderr)"
    )
    words = [places.get(word, word) for word in command]
    result = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, timeout=60)
    assert result.stderr == "0 False\n"


def test_an_error_with_foreign_text_cannot_steer_the_terminal(tmp_path: Path) -> None:
    file = tmp_path / "x\x1b[2J.yaml"
    said = gon_edge("check-config", str(file)).stderr
    assert "x\\x1b[2J.yaml" in said
    assert "\x1b" not in said


def test_a_valid_configuration(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "gon-edge.yaml"
    path.write_text(CONFIG)
    assert main(["check-config", str(path)]) == 0
    assert "valid; node" in capsys.readouterr().out
    assert main(["check-config", str(path), "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["valid"] is True
    assert answer["options"]["streams.defaults.warmup_rows"] == 600


@pytest.mark.parametrize(
    ("text", "key", "line"),
    [
        (CONFIG + "strems: {}\n", "strems", 3),
        (CONFIG.replace("{stream}", "a{stream}"), "subscriptions[0].topic", 2),
        (CONFIG.replace("{stream}", "+"), "subscriptions[0].topic", 2),
    ],
)
def test_a_mistake_in_the_configuration_is_78_with_its_key(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, key: str, line: int
) -> None:
    path = tmp_path / "gon-edge.yaml"
    path.write_text(text)
    assert main(["check-config", str(path), "--json"]) == 78
    output = capsys.readouterr()
    answer = json.loads(output.out)
    assert (answer["valid"], answer["key"], answer["line"]) == (False, key, line)
    assert output.err == f"gon-edge: {answer['error']}\n"


@pytest.fixture
def served() -> Iterator[str]:
    """URL of a real web server with a daemon's snapshot behind it."""
    alert = {
        "id": "1",
        "type": "new",
        "kind": "anomaly",
        "stream": "pump",
        "since": 900.0,
        "timestamp": 905.0,
        "score": 5.0,
        "threshold": 3.0,
        "severity": "critical",
        "top_features": [{"feature": "flow", "value": 3.25, "expected": 31.8, "contribution": 0.71}],
        "model_version": "3",
    }
    snapshot = plain_snapshot(
        started_at=0.0,
        now=1000.0,
        mqtt_connected=False,
        mqtt_url="mqtt://broker:1883",
        mqtt_error="connection refused",
        rss_bytes=44 << 20,
        streams=(
            StreamSnapshot("pump", "scoring", 700, 600, score=5.0, threshold=3.0, model_version="3"),
            StreamSnapshot("fan", "warming-up", 60, 600, eta_s=540.0),
        ),
        alerts=(alert,),
    )
    server = WebServer(HttpConfig("127.0.0.1:0"), snapshot=lambda: snapshot, registry=CollectorRegistry())
    server.start()
    yield server.url
    server.stop()


def test_status_lists_streams_and_alerts(served: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["status", "--url", served]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "gon-edge 0.1.0 on pi-1, up 16 min 40 s, 44.0 MiB",
        "broker mqtt://broker:1883: connection refused",
        "",
        "STREAM  STATE       ROWS       SCORE  THRESHOLD  MODEL",
        "pump    scoring     700        5      3          3",
        "fan     warming-up  60 of 600  -      -          -      first model in 9 min",
        "",
        "critical anomaly on pump since 1970-01-01 00:15:00 UTC: flow 3.25 (expected 31.8, 71 %)",
    ]


def test_status_as_json_is_what_the_daemon_says(served: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["status", "--json", "--url", served]) == 0
    status = json.loads(capsys.readouterr().out)
    pump = status["streams"][0]
    assert {key: pump[key] for key in ("stream", "state", "rows", "score", "threshold", "model_version")} == {
        "stream": "pump",
        "state": "scoring",
        "rows": 700,
        "score": 5.0,
        "threshold": 3.0,
        "model_version": "3",
    }
    assert status["alerts"][0]["top_features"][0]["feature"] == "flow"


def test_status_of_something_else_than_a_gon_edge_says_so(
    served: str, capsys: pytest.CaptureFixture[str], mosquitto: Mosquitto
) -> None:
    assert main(["status", "--url", f"{served}metrics"]) == 69
    assert "answers 404; name the port of http.listen with --url" in capsys.readouterr().err
    assert main(["status", "--url", f"http://127.0.0.1:{mosquitto.port}"]) == 69
    assert main(["status", "--url", "not a url"]) == 69


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
    assert (result.returncode, result.stderr) == (0, "")
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
    assert result.stderr == "gon-edge: 2 of 2 rows were not acknowledged\n"


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
    assert (process.returncode, output, errors) == (130, "", "")


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


# -- logs --------------------------------------------------------------------------------------------


def test_run_ends_on_sigterm_and_logs_to_stderr(mosquitto: Mosquitto, tmp_path: Path) -> None:
    path = tmp_path / "gon-edge.yaml"
    path.write_text(
        f"node: t\nstate_dir: {tmp_path}/state\nmqtt: {{url: '{mosquitto.url}'}}\n"
        f"subscriptions: [{{topic: 'telemetry/{{stream}}'}}]\nhttp: {{listen: '127.0.0.1:{free_port()}'}}\n"
    )
    process = subprocess.Popen(
        [*GON_EDGE, "run", "--config", str(path), "--log-level", "info"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        wait_until(lambda: mosquitto.retained("gon-edge/t/status", 1) == b"online", 30.0, "the daemon online")
        process.terminate()
        output, errors = process.communicate(timeout=60)
    finally:
        process.kill()
    assert (process.returncode, output) == (0, "")
    assert "info gon_edge.links.mqtt: connected to " in errors
    assert mosquitto.retained("gon-edge/t/status", 1) == b"offline"
