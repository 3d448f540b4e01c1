"""The reference pages of the documentation, made from the program, so that they cannot know less than it does::

    python tools/make_reference.py            writes docs/reference/*.md
    python tools/make_reference.py FOLDER     writes them there

Options come from ``configs/gon-edge.yaml`` and ``config/schema.py``, commands from the parser, series from
``Telemetry``, events from the docstrings of ``events.py``, exit codes from ``errors.py``.  What code cannot say, such
as what a topic is good for, stands in tables here, and a topic, a state key or a file that has no line there is an
error.  A test compares the pages with what this writes.
"""

from __future__ import annotations

import argparse
import ast
import inspect
import json
import os
import re
import sys
import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import MISSING, Field, asdict, dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import numpy as np  # noqa: E402
from prometheus_client import CollectorRegistry  # noqa: E402

from gon_edge import errors, events  # noqa: E402
from gon_edge.commands import arguments  # noqa: E402
from gon_edge.commands import main as cli  # noqa: E402
from gon_edge.commands.arguments import commands_in  # noqa: E402
from gon_edge.config import schema as config  # noqa: E402
from gon_edge.config.option import keys  # noqa: E402
from gon_edge.config.subscription import SubscriptionConfig  # noqa: E402
from gon_edge.daemon import orders, reload, reporting  # noqa: E402
from gon_edge.fleet import series as fleet  # noqa: E402
from gon_edge.links import prometheus  # noqa: E402
from gon_edge.links.control import SOCKET  # noqa: E402
from gon_edge.links.homeassistant import HomeAssistant  # noqa: E402
from gon_edge.links.mqtt.client import own_topic  # noqa: E402
from gon_edge.links.snapshot import HistorySnapshot, ReadingsSnapshot, Snapshot, StreamSnapshot  # noqa: E402
from gon_edge.links.web import api, guard, server  # noqa: E402
from gon_edge.state import days  # noqa: E402
from gon_edge.state.database import DATABASE, LOCK  # noqa: E402
from gon_edge.state.history import RetrainRecord  # noqa: E402
from gon_edge.stream import history, ledger  # noqa: E402
from gon_edge.stream.held import alert_json  # noqa: E402
from gon_edge.stream.silences import Silence  # noqa: E402
from gon_edge.training.gate import GateReport, GateScores  # noqa: E402

_SEE = {
    "configuration": "[What people change first](../operating.md#what-people-change-first) is on a page of its own.",
    "metrics": "For queries, see [metrics in use](../metrics.md).",
}


def _note(*what: str) -> str:
    return f"<!-- Written by tools/make_reference.py from {', '.join(what)}; change those. -->"


_RENAMED = {"stream": "name"}  # JSON has it under another name than the dataclass
_LISTED = {  # JSON has it in another shape than the dataclass
    (StreamSnapshot, "features"): ("list", "Each with `name`, `value`, `cadence_s` and `kind`, see below."),
    (StreamSnapshot, "dropped"): ("list", "Each with `key`, `reason`, `count`, `example` and `why`, see below."),
}
_SAID = {  # where a docstring says nothing beyond the type
    "type": "`new` first, then `update`, then `end`; the `id` stays the same. An `update` after the `end`: it is back.",
    "kind": "Something is unusual, in another state, going away slowly, has not come today, is silent or frozen, or "
    "the broker is away.",
    "stream": "Its name.",
    "severity": "`critical` from the time the score reaches `critical_ratio` times the threshold.",
    "top_features": "The causes, largest first, ten at most; for `missing`, the missing features, ten at most.",
    "model_version": "The model that judged.",
    "feature": "Its name.",
    "every": "From one of them to the next; `any hour` is most days, at no common hour.",
    "score": "The newest; null before there is a model.",
    "threshold": "The threshold for it.",
    "duration_s": "How long it took.",
    "passed": "Whether the new model may be used.",
    "challenger": "What the new model scored, see below.",
    "model_bytes": "Size of its file.",
}


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    lines = [head, ["---"] * len(head), *rows]
    return ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in lines]


def _prose(text: str) -> str:
    """Plain text as Markdown: patterns stay patterns, and pages that are named are links."""
    text = re.sub(r"([*<])", r"\\\1", " ".join(text.split()))
    return re.sub(r"docs/(\w+\.md)", r"[\1](../\1)", text)


def _page(blocks: Iterable[str]) -> str:
    """Blocks with an empty line between them; paragraphs are wrapped as in the other pages."""
    wrapped = [
        block
        if block.startswith(("#", "|", "```", "- "))
        else textwrap.fill(block, 120, break_long_words=False, break_on_hyphens=False)
        for block in blocks
    ]
    return "\n\n".join(wrapped) + "\n"


# -- configuration -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Option:
    """One key of ``configs/gon-edge.yaml``.

    Attributes
    ----------
    path : str
        Dotted, as in ``subscriptions[].topic``.
    text : str
        What the file says of it, without the hashes.
    written : str or None
        Its default as the file writes it; ``None`` where the line is one that people set.
    """

    path: str
    text: str
    written: str | None


def documented_options(text: str) -> Iterator[Option]:
    r"""Yield the keys of the annotated configuration in its order, sections included.

    Examples
    --------
    >>> [option.path for option in documented_options("## The log.\\n# log:\\n  ## How much.\\n#   level: info\\n")]
    ['log', 'log.level']
    """
    above: list[tuple[int, str]] = []  # indentation and path of the sections around a line
    said: list[str] = []
    for line in text.splitlines():
        if comment := re.match(r" *## ?(.*)", line):
            said.append(comment[1])
            continue
        key = re.match(r"( *)(- )?(\w+):(?: (.*))?$", re.sub(r"^( *)# ", r"\1", line))
        if key is None:
            said = []
            continue
        indent = len(key[1]) + len(key[2] or "")
        above = [(i, path) for i, path in above if i < indent]
        before = above[-1][1] if above else ""
        path = f"{before}{'[]' if before == 'subscriptions' else ''}.{key[3]}".lstrip(".")
        yield Option(path, "\n".join(said), (key[4] or "") if "# " in line[: indent + 2] else None)
        above.append((indent, path))
        said = []


