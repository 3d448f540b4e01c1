"""The servers of a fleet on this machine, each a child process: NATS with JetStream, mosquitto with its bridge.

For a look, for measuring and for tests: on loopback, without passwords, in a folder of the caller's.  A server can be
killed and started again on the same ports and the same folder.  ``deploy/fleet`` has what a site runs.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from gon_edge.demo.broker import free_port
from gon_edge.errors import GonEdgeError
from gon_edge.process.child import end_child, start_child

_START_S = 60.0
"""A server that has gigabytes to recover, beside busy cores, takes its time.  Not critical."""

_LOOK_EVERY_S = 0.02
"""Between two looks whether a server answers.  Not critical."""

_PLACES = (
    None,
    str(Path(sys.executable).parent),
    "/usr/sbin:/usr/local/sbin:/sbin:/opt/homebrew/bin:/opt/homebrew/sbin",
)
"""Beside PATH: where pip puts nats-server, and where Debian keeps mosquitto out of a user's way."""

BRIDGE_IN_FLIGHT = 10
"""Messages of the bridge on the way unacknowledged.

When a server or a connection goes, a message is sent again behind others that were on the way: behind none of its own
device while they are fewer than the devices.  With 1000 of them and twelve devices, 75 of 780 rows came behind later
ones of their device when one of three servers was killed, and were late.  Ten are enough for 12,000 messages a second
on loopback.
"""

BRIDGE_QUEUE_BYTES = 256 << 20
"""What mosquitto keeps while NATS is away: 5,000 devices that write 200 bytes a second for four minutes."""


def find_nats_server() -> str:
    """Return the path of nats-server.

    Raises
    ------
    GonEdgeError
        There is none; says the line to type.
    """
    return _program("nats-server", "no nats-server on PATH; type: pip install 'gon-edge[fleet]'")


def find_mosquitto() -> str:
    """Return the path of mosquitto.

    Raises
    ------
    GonEdgeError
        There is none; says the line to type.
    """
    return _program(
        "mosquitto",
        "no mosquitto on PATH; type: sudo apt install mosquitto, or let devices speak to NATS itself with --direct",
    )


def _program(name: str, missing: str) -> str:
    found = next((path for place in _PLACES if (path := shutil.which(name, path=place))), None)
    if found is None:
        raise GonEdgeError(missing)
    return found


@dataclass(frozen=True, slots=True)
class Ports:
    """Ports of a NATS server on loopback: of clients, of MQTT and of the other servers."""

    client: int
    mqtt: int
    cluster: int

    @classmethod
    def free(cls) -> Ports:
        """Return ports that were free a moment ago."""
        return cls(free_port(), free_port(), free_port())


