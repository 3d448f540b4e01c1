"""The ``rehearse`` command: a recording through a whole daemon in virtual time, and what it would have said.

Here are the files it reads: rows of a CSV file, what a person does meanwhile, and spans of known faults.  The daemon is
``daemon.rehearsal``; what came of it is added up in ``rehearsed`` and drawn by ``rehearsalpage``.
"""

from __future__ import annotations

import argparse
import json
import re
import signal
import sys
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from gon_edge.commands.arguments import (
    AddCommand,
    add_config,
    add_table,
    config_of,
    duration,
    moment,
    note,
    say,
    stream_name,
    table_options,
    write_json,
    writing,
    wrong_usage,
)
from gon_edge.errors import InputError
from gon_edge.process.files import open_regular

if TYPE_CHECKING:
    from gon_edge.commands.rehearsed import Fault, Rehearsed
    from gon_edge.daemon.rehearsal import Arrival, News, Order, Rehearsal
    from gon_edge.events import Reading
    from gon_edge.tables.table import Table


def _add_rehearse(add: AddCommand) -> None:
    sub = add(
        "rehearse",
        _rehearse,
        "run the whole daemon over a recording, in virtual time",
        "Let a daemon of this configuration live through a CSV file or a capture of gon-edge record, a week of minutes "
        "in seconds: it warms up, trains, judges, tells and trains again as it would have done, and starts without a "
        "model of its own.  Prints the alerts and trainings there would have been, alerts a week and the share of time "
        "in alarm.  A training takes no time in the recording: it ends before the next row.  Nothing is sent, and the "
        "state directory of the configuration is left alone.",
        "gon-edge rehearse pump.csv.gz --labels faults.csv --report pump.html",
    )
    sub.add_argument("file", metavar="FILE", help="the CSV file, gzip or not, or the capture; - is a CSV file on stdin")
    add_config(sub)
    sub.add_argument(
        "--stream",
        type=stream_name,
        metavar="NAME",
        help="name of the stream of a CSV file, by which the configuration may know it (default: the machine's, where "
        "the file has several, else the file's name)",
    )
    sub.add_argument(
        "--answers",
        metavar="FILE",
        help='what a person does meanwhile, a JSON object a line, such as {"time": "2026-01-05T10:00", "do": "accept", '
        '"stream": "pump", "since": "2h"} (default: nothing)',
    )
    sub.add_argument(
        "--labels",
        metavar="FILE",
        help="known faults, a CSV file with the columns start and end, and stream where there are several: counts "
        "which of them were told, how soon, and which alerts were false (default: none)",
    )
    sub.add_argument("--alerts", metavar="FILE", help="write every event of an alert, as published (default: no file)")
    sub.add_argument(
        "--report",
        metavar="FILE",
        help="write an HTML page with pictures; needs matplotlib, jinja2 (default: no page)",
    )
    sub.add_argument("--json", action="store_true", help="print what came of it as JSON")
    add_table(sub)


def _rehearse(options: argparse.Namespace) -> int:
    from gon_edge.commands.record import is_capture
    from gon_edge.commands.rehearsed import Rehearsed
    from gon_edge.daemon.rehearsal import Rehearsal
    from gon_edge.process.logs import set_up_logging
    from gon_edge.tables.layout import TableOptions

    set_up_logging("error")  # alerts and trainings are the result, not complaints
    if options.report is not None:
        from gon_edge.commands.rehearsalpage import rehearsal_page  # says what is missing before the work, not after
    captured = is_capture(options.file)
    if captured and (options.stream or table_options(options) != TableOptions()):
        raise wrong_usage("a capture says itself what its streams and times are; leave --stream and --time-column out")
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # the temporary folder goes, as by Ctrl-C
    result = Rehearsed(read_faults(options.labels) if options.labels is not None else None)
    orders = read_orders(options.answers) if options.answers is not None else ()
    with Rehearsal(config_of(options)) as rehearsal:
        (_play_capture if captured else _play_table)(options, rehearsal, orders, result)
        summary = result.summary(rehearsal)
        if options.report is not None:
            page = rehearsal_page(options.file, rehearsal, result)
            with writing(options.report):
                Path(options.report).write_text(page, encoding="utf-8")
            note(f"wrote {options.report}")
    if options.json:
        write_json(summary)
    else:
        sys.stdout.write(result.text(summary))
    return 0


def _play_capture(
    options: argparse.Namespace, rehearsal: Rehearsal, orders: Iterable[Order], result: Rehearsed
) -> None:
    from gon_edge.commands.record import Capture
    from gon_edge.commands.terminal import Progress

    with Capture(options.file) as capture, Progress("messages") as progress:
        offset_s = capture.began_wall - capture.began_at

        def messages() -> Iterator[Arrival]:
            nonlocal offset_s
            for count, message in enumerate(capture, 1):
                offset_s = message.wall - message.received_at
                yield message
                progress(count, capture.fraction if count % 100 == 0 else None)

        def end() -> float | None:
            return None if capture.ended_at is None else capture.ended_at + offset_s

        _write(options, rehearsal.play(messages(), orders, end=end), result)
    if capture.cut_off:
        note(f"gon-edge: {capture.name} has no end; what is there was read")


