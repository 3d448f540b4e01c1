"""YAML to frozen dataclasses: `load_config(path) -> Config`; every mistake is one line that says what to write.

The dataclasses below are the whole schema: a field carries its default and the parser of its value, and the key in the
file is the field's name without its unit (`flush_every_s` is `flush_every: 30m`).  Adding an option is adding a field,
and `configs/gon-edge.yaml` must then describe it: a test compares the two.

A scalar stays the text it was in the file until its parser reads it, so that `listen: off` is not the boolean `False`,
`node: 007` not the number 7, and `${ENV}` may stand for a number.  This module opens the configuration file and, when
asked for a password or token, the file with it; it knows no broker, no topic grammar beyond its placeholders, and no
clock.
"""

# ruff: noqa: RUF009  _option() and _section() only wrap dataclasses.field()

from __future__ import annotations

import dataclasses
import ipaddress
import math
import os
import re
import socket
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NoReturn, TypeVar
from urllib.parse import urlsplit

import yaml

from gon_edge.errors import ConfigError

FILE_LIMIT_BYTES = 1 << 20
"""A larger configuration is refused: it is a mistake, or an attack on the parser."""

DEPTH_LIMIT = 12
"""Nesting allowed in the file; the schema needs 5."""

VALUE_LIMIT = 4096
"""Characters of one value: what takes variables and durations apart takes time by the square of it."""

COUNT_LIMIT = 20000
"""Values and names in the file: a mebibyte of commas holds half a million, and took 8 s and 150 MiB."""

AUTO = "auto"
"""What a file writes for "choose it yourself": `None` in the dataclasses."""

_DEFAULT_PORTS = {"mqtt": 1883, "mqtts": 8883, "ws": 80, "wss": 443}
_DURATION_S = {"ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}
_SIZE_BYTES = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}
_PER_DAY = {"hour": 24.0, "day": 1.0, "week": 1 / 7, "month": 1 / 30}

C = TypeVar("C")


class _At:
    """Where in the configuration a value stands: enough to say so in an error."""

    def __init__(
        self,
        key: str = "",
        path: Path | None = None,
        lines: Mapping[str, int] | None = None,
        environ: Mapping[str, str] | None = None,
    ) -> None:
        self.key = key
        self.path = path
        self.lines = {} if lines is None else lines
        self.environ = os.environ if environ is None else environ

    def below(self, key: str | int) -> _At:
        inner = f"{self.key}[{key}]" if isinstance(key, int) else f"{self.key}.{key}" if self.key else key
        return _At(inner, self.path, self.lines, self.environ)

    def fail(self, message: str) -> NoReturn:
        raise ConfigError(message, path=self.path, key=self.key, line=self.lines.get(self.key))


Parser = Callable[[Any, _At], Any]


# -- values ------------------------------------------------------------------------------------------------------------


def _shown(value: object) -> str:
    """Foreign text, quoted and short, for an error."""
    text = "nothing" if value is None else repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _text(value: Any, at: _At) -> str:
    if isinstance(value, (Mapping, list, tuple)) or value is None or str(value) == "":
        at.fail(f"write one piece of text, not {_shown(value)}")
    if "\0" in str(value):
        at.fail("remove the NUL character")
    return str(value)


def _optional(parse: Parser) -> Parser:
    """`None` for an empty value and for `auto`."""

    def parse_optional(value: Any, at: _At) -> Any:
        return None if value in (None, "", AUTO) else parse(value, at)

    return parse_optional


def _number(value: Any, at: _At, what: str) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        at.fail(f"write {what}, not {_shown(value)}")
    try:
        number = float(value)
    except (ValueError, OverflowError):
        at.fail(f"write {what}, not {_shown(value)}")
    if not math.isfinite(number):
        at.fail(f"write {what}, not {_shown(value)}")
    return number


def _between(low: float, high: float | None) -> str:
    return f"of at least {low:g}" if high is None else f"from {low:g} to {high:g}"


def _integer(low: int, high: int | None = None) -> Parser:
    what = f"a whole number {_between(low, high)}"

    def parse_integer(value: Any, at: _At) -> int:
        number = _number(value, at, what)
        if number != int(number) or number < low or (high is not None and number > high):
            at.fail(f"write {what}, not {_shown(value)}")
        return int(number)

    return parse_integer


def _real(low: float, high: float | None = None, *, above: bool = False) -> Parser:
    what = f"a number above {low:g}" + (f", {high:g} at most" if high is not None else "")
    what = what if above else f"a number {_between(low, high)}"

    def parse_real(value: Any, at: _At) -> float:
        number = _number(value, at, what)
        if number < low or (above and number == low) or (high is not None and number > high):
            at.fail(f"write {what}, not {_shown(value)}")
        return number

    return parse_real


