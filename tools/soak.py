"""Run the daemon for a while under everything that goes wrong in the field, and account for every row.

::

    sudo make soak MINUTES=30
    python tools/soak.py --minutes 12 --report soak.md

A real mosquitto, a real daemon, 20 streams of four sensors at 2 Hz, 16 with timestamps and 4 stamped on receipt.  First
the daemon is killed a few times (``kill -9``, once in the middle of the traffic); what follows is one life of one
process: floods of garbage, the broker restarted and frozen, the network cut, clocks set, the disk full, models trained
again.  After each of these the sending stops until everything has arrived, and the daemon's own counters must add up::

    sent <= accepted + late + invalid + dropped + ignored <= sent + delivered twice

where what MQTT delivers twice (QoS 1 after a lost connection) is read from the broker's log.  Only a process killed in
the middle may take rows with it, at most those sent since its counters were last read.

As root on Linux the daemon lives in a network namespace of its own, whose link is cut, and its state directory is a
small tmpfs, which is filled; without root both are left out, and the report says so.  The wall clock is set for the
daemon alone, by a few lines of C loaded before its libraries (needs ``cc``); this machine's is never touched.  Ctrl-C
cleans up.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import json
import os
import platform
import random
import shutil
import signal
import statistics
import struct
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from gon_edge import __version__
from gon_edge.config.file import parse_config
from gon_edge.links.publisher import Publisher
from gon_edge.state.folder import ModelFolder
from gon_edge.state.store import Store

STREAMS = [f"pump-{i:02d}" for i in range(16)]
RECEIPT = [f"valve-{i}" for i in range(4)]
RESULTS = ("accepted", "late", "invalid", "dropped", "ignored")
PERIOD_S = 0.5
GROWTH_BYTES = 1 << 20
SETTLED_S = 300.0
CLIENT = "gon-edge-soak"
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
# The longest wait until everything has arrived, and has been judged: readings that came in one burst and may be late
# are counted when the next one has come, or after `max_gap`, which is a minute.
_QUIET_S = 75.0


@dataclass
class Window:
    """What happened between two moments of rest.

    Attributes
    ----------
    what : str
    began_s, seconds : float
    sent : int
    counted : dict of str to int
    twice : int
        Messages the broker took or sent again, by its log.
    allowed : int
        Messages a killed process may have taken with it.
    before_kill : int
        Messages it had counted by then.
    note : str
    """

    what: str
    began_s: float
    seconds: float = 0.0
    sent: int = 0
    counted: dict[str, int] = field(default_factory=dict)
    twice: int = 0
    allowed: int = 0
    before_kill: int = 0
    note: str = ""

    @property
    def difference(self) -> int:
        """Counted less sent."""
        return sum(self.counted.values()) - self.sent

    @property
    def balanced(self) -> bool:
        """Whether every row is accounted for."""
        return -self.allowed <= self.difference <= self.twice


@dataclass(frozen=True)
class Sample:
    """The daemon's process at one moment."""

    at_s: float
    life: int
    rss_bytes: int
    threads: int
    files: int