def _play_table(options: argparse.Namespace, rehearsal: Rehearsal, orders: Iterable[Order], result: Rehearsed) -> None:
    from gon_edge.commands.terminal import Progress
    from gon_edge.tables.table import Table

    with Table(options.file, table_options(options)) as table:
        say(table.said())
        stream = options.stream or (None if table.layout.stream is not None else _stream_of(options.file))
        with Progress("rows") as progress:

            def read() -> Iterator[Reading]:
                for count, reading in enumerate(readings(table, stream), 1):
                    yield reading
                    progress(count, table.fraction if count % 100 == 0 else None)

            _write(options, rehearsal.play(read(), orders), result)


def _write(options: argparse.Namespace, played: Iterable[News], result: Rehearsed) -> None:
    """Add up what comes, and write events as they come."""
    from gon_edge.daemon.rehearsal import Told

    with ExitStack() as stack:
        out: IO[str] | None = None
        if options.alerts is not None:
            stack.enter_context(writing(options.alerts))
            out = stack.enter_context(Path(options.alerts).open("w", encoding="utf-8"))
        for news in played:
            result.add(news)
            if out is not None and isinstance(news, Told):
                out.write(json.dumps(news.event) + "\n")


# -- files -------------------------------------------------------------------------------------------------------------


def readings(table: Table, stream: str | None) -> Iterator[Reading]:
    """Rows of a table as readings: what ``replay`` would send, and the daemon would hear.

    Parameters
    ----------
    table : Table
    stream : str or None
        ``None``: each machine of the table is a stream.

    Raises
    ------
    InputError
        The table has no times, or a file is damaged.
    """
    from gon_edge.events import Reading

    if not table.has_times:
        raise InputError(f"{table.name}: name the column of the time with --time-column ({', '.join(table.columns)})")
    for record in table.records():
        values: dict[str, float] = {}
        masked: dict[str, str] = {}
        for name, value in zip(record.names, record.values, strict=True):
            if isinstance(value, str):
                masked[name] = value
            else:
                values[name] = value
        name = re.sub(r"[/+#\0]", "-", record.stream) or "none" if stream is None else stream
        yield Reading(name, record.at, values, masked)


def read_orders(path: str) -> list[Order]:
    """What a person does at which time, from a file with a JSON object a line.

    Each is an order as commands send it, ``do`` and what that takes, with ``time``: when it is given, Unix or ISO 8601.
    ``at``, ``since``, ``until`` and ``for`` may be written as on the command line, such as ``2h``.

    Raises
    ------
    InputError
        The file cannot be read, or a line is no order.
    """
    from gon_edge.daemon.rehearsal import Order
    from gon_edge.stream.times import unix_seconds

    orders = []
    for number, line in enumerate(_lines(path), 1):
        if not line.strip():
            continue
        try:
            asked: dict[str, Any] = dict(json.loads(line))
            at = unix_seconds(asked.pop("time"))
            for key in ("at", "since", "until"):
                if isinstance(asked.get(key), str):
                    asked[key] = moment(asked[key])
            if "for" in asked:
                asked["for_s"] = duration(str(asked.pop("for")))
            if not isinstance(asked["do"], str):
                raise ValueError("do is no text")
        except KeyError as error:
            raise InputError(f"{path}:{number}: {error} is missing; each line needs time and do") from None
        except (TypeError, ValueError, RecursionError, argparse.ArgumentTypeError) as error:
            raise InputError(f"{path}:{number}: is no order: {error}") from None
        orders.append(Order(at, asked))
    return orders


def read_faults(path: str) -> list[Fault]:
    """Spans of known faults, from a CSV file with the columns ``start`` and ``end``, and perhaps ``stream``.

    Raises
    ------
    InputError
        The file cannot be read, or a row is no span.
    """
    from gon_edge.commands.rehearsed import Fault
    from gon_edge.tables.csvfile import CsvFile
    from gon_edge.tables.times import Times

    faults, looked = [], Times()
    with CsvFile(path) as table:
        ends = table.column("start", "--labels"), table.column("end", "--labels")
        stream = table.columns.index("stream") if "stream" in table.columns else None
        rows = [(table.line, cells) for cells in table]
    for line, cells in rows:
        for i in ends:
            looked.add(cells[i] or "an empty cell", line)
    try:
        _, times, _ = looked.decide()
        if looked.footer is not None:
            raise ValueError(looked.footer, "the last row")
    except ValueError as error:
        where = "".join(f":{line}" for line in error.args[:1] if len(error.args) > 1)
        raise InputError(f"{path}{where}: {error.args[-1]!r} is no time") from None
    for (line, cells), start, end in zip(rows, times[::2], times[1::2], strict=True):
        if end < start:
            raise InputError(f"{path}:{line}: the end is before the start")
        faults.append(Fault(float(start), float(end), "" if stream is None else cells[stream].strip()))
    return sorted(faults)


def _lines(path: str) -> list[str]:
    try:
        with open_regular(path) as file:
            return file.read().decode("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        raise InputError(f"{path}: cannot be read: {reason}") from None


def _stream_of(path: str) -> str:
    """The name of a file without its endings, as a stream's."""
    return re.sub(r"[/+#\0]", "-", Path(path).name.split(".")[0]) if path != "-" else "stdin"


COMMANDS = {"rehearse": _add_rehearse}
