"""Configurations for tests: the smallest, one with one more option, and what is said of a wrong one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gon_edge.config.file import options
from gon_edge.config.schema import Config
from gon_edge.errors import ConfigError

SMALLEST: dict[str, Any] = {"mqtt": {"url": "mqtt://localhost"}, "subscriptions": [{"topic": "telemetry/{stream}"}]}


def with_option(path: str, value: object) -> dict[str, Any]:
    """The smallest configuration with one more option, given by its dotted path."""
    mapping = {"mqtt": dict(SMALLEST["mqtt"]), "subscriptions": [dict(SMALLEST["subscriptions"][0])]}
    here = mapping
    *sections, last = path.split(".")
    for section in sections:
        here = here[0] if isinstance(here := here.setdefault(section, {}), list) else here
    here[last] = value
    return mapping


def value_of(config: Config, path: str) -> object:
    """One option, by its dotted path."""
    return dict(options(config))[path.replace("subscriptions.", "subscriptions[].")]


def written(tmp_path: Path, text: str) -> Path:
    """A configuration file with this text."""
    path = tmp_path / "gon-edge.yaml"
    path.write_text(text)
    return path


def error_of(call: Callable[..., object], *arguments: Any, **keywords: Any) -> str:
    """The one line a call fails with."""
    with pytest.raises(ConfigError) as caught:
        call(*arguments, **keywords)
    assert "\n" not in str(caught.value)
    return str(caught.value)
