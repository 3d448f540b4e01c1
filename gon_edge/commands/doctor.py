"""What is wrong with an installation, and what to do about it: ``gon-edge doctor``.

Looks from outside, as the person who runs it: nothing is changed, and neither the daemon's session at the broker nor
its lock is touched.  Each check is a function that yields findings; what it cannot see it says so, and a check that
fails is a fault of its own, never the end of the others.  A new check is a function here and a line in
:func:`examine`.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import pwd
import shutil
import ssl
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from gon_edge.commands.text import duration_text
from gon_edge.config.file import load_config
from gon_edge.config.schema import Config, is_loopback
from gon_edge.errors import ConfigError, GonEdgeError, ModelFileError, StoreError, UnreachableError
from gon_edge.links.client import daemon_api
from gon_edge.model.file import load_model
from gon_edge.process.certificate import certificate_expiry
from gon_edge.state.store import Store
from gon_edge.stream.topics import TopicTemplate

State = Literal["ok", "warning", "fault"]

UNIT = "gon-edge.service"

_MIB = 1 << 20
_DAY_S = 86400.0
_BROKER_S = 10.0  # for each answer of the broker
_CERTIFICATE_SOON_S = 21 * _DAY_S
_DAEMON_BYTES = 64 * _MIB  # with ten streams of 8 features it holds 55 MiB after an overload
_REWRITES_A_YEAR = 1.0  # of the whole medium; cheap cards bear some hundreds in all
_BUILT_AFTER = datetime(2026, 1, 1, tzinfo=UTC).timestamp()
_TIME_ERROR = 5  # adjtimex(2): the clock is not synchronized


@dataclass(frozen=True, slots=True)
class Finding:
    """What one check found.

    Attributes
    ----------
    check : str
        What was looked at: ``configuration``, ``broker``, ...
    state : str
        ``ok``; ``warning``, it works but will not always; ``fault``, it does not work.
    text : str
        One line, what is the case.
    advice : str
        What to do; empty when nothing.
    """

    check: str
    state: State
    text: str
    advice: str = ""


def examine(path: Path, environ: Mapping[str, str] | None = None) -> Iterator[Finding]:
    """Yield what is found, a finding as soon as it is known.

    Parameters
    ----------
    path : Path
        The configuration.
    environ : mapping, optional
        For the configuration; the process's environment by default.

    Examples
    --------
    >>> for finding in examine(Path("/etc/gon-edge/gon-edge.yaml")):   # doctest: +SKIP
    ...     print(finding.state, finding.check, finding.text)
    """
    unit = _unit()
    environ = dict(os.environ if environ is None else environ)
    credentials = Path("/run/credentials") / UNIT
    if unit.get("ActiveState") == "active" and credentials.is_dir():
        environ.setdefault("CREDENTIALS_DIRECTORY", str(credentials))
    checks: list[tuple[str, Callable[[], Iterator[Finding]]]] = [("service", lambda: _check_service(unit))]
    try:
        config = load_config(path, environ=environ)
        filters = tuple(TopicTemplate.parse(subscription.topic).subscription for subscription in config.subscriptions)
    except (ConfigError, ValueError) as error:
        yield Finding("configuration", "fault", _one_line(error), "correct it; gon-edge check-config says the same")
    else:
        topics = ", ".join(subscription.topic for subscription in config.subscriptions)
        yield Finding("configuration", "ok", f"{path}: node {config.node}, topics {topics}")
        user, daemon = _user(unit, config), _daemon(config)
        checks += [
            ("daemon", lambda: _check_daemon(config, daemon, unit)),
            ("broker", lambda: _check_broker(config, filters)),
            ("secrets", lambda: _check_secrets(config, user)),
            ("state", lambda: _check_state(config, user)),
            ("models", lambda: _check_models(config)),
            ("disk", lambda: _check_disk(config, daemon)),
            ("memory", lambda: _check_memory(config, unit)),
        ]
    checks.append(("clock", _check_clock))
    for name, check in checks:
        try:
            yield from check()
        except Exception as error:  # noqa: BLE001  the other checks still have something to say
            yield Finding(name, "fault", f"could not be checked: {_one_line(error)}", "please report this")


# -- the service -------------------------------------------------------------------------------------------------------


def _unit() -> dict[str, str]:
    """Properties of the unit; empty where there is no systemd, or no such unit."""
    if not Path("/run/systemd/system").is_dir() or shutil.which("systemctl") is None:
        return {}
    names = "LoadState,ActiveState,UnitFileState,Result,NRestarts,NeedDaemonReload,MainPID,User,MemoryMax,ControlGroup"
    with contextlib.suppress(OSError, subprocess.TimeoutExpired):
        shown = subprocess.run(
            ["systemctl", "show", UNIT, "--property", names], capture_output=True, text=True, timeout=10
        ).stdout
        unit = dict(line.split("=", 1) for line in shown.splitlines() if "=" in line)
        if unit.get("LoadState") == "loaded":
            return unit
    return {}


def _check_service(unit: Mapping[str, str]) -> Iterator[Finding]:
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


def _daemon(config: Config) -> dict[str, Any]:
    """What a running daemon says; empty when none answers."""
    with contextlib.suppress(UnreachableError, ConfigError):  # what cannot be read is found among the secrets
        return daemon_api(config).status()
    return {}


def _check_daemon(config: Config, daemon: Mapping[str, Any], unit: Mapping[str, str]) -> Iterator[Finding]:
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
    up = f"up {duration_text(daemon['uptime_s'])}, {daemon['rss_bytes'] / _MIB:.0f} MiB"
    if not streams:
        advice = "see that devices publish to the topics above; mosquitto_sub -v shows what arrives"
        yield Finding("daemon", "warning", f"{up}; no message has arrived yet", advice)
    elif stale:
        advice = "look at these devices, or at max_gap if they send more rarely"
        yield Finding("daemon", "warning", f"{up}; silent: {', '.join(stale)}", advice)
    else:
        yield Finding("daemon", "ok", f"{up}, streams: {len(streams)}")
    if not config.http.loopback and not config.http.guarded:
        advice = "http.listen: 127.0.0.1:9109, or http.token_file and http.cert_file"
        yield Finding("daemon", "warning", f"{config.http.listen} shows your readings to the network", advice)
    elif not config.http.loopback and not config.http.tls:
        advice = "write http.cert_file and http.key_file"
        yield Finding("daemon", "warning", f"{config.http.listen} sends the password in clear text", advice)


# -- the broker --------------------------------------------------------------------------------------------------------


class _Refused(Exception):
    """The broker said no, or nothing."""


class _Probe:
    """A connection of its own to the broker, with another client identifier and no session."""

    def __init__(self, config: Config, *, mqtt_5: bool) -> None:
        settings = config.mqtt
        self._client = paho.Client(
            CallbackAPIVersion.VERSION2,
            client_id=f"{settings.client_id or 'gon-edge-' + config.node}-doctor",
            clean_session=None if mqtt_5 else True,
            protocol=paho.MQTTv5 if mqtt_5 else paho.MQTTv311,
            transport="websockets" if settings.websockets else "tcp",
            reconnect_on_failure=False,
        )
        self._answers: dict[str, Any] = {}
        self._expected = b""
        self._client.on_connect = self._on_connect
        self._client.on_subscribe = self._on_subscribe
        self._client.on_publish = self._on_publish
        self._client.on_message = self._on_message
        if settings.username is not None:
            self._client.username_pw_set(settings.username, settings.password())
        if settings.tls:
            context = ssl.create_default_context(cafile=settings.ca_file)
            if settings.cert_file is not None:
                context.load_cert_chain(settings.cert_file, settings.key_file)
            self._client.tls_set_context(context)
        if settings.websockets:
            self._client.ws_set_options(path=settings.websocket_path)
        self._client.connect_timeout = _BROKER_S

    def connect(self, host: str, port: int) -> ReasonCode:
        """Connect, and return what the broker says to it."""
        self._client.connect(host, port, keepalive=30)
        code: ReasonCode = self._answer("connect", "CONNECT")
        return code

    def certificate_expiry(self) -> float | None:
        """Unix time at which the broker's certificate ends; ``None`` without TLS."""
        sock = self._client.socket()
        certificate = sock.getpeercert() if isinstance(sock, ssl.SSLSocket) else None
        return ssl.cert_time_to_seconds(str(certificate["notAfter"])) if certificate else None

    def subscribe(self, topic: str) -> ReasonCode:
        """Subscribe, and return what the broker grants."""
        self._client.subscribe(topic, qos=1)
        granted: list[ReasonCode] = self._answer("subscribe", f"the subscription to {topic!r}")
        return granted[0]

    def publish(self, topic: str, payload: bytes) -> ReasonCode:
        """Publish with QoS 1, and return the acknowledgement."""
        self._expected = payload
        self._client.publish(topic, payload, qos=1)
        code: ReasonCode = self._answer("publish", f"the message to {topic!r}")
        return code

    def comes_back(self, timeout_s: float) -> bool:
        """Whether the published message arrives within `timeout_s`."""
        with contextlib.suppress(_Refused):
            self._wait(lambda: "message" in self._answers, "the message itself", timeout_s)
            return True
        return False

    def close(self) -> None:
        """Disconnect."""
        self._client.disconnect()
        self._client.loop(0.1)

    def _answer(self, kind: str, what: str) -> Any:
        self._wait(lambda: kind in self._answers, what, _BROKER_S)
        return self._answers.pop(kind)

    def _wait(self, condition: Callable[[], bool], what: str, timeout_s: float) -> None:
        deadline = time.monotonic() + timeout_s
        while not condition():
            if self._client.loop(0.1) != paho.MQTT_ERR_SUCCESS and not condition():
                raise _Refused(f"the broker closed the connection instead of answering {what}")
            if time.monotonic() > deadline:
                raise _Refused(f"no answer to {what} within {timeout_s:g} s")

    def _on_connect(self, _c: object, _u: object, _f: object, code: ReasonCode, _p: Properties | None) -> None:
        self._answers["connect"] = code

    def _on_subscribe(self, _c: object, _u: object, _m: int, codes: list[ReasonCode], _p: Properties | None) -> None:
        self._answers["subscribe"] = codes

    def _on_publish(self, _c: object, _u: object, _m: int, code: ReasonCode, _p: Properties | None) -> None:
        self._answers["publish"] = code

    def _on_message(self, _c: object, _u: object, message: paho.MQTTMessage) -> None:
        if message.payload == self._expected:  # what devices send meanwhile arrives here too
            self._answers["message"] = True


