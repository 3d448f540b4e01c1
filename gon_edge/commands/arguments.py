"""What the commands have in common: how a command is declared, arguments that several take, and where output goes.

A module of commands declares each in a function that gets ``add``, in the words of :class:`AddCommand`, and lists these
functions by name in its ``COMMANDS``.  Checks of an argument say in one line what to write instead.  What reading one
needs is imported when it is read: ``gon-edge version`` waits for none of it.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING, cast

from gon_edge.errors import ConfigError, GonEdgeError, InputError

if TYPE_CHECKING:
    from gon_edge.config.schema import Config, MqttConfig
    from gon_edge.links.client import DaemonApi
    from gon_edge.tables.layout import TableOptions

DEFAULT_CONFIG = "/etc/gon-edge/gon-edge.yaml"
_SHORTEST_S = 0.05
"""Between samples, and between looks.  Not critical: measuring a machine takes a few milliseconds."""

_TIMES_FROM_S = 1e8
"""A number as large as this is Unix seconds (1973), a smaller one is seconds ago (three years)."""

CONFIG_HELP = f"the daemon's configuration (default: $GON_EDGE_CONFIG, else {DEFAULT_CONFIG})"

Run = Callable[[argparse.Namespace], int]
"""What a command does: options in, exit status out."""

AddCommand = Callable[[str, Run | None, str, str, str], argparse.ArgumentParser]
"""Adds a command by name, what it does (``None`` where it has commands of its own), a line for lists, a description and
an example; returns its parser, for arguments."""


class OutputError(GonEdgeError):
    """A file cannot be written."""

    exit_code = 73  # EX_CANTCREAT of sysexits.h


class HelpFormatter(argparse.HelpFormatter):
    """Wraps paragraphs to the terminal and leaves indented lines as they are, so that examples can be copied."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        import textwrap

        paragraphs = text.split("\n")
        return "\n".join(line if line.startswith("  ") else textwrap.fill(line, width) for line in paragraphs)


# -- commands ----------------------------------------------------------------------------------------------------------


def commands_of(
    parser: argparse.ArgumentParser,
    *,
    title: str = "commands",
    metavar: str = "COMMAND",
    required: bool = True,
    text: str | None = None,
) -> AddCommand:
    """Return a function that adds a command to a program, or to a command that has commands of its own."""
    # Without prog argparse formats a usage to find it.
    commands = parser.add_subparsers(title=title, metavar=metavar, required=required, help=text, prog=parser.prog)

    def add(name: str, run: Run | None, text: str, description: str, example: str) -> argparse.ArgumentParser:
        sub = commands.add_parser(
            name,
            help=text,
            description=description,
            epilog=f"example:\n  {example}",
            formatter_class=HelpFormatter,
            allow_abbrev=False,
        )
        if run is not None:
            sub.set_defaults(command=run)
        return sub

    return add


def commands_in(parser: argparse.ArgumentParser) -> dict[str, tuple[argparse.ArgumentParser, str]]:
    """Return the commands of a program, or of a command: for each name its parser and its line of help."""
    for action in parser._actions:  # argparse has no public way to look at itself
        if isinstance(action, argparse._SubParsersAction):
            helps = {choice.dest: choice.help or "" for choice in action._choices_actions}
            return {name: (command, helps.get(name, "")) for name, command in action.choices.items()}
    return {}


# -- arguments --------------------------------------------------------------------------------------------------------


def add_config(sub: argparse.ArgumentParser, text: str = CONFIG_HELP) -> None:
    """Add ``--config``, which :func:`config_of` reads."""
    sub.add_argument("--config", metavar="FILE", help=text)


def add_daemon(sub: argparse.ArgumentParser) -> None:
    """Add the options by which :func:`daemon_of` finds a running daemon."""
    where = sub.add_mutually_exclusive_group()
    where.add_argument(
        "--url",
        default="http://127.0.0.1:9109",
        metavar="URL",
        help="where http.listen of its configuration is, https:// with http.cert_file (default: %(default)s)",
    )
    where.add_argument(
        "--config",
        metavar="FILE",
        help="the daemon's configuration on this machine, for its address, token or password, and certificate "
        "(default: --url)",
    )
    sub.add_argument("--token-file", metavar="FILE", help="file with the token of http.token_file (default: none)")
    sub.add_argument("--username", metavar="NAME", help="user of http.username, with --password-file (default: none)")
    sub.add_argument("--password-file", metavar="FILE", help="file with that user's password (default: none)")
    sub.add_argument(
        "--ca-file", metavar="FILE", help="certificate of the authority to trust, PEM (default: those of the system)"
    )


