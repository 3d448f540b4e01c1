"""Messages whose items say under keys what they are.

The messages are made up after the documentation of the programs that send such: Kepware's IoT Gateway, the gateway API
of ThingsBoard, Telegraf's JSON, rtl_433, OpenMQTTGateway.
"""

import json

import pytest
from decoding import decoder, read, readings, reason


def found(message, **options):
    """Stream, timestamp and values of each reading."""
    decoded = readings(message, "gateway/x", **{"topic": "gateway/+", **options})
    return [(reading.stream, reading.timestamp, reading.values) for reading in decoded]


def test_a_list_of_records_is_read_by_the_keys_of_name_and_value():
    message = [{"name": "temp", "value": 21}, {"name": "hum", "value": "44 %"}, {"name": "mode", "value": "auto"}]
    reading = read(message, name_key="name", value_key="value")
    assert (reading.values, reading.masked) == ({"temp": 21.0, "hum": 44.0}, {"mode": "text"})


def test_kepware_has_records_below_a_key_and_a_time_in_each():
    message = {
        "timestamp": 1764494155000,
        "values": [
            {"id": "Line1.Press.Force", "v": 812.5, "q": True, "t": 1764494154250},
            {"id": "Line1.Press.Stroke", "v": 40, "q": True, "t": 1764494154250},
            {"id": "Line1.Oven.Temp", "v": 201.5, "q": True, "t": 1764494154750},
        ],
    }
    assert found(message, stream="plant", items="values", name_key="id", value_key="v", timestamp="t") == [
        ("plant", 1764494154.25, {"Line1.Press.Force": 812.5, "Line1.Press.Stroke": 40.0}),
        ("plant", 1764494154.75, {"Line1.Oven.Temp": 201.5}),
    ]


def test_a_time_of_the_whole_message_counts_for_items_without_one():
    message = {"at": 1764494155, "values": [{"id": "a", "v": 1}, {"id": "b", "v": 2, "at": 1764494150}]}
    assert found(message, stream="s", items="values", name_key="id", value_key="v", timestamp="at") == [
        ("s", 1764494155.0, {"a": 1.0}),
        ("s", 1764494150.0, {"b": 2.0}),
    ]


def test_thingsboard_has_the_device_as_a_key_and_lists_of_times_and_values():
    message = {
        "Device A": [
            {"ts": 1764494154000, "values": {"temperature": 42, "humidity": 80}},
            {"ts": 1764494155000, "values": {"temperature": 43}},
        ],
        "Device B": [{"ts": 1764494154000, "values": {"temperature": 12}}],
    }
    assert found(message, items="{stream}", value_key="values", timestamp="ts") == [
        ("Device A", 1764494154.0, {"temperature": 42.0, "humidity": 80.0}),
        ("Device A", 1764494155.0, {"temperature": 43.0}),
        ("Device B", 1764494154.0, {"temperature": 12.0}),
    ]


def test_an_object_of_devices_may_hold_objects_or_bare_values():
    message = {"site": {"pump": {"flow": 1.5}, "oven": {"temp": 200}}, "version": 3}
    assert found(message, items="site.{stream}") == [("pump", None, {"flow": 1.5}), ("oven", None, {"temp": 200.0})]
    assert found({"pump": 1.5, "oven": "ON"}, items="{stream}") == [
        ("pump", None, {"value": 1.5}),
        ("oven", None, {"value": 1.0}),
    ]


def test_telegraf_in_json_gives_the_names_its_line_protocol_gives():
    options = {
        "stream": {"key": "tags.host"},
        "name_key": ["name", "tags"],
        "value_key": "fields",
        "timestamp": "timestamp",
    }
    cpu = {
        "fields": {"usage_idle": 98.5, "usage_user": 1},
        "name": "cpu",
        "tags": {"cpu": "cpu0", "host": "nas"},
        "timestamp": 1764494154,
    }
    memory = {"fields": {"used": 5}, "name": "mem", "tags": {"host": "nas"}, "timestamp": 1764494154}
    assert found(cpu, **options) == [("nas", 1764494154.0, {"cpu.cpu0.usage_idle": 98.5, "cpu.cpu0.usage_user": 1.0})]
    assert found({"metrics": [cpu, memory]}, items="metrics", **options) == [
        ("nas", 1764494154.0, {"cpu.cpu0.usage_idle": 98.5, "cpu.cpu0.usage_user": 1.0, "mem.used": 5.0})
    ]


