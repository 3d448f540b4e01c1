"""A bounded queue of messages that have arrived and are not scored yet.

The network thread puts them in, the scoring thread takes them out.  Knows neither brokers nor payloads.  A new field of
:class:`Message` needs its place in ``_HEADER``.
"""

from __future__ import annotations

import struct
import threading
from collections import deque
from collections.abc import Iterable
from typing import NamedTuple

# A block holds so many bytes before the next one begins.  No less than the threshold from which glibc maps a block by
# itself (`process.memory.tame_malloc`), so that it leaves the process when it has been read.
_BLOCK_BYTES = 64 << 10
_HEADER = struct.Struct("IId?B")  # of a message: bytes of topic and payload, when received, retained, QoS


class Message(NamedTuple):
    """One message from the broker.

    Attributes
    ----------
    topic : str
    payload : bytes
    received_at : float
        Seconds of ``CLOCK_BOOTTIME`` when its bytes were read from the socket.
    retained : bool
        It lay in the broker before we asked: not fresh.
    qos : int
        Quality of service with which it came, 0 to 2.
    """

    topic: str
    payload: bytes
    received_at: float
    retained: bool
    qos: int = 1


class MessageQueue:
    """A first-in first-out queue between two threads.  When it is full, the oldest message goes.

    Messages lie one behind the other in blocks.  The allocator maps each block by itself, so a block leaves the process
    when it has been read.  As objects of their own, messages lay all over the heap: once the queue had been full,
    14 MiB were never given back.

    Parameters
    ----------
    max_messages : int
    max_bytes : int
        Of topics and payloads together, bytes.

    Attributes
    ----------
    dropped : int
        Messages that had to go, since the start.
    """

    def __init__(self, max_messages: int, max_bytes: int) -> None:
        self.dropped = 0
        self._max_messages = max_messages
        self._max_bytes = max_bytes
        self._blocks: deque[bytearray] = deque()
        self._start = 0  # of the oldest message, in the first block
        self._count = self._bytes = 0
        self._arrived = threading.Condition(threading.Lock())

    def __len__(self) -> int:
        return self._count

    def put(self, message: Message) -> None:
        """Append one message; see :meth:`put_many`."""
        self.put_many((message,))

    def put_many(self, messages: Iterable[Message]) -> None:
        """Append `messages` in one lock round, wake a waiting :meth:`get_batch`, never block for room."""
        with self._arrived:
            for message in messages:
                if not self._blocks or len(self._blocks[-1]) >= _BLOCK_BYTES:
                    self._blocks.append(bytearray())
                block, topic = self._blocks[-1], message.topic.encode()
                block += _HEADER.pack(
                    len(topic), len(message.payload), message.received_at, message.retained, message.qos
                )
                block += topic
                block += message.payload
                self._count += 1
                self._bytes += len(topic) + len(message.payload)
                while self._count and (self._count > self._max_messages or self._bytes > self._max_bytes):
                    self._pop()
                    self.dropped += 1
            self._arrived.notify()

    def get_batch(self, max_n: int, timeout: float) -> list[Message]:
        """Return up to `max_n` messages, oldest first; an empty list when none came within `timeout` seconds."""
        with self._arrived:
            if not self._count:
                self._arrived.wait(timeout)
            return [self._pop() for _ in range(min(max_n, self._count))]

    def wake(self) -> None:
        """End a waiting :meth:`get_batch` early, with what there is."""
        with self._arrived:
            self._arrived.notify()

    def _pop(self) -> Message:
        block, at = self._blocks[0], self._start + _HEADER.size
        topic_bytes, payload_bytes, received_at, retained, qos = _HEADER.unpack_from(block, self._start)
        self._start = at + topic_bytes + payload_bytes
        topic, payload = block[at : at + topic_bytes].decode(), bytes(block[at + topic_bytes : self._start])
        if self._start == len(block):
            self._blocks.popleft()
            self._start = 0
        self._count -= 1
        self._bytes -= topic_bytes + payload_bytes
        return Message(topic, payload, received_at, retained, qos)