def _check_broker(config: Config, filters: tuple[str, ...]) -> Iterator[Finding]:
    settings = config.mqtt
    url = f"{settings.scheme}://{settings.host}:{settings.port}"
    try:
        probe = _connect(config, mqtt_5=settings.protocol != "3.1.1")
    except ssl.SSLCertVerificationError as error:
        advice = "mqtt.ca_file must name the authority that signed it, and mqtt.url a name that stands in it"
        yield Finding(
            "broker", "fault", f"{url}: the broker's certificate is not valid: {error.verify_message}", advice
        )
        return
    except (ssl.SSLError, ConfigError, ValueError) as error:
        advice = "check mqtt.ca_file, cert_file and key_file, and that the port is the one for TLS"
        yield Finding("broker", "fault", f"{url}: {_one_line(error)}", advice)
        return
    except OSError as error:
        advice = "is the broker running, and are host and port of mqtt.url right?"
        yield Finding("broker", "fault", f"{url}: {error.strerror or error}", advice)
        return
    except _Refused as error:
        advice = "check mqtt.username and the password; with TLS use mqtts://"
        yield Finding("broker", "fault", f"{url}: {error}", advice)
        return
    try:
        yield Finding("broker", "ok", f"{url}: connected{', with TLS' if settings.tls else ''}")
        expiry = probe.certificate_expiry()
        if expiry is not None:
            yield _certificate("the broker's certificate", expiry)
        for topic in filters:
            code = probe.subscribe(topic)
            if code.is_failure:
                advice = "let this user read it: see the access rights (acl_file) of the broker"
                yield Finding("broker", "fault", f"the subscription to {topic!r} is refused: {code}", advice)
            else:
                yield Finding("broker", "ok", f"subscribed to {topic!r}")
        yield _round_trip(config, probe)
    except _Refused as error:
        yield Finding("broker", "fault", f"{url}: {error}", "see the broker's log")
    finally:
        probe.close()


