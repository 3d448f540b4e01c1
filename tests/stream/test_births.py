"""Sparkplug B: births, data by name and by alias, deaths, and what is said without a birth."""

import json
import random

import pytest
from sparkplugs import (
    BOOLEAN,
    DATETIME,
    DOUBLE,
    FLOAT,
    INT8,
    INT16,
    INT32,
    INT64,
    STRING,
    TEMPLATE,
    UINT64,
    Metric,
    Template,
    payload,
)

from gon_edge.config.subscription import SubscriptionConfig
from gon_edge.errors import PayloadError
from gon_edge.events import MASK_REASONS, REASONS
from gon_edge.stream.births import Births, Topic, parse_topic
from gon_edge.stream.payload import Decoder
from gon_edge.stream.scalars import PLAIN


class Host:
    """A subscription to every node of a group, and the shortest way to send it something."""

    def __init__(self, topic="spBv1.0/plant/+/{stream}/#", **options):
        self.decoder = Decoder(SubscriptionConfig(topic, "sparkplug", **options))

    def __call__(self, kind, *metrics, device=None, at=1.0, **fields):
        topic = f"spBv1.0/plant/{kind}/press" + (f"/{device}" if device else "")
        return self.decoder.decode(topic, payload(*metrics, at=at, **fields))

    def values(self, *message, **options):
        return [(reading.timestamp, reading.values) for reading in self(*message, **options).readings]

    def refused(self, *message, **options):
        with pytest.raises(PayloadError) as caught:
            self(*message, **options)
        assert caught.value.reason in REASONS
        return caught.value.reason, str(caught.value)


@pytest.fixture
def host():
    return Host()


@pytest.mark.parametrize(
    ("topic", "found"),
    [
        ("spBv1.0/plant/NBIRTH/press", Topic("plant", "NBIRTH", "press", None)),
        ("spBv1.0/plant/DDATA/press/oil", Topic("plant", "DDATA", "press", "oil")),
        ("spBv1.0/plant/NCMD/press", None),
        ("spBv1.0/STATE/scada", None),
        ("spBv1.0/plant/NDATA/press/oil", None),
        ("spBv1.0/plant/DDATA/press", None),
        ("spAv1.0/plant/NDATA/press", None),
    ],
)
def test_topics_that_carry_readings_are_told_from_others(topic, found):
    assert parse_topic(topic) == found


def test_a_command_is_refused_as_one(host):
    reason, said = host.refused("NCMD", {"name": "Node Control/Rebirth", "boolean_value": True})
    assert reason == "no_readings"
    assert "births, data and deaths" in said


def test_a_birth_is_a_reading_and_data_by_alias_have_its_names(host):
    birth = host(
        "NBIRTH",
        {"name": "bdSeq", "int_value": 3},
        {"name": "Node Control/Rebirth", "boolean_value": False},
        {"name": "Motor/Current", "alias": 1, "datatype": DOUBLE, "double_value": 1.5},
        {"name": "Motor/On", "alias": 2, "datatype": BOOLEAN, "boolean_value": True},
        {"name": "Recipe", "alias": 3, "datatype": STRING, "string_value": "bolt"},
    )
    (reading,) = birth.readings
    assert (reading.stream, reading.timestamp) == ("press", 1.0)
    assert reading.values == {"Motor.Current": 1.5, "Motor.On": 1.0}
    assert reading.masked == {"Recipe": "text"}
    data = host.values(
        "NDATA", {"alias": 1, "double_value": 1.75}, {"name": "Motor/On", "boolean_value": False}, at=2.0
    )
    assert data == [(2.0, {"Motor.Current": 1.75, "Motor.On": 0.0})]


