"""The command line: arguments in, one module called, an exit status out.

Data goes to stdout, everything else to stderr.  What a command needs is imported when it runs, so that
``gon-edge version`` does not wait for numpy and MQTT.  A new command is a function here and shows up in the completion
and in the help by itself.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import io
import json
import os
import re
import signal
import sys
import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from gon_edge.errors import EXIT_CODES, ConfigError, GonEdgeError, InputError

if TYPE_CHECKING:
    from gon_edge.config import Config, MqttConfig
    from gon_edge.replay import ReplayReport
    from gon_edge.status import DaemonApi

_DEFAULT_CONFIG = "/etc/gon-edge/gon-edge.yaml"
_CONFIG_HELP = f"the daemon's configuration (default: $GON_EDGE_CONFIG, else {_DEFAULT_CONFIG})"
_LEVELS = ("debug", "info", "warning", "error")
_EXIT_CODES = "exit status: " + "; ".join(f"{code} {text}" for code, text in EXIT_CODES.items())


class _OutputError(GonEdgeError):
    exit_code = 73


class _HelpFormatter(argparse.HelpFormatter):
    """Wraps paragraphs to the terminal and leaves indented lines as they are, so that examples can be copied."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        paragraphs = text.split("\n")
        return "\n".join(line if line.startswith("  ") else textwrap.fill(line, width) for line in paragraphs)


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
    parser = _parser()
    try:
        options = parser.parse_args(arguments)
        command = getattr(options, "command", None)
        if command is None:
            parser.print_help(sys.stderr)
            return 2
        status: int = command(options)
        sys.stdout.flush()
        return status
    except GonEdgeError as error:
        text = " ".join(str(error).split())
        sys.stderr.write(f"gon-edge: {text}\n")
        return error.exit_code
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    except BrokenPipeError:
        # The reader has gone.  Python would say so again when it flushes stdout at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE


# -- commands ----------------------------------------------------------------------------------------------------------


def _run(options: argparse.Namespace) -> int:
    from gon_edge.config import load_config
    from gon_edge.logs import set_up_logging
    from gon_edge.memory import deferred

    config = load_config(_config_file(options))
    set_up_logging(options.log_level or config.log.level, config.log.format)
    with deferred():
        from gon_edge.daemon import Daemon

    Daemon(config).run()
    return 0


def _demo(options: argparse.Namespace) -> int:
    from gon_edge.demo import DemoSettings, run_demo

    settings = DemoSettings(
        fast=options.fast,
        fault=not options.no_fault,
        duration_s=options.duration,
        broker=_broker(options) if options.broker else None,
    )
    return run_demo(settings, sys.stdout)


def _check_config(options: argparse.Namespace) -> int:
    from gon_edge.config import load_config
    from gon_edge.config import options as config_options

    try:
        config = load_config(options.file)
        if any(s.model not in (None, "none") for s in (config.streams.defaults, *config.streams.overrides.values())):
            from gon_edge.catalog import check_starters

            check_starters(config)
    except ConfigError as error:
        if options.json:
            _write_json({"valid": False, "error": str(error), "key": error.key, "line": error.line})
        raise
    if options.json:
        _write_json({"valid": True, "options": dict(config_options(config))})
        return 0
    topics = ", ".join(subscription.topic for subscription in config.subscriptions)
    sys.stdout.write(f"{options.file}: valid; node {config.node}, broker {config.mqtt.url}, topics {topics}\n")
    return 0


def _config_show(options: argparse.Namespace) -> int:
    from gon_edge.config import effective

    config = _config(options)
    mapping = effective(config)
    if options.json:
        _write_json(mapping)
        return 0
    import yaml

    sys.stdout.write(f"# {config.path}, with every default\n")
    yaml.safe_dump(mapping, sys.stdout, sort_keys=False, allow_unicode=True, width=120)
    return 0


def _doctor(options: argparse.Namespace) -> int:
    from gon_edge.doctor import examine
    from gon_edge.terminal import Paint, wants_colour

    paint = Paint(wants_colour(sys.stdout))
    colours = {"ok": "green", "warning": "yellow", "fault": "red"}
    findings = []
    for finding in examine(_config_file(options)):
        findings.append(finding)
        if not options.json:
            state = paint(f"{finding.state:8}", colours[finding.state])
            sys.stdout.write(f"{state} {finding.check:14} {finding.text}\n")
            sys.stdout.write(f"{'':24}do: {finding.advice}\n" if finding.advice else "")
            sys.stdout.flush()  # the broker may take its time
    counts = {state: sum(finding.state == state for finding in findings) for state in colours}
    if options.json:
        _write_json({"healthy": not counts["fault"], **counts, "findings": [dataclasses.asdict(f) for f in findings]})
    else:
        sys.stdout.write(f"faults: {counts['fault']}, warnings: {counts['warning']}\n")
    return 1 if counts["fault"] else 0


def _status(options: argparse.Namespace) -> int:
    from gon_edge.status import status_text

    status = _daemon_api(options).status()
    if options.json:
        _write_json(status)
    else:
        sys.stdout.write(status_text(status))
    return 0


def _publish(options: argparse.Namespace) -> int:
    import math

    from gon_edge.host import HostTelemetry
    from gon_edge.logs import set_up_logging
    from gon_edge.publisher import Publisher, publish_samples

    set_up_logging("info")
    topic = _topic(options)
    with Publisher(_broker(options), patience_s=math.inf) as publisher:
        sys.stderr.write(
            f"publishing to {publisher.url}, topic {topic}, every {options.interval:g} s; Ctrl-C ends it\n"
        )
        publish_samples(publisher, topic, HostTelemetry().sample, options.interval)
    return 0


def _top(options: argparse.Namespace) -> int:
    from gon_edge.top import show_once, watch

    api = _daemon_api(options)
    if options.once or not (sys.stdout.isatty() and sys.stdin.isatty()):
        sys.stdout.write(show_once(api, sys.stdout))
    else:
        watch(api, sys.stdin, sys.stdout, every_s=options.every)
    return 0


