"""The parent's side of training: start the child, watch it, apply what its gate found, keep the versions.

One child at a time (a lock in the state directory holds across processes).  ``Trainer.poll`` never blocks: the scoring
loop calls it between rows.  The child is reached as a process only, so that its memory goes back to the system.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import logging
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any

from gon_edge.errors import ModelFileError, RetrainBusy
from gon_edge.events import TrainingOutcome
from gon_edge.model.file import Model, load_model
from gon_edge.process.memory import pss_bytes, rss_bytes
from gon_edge.state.folder import ModelFolder
from gon_edge.training.gate import GateReport, is_finite
from gon_edge.training.job import Job, write_job

_TERMINATE_S = 2.0

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Round:
    """A training round that has ended.

    Attributes
    ----------
    job : Job
    outcome : str
        As in the series ``gon_edge_retrain_rounds_total``.
    model : Model or None
        The new model, in place on disk, when ``outcome`` is ``promoted``.
    duration_s : float
    peak_bytes : int
    rows : int
    reason : str
        One line for a person; empty when it went well.
    verdict : GateReport or None
        What the gate found; ``None`` when no candidate came of it.
    """

    job: Job
    outcome: TrainingOutcome
    model: Model | None
    duration_s: float
    peak_bytes: int
    rows: int
    reason: str
    verdict: GateReport | None = None


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a running child is.

    Attributes
    ----------
    phase : str
        ``starting``, ``read``, ``screen``, ``calibrate``, ``fit``, ``gate`` or ``save``.
    share : float
        Of the whole round, 0 to 1.
    loss : float or None
        Of the adversarial step, where one runs.
    rss_bytes, budget_bytes : int
    elapsed_s : float
    """

    phase: str
    share: float
    loss: float | None
    rss_bytes: int
    budget_bytes: int
    elapsed_s: float


