"""Names of alerts: unique over restarts, and also where the clock of a device goes back.

What a person copies from a page into a command, so they say the stream, the kind and when it began.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from gon_edge.events import ALERT_KINDS, AlertKind

_INSTANT = "%Y%m%dT%H%M%S"
_NAME = re.compile(r"-([a-z]+)-([0-9]{8}T[0-9]{6})(\.[0-9]{1,6})?Z(?:-[0-9]+)?\Z")


class Ids:
    """Names of the alerts of one stream.

    Parameters
    ----------
    stream : str
    state : mapping, optional
        What `state` returned before a restart.

    Raises
    ------
    TypeError, ValueError, AttributeError
        The state cannot be understood.

    Examples
    --------
    >>> ids = Ids("pump")
    >>> ids.new("anomaly", 0.0), ids.new("anomaly", 0.0)
    ('pump-anomaly-19700101T000000Z', 'pump-anomaly-19700101T000000Z-1')
    """

    def __init__(self, stream: str, state: Mapping[AlertKind, Sequence[Any]] | None = None) -> None:
        self._stream = stream
        # (epoch, since in microseconds) of the newest of each kind
        self._newest = {kind: (int(epoch), int(us)) for kind, (epoch, us) in (state or {}).items()}

    def new(self, kind: AlertKind, since: float) -> str:
        """`<stream>-<kind>-<since>`; where the clock went back past the newest one, `-<n>` keeps it unique."""
        since_us = round(since * 1e6)
        epoch, newest_us = self._newest.get(kind, (0, since_us - 1))
        if since_us <= newest_us:
            epoch += 1
        self._newest[kind] = (epoch, since_us)
        seconds, fraction_us = divmod(since_us, 1_000_000)
        try:
            instant = datetime.fromtimestamp(seconds, UTC).strftime(_INSTANT)
        except (OverflowError, ValueError, OSError):  # beyond year 9999
            instant = str(seconds)
        fraction = f".{fraction_us:06d}".rstrip("0") if fraction_us else ""
        return f"{self._stream}-{kind}-{instant}{fraction}Z" + (f"-{epoch}" if epoch else "")

    def state(self) -> dict[str, list[int]]:
        """Return what the next `Ids` goes on from, fit for JSON."""
        return {kind: list(newest) for kind, newest in self._newest.items()}


def said_by(name: str) -> tuple[AlertKind, float] | None:
    """What the name of an alert says: its kind, and when it began, Unix seconds; ``None`` where it is no such name.

    Examples
    --------
    >>> said_by("pump-anomaly-19700101T000001.5Z-3")
    ('anomaly', 1.5)
    """
    found = _NAME.search(name)
    kind = next((kind for kind in ALERT_KINDS if found is not None and kind == found[1]), None)
    if found is None or kind is None:
        return None
    try:
        instant = datetime.strptime(found[2], _INSTANT).replace(tzinfo=UTC)
    except ValueError:
        return None
    return kind, instant.timestamp() + float(found[3] or 0.0)
