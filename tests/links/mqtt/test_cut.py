"""Messages too large to be kept, against a naive reader of packets."""

from __future__ import annotations

import itertools

from hypothesis import given, settings
from hypothesis import strategies as st

from gon_edge.links.mqtt import cut
from gon_edge.links.mqtt.cut import Cut, Frames, Packets, most_packet_bytes

LIMIT = 100
LARGE = most_packet_bytes(LIMIT)


def length(value: int) -> bytes:
    written = bytearray()
    while True:
        value, seven = divmod(value, 128)
        written.append(seven | (0x80 if value else 0))
        if not value:
            return bytes(written)


def publish(topic: str, payload: bytes, *, qos: int = 1, mqtt_5: bool = False, mid: int = 7) -> bytes:
    name = topic.encode()
    body = len(name).to_bytes(2, "big") + name + (mid.to_bytes(2, "big") if qos else b"") + (b"\0" if mqtt_5 else b"")
    return bytes([0x30 | qos << 1]) + length(len(body) + len(payload)) + body + payload


def packets_of(data: bytes) -> list[bytes]:
    """The naive reader: all of it is there."""
    found, at = [], 0
    while at < len(data):
        size = shift = 0
        end = at + 1
        while True:
            size |= (data[end] & 0x7F) << shift
            shift += 7
            end += 1
            if not data[end - 1] & 0x80:
                break
        found.append(data[at : end + size])
        at = end + size
    return found


def fed(feed: cut.Feed, data: bytes, sizes: list[int]) -> bytes:
    """What passes of `data`, given in pieces of these sizes, again and again."""
    passed, at = b"", 0
    for size in itertools.cycle(sizes):
        if at >= len(data):
            return passed
        passed += bytes(feed(memoryview(bytearray(data[at : at + size]))))
        at += size
    return passed


def frames(data: bytes, size: int) -> bytes:
    """`data` in WebSocket frames of `size` bytes, with a ping before each."""
    out = b""
    for at in range(0, len(data), size):
        part = data[at : at + size]
        wide = len(part) >= 1 << 16
        header = (
            bytes([0x82, len(part)])
            if len(part) < 126
            else bytes([0x82, 127 if wide else 126]) + len(part).to_bytes(8 if wide else 2, "big")
        )
        out += b"\x89\x02hi" + header + part
    return out


def carried(framed: bytes) -> tuple[bytes, bytes]:
    """What the data frames carry, and what the others do: the naive reader."""
    data = other = b""
    at = 0
    while at < len(framed):
        size, end = framed[at + 1] & 0x7F, at + 2
        if size >= 126:
            wide = 8 if size == 127 else 2
            size, end = int.from_bytes(framed[end : end + wide], "big"), end + wide
        if framed[at] == 0x82:
            data += framed[end : end + size]
        else:
            other += framed[at : end + size]
        at = end + size
    return data, other


packet = st.one_of(
    st.builds(
        publish,
        st.sampled_from(["t", "telemetry/pümp", ""]),
        st.sampled_from([0, 1, LIMIT, LIMIT + 1, LARGE - 20, LARGE, 2 * LARGE]).map(bytes),
        qos=st.sampled_from([0, 1, 2]),
    ),
    st.sampled_from([b"\xd0\0", b"\x90\x03\0\x01\x01", bytes([0x90]) + length(LARGE + 5) + bytes(LARGE + 5)]),
)


@settings(max_examples=20)
@given(st.lists(packet, max_size=6), st.lists(st.sampled_from([1, 2, 3, 1000, 65536]), min_size=2, max_size=5))
def test_what_passes_is_what_came_but_for_large_messages(sent: list[bytes], sizes: list[int]) -> None:
    packets = Packets(LIMIT, mqtt_5=False)
    passed = packets_of(fed(packets.feed, b"".join(sent), [*sizes, 50_000]))
    assert len(passed) == len(sent)
    for ours, theirs in zip(passed, sent, strict=True):
        if ours != theirs:
            assert theirs[0] >> 4 == 3
            assert len(theirs) > LARGE
            assert len(ours) < LIMIT + 60
            assert ours[0] == theirs[0]
    assert len(packets.cut) == sum(ours != theirs for ours, theirs in zip(passed, sent, strict=True))
    assert all(len(ours) < LARGE + 10 or ours[0] >> 4 != 3 for ours in passed)


@settings(max_examples=20)
@given(st.integers(1, 200_000), st.sampled_from([0, 1, 2]), st.booleans(), st.integers(1, 70_000))
def test_a_stand_in_has_topic_flags_and_identifier_and_is_too_large_by_one(
    over: int, qos: int, mqtt_5: bool, size: int
) -> None:
    sent = publish("telemetry/pump", b"x" * (LARGE + over), qos=qos, mqtt_5=mqtt_5, mid=513)
    after = publish("t", b"small", mqtt_5=mqtt_5)
    packets = Packets(LIMIT, mqtt_5=mqtt_5)
    passed = fed(packets.feed, sent + after, [size])
    assert passed == publish("telemetry/pump", bytes(LIMIT + 1), qos=qos, mqtt_5=mqtt_5, mid=513) + after
    assert packets.cut == [Cut("telemetry/pump", LARGE + over + mqtt_5)]


def test_while_a_large_message_comes_paho_sees_that_the_broker_is_alive() -> None:
    packets = Packets(LIMIT, mqtt_5=False)
    sent = memoryview(bytearray(publish("t", bytes(1_000_000))))
    pieces = [len(packets.feed(sent[at : at + 20_000])) for at in range(0, len(sent), 20_000)]
    assert all(piece >= 1 for piece in pieces)


def test_a_block_without_a_large_message_is_not_copied() -> None:
    block = memoryview(bytearray(publish("t", b"1") * 3 + b"\xd0\0"))
    assert Packets(LIMIT, mqtt_5=False).feed(block) is block


@settings(max_examples=20)
@given(st.sampled_from([1, 125, 126, 65_535, 65_536, 300_000]), st.sampled_from([1, 7, 65_536]))
def test_frames_carry_on_what_passes(frame: int, block: int) -> None:
    if frame < 126 and block < 100:
        frame, block = 125, 100
    messages = publish("a", b"1") + publish("large", bytes(LARGE + 1000)) + publish("b", b"2")
    framed = frames(messages, frame)
    packets = Packets(LIMIT, mqtt_5=False)
    data, other = carried(fed(Frames(packets).feed, framed, [block, 50_000]))
    assert data == publish("a", b"1") + publish("large", bytes(LIMIT + 1)) + publish("b", b"2")
    assert other == carried(framed)[1]
    assert [one.topic for one in packets.cut] == ["large"]


@settings(max_examples=100)
@given(st.lists(st.binary(max_size=300), max_size=8), st.booleans(), st.booleans())
def test_no_bytes_make_it_fail_or_grow(pieces: list[bytes], mqtt_5: bool, framed: bool) -> None:
    packets = Packets(LIMIT, mqtt_5=mqtt_5)
    feed = Frames(packets).feed if framed else packets.feed
    passed = sum(len(feed(memoryview(bytearray(piece)))) for piece in pieces)
    came = sum(map(len, pieces))
    assert passed <= 2 * came + len(packets.cut) * (LIMIT + 80) + 16
