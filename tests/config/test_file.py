"""Configuration: what a file may say, and what a person is told when it says something else."""

import re
from pathlib import Path

import pytest
import yaml

from gon_edge.config.file import Config, load_config, options, parse_config, parse_duration, parse_size
from gon_edge.errors import ConfigError

ROOT = Path(__file__).parents[2]
ANNOTATED = ROOT / "configs" / "gon-edge.yaml"
MINIMAL = ROOT / "configs" / "minimal.yaml"
SMALLEST = {"mqtt": {"url": "mqtt://localhost"}, "subscriptions": [{"topic": "telemetry/{stream}"}]}


def with_option(path: str, value: object) -> dict:
    """The smallest configuration with one more option, given by its dotted path."""
    mapping = {"mqtt": dict(SMALLEST["mqtt"]), "subscriptions": [dict(SMALLEST["subscriptions"][0])]}
    here = mapping
    *sections, last = path.split(".")
    for section in sections:
        here = here[0] if isinstance(here := here.setdefault(section, {}), list) else here
    here[last] = value
    return mapping


def value_of(config: Config, path: str) -> object:
    return dict(options(config))[path.replace("subscriptions.", "subscriptions[].")]


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "gon-edge.yaml"
    path.write_text(text)
    return path


def error_of(call, *arguments, **keywords) -> str:
    with pytest.raises(ConfigError) as caught:
        call(*arguments, **keywords)
    assert "\n" not in str(caught.value)
    return str(caught.value)


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


# -- values ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("30s", 30), ("5m", 300), ("24h", 86400), ("250ms", 0.25), ("1h30m", 5400), ("1.5m", 90), ("12", 12), (0.5, 0.5)],
)
def test_durations(text, seconds):
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "5 parsecs", "-5s", "5m3", "nan", "inf", "m5", "5mm"])
def test_what_is_no_duration_is_refused(text):
    with pytest.raises(ValueError, match="not a duration"):
        parse_duration(text)


@pytest.mark.parametrize(
    ("text", "size_bytes"),
    [("64MiB", 64 << 20), ("256KiB", 256 << 10), ("10MB", 10_000_000), ("1.5KiB", 1536), (512, 512), ("2GiB", 2 << 30)],
)
def test_sizes(text, size_bytes):
    assert parse_size(text) == size_bytes


@pytest.mark.parametrize("text", ["", "64mib", "-1", "10 apples", "1e9"])
def test_what_is_no_size_is_refused(text):
    with pytest.raises(ValueError, match="not a size"):
        parse_size(text)


@pytest.mark.parametrize(
    ("path", "text", "value"),
    [
        ("streams.defaults.interval", "500ms", 0.5),
        ("streams.defaults.interval", "auto", None),
        ("streams.defaults.interval", None, None),
        ("streams.defaults.window", "30", 30),
        ("streams.defaults.include", "motor.*", ("motor.*",)),
        ("streams.defaults.include", ["a", "b"], ("a", "b")),
        ("streams.defaults.alerts.budget", "1/day", 1.0),
        ("streams.defaults.alerts.budget", "1/week", 1 / 7),
        ("streams.defaults.alerts.budget", "3/hour", 72.0),
        ("store.max_size", "64MiB", 64 << 20),
        ("http.listen", "off", "off"),
        ("http.listen", False, "off"),
        ("mqtt.protocol", "5", "5"),
        ("log.level", "debug", "debug"),
        ("retrain.deadline", 90, 90.0),
    ],
)
def test_an_option_is_read(path, text, value):
    assert value_of(parse_config(with_option(path, text)), path) == value


