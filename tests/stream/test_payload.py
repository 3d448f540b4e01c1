"""Bytes of a message to readings: what each payload means, and that none is fatal."""

import gzip
import json
import zlib

import cbor2
import msgpack
import pytest

from gon_edge.config.schema import LimitsConfig
from gon_edge.config.subscription import SubscriptionConfig
from gon_edge.errors import PayloadError
from gon_edge.events import MASK_REASONS, REASONS
from gon_edge.stream.features import MAX_DEPTH
from gon_edge.stream.payload import Decoder


def decoder(topic="telemetry/{stream}", written="json", payload_bytes=256 << 10, features=500, **options):
    limits = LimitsConfig(payload_bytes=payload_bytes, features=features)
    return Decoder(SubscriptionConfig(topic, written, **options), limits)


def read(payload, topic="telemetry/pump", **options):
    """The one reading of a JSON payload."""
    text = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
    (reading,) = decoder(**options).decode(topic, text).readings
    return reading


def reason(decode, topic, payload):
    with pytest.raises(PayloadError) as caught:
        decode.decode(topic, payload)
    assert caught.value.reason in REASONS
    assert caught.value.topic == topic
    return caught.value.reason


# Topics


def test_a_stream_that_cannot_be_one_is_refused():
    with pytest.raises(ValueError, match="not a stream name"):
        decoder("telemetry/all", stream="a/b")


def test_the_option_stream_names_what_the_topic_does_not():
    assert decoder("all", stream="plant").decode("all", b'{"a": 1}').readings[0].stream == "plant"


@pytest.mark.parametrize("topic", ["telemetry/", "telemetry/" + "x" * 129, "telemetry/a\x07", "telemetry/a\u200b"])
def test_a_stream_with_an_unusable_name_is_rejected(topic):
    assert reason(decoder(), topic, b'{"a": 1}') == "bad_stream"


def test_a_feature_of_the_topic_with_an_unusable_name_is_rejected():
    assert reason(decoder("t/{stream}/{feature}"), "t/pump/", b"1") == "bad_feature"


def test_a_topic_of_another_subscription_is_rejected():
    assert reason(decoder(), "other/pump", b'{"a": 1}') == "other_topic"


# JSON


def test_a_flat_object_is_one_reading():
    reading = read({"flow": 1.5, "pressure": 2})
    assert (reading.stream, reading.timestamp) == ("pump", None)
    assert reading.values == {"flow": 1.5, "pressure": 2.0}
    assert all(type(value) is float for value in reading.values.values())
    assert reading.masked == {}


def test_nested_objects_and_arrays_become_dotted_names():
    reading = read({"motor": {"current": {"a": 1}, "on": True}, "accel": [0.1, 0.2, 9.8], "cells": [{"v": 3.3}]})
    assert reading.values == {
        "motor.current.a": 1.0,
        "motor.on": 1.0,
        "accel.0": 0.1,
        "accel.1": 0.2,
        "accel.2": 9.8,
        "cells.0.v": 3.3,
    }


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('"21.5"', 21.5),
        ('" -3e2 "', -300.0),
        ("true", 1.0),
        ("false", 0.0),
        ('"ON"', 1.0),
        ('"off"', 0.0),
        ('"True"', 1.0),
        ('"FALSE"', 0.0),
        ("3.4028234663852886e38", 3.4028234663852886e38),
        ("-0.0", 0.0),
    ],
)
def test_what_means_a_number_is_one(text, value):
    assert read(f'{{"a": {text}}}'.encode()).values == {"a": value}


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("null", "null"),
        ("NaN", "nan"),
        ('"nan"', "nan"),
        ("Infinity", "infinite"),
        ("-Infinity", "infinite"),
        ('"-inf"', "infinite"),
        ("1e999", "infinite"),
        ("1e39", "infinite"),  # finite in float64, infinite in the float32 of a row
        ("1" + "0" * 400, "infinite"),
        ("1" + "0" * 5000, "infinite"),  # int() refuses more than 4300 digits
        ('"idle"', "text"),
        ('""', "text"),
        ('"1_000"', "text"),
        ('"' + "9" * 1000 + '"', "text"),
    ],
)
def test_what_is_no_finite_number_is_masked_with_its_reason(text, why):
    decoded = decoder().decode("telemetry/pump", f'{{"a": {text}, "b": 1}}'.encode())
    assert decoded.readings[0].values == {"b": 1.0}
    assert decoded.readings[0].masked == {"a": why}
    assert decoded.masked == {why: 1}
    assert why in MASK_REASONS


