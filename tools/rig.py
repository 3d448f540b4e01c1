"""What is soaked: a real broker, the daemon, its network, disk and clock, and devices that send.

``soak`` and ``chaos`` say what is done to them, ``account`` what must add up.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import random
import re
import shutil
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from confined import Confinement

from gon_edge.config.file import parse_config
from gon_edge.links.publisher import Publisher

STREAMS = [f"pump-{i:02d}" for i in range(16)]
RECEIPT = [f"valve-{i}" for i in range(4)]
RESULTS = ("accepted", "late", "invalid", "dropped", "ignored", "undecided")
PERIOD_S = 0.5
_KEPT_AT_ONCE = 20  # not critical: rows of a stream in one tick, while it sends what it had kept
CLIENT = "gon-edge-soak"
LISTENER = "gon-soak-listener"
ALERTS = "gon-edge/soak/alert"
_CLONE_NEWNET = 0x40000000
# libfaketime would do, but for clock_nanosleep(), which it breaks for Python.
_CLOCK = r"""
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>
static volatile long *offset;
__attribute__((constructor)) static void begin(void) {
    int file = open(getenv("SOAK_CLOCK"), O_RDONLY | O_CLOEXEC);
    void *page = file < 0 ? MAP_FAILED : mmap(0, sizeof *offset, PROT_READ, MAP_SHARED, file, 0);
    if (page != MAP_FAILED) offset = page;
    if (file >= 0) close(file);
}
int clock_gettime(clockid_t clock, struct timespec *now) {
    int failed = syscall(SYS_clock_gettime, clock, now);
    if (!failed && offset && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)) now->tv_sec += *offset;
    return failed;
}
time_t time(time_t *out) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (out) *out = now.tv_sec;
    return now.tv_sec;
}
int gettimeofday(struct timeval *restrict out, void *restrict zone) {
    struct timespec now;
    (void)zone;
    clock_gettime(CLOCK_REALTIME, &now);
    out->tv_sec = now.tv_sec;
    out->tv_usec = now.tv_nsec / 1000;
    return 0;
}
"""


@dataclass(frozen=True)
class Sample:
    """The daemon's process at one moment."""

    at_s: float
    life: int
    rss_bytes: int
    threads: int
    files: int


class Sender(threading.Thread):
    """Publishes every stream each period, and floods when asked; the only thread that touches the connection.

    Parameters
    ----------
    url : str
        Of the broker.
    seed : int
        Of the rows.
    names : sequence of str
        Streams; those of `RECEIPT` send no timestamps.
    backlog : int
        Rows each stream has kept before it begins, and sends first, as fast as they are taken.
    """

    def __init__(self, url: str, seed: int, names: Sequence[str], backlog: int = 0) -> None:
        super().__init__(name="sender", daemon=True)
        self.resting = threading.Event()  # asked for
        self.rests = threading.Event()  # nothing is on its way
        self.ending = threading.Event()
        self.clock_s = 0.0  # what the devices' clocks are wrong by
        self.flood: list[tuple[str, bytes]] = []
        self.faulty: set[str] = set()  # streams whose flow is wrong
        self.error = ""
        self._url = url
        self._rng = random.Random(seed)
        self.names = names
        self._load = dict.fromkeys(names, 0.0)
        self._behind_s = backlog * PERIOD_S
        self.sent = 0  # but for what the broker does not take, and says so

    def run(self) -> None:
        """Until `ending`."""
        settings = parse_config({"mqtt": {"url": self._url}, "subscriptions": [{"topic": "{stream}"}]}).mqtt
        try:
            with Publisher(settings, patience_s=180.0) as publisher:
                while not self.ending.is_set():
                    if self.resting.is_set():
                        publisher.drain()
                        self.sent = publisher.sent - publisher.refused
                        self.rests.set()
                        publisher.wait_until(time.monotonic() + 0.1)
                        continue
                    self.rests.clear()
                    tick = time.monotonic()
                    flood, self.flood = self.flood, []
                    for topic, payload in (*self._ticks(), *flood):
                        publisher.send(topic, payload)
                        self.sent = publisher.sent - publisher.refused
                    publisher.wait_until(tick + PERIOD_S)
        except Exception as error:  # noqa: BLE001  the main thread reports it
            self.error = f"the sender failed: {error!r}"

    def _ticks(self) -> Iterator[tuple[str, bytes]]:
        """Rows of now, or the next ones of what was kept; what is behind shrinks with each tick."""
        begin = time.time() + self.clock_s
        if self._behind_s <= 0.0:
            yield from self._rows(begin)
            return
        for _ in range(_KEPT_AT_ONCE):
            if self._behind_s < 0.0:
                break
            yield from self._rows(begin - self._behind_s)
            self._behind_s -= PERIOD_S
        self._behind_s += PERIOD_S  # the next tick is one period later

    def _rows(self, now: float) -> Iterator[tuple[str, bytes]]:
        for name in self._load:
            gauss = self._rng.gauss
            load = self._load[name] = 0.9 * self._load[name] + gauss(0, 1)
            row = {
                "flow": round(20 + load + gauss(0, 0.2) + (8 if name in self.faulty else 0), 3),
                "pressure": round(3 + 0.2 * load + gauss(0, 0.04), 4),
                "current": round(1.2 + 0.1 * load + gauss(0, 0.02), 4),
                "temperature": round(45 + 0.5 * load + gauss(0, 0.1), 3),
            }
            if name in RECEIPT:
                yield f"receipt/{name}", json.dumps(row).encode()
            else:
                yield f"telemetry/{name}", json.dumps({"time": round(now, 3), **row}).encode()