def _connect(config: Config, *, mqtt_5: bool) -> _Probe:
    """Connect by MQTT 5, or by 3.1.1 where the broker knows nothing else and the configuration leaves it open."""
    probe = _Probe(config, mqtt_5=mqtt_5)
    try:
        code = probe.connect(config.mqtt.host, config.mqtt.port)
    except _Refused:
        if not mqtt_5 or config.mqtt.protocol != "auto":
            raise
        return _connect(config, mqtt_5=False)
    if not code.is_failure:
        return probe
    if mqtt_5 and config.mqtt.protocol == "auto" and code.getName() == "Unsupported protocol version":
        return _connect(config, mqtt_5=False)
    raise _Refused(f"the broker refuses us: {code}")


def _round_trip(config: Config, probe: _Probe) -> Finding:
    """Send a message to a topic of our own and see it come back.

    A denied message is acknowledged as if it had been sent, by MQTT 3.1.1 always and by 5 on some brokers: only what
    comes back proves anything.
    """
    topic = f"{config.mqtt.base_topic}/{config.node}/doctor"
    payload = os.urandom(8).hex().encode()
    readable = not probe.subscribe(topic).is_failure
    began = time.monotonic()
    code = probe.publish(topic, payload)
    advice = f"let this user write {config.mqtt.base_topic}/{config.node}/#, and read and write {topic}"
    if code.is_failure:
        return Finding("broker", "fault", f"messages to {topic!r} are refused: {code}", advice)
    if not readable:
        text = f"{topic!r} was written and cannot be read back, so whether alerts get through is not known"
        return Finding("broker", "warning", text, advice)
    if not probe.comes_back(5.0):
        text = f"a message to {topic!r} was acknowledged and did not come back: the broker drops what we send"
        return Finding("broker", "fault", text, advice)
    return Finding("broker", "ok", f"a message to {topic!r} came back after {1000 * (time.monotonic() - began):.1f} ms")


