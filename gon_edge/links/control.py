"""The way from a command to the running daemon: a unix socket in the state directory, a JSON object a line.

A client sends one request and reads lines until the answer; it may send another after that.  ``{"progress": {...}}`` is
on the way, ``{"ok": true, ...}`` and ``{"ok": false, "error": "...", "exit_code": 4}`` are the end.  Who may write to
the socket file may ask for anything: there is no password, and HTTP changes nothing.

The thread here only moves lines.  Requests wait in a queue; the scoring thread takes them between two rows, and its
answers go back through the thread.  A client that does not read therefore costs the scoring nothing.
``training.operations`` knows what requests mean, ``training.ask`` how a command makes them.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from gon_edge.errors import GonEdgeError, StoreError, UnreachableError

SOCKET = "control.sock"

FLEET_LOCK = "control.lock"
"""Held by the one worker of a fleet that listens for all of this machine; in no state directory of a daemon."""

LINE_BYTES = 64 << 10
"""Longest request.  Not critical: the longest a command writes names a stream and is under 2 KiB."""

CLIENTS = 8
"""Connections at a time.  Not critical: another one is told to come again later."""

WAITING_BYTES = 256 << 10
"""Answers that wait for a client.  Not critical: one that reads too slowly for them is cut off."""

_PATH_BYTES = 107  # sun_path of unix(7), less the zero byte
_IDLE_S = 10.0  # not critical: then a connection without a request is closed
_PERMISSIONS = 0o660  # whoever may write to the file may ask for anything: the user of the daemon, and its group


def socket_path(state_dir: Path) -> Path:
    """Where a daemon with this state directory listens.

    Raises
    ------
    StoreError
        The path is longer than a unix socket's may be.
    """
    path = state_dir.absolute() / SOCKET
    if len(os.fsencode(path)) > _PATH_BYTES:
        raise StoreError(
            f"{path} is too long for a socket ({_PATH_BYTES} bytes at most); commands cannot reach the daemon: "
            "choose a shorter state_dir"
        )
    return path


def is_of_fleet(state_dir: Path) -> bool:
    """Whether workers of a fleet have this folder: what is known of streams is not in it."""
    return (state_dir / FLEET_LOCK).exists()


class Request:
    """One request, for the thread that acts on it.

    Attributes
    ----------
    asked : mapping of str to object
        JSON object as the client sent it: nothing in it has been checked.
    """

    def __init__(self, asked: Mapping[str, Any], client: _Client, wake: Callable[[], None]) -> None:
        self.asked = asked
        self._client = client
        self._wake = wake

    @property
    def gone(self) -> bool:
        """Whether the client has hung up."""
        return self._client.closed

    def tell(self, **progress: Any) -> None:
        """Say how far it is; dropped where the client has not read what was said before."""
        if not self._client.outgoing:
            self._send({"progress": progress})

    def answer(self, **result: Any) -> None:
        """Send the result; the request is over."""
        self._finish({"ok": True, **result})

    def refuse(self, error: GonEdgeError | str) -> None:
        """Send an error; the request is over."""
        code = error.exit_code if isinstance(error, GonEdgeError) else 1
        self._finish({"ok": False, "error": str(error), "exit_code": code})

    def _finish(self, message: Mapping[str, Any]) -> None:
        self._client.busy = False
        self._client.since = time.monotonic()
        self._send(message)

    def _send(self, message: Mapping[str, Any]) -> None:
        self._client.outgoing += json.dumps(message, separators=(",", ":"), default=str).encode() + b"\n"
        self._wake()


class _Client:
    """One connection.  The scoring thread only appends to `outgoing`; the rest is the server thread's."""

    def __init__(self, channel: socket.socket) -> None:
        self.channel = channel
        self.incoming = bytearray()
        self.outgoing = bytearray()
        self.busy = False
        self.closed = False
        self.ending = False  # after an error: close when everything is sent
        self.since = time.monotonic()


