"""Simulated devices: a process that publishes what hundreds or thousands of pumps would, and accounts for every row.

Each device has eight readings a row that move together, as those of one machine do; all devices are of one kind, so
that one model judges them.  A row's number is its time: row `n` of every device is stamped ``start + n * interval_s``,
so whoever sees verdicts can tell which rows have one.  The devices keep what a broker that is away has not
acknowledged, and send it when it is back.

`simulate` runs in a process of its own (``python -m gon_edge.fleet.devices SETTINGS``): it obeys words on its standard
input (`FAULT`, `STOP`), says every second on its standard output how far it is, and at the end what each device sent.
"""

from __future__ import annotations

import json
import math
import sys
import threading
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import IO

import numpy as np
from numpy.typing import NDArray

from gon_edge.config.file import parse_config
from gon_edge.errors import UnreachableError
from gon_edge.links.publisher import Publisher

NAMES = (
    "flow_l_min",
    "pressure_bar",
    "power_kw",
    "speed_rpm",
    "vibration_mm_s",
    "bearing_c",
    "motor_c",
    "valve_percent",
)

FAULT, STOP = "fault", "stop"

# What each reading is at rest, by how much it follows the load, and its noise: a made pump of 7.5 kW.  Not critical.
_REST = np.array([180.0, 4.2, 5.1, 2900.0, 1.8, 48.0, 61.0, 55.0])
_GAIN = np.array([25.0, -0.5, 0.9, -30.0, 0.25, 3.0, 5.0, 18.0])
_NOISE = np.array([1.5, 0.04, 0.06, 2.5, 0.05, 0.15, 0.2, 0.6])

_FAULT = np.array([0.0, -0.6, 0.9, 0.0, 1.6, 6.0, 2.0, 0.0])
"""What a worn bearing adds.  Not critical: ten times the noise and more, so that any model of these devices sees it."""

_PERIOD_ROWS = 120
"""Rows of one wave of the load.  Not critical: two minutes at one a second, several of which a short look shows."""

_TOGETHER_S = 0.01
"""What is due within this is sent at once: thousands of devices would wake this process for each row.  Not critical."""

_PATIENCE_S = 3600.0
"""How long a broker that is away is waited for.  Not critical: longer than any look."""

_SAY_EVERY_S = 1.0
"""Between two lines that say how far it is.  Not critical."""


@dataclass(frozen=True, slots=True)
class Fleet:
    """What is to be simulated.

    Attributes
    ----------
    url : str
        Of the broker.
    protocol : str
        As ``mqtt.protocol`` of the configuration.
    devices : int
    connections : int
        They are spread over, as over gateways of a site.
    interval_s : float
        Between rows of a device.
    start : float
        Unix seconds of the first row.
    topic : str
        Of a device, with ``{device}`` for its name.
    faulty : int
        Devices that `FAULT` breaks, the first ones.
    seed : int
    rows : int
        After which the devices have nothing more to say; 0 for no end.
    pace : float
        Times faster than their own time that they publish; 1 is real time.
    """

    url: str
    devices: int
    start: float
    protocol: str = "auto"
    connections: int = 4
    interval_s: float = 1.0
    topic: str = "telemetry/{device}"
    faulty: int = 1
    seed: int = 0
    rows: int = 0
    pace: float = 1.0


def device_name(number: int) -> str:
    """Return the name of a device.

    Examples
    --------
    >>> device_name(7)
    'pump-00007'
    """
    return f"pump-{number:05d}"


class Readings:
    """What devices measure, row by row.

    Parameters
    ----------
    devices : int
    rng : numpy Generator
    """

    def __init__(self, devices: int, rng: np.random.Generator) -> None:
        self._rng = rng
        self._phase = rng.uniform(0.0, 2.0 * math.pi, devices)
        self._drift = np.zeros(devices)

    def row(self, number: int, faulty: int = 0) -> NDArray[np.float64]:
        """Return row `number` of every device, shape (devices, 8); the first `faulty` of them are broken."""
        rng, devices = self._rng, len(self._phase)
        self._drift = 0.95 * self._drift + 0.1 * rng.standard_normal(devices)
        load = np.sin(2.0 * math.pi * number / _PERIOD_ROWS + self._phase) + self._drift
        noise = rng.standard_normal((devices, len(NAMES))) * _NOISE
        values: NDArray[np.float64] = _REST + load[:, None] * _GAIN + noise
        values[:faulty] += _FAULT
        return values


def body(timestamp: float, values: Sequence[float]) -> bytes:
    """Return one row as a device writes it.

    Examples
    --------
    >>> body(1700000000.0, [1.5, 2, 3, 4, 5, 6, 7, 8])[:38]
    b'{"time":1700000000.0,"flow_l_min":1.5,'
    """
    parts = ",".join(f'"{name}":{round(value, 3)}' for name, value in zip(NAMES, values, strict=True))
    return f'{{"time":{timestamp!r},{parts}}}'.encode()