def parse_duration(text: str | float) -> float:
    """Seconds from `"250ms"`, `"30s"`, `"1h30m"`, `"7d"` or a bare number of seconds.

    Raises
    ------
    ValueError
        If it is none of these, negative or not finite.

    Examples
    --------
    >>> parse_duration("1h30m"), parse_duration("250ms"), parse_duration(5)
    (5400.0, 0.25, 5.0)
    """
    try:
        seconds = float(text)
    except ValueError:
        parts = re.findall(r"(\d+(?:\.\d+)?)\s*(ms|s|m|h|d|w)\s*", str(text))
        rest = re.sub(r"(\d+(?:\.\d+)?)\s*(ms|s|m|h|d|w)\s*", "", str(text))
        if not parts or rest.strip():
            raise ValueError(f"not a duration: {text!r}") from None
        seconds = sum(float(number) * _DURATION_S[unit] for number, unit in parts)
    if not math.isfinite(seconds) or seconds < 0:
        raise ValueError(f"not a duration: {text!r}")
    return seconds


def parse_size(text: str | float) -> int:
    """Bytes from `"64MiB"`, `"10MB"`, `"256KiB"` or a bare number of bytes.

    Raises
    ------
    ValueError
        If it is none of these or negative.

    Examples
    --------
    >>> parse_size("64MiB"), parse_size("10MB"), parse_size(512)
    (67108864, 10000000, 512)
    """
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]*)\s*", str(text))
    if match is None or match[2] not in _SIZE_BYTES:
        raise ValueError(f"not a size: {text!r}")
    return int(float(match[1]) * _SIZE_BYTES[match[2]])


def _duration(low_s: float, high_s: float | None = None) -> Parser:
    limits = f"{low_s:g}s or more" if high_s is None else f"{low_s:g}s to {high_s:g}s"

    def parse(value: Any, at: _At) -> float:
        try:
            if isinstance(value, bool) or not isinstance(value, (int, float, str)):
                raise ValueError
            seconds = parse_duration(value)
        except ValueError:
            at.fail(f"write a duration such as 30s, 5m, 24h or 250ms, not {_shown(value)}")
        if seconds < low_s or (high_s is not None and seconds > high_s):
            at.fail(f"write a duration of {limits}, not {_shown(value)}")
        return seconds

    return parse


def _size(low_bytes: int) -> Parser:
    def parse(value: Any, at: _At) -> int:
        try:
            if isinstance(value, bool) or not isinstance(value, (int, float, str)):
                raise ValueError
            size_bytes = parse_size(value)
        except ValueError:
            at.fail(f"write a size such as 256KiB, 64MiB or 10MB, not {_shown(value)}")
        if size_bytes < low_bytes:
            at.fail(f"write a size of at least {low_bytes} bytes, not {_shown(value)}")
        return size_bytes

    return parse


def _budget(value: Any, at: _At) -> float:
    """False alarms a day, from `1/day`, `1/week`, `3/hour`."""
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*/\s*([a-z]+)\s*", str(value))
    if match is None or match[2] not in _PER_DAY or float(match[1]) <= 0:
        at.fail(f"write a rate such as 1/day, 1/week or 3/hour, not {_shown(value)}")
    return float(match[1]) * _PER_DAY[match[2]]


def _one_of(*choices: str) -> Parser:
    def parse(value: Any, at: _At) -> str:
        if value not in choices:
            near = _nearest(str(value), choices)
            at.fail(f"write one of {', '.join(choices)}, not {_shown(value)}{near}")
        return str(value)

    return parse


def _boolean(value: Any, at: _At) -> bool:
    truth = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}.get(str(value).lower())
    if truth is None:
        at.fail(f"write true or false, not {_shown(value)}")
    return truth


def _or_off(parse: Parser) -> Parser:
    """`None` for `off`."""

    def parse_or_off(value: Any, at: _At) -> Any:
        return None if value in (None, False, "off") else parse(value, at)

    return parse_or_off


def _hours(value: Any, at: _At) -> tuple[int, int]:
    """Minutes since midnight, from `22:00-06:00`."""
    match = re.fullmatch(r"\s*(\d{1,2}):(\d\d)\s*-\s*(\d{1,2}):(\d\d)\s*", str(value))
    numbers = [int(text) for text in match.groups()] if match else []
    if not numbers or max(numbers[0], numbers[2]) > 24 or max(numbers[1], numbers[3]) > 59:
        at.fail(f'write hours such as "22:00-06:00", or off; not {_shown(value)}')
    begin, end = (60 * hour + minute for hour, minute in (numbers[:2], numbers[2:]))
    if begin == end or max(begin, end) > 24 * 60:
        at.fail(f'write two different times such as "22:00-06:00", not {_shown(value)}')
    return begin, end


