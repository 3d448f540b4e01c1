"""The shipped models: what the cards say is so, and the starter is quiet on any machine and sees what it should."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import sys
from pathlib import Path

import numpy as np
import pytest

from gon_edge.config.schema import StreamConfig
from gon_edge.events import Alert, Reading
from gon_edge.model.file import dumps
from gon_edge.process.host import HostTelemetry
from gon_edge.state.catalog import shipped_model, shipped_models, starters
from gon_edge.state.inspection import verify
from gon_edge.stream.stream import Stream

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "models"
sys.path.append(str(ROOT / "tools"))

import host_telemetry  # noqa: E402
import train_models  # noqa: E402

each = pytest.mark.parametrize("shipped", shipped_models(FOLDER), ids=lambda model: model.name)


def test_there_are_at_least_three_and_a_recipe_for_each() -> None:
    assert {model.name for model in shipped_models(FOLDER)} == {recipe.name for recipe in train_models.RECIPES}
    assert len(shipped_models(FOLDER)) >= 3
    files = {file.stem for file in FOLDER.glob("*.npz")}
    assert files == {model.name for model in shipped_models(FOLDER)} == {file.stem for file in FOLDER.glob("*.md")}


@each
def test_index_and_card_describe_the_file_that_is_there(shipped) -> None:
    blob = shipped.path.read_bytes()
    assert hashlib.sha256(blob).hexdigest() == shipped.sha256
    assert len(blob) == shipped.size_bytes <= 64 * 1024
    card = shipped.card.read_text(encoding="utf-8")
    assert shipped.sha256 in card
    assert f"{len(blob)} bytes" in card
    assert shipped.title in card
    assert f"{shipped.load().threshold:.3f}" in card
    assert all(f"**{part}**" in card for part in ("Watches", "Learned from", "Licence of the data", "Not good for"))


@each
def test_it_passes_every_check(shipped) -> None:
    checks = verify(shipped.path, shipped)
    assert {check.name for check in checks} == {"sha256", "format", "int8", "rewrite", "scores"}
    assert [check for check in checks if not check.passed] == []


@each
def test_its_lineage_names_the_data_its_licence_and_the_seed(shipped) -> None:
    lineage = shipped.load().lineage
    assert lineage["name"] == shipped.name
    assert lineage["starter"] == shipped.starter
    assert lineage["rows"] > 1000
    assert lineage["data"]
    assert lineage["licence"]
    assert "GPL" not in lineage["licence"]
    assert "seed" in lineage


def test_the_same_seed_gives_the_same_bytes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(train_models, "_MACHINES", 4)
    recipe = dataclasses.replace(
        train_models.RECIPES[0], material=lambda: dataclasses.replace(train_models._host(), scores=lambda model: [])
    )
    entries = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        entries.append(train_models.write(recipe, tmp_path / name))
    assert entries[0] == entries[1]
    assert (tmp_path / "a" / "host.npz").read_bytes() == (tmp_path / "b" / "host.npz").read_bytes()
    assert json.dumps(entries[0])


# -- the starter for what `publish` sends ------------------------------------------------------------------------------


def alerts_of(rows: np.ndarray, level: float = 30.0) -> list[Alert]:
    """Alerts that a fresh stream of a machine's telemetry raises while the starter scores it."""
    stream = Stream("pi", StreamConfig(interval_s=1.0, model="auto"), max_features=50, starters=starters(None))
    alerts: list[Alert] = []
    for t, (cpu, memory) in enumerate(rows.tolist()):
        values = {
            "cpu.total": cpu,
            "memory.used_percent": memory + level,
            "load.1m": 999.0 * (t % 2),
            "net.rx_kib_s": 0.0,
        }
        alerts += [alert for o in stream.add(Reading("pi", float(t), values), float(t)) for alert in o.alerts]
    assert stream.starter is not None
    return [alert for alert in alerts if alert.type == "new"]


def test_only_the_model_of_what_publish_sends_is_a_starter() -> None:
    (starter,) = starters(None)
    assert starter.version == "shipped:host"
    telemetry = HostTelemetry()
    telemetry.sample()
    assert set(starter.features) <= {*telemetry.sample(), "cpu.total"}
    assert starters("none") == ()


@pytest.mark.parametrize("level", [3.0, 50.0, 96.0])
def test_machines_in_ordinary_use_raise_no_alert_however_full_their_memory_is(level: float) -> None:
    rng = np.random.default_rng(10)
    assert [alerts_of(host_telemetry.simulate(rng, 600), level) for _ in range(5)] == [[]] * 5


@pytest.mark.parametrize("level", [3.0, 50.0])
def test_every_core_busy_and_memory_taken_at_once_is_an_alert_within_fifteen_rows(level: float) -> None:
    rng = np.random.default_rng(11)
    found = []
    for _ in range(5):
        rows = host_telemetry.simulate(rng, 130)
        rows[100:, 0] = 100.0
        rows[100:, 1] += 10.0
        found += alerts_of(rows, level)[-1:]
    assert len(found) == 5
    assert all(100 <= alert.timestamp < 115 for alert in found)
    assert all(alert.top_features[0].feature == "memory.used_percent" for alert in found)


def test_a_machine_that_is_busy_throughout_is_no_alert() -> None:
    rng = np.random.default_rng(12)
    rows = np.column_stack([100.0 - np.abs(rng.normal(0.0, 1.0, 600)), rng.normal(0.0, 0.1, 600)])
    assert alerts_of(rows) == []


def test_a_reading_that_stays_as_it_is_is_no_frozen_sensor() -> None:
    rows = np.tile([0.0, 0.0], (2000, 1))
    assert alerts_of(rows) == []


def test_a_starter_is_the_shipped_model() -> None:
    (starter,) = starters(None)
    assert dumps(starter.with_lineage(version="1")) == dumps(shipped_model("host").load())