def test_rtl_433_names_the_device_by_model_and_number():
    message = {"time": "2026-11-30 10:15:54", "model": "Garden-TH2", "id": 1204, "channel": "B", "temperature_C": 3.1}
    options = {"timestamp": "time", "timezone": "Europe/Berlin"}
    assert found(message, stream={"key": ["model", "channel", "id"]}, **options) == [
        ("Garden-TH2-B-1204", 1796030154.0, {"temperature_C": 3.1})
    ]
    assert found(message, stream="garden", name_key=["model", "id"], **options) == [
        ("garden", 1796030154.0, {"Garden-TH2.1204.temperature_C": 3.1})
    ]


def test_a_gateway_for_bluetooth_sends_an_object_or_a_list_of_them():
    one = {"id": "A4:C1:38:00:0D:5B", "rssi": -71, "tempc": 21.4}
    two = {"id": "A4:C1:38:00:11:22", "rssi": -60, "tempc": 19.8}
    options = {"stream": {"key": "id"}}
    assert found(one, **options) == [("A4:C1:38:00:0D:5B", None, {"rssi": -71.0, "tempc": 21.4})]
    assert [stream for stream, _, _ in found([one, two], **options)] == ["A4:C1:38:00:0D:5B", "A4:C1:38:00:11:22"]


def test_a_device_in_the_whole_message_counts_for_its_items():
    message = {"device": {"id": 7.5}, "list": [{"n": "a", "v": 1}, {"n": "b", "v": 2}]}
    options = {"stream": {"key": "device.id"}, "items": "list", "name_key": "n", "value_key": "v"}
    assert found(message, **options) == [("7.5", None, {"a": 1.0, "b": 2.0})]


def test_lists_within_the_way_to_the_items_are_gone_through():
    message = {"rooms": [{"sensors": [{"n": "a", "v": 1}]}, {"sensors": [{"n": "b", "v": 2}]}]}
    assert found(message, stream="s", items="rooms.sensors", name_key="n", value_key="v") == [
        ("s", None, {"a": 1.0, "b": 2.0})
    ]


def test_a_name_goes_before_the_keys_of_an_item_and_after_the_feature_of_the_topic():
    message = [{"id": "a", "t": 1}, {"id": "b", "t": 2}]
    assert read(message, name_key="id").values == {"a.t": 1.0, "b.t": 2.0}
    below = decoder("t/{stream}/{feature}", name_key="id").decode("t/pump/x", b'[{"id": "a", "t": 1}]')
    assert below.readings[0].values == {"x.a.t": 1.0}


def test_a_slash_in_a_device_is_a_dot_in_the_name_of_its_stream():
    assert found({"id": "ground/bath", "t": 1}, stream={"key": "id"})[0][0] == "ground.bath"


def test_items_without_their_keys_are_counted_and_the_others_are_read():
    message = b'[{"n": "a", "v": 1}, {"v": 2}, {"n": "c"}, 5, {"n": null, "v": 3}, {"n": "d", "v": null}]'
    decoded = decoder(name_key="n", value_key="v").decode("telemetry/pump", message)
    (reading,) = decoded.readings
    assert (reading.values, reading.masked) == ({"a": 1.0}, {"d": "null"})
    assert decoded.rejected == {"bad_feature": 2, "empty": 1, "not_an_object": 1}


@pytest.mark.parametrize(
    ("payload", "why"),
    [
        (b'{"a": 1}', "empty"),
        (b'{"values": []}', "empty"),
        (b'{"values": {}}', "empty"),
        (b'{"values": 5}', "not_an_object"),
        (b'{"values": [[[[[[[[[[[{"a": 1}]]]]]]]]]]]}', "too_deep"),
        (b'{"values": [{"t": "soon", "a": 1}]}', "bad_timestamp"),
    ],
)
def test_a_message_without_items_has_a_reason(payload, why):
    assert reason(decoder(items="values", timestamp="t"), "telemetry/pump", payload) == why


