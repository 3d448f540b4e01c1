"""What a person does to running streams: train, accept, silence; through the daemon where one runs, else right here.

Both ways give the same results, as plain values; ``cli`` prints them.  A running daemon is asked over its socket
(``control``) and does the work between its rows.  Without one the rounds run in this process (``rounds``), and silences
and accepted spans are written into the store, where the next daemon finds them.
"""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from types import TracebackType
from typing import IO, Any, Self

from gon_edge.commands.terminal import bar, clip, duration_text, table, wants_redraw
from gon_edge.config.file import Config
from gon_edge.errors import GonEdgeError, InputError, StoreError
from gon_edge.links.control import listens, request
from gon_edge.state.folder import ModelFolder
from gon_edge.state.store import DATABASE, Store
from gon_edge.stream.silences import Silence, Silences
from gon_edge.training import rounds
from gon_edge.training.child import Job, Plan, plan
from gon_edge.training.conditions import Conditions
from gon_edge.training.trainer import Trainer

_POLL_S = 0.05
_MIB = 1 << 20

Progress = Callable[[Mapping[str, Any]], None]


class _Here:
    """The client of rounds that run in this process."""

    gone = False

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self.result: list[dict[str, Any]] | None = None

    def tell(self, **progress: Any) -> None:
        self._progress(progress)

    def answer(self, **result: Any) -> None:
        self.result = result["rounds"]

    def refuse(self, error: GonEdgeError | str) -> None:
        raise AssertionError(error)  # nobody refuses here


def retrain(config: Config, asked: Mapping[str, Any], progress: Progress) -> list[dict[str, Any]]:
    """Train streams again; returns when every round has ended.

    Parameters
    ----------
    config : Config
        Of the daemon whose streams are meant.
    asked : mapping
        As `rounds.orders` reads it, ``wait``, and ``apart``: train below this process also where a daemon runs, from
        the rows it has written, and hand it the model.
    progress : callable
        Gets what happens on the way, as `rounds.Rounds` tells it.

    Returns
    -------
    list of dict
        `rounds.result_json` of each round.

    Raises
    ------
    InputError
        A stream is not known.
    RetrainBusy
        Another round runs, and ``wait`` is false.
    UnreachableError
        The daemon has hung up.
    """
    if listens(config.state_dir) and not asked.get("apart"):
        answer: list[dict[str, Any]] = request(config.state_dir, {"do": "retrain", **asked}, progress=progress)[
            "rounds"
        ]
        return answer
    store = _stored(config)
    try:
        wanted = rounds.orders(asked, rounds.known_streams(ModelFolder(config.state_dir), store))
        return _train_here(config, wanted, store, progress, wait=bool(asked.get("wait")))
    finally:
        if store is not None:
            store.close()


def plans(config: Config, asked: Mapping[str, Any]) -> list[tuple[str, Plan]]:
    """What training would do, a plan for each stream; nothing is started."""
    if listens(config.state_dir):
        jobs = request(config.state_dir, {"do": "retrain", **asked, "dry_run": True})["jobs"]
        found = [Job(**{**job, "accepted": tuple(tuple(span) for span in job["accepted"])}) for job in jobs]
    else:
        store = _stored(config)
        models = ModelFolder(config.state_dir)
        wanted = rounds.orders(asked, rounds.known_streams(models, store))
        found = [_job(order, config, models, store) for order in wanted]
        if store is not None:
            store.close()
    return [(job.stream, plan(job)) for job in found]


def accept(
    config: Config,
    stream: str,
    since: Mapping[str, float],
    until: Mapping[str, float] | None,
    progress: Progress,
    *,
    only: bool = False,
) -> list[dict[str, Any]]:
    """Say that a stream's rows of some time are normal, and have them learned.

    Parameters
    ----------
    config : Config
    stream : str
    since, until : mapping
        As `rounds.moment` reads them; without ``until`` up to the newest row.
    progress : callable
    only : bool
        Learn nothing that is older.

    Returns
    -------
    list of dict
        What came of the one round.

    Raises
    ------
    NotEnoughData
        Too few rows lie there to be learned.
    """
    if listens(config.state_dir):
        asked = {"do": "accept", "stream": stream, "since": since, "until": until, "only": only}
        answer: list[dict[str, Any]] = request(config.state_dir, asked, progress=progress)["rounds"]
        return answer
    models = ModelFolder(config.state_dir)
    with Store.open(config.state_dir) as store:
        known = rounds.known_streams(models, store)
        newest, _ = rounds.newest_row(store, stream)
        if newest is None:
            raise rounds.unknown_stream(stream, known)
        begin, end = rounds.moment(since, newest), rounds.moment(until or {"at": newest}, newest)
        try:
            released = rounds.accept(store, stream, begin, end, needed=rounds.rows_to_accept(config, stream))
        finally:
            if not store.flush(time.monotonic()):
                raise StoreError(f"{store.last_error}")
        progress({"released": released})
    with Store.open(config.state_dir, read_only=True) as store:
        order = rounds.Order(stream, "accepted", since={"at": begin} if only else None)
        return _train_here(config, [order], store, progress, wait=True)


