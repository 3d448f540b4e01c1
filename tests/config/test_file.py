"""The file: what it may hold, where a mistake is, and the files that are shipped."""

import math
import re
from pathlib import Path

import pytest
import yaml
from configurations import SMALLEST, error_of, with_option, written

from gon_edge.config.file import effective, load_config, options, parse_config
from gon_edge.config.schema import FeatureConfig
from gon_edge.errors import ConfigError

ROOT = Path(__file__).parents[2]
ANNOTATED = ROOT / "configs" / "gon-edge.yaml"
MINIMAL = ROOT / "configs" / "minimal.yaml"


# -- the shipped files -------------------------------------------------------------------------------------------------


def uncommented() -> str:
    """The annotated file with every option at default made active: one '# ' goes, '##' stays a comment."""
    return re.sub(r"^( *)# (.*)$", r"\1\2", ANNOTATED.read_text(), flags=re.MULTILINE)


def leaves(mapping, prefix=""):
    for key, value in mapping.items():
        if isinstance(value, dict) and value:
            yield from leaves(value, f"{prefix}{key}.")
        elif key == "subscriptions":
            yield from leaves(value[0], "subscriptions[].")
        else:
            yield prefix + key


def test_the_annotated_file_is_usable_as_it_is():
    config = load_config(ANNOTATED)
    assert config.node == "pi-1"
    assert config.subscriptions[0].timestamp == "datetime"


def test_the_annotated_file_holds_every_option_once():
    documented = list(leaves(yaml.safe_load(uncommented())))
    assert sorted(path for path, _ in options(load_config(MINIMAL))) == sorted(documented)


def test_the_annotated_file_shows_the_true_defaults(tmp_path):
    defaults = dict(options(parse_config(SMALLEST)))
    shown = dict(options(load_config(written(tmp_path, uncommented()))))
    differ = {path for path in defaults if shown[path] != defaults[path]}
    assert differ == {"node", "mqtt.url", "subscriptions[].timestamp"}


def test_every_option_is_explained_above_it():
    lines = ANNOTATED.read_text().splitlines()
    explained = False
    for line in lines:
        if not line.strip():
            explained = False
        elif line.strip().startswith("##"):
            explained = True
        elif not re.match(r"[ #]*[a-z_]+:$", line):  # a section's name explains itself
            assert explained, line


def test_the_annotated_file_keeps_to_its_width():
    assert [line for line in ANNOTATED.read_text().splitlines() if len(line) > 120] == []


def test_minimal_differs_from_the_defaults_only_in_what_it_sets():
    assert load_config(MINIMAL).stream("any").warmup_rows == 600
    assert load_config(MINIMAL).http.port == 9109


# -- keys --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "hint"),
    [
        ("mqtt.ulr", "did you mean url?"),
        ("flush_every", "did you mean store.flush_every?"),
        ("stor", "did you mean store?"),
        ("streams.defaults.alerts.raise_row", "did you mean raise_rows?"),
        ("mqtt.zzz", "known here: url, client_id"),
    ],
)
def test_an_unknown_key_gets_the_nearest_name(path, hint):
    message = error_of(parse_config, with_option(path, 1))
    assert f"{path}: unknown option" in message
    assert hint in message


def test_an_error_names_file_and_line(tmp_path):
    path = written(
        tmp_path, "mqtt:\n  url: mqtt://localhost\n  keepalive: soon\nsubscriptions:\n  - topic: '{stream}'\n"
    )
    with pytest.raises(ConfigError) as caught:
        load_config(path)
    assert str(caught.value).startswith(f"{path}:3: mqtt.keepalive: write a duration")
    assert (caught.value.path, caught.value.line, caught.value.key) == (path, 3, "mqtt.keepalive")


def test_a_key_with_a_line_break_is_still_one_line(tmp_path):
    # Found by fuzzing: YAML allows it between quotes, and in flow mappings of several lines.
    assert "mqtt.a\\nb: unknown option" in error_of(load_config, written(tmp_path, 'mqtt: {"a\\nb": 1}\n'))


