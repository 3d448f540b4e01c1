"""Brokers that mosquitto cannot play: a raw socket that speaks as much MQTT as it must."""

from __future__ import annotations

import socket
import threading

REFUSE_AS_3_1_1 = bytes.fromhex("20020001")  # how a broker from before MQTT 5 says "unacceptable protocol version"
REFUSE_AS_5 = bytes.fromhex("2003008400")
ACCEPT_THEN_TAKE_OVER = bytes.fromhex("2003000000e0028e00")  # mosquitto 2.0 closes without giving this reason


class OldBroker(threading.Thread):
    """Answers MQTT 5 with `to_mqtt_5` and closes, accepts 3.1.1, and refuses every subscription.

    `None` for an answer keeps silent and the connection open, as amqtt does.
    """

    def __init__(self, to_mqtt_5: bytes | None) -> None:
        super().__init__(daemon=True)
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
                    if at >= 0:
                        connection.sendall(b"\x90\x03" + packet[at + 2 : at + 4] + b"\x80")
