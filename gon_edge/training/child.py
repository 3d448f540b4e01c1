"""The training child: ``python -m gon_edge.training.child``, a fresh process that fits models, one after the other.

Each line of stdin names the file of a job.  For each the child plans, reads rows (`source`), fits (`fit`), has the gate
compare the result with the model in use (`gate`), writes a candidate file, and tells its parent how far it is on
stdout, a JSON object a line; ``outcome`` is in the last one of a job.  It ends with its input, or with the first job
that fails: one that has run out of memory is no place for the next.

The daemon beside it must go on scoring.  So the child has one thread and the lowest priority, is the first that the
kernel kills, and stops itself before it outgrows its budget.  It decides nothing: `trainer` acts on what the gate
found.  It writes nothing but the candidate, because a scratch file would wear out the card.
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
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gon_edge.errors import GonEdgeError, ModelFileError, NotEnoughData, OverBudget, StoreError
from gon_edge.model.file import Model, load_model, save_model
from gon_edge.process.memory import return_memory, rss_bytes
from gon_edge.state.chunk import RowChunk
from gon_edge.training import usual
from gon_edge.training.answers import Span
from gon_edge.training.carry import Carry, Part
from gon_edge.training.evidence import MOST_RAISED, highest, move_threshold, reaches
from gon_edge.training.fit import fit
from gon_edge.training.gate import GateReport, judge, scored
from gon_edge.training.job import Job, read_job
from gon_edge.training.plan import FEWEST_WINDOWS, plan
from gon_edge.training.remembered import as_long, joined, remembered, visits
from gon_edge.training.sensitivity import AlertRule
from gon_edge.training.settings import FitSettings
from gon_edge.training.source import Source, within

_HELD_OUT_SHARE = 0.125
"""Of the rows, the newest, for the gate.  A judgement: enough of them to count alarms, few enough that the judged twin
is like the model that is used."""
_HELD_OUT_WINDOWS = 3  # at least.  Not critical: with fewer, injected faults say nothing of two models
_HEEDED = 16  # spans of each kind, the newest, whose scores may move the threshold.  Not critical: a year of answers
_READ_SHARE, _HALFWAY, _FITTED_SHARE = 0.1, 0.5, 0.97
"""Of a round: after reading, after the judged fit, after the last fit.  Not critical: how far the bar is."""

_PR_SET_PDEATHSIG = 1  # linux/prctl.h


def peak_bytes() -> int:
    """Largest resident memory of this process since `_forget_peak`, bytes.

    ``VmHWM``, not ``ru_maxrss``: that one starts with what the parent held when it forked.
    """
    return _status_bytes("VmHWM")


def _forget_peak() -> None:
    """Count the largest resident memory anew: that of a job is not that of the one before it."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")  # proc(5); Linux 4.0


def _status_bytes(key: str) -> int:
    """A line of proc(5)'s ``status`` for this process; 0 where there is none."""
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
    room = max(0, budget_bytes - rss_bytes())
    mapped = _status_bytes("VmData")
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    resource.setrlimit(resource.RLIMIT_DATA, (mapped + room, hard))  # the next job may have a larger budget


def _tell(**message: object) -> None:
    sys.stdout.write(json.dumps(message) + "\n")
    sys.stdout.flush()


def _tell_progress(phase: str, share: float, loss: float | None = None) -> None:
    shown = None if loss is None else round(loss, 4)
    _tell(phase=phase, share=round(share, 3), loss=shown, rss_bytes=rss_bytes(), peak_bytes=peak_bytes())


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
        source = Source(job)
        job = job.at_interval(source.interval_s)
        planned = plan(job, source)
        _tell(plan=asdict(planned))
        if planned.over_budget:
            raise OverBudget(job.stream, budget_bytes=job.budget_bytes, peak_bytes=planned.predicted_peak_bytes)
        if planned.refused:
            raise NotEnoughData(job.stream, planned.refused)
        model = _fit_and_judge(job, source, planned.rows)
        try:
            save_model(model, Path(job.candidate))
        except OSError as error:
            raise StoreError(f"{job.candidate} cannot be written ({error.strerror}); make room on the disk") from None
    except MemoryError:
        raise OverBudget(job.stream, budget_bytes=job.budget_bytes, peak_bytes=peak_bytes()) from None
    rows = int(model.lineage["rows"])
    _tell(outcome="fitted", rows=rows, seconds=round(time.monotonic() - began, 3), peak_bytes=peak_bytes())


