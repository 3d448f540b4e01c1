"""Attacks that are tried: each asks whether the daemon is still there, and whether anything got where it should not.

Others are tried where their module is tested: pickles, cut, changed and swapped tensors in ``model/test_file``; broken
payloads in ``stream/test_payload`` and ``e2e/test_daemon``; slow clients and methods in ``links/web/test_server``; the
control socket in ``e2e/test_retraining``; authorities, client certificates and denied topics in
``links/mqtt/test_client`` and ``e2e/test_broker_rights``; a hostile surrounding of the program in ``test_deploy``.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import math
import os
import random
import re
import shutil
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from e2e.daemons import DaemonProcess
from e2e.servers import Mosquitto, require, wait_until
from prometheus_client import CollectorRegistry, Gauge, generate_latest
from prometheus_client.parser import text_string_to_metric_families
from snapshots import plain_snapshot

from gon_edge.commands.main import main
from gon_edge.config.file import effective, load_config, parse_config
from gon_edge.config.schema import HttpConfig, MqttConfig
from gon_edge.errors import ConfigError, PayloadError, UnreachableError
from gon_edge.events import Cause
from gon_edge.links.client import DaemonApi, basic, bearer, daemon_api
from gon_edge.links.mqtt.client import MqttClient, own_topic
from gon_edge.links.prometheus import Telemetry
from gon_edge.links.web.guard import GUESS_S, GUESSES, place
from gon_edge.links.web.server import WebServer
from gon_edge.state.folder import ModelFolder
from gon_edge.state.store import Store
from gon_edge.stream.payload import decoders

SECRET = "correct-horse-battery"
Guarded = tuple[WebServer, dict[str, Path]]
CONFIG = "mqtt: {url: mqtt://localhost}\nsubscriptions: [{topic: 'telemetry/{stream}'}]\n"


# -- certificates and servers ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Certificates that sign themselves: ``good`` for localhost, ``other`` for another name, ``old`` ended in 2020."""
    openssl = require("openssl")
    at = tmp_path_factory.mktemp("certificates")
    (at / "index").touch()
    (at / "serial").write_text("01\n")
    (at / "ca.cnf").write_text(
        "[ca]\ndefault_ca = d\n[d]\nnew_certs_dir = .\ndatabase = index\nserial = serial\ndefault_md = sha256\n"
        "policy = p\nunique_subject = no\ncopy_extensions = copy\n[p]\ncommonName = supplied\n"
    )
    until = {"good": "20990101000000Z", "other": "20990101000000Z", "old": "20200102000000Z"}
    for name, enddate in until.items():
        host = "elsewhere.example" if name == "other" else "localhost"
        new = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-subj", f"/CN={host}"]
        new += ["-addext", f"subjectAltName=DNS:{host}", "-keyout", f"{name}.key", "-out", f"{name}.csr"]
        sign = ["-batch", "-config", "ca.cnf", "-selfsign", "-keyfile", f"{name}.key", "-in", f"{name}.csr", "-notext"]
        dates = ["-startdate", "20200101000000Z", "-enddate", enddate]
        for command in (["req", *new], ["ca", *sign, *dates, "-out", f"{name}.crt"]):
            subprocess.run([openssl, *command], cwd=at, check=True, capture_output=True)
    return at


@contextlib.contextmanager
def serving(registry: CollectorRegistry | None = None, **settings: Any) -> Iterator[WebServer]:
    registry = registry or CollectorRegistry()
    server = WebServer(HttpConfig("127.0.0.1:0", **settings), snapshot=plain_snapshot, registry=registry)
    server.start()
    try:
        yield server
    finally:
        server.stop()


@pytest.fixture(scope="module")
def plain() -> Iterator[WebServer]:
    with serving() as server:  # one for all tests here: stopping one takes half a second
        yield server


@pytest.fixture(scope="module")
def token_only(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WebServer]:
    token_file = tmp_path_factory.mktemp("token") / "token"
    token_file.write_text(SECRET)
    with serving(token_file=token_file) as server:
        yield server


@pytest.fixture
def guarded(certificates: Path, tmp_path: Path) -> Iterator[Guarded]:
    """HTTPS with a token and a password, from files that tests may replace."""
    files = {name: tmp_path / name for name in ("cert_file", "key_file", "token_file", "password_file")}
    shutil.copy(certificates / "good.crt", files["cert_file"])
    shutil.copy(certificates / "good.key", files["key_file"])
    files["token_file"].write_text(f"{SECRET}\n")
    files["password_file"].write_text("pässword\n")
    with serving(**files, username="me") as server:
        yield server, files


def trusting(certificate: Path) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=certificate)


def api(server: WebServer, certificate: Path, authorization: str | None = None) -> DaemonApi:
    return DaemonApi(f"https://localhost:{server.port}", authorization=authorization, tls=trusting(certificate))


def exchange(port: int, request: bytes) -> bytes:
    """What a server answers to these bytes; nothing when it hangs up."""
    with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        answer = b""
        with contextlib.suppress(OSError):  # it may hang up while we are still sending
            connection.sendall(request)
        with contextlib.suppress(OSError):
            while block := connection.recv(65536):
                answer += block
        return answer


# -- HTTP --------------------------------------------------------------------------------------------------------------


def test_token_and_password_open_the_port_and_nothing_else_does(guarded: Guarded) -> None:
    server, files = guarded
    for right in (bearer(SECRET), bearer(SECRET).replace("Bearer", "bearer"), basic("me", "pässword")):
        assert api(server, files["cert_file"], right).status()["node"] == "pi-1"
    wrong = [None, "", "Bearer", "Bearer ", bearer(SECRET[:-1]), bearer(SECRET + "x"), bearer(SECRET.upper())]
    wrong += [basic("me", SECRET), basic("you", "pässword"), basic("", ""), f"Basic {SECRET}", "Basic ????", SECRET]
    for shown in wrong:
        with pytest.raises(UnreachableError, match="token or password"):
            api(server, files["cert_file"], shown).status()


