"""The `demo` command: its options, and nothing that takes time to load; what it does is in `run`."""

from __future__ import annotations

import argparse
import sys

from gon_edge.commands.arguments import AddCommand, add_broker, broker_of, duration


def _add_demo(add: AddCommand) -> None:
    sub = add(
        "demo",
        _demo,
        "show everything on this machine, with a real fault",
        "Start an MQTT broker on loopback (mosquitto, else amqtt), the daemon and a publisher of this machine's own "
        "telemetry; collect one minute of readings; train a model; score; then make a real fault (every core busy for "
        "30 s, and a quarter of the free memory held, 4 GiB at most) and show the alert.  Ctrl-C ends everything "
        "that was started. The exit status is 0 when the alert was seen, 1 when the fault raised none.",
        "gon-edge demo --fast --duration 120",
    )
    sub.add_argument("--fast", action="store_true", help="half the warm-up (30 s), half the fault (15 s)")
    sub.add_argument("--no-fault", action="store_true", help="make no fault, only watch")
    sub.add_argument(
        "--duration",
        type=duration,
        metavar="TIME",
        help="end after this time, as 120 (seconds) or 5m (default: never)",
    )
    add_broker(sub, default=None, text="use this broker (default: start one, on loopback)")


def _demo(options: argparse.Namespace) -> int:
    from gon_edge.demo.run import run_demo
    from gon_edge.demo.story import DemoSettings

    settings = DemoSettings(
        fast=options.fast,
        fault=not options.no_fault,
        duration_s=options.duration,
        broker=broker_of(options) if options.broker else None,
    )
    return run_demo(settings, sys.stdout)


COMMANDS = {"demo": _add_demo}