@pytest.mark.parametrize(
    ("datatype", "fields", "value"),
    [
        (INT8, {"int_value": 0xFF}, -1.0),
        (INT8, {"int_value": 0xFFFFFFFF}, -1.0),  # as the Java library writes it
        (INT16, {"int_value": 0x8000}, -32768.0),
        (INT32, {"int_value": 0xFFFFFFFE}, -2.0),
        (INT32, {"int_value": 5}, 5.0),
        (INT64, {"long_value": 2**64 - 7}, -7.0),
        (UINT64, {"long_value": 2**63}, 2.0**63),
        (FLOAT, {"float_value": 0.5}, 0.5),
    ],
)
def test_each_datatype_has_its_value_in_births_and_in_data_that_leave_the_type_out(host, datatype, fields, value):
    assert host.values("NBIRTH", {"name": "x", "alias": 9, "datatype": datatype, **fields}) == [(1.0, {"x": value})]
    assert host.values("NDATA", {"alias": 9, **fields}) == [(1.0, {"x": value})]


@pytest.mark.parametrize(
    ("metric", "why"),
    [
        ({"datatype": DATETIME, "long_value": 1767607473000}, "text"),  # a moment is no measurement
        ({"datatype": DOUBLE, "is_null": True, "double_value": 1.0}, "null"),
        ({"datatype": DOUBLE, "double_value": float("nan")}, "nan"),
        ({"bytes_value": b"abc"}, "text"),
    ],
)
def test_a_metric_without_a_number_is_masked_with_the_reason(host, metric, why):
    (reading,) = host("NBIRTH", {"name": "x", **metric}, {"name": "y", "int_value": 1}).readings
    assert reading.masked == {"x": why}
    assert reading.values == {"y": 1.0}


@pytest.mark.parametrize(("quality", "counts"), [(192, True), (64, True), (0, False), (500, False), (516, False)])
def test_a_value_that_its_device_calls_bad_or_stale_is_taken_back(host, quality, counts):
    properties = {"keys": ["engUnit", "Quality"], "values": [{"int_value": 0}, {"type": 3, "int_value": quality}]}
    host("NBIRTH", {"name": "flow", "alias": 1, "double_value": 7.5})
    (reading,) = host("NDATA", {"alias": 1, "double_value": 7.5, "properties": properties}).readings
    assert (reading.values, reading.masked) == (({"flow": 7.5}, {}) if counts else ({}, {"flow": "gone"}))


def test_metrics_with_times_of_their_own_are_a_reading_each_oldest_first(host):
    late, early = {"name": "b", "timestamp": 5000, "int_value": 2}, {"name": "a", "timestamp": 4000, "int_value": 1}
    assert host.values("NDATA", late, early) == [(4.0, {"a": 1.0}), (5.0, {"b": 2.0})]


def test_a_time_that_cannot_be_refuses_its_metrics_and_no_others(host):
    wild = {"name": "b", "timestamp": 2**63, "int_value": 2}
    said = host("NDATA", wild, {"name": "a", "int_value": 1})
    assert [reading.values for reading in said.readings] == [{"a": 1.0}]
    assert said.rejected == {"bad_timestamp": 1}
    assert host.refused("NDATA", wild)[0] == "bad_timestamp"


def test_data_without_a_birth_say_what_is_missing(host):
    reason, said = host.refused("NDATA", {"alias": 7, "double_value": 1.5})
    assert reason == "no_birth"
    assert "no birth of press has come, so alias 7 has no name; send the node Node Control/Rebirth" in said
    decoded = host("NDATA", {"alias": 7, "double_value": 1.5}, {"name": "named", "int_value": 2})
    (reading,) = decoded.readings
    assert reading.values == {"named": 2.0}
    assert [(part.key, part.reason, part.example) for part in reading.dropped] == [("alias 7", "no_birth", "1.5")]
    assert decoded.masked == {"no_birth": 1}
    assert "no_birth" in MASK_REASONS
    host("NBIRTH", {"name": "a", "alias": 1, "int_value": 1})
    assert "alias 7 is not in the birth of press" in host.refused("NDATA", {"alias": 7, "int_value": 1})[1]


