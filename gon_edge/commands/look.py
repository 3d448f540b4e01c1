"""Commands for looking: at a running daemon, at the scores of a file, at a stream's last hours, into a model."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from gon_edge.commands.arguments import (
    AddCommand,
    add_config,
    add_daemon,
    add_table,
    config_of,
    count,
    daemon_of,
    interval,
    moment,
    note,
    output,
    say,
    table_options,
    write_json,
    writing,
    wrong_usage,
)
from gon_edge.errors import InputError


def _add_status(add: AddCommand) -> None:
    sub = add(
        "status",
        _status,
        "show what a running daemon is doing",
        "Ask a running daemon over HTTP for its streams (state, rows, score, threshold, model) and open alerts. "
        "States: warming-up, training, scoring, stale.",
        "gon-edge status --json --url http://127.0.0.1:9109",
    )
    sub.add_argument("--json", action="store_true", help="print everything the daemon says, as one JSON object")
    add_daemon(sub)


def _status(options: argparse.Namespace) -> int:
    from gon_edge.commands.text import status_text

    status = daemon_of(options).status()
    if options.json:
        write_json(status)
    else:
        sys.stdout.write(status_text(status))
    return 0


def _add_top(add: AddCommand) -> None:
    sub = add(
        "top",
        _top,
        "watch a running daemon in this terminal",
        "Show the streams of a running daemon (state, score against threshold, recent scores), its open alerts with "
        "their causes, the last hour's readings of the first streams where there is room, memory, latency and broker, "
        "and keep it current; streams in trouble stand first.  j and k (or "
        "the arrows) move the list, q or Ctrl-C ends it.  Where stdout is no terminal it is shown once, without "
        "colour.",
        "gon-edge top --url http://pi-1.local:9109 --every 2s",
    )
    add_daemon(sub)
    sub.add_argument("--every", type=interval, default=1.0, metavar="TIME", help="between looks (default: 1s)")
    sub.add_argument("--once", action="store_true", help="show it once and end")


def _top(options: argparse.Namespace) -> int:
    from gon_edge.commands.terminal import wants_redraw
    from gon_edge.commands.top import show_once, watch

    api = daemon_of(options)
    if options.once or not (wants_redraw(sys.stdout) and sys.stdin.isatty()):
        show_once(api, sys.stdout)
    else:
        watch(api, sys.stdin, sys.stdout, every_s=options.every)
    return 0


def _add_plot(add: AddCommand) -> None:
    sub = add(
        "plot",
        _plot,
        "draw the scores of a CSV file",
        "Judge a CSV file as gon-edge score does, and draw the score with its threshold, what it is made of, and "
        "expected against actual for the features that matter most.  SVG or PNG, by the ending of the file.  Long "
        "files are thinned: nothing that was high is lost.  Needs matplotlib, from pip install 'gon-edge[plot]' or the "
        "Debian package python3-matplotlib.",
        "gon-edge plot pump.csv.gz --model models/pump.npz -o pump.svg",
    )
    sub.add_argument("file", metavar="FILE.csv", help="the CSV file, gzip or not; - is standard input")
    sub.add_argument(
        "--model",
        required=True,
        metavar="MODEL",
        help="a model file (.npz), or the name of a shipped model: gon-edge models list",
    )
    sub.add_argument("-o", "--output", required=True, metavar="FILE", help="where to write: .svg or .png")
    sub.add_argument(
        "--theme",
        choices=("auto", "light", "dark"),
        default="auto",
        help="colours (default: auto: an SVG is what its viewer prefers, a PNG is light)",
    )
    add_table(sub)


def _plot(options: argparse.Namespace) -> int:
    from gon_edge.commands.plot import judge_csv, picture
    from gon_edge.commands.terminal import Progress
    from gon_edge.state.catalog import find
    from gon_edge.tables.table import Table

    if not options.output.lower().endswith((".svg", ".png")):
        raise wrong_usage(f"{options.output}: pictures are .svg or .png; give --output one of these endings")
    model = find(options.model).model
    with Table(options.file, table_options(options), keep=model.readings) as table:
        table.require(model.readings, "the model")
        say(table.said(model.readings))
        with Progress("rows") as progress:
            judged = judge_csv(model, table, progress=progress)
    title = f"{table.name}, model {options.model}: {judged.rows} rows, {judged.anomalies} anomalous"
    drawn = picture(judged, options.output, title=title, is_time=table.has_times, theme=options.theme)
    with writing(options.output):
        Path(options.output).write_bytes(drawn)
    note(f"{judged.rows} rows, {judged.anomalies} of them anomalous; wrote {options.output}")
    return 0


def _add_report(add: AddCommand) -> None:
    sub = add(
        "report",
        _report,
        "write a page about a stream's last hours",
        "Write one HTML file about a stream, for the morning after: score and threshold over time, what the score is "
        "made of, expected against actual, alerts with causes and durations, missing sensors, trainings and what the "
        "gate found.  It needs no network and no script, and can be mailed.  Scores are computed again from the "
        "stored rows with the model in use.  Reads the state directory; the daemon may run, and rows of its last half "
        "hour may be missing.  Needs matplotlib and jinja2, from pip install 'gon-edge[plot]' or the Debian packages "
        "python3-matplotlib and python3-jinja2.",
        "gon-edge report pump --since 24h -o pump.html --config /etc/gon-edge/gon-edge.yaml",
    )
    sub.add_argument("stream", metavar="STREAM", help="name of the stream")
    sub.add_argument(
        "--since",
        type=moment,
        default={"ago_s": 86400.0},
        metavar="TIME",
        help="from when on: as 24h before the newest row (the default), or a time such as 2026-01-05T10:00",
    )
    sub.add_argument("-o", "--output", required=True, metavar="FILE", help="where to write the page")
    add_config(sub)


def _report(options: argparse.Namespace) -> int:
    from gon_edge.commands.report import stream_report
    from gon_edge.commands.terminal import Progress

    config = config_of(options)
    with Progress("rows") as progress:
        page = stream_report(Path(config.state_dir), options.stream, options.since, progress=progress)
    with writing(options.output):
        Path(options.output).write_text(page, encoding="utf-8")
    note(f"wrote {options.output}")
    return 0


def _add_sample(add: AddCommand) -> None:
    sub = add(
        "sample",
        _sample,
        "show what a model thinks normal looks like",
        "Let the model of a stream make windows of its own, and show them beside windows of the recorded rows: what "
        "looks different is what the model does not know.  Without --png and --csv a table says for each feature the "
        "mean, the deviation and the mean step from row to row of both.  Reads the state directory; the daemon may "
        "run, and rows of its last half hour may be missing.",
        "gon-edge sample pump --config /etc/gon-edge/gon-edge.yaml --png pump.png",
    )
    sub.add_argument("stream", metavar="STREAM", help="name of the stream")
    sub.add_argument("--config", metavar="FILE", required=True, help="the configuration, YAML: it names the state_dir")
    sub.add_argument("--n", type=_some, default=8, metavar="N", help="windows of each kind (default: %(default)s)")
    sub.add_argument(
        "--png", metavar="FILE", help="draw them, real on the left; needs matplotlib (default: no picture)"
    )
    sub.add_argument("--csv", metavar="FILE", help="write them as CSV; - is stdout (default: no CSV)")
    sub.add_argument("--seed", type=count, default=0, metavar="N", help="another seed, other windows (default: 0)")


def _sample(options: argparse.Namespace) -> int:
    import numpy as np

    from gon_edge.commands import sample
    from gon_edge.commands.text import table
    from gon_edge.config.file import load_config
    from gon_edge.model.file import load_model
    from gon_edge.model.sample import generated_windows, real_windows
    from gon_edge.state.folder import ModelFolder
    from gon_edge.state.store import Store

    config = load_config(options.config)
    models = ModelFolder(Path(config.state_dir))
    if not models.file(options.stream).exists():
        there = ", ".join(models.streams()) or "none yet"
        raise InputError(f"stream {options.stream!r} has no model in {models.path}; there are: {there}")
    model = load_model(models.file(options.stream))
    rng = np.random.default_rng(options.seed)
    with Store.open(config.state_dir, read_only=True) as store:
        _, values, features, restart = store.rows(options.stream)
    real = real_windows(model, values, features, restart, options.n, rng)
    generated = generated_windows(model, options.n, rng)
    if options.png:  # first, since it may lack a library
        drawn = sample.picture(model, real, generated, title=f"stream {options.stream}, model {model.version}")
        with writing(options.png):
            Path(options.png).write_bytes(drawn)
    if options.csv:
        with output(options.csv) as out:
            sample.write_csv(out, model, real, generated)
    if not options.csv and not options.png:
        sys.stdout.write("\n".join(table(sample.summary(model, real, generated))) + "\n")
    return 0


def _some(text: str) -> int:
    if (number := count(text)) == 0:
        raise argparse.ArgumentTypeError(f"{text!r}: write a whole number from 1")
    return number


COMMANDS = {
    "status": _add_status,
    "top": _add_top,
    "plot": _add_plot,
    "report": _add_report,
    "sample": _add_sample,
}
