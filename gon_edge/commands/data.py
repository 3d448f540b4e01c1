"""Commands that move data: a demonstration, telemetry to a broker, messages from and to files, scores of a file."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from gon_edge.commands.arguments import (
    CONFIG_HELP,
    AddCommand,
    add_broker,
    add_config,
    add_table,
    add_topic,
    broker_of,
    config_of,
    count,
    duration,
    interval,
    note,
    output,
    say,
    stream_name,
    table_options,
    topic_of,
    write_json,
    writing,
    wrong_usage,
)
from gon_edge.errors import GonEdgeError, InputError

if TYPE_CHECKING:
    from gon_edge.commands.replay import ReplayReport


def _add_publish(add: AddCommand) -> None:
    sub = add(
        "publish",
        _publish,
        "publish this machine's telemetry to a broker",
        "Measure this machine (CPU, load, memory, swap, disk, network; frequency and temperature where there are) and "
        "publish one JSON object an interval with QoS 1, until Ctrl-C.  A broker that goes away is waited for; what is "
        "measured meanwhile is not made up for.",
        "gon-edge publish --broker mqtt://pi-1.local --stream laptop",
    )
    add_broker(sub, default="mqtt://localhost:1883", text="the broker (default: %(default)s)")
    sub.add_argument("--stream", type=stream_name, metavar="NAME", help="name of the stream (default: the host's name)")
    add_topic(sub)
    sub.add_argument(
        "--interval",
        type=interval,
        default=0.5,
        metavar="TIME",
        help="between samples, as 0.5 (seconds) or 10s (default: 0.5)",
    )


def _publish(options: argparse.Namespace) -> int:
    import math

    from gon_edge.links.publisher import Publisher, publish_samples
    from gon_edge.process.host import HostTelemetry
    from gon_edge.process.logs import set_up_logging

    set_up_logging("info")
    topic = topic_of(options)
    with Publisher(broker_of(options), patience_s=math.inf) as publisher:
        note(f"publishing to {publisher.url}, topic {topic}, every {options.interval:g} s; Ctrl-C ends it")
        publish_samples(publisher, topic, HostTelemetry().sample, options.interval)
    return 0


def _add_record(add: AddCommand) -> None:
    sub = add(
        "record",
        _record,
        "record raw messages of a broker to a file",
        "Write every message of some topics to a file, as it came, with the time it came at, until --for is over or "
        "Ctrl-C.  gon-edge replay sends the file to a broker again, or says with --alerts which alerts come of it: "
        "the same as live, so that a report can come with its capture.  Begin some windows (a few minutes at one row "
        "a second) before what matters.",
        "gon-edge record --broker mqtt://pi-1.local --topic telemetry/+ --for 10m -o capture.jsonl.gz",
    )
    add_broker(sub, default=None, text="the broker (default: that of --config, else mqtt://localhost:1883)")
    sub.add_argument(
        "--topic",
        action="append",
        metavar="FILTER",
        help="what to record, with + and # as wildcards; may be given again (default: the subscriptions of --config)",
    )
    add_config(sub, "a daemon's configuration: its broker and its subscriptions (default: none)")
    sub.add_argument("--for", dest="for_s", type=duration, metavar="TIME", help="how long (default: until Ctrl-C)")
    sub.add_argument(
        "-o", "--output", required=True, metavar="FILE", help="where to write; compressed when it ends in .gz"
    )
    sub.add_argument("--json", action="store_true", help="print what was recorded as JSON")


def _record(options: argparse.Namespace) -> int:
    import math

    from gon_edge.commands.record import record
    from gon_edge.commands.terminal import Progress
    from gon_edge.commands.text import visible
    from gon_edge.links.publisher import Publisher
    from gon_edge.process.logs import set_up_logging
    from gon_edge.stream.payload import decoders

    set_up_logging("info")
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # ends the recording as Ctrl-C does
    config = config_of(options) if options.config is not None else None
    topics = tuple(options.topic or (d.template.filter for d in (decoders(config) if config else ())))
    if not topics:
        raise wrong_usage("name what to record with --topic, or a configuration with --config")
    options.broker = options.broker or (None if config else "mqtt://localhost:1883")
    mqtt = config.mqtt if config is not None and options.broker is None else broker_of(options)
    with Publisher(mqtt, patience_s=math.inf) as publisher, Progress("messages") as progress:
        note(f"recording {', '.join(topics)} of {publisher.url} to {options.output}; Ctrl-C ends it")
        with writing(options.output), Path(options.output).open("wb") as out:
            report = record(publisher, topics, out, for_s=options.for_s, progress=progress)
    if options.json:
        write_json({**dataclasses.asdict(report), "file": options.output})
    else:
        sys.stdout.write(
            f"{visible(options.output)}: {report.messages} messages, {report.payload_bytes} bytes of payload, "
            f"{report.duration_s:.1f} s\n"
        )
    return 0


def _add_replay(add: AddCommand) -> None:
    sub = add(
        "replay",
        _replay,
        "send a recorded CSV file or capture to a broker",
        "Send a CSV file to a broker, one JSON object a row with QoS 1, at the pace of its own timestamps or faster.  "
        "Numbers become numbers however they are written, empty cells null; the time stays the text it is where a "
        "daemon reads it, and becomes ISO 8601 where not.  Says at the end how many rows were sent and acknowledged; "
        "exit status 1 when some were not.  A capture of gon-edge record is sent to the topics it came from, or with "
        "--alerts judged here, without a broker: prints the alerts a daemon publishes for it, a JSON object a line.  "
        "What the daemon cannot keep up with is dropped by the broker or by the "
        'daemon, not here: see gon_edge_messages_total{result="dropped"}.',
        "gon-edge replay pump.csv.gz --broker mqtt://localhost --stream pump --time-column datetime --speed 100",
    )
    sub.add_argument("file", metavar="FILE", help="the CSV file or the capture; - is a CSV file on standard input")
    add_broker(sub, default="mqtt://localhost:1883", text="the broker (default: %(default)s)")
    sub.add_argument(
        "--stream",
        type=stream_name,
        metavar="NAME",
        help="name of the stream (default: none; a CSV file needs it, unless it names its machines)",
    )
    add_topic(sub)
    add_table(sub)
    pace = sub.add_mutually_exclusive_group()
    pace.add_argument(
        "--speed",
        type=_positive,
        default=1.0,
        metavar="X",
        help="times faster than recorded (default: 1); needs times in the file",
    )
    pace.add_argument("--as-fast-as-possible", action="store_true", help="as fast as the broker acknowledges")
    sub.add_argument("--limit", type=count, metavar="N", help="send N rows or messages at most (default: all)")
    sub.add_argument("--alerts", action="store_true", help="print the alerts of a capture; nothing is sent")
    add_config(sub, f"for --alerts: {CONFIG_HELP}")
    sub.add_argument(
        "--model", metavar="MODEL", help="for --alerts: a model for every stream (default: those in use, by --config)"
    )
    sub.add_argument("--json", action="store_true", help="print what was sent as JSON")


def _replay(options: argparse.Namespace) -> int:
    from gon_edge.commands.record import is_capture

    if is_capture(options.file):
        return _replay_capture(options)
    if options.stream is None and options.stream_column is None and not Path(options.file).is_file():
        raise wrong_usage("name the stream of a CSV file with --stream, or its column with --stream-column")
    if options.alerts:
        raise wrong_usage(
            "--alerts needs a capture, as gon-edge record makes one; a CSV file is scored by gon-edge score"
        )
    return _replay_csv(options)


def _replay_capture(options: argparse.Namespace) -> int:
    from gon_edge.commands.record import Capture, alert_line, alerts, send
    from gon_edge.commands.terminal import Progress
    from gon_edge.links.publisher import Publisher
    from gon_edge.process.logs import set_up_logging
    from gon_edge.state.catalog import find
    from gon_edge.tables.layout import TableOptions

    set_up_logging("info")
    if options.stream or table_options(options) != TableOptions():
        raise wrong_usage("a capture says itself what its streams and times are; leave the options of a CSV file out")
    with Capture(options.file) as capture, Progress("messages") as progress:
        if options.alerts:
            config = config_of(options)
            model = find(options.model, Path(config.state_dir)).model if options.model else None
            with output("-") as out:
                for alert in alerts(capture, config, model, progress=progress):
                    out.write(alert_line(alert) + "\n")
        else:
            speed = None if options.as_fast_as_possible else options.speed
            with Publisher(broker_of(options)) as publisher:
                report = send(capture, publisher, speed=speed, limit=options.limit, progress=progress)
    if capture.cut_off:
        note(f"gon-edge: {capture.name} has no end; what is there was read")
    if options.alerts:
        return 0
    if capture.retained:
        sys.stderr.write(f"gon-edge: {capture.retained} retained messages were left out\n")
    return _write_replay(options, report, "messages", "the topics they came from")


def _replay_csv(options: argparse.Namespace) -> int:
    from gon_edge.commands.replay import replay
    from gon_edge.commands.terminal import Progress
    from gon_edge.links.publisher import Publisher
    from gon_edge.process.logs import set_up_logging
    from gon_edge.tables.table import Table

    set_up_logging("info")
    with Table(options.file, table_options(options), follow=True) as table:
        if options.stream is None and table.layout.stream is None:
            raise wrong_usage("name the stream of a CSV file with --stream, or its column with --stream-column")
        say(table.said())
        topic = options.topic if options.stream is None else topic_of(options)
        with Publisher(broker_of(options)) as publisher, Progress("rows") as progress:
            report = replay(
                table,
                publisher,
                topic,
                speed=None if options.as_fast_as_possible else options.speed,
                limit=options.limit,
                progress=progress,
            )
    return _write_replay(options, report, "rows", topic)


def _write_replay(options: argparse.Namespace, report: ReplayReport, unit: str, topic: str) -> int:
    from gon_edge.commands.text import visible

    if options.json:
        write_json({**dataclasses.asdict(report), "rows_per_s": report.rows_per_s, "topic": topic})
    else:
        refused = f", {report.refused} refused ({visible(report.refusal)})" if report.refused else ""
        sys.stdout.write(
            f"sent {report.sent} {unit} to {visible(topic)}: {report.acknowledged} acknowledged{refused}, "
            f"{report.duration_s:.1f} s, {report.rows_per_s:.0f} {unit} a second\n"
        )
    if not report.complete:
        raise GonEdgeError(f"{report.sent - report.acknowledged} of {report.sent} {unit} were not acknowledged")
    return 0


def _add_score(add: AddCommand) -> None:
    sub = add(
        "score",
        _score,
        "score a CSV file with a model",
        "Judge each row of a CSV file by itself and the rows before it, without a broker.  Prints CSV: the time column "
        "or the row's number, score, threshold, is_anomaly (0 or 1) and top_feature (of anomalous rows).  Every "
        "feature of the model must be a column; empty cells and text count as missing.  Says how the file was read.",
        "gon-edge score --model models/pump.npz pump.csv.gz -o scores.csv",
    )
    sub.add_argument("file", metavar="FILE.csv", help="the CSV file, gzip or not; - is standard input")
    sub.add_argument(
        "--model",
        required=True,
        metavar="MODEL",
        help="a model file (.npz), as the daemon writes them, or the name of a shipped model: gon-edge models list",
    )
    sub.add_argument("-o", "--output", default="-", metavar="FILE", help="where to write (default: -, stdout)")
    add_table(sub)


def _score(options: argparse.Namespace) -> int:
    from gon_edge.commands.scorefile import score_csv
    from gon_edge.commands.terminal import Progress
    from gon_edge.state.catalog import find
    from gon_edge.tables.table import Table

    model = find(options.model).model
    with (
        Table(options.file, table_options(options), keep=model.readings, follow=True) as table,
        output(options.output) as out,
    ):
        table.require(model.readings, "the model")
        say(table.said(model.readings))
        with Progress("rows") as progress:
            # A terminal shows the rows themselves.
            report = score_csv(model, table, out, progress=(lambda *_: None) if out.isatty() else progress)
    if report.texts:
        sys.stderr.write(f"gon-edge: {report.texts} cells are no numbers and counted as missing\n")
    if report.texts > report.read:  # of a pipe, which could not be looked through before
        raise InputError(f"{table.name}: only {report.read} of {report.read + report.texts} cells are numbers")
    if report.unknown:
        note(f"gon-edge: columns the model does not know were left out: {', '.join(report.unknown)}")
    sys.stderr.write(f"{report.rows} rows, {report.anomalies} of them anomalous\n")
    return 0


def _positive(text: str) -> float:
    with contextlib.suppress(ValueError):
        if 0.0 < (number := float(text)) < float("inf"):
            return number
    raise argparse.ArgumentTypeError(f"{text!r}: write a number above 0")


COMMANDS = {
    "publish": _add_publish,
    "record": _add_record,
    "replay": _add_replay,
    "score": _add_score,
}