def _certificate(what: str, expiry: float) -> Finding:
    left_s = expiry - time.time()
    when = datetime.fromtimestamp(expiry, UTC).date().isoformat()
    if left_s < 0:
        return Finding("certificate", "fault", f"{what} ended on {when}", "renew it")
    state: State = "warning" if left_s < _CERTIFICATE_SOON_S else "ok"
    return Finding("certificate", state, f"{what} is valid until {when}", "renew it" if state == "warning" else "")


# -- files -------------------------------------------------------------------------------------------------------------


def _user(unit: Mapping[str, str], config: Config) -> pwd.struct_passwd:
    """Whom gon-edge runs as: the unit's user, else the owner of its state, else whoever asks."""
    with contextlib.suppress(KeyError):
        if unit.get("User"):
            return pwd.getpwnam(unit["User"])
    with contextlib.suppress(OSError, KeyError):
        return pwd.getpwuid(config.state_dir.stat().st_uid)
    return pwd.getpwuid(os.geteuid())


def _may(user: pwd.struct_passwd, path: Path, wanted: int) -> bool:
    """Whether `user` has the rights `wanted` (4 read, 2 write, 1 enter) on `path`."""
    status = path.stat()
    if user.pw_uid == 0:
        return True
    if status.st_uid == user.pw_uid:
        mode = status.st_mode >> 6
    elif status.st_gid in os.getgrouplist(user.pw_name, user.pw_gid):
        mode = status.st_mode >> 3
    else:
        mode = status.st_mode
    if mode & wanted == wanted:
        return True
    # An access list may say more than the mode: that is how systemd hands credentials over since version 256.
    if os.geteuid() == 0:
        tests = [f"-{letter}" for letter, right in (("r", 4), ("w", 2), ("x", 1)) if wanted & right]
        groups = os.getgrouplist(user.pw_name, user.pw_gid)
        return all(
            subprocess.run(
                ["test", test, str(path)], user=user.pw_uid, group=user.pw_gid, extra_groups=groups, check=False
            ).returncode
            == 0
            for test in tests
        )
    return os.geteuid() == user.pw_uid and os.access(path, wanted)