class Trainer:
    """Runs training children, one at a time.

    Parameters
    ----------
    state_dir : Path
    models : ModelFolder
    """

    def __init__(self, state_dir: Path, models: ModelFolder) -> None:
        self._state_dir = state_dir
        self._models = models
        self._running: _Running | None = None

    @property
    def stream(self) -> str | None:
        """The stream a child is training for."""
        return self._running.job.stream if self._running else None

    @property
    def pid(self) -> int | None:
        """The running child's process, for whoever slows it down; ``None`` when none runs."""
        return self._running.process.pid if self._running else None

    def candidate(self, stream: str) -> Path:
        """Where a child writes its result."""
        return self._models.file(stream).with_name("candidate.npz")

    @property
    def progress(self) -> Progress | None:
        """How far the running child is; ``None`` when none runs.  As of the last :meth:`poll`."""
        running = self._running
        if running is None:
            return None
        told: dict[str, Any] = {"phase": "starting", "share": 0.0, "loss": None, "rss_bytes": 0}
        for message in _messages(running.output):
            if "phase" in message:
                told = message
        return Progress(
            phase=str(told["phase"]),
            share=float(told["share"]),
            loss=told["loss"],
            rss_bytes=max(int(told["rss_bytes"]), running.memory_bytes),
            budget_bytes=running.job.budget_bytes,
            elapsed_s=time.monotonic() - running.started,
        )

    def start(self, job: Job, *, force: bool = False) -> None:
        """Start a child.

        Parameters
        ----------
        job : Job
        force : bool
            Promote the new model even when the gate rejects it, unless it holds values that are not finite.

        Raises
        ------
        RetrainBusy
            One is running, here or in another process.
        OSError
            The state directory cannot be written.
        """
        if self._running is not None:
            raise RetrainBusy(job.stream, f"stream {self._running.job.stream!r} is being trained; try again later")
        lock = (self._state_dir / "training.lock").open("ab")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.close()
            raise RetrainBusy(job.stream, "another process trains; try again later") from None
        candidate = Path(job.candidate)
        candidate.parent.mkdir(parents=True, exist_ok=True)
        candidate.unlink(missing_ok=True)
        file = candidate.with_name("job.json")
        job = replace(job, force=force)
        write_job(job, file)
        # One thread: a second BLAS thread only takes the core that scores.  The arena limit keeps the peak near what is
        # in use.
        environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "1"}
        # glibc would raise this threshold with each large block, up to 32 MiB, and keep what is freed: 2 to 3 MiB.
        environment["MALLOC_MMAP_THRESHOLD_"] = str(1 << 20)
        process = subprocess.Popen(
            [sys.executable, "-m", "gon_edge.training.child", str(file)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            env=environment,
        )
        # It says so itself once it has loaded numpy; by then the kernel may have chosen the daemon, which is larger.
        with contextlib.suppress(OSError):
            Path(f"/proc/{process.pid}/oom_score_adj").write_text("1000")
        assert process.stdout is not None
        os.set_blocking(process.stdout.fileno(), False)
        self._running = _Running(job, process, time.monotonic(), lock, bytearray())

    def poll(self) -> Round | None:
        """The round that has just ended, or ``None``; never blocks."""
        running = self._running
        if running is None:
            return None
        assert running.process.stdout is not None
        with contextlib.suppress(BlockingIOError):
            running.output += running.process.stdout.read() or b""
        took = time.monotonic() - running.started
        over = ""
        if running.process.poll() is None:
            # PSS is never more than RSS, and adding it up waits for a lock of the child, which may have lost the
            # processor while it held it: up to 25 ms in which no row is scored.
            running.memory_bytes = rss_bytes(running.process.pid)
            if running.memory_bytes > running.job.budget_bytes:
                running.memory_bytes = pss_bytes(running.process.pid)
            if running.memory_bytes > running.job.budget_bytes:
                over = "memory"
            elif took > running.job.deadline_s:
                over = "deadline"
            else:
                return None
            running.process.kill()
            running.process.wait()
        running.output += running.process.stdout.read() or b""
        running.process.stdout.close()
        running.lock.close()
        self._running = None
        return self._judge(running, took, over)

    def stop(self) -> None:
        """End a running child; its round is lost, nothing else."""
        if self._running is None:
            return
        running, self._running = self._running, None
        running.process.send_signal(signal.SIGTERM)
        try:
            running.process.wait(_TERMINATE_S)
        except subprocess.TimeoutExpired:
            running.process.kill()
            running.process.wait()
        running.lock.close()
        Path(running.job.candidate).unlink(missing_ok=True)

    def _judge(self, running: _Running, took: float, over: str) -> Round:
        """Put the candidate in use, or say why not."""
        job = running.job
        last = {key: value for message in _messages(running.output) for key, value in message.items()}
        peak, rows = int(last.get("peak_bytes", 0)), int(last.get("rows", 0))
        shrunk = last.get("plan", {}).get("shrunk")
        if shrunk:
            log.info("stream %r: learned from %s", job.stream, shrunk)
        model: Model | None = None
        verdict: GateReport | None = None
        outcome: TrainingOutcome = "failed"
        reason = str(last.get("reason", ""))
        if over == "memory":
            outcome, reason = "over_budget", "outgrew retrain.memory_budget and was ended"
            peak = max(peak, running.memory_bytes)
        elif over == "deadline":
            reason = f"took longer than retrain.deadline ({job.deadline_s:g} s) and was ended"
        elif running.process.returncode == 0:
            try:
                verdict = GateReport.from_json(last["gate"])
                model = load_model(job.candidate)
                usable = verdict.finite and is_finite(model)
                if usable and (verdict.passed or job.force):
                    self._models.install(job.stream, model)
                    outcome, reason = "promoted", "" if verdict.passed else f"forced: {'; '.join(verdict.reasons)}"
                else:
                    model, outcome = None, "rejected"
                    reason = "; ".join(verdict.reasons) or "it holds values that are not finite"
            except (ModelFileError, OSError, KeyError, TypeError) as error:
                model, outcome, reason = None, "failed", str(error)
        else:
            named: dict[str, TrainingOutcome] = {"NotEnoughData": "not_enough_data", "OverBudget": "over_budget"}
            outcome = named.get(str(last.get("error")), "failed")
            reason = reason or f"the training process ended with status {running.process.returncode}"
        Path(job.candidate).unlink(missing_ok=True)
        return Round(job, outcome, model, took, peak, rows, reason, verdict)


@dataclass(slots=True)
class _Running:
    job: Job
    process: subprocess.Popen[bytes]
    started: float
    lock: IO[bytes]
    output: bytearray
    memory_bytes: int = 0


def _messages(output: bytearray) -> list[dict[str, Any]]:
    """The child's messages so far; a line cut off by its end is left out."""
    found = []
    for line in bytes(output).splitlines():
        with contextlib.suppress(ValueError):
            message = json.loads(line)
            if isinstance(message, dict):
                found.append(message)
    return found