class ControlServer:
    """Listens on the socket of a state directory, on a thread of its own.

    Parameters
    ----------
    state_dir : Path
        The caller holds its lock, so that a socket file that is there was left by a daemon that was killed.

    Attributes
    ----------
    requests : deque of Request
        As many as there are clients at most; the scoring thread takes them from the left.
    refused : int
        Requests that were no requests, and connections that were one too many.
    thread : threading.Thread
        Takes requests in, from :meth:`start` to :meth:`stop`.

    Raises
    ------
    StoreError
        The path is too long for a socket.
    OSError
        The socket cannot be made, on a read-only disk for example.
    """

    def __init__(self, state_dir: Path) -> None:
        self.path = socket_path(state_dir)
        self.requests: deque[Request] = deque()
        self.refused = 0
        self._clients: dict[socket.socket, _Client] = {}
        self._stopping = False
        self.path.unlink(missing_ok=True)
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        try:
            self._listener.bind(str(self.path))
            self.path.chmod(_PERMISSIONS)  # nobody can connect before listen()
            self._listener.listen(CLIENTS)
        except OSError:
            self._listener.close()
            raise
        self._alarm, self._bell = socket.socketpair()
        self._alarm.setblocking(False)
        self._bell.setblocking(False)
        self.thread = threading.Thread(target=self._serve, name="gon-edge control", daemon=True)

    def start(self) -> None:
        """Begin to answer."""
        self.thread.start()

    def stop(self) -> None:
        """Hang up on everybody and remove the socket; what was answered before is still sent, within a second."""
        self._stopping = True
        self._wake()
        if self.thread.is_alive():
            self.thread.join(2.0)
        self._listener.close()
        with contextlib.suppress(OSError):
            self.path.unlink(missing_ok=True)

    def _wake(self) -> None:
        with contextlib.suppress(OSError):  # a full pipe wakes as well
            self._bell.send(b"!")

    # -- the thread --------------------------------------------------------------------------------------------------

    def _serve(self) -> None:
        with selectors.DefaultSelector() as selector:
            selector.register(self._listener, selectors.EVENT_READ)
            selector.register(self._alarm, selectors.EVENT_READ)
            until = float("inf")
            while time.monotonic() < until:
                for key, _ in selector.select(1.0 if self._clients or self._stopping else None):
                    if key.fileobj is self._listener:
                        self._accept(selector)
                    elif key.fileobj is self._alarm:
                        with contextlib.suppress(OSError):
                            self._alarm.recv(4096)
                    else:
                        self._read(self._clients[key.fileobj])  # type: ignore[index]
                for client in list(self._clients.values()):
                    self._write(client)
                    self._settle(selector, client)
                if self._stopping:
                    until = min(until, time.monotonic() + 1.0)
                    if not any(client.outgoing for client in self._clients.values()):
                        break
            for client in list(self._clients.values()):
                client.closed = True
                client.channel.close()

    def _accept(self, selector: selectors.BaseSelector) -> None:
        try:
            channel, _ = self._listener.accept()
        except OSError:  # gone again, or no file descriptor left, and then the next try comes at once
            time.sleep(0.05)
            return
        channel.setblocking(False)
        client = _Client(channel)
        self._clients[channel] = client
        selector.register(channel, selectors.EVENT_READ)
        if len(self._clients) > CLIENTS:
            self._reject(client, "too many commands at a time; try again later", exit_code=75)

    def _read(self, client: _Client) -> None:
        try:
            received = client.channel.recv(LINE_BYTES)
        except BlockingIOError:
            return
        except OSError:
            received = b""
        if not received:
            client.closed = True
            return
        if client.ending:
            return
        client.incoming += received
        line, newline, rest = bytes(client.incoming).partition(b"\n")
        if client.busy or len(line) > LINE_BYTES:
            self._reject(client, "a request before the last one was answered" if client.busy else "a line too long")
        elif newline:
            client.incoming[:] = rest
            self._take(client, line)

    def _take(self, client: _Client, line: bytes) -> None:
        try:
            asked = json.loads(line)
        except (ValueError, RecursionError):
            asked = None
        if not isinstance(asked, dict) or not isinstance(asked.get("do"), str):
            self._reject(client, 'not a request: send one JSON object with "do" in a line')
            return
        client.busy = True
        self.requests.append(Request(asked, client, self._wake))

    def _reject(self, client: _Client, reason: str, exit_code: int = 1) -> None:
        self.refused += 1
        client.ending = True
        client.incoming.clear()
        client.outgoing += json.dumps({"ok": False, "error": reason, "exit_code": exit_code}).encode() + b"\n"

    def _write(self, client: _Client) -> None:
        if not client.outgoing or client.closed:
            return
        try:
            sent = client.channel.send(bytes(client.outgoing))
        except BlockingIOError:
            sent = 0
        except OSError:
            client.closed = True
            return
        del client.outgoing[:sent]

    def _settle(self, selector: selectors.BaseSelector, client: _Client) -> None:
        idle = not client.busy and not client.outgoing and time.monotonic() - client.since > _IDLE_S
        done = client.ending and not client.outgoing
        if client.closed or idle or done or len(client.outgoing) > WAITING_BYTES:
            client.closed = True
            selector.unregister(client.channel)
            del self._clients[client.channel]
            client.channel.close()
            return
        wanted = selectors.EVENT_READ | (selectors.EVENT_WRITE if client.outgoing else 0)
        if selector.get_key(client.channel).events != wanted:
            selector.modify(client.channel, wanted)


