"""This machine's telemetry: real readings, and rates that are rates."""

from __future__ import annotations

import math
import multiprocessing
import os
from collections import namedtuple
from pathlib import Path

import psutil
import pytest
from e2e.servers import wait_until

from gon_edge.process import host
from gon_edge.process.host import HostTelemetry

Core = namedtuple("Core", "user system idle iowait guest guest_nice", defaults=(0.0, 0.0, 0.0))
Disk = namedtuple("Disk", "read_bytes write_bytes")
Card = namedtuple("Card", "bytes_recv bytes_sent")


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def counters(monkeypatch: pytest.MonkeyPatch) -> dict[str, object]:
    """The kernel's counters, which a test sets; everything else is the machine's own."""
    state: dict[str, object] = {
        "cores": [Core(10.0, 0.0, 90.0)],
        "disk": Disk(0, 0),
        "cards": {"lo": Card(0, 0), "eth0": Card(0, 0)},
    }
    monkeypatch.setattr(psutil, "cpu_times", lambda percpu: state["cores"])
    monkeypatch.setattr(psutil, "disk_io_counters", lambda: state["disk"])
    monkeypatch.setattr(psutil, "net_io_counters", lambda pernic: state["cards"])
    return state


def test_a_real_sample_has_finite_values_in_their_ranges() -> None:
    telemetry = HostTelemetry()
    values = wait_until(lambda: v if "cpu.total" in (v := telemetry.sample()) else None)
    assert all(math.isfinite(value) for value in values.values())
    assert {f"cpu.core{i}" for i in range(psutil.cpu_count())} <= values.keys()
    assert {"load.1m", "memory.used_percent", "memory.available_mib", "disk.used_percent"} <= values.keys()
    for name in values:
        if name.startswith("cpu.core") or name.endswith("_percent") or name == "cpu.total":
            assert 0.0 <= values[name] <= 100.0, name


def test_the_first_sample_taken_at_once_has_no_rates() -> None:
    values = HostTelemetry(Clock()).sample()
    assert not [name for name in values if name.startswith(("cpu.core", "disk.read", "disk.write", "net."))]
    assert "memory.used_percent" in values


def test_rates_are_means_since_the_sample_before(counters: dict[str, object]) -> None:
    clock = Clock()
    telemetry = HostTelemetry(clock)
    clock.now += 2.0
    counters["cores"] = [Core(11.5, 0.0, 90.5)]
    counters["disk"] = Disk(4 << 20, 1 << 20)
    counters["cards"] = {"lo": Card(10**9, 10**9), "eth0": Card(2048, 0)}
    values = telemetry.sample()
    assert values["cpu.core0"] == values["cpu.total"] == 75.0
    assert (values["disk.read_mib_s"], values["disk.write_mib_s"]) == (2.0, 0.5)
    assert (values["net.rx_kib_s"], values["net.tx_kib_s"]) == (1.0, 0.0)


def test_waiting_for_the_disk_is_not_busy_and_guests_count_once(counters: dict[str, object]) -> None:
    clock = Clock()
    counters["cores"] = [Core(0.0, 0.0, 0.0, iowait=0.0, guest=0.0)]
    telemetry = HostTelemetry(clock)
    clock.now += 10.0
    counters["cores"] = [Core(4.0, 0.0, 3.0, iowait=3.0, guest=4.0)]  # Linux: the 4 s of user are those of the guest
    assert telemetry.sample()["cpu.total"] == 40.0


def test_an_interface_that_disappears_makes_no_negative_rate(counters: dict[str, object]) -> None:
    clock = Clock()
    counters["cards"] = {"eth0": Card(10_000, 10_000)}
    telemetry = HostTelemetry(clock)
    clock.now += 1.0
    counters["cards"] = {"eth1": Card(10, 10)}
    assert "net.rx_kib_s" not in telemetry.sample()
    clock.now += 1.0
    counters["cards"] = {"eth1": Card(10 + 1024, 10)}
    assert telemetry.sample()["net.rx_kib_s"] == 1.0


def test_a_core_switched_off_costs_one_sample_of_cpu_shares(counters: dict[str, object]) -> None:
    clock = Clock()
    counters["cores"] = [Core(0.0, 0.0, 0.0), Core(0.0, 0.0, 0.0)]
    telemetry = HostTelemetry(clock)
    for expected in (False, True):
        clock.now += 1.0
        counters["cores"] = [Core(clock.now, 0.0, 0.0)]
        assert ("cpu.core0" in telemetry.sample()) is expected


def test_pressure_is_the_share_of_time_something_waited(
    counters: dict[str, object], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    pressure = tmp_path / "cpu"
    monkeypatch.setattr(host, "_PRESSURE", pressure)
    clock = Clock()
    pressure.write_text("some avg10=0.00 avg60=0.00 avg300=0.00 total=1000000\nfull avg10=0.00 total=0\n")
    telemetry = HostTelemetry(clock)
    clock.now += 2.0
    pressure.write_text("some avg10=9.00 avg60=0.00 avg300=0.00 total=1500000\nfull avg10=0.00 total=0\n")
    assert telemetry.sample()["cpu.pressure_percent"] == 25.0
    clock.now += 1.0
    pressure.unlink()
    assert "cpu.pressure_percent" not in telemetry.sample()


def test_what_the_machine_does_not_have_is_absent(monkeypatch: pytest.MonkeyPatch) -> None:
    def not_there(*_: object, **__: object) -> None:
        raise FileNotFoundError("/sys/...")

    for name in ("disk_io_counters", "net_io_counters", "cpu_freq", "sensors_temperatures"):
        monkeypatch.setattr(psutil, name, not_there)
    clock = Clock()
    telemetry = HostTelemetry(clock)
    clock.now += 1.0
    values = telemetry.sample()
    assert "cpu.total" in values
    assert not [name for name in values if name.startswith(("net.", "temperature.", "disk.read", "cpu.freq"))]


def test_temperatures_are_named_after_chip_and_label(monkeypatch: pytest.MonkeyPatch) -> None:
    sensor = namedtuple("Sensor", "label current")
    chips = {"cpu_thermal": [sensor("", 48.3)], "coretemp": [sensor("Core 0", 51.0), sensor("Core 1", math.nan)]}
    monkeypatch.setattr(psutil, "sensors_temperatures", lambda: chips)
    values = HostTelemetry().sample()
    assert values["temperature.cpu_thermal"] == 48.3
    assert values["temperature.coretemp.core_0"] == 51.0
    assert "temperature.coretemp.core_1" not in values


def _burn(stop: multiprocessing.synchronize.Event) -> None:
    while not stop.is_set():
        sum(range(10_000))


def test_a_busy_core_shows() -> None:
    stop = multiprocessing.Event()
    burners = [multiprocessing.Process(target=_burn, args=(stop,)) for _ in range(len(os.sched_getaffinity(0)))]
    telemetry = HostTelemetry()
    for burner in burners:
        burner.start()
    try:
        wait_until(lambda: telemetry.sample().get("cpu.total", 0.0) > 80.0, 30.0, "a share of 80 %")
    finally:
        stop.set()
        for burner in burners:
            burner.join()
