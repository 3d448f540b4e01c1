"""The HTTP port: answers, limits, and the status page in a real browser where there is one."""

from __future__ import annotations

import base64
import hashlib
import http.client
import json
import re
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from e2e.servers import require, wait_until
from prometheus_client import CollectorRegistry, Counter
from snapshots import ALERT, SCORING, WARMING, plain_snapshot, readings

from gon_edge.config.schema import HttpConfig
from gon_edge.errors import GonEdgeError
from gon_edge.links.snapshot import Snapshot
from gon_edge.links.web.server import MAX_THREADS, WebServer


class Daemon:
    """A snapshot that tests may replace."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        self.now = plain_snapshot(
            streams=(SCORING, WARMING),
            alerts=(ALERT,),
            readings={"pump": readings("pump", ("cpu.total",), low=[[4.0], [96.0]])},
            latency_s=(*[0.001] * 9, *[0.002] * 9, 0.03, 0.5),
        )

    def snapshot(self) -> Snapshot:
        return self.now


@pytest.fixture(scope="module")
def served() -> Iterator[tuple[WebServer, Daemon]]:
    """One server for all tests here: stopping one takes half a second."""
    daemon, registry = Daemon(), CollectorRegistry()
    Counter("x_total", "An example.", registry=registry).inc(3)
    running = WebServer(HttpConfig("127.0.0.1:0"), snapshot=daemon.snapshot, registry=registry)
    running.start()
    yield running, daemon
    running.stop()


@pytest.fixture
def daemon(served: tuple[WebServer, Daemon]) -> Daemon:
    served[1].reset()
    return served[1]


@pytest.fixture
def server(served: tuple[WebServer, Daemon], daemon: Daemon) -> WebServer:
    return served[0]


def ask(server: WebServer, path: str, method: str = "GET") -> tuple[int, dict[str, str], bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
    try:
        connection.request(method, path)
        answer = connection.getresponse()
        return answer.status, {key.lower(): value for key, value in answer.getheaders()}, answer.read()
    finally:
        connection.close()


def test_metrics_show_the_registry(server: WebServer) -> None:
    status, headers, body = ask(server, "/metrics")
    assert status == 200
    assert headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert b"\nx_total 3.0\n" in body


@pytest.mark.parametrize(
    ("method", "path", "expected"),
    [
        ("POST", "/api/v1/streams", 405),
        ("DELETE", "/", 405),
        ("BREW", "/", 405),
        ("GET", "/nothing", 404),
        ("GET", "/../../etc/passwd", 404),
        ("GET", "/api/v1/streams/", 404),
        ("GET", "/" + "x" * 70_000, 414),
        ("GET", "/metrics?name[]=x", 200),
        ("GET", "/api/v1/readings?stream=pump", 200),
        ("GET", "/api/v1/readings", 400),
        ("GET", "/api/v1/days?stream=nobody", 404),
    ],
)
def test_only_known_paths_are_read(server: WebServer, method: str, path: str, expected: int) -> None:
    status, headers, _ = ask(server, path, method)
    assert status == expected
    assert headers.get("allow") == ("GET, HEAD" if expected == 405 else None)
    assert "Python" not in headers["server"]


def test_head_sends_the_headers_alone(server: WebServer) -> None:
    status, headers, body = ask(server, "/", "HEAD")
    assert (status, body) == (200, b"")
    assert int(headers["content-length"]) == len(ask(server, "/")[2])


def test_a_failing_snapshot_is_an_error_of_one_answer_only(daemon: Daemon) -> None:
    def broken() -> Snapshot:
        raise RuntimeError("secret detail")

    server = WebServer(HttpConfig("127.0.0.1:0"), snapshot=broken, registry=CollectorRegistry())
    server.start()
    try:
        status, _, body = ask(server, "/api/v1/status")
        assert (status, body) == (500, b"internal error\n")
        assert ask(server, "/metrics")[0] == 200
    finally:
        server.stop()


def test_the_policy_admits_the_pages_own_script_and_style_and_nothing_else(server: WebServer) -> None:
    _, headers, body = ask(server, "/")
    policy = headers["content-security-policy"]
    text = body.decode()
    for tag in ("script", "style"):
        blocks = re.findall(rf"<{tag}>(.*?)</{tag}>", text, re.DOTALL)
        assert len(blocks) == 1
        assert base64.b64encode(hashlib.sha256(blocks[0].encode()).digest()).decode() in policy
    assert "unsafe" not in policy
    assert "default-src 'none'" in policy
    assert not re.search(r"""(?:src|href)=["']?(?:https?:)?//""", text)  # no asset of a third party
    assert not re.search(r"""\s(?:style|on\w+)=["']""", text)  # the policy forbids these
    assert (headers["x-content-type-options"], headers["cache-control"]) == ("nosniff", "no-store")
    assert "innerHTML" not in text


