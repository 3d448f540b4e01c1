"""Commands about the daemon itself: run it, check and show its configuration, examine its installation.

This module alone is loaded beside the daemon by ``gon-edge run``, so no other command has its place here.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys

from gon_edge.commands.arguments import (
    CONFIG_HELP,
    AddCommand,
    add_config,
    commands_of,
    config_file,
    config_of,
    write_json,
)
from gon_edge.errors import ConfigError

_LEVELS = ("debug", "info", "warning", "error")


def _add_run(add: AddCommand) -> None:
    sub = add(
        "run",
        _run,
        "run the daemon",
        "Run the daemon until SIGTERM or Ctrl-C: readings in by MQTT, alerts out by MQTT, metrics and a status page by "
        "HTTP.  A broker that is down is waited for; a wrong configuration is an error (78).",
        "gon-edge run --config /etc/gon-edge/gon-edge.yaml",
    )
    add_config(sub, CONFIG_HELP.replace("the daemon's", "the"))
    sub.add_argument("--log-level", choices=_LEVELS, help="in place of log.level of the configuration (default: that)")


def _run(options: argparse.Namespace) -> int:
    from gon_edge.config.file import load_config, located
    from gon_edge.process.logs import set_up_logging
    from gon_edge.process.memory import deferred, keep_what_is_loaded

    config = load_config(config_file(options))
    set_up_logging(options.log_level or config.log.level, config.log.format)
    with deferred():
        from gon_edge.daemon.app import Daemon

    keep_what_is_loaded()
    with located(config.path):
        daemon = Daemon(config)
    daemon.run()
    return 0


def _add_check_config(add: AddCommand) -> None:
    sub = add(
        "check-config",
        _check_config,
        "check a configuration file",
        "Read a configuration and the secrets and certificates it names, and say whether it is valid; a mistake is "
        "named with file, line, key and what to write.  A valid one may be given remarks: what it will do that you may "
        "not expect, and which files only the daemon can see.  Exit status 0 or 78.  Opens no connection.",
        "gon-edge check-config configs/gon-edge.yaml",
    )
    sub.add_argument("file", metavar="FILE", help="the configuration, YAML")
    sub.add_argument("--json", action="store_true", help="print every option with its value, or the mistake, as JSON")


def _check_config(options: argparse.Namespace) -> int:
    from gon_edge.commands.expected import remarks
    from gon_edge.commands.referenced import check_referenced
    from gon_edge.commands.text import visible
    from gon_edge.config.file import load_config, located
    from gon_edge.config.file import options as config_options
    from gon_edge.stream.payload import decoders

    try:
        config = load_config(options.file)
        if any(s.model not in (None, "none") for s in (config.streams.defaults, *config.streams.overrides.values())):
            from gon_edge.state.catalog import check_starters

            check_starters(config)
        decoders(config)
        with located(config.path):
            said = check_referenced(config)
    except ConfigError as error:
        if options.json:
            write_json({"valid": False, "error": str(error), "key": error.key, "line": error.line})
        raise
    if options.json:
        write_json({"valid": True, "remarks": [*remarks(config), *said], "options": dict(config_options(config))})
        return 0
    topics = ", ".join(subscription.topic for subscription in config.subscriptions)
    valid = f"{options.file}: valid; node {config.node}, broker {config.mqtt.url}, topics {topics}"
    sys.stdout.write(f"{visible(valid)}\n")
    sys.stdout.writelines(f"  {visible(remark)}\n" for remark in (*remarks(config), *said))
    return 0


def _add_config(add: AddCommand) -> None:
    group = add(
        "config",
        None,
        "show the configuration that counts",
        "Look at a configuration as the daemon understands it.",
        "gon-edge config show --config configs/minimal.yaml",
    )
    sub = commands_of(group, text="gon-edge config COMMAND --help explains one")(
        "show",
        _config_show,
        "print it with every default",
        "Print a configuration as the daemon understands it: variables filled in, every default written out, the "
        "options of single streams complete.  What is printed is itself a configuration.  Passwords and tokens are not "
        "in it: only the files and variables that hold them are named.",
        "gon-edge config show --json --config /etc/gon-edge/gon-edge.yaml",
    )
    add_config(sub)
    sub.add_argument("--json", action="store_true", help="print it as JSON")


def _config_show(options: argparse.Namespace) -> int:
    from gon_edge.config.file import effective

    config = config_of(options)
    mapping = effective(config)
    if options.json:
        write_json(mapping)
        return 0
    import yaml

    from gon_edge.commands.text import visible

    text = yaml.safe_dump(mapping, sort_keys=False, allow_unicode=True, width=120)
    if not text.replace("\n", "").isprintable():  # YAML admits what turns the direction of a terminal
        text = yaml.safe_dump(mapping, sort_keys=False, width=120)
    sys.stdout.write(f"# {visible(str(config.path))}, with every default\n{text}")
    return 0


def _add_doctor(add: AddCommand) -> None:
    sub = add(
        "doctor",
        _doctor,
        "find out what is wrong with an installation",
        "Check the configuration, the service, the running daemon, the broker (connect, subscribe, messages there and "
        "back, one of them the end of an alert that never was), secrets, certificates, the state directory, models, "
        "disk and wear, memory and the clock.  Each line says ok, warning or fault, and what to do.  Changes nothing "
        "without --fix.  As root it sees everything.  Exit status 0, or 1 with a fault.",
        "sudo gon-edge doctor",
    )
    add_config(sub)
    sub.add_argument(
        "--fix",
        action="store_true",
        help="as root: give the files of other users in state_dir to the one gon-edge runs as (default: only say so)",
    )
    sub.add_argument("--json", action="store_true", help="print the findings as JSON")


def _doctor(options: argparse.Namespace) -> int:
    from gon_edge.commands.doctor.examine import examine
    from gon_edge.commands.terminal import wants_colour
    from gon_edge.commands.text import visible

    coloured = wants_colour(sys.stdout)
    colours = {"ok": 32, "warning": 33, "fault": 31}  # ECMA-48; a broken installation is examined without rich
    findings = []
    for finding in examine(config_file(options), fix=options.fix):
        findings.append(finding)
        if not options.json:
            state = f"{finding.state:8}"
            state = f"\x1b[{colours[finding.state]}m{state}\x1b[0m" if coloured else state
            sys.stdout.write(f"{state} {finding.check:14} {visible(finding.text)}\n")
            if finding.advice:
                sys.stdout.write(f"{'':24}do: {visible(finding.advice)}\n")
            sys.stdout.flush()  # the broker may take its time
    counts = {state: sum(finding.state == state for finding in findings) for state in colours}
    if options.json:
        write_json({"healthy": not counts["fault"], **counts, "findings": [dataclasses.asdict(f) for f in findings]})
    else:
        sys.stdout.write(f"faults: {counts['fault']}, warnings: {counts['warning']}\n")
    return 1 if counts["fault"] else 0


COMMANDS = {"run": _add_run, "check-config": _add_check_config, "config": _add_config, "doctor": _add_doctor}
