"""Packing: what a chunk keeps exactly, what it costs, and what it refuses."""

import tracemalloc
import zlib

import numpy as np
import pytest

from gon_edge.state.chunk import RowChunk, decode, encode, outline, requarantine, restamp


def packed(values: np.ndarray) -> tuple[np.ndarray, int]:
    """Values after packing, and the bytes it took."""
    values = np.asarray(values, np.float32)
    N, F = values.shape
    flags = np.zeros(N, np.bool_)
    names = tuple(f"f{i}" for i in range(F))
    payload = encode("s", RowChunk(names, 1e9 + np.arange(N), values, flags, flags))
    return decode(("s",), names, payload).values, len(payload)


def test_values_with_few_decimals_come_back_exactly():
    values = np.round(20 + 0.5 * np.random.default_rng(0).normal(size=(900, 4)), 2).astype(np.float32)
    np.testing.assert_array_equal(packed(values)[0], values)


def test_noise_comes_back_to_a_thirtysecond_of_its_change():
    values = np.random.default_rng(0).normal(size=(900, 16)).astype(np.float32)
    change = np.median(np.abs(np.diff(values, axis=0)), axis=0)
    back, size_bytes = packed(values)
    assert (np.abs(back - values).max(axis=0) <= 1.001 * change / 32).all()
    assert size_bytes * 8 / values.size < 6.6


def test_a_spike_does_not_blur_the_rest():
    values = np.random.default_rng(0).normal(size=(900, 1)).astype(np.float32)
    values[450] = 1e4
    back, _ = packed(values)
    assert np.abs(back - values).max() <= 1.001 * 1e4 / 65534 / 2 + 1e4 * 2**-24


def test_constant_and_empty_features_cost_next_to_nothing():
    values = np.full((900, 16), 230.5, np.float32)
    values[:, 8:] = np.nan
    back, size_bytes = packed(values)
    np.testing.assert_array_equal(back, values)
    assert size_bytes < 200


def unpacked_chunk() -> bytes:
    rows = RowChunk(("a",), np.arange(3.0), np.float32([[1], [2], [4]]), np.zeros(3, np.bool_), np.zeros(3, np.bool_))
    return zlib.decompress(encode("s", rows))


def test_restamping_moves_every_row_and_touches_nothing_else():
    rng = np.random.default_rng(0)
    values = rng.normal(size=(300, 2)).astype(np.float32)
    values[rng.random((300, 2)) < 0.1] = np.nan
    chunk = RowChunk(("a", "b"), np.arange(300) + 0.125, values, rng.random(300) < 0.1, rng.random(300) < 0.1)
    before = decode(("s",), chunk.features, encode("s", chunk))
    after = decode(("s",), chunk.features, restamp(("s",), chunk.features, encode("s", chunk), 1.7e9 + 0.25))
    np.testing.assert_array_equal(after.timestamps, chunk.timestamps + 1.7e9 + 0.25)
    for name in ("values", "restart", "quarantined"):
        np.testing.assert_array_equal(getattr(before, name), getattr(after, name))


def test_a_chunk_that_says_it_has_no_rows_is_refused():
    # Found by fuzzing: numpy takes a count of -1 for "all that is left".
    content = unpacked_chunk()
    assert len(decode(("s",), ("a",), zlib.compress(content)).timestamps) == 3
    empty = zlib.compress(content[:5] + bytes(4) + content[9:])
    marked, moved = lambda *chunk: requarantine(*chunk, 0.0, 9.0, True), lambda *chunk: restamp(*chunk, 1.0)
    for read in (decode, outline, marked, moved):
        with pytest.raises(ValueError, match="another version, stream or feature set"):
            read(("s",), ("a",), empty)


def test_a_chunk_that_unpacks_to_gigabytes_is_refused_before_it_has():
    bomb = zlib.compress(unpacked_chunk() + bytes(64 << 20))
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match="larger than any chunk"):
            decode(("s",), ("a",), bomb)
        assert tracemalloc.get_traced_memory()[1] < 40 << 20
    finally:
        tracemalloc.stop()


def test_a_chunk_of_another_stream_is_refused():
    flags = np.zeros(3, np.bool_)
    payload = encode("a", RowChunk(("x",), np.arange(3.0), np.ones((3, 1), np.float32), flags, flags))
    with pytest.raises(ValueError, match="another"):
        decode(("b",), ("x",), payload)
    with pytest.raises(ValueError, match="another"):
        decode(("a",), ("y",), payload)
    assert len(decode(("b", "a"), ("x",), payload).timestamps) == 3  # b was called a when it was written
