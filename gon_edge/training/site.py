"""Where a training, an acceptance, a silence or a rollback is carried out: what an operation needs from there.

Two sites exist: the daemon with its live streams (`daemon.orders`), and a command while no daemon runs (`ask`).
`operations`, `rounds` and `job` know only this page of them.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, Any, Protocol

from gon_edge.config.schema import Config
from gon_edge.errors import GonEdgeError
from gon_edge.model.file import Model
from gon_edge.process.clock import Clock
from gon_edge.state.folder import ModelFolder
from gon_edge.state.history import RetrainRecord
from gon_edge.state.store import Store
from gon_edge.stream.silences import Silences

if TYPE_CHECKING:
    from gon_edge.training.answers import Answer
    from gon_edge.training.job import Order
    from gon_edge.training.rounds import Rounds

_NEWEST_ROWS = 100  # whose median step is the interval.  Not critical: a few lost rows do not move it


class Client(Protocol):
    """Who asks for an operation: a `control.Request`, or a command that carries it out itself."""

    @property
    def gone(self) -> bool:
        """Whether nobody waits any more."""

    def tell(self, **progress: Any) -> None:
        """Take what happens on the way."""

    def answer(self, **result: Any) -> None:
        """Take the result."""

    def refuse(self, error: GonEdgeError | str) -> None:
        """Take an error."""


class Site(Protocol):
    """Where operations are carried out."""

    @property
    def live(self) -> bool:
        """Whether streams are scored here, so that a change counts from the next row on."""

    @property
    def config(self) -> Config:
        """What the daemon of these streams is told."""

    @property
    def clock(self) -> Clock:
        """What time it is here."""

    @property
    def store(self) -> Store:
        """What survives a restart of it."""

    @property
    def models(self) -> ModelFolder:
        """Its models, and the versions before them."""

    @property
    def silences(self) -> Silences:
        """What nobody wants to hear of."""

    @property
    def rounds(self) -> Rounds:
        """The trainings that run or wait here."""

    def streams(self) -> Collection[str]:
        """The streams there are."""

    def knows(self, stream: str) -> bool:
        """Whether there is such a stream; a live one is opened where only its model was there."""

    def model(self, stream: str) -> Model | None:
        """The model that scores a stream."""

    def newest_row(self, stream: str) -> tuple[float | None, float | None]:
        """Unix seconds of a stream's newest row, and seconds between rows; ``None`` where unknown."""

    def keep(self, stream: str | None = None) -> None:
        """Write to the disk what has been told to the store; with a stream, of all rows only its own.

        Raises
        ------
        StoreError
            It cannot be written, and nobody tries again later.
        """

    def use(self, stream: str, model: Model) -> None:
        """Score a stream by another model, which is in its folder already, from the next row on."""

    def close(self, stream: str, *, ends: bool) -> None:
        """Score a stream no more, and take away what is shown of it; ``ends`` its open alerts as well."""

    def reopen(self, stream: str) -> None:
        """Score a stream by what is on the disk, as after a restart."""

    def silences_changed(self) -> None:
        """Hear what is silenced now."""

    def answered(self, answer: Answer) -> None:
        """Hear of an answer that is in the store already."""

    def began(self, order: Order) -> None:
        """Hear that a round has been started."""

    def ended(self, order: Order, record: RetrainRecord, model: Model | None) -> None:
        """Hear what came of a round; ``model`` is in its folder already."""


def newest_row(store: Store, stream: str) -> tuple[float | None, float | None]:
    """Unix seconds of a stream's newest stored row, and the interval of the newest ones; ``None`` where unknown."""
    timestamps, _, _, _ = store.rows(stream, limit=_NEWEST_ROWS, include_quarantined=True)
    if not len(timestamps):
        return None, None
    steps = sorted(float(step) for step in timestamps[1:] - timestamps[:-1] if step > 0.0)
    return float(timestamps[-1]), steps[len(steps) // 2] if steps else None
