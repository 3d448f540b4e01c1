"""How an option is declared: a field of a frozen dataclass with the parser of its value.

A key in the file is the name of its field without the unit: `flush_every_s` is `flush_every: 30m`.  This module knows
no option: those are in `schema` and `subscription`.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator
from dataclasses import field
from typing import Any

from gon_edge.config.values import Parser


def option(parse: Parser, default: Any = dataclasses.MISSING, *, key: str | None = None) -> Any:
    """A field, its parser, and its key where that is not the name without its unit."""
    return field(default=default, metadata={"parse": parse, "key": key})


def section(cls: type, *, required: bool = False) -> Any:
    """A field whose value is a mapping with options of its own; built even where the file leaves it out."""
    return field(default_factory=dataclasses.MISSING if required else cls, metadata={"section": cls})


def entries(cls: type) -> Any:
    """A field whose value is a list of such mappings; required."""
    return field(metadata={"entries": cls})


def patterns(cls: type) -> Any:
    """A field whose value maps patterns of names to such mappings."""
    return field(default_factory=dict, metadata={"patterns": cls})


def keys(cls: type) -> dict[str, dataclasses.Field[Any]]:
    """Return the options of a section by their key in the file."""
    return {_key(f): f for f in dataclasses.fields(cls) if f.name != "path"}


def _key(option: dataclasses.Field[Any]) -> str:
    """The YAML key of a field: its name without the unit."""
    return option.metadata.get("key") or re.sub(r"_(s|bytes)$", "", option.name)


def paths(cls: type, prefix: str = "") -> Iterator[str]:
    """Dotted paths of every option below a section, for hints."""
    for key, option in keys(cls).items():
        below = option.metadata.get("section")
        yield prefix + key
        if below is not None:
            yield from paths(below, f"{prefix}{key}.")
