"""The daemon at one moment, for whoever shows it.

Frozen data: the daemon fills it (``daemon/snapshot``), other threads read it while the daemon goes on, and the HTTP
port shows it (``web``).  A new field shows up in the API by itself.  The status page shows it only when it is written
there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gon_edge.events import Cause
from gon_edge.stream.columns import Held
from gon_edge.stream.ledger import Entry


@dataclass(frozen=True, slots=True)
class StreamSnapshot:
    """What there is to say about one stream.

    Attributes
    ----------
    name : str
    state : str
        ``warming-up``, ``training``, ``scoring`` or ``stale``.
    rows, rows_needed : int
        Rows collected, and needed for the first model; without a model, those that can be learned.
    unusable : mapping of str to int
        Rows of the warm-up that cannot be learned, by the reason: ``silenced`` or ``stale``.
    waits : str
        Why there is no model yet although the warm-up is over, and when another training begins; or what a training
        waits for.  Empty where none is due.
    eta_s : float or None
        Seconds until the warm-up is over; ``None`` when nobody can say.
    interval_s : float or None
        Of the grid; ``None`` until it is learned.
    score, threshold : float or None
        Of the newest row; the threshold is the model's, or that of the state the machine is in.
    scores : tuple of float
        Recent scores, oldest first, for the sparkline; about 120.
    model_version : str or None
        Of its own model.
    starter : str or None
        The shipped model that scores it while it has none of its own, as ``shipped:host``.
    model_trained_at, last_timestamp : float or None
        Unix seconds.
    features : mapping of str to Held
        What each has said last, and how it reports.
    counters : frozenset of str
        Those that are judged by how much they rise.
    dropped : tuple of Entry
        Keys of its messages that became no value, the one heard last first.
    missing : tuple of str
        Features that are silent for longer than is usual for them, or frozen: masked from the score.
    causes : tuple of Cause
        Of the newest verdict, largest contribution first.
    training : str
        How far a training is; empty when none runs for this stream.
    """

    name: str
    state: str
    rows: int
    rows_needed: int
    eta_s: float | None = None
    interval_s: float | None = None
    score: float | None = None
    threshold: float | None = None
    scores: tuple[float, ...] = ()
    model_version: str | None = None
    starter: str | None = None
    model_trained_at: float | None = None
    last_timestamp: float | None = None
    features: Mapping[str, Held] = field(default_factory=dict)
    counters: frozenset[str] = frozenset()
    dropped: tuple[Entry, ...] = ()
    missing: tuple[str, ...] = ()
    causes: tuple[Cause, ...] = ()
    training: str = ""
    unusable: Mapping[str, int] = field(default_factory=dict)
    waits: str = ""


@dataclass(frozen=True, slots=True)
class HistorySnapshot:
    """Scores of one stream over the last hour, thinned.

    Attributes
    ----------
    stream : str
    end : float
        Of the newest bucket, Unix seconds by the stream's own clock.
    scores, thresholds : sequence of float
        Highest score and last threshold of each bucket, oldest first; NaN where no row was scored.
    """

    stream: str
    end: float
    scores: Sequence[float]
    thresholds: Sequence[float]


@dataclass(frozen=True, slots=True)
class ReadingsSnapshot:
    """Readings of one stream over the last hour, thinned.

    Attributes
    ----------
    stream : str
    features : tuple of str
    values : ndarray of float32, shape (F,)
        The newest, NaN for none.
    end : float
        Of the newest bucket, Unix seconds by the stream's own clock.
    buckets : tuple of bytes
        For `stream.history.unpacked`, oldest first: packed, since the snapshot before shares them.
    learned : tuple of str
        Features of which the model in use knows the readings; of a counter it knows the rate.
    usual : ndarray, shape (2, F)
        Of each of these lowest and highest, of what it mostly was in training.
    """

    stream: str
    features: tuple[str, ...]
    values: NDArray[np.float32]
    end: float
    buckets: tuple[bytes, ...]
    learned: tuple[str, ...]
    usual: NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The daemon at one moment.

    Attributes
    ----------
    node, version : str
    started_at, now : float
        Unix seconds by the daemon's clock.
    mqtt_connected : bool
    mqtt_url : str
        Without user name and password.
    mqtt_error : str
        Why there is no connection; empty when there is one.
    mqtt_troubles : tuple of str
        What people should know of the broker beside that, a line each.
    troubles : tuple of str
        What people should know of the state directory and of streams that are not scored, a line each.
    away : mapping or None
        The newest time in which the broker could not be heard, as `Reporter.away`.
    queue_length : int
        Messages received and not yet scored.
    rss_bytes : int
    heartbeat_at : float
        Seconds of ``time.monotonic()`` when the scoring loop last came round.  A time and not an age: an old snapshot
        must look old.
    ready : bool
        Configuration and models are loaded; the broker does not matter.
    streams : tuple of StreamSnapshot
    alerts : tuple of mapping
        The newest event of each alert as it goes out by MQTT, active ones (``type`` is not ``end``) and recent ones,
        newest first.
    silences : tuple of mapping
        Those that count now, the first to end first.
    bucket_s : float
        Length of a bucket of `history`.
    history : tuple of HistorySnapshot
        Of the streams that have scores.
    reading_bucket_s : float
        Length of a bucket of `readings`.
    readings : mapping of str to ReadingsSnapshot
        By stream, of those that have rows.
    trainings : tuple of mapping
        The newest training rounds, newest first: stream, version, outcome, what the gate found and what it took.
    models : mapping of str to mapping
        By stream the lineage of its own model in use.
    latency_s : sequence of float
        From receipt to score, of the last rows.
    """

    node: str
    version: str
    started_at: float
    now: float
    mqtt_connected: bool
    mqtt_url: str
    mqtt_error: str
    queue_length: int
    rss_bytes: int
    heartbeat_at: float
    ready: bool
    mqtt_troubles: tuple[str, ...] = ()
    troubles: tuple[str, ...] = ()
    away: Mapping[str, Any] | None = None
    streams: tuple[StreamSnapshot, ...] = ()
    alerts: tuple[Mapping[str, Any], ...] = ()
    silences: tuple[Mapping[str, Any], ...] = ()
    bucket_s: float = 15.0
    history: tuple[HistorySnapshot, ...] = ()
    reading_bucket_s: float = 30.0
    readings: Mapping[str, ReadingsSnapshot] = field(default_factory=dict)
    trainings: tuple[Mapping[str, Any], ...] = ()
    models: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    latency_s: Sequence[float] = ()