def silence(config: Config, stream: str, feature: str, for_s: float, reason: str) -> dict[str, Any]:
    """Silence a stream, or one of its features, for some seconds; return the silence.

    Raises
    ------
    InputError
        No such stream, or too long a time.
    """
    if listens(config.state_dir):
        asked = {"do": "silence", "stream": stream, "feature": feature, "for_s": for_s, "reason": reason}
        answer: dict[str, Any] = request(config.state_dir, asked)["silence"]
        return answer
    now = time.time()
    added = Silence(stream, feature, now, now + for_s, reason)
    with Store.open(config.state_dir) as store:
        known = rounds.known_streams(ModelFolder(config.state_dir), store)
        if stream not in known:
            raise rounds.unknown_stream(stream, known)
        book = Silences(store.state("silences"))
        try:
            book.add(added)
        except ValueError as error:
            raise InputError(str(error)) from None
        _keep(store, book)
    return asdict(added)


def unsilence(config: Config, stream: str, feature: str | None) -> list[dict[str, Any]]:
    """Remove the silence of a feature, or without one every silence of the stream; return what was removed."""
    if listens(config.state_dir):
        asked = {"do": "unsilence", "stream": stream, "feature": feature}
        answer: list[dict[str, Any]] = request(config.state_dir, asked)["removed"]
        return answer
    with Store.open(config.state_dir) as store:
        book = Silences(store.state("silences"))
        removed = book.remove(stream, feature)
        _keep(store, book)
    return [asdict(one) for one in removed]


def silences(config: Config) -> list[dict[str, Any]]:
    """The silences that count now, the first to end first."""
    if listens(config.state_dir):
        answer: list[dict[str, Any]] = request(config.state_dir, {"do": "silences"})["silences"]
        return answer
    store = _stored(config)
    if store is None:
        return []
    with store:
        return [asdict(one) for one in Silences(store.state("silences")).active(time.time())]


def _keep(store: Store, book: Silences) -> None:
    store.put_state("silences", book.state())
    if not store.flush(time.monotonic()):
        raise StoreError(f"{store.last_error}")


def _stored(config: Config) -> Store | None:
    """The store, for reading; ``None`` where there is none yet."""
    if not (config.state_dir / DATABASE).exists():
        return None
    return Store.open(config.state_dir, read_only=True)


def _job(order: rounds.Order, config: Config, models: ModelFolder, store: Store | None) -> Job:
    newest, interval_s = rounds.newest_row(store, order.stream) if store is not None else (None, None)
    return rounds.make_job(
        order,
        config,
        models,
        model=models.load(order.stream)[0],
        interval_s=config.stream(order.stream).interval_s or interval_s,
        newest=newest,
        accepted=rounds.accepted_spans(store, order.stream) if store is not None else (),
        wall=time.time(),
    )


def _train_here(
    config: Config, wanted: list[rounds.Order], store: Store | None, progress: Progress, *, wait: bool
) -> list[dict[str, Any]]:
    try:
        config.state_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StoreError(f"{config.state_dir} cannot be made: {error.strerror}; set state_dir") from None
    models = ModelFolder(config.state_dir)
    running = rounds.Rounds(Trainer(config.state_dir, models), config.retrain, Conditions())
    client = _Here(progress)
    running.ask(wanted, client, wait=wait)
    ended: list[rounds.Ended] = []
    try:
        while client.result is None:
            step = running.step(time.monotonic(), lambda order: _job(order, config, models, store))
            if step is not None:
                ended.append(step)
                running.report(step)
            else:
                time.sleep(_POLL_S)
    finally:
        running.stop()
    _remember(config, ended)
    return client.result


def _remember(config: Config, ended: list[rounds.Ended]) -> None:
    """Write the rounds into the history; a daemon that has been started since is told of the new models instead."""
    if listens(config.state_dir):
        for one in ended:
            if one.round.model is not None:
                request(config.state_dir, {"do": "reload-model", "stream": one.order.stream})
        return
    try:
        with Store.open(config.state_dir) as store:
            for one in ended:
                store.add_retrain(rounds.record(one.round))
            store.flush(time.monotonic())
    except StoreError:
        pass  # held by a daemon that is just starting: it reads the new models anyway


# -- for people --------------------------------------------------------------------------------------------------------


