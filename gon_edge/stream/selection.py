"""Which features of a stream are used: what ``include`` and ``exclude`` leave out goes into the ledger."""

from __future__ import annotations

from collections.abc import Mapping
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
        self._settings = settings
        self._ledger = ledger
        self._wanted: dict[str, bool] = {}

    def of(self, values: Mapping[str, Any]) -> Mapping[str, Any]:
        """Without the features that are left out; the same object when none is."""
        if not self._settings.include and not self._settings.exclude:
            return values
        wanted = self._wanted
        if len(wanted) > _NAMES:
            wanted.clear()
        for name in values:
            if name not in wanted:
                wanted[name] = self._settings.wants(name)
        return {name: value for name, value in values.items() if wanted[name]}

    def used(self, values: Mapping[str, float]) -> Mapping[str, float]:
        """As `of`, and what is left out goes into the ledger."""
        selected = self.of(values)
        if len(selected) < len(values):
            for name, value in values.items():
                if name not in selected:
                    self._ledger.add(name, "excluded", str(value))
        return selected
