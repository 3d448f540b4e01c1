"""What a person does to running streams: train, accept, silence; through the daemon where one runs, else right here.

Both ways give the same results, as plain values; ``cli`` prints them.  A running daemon is asked over its socket
(``control``) and does the work between its rows.  Without one the rounds run in this process (``rounds``), and silences
and accepted spans are written into the store, where the next daemon finds them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

from gon_edge.config.schema import Config
from gon_edge.errors import GonEdgeError, InputError, StoreError
from gon_edge.links.control import listens, request
from gon_edge.state.database import DATABASE
from gon_edge.state.folder import ModelFolder
from gon_edge.state.store import Store
from gon_edge.stream.silences import Silence, Silences
from gon_edge.training import rounds
from gon_edge.training.conditions import Conditions
from gon_edge.training.job import Job
from gon_edge.training.plan import Plan, plan
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
        found = [Job.from_json(job) for job in jobs]
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
