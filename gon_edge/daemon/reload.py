"""What a configuration that is read again changes while the daemon runs, and what waits for the next start.

Pure.  A new option that cannot change while running gets its line in `RESTART`; the reference says so of each option.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

from gon_edge.config.file import options
from gon_edge.config.schema import Config
from gon_edge.stream.stream import Stream

RESTART = (
    "version",
    "node",
    "state_dir",
    "mqtt.",
    "http.",
    "store.",
    "limits.payload",
    "limits.features",
    "homeassistant.",
    "log.format",
)
"""Options, or how their names begin, that count from the next start on."""

GRID = ("interval_s", "lateness_s", "max_gap_s")
"""Options of a stream that count from the next start on: its grid is laid."""


def merged(old: Config, new: Config) -> Config:
    """The configuration in use from now on: the old one, with what may change taken from the new one."""
    return dataclasses.replace(
        old,
        limits=dataclasses.replace(old.limits, streams=new.limits.streams),
        retrain=new.retrain,
        alerts=new.alerts,
        streams=new.streams,
        log=dataclasses.replace(old.log, level=new.log.level),
    )


def waiting(old: Config, new: Config, streams: Iterable[Stream]) -> list[str]:
    """Names of the options that differ and count from the next start on; call it before streams get their settings."""
    before = dict(options(old))
    found = [key for key, value in options(new) if key.startswith(RESTART) and before.get(key) != value]
    if new.subscriptions != old.subscriptions:
        found.append("subscriptions")
    for stream in streams:
        settings, grid = new.stream(stream.name), stream.settings
        found += [f"{key} of stream {stream.name!r}" for key in GRID if getattr(settings, key) != getattr(grid, key)]
    return found
