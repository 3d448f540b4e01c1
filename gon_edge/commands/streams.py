"""Commands about whole streams: which there are, letting go of one, and giving one another name.

They go through the running daemon where there is one.  Without one, what the broker keeps of a stream is taken away
here: the daemon that put it there does not know the stream any more when it starts.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from gon_edge.commands.arguments import AddCommand, Run, add_config, commands_of, config_of, say, write_json

if TYPE_CHECKING:
    from gon_edge.config.schema import Config

_BROKER_S = 5.0  # for it to take the messages.  Not critical: a person waits


def _add_streams(add: AddCommand) -> None:
    group = add(
        "streams",
        None,
        "list, remove and rename streams",
        "Show what there is of each stream, let go of one that is no more, or give one the name that its device has "
        "now.  Works with the daemon running and without it.",
        "gon-edge streams rename pump pump-hall-2",
    )
    add_action = commands_of(group, text="gon-edge streams COMMAND --help explains one")

    def action(name: str, run: Run, text: str, description: str, example: str) -> argparse.ArgumentParser:
        return add_action(name, run, text, description, f"gon-edge streams {example}")

    def add_output(sub: argparse.ArgumentParser) -> None:
        add_config(sub)
        sub.add_argument("--json", action="store_true", help="as JSON")

    add_output(
        action(
            "list",
            _list,
            "show what there is of each stream",
            "List every stream of which there is anything, also those that limits.streams has no room for: rows, the "
            "newest row, models, alerts and silences.",
            "list",
        )
    )
    sub = action(
        "remove",
        _remove,
        "let go of a stream and all there is of it",
        "Delete a stream: models, rows, alerts, answers, trainings and silences, its series, its retained topics and "
        "its device in Home Assistant.  Open alerts are ended first.  There is no way back but a backup.  If messages "
        "for it still come, it begins anew.",
        "remove pump --dry-run",
    )
    sub.add_argument("stream", metavar="STREAM", help="the stream")
    sub.add_argument("--dry-run", action="store_true", help="say what would be deleted; delete nothing")
    add_output(sub)
    sub = action(
        "rename",
        _rename,
        "give a stream another name",
        "Give a stream the name that its device has now: models, rows, alerts, answers, trainings and silences go "
        "along, and alerts keep their ids.  The new name may have rows already, which come after, and no model.  "
        "Rename what names the stream in the configuration, too (streams.overrides).",
        "rename pump pump-hall-2",
    )
    sub.add_argument("stream", metavar="OLD", help="the stream")
    sub.add_argument("to", metavar="NEW", help="its new name")
    add_output(sub)


def _list(options: argparse.Namespace) -> int:
    from gon_edge.training.ask import ask

    found = ask(config_of(options), {"do": "streams"})["streams"]
    if options.json:
        write_json(found)
    else:
        sys.stdout.write(streams_text(found))
    return 0


def _remove(options: argparse.Namespace) -> int:
    from gon_edge.commands.text import visible
    from gon_edge.training.ask import ask

    config = config_of(options)
    answer = ask(config, {"do": "remove", "stream": options.stream, "dry_run": options.dry_run})
    held = answer["removed"]
    if not answer["live"] and not options.dry_run:
        _clear_broker(config, held["stream"], answer["open"])
    if options.json:
        write_json(held)
    else:
        verb = "would be removed" if options.dry_run else "is removed"
        sys.stdout.write(visible(f"stream {held['stream']!r} {verb}: {_what(held)}") + "\n")
    return 0


def _rename(options: argparse.Namespace) -> int:
    from gon_edge.commands.text import visible
    from gon_edge.training.ask import ask

    config = config_of(options)
    answer = ask(config, {"do": "rename", "stream": options.stream, "to": options.to})
    held, to = answer["renamed"], answer["to"]
    if not answer["live"]:
        _clear_broker(config, held["stream"], ())
    if held["stream"] in config.streams.overrides:
        say([f"the configuration has streams.overrides.{held['stream']}; rename it to {to}"])
    if options.json:
        write_json({**held, "to": to})
    else:
        sys.stdout.write(visible(f"stream {held['stream']!r} is called {to!r} now: {_what(held)}") + "\n")
    return 0


def streams_text(found: Sequence[Mapping[str, Any]]) -> str:
    """What `training.operations.list_streams` answers, for a person."""
    from gon_edge.commands.text import table, time_text

    if not found:
        return "no stream yet: no message has arrived on a subscribed topic\n"
    rows = [["STREAM", "SCORED", "ROWS", "NEWEST (UTC)", "MODEL", "KEPT", "ALERTS", "OPEN", "SILENCES"]]
    for one in found:
        scored = {True: "yes", False: "no", None: "-"}[one["scored"]]
        newest, models = time_text(one["newest"]), one["models"]
        counts = [str(one[key]) for key in ("alerts", "open_alerts", "silences")]
        model = [models[0] if models else "-", str(len(models))]
        rows.append([one["stream"], scored, str(one["rows"]), newest, *model, *counts])
    return "\n".join(table(rows)) + "\n"


def _what(held: Mapping[str, Any]) -> str:
    counts = {"row": held["rows"], "model": len(held["models"]), "alert": held["alerts"], "silence": held["silences"]}
    return ", ".join(f"{count} {name}{'' if count == 1 else 's'}" for name, count in counts.items())


def _clear_broker(config: Config, stream: str, opened: Sequence[Mapping[str, Any]]) -> None:
    """Take away what the broker keeps of a stream, and end its open alerts there; say how where that fails."""
    import json
    from functools import partial

    from gon_edge.errors import GonEdgeError
    from gon_edge.links.homeassistant import HomeAssistant
    from gon_edge.links.mqtt.client import own_topic
    from gon_edge.links.publisher import Publisher

    topic = partial(own_topic, config.mqtt, config.node)
    home = HomeAssistant(
        config.homeassistant,
        node=config.node,
        version="",
        topic=topic,
        publish=lambda topic, payload: None,
        act=lambda name, wanted: None,
        now=0.0,
    )
    kept = [topic("state", stream), *(home.topics(stream) if config.homeassistant.enabled else ())]
    ends = [{**event, "type": "end", "timestamp": round(time.time(), 3)} for event in opened]
    try:
        with Publisher(config.mqtt, patience_s=_BROKER_S) as publisher:
            for event in ends:
                publisher.send(topic("alert"), json.dumps(event).encode())
            for name in kept:
                publisher.send(name, b"", retain=True)
            done = publisher.drain(_BROKER_S) and not publisher.refused
        wrong = "" if done else publisher.refusal or f"{publisher.url} does not answer"
    except GonEdgeError as error:
        wrong = str(error)
    if wrong:
        say([f"the broker still keeps {', '.join(kept)}: {wrong}; clear each with mosquitto_pub -r -n -t TOPIC"])


COMMANDS = {"streams": _add_streams}
