"""Which topics belong together, and which subscription is suggested for them: that it really reads them."""

from __future__ import annotations

import zlib

import cbor2
import msgpack
import pytest
from sparkplugs import payload

from gon_edge.config.file import parse_config
from gon_edge.stream.families import family, payload_kind, suggestion
from gon_edge.stream.pipeline import Pipeline
from gon_edge.stream.stream import Stream

OBJECT = b'{"Time": "2026-01-05T10:00:00", "power": 3.5}'


def read_by(entry: dict[str, str], newest: dict[str, bytes]) -> list[tuple[str, set[str]]]:
    """Streams and features that a configuration of this one subscription makes of the messages."""
    config = parse_config({"mqtt": {"url": "mqtt://localhost"}, "subscriptions": [entry]})
    pipeline = Pipeline(config, lambda name, now: Stream(name, config.stream(name), max_features=99), offset_s=1.77e9)
    heard = [pipeline.take(topic, payload, 0.0) for topic, payload in newest.items()]
    return [(reading.stream, set(reading.values)) for one in heard for reading in one.readings]


@pytest.mark.parametrize(
    ("newest", "entry", "read"),
    [
        ({"tele/plug/SENSOR": OBJECT}, {"topic": "tele/{stream}/SENSOR", "timestamp": "Time"}, [("plug", {"power"})]),
        (
            {"tele/a/SENSOR": OBJECT, "tele/b/STATE": OBJECT},
            {"topic": "tele/{stream}/{feature...}", "timestamp": "Time"},
            [("a", {"SENSOR.power"}), ("b", {"STATE.power"})],
        ),
        (
            {"kep": b'{"values": [{"id": "a", "v": 1, "t": 1767607200000}, {"id": "b", "v": 2, "t": 1767607200000}]}'},
            {"topic": "kep", "stream": "kep", "items": "values", "name_key": "id", "value_key": "v", "timestamp": "t"},
            [("kep", {"a", "b"})],
        ),
        (
            {"v1/gateway/telemetry": b'{"Oven": [{"ts": 1767607200000, "values": {"temp": 42}}]}'},
            {"topic": "v1/+/telemetry", "items": "{stream}", "value_key": "values", "timestamp": "ts"},
            [("Oven", {"temp"})],
        ),
        (
            {"weather": b'[{"station": "north", "wind": 3}, {"station": "south", "wind": 5}]'},
            {"topic": "weather", "stream": {"key": "station"}},
            [("north", {"wind"}), ("south", {"wind"})],
        ),
        (
            {"rtl_433/pi/events": b'{"time": "2026-11-30 10:15:54", "model": "G", "id": 7, "temperature_C": 3.1}'},
            {"topic": "rtl_433/+/events", "stream": {"key": ["model", "id"]}, "timestamp": "time"},
            [("G-7", {"temperature_C"})],
        ),
        (
            {"t/a": b'[{"name": "x", "value": 1}]', "t/b": b'{"x": 1}'},
            {"topic": "t/{stream}"},
            [("a", {"value"}), ("b", {"x"})],
        ),
        ({"boiler": b'{"t1": 60}'}, {"topic": "boiler", "stream": "boiler"}, [("boiler", {"t1"})]),
        (
            {"home/hall/temp": b"21.5", "home/hall/light/on": b"ON"},
            {"topic": "home/{stream}/{feature...}"},
            [("hall", {"temp"}), ("hall", {"light.on"})],
        ),
        (
            {"site/one/hall/temp": b"1", "site/one/bath/temp": b"2"},
            {"topic": "site/one/{stream}/{feature}"},
            [("hall", {"temp"}), ("bath", {"temp"})],
        ),
        ({"temp/in": b"21"}, {"topic": "temp/{feature}", "stream": "temp"}, [("temp", {"in"})]),
        (
            {"telegraf/pi/cpu": b"cpu,host=pi usage=1.5 1767607200000000000"},
            {"topic": "telegraf/#", "format": "influx"},
            [("pi", {"cpu.usage"})],
        ),
        (
            {"lines": b"cpu usage=1.5"},
            {"topic": "lines", "format": "influx", "stream": "lines"},
            [("lines", {"cpu.usage"})],
        ),
        ({"cold/a": zlib.compress(OBJECT)}, {"topic": "cold/{stream}"}, [("a", {"power"})]),
        ({"cold/a": '{"t": 3}'.encode("utf-16")}, {"topic": "cold/{stream}"}, [("a", {"t"})]),
        ({"cold/a/x": cbor2.dumps({"t": 3})}, {"topic": "cold/{stream}/x", "format": "cbor"}, [("a", {"t"})]),
        ({"cold/a": msgpack.packb({"t": 3})}, {"topic": "cold/{stream}", "format": "msgpack"}, [("a", {"t"})]),
        (
            {
                "spBv1.0/plant/NBIRTH/press": payload({"name": "force", "int_value": 1}),
                "spBv1.0/plant/DBIRTH/press/oil": payload({"name": "temp", "int_value": 1}),
            },
            {"topic": "spBv1.0/plant/+/{stream}/#", "format": "sparkplug"},
            [("press", {"force"}), ("press", {"oil.temp"})],
        ),
        (
            {"collectd/pi/cpu/idle": b"1767607200.5:97.5\0"},
            {"topic": "collectd/{stream}/{feature...}", "format": "collectd"},
            [("pi", {"cpu.idle"})],
        ),
    ],
)
def test_the_suggested_subscription_reads_the_messages_it_was_made_for(newest, entry, read):
    (kind,) = {family(topic, payload).kind for topic, payload in newest.items()}
    assert suggestion(kind, newest) == entry
    assert read_by(entry, newest) == read


@pytest.mark.parametrize(("payload", "kind"), [(b"hello", "text"), (b"\xff\x00", "binary"), (b"", "empty")])
def test_what_holds_nothing_to_measure_gets_no_suggestion(payload: bytes, kind: str):
    assert payload_kind(payload) == kind
    assert suggestion(kind, {"a/b": payload}) is None


def test_topics_of_one_tree_and_kind_are_a_family():
    assert family("home/hall/temp", b"1") == family("home/attic/light/on", b"ON")
    assert family("home/hall", OBJECT) != family("home/hall/state", OBJECT)
    assert family("home/hall", OBJECT) != family("home/hall", b"1")


def test_a_key_of_times_that_most_objects_have_is_suggested_and_a_counter_under_such_a_name_is_not():
    newest = {"t/a": b'{"ts": 1767607200}', "t/b": b'{"ts": 1767607201}', "t/c": b'{"ts": 20261130091554}'}
    assert suggestion("object", newest) == {"topic": "t/{stream}", "timestamp": "ts"}
    assert suggestion("object", {"t/a": b'{"time": 17}'}) == {"topic": "t/{stream}"}


def test_a_document_that_nothing_reads_gets_a_suggestion_by_its_topic_alone():
    for document in (b"[" * 20 + b"1" + b"]" * 20, b'[{"id": {}, "v": 1}]', b'{"a": 1', b"[NaN]", b"[" * 5000):
        assert suggestion("object", {"t/x": document}) == {"topic": "t/{stream}"}
