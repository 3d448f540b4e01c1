"""A run against the rig: what happened, what the daemon counted, and whether it adds up.

Between two moments of rest lies a window.  At rest everything that was sent has arrived, and the daemon's own counters
must add up::

    sent <= accepted + late + invalid + dropped + ignored + undecided <= sent + delivered twice

where what MQTT delivers twice (QoS 1 after a lost connection) is read from the broker's log.  A process that is stopped
says in its log what it knew no result of.  Only one that is killed may take rows with it, at most those it had
acknowledged, by the broker's log, and not counted.
"""

from __future__ import annotations

import contextlib
import os
import platform
import random
import signal
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

from rig import PERIOD_S, RESULTS, Rig, Sample, Sender, wait_for

from gon_edge import __version__
from gon_edge.state.folder import ModelFolder
from gon_edge.state.store import Store

GROWTH_BYTES = 1 << 20
SETTLED_S = 300.0
_READ_S = 0.5  # in which a broker reads what had left a process; not critical
_QUIET_S = 30.0  # the longest wait until everything has arrived: several times what a reconnect takes

Finding = tuple[bool, str, str]
"""Whether it held, what had to hold, the figures."""


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
        Messages it had counted by then, since the last rest.
    owed : int
        Messages of earlier windows that may still come, delivered twice.
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
    owed: int = 0
    note: str = ""

    @property
    def difference(self) -> int:
        """Counted less sent."""
        return sum(self.counted.values()) - self.sent

    @property
    def balanced(self) -> bool:
        """Whether every row is accounted for."""
        return -self.allowed <= self.difference <= self.twice + self.owed


