"""The vocabulary: what passes between the parts of the daemon.

Slotted and never changed, no logic, no I/O.  A reading is what a message said, a row is what a stream looked like at
one tick of its grid, a verdict is what the detector thinks of a row, an alert is what a person is told.  Don't subclass
these.  A change here changes ``payload``, ``align``, ``detector``, ``alerts`` and the golden
test.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, TypeVar, dataclass_transform, get_args

import numpy as np
from numpy.typing import NDArray

AlertType = Literal["new", "update", "end"]
AlertKind = Literal["anomaly", "changed", "drift", "overdue", "missing", "offline"]
Severity = Literal["warning", "critical"]
RecurringEvery = Literal["day", "week", "any hour"]
StreamState = Literal["warming-up", "training", "scoring", "stale"]
MessageResult = Literal["accepted", "invalid", "late", "dropped", "ignored"]
UnscoredReason = Literal["warming_up", "training"]
"""Why a row has no score."""
TrainingWait = Literal["place", "heat", "load", "battery", "retry"]
"""What keeps a training: others that run, the machine, or (``retry``) another process that trains or a full disk."""
Withheld = Literal["alert", "silenced", "stale"]
"""Why a row must not be learned."""
ReconnectReason = Literal["refused", "lost", "timeout", "taken_over", "auth", "protocol"]
"""Why a connection to the broker, or an attempt, failed."""
PublishLoss = Literal["refused", "too_large", "ends_connection"]
"""Why a message of ours did not get through, though there is a broker."""
AwayReason = Literal["offline", "asleep"]
"""Why the daemon could not hear the broker: it had none, or stood still."""
TrainingOutcome = Literal["promoted", "rejected", "not_enough_data", "over_budget", "failed"]
TrainingReason = Literal["time", "drift", "new feature"]
"""Why a stream is to be trained again though nobody asked."""
OrderReason = Literal["first", "asked", "accepted", "answered"] | TrainingReason
"""Why a stream is to be trained: its first model, a person's wish, or by itself."""
AnswerWord = Literal["true", "expected", "wrong", "missed", "accepted"]
"""What a person says of an alert (the first three), of a fault that raised none, or of rows that are normal now."""

ALERT_KINDS: tuple[AlertKind, ...] = get_args(AlertKind)[:-1]
"""Of the alerts of a stream; `offline` is the daemon's own."""
STREAM_STATES: tuple[StreamState, ...] = get_args(StreamState)
MESSAGE_RESULTS: tuple[MessageResult, ...] = get_args(MessageResult)
UNSCORED_REASONS: tuple[UnscoredReason, ...] = get_args(UnscoredReason)
TRAINING_WAITS: tuple[TrainingWait, ...] = get_args(TrainingWait)
RECONNECT_REASONS: tuple[ReconnectReason, ...] = get_args(ReconnectReason)
PUBLISH_LOSSES: tuple[PublishLoss, ...] = get_args(PublishLoss)
AWAY_REASONS: tuple[AwayReason, ...] = get_args(AwayReason)
TRAINING_REASONS: tuple[TrainingReason, ...] = get_args(TrainingReason)
TRAINING_OUTCOMES: tuple[TrainingOutcome, ...] = get_args(TrainingOutcome)
ANSWERS: tuple[AnswerWord, ...] = get_args(AnswerWord)
ALERT_ANSWERS: tuple[AnswerWord, ...] = ANSWERS[:3]

REASONS = (
    "too_large",
    "bad_compression",
    "not_utf8",
    "empty",
    "bad_json",
    "bad_binary",
    "too_deep",
    "not_an_object",
    "bad_timestamp",
    "bad_number",
    "bad_line",
    "no_birth",
    "no_readings",
    "no_stream",
    "bad_stream",
    "bad_feature",
    "other_topic",
)
"""Why a message, an item of a batch or a line holds no reading."""

MASK_REASONS = (
    *("null", "nan", "infinite", "text", "ambiguous", "gone"),
    *("name", "limit", "no_birth", "repeated", "mixed", "unread"),
)
"""Why one feature of a message has no value.  Features masked for ``name``, ``limit`` and ``no_birth`` are dropped.  A
``repeated`` one has a value: the last of several that items of one list have under one name.  A ``mixed`` key tells
devices apart whose values share their features; an ``unread`` one stands where no option looks."""

