"""The `fleet` commands: their options, and nothing that takes time to load."""

from __future__ import annotations

import argparse
import sys

from gon_edge.commands.arguments import (
    CONFIG_HELP,
    AddCommand,
    add_broker,
    add_config,
    broker_of,
    commands_of,
    config_file,
    config_of,
    count,
    duration,
    write_json,
    wrong_usage,
)

_PATIENCE_S = 8.0  # not critical: of one who looks, for a server that lives
_LEVELS = ("debug", "info", "warning", "error")


def _add_fleet(add: AddCommand) -> None:
    group = add(
        "fleet",
        None,
        "share the streams of many devices among workers, on NATS JetStream",
        "When one machine is outgrown: workers on as many machines as wanted share the streams of one NATS JetStream.  "
        "Needs pip install 'gon-edge[fleet]'.",
        "gon-edge fleet up",
    )
    add_action = commands_of(group, text="gon-edge fleet COMMAND --help explains one")
    _add_up(add_action)
    sub = add_action(
        "worker",
        _worker,
        "run a worker",
        "Run a worker until SIGTERM or Ctrl-C: messages in from NATS JetStream, alerts out to it and from there to the "
        "broker of mqtt.url, metrics by HTTP.  Which devices are its own the server decides; they go to another worker "
        "when this one ends, or is silent for fleet.takeover.",
        "gon-edge fleet worker --config fleet.yaml",
    )
    add_config(sub, CONFIG_HELP.replace("the daemon's", "the"))
    sub.add_argument("--name", help="of this worker (default: fleet.name of the configuration)")
    sub.add_argument("--log-level", choices=_LEVELS, help="in place of log.level of the configuration (default: that)")
    _add_status(add_action)
    _add_view(add_action)


def _add_up(add_action: AddCommand) -> None:
    sub = add_action(
        "up",
        _up,
        "show a fleet on this machine, and account for every row",
        "Start a NATS server, mosquitto with a bridge to it, workers and simulated devices on loopback, and show what "
        "they do: rows a second, what waits, alerts, which worker owns what.  After a while one device in a hundred "
        "wears out.  k kills the worker with most partitions, and another one takes them over; f wears devices out "
        "now; q ends it.  At the end every row is accounted for: what the devices sent, what JetStream holds, what has "
        "a verdict.  Ctrl-C ends everything that was started.  The exit status is 0 when every row has one verdict.",
        "gon-edge fleet up --devices 500 --workers 3 --duration 60 --kill-worker",
    )
    sub.add_argument("--devices", type=count, default=200, metavar="N", help="devices, a row a second (default: 200)")
    sub.add_argument("--workers", type=count, default=2, metavar="N", help="workers (default: 2)")
    sub.add_argument(
        "--duration",
        type=duration,
        metavar="TIME",
        help="end after this time, as 60 (seconds) or 5m (default: never)",
    )
    sub.add_argument("--kill-worker", action="store_true", help="kill a worker half way, by SIGKILL")
    sub.add_argument("--direct", action="store_true", help="devices speak MQTT to NATS itself, without mosquitto")
    sub.add_argument("--json", action="store_true", help="show nothing, and print the account as JSON at the end")


def _up(options: argparse.Namespace) -> int:
    _require_nats()
    if options.json and options.duration is None:
        raise wrong_usage("--json needs --duration: there is nothing to see meanwhile, and no end")
    if options.kill_worker and options.workers < 2:
        raise wrong_usage("--kill-worker needs two workers or more: nobody could take over")
    from gon_edge.fleet.up import UpSettings, run_up

    settings = UpSettings(
        devices=options.devices,
        workers=options.workers,
        duration_s=options.duration,
        kill_worker=options.kill_worker,
        direct=options.direct,
        as_json=options.json,
    )
    return run_up(settings, sys.stdin, sys.stdout)


def _add_status(add_action: AddCommand) -> None:
    sub = add_action(
        "status",
        _status,
        "show what a fleet is doing",
        "Ask NATS JetStream who works, who owns which partition, what waits for a verdict, how full the streams are, "
        "and which alerts are open.  The exit status is 1 while messages wait that nobody takes.",
        "gon-edge fleet status --config fleet.yaml",
    )
    sub.add_argument("--json", action="store_true", help="print everything as one JSON object")
    add_config(sub, CONFIG_HELP.replace("the daemon's", "the workers'"))


