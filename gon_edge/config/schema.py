"""Every option, its type, its default and its limits: frozen dataclasses, `Config` above all of them.

A field carries the parser of its value, and its key in the file is its name without the unit: `flush_every_s` is
`flush_every: 30m`.  What an option means to a person is written once, in `configs/gon-edge.yaml`; a test fails when an
option is missing there.  Adding an option is adding a field here and its text there.  `check` of a section finds what
only two options together can get wrong.  A default or limit with no reason beside it is not critical: the default suits
a sensor at 1 Hz, and the limit refuses what is surely a slip.

This module opens no file but a secret that is asked for; it does not know how a file is read (`file`), nor who reads
an option.
"""

# ruff: noqa: RUF009  option() and section() only wrap dataclasses.field()

from __future__ import annotations

import ipaddress
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import lru_cache
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from gon_edge.config import values
from gon_edge.config.fleet import FleetConfig
from gon_edge.config.option import entries, option, patterns, section
from gon_edge.config.secret import check_secret, read_secret
from gon_edge.config.subscription import SubscriptionConfig
from gon_edge.config.values import Place
from gon_edge.errors import ConfigError


@dataclass(frozen=True, slots=True)
class MqttConfig:
    """The broker and how to reach it.  Relative secret and certificate paths follow `$CREDENTIALS_DIRECTORY`."""

    url: str = option(values.mqtt_url)
    client_id: str | None = option(values.optional(values.text), None)
    username: str | None = option(values.optional(values.text), None)
    password_file: Path | None = option(values.optional(values.credential), None)
    password_env: str | None = option(values.optional(values.variable), None)
    ca_file: Path | None = option(values.optional(values.credential), None)
    cert_file: Path | None = option(values.optional(values.credential), None)
    key_file: Path | None = option(values.optional(values.credential), None)
    server_name: str | None = option(values.optional(values.server_name), None)
    base_topic: str = option(values.base_topic, "gon-edge")
    keepalive_s: float = option(values.duration(1, 65535), 60.0)  # 16 bits in MQTT; 60 s is paho's default
    # 32 bits in MQTT 5, of which all ones is never
    session_expiry_s: float = option(values.duration(0, 4294967294), 3600.0)
    protocol: Literal["auto", "5", "3.1.1"] = option(values.one_of("auto", "5", "3.1.1"), "auto")
    queue_messages: int = option(values.integer(1), 20000)
    queue_bytes: int = option(values.size(1024), 16 << 20, key="queue_size")
    reconnect_min_s: float = option(values.duration(0.1, 86400), 1.0)
    reconnect_max_s: float = option(values.duration(0.1, 86400), 120.0)
    feedback: bool = option(values.boolean, False)

    def check(self, at: Place) -> None:
        """Refuse a secret, certificate or limit that has no effect without another option."""
        if self.password_file is not None and self.password_env is not None:
            at.below("password_env").fail("write either password_file or password_env, not both")
        for key, given in (("password_file", self.password_file), ("password_env", self.password_env)):
            if given is not None and self.username is None:
                at.below(key).fail("a password needs mqtt.username beside it")
        if self.key_file is not None and self.cert_file is None:
            at.below("key_file").fail("a client key needs mqtt.cert_file beside it")
        of_tls = (("ca_file", self.ca_file), ("cert_file", self.cert_file), ("server_name", self.server_name))
        for key, given in of_tls:
            if given is not None and not self.tls:
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
        return urlsplit(self.url).port or values.DEFAULT_PORTS[self.scheme]

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
            If the file cannot be read, the variable is not set, or what is there is no password.
        """
        if self.password_file is not None:
            return read_secret(self.password_file, "password", "mqtt.password_file")
        if self.password_env is not None:
            secret = (os.environ if environ is None else environ).get(self.password_env)
            if secret is None:
                raise ConfigError(
                    f"environment variable {self.password_env} is not set; set it to the password",
                    key="mqtt.password_env",
                )
            return check_secret(secret, f"environment variable {self.password_env}", "password", "mqtt.password_env")
        return None


@dataclass(frozen=True, slots=True)
class LimitsConfig:
    """What is refused and counted, so that a misbehaving device cannot fill the memory."""

    # MQTT has no message over 256 MiB (a length of four times seven bits), and its topic may be 64 KiB of these
    payload_bytes: int = option(values.size(64, 255 << 20), 256 << 10)
    features: int = option(values.integer(1, 10_000), 500)  # of a larger model none is read, model.file
    streams: int = option(values.integer(1), 100)


@dataclass(frozen=True, slots=True)
class HttpConfig:
    """The one port for metrics, health, API and status page.  Relative paths follow `$CREDENTIALS_DIRECTORY`."""

    listen: str = option(values.listen, "127.0.0.1:9109")
    names: tuple[str, ...] = option(values.host_names, ())
    cert_file: Path | None = option(values.optional(values.credential), None)
    key_file: Path | None = option(values.optional(values.credential), None)
    token_file: Path | None = option(values.optional(values.credential), None)
    username: str | None = option(values.optional(values.text), None)
    password_file: Path | None = option(values.optional(values.credential), None)

    def check(self, at: Place) -> None:
        """Refuse a key without its certificate and a user without a password, or the other way round."""
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
            If a file cannot be read, is empty (nobody may come in with an empty password), or has several lines.
        """
        return self._secret(self.token_file, "token"), self._secret(self.password_file, "password")

    def _secret(self, path: Path | None, what: str) -> str | None:
        return None if path is None else read_secret(path, what, f"http.{what}_file")


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

    flush_every_s: float = option(values.duration(1), 1800.0)  # 4 MB a day at 1 Hz and 16 features, 11 MB with 5 m
    rows: int = option(values.integer(1), 604800)  # a week at 1 Hz
    max_bytes: int = option(values.size(1 << 20), 256 << 20, key="max_size")


