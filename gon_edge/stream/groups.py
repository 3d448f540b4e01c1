"""Alerts of several streams that begin together are one group: thirty streams behind one gateway are one piece of news.

The first alert of a group leads it, and its id is the group's.  An alert belongs to the group whose leader began about
when it did, by the time of the rows and not of the news: a slow stream tells the same fault later.  Only the leader is
compared, so that a chain of alerts, each a little later, is no group.  Pure: the same alerts give the same groups, live
and replayed.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from typing import Any

TOGETHER_S = 60.0
"""Alerts that begin within so many seconds of the leader belong to its group.  A judgement: devices behind one gateway
fall silent within a minute, while causes of their own rarely fall into one."""

_TOGETHER_ROWS = 3
"""Rows of the stream that joins, where those take longer: the start of an alert is known to a row or two."""

LEADERS = 64
"""Leaders that are remembered.  Not critical: more alerts in a minute or two than a person reads."""


def reach_s(interval_s: float) -> float:
    """How far apart, in seconds, what a stream with such an interval begins may be from what it belongs to."""
    return max(TOGETHER_S, _TOGETHER_ROWS * interval_s)


class Groups:
    """The newest groups of alerts.

    Examples
    --------
    >>> groups = Groups()
    >>> groups.join("pump-1", 1000.0, interval_s=1.0), groups.join("fan-1", 1012.0, interval_s=1.0)
    ('pump-1', 'pump-1')
    >>> groups.join("oven-1", 1100.0, interval_s=1.0), groups.join("tank-1", 1100.0, interval_s=60.0)
    ('oven-1', 'oven-1')
    """

    def __init__(self) -> None:
        self._leaders: deque[tuple[str, float]] = deque(maxlen=LEADERS)  # id and since, the newest last

    @property
    def leaders(self) -> list[tuple[str, float]]:
        """Id and since of the newest leaders, the oldest first."""
        return list(self._leaders)

    def resume(self, events: Iterable[Mapping[str, Any]]) -> None:
        """Remember the leaders among alerts of an earlier run, as events, the oldest first."""
        self._leaders.extend((str(e["id"]), float(e["since"])) for e in events if e.get("group") == e["id"])

    def join(self, alert: str, since: float, *, interval_s: float) -> str:
        """The group of an alert that begins.

        Parameters
        ----------
        alert : str
            Its id.
        since : float
            Unix seconds of its first row.
        interval_s : float
            Seconds between rows of its stream; 0 when unknown.

        Returns
        -------
        str
            The id of the alert that leads: its own where none has begun together with it.
        """
        reach = reach_s(interval_s)
        near = [(abs(since - began), leader) for leader, began in self._leaders if abs(since - began) <= reach]
        if near:
            return min(near)[1]
        self._leaders.append((alert, since))
        return alert