@pytest.mark.parametrize(
    ("options", "node", "device"),
    [
        ({}, ("press", "a"), ("press", "oil.b")),
        ({"topic": "spBv1.0/plant/#", "stream": "hall"}, ("hall", "press.a"), ("hall", "press.oil.b")),
        ({"topic": "spBv1.0/plant/+/+/{stream}"}, None, ("oil", "b")),
    ],
)
def test_what_the_stream_does_not_say_goes_before_the_feature(options, node, device):
    host = Host(**options)
    if node is not None:
        (reading,) = host("NDATA", {"name": "a", "int_value": 1}).readings
        assert (reading.stream, *reading.values) == node
    (reading,) = host("DDATA", {"name": "b", "int_value": 1}, device="oil").readings
    assert (reading.stream, *reading.values) == device


def test_a_device_has_aliases_of_its_own(host):
    host("NBIRTH", {"name": "a", "alias": 1, "int_value": 1})
    host("DBIRTH", {"name": "b", "alias": 2, "int_value": 1}, device="oil")
    assert host.values("DDATA", {"alias": 2, "int_value": 3}, device="oil") == [(1.0, {"oil.b": 3.0})]
    assert "no birth" not in host.refused("DDATA", {"alias": 1, "int_value": 3}, device="oil")[1]


def test_a_nodes_death_masks_its_features_and_those_of_its_devices(host):
    text = {"name": "Recipe", "string_value": "bolt"}  # was never a number: as a feature it would be missing for ever
    host("NBIRTH", {"name": "bdSeq", "int_value": 3}, {"name": "a", "alias": 1, "int_value": 1}, text)
    host("DBIRTH", {"name": "c", "int_value": 1}, device="gas")
    said = host("NDEATH", {"name": "bdSeq", "int_value": 3}, at=None)
    (reading,) = said.readings
    assert (reading.stream, reading.timestamp, reading.values) == ("press", None, {})
    assert reading.masked == {"a": "gone", "gas.c": "gone"}
    assert said.masked == {"gone": 2}
    assert host.refused("NDATA", {"alias": 1, "int_value": 1})[0] == "no_birth"


def test_a_nodes_death_is_a_reading_of_each_stream_that_its_devices_feed():
    births = Births(None, PLAIN, max_features=10, max_bytes=1000)
    births.read("spBv1.0/plant/NBIRTH/press", "press", None, payload({"name": "a", "int_value": 1}))
    births.read("spBv1.0/plant/DBIRTH/press/oil", "oil", None, payload({"name": "b", "int_value": 1}))
    said = births.read("spBv1.0/plant/NDEATH/press", "press", None, payload())
    assert [(r.stream, dict(r.masked)) for r in said.readings] == [("press", {"a": "gone"}), ("oil", {"b": "gone"})]


def test_a_devices_death_leaves_the_others_alone(host):
    host("NBIRTH", {"name": "a", "alias": 1, "int_value": 1})
    host("DBIRTH", {"name": "b", "int_value": 1}, device="oil")
    (reading,) = host("DDEATH", device="oil", at=9.0).readings
    assert (reading.timestamp, reading.masked) == (9.0, {"oil.b": "gone"})
    assert host.values("NDATA", {"alias": 1, "int_value": 1}) == [(1.0, {"a": 1.0})]
    assert host.refused("DDEATH", device="oil")[0] == "no_birth"
    host("DBIRTH", {"name": "b", "int_value": 1}, device="oil")
    assert host("DDEATH", device="oil", at=2.0**53).readings[0].timestamp is None


def test_the_will_of_an_earlier_connection_takes_nothing_back(host):
    host("NBIRTH", {"name": "bdSeq", "int_value": 4}, {"name": "a", "alias": 1, "int_value": 1})
    assert host.refused("NDEATH", {"name": "bdSeq", "int_value": 3})[0] == "no_readings"
    assert host.values("NDATA", {"alias": 1, "int_value": 1}) == [(1.0, {"a": 1.0})]