class Run:
    """What is done to the rig, as `course` of a subclass says, and the account of it.

    Parameters
    ----------
    rig : Rig
    sender : Sender
    minutes : float
    seed : int
        Of choices.
    """

    title = ""
    still_s = 3.0  # for which counters must stand still at rest; some move once a second

    def __init__(self, rig: Rig, sender: Sender, minutes: float, seed: int) -> None:
        self.rig = rig
        self.sender = sender
        self.total_s = 60.0 * minutes
        self.rng = random.Random(seed)
        self.windows: list[Window] = []
        self.samples: list[Sample] = []
        self.left_out: list[str] = []
        self.last_life_s = 0.0
        self.settled_s = 0.0
        self._began = time.monotonic()
        self._before = dict.fromkeys(RESULTS, 0)  # of this life, at the last rest
        self._sent = 0
        self._twice = 0
        self._acknowledged = 0
        self._lines = 0.0
        self._progress_ended = threading.Event()
        self._now = "starting"

    def course(self) -> None:
        """Everything that is done, in windows."""
        raise NotImplementedError

    def run(self) -> None:
        """All of it."""
        rig = self.rig
        rig.start_broker()
        rig.start_daemon()
        # What is sent before the first subscription is nobody's; later lives find their session at the broker.
        self._wait_for_connection()
        time.sleep(1.0)
        self.sender.start()
        watch = threading.Thread(target=self._watch, daemon=True)
        watch.start()
        try:
            self.course()
        finally:
            self._progress_ended.set()
            self.sender.ending.set()
            watch.join(10)
            self.sender.join(10)

    def _wait_for_connection(self) -> None:
        wait_for(lambda: self.rig.metrics().get("gon_edge_mqtt_connected") == 1.0, 60, "the daemon's connection")

    def _end_life(self, window: Window, how: signal.Signals) -> None:
        """End the daemon in the middle; enter what it had counted, and what it may take along.

        One that is stopped says what it has counted until the end, and takes along what it knew no result of.  One that
        is killed may take along what it had acknowledged and not counted.
        """
        known = self.rig.counted()
        assert known is not None
        assert self.rig.daemon is not None
        self.rig.daemon.send_signal(how)
        self.rig.daemon.wait(30)
        if how == signal.SIGTERM:
            known, gone = self.rig.counted_at_its_stop()
            window.allowed += gone
        known["undecided"] = 0
        for result in RESULTS:
            more = known[result] - self._before[result]
            window.counted[result] = window.counted.get(result, 0) + more
            window.before_kill += more
        if how != signal.SIGTERM:
            time.sleep(_READ_S)
            window.allowed += max(0, self.rig.acknowledged() - self._acknowledged - window.before_kill)
        self._before = dict.fromkeys(RESULTS, 0)

    @property
    def at_s(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self._began

    def _leave_out(self, what: str) -> None:
        if what not in self.left_out:
            self.left_out.append(what)

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
            elif now - still_since > self.still_s:
                total = sum(counted.values()) - sum(self._before.values()) + window.before_kill
                if total >= sender.sent - self._sent - window.allowed:
                    break
            time.sleep(0.25)
        assert last is not None
        twice, self._acknowledged = self.rig.delivered_twice(), self.rig.acknowledged()
        for result in RESULTS:
            more = last[result] - self._before[result]
            window.counted[result] = window.counted.get(result, 0) + more
        window.sent += sender.sent - self._sent
        window.twice += twice - self._twice
        self._before, self._sent, self._twice = last, sender.sent, twice
        window.before_kill = 0
        window.owed = max(0, sum(earlier.twice - max(0, earlier.difference) for earlier in self.windows[:-1]))
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

    def findings(self) -> list[Finding]:
        """What had to hold, whether it did, and the figures; ends the daemon."""
        found = [self._rows_found(), *self._process_found(), self._end_found(), *self._memory_found()]
        return [*found, *self._files_found()]

    def _rows_found(self) -> Finding:
        sent = sum(window.sent for window in self.windows)
        totals = {r: sum(window.counted.get(r, 0) for window in self.windows) for r in RESULTS}
        bad = [window.what for window in self.windows if not window.balanced]
        lost = -sum(window.difference for window in self.windows if window.allowed and window.difference < 0)
        account = (
            f"{sent} sent; " + ", ".join(f"{totals[r]} {r}" for r in RESULTS) + f"; {sum(totals.values()) - sent:+d}, "
            f"{sum(w.twice for w in self.windows)} delivered twice at most, {lost} gone with a killed process"
        )
        gone = sum(totals.values()) - sent + sum(window.allowed for window in self.windows) < 0
        return not bad and not gone, "every row is accounted for", account + (f"; not: {', '.join(bad)}" if bad else "")

    def _process_found(self) -> list[Finding]:
        """Memory, threads and files, of the last life."""
        life = [sample for sample in self.samples if sample.life == self.rig.life]
        first = [sample for sample in life if self.settled_s <= sample.at_s < self.settled_s + 30]
        last = life[-15:]
        if not first or not last:
            return [(False, "memory, threads and files stay", "the run was too short to say")]
        before, after = (statistics.median(s.rss_bytes for s in part) for part in (first, last))
        grown = (
            f"{before / 2**20:.2f} MiB {self.settled_s - self.last_life_s:.0f} s after the last start, "
            f"{after / 2**20:.2f} MiB at the end ({(after - before) / 2**20:+.2f}; medians of 30 s)"
        )
        found = [(after - before < GROWTH_BYTES, "resident memory grew by less than 1 MiB", grown)]
        for what, of in (("threads", lambda s: s.threads), ("file descriptors", lambda s: s.files)):
            # A minute, and what is there most of the time: a connection that is being cut has no file.
            minute = [of(s) for s in life if self.settled_s <= s.at_s < self.settled_s + 60]
            begin, end = statistics.mode(minute), statistics.mode([of(s) for s in last])
            found.append((begin == end, f"{what} are where they were", f"{begin} before, {end} at the end"))
        return found

    def _memory_found(self) -> list[Finding]:
        """Whether the limits of the unit were enough for all lives and their trainings."""
        group = self.rig.confined
        if group is None:
            self._leave_out("the memory limits of the unit: need root and a memory controller")
            return []
        most = f"{group.peak / 2**20:.0f} MiB" if group.peak else "an unknown part"
        high = f"MemoryHigh {group.high >> 20} MiB, " if group.version == 2 else ""
        seen = f"{most} at most of {high}MemoryMax {group.most >> 20} MiB, state directory and sockets included; "
        seen += f"{group.held_back} times a limit was met, {group.kills} processes killed"
        found = not group.kills and group.peak <= group.most
        return [(found, f"the unit's memory limits suffice (control groups {group.version})", seen)]

    def _end_found(self) -> Finding:
        assert self.rig.daemon is not None
        began = time.monotonic()
        self.rig.daemon.terminate()
        try:
            status: int | None = self.rig.daemon.wait(20)
        except subprocess.TimeoutExpired:
            status = None
        ended_s = time.monotonic() - began
        return status == 0, "SIGTERM ends it well", f"exit status {status} after {ended_s:.1f} s"

    def _files_found(self) -> list[Finding]:
        rig, names = self.rig, self.sender.names
        models, wrong = ModelFolder(rig.state), []
        for name in names:
            model, problem = models.load(name)
            if model is None or problem:
                wrong.append(f"{name}: {problem or 'none'}")
        valid = f"{len(names)} of {len(names)}"
        found = [(not wrong, "every stream has a valid model", "; ".join(wrong) or valid)]
        with Store.open(rig.state) as store:
            rows = sum(store.streams().values())
            sound = store.persistent and not store.recovered and not store.damaged_chunks
            rounds = store.retrains()
        found.append((sound, "the database is sound", f"{rows} rows, {len(rounds)} rounds of training in it"))
        log = (rig.folder / "daemon.log").read_text(errors="replace")
        traces = log.count("Traceback (most recent call last)")
        found.append((traces == 0, "no traceback in the log", f"{traces}; {len(log.splitlines())} lines"))
        return found

    def report(self, findings: list[Finding]) -> str:
        """The run as Markdown."""
        life = [sample for sample in self.samples if sample.life == self.rig.life]
        lines = [
            f"# {self.title}",
            "",
            "Made by `tools/soak.py` (`make soak`), which says what is done and how rows are accounted for.",
            "",
            (
                f"gon-edge {__version__}, Python {platform.python_version()}, {platform.machine()}, {os.cpu_count()} "
                f"cores; {self.at_s / 60:.1f} minutes, {len(self.sender.names)} streams at {1 / PERIOD_S:g} Hz, "
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
            "| At | s | What | Sent | Accepted | Late | Invalid | Dropped | Ignored | Undecided | More | Twice | |",
            "|---:|---:|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|---|",
        ]
        for w in self.windows:
            counts = " | ".join(str(w.counted.get(r, 0)) for r in RESULTS)
            note = w.note + (f"{'; ' if w.note else ''}at most {w.allowed} may be gone" if w.allowed else "")
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