def test_a_key_written_twice_is_an_error(tmp_path):
    message = error_of(load_config, written(tmp_path, "node: a\nmqtt:\n  url: mqtt://x\nnode: b\n"))
    assert ":4: node: written twice (first in line 1)" in message


# -- the file ----------------------------------------------------------------------------------------------------------


TEXT = "mqtt: {url: 'mqtt://localhost'}\nsubscriptions: [{topic: '{stream}'}]\n"


@pytest.mark.parametrize("content", ["", "# nothing\n", "---\n", "{}\n"])
def test_an_empty_file_names_what_is_required(tmp_path, content):
    message = error_of(load_config, written(tmp_path, content))
    assert "mqtt.url and at least one entry of subscriptions" in message


@pytest.mark.parametrize("mapping", [{"mqtt": {"url": "mqtt://x"}}, {**SMALLEST, "subscriptions": []}])
def test_a_subscription_is_required(mapping):
    assert "subscriptions: " in error_of(parse_config, mapping)


def test_the_broker_is_required():
    assert "mqtt.url: is required" in error_of(parse_config, {"subscriptions": SMALLEST["subscriptions"]})


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a: &x [1]\nb: *x\n", "aliases"),
        ("<<: {a: 1}\n" + TEXT, "unknown option"),
        ("- a\n- b\n", "write options as KEY: VALUE"),
        ("just text\n", "write options as KEY: VALUE"),
        ("a: [1\n", "is not YAML"),
        ("a: !!python/object/apply:os.system [id]\n", "remove the tag"),
        ("a: !secret x\n", "remove the tag"),
        ("a: " + "[" * 5000 + "\n", "nested too deeply"),
        ("a: \x01\n", "is not YAML"),
        (TEXT + "---\n" + TEXT, "is not YAML"),
        ("? [a]\n: 1\n", "write a name before the colon"),
    ],
)
def test_yaml_that_is_refused(tmp_path, text, says):
    assert says in error_of(load_config, written(tmp_path, text))


def test_a_huge_file_is_refused(tmp_path):
    assert "larger than 1 MiB" in error_of(load_config, written(tmp_path, "#" * (1 << 20) + "\n"))


def test_a_file_that_is_not_text_is_refused(tmp_path):
    path = tmp_path / "x.yaml"
    path.write_bytes(b"\xff\xfe\x00")
    assert "is not UTF-8 text" in error_of(load_config, path)


def test_a_missing_file_is_named(tmp_path):
    assert f"{tmp_path / 'no.yaml'}: cannot be read: No such file" in error_of(load_config, tmp_path / "no.yaml")


def test_words_that_yaml_takes_for_other_things_stay_text(tmp_path):
    config = load_config(written(tmp_path, "node: no\nhttp: {listen: off}\n" + TEXT))
    assert (config.node, config.http.enabled) == ("no", False)


# -- environment -------------------------------------------------------------------------------------------------------


def test_environment_variables_are_filled_in():
    mapping = {**SMALLEST, "node": "${SITE}-${UNIT:-1}", "state_dir": "/$${SITE}", "retrain": {"nice": "${NICE:-5}"}}
    config = parse_config(mapping, environ={"SITE": "north"})
    assert (config.node, str(config.state_dir), config.retrain.nice) == ("north-1", "/${SITE}", 5)


def test_a_variable_that_is_not_set_is_named():
    message = error_of(parse_config, {**SMALLEST, "node": "${SITE}"}, environ={})
    assert "node: environment variable SITE is not set" in message


def test_the_host_name_is_the_default_node(monkeypatch):
    monkeypatch.setattr("socket.gethostname", lambda: "pi 3/b")
    assert parse_config(SMALLEST).node == "pi-3-b"


