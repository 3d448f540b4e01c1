"""What a stream lacks: features without fresh values, or all of them because no row comes.

`Absences` keeps count; `alerts` makes the news of it.  Pure: timestamps come with the rows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gon_edge.config.schema import AlertsConfig
from gon_edge.events import Cause, Severity

_WHOLE_STREAM = "\0stream"
"""Stands among the absent features while the stream as a whole is silent; no payload can hold this name."""


@dataclass(slots=True)
class _Absence:
    """A feature without fresh values: since when, how many rows it has been back for, whether it is told of."""

    since: float
    rows_back: int
    reported: bool


@dataclass(frozen=True, slots=True)
class Lack:
    """What there is to tell.

    Attributes
    ----------
    since : float
        Unix seconds: when the first of them went.
    causes : tuple of Cause
        The features, by name, with equal shares; empty when only the stream as a whole is known to be silent.
    severity : {"warning", "critical"}
        Critical when the whole stream is silent.
    """

    since: float
    causes: tuple[Cause, ...]
    severity: Severity


class Absences:
    """Which features of one stream are absent, and which of them long enough to be told of.

    Parameters
    ----------
    state : mapping, optional
        What `state()` returned before a restart.

    Raises
    ------
    KeyError, TypeError, ValueError, AttributeError
        The state cannot be understood.

    Examples
    --------
    >>> absences = Absences()
    >>> absences.take(("flow",), 0.0, AlertsConfig())
    >>> absences.lack().causes
    (Cause(feature='flow', value=None, expected=None, contribution=1.0),)
    """

    def __init__(self, state: Mapping[str, Sequence[Any]] | None = None) -> None:
        self._absent = {
            name: _Absence(float(since), int(back), bool(told)) for name, (since, back, told) in (state or {}).items()
        }

    @property
    def any(self) -> bool:
        """Whether something is absent, told or not."""
        return bool(self._absent)

    def take(
        self,
        missing: Sequence[str],
        timestamp: float,
        settings: AlertsConfig,
        patience_s: Callable[[str], float | None] = lambda feature: None,
    ) -> None:
        """Take one row, and the features it lacks; ``patience_s`` is as `AlertPolicy.patience_s`."""
        for feature in missing:
            own_s = patience_s(feature)
            after_s = (settings.missing_after_s or 0.0) if own_s is None else own_s
            absence = self._absent.setdefault(feature, _Absence(timestamp, 0, reported=False))
            absence.rows_back = 0
            absence.reported |= not 0 <= timestamp - absence.since < after_s
        for feature in self._absent.keys() - set(missing):
            absence = self._absent[feature]
            absence.rows_back += 1
            if not absence.reported or absence.rows_back >= settings.clear_rows:
                del self._absent[feature]

    def take_silence(self, since: float, features: Sequence[str]) -> None:
        """Take that no row comes any more: each of the features is absent, and the stream as a whole."""
        for feature in (_WHOLE_STREAM, *features):
            absence = self._absent.setdefault(feature, _Absence(since, 0, reported=True))
            absence.reported, absence.rows_back = True, 0

    def lack(self) -> Lack | None:
        """What is absent for long enough; ``None`` when nothing is."""
        reported = {feature: absence for feature, absence in self._absent.items() if absence.reported}
        if not reported:
            return None
        names = sorted(reported.keys() - {_WHOLE_STREAM})
        return Lack(
            since=min(absence.since for absence in reported.values()),
            causes=tuple(Cause(name, None, None, 1 / len(names)) for name in names),
            severity="critical" if _WHOLE_STREAM in reported else "warning",
        )

    def state(self) -> dict[str, list[Any]]:
        """Return what the next `Absences` goes on from, fit for JSON."""
        return {name: [a.since, a.rows_back, a.reported] for name, a in self._absent.items()}
