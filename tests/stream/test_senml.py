"""SenML, after RFC 8428; the packs are made up."""

import cbor2
import pytest
from decoding import decoder, read, readings, reason

from gon_edge.stream.senml import is_senml

AT = 1764494154.0


def test_base_name_and_base_time_count_for_the_records_that_follow():
    pack = [
        {"bn": "urn:dev:mac:0024befffe804ff1/", "bt": AT, "bu": "Cel", "n": "temp", "v": 21.5},
        {"n": "hum", "u": "%RH", "v": 44},
        {"n": "temp", "t": 1, "v": 21.6},
    ]
    assert [(r.timestamp, r.values) for r in readings(pack)] == [
        (AT, {"urn:dev:mac:0024befffe804ff1/temp": 21.5, "urn:dev:mac:0024befffe804ff1/hum": 44.0}),
        (AT + 1, {"urn:dev:mac:0024befffe804ff1/temp": 21.6}),
    ]


def test_cbor_says_the_same_by_numbers():
    pack = [{-2: "oven/", -3: AT, 0: "temp", 1: "Cel", 2: 21.5}, {0: "door", 4: True}]
    (reading,) = readings(cbor2.dumps(pack), written="cbor")
    assert (reading.timestamp, reading.values) == (AT, {"oven/temp": 21.5, "oven/door": 1.0})


def test_the_base_name_may_be_the_stream():
    pack = [{"bn": "urn:dev:ow:10e2:", "n": "temp", "v": 1}, {"bn": "site/oven/", "n": "temp", "v": 2}, {"v": 3}]
    found = readings(pack, "t", topic="t", written="senml", stream={"key": "bn"})
    assert [(r.stream, r.values) for r in found] == [
        ("urn:dev:ow:10e2", {"temp": 1.0}),
        ("site.oven", {"temp": 2.0, "value": 3.0}),
    ]


def test_a_small_time_is_relative_to_the_receipt():
    found = readings([{"n": "a", "t": -10, "v": 1}, {"n": "a", "t": -5, "v": 2}, {"n": "a", "v": 3}])
    assert [(r.timestamp, r.offset_s, r.values) for r in found] == [
        (None, -10.0, {"a": 1.0}),
        (None, -5.0, {"a": 2.0}),
        (None, 0.0, {"a": 3.0}),
    ]


def test_base_value_and_base_sum_are_added():
    reading = read([{"bv": 20, "bs": 100, "n": "a", "v": 1.5}, {"n": "b", "s": 5}, {"n": "c", "v": 1, "s": 2}])
    assert reading.values == {"a": 21.5, "b.sum": 105.0, "c": 21.0, "c.sum": 102.0}


def test_truth_values_and_text_are_read_as_anywhere_else():
    pack = [{"n": "open", "vb": True}, {"n": "state", "vs": "OFF"}, {"n": "label", "vs": "x"}, {"n": "d", "vd": "AA"}]
    reading = read(pack)
    assert (reading.values, reading.masked) == ({"open": 1.0, "state": 0.0}, {"label": "text", "d": "text"})


def test_below_a_feature_of_the_topic_names_follow_it():
    below = decoder("t/{stream}/{feature}", "senml").decode("t/pump/x", b'[{"n": "a", "v": 1}]')
    assert below.readings[0].values == {"x.a": 1.0}


def test_a_record_that_asks_for_more_is_left_out_and_counted():
    decoded = decoder(written="senml").decode(
        "telemetry/pump", b'[{"n": "a", "v": 1}, {"n": "b", "v": 2, "must_": 1}, 5, {"n": "c", "v": 1, "t": "x"}]'
    )
    assert decoded.readings[0].values == {"a": 1.0}
    assert decoded.rejected == {"not_an_object": 2, "bad_number": 1}


@pytest.mark.parametrize(
    ("payload", "why"),
    [
        (b"[]", "empty"),
        (b'[{"bn": "x", "bt": 5}]', "empty"),
        (b'[{"bver": 11, "n": "a", "v": 1}]', "not_an_object"),
        (b'[{"n": "a", "v": 1, "t": 1e300}]', "bad_timestamp"),
        (b'[{"n": "a", "v": 1, "t": -1e300}]', "bad_timestamp"),
        (b'[{"n": "\\u0000", "v": 1}]', "empty"),
    ],
)
def test_a_pack_without_a_value_has_a_reason(payload, why):
    assert reason(decoder(written="senml"), "telemetry/pump", payload) == why


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        ([{"n": "a", "v": 1.0}], True),
        ([{"bn": "a", "bt": 1.0}, {"v": 1.0}], True),
        ([{"n": "a", "v": 1.0, "temp": 3.0}], False),
        ([{"v": 1.0, "t": 2.0}], False),
        ([{"n": 1.0, "t": 2.0}], False),
        ([{"n": "a", "v": 1.0}, 5.0], False),
        ([], False),
        ({"n": "a", "v": 1.0}, False),
    ],
)
def test_senml_is_told_from_other_lists_by_its_labels(document, expected):
    assert is_senml(document) is expected


def test_a_list_whose_stream_another_key_names_is_no_senml():
    found = readings([{"n": "oven", "v": 3}, {"n": "pump", "v": 4}], "t", topic="t", stream={"key": "n"})
    assert [(r.stream, r.values) for r in found] == [("oven", {"v": 3.0}), ("pump", {"v": 4.0})]


def test_a_value_that_is_nested_too_deeply_is_refused_as_such():
    # Found by fuzzing: it went out as the error of the interpreter.
    deep = b'[{"n": "a", "v": ' + b"[" * 9 + b"1" + b"]" * 9 + b"}]"
    assert reason(decoder(), "telemetry/pump", deep) == "too_deep"
