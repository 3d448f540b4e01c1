"""Streams that are listed, renamed and removed, with a daemon and without one: what a real broker keeps of them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import states
from shell import run

from e2e.daemons import DaemonProcess, Subscriber
from e2e.servers import Mosquitto, wait_until

pytestmark = pytest.mark.e2e


def kept(broker: Mosquitto, stream: str) -> list[bool]:
    topics = f"gon-edge/pi-1/state/{stream}", f"homeassistant/device/gon-edge_pi-1/{stream}/config"
    return [bool(broker.retained(topic, 1)) for topic in topics]


def test_a_stream_is_renamed_and_removed_with_all_that_the_broker_keeps_of_it(
    mosquitto: Mosquitto, subscriber: Subscriber, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    states.leave(tmp_path / "state")
    daemon = DaemonProcess(tmp_path, mosquitto, homeassistant={"enabled": True})

    def streams(*arguments: str) -> str:
        status, out, err = run(capsys, "streams", *arguments, "--config", str(daemon.config))
        assert (status, err) == (0, "")
        return out

    with daemon.connected():
        wait_until(lambda: kept(mosquitto, "fan") == [True, True], 10, "the stream")
        assert "would be removed: 60 rows, 0 models, 0 alerts" in streams("remove", "fan", "--dry-run")
        assert "is called 'fan-2' now" in streams("rename", "fan", "fan-2")
        wait_until(lambda: kept(mosquitto, "fan-2") == [True, True], 10, "the new name")
        assert kept(mosquitto, "fan") == [False, False]
        assert "is removed" in streams("remove", "fan-2")
        wait_until(lambda: kept(mosquitto, "fan-2") == [False, False], 10, "the stream to go")
        listed = json.loads(streams("list", "--json"))
        assert [(one["stream"], one["scored"], one["models"]) for one in listed] == [("pump", True, ["2", "1"])]
        assert daemon.stop() == 0

    heard = len(subscriber.events())
    assert "is removed: 60 rows, 2 models, 2 alerts" in streams("remove", "pump")
    assert kept(mosquitto, "pump") == [False, False]
    ends = wait_until(lambda: len(e := subscriber.events()[heard:]) == 2 and e, 10, "the ends")
    assert {(event["type"], event["stream"]) for event in ends} == {("end", "pump")}
    assert "no stream yet" in streams("list")

    mosquitto.stop()
    states.leave(tmp_path / "state")
    status, _, err = run(capsys, "streams", "remove", "pump", "--config", str(daemon.config))
    assert status == 0
    assert "the broker still keeps gon-edge/pi-1/state/pump" in err
