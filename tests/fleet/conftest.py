"""What the tests of a fleet share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from gon_edge.fleet.servers import NatsServer


@pytest.fixture(scope="module")
def nats_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NatsServer]:
    """A real server with JetStream, shared by the tests of a module: each has a fleet of its own in it."""
    folder: Path = tmp_path_factory.mktemp("nats")
    server = NatsServer(folder)
    server.start()
    yield server
    server.stop()