class Server:
    """A child process that can be killed and started again.

    Parameters
    ----------
    command : sequence of str
    folder : Path
        For its log.
    name : str
    port : int
        Which it listens on when it is ready.
    """

    def __init__(self, command: Sequence[str], folder: Path, name: str, port: int) -> None:
        self._command = list(command)
        self._log = folder / f"{name}.log"
        self._port = port
        self.name = name
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def process_id(self) -> int | None:
        """Of the process, while it runs."""
        return None if self._process is None or self._process.poll() is not None else self._process.pid

    def start(self, *, wait: bool = True) -> None:
        """Start it, and wait until it listens.

        Raises
        ------
        GonEdgeError
            It does not start; with its own last words.
        """
        with self._log.open("ab") as log:
            self._process = start_child(self._command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        if wait:
            self.wait()

    def wait(self) -> None:
        """Wait until it listens.

        Raises
        ------
        GonEdgeError
            It does not; with its own last words.
        """
        deadline = time.monotonic() + _START_S
        while self.process_id is not None and time.monotonic() < deadline:
            if self._listens():
                return
            time.sleep(_LOOK_EVERY_S)
        raise GonEdgeError(f"{self.name} did not start: {self.last_words() or 'it said nothing'}")

    def _listens(self) -> bool:
        """Whether the port is its own: another server that has it answers as well."""
        with contextlib.suppress(psutil.Error):
            sockets = psutil.Process(self.process_id).net_connections("tcp")
            return any(each.laddr.port == self._port and each.status == psutil.CONN_LISTEN for each in sockets)
        return False

    def check(self) -> None:
        """Do nothing while it runs.

        Raises
        ------
        GonEdgeError
            It has ended; with its own last words.
        """
        if self.process_id is None:
            raise GonEdgeError(f"{self.name} has ended: {self.last_words() or 'it said nothing'}")

    def last_words(self) -> str:
        """Return the last line of its log."""
        with contextlib.suppress(OSError):
            lines = self._log.read_text(errors="replace").strip().splitlines()
            return lines[-1] if lines else ""
        return ""

    def kill(self) -> None:
        """End it as a power cut of this process would: by SIGKILL."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def freeze(self) -> None:
        """Stop it where it stands."""
        self._signal(signal.SIGSTOP)

    def wake(self) -> None:
        """Have it go on."""
        self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> None:
        if self._process is not None and self.process_id is not None:
            self._process.send_signal(number)

    def ask_to_stop(self) -> None:
        """Have it end in order, without waiting."""
        self.wake()
        self._signal(signal.SIGTERM)

    def stop(self) -> None:
        """End it in order; fine when it has ended or was never started."""
        if self._process is not None:
            self.wake()
            end_child(self._process)


class NatsServer(Server):
    """A NATS server with JetStream and a gateway for MQTT 3.1.1.

    Parameters
    ----------
    folder : Path
        For its configuration, log and streams.
    name : str
        Unique among those of a cluster.
    ports : Ports
    cluster : sequence of Ports
        Of every server of the cluster, its own included; empty where it stands alone.
    store_dir : Path, optional
        Default: a folder beside its configuration.
    """

    def __init__(
        self,
        folder: Path,
        *,
        name: str = "nats-1",
        ports: Ports | None = None,
        cluster: Sequence[Ports] = (),
        store_dir: Path | None = None,
    ) -> None:
        self.ports = ports or Ports.free()
        path = folder / f"{name}.conf"
        path.write_text(nats_conf(name, self.ports, store_dir or folder / name, cluster))
        super().__init__([find_nats_server(), "-c", str(path)], folder, name, self.ports.client)

    @property
    def url(self) -> str:
        """For clients of NATS."""
        return f"nats://127.0.0.1:{self.ports.client}"

    @property
    def mqtt_url(self) -> str:
        """For clients of MQTT 3.1.1."""
        return f"mqtt://127.0.0.1:{self.ports.mqtt}"


class Mosquitto(Server):
    """A mosquitto that hands what devices publish on to NATS, by its own bridge.

    Parameters
    ----------
    folder : Path
        For its configuration, log and queue.
    upstream : sequence of Ports
        Of the NATS servers: the bridge goes to the next one when one is away.
    topics : sequence of str
        Topic filters of what is handed on.
    """

    def __init__(self, folder: Path, upstream: Sequence[Ports], topics: Sequence[str]) -> None:
        self.port = free_port()
        home = folder / "mosquitto"
        home.mkdir(exist_ok=True)
        path = folder / "mosquitto.conf"
        path.write_text(mosquitto_conf(self.port, [each.mqtt for each in upstream], topics, home))
        super().__init__([find_mosquitto(), "-c", str(path)], folder, "mosquitto", self.port)

    @property
    def mqtt_url(self) -> str:
        """For devices, and for whoever looks at alerts."""
        return f"mqtt://127.0.0.1:{self.port}"


def nats_conf(name: str, ports: Ports, store_dir: Path, cluster: Sequence[Ports] = ()) -> str:
    """Return the configuration of one server on loopback.

    Streams and the way of messages into partitions are not in it: workers make them from their own configuration.
    """
    copies = min(3, len(cluster))
    replicas = f", stream_replicas: {copies}" if copies > 1 else ""
    lines = [
        f"server_name: {name}",  # the gateway for MQTT asks for it
        f"listen: 127.0.0.1:{ports.client}",
        f'jetstream {{ store_dir: "{store_dir}", max_mem: 256M, max_file: 8G }}',
        f"mqtt {{ host: 127.0.0.1, port: {ports.mqtt}{replicas} }}",
    ]
    if cluster:
        routes = ", ".join(f"nats://127.0.0.1:{each.cluster}" for each in cluster if each != ports)
        lines.append(f"cluster {{ name: fleet, listen: 127.0.0.1:{ports.cluster}, routes: [{routes}] }}")
    return "\n".join(lines) + "\n"


def mosquitto_conf(port: int, upstream: Sequence[int], topics: Sequence[str], home: Path) -> str:
    """Return the configuration of a mosquitto on loopback that hands these topics on to one of the ports `upstream`."""
    lines = [
        # As root mosquitto changes its user, and the kernel then forgets to kill it with us.
        *(["user root"] if os.geteuid() == 0 else []),
        f"listener {port} 127.0.0.1",
        "allow_anonymous true",
        "persistence true",
        f"persistence_location {home}/",
        "log_dest stderr",
        "log_type error",
        "log_type warning",
        # The default of 1000 would drop, in silence, what it has acknowledged to devices while NATS is away.
        "max_queued_messages 0",
        f"max_queued_bytes {BRIDGE_QUEUE_BYTES}",
        f"max_inflight_messages {BRIDGE_IN_FLIGHT}",
        "connection nats",
        f"addresses {' '.join(f'127.0.0.1:{each}' for each in upstream)}",
        "round_robin false",
        "remote_clientid gon-edge-bridge",  # NATS refuses one with a dot, which many a host's name has
        "bridge_protocol_version mqttv311",  # what NATS speaks
        "bridge_attempt_unsubscribe false",
        "cleansession false",  # what was on the way is sent again
        "try_private false",  # NATS refuses mosquitto's own way of saying that it is a bridge
        "notifications false",
        "restart_timeout 1 5",
        *(f"topic {topic} out 1" for topic in topics),
    ]
    return "\n".join(lines) + "\n"