@pytest.mark.parametrize(
    ("path", "value", "says"),
    [
        ("streams.defaults.interval", "fast", "write a duration such as 30s"),
        ("streams.defaults.interval", 0, "write a duration of 0.01s or more"),
        ("streams.defaults.warmup_rows", "many", "write a whole number of at least 1, not 'many'"),
        ("streams.defaults.warmup_rows", 1.5, "write a whole number"),
        ("streams.defaults.warmup_rows", True, "write a whole number"),
        ("streams.defaults.warmup_rows", [1], "write a whole number"),
        ("streams.defaults.alerts.clear_ratio", 0, "above 0, 1 at most"),
        ("streams.defaults.alerts.clear_ratio", 1.1, "above 0, 1 at most"),
        ("streams.defaults.alerts.critical_ratio", "nan", "write a number of at least 1"),
        ("streams.defaults.alerts.budget", "1", "write a rate such as 1/day"),
        ("streams.defaults.alerts.budget", "0/day", "write a rate such as 1/day"),
        ("streams.defaults.alerts.raise_rows", 6, "at most raise_of (5)"),
        ("streams.defaults.window", 1, "a whole number from 2 to 1000"),
        ("store.max_size", "64mib", "write a size such as 256KiB"),
        ("store.rows", 100, "write at least streams.defaults.warmup_rows (600)"),
        ("retrain.nice", 20, "a whole number from 0 to 19"),
        ("http.listen", "9109", "write HOST:PORT"),
        ("http.listen", "localhost:99999", "write HOST:PORT"),
        ("log.level", "warn", "did you mean warning?"),
        ("mqtt.protocol", 4, "write one of auto, 5, 3.1.1"),
        ("mqtt.base_topic", "a/#", "without '+', '#'"),
        ("mqtt.reconnect_min", "5m", "write at most reconnect_max"),
        ("mqtt.password_file", "/x", "needs mqtt.username"),
        ("mqtt.ca_file", "/x", "has no effect with mqtt://"),
        ("node", "pi/1", "one level of an MQTT topic"),
        ("version", 2, "a whole number from 1 to 1"),
        ("state_dir", ["/x"], "write one piece of text"),
        ("limits", "256KiB", "write options below it"),
        ("streams.overrides", ["pump"], "write options below it"),
    ],
)
def test_a_wrong_value_says_what_to_write(path, value, says):
    message = error_of(parse_config, with_option(path, value))
    assert says in message
    assert f"{path}: " in message


@pytest.mark.parametrize(
    ("url", "scheme", "host", "port", "path", "tls"),
    [
        ("mqtt://broker", "mqtt", "broker", 1883, "/mqtt", False),
        ("mqtts://broker", "mqtts", "broker", 8883, "/mqtt", True),
        ("ws://broker/stream", "ws", "broker", 80, "/stream", False),
        ("wss://[::1]", "wss", "::1", 443, "/mqtt", True),
        ("mqtt://10.0.0.1:2883/", "mqtt", "10.0.0.1", 2883, "/mqtt", False),
    ],
)
def test_broker_urls(url, scheme, host, port, path, tls):
    mqtt = parse_config(with_option("mqtt.url", url)).mqtt
    assert (mqtt.scheme, mqtt.host, mqtt.port, mqtt.websocket_path, mqtt.tls) == (scheme, host, port, path, tls)


@pytest.mark.parametrize(
    "url",
    [
        "localhost",
        "http://x",
        "mqtt://",
        "mqtt://x:port",
        "mqtt://x:0",
        "mqtt://x/path",
        "mqtt://x:70000",
        "ws://x?a=1",
    ],
)
def test_what_is_no_broker_url_is_refused(url):
    assert "mqtt.url" in error_of(parse_config, with_option("mqtt.url", url))


def test_a_password_in_the_url_is_refused_and_not_repeated():
    message = error_of(parse_config, with_option("mqtt.url", "mqtt://me:hunter2@localhost"))
    assert "mqtt.username and mqtt.password_file" in message
    assert "hunter2" not in message


@pytest.mark.parametrize(
    ("listen", "host", "port"), [("127.0.0.1:9109", "127.0.0.1", 9109), ("[::1]:80", "::1", 80), (":9109", "", 9109)]
)
def test_listen_addresses(listen, host, port):
    http = parse_config(with_option("http.listen", listen)).http
    assert (http.host, http.port, http.enabled) == (host, port, True)


# -- subscriptions -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "topic", ["telemetry/{stream}", "a/+/{stream}/{feature}", "{stream}/#", "sensors/{stream}/+/x"]
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


# -- streams -----------------------------------------------------------------------------------------------------------


def test_an_override_changes_only_what_it_says():
    streams = {
        "defaults": {"warmup_rows": 300, "alerts": {"raise_rows": 2, "cooldown": "5m"}},
        "overrides": {"pump": {"interval": "1s", "alerts": {"raise_rows": 1}}},
    }
    config = parse_config({**SMALLEST, "streams": streams})
    pump, other = config.stream("pump"), config.stream("valve")
    assert (pump.warmup_rows, pump.interval_s, pump.alerts.raise_rows, pump.alerts.cooldown_s) == (300, 1.0, 1, 300.0)
    assert (other.warmup_rows, other.interval_s, other.alerts.raise_rows, other.alerts.cooldown_s) == (
        300,
        None,
        2,
        300.0,
    )


