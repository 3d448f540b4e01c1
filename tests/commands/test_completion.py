"""Shell completion, as the shells themselves do it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from e2e.servers import require

from gon_edge.commands import main as cli
from gon_edge.commands.arguments import commands_in
from gon_edge.commands.main import build_parser, main

SCRIPTS = Path(cli.__file__).parent / "completion"


def complete(*words: str) -> list[str]:
    """What bash offers after these words; the last one is being typed."""
    script = (
        f"source <({sys.executable} -m gon_edge completion bash)\n"
        f"COMP_WORDS=(gon-edge {' '.join(repr(word) for word in words)}); COMP_CWORD={len(words)}\n"
        "$(complete -p gon-edge | sed 's/.*-F \\([^ ]*\\) .*/\\1/') gon-edge "
        '"${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD-1]}"\n'
        'printf "%s\\n" "${COMPREPLY[@]}"\n'
    )
    result = subprocess.run(["bash", "--norc", "-c", script], capture_output=True, text=True, timeout=60, check=True)
    assert result.stderr == ""
    return result.stdout.split()


def test_bash_completes_the_actions_of_a_command_and_their_options() -> None:
    assert complete("models", "") == ["list", "show", "verify", "diff", "rollback", "export", "import"]
    assert complete("models", "ve") == ["verify"]
    assert complete("models", "import", "--") == ["--help", "--config", "--state-dir", "--force"]


def test_bash_completes_commands_options_choices_and_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert complete("") == list(commands_in(build_parser()))
    assert complete("re") == ["record", "replay", "rehearse", "report", "retrain"]
    assert complete("replay", "--as") == ["--as-fast-as-possible"]
    assert complete("run", "--log-level", "") == ["debug", "info", "warning", "error"]
    assert complete("completion", "") == ["bash", "zsh", "fish"]
    assert complete("version", "-") == ["-h", "--help", "--json"]
    (tmp_path / "pump.csv").touch()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    assert complete("replay", "pu") == ["pump.csv"]
    assert complete("models", "export", "host", "pu") == ["pump.csv"]
    assert complete("run", "--config", "pu") == ["pump.csv"]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_names_every_option_and_the_shell_reads_it(
    shell: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert main(["completion", shell]) == 0
    script = capsys.readouterr().out
    for option in ("--log-level", "--no-fault", "--as-fast-as-possible", "--model", "--url"):
        assert option in script or f"-l {option[2:]}" in script
    program = require(shell)
    path = tmp_path / "script"
    path.write_text(script)
    assert subprocess.run([program, "-n", str(path)], capture_output=True, text=True, timeout=20).stderr == ""


def test_fish_completes_commands_options_choices_and_files(tmp_path: Path) -> None:
    (tmp_path / "pump.csv").touch()

    def complete(line: str) -> list[str]:
        command = [require("fish"), "--no-config", "-c", f"source {SCRIPTS / 'fish'}; complete -C '{line}'"]
        found = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True, cwd=tmp_path)
        return [words.split("\t")[0] for words in found.stdout.splitlines()]

    assert complete("gon-edge re") == ["record", "rehearse", "replay", "report", "retrain"]
    assert complete("gon-edge models import --fo") == ["--force"]
    assert complete("gon-edge run --log-level ") == ["debug", "info", "warning", "error"]
    assert complete("gon-edge run --config pu") == ["pump.csv"]


def test_zsh_completes_from_a_sourced_script() -> None:
    program = """
    zmodload zsh/zpty
    zpty shell zsh -f -i
    zpty -w shell "autoload -U compinit; compinit -u -D; source $1; echo rea''dy"
    zpty -r shell out '*ready*'
    zpty -wn shell $'gon-edge models im\t'
    zpty -r shell out '*models import*' && print done
    """
    command = [require("zsh"), "-f", "-c", program, "zsh", str(SCRIPTS / "zsh")]
    assert subprocess.run(command, capture_output=True, text=True, timeout=30).stdout == "done\n"


def test_the_scripts_know_the_program_as_it_is(tmp_path: Path) -> None:
    tool = Path(__file__).parents[2] / "tools" / "make_completion.py"
    subprocess.run([sys.executable, tool, tmp_path], check=True, capture_output=True)
    for script in tmp_path.iterdir():
        assert script.read_bytes() == (SCRIPTS / script.name).read_bytes(), f"type: python {tool}"
