"""What holds for every payload and every topic."""

from __future__ import annotations

import json
import math
import zlib
from datetime import UTC, datetime, timedelta, timezone
from urllib.parse import unquote

import cbor2
import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sparkplugs import payload
from strategies import documents, levels, names, nested_numbers, numbers, plain_names

from gon_edge.config.schema import LimitsConfig
from gon_edge.config.subscription import StreamKey, SubscriptionConfig
from gon_edge.errors import PayloadError
from gon_edge.events import MASK_REASONS, REASONS
from gon_edge.stream.features import MAX_DEPTH
from gon_edge.stream.payload import Decoder
from gon_edge.stream.scalars import LARGEST, Scalars
from gon_edge.stream.times import unix_seconds
from gon_edge.stream.topics import MAX_NAME, TopicTemplate

DECODERS = [
    Decoder(SubscriptionConfig("t/{stream}", "json", timestamp="t")),
    Decoder(SubscriptionConfig("t/{stream}", "json", timestamp="a.t"), LimitsConfig(payload_bytes=100, features=3)),
    Decoder(SubscriptionConfig("t/{stream}/{feature}", "json")),
    Decoder(SubscriptionConfig("t/{stream}/{feature}", "value")),
    Decoder(SubscriptionConfig("t/#", "influx")),
    Decoder(SubscriptionConfig("t/{stream}", "influx"), LimitsConfig(features=3)),
    Decoder(SubscriptionConfig("t/{stream}/{feature...}", "json")),
    Decoder(SubscriptionConfig("t/{stream}/{feature...}", "collectd")),
    Decoder(SubscriptionConfig("t/{stream}", "cbor", timestamp="t")),
    Decoder(SubscriptionConfig("t/{stream}", "msgpack", timestamp="t")),
    Decoder(SubscriptionConfig("spBv1.0/g/+/{stream}/#", "sparkplug"), LimitsConfig(features=3)),
    Decoder(SubscriptionConfig("t/{stream...}", "auto", timestamp="t", timezone="Europe/Berlin", decimal="comma")),
    Decoder(SubscriptionConfig("t/{stream}/{feature}", "auto", words={"*": {"b": 3.0}, "a*": {"": 0.5}})),
    Decoder(SubscriptionConfig("t/{stream}", "senml"), LimitsConfig(features=3)),
    Decoder(SubscriptionConfig("t/#", "senml", stream=StreamKey(("bn",)))),
    Decoder(SubscriptionConfig("t/{stream}", items="a", name_key=("n", "b"), value_key="v", timestamp="t")),
    Decoder(SubscriptionConfig("t/#", stream=StreamKey(("n", "a.b")), name_key=("a",), timestamp="t")),
    Decoder(SubscriptionConfig("t/#", items="{stream}", timestamp="t")),
]

items = st.fixed_dictionaries(
    {},
    optional={
        **dict.fromkeys(("n", "bn", "a", "b"), st.text(max_size=3) | st.none() | st.integers(0, 3)),
        **dict.fromkeys(("v", "vs", "s", "bv"), numbers | st.text(max_size=3) | st.none()),
        **dict.fromkeys(("t", "bt"), st.none() | st.just("") | st.floats(-1e13, 1e13)),
    },
)
lists = st.lists(items, max_size=4) | st.fixed_dictionaries({"a": st.lists(items, max_size=4)})
line_bytes = st.text(st.sampled_from('m,= \\"\nt=1ihost#é-'), max_size=60).map(str.encode)
payloads = st.binary(max_size=200) | st.text(max_size=200).map(lambda text: text.encode(errors="replace")) | line_bytes
payloads = payloads | documents.map(lambda document: json.dumps(document).encode())
payloads = payloads | lists.map(lambda document: json.dumps(document).encode())
payloads = payloads | nested_numbers.map(cbor2.dumps) | nested_numbers.map(msgpack.packb)
_metrics = st.builds(
    dict,
    name=st.sampled_from(["a", "b/c", "bdSeq", ""]),
    alias=st.integers(0, 3),
    timestamp=st.integers(0, 2**64 - 1),
    datatype=st.integers(0, 30),
    long_value=st.integers(0, 2**64 - 1),
)
payloads = payloads | st.lists(_metrics, max_size=6).map(lambda metrics: payload(*metrics))
payloads = payloads | payloads.map(zlib.compress)
topics = ["t/pump", "t/pump/flow", *(f"spBv1.0/g/{kind}/pump" for kind in ("NBIRTH", "NDATA", "NDEATH", "NCMD"))]