def _record(options: argparse.Namespace) -> int:
    import math

    from gon_edge.logs import set_up_logging
    from gon_edge.payload import decoders
    from gon_edge.publisher import Publisher
    from gon_edge.record import record
    from gon_edge.terminal import Progress

    set_up_logging("info")
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # ends the recording as Ctrl-C does
    config = _config(options) if options.config is not None else None
    topics = tuple(options.topic or (d.template.subscription for d in (decoders(config) if config else ())))
    if not topics:
        raise _usage("name what to record with --topic, or a configuration with --config")
    options.broker = options.broker or (None if config else "mqtt://localhost:1883")
    mqtt = config.mqtt if config is not None and options.broker is None else _broker(options)
    with Publisher(mqtt, patience_s=math.inf) as publisher, Progress("messages") as progress:
        sys.stderr.write(f"recording {', '.join(topics)} of {publisher.url} to {options.output}; Ctrl-C ends it\n")
        try:
            with Path(options.output).open("wb") as out:
                report = record(publisher, topics, out, for_s=options.for_s, progress=progress)
        except OSError as error:
            raise _OutputError(f"{options.output}: cannot be written: {error.strerror or error}") from None
    if options.json:
        _write_json({**dataclasses.asdict(report), "file": options.output})
    else:
        sys.stdout.write(
            f"{options.output}: {report.messages} messages, {report.payload_bytes} bytes of payload, "
            f"{report.duration_s:.1f} s\n"
        )
    return 0


def _replay(options: argparse.Namespace) -> int:
    from gon_edge.record import is_capture

    if is_capture(options.file):
        return _replay_capture(options)
    if options.alerts:
        raise _usage("--alerts needs a capture, as gon-edge record makes one; a CSV file is scored by gon-edge score")
    if options.stream is None:
        raise _usage("name the stream of a CSV file with --stream")
    return _replay_csv(options)


def _replay_capture(options: argparse.Namespace) -> int:
    from gon_edge.catalog import find
    from gon_edge.logs import set_up_logging
    from gon_edge.publisher import Publisher
    from gon_edge.record import Capture, alert_line, alerts, send
    from gon_edge.terminal import Progress

    set_up_logging("info")
    with Capture(options.file) as capture, Progress("messages") as progress:
        if options.alerts:
            config = _config(options)
            model = find(options.model, Path(config.state_dir)).model if options.model else None
            with _output("-") as out:
                for alert in alerts(capture, config, model, progress=progress):
                    out.write(alert_line(alert) + "\n")
        else:
            speed = None if options.as_fast_as_possible else options.speed
            with Publisher(_broker(options)) as publisher:
                report = send(capture, publisher, speed=speed, limit=options.limit, progress=progress)
    if capture.cut_off:
        sys.stderr.write(f"gon-edge: {capture.name} has no end; what is there was read\n")
    if options.alerts:
        return 0
    if capture.retained:
        sys.stderr.write(f"gon-edge: {capture.retained} retained messages were left out\n")
    return _write_replay(options, report, "messages", "the topics they came from")


def _replay_csv(options: argparse.Namespace) -> int:
    from gon_edge.csvfile import CsvFile
    from gon_edge.logs import set_up_logging
    from gon_edge.publisher import Publisher
    from gon_edge.replay import replay
    from gon_edge.terminal import Progress

    set_up_logging("info")
    topic = _topic(options)
    with CsvFile(options.file) as table, Publisher(_broker(options)) as publisher, Progress("rows") as progress:
        report = replay(
            table,
            publisher,
            topic,
            time_column=options.time_column,
            speed=None if options.as_fast_as_possible else options.speed,
            limit=options.limit,
            progress=progress,
        )
    return _write_replay(options, report, "rows", topic)


def _write_replay(options: argparse.Namespace, report: ReplayReport, unit: str, topic: str) -> int:
    if options.json:
        _write_json({**dataclasses.asdict(report), "rows_per_s": report.rows_per_s, "topic": topic})
    else:
        refused = f", {report.refused} refused ({report.refusal})" if report.refused else ""
        sys.stdout.write(
            f"sent {report.sent} {unit} to {topic}: {report.acknowledged} acknowledged{refused}, "
            f"{report.duration_s:.1f} s, {report.rows_per_s:.0f} {unit} a second\n"
        )
    if not report.complete:
        raise GonEdgeError(f"{report.sent - report.acknowledged} of {report.sent} {unit} were not acknowledged")
    return 0


def _score(options: argparse.Namespace) -> int:
    from gon_edge.catalog import find
    from gon_edge.csvfile import CsvFile
    from gon_edge.scorefile import score_csv
    from gon_edge.terminal import Progress

    model = find(options.model).model
    with CsvFile(options.file) as table, _output(options.output) as out, Progress("rows") as progress:
        # A terminal shows the rows themselves.
        report = score_csv(
            model,
            table,
            out,
            time_column=options.time_column,
            progress=(lambda *_: None) if out.isatty() else progress,
        )
    if report.unknown:
        sys.stderr.write(f"gon-edge: columns the model does not know were left out: {', '.join(report.unknown)}\n")
    if report.unreadable:
        sys.stderr.write(f"gon-edge: {report.unreadable} cells are no numbers and counted as missing\n")
    sys.stderr.write(f"{report.rows} rows, {report.anomalies} of them anomalous\n")
    return 0


def _plot(options: argparse.Namespace) -> int:
    from gon_edge.catalog import find
    from gon_edge.csvfile import CsvFile
    from gon_edge.plot import judge_csv, picture
    from gon_edge.terminal import Progress

    if not options.output.lower().endswith((".svg", ".png")):
        raise _usage(f"{options.output}: pictures are .svg or .png; give --output one of these endings")
    model = find(options.model).model
    with CsvFile(options.file) as table, Progress("rows") as progress:
        judged = judge_csv(model, table, time_column=options.time_column, progress=progress)
    title = f"{table.name}, model {options.model}: {judged.rows} rows, {judged.anomalies} anomalous"
    _write_file(options.output, picture(judged, options.output, title=title, is_time=options.time_column is not None))
    sys.stderr.write(f"{judged.rows} rows, {judged.anomalies} of them anomalous; wrote {options.output}\n")
    return 0


def _report(options: argparse.Namespace) -> int:
    from gon_edge.report import stream_report
    from gon_edge.terminal import Progress

    config = _config(options)
    with Progress("rows") as progress:
        page = stream_report(Path(config.state_dir), options.stream, options.since, progress=progress)
    _write_file(options.output, page.encode())
    sys.stderr.write(f"wrote {options.output}\n")
    return 0


def _write_file(path: str, content: bytes) -> None:
    try:
        Path(path).write_bytes(content)
    except OSError as error:
        raise _OutputError(f"{path}: cannot be written: {error.strerror or error}") from None


