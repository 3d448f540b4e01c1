"""The queue between network and scoring thread, packed in blocks, against a plain list."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from gon_edge.links.mqtt.queue import Message, MessageQueue

messages = st.builds(
    Message,
    topic=st.text(st.characters(exclude_categories=["Cs"]), max_size=8),
    payload=st.binary(max_size=12) | st.integers(0, 70_000).map(bytes),
    received_at=st.floats(allow_nan=False),
    retained=st.booleans(),
    qos=st.integers(0, 2),
)


class Naive:
    """What MessageQueue does, as its docstring says it."""

    def __init__(self, max_messages: int, max_bytes: int) -> None:
        self.bounds = max_messages, max_bytes
        self.messages: list[Message] = []
        self.dropped = 0

    def put_many(self, arrived: list[Message]) -> None:
        for message in arrived:
            self.messages.append(message)
            while len(self.messages) > self.bounds[0] or self.size_bytes > self.bounds[1]:
                del self.messages[0]
                self.dropped += 1

    def get_batch(self, max_n: int) -> list[Message]:
        batch, self.messages = self.messages[:max_n], self.messages[max_n:]
        return batch

    @property
    def size_bytes(self) -> int:
        return sum(len(message.topic.encode()) + len(message.payload) for message in self.messages)


@given(
    st.integers(1, 20),
    st.sampled_from([10, 100, 1_000_000]),
    st.lists(st.lists(messages, max_size=10) | st.integers(0, 12), max_size=30),
)
def test_messages_come_out_as_they_went_in_and_the_oldest_go_first(
    max_messages: int, max_bytes: int, steps: list[list[Message] | int]
) -> None:
    queue, naive = MessageQueue(max_messages, max_bytes), Naive(max_messages, max_bytes)
    for step in steps:
        if isinstance(step, int):
            assert queue.get_batch(step, 0.0) == naive.get_batch(step)
        else:
            queue.put_many(step)
            naive.put_many(step)
        assert (len(queue), queue.dropped) == (len(naive.messages), naive.dropped)
    assert queue.get_batch(1000, 0.0) == naive.messages
