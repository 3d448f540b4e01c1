"""The control socket: what passes, who is refused, and that nobody can hold up the thread that scores."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from gon_edge.errors import GonEdgeError, NotEnoughData, StoreError, UnreachableError
from gon_edge.links.control import CLIENTS, LINE_BYTES, ControlServer, Request, listens, request, socket_path


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ControlServer]:
    running = ControlServer(tmp_path)
    running.start()
    yield running
    running.stop()


def connected(server: ControlServer) -> socket.socket:
    channel = socket.socket(socket.AF_UNIX)
    channel.settimeout(5.0)
    channel.connect(str(server.path))
    return channel


def said(channel: socket.socket) -> list[dict]:
    """Everything the server says until it hangs up."""
    with channel.makefile("rb") as lines:
        return [json.loads(line) for line in lines]


def taken(server: ControlServer) -> Request:
    deadline = time.monotonic() + 60.0
    while not server.requests:
        assert time.monotonic() < deadline, "no request came"
        time.sleep(0.002)
    return server.requests.popleft()


def asked_in_a_thread(server: ControlServer, asked: dict, progress: list) -> tuple[threading.Thread, list]:
    result: list = []

    def ask() -> None:
        try:
            result.append(request(server.path.parent, asked, progress=progress.append, timeout_s=5.0))
        except GonEdgeError as error:
            result.append(error)

    thread = threading.Thread(target=ask)
    thread.start()
    return thread, result


def test_a_request_gets_its_progress_and_its_answer(server: ControlServer) -> None:
    progress: list = []
    thread, result = asked_in_a_thread(server, {"do": "retrain", "streams": ["pump"]}, progress)
    got = taken(server)
    assert got.asked == {"do": "retrain", "streams": ["pump"]}
    got.tell(phase="fit", share=0.5)
    deadline = time.monotonic() + 60.0
    while not progress and time.monotonic() < deadline:
        time.sleep(0.005)
    got.answer(version="2")
    thread.join(5.0)
    assert progress == [{"phase": "fit", "share": 0.5}]
    assert result == [{"version": "2"}]


def test_a_refusal_carries_the_exit_code(server: ControlServer) -> None:
    thread, result = asked_in_a_thread(server, {"do": "retrain"}, [])
    taken(server).refuse(NotEnoughData("pump", "12 rows are stored"))
    thread.join(5.0)
    assert result[0].exit_code == 4
    assert str(result[0]) == "stream 'pump': 12 rows are stored"


def test_one_connection_may_ask_again_after_the_answer(server: ControlServer) -> None:
    with connected(server) as channel, channel.makefile("rwb") as lines:
        for number in (1, 2):
            lines.write(json.dumps({"do": "count", "number": number}).encode() + b"\n")
            lines.flush()
            got = taken(server)
            got.answer(number=got.asked["number"])
            assert json.loads(lines.readline()) == {"ok": True, "number": number}


@pytest.mark.parametrize(
    "line", [b"\n", b"not json\n", b"[]\n", b"{}\n", b'{"do": 1}\n', b"[" * 5000 + b"\n", b"\xff\xfe\n", b'{"do": "a'],
    ids=["empty", "text", "list", "nothing", "number", "deep", "bytes", "cut off"],
)  # fmt: skip
def test_what_is_no_request_is_refused_and_counted(server: ControlServer, line: bytes) -> None:
    with connected(server) as channel:
        channel.sendall(line)
        if not line.endswith(b"\n"):
            channel.sendall(b"x" * LINE_BYTES)
        (answer,) = said(channel)
    assert answer["ok"] is False
    assert server.refused == 1
    assert not server.requests


def test_a_second_request_before_the_answer_is_refused(server: ControlServer) -> None:
    with connected(server) as channel:
        channel.sendall(b'{"do": "a"}\n')
        got = taken(server)
        channel.sendall(b'{"do": "b"}\n')
        assert said(channel)[0]["error"] == "a request before the last one was answered"
        assert not server.requests
    got.answer()  # to nobody


def test_one_client_too_many_is_told_to_come_again(server: ControlServer) -> None:
    held = [connected(server) for _ in range(CLIENTS)]
    try:
        for channel in held:
            channel.sendall(b'{"do": "wait"}\n')
        waiting = [taken(server) for _ in held]
        with connected(server) as late:
            (answer,) = said(late)
        assert answer["exit_code"] == 75
        waiting[0].answer()
        held.pop(0).close()
        deadline = time.monotonic() + 60.0
        while time.monotonic() < deadline:  # the slot is free once the server has seen the end
            with connected(server) as again:
                again.sendall(b'{"do": "now"}\n')
                again.settimeout(0.2)
                with contextlib.suppress(TimeoutError):
                    if again.recv(1):  # refused
                        continue
                assert taken(server).asked == {"do": "now"}
                break
        else:
            pytest.fail("no slot became free")
    finally:
        for channel in held:
            channel.close()


def test_a_client_that_hangs_up_is_noticed(server: ControlServer) -> None:
    with connected(server) as channel:
        channel.sendall(b'{"do": "retrain"}\n')
        got = taken(server)
        assert not got.gone
    deadline = time.monotonic() + 60.0
    while not got.gone:
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_a_client_that_does_not_read_costs_bounded_memory(server: ControlServer) -> None:
    with connected(server) as channel:
        channel.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        channel.sendall(b'{"do": "retrain"}\n')
        got = taken(server)
        for _ in range(20_000):
            got.tell(phase="fit", text="x" * 100)
        assert len(got._client.outgoing) < 1024


def test_the_socket_is_for_owner_and_group_and_goes_with_the_server(tmp_path: Path) -> None:
    server = ControlServer(tmp_path)
    server.start()
    assert stat.S_IMODE(server.path.stat().st_mode) == 0o660
    assert listens(tmp_path)
    server.stop()
    assert not server.path.exists()
    assert not listens(tmp_path)


def test_a_socket_file_left_by_a_killed_daemon_is_in_nobodys_way(tmp_path: Path) -> None:
    script = (
        "import os, sys, pathlib; from gon_edge.links.control import ControlServer; "
        "server = ControlServer(pathlib.Path(sys.argv[1])); server.start(); os.kill(os.getpid(), 9)"
    )
    subprocess.run([sys.executable, "-c", script, str(tmp_path)], timeout=30, check=False)
    assert socket_path(tmp_path).exists()
    assert not listens(tmp_path)
    with pytest.raises(UnreachableError, match="no gon-edge listens"):
        request(tmp_path, {"do": "status"})
    server = ControlServer(tmp_path)
    server.start()
    assert listens(tmp_path)
    server.stop()


def test_a_path_too_long_for_a_socket_is_an_error_that_says_so(tmp_path: Path) -> None:
    deep = tmp_path / ("x" * 100)
    deep.mkdir()
    with pytest.raises(StoreError, match="choose a shorter state_dir"):
        ControlServer(deep)
    assert not listens(deep)


def test_a_daemon_that_ends_in_the_middle_is_an_error(server: ControlServer) -> None:
    thread, result = asked_in_a_thread(server, {"do": "retrain"}, [])
    taken(server)
    server.stop()
    thread.join(5.0)
    assert isinstance(result[0], UnreachableError)
    assert "hung up" in str(result[0])


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user; type: root")
def test_another_user_is_told_that_he_may_not(server: ControlServer, tmp_path: Path) -> None:
    for folder in (tmp_path, *tmp_path.parents):
        if folder.stat().st_uid == 0 and folder != Path("/"):
            folder.chmod(folder.stat().st_mode | 0o011)
    script = (
        "import os, sys, pathlib; from gon_edge.links.control import request; os.setgid(65534); os.setuid(65534)\n"
        "request(pathlib.Path(sys.argv[1]), {'do': 'status'})"
    )
    run = subprocess.run([sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True, timeout=30)
    assert "permission denied" in run.stderr
