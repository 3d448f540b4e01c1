"""What people have said of alerts and of rows: each answer as it was given, and which rows it makes normal or a fault.

An answer is about one alert, or about a span that a person names.  The newest answer about the same thing counts, and
the ones before it stay in the log.  Rows that were called a fault stay out of every training: a later word about a
longer span, such as an acceptance, does not reach them.  What is done with the rows is told in `operations`, how a
threshold heeds them in `evidence`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from dataclasses import asdict, dataclass

from gon_edge.events import AnswerWord
from gon_edge.state.store import Store

Span = tuple[float, float]
"""Unix seconds of the first and the last row."""

ANSWERS_KEPT = 200
"""Of each stream, the newest.  Not critical: one a day for half a year, 60 KiB of JSON."""

NOTE_LENGTH = 500  # characters of a note.  Not critical: a few sentences

_NORMAL: frozenset[AnswerWord] = frozenset(("wrong", "expected", "accepted"))


@dataclass(frozen=True, slots=True)
class Answer:
    """What one person has said once.

    Attributes
    ----------
    id : str
        Of the alert; of its own, where no alert was open on the rows.
    answer : AnswerWord
    stream : str
    since, until : float
        Unix seconds of the first and the last row it is about.
    at : float
        When it was given, Unix seconds.
    by : str
        Who gave it: a user of this machine, or the way it came.
    note : str
    version : str
        The model in use then, empty for none.
    threshold : float or None
        Its threshold.
    """

    id: str
    answer: AnswerWord
    stream: str
    since: float
    until: float
    at: float
    by: str = ""
    note: str = ""
    version: str = ""
    threshold: float | None = None

    @property
    def normal(self) -> bool:
        """Whether it says that its rows are normal; else they are a fault."""
        return self.answer in _NORMAL

    @property
    def span(self) -> Span:
        """First and last row."""
        return self.since, self.until


def answers(store: Store, stream: str) -> list[Answer]:
    """Every answer about a stream, the oldest first; one that damage made unreadable is left out."""
    kept = store.state(f"answers/{stream}")
    found = []
    for values in kept if isinstance(kept, list) else ():
        with contextlib.suppress(TypeError):
            found.append(Answer(**values))
    return found


def remember(store: Store, answer: Answer) -> None:
    """Add an answer to the log of its stream."""
    kept = [*answers(store, answer.stream), answer][-ANSWERS_KEPT:]
    store.put_state(f"answers/{answer.stream}", [asdict(one) for one in kept])


def counting(given: Iterable[Answer]) -> list[Answer]:
    """The answers that count: of those about the same thing the newest, in the order they were given."""
    newest: dict[str, Answer] = {}
    for answer in given:
        newest.pop(answer.id, None)
        newest[answer.id] = answer
    return list(newest.values())


def normal_spans(store: Store, stream: str, after: float = float("-inf")) -> tuple[Span, ...]:
    """Spans that a person has called normal, by an answer given later than ``after``, Unix seconds."""
    spans = [one.span for one in counting(answers(store, stream)) if one.normal and one.at > after]
    before = store.state(f"accepted/{stream}")  # of a gon-edge that kept no answers
    if isinstance(before, list) and after == float("-inf"):
        spans = [*((float(since), float(until)) for since, until in before), *spans]
    return tuple(dict.fromkeys(spans))


def fault_spans(store: Store, stream: str) -> tuple[Span, ...]:
    """Spans that a person has called a fault."""
    return tuple(dict.fromkeys(one.span for one in counting(answers(store, stream)) if not one.normal))


def overlap(span: Span, others: Iterable[Span]) -> list[Span]:
    """The parts of ``span`` that lie in the others.

    Examples
    --------
    >>> overlap((10.0, 20.0), [(0.0, 12.0), (15.0, 16.0), (30.0, 40.0)])
    [(10.0, 12.0), (15.0, 16.0)]
    """
    since, until = span
    parts = [(max(since, first), min(until, last)) for first, last in others]
    return [(first, last) for first, last in parts if first <= last]