def request(
    state_dir: Path,
    asked: Mapping[str, Any],
    *,
    progress: Callable[[Mapping[str, Any]], None] | None = None,
    timeout_s: float = 30.0,
) -> dict[str, Any]:
    """Ask the daemon that runs with this state directory, and wait for its answer.

    Parameters
    ----------
    state_dir : Path
    asked : mapping
        ``{"do": ...}`` and what that needs; JSON types.
    progress : callable, optional
        Gets what the daemon says on the way.
    timeout_s : float
        Longest silence; a daemon that works says so more often.

    Returns
    -------
    dict
        The answer, without ``ok``.

    Raises
    ------
    UnreachableError
        No daemon listens there, it may not be asked by this user, or it has stopped answering.
    GonEdgeError
        The daemon refused; with the exit code it named.
    """
    path = socket_path(state_dir)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as channel:
        channel.settimeout(timeout_s)
        try:
            channel.connect(str(path))
            channel.sendall(json.dumps(asked, separators=(",", ":")).encode() + b"\n")
        except PermissionError:
            raise UnreachableError(f"{path}: permission denied; run this as the user gon-edge runs as") from None
        except OSError as error:
            raise UnreachableError(f"no gon-edge listens at {path}: {error.strerror or error}") from None
        with channel.makefile("rb") as lines:
            while True:
                try:
                    line = lines.readline()
                except TimeoutError:
                    raise UnreachableError(f"the daemon has not answered for {timeout_s:.0f} s") from None
                except OSError:
                    line = b""
                if not line.endswith(b"\n"):
                    raise UnreachableError("the daemon hung up without an answer; see its log")
                message = json.loads(line)
                if "progress" in message:
                    if progress is not None:
                        progress(message["progress"])
                    continue
                if message.pop("ok"):
                    return dict(message)
                refused = GonEdgeError(message["error"])
                refused.exit_code = int(message["exit_code"])
                raise refused


def listens(state_dir: Path) -> bool:
    """Whether a daemon listens on the socket of this state directory; says nothing about whether it may be asked."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as channel:
        channel.settimeout(5.0)
        try:
            channel.connect(str(socket_path(state_dir)))
        except PermissionError:
            return True
        except (OSError, StoreError):
            return False
        return True
