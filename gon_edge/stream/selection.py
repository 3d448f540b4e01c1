"""Which features of a stream are used: what ``include`` and ``exclude`` leave out goes into the ledger."""

from __future__ import annotations

from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import Any

from gon_edge.config.schema import StreamConfig
from gon_edge.stream.ledger import Ledger

_NAMES = 10_000  # remembered; not critical: a device that makes up names must not fill the memory


class Selection:
    """The features of one stream that are used.

    Parameters
    ----------
    settings : StreamConfig
    ledger : Ledger
    """

    def __init__(self, settings: StreamConfig, ledger: Ledger) -> None:
        self._include, self._exclude = settings.include, settings.exclude
        self._ledger = ledger
        self._wanted: dict[str, bool] = {}

    def of(self, values: Mapping[str, Any]) -> Mapping[str, Any]:
        """Without the features that are left out; the same object when none is."""
        if not self._include and not self._exclude:
            return values
        wanted = self._wanted
        if len(wanted) > _NAMES:
            wanted.clear()
        for name in values:
            if name not in wanted:
                included = not self._include or any(fnmatchcase(name, glob) for glob in self._include)
                wanted[name] = included and not any(fnmatchcase(name, glob) for glob in self._exclude)
        selected = {name: value for name, value in values.items() if wanted[name]}
        if len(selected) < len(values):
            for name, value in values.items():
                if not wanted[name]:
                    self._ledger.add(name, "excluded", str(value))
        return selected
