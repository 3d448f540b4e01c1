"""Fixtures every test may use."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from e2e.servers import Mosquitto


@pytest.fixture
def mosquitto(tmp_path: Path) -> Iterator[Mosquitto]:
    """A running mosquitto with default limits and no password, ended after the test."""
    broker = Mosquitto(tmp_path / "broker")
    try:
        yield broker.start()
    finally:
        broker.kill()