def test_a_reading_of_nothing_but_masked_features_is_still_a_reading():
    reading = read({"a": None})
    assert reading.values == {}
    assert reading.masked == {"a": "null"}


def test_of_duplicate_keys_the_last_value_counts():
    assert read(b'{"a": 1, "a": 2}').values == {"a": 2.0}
    assert read(b'{"a.b": 1, "a": {"b": 2}}').values == {"a.b": 2.0}


def test_of_equal_names_the_usable_value_counts():
    reading = read(b'{"a": {"b": 2}, "a.b": null}')
    assert reading.values == {"a.b": 2.0}
    assert reading.masked == {}


def test_features_with_unusable_names_are_dropped_and_counted():
    names = ["", "a\n", "x" * 129, "\ud800"]
    decoded = decoder().decode("telemetry/pump", json.dumps({"good": 1, **dict.fromkeys(names, 2)}).encode())
    assert decoded.readings[0].values == {"good": 1.0}
    assert decoded.readings[0].masked == {}
    assert decoded.masked == {"name": 4}
    assert reason(decoder(), "telemetry/pump", json.dumps(dict.fromkeys(names, 2)).encode()) == "empty"


def test_a_long_key_is_not_copied_into_the_names_of_its_children():
    decoded = decoder().decode(
        "telemetry/pump", json.dumps({"good": 1, "k" * 50_000: dict.fromkeys("abc", 1)}).encode()
    )
    assert decoded.masked == {"name": 1}


def test_features_past_the_limit_are_dropped_and_counted():
    decoded = decoder(features=3).decode("telemetry/pump", b'{"a": 1, "b": 2, "c": null, "d": 4, "e": 5, "f": null}')
    assert decoded.readings[0].values == {"a": 1.0, "b": 2.0, "d": 4.0}
    assert decoded.readings[0].masked == {}
    assert decoded.masked == {"limit": 3}


@pytest.mark.parametrize(
    ("payload", "expected"),
    [
        (b"", "empty"),
        (b"  \n", "empty"),
        (b"{}", "empty"),
        (b'{"a": {}}', "empty"),
        (b"[]", "empty"),
        (b"\xff\xfe", "empty"),  # UTF-16, and nothing in it
        (b"\xff\xfe\x00", "not_utf8"),
        ("21 °C".encode("latin-1"), "not_utf8"),
        (b"{", "bad_json"),
        (b'{"a": 1} x', "bad_json"),
        (b"21.5", "not_an_object"),
        (b'"text"', "not_an_object"),
        (b"null", "not_an_object"),
        (b"[1, 2]", "not_an_object"),
        (b'{"a": ' * MAX_DEPTH + b'{"b": 1}' + b"}" * MAX_DEPTH, "too_deep"),
        (b"[" * 100_000, "too_deep"),
        (b'{"a":' * 50_000, "too_deep"),
    ],
)
def test_a_payload_without_readings_has_a_reason(payload, expected):
    assert reason(decoder(payload_bytes=1 << 20), "telemetry/pump", payload) == expected


def test_the_deepest_allowed_nesting_is_read():
    payload = b'{"a": ' * (MAX_DEPTH - 1) + b'{"b": 1}' + b"}" * (MAX_DEPTH - 1)
    assert list(read(payload).values.values()) == [1.0]


