"""What the doctor says about installations in which one thing is wrong."""

from __future__ import annotations

import json
import os
import pwd
import struct
import subprocess
import sys
from pathlib import Path

import pytest
from e2e.daemons import DaemonProcess, rows
from e2e.servers import Mosquitto, free_port, wait_until

from gon_edge.commands import doctor
from gon_edge.commands.doctor import Finding, examine
from gon_edge.config.file import load_config


@pytest.fixture
def settings(tmp_path: Path) -> dict[str, object]:
    """A configuration whose broker is not there."""
    return {
        "node": "pi-1",
        "state_dir": str(tmp_path / "state"),
        "mqtt": {"url": f"mqtt://127.0.0.1:{free_port()}"},
        "subscriptions": [{"topic": "telemetry/{stream}"}],
        "http": {"listen": f"127.0.0.1:{free_port()}"},
    }


@pytest.fixture
def look(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Run all checks on a configuration, on a machine without a service; findings of some of them."""
    monkeypatch.setattr(doctor, "_unit", dict)

    def look(settings: dict[str, object], *checks: str) -> list[Finding]:
        file = tmp_path / "gon-edge.yaml"
        file.write_text(json.dumps(settings))
        return [finding for finding in examine(file, {}) if finding.check in checks]

    return look


def states(findings: list[Finding]) -> list[str]:
    return [finding.state for finding in findings]


def test_a_wrong_configuration_is_a_fault_and_the_clock_is_still_looked_at(look, settings):
    findings = look({**settings, "mqtt_url": "x"}, "configuration", "clock", "broker")
    assert [finding.check for finding in findings] == ["configuration", "clock"]
    assert (findings[0].state, "mqtt_url" in findings[0].text) == ("fault", True)


def test_a_broker_that_is_down_is_a_fault_with_its_address(look, settings):
    (finding,) = look(settings, "broker")
    assert (finding.state, settings["mqtt"]["url"] in finding.text) == ("fault", True)
    assert finding.advice


def test_a_stopped_daemon_is_a_warning_where_no_service_should_run_it(look, settings):
    assert states(look(settings, "daemon")) == ["warning"]


def test_a_state_directory_that_cannot_be_made_is_a_fault(look, settings, tmp_path):
    if os.geteuid() == 0:
        user = pwd.getpwnam("nobody")
        config = load_config(tmp_path / "gon-edge.yaml") if look(settings) == [] else None
        (finding,) = doctor._check_state(config, user)
        assert (finding.state, "nobody" in finding.text) == ("fault", True)
    else:
        tmp_path.chmod(0o500)
        assert states(look(settings, "state")) == ["fault"]


def test_files_of_another_user_in_the_state_directory_are_a_fault(look, settings, tmp_path):
    if os.geteuid() != 0:
        pytest.skip("only root can make files of another user; type: root")
    user = pwd.getpwnam("nobody")
    state = tmp_path / "state"
    state.mkdir()
    os.chown(state, user.pw_uid, user.pw_gid)
    (state / "state.db").write_bytes(b"")
    findings = look(settings, "state")
    assert (findings[0].state, "nobody cannot write" in findings[0].text) == ("fault", True)
    assert "chown" in findings[0].advice


def test_rights_by_an_access_list_count(tmp_path):
    # systemd 257 hands credentials over with one; the mode alone says that only root may read.
    if os.geteuid() != 0:
        pytest.skip("only root can make files of another user; type: root")
    user = pwd.getpwnam("nobody")
    file = Path("/tmp") / f"gon-edge-{os.getpid()}"  # a folder that everybody may enter
    file.touch(0o440)
    try:
        assert not doctor._may(user, file, 4)
        # acl(5): owner r, nobody r, group none, mask r, others none
        entries = [(1, 4, 2**32 - 1), (2, 4, user.pw_uid), (4, 0, 2**32 - 1), (16, 4, 2**32 - 1), (32, 0, 2**32 - 1)]
        try:
            acl = struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries)
            os.setxattr(file, "system.posix_acl_access", acl)
        except OSError:
            pytest.skip("this file system has no access lists")
        assert doctor._may(user, file, 4)
        assert not doctor._may(user, file, 6)
    finally:
        file.unlink()


def test_a_damaged_model_is_a_fault_and_one_with_a_copy_a_warning(look, settings, tmp_path):
    for stream, names in (("alone", ["model.npz"]), ("backed", ["model.npz", "model-1.npz"])):
        folder = tmp_path / "state" / "models" / stream
        folder.mkdir(parents=True)
        for name in names:
            (folder / name).write_bytes(b"damaged")
    assert states(look(settings, "models"))[:2] == ["fault", "warning"]


def test_a_password_everybody_can_read_or_that_is_missing_is_said(look, settings, tmp_path):
    file = tmp_path / "password"
    settings["mqtt"] |= {"username": "pi-1", "password_file": str(file)}
    (finding,) = look(settings, "secrets")
    assert (finding.state, str(file) in finding.text) == ("fault", True)
    file.write_text("secret")
    file.chmod(0o644)
    (finding,) = look(settings, "secrets")
    assert (finding.state, finding.advice) == ("warning", f"chmod o= {file}")
    file.chmod(0o600)
    assert states(look(settings, "secrets")) == ["ok"]
    assert "secret\n" not in "".join(f.text for f in look(settings, "secrets", "broker"))


def test_readings_shown_to_the_network_are_a_warning(settings, tmp_path):
    file = tmp_path / "gon-edge.yaml"
    daemon = {"node": "pi-1", "uptime_s": 10.0, "rss_bytes": 1 << 20, "streams": [{"stream": "s", "state": "scoring"}]}
    for listen, expected in (("127.0.0.1:9109", ["ok"]), ("0.0.0.0:9109", ["ok", "warning"]), ("[::1]:9109", ["ok"])):
        file.write_text(json.dumps({**settings, "http": {"listen": listen}}))
        assert states(list(doctor._check_daemon(load_config(file), daemon, {}))) == expected


def test_a_limit_of_memory_that_nobody_enforces_is_a_warning(settings, tmp_path):
    # nspawn on a host with control groups of version 1: systemd says MemoryMax and the kernel knows nothing of it.
    file = tmp_path / "gon-edge.yaml"
    file.write_text(json.dumps(settings))
    unit = {"ActiveState": "active", "MemoryMax": str(256 << 20), "ControlGroup": "/no/such/group"}
    findings = list(doctor._check_memory(load_config(file), unit))
    assert (findings[-1].state, "does not hold" in findings[-1].text) == ("warning", True)
    unit["MemoryMax"] = str(64 << 20)
    assert any("too little for a training" in f.text for f in doctor._check_memory(load_config(file), unit))


def test_a_check_that_breaks_is_a_fault_and_the_others_go_on(look, settings, monkeypatch):
    def broken(*_: object):
        raise RuntimeError("surprise")

    monkeypatch.setattr(doctor, "_check_disk", broken)
    findings = look(settings, "disk", "memory")
    assert (findings[0].state, "surprise" in findings[0].text) == ("fault", True)
    assert findings[1].check == "memory"


@pytest.mark.e2e
def test_a_running_daemon_with_its_broker_has_no_fault(tmp_path):
    broker = Mosquitto(tmp_path / "broker").start()
    try:
        with DaemonProcess(tmp_path, broker) as daemon:
            daemon.connected()
            broker.publish_lines("telemetry/pump", rows(310))
            daemon.wait_for_state("pump", "scoring")
            command = [sys.executable, "-m", "gon_edge", "doctor", "--config", str(daemon.config)]
            shown = subprocess.run(command, capture_output=True, text=True, timeout=60)
            assert shown.returncode == 0, shown.stdout + shown.stderr
            assert "came back after" in shown.stdout
            assert "streams: 1" in shown.stdout
            assert "faults: 0" in shown.stdout
            broker.stop()
            wait_until(lambda: daemon.metric("gon_edge_mqtt_connected") == 0.0, 10, "the loss of the broker")
            shown = subprocess.run([*command, "--json"], capture_output=True, text=True, timeout=60)
            assert (shown.returncode, json.loads(shown.stdout)["healthy"]) == (1, False)
    finally:
        broker.stop()