def test_a_slow_client_is_cut_off(monkeypatch: pytest.MonkeyPatch, daemon: Daemon) -> None:
    monkeypatch.setattr("gon_edge.links.web.server._CONNECTION_S", 0.5)
    server = WebServer(HttpConfig("127.0.0.1:0"), snapshot=daemon.snapshot, registry=CollectorRegistry())
    server.start()
    try:
        with socket.create_connection(("127.0.0.1", server.port), timeout=10) as slow:
            slow.sendall(b"GET / HTTP/1.1\r\nX: ")
            began = time.monotonic()
            with pytest.raises(OSError):  # noqa: PT012  it may take a few bytes until the cut is noticed
                while time.monotonic() - began < 20:
                    slow.sendall(b"x")
                    time.sleep(0.05)
        assert time.monotonic() - began < 10
    finally:
        server.stop()


def test_many_slow_clients_neither_start_many_threads_nor_shut_others_out_for_long(
    monkeypatch: pytest.MonkeyPatch, daemon: Daemon
) -> None:
    monkeypatch.setattr("gon_edge.links.web.server._CONNECTION_S", 1.0)
    server = WebServer(HttpConfig("127.0.0.1:0"), snapshot=daemon.snapshot, registry=CollectorRegistry())
    server.start()
    slow = [socket.create_connection(("127.0.0.1", server.port), timeout=10) for _ in range(20)]
    try:

        def workers() -> int:
            return sum(t.name == "gon-edge http" for t in threading.enumerate())

        # Polled: a thread that has handed its place on may take a moment to end.
        wait_until(lambda: workers() <= MAX_THREADS + 1, 5.0, "as many threads as allowed")

        def answered() -> bool:
            try:
                return ask(server, "/healthz")[0] == 200
            except OSError:
                return False

        wait_until(answered, timeout_s=20)
    finally:
        for each in slow:
            each.close()
        server.stop()


def test_stop_closes_the_port_and_a_taken_port_is_named(daemon: Daemon) -> None:
    server = WebServer(HttpConfig("127.0.0.1:0"), snapshot=daemon.snapshot, registry=CollectorRegistry())
    server.start()
    with pytest.raises(GonEdgeError, match=rf"127\.0\.0\.1:{server.port}.*http\.listen"):
        WebServer(HttpConfig(f"127.0.0.1:{server.port}"), snapshot=daemon.snapshot, registry=CollectorRegistry())
    server.stop()
    with pytest.raises(OSError):
        socket.create_connection(("127.0.0.1", server.port), timeout=1).close()


def test_a_hundred_streams_are_served_quickly(server: WebServer, daemon: Daemon) -> None:
    streams = tuple(replace(SCORING, name=f"s{i}", scores=(0.5,) * 120) for i in range(100))
    daemon.now = replace(daemon.now, streams=streams)
    began = time.process_time()  # the server is a thread of this process
    assert len(json.loads(ask(server, "/api/v1/streams")[2])["streams"]) == 100
    assert time.process_time() - began < 1.0


@pytest.mark.e2e
def test_the_status_page_shows_alerts_warm_up_and_hostile_names_as_text(server: WebServer, tmp_path: Path) -> None:
    command = [require("chromium"), "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run"]
    command += [
        "--disable-extensions",
        f"--user-data-dir={tmp_path}",
        "--virtual-time-budget=3000",
        "--enable-logging=stderr",
        "--dump-dom",
    ]
    result = subprocess.run([*command, server.url], capture_output=True, text=True, timeout=90)
    page = result.stdout
    assert "CONSOLE" not in result.stderr
    assert "<title>● 1 alert · pi-1 · gon-edge</title>" in page
    assert "97, expected 4" in page
    assert "62 % of the score" in page
    assert "score 3 times the threshold" in page
    assert 'aria-valuenow="25"' in page
    assert "About 8 min until the first model" in page
    assert "&lt;img src=x onerror" in page
    assert "<img" not in re.sub(r'="[^"]*"', "", page)
