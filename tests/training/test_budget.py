"""How a budget for all streams is shared."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from gon_edge.config.file import parse_config
from gon_edge.config.schema import Config
from gon_edge.model.file import Model, load_model
from gon_edge.training import budget, sensitivity
from gon_edge.training.budget import budget_of, share_of, typical_size

GOLDEN = Path(__file__).parents[1] / "golden" / "pump.npz"
WEEK = 7.0


class Here:
    """Three streams, of which two have a model."""

    def __init__(self, config: Config) -> None:
        self.config = config

    def streams(self) -> list[str]:
        return ["blunt", "sharp", "young"]

    def model(self, stream: str) -> Model | None:
        sizes = {"blunt": 8.0, "sharp": 1.0}
        if stream not in sizes:
            return None
        told = {"flow": [sizes[stream], 3.0, 5], "heat": [sizes[stream], 0.3, 7]}
        return load_model(GOLDEN).with_lineage(detects={"offset up": told, "offset down": told})


def config(total: str | None, own: str | None) -> Config:
    return parse_config(
        {
            "mqtt": {"url": "mqtt://localhost"},
            "subscriptions": [{"topic": "telemetry/{stream}"}],
            **({"alerts": {"total_budget": total}} if total else {}),
            **({"streams": {"defaults": {"alerts": {"budget": own}}}} if own else {}),
        }
    )


def budgets(total: str | None, own: str | None) -> list[float]:
    here = Here(config(total, own))
    return [budget_of(name, here) for name in ("blunt", "sharp", "young", "new")]  # type: ignore[arg-type]


def test_without_a_total_each_stream_has_its_own():
    assert budgets(None, None) == [1 / WEEK] * 4
    assert budgets(None, "1/day") == [1.0] * 4


def test_a_total_is_spent_whole_and_the_stream_that_notices_only_large_faults_gets_most():
    blunt, sharp, young, _ = budgets("7/week", "100/day")
    assert blunt + sharp + young == pytest.approx(1.0)
    assert blunt / sharp == pytest.approx(5.0 / 2.0)  # 8 and 1 deviations are five and two doublings from nothing
    assert young == pytest.approx((blunt + sharp) / 2.0)


def test_a_stream_that_is_not_there_yet_is_counted():
    assert sum(budgets("7/week", "100/day")[:3]) == pytest.approx(1.0)
    assert budgets("7/week", "100/day")[3] == pytest.approx(0.25)


def test_a_budget_of_its_own_that_is_smaller_counts():
    assert budgets("7/week", "1/week") == [pytest.approx(1.0 / WEEK)] * 4


def test_streams_of_which_nothing_is_known_share_alike():
    sizes = dict.fromkeys(("a", "b", "c", "d"))
    assert [share_of(name, sizes) for name in sizes] == [0.25] * 4


def test_the_typical_size_is_the_geometric_mean_and_what_is_never_told_counts_as_more_than_the_largest():
    assert typical_size({"offset up": {"a": [1.0, 0.2, 4]}, "offset down": {"a": [4.0, 0.8, 4]}}) == 2.0
    assert typical_size({"offset up": {"a": None}, "spike": {"a": [0.5, 1.0, 1]}}) == budget.NEVER
    assert 2.0 * sensitivity.STRENGTHS[-1] == budget.NEVER
    assert sensitivity.STRENGTHS[0] == budget.SMALLEST
    assert set(budget._KINDS) == set(sensitivity.OFFSETS)


@pytest.mark.parametrize("said", [None, 7, {}, {"offset up": 3}, {"offset up": {"a": []}}, {"offset up": {"a": ["x"]}}])
def test_a_model_from_elsewhere_may_say_anything(said: object):
    assert typical_size(said) is None


def test_the_share_of_a_stream_does_not_depend_on_the_order_of_the_others():
    sizes = {"a": 1.0, "b": 16.0, "c": None}
    assert share_of("b", sizes) == share_of("b", dict(reversed(sizes.items())))
    assert dataclasses.asdict(config("4/week", None).alerts) == {"total_budget": 4.0 / WEEK}
