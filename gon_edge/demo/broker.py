"""An MQTT broker on loopback for as long as a demonstration lasts: mosquitto where it is installed, else amqtt.

Nobody else can reach it, it stores nothing, and it leaves nothing behind: its configuration is a file in memory and its
process is killed with ours.  Not for real use: there is no password.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO, Literal

from gon_edge.errors import GonEdgeError
from gon_edge.process.child import end_child, python, start_child

_START_S = 20.0
"""amqtt on a Raspberry Pi imports for some seconds."""

_ATTEMPTS = 5
"""Ports to try.  Not critical: losing one in a race is rare, losing two is not seen."""

_LOOK_EVERY_S = 0.02
"""Between two looks whether the broker answers.  Not critical."""

# Debian keeps mosquitto out of a user's PATH.
_PLACES = (None, "/usr/sbin:/usr/local/sbin:/sbin:/opt/homebrew/sbin")


@dataclass(frozen=True, slots=True)
class Broker:
    """A running broker.

    Attributes
    ----------
    url : str
        ``mqtt://127.0.0.1:PORT``.
    program : {"mosquitto", "amqtt"}
    process_id : int
    """

    url: str
    program: Literal["mosquitto", "amqtt"]
    process_id: int


@contextlib.contextmanager
def embedded_broker(port: int | None = None) -> Iterator[Broker]:
    """Run a broker on loopback inside a ``with`` block.

    Parameters
    ----------
    port : int, optional
        Default: one that is free.

    Raises
    ------
    GonEdgeError
        When there is no broker to start, with the line to type; or when it does not start, with its own last words.

    Examples
    --------
    >>> with embedded_broker() as broker:      # doctest: +SKIP
    ...     print(broker.url)
    mqtt://127.0.0.1:40123
    """
    mosquitto = next((found for place in _PLACES if (found := shutil.which("mosquitto", path=place))), None)
    if mosquitto is None and importlib.util.find_spec("amqtt") is None:
        raise GonEdgeError(
            "no MQTT broker to start; type: sudo apt install mosquitto (or: pip install 'gon-edge[demo]'), "
            "or name a running broker with --broker mqtt://HOST"
        )
    with tempfile.TemporaryFile() as log:
        for attempt in range(_ATTEMPTS):
            chosen = port or free_port()
            process = _start_mosquitto(mosquitto, chosen, log) if mosquitto else _start_amqtt(chosen, log)
            try:
                if _wait_until_it_answers(process, chosen):
                    program: Literal["mosquitto", "amqtt"] = "mosquitto" if mosquitto else "amqtt"
                    yield Broker(f"mqtt://127.0.0.1:{chosen}", program, process.pid)
                    return
            finally:
                end_child(process)
            words = _last_line(log)
            # Somebody else may take a port between our look at it and the broker's.
            if port is not None or "in use" not in words or attempt == _ATTEMPTS - 1:
                raise GonEdgeError(f"the MQTT broker did not start on port {chosen}: {words or 'it said nothing'}")


def free_port() -> int:
    """Return a TCP port of the loopback interface that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def serve_amqtt(port: int) -> None:
    """Run amqtt on loopback in this process, until it is killed."""
    import asyncio

    from amqtt.broker import Broker as AmqttBroker

    async def serve() -> None:
        broker = AmqttBroker(
            {
                "listeners": {"default": {"type": "tcp", "bind": f"127.0.0.1:{port}"}},
                "plugins": {"amqtt.plugins.authentication.AnonymousAuthPlugin": {"allow_anonymous": True}},
            }
        )
        await broker.start()
        await asyncio.Event().wait()

    asyncio.run(serve())


def _start_mosquitto(program: str, port: int, log: IO[bytes]) -> subprocess.Popen[bytes]:
    lines = [
        # As root mosquitto changes its user, and the kernel then forgets to kill it with us.
        *(["user root"] if os.geteuid() == 0 else []),
        f"listener {port} 127.0.0.1",
        "allow_anonymous true",
        "persistence false",
        "log_dest stderr",
        "log_type error",
        "log_type warning",
    ]
    settings = os.memfd_create("mosquitto.conf")
    try:
        os.write(settings, ("\n".join(lines) + "\n").encode())
        path = f"/proc/self/fd/{settings}"
        return start_child([program, "-c", path], pass_fds=[settings], stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    finally:
        os.close(settings)


def _start_amqtt(port: int, log: IO[bytes]) -> subprocess.Popen[bytes]:
    code = f"from gon_edge.demo.broker import serve_amqtt; serve_amqtt({port})"
    return start_child(python("-c", code), stdin=subprocess.DEVNULL, stdout=log, stderr=log)


def _wait_until_it_answers(process: subprocess.Popen[bytes], port: int) -> bool:
    deadline = time.monotonic() + _START_S
    while process.poll() is None and time.monotonic() < deadline:
        # Only the broker's own socket is an answer, and it has the port to itself once it listens.
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1.0):
            return process.poll() is None
        time.sleep(_LOOK_EVERY_S)
    return False


def _last_line(log: IO[bytes]) -> str:
    log.seek(0)
    lines = log.read().decode(errors="replace").strip().splitlines()
    return lines[-1] if lines else ""
