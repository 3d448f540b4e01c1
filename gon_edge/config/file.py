"""YAML to a `Config`: `load_config(path)`; every mistake is one line with file, line, key and what to write.

A scalar stays the text it was in the file until its parser reads it, so that `listen: off` is not the boolean `False`,
`node: 007` not the number 7, and `${ENV}` may stand for a number.  The way back is here too: `effective`, a
configuration with every default in the shape of the file, and `options`, each by its dotted path.

This module opens the configuration and nothing else.  It does not know what an option means or how a value is written:
those are `schema` and `values`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import yaml

from gon_edge.config import values
from gon_edge.config.option import keys, paths
from gon_edge.config.schema import Config, StreamConfig, StreamsConfig
from gon_edge.config.subscription import SubscriptionConfig
from gon_edge.config.values import Place
from gon_edge.errors import ConfigError
from gon_edge.process.files import read_regular

FILE_LIMIT_BYTES = 1 << 20
"""A larger configuration is refused: it is a mistake, or an attack on the parser."""

DEPTH_LIMIT = 12
"""Nesting allowed in the file; the schema needs 5."""

VALUE_LIMIT = 4096
"""Characters of one value: what takes variables and durations apart takes time by the square of it."""

COUNT_LIMIT = 20000
"""Values and names in the file: a mebibyte of commas holds half a million, and took 8 s and 150 MiB."""

_UNQUOTED = re.compile(r"topic:\s+(\{(?:stream|feature)(?:\.\.\.)?\}(?:[^\s,{}]|\{[\w.]+\})*)")
"""A topic that YAML takes for a mapping."""

C = TypeVar("C")


# -- mapping to dataclasses --------------------------------------------------------------------------------------------


def _unknown(key: object, known: Mapping[str, Any], at: Place) -> NoReturn:
    hint = values.nearest(str(key), known)
    if not hint:  # the right name in the wrong place
        elsewhere = [path for path in paths(Config) if path.rpartition(".")[2] == key]
        hint = f"; did you mean {elsewhere[0]}?" if elsewhere else f"; known here: {', '.join(known)}"
    at.below(str(key)).fail(f"unknown option{hint}")


def _mapping(value: Any, at: Place) -> Mapping[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        at.fail(f"write options below it, one a line and indented, not {values.shown(value)}")
    return value


def _build(cls: type[C], value: Any, at: Place) -> C:
    mapping = _mapping(value, at)
    known = keys(cls)
    for key in mapping:
        if key not in known:
            _unknown(key, known, at)
    arguments: dict[str, Any] = {}
    for key, option in known.items():
        if key in mapping or "section" in option.metadata:
            arguments[option.name] = _value(option, mapping.get(key), at.below(key))
        elif option.default is dataclasses.MISSING and option.default_factory is dataclasses.MISSING:
            at.below(key).fail(_REQUIRED[key])
    built = cls(**arguments)
    if check := getattr(built, "check", None):
        check(at)
    return built


def _value(option: dataclasses.Field[Any], value: Any, at: Place) -> Any:
    section = option.metadata.get("section")
    if section is StreamsConfig:
        return _streams(value, at)
    if section is not None:
        return _build(section, value, at)
    if "entries" in option.metadata:
        return _subscriptions(value, at)
    if "patterns" in option.metadata:
        for name in _mapping(value, at):
            values.check_glob(str(name), at.below(str(name)))
        return {
            str(name): _build(option.metadata["patterns"], own, at.below(str(name)))
            for name, own in _mapping(value, at).items()
        }
    return option.metadata["parse"](value, at)


_REQUIRED = {
    "url": "is required: the broker, such as mqtt://localhost:1883",
    "topic": "is required: where readings arrive, such as telemetry/{stream}",
    "subscriptions": 'is required: at least one entry, such as "- topic: telemetry/{stream}"',
}


def _subscriptions(value: Any, at: Place) -> tuple[SubscriptionConfig, ...]:
    if not value or not isinstance(value, (list, tuple)):
        at.fail('write at least one entry, such as "- topic: telemetry/{stream}"')
    return tuple(_build(SubscriptionConfig, entry, at.below(i)) for i, entry in enumerate(value))


def _merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in over.items():
        below = merged.get(key)
        merged[key] = _merge(below, value) if isinstance(below, Mapping) and isinstance(value, Mapping) else value
    return merged


def _streams(value: Any, at: Place) -> StreamsConfig:
    mapping = _mapping(value, at)
    for key in mapping:
        if key not in ("defaults", "overrides"):
            at.below(str(key)).fail(f"unknown option; the options of one stream go below streams.overrides.{key}")
    defaults = _mapping(mapping.get("defaults"), at.below("defaults"))
    overrides_at = at.below("overrides")
    return StreamsConfig(
        defaults=_build(StreamConfig, defaults, at.below("defaults")),
        overrides={
            name: _build(
                StreamConfig, _merge(defaults, _mapping(own, overrides_at.below(name))), overrides_at.below(name)
            )
            for name, own in _mapping(mapping.get("overrides"), overrides_at).items()
        },
    )


def _parse(mapping: Any, at: Place) -> Config:
    if mapping is None or mapping == {}:
        at.fail("is empty; required are mqtt.url and at least one entry of subscriptions")
    if not isinstance(mapping, Mapping):
        at.fail("write options as KEY: VALUE, one a line")
    return dataclasses.replace(_build(Config, _expand(mapping, at), at), path=at.path)


def _expand(value: Any, at: Place) -> Any:
    """Replace `${NAME}` and `${NAME:-default}` in every string; `$${` stays as `${`."""
    if isinstance(value, Mapping):
        return {key: _expand(inner, at.below(str(key))) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_expand(inner, at.below(i)) for i, inner in enumerate(value)]
    if not isinstance(value, str) or "${" not in value:
        return value

    def replace(match: re.Match[str]) -> str:
        if match[0].startswith("$$"):
            return match[0][1:]
        name, default = match[1], match[2]
        found = at.environ.get(name)
        if found:
            return found
        if default is None:
            at.fail(f"environment variable {name} is not set; set it, or write ${{{name}:-default}}")
        return default

    return re.sub(r"\$?\$\{([A-Za-z_][A-Za-z0-9_]*)(?::-([^}]*))?\}", replace, value)


def parse_config(
    mapping: Mapping[str, Any], path: Path | None = None, *, environ: Mapping[str, str] | None = None
) -> Config:
    """Turn a mapping in the shape of the YAML file into a `Config`.

    Parameters
    ----------
    mapping : mapping
        Keys as in the file; values as text or as Python values.
    path : Path, optional
        File to name in errors.
    environ : mapping, optional
        For `${NAME}` and `$CREDENTIALS_DIRECTORY`; the process's environment by default.

    Raises
    ------
    ConfigError
        At the first mistake, with its key and what to write instead.
    """
    return _parse(mapping, Place(path=path, environ=environ))


# -- the file ----------------------------------------------------------------------------------------------------------


class _Composer(yaml.SafeLoader):
    """Composes a node tree and constructs nothing; refuses aliases (ten lines expand to gigabytes) and depth."""

    depth = 0
    count = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        problem = ""
        if self.check_event(yaml.AliasEvent):
            problem = "write the value out: aliases (*name) are refused"
        elif self.depth >= DEPTH_LIMIT:
            problem = "is nested too deeply"
        elif self.count >= COUNT_LIMIT:
            problem = f"holds more than {COUNT_LIMIT} values"
        if problem:
            mark = yaml.Mark("", self.index, self.line, self.column, None, 0)
            raise yaml.MarkedYAMLError(problem=problem, problem_mark=mark)
        self.depth += 1
        self.count += 1
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node


def _plain(node: yaml.Node, at: Place, lines: dict[str, int]) -> Any:
    """Node tree to dict, list, text and None; fills in `lines` by dotted path."""
    lines[at.key] = node.start_mark.line + 1
    if not node.tag.startswith("tag:yaml.org,2002:") or "python" in node.tag:
        at.fail(f"remove the tag {values.shown(node.tag)}: values are plain text")
    if isinstance(node, yaml.ScalarNode):
        if len(node.value) > VALUE_LIMIT:
            at.fail(f"write at most {VALUE_LIMIT} characters")
        return None if node.tag == "tag:yaml.org,2002:null" else node.value
    if isinstance(node, yaml.SequenceNode):
        return [_plain(item, at.below(i), lines) for i, item in enumerate(node.value)]
    plain: dict[str, Any] = {}
    for key_node, value_node in node.value:
        if not isinstance(key_node, yaml.ScalarNode):
            at.fail("write a name before the colon")
        here = at.below(key_node.value)
        first = lines.get(here.key)
        lines[here.key] = key_node.start_mark.line + 1
        if key_node.value in plain:
            here.fail(f"written twice (first in line {first}); remove one")
        plain[key_node.value] = _plain(value_node, here, lines)
        lines[here.key] = key_node.start_mark.line + 1
    return plain


def load_config(path: str | Path, *, environ: Mapping[str, str] | None = None) -> Config:
    """Read a configuration file.

    Parameters
    ----------
    path : str or Path
        YAML, UTF-8, 1 MiB at most.
    environ : mapping, optional
        For `${NAME}` and `$CREDENTIALS_DIRECTORY`; the process's environment by default.

    Raises
    ------
    ConfigError
        If the file cannot be read, is not YAML, or holds a mistake; with file, line, key and what to write instead.
    """
    return _parse(*_read(Path(path), environ))


@contextlib.contextmanager
def located(path: Path | None) -> Iterator[None]:
    """Add file and line to a `ConfigError` that names only its option, as whoever opens what that names does."""
    try:
        yield
    except ConfigError as error:
        if path is None or not error.key or error.path is not None:
            raise
        line = _read(path, None)[1].lines.get(error.key)
        raise ConfigError(error.message, path=path, key=error.key, line=line) from error


def _read(path: Path, environ: Mapping[str, str] | None) -> tuple[Any, Place]:
    """What is written in the file, and the place of all of it, which knows the line of each key."""
    try:
        content = read_regular(path, FILE_LIMIT_BYTES)
    except OSError as error:
        if error.errno == errno.EFBIG:
            raise ConfigError("is larger than 1 MiB; a configuration is a few kilobytes", path=path) from None
        raise ConfigError(f"cannot be read: {error.strerror}", path=path) from None
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise ConfigError("is not UTF-8 text", path=path) from None

    lines: dict[str, int] = {}
    at = Place(path=path, lines=lines, environ=environ)
    try:
        loader = _Composer(text)
        try:
            node = loader.get_single_node()
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = mark.line + 1 if mark else None
        problem = error.problem or error.context
        if mark is not None and (topic := _UNQUOTED.search("\n".join(text.split("\n")[max(0, mark.line - 1) :][:2]))):
            problem = f'put topics that begin with a brace in quotes: "{topic[1]}"'
        raise ConfigError(f"is not YAML: {problem}", path=path, line=line) from None
    except yaml.YAMLError as error:
        raise ConfigError(f"is not YAML: {' '.join(str(error).split())}", path=path) from None
    return None if node is None else _plain(node, at, lines), at


# -- the way back ------------------------------------------------------------------------------------------------------


def options(config: Config) -> Iterator[tuple[str, Any]]:
    """Every option of the file as `(dotted path, value)`, e.g. `("store.flush_every", 1800.0)`.

    The options of a subscription stand once, as `subscriptions[].topic`, with the values of the first one; those of a
    stream as `streams.defaults.interval`; single streams are the one entry `streams.overrides`.
    """
    yield from _walk(config, "")


def _walk(section: Any, prefix: str) -> Iterator[tuple[str, Any]]:
    for key, option in keys(type(section)).items():
        value = getattr(section, option.name)
        if key == "subscriptions":
            yield from _walk(value[0], "subscriptions[].")
        elif "section" in option.metadata:
            yield from _walk(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


def effective(config: Config) -> dict[str, Any]:
    """The configuration that counts, with every default, in the shape and the words of the file.

    Read again it gives the same configuration.  Passwords and tokens are in files and never in it; a user name without
    a password is a token of the broker (so it is with ThingsBoard) and is left out.

    Examples
    --------
    >>> config = parse_config({"mqtt": {"url": "mqtt://localhost"}, "subscriptions": [{"topic": "telemetry/{stream}"}]})
    >>> effective(config)["store"]["flush_every"], effective(config)["retrain"]["memory_budget"]
    ('30m', '64MiB')
    """
    mqtt = config.mqtt
    if mqtt.username is not None and mqtt.password_file is None and mqtt.password_env is None:
        config = dataclasses.replace(config, mqtt=dataclasses.replace(mqtt, username="(hidden)"))
    mapping: dict[str, Any] = _as_written("", config)
    return mapping


def _as_written(name: str, value: Any) -> Any:
    if dataclasses.is_dataclass(value):
        known = keys(type(value))
        return {key: _as_written(option.name, getattr(value, option.name)) for key, option in known.items()}
    if isinstance(value, Mapping):
        return {key: _as_written("", item) for key, item in value.items()}
    if name == "quiet_hours" and value is not None:
        return values.written_hours(value)
    if isinstance(value, tuple):
        return [_as_written("", item) for item in value]
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, str):
        return value.replace("${", "$${")
    if value is None or isinstance(value, bool):
        return value
    if name in ("budget", "total_budget"):
        return values.written_budget(value)
    if name.endswith("_s"):
        return values.written_duration(value)
    if name.endswith("_bytes"):
        return values.written_size(value)
    return value