def _fields(cls: type, prefix: str = "") -> Iterator[tuple[str, Field[Any]]]:
    """Every option of the schema by its path."""
    for key, option in keys(cls).items():
        path = prefix + key
        yield path, option
        if "section" in option.metadata:
            yield from _fields(option.metadata["section"], f"{path}.")
        if path == "subscriptions":
            yield from _fields(SubscriptionConfig, "subscriptions[].")


def _default(option: Option, field: Field[Any]) -> str:
    """How a page says a default; the file has those of the lines that it leaves commented out."""
    if option.written:
        return f"Default `{option.written}`."
    if option.path == "node":
        return "Default `auto`."
    if field.default is not MISSING:
        return "Default: none." if field.default in (None, ()) else f"Default `{field.default}`."
    return "Required."


def _from_when(path: str) -> str:
    fields = dict(_fields(config.Config))
    restart = path.startswith((*reload.RESTART, "subscriptions")) or fields[path].name in reload.GRID
    return "A change counts after a restart." if restart else "A change counts after a reload."


def configuration() -> str:
    """Return the page of options."""
    text = (ROOT / "configs" / "gon-edge.yaml").read_text(encoding="utf-8")
    fields = dict(_fields(config.Config))
    lines = [
        "# Configuration",
        _note("configs/gon-edge.yaml", "gon_edge/config/schema.py"),
        (
            "Every option of [gon-edge.yaml](../../configs/gon-edge.yaml), with its default. "
            f"`gon-edge check-config FILE` checks a file. {_SEE['configuration']}"
        ),
        _prose(re.search(r"^## (Durations are.*?)\n\n", text, re.MULTILINE | re.DOTALL)[1].replace("\n## ", " ")),  # type: ignore[index]
        (
            "*After a reload* means `systemctl reload gon-edge` or SIGHUP, from the next row on; see "
            "[operating](../operating.md#change-the-configuration)."
        ),
    ]
    explained = ""
    for option in documented_options(text):
        section = "section" in fields[option.path].metadata or option.path in ("subscriptions", "streams.overrides")
        whole = option.path in ("streams", "streams.defaults")
        lines.append(f"{'###' if '.' in option.path else '##'} {option.path}")
        if option.text:
            # The default is what the line below says.
            lines += _paragraphs(re.sub(r"\s+Default: \S+$", "", option.text), option.path.split(".")[:-1])
            explained = option.path
        elif not section and not whole:  # one comment stands above several keys
            lines.append(f"See [{explained}](#{re.sub(r'[^a-z_-]', '', explained)}).")
        if not section and not whole:
            lines.append(f"*{_default(option, fields[option.path])} {_from_when(option.path)}*")
    return _page(lines)


def _paragraphs(text: str, above: Sequence[str]) -> Iterator[str]:
    """Comment lines as paragraphs; indented ones are an example, which stands below the sections ``above``."""
    for paragraph in re.split(r"\n *\n", text):
        if paragraph.startswith("  "):
            sections = "".join(f"{'  ' * depth}{name}:\n" for depth, name in enumerate(above))
            example = textwrap.indent(textwrap.dedent(paragraph), "  " * len(above))
            yield f"```yaml\n{sections}{example.rstrip()}\n```"
        elif paragraph.strip():
            yield _prose(paragraph)


# -- commands ----------------------------------------------------------------------------------------------------------


def _usage(parser: argparse.ArgumentParser) -> str:
    """The usage, wrapped the same wherever this runs; brackets stay together."""
    usage = " ".join(parser.format_usage().removeprefix("usage:").split()).removeprefix(parser.prog).strip()
    parts = re.findall(r"\[[^][]*(?:\[[^][]*\][^][]*)*\]|\S+", usage)
    glued = [part.replace(" ", "\0") for part in parts]
    wrapped = textwrap.wrap(" ".join(glued), 76, break_long_words=False, break_on_hyphens=False)
    return parser.prog + (" " + "\n    ".join(wrapped) if wrapped else "").replace("\0", " ")


def _arguments(parser: argparse.ArgumentParser) -> Iterator[str]:
    for action in sorted(parser._actions, key=lambda a: bool(a.option_strings)):
        if isinstance(action, argparse._SubParsersAction | argparse._HelpAction):
            continue
        value = "|".join(map(str, action.choices)) if action.choices else str(action.metavar or action.dest)
        names = ", ".join(action.option_strings)
        shown = " ".join(part for part in (names, value if action.nargs != 0 else "") if part)
        text = parser._get_formatter()._expand_help(action) if action.help else ""
        yield f"- `{shown}`: {_prose(text)}"


def _command(parser: argparse.ArgumentParser, level: str) -> Iterator[str]:
    yield f"{level} {parser.prog}"
    yield from (_prose(paragraph) for paragraph in (parser.description or "").split("\n\n"))
    yield f"```text\n{_usage(parser)}\n```"
    if arguments := list(_arguments(parser)):
        yield "\n".join(arguments)
    if example := (parser.epilog or "").partition("example:\n")[2]:
        yield f"```sh\n{textwrap.dedent(example).strip()}\n```"
    for inner, _ in commands_in(parser).values():
        yield from _command(inner, level + "#")


