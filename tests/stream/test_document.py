"""Documents to readings: names from nesting, batches, timestamps, and the values that mean a number."""

import json

import pytest
from decoding import decoder, read, reason

from gon_edge.events import MASK_REASONS
from gon_edge.stream.features import MAX_DEPTH


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
    assert reason(decoder(written="json", payload=1 << 20), "telemetry/pump", payload) == expected


def test_the_deepest_allowed_nesting_is_read():
    payload = b'{"a": ' * (MAX_DEPTH - 1) + b'{"b": 1}' + b"}" * (MAX_DEPTH - 1)
    assert list(read(payload).values.values()) == [1.0]


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


@pytest.mark.parametrize(
    ("text", "values", "masked"),
    [
        (b'{"temp": nan, "hum": 45}', {"hum": 45.0}, {"temp": "nan"}),
        (b'{"temp": -nan, "hum": 45}', {"hum": 45.0}, {"temp": "nan"}),
        (b'{"a": inf, "b": [-INF, 1]}', {"b.1": 1.0}, {"a": "infinite", "b.0": "infinite"}),
        (b'{"inf": 1, "text": "nan, inf: {", "c": Nan}', {"inf": 1.0}, {"text": "text", "c": "nan"}),
        (b'{"a": "", "b": 1}\0\0', {"b": 1.0}, {"a": "text"}),
    ],
)
def test_one_bad_value_masks_itself_and_never_the_message(text, values, masked):
    reading = read(text)
    assert (reading.values, reading.masked) == (values, masked)


@pytest.mark.parametrize("text", [b'{"a": nan', b'{"a": nano}', b'{"a": 1nan}', b"{nan: 1}"])
def test_what_is_broken_beside_a_bare_nan_stays_broken(text):
    assert reason(decoder(), "telemetry/pump", text) == "bad_json"


def test_a_hostile_text_is_looked_through_in_linear_time():
    for hostile in (b'{"' + b"\\" * 100_001, b"[nan " * 20_000, b'{"a": ' + b"nan" * 60_000, b'["' + b'""' * 60_000):
        assert reason(decoder(), "telemetry/pump", hostile) in ("bad_json", "too_deep")


@pytest.mark.parametrize("raw", ["", "  "])
def test_an_empty_timestamp_is_the_time_of_receipt(raw):
    assert read({"a": 1, "t": raw}, timestamp="t").timestamp is None


def test_a_timestamp_without_a_zone_is_in_that_of_the_option():
    summer, winter = {"t": "2026-07-01 12:00:00", "a": 1}, {"t": "30.11.2026 10:15:54", "a": 1}
    assert read(summer, timestamp="t", timezone="Europe/Berlin").timestamp == 1782900000.0
    assert read(winter, timestamp="t", timezone="Europe/Berlin").timestamp == 1796030154.0
    assert read(winter, timestamp="t").timestamp == 1796033754.0


def test_options_for_values_reach_every_level():
    options = {"decimal": "comma", "map": {"*.mode": {"heat": 1}, "idle": 0}}
    assert read({"a": {"mode": "heat", "t": ["1.234", "idle"]}}, **options).values == {
        "a.mode": 1.0,
        "a.t.0": 1234.0,
        "a.t.1": 0.0,
    }
