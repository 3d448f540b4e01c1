"""Bytes of a message to readings: topics, limits, and which format reads it."""

import gzip
import json
import zlib

import cbor2
import msgpack
import pytest
from decoding import decoder, read, reason

from gon_edge.errors import ConfigError
from gon_edge.stream.features import MAX_DEPTH

# Topics


def test_a_stream_that_cannot_be_one_is_refused():
    with pytest.raises(ConfigError, match="write a plain name"):
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


def test_a_payload_past_the_limit_is_refused():
    limited = decoder(payload=64)
    assert limited.decode("telemetry/pump", b'{"a": 1}'.ljust(64)).readings
    assert reason(limited, "telemetry/pump", b'{"a": 1}'.ljust(65)) == "too_large"


def test_a_byte_order_mark_is_skipped():
    assert read(b'\xef\xbb\xbf{"a": 1}').values == {"a": 1.0}


# Told apart a message

LINE = b"cpu,host=pi usage=98.5 1764494154000000000"


@pytest.mark.parametrize(
    ("message", "values"),
    [
        (b'{"a": 1}', {"a": 1.0}),
        (b' \n{"a": 1}', {"a": 1.0}),
        (b'\xef\xbb\xbf{"a": 1}', {"a": 1.0}),
        (b'[{"a": 1}]', {"a": 1.0}),
        (b"21.5", {"value": 21.5}),
        (b"ON", {"value": 1.0}),
        (b'"OFF"', {"value": 0.0}),
        (b"-3e2\0", {"value": -300.0}),
        (LINE, {"cpu.usage": 98.5}),
        (b"# made by hand\n" + LINE, {"cpu.usage": 98.5}),
        (b"my\\ room temp=1", {"my room.temp": 1.0}),
        (b"1764494154.250:0.5:7\0", {"value.0": 0.5, "value.1": 7.0}),
        (b'[{"bn": "x:", "n": "t", "v": 3}]', {"x:t": 3.0}),
    ],
)
def test_auto_tells_formats_apart_by_the_message(message, values):
    assert read(message).values == values


@pytest.mark.parametrize(
    ("message", "values"),
    [(b"ON", {"temp": 1.0}), (b'{"c": 1}', {"temp.c": 1.0}), (LINE, {"temp.cpu.usage": 98.5}), (b"7", {"temp": 7.0})],
)
def test_auto_puts_everything_below_the_feature_of_the_topic(message, values):
    assert decoder("t/{stream}/{feature}").decode("t/hall/temp", message).readings[0].values == values


@pytest.mark.parametrize("message", [b"online", b"a=b", b"a b", b"12:30", b"2026-11-30 09:15", b"key = value"])
def test_text_that_is_no_format_masks_the_feature(message):
    assert read(message).masked == {"value": "text"}


def test_broken_json_is_no_text():
    assert reason(decoder(), "telemetry/pump", b'{"a": 1') == "bad_json"


def test_a_stream_of_several_levels_is_another_than_that_of_its_last_level():
    home = decoder("home/{stream...}/{feature}")
    streams = [home.decode(f"home/{floor}/bath/humidity", b"40").readings[0].stream for floor in ("ground", "attic")]
    assert streams == ["ground.bath", "attic.bath"]


def test_every_reading_of_a_message_of_several_streams_is_found():
    found = decoder("t/#", "influx").decode("t/x", b"m,host=a v=1\nm,host=b v=2").readings
    assert [(reading.stream, reading.values) for reading in found] == [("a", {"m.v": 1.0}), ("b", {"m.v": 2.0})]


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
    small = decoder(payload=100)
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


def test_no_byte_at_all_on_the_topic_of_a_feature_takes_its_value_back():
    decode = decoder("N/{stream}/{feature...}")
    decoded = decode.decode("N/c0619ab/battery/256/Soc", b"")
    (reading,) = decoded.readings
    assert (reading.stream, reading.values, reading.masked) == ("c0619ab", {}, {"battery.256.Soc": "gone"})
    assert [(part.key, part.reason) for part in reading.dropped] == [("battery.256.Soc", "gone")]
    assert decoded.masked == {"gone": 1}
    assert decoder("N/+/{feature}", stream="boat").decode("N/c/Soc", b"").readings[0].stream == "boat"
    assert reason(decoder(), "telemetry/pump", b"") == "empty"  # of a whole stream it says nothing