def _check_secrets(config: Config, user: pwd.struct_passwd) -> Iterator[Finding]:
    settings, http = config.mqtt, config.http
    for key, file in (
        ("mqtt.password_file", settings.password_file),
        ("mqtt.key_file", settings.key_file),
        ("http.token_file", http.token_file),
        ("http.password_file", http.password_file),
        ("http.key_file", http.key_file),
    ):
        if file is None:
            continue
        try:
            mode = stat.S_IMODE(file.stat().st_mode)
            readable = _may(user, file, 4)
        except OSError as error:
            advice = f"write the secret there; the unit may hand it over by LoadCredential={file.name}:/PATH"
            yield Finding("secrets", "fault", f"{key}: {file}: {error.strerror}", advice)
            continue
        if not readable:
            advice = f"chown {user.pw_name} {file}, or LoadCredential= in the unit"
            yield Finding("secrets", "fault", f"{key}: {user.pw_name} cannot read {file}", advice)
        elif mode & 0o007:
            yield Finding("secrets", "warning", f"{key}: everybody can read {file}", f"chmod o= {file}")
        else:
            yield Finding("secrets", "ok", f"{key}: {file}")
    if settings.username is not None and not settings.tls and not is_loopback(settings.host):
        text = f"the password goes to {settings.host} in clear text"
        yield Finding("secrets", "warning", text, "write mqtts:// in mqtt.url")
    for key, file in (("mqtt.cert_file", settings.cert_file), ("http.cert_file", http.cert_file)):
        if file is None:
            continue
        try:
            yield _certificate(key, certificate_expiry(file))
        except (OSError, ValueError) as error:
            yield Finding("certificate", "fault", f"{key}: {_one_line(error)}", "write a certificate there, PEM")


def _check_state(config: Config, user: pwd.struct_passwd) -> Iterator[Finding]:
    folder = config.state_dir
    if not folder.is_dir():
        parent = next(p for p in folder.parents if p.is_dir())
        if _may(user, parent, 3):
            yield Finding("state", "ok", f"{folder} will be made at the first start")
        else:
            advice = f"install -d -o {user.pw_name} -m 750 {folder}"
            yield Finding("state", "fault", f"{folder} is missing and {user.pw_name} cannot make it", advice)
        return
    if not _may(user, folder, 7):
        advice = f"chown -R {user.pw_name}: {folder}"
        yield Finding("state", "fault", f"{user.pw_name} cannot write {folder}", advice)
        return
    # A command that was run as root leaves files that the daemon then cannot write.
    foreign = [p for p in _files(folder) if not _may(user, p, 6)]
    if foreign:
        text = f"{user.pw_name} cannot write {foreign[0]}" + (f" and {len(foreign) - 1} more" if foreign[1:] else "")
        yield Finding("state", "fault", text, f"chown -R {user.pw_name}: {folder}")
    damaged = sorted(path.name for path in _files(folder) if ".damaged" in path.name)
    if damaged:
        advice = "keep them for a report, then remove them; if they come again, replace the card or disk"
        yield Finding("state", "warning", f"damaged files were set aside: {', '.join(damaged)}", advice)
    if not (folder / "state.db").exists():
        yield Finding("state", "ok", f"{folder}: no history yet")
        return
    try:
        with Store.open(folder, read_only=True) as store:
            rows = sum(store.streams().values())
            yield Finding("state", "ok", f"{folder}: {rows} rows in the database, streams: {len(store.streams())}")
    except (StoreError, PermissionError) as error:
        yield Finding("state", "fault", _one_line(error), "the daemon sets a damaged database aside when it starts")


