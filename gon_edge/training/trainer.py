"""The parent's side of training: start children, watch them, put in use what their gate passed.

One process trains for a state directory at a time (a lock in it holds across processes), by as many children as `start`
is asked for: whose turn it is, and how many may run, is `rounds`' to say.  A child that has done its job takes the next
one, because a third of a short training is Python and numpy being loaded; `rest` ends those that got none.
`Trainer.poll` never blocks: the scoring loop calls it between rows.  The children are reached as processes only, so
that their memory goes back to the system.  Knows nothing of streams that run.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import logging
import os
import signal
import subprocess
import time
from collections.abc import Collection
from pathlib import Path
from typing import IO, Any

from gon_edge.errors import ModelFileError, RetrainBusy
from gon_edge.events import TrainingOutcome
from gon_edge.model.file import Model, load_model
from gon_edge.process.child import python
from gon_edge.process.files import make_file, make_folder
from gon_edge.process.memory import pss_bytes, rss_bytes
from gon_edge.state.folder import ModelFolder
from gon_edge.state.history import RetrainRecord
from gon_edge.training.job import Job, write_job

_TERMINATE_S = 2.0  # from SIGTERM to SIGKILL.  Not critical: the child holds nothing that could be lost

_MMAP_THRESHOLD = 1 << 20
"""Bytes from which glibc gives a freed block back.  Left to itself it raises this with each large block, up to 32 MiB,
and keeps what is freed: 2 to 3 MiB."""

_PIPE_BYTES = 65536  # not critical: what Linux gives a pipe

log = logging.getLogger(__name__)


class Trainer:
    """Runs training children.

    Parameters
    ----------
    state_dir : Path
    models : ModelFolder
    """

    def __init__(self, state_dir: Path, models: ModelFolder) -> None:
        self._state_dir = state_dir
        self._models = models
        self._running: dict[str, _Running] = {}  # by stream
        self._free: list[_Child] = []  # they have done their job, and may take another
        self._ending: list[_Child] = []
        self._lock: IO[bytes] | None = None

    @property
    def streams(self) -> Collection[str]:
        """The streams that are being trained."""
        return self._running.keys()

    def pid(self, stream: str) -> int | None:
        """The process that trains a stream, for whoever slows it down; ``None`` when none does."""
        return self._running[stream].child.process.pid if stream in self._running else None

    def progress(self, stream: str) -> dict[str, Any] | None:
        """How far the training of a stream is, as of the last `poll`; ``None`` when none runs.

        ``phase`` (``starting``, ``read``, ``screen``, ``calibrate``, ``fit``, ``gate`` or ``save``), ``share`` of the
        whole round (0 to 1), ``loss`` of the adversarial step where one runs, ``rss_bytes``, ``budget_bytes`` and
        ``elapsed_s``.
        """
        return self._running[stream].progress() if stream in self._running else None

    def start(self, job: Job) -> None:
        """Have a child do a job: one that is free, or a new one.

        Raises
        ------
        RetrainBusy
            The stream is being trained, or another process trains.
        OSError
            The state directory cannot be written, or no process started.
        """
        if job.stream in self._running:
            raise RetrainBusy(job.stream, f"stream {job.stream!r} is being trained; try again later")
        self._hold(job.stream)
        try:
            candidate = Path(job.candidate)
            make_folder(candidate.parent)
            candidate.unlink(missing_ok=True)
            file = candidate.with_name("job.json")
            write_job(job, file)
            self._running[job.stream] = _Running(job, self._child_for(job.nice, file))
        finally:
            self._release()

    def poll(self) -> tuple[RetrainRecord, Model | None] | None:
        """A round that has ended, or ``None``; never blocks.

        Returns
        -------
        record : RetrainRecord
            What came of it; ``reason`` is one line for a person, empty when it went well.
        model : Model or None
            The new model, in place on disk, when the outcome is ``promoted``.
        """
        self._ending = [child for child in self._ending if child.process.poll() is None]
        for running in self._running.values():
            if (over := running.look()) is not None:
                break
        else:
            return None
        del self._running[running.job.stream]
        self._release()
        if running.said.get("outcome") == "fitted":
            self._free.append(running.child)
        else:
            self._end(running.child)
        return self._settle(running, over)

    def rest(self) -> None:
        """End the children that have nothing to do: their memory goes back to the system."""
        while self._free:
            self._end(self._free.pop())

    def stop(self, stream: str | None = None) -> None:
        """End the training of a stream, by default of all; rounds that run are lost, nothing else."""
        ended = [running for name, running in self._running.items() if stream in (None, name)]
        for running in ended:
            del self._running[running.job.stream]
            running.child.process.send_signal(signal.SIGCONT)  # a process that stands still does not hear SIGTERM
            running.child.process.send_signal(signal.SIGTERM)
        for running in ended:
            with contextlib.suppress(subprocess.TimeoutExpired):
                running.child.process.wait(_TERMINATE_S)
            self._end(running.child)
            Path(running.job.candidate).unlink(missing_ok=True)
        self._release()
        if stream is None:
            self.rest()
            for child in self._ending:
                child.process.wait()
            self._ending.clear()

    def _child_for(self, nice: int, file: Path) -> _Child:
        """A child that was given a job: one that is free, and gives way as much as this one shall, or a new one."""
        for child in [child for child in self._free if child.nice == nice]:
            self._free.remove(child)
            if child.take(file):
                return child
            self._end(child)  # it had been killed
        child = _Child(nice)
        child.take(file)
        return child

    def _end(self, child: _Child) -> None:
        child.end()
        self._ending.append(child)

    def _hold(self, stream: str) -> None:
        """Keep other processes from training, until `_release`."""
        if self._lock is not None:
            return
        make_file(self._state_dir / "training.lock")
        lock = (self._state_dir / "training.lock").open("ab")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.close()
            raise RetrainBusy(stream, "another process trains; try again later") from None
        self._lock = lock

    def _release(self) -> None:
        """Let another process train, once nothing is trained here."""
        if not self._running and self._lock is not None:
            self._lock.close()
            self._lock = None

    def _settle(self, running: _Running, over: str) -> tuple[RetrainRecord, Model | None]:
        """Put the candidate in use, or say why not."""
        job, said = running.job, running.said
        peak, gate = int(said.get("peak_bytes", 0)), said.get("gate")
        if shrunk := said.get("plan", {}).get("shrunk"):
            log.info("stream %r: learned from %s", job.stream, shrunk)
        model: Model | None = None
        outcome: TrainingOutcome = "failed"
        reason = str(said.get("reason", ""))
        if over == "memory":
            outcome, reason = "over_budget", "outgrew retrain.memory_budget and was ended"
            peak = max(peak, running.memory_bytes)
        elif over == "deadline":
            reason = f"took longer than retrain.deadline ({job.deadline_s:g} s) and was ended"
        elif said.get("outcome") == "fitted":
            model, outcome, reason = self._install(job, gate)
        else:
            named: dict[str, TrainingOutcome] = {"NotEnoughData": "not_enough_data", "OverBudget": "over_budget"}
            outcome = named.get(str(said.get("error")), "failed")
            reason = reason or f"the training process ended with status {running.child.process.returncode}"
        Path(job.candidate).unlink(missing_ok=True)
        record = RetrainRecord(
            stream=job.stream,
            version=model.version if model else "",
            started=job.trained_at,
            duration_s=running.took_s,
            outcome=outcome,
            peak_bytes=peak,
            rows=int(said.get("rows", 0)),
            reason=reason,
            gate=gate,
            threshold=said.get("threshold") if model else None,
        )
        return record, model

    def _install(self, job: Job, gate: Any) -> tuple[Model | None, TrainingOutcome, str]:
        """Do with the candidate what the gate said of it: the model if it is in use now, the outcome, and why."""
        try:
            model = load_model(job.candidate)
            reasons = "; ".join(gate["reasons"])
            usable = gate["finite"] and model.finite
            if not usable or not (gate["passed"] or job.force):
                reasons = reasons or "it holds values that are not finite"
                return None, "rejected", f"{reasons}; {_way_out(job)}" if usable and job.accepted_anew else reasons
            self._models.install(job.stream, model)
        except (ModelFileError, OSError, KeyError, TypeError) as error:
            return None, "failed", str(error)
        return model, "promoted", "" if gate["passed"] else f"forced: {reasons}"


def _way_out(job: Job) -> str:
    """What a person can do who has called rows normal, and gets no model for it."""
    return f"if you want the new model all the same, type gon-edge retrain {job.stream} --force"


class _Child:
    """A training child: its process, and what goes in and out of it.

    Parameters
    ----------
    nice : int
        Of every job that it is given: a priority that was lowered cannot be raised again.
    """

    def __init__(self, nice: int) -> None:
        self.nice = nice
        # One thread: a second BLAS thread only takes the core that scores.  One arena keeps the peak near what is used.
        environment = {
            **os.environ,
            "OPENBLAS_NUM_THREADS": "1",
            "OMP_NUM_THREADS": "1",
            "MALLOC_ARENA_MAX": "1",
            "MALLOC_MMAP_THRESHOLD_": str(_MMAP_THRESHOLD),
        }
        self.process = subprocess.Popen(
            python("-m", "gon_edge.training.child"),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
            env=environment,
        )
        # It says so itself once it has loaded numpy; by then the kernel may have chosen the daemon, which is larger.
        with contextlib.suppress(OSError):
            Path(f"/proc/{self.process.pid}/oom_score_adj").write_text("1000")
        assert self.process.stdout is not None
        os.set_blocking(self.process.stdout.fileno(), False)

    def take(self, file: Path) -> bool:
        """Give it the job in a file; false where it has ended already."""
        assert self.process.stdin is not None
        try:
            self.process.stdin.write(json.dumps(str(file)).encode() + b"\n")
        except BrokenPipeError:
            return False
        return True

    def heard(self) -> bytes:
        """What it has said since this was last asked."""
        assert self.process.stdout is not None
        said = b""
        while more := self.process.stdout.read(_PIPE_BYTES):  # None where it has not said more, empty once it has ended
            said += more
        return said

    def end(self) -> None:
        """End it, for good; it holds nothing that could be lost, and nobody waits for its end."""
        self.process.kill()
        for pipe in (self.process.stdin, self.process.stdout):
            assert pipe is not None
            pipe.close()


class _Running:
    """A job that a child is doing, and what it has said of it so far.

    Attributes
    ----------
    job : Job
    child : _Child
    said : dict
        The newest word of each kind.
    memory_bytes : int
        Of the child, when it was looked at last.
    took_s : float
    """

    def __init__(self, job: Job, child: _Child) -> None:
        self.job, self.child = job, child
        self.said: dict[str, Any] = {}
        self.memory_bytes = 0
        self.took_s = 0.0
        self._began = time.monotonic()
        self._line = b""  # that has not come to its end
        self._step: dict[str, Any] = {"phase": "starting", "share": 0.0, "loss": None, "rss_bytes": 0}

    def look(self) -> str | None:
        """Hear the child and measure it; ``None`` while it may go on, else whether it was ended, and for what.

        Returns
        -------
        str or None
            ``memory`` or ``deadline`` for a child that had to be ended, empty for one that has done its job, or has
            ended by itself.
        """
        process, job = self.child.process, self.job
        has_ended = process.poll() is not None  # before its last words are heard
        self._hear(self.child.heard())
        self.took_s = time.monotonic() - self._began
        if has_ended or "outcome" in self.said:
            return ""
        # PSS is never more than RSS, and adding it up waits for a lock of the child, which may have lost the processor
        # while it held it: up to 25 ms in which no row is scored.
        self.memory_bytes = rss_bytes(process.pid)
        if self.memory_bytes > job.budget_bytes:
            self.memory_bytes = pss_bytes(process.pid)
        over = "memory" if self.memory_bytes > job.budget_bytes else ""
        if not over and self.took_s > job.deadline_s:
            over = "deadline"
        if not over:
            return None
        process.kill()
        process.wait()
        return over

    def progress(self) -> dict[str, Any]:
        """See `Trainer.progress`."""
        step = self._step
        return {
            "phase": str(step["phase"]),
            "share": float(step["share"]),
            "loss": step["loss"],
            "rss_bytes": max(int(step["rss_bytes"]), self.memory_bytes),
            "budget_bytes": self.job.budget_bytes,
            "elapsed_s": round(time.monotonic() - self._began, 3),
        }

    def _hear(self, output: bytes) -> None:
        """Take the child's messages; a line cut off by its end is left out."""
        *lines, self._line = (self._line + output).split(b"\n")
        for line in lines:
            with contextlib.suppress(ValueError):
                message = json.loads(line)
                if isinstance(message, dict):
                    self.said.update(message)
                    if "phase" in message:
                        self._step = message
