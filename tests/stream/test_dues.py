"""Streams that are due: found as a look at each of them finds them, and without one."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pytest

from gon_edge.stream.dues import Dues


@dataclass(eq=False)
class Due:
    """A stream as far as it matters here."""

    name: str
    due_at: float
    looks: int = 0

    def __getattribute__(self, name: str):
        if name == "due_at":
            self.looks += 1
        return object.__getattribute__(self, name)


@pytest.mark.parametrize("seed", range(5))
def test_the_streams_that_are_due_are_those_that_a_look_at_each_finds(seed: int) -> None:
    rng = np.random.default_rng(seed)
    dues = Dues()
    streams: list[Due] = []
    now = 0.0
    for _ in range(400):
        now += rng.exponential(0.5)
        match rng.integers(5):
            case 0:
                streams.append(Due(f"s{len(streams)}", now + rng.choice([0.3, 5.0, math.inf])))
                dues.touch(streams[-1])
            case 1 if streams:
                gone = streams.pop(rng.integers(len(streams)))
                dues.drop(gone)
            case _ if streams:
                moved = streams[rng.integers(len(streams))]
                moved.due_at = now + rng.choice([0.1, 2.0, 60.0, math.inf])
                dues.touch(moved)
        assert dues.next_at == min((stream.due_at for stream in streams), default=math.inf)
        due = dues.take(now)
        assert [stream.name for stream in due] == [stream.name for stream in streams if stream.due_at <= now]
        for stream in due:
            stream.due_at += rng.choice([1.0, math.inf])
            dues.touch(stream)


def test_a_round_does_not_look_at_streams_that_are_not_due() -> None:
    dues = Dues()
    streams = [Due(f"s{i}", 100.0 + i) for i in range(1000)]
    for stream in streams:
        dues.touch(stream)
    assert dues.take(99.0) == []
    looked = sum(stream.looks for stream in streams)
    for _ in range(100):
        assert dues.take(99.5) == []
    assert sum(stream.looks for stream in streams) == looked


def test_a_stream_that_is_heard_each_second_does_not_fill_the_heap() -> None:
    dues = Dues()
    stream = Due("pump", math.inf)
    for second in range(1000):
        stream.due_at = second + 1.5  # a row waits
        dues.touch(stream)
        dues.take(second + 0.1)
        stream.due_at = second + 60.0  # the row is out: what is left is the stream's silence
        dues.touch(stream)
        dues.take(second + 0.9)
    assert len(dues._heap) < 100
