"""The command line as a user has it: real processes, exit statuses, what goes to stdout and what to stderr."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest
from program import gon_edge

from gon_edge import __version__
from gon_edge.commands import main as cli
from gon_edge.commands.main import build_parser, main

COMMANDS = [
    *("run", "demo", "check-config", "config", "doctor", "status", "top", "try", "listen"),
    *("publish", "record", "replay", "rehearse"),
    *("score", "plot", "report", "sample", "models", "streams"),
    *("retrain", "alerts", "feedback", "missed", "accept", "silence", "fleet", "version", "completion"),
]
CONFIG = "mqtt: {url: mqtt://localhost:1}\nsubscriptions: [{topic: 'telemetry/{stream}'}]\n"


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


# -- version, what is loaded, errors -----------------------------------------------------------------------------------


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
    modules = [
        f"{room}.{path.stem}" for room in ("commands", "demo", "fleet") for path in (package / room).glob("[!_]*.py")
    ]
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


def test_an_error_with_foreign_text_cannot_steer_the_terminal(tmp_path: Path) -> None:
    file = tmp_path / "x\x1b[2J.yaml"
    said = gon_edge("check-config", str(file)).stderr
    assert "x\\x1b[2J.yaml" in said
    assert "\x1b" not in said