@pytest.mark.parametrize("decoder", DECODERS, ids=range(len(DECODERS)))
@given(payload=payloads, topic=st.sampled_from(topics) | st.text(max_size=20))
def test_a_payload_is_finite_readings_or_an_error_with_a_known_reason(decoder, payload, topic):
    error = None
    try:
        decoded = decoder.decode(topic, payload)
    except PayloadError as caught:
        error = caught
    if error is not None:
        assert error.reason in REASONS
        return
    assert decoded.readings
    assert set(decoded.rejected) <= set(REASONS)
    assert set(decoded.masked) <= set(MASK_REASONS)
    assert min([*decoded.rejected.values(), *decoded.masked.values()], default=1) > 0
    counted = sum(
        count
        for reason, count in decoded.masked.items()
        if reason not in ("name", "limit", "no_birth", "repeated", "mixed", "unread")
    )
    assert counted == sum(len(reading.masked) for reading in decoded.readings)
    for reading in decoded.readings:
        assert reading.stream.isprintable()
        assert 0 < len(reading.stream) <= MAX_NAME
        assert not set(reading.stream) & set("+#/")
        assert reading.timestamp is None or 0 <= reading.timestamp < 2.6e11
        assert abs(reading.offset_s) <= 2**28
        assert reading.masked.keys() <= {part.key for part in reading.dropped} or "gone" in reading.masked.values()
        assert reading.values or reading.masked
        assert not reading.values.keys() & reading.masked.keys()
        for name in (*reading.values, *reading.masked):
            assert name.isprintable()
            assert 0 < len(name) <= MAX_NAME
        for value in reading.values.values():
            assert type(value) is float
            assert -LARGEST <= value <= LARGEST


def flatten(document: object, name: str) -> dict[str, float]:
    """The rule for names, as plainly as it can be said."""
    if isinstance(document, dict):
        children = document.items()
    elif isinstance(document, list):
        children = enumerate(document)
    else:
        return {name: document}
    flat: dict[str, float] = {}
    for key, child in children:
        flat.update(flatten(child, f"{name}.{key}" if name else str(key)))
    return flat


def depth(document: object) -> int:
    children = document.values() if isinstance(document, dict) else document if isinstance(document, list) else []
    return max((1 + depth(child) for child in children), default=0)


@given(document=st.dictionaries(plain_names, nested_numbers, min_size=1, max_size=4))
def test_nested_json_reads_back_as_dotted_names(document):
    decoder = Decoder(SubscriptionConfig("t/{stream}"))
    payload = json.dumps(document).encode()
    if depth(document) > MAX_DEPTH:
        with pytest.raises(PayloadError, match="too_deep"):
            decoder.decode("t/pump", payload)
    elif all(len(name) <= MAX_NAME for name in flatten(document, "")):
        assert decoder.decode("t/pump", payload).readings[0].values == flatten(document, "")


@given(value=numbers)
def test_a_bare_number_reads_back(value):
    decoder = Decoder(SubscriptionConfig("t/{stream}", "value"))
    assert decoder.decode("t/pump", repr(value).encode()).readings[0].values == {"value": value}


def escape(text: str) -> str:
    return text.replace(",", "\\,").replace("=", "\\=").replace(" ", "\\ ")


line_names = st.text(st.sampled_from('ab,= "#é'), min_size=1, max_size=6)


@given(
    measurement=line_names.filter(lambda name: name.strip() == name and name[0] != "#"),
    tags=st.dictionaries(line_names.filter(lambda key: key != "host"), line_names, max_size=3),
    fields=st.dictionaries(
        names.filter(lambda name: '"' not in name and "\\" not in name), numbers, min_size=1, max_size=4
    ),
    texts=st.dictionaries(st.sampled_from(["s0", "s1"]), st.text(st.sampled_from('a ,=\\"#'), max_size=6)),
    nanoseconds=st.none() | st.integers(0, 4 * 10**18),
)
def test_line_protocol_reads_back(measurement, tags, fields, texts, nanoseconds):
    def quote(text: str) -> str:
        return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'

    head = ",".join([escape(measurement), *(f"{escape(key)}={escape(value)}" for key, value in tags.items())])
    body = ",".join(
        [f"{escape(name)}={quote(text)}" for name, text in texts.items()]
        + [f"{escape(name)}={value!r}" for name, value in fields.items()]
    )
    line = f"{head} {body}" + ("" if nanoseconds is None else f" {nanoseconds}")
    prefix = ".".join([measurement, *(tags[key] for key in sorted(tags))])
    decoder = Decoder(SubscriptionConfig("t/{stream}", "influx", precision="ns"))
    (reading,) = decoder.decode("t/pump", line.encode()).readings
    assert reading.values == {f"{prefix}.{name}": value for name, value in fields.items()}
    assert reading.masked == {f"{prefix}.{name}": "text" for name in texts if name not in fields}
    assert reading.timestamp == (None if nanoseconds is None else nanoseconds / 1e9)