def _files(folder: Path) -> list[Path]:
    """Regular files below `folder`; what cannot be looked into is left out."""
    return [
        Path(where) / name for where, _, names in os.walk(folder) for name in names if (Path(where) / name).is_file()
    ]


def _check_models(config: Config) -> Iterator[Finding]:
    good = 0
    for file in sorted((config.state_dir / "models").glob("*/model.npz")):
        try:
            load_model(file)
            good += 1
        except ModelFileError as error:
            before = any(file.parent.glob("model-*.npz"))
            advice = "the daemon takes its copy, or the one before it" if before else "the stream will warm up again"
            yield Finding("models", "warning" if before else "fault", _one_line(error), advice)
    yield Finding("models", "ok", f"models that can be read: {good}" if good else "no model yet: streams warm up first")


def _check_disk(config: Config, daemon: Mapping[str, Any]) -> Iterator[Finding]:
    folder = next(p for p in (config.state_dir, *config.state_dir.parents) if p.is_dir())
    disk = os.statvfs(folder)
    if disk.f_flag & os.ST_RDONLY:
        yield Finding("disk", "fault", f"{folder} is on a read-only file system", "mount it for writing; see dmesg")
        return
    kind = _file_system(folder)
    if kind in ("tmpfs", "ramfs", "overlay"):
        text = f"{folder} is on {kind}: models and history may be gone after a restart"
        yield Finding("disk", "warning", text, "name a state_dir on a disk")
    total, free = disk.f_blocks * disk.f_frsize, disk.f_bavail * disk.f_frsize
    used = sum(path.stat().st_size for path in _files(config.state_dir)) if config.state_dir.is_dir() else 0
    needed = max(0, config.store.max_bytes - used) + 32 * _MIB
    text = f"{folder}: {free / _MIB:.0f} MiB free, {used / _MIB:.0f} MiB used of store.max_size and models"
    if free < 16 * _MIB:
        yield Finding("disk", "fault", text, "make room: rows and models cannot be written")
    elif free < needed:
        advice = f"make room for {(needed - free) / _MIB:.0f} MiB more, or lower store.max_size"
        yield Finding("disk", "warning", text, advice)
    else:
        yield Finding("disk", "ok", text)
    yield from _wear(config, daemon, total)


def _wear(config: Config, daemon: Mapping[str, Any], total_bytes: int) -> Iterator[Finding]:
    """How often a year the daemon writes as much as the medium holds."""
    if not daemon or daemon["uptime_s"] < 3600.0 or not config.http.enabled:
        yield Finding("disk", "ok", "what is written in a day is known once the daemon has run for an hour")
        return
    metrics = daemon_api(config).metrics()
    lines = [line for line in metrics.splitlines() if line.startswith("gon_edge_disk_written_bytes_total ")]
    if not lines:
        return
    a_day = float(lines[0].split()[1]) / daemon["uptime_s"] * _DAY_S
    a_year = a_day * 365.0 / total_bytes
    text = f"{a_day / 1e6:.1f} MB written in a day: the whole medium {a_year:.2g} times a year"
    if a_year > _REWRITES_A_YEAR:
        yield Finding("disk", "warning", text, "raise store.flush_every, or use a larger card")
    else:
        yield Finding("disk", "ok", text)


