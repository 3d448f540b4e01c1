"""The demonstration as processes: a broker, the daemon, telemetry of this machine, and a real, bounded fault.

`run_demo` starts them, does what `story.Story` decides, and shows it by ``picture``.  Everything it started ends with
it, also when it is killed.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import psutil
import yaml
from rich.console import Console, Group, RenderableType
from rich.live import Live

from gon_edge.commands.draw import line
from gon_edge.commands.terminal import console, wants_redraw
from gon_edge.commands.text import visible
from gon_edge.config.file import parse_config
from gon_edge.config.schema import MqttConfig
from gon_edge.demo.broker import embedded_broker, free_port
from gon_edge.demo.picture import Seen, picture, status_line
from gon_edge.demo.story import LOOK_EVERY_S, DemoSettings, Story
from gon_edge.errors import GonEdgeError, UnreachableError
from gon_edge.links.client import DaemonApi, histogram_buckets, histogram_quantile
from gon_edge.links.publisher import Publisher, publish_samples
from gon_edge.process.child import end_child, python, start_child
from gon_edge.process.host import HostTelemetry
from gon_edge.process.scratch import interrupt_by, own_directory

_INTERVAL_S = 0.5
"""Between readings: two a second show a fault within a few seconds, and a warm-up takes one minute."""

_LINE_EVERY_S = 5.0
"""Between lines where nothing is drawn.  Not critical."""

_START_S = 60.0
"""Until the daemon must answer.  A Raspberry Pi 3 takes ten seconds for the imports."""

_LATENCY_OVER_S = 30.0
"""Rows that waited for the model drop out of the latency after it.  Not critical."""

_MOST_MEMORY = 4 << 30
"""Bytes the fault holds at most, so that no machine starts to swap for a demonstration."""

_LATENCY = "gon_edge_ingest_to_verdict_seconds"


def run_demo(settings: DemoSettings, out: IO[str]) -> int:
    """Run a demonstration until its duration is over or until Ctrl-C, SIGTERM or SIGHUP.

    Parameters
    ----------
    settings : DemoSettings
    out : text file
        A terminal gets a picture redrawn in place, anything else plain lines.

    Returns
    -------
    int
        0 when the alert was seen, or none was to be seen; 1 when the fault raised none; 130 when interrupted before.

    Raises
    ------
    GonEdgeError
        No broker to start, or the daemon does not start, with its own last words.
    """
    name = re.sub(r"[/+#\s]", "-", socket.gethostname()) or "this-machine"
    load = Load.for_this_machine(settings.fault_s)
    story = Story(settings, name, load.text)
    interrupted = False
    with interrupt_by(signal.SIGINT, signal.SIGTERM, signal.SIGHUP) as ignore_from_now_on:
        try:
            with contextlib.ExitStack() as stack:
                directory = stack.enter_context(own_directory("gon-edge-demo-"))
                broker = settings.broker
                if broker is None:
                    broker = _mqtt_config(stack.enter_context(embedded_broker()).url)
                daemon = stack.enter_context(_daemon(directory, broker, settings))
                stack.enter_context(_telemetry(broker, name))
                stack.callback(load.end)
                stack.callback(ignore_from_now_on)  # first to run at the end: an impatient second Ctrl-C skips nothing
                show = _picture_shower(stack, out, name) if wants_redraw(out) else _line_shower(out, name)
                _watch(settings, story, load, daemon, name, show)
        except KeyboardInterrupt:
            interrupted = True
    if settings.fault or not interrupted:
        out.write(f"{'interrupted: ' if interrupted and not story.succeeded else ''}{story.outcome}\n")
    return 0 if story.succeeded else 130 if interrupted else 1


class Load:
    """The fault: processes that keep every core busy and one that holds memory, bounded in time and size by themselves.

    Parameters
    ----------
    busy : int
        Processes.
    memory_bytes : int
    seconds : float
        After which they end, whatever becomes of us.
    """

    # They yield to other work (nice 5), and are the first the kernel kills when memory runs out (1000 is the most).
    # One byte on each page of 4096 is enough to hold it.
    _BUSY = (
        "import os,sys,time\nend=time.monotonic()+float(sys.argv[1])\nos.nice(5)\n"
        "while time.monotonic()<end: sum(range(9999))"
    )
    _HOG = (
        "import sys,time\nend=time.monotonic()+float(sys.argv[1])\n"
        "try: open('/proc/self/oom_score_adj','w').write('1000')\nexcept OSError: pass\n"
        "size=int(sys.argv[2])\nblock=bytearray(size)\nblock[::4096]=b'x'*len(range(0,size,4096))\n"
        "time.sleep(max(0,end-time.monotonic()))"
    )

    def __init__(self, busy: int, memory_bytes: int, seconds: float) -> None:
        self._busy = busy
        self._memory_bytes = memory_bytes
        self._seconds = seconds
        self._processes: list[subprocess.Popen[bytes]] = []

    @classmethod
    def for_this_machine(cls, seconds: float) -> Load:
        """Return a load that shows and does no harm: as many processes as cores, 4 GiB or a quarter of what is free."""
        return cls(len(os.sched_getaffinity(0)), min(_MOST_MEMORY, psutil.virtual_memory().available // 4), seconds)

    @property
    def text(self) -> str:
        """What it is, in words."""
        busy = f"{self._busy} busy process{'es' if self._busy > 1 else ''}"
        gib = self._memory_bytes / (1 << 30)
        return f"{busy} and {f'{gib:.1f} GiB' if gib >= 1 else f'{gib * 1024:.0f} MiB'} of memory"

    def begin(self) -> None:
        """Start the processes."""
        limit = f"{self._seconds + 1:.0f}"
        for code, arguments in [(self._BUSY, ())] * self._busy + [(self._HOG, (str(self._memory_bytes),))]:
            # Isolated and without site: they start at once.
            command = [sys.executable, "-I", "-S", "-c", code, limit, *arguments]
            self._processes.append(start_child(command, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL))

    def end(self) -> None:
        """End them; nothing happens when they have ended."""
        for process in self._processes:
            process.kill()
        for process in self._processes:
            process.wait()
        self._processes.clear()


@dataclass(frozen=True, slots=True)
class _Daemon:
    process: subprocess.Popen[bytes]
    api: DaemonApi
    log: Path
    config: Path

    def check(self) -> None:
        if self.process.poll() is not None:
            words = self.log.read_text(errors="replace").strip().splitlines()
            raise GonEdgeError(f"the daemon has ended: {words[-1] if words else 'it said nothing'}")

    def accept(self, stream: str, seconds: float) -> str:
        """Have the stream's last seconds learned, by a command that goes on by itself; return what one would type."""
        command = ["accept", stream, "--since", f"{seconds:.0f}s"]
        start_child(
            python("-m", "gon_edge", *command, "--config", str(self.config)),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        return " ".join(["gon-edge", *command])


Show = Callable[[Story, Seen | None, list[str]], None]


def _watch(settings: DemoSettings, story: Story, load: Load, daemon: _Daemon, name: str, show: Show) -> None:
    began = time.monotonic()
    latency = _Latency()
    busy = _Busy()
    wait = threading.Event()
    while settings.duration_s is None or time.monotonic() - began < settings.duration_s:
        now = time.monotonic()
        daemon.check()
        try:
            status = daemon.api.status()
            metrics = daemon.api.metrics()
        except UnreachableError as error:
            daemon.check()
            if now - began > _START_S and story.phase == "starting":
                raise GonEdgeError(f"the daemon does not answer: {error}") from None
            show(story, None, [])
        else:
            trainings = daemon.api.trainings() if story.phase == "training" else ()
            told = story.observe(now, status["streams"], status["alerts"], trainings)
            if any(stream["score"] is not None for stream in status["streams"]):
                latency.add(now, histogram_buckets(metrics, _LATENCY))
            if story.phase == "after":
                load.end()
            if story.fault_due:
                busy_percent = busy.percent()
                load.begin()
                told += story.fault_began(time.monotonic(), busy_percent)
            elif story.acceptance_due is not None:
                told += story.acceptance_began(daemon.accept(name, story.acceptance_due))
            show(story, Seen(status, latency.median_and_p99(), daemon.api.url, now - began), told)
        wait.wait(max(0.0, now + LOOK_EVERY_S - time.monotonic()))


class _Busy:
    """How busy the processors have been since this was made."""

    def __init__(self) -> None:
        self._began = psutil.cpu_times()

    def percent(self) -> float:
        now = psutil.cpu_times()
        passed = sum(now) - sum(self._began)
        idle = now.idle - self._began.idle + now.iowait - self._began.iowait
        return 100.0 * (1.0 - idle / passed) if passed > 0.0 else 0.0


class _Latency:
    """Quantiles over the last half minute, out of counts since the start: rows that waited for the model drop out."""

    def __init__(self) -> None:
        self._looks: deque[tuple[float, dict[float, float]]] = deque()

    def add(self, now: float, buckets: dict[float, float]) -> None:
        self._looks.append((now, buckets))
        while now - self._looks[0][0] > _LATENCY_OVER_S:
            self._looks.popleft()

    def median_and_p99(self) -> tuple[float | None, float | None]:
        if not self._looks:
            return None, None
        before, now = self._looks[0][1], self._looks[-1][1]
        recent = {bound: count - before.get(bound, 0.0) for bound, count in now.items()}
        return histogram_quantile(recent, 0.5), histogram_quantile(recent, 0.99)


def _picture_shower(stack: contextlib.ExitStack, out: IO[str], name: str) -> Show:
    terminal = console(out)
    size = terminal.size
    screen = _begin_screen(terminal)
    stack.callback(lambda: screen.stop())  # the newest one

    def show(story: Story, seen: Seen | None, told: list[str]) -> None:
        nonlocal screen, size
        if terminal.size != size:  # nobody knows where the old lines ended up
            screen.stop()
            terminal.clear()
            size = terminal.size
            screen = _begin_screen(terminal)
        if seen is None:
            shown: RenderableType = Group(line(("gon-edge demo", "bold")), "", "the daemon starts")
        else:
            shown = picture(story, seen, name, width=size.width, height=size.height - 1)
        screen.update(shown, refresh=True)

    return show


def _begin_screen(terminal: Console) -> Live:
    """Begin to redraw in place, below what the terminal shows; the last picture stays."""
    screen = Live(console=terminal, auto_refresh=False, vertical_overflow="crop")
    screen.start()
    return screen


def _line_shower(out: IO[str], name: str) -> Show:
    due = 0.0

    def show(story: Story, seen: Seen | None, told: list[str]) -> None:
        nonlocal due
        lines = list(told)
        if seen is not None and due == 0.0:
            lines.insert(0, f"status page {seen.url}/, metrics {seen.url}/metrics")
        if seen is not None and (time.monotonic() >= due or lines):
            due = time.monotonic() + _LINE_EVERY_S
            lines.append(status_line(seen, name))
        clock = time.strftime("%H:%M:%S")
        out.write("".join(f"{clock}  {visible(line)}\n" for line in lines))
        out.flush()

    return show


@contextlib.contextmanager
def _daemon(directory: Path, broker: MqttConfig, settings: DemoSettings) -> Iterator[_Daemon]:
    port = free_port()
    config = directory / "demo.yaml"
    config.write_text(yaml.safe_dump(_config(directory, broker, settings, port), sort_keys=False))
    log = directory / "daemon.log"
    environ = {key: value for key, value in os.environ.items() if key not in ("NOTIFY_SOCKET", "JOURNAL_STREAM")}
    with log.open("wb") as stderr:
        process = start_child(
            python("-m", "gon_edge", "run", "--config", str(config)),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=stderr,
            env=environ,
        )
    try:
        yield _Daemon(process, DaemonApi(f"http://127.0.0.1:{port}"), log, config)
    finally:
        end_child(process)


def _config(directory: Path, broker: MqttConfig, settings: DemoSettings, port: int) -> dict[str, Any]:
    mqtt: dict[str, Any] = {"url": broker.url, "base_topic": "gon-edge-demo"}
    for key in ("username", "password_file", "ca_file"):
        if (value := getattr(broker, key)) is not None:
            mqtt[key] = str(value)
    return {
        "node": "demo",
        "state_dir": str(directory / "state"),
        "mqtt": mqtt,
        "subscriptions": [{"topic": "gon-edge-demo/telemetry/{stream}"}],
        "http": {"listen": f"127.0.0.1:{port}"},
        "streams": {
            "defaults": {
                "interval": _INTERVAL_S,
                "warmup_rows": settings.warmup_rows,
                "exclude": ["load.*"],  # averages of minutes go on falling from what was before the warm-up
                "window": 20,  # ten seconds: the warm-up holds few windows that do not overlap
                "alerts": {
                    # A minute of readings is not enough to tell what happens once a day, so the threshold is lower than
                    # usual; and it has not seen every background job, so three seconds of one are no news.
                    "budget": "60/hour",
                    "raise_rows": 6,
                    "raise_of": 8,
                    "clear_rows": 10,
                    "cooldown": 0,  # an alert before the fault must not keep that of the fault back
                    "update_every": "5s",  # so that the causes shown are those of now
                },
            }
        },
    }


def _mqtt_config(url: str) -> MqttConfig:
    return parse_config({"mqtt": {"url": url}, "subscriptions": [{"topic": "{stream}"}]}).mqtt


@contextlib.contextmanager
def _telemetry(broker: MqttConfig, name: str) -> Iterator[None]:
    """Publish this machine's telemetry on a thread."""
    stopped = threading.Event()
    publisher = Publisher(broker)

    def publish() -> None:
        # A broker that goes away is seen on the screen: the daemon loses it too.
        with contextlib.suppress(UnreachableError), publisher:
            topic = f"gon-edge-demo/telemetry/{name}"
            publish_samples(publisher, topic, HostTelemetry().sample, _INTERVAL_S, stopped=stopped.is_set)

    thread = threading.Thread(target=publish, name="gon-edge demo telemetry", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stopped.set()
        thread.join(2.0)
