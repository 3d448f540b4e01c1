"""The `fleet` commands: their options, and nothing that takes time to load."""

from __future__ import annotations

import argparse

from gon_edge.commands.arguments import CONFIG_HELP, AddCommand, add_config, commands_of, config_file

_LEVELS = ("debug", "info", "warning", "error")


def _add_fleet(add: AddCommand) -> None:
    group = add(
        "fleet",
        None,
        "share the streams of many devices among workers, on NATS JetStream",
        "When one machine is outgrown: workers on as many machines as wanted share the streams of one NATS JetStream.  "
        "Needs pip install 'gon-edge[fleet]'.",
        "gon-edge fleet worker --config fleet.yaml",
    )
    add_action = commands_of(group, text="gon-edge fleet COMMAND --help explains one")
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


def _worker(options: argparse.Namespace) -> int:
    import dataclasses

    from gon_edge.config.file import load_config, located
    from gon_edge.errors import MissingLibrary
    from gon_edge.process.logs import set_up_logging
    from gon_edge.process.memory import deferred, keep_what_is_loaded, tame_malloc

    config = load_config(config_file(options))
    if options.name:
        config = dataclasses.replace(config, fleet=dataclasses.replace(config.fleet, name=options.name))
    set_up_logging(options.log_level or config.log.level, config.log.format)
    tame_malloc()
    try:
        import nats  # noqa: F401  said before the rest is loaded
    except ImportError as error:
        raise MissingLibrary("nats-py", "a fleet", error, "pip install 'gon-edge[fleet]'") from None
    with deferred():
        from gon_edge.fleet.worker import run_worker
    keep_what_is_loaded()
    with located(config.path):
        run_worker(config)
    return 0


COMMANDS = {"fleet": _add_fleet}
