"""Whether this machine's clock can be believed yet, and what becomes of rows that it stamped before.

A small device starts with the time of its last shutdown, or of 1970, and learns the real one when it reaches a time
server.  What it reads meanwhile is learned like anything else: a network has no clock in it.  When the clock is set,
the rows stamped by it since the machine started are moved with it, so that there is neither a gap nor a row twice, and
so are the dates of models that were trained from them.

Decides nothing about alerts and grids: `Pipeline.set_clock` moves those.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable

from gon_edge.process.clock import boot_id, clock_is_set
from gon_edge.state.folder import ModelFolder
from gon_edge.state.store import Store
from gon_edge.stream.stream import Stream

log = logging.getLogger(__name__)

_KEY = "clock"


class ClockTrust:
    """Follows this machine's wall clock from its start until it can be believed.

    Parameters
    ----------
    store : Store
    models : ModelFolder
    wall : float
        Unix seconds, now.
    uptime_s : float
        Seconds since the machine started.

    Attributes
    ----------
    believed : bool
        Nothing is moved any more: a later step of the clock is somebody's wish.
    """

    def __init__(self, store: Store, models: ModelFolder, wall: float, uptime_s: float) -> None:
        self.believed = clock_is_set(wall, uptime_s)
        self._store, self._models = store, models
        boot = boot_id()
        kept = store.state(_KEY)
        if not (isinstance(kept, dict) and boot and kept.get("boot") == boot):  # else an earlier run of this boot
            kept = {"boot": boot, "since": wall, "chunk": store.newest_chunk()}
        self._doubted = kept
        if not self.believed:
            store.put_state(_KEY, kept)
            log.warning(
                "the clock of this machine is not set yet; what is stamped on receipt is learned all the same, and its "
                "times are put right when the clock is set"
            )

    def look(self, wall: float, uptime_s: float) -> None:
        """Look at the clock again; every step that it has made has been told by `moved`."""
        if not self.believed and clock_is_set(wall, uptime_s):
            self.believed = True
            log.info("the clock of this machine is believed from now on")

    def moved(self, delta_s: float, streams: Iterable[Stream]) -> None:
        """Follow the clock, which was set by ``delta_s``: rows stamped by it so far, and what was learned from them."""
        if self.believed:
            return
        since = float(self._doubted["since"])
        self._doubted = {**self._doubted, "since": since + delta_s}
        self._store.put_state(_KEY, self._doubted)
        for stream in streams:
            if not stream.stamped_by_receipt:
                continue
            rows = self._store.restamp(stream.name, delta_s, int(self._doubted["chunk"]))
            log.info("stream %r: %d rows are of %.1f s later, by the clock that was set", stream.name, rows, delta_s)
            model = stream.model
            if model is None or float(model.lineage.get("trained_at", 0.0)) < since:
                continue
            dates = {key: float(model.lineage[key]) + delta_s for key in _DATES if key in model.lineage}
            stream.model = model.with_lineage(**dates)
            try:
                self._models.install(stream.name, stream.model)
            except OSError as error:
                log.warning("stream %r: the date of its model stays wrong: %s", stream.name, error)


_DATES = ("met", "remembers", "since", "until", "trained_at")
"""Entries of a model's lineage that are times."""