@pytest.mark.parametrize("path", ["/", "/metrics", "/api/v1/status", "/api/v1/streams", "//healthz/../metrics", "/x"])
def test_only_probes_are_answered_without_a_password(token_only: WebServer, path: str) -> None:
    answer = exchange(token_only.port, f"GET {path} HTTP/1.0\r\n\r\n".encode())
    assert answer.startswith(b"HTTP/1.0 401 ")
    assert b"\r\nWWW-Authenticate: Bearer\r\n" in answer
    assert answer.endswith(b"\r\n\r\nunauthorized\n")
    two = f"GET {path} HTTP/1.0\r\nAuthorization: Bearer {SECRET}\r\nAuthorization: Bearer x\r\n\r\n"
    assert exchange(token_only.port, two.encode()).startswith(b"HTTP/1.0 401 ")
    for probe in (b"/healthz", b"/readyz", b"/healthz?x=/metrics"):
        assert exchange(token_only.port, b"GET " + probe + b" HTTP/1.0\r\n\r\n").startswith(b"HTTP/1.0 200 ")


def answer_to(server: WebServer, host: str | None, path: str = "/metrics", headers: str = "") -> bytes:
    named = "" if host is None else f"Host: {host}\r\n"
    return exchange(server.port, f"GET {path} HTTP/1.0\r\n{named}{headers}\r\n".encode())


def test_a_web_page_whose_name_was_made_to_point_here_reads_nothing(caplog: pytest.LogCaptureFixture) -> None:
    own = socket.gethostname().partition(".")[0]
    with serving(names=("Pi.Example.com",)) as server:
        for host in (
            *("evil.example", "evil.example:9109", "localhost.evil.example", "127.0.0.1.evil.example", "evil.local"),
            *(f"{own}.evil.example", "pi.example.com.evil", "127.0.0.1, evil.example", "x\r\nHost: localhost"),
            *("[::1].evil.example", "user@evil.example", "evil.example.", "evil.example#localhost", "[::1]:1.x"),
        ):
            for path in ("/", "/metrics", "/api/v1/status", "/x"):
                answer = answer_to(server, host, path)
                assert answer.startswith(b"HTTP/1.0 421 "), host
                assert answer.endswith(
                    b"\r\n\r\ngon-edge does not know this name; ask by address, or add the name to http.names\n"
                )
        for host in (
            *(None, "", "localhost", "LOCALHOST:9109", "localhost.", "app.localhost", "127.0.0.1:9109", "192.168.1.10"),
            *("[::1]:9109", "[fe80::1%25eth0]", "gon-edge:9109", "pi", own, f"{own}.local:9109", f"{own}.lan"),
            *("host.docker.internal:9109", "pi.home.arpa", "pi.example.com", "PI.example.com.:443"),
        ):
            assert answer_to(server, host).startswith(b"HTTP/1.0 200 "), host
        assert answer_to(server, "evil.example", "/healthz").startswith(b"HTTP/1.0 200 ")  # a yes or a no
    said = [record.getMessage() for record in caplog.records if "http.names" in record.getMessage()]
    assert said[0].startswith("HTTP: refused a request for 'evil.example'")
    assert len(said) < 8


def test_a_port_with_a_password_or_a_certificate_goes_by_any_name(token_only: WebServer, guarded: Guarded) -> None:
    # A browser led there by a wrong name has no password for it, and no certificate that fits.
    right = f"Authorization: {bearer(SECRET)}\r\n"
    assert answer_to(token_only, "pi.example.com", headers=right).startswith(b"HTTP/1.0 200 ")
    server, files = guarded
    answer = api(server, files["cert_file"], basic("me", "pässword"))
    assert answer.status()["node"] == "pi-1"


def test_a_client_is_told_what_to_do_about_a_name(plain: WebServer, monkeypatch: pytest.MonkeyPatch) -> None:
    real = socket.getaddrinfo
    monkeypatch.setattr(socket, "getaddrinfo", lambda host, *more, **named: real("127.0.0.1", *more, **named))
    with pytest.raises(UnreachableError, match=r"add the name to http\.names"):
        DaemonApi(f"http://pi.example.com:{plain.port}").status()


@pytest.mark.parametrize("name", ["http://pi", "pi:9109", "*", "a b", "a/b", "ü", "[::1]"])
def test_a_name_of_the_port_is_a_name_and_nothing_more(name: str) -> None:
    http = {"http": {"names": [name]}}
    with pytest.raises(ConfigError, match="without http:// and port") as caught:
        parse_config({"mqtt": {"url": "mqtt://h"}, "subscriptions": [{"topic": "{stream}"}], **http})
    assert caught.value.key == "http.names[0]"


def guess(server: WebServer, token: str, source: str = "127.0.0.1") -> tuple[int, dict[str, str]]:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=20, source_address=(source, 0))
    try:
        connection.request("GET", "/api/v1/status", headers={"Authorization": bearer(token)})
        answer = connection.getresponse()
        answer.read()
        return answer.status, dict(answer.getheaders())
    finally:
        connection.close()


