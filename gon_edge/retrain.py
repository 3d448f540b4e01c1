"""The parent's side of training: start the child, watch it, judge what it made, put it in place.

One child at a time (a lock in the state directory holds across processes).  ``Trainer.poll`` never blocks: the scoring
loop calls it between rows.  The child is reached as a process only, so that its memory goes back to the system.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any
from urllib.parse import quote, unquote

import numpy as np

from gon_edge.errors import ModelFileError, RetrainBusy
from gon_edge.gate import GateReport
from gon_edge.modelfile import Model, load_model, save_model
from gon_edge.prometheus import RetrainOutcome
from gon_edge.train import Job, write_job

_TERMINATE_S = 2.0


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
    outcome: RetrainOutcome
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


@dataclass(frozen=True, slots=True)
class ModelVersion:
    """One model of a stream on the disk.

    Attributes
    ----------
    version : str
    path : Path
    current : bool
        Whether it is the one in use.
    lineage : mapping
    bytes : int
    """

    version: str
    path: Path
    current: bool
    lineage: Mapping[str, Any]
    bytes: int


class ModelFolder:
    """Where the models of all streams are: ``<state_dir>/models/<stream>/model.npz`` and the one before it."""

    def __init__(self, state_dir: Path) -> None:
        self.path = state_dir / "models"

    def file(self, stream: str) -> Path:
        """The file of a stream's model; any stream name is one folder, inside this one."""
        folder = quote(stream, safe=" ()+,;=@")
        return self.path / (folder.replace(".", "%2E", 1) if folder.startswith(".") else folder) / "model.npz"

    def load(self, stream: str) -> tuple[Model | None, str]:
        """The newest model that can be read, and what was wrong with a newer one (empty when nothing was).

        A damaged file is renamed, so that it is looked at once and can be looked at by a person.
        """
        wrong = ""
        newest = self.file(stream)
        for file in (newest, newest.with_name(f"{newest.name}.previous")):
            if not file.exists():
                continue
            try:
                return load_model(file), wrong
            except ModelFileError as error:
                wrong = f"{error}; kept as {file.name}.damaged"
                with contextlib.suppress(OSError):
                    file.replace(file.with_name(f"{file.name}.damaged"))
        return None, wrong

    def versions(self, stream: str) -> tuple[ModelVersion, ...]:
        """Models of a stream that can be read, the newest first."""
        raise NotImplementedError

    def rollback(self, stream: str, version: str | None = None) -> Model:
        """Put an earlier model in use; ``None`` is the one before the current.

        Raises
        ------
        ModelFileError
            There is no such model, or it is damaged.
        """
        raise NotImplementedError

    def install(self, stream: str, model: Model) -> None:
        """Put a model in use; the one before it is kept."""
        raise NotImplementedError

    def streams(self) -> list[str]:
        """Streams that have, or had, a model here."""
        return sorted(unquote(file.parent.name) for file in self.path.glob("*/model.npz*"))


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
        self.phase = ""

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
        raise NotImplementedError

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
        write_job(job, file)
        # One thread: a second BLAS thread only takes the core that scores.  The arena limit keeps the peak near what is
        # in use.
        environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "1"}
        process = subprocess.Popen(
            [sys.executable, "-m", "gon_edge.train", str(file)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            env=environment,
        )
        assert process.stdout is not None
        os.set_blocking(process.stdout.fileno(), False)
        self._running = _Running(job, process, time.monotonic(), lock, bytearray())
        self.phase = "starting"

    def poll(self) -> Round | None:
        """The round that has just ended, or ``None``; never blocks."""
        running = self._running
        if running is None:
            return None
        assert running.process.stdout is not None
        with contextlib.suppress(BlockingIOError):
            running.output += running.process.stdout.read() or b""
        self._read_phase(running)
        took = time.monotonic() - running.started
        over = ""
        if running.process.poll() is None:
            if resident_bytes(running.process.pid) > running.job.budget_bytes:
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

    def _read_phase(self, running: _Running) -> None:
        for message in _messages(running.output):
            if "phase" in message:
                self.phase = f"{message['phase']} {100 * float(message['share']):.0f} %"

    def _judge(self, running: _Running, took: float, over: str) -> Round:
        """Promote the candidate, or say why not."""
        last = {key: value for message in _messages(running.output) for key, value in message.items()}
        peak, rows = int(last.get("peak_bytes", last.get("rss_bytes", 0))), int(last.get("rows", 0))
        model: Model | None = None
        outcome: RetrainOutcome = "failed"
        reason = str(last.get("reason", ""))
        if over == "memory":
            outcome, reason = "over_budget", "outgrew retrain.memory_budget and was ended"
        elif over == "deadline":
            reason = f"took longer than retrain.deadline ({running.job.deadline_s:g} s) and was ended"
        elif running.process.returncode == 0:
            candidate = Path(running.job.candidate)
            try:
                model = load_model(candidate)
                outcome, reason = _gate(model)
                if outcome == "promoted":
                    save_model(model, self._models.file(running.job.stream))
                else:
                    model = None
                candidate.unlink(missing_ok=True)
            except (ModelFileError, OSError) as error:
                model, outcome, reason = None, "failed", str(error)
        else:
            named: dict[str, RetrainOutcome] = {"NotEnoughData": "not_enough_data", "OverBudget": "over_budget"}
            outcome = named.get(str(last.get("error")), "failed")
            reason = reason or f"the training process ended with status {running.process.returncode}"
        return Round(running.job, outcome, model, took, peak, rows, reason)


@dataclass(slots=True)
class _Running:
    job: Job
    process: subprocess.Popen[bytes]
    started: float
    lock: IO[bytes]
    output: bytearray


def _messages(output: bytearray) -> list[dict[str, Any]]:
    """The child's messages so far; a line cut off by its end is left out."""
    found = []
    for line in bytes(output).splitlines():
        with contextlib.suppress(ValueError):
            message = json.loads(line)
            if isinstance(message, dict):
                found.append(message)
    return found


def _gate(model: Model) -> tuple[RetrainOutcome, str]:
    """Whether a new model may be used.  A first one need only be usable; there is none it could be worse than."""
    levels = [model.threshold, model.typical, model.discriminator.bias]
    levels += [value for scale in model.discriminator.scales for value in (scale.kappa, scale.tau, scale.share)]
    arrays = [a for scale in model.discriminator.scales for a in (scale.gain, scale.prototypes, scale.weight.step)]
    if not np.isfinite(levels).all() or not all(np.isfinite(array).all() for array in arrays):
        return "rejected", "the new model holds values that are not finite"
    return "promoted", ""


def resident_bytes(pid: int) -> int:
    """Memory of a process that is its own share (PSS), bytes; 0 when it cannot be read."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    return 0
