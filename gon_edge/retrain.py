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
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any
from urllib.parse import quote, unquote

from gon_edge.errors import ModelFileError, RetrainBusy
from gon_edge.gate import GateReport, is_finite
from gon_edge.modelfile import Model, load_model, save_model, write_atomically
from gon_edge.prometheus import RetrainOutcome
from gon_edge.train import Job, write_job

VERSIONS_KEPT = 5
"""Models kept of each stream, the one in use among them: with a training a day, a working week to find out that one was
bad.  A model has 10 to 30 kB, one of 500 features 1 MB."""

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
    """Where the models of all streams are.

    ``<state_dir>/models/<stream>/model.npz`` is the one in use; ``model-<version>.npz`` are copies of it and of those
    before it; ``current`` names the version in use, for when ``model.npz`` is damaged.  Each file is replaced in one
    step and the copy is written first, so a power cut at any moment leaves the old model in use or the new one.
    """

    def __init__(self, state_dir: Path) -> None:
        self.path = state_dir / "models"

    def file(self, stream: str) -> Path:
        """The file of a stream's model; any stream name is one folder, inside this one."""
        return self.path / _file_name(stream) / "model.npz"

    def load(self, stream: str, version: str | None = None) -> tuple[Model | None, str]:
        """The model in use, or else the newest that can be read, and what was wrong with it (empty when nothing was).

        With ``version`` that one or none.  A damaged file is renamed, so that it is looked at once and can be looked at
        by a person.
        """
        file = self.file(stream)
        if version is not None:
            files = [self._copy(stream, version)]
        else:
            copies = [found.path for found in self._copies(stream)]
            with contextlib.suppress(OSError, UnicodeDecodeError):
                named = self._copy(stream, file.with_name("current").read_text(encoding="utf-8").strip())
                copies.sort(key=lambda copy: copy != named)
            files = [file, *copies]
        wrong = ""
        for candidate in files:
            if not candidate.exists():
                continue
            try:
                return load_model(candidate), wrong
            except ModelFileError as error:
                wrong = f"{error}; kept as {candidate.name}.damaged"
                with contextlib.suppress(OSError):
                    candidate.replace(candidate.with_name(f"{candidate.name}.damaged"))
        return None, wrong

    def versions(self, stream: str) -> tuple[ModelVersion, ...]:
        """Models of a stream that can be read, the newest first."""
        file = self.file(stream)
        current = _read(file)
        found = [
            replace(copy, current=current is not None and copy.version == current.version)
            for copy in self._copies(stream)
        ]
        if current is not None and not any(copy.current for copy in found):
            size = file.stat().st_size
            found.append(ModelVersion(current.version, file, True, current.lineage, size))
        return tuple(sorted(found, key=_age, reverse=True))

    def rollback(self, stream: str, version: str | None = None) -> Model:
        """Put an earlier model in use.

        Parameters
        ----------
        stream : str
        version : str, optional
            Any version that is kept; without, the one that the model in use replaced.

        Raises
        ------
        ModelFileError
            There is no such model, or it is damaged.
        OSError
            The folder cannot be written.
        """
        versions = self.versions(stream)
        at = next((i for i, found in enumerate(versions) if found.current), -1)
        if version is None and at >= 0:
            parent = str(versions[at].lineage.get("parent", ""))
            before = [found for found in versions if found.version == parent and not found.current]
            before += versions[at + 1 :]
        else:
            before = [found for found in versions if found.version == (version or found.version)]
        if not before:
            there = ", ".join(found.version for found in versions) or "none"
            wanted = f"no version {version}" if version is not None else "no version before the one in use"
            raise ModelFileError(self.file(stream), f"stream {stream!r} has {wanted}; there are: {there}")
        model = load_model(before[0].path)
        self._use(stream, model)
        return model

    def install(self, stream: str, model: Model) -> None:
        """Put a model in use, as the version its lineage names; those before it are kept, up to ``VERSIONS_KEPT``.

        Raises
        ------
        OSError
            The folder cannot be written; the model in use stays.
        """
        save_model(model, self._copy(stream, model.version))
        self._use(stream, model)
        surplus = [found for found in self.versions(stream) if not found.current][VERSIONS_KEPT - 1 :]
        for found in surplus:
            with contextlib.suppress(OSError):
                found.path.unlink()

    def streams(self) -> list[str]:
        """Streams that have, or had, a model here."""
        return sorted({unquote(file.parent.name) for file in self.path.glob("*/model*.npz*")})

    def _use(self, stream: str, model: Model) -> None:
        file = self.file(stream)
        save_model(model, file)
        write_atomically(file.with_name("current"), model.version.encode())

    def _copy(self, stream: str, version: str) -> Path:
        return self.file(stream).with_name(f"model-{_file_name(version)}.npz")

    def _copies(self, stream: str) -> list[ModelVersion]:
        """Copies that can be read, the newest first."""
        found = []
        for path in self.file(stream).parent.glob("model-*.npz"):
            model = _read(path)
            if model is not None:
                found.append(ModelVersion(model.version, path, False, model.lineage, path.stat().st_size))
        return sorted(found, key=_age, reverse=True)


def _file_name(name: str) -> str:
    """Any text as the name of a file or folder."""
    quoted = quote(name, safe=" ()+,;=@")
    return quoted.replace(".", "%2E", 1) if quoted.startswith(".") else quoted


def _age(version: ModelVersion) -> tuple[int, float]:
    """Newer is larger.  By number where there is one: the clock of a small device may have been wrong."""
    number = int(version.version) if version.version.isdecimal() else -1
    return number, float(version.lineage.get("trained_at", 0.0))


def _read(path: Path) -> Model | None:
    try:
        return load_model(path)
    except ModelFileError:
        return None


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
            [sys.executable, "-m", "gon_edge.train", str(file)],
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
            running.memory_bytes = _rss_bytes(running.process.pid)
            if running.memory_bytes > running.job.budget_bytes:
                running.memory_bytes = resident_bytes(running.process.pid)
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
        outcome: RetrainOutcome = "failed"
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
            named: dict[str, RetrainOutcome] = {"NotEnoughData": "not_enough_data", "OverBudget": "over_budget"}
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


def _rss_bytes(pid: int) -> int:
    with contextlib.suppress(OSError, ValueError, IndexError):
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")
    return 0


def resident_bytes(pid: int) -> int:
    """Memory of a process that is its own share (PSS), bytes; 0 when it cannot be read."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    return 0
