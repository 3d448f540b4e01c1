"""Commands about models: which there are, training, and spans in which nobody wants to hear of a stream.

They go through the running daemon where there is one.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gon_edge.commands.arguments import (
    AddCommand,
    Run,
    add_config,
    add_table,
    commands_of,
    config_of,
    duration,
    moment,
    note,
    say,
    table_options,
    write_json,
    writing,
    wrong_usage,
)
from gon_edge.errors import InputError

if TYPE_CHECKING:
    from gon_edge.config.schema import Config
    from gon_edge.tables.layout import TableOptions


def _add_models(add: AddCommand) -> None:
    group = add(
        "models",
        None,
        "list, check, compare and exchange models",
        "Look at models and put them in place: those shipped with gon-edge, and the versions of a daemon's streams.  "
        "MODEL is the name of a shipped one, STREAM or STREAM@VERSION, or a file (with a slash, or ending in .npz); "
        "shipped:NAME and stream:STREAM tell apart what has one name.",
        "gon-edge models show pump@2 --config /etc/gon-edge/gon-edge.yaml",
    )
    add_action = commands_of(
        group, title="actions", metavar="ACTION", text="gon-edge models ACTION --help explains one"
    )

    def action(name: str, run: Run | None, text: str, description: str, example: str) -> argparse.ArgumentParser:
        sub = add_action(name, run, text, description, f"gon-edge models {example}")
        whose = sub.add_mutually_exclusive_group()
        whose.add_argument("--config", metavar="FILE", help="the daemon's configuration; it names the state_dir")
        whose.add_argument("--state-dir", metavar="DIR", help="the daemon's state_dir (default: /var/lib/gon-edge)")
        return sub

    _add_looks(action)
    _add_changes(action)


def _add_looks(action: AddCommand) -> None:
    """Add the actions that only look; each can print JSON."""

    def look(name: str, run: Run, text: str, description: str, example: str) -> argparse.ArgumentParser:
        sub = action(name, run, text, description, example)
        sub.add_argument("--json", action="store_true", help="print everything, as JSON")
        return sub

    look(
        "list",
        _models_list,
        "list the models there are",
        "List the shipped models and, where there is a state directory, every version of every stream.",
        "list --state-dir /var/lib/gon-edge",
    )
    sub = look(
        "show",
        _models_show,
        "show one model",
        "Show a model's features, size and threshold, and its lineage: the rows and the seed it was trained with, its "
        "parent, what the gate found, memory and time the training took.",
        "show host",
    )
    sub.add_argument("model", metavar="MODEL", help="which one")
    sub = look(
        "verify",
        _models_verify,
        "check models",
        "Check the models named, or all of them: checksum, format, finite numbers, int8 weights, and that mean rows "
        "score as normal and far ones as anomalous.  Exit status 0 when all are good, 1 when one is not.",
        "verify host ./pump.npz",
    )
    sub.add_argument("models", metavar="MODEL", nargs="*", help="which ones (default: all)")
    sub = look(
        "diff",
        _models_diff,
        "compare two models",
        "Say what sets model B apart from model A: features, threshold, size, lineage, and by how much the mean and "
        "the deviation of each feature moved.",
        "diff pump@1 pump@2",
    )
    sub.add_argument("a", metavar="A", help="a MODEL")
    sub.add_argument("b", metavar="B", help="another MODEL")


def _add_changes(action: AddCommand) -> None:
    """Add the actions that put models in place."""
    sub = action(
        "rollback",
        _models_rollback,
        "put an earlier version in use",
        "Put an earlier version of a stream's model in use; a running daemon scores by it from the next row on.",
        "rollback pump 2 --config /etc/gon-edge/gon-edge.yaml",
    )
    sub.add_argument("stream", metavar="STREAM", help="name of the stream")
    sub.add_argument("version", metavar="VERSION", nargs="?", help="which version (default: the one before)")
    sub = action(
        "export",
        _models_export,
        "copy a model to a file",
        "Copy a model, of a stream or shipped, to a file that gon-edge score and models import read.",
        "export pump@2 pump-2.npz",
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
    )
    sub.add_argument("stream", metavar="STREAM", help="name of the stream")
    sub.add_argument("model", metavar="MODEL", help="which one; mostly a file")
    sub.add_argument("--force", action="store_true", help="also with other features")


def _models_list(options: argparse.Namespace) -> int:
    from gon_edge.commands.text import listing_text
    from gon_edge.state.inspection import listing

    models = listing(_state_dir(options))
    if options.json:
        write_json(models)
    else:
        sys.stdout.write(listing_text(models))
    return 0


def _models_show(options: argparse.Namespace) -> int:
    from gon_edge.commands.text import description_text
    from gon_edge.state.catalog import find
    from gon_edge.state.inspection import describe

    state_dir = _state_dir(options)
    model = describe(find(options.model, state_dir), state_dir)
    if options.json:
        write_json(model)
    else:
        sys.stdout.write(description_text(model))
    return 0


def _models_verify(options: argparse.Namespace) -> int:
    from gon_edge.commands.text import checks_text
    from gon_edge.state.catalog import places
    from gon_edge.state.inspection import verify

    results = []
    for label, path, shipped in places(options.models, _state_dir(options)):
        results.append((label, verify(path, shipped)))
        if not options.json:
            sys.stdout.write(checks_text(*results[-1]))
    if options.json:
        write_json([{"model": label, "checks": [dataclasses.asdict(c) for c in checks]} for label, checks in results])
    if not results:
        raise InputError("no model was found to verify; name one, or install gon-edge again for the shipped ones")
    return int(not all(check.passed for _, checks in results for check in checks))


def _models_diff(options: argparse.Namespace) -> int:
    from gon_edge.commands.text import differences_text
    from gon_edge.state.catalog import find
    from gon_edge.state.inspection import differences

    state_dir = _state_dir(options)
    a, b = find(options.a, state_dir), find(options.b, state_dir)
    found = differences(a.model, b.model)
    if options.json:
        write_json({"a": a.label, "b": b.label, **found})
    else:
        sys.stdout.write(differences_text(a.label, b.label, found))
    return 0


def _models_rollback(options: argparse.Namespace) -> int:
    from gon_edge.training.ask import ask

    asked = {"do": "rollback", "stream": options.stream, "version": options.version}
    _say_in_use(ask(_needed_config(options), asked))
    return 0


def _models_export(options: argparse.Namespace) -> int:
    from gon_edge.state.catalog import find
    from gon_edge.state.inspection import write_copy

    found = find(options.model, _state_dir(options))
    with writing(options.file):
        write_copy(found, Path(options.file))
    note(f"wrote {found.label} to {options.file}")
    return 0


def _models_import(options: argparse.Namespace) -> int:
    from gon_edge.state.catalog import find
    from gon_edge.state.inspection import import_model
    from gon_edge.training.ask import ask

    config = _needed_config(options)
    with writing(config.state_dir):
        import_model(find(options.model, config.state_dir), options.stream, config.state_dir, force=options.force)
    _say_in_use(ask(config, {"do": "reload-model", "stream": options.stream}))
    return 0


def _say_in_use(answer: Mapping[str, Any]) -> None:
    when = "from the next row on" if answer.get("live", True) else "when the daemon starts: none runs here"
    from gon_edge.commands.text import visible

    version = visible(str(answer["version"]))
    sys.stdout.write(f"stream {answer['stream']!r} is scored by version {version}, {when}\n")


def _state_dir(options: argparse.Namespace) -> Path | None:
    """Where the streams' models are: as the options say, else the default directory, if there is one."""
    if options.state_dir is not None:
        if not Path(options.state_dir).is_dir():
            raise InputError(f"{options.state_dir}: no such directory; it is state_dir of the daemon's configuration")
        return Path(options.state_dir)
    if options.config is not None:
        from gon_edge.config.file import load_config

        return Path(load_config(options.config).state_dir)
    default = Path("/var/lib/gon-edge")
    return default if (default / "models").is_dir() else None


