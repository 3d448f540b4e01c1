"""The parent's side of training: start the child, watch it, put in use what its gate passed.

One child at a time (a lock in the state directory holds across processes).  `Trainer.poll` never blocks: the scoring
loop calls it between rows.  The child is reached as a process only, so that its memory goes back to the system.
Knows nothing of whose turn it is (`rounds`) and of streams that run.
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

log = logging.getLogger(__name__)


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
        self._child: _Child | None = None

    @property
    def stream(self) -> str | None:
        """The stream a child is training for."""
        return self._child.job.stream if self._child else None

    @property
    def pid(self) -> int | None:
        """The running child's process, for whoever slows it down; ``None`` when none runs."""
        return self._child.process.pid if self._child else None

    @property
    def progress(self) -> dict[str, Any] | None:
        """How far the running child is, as of the last `poll`; ``None`` when none runs.

        ``phase`` (``starting``, ``read``, ``screen``, ``calibrate``, ``fit``, ``gate`` or ``save``), ``share`` of the
        whole round (0 to 1), ``loss`` of the adversarial step where one runs, ``rss_bytes``, ``budget_bytes`` and
        ``elapsed_s``.
        """
        return self._child.progress() if self._child else None

    def start(self, job: Job) -> None:
        """Start a child.

        Raises
        ------
        RetrainBusy
            One is running, here or in another process.
        OSError
            The state directory cannot be written.
        """
        if self._child is not None:
            raise RetrainBusy(job.stream, f"stream {self._child.job.stream!r} is being trained; try again later")
        make_file(self._state_dir / "training.lock")
        lock = (self._state_dir / "training.lock").open("ab")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.close()
            raise RetrainBusy(job.stream, "another process trains; try again later") from None
        candidate = Path(job.candidate)
        make_folder(candidate.parent)
        candidate.unlink(missing_ok=True)
        self._child = _Child(job, lock)

    def poll(self) -> tuple[RetrainRecord, Model | None] | None:
        """The round that has just ended, or ``None``; never blocks.

        Returns
        -------
        record : RetrainRecord
            What came of it; ``reason`` is one line for a person, empty when it went well.
        model : Model or None
            The new model, in place on disk, when the outcome is ``promoted``.
        """
        if (child := self._child) is None or (over := child.look()) is None:
            return None
        self._child = None
        child.close()
        return self._settle(child, over)

    def stop(self) -> None:
        """End a running child; its round is lost, nothing else."""
        if (child := self._child) is None:
            return
        self._child = None
        child.process.send_signal(signal.SIGTERM)
        try:
            child.process.wait(_TERMINATE_S)
        except subprocess.TimeoutExpired:
            child.process.kill()
            child.process.wait()
        child.close()
        Path(child.job.candidate).unlink(missing_ok=True)

    def _settle(self, child: _Child, over: str) -> tuple[RetrainRecord, Model | None]:
        """Put the candidate in use, or say why not."""
        job, said = child.job, child.said()
        peak, gate = int(said.get("peak_bytes", 0)), said.get("gate")
        if shrunk := said.get("plan", {}).get("shrunk"):
            log.info("stream %r: learned from %s", job.stream, shrunk)
        model: Model | None = None
        outcome: TrainingOutcome = "failed"
        reason = str(said.get("reason", ""))
        if over == "memory":
            outcome, reason = "over_budget", "outgrew retrain.memory_budget and was ended"
            peak = max(peak, child.memory_bytes)
        elif over == "deadline":
            reason = f"took longer than retrain.deadline ({job.deadline_s:g} s) and was ended"
        elif child.process.returncode == 0:
            model, outcome, reason = self._install(job, gate)
        else:
            named: dict[str, TrainingOutcome] = {"NotEnoughData": "not_enough_data", "OverBudget": "over_budget"}
            outcome = named.get(str(said.get("error")), "failed")
            reason = reason or f"the training process ended with status {child.process.returncode}"
        Path(job.candidate).unlink(missing_ok=True)
        record = RetrainRecord(
            stream=job.stream,
            version=model.version if model else "",
            started=job.trained_at,
            duration_s=child.took_s,
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
    """A running child: its process, the lock it runs under, and what it has said so far."""

    def __init__(self, job: Job, lock: IO[bytes]) -> None:
        self.job = job
        self.memory_bytes = 0
        self.took_s = 0.0
        self._lock = lock
        self._output = bytearray()
        self._began = time.monotonic()
        file = Path(job.candidate).with_name("job.json")
        write_job(job, file)
        # One thread: a second BLAS thread only takes the core that scores.  One arena keeps the peak near what is used.
        environment = {
            **os.environ,
            "OPENBLAS_NUM_THREADS": "1",
            "OMP_NUM_THREADS": "1",
            "MALLOC_ARENA_MAX": "1",
            "MALLOC_MMAP_THRESHOLD_": str(_MMAP_THRESHOLD),
        }
        self.process = subprocess.Popen(
            python("-m", "gon_edge.training.child", str(file)),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            env=environment,
        )
        # It says so itself once it has loaded numpy; by then the kernel may have chosen the daemon, which is larger.
        with contextlib.suppress(OSError):
            Path(f"/proc/{self.process.pid}/oom_score_adj").write_text("1000")
        assert self.process.stdout is not None
        os.set_blocking(self.process.stdout.fileno(), False)

    def look(self) -> str | None:
        """Hear the child and measure it; ``None`` while it may go on, else whether it was ended, and for what.

        Returns
        -------
        str or None
            ``memory`` or ``deadline`` for a child that had to be ended, empty for one that has ended by itself.
        """
        assert self.process.stdout is not None
        with contextlib.suppress(BlockingIOError):
            self._output += self.process.stdout.read() or b""
        self.took_s = time.monotonic() - self._began
        if self.process.poll() is not None:
            return ""
        # PSS is never more than RSS, and adding it up waits for a lock of the child, which may have lost the processor
        # while it held it: up to 25 ms in which no row is scored.
        self.memory_bytes = rss_bytes(self.process.pid)
        if self.memory_bytes > self.job.budget_bytes:
            self.memory_bytes = pss_bytes(self.process.pid)
        over = "memory" if self.memory_bytes > self.job.budget_bytes else ""
        if not over and self.took_s > self.job.deadline_s:
            over = "deadline"
        if not over:
            return None
        self.process.kill()
        self.process.wait()
        return over

    def close(self) -> None:
        """Hear the last words of a child that has ended, and let another one start."""
        assert self.process.stdout is not None
        self._output += self.process.stdout.read() or b""
        self.process.stdout.close()
        self._lock.close()

    def said(self) -> dict[str, Any]:
        """Everything that the child has said so far, the newest word of each kind."""
        return {key: value for message in self._messages() for key, value in message.items()}

    def progress(self) -> dict[str, Any]:
        """See `Trainer.progress`."""
        told: dict[str, Any] = {"phase": "starting", "share": 0.0, "loss": None, "rss_bytes": 0}
        for message in self._messages():
            if "phase" in message:
                told = message
        return {
            "phase": str(told["phase"]),
            "share": float(told["share"]),
            "loss": told["loss"],
            "rss_bytes": max(int(told["rss_bytes"]), self.memory_bytes),
            "budget_bytes": self.job.budget_bytes,
            "elapsed_s": round(time.monotonic() - self._began, 3),
        }

    def _messages(self) -> list[dict[str, Any]]:
        """The child's messages so far; a line cut off by its end is left out."""
        found = []
        for line in bytes(self._output).splitlines():
            with contextlib.suppress(ValueError):
                message = json.loads(line)
                if isinstance(message, dict):
                    found.append(message)
        return found
