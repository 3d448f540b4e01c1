"""What became no value is named and counted, and a message has so many features at most."""

import json

from decoding import decoder


def test_features_past_the_limit_are_dropped_and_counted():
    decoded = decoder(features=3).decode("telemetry/pump", b'{"a": 1, "b": 2, "c": null, "d": 4, "e": 5, "f": null}')
    assert decoded.readings[0].values == {"a": 1.0, "b": 2.0, "d": 4.0}
    assert decoded.readings[0].masked == {}
    assert decoded.masked == {"limit": 3}


def test_what_becomes_no_value_is_named_with_its_reason_and_an_example() -> None:
    payload = json.dumps({"mode": "heat", "ok": 1, "x" * 300: {"a": 1}, "more": 2}).encode()
    reading = decoder("t/{stream}", features=1).decode("t/pump", payload).readings[0]
    assert [(part.key[:10], part.reason, part.example) for part in reading.dropped] == [
        ("mode", "text", "heat"),
        ("x" * 10, "name", "{…}"),
        ("more", "limit", "2.0"),
    ]
