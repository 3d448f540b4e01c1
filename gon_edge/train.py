"""The training child: ``python -m gon_edge.train JOB``, a fresh process that fits one model and ends.

Reads rows from the daemon's store (read-only), fits, writes a candidate model file and tells its parent on stdout, a
JSON object a line.  It is the first the kernel kills, has the lowest priority and one thread, and stops itself when it
would outgrow its budget: the daemon beside it must go on scoring.  It decides nothing: ``retrain`` reads the candidate.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import resource
import signal
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from gon_edge.errors import GonEdgeError, NotEnoughData, OverBudget
from gon_edge.fit import FitSettings, fit_model
from gon_edge.modelfile import save_model
from gon_edge.store import Store

_IMPORTED_BYTES = 40 << 20
"""Resident memory after the imports above; measured 37 MiB on x86-64, 34 MiB on arm64."""


_PR_SET_PDEATHSIG = 1  # linux/prctl.h


@dataclass(frozen=True, slots=True)
class Job:
    """What to train, from what, and where the result goes.

    Attributes
    ----------
    stream : str
    state_dir : str
        Where the store is.
    candidate : str
        File to write.
    version : str
        Name of the new version.
    parent : str
        Version in use, empty for none.
    trained_at : float
        Unix seconds, from the parent: the same job gives the same bytes.
    until : float
        Newest row to learn, Unix seconds.
    max_rows : int
    interval_s : float
    window : int
    risk : float
    seed : int
    budget_bytes : int
    nice : int
    deadline_s : float
        A child that takes longer is ended.
    since : float or None
        Oldest row to learn, Unix seconds.
    include_quarantined : bool
        Learn also rows that were alarmed, silenced or stale.
    accepted : tuple of (float, float)
        Spans, Unix seconds, that a person confirmed as normal: their rows are not screened for odd ones.
    champion : str
        File of the model in use, which a better one replaces; empty for none.
    rows_file : str
        CSV to learn from instead of the store; empty for the store.
    """

    stream: str
    state_dir: str
    candidate: str
    version: str
    parent: str
    trained_at: float
    until: float
    max_rows: int
    interval_s: float
    window: int
    risk: float
    seed: int
    budget_bytes: int
    nice: int
    deadline_s: float = 600.0
    since: float | None = None
    include_quarantined: bool = False
    accepted: tuple[tuple[float, float], ...] = ()
    champion: str = ""
    rows_file: str = ""


@dataclass(frozen=True, slots=True)
class Plan:
    """What a job would do, known before it starts.

    Attributes
    ----------
    stored_rows : int
        Rows there are.
    quarantined_rows : int
        Of them, rows that must not be learned.
    usable_rows : int
        Rows that may be learned: neither quarantined (unless asked for) nor outside the job's span.
    rows : int
        Rows that are used, spread over the whole span where they are fewer.
    windows : int
        Windows a fit takes from them.
    batch : int
        Windows handled at once.
    features : int
    predicted_peak_bytes, budget_bytes : int
    shrunk : str
        What was made smaller to fit, and why; empty when nothing was.
    refused : str
        Why the job cannot be done; empty when it can.
    """

    stored_rows: int
    quarantined_rows: int
    usable_rows: int
    rows: int
    windows: int
    batch: int
    features: int
    predicted_peak_bytes: int
    budget_bytes: int
    shrunk: str
    refused: str


def plan(job: Job) -> Plan:
    """What ``job`` would use; reads the store (read-only), starts nothing.

    Raises
    ------
    StoreError
        The store cannot be read.
    InputError
        ``rows_file`` cannot be read.
    """
    raise NotImplementedError


def predicted_peak_bytes(rows: int, features: int, settings: FitSettings) -> int:
    """Upper bound of the resident memory of a round on ``rows`` x ``features``, in bytes.

    Rows are held as they are read, raw (float32, and float64 while scaled) and standardised; a batch of 256 windows and
    the float64 power iterate are the largest pieces beside them.  Measured on 8 to 500 features: 2 to 12 % below this.
    """
    held = rows * (features * (6 + 4 + 8 + 8 + 4 + 1) + 80)
    batch = 256 * settings.window * features * 4 * 3
    iterate = settings.window * features * (settings.hidden + 8) * (8 + 8 + 4)
    networks = 3 * 4 * settings.hidden * features * (settings.window + 21)
    prototypes = 4096 * settings.prototypes * settings.hidden * 4 * 2
    return _IMPORTED_BYTES + held + batch + iterate + networks + prototypes


def rows_within(budget_bytes: int, features: int, settings: FitSettings) -> int:
    """Most rows whose predicted peak is within the budget; 0 when not even one is."""
    fixed = predicted_peak_bytes(0, features, settings)
    each = predicted_peak_bytes(1, features, settings) - fixed
    return max(0, (budget_bytes - fixed) // each)


def peak_bytes() -> int:
    """Largest resident memory of this process so far, bytes.

    ``VmHWM``, not ``ru_maxrss``: that one starts with what the parent held when it forked.
    """
    return _status_bytes("VmHWM")


def _status_bytes(key: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{key}:"):
            return int(line.split()[1]) * 1024
    return 0


def _be_considerate(nice: int) -> None:
    """Lowest priority, first in line when memory runs out, and gone when the daemon is."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    with contextlib.suppress(OSError):
        os.nice(nice)
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")


