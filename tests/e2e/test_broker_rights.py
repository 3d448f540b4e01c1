"""The example of mosquitto with TLS, passwords and rights, on a real mosquitto, with the real daemon.

A denied message is dropped in silence: each test looks at what arrives, not at what was acknowledged.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from e2e.daemons import DaemonProcess
from e2e.servers import Mosquitto, require, wait_until

EXAMPLE = Path(__file__).resolve().parents[2] / "deploy" / "mosquitto"
USERS = ("pi-1", "operator", "pump", "fan")

pytestmark = pytest.mark.e2e


class Guarded(Mosquitto):
    """A mosquitto with the example's configuration; every user's password is the name backwards."""

    def __init__(self, directory: Path) -> None:
        require("openssl")
        certificates = directory / "certs"
        subprocess.run([EXAMPLE / "certificates.sh", certificates, "localhost"], check=True)
        if (key := certificates / "server.key").owner() != Path("/").owner():
            shutil.chown(key, 0)  # this one runs as root, where the test does
        for user in USERS:
            command = [require("mosquitto_passwd"), "-b", directory / "gon-edge.passwd", user, user[::-1]]
            (directory / "gon-edge.passwd").touch()
            subprocess.run(command, check=True, capture_output=True)
        (directory / "gon-edge.acl").write_text((EXAMPLE / "gon-edge.acl").read_text())
        settings = (EXAMPLE / "gon-edge.conf").read_text().replace("/etc/mosquitto/", f"{directory}/")
        super().__init__(directory, settings=re.sub(r"^listener .*$", "", settings, flags=re.M), allow_anonymous=False)
        self.ca_file = certificates / "ca.crt"

    @property
    def url(self) -> str:
        return f"mqtts://localhost:{self.port}"

    def arguments(self, user: str) -> list[str]:
        """Of mosquitto_pub and mosquitto_sub."""
        where = ["-h", "localhost", "-p", str(self.port), "--cafile", str(self.ca_file), "-V", "mqttv5", "-q", "1"]
        return [*where, "-u", user, "-P", user[::-1]]

    def send(self, user: str, topic: str, message: str) -> None:
        subprocess.run([require("mosquitto_pub"), *self.arguments(user), "-t", topic, "-m", message], check=True)

    def arrives(self, reader: str, read: str, writer: str, topic: str) -> bool:
        """Whether what `writer` sends to `topic` comes to `reader`, who also gets a later message that is allowed."""
        before = self.log.count("Sending SUBACK")
        sub = [require("mosquitto_sub"), *self.arguments(reader), "-v", "-t", read, "-W", "20"]
        with subprocess.Popen(sub, stdout=subprocess.PIPE, text=True) as listening:
            assert listening.stdout is not None
            try:
                wait_until(lambda: self.log.count("Sending SUBACK") > before, 10, "the subscription")
                mark, after = "gon-edge/pi-1/doctor", "telemetry/fan"
                self.send(writer, topic, "probe")
                # From one sender to one receiver, order is kept; another sender's message comes once ours was judged.
                self.send("pi-1" if reader == "operator" else "fan", mark if reader == "operator" else after, "later")
                for line in listening.stdout:
                    if line.endswith(" probe\n"):
                        return True
                    if line.endswith(" later\n"):
                        return False
            finally:
                listening.kill()
        raise AssertionError(f"nothing came to {reader}:\n{self.log}")


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    guarded = Guarded(tmp_path_factory.mktemp("broker"))
    guarded.start()
    yield guarded
    guarded.stop()


@pytest.mark.parametrize(
    ("reader", "read", "writer", "topic", "allowed"),
    [
        ("pi-1", "telemetry/#", "pump", "telemetry/pump", True),
        ("pi-1", "telemetry/#", "pump", "telemetry/pump/flow", True),
        ("pi-1", "telemetry/#", "pump", "telemetry/other", False),  # in another device's name
        ("pi-1", "telemetry/#", "pi-1", "telemetry/pump", False),  # the daemon makes up readings
        ("pi-1", "telemetry/#", "operator", "telemetry/pump", False),
        ("operator", "gon-edge/#", "pi-1", "gon-edge/pi-1/alert", True),
        ("operator", "gon-edge/#", "pi-1", "gon-edge/pi-2/alert", False),  # another machine's alert
        ("operator", "gon-edge/#", "pump", "gon-edge/pi-1/alert", False),
    ],
)
def test_everybody_writes_topics_of_their_own_only(broker, reader, read, writer, topic, allowed):
    assert broker.arrives(reader, read, writer, topic) == allowed


def test_nobody_comes_in_without_a_password_or_without_tls(broker):
    anonymous = [require("mosquitto_pub"), "-h", "localhost", "-p", str(broker.port), "-t", "telemetry/pump", "-m", "1"]
    assert subprocess.run([*anonymous, "--cafile", broker.ca_file], capture_output=True).returncode != 0
    plain = [*anonymous, "-u", "pump", "-P", "pmup"]
    assert subprocess.run(plain, capture_output=True, timeout=120).returncode != 0
    wrong = [*anonymous, "--cafile", broker.ca_file, "-u", "pump", "-P", "wrong"]
    assert subprocess.run(wrong, capture_output=True).returncode != 0


def mqtt(broker: Guarded, folder: Path, **changed: object) -> dict[str, object]:
    """The daemon's section for this broker."""
    (folder / "password").write_text("1-ip\n")
    (folder / "password").chmod(0o600)
    own = {"url": broker.url, "username": "pi-1", "password_file": str(folder / "password")}
    return {**own, "ca_file": str(broker.ca_file), "reconnect_max": "1s", **changed}


