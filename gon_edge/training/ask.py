"""The way a command has an operation carried out: by the daemon where one runs, else right here.

A running daemon is asked over its socket (`links.control`) and does the work between its rows.  Without one this
process is the `site.Site`: rounds run here to their end, and silences and answers are written into the store,
where the next daemon finds them.  Both ways give the same answer.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any, Self

from gon_edge.config.schema import Config
from gon_edge.errors import GonEdgeError, StoreError, UnreachableError
from gon_edge.links.control import is_of_fleet, listens, request
from gon_edge.model.file import Model
from gon_edge.process.clock import Clock
from gon_edge.process.files import make_folder
from gon_edge.state.database import DATABASE
from gon_edge.state.folder import ModelFolder
from gon_edge.state.history import RetrainRecord
from gon_edge.state.store import Store
from gon_edge.stream.silences import Silences
from gon_edge.training.answers import Answer
from gon_edge.training.conditions import Conditions
from gon_edge.training.job import Order
from gon_edge.training.operations import carry_out
from gon_edge.training.rounds import Rounds
from gon_edge.training.site import newest_row
from gon_edge.training.trainer import Trainer

_POLL_S = 0.05  # as often as `rounds` looks at its child

_WRITING = ("accept", "feedback", "missed", "silence", "unsilence", "remove", "rename")
"""Operations that change the store.  The others open it for reading, so that they never meet a daemon's lock."""

Progress = Callable[[Mapping[str, Any]], None]


def ask(config: Config, asked: Mapping[str, Any], progress: Progress = lambda told: None) -> dict[str, Any]:
    """Have an operation carried out, and return its answer; returns when every round it asks for has ended.

    Parameters
    ----------
    config : Config
        Of the daemon whose streams are meant.
    asked : mapping
        ``{"do": ...}`` and what that operation takes (`operations`).  With ``apart`` a training runs below this process
        also where a daemon runs, from the rows it has written, and the daemon is handed the model.
    progress : callable
        Gets what happens on the way, as `rounds.Rounds` tells it.

    Raises
    ------
    GonEdgeError
        It is refused, with the exit code for it; the same error with a daemon and without.
    UnreachableError
        The daemon has hung up.
    """
    if listens(config.state_dir) and not asked.get("apart"):
        return request(config.state_dir, asked, progress=progress)
    if is_of_fleet(config.state_dir):
        raise UnreachableError(f"{config.state_dir} is of workers of a fleet, and none runs here: ask where one does")
    client = _Caller(progress)
    with _Here(config, writes=asked["do"] in _WRITING and not asked.get("dry_run")) as here:
        carry_out(here, asked, client)
        if client.result is None:
            here.run(client)
    return client.result or {}


class _Caller:
    """The client of operations that this process carries out for itself."""

    gone = False

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self.result: dict[str, Any] | None = None

    def tell(self, **progress: Any) -> None:
        self._progress(progress)

    def answer(self, **result: Any) -> None:
        self.result = result

    def refuse(self, error: GonEdgeError | str) -> None:
        raise error if isinstance(error, GonEdgeError) else GonEdgeError(error)


class _Here:
    """A command as a `site.Site`: no stream is scored, so there is nobody to tell of a new model."""

    live = False
    clock = Clock()

    def __init__(self, config: Config, *, writes: bool) -> None:
        self.config = config
        self.models = ModelFolder(config.state_dir)
        self.rounds = Rounds(Trainer(config.state_dir, self.models), config.retrain, Conditions())
        self._writes = writes
        self._store: Store | None = None
        self._silences: Silences | None = None
        self._ended: list[tuple[RetrainRecord, Model | None]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._close()

    @property
    def store(self) -> Store:
        """The store, opened when it is first asked for."""
        if self._store is None:
            self._store = Store.open(self.config.state_dir, read_only=not self._writes)
        return self._store

    @property
    def silences(self) -> Silences:
        if self._silences is None:
            self._silences = Silences(self.store.state("silences") if self._has_store else None)
        return self._silences

    @property
    def _has_store(self) -> bool:
        """Whether there are, or will be, rows and silences to be found."""
        return self._writes or (self.config.state_dir / DATABASE).exists()

    def streams(self) -> set[str]:
        return {*self.models.streams(), *(self.store.streams() if self._has_store else ())}

    def knows(self, stream: str) -> bool:
        return stream in self.models.streams() or stream in self.streams()  # a rollback needs no database

    def model(self, stream: str) -> Model | None:
        return self.models.load(stream)[0]

    def newest_row(self, stream: str) -> tuple[float | None, float | None]:
        if not self._has_store:
            return None, None
        newest, interval_s = newest_row(self.store, stream)
        return newest, self.config.stream(stream).interval_s or interval_s

    def keep(self, stream: str | None = None) -> None:
        if self._writes and not self.store.flush(time.monotonic(), stream):
            raise StoreError(f"{self.store.last_error}")

    def use(self, stream: str, model: Model) -> None:
        """Nothing: the next daemon finds it in the folder."""

    def close(self, stream: str, *, ends: bool) -> None:
        """Nothing: no stream is scored here."""

    def reopen(self, stream: str) -> None:
        """Nothing: the next daemon opens it."""

    def silences_changed(self) -> None:
        """Nothing: the next daemon finds them in the store."""

    def answered(self, answer: Answer) -> None:
        """Nothing: the next daemon finds it in the store."""

    def began(self, order: Order) -> None:
        """Nothing: the client is told."""

    def ended(self, order: Order, record: RetrainRecord, model: Model | None) -> None:
        self._ended.append((record, model))

    def run(self, client: _Caller) -> None:
        """Run the rounds that were asked for to their end, and remember them.

        The store is open for reading only meanwhile: a daemon may be started, and takes over.
        """
        self._close()
        self._writes = False
        try:
            make_folder(self.config.state_dir)
        except OSError as error:
            raise StoreError(f"{self.config.state_dir} cannot be made: {error.strerror}; set state_dir") from None
        try:
            while client.result is None:
                self.rounds.step(time.monotonic(), self)
                time.sleep(_POLL_S)
        finally:
            self.rounds.stop()
        self._remember()

    def _remember(self) -> None:
        """Write the rounds into the history; a daemon that has been started since is told of the new models instead."""
        if listens(self.config.state_dir):
            for record, model in self._ended:
                if model is not None:
                    request(self.config.state_dir, {"do": "reload-model", "stream": record.stream})
            return
        try:
            with Store.open(self.config.state_dir) as store:
                for record, _ in self._ended:
                    store.add_retrain(record)
                store.flush(time.monotonic())
        except StoreError:
            pass  # held by a daemon that is just starting: it reads the new models anyway

    def _close(self) -> None:
        store, self._store = self._store, None
        if store is not None:
            store.close()