def test_options_of_features_by_pattern_are_read_merged_and_written_back() -> None:
    features = {"door_*": {"missing_after": "never", "max_hold": "1d"}, "*": {"max_hold": "5m"}}
    mapping = {
        "mqtt": {"url": "mqtt://localhost"},
        "subscriptions": [{"topic": "t/{stream}"}],
        "streams": {
            "defaults": {"features": features},
            "overrides": {"hall": {"features": {"door_*": {"missing_after": "2h"}, "door_9": {"max_hold": "9d"}}}},
        },
    }
    config = parse_config(mapping)
    other, hall = config.stream("other"), config.stream("hall")
    assert other.feature("door_1") == FeatureConfig(300.0, math.inf)  # the last pattern that sets it counts
    assert hall.feature("door_1") == FeatureConfig(300.0, 7200.0)
    assert hall.feature("door_9") == FeatureConfig(9 * 86400.0, 7200.0)
    assert other.feature("x") == FeatureConfig(300.0, None)
    assert parse_config(effective(config)) == config


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"a": {"hold": "1d"}}, "streams.defaults.features.a.hold: unknown option"),
        ({"a": {"missing_after": "soon"}}, "streams.defaults.features.a.missing_after: write a duration"),
        ({"a": 5}, "streams.defaults.features.a: write options below it"),
        (["a"], "streams.defaults.features: write options below it"),
    ],
)
def test_a_mistake_in_the_options_of_a_feature_names_its_key(options: object, said: str) -> None:
    mapping = {
        "mqtt": {"url": "mqtt://localhost"},
        "subscriptions": [{"topic": "t/{stream}"}],
        "streams": {"defaults": {"features": options}},
    }
    with pytest.raises(ConfigError) as caught:
        parse_config(mapping)
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("entry", "wanted"),
    [
        ("topic: {stream}/temp", '"{stream}/temp"'),
        ("{topic: {stream}/{feature}, format: value}", '"{stream}/{feature}"'),
        ("topic: {stream...}/a/{feature}", '"{stream...}/a/{feature}"'),
        ("topic: {stream}", '"{stream}"'),
    ],
)
def test_a_topic_that_yaml_takes_for_a_mapping_is_to_be_quoted(tmp_path, entry, wanted):
    path = tmp_path / "gon-edge.yaml"
    path.write_text(f'mqtt: {{url: "mqtt://localhost"}}\nsubscriptions:\n  - {entry}\n')
    with pytest.raises(ConfigError, match="in quotes") as caught:
        load_config(path)
    assert wanted in str(caught.value)
    assert caught.value.line == 3


@pytest.mark.parametrize(
    ("subscription", "more", "says"),
    [
        ({"topic": "x", "stream": "{id}"}, {}, "would be the name itself"),
        ({"topic": "$share/g/x/{stream}", "retained": "seed"}, {}, "no retained messages"),
        ({"topic": "$share//{stream}"}, {}, "GROUP"),
        ({"topic": "x", "stream": "pump"}, {"overrides": {"pmup": {}}}, "did you mean pump"),
        ({"topic": "{stream}"}, {"overrides": {"pump*": {}}}, "patterns are for features"),
        ({"topic": "{stream...}/x"}, {"overrides": {"hall/bath": {}}}, "hall.bath"),
        ({"topic": "{stream}"}, {"defaults": {"exclude": ["temp[0]"]}}, "'temp.0'"),
        ({"topic": "{stream}"}, {"defaults": {"include": "[temp, hum]"}}, "leave the quotes out"),
        ({"topic": "{stream}"}, {"defaults": {"exclude": ["a[z-b]"]}}, "matches nothing"),
        ({"topic": "{stream}"}, {"defaults": {"counter": ["e[1]"]}}, "'e[[]1]'"),
    ],
)
def test_what_cannot_work_is_refused_with_what_to_write(subscription, more, says):
    with pytest.raises(ConfigError, match=re.escape(says)):
        parse_config({"mqtt": {"url": "mqtt://localhost"}, "subscriptions": [subscription], "streams": more})


@pytest.mark.parametrize("glob", ["temp[0-9]", "t[ab]", "[!x]*", "x[", "a[[]0]"])
def test_patterns_with_brackets_that_mean_something_are_taken(glob):
    config = parse_config(
        {
            "mqtt": {"url": "mqtt://localhost"},
            "subscriptions": [{"topic": "$share/g/{stream}"}],
            "streams": {"defaults": {"exclude": [glob]}},
        }
    )
    assert config.streams.defaults.exclude == (glob,)
