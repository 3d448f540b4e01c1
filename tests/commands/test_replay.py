"""A recorded CSV to a real broker: every row once, with its own time, and at the pace that was asked for."""

from __future__ import annotations

import contextlib
import gzip
import json
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import paho.mqtt.client as paho
import pytest
from e2e.daemons import Subscriber as ProcessSubscriber
from e2e.servers import Mosquitto, wait_until
from hypothesis import given
from hypothesis import strategies as st

from gon_edge.commands.replay import replay
from gon_edge.config.file import parse_config
from gon_edge.config.schema import MqttConfig
from gon_edge.errors import InputError
from gon_edge.links.publisher import Publisher
from gon_edge.tables.layout import TableOptions
from gon_edge.tables.table import Record, Table


def settings(url: str, **options: str) -> MqttConfig:
    return parse_config({"mqtt": {"url": url, **options}, "subscriptions": [{"topic": "{stream}"}]}).mqtt


class Subscriber:
    """Remembers what a topic carried."""

    def __init__(self, port: int, topic: str = "telemetry/#") -> None:
        self.payloads: list[bytes] = []
        self.topics: list[str] = []
        self.moments: list[float] = []
        self._client = paho.Client(paho.CallbackAPIVersion.VERSION2, client_id="subscriber", clean_session=False)
        ready = threading.Event()
        self._client.on_connect = lambda client, *_: client.subscribe(topic, 1)
        self._client.on_subscribe = lambda *_: ready.set()
        self._client.on_message = self._take
        self._client.connect("127.0.0.1", port)
        self._client.loop_start()
        assert ready.wait(10)

    def _take(self, _client: object, _userdata: object, message: paho.MQTTMessage) -> None:
        self.payloads.append(message.payload)
        self.topics.append(message.topic)
        self.moments.append(time.monotonic())

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()


@pytest.fixture
def subscriber(mosquitto: Mosquitto) -> Iterator[Subscriber]:
    with contextlib.closing(Subscriber(mosquitto.port)) as subscriber:
        yield subscriber


def send(mosquitto: Mosquitto, path: str, **options: object) -> object:
    times = (str(options.pop("time_column")),) if "time_column" in options else ()
    options = {"speed": None, **options}
    with Table(path, TableOptions(times)) as table, Publisher(settings(mosquitto.url)) as publisher:
        return replay(table, publisher, "telemetry/pump", **options)  # type: ignore[arg-type]


# -- rows to messages --------------------------------------------------------------------------------------------------


def test_a_row_becomes_a_json_object_with_its_time_as_text(
    mosquitto: Mosquitto, subscriber: Subscriber, csv: Callable[..., str]
) -> None:
    path = csv("datetime,flow,valve,note", "2020-03-09 10:14:33,31.50,,open", '2020-03-09 10:14:34,-1e3,nan,"a, b"')
    report = send(mosquitto, path, time_column="datetime")
    assert (report.sent, report.acknowledged, report.complete) == (2, 2, True)
    wait_until(lambda: len(subscriber.payloads) == 2)
    assert [json.loads(payload) for payload in subscriber.payloads] == [
        {"datetime": "2020-03-09 10:14:33", "flow": 31.5, "valve": None, "note": "open"},
        {"datetime": "2020-03-09 10:14:34", "flow": -1000.0, "valve": "nan", "note": "a, b"},
    ]
    assert b'"flow":31.50' in subscriber.payloads[0]  # the digits of the file


def test_a_time_no_daemon_reads_becomes_iso_8601_and_rows_come_oldest_first(
    mosquitto: Mosquitto, subscriber: Subscriber, csv: Callable[..., str]
) -> None:
    send(mosquitto, csv("Date;Time;a;b", "14/03/2004;18.01.00;1,5;on", "14/03/2004;18.00.00;1.234,5;"))
    wait_until(lambda: len(subscriber.payloads) == 2)
    assert [json.loads(payload) for payload in subscriber.payloads] == [
        {"time": "2004-03-14T18:00:00Z", "a": 1234.5, "b": None},
        {"time": "2004-03-14T18:01:00Z", "a": 1.5, "b": "on"},
    ]


def test_readings_of_machines_go_to_a_topic_each(
    mosquitto: Mosquitto, subscriber: Subscriber, csv: Callable[..., str]
) -> None:
    path = csv("ts,host,metric,value", "2000000000,a/1,load,3", "2000000000,b,load,4", "2000000001,b,heat,5")
    with Table(path) as table, Publisher(settings(mosquitto.url)) as publisher:
        replay(table, publisher, "telemetry/{stream}", speed=None)
    wait_until(lambda: len(subscriber.payloads) == 3)
    assert [json.loads(payload) for payload in subscriber.payloads] == [
        {"ts": "2000000000", "load": 3},
        {"ts": "2000000000", "load": 4},
        {"ts": "2000000001", "heat": 5},
    ]
    assert subscriber.topics == ["telemetry/a-1", "telemetry/b", "telemetry/b"]


def test_a_numeric_time_stays_the_text_it_is(
    mosquitto: Mosquitto, subscriber: Subscriber, csv: Callable[..., str]
) -> None:
    send(mosquitto, csv("time,x", "1583748873.250,1"), time_column="time")
    wait_until(lambda: subscriber.payloads)
    assert json.loads(subscriber.payloads[0]) == {"time": "1583748873.250", "x": 1}


