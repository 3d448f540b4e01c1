"""What is done to the rig, one attack a method, each with a note for the report."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from account import Run
from rig import ALERTS, garbage, wait_for

from gon_edge.config.schema import LimitsConfig
from gon_edge.state.folder import ModelFolder


class Attacks(Run):
    """A run with everything that can be done to the rig; courses choose from it."""

    def _flood(self) -> str:
        flood = garbage(4000, self.rng)
        flood.append((f"telemetry/{self.sender.names[0]}", b"x" * (LimitsConfig().payload_bytes + 1)))
        self.sender.flood = flood
        wait_for(lambda: not self.sender.flood, 60, "the flood")
        return f"{len(flood)} messages, {sum(len(p) for _, p in flood) / 1e6:.1f} MB"

    def _names(self) -> str:
        """Devices that change their name with each message."""
        names = [f"telemetry/once-{self.rng.randrange(10**9)}" for _ in range(400)]
        self.sender.flood = [(name, b'{"flow": 1}') for name in names]
        wait_for(lambda: not self.sender.flood, 60, "the names")
        return f"{len(names)} names"

    def _broker_restarts(self, away_s: float = 3.0) -> str:
        self.rig.stop_broker()
        time.sleep(away_s)
        self.rig.start_broker()
        return f"{away_s:.0f} s without one"

    def _broker_hangs(self, seconds: float = 12.0) -> str:
        assert self.rig.broker is not None
        self.rig.broker.send_signal(signal.SIGSTOP)
        self._go_on(seconds)
        self.rig.broker.send_signal(signal.SIGCONT)
        return f"SIGSTOP for {seconds:.0f} s"

    def _small_packets(self) -> str:
        """A broker that takes no packet of a size that an event with its causes has, while a fault begins or ends."""
        most = self.rng.choice((400, 700, 1500))
        self.rig.configure_broker(most)
        self._broker_restarts(0.5)
        note = self._fault()
        self.rig.configure_broker()
        self._broker_restarts(0.5)
        return f"at most {most} bytes, {note}"

    def _denied(self) -> str:
        """Alerts may not be published for a while, in which a fault begins or ends."""
        self.rig.allow(ALERTS)
        note = self._fault()
        self.rig.allow()
        return f"{ALERTS} is denied, {note}"

    def _fault(self) -> str:
        """A fault of one stream begins or ends."""
        stream = self.rng.choice(self.sender.names)
        self.sender.faulty ^= {stream}
        self._go_on(4.0)
        return f"{stream} {'is faulty' if stream in self.sender.faulty else 'is well again'}"

    def _daemon_stands_still(self) -> str:
        assert self.rig.daemon is not None
        seconds = self.rng.uniform(1.0, 5.0)
        self.rig.daemon.send_signal(signal.SIGSTOP)
        self._go_on(seconds)
        self.rig.daemon.send_signal(signal.SIGCONT)
        return f"SIGSTOP for {seconds:.1f} s"

    def _training_held(self) -> str:
        """A training stands still for a while; then it goes on, or is killed."""
        stream = self.rng.choice(self.sender.names)
        with ThreadPoolExecutor(1) as pool:
            round_ = pool.submit(self.rig.command, "retrain", stream, "--wait")
            deadline = time.monotonic() + 20.0
            while not (children := self.rig.children()) and not round_.done() and time.monotonic() < deadline:
                time.sleep(0.05)
            how = self.rng.choice((signal.SIGCONT, signal.SIGKILL))
            with contextlib.suppress(ProcessLookupError):
                for child in children:
                    os.kill(child, signal.SIGSTOP)
                self._go_on(2.0)
                for child in children:
                    os.kill(child, how)
            status = round_.result()
        return f"{stream}: SIGSTOP, then {how.name}; exit status {status}"

    def _state_deleted(self) -> str:
        """The database goes, while it is in use."""
        for file in self.rig.state.glob("state.db*"):
            file.unlink(missing_ok=True)
        return "state.db is deleted"

    def _model_damaged(self) -> str:
        """The model in use of a stream goes, or is no model any more; copies of it stay."""
        stream = self.rng.choice(self.sender.names)
        file = ModelFolder(self.rig.state).file(stream)
        if self.rng.random() < 0.5:
            file.unlink(missing_ok=True)
            return f"{stream}: deleted"
        file.write_bytes(self.rng.randbytes(1000))
        return f"{stream}: overwritten"

    def _retrain(self, meanwhile: Callable[[], str] | None = None) -> str:
        stream = self.rng.choice(self.sender.names)
        began = time.monotonic()
        with ThreadPoolExecutor(1) as pool:
            round_ = pool.submit(self.rig.command, "retrain", stream, "--wait", "--memory-budget", "64MiB")
            note = meanwhile() + "; " if meanwhile else ""
            status = round_.result()
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

    def _disk_full(self, seconds: float = 14.0) -> str:
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
            self._go_on(seconds)
            status = self.rig.command("retrain", self.rng.choice(self.sender.names), "--wait")
        finally:
            filler.unlink()
        errors = self.rig.metrics().get("gon_edge_store_write_errors_total", 0.0) - errors
        return f"{errors:.0f} writes failed and were counted; the training's exit status was {status}"
