"""What nobody could hear is not missing: restarts, a daemon that stood still, a broker that was away."""

from __future__ import annotations

import json
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from e2e.daemons import DaemonProcess, Subscriber
from e2e.servers import Mosquitto, require, wait_until
from gon_edge.state.folder import ModelFolder
from gon_edge.training.fit import fit_model

pytestmark = pytest.mark.e2e

INTERVAL_S = 0.1
SETTINGS = {
    "subscriptions": [{"topic": "telemetry/{stream}"}],
    "streams": {"defaults": {"interval": "100ms", "max_gap": "2s"}},
}


class Machine:
    """Publishes `fast` ten times a second and `slow` every fourth time, over one connection after the other."""

    def __init__(self, broker: Mosquitto) -> None:
        self.slow = True
        self._ended = threading.Event()
        self._command = [require("mosquitto_pub"), "-p", str(broker.port), "-q", "1", "-t", "telemetry/pump", "-l"]
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        sent = 0
        while not self._ended.is_set():
            said = subprocess.DEVNULL
            with subprocess.Popen(self._command, stdin=subprocess.PIPE, stdout=said, stderr=said) as publisher:
                assert publisher.stdin is not None
                with suppress(OSError):
                    while not self._ended.wait(INTERVAL_S):
                        values = {"fast": 20.0 + sent % 7} | (
                            {"slow": sent // 4 % 5} if self.slow and sent % 4 == 0 else {}
                        )
                        publisher.stdin.write(json.dumps(values).encode() + b"\n")
                        publisher.stdin.flush()
                        sent += 1
                with suppress(OSError):
                    publisher.stdin.close()
                publisher.terminate()

    def stop(self) -> None:
        self._ended.set()
        self._thread.join(30)


@contextmanager
def running(broker: Mosquitto) -> Iterator[Machine]:
    machine = Machine(broker)
    try:
        yield machine
    finally:
        machine.stop()


def missing(subscriber: Subscriber) -> list[dict[str, Any]]:
    return [event for event in subscriber.events() if event["kind"] == "missing"]


def away_s(daemon: DaemonProcess, reason: str) -> float:
    return daemon.metrics()[f'gon_edge_away_seconds_total{{reason="{reason}"}}']


def rows(daemon: DaemonProcess) -> float:
    return daemon.metric('gon_edge_rows_total{stream="pump"}') or 0.0


def more_rows(daemon: DaemonProcess, count: int) -> None:
    before = rows(daemon)
    wait_until(lambda: rows(daemon) > before + count, 20, f"{count} more rows")


@pytest.mark.slow  # twenty seconds of readings and silences at their pace
def test_what_nobody_could_hear_is_not_missing_and_a_machine_that_stops_is(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    readings = np.stack([20.0 + np.arange(600) % 7, np.arange(600) // 4 % 5], axis=1) + rng.normal(0, 0.1, (600, 2))
    model = fit_model(readings.astype(np.float32), features=["fast", "slow"], rng=rng)
    broker = Mosquitto(tmp_path / "broker", persistence=True).start()
    daemon = DaemonProcess(tmp_path, broker, **SETTINGS)
    ModelFolder(daemon.state_dir).install("pump", model)
    subscriber = Subscriber(broker, "gon-edge/pi-1/alert", tmp_path)
    try:
        with daemon.connected(), running(broker) as machine:
            more_rows(daemon, 35)  # `slow` has come often enough to be known

            machine.slow = False
            daemon.stop()
            daemon.connected()
            more_rows(daemon, 5)  # a restart: `slow` has not come yet
            machine.slow = True
            more_rows(daemon, 5)

            assert daemon.process is not None
            daemon.process.send_signal(signal.SIGSTOP)
            time.sleep(3.6)  # what is tested takes time: less is no standstill
            daemon.process.send_signal(signal.SIGCONT)
            wait_until(lambda: away_s(daemon, "asleep") > 3.0, 10, "the standstill")
            more_rows(daemon, 5)

            offline_s = away_s(daemon, "offline")
            broker.stand_still(4.5)  # no connection ends, and nothing comes for longer than a silence may be
            wait_until(lambda: away_s(daemon, "offline") > offline_s + 3.0, 10, "the silence of the broker")
            more_rows(daemon, 5)

            offline_s = away_s(daemon, "offline")
            subscriber.stop()
            broker.kill()
            time.sleep(2.5)  # longer than a silence may be
            broker.start()
            subscriber = Subscriber(broker, "gon-edge/pi-1/alert", tmp_path)
            wait_until(lambda: away_s(daemon, "offline") > offline_s + 2.0, 15, "the connection")
            more_rows(daemon, 5)
            assert "alert new missing" not in daemon.log
            assert "I was away" in daemon.log

            machine.stop()
            (event,) = wait_until(lambda: missing(subscriber), 15, "the alert")
            assert (event["type"], event["severity"], event["stream"]) == ("new", "critical", "pump")
    finally:
        subscriber.stop()
        broker.stop()
