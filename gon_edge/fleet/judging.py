"""The messages of one partition judged, and the time that passes between them.

It is a daemon without the world around it (`daemon.scoring`), whose clock is that of the NATS server: a message was
received when the server had stored it, whoever reads it and whenever.  So another worker that reads the same messages
judges the same rows at the same times, and gives events the same names.  Time passes in whole ticks, for the same
reason.  Nothing here waits, and nothing is sent.
"""

from __future__ import annotations

import contextlib
import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from gon_edge.daemon.scoring import Scoring
from gon_edge.fleet.jetstream import Delivered
from gon_edge.fleet.names import WAKE, topic_of
from gon_edge.fleet.saved import Known
from gon_edge.fleet.series import Series
from gon_edge.stream.heard import Heard

log = logging.getLogger(__name__)

TICK_S = 0.25
"""Time passes in such steps: rows that only time completes are late by this at most.  Not critical, as in
`stream.pipeline`; a quarter of a second there is an eighth of the work."""

_GAP_S = 10.0
"""Without a message of the whole partition for so long, it was the way that failed and not the devices, where nobody
has watched: at a takeover, and after NATS was away.  A judgement: shorter than any silence that is news."""


class Judging:
    """The streams of a partition, moved on by its messages.

    Parameters
    ----------
    scoring : Scoring
    series : Series
    number : int
        The partition.

    Attributes
    ----------
    sequence : int
        Of the newest message that was judged.
    tick : float
        Up to when time has passed, Unix seconds of the server.
    rows : int
        Judged so far.
    dirty : dict of str to tuple
        Streams with news that are not saved: since which message, and which tick.
    forgotten : list of str
        Streams that are no more, until somebody takes them out.
    known : Known
        Streams that have the newest message already.
    deaf : bool
        Nobody has watched since some time: a silence may be no device's.
    """

    def __init__(self, scoring: Scoring, series: Series, number: int) -> None:
        self.sequence = self.rows = 0
        self.tick = self._watched_until = -math.inf
        self.dirty: dict[str, tuple[int, float]] = {}
        self.forgotten: list[str] = []
        self.deaf = True
        self.known = Known({})
        self._scoring, self._pipeline = scoring, scoring.pipeline
        self._failed, self._partition = series.failed.labels(number), number

    def resume(self, owner: Mapping[str, Any], known: dict[str, int]) -> None:
        """Go on from what the owner before has left, `names`; streams know their messages up to a sequence."""
        self.sequence, self.known.until = int(owner["sequence"]), known
        self.tick = -math.inf if owner["at"] is None else float(owner["at"])
        self._watched_until = -math.inf if owner["alive"] is None else float(owner["alive"])

    def go_deaf(self) -> None:
        """Say that nobody has watched since the newest tick."""
        self.deaf, self._watched_until = True, self.tick

    def news(self, stream: str, sequence: int, rows: int) -> None:
        """Say that rows were judged which a message has brought, or which waited before it."""
        self.dirty.setdefault(stream, (sequence, self.tick))
        self.rows += rows

    def forget(self, stream: str) -> None:
        """Say that a stream is no more."""
        self.dirty.pop(stream, None)
        self.forgotten.append(stream)

    def reach(self, message: Delivered) -> None:
        """Let time pass to a message, which is the newest one now."""
        self.let_pass(message.at)
        self.sequence = self.known.sequence = message.sequence

    def take(self, messages: Sequence[Delivered]) -> None:
        """Judge messages, and let time pass up to the newest.

        Those between two ticks are heard together and then judged together, as `Scoring.take_many` does.
        """
        heard: list[tuple[Delivered, Heard]] = []
        for message in messages:
            if self.deaf or message.at >= self.tick + TICK_S:
                self._judge(heard)
                self.let_pass(message.at)
            self.sequence = self.known.sequence = message.sequence
            levels = message.subject.split(".", 2)[2]
            if levels != WAKE:
                with self._or_left_out(message):
                    known = self.known
                    heard.append(
                        (message, self._pipeline.hear(topic_of(levels), message.data, message.at, known=known))
                    )
        self._judge(heard)

    def _judge(self, heard: list[tuple[Delivered, Heard]]) -> None:
        """Judge and tell what was heard, and empty the list."""
        for message, each in heard:
            with self._or_left_out(message):
                self._pipeline.judge(each)
        for message, each in heard:
            with self._or_left_out(message):
                self._scoring.tell(each)
            for stream in each.forgotten:
                self.forget(stream.name)
            for step in each.steps:
                self.news(step.stream.name, message.sequence, len(step.outcomes))
        heard.clear()

    @contextlib.contextmanager
    def _or_left_out(self, message: Delivered) -> Iterator[None]:
        """Leave a message out whose judging fails: else every worker in turn would end by it."""
        try:
            yield
        except Exception:
            self._failed.inc()
            log.exception(
                "partition %d: message %d, %r, is left out", self._partition, message.sequence, message.subject
            )

    def let_pass(self, at: float) -> None:
        """Let time pass to a moment, Unix seconds; what passed while nobody watched is no silence."""
        if self.deaf and at > self._watched_until:
            self._until(self._watched_until)
            if at - self.tick > _GAP_S:
                self._away(at)
            self.deaf = False
        self._until(at)

    def _until(self, at: float) -> None:
        """Let time pass to the newest tick at or before a moment."""
        last = math.floor(at / TICK_S) * TICK_S if math.isfinite(at) else at
        if math.isinf(self.tick):
            self.tick = last
        while self.tick < last:
            due = self._pipeline.due_at()
            self.tick = max(self.tick + TICK_S, last if math.isinf(due) else (math.floor(due / TICK_S) + 1) * TICK_S)
            if self.tick > last:
                self.tick = last
                return
            for step in self._scoring.pass_time(self.tick):
                if step.outcomes or step.stopped:
                    self.dirty.setdefault(step.stream.name, (self.sequence + 1, self.tick - TICK_S))
                    self.rows += len(step.outcomes)

    def _away(self, at: float) -> None:
        """Nobody could be heard up to a moment: no silence of this time counts."""
        pipeline, seconds = self._pipeline, at - self.tick
        if math.isfinite(seconds):
            pipeline.heard_until = at
            pipeline.away(seconds)
            self._scoring.reporter.was_away("offline", seconds, at)
        pipeline.heard_until = math.inf
        self.tick = math.floor(at / TICK_S) * TICK_S
