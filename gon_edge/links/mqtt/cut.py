"""Messages too large to be kept, cut short while they are read.

paho takes a whole packet into memory before anybody can look at it, several times over: a message of 120 MB took
520 MB, the kernel killed the process, and the broker sent the message again.  By MQTT 5 we tell the broker what we
take, and it keeps the rest to itself.  Where it does not, as by MQTT 3.1.1, what goes on to paho is a stand-in: the
same topic, flags and packet identifier, and as many zero bytes as are surely too many.  So paho acknowledges the
message as any other, and whoever decodes it finds it too large and counts it.

`Packets` follows MQTT (section 2.1 of its specification), `Frames` the WebSocket frames around it (RFC 6455, section
5.2).  Knows no socket.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

_PUBLISH = 3
_TOPIC_BYTES = 65535  # two bytes of length
_OVERHEAD_BYTES = 1024  # packet identifier and, by MQTT 5, properties: of these we read none
_DATA_FRAMES = (0, 1, 2)  # continuation, text, binary
_BINARY = 0x82  # the only frame of a message


def most_packet_bytes(max_payload: int) -> int:
    """Return the size of the largest packet that is taken whole; a payload of `max_payload` bytes fits in any."""
    return max_payload + _TOPIC_BYTES + _OVERHEAD_BYTES


class Cut(NamedTuple):
    """A message that was too large.

    Attributes
    ----------
    topic : str
    bytes : int
        Of its payload, and of properties where it has some.
    """

    topic: str
    bytes: int


class Packets:
    r"""Follows the packets of one connection.

    Parameters
    ----------
    max_payload : int
        Bytes.  A larger message passes whole up to `most_packet_bytes`, and is cut beyond.
    mqtt_5 : bool
        Whether a PUBLISH has properties.

    Attributes
    ----------
    cut : list of Cut
        Messages cut since it was emptied.

    Examples
    --------
    >>> packets = Packets(4, mqtt_5=False)
    >>> bytes(packets.feed(memoryview(bytes([0xD0, 0]))))  # PINGRESP
    b'\xd0\x00'
    """

    def __init__(self, max_payload: int, *, mqtt_5: bool) -> None:
        self.cut: list[Cut] = []
        self._most = most_packet_bytes(max_payload)
        self._stand_in_bytes = max_payload + 1
        self._mqtt_5 = mqtt_5
        self._held = bytearray()  # the beginning of a packet of which too little has come to judge it
        self._through = 0  # bytes of the packet under way that pass
        self._skip = 0  # bytes of it that do not
        self._owed = 0  # zero bytes that its stand-in still lacks

    def feed(self, data: memoryview) -> memoryview | bytearray:
        """Return what passes of the next bytes; `data` itself where all of it does."""
        out: bytearray | None = None  # what has passed so far, where that is not `data` up to here
        at = begin = 0  # of what passes unchanged
        while at < len(data):
            if self._through:
                step = min(self._through, len(data) - at)
                self._through -= step
                at += step
            elif not self._held and not self._skip and (header := _header(data, at)) is not None:
                if self._too_large(data[at], header[1]):
                    self._held += data[at : header[0]]
                    out = _joined(out, data[begin:at])
                    at = begin = header[0]
                else:
                    at, self._through = header
            else:
                out = _joined(out, data[begin:at])
                at = self._skipped(data, at, out) if self._skip else self._hold(data, at, out)
                begin = at
        return data if out is None else _joined(out, data[begin:at])

    def _too_large(self, first: int, remaining: int) -> bool:
        return first >> 4 == _PUBLISH and remaining > self._most

    def _skipped(self, data: memoryview, at: int, out: bytearray) -> int:
        """Leave out bytes of a message, and return where they end."""
        step = min(self._skip, len(data) - at)
        self._skip -= step
        # A byte for each block, so that paho sees that the broker is alive; the others at the end.
        give = min(1, self._owed - 1) if self._skip else self._owed
        out += bytes(give)
        self._owed -= give
        return at + step

    def _hold(self, data: memoryview, at: int, out: bytearray) -> int:
        """Take in more of the beginning of a packet, judge it when there is enough, and return where that ends."""
        held = self._held
        header = _header(memoryview(held), 0)
        if header is None:
            held.append(data[at])
            if (header := _header(memoryview(held), 0)) is not None and not self._too_large(held[0], header[1]):
                out += held
                self._through = header[1]
                held.clear()
            return at + 1
        begin, remaining = header
        wanted = _head_bytes(held, begin)
        step = min(wanted - len(held), len(data) - at)
        held += data[at : at + step]
        if len(held) == _head_bytes(held, begin):
            self._stand_in(begin, remaining, out)
        return at + step

    def _stand_in(self, begin: int, remaining: int, out: bytearray) -> None:
        """Begin the stand-in of the message whose topic and packet identifier have come."""
        held = self._held
        topic_bytes = int.from_bytes(held[begin : begin + 2], "big")
        self._skip = remaining - (len(held) - begin)
        self._owed = self._stand_in_bytes
        self.cut.append(Cut(held[begin + 2 : begin + 2 + topic_bytes].decode(errors="replace"), self._skip))
        head = held[begin:] + (b"\0" if self._mqtt_5 else b"")  # no properties
        out += bytes([held[0]]) + _length(len(head) + self._owed) + head
        held.clear()


class Frames:
    """Follows the WebSocket frames of one connection, and hands what they carry to `packets`."""

    def __init__(self, packets: Packets) -> None:
        self._packets = packets
        self._header = bytearray()
        self._left = 0  # bytes of the frame under way
        self._data = False  # whether it is one of data

    def feed(self, data: memoryview) -> bytearray:
        """Return what passes of the next bytes, in frames of its own."""
        out, at = bytearray(), 0
        while at < len(data):
            if not self._left:
                self._header.append(data[at])
                at += 1
                self._open(out)
                continue
            step = min(self._left, len(data) - at)
            carried = data[at : at + step]
            passing = self._packets.feed(carried) if self._data else carried
            if self._data and len(passing):
                out += _frame_header(len(passing))
            out += passing
            self._left -= step
            at += step
        return out

    def _open(self, out: bytearray) -> None:
        """Begin a frame, once its header is there.  One of a server is not masked."""
        header = self._header
        more = {126: 2, 127: 8}.get(header[1] & 0x7F, 0) if len(header) > 1 else 1
        if len(header) < 2 + more:
            return
        masked = bool(header[1] & 0x80)
        self._left = (int.from_bytes(header[2:], "big") if more else header[1] & 0x7F) + 4 * masked
        self._data = header[0] & 0x0F in _DATA_FRAMES and not masked
        if not self._data:
            out += header
        header.clear()


Feed = Callable[[memoryview], memoryview | bytearray]
"""`Packets.feed` or `Frames.feed`."""


def _header(data: memoryview, at: int) -> tuple[int, int] | None:
    """Where the fixed header of a packet that begins at `at` ends, and the length it gives; `None` for too few bytes.

    A length of more than four bytes is none: paho ends the connection for it.
    """
    length = 0
    for i in range(4):
        if at + 1 + i >= len(data):
            return None
        byte = data[at + 1 + i]
        length |= (byte & 0x7F) << (7 * i)
        if not byte & 0x80:
            return at + 2 + i, length
    return at + 5, 0


def _head_bytes(held: bytearray, begin: int) -> int:
    """Where the topic and the packet identifier of a PUBLISH end, or how many bytes it takes to know."""
    if len(held) < begin + 2:
        return begin + 2
    return begin + 2 + int.from_bytes(held[begin : begin + 2], "big") + (2 if held[0] & 0x06 else 0)


def _length(length: int) -> bytes:
    """The length of a packet as its header has it."""
    written = bytearray()
    while True:
        length, seven = divmod(length, 128)
        written.append(seven | (0x80 if length else 0))
        if not length:
            return bytes(written)


def _frame_header(length: int) -> bytes:
    if length < 126:
        return bytes([_BINARY, length])
    wide = length >= 1 << 16
    return bytes([_BINARY, 127 if wide else 126]) + length.to_bytes(8 if wide else 2, "big")


def _joined(out: bytearray | None, more: memoryview | bytes) -> bytearray:
    out = bytearray() if out is None else out
    out += more
    return out
