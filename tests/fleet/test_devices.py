"""Simulated devices: rows whose number is their time, readings of one kind, and an account of what was sent."""

from __future__ import annotations

import io
import json
import threading
import time
from collections.abc import Callable, Iterator

import numpy as np
import pytest
from e2e.servers import Mosquitto, wait_until

from gon_edge.config.file import parse_config
from gon_edge.fleet.devices import FAULT, NAMES, STOP, Fleet, Readings, body, device_name, settings, simulate
from gon_edge.links.mqtt.queue import Message
from gon_edge.links.publisher import Publisher


def test_devices_are_of_one_kind_and_a_broken_one_is_not() -> None:
    readings = Readings(50, np.random.default_rng(0))
    rows = np.stack([readings.row(number) for number in range(400)])
    broken = np.stack([readings.row(number, faulty=1) for number in range(400, 520)])
    center, spread = rows.mean(axis=(0, 1)), rows.std(axis=(0, 1))
    assert np.all(np.abs(rows.mean(axis=0) - center) < spread)
    shift = (broken[:, 0].mean(axis=0) - center) / spread
    assert np.sum(np.abs(shift) > 1.5) >= 3
    assert np.all(np.abs(broken[:, 1:].mean(axis=(0, 1)) - center) < spread)


def test_the_same_seed_gives_the_same_rows() -> None:
    one, other = (Readings(3, np.random.default_rng(7)) for _ in range(2))
    assert all(np.array_equal(one.row(number), other.row(number)) for number in range(5))


def test_a_row_is_json_with_its_time_and_every_reading() -> None:
    row = json.loads(body(1_700_000_000.5, [float(value) for value in range(8)]))
    assert row == {"time": 1_700_000_000.5, **{name: float(value) for value, name in enumerate(NAMES)}}


class Listened:
    """What the devices of a fleet say of themselves, and what a broker had of them meanwhile."""

    def __init__(self, fleet: Fleet, words: Callable[[list[dict]], Iterator[str]]) -> None:
        broker = parse_config({"mqtt": {"url": fleet.url}, "subscriptions": [{"topic": "{stream}"}]}).mqtt
        self.rows: list[dict] = []
        self.said: list[dict] = []
        out = io.StringIO()
        with Publisher(broker) as listener:
            listener.subscribe(("telemetry/+",), self._take)
            simulation = threading.Thread(target=simulate, args=(fleet, words(self.rows), out))
            simulation.start()
            while simulation.is_alive():
                listener.wait_until(time.monotonic() + 0.02)
            self.said = [json.loads(line) for line in out.getvalue().splitlines()]
            deadline = time.monotonic() + 20.0
            while len(self.rows) < self.said[-1]["sent"] and time.monotonic() < deadline:
                listener.wait_until(time.monotonic() + 0.02)

    def _take(self, message: Message) -> None:
        self.rows.append({"device": message.topic.removeprefix("telemetry/"), **json.loads(message.payload)})

    def of(self, device: int, key: str) -> list[float]:
        return [row[key] for row in self.rows if row["device"] == device_name(device)]


@pytest.mark.e2e
def test_every_row_is_sent_acknowledged_and_numbered_by_its_time(mosquitto: Mosquitto) -> None:
    def silence(rows: list[dict]) -> Iterator[str]:
        wait_until(lambda: len(rows) == 20)
        yield STOP

    fleet = Fleet(mosquitto.url, 5, 1_700_000_000.0, connections=2, rows=4, pace=200.0)
    heard = Listened(fleet, silence)
    assert heard.said[-1] == {"sent": 20, "acknowledged": 20, "refused": 0, "error": "", "rows": [4] * 5}
    for device in range(5):
        assert heard.of(device, "time") == [1_700_000_000.0 + number for number in range(4)]


@pytest.mark.e2e
def test_words_break_a_device_and_end_it_all(mosquitto: Mosquitto) -> None:
    def words(rows: list[dict]) -> Iterator[str]:
        wait_until(lambda: len(rows) >= 40)
        yield FAULT
        wait_until(lambda: len(rows) >= 80)
        yield STOP

    heard = Listened(Fleet(mosquitto.url, 4, 1_700_000_000.0, connections=1, pace=20.0), words)
    assert heard.said[-1]["sent"] == heard.said[-1]["acknowledged"] == sum(heard.said[-1]["rows"]) == len(heard.rows)
    before, after = heard.of(0, "vibration_mm_s")[:9], heard.of(0, "vibration_mm_s")[-5:]
    assert min(after) > max(before)
    assert max(heard.of(1, "vibration_mm_s")) < min(after)


def test_settings_survive_the_way_into_the_process() -> None:
    fleet = Fleet("mqtt://127.0.0.1:1", 7, 5.0, rows=3)
    assert Fleet(**json.loads(settings(fleet))) == fleet