LOST_REASONS = ("excluded", "crowded", "once", "behind", "ahead", "still", "no_interval", "no_time", "future")
"""Why a value that a message holds, or its timestamp (the last two), is not used; said in words by `stream.ledger`."""

IGNORED_REASONS = ("no_subscription", "retained", "seed", "no_room", "no_value", "excluded", "own", "discovery")
"""Why a message, or a reading of it, is not looked at."""


_Class = TypeVar("_Class")


@dataclass_transform(frozen_default=True, field_specifiers=(field,))
def record(cls: type[_Class]) -> type[_Class]:
    """A slotted dataclass that is frozen to whoever checks types, for what each message makes anew.

    Freezing it at run time as well sets each field by a call: a verdict took 2 us instead of 0.4.
    """
    return dataclass(slots=True)(cls)


@dataclass(frozen=True, slots=True)
class Dropped:
    """A part of a message that did not become a value.

    Attributes
    ----------
    key : str
        As the message has it, dotted where it is nested; shortened where it is too long for a name.
    reason : str
        One of `MASK_REASONS` or `LOST_REASONS`.
    example : str
        What stood there, at most 60 characters.
    """

    key: str
    reason: str
    example: str


@record
class Reading:
    """What one message, or one line of it, said about one stream.

    Attributes
    ----------
    stream : str
    timestamp : float or None
        Unix seconds from the payload; ``None`` when the payload carries none and the time of receipt counts.
    values : mapping of str to float
        Finite values only.
    masked : mapping of str to str
        Features present but unusable, with the reason (``null``, ``nan``, ``infinite``, ``text``, ``ambiguous``,
        ``gone``).
    dropped : tuple of Dropped
        Everything that did not become a value, what is masked included, for the person who looks for it.
    offset_s : float
        Where ``timestamp`` is ``None``: seconds from the receipt to the measurement, negative for earlier.
    """

    stream: str
    timestamp: float | None
    values: Mapping[str, float]
    masked: Mapping[str, str] = field(default_factory=dict)
    dropped: tuple[Dropped, ...] = ()
    offset_s: float = 0.0


@record
class Row:
    """One tick of a stream's regular grid.

    Attributes
    ----------
    stream : str
    timestamp : float
        Unix seconds of the grid point.
    features : tuple of str
        Names of the F columns.  The same object as in the previous row while the set has not changed; new features are
        appended, none is ever removed or moved.
    values : ndarray of float32, shape (F,)
        Last known value of each feature; NaN where none was seen yet.
    stale : ndarray of bool, shape (F,)
        True where the value is older than ``max_hold`` (or was never seen).
    restart : bool
        True on the first row after a gap longer than ``max_gap`` (and on the very first): windows start again here.
    received_at : float
        Monotonic seconds at which the newest reading of this row arrived; latency is measured from it.
    excused : ndarray of bool, shape (F,), or None
        True where silence or standing still is no news: the feature reports on change, nobody knows its cadence yet,
        or nobody has listened for long enough.  ``None`` where that is so of no feature.
    is_whole : bool
        Each feature has a fresh value; where nobody has looked it is False.
    """

    stream: str
    timestamp: float
    features: tuple[str, ...]
    values: NDArray[np.float32]
    stale: NDArray[np.bool_]
    restart: bool = False
    received_at: float = 0.0
    excused: NDArray[np.bool_] | None = None
    is_whole: bool = False


@dataclass(frozen=True, slots=True)
class Trend:
    """Where a reading goes that drifts.

    Attributes
    ----------
    per_day : float
        By how much its daily mean rises each day beyond what the other readings say, in engineering units; below 0
        where it falls.
    reaches : float or None
        The end of its range that it goes to: a tenth of the range above its highest value in training, or below its
        lowest where it falls.  ``None`` when unknown, and while it stands still on that side.
    in_days : float or None
        Days until what it reaches on a day is there, at this rate; 0 when it is there already.
    """

    per_day: float
    reaches: float | None = None
    in_days: float | None = None