def commands() -> str:
    """Return the page of commands."""
    parser = cli.build_parser()
    lines = [
        "# Commands",
        _note("the parser in gon_edge/commands/main.py and cli_*.py"),
        (
            "`gon-edge COMMAND --help` says the same, and so does `man gon-edge-COMMAND` of the package. Data goes to "
            "stdout, everything else to stderr. What the [exit codes](exit-codes.md) mean has a page of its own."
        ),
        "\n".join(
            _table(
                ("Command", ""),
                ((f"[`{name}`](#gon-edge-{name})", _prose(text)) for name, (_, text) in commands_in(parser).items()),
            )
        ),
    ]
    for command, _ in commands_in(parser).values():
        lines += _command(command, "##")
    return _page(lines)


# -- metrics -----------------------------------------------------------------------------------------------------------

_CLOSED = {
    "gon_edge_messages_total": ("result", events.MESSAGE_RESULTS),
    "gon_edge_messages_rejected_total": ("reason", events.REASONS),
    "gon_edge_messages_ignored_total": ("reason", events.IGNORED_REASONS),
    "gon_edge_readings_masked_total": ("reason", (*events.MASK_REASONS, *events.LOST_REASONS)),
    "gon_edge_rows_unscored_total": ("reason", events.UNSCORED_REASONS),
    "gon_edge_mqtt_reconnects_total": ("reason", events.RECONNECT_REASONS),
    "gon_edge_away_seconds_total": ("reason", events.AWAY_REASONS),
    "gon_edge_stream_state": ("state", events.STREAM_STATES),
    "gon_edge_alert_active": ("kind", events.ALERT_KINDS),
    "gon_edge_alerts_total": ("kind", events.ALERT_KINDS),
    "gon_edge_feedback_total": ("answer", events.ANSWERS),
    "gon_edge_retrain_rounds_total": ("outcome", events.TRAINING_OUTCOMES),
    "gon_edge_fleet_events_total": ("result", fleet.RESULTS),
}
_VALUES = {  # what is not said by the word itself
    **ledger.IN_WORDS,
    "dropped": "the queue was full, the oldest went",
    "ignored": "nobody looks at it; `gon_edge_messages_ignored_total` says why",
    "invalid": "not readable; `gon_edge_messages_rejected_total` says why",
    "late": "its row was already judged",
    "rejected": "by the gate",
    "repeated": "an owner before had told it",
    "stale": "no reading for longer than a gap",
    "taken_over": "another client uses the same identifier",
}
_MORE = {  # behind the line that `/metrics` itself has room for
    "gon_edge_alert_active": "0 while a silence holds it back.",
    "gon_edge_retrain_running": "Of a daemon; workers of a fleet count their jobs.",
    "gon_edge_retrain_waiting": "For a `place` while others run, for `heat`, `load` or `battery` (one that stands "
    "still, too), or to `retry`: it is about to begin, or another process trains, or the disk refuses its files.",
    "gon_edge_anomaly_contribution_ratio": "0 to 1; 200 of all streams together. Gone when the row is normal.",
    "gon_edge_anomaly_expected_value": "By the model, in the unit of the feature.",
    "gon_edge_anomaly_score": "By the starter until the stream has its own model; NaN before there is either.",
    "gon_edge_anomaly_threshold": "NaN before there is a model.",
    "gon_edge_anomaly_value": "In its own unit; NaN when it is missing. Comes and goes with its contribution.",
    "gon_edge_certificate_expiry_timestamp_seconds": (
        "`file` is the option that names it: `mqtt.ca_file`, `mqtt.cert_file`, `http.cert_file`. Only for files that "
        "are configured."
    ),
    "gon_edge_clock_steps_total": "Those of a device's clock count too.",
    "gon_edge_config_last_reload_successful": "Then the one before it stays in use.",
    "gon_edge_disk_written_bytes_total": "Absent if the kernel does not say.",
    "gon_edge_fleet_lost_total": "Nothing of its messages or alerts is lost by that.",
    "gon_edge_ingest_to_verdict_seconds": "Without rows that waited for the first model.",
    "gon_edge_last_row_timestamp_seconds": "By the clock of whoever stamped it.",
    "gon_edge_messages_total": "A message with several readings (an array, several lines) counts as several.",
    "gon_edge_missing_features": "They are silent for longer than is usual, or frozen, and left out of the score.",
    "gon_edge_mqtt_events_dropped_total": "1000 may wait; 256 KiB of them are kept over a restart.",
    "gon_edge_mqtt_publications_lost_total": "`refused`: the broker denies the topic; by MQTT 3.1.1 it does not say. "
    "`too_large`: over its largest packet. `ends_connection`: it has ended three connections in a row.",
    "gon_edge_mqtt_unacknowledged_seconds": "After 60 s a new connection is made, and all is sent again.",
    "gon_edge_readings_masked_total": "The rest of their message was used.",
    "gon_edge_rows_unscored_total": "`training`: it could not be kept while the first model was trained.",
    "gon_edge_store_write_errors_total": "The rows wait in memory.",
}


