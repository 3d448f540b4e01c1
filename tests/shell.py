"""A command of gon-edge, run in this process."""

from __future__ import annotations

import pytest

from gon_edge.commands import main as cli


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    """Return the exit status, also of arguments that are refused, and what was written to stdout and stderr."""
    try:
        status = cli.main(list(arguments))
    except SystemExit as error:
        status = int(error.code or 0)
    said = capsys.readouterr()
    return status, said.out, said.err