def _needed_config(options: argparse.Namespace) -> Config:
    """The configuration of the daemon whose streams are meant; the plainest one where only its state_dir is known."""
    from gon_edge.config.file import load_config, parse_config

    if options.config is not None:
        return load_config(options.config)
    state_dir = _state_dir(options)
    if state_dir is None:
        raise InputError("whose streams? name their daemon with --config FILE or --state-dir DIR")
    plainest = {"mqtt": {"url": "mqtt://localhost"}, "subscriptions": [{"topic": "{stream}"}]}
    return parse_config({**plainest, "state_dir": str(state_dir)})


def _add_retrain(add: AddCommand) -> None:
    sub = add(
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
    add_config(sub)
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
        type=moment,
        metavar="TIME",
        help="oldest row to learn: as 7d before the newest one, or a time such as 2026-01-05T10:00 (default: all)",
    )
    sub.add_argument("--until", type=moment, metavar="TIME", help="newest row to learn, as --since (default: all)")
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
    add_table(sub, span=False)


def _retrain(options: argparse.Namespace) -> int:
    if bool(options.streams) == options.all:
        raise wrong_usage("name the streams to train, or write --all")
    if options.rows_file is not None:
        if len(options.streams) != 1:
            raise wrong_usage("--from is for one stream")
        if not Path(options.rows_file).is_file():
            raise InputError(f"{options.rows_file}: no such file")
    reading = _look_at(options)
    asked = {
        "do": "retrain",
        "streams": options.streams,
        "budget_bytes": options.memory_budget,
        "since": options.since,
        "until": options.until,
        "include_quarantined": options.include_quarantined,
        "rows_file": str(Path(options.rows_file).absolute()) if options.rows_file else "",
        "rows_options": dataclasses.asdict(reading),
        "force": options.force,
        "wait": options.wait,
        "apart": options.apart,
    }
    return _plan(options, asked) if options.dry_run else train(options, asked)