def _fit_and_judge(job: Job, source: Source, count: int) -> Model:
    """The candidate, fitted on ``count`` rows of the source.

    The gate judges a twin that was fitted without the newest rows, on those of them that the champion does not know
    either.  Learning them after all is worth the second fit: after three rounds the mean average precision was that of
    one fit on everything (0.681), and 0.676 without (docs/retraining.md).  Sometimes nothing can be held out from both,
    because the champion knows nearly all rows: a person trains again without waiting.  The candidate is then judged on
    rows it knows.  So it is after a person has called rows normal that the champion does not know: on what both must
    know, which is the rest.
    """
    champion, settings = _champion(job), job.settings
    material = _material(job, source, count, champion)
    timestamps = material.timestamps
    count = len(timestamps)
    carry: Carry | None = None
    unseen = _unseen(champion, float(timestamps[-1]))
    learned = count - _held_out_rows(count, within(job.normal, timestamps), settings)
    unknown = np.flatnonzero(timestamps > _known_until(champion))
    first = max(learned, int(unknown[0]) if len(unknown) else count)
    if champion is None:
        model = material.fit(count, (_READ_SHARE, _FITTED_SHARE))
        report = material.judge(material.learned, model, None)
    elif (accepted := within(job.accepted_anew, timestamps)).any():
        rest = np.flatnonzero(~within(job.accepted, timestamps))
        carry = material.carry(champion, rest, np.flatnonzero(accepted))  # what was called normal raises no alert
        model = material.fit(count, (_READ_SHARE, _FITTED_SHARE), carry)
        report = _judge_accepted(material, model, champion)
    elif count - first < _HELD_OUT_WINDOWS * settings.window:
        model = material.fit(count, (_READ_SHARE, _FITTED_SHARE))
        newest = max(0, min(learned, count - _HELD_OUT_WINDOWS * settings.window))
        report = replace(material.judge(slice(newest, count), model, champion), held_out_rows=0)
        report = _with_whole(report, material.judge(material.learned, model, None))
    else:
        held_out, is_new = slice(first, count), usual.is_new(champion, float(timestamps[-1]))
        known = slice(0, min(learned, int(unknown[0])))
        if not any(until > _known_until(champion) for _, until in job.habits):  # else it shall lie above a new habit
            # In a machine's first week nobody knows what rows need that were not learned: the most that is believed.
            before = MOST_RAISED if is_new else max((factor for _, factor in unseen), default=1.0)
            carry = material.carry(champion, known, held_out, before)
        model = material.fit(learned, (_READ_SHARE, _HALFWAY), carry)
        _tell_progress("gate", _HALFWAY)
        withheld = source.withheld(_known_until(champion)) if is_new else 0.0
        report = material.judge(held_out, model, champion, widened=is_new, withheld=withheld)
        if report.passed or (job.force and report.finite):
            model = material.fit(count, (_HALFWAY, _FITTED_SHARE), carry)
            report = _with_whole(report, material.judge(material.learned, model, None))
        unseen += [(float(timestamps[-1]), carry.unseen)] if carry is not None else []
    _tell_progress("save", _FITTED_SHARE)
    gate = report.as_json()
    why = "; ".join(filter(None, (carry.why if carry else "", model.lineage.get("answers", {}).get("why", ""))))
    was = round(champion.threshold, 6) if champion is not None else None
    _tell(gate=gate, threshold={"before": was, "after": round(model.threshold, 6), "why": why})
    detects = gate.pop("detects")  # of the model itself, and the longest part: an entry of its own in the lineage
    return model.with_lineage(
        version=job.version,
        parent=job.parent,
        stream=job.stream,
        trained_at=job.trained_at,
        seed=job.seed,
        rows=count,
        since=float(timestamps[0]),
        met=usual.met_at(champion, float(timestamps[0])),
        until=float(timestamps[-1]),
        unseen=unseen,
        **material.memory(model, champion),
        gate={key: value for key, value in gate.items() if key != "latency_s"},  # the same job gives the same bytes
        detects=detects,
    )


