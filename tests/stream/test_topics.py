"""Topic templates: what they subscribe to, what they match, which are refused."""

from urllib.parse import unquote

import pytest

from gon_edge.stream.topics import TopicTemplate, joined, outermost


@pytest.mark.parametrize(
    ("template", "subscription", "topic", "names"),
    [
        ("telemetry/{stream}", "telemetry/+", "telemetry/pump", ("pump", None)),
        ("telemetry/{stream}/{feature}", "telemetry/+/+", "telemetry/pump/flow", ("pump", "flow")),
        ("sensors/+/{stream}/#", "sensors/+/+/#", "sensors/hall/pump/a/b", ("pump", None)),
        ("sensors/+/{stream}/#", "sensors/+/+/#", "sensors/hall/pump", ("pump", None)),  # MQTT: # includes the parent
        ("plain", "plain", "plain", (None, None)),
        ("#", "#", "a/b", (None, None)),
        ("telemetry/{stream}", "telemetry/+", "telemetry/", ("", None)),
        ("telemetry/{stream}", "telemetry/+", "telemetry/pump/flow", None),
        ("telemetry/{stream}/{feature}", "telemetry/+/+", "telemetry/pump", None),
        ("telemetry/{stream}", "telemetry/+", "other/pump", None),
        ("sensors/+/{stream}/#", "sensors/+/+/#", "sensors/hall", None),
        ("#", "#", "$SYS/broker/uptime", None),
        ("{stream}/state", "+/state", "$SYS/state", None),
        ("N/{stream}/{feature...}", "N/+/#", "N/c0/battery/256/Soc", ("c0", "battery.256.Soc")),
        ("N/{stream}/{feature...}", "N/+/#", "N/c0/heartbeat", ("c0", "heartbeat")),
        ("N/{stream}/{feature...}", "N/+/#", "N/c0", None),  # MQTT sends the parent, too
        ("{feature...}", "#", "a/b", (None, "a.b")),
        ("home/{stream...}/{feature}", "home/#", "home/ground/bath/t", ("ground.bath", "t")),
        ("home/{stream...}/{feature}", "home/#", "home/bath/t", ("bath", "t")),
        ("home/{stream...}/{feature}", "home/#", "home/t", None),
        ("home/{stream...}/{feature}", "home/#", "other/bath/t", None),
        ("home/{stream...}/{feature}", "home/#", "home/ground.bath/t", ("ground%2Ebath", "t")),
        ("home/{stream...}/{feature}", "home/#", "home/ground%2Ebath/t", ("ground%252Ebath", "t")),
        ("home/{stream...}", "home/#", "home/a/b/c", ("a.b.c", None)),
        ("home/{stream...}", "home/#", "home", None),
        ("{stream...}/+/state", "#", "a/b/c/state", ("a.b", None)),
        ("{stream...}/+/state", "#", "a/b/c/other", None),
        ("{stream...}/state", "#", "$SYS/state", None),
        ("{feature}/{stream...}/x", "+/#", "f/a/b/x", ("a.b", "f")),
    ],
)
def test_a_template_subscribes_and_matches_as_mqtt_does(template, subscription, topic, names):
    parsed = TopicTemplate.parse(template)
    assert parsed.subscription == subscription
    assert parsed.match(topic) == names


@pytest.mark.parametrize(
    "template",
    [
        "",
        "a\0b",
        "a/#/b",
        "a/x{stream}",
        "a/{stream}x",
        "a/{Stream}",
        "a/{node}",
        "{stream}/{stream}",
        "{feature}/a/{feature}",
        "a+/b",
        "a#",
        "{",
        "a/{feature...}/b",
        "{feature}/{feature...}",
        "a/{stream...}/#",
        "a/{stream...}/{feature...}",
        "{stream}/{stream...}",
        "{stream...}/{stream...}",
    ],
)
def test_a_wrong_template_is_refused(template):
    with pytest.raises(ValueError, match=r"topic|stands twice|last level|whole level|cannot be told"):
        TopicTemplate.parse(template)


def test_a_shared_subscription_matches_the_topics_behind_its_group():
    template = TopicTemplate.parse("$share/edge/telemetry/{stream}")
    assert (template.filter, template.subscription) == ("telemetry/+", "$share/edge/telemetry/+")
    assert template.match("telemetry/pump") == ("pump", None)
    assert TopicTemplate.parse("$share/edge/#").match("$SYS/broker/uptime") is None


@pytest.mark.parametrize("text", ["$share", "$share/edge", "$share//a", "$share/+/a", "$share/{stream}/a"])
def test_a_shared_subscription_without_group_or_topic_is_refused(text):
    with pytest.raises(ValueError, match="GROUP"):
        TopicTemplate.parse(text)


@pytest.mark.parametrize(
    ("filters", "left"),
    [
        (("#", "a/+", "a/b/#"), ("#",)),
        (("a/#", "a", "ab/c"), ("a/#", "ab/c")),
        (("+/b", "a/+"), ("+/b", "a/+")),
        (("a/+", "a/b", "a/b/c"), ("a/+", "a/b/c")),
        (("#", "$SYS/#", "$share/g/a"), ("#", "$SYS/#", "$share/g/a")),
    ],
)
def test_a_filter_that_another_one_takes_in_is_not_subscribed_to(filters, left):
    """mosquitto sends a message once for each filter that matches: every reading came twice."""
    assert outermost(filters) == left


@pytest.mark.parametrize(
    "levels", [["a", "b"], ["a.b"], ["a", "", "b"], ["a.", "b"], ["a", ".b"], ["a%2Eb"], ["a", "%2E", "b"], ["", ""]]
)
def test_no_two_ways_of_levels_have_one_name(levels):
    name = joined(levels)
    assert [unquote(part) for part in name.split(".")] == levels
