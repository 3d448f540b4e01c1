"""A connection to NATS, kept for ever."""

from __future__ import annotations

import asyncio
import logging
import ssl
from typing import Any

from nats.aio.client import Client
from nats.errors import Error as NatsError

from gon_edge.config.fleet import FleetConfig
from gon_edge.errors import ConfigError, UnreachableError
from gon_edge.process.logs import Seldom

log = logging.getLogger(__name__)

_CONNECT_S = 5.0  # not critical: a server that lives answers at once

Errors = (NatsError, OSError, asyncio.TimeoutError)
"""What a request fails with while there is no server, or none that knows what is meant."""


async def connect(settings: FleetConfig, name: str) -> Client:
    """Connect to NATS, and keep the connection for ever; a server that is down is waited for.

    Raises
    ------
    UnreachableError
        None of the servers can be one.
    ConfigError
        A secret or certificate cannot be read.
    """
    seldom = Seldom(log)

    async def failed(error: Exception) -> None:
        seldom.say("nats", logging.WARNING, f"NATS: {error or type(error).__name__}")

    async def lost() -> None:
        if not client.is_closed and not client.is_draining:
            log.warning("the connection to NATS is lost; trying again")

    async def back() -> None:
        log.warning("connected to NATS again")

    options: dict[str, Any] = {}
    if settings.username is not None:
        options.update(user=settings.username, password=settings.password())
    if settings.ca_file is not None or settings.cert_file is not None:
        options["tls"] = _tls(settings)
    client = Client()
    try:
        await client.connect(
            [*settings.servers],
            name=name,
            connect_timeout=int(_CONNECT_S),
            allow_reconnect=True,
            max_reconnect_attempts=-1,
            reconnect_time_wait=1,
            ping_interval=5,
            max_outstanding_pings=2,
            pending_size=64 << 20,
            error_cb=failed,
            disconnected_cb=lost,
            reconnected_cb=back,
            **options,
        )
    except Errors as error:
        raise UnreachableError(f"no NATS at {', '.join(settings.servers)}: {error}; see fleet.servers") from None
    return client


def _tls(settings: FleetConfig) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=settings.ca_file)
        if settings.cert_file is not None:
            context.load_cert_chain(settings.cert_file, settings.key_file)
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(f"certificate or key cannot be used: {error}", key="fleet.ca_file") from None
    return context
