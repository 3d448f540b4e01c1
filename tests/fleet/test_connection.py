"""A connection to NATS: it outlives its server, and says what is wrong where there can be none."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from fleet.fleets import config, run

from gon_edge.errors import ConfigError
from gon_edge.fleet.connection import connect
from gon_edge.fleet.servers import NatsServer


def test_a_server_that_is_not_there_is_waited_for(tmp_path: Path) -> None:
    server = NatsServer(tmp_path)

    async def work() -> None:
        connecting = asyncio.create_task(connect(config(tmp_path, server.url).fleet, "test"))
        assert not (await asyncio.wait([connecting], timeout=0.5))[0]
        await asyncio.to_thread(server.start)
        client = await connecting
        await client.flush()
        await client.close()

    try:
        run(work())
    finally:
        server.stop()


def test_a_certificate_that_cannot_be_read_is_named_with_the_option(tmp_path: Path) -> None:
    broken = tmp_path / "ca.crt"
    broken.write_text("no certificate")
    settings = config(tmp_path, "tls://127.0.0.1:1", fleet={"ca_file": str(broken)})

    async def work() -> None:
        with pytest.raises(ConfigError, match="certificate or key cannot be used") as raised:
            await connect(settings.fleet, "test")
        assert raised.value.key == "fleet.ca_file"

    run(work())


def test_a_connection_is_there_again_after_its_server_was_killed(tmp_path: Path) -> None:
    server = NatsServer(tmp_path)
    server.start()

    async def work() -> None:
        client = await connect(config(tmp_path, server.url).fleet, "test")
        server.kill()
        while client.is_connected:
            await asyncio.sleep(0.02)
        await asyncio.to_thread(server.start)
        while not client.is_connected:
            await asyncio.sleep(0.02)
        await client.flush()
        await client.close()

    try:
        run(work())
    finally:
        server.stop()
