"""A socket in blocks, against a plain one on the other side."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator

import pytest

from gon_edge.links.mqtt.blocks import BlockSocket, InBlocks

Pair = tuple[BlockSocket, socket.socket]


@pytest.fixture
def pair() -> Iterator[Pair]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        ours = InBlocks(None).wrap_socket(socket.create_connection(listener.getsockname()))
        theirs, _ = listener.accept()
    theirs.settimeout(10.0)
    yield ours, theirs
    ours.close()
    theirs.close()


def arrived(ours: BlockSocket) -> None:
    deadline = time.monotonic() + 10.0
    while not ours.pending() and time.monotonic() < deadline:
        try:
            assert ours.recv(0) == b""
        except BlockingIOError:
            time.sleep(0.01)


def test_small_pieces_come_from_one_block(pair: Pair) -> None:
    ours, theirs = pair
    ours.setblocking(False)
    before = time.clock_gettime(time.CLOCK_BOOTTIME)
    theirs.sendall(b"abcdef")
    arrived(ours)
    read_at = ours.read_at
    assert (ours.recv(1), ours.recv(2), ours.pending(), ours.recv(9)) == (b"a", b"bc", 3, b"def")
    assert before <= read_at == ours.read_at  # one block: read once
    with pytest.raises(BlockingIOError):
        ours.recv(1)
    theirs.close()
    arrived_end = time.monotonic() + 10.0
    while time.monotonic() < arrived_end:
        try:
            assert ours.recv(1) == b""
            break
        except BlockingIOError:
            time.sleep(0.01)


def test_what_is_sent_leaves_with_the_flush(pair: Pair) -> None:
    ours, theirs = pair
    ours.setblocking(False)
    assert (ours.send(b"ab"), ours.send(b"c"), ours.unsent) == (2, 1, True)
    theirs.setblocking(False)
    with pytest.raises(BlockingIOError):
        theirs.recv(10)
    theirs.settimeout(10.0)
    ours.flush()
    assert (theirs.recv(10), ours.unsent) == (b"abc", False)


def test_handshakes_go_through_at_once_and_take_no_byte_too_many(pair: Pair) -> None:
    ours, theirs = pair
    assert ours.send(b"hello") == 5
    assert theirs.recv(10) == b"hello"
    theirs.sendall(b"abc")
    ours.settimeout(10.0)
    assert (ours.recv(1), ours.pending()) == (b"a", 0)


def test_a_broker_that_reads_nothing_is_not_collected_for_without_end(pair: Pair) -> None:
    ours, _ = pair
    ours.setblocking(False)
    for _ in range(5):  # 320 KiB
        ours.send(bytes(64 << 10))
    with pytest.raises(BlockingIOError):
        ours.send(b"x")