class Sender(threading.Thread):
    """Publishes every stream each period, and floods when asked; the only thread that touches the connection."""

    def __init__(self, url: str, seed: int) -> None:
        super().__init__(name="sender", daemon=True)
        self.resting = threading.Event()  # asked for
        self.rests = threading.Event()  # nothing is on its way
        self.ending = threading.Event()
        self.clock_s = 0.0  # what the devices' clocks are wrong by
        self.flood: list[tuple[str, bytes]] = []
        self.error = ""
        self._url = url
        self._rng = random.Random(seed)
        self._load = dict.fromkeys((*STREAMS, *RECEIPT), 0.0)
        self.sent = 0

    def run(self) -> None:
        """Until `ending`."""
        settings = parse_config({"mqtt": {"url": self._url}, "subscriptions": [{"topic": "{stream}"}]}).mqtt
        try:
            with Publisher(settings, patience_s=180.0) as publisher:
                while not self.ending.is_set():
                    if self.resting.is_set():
                        publisher.drain()
                        self.sent = publisher.sent
                        self.rests.set()
                        publisher.wait_until(time.monotonic() + 0.1)
                        continue
                    self.rests.clear()
                    tick = time.monotonic()
                    flood, self.flood = self.flood, []
                    for topic, payload in (*self._rows(), *flood):
                        publisher.send(topic, payload)
                        self.sent = publisher.sent
                    publisher.wait_until(tick + PERIOD_S)
        except Exception as error:  # noqa: BLE001  the main thread reports it
            self.error = f"the sender failed: {error!r}"

    def _rows(self) -> Iterator[tuple[str, bytes]]:
        now = time.time() + self.clock_s
        for name in self._load:
            gauss = self._rng.gauss
            load = self._load[name] = 0.9 * self._load[name] + gauss(0, 1)
            row = {
                "flow": round(20 + load + gauss(0, 0.2), 3),
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
        self.namespace = f"gon-soak-{os.getpid()}" if os.geteuid() == 0 and shutil.which("ip") else ""
        self.link = f"gs{os.getpid() % 100000}"
        self.clock = shutil.which("cc") is not None
        self.small_disk = os.geteuid() == 0
        self.host = "10.213.77.1" if self.namespace else "127.0.0.1"
        self.port = 18830 + os.getpid() % 1000
        self.broker: subprocess.Popen[bytes] | None = None
        self.daemon: subprocess.Popen[bytes] | None = None
        self.life = 0
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
        if self.small_disk:
            _do("mount", "-t", "tmpfs", "-o", "size=24m,mode=700", "gon-edge-soak", str(self.state))
            self._undo.callback(_do, "umount", "--lazy", str(self.state))
        if self.namespace:
            _do("ip", "netns", "add", self.namespace)
            self._undo.callback(_do, "ip", "netns", "del", self.namespace)
            _do("ip", "link", "add", f"{self.link}a", "type", "veth", "peer", "name", f"{self.link}b")
            self._undo.callback(_do, "ip", "link", "del", f"{self.link}a", check=False)
            _do("ip", "link", "set", f"{self.link}b", "netns", self.namespace)
            _do("ip", "addr", "add", f"{self.host}/30", "dev", f"{self.link}a")
            _do("ip", "link", "set", f"{self.link}a", "up")
            inside = ("ip", "-n", self.namespace)
            _do(*inside, "addr", "add", "10.213.77.2/30", "dev", f"{self.link}b")
            _do(*inside, "link", "set", f"{self.link}b", "up")
            _do(*inside, "link", "set", "lo", "up")
        self._undo.callback(self._end)
        self._observer = ThreadPoolExecutor(1, initializer=self._enter_namespace)
        self._undo.callback(self._observer.shutdown)
        (self.folder / "mosquitto.conf").write_text(
            ("user root\n" if os.geteuid() == 0 else "")
            + "allow_anonymous true\nmax_queued_messages 0\nlog_type all\n"
            + f"persistence true\npersistence_location {self.folder}/\n"
            + "".join(f"listener {self.port} {host}\n" for host in sorted({"127.0.0.1", self.host}))
        )
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
            "http": {"listen": "127.0.0.1:19109"},
            "store": {"flush_every": "10s", "max_size": "8MiB", "rows": 20000},
            "retrain": {"every": "off", "on_drift": False, "max_temperature": "off", "max_load": "off"},
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
        for process in (self.daemon, self.broker):
            if process is not None and process.poll() is None:
                process.send_signal(signal.SIGCONT)
                process.kill()
                process.wait(10)

    def start_broker(self) -> None:
        """Start mosquitto; its state outlives it."""
        program = shutil.which("mosquitto", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
        if program is None:
            raise SystemExit("mosquitto is not installed; type: apt install mosquitto")
        with (self.folder / "mosquitto.log").open("ab") as log:
            command = [program, "-c", str(self.folder / "mosquitto.conf"), "-v"]
            self.broker = subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL)

    def stop_broker(self) -> None:
        """End it as a service manager does."""
        assert self.broker is not None
        self.broker.terminate()
        self.broker.wait(20)

    def start_daemon(self) -> None:
        """Start it, and wait until it is ready."""
        inside = ["ip", "netns", "exec", self.namespace] if self.namespace else []
        environment = dict(os.environ)
        if self.clock:
            environment |= {"LD_PRELOAD": str(self.folder / "clock.so"), "SOAK_CLOCK": str(self.folder / "clock")}
        with (self.folder / "daemon.log").open("ab") as log:
            command = [*inside, sys.executable, "-m", "gon_edge", "run", "--config", str(self.folder / "config.yaml")]
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
                urllib.request.urlopen(f"http://127.0.0.1:19109{path}", timeout=10) as answer,
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
        """Messages by result; ``None`` without an answer."""
        metrics = self.metrics()
        if not metrics:
            return None
        return {result: int(metrics[f'gon_edge_messages_total{{result="{result}"}}']) for result in RESULTS}

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

    def delivered_twice(self) -> int:
        """Messages the broker was given or gave the daemon again; the daemon's own are not among them."""
        text = (self.folder / "mosquitto.log").read_text(errors="replace").splitlines()
        taken = sum(" Received PUBLISH from " in x and "(d1" in x and f"from {CLIENT} " not in x for x in text)
        given = sum(f" Sending PUBLISH to {CLIENT} (d1" in x for x in text)
        return taken + given

    def set_clock(self, ahead_s: int) -> None:
        """The daemon's wall clock, by what it is ahead."""
        with (self.folder / "clock").open("r+b" if (self.folder / "clock").exists() else "wb") as file:
            file.write(struct.pack("=q", ahead_s))

    def cut(self, whole: bool) -> None:
        """Take the link away, or bring it back."""
        _do("ip", "link", "set", f"{self.link}a", "down" if whole else "up")

    def command(self, *arguments: str, timeout_s: float = 240.0) -> int:
        """The exit status of a command of gon-edge."""
        command = [sys.executable, "-m", "gon_edge", *arguments, "--config", str(self.folder / "config.yaml")]
        with (self.folder / "commands.log").open("ab") as log:
            return subprocess.run(command, stdout=log, stderr=log, timeout=timeout_s).returncode


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


class Soak:
    """The course of events and the account."""

    def __init__(self, rig: Rig, minutes: float, seed: int) -> None:
        self.rig = rig
        self.total_s = 60.0 * minutes
        self.rng = random.Random(seed)
        self.sender = Sender(f"mqtt://127.0.0.1:{rig.port}", seed)
        self.windows: list[Window] = []
        self.samples: list[Sample] = []
        self.trainings: list[tuple[str, int, float]] = []
        self.left_out: list[str] = []
        self.last_life_s = 0.0
        self.settled_s = 0.0
        self._began = time.monotonic()
        self._before = dict.fromkeys(RESULTS, 0)  # of this life, at the last rest
        self._sent = 0
        self._twice = 0
        self._lines = 0.0
        self._progress_ended = threading.Event()
        self._now = "starting"

    @property
    def at_s(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self._began

    def run(self) -> None:
        """All of it."""
        rig = self.rig
        rig.start_broker()
        rig.start_daemon()
        # What is sent before the first subscription is nobody's; later lives find their session at the broker.
        wait_for(lambda: rig.metrics().get("gon_edge_mqtt_connected") == 1.0, 60, "the daemon's connection")
        time.sleep(1.0)
        self.sender.start()
        watch = threading.Thread(target=self._watch, daemon=True)
        watch.start()
        try:
            self._kills()
            self.last_life_s = self.at_s
            # After five minutes of the last life; a short run has to do with half of it.
            self.settled_s = self.last_life_s + min(SETTLED_S, (self.total_s - self.last_life_s) / 2)
            self._everything_else()
            with self._window("the end, undisturbed"):
                self._go_on(max(20.0, self.total_s - self.at_s))
        finally:
            self._progress_ended.set()
            self.sender.ending.set()
            watch.join(10)
            self.sender.join(10)

    def _kills(self) -> None:
        with self._window("warm-up"):
            self._go_on(45.0)
        until_s = max(90.0, self.total_s / 5 - 40)
        while self.at_s < until_s:
            with self._window("kill -9 at rest") as window:
                self._rest(window)
                self._kill()
                self.rig.start_daemon()
                self._before = dict.fromkeys(RESULTS, 0)
                self.sender.resting.clear()
                self._go_on(15.0)
            with self._window("kill -9 in the traffic") as window:
                self._go_on(8.0)
                known = self.rig.counted()
                assert known is not None
                before = sum(known.values()) - sum(self._before.values())
                self._kill()
                window.allowed = max(0, self.sender.sent - self._sent - before)
                self._go_on(5.0)
                self.rig.start_daemon()
                window.before_kill = before
                window.counted = {r: known[r] - self._before[r] for r in RESULTS}
                self._before = dict.fromkeys(RESULTS, 0)
                self._go_on(10.0)

    def _kill(self) -> None:
        assert self.rig.daemon is not None
        self.rig.daemon.kill()
        self.rig.daemon.wait(10)

    def _everything_else(self) -> None:
        events = [
            ("a flood of garbage", self._flood),
            ("the broker restarts", self._broker_restarts),
            ("a model is trained again", self._retrain),
            ("the network is cut for 3 s", lambda: self._cut(3.0)),
            ("the daemon's clock is set", self._daemon_clock),
            ("the disk is full, and a training asked for", self._disk_full),
            ("the network is cut for 20 s", lambda: self._cut(20.0)),
            ("the devices' clocks are set", self._device_clocks),
            ("the broker hangs for 12 s", self._broker_hangs),
            ("a flood of garbage while a model is trained", lambda: self._retrain(self._flood)),
        ]
        while True:
            for what, event in events:
                if self.at_s > self.total_s - 60.0:
                    return
                with self._window(what) as window:
                    window.note = event() or ""
                    self._go_on(6.0)

    def _flood(self) -> str:
        flood = garbage(4000, self.rng)
        self.sender.flood = flood
        wait_for(lambda: not self.sender.flood, 60, "the flood")
        return f"{len(flood)} messages, {sum(len(p) for _, p in flood) / 1e6:.1f} MB"

    def _broker_restarts(self) -> str:
        self.rig.stop_broker()
        time.sleep(3.0)
        self.rig.start_broker()
        return "3 s without one"

    def _broker_hangs(self) -> str:
        assert self.rig.broker is not None
        self.rig.broker.send_signal(signal.SIGSTOP)
        self._go_on(12.0)
        self.rig.broker.send_signal(signal.SIGCONT)
        return "SIGSTOP"

    def _retrain(self, meanwhile: Callable[[], str] | None = None) -> str:
        stream = self.rng.choice(STREAMS)
        began = time.monotonic()
        with ThreadPoolExecutor(1) as pool:
            round_ = pool.submit(self.rig.command, "retrain", stream, "--wait", "--memory-budget", "64MiB")
            note = meanwhile() + "; " if meanwhile else ""
            status = round_.result()
        self.trainings.append((stream, status, time.monotonic() - began))
        return f"{note}{stream}: exit status {status} after {time.monotonic() - began:.0f} s"

    def _cut(self, seconds: float) -> str:
        if not self.rig.namespace:
            self._leave_out("network cuts: need root and ip(8)")
            return "left out"
        self.rig.cut(True)
        self._go_on(seconds)
        self.rig.cut(False)
        return "link down, nothing is told to either side"

    def _daemon_clock(self) -> str:
        if not self.rig.clock:
            self._leave_out("steps of the daemon's clock: need cc")
            return "left out"
        before = self.rig.metrics().get("gon_edge_clock_steps_total", 0.0)
        for ahead_s in (3600, -1800, 0):
            self.rig.set_clock(ahead_s)
            self._go_on(5.0)
        seen = self.rig.metrics().get("gon_edge_clock_steps_total", 0.0) - before
        return f"an hour ahead, half an hour behind, right again; the daemon counted {seen:.0f} steps"

    def _device_clocks(self) -> str:
        for self.sender.clock_s in (600.0, -300.0, 0.0):
            self._go_on(6.0)
        return "ten minutes ahead, five behind, right again"

    def _disk_full(self) -> str:
        if not self.rig.small_disk:
            self._leave_out("a full disk: needs root for a tmpfs")
            return "left out"
        filler = self.rig.state / "filler"
        errors = self.rig.metrics().get("gon_edge_store_write_errors_total", 0.0)
        with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
            while True:
                file.write(bytes(65536))
        with filler.open("ab", buffering=0) as file, contextlib.suppress(OSError):
            while True:
                file.write(b"\0")
        try:
            self._go_on(14.0)
            status = self.rig.command("retrain", self.rng.choice(STREAMS), "--wait")
        finally:
            filler.unlink()
        errors = self.rig.metrics().get("gon_edge_store_write_errors_total", 0.0) - errors
        return f"{errors:.0f} writes failed and were counted; the training's exit status was {status}"

    def _leave_out(self, what: str) -> None:
        if what not in self.left_out:
            self.left_out.append(what)

    # -- the account -------------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _window(self, what: str) -> Iterator[Window]:
        self._now = what
        window = Window(what, self.at_s)
        self.windows.append(window)
        yield window
        self._rest(window)
        self.sender.resting.clear()
        window.seconds = self.at_s - window.began_s

    def _rest(self, window: Window) -> None:
        """Stop sending, wait until all has arrived, and enter it; what a killed life had counted is entered already."""
        sender = self.sender
        sender.resting.set()
        wait_for(lambda: sender.rests.is_set() or sender.error, 120, "the broker's acknowledgements")
        if sender.error:
            raise SystemExit(sender.error)
        deadline, still_since, last = time.monotonic() + _QUIET_S, time.monotonic(), None
        while True:
            if self.rig.daemon_ended():
                raise SystemExit("the daemon has ended by itself")
            counted = self.rig.counted()
            now = time.monotonic()
            if counted != last or counted is None:
                still_since, last = now, counted
            elif now > deadline:
                break
            elif now - still_since > 3.0:  # counters of the queue move once a second
                total = sum(counted.values()) - sum(self._before.values()) + window.before_kill
                if total >= sender.sent - self._sent - window.allowed:
                    break
            time.sleep(0.25)
        assert last is not None
        twice = self.rig.delivered_twice()
        for result in RESULTS:
            more = last[result] - self._before[result]
            window.counted[result] = window.counted.get(result, 0) + more
        window.sent += sender.sent - self._sent
        window.twice += twice - self._twice
        self._before, self._sent, self._twice = last, sender.sent, twice
        if not window.balanced:
            self._say(f"unaccounted: {window.what}: {window.difference:+d}")

    def _go_on(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            if self.sender.error:
                raise SystemExit(self.sender.error)
            time.sleep(0.2)

    def _watch(self) -> None:
        """Look at the process every two seconds, and tell how it goes."""
        while not self._progress_ended.wait(2.0):
            sample = self.rig.sample(self.at_s)
            if sample is None:
                continue
            self.samples.append(sample)
            minutes, seconds = divmod(int(self.at_s), 60)
            text = (
                f"{minutes}:{seconds:02d} of {self.total_s / 60:g} min  {self.sender.sent} sent  "
                f"{sample.rss_bytes / 2**20:.1f} MiB  {sample.threads} threads  {sample.files} files  {self._now}"
            )
            if sys.stderr.isatty():
                print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)
            elif self.at_s - self._lines > 20.0:
                self._lines = self.at_s
                print(text, file=sys.stderr, flush=True)

    def _say(self, text: str) -> None:
        print(f"{chr(10) if sys.stderr.isatty() else ''}{text}", file=sys.stderr, flush=True)

    # -- the verdict -------------------------------------------------------------------------------------------------

    def findings(self) -> list[tuple[bool, str, str]]:
        """What had to hold, whether it did, and the figures; ends the daemon."""
        rig = self.rig
        sent = sum(window.sent for window in self.windows)
        totals = {r: sum(window.counted.get(r, 0) for window in self.windows) for r in RESULTS}
        bad = [window.what for window in self.windows if not window.balanced]
        lost = -sum(window.difference for window in self.windows if window.allowed and window.difference < 0)
        account = (
            f"{sent} sent; " + ", ".join(f"{totals[r]} {r}" for r in RESULTS) + f"; {sum(totals.values()) - sent:+d}, "
            f"{sum(w.twice for w in self.windows)} delivered twice at most, {lost} gone with a killed process"
        )
        found = [(not bad, "every row is accounted for", account + (f"; not: {', '.join(bad)}" if bad else ""))]

        life = [sample for sample in self.samples if sample.life == rig.life]
        first = [sample for sample in life if self.settled_s <= sample.at_s < self.settled_s + 30]
        last = life[-15:]
        if not first or not last:
            return [*found, (False, "memory, threads and files stay", "the run was too short to say")]
        before, after = (statistics.median(s.rss_bytes for s in part) for part in (first, last))
        at_s = self.settled_s - self.last_life_s
        found.append(
            (
                after - before < GROWTH_BYTES,
                "resident memory grew by less than 1 MiB",
                (
                    f"{before / 2**20:.2f} MiB {at_s:.0f} s after the last start, {after / 2**20:.2f} MiB at the end "
                    f"({(after - before) / 2**20:+.2f}; medians of 30 s)"
                ),
            )
        )
        for what, of in (("threads", lambda s: s.threads), ("file descriptors", lambda s: s.files)):
            # A minute, and what is there most of the time: a connection that is being cut has no file.
            minute = [of(s) for s in life if self.settled_s <= s.at_s < self.settled_s + 60]
            begin, end = statistics.mode(minute), statistics.mode([of(s) for s in last])
            found.append((begin == end, f"{what} are where they were", f"{begin} before, {end} at the end"))

        assert rig.daemon is not None
        began = time.monotonic()
        rig.daemon.terminate()
        try:
            status: int | None = rig.daemon.wait(20)
        except subprocess.TimeoutExpired:
            status = None
        ended_s = time.monotonic() - began
        found.append((status == 0, "SIGTERM ends it well", f"exit status {status} after {ended_s:.1f} s"))

        models, wrong = ModelFolder(rig.state), []
        for name in (*STREAMS, *RECEIPT):
            model, problem = models.load(name)
            if model is None or problem:
                wrong.append(f"{name}: {problem or 'none'}")
        count = len(STREAMS) + len(RECEIPT)
        found.append((not wrong, "every stream has a valid model", "; ".join(wrong) or f"{count} of {count}"))
        with Store.open(rig.state) as store:
            rows = sum(store.streams().values())
            sound = store.persistent and not store.recovered and not store.damaged_chunks
            rounds = store.retrains()
        found.append((sound, "the database is sound", f"{rows} rows, {len(rounds)} rounds of training in it"))
        log = (rig.folder / "daemon.log").read_text(errors="replace")
        traces = log.count("Traceback (most recent call last)")
        found.append((traces == 0, "no traceback in the log", f"{traces}; {len(log.splitlines())} lines"))
        return found

    def report(self, findings: list[tuple[bool, str, str]]) -> str:
        """The run as Markdown."""
        life = [sample for sample in self.samples if sample.life == self.rig.life]
        lines = [
            "# A soak of the daemon",
            "",
            "Made by `tools/soak.py` (`make soak`), which says what is done and how rows are accounted for.",
            "",
            (
                f"gon-edge {__version__}, Python {platform.python_version()}, {platform.machine()}, {os.cpu_count()} "
                f"cores; {self.at_s / 60:.1f} minutes, {len(STREAMS) + len(RECEIPT)} streams at {1 / PERIOD_S:g} Hz, "
                f"{self.rig.life} lives of the daemon, load {os.getloadavg()[0]:.1f}."
            ),
            "",
            "| | What had to hold | Seen |",
            "|---|---|---|",
            *(f"| {'ok' if good else '**failed**'} | {what} | {seen} |" for good, what, seen in findings),
            "",
            *(f"Left out: {what}." for what in self.left_out),
            "## What was done",
            "",
            (
                "Each line ends at rest: everything sent has arrived. *More* is counted less sent; *twice* is how many "
                "messages the broker's log says were delivered again, the most that *more* may be."
            ),
            "",
            "| At | s | What | Sent | Accepted | Late | Invalid | Dropped | Ignored | More | Twice | |",
            "|---:|---:|---|---:|---:|---:|---:|---:|---:|---:|---:|---|",
        ]
        for w in self.windows:
            counts = " | ".join(str(w.counted.get(r, 0)) for r in RESULTS)
            note = w.note + (f"at most {w.allowed} may be gone" if w.allowed else "")
            note += "" if w.balanced else " **unaccounted**"
            minutes, seconds = divmod(int(w.began_s), 60)
            lines.append(
                f"| {minutes}:{seconds:02d} | {w.seconds:.0f} | {w.what} | {w.sent} | {counts} "
                f"| {w.difference:+d} | {w.twice} | {note} |"
            )
        lines += [
            "",
            "## The last life, minute by minute",
            "",
            "| Minute | MiB | Threads | Files |",
            "|---:|---:|---:|---:|",
        ]
        for minute in range(int(life[-1].at_s - life[0].at_s) // 60 + 1 if life else 0):
            part = [s for s in life if minute <= (s.at_s - life[0].at_s) / 60 < minute + 1]
            if part:
                rss = statistics.median(s.rss_bytes for s in part) / 2**20
                threads, files = (sorted({of(s) for s in part}) for of in (lambda s: s.threads, lambda s: s.files))
                span = [f"{x[0]}" if len(x) == 1 else f"{x[0]} to {x[-1]}" for x in (threads, files)]
                lines.append(f"| {minute + 1} | {rss:.2f} | {span[0]} | {span[1]} |")
        return "\n".join(lines) + "\n"


def main() -> int:
    """Run it, write the report; the exit status is 1 when something did not hold."""
    parser = argparse.ArgumentParser(description="Run the daemon under everything that goes wrong in the field.")
    parser.add_argument("--minutes", type=float, default=30.0, help="how long (default: 30; at least 5)")
    parser.add_argument("--report", type=Path, default=Path("build/soak.md"), help="where to (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of rows, garbage and choices (default: 0)")
    parser.add_argument("--keep", type=Path, help="copy the logs of daemon and broker to this folder")
    args = parser.parse_args()
    if args.minutes < 5:
        parser.error("at least 5 minutes: the first model needs one, the account of memory some more")
    signal.signal(signal.SIGTERM, lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    folder = Path(tempfile.mkdtemp(prefix="gon-edge-soak-"))
    try:
        with Rig(folder) as rig:
            soak = Soak(rig, args.minutes, args.seed)
            try:
                soak.run()
                findings = soak.findings()
            finally:
                if args.keep:
                    args.keep.mkdir(parents=True, exist_ok=True)
                    for log in folder.glob("*.log"):
                        shutil.copy(log, args.keep)
            args.report.parent.mkdir(parents=True, exist_ok=True)
            args.report.write_text(soak.report(findings))
    except KeyboardInterrupt:
        print("\ninterrupted; nothing is left behind", file=sys.stderr)
        return 130
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    for good, what, seen in findings:
        print(f"{'ok    ' if good else 'FAILED'}  {what}: {seen}")
    print(f"the report is {args.report}")
    return int(not all(good for good, _, _ in findings))


if __name__ == "__main__":
    sys.exit(main())