def _globs(value: Any, at: _At) -> tuple[str, ...]:
    items = value if isinstance(value, (list, tuple)) else [value]
    return tuple(_text(item, at.below(i)) for i, item in enumerate(items)) if value not in (None, "") else ()


def _path(value: Any, at: _At) -> Path:
    return Path(_text(value, at)).expanduser()


def _credential(value: Any, at: _At) -> Path:
    """A path; a relative one stands in `$CREDENTIALS_DIRECTORY` (systemd `LoadCredential=`) where that is set."""
    path = _path(value, at)
    directory = at.environ.get("CREDENTIALS_DIRECTORY")
    return Path(directory) / path if directory and not path.is_absolute() else path


def _topic_level(value: Any, at: _At) -> str:
    """A name that stands as one level of an MQTT topic."""
    text = _text(value, at)
    if re.search(r"[/+#\s]", text):
        at.fail(f"write a name without '/', '+', '#' and spaces, not {_shown(text)}: it is one level of an MQTT topic")
    return text


def _hostname() -> str:
    return re.sub(r"[/+#\s]", "-", socket.gethostname()) or "localhost"


def _node(value: Any, at: _At) -> str:
    return _hostname() if value in (None, "", AUTO) else _topic_level(value, at)


def _base_topic(value: Any, at: _At) -> str:
    text = _text(value, at)
    if re.search(r"[+#\s]", text) or text.startswith("/") or text.endswith("/"):
        at.fail(f"write a topic without '+', '#' or spaces and without '/' at its ends, not {_shown(text)}")
    return text


def _mqtt_url(value: Any, at: _At) -> str:
    text = _text(value, at)
    example = "write mqtt://HOST, mqtts://HOST:8883, ws://HOST/mqtt or wss://HOST/mqtt"
    try:
        url = urlsplit(text)
        port = url.port
    except ValueError:
        at.fail(f"{example}, not {_shown(_without_user(text))}")
    if url.username is not None or url.password is not None:
        # The text itself is not repeated: it holds a password and would end in a log.
        at.fail("take user and password out of the URL; write mqtt.username and mqtt.password_file instead")
    if url.scheme not in _DEFAULT_PORTS or not url.hostname or port == 0 or url.query or url.fragment:
        at.fail(f"{example}, not {_shown(_without_user(text))}")
    if url.scheme in ("mqtt", "mqtts") and url.path not in ("", "/"):
        at.fail(f"remove {_shown(_without_user(url.path))} from the URL: only ws:// and wss:// have a path")
    return text


def _without_user(url: str) -> str:
    """A URL for an error: what stands before its last ``@`` may be a password, however the URL is misspelt."""
    _, at, after = url.rpartition("@")
    return f"***@{after}" if at else url


def _variable(value: Any, at: _At) -> str:
    """The name of an environment variable.  A value that is none is not repeated: it may be the secret itself."""
    text = _text(value, at)
    if re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", text) is None:
        at.fail("write the name of an environment variable alone, such as MQTT_PASSWORD")
    return text


def _listen(value: Any, at: _At) -> str:
    if value in (False, "off"):
        return "off"
    text = _text(value, at)
    match = re.fullmatch(r"(?:\[([0-9A-Fa-f:.%a-z]+)\]|([^:\[\]\s/]*)):(\d{1,5})", text)
    if match is None or int(match[3]) > 65535:
        at.fail(f"write HOST:PORT such as 127.0.0.1:9109 or [::1]:9109, :9109 for all, or off; not {_shown(text)}")
    return text


def _host_names(value: Any, at: _At) -> tuple[str, ...]:
    names = _globs(value, at)
    for i, name in enumerate(names):
        if not re.fullmatch(r"[A-Za-z0-9_.-]+", name):
            at.below(i).fail(
                "write a name as a browser shows it, such as pi.example.com, without http:// and port, not "
                f"{_shown(name)}"
            )
    return names


def _topic_template(value: Any, at: _At) -> str:
    """Check what makes a topic template; `gon_edge.stream.payload.TopicTemplate` gives it its meaning."""
    text = _text(value, at)
    levels = text.split("/")
    for i, level in enumerate(levels):
        if level in ("{stream}", "{feature}") and levels.index(level) != i:
            at.fail(f"write {level} once, not {_shown(text)}")
        if level in ("#", "{feature...}") and i != len(levels) - 1:
            at.fail(f"'{level}' must be the last level, not {_shown(text)}")
        if level == "{feature...}" and "{feature}" in levels:
            at.fail(f"write {{feature}} or {{feature...}}, not both, in {_shown(text)}")
        if level not in ("+", "#", "{stream}", "{feature}", "{feature...}") and re.search(r"[+#{}]", level):
            at.fail(
                f"level {_shown(level)}: only {{stream}}, {{feature}}, + and # may stand between slashes for a name, "
                "each as the whole level"
            )
    return text


