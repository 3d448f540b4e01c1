"""What is wanted and what the training child is told: an `Order` becomes a `Job`, a file beside the model it replaces.

The dataclasses of one training are four: `Order` (what somebody wants), `Job` (what the child is told), `plan.Plan`
(what it takes of the rows, in which memory) and `state`'s `RetrainRecord` (what came of it).  `FitSettings` is part of
the job.  Knows no rows and no fit: the daemon loads this module, the child does the work.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from gon_edge.errors import InputError
from gon_edge.events import TRAINING_REASONS, OrderReason
from gon_edge.model.file import write_atomically
from gon_edge.state.folder import ModelFolder
from gon_edge.training.answers import Span, fault_spans, normal_spans
from gon_edge.training.budget import budget_of
from gon_edge.training.capacity import capacity
from gon_edge.training.habits import habit_spans
from gon_edge.training.settings import FitSettings
from gon_edge.training.site import Site

_LEAST_RISK, _MOST_RISK = 1e-6, 0.1
"""Of a false alert for one row, whatever ``alerts.budget`` asks for.  Below the first a threshold is a guess: a warm-up
has a few hundred rows.  Above the second, peaks over threshold has no peaks left."""

_DAY_S = 86400.0  # ``alerts.budget`` is for a day


@dataclass(frozen=True, slots=True)
class Order:
    """One round that somebody, or something, wants.

    Attributes
    ----------
    stream : str
    why : OrderReason
    budget_bytes : int or None
        In place of what `capacity` gives a training.
    since : mapping or None
        Oldest row to learn: ``{"at": Unix seconds}`` or ``{"ago_s": seconds before the newest row}``.
    include_quarantined : bool
    rows_file : str
        CSV to learn from; empty for the store.
    rows_options : mapping
        How it is read: what `gon_edge.tables.layout.TableOptions` takes, as JSON.
    until : mapping or None
        Newest row to learn, as ``since``.
    force : bool
        Promote what the gate rejects.
    """

    stream: str
    why: OrderReason
    budget_bytes: int | None = None
    since: Mapping[str, float] | None = None
    include_quarantined: bool = False
    rows_file: str = ""
    rows_options: Mapping[str, Any] = field(default_factory=dict)
    until: Mapping[str, float] | None = None
    force: bool = False

    @property
    def scheduled(self) -> bool:
        """Whether it started by itself, for a stream that has a model."""
        return self.why in TRAINING_REASONS


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
        0 where it is not known, of a file without times.
    settings : FitSettings
    budget_bytes : int
    nice : int
    deadline_s : float
        A child that takes longer is ended.
    alerts_a_day : float
        False alerts that are accepted, by which ``settings.risk`` depends on the interval.
    seed : int
    since : float or None
        Oldest row to learn, Unix seconds.
    include_quarantined : bool
        Learn also rows that were alarmed, silenced or stale.
    accepted : tuple of (float, float)
        Spans, Unix seconds, that a person confirmed as normal: their rows are not screened for odd ones.
    accepted_anew : tuple of (float, float)
        Of these, what was confirmed after the model in use was made, which therefore cannot know it.
    faults : tuple of (float, float)
        Spans that a person called a fault: their rows are never learned.
    habits : tuple of (float, float)
        Spans of what comes again at the same hour, which is normal, too.
    champion : str
        File of the model in use, which a better one replaces; empty for none.
    rows_file : str
        CSV to learn from instead of the store; empty for the store.
    rows_options : mapping
        How it is read; the span of its rows is among it.
    force : bool
        Make a candidate of what the gate rejects, too, unless it holds values that are not finite.
    raise_rows, raise_of : int
        So many of the last rows above the threshold raise an alert: the gate says which faults do.
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
    settings: FitSettings
    budget_bytes: int
    nice: int
    deadline_s: float
    alerts_a_day: float = 1.0 / 7.0
    seed: int = 0
    since: float | None = None
    include_quarantined: bool = False
    accepted: tuple[Span, ...] = ()
    accepted_anew: tuple[Span, ...] = ()
    faults: tuple[Span, ...] = ()
    habits: tuple[Span, ...] = ()
    champion: str = ""
    rows_file: str = ""
    rows_options: Mapping[str, Any] = field(default_factory=dict)
    force: bool = False
    raise_rows: int = 3
    raise_of: int = 5

    @property
    def normal(self) -> tuple[Span, ...]:
        """Spans of rows that are normal, however odd they look."""
        return self.accepted + self.habits

    def at_interval(self, interval_s: float) -> Job:
        """The job for rows of another interval, which a file has: as many false alerts a day, of more or fewer rows."""
        if interval_s == self.interval_s:
            return self
        settings = replace(self.settings, risk=risk_of(self.alerts_a_day, interval_s))
        return replace(self, interval_s=interval_s, settings=settings)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Job:
        """The job of which ``dataclasses.asdict`` gave these JSON values.

        Raises
        ------
        KeyError, TypeError
            They are not of a job.
        """
        spans = {
            name: tuple((since, until) for since, until in values[name])
            for name in ("accepted", "accepted_anew", "faults", "habits")
        }
        patterns = {name: tuple(values["settings"][name]) for name in ("counter", "gauge")}
        return cls(**{**values, **spans, "settings": FitSettings(**{**values["settings"], **patterns})})


def make_job(order: Order, site: Site) -> Job:
    """What the training child is told to carry out an order.

    Every row of its stream is on the disk then, where the child finds it.

    Raises
    ------
    InputError
        ``order.since`` is no moment.
    """
    stream, config, models = order.stream, site.config, site.models
    site.keep(stream)
    options, retrain, plain = config.stream(stream), config.retrain, FitSettings()
    model = site.model(stream)
    newest, interval_s = site.newest_row(stream)
    interval_s = interval_s or (model.interval_s if model is not None else 0.0) or (0.0 if order.rows_file else 1.0)
    file = models.file(stream)
    faults = fault_spans(site.store, stream) if newest is not None else ()
    habits, refused = habit_spans(site.store, stream, faults) if newest is not None else ((), ())
    alerts_a_day = budget_of(stream, site)
    made_at = float(model.lineage.get("trained_at", 0.0)) if model is not None else 0.0
    return Job(
        stream=stream,
        state_dir=str(config.state_dir.absolute()),
        candidate=str(file.with_name("candidate.npz")),
        version=next_version(models, stream),
        parent=model.version if model is not None else "",
        trained_at=round(site.clock.wall(), 3),
        until=_until(order, newest),
        max_rows=retrain.max_rows,
        interval_s=interval_s,
        alerts_a_day=alerts_a_day,
        settings=FitSettings(
            window=options.window or plain.window,
            risk=risk_of(alerts_a_day, interval_s),
            counter=options.counter,
            gauge=options.gauge,
        ),
        budget_bytes=order.budget_bytes or capacity(retrain).budget_bytes,
        nice=retrain.nice,
        deadline_s=retrain.deadline_s,
        since=None if order.rows_file or order.since is None or newest is None else moment(order.since, newest),
        include_quarantined=order.include_quarantined,
        accepted=normal_spans(site.store, stream) if newest is not None else (),
        accepted_anew=normal_spans(site.store, stream, made_at) if newest is not None else (),
        habits=habits,
        faults=faults + refused,
        champion=str(file) if model is not None and file.exists() else "",
        rows_file=order.rows_file,
        rows_options={**order.rows_options, "since": order.since, "until": order.until} if order.rows_file else {},
        force=order.force,
        raise_rows=options.alerts.raise_rows,
        raise_of=options.alerts.raise_of,
    )


def risk_of(alerts_a_day: float, interval_s: float) -> float:
    """Of a false alert for one row, so that a day has so many; a row a second where the interval is not known."""
    return min(_MOST_RISK, max(_LEAST_RISK, alerts_a_day * (interval_s or 1.0) / _DAY_S))


def _until(order: Order, newest: float | None) -> float:
    """The newest row of the store to learn, Unix seconds; a file has its own span."""
    if order.rows_file or newest is None:
        return float("inf")
    return newest if order.until is None else min(newest, moment(order.until, newest))


def moment(since: Mapping[str, float], newest: float) -> float:
    """Unix seconds of ``{"at": ...}``, or of ``{"ago_s": ...}`` before the stream's newest row.

    Raises
    ------
    InputError
        It is neither.

    Examples
    --------
    >>> moment({"ago_s": 60.0}, newest=1000.0), moment({"at": 30.0}, newest=1000.0)
    (940.0, 30.0)
    """
    if "at" in since:
        return since["at"]
    if "ago_s" in since:
        return newest - since["ago_s"]
    raise InputError("write since when as a duration or as a time")


def next_version(models: ModelFolder, stream: str) -> str:
    """The name of a stream's next model: numbers go up, also past versions that were rolled back."""
    numbers = [int(found.version) for found in models.versions(stream) if found.version.isdecimal()]
    return str(max(numbers, default=0) + 1)


def write_job(job: Job, path: Path) -> None:
    """Write a job file."""
    write_atomically(path, json.dumps(asdict(job)).encode())


def read_job(path: Path) -> Job:
    """The job in a file that `write_job` has written."""
    return Job.from_json(json.loads(path.read_text(encoding="utf-8")))
