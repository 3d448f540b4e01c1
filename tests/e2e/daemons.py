"""A real daemon in a process of its own, for end-to-end tests."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from e2e.servers import Mosquitto, free_port, require, wait_until

FEATURES = ("flow", "pressure", "current", "temperature")


class DaemonProcess:
    """``gon-edge run`` with a configuration, state directory and HTTP port of its own.

    Parameters
    ----------
    folder : Path
    broker : Mosquitto
    settings : mapping
        Sections that replace the default ones.
    """

    def __init__(self, folder: Path, broker: Mosquitto, **settings: Any) -> None:
        self.state_dir = folder / "state"
        self.port = free_port()
        self.log_path = folder / "daemon.log"
        self.config = folder / "config.yaml"
        config = {
            "node": "pi-1",
            "state_dir": str(self.state_dir),
            "mqtt": {"url": broker.url, "reconnect_max": "1s"},
            "subscriptions": [{"topic": "telemetry/{stream}", "timestamp": "time"}],
            "http": {"listen": f"127.0.0.1:{self.port}"},
            "streams": {"defaults": {"warmup_rows": 300}},
            **settings,
        }
        # At nice 19 a training would wait for ever beside other tests that are busy.
        config["retrain"] = {"nice": 0, **settings.get("retrain", {})}
        self.config.write_text(json.dumps(config))  # JSON is YAML
        self.process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> DaemonProcess:
        return self if self.process is not None else self.start()

    def __exit__(self, *_: object) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait(60)

    @property
    def log(self) -> str:
        return self.log_path.read_text(errors="replace")

    def start(self, within: Callable[[list[str]], list[str]] = lambda command: command) -> DaemonProcess:
        """Start and wait until it answers, with a broker or without; ``within`` puts a command before it."""
        with self.log_path.open("ab") as log:
            command = within([sys.executable, "-m", "gon_edge", "run", "--config", str(self.config)])
            self.process = subprocess.Popen(command, stderr=log, stdin=subprocess.DEVNULL)
        wait_until(lambda: self.process.poll() is not None or self.get("/readyz")[0] == 200, 20, "the daemon's start")
        assert self.process.poll() is None, self.log
        return self

    def connected(self) -> DaemonProcess:
        """Start unless it runs, and wait until it has its broker."""
        if self.process is None or self.process.poll() is not None:
            self.start()
        wait_until(lambda: self.metric("gon_edge_mqtt_connected") == 1.0, 15, "the connection")
        return self

    def stop(self) -> int:
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(60)

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait(60)

    def get(self, path: str) -> tuple[int, str]:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=5) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()
        except OSError:
            return 0, ""

    def metrics(self) -> dict[str, float]:
        lines = self.get("/metrics")[1].splitlines()
        return {x.rpartition(" ")[0]: float(x.rpartition(" ")[2]) for x in lines if not x.startswith("#")}

    def metric(self, name: str) -> float | None:
        return self.metrics().get(name)

    def messages(self, result: str) -> float:
        return self.metrics().get(f'gon_edge_messages_total{{result="{result}"}}', 0.0)

    def stream(self, name: str) -> dict[str, Any]:
        streams = json.loads(self.get("/api/v1/streams")[1] or '{"streams": []}')["streams"]
        return next((stream for stream in streams if stream["stream"] == name), {})

    def wait_for_state(self, stream: str, state: str, timeout_s: float = 40.0) -> None:
        wait_until(lambda: self.stream(stream).get("state") == state, timeout_s, f"{stream} being {state}")


class Subscriber:
    """What the daemon publishes, collected by a real mosquitto_sub."""

    def __init__(self, broker: Mosquitto, topic: str, folder: Path) -> None:
        self._path = folder / f"sub-{topic.replace('/', '_').replace('+', 'x').replace('#', 'y')}.log"
        with self._path.open("wb") as out:
            program = require("mosquitto_sub")
            command = [program, "-p", str(broker.port), "-q", "1", "-t", topic, "-t", "probe", "-v"]
            self._process = subprocess.Popen(command, stdout=out, stdin=subprocess.DEVNULL)
        self._broker, self._probes = broker, 0
        self.connected()

    def connected(self) -> None:
        """Wait until it hears of the broker: what comes before, also after a restart of the broker, it never sees."""
        self._probes += 1
        line = f"probe {self._probes}\n".encode()
        heard = lambda: self._broker.publish("probe", str(self._probes)) or line in self._path.read_bytes()  # noqa: E731
        wait_until(heard, 10, "mosquitto_sub")

    def events(self) -> list[dict[str, Any]]:
        lines = self._path.read_text().splitlines()
        return [json.loads(line.partition(" ")[2]) for line in lines if not line.startswith("probe")]

    def stop(self) -> None:
        self._process.kill()
        self._process.wait(60)


def rows(count: int, *, start: float = 1_700_000_000.0, seed: int = 0, fault: float = 0.0) -> Iterator[str]:
    """JSON rows, one a second, of four sensors that hang together; ``fault`` is added to ``flow``."""
    rng = np.random.default_rng(seed)
    load = 0.0
    for i in range(count):
        load = 0.9 * load + rng.normal()
        noise = rng.normal(size=4) * 0.2
        values = np.array([20.0, 3.0, 1.2, 45.0]) + np.array([1.0, 0.2, 0.1, 0.5]) * load + noise * [1.0, 0.2, 0.1, 0.5]
        values[0] += fault
        row = {"time": start + i, **dict(zip(FEATURES, values.round(4).tolist(), strict=True))}
        yield json.dumps(row)