def add_broker(sub: argparse.ArgumentParser, *, default: str | None, text: str) -> None:
    """Add the options by which :func:`broker_of` finds a broker."""
    sub.add_argument(
        "--broker",
        default=default,
        metavar="URL",
        type=_broker_url,
        help=f"{text}; mqtt, mqtts, ws or wss://HOST[:PORT]",
    )
    sub.add_argument("--username", metavar="NAME", help="for the broker (default: none)")
    sub.add_argument("--password-file", metavar="FILE", help="file with the password, one line (default: none)")
    sub.add_argument(
        "--ca-file", metavar="FILE", help="certificate authority of the broker, PEM (default: the system's)"
    )


def add_topic(sub: argparse.ArgumentParser) -> None:
    """Add ``--topic``, which :func:`topic_of` reads together with ``--stream``."""
    sub.add_argument(
        "--topic",
        type=_topic_template,
        default="telemetry/{stream}",
        metavar="TOPIC",
        help="where to publish; {stream} stands for the name (default: %(default)s)",
    )


def add_table(sub: argparse.ArgumentParser, *, span: bool = True) -> None:
    """Add the options that :func:`table_options` reads: what a person says about a CSV file."""
    group = sub.add_argument_group("the file", "what is left out is found out, and said")
    group.add_argument(
        "--time-column",
        action="append",
        metavar="COLUMN",
        help="column of the times; given twice, of the date and of the time of the day (default: by name and cells)",
    )
    group.add_argument(
        "--stream-column", metavar="COLUMN", help="column that says which machine a row is of (default: by name)"
    )
    group.add_argument(
        "--feature-column",
        metavar="COLUMN",
        help="column that says which feature a row's value is of (default: by name; else a column is a feature)",
    )
    group.add_argument("--value-column", metavar="COLUMN", help="column of these values (default: value or state)")
    group.add_argument("--only", metavar="MACHINE", help="only rows of this machine (default: all)")
    group.add_argument("--no-header", action="store_true", help="the first line is a row; columns are column 1, 2, ...")
    group.add_argument(
        "--encoding", type=_encoding, metavar="NAME", help="as latin-1 or gbk (default: UTF-8, or UTF-16 by its mark)"
    )
    group.add_argument(
        "--decimal", choices=(".", ","), metavar="MARK", help="decimal mark, . or , (default: by all cells of a column)"
    )
    group.add_argument(
        "--date-order",
        choices=("dmy", "mdy", "ymd"),
        help="what 05/01/26 means (default: by all cells of the column)",
    )
    group.add_argument(
        "--missing",
        action="append",
        type=float,
        metavar="NUMBER",
        help="a number that stands for no value, such as -999; may be given again (default: none)",
    )
    if span:
        group.add_argument(
            "--since", type=moment, metavar="TIME", help=f"oldest row: {_SPAN_HELP} (default: the first one)"
        )
        group.add_argument(
            "--until", type=moment, metavar="TIME", help=f"newest row: {_SPAN_HELP} (default: the last one)"
        )


_SPAN_HELP = "as 7d before the newest one, or a time such as 2026-01-05T10:00"


def _encoding(text: str) -> str:
    import codecs

    try:
        return codecs.lookup(text).name
    except LookupError:
        raise argparse.ArgumentTypeError(f"{text!r}: write an encoding such as latin-1, utf-16 or gbk") from None


# -- what they name ----------------------------------------------------------------------------------------------------


def config_of(options: argparse.Namespace) -> Config:
    """Return the configuration of --config, else of the environment or of the place packages install it to."""
    from gon_edge.config.file import load_config

    return load_config(config_file(options))


