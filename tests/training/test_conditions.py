"""What the machine says about itself, read from recorded trees of files."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from gon_edge.training.conditions import Conditions


def machine(root: Path, files: dict[str, str]) -> Conditions:
    for name, text in files.items():
        path = root / "sys" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")
    return Conditions(root, vcgencmd="/nonexistent")


def test_a_machine_that_says_nothing_is_fine(tmp_path: Path) -> None:
    conditions = machine(tmp_path, {})
    assert conditions.celsius() is None
    assert not conditions.on_battery()
    assert not conditions.throttled()


def test_the_hottest_zone_counts_and_one_that_is_off_does_not(tmp_path: Path) -> None:
    zones = {f"class/thermal/thermal_zone{i}/temp": text for i, text in enumerate(("41200", "67350", "-274000", "x"))}
    assert machine(tmp_path, zones).celsius() == 67.35


@pytest.mark.parametrize(
    ("supplies", "expected"),
    [
        ({"BAT0/type": "Battery", "BAT0/status": "Discharging"}, True),
        ({"BAT0/type": "Battery", "BAT0/status": "Charging"}, False),
        ({"BAT0/type": "Battery", "BAT0/status": "Discharging", "AC/type": "Mains", "AC/online": "1"}, False),
        ({"BAT0/type": "Battery", "BAT0/status": "Discharging", "AC/type": "Mains", "AC/online": "0"}, True),
        ({"AC/type": "Mains", "AC/online": "0"}, False),
    ],
)
def test_on_battery(tmp_path: Path, supplies: dict[str, str], expected: bool) -> None:
    assert machine(tmp_path, {f"class/power_supply/{k}": v for k, v in supplies.items()}).on_battery() is expected


@pytest.mark.parametrize(("flags", "expected"), [("0", False), ("50005", True), ("50000", False), ("0x8", True)])
def test_only_what_is_throttled_now_counts(tmp_path: Path, flags: str, expected: bool) -> None:
    file = "devices/platform/soc/soc:firmware/get_throttled"
    assert machine(tmp_path, {file: flags}).throttled() is expected


def test_a_voltage_that_is_too_low_is_seen_by_the_kernels_sensor(tmp_path: Path) -> None:
    files = {"class/hwmon/hwmon2/name": "rpi_volt", "class/hwmon/hwmon2/in0_lcrit_alarm": "1"}
    assert machine(tmp_path, files).throttled()


def test_the_firmware_is_asked_where_the_kernel_does_not_say(tmp_path: Path) -> None:
    program = tmp_path / "vcgencmd"
    program.write_text("#!/bin/sh\necho throttled=0x50005\n")
    program.chmod(0o755)
    assert Conditions(tmp_path, vcgencmd=str(program)).throttled()


def test_a_program_that_hangs_is_not_waited_for(tmp_path: Path) -> None:
    program = tmp_path / "vcgencmd"
    program.write_text("#!/bin/sh\nexec sleep 60\n")
    program.chmod(0o755)
    began = time.monotonic()
    assert not Conditions(tmp_path, vcgencmd=str(program)).throttled()
    assert time.monotonic() - began < 10.0


def test_this_machine_has_a_load() -> None:
    assert Conditions().load_per_core() >= 0.0