def test_passwords_cannot_be_guessed_faster_than_a_few_a_minute(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "token").write_text(SECRET)
    clock = [float(round(time.monotonic()))]  # whole seconds: a sum of rounded ones made one guess fewer of twenty
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])  # however slow this machine is
    with serving(token_file=tmp_path / "token") as server:
        for _ in range(40):  # a program that was not told of the new token guesses nothing
            assert guess(server, "the-old-one")[0] == 401
        tried = [guess(server, f"guess-{i}") for i in range(40)]
        assert [status for status, _ in tried] == [401] * (GUESSES - 1) + [429] * (41 - GUESSES)
        assert int(tried[-1][1]["Retry-After"]) == GUESS_S
        assert guess(server, SECRET)[0] == 429  # else the right one could be told from the others
        with pytest.raises(UnreachableError, match=r"wait \d s"):
            DaemonApi(f"http://127.0.0.1:{server.port}", authorization=bearer("x")).status()
        assert guess(server, SECRET, next(f"127.0.0.{i}" for i in range(2, 9) if places_differ(i)))[0] == 200
        assert answer_to(server, None, "/healthz").startswith(b"HTTP/1.0 200 ")
        assert answer_to(server, None, "/").startswith(b"HTTP/1.0 401 ")  # nobody who shows none is kept waiting
        clock[0] += GUESS_S
        assert guess(server, SECRET)[0] == 200
        assert [guess(server, f"again-{i}")[0] for i in range(2)] == [401, 429]


def places_differ(last: int) -> bool:
    return place(f"127.0.0.{last}") != place("127.0.0.1")


def test_token_and_certificate_are_read_again_when_they_change(guarded: Guarded, certificates: Path) -> None:
    server, files = guarded
    files["token_file"].write_text("another-token\n")
    assert api(server, files["cert_file"], bearer("another-token")).status()
    with pytest.raises(UnreachableError, match="refuses"):
        api(server, files["cert_file"], bearer(SECRET)).status()
    files["token_file"].unlink()  # nobody new comes in, and nobody is shut out
    assert api(server, files["cert_file"], bearer("another-token")).status()

    shutil.copy(certificates / "other.crt", files["cert_file"])  # its key is not there yet: the old pair goes on
    assert api(server, certificates / "good.crt", basic("me", "pässword")).status()
    shutil.copy(certificates / "other.key", files["key_file"])
    with pytest.raises(UnreachableError, match="certificate is not valid"):
        api(server, certificates / "good.crt", basic("me", "pässword")).status()


def test_a_client_refuses_a_wrong_name_an_expired_and_an_unknown_certificate(certificates: Path) -> None:
    for name, why in (("other", "Hostname mismatch"), ("old", "expired")):
        with serving(cert_file=certificates / f"{name}.crt", key_file=certificates / f"{name}.key") as server:
            with pytest.raises(UnreachableError, match=why):
                api(server, certificates / f"{name}.crt").status()
            with pytest.raises(UnreachableError, match="self-signed"):
                api(server, certificates / "good.crt").status()


def test_the_configuration_of_the_daemon_is_all_a_client_on_the_same_machine_needs(guarded: Guarded) -> None:
    server, files = guarded
    config = parse_config(
        {
            "mqtt": {"url": "mqtt://localhost"},
            "subscriptions": [{"topic": "telemetry/{stream}"}],
            "http": {"listen": f"0.0.0.0:{server.port}", "username": "me", **{k: str(v) for k, v in files.items()}},
        }
    )
    assert daemon_api(config).status()["node"] == "pi-1"  # though the certificate is for another name
    key_of_another = replace(config, http=replace(config.http, cert_file=files["key_file"]))
    with pytest.raises(ConfigError, match=r"http\.cert_file"):
        daemon_api(key_of_another)


