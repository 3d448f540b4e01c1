"""Silences: spans of time in which a person does not want to hear of a stream, or of one of its features.

Pure: Unix seconds come in as arguments, the book goes to and from JSON.  What a silence does to alerts is in
``alerts``; that its rows are not learned, in ``daemon``.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

LONGEST_S = 366 * 86400.0
"""A silence always expires: what should never be heard of again is better left out of the configuration."""

MOST = 1000
"""Silences at a time."""

LONGEST_TEXT = 500
"""Characters of a reason, and of the name of a feature."""

MOST_BYTES = 128 << 10
"""Of all silences as JSON: each change writes them all to the disk, and an answer of the daemon holds them all."""

_CLOCK_S = 300.0
"""A clock that is set back by more than this makes a silence begin in the future, and then it does not count."""


@dataclass(frozen=True, slots=True)
class Silence:
    """One silence.

    Attributes
    ----------
    stream : str
    feature : str
        Empty for the whole stream.
    since, until : float
        Unix seconds.
    reason : str
        For people; may be empty.
    """

    stream: str
    feature: str
    since: float
    until: float
    reason: str

    def active(self, now: float) -> bool:
        """Whether it counts at ``now``.  Doubt about the clock lets alerts through."""
        return self.since - _CLOCK_S <= now < self.until


class Silences:
    """Every silence there is, at most one for a stream and one for each of its features.

    Parameters
    ----------
    state : iterable of mapping, optional
        What `state` returned before a restart; entries that cannot be understood are left out.

    Examples
    --------
    >>> silences = Silences()
    >>> silences.add(Silence("pump", "flow", 0.0, 7200.0, "sensor is being changed"))
    >>> silences.features("pump", now=60.0), silences.features("pump", now=7200.0)
    (frozenset({'flow'}), frozenset())
    """

    def __init__(self, state: Iterable[Mapping[str, Any]] | None = None) -> None:
        self._silences: dict[tuple[str, str], Silence] = {}
        self._bytes = 0
        for entry in state if isinstance(state, list) else ():
            try:
                self.add(
                    Silence(
                        str(entry["stream"]),
                        str(entry["feature"]),
                        float(entry["since"]),
                        float(entry["until"]),
                        str(entry["reason"]),
                    )
                )
            except (KeyError, TypeError, ValueError):
                continue

    def add(self, silence: Silence) -> None:
        """Take a silence in place of the one there is for the same stream and feature.

        Raises
        ------
        ValueError
            It lasts too long, says too much, or there are too many.
        """
        for what, text in (("reason", silence.reason), ("name of the feature", silence.feature)):
            if len(text) > LONGEST_TEXT:
                raise ValueError(f"the {what} has {len(text)} characters; write at most {LONGEST_TEXT}")
        if not 0.0 < silence.until - silence.since <= LONGEST_S:
            raise ValueError(f"a silence lasts up to {LONGEST_S / 86400.0:.0f} days")
        key = silence.stream, silence.feature
        if key not in self._silences and len(self._silences) >= MOST:
            raise ValueError(f"there are {MOST} silences already; remove some")
        before = _size(self._silences[key]) if key in self._silences else 0
        if self._bytes - before + _size(silence) > MOST_BYTES:
            raise ValueError(f"all silences together would take more than {MOST_BYTES >> 10} KiB; remove some")
        self._silences[key] = silence
        self._bytes += _size(silence) - before

    def remove(self, stream: str, feature: str | None = None) -> list[Silence]:
        """Remove the silence of a feature, or without one every silence of the stream; return what was removed."""
        keys = [key for key in self._silences if key[0] == stream and feature in (None, key[1])]
        return [self._pop(key) for key in keys]

    def rename(self, old: str, new: str) -> None:
        """Silence another stream instead of one."""
        for silence in self.remove(old):
            self._silences[new, silence.feature] = replace(silence, stream=new)

    def expire(self, now: float) -> list[Silence]:
        """Remove what is over; return it."""
        over = [key for key, silence in self._silences.items() if silence.until <= now]
        return [self._pop(key) for key in over]

    def _pop(self, key: tuple[str, str]) -> Silence:
        silence = self._silences.pop(key)
        self._bytes -= _size(silence)
        return silence

    def active(self, now: float) -> list[Silence]:
        """Those that count at ``now``, the first to end first."""
        return sorted((s for s in self._silences.values() if s.active(now)), key=lambda silence: silence.until)

    def features(self, stream: str, now: float) -> frozenset[str] | None:
        """Silenced features of a stream; ``None`` when the whole stream is silenced."""
        found = frozenset(s.feature for s in self._silences.values() if s.stream == stream and s.active(now))
        return None if "" in found else found

    def state(self) -> list[dict[str, Any]]:
        """Return them fit for JSON; give it to the next `Silences`."""
        return [asdict(silence) for silence in self._silences.values()]


def _size(silence: Silence) -> int:
    return len(json.dumps(asdict(silence)))
