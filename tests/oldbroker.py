"""Brokers that mosquitto cannot play, and what stands before one: raw sockets that speak as much as they must."""

from __future__ import annotations

import contextlib
import socket
import threading
from typing import Self

REFUSE_AS_3_1_1 = bytes.fromhex("20020001")  # how a broker from before MQTT 5 says "unacceptable protocol version"
REFUSE_AS_5 = bytes.fromhex("2003008400")
ACCEPT_THEN_TAKE_OVER = bytes.fromhex("2003000000e0028e00")  # mosquitto 2.0 closes without giving this reason


class OldBroker(threading.Thread):
    """Answers MQTT 5 with `to_mqtt_5` and closes, accepts 3.1.1, and refuses every subscription.

    `None` for an answer keeps silent and the connection open, as amqtt does.  It acknowledges no message, as where
    something on the way swallows the answers.  `None` for SUBSCRIBE closes the connection, as AWS IoT does for a topic
    it denies; `closes_for` is a topic for which alone it does so.
    """

    def __init__(
        self, to_mqtt_5: bytes | None, *, to_subscribe: bytes | None = b"\x80", closes_for: bytes = b""
    ) -> None:
        super().__init__(daemon=True)
        self._closes_for = closes_for
        self._to_subscribe = to_subscribe
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._to_mqtt_5 = to_mqtt_5
        self.port: int = self._listener.getsockname()[1]
        self.versions: list[int] = []
        self._kept: list[socket.socket] = []

    def run(self) -> None:
        while True:
            connection, _ = self._listener.accept()
            with connection:
                connect = connection.recv(4096)
                if b"MQTT" not in connect:  # closed again
                    continue
                version = connect[connect.index(b"MQTT") + 4]
                self.versions.append(version)
                if version == 5 and self._to_mqtt_5 is None:
                    self._kept.append(connection.dup())
                    continue
                if version == 5 and self._to_mqtt_5 is not None:
                    connection.sendall(self._to_mqtt_5)
                    continue
                connection.sendall(bytes.fromhex("20020000"))
                while packet := connection.recv(4096):
                    at = packet.find(b"\x82")  # SUBSCRIBE: fixed header, length, packet id
                    if at >= 0 and self._to_subscribe is None:
                        break
                    if self._closes_for and self._closes_for in packet:
                        break
                    if at >= 0:
                        connection.sendall(b"\x90\x03" + packet[at + 2 : at + 4] + self._to_subscribe)


class PathProxy:
    """A reverse proxy: requests for `path` go on to `port` as they are, others are answered by 404."""

    def __init__(self, path: str, port: int) -> None:
        self._path, self._behind = path, port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]

    def __enter__(self) -> Self:
        threading.Thread(target=self._serve, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.close()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                front, _ = self._listener.accept()
                request = front.recv(4096)
                known = request.split(b" ")[1] == self._path.encode()
                back = socket.socket()
                if not known or back.connect_ex(("127.0.0.1", self._behind)):  # the broker may still be starting
                    status = b"502 Bad Gateway" if known else b"404 Not Found"
                    front.sendall(b"HTTP/1.1 " + status + b"\r\nContent-Length: 0\r\n\r\n")
                    front.close()
                    continue
                back.sendall(request)
                for one, other in ((front, back), (back, front)):
                    threading.Thread(target=_pass_on, args=(one, other), daemon=True).start()


def _pass_on(one: socket.socket, other: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := one.recv(4096):
            other.sendall(data)
    for each in (one, other):
        with contextlib.suppress(OSError):
            each.shutdown(socket.SHUT_RDWR)
