"""The command line: arguments in, one module called, an exit status out.

Data goes to stdout, everything else to stderr.  Only the module of the command that is called is loaded, and for
``gon-edge version``, which scripts wait for, not even what reads a command line.

To add a command, write a function in one of these modules and name it in the module's ``COMMANDS`` and in the table
below.  Help, completion, manual and reference then have it.  The table holds names, not modules, so that this module
knows nothing of the rooms above it.
"""

from __future__ import annotations

import os
import sys
from importlib import import_module

from gon_edge import __version__
from gon_edge.errors import EXIT_CODES, GonEdgeError

TYPE_CHECKING = False  # typing itself is a tenth of what `version` takes
if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterable, Mapping, Sequence

    from gon_edge.commands.arguments import AddCommand

_MODULES: Mapping[str, str] = {  # in the order of the help
    "run": "commands.run",
    "demo": "demo.command",
    "check-config": "commands.run",
    "config": "commands.run",
    "doctor": "commands.run",
    "status": "commands.look",
    "top": "commands.look",
    "try": "commands.messages",
    "listen": "commands.messages",
    "publish": "commands.data",
    "record": "commands.data",
    "replay": "commands.data",
    "rehearse": "commands.rehearse",
    "score": "commands.data",
    "plot": "commands.look",
    "report": "commands.look",
    "sample": "commands.look",
    "models": "commands.models",
    "streams": "commands.streams",
    "retrain": "commands.models",
    "alerts": "commands.answers",
    "feedback": "commands.answers",
    "missed": "commands.answers",
    "accept": "commands.answers",
    "silence": "commands.models",
    "fleet": "fleet.command",
    "version": "commands.main",
    "completion": "commands.main",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command.

    Parameters
    ----------
    arguments : sequence of str, optional
        Default: those of the process.

    Returns
    -------
    int
        Exit status, as in ``gon-edge --help``.
    """
    words = sys.argv[1:] if arguments is None else arguments
    try:
        status = _say_version() if words == ["version"] else _run(words)
        sys.stdout.flush()
        return status
    except GonEdgeError as error:
        from gon_edge.commands.text import visible

        text = visible(" ".join(str(error).split()))  # of a broker, a file or a daemon, which may say anything
        sys.stderr.write(f"gon-edge: {text}\n")
        return error.exit_code
    except KeyboardInterrupt:
        import signal

        return 128 + signal.SIGINT
    except BrokenPipeError:
        # The reader has gone.  Python would say so again when it flushes stdout at its end.
        import signal

        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE


def _run(words: Sequence[str]) -> int:
    """Run the command that these words call; return its exit status."""
    from gon_edge.process.memory import deferred

    with deferred():
        options = build_parser(words[:1] if words and words[0] in _MODULES else _MODULES).parse_args(words)
    if "command" not in options:
        build_parser().print_help(sys.stderr)
        return 2
    status: int = options.command(options)
    return status


def build_parser(names: Iterable[str] = _MODULES) -> argparse.ArgumentParser:
    """Return the parser of the program, with these of its commands.

    Parameters
    ----------
    names : iterable of str
        Default: all of them, for help, completion, manual and reference.
    """
    import argparse

    from gon_edge.commands.arguments import HelpFormatter, commands_of

    codes = "; ".join(f"{code} {text}" for code, text in EXIT_CODES.items())
    parser = argparse.ArgumentParser(
        prog="gon-edge",
        description="Watches streams of sensor readings, learns what is normal, and says what is not.",
        epilog=f"gon-edge COMMAND --help explains a command.\n\nexit status: {codes}",
        formatter_class=HelpFormatter,
        allow_abbrev=False,
    )
    add = commands_of(parser, required=False)
    for name in names:
        import_module(f"gon_edge.{_MODULES[name]}").COMMANDS[name](add)
    return parser


# -- commands about the program itself ---------------------------------------------------------------------------------


def _add_version(add: AddCommand) -> None:
    sub = add("version", _version, "show the version", "Show the version of gon-edge.", "gon-edge version --json")
    sub.add_argument("--json", action="store_true", help="with those of Python and the libraries, as JSON")


def _version(options: argparse.Namespace) -> int:
    if not options.json:
        return _say_version()
    import contextlib
    import platform
    from importlib.metadata import PackageNotFoundError, version

    from gon_edge.commands.arguments import write_json

    libraries = {}
    for name in ("numpy", "paho-mqtt", "prometheus-client", "psutil", "pyyaml", "rich"):
        with contextlib.suppress(PackageNotFoundError):
            libraries[name] = version(name)
    write_json(
        {
            "version": __version__,
            "python": platform.python_version(),
            "machine": platform.machine(),
            "libraries": libraries,
        }
    )
    return 0


def _say_version() -> int:
    sys.stdout.write(f"gon-edge {__version__}\n")
    return 0


def _add_completion(add: AddCommand) -> None:
    sub = add(
        "completion",
        _completion,
        "print a script for shell completion",
        "Print a script that teaches a shell to complete gon-edge.",
        "source <(gon-edge completion bash)",
    )
    sub.add_argument("shell", choices=("bash", "zsh", "fish"), help="the shell")


def _completion(options: argparse.Namespace) -> int:
    from pathlib import Path

    # Made by tools/make_completion.py.
    sys.stdout.write((Path(__file__).parent / "completion" / options.shell).read_text(encoding="utf-8"))
    return 0


COMMANDS = {"version": _add_version, "completion": _add_completion}