def garbage(count: int, rng: random.Random) -> list[tuple[str, bytes]]:
    """Messages nobody should send; each is one unit of the account."""
    deep = b'{"a":' * 2000 + b"1" + b"}" * 2000
    kinds: tuple[Callable[[], tuple[str, bytes]], ...] = (
        lambda: (f"telemetry/{rng.choice(STREAMS)}", rng.randbytes(rng.randrange(1, 200))),
        lambda: (f"telemetry/{rng.choice(STREAMS)}", b""),
        lambda: (f"telemetry/{rng.choice(STREAMS)}", b'{"time": 1e300, "flow": 1}'),
        lambda: (f"telemetry/{rng.choice(STREAMS)}", deep),
        lambda: (f"telemetry/{rng.choice(STREAMS)}", b'{"flow": ' + b"9" * 400),
        lambda: (f"telemetry/{rng.choice(STREAMS)}", b'{"flow": "' + b"x" * 300_000 + b'"}'),
        lambda: (f"telemetry/x{rng.randrange(10**6)}", b'{"flow": 1}'),  # a device that changes its name
        lambda: (f"telemetry/{'n' * 300}", b'{"flow": 1}'),
        lambda: (f"receipt/{rng.choice(RECEIPT)}", b'"off"'),
        lambda: ("receipt/\u202egnp", b'{"flow": 1}'),
    )
    return [rng.choices(kinds, [20, 5, 5, 2, 5, 0.2, 20, 5, 5, 5])[0]() for _ in range(count)]