class RoundProgress:
    """How far training is: a bar on a terminal; elsewhere a line for each phase, and every few seconds.

    Parameters
    ----------
    stream : text file, optional
        Default: stderr.
    clock : callable
        Monotonic seconds.
    """

    _LINE_EVERY_S = 5.0

    def __init__(self, stream: IO[str] | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self._stream = sys.stderr if stream is None else stream
        self._clock = clock
        self._redraws = wants_redraw(self._stream)
        self._due = clock() + self._LINE_EVERY_S
        self._said = ""
        self._drawn = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._drawn:
            self._stream.write("\r\x1b[K")
            self._stream.flush()

    def __call__(self, told: Mapping[str, Any]) -> None:
        """Show what `rounds.Rounds` tells."""
        if "released" in told:
            self._line(f"{told['released']} rows are accepted as normal")
            return
        if "waiting" in told:
            what = f"{told['stream']}: waiting for the training of {told['waiting'] or 'another process'} to end"
            self._show(what, what)
            return
        memory = f"{told['rss_bytes'] / _MIB:.0f} of {told['budget_bytes'] / _MIB:.0f} MiB"
        loss = "" if told["loss"] is None else f", loss {told['loss']:.4g}"
        held = f", on hold: {told['held']}" if told["held"] else ""
        rest = f"{told['phase']}{loss}, {memory}, {duration_text(told['elapsed_s'])}{held}"
        drawn = f"{told['stream']} {bar(told['share'], 24)} {100 * told['share']:3.0f} %  {rest}"
        phase = f"{told['stream']} {told['phase']} {told['held']}"
        self._show(phase, drawn if self._redraws else f"{told['stream']}: {100 * told['share']:.0f} %, {rest}")

    def _show(self, phase: str, text: str) -> None:
        if self._redraws:
            self._stream.write(f"\r{clip(text, shutil.get_terminal_size().columns - 1)}\x1b[K")
            self._stream.flush()
            self._drawn = True
        elif phase != self._said or self._clock() >= self._due:
            self._said = phase
            self._line(text)

    def _line(self, text: str) -> None:
        self._due = self._clock() + self._LINE_EVERY_S
        start = "\r\x1b[K" if self._drawn else ""
        self._stream.write(f"{start}{text}\n")
        self._stream.flush()
        self._drawn = False


def result_text(result: Mapping[str, Any]) -> str:
    """What came of a round, in words, a line or two."""
    name, gate = result["stream"], result["gate"]
    if result["outcome"] == "promoted":
        text = (
            f"{name}: model {result['version']} is in use, from {result['rows']} rows in "
            f"{duration_text(result['duration_s'])}, {result['peak_bytes'] / _MIB:.0f} of "
            f"{result['budget_bytes'] / _MIB:.0f} MiB"
        )
    else:
        said = {
            "rejected": "rejected by the gate",
            "not_enough_data": "not enough data",
            "over_budget": "over the memory budget",
            "busy": "busy",
        }.get(result["outcome"], "failed")
        text = f"{name}: {said}: {result['reason']}"
    if gate is None or not gate["held_out_rows"]:
        return text + "\n"
    return f"{text}\n  on {gate['held_out_rows']} rows it had not seen: {_gate_text(gate)}\n"


def _gate_text(gate: Mapping[str, Any]) -> str:
    def scores(side: Mapping[str, Any]) -> tuple[str, str]:
        separation = list(side["separation"].values())
        mean = f"{sum(separation) / len(separation):.3f}" if separation else "-"
        return f"{100 * side['alarm_rate']:.2f} %", mean

    rate, separation = scores(gate["challenger"])
    if gate["champion"] is None:
        return f"{rate} above the threshold, injected faults told apart with ROC-AUC {separation}"
    old_rate, old_separation = scores(gate["champion"])
    return (
        f"{rate} above the threshold (the model before it {old_rate}), injected faults told apart with ROC-AUC "
        f"{separation} ({old_separation})"
    )


def plan_text(stream: str, planned: Plan) -> str:
    """A plan in words."""
    used = f"{planned.rows} of {planned.usable_rows} rows that may be learned, {planned.features} features"
    why = "alarmed, silenced, stale, or before the clock was set"
    peak, budget = planned.predicted_peak_bytes / _MIB, planned.budget_bytes / _MIB
    lines = [
        f"{stream}: {used}, {planned.windows} windows in batches of {planned.batch}",
        f"  {planned.stored_rows} rows are stored, {planned.quarantined_rows} of them are left out: {why}",
        f"  predicted peak {peak:.0f} MiB, budget {budget:.0f} MiB",
    ]
    if planned.shrunk:
        lines.append(f"  made smaller: {planned.shrunk}")
    if planned.refused:
        lines.append(f"  refused: {planned.refused}")
    return "\n".join(lines) + "\n"


def plan_exit_code(planned: Plan) -> int:
    """0, or the exit code that training would end with: 5 over budget, 4 not enough data."""
    if not planned.refused:
        return 0
    return 5 if planned.predicted_peak_bytes > planned.budget_bytes else 4


def silences_text(found: list[dict[str, Any]]) -> str:
    """Silences as a table."""
    if not found:
        return "nothing is silenced\n"
    rows = [["STREAM", "FEATURE", "UNTIL", "REASON"]]
    for one in found:
        until = datetime.fromtimestamp(one["until"], UTC).isoformat(" ", "seconds").removesuffix("+00:00")
        rows.append([one["stream"], one["feature"] or "(all)", f"{until} UTC", one["reason"]])
    return "\n".join(table(rows)) + "\n"