def metrics() -> str:
    """Return the page of series.

    Raises
    ------
    SystemExit
        A line of the tables above is about a series or a value that does not exist.
    """
    registry = CollectorRegistry()
    prometheus.Telemetry(registry, version="0")
    fleet.Series(registry, partitions=1)
    # A series without a value yet has no sample to read its labels from.
    labels = {getattr(c, "_name", ""): getattr(c, "_labelnames", ()) for c in registry._collector_to_names}
    rows, values, buckets = [], [], []
    for family in sorted(registry.collect(), key=lambda family: family.name):
        if not family.name.startswith("gon_edge_"):
            continue
        name = family.name + {"counter": "_total", "info": "_info"}.get(family.type, "")
        own = [*family.samples[0].labels] if family.type == "info" else labels.get(family.name, ())
        own = own or getattr(family, "_labelnames", ())
        kind = "gauge" if family.type == "info" else family.type
        text = f"{_prose(family.documentation)} {_MORE.get(name, '')}".strip()
        rows.append((f"`{name}`", kind, ", ".join(f"`{label}`" for label in own), text))
        if name in _CLOSED:
            label, known = _CLOSED[name]
            said = (f"`{value}`" + (f" ({_VALUES[value]})" if value in _VALUES else "") for value in known)
            values.append((f"`{name}`", f"`{label}`", ", ".join(said)))
        if family.type == "histogram":
            bounds = [sample.labels["le"] for sample in family.samples if sample.name.endswith("_bucket")]
            buckets.append((f"`{name}`", ", ".join(f"{float(bound):g}" for bound in bounds if bound != "+Inf")))
    if unknown := (_MORE.keys() - {row[0].strip("`") for row in rows}) | (
        _VALUES.keys() - {value for _, known in _CLOSED.values() for value in known}
    ):
        sys.exit(f"tools/make_reference.py describes what does not exist: {', '.join(sorted(unknown))}")
    lines = [
        "# Series",
        _note("gon_edge/links/prometheus.py and gon_edge/fleet/series.py"),
        (
            f"What `/metrics` serves. {_SEE['metrics']} Those of `fleet` only a worker of a fleet has. The Prometheus "
            "client library adds `process_*` and `python_info`."
        ),
        "\n".join(_table(("Series", "Type", "Labels", "What it says"), rows)),
        "## Values of labels",
        "Those of `stream`, `feature` and `version` are yours. The others are one of:",
        "\n".join(_table(("Series", "Label", "Values"), values)),
        "## Buckets",
        "Upper bounds in seconds, and `+Inf`:",
        "\n".join(_table(("Histogram", "Bounds"), buckets)),
    ]
    return _page(lines)


# -- topics and events -------------------------------------------------------------------------------------------------

# First level below BASE/NODE: level(s) as shown, retained, what it carries.
_TOPICS = {
    "alert": (("alert",), "no, QoS 1", "Alerts, see [events](#events)."),
    "state": (
        ("state", "STREAM"),
        "yes",
        "The state of a stream, see [states](#states); at most once a second, and 100 a second of all streams.",
    ),
    "status": (("status",), "yes", "`online` or `offline`; the broker sends the latter too (last will)."),
    "homeassistant": (("homeassistant", "STREAM"), "yes", "With `homeassistant.enabled`: a stream's entities, JSON."),
    "feedback": (
        ("feedback", "result"),
        "no, QoS 1",
        "With `mqtt.feedback`: what came of [an answer](../alerts.md#by-mqtt), JSON.",
    ),
    "doctor": (("doctor",), "no", "A message of `gon-edge doctor` to itself."),
}
_STATE_KEYS = {
    "stream": "Its name.",
    "state": "`warming-up`, `training`, `scoring` or `stale`.",
    "timestamp": "Unix seconds of the newest row.",
    "score": "The newest score, or null.",
    "threshold": "Its threshold, or null.",
    "is_anomaly": "Whether the score is above the threshold.",
    "alerts": "`id` of each open alert that no silence holds back.",
    "untold": "`id` of each alert whose newest event no broker has acknowledged yet.",
    "missing": "Features that are silent for longer than is usual for them, or frozen. The first ten.",
    "missing_count": "How many there are.",
    "model_version": "The model in use, `shipped:NAME` for a starter, or null.",
    "client_id": "Under which the gon-edge that says so is known to the broker.",
}


def published_topics() -> set[str]:
    """Return the first level below BASE/NODE of every topic the sources publish to."""
    source = "\n".join(file.read_text(encoding="utf-8") for file in sorted((ROOT / "gon_edge").rglob("*.py")))
    found = re.findall(r'topic\((?:[\w., ]*, )?"(\w+)"', source)
    return {*found, *re.findall(r"\{config\.mqtt\.base_topic\}/\{config\.node\}/(\w+)", source)}


