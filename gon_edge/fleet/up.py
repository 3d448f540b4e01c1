"""`gon-edge fleet up`: a whole fleet on this machine for a look, and an account of every row at its end.

Servers, workers and devices are processes of a `Site`; this module decides what happens when, watches by the same
`look` as ``fleet status``, and shows it.  Everything it started ends with it, also when it is killed.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import sys
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import IO, Any

from rich.live import Live

from gon_edge.commands.terminal import Keyboard, console, wants_redraw
from gon_edge.commands.text import visible
from gon_edge.errors import GonEdgeError, UnreachableError
from gon_edge.fleet.account import Unscored, account, judged_rows, result, settle, waiting_rows
from gon_edge.fleet.jetstream import Fleet
from gon_edge.fleet.look import Eye, Look
from gon_edge.fleet.picture import Moment, picture, status_line
from gon_edge.fleet.site import Devices, Site, SiteSettings
from gon_edge.links.client import histogram_buckets, histogram_quantile
from gon_edge.process.scratch import interrupt_by, own_directory

_LOOK_EVERY_S = 0.5
"""Between two looks.  Not critical: workers say something new once a second."""

_LINE_EVERY_S = 5.0
"""Between lines where nothing is drawn.  Not critical."""

_START_S = 90.0
"""Until every worker has said something.  A Raspberry Pi 3 takes ten seconds for the imports of one."""

_FAULT_AT, _KILL_AT = 0.35, 0.55
"""When devices break and a worker is killed, as shares of the duration: both leave time to see what comes of it."""

_FAULT_AT_S, _LAST_KILL_S = 60.0, 20.0
"""Without a duration devices break after a minute; a kill leaves so much time for the takeover.  Not critical."""

_RATE_OVER_S = 5.0
"""Over which rows a second are counted.  Not critical."""

_LATENCY = "gon_edge_ingest_to_verdict_seconds"


@dataclass(frozen=True, slots=True)
class UpSettings:
    """What is to be shown.

    Attributes
    ----------
    devices, workers : int
    duration_s : float or None
        ``None`` goes on until q or Ctrl-C.
    kill_worker : bool
        Kill a worker half way.
    direct : bool
        Devices speak to NATS itself.
    as_json : bool
        Print nothing but the account, as JSON.
    """

    devices: int = 200
    workers: int = 2
    duration_s: float | None = None
    kill_worker: bool = False
    direct: bool = False
    as_json: bool = False

    @property
    def way(self) -> str:
        """From devices to workers, in words."""
        through = "NATS" if self.direct else "mosquitto, its bridge and NATS"
        return f"{self.devices} devices, by {through}, to {self.workers} workers"


def run_up(settings: UpSettings, keys: IO[str], out: IO[str]) -> int:
    """Show a fleet until its duration is over, or until q, Ctrl-C, SIGTERM or SIGHUP.

    Parameters
    ----------
    settings : UpSettings
    keys : text file
        Where keys come from, where both are terminals.
    out : text file

    Returns
    -------
    int
        0 when every row has one verdict, 1 when not, 130 when interrupted before the account was made.

    Raises
    ------
    GonEdgeError
        A program is not installed, or does not start; with the line to type, or its own last words.
    """
    with (
        interrupt_by(signal.SIGINT, signal.SIGTERM, signal.SIGHUP) as ignore_from_now_on,
        contextlib.ExitStack() as stack,
    ):
        folder = stack.enter_context(own_directory("gon-edge-fleet-"))
        site = Site(folder, SiteSettings(direct=settings.direct))
        stack.callback(site.stop)
        stack.callback(ignore_from_now_on)  # first to run at the end: an impatient second Ctrl-C skips nothing
        show, pressed = _shower(stack, settings, keys, out)
        try:
            show(Moment(None, settings.way, settings.devices, 0, 0, 0.0, 0.0, settings.duration_s, (), ()))
            site.start()
            for _ in range(settings.workers):
                site.add_worker()
            told = asyncio.run(Show(settings, site, show, pressed).run())
        except KeyboardInterrupt:
            return 130
    out.write(json.dumps(told) + "\n" if settings.as_json else account_text(told))
    return 0 if told["lost"] == told["doubled"] == told["waiting"] == 0 else 1


class Show:
    """One run of a fleet.

    Parameters
    ----------
    settings : UpSettings
    site : Site
        Started.
    show : callable
        Takes each moment.
    pressed : callable
        Returns the key that was pressed, empty for none.
    """

    def __init__(
        self, settings: UpSettings, site: Site, show: Callable[[Moment], None], pressed: Callable[[], str]
    ) -> None:
        self._settings, self._site, self._show, self._pressed = settings, site, show, pressed
        self._news: deque[str] = deque(maxlen=20)
        self._dead: list[str] = []
        self._broken = False
        self._unscored = Unscored()
        self._rates: deque[tuple[float, float]] = deque()
        self._began = time.monotonic()
        self._owners: dict[int, str] = {}
        self._latency: dict[float, float] = {}
        self._late = 0.0

    async def run(self) -> dict[str, Any]:
        """Run it to its end; return the account.

        Raises
        ------
        GonEdgeError
            Something that was started has ended by itself.
        """
        fleet = await self._site.connect()
        try:
            eye = Eye(fleet)
            await self._until_workers(eye)
            self._began = time.monotonic()
            devices = self._site.add_devices(self._settings.devices)
            await self._watch(eye, devices)
            return await self._close(fleet, eye, devices)
        finally:
            await fleet.client.close()

    async def _until_workers(self, eye: Eye) -> None:
        deadline = time.monotonic() + _START_S
        while True:
            self._check()
            with contextlib.suppress(UnreachableError):
                if len((await eye.look()).workers) >= self._settings.workers:
                    return
            if time.monotonic() > deadline:
                raise GonEdgeError(f"not all workers came within {_START_S:.0f} s")
            await asyncio.sleep(_LOOK_EVERY_S)

    async def _watch(self, eye: Eye, devices: Devices) -> None:
        settings, look = self._settings, await eye.look()
        while not devices.done:
            passed = time.monotonic() - self._began
            left_s = None if settings.duration_s is None else settings.duration_s - passed
            key = self._pressed()
            if key in ("q", "Q", "\x04") or (left_s is not None and left_s <= 0.0):
                break
            self._check()
            self._do_what_is_due(key, passed, look, devices)
            look = await self._look(eye) or look  # seen on the screen by what does not move
            self._tell_of_owners(look)
            self._show(self._moment(look, devices, left_s))
            await asyncio.sleep(_LOOK_EVERY_S)

    def _do_what_is_due(self, key: str, passed: float, look: Look, devices: Devices) -> None:
        duration_s = self._settings.duration_s
        fault_s = _FAULT_AT_S if duration_s is None else _FAULT_AT * duration_s
        if not self._broken and (key in ("f", "F") or passed >= fault_s):
            self._broken = True
            devices.break_some()
            self._tell(f"a bearing wears out in {devices.fleet.faulty} of {devices.fleet.devices} devices")
        kill_s = (
            _FAULT_AT_S
            if duration_s is None
            else min(_KILL_AT * duration_s, max(_FAULT_AT * duration_s, duration_s - _LAST_KILL_S))
        )
        due = self._settings.kill_worker and not self._dead and passed >= kill_s
        if key in ("k", "K") or due:
            self._kill(look)

    def _kill(self, look: Look) -> None:
        """Kill the worker that has most partitions, by SIGKILL; the last one stays."""
        alive = [worker for worker in look.workers if worker.name not in self._dead]
        if len(alive) < 2:
            self._tell("the last worker is left alone")
            return
        victim = max(alive, key=lambda worker: len(worker.partitions))
        self._read_series(victim.name)
        self._site.workers[victim.name].kill()
        self._dead.append(victim.name)
        self._tell(f"{victim.name} is killed; it had {len(victim.partitions)} partitions")

    def _tell_of_owners(self, look: Look) -> None:
        for partition in look.partitions:
            before = self._owners.get(partition.number)
            if partition.worker and partition.worker != before:
                self._owners[partition.number] = partition.worker
                if before is not None:
                    self._tell(f"partition {partition.number} goes from {before} to {partition.worker}")

    def _tell(self, text: str) -> None:
        self._news.append(f"{time.strftime('%H:%M:%S')} {text}")

    def _check(self) -> None:
        self._site.check()
        for worker in self._site.workers.values():
            if worker.name not in self._dead:
                worker.check()

    def _moment(self, look: Look, devices: Devices, left_s: float | None) -> Moment:
        said, now = devices.said, time.monotonic()
        self._rates.append((now, float(said["sent"] - look.lag)))
        while now - self._rates[0][0] > _RATE_OVER_S:
            self._rates.popleft()
        (first, before), (last, scored) = self._rates[0], self._rates[-1]
        return Moment(
            look=look,
            way=self._settings.way,
            devices=self._settings.devices,
            sent=said["sent"],
            acknowledged=said["acknowledged"],
            rows_s=max(0.0, scored - before) / max(last - first, _LOOK_EVERY_S),
            running_s=now - self._began,
            left_s=left_s,
            news=tuple(self._news),
            dead=tuple(self._dead),
        )

    # -- the end -----------------------------------------------------------------------------------------------------

    async def _close(self, fleet: Fleet, eye: Eye, devices: Devices) -> dict[str, Any]:
        """Have the last rows judged and everything saved, and count."""
        rows = await asyncio.to_thread(devices.finish)
        stored = await settle(fleet, rows, lambda: self._look(eye))
        for worker in self._site.workers.values():
            if worker.name not in self._dead:
                self._read_series(worker.name)
        await asyncio.to_thread(self._site.stop_workers)
        look = await eye.look()
        counted = account(
            rows,
            devices.said["acknowledged"],
            stored,
            await judged_rows(fleet, len(rows)),
            late=round(self._late),
            waiting=await waiting_rows(fleet),
        )
        takeovers = sum(max(0, each.epoch - 1) for each in look.partitions)
        p99_s = histogram_quantile(self._latency, 0.99)
        return {
            "devices": self._settings.devices,
            "workers": self._settings.workers,
            "seconds": round(time.monotonic() - self._began, 1),
            **result(counted, look, takeovers, self._unscored.longest_s),
            "alerts_repeated": eye.told.repeated,
            "verdict_p99_s": None if p99_s is None else round(p99_s, 3),
            "killed": self._dead,
        }

    async def _look(self, eye: Eye) -> Look | None:
        with contextlib.suppress(UnreachableError):
            look = await eye.look()
            self._unscored.see(look)
            return look
        return None

    def _read_series(self, name: str) -> None:
        """Add what a worker's series say, which go with it."""
        with contextlib.suppress(UnreachableError):
            page = self._site.workers[name].api.metrics()
            for bound, count in histogram_buckets(page, _LATENCY).items():
                self._latency[bound] = self._latency.get(bound, 0.0) + count
            for text in page.splitlines():
                if text.startswith('gon_edge_messages_total{result="late"}'):
                    self._late += float(text.rsplit(" ", 1)[1])