@pytest.mark.parametrize(
    ("device", "why"),
    [("", "bad_stream"), ("a+b", "bad_stream"), ("#", "bad_stream"), ("x" * 129, "bad_stream"), (None, "no_stream")],
)
def test_a_device_that_cannot_name_a_stream_is_refused(device, why):
    assert reason(decoder("t", stream={"key": "id"}), "t", json.dumps({"id": device, "a": 1}).encode()) == why


def test_items_that_repeat_each_others_keys_are_named_until_a_key_tells_them_apart():
    stations = [{"station": "north", "wind": 3.5, "rain": 0}, {"station": "south", "wind": 7.5}]
    decoded = decoder("weather", stream="weather").decode("weather", json.dumps(stations).encode())
    (reading,) = decoded.readings
    assert reading.values == {"wind": 7.5, "rain": 0.0}
    assert ("wind", "repeated", "3.5") in [(part.key, part.reason, part.example) for part in reading.dropped]
    assert decoded.masked == {"repeated": 1, "text": 1}
    apart = readings(stations, "weather", topic="weather", stream={"key": "station"})
    assert [(reading.stream, reading.values["wind"], reading.dropped) for reading in apart] == [
        ("north", 3.5, ()),
        ("south", 7.5, ()),
    ]


def test_what_no_option_names_is_named_once_a_message():
    message = {
        "gateway": "g1",
        "values": [{"id": "a", "v": 1, "q": True, "meta": {"unit": "C"}}, {"id": "b", "v": 2, "q": False}],
        "spare": [1, 2],
    }
    decoded = decoder("t", stream="s", items="values", name_key="id", value_key="v").decode(
        "t", json.dumps(message).encode()
    )
    (reading,) = decoded.readings
    assert reading.values == {"a": 1.0, "b": 2.0}
    assert [(part.key, part.reason, part.example) for part in reading.dropped] == [
        ("gateway", "unread", "g1"),
        ("spare", "unread", "[1.0, 2.0]"),
        ("q", "unread", "True"),
        ("meta", "unread", "{…}"),
    ]
    assert decoded.masked == {"unread": 4}


def test_what_options_name_is_not_unread():
    message = {"at": 5, "site": {"id": "x"}, "list": [{"meta": {"n": "a"}, "v": {"w": 1}}]}
    options = {
        "stream": {"key": "site.id"},
        "items": "list",
        "name_key": "meta.n",
        "value_key": "v.w",
        "timestamp": "at",
    }
    (reading,) = decoder("t", **options).decode("t", json.dumps(message).encode()).readings
    assert (reading.stream, reading.timestamp, reading.values, reading.dropped) == ("x", 5.0, {"a": 1.0}, ())


def test_devices_of_one_list_with_times_of_their_own_are_named_until_a_key_tells_them_apart():
    stations = [
        {"station": "north", "ts": 1764494154, "wind": 3.5},
        {"station": "south", "ts": 1764494150, "wind": 7.5},
    ]
    decoded = decoder("weather", stream="weather", timestamp="ts").decode("weather", json.dumps(stations).encode())
    assert [(part.key, part.reason, part.example) for part in decoded.readings[0].dropped] == [
        ("station", "mixed", "north"),
        ("station", "text", "north"),
    ]
    assert decoded.masked == {"text": 2, "mixed": 1}
    apart = readings(stations, "weather", topic="weather", stream={"key": "station"}, timestamp="ts")
    assert [reading.dropped for reading in apart] == [(), ()]


def test_the_history_of_one_device_is_not_taken_for_several():
    history = [{"ts": 1764494150 + i, "device": "north", "seq": i, "wind": 3.5} for i in range(3)]
    decoded = decoder("weather", stream="weather", timestamp="ts").decode("weather", json.dumps(history).encode())
    assert decoded.masked == {"text": 3}
