"""A whole fleet on this machine, as processes: servers, workers and simulated devices that end with this process.

`up` shows one, ``tools/bench_fleet.py`` measures one, and tests break one.  All devices are of one kind: a model is
learned from simulated rows before anything starts, and every stream is scored by it as soon as its window is full.
"""

from __future__ import annotations

import contextlib
import json
import math
import subprocess
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from gon_edge.config.file import parse_config
from gon_edge.config.schema import Config
from gon_edge.demo.broker import free_port
from gon_edge.errors import GonEdgeError
from gon_edge.estimator import GONDetector
from gon_edge.fleet.connection import connect
from gon_edge.fleet.devices import FAULT, NAMES, STOP, Fleet, Readings, settings
from gon_edge.fleet.jetstream import Fleet as JetStream
from gon_edge.fleet.servers import Mosquitto, NatsServer, Ports, Server
from gon_edge.links.client import DaemonApi
from gon_edge.model.file import load_model, save_model
from gon_edge.process.child import end_child, python, start_child

WINDOW = 20
"""Rows a model sees.  Not critical: a third of a minute, so that a short look shows verdicts."""

_TRAINED_ON = (8, 300)  # devices, rows.  Not critical: more learn the same
_DRAIN_S = 120.0
"""Until the devices' last rows are acknowledged.  Not critical: longer than a server takes to come back."""


@dataclass(frozen=True, slots=True)
class SiteSettings:
    """What a site is made of.

    Attributes
    ----------
    servers : int
        NATS servers: 1, or 3 that keep everything three times.
    direct : bool
        Devices speak MQTT 3.1.1 to NATS itself, without mosquitto and its bridge.
    partitions : int
    interval_s : float
        Between rows of a device.
    takeover_s, save_every_s, retention_s : float
        As in the section ``fleet`` of the configuration.
    store_dir : Path, optional
        Where the first server keeps its streams.  Default: in the site's folder.
    streams : mapping
        More options for ``streams.defaults``.
    """

    servers: int = 1
    direct: bool = False
    partitions: int = 8
    interval_s: float = 1.0
    takeover_s: float = 3.0
    save_every_s: float = 10.0
    retention_s: float = 900.0
    store_dir: Path | None = None
    streams: Mapping[str, Any] = field(default_factory=dict)


class Worker(Server):
    """A worker process.

    Parameters
    ----------
    folder : Path
    name : str
    config : Path
    port : int
        Of its metrics.
    """

    def __init__(self, folder: Path, name: str, config: Path, port: int) -> None:
        command = python("-m", "gon_edge", "fleet", "worker", "--config", str(config), "--name", name)
        super().__init__(command, folder, name, port)
        self.api = DaemonApi(f"http://127.0.0.1:{port}")