def _material(job: Job, source: Source, count: int, champion: Model | None) -> _Material:
    """Rows of the source, and what the champion remembers of states whose rows are gone, unless nobody wants that."""
    rows, longest_run, twice = source.read(count)
    known = champion is not None and champion.lineage.get("stream") == job.stream and not job.rows_file
    if champion is None or not known or job.since is not None or _remembers(champion) >= source.oldest:
        return _Material(job, source, rows, longest_run, twice)
    faults = [named[0] for span in job.faults[-_HEEDED:] if (named := source.named(span)) is not None]
    gone = remembered(champion, rows, faults, job.interval_s or 1.0, np.random.default_rng((job.seed, 2)))
    if gone is None:
        return _Material(job, source, rows, longest_run, twice)
    longest_run = as_long(longest_run, rows.features, champion)
    return _Material(job, source, joined(gone, rows), longest_run, twice + len(gone.timestamps), gone)


def _with_whole(report: GateReport, whole: GateReport) -> GateReport:
    """A comparison with the champion, and what the fit on all rows that is put in use is worth by itself."""
    return replace(
        report,
        passed=report.passed and whole.passed,
        reasons=report.reasons + whole.reasons,
        finite=report.finite and whole.finite,
        detects=whole.detects,
    )


def _known_until(champion: Model | None) -> float:
    """Unix seconds of the newest row that a model may know."""
    return float(champion.lineage.get("until", -math.inf)) if champion is not None else -math.inf


def _unseen(champion: Model | None, newest: float) -> list[tuple[float, float]]:
    """How much higher thresholds had to be for rows that were not learned, in the rounds of the week before a time."""
    kept = champion.lineage.get("unseen") if champion is not None else None
    try:
        return [(float(at), float(factor)) for at, factor in kept or () if at > newest - usual.WEEK_S]
    except (TypeError, ValueError):  # a lineage may say anything
        return []


def _remembers(champion: Model | None) -> float:
    """Unix seconds of the oldest row that a model was made for, be it by what an earlier one remembered."""
    known = champion.lineage.get("remembers", champion.lineage.get("since")) if champion is not None else None
    return math.inf if known is None else float(known)


def _judge_accepted(material: _Material, model: Model, champion: Model) -> GateReport:
    """What the gate says of a model after a person has called rows normal that the champion does not know.

    Both are compared on rows that nobody had to call normal.  Where there are too few, because the person wants no
    others learned, nothing can be compared, and the model is judged as a first one.
    """
    job, timestamps = material.job, material.timestamps
    rest = np.flatnonzero(~within(job.accepted, timestamps))
    wanted = max(int(_HELD_OUT_SHARE * len(timestamps)), _HELD_OUT_WINDOWS * job.settings.window)
    whole = material.judge(material.learned, model, None)
    if len(rest) < _HELD_OUT_WINDOWS * job.settings.window:
        return whole
    report = material.judge(rest[-wanted:], model, champion, widened=True)
    return _with_whole(replace(report, held_out_rows=0), whole)


