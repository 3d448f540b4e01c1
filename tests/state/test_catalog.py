"""Which model a name means, and which models new streams begin with."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from gon_edge.commands.main import main
from gon_edge.config.file import parse_config
from gon_edge.errors import ConfigError, InputError, ModelFileError
from gon_edge.model.file import Model
from gon_edge.state import catalog
from gon_edge.state.catalog import find, shipped_folder, shipped_models
from gon_edge.state.folder import ModelFolder

GOLDEN = Path(__file__).parents[1] / "golden" / "pump.npz"


@pytest.fixture
def no_cache() -> Iterator[None]:
    catalog.starters.cache_clear()
    yield
    catalog.starters.cache_clear()


# -- which one is meant ------------------------------------------------------------------------------------------------


def test_a_name_a_version_and_a_file_are_found(state: Path) -> None:
    assert find("motes").label == "shipped:motes"
    assert find("pump", state).label == "stream:pump@2"
    assert find("pump@1", state).model.threshold != find("pump@2", state).model.threshold == 4.0
    assert find("stream:host", state).label == "stream:host@1"
    assert find("shipped:host", state).label == "shipped:host"
    assert find(str(GOLDEN)).model.features == ("flow", "pressure", "current")


@pytest.mark.parametrize(
    ("reference", "words"),
    [
        ("host", "write shipped:host or stream:host"),
        ("pomp", "no model 'pomp'; shipped ones: cloud-cpu, host, motes, server; streams in "),
        ("pump@7", "has no version 7; there are: 2, 1"),
        ("stream:pomp", "no stream 'pomp' has a model"),
        ("shipped:pump", "no shipped model 'pump'; there are: cloud-cpu"),
    ],
)
def test_what_cannot_be_found_is_said_with_what_there_is(state: Path, reference: str, words: str) -> None:
    with pytest.raises(InputError, match=re.escape(words)):
        find(reference, state)


def test_a_stream_name_may_hold_an_at_sign(state: Path, model: Model) -> None:
    ModelFolder(state).install("pump@1", model.with_lineage(version="5"))
    assert find("pump@1", state).label == "stream:pump@1@5"
    assert find("stream:pump@1@5", state).label == "stream:pump@1@5"


def test_a_stream_needs_a_state_directory() -> None:
    with pytest.raises(InputError, match="--config FILE or --state-dir DIR"):
        find("stream:pump")


def test_a_damaged_index_is_named(tmp_path: Path) -> None:
    (tmp_path / "index.json").write_text("{}")
    with pytest.raises(ModelFileError, match=r"index\.json: is not the list of shipped models"):
        shipped_models(tmp_path)


# -- starters ----------------------------------------------------------------------------------------------------------


def test_a_configuration_that_names_no_model_there_is_is_an_error_with_its_key(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], no_cache: None
) -> None:
    config = tmp_path / "c.yaml"
    text = "mqtt: {url: mqtt://localhost:1}\nsubscriptions: [{topic: 'telemetry/{stream}'}]\n"
    config.write_text(text + "streams: {overrides: {pump: {model: pomp}}}\n")
    assert main(["check-config", str(config)]) == 78
    words = capsys.readouterr().err
    assert "c.yaml: streams.overrides.pump.model: no model 'pomp'; shipped ones: cloud-cpu" in words
    config.write_text(text + f"streams: {{overrides: {{pump: {{model: {GOLDEN}}}}}, defaults: {{model: none}}}}\n")
    assert main(["check-config", str(config)]) == 0


def test_a_damaged_starter_nobody_named_does_not_keep_the_daemon_from_starting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_cache: None
) -> None:
    folder = shipped_folder()
    assert folder is not None
    for file in folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes() if file.suffix != ".npz" else b"damaged")
    monkeypatch.setattr(catalog, "shipped_folder", lambda: tmp_path)
    assert catalog.starters(None) == ()
    with pytest.raises(ModelFileError):
        catalog.starters("host")
    mqtt = {"mqtt": {"url": "mqtt://h"}, "subscriptions": [{"topic": "t/{stream}"}]}
    config = parse_config({**mqtt, "streams": {"defaults": {"model": "host"}}})
    with pytest.raises(ConfigError, match=r"streams\.defaults\.model"):
        catalog.check_starters(config)


def test_the_daemon_does_not_load_what_only_commands_need() -> None:
    code = (
        "import sys, gon_edge.daemon.app; "
        "sys.exit(bool({'gon_edge.commands.text', 'gon_edge.links.client'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=60).returncode == 0
