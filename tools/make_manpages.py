"""Man pages of gon-edge, made from its argument parser, so that they cannot know less than the program.

``gon-edge.1`` names the commands, ``gon-edge-COMMAND.1`` explains one::

    python3 tools/make_manpages.py build/man && man build/man/gon-edge-replay.1

Needs the standard library only: the package is built where numpy is not.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from gon_edge import __version__
from gon_edge.commands.arguments import commands_in
from gon_edge.commands.main import build_parser
from gon_edge.errors import EXIT_CODES

_FILES = (
    ("/etc/gon-edge/gon-edge.yaml", "The configuration of the service; every option is explained in it."),
    ("/var/lib/gon-edge", "Models, recent rows, alert history."),
    ("/usr/share/gon-edge/models", "Models that come with the package."),
)


def escape(text: str) -> str:
    r"""Return `text` so that roff shows it as it is.

    Examples
    --------
    >>> escape(r".x a-b \n 'q'")
    "\\&.x a\\-b \\en 'q'"
    """
    text = text.replace("\\", "\\e").replace("-", "\\-")
    return "\\&" + text if text.startswith((".", "'")) else text


def synopsis(parser: argparse.ArgumentParser) -> str:
    """Return the usage of a command on one line, roff markup included."""
    usage = " ".join(parser.format_usage().removeprefix("usage:").split())
    return f"\\fB{escape(parser.prog)}\\fR {escape(usage.removeprefix(parser.prog).strip())}".rstrip()


def body(text: str) -> Iterator[str]:
    """Yield the lines of a description; indented ones are examples and stay as they are."""
    for line in text.splitlines():
        if line.startswith("  "):
            yield from (".PP", ".nf", ".RS", escape(line.strip()), ".RE", ".fi")
        else:
            yield escape(line) if line.strip() else ".PP"


def arguments(parser: argparse.ArgumentParser, *, options: bool) -> Iterator[str]:
    """Yield the entries of a command's options, or of its other arguments."""
    for action in parser._actions:  # argparse has no public way to look at itself
        if bool(action.option_strings) != options or isinstance(action, argparse._SubParsersAction):
            continue
        if action.choices:
            value = "{" + ",".join(map(str, action.choices)) + "}"
        else:
            value = str(action.metavar or action.dest).strip("()")
        names = ", ".join(f"\\fB{escape(name)}\\fR" for name in action.option_strings)
        shown = f" \\fI{escape(value)}\\fR" if action.nargs != 0 else ""
        text = parser._get_formatter()._expand_help(action) if action.help else ""
        yield from (".TP", f"{names}{shown}".strip(), escape(text))


def page(parser: argparse.ArgumentParser, title: str, summary: str, date: str) -> str:
    """Return a man page of section 1.

    Parameters
    ----------
    parser : argparse.ArgumentParser
        Of one command, or of the program with its commands.
    title : str
        As in ``man gon-edge-run``.
    summary : str
        One line for ``apropos``.
    date : str
        ISO 8601.
    """
    commands = commands_in(parser)
    lines = [f'.TH "{escape(title.upper())}" 1 {date} "gon\\-edge {__version__}" "User commands"']
    lines += [".SH NAME", f"{escape(title)} \\- {escape(summary)}", ".SH SYNOPSIS", synopsis(parser)]
    lines += [".SH DESCRIPTION", *body(parser.description or "")]
    if commands:
        lines.append(".SH COMMANDS")
    for name, (command, text) in commands.items():
        if title == "gon-edge":
            lines += [".TP", f"\\fB{escape(name)}\\fR", f"{escape(text)}; see \\fBgon\\-edge\\-{escape(name)}\\fR(1)"]
        else:  # a command of a command has no page of its own
            lines += [f".SS {escape(name)}", *body(command.description or text), ".PP", synopsis(command)]
            lines += [*arguments(command, options=False), *arguments(command, options=True)]
    positional = list(arguments(parser, options=False))
    if positional:
        lines += [".SH ARGUMENTS", *positional]
    lines += [".SH OPTIONS", *arguments(parser, options=True)]
    if title == "gon-edge":
        lines.append(".SH EXIT STATUS")
        for code, text in EXIT_CODES.items():
            lines += [".TP", str(code), escape(f"{text[0].upper()}{text[1:]}.")]
        lines.append(".SH FILES")
        for file, text in _FILES:
            lines += [".TP", f"\\fI{escape(file)}\\fR", escape(text)]
    else:
        epilog = (parser.epilog or "").removeprefix("example:\n")
        lines += [".SH EXAMPLE", *body(epilog)] if epilog else []
        lines += [".SH SEE ALSO", "\\fBgon\\-edge\\fR(1)"]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Write all pages into the folder named by the only argument."""
    if len(sys.argv) != 2:
        sys.exit("usage: make_manpages.py FOLDER")
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    # A package that is built twice is the same file twice.
    date = time.strftime("%Y-%m-%d", time.gmtime(int(os.environ.get("SOURCE_DATE_EPOCH", time.time()))))
    parser = build_parser()
    pages = {"gon-edge": page(parser, "gon-edge", "anomaly detection for streams of sensor readings", date)}
    for name, (command, text) in commands_in(parser).items():
        pages[f"gon-edge-{name}"] = page(command, f"gon-edge-{name}", text, date)
    for title, text in pages.items():
        (folder / f"{title}.1").write_text(text, encoding="utf-8")
    print(f"{len(pages)} pages in {folder}")


if __name__ == "__main__":
    main()
