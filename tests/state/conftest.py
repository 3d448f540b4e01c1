"""A store of its own for each test, and a state directory with models."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from storing import state_with_models

from gon_edge.model.file import Model, load_model
from gon_edge.state.store import Store

GOLDEN = Path(__file__).parents[1] / "golden" / "pump.npz"


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.open(tmp_path) as opened:
        assert opened.persistent
        yield opened


@pytest.fixture(scope="module")
def model() -> Model:
    return load_model(GOLDEN)


@pytest.fixture
def state(tmp_path: Path, model: Model) -> Path:
    return state_with_models(tmp_path / "state", model)