# -- the schema --------------------------------------------------------------------------------------------------------


def _option(parse: Parser, default: Any = dataclasses.MISSING, *, key: str | None = None) -> Any:
    """A field, its parser, and its key where that is not the name without its unit."""
    return field(default=default, metadata={"parse": parse, "key": key})


def _section(cls: type, parse: Parser | None = None, **default: Any) -> Any:
    """A field whose value is a mapping with options of its own; parsed even where the file leaves it out."""
    parse = parse or (lambda value, at: _build(cls, value, at))
    return field(**default or {"default_factory": cls}, metadata={"parse": parse, "key": None, "section": cls})


def _read_secret(path: Path, what: str, key: str) -> str:
    try:
        return path.read_text(encoding="utf-8").rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        raise ConfigError(
            f"cannot read {str(path)!r} ({reason}); write the {what} there, one line, "
            "readable by the user gon-edge runs as",
            key=key,
        ) from None


@dataclass(frozen=True, slots=True)
class MqttConfig:
    """The broker and how to reach it.  Relative secret and certificate paths follow `$CREDENTIALS_DIRECTORY`."""

    url: str = _option(_mqtt_url)
    client_id: str | None = _option(_optional(_text), None)
    username: str | None = _option(_optional(_text), None)
    password_file: Path | None = _option(_optional(_credential), None)
    password_env: str | None = _option(_optional(_variable), None)
    ca_file: Path | None = _option(_optional(_credential), None)
    cert_file: Path | None = _option(_optional(_credential), None)
    key_file: Path | None = _option(_optional(_credential), None)
    base_topic: str = _option(_base_topic, "gon-edge")
    keepalive_s: float = _option(_duration(1, 65535), 60.0)
    session_expiry_s: float = _option(_duration(0, 4294967294), 3600.0)
    protocol: Literal["auto", "5", "3.1.1"] = _option(_one_of("auto", "5", "3.1.1"), "auto")
    queue_messages: int = _option(_integer(1), 20000)
    queue_bytes: int = _option(_size(1024), 16 << 20, key="queue_size")
    reconnect_min_s: float = _option(_duration(0.1), 1.0)
    reconnect_max_s: float = _option(_duration(0.1), 120.0)

    def _check(self, at: _At) -> None:
        if self.password_file is not None and self.password_env is not None:
            at.below("password_env").fail("write either password_file or password_env, not both")
        for key, given in (("password_file", self.password_file), ("password_env", self.password_env)):
            if given is not None and self.username is None:
                at.below(key).fail("a password needs mqtt.username beside it")
        if self.key_file is not None and self.cert_file is None:
            at.below("key_file").fail("a client key needs mqtt.cert_file beside it")
        for key, file in (("ca_file", self.ca_file), ("cert_file", self.cert_file)):
            if file is not None and not self.tls:
                at.below(key).fail(f"has no effect with {self.scheme}://; write mqtts:// or wss:// in mqtt.url")
        if self.reconnect_min_s > self.reconnect_max_s:
            at.below("reconnect_min").fail(f"write at most reconnect_max ({self.reconnect_max_s:g}s)")

    @property
    def scheme(self) -> str:
        """`mqtt`, `mqtts`, `ws` or `wss`."""
        return urlsplit(self.url).scheme

    @property
    def host(self) -> str:
        """Name or address, without brackets."""
        return urlsplit(self.url).hostname or ""

    @property
    def port(self) -> int:
        """The URL's port, or 1883, 8883, 80, 443 by scheme."""
        return urlsplit(self.url).port or _DEFAULT_PORTS[self.scheme]

    @property
    def websocket_path(self) -> str:
        """Path for `ws` and `wss`; `/mqtt` where the URL has none."""
        path = urlsplit(self.url).path
        return path if path not in ("", "/") else "/mqtt"

    @property
    def tls(self) -> bool:
        """Whether the connection is encrypted."""
        return self.scheme in ("mqtts", "wss")

    @property
    def websockets(self) -> bool:
        """Whether MQTT is carried by WebSockets."""
        return self.scheme in ("ws", "wss")

    def password(self, environ: Mapping[str, str] | None = None) -> str | None:
        """Read the secret now, so that a rotated one counts at the next connection.

        Returns
        -------
        str or None
            Without the line break at its end; `None` when no secret is configured.

        Raises
        ------
        ConfigError
            If the file cannot be read or the variable is not set.
        """
        if self.password_file is not None:
            return _read_secret(self.password_file, "password", "mqtt.password_file")
        if self.password_env is not None:
            secret = (os.environ if environ is None else environ).get(self.password_env)
            if secret is None:
                raise ConfigError(
                    f"environment variable {self.password_env} is not set; set it to the password",
                    key="mqtt.password_env",
                )
            return secret
        return None


