"""Commands that say what gon-edge makes of messages: of one that is given, and of those a broker has."""

from __future__ import annotations

import argparse
import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from gon_edge.commands.arguments import (
    AddCommand,
    add_broker,
    add_config,
    broker_of,
    config_of,
    duration,
    note,
    write_json,
)
from gon_edge.errors import ConfigError, InputError
from gon_edge.process.files import open_regular

if TYPE_CHECKING:
    from gon_edge.config.schema import Config

_CONFIG = "a daemon's configuration (default: $GON_EDGE_CONFIG, else /etc/gon-edge/gon-edge.yaml, else none)"


def _add_try(add: AddCommand) -> None:
    sub = add(
        "try",
        _try,
        "show what would be made of a message",
        "Show what the daemon would make of one message: which subscription reads it, the stream, features, values and "
        "timestamp, what of it is not used and why, and which key of the configuration helps.  Without a configuration "
        "the subscription that would fit is tried.  Opens no connection.",
        """gon-edge try zigbee2mqtt/kitchen '{"temperature": 21.5, "state": "open"}' --config gon-edge.yaml""",
    )
    sub.add_argument("topic", metavar="TOPIC", help="the topic of the message")
    sub.add_argument("payload", metavar="PAYLOAD", help="its payload: text, @FILE, or - for standard input")
    add_config(sub, _CONFIG)
    sub.add_argument("--retained", action="store_true", help="as a message that lay in the broker")
    sub.add_argument("--json", action="store_true", help="print it as JSON")


def _try(options: argparse.Namespace) -> int:
    from gon_edge.commands.trial import trial, trial_text

    config = _config(options)
    payload = _payload(options.payload)
    tried = trial(config, options.topic, payload, retained=options.retained, wall=time.time())
    if options.json:
        write_json(tried)
        return 0
    sys.stdout.write(trial_text(tried))
    return 0


def _config(options: argparse.Namespace) -> Config | None:
    """The configuration that is named or installed, if there is one."""
    try:
        return config_of(options)
    except ConfigError as error:
        if options.config is None and error.path is not None and not Path(error.path).exists():
            return None
        raise


def _payload(text: str) -> bytes:
    if text == "-":
        return sys.stdin.buffer.read()
    if not text.startswith("@"):
        return text.encode("utf-8", "surrogateescape")
    try:
        with open_regular(text[1:]) as file:
            return file.read()
    except OSError as error:
        raise InputError(f"{text[1:]}: {error.strerror or error}; write @FILE for a payload in a file") from None


def _add_listen(add: AddCommand) -> None:
    sub = add(
        "listen",
        _listen,
        "show what a broker has and what is understood of it",
        "Listen to a broker for a while, beside a running daemon, and show what the daemon would make of it: streams "
        "with features, last values and rates; keys that are not used, with reasons; and topics that nothing reads, "
        "each family with the subscription that would.  Without a configuration it finds subscriptions for all.  "
        "Where stdout is a terminal it is kept current; Ctrl-C ends it.  Publishes nothing and stores nothing.",
        "gon-edge listen --for 1m --config /etc/gon-edge/gon-edge.yaml",
    )
    add_broker(sub, default=None, text="the broker (default: that of --config, else mqtt://localhost:1883)")
    add_config(sub, _CONFIG)
    sub.add_argument(
        "--topic",
        action="append",
        metavar="FILTER",
        help="what to listen to, with + and # as wildcards; may be given again (default: #, which is all)",
    )
    sub.add_argument(
        "--for",
        dest="for_s",
        type=duration,
        default=60.0,
        metavar="TIME",
        help="how long (default: 1m; Ctrl-C ends it)",
    )
    sub.add_argument("--json", action="store_true", help="print what was found as JSON, at the end")


def _listen(options: argparse.Namespace) -> int:
    from gon_edge.commands.listen import Listening, listen
    from gon_edge.commands.terminal import wants_redraw
    from gon_edge.links.publisher import Publisher
    from gon_edge.process.clock import Clock
    from gon_edge.process.logs import set_up_logging

    set_up_logging("warning")
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # ends it as Ctrl-C does
    config = _config(options)
    if config is not None and options.broker is None:
        mqtt = config.mqtt
    else:
        options.broker = options.broker or "mqtt://localhost:1883"
        mqtt = broker_of(options)
    found = Listening(config, offset_s=Clock().offset_s)
    with Publisher(mqtt) as publisher:
        if not options.json:
            note(f"listening to {publisher.url} for {options.for_s:g} s; Ctrl-C ends it")
        redraws = wants_redraw(sys.stdout) and not options.json
        listen(publisher, found, tuple(options.topic or ()), for_s=options.for_s, out=sys.stdout if redraws else None)
    if options.json:
        write_json(found.told())
    else:
        sys.stdout.write(found.text())
    return 0


COMMANDS = {"try": _add_try, "listen": _add_listen}