LEAST_BUDGET_BYTES = 48 << 20  # 8 features with 600 rows peak at 47 MiB (docs/retraining.md)


@dataclass(frozen=True, slots=True)
class RetrainConfig:
    """When models are trained again, what the training child may use, and when it has to wait.

    `quiet_hours` are minutes since midnight, local time; `max_temperature` is in degrees Celsius, `max_load` for each
    core.  `None` is off, except of `processes` and `memory_budget_bytes`: these follow from the machine
    (`training.capacity`).
    """

    every_s: float | None = option(values.or_off(values.duration(60)), 86400.0)
    quiet_hours: tuple[int, int] | None = option(values.or_off(values.hours), None)
    on_drift: bool = option(values.boolean, True)
    on_features: bool = option(values.boolean, True)
    processes: int | None = option(values.optional(values.integer(1, 64)), None)
    memory_budget_bytes: int | None = option(values.optional(values.size(1 << 20)), None)
    deadline_s: float = option(values.duration(1), 600.0)
    nice: int = option(values.integer(0, 19), 19)  # setpriority(2); 19 gives way to everything
    cpu_share: float = option(values.real(0.05, 1), 1.0)
    max_rows: int = option(values.integer(100), 20000)  # docs/retraining.md has memory and time by rows
    # a Raspberry Pi slows down from 80
    max_temperature: float | None = option(values.or_off(values.real(20, 150)), 75.0)
    max_load: float | None = option(values.or_off(values.real(0, above=True)), 1.5)
    on_battery: bool = option(values.boolean, False)

    def check(self, at: Place) -> None:
        """Refuse so many trainings at once that none of them has the memory to begin."""
        if self.processes is None or self.processes == 1 or self.memory_budget_bytes is None:
            return
        if self.memory_budget_bytes < self.processes * LEAST_BUDGET_BYTES:
            at.below("memory_budget").fail(
                f"write at least {self.processes * LEAST_BUDGET_BYTES >> 20}MiB: all {self.processes} processes share "
                f"it, and a training needs {LEAST_BUDGET_BYTES >> 20}MiB"
            )


@dataclass(frozen=True, slots=True)
class AlertsConfig:
    """When a verdict becomes news."""

    raise_rows: int = option(values.integer(1), 3)
    raise_of: int = option(values.integer(1, 10000), 5)
    clear_rows: int = option(values.integer(1), 15)
    clear_ratio: float = option(values.real(0, 1, above=True), 1.0)
    cooldown_s: float = option(values.duration(0), 60.0)
    update_every_s: float = option(values.duration(0), 60.0)
    budget: float = option(values.budget, 1.0 / 7.0)
    critical_ratio: float = option(values.real(1), 2.0)
    missing_after_s: float | None = option(values.optional(values.or_never(values.duration(0))), None)

    def check(self, at: Place) -> None:
        """Refuse a rule by which no alert could be raised."""
        if self.raise_rows > self.raise_of:
            at.below("raise_rows").fail(
                f"write at most raise_of ({self.raise_of}), not {self.raise_rows}: no alert could ever be raised"
            )