@pytest.mark.parametrize("cell", ["007", "+1", ".5", "1.", "1e5", "-0", "1_0", "0x1f", "inf", "12345678901234567890"])
def test_whatever_a_cell_holds_the_message_is_json(
    mosquitto: Mosquitto, subscriber: Subscriber, csv: Callable[..., str], cell: str
) -> None:
    send(mosquitto, csv("x,y", f"{cell},1"))
    wait_until(lambda: subscriber.payloads)
    value = json.loads(subscriber.payloads[0], parse_constant=lambda text: pytest.fail(f"{text} is not JSON"))["x"]
    text = cell in ("1_0", "0x1f", "inf")
    assert (value if text else float(value)) == (cell if text else float(cell))


def test_gzip_and_other_delimiters_are_recognised(mosquitto: Mosquitto, subscriber: Subscriber, tmp_path: Path) -> None:
    path = tmp_path / "pump.data"
    path.write_bytes(gzip.compress("\ufefftime;flow\r\n1;2,5\r\n2;3\r\n".encode()))
    send(mosquitto, str(path), time_column="time")
    wait_until(lambda: len(subscriber.payloads) == 2)
    assert [json.loads(payload)["flow"] for payload in subscriber.payloads] == [2.5, 3]


def test_the_limit_limits(mosquitto: Mosquitto, csv: Callable[..., str]) -> None:
    path = csv("x", *map(str, range(50)))
    assert [send(mosquitto, path, limit=limit).sent for limit in (0, 7, 100)] == [0, 7, 50]


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1, max_size=5))
def test_numbers_survive_the_way_to_json(values: list[float]) -> None:
    from gon_edge.commands.replay import _row_json

    names = tuple(f"c{i}" for i in range(len(values)))
    row = json.loads(_row_json("", Record(1, 0.0, "", "", names, values, [repr(value) for value in values])))
    assert list(row.values()) == values


# -- what is wrong with a file -----------------------------------------------------------------------------------------


def test_a_pace_without_a_time_column_says_which_columns_there_are(
    mosquitto: Mosquitto, csv: Callable[..., str]
) -> None:
    with pytest.raises(InputError, match=r"--time-column .*when, x"):
        send(mosquitto, csv("when,x", "1,2"), speed=1.0)


def test_a_time_that_is_none_is_named_by_line(mosquitto: Mosquitto, csv: Callable[..., str]) -> None:
    with pytest.raises(InputError, match=":3: 'soon' is no time"):
        send(mosquitto, csv("t,x", "2020-01-01 00:00:00,1", "soon,2"), time_column="t", speed=1000.0)


# -- pace --------------------------------------------------------------------------------------------------------------


def test_the_pace_is_that_of_the_timestamps_divided_by_the_speed(
    mosquitto: Mosquitto, subscriber: Subscriber, csv: Callable[..., str]
) -> None:
    path = csv("t,x", "1000,1", "1010,2", "1030,3")
    report = send(mosquitto, path, time_column="t", speed=50.0)
    wait_until(lambda: len(subscriber.payloads) == 3)
    first, second, third = subscriber.moments
    assert second - first >= 0.15
    assert third - first >= 0.55
    assert 0.6 <= report.duration_s < 5.0


def test_a_time_that_goes_backwards_is_not_waited_for(mosquitto: Mosquitto, csv: Callable[..., str]) -> None:
    report = send(mosquitto, csv("t,x", "1000,1", "10,2", "1000,3"), time_column="t", speed=1.0)
    assert report.sent == 3
    assert report.duration_s < 5.0


def test_thousands_of_rows_all_reach_a_subscriber_of_a_default_mosquitto(
    mosquitto: Mosquitto, csv: Callable[..., str], tmp_path: Path
) -> None:
    path = csv("t,x", *(f"{t},{t % 7}" for t in range(5000)))
    # A process of its own: a thread of this one would wait for the publisher's turns and fall behind.
    collected = ProcessSubscriber(mosquitto, "telemetry/#", tmp_path)
    try:
        report = send(mosquitto, path, time_column="t")
        assert (report.sent, report.acknowledged) == (5000, 5000)
        assert report.rows_per_s > 0.0
        rows = wait_until(lambda: r if len(r := collected.events()) == 5000 else [], 20.0, "5000 messages")
    finally:
        collected.stop()
    assert [row["t"] for row in rows] == [str(t) for t in range(5000)]


# -- the publisher -----------------------------------------------------------------------------------------------------


def test_a_broker_that_restarts_meanwhile_loses_no_row(tmp_path: Path, csv: Callable[..., str]) -> None:
    broker = Mosquitto(tmp_path / "broker", persistence=True)
    broker.start()
    try:
        with contextlib.closing(Subscriber(broker.port)) as subscriber:
            path = csv("t,x", *(f"{t / 100},{t}" for t in range(300)))
            killer = threading.Timer(1.0, broker.restart)
            killer.start()
            report = send(broker, path, time_column="t", speed=1.0)
            killer.join()
            assert (report.sent, report.acknowledged) == (300, 300)
            received = wait_until(
                lambda: r if len(r := {json.loads(p)["x"] for p in subscriber.payloads}) == 300 else 0
            )
            assert received == set(range(300))
    finally:
        broker.kill()