def _status(options: argparse.Namespace) -> int:
    _require_nats()
    import asyncio
    import logging

    from gon_edge.config.file import located
    from gon_edge.errors import UnreachableError
    from gon_edge.fleet.connection import connect
    from gon_edge.fleet.jetstream import Fleet
    from gon_edge.fleet.look import Eye, Look, look_json, look_text

    config = config_of(options)
    logging.getLogger("asyncio").setLevel(logging.ERROR)  # it warns of the end of any connection with TLS
    logging.getLogger("gon_edge.fleet").setLevel(logging.ERROR)  # said once, at the end

    async def once() -> Look:
        try:  # a worker waits for ever
            client = await asyncio.wait_for(connect(config.fleet, "status"), _PATIENCE_S)
        except TimeoutError:
            raise UnreachableError(f"no NATS at {', '.join(config.fleet.servers)}; see fleet.servers") from None
        try:
            return await Eye(Fleet(client, config)).look()
        finally:
            await client.close()

    with located(config.path):
        look = asyncio.run(once())
    if options.json:
        write_json(look_json(look))
    else:
        sys.stdout.write(look_text(look))
    return 1 if look.orphans else 0


def _add_view(add_action: AddCommand) -> None:
    sub = add_action(
        "view",
        _view,
        "show how many daemons are, from what they keep with a broker",
        "Read what daemons keep with an MQTT broker, each its status and the states of its streams: which are in "
        "alarm, which offline, which have a silent stream, which are well.  Nothing is scored again.  Brokers of "
        "several sites can be bridged into one for it.  The exit status is 1 when a daemon is in alarm, offline or "
        "silent.",
        "gon-edge fleet view --broker mqtt://central",
    )
    add_broker(sub, default="mqtt://localhost", text="the broker (default: %(default)s)")
    sub.add_argument(
        "--base-topic",
        default="gon-edge",
        metavar="TOPIC",
        help="mqtt.base_topic of the daemons (default: %(default)s)",
    )
    sub.add_argument(
        "--listen",
        type=duration,
        metavar="TIME",
        help="listen for so long, to hear the causes of alerts too (default: until what is kept has come)",
    )
    sub.add_argument("--all", action="store_true", help="show daemons that are well too")
    sub.add_argument("--json", action="store_true", help="print everything as one JSON object")


def _view(options: argparse.Namespace) -> int:
    import time

    from gon_edge.fleet.view import View, gather, view_json, view_text

    broker = broker_of(options)
    view = View(options.base_topic)
    gather(broker, view, options.listen)
    if options.json:
        write_json(view_json(view, options.broker))
    else:
        sys.stdout.write(view_text(view, time.time(), whole=options.all))
    return 0 if view.counts()["ok"] == len(view.daemons) else 1


def _require_nats() -> None:
    from gon_edge.errors import MissingLibrary

    try:
        import nats  # noqa: F401  said before the rest is loaded
    except ImportError as error:
        raise MissingLibrary("nats-py", "a fleet", error, "pip install 'gon-edge[fleet]'") from None


def _worker(options: argparse.Namespace) -> int:
    import dataclasses

    from gon_edge.config.file import load_config, located
    from gon_edge.process.logs import set_up_logging
    from gon_edge.process.memory import deferred, keep_what_is_loaded, tame_malloc

    config = load_config(config_file(options))
    if options.name:
        from gon_edge.config.fleet import worker
        from gon_edge.config.values import Place

        worker(options.name, Place("--name"))
        config = dataclasses.replace(config, fleet=dataclasses.replace(config.fleet, name=options.name))
    set_up_logging(options.log_level or config.log.level, config.log.format)
    tame_malloc()
    _require_nats()
    with deferred():
        from gon_edge.fleet.worker import run_worker
    keep_what_is_loaded()
    with located(config.path):
        run_worker(config)
    return 0


COMMANDS = {"fleet": _add_fleet}
