"""``gon-edge demo``: the whole way from telemetry to an alert on this machine, in a few minutes, without any set-up.

Starts a broker, the daemon as a process of its own and a publisher of this machine's telemetry; waits for the first
model; makes a real, bounded fault; and shows what happens, live.  Everything it started ends with it, also when it is
killed.  Three parts: `Story` decides what happens next and knows neither clock nor process, `picture` and `status_line`
turn it into text, `run_demo` does it.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal

import psutil
import yaml

from gon_edge.commands.terminal import Paint, Screen, bar, chart, wants_colour, wants_redraw
from gon_edge.commands.text import cause_text, duration_text, number_text, table
from gon_edge.config.file import parse_config
from gon_edge.config.schema import MqttConfig
from gon_edge.demo.broker import embedded_broker, free_port
from gon_edge.errors import GonEdgeError, UnreachableError
from gon_edge.links.client import DaemonApi, histogram_buckets, histogram_quantile
from gon_edge.links.publisher import Publisher, publish_samples
from gon_edge.process.child import end_child, start_child
from gon_edge.process.host import HostTelemetry

_INTERVAL_S = 0.5
_LOOK_EVERY_S = 0.5
_LINE_EVERY_S = 5.0
_START_S = 60.0  # a Raspberry Pi 3 takes ten for the imports
_LATE_S = 10.0  # an alert that comes this long after the fault is over is another's
_SCORE_OVER_S = 5.0
_RISE = 2.0  # times the highest score of the last seconds before the fault
_BUSY_PERCENT = 60.0
_LATENCY_OVER_S = 30.0
_ACCEPTANCES = 2
_CHART_LINES = 5
_LATENCY = "gon_edge_ingest_to_verdict_seconds"


@dataclass(frozen=True, slots=True)
class DemoSettings:
    """What kind of demonstration.

    Attributes
    ----------
    fast : bool
        Half the warm-up, half the fault.
    fault : bool
        Whether to make one.
    duration_s : float or None
        End after so many seconds; ``None`` goes on until Ctrl-C.
    broker : MqttConfig or None
        A running broker to use instead of one of our own.
    """

    fast: bool = False
    fault: bool = True
    duration_s: float | None = None
    broker: MqttConfig | None = None

    @property
    def warmup_rows(self) -> int:
        """Rows before the first model, two a second."""
        return 60 if self.fast else 120

    @property
    def calm_s(self) -> float:
        """Seconds of scoring without an alert before the fault."""
        return 10.0 if self.fast else 20.0

    @property
    def calm_at_most_s(self) -> float:
        """Seconds of scoring after which the fault comes anyway."""
        return 60.0 if self.fast else 120.0

    @property
    def patience_s(self) -> float:
        """How long an alert may be open before the fault until what raised it is accepted as normal."""
        return 25.0 if self.fast else 50.0

    @property
    def fault_s(self) -> float:
        """How long the fault lasts."""
        return 15.0 if self.fast else 30.0


# -- the story ---------------------------------------------------------------------------------------------------------

Phase = Literal["starting", "warming-up", "training", "calm", "fault", "after"]


class Story:
    """What has happened, what happens now and what comes next.

    Parameters
    ----------
    settings : DemoSettings
    stream : str
        Whose alerts count.
    fault_text : str
        What the fault is, as in ``2 busy processes and 1.0 GiB of memory``.

    Attributes
    ----------
    phase : str
    fault_due : bool
        The fault should begin now; say when it has by :meth:`fault_began`.
    acceptance_due : float or None
        What this machine does has changed since the warm-up: the last so many seconds should be accepted now; say when
        that is under way by :meth:`acceptance_began`.
    alert : mapping or None
        The newest event of the alert that the fault raised, or else of one that is open.  Of one that has ended, the
        event with the highest score: what made it end explains nothing.
    detected_after_s : float or None
        Seconds from the beginning of the fault until its alert was seen.
    """

    def __init__(self, settings: DemoSettings, stream: str, fault_text: str) -> None:
        self.phase: Phase = "starting"
        self.fault_due = False
        self.acceptance_due: float | None = None
        self.alert: Mapping[str, Any] | None = None
        self.detected_after_s: float | None = None
        self._settings = settings
        self._stream = stream
        self._fault_text = fault_text
        self._fault_began: float | None = None
        self._scoring_since: float | None = None
        self._alert_since: float | None = None
        self._acceptances = 0
        self._calm_since: float | None = None
        self._known: dict[str, str] = {}  # id of an alert: type of its newest event
        self._before_fault: set[str] = set()
        self._recent_scores: deque[float] = deque(maxlen=round(_SCORE_OVER_S / _LOOK_EVERY_S))
        self._score_before = 0.0
        self._caught: str | None = None
        self._worst: Mapping[str, Any] = {}  # event of the alert caught
        self._meanwhile = self._refused = ""
        self._now = self._busy_percent = 0.0

    @property
    def succeeded(self) -> bool:
        """Whether what was to be shown has been seen."""
        return not self._settings.fault or self.detected_after_s is not None

    @property
    def outcome(self) -> str:
        """One sentence on how it ended."""
        if not self._settings.fault:
            return "no fault was made"
        if self._fault_began is None:
            return "it ended before the fault began"
        if self.detected_after_s is not None:
            causes = ", ".join(cause_text(cause) for cause in self._worst["top_features"][:3])
            what = "that was open rose" if self._caught in self._before_fault else "came"
            return f"the alert {what} {self.detected_after_s:.1f} s after the fault began: {causes}"
        if self._before_fault:
            return (
                "the fault raised no alert of its own: one was open before (what this machine does changed); try again"
            )
        if self._busy_percent > _BUSY_PERCENT:
            return (
                f"the fault raised no alert: this machine was {self._busy_percent:.0f} % busy before it, "
                "so that more work is no news; try again when it is idle"
            )
        return "the fault raised no alert"

    def fault_began(self, now: float, busy_percent: float) -> list[str]:
        """Note that the fault has begun; return what to tell.

        Parameters
        ----------
        now : float
            Monotonic seconds.
        busy_percent : float
            How busy the processors were until now, on average.
        """
        self._busy_percent = busy_percent
        self.fault_due = False
        self.phase = "fault"
        self._fault_began = self._now = now
        self._before_fault = {alert_id for alert_id, kind in self._known.items() if kind != "end"}
        self._score_before = max(self._recent_scores, default=0.0)
        return [f"making a fault: {self._fault_text} for {self._settings.fault_s:.0f} s"]

    def acceptance_began(self, command: str) -> list[str]:
        """Note that ``command`` is under way; return what to tell."""
        self.acceptance_due = None
        self._acceptances += 1
        self._scoring_since = self._now
        self._alert_since = None
        return [f"what this machine does has changed since the warm-up, and is to be learned: {command}"]

    def observe(
        self,
        now: float,
        streams: Sequence[Mapping[str, Any]],
        alerts: Sequence[Mapping[str, Any]],
        trainings: Sequence[Mapping[str, Any]] = (),
    ) -> list[str]:
        """Take what the daemon says, in monotonic seconds; return what to tell, oldest first."""
        self._now = now
        stream = next((stream for stream in streams if stream["stream"] == self._stream), None)
        if stream is not None and stream["score"] is not None:
            self._recent_scores.append(stream["score"])
        told = self._observe_state(now, stream, trainings)
        told += self._observe_alerts(now, [alert for alert in alerts if alert["stream"] == self._stream])
        if self.phase == "calm" and self._settings.fault and self._scoring_since is not None:
            calm = self._calm_since is not None and now - self._calm_since >= self._settings.calm_s
            self.fault_due = calm or now - self._scoring_since >= self._settings.calm_at_most_s
            if self._acceptances < _ACCEPTANCES and self._alert_since is not None and not self.fault_due:
                open_s = now - self._alert_since
                self.acceptance_due = open_s if open_s >= self._settings.patience_s else None
        if self.phase == "fault" and now - (self._fault_began or now) >= self._settings.fault_s:
            self.phase = "after"
            told.append(f"the fault is over: {self.outcome}")
        return told

    def _observe_state(
        self, now: float, stream: Mapping[str, Any] | None, trainings: Sequence[Mapping[str, Any]]
    ) -> list[str]:
        state = "starting" if stream is None else stream["state"]
        told: list[str] = []
        if stream is not None and stream["starter"] is not None and not self._meanwhile:
            self._meanwhile = f"; {stream['starter']} scores"
            told.append(f"the model {stream['starter']}, made for machines like this one, scores every row meanwhile")
        if self.phase in ("calm", "fault", "after") or state == self.phase:
            return told
        if stream is not None and state == "warming-up" and self.phase == "training":
            self.phase = "warming-up"
            ended = next((each for each in trainings if each["stream"] == self._stream), {"reason": ""})
            self._refused = ended["reason"] or "the training failed"
            return [
                *told,
                f"no model yet: {self._refused}; the next training, in a minute, has more rows to learn from",
            ]
        if stream is not None and state == "warming-up":
            self.phase = "warming-up"
            return [f"the daemon has its first readings: {stream['rows_needed']} rows make the warm-up", *told]
        trains = "the warm-up is over: a child process trains the first model"
        if stream is not None and state == "training":
            self.phase = "training"
            return [*told, trains]
        if stream is not None and state == "scoring":
            if self.phase == "warming-up":
                told.append(trains)  # in less time than lies between two looks
            self.phase = "calm"
            self._scoring_since = self._calm_since = now
            takes_over = "takes over" if self._meanwhile else "is in use"
            own = f"model {stream['model_version']} of {stream['features']} features"
            return [*told, f"{own} {takes_over}: every row is scored"]
        return told

    def _observe_alerts(self, now: float, alerts: Sequence[Mapping[str, Any]]) -> list[str]:
        told = []
        for alert in reversed(alerts):  # they come newest first
            before, self._known[alert["id"]] = self._known.get(alert["id"]), alert["type"]
            causes = ", ".join(cause_text(cause) for cause in alert["top_features"][:3])
            if before is None:
                told.append(f"ALERT {alert['severity']}, {alert['kind']}: {causes}")
            elif alert["type"] == "end" and before != "end":
                told.append("the alert has ended: the readings are normal again")
            if self._caught is None and self._is_of_the_fault(now, alert, is_new=before is None):
                self._caught = alert["id"]
                self.detected_after_s = now - (self._fault_began or now)
        is_open = [alert for alert in alerts if alert["type"] != "end"]
        caught = [alert for alert in alerts if alert["id"] == self._caught]
        for alert in caught:
            in_time = now - (self._fault_began or now) <= self._settings.fault_s
            if not self._worst or (in_time and (alert["score"] or 0.0) > (self._worst["score"] or 0.0)):
                self._worst = alert
            if alert["type"] == "end":
                caught = [{**alert, "top_features": self._worst["top_features"]}]
        self.alert = next(iter(caught or is_open), None)
        if is_open:
            self._calm_since = None
            if self._alert_since is None:
                self._alert_since = now
        else:
            self._alert_since = None
            if self._calm_since is None:
                self._calm_since = now
        return told

    def _is_of_the_fault(self, now: float, alert: Mapping[str, Any], *, is_new: bool) -> bool:
        """Whether the fault raised it: it is new, or it was open and its score has risen a lot."""
        if self._fault_began is None or alert["kind"] != "anomaly":
            return False
        if now - self._fault_began > self._settings.fault_s + _LATE_S:
            return False
        risen = alert["type"] == "update" and (alert["score"] or 0.0) > _RISE * self._score_before
        return is_new or (alert["id"] in self._before_fault and risen)

    def now_and_next(self) -> tuple[str, str]:
        """Return what is happening and what will."""
        settings, now = self._settings, self._now
        if self.phase == "starting":
            return "the daemon starts and waits for the first readings", "it collects readings, to learn what is normal"
        if self.phase == "warming-up" and self._refused:
            return f"collecting more readings: no model yet, {self._refused}", "another training, with more rows"
        if self.phase == "warming-up":
            now_text = "collecting readings, to learn what is normal here"
            return now_text + self._meanwhile, "a child process trains the first model"
        if self.phase == "training":
            if self._meanwhile:
                return f"a child process trains the first model{self._meanwhile}", "the new model takes over"
            return "a child process trains the first model", "every row gets a score"
        if self.phase == "calm":
            if not settings.fault:
                return "scoring every row", "nothing more: load this machine to see an alert; Ctrl-C ends it"
            following = f"a fault: {self._fault_text}"
            if self._calm_since is None:
                left_s = settings.calm_at_most_s - (now - (self._scoring_since or now))
                if self._acceptances < _ACCEPTANCES and self._alert_since is not None:
                    left_s = settings.patience_s - (now - self._alert_since)
                    following = "what raised it is accepted as normal, and learned"
                return f"an alert is open; waiting up to {max(0.0, left_s):.0f} s for it to end", following
            left_s = settings.calm_s - (now - self._calm_since)
            return f"scoring every row; the fault begins in {max(0.0, left_s):.0f} s", following
        if self.phase == "fault":
            left_s = settings.fault_s - (now - (self._fault_began or now))
            came = "" if self.detected_after_s is None else f"its alert came after {self.detected_after_s:.1f} s; "
            return f"making a fault: {self._fault_text}, {max(0.0, left_s):.0f} s left", f"{came}it ends by itself"
        came = self.outcome if self.detected_after_s is None else f"its alert came after {self.detected_after_s:.1f} s"
        return f"the fault is over; {came}", "watching on; Ctrl-C ends everything that was started"


# -- what it looks like ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Seen:
    """One look at the daemon.

    Attributes
    ----------
    status : mapping
        Of :meth:`gon_edge.links.client.DaemonApi.status`.
    latency_s : tuple of float or None
        Median and 99th percentile from the newest reading of a row to its verdict, over the last half minute.
    url : str
        Of the status page, without a slash at its end.
    running_s : float
        Since the demonstration began.
    """

    status: Mapping[str, Any]
    latency_s: tuple[float | None, float | None]
    url: str
    running_s: float

    def stream(self, name: str) -> Mapping[str, Any] | None:
        """Return the stream of that name, or ``None`` before its first reading."""
        streams: Sequence[Mapping[str, Any]] = self.status["streams"]
        return next((stream for stream in streams if stream["stream"] == name), None)


def picture(story: Story, seen: Seen, name: str, *, width: int, height: int, paint: Paint) -> list[str]:
    """Draw one moment.

    Parameters
    ----------
    story : Story
    seen : Seen
    name : str
        The stream to show.
    width, height : int
        Characters there are; 80 by 23 is enough for everything.
    paint : Paint

    Returns
    -------
    list of str
        At most `height` lines; they may be longer than `width`.
    """
    now_text, next_text = story.now_and_next()
    fault = story.phase == "fault"
    title, about = "gon-edge demo", "  this machine's telemetry, twice a second"
    clock = f"{int(seen.running_s) // 60:02d}:{int(seen.running_s) % 60:02d}"
    space = " " * max(2, width - len(title + about + clock))
    lines = [
        f"{paint(title, 'bold')}{about}{space}{paint(clock, 'dim')}",
        "",
        f"{paint('now ', 'dim')}  {paint(now_text, 'bold', *(('yellow',) if fault else ()))}",
        f"{paint('next', 'dim')}  {next_text}",
        "",
    ]
    below = _alert_lines(story, paint)
    p50, p99 = seen.latency_s
    memory = f"{seen.status['rss_bytes'] / (1 << 20):.1f} MiB"
    latency = f"reading to verdict: median {_milliseconds(p50)}, 99 % within {_milliseconds(p99)}"
    below += [
        "",
        f"{paint('daemon', 'dim')}  {memory}   {latency}",
        f"{paint('page  ', 'dim')}  {seen.url}/   {paint('metrics', 'dim')} {seen.url}/metrics",
    ]
    stream = seen.stream(name)
    room = height - len(lines) - len(below) - 3
    lines += _stream_lines(stream, name, width=width, chart_lines=max(1, min(_CHART_LINES, room)), paint=paint)
    return [*lines, *below][:height]


def _stream_lines(
    stream: Mapping[str, Any] | None, name: str, *, width: int, chart_lines: int, paint: Paint
) -> list[str]:
    if stream is None:
        return [f"{paint(name, 'bold')}  no reading yet", "", ""]
    head = f"{paint(name, 'bold', 'cyan')}  {stream['state']}, {stream['features']} features, row {stream['rows']}"
    if stream["model_version"] is None:
        needed = stream["rows_needed"]
        left = f", {duration_text(stream['eta_s'])} left" if stream["eta_s"] else ""
        rows = f"{min(stream['rows'], needed)} of {needed} rows"
        progress = f"{bar(stream['rows'] / needed, max(10, width - 34))}  {rows}{left}"
        if stream["starter"] is None or stream["score"] is None:
            return [head, "", progress]
        head = f"{head}, meanwhile {stream['starter']}"
        return [head, *_score_lines(stream, width=width, chart_lines=max(1, chart_lines - 1), paint=paint), progress]
    head = f"{head}, model {stream['model_version']}"
    return [head, *_score_lines(stream, width=width, chart_lines=chart_lines, paint=paint)]


def _score_lines(stream: Mapping[str, Any], *, width: int, chart_lines: int, paint: Paint) -> list[str]:
    over = stream["score"] is not None and stream["score"] > stream["threshold"]
    score = paint(f"score {number_text(stream['score'])}", "bold", "red" if over else "green")
    return [
        *chart(stream["scores"], stream["threshold"], width=min(width, 120), height=chart_lines, paint=paint),
        f"{score}   {paint('┄┄', 'yellow')} threshold {number_text(stream['threshold'])}",
    ]


def _alert_lines(story: Story, paint: Paint) -> list[str]:
    alert = story.alert
    if alert is None:
        return ["", f"{paint('alert', 'dim')}  none"]
    ended = alert["type"] == "end"
    began = time.strftime("%H:%M:%S", time.localtime(alert["since"]))
    after = "" if story.detected_after_s is None else f", {story.detected_after_s:.1f} s after the fault began"
    until = f" to {time.strftime('%H:%M:%S', time.localtime(alert['timestamp']))}, ended" if ended else ""
    title = f"ALERT  {alert['severity']} {alert['kind']} since {began}{until}{after}"
    rows = [["FEATURE", "VALUE", "EXPECTED", "SHARE"]]
    for cause in alert["top_features"][:4]:
        share = f"{100 * (cause['contribution'] or 0.0):3.0f} %"
        rows.append([cause["feature"], number_text(cause["value"]), number_text(cause["expected"]), share])
    heading, *causes = table(rows)
    return [
        "",
        paint(title, "bold", "dim" if ended else "red"),
        f"  {paint(heading, 'dim')}",
        *(f"  {c}" for c in causes),
    ]


def status_line(seen: Seen, name: str) -> str:
    """Return one moment as one line, for output that is not a terminal."""
    stream = seen.stream(name)
    memory = f"{seen.status['rss_bytes'] / (1 << 20):.1f} MiB"
    if stream is None:
        return f"{name}: no reading yet, {memory}"
    if stream["model_version"] is None:
        left = f", {duration_text(stream['eta_s'])} left" if stream["eta_s"] else ""
        rows = f"{min(stream['rows'], stream['rows_needed'])} of {stream['rows_needed']} rows"
        score = ""
        if stream["score"] is not None:
            level = f"{number_text(stream['score'])} of {number_text(stream['threshold'])}"
            score = f", score {level} by {stream['starter']}"
        return f"{name}: {stream['state']}, {rows}{left}{score}, {memory}"
    p50, p99 = seen.latency_s
    return (
        f"{name}: {stream['state']}, row {stream['rows']}, score {number_text(stream['score'])} of "
        f"{number_text(stream['threshold'])}, {memory}, reading to verdict {_milliseconds(p50)} "
        f"(99 % within {_milliseconds(p99)})"
    )


def _milliseconds(seconds: float | None) -> str:
    return "-" if seconds is None else f"{1000 * seconds:.2g} ms" if seconds < 0.1 else f"{1000 * seconds:.0f} ms"


# -- doing it ----------------------------------------------------------------------------------------------------------


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
    with _interrupt_by(signal.SIGINT, signal.SIGTERM, signal.SIGHUP) as ignore_from_now_on:
        try:
            with contextlib.ExitStack() as stack:
                directory = stack.enter_context(_own_directory())
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

    # They yield to other work and are the first the kernel kills when memory runs out.
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
        return cls(len(os.sched_getaffinity(0)), min(4 << 30, psutil.virtual_memory().available // 4), seconds)

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
            [sys.executable, "-m", "gon_edge", *command, "--config", str(self.config)],
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
        wait.wait(max(0.0, now + _LOOK_EVERY_S - time.monotonic()))


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
    screen = stack.enter_context(Screen(out))
    paint = Paint(wants_colour(out))

    def show(story: Story, seen: Seen | None, told: list[str]) -> None:
        if seen is None:
            screen.draw([paint("gon-edge demo", "bold"), "", "the daemon starts"])
            return
        size = screen.size
        screen.draw(picture(story, seen, name, width=size.columns, height=size.lines, paint=paint))

    return show


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
        out.write("".join(f"{clock}  {line}\n" for line in lines))
        out.flush()

    return show


@contextlib.contextmanager
def _own_directory() -> Iterator[Path]:
    """Yield a temporary directory that goes even when we are killed."""
    path = tempfile.mkdtemp(prefix="gon-edge-demo-")
    # Its standard input ends when we do, in whatever way.
    remover = subprocess.Popen(
        ["/bin/sh", "-c", 'read -r _; sleep 1; rm -rf -- "$1"', "gon-edge-demo", path],
        stdin=subprocess.PIPE,
        start_new_session=True,
    )
    try:
        yield Path(path)
    finally:
        shutil.rmtree(path, ignore_errors=True)
        end_child(remover)


@contextlib.contextmanager
def _daemon(directory: Path, broker: MqttConfig, settings: DemoSettings) -> Iterator[_Daemon]:
    port = free_port()
    config = directory / "demo.yaml"
    config.write_text(yaml.safe_dump(_config(directory, broker, settings, port), sort_keys=False))
    log = directory / "daemon.log"
    environ = {key: value for key, value in os.environ.items() if key not in ("NOTIFY_SOCKET", "JOURNAL_STREAM")}
    with log.open("wb") as stderr:
        process = start_child(
            [sys.executable, "-m", "gon_edge", "run", "--config", str(config)],
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


@contextlib.contextmanager
def _interrupt_by(*numbers: signal.Signals) -> Iterator[Callable[[], None]]:
    """Let these signals do what Ctrl-C does; the function yielded makes them do nothing until the block ends."""
    before = {number: signal.signal(number, signal.default_int_handler) for number in numbers}

    def ignore() -> None:
        for number in numbers:
            signal.signal(number, signal.SIG_IGN)

    try:
        yield ignore
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
