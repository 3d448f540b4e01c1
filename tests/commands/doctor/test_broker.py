"""What is said about a broker: down, closed to us, or deaf."""

from __future__ import annotations

import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from e2e.daemons import Subscriber
from e2e.servers import Mosquitto, wait_until

from gon_edge.commands.doctor.finding import Finding


def states(findings: list[Finding]) -> list[str]:
    return [finding.state for finding in findings]


def test_a_broker_that_is_down_is_a_fault_with_its_address(look, settings):
    (finding,) = look(settings, "broker")
    assert (finding.state, settings["mqtt"]["url"] in finding.text) == ("fault", True)
    assert finding.advice


@pytest.mark.e2e
def test_the_topic_that_is_tried_is_one_the_daemon_writes_below(look, settings, mosquitto):
    # Of a node called a%b it was gon-edge/a%b/doctor, which its rights on gon-edge/a%25b/# do not reach.
    settings |= {"mqtt": {"url": mosquitto.url}, "node": "a%b"}
    findings = look(settings, "broker")
    assert "'gon-edge/a%25b/doctor' came back" in findings[-2].text


@pytest.fixture
def guarded(tmp_path: Path, settings: dict[str, object]) -> Iterator[Mosquitto]:
    """A broker whose only user, `reader`, may not send."""
    directory = tmp_path / "broker"
    directory.mkdir()
    (directory / "rights").write_text("user reader\ntopic read #\n")
    (directory / "users").write_text("reader:pass\n")
    subprocess.run(["mosquitto_passwd", "-U", str(directory / "users")], check=True)
    lines = f"password_file {directory}/users\nacl_file {directory}/rights"
    broker = Mosquitto(directory, settings=lines, allow_anonymous=False).start()
    settings["mqtt"] = {"url": broker.url}
    yield broker
    broker.stop()


def with_user(settings: dict[str, object], tmp_path: Path, name: str, password: str = "pass") -> dict[str, object]:
    file = tmp_path / "password"
    file.write_text(password)
    file.chmod(0o600)
    return {**settings, "mqtt": {**settings["mqtt"], "username": name, "password_file": str(file)}}


@pytest.mark.e2e
def test_a_broker_that_does_not_let_us_in_is_a_fault_about_the_login(look, settings, guarded, tmp_path):
    for wrong in (settings, with_user(settings, tmp_path, "reader", "wrong")):
        (finding,) = look(wrong, "broker")
        assert (finding.state, "the broker refuses us" in finding.text) == ("fault", True)
        assert "mqtt.username" in finding.advice


@pytest.mark.e2e
@pytest.mark.parametrize("protocol", ["5", "3.1.1"])
def test_a_broker_that_drops_what_we_send_is_a_fault(look, settings, guarded, tmp_path, protocol):
    settings["mqtt"]["protocol"] = protocol
    findings = look(with_user(settings, tmp_path, "reader"), "broker")
    assert states(findings) == ["ok", "ok", "fault"]
    assert "let this user write gon-edge/pi-1/#" in findings[-1].advice


@pytest.mark.e2e
@pytest.mark.parametrize(
    ("protocol", "denied", "said"),
    [
        ("5", "alert", "messages to 'gon-edge/pi-1/alert' are refused: Not authorized"),
        ("3.1.1", "alert", "a message to 'gon-edge/pi-1/alert' was acknowledged and did not come back"),
        ("5", "state", "messages to 'gon-edge/pi-1/state/#' are refused: Not authorized"),
        ("3.1.1", "state", "a message to 'gon-edge/pi-1/state/#' was acknowledged and did not come back"),
        ("5", "", "alerts and states get through: gon-edge/pi-1/alert, gon-edge/pi-1/state/#"),
        ("3.1.1", "", "alerts and states get through: gon-edge/pi-1/alert, gon-edge/pi-1/state/#"),
    ],
)
def test_a_topic_of_alerts_or_states_that_the_broker_denies_is_a_fault(
    look, settings, guarded, tmp_path, protocol, denied, said, monkeypatch
):
    monkeypatch.setattr("gon_edge.commands.doctor.broker._BACK_S", 1.0)
    # The one of the doctor got through, alerts did not, and nobody said so.
    granted = {"doctor", "alert", "state/#"} - {denied, f"{denied}/#"}
    rights = "".join(f"topic readwrite gon-edge/pi-1/{topic}\n" for topic in granted)
    (guarded.directory / "rights").write_text(f"user reader\ntopic read #\n{rights}")
    guarded.restart()
    settings["mqtt"]["protocol"] = protocol
    findings = look(with_user(settings, tmp_path, "reader"), "broker")
    assert states(findings) == ["ok", "ok", "ok", "fault" if denied else "ok"]
    assert said in findings[-1].text


@pytest.mark.e2e
def test_what_the_doctor_sends_changes_nothing(look, settings, mosquitto, tmp_path):
    settings["mqtt"] = {"url": mosquitto.url}
    collected = Subscriber(mosquitto, "gon-edge/pi-1/alert", tmp_path)
    try:
        assert states(look(settings, "broker"))[-1] == "ok"
        wait_until(lambda: collected.events(), 10, "the event")
    finally:
        collected.stop()
    (event,) = collected.events()
    assert (event["type"], event["id"][:7], event["top_features"]) == ("end", "doctor-", [])
    assert mosquitto.retained("gon-edge/pi-1/state/+", 1) is None


def refuse_subscriptions(listener: socket.socket) -> None:
    """A broker (MQTT 3.1.1, one client) that takes every message and grants no subscription, as mosquitto cannot."""
    channel, _ = listener.accept()
    with channel:
        while packet := channel.recv(4096):
            if packet[0] == 0x10:  # CONNECT, CONNACK
                channel.sendall(bytes([0x20, 2, 0, 0]))
            elif packet[0] == 0x82:  # SUBSCRIBE, SUBACK
                channel.sendall(bytes([0x90, 3, *packet[2:4], 0x80]))
            elif packet[0] == 0x32:  # PUBLISH, PUBACK
                at = 4 + int.from_bytes(packet[2:4], "big")
                channel.sendall(bytes([0x40, 2, *packet[at : at + 2]]))


def test_topics_that_we_may_not_read_are_a_fault(look, settings):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=refuse_subscriptions, args=(listener,), daemon=True).start()
        settings["mqtt"] = {"url": f"mqtt://127.0.0.1:{listener.getsockname()[1]}", "protocol": "3.1.1"}
        findings = look(settings, "broker")
    assert states(findings) == ["ok", "fault", "warning"]
    assert "'telemetry/+' is refused" in findings[1].text
    assert "cannot be read back" in findings[2].text


@pytest.mark.e2e
def test_the_doctor_leaves_the_session_of_the_daemon_alone(look, settings, tmp_path):
    broker = Mosquitto(tmp_path / "broker").start()
    try:
        settings["mqtt"] = {"url": broker.url, "client_id": "gon-edge-pi-1"}
        assert states(look(settings, "broker")) == ["ok", "ok", "ok", "ok"]
        assert "as gon-edge-pi-1-doctor (p5, c1" in broker.log  # a clean session
        assert "as gon-edge-pi-1 " not in broker.log
    finally:
        broker.stop()
