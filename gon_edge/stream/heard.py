"""What became of one message, and of each stream that it, or time alone, has moved on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from gon_edge.errors import PayloadError
from gon_edge.events import LOST_REASONS, Alert, Dropped, Reading, Row, record
from gon_edge.model.file import Model
from gon_edge.stream.outcome import Outcome
from gon_edge.stream.stream import Stream


@record
class Step:
    """What one reading, or the pass of time, did to one stream.

    Attributes
    ----------
    stream : Stream
    outcomes : list of Outcome
        One for each row that came out, oldest first.
    silent : tuple of Alert
        News of the stream itself, after those of its rows: it has stopped.
    accepted, late : int
        Readings that became part of a row since the last step, and that came too late for theirs.
    clock_steps : int
        Times the device's clock was set since the last step.
    starter : Model or None
        The shipped model that scores the stream from this step on.
    stopped : bool
        The stream has just been found silent for too long.
    unwanted : int
        Readings since the last step of which ``include`` and ``exclude`` left nothing.
    lost : mapping of str to int
        Values since the last step that a message held and no row shows, by reason of `LOST_REASONS`.
    fresh : tuple of Dropped
        Keys that became no value, named for the first time.
    subscription : str
        Topic of the subscription that the reading came by; empty where time alone moved the stream on.
    """

    stream: Stream
    outcomes: list[Outcome]
    silent: tuple[Alert, ...] = ()
    accepted: int = 0
    late: int = 0
    clock_steps: int = 0
    starter: Model | None = None
    stopped: bool = False
    unwanted: int = 0
    lost: Mapping[str, int] = field(default_factory=dict)
    fresh: tuple[Dropped, ...] = ()
    subscription: str = ""

    @property
    def alerts(self) -> Iterator[Alert]:
        """Every event, in the order in which they are told."""
        for outcome in self.outcomes:
            yield from outcome.alerts
        yield from self.silent


class Moved(NamedTuple):
    """A stream that a reading, or time, has moved on, before its rows are judged; the rest is as in `Step`."""

    stream: Stream
    rows: list[Row]
    subscription: str
    accepted: int
    late: int
    clock_steps: int
    unwanted: int
    lost: Mapping[str, int]
    fresh: tuple[Dropped, ...]


@dataclass(slots=True)
class Heard:
    """What became of one message.

    Attributes
    ----------
    subscription : str
        Topic of the subscription that has read it, or has refused it; empty where none matches.
    ignored : dict of str to int
        The message, or readings of it, that count for nothing, by reason of `IGNORED_REASONS`.
    refused : PayloadError or None
        The message holds no reading; where several subscriptions match, the first one's reason.
    rejected, masked : mapping of str to int
        Parts of it without a reading, and features without a value, by reason, as `Decoded` has them.
    opened, forgotten : list of Stream
        Streams that begin with it, and those that had to go for them.
    crowded_out : list of str
        Streams for which there is no room.
    dropped : list of Dropped
        What became no value in readings that no stream got.
    readings : list of Reading
        What its streams got: those that are not ignored.
    steps : list of Step
        One for each reading that moved a stream on, once `Pipeline.judge` has seen its rows.
    moved : list of Moved
        What is still to be judged.
    """

    subscription: str = ""
    ignored: dict[str, int] = field(default_factory=dict)
    refused: PayloadError | None = None
    rejected: Mapping[str, int] = field(default_factory=dict)
    masked: Mapping[str, int] = field(default_factory=dict)
    opened: list[Stream] = field(default_factory=list)
    forgotten: list[Stream] = field(default_factory=list)
    crowded_out: list[str] = field(default_factory=list)
    dropped: list[Dropped] = field(default_factory=list)
    readings: list[Reading] = field(default_factory=list)
    steps: list[Step] = field(default_factory=list)
    moved: list[Moved] = field(default_factory=list)

    def ignore(self, reason: str, count: int = 1) -> None:
        """Count readings that nobody looks at."""
        self.ignored[reason] = self.ignored.get(reason, 0) + count


def moved(stream: Stream, rows: list[Row], subscription: str = "") -> Moved:
    """What a stream has to tell once a reading of a subscription, or time, has made rows of it."""
    counts, fresh = stream.ledger.news()
    lost = {reason: counts[reason] for reason in LOST_REASONS if reason in counts} if counts else counts
    return Moved(stream, rows, subscription, *stream.news(), lost, fresh)


def step_of(moved_on: Moved, outcomes: list[Outcome], silent: tuple[Alert, ...] | None = None) -> Step:
    """What became of a stream; ``silent`` is the news of its having stopped, where it has."""
    stream, _, subscription, accepted, late, clock_steps, unwanted, lost, fresh = moved_on
    return Step(
        stream,
        outcomes,
        silent or (),
        accepted,
        late,
        clock_steps,
        stream.news_of_starter(),
        silent is not None,
        unwanted,
        lost,
        fresh,
        subscription,
    )