def simulate(fleet: Fleet, words: Iterable[str], out: IO[str]) -> None:
    """Publish until `STOP`, the end of `words`, or the last row.

    Parameters
    ----------
    fleet : Fleet
    words : iterable of str
        `FAULT` breaks devices from the next row on, `STOP` ends it.
    out : text file
        Takes a JSON object a line: ``sent``, ``acknowledged``, ``refused`` and ``error``; the last one also has
        ``rows``, how many each device sent.
    """
    asked = _Asked(words)
    gateways = [_Gateway(fleet, number, asked) for number in range(min(fleet.connections, fleet.devices))]
    for gateway in gateways:
        gateway.start()
    while any(gateway.is_alive() for gateway in gateways):
        _say(out, gateways)
        gateways[0].join(_SAY_EVERY_S)
        if not gateways[0].is_alive():
            time.sleep(_SAY_EVERY_S / 10)
    rows = [0] * fleet.devices
    for gateway in gateways:
        for device, count in gateway.rows.items():
            rows[device] = count
    _say(out, gateways, rows)


def _say(out: IO[str], gateways: Sequence[_Gateway], rows: list[int] | None = None) -> None:
    said: dict[str, object] = {
        "sent": sum(gateway.sent for gateway in gateways),
        "acknowledged": sum(gateway.acknowledged for gateway in gateways),
        "refused": sum(gateway.refused for gateway in gateways),
        "error": next((gateway.error for gateway in gateways if gateway.error), ""),
    }
    if rows is not None:
        said["rows"] = rows
    out.write(json.dumps(said) + "\n")
    out.flush()


class _Asked:
    """What the standard input has said so far."""

    def __init__(self, words: Iterable[str]) -> None:
        self.fault = False
        self.stopped = threading.Event()
        threading.Thread(target=self._listen, args=(words,), name="devices words", daemon=True).start()

    def _listen(self, words: Iterable[str]) -> None:
        for word in words:
            if word.strip() == FAULT:
                self.fault = True
            elif word.strip() == STOP:
                break
        self.stopped.set()


class _Gateway(threading.Thread):
    """One connection, and the devices behind it: every ``connections``-th."""

    def __init__(self, fleet: Fleet, number: int, asked: _Asked) -> None:
        super().__init__(name=f"devices {number}", daemon=True)
        self.rows: dict[int, int] = dict.fromkeys(range(number, fleet.devices, fleet.connections), 0)
        self.error = ""
        self._fleet = fleet
        self._asked = asked
        self._publisher: Publisher | None = None
        self._readings = Readings(len(self.rows), np.random.default_rng((fleet.seed, number)))
        self._faulty = len(range(number, fleet.faulty, fleet.connections))

    @property
    def sent(self) -> int:
        return sum(self.rows.values())

    @property
    def acknowledged(self) -> int:
        return self._publisher.acknowledged if self._publisher else 0

    @property
    def refused(self) -> int:
        return self._publisher.refused if self._publisher else 0

    def run(self) -> None:
        fleet = self._fleet
        config = {"mqtt": {"url": fleet.url, "protocol": fleet.protocol}, "subscriptions": [{"topic": "{stream}"}]}
        try:
            with Publisher(parse_config(config).mqtt, patience_s=_PATIENCE_S) as publisher:
                self._publisher = publisher
                self._publish(publisher)
                publisher.drain()
        except UnreachableError as error:
            self.error = str(error)

    def _publish(self, publisher: Publisher) -> None:
        """Publish row after row, each device at its own moment of the interval."""
        fleet, stopped = self._fleet, self._asked.stopped.is_set
        topics = [fleet.topic.format(device=device_name(device)) for device in self.rows]
        step_s = fleet.interval_s / fleet.pace
        began = time.monotonic() + max(0.0, fleet.start - time.time())
        number = 0
        while not stopped() and not (fleet.rows and number >= fleet.rows):
            timestamp = fleet.start + number * fleet.interval_s
            values = self._readings.row(number, self._faulty if self._asked.fault else 0).tolist()
            for at, device in enumerate(self.rows):
                due = began + step_s * (number + device / fleet.devices)
                if due - time.monotonic() > _TOGETHER_S:
                    publisher.wait_until(due)
                publisher.send(topics[at], body(timestamp, values[at]))
                self.rows[device] += 1
            number += 1


def main() -> None:
    """Simulate what the first argument says, as JSON."""
    simulate(Fleet(**json.loads(sys.argv[1])), sys.stdin, sys.stdout)


def settings(fleet: Fleet) -> str:
    """Return the argument of a process that simulates it."""
    return json.dumps(asdict(fleet))


if __name__ == "__main__":
    main()
