"""The training child: ``python -m gon_edge.training.child JOB``, a fresh process that fits one model and ends.

Reads rows from the daemon's store (read-only), a chunk at a time and never all of them, fits, lets the gate compare the
result with the model in use, writes a candidate file and tells its parent on stdout, a JSON object a line.  It is the
first the kernel kills, has the lowest priority and one thread, and stops itself when it would outgrow its budget: the
daemon beside it must go on scoring.  It decides nothing: ``retrain`` applies what the gate found.

Which rows are used: all that may be learned, or, where these are more than fit, blocks of consecutive rows spread over
their whole span, one at a random place in each of equal parts, so that a week's cycle is seen and not its last hours.
Rows that a person confirmed as normal get at least a quarter of the places.  Nothing is written but the candidate: no
scratch file wears out the card.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import math
import os
import resource
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gon_edge.errors import GonEdgeError, InputError, ModelFileError, NotEnoughData, OverBudget, StoreError
from gon_edge.model.file import Model, load_model, save_model
from gon_edge.model.gon import Float
from gon_edge.state.chunk import RowChunk
from gon_edge.state.store import Store
from gon_edge.training.fit import BATCH_BYTES, FitSettings, batch_windows, fit_model
from gon_edge.training.gate import GateReport, judge

_BASE_BYTES = 44 << 20
"""Resident memory of a round on next to nothing: interpreter, numpy and its random generators, SQLite, OpenSSL (for a
checksum), linear algebra once used, and the code of the whole fit.  Measured on x86-64."""

BLOCK_ROWS = 400
"""Consecutive rows in a sample.  Of a quarter of the training rows of five development sets, blocks of 100, 200, 400
and 1000 rows gave mean average precisions of 0.70, 0.69, 0.76 and 0.57, and the newest rows 0.68: shorter ones have too
few whole windows, longer ones are too few."""

_TRUSTED_SHARE = 0.25
_HELD_OUT_SHARE = 0.125
_HELD_OUT_WINDOWS = 3  # at least
_FEWEST_WINDOWS = 2
_TIME_COLUMNS = ("timestamp", "datetime", "time", "date", "ts")
_CSV_CHUNK_ROWS = 1024
_CSV_GAP = 3.0  # times the interval: windows must not reach over a longer gap
_READ_SHARE, _HALFWAY, _FITTED_SHARE = 0.1, 0.5, 0.97  # of a round: after reading, the judged fit, the last fit

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
    force : bool
        Make a candidate of what the gate rejects, too.
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
    force: bool = False


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
    return _plan(job, _survey(job))


@dataclass(frozen=True, slots=True)
class _Survey:
    """What there is to learn from, without values; usable rows are numbered from 0, trusted ones are (start, stop)."""

    stored: int
    quarantined: int
    usable: int
    trusted: tuple[tuple[int, int], ...]
    features: tuple[str, ...]


def _survey(job: Job) -> _Survey:
    stored = quarantined = usable = 0
    trusted: list[tuple[int, int]] = []
    sets: dict[tuple[str, ...], None] = {}
    for chunk in _outlines(job):
        known = chunk.timestamps <= job.until
        stored += int(known.sum())
        quarantined += int((known & chunk.quarantined).sum())
        chosen = known if job.include_quarantined else known & ~chunk.quarantined
        if not chosen.any():
            continue
        sets.pop(chunk.features, None)
        sets[chunk.features] = None
        edges = np.flatnonzero(np.diff(_trusted(job, chunk.timestamps[chosen]), prepend=False, append=False))
        for start, stop in edges.reshape(-1, 2) + usable:
            if trusted and trusted[-1][1] == start:
                start = trusted.pop()[0]
            trusted.append((int(start), int(stop)))
        usable += int(chosen.sum())
    # The newest rows' features in their order, then those only older rows have.
    features = tuple(dict.fromkeys(name for names in reversed(sets) for name in names))
    return _Survey(stored, quarantined, usable, tuple(trusted), features)


def _plan(job: Job, survey: _Survey) -> Plan:
    settings = FitSettings(window=job.window, risk=job.risk)
    features = max(1, len(survey.features))
    fewest = _FEWEST_WINDOWS * settings.window
    fitting = rows_within(job.budget_bytes, features, settings)
    rows = min(survey.usable, max(job.max_rows, fewest), fitting)
    shrunk = refused = ""
    if rows < survey.usable:
        why = "more do not fit the memory budget" if rows == fitting else "as many as retrain.max_rows asks for"
        shrunk = f"{rows} of {survey.usable} rows, in blocks spread over their whole span: {why}"
    if survey.usable < fewest:
        refused = f"{survey.usable} normal rows are stored and {fewest} are needed; wait for more"
    elif rows < fewest:
        rows = fewest
        refused = (
            f"{rows} rows of {features} features need {predicted_peak_bytes(rows, features, settings) >> 20} MiB and "
            f"the budget is {job.budget_bytes >> 20} MiB; raise retrain.memory_budget"
        )
    return Plan(
        stored_rows=survey.stored,
        quarantined_rows=survey.quarantined,
        usable_rows=survey.usable,
        rows=rows,
        windows=min(rows, settings.max_windows),
        batch=batch_windows(settings.window, features),
        features=len(survey.features),
        predicted_peak_bytes=predicted_peak_bytes(rows, features, settings),
        budget_bytes=job.budget_bytes,
        shrunk=shrunk,
        refused=refused,
    )


def predicted_peak_bytes(rows: int, features: int, settings: FitSettings) -> int:
    """Upper bound of the resident memory of a round on ``rows`` x ``features``, in bytes.

    Rows are held as they came and standardised, both float32; scores, energies and indices of each row beside them.  A
    batch of windows is held as gathered and once more flattened for a scale; the adversarial step holds its windows
    several times over.  Measured against in docs/retraining.md.
    """
    held = rows * (8 * features + 100)
    batch = 2 * max(BATCH_BYTES, batch_windows(settings.window, features) * settings.window * features * 4)
    step = 64 * settings.window * features * 4 * 9
    networks = 5 * 4 * settings.hidden * features * sum(settings.scales)
    return _BASE_BYTES + held + max(batch, step) + networks


def rows_within(budget_bytes: int, features: int, settings: FitSettings) -> int:
    """Most rows whose predicted peak is within the budget; 0 when not even one is."""
    fixed = predicted_peak_bytes(0, features, settings)
    each = predicted_peak_bytes(1, features, settings) - fixed
    return max(0, (budget_bytes - fixed) // each)


def choose_blocks(
    usable: int, trusted: Sequence[tuple[int, int]], count: int, rng: np.random.Generator
) -> list[tuple[int, int]]:
    """Which ``count`` of ``usable`` rows to use, as (start, stop), oldest first.

    All of them when they are no more.  Otherwise blocks of ``BLOCK_ROWS``, one at a random place in each of equal
    parts of the span: a fixed distance would see a daily cycle at the same hours only.  Trusted rows are sampled apart,
    and get at least ``_TRUSTED_SHARE`` of the places, as far as there are so many.
    """
    if usable <= count:
        return [(0, usable)] if usable else []
    edges = [0, *(edge for span in trusted for edge in span), usable]
    plain = [(start, stop) for start, stop in zip(edges[::2], edges[1::2], strict=True) if start < stop]
    confirmed = sum(stop - start for start, stop in trusted)
    places = min(confirmed, max(round(count * confirmed / usable), int(count * _TRUSTED_SHARE)))
    places = max(places, count - (usable - confirmed))
    return sorted(_blocks_of(plain, count - places, rng) + _blocks_of(trusted, places, rng))


def _blocks_of(spans: Sequence[tuple[int, int]], count: int, rng: np.random.Generator) -> list[tuple[int, int]]:
    """``count`` rows of those in ``spans``, in blocks, one in each of equal parts of all of them together."""
    if count == 0:
        return []
    begins = np.concatenate([[0], np.cumsum([stop - start for start, stop in spans])])  # in rows of the spans alone
    parts = max(1, count // BLOCK_ROWS)
    found = []
    for part in range(parts):
        low, high = part * begins[-1] // parts, (part + 1) * begins[-1] // parts
        length = (part + 1) * count // parts - part * count // parts
        at = int(low) + int(rng.integers(high - low - length + 1))
        for (start, _), begin, end in zip(spans, begins[:-1], begins[1:], strict=True):
            first, last = max(at, int(begin)), min(at + length, int(end))
            if first < last:
                found.append((start + first - int(begin), start + last - int(begin)))
    return found


@dataclass(frozen=True, slots=True)
class _Rows:
    """Rows to learn from, oldest first."""

    features: tuple[str, ...]
    timestamps: NDArray[np.float64]
    values: Float
    restart: NDArray[np.bool_]
    longest_run: NDArray[np.int32]


def _read(job: Job, survey: _Survey, count: int) -> _Rows:
    """``count`` of the usable rows; all of them pass by, to see how long each feature may stand still."""
    blocks = choose_blocks(survey.usable, survey.trusted, count, np.random.default_rng((job.seed, 1)))
    column = {name: i for i, name in enumerate(survey.features)}
    timestamps, restart = np.empty(count), np.zeros(count, np.bool_)
    values = np.empty((count, len(column)), np.float32)
    still = _Stillness(len(column))
    index = at = 0
    for chunk in _chunks(job):
        kept = chunk.timestamps <= job.until
        rows = np.full((int(kept.sum()), len(column)), np.nan, np.float32)
        for name, measured in zip(chunk.features, chunk.values.T, strict=True):
            if name in column:
                rows[:, column[name]] = measured[kept]
        still.add(rows)
        for start, stop in blocks:
            first, last = max(start - index, 0), min(stop - index, len(rows))
            if first < last:
                place = slice(at, at + last - first)
                timestamps[place] = chunk.timestamps[kept][first:last]
                values[place], restart[place] = rows[first:last], chunk.restart[kept][first:last]
                restart[at] |= start >= index
                at = place.stop
        index += len(rows)
    # Fewer than planned where the daemon has pruned old rows meanwhile.  A feature without a single value is unknown.
    known: NDArray[np.bool_] = np.logical_not(np.logical_and.reduce(np.isnan(values[:at]), axis=0))
    if not known.all() and known.any():
        values = values[:, known]
    else:
        known[:] = True
    features = tuple(name for name, there in zip(survey.features, known, strict=True) if there)
    return _Rows(features, timestamps[:at], values[:at], restart[:at], still.longest_run()[known])


class _Stillness:
    """What ``fit.longest_runs`` finds, from rows that pass by a chunk at a time."""

    def __init__(self, features: int) -> None:
        self._last = np.full(features, np.nan, np.float32)
        self._first = np.full(features, np.nan, np.float32)
        self._run = np.zeros(features, np.int32)
        self._longest = np.zeros(features, np.int32)
        self._moved = np.zeros(features, np.bool_)

    def add(self, rows: Float) -> None:
        if not len(rows):
            return
        row = np.arange(len(rows), dtype=np.int32)[:, None]
        same = rows == np.concatenate([self._last[None], rows[:-1]])
        begin = np.maximum.accumulate(np.where(same, -self._run, row), axis=0)  # of the run each row is in
        length = row + 1 - begin
        self._longest = np.maximum(self._longest, length.max(axis=0))
        self._run = length[-1]
        unknown = np.isnan(self._first)
        if unknown.any():
            first = np.argmax(~np.isnan(rows), axis=0)
            self._first = np.where(unknown, rows[first, np.arange(rows.shape[1])], self._first)
        self._moved |= ((rows != self._first) & ~np.isnan(rows)).any(axis=0)
        self._last = rows[-1]

    def longest_run(self) -> NDArray[np.int32]:
        longest = np.maximum(self._longest, self._run)
        return np.where(self._moved, longest, np.iinfo(np.int32).max).astype(np.int32)


def _trusted(job: Job, timestamps: NDArray[np.float64]) -> NDArray[np.bool_]:
    confirmed = np.zeros(len(timestamps), np.bool_)
    for since, until in job.accepted:
        confirmed |= (timestamps >= since) & (timestamps <= until)
    return confirmed


def _outlines(job: Job) -> Iterator[RowChunk]:
    """All rows from ``since`` on, quarantined ones too; values may be missing."""
    if job.rows_file:
        yield from _csv_chunks(job)
        return
    with Store.open(job.state_dir, read_only=True) as store:
        yield from store.outline(job.stream, since=job.since)


def _chunks(job: Job) -> Iterator[RowChunk]:
    """Rows from ``since`` on that may be learned."""
    if job.rows_file:
        yield from _csv_chunks(job)
        return
    with Store.open(job.state_dir, read_only=True) as store:
        yield from store.chunks(job.stream, since=job.since, include_quarantined=job.include_quarantined)


def _csv_chunks(job: Job) -> Iterator[RowChunk]:
    """Rows of ``rows_file``; times are those of the first column that is named like one, else counted from 0."""
    # 1 MiB that neither a round from the store nor the daemon needs.
    from gon_edge.state.csvfile import CsvFile, cell_number
    from gon_edge.stream.scalars import unix_seconds

    with CsvFile(job.rows_file) as table:
        names = [name.lower() for name in table.columns]
        clock = next((names.index(name) for name in _TIME_COLUMNS if name in names), None)
        columns = [i for i in range(len(names)) if i != clock]
        features = tuple(table.columns[i] for i in columns)
        if not features:
            raise InputError(f"{table.name}: has no column to learn from")
        timestamps = np.empty(_CSV_CHUNK_ROWS)
        values = np.empty((_CSV_CHUNK_ROWS, len(columns)), np.float32)
        count = line = 0
        before = -math.inf
        for cells in table:
            moment = float(line) * (job.interval_s or 1.0)
            if clock is not None:
                try:
                    number = cell_number(cells[clock])
                    moment = unix_seconds(cells[clock] if number is None else number)
                except ValueError as error:
                    raise InputError(f"{table.name}:{table.line}: {cells[clock]!r} is no time: {error}") from None
            line += 1
            if job.since is not None and moment < job.since:
                continue
            measured = (cell_number(cells[i]) for i in columns)
            timestamps[count] = moment
            values[count] = [math.nan if value is None else value for value in measured]
            count += 1
            if count == _CSV_CHUNK_ROWS:
                yield _csv_chunk(job, features, timestamps, values, before)
                before, count = float(timestamps[-1]), 0
        if count:
            yield _csv_chunk(job, features, timestamps[:count], values[:count], before)


def _csv_chunk(
    job: Job, features: tuple[str, ...], timestamps: NDArray[np.float64], values: Float, before: float
) -> RowChunk:
    steps = np.diff(timestamps, prepend=before)
    restart = ~((steps > 0.0) & (steps <= _CSV_GAP * job.interval_s)) if job.interval_s else ~(steps > 0.0)
    restart[0] |= before == -math.inf
    return RowChunk(features, timestamps, values, restart, np.zeros(len(timestamps), np.bool_))


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


def _tell_progress(phase: str, share: float, loss: float | None = None) -> None:
    shown = None if loss is None else round(loss, 4)
    _tell(phase=phase, share=round(share, 3), loss=shown, rss_bytes=_status_bytes("VmRSS"), peak_bytes=peak_bytes())


def run(job: Job) -> None:
    """Do one job.

    Raises
    ------
    NotEnoughData
        Fewer rows than two windows.
    OverBudget
        The rows do not fit the budget.
    StoreError, InputError
        The store, or the file, cannot be read, or the model not written.
    """
    began = time.monotonic()
    _limit_growth(job.budget_bytes)
    try:
        _tell_progress("read", 0.0)
        survey = _survey(job)
        planned = _plan(job, survey)
        _tell(plan=asdict(planned))
        if planned.refused and planned.predicted_peak_bytes > job.budget_bytes:
            raise OverBudget(job.stream, budget_bytes=job.budget_bytes, peak_bytes=planned.predicted_peak_bytes)
        if planned.refused:
            raise NotEnoughData(job.stream, planned.refused)
        model = _fit_and_judge(job, _read(job, survey, planned.rows))
        try:
            save_model(model, Path(job.candidate))
        except OSError as error:
            raise StoreError(f"{job.candidate} cannot be written ({error.strerror}); make room on the disk") from None
    except MemoryError:
        raise OverBudget(job.stream, budget_bytes=job.budget_bytes, peak_bytes=peak_bytes()) from None
    rows = int(model.lineage["rows"])
    _tell(outcome="fitted", rows=rows, seconds=round(time.monotonic() - began, 3), peak_bytes=peak_bytes())


def _fit_and_judge(job: Job, rows: _Rows) -> Model:
    """The candidate, fitted on all rows.

    The gate judges its twin, fitted without the newest rows, on those of them that the champion does not know either.
    Learning them after all is worth the second fit: after three rounds the mean average precision was that of one fit
    on everything (0.681), and 0.676 without (docs/retraining.md).  Where nothing can be held out from both, because the
    champion knows nearly all rows (a person trains again without waiting) or because there are few (a person has
    accepted the last minutes), the candidate is judged on rows it knows.
    """
    champion = _champion(job)
    count = len(rows.values)
    settings = FitSettings(window=job.window, risk=job.risk)
    learned = count - _held_out_rows(count, _trusted(job, rows.timestamps), settings)
    if champion is not None:
        unknown = np.flatnonzero(rows.timestamps > float(champion.lineage.get("until", -math.inf)))
        first = max(learned, int(unknown[0]) if len(unknown) else count)
    if champion is None:
        model = _fit(job, rows, count, (_READ_SHARE, _FITTED_SHARE))
        report = _judge(job, rows, 0, model, None)
    elif count - first < _HELD_OUT_WINDOWS * settings.window:
        model = _fit(job, rows, count, (_READ_SHARE, _FITTED_SHARE))
        newest = max(0, min(learned, count - _HELD_OUT_WINDOWS * settings.window))
        report = replace(_judge(job, rows, newest, model, champion), held_out_rows=0)
    else:
        model = _fit(job, rows, learned, (_READ_SHARE, _HALFWAY))
        _tell_progress("gate", _HALFWAY)
        report = _judge(job, rows, first, model, champion)
        if report.passed or (job.force and report.finite):
            model = _fit(job, rows, count, (_HALFWAY, _FITTED_SHARE))
            whole = _judge(job, rows, 0, model, None)
            passed = report.passed and whole.passed
            report = replace(report, passed=passed, reasons=report.reasons + whole.reasons, finite=whole.finite)
    _tell_progress("save", _FITTED_SHARE)
    gate = report.as_json()
    _tell(gate=gate)
    return model.with_lineage(
        version=job.version,
        parent=job.parent,
        stream=job.stream,
        trained_at=job.trained_at,
        seed=job.seed,
        rows=len(rows.values),
        since=float(rows.timestamps[0]),
        until=float(rows.timestamps[-1]),
        gate={key: value for key, value in gate.items() if key != "latency_s"},  # the same job gives the same bytes
    )


def _fit(job: Job, rows: _Rows, learned: int, shares: tuple[float, float]) -> Model:
    """A model of the oldest ``learned`` rows; ``shares`` is which part of the round that is."""
    begin, end = shares
    return fit_model(
        rows.values[:learned],
        features=rows.features,
        restart=rows.restart[:learned],
        settings=FitSettings(window=job.window, risk=job.risk),
        rng=np.random.default_rng(job.seed),
        interval_s=job.interval_s,
        trusted=_trusted(job, rows.timestamps[:learned]),
        longest_run=rows.longest_run,
        progress=lambda phase, share, loss: _tell_progress(
            "fit" if phase == "done" else phase, begin + (end - begin) * share, loss
        ),
    )


def _judge(job: Job, rows: _Rows, first: int, challenger: Model, champion: Model | None) -> GateReport:
    """What the gate says of rows ``first`` and on."""
    restart = rows.restart[first:].copy()
    restart[:1] = True
    return judge(
        challenger,
        champion,
        rows.values[first:],
        restart,
        rows.features,
        risk=job.risk,
        interval_s=job.interval_s,
        seed=job.seed,
    )


def _champion(job: Job) -> Model | None:
    """The model in use; a damaged one is none to be compared with."""
    if not job.champion:
        return None
    try:
        return load_model(job.champion)
    except ModelFileError:
        return None


def _held_out_rows(rows: int, trusted: NDArray[np.bool_], settings: FitSettings) -> int:
    """How many of the newest rows the gate gets, 0 when there are too few to spare any.

    What a person has just confirmed is mostly learned, not held out.
    """
    fewest = _HELD_OUT_WINDOWS * settings.window
    if rows < fewest + _FEWEST_WINDOWS * settings.window:
        return 0
    wanted = max(int(_HELD_OUT_SHARE * rows), fewest)
    newest = int(trusted[rows - wanted :].sum())
    return max(fewest, min(wanted, int(trusted.sum()) // 2)) if newest else wanted


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
    except BrokenPipeError:  # who asked for it was killed a moment ago, and so are we
        os._exit(1)  # without the complaint that output was left
    return 0


def write_job(job: Job, path: Path) -> None:
    """Write a job file."""
    path.write_text(json.dumps(asdict(job)), encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