@given(
    # Milliseconds from 2590 on may be year to second, digit by digit.
    moment=st.datetimes(datetime(1974, 1, 1), datetime(2590, 1, 1)),  # noqa: DTZ001 - Hypothesis wants naive limits
    minutes=st.integers(-14 * 60, 14 * 60),
    separator=st.sampled_from("T "),
)
def test_a_moment_reads_back_in_every_notation(moment, minutes, separator):
    utc = moment.replace(tzinfo=UTC)
    seconds = utc.timestamp()
    local = utc.astimezone(timezone(timedelta(minutes=minutes)))
    for text in (local.isoformat(separator), moment.isoformat(separator), moment.isoformat(separator) + "Z"):
        assert unix_seconds(text) == seconds
    for factor in (1.0, 1e3, 1e6, 1e9):
        assert math.isclose(unix_seconds(seconds * factor), seconds, rel_tol=1e-14)
        assert math.isclose(unix_seconds(repr(seconds * factor)), seconds, rel_tol=1e-14)


def mqtt_matches(subscription: list[str], topic: list[str]) -> bool:
    """MQTT 5, section 4.7, word for word."""
    if subscription == ["#"]:
        return True
    if not subscription or not topic:
        return subscription == topic
    return subscription[0] in ("+", topic[0]) and mqtt_matches(subscription[1:], topic[1:])


@given(
    template=st.lists(st.sampled_from(["a", "b", "", "+", "{stream}", "{feature}"]), min_size=1, max_size=5),
    is_open=st.booleans(),
    topic=st.lists(st.sampled_from(["a", "b", ""]) | levels, min_size=1, max_size=6),
)
def test_a_template_matches_what_its_subscription_receives(template, is_open, topic):
    text = "/".join(template + ["#"] * is_open)
    if not text or template.count("{stream}") > 1 or template.count("{feature}") > 1 or topic[0][:1] == "$":
        return
    parsed = TopicTemplate.parse(text)
    matched = parsed.match("/".join(topic))
    assert (matched is not None) == mqtt_matches(parsed.subscription.split("/"), topic)
    if matched is not None:
        assert matched == tuple(
            topic[template.index(name)] if name in template else None for name in ("{stream}", "{feature}")
        )


@given(
    before=st.lists(st.sampled_from(["a", "+", "{feature}"]), max_size=2),
    after=st.lists(st.sampled_from(["a", "b", "+", "{feature}"]), max_size=2),
    topic=st.lists(st.sampled_from(["a", "b", "", "a.b", "%2E"]), min_size=1, max_size=6),
)
def test_a_stream_of_several_levels_is_what_the_other_levels_leave(before, after, topic):
    if [*before, *after].count("{feature}") > 1:
        return
    template = TopicTemplate.parse("/".join([*before, "{stream...}", *after]))
    middle = topic[len(before) : len(topic) - len(after)]
    others = [*topic[: len(before)], *topic[len(topic) - len(after) :]]
    matched = template.match("/".join(topic))
    fits = len(middle) > 0 and all(
        level[0] in "+{" or level == given for level, given in zip([*before, *after], others, strict=True)
    )
    assert (matched is not None) == fits
    if matched is not None:
        assert [unquote(level) for level in matched[0].split(".")] == middle
        assert matched[1] == next(
            (given for level, given in zip([*before, *after], others, strict=True) if level == "{feature}"), None
        )


@given(whole=st.integers(-(10**10), 10**10), digits=st.integers(1, 4))
def test_a_number_reads_back_as_any_country_writes_it(whole, digits):
    value = whole / 10**digits
    english = f"{value:,.{digits}f}"
    german = english.translate(str.maketrans(",.", ".,"))
    assert Scalars("point").number("a", english) == Scalars("comma").number("a", german) == float(f"{value:.{digits}f}")
    assert Scalars().number("a", english) == Scalars("point").number("a", english)
    is_ambiguous = digits == 3 and "." not in german
    assert Scalars().number("a", german) == ("ambiguous" if is_ambiguous else Scalars("comma").number("a", german))


@given(text=st.text(st.sampled_from("ab{}stream/+#\0"), max_size=24))
def test_a_template_is_parsed_or_refused(text):
    try:
        parsed = TopicTemplate.parse(text)
    except ValueError:
        return
    assert not set(parsed.subscription) & set("{}\0")
