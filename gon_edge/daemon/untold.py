"""Alerts of which no broker has the newest event: what must be said again, and what a state says of them.

A subscriber believes what it has heard last.  What the broker refuses, or is on its way when the process is killed,
must be told once it can be, or an alert stays open for ever somewhere.  The state of the stream names these alerts; the
broker keeps it, and the next run reads it there (`Scoring.recall`), without a write to the disk.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_KEPT = 1000  # not critical: as many as the store keeps alerts
_FOR_GOOD = "ends_connection"  # of why an event was lost: said again, it would end the next connection, too
_UNTIL_ANOTHER = "too_large"  # what this connection takes is known


class Untold:
    """Ids of alerts, each with its stream.

    Attributes
    ----------
    lost : dict of str to (str, str)
        Alerts whose event a broker did not take, the oldest first: the stream, and why.
    """

    def __init__(self) -> None:
        self.lost: dict[str, tuple[str, str]] = {}
        self._on_the_way: dict[str, str] = {}

    def __contains__(self, alert: object) -> bool:
        return alert in self._on_the_way or alert in self.lost

    def of(self, stream: str) -> list[str]:
        """Alerts of a stream."""
        lost = [alert for alert, (name, _) in self.lost.items() if name == stream]
        return [*lost, *(alert for alert, name in self._on_the_way.items() if name == stream)]

    def sent(self, event: Mapping[str, Any]) -> None:
        """Take note of an event that was handed over to be sent."""
        self.lost.pop(event["id"], None)
        self._on_the_way[event["id"]] = event["stream"]

    def settle(self, event: Mapping[str, Any], newest: Mapping[str, Any], why: str) -> bool:
        """Take note of what became of an event; return whether that changes what is untold.

        Parameters
        ----------
        event, newest : mapping
            Of the same alert: the event, and the last one that was made.
        why : str
            Why the broker has not taken it; empty where it has.
        """
        overtaken = newest["timestamp"] > event["timestamp"] or (newest["type"] == "end" != event["type"])
        if overtaken:  # what becomes of the newer one counts
            return False
        self._on_the_way.pop(event["id"], None)
        if why and why != _FOR_GOOD:
            self.lose(event["id"], event["stream"], why)
        return True

    def lose(self, alert: str, stream: str, why: str = "") -> None:
        """Take note of an alert that must be said again."""
        self.lost[alert] = stream, why
        if len(self.lost) > _KEPT:
            del self.lost[next(iter(self.lost))]

    def again(self, *, anew: bool) -> list[str]:
        """Alerts that can be said again, by a new connection or by the one that lost them; the oldest first."""
        return [alert for alert, (_, why) in self.lost.items() if anew or why != _UNTIL_ANOTHER]
