"""Run the daemon for a while under everything that goes wrong in the field, and account for every row.

::

    sudo make soak MINUTES=30
    sudo make chaos MINUTES=30 SEED=0
    python tools/soak.py --minutes 12 --report soak.md

There are two courses of events: the same one each time, and with ``--random`` one that is drawn (`chaos`).

A real mosquitto, a real daemon, 20 streams of four sensors at 2 Hz, 16 with timestamps and 4 stamped on receipt.  First
the daemon is killed a few times (``kill -9``, once in the middle of the traffic); what follows is one life of one
process: floods of garbage, the broker restarted and frozen, the network cut, clocks set, the disk full, models trained
again.  After each of these the sending stops until everything has arrived, and the daemon's own counters must add up::

    sent <= accepted + late + invalid + dropped + ignored + undecided <= sent + delivered twice

where what MQTT delivers twice (QoS 1 after a lost connection) is read from the broker's log.  Only a process that is
killed may take rows with it, at most those it had not counted.

As root on Linux the daemon lives in a network namespace of its own, whose link is cut, and its state directory is a
small tmpfs, which is filled; where there is a memory controller it has the memory limits of the service's unit.  What
is not possible here, as without root, is left out, and the report says so.  The wall clock is set for the
daemon alone, by a few lines of C loaded before its libraries (needs ``cc``); this machine's is never touched.  Ctrl-C
cleans up.
"""

from __future__ import annotations

import argparse
import shutil
import signal
import sys
import tempfile
from pathlib import Path

from account import SETTLED_S
from attacks import Attacks
from chaos import Chaos
from rig import RECEIPT, STREAMS, Rig, Sender

from gon_edge.model.file import load_model
from gon_edge.state.folder import ModelFolder

MODEL = Path(__file__).resolve().parents[1] / "tests" / "golden" / "pump.npz"  # of three sensors that devices here have


class Soak(Attacks):
    """The same course of events each time: kills first, then one life under everything else."""

    title = "A soak of the daemon"

    def course(self) -> None:
        """All of it."""
        self._kills()
        self.last_life_s = self.at_s
        # After five minutes of the last life; a short run has to do with half of it.
        self.settled_s = self.last_life_s + min(SETTLED_S, (self.total_s - self.last_life_s) / 2)
        self._everything_else()
        with self._window("the end, undisturbed"):
            self._go_on(max(20.0, self.total_s - self.at_s))

    def _kills(self) -> None:
        with self._window("warm-up"):
            self._go_on(45.0)
        until_s = max(90.0, self.total_s / 5 - 40)
        while self.at_s < until_s:
            with self._window("kill -9 at rest") as window:
                self._rest(window)
                self._end_life(window, signal.SIGKILL)
                self.rig.start_daemon()
                self.sender.resting.clear()
                self._go_on(15.0)
            with self._window("kill -9 in the traffic") as window:
                self._go_on(8.0)
                self._end_life(window, signal.SIGKILL)
                self._go_on(5.0)
                self.rig.start_daemon()
                self._go_on(10.0)

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


def main() -> int:
    """Run it, write the report; the exit status is 1 when something did not hold."""
    parser = argparse.ArgumentParser(description="Run the daemon under everything that goes wrong in the field.")
    parser.add_argument("--random", action="store_true", help="attacks drawn at random by the seed (make chaos)")
    parser.add_argument("--trained", type=int, default=0, metavar="N", help="random: N streams that have their models")
    parser.add_argument("--only", nargs="+", metavar="TEXT", help="random: attacks with one of these in their name")
    parser.add_argument("--minutes", type=float, default=30.0, help="how long (default: 30; at least 5, random 1)")
    parser.add_argument("--report", type=Path, help="where to (build/soak.md, build/chaos.md)")
    parser.add_argument("--seed", type=int, default=0, help="of rows, garbage and choices (default: 0)")
    parser.add_argument("--keep", type=Path, help="copy the logs of daemon and broker to this folder")
    args = parser.parse_args()
    least = 1.0 if args.random else 5.0
    if args.minutes < least:
        parser.error(f"at least {least:g} minutes: first models come before, the account of memory afterwards")
    report = args.report or Path("build/chaos.md" if args.random else "build/soak.md")
    signal.signal(signal.SIGTERM, lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    folder = Path(tempfile.mkdtemp(prefix="gon-edge-soak-"))
    try:
        with Rig(folder) as rig:
            run = course(rig, args)
            try:
                run.run()
                findings = run.findings()
            finally:
                if args.keep:
                    args.keep.mkdir(parents=True, exist_ok=True)
                    for log in (*folder.glob("*.log"), *folder.glob("heard")):
                        shutil.copy(log, args.keep)
            report.parent.mkdir(parents=True, exist_ok=True)
            report.write_text(run.report(findings))
    except KeyboardInterrupt:
        print("\ninterrupted; nothing is left behind", file=sys.stderr)
        return 130
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    for good, what, seen in findings:
        print(f"{'ok    ' if good else 'FAILED'}  {what}: {seen}")
    print(f"the report is {report}")
    return int(not all(good for good, _, _ in findings))


def course(rig: Rig, args: argparse.Namespace) -> Soak | Chaos:
    """The run that is asked for, with its devices."""
    url = f"mqtt://127.0.0.1:{rig.port}"
    if not args.random:
        return Soak(rig, Sender(url, args.seed, [*STREAMS, *RECEIPT]), args.minutes, args.seed)
    # A short run is a test: it has no time for many first models, or for those that take a minute of real time.
    names = [*STREAMS, *RECEIPT] if args.minutes >= 5.0 else STREAMS[:4]
    if args.trained:  # an emulated machine trains for minutes
        names = STREAMS[: args.trained]
        for name in names:
            ModelFolder(rig.state).install(name, load_model(MODEL).with_lineage(version="1"))
    run = Chaos(rig, Sender(url, args.seed, names, backlog=0 if args.trained else 160), args.minutes, args.seed)
    run.only = tuple(args.only or ())
    return run


if __name__ == "__main__":
    sys.exit(main())
