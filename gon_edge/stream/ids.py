"""Names of alerts: unique over restarts, and also where the clock of a device goes back.

What a person copies from a page into a command, so they say the stream, the kind and when it began.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from gon_edge.events import AlertKind


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
            instant = datetime.fromtimestamp(seconds, UTC).strftime("%Y%m%dT%H%M%S")
        except (OverflowError, ValueError, OSError):  # beyond year 9999
            instant = str(seconds)
        fraction = f".{fraction_us:06d}".rstrip("0") if fraction_us else ""
        return f"{self._stream}-{kind}-{instant}{fraction}Z" + (f"-{epoch}" if epoch else "")

    def state(self) -> dict[str, list[int]]:
        """Return what the next `Ids` goes on from, fit for JSON."""
        return {kind: list(newest) for kind, newest in self._newest.items()}
