"""What options mean together: streams and their overrides, secrets, training."""

import pytest
from configurations import SMALLEST, error_of, with_option

from gon_edge.config.file import parse_config

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


def test_a_feature_that_is_called_a_counter_and_a_gauge_is_refused():
    streams = {"defaults": {"counter": "*.energy", "gauge": ["*.level", "*.energy"]}}
    message = error_of(parse_config, {**SMALLEST, "streams": streams})
    assert "streams.defaults.gauge: remove '*.energy' here or from counter" in message


def test_a_wrong_override_is_named():
    message = error_of(parse_config, {**SMALLEST, "streams": {"overrides": {"pump": {"alerts": {"raise_rows": 9}}}}})
    assert "streams.overrides.pump.alerts.raise_rows" in message


# -- secrets -----------------------------------------------------------------------------------------------------------


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


@pytest.mark.parametrize(
    ("content", "wrong"),
    [
        (b"", "is empty"),
        (b"\n", "is empty"),
        (b"  \r\n", "is empty"),
        (b"hunter2\nhunter3\n", "has more than one line"),
        (b"hunter2\r\nhunter3", "has more than one line"),
        (b"\xef\xbb\xbfhunter2\n", "begins with a byte order mark"),
        (b"\xff\xfeh\x00", "not UTF-8 text"),
        (b"hunter\x002", "holds the control character"),
        (b"h" * 70000, "larger than 65535 bytes"),
    ],
    ids=lambda value: repr(value)[:24],
)
def test_a_file_that_holds_no_password_is_refused_and_says_why(tmp_path, content, wrong):
    # A broker only said that the password was wrong.
    (tmp_path / "password").write_bytes(content)
    file = str(tmp_path / "password")
    http = parse_config({**SMALLEST, "http": {"username": "me", "password_file": file, "token_file": file}}).http
    mqtt = parse_config(secret(password_file=file)).mqtt
    for read, key in ((mqtt.password, "mqtt.password_file"), (http.secrets, "http.token_file")):
        message = error_of(read)
        assert key in message
        assert wrong in message
        assert "one line" in message
        assert "hunter" not in message


def test_a_variable_that_holds_no_password_is_refused():
    mqtt = parse_config(secret(password_env="MQTT_PASSWORD")).mqtt
    assert "is empty" in error_of(mqtt.password, {"MQTT_PASSWORD": ""})
    assert "more than one line" in error_of(mqtt.password, {"MQTT_PASSWORD": "hunter2\n3"})


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
    ("option", "value", "said"),
    [
        ("quiet_hours", "22-6", 'write hours such as "22:00-06:00"'),
        ("quiet_hours", "25:00-06:00", 'write hours such as "22:00-06:00"'),
        ("quiet_hours", "06:00-06:00", "write two different times"),
        ("quiet_hours", "24:30-06:00", "write two different times"),
        ("on_drift", "maybe", "write true or false"),
        ("every", "10s", "write a duration of 60s to 366d"),
        ("cpu_share", "0", "write a number from 0.05 to 1"),
        ("max_temperature", "warm", "write a number from 20 to 150"),
    ],
)
def test_mistakes_in_retrain_say_what_to_write(option, value, said):
    assert said in error_of(parse_config, {**SMALLEST, "retrain": {option: value}})