def _file_system(folder: Path) -> str:
    """Kind of the file system `folder` is on; empty when the kernel does not say."""
    best, kind = "", ""
    with contextlib.suppress(OSError, IndexError, ValueError):
        for line in Path("/proc/self/mountinfo").read_text().splitlines():
            fields = line.split()
            mounted = fields[4].replace("\\040", " ")
            inside = f"{folder.resolve()}/".startswith(mounted.rstrip("/") + "/")
            if inside and len(mounted) >= len(best):
                best, kind = mounted, fields[fields.index("-") + 1]
    return kind


# -- the machine -------------------------------------------------------------------------------------------------------


def _check_memory(config: Config, unit: Mapping[str, str]) -> Iterator[Finding]:
    lines = Path("/proc/meminfo").read_text().splitlines()
    meminfo = {line.split(":")[0]: int(line.split()[1]) * 1024 for line in lines}
    needed = config.retrain.memory_budget_bytes + _DAEMON_BYTES
    text = f"{meminfo['MemAvailable'] / _MIB:.0f} MiB of {meminfo['MemTotal'] / _MIB:.0f} MiB available"
    if meminfo["MemAvailable"] < config.retrain.memory_budget_bytes:
        advice = "end other programs, or lower retrain.memory_budget: a training may not find the memory it plans with"
        yield Finding("memory", "warning", text, advice)
    else:
        yield Finding("memory", "ok", text)
    limit = unit.get("MemoryMax", "infinity")
    if limit.isdigit() and int(limit) < needed:
        advice = f"systemctl edit gon-edge, MemoryMax={needed // _MIB + 64}M, or lower retrain.memory_budget"
        text = f"MemoryMax of {UNIT} is {int(limit) // _MIB} MiB: too little for a training beside the daemon"
        yield Finding("memory", "warning", text, advice)
    if unit.get("ActiveState") == "active" and limit.isdigit():
        enforced = _enforced_bytes(unit.get("ControlGroup", ""))
        if enforced is not None and enforced <= int(limit):
            yield Finding("memory", "ok", f"the kernel holds {UNIT} to {enforced // _MIB} MiB")
        else:
            advice = (
                "on a Raspberry Pi add cgroup_enable=memory to /boot/firmware/cmdline.txt and restart; "
                "in a container or virtual machine ask who runs it"
            )
            text = f"the kernel does not hold {UNIT} to its {int(limit) // _MIB} MiB of MemoryMax"
            yield Finding("memory", "warning", text, advice)


def _enforced_bytes(group: str) -> int | None:
    """Limit of memory the kernel knows for a control group, version 2 or 1; ``None`` where there is none."""
    root = Path("/sys/fs/cgroup")
    for file in (
        root / group.lstrip("/") / "memory.max",
        root / "memory" / group.lstrip("/") / "memory.limit_in_bytes",
    ):
        with contextlib.suppress(OSError, ValueError):  # "max"
            return int(file.read_text())
    return None


def _check_clock() -> Iterator[Finding]:
    now = time.time()
    if now < _BUILT_AFTER:
        shown = datetime.fromtimestamp(now, UTC).date().isoformat()
        yield Finding("clock", "fault", f"the clock says {shown}", "set it, or wait for the time server")
        return
    state: int | None = None
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):
            # struct timex is at most 208 bytes; with modes = 0 nothing is set.
            state = ctypes.CDLL(None).adjtimex(ctypes.create_string_buffer(512))
    if state == _TIME_ERROR:
        advice = "timedatectl set-ntp true; readings stamped on receipt move when the clock is set"
        yield Finding("clock", "warning", "the clock is not synchronised with a time server", advice)
    elif state is None or state < 0:
        yield Finding("clock", "ok", "whether the clock is synchronised is not known here")
    else:
        yield Finding("clock", "ok", "synchronised")


def _one_line(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return text if isinstance(error, GonEdgeError | ValueError) and text else f"{type(error).__name__}: {text}"
