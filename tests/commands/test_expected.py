"""What check-config says of a valid configuration."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from gon_edge.commands.expected import remarks
from gon_edge.config.file import parse_config
from gon_edge.model.file import load_model, save_model
from gon_edge.state.folder import ModelFolder

GOLDEN = Path(__file__).parents[1] / "golden" / "pump.npz"


def said(*topics: str, **more: Any) -> list[str]:
    entries = [{"topic": topic} | ({} if "{stream" in topic else {"stream": "x"}) for topic in topics]
    return remarks(parse_config({"mqtt": {"url": "mqtt://localhost"}, "subscriptions": entries, "node": "pi", **more}))


@pytest.mark.parametrize("topic", ["#", "gon-edge/#", "{stream}/#", "+/+/+/{stream}"])
def test_a_wildcard_over_own_topics_is_told(topic: str):
    (remark,) = said(topic)
    assert "takes in gon-edge/pi/#" in remark


def test_a_plain_configuration_needs_no_remark():
    assert said("telemetry/{stream}", "home/{stream}/{feature}") == []


def test_a_filter_within_another_and_a_group_are_told():
    assert "lies within another" in said("telemetry/{stream}", "telemetry/{stream}/#")[0]
    assert "group 'edge'" in said("$share/edge/telemetry/{stream}")[0]


def test_an_override_that_matches_no_known_stream_is_told_with_the_nearest(tmp_path: Path):
    models = ModelFolder(tmp_path)
    file = models.file("pump")
    file.parent.mkdir(parents=True)
    save_model(load_model(GOLDEN), file)
    more = {"state_dir": str(tmp_path), "streams": {"overrides": {"pmup": {}, "pump": {}}}}
    (remark,) = said("telemetry/{stream}", **more)
    assert remark.startswith("streams.overrides.pmup")
    assert "did you mean pump?" in remark