def test_a_payload_past_the_limit_is_refused():
    limited = decoder(payload_bytes=8)
    assert limited.decode("telemetry/pump", b'{"a": 1}').readings
    assert reason(limited, "telemetry/pump", b'{"a": 1} ') == "too_large"


def test_a_byte_order_mark_is_skipped():
    assert read(b'\xef\xbb\xbf{"a": 1}').values == {"a": 1.0}


def test_an_array_of_objects_is_a_batch_and_bad_items_are_counted():
    decoded = decoder(timestamp="t").decode(
        "telemetry/pump", b'[{"t": 1, "a": 1}, 5, {"t": "x", "a": 2}, {"t": 3, "a": 3}]'
    )
    assert [(r.timestamp, r.values) for r in decoded.readings] == [(1.0, {"a": 1.0}), (3.0, {"a": 3.0})]
    assert decoded.rejected == {"not_an_object": 1, "bad_timestamp": 1}


def test_a_batch_without_a_good_item_is_rejected_for_its_first_reason():
    assert reason(decoder(timestamp="t"), "telemetry/pump", b'[{"t": "x", "a": 2}, 5]') == "bad_timestamp"


@pytest.mark.parametrize(
    ("payload", "values"),
    [
        (b"21.5", {"temp": 21.5}),
        (b'"ON"', {"temp": 1.0}),
        (b'{"c": 1, "d": {"e": 2}}', {"temp.c": 1.0, "temp.d.e": 2.0}),
        (b"[1, 2]", {"temp.0": 1.0, "temp.1": 2.0}),
    ],
)
def test_with_a_feature_in_the_topic_json_is_that_feature(payload, values):
    reading = decoder("t/{stream}/{feature}").decode("t/hall/temp", payload).readings[0]
    assert (reading.stream, reading.values) == ("hall", values)


def test_with_a_feature_in_the_topic_null_masks_it():
    assert decoder("t/{stream}/{feature}").decode("t/hall/temp", b"null").readings[0].masked == {"temp": "null"}


# Timestamps


def test_the_timestamp_is_taken_from_its_key_and_is_no_feature():
    reading = read({"datetime": "2020-03-09 10:14:33", "a": 1}, timestamp="datetime")
    assert reading.timestamp == 1583748873.0
    assert reading.values == {"a": 1.0}


def test_the_timestamp_may_be_nested_and_a_key_may_contain_the_dot():
    assert read({"meta": {"t": 5, "x": 1}}, timestamp="meta.t").timestamp == 5.0
    assert read({"meta": {"t": 5, "x": 1}}, timestamp="meta.t").values == {"meta.x": 1.0}
    assert read({"meta.t": 6, "a": 1}, timestamp="meta.t").timestamp == 6.0


@pytest.mark.parametrize("payload", [{"a": 1}, {"a": 1, "t": None}, {"a": 1, "m": 5}])
def test_without_a_timestamp_the_time_of_receipt_counts(payload):
    assert read(payload, timestamp="t").timestamp is None
    assert read(payload, timestamp="m.t").timestamp is None


@pytest.mark.parametrize("raw", ["soon", True, -5, {}, []])
def test_a_message_with_a_wrong_timestamp_is_rejected(raw):
    assert reason(decoder(timestamp="t"), "telemetry/pump", json.dumps({"a": 1, "t": raw}).encode()) == "bad_timestamp"


def test_an_object_of_only_a_timestamp_is_empty():
    assert reason(decoder(timestamp="t"), "telemetry/pump", b'{"t": 1}') == "empty"


# One value a message


@pytest.mark.parametrize(
    ("payload", "value"), [(b"21.5", 21.5), (b" 7\n", 7.0), (b"ON", 1.0), (b"false", 0.0), (b"-1e3", -1000.0)]
)
def test_a_bare_value_is_the_feature_of_the_topic(payload, value):
    reading = decoder("t/{stream}/{feature}", "value").decode("t/hall/temp", payload).readings[0]
    assert (reading.stream, reading.values, reading.timestamp) == ("hall", {"temp": value}, None)


