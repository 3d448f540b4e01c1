"""What happened and what is remembered of it: alerts, training rounds, and small values kept under a key.

All three wait in memory for the next flush, and are read as if they were on the disk already.  Values are JSON; this
module does not know what they mean.
"""

from __future__ import annotations

import contextlib
import json
import sqlite3
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from gon_edge.events import TrainingOutcome
from gon_edge.state.database import Database

ALERTS_KEPT = 1000  # not critical: a week of one every ten minutes
RETRAINS_KEPT = 1000  # not critical: ten streams that train once a day keep three months


@dataclass(frozen=True, slots=True)
class RetrainRecord:
    """One training round.

    Attributes
    ----------
    stream : str
    version : str
        Of the model; empty when none came of it.
    started : float
        Unix seconds.
    duration_s : float
    outcome : str
        One word, as in the series `gon_edge_retrain_rounds_total`.
    peak_bytes : int
        Largest resident memory of the child.
    rows : int
        Rows it was trained from.
    reason : str
        One line for a person; empty when it went well.
    gate : mapping or None
        What the gate measured, a `gate.GateReport`; `None` where it had nothing to judge.
    threshold : mapping or None
        Where a model was put in use: the threshold ``before`` it (`None` for a first model) and ``after``, and ``why``
        answers of people moved it, empty where none did.
    """

    stream: str
    version: str
    started: float
    duration_s: float
    outcome: TrainingOutcome
    peak_bytes: int
    rows: int
    reason: str
    gate: Mapping[str, Any] | None = None
    threshold: Mapping[str, Any] | None = None