def test_status_takes_token_password_and_authority(
    guarded: Guarded, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    server, files = guarded
    where = ["status", "--json", "--url", f"https://localhost:{server.port}", "--ca-file", str(files["cert_file"])]
    password = ["--username", "me", "--password-file", str(files["password_file"])]
    for right in (["--token-file", str(files["token_file"])], password):
        assert main([*where, *right]) == 0
        assert json.loads(capsys.readouterr().out)["node"] == "pi-1"
    (tmp_path / "wrong").write_text("wrong")
    missing = str(tmp_path / "missing")
    for wrong, code, said in (
        ([], 69, "--token-file"),
        (["--token-file", str(tmp_path / "wrong")], 69, "refuses"),
        (["--token-file", missing], 66, "write the secret there"),
        (["--username", "me"], 2, "need each other"),
        ([*password, "--token-file", missing], 2, "not both"),
    ):
        assert main([*where, *wrong]) == code
        assert said in capsys.readouterr().err
    plain = f"http://localhost:{server.port}"
    assert main(["status", "--url", plain]) == 69
    assert "the URL begins with https" in capsys.readouterr().err


@pytest.mark.e2e
def test_a_daemon_that_shows_readings_to_the_network_says_what_is_missing(tmp_path: Path) -> None:
    (tmp_path / "token").write_text(SECRET)
    for name, own, said in (
        ("all", {}, ("no password is asked for", "nothing is encrypted")),
        ("guarded", {"token_file": str(tmp_path / "token")}, ("nothing is encrypted",)),
        ("loopback", {"listen": "127.0.0.1:{port}"}, ()),
    ):
        (tmp_path / name).mkdir()
        daemon = DaemonProcess(tmp_path / name, Mosquitto(tmp_path / "broker"), http={"listen": ":{port}", **own})
        daemon.config.write_text(daemon.config.read_text().replace("{port}", str(daemon.port)))
        with daemon:
            warnings = [line for line in daemon.log.splitlines() if "shows your readings to the network" in line]
            assert len(warnings) == bool(said)
            for reason in ("no password is asked for", "nothing is encrypted"):
                assert any(reason in line for line in warnings) == (reason in said)


@pytest.mark.parametrize(
    ("settings", "key"),
    [
        ({"cert_file": "there is none"}, "http.cert_file"),
        ({"token_file": "there is none"}, "http.token_file"),
        ({"token_file": "empty"}, "http.token_file"),
        ({"username": "me", "password_file": "empty"}, "http.password_file"),
    ],
)
def test_a_port_that_could_not_be_guarded_is_not_opened(tmp_path: Path, settings: dict[str, str], key: str) -> None:
    (tmp_path / "empty").write_text("\n")
    paths = {name: tmp_path / value if name.endswith("file") else value for name, value in settings.items()}
    with pytest.raises(ConfigError) as caught, serving(**paths):
        pass
    assert caught.value.key == key


def test_headers_without_end_are_refused_before_they_fill_the_memory(plain: WebServer) -> None:
    line = b"X: " + b"x" * 60_000 + b"\r\n"
    answer = exchange(plain.port, b"GET / HTTP/1.0\r\n" + 90 * line + b"\r\n")
    assert answer == b"" or answer.startswith(b"HTTP/1.0 431 ")
    many = exchange(plain.port, b"GET / HTTP/1.0\r\n" + 5000 * b"X: y\r\n" + b"\r\n")
    assert many == b"" or many.startswith(b"HTTP/1.0 431 ")
    body = b"GET /healthz HTTP/1.0\r\nContent-Length: 1000000000\r\n\r\n"  # never waited for
    assert exchange(plain.port, body).startswith(b"HTTP/1.0 200 ")
    assert exchange(plain.port, b"GET /healthz HTTP/1.0\r\n\r\n").startswith(b"HTTP/1.0 200 ")


@pytest.mark.parametrize(
    "request_",
    [
        b"\x00\xff\x16\x03\r\n\r\n",
        b"GET\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET http://[ HTTP/1.0\r\n\r\n",
        b"\r\n" * 99,
    ],
    ids=["bytes", "no path", "version", "url", "blank"],
)
def test_what_is_no_request_ends_its_own_connection_only(plain: WebServer, request_: bytes) -> None:
    exchange(plain.port, request_)
    assert exchange(plain.port, b"GET /healthz HTTP/1.0\r\n\r\n").startswith(b"HTTP/1.0 200 ")


def test_clients_that_never_finish_their_handshake_do_not_shut_others_out(
    certificates: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gon_edge.links.web.server._CONNECTION_S", 1.0)

    def threads() -> int:
        return sum(thread.name == "gon-edge http" for thread in threading.enumerate())

    with serving(cert_file=certificates / "good.crt", key_file=certificates / "good.key") as server:
        before = threads()
        slow = [socket.create_connection(("127.0.0.1", server.port), timeout=10) for _ in range(20)]
        try:
            for each in slow:
                each.sendall(b"\x16\x03\x01")  # the beginning of a ClientHello
            patient = api(server, certificates / "good.crt")

            def answered() -> bool:
                with contextlib.suppress(UnreachableError):
                    return patient.status()["node"] == "pi-1"
                return False

            wait_until(answered, 20, "an answer beside them")
            wait_until(lambda: threads() <= before, 10, "their end")
        finally:
            for each in slow:
                each.close()


@pytest.mark.parametrize("begun", [b"", b"\x16\x03\x01"], ids=["nothing", "a piece"])
def test_a_hundred_half_open_handshakes_do_not_keep_the_page_waiting(certificates: Path, begun: bytes) -> None:
    # Each was waited for on one of eight threads, ten seconds long, and the others stood behind them.
    with serving(cert_file=certificates / "good.crt", key_file=certificates / "good.key") as server:
        slow = [socket.create_connection(("127.0.0.1", server.port), timeout=10) for _ in range(100)]
        try:
            for each in slow:
                each.sendall(begun)
            began = time.monotonic()
            for _ in range(3):
                assert api(server, certificates / "good.crt").status()["node"] == "pi-1"
            assert time.monotonic() - began < 5.0
        finally:
            for each in slow:
                each.close()


def test_a_hundred_connections_that_ask_for_nothing_do_not_keep_the_page_waiting() -> None:
    with serving() as server:
        idle = [socket.create_connection(("127.0.0.1", server.port), timeout=10) for _ in range(100)]
        began = time.monotonic()
        assert exchange(server.port, b"GET /healthz HTTP/1.0\r\n\r\n").startswith(b"HTTP/1.0 200 ")
        assert time.monotonic() - began < 5.0
        for each in idle:
            each.close()


@pytest.mark.parametrize("begun", [b"G", b"GET / HTTP/1.1\r\nHost: localhost\r\nX: "], ids=["a byte", "half a head"])
@pytest.mark.parametrize("encrypted", [False, True], ids=["plain", "TLS"])
def test_a_hundred_questions_that_stop_in_their_midst_do_not_keep_the_page_waiting(
    certificates: Path, encrypted: bool, begun: bytes
) -> None:
    # One byte held one of eight threads for ten seconds.
    files = {"cert_file": certificates / "good.crt", "key_file": certificates / "good.key"} if encrypted else {}
    with serving(**files) as server, contextlib.ExitStack() as stack:

        def connected() -> socket.socket:
            plain = stack.enter_context(socket.create_connection(("127.0.0.1", server.port), timeout=30))
            if not encrypted:
                return plain
            context = ssl.create_default_context(cafile=str(certificates / "good.crt"))
            return stack.enter_context(context.wrap_socket(plain, server_hostname="localhost"))

        for _ in range(100 if not encrypted else 20):
            connected().sendall(begun)
        threads = threading.active_count()
        asked = connected()
        began = time.monotonic()
        for byte in b"GET /healthz HTTP/1.0\r\nHost: localhost\r\n\r\n":  # slow, and complete
            asked.sendall(bytes([byte]))
        assert asked.recv(12) == b"HTTP/1.0 200"
        assert time.monotonic() - began < 5.0
        assert threading.active_count() <= threads + 1


def test_questions_without_end_hold_bounded_memory_and_the_longest_goes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gon_edge.links.web.lobby._HELD_BYTES", 20_000)
    with serving() as server, contextlib.ExitStack() as stack:
        held = [stack.enter_context(socket.create_connection(("127.0.0.1", server.port), timeout=30)) for _ in range(3)]
        for connection, size in zip(held, (9000, 2000, 12_000), strict=True):
            connection.sendall(b"GET / HTTP/1.0\r\nX: " + size * b"x")
        with contextlib.suppress(ConnectionResetError):
            assert held[2].recv(1) == b""
        held[1].sendall(b"\r\n\r\n")
        assert held[1].recv(12) == b"HTTP/1.0 200"


def with_large_metrics() -> CollectorRegistry:
    """Series of 6 MB: no kernel takes so much for who does not read."""
    registry = CollectorRegistry()
    Gauge("large", "x" * 6_000_000, registry=registry)
    return registry


METRICS = b"GET /metrics HTTP/1.0\r\n\r\n"


@pytest.mark.parametrize("encrypted", [False, True], ids=["plain", "TLS"])
def test_twenty_who_do_not_read_their_answers_do_not_keep_the_page_waiting(
    certificates: Path, monkeypatch: pytest.MonkeyPatch, encrypted: bool
) -> None:
    # Each held one of eight threads for ten seconds, and others were told 503.
    monkeypatch.setattr("gon_edge.links.web.lobby._ANSWERS_BYTES", 1 << 30)  # all of them stay
    files = {"cert_file": certificates / "good.crt", "key_file": certificates / "good.key"} if encrypted else {}
    with serving(with_large_metrics(), **files) as server, contextlib.ExitStack() as stack:

        def connected() -> socket.socket:
            plain = stack.enter_context(socket.create_connection(("127.0.0.1", server.port), timeout=30))
            if not encrypted:
                return plain
            context = ssl.create_default_context(cafile=str(certificates / "good.crt"))
            return stack.enter_context(context.wrap_socket(plain, server_hostname="localhost"))

        before = threading.active_count()
        deaf = [connected() for _ in range(20)]
        for each in deaf:
            each.sendall(METRICS)
        for each in deaf:
            assert each.recv(12) == b"HTTP/1.0 200"  # its answer has begun, and there is more of it
        wait_until(lambda: threading.active_count() <= before, 10, "the end of the threads that answered")
        asked = connected()
        began = time.monotonic()
        asked.sendall(b"GET /healthz HTTP/1.0\r\nHost: localhost\r\n\r\n")
        assert asked.recv(12) == b"HTTP/1.0 200"
        assert time.monotonic() - began < 5.0
        rest = b"".join(iter(lambda: deaf[-1].recv(1 << 16), b""))
        assert len(rest) > 6_000_000  # who begins to read has all of it
        assert rest.endswith(b"large 0.0\n")


def test_who_does_not_read_his_answer_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gon_edge.links.web.server._CONNECTION_S", 0.5)

    def descriptors() -> int:
        return len(list(Path("/proc/self/fd").iterdir()))

    with serving(with_large_metrics()) as server, contextlib.ExitStack() as stack:
        deaf = stack.enter_context(socket.create_connection(("127.0.0.1", server.port), timeout=30))
        deaf.sendall(METRICS)
        assert deaf.recv(12) == b"HTTP/1.0 200"  # its answer has begun: the server has the connection open
        held = descriptors()
        wait_until(lambda: descriptors() < held, 10, "the end of the connection")
        assert sum(map(len, iter(lambda: deaf.recv(1 << 16), b""))) < 6_000_000


def test_answers_that_nobody_reads_hold_bounded_memory_and_the_longest_goes_first(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("gon_edge.links.web.lobby._ANSWERS_BYTES", 10_000_000)
    with serving(with_large_metrics()) as server, contextlib.ExitStack() as stack:
        deaf = [stack.enter_context(socket.create_connection(("127.0.0.1", server.port), timeout=30)) for _ in range(6)]
        for each in deaf:
            each.sendall(METRICS)
            assert each.recv(12) == b"HTTP/1.0 200"
        got = [sum(map(len, iter(lambda each=each: each.recv(1 << 16), b""))) for each in deaf]
        assert any(size > 6_000_000 for size in got)
        assert any(size < 6_000_000 for size in got)
        assert exchange(server.port, b"GET /healthz HTTP/1.0\r\n\r\n").startswith(b"HTTP/1.0 200 ")


def test_of_more_connections_than_there_are_places_the_oldest_goes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gon_edge.links.web.lobby.PLACES", 4)
    with serving() as server:
        idle = [socket.create_connection(("127.0.0.1", server.port), timeout=10) for _ in range(6)]
        assert [each.recv(1) for each in idle[:2]] == [b"", b""]
        assert exchange(server.port, b"GET /healthz HTTP/1.0\r\n\r\n").startswith(b"HTTP/1.0 200 ")
        for each in idle:
            each.close()


# -- MQTT --------------------------------------------------------------------------------------------------------------


@pytest.mark.e2e
@pytest.mark.parametrize(("name", "why"), [("other", "Hostname mismatch"), ("old", "expired")])
def test_a_broker_with_a_wrong_name_or_an_expired_certificate_gets_no_password(
    certificates: Path, tmp_path: Path, name: str, why: str
) -> None:
    lines = f"certfile {certificates}/{name}.crt\nkeyfile {certificates}/{name}.key"
    broker = Mosquitto(tmp_path / "broker", settings=lines)
    (tmp_path / "password").write_text(SECRET)
    settings = MqttConfig(
        f"mqtts://localhost:{broker.port}",
        ca_file=certificates / f"{name}.crt",
        username="pi-1",
        password_file=tmp_path / "password",
        reconnect_min_s=0.1,
        reconnect_max_s=0.2,
    )
    mqtt = MqttClient(settings, node="pi-1", subscriptions=("t",), rng=random.Random(0))
    try:
        broker.start()
        mqtt.start()
        wait_until(lambda: mqtt.reconnects["auth"], 15, "the refusal")
        assert why in mqtt.last_error
        assert mqtt.connects == 0
        assert "as pi-1" not in broker.log
        assert "u'pi-1'" not in broker.log
    finally:
        mqtt.stop(1.0)
        broker.kill()


@pytest.mark.e2e
def test_a_renewed_authority_counts_from_the_next_connection_on(certificates: Path, tmp_path: Path) -> None:
    lines = f"certfile {certificates}/good.crt\nkeyfile {certificates}/good.key"
    broker = Mosquitto(tmp_path / "broker", settings=lines)
    ca_file = tmp_path / "ca.crt"
    shutil.copy(certificates / "other.crt", ca_file)
    url = f"mqtts://localhost:{broker.port}"
    settings = MqttConfig(url, ca_file=ca_file, reconnect_min_s=0.1, reconnect_max_s=0.2)
    mqtt = MqttClient(settings, node="pi-1", subscriptions=("t",), rng=random.Random(0))
    try:
        broker.start()
        mqtt.start()
        wait_until(lambda: mqtt.reconnects["auth"], 15, "the refusal")
        shutil.copy(certificates / "good.crt", ca_file)
        wait_until(lambda: mqtt.connected, 15, "the connection")
    finally:
        mqtt.stop(1.0)
        broker.kill()


def test_a_series_says_when_the_certificate_in_a_file_ends(certificates: Path, tmp_path: Path) -> None:
    registry = CollectorRegistry()
    telemetry = Telemetry(registry, version="0")
    file = tmp_path / "http.crt"
    telemetry.certificate("http.cert_file", file)

    def shown() -> float | None:
        return registry.get_sample_value("gon_edge_certificate_expiry_timestamp_seconds", {"file": "http.cert_file"})

    assert math.isnan(shown() or 0.0)
    shutil.copy(certificates / "old.crt", file)
    assert shown() == ssl.cert_time_to_seconds("Jan  2 00:00:00 2020 GMT")
    shutil.copy(certificates / "good.crt", file)  # 2099: written in another form than years before 2050
    assert shown() == ssl.cert_time_to_seconds("Jan  1 00:00:00 2099 GMT")
    file.write_text("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
    assert math.isnan(shown() or 0.0)


# -- the configuration -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "bomb",
    [
        "a: &a [x, x]\nb: &b [*a, *a]\nc: &c [*b, *b]\n" + CONFIG,
        CONFIG + "streams: " + "[" * 300_000,
        CONFIG + "streams: " + "{a: " * 100_000,
        CONFIG + "streams: {defaults: {include: [" + "x," * 400_000 + "]}}\n",
        CONFIG + "".join(f"k{i}: 1\n" for i in range(60_000)),
        CONFIG + 'node: "' + "${A:-" * 100_000 + '"\n',
        CONFIG + "store: {flush_every: '" + "1" * 500_000 + "'}\n",
        CONFIG + "version: " + "9" * 500_000 + "\n",
    ],
    ids=["aliases", "lists", "mappings", "commas", "keys", "variables", "digits", "number"],
)
def test_a_configuration_that_is_a_bomb_is_refused_in_a_second_or_two(tmp_path: Path, bomb: str) -> None:
    # Half a million commas took 8 s and 150 MiB; 100,000 variables that are never closed took minutes.
    path = tmp_path / "bomb.yaml"
    path.write_text(bomb)
    began = time.process_time()
    with pytest.raises(ConfigError) as caught:
        load_config(path)
    assert time.process_time() - began < 5.0
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize(
    "url",
    [
        "mqtt://me:{}@localhost",
        "mqtt//me:{}@localhost",
        "mqtt:/me:{}@localhost",
        "me:{}@localhost:1883",
        "mqtt://me:{}#1@localhost",
        "mqtt://me:{}/1@localhost",
        "http://me:{}@localhost",
        "mqtt://[me:{}@localhost",
    ],
)
def test_a_password_in_a_url_is_never_repeated_however_it_is_misspelt(url: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_config({"mqtt": {"url": url.format(SECRET)}, "subscriptions": [{"topic": "{stream}"}]})
    assert SECRET not in str(caught.value)


def test_a_secret_in_place_of_the_name_of_its_variable_is_not_repeated() -> None:
    mqtt = {"url": "mqtt://localhost", "username": "me", "password_env": "${PASSWORD}"}
    with pytest.raises(ConfigError, match="the name of an environment variable") as caught:
        parse_config({"mqtt": mqtt, "subscriptions": [{"topic": "{stream}"}]}, environ={"PASSWORD": SECRET})
    assert SECRET not in str(caught.value)


def test_the_configuration_that_is_shown_is_the_one_that_counts_and_holds_no_secret(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text(SECRET)
    given = {
        "mqtt": {"url": "mqtts://localhost", "username": "me", "password_file": str(secret), "keepalive": "90s"},
        "subscriptions": [{"topic": "a/{stream}"}, {"topic": "b", "stream": "b", "format": "value"}],
        "http": {"token_file": str(secret)},
        "retrain": {"quiet_hours": "22:00-06:30", "every": "off", "max_load": "off", "cpu_share": "0.3"},
        "streams": {
            "defaults": {"alerts": {"budget": "1/week"}, "interval": "0.25s"},
            "overrides": {"pump": {"window": 20, "include": ["a*", "b"], "alerts": {"budget": "0.3/hour"}}},
        },
        "store": {"max_size": "3000000", "flush_every": "90m"},
    }
    config = parse_config(given)
    shown = effective(config)
    assert parse_config(json.loads(json.dumps(shown))) == config
    assert (shown["store"]["flush_every"], shown["retrain"]["quiet_hours"]) == ("1h30m", "22:00-06:30")
    assert shown["streams"]["defaults"]["alerts"]["budget"] == "1/week"
    assert SECRET not in json.dumps(shown)
    # Brokers that know no password take an access token for the user's name.
    token = effective(replace(config, mqtt=replace(config.mqtt, username=SECRET, password_file=None)))
    assert SECRET not in json.dumps(token)


# -- names of streams and features -------------------------------------------------------------------------------------

HOSTILE = [
    "..",
    ".",
    "...",
    "..%2f..%2fetc",
    "~",
    "-rf",
    "CON",
    "a b",
    'x"} 1\ngon_edge_evil{y="',
    "x\n# HELP evil",
    "a\x00b",
    "a\r\nb",
    "\x1b[31mred",
    "../../../etc/passwd",
    "/etc/passwd",
    "a/../../b",
    "#",
    "+",
    "a+b",
    "$SYS",
    "'; DROP TABLE rows; --",
    "<script>alert(1)</script>",
    "\\",
    '"' * 128,
    "é" * 128,
    "流" * 128,
    "x" * 128,
    "x" * 129,
    "\u202ereversed",
    "{{ template }}",
    "${HOME}",
    "%s%n%d",
]


def accepted_streams() -> list[str]:
    """Which of the hostile names a device can give its stream, by JSON's topic or by the line protocol's tag."""
    config = parse_config(
        {
            "mqtt": {"url": "mqtt://localhost"},
            "subscriptions": [{"topic": "telemetry/{stream}"}, {"topic": "influx", "format": "influx"}],
        }
    )
    by_topic, by_tag = decoders(config)
    found = []
    for name in HOSTILE:
        with contextlib.suppress(PayloadError):
            found += [reading.stream for reading in by_topic.decode(f"telemetry/{name}", b'{"a": 1}').readings]
        tag = re.sub(r"([,= \\])", r"\\\1", name)
        with contextlib.suppress(PayloadError):
            found += [reading.stream for reading in by_tag.decode("influx", f"m,host={tag} a=1".encode()).readings]
    return sorted(set(found))


def test_no_name_of_a_stream_leaves_its_folder_its_topic_or_its_label(tmp_path: Path) -> None:
    names = accepted_streams()
    assert len(names) > 10
    folder = ModelFolder(tmp_path)
    folder.path.mkdir()
    registry = CollectorRegistry()
    telemetry = Telemetry(registry, version="0")
    settings = MqttConfig("mqtt://localhost")
    for name in names:
        assert not re.search(r"[/+#\x00-\x1f\x7f]", name)
        file = folder.file(name)
        assert file.resolve().parent.parent == folder.path.resolve()
        assert folder.load(name) == (None, "")  # a name too long for the file system would raise
        file.parent.mkdir()
        file.touch()
        topic = own_topic(settings, "pi-1", "state", name)
        assert topic.count("/") == 3
        assert not re.search(r"[+#\x00]", topic)
        telemetry.row(name, 0.0)
        telemetry.causes(name, (Cause(name, 1.0, 2.0, 1.0),))
    assert folder.streams() == names  # each its own folder, and back to the name it came from
    families = {family.name: family for family in text_string_to_metric_families(generate_latest(registry).decode())}
    assert not any("evil" in name for name in families)
    assert sorted(sample.labels["stream"] for sample in families["gon_edge_rows"].samples) == names


def test_the_database_takes_names_for_names(tmp_path: Path) -> None:
    names = accepted_streams()
    store = Store.open(tmp_path)
    try:
        for name in names:
            store.put_state(f"alerts/{name}", {"name": name})
        store.flush(0.0)
        assert [store.state(f"alerts/{name}") for name in names] == [{"name": name} for name in names]
    finally:
        store.close()
    assert {path.parent for path in tmp_path.rglob("*")} == {tmp_path}


@pytest.mark.parametrize(
    "payload",
    [
        b'{"a":' * 40_000 + b"1" + b"}" * 40_000,
        b"[" * 250_000,
        b"[" + b"{}," * 80_000 + b"{}]",
        b'{"a": ' + b"9" * 250_000 + b"}",
        b'{"a": 1e' + b"9" * 250_000 + b"}",
        b'{"' + b"k" * 250_000 + b'": 1}',
        b"{" + b",".join(b'"k%d":1' % i for i in range(20_000)) + b"}",
        b'{"a":"' + b"\\ud800" * 40_000 + b'"}',
        b'{"a": [' + b"[]," * 80_000 + b"1]}",
    ],
    ids=["objects", "lists", "batch", "integer", "exponent", "key", "keys", "surrogates", "array"],
)
def test_a_large_payload_made_to_hurt_costs_less_than_a_second(payload: bytes) -> None:
    config = parse_config({"mqtt": {"url": "mqtt://localhost"}, "subscriptions": [{"topic": "telemetry/{stream}"}]})
    assert len(payload) <= 512 << 10
    (decoder,) = decoders(replace(config, limits=replace(config.limits, payload_bytes=512 << 10)))
    began = time.process_time()
    with contextlib.suppress(PayloadError):
        for reading in decoder.decode("telemetry/pump", payload).readings:
            assert len(reading.values) + len(reading.masked) <= config.limits.features
    assert time.process_time() - began < 1.0


# -- a running daemon --------------------------------------------------------------------------------------------------


@pytest.mark.slow  # 10,000 streams and broken messages
@pytest.mark.e2e
def test_a_daemon_under_attack_stays_bounded_and_inside_its_directory_and_says_no_secret(tmp_path: Path) -> None:
    passwords = tmp_path / "passwords"
    passwords.touch()
    for user in ("pi-1", "evil"):
        subprocess.run([require("mosquitto_passwd"), "-b", passwords, user, SECRET], check=True, capture_output=True)
    broker = Mosquitto(tmp_path / "broker", settings=f"password_file {passwords}", allow_anonymous=False)
    secret, token = tmp_path / "password", tmp_path / "token"
    secret.write_text(f"{SECRET}\n")
    token.write_text(f"token-{SECRET}\n")
    daemon = DaemonProcess(
        tmp_path,
        broker,
        mqtt={"url": broker.url, "username": "pi-1", "password_file": str(secret), "reconnect_max": "1s"},
        http={"listen": "127.0.0.1:{port}", "token_file": str(token)},
        subscriptions=[{"topic": "telemetry/{stream}"}, {"topic": "influx", "format": "influx"}],
        log={"level": "debug"},
    )
    daemon.config.write_text(daemon.config.read_text().replace("{port}", str(daemon.port)))
    config = load_config(daemon.config)
    (daemon.state_dir / "models").mkdir(parents=True)  # as when there is a model already

    def metrics() -> str:
        return daemon_api(config).metrics()

    def counted(series: str) -> float:
        return float(next((x.rpartition(" ")[2] for x in metrics().splitlines() if x.startswith(series)), "0"))

    def publish(topic: str, payload: bytes) -> None:
        who = ["-u", "evil", "-P", SECRET, "-p", str(broker.port)]
        command = [require("mosquitto_pub"), *who, "-q", "1", "-t", topic, "-s"]
        subprocess.run(command, input=payload, check=True, timeout=30)

    broker.start()
    try:
        with daemon:
            wait_until(lambda: counted("gon_edge_mqtt_connected "), 15, "the connection")
            before = counted("process_resident_memory_bytes")
            lines = "\n".join(f"m,host=s{i} a=1" for i in range(10_000))
            for name in accepted_streams():
                publish(f"telemetry/{name}", b'{"a": 1}')
            publish("telemetry/" + '"' * 128, b'{"a": 1}')  # the name of its folder would be too long
            publish("influx", lines.encode())
            publish("telemetry/deep", b"[" * 250_000)
            publish("telemetry/large", b"x" * 300_000)
            publish("telemetry/..", json.dumps({f"f{i}": i for i in range(5_000)}).encode())
            publish("telemetry/last", b"{}")
            wait_until(
                lambda: counted('gon_edge_messages_rejected_total{reason="empty"}') == 1.0, 30, "the last message"
            )
            assert counted('gon_edge_messages_rejected_total{reason="too_large"}') == 1.0
            assert counted('gon_edge_messages_rejected_total{reason="too_deep"}') == 1.0
            assert counted('gon_edge_messages_rejected_total{reason="bad_stream"}') == 1.0
            assert counted('gon_edge_messages_total{result="ignored"}') >= 10_000 - 100
            assert counted('gon_edge_readings_masked_total{reason="limit"}') >= 4_000
            limit = config.limits.streams
            wait_until(lambda: len(daemon_api(config).status()["streams"]) == limit, 10, "the streams there may be")
            assert len(metrics().splitlines()) < 5_000
            assert counted("process_resident_memory_bytes") - before < 16 << 20
            with pytest.raises(UnreachableError, match="asks for a token"):
                DaemonApi(f"http://127.0.0.1:{daemon.port}").status()
            wrong = DaemonApi(f"http://127.0.0.1:{daemon.port}", authorization=bearer("wrong"))
            with pytest.raises(UnreachableError, match="refuses this token"):
                wrong.status()
            secret.write_text("not-the-password\n")  # and a refused one at the next connection
            broker.restart()
            wait_until(lambda: "refuses us" in daemon.log, 20, "the refusal")
            assert daemon.stop() == 0
        log = daemon.log
        assert "debug gon_edge" in log
        assert "Traceback" not in log
        assert SECRET not in log
        assert "not-the-password" not in log
        assert "\x1b" not in log
        there = {path.relative_to(tmp_path).parts[0] for path in tmp_path.rglob("*")}
        assert there == {"broker", "config.yaml", "daemon.log", "password", "passwords", "state", "token"}
        assert len(list(daemon.state_dir.rglob("*"))) < 20
    finally:
        broker.kill()


def test_the_command_shows_a_configuration_without_its_secrets(tmp_path: Path) -> None:
    (tmp_path / "password").write_text(SECRET)
    path = tmp_path / "gon-edge.yaml"
    path.write_text(CONFIG.replace("}\n", f", username: me, password_file: {tmp_path}/password}}\n", 1))
    command = [sys.executable, "-m", "gon_edge", "config", "show", "--config", str(path)]
    shown = subprocess.run(command, capture_output=True, text=True, timeout=60, env={**os.environ, "P": SECRET})
    assert (shown.returncode, shown.stderr) == (0, "")
    assert SECRET not in shown.stdout
    again = tmp_path / "again.yaml"
    again.write_text(shown.stdout)
    assert replace(load_config(again), path=path) == load_config(path)
    as_json = subprocess.run([*command, "--json"], capture_output=True, text=True, timeout=60)
    assert json.loads(as_json.stdout)["mqtt"]["password_file"] == f"{tmp_path}/password"