def test_a_node_that_is_born_again_has_new_aliases(host):
    host("NBIRTH", {"name": "a", "alias": 1, "int_value": 1})
    host("DBIRTH", {"name": "b", "alias": 2, "int_value": 1}, device="oil")
    host("NBIRTH", {"name": "z", "alias": 1, "int_value": 1})
    assert host.values("NDATA", {"alias": 1, "int_value": 5}) == [(1.0, {"z": 5.0})]
    assert host.refused("DDATA", {"alias": 2, "int_value": 5}, device="oil")[0] == "no_birth"


def test_members_of_a_template_are_features_that_a_death_masks_too(host):
    members = [Metric(name="rpm", datatype=INT32, int_value=0xFFFFFFFF), Metric(name="oil/temp", float_value=0.5)]
    whole = {"name": "Motor", "datatype": TEMPLATE, "template_value": Template(template_ref="M", metrics=members)}
    defined = {"name": "types/M", "template_value": Template(metrics=members, is_definition=True)}
    assert host.values("NBIRTH", whole, defined) == [(1.0, {"Motor.rpm": -1.0, "Motor.oil.temp": 0.5})]
    assert set(host("NDEATH").readings[0].masked) == {"Motor.rpm", "Motor.oil.temp"}


DAY_S = 86400.0


@pytest.fixture
def again(host):
    """A host that begins with what another one has left, as JSON on a disk, some days later."""

    def again(days=0.0, **options):
        state = json.loads(json.dumps(host.decoder.births.state(100 * DAY_S)))
        later = Host(**options)
        later.decoder.births.resume(state, (100 + days) * DAY_S)
        return later

    return again


def born(host):
    host("NBIRTH", {"name": "bdSeq", "int_value": 255}, {"name": "a", "alias": 1, "datatype": INT8, "int_value": 1})
    host("DBIRTH", {"name": "b", "alias": 2, "datatype": DOUBLE, "double_value": 1.0}, device="oil")


@pytest.mark.parametrize("days", [0, 7])
def test_data_by_alias_are_understood_after_a_restart_with_the_types_of_their_birth(host, again, days):
    born(host)
    host = again(days)
    assert host.values("NDATA", {"alias": 1, "int_value": 0xFF}) == [(1.0, {"a": -1.0})]
    assert host.values("DDATA", {"alias": 2, "double_value": 2.5}, device="oil") == [(1.0, {"oil.b": 2.5})]


def test_a_birth_of_which_nothing_was_heard_for_a_week_has_expired(host, again):
    born(host)
    assert again(8).refused("NDATA", {"alias": 1, "int_value": 1})[0] == "no_birth"


def test_a_birth_lives_as_long_as_its_data_come(host, again):
    born(host)
    for day in range(5, 40, 5):
        host("NDATA", {"alias": 1, "int_value": 1})
        state = host.decoder.births.state((100 + day) * DAY_S)
    assert [(device, day) for _, _, device, _, _, day, *_ in state] == [(None, 135), ("oil", 105)]


def test_a_new_birth_replaces_what_was_kept(host, again):
    born(host)
    host = again()
    host("NBIRTH", {"name": "bdSeq", "int_value": 0}, {"name": "z", "alias": 1, "int_value": 1})
    assert host.values("NDATA", {"alias": 1, "int_value": 5}) == [(1.0, {"z": 5.0})]
    assert host.refused("DDATA", {"alias": 2, "double_value": 5.0}, device="oil")[0] == "no_birth"


@pytest.mark.parametrize("metric", [{"alias": 9, "int_value": 1}, {"alias": 1, "datatype": FLOAT, "float_value": 1.0}])
def test_data_that_do_not_fit_a_birth_of_an_earlier_run_let_go_of_it_and_of_its_nodes(host, again, metric):
    # The node has been set up anew while nobody listened: its aliases may mean anything.
    born(host)
    host = again()
    assert host.refused("NDATA", metric)[0] == "no_birth"
    assert host.refused("NDATA", {"alias": 1, "int_value": 1})[0] == "no_birth"
    assert host.refused("DDATA", {"alias": 2, "double_value": 1.0}, device="oil")[0] == "no_birth"