class Rig:
    """Broker, daemon, network and disk; a context that leaves nothing behind."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.state = folder / "state"
        self.namespace = f"gon-soak-{os.getpid()}" if _may("ip", "netns", "add", f"gon-try-{os.getpid()}") else ""
        if self.namespace:
            _do("ip", "netns", "del", f"gon-try-{os.getpid()}")
        self.link = f"gs{os.getpid() % 100000}"
        self.clock = shutil.which("cc") is not None
        self.small_disk = False
        self.confined: Confinement | None = None
        # A network of two addresses for each rig: several may run at a time.
        high, low = divmod(os.getpid() % (1 << 14), 1 << 6)
        self.inside, self.host = f"10.213.{high}.{4 * low + 2}", "127.0.0.1"
        if self.namespace:
            self.host = f"10.213.{high}.{4 * low + 1}"
        self.port = 18830 + os.getpid() % 1000
        self.http_port = self.port + 1000
        self.broker: subprocess.Popen[bytes] | None = None
        self.daemon: subprocess.Popen[bytes] | None = None
        self.life = 0
        self.asked_for = 0  # its own messages of an earlier life, of which the broker has sent those that it had kept
        self._listener: subprocess.Popen[bytes] | None = None
        self._undo = contextlib.ExitStack()
        self._observer: ThreadPoolExecutor | None = None

    def __enter__(self) -> Rig:
        with contextlib.ExitStack() as stack:
            self._undo = stack
            self._lay()
            self._undo = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._undo.close()

    def _lay(self) -> None:
        self.state.mkdir()
        self.small_disk = _may("mount", "-t", "tmpfs", "-o", "size=24m,mode=700", "gon-edge-soak", str(self.state))
        if self.small_disk:
            self._undo.callback(_do, "umount", "-l", str(self.state))
        if self.namespace:
            _do("ip", "netns", "add", self.namespace)
            self._undo.callback(_do, "ip", "netns", "del", self.namespace)
            _do("ip", "link", "add", f"{self.link}a", "type", "veth", "peer", "name", f"{self.link}b")
            self._undo.callback(_do, "ip", "link", "del", f"{self.link}a", check=False)
            _do("ip", "link", "set", f"{self.link}b", "netns", self.namespace)
            _do("ip", "addr", "add", f"{self.host}/30", "dev", f"{self.link}a")
            _do("ip", "link", "set", f"{self.link}a", "up")
            inside = ("ip", "-n", self.namespace)
            _do(*inside, "addr", "add", f"{self.inside}/30", "dev", f"{self.link}b")
            _do(*inside, "link", "set", f"{self.link}b", "up")
            _do(*inside, "link", "set", "lo", "up")
        with contextlib.suppress(OSError):
            self.confined = Confinement(f"gon-edge-soak-{os.getpid()}")
            self._undo.callback(self.confined.remove)
        self._undo.callback(self._end)
        self._observer = ThreadPoolExecutor(1, initializer=self._enter_namespace)
        self._undo.callback(self._observer.shutdown)
        self.configure_broker()
        self.allow()
        self.set_clock(0)
        if self.clock:
            (self.folder / "clock.c").write_text(_CLOCK)
            _do("cc", "-O2", "-shared", "-fPIC", "-o", str(self.folder / "clock.so"), str(self.folder / "clock.c"))
        settings = {
            "node": "soak",
            "state_dir": str(self.state),
            "mqtt": {
                "url": f"mqtt://{self.host}:{self.port}",
                "client_id": CLIENT,
                "keepalive": "5s",
                "reconnect_max": "3s",
                "queue_messages": 1000,
            },
            "subscriptions": [{"topic": "telemetry/{stream}", "timestamp": "time"}, {"topic": "receipt/{stream}"}],
            "limits": {"streams": 24},
            "http": {"listen": f"127.0.0.1:{self.http_port}"},
            "store": {"flush_every": "10s", "max_size": "8MiB", "rows": 20000},
            # At nice 19 a training would wait for ever on a machine that is busy with other tests.
            "retrain": {"every": "off", "on_drift": False, "max_temperature": "off", "max_load": "off", "nice": 0},
            "streams": {"defaults": {"interval": "500ms", "warmup_rows": 120}},
        }
        (self.folder / "config.yaml").write_text(json.dumps(settings))

    def _enter_namespace(self) -> None:
        """For the one thread that asks the daemon: its sockets are in the daemon's network."""
        if self.namespace:
            with Path(f"/run/netns/{self.namespace}").open() as file:
                if ctypes.CDLL(None, use_errno=True).setns(file.fileno(), _CLONE_NEWNET):
                    raise OSError(ctypes.get_errno(), "setns")

    def _end(self) -> None:
        for process in (self.daemon, self.broker, self._listener):
            if process is not None and process.poll() is None:
                process.send_signal(signal.SIGCONT)
                process.kill()
                process.wait(10)

    def configure_broker(self, most_packet: int = 0) -> None:
        """How the broker is from its next start on, with a limit of its packets in bytes."""
        (self.folder / "mosquitto.conf").write_text(
            ("user root\n" if os.geteuid() == 0 else "")
            + "allow_anonymous true\nmax_queued_messages 0\nlog_type all\n"
            + f"persistence true\npersistence_location {self.folder}/\nacl_file {self.folder}/acl\n"
            + (f"max_packet_size {most_packet}\n" if most_packet else "")
            + "".join(f"listener {self.port} {host}\n" for host in sorted({"127.0.0.1", self.host}))
        )

    def allow(self, *denied: str) -> None:
        """What everybody may write, but for some topics; a broker that runs heeds it at once."""
        # Patterns: with topic lines mosquitto 2.0.11 drops what comes for a session between its own restart and the
        # return of the client, without a word (docs/limits.md).
        lines = [*(f"pattern deny {topic}" for topic in denied), "pattern readwrite #"]
        (self.folder / "acl").write_text("\n".join(lines) + "\n")
        if self.broker is None:
            return
        log, said = self.folder / "mosquitto.log", "Reloading config."
        before = log.read_text(errors="replace").count(said)
        self.broker.send_signal(signal.SIGHUP)
        # One that is told to end in the same moment loses its sessions (mosquitto 2.0.11).
        wait_for(lambda: log.read_text(errors="replace").count(said) > before, 30, "the broker's new rights")

    def start_broker(self) -> None:
        """Start mosquitto; its state outlives it."""
        program = shutil.which("mosquitto", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
        if program is None:
            raise SystemExit("mosquitto is not installed; type: apt install mosquitto")
        with (self.folder / "mosquitto.log").open("ab") as log:
            command = [program, "-c", str(self.folder / "mosquitto.conf"), "-v"]
            self.broker = subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
        wait_for(lambda: self._broker_answers() or self.broker.poll() is not None, 60, "the broker's answer")
        if (status := self.broker.poll()) is not None:
            raise SystemExit(f"mosquitto ended at its start with {status}, which is no fault of the daemon")

    def _broker_answers(self) -> bool:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1.0):
            return True
        return False

    def stop_broker(self) -> None:
        """End it as a service manager does; mosquitto forgets a SIGTERM that comes before its main loop."""
        assert self.broker is not None
        for _ in range(20):
            self.broker.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.broker.wait(3)
                return
        raise TimeoutError("mosquitto did not end within a minute of SIGTERM")

    def start_daemon(self) -> None:
        """Start it, and wait until it is ready."""
        inside = ["ip", "netns", "exec", self.namespace] if self.namespace else []
        environment = dict(os.environ)
        if self.clock:
            environment |= {"LD_PRELOAD": str(self.folder / "clock.so"), "SOAK_CLOCK": str(self.folder / "clock")}
        with (self.folder / "daemon.log").open("ab") as log:
            command = [*inside, sys.executable, "-m", "gon_edge", "run", "--config", str(self.folder / "config.yaml")]
            if self.confined is not None:
                command = self.confined.within(command)
            self.daemon = subprocess.Popen(command, stderr=log, stdin=subprocess.DEVNULL, env=environment)
        self.life += 1
        wait_for(lambda: self.get("/readyz") is not None or self.daemon_ended(), 60, "the daemon's start")
        if self.daemon_ended():
            raise SystemExit(f"the daemon did not start: {(self.folder / 'daemon.log').read_text()[-800:]}")

    def daemon_ended(self) -> bool:
        """Whether there is no process."""
        return self.daemon is None or self.daemon.poll() is not None

    def get(self, path: str) -> str | None:
        """An answer of the daemon; ``None`` without one."""

        def ask() -> str | None:
            with (
                contextlib.suppress(OSError),
                urllib.request.urlopen(f"http://127.0.0.1:{self.http_port}{path}", timeout=10) as answer,
            ):
                return str(answer.read().decode())
            return None

        assert self._observer is not None
        return self._observer.submit(ask).result()

    def metrics(self) -> dict[str, float]:
        """Every series; empty without an answer."""
        lines = (self.get("/metrics") or "").splitlines()
        return {x.rpartition(" ")[0]: float(x.rpartition(" ")[2]) for x in lines if x and not x.startswith("#")}

    def counted(self) -> dict[str, int] | None:
        """Messages of devices by result; ``None`` without an answer."""
        metrics = self.metrics()
        if not metrics:
            return None
        counts = {result: int(metrics[f'gon_edge_messages_total{{result="{result}"}}']) for result in RESULTS[:-1]}
        counts["undecided"] = int(metrics["gon_edge_messages_undecided"])
        self.asked_for = int(metrics.get('gon_edge_messages_ignored_total{reason="own"}', 0.0))
        counts["ignored"] -= self.asked_for
        return counts

    def counted_at_its_stop(self) -> tuple[dict[str, int], int]:
        """Messages of devices by result, as the daemon says that was stopped last, and those it knew no result of."""
        line = (self.folder / "daemon.log").read_text(errors="replace").rpartition("stopped; messages: ")[2]
        counts = {what: int(count) for count, what in re.findall(r"(\d+) ([a-z ]+)", line.partition("\n")[0])}
        counts["ignored"] -= self.asked_for
        gone = counts["undecided"] + counts["not judged"]
        return {result: counts[result] for result in RESULTS} | {"undecided": 0}, gone

    def sample(self, at_s: float) -> Sample | None:
        """What the kernel says of the daemon's process; ``None`` where there is none."""
        assert self.daemon is not None
        folder = Path(f"/proc/{self.daemon.pid}")
        with contextlib.suppress(OSError, KeyError, ValueError):
            lines = (line.split(":") for line in (folder / "status").read_text().splitlines())
            status = {key: value.strip() for key, value in lines if key in ("VmRSS", "Threads")}
            files = len(list((folder / "fd").iterdir()))
            rss_bytes = 1024 * int(status["VmRSS"].split()[0])
            return Sample(at_s, self.life, rss_bytes, int(status["Threads"]), files)
        return None

    def children(self) -> list[int]:
        """Processes the daemon has started: trainings."""
        assert self.daemon is not None
        with contextlib.suppress(OSError):
            return [
                int(child)
                for task in Path(f"/proc/{self.daemon.pid}/task").iterdir()
                for child in (task / "children").read_text().split()
            ]
        return []

    def start_listener(self) -> None:
        """A subscriber to alerts with a session of its own, which comes back by itself."""
        command = ["mosquitto_sub", "-p", str(self.port), "-i", LISTENER, "-c", "-q", "1", "-t", ALERTS, "-F", "%U %p"]
        with (self.folder / "heard").open("ab") as out:
            self._listener = subprocess.Popen(command, stdout=out, stderr=out, stdin=subprocess.DEVNULL)

    def heard(self) -> list[tuple[float, dict[str, Any]]]:
        """Events the subscriber has got, each with when it came."""
        lines = (line.split(" ", 1) for line in (self.folder / "heard").read_text().splitlines() if " {" in line)
        return [(float(at_s), json.loads(event)) for at_s, event in lines]

    def subscriptions(self, client: str) -> int:
        """How often a client has connected so far, by the broker's log."""
        text = (self.folder / "mosquitto.log").read_text(errors="replace")
        return text.count(f"Received SUBSCRIBE from {client}\n")

    def states(self) -> list[dict[str, Any]]:
        """States of streams that the broker retains."""
        command = ["mosquitto_sub", "-p", str(self.port), "-t", "gon-edge/soak/state/#", "-W", "2", "--retained-only"]
        done = subprocess.run(command, capture_output=True, timeout=20)
        return [json.loads(line) for line in done.stdout.splitlines()]

    def delivered_twice(self) -> int:
        """Messages the broker was given or gave the daemon again; the daemon's own are not among them."""
        text = (self.folder / "mosquitto.log").read_text(errors="replace").splitlines()
        taken = sum(" Received PUBLISH from " in x and "(d1" in x and f"from {CLIENT} " not in x for x in text)
        given = sum(f" Sending PUBLISH to {CLIENT} (d1" in x for x in text)
        return taken + given

    def acknowledged(self) -> int:
        """How many messages the daemon has taken from the broker so far."""
        text = (self.folder / "mosquitto.log").read_text(errors="replace")
        return text.count(f"Received PUBACK from {CLIENT} ")

    def opened(self) -> set[str]:
        """Alerts that have begun, by the daemon's log."""
        text = (self.folder / "daemon.log").read_text(errors="replace")
        return set(re.findall(r" alert new .* \[(\S+)\]$", text, re.MULTILINE))

    def set_clock(self, ahead_s: int) -> None:
        """The daemon's wall clock, by what it is ahead."""
        with (self.folder / "clock").open("r+b" if (self.folder / "clock").exists() else "wb") as file:
            file.write(struct.pack("=q", ahead_s))

    def cut(self, whole: bool) -> None:
        """Take the link away, or bring it back."""
        _do("ip", "link", "set", f"{self.link}a", "down" if whole else "up")

    def command(self, *arguments: str, timeout_s: float = 900.0) -> int:
        """The exit status of a command of gon-edge."""
        command = [sys.executable, "-m", "gon_edge", *arguments, "--config", str(self.folder / "config.yaml")]
        with (self.folder / "commands.log").open("ab") as log:
            return subprocess.run(command, stdout=log, stderr=log, timeout=timeout_s).returncode


def _may(*command: str) -> bool:
    """Do it, where it is allowed here."""
    with contextlib.suppress(FileNotFoundError):
        return os.geteuid() == 0 and subprocess.run(command, capture_output=True).returncode == 0
    return False


def _do(*command: str, check: bool = True) -> None:
    subprocess.run(command, check=check, capture_output=not check)


def wait_for(condition: Callable[[], object], timeout_s: float, what: str) -> None:
    """Poll until it is true.

    Raises
    ------
    TimeoutError
    """
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what} did not come within {timeout_s:.0f} s")
        time.sleep(0.1)
