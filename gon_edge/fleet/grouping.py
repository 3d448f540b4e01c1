"""Alerts of all partitions that begin together as one group: devices behind one gateway are in every partition.

An owner knows the streams of its own partition, and needs no other worker to judge them; so the group an event has from
it is that of its partition.  Whoever reads the events in their order puts those groups together by the same rule, and
comes to the same result.  What is said of each stream stays as it was.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gon_edge.stream.groups import Groups

_KEPT = 10_000  # groups of partitions that are remembered.  Not critical: more than are open at a time


class Grouping:
    """The groups of the whole fleet.

    Examples
    --------
    >>> grouping = Grouping()
    >>> first = {"id": "a-1", "group": "a-1", "type": "new", "since": 1000.0}
    >>> grouping.take(first)["group"], grouping.take({**first, "id": "b-1", "group": "b-1", "since": 1020.0})["group"]
    ('a-1', 'a-1')
    """

    def __init__(self) -> None:
        self._groups = Groups()
        self._group_of: dict[str, str] = {}  # by the group in its partition

    def take(self, event: Mapping[str, Any]) -> dict[str, Any]:
        """Return an event with the fleet's group in place of its partition's; the events in their order."""
        own = str(event.get("group", ""))
        if own and own not in self._group_of:
            self._group_of[own] = self._groups.join(own, float(event["since"]), interval_s=0.0)
            if len(self._group_of) > _KEPT:
                del self._group_of[next(iter(self._group_of))]
        return {**event, "group": self._group_of[own]} if own else dict(event)