@dataclass(frozen=True, slots=True)
class AllAlertsConfig:
    """What holds for the alerts of all streams together; `total_budget` is false alerts a day, `None` is off."""

    total_budget: float | None = option(values.or_off(values.budget), None)


@dataclass(frozen=True, slots=True)
class FeatureConfig:
    """How long a feature may be silent; `missing_after_s` is infinite for `never`."""

    max_hold_s: float | None = option(values.optional(values.duration(0.01)), None)
    missing_after_s: float | None = option(values.optional(values.or_never(values.duration(0))), None)


_feature = lru_cache(FeatureConfig)  # thousands of features are under a few rules


@dataclass(frozen=True, slots=True)
class StreamConfig:
    """One stream: its grid, its warm-up, its features, its alerts."""

    interval_s: float | None = option(values.optional(values.duration(0.01)), None)
    max_hold_s: float | None = option(values.optional(values.duration(0.01)), None)
    lateness_s: float = option(values.duration(0), 0.0)
    max_gap_s: float | None = option(values.optional(values.duration(0.01)), None)
    warmup_rows: int = option(values.integer(1), 600)  # ten minutes at 1 Hz; docs/detection.md has 150 and 300
    include: tuple[str, ...] = option(values.name_globs, ())
    exclude: tuple[str, ...] = option(values.name_globs, ())
    counter: tuple[str, ...] = option(values.name_globs, ())
    gauge: tuple[str, ...] = option(values.name_globs, ())
    window: int | None = option(values.optional(values.integer(2, 1000)), None)
    model: str | None = option(values.optional(values.text), None)
    features: Mapping[str, FeatureConfig] = patterns(FeatureConfig)
    alerts: AlertsConfig = section(AlertsConfig)

    def feature(self, name: str) -> FeatureConfig:
        """Return what holds for one feature: the last pattern that matches and sets an option counts.

        Examples
        --------
        >>> stream = StreamConfig(max_hold_s=60.0, features={"door_*": FeatureConfig(missing_after_s=math.inf)})
        >>> stream.feature("door_1")
        FeatureConfig(max_hold_s=60.0, missing_after_s=inf)
        """
        max_hold_s = self.max_hold_s
        never = self.alerts.missing_after_s == math.inf or not self.wants(name)  # nobody misses what is left out
        missing_after_s = math.inf if never else None
        for pattern, own in self.features.items():
            if fnmatchcase(name, pattern):
                max_hold_s = max_hold_s if own.max_hold_s is None else own.max_hold_s
                missing_after_s = missing_after_s if own.missing_after_s is None else own.missing_after_s
        return _feature(max_hold_s, missing_after_s)

    def wants(self, name: str) -> bool:
        """Whether `include` and `exclude` leave a feature in."""
        included = not self.include or any(fnmatchcase(name, glob) for glob in self.include)
        return included and not any(fnmatchcase(name, glob) for glob in self.exclude)

    def check(self, at: Place) -> None:
        """Refuse limits below the grid, a feature of two kinds, and a warm-up from which nothing could be learned."""
        both = next((pattern for pattern in self.counter if pattern in self.gauge), None)
        if both is not None:
            at.below("gauge").fail(f"remove {both!r} here or from counter: a feature is one or the other")
        for key, limit_s in (("max_hold", self.max_hold_s), ("max_gap", self.max_gap_s)):
            if self.interval_s is not None and limit_s is not None and limit_s < self.interval_s:
                at.below(key).fail(f"write at least interval ({self.interval_s:g}s), not {limit_s:g}s")
        for pattern, own in self.features.items():
            if self.interval_s is not None and own.max_hold_s is not None and own.max_hold_s < self.interval_s:
                below = at.below("features").below(pattern).below("max_hold")
                below.fail(f"write at least interval ({self.interval_s:g}s), not {own.max_hold_s:g}s")
        if self.window is not None and self.warmup_rows < 2 * self.window:
            at.below("warmup_rows").fail(
                f"write at least two windows ({2 * self.window}), not {self.warmup_rows}: nothing could be learned"
            )