def _look_at(options: argparse.Namespace) -> TableOptions:
    """Say how the file to learn from is read, and refuse one that cannot be, before a training begins."""
    from gon_edge.tables.layout import TableOptions
    from gon_edge.tables.table import Table

    reading = table_options(options)
    if options.rows_file is None:
        if reading != TableOptions(since=options.since, until=options.until):
            raise wrong_usage("how a file is read goes with --from FILE.csv")
        return reading
    with Table(options.rows_file, reading) as table:
        (stream,) = options.streams
        if len(table.streams) > 1:
            if stream not in table.streams:
                raise InputError(
                    f"{table.name}: learn from one machine; name it with --only: {', '.join(sorted(table.streams))}"
                )
            reading = dataclasses.replace(reading, only=stream)
    with Table(options.rows_file, reading) as table:
        say(table.said())
    return reading


def _plan(options: argparse.Namespace, asked: Mapping[str, Any]) -> int:
    """Show what a training would learn, in which memory."""
    from gon_edge.commands.text import plan_exit_code, plan_text
    from gon_edge.training.ask import ask
    from gon_edge.training.job import Job
    from gon_edge.training.plan import plan

    jobs = map(Job.from_json, ask(config_of(options), {**asked, "dry_run": True})["jobs"])
    plans = [(job.stream, plan(job)) for job in jobs]
    if options.json:
        write_json([{"stream": name, **dataclasses.asdict(planned)} for name, planned in plans])
    else:
        sys.stdout.write("".join(plan_text(name, planned) for name, planned in plans))
    return next((code for _, planned in plans if (code := plan_exit_code(planned))), 0)