def _sample(options: argparse.Namespace) -> int:
    import numpy as np

    from gon_edge import sample
    from gon_edge.config import load_config
    from gon_edge.modelfile import load_model
    from gon_edge.retrain import ModelFolder
    from gon_edge.store import Store
    from gon_edge.terminal import table

    config = load_config(options.config)
    models = ModelFolder(Path(config.state_dir))
    if not models.file(options.stream).exists():
        there = ", ".join(models.streams()) or "none yet"
        raise InputError(f"stream {options.stream!r} has no model in {models.path}; there are: {there}")
    model = load_model(models.file(options.stream))
    rng = np.random.default_rng(options.seed)
    with Store.open(config.state_dir, read_only=True) as store:
        _, values, features, restart = store.rows(options.stream)
    real = sample.real_windows(model, values, features, restart, options.n, rng)
    generated = sample.generated_windows(model, options.n, rng)
    if options.csv:
        with _output(options.csv) as out:
            sample.write_csv(out, model, real, generated)
    if options.png:
        title = f"stream {options.stream}, model {model.version}"
        try:
            Path(options.png).write_bytes(sample.picture(model, real, generated, title=title))
        except OSError as error:
            raise _OutputError(f"{options.png}: cannot be written: {error.strerror or error}") from None
    if not options.csv and not options.png:
        sys.stdout.write("\n".join(table(sample.summary(model, real, generated))) + "\n")
    return 0


def _models_list(options: argparse.Namespace) -> int:
    from gon_edge.catalog import listing
    from gon_edge.modeltext import listing_text

    models = listing(_state_dir(options))
    if options.json:
        _write_json(models)
    else:
        sys.stdout.write(listing_text(models))
    return 0


def _models_show(options: argparse.Namespace) -> int:
    from gon_edge.catalog import describe, find
    from gon_edge.modeltext import description_text

    state_dir = _state_dir(options)
    model = describe(find(options.model, state_dir), state_dir)
    if options.json:
        _write_json(model)
    else:
        sys.stdout.write(description_text(model))
    return 0


def _models_verify(options: argparse.Namespace) -> int:
    from gon_edge.catalog import places, verify
    from gon_edge.modeltext import checks_text

    results = []
    for label, path, shipped in places(options.models, _state_dir(options)):
        results.append((label, verify(path, shipped)))
        if not options.json:
            sys.stdout.write(checks_text(*results[-1]))
    if options.json:
        _write_json([{"model": label, "checks": [dataclasses.asdict(c) for c in checks]} for label, checks in results])
    if not results:
        raise InputError("no model was found to verify; name one, or install gon-edge again for the shipped ones")
    return int(not all(check.passed for _, checks in results for check in checks))


def _models_diff(options: argparse.Namespace) -> int:
    from gon_edge.catalog import differences, find
    from gon_edge.modeltext import differences_text

    state_dir = _state_dir(options)
    a, b = find(options.a, state_dir), find(options.b, state_dir)
    found = differences(a.model, b.model)
    if options.json:
        _write_json({"a": a.label, "b": b.label, **found})
    else:
        sys.stdout.write(differences_text(a.label, b.label, found))
    return 0


def _models_rollback(options: argparse.Namespace) -> int:
    from gon_edge.control import listens, request
    from gon_edge.retrain import ModelFolder

    state_dir = _needed_state_dir(options)
    running = listens(state_dir)
    if running:
        asked = {"do": "rollback", "stream": options.stream, "version": options.version}
        version = str(request(state_dir, asked).get("version", options.version))
    else:
        try:
            version = ModelFolder(state_dir).rollback(options.stream, options.version).version
        except OSError as error:
            raise _OutputError(f"{state_dir}: cannot be written: {error.strerror or error}") from None
    _say_in_use(options.stream, version, running=running)
    return 0


def _models_export(options: argparse.Namespace) -> int:
    from gon_edge.catalog import find, write_copy

    found = find(options.model, _state_dir(options))
    try:
        write_copy(found, Path(options.file))
    except OSError as error:
        raise _OutputError(f"{options.file}: cannot be written: {error.strerror or error}") from None
    sys.stderr.write(f"wrote {found.label} to {options.file}\n")
    return 0


def _models_import(options: argparse.Namespace) -> int:
    from gon_edge.catalog import find, import_model
    from gon_edge.control import listens, request

    state_dir = _needed_state_dir(options)
    try:
        model = import_model(find(options.model, state_dir), options.stream, state_dir, force=options.force)
    except OSError as error:
        raise _OutputError(f"{state_dir}: cannot be written: {error.strerror or error}") from None
    running = listens(state_dir)
    if running:
        request(state_dir, {"do": "reload-model", "stream": options.stream})
    _say_in_use(options.stream, model.version, running=running)
    return 0


def _say_in_use(stream: str, version: str, *, running: bool) -> None:
    when = "from the next row on" if running else "when the daemon starts: none runs here"
    sys.stdout.write(f"stream {stream!r} is scored by version {version}, {when}\n")


def _state_dir(options: argparse.Namespace) -> Path | None:
    """Where the streams' models are: as the options say, else the default directory, if there is one."""
    if options.state_dir is not None:
        if not Path(options.state_dir).is_dir():
            raise InputError(f"{options.state_dir}: no such directory; it is state_dir of the daemon's configuration")
        return Path(options.state_dir)
    if options.config is not None:
        from gon_edge.config import load_config

        return Path(load_config(options.config).state_dir)
    default = Path("/var/lib/gon-edge")
    return default if (default / "models").is_dir() else None


def _needed_state_dir(options: argparse.Namespace) -> Path:
    state_dir = _state_dir(options)
    if state_dir is None:
        raise InputError("whose streams? name their daemon with --config FILE or --state-dir DIR")
    return state_dir


def _retrain(options: argparse.Namespace) -> int:
    from gon_edge import upkeep

    if bool(options.streams) == options.all:
        raise _usage("name the streams to train, or write --all")
    if options.rows_file is not None:
        if len(options.streams) != 1:
            raise _usage("--from is for one stream")
        if not Path(options.rows_file).is_file():
            raise InputError(f"{options.rows_file}: no such file")
    config = _config(options)
    asked = {
        "streams": options.streams,
        "budget_bytes": options.memory_budget,
        "since": options.since,
        "include_quarantined": options.include_quarantined,
        "rows_file": str(Path(options.rows_file).absolute()) if options.rows_file else "",
        "force": options.force,
        "wait": options.wait,
        "apart": options.apart,
    }
    if options.dry_run:
        plans = upkeep.plans(config, asked)
        if options.json:
            _write_json([{"stream": name, **dataclasses.asdict(planned)} for name, planned in plans])
        else:
            sys.stdout.write("".join(upkeep.plan_text(name, planned) for name, planned in plans))
        return next((code for _, planned in plans if (code := upkeep.plan_exit_code(planned))), 0)
    with upkeep.RoundProgress() as progress:
        results = upkeep.retrain(config, asked, progress)
    return _write_results(results, as_json=options.json)


