"""Who may read: the decisions one by one.  Attacks on a running server are tried in ``test_security``."""

from __future__ import annotations

from email.message import Message
from http import HTTPStatus
from pathlib import Path

import pytest

from gon_edge.config.schema import HttpConfig
from gon_edge.links.client import basic, bearer
from gon_edge.links.web.guard import OPEN_TO_ALL, PLACES, Guard, Passwords, place

LOCAL = "127.0.0.1"


def headers(**named: str) -> Message:
    message = Message()
    for name, value in named.items():
        message[name] = value
    return message


@pytest.fixture
def token(tmp_path: Path) -> HttpConfig:
    (tmp_path / "token").write_text("right")
    return HttpConfig(token_file=tmp_path / "token")


def test_probes_are_open_to_all(token: HttpConfig) -> None:
    assert [Guard(token).refusal(path, headers(), LOCAL) for path in OPEN_TO_ALL] == [None, None]


def test_without_a_password_a_request_must_name_this_machine() -> None:
    guard = Guard(HttpConfig())
    assert guard.refusal("/", headers(Host="localhost:9109"), LOCAL) is None
    assert guard.refusal("/", headers(), LOCAL) is None  # a program that sends no name is no browser
    refusal = guard.refusal("/", headers(Host="evil.example"), LOCAL)
    assert refusal is not None
    assert refusal.status == HTTPStatus.MISDIRECTED_REQUEST


def test_a_token_opens_and_nothing_else_does(token: HttpConfig) -> None:
    guard = Guard(token)
    assert guard.refusal("/", headers(Authorization=bearer("right"), Host="any.example"), LOCAL) is None
    for wrong in (headers(), headers(Authorization=bearer("wrong")), headers(Authorization=basic("me", "right"))):
        refusal = guard.refusal("/", wrong, LOCAL)
        assert refusal is not None
        assert (refusal.status, refusal.headers) == (HTTPStatus.UNAUTHORIZED, {"WWW-Authenticate": "Bearer"})


def test_what_is_kept_about_guesses_does_not_grow_and_a_network_of_ipv6_is_one_guesser(token: HttpConfig) -> None:
    passwords = Passwords(token)
    for i in range(20_000):
        passwords.guessed(f"10.{i >> 16}.{i >> 8 & 255}.{i & 255}", bearer(f"{i}"))
    assert len(passwords._paid_at) == len(passwords._newest) == PLACES
    assert place("2001:db8::1") == place("2001:db8::ffff:1:2:3")
    assert place("fe80::1%eth0") == place("fe80::2")
    networks = {place(f"2001:db8:0:{i:x}::1") for i in range(1000)}
    mapped = {place(f"::ffff:192.168.0.{i}") for i in range(250)}
    assert min(len(networks), len(mapped)) > 100