@dataclass(frozen=True, slots=True)
class SubscriptionConfig:
    """Where readings come from and how they are written."""

    topic: str = _option(_topic_template)
    format: Literal["json", "value", "influx", "collectd"] = _option(
        _one_of("json", "value", "influx", "collectd"), "json"
    )
    timestamp: str | None = _option(_optional(_text), None)
    retained: Literal["ignore", "seed"] = _option(_one_of("ignore", "seed"), "ignore")
    stream: str | None = _option(_optional(_text), None)

    def _check(self, at: _At) -> None:
        placed = "{stream}" in self.topic
        if not placed and self.stream is None and self.format != "influx":  # there the tag `host` may name it
            at.below("topic").fail("put {stream} into the topic, or name the one stream it feeds with stream:")
        if placed and self.stream is not None:
            at.below("stream").fail("remove it: the topic already says the stream by {stream}")
        if self.timestamp is not None and self.format != "json":
            at.below("timestamp").fail(f"remove it: it names a key of a JSON payload, and the format is {self.format}")


@dataclass(frozen=True, slots=True)
class LimitsConfig:
    """What is refused and counted, so that a misbehaving device cannot fill the memory."""

    payload_bytes: int = _option(_size(64), 256 << 10)
    features: int = _option(_integer(1), 500)
    streams: int = _option(_integer(1), 100)


@dataclass(frozen=True, slots=True)
class HttpConfig:
    """The one port for metrics, health, API and status page.  Relative paths follow `$CREDENTIALS_DIRECTORY`."""

    listen: str = _option(_listen, "127.0.0.1:9109")
    names: tuple[str, ...] = _option(_host_names, ())
    cert_file: Path | None = _option(_optional(_credential), None)
    key_file: Path | None = _option(_optional(_credential), None)
    token_file: Path | None = _option(_optional(_credential), None)
    username: str | None = _option(_optional(_text), None)
    password_file: Path | None = _option(_optional(_credential), None)

    def _check(self, at: _At) -> None:
        if self.key_file is not None and self.cert_file is None:
            at.below("key_file").fail("a key needs http.cert_file beside it")
        if self.password_file is not None and self.username is None:
            at.below("password_file").fail("a password needs http.username beside it")
        if self.username is not None and self.password_file is None:
            at.below("username").fail("a user needs http.password_file beside it")
        if self.username is not None and ":" in self.username:
            at.below("username").fail("write a name without ':', which HTTP puts between name and password")

    @property
    def enabled(self) -> bool:
        """False for `listen: off`."""
        return self.listen != "off"

    @property
    def host(self) -> str:
        """Address without brackets; empty for every address."""
        return self.listen.rpartition(":")[0].strip("[]")

    @property
    def port(self) -> int:
        """0 lets the system choose; also 0 when disabled."""
        return int(self.listen.rpartition(":")[2]) if self.enabled else 0

    @property
    def tls(self) -> bool:
        """Whether it speaks HTTPS."""
        return self.cert_file is not None

    @property
    def guarded(self) -> bool:
        """Whether a token or password is asked for."""
        return self.token_file is not None or self.username is not None

    @property
    def loopback(self) -> bool:
        """Whether only this machine can reach it."""
        return is_loopback(self.host)

    def secrets(self) -> tuple[str | None, str | None]:
        """Read token and password now.

        Returns
        -------
        token, password : str or None
            Without the line break at their ends; `None` where none is configured.

        Raises
        ------
        ConfigError
            If a file cannot be read, or is empty: nobody may come in with an empty password.
        """
        return self._secret(self.token_file, "token"), self._secret(self.password_file, "password")

    def _secret(self, path: Path | None, what: str) -> str | None:
        if path is None:
            return None
        secret = _read_secret(path, what, f"http.{what}_file")
        if not secret.strip():
            raise ConfigError(f"{str(path)!r} is empty; write the {what} there, one line", key=f"http.{what}_file")
        return secret


def is_loopback(host: str) -> bool:
    """Whether an address or name can only mean this machine.

    Examples
    --------
    >>> [is_loopback(host) for host in ("127.0.0.1", "::1", "localhost", "", "192.168.1.4", "pi.local")]
    [True, True, True, False, False, False]
    """
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