class Site:
    """The processes of one fleet.

    Parameters
    ----------
    folder : Path
        For everything; the caller's to remove.
    settings : SiteSettings

    Attributes
    ----------
    nats : list of NatsServer
    mosquitto : Mosquitto or None
    workers : dict of str to Worker
        All that were ever started, by name.
    devices : Devices or None

    Raises
    ------
    GonEdgeError
        A program is not installed; says the line to type.
    """

    def __init__(self, folder: Path, settings: SiteSettings | None = None) -> None:
        self.settings = settings or SiteSettings()
        self.folder = folder
        ports = [Ports.free() for _ in range(self.settings.servers)]
        cluster = ports if len(ports) > 1 else ()
        self.nats = [
            NatsServer(
                folder,
                name=f"nats-{number}",
                ports=own,
                cluster=cluster,
                store_dir=self.settings.store_dir if number == 1 else None,
            )
            for number, own in enumerate(ports, 1)
        ]
        self.mosquitto = None if self.settings.direct else Mosquitto(folder, ports, ["telemetry/#"])
        self.workers: dict[str, Worker] = {}
        self.devices: Devices | None = None

    @property
    def broker_url(self) -> str:
        """Of the broker that devices and listeners to alerts speak to."""
        return self.nats[0].mqtt_url if self.mosquitto is None else self.mosquitto.mqtt_url

    @property
    def protocol(self) -> str:
        """What it speaks, as ``mqtt.protocol``."""
        return "3.1.1" if self.mosquitto is None else "5"

    def config(self, port: int | None = None) -> dict[str, Any]:
        """Return the configuration of a worker; without a port it has no metrics."""
        chosen = self.settings
        return {
            "state_dir": str(self.folder / "state"),
            "mqtt": {"url": self.broker_url, "protocol": self.protocol},
            "subscriptions": [{"topic": "telemetry/{stream}", "timestamp": "time"}],
            "http": {"listen": "off" if port is None else f"127.0.0.1:{port}"},
            "fleet": {
                "servers": [each.url for each in self.nats],
                "partitions": chosen.partitions,
                "replicas": min(3, len(self.nats)),
                "takeover": chosen.takeover_s,
                "save_every": chosen.save_every_s,
                "retention": chosen.retention_s,
            },
            "limits": {"streams": 100_000},
            "streams": {
                "defaults": {
                    "interval": chosen.interval_s,
                    "window": WINDOW,
                    "model": str(self.folder / "pumps.npz"),
                    "warmup_rows": 50_000,  # the model of their kind is all they need
                    **chosen.streams,
                }
            },
        }

    def parsed(self) -> Config:
        """Return the configuration that all workers share."""
        return parse_config(self.config())

    def start(self) -> None:
        """Learn the model, and start the servers.

        Raises
        ------
        GonEdgeError
            One of them does not start.
        """
        learn_kind(self.folder / "pumps.npz", WINDOW)
        for server in self.nats:
            server.start(wait=False)
        for server in self.nats:
            server.wait()
        if self.mosquitto is not None:
            self.mosquitto.start()

    def add_worker(self, name: str | None = None) -> Worker:
        """Start one more worker; it is ready when it has listed itself."""
        name = name or f"worker-{len(self.workers) + 1}"
        port = free_port()
        path = self.folder / f"{name}.yaml"
        path.write_text(yaml.safe_dump(self.config(port), sort_keys=False))
        worker = self.workers[name] = Worker(self.folder, name, path, port)
        worker.start(wait=False)
        return worker

    def add_workers(self, count: int) -> None:
        """Start so many workers at once."""
        for _ in range(count):
            self.add_worker()

    def add_devices(
        self, count: int, *, rows: int = 0, connections: int = 4, seed: int = 0, pace: float = 1.0
    ) -> Devices:
        """Start simulated devices, see `devices.Fleet`; their first row is at the next second but one."""
        fleet = Fleet(
            self.broker_url,
            count,
            math.floor(time.time()) + 2.0,
            protocol=self.protocol,
            connections=connections,
            interval_s=self.settings.interval_s,
            faulty=max(1, count // 100),
            seed=seed,
            rows=rows,
            pace=pace,
        )
        self.devices = Devices(fleet)
        return self.devices

    async def connect(self) -> JetStream:
        """Connect to JetStream as those do who look.

        Raises
        ------
        UnreachableError
            There is none.
        """
        config = self.parsed()
        return JetStream(await connect(config.fleet, "look"), config)

    def check(self) -> None:
        """Do nothing while every server runs; raises `GonEdgeError` with the last words of one that does not."""
        for server in (*self.nats, *([self.mosquitto] if self.mosquitto else [])):
            server.check()

    def stop(self) -> None:
        """End everything, workers first, so that they save what they know."""
        with contextlib.suppress(GonEdgeError):
            if self.devices is not None:
                self.devices.end()
        self.stop_workers()
        for server in (*([self.mosquitto] if self.mosquitto else []), *self.nats):
            server.stop()

    def stop_workers(self) -> None:
        """End the workers, which save what they know before."""
        for worker in self.workers.values():
            worker.ask_to_stop()
        for worker in self.workers.values():
            worker.stop()


class Devices:
    """Simulated devices as a process.

    Parameters
    ----------
    fleet : Fleet

    Attributes
    ----------
    said : dict
        The newest line, see `devices.simulate`.
    """

    def __init__(self, fleet: Fleet) -> None:
        self.fleet = fleet
        self.said: dict[str, Any] = {"sent": 0, "acknowledged": 0, "refused": 0, "error": ""}
        self._process = start_child(
            python("-m", "gon_edge.fleet.devices", settings(fleet)), stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        self._reader = threading.Thread(target=self._read, name="devices account", daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self.said = json.loads(line)

    @property
    def process_id(self) -> int:
        """Of the process."""
        return self._process.pid

    @property
    def done(self) -> bool:
        """Whether every row is sent and acknowledged."""
        return "rows" in self.said

    def break_some(self) -> None:
        """Have one in a hundred of them behave as if a bearing was worn."""
        self._tell(FAULT)

    def silence(self) -> None:
        """Have them end with this row."""
        self._tell(STOP)

    def finish(self, timeout_s: float = _DRAIN_S) -> list[int]:
        """Wait for the last acknowledgement; return how many rows each device sent.

        Raises
        ------
        GonEdgeError
            The devices have ended before that.
        """
        self.silence()
        self._reader.join(timeout_s)
        if not self.done:
            raise GonEdgeError(f"the simulated devices did not end: {self.said}")
        rows: list[int] = self.said["rows"]
        return rows

    def end(self) -> None:
        """End the process, whatever it has still to send."""
        end_child(self._process)

    def _tell(self, word: str) -> None:
        assert self._process.stdin is not None
        with contextlib.suppress(OSError, ValueError):
            self._process.stdin.write(f"{word}\n".encode())
            self._process.stdin.flush()


def learn_kind(path: Path, window: int) -> None:
    """Learn the model of these devices from simulated rows, and write it: a second of work.

    Parameters
    ----------
    path : Path
    window : int
        Rows.
    """
    devices, rows = _TRAINED_ON
    readings = Readings(devices, np.random.default_rng(0))
    series = np.stack([readings.row(number) for number in range(rows)], axis=1)  # (devices, rows, features)
    restart = np.zeros(devices * rows, dtype=bool)
    restart[::rows] = True
    GONDetector(window, random_state=0).fit(series.reshape(devices * rows, len(NAMES)), restart=restart).save(path)
    save_model(replace(load_model(path), features=NAMES), path)
