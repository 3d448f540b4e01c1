"""Payloads that are values and nothing else."""

import pytest
from decoding import decoder, reason


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


@pytest.mark.parametrize("payload", [b"1_000", b"unavailable", b"5 of 7", b"12:30"])
def test_a_bare_value_that_is_no_number_masks_its_feature(payload):
    reading = decoder("t/{stream}/{feature}", "value").decode("t/hall/temp", payload).readings[0]
    assert reading.masked == {"temp": "text"}
    assert [(part.key, part.reason, part.example) for part in reading.dropped] == [("temp", "text", payload.decode())]


@pytest.mark.parametrize("payload", [b'{"a": 1}', b" [1, 2]"])
def test_json_where_a_bare_value_is_expected_is_refused(payload):
    assert reason(decoder("t/{stream}", "value"), "t/hall", payload) == "bad_number"


@pytest.mark.parametrize(
    "payload", [b"21.5 C", b"21,5", b"21.5\0", b"21.5\r\n", b'"21.5"', "21,5\u00a0\u00b0C".encode()]
)
def test_a_bare_value_may_have_a_unit_a_comma_quotes_and_an_end(payload):
    assert decoder("t/{stream}", "value").decode("t/hall", payload).readings[0].values == {"value": 21.5}


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


@pytest.mark.parametrize(("text", "why"), [(b"nan", "nan"), (b"U", "text")])
def test_a_value_collectd_does_not_know_masks_itself(text, why):
    (reading,) = decoder("c/{stream}", "collectd").decode("c/nas", b"1583748873:" + text + b":1\0").readings
    assert (reading.values, reading.masked) == ({"value.1": 1.0}, {"value.0": why})


@pytest.mark.parametrize(
    ("payload", "why"),
    [
        (b"1583748873", "bad_number"),
        (b"1583748873:", "bad_number"),
        (b"N:1", "bad_timestamp"),
        (b"-1:1", "bad_timestamp"),
        (b"nan:1", "bad_timestamp"),
        (b"\0", "empty"),
    ],
)
def test_what_is_not_of_collectd_is_refused(payload, why):
    assert reason(decoder("c/{stream}", "collectd"), "c/nas", payload) == why