def test_a_bare_value_without_a_feature_in_the_topic_is_called_value():
    assert decoder("t/{stream}", "value").decode("t/hall", b"3").readings[0].values == {"value": 3.0}


@pytest.mark.parametrize(
    ("payload", "why"), [(b"nan", "nan"), (b"inf", "infinite"), (b"null", "null"), (b"1e39", "infinite")]
)
def test_a_bare_value_that_is_not_finite_is_masked(payload, why):
    assert decoder("t/{stream}", "value").decode("t/hall", payload).readings[0].masked == {"value": why}


@pytest.mark.parametrize("payload", [b"21.5 C", b'{"a": 1}', b"1_000", b"unavailable"])
def test_a_bare_value_that_is_no_number_is_rejected(payload):
    assert reason(decoder("t/{stream}", "value"), "t/hall", payload) == "bad_number"


# Line protocol

CPU = b"cpu,cpu=cpu0,host=pi usage_idle=98.5,usage_user=1i 1583748873000000000"


def influx(payload, topic="telegraf/#", **options):
    return decoder(topic, "influx", **options).decode("telegraf/x", payload)


def test_a_line_as_telegraf_writes_it():
    (reading,) = influx(CPU).readings
    assert (reading.stream, reading.timestamp) == ("pi", 1583748873.0)
    assert reading.values == {"cpu.cpu0.usage_idle": 98.5, "cpu.cpu0.usage_user": 1.0}


def test_lines_of_one_stream_and_time_become_one_reading():
    lines = [CPU, CPU.replace(b"cpu0", b"cpu1"), CPU.replace(b"873000", b"874000"), CPU.replace(b"pi", b"nas")]
    readings = influx(b"\n".join(lines)).readings
    assert [(r.stream, r.timestamp, len(r.values)) for r in readings] == [
        ("pi", 1583748873.0, 4),
        ("pi", 1583748874.0, 2),
        ("nas", 1583748873.0, 2),
    ]


@pytest.mark.parametrize(
    ("line", "values", "masked"),
    [
        (b"m a=1,b=2i,c=3u,d=-4.5e1,e=.5", {"m.a": 1, "m.b": 2, "m.c": 3, "m.d": -45, "m.e": 0.5}, {}),
        (b"m a=t,b=T,c=true,d=True,e=TRUE", dict.fromkeys(["m.a", "m.b", "m.c", "m.d", "m.e"], 1.0), {}),
        (b"m a=f,b=F,c=false,d=False,e=FALSE", dict.fromkeys(["m.a", "m.b", "m.c", "m.d", "m.e"], 0.0), {}),
        (b'm a="x, y=z \\"q\\" w",b=1', {"m.b": 1.0}, {"m.a": "text"}),
        (b'm a="21.5"', {}, {"m.a": "text"}),  # the protocol has types: what is quoted is text
        (b'm a=""', {}, {"m.a": "text"}),
        (b"m a=nan,b=1", {"m.b": 1.0}, {"m.a": "nan"}),
        (b"m a=1e999", {}, {"m.a": "infinite"}),
        (b"my\\ m\\,x,room=living\\ room,k\\=y=a\\=b f\\ g=1", {"my m,x.a=b.living room.f g": 1.0}, {}),
        (b"m,z=1,a=2 f=1", {"m.2.1.f": 1.0}, {}),
        (b"m  a=1   \r", {"m.a": 1.0}, {}),
        (b"m=x a=1", {"m=x.a": 1.0}, {}),
    ],
)
def test_the_line_protocol_is_read_as_specified(line, values, masked):
    (reading,) = influx(line, stream="pump").readings
    assert reading.values == values
    assert reading.masked == masked