def state_keys() -> list[str]:
    """Return the keys of a state message, read from the source of ``Reporter.state``."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(reporting.Reporter.state)))
    (keys,) = (node.keys for node in ast.walk(tree) if isinstance(node, ast.Dict))
    return [str(key.value) for key in keys if isinstance(key, ast.Constant)]


def _attributes(cls: type) -> dict[str, tuple[str, str]]:
    """Name to type and text, of the section Attributes of a numpydoc docstring."""
    section = inspect.cleandoc(cls.__doc__ or "").partition("Attributes\n----------\n")[2]
    found: dict[str, tuple[str, str]] = {}
    for head, body in re.findall(r"^(\w[^\n]*)((?:\n +[^\n]+)*)", section, re.MULTILINE):
        names, _, kind = head.partition(" : ")
        for name in names.split(", "):
            found[name] = (kind, " ".join(body.split()))
    return found


def _key_rows(cls: type, keys: Iterable[str]) -> Iterator[tuple[str, str, str]]:
    """Key, type and text of what a dataclass becomes in JSON."""
    known = _attributes(cls)
    for key in keys:
        kind, text = known.get(key) or known[_RENAMED[key]]
        kind, text = _LISTED.get((cls, key), (kind, text))
        kind = re.sub(r'"(\w+)"', r"`\1`", kind.strip("{}")).replace("None", "null").removesuffix(", optional")
        kind = re.sub(r"(tuple|sequence) of [\w ]+", "list", re.sub(r"mapping of \w+ to \w+", "object", kind))
        for python, said in (("str", "text"), ("float", "number"), ("int", "number"), ("bool", "true or false")):
            kind = re.sub(rf"\b{python}\b", said, kind)
        kind = re.sub(r"\b(mapping|GateScores|Recurring|Trend)\b", "object", kind)
        text = re.sub(r"`None`|\bNone\b", "null", text.replace("``", "`")).replace("NaN", "Null")
        yield f"`{key}`", kind, _prose(text or _SAID[key])


_MORE_FEATURES = ("`more_features`", "number", "How many there are beside those; only where there are more than ten.")


def topics() -> str:
    """Return the page of topics and events.

    Raises
    ------
    SystemExit
        A topic or a key of a state that has no line in the tables above.
    """
    _same("topics of gon_edge/*.py", published_topics(), _TOPICS)
    _same("keys of a state", state_keys(), _STATE_KEYS)
    mqtt = config.MqttConfig(url="mqtt://localhost", base_topic="BASE")
    rows = [(f"`{own_topic(mqtt, 'NODE', *levels)}`", *said) for levels, *said in _TOPICS.values()]
    sent: dict[str, str] = {}
    home = HomeAssistant(
        config.HomeAssistantConfig(enabled=True, silence_s=1.0, feedback=True),
        node="NODE",
        version="0",
        topic=lambda *levels: own_topic(mqtt, "NODE", *levels),
        publish=sent.__setitem__,
        act=lambda *_: None,
        now=0.0,
    )
    home.start()
    (gateway,) = sent
    rows.append((f"`{gateway.replace('/gon-edge/config', '/STREAM/config')}`", "yes", "Discovery by Home Assistant."))
    said = (
        "Home Assistant says that it has started.",
        "What an earlier run announced.",
        "The switch, with `homeassistant.silence`.",
        "The buttons, with `homeassistant.feedback`.",
    )
    answers = (f"`{own_topic(mqtt, 'NODE', 'feedback')}`", "Answers to alerts, with `mqtt.feedback`.")
    heard = [answers, *((f"`{topic}`", text) for topic, text in zip(home.subscriptions, said, strict=True))]
    example = events.Alert("i", "new", "anomaly", "s", 0.0, 0.0, 2.0, 1.0, "warning", (), "1")
    lines = [
        "# Topics and events",
        _note(
            "gon_edge/events.py",
            "gon_edge/links/mqtt/client.py",
            "gon_edge/links/homeassistant.py",
            "gon_edge/daemon/app.py",
        ),
        (
            "`BASE` is [mqtt.base_topic](configuration.md#mqttbase_topic), by default `gon-edge`; `NODE` is "
            "[node](configuration.md#node). In names, `/`, `+`, `#` and `%` become `%2F`, `%2B`, `%23` and `%25`."
        ),
        "## Published",
        "\n".join(_table(("Topic", "Retained", "What"), rows)),
        "## Subscribed",
        (
            "The topics of `subscriptions`; once after each start `BASE/NODE/state/+`, for what an earlier run has "
            "said; and where they are enabled:"
        ),
        "\n".join(_table(("Topic", "What"), heard)),
        "## Events",
        "One JSON object a message on `BASE/NODE/alert`; [an example](../alerts.md#read-an-alert).",
        "\n".join(_table(("Key", "Type", "What"), (*_key_rows(events.Alert, alert_json(example)), _MORE_FEATURES))),
        "Each of `top_features`:",
        "\n".join(_table(("Key", "Type", "What"), _key_rows(events.Cause, _attributes(events.Cause)))),
        "`trend` of each of them, where the alert is a `drift`:",
        "\n".join(_table(("Key", "Type", "What"), _key_rows(events.Trend, _attributes(events.Trend)))),
        "`recurring`, where it is not null:",
        "\n".join(_table(("Key", "Type", "What"), _key_rows(events.Recurring, _attributes(events.Recurring)))),
        "`together`, where it is not null:",
        "\n".join(_table(("Key", "Type", "What"), _key_rows(events.Together, _attributes(events.Together)))),
        "## States",
        "\n".join(_table(("Key", "What"), ((f"`{key}`", text) for key, text in _STATE_KEYS.items()))),
    ]
    return _page(lines)


def _same(what: str, found: Iterable[object], described: Mapping[Any, object]) -> None:
    if set(found) != set(described):
        differ = sorted(map(str, set(found) ^ set(described)))
        sys.exit(f"{what} and the table in tools/make_reference.py differ: {', '.join(differ)}")


# -- HTTP --------------------------------------------------------------------------------------------------------------

_PATHS = {
    "/": "The status page: one file that loads nothing from elsewhere.",
    "/metrics": "[Series](metrics.md) for Prometheus.",
    "/healthz": f"200 while the scoring loop runs, 503 if it has not for {api.HEARTBEAT_LIMIT_S:g} s.",
    "/readyz": "200 once configuration and models are loaded, 503 before. It does not depend on the broker.",
    "/api/v1/status": "[The daemon](#apiv1status): broker, queue, memory, latency.",
    "/api/v1/streams": "[Every stream](#apiv1streams) as it is now.",
    "/api/v1/alerts": (
        f"`alerts`: the newest [event](topics.md#events) of each, open and ended, newest first; "
        f"{reporting.ALERTS_SHOWN} "
        "at most."
    ),
    "/api/v1/silences": "[Silences](#apiv1silences) in force, the first to end first.",
    "/api/v1/history": "[Scores and thresholds](#apiv1history) of the last hour.",
    "/api/v1/readings": "[The readings](#apiv1readings) of one stream over the last hour: `?stream=NAME`.",
    "/api/v1/days": (
        f"[The same hour](#apiv1days) on up to {days.MOST_DAYS} earlier days: `?stream=NAME&feature=NAME`, with up to "
        f"{api.MOST_ASKED} times `feature`."
    ),
    "/api/v1/trainings": (
        f"[The last {orders.TRAININGS_SHOWN} trainings](#apiv1trainings), newest first, and what the gate measured."
    ),
    "/api/v1/models": "[The model in use](#apiv1models) of each stream that has one of its own.",
}
_STATUSES = {
    "OK": "",
    "BAD_REQUEST": "The query names no stream, or too much; `error` in the answer says what is wrong.",
    "UNAUTHORIZED": "No token or password, or a wrong one.",
    "NOT_FOUND": "No such path; or no such stream, or one that has no row yet.",
    "METHOD_NOT_ALLOWED": "No such method.",
    "MISDIRECTED_REQUEST": "The request is for an unknown name, see [http.names](configuration.md#httpnames).",
    "TOO_MANY_REQUESTS": "Too many wrong passwords from this address; `Retry-After` says when to come back.",
    "INTERNAL_SERVER_ERROR": "A bug. The log has more; please report it.",
    "SERVICE_UNAVAILABLE": (
        f"Not healthy, not ready, {server.MAX_THREADS} connections are open already, or others look up earlier days."
    ),
}
_MODEL_KEYS = {
    "stream": "Its name.",
    "version": "Of the model.",
    "parent": "Version of the one before it; empty for a first model.",
    "trained_at": "Unix seconds.",
    "rows": "Rows it was trained from.",
    "since": "The oldest of them, Unix seconds.",
    "until": "The newest of them, Unix seconds.",
    "gate": "What the gate measured before it was used, as below, without `latency_s`.",
}
_HEALTH_KEYS = {
    "healthy": "Whether the scoring loop runs.",
    "heartbeat_age_s": "Seconds since its last round.",
    "ready": "Whether configuration and models are loaded.",
}
_STATUS_KEYS = {
    "node": "Its name, `node` of the configuration.",
    "version": "Of gon-edge.",
    "now": "Unix seconds by the daemon's clock.",
    "started_at": "Unix seconds.",
    "uptime_s": "Seconds since.",
    "ready": "As in `/readyz`.",
    "heartbeat_age_s": "Seconds since the last round of the scoring loop.",
    "mqtt": "`connected` (true or false), `url` (without user and password), `error` (why not; empty when connected), "
    "`troubles` (a line each: refused topics, messages that were lost, another client with this client id), "
    "`away` (the newest time in which the broker could not be heard: `seconds`, `until`, and the `reason`, "
    "`offline` or `asleep`; null if there was none).",
    "troubles": "A line each: the state directory cannot be written or was deleted, streams that are not scored.",
    "queue_length": "Messages received and not yet scored.",
    "rss_bytes": "Resident memory.",
    "latency": "From receipt to score, of the last rows: `median_s`, `p95_s`; null before the first.",
}
_HISTORY_KEYS = {
    "stream": "Its name.",
    "end": "End of the newest bucket, Unix seconds by the stream's own clock.",
    "scores": "Highest score of each bucket, oldest first, starting with the first that has one; null for none.",
    "thresholds": "`[bucket, threshold]` for the first and wherever it changed.",
}
_READINGS_KEYS = {
    "stream": "Its name.",
    "end": "End of the newest bucket, Unix seconds by the stream's own clock.",
    "bucket_s": "Length of a bucket.",
    "features": f"The first {history.MOST_READINGS} features of the stream, each as below.",
}
_READING_KEYS = {
    "feature": "Its name.",
    "value": "The newest reading; null where there is none, or it is stale.",
    "usual": (
        "Lowest and highest, between which it was in most of the rows that the model was trained on: the mean, two "
        "standard deviations around it. null for a feature that the model does not know, and for a counter, of which "
        "it knows the rate."
    ),
    "low": "Lowest reading of each bucket, oldest first, starting with the first of the stream; null for none.",
    "high": "Highest reading of each bucket.",
    "expected": (
        "What the model would have instead, of one row of each bucket in which a row was anomalous or an alert was "
        "open; null for the others, and instead of the list where there is none."
    ),
}
_DAYS_KEYS = {
    "stream": "Its name.",
    "end": "As in `/api/v1/readings`; each day's hour ends so many times 24 hours before.",
    "bucket_s": "Length of a bucket.",
    "features": (
        "Those that were asked for, each with its name as `feature`, and `days`, the nearest first: `ago` (1 is "
        "yesterday) and `values`, the mean of each bucket, oldest first, null for none. Days without rows are left out."
    ),
}


def _sample() -> Snapshot:
    """A daemon with one of everything, so that answers have all their keys."""
    cause = events.Cause("f", 1.0, 2.0, 1.0)
    scores = GateScores(0.0, {})
    gate = GateReport(True, (), True, 1, scores, scores, 0.0, 1, 0.0)
    training = RetrainRecord("s", "1", 0.0, 1.0, "promoted", 1, 1, "", gate.as_json())
    held = history.ReadingHistory()
    held.add(events.Row("s", 0.0, ("f",), np.float32([1.0]), np.array([False])))
    readings = ReadingsSnapshot("s", held.features, held.values, *held.copy(), ("f",), np.zeros((2, 1)))
    return Snapshot(
        node="n", version="0", started_at=0.0, now=0.0, mqtt_connected=True, mqtt_url="", mqtt_error="",
        queue_length=0, rss_bytes=0, heartbeat_at=0.0, ready=True,
        streams=(StreamSnapshot("s", "scoring", 1, 1, causes=(cause,)),),
        silences=(asdict(Silence("s", "", 0.0, 1.0, "")),),
        history=(HistorySnapshot("s", 0.0, [1.0], [1.0]),),
        trainings=(asdict(training),), models={"s": {}}, readings={"s": readings},
    )  # fmt: skip


def answer(path: str) -> dict[str, Any]:
    """Return what a path with a JSON answer says of a daemon that has one of everything."""
    body: dict[str, Any] = json.loads(api.answer(path, _sample(), "stream=s&feature=f")[1])
    return body


def http() -> str:
    """Return the page of HTTP paths.

    Raises
    ------
    SystemExit
        A path, or a key of an answer, that has no line in the tables above.
    """
    _same("paths of gon_edge/links/web/server.py", server.CONTENT_TYPES, _PATHS)
    _same("keys of /healthz and /readyz", {**answer("/healthz"), **answer("/readyz")}, _HEALTH_KEYS)
    _same("keys of /api/v1/status", answer("/api/v1/status"), _STATUS_KEYS)
    scores, readings = answer("/api/v1/history"), answer("/api/v1/readings")
    (model,) = answer("/api/v1/models")["models"]
    _same("keys of /api/v1/models", model, _MODEL_KEYS)
    _same("keys of /api/v1/history", scores["streams"][0], _HISTORY_KEYS)
    _same("keys of /api/v1/readings", readings, _READINGS_KEYS)
    _same("keys of its features", readings["features"][0], _READING_KEYS)
    _same("keys of /api/v1/days", answer("/api/v1/days"), _DAYS_KEYS)
    methods = [name.removeprefix("do_") for name in dir(server._Handler) if name.startswith("do_")]
    paths = (
        (f"`{path}`", f"`{server.CONTENT_TYPES[path]}`", "yes" if path in guard.OPEN_TO_ALL else "", text)
        for path, text in _PATHS.items()
    )
    sources = "".join(inspect.getsource(module) for module in (server, guard, api))
    named = set(re.findall(r"HTTPStatus\.([A-Z_]+)", sources)) - {"NOT_IMPLEMENTED"}  # made a 405
    _same("HTTP statuses of gon_edge/links/web", named, _STATUSES)
    statuses = [(str(HTTPStatus[name].value), text) for name, text in _STATUSES.items() if text]
    typed, untyped = ("Key", "Type", "What"), ("Key", "What")
    (stream,) = answer("/api/v1/streams")["streams"]
    (silence,) = answer("/api/v1/silences")["silences"]
    (training,) = answer("/api/v1/trainings")["trainings"]
    lines = [
        "# HTTP",
        _note("gon_edge/links/web/server.py", "gon_edge/links/web/api.py", "gon_edge/links/snapshot.py"),
        (
            f"What is served at [http.listen](configuration.md#httplisten), by default "
            f"`http://{config.HttpConfig().listen}`, to {' and '.join(methods)}. Nothing can be changed through it, no "
            "path takes a body, none a query but where the table says so, and every answer is fresh (`Cache-Control: "
            "no-store`)."
        ),
        "\n".join(_table(("Path", "Content type", "Open to all", "What"), paths)),
        (
            "Without [token](configuration.md#httptoken_file) or [password](configuration.md#httppassword_file) in the "
            "configuration everything is open. With one, everything but what is open to all asks for `Authorization: "
            "Bearer TOKEN`, or for user and password (`Basic`); see [security.md](../security.md#http)."
        ),
        "\n".join(_table(("Status", "When it is not 200"), statuses)),
        (
            "Times are Unix seconds, `_s` means seconds, and what is not a finite number is null. Keys may be added: "
            "ignore those that you do not know."
        ),
        "## /healthz, /readyz",
        "\n".join(_table(untyped, ((f"`{key}`", text) for key, text in _HEALTH_KEYS.items()))),
        "## /api/v1/status",
        "\n".join(_table(untyped, ((f"`{key}`", text) for key, text in _STATUS_KEYS.items()))),
        "## /api/v1/streams",
        "`streams`, each with",
        "\n".join(_table(typed, _key_rows(StreamSnapshot, stream))),
        "Causes are as in [events](topics.md#events).",
        (
            "`features` are there from the first message on, each with its last `value`, null for none. `cadence_s` is "
            "how many seconds lie between two values, null while unknown. `kind` is `gauge` or `counter`: of a "
            "counter, which only rises, the rate is judged."
        ),
        (
            f"`dropped` says what of the stream's messages became no value: the key as the message has it, how often "
            f"since the start, what stood there last, and the reason, in words in `why`. {ledger.MOST_KEYS} keys are "
            f"named, the one heard last first; `{ledger.OTHERS}` stands for those before. The reasons are those of "
            "`gon_edge_readings_masked_total` in [metrics.md](metrics.md)."
        ),
        "## /api/v1/silences",
        "`silences`, each with",
        "\n".join(_table(typed, _key_rows(Silence, silence))),
        "## /api/v1/history",
        "`bucket_s`, the length of a bucket in seconds, and `streams`, each with",
        "\n".join(_table(untyped, ((f"`{key}`", text) for key, text in _HISTORY_KEYS.items()))),
        "## /api/v1/readings",
        "\n".join(_table(untyped, ((f"`{key}`", text) for key, text in _READINGS_KEYS.items()))),
        "`features`, each with",
        "\n".join(_table(untyped, ((f"`{key}`", text) for key, text in _READING_KEYS.items()))),
        (
            "They are kept in memory since the last start. An answer holds at most 200 KiB: 8 features take about 20, "
            "and 30 with expected values."
        ),
        "## /api/v1/days",
        (
            "From the rows on the disk. One look at a time: while another one is running, the answer is 503 after 2 s. "
            "A look ends after 2 s with the days that it has found."
        ),
        "\n".join(_table(untyped, ((f"`{key}`", text) for key, text in _DAYS_KEYS.items()))),
        "## /api/v1/models",
        "`models`, each with the following, of which null is what an imported model does not say:",
        "\n".join(_table(untyped, ((f"`{key}`", text) for key, text in _MODEL_KEYS.items()))),
        "## /api/v1/trainings",
        "`trainings`, each with",
        "\n".join(_table(typed, _key_rows(RetrainRecord, training))),
        "`gate`, as `gon-edge retrain --json` has it too:",
        "\n".join(_table(typed, _key_rows(GateReport, training["gate"]))),
        "`challenger` is the new model, `champion` the one before it; each has",
        "\n".join(_table(typed, _key_rows(GateScores, training["gate"]["challenger"]))),
    ]
    return _page(lines)


# -- files and exit codes ----------------------------------------------------------------------------------------------

# What is in a state directory, as shell patterns: a test makes one and looks for each file here.
STATE_FILES = {
    "models/*/model.npz": ("models/STREAM/model.npz", "The model in use. `gon-edge score --model` reads it too."),
    "models/*/model-*.npz": ("models/STREAM/model-VERSION.npz", "A copy of it, and of the four models before it."),
    "models/*/current": ("models/STREAM/current", "The version in use, in case `model.npz` is damaged."),
    "models/*/*.damaged": ("models/STREAM/*.damaged", "A model file that could not be read, kept for you to look at."),
    "models/*/job.json": ("models/STREAM/job.json", "The order for the last training."),
    "models/*/candidate.npz": ("models/STREAM/candidate.npz", "Its result, before the gate judges it."),
    DATABASE: (DATABASE, "Recent rows, alert history, states, silences, history of trainings (SQLite, WAL mode)."),
    f"{DATABASE}-*": (f"{DATABASE}-wal`, `{DATABASE}-shm", "Belong to it while the daemon runs: copy all three."),
    f"{DATABASE}.damaged-*": (f"{DATABASE}.damaged-N", "A database that was set aside; the newest two are kept."),
    LOCK: (LOCK, "Held by the gon-edge that runs here: only one can."),
    "training.lock": ("training.lock", "Held by a training: only one can run."),
    SOCKET: (
        SOCKET,
        (
            "How commands reach the daemon, for owner and group (mode 0660). Whoever may write to it may train, "
            "accept, silence and roll back; there is no other password."
        ),
    ),
}
_PLACES = (
    (arguments.DEFAULT_CONFIG, "The configuration, unless `--config` or `$GON_EDGE_CONFIG` names another."),
    ("/var/lib/gon-edge", "The state directory, unless `state_dir` names another."),
    ("share/gon-edge/models", "Shipped models, below the prefix of the installation, `/usr/local` or `/usr`."),
)
_ENVIRONMENT = (
    ("GON_EDGE_CONFIG", "The configuration, for commands without `--config`."),
    ("CREDENTIALS_DIRECTORY", "Where relative paths of secrets are looked for. systemd sets it (`LoadCredential=`)."),
    ("NOTIFY_SOCKET", "Where gon-edge reports readiness, status and watchdog. systemd sets it (`Type=notify`)."),
    ("NO_COLOR", "If it is set to anything, terminals get no colour."),
    ("OPENBLAS_NUM_THREADS", "Threads of numpy's linear algebra. 1 is best, because the matrices are small."),
)


def files() -> str:
    """Return the page of files and environment variables."""
    lines = [
        "# Files",
        _note("gon_edge/state/database.py", "gon_edge/links/control.py", "itself"),
        "## In the state directory",
        (
            "Names of streams that cannot be file names are percent-encoded. To back everything up, see "
            "[backup.md](../backup.md)."
        ),
        "\n".join(_table(("File", "What"), ((f"`{name}`", text) for name, text in STATE_FILES.values()))),
        "## Elsewhere",
        "\n".join(_table(("Place", "What"), ((f"`{name}`", text) for name, text in _PLACES))),
        "For what the package installs, see [installing.md](../installing.md).",
        "## Environment variables",
        "The configuration can use any other variable as `${NAME}`.",
        "\n".join(_table(("Variable", "What"), ((f"`{name}`", text) for name, text in _ENVIRONMENT))),
    ]
    return _page(lines)


def exit_codes() -> str:
    """Return the page of exit codes."""
    raised: dict[int, list[str]] = {}
    for value in vars(errors).values():
        # A PayloadError is counted and never leaves the daemon; a RetrainError that is none of its kinds is "failed".
        # 3 is a result and no error: the gate has done its work.
        if inspect.isclass(value) and hasattr(value, "exit_code") and value is not errors.PayloadError:
            raised.setdefault(value.exit_code, []).append(value.__name__)
    _same("exit codes of gon_edge/errors.py", {*raised, 0, 2, 3, 130}, errors.EXIT_CODES)
    sysexits = {getattr(os, name): name for name in dir(os) if name.startswith("EX_")}
    rows = [
        (
            str(code),
            text[0].upper() + text[1:] + ".",
            ", ".join(f"`{name}`" for name in raised.get(code, [])),
            f"`{sysexits[code]}`" if code >= os.EX_USAGE and code in sysexits else "",
        )
        for code, text in errors.EXIT_CODES.items()
    ]
    lines = [
        "# Exit codes",
        _note("gon_edge/errors.py"),
        "Scripts may rely on them. An error is one line on stderr that says what to do.",
        "\n".join(_table(("Code", "Meaning", "Exception", "`sysexits.h`"), rows)),
        (
            "`run` ends with 0 on SIGTERM and Ctrl-C. 1 has a special meaning in some commands: in `demo`, the fault "
            "raised no alert; in `replay`, not every row was acknowledged; in `doctor` and `models verify`, something "
            "is wrong. 3, 4 and 5 come from `retrain` and `accept`. 75 comes from `retrain` without `--wait`, if "
            "another training runs. Numbers from 66 to 78 are those of `sysexits.h`."
        ),
    ]
    return _page(lines)


PAGES = {
    "configuration.md": configuration,
    "commands.md": commands,
    "metrics.md": metrics,
    "topics.md": topics,
    "http.md": http,
    "files.md": files,
    "exit-codes.md": exit_codes,
}


def main() -> None:
    """Write all pages."""
    parser = argparse.ArgumentParser(description="Write the reference pages of the documentation.")
    parser.add_argument("folder", nargs="?", type=Path, default=ROOT / "docs" / "reference")
    folder: Path = parser.parse_args().folder
    folder.mkdir(parents=True, exist_ok=True)
    for name, page in PAGES.items():
        (folder / name).write_text(page(), encoding="utf-8")
    print(f"{len(PAGES)} pages in {folder}")


if __name__ == "__main__":
    main()
