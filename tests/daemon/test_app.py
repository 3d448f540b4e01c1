"""The daemon as a whole, where a broker is not what matters."""

from __future__ import annotations

import json
import logging
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import states
from configurations import SMALLEST
from e2e.servers import free_port
from mounts import mounted, remounted

from gon_edge.config.file import parse_config
from gon_edge.daemon.app import Daemon
from gon_edge.links.control import listens
from gon_edge.links.mqtt.queue import Message
from gon_edge.process.clock import monotonic
from gon_edge.state.folder import ModelFolder
from gon_edge.state.store import Store

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("name", "broken"),
    [
        ("gon-edge mqtt", "gon_edge.links.mqtt.client.MqttClient._delay_s"),
        ("gon-edge http", "gon_edge.links.web.lobby.Lobby._let_through"),
        ("gon-edge control", "gon_edge.links.control.ControlServer._accept"),
    ],
)
def test_a_thread_that_ends_takes_the_process_with_it_and_says_why(tmp_path, name, broken):
    # The thread of the broker had ended by a wait that was too long, and the daemon ran on, deaf.
    config = tmp_path / "config.yaml"
    settings = {
        "node": "pi-1",
        "state_dir": str(tmp_path / "state"),
        "mqtt": {"url": f"mqtt://127.0.0.1:{free_port()}"},
        "subscriptions": [{"topic": "telemetry/{stream}"}],
        "http": {"listen": "127.0.0.1:0"},
    }
    config.write_text(json.dumps(settings))
    module, _, attribute = broken.rpartition(".")
    module, _, cls = module.rpartition(".")
    program = f"""
import socket, sys, threading, time
from importlib import import_module
from pathlib import Path
from gon_edge.commands.main import main

def end(*_):
    raise OverflowError("made up")

setattr(getattr(import_module({module!r}), {cls!r}), {attribute!r}, end)

def knock():
    from gon_edge.links.control import socket_path
    path = str(socket_path(Path({str(tmp_path / "state")!r})))
    with socket.socket(socket.AF_UNIX) as client:
        while client.connect_ex(path):
            time.sleep(0.05)

threading.Thread(target=knock, daemon=True).start()
sys.exit(main(["run", "--config", {str(config)!r}]))
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1  # the unit starts it again
    assert f"critical gon_edge.process.threads: the thread {name!r} has ended, and with it gon-edge" in done.stderr
    assert "OverflowError: made up" in done.stderr
    assert done.stderr.splitlines()[-1].startswith(f"gon-edge: the thread {name!r}")


def test_a_state_directory_that_is_deleted_is_back_with_models_alerts_and_socket_within_a_beat(tmp_path, caplog):
    # Until the next write nobody noticed, and commands could not reach the daemon any more.
    states.leave(tmp_path / "state")
    settings = {"mqtt": {"url": f"mqtt://127.0.0.1:{free_port()}"}, "subscriptions": [{"topic": "{stream}"}]}
    config = parse_config({**settings, "state_dir": str(tmp_path / "state"), "http": {"listen": "off"}})
    daemon = Daemon(config)
    try:
        daemon._start()
        assert listens(config.state_dir)
        shutil.rmtree(config.state_dir)
        daemon._beat(monotonic())
        daemon._round()
        assert listens(config.state_dir)
        assert "was deleted or replaced" in caplog.text
        assert ModelFolder(config.state_dir).load("pump")[0].version == "2"
        with Store.open(config.state_dir, read_only=True) as store:
            assert len(store.alerts(stream="pump", active=True)) == 2
            assert len(store.state("answers/pump")) == 1
    finally:
        daemon._stop()


def test_what_has_come_before_a_stop_is_judged_and_stored_and_the_log_has_each_message_in_a_count(tmp_path, caplog):
    # What was in the queue at SIGTERM is acknowledged, so no broker sends it again; it went without a count.
    streams = {"defaults": {"interval": "1s"}}
    subscriptions = [{"topic": "telemetry/{stream}", "timestamp": "time"}]
    settings = {"state_dir": str(tmp_path), "http": {"listen": "off"}, "subscriptions": subscriptions}
    daemon = Daemon(parse_config({**SMALLEST, **settings, "streams": streams}))
    for i in range(600):
        payload = json.dumps({"time": 1_700_000_000 + i, "flow": float(i)}).encode()
        daemon._client.queue.put(Message("telemetry/pump", payload, float(i), retained=False))
    early = json.dumps({"time": 1_600_000_000, "flow": 1.0}).encode()  # nobody knows yet whether it is late
    for topic, payload in (("telemetry/pump", b"{"), ("telemetry/pump", early), ("other/pump", b"1")):
        daemon._client.queue.put(Message(topic, payload, 600.0, retained=False))
    caplog.set_level(logging.INFO)
    daemon.stop()
    daemon._stop()
    with Store.open(tmp_path, read_only=True) as store:
        assert store.streams()["pump"] >= 598  # the last may still wait for a later one
    said = "stopped; messages: 600 accepted, 1 invalid, 0 late, 0 dropped, 1 ignored, 1 undecided, 0 not judged"
    assert said in caplog.text


def test_commands_reach_a_daemon_whose_card_can_be_written_again(tmp_path):
    with mounted(tmp_path / "card", "size=4m"):
        state_dir = tmp_path / "card" / "state"
        states.leave(state_dir)
        remounted(tmp_path / "card", "ro")
        settings = {"mqtt": {"url": f"mqtt://127.0.0.1:{free_port()}"}, "subscriptions": [{"topic": "{stream}"}]}
        daemon = Daemon(parse_config({**settings, "state_dir": str(state_dir), "http": {"listen": "off"}}))
        try:
            daemon._start()
            daemon._beat(monotonic())
            assert not listens(state_dir)
            remounted(tmp_path / "card", "rw")
            daemon._orders.keep()
            daemon._beat(monotonic())
            assert listens(state_dir)
        finally:
            daemon._stop()