@pytest.mark.parametrize(
    "line",
    [
        b"m",
        b"m a",
        b"m a=",
        b"m a=1,",
        b"m a=1,b",
        b"m =1",
        b",t=1 a=1",
        b"m,t a=1",
        b'm a="x',
        b"m a=1 2 3",
        b"m a=1_0i",
        b"m a=1 soon",
        b"m a=5x",
        b"m a=1\\",
        b"m,t=a=b a=1",
        b"m a=1ii",
        b'm a="x"y',
    ],
)
def test_a_line_that_is_no_line_protocol_is_rejected(line):
    assert reason(decoder("telegraf/#", "influx", stream="pump"), "telegraf/x", line) == "bad_line"


def test_a_bad_line_rejects_only_itself():
    decoded = influx(b"# comment\n\n" + CPU + b"\nbroken\nm a=1\nm,host=a/b a=1\nm,host=h a=1 -5\n")
    assert len(decoded.readings) == 1
    assert decoded.rejected == {"bad_line": 1, "no_stream": 1, "bad_stream": 1, "bad_timestamp": 1}


def test_only_comments_are_empty():
    assert reason(decoder("telegraf/#", "influx"), "telegraf/x", b"# nothing\n") == "empty"


def test_the_stream_of_a_line_is_the_topics_then_the_hosts_then_the_options():
    def stream(topic, line, **options):
        return decoder(topic, "influx", **options).decode("telegraf/x", line).readings[0].stream

    assert stream("telegraf/{stream}", CPU, stream=None) == "x"
    assert stream("telegraf/+", CPU, stream="plant") == "pi"
    assert stream("telegraf/+", b"m a=1", stream="plant") == "plant"


def test_a_line_written_before_the_clock_was_set_is_in_1970():
    # Guessing the unit from the size would read 30 s after boot, in nanoseconds, as seconds of the year 2920.
    assert influx(b"m,host=pi a=1 30000000000").readings[0].timestamp == 30.0


def test_a_hostile_line_takes_linear_time():
    for hostile in (b"m a=" + b'"\\' * 60_000, b"m " + b"a=1," * 40_000, b"\\" * 120_000, b"m a=" + b'""' * 60_000):
        with pytest.raises(PayloadError):
            influx(hostile, stream="pump")


# collectd, and values in an envelope


@pytest.mark.parametrize(
    ("payload", "values"),
    [
        (b"1583748873.250:0.5\0", {"cpu-0.user": 0.5}),
        (b"1583748873.250:12:7.5\0", {"cpu-0.user.0": 12.0, "cpu-0.user.1": 7.5}),
        (b"1583748873.250:1e3", {"cpu-0.user": 1000.0}),
    ],
)
def test_collectd_sends_a_time_and_one_or_more_values(payload, values):
    decoded = decoder("collectd/{stream}/{feature...}", "collectd").decode("collectd/nas/cpu-0/user", payload)
    (reading,) = decoded.readings
    assert (reading.stream, reading.timestamp, reading.values) == ("nas", 1583748873.25, values)


def test_a_value_collectd_does_not_know_is_masked():
    (reading,) = decoder("c/{stream}", "collectd").decode("c/nas", b"1583748873:nan:1\0").readings
    assert (reading.values, reading.masked) == ({"value.1": 1.0}, {"value.0": "nan"})


@pytest.mark.parametrize(
    ("payload", "why"),
    [
        (b"1583748873", "bad_number"),
        (b"1583748873:", "bad_number"),
        (b"1583748873:a", "bad_number"),
        (b"N:1", "bad_timestamp"),
        (b"-1:1", "bad_timestamp"),
        (b"nan:1", "bad_timestamp"),
        (b"\0", "bad_number"),
    ],
)
def test_what_is_not_of_collectd_is_refused(payload, why):
    assert reason(decoder("c/{stream}", "collectd"), "c/nas", payload) == why


