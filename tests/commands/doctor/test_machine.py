"""What is said about the machine."""

from __future__ import annotations

import json

from gon_edge.commands.doctor import machine
from gon_edge.config.file import load_config


def test_a_limit_of_memory_that_nobody_enforces_is_a_warning(settings, tmp_path):
    # nspawn on a host with control groups of version 1: systemd says MemoryMax and the kernel knows nothing of it.
    file = tmp_path / "gon-edge.yaml"
    file.write_text(json.dumps(settings))
    unit = {"ActiveState": "active", "MemoryMax": str(256 << 20), "ControlGroup": "/no/such/group"}
    findings = list(machine.check_memory(load_config(file), unit))
    assert (findings[-1].state, "does not hold" in findings[-1].text) == ("warning", True)
    unit["MemoryMax"] = str(64 << 20)
    assert any("too little for a training" in f.text for f in machine.check_memory(load_config(file), unit))
