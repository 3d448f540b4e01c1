"""What the options of a subscription mean together, and which are refused."""

import sys

import pytest
from configurations import SMALLEST, error_of, with_option

from gon_edge.config.file import effective, parse_config
from gon_edge.config.subscription import StreamKey


@pytest.mark.parametrize(
    "topic",
    [
        "telemetry/{stream}",
        "a/+/{stream}/{feature}",
        "home/{stream...}/{feature}",
        "{stream}/#",
        "sensors/{stream}/+/x",
    ],
)
def test_topic_templates(topic):
    assert parse_config(with_option("subscriptions.topic", topic)).subscriptions[0].topic == topic


@pytest.mark.parametrize(
    ("entry", "says"),
    [
        ({"topic": "telemetry"}, "put {stream} into the topic"),
        ({"topic": "a/{device}"}, "only {stream}, {feature}"),
        ({"topic": "a/{stream"}, "only {stream}, {feature}"),
        ({"topic": "a/x-{stream}"}, "only {stream}, {feature}"),
        ({"topic": "{stream}/{stream}"}, "once"),
        ({"topic": "#/{stream}"}, "must be the last level"),
        ({"topic": "{stream}/a#"}, "each as the whole level"),
        ({"topic": "{stream}/a+"}, "each as the whole level"),
        ({"topic": "{stream}", "stream": "pump"}, "already says the stream"),
        ({"topic": "{stream}", "format": "value", "timestamp": "t"}, "the format is value"),
        ({"topic": "{stream}/{feature}", "format": "influx"}, "write + or # instead of {feature}"),
        ({"topic": "{stream}/{feature...}", "format": "sparkplug"}, "metrics have names of their own"),
        ({"topic": "t", "format": "senml", "stream": {"key": "n"}}, "write {key: bn}"),
        ({"topic": "$share/edge"}, "write $share/GROUP/TOPIC"),
        ({"topic": "$share/+/{stream}"}, "write $share/GROUP/TOPIC"),
        ({"topic": "{stream...}/#"}, "nothing says where it would end"),
        ({"topic": "{stream}/{stream...}"}, "nothing says where it would end"),
        ({"topic": "{stream...}/{stream...}"}, "once"),
        ({"topic": "{stream}", "stream": {"key": "id"}}, "already says the stream"),
        ({"topic": "t", "items": "{stream}", "stream": "pump"}, "place of the items already says the stream"),
        ({"topic": "{stream}", "items": "a.{stream}"}, "in topic or in items, not in both"),
        ({"topic": "t", "stream": {"id": "x"}}, "{key: KEY}"),
        ({"topic": "t", "stream": {"key": ""}}, "write a key of the payload"),
        ({"topic": "t", "format": "value", "stream": {"key": "id"}}, "the format is value"),
        ({"topic": "{stream}", "format": "influx", "name_key": "n"}, "the format is influx"),
        ({"topic": "{stream}", "format": "json", "precision": "s"}, "the format is json"),
        ({"topic": "{stream}", "timezone": "Europe/Berln"}, "did you mean Europe/Berlin?"),
        ({"topic": "{stream}", "map": {"heat": "warm"}}, "map.heat: write a number"),
        ({"topic": "{stream}", "map": {"*.mode": {"heat": "x"}}}, "map.*.mode.heat: write a number"),
        ({"topic": "{stream}", "map": ["heat"]}, "write words and their numbers"),
        ({"topic": "{stream}", "format": "jsn"}, "did you mean json?"),
        ({"format": "json"}, "topic: is required"),
        ("telemetry/{stream}", "write options below it"),
    ],
)
def test_a_wrong_subscription_says_what_to_write(entry, says):
    message = error_of(parse_config, {**SMALLEST, "subscriptions": [SMALLEST["subscriptions"][0], entry]})
    assert says in message
    assert "subscriptions[1]" in message


def test_a_topic_without_a_stream_may_name_one():
    config = parse_config(
        {**SMALLEST, "subscriptions": [{"topic": "tele/+/{feature}", "stream": "house", "format": "value"}]}
    )
    assert config.subscriptions[0].stream == "house"


@pytest.mark.parametrize(("written", "library"), [("cbor", "cbor2"), ("msgpack", "msgpack")])
@pytest.mark.parametrize(
    ("prefix", "install"),
    [("/usr", "sudo apt install python3-{}"), ("/opt/gon-edge", "/opt/gon-edge/bin/pip install {}")],
)
def test_a_format_whose_library_is_not_installed_is_refused_with_the_line_to_type(
    monkeypatch, written, library, prefix, install
):
    wanted = with_option("subscriptions.format", written)
    assert parse_config(wanted).subscriptions[0].format == written
    monkeypatch.setattr("gon_edge.config.subscription.find_spec", lambda name: None)
    monkeypatch.setattr(sys, "prefix", prefix)
    monkeypatch.setattr(sys, "base_prefix", "/usr")
    message = error_of(parse_config, wanted)
    assert f"subscriptions[0].format: {written} is read by the package {library}" in message
    assert message.endswith("type: " + install.format(library))


def test_words_are_for_all_features_or_by_pattern():
    def words(written):
        return parse_config(with_option("subscriptions.map", written)).subscriptions[0].words

    assert words({"heat": "1", "idle": 0}) == {"*": {"heat": 1.0, "idle": 0.0}}
    assert words({"*.mode": {"heat": 2}}) == {"*.mode": {"heat": 2.0}}
    assert words({"idle": 0, "*.mode": {"heat": 2}}) == {"*.mode": {"heat": 2.0}, "*": {"idle": 0.0}}
    assert words(None) == {}


def test_everything_a_subscription_can_say_is_written_as_it_can_be_read():
    entry = {
        "topic": "t",
        "stream": {"key": ["model", "id"]},
        "items": "data.values",
        "name_key": "n",
        "value_key": "v",
        "timestamp": "t",
        "timezone": "Europe/Berlin",
        "decimal": "comma",
        "precision": "ms",
        "map": {"*.mode": {"heat": 2}, "idle": 0},
    }
    config = parse_config({**SMALLEST, "subscriptions": [entry]})
    assert config.subscriptions[0].stream == StreamKey(("model", "id"))
    assert parse_config(effective(config)).subscriptions == config.subscriptions


def test_without_a_database_of_time_zones_utc_is_known_and_others_say_what_to_install(monkeypatch):
    import zoneinfo

    monkeypatch.setattr(zoneinfo, "TZPATH", ())
    monkeypatch.setattr(zoneinfo, "available_timezones", set)

    def missing(name):
        raise zoneinfo.ZoneInfoNotFoundError(name)

    monkeypatch.setattr(zoneinfo, "ZoneInfo", missing)
    assert parse_config(with_option("subscriptions.timezone", "UTC")).subscriptions[0].timezone == "UTC"
    assert "install tzdata" in error_of(parse_config, with_option("subscriptions.timezone", "Europe/Berlin"))