@dataclass(frozen=True, slots=True)
class StoreConfig:
    """What is kept on disk and how often it is written."""

    flush_every_s: float = _option(_duration(1), 1800.0)
    rows: int = _option(_integer(1), 604800)
    max_bytes: int = _option(_size(1 << 20), 256 << 20, key="max_size")


@dataclass(frozen=True, slots=True)
class RetrainConfig:
    """When models are trained again, what the training child may use, and when it has to wait.

    `quiet_hours` are minutes since midnight, local time; `max_temperature` is in degrees Celsius, `max_load` for each
    core.  `None` is off.
    """

    every_s: float | None = _option(_or_off(_duration(60)), 86400.0)
    quiet_hours: tuple[int, int] | None = _option(_or_off(_hours), None)
    on_drift: bool = _option(_boolean, True)
    on_features: bool = _option(_boolean, True)
    memory_budget_bytes: int = _option(_size(1 << 20), 64 << 20)
    deadline_s: float = _option(_duration(1), 600.0)
    nice: int = _option(_integer(0, 19), 19)
    cpu_share: float = _option(_real(0.05, 1), 1.0)
    max_rows: int = _option(_integer(100), 20000)
    max_temperature: float | None = _option(_or_off(_real(20, 150)), 75.0)
    max_load: float | None = _option(_or_off(_real(0, above=True)), 1.5)
    on_battery: bool = _option(_boolean, False)


@dataclass(frozen=True, slots=True)
class AlertsConfig:
    """When a verdict becomes news."""

    raise_rows: int = _option(_integer(1), 3)
    raise_of: int = _option(_integer(1, 10000), 5)
    clear_rows: int = _option(_integer(1), 15)
    clear_ratio: float = _option(_real(0, 1, above=True), 0.9)
    cooldown_s: float = _option(_duration(0), 60.0)
    update_every_s: float = _option(_duration(0), 60.0)
    budget: float | None = _option(_optional(_budget), None)
    critical_ratio: float = _option(_real(1), 2.0)
    missing_after_s: float | None = _option(_optional(_duration(0)), None)

    def _check(self, at: _At) -> None:
        if self.raise_rows > self.raise_of:
            at.below("raise_rows").fail(
                f"write at most raise_of ({self.raise_of}), not {self.raise_rows}: no alert could ever be raised"
            )


@dataclass(frozen=True, slots=True)
class StreamConfig:
    """One stream: its grid, its warm-up, its features, its alerts."""

    interval_s: float | None = _option(_optional(_duration(0.01)), None)
    max_hold_s: float | None = _option(_optional(_duration(0.01)), None)
    lateness_s: float = _option(_duration(0), 0.0)
    max_gap_s: float | None = _option(_optional(_duration(0.01)), None)
    warmup_rows: int = _option(_integer(1), 600)
    include: tuple[str, ...] = _option(_globs, ())
    exclude: tuple[str, ...] = _option(_globs, ())
    window: int | None = _option(_optional(_integer(2, 1000)), None)
    model: str | None = _option(_optional(_text), None)
    alerts: AlertsConfig = _section(AlertsConfig)

    def _check(self, at: _At) -> None:
        for key, limit_s in (("max_hold", self.max_hold_s), ("max_gap", self.max_gap_s)):
            if self.interval_s is not None and limit_s is not None and limit_s < self.interval_s:
                at.below(key).fail(f"write at least interval ({self.interval_s:g}s), not {limit_s:g}s")
        if self.window is not None and self.warmup_rows < 2 * self.window:
            at.below("warmup_rows").fail(
                f"write at least two windows ({2 * self.window}), not {self.warmup_rows}: nothing could be learned"
            )


@dataclass(frozen=True, slots=True)
class StreamsConfig:
    """Options of every stream, and of single ones; an override already holds the defaults it does not change."""

    defaults: StreamConfig = _section(StreamConfig)
    overrides: Mapping[str, StreamConfig] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class HomeAssistantConfig:
    """Discovery by Home Assistant; `silence_s` is how long its switch silences a stream, `None` is no switch."""

    enabled: bool = _option(_boolean, False)
    discovery_prefix: str = _option(_base_topic, "homeassistant")
    update_every_s: float = _option(_duration(1), 30.0)
    silence_s: float | None = _option(_or_off(_duration(60, 366 * 86400)), None)


@dataclass(frozen=True, slots=True)
class LogConfig:
    """Logs go to stderr, one line an event."""

    level: Literal["debug", "info", "warning", "error"] = _option(_one_of("debug", "info", "warning", "error"), "info")
    format: Literal["text", "json"] = _option(_one_of("text", "json"), "text")