class History:
    """Alerts, training rounds and states, in memory and on the disk.

    Attributes
    ----------
    urgent : bool
        Whether something waits that must not wait long: an alert that is new or has ended, an urgent state.
    """

    def __init__(self, database: Database) -> None:
        self.urgent = False
        self._database = database
        self._alerts: dict[str, Mapping[str, Any]] = {}
        self._states: dict[str, str] = {}
        self._states_written: dict[str, int] = {}
        self._retrains: list[RetrainRecord] = []

    @property
    def waiting(self) -> bool:
        """Whether there is something to write."""
        return bool(self._alerts or self._states or self._retrains)

    # -- taking --------------------------------------------------------------------------------------------------------

    def add_alert(self, event: Mapping[str, Any]) -> None:
        """Keep an event; the newest event of an alert replaces the one before."""
        self._alerts.pop(event["id"], None)
        self._alerts[event["id"]] = dict(event)
        if len(self._alerts) > ALERTS_KEPT:
            del self._alerts[next(iter(self._alerts))]
        self.urgent |= event["type"] != "update"

    def put_state(self, key: str, value: Any, *, urgent: bool = False) -> None:
        """Keep a JSON value under a key.  Writing what is already there costs nothing."""
        text = json.dumps(value, separators=(",", ":"))
        if self._states_written.get(key) == hash(text):
            self._states.pop(key, None)
        else:
            self._states[key] = text
            self.urgent |= urgent

    def add_retrain(self, record: RetrainRecord) -> None:
        """Keep the record of one training round."""
        self._retrains.append(record)
        del self._retrains[:-RETRAINS_KEPT]

    def forget(self, stream: str) -> None:
        """Let go of what memory knows of a stream."""
        self._states_written = {k: v for k, v in self._states_written.items() if k.partition("/")[2] != stream}

    # -- writing -------------------------------------------------------------------------------------------------------

    def walk(self, db: sqlite3.Connection) -> None:
        """Read every table from one end to the other, which finds most damage."""
        for table in ("alert", "state", "retrain"):
            for _ in db.execute(f"SELECT * FROM {table}"):  # noqa: S608  a fixed name
                pass
        self._states_written = {}

    def take_back(self, db: sqlite3.Connection) -> None:
        """Take what was written into memory again, to write it to another file; what is newer stays.

        Raises what SQLite raises.
        """
        states = {key: text for key, text in db.execute("SELECT key, value FROM state") if isinstance(text, str)}
        events = [_event(text) for (text,) in db.execute("SELECT event FROM alert ORDER BY since")]
        alerts = {event["id"]: event for event in events[-ALERTS_KEPT:] if event is not None}
        self._retrains = [*reversed(self.retrains(RETRAINS_KEPT, None))][-RETRAINS_KEPT:]
        self._states = states | self._states
        self._alerts = {name: event for name, event in alerts.items() if name not in self._alerts} | self._alerts

    def file_is_gone(self) -> None:
        """Forget what was on the disk; what is in memory stays."""
        self._states_written = {}

    def write(self, db: sqlite3.Connection) -> None:
        """Write what was taken, inside a transaction; `committed` ends it."""
        for event in self._alerts.values():
            db.execute(
                "INSERT OR REPLACE INTO alert VALUES (?, ?, ?, ?, ?)",
                (
                    event["id"],
                    event["stream"],
                    event["type"] != "end",
                    event["since"],
                    json.dumps(event, separators=(",", ":")),
                ),
            )
        if self._alerts:
            db.execute(
                "DELETE FROM alert WHERE NOT active AND id NOT IN (SELECT id FROM alert ORDER BY since DESC LIMIT ?)",
                (ALERTS_KEPT,),
            )
        db.executemany("INSERT OR REPLACE INTO state VALUES (?, ?)", self._states.items())
        for record in self._retrains:
            db.execute(  # a file that has been put in the place of another may have it already
                "INSERT INTO retrain (stream, record) SELECT ?1, ?2 "
                "WHERE NOT EXISTS (SELECT 1 FROM retrain WHERE stream = ?1 AND record = ?2)",
                (record.stream, json.dumps(asdict(record), separators=(",", ":"))),
            )
        if self._retrains:
            db.execute("DELETE FROM retrain WHERE seq <= (SELECT max(seq) FROM retrain) - ?", (RETRAINS_KEPT,))

    def committed(self) -> None:
        """Let go of what `write` has brought to the disk."""
        self.urgent = False
        self._states_written.update((key, hash(text)) for key, text in self._states.items())
        self._alerts.clear()
        self._states.clear()
        self._retrains.clear()

    # -- reading -------------------------------------------------------------------------------------------------------

    def alert(self, name: str) -> dict[str, Any] | None:
        """Return the last event of one alert, or `None`."""
        if name in self._alerts:
            return dict(self._alerts[name])
        stored = self._database.query("SELECT event FROM alert WHERE id = ?", name)
        return _event(stored[0][0]) if stored else None

    def alerts(self, limit: int, stream: str | None, active: bool | None) -> list[dict[str, Any]]:
        """Return the last event of each alert, as :meth:`Store.alerts` says."""

        def wanted(event: Mapping[str, Any]) -> bool:
            return stream in (None, event["stream"]) and active in (None, event["type"] != "end")

        found = [dict(event) for event in self._alerts.values() if wanted(event)]
        stored = self._database.query(
            "SELECT event FROM alert WHERE (?1 IS NULL OR stream = ?1) AND (?2 IS NULL OR active = ?2) "
            "ORDER BY since DESC LIMIT ?3",
            stream,
            active,
            limit + len(self._alerts),
        )
        events = (_event(text) for (text,) in stored)
        found += [event for event in events if event is not None and event["id"] not in self._alerts]
        return sorted(found, key=lambda event: event["since"], reverse=True)[:limit]

    def state(self, key: str) -> Any:
        """Return the JSON value kept under a key, or `None`."""
        if key in self._states:
            return json.loads(self._states[key])
        found = self._database.query("SELECT value FROM state WHERE key = ?", key)
        return _json(found[0][0]) if found else None

    def retrains(self, limit: int, stream: str | None) -> list[RetrainRecord]:
        """Return training rounds, the newest first."""
        stored = self._database.query(
            "SELECT record FROM retrain WHERE ?1 IS NULL OR stream = ?1 ORDER BY seq DESC LIMIT ?2", stream, limit
        )
        records = [record for record in reversed(self._retrains) if stream in (None, record.stream)]
        for (text,) in stored:
            with contextlib.suppress(TypeError):  # damaged
                records.append(RetrainRecord(**_json(text)))
        return records[:limit]


def _json(text: object) -> Any:
    """Decoded JSON, or `None` where damage made it something else."""
    try:
        return json.loads(text) if isinstance(text, str) else None
    except (ValueError, RecursionError):
        return None


def _event(text: object) -> dict[str, Any] | None:
    """An alert event as it was taken, or `None` where damage made it something else."""
    event = _json(text)
    if not isinstance(event, dict) or not {"id", "type", "stream", "since"} <= event.keys():
        return None
    return event if isinstance(event["since"], (int, float)) and isinstance(event["id"], str) else None