def doctor(daemon: DaemonProcess) -> tuple[int, list[dict[str, str]]]:
    command = [sys.executable, "-m", "gon_edge", "doctor", "--json", "--config", str(daemon.config)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.stderr == ""
    return done.returncode, json.loads(done.stdout)["findings"]


def broker_findings(findings: list[dict[str, str]]) -> list[tuple[str, str]]:
    return [(finding["state"], finding["text"]) for finding in findings if finding["check"] == "broker"]


def test_the_daemon_reads_telemetry_and_says_that_it_is_there(broker, tmp_path):
    with DaemonProcess(tmp_path, broker, mqtt=mqtt(broker, tmp_path)) as daemon:
        daemon.connected()
        assert daemon.metric("gon_edge_mqtt_subscriptions_refused") == 0.0
        broker.send("pump", "telemetry/pump", json.dumps({"time": time.time(), "flow": 1.0}))
        wait_until(lambda: daemon.stream("pump"), 10, "the reading")
        sub = [require("mosquitto_sub"), *broker.arguments("operator"), "-t", "gon-edge/pi-1/status", "-C", "1"]
        assert subprocess.run(sub, capture_output=True, text=True, timeout=120).stdout == "online\n"
        code, findings = doctor(daemon)
        assert [state for state, _ in broker_findings(findings)] == ["ok", "ok", "ok", "ok"]
        assert any(f["check"] == "certificate" and f["state"] == "ok" for f in findings)
        assert code == 0
        # The daemon's session was left alone.
        assert daemon.metric("gon_edge_mqtt_connected") == 1.0
        assert "taken" not in daemon.log


def test_doctor_finds_out_that_what_is_sent_gets_nowhere(broker, tmp_path):
    # The node has no right to its topics: mosquitto says "not authorized" by MQTT 5 and nothing at all by 3.1.1.
    for protocol, said in (("5", "refused"), ("3.1.1", "did not come back")):
        folder = tmp_path / protocol
        folder.mkdir()
        daemon = DaemonProcess(folder, broker, node="pi-2", mqtt=mqtt(broker, folder, protocol=protocol))
        code, findings = doctor(daemon)
        assert code == 1
        state, text = broker_findings(findings)[-1]
        assert (state, said in text) == ("fault", True)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"username": "pi-9"}, "refuses us"),
        ({"ca_file": ""}, "certificate is not valid"),
        ({"url": "mqtts://127.0.0.1:{port}"}, "certificate is not valid"),
        ({"url": "mqtt://localhost:{port}", "ca_file": ""}, "without an answer to CONNECT"),
    ],
    ids=["wrong user", "unknown authority", "wrong name", "no TLS"],
)
def test_doctor_says_why_there_is_no_connection(broker, tmp_path, changed, said):
    changed = {key: value.format(port=broker.port) for key, value in changed.items()}
    daemon = DaemonProcess(tmp_path, broker, mqtt=mqtt(broker, tmp_path, **changed))
    code, findings = doctor(daemon)
    (state, text), *rest = broker_findings(findings)
    assert (code, state, rest) == (1, "fault", [])
    assert said in text