def config_file(options: argparse.Namespace) -> Path:
    """Return the path of :func:`config_of`."""
    if options.config is not None:
        return Path(options.config)
    found = Path(os.environ.get("GON_EDGE_CONFIG") or DEFAULT_CONFIG)
    if not found.exists():
        raise ConfigError("no such file; name the configuration with --config FILE", path=found)
    return found


def broker_of(options: argparse.Namespace) -> MqttConfig:
    """Return the broker of --broker, --username, --password-file and --ca-file."""
    from gon_edge.config.file import parse_config

    mqtt = {"url": options.broker, "username": options.username, "ca_file": options.ca_file}
    if options.password_file is not None:
        if not Path(options.password_file).is_file():
            raise InputError(f"{options.password_file}: no such file; write the password there, one line")
        mqtt["password_file"] = str(Path(options.password_file).absolute())  # not from systemd's credentials
    if options.ca_file is not None and not Path(options.ca_file).is_file():
        raise InputError(f"{options.ca_file}: no such file; write the certificate of the broker's authority there")
    try:
        return parse_config({"mqtt": mqtt, "subscriptions": [{"topic": "{stream}"}]}).mqtt
    except ConfigError as error:
        raise wrong_usage(str(error)) from None


def table_options(options: argparse.Namespace) -> TableOptions:
    """Return what the options of :func:`add_table` say about a file."""
    from gon_edge.tables.layout import TableOptions

    return TableOptions(
        time_columns=tuple(options.time_column or ()),
        stream_column=options.stream_column,
        feature_column=options.feature_column,
        value_column=options.value_column,
        only=options.only,
        encoding=options.encoding,
        header=not options.no_header,
        decimal=options.decimal,
        date_order=options.date_order,
        missing=tuple(options.missing or ()),
        since=options.since,
        until=options.until,
    )


def daemon_of(options: argparse.Namespace) -> DaemonApi:
    """Return the daemon of --config, else of --url with --token-file, --username, --password-file and --ca-file."""
    from gon_edge.links.client import DaemonApi, basic, bearer, daemon_api

    if options.config is not None:
        if options.token_file or options.username or options.ca_file:
            raise wrong_usage("--config says token, password and certificate itself; leave the other options out")
        return daemon_api(config_of(options))
    if (options.username is None) != (options.password_file is None):
        raise wrong_usage("--username and --password-file need each other")
    if options.token_file is not None and options.username is not None:
        raise wrong_usage("name --token-file or --username, not both")
    authorization, tls = None, None
    if options.token_file is not None:
        authorization = bearer(_secret(options.token_file))
    elif options.password_file is not None:
        authorization = basic(options.username, _secret(options.password_file))
    if options.ca_file is not None:
        import ssl

        try:
            tls = ssl.create_default_context(cafile=options.ca_file)
        except OSError as error:
            raise InputError(f"{options.ca_file}: no certificate: {error.strerror or error}") from None
    return DaemonApi(options.url, authorization=authorization, tls=tls)


def _secret(path: str) -> str:
    from gon_edge.config.secret import read_secret

    try:
        return read_secret(Path(path), "secret")
    except ConfigError as error:
        raise InputError(str(error)) from None


def wrong_usage(text: str) -> GonEdgeError:
    """Return the error of options that do not go together; keys of the configuration in `text` become options."""
    error = GonEdgeError(re.sub(r"mqtt\.(\w+)", lambda key: "--" + key[1].replace("_", "-"), text))
    error.exit_code = 2
    return error


def topic_of(options: argparse.Namespace) -> str:
    """Return the topic of ``--topic`` and ``--stream``, which is by default the name of this host."""
    import socket

    stream = options.stream or re.sub(r"[/+#\s]", "-", socket.gethostname())
    return str(options.topic.replace("{stream}", stream))


# -- values ------------------------------------------------------------------------------------------------------------


def _broker_url(text: str) -> str:
    from gon_edge.config.file import parse_config

    try:
        return parse_config({"mqtt": {"url": text}, "subscriptions": [{"topic": "{stream}"}]}).mqtt.url
    except ConfigError as error:
        raise argparse.ArgumentTypeError(str(error).replace("mqtt.url: ", "").replace("mqtt.", "--")) from None


