"""The service and the running daemon."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from gon_edge.commands.doctor.finding import MIB, Finding
from gon_edge.commands.text import duration_text
from gon_edge.config.schema import Config
from gon_edge.errors import ConfigError, UnreachableError
from gon_edge.links.client import daemon_api
from gon_edge.stream.ledger import HELP, IN_WORDS

UNIT = "gon-edge.service"

_TROUBLE = ("crowded", "limit", "ahead", "still", "no_interval", "no_time", "future", "name", "repeated", "ambiguous")
"""Reasons for which a value is lost that somebody can do something about; labels and what is excluded are usual."""

_NAMED = 3  # keys in a line; not critical

_SYSTEMCTL_S = 10.0  # not critical: it answers in milliseconds


def unit_properties() -> dict[str, str]:
    """Properties of the unit; empty where there is no systemd, or no such unit."""
    if not Path("/run/systemd/system").is_dir() or shutil.which("systemctl") is None:
        return {}
    names = "LoadState,ActiveState,UnitFileState,Result,NRestarts,NeedDaemonReload,MainPID,User,MemoryMax,ControlGroup"
    with contextlib.suppress(OSError, subprocess.TimeoutExpired):
        shown = subprocess.run(
            ["systemctl", "show", UNIT, "--property", names], capture_output=True, text=True, timeout=_SYSTEMCTL_S
        ).stdout
        unit = dict(line.split("=", 1) for line in shown.splitlines() if "=" in line)
        if unit.get("LoadState") == "loaded":
            return unit
    return {}


def check_service(unit: Mapping[str, str]) -> Iterator[Finding]:
    """Whether the service runs, and starts with the machine."""
    if not unit:
        yield Finding("service", "ok", f"no {UNIT} here: whoever starts gon-edge watches over it")
        return
    state, restarts = unit.get("ActiveState", ""), int(unit.get("NRestarts") or 0)
    log = "journalctl -u gon-edge -n 50 says why"
    if state == "failed":
        yield Finding("service", "fault", f"{UNIT} has failed: {unit.get('Result')}", log)
    elif state != "active":
        yield Finding("service", "fault", f"{UNIT} is {state}", "systemctl start gon-edge")
    elif restarts:
        yield Finding("service", "warning", f"{UNIT} was restarted {restarts} times since it was started", log)
    else:
        yield Finding("service", "ok", f"{UNIT} is active, pid {unit.get('MainPID')}")
    if unit.get("UnitFileState") not in ("enabled", "enabled-runtime"):
        yield Finding("service", "warning", f"{UNIT} does not start with the machine", "systemctl enable gon-edge")
    if unit.get("NeedDaemonReload") == "yes":
        yield Finding("service", "warning", f"{UNIT} was changed on disk", "systemctl daemon-reload")


def daemon_status(config: Config) -> dict[str, Any]:
    """What a running daemon says; empty when none answers."""
    with contextlib.suppress(UnreachableError, ConfigError):  # what cannot be read is found among the secrets
        return daemon_api(config).status()
    return {}


def check_daemon(config: Config, daemon: Mapping[str, Any], unit: Mapping[str, str]) -> Iterator[Finding]:
    """Whether a daemon answers, hears its streams, and shows readings to nobody else."""
    if not config.http.enabled:
        yield Finding("daemon", "ok", "http.listen is off: nobody can ask it")
        return
    if not daemon:
        active = unit.get("ActiveState") == "active"
        text = f"does not answer at {config.http.listen}"
        advice = (
            "see the log, or try again in a minute" if active else "gon-edge run --config FILE, or start its service"
        )
        yield Finding("daemon", "fault" if active else "warning", text, advice)
        return
    if daemon["node"] != config.node:
        text = f"the one at {config.http.listen} is node {daemon['node']}, not {config.node}"
        yield Finding("daemon", "warning", text, "restart it to apply the configuration, or name its configuration")
    streams = daemon["streams"]
    stale = [stream["stream"] for stream in streams if stream["state"] == "stale"]
    up = f"up {duration_text(daemon['uptime_s'])}, {daemon['rss_bytes'] / MIB:.0f} MiB"
    if not streams:
        advice = "gon-edge listen shows what the broker has, and which subscription would read it"
        yield Finding("daemon", "warning", f"{up}; no message has arrived yet", advice)
    elif stale:
        advice = "look at these devices, or at max_gap if they send more rarely"
        yield Finding("daemon", "warning", f"{up}; silent: {', '.join(stale)}", advice)
    else:
        yield Finding("daemon", "ok", f"{up}, streams: {len(streams)}")
    yield from _check_readings(streams)
    for trouble in daemon.get("mqtt", {}).get("troubles", ()):
        yield Finding("daemon", "warning", f"its broker: {trouble}", "docs/operating.md, When something breaks")
    for trouble in daemon.get("troubles", ()):
        yield Finding("daemon", "warning", trouble, "docs/operating.md, When something breaks")
    if not config.http.loopback and not config.http.guarded:
        advice = "http.listen: 127.0.0.1:9109, or http.token_file and http.cert_file"
        yield Finding("daemon", "warning", f"{config.http.listen} shows your readings to the network", advice)
    elif not config.http.loopback and not config.http.tls:
        advice = "write http.cert_file and http.key_file"
        yield Finding("daemon", "warning", f"{config.http.listen} sends the password in clear text", advice)


def _check_readings(streams: Iterable[Mapping[str, Any]]) -> Iterator[Finding]:
    """Streams that have no rows, and values that are lost though somebody means them."""
    for stream in streams:
        name = stream["stream"]
        if stream.get("interval_s", 0.0) is None and (waits := stream.get("waits")):
            yield Finding(
                "readings", "warning", f"stream {name} makes no row: {waits}", "gon-edge listen shows it live"
            )
        lost = [entry for entry in stream.get("dropped", ()) if entry["reason"] in _TROUBLE]
        for reason in dict.fromkeys(entry["reason"] for entry in lost):
            keys = [entry["key"] for entry in lost if entry["reason"] == reason]
            more = f" and {len(keys) - _NAMED} more" if len(keys) > _NAMED else ""
            text = f"stream {name}: {', '.join(keys[:_NAMED])}{more}: {IN_WORDS.get(reason, reason)}"
            yield Finding("readings", "warning", text, HELP.get(reason, "gon-edge status --json has all of them"))