def test_a_stream_beside_defaults_is_told_where_it_belongs():
    message = error_of(parse_config, {**SMALLEST, "streams": {"pump": {"interval": "1s"}}})
    assert "streams.overrides.pump" in message


def test_a_window_longer_than_half_the_warm_up_is_refused():
    message = error_of(parse_config, with_option("streams.defaults.window", 400))
    assert "streams.defaults.warmup_rows: write at least two windows (800)" in message


def test_a_wrong_override_is_named():
    message = error_of(parse_config, {**SMALLEST, "streams": {"overrides": {"pump": {"alerts": {"raise_rows": 9}}}}})
    assert "streams.overrides.pump.alerts.raise_rows" in message


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


# -- environment and secrets -------------------------------------------------------------------------------------------


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


def secret(**options_of_mqtt) -> dict:
    return {**SMALLEST, "mqtt": {"url": "mqtt://x", "username": "me", **options_of_mqtt}}


def test_a_password_file_loses_its_line_break(tmp_path):
    (tmp_path / "password").write_text("hunter2 \n")
    assert parse_config(secret(password_file=str(tmp_path / "password"))).mqtt.password() == "hunter2 "


def test_a_relative_password_file_is_a_systemd_credential(tmp_path):
    (tmp_path / "broker").write_text("hunter2\r\n")
    config = parse_config(secret(password_file="broker"), environ={"CREDENTIALS_DIRECTORY": str(tmp_path)})
    assert config.mqtt.password() == "hunter2"


def test_a_password_may_come_from_the_environment():
    mqtt = parse_config(secret(password_env="MQTT_PASSWORD")).mqtt
    assert mqtt.password({"MQTT_PASSWORD": "hunter2"}) == "hunter2"
    assert "MQTT_PASSWORD is not set" in error_of(mqtt.password, {})


def test_no_password_is_no_password():
    assert parse_config(SMALLEST).mqtt.password() is None


def test_a_missing_password_file_is_named(tmp_path):
    mqtt = parse_config(secret(password_file=str(tmp_path / "no"))).mqtt
    assert "mqtt.password_file: cannot read" in error_of(mqtt.password)


def test_two_sources_of_a_password_are_refused():
    assert "not both" in error_of(parse_config, secret(password_file="/x", password_env="X"))


# -- training ----------------------------------------------------------------------------------------------------------


def test_what_is_off_is_none_and_hours_are_minutes_since_midnight():
    off = {"every": "off", "quiet_hours": "off", "max_temperature": "off", "max_load": False}
    retrain = parse_config({**SMALLEST, "retrain": off}).retrain
    assert (retrain.every_s, retrain.quiet_hours, retrain.max_temperature, retrain.max_load) == (None,) * 4
    retrain = parse_config({**SMALLEST, "retrain": {"every": "7d", "quiet_hours": "22:00-6:30"}}).retrain
    assert (retrain.every_s, retrain.quiet_hours) == (604800.0, (1320, 390))


@pytest.mark.parametrize(
    ("value", "truth"), [("true", True), (False, False), ("off", False), ("yes", True), ("No", False), ("on", True)]
)
def test_true_and_false_are_written_as_people_write_them(value, truth):
    assert parse_config({**SMALLEST, "retrain": {"on_drift": value}}).retrain.on_drift is truth


@pytest.mark.parametrize(
    ("option", "value", "said"),
    [
        ("quiet_hours", "22-6", 'write hours such as "22:00-06:00"'),
        ("quiet_hours", "25:00-06:00", 'write hours such as "22:00-06:00"'),
        ("quiet_hours", "06:00-06:00", "write two different times"),
        ("quiet_hours", "24:30-06:00", "write two different times"),
        ("on_drift", "maybe", "write true or false"),
        ("every", "10s", "write a duration of 60s or more"),
        ("cpu_share", "0", "write a number from 0.05 to 1"),
        ("max_temperature", "warm", "write a number from 20 to 150"),
    ],
)
def test_mistakes_in_retrain_say_what_to_write(option, value, said):
    assert said in error_of(parse_config, {**SMALLEST, "retrain": {option: value}})