def _accept(options: argparse.Namespace) -> int:
    from gon_edge import upkeep

    config = _config(options)
    with upkeep.RoundProgress() as progress:
        results = upkeep.accept(config, options.stream, options.since, options.until, progress, only=options.only)
    return _write_results(results, as_json=options.json)


def _write_results(results: list[dict[str, Any]], *, as_json: bool) -> int:
    from gon_edge.upkeep import result_text

    if as_json:
        _write_json(results)
    else:
        sys.stdout.write("".join(result_text(result) for result in results))
    return next((int(result["exit_code"]) for result in results if result["exit_code"]), 0)


def _silence_add(options: argparse.Namespace) -> int:
    from gon_edge import upkeep

    added = upkeep.silence(_config(options), options.stream, options.feature or "", options.for_s, options.reason)
    if options.json:
        _write_json(added)
    else:
        sys.stdout.write(upkeep.silences_text([added]))
    return 0


def _silence_list(options: argparse.Namespace) -> int:
    from gon_edge import upkeep

    found = upkeep.silences(_config(options))
    if options.json:
        _write_json(found)
    else:
        sys.stdout.write(upkeep.silences_text(found))
    return 0


def _silence_rm(options: argparse.Namespace) -> int:
    from gon_edge import upkeep

    removed = upkeep.unsilence(_config(options), options.stream, options.feature)
    if options.json:
        _write_json(removed)
    elif removed:
        sys.stdout.write("removed:\n" + upkeep.silences_text(removed))
    if not removed:
        what = f"feature {options.feature!r} of stream {options.stream!r}" if options.feature else options.stream
        raise InputError(f"{what} is not silenced; see gon-edge silence list")
    return 0


def _config(options: argparse.Namespace) -> Config:
    """The configuration of --config, else of the environment or of the place packages install it to."""
    from gon_edge.config import load_config

    return load_config(_config_file(options))


def _config_file(options: argparse.Namespace) -> Path:
    if options.config is not None:
        return Path(options.config)
    found = Path(os.environ.get("GON_EDGE_CONFIG") or _DEFAULT_CONFIG)
    if not found.exists():
        raise ConfigError("no such file; name the configuration with --config FILE", path=found)
    return found


def _version(options: argparse.Namespace) -> int:
    import platform
    from importlib.metadata import PackageNotFoundError, version

    from gon_edge import __version__

    if not options.json:
        sys.stdout.write(f"gon-edge {__version__}\n")
        return 0
    libraries = {}
    for name in ("numpy", "paho-mqtt", "prometheus-client", "psutil", "pyyaml"):
        with contextlib.suppress(PackageNotFoundError):
            libraries[name] = version(name)
    _write_json(
        {
            "version": __version__,
            "python": platform.python_version(),
            "machine": platform.machine(),
            "libraries": libraries,
        }
    )
    return 0


def _completion(options: argparse.Namespace) -> int:
    from gon_edge.completion import completion_script

    sys.stdout.write(completion_script(_parser(), options.shell))
    return 0