def account_text(told: dict[str, Any]) -> str:
    """Return the account for a person."""
    verdicts = "" if told["verdict_p99_s"] is None else f", 99 % of them within {1000 * told['verdict_p99_s']:.0f} ms"
    lost = "none lost, none doubled" if told["lost"] == told["doubled"] == 0 else ""
    counts = lost or f"{told['lost']} lost, {told['doubled']} doubled"
    waiting = f", {told['waiting']} not judged yet" if told["waiting"] else ""
    killed = f"; {', '.join(told['killed'])} was killed" if told["killed"] else ""
    return (
        f"{told['sent']} rows of {told['devices']} devices in {told['seconds']:.0f} s: "
        f"{told['scored']} scored{verdicts}, {told['late']} late, {counts}{waiting}\n"
        f"{told['alerts']} alerts, {told['takeovers']} takeovers, "
        f"no partition unscored for more than {told['longest_unscored_s']:.1f} s{killed}\n"
    )


def _shower(
    stack: contextlib.ExitStack, settings: UpSettings, keys: IO[str], out: IO[str]
) -> tuple[Callable[[Moment], None], Callable[[], str]]:
    """What shows a moment, and what returns the key that was pressed."""
    if settings.as_json:
        return (lambda moment: None), (lambda: "")
    if not (wants_redraw(out) and keys.isatty()):
        return _Lines(out).show, (lambda: "")
    terminal = console(out)
    keyboard = stack.enter_context(Keyboard(keys))
    screen = stack.enter_context(Live(console=terminal, auto_refresh=False, vertical_overflow="crop"))
    return (lambda moment: screen.update(picture(moment), refresh=True)), (lambda: keyboard.key(0.0))


class _Lines:
    """Moments as lines, now and then, and whatever has happened at once."""

    def __init__(self, out: IO[str] = sys.stdout) -> None:
        self._out = out
        self._due = 0.0
        self._told = ""

    def show(self, moment: Moment) -> None:
        lines = list(moment.news)
        if self._told in lines:
            lines = lines[lines.index(self._told) + 1 :]
        self._told = moment.news[-1] if moment.news else ""
        if time.monotonic() >= self._due:
            self._due = time.monotonic() + _LINE_EVERY_S
            lines.append(f"{time.strftime('%H:%M:%S')} {status_line(moment)}")
        self._out.write("".join(f"{visible(text)}\n" for text in lines))
        self._out.flush()
