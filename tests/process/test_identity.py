"""What tells one machine from another of the same name."""

from __future__ import annotations

import re
from pathlib import Path

from gon_edge.process.identity import machine_code


def machine(tmp_path: Path, machine_id: str = "", address: str = "") -> str:
    (tmp_path / "machine-id").write_text(machine_id)
    for name, written in (("lo", "00:00:00:00:00:00"), ("wlan0", address)):
        (tmp_path / "net" / name).mkdir(parents=True, exist_ok=True)
        (tmp_path / "net" / name / "address").write_text(written + "\n")
    return machine_code((tmp_path / "missing", tmp_path / "machine-id"), tmp_path / "net")


def test_a_code_is_the_same_at_each_start_differs_by_machine_and_does_not_show_the_id(tmp_path):
    one, other = "4a3b" * 8, "4a3c" * 8
    codes = [machine(tmp_path, f"{machine_id}\n") for machine_id in (one, one, other)]
    assert codes[0] == codes[1] != codes[2]
    assert re.fullmatch("[0-9a-f]{8}", codes[0])
    assert codes[0] not in one


def test_without_a_machine_id_the_address_of_the_network_counts(tmp_path):
    codes = [machine(tmp_path, address=address) for address in ("b8:27:eb:00:00:01", "b8:27:eb:00:00:02")]
    assert codes[0] != codes[1]
    assert machine(tmp_path, "uninitialized\n", "b8:27:eb:00:00:01") == codes[0]  # an image before its first boot


def test_where_nothing_tells_it_there_is_no_code(tmp_path):
    assert machine(tmp_path) == ""
