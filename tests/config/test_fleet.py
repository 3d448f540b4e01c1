from __future__ import annotations

import pytest

from gon_edge.config.file import parse_config
from gon_edge.errors import ConfigError


def fleet(**options):
    return parse_config(
        {"mqtt": {"url": "mqtt://localhost"}, "subscriptions": [{"topic": "telemetry/{stream}"}], "fleet": options}
    ).fleet


def test_one_server_may_stand_without_a_list():
    assert fleet(servers="tls://nats.plant:4222").servers == ("tls://nats.plant:4222",)
    assert fleet(servers=["nats://a", "nats://b:4223"]).servers == ("nats://a", "nats://b:4223")


@pytest.mark.parametrize(
    ("options", "what"),
    [
        ({"servers": "mqtt://localhost"}, "write nats://HOST:PORT"),
        ({"servers": "nats://me:secret@localhost"}, "take user and password out of the URL"),
        ({"servers": "nats://me:secret@localhost:x"}, "write nats://HOST:PORT"),
        ({"prefix": "a.b"}, "letters, digits"),
        ({"name": "a.b"}, "letters, digits"),
        ({"password_file": "p"}, "needs fleet.username"),
        ({"key_file": "p"}, "needs fleet.cert_file"),
        ({"retention": "2m"}, r"at least twice save_every and takeover together \(260s\)"),
    ],
)
def test_a_mistake_is_said_with_what_to_write_and_without_a_secret(options, what):
    with pytest.raises(ConfigError, match=what) as refused:
        fleet(**options)
    assert "secret" not in str(refused.value)


def test_the_password_is_read_when_it_is_asked_for(tmp_path):
    file = tmp_path / "password"
    file.write_text("first\n")
    section = fleet(username="worker", password_file=str(file))
    file.write_text("second\n")
    assert (section.password(), fleet().password()) == ("second", None)
