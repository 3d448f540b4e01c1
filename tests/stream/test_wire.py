"""The wire format of Protocol Buffers, beside the library of that name."""

import random

import pytest
from sparkplugs import Metric, Payload

from gon_edge.stream.wire import double, fields


def test_every_kind_of_field_is_read_as_the_library_wrote_it():
    metric = Metric(name="flow", alias=2**64 - 1, datatype=300, is_null=True, float_value=1.5)
    assert list(fields(metric.SerializeToString())) == [
        (1, 2, b"flow"),
        (2, 0, 2**64 - 1),
        (4, 0, 300),
        (7, 0, 1),
        (12, 5, b"\x00\x00\xc0\x3f"),
    ]
    (field,) = fields(Metric(double_value=-0.1).SerializeToString())
    assert field[:2] == (13, 1)
    assert double(field[2]) == -0.1
    assert double(b"\x00\x00\xc0\x3f") == 1.5


def test_random_messages_have_the_fields_the_library_finds():
    rng = random.Random(3)
    for _ in range(300):
        wanted = Payload(timestamp=rng.getrandbits(rng.randrange(65)), seq=rng.randrange(256))
        for _ in range(rng.randrange(5)):
            wanted.metrics.add(name="m" * rng.randrange(300), long_value=rng.getrandbits(64))
        found = list(fields(wanted.SerializeToString()))
        assert {n: v for n, _, v in found if n != 2} == {1: wanted.timestamp, 3: wanted.seq}
        metrics = [{n: v for n, _, v in fields(value)} for number, _, value in found if number == 2]
        assert metrics == [{1: m.name.encode(), 11: m.long_value} for m in wanted.metrics]


@pytest.mark.parametrize(
    ("message", "why"),
    [
        (b"\x80", "does not end"),
        (b"\x08" + b"\xff" * 11, "does not end"),
        (b"\x08", "does not end"),
        (b"\x12\x05ab", "5 bytes, and 2 are left"),
        (b"\x0d\x00", "4 bytes, and 1 are left"),
        (b"\x0b", "no wire type 3"),
        (b"\x00\x00", "without a number"),
    ],
)
def test_bytes_that_are_no_message_are_refused(message, why):
    with pytest.raises(ValueError, match=why):
        list(fields(message))


def test_random_bytes_are_a_message_or_refused_and_end():
    rng = random.Random(5)
    for _ in range(3000):
        message = rng.randbytes(rng.randrange(1, 60))
        try:
            found = list(fields(message))
        except ValueError:
            continue
        assert sum(len(value) if isinstance(value, bytes) else 1 for _, _, value in found) <= len(message)