def train(options: argparse.Namespace, asked: Mapping[str, Any]) -> int:
    """Have rounds run to their end, and show what came of them."""
    from gon_edge.commands.terminal import RoundProgress
    from gon_edge.commands.text import answer_text, result_text
    from gon_edge.training.ask import ask

    config = config_of(options)
    with RoundProgress() as progress:
        answer = ask(config, asked, progress)
    results: list[dict[str, Any]] = answer["rounds"]
    if options.json:
        write_json(results)
    else:
        sys.stdout.write("".join(map(result_text, results)) or answer_text(answer))
    return next((int(result["exit_code"]) for result in results if result["exit_code"]), 0)


def _add_silence(add: AddCommand) -> None:
    group = add(
        "silence",
        None,
        "hear nothing of a stream for a while",
        "Hold back the alerts of a stream, or those that are mainly about one of its features, for some time: during "
        "maintenance, or while a sensor is being changed.  Scores go on; nothing of that time is learned. Every "
        "silence ends by itself.",
        "gon-edge silence add pump --for 2h --reason 'new bearing'",
    )
    add_action = commands_of(group, text="gon-edge silence COMMAND --help explains one")

    def action(name: str, run: Run, text: str, example: str) -> argparse.ArgumentParser:
        return add_action(name, run, text, f"{text[0].upper()}{text[1:]}.", f"gon-edge silence {example}")

    def add_output(sub: argparse.ArgumentParser) -> None:
        add_config(sub)
        sub.add_argument("--json", action="store_true", help="as JSON")

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
    add_output(sub)
    add_output(action("list", _silence_list, "show what is silenced", "list --json"))
    sub = action("rm", _silence_rm, "end silences of a stream before their time", "rm pump")
    sub.add_argument("stream", metavar="STREAM", help="the stream")
    sub.add_argument("--feature", metavar="NAME", help="only the silence of this feature (default: all of the stream)")
    add_output(sub)


def _silence_add(options: argparse.Namespace) -> int:
    from gon_edge.commands.text import silences_text
    from gon_edge.training.ask import ask

    names = {"stream": options.stream, "feature": options.feature or ""}
    asked = {"do": "silence", **names, "for_s": options.for_s, "reason": options.reason}
    added = ask(config_of(options), asked)["silence"]
    if options.json:
        write_json(added)
    else:
        sys.stdout.write(silences_text([added]))
    return 0


def _silence_list(options: argparse.Namespace) -> int:
    from gon_edge.commands.text import silences_text
    from gon_edge.training.ask import ask

    found = ask(config_of(options), {"do": "silences"})["silences"]
    if options.json:
        write_json(found)
    else:
        sys.stdout.write(silences_text(found))
    return 0


def _silence_rm(options: argparse.Namespace) -> int:
    from gon_edge.commands.text import silences_text
    from gon_edge.training.ask import ask

    asked = {"do": "unsilence", "stream": options.stream, "feature": options.feature}
    removed = ask(config_of(options), asked)["removed"]
    if options.json:
        write_json(removed)
    elif removed:
        sys.stdout.write("removed:\n" + silences_text(removed))
    if not removed:
        what = f"feature {options.feature!r} of stream {options.stream!r}" if options.feature else options.stream
        raise InputError(f"{what} is not silenced; see gon-edge silence list")
    return 0


def _silence_time(text: str) -> float:
    from gon_edge.stream.silences import LONGEST_S

    seconds = duration(text)
    if not 0.0 < seconds <= LONGEST_S:
        raise argparse.ArgumentTypeError(f"{text!r}: write more than 0 and at most {LONGEST_S / 86400:.0f}d")
    return seconds


def _memory(text: str) -> int:
    from gon_edge.config.values import parse_size

    with contextlib.suppress(ValueError):
        if (size_bytes := parse_size(text)) >= 1 << 20:
            return size_bytes
    raise argparse.ArgumentTypeError(f"{text!r}: write a size such as 64MiB, at least 1MiB")


COMMANDS = {"models": _add_models, "retrain": _add_retrain, "silence": _add_silence}