def test_a_birth_of_this_run_stays_where_an_alias_is_unknown(host):
    born(host)
    host.refused("NDATA", {"alias": 9, "int_value": 1})
    assert host.values("NDATA", {"alias": 1, "int_value": 5}) == [(1.0, {"a": 5.0})]


def test_a_death_after_a_restart_takes_back_what_came_before_it(host, again):
    born(host)
    (reading,) = again()("NDEATH", {"name": "bdSeq", "int_value": 255}, at=None).readings
    assert reading.masked == {"a": "gone", "oil.b": "gone"}


def test_a_death_of_a_session_that_began_while_nobody_listened_counts_and_an_earlier_one_does_not(host, again):
    born(host)
    host = again()
    assert host.refused("NDEATH", {"name": "bdSeq", "int_value": 254})[0] == "no_readings"
    assert host("NDEATH", {"name": "bdSeq", "int_value": 0}).readings[0].masked == {"a": "gone", "oil.b": "gone"}


def test_only_a_birth_that_says_something_else_is_news(host):
    births = host.decoder.births
    born(host)
    assert births.has_news
    births.state(0.0)
    host("DBIRTH", {"name": "b", "alias": 2, "datatype": DOUBLE, "double_value": 9.0}, device="oil")
    assert not births.has_news
    host("DBIRTH", {"name": "b", "alias": 3, "datatype": DOUBLE, "double_value": 9.0}, device="oil")
    assert births.has_news


def test_of_many_births_the_newest_are_kept(monkeypatch, host, again):
    monkeypatch.setattr("gon_edge.stream.births._KEPT_CHARACTERS", 6)  # of names and features
    for name in "abcde":
        host("DBIRTH", {"name": name, "alias": 1, "int_value": 1}, device=name)
    assert [device for _, _, device, *_ in host.decoder.births.state(0.0)] == ["e"]


def test_births_without_end_do_not_fill_the_memory(monkeypatch):
    monkeypatch.setattr("gon_edge.stream.births._MOST_METRICS", 10)
    decoder = Host().decoder
    for i in range(50):
        decoder.decode(f"spBv1.0/plant/NBIRTH/n{i}", payload({"name": "a", "alias": 1, "int_value": 1}))
    known = []
    for i in range(50):
        try:
            decoder.decode(f"spBv1.0/plant/NDATA/n{i}", payload({"alias": 1, "int_value": 1}))
            known.append(i)
        except PayloadError as error:
            assert error.reason == "no_birth"  # noqa: PT017
    assert known == [45, 46, 47, 48, 49]


def test_a_name_that_is_too_long_is_dropped_as_such(host):
    said = host("NBIRTH", {"name": "x" * 9000, "int_value": 1}, {"name": "a", "int_value": 1})
    assert said.masked == {"name": 1}


@pytest.mark.parametrize("resumed", [False, True])
def test_random_bytes_are_read_or_refused(host, again, resumed):
    rng = random.Random(2)
    born(host)
    host = again() if resumed else host
    whole = payload({"name": "a", "alias": 1, "datatype": 3, "int_value": 1}, {"alias": 2, "double_value": 1}, at=3.0)
    for _ in range(3000):
        message = bytearray(whole)
        for _ in range(rng.randrange(1, 4)):
            message[rng.randrange(len(message))] = rng.randrange(256)
        try:
            host.decoder.decode(f"spBv1.0/plant/{rng.choice(['NBIRTH', 'NDATA', 'NDEATH'])}/press", bytes(message))
        except PayloadError as error:
            assert error.reason in REASONS  # noqa: PT017
            assert "\n" not in str(error)  # noqa: PT017