@record
class Cause:
    """One feature's share in an alert.

    Attributes
    ----------
    feature : str
    value : float or None
        Measured, in engineering units: now, or earlier in the window where that was much further from normal; ``None``
        when the feature is missing.  Of a drift it is the mean of the newest days.
    expected : float or None
        What the model generated for it, same units; ``None`` when it cannot say.  Of a drift it is the mean that the
        other readings of these days predict.
    contribution : float
        Share of the score, 0 to 1; the shares of all features sum to 1.
    per_row : bool
        The feature is a counter: both values say by how much it rises from row to row.  Messages say it of counters
        only.
    trend : Trend or None
        Where it goes, in an alert of a drift. Messages say it there only.
    """

    feature: str
    value: float | None
    expected: float | None
    contribution: float
    per_row: bool = False
    trend: Trend | None = None


@record
class Verdict:
    """What the detector thinks of one row.

    Attributes
    ----------
    stream : str
    timestamp : float
        Unix seconds of the row.
    score : float
        High is anomalous.  Dimensionless; meaningful only against ``threshold`` of the same row.
    threshold : float
        The model's, or a provisional one while the machine is in another state than in training.
    is_anomaly : bool
        ``score > threshold``.
    causes : tuple of Cause
        Sorted, largest contribution first; empty when the row is not anomalous, and where nobody asked: finding causes
        costs several scores.
    missing : tuple of str
        Features masked from the score because they are stale or frozen, but for those that are excused (`Row`).
    model_version : str
    changed : bool
        The machine is in another state than in training, see `gon_edge.model.decision`.
    moved : tuple of Cause
        Where readings are now and where they were in training, at rows where that has just been found out.
    """

    stream: str
    timestamp: float
    score: float
    threshold: float
    is_anomaly: bool
    causes: tuple[Cause, ...]
    missing: tuple[str, ...]
    model_version: str
    changed: bool = False
    moved: tuple[Cause, ...] = ()


@dataclass(frozen=True, slots=True)
class Recurring:
    """That an alert is one of several with the same causes, at the same time of the day or week, or on most days.

    Attributes
    ----------
    count : int
        Days, or weeks, on which it was seen, this one included; 3 at least.
    since : float
        Unix seconds at which the first of them began.
    every : {"day", "week", "any hour"}
    learned : bool
        Whether its rows are taken as normal from now on.  Only an ``end`` can say so.
    """

    count: int
    since: float
    every: RecurringEvery
    learned: bool = False


@dataclass(frozen=True, slots=True)
class Together:
    """Streams that fell silent together, of which one tells.

    Attributes
    ----------
    count : int
        How many, the one that tells included.
    of : int
        How many streams with a model there are.
    streams : tuple of str
        The first ten by name.
    """

    count: int
    of: int
    streams: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Alert:
    """News for a person, in the shape that goes out by MQTT.

    Attributes
    ----------
    id : str
        The same for ``new``, every ``update`` and ``end`` of one alert; unique over restarts.
    type : {"new", "update", "end"}
    kind : {"anomaly", "changed", "drift", "overdue", "missing", "offline"}
    stream : str
        Empty for ``offline``, which is of no stream.
    since : float
        Unix seconds of the first row of the alert.
    timestamp : float
        Unix seconds of the row that made this event.
    score, threshold : float
        Of that row. NaN for ``missing``.
    severity : {"warning", "critical"}
    top_features : tuple of Cause
    model_version : str
    group : str
        ``id`` of the alert that leads its group: alerts of several streams that began together. Its own where it leads,
        or is alone.
    recurring : Recurring or None
        Set from the third time on that an ``anomaly`` comes at this hour with these causes, as long as it is neither
        stronger nor longer than those before; its severity is then ``warning``.
    together : Together or None
        Set when a ``missing`` alert stands for several streams that fell silent together.
    """

    id: str
    type: AlertType
    kind: AlertKind
    stream: str
    since: float
    timestamp: float
    score: float
    threshold: float
    severity: Severity
    top_features: tuple[Cause, ...]
    model_version: str
    group: str = ""
    recurring: Recurring | None = None
    together: Together | None = None