@dataclass(frozen=True, slots=True)
class StreamsConfig:
    """Options of every stream, and of single ones; an override already holds the defaults it does not change."""

    defaults: StreamConfig = section(StreamConfig)
    overrides: Mapping[str, StreamConfig] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class HomeAssistantConfig:
    """Discovery by Home Assistant; `silence_s` is how long its switch silences a stream, `None` is no switch."""

    enabled: bool = option(values.boolean, False)
    discovery_prefix: str = option(values.base_topic, "homeassistant")
    update_every_s: float = option(values.duration(1), 30.0)
    silence_s: float | None = option(values.or_off(values.duration(60, 366 * 86400)), None)
    feedback: bool = option(values.boolean, False)


@dataclass(frozen=True, slots=True)
class LogConfig:
    """Logs go to stderr, one line an event."""

    level: Literal["debug", "info", "warning", "error"] = option(
        values.one_of("debug", "info", "warning", "error"), "info"
    )
    format: Literal["text", "json"] = option(values.one_of("text", "json"), "text")


@dataclass(frozen=True, slots=True)
class Config:
    """Everything the daemon is told.  Durations are seconds, sizes are bytes.

    Examples
    --------
    >>> from gon_edge.config.file import parse_config
    >>> config = parse_config({"mqtt": {"url": "mqtt://localhost"}, "subscriptions": [{"topic": "telemetry/{stream}"}]})
    >>> config.mqtt.port, config.stream("pump").alerts.raise_rows
    (1883, 3)
    """

    mqtt: MqttConfig = section(MqttConfig, required=True)
    subscriptions: tuple[SubscriptionConfig, ...] = entries(SubscriptionConfig)
    version: int = option(values.integer(1, 1), 1)
    node: str = field(default_factory=values.hostname, metadata={"parse": values.node})
    state_dir: Path = option(values.path, Path("/var/lib/gon-edge"))
    limits: LimitsConfig = section(LimitsConfig)
    http: HttpConfig = section(HttpConfig)
    store: StoreConfig = section(StoreConfig)
    retrain: RetrainConfig = section(RetrainConfig)
    alerts: AllAlertsConfig = section(AllAlertsConfig)
    streams: StreamsConfig = section(StreamsConfig)
    homeassistant: HomeAssistantConfig = section(HomeAssistantConfig)
    fleet: FleetConfig = section(FleetConfig)
    log: LogConfig = section(LogConfig)
    path: Path | None = None

    def check(self, at: Place) -> None:
        """Refuse a store too small for the first model, and options of a stream that cannot be."""
        self._check_overrides(at.below("streams").below("overrides"))
        for name, stream in (("defaults", self.streams.defaults), *self.streams.overrides.items()):
            if stream.warmup_rows > self.store.rows:
                where = "streams.defaults" if name == "defaults" else f"streams.overrides.{name}"
                at.below("store").below("rows").fail(
                    f"write at least {where}.warmup_rows ({stream.warmup_rows}): "
                    "the first model is trained from these rows"
                )

    def _check_overrides(self, at: Place) -> None:
        fixed = {s.stream for s in self.subscriptions if isinstance(s.stream, str) and s.format != "influx"}
        for name in self.streams.overrides:
            if any(character in name for character in "*?"):
                at.below(name).fail(
                    "write the name of one stream: patterns are for features; all take streams.defaults"
                )
            if "/" in name:
                at.below(name).fail(
                    f"a stream's name is one level; several are joined by dots: {name.replace('/', '.')}"
                )
            if len(fixed) == len({s.stream for s in self.subscriptions}) and name not in fixed:
                names = sorted(filter(None, fixed))
                hint = values.nearest(name, names) or f"; there are only: {', '.join(names)}"
                at.below(name).fail(f"no subscription feeds a stream of this name{hint}")

    def stream(self, name: str) -> StreamConfig:
        """Return the options of one stream: its override, or the defaults."""
        return self.streams.overrides.get(name, self.streams.defaults)

    @property
    def certificates(self) -> dict[str, Path]:
        """The files with certificates whose end is worth knowing, by the option that names each."""
        files = {
            "mqtt.ca_file": self.mqtt.ca_file,
            "mqtt.cert_file": self.mqtt.cert_file,
            "http.cert_file": self.http.cert_file,
            "fleet.ca_file": self.fleet.ca_file,
            "fleet.cert_file": self.fleet.cert_file,
        }
        return {option: file for option, file in files.items() if file is not None}