# -- arguments ---------------------------------------------------------------------------------------------------------


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="gon-edge",
        description="Watches streams of sensor readings, learns what is normal, and says what is not.",
        epilog=f"gon-edge COMMAND --help explains a command.\n\n{_EXIT_CODES}",
        formatter_class=_HelpFormatter,
        allow_abbrev=False,
    )
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")

    def command(name: str, run: Any, text: str, description: str, example: str) -> argparse.ArgumentParser:
        sub = commands.add_parser(
            name,
            help=text,
            description=description,
            epilog=f"example:\n  {example}",
            formatter_class=_HelpFormatter,
            allow_abbrev=False,
        )
        sub.set_defaults(command=run)
        return sub

    sub = command(
        "run",
        _run,
        "run the daemon",
        "Run the daemon until SIGTERM or Ctrl-C: readings in by MQTT, alerts out by MQTT, metrics and a status page by "
        "HTTP.  A broker that is down is waited for; a wrong configuration is an error (78).",
        "gon-edge run --config /etc/gon-edge/gon-edge.yaml",
    )
    sub.add_argument("--config", metavar="FILE", help=_CONFIG_HELP.replace("the daemon's", "the"))
    sub.add_argument("--log-level", choices=_LEVELS, help="in place of log.level of the configuration (default: that)")

    sub = command(
        "demo",
        _demo,
        "show everything on this machine, with a real fault",
        "Start an MQTT broker on loopback (mosquitto, else amqtt), the daemon and a publisher of this machine's own "
        "telemetry; collect one minute of readings; train a model; score; then make a real fault (every core busy for "
        "30 s, and up to 1 GiB of memory held) and show the alert.  Ctrl-C ends everything that was started. "
        "The exit status is 0 when the alert was seen, 1 when the fault raised none.",
        "gon-edge demo --fast --duration 120",
    )
    sub.add_argument("--fast", action="store_true", help="half the warm-up (30 s), half the fault (15 s)")
    sub.add_argument("--no-fault", action="store_true", help="make no fault, only watch")
    sub.add_argument(
        "--duration",
        type=_duration,
        metavar="TIME",
        help="end after this time, as 120 (seconds) or 5m (default: never)",
    )
    _add_broker(sub, default=None, text="use this broker (default: start one, on loopback)")

    sub = command(
        "check-config",
        _check_config,
        "check a configuration file",
        "Read a configuration and say whether it is valid; a mistake is named with file, line, key and what to write. "
        "Exit status 0 or 78.  Opens no connection.",
        "gon-edge check-config configs/gon-edge.yaml",
    )
    sub.add_argument("file", metavar="FILE", help="the configuration, YAML")
    sub.add_argument("--json", action="store_true", help="print every option with its value, or the mistake, as JSON")

    _add_config(commands)

    sub = command(
        "doctor",
        _doctor,
        "find out what is wrong with an installation",
        "Check the configuration, the service, the running daemon, the broker (connect, subscribe, a message there and "
        "back), secrets, certificates, the state directory, models, disk and wear, memory and the clock.  Each line "
        "says ok, warning or fault, and what to do.  Changes nothing.  As root it sees everything.  Exit status 0, or "
        "1 with a fault.",
        "sudo gon-edge doctor",
    )
    sub.add_argument("--config", metavar="FILE", help=_CONFIG_HELP)
    sub.add_argument("--json", action="store_true", help="print the findings as JSON")

    sub = command(
        "status",
        _status,
        "show what a running daemon is doing",
        "Ask a running daemon over HTTP for its streams (state, rows, score, threshold, model) and open alerts. "
        "States: warming-up, training, scoring, stale.",
        "gon-edge status --json --url http://127.0.0.1:9109",
    )
    sub.add_argument("--json", action="store_true", help="print everything the daemon says, as one JSON object")
    _add_daemon(sub)

    sub = command(
        "top",
        _top,
        "watch a running daemon in this terminal",
        "Show the streams of a running daemon (state, score against threshold, recent scores), its open alerts with "
        "their causes, memory, latency and broker, and keep it current; streams in trouble stand first.  j and k (or "
        "the arrows) move the list, q or Ctrl-C ends it.  Where stdout is no terminal it is shown once, without "
        "colour.",
        "gon-edge top --url http://pi-1.local:9109 --every 2s",
    )
    _add_daemon(sub)
    sub.add_argument("--every", type=_interval, default=1.0, metavar="TIME", help="between looks (default: 1s)")
    sub.add_argument("--once", action="store_true", help="show it once and end")

    sub = command(
        "publish",
        _publish,
        "publish this machine's telemetry to a broker",
        "Measure this machine (CPU, load, memory, swap, disk, network; frequency and temperature where there are) and "
        "publish one JSON object an interval with QoS 1, until Ctrl-C.  A broker that goes away is waited for; what is "
        "measured meanwhile is not made up for.",
        "gon-edge publish --broker mqtt://pi-1.local --stream laptop",
    )
    _add_broker(sub, default="mqtt://localhost:1883", text="the broker (default: %(default)s)")
    sub.add_argument(
        "--stream", type=_stream_name, metavar="NAME", help="name of the stream (default: the host's name)"
    )
    _add_topic(sub)
    sub.add_argument(
        "--interval",
        type=_interval,
        default=0.5,
        metavar="TIME",
        help="between samples, as 0.5 (seconds) or 10s (default: 0.5)",
    )

    sub = command(
        "record",
        _record,
        "record raw messages of a broker to a file",
        "Write every message of some topics to a file, as it came, with the time it came at, until --for is over or "
        "Ctrl-C.  gon-edge replay sends the file to a broker again, or says with --alerts which alerts come of it: "
        "the same as live, so that a report can come with its capture.  Begin some windows (a few minutes at one row "
        "a second) before what matters.",
        "gon-edge record --broker mqtt://pi-1.local --topic telemetry/+ --for 10m -o capture.jsonl.gz",
    )
    _add_broker(sub, default=None, text="the broker (default: that of --config, else mqtt://localhost:1883)")
    sub.add_argument(
        "--topic",
        action="append",
        metavar="FILTER",
        help="what to record, with + and # as wildcards; may be given again (default: the subscriptions of --config)",
    )
    sub.add_argument(
        "--config", metavar="FILE", help="a daemon's configuration: its broker and its subscriptions (default: none)"
    )
    sub.add_argument("--for", dest="for_s", type=_duration, metavar="TIME", help="how long (default: until Ctrl-C)")
    sub.add_argument(
        "-o", "--output", required=True, metavar="FILE", help="where to write; compressed when it ends in .gz"
    )
    sub.add_argument("--json", action="store_true", help="print what was recorded as JSON")

    sub = command(
        "replay",
        _replay,
        "send a recorded CSV file or capture to a broker",
        "Send a CSV file (gzip or not; comma, semicolon or tab; a header line) to a broker, one JSON object a row with "
        "QoS 1, at the pace of its own timestamps or faster.  Numbers stay numbers, empty cells become null, the time "
        "stays the text it is, under its column's name.  Says at the end how many rows were sent and acknowledged; "
        "exit status 1 when some were not.  A capture of gon-edge record is sent to the topics it came from, or with "
        "--alerts judged here, without a broker: prints the alerts a daemon publishes for it, a JSON object a line.  "
        "What the daemon cannot keep up with is dropped by the broker or by the "
        'daemon, not here: see gon_edge_messages_total{result="dropped"}.',
        "gon-edge replay pump.csv.gz --broker mqtt://localhost --stream pump --time-column datetime --speed 100",
    )
    sub.add_argument("file", metavar="FILE", help="the CSV file or the capture; - is a CSV file on standard input")
    _add_broker(sub, default="mqtt://localhost:1883", text="the broker (default: %(default)s)")
    sub.add_argument(
        "--stream",
        type=_stream_name,
        metavar="NAME",
        help="name of the stream (default: none, and a CSV file needs it)",
    )
    _add_topic(sub)
    sub.add_argument(
        "--time-column", metavar="COLUMN", help="column with the row's time: Unix or ISO 8601 (default: none)"
    )
    pace = sub.add_mutually_exclusive_group()
    pace.add_argument(
        "--speed",
        type=_positive,
        default=1.0,
        metavar="X",
        help="times faster than recorded (default: 1); needs --time-column",
    )
    pace.add_argument("--as-fast-as-possible", action="store_true", help="as fast as the broker acknowledges")
    sub.add_argument("--limit", type=_count, metavar="N", help="send N rows or messages at most (default: all)")
    sub.add_argument("--alerts", action="store_true", help="print the alerts of a capture; nothing is sent")
    sub.add_argument("--config", metavar="FILE", help=f"for --alerts: {_CONFIG_HELP}")
    sub.add_argument(
        "--model", metavar="MODEL", help="for --alerts: a model for every stream (default: those in use, by --config)"
    )
    sub.add_argument("--json", action="store_true", help="print what was sent as JSON")

    sub = command(
        "score",
        _score,
        "score a CSV file with a model",
        "Judge each row of a CSV file by itself and the rows before it, without a broker.  Prints CSV: the time column "
        "or the row's number, score, threshold, is_anomaly (0 or 1) and top_feature (of anomalous rows).  Every "
        "feature of the model must be a column; empty cells and text count as missing.",
        "gon-edge score --model models/pump.npz pump.csv.gz --time-column datetime -o scores.csv",
    )
    sub.add_argument("file", metavar="FILE.csv", help="the CSV file, gzip or not; - is standard input")
    sub.add_argument(
        "--model",
        required=True,
        metavar="MODEL",
        help="a model file (.npz), as the daemon writes them, or the name of a shipped model: gon-edge models list",
    )
    sub.add_argument(
        "--time-column", metavar="COLUMN", help="column to copy to the output (default: rows are numbered)"
    )
    sub.add_argument("-o", "--output", default="-", metavar="FILE", help="where to write (default: -, stdout)")

    sub = command(
        "plot",
        _plot,
        "draw the scores of a CSV file",
        "Judge a CSV file as gon-edge score does, and draw the score with its threshold, what it is made of, and "
        "expected against actual for the features that matter most.  SVG or PNG, by the ending of the file; an SVG is "
        "also fit for dark mode.  Long files are thinned: nothing that was high is lost.",
        "gon-edge plot pump.csv.gz --model models/pump.npz --time-column datetime -o pump.svg",
    )
    sub.add_argument("file", metavar="FILE.csv", help="the CSV file, gzip or not; - is standard input")
    sub.add_argument(
        "--model",
        required=True,
        metavar="MODEL",
        help="a model file (.npz), or the name of a shipped model: gon-edge models list",
    )
    sub.add_argument("--time-column", metavar="COLUMN", help="column with the row's time (default: rows are numbered)")
    sub.add_argument("-o", "--output", required=True, metavar="FILE", help="where to write: .svg or .png")

    sub = command(
        "report",
        _report,
        "write a page about a stream's last hours",
        "Write one HTML file about a stream, for the morning after: score and threshold over time, what the score is "
        "made of, expected against actual, alerts with causes and durations, missing sensors, trainings and what the "
        "gate found.  It needs no network and no script, and can be mailed.  Scores are computed again from the "
        "stored rows with the model in use.  Reads the state directory; the daemon may run, and rows of its last half "
        "hour may be missing.",
        "gon-edge report pump --since 24h -o pump.html --config /etc/gon-edge/gon-edge.yaml",
    )
    sub.add_argument("stream", metavar="STREAM", help="name of the stream")
    sub.add_argument(
        "--since",
        type=_moment,
        default={"ago_s": 86400.0},
        metavar="TIME",
        help="from when on: as 24h before the newest row (the default), or a time such as 2026-01-05T10:00",
    )
    sub.add_argument("-o", "--output", required=True, metavar="FILE", help="where to write the page")
    sub.add_argument("--config", metavar="FILE", help=_CONFIG_HELP)

    sub = command(
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
    sub.add_argument("--png", metavar="FILE", help="draw them, real on the left (default: no picture)")
    sub.add_argument("--csv", metavar="FILE", help="write them as CSV; - is stdout (default: no CSV)")
    sub.add_argument("--seed", type=_count, default=0, metavar="N", help="another seed, other windows (default: 0)")

    _add_models(commands)

    sub = command(
        "retrain",
        _retrain,
        "train streams again",
        "Train new models from recent rows, within the memory budget; a new one is used only when it is at least as "
        "good as the one it replaces.  Works with the daemon running, which swaps the model between two rows, and "
        "without it.  Rows that were alarmed, silenced or stale are left out.  Ctrl-C ends the training and the old "
        "model stays.\n\n"
        "Exit status: 0 every stream has its new model; 3 rejected by the gate; 4 not enough data; 5 over the memory "
        "budget; 75 another training runs (see --wait); 78 wrong configuration.  With several streams, that of the "
        "first without a new model.",
        "gon-edge retrain pump boiler --since 7d --config /etc/gon-edge/gon-edge.yaml",
    )
    sub.add_argument("streams", nargs="*", metavar="STREAM", help="streams to train")
    sub.add_argument("--all", action="store_true", help="every stream, one after the other")
    sub.add_argument("--config", metavar="FILE", help=_CONFIG_HELP)
    sub.add_argument(
        "--memory-budget",
        type=_memory,
        metavar="SIZE",
        help="as 64MiB (default: retrain.memory_budget of the configuration)",
    )
    sub.add_argument(
        "--from", dest="rows_file", metavar="FILE.csv", help="learn from this file (default: from the stored rows)"
    )
    sub.add_argument(
        "--since",
        type=_moment,
        metavar="TIME",
        help="oldest row to learn: as 7d before the newest one, or a time such as 2026-01-05T10:00 (default: all)",
    )
    sub.add_argument(
        "--include-quarantined", action="store_true", help="learn also rows that were alarmed, silenced or stale"
    )
    sub.add_argument("--dry-run", action="store_true", help="say what would be learned in which memory; train nothing")
    sub.add_argument("--force", action="store_true", help="use the new model even when the gate rejects it")
    sub.add_argument("--wait", action="store_true", help="wait for a training that runs (default: exit status 75)")
    sub.add_argument(
        "--apart",
        action="store_true",
        help="train below this command, in its control group, also where the daemon runs: from the rows it has written "
        "(store.flush_every); the daemon is handed the model (default: the daemon trains)",
    )
    sub.add_argument("--json", action="store_true", help="print what came of it, with the gate's figures, as JSON")

    sub = command(
        "accept",
        _accept,
        "say that what a stream does now is normal",
        "Say that a stream's rows since some time are normal, though they raised an alert: they are learned after all, "
        "without being screened for odd ones, in a training that starts at once.  The alert ends when the new model is "
        "in use and finds the rows normal.  Without this an alert stays, and what raised it is never learned.  Exit "
        "status as for retrain.",
        "gon-edge accept pump --since 2h",
    )
    sub.add_argument("stream", metavar="STREAM", help="the stream")
    sub.add_argument(
        "--since",
        type=_moment,
        required=True,
        metavar="TIME",
        help="from when on: as 2h before the newest row, or a time such as 2026-01-05T10:00 (UTC) or Unix seconds",
    )
    sub.add_argument("--until", type=_moment, metavar="TIME", help="up to when (default: the newest row)")
    sub.add_argument(
        "--only",
        action="store_true",
        help="learn these rows alone: what was before will not come back, such as a sensor that is gone for good",
    )
    sub.add_argument("--config", metavar="FILE", help=_CONFIG_HELP)
    sub.add_argument("--json", action="store_true", help="print what came of it as JSON")

    _add_silence(commands)

    sub = command("version", _version, "show the version", "Show the version of gon-edge.", "gon-edge version --json")
    sub.add_argument("--json", action="store_true", help="with those of Python and the libraries, as JSON")

    sub = command(
        "completion",
        _completion,
        "print a script for shell completion",
        "Print a script that teaches a shell to complete gon-edge.",
        "source <(gon-edge completion bash)",
    )
    sub.add_argument("shell", choices=("bash", "zsh", "fish"), help="the shell")
    return parser


def _add_daemon(sub: argparse.ArgumentParser) -> None:
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


def _add_config(commands: Any) -> None:
    config = commands.add_parser(
        "config",
        help="show the configuration that counts",
        description="Look at a configuration as the daemon understands it.",
        epilog="example:\n  gon-edge config show --config configs/minimal.yaml",
        formatter_class=_HelpFormatter,
        allow_abbrev=False,
    )
    actions = config.add_subparsers(
        title="commands", metavar="COMMAND", required=True, help="gon-edge config COMMAND --help explains one"
    )
    sub = actions.add_parser(
        "show",
        help="print it with every default",
        description="Print a configuration as the daemon understands it: variables filled in, every default written "
        "out, the options of single streams complete.  What is printed is itself a configuration.  Passwords and "
        "tokens are not in it: only the files and variables that hold them are named.",
        epilog="example:\n  gon-edge config show --json --config /etc/gon-edge/gon-edge.yaml",
        formatter_class=_HelpFormatter,
        allow_abbrev=False,
    )
    sub.set_defaults(command=_config_show)
    sub.add_argument("--config", metavar="FILE", help=_CONFIG_HELP)
    sub.add_argument("--json", action="store_true", help="print it as JSON")


def _add_models(commands: Any) -> None:
    models = commands.add_parser(
        "models",
        help="list, check, compare and exchange models",
        description="Look at models and put them in place: those shipped with gon-edge, and the versions of a daemon's "
        "streams.  MODEL is the name of a shipped one, STREAM or STREAM@VERSION, or a file (with a slash, or ending in "
        ".npz); shipped:NAME and stream:STREAM tell apart what has one name.",
        epilog="example:\n  gon-edge models show pump@2 --config /etc/gon-edge/gon-edge.yaml",
        formatter_class=_HelpFormatter,
        allow_abbrev=False,
    )
    actions = models.add_subparsers(
        title="actions", metavar="ACTION", required=True, help="gon-edge models ACTION --help explains one"
    )

    def action(name: str, run: Any, text: str, description: str, example: str, *, json: bool = True) -> Any:
        sub = actions.add_parser(
            name,
            help=text,
            description=description,
            epilog=f"example:\n  gon-edge models {example}",
            formatter_class=_HelpFormatter,
            allow_abbrev=False,
        )
        sub.set_defaults(command=run)
        whose = sub.add_mutually_exclusive_group()
        whose.add_argument("--config", metavar="FILE", help="the daemon's configuration; it names the state_dir")
        whose.add_argument("--state-dir", metavar="DIR", help="the daemon's state_dir (default: /var/lib/gon-edge)")
        if json:
            sub.add_argument("--json", action="store_true", help="print everything, as JSON")
        return sub

    action(
        "list",
        _models_list,
        "list the models there are",
        "List the shipped models and, where there is a state directory, every version of every stream.",
        "list --state-dir /var/lib/gon-edge",
    )
    sub = action(
        "show",
        _models_show,
        "show one model",
        "Show a model's features, size and threshold, and its lineage: the rows and the seed it was trained with, its "
        "parent, what the gate found, memory and time the training took.",
        "show host",
    )
    sub.add_argument("model", metavar="MODEL", help="which one")
    sub = action(
        "verify",
        _models_verify,
        "check models",
        "Check the models named, or all of them: checksum, format, finite numbers, int8 weights, and that mean rows "
        "score as normal and far ones as anomalous.  Exit status 0 when all are good, 1 when one is not.",
        "verify host ./pump.npz",
    )
    sub.add_argument("models", metavar="MODEL", nargs="*", help="which ones (default: all)")
    sub = action(
        "diff",
        _models_diff,
        "compare two models",
        "Say what sets model B apart from model A: features, threshold, size, lineage, and by how much the mean and "
        "the deviation of each feature moved.",
        "diff pump@1 pump@2",
    )
    sub.add_argument("a", metavar="A", help="a MODEL")
    sub.add_argument("b", metavar="B", help="another MODEL")
    sub = action(
        "rollback",
        _models_rollback,
        "put an earlier version in use",
        "Put an earlier version of a stream's model in use; a running daemon scores by it from the next row on.",
        "rollback pump 2 --config /etc/gon-edge/gon-edge.yaml",
        json=False,
    )
    sub.add_argument("stream", metavar="STREAM", help="name of the stream")
    sub.add_argument("version", metavar="VERSION", nargs="?", help="which version (default: the one before)")
    sub = action(
        "export",
        _models_export,
        "copy a model to a file",
        "Copy a model, of a stream or shipped, to a file that gon-edge score and models import read.",
        "export pump@2 pump-2.npz",
        json=False,
    )
    sub.add_argument("model", metavar="MODEL", help="which one")
    sub.add_argument("file", metavar="FILE", help="where to write; what is there is replaced")
    sub = action(
        "import",
        _models_import,
        "put a model from elsewhere in use",
        "Check a model and put it in use as the newest version of a stream; rollback undoes it.  One with other "
        "features than the stream's model has is refused.",
        "import pump pump-2.npz --config /etc/gon-edge/gon-edge.yaml",
        json=False,
    )
    sub.add_argument("stream", metavar="STREAM", help="name of the stream")
    sub.add_argument("model", metavar="MODEL", help="which one; mostly a file")
    sub.add_argument("--force", action="store_true", help="also with other features")


def _add_silence(commands: Any) -> None:
    group = commands.add_parser(
        "silence",
        help="hear nothing of a stream for a while",
        description="Hold back the alerts of a stream, or those that are mainly about one of its features, for some "
        "time: during maintenance, or while a sensor is being changed.  Scores go on; nothing of that time is learned. "
        "Every silence ends by itself.",
        epilog="example:\n  gon-edge silence add pump --for 2h --reason 'new bearing'",
        formatter_class=_HelpFormatter,
        allow_abbrev=False,
    )
    actions = group.add_subparsers(
        title="commands", metavar="COMMAND", required=True, help="gon-edge silence COMMAND --help explains one"
    )

    def action(name: str, run: Any, text: str, example: str) -> argparse.ArgumentParser:
        sub: argparse.ArgumentParser = actions.add_parser(
            name,
            help=text,
            description=text[0].upper() + text[1:] + ".",
            epilog=f"example:\n  gon-edge silence {example}",
            formatter_class=_HelpFormatter,
            allow_abbrev=False,
        )
        sub.set_defaults(command=run)
        return sub

    sub = action(
        "add",
        _silence_add,
        "silence a stream or a feature, in place of the silence it has",
        "add pump --feature flow --for 2h --reason 'new sensor'",
    )
    sub.add_argument("stream", metavar="STREAM", help="the stream")
    sub.add_argument("--feature", metavar="NAME", help="only alerts that are mainly about it (default: all)")
    sub.add_argument(
        "--for", dest="for_s", type=_silence_time, required=True, metavar="TIME", help="how long, as 30m, 2h or 3d"
    )
    sub.add_argument("--reason", default="", metavar="TEXT", help="for those who wonder (default: none)")
    _add_silence_output(sub)
    sub = action("list", _silence_list, "show what is silenced", "list --json")
    _add_silence_output(sub)
    sub = action("rm", _silence_rm, "end silences of a stream before their time", "rm pump")
    sub.add_argument("stream", metavar="STREAM", help="the stream")
    sub.add_argument("--feature", metavar="NAME", help="only the silence of this feature (default: all of the stream)")
    _add_silence_output(sub)


def _add_silence_output(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("--config", metavar="FILE", help=_CONFIG_HELP)
    sub.add_argument("--json", action="store_true", help="as JSON")


def _add_broker(sub: argparse.ArgumentParser, *, default: str | None, text: str) -> None:
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


def _add_topic(sub: argparse.ArgumentParser) -> None:
    sub.add_argument(
        "--topic",
        type=_topic_template,
        default="telemetry/{stream}",
        metavar="TOPIC",
        help="where to publish; {stream} stands for the name (default: %(default)s)",
    )


def _broker(options: argparse.Namespace) -> MqttConfig:
    """The broker of --broker, --username, --password-file and --ca-file."""
    from gon_edge.config import parse_config

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
        raise _usage(str(error)) from None


def _daemon_api(options: argparse.Namespace) -> DaemonApi:
    """The daemon of --config, else that of --url with --token-file, --username, --password-file and --ca-file."""
    from gon_edge.status import DaemonApi, basic, bearer, daemon_api

    if options.config is not None:
        if options.token_file or options.username or options.ca_file:
            raise _usage("--config says token, password and certificate itself; leave the other options out")
        return daemon_api(_config(options))
    if (options.username is None) != (options.password_file is None):
        raise _usage("--username and --password-file need each other")
    if options.token_file is not None and options.username is not None:
        raise _usage("name --token-file or --username, not both")
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
    try:
        return Path(path).read_text(encoding="utf-8").rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        raise InputError(f"{path}: {reason}; write the secret there, one line") from None


def _usage(text: str) -> GonEdgeError:
    error = GonEdgeError(re.sub(r"mqtt\.(\w+)", lambda key: "--" + key[1].replace("_", "-"), text))
    error.exit_code = 2
    return error


def _topic(options: argparse.Namespace) -> str:
    import socket

    stream = options.stream or re.sub(r"[/+#\s]", "-", socket.gethostname())
    return str(options.topic.replace("{stream}", stream))


def _broker_url(text: str) -> str:
    from gon_edge.config import parse_config

    try:
        return parse_config({"mqtt": {"url": text}, "subscriptions": [{"topic": "{stream}"}]}).mqtt.url
    except ConfigError as error:
        raise argparse.ArgumentTypeError(str(error).replace("mqtt.url: ", "").replace("mqtt.", "--")) from None


def _topic_template(text: str) -> str:
    if not text or re.search(r"[+#\0]", text) or "{" in text.replace("{stream}", "") or text.startswith("$"):
        raise argparse.ArgumentTypeError(f"{text!r}: write a topic without wildcards, such as telemetry/{{stream}}")
    return text


def _stream_name(text: str) -> str:
    if not text or re.search(r"[/+#\0]", text):
        raise argparse.ArgumentTypeError(f"{text!r}: a stream's name is one level of a topic, without /, + and #")
    return text


def _duration(text: str) -> float:
    from gon_edge.config import parse_duration

    try:
        return parse_duration(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r}: write a duration such as 120, 30s or 5m") from None


def _silence_time(text: str) -> float:
    from gon_edge.silences import LONGEST_S

    seconds = _duration(text)
    if not 0.0 < seconds <= LONGEST_S:
        raise argparse.ArgumentTypeError(f"{text!r}: write more than 0 and at most {LONGEST_S / 86400:.0f}d")
    return seconds


def _moment(text: str) -> dict[str, float]:
    """``{"ago_s": ...}`` for a duration, ``{"at": ...}`` for a time; what a number means is told by its size."""
    from datetime import UTC, datetime

    from gon_edge.config import parse_duration

    with contextlib.suppress(ValueError):
        seconds = parse_duration(text)
        return {"at": seconds} if seconds > 1e8 else {"ago_s": seconds}
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"{text!r}: write a duration such as 2h or 7d, or a time such as 2026-01-05T10:00"
        ) from None
    return {"at": (time if time.tzinfo else time.replace(tzinfo=UTC)).timestamp()}


def _memory(text: str) -> int:
    from gon_edge.config import parse_size

    with contextlib.suppress(ValueError):
        if (size_bytes := parse_size(text)) >= 1 << 20:
            return size_bytes
    raise argparse.ArgumentTypeError(f"{text!r}: write a size such as 64MiB, at least 1MiB")


def _interval(text: str) -> float:
    seconds = _duration(text)
    if seconds < 0.05:
        raise argparse.ArgumentTypeError(f"{text!r}: write at least 0.05 s")
    return seconds


def _positive(text: str) -> float:
    with contextlib.suppress(ValueError):
        if 0.0 < (number := float(text)) < float("inf"):
            return number
    raise argparse.ArgumentTypeError(f"{text!r}: write a number above 0")


def _count(text: str) -> int:
    with contextlib.suppress(ValueError):
        if (number := int(text)) >= 0:
            return number
    raise argparse.ArgumentTypeError(f"{text!r}: write a whole number from 0")


def _some(text: str) -> int:
    if (number := _count(text)) == 0:
        raise argparse.ArgumentTypeError(f"{text!r}: write a whole number from 1")
    return number


# -- output ------------------------------------------------------------------------------------------------------------


def _write_json(value: object) -> None:
    json.dump(value, sys.stdout, indent=2, ensure_ascii=False, default=str)
    sys.stdout.write("\n")


@contextlib.contextmanager
def _output(path: str) -> Iterator[IO[str]]:
    if path == "-":
        # Lines leave as they are made when somebody watches or a program waits for them.
        if isinstance(sys.stdout, io.TextIOWrapper):
            sys.stdout.reconfigure(line_buffering=True)
        yield sys.stdout
        return
    try:
        with Path(path).open("w", encoding="utf-8", newline="") as file:
            yield file
    except OSError as error:
        raise _OutputError(f"{path}: cannot be written: {error.strerror or error}") from None