@dataclass(frozen=True, slots=True)
class Config:
    """Everything the daemon is told.  Durations are seconds, sizes are bytes.

    Examples
    --------
    >>> config = parse_config({"mqtt": {"url": "mqtt://localhost"}, "subscriptions": [{"topic": "telemetry/{stream}"}]})
    >>> config.mqtt.port, config.stream("pump").alerts.raise_rows
    (1883, 3)
    """

    mqtt: MqttConfig = _section(MqttConfig, default=dataclasses.MISSING)
    subscriptions: tuple[SubscriptionConfig, ...] = _option(lambda value, at: _subscriptions(value, at))
    version: int = _option(_integer(1, 1), 1)
    node: str = field(default_factory=_hostname, metadata={"parse": _node, "key": None})
    state_dir: Path = _option(_path, Path("/var/lib/gon-edge"))
    limits: LimitsConfig = _section(LimitsConfig)
    http: HttpConfig = _section(HttpConfig)
    store: StoreConfig = _section(StoreConfig)
    retrain: RetrainConfig = _section(RetrainConfig)
    streams: StreamsConfig = _section(StreamsConfig, lambda value, at: _streams(value, at))
    homeassistant: HomeAssistantConfig = _section(HomeAssistantConfig)
    log: LogConfig = _section(LogConfig)
    path: Path | None = None

    def _check(self, at: _At) -> None:
        for name, stream in (("defaults", self.streams.defaults), *self.streams.overrides.items()):
            if stream.warmup_rows > self.store.rows:
                where = "streams.defaults" if name == "defaults" else f"streams.overrides.{name}"
                at.below("store").below("rows").fail(
                    f"write at least {where}.warmup_rows ({stream.warmup_rows}): "
                    "the first model is trained from these rows"
                )

    def stream(self, name: str) -> StreamConfig:
        """Return the options of one stream: its override, or the defaults."""
        return self.streams.overrides.get(name, self.streams.defaults)


# -- mapping to dataclasses --------------------------------------------------------------------------------------------


def _key(option: dataclasses.Field[Any]) -> str:
    """The YAML key of a field: its name without the unit."""
    return option.metadata.get("key") or re.sub(r"_(s|bytes)$", "", option.name)


def _keys(cls: type) -> dict[str, dataclasses.Field[Any]]:
    return {_key(f): f for f in dataclasses.fields(cls) if f.name != "path"}


def _paths(cls: type, prefix: str = "") -> Iterator[str]:
    """Dotted paths of every option below a section, for hints."""
    for key, option in _keys(cls).items():
        section = option.metadata.get("section")
        yield prefix + key
        if section is not None:
            yield from _paths(section, f"{prefix}{key}.")


def _nearest(name: str, choices: Any) -> str:
    import difflib  # for mistakes only

    near = difflib.get_close_matches(name, list(choices), n=1, cutoff=0.6)
    return f"; did you mean {near[0]}?" if near else ""


def _unknown(key: object, known: Mapping[str, Any], at: _At) -> NoReturn:
    hint = _nearest(str(key), known)
    if not hint:  # the right name in the wrong place
        elsewhere = [path for path in _paths(Config) if path.rpartition(".")[2] == key]
        hint = f"; did you mean {elsewhere[0]}?" if elsewhere else f"; known here: {', '.join(known)}"
    at.below(str(key)).fail(f"unknown option{hint}")


