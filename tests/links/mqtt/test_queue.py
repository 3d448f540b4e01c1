"""The queue between network and scoring thread; ``property/test_mqtt_properties`` holds it against a plain list."""

from __future__ import annotations

import threading
import time

from gon_edge.links.mqtt.queue import Message, MessageQueue


def message(text: str) -> Message:
    return Message("t", text.encode(), 0.0, False)


def test_a_full_queue_drops_the_oldest_and_counts_it() -> None:
    queue = MessageQueue(max_messages=3, max_bytes=1000)
    queue.put_many(message(str(i)) for i in range(5))
    assert [m.payload for m in queue.get_batch(10, 0)] == [b"2", b"3", b"4"]
    assert queue.dropped == 2


def test_bytes_bound_the_queue_as_well() -> None:
    queue = MessageQueue(max_messages=100, max_bytes=22)
    for text in ("a" * 10, "b" * 10, "c" * 10):  # 11 bytes each, topic included
        queue.put(message(text))
    assert [m.payload[:1] for m in queue.get_batch(10, 0)] == [b"b", b"c"]
    queue.put(message("x" * 30))
    assert (len(queue), queue.dropped) == (0, 2)
    queue.put(message("fits"))
    assert len(queue) == 1


def test_a_batch_is_no_larger_than_asked_for_and_keeps_the_order() -> None:
    queue = MessageQueue(100, 10_000)
    queue.put_many(message(str(i)) for i in range(10))
    batches = [queue.get_batch(4, 0) for _ in range(4)]
    assert [len(batch) for batch in batches] == [4, 4, 2, 0]
    assert [m.payload for batch in batches for m in batch] == [str(i).encode() for i in range(10)]


def test_a_waiting_reader_wakes_when_something_arrives_and_when_told() -> None:
    queue = MessageQueue(100, 10_000)
    for wake in (lambda: queue.put(message("x")), queue.wake):
        threading.Timer(0.05, wake).start()
        began = time.monotonic()
        queue.get_batch(10, timeout=10)
        assert time.monotonic() - began < 5