def _limit_growth(budget_bytes: int) -> None:
    """Make allocations fail past the budget.

    The limit is on private writable memory (RLIMIT_DATA), which counts what is mapped and not only what is touched: so
    what is mapped now plus what the resident memory may still grow.
    """
    # The first product makes OpenBLAS map its work area (32 MiB, hardly touched); later it would fail for good.
    np.linalg.eigh(np.ones((64, 64)) @ np.ones((64, 64)))
    np.ones((64, 64), np.float32) @ np.ones((64, 64), np.float32)
    room = max(0, budget_bytes - _status_bytes("VmRSS"))
    mapped = _status_bytes("VmData")
    resource.setrlimit(resource.RLIMIT_DATA, (mapped + room, mapped + room))


def _tell(**message: object) -> None:
    sys.stdout.write(json.dumps(message) + "\n")
    sys.stdout.flush()


def run(job: Job) -> None:
    """Do one job.

    Raises
    ------
    NotEnoughData
        Fewer rows than two windows.
    OverBudget
        The rows do not fit the budget.
    StoreError
        The store cannot be read.
    """
    began = time.monotonic()
    settings = FitSettings(window=job.window, risk=job.risk)
    with Store.open(job.state_dir, read_only=True) as store:
        _, _, features, _ = store.rows(job.stream, limit=1)
        fitting = rows_within(job.budget_bytes, len(features), settings)
        if fitting < 2 * settings.window:
            needed = predicted_peak_bytes(2 * settings.window, len(features), settings)
            raise OverBudget(job.stream, budget_bytes=job.budget_bytes, peak_bytes=needed)
        timestamps, values, features, restart = store.rows(job.stream, limit=min(job.max_rows, fitting))
    known = timestamps <= job.until
    values, restart = values[known], restart[known]
    if len(values) < 2 * settings.window:
        raise NotEnoughData(
            job.stream, f"{len(values)} normal rows are stored and {2 * settings.window} are needed; wait for more"
        )
    _limit_growth(job.budget_bytes)
    try:
        model = fit_model(
            values,
            features=features,
            restart=restart,
            settings=settings,
            rng=np.random.default_rng(job.seed),
            interval_s=job.interval_s,
            progress=lambda phase, share, loss: _tell(phase=phase, share=round(share, 3), rss_bytes=peak_bytes()),
        )
    except MemoryError:
        raise OverBudget(job.stream, budget_bytes=job.budget_bytes, peak_bytes=peak_bytes()) from None
    model = model.with_lineage(
        version=job.version,
        parent=job.parent,
        stream=job.stream,
        trained_at=job.trained_at,
        seed=job.seed,
        rows=len(values),
        since=float(timestamps[known][0]),
        until=float(timestamps[known][-1]),
    )
    save_model(model, Path(job.candidate))
    _tell(outcome="fitted", rows=len(values), seconds=round(time.monotonic() - began, 3), peak_bytes=peak_bytes())


def main() -> int:
    """Run the job in the file named by the only argument; the exit status is that of the error."""
    fields = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    job = Job(**{**fields, "accepted": tuple((since, until) for since, until in fields["accepted"])})
    _be_considerate(job.nice)
    try:
        run(job)
    except GonEdgeError as error:
        _tell(outcome="failed", error=type(error).__name__, reason=str(error), peak_bytes=peak_bytes())
        return error.exit_code
    return 0


def write_job(job: Job, path: Path) -> None:
    """Write a job file."""
    path.write_text(json.dumps(asdict(job)), encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
