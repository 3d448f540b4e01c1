"""What all partitions of one worker share, and what each of them is told."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from gon_edge.config.schema import Config
from gon_edge.fleet.jetstream import Fleet
from gon_edge.fleet.series import Series
from gon_edge.fleet.turns import Turns
from gon_edge.links.prometheus import Telemetry

_ROWS_EVERY_PARTS = 3.0  # rows are kept elsewhere so often in a retention


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What all partitions of one worker share.

    Attributes
    ----------
    fleet : Fleet
    config : Config
    telemetry : Telemetry
    series : Series
    worker : str
    inbox : str
        Where answers to trainings go.
    publish : callable
        Sends a retained message to the broker, see `Outlet`.
    part : callable
        What part of all streams of the fleet so many are.
    turns : Turns
    """

    fleet: Fleet
    config: Config
    telemetry: Telemetry
    series: Series
    worker: str
    inbox: str
    publish: Callable[[str, str, str], None]
    part: Callable[[int], float]
    turns: Turns = field(default_factory=Turns)

    def own_config(self, folder: Path) -> Config:
        """The configuration of a daemon that has one partition alone, in a folder of its own."""
        config, fleet = self.config, self.config.fleet
        every_s = min(config.store.flush_every_s, fleet.retention_s / _ROWS_EVERY_PARTS)
        store = replace(config.store, flush_every_s=every_s)
        return self.budgeted(replace(config, state_dir=folder, node=fleet.prefix, store=store), 0)

    def budgeted(self, config: Config, streams: int) -> Config:
        """The configuration of a partition, with the part of the fleet's false alerts that falls to so many streams."""
        total = self.config.alerts.total_budget
        if total is None:
            return config
        return replace(config, alerts=replace(config.alerts, total_budget=total * self.part(max(1, streams))))