@pytest.mark.parametrize(
    ("payload", "values"),
    [
        ({"value": 52.7}, {"Soc": 52.7}),
        ({"value": 4.2, "min": 1.5, "max": "ON"}, {"Soc": 4.2, "Soc.min": 1.5, "Soc.max": 1.0}),
        ({"value": [1.0, 2.0]}, {"Soc.0": 1.0, "Soc.1": 2.0}),
        ({"value": {"a": 1.0}}, {"Soc.a": 1.0}),
    ],
)
def test_a_value_in_an_envelope_is_the_feature_the_topic_names(payload, values):
    decoded = decoder("t/{stream}/{feature}").decode("t/pi/Soc", json.dumps(payload).encode())
    assert decoded.readings[0].values == values


def test_without_a_feature_in_the_topic_value_is_a_name_like_any_other():
    assert read({"value": 1.0, "x": 2.0}).values == {"value": 1.0, "x": 2.0}


def test_what_becomes_no_value_is_named_with_its_reason_and_an_example() -> None:
    payload = json.dumps({"mode": "heat", "ok": 1, "x" * 300: {"a": 1}, "more": 2}).encode()
    reading = decoder("t/{stream}", features=1).decode("t/pump", payload).readings[0]
    assert [(part.key[:10], part.reason, part.example) for part in reading.dropped] == [
        ("mode", "text", "heat"),
        ("x" * 10, "name", "{…}"),
        ("more", "limit", "2.0"),
    ]


# What lies around a payload, and other notations


DOCUMENT = {"time": 1583748873, "motor": {"current": 1.5}, "on": True}
VALUES = {"motor.current": 1.5, "on": 1.0}


@pytest.mark.parametrize("compress", [gzip.compress, zlib.compress])
@pytest.mark.parametrize(
    ("written", "dumps"),
    [("json", lambda document: json.dumps(document).encode()), ("cbor", cbor2.dumps), ("msgpack", msgpack.packb)],
)
def test_a_document_is_read_alike_in_each_notation_compressed_or_not(written, dumps, compress):
    decode = decoder(written=written, timestamp="time")
    plain = decode.decode("telemetry/pump", dumps(DOCUMENT)).readings[0]
    assert (plain.timestamp, plain.values) == (1583748873.0, VALUES)
    assert decode.decode("telemetry/pump", compress(dumps(DOCUMENT))).readings[0] == plain


def test_every_text_format_may_be_utf_16_or_compressed():
    for written, text in (("value", "21.5"), ("influx", "m v=21.5"), ("collectd", "1583748873:21.5")):
        decode = decoder(written=written)
        plain = decode.decode("telemetry/pump", text.encode()).readings
        for payload in (text.encode("utf-16"), text.encode("utf-8-sig"), gzip.compress(text.encode("utf-16"))):
            assert decode.decode("telemetry/pump", payload).readings == plain


def test_the_limit_of_a_payload_counts_its_content_too():
    small = decoder(payload_bytes=100)
    assert reason(small, "telemetry/pump", gzip.compress(b'{"a": 1}' + b" " * 1000)) == "too_large"
    assert reason(small, "telemetry/pump", gzip.compress(b'{"a": 1}')[:-1]) == "bad_compression"


@pytest.mark.parametrize("written", ["cbor", "msgpack"])
def test_a_binary_document_that_is_none_has_a_reason(written):
    decode = decoder(written=written)
    dumps = {"cbor": cbor2.dumps, "msgpack": msgpack.packb}[written]
    nested: object = 1
    for _ in range(MAX_DEPTH + 1):
        nested = {"a": nested}
    assert reason(decode, "telemetry/pump", b'{"a": 1}') == "bad_binary"
    assert reason(decode, "telemetry/pump", dumps(7)) == "not_an_object"
    assert reason(decode, "telemetry/pump", dumps(nested)) == "too_deep"