class _Material:
    """What a round fits and judges models on.

    Parameters
    ----------
    job : Job
    source : Source
    rows : RowChunk
    longest_run : ndarray of int32, shape (F,)
    twice : int
        As `Source.read` gives them; the rows that are remembered count among those that come first.
    gone : RowChunk or None
        Of them, what the model in use remembers.

    Attributes
    ----------
    learned : ndarray of intp, shape (N,)
        Rows that the newest fit has learned.  A model is not asked about those it left out as odd, nor about windows
        that hold them: one odd row of a short warm-up would make half of it abnormal.
    """

    def __init__(
        self,
        job: Job,
        source: Source,
        rows: RowChunk,
        longest_run: NDArray[np.int32],
        twice: int,
        gone: RowChunk | None = None,
    ) -> None:
        self.job = job
        self.timestamps = rows.timestamps[twice:]
        self.learned = np.arange(len(self.timestamps))
        self._source, self._rows, self._longest_run, self._twice = source, rows, longest_run, twice
        self._gone = gone

    def memory(self, model: Model, champion: Model | None) -> dict[str, Any]:
        """What the lineage of a model says of its memory, for people and for the next training."""
        gone, rng = self._gone, np.random.default_rng((self.job.seed, 3))
        return {
            "remembers": float(self.timestamps[0]) if gone is None else _remembers(champion),
            "remembered_rows": 0 if gone is None else len(gone.timestamps),
            "visits": visits(model, self._rows, gone, rng),
        }

    @property
    def rule(self) -> AlertRule:
        """Which rows above the threshold raise an alert."""
        return AlertRule(self.job.raise_rows, self.job.raise_of)

    def part(self, chosen: slice | NDArray[np.intp]) -> Part:
        """Some of the rows, oldest first, without those that are learned twice."""
        rows, twice = self._rows, self._twice
        restart = rows.restart[twice:][chosen].copy()
        restart[:1] = True
        if not isinstance(chosen, slice):
            restart[1:] |= np.diff(chosen) > 1
        return Part(rows.values[twice:][chosen], restart, rows.features)

    def carry(
        self,
        champion: Model,
        known: slice | NDArray[np.intp],
        held_out: slice | NDArray[np.intp],
        before: float = 1.0,
    ) -> Carry:
        """What sees to thresholds, by rows that both models know and those that neither does."""
        risk = self.job.settings.risk
        return Carry(champion, self.part(known), self.part(held_out), self.rule, risk, before)

    def fit(self, learned: int, shares: tuple[float, float], carry: Carry | None = None) -> Model:
        """A model of the oldest ``learned`` rows; ``shares`` is which part of the round that is.

        ``carry`` sees to its threshold before answers of people do.
        """
        job, rows, used = self.job, self._rows, slice(0, self._twice + learned)
        begin, end = shares
        model, kept = fit(
            rows.values[used],
            features=rows.features,
            restart=rows.restart[used],
            settings=job.settings,
            rng=np.random.default_rng(job.seed),
            trusted=within(job.normal, rows.timestamps[used]),
            times=rows.timestamps[used],
            progress=lambda phase, share, loss: _tell_progress(
                "fit" if phase == "done" else phase, begin + (end - begin) * share, loss
            ),
        )
        self.learned = np.flatnonzero(kept[self._twice :])
        model = replace(model, interval_s=job.interval_s, longest_run=self._longest_run)
        return self._heeded(model if carry is None else carry(model))

    def judge(
        self,
        chosen: slice | NDArray[np.intp],
        challenger: Model,
        champion: Model | None,
        *,
        widened: bool = False,
        withheld: float = 0.0,
    ) -> GateReport:
        """What the gate says of some of the rows."""
        part = self.part(chosen)
        return judge(
            challenger,
            champion,
            part.values,
            part.restart,
            part.features,
            risk=self.job.settings.risk,
            seed=self.job.seed,
            rule=self.rule,
            widened=widened,
            withheld=withheld,
        )

    def _heeded(self, model: Model) -> Model:
        """The model with the threshold that answers of people make of its own."""
        job, rows = self.job, self._rows
        named = [self._scores(model, span) for span in job.faults[-_HEEDED:]]
        faults = [reaches(scores, job.raise_rows) for scores in named if scores.size]
        normal = [highest(self._scores(model, span)) for span in job.accepted[-_HEEDED:]]
        if not faults and not normal:
            return model
        calm = 0.0
        if faults:
            learned = slice(self._twice, None)
            scores, _ = scored(model, rows.values[learned], rows.restart[learned], rows.features)
            calm = highest(scores, model.threshold)
        moved = move_threshold(model.threshold, calm, normal, faults)
        return replace(model, threshold=moved.threshold).with_lineage(answers=asdict(moved))

    def _scores(self, model: Model, span: Span) -> NDArray[np.float64]:
        """Scores of the rows that a person has named."""
        named = self._source.named(span)
        if named is None:
            return np.empty(0)
        rows, first = named
        return scored(model, rows.values, rows.restart, rows.features)[0][first:]


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
    if rows < fewest + FEWEST_WINDOWS * settings.window:
        return 0
    wanted = max(int(_HELD_OUT_SHARE * rows), fewest)
    newest = int(trusted[rows - wanted :].sum())
    return max(fewest, min(wanted, int(trusted.sum()) // 2)) if newest else wanted


def main() -> int:
    """Run the jobs whose files stdin names, a JSON string a line; the exit status is that of the one that failed."""
    nice = 0
    for line in sys.stdin:
        try:
            job = read_job(Path(json.loads(line)))
        except FileNotFoundError:  # who asked for it has ended meanwhile, and its folder is gone
            return GonEdgeError.exit_code
        _be_considerate(job.nice - nice)
        nice = job.nice
        _forget_peak()
        try:
            run(job)
        except GonEdgeError as error:
            _tell(outcome="failed", error=type(error).__name__, reason=str(error), peak_bytes=peak_bytes())
            return error.exit_code
        except BrokenPipeError:  # who asked for it was killed a moment ago, and so are we
            os._exit(1)  # without the complaint that output was left
        return_memory()
    return 0


if __name__ == "__main__":
    sys.exit(main())
