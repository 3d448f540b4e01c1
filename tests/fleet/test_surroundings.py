"""What a partition of a fleet is told that a daemon is not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from fleet.fleets import Heard, config

from gon_edge.fleet.series import Series
from gon_edge.fleet.surroundings import Surroundings


def surroundings(folder: Path, **options: Any) -> Surroundings:
    settings = config(folder, "nats://127.0.0.1:1", **options)
    nobody: Any = None
    heard = Heard()
    return Surroundings(
        nobody, settings, heard, Series(heard.registry, 1), "a", "", publish=lambda *told: None, part=lambda n: n / 40
    )


@pytest.mark.parametrize(("streams", "share"), [(1, 0.25), (10, 2.5), (40, 10.0)])
def test_false_alerts_of_the_whole_fleet_are_spread_by_streams_and_not_by_partitions(
    tmp_path: Path, streams: int, share: float
) -> None:
    around = surroundings(tmp_path, alerts={"total_budget": "10/day"})
    own = around.own_config(tmp_path)
    assert around.budgeted(own, streams).alerts.total_budget == pytest.approx(share)


def test_without_a_budget_for_all_there_is_none_for_a_partition(tmp_path: Path) -> None:
    around = surroundings(tmp_path)
    assert around.budgeted(around.own_config(tmp_path), 7).alerts.total_budget is None


def test_rows_are_kept_elsewhere_before_what_they_were_made_of_is_gone(tmp_path: Path) -> None:
    own = surroundings(tmp_path).own_config(tmp_path / "0")
    assert (own.store.flush_every_s, own.state_dir) == (20.0, tmp_path / "0")
