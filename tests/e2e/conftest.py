"""What the end-to-end tests share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from e2e.daemons import Subscriber
from e2e.servers import Mosquitto


@pytest.fixture
def subscriber(mosquitto: Mosquitto, tmp_path: Path) -> Iterator[Subscriber]:
    """What the daemon of the test publishes as alerts."""
    collected = Subscriber(mosquitto, "gon-edge/pi-1/alert", tmp_path)
    yield collected
    collected.stop()
