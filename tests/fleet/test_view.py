"""The view of many daemons: who is well, who is not, from what they have left with a broker."""

from __future__ import annotations

import json

import pytest
from e2e.servers import Mosquitto
from hypothesis import given
from hypothesis import strategies as st

from gon_edge.config.file import parse_config
from gon_edge.fleet.view import View, gather, view_json, view_text
from gon_edge.links.mqtt.client import own_topic
from gon_edge.links.publisher import Publisher


def config(url: str = "mqtt://127.0.0.1"):
    return parse_config({"mqtt": {"url": url}, "subscriptions": [{"topic": "{stream}"}]}).mqtt


def state(stream: str, **more: object) -> bytes:
    return json.dumps(
        {"stream": stream, "state": "scoring", "timestamp": 100.0, "score": 0.5, "threshold": 1.0, "alerts": []} | more
    ).encode()


def told(view: View, node: str, *levels: str, payload: bytes) -> None:
    view.take(own_topic(config(), node, *levels), payload)


@pytest.fixture
def plant() -> View:
    """One daemon in alarm, one offline with an alert that may be over, one with a silent stream, one that is well."""
    view = View()
    for node in ("well", "alarmed", "gone", "quiet"):
        told(view, node, "status", payload=b"online")
        told(view, node, "state", "pump", payload=state("pump"))
    told(view, "alarmed", "state", "fan", payload=state("fan", alerts=["fan-1"], score=9.0, timestamp=160.0))
    told(view, "gone", "state", "pump", payload=state("pump", alerts=["pump-1"]))
    told(view, "gone", "status", payload=b"offline")
    told(view, "quiet", "state", "pump", payload=state("pump", state="stale"))
    return view


def test_daemons_that_need_a_person_stand_first(plant: View) -> None:
    assert [(each.node, each.standing) for each in plant.worst_first()] == [
        ("alarmed", "alarm"),
        ("gone", "offline"),
        ("quiet", "silent"),
        ("well", "ok"),
    ]
    assert plant.counts() == {"alarm": 1, "offline": 1, "silent": 1, "ok": 1}


def test_an_alert_that_ended_and_a_daemon_that_is_back_are_well_again(plant: View) -> None:
    told(plant, "alarmed", "state", "fan", payload=state("fan"))
    told(plant, "gone", "status", payload=b"online")
    told(plant, "gone", "state", "pump", payload=state("pump"))
    told(plant, "quiet", "state", "pump", payload=b"")  # the stream was taken away
    assert plant.counts()["ok"] == 4
    assert plant.daemons["quiet"].states == {}


def test_the_page_shows_who_is_not_well_and_all_of_them_when_asked(plant: View) -> None:
    told(plant, "alarmed", "alert", payload=json.dumps(ALERT).encode())
    page = view_text(plant, 200.0)
    assert page.startswith(
        "4 daemons, 5 streams: 1 in alarm, 1 offline, 1 with a silent stream, 1 ok\n\nDAEMON   IS       STREAMS"
    )
    assert "fan: score 9 of 1, flow" in page
    assert "40.0 s ago" in page or "40 s ago" in page
    assert "\nwell" not in page
    assert "and 1 more, of which --all shows each" in page
    assert "\nwell" in view_text(plant, 200.0, whole=True)


ALERT = {
    "id": "fan-1",
    "type": "new",
    "stream": "fan",
    "top_features": [{"feature": "flow", "value": 1.0, "expected": 2.0, "contribution": 0.5}],
}


def test_foreign_text_cannot_steer_the_terminal(plant: View) -> None:
    told(plant, "p9", "status", payload=b"online")
    told(plant, "p9", "state", "x", payload=state("\x1b[2J\nowned", alerts=["x-1"], score=9.0))
    page = view_text(plant, 1000.0, whole=True)
    assert "\x1b" not in page
    assert "\nowned" not in page


def test_scripts_get_every_daemon_and_the_events_of_its_open_alerts(plant: View) -> None:
    told(plant, "alarmed", "alert", payload=json.dumps(ALERT).encode())
    told(plant, "alarmed", "alert", payload=json.dumps({**ALERT, "id": "over"}).encode())
    found = json.loads(json.dumps(view_json(plant, "mqtt://b")))
    assert found["counts"] == {"alarm": 1, "offline": 1, "silent": 1, "ok": 1, "daemons": 4, "streams": 5}
    (alarm,) = found["daemons"][0]["alarms"]
    assert (alarm["stream"], [event["id"] for event in alarm["events"]]) == ("fan", ["fan-1"])


def test_foreign_bytes_are_counted_and_change_nothing(plant: View) -> None:
    before = plant.counts()
    told(plant, "alarmed", "state", "fan", payload=b"\xff")
    told(plant, "alarmed", "state", "fan", payload=b"[1]")
    told(plant, "well", "homeassistant", "x", "y", payload=b"{}")
    assert (plant.unread, plant.counts()) == (3, before)
    assert "3 messages could not be read" in view_text(plant, 0.0)


@given(st.text(min_size=1, max_size=20), st.text(min_size=1, max_size=20))
def test_any_node_and_stream_is_found_again_in_its_topic(node: str, stream: str) -> None:
    view = View()
    told(view, node, "state", stream, payload=state(stream))
    assert list(view.daemons) == [node]
    assert list(view.daemons[node].states) == [stream]


def test_a_base_topic_of_several_levels() -> None:
    view = View("site/edge")
    view.take("site/edge/pi/status", b"online")
    assert (list(view.daemons), view.unread) == (["pi"], 0)


@pytest.mark.e2e
def test_what_2000_daemons_have_left_with_a_broker_is_all_found(mosquitto: Mosquitto) -> None:
    with Publisher(config(mosquitto.url)) as daemons:
        for number in range(2000):
            node = f"pi-{number}"
            daemons.send(
                own_topic(config(), node, "status"), b"offline" if number % 500 == 7 else b"online", retain=True
            )
            alerts = ["a"] if number % 100 == 3 else []
            daemons.send(own_topic(config(), node, "state", "pump"), state("pump", alerts=alerts), retain=True)
        assert daemons.drain()
    view = View()
    gather(config(mosquitto.url), view)
    assert view.counts() == {"alarm": 20, "offline": 4, "silent": 0, "ok": 1976}
