"""The daemon's own alert: it has no broker.

It is told like those of streams, on the page, in the log and in the store at once, and by MQTT once there is a broker
again.  Time is an argument; who hears of it is up to `tell`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any

from gon_edge.events import Alert
from gon_edge.stream.held import alert_of
from gon_edge.stream.ids import Ids

WARNING_S = 60.0
"""So long without a broker is news.  A judgement: one that restarts is back by then, and so is a Wi-Fi that roams."""

CRITICAL_S = 900.0
"""So long, and nobody is going to bring it back who does not know of it.  A judgement, as above."""


class Offline:
    """Watches whether there is a broker.

    Parameters
    ----------
    node : str
        The id of an alert begins with it; its stream is empty.
    tell : callable
        Takes each event.
    now : float
        Monotonic seconds.
    events : iterable of mapping
        Alerts of an earlier run: one that is open goes on.

    Examples
    --------
    >>> offline = Offline("pi", lambda alert: print(alert.type, alert.severity), now=0.0)
    >>> for now in (0.0, 61.0, 901.0):
    ...     offline.look(False, now, wall=1e9 + now)
    new warning
    update critical
    >>> offline.look(True, 950.0, wall=1e9 + 950)
    end critical
    """

    def __init__(
        self, node: str, tell: Callable[[Alert], None], *, now: float, events: Iterable[Mapping[str, Any]] = ()
    ) -> None:
        self._ids = Ids(node)
        self._tell = tell
        self._connected_at = now
        before = [event for event in events if event["kind"] == "offline" and event["type"] != "end"]
        known = ("answer", "note", "more_features")
        self._open = alert_of({k: v for k, v in before[-1].items() if k not in known}) if before else None

    def look(self, connected: bool, now: float, wall: float) -> None:
        """Look at the broker; ``now`` is monotonic, ``wall`` Unix seconds."""
        if connected:
            self._connected_at = now
            if self._open is not None:
                self._tell(replace(self._open, type="end", timestamp=wall))
                self._open = None
            return
        away_s = now - self._connected_at
        severity = "critical" if away_s > CRITICAL_S else "warning"
        if self._open is None and away_s > WARNING_S:
            self._begin(wall - away_s, wall)
        elif self._open is not None and severity == "critical" != self._open.severity:
            self._open = replace(self._open, type="update", severity="critical", timestamp=wall)
            self._tell(self._open)

    def _begin(self, since: float, wall: float) -> None:
        alert_id = self._ids.new("offline", since)
        self._open = Alert(
            id=alert_id,
            type="new",
            kind="offline",
            stream="",
            since=since,
            timestamp=wall,
            score=math.nan,
            threshold=math.nan,
            severity="warning",
            top_features=(),
            model_version="",
            group=alert_id,
        )
        self._tell(self._open)
