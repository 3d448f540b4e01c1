"""The embedded broker: it works, nobody else reaches it, and nothing of it is left."""

from __future__ import annotations

import contextlib
import importlib.util
import socket
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from urllib.parse import urlsplit

import paho.mqtt.client as paho
import psutil
import pytest
from e2e.servers import free_port, require, unmet, wait_until

from gon_edge.config.file import parse_config
from gon_edge.demo import broker as broker_module
from gon_edge.demo.broker import embedded_broker
from gon_edge.errors import GonEdgeError
from gon_edge.links.publisher import Publisher


@pytest.fixture(params=["mosquitto", "amqtt"])
def program(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Each of the two brokers, where it is installed."""
    if request.param == "mosquitto":
        require("mosquitto")
    else:
        if importlib.util.find_spec("amqtt") is None:
            unmet("amqtt is not installed", "python -m pip install -e '.[demo]'")
        monkeypatch.setattr(broker_module, "_PLACES", ("/nonexistent",))
    return str(request.param)


def alive(process_id: int) -> bool:
    with contextlib.suppress(psutil.NoSuchProcess):
        return psutil.Process(process_id).status() != psutil.STATUS_ZOMBIE
    return False


def test_a_message_goes_through_and_the_process_ends_with_the_block(program: str) -> None:
    files = set(Path(tempfile.gettempdir()).iterdir())
    with embedded_broker() as broker:
        assert broker.program == program
        received: list[bytes] = []
        ready = threading.Event()
        client = paho.Client(paho.CallbackAPIVersion.VERSION2)
        client.on_message = lambda _c, _u, message: received.append(message.payload)
        client.on_subscribe = lambda *_: ready.set()
        client.connect("127.0.0.1", urlsplit(broker.url).port or 0)
        client.loop_start()
        client.subscribe("telemetry/+", 1)
        assert ready.wait(10)
        settings = parse_config({"mqtt": {"url": broker.url}, "subscriptions": [{"topic": "{stream}"}]}).mqtt
        with Publisher(settings) as publisher:  # amqtt knows MQTT 3.1.1 only: the fall-back
            publisher.send("telemetry/pump", b"hello")
            assert publisher.drain()
        wait_until(lambda: received == [b"hello"])
        client.disconnect()
        client.loop_stop()
        assert alive(broker.process_id)
    assert not alive(broker.process_id)
    assert not [path for path in set(Path(tempfile.gettempdir()).iterdir()) - files if "mosquitto" in path.name]


def test_it_listens_on_loopback_only(program: str) -> None:
    with embedded_broker() as broker:
        listening = {
            connection.laddr.ip
            for connection in psutil.Process(broker.process_id).net_connections("inet")
            if connection.status == psutil.CONN_LISTEN
        }
    assert listening == {"127.0.0.1"}


def test_a_port_that_is_taken_is_an_error_with_the_port() -> None:
    require("mosquitto")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        with pytest.raises(GonEdgeError, match=f"did not start on port {port}"), embedded_broker(port):
            pass


def test_an_error_in_the_block_ends_the_broker_too() -> None:
    require("mosquitto")
    with pytest.raises(KeyboardInterrupt), embedded_broker() as broker:
        raise KeyboardInterrupt
    assert not alive(broker.process_id)


def test_without_any_broker_the_line_to_type_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(broker_module, "_PLACES", ("/nonexistent",))
    monkeypatch.setattr(broker_module.importlib.util, "find_spec", lambda name: None)
    says = r"sudo apt install mosquitto .*pip install 'gon-edge\[demo\]'"
    with pytest.raises(GonEdgeError, match=says), embedded_broker():
        pass


def test_a_broker_whose_owner_is_killed_is_killed_too(program: str) -> None:
    code = (
        "import sys, time\nfrom gon_edge.demo import broker\n"
        + ("" if program == "mosquitto" else "broker._PLACES = ('/nonexistent',)\n")
        + "with broker.embedded_broker() as running:\n"
        "    print(running.process_id, flush=True)\n    time.sleep(600)\n"
    )
    owner = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert owner.stdout is not None
    process_id = int(owner.stdout.readline())
    assert alive(process_id)
    owner.kill()
    owner.wait()
    owner.stdout.close()
    wait_until(lambda: not alive(process_id), what="the end of the broker")


def test_a_chosen_port_is_used() -> None:
    require("mosquitto")
    port = free_port()
    with embedded_broker(port) as broker:
        assert broker.url == f"mqtt://127.0.0.1:{port}"
