"""Scripts for the completion of bash, zsh and fish, made by shtab from the argument parser.

They are committed, since who installs with pip has no shtab; a test says when they are out of date::

    python tools/make_completion.py            writes gon_edge/commands/completion/bash, zsh and fish
    python tools/make_completion.py FOLDER     writes them there
"""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path

import shtab

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from gon_edge.commands.arguments import commands_in  # noqa: E402
from gon_edge.commands.main import build_parser  # noqa: E402

SHELLS = ("bash", "zsh", "fish")
# What the value of an option or argument is, told by how help calls it.  A MODEL is a file, or a name we cannot know.
KINDS = {"FILE": shtab.FILE, "FILE.csv": shtab.FILE, "MODEL": shtab.FILE, "DIR": shtab.DIRECTORY}


def prepare(parser: argparse.ArgumentParser, summary: str) -> None:
    """Tell shtab which values are files, and leave one line of each explanation: a shell shows them as a list."""
    parser.description = summary
    for action in parser._actions:  # argparse has no public way to look at itself
        if action.metavar in KINDS:
            action.complete = KINDS[str(action.metavar)]  # type: ignore[attr-defined]
        if action.help:
            action.help = re.split(r"[;(]|\. ", action.help)[0].strip()
    for command, text in commands_in(parser).values():
        prepare(command, text)


def script(shell: str) -> str:
    """Return the script of one shell."""
    parser = build_parser()
    prepare(parser, "")
    text = shtab.complete(parser, shell)
    # shtab's works in a file on $fpath and by eval; ours also by `source <(gon-edge completion zsh)`.
    return text.replace("[[ $zsh_eval_context[-1] == eval ]]", '[[ "$funcstack[1]" != _gon-edge ]]')


def main() -> None:
    """Write the scripts into the folder named by the only argument."""
    if sys.argv[1:2] in (["-h"], ["--help"]):
        sys.exit(__doc__)
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "gon_edge" / "commands" / "completion"
    folder.mkdir(parents=True, exist_ok=True)
    for shell in SHELLS:
        (folder / shell).write_text(script(shell), encoding="utf-8")
    print(f"{', '.join(SHELLS)} in {folder}")


if __name__ == "__main__":
    main()