def _topic_template(text: str) -> str:
    if not text or re.search(r"[+#\0]", text) or "{" in text.replace("{stream}", "") or text.startswith("$"):
        raise argparse.ArgumentTypeError(f"{text!r}: write a topic without wildcards, such as telemetry/{{stream}}")
    return text


def stream_name(text: str) -> str:
    """Return the name of a stream that one may publish to."""
    if not text or re.search(r"[/+#\0]", text):
        raise argparse.ArgumentTypeError(f"{text!r}: a stream's name is one level of a topic, without /, + and #")
    return text


def duration(text: str) -> float:
    """Return seconds."""
    from gon_edge.config.values import parse_duration

    try:
        return parse_duration(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r}: write a duration such as 120, 30s or 5m") from None


def moment(text: str) -> dict[str, float]:
    """Return ``{"ago_s": ...}`` for a duration, ``{"at": ...}`` for a time; what a number means is told by its size."""
    from datetime import UTC, datetime

    from gon_edge.config.values import parse_duration

    with contextlib.suppress(ValueError):
        seconds = parse_duration(text)
        return {"at": seconds} if seconds > _TIMES_FROM_S else {"ago_s": seconds}
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"{text!r}: write a duration such as 2h or 7d, or a time such as 2026-01-05T10:00"
        ) from None
    return {"at": (time if time.tzinfo else time.replace(tzinfo=UTC)).timestamp()}


def interval(text: str) -> float:
    """Return seconds between two things, `_SHORTEST_S` at least."""
    seconds = duration(text)
    if seconds < _SHORTEST_S:
        raise argparse.ArgumentTypeError(f"{text!r}: write at least {_SHORTEST_S:g} s")
    return seconds


def count(text: str) -> int:
    """Return a whole number from 0."""
    with contextlib.suppress(ValueError):
        if (number := int(text)) >= 0:
            return number
    raise argparse.ArgumentTypeError(f"{text!r}: write a whole number from 0")


def say(lines: Iterable[str]) -> None:
    """Tell a person what was made of a file, beside the output."""
    from gon_edge.commands.text import visible

    for number, line in enumerate(lines):
        sys.stderr.write(f"{'gon-edge: ' if number == 0 else '  '}{visible(line)}\n")


def note(text: str) -> None:
    """Tell a person one line beside the output; file names, topics and brokers may be anything."""
    from gon_edge.commands.text import visible

    sys.stderr.write(f"{visible(text)}\n")


# -- output ------------------------------------------------------------------------------------------------------------


def write_json(value: object) -> None:
    """Print `value` as JSON for a script; what could steer a terminal is written as an escape of JSON."""
    import json  # 2 ms, which a command that prints none need not wait for

    text = json.dumps(value, indent=2, ensure_ascii=False, default=str)
    sys.stdout.write("".join(c if c.isprintable() or c == "\n" else json.dumps(c)[1:-1] for c in text) + "\n")


@contextlib.contextmanager
def writing(path: str | Path) -> Iterator[None]:
    """Name what could not be written, in one line, with the exit status for it."""
    try:
        yield
    except OSError as error:
        raise OutputError(f"{path}: cannot be written: {error.strerror or error}") from None


class _Terminal:
    """A terminal, which no name in the data may steer; files and pipes get the data as they are."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        from gon_edge.commands.text import visible

        return self._stream.write("\n".join(map(visible, text.split("\n"))))

    def flush(self) -> None:
        self._stream.flush()

    def isatty(self) -> bool:
        return True


@contextlib.contextmanager
def output(path: str) -> Iterator[IO[str]]:
    """Open a file for text, or stdout for ``-``."""
    if path == "-":
        # Lines leave as they are made when somebody watches or a program waits for them.
        if isinstance(sys.stdout, io.TextIOWrapper):
            sys.stdout.reconfigure(line_buffering=True)
        yield cast(IO[str], _Terminal(sys.stdout)) if sys.stdout.isatty() else sys.stdout
        return
    with writing(path), Path(path).open("w", encoding="utf-8", newline="") as file:
        yield file