def _mapping(value: Any, at: _At) -> Mapping[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        at.fail(f"write options below it, one a line and indented, not {_shown(value)}")
    return value


def _build(cls: type[C], value: Any, at: _At) -> C:
    mapping = _mapping(value, at)
    known = _keys(cls)
    for key in mapping:
        if key not in known:
            _unknown(key, known, at)
    arguments: dict[str, Any] = {}
    for key, option in known.items():
        if key in mapping or "section" in option.metadata:
            arguments[option.name] = option.metadata["parse"](mapping.get(key), at.below(key))
        elif option.default is dataclasses.MISSING and option.default_factory is dataclasses.MISSING:
            at.below(key).fail(_REQUIRED[key])
    built = cls(**arguments)
    if check := getattr(built, "_check", None):  # what only two options together can get wrong
        check(at)
    return built


_REQUIRED = {
    "url": "is required: the broker, such as mqtt://localhost:1883",
    "topic": "is required: where readings arrive, such as telemetry/{stream}",
    "subscriptions": 'is required: at least one entry, such as "- topic: telemetry/{stream}"',
}


def _subscriptions(value: Any, at: _At) -> tuple[SubscriptionConfig, ...]:
    if not value or not isinstance(value, (list, tuple)):
        at.fail('write at least one entry, such as "- topic: telemetry/{stream}"')
    return tuple(_build(SubscriptionConfig, entry, at.below(i)) for i, entry in enumerate(value))


def _merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in over.items():
        below = merged.get(key)
        merged[key] = _merge(below, value) if isinstance(below, Mapping) and isinstance(value, Mapping) else value
    return merged


def _streams(value: Any, at: _At) -> StreamsConfig:
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


def _parse(mapping: Any, at: _At) -> Config:
    if mapping is None or mapping == {}:
        at.fail("is empty; required are mqtt.url and at least one entry of subscriptions")
    if not isinstance(mapping, Mapping):
        at.fail("write options as KEY: VALUE, one a line")
    return dataclasses.replace(_build(Config, _expand(mapping, at), at), path=at.path)


def _expand(value: Any, at: _At) -> Any:
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
    return _parse(mapping, _At(path=path, environ=environ))


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


def _plain(node: yaml.Node, at: _At, lines: dict[str, int]) -> Any:
    """Node tree to dict, list, text and None; fills in `lines` by dotted path."""
    lines[at.key] = node.start_mark.line + 1
    if not node.tag.startswith("tag:yaml.org,2002:") or "python" in node.tag:
        at.fail(f"remove the tag {_shown(node.tag)}: values are plain text")
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
    path = Path(path)
    try:
        with path.open("rb") as file:
            content = file.read(FILE_LIMIT_BYTES + 1)
    except OSError as error:
        raise ConfigError(f"cannot be read: {error.strerror}", path=path) from None
    if len(content) > FILE_LIMIT_BYTES:
        raise ConfigError("is larger than 1 MiB; a configuration is a few kilobytes", path=path)
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise ConfigError("is not UTF-8 text", path=path) from None

    lines: dict[str, int] = {}
    at = _At(path=path, lines=lines, environ=environ)
    try:
        loader = _Composer(text)
        try:
            node = loader.get_single_node()
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = mark.line + 1 if mark else None
        raise ConfigError(f"is not YAML: {error.problem or error.context}", path=path, line=line) from None
    except yaml.YAMLError as error:
        raise ConfigError(f"is not YAML: {' '.join(str(error).split())}", path=path) from None
    return _parse(None if node is None else _plain(node, at, lines), at)


def options(config: Config) -> Iterator[tuple[str, Any]]:
    """Every option of the file as `(dotted path, value)`, e.g. `("store.flush_every", 1800.0)`.

    The options of a subscription stand once, as `subscriptions[].topic`, with the values of the first one; those of a
    stream as `streams.defaults.interval`; single streams are the one entry `streams.overrides`.
    """
    yield from _walk(config, "")


def _walk(section: Any, prefix: str) -> Iterator[tuple[str, Any]]:
    for key, option in _keys(type(section)).items():
        value = getattr(section, option.name)
        if key == "subscriptions":
            yield from _walk(value[0], "subscriptions[].")
        elif "section" in option.metadata:
            yield from _walk(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


# -- the way back ------------------------------------------------------------------------------------------------------


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
        known = _keys(type(value))
        return {key: _as_written(option.name, getattr(value, option.name)) for key, option in known.items()}
    if isinstance(value, Mapping):
        return {key: _as_written("", item) for key, item in value.items()}
    if name == "quiet_hours" and value is not None:
        return "{:02}:{:02}-{:02}:{:02}".format(*divmod(value[0], 60), *divmod(value[1], 60))
    if isinstance(value, tuple):
        return [_as_written("", item) for item in value]
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, str):
        return value.replace("${", "$${")
    if value is None or isinstance(value, bool):
        return value
    if name == "budget":
        whole = [(value / each, unit) for unit, each in _PER_DAY.items() if (value / each).is_integer()]
        return f"{whole[0][0]:.0f}/{whole[0][1]}" if whole else f"{value}/day"
    if name.endswith("_s"):
        return _duration_as_written(value)
    if name.endswith("_bytes"):
        unit = next(unit for unit in ("GiB", "MiB", "KiB", "") if value % _SIZE_BYTES[unit] == 0)
        return f"{value // _SIZE_BYTES[unit]}{unit}" if unit and value else value
    return value


def _duration_as_written(seconds: float) -> Any:
    if seconds <= 0 or not seconds.is_integer():
        return seconds
    left, text = int(seconds), ""
    for unit in ("d", "h", "m", "s"):
        count, left = divmod(left, int(_DURATION_S[unit]))
        text += f"{count}{unit}" if count else ""
    return text
