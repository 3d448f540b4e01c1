"""How values are written: durations, sizes, rates, URLs and the rest, and what is said of a wrong one."""

import pytest
from configurations import SMALLEST, error_of, value_of, with_option

from gon_edge.config.file import options, parse_config
from gon_edge.config.values import parse_duration, parse_size
from gon_edge.errors import ConfigError


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
        ("streams.defaults.interval", 0, "write a duration of 0.01s to 366d"),
        ("streams.defaults.warmup_rows", "many", "write a whole number from 1 to 1000000000, not 'many'"),
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


@pytest.mark.parametrize(
    ("value", "truth"), [("true", True), (False, False), ("off", False), ("yes", True), ("No", False), ("on", True)]
)
def test_true_and_false_are_written_as_people_write_them(value, truth):
    assert parse_config({**SMALLEST, "retrain": {"on_drift": value}}).retrain.on_drift is truth


@pytest.mark.parametrize("path", [path for path, _ in options(parse_config(SMALLEST))])
@pytest.mark.parametrize("value", ["2000000w", "2000000GiB", "1" + 30 * "0"])
def test_no_option_takes_a_duration_a_size_or_a_count_beyond_reason(path, value):
    # reconnect_min: 2000000w was more than a thread can wait: it ended the one that keeps the broker.
    try:
        parsed = value_of(parse_config(with_option(path, value)), path)
    except ConfigError:
        return
    unbounded = ("retrain.max_load", "streams.defaults.alerts.critical_ratio")  # only ever compared with
    assert not isinstance(parsed, (int, float)) or path in unbounded
